//! What can be chosen when a store is opened, and when a transaction begins.

use crate::mutation::Mutation;
use crate::record::PAYLOAD_BYTES_MAX;
use crate::stats::EventListener;
use crate::tree::PIECE_BYTES_MAX;
use crate::{Db, Error, Result};
use seawall_wal::disk::DurableWrite;
use seawall_wal::disk::os::OsOptions;
use seawall_wal::{Disk, Durability, Io, OsDisk, OsRuntime, Runtime};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How far transactions are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Reads see the store as it was at the beginning; of two that write the same row, the first committer wins.
    /// Two that read what the other writes, and write different rows, both commit (write skew).
    Snapshot,
    /// As if one after another, in the order of their commits, which is also the order of time: who begins when another
    /// has returned is behind it. Beyond [`Snapshot`](Isolation::Snapshot), a transaction that writes conflicts with whoever
    /// changed what it has read, keys that it found absent and the gaps between the rows of its scans included.
    #[default]
    Serializable,
}

/// How one transaction runs; `None` means the store's own default.
///
/// ```
/// use seawall_engine::TxOptions;
/// let reads_only = TxOptions { read_only: true, ..Default::default() };
/// ```
#[derive(Clone, Debug, Default)]
pub struct TxOptions {
    /// How far it is kept apart from others.
    pub isolation: Option<Isolation>,
    /// How far its commit must have come before it counts.
    pub durability: Option<Durability>,
    /// It refuses writes, and costs a little less.
    pub read_only: bool,
    /// How often a transaction that lost is tried again by [`Db::transact_with`]; 64 by default.
    pub retries_max: Option<u32>,
    /// How long [`get_for_update`](crate::Transaction::get_for_update) waits for a row's lock; one second by default, not at
    /// all at zero, for ever at [`Duration::MAX`].
    pub lock_timeout: Option<Duration>,
}

const MEMORY_BUDGET_DEFAULT: usize = 256 << 20;
const MEMORY_BUDGET_MIN: usize = 1 << 20;
const LOG_BYTES_DEFAULT: u64 = 512 << 20;
const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
const LOG_SEGMENTS_MIN: u64 = 4;
const CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
const SNAPSHOT_AGE_MAX_DEFAULT: Duration = Duration::from_secs(600);

/// How a store is opened: see [`Db::builder`].
#[derive(Clone)]
#[must_use = "nothing is opened before `open`"]
pub struct DbBuilder {
    path: PathBuf,
    create: bool,
    read_only: bool,
    durability: Durability,
    isolation: Isolation,
    memory_budget: usize,
    log_bytes_max: u64,
    segment_bytes: u64,
    checkpoint_interval: Duration,
    snapshot_age_max: Duration,
    io: Io,
    probe: bool,
    durable_write: Option<DurableWrite>,
    disk: Option<Arc<dyn Disk>>,
    runtime: Option<Arc<dyn Runtime>>,
    events: Option<Arc<dyn EventListener>>,
    background: bool,
    mutation: Option<Mutation>,
    replay_bytes: Option<u64>,
    stream: (usize, usize),
    on_stage: Option<StageHook>,
}

/// Values that are streamed in stand in the log record if they are shorter, like any other. That writes them twice, log and
/// data file, and saves a sync of the data file: at this length the second write takes about as long as a sync does
/// (64 µs at 4 GB/s, against 43 µs for a flush, on the machine of `docs/benchmarks.md`).
const STREAM_BYTES_MIN: usize = 256 << 10;

