//! How a log is opened, and what opening found.

use crate::Lsn;
pub use crate::disk::Io;
use crate::disk::os::OsOptions;
use crate::disk::{Disk, DurableWrite, OsDisk};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::log::Wal;
use crate::mutation::Mutation;
use crate::runtime::Runtime;
use crate::segment;
use crate::stats::SlowWrite;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What opening does about an end that is not clean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repair {
    /// Drops a torn tail, which was never acknowledged; refuses when acknowledged records are damaged.
    #[default]
    TornTail,
    /// Refuses in both cases.
    Refuse,
    /// Ends the log at the first bad frame, *even if acknowledged records stood behind it*: for salvage, on a copy.
    TruncateAtFirstError,
}

/// What recovery made of the log's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing stood behind the last record.
    #[default]
    Clean,
    /// Writes that were never acknowledged were dropped.
    UnacknowledgedLoss,
    /// Acknowledged records were dropped, as [`Repair::TruncateAtFirstError`] asked.
    AcknowledgedLoss,
}

/// What opening a log found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Recovery {
    /// Records read.
    pub records: u64,
    /// Segments read whole, up to where their successor begins.
    pub segments_complete: u64,
    /// Bytes of frames read.
    pub bytes: u64,
    /// Where reading began: the replay position, or where the log begins.
    pub start: Lsn,
    /// Where the log ends.
    pub end: Lsn,
    /// What was made of the end.
    pub outcome: Outcome,
    /// The row of the decision table that said so.
    pub row: &'static str,
    /// The file, and the offset in it, behind which unacknowledged bytes were dropped.
    pub dropped_tail: Option<(PathBuf, u64)>,
    /// Whether the same bytes were written again, because the device could not be read past the page cache.
    pub rewritten: bool,
    /// How long it took.
    pub took: Duration,
    /// How files are read and written: `"uring"`, `"blocking"`, `"sim"`.
    pub backend: &'static str,
    /// Why so.
    pub backend_reason: String,
}

/// How to open a [`Wal`].
///
/// ```no_run
/// use seawall_wal::{Durability, Wal};
/// let wal = Wal::options().segment_bytes(16 << 20).durability(Durability::Written).open("queue.log")?;
/// # Ok::<(), seawall_wal::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WalOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
    pub(crate) repair: Repair,
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) replica: bool,
    pub(crate) background: bool,
    pub(crate) allow_network: bool,
    pub(crate) probe: bool,
    pub(crate) durable_write: Option<DurableWrite>,
    pub(crate) store_id: Option<[u8; 16]>,
    pub(crate) epoch: u64,
    /// Replay position, and what its owner knows to be durable.
    pub(crate) start: Option<(Lsn, Lsn)>,
    pub(crate) io: Io,
    pub(crate) slow_write: Option<SlowWrite>,
    pub(crate) mutation: Option<Mutation>,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions {
            segment_bytes: segment::SEGMENT_BYTES_DEFAULT,
            durability: Durability::Synced,
            disk: None,
            runtime: None,
            repair: Repair::TornTail,
            read_only: false,
            create: true,
            replica: false,
            background: true,
            allow_network: false,
            probe: true,
            durable_write: None,
            store_id: None,
            epoch: 0,
            start: None,
            io: Io::Auto,
            slow_write: None,
            mutation: None,
        }
    }
}

impl WalOptions {
    /// Bytes of each log file: 64 KiB to 1 GiB, a multiple of 4096; 64 MiB unless set. Fixed when the log is created.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// What [`Wal::commit`] waits for. Default: [`Durability::Synced`].
    #[must_use]
    pub fn durability(mut self, default: Durability) -> Self {
        self.durability = default;
        self
    }

    /// Which way many operations at once are handed to the system's disk; a disk that was
    /// [given](WalOptions::disk) decides for itself. Default: [`Io::Auto`].
    #[must_use]
    pub fn io(mut self, io: Io) -> Self {
        self.io = io;
        self
    }

    /// The disk, instead of the system's: a [`SimDisk`](crate::SimDisk), say.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Clock, randomness and threads, instead of the system's.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// What opening does about an end that is not clean.
    #[must_use]
    pub fn repair(mut self, repair: Repair) -> Self {
        self.repair = repair;
        self
    }

