//! The data file mapped into memory: blocks that are read where they lie, and who may be looking at them.
//!
//! A block of a mapped file is what any other is, but that its bytes are a view of the mapping (`ReadMode::Mapped`). It
//! is read once by an ordinary read, so that its I/O errors are errors and several can be in flight, its checksum is
//! verified there and in the map, it is parsed, and then *remembered* by its place in the file. From then on a reader finds
//! it by that place alone: no hash, no lock that others want, no copy.
//!
//! A value that a reader was given points into its block, and so into the file, for as long as the reader likes: beyond
//! its snapshot, beyond the store's closing. So bytes must not change while anybody has them:
//!
//! - M1: a view of the mapping exists only within a remembered block (or while one is made, or taken from memory).
//! - M2: only a block of a published generation is remembered, and only while its extent is neither free nor set aside;
//!   both are looked at under the space map's lock, under which the extent's state changes.
//! - M3: what is dead becomes free only when the blocks that stood there are forgotten, and each is forgotten only if
//!   the memory is its last owner: whoever else has it, or a part of it, keeps its extent dead.
//! - And only what is free is written, punched or cut off (S1–S4).
//!
//! After a crash, and when the store is opened anew, nobody has anything: what was kept dead is free. The lock on the
//! file stays until the last view is gone.
//!
//! What is remembered takes memory, some 6 % of what it maps where rows are a hundred bytes long: it has a share of the
//! cache's room, and blocks beyond it, like those that are compressed, go through the cache.

#![warn(clippy::indexing_slicing)]

use super::block::Block;
use super::ptr::{BlockKind, GRID, Ptr};
use super::space::Extent;
use super::{Result, TreeStore};
use crate::sync::RwLock;
use parking_lot::Mutex;
use seawall_wal::disk::{DiskFile, MapPromise, Mapping};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Address space that is taken at a time, at least: it costs nothing until the file grows into it.
const MAP_BYTES_MIN: u64 = 1 << 30;

/// Places in the first shelf of memory, as a power of two; each further one has twice as many.
const FIRST_SHELF: u32 = 10;
const SHELVES: usize = 40;

/// The keyspace under which pieces of streamed values are remembered, whosever they are.
const PIECES_KEYSPACE: u32 = u32::MAX - 2;

/// What a remembered block takes beside its own memory: its `Arc`, its place.
const ENTRY_BYTES: u64 = (size_of::<Block>() + size_of::<Place>() + 16) as u64;

type Place = RwLock<Option<Arc<Block>>>;

/// The file's mapping, and what is remembered of it.
#[derive(Debug)]
pub(super) struct Mapped {
    /// The newest mapping; blocks remembered before have kept theirs.
    map: RwLock<Arc<dyn Mapping>>,
    pub(super) known: Arc<Known>,
    /// Why the file is not mapped any further.
    stopped: OnceLock<String>,
}

/// Blocks by their place in the file.
#[derive(Debug)]
pub(super) struct Known {
    shelves: [OnceLock<Box<[Place]>>; SHELVES],
    /// Memory that they take, and may take.
    heap_bytes: AtomicU64,
    heap_max: AtomicU64,
    /// Bytes of the file that they are.
    mapped_bytes: AtomicU64,
    /// Where forgetting goes on, and one at a time.
    hand: Mutex<u64>,
}

/// The one place where the promise of [`MapPromise`] is made.
mod promise {
    #![allow(unsafe_code, reason = "a mapping needs a promise; see M1 to M3")]

    use super::MapPromise;

    /// For the data file's mapping, views of which only [`super`] makes.
    pub(super) fn made() -> MapPromise {
        // SAFETY: each view is within a block that is remembered (M1), its extent is in use then (M2), and becomes free, and so
        // may be written, punched or cut, only when no owner of it is left (M3).
        unsafe { MapPromise::new() }
    }
}

fn map_file(file: &dyn DiskFile, bytes: u64) -> io::Result<Arc<dyn Mapping>> {
    let ample = bytes.saturating_mul(2).max(MAP_BYTES_MIN).next_multiple_of(GRID);
    let tight = bytes.next_multiple_of(GRID).max(GRID);
    // Address space may be short where the file's own length is to be had.
    file.map(ample, promise::made()).or_else(|_| file.map(tight, promise::made()))
}

