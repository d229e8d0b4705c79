//! Batches into segment files: headers, rotation, and which call makes them durable. Called by one leader at a time.
//!
//! Invariants kept here:
//! - **W1** A segment's header is written only when its predecessor is durable to its end.
//! - **W2** Nothing is acknowledged in a segment before its header and its name are durable.
//! - **W3** A block that holds bytes covered by a sync is never written again.
//! - **W4** A durable write covers its own range only: while an earlier frame of the file was written without one,
//!   durability takes a sync of the file.
//! - **W5** Frames are submitted in LSN order, each with its predecessor's checksum.

use crate::Lsn;
use crate::anchor::Closed;
use crate::buf::AlignedBuf;
use crate::commit::{Batch, Sink, Written};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, DurableWrite, Queue};
use crate::error::{Error, Result, is_disk_full};
use crate::frame;
use crate::keeper::Signals;
use crate::mutation::Mutation;
use crate::runtime::Runtime;
use crate::scan::SegmentUse;
use crate::segment::{self, Geometry, Predecessor};
use crate::spares::Spares;
use crate::stats::{Counters, add};
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod cut;
mod many;

pub(crate) use cut::Successor;

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) salt: u64,
    /// The last frame's checksum, or the header's.
    pub(crate) checksum: u32,
    /// Where the next frame goes.
    pub(crate) end: Lsn,
    /// The last frame's place; none if there is none in this segment, or it is not known.
    pub(crate) last: Option<Lsn>,
    /// The end of the last whole record written, in any segment.
    pub(crate) whole_end: Lsn,
    /// Whether frames were written that no durable write or sync covers.
    pub(crate) unsynced: bool,
}

/// Where the chain of frames stands.
#[derive(Clone, Copy, Debug)]
struct Chain {
    checksum: u32,
    end: Lsn,
    last: Option<Lsn>,
    whole_end: Lsn,
}

impl Live {
    fn chain(&self) -> Chain {
        Chain { checksum: self.checksum, end: self.end, last: self.last, whole_end: self.whole_end }
    }

    /// What was written since is not there, as far as the chain is concerned.
    fn go_back(&mut self, chain: Chain) {
        (self.checksum, self.end) = (chain.checksum, chain.end);
        (self.last, self.whole_end) = (chain.last, chain.whole_end);
    }
}

/// Whether a durable write that found no room has not failed as a sync: what it did not write is all that is missing.
fn writes_in_one_step(file: &dyn DiskFile) -> bool {
    matches!(file.durable_write(), None | Some(DurableWrite::DirectDsync))
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) dir: PathBuf,
    pub(crate) geometry: Geometry,
    pub(crate) store_id: [u8; 16],
    /// The epoch that segments begin in.
    pub(crate) epoch: AtomicU64,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) spares: Arc<Spares>,
    pub(crate) counters: Arc<Counters>,
    /// Made when it is first needed; taken out by the leader that uses it.
    pub(crate) queue: Mutex<Option<Box<dyn Queue>>>,
    /// Taken out by the leader for as long as it writes: no lock is held across I/O.
    pub(crate) live: Mutex<Option<Live>>,
    /// What the live segment was when a write took it: where the log ends until that is done.
    pub(crate) left: Mutex<Option<Left>>,
    /// The uses of segment files that hold the log, oldest first.
    pub(crate) segments: Mutex<BTreeMap<u64, SegmentUse>>,
    /// The durable LSN that the newest frame carries.
    pub(crate) carried: AtomicU64,
    pub(crate) signals: Signals,
    pub(crate) mutation: Option<Mutation>,
    /// After a write that failed: the first frame that is not in its file, if nothing but room was missing.
    pub(crate) unwritten: Mutex<Option<Lsn>>,
    /// The predecessor of a last segment without a frame, which gets a new header instead of a successor.
    pub(crate) reheads: Mutex<Option<Option<Predecessor>>>,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) end: Lsn,
    pub(crate) whole_end: Lsn,
    pub(crate) checksum: u32,
}

impl Sink for Writer {
    fn write(&self, batches: &mut [Batch], durable: bool, claim: Lsn) -> Result<Written> {
        let Some(mut live) = self.take_live() else { return Err(Error::Closed) };
        *self.unwritten.lock() = None;
        let result = self.write_all(&mut live, batches, durable, claim);
        *self.live.lock() = Some(live);
        self.signals.poke(&*self.runtime);
        result
    }

