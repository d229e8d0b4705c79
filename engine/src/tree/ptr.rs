//! What a parent knows of a child: where it is, what it must look like, and when it was born.
//!
//! A pointer carries the checksum of the block that it names, and stands itself in a block whose checksum its own
//! parent carries, up to the superblock: the store is a Merkle tree, so a lost, stale, swapped or misdirected write
//! is caught by whoever follows the pointer. *Birth* is the generation that wrote the block; it never exceeds the
//! birth of the block that holds the pointer, and what was born before an older image need not be copied again.
//! The extents of a streamed value say up to two generations less than that of the tree they came into, see `stream`.

#![warn(clippy::indexing_slicing)]

use super::bytes::{put, u32_at, u64_at};
use seawall_wal::disk::BLOCK_BYTES;

/// What decoding found wrong, for a person to read; the file and the offset are added by whoever knows them.
pub(super) type Flaw = String;

/// The file's grid: every offset and length is a multiple.
pub(super) const GRID: u64 = BLOCK_BYTES as u64;

/// Where blocks begin: after the two superblock slots.
pub(super) const FIRST_BLOCK: u64 = 2 * GRID;

/// The highest level of an inner block; leaves have level 0.
pub(super) const MAX_LEVEL: u8 = 32;

/// Bytes of an encoded [`Ptr`].
pub(super) const PTR_BYTES: usize = 32;

/// What a block holds. 0 is nothing, so that zeros never parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// Rows of a keyspace in key order.
    Leaf = 1,
    /// Separators and pointers to the level below.
    Inner = 2,
    /// The bytes of one large value, padded with zeros.
    Value = 3,
    /// The file's free and dead extents.
    FreeMap = 4,
    /// Which keys a run may have.
    Filter = 5,
}

impl BlockKind {
    fn from_byte(byte: u8) -> Option<BlockKind> {
        Some(match byte {
            1 => BlockKind::Leaf,
            2 => BlockKind::Inner,
            3 => BlockKind::Value,
            4 => BlockKind::FreeMap,
            5 => BlockKind::Filter,
            _ => return None,
        })
    }

    /// The kind that a tree block of this level has.
    pub(super) fn of_level(level: u8) -> BlockKind {
        if level == 0 { BlockKind::Leaf } else { BlockKind::Inner }
    }
}

/// A pointer to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ptr {
    /// Where the block begins in the file, in bytes; on the grid.
    pub offset: u64,
    /// The block's length in bytes; a multiple of the grid.
    pub bytes: u32,
    /// CRC-32 of all of the block's bytes, padding included.
    pub checksum: u32,
    /// What the block holds.
    pub kind: BlockKind,
    /// Its height above the leaves; 0 for what is no part of a tree.
    pub level: u8,
    /// The generation that wrote it.
    pub birth: u64,
}

impl Ptr {
    /// The first byte after the block.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.bytes))
    }

    pub(super) fn encode(&self) -> [u8; PTR_BYTES] {
        let mut out = [0; PTR_BYTES];
        put(&mut out, 0, &self.offset.to_le_bytes());
        put(&mut out, 8, &self.birth.to_le_bytes());
        put(&mut out, 16, &self.bytes.to_le_bytes());
        put(&mut out, 20, &self.checksum.to_le_bytes());
        put(&mut out, 24, &[self.kind as u8, self.level]);
        out
    }

    //= docs/format/data.md#pointer
    /// Decodes the pointer at the start of `bytes`; what needs no knowledge of the file is checked.
    pub(super) fn decode(bytes: &[u8]) -> Result<Ptr, Flaw> {
        let Some(field) = bytes.first_chunk::<PTR_BYTES>() else {
            return Err("a pointer is cut short".to_owned());
        };
        let [kind, level, reserved @ ..] = super::bytes::array_at::<8>(field, 24);
        let Some(kind) = BlockKind::from_byte(kind) else {
            return Err(format!("a pointer has the unknown kind {kind}"));
        };
        let ptr = Ptr {
            offset: u64_at(field, 0),
            birth: u64_at(field, 8),
            bytes: u32_at(field, 16),
            checksum: u32_at(field, 20),
            kind,
            level,
        };
        let level_fits = match kind {
            BlockKind::Leaf | BlockKind::Value | BlockKind::FreeMap | BlockKind::Filter => level == 0,
            BlockKind::Inner => (1..=MAX_LEVEL).contains(&level),
        };
        if reserved != [0; 6] || !level_fits {
            return Err(format!("a {kind:?} pointer has level {level} or reserved bytes in use"));
        }
        if ptr.bytes == 0 || !u64::from(ptr.bytes).is_multiple_of(GRID) || !ptr.offset.is_multiple_of(GRID) {
            return Err(format!("a pointer to {} bytes at {} is off the grid", ptr.bytes, ptr.offset));
        }
        if ptr.offset < FIRST_BLOCK || ptr.offset.checked_add(u64::from(ptr.bytes)).is_none() {
            return Err(format!("a pointer to {} bytes at {} is outside the file", ptr.bytes, ptr.offset));
        }
        Ok(ptr)
    }

    /// Decodes a place that may hold no pointer (zeros).
    pub(super) fn decode_optional(bytes: &[u8]) -> Result<Option<Ptr>, Flaw> {
        match bytes.first_chunk::<PTR_BYTES>() {
            Some(field) if *field == [0; PTR_BYTES] => Ok(None),
            _ => Ptr::decode(bytes).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn pointers_come_back_and_nonsense_does_not_parse() {
        let ptr = Ptr { offset: 8192, bytes: 4096, checksum: 7, kind: BlockKind::Inner, level: 3, birth: 9 };
        assert_eq!(Ptr::decode(&ptr.encode()).unwrap(), ptr);
        assert_eq!(Ptr::decode_optional(&[0; 32]).unwrap(), None);
        assert!(Ptr::decode(&[0; 32]).is_err());
        assert!(Ptr::decode(&[1; 31]).is_err());
        let bad = [
            Ptr { offset: 4096, ..ptr },
            Ptr { offset: 8193, ..ptr },
            Ptr { offset: u64::MAX - 4095, ..ptr },
            Ptr { bytes: 0, ..ptr },
            Ptr { bytes: 4097, ..ptr },
            Ptr { level: 0, ..ptr },
            Ptr { level: 33, ..ptr },
            Ptr { kind: BlockKind::Leaf, ..ptr },
        ];
        for ptr in bad {
            assert!(Ptr::decode(&ptr.encode()).is_err(), "{ptr:?}");
        }
        for at in 24..32 {
            let mut bytes = ptr.encode();
            bytes[at] ^= 0x80;
            assert!(Ptr::decode(&bytes).is_err(), "byte {at}");
        }
    }
}
