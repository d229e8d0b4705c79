//! A primary and its replicas in different processes: gRPC over mutually authenticated TLS.
//!
//! ```text
//! Follower ─ Remote (Dialler) ─ Pipe ════TLS════► Server ─ Host ─ Leader      (`direct.rs`; without TLS, gRPC's Follow)
//! copy of a store ─ Remote::image ◄══ ImagePart ══ Server ─ ImageSource
//! operator ─ Remote::status ◄══════ StatusReply ══ Server
//! ```
//!
//! A caller's part is told by the DNS names in its certificate ([`Roles`]): a *replica* may follow and copy, an *operator* may ask
//! for the status and copy. Without certificates ([`Security::PlainText`]) nothing is served but on loopback, unless that is asked
//! for. Connections are kept alive by HTTP/2's pings, beside the protocol's own signs of life.
//!
//! This is the one place with an asynchronous runtime, of its own; it ends with the [`Server`] or the [`Remote`].

#![expect(
    clippy::disallowed_methods,
    reason = "behind the seam: sockets, their clock and their threads are this module's"
)]

use crate::node::Host;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

mod direct;
mod door;
mod image;
mod remote;
mod serving;
mod tls;

/// Generated from `replication/proto`: see `tests/generated.rs`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::disallowed_types)]
#[rustfmt::skip]
#[path = "net/generated/seawall.replication.v1.rs"]
pub mod wire;

pub use image::Images;
pub use remote::{Remote, RemoteOptions};
pub use tls::Credentials;

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

/// Who may do what, by the DNS names in certificates.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// These may follow, and copy the store.
    pub replicas: Vec<String>,
    /// These may ask how far everybody is, and copy the store.
    pub operators: Vec<String>,
}

/// Where a node listens, and for whom.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// How connections are protected.
    pub security: Security,
    /// Who may do what.
    pub roles: Roles,
    /// Bytes a second of each image, at most; none for no limit.
    pub image_bytes_per_s: Option<u64>,
    /// Images that are given away at a time; more are refused.
    pub images_max: usize,
    /// Whether those that can follow straight over TLS, where there are certificates; all others do by gRPC.
    pub direct: bool,
}

impl ServerOptions {
    /// As usual.
    pub fn new(listen: SocketAddr, security: Security, roles: Roles) -> ServerOptions {
        ServerOptions { listen, security, roles, image_bytes_per_s: None, images_max: 2, direct: true }
    }
}

/// Threads that carry the connections of all who call.
const SERVER_THREADS: usize = 2;

/// A node's services. Dropping it closes them.
pub struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    acceptor: Option<door::Acceptor>,
    direct: bool,
}

impl Server {
    /// Listens, and hands who comes to the host.
    ///
    /// # Errors
    /// `InvalidInput` for credentials that are none, and for plain text where it is not allowed; what the system says.
    pub fn bind(options: ServerOptions, host: Arc<dyn Host>) -> io::Result<Server> {
        tls::install_provider();
        tls::check(&options.security, Some(options.listen))?;
        let runtime = runtime(SERVER_THREADS)?;
        let listener = runtime.block_on(TcpListener::bind(options.listen))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let direct = options.direct;
        let server = serving::server(options, host, stopped)?;
        let acceptor = server.acceptor();
        runtime.spawn(server.run(listener));
        Ok(Server { runtime: Some(runtime), address, stop, acceptor, direct })
    }

    /// Who comes from now on is shown these credentials, and held against them; connections that there are stay.
    ///
    /// # Errors
    /// `InvalidInput` for credentials that are none, or where there were none: all stays as it is.
    pub fn renew(&self, credentials: &Credentials) -> io::Result<()> {
        let acceptor = self.acceptor.as_ref().ok_or_else(|| invalid("this is plain text"))?;
        tls::check(&Security::MutualTls(credentials.clone()), None)?;
        *acceptor.lock() = tls::acceptor(credentials, self.direct)?;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

fn runtime(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("seawall-net")
        .enable_io()
        .enable_time()
        .build()
}

/// What is behind an error of a transport, which says of itself no more than that it failed.
fn cause(error: &dyn std::error::Error) -> Option<String> {
    std::iter::successors(error.source(), |error| error.source()).last().map(ToString::to_string)
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}
