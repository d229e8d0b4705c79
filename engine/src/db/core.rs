//! What all parts of an open store share, and the way of a commit through it: throttle, place, wait.

use crate::commit::gate::Reach;
use crate::commit::locks::{Held, Locks};
use crate::commit::log::CommitLog;
use crate::commit::patience::Patience;
use crate::commit::pending::Pending;
use crate::commit::prepared::branch::{Branch, Ending};
use crate::commit::prepared::table::Limits;
use crate::commit::sequencer::{Role, Sequencer};
use crate::commit::ticket::Ticket;
use crate::commit::validate::Seen;
use crate::keyspace::{Catalogue, Life};
use crate::life::checkpoint::FoldState;
use crate::life::following::Following;
use crate::life::slots::Slots;
use crate::memory::{Charge, Memory, MemoryStats};
use crate::mutation::Mutation;
use crate::number::{NUMBER_BYTES, no_number};
use crate::options::Options;
use crate::read::track::ReadSet;
use crate::read::view::{DeltaBytes, Reads};
use crate::record::{Effect, WriteSet};
use crate::stats::{Counters, Event, Stats};
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};
use crate::tree::{TreeStats, TreeStore};
use crate::{Error, ReadMode, Result};
#[cfg(not(seawall_shuttle))]
use seawall_wal::Wal;
use seawall_wal::{Lsn, Runtime};
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
    pub(crate) memory: Arc<Memory>,
    pub(crate) slots: Slots,
    pub(crate) counters: Counters,
    pub(crate) is_closed: AtomicBool,
    /// Its log is another store's.
    pub(crate) is_replica: AtomicBool,
    #[cfg(not(seawall_shuttle))]
    pub(crate) wal: Wal,
    /// Of a replica: its way through the log.
    #[cfg_attr(seawall_shuttle, allow(dead_code, reason = "there is no replica there"))]
    pub(crate) following: Following,
    pub(crate) patience: Arc<Patience>,
}

/// What a ticket takes beside its commit's payload, about.
const TICKET_BYTES: u64 = 320;

impl Core {
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether the store's own files may be written, be it by its log's owner or a replica.
    pub(crate) fn check_writable_log(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.is_read_only() { Err(Error::ReadOnly) } else { self.sequencer.check() }
    }

