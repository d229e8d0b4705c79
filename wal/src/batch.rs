//! The batch buffer that commits are copied into, and where the next one goes. Pure memory: no I/O.

use crate::Lsn;
use crate::buf::AlignedBuf;
use crate::disk::BLOCK_BYTES;
use crate::durability::Durability;
use crate::frame::{self, FRAME_BYTES_MAX, Flags};
use crate::segment::Geometry;

/// One frame in the making.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Grows by one with each batch: chooses the word that its waiters sleep on.
    pub(crate) seq: u64,
    /// Where the frame will stand.
    pub(crate) base: Lsn,
    pub(crate) buf: AlignedBuf,
    /// Header and payload so far, in bytes.
    pub(crate) len: usize,
    /// What fits at `base`, header included.
    pub(crate) capacity: usize,
    pub(crate) records: u32,
    /// Those who wait for it, or will.
    pub(crate) commits: u32,
    pub(crate) flags: Flags,
    /// The strictest that a record in it asked for.
    pub(crate) durability: Durability,
    /// Whether a waiter looks after it: sleeps with a limit, and leads if nobody else did.
    pub(crate) tended: bool,
}

impl Batch {
    pub(crate) fn new(seq: u64, base: Lsn, buf: AlignedBuf, geometry: Geometry) -> Batch {
        let mut batch = Batch {
            seq,
            base,
            buf,
            len: frame::HEADER_BYTES,
            capacity: 0,
            records: 0,
            commits: 0,
            flags: Flags::NONE,
            durability: Durability::Memory,
            tended: false,
        };
        batch.place_at(base, geometry);
        batch
    }

    /// Moves an empty batch.
    pub(crate) fn place_at(&mut self, base: Lsn, geometry: Geometry) {
        let left = geometry.segment_bytes - geometry.offset(base);
        self.base = base;
        self.capacity = if geometry.offset(base) == 0 { 0 } else { self.buf.len().min(left as usize) };
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == frame::HEADER_BYTES
    }

    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.len + bytes <= self.capacity
    }

    /// The exclusive end of what is in it.
    pub(crate) fn end(&self) -> Lsn {
        self.base.plus(self.len as u64)
    }

    /// Where the next frame goes, if this one is written as it is.
    pub(crate) fn next_base(&self) -> Lsn {
        if self.is_empty() && self.flags != Flags::SEAL {
            self.base
        } else {
            self.base.plus(self.len.next_multiple_of(BLOCK_BYTES) as u64)
        }
    }

    /// The frame as it stands on the disk, padding included, once it was finished.
    pub(crate) fn frame(&self) -> Option<&[u8]> {
        self.buf.get(..self.len.next_multiple_of(BLOCK_BYTES))
    }

    /// Copies bytes in; the caller has checked that they fit. Returns where they stand.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Lsn {
        let at = self.end();
        crate::bytes::put(&mut self.buf, self.len, bytes);
        self.len += bytes.len();
        at
    }
}

/// Bytes of a batch's buffer: a whole segment's frames at most.
pub(crate) fn buffer_bytes(geometry: Geometry) -> usize {
    FRAME_BYTES_MAX.min(geometry.segment_bytes as usize - BLOCK_BYTES)
}

/// The largest record, header included, that one frame holds; a larger one is cut over several.
pub(crate) fn single_bytes_max(geometry: Geometry) -> usize {
    buffer_bytes(geometry) - frame::HEADER_BYTES
}

/// One frame of a record that is cut over several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) base: Lsn,
    /// Payload bytes.
    pub(crate) bytes: usize,
}

/// Where the pieces of a record of `bytes` bytes, header included, stand if the first frame may stand at `base`.
pub(crate) fn cut(mut base: Lsn, mut bytes: usize, geometry: Geometry) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while bytes > 0 {
        if geometry.offset(base) == 0 {
            base = base.plus(BLOCK_BYTES as u64);
        }
        let left = (geometry.segment_bytes - geometry.offset(base)) as usize;
        let here = bytes.min(left.min(FRAME_BYTES_MAX) - frame::HEADER_BYTES);
        pieces.push(Piece { base, bytes: here });
        base = base.plus(frame::padded(here) as u64);
        bytes -= here;
    }
    pieces
}

/// The position behind the frames of `bytes` bytes of records, headers included, if the next frame may stand at
/// `base`.
pub(crate) fn end_needed(base: Lsn, bytes: usize, geometry: Geometry) -> Lsn {
    if bytes > single_bytes_max(geometry) {
        let last = cut(base, bytes, geometry).last().copied();
        return last.map_or(base, |piece| piece.base.plus(frame::padded(piece.bytes) as u64));
    }
    let offset = geometry.offset(base);
    let fits_here = offset != 0 && offset + (frame::HEADER_BYTES + bytes) as u64 <= geometry.segment_bytes;
    let next = geometry.number(base) + u64::from(offset != 0);
    let start = if fits_here { base } else { geometry.first_frame(next) };
    start.plus(frame::padded(bytes) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry { segment_bytes: 64 << 10 };

    #[test]
    fn a_cut_record_covers_all_its_bytes_and_no_header_block() {
        for bytes in [60_000, 61_376, 61_377, 200_000, 1_000_000] {
            for base in [GEOMETRY.first_frame(3), GEOMETRY.end(3), Lsn(GEOMETRY.end(3).0 - 4096)] {
                let pieces = cut(base, bytes, GEOMETRY);
                assert_eq!(pieces.iter().map(|piece| piece.bytes).sum::<usize>(), bytes);
                for piece in &pieces {
                    let offset = GEOMETRY.offset(piece.base);
                    assert!(offset >= 4096 && offset.is_multiple_of(4096));
                    assert!(offset as usize + frame::padded(piece.bytes) <= GEOMETRY.segment_bytes as usize);
                }
                assert!(pieces.windows(2).all(|two| match two {
                    [a, b] => a.base < b.base,
                    _ => false,
                }));
            }
        }
    }
}
