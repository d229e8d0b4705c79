//! What `serve` and `replica` ship a store's log with: slots, images, the listening side.

use super::measure::units;
use super::secure::Secure;
use super::{Failure, Outcome};
use clap::Args;
use seawall::replication::net::{Roles, Server, ServerOptions};
use seawall::replication::node::{Host, ImageSource, Keeping, Stretch};
use seawall::wal::disk::BLOCK_BYTES;
use seawall::{Db, Image, Lsn, SlotOptions, SlotState};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For so long an image whose copy was interrupted can be gone on with.
const IMAGE_KEPT: Duration = Duration::from_secs(600);

/// Who may follow, and what may be kept for them.
#[derive(Debug, Args)]
pub(crate) struct Ships {
    /// A DNS name in the certificate of a replica, whose first label is the replica's name; may be given more than once
    #[arg(long = "replica", value_name = "NAME")]
    replicas: Vec<String>,
    /// A name in the certificate of somebody who may ask for the status; may be given more than once
    #[arg(long = "operator", value_name = "NAME")]
    operators: Vec<String>,
    /// Log that may be kept for a replica that is away, before it needs a new image
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    slot_bytes_max: Option<u64>,
    /// For how long log may be kept for a replica that is away, before it needs a new image
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    slot_age_max: Option<Duration>,
    /// Bytes a second of an image that is given away, at most
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    image_rate: Option<u64>,
}

impl Ships {
    /// What keeps the log for replicas.
    pub(crate) fn keeper(&self, db: &Db) -> Arc<Keeper> {
        let limits = SlotOptions { bytes_max: self.slot_bytes_max, age_max: self.slot_age_max };
        Arc::new(Keeper { db: db.clone(), limits, image: Arc::default() })
    }

    /// Listens for replicas.
    pub(crate) fn listen(&self, listen: SocketAddr, secure: &Secure, host: Arc<dyn Host>) -> Outcome<Server> {
        let roles = Roles { replicas: self.replicas.clone(), operators: self.operators.clone() };
        let mut options = ServerOptions::new(listen, secure.of_replication()?, roles);
        options.image_bytes_per_s = self.image_rate;
        Server::bind(options, host).map_err(|error| Failure::error(format!("listening at {listen}: {error}")))
    }
}

type Kept = Arc<Mutex<Option<(Arc<Image>, Instant)>>>;

/// A store's slots and images.
pub(crate) struct Keeper {
    db: Db,
    limits: SlotOptions,
    /// The one that was given last, for who is interrupted.
    image: Kept,
}

impl Keeper {
    /// Lets go of an image that nobody has asked for lately: it keeps log, and room in the data file.
    pub(crate) fn tidy(&self) {
        let mut kept = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |(image, at): &mut (Arc<Image>, Instant)| {
            at.elapsed() > IMAGE_KEPT && Arc::strong_count(image) == 1
        };
        kept.take_if(is_old);
    }

    fn is_kept(&self, name: &str) -> bool {
        self.db.slots().iter().any(|slot| slot.name == name && slot.state != SlotState::Lost)
    }
}

impl Keeping for Keeper {
    fn keeps(&self, name: &str, place: Lsn) -> bool {
        // As after a promotion: this store has no slots of those who followed the one before it.
        self.is_kept(name) || self.db.create_slot_at(name, self.limits, place).is_ok()
    }

    fn keep(&self, name: &str) -> io::Result<()> {
        if self.db.slots().iter().any(|slot| slot.name == name) {
            // It may be ahead of the image that is to come.
            self.db.drop_slot(name).map_err(io::Error::other)?;
        }
        self.db.create_slot(name, self.limits).map_err(io::Error::other)
    }

    fn advance_slot(&self, name: &str, durable: Lsn) {
        // What a replica asks for after a crash begins with a block.
        let place = Lsn(durable.0 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64);
        // One that is lost says so in the list of slots, and when its replica comes back.
        let _ = self.db.advance_slot(name, place, durable);
    }

    fn image(&self, about: &[u8]) -> io::Result<Box<dyn ImageSource>> {
        let mut kept = self.image.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.as_ref().map(|(image, _)| Arc::clone(image));
        let image = match found.filter(|image| image.info().superblock() == about) {
            Some(image) => image,
            None => Arc::new(self.db.image().map_err(io::Error::other)?),
        };
        *kept = Some((Arc::clone(&image), Instant::now()));
        Ok(Box::new(Source { image, kept: Arc::clone(&self.image) }))
    }
}

struct Source {
    image: Arc<Image>,
    kept: Kept,
}

impl ImageSource for Source {
    fn about(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(self.image.info().superblock())
    }

    fn read(&mut self, from: u64, bytes_max: usize) -> io::Result<Option<Stretch>> {
        let piece = self.image.piece(from, bytes_max).map_err(io::Error::other)?;
        if piece.is_none() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.take_if(|(image, _)| Arc::ptr_eq(image, &self.image));
        }
        Ok(piece.map(|piece| Stretch { offset: piece.offset, bytes: piece.bytes.into() }))
    }
}
