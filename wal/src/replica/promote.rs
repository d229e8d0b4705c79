//! A replica's log becomes one that is written.
//!
//! Three durable steps, each of which leaves what the next one can go on from (W15):
//! 1. the anchor promises the epoch, and says where it begins: behind the last whole unit;
//! 2. the epoch's first segment, whose header ends the segment before at that place: what stands behind it there is dead;
//! 3. the anchor says that the log is no replica's.

use super::not_a_replica;
use crate::Lsn;
use crate::error::{Error, Result};
use crate::log::{Inner, Wal};
use crate::segment::Predecessor;
use crate::timeline::Turn;
use crate::writer::Successor;
use std::sync::Arc;

impl Wal {
    /// This replica's log becomes an ordinary one, written in `epoch`, in place. Everything accepted becomes durable
    /// first; a record that did not come whole is dropped. Returns where the epoch begins: the place at which logs that
    /// went on in an earlier epoch part from this one. After a failure the log is still a replica's, and this can be
    /// called again, also once it was reopened.
    ///
    /// # Errors
    /// [`Error::Fenced`] if the epoch is not above every one promised (but for one that was begun here and not finished);
    /// [`Error::NoSpace`], [`Error::Poisoned`], [`Error::Io`]; [`Error::BadInput`] for a log that is no replica's, or
    /// that has not come to its first position yet.
    pub fn promote(&self, epoch: u64) -> Result<Lsn> {
        self.0.inner.promote(epoch)
    }
}

impl Inner {
    fn promote(self: &Arc<Self>, epoch: u64) -> Result<Lsn> {
        self.sync_replica()?;
        let _one_at_a_time = self.anchor_latch.lock();
        let Some(chain) = self.replica.lock().as_ref().map(|replica| replica.chain) else {
            return Err(not_a_replica());
        };
        let anchor = *self.anchor.lock();
        let Some(segment) = chain.segment.filter(|_| chain.replay_place() >= anchor.needed()) else {
            return Err(Error::BadInput(format!(
                "this replica is still being filled: its log ends at {} and is needed up to {}",
                chain.replay_place(),
                anchor.needed()
            )));
        };
        let begun = anchor.history.turns().last().filter(|turn| turn.epoch == epoch).copied();
        let turn = match begun {
            Some(turn) if anchor.promised == epoch => turn,
            _ if epoch <= anchor.promised.max(segment.epoch).max(anchor.history.epoch()) => {
                return Err(Error::Fenced { epoch: anchor.promised.max(segment.epoch) });
            }
            _ => Turn { epoch, start: chain.replay_place() },
        };
        if begun.is_none() {
            // What it was told of, and never got, is not its own.
            let mut history = anchor.history.up_to(segment.epoch, chain.replay_place());
            history.push(turn)?;
            self.write_anchor_locked(|anchor| (anchor.promised, anchor.history) = (epoch, history))?;
        }
        // A header of this epoch that was written before the power failed is taken for what it is.
        if segment.epoch != epoch {
            self.begin_epoch(epoch, &chain)?;
        } else {
            self.committer.go_on_at(chain.place);
        }
        self.write_anchor_locked(|anchor| {
            anchor.is_replica = false;
            anchor.epoch = epoch;
            (anchor.clean, anchor.closed) = (false, None);
        })?;
        self.committer.sink.set_epoch(epoch);
        *self.replica.lock() = None;
        Ok(turn.start)
    }

    fn begin_epoch(self: &Arc<Self>, epoch: u64, chain: &super::Chain) -> Result<()> {
        let Some(segment) = chain.segment else { return Err(not_a_replica()) };
        let (place, segment, checksum) = match chain.unit {
            Some(unit) => (unit.place, unit.segment, unit.checksum),
            None => (chain.place, segment, chain.checksum),
        };
        let predecessor =
            Predecessor { number: segment.number, salt: segment.salt, end: place, checksum, cut: None };
        let number = self.spares.next_number();
        self.spares.ensure(self.geometry.end(number))?;
        self.publish_ready_end();
        let base = self.geometry.first_frame(number);
        let durable = self.committer.durable();
        let next = Successor { number, predecessor, durable, written: chain.whole_end };
        let before = self.committer.sink.epoch();
        self.committer.sink.set_epoch(epoch);
        let begun = self.committer.sink.begin_behind(&next, || self.committer.go_on_at(base));
        match begun {
            Ok(dead) => {
                // A file that cannot be removed is found again at the next opening.
                let _ = self.spares.retire(&dead);
                Ok(())
            }
            Err(error) => {
                self.committer.sink.set_epoch(before);
                Err(self.fail_replica(error))
            }
        }
    }
}
