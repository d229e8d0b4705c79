//! Which bytes of the file are free.
//!
//! A block lives from its *birth* to its *death*, both generations: the checkpoint of generation `d` writes a
//! superblock that no longer leads to it. Then it is *dead*, and free only when nobody can want it any more:
//!
//! - S1: both superblocks are past it: to build generation `k`, only what died at `k - 2` or before may be used. If
//!   superblock `k - 1` is lost, `k - 2` is whole.
//! - S2: no pinned generation `p` has `birth <= p < death`: a reader of an older root still follows pointers to it.
//! - S3: free, dead and live extents never overlap: what is given back twice is an error, not a free extent.
//! - S4: what is *set aside*, for a value that a transaction streams in, belongs to no tree yet. A log record may name it,
//!   so nothing else takes it; but the free map that a checkpoint writes has it as free. So after a crash it is, unless
//!   redo finds it named, in the log or by what is prepared, and sets it aside again, before anything is allocated.
//!
//! All of this is in memory; a checkpoint writes it out as one block (see `freemap`). Every lock on it is short.

use super::mapped::Known;
use super::ptr::{FIRST_BLOCK, Flaw, GRID, Ptr};
#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A piece of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Extent {
    pub(super) fn of(ptr: &Ptr) -> Extent {
        Extent { offset: ptr.offset, bytes: u64::from(ptr.bytes) }
    }

    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// A piece of the file that a newer tree no longer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) extent: Extent,
    pub(super) birth: u64,
    pub(super) death: u64,
}

/// Smaller free extents are passed over while the file has little free space: filling holes of a block each would
/// turn a checkpoint's large writes into many small ones.
const HOLE_BYTES_MIN: u64 = 16 << 10;

/// What a free extent takes in its two trees, and a dead one in its list.
const FREE_MEMORY: u64 = 64;
const DEAD_MEMORY: u64 = 48;

/// A free share of the file of one in this many makes holes worth filling.
const HOLE_SHARE: u64 = 5;

/// The state of the file's space.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// The end of the managed part: nothing beyond is used or free.
    end: u64,
    free: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    free_bytes: u64,
    dead: BTreeMap<u64, Vec<Dead>>,
    dead_bytes: u64,
    /// By offset (S4).
    aside: BTreeMap<u64, u64>,
    aside_bytes: u64,
    /// Streams that may take extents, or make the file longer.
    streams: usize,
    /// The file is being cut.
    is_cutting: bool,
    pins: BTreeMap<u64, usize>,
    /// Free extents, or parts of them, that are holes in the file: by offset, apart from each other.
    holes: BTreeMap<u64, u64>,
    hole_bytes: u64,
    /// Who may have views of what is dead (M3).
    pub(super) known: Option<Arc<Known>>,
    /// A test's deliberate mistake: S1 and S2 are ignored.
    pub(super) reuse_early: bool,
}

