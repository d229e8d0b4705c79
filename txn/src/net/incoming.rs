//! What comes from others: who may say it, how much of it, and to whom it goes.

use super::coordinating::Coordinating;
use super::participating::Participating;
use super::wire::coordinator_server::CoordinatorServer;
use super::wire::participant_server::ParticipantServer;
use super::wire::peers_server::{Peers, PeersServer};
use super::wire::{Greeting, Introduction, Parcel};
use super::{Error, Limits, Result, Security, Shared, VERSION, count, status, tls};
use crate::coordinator::Coordinator;
use crate::id::NodeId;
use crate::message::Message;
use crate::store::Store;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

const SECOND: Duration = Duration::from_secs(1);
/// One connection's calls and streams that are answered at a time.
const STREAMS: u32 = 256;
/// How long somebody who connects may take to introduce himself.
const INTRODUCTION_MAX: Duration = Duration::from_secs(5);

/// The services, ready to run.
pub(super) struct Server {
    router: Router,
    stop: watch::Receiver<bool>,
    work: Participating,
    global: Coordinating,
    tidied_every: Duration,
}

impl Server {
    /// Until everything stops.
    pub(super) async fn run(mut self, listener: TcpListener) {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let stopped = async move {
            let _ = self.stop.changed().await;
        };
        let (work, global) = (self.work, self.global);
        let tidying = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(self.tidied_every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (work, global) = (work.clone(), global.clone());
                let tidy = move || {
                    work.expire();
                    let _ = global.tidy();
                    Ok(())
                };
                if blocking(tidy).await.is_err() {
                    return;
                }
            }
        });
        // Of the listening socket alone: a connection's errors are its own.
        let _ = self.router.serve_with_incoming_shutdown(incoming, stopped).await;
        tidying.abort();
    }
}

pub(super) fn server(
    shared: &Arc<Shared>,
    coordinator: &Coordinator,
    store: &Arc<Store>,
    stop: watch::Receiver<bool>,
) -> Result<Server> {
    let mut builder = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)));
    if let Security::MutualTls(credentials) = &shared.options.security {
        let tls = tls::server_tls(credentials);
        builder =
            builder.tls_config(tls).map_err(|error| Error::BadInput(format!("credentials: {error}")))?;
    }
    let bytes = shared.options.limits.request_bytes;
    let limits = &shared.options.limits;
    let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
    let gate = Arc::new(Gate {
        shared: Arc::clone(shared),
        calls: Mutex::default(),
        streams: permits(limits.streams),
        waits: permits(limits.waits),
    });
    let hearing = Hearing { gate: Arc::clone(&gate), coordinator: coordinator.clone() };
    let work = Participating::new(&gate, coordinator, store);
    let global = Coordinating::new(&gate, coordinator);
    let tidied_every = (limits.branch_age / 4).clamp(Duration::from_millis(10), SECOND);
    let (for_tidying, tidied) = (work.clone(), global.clone());
    let router = builder
        .add_service(PeersServer::new(hearing).max_decoding_message_size(bytes))
        .add_service(
            ParticipantServer::new(work).max_decoding_message_size(bytes).max_encoding_message_size(bytes),
        )
        .add_service(CoordinatorServer::new(global).max_decoding_message_size(bytes));
    Ok(Server { router, stop, work: for_tidying, global: tidied, tidied_every })
}

/// Who may come in, and how often.
pub(super) struct Gate {
    shared: Arc<Shared>,
    /// By caller: since when, and how many calls.
    calls: Mutex<BTreeMap<String, (Instant, u32)>>,
    /// For what holds a thread for long, so that some are left for what is short.
    streams: Arc<Semaphore>,
    waits: Arc<Semaphore>,
}

/// The names in a caller's certificate; none where there are no certificates, and anybody is believed.
#[derive(Clone)]
struct Caller(Option<Vec<String>>);

impl Caller {
    fn is(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.iter().any(|found| found == name))
    }
}

impl Gate {
    pub(super) fn limits(&self) -> &Limits {
        &self.shared.options.limits
    }

