//! A store's slots and images, for its replicas.

use super::{ImageSource, Keeping, Stretch};
use bytes::Bytes;
use parking_lot::Mutex;
use seawall_engine::{Db, Error, Image, SlotOptions, SlotState};
use seawall_wal::disk::BLOCK_BYTES;
use seawall_wal::{Lsn, Runtime};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// For so long an image whose copy was interrupted can be gone on with.
const IMAGE_KEPT: Duration = Duration::from_secs(600);

/// The image that was given last, for who is interrupted, and when it was.
type Kept = Arc<Mutex<Option<(Arc<Image>, Duration)>>>;

/// Keeps a store's log for its replicas by slots, and gives them images.
pub struct Keeper {
    db: Db,
    limits: SlotOptions,
    runtime: Arc<dyn Runtime>,
    image: Kept,
}

impl Keeper {
    /// For the replicas of this store; slots that it makes have these limits.
    pub fn new(db: &Db, limits: SlotOptions, runtime: Arc<dyn Runtime>) -> Keeper {
        Keeper { db: db.clone(), limits, runtime, image: Arc::default() }
    }

    /// Lets go of an image that nobody has asked for lately: it keeps log, and room in the data file. To be called now and then.
    pub fn tidy(&self) {
        let now = self.runtime.now();
        let is_old = |(image, at): &mut (Arc<Image>, Duration)| {
            now.saturating_sub(*at) > IMAGE_KEPT && Arc::strong_count(image) == 1
        };
        let old = self.image.lock().take_if(is_old);
        drop(old);
    }
}

impl Keeping for Keeper {
    fn keeps(&self, name: &str, place: Lsn) -> io::Result<bool> {
        if let Some(slot) = self.db.slots().iter().find(|slot| slot.name == name) {
            // A lost one is not made anew by coming back: else its limits would be none.
            return Ok(slot.state != SlotState::Lost);
        }
        // As after a promotion: this store has no slots of those who followed the one before it.
        match self.db.create_slot_at(name, self.limits, place) {
            Ok(()) => Ok(true),
            Err(Error::NeedsImage { .. }) => Ok(false),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn keep(&self, name: &str) -> io::Result<()> {
        if self.db.slots().iter().any(|slot| slot.name == name) {
            // It may be ahead of the image that is to come.
            self.db.drop_slot(name).map_err(io::Error::other)?;
        }
        self.db.create_slot(name, self.limits).map_err(io::Error::other)
    }

    fn advance_slot(&self, name: &str, durable: Lsn) -> bool {
        // What a replica asks for after a crash begins with a block.
        let place = Lsn(durable.0 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
        !matches!(self.db.advance_slot(name, place, durable), Err(Error::SlotLost(_) | Error::SlotMissing(_)))
    }

    fn image(&self, about: &[u8]) -> io::Result<Box<dyn ImageSource>> {
        let found = self.image.lock().as_ref().map(|(image, _)| Arc::clone(image));
        let image = match found.filter(|image| image.info().superblock() == about) {
            Some(image) => image,
            // A checkpoint: others do not wait for it.
            None => Arc::new(self.db.image().map_err(io::Error::other)?),
        };
        let before = self.image.lock().replace((Arc::clone(&image), self.runtime.now()));
        drop(before);
        Ok(Box::new(Source { image, kept: Arc::clone(&self.image) }))
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("limits", &self.limits).finish_non_exhaustive()
    }
}

struct Source {
    image: Arc<Image>,
    kept: Kept,
}

impl ImageSource for Source {
    fn about(&self) -> Bytes {
        Bytes::copy_from_slice(self.image.info().superblock())
    }

    fn read(&mut self, from: u64, bytes_max: usize) -> io::Result<Option<Stretch>> {
        let piece = self.image.piece(from, bytes_max).map_err(io::Error::other)?;
        if piece.is_none() {
            self.kept.lock().take_if(|(image, _)| Arc::ptr_eq(image, &self.image));
        }
        Ok(piece.map(|piece| Stretch { offset: piece.offset, bytes: piece.bytes.into() }))
    }
}
