//! A primary elsewhere.

use super::direct::{Answer, PROTOCOL, Pipe};
use super::image::{Images, status};
use super::serving::{Line as Stream, listen};
use super::tls::CONNECT_MAX;
use super::wire::replication_client::ReplicationClient;
use super::wire::{ImageRequest, Parcel, StatusReply, StatusRequest};
use super::{Credentials, Security, cause, invalid, runtime, tls};
use crate::message::Message;
use crate::node::{Dialler, Ear, Wire};
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// How long a call that is answered at once may take.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long an address may take before the next one is tried beside it.
const AHEAD: Duration = Duration::from_millis(250);
/// What stands around a message on the wire.
const AROUND_BYTES: usize = 64;

/// Where a primary is.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Where it listens, as `host:port`; of several, the next one is tried after each attempt that fails.
    pub addresses: Vec<String>,
    /// The DNS name in its certificate; empty: the address's own.
    pub name: String,
    /// How connections are protected.
    pub security: Security,
}

/// A primary elsewhere: for a [`Follower`](crate::node::Follower) to dial, and for others to ask.
pub struct Remote {
    runtime: Option<tokio::runtime::Runtime>,
    options: RemoteOptions,
    ways: Mutex<Arc<Ways>>,
    next: Mutex<usize>,
    given_up: Notify,
    is_secure: bool,
}

/// Each address in both ways.
struct Ways {
    endpoints: Vec<Endpoint>,
    /// None without certificates.
    direct: Vec<Direct>,
}

/// Where somebody listens, and what is shown there.
#[derive(Clone)]
struct Direct {
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
}

/// A connection that was made.
enum Line {
    Direct(Arc<Pipe>),
    Grpc(Arc<Stream>, Box<Streaming<Parcel>>),
}

/// What an attempt at an address has come to.
enum Met {
    Direct(Arc<Pipe>),
    /// It knows no way but gRPC: an older node.
    Older,
}

impl Direct {
    async fn follow(self) -> io::Result<Met> {
        let late = |_| io::Error::new(io::ErrorKind::NotConnected, "no connection came about in time");
        let failed = |error: io::Error| not_connected(error.to_string());
        let connect = timeout(CONNECT_MAX, TcpStream::connect(&self.address)).await;
        let socket = connect.map_err(late)?.map_err(failed)?;
        socket.set_nodelay(true)?;
        let connect = timeout(CONNECT_MAX, self.connector.connect(self.name, socket)).await;
        let mut stream = connect.map_err(late)?.map_err(failed)?;
        if stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
            return Ok(Met::Older);
        }
        match Answer::hear(&mut stream).await {
            Ok(Answer::Welcome) => {}
            Ok(Answer::Denied(why)) => return Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            Ok(Answer::Away(why)) => return Err(io::Error::new(io::ErrorKind::NotConnected, why)),
            Err(error) if error.to_string().contains("alert") => return Err(error),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{error}; {NOT_ACCEPTED}"))),
        }
        let (socket, tls) = stream.into_inner();
        Ok(Met::Direct(Pipe::calling(socket, tls.into())))
    }
}

impl Ways {
    fn new(options: &RemoteOptions) -> io::Result<Ways> {
        tls::install_provider();
        tls::check(&options.security, None)?;
        if options.addresses.is_empty() {
            return Err(invalid("no address"));
        }
        let named = |address: &String| {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            if options.name.is_empty() { host.to_owned() } else { options.name.clone() }
        };
        let endpoint = |address: &String| tls::endpoint(&options.security, address, &named(address));
        let endpoints = options.addresses.iter().map(endpoint).collect::<io::Result<_>>()?;
        let direct = match &options.security {
            Security::MutualTls(credentials) => {
                let connector = tls::connector(credentials)?;
                let direct = |address: &String| {
                    let (name, connector) = (tls::server_name(&named(address))?, connector.clone());
                    Ok(Direct { address: address.clone(), name, connector })
                };
                options.addresses.iter().map(direct).collect::<io::Result<_>>()?
            }
            Security::PlainText { .. } => Vec::new(),
        };
        Ok(Ways { endpoints, direct })
    }
}

