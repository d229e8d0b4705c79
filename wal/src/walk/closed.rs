//! Whether a log ends where its anchor says that it was closed (W12): a shortcut, and never more than that.

use super::{Stop, Tail, Walk};
use crate::Lsn;
use crate::anchor::Closed;
use crate::disk::BLOCK_BYTES;
use crate::error::Result;
use crate::recovery::Here;
use crate::scan::{NoFrame, SegmentUse};

impl Walk<'_> {
    /// Where the anchor says that the log was closed, if that is so: the frames that were read, or the last before those
    /// that are wanted, end there with the checksum that it says, and no frame stands behind (W12). A newer segment, a header written anew or a
    /// frame shows an anchor that is older than the log. In doubt it says nothing, and the log is read like any other.
    pub(super) fn closed_here(
        &mut self,
        segment: &SegmentUse,
        stop: &Stop,
        from: Lsn,
        numbers: &[u64],
    ) -> Result<Option<Closed>> {
        let Some(closed) = self.closed else { return Ok(None) };
        if self.unfinished.is_some() || !matches!(stop.here, Here::Blank | Here::Foreign | Here::End) {
            return Ok(None);
        }
        let first = self.geometry.first_frame(segment.number);
        let is_read = stop.frames > 0 || from == first;
        let is_end = if is_read {
            (closed.end, closed.checksum) == (stop.at, stop.checksum)
        } else {
            self.ends_at(segment, &closed, from)?
        };
        if !is_end {
            return Ok(None);
        }
        for &number in numbers.iter().filter(|&&number| number > segment.number) {
            if self.reader.begins_with_frame(number)? {
                return Ok(None);
            }
        }
        Ok(Some(closed))
    }

    /// Whether the frames of a segment, none of which was read, end where the anchor says. Nothing stands from `from` on.
    fn ends_at(&mut self, segment: &SegmentUse, closed: &Closed, from: Lsn) -> Result<bool> {
        let first = self.geometry.first_frame(segment.number);
        let is_elsewhere = self.geometry.number(from) != segment.number;
        if closed.end != from && !(is_elsewhere && closed.end < from) {
            return Ok(false);
        }
        if closed.end == first {
            return Ok(closed.checksum == segment.checksum && self.is_bare(segment, first)?);
        }
        let is_inside = closed.last >= first && closed.last < self.geometry.end(segment.number);
        let is_block = closed.last.0.is_multiple_of(BLOCK_BYTES as u64);
        if !(is_inside && is_block) {
            return Ok(false);
        }
        let is_last = match self.reader.frame_at(segment, closed.last)? {
            Ok((header, _)) => {
                let ends_whole = !header.flags.goes_on();
                let end = header.lsn.plus(header.padded_bytes() as u64);
                ends_whole && (header.checksum, end) == (closed.checksum, closed.end)
            }
            Err(_) => false,
        };
        Ok(is_last && self.is_bare(segment, closed.end)?)
    }

    /// Whether not even a torn frame of this use stands there.
    fn is_bare(&mut self, segment: &SegmentUse, at: Lsn) -> Result<bool> {
        let found = self.reader.frame_at(segment, at)?;
        Ok(matches!(found, Err(NoFrame::Blank | NoFrame::Foreign | NoFrame::End)))
    }
}

impl Tail {
    pub(super) fn of(closed: &Closed) -> Tail {
        let last = (closed.last != Lsn::ZERO).then_some(closed.last);
        Tail { at: closed.end, last, checksum: closed.checksum, whole_end: Some(closed.whole_end) }
    }
}
