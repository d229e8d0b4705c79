//! What a transaction has read: the keys it asked for, and the spans of keys that its scans have passed.
//!
//! A serializable transaction takes its place in the order of commits as if it had run there in one moment, which is so
//! if nothing that it read was changed between its snapshot and that place. What it read is exactly what was
//! *consumed*: of a scan the span from its start to the last row that it has shown, or to its end once it has said that
//! there is no more; rows that were read ahead and not shown do not count. Neither does what the transaction wrote
//! itself.
//!
//! ```text
//! get, multi_get, compare_and_set ──► points ─┐
//! scans and cursors, row by row ───► live ────┴─► spans      too many bytes: neighbours become one span
//! ```
//!
//! Whoever reads in a keyspace has also read in the catalogue that it is there: so one that is dropped meanwhile counts as
//! a change of all its rows, and one that is not there as a name that was looked up.
//!
//! A set knows rather too much than too little: beyond its budget neighbouring points and spans are joined, over the
//! keys between them that were never read. Such a transaction may get a `Conflict` that it did not deserve, and never
//! misses one.

use crate::cover::Span;
use crate::delta::Delta;
use crate::keyspace::Life;
use crate::memory::Charge;
use crate::record::{CATALOGUE, WriteSet};
use crate::sync::Mutex;
use crate::{Error, Result};
use seawall_wal::{Lsn, Slice};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a point or a span costs beside its keys, about.
const NODE_BYTES: usize = 80;
/// So many points are validated under the sequencer's lock, one by one, as a write set is.
const FEW_POINTS: usize = 64;

type Key = Box<[u8]>;

/// What was read of one keyspace. A span is the keys from its first on that are below its end, if it has one; spans
/// neither overlap nor touch.
#[derive(Clone, Debug, Default)]
struct Part {
    points: BTreeSet<Key>,
    spans: BTreeMap<Key, Option<Key>>,
}

fn is_below(key: &[u8], end: Option<&Key>) -> bool {
    end.is_none_or(|end| *key < **end)
}

fn span_bytes(from: &Key, to: Option<&Key>) -> usize {
    NODE_BYTES + from.len() + to.map_or(0, |to| to.len())
}

impl Part {
    fn contains(&self, key: &[u8]) -> bool {
        let over = || self.spans.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        self.points.contains(key)
            || !self.spans.is_empty() && over().is_some_and(|(_, to)| is_below(key, to.as_ref()))
    }

    /// Whether any key of the span was read.
    fn meets(&self, span: &Span) -> bool {
        let end = span.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let has_point = || self.points.range::<[u8], _>((Bound::Included(&*span.from), end)).next().is_some();
        // Spans do not overlap, so of those that begin before this one ends the last one ends last.
        let last = self.spans.range::<[u8], _>((Bound::Unbounded, end)).next_back();
        last.is_some_and(|(_, to)| is_below(&span.from, to.as_ref())) || has_point()
    }

    /// The change in bytes.
    fn add_span(&mut self, mut from: Key, mut to: Option<Key>) -> isize {
        if !is_below(&from, to.as_ref()) {
            return 0;
        }
        let mut gone = 0;
        // Of the spans that begin before this one ends, from the last on back, those that reach its start are joined.
        loop {
            let end = to.as_deref().map_or(Bound::Unbounded, Bound::Included);
            let Some((first, last)) = self.spans.range::<[u8], _>((Bound::Unbounded, end)).next_back() else {
                break;
            };
            if last.as_ref().is_some_and(|last| **last < *from) {
                break;
            }
            let (first, last) = (first.clone(), last.clone());
            gone += span_bytes(&first, last.as_ref());
            self.spans.remove(&first);
            from = from.min(first);
            to = to.zip(last).map(|(a, b)| a.max(b));
        }
        let bytes = span_bytes(&from, to.as_ref());
        self.spans.insert(from, to);
        bytes as isize - gone as isize
    }

    fn is_all(&self) -> bool {
        self.points.is_empty() && self.spans.iter().all(|(from, to)| from.is_empty() && to.is_none())
    }

