//! What the exploration of interleavings switches on in the commit path, and what it counts there. Compiled only with
//! `--cfg seawall_shuttle`; the tests are in `shuttle_tests`.

use super::{Committer, Sink};
use crate::sync::Ordering;
use std::cell::Cell;
use std::sync::atomic::AtomicU32;

/// Deliberate mistakes in the order of things, each of which the exploration of interleavings must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misorder {
    /// Words are changed and sleepers woken before the marks are stored.
    WakeBeforePublish,
    /// Sleepers are woken before the word is changed.
    WakeBeforeChange,
    /// Whether anybody waits for a mark is looked up before the word is changed.
    CountBeforeChange,
    /// A tender that gives up tells nobody.
    LeaveSilently,
    /// The token is free before the marks are stored.
    FreeBeforePublish,
    /// The token is free while the write goes on.
    FreeBeforeWrite,
    /// A failure is noted, and nobody is woken.
    FailSilently,
    /// A leader that panics takes the token with it.
    PanicSilently,
    /// A callback is registered, and its record not looked at again.
    RegisterBlindly,
    /// Marks go up with what was asked for, not with what was written.
    PromiseBeforeWrite,
    /// A commit that waits for an earlier batch sleeps with its own.
    TendOwnBatch,
    /// The first to be woken does not wake the others.
    RelayForgotten,
    /// A log that closes takes new records until all that it had are durable.
    CloseLate,
    /// Whoever releases tickets looks whether something is owed, and lets go then.
    LetGoLate,
    /// Whoever leaves something to the one who releases tickets does not look again whether there is one.
    OweBlindly,
    /// Followers are told of a write before the marks are stored.
    TellFollowersFirst,
    /// Whether a follower sleeps is looked up before its word is changed.
    CountFollowersFirst,
    /// A log that has ended tells no follower.
    EndSilently,
    /// Followers take a log that refuses, and still drains, for one that has ended.
    EndBeforeDraining,
}

std::thread_local! {
    /// For tests that open a whole log: shuttle's tasks all run on the thread of their test.
    static MISORDER: Cell<Option<Misorder>> = const { Cell::new(None) };
}

/// The mistake that logs opened on this thread make from now on.
#[cfg(test)]
pub(crate) fn err_by(misorder: Option<Misorder>) {
    MISORDER.set(misorder);
}

#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) misorder: Option<Misorder>,
    /// How often a leader found nothing to write: never, if whoever takes the token looked under the lock.
    pub(crate) idle_leads: AtomicU32,
}

impl Default for Explored {
    fn default() -> Explored {
        Explored { misorder: MISORDER.get(), idle_leads: AtomicU32::new(0) }
    }
}

impl<S> Committer<S> {
    pub(crate) fn errs(&self, misorder: Misorder) -> bool {
        self.explored.misorder == Some(misorder)
    }

    pub(crate) fn closes_late(&self) -> bool {
        self.errs(Misorder::CloseLate)
    }

    /// Batches are written in turns from now on, not together.
    #[cfg(test)]
    pub(crate) fn write_in_turns(&self) {
        self.state.lock().gather = super::gather::Gather::slow();
    }

    /// Where those sleep who wait for a mark: they are always woken, so that no timer has to help them.
    #[cfg(test)]
    pub(crate) fn progress_address(&self) -> usize {
        self.progress.address()
    }
}

impl<S: Sink> Committer<S> {
    /// Frees the token while the write is still to come, if that is the mistake to be made.
    pub(super) fn err_before_write(&self) {
        if self.errs(Misorder::FreeBeforeWrite) {
            self.state.lock().in_flight = false;
        }
        if self.errs(Misorder::PromiseBeforeWrite) {
            self.durable.store(self.reserved().0, Ordering::Release);
        }
    }

    /// True if the mistake to be made is one of announcing, and was made.
    pub(super) fn announce_wrongly(&self, done: &[(u64, u32)]) -> bool {
        let wake_first = self.errs(Misorder::WakeBeforeChange);
        let count_first = self.errs(Misorder::CountBeforeChange);
        if !wake_first && !count_first {
            return false;
        }
        for word in done.iter().map(|(seq, _)| self.word(*seq)).chain([&self.progress]) {
            let (raw, sleepers) = word.raw();
            let are_there = sleepers.load(Ordering::Acquire) > 0;
            if wake_first {
                self.runtime.wake_all(raw);
            }
            raw.fetch_add(1, Ordering::Release);
            if count_first && are_there {
                self.runtime.wake_all(raw);
            }
        }
        self.callbacks.run(self.durable(), self.written(), false);
        true
    }
}
