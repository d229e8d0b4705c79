//! A small HTTP server: figures and health, one request a connection.

use super::Board;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// A request's head.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;
/// Its arrival, and an answer being made.
const PART_MAX: Duration = Duration::from_secs(5);
/// A connection as a whole.
const CONNECTION_MAX: Duration = Duration::from_secs(15);
/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 32;
/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
/// Of Prometheus' text exposition.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

/// Answers until it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(address: &str, board: Arc<Board>) -> io::Result<Server> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(4)
            .thread_name("seawall-http")
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let body = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = listen(listener, board) => {}
                    _ = stopped => {}
                }
            });
            // An answer that is being made may wait for a disk: it is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("seawall-http".to_owned()).spawn(body)?;
        Ok(Server { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen(listener: TcpListener, board: Arc<Board>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Of files there are no more, say.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let board = Arc::clone(&board);
        tokio::spawn(async move {
            // Whoever goes away, or takes too long, has no answer.
            let _ = timeout(CONNECTION_MAX, serve(stream, board)).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, board: Arc<Board>) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let board = Arc::clone(&board);
        async move { Ok::<_, Infallible>(answer(request, board).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PART_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: Request<Incoming>, board: Arc<Board>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".to_owned());
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/health/live" => response(StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/health/ready" => {
            let late = || vec!["the store has not answered for 5 s".to_owned()];
            let reasons = made(move || board.unready()).await.unwrap_or_else(late);
            ready(request.headers(), &reasons)
        }
        "/metrics" => match made(move || board.metrics()).await {
            Some(text) => response(StatusCode::OK, EXPOSITION, text),
            None => response(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "the store has not answered for 5 s\n".to_owned(),
            ),
        },
        _ => {
            let what = "there are /metrics, /health/live and /health/ready\n";
            response(StatusCode::NOT_FOUND, TEXT, what.to_owned())
        }
    }
}

/// What may have to wait for a disk.
async fn made<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(PART_MAX, tokio::task::spawn_blocking(make)).await.ok()?.ok()
}

fn ready(headers: &HeaderMap, reasons: &[String]) -> Response<Full<Bytes>> {
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let wants_json =
        headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|text| text.contains(JSON));
    if wants_json {
        return response(
            status,
            JSON,
            format!("{}\n", json!({ "ready": reasons.is_empty(), "reasons": reasons })),
        );
    }
    let text = match reasons {
        [] => "ready\n".to_owned(),
        reasons => reasons.iter().map(|reason| format!("not ready: {reason}\n")).collect(),
    };
    response(status, TEXT, text)
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
