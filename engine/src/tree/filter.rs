//! A run's filter: which keys it may have. A Bloom filter whose bits for one key lie in one line of the processor's cache
//! (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007).
//!
//! ```text
//! block: lines of 64 bytes, as many as fill it; no header
//! key ─► CRC-32 ─► mix ─► which line (upper half) ─► mix ─► 7 bits of it, 9 bits of the mix for each
//! ```

#![warn(clippy::indexing_slicing)]

use super::ptr::Ptr;
use super::{Result, TreeStore};
use crate::memory::Charge;
use seawall_wal::disk::BLOCK_BYTES;

/// Bits for each key: about one in two hundred absent keys is not told from a present one.
const BITS_PER_KEY: usize = 12;
const LINE_BYTES: usize = 64;
/// Bits that are set for a key.
const PROBES: u32 = 7;

/// The keys of a run that is being written, by their hashes.
#[derive(Debug, Default)]
pub(super) struct FilterKeys(Vec<u32>);

impl FilterKeys {
    pub(super) fn push(&mut self, key: &[u8]) {
        self.0.push(crc32fast::hash(key));
    }

    /// Bytes of the filter's block.
    pub(super) fn block_bytes(&self) -> usize {
        (self.0.len().max(1) * BITS_PER_KEY).div_ceil(8).next_multiple_of(BLOCK_BYTES)
    }

    /// Writes the block, which is of [`block_bytes`](Self::block_bytes).
    pub(super) fn encode(&self, out: &mut [u8]) {
        out.fill(0);
        for hash in &self.0 {
            let (line, bits) = place(*hash, out.len());
            let line = out.get_mut(line..line + LINE_BYTES).unwrap_or_default();
            for bit in bits {
                if let Some(byte) = line.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
    }
}

/// A filter in memory.
#[derive(Debug)]
pub(super) struct Filter {
    bytes: Vec<u8>,
    #[allow(dead_code, reason = "kept to be dropped")]
    charge: Option<Charge>,
}

impl Filter {
    pub(super) fn read(store: &TreeStore, ptr: &Ptr) -> Result<Filter> {
        let bytes = store.read_verified(ptr)?;
        let charge = Charge::of(&store.memory.blocks, bytes.len() as u64);
        Ok(Filter { bytes, charge: Some(charge) })
    }

    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        let (line, mut bits) = place(crc32fast::hash(key), self.bytes.len());
        let line = self.bytes.get(line..line + LINE_BYTES).unwrap_or_default();
        bits.all(|bit| line.get(bit / 8).is_some_and(|byte| byte & 1 << (bit % 8) != 0))
    }
}

//= docs/format/data.md#filters
/// Where a key's line begins in a filter of so many bytes, and its bits in the line.
fn place(hash: u32, bytes: usize) -> (usize, impl Iterator<Item = usize>) {
    let first = mix(u64::from(hash));
    let second = mix(first);
    let lines = (bytes / LINE_BYTES) as u64;
    let line = (((first >> 32) * lines) >> 32) as usize;
    (line * LINE_BYTES, (0..PROBES).map(move |probe| (second >> (9 * probe) & 511) as usize))
}

/// The step of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
fn mix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn filter(keys: impl Iterator<Item = u32>) -> Filter {
        let mut all = FilterKeys::default();
        keys.for_each(|key| all.push(&key.to_be_bytes()));
        let mut bytes = vec![0xaa; all.block_bytes()];
        all.encode(&mut bytes);
        Filter { bytes, charge: None }
    }

    #[test]
    fn present_keys_are_told_and_few_others() {
        for count in [1, 2, 300, 20_000] {
            let filter = filter(0..count);
            assert!((0..count).all(|key| filter.may_have(&key.to_be_bytes())), "{count}");
            let wrong = (0..10_000_u32).filter(|key| filter.may_have(&(1 << 30 | key).to_be_bytes())).count();
            assert!(wrong < 150, "{wrong} of 10,000 that are not among {count}");
        }
        let none = filter(0..0);
        assert_eq!(none.bytes.len(), BLOCK_BYTES);
        assert!(!none.may_have(b""));
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let filter = filter([7].into_iter());
        let set: Vec<usize> =
            (0..filter.bytes.len() * 8).filter(|bit| filter.bytes[bit / 8] & 1 << (bit % 8) != 0).collect();
        assert_eq!(set, [3664, 3692, 3778, 3915, 3999, 4013, 4043]);
    }
}
