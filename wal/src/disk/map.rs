//! Files mapped into memory for reading, and bytes that are either a mapping's or their own.
//!
//! A mapping shows the page cache itself: nothing is copied, and nothing is asked of the system. What that costs: whoever
//! changes the file changes the bytes under a reader's eyes, an I/O error or a file cut short is a signal (SIGBUS), and a page
//! may be dropped and read back, damaged by then, long after its checksum was right. So
//!
//! - P1: whoever maps a file promises ([`MapPromise`]) that no byte is changed, punched or cut off while there is a view of
//!   it. Bytes of which there is no view are anybody's.
//! - P2: a view lies within its mapping and keeps it; no reference is ever made to the mapping as a whole.
//!
//! P1 is what makes a view's bytes a `&[u8]`; processes that write to a store's files without its lock are outside it.

#![allow(unsafe_code, reason = "mapped bytes are raw addresses; see P1 and P2")]

use super::arena::{BlockBuf, Memory, Slot};
use rustix::fd::OwnedFd;
use std::any::Any;
use std::fmt::{self, Debug};
use std::io;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

/// The promise that whoever maps a file makes (P1).
#[derive(Debug)]
pub struct MapPromise(());

impl MapPromise {
    /// Makes it.
    ///
    /// # Safety
    /// No byte of the mapped file is written, punched or cut off while a [`BlockBytes`] that was viewed there includes it,
    /// by nobody who keeps to the file's lock.
    pub unsafe fn new() -> MapPromise {
        MapPromise(())
    }
}

/// A file that is mapped for reading; [`DiskFile::map`](super::DiskFile::map) makes it. It stays as long as it or one of its
/// views does, and shows what is written later too.
pub trait Mapping: Debug + Send + Sync {
    /// Bytes from the file's beginning that views can be had of. The file may be shorter: see [`view`](Mapping::view).
    fn bytes(&self) -> u64;

    /// The bytes from `offset` on, which must be in the file: to look at what is behind its end is a signal.
    ///
    /// # Errors
    /// `UnexpectedEof` behind the mapping's end. A simulated disk reads now, so also what a read of the range gives.
    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<BlockBytes>;
}

/// Bytes that never change: a part of a mapped file, a slot of an [arena](super::BlockArena), or their own. One kind of reference
/// for all of them, so that readers need not ask which.
pub struct BlockBytes {
    at: *const u8,
    len: usize,
    keeper: Keeper,
}

enum Keeper {
    /// The bytes themselves, and whoever wants to know when they go.
    Own(Vec<u8>, #[allow(dead_code, reason = "kept to be dropped")] Option<Box<dyn Any + Send + Sync>>),
    Slot(Slot),
    Map(#[allow(dead_code, reason = "keeps the addresses valid (P2)")] Arc<OsMapping>),
}

// SAFETY: the bytes at `at` are only read, whoever owns them is Send and Sync, and nothing changes them (P1; a vector that
// is owned here is never handed out).
unsafe impl Send for BlockBytes {}
// SAFETY: as above.
unsafe impl Sync for BlockBytes {}

impl BlockBytes {
    /// A copy; `guard` is dropped with it. For disks that map nothing and yet are asked to.
    pub fn copied(bytes: Vec<u8>, guard: Box<dyn Any + Send + Sync>) -> BlockBytes {
        BlockBytes { at: bytes.as_ptr(), len: bytes.len(), keeper: Keeper::Own(bytes, Some(guard)) }
    }

    /// Bytes of memory, its own or an arena's, that this holds.
    pub fn memory_bytes(&self) -> usize {
        match &self.keeper {
            Keeper::Own(bytes, None) => bytes.len(),
            Keeper::Slot(slot) => slot.len(),
            // A simulated mapping's copy stands for what would be mapped.
            Keeper::Own(_, Some(_)) | Keeper::Map(_) => 0,
        }
    }
}

impl BlockBytes {
    /// Memory for `len` bytes, from the arena that these come from, if they do.
    pub fn another(&self, len: usize) -> BlockBuf {
        match &self.keeper {
            Keeper::Slot(slot) => slot.another(len),
            Keeper::Own(..) | Keeper::Map(_) => BlockBuf::from(vec![0; len]),
        }
    }
}

impl From<BlockBuf> for BlockBytes {
    fn from(buf: BlockBuf) -> BlockBytes {
        match buf.0 {
            Memory::Heap(bytes) => bytes.into(),
            Memory::Slot(slot) => {
                BlockBytes { at: slot.address(), len: slot.len(), keeper: Keeper::Slot(slot) }
            }
        }
    }
}

impl From<Vec<u8>> for BlockBytes {
    fn from(bytes: Vec<u8>) -> BlockBytes {
        BlockBytes { at: bytes.as_ptr(), len: bytes.len(), keeper: Keeper::Own(bytes, None) }
    }
}

impl Deref for BlockBytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `at` and `len` are those of the vector or the slot in `keeper`, whose memory does not move with it and which is
        // never changed; or a range that `OsMapping::view` has found within the mapping that `keeper` keeps mapped (P2), and that
        // nobody changes while this lives (P1). Page faults fill it with initialized bytes, or end in a signal.
        unsafe { slice::from_raw_parts(self.at, self.len) }
    }
}

