//! Memory for the blocks of a cache: pages from the system, not from the allocator.
//!
//! A block that many threads load and evict lies, in an allocator with a heap for each thread, in the heap of whoever loaded it
//! last: under random reads by 16 threads glibc came to hold 2.4 times the bytes that were in use, and none of it goes back to
//! the system. Here a freed slot is the next one to be taken, by whichever thread; and beyond a reserve its pages go back at
//! once, so that a cache that gives way to something else does so in the operating system's count too.
//!
//! - A1: a slot belongs to one [`BlockBuf`] or [`BlockBytes`](super::BlockBytes) at a time, and comes back when that is dropped.
//! - A2: pieces stay mapped as long as the arena, and each slot that is out keeps the arena.
//! - A3: a slot's bytes are always initialized: new pages are zeros, and so are pages that went back.

#![allow(unsafe_code, reason = "slots are raw addresses; see A1 to A3")]

use super::BLOCK_BYTES;
#[cfg(target_os = "linux")]
use memmap2::Advice;
use memmap2::{MmapMut, MmapRaw, UncheckedAdvice};
use parking_lot::Mutex;
use std::fmt::{self, Debug};
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is asked of the system at a time, in bytes. Pages that were never touched take no memory.
const PIECE_BYTES: usize = 4 << 20;
/// Slots have from one page to so many; whatever is longer comes from the allocator.
const PAGES_MAX: usize = 16;
/// Free slots of one size that keep their pages, in bytes.
const WARM_BYTES: usize = 1 << 20;

/// Memory for blocks of up to 64 KiB, shared by all threads. Bytes that are not in use go back to the system, all but a
/// mebibyte for each of the sizes.
///
/// ```
/// use seawall_wal::disk::{BlockArena, BlockBytes};
/// let arena = BlockArena::new();
/// let mut buf = arena.take(4096);
/// buf[..5].copy_from_slice(b"block");
/// let block = BlockBytes::from(buf); // from here on it never changes
/// assert_eq!((&block[..5], arena.used_bytes()), (&b"block"[..], 4096));
/// drop(block);
/// assert_eq!(arena.used_bytes(), 0);
/// ```
pub struct BlockArena {
    /// By number of pages, from one on.
    sizes: [Mutex<Slots>; PAGES_MAX],
    used: AtomicU64,
}

/// All slots of one size.
#[derive(Default)]
struct Slots {
    pieces: Vec<Piece>,
    /// Bytes of the newest piece that were handed out at least once.
    begun: usize,
    /// Free, with their pages; the last one in is the first one out.
    warm: Vec<Place>,
    /// Free, their pages with the system.
    cold: Vec<Place>,
}

/// A page of the processor's tables for each page of memory is what a random read mostly waits for: so pieces of the most common
/// size are made of large pages, but for the first, for small stores. Once pages of one go back, no new large one is made of it.
struct Piece {
    memory: MmapRaw,
    is_large: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    piece: u32,
    at: u32,
}

impl BlockArena {
    /// One that has taken nothing yet.
    pub fn new() -> Arc<BlockArena> {
        Arc::new(BlockArena { sizes: Default::default(), used: AtomicU64::new(0) })
    }

    /// Memory for `len` bytes, which hold anything. What is too long for a slot, or finds the system short of mappings,
    /// comes from the allocator.
    pub fn take(self: &Arc<Self>, len: usize) -> BlockBuf {
        let pages = len.div_ceil(BLOCK_BYTES);
        let slots = pages.checked_sub(1).and_then(|index| self.sizes.get(index));
        let taken = slots.and_then(|slots| slots.lock().take(pages * BLOCK_BYTES));
        let Some((place, at)) = taken else { return BlockBuf(Memory::Heap(vec![0; len])) };
        self.used.fetch_add((pages * BLOCK_BYTES) as u64, Ordering::Relaxed);
        BlockBuf(Memory::Slot(Slot { at, len, pages, place, arena: Arc::clone(self) }))
    }

