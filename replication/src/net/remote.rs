//! A primary elsewhere.

use super::image::{Images, status};
use super::serving::{Line, listen};
use super::wire::replication_client::ReplicationClient;
use super::wire::{ImageRequest, StatusReply, StatusRequest};
use super::{Security, invalid, runtime, tls};
use crate::message::Message;
use crate::node::{Dialler, Ear, Wire};
use bytes::Bytes;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// How long a call that is answered at once may take.
const CALL_MAX: Duration = Duration::from_secs(5);
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
        Ok(Remote { runtime: Some(runtime(1)?), endpoints, next: Mutex::new(0) })
    }

    fn runtime(&self) -> io::Result<&tokio::runtime::Runtime> {
        self.runtime.as_ref().ok_or_else(|| invalid("closed"))
    }

    async fn client(&self) -> io::Result<ReplicationClient<Channel>> {
        let place = *self.next.lock() % self.endpoints.len().max(1);
        let endpoint = self.endpoints.get(place).ok_or_else(|| invalid("no address"))?;
        match endpoint.connect().await {
            Ok(channel) => Ok(ReplicationClient::new(channel)
                .max_decoding_message_size(Message::BYTES_MAX + AROUND_BYTES)
                .max_encoding_message_size(Message::HEAD_BYTES_MAX + AROUND_BYTES)),
            Err(error) => {
                self.move_on();
                Err(io::Error::new(io::ErrorKind::NotConnected, error))
            }
        }
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
            let reply = self.client().await?.status(StatusRequest {}).await.map_err(status)?;
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

async fn within<T>(call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(CALL_MAX, call).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer came")),
    }
}

impl Dialler for Remote {
    fn dial(&self, ear: Arc<dyn Ear>) -> io::Result<Arc<dyn Wire>> {
        let runtime = self.runtime()?;
        let call = async {
            let mut client = self.client().await?;
            let (sender, receiver) = mpsc::unbounded_channel();
            let line = Line::new(move |parcel| sender.send(parcel).is_ok());
            let stream = client.follow(UnboundedReceiverStream::new(receiver)).await;
            match stream {
                Ok(stream) => Ok((line, stream.into_inner())),
                Err(refused) => {
                    // Perhaps another one is the primary.
                    self.move_on();
                    Err(status(refused))
                }
            }
        };
        let (line, mut parcels) = runtime.block_on(within(call))?;
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
