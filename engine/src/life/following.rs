//! A replica's way through its own log, and the end of it: promotion.
//!
//! ```text
//! pieces ──► log, on the device ──apply──► deltas ──checkpoint──► data file
//!                                   │ follows the log as redo does, from where it stands
//!                                   ▼
//!           promote: apply all ─► the log is this store's ─► its first record ─► locks ─► shown, written
//! ```
//!
//! One applies at a time. What a record does to the store is what redo does with it, and redo after a crash begins where
//! the last checkpoint ends: so a replica that stops anywhere is as one that was shipped less.
//!
//! *Promotion.* The log's own step ([`Wal::promote`]) decides: once it is durable, this store is a primary of that epoch,
//! and reopening finds it as one; before, it is the replica that it was. What comes after it in memory can be repeated.
#![cfg_attr(
    seawall_shuttle,
    allow(dead_code, unused_imports, reason = "there the log is one that ships nothing")
)]

use crate::commit::gate::Ack;
use crate::commit::sequencer::ShippedPlace;
use crate::db::Core;
use crate::life::open::{InDoubt, Replay};
use crate::life::redone::Redone;
#[cfg(not(seawall_shuttle))]
use crate::life::redone::fenced_by;
use crate::stats::Event;
use crate::sync::{Mutex, Ordering};
use crate::{Error, Result};
use seawall_wal::latch::Latch;
use seawall_wal::{Lsn, Next, Record, Runtime, WalReader};
use std::sync::Arc;
use std::time::Duration;

/// How far a replica has come in its log.
pub(crate) struct Following {
    /// One at a time.
    latch: Latch,
    way: Mutex<Way>,
}

#[derive(Default)]
struct Way {
    reader: Option<WalReader>,
    /// Read, and not to be applied yet.
    next: Option<Record>,
    in_doubt: InDoubt,
}

impl Following {
    pub(crate) fn new(runtime: &Arc<dyn Runtime>, in_doubt: InDoubt) -> Following {
        let way = Mutex::new(Way { in_doubt, ..Way::default() });
        Following { latch: Latch::new(Arc::clone(runtime)), way }
    }
}

#[cfg(not(seawall_shuttle))]
impl Core {
    /// Applies what is durable, ends at or below `to`, and is not applied yet. The position up to which everything is.
    pub(crate) fn apply_durable(&self, to: Lsn) -> Result<Lsn> {
        let _alone = self.following.latch.lock();
        self.apply_alone(to, false)
    }

    /// The latch is held. Without haste, memory is kept within its bounds, if that is possible.
    fn apply_alone(&self, to: Lsn, in_haste: bool) -> Result<Lsn> {
        self.check_open()?;
        self.sequencer.check()?;
        let Some(applied) = self.sequencer.followed_to() else {
            return Err(Error::BadInput("this store is no replica: its log is its own".into()));
        };
        if self.wal.durable_lsn().min(to) <= applied {
            return Ok(applied);
        }
        let mut way = std::mem::take(&mut *self.following.way.lock());
        let result = self.apply_along(&mut way, applied, to, in_haste);
        if result.is_err() {
            // It begins again where it stands.
            (way.reader, way.next) = (None, None);
        }
        *self.following.way.lock() = way;
        result?;
        Ok(self.sequencer.followed_to().unwrap_or(applied))
    }

    fn apply_along(&self, way: &mut Way, from: Lsn, to: Lsn, in_haste: bool) -> Result<()> {
        let reader = match &mut way.reader {
            Some(reader) => reader,
            none => none.insert(self.wal.follow(from)?),
        };
        loop {
            if !in_haste && self.is_full_of_shipped() {
                self.fold.wait_for_end(&*self.runtime)?;
                return Ok(());
            }
            let record = match way.next.take() {
                Some(record) => record,
                None => match reader.next_timeout(Duration::ZERO)? {
                    Next::Record(record) => record,
                    Next::TimedOut => return Ok(()),
                    _ => return Err(Error::Closed),
                },
            };
            if record.end > to {
                way.next = Some(record);
                return Ok(());
            }
            self.apply_record(&record, &mut way.in_doubt)?;
        }
    }

    fn apply_record(&self, record: &Record, in_doubt: &mut InDoubt) -> Result<()> {
        let replay = Replay {
            options: &self.options,
            memory: &self.memory,
            reads: &self.reads,
            catalogue: &self.catalogue,
            log: &self.log,
            slots: &self.slots,
            is_shipped: true,
            applied: Lsn::ZERO,
        };
        let place = ShippedPlace { lsn: record.lsn, end: record.end, frame: record.frame };
        let redone = Redone { lsn: record.lsn, kind: record.kind, payload: &record.payload };
        match replay.decode(redone, in_doubt)? {
            Some(set) => self.sequencer.apply_shipped(&set, place),
            None => self.sequencer.pass_over(place),
        }
        Ok(())
    }

    /// Whether a checkpoint has to come first. What is not shown yet cannot be folded: then memory is what the primary's
    /// own commits that are not shown take there.
    fn is_full_of_shipped(&self) -> bool {
        if !self.options.background {
            return false;
        }
        let deltas = self.reads.deltas();
        if self.needs_fold(&deltas) {
            self.fold.request(&*self.runtime);
        }
        if deltas.bytes < self.deltas_max() {
            return false;
        }
        self.fold.pace.hurry();
        let view = self.reads.view();
        view.frozen.last().is_none_or(|oldest| oldest.end() <= self.reads.visible())
    }

    /// This replica's log becomes its own, in a new epoch.
    pub(crate) fn promote(&self, epoch: u64) -> Result<Lsn> {
        let _alone = self.following.latch.lock();
        let applied = self.apply_alone(Lsn::MAX, true)?;
        if self.wal.is_replica() {
            self.wal.promote(epoch)?;
        } else if self.wal.timeline().epoch != epoch {
            return Err(Error::BadInput(format!(
                "this store's log is its own already, in epoch {}",
                self.wal.timeline().epoch
            )));
        }
        // What it follows no more is not kept back.
        *self.following.way.lock() = Way::default();
        let end = super::epoch::begin(&self.wal)?;
        self.restore_branches(applied)?;
        let shown_by = if self.reads.visible() < applied { self.options.ack } else { Ack::Local };
        self.sequencer.take_over(end, shown_by);
        // What was promised meanwhile was promised as a replica promises: before the first write is taken, and behind that, for who
        // promises looks whether this is a replica first.
        self.hear_of_promise();
        self.is_replica.store(false, Ordering::Release);
        self.hear_of_promise();
        self.tell(Event::Promoted { epoch });
        Ok(end)
    }

    fn hear_of_promise(&self) {
        if let Some(epoch) = fenced_by(&self.wal)
            && self.sequencer.fence(epoch)
        {
            self.tell(Event::Fenced { epoch });
        }
    }

    /// Refuses every write from now on, of a store that is no replica.
    pub(crate) fn fence(&self, epoch: u64) {
        if !self.is_replica() && self.sequencer.fence(epoch) {
            self.tell(Event::Fenced { epoch });
        }
    }
}
