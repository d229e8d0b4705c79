//! A new replica's log: an anchor, and nothing yet.

use crate::Lsn;
use crate::anchor::{self, Anchor};
use crate::disk::crashsafe;
use crate::error::{Error, Result};
use crate::options::WalOptions;
use crate::segment;
use crate::spares::write_new;
use crate::timeline::History;
use std::path::Path;

/// Which log a new replica's is to become a copy of, and from where on.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaStart {
    /// The primary's store.
    pub store_id: [u8; 16],
    /// The primary's segment size, in bytes.
    pub segment_bytes: u64,
    /// Where the log begins that is needed: the checkpoint of the image beside it. Shipping begins with the segment that
    /// this is in.
    pub first: Lsn,
    /// Everything below is in the image. That may be more than what is before `first`: redo begins where a record does that it
    /// passes over. The log is filled, and can be promoted, once it has come as far as both.
    pub covered: Lsn,
    /// The epoch of the primary.
    pub epoch: u64,
    /// Where epochs began.
    pub history: History,
}

/// Makes a replica's log, which holds nothing yet: durable when it returns. It is opened with
/// [`WalOptions::replica`], and filled from the beginning of the segment that `start.first` is in.
///
/// # Errors
/// [`Error::BadInput`] if a log is there, or for an impossible size; [`Error::NoSpace`], [`Error::Io`].
///
/// ```
/// use seawall_wal::{History, Lsn, ReplicaStart, SimDisk, Wal, create_replica};
/// let options = Wal::options().disk(SimDisk::new(1)).segment_bytes(64 << 10).background(false);
/// let primary = options.clone().open("/primary")?;
/// primary.commit(b"shipped")?;
/// let start = ReplicaStart {
///     store_id: primary.store_id(),
///     segment_bytes: primary.segment_bytes(),
///     first: primary.first_lsn(),
///     covered: primary.first_lsn(),
///     epoch: 0,
///     history: History::default(),
/// };
/// create_replica("/replica", &options, &start)?;
/// let replica = options.replica(true).open("/replica")?;
/// let mut shipper = primary.ship(replica.tail().place)?;
/// while let Some(piece) = shipper.next_piece(1 << 20)? {
///     replica.accept(&piece)?;
/// }
/// replica.sync_replica()?;
/// assert_eq!(replica.read(..)?.count(), 1);
/// # Ok::<(), seawall_wal::Error>(())
/// ```
pub fn create_replica(dir: impl AsRef<Path>, options: &WalOptions, start: &ReplicaStart) -> Result<()> {
    let dir = dir.as_ref();
    let mut options = options.clone();
    options.settle_disk(dir)?;
    if !segment::is_segment_size(start.segment_bytes) {
        return Err(Error::BadInput(format!("a segment of {} bytes", start.segment_bytes)));
    }
    let disk = options.disk_or_default();
    crate::open::refuse_network(&*disk, dir, &options)?;
    crashsafe::create_dir_all(&*disk, dir)
        .map_err(|source| Error::io("create directory", dir, None, source))?;
    let names = disk.list(dir).map_err(|source| Error::io("list", dir, None, source))?;
    if let Some(name) = names.iter().find(|name| !crate::open::is_temporary(name)) {
        return Err(Error::BadInput(format!(
            "{} holds {name}: a replica's log is made in an empty directory",
            dir.display()
        )));
    }
    let anchor = Anchor {
        store_id: start.store_id,
        sequence: 1,
        segment_bytes: start.segment_bytes,
        write_method: 0,
        first: start.first,
        epoch: start.epoch,
        durable: start.covered,
        replica_durable: Lsn::ZERO,
        is_replica: true,
        promised: start.epoch,
        history: start.history,
        rewinding: Lsn::ZERO,
        clean: false,
        closed: None,
    };
    write_new(&*disk, &dir.join(anchor::FILE_NAME), &anchor.new_file())
}
