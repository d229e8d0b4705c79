//! Packing entries into blocks: where one block ends and the next begins.
//!
//! A packer holds the entries of one level that are not yet in a block. It lets a block go only when more than two
//! blocks' worth is waiting, so that whoever ends a run of entries still has a choice: halves of equal size in the
//! middle of a tree, full blocks and a remainder at its growing edge.

use super::block::{ENTRY_HEADER_BYTES, FORM_CHILD, HEADER_BYTES, Header, NARROW_BYTES_MAX, TARGET_BYTES};
use super::bytes::put;
use super::codec;
use super::ptr::{BlockKind, Ptr};
use crate::record::Compression;
use seawall_wal::disk::BLOCK_BYTES;

/// Below this part of its size a block is underfull and takes its neighbour in.
const UNDERFULL_PART: usize = 4;

/// How a run of entries ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Blocks of equal size: more will come between.
    Even,
    /// Full blocks, then a remainder: more will come behind.
    Growing,
}

#[derive(Debug)]
struct Entry {
    /// Position in the arena, counted from the packer's first byte ever.
    at: u64,
    key_bytes: usize,
    form: u16,
    payload_bytes: usize,
    /// Bytes of this entry and of all before it, as if no block had a prefix.
    raw_end: u64,
}

/// The entries of one level that wait for their block.
#[derive(Debug, Default)]
pub(super) struct Packer {
    level: u8,
    /// The size that blocks are packed to. Larger only if a single entry does not fit.
    target_bytes: usize,
    arena: Vec<u8>,
    arena_start: u64,
    raw_start: u64,
    entries: Vec<Entry>,
}

impl Packer {
    /// For blocks of one size.
    pub(super) fn new(level: u8) -> Packer {
        Packer::of(level, TARGET_BYTES)
    }

