//! What the fuzz targets of the data file run: its decoders over arbitrary bytes, over valid blocks changed here and
//! there, and the checksums of a whole file recomputed, so that what lies behind them is reached.

use super::block::{Block, FORM_EXTENT, FORM_PIECES, HEADER_BYTES, Payload};
use super::bytes::put;
use super::freemap;
use super::pack::Packer;
use super::ptr::{BlockKind, FIRST_BLOCK, GRID, PTR_BYTES, Ptr};
use super::space::{Dead, Extent, Space};
use super::superblock::{SLOT_BYTES, Slot, Superblock};
use super::{ROOTS_KEYSPACE, TREE_ROOT_BYTES, TreeRoot};
use crate::record::Compression;
use seawall_wal::fuzzing::Input;
use std::collections::BTreeMap;

const OFFSET: u64 = 8192;
const BIRTH: u64 = 9;
const KEYSPACE: u32 = 5;
const PATCHES_MAX: usize = 16;
/// Blocks that resealing visits: a tree that leads in circles ends here.
const BLOCKS_MAX: usize = 4096;

fn ptr_to(bytes: usize, kind: BlockKind, level: u8) -> Ptr {
    Ptr { offset: OFFSET, bytes: bytes as u32, checksum: 0, kind, level, birth: BIRTH }
}

/// A leaf, an inner block, a free map or a pointer: arbitrary, or valid and then patched.
pub(crate) fn block(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let level = if how & 1 == 0 { 0 } else { 1 + input.below(4) as u8 };
    let bytes = if how & 2 == 0 { packed(&mut input, level) } else { arbitrary(&mut input, level) };
    if let Ok(block) =
        Block::parse(bytes.clone(), ptr_to(bytes.len(), BlockKind::of_level(level), level), KEYSPACE)
    {
        look(&block);
    }
    let mut map = if how & 4 == 0 { free_map(&mut input) } else { bytes };
    patch(&mut map, &mut input);
    look_at_map(&map);
    let leaf = compressed(&mut input);
    if let Ok(block) = Block::parse(leaf.clone(), ptr_to(leaf.len(), BlockKind::Leaf, 0), KEYSPACE) {
        look(&block);
    }
    if let Ok(ptr) = Ptr::decode(data) {
        assert_eq!(Ptr::decode(&ptr.encode()), Ok(ptr));
    }
    if let Ok(root) = TreeRoot::decode(data.get(..56).unwrap_or(data)) {
        assert_eq!(data.get(..56), Some(&root.encode()[..]));
    }
}

/// The input's bytes behind a header that fits.
fn arbitrary(input: &mut Input<'_>, level: u8) -> Vec<u8> {
    let mut bytes = vec![0; GRID as usize];
    let mut packer = Packer::new(level);
    packer.push(b"", 0, b"");
    packer.encode(1, KEYSPACE, BIRTH, OFFSET, &mut bytes);
    put(&mut bytes, 6, &input.u16().to_le_bytes());
    put(&mut bytes, 8, &input.u32().to_le_bytes());
    put(&mut bytes, 32, &u32::from(input.u16()).to_le_bytes());
    let rest = input.take(GRID as usize);
    put(&mut bytes, HEADER_BYTES, rest.get(..GRID as usize - HEADER_BYTES).unwrap_or(rest));
    bytes
}