    /// Every two neighbours become one span; one that is alone becomes all keys.
    fn coarsen(&mut self) {
        let points = std::mem::take(&mut self.points).into_iter();
        let mut all: Vec<(Key, Option<Key>)> = points.map(|key| (key.clone(), Some(behind(&key)))).collect();
        all.extend(std::mem::take(&mut self.spans));
        all.sort();
        if all.len() < 2 {
            self.spans.insert(Key::default(), None);
            return;
        }
        let mut all = all.into_iter();
        while let Some((from, to)) = all.next() {
            let to = match all.next() {
                Some((_, next)) => to.zip(next).map(|(a, b)| a.max(b)),
                None => to,
            };
            self.add_span(from, to);
        }
    }

    fn bytes(&self) -> usize {
        let points: usize = self.points.iter().map(|key| NODE_BYTES + key.len()).sum();
        points + self.spans.iter().map(|(from, to)| span_bytes(from, to.as_ref())).sum::<usize>()
    }
}

/// The first key above this one.
fn behind(key: &[u8]) -> Key {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Keys and spans of keys, by keyspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadSet {
    parts: BTreeMap<u32, Part>,
    bytes: usize,
}

impl ReadSet {
    fn knows(&self, keyspace: u32) -> bool {
        self.parts.contains_key(&keyspace)
    }

    pub(crate) fn add_point(&mut self, keyspace: u32, key: &[u8]) {
        let part = self.parts.entry(keyspace).or_default();
        if !part.contains(key) {
            part.points.insert(key.into());
            self.bytes += NODE_BYTES + key.len();
        }
    }

    pub(crate) fn add_span(&mut self, keyspace: u32, from: &Edge, to: Option<&Edge>) {
        let added = self.parts.entry(keyspace).or_default().add_span(from.bytes(), to.map(Edge::bytes));
        self.bytes = self.bytes.saturating_add_signed(added);
    }

    /// Gives up detail for memory: down to half of what is allowed, or until there is none left to give up.
    pub(crate) fn fit(&mut self, bytes_max: usize) {
        if self.bytes <= bytes_max {
            return;
        }
        while self.bytes > bytes_max / 2 && self.parts.values().any(|part| !part.is_all()) {
            self.parts.values_mut().filter(|part| !part.is_all()).for_each(Part::coarsen);
            self.bytes = self.parts.values().map(Part::bytes).sum();
        }
    }

    /// Few enough, and points alone: to be looked up one by one.
    pub(crate) fn is_small(&self) -> bool {
        let points: usize = self.parts.values().map(|part| part.points.len()).sum();
        points <= FEW_POINTS && self.parts.values().all(|part| part.spans.is_empty())
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.parts.iter().flat_map(|(keyspace, part)| part.points.iter().map(|key| (*keyspace, &**key)))
    }

    /// The spans of keys that were read.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (u32, Span)> {
        self.key_spans().map(|(keyspace, from, to)| (keyspace, span_of(from, to)))
    }

    /// Adds a span.
    pub(crate) fn add(&mut self, keyspace: u32, span: Span) {
        let to = span.to.as_deref().map(Into::into);
        let added = self.parts.entry(keyspace).or_default().add_span((&*span.from).into(), to);
        self.bytes = self.bytes.saturating_add_signed(added);
    }

    fn key_spans(&self) -> impl Iterator<Item = (u32, &Key, Option<&Key>)> {
        self.parts
            .iter()
            .flat_map(|(keyspace, part)| part.spans.iter().map(|(from, to)| (*keyspace, from, to.as_ref())))
    }

    /// Whether a commit writes anything that was read: looked up from whichever side is shorter.
    pub(crate) fn meets(&self, set: &WriteSet) -> bool {
        let is_cleared =
            |(keyspace, span): &(u32, Span)| self.parts.get(keyspace).is_some_and(|part| part.meets(span));
        if set.removed().iter().any(is_cleared) {
            return true;
        }
        let items: usize = self.parts.values().map(|part| part.points.len() + part.spans.len()).sum();
        if set.rows().len() / 8 <= items {
            return set.rows().iter().any(|row| {
                let (keyspace, key) = set.key_of(row);
                self.parts.get(&keyspace).is_some_and(|part| part.contains(key))
            });
        }
        self.points().any(|(keyspace, key)| set.contains(keyspace, key))
            || self.key_spans().any(|(keyspace, from, to)| writes_between(set, keyspace, from, to))
    }

    /// Whether a delta holds a version from `since` on of anything that was read.
    pub(crate) fn is_changed_in(&self, delta: &Delta, since: Lsn) -> bool {
        let is_newer = |lsn: Option<Lsn>| lsn.is_some_and(|lsn| lsn >= since);
        self.points().any(|(keyspace, key)| is_newer(delta.newest_lsn(keyspace, key)))
            || self
                .key_spans()
                .any(|(keyspace, from, to)| delta.is_changed_in(keyspace, &span_of(from, to), since))
    }

    /// A deliberate mistake.
    pub(crate) fn forget_points(&mut self) {
        self.parts.values_mut().for_each(|part| part.points.clear());
    }

    /// A deliberate mistake.
    pub(crate) fn forget_spans(&mut self) {
        self.parts.values_mut().for_each(|part| part.spans.clear());
    }
}

