//! The log's end may be cut off: readers of units that were cut through, readers beside whoever cuts, and where a cut is.

use super::WalReader;
use crate::Lsn;
use crate::error::{Error, Result};
use crate::frame;
use crate::log::Inner;
use crate::record;
use crate::segment::{Cut, Predecessor};
use std::sync::Arc;

/// Where a log can be cut so that a position is its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutPlace {
    /// The first record behind the cut.
    pub(crate) dropped: Lsn,
    /// What the header of the next segment says of the log before it.
    pub(crate) predecessor: Predecessor,
}

impl WalReader {
    /// Where the log of `inner`, which is held still, is to be cut so that it ends `at` a position. `None` if nothing
    /// stands behind that.
    pub(crate) fn place_of_cut(inner: &Arc<Inner>, at: Lsn) -> Result<Option<CutPlace>> {
        let pin = inner.pin("truncation", at)?;
        let mut reader = WalReader::bounded(inner, pin, at, inner.committer.written())?;
        while reader.next_unit()? {
            let mut offset = 0;
            while let Some(header) =
                reader.unit.get(offset..).filter(|rest| !rest.is_empty()).map(record::Header::decode)
            {
                let Some(header) = header else {
                    return Err(reader.damaged("a record's header does not parse"));
                };
                let lsn = reader.lsn_of(offset);
                if lsn >= at {
                    return reader.cut_before(offset, lsn).map(Some);
                }
                offset += record::HEADER_BYTES + header.length as usize;
                if reader.end_of(offset) > at {
                    return Err(Error::BadInput(format!(
                        "the log cannot be cut at {at}: that is within the record at {lsn}"
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Of the unit that was read, nothing from `offset` on is to stay, where the record at `dropped` begins.
    fn cut_before(&mut self, offset: usize, dropped: Lsn) -> Result<CutPlace> {
        let splits = offset > 0;
        // The frame whose beginning, or end, the log's end is.
        let within = offset.saturating_sub(1);
        let piece = self.pieces.iter().rev().find(|(start, _)| *start <= within);
        let payload = piece.map_or(dropped, |(_, lsn)| *lsn);
        let base = Lsn(payload.0.saturating_sub(frame::HEADER_BYTES as u64));
        let number = self.geometry.number(base);
        let segment = self.path.iter().find(|segment| segment.number == number).copied();
        let segment = segment.ok_or_else(|| self.damaged("a frame is in no segment of the log"))?;
        let header = self.frames.frame_at_again(&segment, base)?.map(|(header, _)| header);
        let header = header.ok_or_else(|| self.damaged("a frame before the log's end is damaged"))?;
        let (end, checksum) = if splits {
            (base.plus(header.padded_bytes() as u64), header.checksum)
        } else {
            (base, header.previous)
        };
        let at = if splits { self.end_of(offset) } else { self.from };
        let cut = Some(Cut { at, splits });
        let predecessor = Predecessor { number, salt: segment.salt, end, checksum, cut };
        Ok(CutPlace { dropped, predecessor })
    }

    /// Whether the unit whose beginning was read ends here, because the log was cut through it.
    pub(super) fn is_unit_cut(&mut self) -> bool {
        let Some(segment) = self.path.get(self.index) else { return false };
        let ends = segment.end.is_some_and(|end| self.at >= end) && !self.pieces.is_empty();
        let cut = segment.splits_at().filter(|_| ends);
        self.cut_unit(cut);
        cut.is_some()
    }

    /// Forgets what of the unit stands behind a cut.
    pub(super) fn cut_unit(&mut self, cut: Option<Lsn>) {
        let Some(cut) = cut.filter(|cut| self.at > *cut) else { return };
        let pieces = self.pieces.iter().enumerate().rev();
        let Some((i, (start, lsn))) = pieces.into_iter().find(|(_, (_, lsn))| *lsn < cut) else { return };
        let end = self.pieces.get(i + 1).map_or(self.unit.len(), |(next, _)| *next);
        let bytes = usize::try_from(cut.0 - lsn.0).unwrap_or(usize::MAX);
        self.unit.truncate(start.saturating_add(bytes).min(end));
    }

    /// Whether the log was cut since the reader looked last.
    pub(super) fn was_cut(&mut self) -> Result<bool> {
        if let Some(tail) = &mut self.tail {
            return tail.has_moved();
        }
        Ok(self.live.as_ref().is_some_and(|live| live.cuts != live.inner().committer.cuts.count()))
    }

    /// Goes on with the log as it is since it was cut, if it stands before the cut.
    pub(super) fn go_on_before_cut(&mut self) -> Result<()> {
        if self.tail.is_some() {
            return self.go_on_with_files();
        }
        let Some(live) = &mut self.live else { return Ok(()) };
        let inner = live.inner().clone();
        let cuts = &inner.committer.cuts;
        let seen = std::mem::replace(&mut live.cuts, cuts.count());
        let Some(at) = cuts.lowest_since(seen) else { return Ok(()) };
        if self.shown > at {
            return Err(Error::Truncated { at });
        }
        if !self.follows() && self.limit > at {
            self.limit = at;
            if let Some(live) = &mut self.live {
                live.cut_short = Some(at);
            }
        }
        self.path = inner.segments();
        self.seek_again()
    }

    /// Goes on behind what was shown, on a new path.
    pub(super) fn seek_again(&mut self) -> Result<()> {
        self.from = self.from.max(self.shown);
        self.unit.clear();
        self.unit_at = 0;
        self.pieces.clear();
        self.started = false;
        // One that fails because the log moved again is made again.
        match self.seek() {
            Err(_) if self.was_cut()? => Ok(()),
            sought => sought,
        }
    }

    /// A reader of a part of the log that was cut off is told so at its end.
    pub(super) fn ended_by_cut<T>(&self, found: Result<Option<T>>) -> Result<Option<T>> {
        match (found, self.live.as_ref().and_then(|live| live.cut_short)) {
            (Ok(None), Some(at)) if !self.stopper.is_stopped() => Err(Error::Truncated { at }),
            (found, _) => found,
        }
    }
}