/// Rows or children as the input says, packed as folds pack them, then patched.
fn packed(input: &mut Input<'_>, level: u8) -> Vec<u8> {
    let mut rows = BTreeMap::new();
    for _ in 0..input.below(40) {
        let len = input.below(12);
        let key = input.take(len).to_vec();
        let value = input.below(60);
        rows.insert(key, value);
    }
    if rows.is_empty() {
        rows.insert(Vec::new(), 0);
    }
    let mut packer = Packer::new(level);
    for (index, (key, value)) in rows.iter().enumerate() {
        let offset = OFFSET + (index as u64 + 1) * GRID;
        if level > 0 {
            let below = ptr_to(GRID as usize, BlockKind::of_level(level - 1), level - 1);
            packer.push_child(key, &Ptr { offset, ..below });
        } else if *value == 7 {
            let mut payload = 5000u64.to_le_bytes().to_vec();
            payload.extend(Ptr { offset, ..ptr_to(2 * GRID as usize, BlockKind::Value, 0) }.encode());
            packer.push(key, FORM_EXTENT, &payload);
        } else if *value == 8 {
            // In pieces, of which one block is the list.
            let mut payload = 40_000u64.to_le_bytes().to_vec();
            payload.extend(Ptr { offset, ..ptr_to(GRID as usize, BlockKind::Value, 0) }.encode());
            packer.push(key, FORM_PIECES, &payload);
        } else {
            packer.push(key, *value as u16, &vec![0x55; *value]);
        }
    }
    let mut bytes = vec![0; packer.block_bytes(rows.len())];
    packer.encode(rows.len(), KEYSPACE, BIRTH, OFFSET, &mut bytes);
    let ptr = ptr_to(bytes.len(), BlockKind::of_level(level), level);
    assert!(Block::parse(bytes.clone(), ptr, KEYSPACE).is_ok(), "a block that was packed does not parse");
    patch(&mut bytes, input);
    bytes
}

/// A leaf of rows that are much alike, compressed as folds do it, then patched.
fn compressed(input: &mut Input<'_>) -> Vec<u8> {
    let mut packer = Packer::new(0);
    let (count, len) = (100 + input.below(100), input.below(90));
    for n in 0..count {
        packer.push(&(n as u32).to_be_bytes(), len as u16, &vec![n as u8; len]);
    }
    let Some(packed) = packer.compress(Compression::Lz4, count, KEYSPACE, BIRTH) else { return Vec::new() };
    let mut bytes = vec![0; packed.block_bytes()];
    packed.encode(OFFSET, &mut bytes);
    let ptr = ptr_to(bytes.len(), BlockKind::Leaf, 0);
    let whole = Block::parse(bytes.clone(), ptr, KEYSPACE);
    assert!(whole.is_ok_and(|block| block.count() == count), "a leaf that was compressed does not parse");
    patch(&mut bytes, input);
    bytes
}

fn patch(bytes: &mut [u8], input: &mut Input<'_>) {
    for _ in 0..input.below(PATCHES_MAX) {
        let at = usize::from(input.u16());
        let value = input.value().to_le_bytes();
        let width = 1 << (input.u8() % 4);
        // Mostly near the beginning, where header and slots are.
        put(
            bytes,
            if at & 0x8000 == 0 { at % 256 } else { at & 0xfff },
            value.get(..width).unwrap_or_default(),
        );
    }
}

/// All that a reader asks of a block that parsed.
fn look(block: &Block) {
    assert!(block.count() > 0 && block.used_len() <= block.bytes_len());
    let mut previous: Option<Vec<u8>> = None;
    let mut key = Vec::new();
    for index in 0..block.count() {
        block.key_into(index, &mut key);
        assert!(previous.as_ref().is_none_or(|previous| *previous < key), "keys ascend");
        assert_eq!(block.search(&key), Ok(index));
        assert_eq!(block.child_index(&key), index);
        assert!(key.starts_with(block.prefix()) && key.ends_with(block.suffix(index)));
        match block.payload(index) {
            Ok(Payload::Inline(range)) => {
                assert!(block.level() == 0 && range.end <= block.used_len());
                assert_eq!(Some(block.raw_payload(index).1), block.as_ref().get(range));
            }
            Ok(Payload::Extent { len, ptr }) => {
                assert!(len > 0 && len <= u64::from(ptr.bytes), "a value longer than its extent");
            }
            Ok(Payload::Pieces { len, ptr }) => {
                assert!(len > 0 && ptr.kind == BlockKind::Value, "a value without pieces");
            }
            Ok(Payload::Child(ptr)) => assert_eq!(ptr.level + 1, block.level()),
            Ok(Payload::Removed | Payload::Added(_)) => {}
            Err(flaw) => assert!(flaw.is_empty(), "a payload that parsed, and does not: {flaw}"),
        }
        previous = Some(std::mem::take(&mut key));
    }
}

