//! Where a reader begins: at the frame that holds its first record, found backwards where that is sure, so that a follower
//! of the live end does not read a whole segment first.

use super::WalReader;
use crate::Lsn;
use crate::disk::BLOCK_BYTES;
use crate::error::Result;
use crate::frame::{self, Flags};
use crate::log::Inner;
use std::sync::Arc;

impl WalReader {
    /// Sets the reader to the unit that holds `from`, or to the place where it will stand.
    pub(super) fn seek(&mut self) -> Result<()> {
        self.index =
            self.path.iter().take_while(|segment| segment.end.is_some_and(|end| end <= self.from)).count();
        let is_behind = self.from >= self.limit;
        if is_behind && !self.follows() {
            // A replay position may lie behind the last frame, even in a segment that was never begun.
            self.at = self.limit;
            return Ok(());
        }
        let Some(segment) = self.path.get(self.index).copied() else { return Ok(()) };
        let first = self.geometry.first_frame(segment.number);
        self.at = first;
        if is_behind {
            // Nothing of what there is will be shown: on from behind the last durable frame.
            let last = self.frames.frame_around(&segment, Lsn(self.limit.0.saturating_sub(1)))?;
            self.at = last.map_or(first, |header| header.lsn.plus(header.padded_bytes() as u64));
            return Ok(());
        }
        if self.from > first {
            let found = match self.frame_that_begins_at_from(&segment)? {
                Some(header) => Some(header),
                None => self.frames.frame_around(&segment, self.from)?,
            };
            self.at = found.map_or(first, |header| header.lsn);
        }
        self.seek_beginning_of_unit()
    }

    /// Where the first record of the unit stands that the byte at `lsn` belongs to.
    pub(crate) fn beginning_of_unit(inner: &Arc<Inner>, lsn: Lsn) -> Result<Lsn> {
        // Nothing is reclaimed meanwhile.
        let pin = inner.pin("reclaiming", inner.first())?;
        let reader = WalReader::bounded(inner, pin, lsn, inner.committer.written())?;
        Ok(reader.at.plus(frame::HEADER_BYTES as u64))
    }

    /// The usual case, one read: replay positions are frames' boundaries.
    fn frame_that_begins_at_from(
        &mut self,
        segment: &crate::scan::SegmentUse,
    ) -> Result<Option<frame::Header>> {
        if !self.from.0.is_multiple_of(BLOCK_BYTES as u64) {
            return Ok(None);
        }
        Ok(self.frames.frame_at(segment, self.from)?.ok().map(|(header, _)| header))
    }

    /// If the reader stands at a later piece of a unit: back to its first, as far as the log reaches.
    fn seek_beginning_of_unit(&mut self) -> Result<()> {
        loop {
            let Some(segment) = self.path.get(self.index).copied() else { return Ok(()) };
            let is_piece = match self.frames.frame_at(&segment, self.at)? {
                Ok((header, _)) => matches!(header.flags, Flags::MIDDLE | Flags::LAST),
                Err(_) => false,
            };
            if !is_piece {
                return Ok(());
            }
            let first = self.geometry.first_frame(segment.number);
            let (index, before) = if self.at > first {
                (self.index, self.at)
            } else {
                let Some(index) = self.index.checked_sub(1) else { return Ok(()) };
                (index, self.path.get(index).and_then(|before| before.end).unwrap_or(first))
            };
            let Some(before_segment) = self.path.get(index).copied() else { return Ok(()) };
            let found = self.frames.frame_around(&before_segment, Lsn(before.0.saturating_sub(1)))?;
            let at = found.map_or(self.geometry.first_frame(before_segment.number), |header| header.lsn);
            if (index, at) == (self.index, self.at) {
                return Ok(());
            }
            (self.index, self.at) = (index, at);
        }
    }
}
