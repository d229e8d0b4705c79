//! The ordered map inside a delta: versions by (keyspace, key, descending LSN), inserted by many threads at once.
//!
//! A B+tree of two levels. The lower are leaves of up to [`LEAF_ROWS`] versions, each under a lock of its own; the
//! upper is one sorted array of the leaves' lower bounds, read by everyone and changed only when a leaf is split, about
//! once in 64 insertions. Within a leaf the order stands in an array of *ranks* (keyspace and the key's first eight
//! bytes) apart from the versions themselves, so a search touches a few cache lines, and a payload only where ranks are
//! equal. (With 128 committers search, insertion and moving take 13 % of the processor time; the search of the concurrent
//! skip list that stood here took 16 % by itself.) What a delta holds is bounded by the memory budget, and with it the
//! array.
//!
//! No lock is held when a call returns, and none across more than one leaf: a reader that is not run for a while holds
//! up nobody but those who insert into the leaf that it reads.
//!
//! Invariant E4: a version stands in the last leaf whose bound is not above it; the first leaf's bound is below all.

use super::version::Version;
use crate::number::{NUMBER_BYTES, number_value};
use crate::record::WriteSet;
use crate::sync::{AtomicU64, Ordering as Atomic, RwLock};
use crate::tree::LargeValue;
use seawall_wal::Slice;
use std::cmp::{Ordering, Reverse};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Versions in a full leaf; few under test, so that most rows stand at a border.
pub(super) const LEAF_ROWS: usize = if cfg!(test) { 4 } else { 128 };
/// So many leaves are looked at before those who wait for the index have their turn.
const PORTION_LEAVES: usize = if cfg!(test) { 2 } else { 64 };
/// Gathered versions that are fetched together.
const ROWS_FETCHED: usize = 64;
/// Versions whose payloads are asked for together.
const ROWS_WARMED: usize = 16;
/// What a leaf takes, its share of the upper level included.
pub(crate) const LEAF_BYTES: u64 =
    (LEAF_ROWS * (size_of::<u128>() + size_of::<Row>()) + size_of::<Leaf>() + size_of::<Bound>() + 8) as u64;

/// One version of a row. It owns its share of the payload that the log got.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) payload: Arc<Vec<u8>>,
    pub(super) lsn: u64,
    pub(super) key_at: u32,
    pub(super) key_bytes: u16,
    pub(super) kind: Kind,
    /// The value, or the halves of a number, see [`number`].
    pub(super) value_at: u32,
    pub(super) value_bytes: u32,
}

/// What a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The row has the payload's value.
    Put,
    /// The row has the large value that the payload names.
    PutLarge,
    Removed,
    /// The row is a number.
    Number,
    /// A number is added to the version below.
    Add,
    /// The same; and what is kept here is the sum of this add and all those below.
    Sum,
}

/// A number in a version.
pub(super) fn number(kind: Kind, number: i64) -> (Kind, u32, u32) {
    (kind, number as u64 as u32, (number as u64 >> 32) as u32)
}

/// What versions are ordered by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    rank: u128,
    key: &'a [u8],
    lsn: u64,
}

impl<'a> Place<'a> {
    /// Where the version of a row with this LSN stands, or would stand.
    pub(super) fn new(keyspace: u32, key: &'a [u8], lsn: u64) -> Place<'a> {
        let mut head = [0; 8];
        let taken = key.len().min(8);
        if let (Some(target), Some(source)) = (head.get_mut(..taken), key.get(..taken)) {
            target.copy_from_slice(source);
        }
        let rank = u128::from(keyspace) << 64 | u128::from(u64::from_be_bytes(head));
        Place { rank, key, lsn }
    }

    /// Behind all rows of a keyspace.
    pub(super) fn end_of(keyspace: u32) -> Place<'static> {
        match keyspace.checked_add(1) {
            Some(next) => Place::new(next, b"", u64::MAX),
            // No key's first eight bytes reach so far: whatever stands there is of this keyspace.
            None => Place { rank: u128::MAX, key: b"", lsn: 0 },
        }
    }
}

fn keyspace_of(rank: u128) -> u32 {
    (rank >> 64) as u32
}

