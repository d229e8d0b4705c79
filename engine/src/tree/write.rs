//! A fold's writes: blocks gathered into large runs, in extents taken from the free space, several runs in flight.
//!
//! Nothing is synced here, and nothing is known to be written before [`Writer::settle`] has returned. Whatever was
//! taken is remembered, so that a fold that is given up leaves no trace (T3): its writes end first, or they would
//! land in space that belongs to others by then.

use super::ptr::GRID;
use super::space::{Extent, Space};
use super::{Error, Result, TreeStore};
use crate::memory::Charge;
use seawall_wal::AlignedBuf;
use seawall_wal::disk::{Completion, Op, Queue};
use seawall_wal::error::is_disk_full;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The length of a run, in bytes: one write.
const RUN_BYTES: usize = 512 << 10;

/// Writes in flight at once.
const DEPTH: usize = 8;

/// Bytes of buffers in flight, at most, unless a single one is larger.
const IN_FLIGHT_BYTES_MAX: usize = 8 * RUN_BYTES;

/// The file grows by a 32nd of itself, within these bounds, in bytes.
const GROWTH: Range<u64> = 1 << 20..16 << 20;

/// A block as it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) checksum: u32,
}

/// Where a fold's blocks go.
#[derive(Debug)]
pub(super) struct Writer {
    store: Arc<TreeStore>,
    /// Made with the first write.
    queue: Option<Box<dyn Queue>>,
    /// By its token, where each write in flight goes.
    flying: BTreeMap<u64, u64>,
    flying_bytes: usize,
    /// Buffers of runs that came back.
    spare: Vec<AlignedBuf>,
    buffer: Option<AlignedBuf>,
    run: Option<Extent>,
    used: usize,
    taken: Vec<Extent>,
    /// Kept for the free map.
    map: Option<Extent>,
    bytes: u64,
    in_flight_max: usize,
    charge: Charge,
}

impl Writer {
    pub(super) fn new(store: Arc<TreeStore>) -> Writer {
        let memory = &store.memory;
        let in_flight_max = memory.buffers_max.load(Ordering::Relaxed) as usize / 2;
        Writer {
            in_flight_max: in_flight_max.clamp(2 * RUN_BYTES, IN_FLIGHT_BYTES_MAX),
            charge: Charge::none(&memory.fold_buffers),
            store,
            queue: None,
            flying: BTreeMap::new(),
            flying_bytes: 0,
            spare: Vec::new(),
            buffer: None,
            run: None,
            used: 0,
            taken: Vec::new(),
            map: None,
            bytes: 0,
        }
    }

    /// Bytes written, or waiting in the run.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Places a block of `bytes` (on the grid) and lets `fill` write it: all of it, knowing where it will stand.
    ///
    /// # Errors
    /// `NoSpace`, after which the fold can only be given up; `Io`, which the store remembers (T2).
    pub(super) fn block(&mut self, bytes: usize, fill: impl FnOnce(u64, &mut [u8])) -> Result<Written> {
        debug_assert!(bytes > 0 && (bytes as u64).is_multiple_of(GRID));
        let written =
            if bytes > RUN_BYTES / 2 { self.alone(bytes, fill)? } else { self.in_run(bytes, fill)? };
        self.bytes += bytes as u64;
        Ok(written)
    }

    /// Keeps an extent of this length for the free map, if there is one: later the runs will have cut up the free
    /// space. The last map but one has just been released, so maps of like size take turns in three places.
    pub(super) fn reserve_map(&mut self, bytes: u64) {
        self.map = self.store.space.lock().take(bytes, bytes, true);
    }

    /// Places the free map, of at least `bytes`. All room is taken before `fill` looks at what is free.
    ///
    /// # Errors
    /// As [`block`](Self::block).
    pub(super) fn map_block(&mut self, bytes: usize, fill: impl FnOnce(u64, &mut [u8])) -> Result<Written> {
        let kept = self.map.take();
        let room = bytes as u64..=(bytes as u64).saturating_mul(2).max(4 * GRID);
        let extent = match kept {
            Some(extent) if room.contains(&extent.bytes) => extent,
            _ => {
                self.store.give_back(kept.as_slice())?;
                let some_more = (bytes + bytes / 8).next_multiple_of(GRID as usize) as u64;
                self.extent_growing_by(some_more, some_more, some_more)?
            }
        };
        self.taken.push(extent);
        let written = self.write_extent(extent, fill)?;
        self.bytes += extent.bytes;
        Ok(written)
    }

