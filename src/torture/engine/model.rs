//! The history that an engine is compared with: commits in order, and which of them are promised.

use super::branches::{Branch, Branches, Ending};
use seawall_engine::{Error, Lsn, Xid};
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

/// A position before every commit.
const START: Lsn = Lsn::ZERO;

/// All keyspaces by name, all rows.
pub(super) type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What a store holds: rows that all may read, and transactions whose outcome is open or was an operator's.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) rows: Contents,
    pub(super) branches: Branches,
}

/// What one commit does.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Create(String),
    Drop(String),
    /// Keyspace, key, value; none removes.
    Row(String, Vec<u8>, Option<Vec<u8>>),
    /// Keyspace, and the range of its rows that goes.
    Clear(String, (Bound<Vec<u8>>, Bound<Vec<u8>>)),
    /// Keyspace, key, and what is added to its number.
    Add(String, Vec<u8>, i64),
    /// A transaction votes: nothing of it is to be seen yet.
    Prepare(Xid, Box<Branch>),
    /// A prepared transaction ends.
    End(Xid, Ending),
    /// The commit writes this row, and saw this value in it: whoever changed it in between would have been lost.
    Saw(String, Vec<u8>, Option<Vec<u8>>),
}

#[derive(Clone, Debug)]
struct Commit {
    /// Where it stands, if that is known: simulated threads commit in the log's order, a lone client in its own.
    lsn: Lsn,
    changes: Vec<Change>,
    /// Whether the engine has said that it counts: then it is visible.
    is_known: bool,
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// What every later recovery must show.
    base: State,
    /// What is prepared, or was ended by an operator, as far as the engine has said so.
    pub(super) branches: Branches,
    /// Outcomes that were asked for: after a crash they are asked for again.
    pub(super) decided: BTreeMap<Xid, Ending>,
    /// Numbers of transactions that were to be prepared.
    pub(super) branches_named: u64,
    commits: Vec<Commit>,
    /// Commits promised to survive a power cut, and a kill: counts from the front, or positions.
    durable: Lsn,
    written: Lsn,
    next: u64,
    pub(super) poisoned: bool,
    /// The outcome of a commit is open, or writes are refused.
    pub(super) has_failed: bool,
    pub(super) no_space: bool,
    pub(super) said: Vec<String>,
}

impl History {
    /// A commit that has its place, or may have.
    pub(super) fn attempt(&mut self, lsn: Option<Lsn>, changes: Vec<Change>) -> Lsn {
        // Without a place of its own it comes right behind the last.
        let last = self.commits.last().map_or(self.durable.max(START), |commit| commit.lsn);
        let lsn = lsn.unwrap_or(Lsn(last.0 + 1));
        self.next += 1;
        if super::super::is_tracing() {
            self.said.push(format!("commit at {lsn}: {}", describe(&changes)));
        }
        let at = self.commits.partition_point(|commit| commit.lsn < lsn);
        self.commits.insert(at, Commit { lsn, changes, is_known: false });
        lsn
    }

    /// The engine has said that the commit at `lsn` counts.
    fn known(&mut self, lsn: Lsn) {
        let History { commits, branches, .. } = self;
        if let Some(commit) = commits.iter_mut().rev().find(|commit| commit.lsn == lsn) {
            commit.is_known = true;
            for change in &commit.changes {
                match change {
                    Change::Prepare(xid, branch) => drop(branches.insert(xid.clone(), (**branch).clone())),
                    Change::End(xid, ending) => ending.apply(xid, branches),
                    _ => {}
                }
            }
        }
    }

    /// The commit at `lsn`, and all before it, will survive.
    pub(super) fn promise(&mut self, lsn: Lsn, durability: seawall_wal::Durability) {
        self.known(lsn);
        if durability >= seawall_wal::Durability::Written {
            self.written = self.written.max(Lsn(lsn.0 + 1));
        }
        if durability >= seawall_wal::Durability::Synced {
            self.durable = self.durable.max(Lsn(lsn.0 + 1));
        }
    }

