//! The payload of a transaction's log record: a list of operations, and nothing else. Pure: bytes in, values out.
//!
//! The bytes are described in `docs/format/wal.md`, section "Engine records". In short, little endian:
//!
//! ```text
//! payload   u8 format = 1 · u8 flags: 1 = has an op 8 · u16 reserved = 0 · u32 number of operations · operations
//! operation u8 op · u32 keyspace · u16 key length · key · rest
//! rest      op 1, 3, 8, 9, 10, 11: u32 value length · value   5: u8 bounds · u16 end length · end   6: i64 addend
//!           else: nothing
//! ```
//!
//! A payload is also what the delta keeps: rows in memory are ranges of the payload that wrote them, so a commit
//! copies its keys and values once. `WriteSet` is a payload with what its operations come to: the ranges that are
//! cleared, and the rows that are set after that, in key order, one per key.
//!
//! Decoding is strict: any byte that an encoder would not have written is an error, and no count or length that is
//! read is trusted before it has been held against what is there.

#![warn(clippy::indexing_slicing)]

use crate::Xid;
use crate::cover::Span;
use crate::key::{KEY_BYTES_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use crate::number::NUMBER_BYTES;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

mod catalogue;
mod prepared;
mod set;

pub(crate) use catalogue::CatalogueRow;
pub use catalogue::{Compression, KeyspaceOptions};
pub(crate) use prepared::{BranchRow, Completion, PreparedRow};
pub(crate) use set::WriteSet;

/// The keyspace of keyspaces: name → catalogue row.
pub(crate) const CATALOGUE: u32 = 0;
/// The keyspace of prepared transactions: xid → what is prepared. In no catalogue.
pub(crate) const BRANCHES: u32 = u32::MAX - 2;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 8;
const OP_BYTES_MIN: usize = 7;
/// Positions in a payload are 32-bit.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const CREATE_KEYSPACE: u8 = 3;
const DROP_KEYSPACE: u8 = 4;
const REMOVE_RANGE: u8 = 5;
const ADD: u8 = 6;
// 7 is reserved: put with expiry.
const PUT_LARGE: u8 = 8;
const PREPARE: u8 = 9;
const OUTCOME: u8 = 10;
const HEURISTIC: u8 = 11;
/// A flag of the payload: it has [`PUT_LARGE`].
const HAS_LARGE: u8 = 1;
/// Bytes of what a record says of a large value: its length, and so much for each piece.
const LARGE_BYTES: (usize, usize) = (8, 32);
/// A value of the greatest length in the shortest pieces.
const LARGE_BYTES_MAX: usize = 8 + (1 << 30) / 4096 * 32;
/// In no payload: what an add comes to behind a put or a removal in the same payload.
const SET: u8 = u8::MAX;

/// One operation of a transaction, as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op<'a> {
    /// The row gets this value.
    Put {
        /// The keyspace's id.
        keyspace: u32,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// The row gets a value that stands in extents of its own in the data file.
    PutLarge {
        /// The keyspace's id.
        keyspace: u32,
        /// The key.
        key: &'a [u8],
        /// The value's length, in bytes.
        len: u64,
        /// A pointer to each of its pieces, 32 bytes each.
        pointers: &'a [u8],
    },
    /// The row is gone.
    Remove {
        /// The keyspace's id.
        keyspace: u32,
        /// The key.
        key: &'a [u8],
    },
    /// All rows between the bounds are gone.
    RemoveRange {
        /// The keyspace's id.
        keyspace: u32,
        /// Where the range starts.
        from: Bound<&'a [u8]>,
        /// Where it ends.
        to: Bound<&'a [u8]>,
    },
    /// The row's number grows by this; a row that is not there counts as 0.
    Add {
        /// The keyspace's id.
        keyspace: u32,
        /// The key.
        key: &'a [u8],
        /// What is added; it wraps.
        delta: i64,
    },
    /// A keyspace begins.
    CreateKeyspace {
        /// Its id, never used before.
        keyspace: u32,
        /// Its name.
        name: &'a str,
        /// Its row in the catalogue.
        row: &'a [u8],
    },
    /// A keyspace ends, with all its rows.
    DropKeyspace {
        /// Its id, never used again.
        keyspace: u32,
        /// Its name.
        name: &'a str,
    },
    /// A transaction has voted; its writes wait for an outcome.
    Prepare {
        /// Its xid, as a key.
        xid: &'a [u8],
        /// What is prepared.
        row: &'a [u8],
    },
    /// A prepared transaction has ended.
    Outcome {
        /// Its xid, as a key.
        xid: &'a [u8],
        /// How.
        row: &'a [u8],
        /// An operator has ended it; that is kept until it is forgotten.
        is_heuristic: bool,
    },
}

/// Where a range starts, and where it ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Why a payload is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where, in bytes from the payload's start.
    pub at: usize,
    /// What was wrong.
    pub what: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "transaction record, byte {}: {}", self.at, self.what)
    }
}

