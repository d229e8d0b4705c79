//! Votes, outcomes, and what nobody may do between the two.

use super::{Client, Failed};
use crate::torture::engine::branches::{Branch, Ending};
use crate::torture::engine::compare::STREAMED_MIN;
use crate::torture::engine::model::Change;
use seawall_engine::{
    Durability, Error, Heuristic, Isolation, Lsn, Prepared, Readable, Transaction, TxOptions, Vote, Xid,
};

/// So many may be in doubt: others must get on too.
const BRANCHES_MAX: usize = 5;

impl Client {
    /// Commits, or only votes.
    pub(super) fn end(
        &mut self,
        tx: Transaction,
        changes: Vec<Change>,
        durability: Durability,
    ) -> Result<(), Failed> {
        if self.rng.chance(1, 6) && self.history().branches.len() < BRANCHES_MAX {
            return self.prepare(tx, changes, Vec::new());
        }
        let committed = tx.commit();
        self.told(committed, changes, durability)
    }

    /// What is in doubt forbids none of it.
    pub(super) fn check_allowed(&self, changes: &[Change]) -> Result<(), Failed> {
        if self.threads {
            return Ok(());
        }
        let history = self.history();
        for (xid, branch) in &history.branches {
            for (at, change) in changes.iter().enumerate() {
                // Behind that a keyspace of this name is another one.
                let is_new = changes.iter().take(at).any(|before| match (before, change) {
                    (Change::Create(new) | Change::Drop(new), Change::Row(name, ..))
                    | (Change::Create(new) | Change::Drop(new), Change::Add(name, ..))
                    | (Change::Create(new) | Change::Drop(new), Change::Clear(name, ..)) => new == name,
                    _ => false,
                });
                if !is_new && branch.forbids(change) {
                    return Err(Failed::Wrong(format!(
                        "a commit went past what {xid} has prepared: {change:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn named(&self) -> Result<Xid, Error> {
        let mut history = self.history();
        history.branches_named += 1;
        Xid::new(7, history.branches_named.to_string(), "torture")
    }

    pub(super) fn prepare(
        &mut self,
        tx: Transaction,
        changes: Vec<Change>,
        reads: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Failed> {
        let xid = self.named()?;
        let is_large =
            |change: &Change| matches!(change, Change::Row(_, _, Some(v)) if v.len() >= STREAMED_MIN);
        let has_large = changes.iter().any(is_large);
        let branch = Box::new(Branch { changes, reads, ended: None });
        let prepared = match tx.prepare(xid.clone()) {
            Ok(Vote::Prepared(prepared)) => prepared,
            // What it did came to nothing.
            Ok(Vote::ReadOnly(_)) => return Ok(()),
            Err(Error::CommitUnknown { lsn }) => {
                self.history().attempt(Some(lsn), vec![Change::Prepare(xid, branch)]);
                return Err(Error::CommitUnknown { lsn }.into());
            }
            Err(error) => return Err(error.into()),
        };
        self.check_allowed(&branch.changes)?;
        let makes_keyspace = branch.changes.iter().any(|change| matches!(change, Change::Create(_)));
        let lsn = self.history().attempt(Some(prepared.placed_at()), vec![Change::Prepare(xid, branch)]);
        self.history().promise(lsn, Durability::Synced);
        self.hit("prepared");
        if has_large {
            self.hit("prepared with streamed values");
        }
        if makes_keyspace {
            self.hit("keyspace made by a prepared transaction");
        }
        if self.rng.chance(1, 3) { self.decide(&prepared) } else { Ok(()) }
    }

    /// One that counts on what it has read.
    pub(super) fn prepare_with_reads(&mut self) -> Result<(), Failed> {
        if self.history().branches.len() >= BRANCHES_MAX {
            return self.outcome();
        }
        let (ks, acts) = (self.keyspace()?, self.acts()?);
        let isolation = if self.rng.chance(1, 4) { Isolation::Snapshot } else { Isolation::Serializable };
        let mut tx = self.db.begin_with(TxOptions { isolation: Some(isolation), ..TxOptions::default() });
        let (mut reads, mut changes) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.below(3) {
            let key = format!("key-{:03}", self.rng.below(60)).into_bytes();
            let found = tx.get(&ks, &key)?.map(|value| value.to_vec());
            changes.push(Change::Saw(ks.name().to_owned(), key.clone(), found));
            reads.push((ks.name().to_owned(), key));
        }
        if isolation == Isolation::Snapshot {
            (reads, changes) = (Vec::new(), Vec::new());
        }
        for (ks, act) in acts.into_iter().take(3) {
            self.act(&mut tx, &ks, &act)?;
            changes.push(act.change(&ks));
        }
        // Its own writes may stand over what it saw.
        let saw = changes.iter().filter(|change| matches!(change, Change::Saw(..))).count();
        self.runtime.yield_point();
        self.prepare(tx, changes, reads)?;
        if saw > 0 {
            self.hit("prepared with what it has read");
        }
        Ok(())
    }

    /// Somebody decides about something that is in doubt, or was ended by an operator.
    pub(super) fn outcome(&mut self) -> Result<(), Failed> {
        let found: Vec<Prepared> = self.db.prepared().chain(self.db.heuristics()).collect();
        match found.get(self.rng.below(found.len().max(1) as u64) as usize) {
            Some(prepared) => self.decide(prepared),
            None => Ok(()),
        }
    }

    fn decide(&mut self, prepared: &Prepared) -> Result<(), Failed> {
        if let Some(outcome) = prepared.heuristic() {
            return self.after_the_operator(prepared, outcome);
        }
        let drawn = match self.rng.below(10) {
            0..4 => Ending::Commit,
            4..8 => Ending::Rollback,
            at => Ending::Complete(
                [Heuristic::Committed, Heuristic::RolledBack, Heuristic::Mixed, Heuristic::Hazard]
                    [(at + self.rng.below(4)) as usize % 4],
            ),
        };
        let xid = prepared.xid().clone();
        let before = self.history().decided.get(&xid).copied();
        let ending = before.unwrap_or(drawn);
        self.history().decided.insert(xid.clone(), ending);
        let ended = self.ended(prepared, ending);
        let changes = vec![Change::End(xid.clone(), ending)];
        match ended {
            Ok(lsn) => {
                let durability =
                    if ending == Ending::Rollback { Durability::Memory } else { Durability::Synced };
                let lsn = self.history().attempt(Some(lsn), changes);
                self.history().promise(lsn, durability);
                if before.is_some() {
                    self.hit("outcome asked for again");
                }
                self.hit(match ending {
                    Ending::Commit => "prepared committed",
                    Ending::Rollback => "prepared rolled back",
                    _ => "heuristic outcome",
                });
                if self.rng.chance(1, 3) { self.decide_again(prepared, ending, lsn) } else { Ok(()) }
            }
            Err(Error::CommitUnknown { lsn }) => {
                self.history().attempt(Some(lsn), changes);
                Err(Error::CommitUnknown { lsn }.into())
            }
            // Another thread was quicker.
            Err(Error::XidFinished { .. } | Error::Heuristic { .. }) if self.threads => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn ended(&self, prepared: &Prepared, ending: Ending) -> Result<Lsn, Error> {
        match ending {
            Ending::Commit => prepared.commit(),
            Ending::Rollback => prepared.rollback(),
            Ending::Complete(outcome) => prepared.complete(outcome),
            Ending::Forget => prepared.forget().map(|()| Lsn::ZERO),
        }
    }

    /// The same once more is the same answer, the opposite is none.
    fn decide_again(&mut self, prepared: &Prepared, ending: Ending, lsn: Lsn) -> Result<(), Failed> {
        let again = self.ended(prepared, ending)?;
        if again != lsn {
            return Err(Failed::Wrong(format!(
                "{ending:?} of {} at {lsn}, and again at {again}",
                prepared.xid()
            )));
        }
        let opposite = if ending.applies() { Ending::Rollback } else { Ending::Commit };
        match self.ended(prepared, opposite) {
            Err(Error::XidFinished { .. } | Error::Heuristic { .. }) => {
                self.hit("opposite outcome refused");
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(_) => Err(Failed::Wrong(format!("{ending:?} of {}, and the opposite", prepared.xid()))),
        }
    }

    /// A decision that comes after all is answered by what the operator did, until that is forgotten.
    fn after_the_operator(&mut self, prepared: &Prepared, outcome: Heuristic) -> Result<(), Failed> {
        let agrees = match prepared.commit() {
            Ok(_) => outcome == Heuristic::Committed,
            Err(Error::Heuristic { outcome: said, .. }) => said == outcome && outcome != Heuristic::Committed,
            Err(_) => true,
        };
        if !agrees {
            return Err(Failed::Wrong(format!(
                "{} ended {outcome}, which a commit does not say",
                prepared.xid()
            )));
        }
        // Where it stands is not told: with several threads the model could not say.
        if self.threads {
            return Ok(());
        }
        let changes = vec![Change::End(prepared.xid().clone(), Ending::Forget)];
        match prepared.forget() {
            Ok(()) => {
                let lsn = self.history().attempt(None, changes);
                self.history().promise(lsn, Durability::Synced);
                self.hit("heuristic outcome forgotten");
                Ok(())
            }
            Err(Error::CommitUnknown { lsn }) => {
                self.history().attempt(Some(lsn), changes);
                Err(Error::CommitUnknown { lsn }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whoever would write what is promised is refused; a name that is taken is not given again.
    pub(super) fn probe(&mut self) -> Result<(), Failed> {
        if self.threads {
            return Ok(());
        }
        let mut wanted = Vec::new();
        for (xid, branch) in &self.history().branches {
            let written = branch.changes.iter().filter_map(|change| match change {
                Change::Row(name, key, _) | Change::Add(name, key, _) => Some((name.clone(), key.clone())),
                _ => None,
            });
            for (name, key) in written.chain(branch.reads.iter().cloned()) {
                let change = Change::Row(name.clone(), key.clone(), Some(b"never".to_vec()));
                if branch.forbids(&change) {
                    wanted.push((xid.clone(), name, key));
                }
            }
        }
        for (xid, name, key) in wanted {
            let Some(ks) = self.db.open_keyspace(&name)? else {
                return Err(Failed::Wrong(format!("{xid} writes into {name}, which is gone")));
            };
            match ks.insert(&key, b"never") {
                Err(Error::PreparedConflict { .. }) => self.hit("refused for what is prepared"),
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    return Err(Failed::Wrong(format!(
                        "{name}/{} is written over {xid}",
                        key.escape_ascii()
                    )));
                }
            }
            if self.rng.chance(1, 4) {
                let mut tx = self.db.begin();
                tx.insert(&ks, b"beside", b"never")?;
                match tx.prepare(xid.clone()) {
                    Err(Error::XidDuplicate { .. }) => self.hit("xid given twice refused"),
                    Err(error) => return Err(error.into()),
                    Ok(_) => return Err(Failed::Wrong(format!("{xid} is prepared twice"))),
                }
            }
        }
        Ok(())
    }
}
