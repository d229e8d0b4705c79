//! The seam to files. Everything that this project reads from or writes to a disk goes through [`Disk`] and
//! [`DiskFile`], so that [`SimDisk`] can lose, tear, reorder and damage it.
//!
//! Three promises, and no more, are made about what survives a power cut:
//!
//! - bytes covered by a completed [`DiskFile::sync_data`], whoever wrote them;
//! - bytes of a completed [`DiskFile::write_durable_at`], *its own range only*: it is no barrier for earlier writes;
//! - names (created, renamed, removed) once [`Disk::sync_dir`] of their directory has completed.
//!
//! Anything else may be there afterwards, wholly, in part (torn at 512 bytes), or not at all, in any order.
//!
//! After `sync_data` or a write has failed, what is on the device is unknown, and what reads return may differ from
//! it: never try again on the same bytes (PostgreSQL's fsync bug of 2018).

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

mod arena;
pub mod crashsafe;
mod map;
pub mod os;
pub mod queue;
pub mod sim;
#[cfg(target_os = "linux")]
mod uring;

pub use arena::{BlockArena, BlockBuf};
pub use map::{BlockBytes, MapPromise, Mapping};
pub use os::{DurableWrite, OsDisk};
pub use queue::{Completion, Op, Queue};
pub use sim::SimDisk;

/// Every offset, length and buffer of log and data files is a multiple of this: the grid of direct I/O.
pub const BLOCK_BYTES: usize = 4096;

/// Which way many operations at once are handed to the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Io {
    /// io_uring where it works, else blocking system calls. `SEAWALL_IO=blocking` in the environment chooses the
    /// latter without trying: for sandboxes that kill a process which asks for a ring.
    #[default]
    Auto,
    /// io_uring, or an error that says why not.
    Uring,
    /// Blocking system calls.
    Blocking,
}

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; `AlreadyExists` if the name is taken.
    CreateNew,
}

/// What [`DiskFile::try_lock`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Beside other readers.
    Shared,
    /// Alone.
    Exclusive,
}

/// What [`Disk::describe`] reports about where and how the bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// `"uring"`, `"blocking"`, `"sim"`.
    pub name: &'static str,
    /// Why this one, and how durable writes are made: for people.
    pub reason: String,
    /// The file system's name where it is known: `"ext4"`.
    pub file_system: String,
    /// True for NFS, SMB and their like, where locks and syncs are not to be relied on.
    pub is_network: bool,
    /// True where an overwrite allocates anew, and so can meet a full disk (btrfs, ZFS).
    pub is_copy_on_write: bool,
}

/// What measuring the ways of writing durably in a directory came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The way to take. None where the measurement failed: then the disk's own default.
    pub way: Option<DurableWrite>,
    /// Why, with the figures: for people.
    pub reason: String,
}

/// A tree of files. Implementations are shared between threads.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file. A created name is durable only after [`sync_dir`](Disk::sync_dir).
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `PermissionDenied`, `ReadOnlyFilesystem`, `StorageFull` and what the system says.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing `target` in one step. Durable after `sync_dir` of the parent.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, source: &Path, target: &Path) -> io::Result<()>;

    /// Removes a file's name. Durable after `sync_dir`.
    ///
    /// # Errors
    /// `NotFound` and what the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// `NotFound` if there is no such directory, and what the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates one directory, whose parent must exist; it may exist already. Durable after `sync_dir` of the parent.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system says. Never to be tried again.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// True if the path names a file or a directory.
    ///
    /// # Errors
    /// What the system says.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Bytes that an unprivileged writer may still allocate.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// Bytes of the file system's blocks that a file has. Figures alone rest on it.
    ///
    /// # Errors
    /// `Unsupported` where that cannot be told, and what the system says.
    fn allocated_bytes(&self, path: &Path) -> io::Result<u64> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The process that holds a lock on the file, where that can be told.
    fn lock_holder(&self, path: &Path) -> Option<u32>;

    /// How files of this directory are read and written. Probed anew at every call: it depends on the file system.
    fn describe(&self, dir: &Path) -> Backend;

    /// A queue for operations on files that this disk opened, with up to `depth` of them (at least one) in the
    /// system's hands at a time. Unless a disk has something better, they run one after another, by
    /// [`DiskFile`]'s methods.
    ///
    /// # Errors
    /// What the system says; a disk that merely prefers a quicker way falls back instead.
    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        let _ = depth;
        Ok(Box::new(queue::BlockingQueue::default()))
    }

    /// Measures the ways of writing durably in a directory, for some 50 ms, and says which one to take. None where there
    /// is nothing to choose, or nothing is to be measured.
    fn choose_durable_write(&self, dir: &Path) -> Option<Choice> {
        let _ = dir;
        None
    }
}

