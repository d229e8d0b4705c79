//! A log that was written goes back to where another parted from it, and becomes a replica's.
//!
//! The anchor says first where it goes back to; a crash from there on is finished by rewinding again, to the same place.
//! Then segments that begin behind the place go, the newest first, and what stands behind it in its segment becomes
//! zeros; then the anchor says that it is done. Until then nobody opens the log.

use crate::Lsn;
use crate::anchor::{self, Anchor};
use crate::buf::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, Open};
use crate::error::{Error, Result};
use crate::open::read_anchor;
use crate::options::WalOptions;
use crate::segment::{self, Geometry};
use crate::spares::{lock_file, open_locked};
use crate::timeline::History;
use crate::writer::segment_path;
use std::path::Path;
use std::sync::Arc;

/// Bytes that are zeroed by one write.
const ZEROS_BYTES: usize = 1 << 20;

/// Takes everything from the place `to` on out of the closed log in `dir`, and makes it a replica's: it goes on with what
/// the primary of epoch `promised`, whose `history` this is, ships from there on. `to` is where a frame begins or would:
/// where the two logs part. May be repeated, after a crash or without one. A log that has no more than that stays as it is.
///
/// The owner of the log must not have applied what goes.
///
/// # Errors
/// [`Error::BadInput`] for a place at which no frame begins, or before the log's beginning; [`Error::Fenced`] if a higher
/// epoch was promised; [`Error::Locked`], [`Error::Corruption`], [`Error::Io`], [`Error::NoSpace`].
pub fn rewind(
    dir: impl AsRef<Path>,
    options: &WalOptions,
    to: Lsn,
    promised: u64,
    history: &History,
) -> Result<()> {
    let dir = dir.as_ref();
    let mut options = options.clone();
    options.settle_disk(dir)?;
    let disk = options.disk_or_default();
    let path = dir.join(anchor::FILE_NAME);
    let file = disk.open(&path, Open::ReadWrite).map_err(|source| Error::io("open", &path, None, source))?;
    lock_file(&*disk, &*file, &path)?;
    let anchor = read(&*file, &path)?;
    let mut rewinding = Rewinding { disk: &disk, dir, path: &path, file, anchor };
    rewinding.check(to, promised)?;
    rewinding.write(|anchor| {
        (anchor.is_replica, anchor.rewinding, anchor.promised) = (true, to, promised);
        anchor.durable = anchor.durable.min(to);
        anchor.replica_durable =
            if anchor.replica_durable == Lsn::ZERO { to } else { anchor.replica_durable.min(to) };
        (anchor.clean, anchor.closed) = (false, None);
        anchor.history = *history;
    })?;
    rewinding.cut(to)?;
    rewinding.write(|anchor| anchor.rewinding = Lsn::ZERO)
}

struct Rewinding<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    path: &'a Path,
    file: Arc<dyn DiskFile>,
    anchor: Anchor,
}

impl Rewinding<'_> {
    fn geometry(&self) -> Geometry {
        Geometry { segment_bytes: self.anchor.segment_bytes }
    }

    fn check(&self, to: Lsn, promised: u64) -> Result<()> {
        let Anchor { first, promised: before, rewinding, epoch, .. } = self.anchor;
        if !to.0.is_multiple_of(BLOCK_BYTES as u64) || to < first {
            return Err(Error::BadInput(format!(
                "the log, which begins at {first}, cannot be rewound to {to}"
            )));
        }
        if rewinding != Lsn::ZERO && rewinding < to {
            return Err(Error::BadInput(format!(
                "the log is being rewound to {rewinding}, and so has nothing at {to}"
            )));
        }
        if promised < before.max(epoch) {
            return Err(Error::Fenced { epoch: before.max(epoch) });
        }
        Ok(())
    }

    fn write(&mut self, change: impl FnOnce(&mut Anchor)) -> Result<()> {
        let mut next = self.anchor;
        change(&mut next);
        next.sequence += 1;
        let mut buf = AlignedBuf::zeroed(BLOCK_BYTES)
            .map_err(|source| Error::io("map memory for", self.path, None, source))?;
        buf.copy_from_slice(&next.encode());
        self.file
            .write_durable_at(&buf, next.offset())
            .map_err(|source| Error::io("write", self.path, Some(next.offset()), source))?;
        self.anchor = next;
        Ok(())
    }

    /// Takes what stands from `to` on out of the files.
    fn cut(&self, to: Lsn) -> Result<()> {
        let geometry = self.geometry();
        let names = self.disk.list(self.dir).map_err(|source| Error::io("list", self.dir, None, source))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        numbers.sort_unstable();
        // The newest first: what is left is a log at every moment.
        for number in numbers.iter().rev().filter(|number| geometry.start(**number) >= to) {
            let path = segment_path(self.dir, *number);
            drop(open_locked(&**self.disk, self.dir, *number)?);
            self.disk.remove(&path).map_err(|source| Error::io("remove", &path, None, source))?;
            self.sync_dir()?;
        }
        let number = geometry.number(to);
        if !numbers.contains(&number) || geometry.offset(to) == 0 {
            return self.sync_dir();
        }
        let path = segment_path(self.dir, number);
        let file = open_locked(&**self.disk, self.dir, number)?;
        let zeros = AlignedBuf::zeroed(ZEROS_BYTES)
            .map_err(|source| Error::io("map memory for", &path, None, source))?;
        let bytes = file.len().map_err(|source| Error::io("stat", &path, None, source))?;
        let mut offset = geometry.offset(to);
        while offset < bytes {
            let piece = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(zeros.len());
            let piece = zeros.get(..piece).unwrap_or_default();
            file.write_at(piece, offset).map_err(|source| Error::io("write", &path, Some(offset), source))?;
            offset += piece.len() as u64;
        }
        file.sync_data().map_err(|source| Error::io("sync", &path, None, source))
    }

    fn sync_dir(&self) -> Result<()> {
        self.disk.sync_dir(self.dir).map_err(|source| Error::io("sync directory", self.dir, None, source))
    }
}

/// The anchor, from the device; where that is not to be had, written again.
fn read(file: &dyn DiskFile, path: &Path) -> Result<Anchor> {
    let (anchor, from_device) = read_anchor(file, path)?;
    if !from_device {
        file.write_at(&anchor.encode(), anchor.offset())
            .map_err(|source| Error::io("write", path, Some(anchor.offset()), source))?;
    }
    file.sync_data().map_err(|source| Error::io("sync", path, None, source))?;
    Ok(anchor)
}
