//! Recovery's walk forward over a log's frames, up to where they stop, and what is made of that.

use crate::Lsn;
use crate::anchor::{Anchor, Closed};
use crate::disk::BLOCK_BYTES;
use crate::error::{Error, Result};
use crate::frame::{self, Flags};
use crate::log::{Outcome, Recovery, Repair};
use crate::mutation::Mutation;
use crate::open::{Begun, Found};
use crate::record::{self, Records};
use crate::recovery::{Beyond, Facts, Here, Place, Verdict, decide};
use crate::scan::{FrameReader, NoFrame, SegmentUse};
use crate::segment::{CHECKSUM_UNKNOWN as UNKNOWN, Geometry};
use crate::writer::segment_path;
use std::collections::BTreeMap;
use std::path::Path;

mod closed;

pub(crate) struct Walk<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) repair: Repair,
    /// A frame's boundary to start at; otherwise the first segment is read from its first frame.
    pub(crate) aligned_start: Option<Lsn>,
    pub(crate) reader: &'a mut FrameReader,
    pub(crate) geometry: Geometry,
    pub(crate) clean: bool,
    /// What the frames say is durable was so on the primary: nothing of it counts here.
    pub(crate) is_replica: bool,
    /// Where the anchor says that the log was closed.
    pub(crate) closed: Option<Closed>,
    pub(crate) mutation: Option<Mutation>,
    /// The highest LSN that anything claims to be durable.
    pub(crate) promised: Lsn,
    /// A record that has begun and not ended.
    pub(crate) unfinished: Option<Unfinished>,
    pub(crate) whole_end: Option<Lsn>,
    pub(crate) time_us: u64,
    /// Whether a frame was met that begins with a record.
    pub(crate) started: bool,
    pub(crate) report: Recovery,
}

/// The beginning of a record that is cut over several frames.
#[derive(Clone, Copy)]
pub(crate) struct Unfinished {
    lsn: Lsn,
    /// The checksum of the frame before it.
    previous: u32,
    /// Its segment's place in the path, and whether a frame stands before it there.
    index: usize,
}

/// Where the frames before a walk's beginning end.
struct Tail {
    at: Lsn,
    last: Option<Lsn>,
    checksum: u32,
    whole_end: Option<Lsn>,
}

/// Where a segment's frames stopped.
struct Stop {
    at: Lsn,
    here: Here,
    last: Option<Lsn>,
    checksum: u32,
    frames: u64,
    /// The anchor says so, and is believed.
    closed: bool,
}