fn span_of(from: &Key, to: Option<&Key>) -> Span {
    Span { from: (**from).into(), to: to.map(|to| (**to).into()) }
}

/// Whether a row of the set lies between these keys; its rows are in order.
fn writes_between(set: &WriteSet, keyspace: u32, from: &[u8], to: Option<&Key>) -> bool {
    let at = set.rows().partition_point(|row| set.key_of(row) < (keyspace, from));
    set.rows().get(at).is_some_and(|row| {
        let (found, key) = set.key_of(row);
        found == keyspace && is_below(key, to)
    })
}

/// A place between two keys: before one, or right behind it. It shares the key's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    key: Slice,
    is_behind: bool,
}

impl Edge {
    /// Before all keys.
    pub(crate) fn first() -> Edge {
        Edge { key: Slice::from(Vec::new()), is_behind: false }
    }

    pub(crate) fn before(key: &Slice) -> Edge {
        Edge { key: key.clone(), is_behind: false }
    }

    pub(crate) fn behind(key: &Slice) -> Edge {
        Edge { key: key.clone(), is_behind: true }
    }

    /// Where a range begins that has this bound.
    pub(crate) fn start(bound: &Bound<Slice>) -> Edge {
        match bound {
            Bound::Unbounded => Edge::first(),
            Bound::Included(key) => Edge::before(key),
            Bound::Excluded(key) => Edge::behind(key),
        }
    }

    /// Where a range ends that has this bound; none if nowhere.
    pub(crate) fn end(bound: &Bound<Slice>) -> Option<Edge> {
        match bound {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(Edge::behind(key)),
            Bound::Excluded(key) => Some(Edge::before(key)),
        }
    }

    fn bytes(&self) -> Key {
        if self.is_behind { behind(&self.key) } else { (*self.key).into() }
    }
}

/// What a scan that is still there has passed: from where to where.
struct Live {
    keyspace: u32,
    passed: Option<(Edge, Option<Edge>)>,
}

struct State {
    set: ReadSet,
    live: BTreeMap<u64, Live>,
    next: u64,
    is_closed: bool,
    charge: Charge,
}

impl State {
    fn new(charge: Charge) -> State {
        State { set: ReadSet::default(), live: BTreeMap::new(), next: 0, is_closed: false, charge }
    }

    /// What the scans have passed so far goes into the set; they go on.
    fn settle(&mut self) {
        for live in self.live.values_mut() {
            if let Some((from, to)) = live.passed.take() {
                self.set.add_span(live.keyspace, &from, to.as_ref());
            }
        }
    }
}

/// A transaction's read set while it grows: the transaction and its scans write into it, from whichever thread.
pub(crate) struct ReadLog {
    state: Mutex<State>,
    bytes_max: usize,
    /// Of all transactions together.
    all_max: u64,
}

