//! Checkpoints: the log's effects, moved into the data file.
//!
//! ```text
//! freeze at C ─► log on the device up to C ─► visible ≥ C ─► fold ─► blocks synced ─► superblock ─► new view ─► release log < C
//!    (lock)                  (no-steal: what is not visible is never folded)              │
//!                                                                        a crash before: the old root and its log
//! ```
//!
//! One at a time, under a latch that is held across I/O and never while a commit needs it: commits go on beside all
//! of it. `NoSpace` leaves everything as it was, the frozen deltas included, which the next attempt folds together
//! with what came since. Any other failure of a write or sync poisons the store: what is on the disk is not known
//! any more, and only reopening decides.

use crate::cover::{Span, joined};
use crate::db::Core;
use crate::delta::{Delta, Version};
use crate::invariants;
use crate::life::pace::Pace;
use crate::life::slots::Loss;
use crate::life::spill;
use crate::life::throttle::Throttle;
use crate::mutation::Mutation;
use crate::options::{Spilling, StageHook};
use crate::read::scan::Merge;
use crate::read::view::{DeltaBytes, Reads};
use crate::record::BRANCHES;
use crate::stats::{Checkpoint, Event};
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};
use crate::tree::cost::Plan;
use crate::tree::{Change, Superblock};
use crate::{Error, Result};
use seawall_wal::latch::{Latch, LatchGuard};
use seawall_wal::{Lsn, Runtime};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What the checkpoints share with those who wait for them.
pub(crate) struct FoldState {
    /// One checkpoint at a time; also taken by whoever must not meet one.
    pub(crate) latch: Latch,
    pub(crate) pace: Arc<Pace>,
    pub(crate) throttle: Throttle,
    /// Changes when a checkpoint is asked for, or the thread is to end.
    wake: AtomicU32,
    is_requested: AtomicBool,
    is_tidying_requested: AtomicBool,
    is_stopping: AtomicBool,
    /// A full disk: a checkpoint gives log back, whatever else speaks against it.
    is_room_wanted: AtomicBool,
    /// The last one waits for those who follow.
    is_postponed: AtomicBool,
    /// There was no room on the disk to take runs in while the store was at rest.
    has_put_off_runs: AtomicBool,
    /// The last one freed much memory, which the allocator has not given back.
    has_freed: AtomicBool,
    /// Changes when a checkpoint ends.
    ended: AtomicU32,
    last: Mutex<Last>,
    pub(crate) has_told_failure: AtomicBool,
}

#[derive(Default)]
struct Last {
    at: Duration,
    was_full: bool,
}

/// How long the thread leaves replicas the time to come along.
const POSTPONED_PAUSE: Duration = Duration::from_millis(20);

/// A store that has not been written to for so long takes its runs in.
const IDLE_RUNS_PAUSE: Duration = Duration::from_secs(1);

/// What a row of a run that comes into its tree costs, whose leaf is read and written anew, beside one that goes into a run.
const ROLLED_ROW_WORTH: u64 = 4;

/// The share of the budget, and the bytes, that must have come free for the allocator to be asked to give them back: that takes
/// a while.
const GIVEN_BACK_SHARE: u64 = 16;
const GIVEN_BACK_BYTES_MIN: u64 = 4 << 20;

/// How long the thread leaves a full disk alone, or replicas that are away.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(500);

impl FoldState {
    pub(crate) fn new(runtime: &Arc<dyn Runtime>) -> FoldState {
        FoldState {
            latch: Latch::new(Arc::clone(runtime)),
            pace: Arc::new(Pace::new(Arc::clone(runtime))),
            throttle: Throttle::default(),
            wake: AtomicU32::new(0),
            is_requested: AtomicBool::new(false),
            is_tidying_requested: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            is_room_wanted: AtomicBool::new(false),
            is_postponed: AtomicBool::new(false),
            has_put_off_runs: AtomicBool::new(false),
            has_freed: AtomicBool::new(false),
            ended: AtomicU32::new(0),
            last: Mutex::new(Last { at: runtime.now(), was_full: false }),
            has_told_failure: AtomicBool::new(false),
        }
    }

    /// Asks the thread for a checkpoint, soon.
    pub(crate) fn request(&self, runtime: &dyn Runtime) {
        if !self.is_requested.swap(true, Ordering::AcqRel) {
            self.wake.fetch_add(1, Ordering::Release);
            runtime.wake_all(&self.wake);
        }
    }

