//! A replica's log: the same bytes at the same positions as the primary's, written from what is shipped.
//!
//! ```text
//!              accept()                  sync_replica()
//! a piece ───► verified, gathered ─────► on the device, and shown ───► (read, followed, shipped on)
//!                                        the anchor says how far the *last* sync came
//! ```
//!
//! The frames carry the primary's durable LSN, which says nothing of this disk. So a replica judges its own tail by its
//! own durable LSN, which its anchor carries: each sync writes, beside the frames, how far the one before it came, as a
//! frame of a primary does; an idle log writes the last one too.
//!
//! ```text
//!  (none) ──create_replica──► replica ──promote──► a log that is written
//!                               ▲   └─accept, sync_replica
//!                               └──────rewind────── a log that is closed
//! ```
//!
//! - **W13** A piece is taken only where the log ends, and only if it chains to what is there: the log is a prefix of its
//!   primary's, byte for byte.
//! - **W14** Of what was shipped nothing is shown, or called durable, before it is on this device.
//! - **W15** A replica's log takes no record of its own. It is promoted once the promise of its epoch, and where that
//!   begins, is on the device; and the epoch's first segment is there before the anchor says that it is no replica's.

use crate::Lsn;
use crate::anchor::Anchor;
use crate::buf::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Completion, Op};
use crate::error::{Error, Result};
use crate::log::{Inner, Wal};
use crate::mutation::Mutation;
use crate::scan::SegmentUse;
use crate::segment;
use crate::ship::Piece;
use crate::stats::add;
use crate::timeline::{History, Tail, Timeline};
use crate::writer::{Live, segment_path};
pub(crate) use chain::Chain as ReplicaChain;
use chain::Chain;
use gathered::{Gathered, Pending, Shipped};
use std::collections::VecDeque;
use std::sync::Arc;

mod chain;
mod create;
mod gathered;
mod promote;
mod rewind;

pub use create::{ReplicaStart, create_replica};
pub use rewind::rewind;

/// Bytes that are gathered before they are written without being asked for.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Writes that are in flight at a time.
const DEPTH: usize = 4;

/// What a replica's log has beside any other.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Where what was taken ends.
    chain: Chain,
    /// Verified, and not written yet.
    gathered: Gathered,
    /// What was written and is not durable: frames, in segments.
    is_volatile: bool,
}

impl Replica {
    pub(crate) fn new(chain: Chain) -> Replica {
        Replica { chain, gathered: Gathered::default(), is_volatile: false }
    }
}

impl Wal {
    /// Whether the log is a replica's: it takes what is [shipped](Wal::accept), and no record of its own.
    pub fn is_replica(&self) -> bool {
        self.0.inner.is_replica()
    }

    /// What the log knows of epochs.
    pub fn timeline(&self) -> Timeline {
        let inner = &self.0.inner;
        let anchor = *inner.anchor.lock();
        Timeline { epoch: anchor.epoch, promised: anchor.promised.max(anchor.epoch), history: anchor.history }
    }

    /// In which epoch the log's newest turn began; 0 if nobody was ever promoted. What [`timeline`](Wal::timeline) says, without a copy.
    pub fn epoch(&self) -> u64 {
        self.0.inner.anchor.lock().history.epoch()
    }

    /// Whether a replica's log has come to the position from which on it is needed, and to all that is in the image beside it. True
    /// of any other log.
    pub fn is_filled(&self) -> bool {
        let inner = &self.0.inner;
        let needed = inner.anchor.lock().needed();
        match &*inner.replica.lock() {
            Some(replica) => replica.chain.segment.is_some() && replica.chain.replay_place() >= needed,
            None => true,
        }
    }

    /// Where the log ends: a replica's, behind all that was accepted.
    pub fn tail(&self) -> Tail {
        self.0.inner.tail()
    }

