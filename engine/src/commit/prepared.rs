//! A store as one of several that commit a transaction together: it votes, waits for the outcome, and obeys.
//!
//! ```text
//!                   prepare                      commit, rollback
//! transaction ──┬───────────► open (in doubt) ──┬─────────────────► gone
//!               │ nothing written               │ an operator: complete
//!               └───────────► read-only         └─────────────────► ended ──forget──► gone
//! ```
//!
//! Verbs and outcomes are XA's. A vote is a commit in the one order of commits, of a row in a keyspace of its own: xid →
//! what was read and what will be written. An outcome removes the row and, in the same record, makes the writes. So what
//! holds for rows holds for what is prepared: a crash leaves it or not, a checkpoint carries it, replay does it once, a
//! copy has it, and the log is free of it once it is in the tree. A rolled back transaction leaves nothing. What is more
//! than a row is in memory alone: the [`Table`](table::Table) of what others must not change meanwhile, which recovery
//! makes again from the rows.
//!
//! *Streamed values.* The row names their extents, which belong to no tree until the commit (S4): while it is in doubt they
//! stay set aside, after a crash because recovery goes through the rows before it allocates anything, and through the votes
//! in the log. A commit's record names them as any commit's does. A rollback gives them up: the checkpoint that has it
//! buries them, so they are used again only when no crash can bring the row back.
//!
//! *Forced writes.* The vote 1, the commit 1, the rollback 0 (presumed abort: lost in a crash, the coordinator, which knows
//! nothing of the transaction either, asks for it again), read-only 0. The writes go into the log twice, with the vote
//! and with the commit; in exchange a commit's record is complete: whoever reads the log, from wherever, needs no vote
//! that stands far behind.

use crate::commit::gate::{Ack, Reach};
use crate::commit::pending::Pending;
use crate::commit::ticket::Ticket;
use crate::commit::validate::Seen;
use crate::db::{Core, Db, Handle};
use crate::keyspace::Life;
use crate::mutation::Mutation;
use crate::read::scan::Own;
use crate::record::{
    BRANCHES, BranchRow, Builder, CatalogueRow, Completion, KeyspaceOptions, PreparedRow, WriteSet,
};
use crate::stats::Event;
use crate::sync::Ordering;
use crate::{Error, Result, Scan, Xid};
use seawall_wal::{Durability, Lsn};
use std::sync::Arc;
use std::time::Duration;

pub(crate) mod branch;
mod marks;
pub(crate) mod roster;
pub(crate) mod table;

pub use branch::Heuristic;
use branch::{Branch, Ending, Fate};

/// So many are listed at a time.
const PAGE: usize = 64;
/// What the outcome adds to a record.
const OUTCOME_BYTES_MAX: usize = 256;

/// What a store answers to [`Transaction::prepare`](crate::Transaction::prepare).
///
/// ```no_run
/// # fn main() -> seawall_engine::Result<()> {
/// # use seawall_engine::{Db, Vote, Xid};
/// # let db = Db::open("store")?;
/// match db.begin().prepare(Xid::new(1, "transfer 8", "store a")?)? {
///     Vote::Prepared(prepared) => println!("{} will commit if it is told to", prepared.xid()),
///     Vote::ReadOnly(lsn) => println!("nothing to commit: it read the store as of {lsn}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub enum Vote {
    /// Yes: it can commit, whatever happens, and waits for the outcome.
    Prepared(Prepared),
    /// It wrote nothing; it is over, and needs no outcome. It has read the store as of this position.
    ReadOnly(Lsn),
}

/// A prepared transaction: a handle, not the transaction. Dropping it changes nothing; [`Db::prepared`] and
/// [`Db::prepared_by`] give it again, also after a crash. It keeps the store open.
///
/// Outcomes may be asked for again and again, from any thread: the same one once more is the same answer, another one
/// an error.
///
/// ```no_run
/// # fn main() -> seawall_engine::Result<()> {
/// # let db = seawall_engine::Db::open("store")?;
/// # let has_decided_to_commit = |_: &seawall_engine::Xid| true;
/// // After a crash: ask whoever knows.
/// for prepared in db.prepared() {
///     if has_decided_to_commit(prepared.xid()) {
///         prepared.commit()?;
///     } else {
///         prepared.rollback()?;
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Prepared {
    handle: Arc<Handle>,
    branch: Arc<Branch>,
}

