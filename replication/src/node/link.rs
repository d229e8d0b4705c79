//! Links: what is known of each connection between a store that ships its log and one that follows it, for people and for
//! their instruments. Nothing that decides rests on it.
//!
//! ```text
//! machine ─ each step ─► Book (by name, over all its sessions) ─► Link ─► status, Prometheus' text
//!                          └ begin, end ─► LinkListener
//! ```
//!
//! How far one is behind is counted in bytes and in time. *In bytes*: what the other side has durably, and this replica has not
//! applied. *In time*: how long ago the oldest record that it has not applied became durable at the primary, as far as is known
//! where it is asked: a primary knows by its own clock, a replica from the primary's signs of life, which say how old the newest
//! record is, and counts on by its own. Both are 0 for a replica that has all that there is, however long ago that was written.

use crate::ack::Part;
use crate::message::Marks;
use seawall_wal::Lsn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(super) mod book;
mod moments;
mod text;

pub use text::to_prometheus;

/// Which way the log goes over a link, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From here to a replica.
    Out,
    /// From a primary, or a replica that ships on, to here.
    In,
}

impl Direction {
    /// `out` or `in`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Out => "out",
            Direction::In => "in",
        }
    }
}

/// How a link stands: see [`Leader::links`](super::Leader::links) and [`Follower::link`](super::Follower::link).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The replica's name: the other side's of a link out, this store's of a link in.
    pub name: String,
    /// Which way the log goes.
    pub direction: Direction,
    /// Whether there is a connection over which the log is shipped.
    pub is_connected: bool,
    /// For how long there has been; zero if there is none.
    pub connected_for: Duration,
    /// For how long nothing has been heard of the other side; zero if nothing ever was.
    pub silence: Duration,
    /// Connections that came about, this one included.
    pub sessions: u64,
    /// Connections that ended otherwise than by a goodbye, and attempts that were refused.
    pub errors: u64,
    /// Why the last of those did.
    pub last_error: Option<String>,
    /// The place up to which pieces of the log were sent to the replica.
    pub sent: Lsn,
    /// How far the replica is.
    pub marks: Marks,
    /// What is durable at the side that ships, as far as is known here.
    pub source_durable: Lsn,
    /// What that side shows.
    pub source_visible: Lsn,
    /// Bytes of log that the replica has not applied.
    pub lag_bytes: u64,
    /// How old the oldest record is that the replica has not applied.
    pub lag: Duration,
    /// Bytes of log that went over the link, over all its sessions.
    pub bytes: u64,
    /// The same, a second, over the last five seconds.
    pub bytes_per_s: u64,
    /// Of a link out: the replica's part in the policy of acknowledgement.
    pub part: Option<Part>,
    /// Of a link out: who keeps log for the replica, if anybody does.
    pub retained: Option<Retained>,
}

impl Link {
    /// Connections after the first.
    pub fn reconnects(&self) -> u64 {
        self.sessions.saturating_sub(1)
    }
}

/// Log that is kept for a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// By whom: a slot.
    pub holder: String,
    /// How much, in bytes.
    pub bytes: u64,
}

/// Something that happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// The log is shipped from now on.
    Connected {
        /// From this place on.
        from: Lsn,
    },
    /// The log is no longer shipped.
    Disconnected {
        /// What was the end of it; none for a goodbye.
        why: Option<String>,
    },
    /// One side would not have the other.
    Refused {
        /// Why.
        why: String,
    },
    /// The replica's log must be cut back before it can follow.
    NeedsRewind {
        /// To this place.
        to: Lsn,
        /// Bytes of records that stand behind it here, and that the primary has not. None: going back loses nothing.
        lost_bytes: u64,
    },
    /// The replica must begin with a new image before it can follow.
    NeedsImage {
        /// What there is of the log.
        first: Lsn,
    },
    /// The replica's disk, or store, has failed.
    Broken {
        /// What was met.
        why: Option<String>,
    },
}

/// Is told what happens to links, by the thread that the link has: it waits meanwhile. One that panics has missed that event.
///
/// ```
/// use seawall_replication::node::{Direction, LinkEvent, LinkListener};
///
/// struct Log;
/// impl LinkListener for Log {
///     fn event(&self, name: &str, direction: Direction, event: &LinkEvent) {
///         eprintln!("{name} ({}): {event:?}", direction.name());
///     }
/// }
/// let mut options = seawall_replication::node::LeaderOptions::default();
/// options.listener = Some(std::sync::Arc::new(Log));
/// ```
pub trait LinkListener: Send + Sync {
    /// Something happened to the link of this replica. Told in the thread that has met it, which may be one of the network's: what
    /// takes long is for another thread.
    fn event(&self, name: &str, direction: Direction, event: &LinkEvent);
}

pub(super) type Listener = Option<Arc<dyn LinkListener>>;

pub(super) fn tell(listener: &Listener, name: &str, direction: Direction, event: &LinkEvent) {
    if let Some(listener) = listener {
        // What it said in its panic has been printed by the panic hook.
        let _ = catch_unwind(AssertUnwindSafe(|| listener.event(name, direction, event)));
    }
}
