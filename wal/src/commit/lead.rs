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
/// Buffers kept for reuse.
const POOL_MAX: usize = 3;

impl<S: Sink> Committer<S> {
    /// Writes what is gathered. The caller has set `in_flight`.
    pub(super) fn lead(&self) {
        let mut guard = LeadGuard { committer: self, finished: false };
        for round in 0.. {
            let Some((mut group, durable)) = self.take_group() else { break };
            #[cfg(seawall_shuttle)]
            self.err_before_write();
            let start = self.runtime.now();
            let written = self.sink.write(&mut group, durable, self.durable());
            let took = self.runtime.now().saturating_sub(start);
            #[cfg(seawall_shuttle)]
            if self.errs(Misorder::WakeBeforePublish) && written.is_ok() {
                self.announce(&group);
            }
            let again = match written {
                Ok(written) => self.finish(&mut group, written, took, round < LEAD_AGAIN_MAX),
                Err(_) if self.forgetful => {
                    let end = group.last().map_or(self.written(), Batch::end);
                    self.finish(&mut group, Written { end, durable }, took, false)
                }
                Err(error) => {
                    self.fail(error);
                    guard.finished = true;
                    return;
                }
            };
            #[cfg(seawall_shuttle)]
            let group = if self.errs(Misorder::WakeBeforePublish) { Vec::new() } else { group };
            self.announce(&group);
            self.recycle(group);
            if !again {
                break;
            }
        }
        guard.finished = true;
    }

    /// What is to be written now, and whether durably. Frees the token and returns nothing if there is no work.
    fn take_group(&self) -> Option<(Vec<Batch>, bool)> {
        let mut state = self.state.lock();
        if let Err(error) = self.seal_open(&mut state) {
            drop(state);
            self.fail(error);
            return None;
        }
        let group: Vec<Batch> = state.sealed.drain(..).collect();
        state.sealed_bytes = 0;
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
    fn finish(&self, group: &mut [Batch], written: Written, took: Duration, may_go_on: bool) -> bool {
        let n = group.iter().map(|batch| batch.commits).sum::<u32>();
        self.counters.write_us.record_duration(took);
        self.counters.group_size.record(u64::from(n));
        #[cfg(seawall_shuttle)]
        if self.errs(Misorder::FreeBeforePublish) {
            self.state.lock().in_flight = false;
        }
        let mut state = self.state.lock();
        debug_assert!(
            written.end >= self.written() && written.end <= self.reserved().max(self.written()),
            "W6"
        );
        self.written.fetch_max(written.end.0, Ordering::AcqRel);
        if written.durable {
            self.durable.fetch_max(written.end.0, Ordering::AcqRel);
        }
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min(50_000_000);
        state.write_ns = (state.write_ns * 7 + took_ns) / 8;
        let m = state.open.commits + state.sealed.iter().map(|batch| batch.commits).sum::<u32>();
        let again = !state.sealed.is_empty() || (m > 0 && m >= n / 2);
        state.target = if m == 0 || again { n.max(1) } else { n + m };
        if again && may_go_on {
            return true;
        }
        state.in_flight = false;
        if again {
            // Somebody else goes on: one of those who wait leads at once.
            state.target = 1;
            let seq = state.sealed.front().map_or(state.open.seq, |front| front.seq);
            drop(state);
            self.word(seq).fetch_add(1, Ordering::Release);
            self.runtime.wake_one(self.word(seq));
        }
        false
    }

    /// Wakes all whose commits were just published, and runs their callbacks.
    fn announce(&self, group: &[Batch]) {
        #[cfg(seawall_shuttle)]
        if self.announce_wrongly(group) {
            return;
        }
        for batch in group {
            let word = self.word(batch.seq);
            word.fetch_add(1, Ordering::Release);
            if batch.commits > 0 {
                self.runtime.wake_all(word);
            }
        }
        // A sleeper counts itself, then looks at the word; here the word changes, then sleepers are counted.
        self.progress.fetch_add(1, Ordering::SeqCst);
        if self.progress_waiters.load(Ordering::SeqCst) > 0 {
            self.runtime.wake_all(&self.progress);
        }
        self.callbacks.run(self.durable(), self.written(), false);
    }

    fn recycle(&self, group: Vec<Batch>) {
        let mut state = self.state.lock();
        for batch in group {
            if batch.buf.len() == batch::buffer_bytes(self.geometry) && state.pool.len() < POOL_MAX {
                state.pool.push(batch.buf);
            }
        }
    }

    /// W8: from here on nothing is promised any more.
    pub(crate) fn fail(&self, error: Error) {
        {
            let mut state = self.state.lock();
            if state.failure.is_none() {
                state.failure = Some(Arc::new(error));
            }
            state.in_flight = false;
        }
        #[cfg(seawall_shuttle)]
        if self.errs(Misorder::FailSilently) {
            return;
        }
        for word in self.words.iter().chain([&self.progress]) {
            word.fetch_add(1, Ordering::Release);
            self.runtime.wake_all(word);
        }
        self.callbacks.run(self.durable(), self.written(), true);
    }
}

/// A leader that panics must not leave the others asleep for ever.
struct LeadGuard<'a, S: Sink> {
    committer: &'a Committer<S>,
    finished: bool,
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
