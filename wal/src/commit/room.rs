//! A write that found no room, and going on once there is some.
//!
//! Files are made ahead, so that an overwrite needs no room; a file system that copies on write may ask for some all the
//! same. Whoever had a place is told that the outcome is not known, as after any failed write. But the frames are kept,
//! and when there is room they are written after all, where they were to stand: nothing that was shown, and nothing that
//! was given to the kernel, is lost by it. A *sync* that fails is another matter: what it dropped nobody knows.

use super::lead::{LeadGuard, commits};
use super::{Batch, Committer, Sink};
use crate::Lsn;
use crate::error::{Error, Result};
use std::sync::Arc;

impl<S: Sink> Committer<S> {
    /// W8, but for [`resume`](Self::resume): frames of the group from `from` on are not written.
    pub(super) fn fail_for_room(&self, error: Error, group: Vec<Batch>, from: Lsn) {
        {
            let mut state = self.state.lock();
            self.keep_unwritten(&mut state, group, from);
            state.lacks_room = state.failure.is_none();
            state.failure.get_or_insert_with(|| Arc::new(error));
            state.in_flight = false;
        }
        self.tell_failure();
    }

    fn keep_unwritten(&self, state: &mut super::State, group: Vec<Batch>, from: Lsn) {
        for batch in group.into_iter().filter(|batch| batch.base >= from).rev() {
            state.sealed_bytes += batch.len;
            state.sealed.push_front(batch);
        }
    }

    /// After a write that failed for want of room: writes it after all, and goes on. Nothing to do if nothing has failed.
    pub(crate) fn resume(&self) -> Result<()> {
        let start = self.runtime.now();
        let mut group: Vec<Batch> = {
            let mut state = self.state.lock();
            let Some(failure) = &state.failure else { return Ok(()) };
            if !state.lacks_room || state.closed {
                return Err(Error::Poisoned(failure.clone()));
            }
            if state.in_flight {
                // Another thread is at it.
                return Err(Error::NoSpace);
            }
            self.seal_open(&mut state)?;
            state.in_flight = true;
            state.sealed_bytes = 0;
            state.sealed.drain(..).collect()
        };
        let mut guard = LeadGuard { committer: self, finished: false };
        let written = self.sink.write(&mut group, true, self.durable());
        guard.finished = true;
        let written = match (written, self.sink.unwritten()) {
            (Ok(written), _) => written,
            (Err(_), Some(from)) => {
                let mut state = self.state.lock();
                self.keep_unwritten(&mut state, group, from);
                state.in_flight = false;
                return Err(Error::NoSpace);
            }
            (Err(error), None) => {
                self.fail(error);
                return Err(Error::Poisoned(self.failure().unwrap_or_else(|| Arc::new(Error::Closed))));
            }
        };
        self.followers.keep(&group);
        {
            let mut state = self.state.lock();
            (state.failure, state.lacks_room) = (None, false);
            state.gather.begins(start, commits(&group));
        }
        let (done, _) = self.finish(group, written, (start, self.runtime.now()), false);
        self.announce(&done, false);
        Ok(())
    }
}
