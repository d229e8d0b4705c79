//! The bytes of a tree block: leaves and inner blocks share one layout.
//!
//! ```text
//! header (40 bytes) | prefix | slots: one offset an entry | entries in key order, back to back | zeros to the end
//! entry: suffix length u16 | form u16 | suffix | payload
//! ```
//!
//! The prefix is what all keys of the block begin with, stored once; an entry holds the rest of its key. The *form*
//! says what the payload is: a value's bytes, a pointer to a value kept apart, in a run that the row is removed or added
//! to, or (inner blocks) a pointer to a child. An inner entry's key is a *separator*: every key of that child and of those after it is at or above it;
//! the first child also takes whatever is below its separator.
//!
//! [`Block::parse`] checks all that can be checked without other blocks: after it, every entry lies in the block and
//! keys ascend strictly. So the accessors need no errors; an index beyond the count gives empty bytes.

#![warn(clippy::indexing_slicing)]

use super::bytes::{array_at, put, u16_at, u32_at, u64_at};
use super::codec::decompress;
use super::ptr::{BlockKind, Flaw, PTR_BYTES, Ptr};
use super::stream::LIST_BYTES_MAX;
use crate::memory::Charge;
use crate::number::NUMBER_BYTES;
use seawall_wal::disk::BlockBytes;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Atomic};

/// The size that blocks are packed to; one grid block. Larger only if a single entry does not fit.
pub(super) const TARGET_BYTES: usize = seawall_wal::disk::BLOCK_BYTES;

/// The longest value that stands in its leaf: two rows of that size fill a leaf. A longer one gets an extent of its
/// own, which stays where it is when its neighbours change.
pub(super) const VALUE_INLINE_MAX: usize = 1984;

/// Bytes of a tree block's header.
pub(super) const HEADER_BYTES: usize = 40;

/// Blocks longer than this have slots of four bytes instead of two.
pub(super) const NARROW_BYTES_MAX: usize = 1 << 16;

/// Bytes of an entry beside its suffix and payload.
pub(super) const ENTRY_HEADER_BYTES: usize = 4;

/// Forms up to this one are the length of a value that follows.
const FORM_INLINE_MAX: u16 = 0x7fff;
/// A value in an extent: its length (u64) and its pointer.
pub(super) const FORM_EXTENT: u16 = 0x8001;
/// A value in several extents: its length (u64), and a pointer to the block that lists them.
pub(super) const FORM_PIECES: u16 = 0x8002;
/// A pointer to a child.
pub(super) const FORM_CHILD: u16 = 0x8003;
/// In a run: the row is removed, whatever lies below. No payload.
pub(super) const FORM_REMOVED: u16 = 0x8004;
/// In a run: a number (i64) that is added to what lies below.
pub(super) const FORM_ADDED: u16 = 0x8005;

/// Bytes of the payload of a value kept apart.
pub(super) const EXTENT_PAYLOAD_BYTES: usize = 8 + PTR_BYTES;

const MAGIC: [u8; 4] = *b"SwBk";

/// What a block's header says; it names misdirected and stale blocks, and lets a lost file be searched for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: BlockKind,
    pub(super) level: u8,
    pub(super) prefix_bytes: u16,
    pub(super) count: u32,
    pub(super) keyspace: u32,
    pub(super) birth: u64,
    pub(super) offset: u64,
    pub(super) used: u32,
    /// How what is behind the header was compressed, and its length before; none where it was not.
    pub(super) packed: Option<(u8, u32)>,
}

/// The longest leaf or inner block before it is compressed, and after: two separators of the greatest length fit with room
/// to spare.
pub(super) const BLOCK_BYTES_MAX: usize = 1 << 20;

impl Header {
    pub(super) fn encode(&self, block: &mut [u8]) {
        put(block, 0, &MAGIC);
        put(block, 4, &[self.kind as u8, self.level]);
        put(block, 6, &self.prefix_bytes.to_le_bytes());
        put(block, 8, &self.count.to_le_bytes());
        put(block, 12, &self.keyspace.to_le_bytes());
        put(block, 16, &self.birth.to_le_bytes());
        put(block, 24, &self.offset.to_le_bytes());
        put(block, 32, &self.used.to_le_bytes());
        // Lengths are below 2^24.
        let (codec, plain) = self.packed.unwrap_or_default();
        put(block, 36, &(u32::from(codec) << 24 | plain).to_le_bytes());
    }

