//! How writers are slowed when folding lags: so that a delta never runs full while the one before it is being folded.
//!
//! ```text
//! room for the active delta ▲                          ╱ the line: in step with the fold
//!                           │                    ╱─────
//!                           │              ╱─────  around it, one after another, at the pace that comes out even:
//!                           │        ╱─────        twice that a band below the line, half of it a band above
//!                           └──────────────────────────► rows folded
//! ```
//!
//! A delay for each writer would have to know how many writers there are; with 64 of them one of 2 ms changes nothing. So
//! those who are to be slowed take *slots*: each commit pushes the next one's slot back by the time that its bytes take at the
//! pace wanted. All wait about as long then, and none longer than [`HELD_MAX`].

use crate::db::Core;
use crate::read::view::DeltaBytes;
use crate::record::WriteSet;
use crate::stats::Event;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::{Error, Result};
use seawall_wal::Runtime;
use std::time::Duration;

/// No writer waits longer for its slot.
pub(crate) const HELD_MAX: Duration = Duration::from_millis(80);
/// What the merge is of a checkpoint, beside its log's and its file's syncs.
const MERGE_SHARE: f64 = 0.9;
/// Writers aim at filling this share of the deltas' room by the end of a fold.
const FILL_SHARE: f64 = 0.95;
/// The share of the room that the pace is changed over.
const BAND_SHARE: f64 = 0.04;
/// What a version takes in a delta beside the payload, about.
const VERSION_BYTES: u64 = 80;
const COMMIT_BYTES: u64 = 72;

/// How far the fold in hand has come, and the slots of those who wait for it.
#[derive(Default)]
pub(crate) struct Throttle {
    /// When the fold in hand began to merge, in µs from the clock's start; 0 if none does.
    begun: AtomicU64,
    /// Versions in what it merges.
    versions: AtomicU64,
    /// Rows that it has merged.
    merged: AtomicU64,
    /// Whether it writes runs.
    is_spill: AtomicBool,
    /// What the last one of its kind took: of those that fold, and of those that write runs.
    before: [Before; 2],
    next: Mutex<Duration>,
    /// Commits that waited for their slot.
    pub(crate) slowed: AtomicU64,
}

/// What a fold took for each 1024 versions.
#[derive(Default)]
struct Before {
    rows: AtomicU64,
    us: AtomicU64,
}

/// Rows that a fold merges for each version, at most: it may take in rows of several runs.
const ROWS_PER_VERSION_MAX: u64 = 256;

impl Throttle {
    /// A fold of so many versions begins, which writes runs or does not.
    pub(crate) fn begin(&self, runtime: &dyn Runtime, versions: u64, is_spill: bool) {
        self.is_spill.store(is_spill, Ordering::Relaxed);
        self.merged.store(0, Ordering::Relaxed);
        self.versions.store(versions, Ordering::Relaxed);
        self.begun.store((runtime.now().as_micros() as u64).max(1), Ordering::Release);
    }

    /// So many rows more are merged, or work that is worth as many is done. By the folding thread alone.
    pub(crate) fn merged(&self, rows: u64) {
        self.merged.store(self.merged.load(Ordering::Relaxed) + rows, Ordering::Relaxed);
    }

    /// No fold is in hand any more. One that was given up says nothing of the next one's rows.
    pub(crate) fn end(&self, runtime: &dyn Runtime, is_whole: bool) {
        let (versions, merged) = (self.versions.load(Ordering::Relaxed), self.merged.load(Ordering::Relaxed));
        if is_whole && versions > 0 {
            let rows = (merged * 1024 / versions).clamp(1, 1024 * ROWS_PER_VERSION_MAX);
            self.before().rows.store(rows, Ordering::Relaxed);
            let took = (runtime.now().as_micros() as u64).saturating_sub(self.begun.load(Ordering::Relaxed));
            self.before().us.store(took.saturating_mul(1024) / versions, Ordering::Relaxed);
        }
        self.begun.store(0, Ordering::Release);
    }

    fn before(&self) -> &Before {
        let [folds, spills] = &self.before;
        if self.is_spill.load(Ordering::Relaxed) { spills } else { folds }
    }

