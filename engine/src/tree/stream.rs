//! Values in extents of their own, written before the commit that puts them: streamed in and out in bounded memory.
//!
//! ```text
//! stream: take an extent, set aside ─► write a piece ─► … ─► sync ─► the log record may name the pieces ─► a fold puts
//!         them into a tree, or buries those that were replaced before it came
//! ```
//!
//! A value is cut into *pieces* of at most [`PIECE_BYTES_MAX`], each in an extent and with a checksum of its own. So
//! that no more than a piece is ever held in memory, and a value needs no long run of free space.
//!
//! - V1: a value's pieces are on the device before a record that names them has its place in the log.
//! - V2: they belong to their [`LargeValue`] until then: the last one that is dropped gives them back. Once a record may
//!   name them only a fold buries them, as it does any block: S1 and S2 keep them for the older superblock, whose
//!   replay needs them, and for readers. They count as born in the newest generation of when they were written.
//! - S4: after a crash they are free unless a record names them.

use super::block::HEADER_BYTES;
use super::bytes::u64_at;
use super::ptr::{BlockKind, Flaw, GRID, PTR_BYTES, Ptr};
use super::space::Extent;
use super::{Error, Result, TreeStore, VALUE_BYTES_MAX};
use seawall_wal::Slice;
use seawall_wal::error::is_disk_full;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The longest piece of a streamed value, in bytes: what a reader holds.
pub(crate) const PIECE_BYTES_MAX: usize = 1 << 20;

/// A free extent shorter than this is left to others, unless the value needs no more.
const PIECE_BYTES_MIN: u64 = 64 << 10;

/// The longest list of pieces, in bytes: of a value of the greatest length in pieces of one grid block each.
pub(super) const LIST_BYTES_MAX: u32 = (VALUE_BYTES_MAX as u64 / GRID * PTR_BYTES as u64 + GRID) as u32;

const _: () = assert!(HEADER_BYTES > 8, "a list of pieces is no block with a header");

/// A value in extents of its own: its length and a pointer to each piece, as a log record has them.
#[derive(Clone)]
pub struct LargeValue {
    /// Length (8), pointers (32 each): checked.
    bytes: Slice,
    hold: Option<Arc<Hold>>,
}

/// Where a row's value is.
pub(crate) enum Located {
    /// In memory, or in a block that was read.
    Here(Slice),
    /// In extents of its own, of which nothing was read.
    Apart(LargeValue),
}

/// Extents that are set aside, until the last who knows of them is gone or a record may name them (V2).
#[derive(Debug)]
struct Hold {
    store: Arc<TreeStore>,
    extents: Vec<Extent>,
    is_named: Arc<AtomicBool>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.is_named.load(Ordering::Acquire) {
            return;
        }
        for extent in &self.extents {
            if let Err(flaw) = self.store.space.lock().give_up(*extent) {
                self.store.fail(self.store.corruption(extent.offset, flaw));
            }
        }
    }
}

impl std::fmt::Debug for LargeValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LargeValue").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl PartialEq for LargeValue {
    fn eq(&self, other: &LargeValue) -> bool {
        *self.bytes == *other.bytes
    }
}

impl Eq for LargeValue {}

impl LargeValue {
    //= docs/format/data.md#values
    /// From a record's bytes, or a list's: what can be checked without the file is.
    pub(crate) fn decode(bytes: Slice) -> Result<LargeValue, Flaw> {
        let len = u64_at(&bytes, 0);
        let pointers = bytes.get(8..).unwrap_or_default();
        if pointers.is_empty() || pointers.len() % PTR_BYTES != 0 {
            return Err("a value's list of pieces is none".to_owned());
        }
        let mut total = 0u64;
        for pointer in pointers.chunks(PTR_BYTES) {
            let ptr = Ptr::decode(pointer)?;
            if ptr.kind != BlockKind::Value {
                return Err(format!("a value's piece is a {:?} block", ptr.kind));
            }
            total = total.saturating_add(u64::from(ptr.bytes));
        }
        if len == 0 || len > VALUE_BYTES_MAX as u64 || len.next_multiple_of(GRID) != total {
            return Err(format!("a value of {len} bytes has pieces of {total}"));
        }
        Ok(LargeValue { bytes, hold: None })
    }

    /// A value in one extent.
    pub(super) fn sole(len: u64, ptr: &Ptr) -> LargeValue {
        let bytes = Slice::from([&len.to_le_bytes()[..], &ptr.encode()].concat());
        LargeValue { bytes, hold: None }
    }

