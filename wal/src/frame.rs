//! The bytes of a frame: one batch of records as it stands on the disk. Pure: no I/O.
//!
//! //= docs/format/wal.md#frame
//!
//! A frame starts on a [`BLOCK_BYTES`] boundary and is padded with zeros to the next. Its 64-byte header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | checksum: CRC-32 of bytes 4..64 and of the payload |
//! | 4 | 4 | magic `SWFR` |
//! | 8 | 8 | salt of the segment's present use |
//! | 16 | 8 | own LSN: a stale or misdirected frame gives itself away |
//! | 24 | 8 | durable LSN when it was submitted |
//! | 32 | 4 | payload length |
//! | 36 | 4 | records that begin in it |
//! | 40 | 4 | the previous frame's checksum (the chain) |
//! | 44 | 4 | header checksum: CRC-32 of bytes 4..44 and 48..64 |
//! | 48 | 2 | flags |
//! | 50 | 14 | reserved, 0 |
#![warn(clippy::indexing_slicing)]

use crate::Lsn;
use crate::bytes::{get_u16, get_u32, get_u64, put};
use crate::disk::BLOCK_BYTES;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 64;

/// The largest frame, header and padding included: one write.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"SWFR");

/// What a frame holds beside whole records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// Whole records.
    pub const NONE: Flags = Flags(0);
    /// The beginning of a record that does not fit one frame, and nothing else.
    pub const FIRST: Flags = Flags(1);
    /// A middle piece of such a record.
    pub const MIDDLE: Flags = Flags(2);
    /// The end of such a record.
    pub const LAST: Flags = Flags(4);
    /// No record: carries the durable LSN on when the log falls idle, or is closed.
    pub const SEAL: Flags = Flags(8);

    fn is_known(self) -> bool {
        matches!(self.0, 0 | 1 | 2 | 4 | 8)
    }

    /// True if a record goes on in the next frame.
    pub fn goes_on(self) -> bool {
        self == Flags::FIRST || self == Flags::MIDDLE
    }
}

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// CRC-32 of the header's rest and the payload.
    pub checksum: u32,
    /// The segment's salt.
    pub salt: u64,
    /// Where the frame stands.
    pub lsn: Lsn,
    /// What was durable when the frame was submitted.
    pub durable: Lsn,
    /// Bytes of payload.
    pub length: u32,
    /// Records that begin in it.
    pub records: u32,
    /// The previous frame's checksum.
    pub previous: u32,
    /// What it holds.
    pub flags: Flags,
}

/// Why bytes are not the frame that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Zeros where a header would be.
    Blank,
    /// A header of another use of the segment, or of another place.
    Stale,
    /// Something else, or a header or payload that does not match its checksum.
    Damaged,
}

impl Header {
    /// The exclusive end of the frame's payload: what its durability proves.
    pub fn end(&self) -> Lsn {
        self.lsn.plus(HEADER_BYTES as u64 + u64::from(self.length))
    }

    /// Bytes on the disk, padding included.
    pub fn padded_bytes(&self) -> usize {
        padded(self.length as usize)
    }

    /// The payload in `frame`, which begins with this header.
    pub fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(HEADER_BYTES..HEADER_BYTES + self.length as usize).unwrap_or_default()
    }

    /// Reads a header without its payload, for any salt and place: `Err` only for blank or damaged bytes.
    ///
    /// # Errors
    /// [`Bad::Blank`] or [`Bad::Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<Header, Bad> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Bad::Damaged)?;
        if bytes.iter().all(|&b| b == 0) {
            return Err(Bad::Blank);
        }
        let header = Header {
            checksum: get_u32(bytes, 0),
            salt: get_u64(bytes, 8),
            lsn: Lsn(get_u64(bytes, 16)),
            durable: Lsn(get_u64(bytes, 24)),
            length: get_u32(bytes, 32),
            records: get_u32(bytes, 36),
            previous: get_u32(bytes, 40),
            flags: Flags(get_u16(bytes, 48)),
        };
        let is_frame = get_u32(bytes, 4) == MAGIC
            && get_u32(bytes, 44) == header_checksum(bytes)
            && header.length as usize <= FRAME_BYTES_MAX - HEADER_BYTES
            && header.flags.is_known();
        if is_frame { Ok(header) } else { Err(Bad::Damaged) }
    }

    /// Reads a header that must belong to this salt and place.
    ///
    /// # Errors
    /// Which way it does not.
    pub fn decode(bytes: &[u8], salt: u64, lsn: Lsn) -> Result<Header, Bad> {
        let header = Header::parse(bytes)?;
        if header.salt == salt && header.lsn == lsn { Ok(header) } else { Err(Bad::Stale) }
    }

    /// True if `frame`, header and payload, is what this header was written with.
    pub fn verify(&self, frame: &[u8]) -> bool {
        let end = HEADER_BYTES + self.length as usize;
        frame.get(4..end).is_some_and(|covered| crc32fast::hash(covered) == self.checksum)
    }
}