impl ReadLog {
    pub(crate) fn new(bytes_max: usize, all_max: u64, part: &Arc<AtomicU64>) -> Arc<ReadLog> {
        let state = State::new(Charge::none(part));
        Arc::new(ReadLog { state: Mutex::new(state), bytes_max, all_max })
    }

    /// Sees to it that the set is within its share of memory; rather too much is known to have been read than too little.
    fn fit(&self, state: &mut State) {
        state.set.fit(self.bytes_max);
        state.charge.set(state.set.bytes as u64);
        if state.charge.bytes() > 0 && state.charge.all() > self.all_max {
            state.set.fit(state.set.bytes / 2);
            state.charge.set(state.set.bytes as u64);
        }
    }

    /// A row was asked for, and so its keyspace was.
    pub(crate) fn note_row(&self, life: &Life, key: &[u8]) {
        let mut state = self.state.lock();
        if !state.set.knows(life.id()) {
            state.set.add_point(CATALOGUE, life.name().as_bytes());
        }
        state.set.add_point(life.id(), key);
        self.fit(&mut state);
    }

    /// Something of a keyspace was read; which rows is not known any more.
    pub(crate) fn note_all(&self, life: &Life) {
        self.state.lock().set.add_span(life.id(), &Edge::first(), None);
    }

    /// Whether there is a keyspace of this name was asked for.
    pub(crate) fn note_name(&self, name: &str) {
        let mut state = self.state.lock();
        state.set.add_point(CATALOGUE, name.as_bytes());
        self.fit(&mut state);
    }

    /// The set as it is now. A copy: whoever compares it meets the sequencer, and holds no lock on the way.
    pub(crate) fn now(&self) -> ReadSet {
        let mut state = self.state.lock();
        state.settle();
        state.set.clone()
    }

    /// Whether scans are still there, which read on from where they began.
    pub(crate) fn has_scans(&self) -> bool {
        !self.state.lock().live.is_empty()
    }

    /// The whole set; whoever reads on is told that it is too late.
    pub(crate) fn close(&self) -> ReadSet {
        let mut state = self.state.lock();
        state.settle();
        state.is_closed = true;
        std::mem::take(&mut state.set)
    }
}

/// One direction of a scan, or a cursor, as its transaction's read set knows it.
pub(crate) struct Track {
    log: Arc<ReadLog>,
    number: u64,
}

impl Track {
    pub(crate) fn new(log: &Arc<ReadLog>, keyspace: u32) -> Track {
        let mut state = log.state.lock();
        let number = state.next;
        state.next += 1;
        state.live.insert(number, Live { keyspace, passed: None });
        drop(state);
        Track { log: Arc::clone(log), number }
    }

    /// What lies between these places was read. To be called before it is shown.
    pub(crate) fn pass(&self, from: Edge, to: Option<Edge>) -> Result<()> {
        let mut state = self.log.state.lock();
        let state = &mut *state;
        if state.is_closed {
            return Err(ended());
        }
        let Some(live) = state.live.get_mut(&self.number) else { return Ok(()) };
        match &mut live.passed {
            Some((_, end)) if end.as_ref() == Some(&from) => *end = to,
            Some((start, _)) if to.as_ref() == Some(&*start) => *start = from,
            Some(passed) => {
                let (from, to) = std::mem::replace(passed, (from, to));
                state.set.add_span(live.keyspace, &from, to.as_ref());
                self.log.fit(state);
            }
            passed => *passed = Some((from, to)),
        }
        Ok(())
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        let mut state = self.log.state.lock();
        let state = &mut *state;
        if let Some(Live { keyspace, passed: Some((from, to)) }) = state.live.remove(&self.number)
            && !state.is_closed
        {
            state.set.add_span(keyspace, &from, to.as_ref());
            self.log.fit(state);
        }
    }
}

/// Of a scan whose transaction is over.
pub(crate) fn ended() -> Error {
    Error::BadInput("the transaction of this scan has ended: read from a snapshot, or before it ends".into())
}

#[cfg(test)]
mod tests;
