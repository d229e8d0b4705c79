//! Merging, both ways: a transaction's own writes over the active delta over frozen deltas over the tree.
//!
//! Every source yields each of its rows once, in key order, in the newest version that the snapshot sees. Where
//! several have the same key the newest source wins, and a removal there hides what lies below; adds are added to it. What a source
//! has cleared hides the rows of all sources below it: of those, whatever is cleared is stepped over at once, however
//! many rows there are. A scan owns all that
//! it reads from, and holds no lock and no place in a shared structure between two rows: deltas and own writes are
//! read in chunks, each beginning after the last key of the one before.

use crate::cover::{Cover, Span};
use crate::delta::{Delta, Version, Want};
use crate::key::{Entry, KeyRange, OwnedRange, bound_bytes};
use crate::keyspace::Life;
use crate::read::track::{Edge, ReadLog, Track, ended};
use crate::read::view::{Found, Reads, Snapshot};
use crate::sync::{AtomicBool, Ordering as Atomic};
use crate::tree::{RunRow, TreeCursor};
use crate::{Error, Result};
use seawall_wal::{Lsn, Slice};
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::iter::FusedIterator;
use std::ops::Bound;
use std::sync::Arc;

/// A key of a transaction's own writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnKey(pub(crate) Slice);

impl Borrow<[u8]> for OwnKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}
impl PartialOrd for OwnKey {
    fn partial_cmp(&self, other: &OwnKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for OwnKey {
    fn cmp(&self, other: &OwnKey) -> Ordering {
        (*self.0).cmp(&*other.0)
    }
}

/// A transaction's own writes to one keyspace.
pub(crate) type OwnRows = BTreeMap<OwnKey, Version>;

/// What a transaction adds to its snapshot: its writes as of now, and whether it has ended.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) rows: Option<Arc<OwnRows>>,
    /// What it has cleared, below its rows.
    pub(crate) cleared: Cover,
    pub(crate) has_ended: Option<Arc<AtomicBool>>,
    /// Where what is shown is noted, if the transaction is to be validated for it.
    pub(crate) reads: Option<Arc<ReadLog>>,
    /// The transaction itself created the keyspace: no snapshot has it.
    pub(crate) is_new: bool,
}

impl Own {
    pub(crate) fn none() -> Own {
        Own { rows: None, cleared: Cover::default(), has_ended: None, reads: None, is_new: false }
    }

    fn check(&self) -> Result<()> {
        match &self.has_ended {
            Some(is_over) if is_over.load(Atomic::Acquire) => Err(ended()),
            _ => Ok(()),
        }
    }
}

enum Layer {
    Own(Arc<OwnRows>),
    /// Its rows; or, with true, those that were added to.
    Delta(Arc<Delta>, bool),
}

const CHUNK_ROWS_FIRST: usize = 4;
const CHUNK_ROWS_MAX: usize = 256;

/// A source that is read in chunks.
struct Chunked {
    layer: Layer,
    keyspace: u32,
    before: Lsn,
    rest: OwnedRange,
    is_reverse: bool,
    chunk: VecDeque<Found>,
    rows_max: usize,
    has_more: bool,
}

impl Chunked {
    fn next(&mut self) -> Option<Found> {
        if self.chunk.is_empty() && self.has_more {
            self.fill();
        }
        self.chunk.pop_front()
    }

