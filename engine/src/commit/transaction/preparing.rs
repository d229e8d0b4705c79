//! The first of two phases; and what reads do about transactions that are between the two.

use super::{LOCK_TIMEOUT_DEFAULT, Transaction, contains};
use crate::commit::pending::Pending;
use crate::commit::prepared::branch::{Ending, Fate};
use crate::commit::prepared::{Prepared, Vote};
use crate::commit::ticket::Ticket;
use crate::commit::validate::Seen;
use crate::cover::Span;
use crate::key::OwnedRange;
use crate::keyspace::Life;
use crate::options::OnPrepared;
use crate::{Error, KeyRange, Result, Xid};
use std::ops::Bound;
use std::sync::Arc;

impl Transaction {
    /// The first phase: validates the transaction as its commit would, and makes it durable without making it visible. From
    /// here on its commit cannot fail for anything that others do: who would write what it writes, or what it has read
    /// (if it is serializable), gets `PreparedConflict` until the outcome is known, across crashes too. One that wrote
    /// nothing is over with its vote, and forces nothing.
    ///
    /// Whoever coordinates gives the outcome by [`Prepared::commit`] or [`Prepared::rollback`]; with a single store there is
    /// nothing to coordinate: [`commit`](Transaction::commit) is the one-phase commit.
    ///
    /// Each store is serializable by itself. Across several, one that has only read gives its protection up with its vote:
    /// its reads are validated then, and may be overwritten before the others vote.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # use seawall_engine::{Db, Vote, Xid};
    /// # let (here, there) = (Db::open("here")?, Db::open("there")?);
    /// # let (from, to) = (here.keyspace("money")?, there.keyspace("money")?);
    /// let (mut a, mut b) = (here.begin(), there.begin());
    /// a.add_i64(&from, "ada", -10)?;
    /// b.add_i64(&to, "bob", 10)?;
    /// let a = a.prepare(Xid::new(1, "transfer 8", "here")?)?;
    /// let b = b.prepare(Xid::new(1, "transfer 8", "there")?);
    /// // The decision must be durable somewhere before the first store is told.
    /// if let (Vote::Prepared(a), Ok(Vote::Prepared(b))) = (&a, &b) {
    ///     a.commit()?;
    ///     b.commit()?;
    /// } else if let Vote::Prepared(a) = &a {
    ///     a.rollback()?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The vote is no: `Conflict`, `Deadlock`, `PreparedConflict`, `XidDuplicate`, `TooLarge` (also if too much is prepared
    /// already), and as [`commit`](Transaction::commit): nothing happened. `CommitUnknown`: it may or may not be
    /// prepared; reopen the store and look for it by [`Db::prepared_by`](crate::Db::prepared_by).
    pub fn prepare(self, xid: Xid) -> Result<Vote> {
        let core = Arc::clone(self.core());
        let (vote, pending) = self.place_vote(xid)?;
        if let Some(pending) = pending {
            core.await_vote(&pending)?;
        }
        Ok(vote)
    }

    /// As [`prepare`](Transaction::prepare), and returns as soon as the vote has its place: it counts, and may be told, once
    /// the ticket resolves. Votes that are on their way together share a flush.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # use seawall_engine::{Db, Vote, Xid};
    /// # let db = Db::open("store")?;
    /// let (vote, ticket) = db.begin().prepare_pipelined(Xid::new(1, "transfer 8", "store a")?)?;
    /// ticket.on_done(move |done| match (done, vote) {
    ///     (Ok(_), Vote::Prepared(prepared)) => println!("{} will commit if it is told to", prepared.xid()),
    ///     (Ok(_), Vote::ReadOnly(_)) => println!("nothing to commit"),
    ///     (Err(error), _) => println!("whether it is prepared is not known: {error}"),
    /// });
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`prepare`](Transaction::prepare); `CommitUnknown` comes from the ticket.
    pub fn prepare_pipelined(self, xid: Xid) -> Result<(Vote, Ticket)> {
        let core = Arc::clone(self.core());
        let (vote, pending) = self.place_vote(xid)?;
        let ticket = match (&vote, pending) {
            (_, Some(pending)) => core.ticket(pending, None),
            (Vote::ReadOnly(lsn), None) => Ticket::nothing(*lsn),
            (Vote::Prepared(prepared), None) => Ticket::nothing(prepared.lsn()),
        };
        Ok((vote, ticket))
    }

    fn place_vote(mut self, xid: Xid) -> Result<(Vote, Option<Arc<Pending>>)> {
        let core = Arc::clone(self.core());
        core.check_open()?;
        self.check_doom()?;
        let set = self.encode();
        self.snapshot.check_age()?;
        let (reads, touched) = (self.close_reads(), self.touched_lives());
        let snapshot = self.snapshot.lsn();
        let seen = Seen { snapshot, reads: &reads };
        if set.is_empty() {
            core.sequencer.check_reads(seen)?;
            return Ok((Vote::ReadOnly(snapshot), None));
        }
        let (branch, pending) =
            core.prepare(xid, set, &touched, seen, self.is_serializable, self.reach.ack)?;
        *branch.locks.lock() = self.locks.take();
        Ok((Vote::Prepared(Prepared::new(Arc::clone(&self.handle), branch)), Some(pending)))
    }

    /// As the transaction has chosen, of rows that a prepared one will change if it commits.
    fn mind(&self, life: &Arc<Life>, span: impl FnOnce() -> Option<Span>, how: OnPrepared) -> Result<()> {
        let sequencer = &self.core().sequencer;
        if how == OnPrepared::LastCommitted
            || contains(&self.created, life)
            || sequencer.prepared_size().0 == 0
        {
            return Ok(());
        }
        let Some(span) = span() else { return Ok(()) };
        while let Some(branch) = sequencer.prepared_writer(life.id(), &span) {
            let in_the_way = || Error::PreparedConflict { xid: branch.xid.clone() };
            let limit = self.lock_timeout.unwrap_or(LOCK_TIMEOUT_DEFAULT);
            if how == OnPrepared::Conflict || !sequencer.wait_for_outcome(&branch, limit) {
                return Err(in_the_way());
            }
            let ending = match &*branch.fate.lock() {
                Fate::Open => return Err(in_the_way()),
                Fate::Deciding(_, ending) | Fate::Done(_, ending) => *ending,
            };
            // Its commit stands behind this snapshot.
            if ending.applies() || matches!(ending, Ending::Forget) {
                return Err(Error::Conflict);
            }
        }
        Ok(())
    }

    pub(super) fn mind_row(&self, life: &Arc<Life>, key: &[u8]) -> Result<()> {
        self.mind(life, || Span::new(Bound::Included(key), Bound::Included(key)), self.on_prepared)
    }

    /// For who wants the newest version.
    pub(super) fn mind_newest(&self, life: &Arc<Life>, key: &[u8]) -> Result<()> {
        let how = match self.on_prepared {
            OnPrepared::LastCommitted => OnPrepared::Conflict,
            how => how,
        };
        self.mind(life, || Span::new(Bound::Included(key), Bound::Included(key)), how)
    }

    pub(super) fn mind_range(&self, life: &Arc<Life>, range: &impl KeyRange) -> Result<()> {
        let (from, to) = range.bounds();
        self.mind(life, || Span::new(from, to), self.on_prepared)
    }

    pub(super) fn mind_prefix(&self, life: &Arc<Life>, prefix: &[u8]) -> Result<()> {
        let OwnedRange { from, to } = OwnedRange::prefix(prefix);
        let span = || Span::new(from.as_ref().map(|key| &**key), to.as_ref().map(|key| &**key));
        self.mind(life, span, self.on_prepared)
    }
}