    /// Refuses where checkpoints are; a replica makes its own.
    pub(crate) fn check_foldable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only { Err(Error::ReadOnly) } else { self.sequencer.check() }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.options.read_only || self.is_replica()
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.is_replica.load(Ordering::Acquire)
    }

    pub(crate) fn data_path(&self) -> PathBuf {
        self.options.path.join(crate::life::open::DATA_NAME)
    }

    pub(crate) fn tell(&self, event: Event) {
        self.options.events.tell(event);
    }

    /// Commits and waits until that is visible.
    pub(crate) fn commit(
        &self,
        set: WriteSet,
        touched: &[Arc<Life>],
        seen: Option<Seen<'_>>,
        reach: Reach,
    ) -> Result<Lsn> {
        let start = self.runtime.now();
        let pending = self.place(set, touched, seen, reach)?;
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
        reach: Reach,
        locks: Option<Held>,
    ) -> Result<Ticket> {
        let pending = self.place(set, touched, seen, reach)?;
        Ok(self.ticket(pending, locks))
    }

    /// For what has its place; its locks are handed on when it is visible.
    pub(crate) fn ticket(&self, pending: Arc<Pending>, locks: Option<Held>) -> Ticket {
        if let Some(locks) = locks {
            pending.listener.keep(locks, || self.sequencer.settled(&pending));
        }
        self.sequencer.notify(&pending);
        if self.sequencer.gate.is_in_use() && self.options.background {
            self.patience.watch(&pending);
        }
        let bytes = pending.set().map_or(0, |set| set.payload().len() as u64);
        let charge = Charge::of(&self.memory.tickets, bytes + TICKET_BYTES);
        Ticket::pending(Arc::clone(&self.sequencer), pending, charge)
    }

    fn place(
        &self,
        set: WriteSet,
        touched: &[Arc<Life>],
        seen: Option<Seen<'_>>,
        reach: Reach,
    ) -> Result<Arc<Pending>> {
        self.check_writable()?;
        let deltas = self.reads.deltas();
        self.throttle(&deltas, &set)?;
        let naming = set.naming().to_vec();
        let placed = self.name_values(&naming, || {
            if set.is_blind && set.has_adds() {
                self.place_adds(&set, touched, reach)
            } else {
                self.sequencer.commit(set, touched, seen, reach)
            }
        });
        let pending = self.placed(placed, &deltas)?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        Ok(pending)
    }

    /// A record takes its place that names streamed values. V2: from then on only a fold may free them, unless there comes to
    /// be no record.
    fn name_values(
        &self,
        naming: &[Arc<std::sync::atomic::AtomicBool>],
        place: impl FnOnce() -> Result<Arc<Pending>>,
    ) -> Result<Arc<Pending>> {
        // L4.
        let outside = if naming.is_empty() { None } else { Some(self.slots.name_outside()?) };
        let note = |is_named| naming.iter().for_each(|named| named.store(is_named, Ordering::Release));
        note(!self.options.has(Mutation::FreeStreamed));
        let placed = place();
        if placed.as_ref().is_err_and(Error::is_without_effect) {
            note(false);
        }
        if outside.is_some()
            && let Ok(pending) = &placed
        {
            self.slots.note_outside(pending.end());
        }
        placed
    }

    fn placed(&self, placed: Result<Arc<Pending>>, deltas: &DeltaBytes) -> Result<Arc<Pending>> {
        if matches!(placed, Err(Error::NoSpace)) {
            // A checkpoint may give log back.
            self.fold.request_room(&*self.runtime);
            self.tell(Event::NoSpace);
        }
        let pending = placed.inspect_err(|_| self.note_failure())?;
        if self.needs_fold(deltas) {
            self.fold.request(&*self.runtime);
        }
        self.share_memory(deltas.total());
        Ok(pending)
    }

    /// A vote takes its place.
    pub(crate) fn place_prepare(
        &self,
        branch: &Arc<Branch>,
        record: WriteSet,
        touched: &[Arc<Life>],
        seen: Seen<'_>,
        reach: Reach,
    ) -> Result<Arc<Pending>> {
        let deltas = self.reads.deltas();
        self.throttle(&deltas, &record)?;
        let limits = Limits { count: self.options.prepared_max, bytes: self.options.prepared_bytes_max };
        let role = Role::Prepare(branch, seen, limits);
        let place = || self.sequencer.commit_as(role, record, touched, reach);
        self.placed(self.name_values(branch.set.naming(), place), &deltas)
    }

    /// An outcome takes its place. One that gives back is not slowed.
    pub(crate) fn place_ending(
        &self,
        branch: &Arc<Branch>,
        record: WriteSet,
        ending: Ending,
        reach: Reach,
    ) -> Result<Arc<Pending>> {
        let deltas = self.reads.deltas();
        if ending.applies() {
            self.throttle(&deltas, &record)?;
        }
        let names_outside = ending.applies() && branch.set.large().next().is_some();
        let role = Role::Outcome(branch, ending);
        let placed = self.placed(self.sequencer.commit_as(role, record, &[], reach), &deltas)?;
        if names_outside {
            // What was there when the vote was cast, and is in every image since.
            self.slots.note_outside(placed.end());
        }
        Ok(placed)
    }

    /// A batch's adds need rows that hold numbers, or nothing: that is looked at in a snapshot, and again if another has
    /// set such a row since.
    fn place_adds(&self, set: &WriteSet, touched: &[Arc<Life>], reach: Reach) -> Result<Arc<Pending>> {
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
            match self.sequencer.commit(set.clone(), touched, Some(seen), reach) {
                // What stands in the way may not be visible yet: another look alone would not show it.
                Err(Error::Conflict) if self.sequencer.wait_for_pending() => {}
                placed => return placed,
            }
        }
    }

    pub(crate) fn pause(&self, time: Duration) {
        let word = AtomicU32::new(0);
        self.runtime.wait(&word, 0, Some(time));
    }

    /// The data file failed outside a checkpoint: what that would mean for one, it means here.
    pub(crate) fn data_failed(&self, error: &Error) {
        match error {
            Error::NoSpace => {
                // A checkpoint may free what is dead.
                self.fold.request_room(&*self.runtime);
                self.tell(Event::NoSpace);
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
            self.tell(Event::Poisoned { why: cause.to_string() });
        }
    }

    /// Blocks of all files, where the disk tells; a file of the log may go away meanwhile.
    fn allocated_bytes(&self) -> Option<u64> {
        let disk = &self.options.disk;
        let data = disk.allocated_bytes(&self.data_path()).ok()?;
        let log_dir = self.options.path.join(crate::life::open::LOG_NAME);
        let names = disk.list(&log_dir).ok()?;
        let log = names.iter().filter_map(|name| disk.allocated_bytes(&log_dir.join(name)).ok());
        Some(log.fold(data, u64::saturating_add))
    }

    /// Gives the cache what the deltas leave.
    pub(crate) fn share_memory(&self, deltas: u64) {
        if let Some(room) = self.memory.cache_room(deltas, self.store.space_map_bytes()) {
            self.store.set_cache_bytes(room);
        }
    }

    /// Bytes for deltas at present.
    pub(crate) fn deltas_max(&self) -> u64 {
        let max = self.memory.deltas_max(self.store.space_map_bytes());
        self.options.deltas_bytes_max.map_or(max, |own| own.min(max))
    }

    fn memory_stats(&self, log_buffers: u64, tree: &TreeStats) -> MemoryStats {
        let deltas = self.reads.deltas();
        MemoryStats {
            budget: self.memory.budget(),
            deltas_active: deltas.active,
            deltas_frozen: deltas.bytes.saturating_sub(deltas.active),
            deltas_pinned: deltas.pinned,
            cache: tree.cache_bytes,
            blocks_held: tree.held_bytes,
            mapped_index: tree.mapped_index_bytes,
            mapped: tree.mapped_bytes,
            transactions: self.memory.transactions.load(Ordering::Relaxed),
            tickets: self.memory.tickets.load(Ordering::Relaxed),
            log_buffers,
            fold_buffers: self.store.fold_buffer_bytes(),
            space_map: self.store.space_map_bytes(),
            deltas_max: self.deltas_max(),
            cache_max: self.memory.cache_max(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let (log, tree) = (self.log.stats(), self.store.stats());
        let root = Arc::clone(&self.reads.view().root);
        let (runs, run_bytes) = root.runs_size();
        let log_bytes = self.log.log_bytes();
        let (prepared, prepared_bytes) = self.sequencer.prepared_size();
        let (is_mapped, read_mode_reason) = self.store.mapped_state();
        Stats {
            read_mode: if is_mapped { ReadMode::Mapped } else { ReadMode::Cached },
            read_mode_reason,
            prepared,
            prepared_bytes,
            prepared_committed: self.counters.prepared_committed.load(Ordering::Relaxed),
            prepared_rolled_back: self.counters.prepared_rolled_back.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
            conflicts: self.sequencer.conflicts.load(Ordering::Relaxed),
            syncs: log.syncs,
            log_device_bytes: log.device_bytes,
            log_payload_bytes: log.payload_bytes,
            log_bytes,
            disk_bytes: self
                .allocated_bytes()
                .unwrap_or(tree.file_bytes.saturating_sub(tree.hole_bytes).saturating_add(log_bytes)),
            data_file_bytes: tree.file_bytes,
            hole_bytes: tree.hole_bytes,
            space_returned: tree.returned,
            dead_bytes: tree.dead_bytes,
            log_retained: self.log.retained(),
            oldest_snapshot_age: self.reads.oldest_age(),
            memory: self.memory_stats(log.buffer_bytes, &tree),
            delta_bytes: self.reads.memory(),
            delta_pinned_bytes: self.reads.pinned_bytes(),
            cache_bytes: tree.cache_bytes,
            cache_hits: tree.cache_hits,
            cache_misses: tree.cache_misses,
            live_bytes: tree.live_bytes,
            free_bytes: tree.free_bytes,
            commits_slowed: self.fold.throttle.slowed.load(Ordering::Relaxed),
            checkpoints: self.counters.checkpoints.load(Ordering::Relaxed),
            checkpoint_bytes: tree.fold_bytes,
            runs,
            run_bytes,
            checkpoint_lsn: root.superblock.checkpoint_lsn,
            visible_lsn: self.reads.visible(),
            events_dropped: self.options.events.dropped(),
            is_replica: self.is_replica(),
            is_degraded: self.sequencer.gate.is_degraded(),
            fenced: self.sequencer.fenced(),
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
