//! The bytes of a segment's header, and where positions lie. Pure: no I/O.
//!
//! //= docs/format/wal.md#segment-header
//!
//! A segment is one log file. Its first block is the header; frames follow. LSN = segment number × segment size +
//! offset in the file. The checksum (of the whole block but itself), the magic and the version stand in the same
//! place in every version, so that a newer file is told from a damaged one.
#![warn(clippy::indexing_slicing)]

use crate::Lsn;
use crate::bytes::{checksum_around, get, get_u32, get_u64, put};
use crate::disk::BLOCK_BYTES;

/// The format of anchor, segments and frames that this version writes.
pub const FORMAT_VERSION: u32 = 1;

/// The smallest segment: a header and fifteen blocks.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// The largest segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The segment size of a log that asks for no other.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// The number of a log's first segment.
pub const FIRST_NUMBER: u64 = 1;

pub(crate) const MAGIC: [u8; 8] = *b"SEAWALSG";
const CHECKSUM_AT: usize = 12;
/// CRC-32 (IEEE) over frames. 2 is reserved for an authenticated form with a 16-byte tag behind the payload.
pub const CHECKSUM_CRC32: u32 = 1;
const NO_PREDECESSOR: u64 = u64::MAX;
/// Incompatible feature: the predecessor was cut within a unit, of which only the records before the cut count.
const FEATURE_SPLITS: u64 = 1;
/// In place of a predecessor's last checksum: its writer did not know it, and nobody compares it.
pub(crate) const CHECKSUM_UNKNOWN: u32 = 0;
/// No log gets so far; behind it positions would not fit 64 bits.
const NUMBER_MAX: u64 = u64::MAX / SEGMENT_BYTES_MAX - 2;

/// The end of the segment before, as its successor's header remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its number.
    pub number: u64,
    /// Its salt in the use that ended there.
    pub salt: u64,
    /// Where its frames end: what stands behind was never acknowledged.
    pub end: Lsn,
    /// The checksum of its last frame, or of its header if it has none.
    pub checksum: u32,
    /// Absent unless its end, or an earlier one, was chosen: by [`Wal::truncate_after`](crate::Wal::truncate_after).
    pub cut: Option<Cut>,
}

/// Where a log was cut on purpose: what stood from there on was durable, and is no part of it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Records from here on are dropped.
    pub at: Lsn,
    /// Whether it lies within a unit, whose records before it stay.
    pub splits: bool,
}

impl Predecessor {
    /// Whether the end and the cut can be those of a predecessor of segment `number`.
    pub(crate) fn is_possible(&self, number: u64, geometry: Geometry) -> bool {
        self.cut.is_none_or(|cut| {
            cut.at <= geometry.start(number)
                && (!cut.splits || (cut.at > geometry.first_frame(self.number) && cut.at <= self.end))
        })
    }

    /// The positions that were cut out of the log, if any were: behind the first, and before the second. A position that
    /// replay starts at is none of them.
    pub(crate) fn dropped(&self, number: u64, geometry: Geometry) -> Option<(Lsn, Lsn)> {
        let cut = self.cut?;
        let from = if cut.splits { cut.at } else { cut.at.max(self.end) };
        Some((from, geometry.first_frame(number)))
    }
}

/// A decoded segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The store that it belongs to.
    pub store_id: [u8; 16],
    /// Its number; the file's name says the same.
    pub number: u64,
    /// Bytes of every segment of this log.
    pub segment_bytes: u64,
    /// Random at each use of the file.
    pub salt: u64,
    /// Absent in a log's first segment.
    pub predecessor: Option<Predecessor>,
    /// What was durable when the header was written.
    pub durable: Lsn,
    /// The epoch that it was written in.
    pub epoch: u64,
}

/// What a segment's first block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header of this version, and its checksum.
    Header(Header, u32),
    /// A whole header of a version, or with features, that this program does not know.
    Newer(u32),
    /// No header: zeros, or damage.
    None,
}

impl Header {
    /// The header's block and its checksum.
    pub fn encode(&self) -> ([u8; BLOCK_BYTES], u32) {
        let mut block = [0; BLOCK_BYTES];
        put(&mut block, 0, &MAGIC);
        put(&mut block, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut block, 32, &self.store_id);
        put(&mut block, 48, &self.number.to_le_bytes());
        put(&mut block, 56, &self.segment_bytes.to_le_bytes());
        put(&mut block, 64, &self.salt.to_le_bytes());
        let none = Predecessor { number: NO_PREDECESSOR, salt: 0, end: Lsn::ZERO, checksum: 0, cut: None };
        let predecessor = self.predecessor.unwrap_or(none);
        let cut = predecessor.cut.unwrap_or(Cut { at: Lsn::ZERO, splits: false });
        put(&mut block, 24, &u64::from(cut.splits).to_le_bytes());
        put(&mut block, 72, &predecessor.number.to_le_bytes());
        put(&mut block, 80, &predecessor.salt.to_le_bytes());
        put(&mut block, 88, &predecessor.end.0.to_le_bytes());
        put(&mut block, 96, &self.durable.0.to_le_bytes());
        put(&mut block, 104, &self.epoch.to_le_bytes());
        put(&mut block, 112, &CHECKSUM_CRC32.to_le_bytes());
        put(&mut block, 116, &predecessor.checksum.to_le_bytes());
        put(&mut block, 120, &cut.at.0.to_le_bytes());
        let checksum = checksum_around(&block, CHECKSUM_AT);
        put(&mut block, CHECKSUM_AT, &checksum.to_le_bytes());
        (block, checksum)
    }

