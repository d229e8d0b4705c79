//! A primary elsewhere.

use super::image::{Images, status};
use super::serving::{Line, listen};
use super::wire::replication_client::ReplicationClient;
use super::wire::{ImageRequest, StatusReply, StatusRequest};
use super::{Security, cause, invalid, runtime, tls};
use crate::message::Message;
use crate::node::{Dialler, Ear, Wire};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

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
    endpoints: Vec<Endpoint>,
    next: Mutex<usize>,
    given_up: Notify,
    is_secure: bool,
}

impl Remote {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// `InvalidInput` for addresses and credentials that are none; what the system says.
    pub fn new(options: &RemoteOptions) -> io::Result<Remote> {
        tls::install_provider();
        tls::check(&options.security, None)?;
        if options.addresses.is_empty() {
            return Err(invalid("no address"));
        }
        let endpoint = |address: &String| {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let name = if options.name.is_empty() { host } else { &options.name };
            tls::endpoint(&options.security, address, name)
        };
        let endpoints = options.addresses.iter().map(endpoint).collect::<io::Result<_>>()?;
        let runtime = Some(runtime(1)?);
        let is_secure = matches!(options.security, Security::MutualTls(_));
        Ok(Remote { runtime, endpoints, next: Mutex::new(0), given_up: Notify::new(), is_secure })
    }

    fn runtime(&self) -> io::Result<&tokio::runtime::Runtime> {
        self.runtime.as_ref().ok_or_else(|| invalid("closed"))
    }

    async fn client(&self) -> io::Result<ReplicationClient<Channel>> {
        Ok(ReplicationClient::new(within(self.connect()).await?)
            .max_decoding_message_size(Message::BYTES_MAX + AROUND_BYTES)
            .max_encoding_message_size(Message::HEAD_BYTES_MAX + AROUND_BYTES))
    }

    /// To the address whose turn it is. Where that says nothing for a while the next one is tried as well, and so on, and who said
    /// no is asked again, until one answers (as RFC 8305 has it) or all have failed.
    async fn connect(&self) -> io::Result<Channel> {
        let (first, count) = (*self.next.lock(), self.endpoints.len());
        let mut places = (0..).map(|after: usize| first.wrapping_add(after) % count);
        let (mut attempts, mut trying) = (JoinSet::new(), BTreeSet::new());
        let (mut left, mut waits) = (count, false);
        loop {
            let place = places.by_ref().take(count).find(|place| !waits && !trying.contains(place));
            if let Some((place, endpoint)) = place.and_then(|place| Some((place, self.endpoints.get(place)?)))
            {
                let endpoint = endpoint.clone();
                attempts.spawn(async move { (place, endpoint.connect().await) });
                trying.insert(place);
                left = left.saturating_sub(1);
            }
            match timeout(AHEAD, attempts.join_next()).await {
                Ok(Some(Ok((place, Ok(channel))))) => {
                    *self.next.lock() = place;
                    return Ok(channel);
                }
                Ok(Some(Ok((place, Err(error))))) => {
                    trying.remove(&place);
                    waits = left == 0;
                    if waits && trying.is_empty() {
                        return Err(unreachable(&error));
                    }
                }
                Ok(Some(Err(error))) => return Err(io::Error::other(error)),
                Ok(None) => return Err(invalid("no address")),
                Err(_) => waits = false,
            }
        }
    }

    /// Who gets no answer at all may have come to one who wants a certificate, or another one. The alert that says so may be lost
    /// with the connection.
    fn met(&self, said: Status) -> io::Error {
        let is_answer = std::error::Error::source(&said).is_none();
        let error = status(said);
        let hint = match self.is_secure {
            true => "perhaps this side's certificate is not accepted there",
            false => "perhaps certificates are wanted there",
        };
        if is_answer || error.to_string().contains("alert") {
            return error;
        }
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

fn unreachable(error: &tonic::transport::Error) -> io::Error {
    let mut what = cause(error).unwrap_or_else(|| error.to_string());
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
            let mut client = self.client().await?;
            let (sender, receiver) = mpsc::unbounded_channel();
            let line = Line::new(move |parcel| sender.send(parcel).is_ok());
            let stream = client.follow(UnboundedReceiverStream::new(receiver)).await;
            Ok((line, stream.map_err(|said| self.met(said))?.into_inner()))
        };
        let call = async {
            tokio::select! {
                done = within(call) => done,
                () = self.given_up.notified() => Err(io::Error::new(io::ErrorKind::Interrupted, "given up")),
            }
        };
        // Perhaps another one is the primary.
        let (line, mut parcels) = runtime.block_on(call).inspect_err(|_| self.move_on())?;
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
        let addresses: Vec<String> =
            self.endpoints.iter().map(|endpoint| endpoint.uri().to_string()).collect();
        f.debug_struct("Remote").field("addresses", &addresses).finish_non_exhaustive()
    }
}
