//! What can be chosen when a store is opened, and when a transaction begins.

use crate::commit::gate::{Ack, Reach};
use crate::events::Events;
use crate::mutation::Mutation;
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
///
/// ```
/// # use seawall_engine::{Db, Isolation, TxOptions};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// let loose = TxOptions { isolation: Some(Isolation::Snapshot), ..TxOptions::default() };
/// let mut tx = db.begin_with(loose);
/// tx.insert(&rows, "a", "1")?;
/// tx.commit()?;
/// # Ok::<(), seawall_engine::Error>(())
/// ```
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

/// How blocks of the data file are read.
///
/// [`Mapped`](ReadMode::Mapped) is for stores that fit in memory. It is quicker once warm: there is no copy of a block, and no
/// cache to look it up in. What it costs:
///
/// - The first read of a block is an ordinary one, verified as ever. Afterwards its pages are the system's: one may be dropped
///   and read back, and if the device fails then, the process gets a signal (`SIGBUS`) instead of an error; if it gives other bytes,
///   nobody checks them until [`Db::verify`](crate::Db::verify) does. Pages that were dropped come back one fault at a time.
/// - A [`Slice`](crate::Slice) that a read has given keeps its block's extent of the file from being used again, and the file locked,
///   until it is dropped or [detached](crate::Slice::detach): also when the store is closed.
/// - Pages that are mapped are no part of [`memory_budget`](DbBuilder::memory_budget), and are reported beside it; what is
///   remembered of them is part of it. Beyond that, and for what is compressed, the block cache serves.
///
/// Where the file cannot be mapped it is read as with [`Cached`](ReadMode::Cached), and [`Stats`](crate::Stats) says why.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-mapped-{}", std::process::id()));
/// # use seawall_engine::{Db, ReadMode};
/// let db = Db::builder(&dir).read_mode(ReadMode::Mapped).open()?;
/// db.keyspace("rows")?.insert("a", "1")?;
/// db.checkpoint()?;
/// assert_eq!(db.keyspace("rows")?.get("a")?.unwrap(), "1");
/// let stats = db.stats();
/// assert_eq!((stats.read_mode, stats.read_mode_reason), (ReadMode::Mapped, None));
/// assert!(stats.memory.mapped > 0);
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// Into the block cache, each block's checksum being verified when it is loaded.
    #[default]
    Cached,
    /// Where they lie, in a mapping of the file.
    Mapped,
}

/// What a transaction's read does when it meets a row that a *prepared* transaction will change if it commits.
///
/// Only reads of transactions choose; snapshots and [`Keyspace::get`](crate::Keyspace::get) see the last committed version.
/// [`get_for_update`](crate::Transaction::get_for_update), which asks for the newest version, never settles for the last
/// committed one: then it is as with [`Conflict`](OnPrepared::Conflict).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnPrepared {
    /// It sees the version that was last committed when it began, as with any transaction that has not committed yet.
    /// Consistent, and never waits; but what another store shows of the same transaction already may not be here yet.
    #[default]
    LastCommitted,
    /// `PreparedConflict`, with the holder's xid.
    Conflict,
    /// It waits for the outcome, for as long as for a row's lock ([`TxOptions::lock_timeout`]), and then gets
    /// `PreparedConflict`. If the outcome is a commit, which this transaction's snapshot is too old to see, it gets
    /// `Conflict`, and sees it when it is run again.
    Wait,
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
    /// How far replicas must have come with its commit before that counts.
    pub ack: Option<Ack>,
    /// It refuses writes, and costs a little less.
    pub read_only: bool,
    /// How often a transaction that lost is tried again by [`Db::transact_with`]; 64 by default.
    pub retries_max: Option<u32>,
    /// How long [`get_for_update`](crate::Transaction::get_for_update) waits for a row's lock; one second by default, not at
    /// all at zero, for ever at [`Duration::MAX`].
    pub lock_timeout: Option<Duration>,
    /// What its reads do about prepared transactions.
    pub on_prepared: OnPrepared,
}

const MEMORY_BUDGET_DEFAULT: usize = 256 << 20;
const MEMORY_BUDGET_MIN: usize = 1 << 20;
const LOG_BYTES_DEFAULT: u64 = 512 << 20;
const CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
pub(crate) const ACK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const PREPARED_MAX_DEFAULT: usize = 1 << 16;
const PREPARED_AGE_MAX_DEFAULT: Duration = Duration::from_secs(600);
const SNAPSHOT_AGE_MAX_DEFAULT: Duration = Duration::from_secs(600);

