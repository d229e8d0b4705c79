//! Who comes by TLS: the handshake, and to whom the connection goes.
//!
//! ```text
//! TCP ─► TLS ─ ALPN ─┬ seawall-follow/1 ─► admitted ─► direct::Pipe ─► Host
//!                    └ h2 ───────────────► gRPC
//! ```

use super::direct::{Answer, PROTOCOL, Pipe};
use super::serving::{NOBODY, Part, Serving};
use super::tls::{self, CONNECT_MAX};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long the listening socket is left alone when the system has no more of something.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection that speaks gRPC.
pub(super) type Caller = io::Result<TlsStream<TcpStream>>;

/// What the next one is held against.
pub(super) type Acceptor = Arc<Mutex<TlsAcceptor>>;

/// Takes whoever comes, until everything stops.
pub(super) async fn open(
    listener: TcpListener,
    acceptor: Acceptor,
    serving: Serving,
    callers: mpsc::Sender<Caller>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
            _ = stop.changed() => return,
        };
        let acceptor = acceptor.lock().clone();
        let (serving, callers) = (serving.clone(), callers.clone());
        // Of one connection alone: what it does wrong is its own.
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(Ok(stream)) = timeout(CONNECT_MAX, acceptor.accept(socket)).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(PROTOCOL) {
                let _ = follow(stream, serving).await;
            } else {
                let _ = callers.send(Ok(stream)).await;
            }
        });
    }
}

async fn follow(mut stream: TlsStream<TcpStream>, serving: Serving) -> io::Result<()> {
    let first = stream.get_ref().1.peer_certificates().and_then(|certificates| certificates.first());
    let names = first.map(|der| tls::names(der)).unwrap_or_default();
    let names = match serving.admitted(names, Part::Follow) {
        Ok(names) => names,
        Err(status) => {
            let answer = Answer::Denied(status.message().to_owned());
            return timeout(CONNECT_MAX, answer.say(&mut stream)).await?;
        }
    };
    let (socket, tls) = stream.into_inner();
    let pipe = Pipe::called(socket, tls.into());
    match serving.host().connected(Some(names), pipe.clone()) {
        None => {
            pipe.answer(&Answer::Away(NOBODY.to_owned()));
            pipe.end().await;
        }
        Some(ear) => {
            pipe.answer(&Answer::Welcome);
            let mut stop = serving.stop();
            let stopped = async move {
                let _ = stop.changed().await;
            };
            // A replica sends no log.
            pipe.run(&*ear, 0, stopped).await;
        }
    }
    Ok(())
}