/// The operations of a payload, in the order in which they were written.
///
/// # Errors
/// If the bytes are not exactly what an encoder writes.
//= docs/format/wal.md#engine-records
pub fn decode(payload: &[u8]) -> Result<Vec<Op<'_>>, Malformed> {
    let places = decode_places(payload)?;
    Ok(places.iter().filter_map(|place| place.view(payload)).collect())
}

/// Whether a payload may name values in extents of their own, as what it puts or as what it prepares to: cheaper than to
/// decode it.
pub(crate) fn may_name_large(payload: &[u8]) -> bool {
    payload.get(1).is_some_and(|flags| flags & HAS_LARGE != 0) || payload.get(HEADER_BYTES) == Some(&PREPARE)
}

/// Where an operation's key and value stand in its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpPlace {
    op: u8,
    /// Of a range, see [`Ends`].
    ends: u8,
    keyspace: u32,
    key_at: u32,
    key_bytes: u32,
    /// The value, or a range's end; of an add, the number's lower half.
    value_at: u32,
    /// Of an add, the number's upper half.
    value_bytes: u32,
}

/// What an operation does to its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The value's place in the payload.
    Put(Range<usize>),
    /// The place in the payload of what names its extents.
    PutLarge(Range<usize>),
    Remove,
    /// The row is this number.
    Set(i64),
    /// This is added to what the row was before.
    Add(i64),
}

/// The kinds of a range's bounds, two bits each, the start's below.
#[derive(Clone, Copy)]
struct Ends(u8);

impl Ends {
    const UNBOUNDED: u8 = 0;
    const INCLUDED: u8 = 1;
    const EXCLUDED: u8 = 2;

    fn new(from: Bound<&[u8]>, to: Bound<&[u8]>) -> Ends {
        let kind = |bound| match bound {
            Bound::Unbounded => Ends::UNBOUNDED,
            Bound::Included(_) => Ends::INCLUDED,
            Bound::Excluded(_) => Ends::EXCLUDED,
        };
        Ends(kind(from) | kind(to) << 2)
    }

    fn bound(kind: u8, key: &[u8]) -> Option<Bound<&[u8]>> {
        match kind {
            Ends::UNBOUNDED if key.is_empty() => Some(Bound::Unbounded),
            Ends::INCLUDED => Some(Bound::Included(key)),
            Ends::EXCLUDED => Some(Bound::Excluded(key)),
            _ => None,
        }
    }

    /// None if these are no bounds.
    fn bounds<'a>(self, from: &'a [u8], to: &'a [u8]) -> Option<Bounds<'a>> {
        Some((Ends::bound(self.0 & 3, from)?, Ends::bound(self.0 >> 2, to)?))
    }
}

impl OpPlace {
    /// The keyspace of the row that this operation sets: the catalogue for its own operations.
    pub(crate) fn row_keyspace(&self) -> u32 {
        match self.op {
            CREATE_KEYSPACE | DROP_KEYSPACE => CATALOGUE,
            _ => self.keyspace,
        }
    }

    pub(crate) fn key_range(&self) -> Range<usize> {
        self.key_at as usize..(self.key_at + self.key_bytes) as usize
    }

    /// The value's place; none if the row is removed.
    pub(crate) fn value_range(&self) -> Option<Range<usize>> {
        let is_put = matches!(self.op, PUT | PUT_LARGE | CREATE_KEYSPACE | PREPARE | HEURISTIC);
        is_put.then(|| self.value_at as usize..(self.value_at + self.value_bytes) as usize)
    }

    /// What becomes of the row; none for a range.
    pub(crate) fn effect(&self) -> Option<Effect> {
        match self.op {
            PUT | CREATE_KEYSPACE | PREPARE | HEURISTIC => self.value_range().map(Effect::Put),
            PUT_LARGE => self.value_range().map(Effect::PutLarge),
            REMOVE | DROP_KEYSPACE | OUTCOME => Some(Effect::Remove),
            SET => Some(Effect::Set(self.number())),
            ADD => Some(Effect::Add(self.number())),
            _ => None,
        }
    }

