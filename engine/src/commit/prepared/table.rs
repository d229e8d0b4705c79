//! The transactions whose outcome is open, and what nobody may change until it is known.
//!
//! ```text
//!            admit (prepare has its place)           close (outcome has its place)
//! (nothing) ────────────────────────────► open ──────────────────────────────────► deciding ──► done
//!                                          ▲ restore (recovery)     ◄── withdrawn ──┘
//! ```
//!
//! Under the sequencer's lock, like validation, of which it is the other half. Validation holds a transaction against what
//! was committed before it; this holds it against what was promised to be able to commit after it. Who prepares has
//! been validated against all that has its place, and from there on nothing gets a place that would have changed that
//! verdict: so its commit needs no check. In particular a later transaction is refused if
//!
//! - it writes what a prepared one writes (adds commute with adds),
//! - it writes what a prepared one has read and counts on (under snapshot isolation that is what it has locked),
//! - it drops a keyspace that a prepared one writes into,
//! - it is to be prepared itself, and reads or writes in a keyspace that a prepared one drops.
//!
//! It is *not* refused for having read what a prepared one writes: it takes its place before that one. Two prepared ones
//! may commit in either order, so between them that counts too.
//!
//! However many are prepared, each question is one look-up: see [`Marks`]. What is told of all of them is told by the
//! [`Roster`], without this lock.

use super::branch::{Branch, Ending, Fate};
use super::marks::{Held, Marks};
use super::roster::Roster;
use crate::commit::pending::Pending;
use crate::cover::Span;
use crate::mutation::Mutation;
use crate::read::track::ReadSet;
use crate::record::{Effect, WriteSet};
use crate::{Error, Result, Xid};
use seawall_wal::Lsn;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const READ: u8 = 1;
const WRITE: u8 = 2;
const ADD: u8 = 4;
const ANY: u8 = READ | WRITE | ADD;

/// What is held of a keyspace. What is held in one way is kept apart from the others: who asks for one must not have to go
/// through the rest.
#[derive(Default)]
struct Part {
    read: Marks,
    written: Marks,
    added: Marks,
    /// Who writes into it.
    writers: BTreeSet<u64>,
    /// Who drops it.
    droppers: BTreeSet<u64>,
}

impl Part {
    fn is_empty(&self) -> bool {
        let [(_, a), (_, b), (_, c)] = self.ways();
        let is_unmarked = a.is_empty() && b.is_empty() && c.is_empty();
        is_unmarked && self.writers.is_empty() && self.droppers.is_empty()
    }

    fn ways(&self) -> [(u8, &Marks); 3] {
        [(WRITE, &self.written), (ADD, &self.added), (READ, &self.read)]
    }

    fn way(&mut self, flag: u8) -> &mut Marks {
        match flag {
            READ => &mut self.read,
            ADD => &mut self.added,
            _ => &mut self.written,
        }
    }

    fn at(&self, key: &[u8], how: u8) -> Option<u64> {
        let asked = self.ways().into_iter().filter(|(flag, _)| flag & how != 0);
        asked.map(|(_, marks)| marks).find_map(|marks| marks.at(key))
    }

    fn within(&self, span: &Span, how: u8) -> Option<u64> {
        let asked = self.ways().into_iter().filter(|(flag, _)| flag & how != 0);
        asked.map(|(_, marks)| marks).find_map(|marks| marks.within(span))
    }
}

/// All that a branch holds: of which keyspace, in which way, what.
fn held_by(branch: &Branch) -> impl Iterator<Item = (u32, u8, Held<'_>)> {
    let rows = branch.set.rows().iter().map(|row| {
        let (keyspace, key) = branch.set.key_of(row);
        let is_add = matches!(row.effect(), Some(Effect::Add(_)));
        (keyspace, if is_add { ADD } else { WRITE }, Held::Key(key))
    });
    let removed = branch.set.removed().iter();
    let removed = removed.map(|(keyspace, span)| (*keyspace, WRITE, Held::Span(span.clone())));
    let points = branch.reads.points().map(|(keyspace, key)| (keyspace, READ, Held::Key(key)));
    let spans = branch.reads.spans().map(|(keyspace, span)| (keyspace, READ, Held::Span(span)));
    rows.chain(removed).chain(points).chain(spans)
}

/// All of them.
#[derive(Default)]
pub(crate) struct Table {
    /// Open, or ended by an operator and not forgotten.
    branches: BTreeMap<u64, Arc<Branch>>,
    by_xid: BTreeMap<Xid, u64>,
    /// By the place of the vote, if it was given in this life of the store.
    by_vote: BTreeMap<Lsn, u64>,
    parts: BTreeMap<u32, Part>,
    /// Outcomes that have their place, by that place.
    deciding: BTreeMap<Lsn, Deciding>,
    deciding_by_xid: BTreeMap<Xid, Lsn>,
    open: usize,
    bytes: u64,
    roster: Arc<Roster>,
}

