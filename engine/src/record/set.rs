//! What the operations of one payload come to.

use super::{
    ADD, BRANCHES, BranchRow, Effect, Malformed, OpPlace, REMOVE_RANGE, SET, decode_places, decode_places_of,
};
use crate::cover::{Cover, Span};
use crate::number::number_of;
use seawall_wal::Slice;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a transaction changes: its payload, the ranges that it clears, and the rows that it sets *after* that, sorted
/// by (keyspace, key), one per key, as all operations on it together leave it.
#[derive(Clone, Debug)]
pub(crate) struct WriteSet {
    payload: Arc<Vec<u8>>,
    rows: Vec<OpPlace>,
    /// By keyspace, in key order, none touching another.
    removed: Vec<(u32, Span)>,
    created: Vec<u32>,
    dropped: Vec<u32>,
    has_adds: bool,
    /// Of the large values in it: set before a record may name them.
    pub(super) naming: Vec<Arc<AtomicBool>>,
    /// What names the extents of large values that will not be put after all: those of a prepared transaction whose end
    /// this is.
    given_up: Vec<Slice>,
    /// Adds what it adds wherever the rows stand by then, and overwrites whatever else is there.
    pub(crate) is_blind: bool,
    flaw: Option<Malformed>,
}

type RowKey<'a> = (u32, &'a [u8]);

fn row_key<'a>(payload: &'a [u8], row: &OpPlace) -> RowKey<'a> {
    (row.row_keyspace(), payload.get(row.key_range()).unwrap_or_default())
}

impl WriteSet {
    pub(super) fn new(payload: Arc<Vec<u8>>, mut rows: Vec<OpPlace>) -> WriteSet {
        let created = rows.iter().filter_map(OpPlace::created).collect();
        let dropped = rows.iter().filter_map(OpPlace::dropped).collect();
        let (mut removed, mut flaw) = (Vec::new(), None);
        let mut cleared = BTreeMap::new();
        if rows.iter().any(|row| row.op == REMOVE_RANGE) {
            cleared = clear(&payload, &mut rows);
            let spans = |(keyspace, cover): (&u32, &Cover)| {
                let keyspace = *keyspace;
                cover.spans().into_iter().map(move |span| (keyspace, span))
            };
            removed = cleared.iter().flat_map(spans).collect();
        }
        let has_adds = rows.iter().any(|row| row.op == ADD);
        let is_sorted = rows.is_sorted_by(|a, b| row_key(&payload, a) < row_key(&payload, b));
        if !is_sorted {
            rows.sort_by(|a, b| row_key(&payload, a).cmp(&row_key(&payload, b)));
        }
        if has_adds {
            flaw = add_up(&payload, &mut rows, &cleared).err();
        } else if !is_sorted {
            // The sort is stable, so of several writes to one key the last in call order is the last here.
            rows.dedup_by(|later, kept| {
                let same = row_key(&payload, later) == row_key(&payload, kept);
                if same {
                    *kept = *later;
                }
                same
            });
        }
        let has_adds = has_adds && rows.iter().any(|row| row.op == ADD);
        WriteSet {
            payload,
            rows,
            removed,
            created,
            dropped,
            has_adds,
            naming: Vec::new(),
            given_up: Vec::new(),
            is_blind: false,
            flaw,
        }
    }

    /// From a payload of the log.
    pub(crate) fn decode(payload: Vec<u8>) -> Result<WriteSet, Malformed> {
        let places = decode_places(&payload)?;
        WriteSet::sound(payload, places)
    }

    /// As [`decode`](Self::decode), of what a transaction has prepared.
    pub(super) fn decode_prepared(payload: Vec<u8>) -> Result<WriteSet, Malformed> {
        let places = decode_places_of(&payload, false)?;
        WriteSet::sound(payload, places)
    }

    fn sound(payload: Vec<u8>, places: Vec<OpPlace>) -> Result<WriteSet, Malformed> {
        let set = WriteSet::new(Arc::new(payload), places);
        match set.flaw {
            Some(flaw) => Err(flaw),
            None => Ok(set),
        }
    }