impl Row {
    fn place(&self, rank: u128) -> Place<'_> {
        Place { rank, key: self.key(), lsn: self.lsn }
    }

    fn is_same(&self, rank: u128, other: (u128, &Row)) -> bool {
        rank == other.0 && self.key() == other.1.key()
    }

    pub(super) fn key(&self) -> &[u8] {
        self.payload.get(self.key_range()).unwrap_or_default()
    }

    fn key_range(&self) -> Range<usize> {
        self.key_at as usize..self.key_at as usize + usize::from(self.key_bytes)
    }

    pub(super) fn number(&self) -> i64 {
        (u64::from(self.value_at) | u64::from(self.value_bytes) << 32) as i64
    }

    /// What it takes in a leaf, about: a long value stands elsewhere.
    fn stored_bytes(&self) -> u64 {
        let value = match self.kind {
            Kind::Put => u64::from(self.value_bytes),
            Kind::PutLarge | Kind::Removed => 0,
            Kind::Number | Kind::Add | Kind::Sum => NUMBER_BYTES as u64,
        };
        u64::from(self.key_bytes) + value + 8
    }

    /// Something of the key and of the value: where a row begins and ends in its payload.
    fn ends(&self) -> u8 {
        let last = match self.kind {
            Kind::Put | Kind::PutLarge => (self.value_at + self.value_bytes) as usize,
            _ => self.key_range().end,
        };
        let byte = |at: usize| self.payload.get(at).copied().unwrap_or_default();
        byte(self.key_at as usize) ^ byte(last.saturating_sub(1))
    }

    pub(super) fn key_slice(&self) -> Slice {
        self.part(self.key_range())
    }

    /// The version, of whatever kind, by itself.
    pub(super) fn version(&self) -> Version {
        match self.kind {
            Kind::Put => {
                let range = self.value_at as usize..(self.value_at + self.value_bytes) as usize;
                Version::Value(self.part(range))
            }
            Kind::PutLarge => {
                let range = self.value_at as usize..(self.value_at + self.value_bytes) as usize;
                LargeValue::decode(self.part(range)).map_or(Version::Flawed, Version::Large)
            }
            Kind::Removed => Version::Removed,
            Kind::Number => Version::Value(number_value(self.number())),
            Kind::Add | Kind::Sum => Version::Add(self.number()),
        }
    }

    fn part(&self, range: Range<usize>) -> Slice {
        WriteSet::slice(&self.payload, range)
    }

    /// Among versions of equal rank.
    fn compare(&self, place: &Place<'_>) -> Ordering {
        self.key().cmp(place.key).then_with(|| Reverse(self.lsn).cmp(&Reverse(place.lsn)))
    }
}

/// Up to [`LEAF_ROWS`] versions in order.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    ranks: Vec<u128>,
    rows: Vec<Row>,
    /// No version here has a higher LSN: who looks for recent changes passes a leaf over without looking into it.
    newest: u64,
}

impl Leaf {
    fn new() -> Leaf {
        Leaf { ranks: Vec::with_capacity(LEAF_ROWS), rows: Vec::with_capacity(LEAF_ROWS), newest: 0 }
    }

    /// How many versions stand before the place.
    pub(super) fn before(&self, place: &Place<'_>) -> usize {
        let low = self.ranks.partition_point(|rank| *rank < place.rank);
        let equal = self.ranks.get(low..).unwrap_or_default().partition_point(|rank| *rank == place.rank);
        let rows = self.rows.get(low..low + equal).unwrap_or_default();
        low + rows.partition_point(|row| row.compare(place).is_lt())
    }

    /// How many versions stand before the place or at it.
    pub(super) fn up_to(&self, place: &Place<'_>) -> usize {
        let before = self.before(place);
        let is_there = self.ranks.get(before) == Some(&place.rank)
            && self.rows.get(before).is_some_and(|row| row.compare(place).is_eq());
        before + usize::from(is_there)
    }

