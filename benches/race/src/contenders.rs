//! Who runs, in what: one file for each.

mod canopydb;
mod device;
mod fjall;
mod lmdb;
mod null_disk;
mod okaywal;
mod raft_engine;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod seawall;
mod seawall_log;
mod sqlite;
mod surrealkv;

use crate::Result;
use crate::condition::{Condition, Entrant};
use crate::drive::{Measured, Plan};
use crate::rows::Row;
use crate::seen::Seen;
use crate::workload::{KEY_BYTES, Level, Workload};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// The device itself, written directly: every thread its own durable write
    Device,
    /// seawall's engine
    Seawall,
    /// seawall's engine, a task for each committer on as many threads as there are processors
    SeawallTasks,
    /// seawall's engine, its data file mapped: what it reads, it reads where it lies
    SeawallMapped,
    /// seawall's log alone
    SeawallLog,
    /// seawall's log over a disk whose durable writes return at once: what the commit scheme itself costs
    SeawallNoIo,
    /// surrealkv, preallocated log, a thread for each committer
    Surrealkv,
    /// surrealkv, preallocated log, a task for each committer on as many threads as there are processors
    SurrealkvTasks,
    /// RocksDB, recycled log
    #[cfg(feature = "rocksdb")]
    Rocksdb,
    /// raft-engine, recycled log filled ahead; a log only
    RaftEngine,
    /// okaywal; a log only
    Okaywal,
    /// fjall
    Fjall,
    /// redb
    Redb,
    /// LMDB, through heed
    Lmdb,
    /// SQLite, write-ahead log
    Sqlite,
    /// canopydb
    Canopydb,
}

/// How a row of the table is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Floor,
    Ours,
    /// The scheme without a device: a figure for the model, in no comparison.
    Model,
    /// Keeps an index of its keys, or is a log only.
    Peer {
        index: bool,
    },
}

/// How to open a store.
pub(crate) struct Setup<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) level: Level,
    pub(crate) workload: Workload,
    pub(crate) condition: Condition,
    pub(crate) threads: usize,
    /// The store is to be filled and killed: nothing is to be put out of its log.
    pub(crate) is_filling: bool,
    /// Of a store of many rows: bytes for its caches and buffers together.
    pub(crate) memory: Option<u64>,
}

/// One open store. It lasts until its process ends.
pub(crate) trait Store: Send + Sync {
    /// A committer's own handle.
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + '_>>;

    /// All that was committed is on the device when this returns.
    fn sync(&self) -> Result<()> {
        Err("this contender does not run this workload".into())
    }

    fn get(&self, _key: &[u8]) -> Result<Option<Vec<u8>>> {
        Err("this contender does not run this workload".into())
    }

    /// Lets a thread read for as long as `work` takes, from one snapshot where there are snapshots.
    fn read(&self, _work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        Err("this contender does not run this workload".into())
    }

    /// What was loaded goes where it is to stay: a checkpoint, a flush.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Closes it in good order.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    /// Called now and then, for logs that would grow for ever.
    fn tidy(&self) -> Result<()> {
        Ok(())
    }

    /// What it has counted since it was opened, as far as this race asks.
    fn seen(&self) -> Seen {
        Seen::default()
    }

    /// Measures a window.
    fn drive(&self, plan: &Plan) -> Result<Measured>;
}

/// Commits; returns when the level asked for in [`Setup`] is reached.
pub(crate) trait Writer {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()>;
}

/// Reads; what is found is shown where it lies, and copied by nobody who need not.
pub(crate) trait Reader {
    /// True if the key is there.
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// How many of the keys are there.
    fn multi_get(&mut self, keys: &[[u8; KEY_BYTES]], found: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let mut count = 0;
        for key in keys {
            count += usize::from(self.get(key, found)?);
        }
        Ok(count)
    }

    /// Up to `rows` rows in key order, from a key or from the first on.
    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()>;
}

