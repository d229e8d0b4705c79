//! One open file: two descriptors of the same inode, one through the page cache and, where the system has it, one
//! for direct I/O.
//!
//! **Mixing them.** The kernel writes a block's dirty page out before a direct read or write of it, and drops the
//! page after a direct write, so either descriptor sees what went through the other. fdatasync is by inode: it
//! covers writes of both.
//!
//! **A failed sync is told once.** The kernel reports a failed write-back to one call per descriptor, whoever makes
//! it; of two threads that sync side by side, the other would be told that all is well. So all calls on the
//! buffered descriptor that sync stand behind one mutex, the one that fails marks the file, and every later one
//! fails. Direct writes need no such mark: each learns the outcome of its own bytes. Rings, which have several calls
//! on their way at once, sync by a descriptor of their own, one call at a time ([`RingSide`]), and mark the same file.

use super::durable::{Calls, DurableWrite, Method, check_range, is_on_grid, is_refusal, write_all_durably};
use super::file_system::FileSystem;
use super::{lock, sys};
use crate::AlignedBuf;
use crate::disk::map::OsMapping;
use crate::disk::{BLOCK_BYTES, DiskFile, Lock, MapPromise, Mapping};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::FileType;
use rustix::io::{Errno, retry_on_intr};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What [`DiskFile::allocate`] writes at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// An open file of the operating system.
#[derive(Debug)]
pub(in crate::disk) struct OsFile {
    path: PathBuf,
    buffered: Arc<lock::Locked>,
    direct: Option<OwnedFd>,
    /// Cleared by the first plain direct read or write that is refused.
    direct_works: AtomicBool,
    /// A direct read comes from the device, not from some other memory.
    reads_device: bool,
    /// Space may be reserved without being written.
    reserves: bool,
    pub(in crate::disk) method: Method,
    /// Whoever made the disk has chosen how it writes.
    is_method_fixed: bool,
    sync: SyncState,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only there are rings"))]
    ring: Option<RingSide>,
}

/// See the module's head.
#[derive(Debug, Default)]
struct SyncState {
    /// Held while a call on the buffered descriptor syncs.
    turn: Mutex<()>,
    /// What the first failed sync said.
    failure: OnceLock<String>,
}

impl SyncState {
    fn check(&self, path: &Path) -> io::Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(failure) => Err(io::Error::other(format!(
                "an earlier sync of {} failed ({failure}), and its bytes may be lost; reopen it",
                path.display()
            ))),
        }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            let _ = self.failure.set(error.to_string());
        }
        result
    }
}

/// The descriptor that rings sync by. A failed write-back is told once to each descriptor, so only one such call may
/// be on its way at a time; and as none of a ring's calls can be waited for from outside its thread, it has a
/// descriptor beside the one that blocking calls use. Open from the file's beginning: it misses nothing.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only there are rings"))]
struct RingSide {
    fd: OwnedFd,
    /// The queue whose turn it is; 0 for none.
    holder: AtomicU64,
}

/// Whether a queue may make a call that syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only there are rings"))]
pub(in crate::disk) enum Turn {
    /// It may, until [`OsFile::end_turn`].
    Taken,
    /// When its own call that is on its way has ended.
    Wait,
    /// Not here: by a blocking call, then.
    Never,
}

impl OsFile {
    /// Takes `fd` over. Refuses what is not a regular file.
    pub(super) fn new(
        fd: OwnedFd,
        path: &Path,
        writable: bool,
        file_system: &FileSystem,
        method: DurableWrite,
        has_rings: bool,
    ) -> io::Result<OsFile> {
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file")),
        }
        let direct = sys::reopen_direct(&fd, writable);
        let best = match (&direct, file_system.honours_dsync) {
            (_, false) => DurableWrite::WriteThenSync,
            (None, true) => DurableWrite::Dsync,
            (Some(_), true) => DurableWrite::DirectDsync,
        };
        Ok(OsFile {
            path: path.to_owned(),
            direct_works: AtomicBool::new(direct.is_some()),
            reads_device: direct.is_some() && file_system.honours_dsync && sys::has_true_direct_io(&fd),
            direct,
            reserves: file_system.reserves,
            method: Method::new(method.max(best)),
            is_method_fixed: false,
            sync: SyncState::default(),
            ring: Some(&fd)
                .filter(|_| has_rings && writable)
                .and_then(sys::reopen_writable)
                .map(|fd| RingSide { fd, holder: AtomicU64::new(0) }),
            buffered: Arc::new(lock::Locked::new(fd, lock::file_id(&stat))),
        })
    }

    /// No wish is listened to if `yes`.
    pub(super) fn with_fixed_method(mut self, yes: bool) -> OsFile {
        self.is_method_fixed = yes;
        self
    }

    /// The way of writing durably that the file has come down to.
    pub(super) fn method(&self) -> DurableWrite {
        self.method.get()
    }

    /// True if [`DiskFile::read_device_at`] reads the device, as far as is known yet.
    pub(in crate::disk) fn reads_device(&self) -> bool {
        self.reads_device && self.direct_works.load(Ordering::Relaxed)
    }

    /// The descriptor for direct I/O of this buffer at this place, if there is one.
    fn direct_for(&self, buf: &[u8], offset: u64) -> Option<&OwnedFd> {
        let works = self.direct_works.load(Ordering::Relaxed);
        self.direct.as_ref().filter(|_| works && is_on_grid(buf, offset))
    }

    /// Reads until `buf` is full, the file ends, or a short read leaves the grid.
    fn read_direct(fd: &OwnedFd, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let read = retry_on_intr(|| rustix::io::pread(fd, &mut *rest, offset + done as u64))?;
            done += read;
            if read == 0 || !done.is_multiple_of(BLOCK_BYTES) {
                break;
            }
        }
        Ok(done)
    }
}

