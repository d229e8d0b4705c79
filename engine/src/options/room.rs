//! What a store may take of memory, and its log of the disk.

use super::{DbBuilder, Options};

const LOG_SEGMENTS_MIN: u64 = 4;
/// A log file takes this share of the memory budget, within bounds.
const SEGMENT_SHARE: u64 = 8;
/// Smaller ones would make rotations a part of each commit's time; a log of these is still measured when it is made.
const SEGMENT_BYTES_LEAST: u64 = 4 << 20;
const SEGMENT_BYTES_MOST: u64 = 64 << 20;

/// Bytes of a log file where none are asked for.
pub(super) fn segment_bytes(memory_budget: u64) -> u64 {
    let share = (memory_budget / SEGMENT_SHARE).max(1);
    (1 << share.ilog2()).clamp(SEGMENT_BYTES_LEAST, SEGMENT_BYTES_MOST)
}

impl DbBuilder {
    /// Bytes of memory for everything that the store holds: rows that are not in the data file yet, the block cache,
    /// transactions, tickets, buffers; [`Stats::memory`](crate::Stats::memory) has the parts. Deltas and cache share what the
    /// rest leaves: the cache gives way as deltas grow, down to a quarter, and gets it back. Beyond the deltas' share writers are
    /// slowed; a transaction that would take more than a quarter of the budget, or with all others more than half, gets
    /// `TooLarge`. At least 1 MiB, below 8 MiB the buffers of a checkpoint may go beyond it. Default: 256 MiB.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).memory_budget(1 << 30).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Bytes of log kept between checkpoints: bounds recovery. At least four segments. Default: 512 MiB.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).log_bytes_max(2 << 30).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn log_bytes_max(mut self, bytes: u64) -> Self {
        self.log_bytes_max = bytes;
        self
    }

    /// Bytes of a log file; fixed when the store is created. Default: the power of two that is at most an eighth of the
    /// memory budget, between 4 and 64 MiB. What a checkpoint leaves of the log is of the deltas' size, and a few files more
    /// are kept ready: large ones would be most of what a small store takes.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).segment_bytes(16 << 20).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }
}

impl Options {
    /// For a store whose log has files of so many bytes, whatever a new one's would have.
    pub(crate) fn go_by_segments_of(&mut self, bytes: u64) {
        self.log_bytes_max = self.log_bytes_max_of(bytes);
        self.segment_bytes = bytes;
    }

    /// Bytes of log between checkpoints if its files have so many.
    pub(crate) fn log_bytes_max_of(&self, segment_bytes: u64) -> u64 {
        self.log_bytes_max.max(segment_bytes.saturating_mul(LOG_SEGMENTS_MIN))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test fails by panicking")]
    use super::segment_bytes;
    use crate::Db;
    use seawall_wal::SimDisk;

    #[test]
    fn a_store_goes_by_the_log_files_that_it_has() {
        let builder =
            Db::builder("/store").disk(SimDisk::new(1)).log_bytes_max(100 << 20).segment_bytes(4 << 20);
        let mut options = builder.options().expect("a simulated disk needs nothing");
        options.go_by_segments_of(4 << 20);
        assert_eq!(options.log_bytes_max, 100 << 20);
        options.go_by_segments_of(64 << 20);
        assert_eq!((options.log_bytes_max, options.segment_bytes), (256 << 20, 64 << 20));
    }

    #[test]
    fn log_files_are_an_eighth_of_the_memory_at_most() {
        let sizes = [1, 32, 55, 111, 256, 511, 512, 1 << 20].map(|mib: u64| segment_bytes(mib << 20) >> 20);
        assert_eq!(sizes, [4, 4, 4, 8, 32, 32, 64, 64]);
    }
}
