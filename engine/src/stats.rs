//! Figures and events: what a store has done, and what it does in the background. Nothing that decides rests on them.

use crate::{MemoryStats, ReadMode};
use seawall_wal::{Histogram, HistogramSnapshot, Lsn, Retainer};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Figures of a store since it was opened.
///
/// ```
/// # use seawall_engine::Db;
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// rows.insert("a", "1")?;
/// let stats = db.stats();
/// println!("{} commits for each flush", stats.commits as f64 / stats.syncs as f64);
/// println!("99 of 100 took less than {} µs", stats.commit_us.quantile(0.99));
/// for retainer in &stats.log_retained {
///     println!("{} keeps {} bytes of log", retainer.who, retainer.bytes);
/// }
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Commits that wrote something.
    pub commits: u64,
    /// Transactions that lost against another.
    pub conflicts: u64,
    /// Transactions that are prepared and have no outcome.
    pub prepared: u64,
    /// Bytes that they hold.
    pub prepared_bytes: u64,
    /// Prepared transactions that were committed.
    pub prepared_committed: u64,
    /// Prepared transactions that were rolled back.
    pub prepared_rolled_back: u64,
    /// Flushes of the device that the log asked for: commits by syncs is the group size.
    pub syncs: u64,
    /// Bytes that the log gave to the device.
    pub log_device_bytes: u64,
    /// Bytes of keys, values and framing that commits placed in the log.
    pub log_payload_bytes: u64,
    /// Bytes of log kept.
    pub log_bytes: u64,
    /// Bytes on disk, as the file system counts them: the data file and the log, with the files of the log that are
    /// ready for later. Where that cannot be asked, the bytes that are used.
    pub disk_bytes: u64,
    /// Length of the data file, holes included.
    pub data_file_bytes: u64,
    /// Bytes of the data file that were given back to the file system, as far as is known.
    pub hole_bytes: u64,
    /// Pieces of the data file that were given back: holes made, and tails cut off.
    pub space_returned: u64,
    /// Bytes of the data file that were replaced, and that snapshots still lead to.
    pub dead_bytes: u64,
    /// Who keeps the log.
    pub log_retained: Vec<Retainer>,
    /// How long the oldest snapshot or transaction has been there.
    pub oldest_snapshot_age: Duration,
    /// How blocks of the data file are read.
    pub read_mode: ReadMode,
    /// Why not as was asked for, or not all of them.
    pub read_mode_reason: Option<String>,
    /// Memory, by what it is for.
    pub memory: MemoryStats,
    /// Memory of deltas, in bytes: active, frozen, and pinned.
    pub delta_bytes: u64,
    /// The part of it that is in the data file already, and that snapshots, scans, or the validation of transactions
    /// still hold.
    pub delta_pinned_bytes: u64,
    /// Memory of the block cache, in bytes.
    pub cache_bytes: u64,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks read from the data file.
    pub cache_misses: u64,
    /// Bytes of the data file in use.
    pub live_bytes: u64,
    /// Bytes of the data file that checkpoints may use.
    pub free_bytes: u64,
    /// Commits that were slowed because folding, or an old snapshot, held memory back.
    pub commits_slowed: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Bytes that they wrote.
    pub checkpoint_bytes: u64,
    /// Runs beside the keyspaces' trees: changes that checkpoints did not write into them yet.
    pub runs: u64,
    /// Bytes of their keys and values.
    pub run_bytes: u64,
    /// Everything below is in the data file.
    pub checkpoint_lsn: Lsn,
    /// Everything below is visible.
    pub visible_lsn: Lsn,
    /// Events that the listener was too slow for.
    pub events_dropped: u64,
    /// Whether the store is another one's replica.
    pub is_replica: bool,
    /// Whether commits go on without replicas, by an operator's word.
    pub is_degraded: bool,
    /// The epoch of the store that has taken this one's place, if one has: writes are refused.
    pub fenced: Option<u64>,
    /// Why writes are refused, if they are.
    pub poisoned: Option<String>,
    /// Time of a commit, from call to visible, in µs.
    pub commit_us: HistogramSnapshot,
    /// Time of a group's write to the log, in µs.
    pub sync_us: HistogramSnapshot,
    /// Time of a checkpoint, in µs.
    pub checkpoint_us: HistogramSnapshot,
}