    fn number(&self) -> i64 {
        (u64::from(self.value_at) | u64::from(self.value_bytes) << 32) as i64
    }

    fn set_number(&mut self, op: u8, number: i64) {
        let bits = number as u64;
        (self.op, self.value_at, self.value_bytes) = (op, bits as u32, (bits >> 32) as u32);
    }

    fn bounds<'a>(&self, payload: &'a [u8]) -> Option<Bounds<'a>> {
        let to = payload.get(self.value_at as usize..(self.value_at + self.value_bytes) as usize)?;
        Ends(self.ends).bounds(payload.get(self.key_range())?, to)
    }

    pub(crate) fn created(&self) -> Option<u32> {
        (self.op == CREATE_KEYSPACE).then_some(self.keyspace)
    }

    pub(crate) fn dropped(&self) -> Option<u32> {
        (self.op == DROP_KEYSPACE).then_some(self.keyspace)
    }

    fn view<'a>(&self, payload: &'a [u8]) -> Option<Op<'a>> {
        let keyspace = self.keyspace;
        let key = payload.get(self.key_range())?;
        let value = match self.value_range() {
            Some(range) => payload.get(range)?,
            None => &[],
        };
        match self.op {
            PREPARE => Some(Op::Prepare { xid: key, row: value }),
            OUTCOME | HEURISTIC => {
                let row = payload.get(self.value_at as usize..(self.value_at + self.value_bytes) as usize)?;
                Some(Op::Outcome { xid: key, row, is_heuristic: self.op == HEURISTIC })
            }
            PUT => Some(Op::Put { keyspace, key, value }),
            PUT_LARGE => {
                let len = value.first_chunk::<8>().map_or(0, |len| u64::from_le_bytes(*len));
                let pointers = value.get(LARGE_BYTES.0..).unwrap_or_default();
                Some(Op::PutLarge { keyspace, key, len, pointers })
            }
            REMOVE => Some(Op::Remove { keyspace, key }),
            CREATE_KEYSPACE => {
                Some(Op::CreateKeyspace { keyspace, name: std::str::from_utf8(key).ok()?, row: value })
            }
            DROP_KEYSPACE => Some(Op::DropKeyspace { keyspace, name: std::str::from_utf8(key).ok()? }),
            REMOVE_RANGE => {
                let (from, to) = self.bounds(payload)?;
                Some(Op::RemoveRange { keyspace, from, to })
            }
            ADD => Some(Op::Add { keyspace, key, delta: self.number() }),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(bytes).ok_or(self.bad("a length beyond all bounds"))?;
        let taken = self.bytes.get(self.at..end).ok_or(self.bad("ends in the middle of an operation"))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

fn decode_places(payload: &[u8]) -> Result<Vec<OpPlace>, Malformed> {
    decode_places_of(payload, true)
}

/// What is prepared prepares nothing itself: so decoding never goes deeper than once.
fn decode_places_of(payload: &[u8], may_prepare: bool) -> Result<Vec<OpPlace>, Malformed> {
    let mut reader = Reader { bytes: payload, at: 0 };
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(reader.bad("longer than any payload"));
    }
    let [format, flags, reserved_low, reserved_high] = reader.array()?;
    if format != FORMAT {
        return Err(Malformed { at: 0, what: "a format that this version does not know" });
    }
    if flags & !HAS_LARGE != 0 || reserved_low != 0 || reserved_high != 0 {
        return Err(Malformed { at: 1, what: "flags that this version does not know" });
    }
    let count = u32::from_le_bytes(reader.array()?) as usize;
    if count > payload.len().saturating_sub(HEADER_BYTES) / OP_BYTES_MIN {
        return Err(reader.bad("more operations announced than there is room for"));
    }
    let mut places = Vec::with_capacity(count);
    for _ in 0..count {
        places.push(decode_op(&mut reader, may_prepare)?);
    }
    if places.iter().any(|place| place.op == PUT_LARGE) != (flags & HAS_LARGE != 0) {
        return Err(Malformed { at: 1, what: "a flag that says of large values what is not so" });
    }
    if reader.at != payload.len() {
        return Err(reader.bad("bytes after the last operation"));
    }
    Ok(places)
}