#[cfg(feature = "rocksdb")]
use Contender::Rocksdb;
use Contender::{
    Canopydb, Device, Fjall, Lmdb, Okaywal, RaftEngine, Redb, Seawall, SeawallLog, SeawallMapped,
    SeawallNoIo, SeawallTasks, Sqlite, Surrealkv, SurrealkvTasks,
};

/// Who runs a workload under what, in the order in which they are interleaved.
pub(crate) fn field(workload: Workload) -> Vec<Entrant> {
    let condition = match workload {
        Workload::Rotations => Condition::SmallSegments,
        Workload::Checkpoint => Condition::Checkpointing,
        Workload::Busy => Condition::Busy,
        Workload::Disjoint => Condition::SnapshotIsolation,
        _ => Condition::Usual,
    };
    let mut field = Vec::new();
    for &contender in contenders(workload) {
        field.push(Entrant::usual(contender));
        // What a device does is its own: only busy processors are something to it.
        if condition != Condition::Usual && (contender != Device || condition == Condition::Busy) {
            field.push(Entrant::under(contender, condition));
        }
    }
    field
}

/// Who is missing has no such mode: it keeps no log, has no receipts, or cannot hold a commit in memory only; or what is
/// measured is asked of seawall alone.
fn contenders(workload: Workload) -> &'static [Contender] {
    match workload {
        Workload::Put | Workload::Batch | Workload::Large => &[
            Device,
            Seawall,
            SeawallTasks,
            SeawallLog,
            Surrealkv,
            SurrealkvTasks,
            #[cfg(feature = "rocksdb")]
            Rocksdb,
            RaftEngine,
            Okaywal,
            Fjall,
            Redb,
            Lmdb,
            Sqlite,
            Canopydb,
        ],
        Workload::Written => &[
            Seawall,
            Surrealkv,
            SurrealkvTasks,
            #[cfg(feature = "rocksdb")]
            Rocksdb,
            Fjall,
            Lmdb,
            Sqlite,
            Canopydb,
        ],
        Workload::Memory => &[
            Seawall,
            #[cfg(feature = "rocksdb")]
            Rocksdb,
            Fjall,
            Redb,
        ],
        Workload::Log => &[Device, SeawallLog, SeawallNoIo, RaftEngine, Okaywal],
        Workload::TicketsLog128 | Workload::TicketsLog4k => &[SeawallLog],
        Workload::TicketsEngine => &[Seawall, SurrealkvTasks],
        Workload::Sequential1m | Workload::Sequential4m => &[Device],
        Workload::Reopen => &[
            Seawall,
            Surrealkv,
            #[cfg(feature = "rocksdb")]
            Rocksdb,
            Fjall,
            Sqlite,
            Canopydb,
        ],
        Workload::Rotations => &[Device, SeawallLog],
        Workload::Checkpoint | Workload::Busy => &[Device, Seawall],
        Workload::Recovery | Workload::Disjoint => &[Seawall],
        Workload::MultiGet4x => &[
            Device,
            Seawall,
            Surrealkv,
            #[cfg(feature = "rocksdb")]
            Rocksdb,
            Fjall,
            Redb,
            Lmdb,
            Sqlite,
            Canopydb,
        ],
        Workload::Load | Workload::Get | Workload::FullScan | Workload::Ranges | Workload::ColdOpen => &[
            Seawall,
            SeawallMapped,
            Surrealkv,
            #[cfg(feature = "rocksdb")]
            Rocksdb,
            Fjall,
            Redb,
            Lmdb,
            Sqlite,
            Canopydb,
        ],
        Workload::Get4x | Workload::Updates5x | Workload::Updates10x => &[
            Seawall,
            Surrealkv,
            #[cfg(feature = "rocksdb")]
            Rocksdb,
            Fjall,
            Redb,
            Lmdb,
            Sqlite,
            Canopydb,
        ],
    }
}