    fn fill(&mut self) {
        let bounds = (bound_bytes(&self.rest.from), bound_bytes(&self.rest.to));
        let (rows_max, out) = (self.rows_max, &mut self.chunk);
        self.has_more = match &self.layer {
            Layer::Delta(delta, added) => {
                let (keyspace, before, is_reverse) = (self.keyspace, self.before, self.is_reverse);
                let want = Want { keyspace, before, rows_max, is_reverse, added: *added };
                delta.rows_between(want, bounds, out)
            }
            Layer::Own(rows) => {
                let found =
                    rows.range::<[u8], _>(bounds).map(|(key, version)| (key.0.clone(), version.clone()));
                if self.is_reverse {
                    out.extend(found.rev().take(rows_max));
                } else {
                    out.extend(found.take(rows_max));
                }
                out.len() == rows_max
            }
        };
        self.rows_max = (self.rows_max * 2).min(CHUNK_ROWS_MAX);
        if let Some((last, _)) = self.chunk.back() {
            let last = Bound::Excluded(last.clone());
            if self.is_reverse {
                self.rest.to = last;
            } else {
                self.rest.from = last;
            }
        }
    }

    /// Goes on behind a span, in which the row shown last lies.
    fn leave(&mut self, span: &Span) {
        while self.chunk.front().is_some_and(|(key, _)| span.contains(key)) {
            self.chunk.pop_front();
        }
        if self.chunk.is_empty() {
            self.has_more &= step_over(&mut self.rest, span, self.is_reverse);
        }
    }
}

/// Cuts a span off the end of a range that is read first. False if nothing is left.
fn step_over(rest: &mut OwnedRange, span: &Span, is_reverse: bool) -> bool {
    if is_reverse {
        rest.to = Bound::Excluded(Slice::from(span.from.to_vec()));
        !span.from.is_empty() && !is_empty(rest)
    } else {
        let Some(to) = &span.to else { return false };
        rest.from = Bound::Included(Slice::from(to.to_vec()));
        !is_empty(rest)
    }
}

/// The tree, below all, or a run above it.
struct Below {
    cursor: TreeCursor,
    range: OwnedRange,
    is_reverse: bool,
    is_positioned: bool,
    has_ended: bool,
    /// It is one of the runs between.
    is_run: bool,
}

impl Below {
    /// As [`next`](Self::next), as long as nothing has to be read for it. `None` says nothing: ask that.
    #[inline]
    fn next_in_leaf(&mut self) -> Option<Entry> {
        if !self.is_positioned || self.has_ended {
            return None;
        }
        let row = self.cursor.step_in_leaf(!self.is_reverse)?;
        if self.is_outside(&row.0) {
            self.has_ended = true;
            return None;
        }
        Some(row)
    }

    /// As [`next_in_leaf`](Self::next_in_leaf), but the row stays with the cursor, which lends it.
    #[inline]
    fn lend_in_leaf(&mut self) -> bool {
        if !self.is_positioned || self.has_ended || !self.cursor.lend_in_leaf(!self.is_reverse) {
            return false;
        }
        self.has_ended = self.is_outside(self.cursor.key());
        !self.has_ended
    }

    #[inline]
    fn is_outside(&self, key: &[u8]) -> bool {
        if self.is_reverse { self.range.is_before_start(key) } else { self.range.is_past_end(key) }
    }

    fn next(&mut self) -> Result<Option<Found>> {
        if self.has_ended {
            return Ok(None);
        }
        if !self.is_positioned {
            if self.is_reverse {
                self.cursor.seek_back(bound_bytes(&self.range.to))?;
            } else {
                self.cursor.seek(bound_bytes(&self.range.from))?;
            }
            // Only now: a seek that failed has to be made again.
            self.is_positioned = true;
        }
        if self.is_run {
            let row = self.cursor.step_in_run(!self.is_reverse)?;
            return Ok(row.filter(|(key, _)| !self.is_outside(key)).map(|(key, row)| match row {
                RunRow::Value(value) => (key, Version::Value(value)),
                RunRow::Removed => (key, Version::Removed),
                RunRow::Added(more) => (key, Version::Add(more)),
            }));
        }
        let row = if self.is_reverse { self.cursor.prev()? } else { self.cursor.next()? };
        Ok(row.filter(|(key, _)| !self.is_outside(key)).map(|(key, value)| (key, Version::Value(value))))
    }