    pub(super) fn get(&self, at: usize) -> Option<(u128, &Row)> {
        Some((*self.ranks.get(at)?, self.rows.get(at)?))
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn insert(&mut self, rank: u128, row: Row) {
        let at = self.before(&row.place(rank));
        self.newest = self.newest.max(row.lsn);
        self.ranks.insert(at, rank);
        self.rows.insert(at, row);
    }

    fn find_newest(&mut self) {
        self.newest = self.rows.iter().map(|row| row.lsn).max().unwrap_or(0);
    }

    /// Brings what the next versions point to into the processor's cache: one after another each would be waited for, side by
    /// side most of them come together. Where the next ones are not warm yet.
    fn warm(&self, from: usize) -> usize {
        let to = self.rows.len().min(from + ROWS_WARMED);
        let rows = self.rows.get(from..to).unwrap_or_default();
        let sum = rows.iter().fold(0_u8, |sum, row| sum ^ row.ends());
        std::hint::black_box(sum);
        to
    }

    /// Whether one of these versions has this LSN or a higher one.
    fn has_since(&self, versions: Range<usize>, since: u64) -> bool {
        self.newest >= since && self.rows.get(versions).unwrap_or_default().iter().any(|row| row.lsn >= since)
    }
}

/// The lower bound of a leaf.
#[derive(Debug)]
struct Bound {
    rank: u128,
    row: Row,
}

/// The leaves in order; `bounds[i]` is that of `leaves[i + 1]`.
#[derive(Debug)]
struct Index {
    bounds: Vec<Bound>,
    leaves: Vec<RwLock<Leaf>>,
}

impl Index {
    /// The leaf that a version at this place belongs to.
    fn find(&self, place: &Place<'_>) -> usize {
        let low = self.bounds.partition_point(|bound| bound.rank < place.rank);
        let equal =
            self.bounds.get(low..).unwrap_or_default().partition_point(|bound| bound.rank == place.rank);
        let bounds = self.bounds.get(low..low + equal).unwrap_or_default();
        low + bounds.partition_point(|bound| bound.row.compare(place).is_le())
    }

    /// The first version at the place or behind it that stands in these leaves.
    fn first_in(&self, leaves: Range<usize>, place: &Place<'_>) -> Option<(u128, Row)> {
        let home = leaves.start;
        leaves.filter_map(|i| Some((i, self.leaves.get(i)?.read()))).find_map(|(i, leaf)| {
            let from = if i == home { leaf.before(place) } else { 0 };
            leaf.get(from).map(|(rank, row)| (rank, row.clone()))
        })
    }
}

/// Where a walk begins: at a place, or behind it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edge<'a> {
    At(Place<'a>),
    Behind(Place<'a>),
}

impl<'a> Edge<'a> {
    fn place(&self) -> &Place<'a> {
        match self {
            Edge::At(place) | Edge::Behind(place) => place,
        }
    }

    /// How many of a leaf's versions are before the edge.
    fn start(&self, leaf: &Leaf) -> usize {
        match self {
            Edge::At(place) => leaf.before(place),
            Edge::Behind(place) => leaf.up_to(place),
        }
    }
}

/// Versions on their way into a map, in no order.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    rows: Vec<Option<Row>>,
    order: Vec<Rank>,
}

/// A version's rank, and which one it is: small, for these are sorted.
#[derive(Clone, Copy, Debug)]
struct Rank {
    keyspace: u32,
    at: u32,
    head: u64,
}

impl Gathered {
    pub(super) fn push(&mut self, keyspace: u32, row: Row) {
        let Place { rank, .. } = Place::new(keyspace, row.key(), row.lsn);
        self.order.push(Rank { keyspace, at: self.rows.len() as u32, head: rank as u64 });
        self.rows.push(Some(row));
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes that they take here.
    pub(crate) fn bytes(&self) -> u64 {
        (self.rows.len() * (size_of::<Rank>() + size_of::<Row>())) as u64
    }

    /// Each with its rank, in order.
    fn sorted(self) -> impl Iterator<Item = (u128, Row)> {
        let Gathered { mut rows, mut order } = self;
        let row = |at: &Rank| rows.get(at.at as usize).and_then(Option::as_ref);
        order.sort_unstable_by(|a, b| {
            (a.keyspace, a.head).cmp(&(b.keyspace, b.head)).then_with(|| match (row(a), row(b)) {
                (Some(a), Some(b)) => a.key().cmp(b.key()).then_with(|| b.lsn.cmp(&a.lsn)),
                _ => Ordering::Equal,
            })
        });
        let (mut order, mut portion) = (order.into_iter(), VecDeque::with_capacity(ROWS_FETCHED));
        std::iter::from_fn(move || {
            if portion.is_empty() {
                // They lie anywhere: side by side they are fetched in a fraction of the time.
                portion.extend(order.by_ref().take(ROWS_FETCHED).filter_map(|at| {
                    let row = rows.get_mut(at.at as usize)?.take()?;
                    Some((u128::from(at.keyspace) << 64 | u128::from(at.head), row))
                }));
            }
            portion.pop_front()
        })
    }
}

/// Some rows of a delta, and what all would be.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    /// Keys that stand side by side, ascending.
    pub(crate) parts: Vec<Vec<Slice>>,
    /// All rows of the keyspace, about.
    pub(crate) rows: u64,
    /// What they take in leaves, in bytes, about.
    pub(crate) bytes: u64,
}

