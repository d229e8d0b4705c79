//! Open files of a simulated disk.

use super::Shared;
use super::content::pages;
use super::fault::{Call, Op, Verdict};
use super::map::SimMapping;
use super::names::Inode;
use super::state::{State, eio, no_power};
use crate::disk::{BLOCK_BYTES, DiskFile, Lock, MapPromise, Mapping};
use std::io;
use std::sync::Arc;

/// A handle. It goes on to lead to its file when the name is gone.
pub(super) struct SimFile {
    pub(super) shared: Arc<Shared>,
    pub(super) inode: Inode,
    pub(super) handle: u64,
    /// The name at opening: for faults and the trace.
    pub(super) path: String,
    pub(super) is_writable: bool,
}

impl SimFile {
    pub(super) fn call(&self, op: Op, offset: u64, len: u64) -> Call<'_> {
        Call { op, path: &self.path, offset, len }
    }

    /// Fails for a range that no file can have, and for a file opened for reading if it is to be changed.
    pub(super) fn check(&self, offset: u64, len: u64, is_change: bool) -> io::Result<()> {
        if is_change && !self.is_writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only"));
        }
        match offset.checked_add(len) {
            Some(end) if end <= i64::MAX as u64 => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64, from_device: bool) -> io::Result<(usize, bool)> {
        self.check(offset, buf.len() as u64, false)?;
        self.shared.run(self.call(Op::Read, offset, buf.len() as u64), |state, verdict| {
            self.read_now(state, verdict, buf, offset, from_device)
        })
    }

    fn write(&self, buf: &[u8], offset: u64, op: Op) -> io::Result<Option<u64>> {
        self.check(offset, buf.len() as u64, true)?;
        self.shared.run(self.call(op, offset, buf.len() as u64), |state, verdict| {
            self.write_now(state, verdict, buf, offset)
        })
    }

    /// A read's effect.
    pub(super) fn read_now(
        &self,
        state: &mut State,
        verdict: Verdict,
        buf: &mut [u8],
        offset: u64,
        from_device: bool,
    ) -> io::Result<(usize, bool)> {
        match verdict {
            Verdict::PowerCut => return Err(no_power()),
            Verdict::Eio => return Err(eio()),
            _ => {}
        }
        let is_aligned = offset.is_multiple_of(BLOCK_BYTES as u64) && buf.len().is_multiple_of(BLOCK_BYTES);
        let from_device = from_device && is_aligned && state.is_direct;
        let Some(mut read) = state.content(self.inode)?.read(buf, offset, from_device) else {
            state.count("latent read error");
            return Err(eio());
        };
        if verdict == Verdict::Short {
            read = state.rng.below(read as u64) as usize;
        }
        state.note_data(&buf[..read]);
        Ok((read, from_device))
    }

    /// A write's first step, and of a plain one the only: the number of its change.
    pub(super) fn write_now(
        &self,
        state: &mut State,
        verdict: Verdict,
        buf: &[u8],
        offset: u64,
    ) -> io::Result<Option<u64>> {
        state.note_data(buf);
        state.note_change(self.inode, offset..offset + buf.len() as u64);
        state.submit_write(self.inode, offset, buf, verdict)
    }

    /// A durable write's second step: it has reached the device.
    pub(super) fn write_durable_end(&self, state: &mut State, id: u64, end: u64) -> io::Result<()> {
        state.content(self.inode)?.make_durable(id, end);
        Ok(())
    }

    /// A sync's first step: the last change that it covers.
    pub(super) fn sync_begin(&self, state: &mut State, verdict: Verdict) -> io::Result<u64> {
        let error = match verdict {
            Verdict::PowerCut => no_power(),
            Verdict::Full => io::ErrorKind::StorageFull.into(),
            Verdict::Eio | Verdict::DropSync => eio(),
            _ => return Ok(state.last_change),
        };
        if verdict != Verdict::PowerCut {
            state.fail_sync(self.inode, verdict)?;
        }
        Err(error)
    }

    /// A sync's second step.
    pub(super) fn sync_end(&self, state: &mut State, upto: u64) -> io::Result<()> {
        state.content(self.inode)?.sync(upto);
        let habit = state.habit;
        state.space.sync_file(self.inode, upto, habit);
        Ok(())
    }

    /// Fills with zeros; returns how much room there was.
    fn fill(&self, state: &mut State, offset: u64, bytes: u64) -> io::Result<u64> {
        let fits = state.room(self.inode, offset, bytes)?;
        state.note_change(self.inode, offset..offset + fits);
        let id = state.change();
        state.edit(self.inode, |content| content.zero(id, offset..offset + fits, true))?;
        Ok(fits)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(buf, offset, false).map(|(read, _)| read)
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        self.read(buf, offset, true)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write(buf, offset, Op::Write).map(drop)
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        // Between the two steps the write is on its way: a crash there may tear it.
        let Some(id) = self.write(buf, offset, Op::WriteDurable)? else { return Ok(()) };
        let end = offset + buf.len() as u64;
        self.shared.complete(|state| self.write_durable_end(state, id, end))
    }

    fn sync_data(&self) -> io::Result<()> {
        let call = self.call(Op::Sync, 0, u64::MAX);
        let upto = self.shared.run(call, |state, verdict| self.sync_begin(state, verdict))?;
        self.shared.complete(|state| self.sync_end(state, upto))
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.check(offset, bytes, true)?;
        self.shared.run(self.call(Op::Allocate, offset, bytes), |state, verdict| {
            let error = match verdict {
                Verdict::PowerCut => no_power(),
                Verdict::Full => io::ErrorKind::StorageFull.into(),
                Verdict::Eio => eio(),
                _ => {
                    if self.fill(state, offset, bytes)? == bytes {
                        return Ok(());
                    }
                    state.count("full");
                    return Err(io::ErrorKind::StorageFull.into());
                }
            };
            let part = state.rng.below(bytes + 1);
            self.fill(state, offset, part)?;
            Err(error)
        })
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.check(offset, bytes, true)?;
        self.shared.run(self.call(Op::Punch, offset, bytes), |state, verdict| {
            let (applies, result) = state.fate(verdict);
            if applies {
                let id = state.change();
                state.note_change(self.inode, offset..offset + bytes);
                state.edit(self.inode, |content| {
                    let end = (offset + bytes).min(content.visible_len);
                    let range = offset.min(end)..end;
                    content.zero(id, range.clone(), false);
                    let block = BLOCK_BYTES as u64;
                    let whole = pages(&(range.start.next_multiple_of(block)..range.end - range.end % block));
                    content.allocated.remove(whole);
                })?;
            }
            result
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.check(bytes, 0, true)?;
        self.shared.run(self.call(Op::SetLen, 0, u64::MAX), |state, verdict| {
            let (applies, result) = state.fate(verdict);
            if applies {
                let id = state.change();
                state.note_change(self.inode, bytes..u64::MAX);
                state.edit(self.inode, |content| content.set_len(id, bytes))?;
            }
            result
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.shared.run(self.call(Op::Len, 0, u64::MAX), |state, verdict| {
            state.fate(verdict).1?;
            Ok(state.content(self.inode)?.visible_len)
        })
    }

    fn map(&self, bytes: u64, _promise: MapPromise) -> io::Result<Arc<dyn Mapping>> {
        self.check(0, bytes, false)?;
        let file = self.shared.run(self.call(Op::Len, 0, u64::MAX), |state, verdict| {
            state.fate(verdict).1?;
            // As with a descriptor that a mapping keeps open: the lock stays too.
            *state.handle_shares.entry(self.handle).or_default() += 1;
            state.count_handle(self.inode);
            Ok(SimFile {
                shared: Arc::clone(&self.shared),
                inode: self.inode,
                handle: self.handle,
                path: self.path.clone(),
                is_writable: false,
            })
        })?;
        Ok(Arc::new(SimMapping { file: Arc::new(file), bytes }))
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.shared.run(self.call(Op::Lock, 0, u64::MAX), |state, verdict| {
            state.fate(verdict).1?;
            let holders = state.locks.entry(self.inode).or_default();
            let mut others = holders.iter().filter(|(handle, _)| *handle != self.handle);
            let is_free = match lock {
                Lock::Shared => others.all(|(_, held)| *held == Lock::Shared),
                Lock::Exclusive => others.next().is_none(),
            };
            if is_free {
                holders.retain(|(handle, _)| *handle != self.handle);
                holders.push((self.handle, lock));
            }
            Ok(is_free)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let shares = state.handle_shares.get(&self.handle).copied().unwrap_or(0);
        if let Some(left) = shares.checked_sub(1) {
            state.handle_shares.insert(self.handle, left);
        } else if let Some(holders) = state.locks.get_mut(&self.inode) {
            holders.retain(|(handle, _)| *handle != self.handle);
        }
        if let Some(file) = state.files.get_mut(&self.inode) {
            file.handles = file.handles.saturating_sub(1);
        }
        state.open_handles.0 = state.open_handles.0.saturating_sub(1);
        state.collect(self.inode);
    }
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).finish_non_exhaustive()
    }
}
