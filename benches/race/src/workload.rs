//! The workloads: what a commit is, how durable it is, and at which thread counts it is measured.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Bytes of every key.
pub(crate) const KEY_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// One put of a 100-byte value, durable
    Put,
    /// 100 puts in one commit, durable
    Batch,
    /// One put of a 16 KiB value, durable
    Large,
    /// One put, given to the kernel: survives the process, not the power
    Written,
    /// One put, in this process's memory: lost with it
    Memory,
    /// A log alone: one record of 128 bytes, durable
    Log,
    /// One thread, many receipts outstanding: records of 128 bytes into the log
    #[value(name = "tickets-log-128")]
    #[serde(rename = "tickets-log-128")]
    TicketsLog128,
    /// The same with records of 4 KiB
    #[value(name = "tickets-log-4k")]
    #[serde(rename = "tickets-log-4k")]
    TicketsLog4k,
    /// One thread, many receipts outstanding: puts of 100-byte values into the engine
    TicketsEngine,
    /// Direct writes of 1 MiB, one after the other, without a sync of their own
    #[value(name = "sequential-1m")]
    #[serde(rename = "sequential-1m")]
    Sequential1m,
    /// The same of 4 MiB
    #[value(name = "sequential-4m")]
    #[serde(rename = "sequential-4m")]
    Sequential4m,
    /// Opening after SIGKILL, with a log that no checkpoint has shortened
    Reopen,
    /// One committer on the log alone, records of 128 bytes: log files of 1 MiB beside files of 64 MiB
    Rotations,
    /// Durable puts of 100-byte values into a store of 500,000 rows: no checkpoints, and the background's one after the other
    Checkpoint,
    /// Durable puts of 100-byte values by one committer, alone and beside 8 threads that only compute
    Busy,
    /// The same rows in random order, 10,000 a commit, durable; the rows of the workloads below
    Load,
    /// Random point reads, all rows in memory
    Get,
    /// All rows in key order, all in memory
    FullScan,
    /// 100 rows in key order from a random one on, all in memory
    Ranges,
    /// Opening a store that was closed, files not in the cache, until the first row is read
    ColdOpen,
    /// Random point reads, four times the memory in rows
    #[value(name = "get-4x")]
    #[serde(rename = "get-4x")]
    Get4x,
    /// Random point reads, 100 keys a call, four times the memory in rows; the device's own rate of 4 KiB at depth 32
    #[value(name = "multi-get-4x")]
    #[serde(rename = "multi-get-4x")]
    MultiGet4x,
    /// Durable updates of one random row each, five times the memory in rows
    #[value(name = "updates-5x")]
    #[serde(rename = "updates-5x")]
    Updates5x,
    /// The same, ten times the memory in rows
    #[value(name = "updates-10x")]
    #[serde(rename = "updates-10x")]
    Updates10x,
    /// Transactions that read a row of their own and write it, committed in memory: serializable, and with snapshot isolation
    Disjoint,
    /// Opening with default options after SIGKILL: a quarter of `reopen`'s log, rows of 100 bytes, files not in the cache
    Recovery,
}

/// A store of many rows, and what it may keep in memory: loaded once for all workloads on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Shelf {
    /// Memory for twice the rows.
    Warm,
    /// Memory for a quarter, a fifth, a tenth of the rows.
    Fourfold,
    Fivefold,
    Tenfold,
}

impl Shelf {
    pub(crate) const ALL: [Shelf; 4] = [Shelf::Warm, Shelf::Fourfold, Shelf::Fivefold, Shelf::Tenfold];

    /// Bytes of memory for a store of so many bytes of keys and values.
    pub(crate) fn memory(self, rows_bytes: u64) -> u64 {
        match self {
            Shelf::Warm => rows_bytes * 2,
            Shelf::Fourfold => rows_bytes / 4,
            Shelf::Fivefold => rows_bytes / 5,
            Shelf::Tenfold => rows_bytes / 10,
        }
    }
}

/// What a commit's return promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Synced,
    Written,
    Memory,
}

impl Workload {
    /// As on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// A sentence for the report.
    pub(crate) fn about(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    pub(crate) fn level(self) -> Level {
        match self {
            Workload::Written
            | Workload::Sequential1m
            | Workload::Sequential4m
            | Workload::Reopen
            | Workload::Get
            | Workload::FullScan
            | Workload::Ranges
            | Workload::ColdOpen
            | Workload::Get4x
            | Workload::MultiGet4x
            | Workload::Recovery => Level::Written,
            Workload::Memory | Workload::Disjoint => Level::Memory,
            _ => Level::Synced,
        }
    }

    /// The thread counts measured unless the command line says otherwise.
    pub(crate) fn threads_default(self) -> &'static [u16] {
        match self {
            Workload::Put => &[1, 2, 4, 16, 64, 128],
            Workload::Batch => &[1, 16],
            Workload::Large => &[64],
            Workload::Written | Workload::Memory => &[1, 4],
            Workload::Log => &[1, 4, 16, 64, 128],
            Workload::Checkpoint => &[16],
            Workload::Get => &[1, 2],
            Workload::Get4x => &[1, 16],
            Workload::Updates5x | Workload::Updates10x => &[64],
            Workload::Disjoint => &[16, 64],
            _ => &[1],
        }
    }

    /// Workloads of one thread by their nature.
    pub(crate) fn is_single(self) -> bool {
        self.threads_default() == [1]
    }

    pub(crate) fn rows_per_commit(self) -> usize {
        match self {
            Workload::Batch => 100,
            Workload::Load => 10_000,
            _ => 1,
        }
    }

    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Workload::Large => 16 << 10,
            Workload::Log | Workload::TicketsLog128 | Workload::Rotations => 128 - KEY_BYTES,
            Workload::TicketsLog4k => 4096 - KEY_BYTES,
            Workload::Sequential1m => (1 << 20) - KEY_BYTES,
            Workload::Sequential4m => (4 << 20) - KEY_BYTES,
            Workload::Recovery => 100 - KEY_BYTES,
            _ => 100,
        }
    }

    /// Bytes that the user hands over in one commit.
    pub(crate) fn commit_bytes(self) -> usize {
        self.rows_per_commit() * (KEY_BYTES + self.value_bytes())
    }

    /// How many commits one thread has outstanding at most.
    pub(crate) fn outstanding(self) -> usize {
        match self {
            Workload::TicketsLog128 | Workload::TicketsEngine => 64 << 10,
            Workload::TicketsLog4k => 8 << 10,
            _ => 1,
        }
    }

    /// What is timed is opening a store that was killed.
    pub(crate) fn is_opening(self) -> bool {
        matches!(self, Workload::Reopen | Workload::Recovery)
    }

    /// The store that it runs on, if that is one of many rows.
    pub(crate) fn shelf(self) -> Option<Shelf> {
        match self {
            Workload::Load | Workload::Get | Workload::FullScan | Workload::Ranges | Workload::ColdOpen => {
                Some(Shelf::Warm)
            }
            Workload::Get4x | Workload::MultiGet4x => Some(Shelf::Fourfold),
            Workload::Updates5x => Some(Shelf::Fivefold),
            Workload::Updates10x => Some(Shelf::Tenfold),
            _ => None,
        }
    }

    /// Durable updates of rows that are there.
    pub(crate) fn updates(self) -> bool {
        matches!(self, Workload::Updates5x | Workload::Updates10x)
    }

    /// What is counted: rows, but bytes where bytes are the point.
    pub(crate) fn is_in_bytes(self) -> bool {
        matches!(self, Workload::TicketsLog4k | Workload::Sequential1m | Workload::Sequential4m)
    }
}
