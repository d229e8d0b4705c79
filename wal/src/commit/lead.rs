//! Leading: writing what is gathered, publishing it, waking those who wait for it; or failing, for good.
//!
//! Whoever leads has set `in_flight` under the lock, after seeing that there is something to write, and clears it under
//! the lock once the marks are published: the sink is never called twice at a time, and no leader finds nothing to do.

#[cfg(seawall_shuttle)]
use super::explored::Misorder;
use super::{Batch, Committer, Sink, Written};
use crate::batch;
use crate::durability::Durability;
use crate::error::Error;
use crate::sync::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// Batches that one leader writes before it hands over.
const LEAD_AGAIN_MAX: u32 = 3;
/// Buffers kept for reuse: as many as are open, sealed and in flight when a writer is at its limit.
const POOL_MAX: usize = 8;
/// From so many sleepers on, a leader that goes on leaves waking them to the first.
const RELAY_FROM: u32 = if cfg!(seawall_shuttle) { 1 } else { 4 };

/// A batch that was written: its number, and how many waited for it.
type Done = (u64, u32);

impl<S: Sink> Committer<S> {
    /// Writes what is gathered. The caller has set `in_flight`.
    pub(super) fn lead(&self) {
        let mut guard = LeadGuard { committer: self, finished: false };
        for round in 0.. {
            let start = self.runtime.now();
            let Some((group, durable)) = self.take_group(start) else { break };
            let mut group = group;
            #[cfg(seawall_shuttle)]
            self.err_before_write();
            let written = self.sink.write(&mut group, durable, self.durable());
            let now = self.runtime.now();
            #[cfg(seawall_shuttle)]
            if self.errs(Misorder::WakeBeforePublish) && written.is_ok() {
                self.announce(&done(&group), false);
            }
            if written.is_ok() {
                // While the token is held, so in order; before the marks, so that whoever sees them finds the frames.
                self.followers.keep(&group);
                #[cfg(seawall_shuttle)]
                if self.errs(Misorder::TellFollowersFirst) {
                    self.followers.wake(&*self.runtime);
                }
            }
            let may_go_on = round < LEAD_AGAIN_MAX;
            let written = match written {
                Ok(written) => written,
                Err(_) if self.forgetful => {
                    Written { end: group.last().map_or(self.written(), Batch::end), durable }
                }
                Err(error) => {
                    match self.sink.unwritten() {
                        Some(from) => self.fail_for_room(error, group, from),
                        None => self.fail(error),
                    }
                    guard.finished = true;
                    return;
                }
            };
            let (done, again) = self.finish(group, written, (start, now), may_go_on);
            #[cfg(seawall_shuttle)]
            let done = if self.errs(Misorder::WakeBeforePublish) { Vec::new() } else { done };
            self.announce(&done, again);
            self.counters.tell_slow_write(now.saturating_sub(start));
            if !again {
                break;
            }
        }
        guard.finished = true;
    }

    /// What is to be written now, and whether durably. Frees the token and returns nothing if there is no work.
    fn take_group(&self, now: Duration) -> Option<(Vec<Batch>, bool)> {
        let mut state = self.state.lock();
        if let Err(error) = self.seal_open(&mut state) {
            drop(state);
            self.fail(error);
            return None;
        }
        let group: Vec<Batch> = state.sealed.drain(..).collect();
        state.sealed_bytes = 0;
        state.gather.begins(now, commits(&group));
        let durable = state.sync_wanted > self.durable()
            || group.iter().any(|batch| batch.durability == Durability::Synced);
        if group.is_empty() && !durable {
            #[cfg(seawall_shuttle)]
            self.explored.idle_leads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            state.in_flight = false;
            return None;
        }
        Some((group, durable))
    }

