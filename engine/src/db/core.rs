//! What all parts of an open store share, and the way of a commit through it: throttle, place, wait.

use crate::commit::locks::{Held, Locks};
use crate::commit::log::CommitLog;
use crate::commit::pending::Pending;
use crate::commit::sequencer::Sequencer;
use crate::commit::ticket::Ticket;
use crate::commit::validate::Seen;
use crate::keyspace::{Catalogue, Life};
use crate::life::checkpoint::FoldState;
use crate::mutation::Mutation;
use crate::number::{NUMBER_BYTES, no_number};
use crate::options::Options;
use crate::read::track::ReadSet;
use crate::read::view::Reads;
use crate::record::{Effect, WriteSet};
use crate::stats::{Counters, Event, Stats};
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};
use crate::tree::TreeStore;
use crate::{Error, Result};
use seawall_wal::{Durability, Lsn, Runtime};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What all parts of an open store share.
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) sequencer: Arc<Sequencer>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) store: Arc<TreeStore>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) fold: FoldState,
    pub(crate) counters: Counters,
    pub(crate) is_closed: AtomicBool,
}

/// Writers begin to be slowed when deltas fill this share of their budget, in percent.
const SLOW_FROM_PERCENT: u64 = 75;
const SLOW_DELAY_MAX: Duration = Duration::from_millis(2);