impl Contender {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn about(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    pub(crate) fn role(self) -> Role {
        match self {
            Device => Role::Floor,
            Seawall | SeawallTasks | SeawallMapped | SeawallLog => Role::Ours,
            SeawallNoIo => Role::Model,
            RaftEngine | Okaywal => Role::Peer { index: false },
            _ => Role::Peer { index: true },
        }
    }

    /// True if its committers are tasks of a few threads: they share what threads pay for being woken, and are to be
    /// compared with their like.
    pub(crate) fn is_of_tasks(self) -> bool {
        matches!(self, SeawallTasks | SurrealkvTasks)
    }

    /// What it was asked to do, for the report.
    pub(crate) fn mode(self) -> &'static str {
        match self {
            Device => device::MODE,
            Seawall => seawall::MODE_THREADS,
            SeawallTasks => seawall::MODE_TASKS,
            SeawallMapped => seawall::MODE_MAPPED,
            SeawallLog => seawall_log::MODE,
            SeawallNoIo => null_disk::MODE,
            Surrealkv => surrealkv::MODE_THREADS,
            SurrealkvTasks => surrealkv::MODE_TASKS,
            #[cfg(feature = "rocksdb")]
            Rocksdb => rocksdb::MODE,
            RaftEngine => raft_engine::MODE,
            Okaywal => okaywal::MODE,
            Fjall => fjall::MODE,
            Redb => redb::MODE,
            Lmdb => lmdb::MODE,
            Sqlite => sqlite::MODE,
            Canopydb => canopydb::MODE,
        }
    }

    pub(crate) fn open(self, setup: &Setup<'_>) -> Result<Box<dyn Store>> {
        match self {
            Device => device::open(setup),
            Seawall => seawall::open(setup, seawall::Kind::Threads),
            SeawallTasks => seawall::open(setup, seawall::Kind::Tasks),
            SeawallMapped => seawall::open(setup, seawall::Kind::Mapped),
            SeawallLog => seawall_log::open(setup, None),
            SeawallNoIo => seawall_log::open(setup, Some(null_disk::NullDisk::over_system())),
            Surrealkv => surrealkv::open(setup, false),
            SurrealkvTasks => surrealkv::open(setup, true),
            #[cfg(feature = "rocksdb")]
            Rocksdb => rocksdb::open(setup),
            RaftEngine => raft_engine::open(setup),
            Okaywal => okaywal::open(setup),
            Fjall => fjall::open(setup),
            Redb => redb::open(setup),
            Lmdb => lmdb::open(setup),
            Sqlite => sqlite::open(setup),
            Canopydb => canopydb::open(setup),
        }
    }
}

/// Blocking committers: what all but the exceptions do.
macro_rules! driven_by_threads {
    () => {
        fn drive(&self, plan: &crate::drive::Plan) -> crate::Result<crate::drive::Measured> {
            crate::drive::threads(self, plan)
        }
    };
}
use driven_by_threads;

/// A row as one record of a log.
fn record(row: &Row<'_>, buf: &mut Vec<u8>) {
    buf.clear();
    buf.reserve(KEY_BYTES + row.value.len());
    buf.extend_from_slice(&row.key);
    buf.extend_from_slice(row.value);
}

/// The peers' versions, as locked: for the report.
pub(crate) fn versions() -> Vec<(&'static str, String)> {
    const LOCK: &str = include_str!("../Cargo.lock");
    let crates = [
        "surrealkv",
        "rocksdb",
        "librocksdb-sys",
        "raft-engine",
        "okaywal",
        "fjall",
        "redb",
        "heed",
        "rusqlite",
        "canopydb",
    ];
    crates.into_iter().filter_map(|name| Some((name, version(LOCK, name)?))).collect()
}

fn version(lock: &str, name: &str) -> Option<String> {
    let package =
        lock.split("[[package]]").find(|package| package.contains(&format!("\nname = \"{name}\"\n")))?;
    let line = package.lines().find_map(|line| line.strip_prefix("version = \""))?;
    Some(line.trim_end_matches('"').to_owned())
}
