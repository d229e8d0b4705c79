//! A replica's part of the order: others make it, here it is applied and shown.
//!
//! ```text
//! shipped, durable here ──apply──► applied ──limit ≥ end──► visible
//! ```
//!
//! There is nothing to validate, to place or to wait for, so no queue of commits either: of what is applied and not visible
//! only the ends are kept. A record is applied under the lock, between two freezes: so a frozen delta has everything below
//! its end and nothing behind it, as on a primary (E3). The limit is what the primary has shown; what it has not shown may
//! yet be taken back, so it is neither shown here nor folded.
//!
//! Invariant: E7 a replica shows nothing that its primary had not shown.
#![cfg_attr(
    seawall_shuttle,
    allow(dead_code, unused_imports, reason = "there the log is one that ships nothing")
)]

use super::Sequencer;
use crate::commit::gate::Ack;
use crate::commit::log::Place;
use crate::commit::pending::Pending;
use crate::invariants;
use crate::mutation::Mutation;
use crate::record::WriteSet;
use crate::sync::Ordering;
use seawall_wal::Lsn;
use std::collections::VecDeque;
use std::sync::Arc;

/// Where a shipped record stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShippedPlace {
    pub(crate) lsn: Lsn,
    pub(crate) end: Lsn,
    /// The frame that it begins in.
    pub(crate) frame: Lsn,
}

/// What a replica has applied, and may show.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Ends of the records that are applied and not visible.
    ends: VecDeque<Lsn>,
    applied: Lsn,
    /// The frame that the last applied record begins in: redo begins at frames.
    frame: Lsn,
    limit: Lsn,
}

impl Followed {
    /// What recovery has applied: records that end here, the last at `applied`, in that frame.
    pub(crate) fn new(ends: VecDeque<Lsn>, applied: Lsn, frame: Lsn) -> Followed {
        Followed { ends, applied, frame, limit: Lsn::ZERO }
    }

    /// Everything below is in deltas, or in the tree; and where redo of what is behind begins.
    pub(super) fn applied(&self) -> (Lsn, Lsn) {
        (self.applied, self.frame)
    }

    /// The end of the first record that is applied and not visible.
    pub(super) fn hidden(&self) -> Option<Lsn> {
        self.ends.front().copied()
    }

    fn note(&mut self, place: ShippedPlace) {
        self.ends.push_back(place.end);
        (self.applied, self.frame) = (place.end, place.frame);
    }

    /// The end of the last record that may be shown and is not yet.
    fn reveal(&mut self, shows_all: bool) -> Option<Lsn> {
        let count = self.ends.partition_point(|end| shows_all || *end <= self.limit);
        self.ends.drain(..count).next_back()
    }
}

impl Sequencer {
    /// From now on the order is another store's.
    pub(crate) fn follow(&self, followed: Followed) {
        self.gate.use_it();
        self.state.lock().followed = Some(followed);
    }

    /// Applies what the other store has committed, in its place. Nothing if this is not a replica.
    pub(crate) fn apply_shipped(&self, set: &WriteSet, place: ShippedPlace) {
        let lsn = place.lsn;
        {
            let mut state = self.state.lock();
            if state.followed.is_none() {
                return;
            }
            state.active.apply(set, lsn);
            state.reserved += 1;
            if !set.created().is_empty() || !set.dropped().is_empty() {
                state.catalogue_changed = lsn;
            }
            if let Some(followed) = &mut state.followed {
                followed.note(place);
            }
        }
        self.reveal();
    }

    /// A record that changes nothing ends here.
    pub(crate) fn pass_over(&self, place: ShippedPlace) {
        if let Some(followed) = &mut self.state.lock().followed {
            followed.note(place);
        }
        self.reveal();
    }

    /// The other store has shown everything below. Never back.
    pub(crate) fn show_up_to(&self, limit: Lsn) {
        if let Some(followed) = &mut self.state.lock().followed {
            followed.limit = followed.limit.max(limit);
        }
        self.reveal();
    }

    fn reveal(&self) {
        {
            let mut state = self.state.lock();
            let shows_all = state.errs(Mutation::ShowUnshipped);
            let end = state.followed.as_mut().and_then(|followed| followed.reveal(shows_all));
            let Some(end) = end else { return };
            invariants::replica_shows(
                self.reads.visible(),
                end,
                state.followed.as_ref().map(|f| f.limit).filter(|_| !shows_all),
            );
            self.reads.set_visible(end);
        }
        self.announce();
    }

    /// Everything below is applied; none if this is no replica.
    pub(crate) fn followed_to(&self) -> Option<Lsn> {
        self.state.lock().followed.as_ref().map(|followed| followed.applied)
    }

    /// The order is this store's own from `end` on, the end of the epoch's first record. What is applied is shown when
    /// replicas have come so far, as `ack` asks for: what they had before the epoch counts for nothing.
    pub(crate) fn take_over(&self, end: Lsn, ack: Ack) {
        {
            let mut state = self.state.lock();
            state.followed = None;
            // What it has shown it goes on showing.
            self.shown.fetch_max(self.reads.visible().0, Ordering::SeqCst);
            let place = Place::recovered(self.reads.visible(), end, ack);
            state.pending.push_back(Arc::new(Pending::recovered(place, end)));
        }
        self.advance();
        self.announce();
    }
}
