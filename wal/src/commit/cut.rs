//! Cutting the log's end off while it is open: nothing new is placed, what has its place is written, and then the
//! token is held by whoever cuts, so that nobody writes.
//!
//! The marks inside never go back: whoever waited for what was dropped was told that it counts, and positions behind a
//! cut are higher than all before it. What the log's face says of them is where it was cut, until something new has
//! got further than what was reserved then.

use super::{Committer, Sink};
use crate::Lsn;
use crate::error::{Error, Result};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Where a log was cut since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    /// Grows with each: readers compare.
    count: AtomicU64,
    /// What was reserved at the last one, and what the marks are since.
    settled: AtomicU64,
    end: AtomicU64,
    /// The first record that each dropped.
    dropped: Mutex<Vec<Lsn>>,
    /// What was cut out of the log, earlier openings' cuts included.
    gaps: Mutex<Vec<(Lsn, Lsn)>>,
}

impl Cuts {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The lowest position that was dropped by the cuts since there were `seen`.
    pub(crate) fn lowest_since(&self, seen: u64) -> Option<Lsn> {
        self.dropped.lock().iter().skip(usize::try_from(seen).unwrap_or(usize::MAX)).min().copied()
    }

    /// What an earlier opening cut out.
    pub(crate) fn add_gap(&self, gap: (Lsn, Lsn)) {
        self.gaps.lock().push(gap);
    }

    /// Where the cut begins that `lsn` is behind, if nothing can stand there any more.
    pub(crate) fn gap_around(&self, lsn: Lsn) -> Option<Lsn> {
        self.gaps.lock().iter().find(|(from, to)| *from < lsn && lsn < *to).map(|(from, _)| *from)
    }

    /// What a mark is to those who ask for it.
    fn shown(&self, mark: Lsn) -> Lsn {
        // The end was stored first, so it is that of this cut or a later one.
        let settled = self.settled.load(Ordering::Acquire);
        if mark.0 <= settled { Lsn(self.end.load(Ordering::Acquire)) } else { mark }
    }

    fn note(&self, at: Lsn, dropped: Lsn, settled: Lsn) {
        self.end.store(at.0, Ordering::Release);
        self.settled.store(settled.0, Ordering::Release);
        self.dropped.lock().push(dropped);
        self.count.fetch_add(1, Ordering::AcqRel);
    }
}

/// The log, held still: nobody places, nobody writes, until this is dropped.
#[must_use = "the log is held still only as long as this lives"]
pub(crate) struct Paused<'a, S: Sink> {
    committer: &'a Committer<S>,
    has_token: bool,
}

impl<S: Sink> Committer<S> {
    /// The durable LSN as the log's face says it; the others likewise.
    pub(crate) fn shown_durable(&self) -> Lsn {
        self.cuts.shown(self.durable())
    }

    pub(crate) fn shown_written(&self) -> Lsn {
        self.cuts.shown(self.written())
    }

    pub(crate) fn shown_reserved(&self) -> Lsn {
        self.cuts.shown(self.reserved())
    }

    /// Holds the log still: everything that has its place becomes durable first, and whoever wants one waits. One at a
    /// time.
    pub(crate) fn pause(&self) -> Result<Paused<'_, S>> {
        {
            let mut state = self.state.lock();
            state.check()?;
            state.paused = true;
        }
        let mut paused = Paused { committer: self, has_token: false };
        loop {
            let seen = self.progress.seen();
            self.make_durable(self.reserved())?;
            let mut state = self.state.lock();
            state.check()?;
            if !state.in_flight && !state.has_pending() {
                state.in_flight = true;
                paused.has_token = true;
                return Ok(paused);
            }
            let limit = state.gather.write_time() * 2;
            drop(state);
            self.progress.sleep(&*self.runtime, seen, Some(limit));
        }
    }
}

impl<S: Sink> Committer<S> {
    /// A replica's log: what was shipped up to `end` is on the device, the next frame stands at `base`.
    pub(crate) fn shipped(&self, end: Lsn, base: Lsn, time_us: u64) {
        {
            let mut state = self.state.lock();
            debug_assert!(!state.has_pending(), "W15");
            state.open.place_at(base, self.geometry);
            state.time_us = state.time_us.max(time_us);
            self.reserved.fetch_max(end.0, Ordering::SeqCst);
            self.written.fetch_max(end.0, Ordering::SeqCst);
            self.durable.fetch_max(end.0, Ordering::SeqCst);
        }
        self.announce(&[], false);
    }

    /// A log that was a replica's goes on with its own records there.
    pub(crate) fn go_on_at(&self, base: Lsn) {
        self.state.lock().open.place_at(base, self.geometry);
    }
}

impl<S: Sink> Paused<'_, S> {
    /// The log was cut `at` a position, the first record dropped being `dropped`; the next frame stands at `base`.
    pub(crate) fn cut(&self, at: Lsn, dropped: Lsn, base: Lsn) {
        let committer = self.committer;
        let mut state = committer.state.lock();
        debug_assert!(!state.has_pending() && base > committer.reserved(), "W10");
        state.open.place_at(base, committer.geometry);
        committer.cuts.note(at, dropped, committer.reserved());
        drop(state);
        committer.followers.forget();
    }
}

impl<S: Sink> Drop for Paused<'_, S> {
    fn drop(&mut self) {
        let committer = self.committer;
        if self.has_token && std::thread::panicking() {
            committer.fail(Error::BadInput("the thread that cut the log panicked".to_owned()));
        }
        {
            let mut state = committer.state.lock();
            state.paused = false;
            if self.has_token {
                state.in_flight = false;
            }
        }
        // Those who wait for a place, for a mark, or for what is durable next.
        committer.progress.change_and_wake(&*committer.runtime);
        committer.followers.wake(&*committer.runtime);
    }
}