/// The ordered map.
#[derive(Debug)]
pub(super) struct Rows {
    index: RwLock<Index>,
    leaves: AtomicU64,
}

impl Default for Rows {
    fn default() -> Rows {
        let leaves = vec![RwLock::new(Leaf::new())];
        Rows { index: RwLock::new(Index { bounds: Vec::new(), leaves }), leaves: AtomicU64::new(1) }
    }
}

impl Rows {
    /// Bytes of the leaves, whether full or not.
    pub(super) fn bytes(&self) -> u64 {
        self.leaves.load(Atomic::Relaxed) * LEAF_BYTES
    }

    pub(super) fn insert(&self, keyspace: u32, row: Row) {
        let rank = Place::new(keyspace, row.key(), row.lsn).rank;
        loop {
            let index = self.index.read();
            if let Some(leaf) = index.leaves.get(index.find(&row.place(rank))) {
                let mut leaf = leaf.write();
                if leaf.len() < LEAF_ROWS {
                    leaf.insert(rank, row);
                    return;
                }
            }
            drop(index);
            self.split(rank, &row);
        }
    }

    /// Makes room where this row belongs, if there is still none.
    fn split(&self, rank: u128, row: &Row) {
        let mut index = self.index.write();
        let at = index.find(&row.place(rank));
        let Some(leaf) = index.leaves.get(at) else { return };
        let (bound, upper) = {
            let mut leaf = leaf.write();
            if leaf.len() < LEAF_ROWS {
                return;
            }
            let is_last = at + 1 == index.leaves.len() && leaf.before(&row.place(rank)) == leaf.len();
            // Rows that come in order leave full leaves behind.
            let middle = if is_last { LEAF_ROWS } else { LEAF_ROWS / 2 };
            let mut upper = Leaf::new();
            upper.ranks.extend(leaf.ranks.drain(middle..));
            upper.rows.extend(leaf.rows.drain(middle..));
            upper.find_newest();
            leaf.find_newest();
            let first = upper.get(0).map(|(rank, row)| Bound { rank, row: row.clone() });
            (first.unwrap_or_else(|| Bound { rank, row: row.clone() }), upper)
        };
        index.bounds.insert(at, bound);
        index.leaves.insert(at + 1, RwLock::new(upper));
        self.leaves.fetch_add(1, Atomic::Relaxed);
    }

    /// Takes in many versions at once, by one walk over all that are there: for a map that nobody uses yet.
    pub(super) fn absorb(&self, gathered: &mut Gathered) {
        let mut index = self.index.write();
        let all = std::mem::take(&mut *gathered).sorted();
        let leaves = std::mem::take(&mut index.leaves);
        let old = leaves.into_iter().flat_map(|leaf| {
            let Leaf { ranks, rows, .. } = std::mem::take(&mut *leaf.write());
            ranks.into_iter().zip(rows)
        });
        let (mut old, mut new) = (old.peekable(), all.peekable());
        index.bounds.clear();
        let mut leaf = Leaf::new();
        loop {
            let takes_old = match (old.peek(), new.peek()) {
                (Some((rank, row)), Some((new_rank, new_row))) => {
                    rank.cmp(new_rank).then_with(|| row.compare(&new_row.place(*new_rank))).is_lt()
                }
                (left, _) => left.is_some(),
            };
            let Some((rank, row)) = (if takes_old { old.next() } else { new.next() }) else { break };
            if leaf.len() == LEAF_ROWS {
                index.bounds.push(Bound { rank, row: row.clone() });
                index.leaves.push(RwLock::new(std::mem::replace(&mut leaf, Leaf::new())));
            }
            leaf.newest = leaf.newest.max(row.lsn);
            leaf.ranks.push(rank);
            leaf.rows.push(row);
        }
        index.leaves.push(RwLock::new(leaf));
        self.leaves.store(index.leaves.len() as u64, Atomic::Relaxed);
    }

    /// Takes a version out, if it is there.
    pub(super) fn remove(&self, place: &Place<'_>) {
        let index = self.index.read();
        let Some(leaf) = index.leaves.get(index.find(place)) else { return };
        let mut leaf = leaf.write();
        let at = leaf.before(place);
        if leaf.up_to(place) > at {
            leaf.ranks.remove(at);
            leaf.rows.remove(at);
        }
    }