    /// For blocks of `target_bytes`.
    pub(super) fn of(level: u8, target_bytes: usize) -> Packer {
        Packer { level, target_bytes, ..Packer::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push(&mut self, key: &[u8], form: u16, payload: &[u8]) {
        debug_assert!(self.entries.is_empty() || self.key(self.entries.len() - 1) < key, "keys ascend");
        let at = self.arena_start + self.arena.len() as u64;
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(payload);
        let raw = 2 + ENTRY_HEADER_BYTES + key.len() + payload.len();
        let raw_end = self.entries.last().map_or(self.raw_start, |last| last.raw_end) + raw as u64;
        self.entries.push(Entry { at, key_bytes: key.len(), form, payload_bytes: payload.len(), raw_end });
    }

    pub(super) fn push_child(&mut self, separator: &[u8], child: &Ptr) {
        self.push(separator, FORM_CHILD, &child.encode());
    }

    fn start(&self, entry: &Entry) -> usize {
        (entry.at - self.arena_start) as usize
    }

    pub(super) fn key(&self, index: usize) -> &[u8] {
        let Some(entry) = self.entries.get(index) else { return &[] };
        self.arena.get(self.start(entry)..).and_then(|rest| rest.get(..entry.key_bytes)).unwrap_or_default()
    }

    /// Form and payload of an entry.
    pub(super) fn payload(&self, index: usize) -> (u16, &[u8]) {
        let Some(entry) = self.entries.get(index) else { return (0, &[]) };
        let start = self.start(entry) + entry.key_bytes;
        let bytes = self.arena.get(start..).and_then(|rest| rest.get(..entry.payload_bytes));
        (entry.form, bytes.unwrap_or_default())
    }

    /// Takes the last entry back, if it is a child that `wanted` accepts.
    pub(super) fn pop_child(&mut self, wanted: impl FnOnce(&Ptr) -> bool) -> Option<(Vec<u8>, Ptr)> {
        let last = self.len().checked_sub(1)?;
        let (form, payload) = self.payload(last);
        let child = (form == FORM_CHILD).then(|| Ptr::decode(payload).ok()).flatten().filter(wanted)?;
        let separator = self.key(last).to_vec();
        if let Some(entry) = self.entries.pop() {
            let start = self.start(&entry);
            self.arena.truncate(start);
        }
        Some((separator, child))
    }

    /// The one entry, if there is exactly one and it is a child.
    pub(super) fn sole_child(&self) -> Option<Ptr> {
        let (form, payload) = self.payload(0);
        if self.len() == 1 && form == FORM_CHILD { Ptr::decode(payload).ok() } else { None }
    }

    /// Bytes that a block of the first `count` entries uses.
    fn used(&self, count: usize) -> usize {
        let Some(last) = count.checked_sub(1).and_then(|index| self.entries.get(index)) else {
            return HEADER_BYTES;
        };
        let prefix = common_prefix(self.key(0), self.key(count - 1));
        let raw = (last.raw_end - self.raw_start) as usize;
        let used = HEADER_BYTES + prefix + raw - count * prefix;
        if used.next_multiple_of(BLOCK_BYTES) > NARROW_BYTES_MAX { used + 2 * count } else { used }
    }

    /// Bytes that all entries would use in one block.
    pub(super) fn used_by_all(&self) -> usize {
        self.used(self.len())
    }

    /// Bytes of a block of the first `count` entries.
    pub(super) fn block_bytes(&self, count: usize) -> usize {
        self.used(count).next_multiple_of(BLOCK_BYTES)
    }

    pub(super) fn is_underfull(&self) -> bool {
        !self.is_empty()
            && (self.used_by_all() < self.target_bytes / UNDERFULL_PART || self.len() < self.entries_min())
    }

    /// An inner block with a single child helps nobody.
    fn entries_min(&self) -> usize {
        if self.level == 0 { 1 } else { 2 }
    }

    /// How many entries fit in the next block: at least the minimum, whatever their size.
    fn fitting(&self) -> usize {
        let least = self.entries_min().min(self.len());
        let capacity = self.target_bytes.max(self.block_bytes(least));
        let (mut low, mut high) = (least, self.len());
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.used(middle) <= capacity {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }

    /// How many entries to let go now that more may follow; `None` while the choice is better kept open.
    pub(super) fn ripe(&self) -> Option<usize> {
        if self.used_by_all() <= 2 * self.target_bytes {
            return None;
        }
        let count = self.fitting();
        (self.len() >= count + self.entries_min()).then_some(count)
    }

    /// How many entries to put in the next block now that no more will follow.
    pub(super) fn last_cut(&self, ending: Ending) -> usize {
        let fitting = self.fitting();
        let (all, least) = (self.len(), self.entries_min());
        if fitting == all {
            return all;
        }
        let wanted = match ending {
            Ending::Growing => fitting,
            Ending::Even => {
                let half = self.used_by_all() / 2;
                let (mut low, mut high) = (1, fitting);
                while low < high {
                    let middle = low + (high - low) / 2;
                    if self.used(middle) >= half { high = middle } else { low = middle + 1 }
                }
                low
            }
        };
        let wanted = wanted.min(all.saturating_sub(least));
        // Two or three huge separators: better one larger block than a single child.
        if wanted < least { all } else { wanted }
    }

    /// Writes the first `count` entries as a block into `out`, whose length is [`block_bytes`](Self::block_bytes).
    pub(super) fn encode(&self, count: usize, keyspace: u32, birth: u64, offset: u64, out: &mut [u8]) {
        let prefix = common_prefix(self.key(0), self.key(count.saturating_sub(1)));
        let slot_bytes = if out.len() > NARROW_BYTES_MAX { 4 } else { 2 };
        let slots = HEADER_BYTES + prefix;
        put(out, HEADER_BYTES, self.key(0).get(..prefix).unwrap_or_default());
        let mut at = slots + slot_bytes * count;
        for index in 0..count {
            let suffix = self.key(index).get(prefix..).unwrap_or_default();
            let (form, payload) = self.payload(index);
            let place = (at as u32).to_le_bytes();
            put(out, slots + slot_bytes * index, place.get(..slot_bytes).unwrap_or(&place));
            put(out, at, &(suffix.len() as u16).to_le_bytes());
            put(out, at + 2, &form.to_le_bytes());
            put(out, at + ENTRY_HEADER_BYTES, suffix);
            put(out, at + ENTRY_HEADER_BYTES + suffix.len(), payload);
            at += ENTRY_HEADER_BYTES + suffix.len() + payload.len();
        }
        debug_assert!(at <= out.len(), "the size was reckoned right");
        if let Some(rest) = out.get_mut(at..) {
            rest.fill(0);
        }
        let header = Header {
            kind: BlockKind::of_level(self.level),
            level: self.level,
            prefix_bytes: prefix as u16,
            count: count as u32,
            keyspace,
            birth,
            offset,
            used: at as u32,
            packed: None,
        };
        header.encode(out);
    }

    /// The block of the first `count` entries, compressed; `None` if it is to be written as it is, since it would not save
    /// a block of the grid.
    pub(super) fn compress(
        &self,
        compression: Compression,
        count: usize,
        keyspace: u32,
        birth: u64,
    ) -> Option<Packed> {
        if compression == Compression::None {
            return None;
        }
        let mut plain = vec![0; self.block_bytes(count)];
        self.encode(count, keyspace, birth, 0, &mut plain);
        let used = self.used(count);
        let (codec, bytes) = codec::compress(compression, plain.get(HEADER_BYTES..used)?)?;
        let header = Header {
            kind: BlockKind::Leaf,
            level: self.level,
            prefix_bytes: super::bytes::u16_at(&plain, 6),
            count: count as u32,
            keyspace,
            birth,
            offset: 0,
            used: (HEADER_BYTES + bytes.len()) as u32,
            packed: Some((codec, (used - HEADER_BYTES) as u32)),
        };
        let packed = Packed { header, bytes };
        (packed.block_bytes() < plain.len()).then_some(packed)
    }

    /// Forgets the first `count` entries; they are in a block.
    pub(super) fn drop_front(&mut self, count: usize) {
        let last = count.checked_sub(1).and_then(|index| self.entries.get(index));
        self.raw_start = last.map_or(self.raw_start, |last| last.raw_end);
        self.entries.drain(..count.min(self.entries.len()));
        let keep = self.entries.first().map_or(self.arena.len(), |first| self.start(first));
        self.arena.drain(..keep);
        self.arena_start += keep as u64;
    }
}

/// A compressed leaf that has no place yet.
#[derive(Debug)]
pub(super) struct Packed {
    header: Header,
    bytes: Vec<u8>,
}

impl Packed {
    pub(super) fn block_bytes(&self) -> usize {
        (HEADER_BYTES + self.bytes.len()).next_multiple_of(BLOCK_BYTES)
    }

    /// Writes the block for its place into `out`, whose length is [`block_bytes`](Self::block_bytes).
    pub(super) fn encode(&self, offset: u64, out: &mut [u8]) {
        Header { offset, ..self.header }.encode(out);
        put(out, HEADER_BYTES, &self.bytes);
        if let Some(rest) = out.get_mut(HEADER_BYTES + self.bytes.len()..) {
            rest.fill(0);
        }
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key above `low` and not above `high`; `low < high`.
pub(super) fn separator(low: &[u8], high: &[u8]) -> Vec<u8> {
    let shared = common_prefix(low, high);
    high.get(..=shared).unwrap_or(high).to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::super::block::{Block, Payload};
    use super::*;

    fn encode(packer: &Packer, count: usize) -> Block {
        let mut bytes = vec![0xaa; packer.block_bytes(count)];
        packer.encode(count, 5, 2, 8192, &mut bytes);
        let ptr = Ptr {
            offset: 8192,
            bytes: bytes.len() as u32,
            checksum: 0,
            kind: BlockKind::of_level(packer.level),
            level: packer.level,
            birth: 2,
        };
        Block::parse(bytes, ptr, 5).unwrap()
    }

    #[test]
    fn a_block_gives_back_what_was_packed() {
        let mut packer = Packer::new(0);
        let rows: Vec<(Vec<u8>, Vec<u8>)> =
            (0..50u8).map(|n| (vec![b'k', b'e', n], vec![n; usize::from(n)])).collect();
        for (key, value) in &rows {
            packer.push(key, value.len() as u16, value);
        }
        let block = encode(&packer, 50);
        assert_eq!(block.prefix(), b"ke");
        for (index, (key, value)) in rows.iter().enumerate() {
            assert_eq!(block.search(key), Ok(index));
            let Payload::Inline(range) = block.payload(index).unwrap() else { panic!("inline") };
            assert_eq!(&block.as_ref()[range], value);
        }
        assert_eq!(block.search(b"a"), Err(0));
        assert_eq!(block.search(b"k"), Err(0));
        assert_eq!(block.search(b"ke\x10a"), Err(17));
        assert_eq!(block.search(b"z"), Err(50));
    }

    #[test]
    fn sizes_are_reckoned_exactly_whatever_is_in_front() {
        let mut packer = Packer::new(0);
        packer.push(b"", 0, b"");
        packer.push(b"a", 3, b"xyz");
        packer.drop_front(1);
        packer.push(b"ab", 2, b"pq");
        assert_eq!(packer.used_by_all(), HEADER_BYTES + 1 + 2 * (2 + ENTRY_HEADER_BYTES) + 1 + 5);
        let block = encode(&packer, 2);
        assert_eq!(block.suffix(1), b"b");
        packer.drop_front(1);
        assert_eq!(packer.key(0), b"ab");
        assert_eq!(packer.payload(0), (2, &b"pq"[..]));
    }

    #[test]
    fn the_longest_keys_get_a_block_with_wide_slots() {
        for (key_bytes, value_bytes) in [(65_535, 1900), (65_535, 0), (65_480, 0), (65_480, 20), (3000, 1984)]
        {
            let mut packer = Packer::new(0);
            packer.push(&vec![b'a'; key_bytes - 1], 1, b"v");
            packer.push(&vec![b'a'; key_bytes], value_bytes as u16, &vec![7; value_bytes]);
            for count in 1..=2 {
                let block = encode(&packer, count);
                assert_eq!(block.search(&vec![b'a'; key_bytes]), if count == 2 { Ok(1) } else { Err(1) });
            }
        }
    }

    #[test]
    fn runs_end_in_halves_or_in_full_blocks() {
        let mut packer = Packer::new(0);
        let mut n = 0u32;
        while packer.used_by_all() < TARGET_BYTES + 500 {
            packer.push(&n.to_be_bytes(), 100, &[1; 100]);
            n += 1;
        }
        let half = packer.last_cut(Ending::Even);
        let full = packer.last_cut(Ending::Growing);
        assert!(half.abs_diff(packer.len() - half) <= 1, "{half} of {}", packer.len());
        assert!(packer.used(full) <= TARGET_BYTES && packer.used(full + 1) > TARGET_BYTES);
        assert_eq!(packer.ripe(), None);
    }

    #[test]
    fn an_inner_block_never_ends_with_a_single_child() {
        let child = Ptr { offset: 8192, bytes: 4096, checksum: 0, kind: BlockKind::Leaf, level: 0, birth: 1 };
        for key_bytes in [4, 1000, 3000, 30_000] {
            let mut packer = Packer::new(1);
            for n in 0..7u32 {
                packer.push_child(&[&vec![n as u8; key_bytes][..], &n.to_be_bytes()].concat(), &child);
            }
            for ending in [Ending::Even, Ending::Growing] {
                let cut = packer.last_cut(ending);
                assert!(cut >= 2 && (cut == 7 || cut <= 5), "{cut} with keys of {key_bytes}, {ending:?}");
            }
        }
    }

    #[test]
    fn separators_are_short_and_between() {
        assert_eq!(separator(b"apple", b"banana"), b"b");
        assert_eq!(separator(b"a", b"ab"), b"ab");
        assert_eq!(separator(b"", b"x"), b"x");
        assert_eq!(separator(b"abcd", b"abzz"), b"abz");
    }
}