    /// Reads a segment's first block.
    pub fn parse(block: &[u8]) -> Parsed {
        let Some(block) = block.get(..BLOCK_BYTES) else { return Parsed::None };
        let checksum = get_u32(block, CHECKSUM_AT);
        if get::<8>(block, 0) != MAGIC || checksum != checksum_around(block, CHECKSUM_AT) {
            return Parsed::None;
        }
        let version = get_u32(block, 8);
        let features = get_u64(block, 24);
        let unknown_features = features & !FEATURE_SPLITS != 0 || get_u32(block, 112) != CHECKSUM_CRC32;
        if version != FORMAT_VERSION || unknown_features {
            return Parsed::Newer(version.max(FORMAT_VERSION + u32::from(unknown_features)));
        }
        let number = get_u64(block, 72);
        let cut = Cut { at: Lsn(get_u64(block, 120)), splits: features & FEATURE_SPLITS != 0 };
        let predecessor = (number != NO_PREDECESSOR).then(|| Predecessor {
            number,
            salt: get_u64(block, 80),
            end: Lsn(get_u64(block, 88)),
            checksum: get_u32(block, 116),
            cut: (cut.splits || cut.at != Lsn::ZERO).then_some(cut),
        });
        let header = Header {
            store_id: get(block, 32),
            number: get_u64(block, 48),
            segment_bytes: get_u64(block, 56),
            salt: get_u64(block, 64),
            predecessor,
            durable: Lsn(get_u64(block, 96)),
            epoch: get_u64(block, 104),
        };
        Parsed::Header(header, checksum)
    }
}

/// Where positions lie: fixed for a log's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of every segment.
    pub segment_bytes: u64,
}

impl Geometry {
    /// The number of the segment that `lsn` lies in.
    pub fn number(self, lsn: Lsn) -> u64 {
        lsn.0 / self.segment_bytes
    }

    /// The first position of a segment: its header.
    pub fn start(self, number: u64) -> Lsn {
        Lsn(number.saturating_mul(self.segment_bytes))
    }

    /// The position of a segment's first frame.
    pub fn first_frame(self, number: u64) -> Lsn {
        self.start(number).plus(BLOCK_BYTES as u64)
    }

    /// The position behind a segment.
    pub fn end(self, number: u64) -> Lsn {
        self.start(number).plus(self.segment_bytes)
    }

    /// The offset of `lsn` in its file.
    pub fn offset(self, lsn: Lsn) -> u64 {
        lsn.0 % self.segment_bytes
    }
}

/// The file name of a segment: sixteen hexadecimal digits and `.log`.
pub fn file_name(number: u64) -> String {
    format!("{number:016x}.log")
}

/// The number in a segment's file name, if it is one that a log can reach.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let is_plain =
        digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten().filter(|number| *number <= NUMBER_MAX)
}

/// True for a size that a log may have.
pub fn is_segment_size(bytes: u64) -> bool {
    (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(BLOCK_BYTES as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            store_id: [7; 16],
            number: 12,
            segment_bytes: SEGMENT_BYTES_MIN,
            salt: 99,
            predecessor: Some(Predecessor { number: 11, salt: 98, end: Lsn(5), checksum: 6, cut: None }),
            durable: Lsn(5),
            epoch: 2,
        }
    }

    #[test]
    fn a_header_survives_and_damage_is_seen() {
        let (block, checksum) = sample().encode();
        assert_eq!(Header::parse(&block), Parsed::Header(sample(), checksum));
        let first = Header { predecessor: None, ..sample() };
        assert!(matches!(Header::parse(&first.encode().0), Parsed::Header(h, _) if h == first));
        for at in 0..BLOCK_BYTES {
            let mut bad = block;
            bad[at] ^= 0x10;
            assert_eq!(Header::parse(&bad), Parsed::None, "byte {at}");
        }
    }

    #[test]
    fn a_cut_survives() {
        for cut in [Cut { at: Lsn(4), splits: true }, Cut { at: Lsn(900), splits: false }] {
            let before = Predecessor { number: 11, salt: 98, end: Lsn(5), checksum: 6, cut: Some(cut) };
            let header = Header { predecessor: Some(before), ..sample() };
            let (block, checksum) = header.encode();
            assert_eq!(Header::parse(&block), Parsed::Header(header, checksum));
        }
    }

    #[test]
    fn an_impossible_cut_is_seen() {
        let geometry = Geometry { segment_bytes: SEGMENT_BYTES_MIN };
        let end = geometry.first_frame(11).plus(8192);
        let possible = |at: Lsn, splits| {
            let cut = Some(Cut { at, splits });
            Predecessor { number: 11, salt: 98, end, checksum: 6, cut }.is_possible(13, geometry)
        };
        assert!(possible(end, false) && possible(geometry.start(13), false) && possible(Lsn(7), false));
        assert!(!possible(geometry.start(13).plus(1), false));
        assert!(possible(geometry.first_frame(11).plus(100), true));
        assert!(possible(end, true));
        for at in [Lsn::ZERO, geometry.first_frame(11), end.plus(1), geometry.start(13)] {
            assert!(!possible(at, true), "{at}");
        }
    }

    /// Bug 42: a future version is named as such, not taken for damage.
    #[test]
    fn a_future_version_is_not_damage() {
        let (mut block, _) = sample().encode();
        put(&mut block, 8, &7u32.to_le_bytes());
        let checksum = checksum_around(&block, CHECKSUM_AT);
        put(&mut block, CHECKSUM_AT, &checksum.to_le_bytes());
        assert_eq!(Header::parse(&block), Parsed::Newer(7));
    }

    #[test]
    fn names_are_numbers() {
        assert_eq!(number_of(&file_name(0xabc)), Some(0xabc));
        for bad in ["", "1.log", "00000000000000zz.log", "0000000000000ABC.log", "0000000000000abc.tmp"] {
            assert_eq!(number_of(bad), None, "{bad}");
        }
    }
}