/// An open file. Every method may be called from several threads at once.
#[allow(clippy::len_without_is_empty, reason = "a length that may fail is no collection's")]
pub trait DiskFile: Any + Debug + Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the file's end. May be served from memory.
    ///
    /// # Errors
    /// What the system says; what is in `buf` is then undefined.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Like `read_at`, but from the device wherever the system allows it. Returns whether it did: after a failed
    /// sync the page cache serves bytes that are not on the device. `offset` and `buf`'s address and length must
    /// be multiples of [`BLOCK_BYTES`] (see [`crate::AlignedBuf`]), or the read is served from memory.
    ///
    /// # Errors
    /// What the system says.
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)>;

    /// Writes all of `buf` to the system: it survives this process, not a power cut. No durability of its own.
    ///
    /// # Errors
    /// `StorageFull` and what the system says; any part of `buf` may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` and returns when it is on the device: *this range only*, nothing written before.
    /// Quick if `offset` and `buf`'s address and length are multiples of [`BLOCK_BYTES`] and the blocks are
    /// allocated already.
    ///
    /// # Errors
    /// `StorageFull` and what the system says; any part of `buf` may have been written, and may reach the device.
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// [`write_durable_at`](DiskFile::write_durable_at) goes this way from now on, unless the file has been refused it, or
    /// whoever made the disk has chosen. Every way keeps the same promise: it is a matter of speed alone.
    fn prefer_durable_write(&self, way: DurableWrite) {
        let _ = way;
    }

    /// The way that [`write_durable_at`](DiskFile::write_durable_at) goes now: a file falls from one to the next when the
    /// system refuses it. `None` where the disk has no such choice, or does not tell.
    fn durable_write(&self) -> Option<DurableWrite> {
        None
    }

    /// Returns when all that was written to the file (its length included) is on the device.
    ///
    /// # Errors
    /// What the system says. The pages may have been dropped: never to be tried again on the same file.
    fn sync_data(&self) -> io::Result<()>;

    /// Fills a range with zeros by really writing them, growing the file: overwriting such blocks later needs no
    /// allocation. Not durable until `sync_data`.
    ///
    /// # Errors
    /// `StorageFull` and what the system says; part of the range may have been filled.
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Reserves space for a range, growing the file: it reads as zeros, and writing to it meets no full disk. Cheaper
    /// than [`allocate`](DiskFile::allocate), and what that saves is paid at the first durable write of each block.
    /// Not durable until `sync_data`.
    ///
    /// # Errors
    /// `StorageFull` and what the system says.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.allocate(offset, bytes)
    }

    /// Gives a range's blocks back to the file system; it reads as zeros, or as before where that is not possible.
    ///
    /// # Errors
    /// What the system says.
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Cuts or extends the file; an extension reads as zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Maps the file's first `bytes` for reading; it may be shorter, and views are then to be had as it grows. What is written
    /// to it, by whatever way, shows there.
    ///
    /// # Errors
    /// `Unsupported` where nothing can be mapped, and what the system says.
    fn map(&self, bytes: u64, promise: MapPromise) -> io::Result<Arc<dyn Mapping>> {
        let _ = (bytes, promise);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes a lock that lasts until the last handle is dropped, or the process ends; false if another holder,
    /// in this process or in another, is in the way.
    ///
    /// # Errors
    /// What the system says.
    fn try_lock(&self, lock: Lock) -> io::Result<bool>;
}

/// Reads exactly `buf.len()` bytes.
///
/// # Errors
/// `UnexpectedEof` if the file is shorter.
pub fn read_exact_at(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let read = file.read_at(buf, offset)?;
    if read == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
