//! Idle moments, and the end: a log that closes refuses, then drains, then has ended.

use super::{Committer, Sink, State, new_buf};
use crate::Lsn;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::frame::Flags;
use crate::stats::add;
use crate::sync::MutexGuard;

#[cfg(seawall_shuttle)]
use super::explored::Misorder;

impl<S: Sink> Committer<S> {
    /// Writes what is gathered if nobody does, and carries the durable LSN on in an empty frame if the newest frame
    /// does not carry it yet. For idle moments and for closing.
    pub(crate) fn settle(&self, carried: Lsn, seal: bool) -> Result<bool> {
        let state = self.state.lock();
        state.check()?;
        self.settle_locked(state, carried, seal)
    }

    fn settle_locked(&self, mut state: MutexGuard<'_, State>, carried: Lsn, seal: bool) -> Result<bool> {
        if state.in_flight {
            return Ok(false);
        }
        let durable = self.durable();
        if !state.has_pending() {
            let base = state.open.base;
            let fits = self.geometry.offset(base) != 0 && base < state.ready_end;
            if !seal || durable <= carried || !fits {
                return Ok(false);
            }
            if state.pool.is_empty() {
                state.pool.push(new_buf(self.geometry)?);
            }
            state.open.flags = Flags::SEAL;
            state.open.durability = Durability::Synced;
            self.seal_open(&mut state)?;
            add(&self.counters.seals, 1);
        }
        state.in_flight = true;
        drop(state);
        self.lead();
        Ok(true)
    }

    /// Takes nothing new from now on. What has its place can still be waited for.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    /// After [`close`](Self::close): everything that has its place becomes durable, and the durable LSN is carried on in
    /// an empty frame if `carried` says that the newest frame does not carry it.
    pub(crate) fn drain(&self, carried: impl Fn() -> Lsn) -> Result<()> {
        self.make_durable(self.reserved())?;
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(Error::Poisoned(failure.clone()));
        }
        self.settle_locked(state, carried(), true)?;
        // What was led there may have failed: such a log does not end where the anchor would say.
        self.state.lock().failure.as_ref().map_or(Ok(()), |failure| Err(Error::Poisoned(failure.clone())))
    }

    /// After [`drain`](Self::drain), whatever came of it: nothing is published any more, and followers end.
    pub(crate) fn end(&self) {
        {
            let mut state = self.state.lock();
            (state.closed, state.ended) = (true, true);
        }
        #[cfg(seawall_shuttle)]
        if self.errs(Misorder::EndSilently) {
            return;
        }
        self.followers.wake(&*self.runtime);
    }

    /// Why nothing is published any more, if so.
    pub(crate) fn ended(&self) -> Option<Error> {
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Some(Error::Poisoned(failure.clone()));
        }
        #[cfg(seawall_shuttle)]
        if self.errs(Misorder::EndBeforeDraining) && state.closed {
            return Some(Error::Closed);
        }
        state.ended.then_some(Error::Closed)
    }
}