impl Debug for BlockBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if matches!(self.keeper, Keeper::Map(_)) { "mapped" } else { "owned" };
        f.debug_struct("BlockBytes").field("len", &self.len).field("kind", &kind).finish()
    }
}

/// A mapping by the operating system.
#[derive(Debug)]
pub(super) struct OsMapping {
    map: memmap2::MmapRaw,
    #[allow(dead_code, reason = "kept to be dropped")]
    lock: Arc<dyn LockKeeper>,
}

/// Whatever keeps a file locked.
pub(super) trait LockKeeper: Debug + Send + Sync {}

impl OsMapping {
    /// Maps so many bytes of `file`, which may be longer or shorter, and keeps `lock`.
    pub(super) fn new(
        file: &OwnedFd,
        lock: Arc<dyn LockKeeper>,
        bytes: u64,
        _promise: MapPromise,
    ) -> io::Result<OsMapping> {
        let len = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        memmap2::MmapOptions::new().len(len).map_raw_read_only(file).map(|map| OsMapping { map, lock })
    }
}

impl Mapping for OsMapping {
    fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<BlockBytes> {
        let start = usize::try_from(offset).ok();
        let fits = |start: &usize| start.checked_add(len).is_some_and(|end| end <= self.map.len());
        let Some(start) = start.filter(fits) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        // No reference is made here, and the addition stays within the mapping: it was just looked at.
        let at = self.map.as_ptr().wrapping_add(start);
        Ok(BlockBytes { at, len, keeper: Keeper::Map(self) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::disk::{Disk, Open, OsDisk};
    use std::sync::Barrier;

    #[test]
    fn owned_bytes_are_as_they_were_and_tell_when_they_go() {
        let bytes = BlockBytes::from(b"abc".to_vec());
        assert_eq!((&*bytes, bytes.memory_bytes()), (&b"abc"[..], 3));
        let guard = Arc::new(());
        let copied = BlockBytes::copied(b"de".to_vec(), Box::new(Arc::clone(&guard)));
        assert_eq!((&*copied, Arc::strong_count(&guard), copied.memory_bytes()), (&b"de"[..], 2, 0));
        drop(copied);
        assert_eq!(Arc::strong_count(&guard), 1);
        assert!(BlockBytes::from(Vec::new()).is_empty());
    }

    /// Threads look at views that outlive the mapping's maker, while the rest of the file is written and it grows.
    #[test]
    fn views_stay_while_the_file_around_them_changes() {
        let dir = std::env::temp_dir().join(format!("seawall-map-{}", std::process::id()));
        let disk = OsDisk::new();
        disk.create_dir(&dir).unwrap();
        let path = dir.join("file");
        let _ = disk.remove(&path);
        let file = disk.open(&path, Open::CreateNew).unwrap();
        let block = |n: u64| vec![n as u8; 4096];
        for n in 0..16 {
            file.write_at(&block(n), n * 4096).unwrap();
        }
        // SAFETY: below only blocks are written of which there is no view.
        let map = file.map(1 << 20, unsafe { MapPromise::new() }).unwrap();
        assert_eq!(map.bytes(), 1 << 20);
        assert!(Arc::clone(&map).view((1 << 20) - 4095, 4096).is_err());
        assert!(Arc::clone(&map).view(u64::MAX, 4096).is_err());
        let views: Vec<BlockBytes> = (0..8).map(|n| Arc::clone(&map).view(n * 4096, 4096).unwrap()).collect();
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..200 {
                        for (n, view) in views.iter().enumerate() {
                            assert!(view.iter().all(|byte| *byte == n as u8));
                        }
                    }
                });
            }
            barrier.wait();
            for n in 8..64 {
                file.write_at(&block(n), n * 4096).unwrap();
            }
            file.punch(9 * 4096, 4096).unwrap();
        });
        // What is written behind the old end shows in the same mapping.
        let late = map.view(63 * 4096, 4096).unwrap();
        drop(file);
        assert!(late.iter().all(|byte| *byte == 63));
        drop((views, late));
        disk.remove(&path).unwrap();
    }
}
