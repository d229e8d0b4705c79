//! The ways to write durably, and the fall from one to the next.
//!
//! ```text
//! DirectDsync ──refused──▶ Dsync ──refused──▶ WriteThenSync
//! ```
//!
//! A file only ever falls, never rises. Which way is quickest differs a hundredfold between devices, so a log
//! measures them ([`probe_durable_write`](super::probe_durable_write)); every way keeps the same promise.

use crate::disk::BLOCK_BYTES;
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// A way to write bytes so that they are on the device when the call returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DurableWrite {
    /// `pwritev2` with `RWF_DSYNC` on an `O_DIRECT` descriptor; needs whole, aligned blocks.
    #[default]
    DirectDsync = 1,
    /// `pwritev2` with `RWF_DSYNC` through the page cache.
    Dsync = 2,
    /// `pwrite` through the page cache, then fdatasync: works everywhere.
    WriteThenSync = 3,
}

impl DurableWrite {
    /// All of them, each with the one after it that a file falls to.
    pub const ALL: [DurableWrite; 3] =
        [DurableWrite::DirectDsync, DurableWrite::Dsync, DurableWrite::WriteThenSync];

    /// The number that stands for it in files; never changes its meaning.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The reverse of [`number`](DurableWrite::number).
    pub fn from_number(number: u8) -> Option<DurableWrite> {
        DurableWrite::ALL.into_iter().find(|method| method.number() == number)
    }

    /// The way that a file falls to when it refuses this one.
    pub(in crate::disk) fn next(self) -> Option<DurableWrite> {
        DurableWrite::from_number(self.number() + 1)
    }
}

impl std::fmt::Display for DurableWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            DurableWrite::DirectDsync => "O_DIRECT + RWF_DSYNC",
            DurableWrite::Dsync => "RWF_DSYNC",
            DurableWrite::WriteThenSync => "write + fdatasync",
        })
    }
}

/// The way that a file has come down to; shared by the threads that write it.
#[derive(Debug)]
pub(in crate::disk) struct Method(AtomicU8);

impl Method {
    pub(super) fn new(method: DurableWrite) -> Method {
        Method(AtomicU8::new(method.number()))
    }

    pub(in crate::disk) fn get(&self) -> DurableWrite {
        DurableWrite::from_number(self.0.load(Ordering::Relaxed)).unwrap_or(DurableWrite::WriteThenSync)
    }

    /// Falls to `method`, as asked: the ways before it are not tried any more.
    pub(super) fn prefer(&self, method: DurableWrite) {
        self.fall_to(method);
    }

    /// Falls to `method`; stays where it is if another thread has fallen further.
    pub(in crate::disk) fn fall_to(&self, method: DurableWrite) {
        self.0.fetch_max(method.number(), Ordering::Relaxed);
    }
}