    /// The first version at the place or behind it.
    pub(super) fn first_from<T>(&self, place: &Place<'_>, then: impl FnOnce(u32, &Row) -> T) -> Option<T> {
        let index = self.index.read();
        let at = index.find(place);
        for (i, leaf) in index.leaves.iter().enumerate().skip(at) {
            let leaf = leaf.read();
            let from = if i == at { leaf.before(place) } else { 0 };
            if let Some((rank, row)) = leaf.get(from) {
                return Some(then(keyspace_of(rank), row));
            }
        }
        None
    }

    /// Shows the versions of one row from the place on, newest first, until `see` answers false.
    pub(super) fn versions(&self, place: &Place<'_>, mut see: impl FnMut(&Row) -> bool) {
        let mut edge = Edge::At(*place);
        loop {
            let index = self.index.read();
            let first = index.find(edge.place());
            let mut last = None;
            for (i, leaf) in index.leaves.iter().enumerate().skip(first) {
                let leaf = leaf.read();
                let mut at = if i == first { edge.start(&leaf) } else { 0 };
                while let Some((rank, row)) = leaf.get(at) {
                    if rank != place.rank || row.key() != place.key || !see(row) {
                        return;
                    }
                    last = Some(row.lsn);
                    at += 1;
                }
                if last.is_some() {
                    break;
                }
            }
            let Some(lsn) = last else { return };
            edge = Edge::Behind(Place { lsn, ..*place });
        }
    }

    /// Keeps a sum in the version at this place, if it is there.
    pub(super) fn keep_sum(&self, place: &Place<'_>, sum: i64) {
        let index = self.index.read();
        let Some(leaf) = index.leaves.get(index.find(place)) else { return };
        let mut leaf = leaf.write();
        let at = leaf.before(place);
        let is_there = leaf.up_to(place) > at;
        if let Some(row) = leaf.rows.get_mut(at).filter(|_| is_there) {
            (row.kind, row.value_at, row.value_bytes) = number(Kind::Sum, sum);
        }
    }

    /// The keyspaces with versions, ascending.
    pub(super) fn keyspaces(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut next = Some(0);
        while let Some(keyspace) = next {
            let Some(there) = self.first_from(&Place::new(keyspace, b"", u64::MAX), |keyspace, _| keyspace)
            else {
                break;
            };
            found.push(there);
            next = there.checked_add(1);
        }
        found
    }

    /// Rows of a keyspace in leaves that lie evenly among those that it has.
    pub(super) fn sample(&self, keyspace: u32, leaves_max: usize) -> Sampled {
        let index = self.index.read();
        let first = index.find(&Place::new(keyspace, b"", u64::MAX));
        let leaves = index.find(&Place::end_of(keyspace)) + 1 - first;
        let wanted = leaves.min(leaves_max.max(1));
        let mut sampled = Sampled::default();
        for place in 0..wanted {
            let Some(leaf) = index.leaves.get(first + place * leaves / wanted) else { break };
            let leaf = leaf.read();
            let (mut part, mut before): (Vec<Slice>, Option<&Row>) = (Vec::new(), None);
            for (rank, row) in leaf.ranks.iter().zip(&leaf.rows) {
                let is_new = before.is_none_or(|before| before.key() != row.key());
                if keyspace_of(*rank) == keyspace && is_new {
                    sampled.bytes += row.stored_bytes();
                    part.push(row.key_slice());
                    before = Some(row);
                }
            }
            sampled.rows += part.len() as u64;
            sampled.parts.push(part);
        }
        let all = |sum: u64| sum * leaves as u64 / wanted.max(1) as u64;
        (sampled.rows, sampled.bytes) = (all(sampled.rows), all(sampled.bytes));
        sampled
    }

    /// Whether a version with this LSN or a higher one stands between the places. In portions of leaves, so that nobody
    /// who splits one waits for long.
    pub(super) fn has_since(&self, from: &Place<'_>, to: &Place<'_>, since: u64) -> bool {
        let mut resume: Option<(u128, Row)> = None;
        loop {
            let index = self.index.read();
            let from = resume.as_ref().map_or(*from, |(rank, row)| row.place(*rank));
            let (first, last) = (index.find(&from), index.find(to));
            let portion = first..=last.min(first + PORTION_LEAVES);
            let is_found =
                index.leaves.iter().enumerate().take(portion.end() + 1).skip(first).any(|(i, leaf)| {
                    let leaf = leaf.read();
                    let start = if i == first { leaf.before(&from) } else { 0 };
                    let end = if i == last { leaf.before(to) } else { leaf.len() };
                    leaf.has_since(start..end.max(start), since)
                });
            if is_found || *portion.end() >= last {
                return is_found;
            }
            // The lower bound of the leaf behind the portion.
            resume = index.bounds.get(*portion.end()).map(|bound| (bound.rank, bound.row.clone()));
            if resume.is_none() {
                return false;
            }
        }
    }