impl Mapped {
    /// Maps a file of that length.
    pub(super) fn new(file: &dyn DiskFile, bytes: u64, heap_max: u64) -> io::Result<Mapped> {
        Ok(Mapped {
            map: RwLock::new(map_file(file, bytes)?),
            known: Arc::new(Known::new(heap_max)),
            stopped: OnceLock::new(),
        })
    }

    /// A mapping that reaches as far as `end`. None where there is none to be had: then blocks go through the cache.
    fn reaching(&self, file: &dyn DiskFile, end: u64) -> Option<Arc<dyn Mapping>> {
        let now = Arc::clone(&*self.map.read());
        if now.bytes() >= end || self.stopped.get().is_some() {
            return Some(now).filter(|now| now.bytes() >= end);
        }
        // No lock is held meanwhile: two may map it, and the longer one stays.
        match map_file(file, end) {
            Ok(next) => {
                let mut map = self.map.write();
                if next.bytes() > map.bytes() {
                    *map = Arc::clone(&next);
                }
                Some(next)
            }
            Err(error) => {
                let _ = self.stopped.set(format!("the file could not be mapped beyond {end} bytes: {error}"));
                None
            }
        }
    }

    pub(super) fn why_stopped(&self) -> Option<&str> {
        self.stopped.get().map(String::as_str)
    }
}

impl Known {
    fn new(heap_max: u64) -> Known {
        Known {
            shelves: [const { OnceLock::new() }; SHELVES],
            heap_bytes: AtomicU64::new(0),
            heap_max: AtomicU64::new(heap_max),
            mapped_bytes: AtomicU64::new(0),
            hand: Mutex::new(0),
        }
    }

    /// Which shelf an offset's place is on, and where.
    fn where_is(offset: u64) -> (usize, usize) {
        let number = offset / GRID + (1 << FIRST_SHELF);
        let power = number.ilog2();
        ((power - FIRST_SHELF) as usize, (number - (1 << power)) as usize)
    }

    fn place(&self, offset: u64) -> Option<&Place> {
        let (shelf, place) = Known::where_is(offset);
        self.shelves.get(shelf)?.get()?.get(place)
    }

    /// The block, if it is remembered and is the one that is meant.
    #[inline]
    pub(super) fn get(&self, ptr: &Ptr, keyspace: u32) -> Option<Arc<Block>> {
        self.place(ptr.offset)?.read().as_ref().filter(|block| block.is(ptr, keyspace)).map(Arc::clone)
    }

    /// Remembers a block that is a view of its extent, or gives the one that is remembered already. None if another one is.
    /// To be called under the space map's lock (M2).
    fn remember(&self, block: Arc<Block>, keyspace: u32) -> Option<Arc<Block>> {
        let (shelf, place) = Known::where_is(block.ptr().offset);
        let places = 1usize << (FIRST_SHELF as usize + shelf);
        let shelf = self.shelves.get(shelf)?;
        let shelf = shelf.get_or_init(|| (0..places).map(|_| Place::default()).collect());
        let mut found = shelf.get(place)?.write();
        match &*found {
            Some(other) => Some(Arc::clone(other)).filter(|other| other.is(block.ptr(), keyspace)),
            None => {
                self.heap_bytes.fetch_add(heap_bytes(&block), Ordering::Relaxed);
                self.mapped_bytes.fetch_add(u64::from(block.ptr().bytes), Ordering::Relaxed);
                *found = Some(Arc::clone(&block));
                Some(block)
            }
        }
    }

    /// Forgets the block at a place if nobody else has it. True if none is left there.
    fn forget_at(&self, place: &Place) -> bool {
        let mut found = place.write();
        // Whoever would take another share of it must ask here, and the lock is held.
        if found.as_ref().is_some_and(|block| Arc::strong_count(block) > 1) {
            return false;
        }
        if let Some(block) = found.take() {
            self.heap_bytes.fetch_sub(heap_bytes(&block), Ordering::Relaxed);
            self.mapped_bytes.fetch_sub(u64::from(block.ptr().bytes), Ordering::Relaxed);
        }
        true
    }

