//! A commit between its place in the log and its being visible.

use crate::commit::gate::Ack;
use crate::commit::log::Place;
use crate::commit::ticket::Listener;
use crate::delta::Delta;
use crate::record::WriteSet;
use crate::sync::{AtomicU8, Ordering};
use seawall_wal::Lsn;
use std::sync::Arc;

pub(super) const APPLIED: u8 = 1;
pub(super) const WITHDRAWN: u8 = 2;
pub(super) const LOST: u8 = 4;
/// Nobody waits for it any longer; it may become visible all the same.
pub(super) const EXPIRED: u8 = 8;

/// A commit, or a freeze, that has its place but is not visible yet.
pub(crate) struct Pending {
    /// None for a freeze, which waits for nothing but those before it.
    pub(super) place: Option<Place>,
    pub(super) end: Lsn,
    pub(super) commit: Option<(Arc<Delta>, WriteSet)>,
    pub(super) flags: AtomicU8,
    pub(crate) listener: Listener,
}

impl Pending {
    pub(super) fn commit(place: Place, delta: Arc<Delta>, set: WriteSet) -> Pending {
        Pending {
            place: Some(place),
            end: place.end,
            commit: Some((delta, set)),
            flags: AtomicU8::new(0),
            listener: Listener::default(),
        }
    }

    /// What recovery has found, which is applied, and which stands behind `place`.
    pub(super) fn recovered(place: Place, end: Lsn) -> Pending {
        Pending { place: Some(place), ..Pending::freeze(end) }
    }

    pub(super) fn freeze(end: Lsn) -> Pending {
        Pending {
            place: None,
            end,
            commit: None,
            flags: AtomicU8::new(APPLIED),
            listener: Listener::default(),
        }
    }

    pub(super) fn flags(&self) -> u8 {
        self.flags.load(Ordering::SeqCst)
    }

    /// Whether replicas must have it.
    pub(super) fn waits_at_gate(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.ack != Ack::Local)
    }

    pub(crate) fn is_applied(&self) -> bool {
        self.flags() & APPLIED != 0
    }

    /// The flags as they were before.
    pub(super) fn apply(&self) -> u8 {
        if let Some((delta, set)) = &self.commit {
            delta.apply(set, self.lsn());
        }
        self.flags.fetch_or(APPLIED, Ordering::SeqCst)
    }

    pub(crate) fn lsn(&self) -> Lsn {
        self.place.as_ref().map_or(self.end, |place| place.lsn)
    }

    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    /// What it writes; none for a freeze.
    pub(crate) fn set(&self) -> Option<&WriteSet> {
        self.commit.as_ref().map(|(_, set)| set)
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending")
            .field("lsn", &self.lsn())
            .field("end", &self.end)
            .field("flags", &self.flags())
            .finish_non_exhaustive()
    }
}
