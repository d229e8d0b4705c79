//! Giving space back: to the next fold, and to the file system.
//!
//! What a fold replaced is free once both superblocks are past it (S1). So a checkpoint ends by *repeating* its superblock
//! in the other slot, as a generation of its own with the same trees: then neither slot leads to the trees before, and the
//! next fold may write where they stood. Without it every byte replaced would wait for one more checkpoint, and a file that is
//! rewritten as a whole would need room for three trees instead of two.
//!
//! Beyond what the next fold is to find, free space goes back to the file system: the file's tail is cut off, and large free
//! extents become holes. Only what is *free* does: no superblock and no reader leads there (S1, S2), so a crash in the middle, or
//! a hole that the disk forgets, changes nothing that anybody reads.

use super::ptr::GRID;
use super::space::{Extent, Space};
use super::superblock::{SLOT_BYTES, Superblock};
use super::{Latest, Reach, Result, Root, TreeStore};
#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Smaller free extents are left: a hole costs a call, and writing into it again costs an allocation.
const HOLE_BYTES_MIN: u64 = 32 << 10;
/// Holes made in one go, at most, the largest extents first.
const HOLES_MAX: usize = 8192;
/// Free space kept inside the file, so that a checkpoint can run on a full disk, in bytes.
pub(super) const RESERVE_BYTES: u64 = 16 << 20;

impl TreeStore {
    /// Writes the newest superblock into the other slot too, as the next generation. As with a fold, `root` must be the
    /// newest.
    ///
    /// # Errors
    /// `Io` if it cannot be written; the store remembers that (T2).
    pub(crate) fn repeat(self: &Arc<Self>, root: &Arc<Root>) -> Result<Arc<Root>> {
        self.check_usable()?;
        let superblock =
            Superblock { generation: root.generation.saturating_add(1), ..root.superblock.clone() };
        if !self.is_unrepeated.load(Ordering::Relaxed) {
            self.write_superblock(&superblock)?;
        }
        {
            let mut latest = self.latest.lock();
            *latest = Latest {
                generation: superblock.generation,
                file_bytes: superblock.file_bytes,
                file_bytes_before: latest.file_bytes,
                blocks: superblock.blocks,
                reach: Reach::of(&superblock),
                reach_before: latest.reach,
            };
        }
        let trees = root.trees.iter().map(|(keyspace, tree)| (*keyspace, tree.root)).collect();
        Ok(Root::new(superblock, trees, root.runs.clone(), &self.space))
    }

    /// Frees what neither superblock nor a reader leads to any more; of what is free beyond `keep` bytes, gives back to the
    /// file system what lies in large pieces. To be called while no fold runs; best effort: who holds a root keeps what it needs.
    ///
    /// # Errors
    /// `Corruption` if the free space contradicts itself.
    pub(crate) fn release_space(&self, keep: u64) -> Result<()> {
        if self.check_usable().is_err() || self.is_folding.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let latest = *self.latest.lock();
        let released = {
            let mut space = self.space.lock();
            let released = space.release(latest.generation.saturating_add(1));
            self.memory.space_map.store(space.memory_bytes(), Ordering::Relaxed);
            released
        };
        if let Err(flaw) = released {
            return Err(self.fail(self.corruption(0, flaw)));
        }
        self.cut_tail(latest, keep);
        self.punch_holes(keep);
        self.is_folding.store(false, Ordering::Release);
        Ok(())
    }

    fn cut_tail(&self, latest: Latest, keep: u64) {
        let (end, free, used_end) = {
            let space = self.space.lock();
            (space.end(), space.solid_free_bytes(), space.used_end())
        };
        // Neither superblock leads beyond this, and no reader does: what readers hold is dead, not free.
        let used = used_end.max(latest.file_bytes).max(latest.file_bytes_before);
        let spare = free.saturating_sub(keep.max(self.reserve()));
        let target = end.saturating_sub(spare).max(used).next_multiple_of(GRID);
        // Who streams a value in may write, or make the file longer, at its end.
        if end.saturating_sub(target) < HOLE_BYTES_MIN || !self.space.lock().begin_cut() {
            return;
        }
        let is_free = self.space.lock().used_end() <= target;
        #[cfg(seawall_shuttle)]
        let is_free = is_free || errs(Misorder::CutUnseen);
        if is_free && self.file.set_len(target).is_ok() {
            self.space.lock().cut(target);
            self.end.store(target, Ordering::Release);
            self.totals.returned.fetch_add(1, Ordering::Relaxed);
        }
        self.space.lock().end_cut();
    }

    fn punch_holes(&self, keep: u64) {
        let keep = keep.max(self.reserve());
        let punches_dead = self.is_punching_early.load(Ordering::Relaxed);
        let believes = punches_dead;
        #[cfg(seawall_shuttle)]
        let believes = believes || errs(Misorder::PunchUnseen);
        let extents = self.space.lock().to_punch(keep, HOLE_BYTES_MIN, HOLES_MAX, punches_dead);
        for extent in extents {
            // Who streams a value in may have taken it since, and would write into it now.
            let begins = {
                let mut space = self.space.lock();
                (believes || space.is_free(extent)) && space.begin_cut()
            };
            if !begins {
                continue;
            }
            let is_punched = self.file.punch(extent.offset, extent.bytes).is_ok();
            {
                let mut space = self.space.lock();
                if is_punched {
                    space.note_hole(extent);
                }
                space.end_cut();
            }
            // A file system that cannot do it will not do it for the next one either.
            if !is_punched {
                return;
            }
            self.totals.returned.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How much stays allocated whatever happens.
    pub(super) fn reserve(&self) -> u64 {
        RESERVE_BYTES.min(self.space.lock().live_bytes() / 2).next_multiple_of(GRID)
    }

    /// Writes the superblock. Once begun, nobody knows which generation the disk holds until this has succeeded.
    pub(super) fn write_superblock(&self, superblock: &Superblock) -> Result<()> {
        let mut slot = self.zeroed(SLOT_BYTES)?;
        super::bytes::put(&mut slot, 0, &superblock.encode());
        let offset = Superblock::slot_offset(superblock.generation);
        let written = self.file.write_durable_at(&slot, offset);
        written.map_err(|error| self.fail(self.io("write of the superblock", Some(offset), error)))
    }
}

impl Space {
    /// Free bytes that take room on the disk.
    pub(super) fn solid_free_bytes(&self) -> u64 {
        self.free_bytes().saturating_sub(self.hole_bytes())
    }

    /// The largest free extents, as long as more than `keep` bytes stay that are no holes. With `early`, a test's deliberate
    /// mistake, also what is dead.
    fn to_punch(&self, keep: u64, bytes_min: u64, count_max: usize, early: bool) -> Vec<Extent> {
        let mut left = self.solid_free_bytes().saturating_sub(keep);
        let mut found = Vec::new();
        for extent in self.largest_free(bytes_min) {
            let solid = extent.bytes.saturating_sub(self.holes_within(extent));
            if left < bytes_min || found.len() >= count_max {
                break;
            }
            if solid < bytes_min {
                continue;
            }
            let bytes = if solid == extent.bytes { extent.bytes.min(left) } else { extent.bytes };
            let bytes = bytes - bytes % GRID;
            left = left.saturating_sub(bytes);
            found.push(Extent { offset: extent.end() - bytes, bytes });
        }
        if early {
            found.extend(self.dead().map(|dead| dead.extent));
        }
        found
    }
}