    /// A thread for a branch's stream, as long as this is held.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.permit(&self.streams, "branches are being worked in")
    }

    /// A thread to wait for an outcome on, as long as this is held.
    pub(super) fn wait(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.permit(&self.waits, "calls wait for outcomes")
    }

    fn permit(&self, permits: &Arc<Semaphore>, whose: &str) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(permits).try_acquire_owned();
        permit
            .map_err(|_| self.refuse(status::full(format!("as many {whose} as may be at a time: try later"))))
    }

    fn refuse(&self, status: Status) -> Status {
        count(&self.shared.counters.refused);
        status
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if matches!(self.shared.options.security, Security::PlainText { .. }) {
            return Ok(Caller(None));
        }
        let certificates = request.peer_certs();
        let first = certificates.as_ref().and_then(|certificates| certificates.first());
        let names = first.map(|der| tls::names(der)).unwrap_or_default();
        if names.is_empty() {
            return Err(self.refuse(Status::unauthenticated("a certificate with a DNS name is needed")));
        }
        Ok(Caller(Some(names)))
    }

    fn is_node(&self, caller: &Caller, node: NodeId) -> bool {
        self.shared.peers.lock().get(&node).is_some_and(|peer| caller.is(&peer.name))
    }

    /// Lets a call of a service in: from a node or a client that is known, and not too often.
    pub(super) fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let caller = self.caller(request)?;
        let options = &self.shared.options;
        let is_known = options.clients.iter().any(|name| caller.is(name))
            || self.shared.peers.lock().values().any(|peer| caller.is(&peer.name));
        if caller.0.is_some() && !is_known {
            return Err(self.refuse(Status::permission_denied("this certificate's names are not known here")));
        }
        let from = match caller.0.as_ref().and_then(|names| names.first()) {
            Some(name) => name.clone(),
            None => request.remote_addr().map(|address| address.ip().to_string()).unwrap_or_default(),
        };
        let mut calls = self.calls.lock();
        let (since, calls) = calls.entry(from).or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= SECOND {
            (*since, *calls) = (Instant::now(), 0);
        }
        *calls += 1;
        if *calls > options.limits.calls_per_s {
            return Err(self.refuse(Status::resource_exhausted("too many calls a second")));
        }
        Ok(())
    }
}

struct Hearing {
    gate: Arc<Gate>,
    coordinator: Coordinator,
}

#[tonic::async_trait]
impl Peers for Hearing {
    type DeliverStream = ReceiverStream<Result<Greeting, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<Parcel>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let gate = Arc::clone(&self.gate);
        let caller = gate.caller(&request)?;
        let mut parcels = request.into_inner();
        let first = tokio::time::timeout(INTRODUCTION_MAX, parcels.message())
            .await
            .map_err(|_| gate.refuse(Status::deadline_exceeded("no introduction came")))?
            .map_err(|status| gate.refuse(status))?
            .ok_or_else(|| {
                gate.refuse(Status::invalid_argument("the stream ended without an introduction"))
            })?;
        let introduction =
            first.introduction.ok_or_else(|| gate.refuse(Status::invalid_argument("no introduction")))?;
        let version = gate.greet(&caller, &introduction)?;
        let (greetings, answers) = mpsc::channel(1);
        let _ = greetings.try_send(Ok(Greeting { version }));
        let coordinator = self.coordinator.clone();
        tokio::spawn(async move {
            let mut pace = Pace::new(gate.limits().messages_per_s);
            let mut next = first.messages;
            loop {
                pace.take(next.len()).await;
                if let Err(status) = gate.hear(&caller, &coordinator, next) {
                    let _ = greetings.send(Err(gate.refuse(status))).await;
                    return;
                }
                next = match parcels.message().await {
                    Ok(Some(parcel)) => parcel.messages,
                    // The sender comes again, if it has something to say.
                    Ok(None) | Err(_) => return,
                };
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl Gate {
    /// The version to speak, with one who may speak at all.
    fn greet(&self, caller: &Caller, introduction: &Introduction) -> Result<u32, Status> {
        if introduction.version < VERSION || introduction.version_min > VERSION {
            let spoken = format!("version {VERSION} is spoken here");
            return Err(self.refuse(Status::failed_precondition(spoken)));
        }
        if !self.is_node(caller, NodeId(introduction.from)) {
            let who = format!("this caller is not {}", NodeId(introduction.from));
            return Err(self.refuse(Status::permission_denied(who)));
        }
        Ok(VERSION)
    }

    /// Takes messages, each from a node that the caller may speak for.
    fn hear(&self, caller: &Caller, to: &Coordinator, messages: Vec<Vec<u8>>) -> Result<(), Status> {
        for bytes in messages {
            let message = Message::decode(&bytes)
                .map_err(|error| Status::invalid_argument(format!("a malformed message: {error}")))?;
            if !self.is_node(caller, message.from) {
                return Err(Status::permission_denied(format!("this caller is not {}", message.from)));
            }
            self.shared.counters.received.fetch_add(1, Ordering::Relaxed);
            to.deliver(message);
        }
        Ok(())
    }
}

/// Holds back what comes faster than is allowed: the connection fills, and its sender waits.
struct Pace {
    most: u32,
    since: Instant,
    taken: u32,
}

impl Pace {
    fn new(most: u32) -> Pace {
        Pace { most, since: Instant::now(), taken: 0 }
    }

    async fn take(&mut self, count: usize) {
        let spent = self.since.elapsed();
        if spent >= SECOND {
            (self.since, self.taken) = (Instant::now(), 0);
        } else if self.taken >= self.most {
            tokio::time::sleep(SECOND - spent).await;
            (self.since, self.taken) = (Instant::now(), 0);
        }
        self.taken = self.taken.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

/// A call into the store, off the threads that serve connections.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(status::internal("the call did not end: its thread panicked, or the node is closing")),
    }
}