impl Remote {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// `InvalidInput` for addresses and credentials that are none; what the system says.
    pub fn new(options: &RemoteOptions) -> io::Result<Remote> {
        let ways = Mutex::new(Arc::new(Ways::new(options)?));
        let runtime = Some(runtime(1)?);
        let is_secure = matches!(options.security, Security::MutualTls(_));
        let options = options.clone();
        Ok(Remote { runtime, options, ways, next: Mutex::new(0), given_up: Notify::new(), is_secure })
    }

    /// Connections that are made from now on show these credentials, and are held against them; those that there are stay.
    ///
    /// # Errors
    /// `InvalidInput` for credentials that are none, or where there were none: all stays as it is.
    pub fn renew(&self, credentials: Credentials) -> io::Result<()> {
        if !self.is_secure {
            return Err(invalid("this is plain text"));
        }
        let security = Security::MutualTls(credentials);
        let ways = Ways::new(&RemoteOptions { security, ..self.options.clone() })?;
        *self.ways.lock() = Arc::new(ways);
        Ok(())
    }

    fn runtime(&self) -> io::Result<&tokio::runtime::Runtime> {
        self.runtime.as_ref().ok_or_else(|| invalid("closed"))
    }

    async fn client(&self) -> io::Result<ReplicationClient<Channel>> {
        let ways = self.ways.lock().clone();
        let connect = self.reach(|place| {
            let endpoint = ways.endpoints.get(place).cloned();
            async move {
                let endpoint = endpoint.ok_or_else(|| invalid("no address"))?;
                endpoint.connect().await.map_err(|error| unreachable(&error))
            }
        });
        Ok(ReplicationClient::new(within(connect).await?)
            .max_decoding_message_size(Message::BYTES_MAX + AROUND_BYTES)
            .max_encoding_message_size(Message::HEAD_BYTES_MAX + AROUND_BYTES))
    }

    /// To the address whose turn it is. Where that says nothing for a while the next one is tried as well, and so on, and who said
    /// no is asked again, until one answers (as RFC 8305 has it) or all have failed.
    async fn reach<T, F>(&self, attempt: impl Fn(usize) -> F) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
    {
        let (first, count) = (*self.next.lock(), self.options.addresses.len());
        let mut places = (0..).map(|after: usize| first.wrapping_add(after) % count);
        let (mut attempts, mut trying) = (JoinSet::new(), BTreeSet::new());
        let (mut left, mut waits) = (count, false);
        loop {
            let place = places.by_ref().take(count).find(|place| !waits && !trying.contains(place));
            if let Some(place) = place {
                let attempt = attempt(place);
                attempts.spawn(async move { (place, attempt.await) });
                trying.insert(place);
                left = left.saturating_sub(1);
            }
            match timeout(AHEAD, attempts.join_next()).await {
                Ok(Some(Ok((place, Ok(reached))))) => {
                    *self.next.lock() = place;
                    return Ok(reached);
                }
                Ok(Some(Ok((place, Err(error))))) => {
                    trying.remove(&place);
                    waits = left == 0;
                    if waits && trying.is_empty() {
                        return Err(error);
                    }
                }
                Ok(Some(Err(error))) => return Err(io::Error::other(error)),
                Ok(None) => return Err(invalid("no address")),
                Err(_) => waits = false,
            }
        }
    }

    async fn dial_directly(&self) -> io::Result<Met> {
        let ways = self.ways.lock().clone();
        let reach = self.reach(|place| {
            let direct = ways.direct.get(place).cloned();
            async move { direct.ok_or_else(|| invalid("no address"))?.follow().await }
        });
        within(reach).await
    }

    /// Who gets no answer at all may have come to one who wants a certificate, or another one. The alert that says so may be lost
    /// with the connection.
    fn met(&self, said: Status) -> io::Error {
        let is_answer = std::error::Error::source(&said).is_none();
        let error = status(said);
        if is_answer || error.to_string().contains("alert") {
            return error;
        }
        let hint = match self.is_secure {
            true => NOT_ACCEPTED,
            false => "perhaps certificates are wanted there",
        };
        io::Error::new(error.kind(), format!("{error}; {hint}"))
    }

