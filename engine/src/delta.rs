//! Recent versions, in memory: a concurrent ordered map of (keyspace, key, descending LSN).
//!
//! A commit inserts one entry per row, all with the LSN of its record. A version is visible to a snapshot at S if its
//! LSN is below S. Entries do not own their bytes: key and value are ranges of the payload that the log got, kept
//! alive by reference count, so a commit of a thousand rows costs one buffer and a thousand small nodes.
//!
//! Life of a delta: *active* (commits go in) → *frozen* at a log position C, below which everything is (the
//! sequencer's lock makes it so; commits still being applied finish shortly) → *folded* into the tree → *retained*
//! for conflict checks only → dropped. [`Delta::end`] is C, or [`Lsn::MAX`] while active.

use crate::record::WriteSet;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use parking_lot::Mutex;
use seawall_wal::{Lsn, Slice};
use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

/// What an entry costs beside its bytes in the payload: key and place (56), the node's head and an average tower
/// of two links (24), the allocator's share (16).
pub(crate) const NODE_BYTES: u64 = 96;

/// A row's state in some version: a value, or none where it was removed.
pub(crate) type Version = Option<Slice>;

/// One generation of recent versions.
#[derive(Debug)]
pub(crate) struct Delta {
    map: SkipMap<Key, Place>,
    bytes: AtomicU64,
    end: AtomicU64,
    dropped: Mutex<BTreeMap<u32, Lsn>>,
}

#[derive(Debug)]
struct Key {
    payload: Arc<Vec<u8>>,
    /// The key's first eight bytes: most comparisons end here, without touching the payload.
    head: u64,
    lsn: u64,
    keyspace: u32,
    at: u32,
    bytes: u32,
}

/// Where a version's value stands in its entry's payload.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u32,
    bytes: u32,
}

impl Place {
    /// No payload is that long.
    const REMOVED: Place = Place { at: u32::MAX, bytes: 0 };
}

fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let taken = key.len().min(8);
    if let (Some(target), Some(source)) = (head.get_mut(..taken), key.get(..taken)) {
        target.copy_from_slice(source);
    }
    u64::from_be_bytes(head)
}

/// What entries are ordered by, so that a lookup needs no entry of its own.
trait Ordered {
    fn parts(&self) -> (u32, u64, &[u8], u64);
}

fn compare(a: &(dyn Ordered + '_), b: &(dyn Ordered + '_)) -> Ordering {
    let (keyspace_a, head_a, key_a, lsn_a) = a.parts();
    let (keyspace_b, head_b, key_b, lsn_b) = b.parts();
    (keyspace_a, head_a)
        .cmp(&(keyspace_b, head_b))
        .then_with(|| key_a.cmp(key_b))
        .then_with(|| Reverse(lsn_a).cmp(&Reverse(lsn_b)))
}

impl Key {
    fn key(&self) -> &[u8] {
        self.payload.get(self.at as usize..(self.at + self.bytes) as usize).unwrap_or_default()
    }

    fn slice(&self) -> Slice {
        self.part(self.at as usize..(self.at + self.bytes) as usize)
    }

    fn part(&self, range: Range<usize>) -> Slice {
        WriteSet::slice(&self.payload, range)
    }

    fn version(&self, place: &Place) -> Version {
        let is_put = place.at != Place::REMOVED.at;
        is_put.then(|| self.part(place.at as usize..(place.at + place.bytes) as usize))
    }
}

impl Ordered for Key {
    fn parts(&self) -> (u32, u64, &[u8], u64) {
        (self.keyspace, self.head, self.key(), self.lsn)
    }
}

struct Probe<'a> {
    keyspace: u32,
    key: &'a [u8],
    lsn: u64,
}

impl Ordered for Probe<'_> {
    fn parts(&self) -> (u32, u64, &[u8], u64) {
        (self.keyspace, head_of(self.key), self.key, self.lsn)
    }
}

impl PartialEq for dyn Ordered + '_ {
    fn eq(&self, other: &Self) -> bool {
        compare(self, other).is_eq()
    }
}
impl Eq for dyn Ordered + '_ {}
impl PartialOrd for dyn Ordered + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for dyn Ordered + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}
impl<'a> Borrow<dyn Ordered + 'a> for Key {
    fn borrow(&self) -> &(dyn Ordered + 'a) {
        self
    }
}

impl Default for Delta {
    fn default() -> Delta {
        Delta {
            map: SkipMap::new(),
            bytes: AtomicU64::new(0),
            end: AtomicU64::new(Lsn::MAX.0),
            dropped: Mutex::new(BTreeMap::new()),
        }
    }
}

impl Delta {
    /// Inserts a commit's rows. Several commits may be applied at once.
    pub(crate) fn apply(&self, set: &WriteSet, lsn: Lsn) {
        if !set.dropped().is_empty() {
            self.dropped.lock().extend(set.dropped().iter().map(|id| (*id, lsn)));
        }
        let bytes = set.payload().len() as u64 + NODE_BYTES * set.rows().len() as u64;
        self.bytes.fetch_add(bytes, Atomic::Relaxed);
        for row in set.rows() {
            let (keyspace, key) = set.key_of(row);
            let place = match row.value_range() {
                Some(range) => Place { at: range.start as u32, bytes: (range.end - range.start) as u32 },
                None => Place::REMOVED,
            };
            let key = Key {
                payload: Arc::clone(set.payload()),
                head: head_of(key),
                lsn: lsn.0,
                keyspace,
                at: row.key_range().start as u32,
                bytes: key.len() as u32,
            };
            self.map.insert(key, place);
        }
    }