/// The calls below a durable write, each of which may write less than it was given.
pub(super) trait Calls {
    fn write_direct_dsync(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    fn write_dsync(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    fn write(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    fn sync(&self) -> io::Result<()>;
}

/// Writes all of `buf`, durably, by the best way that the file has not refused. Whatever part went out without a
/// sync of its own is followed by one.
pub(super) fn write_all_durably(
    calls: &impl Calls,
    method: &Method,
    buf: &[u8],
    offset: u64,
) -> io::Result<()> {
    check_range(offset, buf.len() as u64)?;
    let (mut rest, mut offset, mut must_sync) = (buf, offset, false);
    while !rest.is_empty() {
        let way = match method.get() {
            // Also after a short direct write that ended off the grid.
            DurableWrite::DirectDsync if !is_on_grid(rest, offset) => DurableWrite::Dsync,
            way => way,
        };
        let result = match way {
            DurableWrite::DirectDsync => calls.write_direct_dsync(rest, offset),
            DurableWrite::Dsync => calls.write_dsync(rest, offset),
            DurableWrite::WriteThenSync => calls.write(rest, offset),
        };
        match (result, way.next()) {
            (Ok(0), _) => return Err(io::ErrorKind::WriteZero.into()),
            (Ok(written), _) => {
                must_sync |= way == DurableWrite::WriteThenSync;
                rest = rest.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
            (Err(error), Some(next)) if is_refusal(&error) => method.fall_to(next),
            (Err(error), _) => return Err(error),
        }
    }
    if must_sync { calls.sync() } else { Ok(()) }
}

/// True if the system does not do such a thing on this file, as opposed to having failed at it.
pub(in crate::disk) fn is_refusal(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS))
}

/// True if direct I/O can be asked for.
pub(in crate::disk) fn is_on_grid(buf: &[u8], offset: u64) -> bool {
    buf.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
        && buf.len().is_multiple_of(BLOCK_BYTES)
        && offset.is_multiple_of(BLOCK_BYTES as u64)
}

/// So that the arithmetic after it cannot overflow.
pub(in crate::disk) fn check_range(offset: u64, bytes: u64) -> io::Result<()> {
    match offset.checked_add(bytes) {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "the range ends beyond the largest file offset"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use crate::AlignedBuf;
    use std::cell::{Cell, RefCell};

    /// Refuses and cuts short as told, and keeps what was asked of it.
    #[derive(Default)]
    struct Fake {
        refuses: Vec<(&'static str, Errno)>,
        at_most: Cell<Option<usize>>,
        interrupted: Cell<bool>,
        log: RefCell<Vec<(&'static str, usize, u64)>>,
    }

    impl Fake {
        fn call(&self, name: &'static str, buf: &[u8], offset: u64) -> io::Result<usize> {
            if self.interrupted.take() {
                return Err(Errno::INTR.into());
            }
            if let Some((_, errno)) = self.refuses.iter().find(|(refused, _)| *refused == name) {
                return Err((*errno).into());
            }
            let written = buf.len().min(self.at_most.take().unwrap_or(usize::MAX));
            self.log.borrow_mut().push((name, written, offset));
            Ok(written)
        }
    }

    impl Calls for Fake {
        fn write_direct_dsync(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
            self.call("direct", buf, offset)
        }
        fn write_dsync(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
            self.call("dsync", buf, offset)
        }
        fn write(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
            self.call("write", buf, offset)
        }
        fn sync(&self) -> io::Result<()> {
            self.call("sync", &[], 0).map(drop)
        }
    }

    fn write(fake: &Fake, method: &Method, bytes: usize) -> io::Result<Vec<(&'static str, usize, u64)>> {
        let buf = AlignedBuf::zeroed(bytes).unwrap();
        write_all_durably(fake, method, buf.get(..bytes).unwrap(), 4096)?;
        Ok(fake.log.take())
    }

    #[test]
    fn numbers_are_fixed() {
        let numbers: Vec<u8> = DurableWrite::ALL.into_iter().map(DurableWrite::number).collect();
        assert_eq!(numbers, [1, 2, 3], "they stand in anchors");
        assert_eq!(DurableWrite::from_number(0), None);
        assert_eq!(DurableWrite::from_number(4), None);
    }

    #[test]
    fn whole_blocks_go_directly_and_others_do_not() {
        let (fake, method) = (Fake::default(), Method::new(DurableWrite::DirectDsync));
        assert_eq!(write(&fake, &method, 8192).unwrap(), [("direct", 8192, 4096)]);
        assert_eq!(write(&fake, &method, 100).unwrap(), [("dsync", 100, 4096)]);
        assert_eq!(method.get(), DurableWrite::DirectDsync, "an unaligned write is no refusal");
    }

    #[test]
    fn a_refusal_sticks_and_keeps_the_promise() {
        for errno in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS] {
            let fake = Fake { refuses: vec![("direct", errno), ("dsync", errno)], ..Fake::default() };
            let method = Method::new(DurableWrite::DirectDsync);
            assert_eq!(write(&fake, &method, 4096).unwrap(), [("write", 4096, 4096), ("sync", 0, 0)]);
            assert_eq!(method.get(), DurableWrite::WriteThenSync);
        }
    }

    #[test]
    fn a_short_direct_write_goes_on_through_the_cache() {
        let (fake, method) = (Fake::default(), Method::new(DurableWrite::DirectDsync));
        fake.at_most.set(Some(512));
        fake.interrupted.set(true);
        assert_eq!(write(&fake, &method, 8192).unwrap(), [("direct", 512, 4096), ("dsync", 7680, 4608)]);
    }

    #[test]
    fn failures_are_not_refusals() {
        for errno in [Errno::IO, Errno::NOSPC] {
            let fake = Fake { refuses: vec![("direct", errno)], ..Fake::default() };
            let method = Method::new(DurableWrite::DirectDsync);
            let error = write(&fake, &method, 4096).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(errno));
            assert!(fake.log.borrow().is_empty(), "a failed write was tried again");
        }
        let fake = Fake { refuses: vec![("sync", Errno::IO)], ..Fake::default() };
        assert!(write(&fake, &Method::new(DurableWrite::WriteThenSync), 4096).is_err());
        let fake = Fake::default();
        fake.at_most.set(Some(0));
        let error = write(&fake, &Method::new(DurableWrite::Dsync), 4096).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        let error = write_all_durably(&fake, &Method::new(DurableWrite::Dsync), &[0], u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