fn free_map(input: &mut Input<'_>) -> Vec<u8> {
    let (mut free, mut dead, mut at) = (Vec::new(), Vec::new(), OFFSET);
    for _ in 0..input.below(24) {
        let choice = input.u8();
        let extent = Extent { offset: at, bytes: (1 + u64::from(choice >> 4)) * GRID };
        if choice & 1 == 0 {
            free.push(extent);
            at += GRID;
        } else {
            dead.push(Dead { extent, birth: u64::from(choice & 7), death: 8 });
        }
        at += extent.bytes;
    }
    let mut out = vec![0; freemap::block_bytes(free.len(), dead.len())];
    assert!(freemap::encode(&free, &dead, BIRTH, OFFSET, &mut out));
    let read = freemap::decode(&out, &ptr_to(out.len(), BlockKind::FreeMap, 0), 1 << 30);
    assert_eq!(read, Ok((free, dead)), "a free map that comes back");
    out
}

fn look_at_map(bytes: &[u8]) {
    let end = 1 << 30;
    let ptr = ptr_to(bytes.len(), BlockKind::FreeMap, 0);
    if let Ok((free, dead)) = freemap::decode(bytes, &ptr, end) {
        assert!(free.len() + dead.len() <= bytes.len() / 16, "more extents than there is room for");
        if let Ok(mut space) = Space::new(end, &free, dead) {
            let bytes = space.free_bytes() + space.dead_bytes() + space.live_bytes();
            assert_eq!(bytes, end - FIRST_BLOCK, "space that does not add up");
            let _ = space.release(BIRTH + 2);
            let _ = space.take(GRID, 8 * GRID, false);
        }
    }
}

/// Two superblock slots: arbitrary, with checksums that match if the input says so.
pub(crate) fn superblock(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let mut slots = vec![0; 2 * SLOT_BYTES];
    for index in 0..2u64 {
        let at = index as usize * SLOT_BYTES;
        if how & 1 == 0 {
            let leaf = ptr_to(GRID as usize, BlockKind::Leaf, 0);
            let valid = Superblock {
                generation: BIRTH + index + u64::from(BIRTH % 2 == 1),
                file_bytes: 1 << 20,
                roots: (how & 8 == 0).then_some(Ptr { birth: 3, ..leaf }),
                free_map: (how & 16 == 0).then_some(Ptr { kind: BlockKind::FreeMap, birth: 3, ..leaf }),
                ..Superblock::default()
            };
            put(&mut slots, at, &valid.encode());
        }
        let piece = input.take(if how & 2 == 0 { 64 } else { 288 });
        put(&mut slots, at + usize::from(input.u8()), piece);
        if let Some(slot) = slots.get_mut(at..at + SLOT_BYTES).filter(|_| how & 4 == 0) {
            seal_superblock(slot);
        }
    }
    let (first, second) = slots.split_at(SLOT_BYTES);
    for (slot, index) in [(first, 0), (second, 1), (data, 0)] {
        if let Slot::Valid(read) = Superblock::decode(slot, index) {
            assert!(matches!(Superblock::decode(&read.encode(), index), Slot::Valid(again) if again == read));
            assert_eq!(read.generation % 2, index);
        }
    }
    if let Ok((chosen, _)) = Superblock::choose([first, second]) {
        let other = |slot: &[u8], index| matches!(Superblock::decode(slot, index), Slot::Valid(s) if s.generation > chosen.generation);
        assert!(!other(first, 0) && !other(second, 1), "an older superblock was chosen");
    }
}

fn seal_superblock(slot: &mut [u8]) {
    let at = SLOT_BYTES - 4;
    put(slot, 0, b"seawallD");
    let checksum = crc32fast::hash(slot.get(..at).unwrap_or_default());
    put(slot, at, &checksum.to_le_bytes());
}

