//! Shipping: the log as it lies on the disk, in pieces, for replicas to write down at the same positions.
//!
//! Only what is durable is shipped, headers of segments included, and never half a frame. A replica's log is shipped on
//! in the same way.
//!
//! ```text
//! segment n    [header][frame][frame][seal]          ends where the header of m says
//! segment m    [header][frame] …
//! pieces        ^^^^^^^^^^^^^^^ ^^^^^^^^^^^^          a piece lies in one segment, whole frames, header first
//! ```

use crate::Lsn;
use crate::disk::BLOCK_BYTES;
use crate::error::{Error, Result};
use crate::follow::{Met, SleepsOn, Stopper};
use crate::frame;
use crate::log::{Inner, Wal};
use crate::retention::Pin;
use crate::scan::{FrameReader, SegmentUse};
use crate::segment;
use crate::sync::AtomicBool;
use crate::walk::corruption;
use crate::writer::segment_path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one segment's file as they lie there: its header, whole frames, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The position of the first byte; at a segment's start that of its header.
    pub at: Lsn,
    /// A whole number of blocks.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Behind the last byte.
    pub fn end(&self) -> Lsn {
        self.at.plus(self.bytes.len() as u64)
    }
}

/// What [`Shipper::next_timeout`] met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shipped {
    /// The next piece.
    Piece(Piece),
    /// Nothing more within the time given.
    TimedOut,
    /// There will be no more: the log was closed, or somebody stopped the shipper.
    Ended,
}

/// Reads the log of an open [`Wal`] in pieces, from a place on, as it becomes durable. Made by [`Wal::ship`]; keeps what it
/// has not read from being reclaimed.
#[derive(Debug)]
pub struct Shipper {
    inner: Arc<Inner>,
    pin: Pin,
    frames: FrameReader,
    /// Where the next piece begins.
    at: Lsn,
    cuts: u64,
    stopper: Stopper,
}

impl Wal {
    /// Ships the log from the place `from` on: where a frame begins or will, or a segment's start, for that segment with
    /// its header. See [`create_replica`](crate::create_replica) for an example.
    ///
    /// # Errors
    /// [`Error::Reclaimed`] if the log begins behind; [`Error::BadInput`] for what is no place of this log;
    /// [`Error::ReadOnly`], [`Error::Io`].
    pub fn ship(&self, from: Lsn) -> Result<Shipper> {
        let inner = &self.0.inner;
        inner.check_open_for_writing()?;
        let geometry = inner.geometry;
        // What is before the log's first position in its first segment is there as well, unless that position is behind all
        // that the segment holds.
        let number =
            inner.segments().first().map_or(geometry.number(inner.first()), |segment| segment.number);
        let begins = geometry.start(number);
        let gone = Error::Reclaimed { lsn: from, first: begins };
        if from < begins && from < inner.first() {
            return Err(gone);
        }
        let Ok(pin) = inner.pin("shipping", from.max(inner.first())) else { return Err(gone) };
        inner.committer.followers.joined();
        let frames = FrameReader::new(&inner.disk, &inner.dir, geometry, true)?;
        let stopper =
            Stopper { stop: Arc::new(AtomicBool::new(false)), sleeps_on: SleepsOn::Log(inner.clone()) };
        let cuts = inner.committer.cuts.count();
        let shipper = Shipper { inner: inner.clone(), pin, frames, at: from, cuts, stopper };
        let end = self.tail().place.max(geometry.start(geometry.number(self.tail().place)));
        if !from.0.is_multiple_of(BLOCK_BYTES as u64) || from > end {
            return Err(Error::BadInput(format!("{from} is no place of this log, which ends at {end}")));
        }
        Ok(shipper)
    }

    /// Where shipping can begin at the earliest: the start of the first segment. A replica's log that holds nothing yet begins
    /// there, if it would begin before.
    pub fn first_place(&self) -> Lsn {
        let inner = &self.0.inner;
        let number = inner.segments().first().map(|segment| segment.number);
        inner.geometry.start(number.unwrap_or(inner.geometry.number(inner.first())))
    }

    /// The chain's checksum at a place: that of the frame that ends there, or of the segment's header where that is the
    /// first frame's place. None if the log does not have it any more, or has no such place.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn checksum_before(&self, place: Lsn) -> Result<Option<u32>> {
        let inner = &self.0.inner;
        let tail = self.tail();
        if tail.place == place {
            return Ok(Some(tail.checksum));
        }
        let before = Lsn(place.0.saturating_sub(1));
        let geometry = inner.geometry;
        let segments = inner.segments();
        let number = geometry.number(before);
        let Some(segment) = segments.into_iter().find(|segment| segment.number == number) else {
            return Ok(None);
        };
        if place == geometry.first_frame(number) {
            return Ok(Some(segment.checksum));
        }
        let Ok(_pin) = inner.pin("shipping", place.max(inner.first())) else { return Ok(None) };
        let mut frames = FrameReader::new(&inner.disk, &inner.dir, geometry, true)?;
        frames.read_until(place);
        let found = frames.frame_around(&segment, before)?;
        if let Some(header) = found {
            let ends = header.lsn.plus(header.padded_bytes() as u64) == place;
            return Ok(ends.then_some(header.checksum));
        }
        // A payload looks like a frame: from the segment's beginning on, then.
        let mut at = geometry.first_frame(number);
        while at < place {
            let Ok((header, _)) = frames.frame_at(&segment, at)? else { return Ok(None) };
            at = at.plus(header.padded_bytes() as u64);
            if at == place {
                return Ok(Some(header.checksum));
            }
        }
        Ok(None)
    }
}

