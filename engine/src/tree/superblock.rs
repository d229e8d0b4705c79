//! The root of everything in the file: which tree is current, and where the log takes over.
//!
//! There are two slots of one block each, at offsets 0 and 4096. Generation `g` is written to slot `g % 2`, so the
//! one before it stays whole while it is being written. Opening takes the newer valid one. The magic, the version
//! and the place of the checksum are the same in every format to come, so that a store of a later format is refused
//! by name instead of being called damaged.

#![warn(clippy::indexing_slicing)]

use super::bytes::{array_at, put, u32_at, u64_at};
use super::ptr::{BlockKind, FIRST_BLOCK, Flaw, GRID, PTR_BYTES, Ptr};
use seawall_wal::Lsn;
use seawall_wal::disk::BLOCK_BYTES;

/// The format's number.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"seawallD";
const CHECKSUM_AT: usize = SLOT_BYTES - 4;

/// Of the features that a reader must understand: a keyspace has runs beside its tree.
pub(super) const FEATURE_RUNS: u64 = 1;

/// Features that this version understands, of those that a reader must understand.
const FEATURES_KNOWN: u64 = FEATURE_RUNS;

mod at {
    pub(super) const VERSION: usize = 8;
    pub(super) const BLOCK_BYTES: usize = 12;
    pub(super) const COMPATIBLE: usize = 16;
    pub(super) const INCOMPATIBLE: usize = 24;
    pub(super) const STORE_ID: usize = 32;
    pub(super) const GENERATION: usize = 48;
    pub(super) const CHECKPOINT_LSN: usize = 56;
    pub(super) const VISIBLE_TIME: usize = 64;
    pub(super) const NEXT_KEYSPACE: usize = 72;
    pub(super) const EPOCH: usize = 80;
    pub(super) const SEGMENT_BYTES: usize = 88;
    pub(super) const CREATED: usize = 96;
    pub(super) const FILE_BYTES: usize = 104;
    pub(super) const ROWS: usize = 112;
    pub(super) const BLOCKS: usize = 120;
    pub(super) const LIVE_BYTES: usize = 128;
    pub(super) const APPLIED_LSN: usize = 136;
    pub(super) const ROOTS: usize = 192;
    pub(super) const FREE_MAP: usize = 224;
}

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Features that a reader may ignore.
    pub features_compatible: u64,
    /// Features that a reader must know.
    pub features_incompatible: u64,
    /// Chosen at random when the store was created; the log carries it too.
    pub store_id: [u8; 16],
    /// Counts the checkpoints.
    pub generation: u64,
    /// Everything below is in the tree: replay starts here.
    pub checkpoint_lsn: Lsn,
    /// Records below are in the tree although replay starts before them: it passes over them. Lower than
    /// `checkpoint_lsn`, it says nothing.
    pub applied_lsn: Lsn,
    /// The time, in microseconds since 1970, up to which commits are in the tree.
    pub visible_time_us: u64,
    /// The id that the next new keyspace gets; ids are never used again.
    pub next_keyspace: u32,
    /// Counts promotions and restores.
    pub epoch: u64,
    /// The log's segment size, fixed for life.
    pub segment_bytes: u64,
    /// When the store was created, in microseconds since 1970.
    pub created_us: u64,
    /// The end of the managed part of the file: nothing that is in use lies beyond.
    pub file_bytes: u64,
    /// Rows in all keyspaces; at most so many, if that holds for one of them.
    pub rows: u64,
    /// Blocks in use, extents of values and the free map included.
    pub blocks: u64,
    /// Bytes of those blocks.
    pub live_bytes: u64,
    /// The tree of keyspace roots.
    pub roots: Option<Ptr>,
    /// The free and dead extents.
    pub free_map: Option<Ptr>,
}

impl Default for Superblock {
    /// An empty store's first superblock.
    fn default() -> Superblock {
        Superblock {
            features_compatible: 0,
            features_incompatible: 0,
            store_id: [0; 16],
            generation: 1,
            checkpoint_lsn: Lsn::ZERO,
            applied_lsn: Lsn::ZERO,
            visible_time_us: 0,
            next_keyspace: 1,
            epoch: 0,
            segment_bytes: 0,
            created_us: 0,
            file_bytes: FIRST_BLOCK,
            rows: 0,
            blocks: 0,
            live_bytes: 0,
            roots: None,
            free_map: None,
        }
    }
}

