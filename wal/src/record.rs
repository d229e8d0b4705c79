//! The bytes of a record: a 24-byte header, then its payload. Pure: no I/O.
//!
//! //= docs/format/wal.md#record
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | payload length |
//! | 4 | 1 | kind, never 0, so that zeroed space does not parse |
//! | 5 | 1 | flags, 0 |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 8 | group id |
//! | 16 | 8 | commit time, µs since 1970 |
#![warn(clippy::indexing_slicing)]

use crate::bytes::{get_u16, get_u32, get_u64, put};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 24;

/// The largest payload that one record may have, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 31;

/// What a record is, for whoever wrote it; the log itself looks at it only to refuse 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// A record of a log used alone: opaque bytes.
    pub const RECORD: Kind = Kind(1);
    /// One committed transaction of an engine.
    pub const TRANSACTION: Kind = Kind(2);
    /// Reserved in format 1: a prepared transaction.
    pub const PREPARE: Kind = Kind(3);
    /// Reserved in format 1: a prepared transaction's outcome.
    pub const OUTCOME: Kind = Kind(4);
    /// Reserved in format 1: extents written beside the log, named by length and checksum.
    pub const EXTENTS: Kind = Kind(5);
    /// An epoch begins: whoever was promoted writes it first.
    pub const EPOCH: Kind = Kind(6);
    /// Reserved in format 1: a coordinator's decision.
    pub const DECISION: Kind = Kind(7);
    /// Reserved in format 1: a consensus entry.
    pub const CONSENSUS: Kind = Kind(8);
    /// Reserved in format 1: a consumer's or a slot's position.
    pub const POSITION: Kind = Kind(9);
}

/// A decoded record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload that follow.
    pub length: u32,
    /// What it is; never 0.
    pub kind: Kind,
    /// The group (replication, consensus) that it belongs to; 0 for a store's own.
    pub group: u64,
    /// When it was placed, in µs since 1970, never before its predecessor.
    pub time_us: u64,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, 0, &self.length.to_le_bytes());
        put(&mut bytes, 4, &[self.kind.0]);
        put(&mut bytes, 8, &self.group.to_le_bytes());
        put(&mut bytes, 16, &self.time_us.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` if there are too few bytes, or if they cannot be one.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let header = Header {
            length: get_u32(bytes, 0),
            kind: Kind(*bytes.get(4)?),
            group: get_u64(bytes, 8),
            time_us: get_u64(bytes, 16),
        };
        let reserved_is_zero = *bytes.get(5)? == 0 && get_u16(bytes, 6) == 0;
        (header.kind.0 != 0 && reserved_is_zero && header.length as usize <= PAYLOAD_BYTES_MAX)
            .then_some(header)
    }
}

/// Walks the whole records of a frame's payload; `None` as an item says that the rest does not parse.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    /// Records in `payload`, which starts at a record's first byte.
    pub fn new(payload: &'a [u8]) -> Self {
        Records { rest: payload, offset: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    /// Offset in the payload, header, bytes.
    type Item = Option<(usize, Header, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = Header::decode(self.rest).and_then(|header| {
            let end = HEADER_BYTES.checked_add(header.length as usize)?;
            Some((header, self.rest.get(HEADER_BYTES..end)?, self.rest.get(end..)?, end))
        });
        let Some((header, payload, rest, bytes)) = parsed else {
            self.rest = &[];
            return Some(None);
        };
        let offset = self.offset;
        self.rest = rest;
        self.offset += bytes;
        Some(Some((offset, header, payload)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_zeros_do_not_parse() {
        let header = Header { length: 7, kind: Kind::TRANSACTION, group: 3, time_us: u64::MAX };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), None);
        assert_eq!(Header::decode(&header.encode()[..23]), None);
    }

    #[test]
    fn records_stop_at_what_does_not_parse() {
        let mut payload = Vec::new();
        for text in [&b"one"[..], b"", b"three"] {
            let header = Header { length: text.len() as u32, kind: Kind::RECORD, group: 0, time_us: 1 };
            payload.extend_from_slice(&header.encode());
            payload.extend_from_slice(text);
        }
        let found: Vec<_> = Records::new(&payload).map(|r| r.unwrap().2.to_vec()).collect();
        assert_eq!(found, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
        payload.pop();
        assert!(Records::new(&payload).last().unwrap().is_none());
    }
}