    /// The disk is full.
    pub(crate) fn request_room(&self, runtime: &dyn Runtime) {
        self.is_room_wanted.store(true, Ordering::Release);
        self.request(runtime);
    }

    /// The next checkpoint waits for nobody.
    pub(crate) fn insist(&self) {
        self.is_room_wanted.store(true, Ordering::Release);
    }

    pub(crate) fn takes_room_wanted(&self) -> bool {
        self.is_room_wanted.swap(false, Ordering::AcqRel)
    }

    /// Asks the thread to look for memory that nobody needs any more, soon.
    pub(crate) fn request_tidying(&self, runtime: &dyn Runtime) {
        if !self.is_tidying_requested.swap(true, Ordering::AcqRel) {
            self.wake.fetch_add(1, Ordering::Release);
            runtime.wake_all(&self.wake);
        }
    }

    /// Tells the thread to end.
    pub(crate) fn stop(&self, runtime: &dyn Runtime) {
        self.is_stopping.store(true, Ordering::Release);
        self.pace.stop();
        self.wake.fetch_add(1, Ordering::Release);
        runtime.wake_all(&self.wake);
    }

    /// Whether the thread was told to end: the store is being closed.
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Waits until a checkpoint ends, or for a while. True if the last one found the disk full.
    pub(crate) fn wait_for_end(&self, runtime: &dyn Runtime) -> Result<bool> {
        let seen = self.ended.load(Ordering::Acquire);
        runtime.wait(&self.ended, seen, Some(Duration::from_millis(50)));
        let has_ended = self.ended.load(Ordering::Acquire) != seen;
        Ok(has_ended && self.last.lock().was_full)
    }

    fn note_end(&self, runtime: &dyn Runtime, was_full: bool) {
        *self.last.lock() = Last { at: runtime.now(), was_full };
        self.ended.fetch_add(1, Ordering::Release);
        runtime.wake_all(&self.ended);
    }
}

impl Core {
    /// True if a checkpoint is due for want of memory or log.
    pub(crate) fn wants_fold(&self) -> bool {
        self.needs_fold(&self.reads.deltas())
    }

    pub(crate) fn needs_fold(&self, deltas: &DeltaBytes) -> bool {
        deltas.active >= self.deltas_max() / 2
            || self.reads.visible().0.saturating_sub(deltas.folded.0) >= self.options.log_bytes_max
    }