/// Told the name of each stage of a checkpoint as it is passed.
pub(crate) type StageHook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The choices, with their consequences worked out.
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) durability: Durability,
    pub(crate) isolation: Isolation,
    /// Bytes for the block cache.
    pub(crate) cache_bytes: usize,
    /// Bytes for deltas, active, frozen and pinned; beyond it writers wait for the fold.
    pub(crate) delta_bytes_max: u64,
    /// Of a delta while the log is replayed.
    pub(crate) replay_bytes_max: u64,
    /// Shorter values go through the log, see [`STREAM_BYTES_MIN`].
    pub(crate) stream_bytes_min: usize,
    pub(crate) piece_bytes: usize,
    /// Bytes for folded deltas that old transactions are validated against.
    pub(crate) retained_bytes_max: u64,
    pub(crate) transaction_bytes_max: usize,
    pub(crate) log_bytes_max: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_interval: Duration,
    /// From this age on a snapshot has to give way where memory or disk is short.
    pub(crate) snapshot_age_max: Duration,
    pub(crate) io: Io,
    pub(crate) probe: bool,
    pub(crate) durable_write: Option<DurableWrite>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) events: Option<Arc<dyn EventListener>>,
    pub(crate) background: bool,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) on_stage: Option<StageHook>,
}

impl Options {
    /// Whether this run makes that deliberate mistake.
    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

impl DbBuilder {
    pub(crate) fn new(path: PathBuf) -> DbBuilder {
        DbBuilder {
            path,
            create: true,
            read_only: false,
            durability: Durability::Synced,
            isolation: Isolation::default(),
            memory_budget: MEMORY_BUDGET_DEFAULT,
            log_bytes_max: LOG_BYTES_DEFAULT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            checkpoint_interval: CHECKPOINT_INTERVAL_DEFAULT,
            snapshot_age_max: SNAPSHOT_AGE_MAX_DEFAULT,
            io: Io::default(),
            probe: true,
            durable_write: None,
            disk: None,
            runtime: None,
            events: None,
            background: true,
            mutation: None,
            replay_bytes: None,
            stream: (STREAM_BYTES_MIN, PIECE_BYTES_MAX),
            on_stage: None,
        }
    }

    /// Whether a store that is not there is created. Default: true.
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Reads only: no file is written or synced, and writes get `ReadOnly`. The store must not be open for writing
    /// elsewhere. What a killed process had written and not synced is shown, though a power cut may still take it.
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// How far commits must have come before they count. Default: [`Durability::Synced`].
    pub fn durability(mut self, default: Durability) -> Self {
        self.durability = default;
        self
    }

    /// How far transactions are kept apart. Default: [`Isolation::Serializable`].
    pub fn isolation(mut self, default: Isolation) -> Self {
        self.isolation = default;
        self
    }

    /// Bytes for deltas and block cache together, half for each. Default: 256 MiB.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Bytes of log kept between checkpoints: bounds recovery. At least four segments. Default: 512 MiB.
    pub fn log_bytes_max(mut self, bytes: u64) -> Self {
        self.log_bytes_max = bytes;
        self
    }

    /// Bytes of a log file; fixed when the store is created. Default: 64 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// How long a commit stays in the log alone, at most. Default: 60 s.
    pub fn checkpoint_interval(mut self, every: Duration) -> Self {
        self.checkpoint_interval = every;
        self
    }

    /// From this age on a snapshot, and the transaction or scan that reads from it, has to give way, oldest first, where
    /// what it holds back is needed: when deltas, those that only old snapshots hold included, outgrow their half of the
    /// memory budget, or a checkpoint finds the disk full. Its reads then answer `SnapshotTooOld`. Younger ones never
    /// give way; writers are slowed instead. Default: 10 minutes.
    pub fn snapshot_age_max(mut self, age: Duration) -> Self {
        self.snapshot_age_max = age;
        self
    }

    /// Which way many operations at once are handed to the machine's disk; a disk that was given decides for itself.
    /// Default: what the machine allows.
    pub fn io(mut self, backend: Io) -> Self {
        self.io = backend;
        self
    }

    /// Whether a new store measures, for some 50 ms, by which way durable writes are the quickest on its device, and keeps
    /// the answer. Default: true; see [`seawall_wal::WalOptions::probe`].
    pub fn probe(mut self, yes: bool) -> Self {
        self.probe = yes;
        self
    }

