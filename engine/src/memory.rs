//! One memory budget for all that a store keeps in memory.
//!
//! ```text
//! budget ─┬─ buffers      what folds, reads ahead and the log work in: an eighth, 16 MiB at most
//!         ├─ charges      transactions, tickets, the map of the file's space: as they come
//!         └─ available ─┬─ deltas   up to three quarters, beyond it writers wait for a checkpoint
//!                       └─ cache    what deltas leave
//! ```
//!
//! Deltas and cache share what is available: the cache has what the deltas do not need, so a store that only reads
//! caches with nearly all of it, and one that only loads folds half as often. The cache gives way in steps of a sixteenth as
//! the deltas grow, and gets back what a checkpoint has freed.
//!
//! Whoever takes memory that lasts holds a [`Charge`] for it.

use crate::read::view::DeltaBytes;
use crate::record::PAYLOAD_BYTES_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// For folds, reading ahead and the log, in bytes, at most.
const BUFFERS_MAX: u64 = 16 << 20;
/// The share of it that a budget gives, and that a small one must do with.
const BUFFERS_SHARE: u64 = 8;
/// The cache is given its room anew when that has changed by this share of what is available.
const STEPS: u64 = 16;
/// Charges are moved when they have changed by so much: not a shared counter for each small transaction.
pub(crate) const CHARGE_STEP: u64 = 4096;

/// Memory of a store in bytes, by what it is for.
///
/// What the engine asks its allocator for; what that adds, and rounds up, is not in it.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-memory-{}", std::process::id()));
/// # use seawall_engine::Db;
/// let db = Db::builder(&dir).memory_budget(64 << 20).open()?;
/// db.keyspace("rows")?.insert("a", "1")?;
/// let memory = db.stats().memory;
/// assert!(memory.deltas_active > 0 && memory.total() < memory.budget);
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// What all parts together are kept within: [`DbBuilder::memory_budget`](crate::DbBuilder::memory_budget).
    pub budget: u64,
    /// Rows committed since the last checkpoint began.
    pub deltas_active: u64,
    /// Rows that a checkpoint is moving into the data file.
    pub deltas_frozen: u64,
    /// Rows that are in the data file, and that snapshots, scans or the validation of transactions still hold.
    pub deltas_pinned: u64,
    /// The block cache.
    pub cache: u64,
    /// Blocks that readers have and the cache has not: values, cursors and the data file's highest levels keep the whole block
    /// that they are in. Blocks that are mapped are none of these.
    pub blocks_held: u64,
    /// What is known of the blocks of a mapped data file.
    pub mapped_index: u64,
    /// Bytes of the data file that are mapped and were read ([`ReadMode::Mapped`](crate::ReadMode::Mapped)). They are the system's
    /// pages, which it drops when it needs room: no part of the budget, nor of [`total`](MemoryStats::total).
    pub mapped: u64,
    /// Write sets, read sets and row locks of transactions.
    pub transactions: u64,
    /// Commits whose tickets are held.
    pub tickets: u64,
    /// Batches of the log, on their way or kept for the next.
    pub log_buffers: u64,
    /// Blocks that a checkpoint has read ahead, or writes.
    pub fold_buffers: u64,
    /// What is known of the data file's free and dead space.
    pub space_map: u64,
    /// The largest that the deltas may become at present.
    pub deltas_max: u64,
    /// The largest that the cache may become at present.
    pub cache_max: u64,
}

impl MemoryStats {
    /// All parts together.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Each part: its name, what it is, its bytes.
    pub(crate) fn parts(&self) -> [(&'static str, &'static str, u64); 11] {
        [
            ("deltas_active", "rows since the last checkpoint began", self.deltas_active),
            ("deltas_frozen", "rows that a checkpoint is moving", self.deltas_frozen),
            ("deltas_pinned", "rows held by old snapshots", self.deltas_pinned),
            ("cache", "the block cache", self.cache),
            ("blocks_held", "blocks that readers have and the cache has not", self.blocks_held),
            ("mapped_index", "what is known of mapped blocks", self.mapped_index),
            ("transactions", "write sets, read sets and locks", self.transactions),
            ("tickets", "commits whose tickets are held", self.tickets),
            ("log_buffers", "batches of the log", self.log_buffers),
            ("fold_buffers", "blocks of a checkpoint", self.fold_buffers),
            ("space_map", "the map of the data file's space", self.space_map),
        ]
    }
}

/// The budget, and what was charged to it.
#[derive(Debug)]
pub(crate) struct Memory {
    budget: u64,
    pub(crate) transactions: Arc<AtomicU64>,
    pub(crate) tickets: Arc<AtomicU64>,
    /// What the cache was given last.
    cache_max: AtomicU64,
}

