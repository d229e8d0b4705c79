//! Recent versions, in memory: a concurrent ordered map of (keyspace, key, descending LSN), see `rows`.
//!
//! A commit inserts one entry per row, all with the LSN of its record. A version is visible to a snapshot at S if its
//! LSN is below S. Entries do not own their bytes: key and value are ranges of the payload that the log got, kept
//! alive by reference count, so a commit of a thousand rows costs one buffer and a thousand small entries.
//!
//! *Ranges* that were cleared stand beside the rows, see `removals`: a clear hides every version of a lower LSN, and none of
//! its own record, whose rows are what its operations come to in call order. *Adds* stand in a map of their own, made
//! when the first comes: so that the newest version that is none is found at once, whatever was added since. An add is
//! applied to the newest version below it, in this delta or below. The sum of many is kept where it was last asked
//! for, so that a row added to a million times is summed up once: see [`Delta::newest`]. What a delta has of neither
//! costs a read one load of a flag.
//!
//! Life of a delta: *active* (commits go in) → *frozen* at a log position C, below which everything is (the
//! sequencer's lock makes it so; commits still being applied finish shortly) → *folded* into the tree → *retained*
//! for conflict checks only → dropped. [`Delta::end`] is C, or [`Lsn::MAX`] while active.

use crate::cover::{Cover, Span};
use crate::record::{Effect, WriteSet};
use crate::sync::{AtomicU8, AtomicU64, Mutex, Ordering as Atomic};
use crate::tree::LargeValue;
use removals::Removals;
use rows::{Edge, Kind, Place, Row, Rows};
pub(crate) use rows::{Gathered, Sampled};
use seawall_wal::{Lsn, Slice};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

mod removals;
mod rows;
mod version;

pub(crate) use version::Version;

/// What an entry of a transaction's private set costs beside its bytes, about.
pub(crate) const NODE_BYTES: u64 = 96;
/// What a payload costs beside its bytes: two reference counts, the vector, the allocator's share of both.
const PAYLOAD_BYTES: u64 = 72;
/// Rows that are gathered before they are absorbed, at least.
const ROWS_GATHERED_MIN: u64 = if cfg!(test) { 3 } else { 16_384 };

/// A delta has ranges that were cleared.
const CLEARS: u8 = 1;
/// A delta has adds.
const ADDS: u8 = 2;
/// So many adds are summed up each time; the sum of more is kept.
const ADDS_SUMMED: usize = if cfg!(test) { 3 } else { 32 };

/// One generation of recent versions.
#[derive(Debug)]
pub(crate) struct Delta {
    rows: Rows,
    adds: OnceLock<Rows>,
    removals: Removals,
    /// [`CLEARS`] and [`ADDS`], from before the first is there.
    extras: AtomicU8,
    /// Of the payloads.
    bytes: AtomicU64,
    /// Put in so far.
    versions: AtomicU64,
    end: AtomicU64,
    dropped: Mutex<BTreeMap<u32, Lsn>>,
    /// What was put in extents of its own, replaced since or not, and by which record; and what a record gave up.
    large: Mutex<Vec<(Lsn, Slice)>>,
    /// Set when it is folded: there its bytes count for as long as anybody holds it.
    pinned: OnceLock<Arc<AtomicU64>>,
}

impl Default for Delta {
    fn default() -> Delta {
        Delta {
            rows: Rows::default(),
            adds: OnceLock::new(),
            removals: Removals::default(),
            extras: AtomicU8::new(0),
            bytes: AtomicU64::new(0),
            versions: AtomicU64::new(0),
            end: AtomicU64::new(Lsn::MAX.0),
            dropped: Mutex::new(BTreeMap::new()),
            large: Mutex::new(Vec::new()),
            pinned: OnceLock::new(),
        }
    }
}

impl Delta {
    /// Inserts a commit's rows. Several commits may be applied at once.
    pub(crate) fn apply(&self, set: &WriteSet, lsn: Lsn) {
        self.note(set, lsn);
        for (keyspace, row) in rows_of(set, lsn) {
            self.insert(keyspace, row);
        }
    }