    //= docs/format/data.md#block-header
    /// Reads a block's header and holds it against the pointer that led here.
    pub(super) fn decode(block: &[u8], ptr: &Ptr, keyspace: u32) -> Result<Header, Flaw> {
        if array_at(block, 0) != MAGIC {
            return Err("no block begins here: the magic is wrong".to_owned());
        }
        let header = Header {
            kind: ptr.kind,
            level: ptr.level,
            prefix_bytes: u16_at(block, 6),
            count: u32_at(block, 8),
            keyspace: u32_at(block, 12),
            birth: u64_at(block, 16),
            offset: u64_at(block, 24),
            used: u32_at(block, 32),
            packed: match u32_at(block, 36) {
                0 => None,
                packed => Some(((packed >> 24) as u8, packed & 0xff_ffff)),
            },
        };
        if array_at(block, 4) != [ptr.kind as u8, ptr.level] {
            let [kind, level] = array_at(block, 4);
            return Err(format!(
                "a block of kind {kind} and level {level} where a {:?} of level {} belongs",
                ptr.kind, ptr.level
            ));
        }
        if header.offset != ptr.offset {
            return Err(format!("the block that belongs at {} was written here", header.offset));
        }
        if header.birth != ptr.birth {
            return Err(format!("a block of generation {} where one of {} belongs", header.birth, ptr.birth));
        }
        if header.keyspace != keyspace {
            return Err(format!("a block of keyspace {} in keyspace {keyspace}", header.keyspace));
        }
        if header.used as usize > block.len() || (header.used as usize) < HEADER_BYTES {
            return Err(format!("the header claims {} bytes of {}", header.used, block.len()));
        }
        if let Some((codec, plain)) = header.packed
            && (ptr.kind != BlockKind::Leaf || codec == 0 || HEADER_BYTES + plain as usize > BLOCK_BYTES_MAX)
        {
            return Err(format!("the header claims {plain} bytes compressed by method {codec}"));
        }
        Ok(header)
    }
}

//= docs/format/data.md#compressed-leaves
/// The block before it was compressed; its header then says so.
fn unpacked(bytes: BlockBytes, header: &mut Header) -> Result<BlockBytes, Flaw> {
    let Some((codec, plain)) = header.packed.take() else { return Ok(bytes) };
    let mut block = bytes.another(HEADER_BYTES + plain as usize);
    let packed = bytes.get(HEADER_BYTES..header.used as usize).unwrap_or_default();
    let (head, rest) = block.split_at_mut(HEADER_BYTES);
    decompress(codec, packed, rest)?;
    header.used = (HEADER_BYTES + rest.len()) as u32;
    header.encode(head);
    Ok(block.into())
}

/// What an entry holds beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// A value, here in the block.
    Inline(Range<usize>),
    /// A value of `len` bytes in an extent of its own.
    Extent { len: u64, ptr: Ptr },
    /// A value of `len` bytes in the extents that are listed there.
    Pieces { len: u64, ptr: Ptr },
    /// A block of the level below.
    Child(Ptr),
    /// In a run: no row, whatever lies below.
    Removed,
    /// In a run: the row below, and so much more.
    Added(i64),
}

impl Payload {
    /// Bytes of the value.
    pub(super) fn value_bytes(&self) -> u64 {
        match self {
            Payload::Inline(range) => range.len() as u64,
            Payload::Extent { len, .. } | Payload::Pieces { len, .. } => *len,
            Payload::Added(_) => NUMBER_BYTES as u64,
            Payload::Child(_) | Payload::Removed => 0,
        }
    }

    /// Whether it leads to a value in extents of its own.
    pub(super) fn is_apart(&self) -> bool {
        matches!(self, Payload::Extent { .. } | Payload::Pieces { .. })
    }
}

