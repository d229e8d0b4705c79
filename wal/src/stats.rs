//! Counters. Nothing that decides rests on them (a watermark guarded by a metric is bug 41).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BUCKETS: usize = 64;

/// Counts of values by their power of two.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(bucket) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time in microseconds.
    pub fn record_duration(&self, value: Duration) {
        self.record(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }

    /// The counts so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// A histogram's counts at one moment: bucket `i` holds the values in `2^(i-1) .. 2^i`, bucket 0 the zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Counts by power of two.
    pub buckets: Vec<u64>,
    /// The values' sum.
    pub sum: u64,
}

impl HistogramSnapshot {
    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper end of the bucket that holds the `q`-quantile (0.5, 0.99, …); 0 if nothing was counted.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = (self.count() as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return if i == 0 { 0 } else { (1u64 << i.min(63)) - 1 };
            }
        }
        0
    }

    /// The values' mean; 0 if nothing was counted.
    pub fn mean(&self) -> f64 {
        let count = self.count();
        if count == 0 { 0.0 } else { self.sum as f64 / count as f64 }
    }
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WalStats {
    /// Records placed.
    pub commits: u64,
    /// Write calls on log files.
    pub writes: u64,
    /// Durable writes and syncs: each is one flush of the device.
    pub syncs: u64,
    /// Bytes given to the device, padding and headers included.
    pub device_bytes: u64,
    /// Bytes of payload placed.
    pub payload_bytes: u64,
    /// Segments begun.
    pub rotations: u64,
    /// Segment files made anew, and reused.
    pub segments_created: u64,
    /// Segment files reused.
    pub segments_recycled: u64,
    /// Empty frames that carried the durable LSN on.
    pub seals: u64,
    /// Time of a group's write, in µs.
    pub write_us: HistogramSnapshot,
    /// Records in a group.
    pub group_size: HistogramSnapshot,
    /// Memory of batches on their way, or kept for the next, in bytes.
    pub buffer_bytes: u64,
}

/// The live counters behind [`WalStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) device_bytes: AtomicU64,
    pub(crate) payload_bytes: AtomicU64,
    pub(crate) rotations: AtomicU64,
    pub(crate) segments_created: AtomicU64,
    pub(crate) segments_recycled: AtomicU64,
    pub(crate) seals: AtomicU64,
    pub(crate) write_us: Histogram,
    pub(crate) group_size: Histogram,
    pub(crate) batch_bytes_max: AtomicU64,
    pub(crate) buffer_bytes: AtomicU64,
    pub(crate) slow_write: Option<SlowWrite>,
}

/// Who is told of a group's write that took long.
#[derive(Clone)]
pub(crate) struct SlowWrite {
    pub(crate) limit: Duration,
    pub(crate) tell: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl std::fmt::Debug for SlowWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlowWrite").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Counters {
    /// A group's write has ended, and those who waited for it have been woken.
    pub(crate) fn tell_slow_write(&self, took: Duration) {
        if let Some(slow) = self.slow_write.as_ref().filter(|slow| took >= slow.limit) {
            (slow.tell)(took);
        }
    }

    pub(crate) fn snapshot(&self) -> WalStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WalStats {
            commits: get(&self.commits),
            writes: get(&self.writes),
            syncs: get(&self.syncs),
            device_bytes: get(&self.device_bytes),
            payload_bytes: get(&self.payload_bytes),
            rotations: get(&self.rotations),
            segments_created: get(&self.segments_created),
            segments_recycled: get(&self.segments_recycled),
            seals: get(&self.seals),
            write_us: self.write_us.snapshot(),
            group_size: self.group_size.snapshot(),
            buffer_bytes: get(&self.buffer_bytes),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