impl Shipper {
    /// The next piece of at most `bytes_max` bytes (a frame that is larger comes alone), if there is one now.
    ///
    /// # Errors
    /// As [`next_timeout`](Shipper::next_timeout).
    pub fn next_piece(&mut self, bytes_max: usize) -> Result<Option<Piece>> {
        if self.stopper.is_stopped() {
            return Ok(None);
        }
        if self.inner.committer.cuts.count() != self.cuts {
            return Err(Error::Truncated { at: self.at });
        }
        let durable = self.inner.committer.durable();
        self.frames.read_until(durable.max(self.at));
        let piece = self.gather(durable, bytes_max)?;
        if let Some(piece) = &piece {
            self.at = piece.end();
            self.pin.advance_to(self.at);
        }
        Ok(piece)
    }

    /// Like [`next_piece`](Shipper::next_piece), and waits for one for at most `limit`, woken when more is durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the log has failed, behind all that was durable; [`Error::Truncated`] if it was
    /// [cut](Wal::truncate_after); [`Error::Corruption`] for a damaged frame; [`Error::Io`].
    pub fn next_timeout(&mut self, bytes_max: usize, limit: Duration) -> Result<Shipped> {
        let deadline = self.inner.runtime.now().saturating_add(limit);
        loop {
            let durable = self.inner.committer.durable();
            if let Some(piece) = self.next_piece(bytes_max)? {
                return Ok(Shipped::Piece(piece));
            }
            let stop = &self.stopper.stop;
            match self.inner.committer.follow(durable, self.cuts, stop, Some(deadline))? {
                Met::Durable(_) => {}
                Met::TimedOut => return Ok(Shipped::TimedOut),
                Met::Closed | Met::Stopped => return Ok(Shipped::Ended),
                Met::Cut => return Err(Error::Truncated { at: self.at }),
            }
        }
    }

    /// Where the next piece begins.
    pub fn place(&self) -> Lsn {
        self.at
    }

    /// Ends it from another thread, also while it waits.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// The bytes from here on, in one segment.
    fn gather(&mut self, durable: Lsn, bytes_max: usize) -> Result<Option<Piece>> {
        let geometry = self.inner.geometry;
        let segments = self.inner.segments();
        let mut number = geometry.number(self.at);
        // At a segment's very end this is the number of the one behind it, which need not be there; and a segment that ended
        // here may be gone.
        if !segments.iter().any(|segment| segment.number == number) {
            let Some(next) = segments.iter().find(|segment| segment.number > number) else { return Ok(None) };
            number = next.number;
        }
        let found = segments.iter().position(|segment| segment.number == number);
        let Some(index) = found else {
            return Err(Error::BadInput(format!("{} is no place of this log", self.at)));
        };
        let Some(mut segment) = segments.get(index).copied() else { return Ok(None) };
        let mut at = self.at.max(geometry.start(number));
        if segment.end.is_some_and(|end| at >= end) {
            let Some(next) = segments.get(index + 1).copied() else { return Ok(None) };
            (segment, at) = (next, geometry.start(next.number));
        }
        let begin = at;
        let mut bytes = Vec::new();
        if geometry.offset(at) == 0 {
            bytes.extend_from_slice(&self.header(&segment)?);
            at = geometry.first_frame(segment.number);
        }
        while let Some(len) = self.frame(&segment, at, durable, bytes_max, &mut bytes)? {
            at = at.plus(len as u64);
        }
        Ok((!bytes.is_empty()).then_some(Piece { at: begin, bytes }))
    }

    fn header(&mut self, segment: &SegmentUse) -> Result<Vec<u8>> {
        // Nothing read before counts: the file may have been another's.
        self.frames.forget();
        let block = self.frames.header_block(segment.number)?.unwrap_or_default();
        match segment::Header::parse(block) {
            segment::Parsed::Header(header, checksum)
                if header.number == segment.number && checksum == segment.checksum =>
            {
                Ok(block.to_vec())
            }
            _ => {
                Err(self
                    .damaged(self.inner.geometry.start(segment.number), "the segment's header is damaged"))
            }
        }
    }

    /// Adds the frame at `at`, if it is durable and there is room for it. Its length.
    fn frame(
        &mut self,
        segment: &SegmentUse,
        at: Lsn,
        durable: Lsn,
        bytes_max: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<usize>> {
        // The mark is at the end of a whole record: of one that is cut over segments nothing is shipped before it is all there.
        if at >= durable || segment.end.is_some_and(|end| at >= end) {
            return Ok(None);
        }
        let has_room = |len: usize| bytes.is_empty() || bytes.len() + len <= bytes_max;
        if let Some(recent) = self.inner.committer.followers.recent(at) {
            let whole = frame::Header::decode(&recent, segment.salt, at);
            let whole =
                whole.ok().filter(|header| header.verify(&recent)).map(|header| header.padded_bytes());
            if let Some(whole) = whole.and_then(|len| recent.get(..len)) {
                if !has_room(whole.len()) {
                    return Ok(None);
                }
                bytes.extend_from_slice(whole);
                return Ok(Some(whole.len()));
            }
        }
        let Some((header, _)) = self.frames.frame_at_again(segment, at)? else {
            return Err(self.damaged(at, "a frame before the log's end is damaged"));
        };
        if !has_room(header.padded_bytes()) {
            return Ok(None);
        }
        let Some(whole) = self.frames.bytes_of(segment, &header)? else {
            return Err(self.damaged(at, "a frame before the log's end is damaged"));
        };
        bytes.extend_from_slice(whole);
        Ok(Some(whole.len()))
    }

    fn damaged(&self, at: Lsn, what: &str) -> Error {
        let geometry = self.inner.geometry;
        let file = segment_path(&self.inner.dir, geometry.number(at));
        corruption(&file, geometry.offset(at), Some(at), what)
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.inner.committer.followers.left();
    }
}