    fn leave(&mut self, span: &Span) {
        self.has_ended = !step_over(&mut self.range, span, self.is_reverse);
        self.is_positioned = false;
    }
}

enum Source {
    Chunked(Box<Chunked>),
    Below(Box<Below>),
}

impl Source {
    fn next(&mut self) -> Result<Option<Found>> {
        match self {
            Source::Chunked(source) => Ok(source.next()),
            Source::Below(source) => source.next(),
        }
    }

    /// Goes on behind a span, in which the row shown last lies.
    fn leave(&mut self, span: &Span) {
        match self {
            Source::Chunked(source) => source.leave(span),
            Source::Below(source) => source.leave(span),
        }
    }
}

struct Head {
    source: Source,
    found: Option<Found>,
    /// What the sources above have cleared: so many of [`Merge::cleared`].
    below: usize,
}

impl Head {
    fn key(&self) -> &[u8] {
        self.found.as_ref().map_or(&[], |(key, _)| &**key)
    }

    /// The source's next row that no source above has cleared.
    fn next_shown(&mut self, cleared: &[Cover]) -> Result<Option<Found>> {
        let above = cleared.get(..self.below).unwrap_or_default();
        loop {
            let Some(found) = self.source.next()? else { return Ok(None) };
            match above.iter().find_map(|cleared| cleared.span_of(&found.0)) {
                None => return Ok(Some(found)),
                Some(span) => self.source.leave(&span),
            }
        }
    }
}

/// Several sources as one, newest source first.
pub(crate) struct Merge {
    heads: Vec<Head>,
    /// Newest first.
    cleared: Vec<Cover>,
    is_reverse: bool,
    reads: Arc<Reads>,
}

impl Merge {
    /// The rows of a keyspace as a snapshot sees them, `own` writes on top.
    fn of_snapshot(
        snapshot: &Snapshot,
        keyspace: u32,
        own: &Own,
        range: &OwnedRange,
        is_reverse: bool,
    ) -> Result<Merge> {
        let view = snapshot.view()?;
        let mut merge = Merge::new(snapshot.reads(), 2 + view.frozen.len(), is_reverse);
        if is_empty(range) {
            return Ok(merge);
        }
        if let Some(rows) = &own.rows {
            merge.add_chunked(Layer::Own(Arc::clone(rows)), keyspace, snapshot.lsn(), range);
        }
        if own.is_new {
            return Ok(merge);
        }
        if !own.cleared.is_empty() {
            merge.cleared.push(own.cleared.clone());
        }
        for delta in view.deltas().filter(|delta| !delta.is_empty()) {
            merge.add_delta(delta, keyspace, snapshot.lsn(), range);
        }
        let store = &snapshot.reads().store;
        for cursor in store.run_cursors(&view.root, keyspace) {
            merge.add_below(cursor, range, true);
        }
        merge.add_below(store.cursor(&view.root, keyspace), range, false);
        Ok(merge)
    }

    /// The newest version below `before` of every row that the deltas (newest first) have, removals included, and adds
    /// to what lies below them. What they have cleared is for the caller to see to.
    pub(crate) fn of_deltas(reads: &Arc<Reads>, deltas: &[Arc<Delta>], keyspace: u32, before: Lsn) -> Merge {
        let mut merge = Merge::new(reads, deltas.len(), false);
        for delta in deltas {
            merge.add_delta(delta, keyspace, before, &OwnedRange::all());
        }
        merge
    }

    fn new(reads: &Arc<Reads>, sources: usize, is_reverse: bool) -> Merge {
        let heads = Vec::with_capacity(sources);
        Merge { heads, cleared: Vec::new(), is_reverse, reads: Arc::clone(reads) }
    }