/// How a store is opened: see [`Db::builder`].
///
/// ```
/// # use seawall_engine::{Db, Durability};
/// # use std::time::Duration;
/// let db = Db::builder("/store")
///     .disk(seawall_wal::SimDisk::new(1))
///     .durability(Durability::Written)
///     .checkpoint_interval(Duration::from_secs(10))
///     .open()?;
/// # drop(db);
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is opened before `open`"]
pub struct DbBuilder {
    path: PathBuf,
    create: bool,
    read_only: bool,
    replica: bool,
    durability: Durability,
    ack: Ack,
    ack_timeout: Duration,
    isolation: Isolation,
    memory_budget: usize,
    log_bytes_max: u64,
    segment_bytes: Option<u64>,
    checkpoint_interval: Duration,
    snapshot_age_max: Duration,
    prepared_max: usize,
    prepared_age_max: Duration,
    read_mode: ReadMode,
    io: Io,
    probe: bool,
    durable_write: Option<DurableWrite>,
    disk: Option<Arc<dyn Disk>>,
    runtime: Option<Arc<dyn Runtime>>,
    events: Option<Arc<dyn EventListener>>,
    background: bool,
    mutation: Option<Mutation>,
    log_mutation: Option<seawall_wal::mutation::Mutation>,
    replay_bytes: Option<u64>,
    deltas_bytes: Option<u64>,
    stream: (usize, usize),
    spilling: Spilling,
    on_stage: Option<StageHook>,
}

/// Values that are streamed in stand in the log record if they are shorter, like any other. That writes them twice, log and
/// data file, and saves a sync of the data file: at this length the second write takes about as long as a sync does
/// (64 µs at 4 GB/s, against 43 µs for a flush, on the machine of `docs/benchmarks.md`).
const STREAM_BYTES_MIN: usize = 256 << 10;

/// When a checkpoint writes its changes beside a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(hidden)]
pub enum Spilling {
    /// Where that is cheaper, and the tree larger than the cache.
    #[default]
    Weighed,
    /// As long as there are fewer runs.
    Below(u32),
    /// Always, rolling one in so many parts of the tree each time.
    Rolling(u32),
}

/// Told the name of each stage of a checkpoint as it is passed.
pub(crate) type StageHook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The choices, with their consequences worked out.
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) replica: bool,
    pub(crate) durability: Durability,
    pub(crate) ack: Ack,
    pub(crate) ack_timeout: Duration,
    pub(crate) isolation: Isolation,
    pub(crate) memory_budget: u64,
    /// Of a delta while the log is replayed, if it is not to be what the budget has for deltas.
    pub(crate) replay_bytes_max: Option<u64>,
    /// Of deltas while the store is open, if it is to be less than what the budget has for them.
    pub(crate) deltas_bytes_max: Option<u64>,
    /// Shorter values go through the log, see [`STREAM_BYTES_MIN`].
    pub(crate) stream_bytes_min: usize,
    pub(crate) piece_bytes: usize,
    pub(crate) log_bytes_max: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) checkpoint_interval: Duration,
    /// From this age on a snapshot has to give way where memory or disk is short.
    pub(crate) snapshot_age_max: Duration,
    /// Transactions that may be prepared at once, and the bytes of what they hold in memory.
    pub(crate) prepared_max: usize,
    pub(crate) prepared_bytes_max: u64,
    /// From this age on a prepared transaction is an event.
    pub(crate) prepared_age_max: Duration,
    pub(crate) read_mode: ReadMode,
    pub(crate) io: Io,
    pub(crate) probe: bool,
    pub(crate) durable_write: Option<DurableWrite>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) events: Arc<Events>,
    pub(crate) background: bool,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) log_mutation: Option<seawall_wal::mutation::Mutation>,
    pub(crate) spilling: Spilling,
    pub(crate) on_stage: Option<StageHook>,
}

impl Options {
    /// What a commit reaches that asks for nothing else.
    pub(crate) fn reach(&self) -> Reach {
        self.reach_at(self.durability)
    }

