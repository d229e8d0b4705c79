//! A segment behind a cut: its header drops what stood from there on.

use super::{Live, Writer};
use crate::Lsn;
use crate::error::{Error, Result};
use crate::scan::SegmentUse;
use crate::segment::Predecessor;

impl Writer {
    /// Begins segment `number`, whose file is ready, behind `predecessor`, which need not be the newest: the segments
    /// above that are dead from here on, by one durable write. Returns their numbers. `written` is the end of all that
    /// was ever written; `note` tells the readers, before any can see the new path.
    pub(crate) fn begin_behind(
        &self,
        number: u64,
        predecessor: Predecessor,
        durable: Lsn,
        written: Lsn,
        note: impl FnOnce(),
    ) -> Result<Vec<u64>> {
        let Some(mut live) = self.live.lock().take() else { return Err(Error::Closed) };
        let begun = self.leave_for(&mut live, number, predecessor, durable, written, note);
        *self.live.lock() = Some(live);
        begun
    }

    fn leave_for(
        &self,
        live: &mut Live,
        number: u64,
        predecessor: Predecessor,
        durable: Lsn,
        written: Lsn,
        note: impl FnOnce(),
    ) -> Result<Vec<u64>> {
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
        *live = Live { number, file, salt, checksum, end, whole_end: written, unsynced: false };
        Ok(dead)
    }
}
