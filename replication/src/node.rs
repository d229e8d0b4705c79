//! Threads that carry out what the machines of [`ship`](crate::ship) say, over a store.
//!
//! ```text
//!                    Dialler::dial                       Host::connected
//! Follower ─ machine ─────────── Wire ═══ transport ═══ Ear ─ machine ─ Leader      a thread a machine
//!     ├ log: accept, sync, promise                             └ reader: Shipper     and one for what blocks
//!     └ apply                                                  notifier: visible
//! ```
//!
//! A machine's own thread does what is slow, and tells it the time. With pieces, marks and what the log has done it is stepped in the thread
//! that brings them, if nobody else is at it (`stepped.rs`). Such a step never blocks: it sends, wakes, or hands over. Of a replica's log
//! what is little is written down by whoever brings it ([`Ear::hear_all`]), and the next of it gathers meanwhile. So a commit that waits
//! for a replica passes through the thread that reads the log, the replica's network thread, and the primary's.
//!
//! A transport is two traits: a [`Dialler`] makes a connection, a [`Host`] takes one; each side sends by its [`Wire`], which
//! never blocks, and is told by its [`Ear`]. [`local`] is one without sockets, for a primary and replicas in one process, and
//! for tests; the crate's `net` is one over TLS. Clock and threads are the [`Runtime`](seawall_wal::Runtime)'s.

use crate::ack::{Part, Reached};
use crate::message::Message;
use crate::timeline::Tail;
use bytes::Bytes;
use seawall_wal::Lsn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

mod crew;
mod follower;
mod greeting;
mod inbox;
mod keeping;
mod leader;
mod link;
pub mod local;
mod stepped;

pub use follower::{Follower, FollowerOptions};
#[doc(hidden)]
pub use follower::{accept, own};
pub use greeting::{claim, greet, hello};
pub use keeping::Keeper;
#[doc(hidden)]
pub use leader::open_log;
pub use leader::{Leader, LeaderOptions};
pub use link::{Direction, Link, LinkEvent, LinkListener, Retained, to_prometheus};

/// Sends over a connection.
pub trait Wire: Send + Sync {
    /// Sends, in order; or does not, where the connection is gone. Does not wait.
    fn send(&self, message: Message);

    /// Ends the connection, behind what was sent.
    fn close(&self);
}

/// Hears what comes over a connection.
pub trait Ear: Send + Sync {
    /// A message.
    fn hear(&self, message: Message);

    /// What has come at once, in a thread that may be blocked for as long as a device takes for a write.
    fn hear_all(&self, messages: Vec<Message>) {
        messages.into_iter().for_each(|message| self.hear(message));
    }

    /// The connection is gone.
    fn lost(&self);
}

/// Makes connections to a primary, whoever that is at the time.
pub trait Dialler: Send + Sync {
    /// A connection; what comes over it goes to the ear. May block for some seconds. `elsewhere`: who was reached last does not
    /// serve; another is to be tried first, if one is known.
    ///
    /// # Errors
    /// What was met.
    fn dial(&self, ear: Arc<dyn Ear>, elsewhere: bool) -> io::Result<Arc<dyn Wire>>;

    /// Nobody wants the connection any more that is being made: the call to `dial` may return, with an error. Where none is under
    /// way, the next one may.
    fn give_up(&self) {}
}

/// Takes connections of replicas.
pub trait Host: Send + Sync {
    /// A connection was made. `names` are those that its certificate bears: a replica may call itself by one of them; none where
    /// there are no certificates, and anybody is believed.
    fn connected(&self, names: Option<Vec<String>>, wire: Arc<dyn Wire>) -> Option<Arc<dyn Ear>>;

    /// How far this node is.
    fn status(&self) -> Status;

    /// A replica of this name is about to begin with an image: keeps the log for it from now on.
    ///
    /// # Errors
    /// What the store says; `Unsupported` where no log is kept for anybody.
    fn keep(&self, slot: &str) -> io::Result<()> {
        let _ = slot;
        no_image().map(drop)
    }

    /// The store as it stands at a checkpoint: that which says `about` of itself, if it is still there, or else a new one.
    ///
    /// # Errors
    /// What the store says; `Unsupported` where no image is given.
    fn image(&self, about: &[u8]) -> io::Result<Box<dyn ImageSource>>;
}

/// What a store keeps for replicas that are away, and gives to those that begin.
pub trait Keeping: Send + Sync {
    /// Whether the log is kept for this name, from this place on or from before: there is a slot, or one could be made. Where not,
    /// it takes a new image.
    ///
    /// # Errors
    /// What the store says, where that may be otherwise later.
    fn keeps(&self, name: &str, place: Lsn) -> io::Result<bool>;

    /// A replica of this name is about to begin with an image: keeps the log for it from now on, whatever was kept before.
    ///
    /// # Errors
    /// What the store says.
    fn keep(&self, name: &str) -> io::Result<()>;

    /// The slot's replica is there, and has all below on its device. False if the slot is lost, or gone.
    fn advance_slot(&self, name: &str, durable: Lsn) -> bool;

    /// See [`Host::image`].
    ///
    /// # Errors
    /// What the store says.
    fn image(&self, about: &[u8]) -> io::Result<Box<dyn ImageSource>>;
}

/// A stretch of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it stands in the data file.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
}

/// Gives an image away, in ascending order.
pub trait ImageSource: Send {
    /// What the image is: to be handed back to resume, and to whoever writes it down.
    fn about(&self) -> Bytes;

    /// The next bytes at or behind an offset, at most so many; none at the end.
    ///
    /// # Errors
    /// What the store says.
    fn read(&mut self, from: u64, bytes_max: usize) -> io::Result<Option<Stretch>>;
}

/// The image of a store that gives none.
fn no_image() -> io::Result<Box<dyn ImageSource>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "no image is given here"))
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whose log it has.
    pub store_id: [u8; 16],
    /// Whether it is a replica.
    pub is_replica: bool,
    /// The epoch that its log is written in.
    pub epoch: u64,
    /// The highest that it has promised.
    pub promised: u64,
    /// Where its log ends.
    pub tail: Tail,
    /// What is durable here.
    pub durable: Lsn,
    /// What is applied here.
    pub applied: Lsn,
    /// What is shown here.
    pub visible: Lsn,
    /// The policy of acknowledgement, if there is one.
    pub policy: Option<String>,
    /// Those that follow, and those that did.
    pub followers: Vec<FollowerStatus>,
    /// Of a replica: where its session stands.
    pub state: String,
    /// How its links stand: to those that follow, and those that did; of a replica, to the one that it follows.
    pub links: Vec<Link>,
}

/// How far one that follows is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub is_connected: bool,
    /// How far it has come.
    pub marks: Reached,
    /// Its part in the policy.
    pub part: Part,
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