    /// Like [`apply`](Self::apply), in a delta that nobody uses yet: the rows wait until [`absorb`](Self::absorb) is
    /// called, and [`bytes`](Self::bytes) does not know them before.
    pub(crate) fn gather(&self, set: &WriteSet, lsn: Lsn, gathered: &mut Gathered) {
        self.note(set, lsn);
        for (keyspace, row) in rows_of(set, lsn) {
            match row.kind {
                Kind::Add => self.insert(keyspace, row),
                _ => gathered.push(keyspace, row),
            }
        }
    }

    fn insert(&self, keyspace: u32, row: Row) {
        if row.kind == Kind::Add {
            self.extras.fetch_or(ADDS, Atomic::Release);
            self.adds.get_or_init(Rows::default).insert(keyspace, row);
        } else {
            self.rows.insert(keyspace, row);
        }
    }

    /// Takes in what was gathered, by one walk over the rows that are there.
    pub(crate) fn absorb(&self, gathered: &mut Gathered) {
        self.rows.absorb(gathered);
    }

    /// How many rows one walk is worth: so that all walks together pass each row a few times.
    pub(crate) fn is_worth_absorbing(&self, gathered: &Gathered) -> bool {
        gathered.len() as u64
            > ROWS_GATHERED_MIN + self.rows.bytes() / rows::LEAF_BYTES * rows::LEAF_ROWS as u64 / 2
    }

    fn note(&self, set: &WriteSet, lsn: Lsn) {
        if !set.dropped().is_empty() {
            self.dropped.lock().extend(set.dropped().iter().map(|id| (*id, lsn)));
        }
        self.bytes.fetch_add(set.payload().len() as u64 + PAYLOAD_BYTES, Atomic::Relaxed);
        self.versions.fetch_add(set.rows().len() as u64, Atomic::Relaxed);
        let given_up = set.given_up().iter().cloned();
        let large: Vec<_> = set.large().chain(given_up).map(|value| (lsn, value)).collect();
        if !large.is_empty() {
            self.large.lock().extend(large);
        }
        if !set.removed().is_empty() {
            self.extras.fetch_or(CLEARS, Atomic::Release);
            self.removals.insert(set.removed(), lsn.0);
        }
    }

    /// Takes a commit's rows out again: it was withdrawn, and nobody has seen it.
    pub(crate) fn discard(&self, set: &WriteSet, lsn: Lsn) {
        for row in set.rows() {
            let (keyspace, key) = set.key_of(row);
            let place = Place::new(keyspace, key, lsn.0);
            self.rows.remove(&place);
            if let Some(adds) = self.adds() {
                adds.remove(&place);
            }
        }
        if !set.removed().is_empty() {
            self.removals.remove(lsn.0);
        }
        self.bytes.fetch_sub(set.payload().len() as u64 + PAYLOAD_BYTES, Atomic::Relaxed);
        self.dropped.lock().retain(|_, at| *at != lsn);
        // Their extents stay set aside until the store is opened again: the log has not said yet that nobody reads the record.
        self.large.lock().retain(|(at, _)| *at != lsn);
    }

    /// Bytes held: payloads, and the leaves that point into them.
    pub(crate) fn bytes(&self) -> u64 {
        match self.bytes.load(Atomic::Relaxed) {
            0 => 0,
            bytes => bytes + self.rows.bytes() + self.adds().map_or(0, Rows::bytes) + self.removals.bytes(),
        }
    }

    /// How many versions were put in, about.
    pub(crate) fn versions(&self) -> u64 {
        self.versions.load(Atomic::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// The position that every version here is below.
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.end.load(Atomic::Acquire))
    }

    /// No commit at or after `end` will come. Called once, under the sequencer's lock.
    pub(crate) fn freeze(&self, end: Lsn) {
        debug_assert_eq!(self.end(), Lsn::MAX, "E3: a delta is frozen once");
        self.end.store(end.0, Atomic::Release);
    }