impl Space {
    /// The space as a free map states it. The lists must be sorted and lie within the file, as `freemap` checks.
    pub(super) fn new(end: u64, free: &[Extent], dead: Vec<Dead>) -> Result<Space, Flaw> {
        let mut space = Space { end, ..Space::default() };
        for extent in free {
            space.add_free(*extent)?;
        }
        space.bury(dead)?;
        Ok(space)
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    pub(super) fn dead_bytes(&self) -> u64 {
        self.dead_bytes
    }

    /// Bytes of blocks in use.
    pub(super) fn live_bytes(&self) -> u64 {
        self.end.saturating_sub(FIRST_BLOCK + self.free_bytes + self.dead_bytes + self.aside_bytes)
    }

    /// Keeps the blocks of a generation as they are until [`unpin`](Self::unpin) is called as often.
    pub(super) fn pin(&mut self, generation: u64) {
        *self.pins.entry(generation).or_default() += 1;
    }

    pub(super) fn unpin(&mut self, generation: u64) {
        if let Some(count) = self.pins.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&generation);
            }
        }
    }

    fn is_pinned(&self, dead: &Dead) -> bool {
        if self.reuse_early {
            return false;
        }
        self.pins.range(dead.birth..dead.death.max(dead.birth)).next().is_some()
    }

    /// Makes free what nobody has a view of; what somebody has is returned (M3).
    fn free_unseen(&mut self, dead: Dead) -> Result<Vec<Dead>, Flaw> {
        let held = self.known.as_ref().map(|known| known.let_go(dead.extent)).unwrap_or_default();
        let mut at = dead.extent.offset;
        self.dead_bytes -= dead.extent.bytes;
        for next in held.iter().chain([&Extent { offset: dead.extent.end(), bytes: 0 }]) {
            if next.offset > at {
                self.add_free(Extent { offset: at, bytes: next.offset - at })?;
            }
            self.dead_bytes += next.bytes;
            at = next.end();
        }
        Ok(held.into_iter().map(|extent| Dead { extent, ..dead }).collect())
    }

    /// Whether an extent is neither free, in part, nor set aside, nor outside the file.
    pub(super) fn is_in_use(&self, extent: Extent) -> bool {
        let aside = self.aside.range(..extent.end()).next_back();
        let is_aside = aside.is_some_and(|(offset, bytes)| offset.saturating_add(*bytes) > extent.offset);
        extent.end() <= self.end && !is_aside && !self.overlaps_free(extent)
    }

    /// Makes free what generation `building` may overwrite (S1, S2).
    pub(super) fn release(&mut self, building: u64) -> Result<(), Flaw> {
        let building = if self.reuse_early { building.saturating_add(2) } else { building };
        let Some(past) = building.checked_sub(2) else { return Ok(()) };
        let younger = self.dead.split_off(&past.saturating_add(1));
        let candidates = std::mem::replace(&mut self.dead, younger);
        for (death, list) in candidates {
            let (mut held, released): (Vec<Dead>, Vec<Dead>) =
                list.into_iter().partition(|dead| self.is_pinned(dead));
            for dead in released {
                held.extend(self.free_unseen(dead)?);
            }
            if !held.is_empty() {
                self.dead.insert(death, held);
            }
        }
        Ok(())
    }

    /// Adds dead extents; the state is unchanged if [`check_burial`](Self::check_burial) objects.
    pub(super) fn bury(&mut self, list: Vec<Dead>) -> Result<(), Flaw> {
        self.check_burial(&list)?;
        for dead in list {
            self.dead_bytes += dead.extent.bytes;
            self.dead.entry(dead.death).or_default().push(dead);
        }
        Ok(())
    }

    /// Objects if one of the extents is free, dead already, named twice, or outside the file (S3).
    pub(super) fn check_burial(&self, list: &[Dead]) -> Result<(), Flaw> {
        for dead in list {
            if dead.extent.end() > self.end || dead.extent.offset < FIRST_BLOCK {
                return Err(format!("the dead extent at {} is outside the file", dead.extent.offset));
            }
            if self.overlaps_free(dead.extent) {
                return Err(format!("the extent at {} is free and cannot die", dead.extent.offset));
            }
        }
        let mut all: Vec<Extent> = self.dead.values().flatten().chain(list).map(|dead| dead.extent).collect();
        all.sort_unstable();
        for (one, next) in all.iter().zip(all.iter().skip(1)) {
            if one.end() > next.offset {
                return Err(format!("the extent at {} died twice", next.offset));
            }
        }
        Ok(())
    }

    fn overlaps_free(&self, extent: Extent) -> bool {
        let before = self.free.range(..extent.end()).next_back();
        before.is_some_and(|(offset, bytes)| offset.saturating_add(*bytes) > extent.offset)
    }

    /// Gives an extent back, joined with its free neighbours.
    pub(super) fn add_free(&mut self, extent: Extent) -> Result<(), Flaw> {
        let on_grid = extent.offset.is_multiple_of(GRID) && extent.bytes.is_multiple_of(GRID);
        if extent.bytes == 0 || !on_grid || extent.offset < FIRST_BLOCK || extent.end() > self.end {
            return Err(format!("a free extent of {} bytes at {} cannot be", extent.bytes, extent.offset));
        }
        if self.overlaps_free(extent) {
            return Err(format!("the extent of {} bytes at {} was freed twice", extent.bytes, extent.offset));
        }
        self.free_bytes += extent.bytes;
        let (mut offset, mut end) = (extent.offset, extent.end());
        if let Some((&before, &bytes)) = self.free.range(..offset).next_back()
            && before + bytes == offset
        {
            self.unlist(before, bytes);
            offset = before;
        }
        if let Some(&bytes) = self.free.get(&end) {
            self.unlist(end, bytes);
            end += bytes;
        }
        self.list(offset, end - offset);
        Ok(())
    }

    fn list(&mut self, offset: u64, bytes: u64) {
        self.free.insert(offset, bytes);
        self.by_size.insert((bytes, offset));
    }

    fn unlist(&mut self, offset: u64, bytes: u64) {
        self.free.remove(&offset);
        self.by_size.remove(&(bytes, offset));
    }

    /// Takes an extent of `min` to `wanted` bytes: the tightest that has `wanted`, else the largest there is.
    /// `None` if the file had better grow; with `must`, only if nothing has `min` bytes.
    pub(super) fn take(&mut self, min: u64, wanted: u64, must: bool) -> Option<Extent> {
        let wanted = wanted.max(min);
        let found = self.by_size.range((wanted, 0)..).next().or_else(|| self.by_size.last()).copied();
        let (bytes, offset) = found.filter(|(bytes, _)| *bytes >= min)?;
        let worth_it = bytes >= wanted.min(HOLE_BYTES_MIN) || self.free_bytes >= self.end / HOLE_SHARE;
        if !must && !worth_it {
            return None;
        }
        let taken = bytes.min(wanted);
        self.unlist(offset, bytes);
        if taken < bytes {
            self.list(offset + taken, bytes - taken);
        }
        self.free_bytes -= taken;
        self.fill_holes(Extent { offset, bytes: taken });
        Some(Extent { offset, bytes: taken })
    }

    /// Takes an extent as [`take`](Self::take) does, and sets it aside (S4).
    pub(super) fn take_aside(&mut self, min: u64, wanted: u64, must: bool) -> Option<Extent> {
        let extent = self.take(min, wanted, must)?;
        self.put_aside(extent);
        Some(extent)
    }

    fn put_aside(&mut self, extent: Extent) {
        self.aside.insert(extent.offset, extent.bytes);
        self.aside_bytes += extent.bytes;
    }

    /// What was set aside is free again.
    pub(super) fn give_up(&mut self, extent: Extent) -> Result<(), Flaw> {
        self.adopt(&[extent])?;
        self.add_free(extent)
    }

    /// What was set aside belongs to the newest tree, or has just died with it.
    pub(super) fn adopt(&mut self, extents: &[Extent]) -> Result<(), Flaw> {
        for extent in extents {
            if self.aside.get(&extent.offset) != Some(&extent.bytes) {
                return Err(format!(
                    "{} bytes at {} were not set aside for a value",
                    extent.bytes, extent.offset
                ));
            }
            self.aside.remove(&extent.offset);
            self.aside_bytes -= extent.bytes;
        }
        Ok(())
    }

    /// Redo: a record names this extent. The map that was read may have parts of it as dead: what became free only after
    /// the map was written.
    pub(super) fn set_aside(&mut self, extent: Extent) -> Result<(), Flaw> {
        if self.aside.get(&extent.offset) == Some(&extent.bytes) {
            return Ok(());
        }
        let mut at = extent.offset;
        while at < extent.end() {
            at = match self.carve_free(at, extent.end()).or_else(|| self.carve_dead(at, extent.end())) {
                Some(next) => next,
                None => return Err(format!("a record's value has byte {at}, which something else has too")),
            };
        }
        self.put_aside(extent);
        Ok(())
    }

    /// Takes what is free from `at` on and below `end`. Where that ends.
    fn carve_free(&mut self, at: u64, end: u64) -> Option<u64> {
        let (&offset, &bytes) = self.free.range(..=at).next_back()?;
        let (free_end, next) = (offset + bytes, (offset + bytes).min(end));
        if free_end <= at {
            return None;
        }
        self.unlist(offset, bytes);
        if at > offset {
            self.list(offset, at - offset);
        }
        if free_end > next {
            self.list(next, free_end - next);
        }
        self.free_bytes -= next - at;
        Some(next)
    }

    /// As [`carve_free`](Self::carve_free), of what is dead.
    fn carve_dead(&mut self, at: u64, end: u64) -> Option<u64> {
        let holds = |dead: &Dead| dead.extent.offset <= at && dead.extent.end() > at;
        let list = self.dead.values_mut().find(|list| list.iter().any(holds))?;
        let dead = list.swap_remove(list.iter().position(holds)?);
        let next = dead.extent.end().min(end);
        for (from, to) in [(dead.extent.offset, at), (next, dead.extent.end())] {
            if from < to {
                list.push(Dead { extent: Extent { offset: from, bytes: to - from }, ..dead });
            }
        }
        self.dead_bytes -= next - at;
        Some(next)
    }

    /// Makes the managed part longer. What is added is set aside until it is known to be allocated.
    pub(super) fn claim(&mut self, bytes: u64) -> Extent {
        let extent = Extent { offset: self.end, bytes };
        self.end += bytes;
        self.put_aside(extent);
        extent
    }

    /// A claim could not be allocated: the managed part ends before it again, unless more was claimed since. True if
    /// it does.
    pub(super) fn unclaim(&mut self, extent: Extent) -> Result<bool, Flaw> {
        if extent.end() == self.end {
            self.adopt(&[extent])?;
            self.end = extent.offset;
            return Ok(true);
        }
        self.give_up(extent).map(|()| false)
    }

    /// What a free map says is free, when `adopted` is set aside no more; and where the last extent ends that is neither.
    pub(super) fn published(&self, adopted: &BTreeSet<Extent>) -> (Vec<Extent>, u64) {
        let aside = self.aside.iter().map(|(offset, bytes)| Extent { offset: *offset, bytes: *bytes });
        let mut all: Vec<Extent> =
            self.free().chain(aside.filter(|extent| !adopted.contains(extent))).collect();
        if !self.aside.is_empty() {
            all.sort_unstable();
            all.dedup_by(|next, before| {
                let joins = before.end() == next.offset;
                if joins {
                    before.bytes += next.bytes;
                }
                joins
            });
        }
        let used_end = match all.pop_if(|last| last.end() == self.end) {
            Some(last) => last.offset,
            None => self.end,
        };
        (all, used_end)
    }

    /// A stream begins, unless the file is being cut.
    pub(super) fn begin_stream(&mut self) -> bool {
        let is_cutting = self.is_cutting;
        #[cfg(seawall_shuttle)]
        let is_cutting = is_cutting && !errs(Misorder::StreamBesideCut);
        self.streams += usize::from(!is_cutting);
        !is_cutting
    }

    pub(super) fn end_stream(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }

    /// The file is about to be cut: false while a stream may write where it would be.
    pub(super) fn begin_cut(&mut self) -> bool {
        let is_alone = self.streams == 0;
        #[cfg(seawall_shuttle)]
        let is_alone = is_alone || errs(Misorder::CutBesideStreams);
        self.is_cutting = is_alone;
        is_alone
    }

    pub(super) fn end_cut(&mut self) {
        self.is_cutting = false;
    }

    /// The file has grown to `end`; what was added is free.
    pub(super) fn grow(&mut self, end: u64) -> Result<(), Flaw> {
        let added = Extent { offset: self.end, bytes: end.saturating_sub(self.end) };
        self.end = self.end.max(end);
        if added.bytes == 0 { Ok(()) } else { self.add_free(added) }
    }

    /// Where the last extent that is not free ends.
    pub(super) fn used_end(&self) -> u64 {
        match self.free.last_key_value() {
            Some((offset, bytes)) if offset + bytes == self.end => *offset,
            _ => self.end,
        }
    }

    /// Forgets the free space beyond `end`, which must be at or above [`used_end`](Self::used_end).
    pub(super) fn cut(&mut self, end: u64) {
        let last = self.free.last_key_value().map(|(offset, bytes)| (*offset, *bytes));
        if let Some((offset, bytes)) = last
            && offset + bytes == self.end
            && (offset..self.end).contains(&end)
        {
            self.unlist(offset, bytes);
            if end > offset {
                self.list(offset, end - offset);
            }
            self.free_bytes -= self.end - end;
            self.fill_holes(Extent { offset: end, bytes: self.end - end });
            self.end = end;
        }
    }

    /// Memory that the map takes, about.
    pub(super) fn memory_bytes(&self) -> u64 {
        (self.free.len() as u64 * FREE_MEMORY) + (self.dead_count() as u64 * DEAD_MEMORY)
    }

    /// The free extents of at least `bytes_min`, largest first.
    pub(super) fn largest_free(&self, bytes_min: u64) -> impl Iterator<Item = Extent> + '_ {
        let large = self.by_size.range((bytes_min, 0)..).rev();
        large.map(|(bytes, offset)| Extent { offset: *offset, bytes: *bytes })
    }

    /// Bytes of free space that are holes.
    pub(super) fn hole_bytes(&self) -> u64 {
        self.hole_bytes
    }

    /// This free extent is a hole now.
    pub(super) fn note_hole(&mut self, extent: Extent) {
        self.fill_holes(extent);
        self.holes.insert(extent.offset, extent.bytes);
        self.hole_bytes += extent.bytes;
    }

    /// Bytes of holes in an extent.
    pub(super) fn holes_within(&self, extent: Extent) -> u64 {
        self.holes_over(extent)
            .map(|hole| hole.end().min(extent.end()) - hole.offset.max(extent.offset))
            .sum()
    }

    fn holes_over(&self, extent: Extent) -> impl Iterator<Item = Extent> + '_ {
        let before =
            self.holes.range(..extent.offset).next_back().map_or(extent.offset, |(offset, _)| *offset);
        let holes = self.holes.range(before..extent.end());
        let holes = holes.map(|(offset, bytes)| Extent { offset: *offset, bytes: *bytes });
        holes.filter(move |hole| hole.end() > extent.offset)
    }

    /// No part of this is a hole any more.
    fn fill_holes(&mut self, extent: Extent) {
        let over: Vec<Extent> = self.holes_over(extent).collect();
        for hole in over {
            self.holes.remove(&hole.offset);
            self.hole_bytes -= hole.bytes;
            for (from, to) in [(hole.offset, extent.offset), (extent.end(), hole.end())] {
                if from < to {
                    self.holes.insert(from, to - from);
                    self.hole_bytes += to - from;
                }
            }
        }
    }

    /// Whether all of an extent is free.
    pub(super) fn is_free(&self, extent: Extent) -> bool {
        let around = self.free.range(..=extent.offset).next_back();
        around.is_some_and(|(offset, bytes)| offset + bytes >= extent.end())
    }

    /// Number of dead extents.
    pub(super) fn dead_count(&self) -> usize {
        self.dead.values().map(Vec::len).sum()
    }

    /// The free extents, lowest first.
    pub(super) fn free(&self) -> impl Iterator<Item = Extent> + '_ {
        self.free.iter().map(|(offset, bytes)| Extent { offset: *offset, bytes: *bytes })
    }

    /// The dead extents, in no order.
    pub(super) fn dead(&self) -> impl Iterator<Item = &Dead> + '_ {
        self.dead.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn extent(block: u64, blocks: u64) -> Extent {
        Extent { offset: block * GRID, bytes: blocks * GRID }
    }

    fn dead(block: u64, birth: u64, death: u64) -> Dead {
        Dead { extent: extent(block, 1), birth, death }
    }

    fn of_blocks(blocks: u64, free: &[Extent]) -> Space {
        Space::new(blocks * GRID, free, Vec::new()).unwrap()
    }

    #[test]
    fn neighbours_are_joined_and_split_again() {
        let mut space = of_blocks(100, &[extent(10, 2), extent(14, 2)]);
        space.add_free(extent(12, 2)).unwrap();
        assert_eq!(space.free().collect::<Vec<_>>(), [extent(10, 6)]);
        assert_eq!(space.take(GRID, 2 * GRID, true), Some(extent(10, 2)));
        assert_eq!(space.take(5 * GRID, 5 * GRID, true), None);
        assert_eq!(space.take(GRID, 9 * GRID, true), Some(extent(12, 4)));
        assert_eq!(space.free_bytes(), 0);
    }

    #[test]
    fn what_is_freed_twice_is_an_error() {
        let mut space = of_blocks(100, &[extent(10, 4)]);
        for (at, blocks) in [(10, 1), (13, 1), (9, 2), (13, 2), (8, 10), (1, 1), (99, 2)] {
            assert!(space.add_free(extent(at, blocks)).is_err(), "{at}+{blocks}");
            let one = Dead { extent: extent(at, blocks), birth: 1, death: 2 };
            assert!(space.bury(vec![one]).is_err(), "{at}+{blocks}");
        }
        space.bury(vec![dead(20, 1, 2)]).unwrap();
        assert!(space.bury(vec![dead(20, 1, 3)]).is_err());
        assert!(space.bury(vec![dead(21, 1, 3), dead(21, 1, 3)]).is_err());
        assert_eq!(space.free_bytes(), 4 * GRID);
        assert_eq!(space.dead_bytes(), GRID);
    }

    #[test]
    fn a_dead_block_is_free_when_both_superblocks_and_all_pins_are_past_it() {
        let mut space = of_blocks(100, &[]);
        space.bury(vec![dead(20, 3, 6), dead(22, 5, 6), dead(24, 1, 7)]).unwrap();
        space.pin(4);
        space.release(7).unwrap();
        assert_eq!(space.free_bytes(), 0, "6 is one behind: its superblock may be lost");
        space.release(8).unwrap();
        assert_eq!(space.free().collect::<Vec<_>>(), [extent(22, 1)], "3..6 is pinned by 4, 7 is too young");
        space.pin(4);
        space.unpin(4);
        space.release(9).unwrap();
        assert_eq!(space.free_bytes(), GRID);
        space.unpin(4);
        space.release(9).unwrap();
        assert_eq!((space.free_bytes(), space.dead_bytes()), (3 * GRID, 0));
        assert_eq!(space.live_bytes(), (100 - 2 - 3) * GRID);
    }

    #[test]
    fn small_holes_are_left_alone_until_there_are_many() {
        let mut space = of_blocks(100, &[extent(10, 2)]);
        assert_eq!(space.take(GRID, 100 * GRID, false), None);
        for block in 0..20 {
            space.add_free(extent(20 + 3 * block, 2)).unwrap();
        }
        assert_eq!(space.take(GRID, 100 * GRID, false), Some(extent(77, 2)));
    }

    #[test]
    fn holes_are_filled_by_what_is_taken_from_them() {
        let mut space = of_blocks(100, &[extent(10, 20), extent(50, 4)]);
        space.note_hole(extent(12, 4));
        space.note_hole(extent(20, 8));
        space.note_hole(extent(14, 4));
        assert_eq!(space.hole_bytes(), 14 * GRID);
        assert_eq!(space.holes_within(extent(13, 10)), (5 + 3) * GRID);
        assert_eq!(space.take(15 * GRID, 15 * GRID, true), Some(extent(10, 15)));
        assert_eq!((space.hole_bytes(), space.holes_within(extent(0, 100))), (3 * GRID, 3 * GRID));
        assert_eq!(space.take(5 * GRID, 5 * GRID, true), Some(extent(25, 5)));
        assert_eq!(space.hole_bytes(), 0);
    }

    #[test]
    fn the_file_grows_and_is_cut() {
        let mut space = of_blocks(10, &[extent(8, 2)]);
        space.grow(20 * GRID).unwrap();
        assert_eq!(space.free().collect::<Vec<_>>(), [extent(8, 12)]);
        assert_eq!(space.used_end(), 8 * GRID);
        space.cut(7 * GRID);
        assert_eq!(space.end(), 20 * GRID, "not into what is used");
        space.cut(9 * GRID);
        assert_eq!((space.end(), space.free_bytes()), (9 * GRID, GRID));
        space.cut(8 * GRID);
        assert_eq!((space.end(), space.free_bytes(), space.used_end()), (8 * GRID, 0, 8 * GRID));
    }
}