/// Bytes on the disk of a frame with `payload` bytes.
pub fn padded(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(BLOCK_BYTES)
}

/// Writes the header in front of the payload that already stands in `frame`, and zeroes the padding. Returns the
/// frame's checksum.
pub fn finish(frame: &mut [u8], header: &Header) -> u32 {
    let end = HEADER_BYTES + header.length as usize;
    if let Some(head) = frame.get_mut(..HEADER_BYTES) {
        head.fill(0);
        put(head, 4, &MAGIC.to_le_bytes());
        put(head, 8, &header.salt.to_le_bytes());
        put(head, 16, &header.lsn.0.to_le_bytes());
        put(head, 24, &header.durable.0.to_le_bytes());
        put(head, 32, &header.length.to_le_bytes());
        put(head, 36, &header.records.to_le_bytes());
        put(head, 40, &header.previous.to_le_bytes());
        put(head, 48, &header.flags.0.to_le_bytes());
        let sum = header_checksum(head);
        put(head, 44, &sum.to_le_bytes());
    }
    if let Some(padding) = frame.get_mut(end..header.padded_bytes()) {
        padding.fill(0);
    }
    let checksum = crc32fast::hash(frame.get(4..end).unwrap_or_default());
    put(frame, 0, &checksum.to_le_bytes());
    checksum
}

fn header_checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(4..44).unwrap_or_default());
    hasher.update(bytes.get(48..HEADER_BYTES).unwrap_or_default());
    hasher.finalize()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Header) {
        let mut frame = vec![0xAA; BLOCK_BYTES];
        let mut header = Header {
            checksum: 0,
            salt: 9,
            lsn: Lsn(8192),
            durable: Lsn(4096),
            length: 100,
            records: 2,
            previous: 77,
            flags: Flags::NONE,
        };
        header.checksum = finish(&mut frame, &header);
        (frame, header)
    }

    #[test]
    fn a_frame_survives() {
        let (frame, header) = sample();
        let read = Header::decode(&frame, 9, Lsn(8192)).unwrap();
        assert_eq!(read, header);
        assert!(read.verify(&frame));
        assert!(frame[164..].iter().all(|&b| b == 0), "the padding is zero");
    }

    #[test]
    fn stale_and_misdirected_frames_are_told_from_damaged_ones() {
        let (mut frame, _) = sample();
        assert_eq!(Header::decode(&frame, 8, Lsn(8192)), Err(Bad::Stale));
        assert_eq!(Header::decode(&frame, 9, Lsn(4096)), Err(Bad::Stale));
        assert_eq!(Header::decode(&[0; 64], 9, Lsn(8192)), Err(Bad::Blank));
        frame[20] ^= 1;
        assert_eq!(Header::decode(&frame, 9, Lsn(8192)), Err(Bad::Damaged));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (frame, header) = sample();
        for at in 0..HEADER_BYTES + 100 {
            for bit in 0..8 {
                let mut bad = frame.clone();
                bad[at] ^= 1 << bit;
                let accepted =
                    Header::decode(&bad, 9, Lsn(8192)).is_ok_and(|h| h.verify(&bad) && h == header);
                assert!(!accepted, "byte {at} bit {bit}");
            }
        }
    }
}
