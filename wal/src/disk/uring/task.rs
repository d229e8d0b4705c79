//! One operation as a chain of requests to the kernel. Nothing is asked of the kernel here but what a blocking end
//! needs.

use crate::buf::AlignedBuf;
use crate::disk::os::durable::{DurableWrite, check_range, is_on_grid, is_refusal};
use crate::disk::os::file::{OsFile, Turn};
use crate::disk::queue::too_long;
use crate::disk::{BLOCK_BYTES, Completion, DiskFile, Op};
use std::any::Any;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// A single request's length is a 32-bit number, and a result a signed one.
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// An operation on its way.
#[derive(Debug)]
pub(super) struct Task {
    token: u64,
    file: Arc<OsFile>,
    kind: Kind,
    buf: Option<AlignedBuf>,
    offset: u64,
    len: usize,
    /// Bytes that are through.
    done: usize,
    /// A part of a durable write went out without a sync of its own.
    must_sync: bool,
    /// The device was read, so far.
    from_device: bool,
    /// The kernel found that it would have to block: its own threads shall do it.
    is_punted: bool,
    /// The way of the request that is on its way.
    way: Option<Way>,
    has_turn: bool,
    end: Option<io::Result<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write,
    WriteDurable,
    Read,
    Sync,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    ReadDirect,
    Write,
    WriteDirect,
    WriteDsync,
    WriteDirectDsync,
    Sync,
}

impl Way {
    /// Whether it syncs through the page cache, and so takes turns.
    fn takes_turns(self) -> bool {
        matches!(self, Way::WriteDsync | Way::Sync)
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) way: Way,
    pub(super) fd: RawFd,
    /// Of the task's buffer.
    pub(super) range: Range<usize>,
    /// In the file.
    pub(super) offset: u64,
    pub(super) is_punted: bool,
}

/// What is to be done for a task.
#[derive(Debug)]
pub(super) enum Next {
    Request(Request),
    Done(io::Result<usize>),
}

impl Task {
    /// Gives the operation back if its file is not one of the system's.
    pub(super) fn new(token: u64, op: Op) -> Result<Task, Op> {
        let file = match &op {
            Op::Write { file, .. } | Op::Read { file, .. } | Op::Sync { file } => Arc::clone(file),
        };
        let Some(file) = os_file(file) else { return Err(op) };
        let mut task = Task {
            token,
            file,
            kind: Kind::Sync,
            buf: None,
            offset: 0,
            len: 0,
            done: 0,
            must_sync: false,
            from_device: false,
            is_punted: false,
            way: None,
            has_turn: false,
            end: None,
        };
        match op {
            Op::Write { offset, buf, len, durable, .. } => {
                task.kind = if durable { Kind::WriteDurable } else { Kind::Write };
                (task.offset, task.len, task.buf) = (offset, len, Some(buf));
            }
            Op::Read { offset, buf, len, from_device, .. } => {
                (task.kind, task.from_device) = (Kind::Read, from_device);
                (task.offset, task.len, task.buf) = (offset, len, Some(buf));
            }
            Op::Sync { .. } => {}
        }
        task.end = task.check().err().map(Err);
        Ok(task)
    }

    fn check(&self) -> io::Result<()> {
        if self.len > self.buf.as_ref().map_or(0, |buf| buf.len()) {
            return Err(too_long());
        }
        check_range(self.offset, self.len as u64)
    }

    /// What is to be done next; the caller does it, and then calls [`absorb`](Task::absorb).
    pub(super) fn next(&mut self) -> Next {
        if let Some(result) = self.end.take() {
            return Next::Done(result);
        }
        let is_whole = self.done >= self.len;
        let way = match self.kind {
            Kind::Read | Kind::Write if is_whole => return Next::Done(Ok(self.done)),
            Kind::Read => self.way_to_read(),
            Kind::Write => self.way_to_write(),
            Kind::WriteDurable if !is_whole => self.way_to_write_durably(),
            Kind::WriteDurable if !self.must_sync => return Next::Done(Ok(self.done)),
            Kind::WriteDurable | Kind::Sync => Way::Sync,
        };
        if way.takes_turns()
            && let Err(error) = self.file.check_synced()
        {
            return Next::Done(Err(error));
        }
        let end = self.len.min(self.done + REQUEST_BYTES_MAX);
        Next::Request(Request {
            way,
            fd: self.fd(way),
            range: self.done..end,
            offset: self.offset + self.done as u64,
            is_punted: self.is_punted,
        })
    }

    fn rest(&self) -> &[u8] {
        let buf = self.buf.as_ref().and_then(|buf| buf.get(self.done..self.len));
        buf.unwrap_or_default()
    }

    fn rest_offset(&self) -> u64 {
        self.offset + self.done as u64
    }

    fn has_direct(&self) -> bool {
        self.file.direct_fd(self.rest(), self.rest_offset()).is_some()
    }

    fn way_to_read(&mut self) -> Way {
        if self.from_device && self.file.reads_device() && self.has_direct() {
            return Way::ReadDirect;
        }
        if std::mem::take(&mut self.from_device) {
            // All of it from one place: what was read directly is read again.
            self.done = 0;
        }
        Way::Read
    }

    fn way_to_write(&self) -> Way {
        if self.has_direct() { Way::WriteDirect } else { Way::Write }
    }

