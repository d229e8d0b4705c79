//! Reading records by LSN: a stretch of the log, or the log as it grows.
//!
//! ```text
//! reader          frames into units, units into records
//! reader/seek     where reading begins
//! reader/live     beside the writer: how far may be shown, waiting for more, the pin
//! reader/tail     beside a writer in another process: looking again
//! reader/cut      when the log is cut: what a reader of it does, and where exactly it is
//! ```

use crate::Lsn;
use crate::error::{Error, Result};
use crate::follow::{SleepsOn, Stopper};
use crate::frame::{self, Flags};
use crate::log::WalOptions;
use crate::record::{self, Kind};
use crate::runtime::{OsRuntime, Runtime};
use crate::scan::{FrameReader, SegmentUse};
use crate::segment::Geometry;
use crate::slice::Slice;
use crate::sync::{AtomicBool, AtomicU32};
use crate::writer::segment_path;
use live::Live;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod cut;
mod live;
mod seek;
mod tail;

pub(crate) use cut::CutPlace;

/// One record of the log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Record {
    /// Where it stands.
    pub lsn: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    /// What it is.
    pub kind: Kind,
    /// The group that it belongs to.
    pub group: u64,
    /// When it was placed, in µs since 1970.
    pub time_us: u64,
    /// Where the frame begins that holds its first byte: see [`RecordRef::frame`].
    pub frame: Lsn,
    /// Its bytes.
    pub payload: Slice,
}

/// A record as [`WalReader::next_record`] lends it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RecordRef<'a> {
    /// Where it stands.
    pub lsn: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    /// What it is.
    pub kind: Kind,
    /// The group that it belongs to.
    pub group: u64,
    /// When it was placed, in µs since 1970.
    pub time_us: u64,
    /// Where the frame begins that holds its first byte. What is before this position is whole, and reading or replaying
    /// may begin here.
    pub frame: Lsn,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What [`WalReader::next_timeout`] met.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Next {
    /// The next record.
    Record(Record),
    /// Nothing within the time given; the reader stays good.
    TimedOut,
    /// There is no more, and will be none: the range's end, a log that was closed, a reader that was stopped.
    Ended,
}

/// Reads records in order, every frame verified. Made by [`Wal::read`](crate::Wal::read) and
/// [`Wal::follow`](crate::Wal::follow), which keep the log from being reclaimed under it, or by [`WalReader::open`] and
/// [`WalReader::follow`], which read the files alone.
#[derive(Debug)]
pub struct WalReader {
    frames: FrameReader,
    dir: PathBuf,
    geometry: Geometry,
    path: Vec<SegmentUse>,
    /// Index in the path, and the next frame's place.
    index: usize,
    at: Lsn,
    /// Records before this are skipped.
    from: Lsn,
    /// Records from here on are not shown.
    limit: Lsn,
    /// Where the last record shown ends, or where showing was to begin.
    shown: Lsn,
    /// The whole records of the frame, or of the frames that one record is cut over; and how far they were read.
    unit: Vec<u8>,
    unit_at: usize,
    /// Where the unit's bytes stand: for a cut one, the piece that holds each.
    pieces: Vec<(usize, Lsn)>,
    /// Where recovery began to judge frames.
    judged_from: Lsn,
    /// Whether a frame was read that begins with a record.
    started: bool,
    failed: bool,
    live: Option<Live>,
    tail: Option<tail::Tail>,
    stopper: Stopper,
    /// When a wait must end, on the runtime's clock; and whether it did.
    deadline: Option<Duration>,
    timed_out: bool,
}