    /// As a record has it.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// Its length in bytes, never 0.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> u64 {
        u64_at(&self.bytes, 0)
    }

    fn pointers(&self) -> &[u8] {
        self.bytes.get(8..).unwrap_or_default()
    }

    pub(crate) fn pieces_count(&self) -> usize {
        self.pointers().len() / PTR_BYTES
    }

    pub(crate) fn piece(&self, index: usize) -> Option<Ptr> {
        Ptr::decode(self.pointers().get(index * PTR_BYTES..)?).ok()
    }

    /// In the order of the value's bytes.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Ptr> + '_ {
        self.pointers().chunks(PTR_BYTES).filter_map(|pointer| Ptr::decode(pointer).ok())
    }

    /// No two values have it in common.
    pub(super) fn first_offset(&self) -> u64 {
        u64_at(&self.bytes, 8)
    }

    pub(super) fn sole_piece(&self) -> Option<Ptr> {
        if self.pieces_count() == 1 { self.piece(0) } else { None }
    }

    /// The bytes of the block that lists its pieces.
    pub(super) fn list(&self) -> Vec<u8> {
        let count = self.pieces_count() as u64;
        [&count.to_le_bytes()[..], self.pointers()].concat()
    }

    /// What to set before a record that names it gets its place in the log.
    pub(crate) fn naming(&self) -> Option<Arc<AtomicBool>> {
        self.hold.as_ref().map(|hold| Arc::clone(&hold.is_named))
    }
}

fn ends_early(read: u64, len: u64) -> Error {
    Error::BadInput(format!("the value ends after {read} of {len} bytes"))
}

fn goes_on(len: u64) -> Error {
    Error::BadInput(format!("the value goes on after {len} bytes"))
}

/// The syncs of a file whose outcome is not known yet, numbered as they begin.
#[derive(Debug, Default)]
pub(super) struct Syncs {
    next: u64,
    open: BTreeSet<u64>,
}

impl Syncs {
    fn begin(&mut self) -> u64 {
        self.next += 1;
        self.open.insert(self.next);
        self.next
    }

    /// All that have begun by now have lower numbers than what this returns.
    fn end(&mut self, number: u64) -> u64 {
        self.open.remove(&number);
        self.next + 1
    }

    fn is_open_before(&self, end: u64) -> bool {
        self.open.first().is_some_and(|first| *first < end)
    }
}

/// Counts as a stream: the file is not cut meanwhile.
struct Streaming<'a>(&'a TreeStore);

impl<'a> Streaming<'a> {
    fn begin(store: &'a TreeStore) -> Result<Streaming<'a>> {
        while !store.space.lock().begin_stream() {
            // A cut is one short call; under simulation whoever makes it runs during this one.
            store.file.len().map_err(|error| store.io("length", None, error))?;
        }
        Ok(Streaming(store))
    }
}

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.space.lock().end_stream();
    }
}