    /// Publishes what was written. True if the leader goes on.
    pub(super) fn finish(
        &self,
        group: Vec<Batch>,
        written: Written,
        (start, now): (Duration, Duration),
        may_go_on: bool,
    ) -> (Vec<Done>, bool) {
        let took = now.saturating_sub(start);
        let n = commits(&group);
        let done = done(&group);
        self.counters.write_us.record_duration(took);
        self.counters.group_size.record(group.iter().map(|batch| u64::from(batch.records)).sum());
        #[cfg(seawall_shuttle)]
        if self.errs(Misorder::FreeBeforePublish) {
            self.state.lock().in_flight = false;
        }
        let mut state = self.state.lock();
        debug_assert!(
            written.end >= self.written() && written.end <= self.reserved().max(self.written()),
            "W6"
        );
        self.written.fetch_max(written.end.0, Ordering::SeqCst);
        if written.durable {
            self.durable.fetch_max(written.end.0, Ordering::SeqCst);
        }
        // Of a buffer that was mapped only what a batch has filled takes memory.
        let filled = group.iter().map(|batch| batch.len as u64).max().unwrap_or(0);
        let filled = self.counters.batch_bytes_max.fetch_max(filled, Ordering::Relaxed).max(filled);
        for batch in group {
            if batch.buf.len() == batch::buffer_bytes(self.geometry) && state.pool.len() < POOL_MAX {
                state.pool.push(batch.buf);
            }
        }
        let buffers = (state.pool.len() + state.sealed.len() + 1) as u64;
        self.counters.buffer_bytes.store(buffers * filled, Ordering::Relaxed);
        let m = commits(state.sealed.iter()) + state.open.commits;
        let again = state.gather.ended(now, took, n, m) || !state.sealed.is_empty();
        if again && may_go_on {
            return (done, true);
        }
        state.in_flight = false;
        if again {
            // Somebody else goes on: one of those who wait leads at once.
            state.gather.hand_over();
            let seq = state.sealed.front().map_or(state.open.seq, |front| front.seq);
            drop(state);
            self.word(seq).change_and_wake_one(&*self.runtime);
        }
        (done, false)
    }

    /// Tells the engine above, wakes all whose commits were just published, and runs their callbacks. A leader that
    /// goes on leaves the waking of many to the first of them.
    pub(super) fn announce(&self, done: &[Done], goes_on: bool) {
        #[cfg(seawall_shuttle)]
        if self.announce_wrongly(done) {
            return;
        }
        self.listener.tell(false);
        for (seq, commits) in done {
            let word = self.word(*seq);
            if goes_on && *commits >= RELAY_FROM {
                word.change_and_wake_by_relay(&*self.runtime);
            } else {
                word.change_and_wake(&*self.runtime);
            }
        }
        self.progress.change_and_wake(&*self.runtime);
        self.tell_followers();
        self.callbacks.run(self.durable(), self.written(), false);
    }

    /// W8: from here on nothing is promised any more.
    pub(crate) fn fail(&self, error: Error) {
        {
            let mut state = self.state.lock();
            if state.failure.is_none() || state.lacks_room {
                state.failure = Some(Arc::new(error));
            }
            state.lacks_room = false;
            state.in_flight = false;
        }
        self.tell_failure();
    }

    pub(super) fn tell_failure(&self) {
        #[cfg(seawall_shuttle)]
        if self.errs(Misorder::FailSilently) {
            return;
        }
        self.listener.tell(true);
        for word in self.words.iter().chain([&self.progress]) {
            word.change_and_wake(&*self.runtime);
        }
        self.followers.wake(&*self.runtime);
        self.callbacks.run(self.durable(), self.written(), true);
    }
}

pub(super) fn commits<'a>(group: impl IntoIterator<Item = &'a Batch>) -> u32 {
    group.into_iter().map(|batch| batch.commits).sum()
}

fn done(group: &[Batch]) -> Vec<Done> {
    group.iter().map(|batch| (batch.seq, batch.commits)).collect()
}

/// A leader that panics must not leave the others asleep for ever.
pub(super) struct LeadGuard<'a, S: Sink> {
    pub(super) committer: &'a Committer<S>,
    pub(super) finished: bool,
}

impl<S: Sink> Drop for LeadGuard<'_, S> {
    fn drop(&mut self) {
        #[cfg(seawall_shuttle)]
        if self.committer.errs(Misorder::PanicSilently) {
            return;
        }
        if !self.finished && std::thread::panicking() {
            self.committer.fail(Error::BadInput("the thread that wrote the log panicked".to_owned()));
        }
    }
}