    fn unwritten(&self) -> Option<Lsn> {
        *self.unwritten.lock()
    }
}

impl Writer {
    /// The live segment, for a write of it.
    pub(crate) fn take_live(&self) -> Option<Live> {
        let mut live = self.live.lock();
        if let Some(live) = &*live {
            *self.left.lock() =
                Some(Left { end: live.end, whole_end: live.whole_end, checksum: live.checksum });
        }
        live.take()
    }

    fn write_all(
        &self,
        live: &mut Live,
        batches: &mut [Batch],
        durable: bool,
        claim: Lsn,
    ) -> Result<Written> {
        let single = batches.len() == 1;
        for run in batches.chunk_by_mut(|a, b| self.geometry.number(a.base) == self.geometry.number(b.base)) {
            let number = run.first().map_or(live.number, |batch| self.geometry.number(batch.base));
            if number != live.number {
                self.rotate(live, number)?;
            }
            if Writer::are_many(run, self.geometry) {
                self.write_many(live, run, claim)?;
                continue;
            }
            for batch in run {
                self.write_one(live, batch, durable && single, claim)?;
            }
        }
        let early = self.mutation == Some(Mutation::AcknowledgeWritten);
        if durable && live.unsynced && !early {
            self.sync(live)?;
        }
        Ok(Written { end: live.whole_end, durable: !live.unsynced || (durable && early) })
    }

    /// Writes one batch; durably if it stands `alone` and nothing before it in the file is still volatile.
    fn write_one(&self, live: &mut Live, batch: &mut Batch, alone: bool, claim: Lsn) -> Result<()> {
        let before = live.chain();
        let (header, len) = self.finish_frame(live, batch, claim);
        let bytes = batch.buf.get(..len).unwrap_or_default();
        let offset = self.geometry.offset(batch.base);
        // W4: a durable write alone is enough only if nothing before it in the file is still volatile.
        let barrier = self.mutation == Some(Mutation::DurableWriteAsBarrier);
        let alone =
            alone && self.mutation != Some(Mutation::AcknowledgeWritten) && (!live.unsynced || barrier);
        let written = if alone {
            live.unsynced = false;
            add(&self.counters.syncs, 1);
            live.file.write_durable_at(bytes, offset)
        } else {
            live.unsynced = true;
            live.file.write_at(bytes, offset)
        };
        if let Err(source) = written {
            if is_disk_full(&source) && (!alone || writes_in_one_step(&*live.file)) {
                let mut from = batch.base;
                if self.mutation == Some(Mutation::ForgetUnwritten) {
                    self.note_written(live, batch, &header, len, claim);
                    from = from.plus(len as u64);
                } else {
                    live.go_back(before);
                }
                *self.unwritten.lock() = Some(from);
            }
            return Err(self.error("write", live.number, Some(offset), source));
        }
        self.note_written(live, batch, &header, len, claim);
        Ok(())
    }

    fn note_written(&self, live: &mut Live, batch: &Batch, header: &frame::Header, len: usize, claim: Lsn) {
        add(&self.counters.writes, 1);
        add(&self.counters.device_bytes, len as u64);
        live.end = batch.base.plus(len as u64);
        live.last = Some(batch.base);
        if !batch.flags.goes_on() && batch.flags != frame::Flags::SEAL {
            live.whole_end = header.end();
        }
        self.carried.store(claim.0, Ordering::Release);
    }

    /// Gives a last segment without a frame a new header, with a new salt.
    pub(crate) fn rehead(&self, durable: Lsn) -> Result<()> {
        let Some(predecessor) = self.reheads.lock().take() else { return Ok(()) };
        let Some(mut live) = self.take_live() else { return Err(Error::Closed) };
        let begun = self.begin_segment(&*live.file, live.number, predecessor, durable);
        if let Ok((salt, checksum)) = begun {
            (live.salt, live.checksum) = (salt, checksum);
            let segment = SegmentUse { number: live.number, salt, checksum, end: None, cut: None };
            self.segments.lock().insert(live.number, segment);
        }
        *self.live.lock() = Some(live);
        begun.map(|_| ())
    }

    /// Begins the next segment now, not with its first frame.
    pub(crate) fn begin_next(&self) -> Result<()> {
        let Some(mut live) = self.take_live() else { return Err(Error::Closed) };
        let begun = self.rotate(&mut live, self.spares.next_number());
        *self.live.lock() = Some(live);
        begun
    }