    /// The share of the fold in hand that is done, and the seconds that the rest will take.
    fn progress(&self, now: Duration) -> Option<(f64, f64)> {
        let begun = Some(self.begun.load(Ordering::Acquire)).filter(|begun| *begun > 0)?;
        let share = match self.before().rows.load(Ordering::Relaxed) {
            0 => 1.0,
            rows => rows as f64 / 1024.0,
        };
        let versions = self.versions.load(Ordering::Relaxed) as f64;
        let done =
            (self.merged.load(Ordering::Relaxed) as f64 / (versions * share).max(1.0)).min(1.0) * MERGE_SHARE;
        let took = now.saturating_sub(Duration::from_micros(begun)).as_secs_f64().max(0.001);
        // A fold that has just begun says little of itself: the one before says more.
        let before = versions / 1024.0 * self.before().us.load(Ordering::Relaxed) as f64 / 1e6;
        let (trust, by_itself) = ((done * 4.0).min(1.0), took / done.max(0.001));
        let whole = if before > 0.0 { by_itself * trust + before * (1.0 - trust) } else { by_itself };
        Some((done, whole * (1.0 - done)))
    }

    /// How long to wait, to come out at `rate` bytes a second together with all others who are slowed.
    fn slot(&self, now: Duration, bytes: u64, rate: f64) -> Duration {
        let took = Duration::from_secs_f64((bytes as f64 / rate.max(1.0)).min(1.0));
        let mut next = self.next.lock();
        let at = (*next).max(now);
        *next = (at + took).min(now + HELD_MAX);
        at - now
    }
}

/// What decides about one writer.
#[derive(Clone, Copy, Debug)]
struct Fill {
    /// In deltas that are not folded.
    used: u64,
    /// The part of it that comes in.
    active: u64,
    /// What they may use.
    room: u64,
}

/// The rate, in bytes a second, that all writers together are to be slowed to; none if they need not be.
fn pace(fill: Fill, progress: Option<(f64, f64)>) -> Option<f64> {
    let room = fill.room as f64;
    let (used, frozen) = (fill.used as f64, fill.used.saturating_sub(fill.active) as f64);
    let Some((done, left)) = progress else {
        // One is about to begin.
        return (used >= room * FILL_SHARE).then_some(room);
    };
    let goal = room * FILL_SHARE;
    let line = frozen + (goal - frozen).max(0.0) * done;
    let above = (used - line) / (room * BAND_SHARE);
    if above < -1.0 {
        return None;
    }
    let even = (goal - used).max(room / 512.0) / left.clamp(0.005, 60.0);
    Some(even * 0.5_f64.powf(above.min(2.0)))
}

impl Core {
    /// Slows a writer down when folding lags, or old snapshots hold memory back; at the budget until a checkpoint ends, if
    /// one would help. Before its place is taken, never after.
    pub(crate) fn throttle(&self, deltas: &DeltaBytes, set: &WriteSet) -> Result<()> {
        let max = self.deltas_max();
        if deltas.total() < max / 2 || !self.options.background {
            return Ok(());
        }
        self.slow_for_snapshots(deltas.pinned, max);
        if deltas.bytes >= max {
            return self.wait_for_room(max);
        }
        let now = self.runtime.now();
        let progress = self.fold.throttle.progress(now);
        let room = max.saturating_sub(deltas.pinned).max(max / 4);
        let fill = Fill { used: deltas.bytes, active: deltas.active, room };
        let Some(rate) = pace(fill, progress) else { return Ok(()) };
        self.fold.pace.hurry();
        if progress.is_none() {
            self.fold.request(&*self.runtime);
        }
        let rows = set.rows().len() as u64;
        let bytes = set.payload().len() as u64 + rows * VERSION_BYTES + COMMIT_BYTES;
        let wait = self.fold.throttle.slot(now, bytes, rate);
        if wait > Duration::ZERO {
            self.fold.throttle.slowed.fetch_add(1, Ordering::Relaxed);
            self.pause(wait);
        }
        Ok(())
    }

    /// What old snapshots hold back no checkpoint gives free: from half of the deltas' room on, writers are slowed the more, the more that is.
    fn slow_for_snapshots(&self, pinned: u64, max: u64) {
        let Some(over) = pinned.checked_sub(max / 2) else { return };
        self.fold.request_tidying(&*self.runtime);
        let share = (over as f64 / (max / 2).max(1) as f64).min(1.0);
        self.fold.throttle.slowed.fetch_add(1, Ordering::Relaxed);
        self.pause(HELD_MAX.mul_f64(share * share));
    }

