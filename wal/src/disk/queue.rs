//! Many operations at once: submitted together, completed in any order.
//!
//! ```text
//! submit ──► in flight, in any order ──► reap
//!   ops own file and buffer                completions give the buffer back
//! ```
//!
//! The promises are [the seam's](super), put for operations that overlap:
//!
//! - Q1: operations in flight have no order among each other. Two whose ranges overlap, one of them a write, leave
//!   any mixture. Whoever needs an order reaps the one before submitting the other.
//! - Q2: an [`Op::Sync`] covers the writes whose completions had been *reaped* before it was submitted, whichever
//!   queue or call made them. A write in flight beside it may be covered, or not.
//! - Q3: a durable [`Op::Write`] covers its own range, once its completion is reaped.
//! - Q4: what is in flight when the power fails, or whose completion is an error, may have happened wholly, in part
//!   or not at all.
//! - Q5: a failed sync is never to be tried again, as with [`DiskFile::sync_data`]: which bytes of the file reached
//!   the device is unknown from then on. Files of [`OsDisk`](super::OsDisk) see to it: once one has failed, in a
//!   queue or outside, every later sync through the handle does.
//! - Q6: each operation has a fate of its own: one that fails stops no other.
//! - Q7: dropping a queue waits for what the system has in its hands; what it has not begun may never be. The memory
//!   and the file of an operation live until it has completed, whatever becomes of the queue.
//! - Q8: a queue may go to another thread while nothing is in flight. With operations in flight, the thread that
//!   submitted them reaps them, and drops the queue.

use super::DiskFile;
use crate::buf::AlignedBuf;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// An operation on an open file; it owns its memory until it has completed.
#[derive(Debug)]
pub enum Op {
    /// Writes all of the first `len` bytes of `buf`.
    Write {
        /// The file.
        file: Arc<dyn DiskFile>,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is written.
        buf: AlignedBuf,
        /// How many bytes of `buf` are meant.
        len: usize,
        /// Completed when it is on the device (Q3), as by [`DiskFile::write_durable_at`]. Otherwise as by
        /// [`DiskFile::write_at`], though on the grid of [`BLOCK_BYTES`](super::BLOCK_BYTES) it goes past the page
        /// cache where that can be.
        durable: bool,
    },
    /// Reads up to `len` bytes to the front of `buf`; fewer only at the file's end.
    Read {
        /// The file.
        file: Arc<dyn DiskFile>,
        /// Where in the file, in bytes.
        offset: u64,
        /// Where the bytes go.
        buf: AlignedBuf,
        /// How many bytes are wanted.
        len: usize,
        /// As by [`DiskFile::read_device_at`]; otherwise as by [`DiskFile::read_at`].
        from_device: bool,
    },
    /// Makes durable what was written to the file before (Q2), as by [`DiskFile::sync_data`].
    Sync {
        /// The file.
        file: Arc<dyn DiskFile>,
    },
}

/// An operation that has come to its end.
#[derive(Debug)]
pub struct Completion {
    /// Which operation: [`Queue::submit`] gave the first one's number, the others follow.
    pub token: u64,
    /// The bytes written or read; 0 for a sync.
    pub result: io::Result<usize>,
    /// The operation's buffer; `None` for a sync.
    pub buf: Option<AlignedBuf>,
    /// A read that asked for it was served by the device itself.
    pub from_device: bool,
}

/// Operations in flight; see the [module](self) for what is promised. Made by [`Disk::queue`](super::Disk::queue).
///
/// ```
/// use seawall_wal::disk::{Disk, DiskFile, Op, Open, Queue, SimDisk};
/// use seawall_wal::AlignedBuf;
///
/// # fn main() -> std::io::Result<()> {
/// let disk = SimDisk::new(7);
/// let file = disk.open("/blocks".as_ref(), Open::CreateNew)?;
/// let mut queue = disk.queue(16)?;
/// let mut ops = Vec::new();
/// for block in 0..4_u64 {
///     let (file, buf) = (file.clone(), AlignedBuf::zeroed(4096)?);
///     ops.push(Op::Write { file, offset: block * 4096, buf, len: 4096, durable: false });
/// }
/// let first = queue.submit(ops)?;
/// let mut done = Vec::new();
/// queue.reap(4, &mut done)?;
/// assert!(done.iter().all(|done| done.token - first < 4 && matches!(done.result, Ok(4096))));
/// // Only now, with all of them reaped, does a sync cover them.
/// queue.submit(vec![Op::Sync { file }])?;
/// queue.reap(1, &mut done)?;
/// # Ok(())
/// # }
/// ```
pub trait Queue: Debug + Send {
    /// Hands operations over, and returns the first one's token; those of the others follow it, one by one. Tokens of
    /// a queue are never used again. More operations than the queue's depth may be submitted: the rest wait inside.
    ///
    /// Whatever is wrong with one operation is told by its completion.
    ///
    /// # Errors
    /// When the queue itself cannot be used (Q8); nothing was taken then.
    fn submit(&mut self, ops: Vec<Op>) -> io::Result<u64>;

    /// Adds to `out` what has completed since the last call, and waits until that is `min` operations, or all that
    /// are in flight if those are fewer. With `min` 0 it never waits.
    ///
    /// # Errors
    /// When the queue itself has failed, or is used from a wrong thread (Q8): operations in flight have unknown
    /// outcomes (Q4). What had completed before is in `out` all the same.
    fn reap(&mut self, min: usize, out: &mut Vec<Completion>) -> io::Result<()>;

    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;
}

/// Runs each operation when it is submitted, one after another, by the file's own blocking methods.
#[derive(Debug, Default)]
pub(crate) struct BlockingQueue {
    next_token: u64,
    done: Vec<Completion>,
}

impl Queue for BlockingQueue {
    fn submit(&mut self, ops: Vec<Op>) -> io::Result<u64> {
        let first = self.next_token;
        for op in ops {
            self.done.push(execute(self.next_token, op));
            self.next_token += 1;
        }
        Ok(first)
    }

    fn reap(&mut self, _min: usize, out: &mut Vec<Completion>) -> io::Result<()> {
        out.append(&mut self.done);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }
}

/// Runs an operation to its end, by blocking calls.
pub(super) fn execute(token: u64, op: Op) -> Completion {
    match op {
        Op::Write { file, offset, buf, len, durable } => {
            let result = buf.get(..len).ok_or_else(too_long).and_then(|bytes| {
                let written =
                    if durable { file.write_durable_at(bytes, offset) } else { file.write_at(bytes, offset) };
                written.map(|()| len)
            });
            Completion { token, result, buf: Some(buf), from_device: false }
        }
        Op::Read { file, offset, mut buf, len, from_device } => {
            let result = buf.get_mut(..len).ok_or_else(too_long).and_then(|bytes| {
                if from_device {
                    file.read_device_at(bytes, offset)
                } else {
                    file.read_at(bytes, offset).map(|read| (read, false))
                }
            });
            let from_device = result.as_ref().is_ok_and(|(_, from_device)| *from_device);
            Completion { token, result: result.map(|(read, _)| read), buf: Some(buf), from_device }
        }
        Op::Sync { file } => {
            Completion { token, result: file.sync_data().map(|()| 0), buf: None, from_device: false }
        }
    }
}

pub(super) fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the operation is longer than its buffer")
}