    /// Begins segment `number`, whose file is ready.
    fn rotate(&self, live: &mut Live, number: u64) -> Result<()> {
        if live.unsynced && self.mutation != Some(Mutation::HeaderEarly) {
            // W1
            self.sync(live)?;
        }
        let file = self.spares.take(number).ok_or_else(|| {
            Error::BadInput(format!("segment {number} was to be written before its file was made ready"))
        })?;
        let predecessor = Predecessor {
            number: live.number,
            salt: live.salt,
            end: live.end,
            checksum: live.checksum,
            cut: None,
        };
        let durable = live.whole_end;
        let (salt, checksum) = match self.begin_segment(&*file, number, Some(predecessor), durable) {
            Err(Error::NoSpace) if writes_in_one_step(&*file) => {
                // No frame is behind it: the header may be written again, whatever is there of this one.
                self.spares.put_back(number, file);
                *self.unwritten.lock() = Some(self.geometry.first_frame(number));
                return Err(Error::NoSpace);
            }
            begun => begun?,
        };
        let mut segments = self.segments.lock();
        if let Some(last) = segments.get_mut(&live.number) {
            last.end = Some(live.end);
        }
        segments.insert(number, SegmentUse { number, salt, checksum, end: None, cut: None });
        drop(segments);
        *live = Live {
            number,
            file,
            salt,
            checksum,
            end: self.geometry.first_frame(number),
            last: None,
            whole_end: live.whole_end,
            unsynced: false,
        };
        Ok(())
    }

    /// Writes a segment's header durably. Returns its salt and its checksum.
    pub(crate) fn begin_segment(
        &self,
        file: &dyn DiskFile,
        number: u64,
        predecessor: Option<Predecessor>,
        durable: Lsn,
    ) -> Result<(u64, u32)> {
        let salt = self.runtime.random();
        let header = segment::Header {
            store_id: self.store_id,
            number,
            segment_bytes: self.geometry.segment_bytes,
            salt,
            predecessor,
            durable,
            epoch: self.epoch(),
        };
        let (block, checksum) = header.encode();
        let path = self.path(number);
        let mut buf = AlignedBuf::zeroed(BLOCK_BYTES)
            .map_err(|source| Error::io("map memory for", &path, None, source))?;
        buf.copy_from_slice(&block);
        let is_lazy =
            self.mutation == Some(Mutation::CutLazily) && predecessor.is_some_and(|p| p.cut.is_some());
        // W2
        let written = if is_lazy { file.write_at(&buf, 0) } else { file.write_durable_at(&buf, 0) };
        written.map_err(|source| Error::io("write", &path, Some(0), source))?;
        add(&self.counters.rotations, 1);
        add(&self.counters.writes, 1);
        add(&self.counters.syncs, 1);
        add(&self.counters.device_bytes, BLOCK_BYTES as u64);
        Ok((salt, checksum))
    }

    fn sync(&self, live: &mut Live) -> Result<()> {
        add(&self.counters.syncs, 1);
        let synced = match live.file.sync_data() {
            Err(_) if self.mutation == Some(Mutation::RetrySync) => live.file.sync_data(),
            synced => synced,
        };
        synced.map_err(|source| self.error("sync", live.number, None, source))?;
        live.unsynced = false;
        Ok(())
    }

    /// Where the log ends, if that is known and on the device: for the anchor, when it is closed.
    pub(crate) fn closed_at(&self, time_us: u64) -> Option<Closed> {
        let live = self.live.lock();
        let live = live.as_ref().filter(|live| !live.unsynced)?;
        let has_frames = live.end != self.geometry.first_frame(live.number);
        let last = if has_frames { live.last? } else { Lsn::ZERO };
        let Live { end, checksum, whole_end, .. } = *live;
        Some(Closed { end, last, checksum, whole_end, time_us })
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The number of the segment that is written to.
    pub(crate) fn live_number(&self) -> u64 {
        self.live.lock().as_ref().map_or(0, |live| live.number)
    }

    fn path(&self, number: u64) -> PathBuf {
        segment_path(&self.dir, number)
    }

    fn error(&self, op: &'static str, number: u64, offset: Option<u64>, source: std::io::Error) -> Error {
        Error::io(op, &self.path(number), offset, source)
    }
}

/// The path of a segment's file.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(segment::file_name(number))
}
