//! Going back to the older superblock.
//!
//! Generation `g` stands in one slot and `n`, newer, in the other. What `g` leads to is whole as long as its slot is: a fold that
//! built `n`, or one that was building the generation after it and never came to write its superblock, has only used what died
//! at `n - 2` or before (S1), and nothing of `g`'s trees did. So `g` can be made the state that counts: its superblock, as
//! generation `n + 2`, over the slot of `n`.
//!
//! That number is `n`'s own slot's, above all that were ever used, and two above the birth of any block that `n` wrote, which
//! nothing leads to any more. Both slots then lead to the trees of `g`, as after a superblock was repeated: what `g`'s free map has as
//! dead died at `g` or before, and the next fold, which builds `n + 3`, may use it. Values that were streamed in since `g` are
//! free by that map; those that a record of the log still names are set aside by redo, as ever (S4), and their bytes are there:
//! what `n` put into its trees it has not used again, and what `n` buried is free two generations later at the earliest.

use super::open::{SLOTS_BYTES, buffer};
use super::superblock::{FORMAT_VERSION, SLOT_BYTES, Slot, Superblock};
use super::{Error, Result};
use seawall_wal::{DiskFile, Lsn};
use std::path::Path;

/// What there is to go back to.
#[derive(Debug)]
pub(crate) struct Choice {
    /// What is to count.
    pub(crate) superblock: Superblock,
    /// The generation that counts now.
    newest: u64,
    /// The superblock was read from the device, not from memory.
    is_from_device: bool,
}

impl Choice {
    /// The newest superblock that has nothing from `to` on, of a file that nobody else has open.
    ///
    /// # Errors
    /// `NeedsImage` if neither is so old; `Corruption`, `FormatVersion`, `Io`.
    pub(crate) fn at_or_below(to: Lsn, file: &dyn DiskFile, path: &Path) -> Result<Choice> {
        let mut slots = buffer(SLOTS_BYTES, path)?;
        let (read, is_from_device) =
            file.read_device_at(&mut slots, 0).map_err(|error| Error::io("read", path, Some(0), error))?;
        let damaged = |offset, what| Error::Corruption { file: path.to_owned(), offset, lsn: None, what };
        if read < SLOTS_BYTES {
            return Err(damaged(read as u64, "the file ends within the superblocks".to_owned()));
        }
        let mut found: Vec<Superblock> = Vec::new();
        for (index, slot) in slots.chunks(SLOT_BYTES).enumerate() {
            match Superblock::decode(slot, index as u64) {
                Slot::Valid(superblock) => found.push(*superblock),
                Slot::Newer(found) => {
                    return Err(Error::FormatVersion { found, supported: FORMAT_VERSION..=FORMAT_VERSION });
                }
                Slot::Invalid { .. } => {}
            }
        }
        found.sort_by_key(|superblock| std::cmp::Reverse(superblock.generation));
        let Some(newest) = found.first().map(|superblock| (superblock.generation, superblock.store_id))
        else {
            return Err(damaged(0, "neither superblock is valid".to_owned()));
        };
        if found.iter().any(|superblock| superblock.store_id != newest.1) {
            return Err(damaged(0, "the superblocks are of two different stores".to_owned()));
        }
        let oldest = found.last().map_or(Lsn::ZERO, |superblock| superblock.checkpoint_lsn);
        let is_old_enough =
            |superblock: &Superblock| superblock.checkpoint_lsn <= to && superblock.applied_lsn <= to;
        match found.into_iter().find(is_old_enough) {
            Some(superblock) => Ok(Choice { superblock, newest: newest.0, is_from_device }),
            None => {
                let what = format!("its data file has what the log says up to LSN {oldest}, at the least");
                Err(Error::NeedsImage { to, what })
            }
        }
    }

    /// Makes that superblock the one that counts, on the device when this returns.
    ///
    /// # Errors
    /// `Io`: which of the two counts is then not known; that can be done again.
    pub(crate) fn settle(&self, file: &dyn DiskFile, path: &Path) -> Result<()> {
        let chosen = &self.superblock;
        let is_newest = chosen.generation == self.newest;
        if !is_newest || !self.is_from_device {
            let generation = if is_newest { chosen.generation } else { self.newest.saturating_add(2) };
            let offset = Superblock::slot_offset(generation);
            let mut slot = buffer(SLOT_BYTES, path)?;
            super::bytes::put(&mut slot, 0, &Superblock { generation, ..chosen.clone() }.encode());
            file.write_durable_at(&slot, offset)
                .map_err(|error| Error::io("write", path, Some(offset), error))?;
        }
        file.sync_data().map_err(|error| Error::io("sync", path, None, error))
    }
}
