//! Nodes in different processes: the protocols' messages, and a store's and a coordinator's services, by gRPC over mutually
//! authenticated TLS.
//!
//! ```text
//! Coordinator ──Transport::send──► queue a peer ──► stream ═══TLS═══► Peers::Deliver ──► Coordinator::deliver
//!                                                  (one a peer, opened anew with back-off when it ends)
//! clients ═══TLS═══► Participant, Coordinator services ──► stores
//! ```
//!
//! The protocols live with messages that are lost, repeated and reordered, so nothing is queued for a peer that is away
//! beyond [`Limits::queue`], and nothing is answered. *Who* says something they do rely on: a message is taken only from a
//! connection whose certificate bears the name that its sender is known by ([`Peer::name`]), and a service's call only from
//! one whose certificate bears a name that may make it. Without certificates ([`Security::PlainText`]) nothing is served but
//! on loopback, unless that is asked for.
//!
//! This is the one place with an asynchronous runtime, of its own; it ends with the [`Network`].

#![expect(
    clippy::disallowed_methods,
    reason = "behind the seam: sockets, their clock and their threads are this module's"
)]

use crate::coordinator::{Coordinator, Transport};
use crate::error::{Error, Result};
use crate::id::NodeId;
use crate::message::Message;
use crate::store::Store;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

mod coordinating;
pub(crate) mod fuzzing;
mod incoming;
mod outgoing;
mod participating;
mod status;
mod tls;

/// Generated from `txn/proto`: see `tests/generated.rs`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::disallowed_types)]
#[rustfmt::skip]
#[path = "net/generated/seawall.txn.v1.rs"]
pub mod wire;

pub use tls::Credentials;

/// The version of the conversation between nodes that this program speaks.
pub const VERSION: u32 = 3;

/// Another node.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name among nodes.
    pub node: NodeId,
    /// Where it listens, as `host:port`.
    pub address: String,
    /// The DNS name in its certificate.
    pub name: String,
}

/// How connections are protected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Security {
    /// Both sides show a certificate.
    MutualTls(Credentials),
    /// None: whoever reaches the address is believed. Refused but on loopback, unless `anywhere`.
    PlainText {
        /// On any address.
        anywhere: bool,
    },
}

/// What is taken from others.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one request or parcel.
    pub request_bytes: usize,
    /// Messages that wait for a peer; more are dropped, and asked for again by the protocols.
    pub queue: usize,
    /// Messages a second from one connection; beyond that it is read more slowly.
    pub messages_per_s: u32,
    /// Calls a second of services by one connection; beyond that they are refused.
    pub calls_per_s: u32,
    /// Branches that clients have begun and not ended.
    pub branches: usize,
    /// How long a branch may be worked in, whatever its client does, before it is given up; and how long it then may wait to be
    /// prepared. How long an outcome is remembered for a client that has not heard it; of no more than `branches` of them.
    pub branch_age: Duration,
    /// Branches that clients work in at a time, each with a thread of its own; more are refused.
    pub streams: usize,
    /// Calls that wait for an outcome at a time; more are refused, before they have done anything.
    pub waits: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_bytes: 16 << 20,
            queue: 8192,
            messages_per_s: 1_000_000,
            calls_per_s: 100_000,
            branches: 1024,
            branch_age: Duration::from_secs(60),
            streams: 256,
            waits: 128,
        }
    }
}

/// Threads for calls into the store beside those that [`Limits`] caps: a verb never waits for who waits for it.
const THREADS_FREE: usize = 128;

impl Limits {
    fn threads(&self) -> usize {
        self.streams.saturating_add(self.waits).saturating_add(THREADS_FREE)
    }
}