    /// A row that was added to is shown by the adds' source as all of the delta together have it: so that comes first.
    fn add_delta(&mut self, delta: &Arc<Delta>, keyspace: u32, before: Lsn, range: &OwnedRange) {
        if delta.has_adds() {
            self.add_chunked(Layer::Delta(Arc::clone(delta), true), keyspace, before, range);
        }
        self.add_chunked(Layer::Delta(Arc::clone(delta), false), keyspace, before, range);
        // Its own rows come without what it cleared later.
        self.cleared.extend(delta.cleared(keyspace, before));
    }

    fn add_chunked(&mut self, layer: Layer, keyspace: u32, before: Lsn, range: &OwnedRange) {
        let chunked = Chunked {
            layer,
            keyspace,
            before,
            rest: range.clone(),
            is_reverse: self.is_reverse,
            chunk: VecDeque::new(),
            rows_max: CHUNK_ROWS_FIRST,
            has_more: true,
        };
        self.add(Source::Chunked(Box::new(chunked)));
    }

    fn add_below(&mut self, cursor: TreeCursor, range: &OwnedRange, is_run: bool) {
        let is_reverse = self.is_reverse;
        let (range, is_positioned, has_ended) = (range.clone(), false, false);
        let below = Below { cursor, range, is_reverse, is_positioned, has_ended, is_run };
        self.add(Source::Below(Box::new(below)));
    }

    fn add(&mut self, source: Source) {
        self.heads.push(Head { source, found: None, below: self.cleared.len() });
    }

    /// The next key in its newest version, which may be a removal.
    pub(crate) fn next_found(&mut self) -> Result<Option<Found>> {
        if let [head] = &mut self.heads[..]
            && head.found.is_none()
        {
            // A store at rest has nothing but its tree.
            return head.next_shown(&self.cleared);
        }
        self.fill_heads()?;
        let mut first: Option<usize> = None;
        for (index, head) in self.heads.iter().enumerate() {
            let best = first.and_then(|first| self.heads.get(first));
            if best.is_none_or(|best| self.order(head, best).is_lt()) {
                first = Some(index);
            }
        }
        let Some(first) = first else { return Ok(None) };
        let Some((key, mut version)) = self.heads.get_mut(first).and_then(|head| head.found.take()) else {
            return Ok(None);
        };
        for head in self.heads.iter_mut().skip(first + 1) {
            if head.found.as_ref().is_some_and(|(other, _)| **other == *key)
                && let Some((_, below)) = head.found.take()
            {
                version = version.over(below);
            }
        }
        Ok(Some((key, version)))
    }

    /// Every source that has rows left shows one; the others are dropped.
    fn fill_heads(&mut self) -> Result<()> {
        let mut has_ended = false;
        for head in self.heads.iter_mut().filter(|head| head.found.is_none()) {
            head.found = head.next_shown(&self.cleared)?;
            has_ended |= head.found.is_none();
        }
        if has_ended {
            self.heads.retain(|head| head.found.is_some());
        }
        Ok(())
    }

    /// Of two heads that both show a row.
    fn order(&self, a: &Head, b: &Head) -> Ordering {
        let order = a.key().cmp(b.key());
        if self.is_reverse { order.reverse() } else { order }
    }

    /// The tree, if nothing is left above it: a store at rest has nothing else, and elsewhere a scan mostly comes to where
    /// no delta has anything.
    #[inline]
    fn tree_alone(&mut self) -> Option<&mut Below> {
        match &mut self.heads[..] {
            [Head { source: Source::Below(below), found: None, .. }] if self.cleared.is_empty() => {
                Some(below)
            }
            _ => None,
        }
    }

    /// Steps over the next row, which then stays with [`lent`](Self::lent); false says nothing: ask
    /// [`next_entry`](Self::next_entry).
    #[inline]
    pub(crate) fn lend(&mut self) -> bool {
        self.tree_alone().is_some_and(Below::lend_in_leaf)
    }

    /// The row that [`lend`](Self::lend) stepped over.
    #[inline]
    pub(crate) fn lent(&mut self) -> (&[u8], &[u8]) {
        match self.tree_alone() {
            Some(below) => (below.cursor.key(), below.cursor.lent_value()),
            None => (&[], &[]),
        }
    }