impl DiskFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        check_range(offset, buf.len() as u64)?;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match retry_on_intr(|| rustix::io::pread(&self.buffered, &mut *rest, offset + done as u64))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        check_range(offset, buf.len() as u64)?;
        if let Some(fd) = self.direct_for(buf, offset).filter(|_| self.reads_device) {
            match OsFile::read_direct(fd, buf, offset) {
                // A read that stopped off the grid stopped at the file's end, or else the rest cannot be had directly.
                Ok(read) if read.is_multiple_of(BLOCK_BYTES) || offset + read as u64 >= self.len()? => {
                    return Ok((read, true));
                }
                Err(error) if !is_refusal(&error) => return Err(error),
                Err(_) => self.direct_works.store(false, Ordering::Relaxed),
                Ok(_) => {}
            }
        }
        Ok((self.read_at(buf, offset)?, false))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len() as u64)?;
        let (mut rest, mut offset) = (buf, offset);
        while !rest.is_empty() {
            let written = Calls::write(self, rest, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = rest.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        write_all_durably(self, &self.method, buf, offset)
    }

    fn prefer_durable_write(&self, way: DurableWrite) {
        if !self.is_method_fixed {
            self.method.prefer(way);
        }
    }

    fn durable_write(&self) -> Option<DurableWrite> {
        Some(self.method())
    }

    fn sync_data(&self) -> io::Result<()> {
        Calls::sync(self)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        check_range(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        // In one piece on the device, and a full disk is met before anything was written.
        match self.reserve_unwritten(offset, bytes) {
            Err(error) if !is_refusal(&error) => return Err(error),
            _ => {}
        }
        let zeros = zeros()?;
        let (mut offset, end) = (offset, offset + bytes);
        while offset < end {
            let chunk = usize::try_from(end - offset).unwrap_or(usize::MAX).min(zeros.len());
            let chunk = zeros.get(..chunk).unwrap_or_default();
            offset += self.write_zeros(chunk, offset)? as u64;
        }
        Ok(())
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        check_range(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        match self.reserve_unwritten(offset, bytes) {
            Err(error) if is_refusal(&error) => self.allocate(offset, bytes),
            result => result,
        }
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        check_range(offset, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        match retry_on_intr(|| sys::punch(&self.buffered, offset, bytes)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.buffered, bytes))?)
    }

    fn len(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstat(&self.buffered)?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn map(&self, bytes: u64, promise: MapPromise) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(OsMapping::new(&self.buffered, Arc::clone(&self.buffered) as _, bytes, promise)?))
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.buffered.try_lock(lock)
    }
}

impl OsFile {
    /// Refused, like a call that the system does not know, where files are not to have such space.
    fn reserve_unwritten(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if !self.reserves {
            return Err(rustix::io::Errno::OPNOTSUPP.into());
        }
        Ok(retry_on_intr(|| sys::reserve(&self.buffered, offset, bytes))?)
    }

    /// Writes some of `zeros`, past the page cache where that is possible: a segment's worth of zeros would drive
    /// out what is wanted there, and a neighbour's sync would have to wait for all of it.
    fn write_zeros(&self, zeros: &[u8], offset: u64) -> io::Result<usize> {
        if let Some(fd) = self.direct_for(zeros, offset) {
            match retry_on_intr(|| rustix::io::pwrite(fd, zeros, offset)).map_err(io::Error::from) {
                Err(error) if is_refusal(&error) => self.direct_works.store(false, Ordering::Relaxed),
                result => return result,
            }
        }
        self.write_at(zeros, offset)?;
        Ok(zeros.len())
    }
}

