//! Cutting the log's end off.
//!
//! What decides is one durable write: the header of a new segment that names another end of another predecessor than the
//! log had. Before it the log is whole; from it on the segments behind the cut are on nobody's path. The anchor then says
//! that the new segment's beginning is durable, so that the log cannot grow back should that header be damaged.

use super::{Inner, Wal};
use crate::Lsn;
use crate::error::{Error, Result};
use crate::mutation::Mutation;
use crate::reader::{CutPlace, WalReader};
use crate::writer::Successor;
use std::sync::Arc;

impl Wal {
    /// Drops everything from `lsn` on, durably: no crash, and no later opening, brings it back. For whoever replicates the
    /// log and has to take back what the others do not have. `lsn` must not be within a record; a record of a batch is one
    /// like any other. At [`next_lsn`](Wal::next_lsn) nothing is dropped, at [`first_lsn`](Wal::first_lsn) everything.
    ///
    /// Records that have their place become durable first, and tickets resolve, those of records that are then dropped
    /// too. Commits that come meanwhile wait, and get their place behind the cut. Positions are not used again: what comes
    /// next stands in a new segment. Readers, followers and pins that are behind the cut get [`Error::Truncated`] at their
    /// next step; those before it go on.
    ///
    /// A power cut on the way leaves the log whole, or exactly what is before `lsn`. The owner of the log, if it keeps
    /// another file that the log is replayed into, must not have applied what is dropped: opening then refuses.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("seawall-cut-doc-{}", std::process::id()));
    /// use seawall_wal::{Lsn, Wal};
    /// let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;
    /// wal.commit(b"agreed upon")?;
    /// let lsn = wal.commit(b"taken back")?;
    /// wal.truncate_after(lsn)?;
    /// assert_eq!(wal.durable_lsn(), lsn);
    /// assert_eq!(wal.read(..)?.count(), 1);
    /// assert!(wal.commit(b"instead")? > lsn);
    /// # wal.close()?;
    /// # std::fs::remove_dir_all(dir).unwrap();
    /// # Ok::<(), seawall_wal::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BadInput`] for a position within a record, before the log's beginning or behind its end;
    /// [`Error::NoSpace`] if there is no room for another segment; [`Error::Corruption`] if what is around the position
    /// cannot be read. Nothing was changed then. [`Error::Io`] and [`Error::Poisoned`] if a write failed: reopening decides
    /// whether the log was cut. [`Error::ReadOnly`], [`Error::Closed`].
    pub fn truncate_after(&self, lsn: Lsn) -> Result<()> {
        self.0.inner.truncate_after(lsn)
    }
}

impl Inner {
    fn truncate_after(self: &Arc<Self>, lsn: Lsn) -> Result<()> {
        self.check_writable()?;
        let _one_at_a_time = self.anchor_latch.lock();
        if lsn < self.first() {
            let first = self.first();
            return Err(Error::BadInput(format!("the log cannot be cut at {lsn}: it begins at {first}")));
        }
        let paused = self.committer.pause()?;
        if lsn > self.committer.next_lsn() && lsn > self.committer.reserved() {
            let end = self.committer.next_lsn();
            return Err(Error::BadInput(format!("the log cannot be cut at {lsn}: it ends at {end}")));
        }
        let Some(CutPlace { dropped, predecessor }) = WalReader::place_of_cut(self, lsn)? else {
            return Ok(());
        };
        let number = self.spares.next_number();
        self.spares.ensure(self.geometry.end(number))?;
        self.publish_ready_end();
        let written = self.committer.reserved();
        let base = self.geometry.first_frame(number);
        let end = predecessor.cut.map_or(lsn, |cut| cut.at);
        let gap = predecessor.dropped(number, self.geometry);
        let note = || {
            paused.cut(end, dropped, base);
            gap.into_iter().for_each(|gap| self.committer.cuts.add_gap(gap));
        };
        let next = Successor { number, predecessor, durable: end, written };
        let dead = match self.committer.sink.begin_behind(&next, note) {
            Ok(dead) => dead,
            Err(error) => {
                // Whether the header is there is not known.
                self.committer.fail(error.again());
                return Err(match error {
                    Error::NoSpace => Error::Poisoned(Arc::new(error)),
                    error => error,
                });
            }
        };
        self.retention.cut(dropped);
        if self.mutation != Some(Mutation::CutWithoutAnchor) {
            self.vouch_for_cut_locked(number)?;
        }
        drop(paused);
        // The log is cut; a file that cannot be removed is found again at the next opening.
        let _ = self.spares.retire(&dead);
        Ok(())
    }

    /// The anchor says that segment `number`, which cuts the log, has begun.
    pub(super) fn vouch_for_cut(&self, number: u64) -> Result<()> {
        let _one_at_a_time = self.anchor_latch.lock();
        self.vouch_for_cut_locked(number)
    }

    fn vouch_for_cut_locked(&self, number: u64) -> Result<()> {
        let begun = self.geometry.first_frame(number);
        if self.anchor.lock().durable >= begun {
            return Ok(());
        }
        self.write_anchor_locked(|anchor| anchor.durable = anchor.durable.max(begun))
    }
}