    /// Everything attempted so far.
    pub(super) fn attempted(&self) -> Lsn {
        self.commits.last().map_or(START, |commit| Lsn(commit.lsn.0 + 1))
    }

    /// Everything before `end` will survive.
    pub(super) fn promise_all(&mut self, end: Lsn) {
        self.durable = self.durable.max(end);
        self.written = self.written.max(end);
    }

    /// The engine goes on after its log found no room: all that has its place counts, whatever was said of it.
    pub(super) fn went_on(&mut self) {
        self.commits.iter_mut().for_each(|commit| commit.is_known = true);
        self.promise_all(self.attempted());
        self.branches = self.now().branches;
        (self.poisoned, self.has_failed) = (false, false);
    }

    /// Whether something that is prepared is there to stay.
    pub(super) fn base_is_in_doubt(&self) -> bool {
        !self.base.branches.is_empty()
    }

    /// What was only written may be gone.
    pub(super) fn forget_written(&mut self) {
        self.written = self.durable;
    }

    /// The contents that are visible: after all commits that the engine has acknowledged.
    pub(super) fn now(&self) -> State {
        let mut state = self.base.clone();
        for commit in self.commits.iter().filter(|commit| commit.is_known) {
            apply(&mut state, &commit.changes);
        }
        state
    }

    /// Finds the n whose first commits gave this. They are the past from now on.
    pub(super) fn recovered(&mut self, found: &State) -> Result<(), String> {
        let promised = self.durable.max(self.written);
        let least = self.commits.partition_point(|commit| commit.lsn < promised);
        let mut state = self.base.clone();
        for commit in self.commits.iter().take(least) {
            if !apply(&mut state, &commit.changes) && commit.is_known {
                return Err(format!("an update is lost: {} at {}", describe(&commit.changes), commit.lsn));
            }
        }
        let mut n = least;
        let expected = state.clone();
        while !state.shows(found) {
            let Some(commit) = self.commits.get(n) else {
                return Err(format!(
                    "not the state after any n of {} commits, {least} of them promised; after those: {}",
                    self.commits.len(),
                    expected.difference(found)
                ));
            };
            apply(&mut state, &commit.changes);
            n += 1;
        }
        // Later commits may have changed nothing; those that did are gone.
        self.branches = state.branches.clone();
        self.base = state;
        self.commits.clear();
        Ok(())
    }

    /// An error that a fault may cause.
    pub(super) fn note(&mut self, error: &Error) -> Result<(), String> {
        match error {
            Error::NoSpace => self.no_space = true,
            Error::Poisoned(_) | Error::CommitUnknown { .. } | Error::Io { .. } => {
                self.poisoned = true;
                self.has_failed |= !matches!(error, Error::Io { .. });
                self.forget_written();
            }
            error => return Err(format!("a call failed with: {error}")),
        }
        Ok(())
    }
}

impl State {
    /// Whether a store in which all this was found is in this state.
    pub(super) fn shows(&self, found: &State) -> bool {
        let endings = |state: &State| -> Vec<_> {
            state.branches.iter().map(|(xid, branch)| (xid.clone(), branch.ended)).collect()
        };
        endings(self) == endings(found) && self.rows == found.rows
    }

    /// The first few differences, in words.
    pub(super) fn difference(&self, found: &State) -> String {
        let mut words = Vec::new();
        for xid in self.branches.keys().chain(found.branches.keys()) {
            let word = |state: &State| match state.branches.get(xid).map(|branch| branch.ended) {
                None => "unknown".to_owned(),
                Some(None) => "in doubt".to_owned(),
                Some(Some(outcome)) => format!("{outcome} by an operator"),
            };
            if word(self) != word(found) {
                words.push(format!("{xid} is {}, and should be {}", word(found), word(self)));
            }
        }
        words.dedup();
        words.truncate(4);
        let rows = difference(&self.rows, &found.rows);
        words.extend((!rows.is_empty()).then_some(rows));
        words.join("; ")
    }
}