/// What rings need: descriptors, and the state that their calls share with blocking ones.
#[cfg(target_os = "linux")]
impl OsFile {
    /// The descriptor through the page cache.
    pub(in crate::disk) fn buffered_fd(&self) -> &OwnedFd {
        &self.buffered
    }

    /// The descriptor for direct I/O of this buffer at this place, if there is one, for reads that are to come from
    /// the device or for writes.
    pub(in crate::disk) fn direct_fd(&self, buf: &[u8], offset: u64) -> Option<&OwnedFd> {
        self.direct_for(buf, offset)
    }

    /// The descriptor for direct I/O, wherever it works: durable writes past the page cache have an account of their
    /// own of what was refused.
    pub(in crate::disk) fn any_direct_fd(&self) -> Option<&OwnedFd> {
        self.direct.as_ref()
    }

    /// Plain direct I/O was refused: not again on this file.
    pub(in crate::disk) fn refuse_direct(&self) {
        self.direct_works.store(false, Ordering::Relaxed);
    }

    /// The descriptor for calls that sync; to be used in the queue's turn alone.
    pub(in crate::disk) fn ring_fd(&self) -> Option<&OwnedFd> {
        self.ring.as_ref().map(|ring| &ring.fd)
    }

    /// Asks for the turn to sync, for a queue, whose number is not 0.
    pub(in crate::disk) fn take_turn(&self, queue: u64) -> Turn {
        let Some(ring) = &self.ring else { return Turn::Never };
        match ring.holder.compare_exchange(0, queue, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Turn::Taken,
            Err(holder) if holder == queue => Turn::Wait,
            Err(_) => Turn::Never,
        }
    }

    /// Gives the turn back, with a failure marked before if there was one.
    pub(in crate::disk) fn end_turn(&self) {
        if let Some(ring) = &self.ring {
            ring.holder.store(0, Ordering::Release);
        }
    }

    /// Fails if a sync has failed, whoever made it.
    pub(in crate::disk) fn check_synced(&self) -> io::Result<()> {
        self.sync.check(&self.path)
    }

    /// Marks the file if a sync has failed.
    pub(in crate::disk) fn note_sync<T>(&self, result: io::Result<T>) -> io::Result<T> {
        self.sync.note(result)
    }
}

impl Calls for OsFile {
    fn write_direct_dsync(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let fd = self.direct.as_ref().ok_or(Errno::OPNOTSUPP)?;
        Ok(sys::write_dsync(fd, buf, offset)?)
    }

    fn write_dsync(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let _turn = self.sync.turn.lock();
        self.sync.check(&self.path)?;
        match retry_on_intr(|| sys::write_dsync(&self.buffered, buf, offset)).map_err(io::Error::from) {
            // Nothing was written, so nothing failed to be synced.
            Err(error) if is_refusal(&error) => Err(error),
            result => self.sync.note(result),
        }
    }

    fn write(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::io::pwrite(&self.buffered, buf, offset))?)
    }

    fn sync(&self) -> io::Result<()> {
        let _turn = self.sync.turn.lock();
        self.sync.check(&self.path)?;
        let result = retry_on_intr(|| sys::sync_data(&self.buffered)).map_err(io::Error::from);
        self.sync.note(result)
    }
}

/// Shared by all files; never written to, so it takes no memory but its page table.
fn zeros() -> io::Result<&'static AlignedBuf> {
    static ZEROS: OnceLock<AlignedBuf> = OnceLock::new();
    if let Some(zeros) = ZEROS.get() {
        return Ok(zeros);
    }
    let zeros = AlignedBuf::zeroed(ZEROS_BYTES)?;
    Ok(ZEROS.get_or_init(|| zeros))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may")]

    use super::super::file_system::UNKNOWN;
    use super::*;

    /// Bug class 14: a sync that fails once and is asked again must not say that all is well.
    #[test]
    fn a_failed_sync_is_never_forgotten() {
        let name = format!("failed-sync-{}", std::process::id());
        let path = std::env::current_exe().unwrap().with_file_name(name);
        let fd = std::fs::File::create_new(&path).unwrap().into();
        let file = OsFile::new(fd, &path, true, &UNKNOWN, DurableWrite::WriteThenSync, false).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.sync_data().unwrap();
        let failed = file.sync.note::<()>(Err(Errno::IO.into()));
        assert!(failed.is_err());
        for error in [file.sync_data(), file.sync_data(), file.write_durable_at(&[1], 0)] {
            assert!(error.unwrap_err().to_string().contains("an earlier sync"));
        }
        assert!(Calls::write_dsync(&file, &[1], 0).is_err());
    }
}
