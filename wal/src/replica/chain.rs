//! What a replica takes: pieces that go on exactly where its log ends. Pure: no I/O.
#![warn(clippy::indexing_slicing)]

use crate::Lsn;
use crate::disk::BLOCK_BYTES;
use crate::error::{Error, Result};
use crate::frame::{self, Flags};
use crate::open::Found;
use crate::record;
use crate::segment::{self, CHECKSUM_UNKNOWN, Geometry, Parsed};
use crate::ship::Piece;
use crate::timeline::Tail;
use crate::walk::parses;
use std::ops::Range;

/// Where a log of shipped pieces ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) store_id: [u8; 16],
    pub(crate) geometry: Geometry,
    /// From where on the log is needed, and the epoch that it was begun in.
    pub(crate) first: Lsn,
    pub(crate) begins_in: u64,
    /// The segment that is written to; none before the first header came.
    pub(crate) segment: Option<Segment>,
    /// Where the next piece stands.
    pub(crate) place: Lsn,
    /// The last frame's checksum, or the header's.
    pub(crate) checksum: u32,
    /// The last frame's place in this segment.
    pub(crate) last: Option<Lsn>,
    pub(crate) whole_end: Lsn,
    pub(crate) time_us: u64,
    /// A unit that has begun and not ended.
    pub(crate) unit: Option<Unit>,
    /// Whether a frame was met that begins with a record, in this log.
    pub(crate) has_begun: bool,
    /// How the log ended before the newest segment's header, as long as that has no frame: its primary may give it another
    /// header yet, or pass it over.
    pub(crate) before: Option<Before>,
}

/// Where a log ends without its newest header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub(crate) segment: Option<Segment>,
    pub(crate) place: Lsn,
    pub(crate) checksum: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) epoch: u64,
}

/// Where a unit begins, and how the log would end without it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) place: Lsn,
    pub(crate) segment: Segment,
    pub(crate) checksum: u32,
}

/// What a piece consists of.
#[derive(Debug)]
pub(crate) enum Item {
    Header(segment::Header, u32, Vec<u8>),
    /// Frames behind each other in one segment: these bytes of the piece.
    Frames {
        at: Lsn,
        bytes: Range<usize>,
    },
}

impl Chain {
    pub(crate) fn tail(&self) -> Tail {
        let (place, checksum) =
            self.before.map_or((self.place, self.checksum), |before| (before.place, before.checksum));
        // Of the newest header, if it begins an epoch: that begins at this place.
        let epoch = self.segment.map_or(self.begins_in, |segment| segment.epoch);
        Tail { epoch, place, whole_end: self.whole_end, checksum }
    }

    /// Where replay may begin: behind the last whole unit.
    pub(crate) fn replay_place(&self) -> Lsn {
        self.unit.map_or(self.place, |unit| unit.place)
    }

    /// Goes on with a piece: where the log ends behind it, and what is to be written.
    ///
    /// # Errors
    /// As [`Wal::accept`](crate::Wal::accept) has them.
    pub(crate) fn take(&self, piece: &Piece) -> Result<(Chain, Vec<Item>)> {
        let mut chain = *self;
        let mut items = Vec::new();
        let (mut at, mut rest) = (piece.at, &*piece.bytes);
        if rest.is_empty() || !rest.len().is_multiple_of(BLOCK_BYTES) {
            return Err(bad(at, "its length is not that of blocks"));
        }
        let is_header_again = self.geometry.offset(at) == 0
            && self.before.is_some_and(|before| at >= before.place.min(self.place));
        if at < self.place && !is_header_again {
            return Err(bad(at, "it is here already"));
        }
        if self.geometry.offset(at) == 0 {
            let (block, behind) = rest.split_at_checked(BLOCK_BYTES).unwrap_or((rest, &[]));
            items.push(chain.take_header(at, block)?);
            (at, rest) = (at.plus(BLOCK_BYTES as u64), behind);
        }
        if rest.is_empty() {
            return Ok((chain, items));
        }
        let begin = at;
        let bytes = piece.bytes.len() - rest.len()..piece.bytes.len();
        while !rest.is_empty() {
            let bytes = chain.take_frame(at, rest)?;
            at = at.plus(bytes as u64);
            rest = rest.get(bytes..).unwrap_or_default();
        }
        items.push(Item::Frames { at: begin, bytes });
        Ok((chain, items))
    }