impl Stats {
    /// The figures in Prometheus' text exposition format 0.0.4: names begin with `seawall_`, counters end with `_total`,
    /// and times are in seconds. The histograms' buckets are powers of two of a microsecond.
    ///
    /// ```
    /// let text = seawall_engine::Stats::default().to_prometheus();
    /// assert!(text.contains("\n# TYPE seawall_commits_total counter\nseawall_commits_total 0\n"));
    /// ```
    pub fn to_prometheus(&self) -> String {
        let mut out = String::new();
        for (kind, (name, help, value)) in self.families() {
            let _ = write!(
                out,
                "# HELP seawall_{name} {help}\n# TYPE seawall_{name} {kind}\nseawall_{name} {value}\n"
            );
        }
        let age = self.oldest_snapshot_age.as_secs_f64();
        let _ = write!(
            out,
            "# HELP seawall_oldest_snapshot_age_seconds Age of the oldest snapshot.\n\
             # TYPE seawall_oldest_snapshot_age_seconds gauge\nseawall_oldest_snapshot_age_seconds {age}\n"
        );
        self.memory_text(&mut out);
        for (unit, help) in [
            ("bytes", "Log kept, by who keeps it."),
            ("age_seconds", "How long it has been kept, by who keeps it."),
        ] {
            let name = format!("seawall_log_retained_{unit}");
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n");
            for retainer in &self.log_retained {
                let who = retainer.who.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let value = if unit == "bytes" { retainer.bytes as f64 } else { retainer.age.as_secs_f64() };
                let _ = writeln!(out, "{name}{{who=\"{who}\"}} {value}");
            }
        }
        for (name, help, times) in [
            ("commit_seconds", "Time of a commit, from call to visible.", &self.commit_us),
            ("log_write_seconds", "Time of a group's durable write to the log.", &self.sync_us),
            ("checkpoint_seconds", "Time of a checkpoint.", &self.checkpoint_us),
        ] {
            histogram(&mut out, name, help, times);
        }
        out
    }

    /// `counter` or `gauge`; name, help and value of each figure that is one number.
    #[doc(hidden)]
    pub fn families(&self) -> Vec<(&'static str, (&'static str, &'static str, u64))> {
        let counters = [
            ("commits_total", "Commits that wrote something.", self.commits),
            ("conflicts_total", "Transactions that lost against another.", self.conflicts),
            ("prepared_committed_total", "Prepared transactions committed.", self.prepared_committed),
            ("prepared_rolled_back_total", "Prepared transactions rolled back.", self.prepared_rolled_back),
            ("log_syncs_total", "Flushes of the device asked for by the log.", self.syncs),
            ("log_device_bytes_total", "Bytes the log gave to the device.", self.log_device_bytes),
            ("log_payload_bytes_total", "Bytes commits placed in the log.", self.log_payload_bytes),
            ("cache_hits_total", "Blocks found in the cache.", self.cache_hits),
            ("cache_misses_total", "Blocks read from the data file.", self.cache_misses),
            ("commits_slowed_total", "Commits slowed for want of memory.", self.commits_slowed),
            ("space_returned_total", "Pieces of the data file given back.", self.space_returned),
            ("checkpoints_total", "Checkpoints made.", self.checkpoints),
            ("checkpoint_bytes_total", "Bytes written by checkpoints.", self.checkpoint_bytes),
            ("events_dropped_total", "Events that the listener was too slow for.", self.events_dropped),
        ];
        let gauges = [
            ("prepared", "Transactions prepared and in doubt.", self.prepared),
            ("prepared_bytes", "Bytes that they hold.", self.prepared_bytes),
            ("disk_bytes", "Bytes on disk.", self.disk_bytes),
            ("log_bytes", "Bytes of log kept.", self.log_bytes),
            ("delta_bytes", "Memory of deltas.", self.delta_bytes),
            ("delta_pinned_bytes", "Memory of deltas held by old snapshots.", self.delta_pinned_bytes),
            ("cache_bytes", "Memory of the block cache.", self.cache_bytes),
            ("runs", "Runs beside the keyspaces' trees.", self.runs),
            ("run_bytes", "Bytes of the rows in runs.", self.run_bytes),
            ("data_live_bytes", "Bytes of the data file in use.", self.live_bytes),
            ("data_free_bytes", "Bytes of the data file free.", self.free_bytes),
            ("data_dead_bytes", "Bytes of the data file held by snapshots.", self.dead_bytes),
            ("data_hole_bytes", "Bytes of the data file given back.", self.hole_bytes),
            ("data_file_bytes", "Length of the data file.", self.data_file_bytes),
            ("checkpoint_lsn", "Everything below is in the data file.", self.checkpoint_lsn.0),
            ("visible_lsn", "Everything below is visible.", self.visible_lsn.0),
            ("read_mapped", "1 if the data file is mapped and read so.", self.read_mode_number()),
            ("replica", "1 if the store is a replica.", u64::from(self.is_replica)),
            ("acks_degraded", "1 if commits do not wait for replicas.", u64::from(self.is_degraded)),
            ("fenced_epoch", "Epoch of the store that took this one's place.", self.fenced.unwrap_or(0)),
            ("poisoned", "1 if writes are refused.", u64::from(self.poisoned.is_some())),
        ];
        let counters = counters.into_iter().map(|family| ("counter", family));
        counters.chain(gauges.into_iter().map(|family| ("gauge", family))).collect()
    }