    /// The deltas are full.
    fn wait_for_room(&self, max: u64) -> Result<()> {
        let start = self.runtime.now();
        while self.reads.delta_bytes() >= max {
            self.check_writable()?;
            // A checkpoint that ended meanwhile may have called all to calm.
            self.fold.pace.hurry();
            self.fold.request(&*self.runtime);
            let waited = self.runtime.now().saturating_sub(start);
            if waited >= self.sequencer.gate.timeout() && self.sequencer.is_held_up() {
                return Err(self.sequencer.unacknowledged());
            }
            if self.fold.wait_for_end(&*self.runtime)? {
                self.tell(Event::NoSpace);
                return Err(Error::NoSpace);
            }
        }
        self.tell(Event::WriteStall { took: self.runtime.now().saturating_sub(start) });
        Ok(())
    }

    /// Whether a checkpoint has to hurry.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        let deltas = self.reads.deltas();
        let max = self.deltas_max();
        let room = max.saturating_sub(deltas.pinned).max(max / 4);
        deltas.bytes >= room / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_wal::SimRuntime;

    const ROOM: u64 = 100 << 20;

    fn pace_at(used: u64, active: u64, done: f64, left: f64) -> Option<f64> {
        let (used, active) = (used << 20, active << 20);
        pace(Fill { used, active, room: ROOM }, Some((done, left)))
    }

    #[test]
    fn who_is_in_step_with_the_fold_is_not_slowed() {
        assert_eq!(pace_at(60, 10, 0.5, 1.0), None);
        assert_eq!(pace_at(90, 40, 1.0, 0.0), None, "nearly as full as it may be, and done");
        assert_eq!(pace(Fill { used: ROOM / 2, active: ROOM / 2, room: ROOM }, None), None);
    }

    #[test]
    fn who_is_ahead_of_the_fold_gets_what_is_left_over_the_time_that_is_left() {
        // The line is at 50 + 22.5.
        let below = pace_at(70, 20, 0.5, 1.0).unwrap_or_default();
        let rate = pace_at(73, 23, 0.5, 1.0).unwrap_or_default();
        assert!((rate / (22.0 * f64::from(1 << 20)) - 0.92).abs() < 0.01 && below > rate * 1.4, "{rate}");
        let fuller = pace_at(92, 42, 0.5, 1.0).unwrap_or_default();
        assert!(fuller < rate / 3.0 && fuller > 0.0, "{fuller} after {rate}");
        let full = pace_at(99, 49, 0.5, 1.0).unwrap_or_default();
        assert!(full > 0.0 && full <= fuller, "never at all, and never more: {full}");
        assert!(pace(Fill { used: ROOM - 1, active: ROOM - 1, room: ROOM }, None).is_some());
    }

    #[test]
    fn slots_follow_each_other_and_nobody_is_held_for_long() {
        let throttle = Throttle::default();
        let now = Duration::from_secs(5);
        let waits: Vec<_> = (0..200).map(|_| throttle.slot(now, 1000, 1e6).as_micros()).collect();
        assert_eq!(waits.get(..4), Some(&[0, 1000, 2000, 3000][..]));
        assert!(waits.iter().all(|wait| *wait <= HELD_MAX.as_micros()));
        assert_eq!(throttle.slot(now + Duration::from_secs(1), 1000, 1e6), Duration::ZERO);
    }

    #[test]
    fn a_fold_of_many_versions_of_few_rows_is_reckoned_by_the_one_before() {
        let runtime = SimRuntime::new(1);
        let throttle = Throttle::default();
        assert!(throttle.progress(runtime.now()).is_none());
        for (merged, expected) in [(50, 0.05), (50, 0.5)] {
            throttle.begin(&*runtime, 1000, false);
            throttle.merged(merged);
            let (done, _) = throttle.progress(runtime.now()).unwrap_or_default();
            assert!((done / MERGE_SHARE - expected).abs() < 0.01, "{done}");
            throttle.merged(100 - merged);
            throttle.end(&*runtime, true);
        }
        assert!(throttle.progress(runtime.now()).is_none());
    }
}