    /// Forgets what stands in an extent, so that it can be given out again; but for the blocks that somebody has (M3), which
    /// are returned, in order.
    pub(super) fn let_go(&self, extent: Extent) -> Vec<Extent> {
        let mut held = Vec::new();
        for offset in (extent.offset..extent.end()).step_by(GRID as usize) {
            let Some(place) = self.place(offset).filter(|place| !self.forget_at(place)) else { continue };
            let end = place.read().as_ref().map_or(offset + GRID, |block| block.ptr().end());
            held.push(Extent { offset, bytes: end.min(extent.end()) - offset });
        }
        held
    }

    /// Its room from now on; what is beyond it is forgotten, as far as nobody has it.
    pub(super) fn set_heap_max(&self, bytes: u64) {
        self.heap_max.store(bytes, Ordering::Relaxed);
        let Some(mut hand) = self.hand.try_lock().filter(|_| !self.has_room(0)) else { return };
        let all: u64 = self.shelves.iter().filter_map(OnceLock::get).map(|shelf| shelf.len() as u64).sum();
        for _ in 0..all {
            if self.has_room(bytes / 16) {
                break;
            }
            *hand = (*hand + 1) % all;
            if let Some(place) = self.place(*hand * GRID) {
                self.forget_at(place);
            }
        }
    }

    fn has_room(&self, bytes: u64) -> bool {
        let heap = self.heap_bytes.load(Ordering::Relaxed).saturating_add(bytes);
        heap <= self.heap_max.load(Ordering::Relaxed)
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.heap_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn mapped_bytes(&self) -> u64 {
        self.mapped_bytes.load(Ordering::Relaxed)
    }
}

fn heap_bytes(block: &Block) -> u64 {
    block.memory_bytes() as u64 + ENTRY_BYTES
}

impl TreeStore {
    /// The block whose verified bytes these are, as a view of the mapping, and remembered. None if it is not to be had there.
    pub(super) fn map_in(&self, bytes: &[u8], ptr: &Ptr, keyspace: u32) -> Result<Option<Arc<Block>>> {
        let Some(mapped) = &self.mapped else { return Ok(None) };
        let is_tree = matches!(ptr.kind, BlockKind::Leaf | BlockKind::Inner);
        if is_tree && Block::is_packed(bytes)
            || ptr.birth > self.latest.lock().generation
            || !mapped.known.has_room(0)
        {
            return Ok(None);
        }
        let Some(map) = mapped.reaching(&*self.file, ptr.end()) else { return Ok(None) };
        let view = map.view(ptr.offset, ptr.bytes as usize);
        let view = view.map_err(|error| self.io("read of the mapped", Some(ptr.offset), error))?;
        self.verify_read(ptr, &view, Ok(()))?;
        let block = self.parse(view, ptr, keyspace)?;
        let space = self.space.lock();
        // M2. A pointer of a sound store leads nowhere else.
        if !space.is_in_use(Extent::of(ptr)) {
            return Ok(None);
        }
        Ok(mapped.known.remember(block, keyspace))
    }

    /// A piece of a streamed value, from the mapping. None if it is not to be had there.
    pub(super) fn mapped_piece(&self, ptr: &Ptr) -> Result<Option<Arc<Block>>> {
        let Some(mapped) = &self.mapped else { return Ok(None) };
        match mapped.known.get(ptr, PIECES_KEYSPACE) {
            Some(block) => Ok(Some(block)),
            None if self.space.lock().is_in_use(Extent::of(ptr)) => {
                self.map_in(&self.read_verified(ptr)?, ptr, PIECES_KEYSPACE)
            }
            None => Ok(None),
        }
    }

    /// Whether the data file is mapped; and if it was to be and is not, or not as a whole, why.
    pub(crate) fn mapped_state(&self) -> (bool, Option<String>) {
        let stopped = self.mapped.as_ref().and_then(Mapped::why_stopped);
        (self.mapped.is_some(), stopped.or(self.why_unmapped.as_deref()).map(str::to_owned))
    }

    /// A test's deliberate mistake: extents are used again while somebody has views of them.
    pub(crate) fn reuse_mapped(&self) {
        self.space.lock().known = None;
    }
}
