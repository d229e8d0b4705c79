//! Images: a store's data file, copied while the store goes on, for somebody who then follows its log.
//!
//! ```text
//! the store: pin the newest root, and the log from its checkpoint on ─► the blocks in use, in order, in pieces
//!                                                                                  │
//! the copy:  data.new ◄────────────────────────────────────────────────────────────┘  how far, in `image`
//!            both superblocks ─► synced ─► every checksum verified ─► an empty log ─► renamed to `data`
//! ```
//!
//! A root is immutable, so that is a consistent state whatever happens meanwhile. Its blocks are in the file, and on the
//! device, since its superblock was written. What is in no tree is copied too if a prepared transaction waits for it: the
//! extents of the values that were streamed in for it.
//!
//! The copy is no store before the last step: a crash at any call leaves something that goes on where it was.

mod progress;
mod writer;

pub(crate) use progress::fuzz;
pub use writer::ImageWriter;
pub(crate) use writer::{PROGRESS_NAME, log_options};

use crate::db::{Core, Db};
use crate::record::{BRANCHES, BranchRow};
use crate::tree::image::Run;
use crate::tree::{LargeValue, Root, Superblock, TreeStore};
use crate::{Error, Result};
use seawall_wal::{Lsn, Pin};
use std::sync::Arc;

/// What an image is of.
///
/// ```
/// # use seawall_engine::{Db, ImageInfo};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// let info = db.image()?.info().clone();
/// let received = ImageInfo::from_superblock(info.superblock())?;
/// assert_eq!(received, info);
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The store.
    pub store_id: [u8; 16],
    /// Counts the store's checkpoints.
    pub generation: u64,
    /// Everything below is in the image: the log is needed from here on.
    pub checkpoint_lsn: Lsn,
    /// The length of the data file.
    pub file_bytes: u64,
    /// Of the log.
    pub segment_bytes: u64,
    superblock: Superblock,
    bytes: Vec<u8>,
}

impl ImageInfo {
    fn of(superblock: &Superblock) -> ImageInfo {
        ImageInfo {
            store_id: superblock.store_id,
            generation: superblock.generation,
            checkpoint_lsn: superblock.checkpoint_lsn,
            file_bytes: superblock.file_bytes,
            segment_bytes: superblock.segment_bytes,
            superblock: superblock.clone(),
            bytes: superblock.encode().to_vec(),
        }
    }

    /// From the bytes of the superblock, as they were sent.
    ///
    /// # Errors
    /// `BadInput` for anything else; `FormatVersion`.
    pub fn from_superblock(bytes: &[u8]) -> Result<ImageInfo> {
        Ok(ImageInfo::of(&Superblock::of_slot(bytes)?))
    }

    /// The superblock's bytes: all that who writes the image needs to know.
    pub fn superblock(&self) -> &[u8] {
        &self.bytes
    }
}

/// A piece of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePiece {
    /// Where in the data file.
    pub offset: u64,
    /// The bytes, whole blocks.
    pub bytes: Vec<u8>,
}

impl ImagePiece {
    /// Where the next piece is asked for.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }
}

/// A store's data file as of its newest checkpoint, to be copied: see [`Db::image`]. As long as it is held, the blocks that it
/// is made of are not used again, and the log is kept from that checkpoint on.
#[derive(Debug)]
pub struct Image {
    info: ImageInfo,
    runs: Vec<Run>,
    store: Arc<TreeStore>,
    _root: Arc<Root>,
    _log: Pin,
}

impl Image {
    /// What it is of.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// Bytes of all pieces from an offset of the data file on.
    pub fn bytes_from(&self, offset: u64) -> u64 {
        self.runs.iter().map(|run| run.end.saturating_sub(run.start.max(offset))).sum()
    }