impl Memory {
    pub(crate) fn new(budget: u64) -> Memory {
        Memory { budget, transactions: Arc::default(), tickets: Arc::default(), cache_max: AtomicU64::new(0) }
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// For folds and the log.
    pub(crate) fn buffers(&self) -> u64 {
        (self.budget / BUFFERS_SHARE).min(BUFFERS_MAX)
    }

    /// For deltas and cache, beside the buffers, what was charged, and `space_map`. A part is theirs whatever else there is: a
    /// store that many transactions have filled must still get on.
    fn available(&self, space_map: u64) -> u64 {
        let charged = self.transactions.load(Ordering::Relaxed) + self.tickets.load(Ordering::Relaxed);
        let taken = self.buffers().saturating_add(charged).saturating_add(space_map);
        self.budget.saturating_sub(taken).max(self.budget / 4)
    }

    /// Bytes for deltas, active, frozen and pinned; beyond it writers wait.
    pub(crate) fn deltas_max(&self, space_map: u64) -> u64 {
        self.available(space_map) / 4 * 3
    }

    /// Bytes for the delta that the log is replayed into, when the cache has nothing to keep: the larger, the fewer folds go
    /// over the same leaves. What is left at the end is folded as usual, and may hold up the first writers.
    pub(crate) fn replay_max(&self, space_map: u64) -> u64 {
        self.available(space_map) / STEPS * (STEPS - 1)
    }

    /// Bytes for folded deltas that old transactions are validated against.
    pub(crate) fn retained_max(&self) -> u64 {
        self.budget / 4
    }

    /// What one transaction may hold of writes, and of reads, and of locks.
    pub(crate) fn transaction_max(&self) -> usize {
        // Half of what a record may hold, for what encoding adds.
        (self.budget / 4).min(PAYLOAD_BYTES_MAX as u64 / 2) as usize
    }

    /// What all transactions together may hold.
    pub(crate) fn transactions_max(&self) -> u64 {
        self.budget / 2
    }

    /// The cache's room beside so much in deltas, if that differs by a step from what it was given; it must be given that.
    pub(crate) fn cache_room(&self, deltas: u64, space_map: u64) -> Option<u64> {
        let available = self.available(space_map);
        let step = (available / STEPS).max(1);
        // The step that the deltas are about to take is theirs already.
        let steps = (STEPS - 1).saturating_sub(deltas / step).max(1);
        let (room, before) = (steps * step, self.cache_max.load(Ordering::Relaxed));
        let is_other = room.abs_diff(before) >= step / 2;
        let is_mine = || self.cache_max.compare_exchange(before, room, Ordering::Relaxed, Ordering::Relaxed);
        (is_other && is_mine().is_ok()).then_some(room)
    }

    pub(crate) fn cache_max(&self) -> u64 {
        self.cache_max.load(Ordering::Relaxed)
    }
}

impl DeltaBytes {
    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.bytes.saturating_add(self.pinned)
    }
}

/// Bytes charged to a part of the budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    part: Arc<AtomicU64>,
    bytes: u64,
}

impl Charge {
    pub(crate) fn none(part: &Arc<AtomicU64>) -> Charge {
        Charge { part: Arc::clone(part), bytes: 0 }
    }

    pub(crate) fn of(part: &Arc<AtomicU64>, bytes: u64) -> Charge {
        part.fetch_add(bytes, Ordering::Relaxed);
        Charge { part: Arc::clone(part), bytes }
    }

    /// It is so much now. Small changes are left for later.
    pub(crate) fn set(&mut self, bytes: u64) {
        let bytes = bytes.next_multiple_of(CHARGE_STEP).saturating_sub(CHARGE_STEP);
        if bytes > self.bytes {
            self.part.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            self.part.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// What all who charge to this part hold.
    pub(crate) fn all(&self) -> u64 {
        self.part.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.part.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_and_cache_and_buffers_are_never_more_than_the_budget() {
        for budget in [1 << 20, 64 << 20, 256 << 20, 8 << 30] {
            let memory = Memory::new(budget);
            for deltas in (0..=16).map(|part| memory.deltas_max(0) / 16 * part) {
                let cache = memory.cache_room(deltas, 0).unwrap_or(memory.cache_max());
                assert!(deltas + cache + memory.buffers() <= budget, "{deltas} + {cache} of {budget}");
                assert!(cache >= budget / 16, "{cache} of {budget}");
            }
            assert_eq!(memory.cache_room(memory.deltas_max(0), 0), None, "it was given that already");
            assert!(memory.cache_room(0, 0).is_some_and(|room| room > budget / 2));
        }
    }

    #[test]
    fn what_is_charged_is_taken_from_both_and_comes_back() {
        let memory = Memory::new(64 << 20);
        let before = memory.deltas_max(0);
        let mut charge = Charge::none(&memory.transactions);
        charge.set(16 << 20);
        assert!(memory.deltas_max(0) <= before - (11 << 20), "three quarters of 16 MiB");
        charge.set(100);
        assert_eq!((charge.all(), memory.deltas_max(0)), (0, before), "small ones are not worth a counter");
        let ticket = Charge::of(&memory.tickets, 1 << 30);
        assert_eq!(memory.deltas_max(0), (16 << 20) / 4 * 3, "a quarter is theirs whatever is charged");
        drop(ticket);
        assert_eq!(memory.deltas_max(0), before);
    }
}
