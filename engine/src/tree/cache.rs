//! Verified blocks in memory, by byte budget.
//!
//! The key is where a block stands, when it was born and what its checksum is: a block of an aborted checkpoint, or
//! one that stood there before, is never taken for another. The hasher is fixed, so that a simulated run repeats.

use super::block::Block;
use super::ptr::Ptr;
#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use quick_cache::sync::{Cache as QuickCache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CacheKey {
    offset: u64,
    birth: u64,
    checksum: u32,
}

impl CacheKey {
    fn of(ptr: &Ptr) -> CacheKey {
        #[cfg(seawall_shuttle)]
        if errs(Misorder::CacheByPlace) {
            return CacheKey { offset: ptr.offset, birth: 0, checksum: 0 };
        }
        CacheKey { offset: ptr.offset, birth: ptr.birth, checksum: ptr.checksum }
    }
}

/// Memory that an entry takes beside its block's bytes, about.
const ENTRY_BYTES: u64 = 200;

/// The number of locks; fixed, for the default depends on the machine.
const SHARDS: usize = 16;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<CacheKey, Arc<Block>> for ByBytes {
    fn weight(&self, _: &CacheKey, block: &Arc<Block>) -> u64 {
        block.memory_bytes() as u64 + ENTRY_BYTES
    }
}

/// A multiply-and-fold hash with fixed constants: keys are positions that this store chose itself.
#[derive(Clone, Debug, Default)]
struct Fixed(u64);

impl BuildHasher for Fixed {
    type Hasher = Fixed;
    fn build_hasher(&self) -> Fixed {
        Fixed(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for Fixed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

/// Counters, several of them so that threads do not fight for one cache line.
#[derive(Debug, Default)]
struct Counters([Line; 8]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line {
    hits: AtomicU64,
    misses: AtomicU64,
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static LINE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % 8;
}

impl Counters {
    fn mine(&self) -> Option<&Line> {
        self.0.get(LINE.try_with(|line| *line).unwrap_or(0))
    }
    fn sum(&self, which: impl Fn(&Line) -> &AtomicU64) -> u64 {
        self.0.iter().map(|line| which(line).load(Ordering::Relaxed)).sum()
    }
}

/// The block cache of one store.
#[derive(Debug)]
pub(super) struct Cache {
    blocks: QuickCache<CacheKey, Arc<Block>, ByBytes, Fixed>,
    counters: Counters,
    /// Asking `blocks` takes all of its locks.
    capacity: u64,
}

impl Cache {
    pub(super) fn new(bytes: usize) -> Cache {
        let items = (bytes / 4096).max(1);
        let (weight, shards) = (bytes as u64, SHARDS);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(weight)
            .shards(shards)
            .build();
        let blocks = match options {
            Ok(options) => {
                QuickCache::with_options(options, ByBytes, Fixed::default(), DefaultLifecycle::default())
            }
            // The builder only refuses when a size is missing, and none is.
            Err(_) => QuickCache::with(items, weight, ByBytes, Fixed::default(), DefaultLifecycle::default()),
        };
        let capacity = blocks.capacity();
        Cache { blocks, counters: Counters::default(), capacity }
    }

    pub(super) fn get(&self, ptr: &Ptr) -> Option<Arc<Block>> {
        let found = self.blocks.get(&CacheKey::of(ptr));
        if let Some(line) = self.counters.mine() {
            let counter = if found.is_some() { &line.hits } else { &line.misses };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// Whether it is there; not a use of it.
    pub(super) fn contains(&self, ptr: &Ptr) -> bool {
        self.blocks.contains_key(&CacheKey::of(ptr))
    }

    pub(super) fn insert(&self, block: &Arc<Block>) {
        self.blocks.insert(CacheKey::of(block.ptr()), Arc::clone(block));
    }

    pub(super) fn remove(&self, ptr: &Ptr) {
        self.blocks.remove(&CacheKey::of(ptr));
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// Of these, the blocks' own. Takes all locks, one after another.
    pub(super) fn block_bytes(&self) -> u64 {
        self.blocks.weight().saturating_sub(self.blocks.len() as u64 * ENTRY_BYTES)
    }

    /// What is beyond it goes at once.
    pub(super) fn set_capacity(&self, bytes: u64) {
        self.blocks.set_capacity(bytes);
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn hits(&self) -> u64 {
        self.counters.sum(|line| &line.hits)
    }

    pub(super) fn misses(&self) -> u64 {
        self.counters.sum(|line| &line.misses)
    }
}
