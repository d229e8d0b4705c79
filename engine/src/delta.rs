//! Recent versions, in memory: a concurrent ordered map of (keyspace, key, descending LSN), see `rows`.
//!
//! A commit inserts one entry per row, all with the LSN of its record. A version is visible to a snapshot at S if its
//! LSN is below S. Entries do not own their bytes: key and value are ranges of the payload that the log got, kept
//! alive by reference count, so a commit of a thousand rows costs one buffer and a thousand small entries.
//!
//! Life of a delta: *active* (commits go in) → *frozen* at a log position C, below which everything is (the
//! sequencer's lock makes it so; commits still being applied finish shortly) → *folded* into the tree → *retained*
//! for conflict checks only → dropped. [`Delta::end`] is C, or [`Lsn::MAX`] while active.

use crate::record::WriteSet;
use crate::sync::{AtomicU64, Mutex, Ordering as Atomic};
use rows::{Edge, Place, REMOVED, Row, Rows};
use seawall_wal::{Lsn, Slice};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

mod rows;

/// What an entry of a transaction's private set costs beside its bytes, about.
pub(crate) const NODE_BYTES: u64 = 96;
/// What a payload costs beside its bytes: two reference counts, the vector, the allocator's share of both.
const PAYLOAD_BYTES: u64 = 72;

/// A row's state in some version: a value, or none where it was removed.
pub(crate) type Version = Option<Slice>;

/// One generation of recent versions.
#[derive(Debug)]
pub(crate) struct Delta {
    rows: Rows,
    /// Of the payloads.
    bytes: AtomicU64,
    end: AtomicU64,
    dropped: Mutex<BTreeMap<u32, Lsn>>,
    /// Set when it is folded: there its bytes count for as long as anybody holds it.
    pinned: OnceLock<Arc<AtomicU64>>,
}

impl Default for Delta {
    fn default() -> Delta {
        Delta {
            rows: Rows::default(),
            bytes: AtomicU64::new(0),
            end: AtomicU64::new(Lsn::MAX.0),
            dropped: Mutex::new(BTreeMap::new()),
            pinned: OnceLock::new(),
        }
    }
}

impl Delta {
    /// Inserts a commit's rows. Several commits may be applied at once.
    pub(crate) fn apply(&self, set: &WriteSet, lsn: Lsn) {
        if !set.dropped().is_empty() {
            self.dropped.lock().extend(set.dropped().iter().map(|id| (*id, lsn)));
        }
        self.bytes.fetch_add(set.payload().len() as u64 + PAYLOAD_BYTES, Atomic::Relaxed);
        for row in set.rows() {
            let key = row.key_range();
            let value = row.value_range();
            let (value_at, value_bytes) =
                value.map_or((REMOVED, 0), |value| (value.start as u32, value.len() as u32));
            let entry = Row {
                payload: Arc::clone(set.payload()),
                lsn: lsn.0,
                key_at: key.start as u32,
                key_bytes: key.len() as u32,
                value_at,
                value_bytes,
            };
            self.rows.insert(row.row_keyspace(), entry);
        }
    }

    /// Takes a commit's rows out again: it was withdrawn, and nobody has seen it.
    pub(crate) fn discard(&self, set: &WriteSet, lsn: Lsn) {
        for row in set.rows() {
            let (keyspace, key) = set.key_of(row);
            self.rows.remove(&Place::new(keyspace, key, lsn.0));
        }
        self.bytes.fetch_sub(set.payload().len() as u64 + PAYLOAD_BYTES, Atomic::Relaxed);
        self.dropped.lock().retain(|_, at| *at != lsn);
    }

