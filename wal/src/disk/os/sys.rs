//! The calls that differ between systems. Elsewhere than on Linux there is no direct I/O, no `RWF_DSYNC` and no way
//! to punch; a sync is the strongest that the system has.

pub(super) use imp::*;

#[cfg(target_os = "linux")]
mod imp {
    use super::super::file_system::{FileSystem, UNKNOWN, by_magic};
    use crate::disk::BLOCK_BYTES;
    use rustix::fd::OwnedFd;
    use rustix::fs::{AtFlags, FallocateFlags, IFlags, Mode, OFlags, StatFs, StatxFlags};
    use rustix::io::{Errno, ReadWriteFlags};
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    /// A second descriptor of the same file, for direct I/O. None where there is no `/proc` or no direct I/O.
    pub(in super::super) fn reopen_direct(fd: &OwnedFd, writable: bool) -> Option<OwnedFd> {
        reopen_with(fd, if writable { OFlags::RDWR } else { OFlags::RDONLY } | OFlags::DIRECT)
    }

    /// Another descriptor of the same file, to write through the page cache. None where there is no `/proc`.
    pub(in super::super) fn reopen_writable(fd: &OwnedFd) -> Option<OwnedFd> {
        reopen_with(fd, OFlags::RDWR)
    }

    /// By its own descriptor's name: the path may have been given to another file meanwhile.
    fn reopen_with(fd: &OwnedFd, flags: OFlags) -> Option<OwnedFd> {
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let other = rustix::fs::open(name, flags | OFlags::CLOEXEC, Mode::empty()).ok()?;
        // Whatever `/proc` is here, it must have led to the same file.
        let (ours, theirs) = (rustix::fs::fstat(fd).ok()?, rustix::fs::fstat(&other).ok()?);
        ((ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)).then_some(other)
    }

    /// True if the kernel says that direct I/O on this file, on our grid, goes to the device (since Linux 6.1).
    pub(in super::super) fn has_true_direct_io(fd: &OwnedFd) -> bool {
        let Ok(stat) = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
            return false;
        };
        let fits = |align: u32| align != 0 && BLOCK_BYTES.is_multiple_of(align as usize);
        StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN)
            && fits(stat.stx_dio_mem_align)
            && fits(stat.stx_dio_offset_align)
    }

    /// Writes some of `buf`; what was written is on the device when it returns.
    pub(in super::super) fn write_dsync(fd: &OwnedFd, buf: &[u8], offset: u64) -> Result<usize, Errno> {
        rustix::io::pwritev2(fd, &[IoSlice::new(buf)], offset, ReadWriteFlags::DSYNC)
    }

    pub(in super::super) fn sync_data(fd: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::fdatasync(fd)
    }

    pub(in super::super) fn sync_all(fd: &OwnedFd) -> Result<(), Errno> {
        rustix::fs::fsync(fd)
    }

    /// Reserves a range in one piece, growing the file.
    pub(in super::super) fn reserve(fd: &OwnedFd, offset: u64, bytes: u64) -> Result<(), Errno> {
        rustix::fs::fallocate(fd, FallocateFlags::empty(), offset, bytes)
    }

    pub(in super::super) fn punch(fd: &OwnedFd, offset: u64, bytes: u64) -> Result<(), Errno> {
        rustix::fs::fallocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes)
    }

    /// btrfs obeys on empty files only; elsewhere, and on failure, an overwrite may meet a full disk.
    pub(in super::super) fn switch_copy_on_write_off(fd: &OwnedFd) {
        if let Ok(flags) = rustix::fs::ioctl_getflags(fd) {
            let _ = rustix::fs::ioctl_setflags(fd, flags | IFlags::NOCOW);
        }
    }

    pub(in super::super) fn file_system_of(path: &Path) -> FileSystem {
        rustix::fs::statfs(path).map_or(UNKNOWN, |stat| known(&stat))
    }

    pub(in super::super) fn file_system_of_file(fd: &OwnedFd) -> FileSystem {
        rustix::fs::fstatfs(fd).map_or(UNKNOWN, |stat| known(&stat))
    }

    fn known(stat: &StatFs) -> FileSystem {
        // The magic numbers have 32 bits; the field's width and sign differ between architectures.
        by_magic(stat.f_type as u32)
    }

    /// A file without a name, in `dir`'s file system.
    pub(in super::super) fn nameless_file(dir: &Path) -> Option<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)).ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use super::super::file_system::{FileSystem, UNKNOWN};
    use rustix::fd::OwnedFd;
    use rustix::io::Errno;
    use std::path::Path;

    pub(in super::super) fn reopen_direct(_: &OwnedFd, _: bool) -> Option<OwnedFd> {
        None
    }

    pub(in super::super) fn reopen_writable(_: &OwnedFd) -> Option<OwnedFd> {
        None
    }

    pub(in super::super) fn has_true_direct_io(_: &OwnedFd) -> bool {
        false
    }

    pub(in super::super) fn write_dsync(_: &OwnedFd, _: &[u8], _: u64) -> Result<usize, Errno> {
        Err(Errno::NOSYS)
    }

    /// On macOS fsync leaves the bytes in the device's cache; only `F_FULLFSYNC` takes them further.
    pub(in super::super) fn sync_data(fd: &OwnedFd) -> Result<(), Errno> {
        #[cfg(target_vendor = "apple")]
        match rustix::fs::fcntl_fullfsync(fd) {
            Err(Errno::NOTSUP | Errno::NOTTY | Errno::INVAL) => {}
            result => return result,
        }
        rustix::fs::fsync(fd)
    }

    pub(in super::super) fn sync_all(fd: &OwnedFd) -> Result<(), Errno> {
        sync_data(fd)
    }

    pub(in super::super) fn reserve(_: &OwnedFd, _: u64, _: u64) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    pub(in super::super) fn punch(_: &OwnedFd, _: u64, _: u64) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    pub(in super::super) fn switch_copy_on_write_off(_: &OwnedFd) {}

    pub(in super::super) fn file_system_of(_: &Path) -> FileSystem {
        UNKNOWN
    }

    pub(in super::super) fn file_system_of_file(_: &OwnedFd) -> FileSystem {
        UNKNOWN
    }

    pub(in super::super) fn nameless_file(_: &Path) -> Option<OwnedFd> {
        None
    }
}