    /// A test's deliberate mistake: what was cleared is overlooked from here on.
    pub(crate) fn forget_clears(&self) {
        self.extras.fetch_and(!CLEARS, Atomic::Release);
    }

    /// It is in the tree now, and memory only for whoever still holds it. From here on its bytes do not change.
    pub(crate) fn count_as_pinned(&self, total: &Arc<AtomicU64>) {
        if self.pinned.set(Arc::clone(total)).is_ok() {
            total.fetch_add(self.bytes(), Atomic::Relaxed);
        }
    }

    fn extras(&self) -> u8 {
        self.extras.load(Atomic::Acquire)
    }

    fn adds(&self) -> Option<&Rows> {
        self.adds.get()
    }

    /// The newest version below `before`, which is visible by now, and its LSN: a value or a removal with all that was added to it since, or
    /// the sum of what was added to a row that this delta has no other version of.
    pub(crate) fn newest(&self, keyspace: u32, key: &[u8], before: Lsn) -> Option<(Lsn, Version)> {
        let row = newest_row(&self.rows, keyspace, key, before, |row| (Lsn(row.lsn), row.version()));
        match self.extras() {
            0 => row,
            extras => self.newest_of_all(row, extras, keyspace, key, before),
        }
    }

    fn newest_of_all(
        &self,
        row: Option<(Lsn, Version)>,
        extras: u8,
        keyspace: u32,
        key: &[u8],
        before: Lsn,
    ) -> Option<(Lsn, Version)> {
        let mut base = row;
        if extras & CLEARS != 0
            && let Some(cleared) = self.removals.newest(keyspace, key, before)
            && base.as_ref().is_none_or(|(lsn, _)| *lsn < cleared)
        {
            base = Some((cleared, Version::Removed));
        }
        let adds = self.adds().filter(|_| extras & ADDS != 0);
        let behind = base.as_ref().map(|(lsn, _)| *lsn);
        let Some((lsn, sum)) = adds.and_then(|adds| sum_of(adds, keyspace, key, behind, before)) else {
            return base;
        };
        Some((lsn, base.map_or(Version::Add(sum), |(_, version)| version.plus(sum))))
    }

    /// The LSN of the row's newest change, visible or not: a version of its own, an add, or a clear of a range with
    /// it.
    pub(crate) fn newest_lsn(&self, keyspace: u32, key: &[u8]) -> Option<Lsn> {
        let overwritten = self.newest_overwrite(keyspace, key);
        let added =
            self.adds().and_then(|adds| newest_row(adds, keyspace, key, Lsn::MAX, |row| Lsn(row.lsn)));
        overwritten.max(added)
    }

    /// As [`newest_lsn`](Self::newest_lsn), adds left out.
    pub(crate) fn newest_overwrite(&self, keyspace: u32, key: &[u8]) -> Option<Lsn> {
        let set = newest_row(&self.rows, keyspace, key, Lsn::MAX, |row| Lsn(row.lsn));
        match self.extras() & CLEARS {
            0 => set,
            _ => set.max(self.removals.newest(keyspace, key, Lsn::MAX)),
        }
    }

    /// Whether a row of the span was changed at or after `since`, visible or not, in any way.
    pub(crate) fn is_changed_in(&self, keyspace: u32, span: &Span, since: Lsn) -> bool {
        let from = Place::new(keyspace, &span.from, u64::MAX);
        let to = span.to.as_deref().map_or(Place::end_of(keyspace), |to| Place::new(keyspace, to, u64::MAX));
        let extras = self.extras();
        self.rows.has_since(&from, &to, since.0)
            || (extras & ADDS != 0 && self.adds().is_some_and(|adds| adds.has_since(&from, &to, since.0)))
            || (extras & CLEARS != 0 && self.removals.any_since(keyspace, span, since))
    }

    /// What was cleared below `before`, which is visible by now: it hides the rows of all layers below this one.
    pub(crate) fn cleared(&self, keyspace: u32, before: Lsn) -> Option<Cover> {
        match self.extras() & CLEARS {
            0 => None,
            _ => self.removals.cover(keyspace, before),
        }
    }

