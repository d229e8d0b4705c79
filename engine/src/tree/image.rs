//! The bytes that a root is made of, for a copy of it elsewhere.

use super::freemap;
use super::ptr::{FIRST_BLOCK, Flaw, GRID};
use super::space::Extent;
use super::superblock::{FORMAT_VERSION, SLOT_BYTES, Slot, Superblock};
use super::{Error, LargeValue, Result, Root, TreeStore};
use seawall_wal::{AlignedBuf, DiskFile};
use std::path::Path;

/// A run of bytes of the file, on the grid.
pub(crate) type Run = std::ops::Range<u64>;

impl TreeStore {
    /// The runs of the file that this root needs, in order and apart from each other: all but what its free map has as free or
    /// as dead, and `apart`, the values that are in no tree.
    ///
    /// # Errors
    /// What reading the free map meets.
    pub(crate) fn runs_in_use(&self, root: &Root, apart: &[LargeValue]) -> Result<Vec<Run>> {
        let superblock = &root.superblock;
        let mut unused: Vec<Extent> = Vec::new();
        if let Some(ptr) = &superblock.free_map {
            let map = self.read_verified(ptr)?;
            let (free, dead) = freemap::decode(&map, ptr, superblock.file_bytes)
                .map_err(|flaw| self.corruption(ptr.offset, flaw))?;
            unused.extend(free);
            unused.extend(dead.into_iter().map(|dead| dead.extent));
        }
        unused.sort_unstable();
        let mut runs: Vec<Run> = Vec::new();
        let mut at = FIRST_BLOCK;
        for extent in unused.into_iter().chain([Extent { offset: superblock.file_bytes, bytes: 0 }]) {
            runs.push(at..extent.offset);
            at = at.max(extent.end());
        }
        let pieces = apart.iter().flat_map(LargeValue::pieces);
        runs.extend(pieces.map(|ptr| ptr.offset..ptr.end()));
        runs.retain(|run| !run.is_empty());
        runs.sort_unstable_by_key(|run| run.start);
        runs.dedup_by(|next, before| {
            let joins = next.start <= before.end;
            if joins {
                before.end = before.end.max(next.end);
            }
            joins
        });
        Ok(runs)
    }

    /// A part of the file, from the device where that can be.
    ///
    /// # Errors
    /// `Io`; `Corruption` if the file is too short.
    pub(crate) fn read_run(&self, run: &Run) -> Result<AlignedBuf> {
        let mut buf = self.zeroed((run.end - run.start) as usize)?;
        let (read, _) = self
            .file
            .read_device_at(&mut buf, run.start)
            .map_err(|error| self.io("read", Some(run.start), error))?;
        if (read as u64) < run.end - run.start {
            return Err(self.corruption(run.start + read as u64, "the file ends within what is in use"));
        }
        Ok(buf)
    }
}

impl Superblock {
    /// Bytes of one.
    pub(crate) const BYTES: usize = SLOT_BYTES;

    /// From a slot's bytes, which say themselves which slot it is.
    ///
    /// # Errors
    /// `FormatVersion`; `BadInput` for what is no superblock.
    pub(crate) fn of_slot(slot: &[u8]) -> Result<Superblock> {
        let mut flaw = Flaw::new();
        for index in [0, 1] {
            match Superblock::decode(slot, index) {
                Slot::Valid(superblock) => return Ok(*superblock),
                Slot::Newer(found) => {
                    return Err(Error::FormatVersion { found, supported: FORMAT_VERSION..=FORMAT_VERSION });
                }
                Slot::Invalid { flaw: found, .. } => flaw = found,
            }
        }
        Err(Error::BadInput(format!("this is no image of a store: {flaw}")))
    }

    /// Makes this the superblock of a copied file, in both slots: as it is, and repeated as the next generation. Not synced.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(crate) fn install(&self, file: &dyn DiskFile, path: &Path) -> Result<()> {
        let repeated = Superblock { generation: self.generation.saturating_add(1), ..self.clone() };
        for superblock in [self, &repeated] {
            let offset = Superblock::slot_offset(superblock.generation);
            file.write_at(&superblock.encode(), offset)
                .map_err(|error| Error::io("write", path, Some(offset), error))?;
        }
        Ok(())
    }
}

/// Whether a run could be part of a file's blocks.
pub(crate) fn is_run(run: &Run) -> bool {
    let on_grid = run.start.is_multiple_of(GRID) && run.end.is_multiple_of(GRID);
    on_grid && run.start >= FIRST_BLOCK && run.start < run.end
}
