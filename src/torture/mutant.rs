//! A disk that leaves out what it was asked for: each mutation is one durable step that an engine forgot.

use seawall_wal::disk::{Backend, Disk, DiskFile, Lock, MapPromise, Mapping, Open};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a [`MutantDisk`] leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Omission {
    /// `sync_dir` does nothing.
    DirSync,
    /// `sync_data` does nothing on files whose name contains this.
    Sync(&'static str),
    /// `write_durable_at` is a plain write on files whose name contains this.
    Durable(&'static str),
    /// Reads that were to come from the device come from memory, and say otherwise.
    DeviceRead,
}

const OMISSIONS: &[(&str, Omission)] = &[
    ("skip-dir-sync", Omission::DirSync),
    ("skip-segment-sync", Omission::Sync(".tmp")),
    ("skip-log-sync", Omission::Sync(".log")),
    ("skip-data-sync", Omission::Sync("data")),
    ("plain-log-write", Omission::Durable(".log")),
    ("plain-anchor-write", Omission::Durable("anchor")),
    ("plain-superblock-write", Omission::Durable("data")),
    ("read-through-cache", Omission::DeviceRead),
];

/// A disk with one step left out.
#[derive(Debug)]
pub struct MutantDisk {
    inner: Arc<dyn Disk>,
    omission: Omission,
}

impl MutantDisk {
    /// The names of what can be left out.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OMISSIONS.iter().map(|(name, _)| *name)
    }

    /// `inner` without the step of that name; `inner` itself if there is no such step.
    pub fn wrap(inner: Arc<dyn Disk>, name: Option<&str>) -> Arc<dyn Disk> {
        match OMISSIONS.iter().find(|(known, _)| Some(*known) == name) {
            Some((_, omission)) => Arc::new(MutantDisk { inner, omission: *omission }),
            None => inner,
        }
    }
}

impl Disk for MutantDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let inner = self.inner.open(path, how)?;
        Ok(Arc::new(MutantFile { inner, name, omission: self.omission }))
    }

    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.inner.rename(source, target)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.omission == Omission::DirSync { Ok(()) } else { self.inner.sync_dir(dir) }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn lock_holder(&self, path: &Path) -> Option<u32> {
        self.inner.lock_holder(path)
    }

    fn describe(&self, dir: &Path) -> Backend {
        self.inner.describe(dir)
    }
}

#[derive(Debug)]
struct MutantFile {
    inner: Arc<dyn DiskFile>,
    name: String,
    omission: Omission,
}

impl DiskFile for MutantFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        if self.omission == Omission::DeviceRead {
            return self.inner.read_at(buf, offset).map(|read| (read, true));
        }
        self.inner.read_device_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(buf, offset)
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match self.omission {
            Omission::Durable(part) if self.name.contains(part) => self.inner.write_at(buf, offset),
            _ => self.inner.write_durable_at(buf, offset),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.omission {
            Omission::Sync(part) if self.name.contains(part) => Ok(()),
            _ => self.inner.sync_data(),
        }
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.inner.allocate(offset, bytes)
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.inner.punch(offset, bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, bytes: u64, promise: MapPromise) -> io::Result<Arc<dyn Mapping>> {
        self.inner.map(bytes, promise)
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.inner.try_lock(lock)
    }
}