    /// Takes a commit's rows out again: it was withdrawn, and nobody has seen it.
    pub(crate) fn discard(&self, set: &WriteSet, lsn: Lsn) {
        for row in set.rows() {
            let (keyspace, key) = set.key_of(row);
            let probe = Probe { keyspace, key, lsn: lsn.0 };
            self.map.remove::<dyn Ordered + '_>(&probe);
        }
        let bytes = set.payload().len() as u64 + NODE_BYTES * set.rows().len() as u64;
        self.bytes.fetch_sub(bytes, Atomic::Relaxed);
        self.dropped.lock().retain(|_, at| *at != lsn);
    }

    /// Bytes held, exactly: payloads and nodes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Atomic::Relaxed)
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

    /// The newest version below `before`, and its LSN.
    pub(crate) fn newest(&self, keyspace: u32, key: &[u8], before: Lsn) -> Option<(Lsn, Version)> {
        let entry = self.newest_entry(keyspace, key, before)?;
        Some((Lsn(entry.key().lsn), entry.key().version(entry.value())))
    }

    /// The LSN of the newest version, visible or not.
    pub(crate) fn newest_lsn(&self, keyspace: u32, key: &[u8]) -> Option<Lsn> {
        Some(Lsn(self.newest_entry(keyspace, key, Lsn::MAX)?.key().lsn))
    }

    fn newest_entry(&self, keyspace: u32, key: &[u8], before: Lsn) -> Option<Entry<'_, Key, Place>> {
        let probe = Probe { keyspace, key, lsn: before.0.checked_sub(1)? };
        let entry = self.map.lower_bound::<dyn Ordered + '_>(Bound::Included(&probe))?;
        let found = entry.key();
        (found.keyspace == keyspace && found.key() == key).then_some(entry)
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
            let probe = Probe { keyspace, key: b"", lsn: u64::MAX };
            let Some(entry) = self.map.lower_bound::<dyn Ordered + '_>(Bound::Included(&probe)) else {
                break;
            };
            found.push(entry.key().keyspace);
            next = entry.key().keyspace.checked_add(1);
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
        let start = match from {
            Bound::Unbounded => Probe { keyspace, key: &[], lsn: u64::MAX },
            Bound::Included(key) => Probe { keyspace, key, lsn: u64::MAX },
            Bound::Excluded(key) => Probe { keyspace, key, lsn: 0 },
        };
        let start: Bound<&(dyn Ordered + '_)> = match from {
            Bound::Excluded(_) => Bound::Excluded(&start),
            _ => Bound::Included(&start),
        };
        let mut next = self.map.lower_bound(start);
        let mut taken = 0;
        let mut older = 0;
        let mut last: Option<Entry<'_, Key, Place>> = None;
        while let Some(entry) = next {
            let found = entry.key();
            if found.keyspace != keyspace || is_past(found.key(), to) {
                return false;
            }
            let is_older = last.as_ref().is_some_and(|last| last.key().key() == found.key());
            if is_older {
                older += 1;
                if older > 4 {
                    // A row with many versions: step over the rest of them at once.
                    let rest = Probe { keyspace, key: found.key(), lsn: 0 };
                    next = self.map.lower_bound::<dyn Ordered + '_>(Bound::Excluded(&rest));
                    continue;
                }
            } else if found.lsn < before.0 {
                if taken == rows_max {
                    return true;
                }
                out.push_back((found.slice(), found.version(entry.value())));
                taken += 1;
                older = 0;
                next = entry.next();
                last = Some(entry);
                continue;
            }
            next = entry.next();
        }
        false
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
        let mut next = match to {
            Bound::Included(key) => {
                self.map.upper_bound::<dyn Ordered + '_>(Bound::Included(&Probe { keyspace, key, lsn: 0 }))
            }
            Bound::Excluded(key) => self.map.upper_bound::<dyn Ordered + '_>(Bound::Excluded(&Probe {
                keyspace,
                key,
                lsn: u64::MAX,
            })),
            Bound::Unbounded => match keyspace.checked_add(1) {
                Some(above) => {
                    let above = Probe { keyspace: above, key: &[], lsn: u64::MAX };
                    self.map.upper_bound::<dyn Ordered + '_>(Bound::Excluded(&above))
                }
                None => self.map.back(),
            },
        };
        let mut taken = 0;
        while let Some(entry) = next {
            let found = entry.key();
            if found.keyspace != keyspace || is_before(found.key(), from) {
                return false;
            }
            if taken == rows_max {
                return true;
            }
            // Backwards a row's versions come oldest first: this one is its oldest.
            let previous = entry.prev();
            let is_only = previous
                .as_ref()
                .is_none_or(|p| p.key().keyspace != keyspace || p.key().key() != found.key());
            if is_only {
                if found.lsn < before.0 {
                    out.push_back((found.slice(), found.version(entry.value())));
                    taken += 1;
                }
                next = previous;
                continue;
            }
            if let Some((_, version)) = self.newest(keyspace, found.key(), before) {
                out.push_back((found.slice(), version));
                taken += 1;
            }
            let newest = Probe { keyspace, key: found.key(), lsn: u64::MAX };
            next = self.map.upper_bound::<dyn Ordered + '_>(Bound::Excluded(&newest));
        }
        false
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
