//! The store's slots: positions that the log is kept for.

use super::Db;
use crate::life::slots::{SlotOptions, SlotStatus};
use crate::record::may_name_large;
use crate::{Error, Result};
use seawall_wal::{Kind, Lsn};

impl Db {
    /// Creates a slot: from now on, and over every restart, the log is kept from the slot's position on, which is that of
    /// the newest checkpoint at first, until its owner [moves it](Db::advance_slot), it is [dropped](Db::drop_slot), or
    /// exceeds its limits. The slot is durable when this returns. One that is lost may be created anew.
    ///
    /// While a store has slots, values that are [streamed in](crate::Transaction::insert_from) go through its log. A
    /// transaction that is under way and has streamed in one before gets `Conflict`.
    ///
    /// # Errors
    /// `BadInput` for a name that is taken, or is not 1 to 64 of `a` to `z`, `0` to `9`, `_` and `-`; `TooLarge` beyond
    /// 1024 slots; `ReadOnly`, `Closed`, `Io`, `NoSpace`.
    ///
    /// ```
    /// # use seawall_engine::{Db, SlotOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// db.create_slot("replica-1", SlotOptions { bytes_max: Some(10 << 30), ..SlotOptions::default() })?;
    /// for slot in db.slots() {
    ///     println!("{} keeps {} bytes of log from {} on", slot.name, slot.retained_bytes, slot.lsn);
    /// }
    /// db.drop_slot("replica-1")?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn create_slot(&self, name: &str, options: SlotOptions) -> Result<()> {
        let core = self.core();
        core.check_writable_log()?;
        core.slots.create(name, options, || {
            let checkpoint = core.reads.view().root.superblock.checkpoint_lsn;
            Ok(checkpoint.max(core.slots.outside_end()))
        })
    }

    /// As [`create_slot`](Db::create_slot), at a position before the newest checkpoint: for somebody who has the log up to
    /// there, as after another store took over.
    ///
    /// # Errors
    /// `NeedsImage` if the log does not reach back so far, or has names of bytes from there on that are not in it; as
    /// [`create_slot`](Db::create_slot).
    ///
    /// ```
    /// # use seawall_engine::{Db, SlotOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # let place = db.stats().checkpoint_lsn;
    /// # rows.insert("a", "1")?;
    /// db.checkpoint()?;
    /// db.create_slot_at("replica-1", SlotOptions::default(), place)?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn create_slot_at(&self, name: &str, options: SlotOptions, place: Lsn) -> Result<()> {
        let core = self.core();
        core.check_writable_log()?;
        let needs_image = |what: String| Error::NeedsImage { to: place, what };
        core.slots.create(name, options, || {
            let kept = core.log.pin("a slot that is being created", place);
            let _kept = kept.map_err(|error| needs_image(error.to_string()))?;
            let mut named = None;
            core.log.replay(place, &mut |record| {
                if record.kind == Kind::TRANSACTION && may_name_large(record.payload) {
                    named.get_or_insert(record.lsn);
                }
                Ok(())
            })?;
            let what = |lsn| format!("the record at LSN {lsn} names bytes that are not in the log");
            named.map_or(Ok(place), |lsn| Err(needs_image(what(lsn))))
        })
    }

    /// Drops a slot: no log is kept for it any more.
    ///
    /// # Errors
    /// `SlotMissing`; `ReadOnly`, `Closed`, `Io`, `NoSpace`: it is then still there.
    pub fn drop_slot(&self, name: &str) -> Result<()> {
        let core = self.core();
        core.check_writable_log()?;
        core.slots.remove(name)?;
        core.fold.request_tidying(&*core.runtime);
        Ok(())
    }

    /// All slots, by name.
    pub fn slots(&self) -> Vec<SlotStatus> {
        self.core().slots.status()
    }

    /// The slot's owner was heard of: what it wants next begins at `place`, and all below `durable` is on its own device.
    /// Neither goes back: a position that is behind changes nothing. What is kept moves once the new position is on this
    /// store's device: about once a second, every 16 MiB, before a checkpoint releases log, at close, and by
    /// [`sync_slots`](Db::sync_slots).
    ///
    /// # Errors
    /// `SlotMissing`, `SlotLost`; `BadInput` for a position that the log has not reached; `Io` and `NoSpace` if the new
    /// position could not be written, which is tried again later.
    ///
    /// ```
    /// # use seawall_engine::{Db, SlotOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// db.create_slot("replica-1", SlotOptions::default())?;
    /// let lsn = rows.insert("a", "1")?;
    /// db.advance_slot("replica-1", lsn, lsn)?;
    /// assert_eq!(db.slots()[0].confirmed, lsn);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn advance_slot(&self, name: &str, place: Lsn, durable: Lsn) -> Result<()> {
        let core = self.core();
        core.check_writable_log()?;
        core.slots.advance(name, place, durable).map(drop)
    }

    /// The slots' positions of now are on the device when this returns.
    ///
    /// # Errors
    /// `ReadOnly`, `Closed`, `Io`, `NoSpace`.
    pub fn sync_slots(&self) -> Result<()> {
        let core = self.core();
        core.check_writable_log()?;
        core.slots.write()
    }
}