    fn way_to_write_durably(&self) -> Way {
        match self.file.method.get() {
            DurableWrite::DirectDsync
                if is_on_grid(self.rest(), self.rest_offset()) && self.file.any_direct_fd().is_some() =>
            {
                Way::WriteDirectDsync
            }
            // Also after a short direct write that ended off the grid.
            DurableWrite::DirectDsync | DurableWrite::Dsync => Way::WriteDsync,
            DurableWrite::WriteThenSync => Way::Write,
        }
    }

    fn fd(&self, way: Way) -> RawFd {
        let buffered = self.file.buffered_fd();
        let fd = match way {
            Way::Read | Way::Write => buffered,
            Way::ReadDirect | Way::WriteDirect | Way::WriteDirectDsync => {
                self.file.any_direct_fd().unwrap_or(buffered)
            }
            // Without a descriptor for rings there is no turn to take, and no request is made.
            Way::WriteDsync | Way::Sync => self.file.ring_fd().unwrap_or(buffered),
        };
        fd.as_raw_fd()
    }

    /// Whether this request may be made now, by this queue.
    pub(super) fn take_turn(&mut self, request: &Request, queue: u64) -> Turn {
        if !request.way.takes_turns() {
            self.way = Some(request.way);
            return Turn::Taken;
        }
        let turn = self.file.take_turn(queue);
        if turn == Turn::Taken {
            self.has_turn = true;
            self.way = Some(request.way);
        }
        turn
    }

    fn end_turn(&mut self) {
        if std::mem::take(&mut self.has_turn) {
            self.file.end_turn();
        }
    }

    /// The memory of a request: valid until the task goes away, wherever the task is moved to.
    pub(super) fn memory(&mut self, range: &Range<usize>) -> Option<&mut [u8]> {
        self.buf.as_mut()?.get_mut(range.clone())
    }

    /// Takes a request's result: a count, or an error's number below zero.
    pub(super) fn absorb(&mut self, result: i32) {
        let Some(way) = self.way.take() else { return };
        let result = match usize::try_from(result) {
            Ok(count) => Ok(count),
            Err(_) => Err(io::Error::from_raw_os_error(result.saturating_neg())),
        };
        match result {
            Ok(count) => self.advance(way, count),
            Err(error) => self.refuse_or_fail(way, error),
        }
        self.end_turn();
    }

    fn advance(&mut self, way: Way, count: usize) {
        match way {
            Way::Sync => {
                // A sync beside this one may have been told what this one was not.
                self.end = Some(self.file.check_synced().map(|()| self.len));
            }
            Way::Read | Way::ReadDirect => self.advance_read(way, count),
            _ if count == 0 => self.end = Some(Err(io::ErrorKind::WriteZero.into())),
            _ => {
                self.done += count;
                self.must_sync |= way == Way::Write && self.kind == Kind::WriteDurable;
            }
        }
    }

    fn advance_read(&mut self, way: Way, count: usize) {
        self.done += count;
        if way == Way::ReadDirect && !self.done.is_multiple_of(BLOCK_BYTES) {
            // Off the grid: at the file's end, or else the rest cannot be had directly.
            match self.file.len() {
                Ok(len) if self.rest_offset() >= len => self.end = Some(Ok(self.done)),
                Ok(_) => self.file.refuse_direct(),
                Err(error) => self.end = Some(Err(error)),
            }
        } else if count == 0 {
            self.end = Some(Ok(self.done));
        }
    }

    fn refuse_or_fail(&mut self, way: Way, error: io::Error) {
        if error.kind() == io::ErrorKind::Interrupted {
            return;
        }
        if error.kind() == io::ErrorKind::WouldBlock && !self.is_punted {
            self.is_punted = true;
            return;
        }
        match way {
            Way::ReadDirect | Way::WriteDirect if is_refusal(&error) => self.file.refuse_direct(),
            Way::WriteDirectDsync if is_refusal(&error) => self.file.method.fall_to(DurableWrite::Dsync),
            Way::WriteDsync if is_refusal(&error) => self.file.method.fall_to(DurableWrite::WriteThenSync),
            Way::WriteDsync | Way::Sync => self.end = Some(self.file.note_sync(Err(error))),
            _ => self.end = Some(Err(error)),
        }
    }

    /// Does what is left to be done by blocking calls.
    pub(super) fn finish_blocking(&mut self) -> io::Result<usize> {
        let offset = self.rest_offset();
        match self.kind {
            Kind::Sync => self.file.sync_data()?,
            Kind::Write => self.file.write_at(self.rest(), offset)?,
            Kind::WriteDurable => {
                self.file.write_durable_at(self.rest(), offset)?;
                if self.must_sync {
                    self.file.sync_data()?;
                }
            }
            Kind::Read => {
                let Some(buf) = self.buf.as_mut().and_then(|buf| buf.get_mut(..self.len)) else {
                    return Err(too_long());
                };
                let read = if self.from_device {
                    self.file.read_device_at(buf, self.offset)
                } else {
                    self.file.read_at(buf, self.offset).map(|read| (read, false))
                };
                (self.len, self.from_device) = read?;
            }
        }
        Ok(self.len)
    }

    pub(super) fn complete(mut self, result: io::Result<usize>) -> Completion {
        let from_device = self.from_device && result.is_ok();
        Completion { token: self.token, result, buf: self.buf.take(), from_device }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end_turn();
    }
}

/// The file as this system's, if it is one.
fn os_file(file: Arc<dyn DiskFile>) -> Option<Arc<OsFile>> {
    let file: Arc<dyn Any + Send + Sync> = file;
    file.downcast().ok()
}

#[cfg(test)]
mod tests;