impl Walk<'_> {
    pub(crate) fn forward(
        mut self,
        path: &[SegmentUse],
        numbers: &[u64],
        begun: &BTreeMap<u64, Begun>,
        anchor: &Anchor,
    ) -> Result<Found> {
        for (i, segment) in path.iter().enumerate() {
            let first = self.geometry.first_frame(segment.number);
            let from =
                if i == 0 { self.aligned_start.map_or(first, |start| start.max(first)) } else { first };
            if from == first {
                self.enter(segment.number, begun);
            }
            let mut stop = self.segment(segment, i, from)?;
            let is_last = i + 1 == path.len();
            let mut before = None;
            if is_last && self.unfinished.is_some() {
                stop.here = Here::Unfinished;
            }
            let closed = if is_last { self.closed_here(segment, &stop, from, numbers)? } else { None };
            stop.closed = closed.is_some();
            if is_last && stop.frames == 0 && from != first {
                let tail = match closed {
                    Some(closed) => Tail::of(&closed),
                    None => self.tail_before(segment, from)?,
                };
                (stop.checksum, stop.last) = (tail.checksum, tail.last);
                before = Some(tail);
            }
            self.time_us = self.time_us.max(closed.map_or(0, |closed| closed.time_us));
            let (end, index, checksum, last) = match self.unfinished {
                Some(begin) => (begin.lsn, begin.index, begin.previous, None),
                None => (stop.at, i, stop.checksum, stop.last),
            };
            let facts = self.facts(segment, &stop, end, path.get(i + 1), numbers, begun)?;
            let row = decide(&facts);
            self.report.row = row.name;
            if row.verdict == Verdict::Continue {
                self.report.segments_complete += 1;
                continue;
            }
            self.judge(row.verdict, row.name, path.get(index).unwrap_or(segment).number, end)?;
            let unused = stop.frames == 0 && self.unfinished.is_none() && from == first;
            let mut path = path.get(..=index).unwrap_or(path).to_vec();
            let (mut last_predecessor, mut last_epoch) = (None, 0);
            if let Some(last) = path.last_mut() {
                (last.end, last.cut) = (None, None);
                let header = begun.get(&last.number).map(|begun| begun.header);
                last_predecessor = header.and_then(|header| header.predecessor);
                last_epoch = header.map_or(0, |header| header.epoch);
            }
            // What was judged ends at the replay position; the frames may end before it.
            let end = before.as_ref().map_or(end, |tail: &Tail| tail.at);
            let whole_end = self.whole_end.or(before.and_then(|tail| tail.whole_end)).unwrap_or(end);
            self.report.end = end;
            return Ok(Found {
                anchor: *anchor,
                anchor_file: None,
                geometry: self.geometry,
                path,
                last_predecessor,
                end,
                whole_end,
                last_checksum: checksum,
                last,
                last_epoch,
                last_is_unused: unused && facts.beyond == Beyond::Nothing,
                files: BTreeMap::new(),
                numbers: Vec::new(),
                highest_begun: 0,
                time_us: self.time_us,
                gaps: Vec::new(),
                durable_write: None,
                report: self.report,
            });
        }
        Err(corruption(self.dir, 0, None, "the log has no segment"))
    }

    /// A segment that begins behind a cut: a unit that was cut through ends there, and what is whole ends there.
    fn enter(&mut self, number: u64, begun: &BTreeMap<u64, Begun>) {
        let predecessor = begun.get(&number).and_then(|begun| begun.header.predecessor);
        if let Some(cut) = predecessor.and_then(|predecessor| predecessor.cut) {
            if cut.splits {
                self.unfinished = None;
            }
            self.whole_end = Some(cut.at);
        }
    }

    /// Reads a segment's frames from `from` until one is bad, or its end is reached.
    fn segment(&mut self, segment: &SegmentUse, index: usize, from: Lsn) -> Result<Stop> {
        let mut lsn = from;
        let mut previous = (from == self.geometry.first_frame(segment.number)).then_some(segment.checksum);
        let (mut frames, mut last) = (0, None);
        let here = loop {
            if segment.end.is_some_and(|end| lsn >= end) {
                break Here::End;
            }
            let (header, payload) = match self.reader.frame_at(segment, lsn)? {
                Err(NoFrame::End) => break Here::End,
                Err(NoFrame::Blank) => break Here::Blank,
                Err(NoFrame::Foreign) => break Here::Foreign,
                Err(NoFrame::Torn) => break Here::Torn,
                Ok(frame) => frame,
            };
            let chained = previous.is_none_or(|previous| previous == header.previous);
            let in_part = self.mutation == Some(Mutation::ReadRecordsInPart);
            let goes_on = matches!(header.flags, Flags::MIDDLE | Flags::LAST);
            // A log that was cut begins anywhere: with the rest of a record that begins before, say.
            let headless = goes_on && !self.started;
            let in_sequence = in_part || headless || goes_on == self.unfinished.is_some();
            self.started |= !goes_on;
            if !chained || !in_sequence || !parses(&header, payload) {
                break Here::Torn;
            }
            if header.flags == Flags::NONE {
                let times = Records::new(payload).flatten().map(|(_, header, _)| header.time_us);
                self.time_us = self.time_us.max(times.max().unwrap_or(0));
            }
            match header.flags {
                Flags::FIRST if !in_part => {
                    self.unfinished = Some(Unfinished { lsn, previous: previous.unwrap_or(UNKNOWN), index });
                    let time = record::Header::decode(payload).map_or(0, |header| header.time_us);
                    self.time_us = self.time_us.max(time);
                }
                Flags::MIDDLE | Flags::SEAL => {}
                _ => {
                    self.unfinished = None;
                    self.whole_end = Some(header.end());
                }
            }
            self.note_promise(header.durable);
            self.report.bytes += header.padded_bytes() as u64;
            self.report.records += u64::from(header.records);
            previous = Some(header.checksum);
            last = Some(lsn);
            frames += 1;
            lsn = lsn.plus(header.padded_bytes() as u64);
        };
        Ok(Stop {
            at: lsn,
            here,
            last,
            checksum: previous.unwrap_or(segment.checksum),
            frames,
            closed: false,
        })
    }

    /// Where a segment's frames before `to` end, for a walk that begins behind them: a successor will name that.
    fn tail_before(&mut self, segment: &SegmentUse, to: Lsn) -> Result<Tail> {
        let mut tail = Tail {
            at: self.geometry.first_frame(segment.number),
            last: None,
            checksum: segment.checksum,
            whole_end: None,
        };
        while tail.at < to {
            match self.reader.frame_at(segment, tail.at)? {
                Ok((header, _)) if header.previous == tail.checksum => {
                    tail.checksum = header.checksum;
                    tail.last = Some(tail.at);
                    tail.at = tail.at.plus(header.padded_bytes() as u64);
                    if !header.flags.goes_on() && header.flags != Flags::SEAL {
                        tail.whole_end = Some(header.end());
                    }
                }
                // The replay position is the next segment's beginning, and that never began: they end here.
                Err(NoFrame::Blank | NoFrame::Foreign | NoFrame::End)
                    if self.geometry.number(to) != segment.number =>
                {
                    return Ok(tail);
                }
                // Damage, in what was folded before: nothing is known of the last frame.
                _ => return Ok(Tail { at: to, last: None, checksum: UNKNOWN, whole_end: None }),
            }
        }
        Ok(tail)
    }

    fn facts(
        &mut self,
        segment: &SegmentUse,
        stop: &Stop,
        end: Lsn,
        next: Option<&SegmentUse>,
        numbers: &[u64],
        begun: &BTreeMap<u64, Begun>,
    ) -> Result<Facts> {
        let mut short = self.reader.file_bytes(segment.number)? < self.geometry.segment_bytes;
        if let Some(next) = next {
            // Its frames must end exactly where the successor says, with the checksum that it says.
            let successor = begun.get(&next.number).and_then(|begun| begun.header.predecessor);
            let complete =
                segment.end.is_some_and(|end| stop.at == end || (stop.frames == 0 && stop.at > end))
                    && (stop.frames == 0
                        || successor.is_some_and(|p| p.checksum == stop.checksum || p.checksum == UNKNOWN));
            let place = Place::Inner { complete };
            return Ok(Facts {
                place,
                short,
                promised_beyond: false,
                closed: false,
                here: stop.here,
                beyond: Beyond::Nothing,
            });
        }
        // Files made ahead are whole before they get their name: a short one may have been the newest segment.
        for &number in numbers.iter().filter(|&&number| number > segment.number) {
            short |= self.reader.file_bytes(number)? < self.geometry.segment_bytes;
        }
        let is_over = self.clean || stop.closed;
        let beyond = if is_over { Beyond::Nothing } else { self.look_on(segment, stop.at, numbers, begun)? };
        let promised_beyond = self.promised > end && self.mutation != Some(Mutation::BelieveAnyTail);
        Ok(Facts { place: Place::Last, short, promised_beyond, closed: stop.closed, here: stop.here, beyond })
    }

    /// Looks for frames behind the end: in the rest of the segment, and in the next file if it has no header.
    fn look_on(
        &mut self,
        segment: &SegmentUse,
        from: Lsn,
        numbers: &[u64],
        begun: &BTreeMap<u64, Begun>,
    ) -> Result<Beyond> {
        let mut beyond = Beyond::Nothing;
        let mut at = from;
        while let Some((found, header)) = self.reader.find_frame(segment.number, Some(segment.salt), at)? {
            // A frame of this use in a wrong place, or torn, is no part of the log; what it says was durable was.
            if found == header.lsn {
                beyond = Beyond::Frames;
            }
            self.note_promise(header.durable);
            at = found.plus(BLOCK_BYTES as u64);
        }
        // The successor need not have the next number: files that a torn record had begun are passed over.
        let unbegun = |number: &&u64| **number > segment.number && !begun.contains_key(number);
        for &number in numbers.iter().filter(unbegun) {
            let first = self.geometry.first_frame(number);
            if self.reader.find_frame(number, None, first)?.is_some() {
                beyond = Beyond::BrokenSuccessor;
            }
        }
        Ok(beyond)
    }

    fn note_promise(&mut self, durable: Lsn) {
        if !self.is_replica || self.mutation == Some(Mutation::JudgeByPrimary) {
            self.promised = self.promised.max(durable);
        }
    }

    /// Accepts a verdict, or refuses to open.
    fn judge(&mut self, verdict: Verdict, row: &str, number: u64, end: Lsn) -> Result<()> {
        let file = segment_path(self.dir, number);
        let offset = end.0.saturating_sub(self.geometry.start(number).0);
        let damaged = |what: String| Error::Corruption { file: file.clone(), offset, lsn: Some(end), what };
        match verdict {
            Verdict::Continue | Verdict::CleanEnd => self.report.outcome = Outcome::Clean,
            Verdict::TornTail if self.repair == Repair::Refuse => {
                return Err(damaged(format!(
                    "the log ends in a torn tail ({row}), and was opened to refuse one"
                )));
            }
            Verdict::TornTail => {
                self.report.outcome = Outcome::UnacknowledgedLoss;
                self.report.dropped_tail = Some((file, offset));
            }
            Verdict::Corruption if self.repair == Repair::TruncateAtFirstError => {
                self.report.outcome = Outcome::AcknowledgedLoss;
                self.report.dropped_tail = Some((file, offset));
            }
            Verdict::Corruption => {
                let promised = self.promised;
                return Err(damaged(format!(
                    "acknowledged records are damaged or missing from here on ({row}; durable up to {promised}); \
                     restore a backup, or open a copy with Repair::TruncateAtFirstError to keep what is before"
                )));
            }
        }
        Ok(())
    }
}

/// True if a frame's payload is what its flags say: whole records, or a piece of one.
pub(crate) fn parses(header: &frame::Header, payload: &[u8]) -> bool {
    match header.flags {
        Flags::NONE => {
            let mut count = 0;
            Records::new(payload).all(|record| {
                count += 1;
                record.is_some()
            }) && count == header.records
                && count > 0
        }
        Flags::FIRST => record::Header::decode(payload).is_some() && header.records > 0,
        Flags::SEAL => payload.is_empty() && header.records == 0,
        _ => !payload.is_empty() && header.records == 0,
    }
}

pub(crate) fn corruption(file: &Path, offset: u64, lsn: Option<Lsn>, what: &str) -> Error {
    Error::Corruption { file: file.to_owned(), offset, lsn, what: what.to_owned() }
}