    /// Shows the rows from the edge on, in order: for each its keyspace, one of its versions, and the newest below
    /// `before`, if there is one. Ends when `see` answers false.
    pub(super) fn ascend(
        &self,
        from: &Edge<'_>,
        before: u64,
        mut see: impl FnMut(u32, &Row, Option<&Row>) -> bool,
    ) {
        let mut resume: Option<(u128, Row, u64)> = None;
        loop {
            let index = self.index.read();
            let edge = match &resume {
                Some((rank, row, lsn)) => Edge::Behind(Place { rank: *rank, key: row.key(), lsn: *lsn }),
                None => *from,
            };
            let first = index.find(edge.place());
            let Some((leaf, mut at)) = index.leaves.iter().enumerate().skip(first).find_map(|(i, leaf)| {
                let leaf = leaf.read();
                let at = if i == first { edge.start(&leaf) } else { 0 };
                (at < leaf.len()).then_some((leaf, at))
            }) else {
                return;
            };
            let (mut last, mut warm) = (None, at);
            while let Some((rank, row)) = leaf.get(at) {
                if at >= warm {
                    warm = leaf.warm(at);
                }
                // The newest version that is old enough; it may stand in a later leaf.
                let wanted = Place { rank, key: row.key(), lsn: before.saturating_sub(1) };
                let visible = if row.lsn < before { at } else { leaf.before(&wanted) };
                let found =
                    leaf.get(visible).filter(|found| row.is_same(rank, *found) && found.1.lsn < before);
                if found.is_none() && visible == leaf.len() && before > 0 {
                    last = Some((rank, row.clone(), before));
                    break;
                }
                if !see(keyspace_of(rank), row, found.map(|(_, row)| row)) {
                    return;
                }
                let next = visible + usize::from(found.is_some());
                let goes_on = leaf.get(next).is_some_and(|next| row.is_same(rank, next));
                at = if goes_on { leaf.up_to(&Place { lsn: 0, ..wanted }) } else { next };
                if at == leaf.len() {
                    last = Some((rank, row.clone(), 0));
                }
            }
            resume = last;
        }
    }

    /// Like [`ascend`](Rows::ascend), from the edge backwards.
    pub(super) fn descend(
        &self,
        from: &Edge<'_>,
        before: u64,
        mut see: impl FnMut(u32, &Row, Option<&Row>) -> bool,
    ) {
        let mut resume: Option<(u128, Row)> = None;
        loop {
            let index = self.index.read();
            let edge = match &resume {
                Some((rank, row)) => Edge::At(Place { rank: *rank, key: row.key(), lsn: u64::MAX }),
                None => *from,
            };
            let last = index.find(edge.place());
            let Some((i, leaf, mut end)) = (0..=last).rev().find_map(|i| {
                let leaf = index.leaves.get(i)?.read();
                let end = if i == last { edge.start(&leaf) } else { leaf.len() };
                (end > 0).then_some((i, leaf, end))
            }) else {
                return;
            };
            let mut first = None;
            while let Some((rank, row)) = end.checked_sub(1).and_then(|at| leaf.get(at)) {
                let start = leaf.before(&Place { rank, key: row.key(), lsn: u64::MAX });
                let wanted = Place { rank, key: row.key(), lsn: before.saturating_sub(1) };
                let home = index.find(&wanted);
                // Newer versions may stand in earlier leaves.
                let earlier = index.first_in(home..i, &wanted);
                let here = || leaf.get(if home < i { 0 } else { leaf.before(&wanted) });
                let newest = earlier.as_ref().map(|(rank, row)| (*rank, row)).or_else(here);
                let visible = newest.filter(|found| row.is_same(rank, *found) && found.1.lsn < before);
                let visible = visible.map(|(_, row)| row);
                let goes_on = see(keyspace_of(rank), row, visible);
                if !goes_on {
                    return;
                }
                end = start;
                first = Some((rank, row.clone()));
            }
            resume = first;
        }
    }
}
