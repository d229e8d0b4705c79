//! The face for those who ship the log: a primary's, and a replica's.
//!
//! ```text
//! primary                                              replica
//! wal().ship(from) ──pieces──────────────────────────► wal().accept ─► wal().sync_replica ─► apply
//! visible ───────────────────────────────────────────► set_visible_limit
//! acked(level, lsn) ◄──received, durable, applied──────
//! fence(epoch)      ◄──a higher epoch                   promote(epoch)
//! ```
//!
//! The engine ships nothing by itself, and knows of no network: it says how far it is, and is told how far others are.

use crate::db::{Core, Handle};
use crate::stats::Event;
use crate::{Ack, Db, Error, Result};
use seawall_wal::{Lsn, Wal};
use std::sync::Arc;
use std::time::Duration;

/// A store as one that ships its log, or gets another's. Cheap to clone; a clone keeps the store open.
///
/// ```
/// # use seawall_engine::{Ack, Db, TxOptions};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// let shipping = db.shipping();
/// let mut tx = db.begin_with(TxOptions { ack: Some(Ack::Durable), ..TxOptions::default() });
/// tx.insert(&rows, "a", "1")?;
/// let ticket = tx.commit_pipelined()?;
/// assert!(rows.get("a")?.is_none(), "no replica has it");
/// # shipping.wal().sync()?;
/// shipping.acked(Ack::Durable, shipping.wal().next_lsn()); // one has
/// ticket.wait()?;
/// assert!(rows.get("a")?.is_some());
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Shipping(Arc<Handle>);

impl Shipping {
    fn core(&self) -> &Arc<Core> {
        self.0.core()
    }

