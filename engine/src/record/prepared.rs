//! What the row of a prepared transaction holds: all that its outcome will need, and all that others must respect until
//! then. Pure. The bytes are described in `docs/format/wal.md`, "Prepared transactions".

use super::{Reader, WriteSet};
use crate::cover::Span;
use crate::read::track::ReadSet;

const PREPARED: u8 = 1;
const COMPLETED: u8 = 2;
const SERIALIZABLE: u8 = 1;
/// Of a [`Completion`].
pub(super) const COMPLETION_BYTES: usize = 20;

/// A transaction that has voted.
#[derive(Clone, Debug)]
pub(crate) struct PreparedRow {
    /// Ascends with the order of preparing; never given again while one of that xid is open.
    pub(crate) serial: u64,
    /// Its record does not stand before this position.
    pub(crate) lsn: u64,
    /// When it was prepared, in µs since 1970.
    pub(crate) time_us: u64,
    pub(crate) is_serializable: bool,
    pub(crate) reads: ReadSet,
    pub(crate) set: WriteSet,
}

/// How a prepared transaction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// 1 committed, 2 rolled back, 3 forgotten; by an operator 4 committed, 5 rolled back, 6 mixed, 7 hazard.
    pub(crate) outcome: u8,
    pub(crate) serial: u64,
    pub(crate) time_us: u64,
}

/// What a row of the table of prepared transactions says.
#[derive(Clone, Debug)]
pub(crate) enum BranchRow {
    Prepared(Box<PreparedRow>),
    Completed(Completion),
}

impl PreparedRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = if self.is_serializable { SERIALIZABLE } else { 0 };
        let mut out = vec![PREPARED, flags, 0, 0];
        for number in [self.serial, self.lsn, self.time_us] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let (points, spans) = (self.reads.points().count() as u32, self.reads.spans().count() as u32);
        out.extend_from_slice(&points.to_le_bytes());
        out.extend_from_slice(&spans.to_le_bytes());
        let put = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        for (keyspace, key) in self.reads.points() {
            out.extend_from_slice(&keyspace.to_le_bytes());
            put(&mut out, key);
        }
        for (keyspace, span) in self.reads.spans() {
            out.extend_from_slice(&keyspace.to_le_bytes());
            put(&mut out, &span.from);
            out.push(u8::from(span.to.is_some()));
            put(&mut out, span.to.as_deref().unwrap_or_default());
        }
        out.extend_from_slice(self.set.payload());
        out
    }
}

impl Completion {
    /// Whether the record that says so makes the writes.
    pub(crate) fn applies(&self) -> bool {
        matches!(self.outcome, 1 | 4)
    }

    pub(crate) fn encode(&self) -> [u8; COMPLETION_BYTES] {
        let mut out = [0; COMPLETION_BYTES];
        let parts =
            [&[COMPLETED, self.outcome, 0, 0][..], &self.serial.to_le_bytes(), &self.time_us.to_le_bytes()];
        for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        out
    }
}

impl BranchRow {
    //= docs/format/wal.md#prepared-transactions
    /// None unless these are exactly the bytes that an encoder writes.
    pub(crate) fn decode(row: &[u8]) -> Option<BranchRow> {
        let mut reader = Reader { bytes: row, at: 0 };
        let [kind, second, 0, 0] = reader.array().ok()? else { return None };
        let serial = u64::from_le_bytes(reader.array().ok()?);
        if kind == COMPLETED {
            let time_us = u64::from_le_bytes(reader.array().ok()?);
            let is_whole = row.len() == COMPLETION_BYTES && (1..=7).contains(&second);
            return is_whole.then_some(BranchRow::Completed(Completion { outcome: second, serial, time_us }));
        }
        if kind != PREPARED || second & !SERIALIZABLE != 0 {
            return None;
        }
        let lsn = u64::from_le_bytes(reader.array().ok()?);
        let time_us = u64::from_le_bytes(reader.array().ok()?);
        let points = u32::from_le_bytes(reader.array().ok()?);
        let spans = u32::from_le_bytes(reader.array().ok()?);
        let mut reads = ReadSet::default();
        let key = |reader: &mut Reader<'_>| -> Option<Box<[u8]>> {
            let len = u32::from_le_bytes(reader.array().ok()?) as usize;
            reader.take(len).ok().map(Into::into)
        };
        for _ in 0..points {
            let keyspace = u32::from_le_bytes(reader.array().ok()?);
            reads.add_point(keyspace, &key(&mut reader)?);
        }
        for _ in 0..spans {
            let keyspace = u32::from_le_bytes(reader.array().ok()?);
            let from = key(&mut reader)?;
            let [has_end] = reader.array().ok()?;
            let to = key(&mut reader)?;
            let is_right = if has_end == 1 { from < to } else { has_end == 0 && to.is_empty() };
            if !is_right {
                return None;
            }
            let to = (has_end == 1).then_some(to);
            reads.add(keyspace, Span { from: from.into(), to: to.map(Into::into) });
        }
        let set = WriteSet::decode_prepared(row.get(reader.at..)?.to_vec()).ok()?;
        if set.is_empty() {
            return None;
        }
        let is_serializable = second == SERIALIZABLE;
        let found = PreparedRow { serial, lsn, time_us, is_serializable, reads, set };
        // What overlaps, or is out of order, no encoder writes.
        (found.encode() == row).then(|| BranchRow::Prepared(Box::new(found)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::record::Builder;

    fn row() -> PreparedRow {
        let mut builder = Builder::default();
        builder.put(3, b"key", b"value");
        builder.add(3, b"sum", -4);
        let mut reads = ReadSet::default();
        reads.add_point(0, b"accounts");
        reads.add_point(3, b"other");
        reads.add(3, Span { from: b"a".to_vec().into(), to: Some(b"b".to_vec().into()) });
        reads.add(3, Span { from: b"x".to_vec().into(), to: None });
        PreparedRow { serial: 9, lsn: 77, time_us: 5, is_serializable: true, reads, set: builder.finish() }
    }

    #[test]
    fn a_prepared_row_comes_back_whole() {
        let bytes = row().encode();
        let Some(BranchRow::Prepared(found)) = BranchRow::decode(&bytes) else { panic!() };
        assert_eq!(found.encode(), bytes);
        assert_eq!((found.serial, found.lsn, found.time_us, found.is_serializable), (9, 77, 5, true));
        assert_eq!((found.reads.points().count(), found.reads.spans().count()), (2, 2));
        assert_eq!(found.set.rows().len(), 2);
        let completion = Completion { outcome: 5, serial: 1 << 40, time_us: 3 };
        let Some(BranchRow::Completed(found)) = BranchRow::decode(&completion.encode()) else { panic!() };
        assert_eq!(found, completion);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_none() {
        let bytes = row().encode();
        for len in 0..bytes.len() {
            assert!(BranchRow::decode(&bytes[..len]).is_none(), "{len}");
        }
        assert!(BranchRow::decode(&[&bytes[..], &[0]].concat()).is_none());
        let completion = Completion { outcome: 8, serial: 1, time_us: 3 };
        assert!(BranchRow::decode(&completion.encode()).is_none());
    }
}