/// What a slot was found to hold.
#[derive(Debug)]
pub(super) enum Slot {
    Valid(Box<Superblock>),
    /// Whole, but written by another version, or with features unknown here.
    Newer(u32),
    /// Torn or damaged; the version that it claims, if its magic is right.
    Invalid {
        claims: Option<u32>,
        flaw: Flaw,
    },
}

/// Why no superblock could be chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Newer(u32),
    Damaged { offset: u64, flaw: Flaw },
}

impl Superblock {
    /// Where the slot of a generation stands.
    pub(super) fn slot_offset(generation: u64) -> u64 {
        generation % 2 * GRID
    }

    /// The slot's bytes.
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut out = [0; SLOT_BYTES];
        put(&mut out, 0, &MAGIC);
        put(&mut out, at::VERSION, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, at::BLOCK_BYTES, &(BLOCK_BYTES as u32).to_le_bytes());
        put(&mut out, at::COMPATIBLE, &self.features_compatible.to_le_bytes());
        put(&mut out, at::INCOMPATIBLE, &self.features_incompatible.to_le_bytes());
        put(&mut out, at::STORE_ID, &self.store_id);
        put(&mut out, at::GENERATION, &self.generation.to_le_bytes());
        put(&mut out, at::CHECKPOINT_LSN, &self.checkpoint_lsn.0.to_le_bytes());
        put(&mut out, at::VISIBLE_TIME, &self.visible_time_us.to_le_bytes());
        put(&mut out, at::NEXT_KEYSPACE, &self.next_keyspace.to_le_bytes());
        put(&mut out, at::EPOCH, &self.epoch.to_le_bytes());
        put(&mut out, at::SEGMENT_BYTES, &self.segment_bytes.to_le_bytes());
        put(&mut out, at::CREATED, &self.created_us.to_le_bytes());
        put(&mut out, at::FILE_BYTES, &self.file_bytes.to_le_bytes());
        put(&mut out, at::ROWS, &self.rows.to_le_bytes());
        put(&mut out, at::BLOCKS, &self.blocks.to_le_bytes());
        put(&mut out, at::LIVE_BYTES, &self.live_bytes.to_le_bytes());
        put(&mut out, at::APPLIED_LSN, &self.applied_lsn.0.to_le_bytes());
        put(&mut out, at::ROOTS, &self.roots.map_or([0; PTR_BYTES], |ptr| ptr.encode()));
        put(&mut out, at::FREE_MAP, &self.free_map.map_or([0; PTR_BYTES], |ptr| ptr.encode()));
        let checksum = checksum(&out);
        put(&mut out, CHECKSUM_AT, &checksum.to_le_bytes());
        out
    }

    //= docs/format/data.md#superblock
    /// Reads a slot, which must be of the generation that belongs in it.
    pub(super) fn decode(slot: &[u8], index: u64) -> Slot {
        if array_at(slot, 0) != MAGIC {
            return Slot::Invalid { claims: None, flaw: "no superblock: the magic is wrong".to_owned() };
        }
        let version = u32_at(slot, at::VERSION);
        if slot.len() != SLOT_BYTES || u32_at(slot, CHECKSUM_AT) != checksum(slot) {
            let flaw = "the superblock's checksum does not match".to_owned();
            return Slot::Invalid { claims: Some(version), flaw };
        }
        if version > FORMAT_VERSION {
            return Slot::Newer(version);
        }
        if version == FORMAT_VERSION && u64_at(slot, at::INCOMPATIBLE) & !FEATURES_KNOWN != 0 {
            return Slot::Newer(version.saturating_add(1));
        }
        match Superblock::decode_fields(slot, version, index) {
            Ok(superblock) => Slot::Valid(Box::new(superblock)),
            Err(flaw) => Slot::Invalid { claims: Some(version), flaw },
        }
    }

    fn decode_fields(slot: &[u8], version: u32, index: u64) -> Result<Superblock, Flaw> {
        let pointer = |at: usize| Ptr::decode_optional(slot.get(at..).unwrap_or_default());
        let superblock = Superblock {
            features_compatible: u64_at(slot, at::COMPATIBLE),
            features_incompatible: u64_at(slot, at::INCOMPATIBLE),
            store_id: array_at(slot, at::STORE_ID),
            generation: u64_at(slot, at::GENERATION),
            checkpoint_lsn: Lsn(u64_at(slot, at::CHECKPOINT_LSN)),
            visible_time_us: u64_at(slot, at::VISIBLE_TIME),
            next_keyspace: u32_at(slot, at::NEXT_KEYSPACE),
            epoch: u64_at(slot, at::EPOCH),
            segment_bytes: u64_at(slot, at::SEGMENT_BYTES),
            created_us: u64_at(slot, at::CREATED),
            file_bytes: u64_at(slot, at::FILE_BYTES),
            rows: u64_at(slot, at::ROWS),
            blocks: u64_at(slot, at::BLOCKS),
            live_bytes: u64_at(slot, at::LIVE_BYTES),
            applied_lsn: Lsn(u64_at(slot, at::APPLIED_LSN)),
            roots: pointer(at::ROOTS)?,
            free_map: pointer(at::FREE_MAP)?,
        };
        if version != FORMAT_VERSION || u32_at(slot, at::BLOCK_BYTES) as usize != BLOCK_BYTES {
            return Err("a version or a block size that never was".to_owned());
        }
        if superblock.generation % 2 != index {
            return Err(format!("generation {} stands in slot {index}", superblock.generation));
        }
        if superblock.file_bytes < FIRST_BLOCK || !superblock.file_bytes.is_multiple_of(GRID) {
            return Err(format!("{} bytes in use make no file", superblock.file_bytes));
        }
        let is_tree = |ptr: &Ptr| matches!(ptr.kind, BlockKind::Leaf | BlockKind::Inner);
        let pointers = [superblock.roots, superblock.free_map];
        let fits = |ptr: &Ptr| ptr.end() <= superblock.file_bytes && ptr.birth <= superblock.generation;
        if !superblock.roots.iter().all(is_tree)
            || !superblock.free_map.iter().all(|ptr| ptr.kind == BlockKind::FreeMap)
            || !pointers.iter().flatten().all(fits)
        {
            return Err("a pointer of the superblock leads to the wrong kind, place or generation".to_owned());
        }
        Ok(superblock)
    }

    /// The newer valid superblock of a data file, given its first blocks; to look at from outside. None where there is no
    /// valid one, or one of a later format.
    pub fn newest(head: &[u8]) -> Option<Superblock> {
        let slot = |generation| {
            let at = Superblock::slot_offset(generation) as usize;
            head.get(at..at + SLOT_BYTES)
        };
        Superblock::choose([slot(0)?, slot(1)?]).ok().map(|(superblock, _)| superblock)
    }

    /// What the slot holds that was not chosen, if that is valid.
    pub(super) fn other(slots: [&[u8]; 2], chosen: &Superblock) -> Option<Superblock> {
        let index = (chosen.generation + 1) % 2;
        let [first, second] = slots;
        match Superblock::decode(if index == 0 { first } else { second }, index) {
            Slot::Valid(other) => Some(*other),
            Slot::Newer(_) | Slot::Invalid { .. } => None,
        }
    }

    /// The newer valid one of two slots, and a word on the other if it is damaged.
    ///
    /// One invalid slot is what a checkpoint cut short by a crash leaves. A slot of a later format always refuses,
    /// for the other one is then older, or not ours to judge.
    pub(super) fn choose(slots: [&[u8]; 2]) -> Result<(Superblock, Option<String>), Refusal> {
        let [first, second] = slots;
        match (Superblock::decode(first, 0), Superblock::decode(second, 1)) {
            (Slot::Newer(version), _) | (_, Slot::Newer(version)) => Err(Refusal::Newer(version)),
            (Slot::Valid(a), Slot::Valid(b)) if a.store_id != b.store_id => Err(Refusal::Damaged {
                offset: 0,
                flaw: "the superblocks are of two different stores".to_owned(),
            }),
            (Slot::Valid(a), Slot::Valid(b)) => Ok((if a.generation > b.generation { *a } else { *b }, None)),
            (Slot::Valid(valid), Slot::Invalid { flaw, .. }) => {
                Ok((*valid, Some(format!("superblock slot 1 is not valid: {flaw}"))))
            }
            (Slot::Invalid { flaw, .. }, Slot::Valid(valid)) => {
                Ok((*valid, Some(format!("superblock slot 0 is not valid: {flaw}"))))
            }
            (Slot::Invalid { claims: a, flaw }, Slot::Invalid { claims: b, .. }) => match a.max(b) {
                Some(version) if version > FORMAT_VERSION => Err(Refusal::Newer(version)),
                _ => {
                    Err(Refusal::Damaged { offset: 0, flaw: format!("neither superblock is valid: {flaw}") })
                }
            },
        }
    }
}