    /// Whether it may have adds, which [`ascending`](Self::ascending) shows apart.
    pub(crate) fn has_adds(&self) -> bool {
        self.extras() & ADDS != 0
    }

    /// The values in extents of their own that were put here, replaced since or not, and those that were given up.
    pub(crate) fn large(&self) -> Vec<LargeValue> {
        self.large.lock().iter().filter_map(|(_, value)| LargeValue::decode(value.clone()).ok()).collect()
    }

    /// Ids of the keyspaces that end here, and where.
    pub(crate) fn dropped(&self) -> BTreeMap<u32, Lsn> {
        self.dropped.lock().clone()
    }

    /// Ids of the keyspaces with changes here, ascending.
    pub(crate) fn keyspaces(&self) -> Vec<u32> {
        let mut found = self.rows.keyspaces();
        found.extend(self.adds().map(Rows::keyspaces).unwrap_or_default());
        found.extend(self.removals.keyspaces());
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Rows of a keyspace from up to so many places that lie evenly among its versions, and how many rows it has, about.
    pub(crate) fn sample(&self, keyspace: u32, places: usize) -> Sampled {
        let rows = self.rows.sample(keyspace, places);
        let added = self.adds().map(|adds| adds.sample(keyspace, places)).unwrap_or_default();
        if added.rows > rows.rows { added } else { rows }
    }

    /// Appends to `out` up to `rows_max` rows of a keyspace that lie between the bounds, in order, each in its
    /// newest version below `before`, which is visible by now. False if there are no more.
    ///
    /// With `added` these are the rows that were added to, as [`newest`](Self::newest) has them; without, the others,
    /// and those in their version without the adds. What was cleared later is not shown.
    pub(crate) fn rows_between(
        &self,
        want: Want,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        out: &mut VecDeque<(Slice, Version)>,
    ) -> bool {
        let Want { keyspace, before, rows_max, is_reverse, added } = want;
        let rows = if added { self.adds() } else { Some(&self.rows) };
        let Some(rows) = rows else { return false };
        let cleared = if added { None } else { self.cleared(keyspace, before) };
        let first = out.len();
        let mut taker = Taker { rows_max, taken: 0, has_more: false, cleared, out };
        if is_reverse {
            let edge = match to {
                Bound::Unbounded => Edge::At(Place::end_of(keyspace)),
                Bound::Included(key) => Edge::Behind(Place::new(keyspace, key, 0)),
                Bound::Excluded(key) => Edge::At(Place::new(keyspace, key, u64::MAX)),
            };
            rows.descend(&edge, before.0, |found, row, visible| {
                found == keyspace && !is_before(row.key(), from) && taker.take(visible)
            });
        } else {
            let edge = match from {
                Bound::Unbounded => Edge::At(Place::new(keyspace, b"", u64::MAX)),
                Bound::Included(key) => Edge::At(Place::new(keyspace, key, u64::MAX)),
                Bound::Excluded(key) => Edge::Behind(Place::new(keyspace, key, 0)),
            };
            rows.ascend(&edge, before.0, |found, row, visible| {
                found == keyspace && !is_past(row.key(), to) && taker.take(visible)
            });
        }
        let has_more = taker.has_more;
        if added {
            // No lock is held any more.
            for (key, version) in out.iter_mut().skip(first) {
                if let Some((_, newest)) = self.newest(keyspace, key, before) {
                    *version = newest;
                }
            }
        }
        has_more
    }
}

/// Which rows of a delta.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) keyspace: u32,
    pub(crate) before: Lsn,
    pub(crate) rows_max: usize,
    pub(crate) is_reverse: bool,
    pub(crate) added: bool,
}

fn newest_row<T>(
    rows: &Rows,
    keyspace: u32,
    key: &[u8],
    before: Lsn,
    then: impl FnOnce(&Row) -> T,
) -> Option<T> {
    let place = Place::new(keyspace, key, before.0.checked_sub(1)?);
    let found =
        |found_keyspace, row: &Row| (found_keyspace == keyspace && row.key() == key).then(|| then(row));
    rows.first_from(&place, found).flatten()
}

