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
//! Keys are looked up one by one in an ordered map; spans, of which there are few, are gone through.

use super::branch::{Branch, Ending, Fate};
use crate::commit::pending::Pending;
use crate::cover::Span;
use crate::mutation::Mutation;
use crate::read::track::ReadSet;
use crate::record::{Effect, WriteSet};
use crate::{Error, Result, Xid};
use seawall_wal::Lsn;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

const READ: u8 = 1;
const WRITE: u8 = 2;
const ADD: u8 = 4;
const ANY: u8 = READ | WRITE | ADD;

type Holders = BTreeMap<u64, u8>;

#[derive(Default)]
struct Part {
    points: BTreeMap<Box<[u8]>, Holders>,
    spans: Vec<(Span, u64, u8)>,
    /// Who writes into it.
    writers: Holders,
    /// Who drops it.
    droppers: Holders,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.points.is_empty() && self.spans.is_empty() && self.writers.is_empty() && self.droppers.is_empty()
    }

    fn at(&self, key: &[u8], how: u8) -> Option<u64> {
        let found = self.points.get(key).and_then(|holders| holder(holders, how));
        found.or_else(|| {
            self.spans.iter().find(|(span, _, flag)| flag & how != 0 && span.contains(key)).map(|s| s.1)
        })
    }

    fn within(&self, span: &Span, how: u8) -> Option<u64> {
        let to = span.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut points = self.points.range::<[u8], _>((Bound::Included(&*span.from), to));
        let found = points.find_map(|(_, holders)| holder(holders, how));
        found.or_else(|| {
            self.spans.iter().find(|(other, _, flag)| flag & how != 0 && span.meets(other)).map(|s| s.1)
        })
    }
}

fn holder(holders: &Holders, how: u8) -> Option<u64> {
    holders.iter().find(|(_, flags)| *flags & how != 0).map(|(serial, _)| *serial)
}