/// Applies a commit. Whether what it saw is what was there.
fn apply(state: &mut State, changes: &[Change]) -> bool {
    let mut saw_the_truth = true;
    for change in changes {
        match change {
            Change::Prepare(xid, branch) => {
                state.branches.insert(xid.clone(), (**branch).clone());
            }
            Change::End(xid, ending) => {
                let branch = state.branches.get(xid).filter(|branch| branch.ended.is_none()).cloned();
                if let Some(branch) = branch.filter(|_| ending.applies()) {
                    saw_the_truth &= apply_rows(&mut state.rows, &branch.changes);
                }
                ending.apply(xid, &mut state.branches);
            }
            change => saw_the_truth &= apply_rows(&mut state.rows, std::slice::from_ref(change)),
        }
    }
    saw_the_truth
}

fn apply_rows(contents: &mut Contents, changes: &[Change]) -> bool {
    let mut saw_the_truth = true;
    for change in changes {
        match change {
            Change::Prepare(..) | Change::End(..) => {}
            Change::Saw(name, key, value) => {
                let there = contents.get(name).and_then(|rows| rows.get(key));
                saw_the_truth &= there == value.as_ref();
            }
            Change::Create(name) => {
                contents.entry(name.clone()).or_default();
            }
            Change::Drop(name) => {
                contents.remove(name);
            }
            Change::Clear(name, range) => {
                if let Some(rows) = contents.get_mut(name) {
                    rows.retain(|key, _| !range.contains(key));
                }
            }
            Change::Add(name, key, delta) => {
                if let Some(rows) = contents.get_mut(name) {
                    let number = rows.get(key).map_or(0, |value| super::client::number(value));
                    rows.insert(key.clone(), number.wrapping_add(*delta).to_le_bytes().to_vec());
                }
            }
            Change::Row(name, key, value) => {
                if let Some(rows) = contents.get_mut(name) {
                    match value {
                        Some(value) => drop(rows.insert(key.clone(), value.clone())),
                        None => drop(rows.remove(key)),
                    }
                }
            }
        }
    }
    saw_the_truth
}

fn describe(changes: &[Change]) -> String {
    let one = |change: &Change| match change {
        Change::Prepare(xid, branch) => format!("{xid} prepared: {}", describe(&branch.changes)),
        Change::End(xid, ending) => format!("{xid} ends: {ending:?}"),
        Change::Create(name) => format!("create {name}"),
        Change::Drop(name) => format!("drop {name}"),
        Change::Row(name, key, Some(value)) => {
            format!("{name}/{} = {} bytes", key.escape_ascii(), value.len())
        }
        Change::Saw(name, key, _) => format!("saw {name}/{}", key.escape_ascii()),
        Change::Clear(name, (from, to)) => {
            let text = |bound: &Bound<Vec<u8>>| bound.as_ref().map(|key| key.escape_ascii().to_string());
            format!("{name}: {:?} to {:?} gone", text(from), text(to))
        }
        Change::Add(name, key, delta) => format!("{name}/{} + {delta}", key.escape_ascii()),
        Change::Row(name, key, None) => format!("{name}/{} gone", key.escape_ascii()),
    };
    changes.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The first few differences, in words.
pub(super) fn difference(expected: &Contents, found: &Contents) -> String {
    let mut words = Vec::new();
    for name in expected.keys().chain(found.keys()) {
        match (expected.get(name), found.get(name)) {
            (Some(_), None) => words.push(format!("keyspace {name} is missing")),
            (None, Some(_)) => words.push(format!("keyspace {name} is too many")),
            (Some(expected), Some(found)) => {
                for key in expected.keys().chain(found.keys()) {
                    let (old, new) = (expected.get(key), found.get(key));
                    if old != new {
                        let bytes = |value: Option<&Vec<u8>>| {
                            value.map_or("none".to_owned(), |v| v.len().to_string())
                        };
                        words.push(format!(
                            "{name}/{}: {} bytes expected, {} found",
                            key.escape_ascii(),
                            bytes(old),
                            bytes(new)
                        ));
                    }
                }
            }
            (None, None) => {}
        }
    }
    words.dedup();
    words.truncate(4);
    words.join("; ")
}