    /// Makes a checkpoint. Bytes 0 if there was nothing to do.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint> {
        let alone = self.lock_out_checkpoints();
        let result = self.checkpoint_alone();
        drop(alone);
        self.give_back_memory();
        result
    }

    /// No checkpoint runs until this is dropped. One that does is waited for, and hurries.
    pub(crate) fn lock_out_checkpoints(&self) -> LatchGuard<'_> {
        let _waiting = self.fold.pace.wait();
        self.fold.latch.lock()
    }

    /// Like [`checkpoint`](Self::checkpoint), behind what others do, unless they wait for it.
    fn checkpoint_in_turns(&self) -> Result<Checkpoint> {
        let alone = self.fold.latch.lock();
        self.fold.pace.set_on(true);
        let result = self.checkpoint_alone();
        self.fold.pace.set_on(false);
        drop(alone);
        self.give_back_memory();
        result
    }

    /// The latch is held.
    pub(crate) fn checkpoint_alone(&self) -> Result<Checkpoint> {
        let start = self.runtime.now();
        let result = match self.fold_all() {
            // Nothing has changed if only a read failed: once more, before writes are refused for it.
            Err(Error::Io { .. }) if self.store.is_usable() && self.log_is_sound() => self.fold_all(),
            // What old snapshots hold back on the disk may be enough.
            Err(Error::NoSpace) if self.give_way(|| true) => self.fold_all(),
            result => result,
        };
        if !self.is_short_of_memory() {
            self.fold.pace.calm();
        }
        match &result {
            Ok(checkpoint) => {
                self.tidy();
                self.fold.note_end(&*self.runtime, false);
                if checkpoint.bytes > 0 {
                    let took = self.runtime.now().saturating_sub(start);
                    self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                    self.counters.checkpoint_us.record_duration(took);
                    self.tell(Event::CheckpointDone { lsn: checkpoint.lsn, took });
                }
            }
            Err(Error::NoSpace) => {
                self.fold.note_end(&*self.runtime, true);
                self.tell(Event::NoSpace);
            }
            Err(error) => {
                self.poison(error);
                self.fold.note_end(&*self.runtime, false);
            }
        }
        result
    }

    fn fold_all(&self) -> Result<Checkpoint> {
        let is_postponed = !self.may_replace_older()?;
        self.fold.is_postponed.store(is_postponed, Ordering::Release);
        if is_postponed {
            return Ok(Checkpoint { lsn: self.store.reaches().0.covered, path: self.data_path(), bytes: 0 });
        }
        // A delta that waits to be shown is not followed by another one.
        if let Some(frozen) = self.reads.view().frozen.first().filter(|_| self.sequencer.gate.is_in_use()) {
            self.sequencer.wait_visible(frozen.end())?;
        }
        let end = self.sequencer.freeze()?;
        // First the log, which also brings commits without a waiter on their way; then visible follows.
        if !self.options.has(Mutation::FoldUnsynced) {
            self.log.sync_to(end)?;
        }
        self.sequencer.advance();
        if !self.options.has(Mutation::FoldUnfrozen) {
            self.sequencer.wait_visible(end)?;
        }
        let view = self.reads.view();
        let path = self.data_path();
        let replay = self.sequencer.replay_from(end);
        let superblock = &view.root.superblock;
        let is_covered = superblock.checkpoint_lsn.max(superblock.applied_lsn) >= end;
        let has_deltas = view.frozen.iter().any(|delta| delta.end() <= end);
        let is_at_rest = is_covered && !has_deltas;
        // Whoever closes the store waits for what is new alone.
        let rolling = if self.fold.is_stopping() { Rolling::Never } else { Rolling::OfAll };
        if is_at_rest {
            self.release_log(replay)?;
            if view.root.runs_size().0 == 0 || rolling == Rolling::Never {
                return Ok(Checkpoint { lsn: end, path, bytes: 0 });
            }
        }
        let before = self.store.stats().fold_bytes;
        let held = self.reads.memory();
        let is_pressed = view.frozen.iter().any(|delta| delta.bytes() >= self.deltas_max() / 2);
        let (next_keyspace, now_us) = (self.catalogue.next_id(), self.runtime.wall_clock_us());
        if self.options.has(Mutation::ReleaseEarly) {
            self.log.release_before(end)?;
        }
        let (replay, applied) = match self.options.has(Mutation::ReplayLate) {
            true => (self.log.barrier()?, self.log.barrier()?),
            false => (replay, end),
        };
        let turns = RefCell::new(self.fold.pace.turns());
        let versions =
            view.frozen.iter().filter(|delta| delta.end() <= end).map(|delta| delta.versions()).sum();
        let mut on_plan = |is_spill| self.fold.throttle.begin(&*self.runtime, versions, is_spill);
        let mut on_change = || {
            self.fold.throttle.merged(1);
            turns.borrow_mut().step();
        };
        let mut how = Folding {
            on_stage: self.options.on_stage.clone(),
            on_change: &mut on_change,
            on_row: &mut |is_new| {
                if is_new {
                    self.fold.throttle.merged(ROLLED_ROW_WORTH);
                }
                turns.borrow_mut().step();
            },
            on_plan: &mut on_plan,
            spilling: self.options.spilling,
            repeats: &|covered| self.may_repeat(covered),
            // Writers that are slowed wait for what is new alone.
            rolling: match rolling {
                Rolling::OfAll if is_pressed || self.is_pressed() => Rolling::OfChanged,
                rolling => rolling,
            },
            has_rolled: false,
            has_finished: false,
        };
        let set = |superblock: &mut Superblock| {
            superblock.checkpoint_lsn = replay;
            superblock.applied_lsn = applied;
            superblock.next_keyspace = next_keyspace;
            superblock.visible_time_us = superblock.visible_time_us.max(now_us);
        };
        let mut folded = fold_below(&self.reads, end, &mut how, set);
        // What is new takes less room without what runs have. Once a superblock may be written, another fold must not begin.
        if matches!(folded, Err(Error::NoSpace)) && how.has_rolled && !how.has_finished && !is_at_rest {
            (how.rolling, how.on_stage) = (Rolling::Never, self.options.on_stage.clone());
            folded = fold_below(&self.reads, end, &mut how, set);
        }
        self.fold.throttle.end(&*self.runtime, folded.is_ok());
        // To take runs in is no duty, and nobody has to make room for it.
        let is_put_off = is_at_rest && matches!(folded, Err(Error::NoSpace));
        self.fold.has_put_off_runs.store(is_put_off, Ordering::Release);
        if is_put_off {
            return Ok(Checkpoint { lsn: end, path, bytes: 0 });
        }
        folded?;
        // What snapshots do not hold goes.
        drop(view);
        self.sequencer.folded(end, self.memory.retained_max());
        self.share_memory(self.reads.memory());
        let freed = held.saturating_sub(self.reads.memory());
        self.release_log(replay)?;
        let bytes = self.store.stats().fold_bytes.saturating_sub(before);
        // Writers that press on need as much again for the next one.
        self.store.release_space(if is_pressed { bytes } else { 0 })?;
        // After a checkpoint that has freed so much, and with nothing new in memory, the cache is about to have the room
        // that the deltas had, and the allocator would keep it too.
        let least = (self.memory.budget() / GIVEN_BACK_SHARE).max(GIVEN_BACK_BYTES_MIN);
        let has_freed = freed >= least && self.reads.delta_bytes() == 0;
        self.fold.has_freed.store(has_freed, Ordering::Release);
        Ok(Checkpoint { lsn: end, path, bytes })
    }

    /// Gives up the log that a published checkpoint covers, and the older superblock's too while the store is followed. What
    /// a full disk keeps from being given up goes later.
    pub(super) fn release_log(&self, end: Lsn) -> Result<()> {
        let end = if self.slots.is_any() { end.min(self.store.reaches().1.replay) } else { end };
        for Loss { name, bytes } in self.slots.settle(end) {
            self.tell(Event::SlotLost { name, bytes });
        }
        match self.log.release_before(end) {
            Err(Error::NoSpace) => Ok(()),
            released => released,
        }
    }

    /// After a checkpoint, when others may begin: it takes a while, for which nobody who closes the store waits.
    fn give_back_memory(&self) {
        if self.fold.has_freed.swap(false, Ordering::AcqRel) && !self.fold.is_stopping() {
            self.runtime.give_back_memory();
        }
    }

    /// Gives up memory that nobody needs any more, or that old snapshots have held for long enough.
    fn tidy(&self) {
        self.tell_of_old_branches();
        self.sequencer.prune(self.memory.retained_max());
        self.give_way(|| {
            // Whoever has just given way may have been all that kept deltas for validation.
            self.sequencer.prune(self.memory.retained_max());
            self.reads.memory() >= self.deltas_max()
        });
    }

    /// While memory or disk `is_short`, snapshots beyond their age give way. True if any did.
    fn give_way(&self, is_short: impl FnMut() -> bool) -> bool {
        let age = self.reads.expire(self.options.snapshot_age_max, is_short);
        if let Some(age) = age {
            self.tell(Event::SnapshotOld { age });
        }
        age.is_some()
    }

    pub(crate) fn log_is_sound(&self) -> bool {
        !matches!(self.log.make_room(0), Err(Error::Poisoned(_)))
    }

    /// Refuses writes from now on.
    pub(crate) fn poison(&self, error: &Error) {
        let cause = match error {
            Error::NoSpace | Error::Closed | Error::ReadOnly => return,
            Error::Unacknowledged { .. } | Error::Fenced { .. } => return,
            Error::Poisoned(cause) => Arc::clone(cause),
            other => Arc::new(other.again()),
        };
        self.sequencer.fail(cause);
        self.note_failure();
    }

    fn is_due(&self) -> bool {
        let has_rows = self.reads.delta_bytes() > 0;
        let checkpoint = self.reads.deltas().folded;
        let log_bytes = self.reads.visible().0.saturating_sub(checkpoint.0);
        // An idle store's log does not stay for ever, and an idle store is left alone.
        let is_idle = !has_rows && log_bytes < self.options.segment_bytes;
        let since = self.runtime.now().saturating_sub(self.fold.last.lock().at);
        self.wants_fold() || (since >= self.options.checkpoint_interval && !is_idle)
    }

    /// How long after the last checkpoint runs stay.
    fn idle_runs_pause(&self) -> Duration {
        let interval = self.options.checkpoint_interval;
        match self.fold.has_put_off_runs.load(Ordering::Acquire) {
            true => interval,
            false => interval.min(IDLE_RUNS_PAUSE),
        }
    }

    /// Whether nothing has come since the checkpoint that there are runs of.
    fn has_idle_runs(&self) -> bool {
        self.reads.delta_bytes() == 0 && self.reads.view().root.runs_size().0 > 0
    }

    /// Whether runs have stayed for long enough.
    fn takes_idle_runs_in(&self) -> bool {
        let since = self.runtime.now().saturating_sub(self.fold.last.lock().at);
        since >= self.idle_runs_pause() && self.has_idle_runs()
    }

    /// The thread `seawall-fold`.
    pub(crate) fn fold_in_background(self: &Arc<Core>) {
        let _alarm = Alarm(self);
        loop {
            let seen = self.fold.wake.load(Ordering::Acquire);
            if self.fold.is_stopping() {
                return;
            }
            if self.fold.is_tidying_requested.swap(false, Ordering::AcqRel) {
                self.tidy();
            }
            self.tell_of_old_branches();
            self.release_for_others();
            let has_runs = self.reads.view().root.runs_size().0 > 0;
            let pause = if has_runs { self.idle_runs_pause() } else { self.options.checkpoint_interval };
            let mut pause = pause.max(Duration::from_millis(1));
            let is_wanted = self.fold.is_requested.swap(false, Ordering::AcqRel) || self.is_due();
            if self.sequencer.check().is_ok() && (is_wanted || self.takes_idle_runs_in()) {
                let made = self.checkpoint_in_turns();
                let is_full = matches!(made, Err(Error::NoSpace | Error::Unacknowledged { .. }));
                let is_postponed = self.fold.is_postponed.load(Ordering::Acquire);
                let is_put_off = self.fold.has_put_off_runs.load(Ordering::Acquire);
                let has_ended = !is_full && !is_postponed && !is_put_off;
                let is_requested = self.fold.is_requested.load(Ordering::Acquire);
                if has_ended && !is_requested && (self.wants_fold() || self.has_idle_runs()) {
                    continue;
                }
                // What nobody wants waits until it is due again.
                if is_wanted && (is_postponed || is_full) {
                    self.fold.is_requested.store(true, Ordering::Release);
                    pause = if is_full { FULL_DISK_PAUSE } else { POSTPONED_PAUSE };
                }
            }
            self.runtime.wait(&self.fold.wake, seen, Some(pause));
        }
    }
}

