//! Prepared transactions in the history: what each will do, what nobody may do meanwhile, and how it ends.
//!
//! A vote and an outcome are commits in the one order, so after a crash what is in doubt follows from the same n as the
//! rows do: a branch *must* be prepared if its vote is promised and no promised outcome stands behind it, and what was in
//! flight may be either.

use super::model::Change;
use seawall_engine::{Heuristic, Xid};
use std::collections::BTreeMap;
use std::ops::RangeBounds;

pub(super) type Branches = BTreeMap<Xid, Branch>;

/// A transaction that has voted.
#[derive(Clone, Debug, Default)]
pub(super) struct Branch {
    /// What its commit does.
    pub(super) changes: Vec<Change>,
    /// Rows that it has read and counts on.
    pub(super) reads: Vec<(String, Vec<u8>)>,
    /// How an operator has ended it.
    pub(super) ended: Option<Heuristic>,
}

/// What can be asked for, of one that is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Commit,
    Rollback,
    Complete(Heuristic),
    Forget,
}

impl Ending {
    pub(super) fn applies(self) -> bool {
        matches!(self, Ending::Commit | Ending::Complete(Heuristic::Committed))
    }

    /// What is kept of it.
    pub(super) fn apply(self, xid: &Xid, branches: &mut Branches) {
        match (self, branches.get_mut(xid)) {
            (Ending::Complete(outcome), Some(branch)) if branch.ended.is_none() => {
                *branch = Branch { ended: Some(outcome), ..Branch::default() };
            }
            (Ending::Commit | Ending::Rollback, Some(branch)) if branch.ended.is_none() => {
                branches.remove(xid);
            }
            (Ending::Forget, Some(branch)) if branch.ended.is_some() => drop(branches.remove(xid)),
            _ => {}
        }
    }
}

impl Branch {
    /// Whether nobody may make this change before the outcome. Says no where that takes more than a look to tell.
    pub(super) fn forbids(&self, change: &Change) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let is_own = |name: &str| {
            let is_made = |own: &Change| matches!(own, Change::Create(n) | Change::Drop(n) if n == name);
            self.changes.iter().any(is_made)
        };
        let reads = |name: &str, is_meant: &dyn Fn(&Vec<u8>) -> bool| {
            self.reads.iter().any(|(read, key)| read == name && is_meant(key))
        };
        match change {
            Change::Row(name, key, _) => {
                !is_own(name) && (self.writes(name, key, true) || reads(name, &|read| read == key))
            }
            Change::Add(name, key, _) => {
                !is_own(name) && (self.writes(name, key, false) || reads(name, &|read| read == key))
            }
            Change::Clear(name, range) => {
                let writes = self.changes.iter().any(|own| match own {
                    Change::Row(n, key, _) | Change::Add(n, key, _) => n == name && range.contains(key),
                    _ => false,
                });
                !is_own(name) && (writes || reads(name, &|read| range.contains(read)))
            }
            Change::Drop(name) => {
                let writes =
                    |own: &Change| matches!(own, Change::Row(n, ..) | Change::Add(n, ..) if n == name);
                !is_own(name) && self.changes.iter().any(writes)
            }
            _ => false,
        }
    }

    fn writes(&self, name: &str, key: &Vec<u8>, adds_count: bool) -> bool {
        self.changes.iter().any(|own| match own {
            Change::Row(n, row, _) => n == name && row == key,
            Change::Add(n, row, _) => adds_count && n == name && row == key,
            Change::Clear(n, range) => n == name && range.contains(key),
            _ => false,
        })
    }
}