    fn read_mode_number(&self) -> u64 {
        u64::from(self.read_mode == ReadMode::Mapped)
    }

    fn memory_text(&self, out: &mut String) {
        let (budget, total) = (self.memory.budget, self.memory.total());
        let _ = write!(
            out,
            "# HELP seawall_memory_budget_bytes What all memory is kept within.\n\
             # TYPE seawall_memory_budget_bytes gauge\nseawall_memory_budget_bytes {budget}\n\
             # HELP seawall_memory_total_bytes All memory that is counted.\n\
             # TYPE seawall_memory_total_bytes gauge\nseawall_memory_total_bytes {total}\n\
             # HELP seawall_memory_bytes Memory, by what it is for.\n# TYPE seawall_memory_bytes gauge\n"
        );
        for (name, _, bytes) in self.memory.parts() {
            let _ = writeln!(out, "seawall_memory_bytes{{part=\"{name}\"}} {bytes}");
        }
    }
}

/// Buckets end at 1 µs, 2 µs, 4 µs and so on up to this power of two, 134 s: always the same ones, as is expected of a
/// histogram whose rates are asked for.
const BUCKET_LAST: usize = 27;

fn histogram(out: &mut String, name: &str, help: &str, times: &HistogramSnapshot) {
    let _ = write!(out, "# HELP seawall_{name} {help}\n# TYPE seawall_{name} histogram\n");
    let mut below = 0;
    for power in 0..=BUCKET_LAST {
        // Whole microseconds are kept: what took less than 2^power µs.
        below += times.buckets.get(power).copied().unwrap_or(0);
        let end = (1_u64 << power) as f64 / 1e6;
        let _ = writeln!(out, "seawall_{name}_bucket{{le=\"{end}\"}} {below}");
    }
    let (count, sum) = (times.count(), times.sum as f64 / 1e6);
    let _ = write!(
        out,
        "seawall_{name}_bucket{{le=\"+Inf\"}} {count}\nseawall_{name}_sum {sum}\nseawall_{name}_count {count}\n"
    );
}

/// The live counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) prepared_committed: AtomicU64,
    pub(crate) prepared_rolled_back: AtomicU64,
    pub(crate) commit_us: Histogram,
    pub(crate) checkpoint_us: Histogram,
}

impl Counters {
    /// A prepared transaction got its outcome.
    pub(crate) fn note_outcome(&self, is_commit: bool) {
        let counter = if is_commit { &self.prepared_committed } else { &self.prepared_rolled_back };
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A finished checkpoint.
///
/// ```
/// # use seawall_engine::{Checkpoint, Db};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// let Checkpoint { lsn, path, bytes } = db.checkpoint()?;
/// println!("{} holds everything before {lsn}; {bytes} bytes were written", path.display());
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Everything below is in the data file; recovery starts here.
    pub lsn: Lsn,
    /// The data file.
    pub path: PathBuf,
    /// Bytes that it wrote; 0 if there was nothing to do.
    pub bytes: u64,
}

/// How far a long operation is.
///
/// ```
/// # use seawall_engine::{Db, Progress};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// db.verify(|progress: Progress| println!("{} of {} blocks", progress.done, progress.total))?;
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Blocks looked at.
    pub done: u64,
    /// Blocks to look at.
    pub total: u64,
}