/// A verified block in memory: a leaf, an inner block, or a value's bytes.
#[derive(Debug)]
pub(super) struct Block {
    bytes: BlockBytes,
    ptr: Ptr,
    keyspace: u32,
    count: usize,
    prefix: Range<usize>,
    slots: usize,
    wide: bool,
    /// It was used since the cache's hand passed, and the cache knows (F3).
    is_used: AtomicBool,
    /// What each entry's suffix begins with: a search compares these, which lie side by side, and mostly needs to look
    /// at a single entry.
    heads: Box<[u32]>,
    /// Its memory, until it is gone.
    #[allow(dead_code, reason = "kept to be dropped")]
    charge: Option<Charge>,
}

/// The first four bytes of a suffix, as a number: of two suffixes the lower never has the higher head.
fn head(suffix: &[u8]) -> u32 {
    match suffix.first_chunk::<4>() {
        Some(bytes) => u32::from_be_bytes(*bytes),
        None => suffix
            .iter()
            .enumerate()
            .fold(0, |head, (index, byte)| head | u32::from(*byte) << (24 - 8 * index)),
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Block {
    //= docs/format/data.md#values
    /// A value's extent, whose checksum the caller has verified.
    pub(super) fn value(bytes: impl Into<BlockBytes>, ptr: Ptr, keyspace: u32) -> Block {
        Block {
            bytes: bytes.into(),
            ptr,
            keyspace,
            count: 0,
            prefix: 0..0,
            slots: 0,
            wide: false,
            is_used: AtomicBool::new(false),
            heads: [].into(),
            charge: None,
        }
    }

    /// Whether a leaf or an inner block is compressed.
    pub(super) fn is_packed(bytes: &[u8]) -> bool {
        u32_at(bytes, 36) != 0
    }

    //= docs/format/data.md#leaves-and-inner-blocks
    /// A leaf or an inner block, whose checksum the caller has verified.
    pub(super) fn parse(bytes: impl Into<BlockBytes>, ptr: Ptr, keyspace: u32) -> Result<Block, Flaw> {
        let bytes = bytes.into();
        let mut header = Header::decode(&bytes, &ptr, keyspace)?;
        let bytes = unpacked(bytes, &mut header)?;
        let wide = bytes.len().next_multiple_of(TARGET_BYTES) > NARROW_BYTES_MAX;
        let count = header.count as usize;
        let slots = HEADER_BYTES + usize::from(header.prefix_bytes);
        let slots_end = count.checked_mul(if wide { 4 } else { 2 }).and_then(|slot| slot.checked_add(slots));
        let used = header.used as usize;
        if count == 0 || slots_end.is_none_or(|end| end > used) {
            return Err(format!("{count} entries do not fit in {used} bytes"));
        }
        let (prefix, is_used, heads) = (HEADER_BYTES..slots, AtomicBool::new(false), [].into());
        let mut block =
            Block { bytes, ptr, keyspace, count, prefix, slots, wide, is_used, heads, charge: None };
        block.check_entries(slots_end.unwrap_or(used), used)?;
        block.heads = (0..count).map(|index| head(block.suffix(index))).collect();
        Ok(block)
    }

    fn check_entries(&self, first: usize, used: usize) -> Result<(), Flaw> {
        let mut at = first;
        let mut previous: Option<&[u8]> = None;
        for index in 0..self.count {
            if self.slot(index) != at {
                return Err(format!("entry {index} is not where the one before it ends"));
            }
            let suffix_bytes = usize::from(u16_at(&self.bytes, at));
            let form = u16_at(&self.bytes, at + 2);
            let payload_bytes = match form {
                0..=FORM_INLINE_MAX if self.ptr.level == 0 => usize::from(form),
                FORM_EXTENT | FORM_PIECES if self.ptr.level == 0 => EXTENT_PAYLOAD_BYTES,
                FORM_REMOVED if self.ptr.level == 0 => 0,
                FORM_ADDED if self.ptr.level == 0 => NUMBER_BYTES,
                FORM_CHILD if self.ptr.level > 0 => PTR_BYTES,
                _ => return Err(format!("entry {index} has the form {form:#x}, unknown at this level")),
            };
            let payload = at + ENTRY_HEADER_BYTES + suffix_bytes;
            let end = payload + payload_bytes;
            if end > used || self.prefix.len() + suffix_bytes > usize::from(u16::MAX) {
                return Err(format!("entry {index} does not fit"));
            }
            let suffix = self.suffix(index);
            if previous.is_some_and(|previous| previous >= suffix) {
                return Err(format!("the key of entry {index} is not above the one before it"));
            }
            self.check_pointer(index, form, payload)?;
            previous = Some(suffix);
            at = end;
        }
        if at == used { Ok(()) } else { Err(format!("the entries end at {at}, not at {used}")) }
    }

    fn check_pointer(&self, index: usize, form: u16, payload: usize) -> Result<(), Flaw> {
        let (ptr, fits) = match form {
            FORM_EXTENT => {
                let len = u64_at(&self.bytes, payload);
                let ptr = Ptr::decode(self.bytes.get(payload + 8..).unwrap_or_default())?;
                let padded = len.checked_next_multiple_of(super::ptr::GRID);
                (ptr, ptr.kind == BlockKind::Value && len > 0 && padded == Some(u64::from(ptr.bytes)))
            }
            FORM_PIECES => {
                let len = u64_at(&self.bytes, payload);
                let ptr = Ptr::decode(self.bytes.get(payload + 8..).unwrap_or_default())?;
                let is_list = (1..=LIST_BYTES_MAX).contains(&ptr.bytes) && len > super::ptr::GRID;
                (ptr, ptr.kind == BlockKind::Value && is_list && len <= super::VALUE_BYTES_MAX as u64)
            }
            FORM_CHILD => {
                let ptr = Ptr::decode(self.bytes.get(payload..).unwrap_or_default())?;
                let level = self.ptr.level.saturating_sub(1);
                (ptr, ptr.level == level && ptr.kind == BlockKind::of_level(level))
            }
            _ => return Ok(()),
        };
        if !fits {
            return Err(format!("the pointer of entry {index} leads to the wrong kind, level or length"));
        }
        if ptr.birth > self.ptr.birth {
            return Err(format!("the pointer of entry {index} is younger than its block"));
        }
        Ok(())
    }

    pub(super) fn ptr(&self) -> &Ptr {
        &self.ptr
    }

    /// True if this is the block that a pointer of a tree of `keyspace` means.
    pub(super) fn is(&self, ptr: &Ptr, keyspace: u32) -> bool {
        self.ptr == *ptr && self.keyspace == keyspace
    }

    pub(super) fn level(&self) -> u8 {
        self.ptr.level
    }

    /// Bytes that the block takes in memory, and in the file if it is not compressed.
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that the block takes in memory beside its own struct, what makes searching quick included, what is mapped not.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.memory_bytes() + size_of_val(&*self.heads)
    }

    /// Notes a use. True if one was noted already.
    #[inline]
    pub(super) fn note_use(&self) -> bool {
        self.is_used.load(Atomic::Relaxed) || self.is_used.swap(true, Atomic::Relaxed)
    }

    /// Forgets it. True if one was noted.
    pub(super) fn wipe_use(&self) -> bool {
        self.is_used.load(Atomic::Relaxed) && self.is_used.swap(false, Atomic::Relaxed)
    }

    /// Counts its memory among that of all blocks, but for one that is mapped.
    pub(super) fn counted(mut self, all: &Arc<AtomicU64>) -> Block {
        self.charge = (self.bytes.memory_bytes() > 0).then(|| Charge::of(all, self.memory_bytes() as u64));
        self
    }

    /// Whether it is smaller in the file than in memory.
    pub(super) fn is_compressed(&self) -> bool {
        self.bytes.len() > self.ptr.bytes as usize
    }

    /// Bytes that hold something.
    pub(super) fn used_len(&self) -> usize {
        u32_at(&self.bytes, 32) as usize
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What every key of the block begins with.
    pub(super) fn prefix(&self) -> &[u8] {
        self.bytes.get(self.prefix.clone()).unwrap_or_default()
    }

    fn slot(&self, index: usize) -> usize {
        if self.wide {
            u32_at(&self.bytes, self.slots + 4 * index) as usize
        } else {
            usize::from(u16_at(&self.bytes, self.slots + 2 * index))
        }
    }

    /// What an entry's key has after the prefix.
    pub(super) fn suffix(&self, index: usize) -> &[u8] {
        let at = self.slot(index);
        let len = usize::from(u16_at(&self.bytes, at));
        self.bytes.get(at + ENTRY_HEADER_BYTES..at + ENTRY_HEADER_BYTES + len).unwrap_or_default()
    }

    /// Writes an entry's whole key into `out`.
    pub(super) fn key_into(&self, index: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.suffix(index));
    }

    /// An entry's form and its payload's bytes, as stored.
    pub(super) fn raw_payload(&self, index: usize) -> (u16, &[u8]) {
        let at = self.slot(index);
        let start = at + ENTRY_HEADER_BYTES + usize::from(u16_at(&self.bytes, at));
        let form = u16_at(&self.bytes, at + 2);
        let len = match form {
            FORM_EXTENT | FORM_PIECES => EXTENT_PAYLOAD_BYTES,
            FORM_CHILD => PTR_BYTES,
            FORM_REMOVED => 0,
            FORM_ADDED => NUMBER_BYTES,
            inline => usize::from(inline),
        };
        (form, self.bytes.get(start..start + len).unwrap_or_default())
    }

    /// Where an entry's value is in the block, if it stands there.
    pub(super) fn inline_value(&self, index: usize) -> Option<Range<usize>> {
        let at = self.slot(index);
        let start = at + ENTRY_HEADER_BYTES + usize::from(u16_at(&self.bytes, at));
        let form = u16_at(&self.bytes, at + 2);
        (index < self.count && form <= FORM_INLINE_MAX).then(|| start..start + usize::from(form))
    }

    /// What an entry holds.
    ///
    /// # Errors
    /// A pointer that does not parse; `parse` has refused such a block.
    pub(super) fn payload(&self, index: usize) -> Result<Payload, Flaw> {
        let at = self.slot(index);
        let start = at + ENTRY_HEADER_BYTES + usize::from(u16_at(&self.bytes, at));
        let rest = || self.bytes.get(start..).unwrap_or_default();
        Ok(match u16_at(&self.bytes, at + 2) {
            FORM_EXTENT => Payload::Extent {
                len: u64_at(&self.bytes, start),
                ptr: Ptr::decode(rest().get(8..).unwrap_or_default())?,
            },
            FORM_PIECES => Payload::Pieces {
                len: u64_at(&self.bytes, start),
                ptr: Ptr::decode(rest().get(8..).unwrap_or_default())?,
            },
            FORM_CHILD => Payload::Child(Ptr::decode(rest())?),
            FORM_REMOVED => Payload::Removed,
            FORM_ADDED => Payload::Added(u64_at(&self.bytes, start) as i64),
            inline => Payload::Inline(start..start + usize::from(inline)),
        })
    }

    /// The child at `index` of an inner block.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn child(&self, index: usize) -> Result<Ptr, Flaw> {
        match self.payload(index)? {
            Payload::Child(ptr) => Ok(ptr),
            _ => Err("a row where a child belongs".to_owned()),
        }
    }

    /// Where `key` stands (`Ok`), or would (`Err`).
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.count });
        };
        let wanted = head(rest);
        let mut low = self.heads.partition_point(|head| *head < wanted);
        // Mostly one, or none.
        let alike = self.heads.get(low..).unwrap_or_default();
        let mut high = low
            + match alike {
                [first, ..] if *first != wanted => 0,
                [_, second, ..] if *second != wanted => 1,
                _ => alike.partition_point(|head| *head == wanted),
            };
        while low < high {
            let middle = low + (high - low) / 2;
            match self.suffix(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Which child `key` belongs to, in an inner block.
    pub(super) fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(index) => index,
            Err(index) => index.saturating_sub(1),
        }
    }
}