fn decode_op(reader: &mut Reader<'_>, may_prepare: bool) -> Result<OpPlace, Malformed> {
    let start = reader.at;
    let bad = |what| Malformed { at: start, what };
    let [op] = reader.array()?;
    let keyspace = u32::from_le_bytes(reader.array()?);
    if keyspace == CATALOGUE {
        return Err(bad("an operation on the catalogue itself"));
    }
    if (keyspace >= BRANCHES || matches!(op, PREPARE | OUTCOME | HEURISTIC))
        && (keyspace != BRANCHES || !matches!(op, PREPARE | OUTCOME | HEURISTIC))
    {
        return Err(bad("an operation on a keyspace that is not for it"));
    }
    let key_bytes = u32::from(u16::from_le_bytes(reader.array()?));
    let key_at = reader.at as u32;
    let key = reader.take(key_bytes as usize)?;
    let mut place = OpPlace { op, ends: 0, keyspace, key_at, key_bytes, value_at: 0, value_bytes: 0 };
    if matches!(op, CREATE_KEYSPACE | DROP_KEYSPACE) {
        let is_name = (1..=NAME_BYTES_MAX).contains(&key.len()) && std::str::from_utf8(key).is_ok();
        if !is_name {
            return Err(bad("a keyspace's name that is none"));
        }
    }
    match op {
        REMOVE | DROP_KEYSPACE => {}
        PUT_LARGE => {
            place.value_bytes = u32::from_le_bytes(reader.array()?);
            let bytes = place.value_bytes as usize;
            let is_list = bytes > LARGE_BYTES.0 && (bytes - LARGE_BYTES.0).is_multiple_of(LARGE_BYTES.1);
            if !is_list || bytes > LARGE_BYTES_MAX {
                return Err(bad("a large value without a list of its pieces"));
            }
            place.value_at = reader.at as u32;
            reader.take(bytes)?;
        }
        PUT | CREATE_KEYSPACE => {
            place.value_bytes = u32::from_le_bytes(reader.array()?);
            if place.value_bytes as usize > VALUE_BYTES_MAX {
                return Err(bad("a value over the limit"));
            }
            place.value_at = reader.at as u32;
            let value = reader.take(place.value_bytes as usize)?;
            if op == CREATE_KEYSPACE && CatalogueRow::decode(value).is_none_or(|row| row.id != keyspace) {
                return Err(bad("a catalogue row that is none, or another keyspace's"));
            }
        }
        REMOVE_RANGE => {
            [place.ends] = reader.array()?;
            place.value_bytes = u32::from(u16::from_le_bytes(reader.array()?));
            place.value_at = reader.at as u32;
            let to = reader.take(place.value_bytes as usize)?;
            let bounds = Ends(place.ends).bounds(key, to).ok_or(bad("a range without right bounds"))?;
            if Span::new(bounds.0, bounds.1).is_none() {
                return Err(bad("a range without keys"));
            }
        }
        ADD => place.set_number(ADD, i64::from_le_bytes(reader.array()?)),
        PREPARE | OUTCOME | HEURISTIC if may_prepare => {
            place.value_bytes = u32::from_le_bytes(reader.array()?);
            place.value_at = reader.at as u32;
            let row = BranchRow::decode(reader.take(place.value_bytes as usize)?);
            let is_right = match (op, row) {
                (PREPARE, Some(BranchRow::Prepared(_))) => true,
                (OUTCOME, Some(BranchRow::Completed(completion))) => completion.outcome <= 3,
                (HEURISTIC, Some(BranchRow::Completed(completion))) => completion.outcome > 3,
                _ => false,
            };
            if !is_right || Xid::from_key(key).is_none() {
                return Err(bad("a prepared transaction, or its outcome, that is none"));
            }
        }
        _ => return Err(bad("an operation that this version does not know")),
    }
    Ok(place)
}

/// Writes a payload, operation by operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    ops: Vec<OpPlace>,
    naming: Vec<Arc<AtomicBool>>,
}