    /// The first piece at or behind an offset of the data file, of at most about `bytes_max`. None: that was all.
    ///
    /// # Errors
    /// What reading the data file meets.
    pub fn piece(&self, offset: u64, bytes_max: usize) -> Result<Option<ImagePiece>> {
        let next = self.runs.partition_point(|run| run.end <= offset);
        let Some(run) = self.runs.get(next) else { return Ok(None) };
        let grid = seawall_wal::disk::BLOCK_BYTES as u64;
        let bytes_max = (bytes_max as u64 / grid * grid).max(grid);
        let offset = run.start.max(offset / grid * grid);
        let run = offset..run.end.min(offset.saturating_add(bytes_max));
        let bytes = self.store.read_run(&run)?;
        let bytes = bytes.get(..(run.end - run.start) as usize).unwrap_or_default().to_vec();
        Ok(Some(ImagePiece { offset, bytes }))
    }
}

impl Db {
    /// An image of the store as of its newest checkpoint, which stays as it is while the store goes on. An
    /// [`ImageWriter`] makes a store of it, which then follows this one's log from
    /// [`checkpoint_lsn`](ImageInfo::checkpoint_lsn) on. A replica can give one, too.
    ///
    /// To follow, [create a slot](Db::create_slot) first: it keeps the log when the image is gone, and sees to it that
    /// all bytes of later commits are in the log. A checkpoint is made if the newest one is from before that.
    ///
    /// # Errors
    /// `Closed`, and what reading meets; what a checkpoint does, if one is made.
    ///
    /// ```
    /// # use seawall_engine::{Db, ImageWriter, SlotOptions};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// # let db = Db::builder("/store").disk(disk.clone()).segment_bytes(256 << 10).open()?;
    /// # db.keyspace("rows")?.insert("a", "1")?;
    /// db.create_slot("replica-1", SlotOptions::default())?;
    /// let image = db.image()?;
    /// let mut writer = ImageWriter::begin(&Db::builder("/copy").disk(disk.clone()), image.info())?;
    /// while let Some(piece) = image.piece(writer.offset(), 1 << 20)? {
    ///     writer.write(&piece)?;
    /// }
    /// writer.finish(0, &Default::default())?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn image(&self) -> Result<Image> {
        self.core().check_open()?;
        self.core().image()
    }
}

impl Core {
    fn image(&self) -> Result<Image> {
        let newest = || Arc::clone(&self.reads.view().root);
        // L4: what is named outside of the log has to be in the tree.
        if newest().superblock.checkpoint_lsn < self.slots.outside_end() {
            self.fold.insist();
            self.checkpoint()?;
        }
        loop {
            let root = newest();
            let from = root.superblock.checkpoint_lsn;
            match self.log.pin("image", from) {
                Ok(log) => return self.image_of(root, log),
                // A checkpoint has just come in between.
                Err(_) if newest().superblock.checkpoint_lsn > from => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn image_of(&self, root: Arc<Root>, log: Pin) -> Result<Image> {
        let store = Arc::clone(&self.store);
        let runs = store.runs_in_use(&root, &values_in_doubt(&store, &root)?)?;
        Ok(Image { info: ImageInfo::of(&root.superblock), runs, store, _root: root, _log: log })
    }
}

/// The values that were streamed in for what a root has as prepared.
fn values_in_doubt(store: &Arc<TreeStore>, root: &Arc<Root>) -> Result<Vec<LargeValue>> {
    let damaged = |what: String| Error::Corruption {
        file: store.path().to_owned(),
        offset: 0,
        lsn: None,
        what: format!("a prepared transaction: {what}"),
    };
    let mut values = Vec::new();
    let mut rows = store.cursor(root, BRANCHES);
    while rows.advance()? {
        match BranchRow::decode(&rows.value()?) {
            Some(BranchRow::Prepared(row)) => {
                for value in row.set.large() {
                    values.push(LargeValue::decode(value).map_err(damaged)?);
                }
            }
            Some(BranchRow::Completed(_)) => {}
            None => return Err(damaged("what is kept of it is damaged".to_owned())),
        }
    }
    Ok(values)
}
