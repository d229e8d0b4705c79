//! What comes from others: who may ask for it, and to whom it goes.

use super::wire::replication_server::{Replication, ReplicationServer};
use super::wire::{self, ImagePart, ImageRequest, Parcel, StatusReply, StatusRequest};
use super::{Security, ServerOptions, door, image, tls};
use crate::message::Message;
use crate::node::{Direction, Ear, Host, Link, Wire, micros};
use bytes::Bytes;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

/// One connection's calls that are answered at a time.
const STREAMS: u32 = 64;
/// What stands around a message on the wire.
const AROUND_BYTES: usize = 64;

/// Said to who comes to follow, and is not taken.
pub(super) const NOBODY: &str = "no log is shipped here, or to as many as may be";
/// Connections that wait to be served.
const CALLERS: usize = 16;

/// The services, ready to run.
pub(super) struct Server {
    router: Router,
    /// Without one, nobody is asked who they are.
    acceptor: Option<door::Acceptor>,
    serving: Serving,
}

impl Server {
    /// What whoever comes is held against.
    pub(super) fn acceptor(&self) -> Option<door::Acceptor> {
        self.acceptor.clone()
    }

    /// Until everything stops.
    pub(super) async fn run(self, listener: TcpListener) {
        let mut stop = self.serving.stop();
        let stopped = async move {
            let _ = stop.changed().await;
        };
        // Of the listening socket alone: a connection's errors are its own.
        match self.acceptor {
            Some(acceptor) => {
                let (callers, incoming) = mpsc::channel(CALLERS);
                let stop = self.serving.stop();
                tokio::spawn(door::open(listener, acceptor, self.serving, callers, stop));
                let incoming = ReceiverStream::new(incoming);
                let _ = self.router.serve_with_incoming_shutdown(incoming, stopped).await;
            }
            None => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let _ = self.router.serve_with_incoming_shutdown(incoming, stopped).await;
            }
        }
    }
}

pub(super) fn server(
    options: ServerOptions,
    host: Arc<dyn Host>,
    stop: watch::Receiver<bool>,
) -> io::Result<Server> {
    let mut builder = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(tls::WINDOW_BYTES)
        .initial_connection_window_size(tls::WINDOW_BYTES)
        .http2_keepalive_interval(Some(tls::KEEP_ALIVE))
        .http2_keepalive_timeout(Some(tls::KEEP_ALIVE));
    let acceptor = match &options.security {
        Security::MutualTls(credentials) => {
            Some(Arc::new(Mutex::new(tls::acceptor(credentials, options.direct)?)))
        }
        Security::PlainText { .. } => None,
    };
    let images = Arc::new(Semaphore::new(options.images_max.min(Semaphore::MAX_PERMITS)));
    let serving = Serving { options: Arc::new(options), host, images, stop };
    // A replica says little: no message of its is as long as a head may be.
    let service = ReplicationServer::new(serving.clone())
        .max_decoding_message_size(Message::HEAD_BYTES_MAX + AROUND_BYTES)
        .max_encoding_message_size(Message::BYTES_MAX + AROUND_BYTES);
    Ok(Server { router: builder.add_service(service), acceptor, serving })
}

#[derive(Clone)]
pub(super) struct Serving {
    options: Arc<ServerOptions>,
    host: Arc<dyn Host>,
    images: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

/// What a caller wants to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Follow,
    Copy,
    Ask,
}

impl Serving {
    /// Those names in a caller's certificate that may do this; none where there are no certificates.
    fn admit<T>(&self, request: &Request<T>, part: Part) -> Result<Option<Vec<String>>, Status> {
        if matches!(self.options.security, Security::PlainText { .. }) {
            return Ok(None);
        }
        let certificates = request.peer_certs();
        let first = certificates.as_ref().and_then(|certificates| certificates.first());
        self.admitted(first.map(|der| tls::names(der)).unwrap_or_default(), part).map(Some)
    }

    /// Those of these names that may do this.
    pub(super) fn admitted(&self, mut names: Vec<String>, part: Part) -> Result<Vec<String>, Status> {
        if names.is_empty() {
            return Err(Status::unauthenticated("a certificate with a DNS name is needed"));
        }
        let roles = &self.options.roles;
        let allowed: [&[String]; 2] = match part {
            Part::Follow => [&roles.replicas, &[]],
            Part::Copy => [&roles.replicas, &roles.operators],
            Part::Ask => [&roles.operators, &[]],
        };
        // One that bears other names besides may not speak in those.
        names.retain(|name| allowed.iter().any(|allowed| allowed.contains(name)));
        if names.is_empty() {
            Err(Status::permission_denied("this certificate's names may not"))
        } else {
            Ok(names)
        }
    }

    pub(super) fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// Changes when everything stops.
    pub(super) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }
}