    fn move_on(&self) {
        let mut next = self.next.lock();
        *next = next.wrapping_add(1);
    }

    /// How far it is, and those that follow it.
    ///
    /// # Errors
    /// What the network, or the other side, says.
    pub fn status(&self) -> io::Result<StatusReply> {
        let ask = async {
            let reply = self.client().await?.status(StatusRequest {}).await.map_err(|said| self.met(said))?;
            Ok(reply.into_inner())
        };
        self.runtime()?.block_on(within(ask))
    }

    /// An image to begin a replica with: a slot of this name keeps the log for it, from before the image is made.
    ///
    /// # Errors
    /// What the network, or the other side, says.
    pub fn first_image(&self, slot: &str) -> io::Result<Images> {
        self.images(ImageRequest { slot: slot.to_owned(), ..ImageRequest::default() })
    }

    /// The store as it stands at a checkpoint; or on from `offset` of the image that says `about` of itself, if it can still be
    /// had: what comes says so of itself. At most so many bytes a second; 0 for no limit.
    ///
    /// # Errors
    /// What the network, or the other side, says.
    pub fn image(&self, about: Bytes, offset: u64, bytes_per_s: u64) -> io::Result<Images> {
        self.images(ImageRequest { about, offset, bytes_per_s, slot: String::new() })
    }

    fn images(&self, request: ImageRequest) -> io::Result<Images> {
        let runtime = self.runtime()?;
        let open = async {
            let client = self.client().await?;
            Images::open(runtime.handle().clone(), client, request).await
        };
        runtime.block_on(open)
    }
}

const NOT_ACCEPTED: &str = "perhaps this side's certificate is not accepted there";

fn unreachable(error: &tonic::transport::Error) -> io::Error {
    not_connected(cause(error).unwrap_or_else(|| error.to_string()))
}

fn not_connected(mut what: String) -> io::Error {
    if what.contains("InvalidContentType") {
        what += "; who listens there seems to speak plain text";
    }
    io::Error::new(io::ErrorKind::NotConnected, what)
}

async fn within<T>(call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(CALL_MAX, call).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer came")),
    }
}

impl Dialler for Remote {
    fn dial(&self, ear: Arc<dyn Ear>, elsewhere: bool) -> io::Result<Arc<dyn Wire>> {
        let runtime = self.runtime()?;
        if elsewhere {
            self.move_on();
        }
        let call = async {
            if self.is_secure
                && let Met::Direct(pipe) = self.dial_directly().await?
            {
                return Ok(Line::Direct(pipe));
            }
            let call = async {
                let mut client = self.client().await?;
                let (sender, receiver) = mpsc::unbounded_channel();
                let line = Stream::new(move |parcel| sender.send(parcel).is_ok());
                let stream = client.follow(UnboundedReceiverStream::new(receiver)).await;
                let stream = stream.map_err(|said| self.met(said))?.into_inner();
                Ok(Line::Grpc(line, Box::new(stream)))
            };
            within(call).await
        };
        let call = async {
            tokio::select! {
                done = call => done,
                () = self.given_up.notified() => Err(io::Error::new(io::ErrorKind::Interrupted, "given up")),
            }
        };
        // Perhaps another one is the primary.
        match runtime.block_on(call).inspect_err(|_| self.move_on())? {
            Line::Direct(pipe) => {
                let wire = Arc::clone(&pipe);
                runtime.spawn(async move { pipe.run(&*ear, Message::BYTES_MAX, pending()).await });
                Ok(wire)
            }
            Line::Grpc(line, mut parcels) => {
                let (closed, wire) = (line.closed(), Arc::clone(&line));
                runtime.spawn(async move {
                    tokio::select! {
                        () = listen(&mut parcels, &*ear) => {}
                        () = closed => {}
                    }
                    ear.lost();
                    line.hang_up();
                });
                Ok(wire)
            }
        }
    }

    fn give_up(&self) {
        self.given_up.notify_one();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("addresses", &self.options.addresses).finish_non_exhaustive()
    }
}