    /// The next row that is there.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        while let Some(found) = self.next_found()? {
            let (key, version) = found;
            if let Some(value) = self.reads.row_of(version)? {
                return Ok(Some((key, value)));
            }
        }
        Ok(None)
    }
}

/// True if no key can lie in the range; `BTreeMap` panics on some of these.
fn is_empty(range: &OwnedRange) -> bool {
    match (&range.from, &range.to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => **from > **to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            **from >= **to
        }
    }
}

/// What a scan or a cursor reads from.
#[derive(Clone)]
pub(crate) struct Origin {
    snapshot: Snapshot,
    keyspace: u32,
    own: Own,
}

impl Origin {
    pub(crate) fn new(snapshot: &Snapshot, life: &Life, own: Own) -> Result<Origin> {
        if own.is_new {
            own.check()?;
        } else {
            snapshot.check(life)?;
        }
        Ok(Origin { snapshot: snapshot.clone(), keyspace: life.id(), own })
    }

    pub(crate) fn merge(&self, range: &OwnedRange, is_reverse: bool) -> Result<Merge> {
        Merge::of_snapshot(&self.snapshot, self.keyspace, &self.own, range, is_reverse)
    }

    /// Notes what is passed from now on.
    pub(crate) fn track(&self) -> Option<Track> {
        self.own.reads.as_ref().map(|reads| Track::new(reads, self.keyspace))
    }

    /// An error once the transaction has ended, or the snapshot had to give way.
    pub(crate) fn check(&self) -> Result<()> {
        self.own.check()?;
        self.snapshot.check_age()
    }
}

/// The rows of a range, in key order, from either end; ends after the first error.
///
/// It owns what it reads from, so it may outlive the snapshot or transaction that it came from, and keeps alive what
/// those kept alive, until it is dropped or meets an error.
///
/// ```
/// # use seawall_engine::Db;
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// for n in 0..5_u8 {
///     rows.insert([n], "v")?;
/// }
/// let mut scan = rows.range(..);
/// // From both ends, until they meet.
/// assert_eq!(scan.next().unwrap()?.0, [0]);
/// assert_eq!(scan.next_back().unwrap()?.0, [4]);
/// assert_eq!(scan.count(), 3);
/// # Ok::<(), seawall_engine::Error>(())
/// ```
pub struct Scan {
    origin: Result<Origin, Option<Error>>,
    range: OwnedRange,
    front: Option<Side>,
    back: Option<Side>,
    /// Of the side that begins first. It is there from the start: as long as a scan may read on, its snapshot is the
    /// transaction's.
    track: Option<Track>,
    has_ended: bool,
}

/// One end of a scan: what it reads from, and where it notes that.
struct Side {
    merge: Merge,
    track: Option<Track>,
    /// The row given last came straight from the tree, where its key is still at hand.
    is_from_tree: bool,
}

impl Side {
    /// The next row, if nothing lies above the tree and nothing has to be read or noted for it.
    #[inline]
    fn next_in_leaf(&mut self) -> Option<Entry> {
        if self.track.is_some() {
            return None;
        }
        let row = self.merge.tree_alone()?.next_in_leaf()?;
        self.is_from_tree = true;
        Some(row)
    }

    /// The key of the row given last, if it came straight from the tree.
    fn key_from_tree(&mut self) -> Option<Slice> {
        if !self.is_from_tree {
            return None;
        }
        self.merge.tree_alone()?.cursor.key_slice()
    }
}

impl Scan {
    pub(crate) fn range(snapshot: &Snapshot, life: &Life, own: Own, range: &impl KeyRange) -> Scan {
        Scan::new(snapshot, life, own, OwnedRange::new(range))
    }

    pub(crate) fn prefix(snapshot: &Snapshot, life: &Life, own: Own, prefix: &[u8]) -> Scan {
        Scan::new(snapshot, life, own, OwnedRange::prefix(prefix))
    }

