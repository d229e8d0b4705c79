//! Reading frames from segment files, in large pieces.

use crate::Lsn;
use crate::buf::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, Open};
use crate::error::{Error, Result};
use crate::frame::{self, Bad, FRAME_BYTES_MAX};
use crate::segment::{self, Cut, Geometry};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod ahead;

use ahead::Ahead;

/// Bytes read at once; of a small segment, a quarter.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_BYTES_MIN: usize = 16 << 10;

/// One use of a segment file, as recovery and readers walk it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentUse {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    /// The header's checksum: the first frame's predecessor in the chain.
    pub(crate) checksum: u32,
    /// Where its frames end, once a successor has begun.
    pub(crate) end: Option<Lsn>,
    /// Where it was cut, if its successor is there because of that.
    pub(crate) cut: Option<Cut>,
}

impl SegmentUse {
    /// Where its last unit was cut through: the records from there on are no part of the log.
    pub(crate) fn splits_at(&self) -> Option<Lsn> {
        self.cut.filter(|cut| cut.splits).map(|cut| cut.at)
    }
}

/// Why there is no frame at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// The segment, or the bytes of its file, end there.
    End,
    /// Zeros.
    Blank,
    /// Not of this use and place.
    Foreign,
    /// A header of this use and place, over a payload that does not match.
    Torn,
}

/// Reads frames, one segment file at a time.
#[derive(Debug)]
pub(crate) struct FrameReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    geometry: Geometry,
    open: Option<OpenSegment>,
    buf: AlignedBuf,
    /// The file offset of the buffer's first byte, and how many bytes of it are filled.
    window: (u64, usize),
    /// Nothing is read ahead from here on: it is being written.
    until: Lsn,
    from_device: bool,
    /// Once a segment is read on from the device.
    ahead: Option<Ahead>,
    /// Whether every read so far came from the device itself.
    pub(crate) all_from_device: bool,
}

#[derive(Debug)]
struct OpenSegment {
    number: u64,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
}

