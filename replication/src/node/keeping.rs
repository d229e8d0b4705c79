//! A store's slots, without limits, and images, for its replicas.

use super::{ImageSource, Keeping, Stretch};
use bytes::Bytes;
use seawall_engine::{Db, Image, SlotOptions, SlotState};
use seawall_wal::Lsn;
use seawall_wal::disk::BLOCK_BYTES;
use std::io;

impl Keeping for Db {
    fn keeps(&self, name: &str, place: Lsn) -> bool {
        let is_kept = self.slots().iter().any(|slot| slot.name == name && slot.state != SlotState::Lost);
        // After a promotion this store has no slots of those who followed the one before it.
        is_kept || self.create_slot_at(name, SlotOptions::default(), place).is_ok()
    }

    fn keep(&self, name: &str) -> io::Result<()> {
        if self.slots().iter().any(|slot| slot.name == name) {
            // It may be ahead of the image that is to come.
            self.drop_slot(name).map_err(io::Error::other)?;
        }
        self.create_slot(name, SlotOptions::default()).map_err(io::Error::other)
    }

    fn advance_slot(&self, name: &str, durable: Lsn) {
        // What a replica asks for after a crash begins with a block.
        let place = Lsn(durable.0 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
        // One that could not be written down is tried again with the next; one that is gone keeps nothing.
        let _ = Db::advance_slot(self, name, place, durable);
    }

    /// Always one of the newest checkpoint: another is begun anew.
    fn image(&self, _: &[u8]) -> io::Result<Box<dyn ImageSource>> {
        let image = Db::image(self).map_err(io::Error::other)?;
        let about = Bytes::copy_from_slice(image.info().superblock());
        Ok(Box::new(Giving { image, about }))
    }
}

struct Giving {
    image: Image,
    about: Bytes,
}

impl ImageSource for Giving {
    fn about(&self) -> Bytes {
        self.about.clone()
    }

    fn read(&mut self, from: u64, bytes_max: usize) -> io::Result<Option<Stretch>> {
        let piece = self.image.piece(from, bytes_max).map_err(io::Error::other)?;
        Ok(piece.map(|piece| Stretch { offset: piece.offset, bytes: Bytes::from(piece.bytes) }))
    }
}