/// Recomputes every checksum of a data file from the leaves up to both superblocks, as far as its blocks still parse.
pub(crate) fn reseal(file: &mut [u8]) {
    let mut left = BLOCKS_MAX;
    for index in 0..2u64 {
        let at = index as usize * SLOT_BYTES;
        let Some(slot) = file.get_mut(at..at + SLOT_BYTES) else { return };
        seal_superblock(slot);
        let Slot::Valid(superblock) = Superblock::decode(slot, index) else { continue };
        for ptr in [superblock.roots, superblock.free_map].into_iter().flatten() {
            reseal_below(file, ptr, ROOTS_KEYSPACE, (at, SLOT_BYTES), &mut left);
        }
        if let Some(slot) = file.get_mut(at..at + SLOT_BYTES) {
            seal_superblock(slot);
        }
    }
}

/// Reseals what `ptr` leads to, and writes the checksum into the pointer where it stands, in `parent`. The depth is
/// that of levels, which fall with every step, and one more for the tree of roots.
fn reseal_below(file: &mut [u8], ptr: Ptr, keyspace: u32, parent: (usize, usize), left: &mut usize) {
    let (at, bytes) = (ptr.offset as usize, ptr.bytes as usize);
    let Some(block) = at.checked_add(bytes).and_then(|end| file.get(at..end)) else { return };
    if *left == 0 {
        return;
    }
    *left -= 1;
    for (child, of) in children(block, &ptr, keyspace) {
        reseal_below(file, child, of, (at, bytes), left);
    }
    let Some(checksum) = file.get(at..at + bytes).map(crc32fast::hash) else { return };
    let Some(place) = file.get_mut(parent.0..parent.0 + parent.1) else { return };
    let pointer = ptr.encode();
    if let Some(found) = place.windows(PTR_BYTES).position(|window| window == pointer) {
        put(place, found + 20, &checksum.to_le_bytes());
    }
}

/// The pointers in a block, with the keyspace that they belong to.
fn children(block: &[u8], ptr: &Ptr, keyspace: u32) -> Vec<(Ptr, u32)> {
    let is_tree = matches!(ptr.kind, BlockKind::Leaf | BlockKind::Inner);
    let Some(block) = is_tree.then(|| Block::parse(block.to_vec(), *ptr, keyspace).ok()).flatten() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut key = Vec::new();
    for index in 0..block.count() {
        match block.payload(index) {
            Ok(Payload::Child(child)) => found.push((child, keyspace)),
            Ok(Payload::Extent { ptr, .. } | Payload::Pieces { ptr, .. }) => found.push((ptr, keyspace)),
            Ok(Payload::Inline(_)) if keyspace == ROOTS_KEYSPACE => {
                block.key_into(index, &mut key);
                let row = block.raw_payload(index).1;
                let (root, filter) = row.split_at_checked(TREE_ROOT_BYTES).unwrap_or_default();
                if let (Some(id), Ok(root)) = (key.first_chunk::<4>(), TreeRoot::decode(root))
                    && *id != ROOTS_KEYSPACE.to_be_bytes()
                {
                    found.push((root.ptr, u32::from_be_bytes(*id)));
                }
                found.extend(Ptr::decode(filter).map(|filter| (filter, ROOTS_KEYSPACE)));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::indexing_slicing)]
    use super::super::bytes::u64_at;
    use super::*;

    #[test]
    fn a_superblock_that_is_resealed_is_valid() {
        let mut file = vec![0; 2 * SLOT_BYTES];
        for generation in [4, 5] {
            let superblock = Superblock { generation, ..Superblock::default() };
            put(&mut file, Superblock::slot_offset(generation) as usize, &superblock.encode());
        }
        put(&mut file, 56, &77u64.to_le_bytes());
        assert!(matches!(Superblock::decode(&file[..SLOT_BYTES], 0), Slot::Invalid { .. }));
        reseal(&mut file);
        let Slot::Valid(superblock) = Superblock::decode(&file[..SLOT_BYTES], 0) else { panic!("valid") };
        assert_eq!((superblock.checkpoint_lsn.0, u64_at(&file, 48)), (77, 4));
    }
}
