//! When the log, or this store's right to write it, is gone: what becomes of commits that have their place.
#![cfg_attr(
    seawall_shuttle,
    allow(dead_code, unused_imports, reason = "there the log is one that ships nothing")
)]

use super::{Refusal, Sequencer};
use crate::Error;
#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use crate::commit::pending::{EXPIRED, LOST, Pending, WITHDRAWN};
use crate::mutation::Mutation;
use crate::sync::Ordering;
use seawall_wal::Lsn;
use std::sync::Arc;

impl Sequencer {
    pub(super) fn failed(&self, error: Error) {
        // What the log reached before it failed stays visible.
        self.advance();
        if let Some(cause) = self.cause_of(error) {
            self.fail(cause);
        }
    }

    /// The log says of a commit only that its outcome is unknown; of its own state it says why. None if it has gone on
    /// since, and the commit with it.
    fn cause_of(&self, error: Error) -> Option<Arc<Error>> {
        match error {
            Error::Poisoned(cause) => Some(cause),
            Error::CommitUnknown { .. } => match self.log.make_room(0) {
                Err(Error::Poisoned(cause)) => Some(cause),
                Ok(()) | Err(Error::NoSpace) => None,
                Err(_) => Some(Arc::new(error)),
            },
            other => Some(Arc::new(other)),
        }
    }

    /// Every pending commit that has its place in this range fails, and its rows go.
    pub(crate) fn withdraw(&self, from: Lsn, to: Lsn) {
        #[cfg(seawall_shuttle)]
        let to = if errs(Misorder::TakeBackLater) { Lsn::MAX } else { to };
        {
            let state = self.state.lock();
            let taken_back =
                |pending: &Pending| pending.place.is_some_and(|place| (from..to).contains(&place.lsn));
            for pending in state.pending.iter().filter(|pending| taken_back(pending)) {
                pending.flags.fetch_or(WITHDRAWN, Ordering::SeqCst);
            }
        }
        self.advance();
        self.announce();
    }

    /// From now on every write is refused, and every pending commit's outcome is unknown. False if it was so before.
    pub(crate) fn fail(&self, cause: Arc<Error>) -> bool {
        let lost: Vec<Arc<Pending>> = {
            let mut state = self.state.lock();
            if matches!(state.refusal, Some(Refusal::Fenced(_))) {
                // Reopening would not be the remedy.
                state.is_beyond_resuming = true;
                return false;
            }
            let is_first = !matches!(state.refusal, Some(Refusal::Poisoned(_)));
            let is_beyond_resuming = !matches!(*cause, Error::NoSpace);
            if is_first || (is_beyond_resuming && !state.is_beyond_resuming) {
                state.refusal = Some(Refusal::Poisoned(cause));
            }
            state.is_beyond_resuming |= is_beyond_resuming;
            if !is_first {
                return false;
            }
            self.is_refusing.store(true, Ordering::Release);
            for pending in &state.pending {
                pending.flags.fetch_or(LOST, Ordering::SeqCst);
            }
            state.pending.iter().map(Arc::clone).collect()
        };
        #[cfg(seawall_shuttle)]
        if errs(Misorder::FailSilently) {
            return true;
        }
        self.announce();
        for pending in lost {
            pending.listener.tell(|| self.settled(&pending));
        }
        true
    }

    /// Whether writes are refused only because the log found no room for what has its place.
    pub(crate) fn lacks_room(&self) -> bool {
        let state = self.state.lock();
        matches!(state.refusal, Some(Refusal::Poisoned(_))) && !state.is_beyond_resuming
    }

    /// The log has written after all what found no room: pending commits, whose outcome was not known, go on, and writes
    /// are accepted again.
    pub(crate) fn resume(&self) {
        {
            let mut state = self.state.lock();
            if state.is_beyond_resuming || !matches!(state.refusal, Some(Refusal::Poisoned(_))) {
                return;
            }
            for pending in &state.pending {
                pending.flags.fetch_and(!LOST, Ordering::SeqCst);
            }
            state.refusal = None;
            self.is_refusing.store(false, Ordering::Release);
        }
        self.advance();
        self.announce();
    }

    /// Why writes are refused, if a failure is the reason.
    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        match &self.state.lock().refusal {
            Some(Refusal::Poisoned(cause)) => Some(Arc::clone(cause)),
            _ => None,
        }
    }

    /// A higher epoch was heard of: another store writes from now on. Every write is refused, the outcome of every pending
    /// commit is unknown, and nothing more becomes visible: the other may not have it. False if it was so before.
    pub(crate) fn fence(&self, epoch: u64) -> bool {
        let lost: Vec<Arc<Pending>> = {
            let mut state = self.state.lock();
            if state.errs(Mutation::IgnoreFence) {
                return false;
            }
            match state.refusal {
                // It refuses already, and reopening decides by what the log has promised: it must not go on before.
                Some(Refusal::Poisoned(_)) => {
                    state.is_beyond_resuming = true;
                    return false;
                }
                Some(Refusal::Fenced(by)) if by >= epoch => return false,
                _ => {}
            }
            state.refusal = Some(Refusal::Fenced(epoch));
            self.is_refusing.store(true, Ordering::Release);
            for pending in &state.pending {
                pending.flags.fetch_or(LOST, Ordering::SeqCst);
            }
            state.pending.iter().map(Arc::clone).collect()
        };
        self.announce();
        for pending in lost {
            pending.listener.tell(|| self.settled(&pending));
        }
        true
    }

    /// The epoch that has fenced this store off.
    pub(crate) fn fenced(&self) -> Option<u64> {
        match self.state.lock().refusal {
            Some(Refusal::Fenced(epoch)) => Some(epoch),
            _ => None,
        }
    }

    /// Whatever is not visible by now is in doubt for those who wait for it. It keeps its place.
    pub(crate) fn give_up_waiting(&self) {
        let open: Vec<_> = self.state.lock().pending.iter().map(Arc::clone).collect();
        open.iter().for_each(|pending| self.expire(pending));
    }

    /// Whoever waits for this commit has waited for long enough.
    pub(crate) fn expire(&self, pending: &Pending) {
        pending.flags.fetch_or(EXPIRED, Ordering::SeqCst);
        self.announce();
        pending.listener.tell(|| self.settled(pending));
    }
}