    /// As [`reach`](Self::reach), at this durability in the local log.
    pub(crate) fn reach_at(&self, durability: Durability) -> Reach {
        Reach { durability, ack: self.ack }
    }

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
            replica: false,
            durability: Durability::Synced,
            ack: Ack::Local,
            ack_timeout: ACK_TIMEOUT_DEFAULT,
            isolation: Isolation::default(),
            memory_budget: MEMORY_BUDGET_DEFAULT,
            log_bytes_max: LOG_BYTES_DEFAULT,
            segment_bytes: None,
            checkpoint_interval: CHECKPOINT_INTERVAL_DEFAULT,
            snapshot_age_max: SNAPSHOT_AGE_MAX_DEFAULT,
            prepared_max: PREPARED_MAX_DEFAULT,
            prepared_age_max: PREPARED_AGE_MAX_DEFAULT,
            read_mode: ReadMode::default(),
            io: Io::default(),
            probe: true,
            durable_write: None,
            disk: None,
            runtime: None,
            events: None,
            background: true,
            mutation: None,
            log_mutation: None,
            replay_bytes: None,
            deltas_bytes: None,
            stream: (STREAM_BYTES_MIN, PIECE_BYTES_MAX),
            spilling: Spilling::default(),
            on_stage: None,
        }
    }

    /// Whether a store that is not there is created. Default: true.
    ///
    /// ```
    /// # use seawall_engine::{Db, Error};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let missing = Db::builder("/store").disk(disk).create(false).open();
    /// assert!(matches!(missing, Err(Error::Io { .. })));
    /// ```
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Reads only: no file is written or synced, and writes get `ReadOnly`. The store must not be open for writing
    /// elsewhere. What a killed process had written and not synced is shown, though a power cut may still take it.
    ///
    /// ```
    /// # use seawall_engine::{Db, Error};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// # Db::builder("/store").disk(disk.clone()).open()?.keyspace("rows")?;
    /// let db = Db::builder("/store").disk(disk).read_only(true).open()?;
    /// let rows = db.open_keyspace("rows")?.unwrap();
    /// assert!(matches!(rows.insert("a", "1"), Err(Error::ReadOnly)));
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// How far commits must have come before they count. Default: [`Durability::Synced`].
    ///
    /// ```
    /// # use seawall_engine::{Db, Durability};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).durability(Durability::Written).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn durability(mut self, default: Durability) -> Self {
        self.durability = default;
        self
    }

    /// How far transactions are kept apart. Default: [`Isolation::Serializable`].
    ///
    /// ```
    /// # use seawall_engine::{Db, Isolation};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).isolation(Isolation::Snapshot).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn isolation(mut self, default: Isolation) -> Self {
        self.isolation = default;
        self
    }

    /// How long a commit stays in the log alone, at most. Default: 60 s.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # use std::time::Duration;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).checkpoint_interval(Duration::from_secs(5)).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn checkpoint_interval(mut self, every: Duration) -> Self {
        self.checkpoint_interval = every;
        self
    }

    /// From this age on a snapshot, and the transaction or scan that reads from it, has to give way, oldest first, where
    /// what it holds back is needed: when deltas, those that only old snapshots hold included, outgrow their half of the
    /// memory budget, or a checkpoint finds the disk full. Its reads then answer `SnapshotTooOld`. Younger ones never
    /// give way; writers are slowed instead. Default: 10 minutes.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # use std::time::Duration;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).snapshot_age_max(Duration::from_secs(60)).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn snapshot_age_max(mut self, age: Duration) -> Self {
        self.snapshot_age_max = age;
        self
    }

    /// How many transactions may be prepared, and have no outcome, at once; one more gets `TooLarge`. They are kept in memory
    /// too: together at most a quarter of the memory budget. Default: 65,536.
    pub fn prepared_max(mut self, count: usize) -> Self {
        self.prepared_max = count;
        self
    }

    /// From this age on a prepared transaction is told of, once, by [`Event::PreparedOld`](crate::Event::PreparedOld). It is
    /// never ended for its age: only its coordinator, or an operator, can know how. Default: 10 minutes.
    pub fn prepared_age_max(mut self, age: Duration) -> Self {
        self.prepared_age_max = age;
        self
    }

    /// How blocks of the data file are read. Default: [`ReadMode::Cached`].
    ///
    /// ```
    /// # use seawall_engine::{Db, ReadMode};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).read_mode(ReadMode::Mapped).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// Which way many operations at once are handed to the machine's disk; a disk that was given decides for itself.
    /// Default: what the machine allows.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # use seawall_wal::Io;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).io(Io::Blocking).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn io(mut self, backend: Io) -> Self {
        self.io = backend;
        self
    }

    /// Whether a new store measures, for some 50 ms, by which way durable writes are the quickest on its device, and keeps
    /// the answer. Default: true; see [`seawall_wal::WalOptions::probe`].
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).probe(false).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn probe(mut self, yes: bool) -> Self {
        self.probe = yes;
        self
    }

    /// The way of writing durably, instead of what was measured when the store was created. A new store keeps it.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # use seawall_wal::disk::DurableWrite;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).durable_write(DurableWrite::WriteThenSync).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn durable_write(mut self, way: DurableWrite) -> Self {
        self.durable_write = Some(way);
        self
    }

    /// The disk; the machine's own by default.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// let disk = seawall_wal::SimDisk::new(7);
    /// let db = Db::builder("/store").disk(disk.clone()).open()?;
    /// db.keyspace("rows")?.insert("a", "1")?;
    /// // What a power cut at this moment leaves.
    /// let again = Db::builder("/store").disk(disk.crash_copy()).open()?;
    /// assert!(again.keyspace("rows")?.get("a")?.is_some());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Clock, randomness and threads; the machine's own by default.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).runtime(seawall_wal::OsRuntime::new()).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Who is told what happens in the background: see [`EventListener`].
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # use seawall_engine::{Event, EventListener};
    /// # use std::sync::Arc;
    /// struct Print;
    /// impl EventListener for Print {
    ///     fn event(&self, event: &Event) {
    ///         eprintln!("{event:?}");
    ///     }
    /// }
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).events(Arc::new(Print)).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn events(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.events = Some(listener);
        self
    }

    /// Whether the store has threads of its own. Without, the caller makes the checkpoints, and tickets complete only
    /// when waited for: on a [`SimDisk`](seawall_wal::SimDisk) a run of one thread is then determined by its calls.
    /// Default: true.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).background(false).open()?;
    /// let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// db.checkpoint()?; // nobody else makes one
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
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

    /// Makes a deliberate mistake in the log.
    #[doc(hidden)]
    pub fn log_mutation(mut self, mutation: Option<seawall_wal::mutation::Mutation>) -> Self {
        self.log_mutation = mutation;
        self
    }

    /// What recovery holds in memory before it folds; by default what deltas may take.
    #[doc(hidden)]
    pub fn replay_bytes(mut self, bytes: Option<u64>) -> Self {
        self.replay_bytes = bytes;
        self
    }

    /// What deltas may take, if it is to be less than what the memory budget has for them.
    #[doc(hidden)]
    pub fn deltas_bytes(mut self, bytes: Option<u64>) -> Self {
        self.deltas_bytes = bytes;
        self
    }

    /// From which length on values are streamed into extents of their own, and how long a piece of one is.
    #[doc(hidden)]
    pub fn stream(mut self, bytes_min: usize, piece_bytes: usize) -> Self {
        self.stream = (bytes_min, piece_bytes);
        self
    }

    /// When a checkpoint writes its changes beside a tree.
    #[doc(hidden)]
    pub fn spilling(mut self, when: Spilling) -> Self {
        self.spilling = when;
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
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn open(self) -> Result<Db> {
        crate::life::open::open(self.options()?)
    }

    pub(crate) fn options(self) -> Result<Options> {
        let memory_budget = self.memory_budget.max(MEMORY_BUDGET_MIN);
        let segment_bytes = self.segment_bytes.unwrap_or_else(|| room::segment_bytes(memory_budget as u64));
        let runtime = self.runtime.unwrap_or_else(|| OsRuntime::new());
        let disk = match self.disk {
            Some(disk) => disk,
            None => OsDisk::try_with(OsOptions { io: self.io, ..OsOptions::default() })
                .map_err(|source| Error::io("choose the I/O backend for", &self.path, None, source))?,
        };
        Ok(Options {
            path: self.path,
            create: self.create && !self.read_only && !self.replica,
            read_only: self.read_only,
            replica: self.replica && !self.read_only,
            durability: self.durability,
            ack: self.ack,
            ack_timeout: self.ack_timeout,
            isolation: self.isolation,
            memory_budget: memory_budget as u64,
            replay_bytes_max: self.replay_bytes,
            deltas_bytes_max: self.deltas_bytes,
            stream_bytes_min: self.stream.0,
            piece_bytes: self.stream.1,
            spilling: self.spilling,
            log_bytes_max: self.log_bytes_max,
            segment_bytes,
            checkpoint_interval: self.checkpoint_interval,
            snapshot_age_max: self.snapshot_age_max,
            prepared_max: self.prepared_max,
            prepared_bytes_max: (memory_budget / 4) as u64,
            prepared_age_max: self.prepared_age_max,
            read_mode: self.read_mode,
            io: self.io,
            probe: self.probe,
            durable_write: self.durable_write,
            disk,
            events: Events::new(self.events, Arc::clone(&runtime)),
            runtime,
            background: self.background && !self.read_only,
            mutation: self.mutation,
            log_mutation: self.log_mutation,
            on_stage: self.on_stage,
        })
    }
}

mod replication;
mod room;

impl std::fmt::Debug for DbBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}