    /// The way of writing durably, instead of what was measured when the store was created. A new store keeps it.
    pub fn durable_write(mut self, way: DurableWrite) -> Self {
        self.durable_write = Some(way);
        self
    }

    /// The disk; the machine's own by default.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Clock, randomness and threads; the machine's own by default.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Who is told what happens in the background.
    pub fn events(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.events = Some(listener);
        self
    }

    /// Whether the store has threads of its own. Without, the caller makes the checkpoints, and tickets complete only
    /// when waited for: on a [`SimDisk`](seawall_wal::SimDisk) a run of one thread is then determined by its calls.
    /// Default: true.
    pub fn background(mut self, yes: bool) -> Self {
        self.background = yes;
        self
    }

    /// Makes a deliberate mistake, to show that a test would notice.
    #[doc(hidden)]
    pub fn mutation(mut self, mutation: Option<Mutation>) -> Self {
        self.mutation = mutation;
        self
    }

    /// What recovery holds in memory before it folds; by default what deltas may take.
    #[doc(hidden)]
    pub fn replay_bytes(mut self, bytes: Option<u64>) -> Self {
        self.replay_bytes = bytes;
        self
    }

    /// From which length on values are streamed into extents of their own, and how long a piece of one is.
    #[doc(hidden)]
    pub fn stream(mut self, bytes_min: usize, piece_bytes: usize) -> Self {
        self.stream = (bytes_min, piece_bytes);
        self
    }

    /// Calls `hook` with the name of each stage of a checkpoint as it is passed.
    #[doc(hidden)]
    pub fn on_stage(mut self, hook: Arc<dyn Fn(&'static str) + Send + Sync>) -> Self {
        self.on_stage = Some(hook);
        self
    }

    /// Opens the store, recovering what its log holds.
    ///
    /// # Errors
    /// `Io` (with `NotFound` if there is none and none is to be created), `Locked`, `Corruption`, `FormatVersion`,
    /// `NoSpace`, `BadInput`.
    pub fn open(self) -> Result<Db> {
        crate::life::open::open(self.options()?)
    }

    pub(crate) fn options(self) -> Result<Options> {
        let memory_budget = self.memory_budget.max(MEMORY_BUDGET_MIN);
        let runtime = self.runtime.unwrap_or_else(|| OsRuntime::new());
        let disk = match self.disk {
            Some(disk) => disk,
            None => OsDisk::try_with(OsOptions { io: self.io, ..OsOptions::default() })
                .map_err(|source| Error::io("choose the I/O backend for", &self.path, None, source))?,
        };
        Ok(Options {
            path: self.path,
            create: self.create && !self.read_only,
            read_only: self.read_only,
            durability: self.durability,
            isolation: self.isolation,
            cache_bytes: memory_budget / 2,
            delta_bytes_max: (memory_budget / 2) as u64,
            stream_bytes_min: self.stream.0,
            piece_bytes: self.stream.1,
            replay_bytes_max: self.replay_bytes.unwrap_or((memory_budget / 2) as u64),
            retained_bytes_max: (memory_budget / 4) as u64,
            // Half of what a record may hold, for what encoding adds.
            transaction_bytes_max: (memory_budget / 4).min(PAYLOAD_BYTES_MAX / 2),
            log_bytes_max: self.log_bytes_max.max(self.segment_bytes.saturating_mul(LOG_SEGMENTS_MIN)),
            segment_bytes: self.segment_bytes,
            checkpoint_interval: self.checkpoint_interval,
            snapshot_age_max: self.snapshot_age_max,
            io: self.io,
            probe: self.probe,
            durable_write: self.durable_write,
            disk,
            runtime,
            events: self.events,
            background: self.background && !self.read_only,
            mutation: self.mutation,
            on_stage: self.on_stage,
        })
    }
}

impl std::fmt::Debug for DbBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}