impl Prepared {
    pub(crate) fn new(handle: Arc<Handle>, branch: Arc<Branch>) -> Prepared {
        Prepared { handle, branch }
    }

    /// Its name.
    pub fn xid(&self) -> &Xid {
        &self.branch.xid
    }

    /// For how long it has been prepared, by the wall clock, reopenings included.
    pub fn age(&self) -> Duration {
        self.branch.age(self.core())
    }

    /// Its vote stands in the log at this position or behind.
    pub fn lsn(&self) -> Lsn {
        self.branch.lsn
    }

    /// Its number among the store's prepared transactions, reopenings included: no two that are there have the same, and
    /// [`Db::prepared`] and [`Db::heuristics`] list by it, ascending. So it says where a list that was broken off goes on.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let (db, last_seen) = (seawall_engine::Db::open("store")?, 0);
    /// let next_page = db.prepared().filter(|prepared| prepared.serial() > last_seen).take(10);
    /// # Ok(()) }
    /// ```
    pub fn serial(&self) -> u64 {
        self.branch.serial
    }

    /// Where its vote stands, if it was given in this life of the store; tests order votes by it.
    #[doc(hidden)]
    pub fn placed_at(&self) -> Lsn {
        self.branch.placed_at()
    }

    /// Bytes that it takes in the store until its end: its writes, what it has read, and their keys; of streamed values, what
    /// names their extents. It holds no log back once a checkpoint has passed.
    pub fn pinned_bytes(&self) -> u64 {
        self.branch.bytes
    }

    /// How many keys and ranges nobody may write until its end: those that it writes, and those that it has read and
    /// counts on.
    pub fn locked_keys(&self) -> u64 {
        let branch = &self.branch;
        let written = branch.set.rows().len() + branch.set.removed().len();
        let read = branch.reads.points().count() + branch.reads.spans().count();
        (written + read) as u64
    }

    /// How an operator has ended it, if one has, and it is not forgotten.
    pub fn heuristic(&self) -> Option<Heuristic> {
        match &*self.branch.fate.lock() {
            Fate::Done(_, Ending::Heuristic(heuristic)) => Some(*heuristic),
            _ => None,
        }
    }

    /// Makes its writes durable and visible, at the position that is returned. Cannot conflict.
    ///
    /// # Errors
    /// `XidFinished` if it was rolled back; `Heuristic` if an operator ended it otherwise. `NoSpace`, `Poisoned`, `Closed`,
    /// `ReadOnly`: it is still prepared; try again. `CommitUnknown`: reopen the store; if [`Db::prepared_by`] finds it,
    /// try again, and if not, it is committed.
    pub fn commit(&self) -> Result<Lsn> {
        self.end(Ending::Commit)
    }

    /// Forgets its writes. Returns when nobody has to respect it any more, without a forced write: after a crash it may be
    /// there again, to be rolled back again.
    ///
    /// # Errors
    /// As [`commit`](Prepared::commit), the other way round.
    pub fn rollback(&self) -> Result<Lsn> {
        self.end(Ending::Rollback)
    }

    /// An operator ends it without its coordinator, who may decide otherwise: other stores may then have done the opposite.
    /// That it was so is kept, durably, until [`forget`](Prepared::forget), and a decision that comes after all is
    /// answered by it.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # use seawall_engine::{Db, Error, Heuristic};
    /// # let db = Db::open("store")?;
    /// if let Some(prepared) = db.prepared_by(&"1.6f72646572.00".parse()?)? {
    ///     prepared.complete(Heuristic::RolledBack)?;
    ///     assert!(matches!(prepared.commit(), Err(Error::Heuristic { outcome: Heuristic::RolledBack, .. })));
    ///     prepared.forget()?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Prepared::commit).
    pub fn complete(&self, outcome: Heuristic) -> Result<Lsn> {
        self.end(Ending::Heuristic(outcome))
    }

    /// That an operator has ended it is known to whom it concerns, and kept no longer.
    ///
    /// # Errors
    /// `BadInput` if no operator has ended it; as [`commit`](Prepared::commit).
    pub fn forget(&self) -> Result<()> {
        self.end(Ending::Forget).map(drop)
    }