    /// Promises to follow no primary of a lower epoch than this, and to be none; and takes over where epochs began.
    /// Durable when it returns. A lower one than was promised before is none.
    ///
    /// # Errors
    /// [`Error::Fenced`] if a higher epoch was promised; [`Error::Io`], [`Error::ReadOnly`].
    pub fn promise(&self, epoch: u64, history: &History) -> Result<()> {
        let inner = &self.0.inner;
        // What others promise, or begin, meanwhile counts.
        let _one_at_a_time = inner.anchor_latch.lock();
        let promised = self.timeline().promised;
        if epoch < promised {
            return Err(Error::Fenced { epoch: promised });
        }
        let anchor = *inner.anchor.lock();
        let history = if history.epoch() >= anchor.history.epoch() { *history } else { anchor.history };
        if anchor.promised == epoch && anchor.history == history {
            return Ok(());
        }
        inner.write_anchor_locked(|anchor| (anchor.promised, anchor.history) = (epoch, history))
    }

    /// Takes a piece of the primary's log, which begins where this one ends. It is verified and kept; see
    /// [`sync_replica`](Wal::sync_replica). Returns the end of the last whole record taken.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a piece of another place, or one that is damaged: nothing of it is taken, and it can be
    /// asked for again. [`Error::Diverged`] if it does not chain to what is here. [`Error::NoSpace`],
    /// [`Error::Poisoned`], [`Error::Io`].
    pub fn accept(&self, piece: &Piece) -> Result<Lsn> {
        self.0.inner.accept(piece)
    }

    /// Everything that was accepted is on the device when this returns, and is shown from then on. The end of the last
    /// whole record.
    ///
    /// # Errors
    /// [`Error::NoSpace`] before anything of a segment was written: it can be tried again. [`Error::Poisoned`],
    /// [`Error::Io`].
    pub fn sync_replica(&self) -> Result<Lsn> {
        self.0.inner.sync_replica()
    }
}

impl Inner {
    pub(crate) fn is_replica(&self) -> bool {
        self.replica.lock().is_some()
    }

    fn tail(&self) -> Tail {
        if let Some(replica) = &*self.replica.lock() {
            return replica.chain.tail();
        }
        let live = self.committer.sink.live.lock();
        let epoch = self.committer.sink.epoch();
        match &*live {
            Some(live) => Tail { epoch, place: live.end, whole_end: live.whole_end, checksum: live.checksum },
            None => match *self.committer.sink.left.lock() {
                // A write is under way: it ends where that began.
                Some(left) => {
                    Tail { epoch, place: left.end, whole_end: left.whole_end, checksum: left.checksum }
                }
                // Opened for reading alone: what was found.
                None => {
                    Tail { epoch, place: self.recovery.end, whole_end: self.committer.durable(), checksum: 0 }
                }
            },
        }
    }

    fn accept(&self, piece: &Piece) -> Result<Lsn> {
        self.check_failure()?;
        let _one_at_a_time = self.anchor_latch.lock();
        let (received, is_much) = {
            let mut replica = self.replica.lock();
            let Some(replica) = replica.as_mut() else { return Err(not_a_replica()) };
            // W13
            let (chain, items) = replica.chain.take(piece)?;
            replica
                .gathered
                .add(items, piece, &chain)
                .map_err(|source| Error::io("map memory for", &self.dir, None, source))?;
            replica.chain = chain;
            (chain.whole_end, replica.gathered.bytes() >= GATHERED_BYTES_MAX)
        };
        if is_much {
            self.write_gathered(false)?;
        }
        Ok(received)
    }