impl TreeStore {
    /// Writes a value of `len` bytes, at least one, in pieces of at most `piece_bytes`, and syncs it (V1).
    ///
    /// # Errors
    /// `BadInput` if the source has fewer bytes, or more; `Io` if it fails, or the file does: the store remembers the
    /// latter (T2); `NoSpace`. Nothing is left behind.
    pub(crate) fn stream(
        self: &Arc<Self>,
        len: u64,
        piece_bytes: usize,
        source: &mut dyn Read,
    ) -> Result<LargeValue> {
        self.check_usable()?;
        // Taken before the first extent, and what is born earlier is kept longer. A fold that has published, and repeated that, is up to
        // two generations ahead of the root that readers begin with: they must not be older than what they read.
        let birth = self.latest.lock().generation.saturating_sub(2);
        let _streaming = Streaming::begin(self)?;
        let mut hold =
            Hold { store: Arc::clone(self), extents: Vec::new(), is_named: Arc::new(AtomicBool::new(false)) };
        let mut encoded = len.to_le_bytes().to_vec();
        let mut buffer = self.zeroed(piece_bytes.next_multiple_of(GRID as usize))?;
        let mut left = len;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let filled = self.fill(source, buffer.get_mut(..wanted).unwrap_or_default())?;
            if filled < wanted {
                return Err(ends_early(len - left + filled as u64, len));
            }
            let padded = wanted.next_multiple_of(GRID as usize);
            buffer.get_mut(wanted..padded).unwrap_or_default().fill(0);
            self.write_pieces(&mut hold, buffer.get(..padded).unwrap_or_default(), birth, &mut encoded)?;
            left -= wanted as u64;
        }
        if self.fill(source, &mut [0])? > 0 {
            return Err(goes_on(len));
        }
        if !self.is_stream_unsynced.load(Ordering::Relaxed) {
            self.sync_blocks()?;
        }
        let mut value = LargeValue::decode(Slice::from(encoded)).map_err(|flaw| self.corruption(0, flaw))?;
        value.hold = Some(Arc::new(hold));
        Ok(value)
    }

    /// A short value of `len` bytes, as a whole.
    ///
    /// # Errors
    /// As [`stream`](Self::stream), for the source's sake.
    pub(crate) fn read_source(&self, len: u64, source: &mut dyn Read) -> Result<Slice> {
        let mut bytes = vec![0; len as usize];
        let filled = self.fill(source, &mut bytes)? as u64;
        if filled < len {
            return Err(ends_early(filled, len));
        }
        if self.fill(source, &mut [0])? > 0 {
            return Err(goes_on(len));
        }
        Ok(Slice::from(bytes))
    }

    /// Reads until the buffer is full or the source ends.
    fn fill(&self, source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match source.read(rest) {
                Ok(0) => break,
                Ok(read) => filled += read.min(rest.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io("read of the source of a value for", None, error)),
            }
        }
        Ok(filled)
    }

    fn write_pieces(
        &self,
        hold: &mut Hold,
        mut bytes: &[u8],
        birth: u64,
        encoded: &mut Vec<u8>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            let wanted = bytes.len() as u64;
            let min = wanted.min(PIECE_BYTES_MIN);
            let growth = wanted.max(self.growth());
            let extent = self.extent_by(min, growth, |space, must| space.take_aside(min, wanted, must))?;
            hold.extents.push(extent);
            let (piece, rest) = bytes.split_at((extent.bytes as usize).min(bytes.len()));
            self.file.write_at(piece, extent.offset).map_err(|error| {
                if is_disk_full(&error) {
                    Error::NoSpace
                } else {
                    self.fail(self.io("write", Some(extent.offset), error))
                }
            })?;
            let ptr = Ptr {
                offset: extent.offset,
                bytes: piece.len() as u32,
                checksum: crc32fast::hash(piece),
                kind: BlockKind::Value,
                level: 0,
                birth,
            };
            encoded.extend_from_slice(&ptr.encode());
            bytes = rest;
        }
        Ok(())
    }

    /// Syncs what was written so far. Of several syncs at once, one that fails may take the pages of all with it and
    /// leave the others to succeed: so whoever succeeds waits for the outcome of all that began before its end, and
    /// fails with them (T2).
    pub(super) fn sync_blocks(&self) -> Result<()> {
        let end = self.sync_once()?;
        while self.syncs.lock().is_open_before(end) {
            // This takes as long as the others do. It is a sync like theirs: it may fail, and take pages with it.
            self.sync_once()?;
        }
        self.check_usable()
    }

    /// One sync; when it has ended, in the count of syncs.
    fn sync_once(&self) -> Result<u64> {
        let number = self.syncs.lock().begin();
        let synced = self.file.sync_data().map_err(|error| self.fail(self.io("sync", None, error)));
        // After the failure is known: whoever sees that no outcome is open sees it.
        let end = self.syncs.lock().end(number);
        synced.map(|()| end)
    }

    //= docs/format/data.md#values
    /// The value whose pieces are listed there.
    pub(super) fn large_value(&self, len: u64, list: &Ptr) -> Result<LargeValue> {
        let block = self.read_verified(list)?;
        let count = usize::try_from(u64_at(&block, 0)).unwrap_or(usize::MAX);
        let end = count.checked_mul(PTR_BYTES).and_then(|bytes| bytes.checked_add(8));
        let pointers = end.and_then(|end| block.get(8..end));
        let value = match pointers {
            Some(pointers) => LargeValue::decode(Slice::from([&len.to_le_bytes()[..], pointers].concat())),
            None => Err(format!("a list of {count} pieces does not fit in {} bytes", block.len())),
        };
        value.map_err(|flaw| self.corruption(list.offset, flaw))
    }

    /// A whole value.
    pub(crate) fn read_large(&self, value: &LargeValue) -> Result<Slice> {
        let mut bytes = Vec::with_capacity(value.len().next_multiple_of(GRID) as usize);
        for ptr in value.pieces() {
            bytes.extend_from_slice(&self.read_piece(&ptr)?);
        }
        bytes.truncate(value.len() as usize);
        Ok(Slice::from(bytes))
    }

    /// One piece, its checksum verified.
    pub(crate) fn read_piece(&self, ptr: &Ptr) -> Result<Slice> {
        match self.mapped_piece(ptr)? {
            Some(block) => Ok(Slice::new(block, 0..ptr.bytes as usize)),
            None => self.read_verified(ptr).map(Slice::from),
        }
    }

    /// Redo: a record names this value (S4).
    pub(crate) fn set_aside(&self, value: &LargeValue) -> Result<()> {
        let mut space = self.space.lock();
        for ptr in value.pieces() {
            space.set_aside(Extent::of(&ptr)).map_err(|flaw| self.corruption(ptr.offset, flaw))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While one sync was on its way, another, which had only been waiting for it by a sync more, failed and took its
    /// pages: that one must be waited for as well, and nobody for ever.
    #[test]
    fn a_sync_waits_for_whoever_could_take_its_pages() {
        let mut syncs = Syncs::default();
        let (stream, fold) = (syncs.begin(), syncs.begin());
        let stream_end = syncs.end(stream);
        assert!(syncs.is_open_before(stream_end), "the fold's");
        let again = syncs.begin();
        let fold_end = syncs.end(fold);
        assert!(syncs.is_open_before(fold_end), "the stream's second one began before the fold's end");
        assert!(!syncs.is_open_before(stream_end), "the stream waits no longer, its own is not in its way");
        let later = syncs.begin();
        let _ = syncs.end(again);
        assert!(!syncs.is_open_before(fold_end), "what begins behind its end finds its pages written");
        let end = syncs.end(later);
        assert!(!syncs.is_open_before(end));
    }
}