    fn in_run(&mut self, bytes: usize, fill: impl FnOnce(u64, &mut [u8])) -> Result<Written> {
        let run = match self.run {
            Some(run) if run.bytes >= (self.used + bytes) as u64 => run,
            _ => {
                self.flush()?;
                let run = self.extent(bytes as u64, RUN_BYTES as u64)?;
                self.run = Some(run);
                run
            }
        };
        if self.buffer.is_none() {
            let spare = self.spare.pop();
            self.buffer = Some(spare.map_or_else(|| self.store.zeroed(RUN_BYTES), Ok)?);
        }
        let place = self.buffer.as_mut().and_then(|buffer| buffer.get_mut(self.used..self.used + bytes));
        let Some(place) = place else {
            return Err(Error::BadInput("a block does not fit in its run".to_owned()));
        };
        let offset = run.offset + self.used as u64;
        fill(offset, place);
        let checksum = crc32fast::hash(place);
        self.used += bytes;
        Ok(Written { offset, bytes: bytes as u32, checksum })
    }

    fn alone(&mut self, bytes: usize, fill: impl FnOnce(u64, &mut [u8])) -> Result<Written> {
        let extent = self.extent(bytes as u64, bytes as u64)?;
        self.taken.push(extent);
        self.write_extent(extent, fill)
    }

    fn write_extent(&mut self, extent: Extent, fill: impl FnOnce(u64, &mut [u8])) -> Result<Written> {
        let bytes = extent.bytes as usize;
        let mut buffer = self.store.zeroed(bytes)?;
        let Some(block) = buffer.get_mut(..bytes) else {
            return Err(Error::BadInput("a block does not fit in its buffer".to_owned()));
        };
        fill(extent.offset, block);
        let checksum = crc32fast::hash(block);
        self.submit(buffer, bytes, extent.offset)?;
        Ok(Written { offset: extent.offset, bytes: bytes as u32, checksum })
    }

    /// Returns when all blocks placed so far have been written. A sync covers none that was not (Q2).
    pub(super) fn settle(&mut self) -> Result<()> {
        self.flush()?;
        self.reap(usize::MAX)
    }

    /// Sends what waits in the run on its way, and gives back the rest of its extent.
    pub(super) fn flush(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let used = std::mem::take(&mut self.used);
        let filled = Extent { offset: run.offset, bytes: used as u64 };
        if filled.bytes > 0 {
            self.taken.push(filled);
        }
        self.store.give_back(&[Extent { offset: filled.end(), bytes: run.bytes - filled.bytes }])?;
        match self.buffer.take() {
            Some(buffer) if used > 0 => self.submit(buffer, used, run.offset),
            _ => Ok(()),
        }
    }

    /// Hands a write over, to blocks that no superblock leads to.
    fn submit(&mut self, buf: AlignedBuf, len: usize, offset: u64) -> Result<()> {
        while !self.flying.is_empty() && self.flying_bytes + buf.len() > self.in_flight_max {
            self.reap(1)?;
        }
        let store = &self.store;
        let fail = |error| store.fail(store.io("write", Some(offset), error));
        let queue = match &mut self.queue {
            Some(queue) => queue,
            None => self.queue.insert(store.disk.queue(DEPTH).map_err(fail)?),
        };
        self.flying_bytes += buf.len();
        let file = Arc::clone(&store.file);
        let token = queue.submit(vec![Op::Write { file, offset, buf, len, durable: false }]).map_err(fail)?;
        self.flying.insert(token, offset);
        self.charge.set((self.flying_bytes + self.spare.len() * RUN_BYTES) as u64);
        Ok(())
    }