    fn check_failure(&self) -> Result<()> {
        match self.committer.ended() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(crate) fn sync_replica(&self) -> Result<Lsn> {
        self.check_failure()?;
        let _one_at_a_time = self.anchor_latch.lock();
        self.sync_replica_locked()
    }

    fn sync_replica_locked(&self) -> Result<Lsn> {
        self.write_gathered(true)?;
        let chain = {
            let replica = self.replica.lock();
            let Some(replica) = replica.as_ref() else { return Err(not_a_replica()) };
            replica.chain
        };
        // W14
        self.committer.shipped(chain.whole_end, chain.replay_place(), chain.time_us);
        Ok(self.committer.durable())
    }

    /// Writes what is gathered, durably if asked. What could not be written for want of a segment file stays gathered.
    fn write_gathered(&self, durable: bool) -> Result<()> {
        let (mut pending, is_volatile) = {
            let mut replica = self.replica.lock();
            let Some(replica) = replica.as_mut() else { return Err(not_a_replica()) };
            (replica.gathered.take(), replica.is_volatile)
        };
        let (mut volatile, mut spare) = (is_volatile, Vec::new());
        let result = self.write_pending(&mut pending, &mut spare, &mut volatile, durable);
        let mut replica = self.replica.lock();
        if let Some(replica) = replica.as_mut() {
            replica.is_volatile = volatile;
            replica.gathered.put_back(pending, spare);
        }
        drop(replica);
        match result {
            // Nothing of what found no room was written.
            Err(Error::NoSpace) => Err(Error::NoSpace),
            Err(error) => Err(self.fail_replica(error)),
            Ok(()) => Ok(()),
        }
    }

    fn write_pending(
        &self,
        pending: &mut VecDeque<Pending>,
        spare: &mut Vec<AlignedBuf>,
        volatile: &mut bool,
        durable: bool,
    ) -> Result<()> {
        while let Some(first) = pending.pop_front() {
            let first = match first {
                Pending::Frames(frames) => frames,
                Pending::Header(header, checksum, block) => {
                    if let Err(error) = self.begin_shipped(&header, checksum, &block, volatile) {
                        pending.push_front(Pending::Header(header, checksum, block));
                        return Err(error);
                    }
                    continue;
                }
            };
            if durable && pending.is_empty() && !*volatile {
                self.write_alone(first, spare)?;
                continue;
            }
            let more = pending.iter().take_while(|next| matches!(next, Pending::Frames(_))).count();
            let more = pending.drain(..more).filter_map(Pending::frames);
            let frames = std::iter::once(first).chain(more).collect();
            *volatile = true;
            self.write_side_by_side(frames, spare)?;
        }
        if durable && *volatile && self.mutation != Some(Mutation::AcknowledgeReceived) {
            self.sync_live()?;
            *volatile = false;
        }
        Ok(())
    }

    fn sync_live(&self) -> Result<()> {
        let file = self.committer.sink.live.lock().as_ref().map(|live| (live.number, Arc::clone(&live.file)));
        let Some((number, file)) = file else { return Ok(()) };
        add(&self.counters.syncs, 1);
        let path = segment_path(&self.dir, number);
        // Of what found no room, nothing is retried after a failed sync: not `NoSpace`.
        file.sync_data().map_err(|source| Error::Io { op: "sync", path, offset: None, source })
    }

    /// Writes a segment's header, where the segment before is durable to its end (W1, W2).
    fn begin_shipped(
        &self,
        header: &segment::Header,
        checksum: u32,
        block: &[u8],
        volatile: &mut bool,
    ) -> Result<()> {
        let (number, ends_before) = (header.number, header.predecessor.map(|before| before.end));
        let segment = SegmentUse { number, salt: header.salt, checksum, end: None, cut: None };
        let sink = &self.committer.sink;
        if *volatile {
            self.sync_live()?;
            *volatile = false;
        }
        let is_again = sink.live_number() == number;
        self.forget_headers_behind(ends_before, number)?;
        let file = match sink.live.lock().as_ref().filter(|_| is_again) {
            Some(live) => Arc::clone(&live.file),
            None => self.spares.file_for(number)?,
        };
        let path = segment_path(&self.dir, number);
        let buf = aligned(block, &path)?;
        add(&self.counters.rotations, 1);
        add(&self.counters.writes, 1);
        add(&self.counters.syncs, 1);
        add(&self.counters.device_bytes, BLOCK_BYTES as u64);
        file.write_durable_at(&buf, 0).map_err(|source| Error::Io {
            op: "write",
            path,
            offset: Some(0),
            source,
        })?;
        let mut segments = sink.segments.lock();
        if let (Some(end), Some((_, last))) = (ends_before, segments.range_mut(..number).next_back()) {
            last.end = Some(end);
        }
        segments.insert(number, segment);
        drop(segments);
        let end = self.geometry.first_frame(number);
        let whole_end = self.committer.durable();
        let live = Live {
            number,
            file,
            salt: segment.salt,
            checksum: segment.checksum,
            end,
            last: None,
            whole_end,
            unsynced: false,
        };
        *sink.live.lock() = Some(live);
        sink.signals.poke(&*self.runtime);
        Ok(())
    }

    /// A header that another takes the place of goes, with its file, before that is written: the newest header says which
    /// segments count.
    fn forget_headers_behind(&self, ends_before: Option<Lsn>, number: u64) -> Result<()> {
        let Some(end) = ends_before else { return Ok(()) };
        let sink = &self.committer.sink;
        let gone: Vec<u64> = {
            let segments = sink.segments.lock();
            let is_instead = |other: &u64| *other != number && self.geometry.first_frame(*other) > end;
            segments.keys().copied().filter(is_instead).collect()
        };
        for other in &gone {
            let path = segment_path(&self.dir, *other);
            self.disk.remove(&path).map_err(|source| Error::Io {
                op: "remove",
                path,
                offset: None,
                source,
            })?;
            sink.segments.lock().remove(other);
        }
        if gone.is_empty() {
            return Ok(());
        }
        *sink.live.lock() = None;
        self.disk.sync_dir(&self.dir).map_err(|source| Error::Io {
            op: "sync directory",
            path: self.dir.clone(),
            offset: None,
            source,
        })
    }

    fn live_file(&self) -> Result<Arc<dyn crate::DiskFile>> {
        self.committer.sink.live.lock().as_ref().map(|live| Arc::clone(&live.file)).ok_or(Error::Closed)
    }

    /// Of a write at this place.
    fn failed_at(&self, at: Lsn) -> impl Fn(std::io::Error) -> Error + use<> {
        let path = segment_path(&self.dir, self.geometry.number(at));
        let offset = Some(self.geometry.offset(at));
        move |source| Error::Io { op: "write", path: path.clone(), offset, source }
    }

    /// The log ends behind these frames.
    fn note_shipped(&self, frames: &Shipped) {
        add(&self.counters.writes, 1);
        add(&self.counters.device_bytes, frames.bytes().len() as u64);
        if let Some(live) = self.committer.sink.live.lock().as_mut() {
            let chain = &frames.chain;
            (live.checksum, live.end) = (chain.checksum, chain.place);
            (live.whole_end, live.last) = (chain.whole_end, chain.last);
        }
        self.committer.followers.keep_frames(frames.at, frames.bytes());
    }

    /// Writes frames durably, and beside them in the anchor how far the last sync came.
    fn write_alone(&self, frames: Shipped, spare: &mut Vec<AlignedBuf>) -> Result<()> {
        let file = self.live_file()?;
        let (offset, failed) = (self.geometry.offset(frames.at), self.failed_at(frames.at));
        self.note_shipped(&frames);
        if self.mutation == Some(Mutation::AcknowledgeReceived) {
            file.write_at(frames.bytes(), offset).map_err(failed)?;
            spare.push(frames.buf);
            return Ok(());
        }
        add(&self.counters.syncs, 1);
        match self.own_durable() {
            Some(anchor) => spare.extend(self.write_with_anchor(&file, offset, frames, anchor, failed)?),
            None => {
                file.write_durable_at(frames.bytes(), offset).map_err(failed)?;
                spare.push(frames.buf);
            }
        }
        Ok(())
    }

    /// Writes frames of the live segment, all at once and none durably: they are in the file when this returns.
    fn write_side_by_side(&self, frames: Vec<Shipped>, spare: &mut Vec<AlignedBuf>) -> Result<()> {
        let Some(first) = frames.first() else { return Ok(()) };
        let (file, failed) = (self.live_file()?, self.failed_at(first.at));
        let held = self.committer.sink.queue.lock().take();
        let Ok(mut queue) = held.map_or_else(|| self.disk.queue(DEPTH), Ok) else {
            // No memory for a queue: one after the other.
            return frames.into_iter().try_for_each(|frames| {
                file.write_at(frames.bytes(), self.geometry.offset(frames.at)).map_err(&failed)?;
                self.note_shipped(&frames);
                spare.push(frames.buf);
                Ok(())
            });
        };
        for frames in frames {
            self.note_shipped(&frames);
            let (offset, len) = (self.geometry.offset(frames.at), frames.len);
            let op = Op::Write { file: Arc::clone(&file), offset, buf: frames.buf, len, durable: false };
            queue.submit(vec![op]).map_err(&failed)?;
        }
        let mut done: Vec<Completion> = Vec::with_capacity(DEPTH);
        let in_flight = queue.in_flight();
        queue.reap(in_flight, &mut done).map_err(&failed)?;
        *self.committer.sink.queue.lock() = Some(queue);
        for Completion { result, buf, .. } in done {
            result.map_err(&failed)?;
            spare.extend(buf);
        }
        Ok(())
    }

    /// The anchor with this log's durable LSN, if it does not say that yet.
    fn own_durable(&self) -> Option<Anchor> {
        let mut anchor = *self.anchor.lock();
        let durable = self.committer.durable();
        if anchor.replica_durable >= durable {
            return None;
        }
        anchor.replica_durable = durable;
        anchor.sequence += 1;
        Some(anchor)
    }

    /// Both at once: what the anchor says was durable before. The latch on the anchor is held. Gives the frames' memory back.
    fn write_with_anchor(
        &self,
        file: &Arc<dyn crate::DiskFile>,
        offset: u64,
        frames: Shipped,
        anchor: Anchor,
        failed: impl Fn(std::io::Error) -> Error,
    ) -> Result<Option<AlignedBuf>> {
        let path = self.dir.join(crate::anchor::FILE_NAME);
        let Some(anchor_file) = self.anchor_file.clone() else { return Err(Error::ReadOnly) };
        let held = self.committer.sink.queue.lock().take();
        let Ok(mut queue) = held.map_or_else(|| self.disk.queue(DEPTH), Ok) else {
            // No memory for a queue: one after the other.
            file.write_durable_at(frames.bytes(), offset).map_err(failed)?;
            // What it says of this log's own durable LSN, every anchor of a replica says.
            self.write_anchor_locked(|_| {})?;
            return Ok(Some(frames.buf));
        };
        let anchor_buf = aligned(&anchor.encode(), &path)?;
        let Shipped { buf, len, .. } = frames;
        add(&self.counters.syncs, 1);
        add(&self.counters.device_bytes, BLOCK_BYTES as u64);
        let ops = vec![
            Op::Write { file: Arc::clone(file), offset, buf, len, durable: true },
            Op::Write {
                file: anchor_file,
                offset: anchor.offset(),
                buf: anchor_buf,
                len: BLOCK_BYTES,
                durable: true,
            },
        ];
        let first = queue.submit(ops).map_err(&failed)?;
        let mut done: Vec<Completion> = Vec::with_capacity(2);
        let in_flight = queue.in_flight();
        queue.reap(in_flight, &mut done).map_err(&failed)?;
        *self.committer.sink.queue.lock() = Some(queue);
        let mut frames = None;
        for Completion { token, result, buf, .. } in done {
            if token == first {
                result.map_err(&failed)?;
                frames = buf;
            } else {
                result.map_err(|source| Error::Io {
                    op: "write",
                    path: path.clone(),
                    offset: Some(anchor.offset()),
                    source,
                })?;
            }
        }
        *self.anchor.lock() = anchor;
        Ok(frames)
    }

    /// An idle replica says in its anchor how far it came. True if that was to be said.
    pub(crate) fn settle_replica(&self) -> Result<bool> {
        if self.anchor.lock().replica_durable >= self.committer.durable() {
            return Ok(false);
        }
        self.check_failure()?;
        let _one_at_a_time = self.anchor_latch.lock();
        self.write_anchor_locked(|_| {})?;
        Ok(true)
    }

    /// What is gathered becomes durable, and the anchor says so.
    pub(crate) fn close_replica(&self) -> Result<()> {
        let synced = self.sync_replica().map(|_| ());
        self.committer.close();
        self.committer.end();
        let settled = match &synced {
            Ok(()) => self.write_anchor(|_| {}),
            Err(_) => Ok(()),
        };
        self.committer.sink.live.lock().take();
        synced.and(settled)
    }

    /// W8, for what is shipped.
    fn fail_replica(&self, error: Error) -> Error {
        self.committer.fail(error.again());
        error
    }
}

fn not_a_replica() -> Error {
    Error::BadInput("this log is written by its own store: nothing can be shipped into it".to_owned())
}

/// A copy that may be written past the page cache.
fn aligned(bytes: &[u8], path: &std::path::Path) -> Result<AlignedBuf> {
    let mut buf =
        AlignedBuf::zeroed(bytes.len()).map_err(|source| Error::io("map memory for", path, None, source))?;
    buf.copy_from_slice(bytes);
    Ok(buf)
}
