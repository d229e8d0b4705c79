//! How far replicas have come, and which commits wait for that.
//!
//! ```text
//!              local log                     gate
//! placed ───────────────────► reached ──────────────────► visible
//!          at its durability            mark(level) ≥ end
//! ```
//!
//! A commit asks for a level ([`Ack`]). The gate has one mark a level, an exclusive end in the log, which only grows: what
//! those who ship the log say of the replicas that count. A commit is visible once the local log has reached it *and* its
//! level's mark is at or above its end. As all commits become visible in one order, one that asks for [`Ack::Local`] waits
//! behind one that asks for more: so nobody sees what a failover can take back, but for stores that ask for nothing more
//! than the local log.
//!
//! There is no silent downgrade. When the time is over the caller gets `CommitUnknown`; the commit keeps its place, and
//! becomes visible when the replicas have come as far. Only [`Gate::degrade`] opens the gate, by an operator's word.
//!
//! The sequencer asks the gate under its lock, and whoever moves a mark makes the sequencer advance: the same protocol as
//! with the log's own mark, so no waiting for it hangs. A store that asks for no level pays one load a wait.
#![cfg_attr(
    seawall_shuttle,
    allow(dead_code, unused_imports, reason = "there the log is one that ships nothing")
)]

use crate::sync::{AtomicBool, AtomicU64, Ordering};
use seawall_wal::{Durability, Lsn};
use std::time::Duration;

/// How far replicas must have come with a commit before it counts, beside its [`Durability`] in the local log.
///
/// The order is that of the levels: who has come as far as one has come as far as those before it.
///
/// ```
/// use seawall_engine::Ack;
///
/// assert!(Ack::Local < Ack::Received && Ack::Durable < Ack::Applied);
/// assert_eq!(Ack::default(), Ack::Local);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ack {
    /// The local log is enough.
    #[default]
    Local,
    /// Replicas have it in memory: it survives the loss of this machine, unless theirs fail with it.
    Received,
    /// Replicas have it on their devices.
    Durable,
    /// Replicas have applied it: it is there to be read as soon as it is visible here.
    Applied,
}

/// Levels above the local one.
const LEVELS: [Ack; 3] = [Ack::Received, Ack::Durable, Ack::Applied];

/// How far a commit must have come before it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) durability: Durability,
    pub(crate) ack: Ack,
}

impl Reach {
    /// The local log is enough.
    pub(crate) fn local(durability: Durability) -> Reach {
        Reach { durability, ack: Ack::Local }
    }
}

/// How far replicas have come.
#[derive(Debug)]
pub(crate) struct Gate {
    marks: [AtomicU64; 3],
    is_degraded: AtomicBool,
    /// Something has asked for a level since the store was opened, or is a replica's.
    is_in_use: AtomicBool,
    /// Which levels that was.
    asked: [AtomicBool; 3],
    timeout: Duration,
}

impl Gate {
    pub(crate) fn new(timeout: Duration) -> Gate {
        Gate {
            marks: [const { AtomicU64::new(0) }; 3],
            is_degraded: AtomicBool::new(false),
            is_in_use: AtomicBool::new(false),
            asked: [const { AtomicBool::new(false) }; 3],
            timeout,
        }
    }

    /// How long a commit waits for it.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether anything can be waiting for it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Acquire)
    }

    /// From now on something may.
    pub(crate) fn use_it(&self) {
        if !self.is_in_use() {
            self.is_in_use.store(true, Ordering::Release);
        }
    }

    /// This level is waited for.
    pub(crate) fn ask(&self, level: Ack) {
        self.use_it();
        if let Some(asked) = self.asked_of(level).filter(|asked| !asked.load(Ordering::Acquire)) {
            asked.store(true, Ordering::Release);
        }
    }

    /// Whether it ever was, since the store was opened.
    pub(crate) fn is_asked(&self, level: Ack) -> bool {
        self.asked_of(level).is_some_and(|asked| asked.load(Ordering::Acquire))
    }

    fn asked_of(&self, level: Ack) -> Option<&AtomicBool> {
        self.asked.iter().zip(LEVELS).find(|(_, of)| *of == level).map(|(asked, _)| asked)
    }

    /// Replicas have come so far. True if that is further than before.
    pub(crate) fn acked(&self, level: Ack, lsn: Lsn) -> bool {
        let mut has_moved = false;
        for (mark, of) in self.marks.iter().zip(LEVELS) {
            if of <= level {
                has_moved |= mark.fetch_max(lsn.0, Ordering::SeqCst) < lsn.0;
            }
        }
        has_moved
    }

    /// How far replicas have come; without end for the local level.
    pub(crate) fn mark(&self, level: Ack) -> Lsn {
        let mark = self.marks.iter().zip(LEVELS).find(|(_, of)| *of == level);
        mark.map_or(Lsn::MAX, |(mark, _)| Lsn(mark.load(Ordering::SeqCst)))
    }

    pub(crate) fn is_reached(&self, level: Ack, end: Lsn) -> bool {
        level == Ack::Local || self.mark(level) >= end || self.is_degraded()
    }

    /// Commits wait for replicas no longer, or again. True if that was otherwise before.
    pub(crate) fn degrade(&self, on: bool) -> bool {
        self.is_degraded.swap(on, Ordering::SeqCst) != on
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.is_degraded.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_grow_and_a_level_vouches_for_those_before_it() {
        let gate = Gate::new(Duration::ZERO);
        assert!(gate.is_reached(Ack::Local, Lsn(9)) && !gate.is_reached(Ack::Received, Lsn(1)));
        assert!(gate.acked(Ack::Durable, Lsn(20)) && !gate.acked(Ack::Received, Lsn(20)));
        assert!(!gate.acked(Ack::Durable, Lsn(10)) && gate.acked(Ack::Received, Lsn(30)));
        assert!(gate.is_reached(Ack::Received, Lsn(30)) && gate.is_reached(Ack::Durable, Lsn(20)));
        assert!(!gate.is_reached(Ack::Durable, Lsn(21)) && !gate.is_reached(Ack::Applied, Lsn(1)));
        assert!(gate.degrade(true) && !gate.degrade(true) && gate.is_reached(Ack::Applied, Lsn(1)));
        assert!(gate.degrade(false) && !gate.is_reached(Ack::Applied, Lsn(1)));
    }
}
