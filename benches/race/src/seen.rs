//! What a store counts itself, as far as a workload asks for it: whether the thing whose price is measured happened.

use serde::{Deserialize, Serialize};

/// A store's own counts, since it was opened or within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Log files begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rotations: Option<u64>,
    /// Checkpoints that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoints: Option<u64>,
    /// How long those took together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint_s: Option<f64>,
    /// The log that a store holds that was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_bytes: Option<u64>,
    /// How quickly the killed store's files can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_bytes_per_s: Option<f64>,
    /// The most memory that the process had at a time (`VmHWM`): its own, and of files that it has mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    /// What it was given for its caches and buffers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) budget_bytes: Option<u64>,
    /// Blocks of all its files, for each byte of keys and values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_bytes_per_byte: Option<f64>,
}

impl Seen {
    /// What was added between two looks.
    pub(crate) fn since(self, before: Seen) -> Seen {
        let count = |after: Option<u64>, before: Option<u64>| Some(after? - before?);
        Seen {
            rotations: count(self.rotations, before.rotations),
            checkpoints: count(self.checkpoints, before.checkpoints),
            checkpoint_s: self.checkpoint_s.zip(before.checkpoint_s).map(|(after, before)| after - before),
            log_bytes: None,
            read_bytes_per_s: None,
            ..Seen::default()
        }
    }
}
