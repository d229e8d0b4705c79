//! Who holds a file: flock for other processes, a registry by inode for this one.
//!
//! flock belongs to the open file, not to the process as POSIX record locks do: closing some other descriptor of the
//! file does not lose it, and the kernel holds it until the last call in flight on the file has ended, a killed
//! process's included. The registry adds nothing to safety; it answers for handles of this process without asking
//! the kernel, and makes taking, changing and giving up a lock one step each.

use crate::disk::Lock;
use parking_lot::Mutex;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// Every locked file of this process, with its holders.
static HOLDERS: Mutex<BTreeMap<FileId, Vec<(u64, Lock)>>> = Mutex::new(BTreeMap::new());
/// How often an orphaned lock is looked at again, and the time between.
const ORPHAN_LOOKS: u32 = 200;
const ORPHAN_PAUSE: Duration = Duration::from_millis(10);

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(0);

/// An open descriptor and the lock on it: given up when the last who needs either is gone, a mapping of the file
/// included, for under a view of it nobody else may write.
#[derive(Debug)]
pub(super) struct Locked {
    fd: OwnedFd,
    handle: Handle,
}

impl Locked {
    pub(super) fn new(fd: OwnedFd, file: FileId) -> Locked {
        Locked { fd, handle: Handle::new(file) }
    }

    pub(super) fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.handle.try_lock(&self.fd, lock)
    }
}

impl crate::disk::map::LockKeeper for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        self.handle.release(&self.fd);
    }
}

impl Deref for Locked {
    type Target = OwnedFd;
    fn deref(&self) -> &OwnedFd {
        &self.fd
    }
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One handle's place in the registry.
#[derive(Debug)]
pub(super) struct Handle {
    id: u64,
    file: FileId,
}

impl Handle {
    pub(super) fn new(file: FileId) -> Handle {
        Handle { id: NEXT_HANDLE.fetch_add(1, Ordering::Relaxed), file }
    }

    /// Takes the lock, or changes the one held. If that is refused, the one held before stays.
    ///
    /// A process that was killed may be gone, and reaped, while the kernel still ends its calls in flight, those of a ring
    /// above all: until then it keeps the lock, for nobody. That is waited for, for a while.
    pub(super) fn try_lock(&self, fd: &OwnedFd, lock: Lock) -> io::Result<bool> {
        for _ in 0..ORPHAN_LOOKS {
            if self.try_once(fd, lock)? {
                return Ok(true);
            }
            if !is_orphaned(self.file) {
                return Ok(false);
            }
            pause();
        }
        self.try_once(fd, lock)
    }

