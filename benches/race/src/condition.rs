//! Under what a contender is measured: as it is, or with something beside it or about it that is to cost little.

use crate::contenders::Contender;
use serde::{Deserialize, Serialize};

/// Threads that burn processor time under [`Condition::Busy`].
pub(crate) const BUSY_THREADS: usize = 8;
/// A log file's bytes under [`Condition::SmallSegments`].
pub(crate) const SMALL_SEGMENT_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Condition {
    /// Nothing but the workload.
    #[default]
    Usual,
    /// The log goes on to another file every few hundred commits.
    SmallSegments,
    /// The store's background makes one checkpoint after the other.
    Checkpointing,
    /// Threads of this process that only compute, more than there are processors.
    Busy,
    /// Transactions that are not validated against what others have written of what they read.
    SnapshotIsolation,
}

impl Condition {
    /// What the report puts behind a contender's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Condition::Usual => "",
            Condition::SmallSegments => " + rotations",
            Condition::Checkpointing => " + checkpoints",
            Condition::Busy => " + busy threads",
            Condition::SnapshotIsolation => " + snapshot isolation",
        }
    }

    /// What it is, for the report; nothing for the usual.
    pub(crate) fn about(self) -> Option<&'static str> {
        match self {
            Condition::Usual => None,
            Condition::SmallSegments => Some("log files of 1 MiB instead of 64 MiB"),
            Condition::Checkpointing => Some(
                "the store's own background checkpoints, at the pace it gives itself, with an interval of a millisecond: \
                 the next begins when the last has ended. Without them the interval is a day, and memory and log are \
                 given room for all of the window in both",
            ),
            Condition::Busy => Some(
                "8 threads of the same process that compute and never sleep; their time and their context switches are \
                 taken out of the row",
            ),
            Condition::SnapshotIsolation => {
                Some("`Isolation::Snapshot` instead of `Isolation::Serializable`")
            }
        }
    }

    /// For the name of a directory.
    fn word(self) -> &'static str {
        match self {
            Condition::Usual => "usual",
            Condition::SmallSegments => "rotating",
            Condition::Checkpointing => "checkpointing",
            Condition::Busy => "busy",
            Condition::SnapshotIsolation => "snapshot",
        }
    }
}

/// Who is measured under what: a row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Entrant {
    pub(crate) contender: Contender,
    pub(crate) condition: Condition,
}

impl Entrant {
    pub(crate) fn usual(contender: Contender) -> Entrant {
        Entrant { contender, condition: Condition::Usual }
    }

    pub(crate) fn under(contender: Contender, condition: Condition) -> Entrant {
        Entrant { contender, condition }
    }

    pub(crate) fn name(self) -> String {
        format!("{}{}", self.contender.name(), self.condition.suffix())
    }

    pub(crate) fn dir_name(self) -> String {
        format!("{}-{}", self.contender.name(), self.condition.word())
    }
}
