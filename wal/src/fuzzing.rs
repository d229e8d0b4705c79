//! What the fuzz targets run: plain functions of bytes, which ordinary tests replay over a committed corpus.
//!
//! Each takes any bytes at all and either returns or panics; a panic is a finding. What they hold the code to:
//!
//! - no bytes make a decoder panic, and what it accepts has the checksum that it claims;
//! - what was accepted, encoded again, is the same;
//! - opening a log ends in a number of disk calls that its size bounds, and reads no more than it holds, a few times
//!   over: a length is never believed before it was held against what is there;
//! - damage never shows as wrong records: what is shown is a run of what was written ([`recovery_mutated`]).
//!
//! [`Input`] makes choices out of bytes; [`Files`] are a disk at rest, to be damaged; [`seal`] recomputes the
//! checksums of what was damaged, so that decoders behind them are reached.

#![expect(clippy::panic, reason = "a finding is a panic")]

use crate::anchor::{Anchor, Slot};
use crate::disk::BLOCK_BYTES;
use crate::frame::{self, FRAME_BYTES_MAX};
use crate::record::{self, Records};
use crate::segment::{self, Parsed};

mod arbitrary;
mod damage;
mod input;
mod mutated;
mod opened;
pub mod seal;

pub use arbitrary::recovery_arbitrary;
pub use damage::{Damaged, Files, damage};
pub use input::{Input, mutate};
pub use mutated::recovery_mutated;

/// Headers and records of a frame.
pub fn frame(data: &[u8]) {
    frame_bytes(data);
    // The same with checksums that match, so that fields are looked at.
    let mut block = data.to_vec();
    block.resize(data.len().max(BLOCK_BYTES), 0);
    seal::frame(&mut block, 0, None);
    frame_bytes(&block);
}

fn frame_bytes(data: &[u8]) {
    if let Ok(header) = frame::Header::parse(data) {
        let fixed = data.get(..frame::HEADER_BYTES).unwrap_or_default();
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(fixed.get(4..44).unwrap_or_default());
        hasher.update(fixed.get(48..).unwrap_or_default());
        assert_eq!(fixed.get(44..48), Some(&hasher.finalize().to_le_bytes()[..]), "a header's checksum");
        assert!(header.padded_bytes() <= FRAME_BYTES_MAX, "{header:?}");
        assert!(header.end() > header.lsn || header.lsn.0 > u64::MAX - FRAME_BYTES_MAX as u64);
        let covered = data.get(4..frame::HEADER_BYTES + header.length as usize);
        let matches = covered.is_some_and(|covered| crc32fast::hash(covered) == header.checksum);
        assert_eq!(header.verify(data), matches, "a frame's checksum");
        assert!(frame::Header::decode(data, header.salt, header.lsn) == Ok(header));
        let other = frame::Header::decode(data, header.salt, header.lsn.plus(BLOCK_BYTES as u64));
        assert!(other == Err(frame::Bad::Stale) || header.lsn.0 > u64::MAX - BLOCK_BYTES as u64);
        encode_frame_again(data, &header);
    }
    for payload in [data, data.get(frame::HEADER_BYTES..).unwrap_or_default()] {
        records(payload);
    }
}

fn encode_frame_again(data: &[u8], header: &frame::Header) {
    let bytes = header.padded_bytes();
    let has_reserved =
        data.get(50..frame::HEADER_BYTES).is_some_and(|reserved| reserved.iter().any(|&b| b != 0));
    let Some(whole) = data.get(..bytes).filter(|_| header.verify(data) && !has_reserved) else { return };
    let mut again = whole.to_vec();
    let end = frame::HEADER_BYTES + header.length as usize;
    assert_eq!(frame::finish(&mut again, header), header.checksum);
    assert_eq!(again.get(..end), whole.get(..end), "a frame that comes back");
}

fn records(payload: &[u8]) {
    let (mut read, mut count) = (0, 0);
    for found in Records::new(payload) {
        count += 1;
        let Some((offset, header, bytes)) = found else { break };
        assert_eq!(offset, read, "records stand back to back");
        assert_eq!(payload.get(offset..offset + record::HEADER_BYTES), Some(&header.encode()[..]));
        assert_eq!(bytes.len(), header.length as usize);
        assert_ne!(header.kind.0, 0);
        read = offset + record::HEADER_BYTES + bytes.len();
        assert!(read <= payload.len());
    }
    assert!(count <= payload.len() / record::HEADER_BYTES + 1, "{count} records");
}

/// A segment's header, the anchor's two slots, and names of segment files.
pub fn segment_anchor(data: &[u8]) {
    segment_header(data);
    anchor(data);
    let mut blocks = data.to_vec();
    blocks.resize(data.len().max(2 * BLOCK_BYTES), 0);
    seal::segment_header(&mut blocks);
    segment_header(&blocks);
    seal::anchor_slot(&mut blocks, 0);
    anchor(&blocks);
    seal::anchor_slot(&mut blocks, BLOCK_BYTES);
    anchor(&blocks);
    let name = String::from_utf8_lossy(data.get(..20).unwrap_or(data));
    if let Some(number) = segment::number_of(&name) {
        assert_eq!(segment::file_name(number), name);
    }
}

fn segment_header(data: &[u8]) {
    if let Parsed::Header(header, checksum) = segment::Header::parse(data) {
        let block = data.get(..BLOCK_BYTES).unwrap_or_default();
        assert_eq!(crate::bytes::checksum_around(block, 12), checksum, "a segment header's checksum");
        let (again, _) = header.encode();
        assert!(matches!(segment::Header::parse(&again), Parsed::Header(read, _) if read == header));
    }
}

fn anchor(data: &[u8]) {
    for block in data.chunks(BLOCK_BYTES).take(2) {
        if let Slot::Valid(anchor) = Anchor::parse(block) {
            assert_eq!(crate::bytes::checksum_around(block, 12).to_le_bytes()[..], block[12..16]);
            assert_eq!(Anchor::parse(&anchor.encode()), Slot::Valid(anchor));
        }
    }
    if let Slot::Valid(chosen) = Anchor::choose(data) {
        let slots = data.chunks(BLOCK_BYTES).take(2).filter_map(|block| match Anchor::parse(block) {
            Slot::Valid(anchor) => Some(anchor),
            _ => None,
        });
        let newest = slots.filter(|slot| slot.sequence <= chosen.sequence).max_by_key(|slot| slot.sequence);
        assert_eq!(newest.map(|slot| slot.store_id), Some(chosen.store_id), "an anchor out of nowhere");
    }
}