impl FrameReader {
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        geometry: Geometry,
        from_device: bool,
    ) -> Result<Self> {
        let buf = new_buf(chunk_bytes(geometry), dir)?;
        Ok(FrameReader {
            disk: disk.clone(),
            dir: dir.to_owned(),
            geometry,
            open: None,
            buf,
            window: (0, 0),
            until: Lsn::MAX,
            from_device,
            ahead: None,
            all_from_device: true,
        })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The frame at `lsn`, verified: its header and its payload.
    pub(crate) fn frame_at(
        &mut self,
        segment: &SegmentUse,
        lsn: Lsn,
    ) -> Result<Result<(frame::Header, &[u8]), NoFrame>> {
        let found = self.whole_frame_at(segment, lsn)?;
        Ok(found.map(|(header, whole)| (header, header.payload(whole))))
    }

    /// The frame at `lsn`, verified: its header, and all its bytes, header and padding included.
    pub(crate) fn whole_frame_at(
        &mut self,
        segment: &SegmentUse,
        lsn: Lsn,
    ) -> Result<Result<(frame::Header, &[u8]), NoFrame>> {
        let offset = self.geometry.offset(lsn);
        if self.geometry.number(lsn) != segment.number {
            return Ok(Err(NoFrame::End));
        }
        let header = {
            let Some(head) = self.bytes_at(segment.number, offset, BLOCK_BYTES)? else {
                return Ok(Err(NoFrame::End));
            };
            match frame::Header::decode(head, segment.salt, lsn) {
                Ok(header) => header,
                Err(Bad::Blank) => return Ok(Err(NoFrame::Blank)),
                Err(Bad::Stale | Bad::Damaged) => return Ok(Err(NoFrame::Foreign)),
            }
        };
        let bytes = header.padded_bytes();
        let Some(whole) = self.bytes_at(segment.number, offset, bytes)? else {
            return Ok(Err(NoFrame::Torn));
        };
        if !header.verify(whole) {
            return Ok(Err(NoFrame::Torn));
        }
        Ok(Ok((header, whole)))
    }

    /// The frame at `lsn`, looked for a second time in the file itself: the buffer may hold what stood there before it was
    /// written.
    pub(crate) fn frame_at_again(
        &mut self,
        segment: &SegmentUse,
        lsn: Lsn,
    ) -> Result<Option<(frame::Header, &[u8])>> {
        if self.frame_at(segment, lsn)?.is_err() {
            self.window = (0, 0);
        }
        Ok(self.frame_at(segment, lsn)?.ok())
    }

    /// All bytes, padding included, of a frame that was just found and verified.
    pub(crate) fn bytes_of(&mut self, segment: &SegmentUse, header: &frame::Header) -> Result<Option<&[u8]>> {
        self.bytes_at(segment.number, self.geometry.offset(header.lsn), header.padded_bytes())
    }

    /// The frame that the byte at `lsn` belongs to, padding included, looked for backwards. `None` if there is none, and
    /// if there is more than one: a payload may hold what looks like a frame, and then frames must be followed from the
    /// segment's beginning on.
    pub(crate) fn frame_around(&mut self, segment: &SegmentUse, lsn: Lsn) -> Result<Option<frame::Header>> {
        if self.geometry.number(lsn) != segment.number {
            return Ok(None);
        }
        let block = lsn.0 - lsn.0 % BLOCK_BYTES as u64;
        let lowest = block.saturating_sub((FRAME_BYTES_MAX - BLOCK_BYTES) as u64);
        let mut at = Lsn(lowest).max(self.geometry.first_frame(segment.number));
        let mut found: Option<frame::Header> = None;
        while at <= lsn {
            let Some(head) = self.bytes_at(segment.number, self.geometry.offset(at), BLOCK_BYTES)? else {
                break;
            };
            if let Ok(header) = frame::Header::decode(head, segment.salt, at)
                && at.plus(header.padded_bytes() as u64) > lsn
            {
                if found.is_some() {
                    return Ok(None);
                }
                found = Some(header);
            }
            at = at.plus(BLOCK_BYTES as u64);
        }
        let Some(header) = found else { return Ok(None) };
        Ok(self.frame_at(segment, header.lsn)?.ok().map(|(header, _)| header))
    }

    /// From `from` on in the segment, where there is one and what it says: a frame's header with this salt, in whatever
    /// place and over whatever payload, for its durable LSN is true even so; or a whole frame of any salt in its own
    /// place.
    pub(crate) fn find_frame(
        &mut self,
        number: u64,
        salt: Option<u64>,
        from: Lsn,
    ) -> Result<Option<(Lsn, frame::Header)>> {
        let mut lsn = from;
        while self.geometry.number(lsn) == number {
            let offset = self.geometry.offset(lsn);
            let Some(head) = self.bytes_at(number, offset, BLOCK_BYTES)? else { break };
            if let Ok(header) = frame::Header::parse(head) {
                let fits = match salt {
                    Some(salt) => header.salt == salt,
                    None => header.lsn == lsn && self.is_whole(number, offset, &header)?,
                };
                if fits {
                    return Ok(Some((lsn, header)));
                }
            }
            lsn = lsn.plus(BLOCK_BYTES as u64);
        }
        Ok(None)
    }

    /// Whether a frame's header stands where a file's first frame does, of any salt, and says so itself.
    pub(crate) fn begins_with_frame(&mut self, number: u64) -> Result<bool> {
        let first = self.geometry.first_frame(number);
        let until = std::mem::replace(&mut self.until, Lsn::ZERO);
        let head = self.bytes_at(number, self.geometry.offset(first), BLOCK_BYTES);
        let is_frame = head
            .map(|head| head.is_some_and(|head| frame::Header::parse(head).is_ok_and(|h| h.lsn == first)));
        self.until = until;
        is_frame
    }

    fn is_whole(&mut self, number: u64, offset: u64, header: &frame::Header) -> Result<bool> {
        let frame = self.bytes_at(number, offset, header.padded_bytes())?;
        Ok(frame.is_some_and(|frame| header.verify(frame)))
    }

    /// The header of the frame at `lsn`, whatever its payload is.
    pub(crate) fn header_at(&mut self, segment: &SegmentUse, lsn: Lsn) -> Result<Option<frame::Header>> {
        if self.geometry.number(lsn) != segment.number {
            return Ok(None);
        }
        let head = self.bytes_at(segment.number, self.geometry.offset(lsn), BLOCK_BYTES)?;
        Ok(head.and_then(|head| frame::Header::decode(head, segment.salt, lsn).ok()))
    }

    /// What was read is read anew: it may have been written since.
    pub(crate) fn forget(&mut self) {
        self.window = (0, 0);
    }

    /// Nothing from `lsn` on is read ahead: it is being written.
    pub(crate) fn read_until(&mut self, lsn: Lsn) {
        self.until = lsn;
    }

    /// The segment's first block.
    pub(crate) fn header_block(&mut self, number: u64) -> Result<Option<&[u8]>> {
        self.bytes_at(number, 0, BLOCK_BYTES)
    }

    /// The length of the segment's file.
    pub(crate) fn file_bytes(&mut self, number: u64) -> Result<u64> {
        Ok(self.segment(number)?.bytes)
    }

    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(segment::file_name(number))
    }

    /// `bytes` bytes at `offset`, from the buffer or the file; `None` if the file ends before.
    fn bytes_at(&mut self, number: u64, offset: u64, bytes: usize) -> Result<Option<&[u8]>> {
        let is_open = self.open.as_ref().is_some_and(|open| open.number == number);
        let (start, filled) = self.window;
        let holds = is_open && offset >= start && offset + bytes as u64 <= start + filled as u64;
        if !holds && !self.fill(number, offset, bytes)? {
            return Ok(None);
        }
        let at = (offset - self.window.0) as usize;
        Ok(self.buf.get(at..at + bytes))
    }

    fn fill(&mut self, number: u64, offset: u64, bytes: usize) -> Result<bool> {
        let file_bytes = self.segment(number)?.bytes.min(self.geometry.segment_bytes);
        if offset + bytes as u64 > file_bytes || bytes > FRAME_BYTES_MAX {
            return Ok(false);
        }
        if self.from_device && self.go_on(offset, bytes, file_bytes)? {
            return Ok(true);
        }
        if self.buf.len() < bytes {
            self.buf = new_buf(bytes.next_power_of_two(), &self.dir)?;
        }
        let from_device = self.from_device;
        let Some(open) = self.open.as_ref() else { return Ok(false) };
        let ahead = self.until.0.saturating_sub(self.geometry.start(number).plus(offset).0);
        // What a damaged position asks for is bounded before it is rounded.
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX).min(self.buf.len());
        let ahead = ahead.max(bytes).next_multiple_of(BLOCK_BYTES);
        let left = usize::try_from(file_bytes - offset).unwrap_or(usize::MAX);
        let wanted = self.buf.len().min(left).min(ahead);
        // Whole blocks only: a file's ragged end is not part of a segment.
        let wanted = wanted - wanted % BLOCK_BYTES;
        let Some(target) = self.buf.get_mut(..wanted) else { return Ok(false) };
        let read = if from_device {
            open.file.read_device_at(target, offset)
        } else {
            open.file.read_at(target, offset).map(|read| (read, true))
        };
        let (read, was_device) =
            read.map_err(|source| Error::io("read", &open.path, Some(offset), source))?;
        self.all_from_device &= was_device;
        self.window = (offset, read);
        if read < bytes {
            // The file was long enough a moment ago: a short read is an error, never an end (bug 10).
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(Error::io("read", &open.path, Some(offset + read as u64), source));
        }
        Ok(true)
    }

    /// For a frame that goes on, or begins, where the window ends: moves the window on by pieces that were sent for
    /// ahead. False if it is elsewhere.
    fn go_on(&mut self, offset: u64, bytes: usize, file_bytes: u64) -> Result<bool> {
        let Some(open) = self.open.as_ref() else { return Ok(false) };
        let failed = |at| move |source| Error::io("read", &open.path, Some(at), source);
        let (start, filled) = self.window;
        let end = start + filled as u64;
        let is_past = self.geometry.start(open.number).plus(offset) >= self.until;
        if is_past || filled == 0 || !filled.is_multiple_of(BLOCK_BYTES) || offset < start || offset > end {
            if let Some(ahead) = &mut self.ahead {
                ahead.stop().map_err(failed(offset))?;
            }
            return Ok(false);
        }
        let ahead = match &mut self.ahead {
            Some(ahead) => ahead,
            None => {
                let ahead = Ahead::new(&*self.disk, chunk_bytes(self.geometry)).map_err(failed(offset))?;
                self.ahead.insert(ahead)
            }
        };
        let tail = (offset - start) as usize;
        self.buf.copy_within(tail..filled, 0);
        let mut have = filled - tail;
        self.window = (offset, have);
        while have < bytes {
            let at = offset + have as u64;
            let Some(piece) = ahead.next(&open.file, at, file_bytes).map_err(failed(at))? else { break };
            if self.buf.len() < have + piece.read {
                let mut larger = new_buf((have + piece.read).next_power_of_two(), &self.dir)?;
                copy(&mut larger, 0, self.buf.get(..have).unwrap_or_default());
                self.buf = larger;
            }
            copy(&mut self.buf, have, piece.buf.get(..piece.read).unwrap_or_default());
            have += piece.read;
            self.window = (offset, have);
            self.all_from_device &= piece.from_device;
            ahead.keep(piece.buf);
        }
        Ok(have >= bytes)
    }

    fn segment(&mut self, number: u64) -> Result<&OpenSegment> {
        if self.open.as_ref().is_none_or(|open| open.number != number) {
            let path = self.path(number);
            self.window = (0, 0);
            let file =
                self.disk.open(&path, Open::Read).map_err(|source| Error::io("open", &path, None, source))?;
            let bytes = file.len().map_err(|source| Error::io("stat", &path, None, source))?;
            self.open = Some(OpenSegment { number, file, path, bytes });
        }
        self.open.as_ref().ok_or(Error::Closed)
    }
}

fn chunk_bytes(geometry: Geometry) -> usize {
    let quarter = usize::try_from(geometry.segment_bytes / 4).unwrap_or(usize::MAX);
    let bytes = quarter.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES);
    bytes - bytes % BLOCK_BYTES
}

/// Copies `bytes` to `at`, where there is room for them.
fn copy(target: &mut AlignedBuf, at: usize, bytes: &[u8]) {
    if let Some(place) = target.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn new_buf(bytes: usize, dir: &Path) -> Result<AlignedBuf> {
    AlignedBuf::zeroed(bytes).map_err(|source| Error::io("map memory for", dir, None, source))
}
