//! Following an open log: waiting for what becomes durable, woken by whoever published it.
//!
//! A follower sleeps on a word of its own kind. Whoever publishes marks, closes the log, lets it fail or cuts it changes
//! the word and wakes the sleepers, if there are any (`commit/word`): with nobody asleep that is one addition and one look
//! for each *write*, not for each commit. A log that closes refuses first and then drains: followers end behind that.
//!
//! Frames written while somebody follows are kept in memory for a while, up to [`RECENT_BYTES_MAX`]: log files are
//! written past the page cache, so that a follower at the live end would have to fetch from the device what this process
//! wrote a moment ago. A frame's position is never used twice, so what is found there under a position is that frame; how
//! far records may be shown is decided by the durable mark alone.
//!
//! - **W9** A follower shows no record that ends behind the durable LSN.

use crate::Lsn;
#[cfg(seawall_shuttle)]
use crate::commit::explored::Misorder;
use crate::commit::{Batch, Committer, Sink, Word};
use crate::error::{Error, Result};
use crate::frame;
use crate::log::Inner;
use crate::runtime::Runtime;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of recently written frames that are kept while somebody follows.
const RECENT_BYTES_MAX: usize = 8 << 20;

/// What the followers of one log share with whoever publishes.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    /// Changes with everything that a follower may wait for.
    word: Word,
    /// Followers that there are: frames are kept only for somebody.
    count: AtomicU32,
    recent: Mutex<Recent>,
    /// The exploration of interleavings must find that a sleeper is overlooked.
    #[cfg(seawall_shuttle)]
    pub(crate) counts_first: bool,
}

/// The newest frames, oldest first, header and padding included.
#[derive(Debug, Default)]
struct Recent {
    frames: VecDeque<(Lsn, Arc<[u8]>)>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, base: Lsn, frame: &[u8]) {
        self.bytes += frame.len();
        self.frames.push_back((base, frame.into()));
        while self.bytes > RECENT_BYTES_MAX {
            let Some((_, oldest)) = self.frames.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }
}

impl Followers {
    /// These batches were written; how far they may be shown, the marks say. Called in the log's order.
    pub(crate) fn keep(&self, group: &[Batch]) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut recent = self.recent.lock();
        for batch in group {
            if let Some(frame) = batch.frame() {
                recent.push(batch.base, frame);
            }
        }
    }

    /// These frames were written as they were shipped, one behind the other.
    pub(crate) fn keep_frames(&self, at: Lsn, frames: &[u8]) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let (mut at, mut rest) = (at, frames);
        let mut recent = self.recent.lock();
        while let Ok(header) = frame::Header::parse(rest) {
            let Some(frame) = rest.get(..header.padded_bytes()) else { return };
            recent.push(at, frame);
            at = at.plus(frame.len() as u64);
            rest = rest.get(frame.len()..).unwrap_or_default();
        }
    }

    /// Something changed: whoever sleeps looks again.
    pub(crate) fn wake(&self, runtime: &dyn Runtime) {
        #[cfg(seawall_shuttle)]
        if self.counts_first {
            let (word, sleepers) = self.word.raw();
            let asleep = sleepers.load(Ordering::SeqCst);
            word.fetch_add(1, Ordering::SeqCst);
            if asleep > 0 {
                runtime.wake_all(word);
            }
            return;
        }
        self.word.change_and_wake(runtime);
    }

    /// The frame at `lsn`, if it was written a moment ago.
    pub(crate) fn recent(&self, lsn: Lsn) -> Option<Arc<[u8]>> {
        let recent = self.recent.lock();
        let at = recent.frames.binary_search_by_key(&lsn, |(base, _)| *base).ok()?;
        recent.frames.get(at).map(|(_, frame)| frame.clone())
    }

    /// Forgets the frames that are kept.
    pub(crate) fn forget(&self) {
        *self.recent.lock() = Recent::default();
    }

    pub(crate) fn joined(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn left(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.forget();
        }
    }
}

/// What a follower that waited met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// More is durable: up to here.
    Durable(Lsn),
    /// The log was closed, and there is no more.
    Closed,
    /// The log was cut.
    Cut,
    /// Somebody asked the follower to stop.
    Stopped,
    /// Its time is over.
    TimedOut,
}

impl<S: Sink> Committer<S> {
    /// The marks have changed: followers are told.
    pub(crate) fn tell_followers(&self) {
        #[cfg(seawall_shuttle)]
        if self.errs(Misorder::TellFollowersFirst) {
            return;
        }
        self.followers.wake(self.runtime());
    }

    /// Sleeps until more than `known` is durable, or something else ends the wait. `deadline` is a time of the runtime's
    /// clock.
    ///
    /// # Errors
    /// [`Error::Poisoned`] once the log has failed.
    pub(crate) fn follow(
        &self,
        known: Lsn,
        cuts: u64,
        stop: &AtomicBool,
        deadline: Option<Duration>,
    ) -> Result<Met> {
        let followers = &self.followers;
        loop {
            let seen = followers.word.seen();
            if stop.load(Ordering::Acquire) {
                return Ok(Met::Stopped);
            }
            if self.cuts.count() != cuts {
                return Ok(Met::Cut);
            }
            // The end is looked at before the mark: nothing is published behind it.
            let ended = self.ended();
            let durable = self.durable();
            if durable > known {
                return Ok(Met::Durable(durable));
            }
            match ended {
                Some(Error::Closed) => return Ok(Met::Closed),
                Some(failure) => return Err(failure),
                None => {}
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(self.runtime().now()));
            if left == Some(Duration::ZERO) {
                return Ok(Met::TimedOut);
            }
            followers.word.sleep(self.runtime(), seen, left);
        }
    }
}

/// Ends a follower from another thread: see [`WalReader::stopper`](crate::WalReader::stopper).
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-stop-doc-{}", std::process::id()));
/// use seawall_wal::{Lsn, Wal};
/// let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;
/// let follower = wal.follow(Lsn::ZERO)?;
/// let stopper = follower.stopper();
/// let thread = std::thread::spawn(move || follower.count());
/// wal.commit(b"seen, or not")?;
/// stopper.stop();
/// assert!(thread.join().unwrap() <= 1);
/// # wal.close()?;
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall_wal::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stopper {
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) sleeps_on: SleepsOn,
}

/// Where a reader sleeps.
#[derive(Clone, Debug)]
pub(crate) enum SleepsOn {
    /// With the other followers of an open log.
    Log(Arc<Inner>),
    /// On a word of its own: a reader of files.
    Word(Arc<dyn Runtime>, Arc<AtomicU32>),
}

impl Stopper {
    /// The reader shows no more: it is woken if it waits, and its next call says that there is nothing. Can be called any
    /// number of times.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        match &self.sleeps_on {
            SleepsOn::Log(inner) => inner.committer.followers.wake(&*inner.runtime),
            SleepsOn::Word(runtime, word) => {
                word.fetch_add(1, Ordering::SeqCst);
                runtime.wake_all(word);
            }
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}