impl Builder {
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ops.clear();
        self.naming.clear();
    }

    /// Key and value are within their limits, and the whole within [`PAYLOAD_BYTES_MAX`]: the caller has looked.
    pub(crate) fn put(&mut self, keyspace: u32, key: &[u8], value: &[u8]) {
        self.push(PUT, keyspace, key, Some(value));
    }

    /// `value` is what names the value's extents; `naming` is set before the record gets its place.
    pub(crate) fn put_large(
        &mut self,
        keyspace: u32,
        key: &[u8],
        value: &[u8],
        naming: Option<Arc<AtomicBool>>,
    ) {
        self.push(PUT_LARGE, keyspace, key, Some(value));
        if let Some(flags) = self.bytes.get_mut(1) {
            *flags |= HAS_LARGE;
        }
        self.naming.extend(naming);
    }

    pub(crate) fn remove(&mut self, keyspace: u32, key: &[u8]) {
        self.push(REMOVE, keyspace, key, None);
    }

    /// The row is this keyspace's in the catalogue.
    pub(crate) fn create_keyspace(&mut self, keyspace: u32, name: &str, row: &[u8]) {
        self.push(CREATE_KEYSPACE, keyspace, name.as_bytes(), Some(row));
    }

    pub(crate) fn drop_keyspace(&mut self, keyspace: u32, name: &str) {
        self.push(DROP_KEYSPACE, keyspace, name.as_bytes(), None);
    }

    /// The range holds keys, and its bounds are keys: the caller has looked.
    pub(crate) fn remove_range(&mut self, keyspace: u32, (from, to): (Bound<&[u8]>, Bound<&[u8]>)) {
        fn key(bound: Bound<&[u8]>) -> &[u8] {
            match bound {
                Bound::Unbounded => &[],
                Bound::Included(key) | Bound::Excluded(key) => key,
            }
        }
        let (ends, end) = (Ends::new(from, to).0, key(to));
        let mut place = self.head(REMOVE_RANGE, keyspace, key(from), 3 + end.len());
        self.bytes.push(ends);
        self.bytes.extend_from_slice(&(end.len() as u16).to_le_bytes());
        (place.ends, place.value_at, place.value_bytes) = (ends, self.bytes.len() as u32, end.len() as u32);
        self.bytes.extend_from_slice(end);
        self.ops.push(place);
    }

    pub(crate) fn add(&mut self, keyspace: u32, key: &[u8], delta: i64) {
        let mut place = self.head(ADD, keyspace, key, NUMBER_BYTES);
        self.bytes.extend_from_slice(&delta.to_le_bytes());
        place.set_number(ADD, delta);
        self.ops.push(place);
    }

    /// A transaction votes. The row is at most as long as a payload.
    pub(crate) fn prepare(&mut self, xid: &Xid, row: &PreparedRow) {
        self.push(PREPARE, BRANCHES, &xid.to_key(), Some(&row.encode()));
    }

    /// A prepared transaction ends.
    pub(crate) fn outcome(&mut self, xid: &Xid, completion: Completion) {
        let op = if completion.outcome > 3 { HEURISTIC } else { OUTCOME };
        self.push(op, BRANCHES, &xid.to_key(), Some(&completion.encode()));
    }

    /// Goes on behind the operations of a write set.
    pub(crate) fn behind(set: &WriteSet) -> Builder {
        let payload = set.payload().to_vec();
        let ops = decode_places(&payload).unwrap_or_default();
        Builder { bytes: payload, ops, naming: set.naming().to_vec() }
    }

    /// What all operations begin with.
    fn head(&mut self, op: u8, keyspace: u32, key: &[u8], rest: usize) -> OpPlace {
        debug_assert!(key.len() <= KEY_BYTES_MAX);
        if self.bytes.is_empty() {
            // The first operation is often the only one.
            self.bytes.reserve(HEADER_BYTES + OP_BYTES_MIN + key.len() + rest);
            self.ops.reserve(1);
            self.bytes.extend_from_slice(&[FORMAT, 0, 0, 0, 0, 0, 0, 0]);
        }
        self.bytes.push(op);
        self.bytes.extend_from_slice(&keyspace.to_le_bytes());
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        let key_at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(key);
        OpPlace { op, ends: 0, keyspace, key_at, key_bytes: key.len() as u32, value_at: 0, value_bytes: 0 }
    }

    fn push(&mut self, op: u8, keyspace: u32, key: &[u8], value: Option<&[u8]>) {
        debug_assert!(op == PREPARE || value.is_none_or(|v| v.len() <= VALUE_BYTES_MAX));
        let mut place = self.head(op, keyspace, key, value.map_or(0, |value| 4 + value.len()));
        if let Some(value) = value {
            self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            place.value_at = self.bytes.len() as u32;
            place.value_bytes = value.len() as u32;
            self.bytes.extend_from_slice(value);
        }
        self.ops.push(place);
    }

    pub(crate) fn finish(mut self) -> WriteSet {
        let count = self.ops.len() as u32;
        if let Some(field) = self.bytes.get_mut(4..HEADER_BYTES) {
            field.copy_from_slice(&count.to_le_bytes());
        }
        // A large payload was moved as it grew, and lives for long.
        if self.bytes.capacity() - self.bytes.len() > self.bytes.len() / 8 {
            self.bytes.shrink_to_fit();
        }
        let mut set = WriteSet::new(Arc::new(self.bytes), self.ops);
        set.naming = self.naming;
        set
    }
}

#[cfg(test)]
mod tests;
