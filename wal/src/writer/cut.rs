//! A segment behind a cut: its header drops what stood from there on.

use super::{Live, Writer};
use crate::Lsn;
use crate::error::{Error, Result};
use crate::scan::SegmentUse;
use crate::segment::Predecessor;

/// The segment that a cut log goes on in.
#[derive(Debug)]
pub(crate) struct Successor {
    /// Its number; its file is ready.
    pub(crate) number: u64,
    /// What it goes on behind: not always the newest.
    pub(crate) predecessor: Predecessor,
    /// What its header says is durable.
    pub(crate) durable: Lsn,
    /// The end of all that was ever written.
    pub(crate) written: Lsn,
}

impl Writer {
    /// Begins the segment: those above its predecessor are dead from here on, by one durable write. Returns their numbers.
    /// `note` tells the readers, before any can see the new path.
    pub(crate) fn begin_behind(&self, next: &Successor, note: impl FnOnce()) -> Result<Vec<u64>> {
        let Some(mut live) = self.take_live() else { return Err(Error::Closed) };
        let begun = self.leave_for(&mut live, next, note);
        *self.live.lock() = Some(live);
        begun
    }

    fn leave_for(&self, live: &mut Live, next: &Successor, note: impl FnOnce()) -> Result<Vec<u64>> {
        let &Successor { number, predecessor, durable, written } = next;
        if live.unsynced {
            // W1
            self.sync(live)?;
        }
        let file = self.spares.take(number).ok_or_else(|| {
            Error::BadInput(format!("segment {number} was to be begun before its file was made ready"))
        })?;
        let (salt, checksum) = self.begin_segment(&*file, number, Some(predecessor), durable)?;
        let mut segments = self.segments.lock();
        let dead: Vec<u64> = segments.range(predecessor.number + 1..).map(|(number, _)| *number).collect();
        segments.retain(|number, _| *number <= predecessor.number);
        if let Some(last) = segments.get_mut(&predecessor.number) {
            last.end = Some(predecessor.end);
            last.cut = predecessor.cut;
        }
        segments.insert(number, SegmentUse { number, salt, checksum, end: None, cut: None });
        note();
        drop(segments);
        let end = self.geometry.first_frame(number);
        *live = Live { number, file, salt, checksum, end, last: None, whole_end: written, unsynced: false };
        Ok(dead)
    }
}