/// What was added to a row below `before` and behind `behind`, and the LSN of the last add; none if nothing was.
fn sum_of(adds: &Rows, keyspace: u32, key: &[u8], behind: Option<Lsn>, before: Lsn) -> Option<(Lsn, i64)> {
    let last = newest_row(adds, keyspace, key, before, |row| Lsn(row.lsn))?;
    let behind = match behind {
        Some(behind) if behind >= last => return None,
        Some(behind) => behind,
        None => return Some((last, total(adds, keyspace, key, before))),
    };
    let earlier = total(adds, keyspace, key, Lsn(behind.0.saturating_add(1)));
    Some((last, total(adds, keyspace, key, before).wrapping_sub(earlier)))
}

/// The sum of all adds to a row below `before`: all of them are visible, so that none will come between. The sum of
/// many is kept in the newest, for whoever asks next.
fn total(adds: &Rows, keyspace: u32, key: &[u8], before: Lsn) -> i64 {
    let Some(newest) = before.0.checked_sub(1) else { return 0 };
    let (mut sum, mut seen, mut first) = (0_i64, 0, None);
    adds.versions(&Place::new(keyspace, key, newest), |row| {
        first.get_or_insert(row.lsn);
        seen += 1;
        sum = sum.wrapping_add(row.number());
        row.kind == Kind::Add
    });
    if let Some(first) = first.filter(|_| seen > ADDS_SUMMED) {
        adds.keep_sum(&Place::new(keyspace, key, first), sum);
    }
    sum
}

/// The versions that a commit makes, with their keyspaces.
fn rows_of(set: &WriteSet, lsn: Lsn) -> impl Iterator<Item = (u32, Row)> {
    set.rows().iter().map(move |row| {
        let key = row.key_range();
        let (kind, a, b) = match row.effect() {
            Some(Effect::Put(value)) => (Kind::Put, value.start as u32, value.len() as u32),
            Some(Effect::PutLarge(value)) => (Kind::PutLarge, value.start as u32, value.len() as u32),
            Some(Effect::Set(number)) => rows::number(Kind::Number, number),
            Some(Effect::Add(delta)) => rows::number(Kind::Add, delta),
            Some(Effect::Remove) | None => (Kind::Removed, 0, 0),
        };
        let entry = Row {
            payload: Arc::clone(set.payload()),
            lsn: lsn.0,
            key_at: key.start as u32,
            key_bytes: key.len() as u16,
            kind,
            value_at: a,
            value_bytes: b,
        };
        (row.row_keyspace(), entry)
    })
}

/// Takes visible rows until it has enough.
struct Taker<'a> {
    rows_max: usize,
    taken: usize,
    has_more: bool,
    cleared: Option<Cover>,
    out: &'a mut VecDeque<(Slice, Version)>,
}

impl Taker<'_> {
    fn take(&mut self, visible: Option<&Row>) -> bool {
        if self.taken == self.rows_max {
            self.has_more = true;
            return false;
        }
        let is_cleared = |row: &&Row| {
            let cleared = self.cleared.as_ref().and_then(|cleared| cleared.mark(row.key()));
            cleared.is_some_and(|at| at > row.lsn)
        };
        if let Some(row) = visible.filter(|row| !is_cleared(row)) {
            self.out.push_back((row.key_slice(), row.version()));
            self.taken += 1;
        }
        true
    }
}

impl Drop for Delta {
    fn drop(&mut self) {
        if let Some(total) = self.pinned.get() {
            total.fetch_sub(self.bytes(), Atomic::Relaxed);
        }
    }
}

fn is_past(key: &[u8], to: Bound<&[u8]>) -> bool {
    match to {
        Bound::Unbounded => false,
        Bound::Included(to) => key > to,
        Bound::Excluded(to) => key >= to,
    }
}

fn is_before(key: &[u8], from: Bound<&[u8]>) -> bool {
    match from {
        Bound::Unbounded => false,
        Bound::Included(from) => key < from,
        Bound::Excluded(from) => key <= from,
    }
}

#[cfg(test)]
mod tests;