impl WalReader {
    /// Reads a log without opening it for writing, as far as recovery would take it: beside a process that has it
    /// open, that is what was there a moment ago.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::FormatVersion`], [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>, from: Lsn) -> Result<WalReader> {
        WalReader::open_with(dir, from, &WalOptions::default())
    }

    /// Like [`open`](WalReader::open), on the options' disk.
    ///
    /// # Errors
    /// Like `open`.
    pub fn open_with(dir: impl AsRef<Path>, from: Lsn, options: &WalOptions) -> Result<WalReader> {
        let mut options = options.clone().read_only(true);
        options.settle_disk(dir.as_ref())?;
        let runtime: Arc<dyn Runtime> = options.runtime.clone().unwrap_or_else(|| OsRuntime::new());
        let found = crate::open::open(dir.as_ref(), &options, &runtime)?;
        let disk = options.disk_or_default();
        let frames = FrameReader::new(&disk, dir.as_ref(), found.geometry, true)?;
        let from = from.max(found.anchor.first);
        let sleeps_on = SleepsOn::Word(runtime, Arc::new(AtomicU32::new(0)));
        let stopper = Stopper { stop: Arc::new(AtomicBool::new(false)), sleeps_on };
        let mut reader = WalReader::over(frames, dir.as_ref(), from, stopper);
        (reader.path, reader.at, reader.limit) = (found.path, found.end, found.end);
        reader.seek()?;
        Ok(reader)
    }

    /// A reader that knows of no segment yet and may show nothing: its maker says what is to be read.
    fn over(frames: FrameReader, dir: &Path, from: Lsn, stopper: Stopper) -> WalReader {
        WalReader {
            dir: dir.to_owned(),
            geometry: frames.geometry(),
            frames,
            path: Vec::new(),
            index: 0,
            at: Lsn::ZERO,
            from,
            limit: Lsn::ZERO,
            shown: from,
            unit: Vec::new(),
            unit_at: 0,
            pieces: Vec::new(),
            judged_from: Lsn::ZERO,
            started: false,
            failed: false,
            live: None,
            tail: None,
            stopper,
            deadline: None,
            timed_out: false,
        }
    }

    /// A handle that ends this reader from another thread, also while it waits.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Like `next`, but waits no longer than `limit`. Only a reader that follows a log ever waits.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("seawall-next-doc-{}", std::process::id()));
    /// use seawall_wal::{Lsn, Next, Wal};
    /// use std::time::Duration;
    /// let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;
    /// let mut follower = wal.follow(Lsn::ZERO)?;
    /// assert!(matches!(follower.next_timeout(Duration::from_millis(1))?, Next::TimedOut));
    /// wal.commit(b"seen")?;
    /// assert!(matches!(follower.next_timeout(Duration::from_secs(60))?, Next::Record(r) if r.payload == b"seen"));
    /// # wal.close()?;
    /// # std::fs::remove_dir_all(dir).unwrap();
    /// # Ok::<(), seawall_wal::Error>(())
    /// ```
    ///
    /// # Errors
    /// Like [`next_record`](WalReader::next_record).
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Next> {
        self.deadline = Some(self.now().saturating_add(limit));
        let record = self.next_owned();
        self.deadline = None;
        Ok(match record? {
            Some(record) => Next::Record(record),
            None if self.timed_out => Next::TimedOut,
            None => Next::Ended,
        })
    }

    /// The next record, borrowed from the reader's buffer. A reader that follows a log waits for it.
    ///
    /// # Errors
    /// [`Error::Corruption`] for a damaged frame before the end, [`Error::Io`]; [`Error::Poisoned`] if the log that is
    /// followed has failed, behind all that was durable; [`Error::Truncated`] if the log was
    /// [cut](crate::Wal::truncate_after) before the reader's place. After an error there is no more.
    pub fn next_record(&mut self) -> Result<Option<RecordRef<'_>>> {
        if self.failed {
            return Ok(None);
        }
        let found = self.advance();
        self.failed = found.is_err();
        let Some((at, header)) = found? else { return Ok(None) };
        let start = at + record::HEADER_BYTES;
        let end = start + header.length as usize;
        Ok(Some(RecordRef {
            lsn: self.lsn_of(at),
            end: self.end_of(end),
            kind: header.kind,
            group: header.group,
            time_us: header.time_us,
            frame: self.pieces.first().map_or(self.at, |(_, lsn)| Lsn(lsn.0 - frame::HEADER_BYTES as u64)),
            payload: self.unit.get(start..end).unwrap_or_default(),
        }))
    }

    /// The next record's place and bytes, borrowed from the reader's buffer.
    ///
    /// # Errors
    /// Like [`next_record`](WalReader::next_record).
    pub fn next_ref(&mut self) -> Result<Option<(Lsn, &[u8])>> {
        Ok(self.next_record()?.map(|record| (record.lsn, record.payload)))
    }

    /// Where in the unit the next record to show stands.
    fn advance(&mut self) -> Result<Option<(usize, record::Header)>> {
        loop {
            let found = self.advance_uncut();
            // Asked after the reading: what was read before a cut is shown as before it.
            if self.was_cut()? {
                self.note_unshown(&found);
                self.go_on_before_cut()?;
                continue;
            }
            if let Err(error) = &found
                && self.may_look_again(error)
            {
                self.note_unshown(&found);
                self.go_on_with_files()?;
                continue;
            }
            self.has_read();
            if let Ok(Some((at, header))) = &found {
                self.shown = self.end_of(at + record::HEADER_BYTES + header.length as usize);
            }
            return self.ended_by_cut(found);
        }
    }

    fn advance_uncut(&mut self) -> Result<Option<(usize, record::Header)>> {
        self.timed_out = false;
        loop {
            if self.stopper.is_stopped() {
                return Ok(None);
            }
            while self.unit_at < self.unit.len() {
                let at = self.unit_at;
                let rest = self.unit.get(at..).unwrap_or_default();
                let Some(header) = record::Header::decode(rest) else {
                    return Err(self.damaged("a record's header does not parse"));
                };
                let end = at + record::HEADER_BYTES + header.length as usize;
                if end > self.unit.len() {
                    return Err(self.damaged("a record is longer than its frame"));
                }
                self.unit_at = end;
                let lsn = self.lsn_of(at);
                if lsn >= self.limit {
                    return Ok(None);
                }
                if lsn >= self.from {
                    return Ok(Some((at, header)));
                }
            }
            if !self.next_unit()? && !self.wait_for_more()? {
                return Ok(None);
            }
        }
    }

    /// Reads the next frame, or the next frames that one record is cut over. False at the end.
    fn next_unit(&mut self) -> Result<bool> {
        self.unit.clear();
        self.unit_at = 0;
        self.pieces.clear();
        self.advance_pin();
        loop {
            if self.is_unit_cut() {
                return Ok(true);
            }
            let Some(segment) = self.segment()? else {
                return if self.pieces.is_empty() {
                    Ok(false)
                } else {
                    Err(self.damaged("a record does not end"))
                };
            };
            if self.is_behind_given_up_header(&segment) {
                self.go_on_behind_shown()?;
                continue;
            }
            let Some(header) = self.take_frame(&segment)? else {
                // Recovery began behind here, and did not look where the last segment's frames end.
                if self.at < self.judged_from && segment.end.is_none() && self.pieces.is_empty() {
                    self.at = self.judged_from;
                    continue;
                }
                return Err(self.damaged("a frame before the log's end is damaged"));
            };
            self.at = self.at.plus(header.padded_bytes() as u64);
            if self.pieces.is_empty() {
                // The beginning is in an earlier segment, before `from`.
                continue;
            }
            if !header.flags.goes_on() {
                self.cut_unit(segment.splits_at());
                return Ok(true);
            }
        }
    }

    /// Verifies the frame at the reader's place and adds what it holds to the unit, unless it is a piece whose beginning
    /// is not there. `None` if there is no frame.
    fn take_frame(&mut self, segment: &SegmentUse) -> Result<Option<frame::Header>> {
        let recent = self.live.as_ref().and_then(|live| live.recent(self.at));
        let found = match &recent {
            Some(bytes) => match frame::Header::decode(bytes, segment.salt, self.at) {
                Ok(header) if header.verify(bytes) => Some((header, header.payload(bytes))),
                _ => None,
            },
            None => self.frames.frame_at_again(segment, self.at)?,
        };
        let Some((header, payload)) = found else { return Ok(None) };
        let goes_on = matches!(header.flags, Flags::MIDDLE | Flags::LAST);
        if self.pieces.is_empty() && goes_on && !self.started {
            return Ok(Some(header));
        }
        let is_in_sequence = goes_on != self.pieces.is_empty();
        if is_in_sequence {
            self.started = true;
            self.pieces.push((self.unit.len(), self.at.plus(frame::HEADER_BYTES as u64)));
            self.unit.extend_from_slice(payload);
            return Ok(Some(header));
        }
        let what = if goes_on { "a record goes on that did not begin" } else { "a record does not end" };
        Err(self.damaged(what))
    }

    /// The segment that the next frame stands in; `None` at the end.
    fn segment(&mut self) -> Result<Option<SegmentUse>> {
        loop {
            if self.at >= self.limit {
                return Ok(None);
            }
            let Some(segment) = self.path.get(self.index).copied() else { return Ok(None) };
            let ends_here = segment.end.is_some_and(|end| self.at >= end);
            if !ends_here && self.geometry.number(self.at) == segment.number {
                return Ok(Some(segment));
            }
            if self.index + 1 == self.path.len() && !self.refresh() {
                return Ok(None);
            }
            self.index += 1;
            if let Some(next) = self.path.get(self.index) {
                self.at = self.geometry.first_frame(next.number);
            }
        }
    }

    fn lsn_of(&self, at: usize) -> Lsn {
        let piece = self.pieces.iter().rev().find(|(start, _)| *start <= at);
        piece.map_or(self.at, |(start, lsn)| lsn.plus((at - start) as u64))
    }

    fn end_of(&self, end: usize) -> Lsn {
        self.lsn_of(end.saturating_sub(1)).plus(1)
    }

    fn damaged(&self, what: &str) -> Error {
        let number = self.geometry.number(self.at);
        Error::Corruption {
            file: segment_path(&self.dir, number),
            offset: self.geometry.offset(self.at),
            lsn: Some(self.at),
            what: what.to_owned(),
        }
    }
}

impl WalReader {
    fn next_owned(&mut self) -> Result<Option<Record>> {
        Ok(self.next_record()?.map(|record| Record {
            lsn: record.lsn,
            end: record.end,
            kind: record.kind,
            group: record.group,
            time_us: record.time_us,
            frame: record.frame,
            payload: Slice::from(record.payload.to_vec()),
        }))
    }
}

impl Iterator for WalReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_owned().transpose()
    }
}