    fn try_once(&self, fd: &OwnedFd, lock: Lock) -> io::Result<bool> {
        let mut files = HOLDERS.lock();
        let holders = files.entry(self.file).or_default();
        let held = holders.iter().find(|(id, _)| *id == self.id).map(|(_, held)| *held);
        let others = holders.iter().filter(|(id, _)| *id != self.id);
        let in_the_way =
            others.clone().any(|(_, other)| lock == Lock::Exclusive || *other == Lock::Exclusive);
        let result = if in_the_way { Err(Errno::WOULDBLOCK) } else { flock(fd, lock) };
        let now = match (result, held) {
            (Ok(()), _) => Some(lock),
            (Err(_), held) if in_the_way => held,
            // Changing a lock gives the old one up first.
            (Err(_), Some(held)) if flock(fd, held).is_ok() => Some(held),
            (Err(_), _) => None,
        };
        holders.retain(|(id, _)| *id != self.id);
        holders.extend(now.map(|lock| (self.id, lock)));
        if holders.is_empty() {
            files.remove(&self.file);
        }
        match result {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) if now == held => Ok(false),
            Err(Errno::WOULDBLOCK) => Err(io::Error::other("the lock held was lost to another process")),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the lock up. Not left to the closing of `fd`: a child between fork and exec keeps it open.
    pub(super) fn release(&self, fd: &OwnedFd) {
        let mut files = HOLDERS.lock();
        let Some(holders) = files.get_mut(&self.file) else { return };
        if holders.iter().any(|(id, _)| *id == self.id) {
            let _ = rustix::fs::flock(fd, FlockOperation::Unlock);
            holders.retain(|(id, _)| *id != self.id);
        }
        if holders.is_empty() {
            files.remove(&self.file);
        }
    }
}

/// Whether no living process is known to hold the file.
fn is_orphaned(file: FileId) -> bool {
    #[cfg(target_os = "linux")]
    return !HOLDERS.lock().contains_key(&file) && proc_locks::holder(file).is_none_or(proc_locks::is_dead);
    #[cfg(not(target_os = "linux"))]
    false
}

#[expect(clippy::disallowed_methods, reason = "what is waited for is the kernel, which wakes nobody")]
fn pause() {
    std::thread::sleep(ORPHAN_PAUSE);
}

fn flock(fd: &OwnedFd, lock: Lock) -> Result<(), Errno> {
    let operation = match lock {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    rustix::io::retry_on_intr(|| rustix::fs::flock(fd, operation))
}

/// The file's identity.
pub(super) fn file_id(stat: &rustix::fs::Stat) -> FileId {
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// The process that holds a lock on `path`.
pub(super) fn holder(path: &Path) -> Option<u32> {
    let file = file_id(&rustix::fs::stat(path).ok()?);
    if HOLDERS.lock().contains_key(&file) {
        return Some(std::process::id());
    }
    #[cfg(target_os = "linux")]
    return proc_locks::holder(file);
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "this is the seam to files")]
mod proc_locks {
    use super::{FileId, file_id};
    use rustix::fs::{major, minor};

    /// Searches `/proc/locks`. Its device number is the file system's, which on btrfs and overlayfs is not the one
    /// that stat gives: there the process named must really have the file open.
    pub(super) fn holder(file: FileId) -> Option<u32> {
        let locks = std::fs::read("/proc/locks").ok()?;
        let locks = String::from_utf8_lossy(&locks);
        let device = (major(file.0), minor(file.0));
        let candidates = || locks.lines().filter_map(parse).filter(|lock| lock.inode == file.1);
        let exact = candidates().find(|lock| lock.device == device);
        exact.or_else(|| candidates().find(|lock| has_open(lock.pid, file))).map(|lock| lock.pid)
    }

    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct HeldLock {
        pub(super) pid: u32,
        pub(super) device: (u32, u32),
        pub(super) inode: u64,
    }

    /// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF`; one that waits has `->` after its number.
    pub(super) fn parse(line: &str) -> Option<HeldLock> {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next()? != "FLOCK" {
            return None;
        }
        let pid = words.nth(2)?.parse().ok().filter(|pid| *pid != 0)?;
        let mut place = words.next()?.split(':');
        let device =
            (u32::from_str_radix(place.next()?, 16).ok()?, u32::from_str_radix(place.next()?, 16).ok()?);
        Some(HeldLock { pid, device, inode: place.next()?.parse().ok()? })
    }

    /// Whether a process has ended, waited for or not.
    pub(super) fn is_dead(pid: u32) -> bool {
        // `1234 (name) Z …`; a name may hold anything, a parenthesis too.
        let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else { return true };
        let end = stat.iter().rposition(|byte| *byte == b')').unwrap_or(0);
        matches!(stat.get(end + 2), None | Some(b'Z' | b'X'))
    }

    fn has_open(pid: u32, file: FileId) -> bool {
        let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        fds.flatten().any(|fd| rustix::fs::stat(fd.path()).is_ok_and(|stat| file_id(&stat) == file))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::proc_locks::{HeldLock, is_dead, parse};

    #[test]
    fn a_process_is_dead_or_not() {
        assert!(!is_dead(std::process::id()) && !is_dead(1));
        assert!(is_dead(u32::MAX));
    }

    #[test]
    fn lines_of_proc_locks() {
        let held = HeldLock { pid: 1234, device: (0xfe, 0), inode: 131 };
        assert_eq!(parse("1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF"), Some(held));
        assert_eq!(
            parse("1: -> FLOCK  ADVISORY  WRITE 99 fe:00:131 0 EOF"),
            None,
            "it waits, it does not hold"
        );
        assert_eq!(parse("2: POSIX  ADVISORY  READ 5 fe:00:131 0 EOF"), None);
        assert_eq!(parse("3: FLOCK  ADVISORY  WRITE -1 fe:00:131 0 EOF"), None, "of another pid namespace");
        assert_eq!(parse("3: FLOCK  ADVISORY"), None);
        assert_eq!(parse(""), None);
    }
}