    /// Bytes held: payloads, and the leaves that point into them.
    pub(crate) fn bytes(&self) -> u64 {
        match self.bytes.load(Atomic::Relaxed) {
            0 => 0,
            bytes => bytes + self.rows.bytes(),
        }
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

    /// It is in the tree now, and memory only for whoever still holds it. From here on its bytes do not change.
    pub(crate) fn count_as_pinned(&self, total: &Arc<AtomicU64>) {
        if self.pinned.set(Arc::clone(total)).is_ok() {
            total.fetch_add(self.bytes(), Atomic::Relaxed);
        }
    }

    /// The newest version below `before`, and its LSN.
    pub(crate) fn newest(&self, keyspace: u32, key: &[u8], before: Lsn) -> Option<(Lsn, Version)> {
        self.newest_row(keyspace, key, before, |row| (Lsn(row.lsn), row.version()))
    }

    /// The LSN of the newest version, visible or not.
    pub(crate) fn newest_lsn(&self, keyspace: u32, key: &[u8]) -> Option<Lsn> {
        self.newest_row(keyspace, key, Lsn::MAX, |row| Lsn(row.lsn))
    }

    /// Whether there is a version from `since` on, visible or not, of a row from `from` on and below `to`.
    pub(crate) fn has_since(&self, keyspace: u32, from: &[u8], to: Option<&[u8]>, since: Lsn) -> bool {
        let to = to.map_or(Place::end_of(keyspace), |to| Place::new(keyspace, to, u64::MAX));
        self.rows.has_since(&Place::new(keyspace, from, u64::MAX), &to, since.0)
    }

    fn newest_row<T>(
        &self,
        keyspace: u32,
        key: &[u8],
        before: Lsn,
        then: impl FnOnce(&Row) -> T,
    ) -> Option<T> {
        let place = Place::new(keyspace, key, before.0.checked_sub(1)?);
        let found =
            |found_keyspace, row: &Row| (found_keyspace == keyspace && row.key() == key).then(|| then(row));
        self.rows.first_from(&place, found).flatten()
    }

    /// Ids of the keyspaces that end here, and where.
    pub(crate) fn dropped(&self) -> BTreeMap<u32, Lsn> {
        self.dropped.lock().clone()
    }

    /// Ids of the keyspaces with rows here, ascending.
    pub(crate) fn keyspaces(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = Some(0);
        while let Some(keyspace) = next {
            let Some(there) =
                self.rows.first_from(&Place::new(keyspace, b"", u64::MAX), |keyspace, _| keyspace)
            else {
                break;
            };
            found.push(there);
            next = there.checked_add(1);
        }
        found
    }

    /// Appends to `out` up to `rows_max` rows of a keyspace that lie between the bounds, ascending, each in its
    /// newest version below `before`. False if there are no more.
    pub(crate) fn ascending(
        &self,
        keyspace: u32,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        before: Lsn,
        rows_max: usize,
        out: &mut VecDeque<(Slice, Version)>,
    ) -> bool {
        let edge = match from {
            Bound::Unbounded => Edge::At(Place::new(keyspace, b"", u64::MAX)),
            Bound::Included(key) => Edge::At(Place::new(keyspace, key, u64::MAX)),
            Bound::Excluded(key) => Edge::Behind(Place::new(keyspace, key, 0)),
        };
        let mut taker = Taker { rows_max, taken: 0, has_more: false, out };
        self.rows.ascend(&edge, before.0, |found, row, visible| {
            found == keyspace && !is_past(row.key(), to) && taker.take(visible)
        });
        taker.has_more
    }

    /// Like [`ascending`](Self::ascending), from the end.
    pub(crate) fn descending(
        &self,
        keyspace: u32,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        before: Lsn,
        rows_max: usize,
        out: &mut VecDeque<(Slice, Version)>,
    ) -> bool {
        let edge = match to {
            Bound::Unbounded => Edge::At(Place::end_of(keyspace)),
            Bound::Included(key) => Edge::Behind(Place::new(keyspace, key, 0)),
            Bound::Excluded(key) => Edge::At(Place::new(keyspace, key, u64::MAX)),
        };
        let mut taker = Taker { rows_max, taken: 0, has_more: false, out };
        self.rows.descend(&edge, before.0, |found, row, visible| {
            found == keyspace && !is_before(row.key(), from) && taker.take(visible)
        });
        taker.has_more
    }
}

/// Takes visible rows until it has enough.
struct Taker<'a> {
    rows_max: usize,
    taken: usize,
    has_more: bool,
    out: &'a mut VecDeque<(Slice, Version)>,
}

impl Taker<'_> {
    fn take(&mut self, visible: Option<&Row>) -> bool {
        if self.taken == self.rows_max {
            self.has_more = true;
            return false;
        }
        if let Some(row) = visible {
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