fn checksum(slot: &[u8]) -> u32 {
    crc32fast::hash(slot.get(..CHECKSUM_AT).unwrap_or(slot))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn at_generation(generation: u64) -> Superblock {
        let ptr = Ptr {
            offset: 8192,
            bytes: 4096,
            checksum: 3,
            kind: BlockKind::Leaf,
            level: 0,
            birth: generation,
        };
        Superblock {
            generation,
            store_id: *b"0123456789abcdef",
            checkpoint_lsn: Lsn(77),
            next_keyspace: 4,
            file_bytes: 1 << 20,
            roots: Some(ptr),
            free_map: Some(Ptr { kind: BlockKind::FreeMap, offset: 12288, ..ptr }),
            ..Superblock::default()
        }
    }

    #[test]
    fn the_newer_valid_slot_is_chosen() {
        let (old, new) = (at_generation(6), at_generation(7));
        let (chosen, note) = Superblock::choose([&old.encode(), &new.encode()]).unwrap();
        assert_eq!((chosen, note), (new.clone(), None));
        let (chosen, _) = Superblock::choose([&at_generation(8).encode(), &new.encode()]).unwrap();
        assert_eq!(chosen.generation, 8);
        let mut torn = new.encode();
        torn[512..].fill(0);
        let (chosen, note) = Superblock::choose([&old.encode(), &torn]).unwrap();
        assert_eq!(chosen, old);
        assert!(note.unwrap().contains("slot 1"));
        assert!(matches!(Superblock::choose([&torn, &torn]), Err(Refusal::Damaged { .. })));
        assert!(matches!(Superblock::choose([&new.encode(), &old.encode()]), Err(Refusal::Damaged { .. })));
        let other = Superblock { store_id: [9; 16], ..new };
        assert!(matches!(Superblock::choose([&old.encode(), &other.encode()]), Err(Refusal::Damaged { .. })));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let slot = at_generation(2).encode();
        for at in 0..SLOT_BYTES {
            let mut bad = slot;
            bad[at] ^= 0x10;
            assert!(matches!(Superblock::decode(&bad, 0), Slot::Invalid { .. }), "byte {at}");
        }
    }

    #[test]
    fn later_formats_are_refused_by_name_even_if_their_checksum_is_elsewhere() {
        let mut later = at_generation(2).encode();
        put(&mut later, at::VERSION, &3u32.to_le_bytes());
        assert_eq!(Superblock::choose([&later, &later]).unwrap_err(), Refusal::Newer(3));
        let sum = checksum(&later);
        put(&mut later, CHECKSUM_AT, &sum.to_le_bytes());
        let ours = at_generation(1).encode();
        assert_eq!(Superblock::choose([&later, &ours]).unwrap_err(), Refusal::Newer(3));
        let featured = Superblock { features_incompatible: 1 << 40, ..at_generation(2) }.encode();
        assert!(matches!(Superblock::choose([&featured, &ours]), Err(Refusal::Newer(_))));
        let allowed = Superblock { features_compatible: 1 << 40, ..at_generation(2) }.encode();
        assert!(Superblock::choose([&allowed, &ours]).is_ok());
    }
}