struct Deciding {
    pending: Arc<Pending>,
    branch: Arc<Branch>,
    before: Fate,
}

/// How much may be prepared at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) count: usize,
    pub(crate) bytes: u64,
}

impl Table {
    /// The list of those that are in it.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster)
    }

    /// Whether this commit may take its place.
    pub(crate) fn check(&self, set: &WriteSet) -> Result<()> {
        if self.open == 0 {
            return Ok(());
        }
        let by_row = set.rows().iter().find_map(|row| {
            let (keyspace, key) = set.key_of(row);
            let how = if matches!(row.effect(), Some(Effect::Add(_))) { READ | WRITE } else { ANY };
            self.parts.get(&keyspace)?.at(key, how)
        });
        let by_span =
            || set.removed().iter().find_map(|(keyspace, span)| self.parts.get(keyspace)?.within(span, ANY));
        let by_drop = || set.dropped().iter().find_map(|id| self.parts.get(id)?.writers.first().copied());
        self.refused_by(by_row.or_else(by_span).or_else(by_drop))
    }

    /// Whether what was read is as it will be wherever those that are prepared take their places.
    pub(crate) fn check_reads(&self, reads: &ReadSet) -> Result<()> {
        if self.open == 0 {
            return Ok(());
        }
        let by_point =
            reads.points().find_map(|(keyspace, key)| self.parts.get(&keyspace)?.at(key, WRITE | ADD));
        let by_span = || {
            reads.spans().find_map(|(keyspace, span)| self.parts.get(&keyspace)?.within(&span, WRITE | ADD))
        };
        self.refused_by(by_point.or_else(by_span))
    }

    fn refused_by(&self, holder: Option<u64>) -> Result<()> {
        match holder.and_then(|serial| self.branches.get(&serial)) {
            Some(branch) => Err(Error::PreparedConflict { xid: branch.xid.clone() }),
            None => Ok(()),
        }
    }

    /// Who will change a row of this, if it commits.
    pub(crate) fn writer(&self, keyspace: u32, span: &Span) -> Option<Arc<Branch>> {
        let serial = self.parts.get(&keyspace)?.within(span, WRITE | ADD)?;
        self.branches.get(&serial).map(Arc::clone)
    }

    /// Whether a transaction may be prepared: everything but its validation against what was committed.
    pub(crate) fn check_new(&self, branch: &Branch, limits: Limits, visible: Lsn) -> Result<()> {
        if self.find(&branch.xid, visible).is_some() {
            return Err(Error::XidDuplicate { xid: branch.xid.clone() });
        }
        if self.open >= limits.count {
            return Err(Error::TooLarge {
                what: "the number of prepared transactions",
                len: self.open as u64 + 1,
                max: limits.count as u64,
            });
        }
        let bytes = self.bytes + branch.bytes;
        if bytes > limits.bytes {
            return Err(Error::TooLarge { what: "all prepared transactions", len: bytes, max: limits.bytes });
        }
        self.check(&branch.set)?;
        self.check_reads(&branch.reads)?;
        // A drop changes all rows, those that are not there yet too: what two that are prepared do must not depend on who
        // commits first. Others may write into what will be dropped, if it is: they come before that.
        let read = branch.reads.points().map(|(id, _)| id).chain(branch.reads.spans().map(|(id, _)| id));
        let mut used = branch.keyspaces().into_iter().chain(read);
        self.refused_by(used.find_map(|id| self.parts.get(&id)?.droppers.first().copied()))
    }

    /// From here on others respect it.
    pub(crate) fn admit(&mut self, branch: &Arc<Branch>, mistake: Option<Mutation>) {
        self.list(branch);
        self.resize(self.open + 1, self.bytes + branch.bytes);
        let serial = branch.serial;
        let is_left_out = |flag| match mistake {
            Some(Mutation::RestoreUnlocked) => flag != READ,
            Some(Mutation::RestoreUnmarked) => flag == READ,
            _ => false,
        };
        for (keyspace, flag, held) in held_by(branch).filter(|(_, flag, _)| !is_left_out(*flag)) {
            self.parts.entry(keyspace).or_default().way(flag).add(&held, serial);
        }
        for keyspace in branch.keyspaces() {
            self.parts.entry(keyspace).or_default().writers.insert(serial);
        }
        for keyspace in branch.set.dropped() {
            self.parts.entry(*keyspace).or_default().droppers.insert(serial);
        }
    }

    fn resize(&mut self, open: usize, bytes: u64) {
        (self.open, self.bytes) = (open, bytes);
        self.roster.resize(open, bytes);
    }

    /// It is known by its name, and nobody has to respect it.
    pub(crate) fn list(&mut self, branch: &Arc<Branch>) {
        self.branches.insert(branch.serial, Arc::clone(branch));
        self.by_xid.insert(branch.xid.clone(), branch.serial);
        if let Some(lsn) = branch.vote() {
            self.by_vote.insert(lsn, branch.serial);
        }
        self.roster.enter(branch);
    }

    fn unlist(&mut self, branch: &Branch) {
        self.branches.remove(&branch.serial);
        if self.by_xid.get(&branch.xid) == Some(&branch.serial) {
            self.by_xid.remove(&branch.xid);
        }
        if let Some(lsn) = branch.vote() {
            self.by_vote.remove(&lsn);
        }
        self.roster.leave(branch.serial);
    }

    /// Nobody respects it any more, if anybody did.
    fn release(&mut self, branch: &Branch) {
        if !self.is_open(branch) {
            return;
        }
        self.resize(self.open - 1, self.bytes - branch.bytes);
        let serial = branch.serial;
        let mut touched = branch.keyspaces();
        touched.extend(branch.set.dropped());
        for (keyspace, flag, held) in held_by(branch) {
            if let Some(part) = self.parts.get_mut(&keyspace) {
                part.way(flag).remove(&held, serial);
                touched.insert(keyspace);
            }
        }
        for keyspace in touched {
            let Some(part) = self.parts.get_mut(&keyspace) else { continue };
            part.writers.remove(&serial);
            part.droppers.remove(&serial);
            if part.is_empty() {
                self.parts.remove(&keyspace);
            }
        }
    }

    /// Whether its outcome has no place yet.
    pub(crate) fn is_open(&self, branch: &Branch) -> bool {
        !branch.is_completed() && self.branches.contains_key(&branch.serial)
    }

    /// Whether it is still known: open, or ended by an operator and not forgotten.
    pub(crate) fn is_listed(&self, branch: &Branch) -> bool {
        self.branches.contains_key(&branch.serial)
    }

    /// Its outcome has its place.
    pub(crate) fn close(
        &mut self,
        branch: &Arc<Branch>,
        outcome: &Arc<Pending>,
        ending: Ending,
        visible: Lsn,
    ) {
        self.forget_visible(visible);
        self.release(branch);
        if matches!(ending, Ending::Heuristic(_)) {
            branch.complete(true);
        } else {
            self.unlist(branch);
        }
        let fate = Fate::Deciding(Arc::clone(outcome), ending);
        let before = std::mem::replace(&mut *branch.fate.lock(), fate);
        let (pending, branch) = (Arc::clone(outcome), Arc::clone(branch));
        self.deciding_by_xid.insert(branch.xid.clone(), pending.lsn());
        self.deciding.insert(pending.lsn(), Deciding { pending, branch, before });
    }

    /// Outcomes become visible in the order of their places.
    fn forget_visible(&mut self, visible: Lsn) {
        while let Some(first) = self.deciding.first_entry()
            && first.get().pending.end() <= visible
        {
            let (lsn, deciding) = first.remove_entry();
            self.unname(lsn, &deciding);
        }
    }

    fn unname(&mut self, lsn: Lsn, deciding: &Deciding) {
        let xid = &deciding.branch.xid;
        if self.deciding_by_xid.get(xid) == Some(&lsn) {
            self.deciding_by_xid.remove(xid);
        }
    }

    /// A record was withdrawn: a prepare that never was, or an outcome that is open again.
    pub(crate) fn withdrawn(&mut self, lsn: Lsn, visible: Lsn) {
        // Who asks for its outcome all the same hears that nothing is left of it.
        let nothing_left = Fate::Done(lsn, Ending::Rollback);
        let prepared = self.by_vote.get(&lsn).and_then(|serial| self.branches.get(serial)).map(Arc::clone);
        if let Some(branch) = prepared.filter(|branch| self.is_open(branch)) {
            self.release(&branch);
            self.unlist(&branch);
            *branch.fate.lock() = nothing_left;
            return;
        }
        let Some(deciding) = self.deciding.remove(&lsn) else { return };
        self.unname(lsn, &deciding);
        let Deciding { branch, before, .. } = deciding;
        if !branch.is_visible(visible) {
            // Its vote was withdrawn before.
            self.unlist(&branch);
            *branch.fate.lock() = nothing_left;
            return;
        }
        if matches!(before, Fate::Open) {
            branch.complete(false);
            self.admit(&branch, None);
        } else {
            self.list(&branch);
        }
        *branch.fate.lock() = before;
    }

    /// By its name: also while its outcome is on its way.
    pub(crate) fn find(&self, xid: &Xid, visible: Lsn) -> Option<Arc<Branch>> {
        let listed = self.by_xid.get(xid).and_then(|serial| self.branches.get(serial));
        let deciding = || {
            let deciding = self.deciding.get(self.deciding_by_xid.get(xid)?)?;
            (deciding.pending.end() > visible).then_some(&deciding.branch)
        };
        listed.or_else(deciding).map(Arc::clone)
    }
}
