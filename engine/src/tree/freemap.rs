//! The free map's bytes: what is free and what is dead, as of one generation, in a single block.
//!
//! ```text
//! header (the one of tree blocks, 40 bytes; count = free + dead, no prefix)
//! free count u64 | dead count u64
//! free: { offset u64, bytes u64 } ascending, never adjacent
//! dead: { offset u64, bytes u64, birth u64, death u64 } by offset
//! ```

#![warn(clippy::indexing_slicing)]

use super::block::{HEADER_BYTES, Header};
use super::bytes::{put, u64_at};
use super::ptr::{BlockKind, FIRST_BLOCK, Flaw, GRID, Ptr};
use super::space::{Dead, Extent};
use seawall_wal::disk::BLOCK_BYTES;

/// The keyspace that the free map's header names.
pub(super) const FREE_MAP_KEYSPACE: u32 = u32::MAX - 1;

const COUNTS_BYTES: usize = 16;
const FREE_BYTES: usize = 16;
const DEAD_BYTES: usize = 32;

/// Bytes of a block with room for so many extents.
pub(super) fn block_bytes(free: usize, dead: usize) -> usize {
    let used =
        HEADER_BYTES + COUNTS_BYTES + free.saturating_mul(FREE_BYTES) + dead.saturating_mul(DEAD_BYTES);
    used.next_multiple_of(BLOCK_BYTES)
}

/// Writes the map into `out`, which has zeros; false if there is no room.
pub(super) fn encode(free: &[Extent], dead: &[Dead], birth: u64, offset: u64, out: &mut [u8]) -> bool {
    if block_bytes(free.len(), dead.len()) > out.len() {
        return false;
    }
    let count = free.len() + dead.len();
    put(out, HEADER_BYTES, &(free.len() as u64).to_le_bytes());
    put(out, HEADER_BYTES + 8, &(dead.len() as u64).to_le_bytes());
    let mut at = HEADER_BYTES + COUNTS_BYTES;
    for extent in free {
        put(out, at, &extent.offset.to_le_bytes());
        put(out, at + 8, &extent.bytes.to_le_bytes());
        at += FREE_BYTES;
    }
    for dead in dead {
        put(out, at, &dead.extent.offset.to_le_bytes());
        put(out, at + 8, &dead.extent.bytes.to_le_bytes());
        put(out, at + 16, &dead.birth.to_le_bytes());
        put(out, at + 24, &dead.death.to_le_bytes());
        at += DEAD_BYTES;
    }
    let header = Header {
        kind: BlockKind::FreeMap,
        level: 0,
        prefix_bytes: 0,
        count: count as u32,
        keyspace: FREE_MAP_KEYSPACE,
        birth,
        offset,
        used: at as u32,
        packed: None,
    };
    header.encode(out);
    true
}

//= docs/format/data.md#free-map
/// Reads the map of the generation that `ptr` was born in; the file's managed part ends at `end`.
pub(super) fn decode(block: &[u8], ptr: &Ptr, end: u64) -> Result<(Vec<Extent>, Vec<Dead>), Flaw> {
    let header = Header::decode(block, ptr, FREE_MAP_KEYSPACE)?;
    let (free_count, dead_count) = (u64_at(block, HEADER_BYTES), u64_at(block, HEADER_BYTES + 8));
    let wanted = free_count
        .checked_mul(FREE_BYTES as u64)
        .zip(dead_count.checked_mul(DEAD_BYTES as u64))
        .and_then(|(free, dead)| free.checked_add(dead))
        .and_then(|lists| lists.checked_add((HEADER_BYTES + COUNTS_BYTES) as u64));
    if wanted != Some(u64::from(header.used)) || header.prefix_bytes != 0 {
        return Err(format!("the free map's {free_count} + {dead_count} extents do not fit its length"));
    }
    let extent_at = |at: usize| Extent { offset: u64_at(block, at), bytes: u64_at(block, at + 8) };
    let fits = |extent: &Extent| {
        let on_grid = extent.offset.is_multiple_of(GRID) && extent.bytes.is_multiple_of(GRID);
        on_grid && extent.bytes > 0 && extent.offset >= FIRST_BLOCK && extent.end() <= end
    };
    let mut at = HEADER_BYTES + COUNTS_BYTES;
    let mut free = Vec::with_capacity(free_count as usize);
    for _ in 0..free_count {
        free.push(extent_at(at));
        at += FREE_BYTES;
    }
    let mut dead = Vec::with_capacity(dead_count as usize);
    for _ in 0..dead_count {
        dead.push(Dead {
            extent: extent_at(at),
            birth: u64_at(block, at + 16),
            death: u64_at(block, at + 24),
        });
        at += DEAD_BYTES;
    }
    let all = free.iter().chain(dead.iter().map(|dead| &dead.extent));
    if let Some(extent) = all.clone().find(|extent| !fits(extent)) {
        return Err(format!(
            "the free map names {} bytes at {}, outside the file",
            extent.bytes, extent.offset
        ));
    }
    let joined = free.iter().zip(free.iter().skip(1)).any(|(one, next)| one.end() >= next.offset);
    let crossed =
        dead.iter().zip(dead.iter().skip(1)).any(|(one, next)| one.extent.end() > next.extent.offset);
    let young = dead.iter().any(|dead| dead.death > ptr.birth || dead.birth > dead.death);
    if joined || crossed || young {
        return Err(
            "the free map's extents overlap, are out of order, or died in a later generation".to_owned()
        );
    }
    Ok((free, dead))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_map_comes_back_and_lies_do_not() {
        let ptr =
            Ptr { offset: 8192, bytes: 4096, checksum: 0, kind: BlockKind::FreeMap, level: 0, birth: 9 };
        let free = [Extent { offset: 12288, bytes: 4096 }, Extent { offset: 20480, bytes: 8192 }];
        let dead = [Dead { extent: Extent { offset: 16384, bytes: 4096 }, birth: 2, death: 8 }];
        let map = |free: &[Extent], dead: &[Dead]| {
            let mut out = vec![0; 4096];
            assert!(encode(free, dead, 9, 8192, &mut out));
            decode(&out, &ptr, 1 << 20)
        };
        assert_eq!(map(&free, &dead).unwrap(), (free.to_vec(), dead.to_vec()));
        assert_eq!(map(&[], &[]).unwrap(), (vec![], vec![]));
        assert!(map(&[free[1], free[0]], &dead).is_err());
        assert!(map(&[Extent { offset: 4096, bytes: 4096 }], &dead).is_err());
        assert!(map(&[Extent { offset: 1 << 20, bytes: 4096 }], &dead).is_err());
        assert!(map(&free, &[dead[0], dead[0]]).is_err());
        assert!(map(&free, &[Dead { death: 10, ..dead[0] }]).is_err());
        let mut out = vec![0; 4096];
        assert!(!encode(&vec![free[0]; 300], &[], 9, 8192, &mut out), "no room");
        assert!(encode(&free, &dead, 9, 8192, &mut out));
        for at in 0..block_used(&out) {
            let mut bad = out.clone();
            bad[at] ^= 0xff;
            let _ = decode(&bad, &ptr, 1 << 20);
        }
    }

    fn block_used(block: &[u8]) -> usize {
        Header::decode(
            block,
            &Ptr { offset: 8192, bytes: 4096, checksum: 0, kind: BlockKind::FreeMap, level: 0, birth: 9 },
            FREE_MAP_KEYSPACE,
        )
        .unwrap()
        .used as usize
    }
}
