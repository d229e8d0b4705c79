//! Verified blocks in memory, by byte budget.
//!
//! The key is where a block stands, when it was born and what its checksum is: a block of an aborted checkpoint, or
//! one that stood there before, is never taken for another. The hasher is fixed, so that a simulated run repeats.

use super::block::Block;
use super::front::{Front, Seen};
use super::ptr::Ptr;
#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use quick_cache::sync::Cache as QuickCache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
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
    #[inline]
    pub(super) fn of(ptr: &Ptr) -> CacheKey {
        #[cfg(seawall_shuttle)]
        if errs(Misorder::CacheByPlace) {
            return CacheKey { offset: ptr.offset, birth: 0, checksum: 0 };
        }
        CacheKey { offset: ptr.offset, birth: ptr.birth, checksum: ptr.checksum }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// Memory that an entry takes beside its block's bytes, about; 16 of it for its place in front.
const ENTRY_BYTES: u64 = 216;
/// The times that the cache is asked to give way: each time it passes over what was used since the last.
const ROUNDS_MAX: usize = 4;

/// The number of locks; fixed, for the default depends on the machine.
const SHARDS: usize = 16;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<CacheKey, Arc<Block>> for ByBytes {
    fn weight(&self, _: &CacheKey, block: &Arc<Block>) -> u64 {
        block.memory_bytes() as u64 + ENTRY_BYTES
    }
}

/// What the cache gives up leaves its place (F2), and what is used there is seen (F3).
#[derive(Clone, Debug)]
struct BesideFront(Arc<Front>);

impl Lifecycle<CacheKey, Arc<Block>> for BesideFront {
    /// Mostly one is given up for another.
    type RequestState = (Option<(CacheKey, Arc<Block>)>, Vec<(CacheKey, Arc<Block>)>);

    fn is_pinned(&self, _: &CacheKey, block: &Arc<Block>) -> bool {
        block.wipe_use()
    }

    fn begin_request(&self) -> Self::RequestState {
        (None, Vec::new())
    }

    fn on_evict(&self, (first, more): &mut Self::RequestState, key: CacheKey, block: Arc<Block>) {
        if first.is_none() {
            *first = Some((key, block));
        } else {
            more.push((key, block));
        }
    }

    fn end_request(&self, (first, more): Self::RequestState) {
        first.iter().chain(&more).for_each(|(key, _)| self.0.forget(key));
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

/// Between two steps at the front, for exploration: neither the front's locks nor the cache's are a scheduler's.
#[inline]
fn another_may_go_on() {
    // That mistake is rare, and rarer where there is more to explore.
    #[cfg(seawall_shuttle)]
    if !errs(Misorder::CacheByPlace) {
        shuttle::thread::yield_now();
    }
}

/// The block cache of one store.
#[derive(Debug)]
pub(super) struct Cache {
    blocks: QuickCache<CacheKey, Arc<Block>, ByBytes, Fixed, BesideFront>,
    front: Arc<Front>,
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
        let front = Arc::new(Front::new(bytes));
        let beside = BesideFront(Arc::clone(&front));
        let blocks = match options {
            Ok(options) => QuickCache::with_options(options, ByBytes, Fixed::default(), beside),
            // The builder only refuses when a size is missing, and none is.
            Err(_) => QuickCache::with(items, weight, ByBytes, Fixed::default(), beside),
        };
        let capacity = blocks.capacity();
        Cache { blocks, front, counters: Counters::default(), capacity }
    }

    pub(super) fn get(&self, ptr: &Ptr) -> Option<Arc<Block>> {
        let found = self.find(&CacheKey::of(ptr));
        if let Some(line) = self.counters.mine() {
            let counter = if found.is_some() { &line.hits } else { &line.misses };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    #[inline]
    fn find(&self, key: &CacheKey) -> Option<Arc<Block>> {
        match self.front.look(key) {
            Seen::Block(block) => {
                if !block.note_use() {
                    self.blocks.get(key);
                }
                Some(block)
            }
            Seen::Another => self.blocks.get(key),
            Seen::Nothing => {
                let block = self.blocks.get(key)?;
                another_may_go_on();
                self.front.put(&block);
                #[cfg(seawall_shuttle)]
                if errs(Misorder::KeepUnasked) {
                    return Some(block);
                }
                another_may_go_on();
                if !self.blocks.contains_key(key) {
                    self.front.forget(key);
                }
                Some(block)
            }
        }
    }

    /// Whether it is there; not a use of it.
    pub(super) fn contains(&self, ptr: &Ptr) -> bool {
        self.blocks.contains_key(&CacheKey::of(ptr))
    }

    pub(super) fn insert(&self, block: &Arc<Block>) {
        self.blocks.insert(CacheKey::of(block.ptr()), Arc::clone(block));
    }

    pub(super) fn remove(&self, ptr: &Ptr) {
        let key = CacheKey::of(ptr);
        self.blocks.remove(&key);
        self.front.forget(&key);
    }

    /// Blocks in front that the cache does not have: none while nobody is at it (F2).
    #[cfg(test)]
    pub(super) fn strays(&self) -> usize {
        self.front.all().iter().filter(|block| !self.contains(block.ptr())).count()
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
        for _ in 0..ROUNDS_MAX {
            self.blocks.set_capacity(bytes);
            if self.blocks.weight() <= bytes {
                break;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::super::ptr::{BlockKind, FIRST_BLOCK, GRID};
    use super::*;

    const ROOM: usize = 4 << 20;

    fn block(n: u64, birth: u64) -> Arc<Block> {
        let offset = FIRST_BLOCK + n * GRID;
        let ptr = Ptr { offset, bytes: GRID as u32, checksum: 7, kind: BlockKind::Value, level: 0, birth };
        Arc::new(Block::value(vec![n as u8; GRID as usize], ptr, 1))
    }

    fn has(cache: &Cache, n: u64) -> bool {
        cache.get(block(n, 1).ptr()).is_some_and(|found| found.is(block(n, 1).ptr(), 1))
    }

    #[test]
    fn what_is_in_front_is_in_the_cache_too() {
        let (cache, mut lost) = (Cache::new(ROOM), 0);
        for n in 0..4000 {
            cache.insert(&block(n, 1));
            assert!(has(&cache, n) && has(&cache, n), "{n}");
            // It is used again and again; others come and go.
            if n > 3 && !has(&cache, 3) {
                lost += 1;
                cache.insert(&block(3, 1));
            }
            assert!(cache.bytes() <= (ROOM + 16 * 5000) as u64, "{} bytes after {n}", cache.bytes());
        }
        assert!(lost < 40, "{lost} times in 4000");
        assert_eq!(cache.strays(), 0);
        assert!(cache.front.all().len() > 100);
        assert!(cache.get(block(3, 2).ptr()).is_none(), "a block of another time");
        cache.remove(block(3, 1).ptr());
        assert!(!has(&cache, 3));
        cache.set_capacity(0);
        assert_eq!((cache.bytes(), cache.front.all().len()), (0, 0), "whatever was used goes all the same");
    }

    #[test]
    fn blocks_that_share_a_place_are_all_found() {
        let cache = Cache::new(ROOM);
        let apart = (ROOM as u64 / GRID).next_power_of_two();
        for n in [5, 5 + apart, 5 + 2 * apart] {
            cache.insert(&block(n, 1));
            assert!(has(&cache, n));
        }
        assert!([5, 5 + apart, 5 + 2 * apart].into_iter().all(|n| has(&cache, n)));
        assert_eq!((cache.front.all().len(), cache.strays()), (1, 0));
        cache.remove(block(5, 1).ptr());
        assert!(has(&cache, 5 + apart) && !has(&cache, 5) && has(&cache, 5 + apart));
        assert_eq!((cache.front.all().len(), cache.strays()), (1, 0));
    }

    #[test]
    fn threads_find_blocks_beside_evictions() {
        let cache = Cache::new(ROOM);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let cache = &cache;
                scope.spawn(move || {
                    for step in 0..20_000u64 {
                        let n = step.wrapping_mul(thread * 2 + 7) % 1500;
                        match cache.get(block(n, 1).ptr()) {
                            Some(found) => assert!(found.is(block(n, 1).ptr(), 1)),
                            None => cache.insert(&block(n, 1)),
                        }
                        if step % 997 == 0 {
                            cache.remove(block(n, 1).ptr());
                        }
                    }
                });
            }
        });
        assert_eq!(cache.strays(), 0);
    }
}