/// How a fold is made.
pub(crate) struct Folding<'a> {
    pub(crate) on_stage: Option<StageHook>,
    /// Called before each change.
    pub(crate) on_change: &'a mut dyn FnMut(),
    /// Called after each row that a run gives up, told whether something is new in its keyspace.
    pub(crate) on_row: &'a mut dyn FnMut(bool),
    /// Called before the first, told whether only runs are written.
    pub(crate) on_plan: &'a mut dyn FnMut(bool),
    /// Whether the superblock that covers so much of the log is to be repeated in the other slot.
    pub(crate) repeats: &'a dyn Fn(Lsn) -> bool,
    pub(crate) spilling: Spilling,
    pub(crate) rolling: Rolling,
    /// Whether rows of runs came into their trees, or would have.
    pub(crate) has_rolled: bool,
    /// Whether the fold came to its end, where it is published.
    pub(crate) has_finished: bool,
}

/// Whose runs a checkpoint takes in a stretch of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rolling {
    /// No keyspace's: where there are runs, what is new becomes another one.
    Never,
    /// Those of keyspaces that something is new in.
    OfChanged,
    OfAll,
}

/// Writes the newest versions in the frozen deltas that end at or below `end` into the trees, or into runs beside them,
/// and publishes that with what `set` says. The deltas leave the view. Without any deltas, runs go into their trees.
pub(crate) fn fold_below(
    reads: &Arc<Reads>,
    end: Lsn,
    how: &mut Folding<'_>,
    set: impl FnOnce(&mut Superblock),
) -> Result<()> {
    let view = reads.view();
    let deltas: Vec<_> = view.frozen.iter().filter(|delta| delta.end() <= end).map(Arc::clone).collect();
    let dropped: BTreeSet<u32> = deltas.iter().flat_map(|delta| delta.dropped().into_keys()).collect();
    let with_rows = deltas.iter().flat_map(|delta| delta.keyspaces());
    let mut keyspaces: BTreeSet<u32> = with_rows.chain(dropped.iter().copied()).collect();
    let changed = keyspaces.clone();
    if deltas.is_empty() && how.rolling != Rolling::Never {
        keyspaces.extend(view.root.keyspaces_with_runs());
    } else if how.rolling == Rolling::OfAll {
        keyspaces.extend(reads.idle_in_turn(&view.root, &changed));
    }
    let (mut plans, mut rolled) = (BTreeMap::new(), BTreeMap::new());
    for keyspace in keyspaces.iter().copied().filter(|keyspace| !dropped.contains(keyspace)) {
        let plan = match changed.contains(&keyspace) {
            true => spill::plan(reads, &view.root, &deltas, keyspace, how)?,
            false => spill::plan_idle(&view.root, keyspace, how.spilling, deltas.is_empty()),
        };
        plans.insert(keyspace, plan);
    }
    (how.on_plan)(plans.values().any(|plan| *plan != Plan::Fold));
    let compressions = reads.compressions(&view.root, &deltas, end, keyspaces.iter().copied())?;
    let mut fold = reads.store.begin_fold(&view.root)?;
    if let Some(hook) = how.on_stage.take() {
        fold.on_stage(move |stage| hook(stage));
    }
    fold.await_values(deltas.iter().flat_map(|delta| delta.large()));
    for keyspace in keyspaces {
        if keyspace == BRANCHES && reads.errs_by(Mutation::FoldUnprepared) {
            continue;
        }
        if dropped.contains(&keyspace) {
            fold.drop_keyspace(keyspace)?;
            continue;
        }
        let mut merge = Merge::of_deltas(reads, &deltas, keyspace, end);
        let next = || {
            (how.on_change)();
            merge.next_found().transpose()
        };
        let changes = std::iter::from_fn(next);
        let changes =
            changes.map(|found| found.and_then(|(key, version)| Ok((key, change_of(reads, version)?))));
        let mut cleared = cleared_by(&deltas, keyspace, end);
        if reads.errs_by(Mutation::FoldUncleared) {
            cleared.clear();
        }
        let compression = compressions.get(&keyspace).copied().unwrap_or_default();
        // Writers are paced by what is new: rows of others are no progress with it.
        let is_new = changed.contains(&keyspace);
        let on_row: &mut dyn FnMut() = &mut || (how.on_row)(is_new);
        let Some(Plan::Spill { part }) = plans.get(&keyspace) else {
            how.has_rolled |= view.root.has_runs(keyspace);
            fold.apply_over(keyspace, compression, cleared, changes, on_row)?;
            continue;
        };
        // What is cleared has to be taken out of the same trees.
        if cleared.is_empty() && *part < u32::MAX && view.root.has_runs(keyspace) {
            how.has_rolled = true;
            let stretch = reads.next_stretch(&view.root, keyspace, *part)?;
            fold.roll(keyspace, compression, &stretch, on_row)?;
            rolled.insert(keyspace, stretch);
        }
        fold.spill(keyspace, compression, cleared, changes)?;
    }
    invariants::checkpoint_is_covered(end, reads.visible());
    how.has_finished = true;
    let root = fold.finish(set)?;
    // What this checkpoint has replaced is free for the next one.
    let superblock = &root.superblock;
    let repeats = (how.repeats)(superblock.checkpoint_lsn.max(superblock.applied_lsn));
    let root = if repeats { reads.store.repeat(&root)? } else { root };
    reads.folded(end, root);
    rolled.iter().for_each(|(keyspace, stretch)| reads.rolled(*keyspace, stretch));
    reads.rolled.lock().retain(|keyspace, _| !dropped.contains(keyspace));
    Ok(())
}

fn change_of(reads: &Reads, version: Version) -> Result<Change> {
    match version {
        Version::Add(sum) if reads.errs_by(Mutation::FoldAddsTwice) => Ok(Change::Add(sum.wrapping_mul(2))),
        Version::Add(sum) => Ok(Change::Add(sum)),
        Version::Large(value) => Ok(Change::PutLarge(value)),
        version => Ok(reads.row_of(version)?.map_or(Change::Remove, Change::Put)),
    }
}

/// What any of the deltas has cleared, in key order: of the tree below them nothing is left there.
fn cleared_by(deltas: &[Arc<Delta>], keyspace: u32, end: Lsn) -> Vec<Span> {
    let covers = deltas.iter().filter_map(|delta| delta.cleared(keyspace, end));
    let mut spans: Vec<Span> = covers.flat_map(|cover| cover.spans()).collect();
    spans.sort_by(|a, b| a.from.cmp(&b.from));
    joined(spans.into_iter())
}

/// A panic of the thread must not leave writers waiting for it.
struct Alarm<'a>(&'a Arc<Core>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = Error::BadInput("the checkpoint thread panicked".into());
            self.0.sequencer.fail(Arc::new(why));
        }
    }
}