    /// The store's log: what a primary ships from, and what a replica puts the pieces into.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let shipping = db.shipping();
    /// assert!(shipping.wal().next_lsn() >= shipping.wal().first_lsn());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn wal(&self) -> &Wal {
        &self.core().wal
    }

    /// What tells the store, its replicas and its images from all others.
    pub fn store_id(&self) -> [u8; 16] {
        self.wal().store_id()
    }

    /// Whether the store is a replica: it was opened as one, and not promoted since.
    pub fn is_replica(&self) -> bool {
        self.core().is_replica()
    }

    /// Everything below is shown to readers, up to a record's end; on a primary this is what replicas may show. A replica that
    /// shows as much shows the same: see [`wait_visible`](Shipping::wait_visible).
    pub fn visible(&self) -> Lsn {
        let core = self.core();
        if core.is_replica() { core.reads.visible() } else { core.sequencer.shown() }
    }

    /// Everything below is applied; on a primary, what is visible.
    pub fn applied(&self) -> Lsn {
        self.core().sequencer.followed_to().unwrap_or_else(|| self.visible())
    }

    /// Waits until everything below `lsn` is visible. False when the time is over. So a reader on a replica sees what it, or
    /// another, has written on the primary, if the primary's [`visible`](Shipping::visible) is asked after the commit. (A
    /// snapshot's position will not do: it may lie behind the last record, where a replica comes only with the next one.)
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # use std::time::Duration;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let shipping = db.shipping();
    /// assert!(shipping.wait_visible(shipping.visible(), Duration::ZERO)?);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`; `Poisoned`, `Fenced`: no more will be.
    pub fn wait_visible(&self, lsn: Lsn, timeout: Duration) -> Result<bool> {
        self.core().check_open()?;
        let core = self.core();
        let is_shown = |visible| visible >= lsn || self.visible() >= lsn;
        core.sequencer.await_visible(is_shown, timeout)
    }

    /// On a replica: applies every durable record of its log that is not applied yet, and says up to where everything is. Where
    /// a checkpoint has to give memory back first, it returns earlier, after a while: call it again. One caller at a time;
    /// others wait.
    ///
    /// # Errors
    /// `BadInput` if this is no replica; `NeedsImage` if a record names what only the primary's data file holds; `Corruption`,
    /// `Io`, `Closed`, `Poisoned`. What was applied before stays so.
    pub fn apply(&self) -> Result<Lsn> {
        self.apply_to(Lsn::MAX)
    }

    /// As [`apply`](Shipping::apply), of records that end at or below `lsn`: for a replica that is to stay behind.
    ///
    /// # Errors
    /// As `apply`.
    pub fn apply_to(&self, lsn: Lsn) -> Result<Lsn> {
        self.core().apply_durable(lsn)
    }

    /// On a replica: the primary has shown everything below, so it may be shown here once it is applied. Snapshots see what
    /// is below both, up to a record's end; it never goes back. What is not shown is not folded either. Nothing on a
    /// primary.
    pub fn set_visible_limit(&self, shipped_visible: Lsn) {
        self.core().sequencer.show_up_to(shipped_visible);
    }

    /// On a replica: applies all that is durable here, makes the log this store's own in a new epoch, and takes writes from
    /// then on. What was prepared is prepared here, with all that it holds. Everything applied is shown, unless the
    /// store's commits wait for replicas ([`DbBuilder::ack`](crate::DbBuilder::ack)): then what the primary had not shown is
    /// shown when replicas have come so far. Where the epoch begins in the log is returned.
    ///
    /// It is for the caller to know that no other store writes: see [`fence`](Shipping::fence).
    ///
    /// # Errors
    /// `BadInput` if this is no replica, `Fenced` if a higher epoch was promised, and what the device says. It is a replica
    /// as before then, or, if the new epoch has begun already, one that refuses writes: try again, or reopen it without
    /// [`DbBuilder::replica`](crate::DbBuilder::replica).
    pub fn promote(&self, epoch: u64) -> Result<Lsn> {
        self.core().promote(epoch)
    }

    /// On a primary: the replicas that count have come so far, at this level and those before it. Commits that have waited
    /// for that become visible, and return. A mark never goes back.
    pub fn acked(&self, level: Ack, lsn: Lsn) {
        self.core().sequencer.acked(level, lsn);
    }

    /// Whether a commit has asked for this level since the store was opened. Who ships the log tells replicas: what nobody waits for
    /// they need not say at once.
    pub fn is_asked(&self, level: Ack) -> bool {
        self.core().sequencer.gate.is_asked(level)
    }

    /// The first commit that waits for replicas alone; on a replica, the end of the first record that may not be shown yet.
    pub fn waiting(&self) -> Option<Lsn> {
        self.core().sequencer.held_up()
    }

    /// A higher epoch was heard of: another store has taken this one's place. From now on every write gets `Fenced`, commits
    /// that wait get `CommitUnknown`, and nothing more becomes visible; reads go on. It is kept in the log's anchor: a store
    /// that promised a higher epoch than its log's opens for reads only. A replica only keeps the promise, and will not be
    /// promoted in that epoch or an earlier one by another's word.
    ///
    /// # Errors
    /// `BadInput` if the log is of that epoch or a later one. `Io` and the like: writes are refused, but reopening would forget
    /// it.
    pub fn fence(&self, epoch: u64) -> Result<()> {
        let core = self.core();
        // Before the log is asked for its epoch: that of a primary stays as it is.
        let was_replica = core.is_replica();
        let timeline = core.wal.timeline();
        if epoch <= timeline.epoch {
            return Err(Error::BadInput(format!(
                "epoch {epoch} fences nobody off: the log's own is {}",
                timeline.epoch
            )));
        }
        if !was_replica {
            core.fence(epoch);
        }
        let kept = match core.wal.promise(epoch, &timeline.history) {
            // Another's word has come in between.
            Err(seawall_wal::Error::Fenced { .. }) => Ok(()),
            kept => kept,
        };
        // A replica may have been promoted meanwhile: in this epoch or a later one it is fenced off by others alone.
        if was_replica && core.wal.timeline().epoch < epoch {
            core.fence(epoch);
        }
        Ok(kept?)
    }

    /// The epoch that has fenced this store off, if one has.
    pub fn fenced(&self) -> Option<u64> {
        self.core().sequencer.fenced()
    }

    /// By an operator's word, commits go on without replicas, or wait for them again. What waits now becomes visible. Nothing
    /// but this ever lets a commit go on with less than it asked for.
    ///
    /// ```
    /// # use seawall_engine::{Ack, Db};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).segment_bytes(256 << 10).ack(Ack::Durable).open()?;
    /// db.shipping().degrade(true); // the only replica is gone, and will not be back soon
    /// db.keyspace("rows")?.insert("a", "1")?;
    /// assert!(db.stats().is_degraded);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn degrade(&self, on: bool) {
        let core = self.core();
        if core.sequencer.gate.degrade(on) {
            core.tell(Event::Degraded { on });
            core.sequencer.advance();
        }
    }

    /// Whether commits go on without replicas.
    pub fn is_degraded(&self) -> bool {
        self.core().sequencer.gate.is_degraded()
    }
}

impl std::fmt::Debug for Shipping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shipping")
            .field("is_replica", &self.is_replica())
            .field("visible", &self.visible())
            .finish_non_exhaustive()
    }
}

impl Db {
    /// The store as one that ships its log, or gets another's.
    pub fn shipping(&self) -> Shipping {
        Shipping(Arc::clone(self.handle()))
    }

    /// After `CommitUnknown { lsn }` because replicas did not confirm a commit in time: waits on for it. True once it is
    /// visible, as far on as it asked for; false when the time is over once more.
    ///
    /// ```
    /// # use seawall_engine::{Ack, Db, Error};
    /// # use std::time::Duration;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// # let db = Db::builder("/store").disk(disk).segment_bytes(256 << 10);
    /// # let db = db.ack(Ack::Durable).ack_timeout(Duration::from_millis(1)).open()?;
    /// let Err(Error::CommitUnknown { lsn }) = db.keyspace("rows") else { unreachable!() };
    /// assert!(!db.await_commit(lsn, Duration::from_millis(1))?, "there are no replicas");
    /// # db.shipping().degrade(true);
    /// # assert!(db.await_commit(lsn, Duration::from_millis(1))?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// `Closed`; `Poisoned`, `Fenced`: it will not become visible here, and reopening decides.
    pub fn await_commit(&self, lsn: Lsn, timeout: Duration) -> Result<bool> {
        self.core().check_open()?;
        self.core().sequencer.await_visible(|visible| visible > lsn, timeout)
    }
}