/// What [`Db::verify`](crate::Db::verify) found.
///
/// ```
/// # use seawall_engine::{Db, VerifyReport};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// let report: VerifyReport = db.verify(|_| {})?;
/// assert_eq!(report.problems, [""; 0]);
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Blocks of the data file that were read and checked.
    pub blocks: u64,
    /// Rows in the trees of all keyspaces.
    pub rows: u64,
    /// Runs beside the trees.
    pub runs: u64,
    /// Rows in the runs, removals included; they may be in the trees too.
    pub run_rows: u64,
    /// Bytes of the leaves that hold them; those of compressed leaves as they were before.
    pub leaf_bytes: u64,
    /// Bytes that those leaves take in the file.
    pub leaf_bytes_stored: u64,
    /// Leaves that are compressed.
    pub leaves_compressed: u64,
    /// Transactions in the log that were read and checked.
    pub log_records: u64,
    /// All that is wrong, in words; empty for a sound store.
    pub problems: Vec<String>,
    /// What a crash may leave behind and the next checkpoint mends.
    pub notes: Vec<String>,
}

/// Something that happened in the background.
///
/// ```
/// use seawall_engine::Event;
///
/// fn is_alarming(event: &Event) -> bool {
///     matches!(event, Event::Poisoned { .. } | Event::NoSpace)
/// }
/// assert!(is_alarming(&Event::NoSpace));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A checkpoint was made.
    CheckpointDone {
        /// Everything below is in the data file.
        lsn: Lsn,
        /// How long it took.
        took: Duration,
    },
    /// A writer had to wait until a checkpoint gave memory back.
    WriteStall {
        /// How long.
        took: Duration,
    },
    /// A group's write to the log took a second or longer: the device is slow, or busy with something else. All commits
    /// of the group took as long, and those behind it waited (the limit is etcd's).
    SlowSync {
        /// How long.
        took: Duration,
    },
    /// Snapshots had to give way: see [`DbBuilder::snapshot_age_max`](crate::DbBuilder::snapshot_age_max).
    SnapshotOld {
        /// How old the oldest of them was.
        age: Duration,
    },
    /// A transaction has been prepared for so long: see
    /// [`DbBuilder::prepared_age_max`](crate::DbBuilder::prepared_age_max). Its coordinator may be gone.
    PreparedOld {
        /// Which.
        xid: crate::Xid,
        /// For how long.
        age: Duration,
    },
    /// A slot fell behind beyond its limits, and the log that it kept was released.
    SlotLost {
        /// Which.
        name: String,
        /// Bytes of log that it kept.
        bytes: u64,
    },
    /// A checkpoint could not wait any longer for replicas: were one of them to take over now, this store could not go back
    /// to where that one stands, and would need a new image.
    RewindGivenUp {
        /// Where the slowest of those that were heard of lately stands.
        floor: Lsn,
        /// The oldest position that the store can go back to from now on.
        checkpoint: Lsn,
    },
    /// The store refuses writes from now on.
    Poisoned {
        /// What failed.
        why: String,
    },
    /// The disk is full: commits or checkpoints wait for room.
    NoSpace,
    /// By an operator's word commits do not wait for replicas any more, or again: see
    /// [`Shipping::degrade`](crate::Shipping::degrade).
    Degraded {
        /// Whether they go on without replicas.
        on: bool,
    },
    /// Another store has taken this one's place, and this one refuses writes from now on.
    Fenced {
        /// In this epoch.
        epoch: u64,
    },
    /// The store was a replica, and takes writes from now on.
    Promoted {
        /// In this epoch.
        epoch: u64,
    },
}

/// Is told of events, one after another, by a thread that does nothing else: a listener that takes long, or panics,
/// holds nobody up. While it is busy up to 1,024 events wait; later ones are dropped, and counted in
/// [`Stats::events_dropped`]. A store [without threads of its own](crate::DbBuilder::background) tells at once, on the
/// thread on which it happens. A listener must not hold a handle of the store, which would then never close by itself.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-events-{}", std::process::id()));
/// use seawall_engine::{Db, Event, EventListener};
/// use std::sync::Arc;
///
/// struct Log;
/// impl EventListener for Log {
///     fn event(&self, event: &Event) {
///         match event {
///             Event::SlowSync { took } => eprintln!("the device took {took:?} for one write"),
///             other => eprintln!("{other:?}"),
///         }
///     }
/// }
/// let db = Db::builder(&dir).events(Arc::new(Log)).open()?;
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall_engine::Error>(())
/// ```
pub trait EventListener: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event) {
        let _ = event;
    }
}

#[cfg(test)]
mod tests;