    fn take_header(&mut self, at: Lsn, block: &[u8]) -> Result<Item> {
        let (header, checksum) = match segment::Header::parse(block) {
            Parsed::Header(header, checksum) => (header, checksum),
            Parsed::Newer(found) => {
                let supported = segment::FORMAT_VERSION..=segment::FORMAT_VERSION;
                return Err(Error::FormatVersion { found, supported });
            }
            Parsed::None => return Err(bad(at, "a segment's header is damaged")),
        };
        let number = self.geometry.number(at);
        if header.number != number {
            return Err(bad(at, "a segment's header is of another place"));
        }
        if header.store_id != self.store_id || header.segment_bytes != self.geometry.segment_bytes {
            return Err(bad(at, "a segment's header is of another store"));
        }
        let before = header.predecessor;
        if before.is_some_and(|before| before.cut.is_some()) {
            return Err(bad(at, "the primary's log was cut there: it takes a new image"));
        }
        let end = self.before.unwrap_or(Before {
            segment: self.segment,
            place: self.place,
            checksum: self.checksum,
        });
        // Behind the newest header, or instead of it.
        let unit = self.unit;
        let is_behind = self.goes_on(self.segment, self.place, self.checksum, &header);
        let is_instead = self.before.is_some_and(|b| self.goes_on(b.segment, b.place, b.checksum, &header));
        // A new epoch's first segment may end the one before it in front of a unit that had no end. If that began in an
        // earlier segment than the last, those between would have to go: rewinding does that.
        let is_cut = unit.is_some_and(|unit| {
            self.segment.is_some_and(|live| live.number == unit.segment.number)
                && self.goes_on(Some(unit.segment), unit.place, unit.checksum, &header)
        });
        if !(is_behind || is_instead || is_cut) {
            return Err(Error::Diverged { at });
        }
        if is_cut && !is_behind {
            self.unit = None;
        }
        self.before = Some(if is_behind {
            Before { segment: self.segment, place: self.place, checksum: self.checksum }
        } else if let Some(unit) = unit.filter(|_| is_cut) {
            Before { segment: Some(unit.segment), place: unit.place, checksum: unit.checksum }
        } else {
            end
        });
        self.segment = Some(Segment { number, salt: header.salt, epoch: header.epoch });
        (self.checksum, self.last) = (checksum, None);
        self.place = self.geometry.first_frame(number);
        Ok(Item::Header(header, checksum, block.to_vec()))
    }

    /// Whether a segment's header goes on where a log ends.
    fn goes_on(&self, segment: Option<Segment>, place: Lsn, checksum: u32, header: &segment::Header) -> bool {
        let Some(last) = segment else {
            // The segment that the first position is in, or, if that is behind all that it holds, the one behind it.
            let is_next = |before: segment::Predecessor| {
                self.geometry.start(header.number) > self.first && before.end <= self.first
            };
            return self.geometry.start(header.number) == place || header.predecessor.is_some_and(is_next);
        };
        header.number > last.number
            && header.epoch >= last.epoch
            && header.predecessor.is_some_and(|before| {
                let is_known = before.checksum == checksum || before.checksum == CHECKSUM_UNKNOWN;
                before.number == last.number && before.salt == last.salt && before.end == place && is_known
            })
    }

    /// Returns the bytes of the frame that stands at `at`.
    fn take_frame(&mut self, at: Lsn, bytes: &[u8]) -> Result<usize> {
        let Some(segment) = self.segment.filter(|_| at == self.place) else {
            return Err(bad(at, "the log goes on elsewhere"));
        };
        if self.geometry.number(at) != segment.number {
            return Err(bad(at, "the segment ends before"));
        }
        let Ok(header) = frame::Header::parse(bytes) else {
            return Err(bad(at, "there is no frame"));
        };
        let len = header.padded_bytes();
        let Some(whole) = bytes.get(..len).filter(|whole| header.lsn == at && header.verify(whole)) else {
            return Err(bad(at, "a frame is damaged"));
        };
        if header.salt != segment.salt || header.previous != self.checksum {
            return Err(Error::Diverged { at });
        }
        let payload = header.payload(whole);
        let goes_on = matches!(header.flags, Flags::MIDDLE | Flags::LAST);
        // A log that begins in the middle begins with the rest of a record, say.
        let is_headless = goes_on && self.unit.is_none() && !self.has_begun;
        let fits = self.geometry.offset(at) + len as u64 <= self.geometry.segment_bytes;
        if !fits || !parses(&header, payload) || (goes_on != self.unit.is_some() && !is_headless) {
            return Err(bad(at, "a frame is out of sequence"));
        }
        self.has_begun |= !goes_on;
        match header.flags {
            Flags::FIRST => self.unit = Some(Unit { place: at, segment, checksum: self.checksum }),
            Flags::MIDDLE | Flags::SEAL => {}
            _ => {
                self.unit = None;
                self.whole_end = self.whole_end.max(header.end());
            }
        }
        if !goes_on {
            let times =
                record::Records::new(payload).map_while(|record| record).map(|(_, record, _)| record.time_us);
            self.time_us = times
                .chain(record::Header::decode(payload).map(|header| header.time_us))
                .max()
                .unwrap_or(0)
                .max(self.time_us);
        }
        (self.checksum, self.last) = (header.checksum, Some(at));
        self.before = None;
        self.place = at.plus(len as u64);
        Ok(len)
    }
}

fn bad(at: Lsn, what: &str) -> Error {
    Error::BadInput(format!("what was shipped for {at} is not taken: {what}"))
}

impl Chain {
    /// Where a log ends that was found on the disk.
    pub(crate) fn of(found: &Found) -> Chain {
        let last = found.path.last();
        // A header says itself what it goes on behind.
        let before = last.filter(|last| found.geometry.first_frame(last.number) == found.end);
        let before = before.map(|last| match found.last_predecessor {
            Some(before) => Before {
                segment: Some(Segment { number: before.number, salt: before.salt, epoch: 0 }),
                place: before.end,
                checksum: before.checksum,
            },
            None => Before { segment: None, place: found.geometry.start(last.number), checksum: 0 },
        });
        Chain {
            store_id: found.anchor.store_id,
            geometry: found.geometry,
            first: found.anchor.first,
            begins_in: found.anchor.epoch,
            segment: last.map(|last| Segment {
                number: last.number,
                salt: last.salt,
                epoch: found.last_epoch,
            }),
            place: found.end,
            checksum: found.last_checksum,
            last: found.last,
            whole_end: found.whole_end,
            time_us: found.time_us,
            unit: None,
            has_begun: found.report.records > 0,
            before,
        }
    }
}
