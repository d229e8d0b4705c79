//! A disk whose durable writes return at once: the log's commit scheme with no I/O in it. What is written is gone.

use seawall::wal::disk::{Backend, DiskFile, Lock, Open};
use seawall::wal::{Disk, OsDisk};
use std::io;
use std::path::Path;
use std::sync::Arc;

pub(super) const MODE: &str =
    "`Wal::commit` over a disk that answers durable writes, syncs and zero-filling at once: the model's c";

/// The system's files and names, without the writing.
#[derive(Debug)]
pub(super) struct NullDisk(Arc<OsDisk>);

#[derive(Debug)]
struct NullFile(Arc<dyn DiskFile>);

impl NullDisk {
    pub(super) fn over_system() -> Arc<dyn Disk> {
        Arc::new(NullDisk(OsDisk::new()))
    }
}

impl Disk for NullDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(NullFile(self.0.open(path, how)?)))
    }
    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.0.rename(source, target)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_bytes(dir)
    }
    fn lock_holder(&self, path: &Path) -> Option<u32> {
        self.0.lock_holder(path)
    }
    fn describe(&self, dir: &Path) -> Backend {
        self.0.describe(dir)
    }
}

impl DiskFile for NullFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        self.0.read_device_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buf, offset)
    }
    fn write_durable_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset + bytes;
        if self.0.len()? < end { self.0.set_len(end) } else { Ok(()) }
    }
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.punch(offset, bytes)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.0.try_lock(lock)
    }
}