    /// Waits for `min` writes, or for all. A full disk is no failure: the fold is given up.
    fn reap(&mut self, min: usize) -> Result<()> {
        let Some(queue) = &mut self.queue else { return Ok(()) };
        let mut done = Vec::new();
        let reaped = queue.reap(min, &mut done);
        let mut is_full = false;
        let mut failed = None;
        for Completion { token, result, buf, .. } in done {
            let offset = self.flying.remove(&token);
            if let Some(buf) = buf {
                self.flying_bytes = self.flying_bytes.saturating_sub(buf.len());
                if buf.len() == RUN_BYTES {
                    self.spare.push(buf);
                }
            }
            match result {
                Ok(_) => {}
                Err(error) if is_disk_full(&error) => is_full = true,
                Err(error) => failed = failed.or(Some((offset, error))),
            }
        }
        match (failed, reaped) {
            (Some((offset, error)), _) => Err(self.store.fail(self.store.io("write", offset, error))),
            (None, Err(error)) => Err(self.store.fail(self.store.io("write", None, error))),
            (None, Ok(())) if is_full => Err(Error::NoSpace),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Gives everything back: nothing of this fold will be published.
    pub(super) fn abort(&mut self) -> Result<()> {
        match self.reap(usize::MAX) {
            Ok(()) | Err(Error::NoSpace) => {}
            Err(error) => return Err(error),
        }
        self.used = 0;
        self.taken.extend(self.run.take());
        self.taken.extend(self.map.take());
        self.bytes = 0;
        self.store.give_back(&std::mem::take(&mut self.taken))
    }

    /// An extent of `min` to `wanted` bytes, from the free space or by growing the file.
    fn extent(&self, min: u64, wanted: u64) -> Result<Extent> {
        self.extent_growing_by(min, wanted, wanted.max(self.store.growth()))
    }

    fn extent_growing_by(&self, min: u64, wanted: u64, growth: u64) -> Result<Extent> {
        self.store.extent_by(min, growth, |space, must| space.take(min, wanted, must))
    }
}

impl TreeStore {
    pub(super) fn zeroed(&self, bytes: usize) -> Result<AlignedBuf> {
        AlignedBuf::zeroed(bytes).map_err(|error| self.io("buffer", None, error))
    }

    /// An `Io` error whatever the cause: where a full disk, too, leaves what is on the disk unknown.
    pub(super) fn io(&self, op: &'static str, offset: Option<u64>, source: io::Error) -> Error {
        Error::Io { op, path: self.path.clone(), offset, source }
    }

    fn give_back(&self, extents: &[Extent]) -> Result<()> {
        let mut space = self.space.lock();
        for extent in extents.iter().filter(|extent| extent.bytes > 0) {
            space.add_free(*extent).map_err(|flaw| self.corruption(extent.offset, flaw))?;
        }
        Ok(())
    }

    /// An extent of at least `min` bytes as `take` finds it, told whether it must; the file grows if need be.
    pub(super) fn extent_by(
        &self,
        min: u64,
        growth: u64,
        take: impl Fn(&mut Space, bool) -> Option<Extent>,
    ) -> Result<Extent> {
        let take = |must| take(&mut self.space.lock(), must);
        if let Some(extent) = take(false) {
            return Ok(extent);
        }
        match self.grow_by(growth) {
            Ok(()) => take(true).ok_or(Error::NoSpace),
            Err(Error::NoSpace) => match take(true) {
                Some(extent) => Ok(extent),
                None => {
                    self.grow_by(min)?;
                    take(true).ok_or(Error::NoSpace)
                }
            },
            Err(error) => Err(error),
        }
    }

    /// By how much the file grows at a time.
    pub(super) fn growth(&self) -> u64 {
        (self.end.load(Ordering::Acquire) / 32).clamp(GROWTH.start, GROWTH.end).next_multiple_of(GRID)
    }

    /// Makes the file longer by at least `bytes`, really allocated. Several may at once: each claims its part first.
    pub(super) fn grow_by(&self, bytes: u64) -> Result<()> {
        let claim = self.space.lock().claim(bytes.next_multiple_of(GRID));
        let allocated = self.file.allocate(claim.offset, claim.bytes);
        let flawed = |flaw| self.corruption(claim.offset, flaw);
        match allocated {
            Ok(()) => {
                // Before anybody can take it.
                self.end.fetch_max(claim.end(), Ordering::AcqRel);
                self.space.lock().give_up(claim).map_err(flawed)
            }
            Err(error) => {
                if !self.space.lock().unclaim(claim).map_err(flawed)? {
                    self.end.fetch_max(claim.end(), Ordering::AcqRel);
                }
                Err(if is_disk_full(&error) {
                    Error::NoSpace
                } else {
                    self.fail(self.io("allocate", Some(claim.offset), error))
                })
            }
        }
    }
}