    /// What no encoder's caller may ask for: an add to a value of the same payload that is no number.
    pub(crate) fn flaw(&self) -> Option<Malformed> {
        self.flaw
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.removed.is_empty()
    }

    pub(crate) fn payload(&self) -> &Arc<Vec<u8>> {
        &self.payload
    }

    /// Name and catalogue row of each keyspace that begins.
    pub(crate) fn creations(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let rows = self.rows.iter().filter(|row| row.created().is_some());
        rows.filter_map(|row| Some((self.key_of(row).1, self.payload.get(row.value_range()?)?)))
    }

    pub(crate) fn rows(&self) -> &[OpPlace] {
        &self.rows
    }

    /// What names the extents of each large value that it puts.
    pub(crate) fn large(&self) -> impl Iterator<Item = Slice> + '_ {
        let ranges = self.rows.iter().filter_map(|row| match row.effect() {
            Some(Effect::PutLarge(range)) => Some(range),
            _ => None,
        });
        ranges.map(|range| WriteSet::slice(&self.payload, range))
    }

    /// Of each large value, what says that a record may name it.
    pub(crate) fn naming(&self) -> &[Arc<AtomicBool>] {
        &self.naming
    }

    /// With it, large values that a record before it named are given up.
    pub(crate) fn giving_up(mut self, values: impl IntoIterator<Item = Slice>) -> WriteSet {
        // Copies: what they lie in may be long.
        self.given_up.extend(values.into_iter().map(|value| Slice::from(value.to_vec())));
        self
    }

    /// What names the extents of each large value that is given up with it.
    pub(crate) fn given_up(&self) -> &[Slice] {
        &self.given_up
    }

    /// The xid's key of the transaction that votes or ends with it, and what it says of that one.
    pub(crate) fn branch(&self) -> Option<(&[u8], BranchRow)> {
        // No keyspace of rows has a higher id.
        let row = self.rows.last().filter(|row| row.keyspace == BRANCHES)?;
        let range = row.value_at as usize..(row.value_at + row.value_bytes) as usize;
        Some((self.key_of(row).1, BranchRow::decode(self.payload.get(range)?)?))
    }

    /// The ranges that are cleared, by keyspace: before the rows are set.
    pub(crate) fn removed(&self) -> &[(u32, Span)] {
        &self.removed
    }

    /// Whether a row's present value is added to.
    pub(crate) fn has_adds(&self) -> bool {
        self.has_adds
    }

    /// Ids of keyspaces that begin.
    pub(crate) fn created(&self) -> &[u32] {
        &self.created
    }

    /// Ids of keyspaces that end.
    pub(crate) fn dropped(&self) -> &[u32] {
        &self.dropped
    }

    /// (keyspace, key) of a row.
    pub(crate) fn key_of(&self, row: &OpPlace) -> (u32, &[u8]) {
        row_key(&self.payload, row)
    }

    /// Whether it changes the row: sets it, adds to it, or clears a range with it.
    pub(crate) fn contains(&self, keyspace: u32, key: &[u8]) -> bool {
        self.row(keyspace, key).is_some() || self.clears(keyspace, key)
    }

    /// As [`contains`](Self::contains), adds left out.
    pub(crate) fn overwrites(&self, keyspace: u32, key: &[u8]) -> bool {
        self.row(keyspace, key).is_some_and(|row| row.op != ADD) || self.clears(keyspace, key)
    }

    /// Whether it changes any row of the span.
    pub(crate) fn meets(&self, keyspace: u32, span: &Span) -> bool {
        let first = self.rows.partition_point(|row| self.key_of(row) < (keyspace, &*span.from));
        let has_row = self.rows.get(first).is_some_and(|row| {
            let (found, key) = self.key_of(row);
            found == keyspace && span.contains(key)
        });
        // They do not touch each other: one that begins before the span may reach into it, or else the next begins in it.
        let behind = self
            .removed
            .partition_point(|(removed, other)| (*removed, &other.from) <= (keyspace, &span.from));
        let near = self.removed.get(behind.saturating_sub(1)..self.removed.len().min(behind + 1));
        let meets = |(removed, other): &(u32, Span)| *removed == keyspace && span.meets(other);
        has_row || near.is_some_and(|near| near.iter().any(meets))
    }

    fn row(&self, keyspace: u32, key: &[u8]) -> Option<&OpPlace> {
        let found = self.rows.binary_search_by(|row| self.key_of(row).cmp(&(keyspace, key)));
        found.ok().and_then(|at| self.rows.get(at))
    }

    fn clears(&self, keyspace: u32, key: &[u8]) -> bool {
        let behind =
            self.removed.partition_point(|(removed, span)| (*removed, &*span.from) <= (keyspace, key));
        let last = behind.checked_sub(1).and_then(|at| self.removed.get(at));
        last.is_some_and(|(removed, span)| *removed == keyspace && span.contains(key))
    }

    /// The key as a slice that shares the payload.
    pub(crate) fn slice(payload: &Arc<Vec<u8>>, range: Range<usize>) -> Slice {
        let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::<Vec<u8>>::clone(payload);
        Slice::new(owner, range)
    }
}

