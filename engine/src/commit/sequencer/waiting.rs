//! Who waits for commits, and for how long: the log first, then the gate.
#![cfg_attr(
    seawall_shuttle,
    allow(dead_code, unused_imports, reason = "there the log is one that ships nothing")
)]

use super::{Crowd, Refusal, Sequencer, crowd_of};
use crate::commit::gate::Ack;
use crate::commit::log::Place;
use crate::commit::pending::Pending;
use crate::options::ACK_TIMEOUT_DEFAULT;
use crate::sync::Ordering;
use crate::{Error, Result};
use seawall_wal::Lsn;
use std::sync::Arc;
use std::time::Duration;

impl Sequencer {
    /// It takes its place, and is to come so far.
    pub(super) fn ask_gate(&self, place: &mut Place, ack: Ack) {
        if ack != Ack::Local {
            self.gate.ask(ack);
            place.ack = ack;
        }
    }

    /// Whether log and replicas have come as far as it asks for.
    pub(super) fn is_reached(&self, place: &Place) -> bool {
        self.is_logged(place) && self.gate.is_reached(place.ack, place.end)
    }

    fn is_logged(&self, place: &Place) -> bool {
        place.is_recovered() || self.log.is_reached(place)
    }

    /// Replicas have come so far.
    pub(crate) fn acked(&self, level: Ack, lsn: Lsn) {
        if self.gate.acked(level, lsn) {
            self.advance();
        }
    }

    /// The end of the last record that is visible, as far as records were since the store was opened.
    pub(crate) fn shown(&self) -> Lsn {
        Lsn(self.shown.load(Ordering::SeqCst))
    }

    /// The last record that is visible as the store is opened ends there.
    pub(crate) fn begin_at(&self, end: Lsn) {
        self.shown.store(end.0, Ordering::SeqCst);
    }

    /// What recovery has found beyond the checkpoint, up to a record's end, is shown when replicas are known to have come so
    /// far.
    pub(crate) fn recovered(&self, from: Lsn, last: Lsn, ack: Ack) {
        self.gate.ask(ack);
        let place = Place::recovered(from, last, ack);
        self.state.lock().pending.push_back(Arc::new(Pending::recovered(place, last)));
    }

    /// Whether the next commit to become visible waits for replicas alone.
    pub(crate) fn is_held_up(&self) -> bool {
        self.held_up().is_some()
    }

    /// The first commit, if all that it waits for is replicas.
    pub(crate) fn held_up(&self) -> Option<Lsn> {
        let state = self.state.lock();
        if let Some(followed) = &state.followed {
            return followed.hidden();
        }
        let front = state.pending.front()?;
        let place = front.place.filter(|_| front.is_applied())?;
        (self.is_logged(&place) && !self.gate.is_reached(place.ack, place.end)).then_some(place.lsn)
    }

    /// Waits for what may still stand between a commit that the log has reached and its being visible. None when the time
    /// is over: `deadline`, or the gate's if replicas are what is waited for.
    pub(super) fn wait_past_log(&self, pending: &Pending, deadline: Option<Duration>) -> Option<Result<Lsn>> {
        let settled = || self.settled(pending);
        let crowd = match self.at_gate.get(crowd_of(pending.end)) {
            Some(crowd) if pending.waits_at_gate() => crowd,
            _ => &self.all,
        };
        match deadline {
            None => self.park_at_gate(crowd, settled),
            deadline => self.park_in(crowd, deadline, settled),
        }
    }

    /// Parks, without end unless replicas are waited for.
    fn park_at_gate<T>(&self, crowd: &Crowd, ready: impl Fn() -> Option<T>) -> Option<T> {
        if !self.gate.is_in_use() {
            return self.park_in(crowd, None, ready);
        }
        loop {
            let patience = self.runtime.now().saturating_add(self.gate.timeout());
            let value = self.park_in(crowd, Some(patience), &ready);
            if value.is_some() || self.is_held_up() {
                return value;
            }
        }
    }

    /// Why nothing becomes visible any more.
    fn lasting_refusal(&self) -> Option<Error> {
        let state = self.state.lock();
        state.refusal.as_ref().filter(|refusal| refusal.is_lasting()).map(Refusal::error)
    }

    /// Waits until everything below `lsn` is visible; somebody else sees to its being written. `Unacknowledged` if replicas
    /// have not come so far in time.
    pub(crate) fn wait_visible(&self, lsn: Lsn) -> Result<()> {
        let reached = self.park_at_gate(&self.all, || {
            if self.reads.visible() >= lsn {
                return Some(Ok(()));
            }
            self.refused_for_good().map(Err)
        });
        reached.unwrap_or_else(|| Err(self.unacknowledged()))
    }

    pub(crate) fn unacknowledged(&self) -> Error {
        Error::Unacknowledged { lsn: self.reads.visible() }
    }

    /// Why a checkpoint is not to wait any longer.
    fn refused_for_good(&self) -> Option<Error> {
        let is_closed = matches!(self.state.lock().refusal, Some(Refusal::Closed));
        if is_closed && self.is_held_up() { Some(self.unacknowledged()) } else { self.lasting_refusal() }
    }

    /// Waits, for as long as the gate's patience lasts, until all commits that have their place are visible.
    pub(crate) fn wait_for_replicas(&self) {
        let last = self.state.lock().pending.back().map(|last| last.end());
        if let Some(last) = last {
            // However long commits may wait: nobody acknowledges to a store that closes for long.
            let limit = self.gate.timeout().min(ACK_TIMEOUT_DEFAULT);
            let _ = self.await_visible(|visible| visible >= last, limit);
        }
    }

    /// Waits until the record at `lsn` is visible, or everything below. False when the time is over.
    pub(crate) fn await_visible(&self, is_there: impl Fn(Lsn) -> bool, limit: Duration) -> Result<bool> {
        let deadline = self.runtime.now().saturating_add(limit);
        let reached = self.park(Some(deadline), || {
            if is_there(self.reads.visible()) {
                return Some(Ok(true));
            }
            self.lasting_refusal().map(Err)
        });
        reached.unwrap_or(Ok(false))
    }
}

/// Whether it is not known what became of a commit.
pub(super) fn is_in_doubt(ended: &Result<Lsn>) -> bool {
    matches!(ended, Err(Error::CommitUnknown { .. }))
}