impl Core {
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only { Err(Error::ReadOnly) } else { self.sequencer.check() }
    }

    pub(crate) fn data_path(&self) -> PathBuf {
        self.options.path.join(crate::life::open::DATA_NAME)
    }

    pub(crate) fn tell(&self, event: &Event) {
        if let Some(listener) = &self.options.events {
            listener.event(event);
        }
    }

    /// Commits and waits until that is visible.
    pub(crate) fn commit(
        &self,
        set: WriteSet,
        touched: &[Arc<Life>],
        seen: Option<Seen<'_>>,
        durability: Durability,
    ) -> Result<Lsn> {
        let start = self.runtime.now();
        let pending = self.place(set, touched, seen, durability)?;
        let result = self.sequencer.wait(&pending, None);
        self.counters.commit_us.record_duration(self.runtime.now().saturating_sub(start));
        result
            .unwrap_or(Err(Error::CommitUnknown { lsn: pending.lsn() }))
            .inspect_err(|_| self.note_failure())
    }

    /// Takes the commit's place; its locks are handed on when it is visible.
    pub(crate) fn commit_pipelined(
        &self,
        set: WriteSet,
        touched: &[Arc<Life>],
        seen: Option<Seen<'_>>,
        durability: Durability,
        locks: Option<Held>,
    ) -> Result<Ticket> {
        let pending = self.place(set, touched, seen, durability)?;
        if let Some(locks) = locks {
            pending.listener.keep(locks, || self.sequencer.settled(&pending));
        }
        self.sequencer.notify(&pending);
        Ok(Ticket::pending(Arc::clone(&self.sequencer), pending))
    }

    fn place(
        &self,
        set: WriteSet,
        touched: &[Arc<Life>],
        seen: Option<Seen<'_>>,
        durability: Durability,
    ) -> Result<Arc<Pending>> {
        self.check_writable()?;
        let deltas = self.reads.deltas();
        self.throttle(deltas.bytes)?;
        // V2: from here on only a fold may free them, unless there comes to be no record.
        let naming = set.naming().to_vec();
        if !self.options.has(Mutation::FreeStreamed) {
            naming.iter().for_each(|is_named| is_named.store(true, Ordering::Release));
        }
        let placed = if set.is_blind && set.has_adds() {
            self.place_adds(&set, touched, durability)
        } else {
            self.sequencer.commit(set, touched, seen, durability)
        };
        if placed.as_ref().is_err_and(Error::is_without_effect) {
            naming.iter().for_each(|is_named| is_named.store(false, Ordering::Release));
        }
        if matches!(placed, Err(Error::NoSpace)) {
            // A checkpoint may give log back.
            self.fold.request(&*self.runtime);
            self.tell(&Event::NoSpace);
        }
        let pending = placed.inspect_err(|_| self.note_failure())?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        if self.needs_fold(&deltas) {
            self.fold.request(&*self.runtime);
        }
        Ok(pending)
    }

    /// Whether writers are slowed for want of memory.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        let used = self.reads.delta_bytes().saturating_add(self.reads.pinned_bytes());
        used >= self.options.delta_bytes_max / 100 * SLOW_FROM_PERCENT
    }

    /// A batch's adds need rows that hold numbers, or nothing: that is looked at in a snapshot, and again if another has
    /// set such a row since.
    fn place_adds(
        &self,
        set: &WriteSet,
        touched: &[Arc<Life>],
        durability: Durability,
    ) -> Result<Arc<Pending>> {
        let nothing = ReadSet::default();
        loop {
            let snapshot = self.reads.snapshot(self.catalogue.instance(), true);
            let view = snapshot.view()?;
            for row in set.rows().iter().filter(|row| matches!(row.effect(), Some(Effect::Add(_)))) {
                let (keyspace, key) = set.key_of(row);
                let value = self.reads.get(&view, snapshot.lsn(), keyspace, key)?;
                if value.is_some_and(|value| value.len() != NUMBER_BYTES) {
                    return Err(no_number(key));
                }
            }
            let seen = Seen { snapshot: snapshot.lsn(), reads: &nothing };
            match self.sequencer.commit(set.clone(), touched, Some(seen), durability) {
                // What stands in the way may not be visible yet: another look alone would not show it.
                Err(Error::Conflict) => self.sequencer.wait_for_pending(),
                placed => return placed,
            }
        }
    }

    /// Slows a writer down when folding lags, or old snapshots hold memory back: by a delay that grows with the deltas;
    /// at the budget until a checkpoint ends, if one would help. Before its place is taken, never after.
    fn throttle(&self, unfolded: u64) -> Result<()> {
        let pinned = self.reads.pinned_bytes();
        let (used, max) = (unfolded.saturating_add(pinned), self.options.delta_bytes_max);
        let slow_from = max / 100 * SLOW_FROM_PERCENT;
        if used < slow_from || !self.options.background {
            return Ok(());
        }
        self.fold.pace.hurry();
        if pinned > 0 {
            self.fold.request_tidying(&*self.runtime);
        }
        if unfolded < max {
            let share = (used - slow_from) as f64 / (max - slow_from).max(1) as f64;
            self.pause(SLOW_DELAY_MAX.mul_f64(share.min(1.0)));
            return Ok(());
        }
        let start = self.runtime.now();
        while self.reads.delta_bytes() >= max {
            self.check_writable()?;
            // A checkpoint that ended meanwhile may have called all to calm.
            self.fold.pace.hurry();
            self.fold.request(&*self.runtime);
            if self.fold.wait_for_end(&*self.runtime)? {
                self.tell(&Event::NoSpace);
                return Err(Error::NoSpace);
            }
        }
        self.tell(&Event::WriteStall { took: self.runtime.now().saturating_sub(start) });
        Ok(())
    }

    pub(super) fn pause(&self, time: Duration) {
        let word = AtomicU32::new(0);
        self.runtime.wait(&word, 0, Some(time));
    }

    /// The data file failed outside a checkpoint: what that would mean for one, it means here.
    pub(crate) fn data_failed(&self, error: &Error) {
        match error {
            Error::NoSpace => {
                // A checkpoint may free what is dead.
                self.fold.request(&*self.runtime);
                self.tell(&Event::NoSpace);
            }
            error if !self.store.is_usable() => {
                self.sequencer.fail(Arc::new(error.again()));
                self.note_failure();
            }
            _ => {}
        }
    }

    /// A failure of the log is told once; the sequencer knows it already.
    pub(crate) fn note_failure(&self) {
        if let Some(cause) = self.sequencer.failure()
            && !self.fold.has_told_failure.swap(true, Ordering::AcqRel)
        {
            self.tell(&Event::Poisoned { why: cause.to_string() });
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let (log, tree) = (self.log.stats(), self.store.stats());
        let log_bytes = self.log.log_bytes();
        Stats {
            commits: self.counters.commits.load(Ordering::Relaxed),
            conflicts: self.sequencer.conflicts.load(Ordering::Relaxed),
            syncs: log.syncs,
            log_device_bytes: log.device_bytes,
            log_payload_bytes: log.payload_bytes,
            log_bytes,
            disk_bytes: tree.file_bytes.saturating_add(log_bytes),
            log_retained: self.log.retained(),
            oldest_snapshot_age: self.reads.oldest_age(),
            delta_bytes: self.reads.memory(),
            delta_pinned_bytes: self.reads.pinned_bytes(),
            cache_bytes: tree.cache_bytes,
            cache_hits: tree.cache_hits,
            cache_misses: tree.cache_misses,
            live_bytes: tree.live_bytes,
            free_bytes: tree.free_bytes,
            checkpoints: self.counters.checkpoints.load(Ordering::Relaxed),
            checkpoint_bytes: tree.fold_bytes,
            checkpoint_lsn: self.reads.view().root.superblock.checkpoint_lsn,
            visible_lsn: self.reads.visible(),
            poisoned: self.sequencer.failure().map(|cause| cause.to_string()),
            commit_us: self.counters.commit_us.snapshot(),
            sync_us: log.write_us,
            checkpoint_us: self.counters.checkpoint_us.snapshot(),
        }
    }
}

/// Keeps the store open.
pub(crate) struct Handle {
    core: Arc<Core>,
    /// Of the background.
    pub(crate) threads: Mutex<Vec<Box<dyn seawall_wal::runtime::Thread>>>,
}

impl Handle {
    pub(crate) fn new(core: Arc<Core>) -> Handle {
        Handle { core, threads: Mutex::new(Vec::new()) }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}