    /// Nothing is written, created or locked.
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Whether a missing log is created. Default: true.
    #[must_use]
    pub fn create(mut self, yes: bool) -> Self {
        self.create = yes;
        self
    }

    /// Opens a replica's log, made by [`create_replica`](crate::create_replica) or [`rewind`](crate::rewind), to write into
    /// it what its primary ships. Default: false; opening a replica's log for writing without it gives
    /// [`Error::Replica`].
    #[must_use]
    pub fn replica(mut self, yes: bool) -> Self {
        self.replica = yes;
        self
    }

    /// Whether threads of the log's own make segments ahead, seal an idle log, and drive tickets. Default: true;
    /// without them [`Wal::step`] does.
    #[must_use]
    pub fn background(mut self, yes: bool) -> Self {
        self.background = yes;
        self
    }

    /// Calls `f` with the time of each write of a group that took `limit` or longer, from the thread that made the write,
    /// once those who waited for it have been woken. It must not block, and must not call the log: whoever comes next may
    /// wait for it.
    #[must_use]
    pub fn on_slow_write(mut self, limit: Duration, f: Arc<dyn Fn(Duration) + Send + Sync>) -> Self {
        self.slow_write = Some(SlowWrite { limit, tell: f });
        self
    }

    /// Allows network file systems, whose locks and syncs cannot be relied on.
    #[must_use]
    pub fn allow_network(mut self, yes: bool) -> Self {
        self.allow_network = yes;
        self
    }

    /// Whether a new log measures, for some 50 ms, by which way durable writes are the quickest on its device, and keeps
    /// the answer in its anchor. Default: true. Logs of segments under 4 MiB never do, nor does anybody with
    /// `SEAWALL_PROBE=0` in the environment: they take the first way that works.
    #[must_use]
    pub fn probe(mut self, yes: bool) -> Self {
        self.probe = yes;
        self
    }

    /// The way of writing durably, instead of what was measured when the log was created. A new log keeps it.
    #[must_use]
    pub fn durable_write(mut self, way: DurableWrite) -> Self {
        self.durable_write = Some(way);
        self
    }

    /// The id of the store that the log belongs to: given to a new log, demanded of an old one.
    #[must_use]
    pub fn store_id(mut self, id: [u8; 16]) -> Self {
        self.store_id = Some(id);
        self
    }

    /// Where an owner (an engine's superblock) says that replay starts, a position from [`Wal::barrier`]; and what
    /// it knows to be durable: recovery refuses a log that ends before.
    #[must_use]
    pub fn start(mut self, replay: Lsn, known_durable: Lsn) -> Self {
        self.start = Some((replay, known_durable));
        self
    }

    /// Makes a deliberate mistake, to show that a test would notice.
    #[doc(hidden)]
    #[must_use]
    pub fn mutation(mut self, mutation: Option<Mutation>) -> Self {
        self.mutation = mutation;
        self
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Opens the log in `dir`, after recovery.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Corruption`], [`Error::FormatVersion`], [`Error::BadInput`] for impossible
    /// options or a directory of something else, [`Error::NoSpace`] when a new log does not fit, [`Error::Io`].
    pub fn open(mut self, dir: impl AsRef<Path>) -> Result<Wal> {
        if !segment::is_segment_size(self.segment_bytes) {
            return Err(Error::BadInput(format!(
                "a segment of {} bytes: it must be a multiple of 4096 between {} and {}",
                self.segment_bytes,
                segment::SEGMENT_BYTES_MIN,
                segment::SEGMENT_BYTES_MAX
            )));
        }
        self.settle_disk(dir.as_ref())?;
        Wal::open_with(dir.as_ref(), self)
    }

    /// Settles which disk it is, once, so that what [`Io`] asks for is tried once.
    pub(crate) fn settle_disk(&mut self, dir: &Path) -> Result<()> {
        if self.disk.is_none() {
            let disk = OsDisk::try_with(self.os_options())
                .map_err(|source| Error::io("choose the I/O backend for", dir, None, source))?;
            self.disk = Some(disk);
        }
        Ok(())
    }

    pub(crate) fn disk_or_default(&self) -> Arc<dyn Disk> {
        self.disk.clone().unwrap_or_else(|| OsDisk::with(self.os_options()))
    }

    fn os_options(&self) -> OsOptions {
        OsOptions { allow_network: self.allow_network, io: self.io, ..OsOptions::default() }
    }
}
