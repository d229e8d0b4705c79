//! Recomputing checksums over bytes that were changed, at every level: what an attacker would do, or a bug that
//! writes nonsense properly. Magics are put in place; a block that has no magic is not taken for anything.

use super::Files;
use crate::anchor;
use crate::bytes::{checksum_around, get, get_u32, get_u64, put};
use crate::disk::BLOCK_BYTES;
use crate::frame::{FRAME_BYTES_MAX, HEADER_BYTES, padded};
use crate::segment;

const FRAME_MAGIC: [u8; 4] = *b"SWFR";
const ANCHOR_MAGIC: [u8; 8] = *b"SEAWALAN";
const CHECKSUM_AT: usize = 12;

/// Makes the block at the beginning a segment header with a checksum that matches. Gives that checksum.
pub fn segment_header(bytes: &mut [u8]) -> u32 {
    whole_block(bytes, 0, segment::MAGIC)
}

/// Makes the block at `at` an anchor's slot with a checksum that matches.
pub fn anchor_slot(bytes: &mut [u8], at: usize) {
    whole_block(bytes, at, ANCHOR_MAGIC);
}

fn whole_block(bytes: &mut [u8], at: usize, magic: [u8; 8]) -> u32 {
    let Some(block) = bytes.get_mut(at..at + BLOCK_BYTES) else { return 0 };
    put(block, 0, &magic);
    let checksum = checksum_around(block, CHECKSUM_AT);
    put(block, CHECKSUM_AT, &checksum.to_le_bytes());
    checksum
}

/// Makes the bytes at `at` a frame: the header's checksum, and that of the frame if all of it is there; `previous`
/// also sets the chain. Gives the frame's checksum and its bytes on the disk.
pub fn frame(bytes: &mut [u8], at: usize, previous: Option<u32>) -> Option<(u32, usize)> {
    let frame = bytes.get_mut(at..).filter(|frame| frame.len() >= HEADER_BYTES)?;
    put(frame, 4, &FRAME_MAGIC);
    if let Some(previous) = previous {
        put(frame, 40, &previous.to_le_bytes());
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(frame.get(4..44)?);
    hasher.update(frame.get(48..HEADER_BYTES)?);
    put(frame, 44, &hasher.finalize().to_le_bytes());
    let length = get_u32(frame, 32) as usize;
    let checksum = crc32fast::hash(frame.get(4..HEADER_BYTES.checked_add(length)?)?);
    put(frame, 0, &checksum.to_le_bytes());
    (length <= FRAME_BYTES_MAX - HEADER_BYTES).then(|| (checksum, padded(length)))
}

/// A segment file's header and all of its frames, chained. The header's checksum, and the last frame's.
fn segment(bytes: &mut [u8], previous: Option<(u64, u32)>) -> Option<(u64, u32)> {
    let has_header = get::<8>(bytes, 0) == segment::MAGIC;
    if let Some((number, checksum)) = previous.filter(|_| has_header)
        && get_u64(bytes, 72) == number
    {
        put(bytes, 116, &checksum.to_le_bytes());
    }
    let mut last = if has_header { segment_header(bytes) } else { 0 };
    let mut chain = has_header;
    let mut at = BLOCK_BYTES;
    while at + BLOCK_BYTES <= bytes.len() {
        let is_frame = bytes.get(at + 4..at + 8) == Some(&FRAME_MAGIC[..]);
        // A frame of an earlier use of the file is no part of the chain.
        chain &= get_u64(bytes, at + 8) == get_u64(bytes, 64);
        match is_frame.then(|| frame(bytes, at, chain.then_some(last))).flatten() {
            Some((checksum, padded)) => {
                last = if chain { checksum } else { last };
                at += padded;
            }
            None => {
                chain = false;
                at += BLOCK_BYTES;
            }
        }
    }
    has_header.then(|| (get_u64(bytes, 48), last))
}

/// Every checksum of a log: anchor, segment headers, frames and their chain.
pub fn log(files: &mut Files) {
    let mut previous = None;
    for (path, bytes) in &mut files.0 {
        let name = path.rsplit('/').next().unwrap_or_default();
        if name == anchor::FILE_NAME {
            for at in [0, BLOCK_BYTES] {
                if bytes.get(at..at + 8) == Some(&ANCHOR_MAGIC[..]) {
                    anchor_slot(bytes, at);
                }
            }
        } else if segment::number_of(name).is_some() {
            previous = segment(bytes, previous).or(previous);
        }
    }
}
