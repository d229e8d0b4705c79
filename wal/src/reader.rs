//! Reading records by LSN.

use crate::Lsn;
use crate::error::{Error, Result};
use crate::frame::{self, Flags};
use crate::log::{Inner, WalOptions};
use crate::record::{self, Kind};
use crate::retention::Pin;
use crate::runtime::{OsRuntime, Runtime};
use crate::scan::{FrameReader, SegmentUse};
use crate::segment::Geometry;
use crate::slice::Slice;
use crate::writer::segment_path;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Reads records in order, every frame verified. Made by [`Wal::read`](crate::Wal::read), which keeps the log from
/// being reclaimed under it, or by [`WalReader::open`].
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
    live: Option<(Arc<Inner>, Pin)>,
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
        let frames = FrameReader::new(&disk, dir.as_ref(), found.geometry, false)?;
        let from = from.max(found.anchor.first);
        let mut reader =
            WalReader::start(frames, dir.as_ref(), found.geometry, found.path, from, found.end, None)?;
        reader.seek()?;
        Ok(reader)
    }

    pub(crate) fn live(inner: &Arc<Inner>, pin: Pin, from: Lsn, limit: Lsn) -> Result<WalReader> {
        let frames = FrameReader::new(&inner.disk, &inner.dir, inner.geometry, false)?;
        let path = inner.segments();
        let live = Some((inner.clone(), pin));
        let mut reader = WalReader::start(frames, &inner.dir, inner.geometry, path, from, limit, live)?;
        reader.judged_from = inner.recovery.start;
        reader.seek()?;
        Ok(reader)
    }

    fn start(
        frames: FrameReader,
        dir: &Path,
        geometry: Geometry,
        path: Vec<SegmentUse>,
        from: Lsn,
        limit: Lsn,
        live: Option<(Arc<Inner>, Pin)>,
    ) -> Result<WalReader> {
        let index = path.iter().take_while(|segment| segment.end.is_some_and(|end| end <= from)).count();
        // A replay position may lie behind the last frame, even in a segment that was never begun.
        let first =
            path.get(index).filter(|_| from < limit).map(|segment| geometry.first_frame(segment.number));
        let at = first.unwrap_or(limit);
        Ok(WalReader {
            frames,
            dir: dir.to_owned(),
            geometry,
            path,
            index,
            at,
            from,
            limit,
            unit: Vec::new(),
            unit_at: 0,
            pieces: Vec::new(),
            judged_from: Lsn::ZERO,
            started: false,
            failed: false,
            live,
        })
    }

    /// Starts at `from` itself where that is a frame's boundary, as replay positions are.
    fn seek(&mut self) -> Result<()> {
        let Some(segment) = self.path.get(self.index).copied() else { return Ok(()) };
        let is_inside = self.geometry.number(self.from) == segment.number && self.from > self.at;
        if !is_inside || !self.from.0.is_multiple_of(crate::disk::BLOCK_BYTES as u64) {
            return Ok(());
        }
        if let Ok((header, _)) = self.frames.frame_at(&segment, self.from)?
            && !matches!(header.flags, Flags::MIDDLE | Flags::LAST)
        {
            self.at = self.from;
        }
        Ok(())
    }

    /// The next record, borrowed from the reader's buffer.
    ///
    /// # Errors
    /// [`Error::Corruption`] for a damaged frame before the end, [`Error::Io`]. After an error there is no more.
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
            if !self.next_unit()? {
                return Ok(None);
            }
        }
    }

    /// Reads the next frame, or the next frames that one record is cut over. False at the end.
    fn next_unit(&mut self) -> Result<bool> {
        self.unit.clear();
        self.unit_at = 0;
        self.pieces.clear();
        loop {
            let Some(segment) = self.segment()? else {
                return if self.pieces.is_empty() {
                    Ok(false)
                } else {
                    Err(self.damaged("a record does not end"))
                };
            };
            let frame = match self.frames.frame_at(&segment, self.at)? {
                Ok(frame) => Some(frame),
                // The buffer may hold what stood there before it was written.
                Err(_) => {
                    self.frames.forget();
                    self.frames.frame_at(&segment, self.at)?.ok()
                }
            };
            let Some((header, payload)) = frame else {
                // Recovery began behind here, and did not look where the last segment's frames end.
                if self.at < self.judged_from && segment.end.is_none() && self.pieces.is_empty() {
                    self.at = self.judged_from;
                    continue;
                }
                return Err(self.damaged("a frame before the log's end is damaged"));
            };
            let at = self.at;
            self.at = at.plus(header.padded_bytes() as u64);
            if self.pieces.is_empty() && matches!(header.flags, Flags::MIDDLE | Flags::LAST) {
                if self.started {
                    return Err(self.damaged("a record goes on that did not begin"));
                }
                // Its beginning is in an earlier segment, before `from`.
                continue;
            }
            if !self.pieces.is_empty() && !matches!(header.flags, Flags::MIDDLE | Flags::LAST) {
                return Err(self.damaged("a record does not end"));
            }
            self.started = true;
            self.pieces.push((self.unit.len(), at.plus(frame::HEADER_BYTES as u64)));
            self.unit.extend_from_slice(payload);
            if !header.flags.goes_on() {
                return Ok(true);
            }
        }
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

    /// Learns of segments begun since. True if there are more.
    fn refresh(&mut self) -> bool {
        let Some((inner, _)) = &self.live else { return false };
        let Some(last) = self.path.last().map(|segment| segment.number) else { return false };
        let segments = inner.segments();
        let more: Vec<SegmentUse> = segments.into_iter().filter(|segment| segment.number > last).collect();
        let found = !more.is_empty();
        self.path.extend(more);
        found
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

impl Iterator for WalReader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_record() {
            Ok(record) => record.map(|record| {
                Ok(Record {
                    lsn: record.lsn,
                    end: record.end,
                    kind: record.kind,
                    group: record.group,
                    time_us: record.time_us,
                    payload: Slice::from(record.payload.to_vec()),
                })
            }),
            Err(error) => Some(Err(error)),
        }
    }
}
