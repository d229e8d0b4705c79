//! A store's slots and images, for its replicas.

use super::{ImageSource, Keeping, Stretch};
use bytes::Bytes;
use seawall_engine::{Db, Image, SlotState};
use seawall_wal::Lsn;
use std::io;

impl Keeping for Db {
    fn has_slot(&self, name: &str) -> bool {
        self.slots().iter().any(|slot| slot.name == name && slot.state != SlotState::Lost)
    }

    fn advance_slot(&self, name: &str, durable: Lsn) {
        // One that could not be written down is tried again with the next; one that is gone keeps nothing.
        let _ = Db::advance_slot(self, name, durable, durable);
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
