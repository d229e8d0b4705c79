//! Giving the log's beginning back: whose pins allow what, the anchor first, then the files.

use super::Inner;
use crate::Lsn;
use crate::error::Result;
use crate::mutation::Mutation;
use crate::reader::WalReader;
use crate::sync::Ordering;
use std::sync::Arc;

impl Inner {
    pub(super) fn truncate_before(self: &Arc<Self>, lsn: Lsn) -> Result<u64> {
        self.check_open_for_writing()?;
        let _one_at_a_time = self.anchor_latch.lock();
        let durable = self.committer.shown_durable();
        let lsn = lsn.min(durable.max(self.first()));
        let first = loop {
            let wanted = self.retention.floor_with(|floor| lsn.min(floor.unwrap_or(Lsn::MAX)));
            let begins = self.beginning_of_unit(wanted)?;
            // Whoever pins from now on sees the new beginning.
            let published = self.retention.floor_with(|floor| {
                let first = begins.max(self.first());
                let is_free = floor.is_none_or(|floor| floor >= wanted);
                is_free.then(|| self.first.store(first.0, Ordering::Release)).map(|()| first)
            });
            if let Some(first) = published {
                break first;
            }
        };
        if self.mutation == Some(Mutation::ReclaimBeforeAnchor) {
            let segments = self.segments();
            let keep = self.geometry.number(first).min(segments.last().map_or(0, |live| live.number));
            let gone: Vec<u64> = segments.iter().map(|s| s.number).filter(|&number| number < keep).collect();
            self.spares.retire(&gone)?;
        }
        if first > self.anchor.lock().first {
            self.write_anchor_locked(|anchor| anchor.first = first)?;
        }
        let numbers: Vec<u64> = {
            let mut segments = self.committer.sink.segments.lock();
            let live = segments.keys().next_back().copied().unwrap_or(0);
            let keep = self.geometry.number(first).min(live);
            let gone = segments.keys().copied().filter(|&number| number < keep).collect();
            segments.retain(|&number, _| number >= keep);
            gone
        };
        self.spares.retire(&numbers)?;
        Ok(numbers.len() as u64 * self.geometry.segment_bytes)
    }

    /// Where a record stands without which the one at `lsn` cannot be read: that of its unit's first frame, if the unit
    /// began in an earlier segment.
    fn beginning_of_unit(self: &Arc<Self>, lsn: Lsn) -> Result<Lsn> {
        if lsn <= self.first() || self.geometry.number(lsn) == self.geometry.number(self.first()) {
            return Ok(lsn);
        }
        let begins = WalReader::beginning_of_unit(self, lsn)?;
        Ok(if self.geometry.number(begins) < self.geometry.number(lsn) { begins } else { lsn })
    }
}