/// All of them.
#[derive(Default)]
pub(crate) struct Table {
    /// Open, or ended by an operator and not forgotten.
    branches: BTreeMap<u64, Arc<Branch>>,
    by_xid: BTreeMap<Xid, u64>,
    parts: BTreeMap<u32, Part>,
    /// Outcomes that have their place.
    deciding: Vec<Deciding>,
    open: usize,
    bytes: u64,
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
    /// How many are open, and the bytes of what they hold.
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.open, self.bytes)
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
        let by_drop =
            || set.dropped().iter().find_map(|id| self.parts.get(id)?.writers.keys().next().copied());
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
        self.refused_by(used.find_map(|id| self.parts.get(&id)?.droppers.keys().next().copied()))
    }

    /// From here on others respect it.
    pub(crate) fn admit(&mut self, branch: &Arc<Branch>, mistake: Option<Mutation>) {
        self.list(branch);
        self.open += 1;
        self.bytes += branch.bytes;
        let serial = branch.serial;
        let mut mark = |keyspace: u32, key: &[u8], flag| {
            let part = self.parts.entry(keyspace).or_default();
            *part.points.entry(key.into()).or_default().entry(serial).or_default() |= flag;
        };
        let (locks, marks) =
            (mistake != Some(Mutation::RestoreUnlocked), mistake != Some(Mutation::RestoreUnmarked));
        for row in branch.set.rows().iter().filter(|_| locks) {
            let (keyspace, key) = branch.set.key_of(row);
            let is_add = matches!(row.effect(), Some(Effect::Add(_)));
            mark(keyspace, key, if is_add { ADD } else { WRITE });
        }
        branch.reads.points().filter(|_| marks).for_each(|(keyspace, key)| mark(keyspace, key, READ));
        let mut lay = |keyspace: u32, span: Span, flag| {
            self.parts.entry(keyspace).or_default().spans.push((span, serial, flag));
        };
        for (keyspace, span) in branch.set.removed().iter().filter(|_| locks) {
            lay(*keyspace, span.clone(), WRITE);
        }
        branch.reads.spans().filter(|_| marks).for_each(|(keyspace, span)| lay(keyspace, span, READ));
        for keyspace in branch.keyspaces() {
            self.parts.entry(keyspace).or_default().writers.insert(serial, WRITE);
        }
        for keyspace in branch.set.dropped() {
            self.parts.entry(*keyspace).or_default().droppers.insert(serial, WRITE);
        }
    }

    /// It is known by its name, and nobody has to respect it.
    pub(crate) fn list(&mut self, branch: &Arc<Branch>) {
        self.branches.insert(branch.serial, Arc::clone(branch));
        self.by_xid.insert(branch.xid.clone(), branch.serial);
    }

    /// Nobody respects it any more. False if nobody did.
    fn take(&mut self, branch: &Branch) -> bool {
        if !self.is_open(branch) {
            return false;
        }
        self.unlist(branch);
        self.open -= 1;
        self.bytes -= branch.bytes;
        let serial = branch.serial;
        let keys = branch.set.rows().iter().map(|row| branch.set.key_of(row)).chain(branch.reads.points());
        for (keyspace, key) in keys {
            let Some(part) = self.parts.get_mut(&keyspace) else { continue };
            let Some(holders) = part.points.get_mut(key) else { continue };
            holders.remove(&serial);
            if holders.is_empty() {
                part.points.remove(key);
            }
        }
        let removed = branch.set.removed().iter().map(|(keyspace, _)| *keyspace);
        let mut with_spans: Vec<u32> =
            removed.chain(branch.reads.spans().map(|(keyspace, _)| keyspace)).collect();
        with_spans.dedup();
        for keyspace in with_spans {
            if let Some(part) = self.parts.get_mut(&keyspace) {
                part.spans.retain(|(_, holder, _)| *holder != serial);
            }
        }
        for keyspace in branch.keyspaces() {
            if let Some(part) = self.parts.get_mut(&keyspace) {
                part.writers.remove(&serial);
            }
        }
        for keyspace in branch.set.dropped() {
            if let Some(part) = self.parts.get_mut(keyspace) {
                part.droppers.remove(&serial);
            }
        }
        self.parts.retain(|_, part| !part.is_empty());
        true
    }

    fn unlist(&mut self, branch: &Branch) {
        self.branches.remove(&branch.serial);
        if self.by_xid.get(&branch.xid) == Some(&branch.serial) {
            self.by_xid.remove(&branch.xid);
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
        self.deciding.retain(|deciding| deciding.pending.end() > visible);
        if !self.take(branch) {
            self.unlist(branch);
        }
        if matches!(ending, Ending::Heuristic(_)) {
            branch.complete(true);
            self.list(branch);
        }
        let fate = Fate::Deciding(Arc::clone(outcome), ending);
        let before = std::mem::replace(&mut *branch.fate.lock(), fate);
        let (pending, branch) = (Arc::clone(outcome), Arc::clone(branch));
        self.deciding.push(Deciding { pending, branch, before });
    }

    /// A record was withdrawn: a prepare that never was, or an outcome that is open again.
    pub(crate) fn withdrawn(&mut self, lsn: Lsn) {
        let prepared = self.branches.values().find(|branch| branch.is_placed_at(lsn)).map(Arc::clone);
        if let Some(branch) = prepared {
            self.take(&branch);
        }
        let Some(at) = self.deciding.iter().position(|deciding| deciding.pending.lsn() == lsn) else {
            return;
        };
        let Deciding { branch, before, .. } = self.deciding.swap_remove(at);
        if matches!(before, Fate::Open) {
            self.unlist(&branch);
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
            let mut open = self.deciding.iter().filter(|deciding| deciding.pending.end() > visible);
            open.find(|deciding| deciding.branch.xid == *xid).map(|deciding| &deciding.branch)
        };
        listed.or_else(deciding).map(Arc::clone)
    }

    /// Some of those that are visible, from a serial number on.
    pub(crate) fn page(&self, from: u64, max: usize, visible: Lsn) -> Vec<Arc<Branch>> {
        let from = self.branches.range(from..).map(|(_, branch)| branch);
        from.filter(|branch| branch.is_visible(visible)).take(max).map(Arc::clone).collect()
    }
}