    fn new(snapshot: &Snapshot, life: &Life, own: Own, range: OwnedRange) -> Scan {
        let origin = Origin::new(snapshot, life, own).map_err(Some);
        let track = origin.as_ref().ok().and_then(Origin::track);
        Scan { origin, range, front: None, back: None, track, has_ended: false }
    }

    pub(crate) fn failed(error: Error) -> Scan {
        let range = OwnedRange::all();
        Scan { origin: Err(Some(error)), range, front: None, back: None, track: None, has_ended: false }
    }

    /// The keys alone.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// rows.insert("b", "2")?;
    /// let keys: Result<Vec<_>, _> = rows.range(..).keys().rev().collect();
    /// assert_eq!(keys?, ["b", "a"]);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn keys(self) -> impl DoubleEndedIterator<Item = Result<Slice>> + Send + 'static {
        self.map(|row| row.map(|(key, _)| key))
    }

    fn step(&mut self, is_reverse: bool) -> Result<Option<Entry>> {
        let origin = match &mut self.origin {
            Ok(origin) => origin,
            Err(error) => return error.take().map_or(Ok(None), Err),
        };
        origin.check()?;
        // Where the sides stand has not been noted since a row came straight from the tree.
        if let Some(key) = self.front.as_mut().and_then(Side::key_from_tree) {
            self.range.from = Bound::Excluded(key);
        }
        if let Some(key) = self.back.as_mut().and_then(Side::key_from_tree) {
            self.range.to = Bound::Excluded(key);
        }
        let side = if is_reverse { &mut self.back } else { &mut self.front };
        let side = match side {
            Some(side) => side,
            None => {
                let merge = origin.merge(&self.range, is_reverse)?;
                let track = self.track.take().or_else(|| origin.track());
                side.insert(Side { merge, track, is_from_tree: false })
            }
        };
        side.is_from_tree = false;
        let entry = side.merge.next_entry()?;
        let entry = entry.filter(|(key, _)| {
            // Otherwise the other side has been here already.
            if is_reverse { !self.range.is_before_start(key) } else { !self.range.is_past_end(key) }
        });
        if let Some(track) = &side.track {
            let (mut from, mut to) = (Edge::start(&self.range.from), Edge::end(&self.range.to));
            match &entry {
                Some((key, _)) if is_reverse => from = Edge::before(key),
                Some((key, _)) => to = Some(Edge::behind(key)),
                None => {}
            }
            track.pass(from, to)?;
        }
        let Some((key, value)) = entry else { return Ok(None) };
        let consumed = Bound::Excluded(key.clone());
        if is_reverse {
            self.range.to = consumed;
        } else {
            self.range.from = consumed;
        }
        Ok(Some((key, value)))
    }

    #[inline]
    fn take(&mut self, is_reverse: bool) -> Option<Result<Entry>> {
        let (side, other) =
            if is_reverse { (&mut self.back, &self.front) } else { (&mut self.front, &self.back) };
        // With two sides, each must see where the other has been.
        if let (Some(side), None, Ok(origin)) = (side, other, &self.origin)
            && origin.check().is_ok()
            && let Some(row) = side.next_in_leaf()
        {
            return Some(Ok(row));
        }
        self.take_any(is_reverse)
    }

    fn take_any(&mut self, is_reverse: bool) -> Option<Result<Entry>> {
        if self.has_ended {
            return None;
        }
        let step = self.step(is_reverse).transpose();
        if !matches!(step, Some(Ok(_))) {
            self.has_ended = true;
            (self.front, self.back, self.track) = (None, None, None);
        }
        step
    }
}

impl Iterator for Scan {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        self.take(false)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Result<Entry>> {
        self.take(true)
    }
}

impl FusedIterator for Scan {}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("range", &self.range).finish_non_exhaustive()
    }
}
