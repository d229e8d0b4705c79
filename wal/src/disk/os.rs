//! Files of the operating system, read and written by blocking calls.
//!
//! ```text
//! os            OsDisk: names, directories, options
//! os/file       OsFile: reads, writes, syncs of one open file
//! os/durable    the three ways to write durably, and the fall from one to the next
//! os/choice     io_uring or blocking calls, and why
//! os/lock       who holds a file, in this process and in others
//! os/probe      what a directory's file system can do, and how fast
//! os/file_system, os/sys    what is known of file systems by name · the calls that differ between systems
//! ```
//!
//! Nothing is believed because it worked once somewhere else: direct I/O and `RWF_DSYNC` are tried anew on every
//! file opened, and a file that refuses one falls to the next way for the rest of its life. What cannot be tried is
//! whether an accepted request is *obeyed*, so two things are believed of known file systems only: that
//! `RWF_DSYNC` syncs (a FUSE server may drop the flag), and that a direct read comes from the device (ZFS answers it
//! from memory; ext4 does under `data=journal`, and `statx` says so). Everywhere else a durable write ends with
//! fdatasync, and [`DiskFile::read_device_at`] says that it did not read the device.

pub(in crate::disk) mod choice;
pub(in crate::disk) mod durable;
pub(in crate::disk) mod file;
mod file_system;
mod lock;
mod probe;
mod sys;

#[cfg(test)]
pub(in crate::disk) mod tests;

pub use durable::DurableWrite;
pub use probe::probe_durable_write;

use super::{Backend, Choice, Disk, DiskFile, Io, Open, Queue};
use choice::IoChoice;
use file::OsFile;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// How an [`OsDisk`] opens files.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsOptions {
    /// Write to NFS, SMB and their like too, where locks and syncs are not to be relied on. Default: refuse.
    pub allow_network: bool,
    /// The way of writing durably to start from, whatever a log has measured; a file that refuses it falls to the next
    /// one. Default: the first, or what a log has measured.
    /// A file system that is not known to honour `RWF_DSYNC` gets [`DurableWrite::WriteThenSync`] in any case.
    pub durable_write: Option<DurableWrite>,
    /// Which way queues hand operations to the system. Default: the best that works here.
    pub io: Io,
}

/// The operating system's files.
///
/// ```no_run
/// use seawall_wal::disk::{Disk, Open, OsDisk};
/// # fn main() -> std::io::Result<()> {
/// let disk = OsDisk::new();
/// let file = disk.open("store/data".as_ref(), Open::CreateNew)?;
/// file.write_at(b"hello", 0)?;
/// file.sync_data()?;
/// disk.sync_dir("store".as_ref())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OsDisk {
    allow_network: bool,
    durable_write: Option<DurableWrite>,
    io: Io,
    /// Made when it is first needed.
    io_choice: OnceLock<IoChoice>,
}

impl OsDisk {
    /// With default options.
    pub fn new() -> Arc<OsDisk> {
        OsDisk::with(OsOptions::default())
    }

    /// With the options given.
    pub fn with(options: OsOptions) -> Arc<OsDisk> {
        Arc::new(OsDisk {
            allow_network: options.allow_network,
            durable_write: options.durable_write,
            io: options.io,
            io_choice: OnceLock::new(),
        })
    }

    /// Like [`with`](OsDisk::with), but tries at once what [`Io::Uring`] asks for.
    ///
    /// # Errors
    /// `Unsupported`, and why, when io_uring was asked for and is refused.
    pub fn try_with(options: OsOptions) -> io::Result<Arc<OsDisk>> {
        let disk = OsDisk::with(options);
        disk.io_choice().check()?;
        Ok(disk)
    }

    fn io_choice(&self) -> &IoChoice {
        self.io_choice.get_or_init(|| IoChoice::make(self.io))
    }

    /// The way of writing durably that files start from.
    pub fn durable_write(&self) -> DurableWrite {
        self.durable_write.unwrap_or_default()
    }

    fn open_file_with(&self, path: &Path, how: Open, method: DurableWrite) -> io::Result<OsFile> {
        let flags = match how {
            Open::Read => OFlags::RDONLY,
            Open::ReadWrite => OFlags::RDWR,
            Open::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        if how == Open::CreateNew {
            // Before the name exists: a refusal must leave nothing behind.
            self.refuse_network(path, &sys::file_system_of(super::crashsafe::parent_of(path)))?;
        }
        let mode = Mode::from_raw_mode(0o644);
        let fd = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, mode))?;
        let file_system = sys::file_system_of_file(&fd);
        if how != Open::Read {
            self.refuse_network(path, &file_system)?;
        }
        if how == Open::CreateNew && file_system.copy_on_write {
            sys::switch_copy_on_write_off(&fd);
        }
        let has_rings = how != Open::Read && self.io_choice().has_rings();
        let file = OsFile::new(fd, path, how != Open::Read, &file_system, method, has_rings)?;
        Ok(file.with_fixed_method(self.durable_write.is_some()))
    }

    fn refuse_network(&self, path: &Path, file_system: &file_system::FileSystem) -> io::Result<()> {
        if self.allow_network || !file_system.network {
            return Ok(());
        }
        let what = format!(
            "{} is on {}, a network file system, where locks and syncs are not to be relied on; use a local disk, \
             or allow network file systems",
            path.display(),
            file_system.name
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_file_with(path, how, self.durable_write())?))
    }

    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(source, target)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlink(path)?)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam to files")]
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) if is_dir(dir)? => Ok(()),
            result => Ok(result?),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::io::retry_on_intr(|| rustix::fs::open(dir, flags, Mode::empty()))?;
        match rustix::io::retry_on_intr(|| sys::sync_all(&fd)) {
            // SMB has no such call: there a name is the server's as soon as it is made.
            Err(Errno::INVAL) if sys::file_system_of_file(&fd).network => Ok(()),
            result => Ok(result?),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match rustix::fs::stat(path) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn allocated_bytes(&self, path: &Path) -> io::Result<u64> {
        // In units of 512 bytes, whatever the file system's blocks are.
        Ok(u64::try_from(rustix::fs::stat(path)?.st_blocks).unwrap_or(0).saturating_mul(512))
    }

    fn lock_holder(&self, path: &Path) -> Option<u32> {
        lock::holder(path)
    }

    fn describe(&self, dir: &Path) -> Backend {
        probe::describe(self, dir)
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        self.io_choice().queue(depth)
    }

    fn choose_durable_write(&self, dir: &Path) -> Option<Choice> {
        let is_open = self.durable_write.is_none() && !probe::is_switched_off();
        is_open.then(|| probe::choose(dir))
    }
}

fn is_dir(path: &Path) -> io::Result<bool> {
    let stat = rustix::fs::stat(path)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}