    fn core(&self) -> &Arc<Core> {
        self.handle.core()
    }

    /// As [`commit`](Prepared::commit), and returns at once: the commit is visible, and as durable as it is asked to be, when
    /// the ticket resolves. With less than `Synced` a crash may take it back: the transaction is then in doubt again, as it
    /// was before, so a coordinator may forget only what is on the device.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # use seawall_engine::Durability;
    /// # let db = seawall_engine::Db::open("store")?;
    /// let endings = db.prepared().map(|prepared| prepared.commit_pipelined(Durability::Memory));
    /// for ticket in endings.collect::<Vec<_>>() {
    ///     ticket?.wait()?;
    /// }
    /// db.sync()?; // one flush for all of them
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Prepared::commit); `CommitUnknown` comes from the ticket.
    pub fn commit_pipelined(&self, durability: Durability) -> Result<Ticket> {
        self.end_pipelined(Ending::Commit, self.core().options.reach_at(durability))
    }

    /// As [`rollback`](Prepared::rollback), and returns at once. No forced write.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::open("store")?;
    /// for prepared in db.prepared() {
    ///     prepared.rollback_pipelined()?.wait()?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`rollback`](Prepared::rollback).
    pub fn rollback_pipelined(&self) -> Result<Ticket> {
        self.end_pipelined(Ending::Rollback, Reach::local(Durability::Memory))
    }

    fn end_pipelined(&self, wanted: Ending, reach: Reach) -> Result<Ticket> {
        let core = self.core();
        core.check_open()?;
        if matches!(&*self.branch.fate.lock(), Fate::Open) {
            if reach.durability != Durability::Synced {
                // Before anybody can find the outcome. If another is quicker after all, someone syncs once too often.
                self.branch.is_lazy.store(true, Ordering::SeqCst);
            }
            match core.place_outcome(&self.branch, wanted, reach) {
                Ok(pending) => {
                    core.counters.note_outcome(wanted.applies());
                    let locks = self.branch.locks.lock().take();
                    return Ok(core.ticket(pending, locks));
                }
                // Another was quicker.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        self.end(wanted).map(Ticket::nothing)
    }

    fn end(&self, wanted: Ending) -> Result<Lsn> {
        let core = self.core();
        core.check_open()?;
        // Presumed abort: nobody has to know of a rollback after a crash.
        let reach = match wanted {
            Ending::Rollback => Reach::local(Durability::Memory),
            _ => core.options.reach_at(Durability::Synced),
        };
        loop {
            let fate = self.branch.fate.lock().clone();
            let has = match &fate {
                Fate::Open if wanted == Ending::Forget => {
                    return Err(Error::BadInput(format!(
                        "{} is in doubt: only what an operator ended is forgotten",
                        self.xid()
                    )));
                }
                Fate::Open => None,
                Fate::Done(lsn, has) => Some((*lsn, *has)),
                Fate::Deciding(pending, has) => {
                    let ended = core.sequencer.wait(pending, None);
                    match ended.unwrap_or(Err(Error::CommitUnknown { lsn: pending.lsn() })) {
                        Ok(lsn) => {
                            self.branch.settle(pending, lsn, *has);
                            Some((lsn, *has))
                        }
                        // Withdrawn: it is open again.
                        Err(Error::Conflict) => continue,
                        Err(error) => {
                            core.note_failure();
                            return Err(error);
                        }
                    }
                }
            };
            let has = has.map(|(lsn, has)| match self.branch.forgotten.get() {
                Some(outcome) if has == Ending::Forget && wanted != has => (lsn, Ending::Heuristic(*outcome)),
                _ => (lsn, has),
            });
            match has {
                Some((lsn, has)) if has == wanted => {
                    if wanted == Ending::Commit && self.branch.is_lazy.load(Ordering::SeqCst) {
                        // Another was content with less.
                        core.log.sync().inspect_err(|error| core.poison(error))?;
                    }
                    return Ok(lsn);
                }
                Some((_, Ending::Heuristic(outcome))) if wanted == Ending::Forget => {
                    let _ = self.branch.forgotten.set(outcome);
                }
                Some((lsn, Ending::Heuristic(outcome))) => {
                    let agrees = match wanted {
                        Ending::Commit => outcome == Heuristic::Committed,
                        Ending::Rollback => outcome == Heuristic::RolledBack,
                        _ => false,
                    };
                    let xid = self.xid().clone();
                    return if agrees { Ok(lsn) } else { Err(Error::Heuristic { xid, outcome }) };
                }
                Some((_, has)) => {
                    return Err(Error::XidFinished { xid: self.xid().clone(), is_committed: has.applies() });
                }
                None => {}
            }
            match core.place_outcome(&self.branch, wanted, reach) {
                // Another was quicker.
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
                Ok(_) if wanted == Ending::Forget => {}
                Ok(_) => core.counters.note_outcome(wanted.applies()),
            }
        }
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("xid", self.xid()).finish_non_exhaustive()
    }
}

impl Branch {
    fn age(&self, core: &Core) -> Duration {
        Duration::from_micros(core.runtime.wall_clock_us().saturating_sub(self.time_us))
    }

    /// The outcome is visible.
    fn settle(&self, pending: &Arc<Pending>, lsn: Lsn, ending: Ending) {
        let mut fate = self.fate.lock();
        if matches!(&*fate, Fate::Deciding(other, _) if Arc::ptr_eq(other, pending)) {
            *fate = Fate::Done(lsn, ending);
            drop(fate);
            // The next holder of its rows sees what became of them.
            drop(self.locks.lock().take());
        }
    }
}

impl Core {
    /// Votes: validated, in its place, and kept until its outcome. It counts once it is visible.
    pub(crate) fn prepare(
        &self,
        xid: Xid,
        set: WriteSet,
        touched: &[Arc<Life>],
        seen: Seen<'_>,
        is_serializable: bool,
        ack: Ack,
    ) -> Result<(Arc<Branch>, Arc<Pending>)> {
        self.check_writable()?;
        let row = PreparedRow {
            serial: self.sequencer.next_serial(),
            lsn: self.log.next_lsn().0,
            time_us: self.runtime.wall_clock_us(),
            is_serializable,
            reads: seen.reads.clone(),
            set,
        };
        let mut builder = Builder::default();
        builder.prepare(&xid, &row);
        let bytes = builder.byte_len();
        let max = self.memory.transaction_max();
        if bytes.saturating_add(OUTCOME_BYTES_MAX) > max {
            return Err(crate::commit::batch::too_large(bytes, max));
        }
        let record = builder.finish();
        let branch = Arc::new(Branch::new(xid, row, bytes as u64));
        let durability =
            if self.options.has(Mutation::PrepareUnsynced) { Durability::Memory } else { Durability::Synced };
        let pending = self.place_prepare(&branch, record, touched, seen, Reach { durability, ack })?;
        Ok((branch, pending))
    }

    /// Returns once it is visible.
    pub(crate) fn await_vote(&self, pending: &Pending) -> Result<()> {
        let result = self.sequencer.wait(pending, None);
        result
            .unwrap_or(Err(Error::CommitUnknown { lsn: pending.lsn() }))
            .inspect_err(|_| self.note_failure())
            .map(drop)
    }

    /// An outcome takes its place. `Conflict` if there is one already.
    fn place_outcome(&self, branch: &Arc<Branch>, ending: Ending, reach: Reach) -> Result<Arc<Pending>> {
        self.check_writable()?;
        let (serial, time_us) = (branch.serial, self.runtime.wall_clock_us());
        let completion = Completion { outcome: ending.code(), serial, time_us };
        let mut builder = if ending.applies() { Builder::behind(&branch.set) } else { Builder::default() };
        if !(ending == Ending::Commit && self.options.has(Mutation::KeepPrepared)) {
            builder.outcome(&branch.xid, completion);
        }
        let mut record = builder.finish();
        if !ending.applies() && ending != Ending::Forget {
            // No tree will have them: the next checkpoint buries their extents.
            record = record.giving_up(branch.set.large());
        }
        self.place_ending(branch, record, ending, reach)
    }

    /// What is in doubt below `end` as the store is opened, or promoted: it is respected before anybody writes, and before it
    /// is shown.
    pub(crate) fn restore_branches(&self, end: Lsn) -> Result<()> {
        let row = CatalogueRow::new(BRANCHES, KeyspaceOptions::default());
        let life = self.catalogue.found(row, "");
        let snapshot = self.reads.snapshot_at(end, self.catalogue.instance());
        for found in Scan::range(&snapshot, &life, Own::none(), &..) {
            let (key, value) = found?;
            let xid = Xid::from_key(&key);
            let damaged = || Error::Corruption {
                file: self.data_path(),
                offset: 0,
                lsn: None,
                what: match &xid {
                    Some(xid) => format!("what is kept of the prepared transaction {xid} is damaged"),
                    None => "a prepared transaction's xid is damaged".into(),
                },
            };
            let (Some(xid), Some(row)) = (&xid, BranchRow::decode(&value)) else { return Err(damaged()) };
            match row {
                BranchRow::Prepared(row) => {
                    for (name, row) in row.set.creations() {
                        let name = std::str::from_utf8(name).map_err(|_| damaged())?;
                        self.catalogue.expected(CatalogueRow::decode(row).ok_or_else(damaged)?, name);
                    }
                    let bytes = (key.len() + value.len()) as u64;
                    self.sequencer.restore(Arc::new(Branch::new(xid.clone(), *row, bytes)));
                }
                BranchRow::Completed(completion) => {
                    let ending = Ending::of_code(completion.outcome).ok_or_else(damaged)?;
                    self.sequencer.restore(Arc::new(Branch::completed(xid.clone(), completion, ending)));
                }
            }
        }
        Ok(())
    }

    /// Tells, once each, of those that have been in doubt for too long.
    pub(crate) fn tell_of_old_branches(&self) {
        let mut from = 0;
        loop {
            let page = self.sequencer.branches(from, PAGE);
            let Some(last) = page.last() else { return };
            from = last.serial + 1;
            for branch in page.iter().filter(|branch| !branch.is_completed()) {
                let age = branch.age(self);
                if age >= self.options.prepared_age_max
                    && !branch.has_been_told_of.swap(true, Ordering::Relaxed)
                {
                    self.tell(Event::PreparedOld { xid: branch.xid.clone(), age });
                }
            }
        }
    }
}

impl Db {
    /// Prepared transactions whose outcome is open, oldest first: XA's `recover`. Some at a time; what is prepared or ends
    /// while this goes on may be in it or not.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::open("store")?;
    /// for prepared in db.prepared() {
    ///     println!("{} has been in doubt for {:?}", prepared.xid(), prepared.age());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn prepared(&self) -> Box<dyn Iterator<Item = Prepared> + Send> {
        self.branches(false)
    }

    /// Prepared transactions that an operator has ended, and that are not forgotten, oldest first.
    pub fn heuristics(&self) -> Box<dyn Iterator<Item = Prepared> + Send> {
        self.branches(true)
    }

    fn branches(&self, are_completed: bool) -> Box<dyn Iterator<Item = Prepared> + Send> {
        let handle = Arc::clone(self.handle());
        let (mut from, mut page) = (0, Vec::new().into_iter());
        Box::new(std::iter::from_fn(move || {
            loop {
                if let Some(branch) = page.find(|branch: &Arc<Branch>| branch.is_completed() == are_completed)
                {
                    return Some(Prepared { handle: Arc::clone(&handle), branch });
                }
                let next = handle.core().sequencer.branches(from, PAGE);
                from = next.last()?.serial + 1;
                page = next.into_iter();
            }
        }))
    }

    /// The prepared transaction of this name, if it is in doubt, or ended by an operator and not forgotten. None if it was
    /// never prepared here, or has its outcome.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::open("store")?;
    /// # let xid = seawall_engine::Xid::new(1, "a", "b")?;
    /// // Deciding once more does no harm: what is not found has its outcome already.
    /// if let Some(prepared) = db.prepared_by(&xid)? {
    ///     prepared.commit()?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Closed`.
    pub fn prepared_by(&self, xid: &Xid) -> Result<Option<Prepared>> {
        self.core().check_open()?;
        let branch = self.core().sequencer.branch(xid);
        Ok(branch.map(|branch| Prepared { handle: Arc::clone(self.handle()), branch }))
    }
}