#[tonic::async_trait]
impl Replication for Serving {
    type FollowStream = UnboundedReceiverStream<Result<Parcel, Status>>;
    type ImageStream = ReceiverStream<Result<ImagePart, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<Parcel>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let names = self.admit(&request, Part::Follow)?;
        let mut parcels = request.into_inner();
        // What waits here is bounded by the room that the replica has said there is.
        let (sender, receiver) = mpsc::unbounded_channel();
        let line = Line::new(move |parcel| sender.send(Ok(parcel)).is_ok());
        let closed = line.closed();
        let ear = self.host.connected(names, line.clone());
        let ear = ear.ok_or_else(|| Status::unavailable(NOBODY))?;
        let mut stop = self.stop.clone();
        tokio::spawn(async move {
            let end = async {
                tokio::select! {
                    () = listen(&mut parcels, &*ear) => {}
                    () = closed => {}
                    _ = stop.changed() => {}
                }
            };
            end.await;
            ear.lost();
            line.hang_up();
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver)))
    }

    async fn image(&self, request: Request<ImageRequest>) -> Result<Response<Self::ImageStream>, Status> {
        let names = self.admit(&request, Part::Copy)?;
        let slot = &request.get_ref().slot;
        let is_its = |name: &String| name.split('.').next() == Some(slot.as_str());
        if !slot.is_empty() && names.is_some_and(|names| !names.iter().any(is_its)) {
            return Err(Status::permission_denied("a slot is made for the name in the certificate"));
        }
        let busy = |_| Status::resource_exhausted("as many images are being given away as may be at a time");
        let permit = Arc::clone(&self.images).try_acquire_owned().map_err(busy)?;
        let request = request.into_inner();
        let host = Arc::clone(&self.host);
        let about = request.about.clone();
        let slot = request.slot.clone();
        let make = move || {
            if !slot.is_empty() {
                host.keep(&slot)?;
            }
            host.image(&about)
        };
        let source = tokio::task::spawn_blocking(make).await;
        let source = match source {
            Ok(Ok(source)) => source,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Unsupported => {
                return Err(Status::unimplemented(error.to_string()));
            }
            Ok(Err(error)) => return Err(Status::internal(error.to_string())),
            Err(_) => return Err(Status::internal("the image could not be made")),
        };
        let rate = [Some(request.bytes_per_s).filter(|rate| *rate > 0), self.options.image_bytes_per_s];
        let rate = rate.into_iter().flatten().min();
        let (parts, receiver) = mpsc::channel(image::PARTS);
        tokio::spawn(async move {
            let _permit = permit;
            image::give(source, request, rate, parts).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.admit(&request, Part::Ask)?;
        let host = Arc::clone(&self.host);
        let status = tokio::task::spawn_blocking(move || host.status()).await;
        let status = status.map_err(|_| Status::internal("the status could not be made"))?;
        Ok(Response::new(wire::StatusReply::from(status)))
    }
}

/// Until the connection ends, or says what is no message.
pub(super) async fn listen(parcels: &mut Streaming<Parcel>, ear: &dyn Ear) {
    while let Ok(Some(parcel)) = parcels.message().await {
        let Ok(message) = Message::from_parts(&parcel.head, parcel.body) else { return };
        ear.hear(message);
    }
}

type Sends = Box<dyn Fn(Parcel) -> bool + Send + Sync>;

/// One end of a connection.
pub(super) struct Line {
    /// None once it is closed: the stream then ends behind what was sent.
    sends: parking_lot::Mutex<Option<Sends>>,
    closed: watch::Sender<bool>,
}

impl Line {
    pub(super) fn new(sends: impl Fn(Parcel) -> bool + Send + Sync + 'static) -> Arc<Line> {
        let (closed, _) = watch::channel(false);
        Arc::new(Line { sends: parking_lot::Mutex::new(Some(Box::new(sends))), closed })
    }

    /// Resolves when this side has closed it.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.closed.subscribe();
        async move {
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    pub(super) fn hang_up(&self) {
        let sends = self.sends.lock().take();
        drop(sends);
        self.closed.send_replace(true);
    }
}

impl Wire for Line {
    fn send(&self, message: Message) {
        let (head, body): (Bytes, Bytes) = message.parts();
        let sends = self.sends.lock();
        if let Some(sends) = &*sends {
            sends(Parcel { head, body });
        }
    }

    fn close(&self) {
        self.hang_up();
    }
}

impl From<crate::node::Status> for StatusReply {
    fn from(status: crate::node::Status) -> StatusReply {
        let follower = |of: crate::node::FollowerStatus| wire::Follower {
            name: of.name,
            is_connected: of.is_connected,
            received: of.marks.received.0,
            durable: of.marks.durable.0,
            applied: of.marks.applied.0,
            part: part(of.part),
        };
        StatusReply {
            store_id: Bytes::copy_from_slice(&status.store_id),
            is_replica: status.is_replica,
            epoch: status.epoch,
            promised: status.promised,
            tail_epoch: status.tail.epoch,
            place: status.tail.place.0,
            durable: status.durable.0,
            applied: status.applied.0,
            visible: status.visible.0,
            policy: status.policy.unwrap_or_default(),
            followers: status.followers.into_iter().map(follower).collect(),
            state: status.state,
            links: status.links.into_iter().map(wire::Link::from).collect(),
        }
    }
}

fn part(of: crate::ack::Part) -> String {
    format!("{of:?}").to_lowercase()
}

impl From<Link> for wire::Link {
    fn from(link: Link) -> wire::Link {
        let (retained_by, retained_bytes) =
            link.retained.map_or((String::new(), 0), |retained| (retained.holder, retained.bytes));
        wire::Link {
            name: link.name,
            is_inward: link.direction == Direction::In,
            is_connected: link.is_connected,
            connected_us: micros(link.connected_for),
            silence_us: micros(link.silence),
            sessions: link.sessions,
            errors: link.errors,
            last_error: link.last_error.unwrap_or_default(),
            sent: link.sent.0,
            received: link.marks.received.0,
            durable: link.marks.durable.0,
            applied: link.marks.applied.0,
            visible: link.marks.visible.0,
            source_durable: link.source_durable.0,
            source_visible: link.source_visible.0,
            lag_bytes: link.lag_bytes,
            lag_us: micros(link.lag),
            bytes: link.bytes,
            bytes_per_s: link.bytes_per_s,
            part: link.part.map(part).unwrap_or_default(),
            retained_by,
            retained_bytes,
        }
    }
}
