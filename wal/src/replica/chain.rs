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

/// Where a log of shipped pieces ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) store_id: [u8; 16],
    pub(crate) geometry: Geometry,
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

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Item {
    Header(segment::Header, u32, Vec<u8>),
    /// Frames behind each other in one segment, and where the log ends behind them.
    Frames {
        at: Lsn,
        bytes: Vec<u8>,
        chain: Chain,
    },
}

impl Chain {
    pub(crate) fn tail(&self) -> Tail {
        Tail {
            epoch: self.segment.map_or(0, |segment| segment.epoch),
            place: self.place,
            whole_end: self.whole_end,
            checksum: self.checksum,
        }
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
        let is_header_again = self.segment.is_some_and(|live| {
            self.geometry.start(live.number) == at && self.place == self.geometry.first_frame(live.number)
        });
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
        let frames = rest;
        while !rest.is_empty() {
            let bytes = chain.take_frame(at, rest)?;
            at = at.plus(bytes as u64);
            rest = rest.get(bytes..).unwrap_or_default();
        }
        items.push(Item::Frames { at: begin, bytes: frames.to_vec(), chain });
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
        match self.segment {
            None if at != self.place => return Err(bad(at, "the log begins in another segment")),
            None => {}
            // The segment that is written to, which has no frame: its primary gave it a new header.
            Some(live) if live.number == number && self.place == self.geometry.first_frame(number) => {}
            Some(live) => {
                let goes_on = before.is_some_and(|before| {
                    let is_known = before.checksum == self.checksum || before.checksum == CHECKSUM_UNKNOWN;
                    before.number == live.number
                        && before.salt == live.salt
                        && before.end == self.place
                        && is_known
                });
                // A new epoch's first segment may end the one before it in front of a unit that had no end.
                if !goes_on && !self.ends_at_unit(before) {
                    return Err(Error::Diverged { at });
                }
                if number <= live.number || header.epoch < live.epoch {
                    return Err(Error::Diverged { at });
                }
                if !goes_on {
                    self.unit = None;
                }
            }
        }
        self.segment = Some(Segment { number, salt: header.salt, epoch: header.epoch });
        (self.checksum, self.last) = (checksum, None);
        self.place = self.geometry.first_frame(number);
        Ok(Item::Header(header, checksum, block.to_vec()))
    }

    /// Whether a header goes on in front of the unit that has begun here.
    fn ends_at_unit(&self, before: Option<segment::Predecessor>) -> bool {
        let (Some(unit), Some(before)) = (self.unit, before) else { return false };
        // In an earlier segment than the last, the ones between would have to go: rewinding does that.
        self.segment.is_some_and(|live| live.number == unit.segment.number)
            && before.number == unit.segment.number
            && before.salt == unit.segment.salt
            && before.end == unit.place
            && (before.checksum == unit.checksum || before.checksum == CHECKSUM_UNKNOWN)
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
        Chain {
            store_id: found.anchor.store_id,
            geometry: found.geometry,
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
        }
    }
}