    /// Memory that holds a copy of `bytes`.
    pub fn copy_of(self: &Arc<Self>, bytes: &[u8]) -> BlockBuf {
        let mut buf = self.take(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Bytes of the slots that are out.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Debug for BlockArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockArena").field("used", &self.used_bytes()).finish_non_exhaustive()
    }
}

impl Slots {
    fn take(&mut self, bytes: usize) -> Option<(Place, *mut u8)> {
        let place = match self.warm.pop().or_else(|| self.cold.pop()) {
            Some(place) => place,
            None => self.begin(bytes)?,
        };
        // The addition stays within the piece: places are made in `begin` alone.
        let at = self.pieces.get(place.piece as usize)?.memory.as_mut_ptr().wrapping_add(place.at as usize);
        Some((place, at))
    }

    /// A slot that was never handed out.
    fn begin(&mut self, bytes: usize) -> Option<Place> {
        if self.pieces.is_empty() || self.begun + bytes > PIECE_BYTES {
            let memory: MmapRaw = MmapMut::map_anon(PIECE_BYTES).ok()?.into();
            let is_large =
                bytes == BLOCK_BYTES && !self.pieces.is_empty() && ask_for_large_pages(&memory, true);
            self.pieces.push(Piece { memory, is_large });
            self.begun = 0;
        }
        let place = Place { piece: self.pieces.len() as u32 - 1, at: self.begun as u32 };
        self.begun += bytes;
        Some(place)
    }

    fn give_back(&mut self, place: Place, bytes: usize) {
        if self.warm.len() * bytes < WARM_BYTES {
            return self.warm.push(place);
        }
        if let Some(piece) = self.pieces.get_mut(place.piece as usize) {
            if std::mem::take(&mut piece.is_large) {
                ask_for_large_pages(&piece.memory, false);
            }
            // SAFETY: nobody has the slot (A1), so no reference to its bytes is left; they are zeros when they are next looked
            // at (A3). If the system refuses, the pages stay.
            let _ = unsafe {
                piece.memory.unchecked_advise_range(UncheckedAdvice::DontNeed, place.at as usize, bytes)
            };
        }
        self.cold.push(place);
    }
}

/// Only advice: true if the system takes it.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(memory: &MmapRaw, wanted: bool) -> bool {
    memory.advise(if wanted { Advice::HugePage } else { Advice::NoHugePage }).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &MmapRaw, _: bool) -> bool {
    false
}

/// A slot that is out.
pub(super) struct Slot {
    at: *mut u8,
    len: usize,
    pages: usize,
    place: Place,
    arena: Arc<BlockArena>,
}

// SAFETY: whoever has the slot is alone with its bytes (A1), or only reads them.
unsafe impl Send for Slot {}
// SAFETY: a shared slot's bytes are only read.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) fn address(&self) -> *const u8 {
        self.at
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Memory of the same arena.
    pub(super) fn another(&self, len: usize) -> BlockBuf {
        self.arena.take(len)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let bytes = self.pages * BLOCK_BYTES;
        self.arena.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        if let Some(slots) = self.arena.sizes.get(self.pages.saturating_sub(1)) {
            slots.lock().give_back(self.place, bytes);
        }
    }
}

/// Memory for one block, to be filled, and then to become [`BlockBytes`](super::BlockBytes), which nobody changes.
pub struct BlockBuf(pub(super) Memory);

pub(super) enum Memory {
    Heap(Vec<u8>),
    Slot(Slot),
}

impl Deref for BlockBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Heap(bytes) => bytes,
            // SAFETY: the slot has room for `len` initialized bytes (A3), is this buffer's alone (A1), and mapped (A2).
            Memory::Slot(slot) => unsafe { slice::from_raw_parts(slot.at, slot.len) },
        }
    }
}

impl DerefMut for BlockBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Heap(bytes) => bytes,
            // SAFETY: as above, and nobody else has a reference: this one is exclusive.
            Memory::Slot(slot) => unsafe { slice::from_raw_parts_mut(slot.at, slot.len) },
        }
    }
}