/// Takes the ranges out, and the rows that a later range clears. What is cleared, by keyspace.
fn clear(payload: &[u8], ops: &mut Vec<OpPlace>) -> BTreeMap<u32, Cover> {
    let mut covers: BTreeMap<u32, Cover> = BTreeMap::new();
    for (at, op) in ops.iter().enumerate().filter(|(_, op)| op.op == REMOVE_RANGE) {
        if let Some(span) = op.bounds(payload).and_then(|(from, to)| Span::new(from, to)) {
            let cover = covers.entry(op.keyspace).or_default();
            *cover = cover.laid(&span, 1 + at as u64);
        }
    }
    let mut at = 0;
    ops.retain(|op| {
        at += 1;
        let (keyspace, key) = row_key(payload, op);
        let last = covers.get(&keyspace).and_then(|cover| cover.mark(key));
        op.op != REMOVE_RANGE && last.is_none_or(|last| last < at)
    });
    covers
}

/// Makes one operation of all on the same row; they stand beside each other, in call order. Whatever is cleared was
/// cleared before.
fn add_up(payload: &[u8], rows: &mut Vec<OpPlace>, cleared: &BTreeMap<u32, Cover>) -> Result<(), Malformed> {
    let mut sums: Vec<OpPlace> = Vec::with_capacity(rows.len());
    for row in &*rows {
        let key = row_key(payload, row);
        let before = sums.last().filter(|before| row_key(payload, before) == key).copied();
        let mut row = *row;
        if let Some(Effect::Add(delta)) = row.effect() {
            let is_cleared = || cleared.get(&key.0).is_some_and(|cover| cover.mark(key.1).is_some());
            match before.as_ref().map(OpPlace::effect) {
                None if !is_cleared() => {}
                None => row.set_number(SET, delta),
                Some(Some(Effect::Add(sum))) => row.set_number(ADD, sum.wrapping_add(delta)),
                Some(Some(Effect::Set(sum))) => row.set_number(SET, sum.wrapping_add(delta)),
                Some(Some(Effect::Put(value))) => {
                    let value = payload.get(value).and_then(number_of);
                    let what = "an add to a value that is no number";
                    let value = value.ok_or(Malformed { at: row.key_at as usize, what })?;
                    row.set_number(SET, value.wrapping_add(delta));
                }
                Some(Some(Effect::PutLarge(_))) => {
                    let what = "an add to a value that is no number";
                    return Err(Malformed { at: row.key_at as usize, what });
                }
                Some(Some(Effect::Remove) | None) => row.set_number(SET, delta),
            }
        }
        match sums.last_mut() {
            Some(last) if before.is_some() => *last = row,
            _ => sums.push(row),
        }
    }
    *rows = sums;
    Ok(())
}
