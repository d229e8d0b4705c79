//! What a log does for itself between commits: segments ahead, and a word on how far it is durable.

use super::Inner;
use crate::Lsn;
use crate::disk::BLOCK_BYTES;
use crate::error::Result;
use crate::sync::Ordering;
use std::time::Duration;

impl Inner {
    /// Makes one segment file ahead if one is due; writes or seals what an idle log left. True if it did something.
    pub(crate) fn step(&self, idle: bool) -> Result<bool> {
        let wanted = self.spares_wanted();
        let topped_up = if wanted > 0 { self.spares.top_up(wanted) } else { Ok(false) };
        if matches!(topped_up, Ok(true)) {
            self.publish_ready_end();
            return Ok(true);
        }
        if self.is_replica() {
            let settled = idle && self.settle_replica()?;
            topped_up?;
            return Ok(settled);
        }
        // A full disk keeps no commit that has its room from being written and vouched for.
        let carried = Lsn(self.committer.sink.carried.load(Ordering::Acquire));
        let settled = idle && (self.committer.settle(carried, true)? || self.vouch_for_segment(carried)?);
        topped_up?;
        if idle {
            self.spares.rest()?;
            self.rest()?;
        }
        Ok(settled)
    }

    /// The anchor says once a segment that its beginning is durable: should the whole file disappear, recovery
    /// notices. And it says the durable LSN where the segment has no room for a frame that does.
    fn vouch_for_segment(&self, carried: Lsn) -> Result<bool> {
        let durable = self.committer.durable();
        let known = self.anchor.lock().durable;
        let end = Lsn(durable.0.next_multiple_of(BLOCK_BYTES as u64));
        let lacks_room = self.geometry.offset(end) == 0 && carried < durable;
        let begun = self.geometry.number(known) < self.geometry.number(durable);
        if known >= durable || !(begun || lacks_room) {
            return Ok(false);
        }
        self.write_anchor(|_| {})?;
        Ok(true)
    }

    /// Files are made ahead once half a segment was written: a small store stays small.
    fn spares_wanted(&self) -> usize {
        let next = self.committer.next_base();
        let rotations = self.counters.rotations.load(std::sync::atomic::Ordering::Relaxed);
        let begun = self.geometry.number(next) > crate::segment::FIRST_NUMBER && rotations > 1;
        // The next segment begins with the next record: not before there is one in a log that was only opened.
        let is_due = self.is_half_written(next) && (self.geometry.offset(next) > 0 || rotations > 0);
        if begun || is_due { self.spares.wanted(next, 1) } else { 0 }
    }

    /// Whether the segment that is written at `next` has less than half of its room left.
    fn is_half_written(&self, next: Lsn) -> bool {
        let offset = self.geometry.offset(next);
        offset == 0 || offset > self.geometry.segment_bytes / 2
    }

    /// How many files a log at rest keeps: one that was ever in need of a second goes on in that also on a full disk.
    fn kept_at_rest(&self, next: Lsn) -> usize {
        let has_rotated = self.geometry.number(next) > crate::segment::FIRST_NUMBER;
        usize::from(has_rotated || self.is_half_written(next))
    }

    /// Gives files back that a log which has been idle for long can do without.
    fn rest(&self) -> Result<()> {
        let (reserved, next) = (self.committer.reserved(), self.committer.next_base());
        let keep = self.kept_at_rest(next);
        if self.spares.may_rest(reserved, keep) {
            let lower = |end| self.committer.lower_ready_end(end);
            self.spares.give_back((reserved, next), keep, lower)?;
        }
        Ok(())
    }

    /// For how long it has to stay idle until it gives back files that it keeps, if there are such.
    pub(crate) fn rests_after(&self) -> Option<Duration> {
        if self.is_replica() {
            return None;
        }
        self.spares.rests_after(self.kept_at_rest(self.committer.next_base()))
    }

    /// Who gives out positions is told for which there are files.
    pub(crate) fn publish_ready_end(&self) {
        self.spares.publish_end(|end| self.committer.set_ready_end(end));
    }
}