/// Where a node listens, whom it knows, and how they trust each other.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// The node's own name.
    pub node: NodeId,
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// Names in certificates of those that are no nodes and may call the services.
    pub clients: Vec<String>,
    /// How connections are protected.
    pub security: Security,
    /// What is taken from others.
    pub limits: Limits,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkStats {
    /// Messages handed to a connection.
    pub sent: u64,
    /// Messages taken.
    pub received: u64,
    /// Messages dropped: no such peer, it is away, or it is too slow.
    pub dropped: u64,
    /// Messages and calls refused: malformed, or from somebody who may not.
    pub refused: u64,
    /// Connections to peers made.
    pub connected: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    connected: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the tasks share.
struct Shared {
    options: NetworkOptions,
    counters: Counters,
    peers: Mutex<BTreeMap<NodeId, Known>>,
}

/// A peer: what its certificate bears, and what waits for it.
struct Known {
    name: String,
    queue: mpsc::Sender<Message>,
}

/// A node's connections. Dropping it closes them.
pub struct Network {
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
    listener: Mutex<Option<TcpListener>>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Network {
    /// Listens, and connects to peers as there is something to say to them. Nothing is answered before
    /// [`serve`](Network::serve).
    ///
    /// # Errors
    /// `BadInput` for credentials that are none, and for plain text where it is not allowed; `Foreign` with what the system
    /// says.
    pub fn bind(options: NetworkOptions) -> Result<Network> {
        tls::install_provider();
        match &options.security {
            Security::MutualTls(credentials) => credentials.check()?,
            Security::PlainText { anywhere } if !anywhere && !options.listen.ip().is_loopback() => {
                return Err(Error::BadInput(format!(
                    "{} is reached from other machines, and without certificates anybody is believed there",
                    options.listen
                )));
            }
            Security::PlainText { .. } => {}
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("seawall-net")
            .max_blocking_threads(options.limits.threads())
            .enable_io()
            .enable_time()
            .build()
            .map_err(system)?;
        let listener = runtime.block_on(TcpListener::bind(options.listen)).map_err(system)?;
        let address = listener.local_addr().map_err(system)?;
        let shared = Arc::new(Shared { options, counters: Counters::default(), peers: Mutex::default() });
        let (stop, _) = watch::channel(false);
        let network =
            Network { shared, runtime: Some(runtime), listener: Mutex::new(Some(listener)), address, stop };
        for peer in &network.shared.options.peers {
            network.connect(peer)?;
        }
        Ok(network)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another peer, or one that is elsewhere now.
    ///
    /// # Errors
    /// `BadInput` for an address that is none.
    pub fn connect(&self, peer: &Peer) -> Result<()> {
        let Some(runtime) = &self.runtime else { return Err(Error::Closed) };
        let (queue, messages) = mpsc::channel(self.shared.options.limits.queue);
        let endpoint = tls::endpoint(&self.shared.options.security, peer)?;
        let shared = Arc::clone(&self.shared);
        runtime.spawn(outgoing::run(shared, endpoint, messages, self.stop.subscribe()));
        // The task of one that is replaced ends with its queue.
        self.shared.peers.lock().insert(peer.node, Known { name: peer.name.clone(), queue });
        Ok(())
    }

    /// What takes messages to the peers: for [`CoordinatorBuilder::transport`](crate::CoordinatorBuilder::transport).
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(Sending(Arc::clone(&self.shared)))
    }

    /// Answers from now on: messages go to the coordinator, services work on the store, which is attached to it.
    ///
    /// # Errors
    /// `BadInput` if it serves already.
    pub fn serve(&self, coordinator: &Coordinator, store: &Arc<Store>) -> Result<()> {
        let Some(runtime) = &self.runtime else { return Err(Error::Closed) };
        let Some(listener) = self.listener.lock().take() else {
            return Err(Error::BadInput("this network serves already".into()));
        };
        let server = incoming::server(&self.shared, coordinator, store, self.stop.subscribe())?;
        runtime.spawn(async move { server.run(listener).await });
        Ok(())
    }

    /// Counts since the start.
    pub fn stats(&self) -> NetworkStats {
        let counters = &self.shared.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetworkStats {
            sent: load(&counters.sent),
            received: load(&counters.received),
            dropped: load(&counters.dropped),
            refused: load(&counters.refused),
            connected: load(&counters.connected),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.shared.peers.lock().clear();
        if let Some(runtime) = self.runtime.take() {
            // Calls into a store may be under way; they end by themselves.
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("address", &self.address).finish_non_exhaustive()
    }
}

struct Sending(Arc<Shared>);

impl Transport for Sending {
    fn send(&self, message: Message) {
        let counters = &self.0.counters;
        let queue = self.0.peers.lock().get(&message.to).map(|peer| peer.queue.clone());
        if queue.is_none_or(|queue| queue.try_send(message).is_err()) {
            count(&counters.dropped);
        }
    }
}

fn system(error: std::io::Error) -> Error {
    Error::Foreign(Box::new(error))
}