impl From<Vec<u8>> for BlockBuf {
    fn from(bytes: Vec<u8>) -> BlockBuf {
        BlockBuf(Memory::Heap(bytes))
    }
}

impl Debug for BlockBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self.0, Memory::Slot(_)) { "slot" } else { "heap" };
        f.debug_struct("BlockBuf").field("len", &self.deref().len()).field("kind", &kind).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;
    use crate::disk::BlockBytes;

    #[test]
    fn a_slot_is_taken_again_and_what_is_too_long_comes_from_the_heap() {
        let arena = BlockArena::new();
        let first = arena.take(4096);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(arena.take(4000).as_ptr(), address, "the last one in");
        let mut buf = arena.take(PAGES_MAX * BLOCK_BYTES);
        assert_eq!(
            (buf.len(), arena.used_bytes()),
            (PAGES_MAX * BLOCK_BYTES, (PAGES_MAX * BLOCK_BYTES) as u64)
        );
        buf.fill(9);
        let long = arena.take(PAGES_MAX * BLOCK_BYTES + 1);
        assert!(matches!(long.0, Memory::Heap(_)) && matches!(arena.take(0).0, Memory::Heap(_)));
        drop(buf);
        assert_eq!(arena.used_bytes(), 0);
    }

    /// However many there are, each is its own; and they outlive the arena's last handle.
    #[test]
    fn slots_do_not_overlap_and_keep_the_arena() {
        let arena = BlockArena::new();
        let mut blocks = Vec::new();
        for n in 0..3 * PIECE_BYTES / BLOCK_BYTES {
            let len = if n % 7 == 0 { 12_000 } else { 4096 };
            let mut buf = arena.take(len);
            buf.fill(n as u8);
            blocks.push((n as u8, len, BlockBytes::from(buf)));
        }
        let is_whole =
            |(n, len, block): &(u8, usize, BlockBytes)| block.len() == *len && block.iter().all(|b| b == n);
        assert!(blocks.iter().all(is_whole));
        drop(arena);
        // Every third is given back and taken anew by another thread.
        let mut at = 0;
        blocks.retain(|_| {
            at += 1;
            at % 3 != 0
        });
        assert!(blocks.iter().all(is_whole));
    }

    #[test]
    fn pages_beyond_the_reserve_go_back_to_the_system() {
        let arena = BlockArena::new();
        let blocks: Vec<BlockBuf> = (0..8 * WARM_BYTES / BLOCK_BYTES)
            .map(|_| {
                let mut buf = arena.take(4096);
                buf.fill(7);
                buf
            })
            .collect();
        drop(blocks);
        let slots = arena.sizes[0].lock();
        assert_eq!(
            (slots.warm.len(), slots.cold.len()),
            (WARM_BYTES / BLOCK_BYTES, 7 * WARM_BYTES / BLOCK_BYTES)
        );
        drop(slots);
        let again: Vec<BlockBuf> = (0..8 * WARM_BYTES / BLOCK_BYTES).map(|_| arena.take(4096)).collect();
        let zeros = again.iter().filter(|buf| buf.iter().all(|byte| *byte == 0)).count();
        assert_eq!(zeros, 7 * WARM_BYTES / BLOCK_BYTES, "what went back is zeros");
    }

    #[test]
    fn threads_take_and_give_back_beside_each_other() {
        let arena = BlockArena::new();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let arena = &arena;
                scope.spawn(move || {
                    let mut held: Vec<BlockBytes> = Vec::new();
                    for n in 0..20_000usize {
                        let mut buf = arena.take(1 + n * 37 % 9000);
                        buf.fill(thread);
                        held.push(buf.into());
                        if held.len() > 300 {
                            let gone = held.swap_remove(n * 31 % 300);
                            assert!(gone.iter().all(|byte| *byte == thread));
                        }
                    }
                });
            }
        });
        assert_eq!(arena.used_bytes(), 0);
    }
}
