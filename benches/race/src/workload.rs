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
    /// Opening with default options after SIGKILL: a quarter of `reopen`'s log, rows of 100 bytes, files not in the cache
    Recovery,
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
            | Workload::Recovery => Level::Written,
            Workload::Memory => Level::Memory,
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
            _ => &[1],
        }
    }

    /// Workloads of one thread by their nature.
    pub(crate) fn is_single(self) -> bool {
        self.threads_default() == [1]
    }

    pub(crate) fn rows_per_commit(self) -> usize {
        if self == Workload::Batch { 100 } else { 1 }
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

    /// What is counted: rows, but bytes where bytes are the point.
    pub(crate) fn is_in_bytes(self) -> bool {
        matches!(self, Workload::TicketsLog4k | Workload::Sequential1m | Workload::Sequential4m)
    }
}
