//! What a replica has taken and not written yet: copied once, into memory that can be written from.

use super::Chain;
use super::chain::Item;
use crate::Lsn;
use crate::buf::AlignedBuf;
use crate::segment;
use crate::ship::Piece;
use std::collections::VecDeque;
use std::io;

/// Frames are gathered in buffers of so many bytes; larger ones get one of their own.
const BUF_BYTES: usize = 1 << 20;
/// Buffers that are kept for what comes next.
const SPARE_MAX: usize = 6;

/// What is to be written, in its order.
#[derive(Debug)]
pub(super) enum Pending {
    /// A segment's header, its checksum and its block.
    Header(segment::Header, u32, Vec<u8>),
    Frames(Shipped),
}

impl Pending {
    pub(super) fn frames(self) -> Option<Shipped> {
        match self {
            Pending::Frames(frames) => Some(frames),
            Pending::Header(..) => None,
        }
    }
}

/// Frames behind each other in one segment.
#[derive(Debug)]
pub(super) struct Shipped {
    pub(super) at: Lsn,
    pub(super) buf: AlignedBuf,
    /// So much of it.
    pub(super) len: usize,
    /// Where the log ends behind them.
    pub(super) chain: Chain,
}

impl Shipped {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.buf.len() - self.len >= bytes
    }

    fn push(&mut self, bytes: &[u8], chain: &Chain) {
        if let Some(room) = self.buf.get_mut(self.len..self.len + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.len += bytes.len();
        self.chain = *chain;
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pending: VecDeque<Pending>,
    bytes: usize,
    spare: Vec<AlignedBuf>,
}

impl Gathered {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what a piece consists of, behind which the log ends where the chain says.
    ///
    /// # Errors
    /// What the system says of memory; nothing was added then.
    pub(super) fn add(&mut self, items: Vec<Item>, piece: &Piece, chain: &Chain) -> io::Result<()> {
        let mut new = None;
        for item in &items {
            if let Item::Frames { bytes, .. } = item
                && !(items.len() == 1 && self.has_room(bytes.len()))
            {
                new = Some(self.buf(bytes.len())?);
            }
        }
        for item in items {
            match item {
                Item::Header(header, checksum, block) => {
                    self.pending.push_back(Pending::Header(header, checksum, block));
                }
                Item::Frames { at, bytes } => {
                    let bytes = piece.bytes.get(bytes).unwrap_or_default();
                    if let Some(buf) = new.take() {
                        self.pending.push_back(Pending::Frames(Shipped { at, buf, len: 0, chain: *chain }));
                    }
                    if let Some(Pending::Frames(last)) = self.pending.back_mut() {
                        last.push(bytes, chain);
                    }
                }
            }
        }
        self.bytes += piece.bytes.len();
        Ok(())
    }

    /// Whether what comes now goes behind what came last.
    fn has_room(&self, bytes: usize) -> bool {
        matches!(self.pending.back(), Some(Pending::Frames(last)) if last.has_room(bytes))
    }

    fn buf(&mut self, bytes: usize) -> io::Result<AlignedBuf> {
        match self.spare.pop_if(|_| bytes <= BUF_BYTES) {
            Some(buf) => Ok(buf),
            None => AlignedBuf::zeroed(bytes.max(BUF_BYTES)),
        }
    }

    /// Takes it all, to be written.
    pub(super) fn take(&mut self) -> VecDeque<Pending> {
        self.bytes = 0;
        std::mem::take(&mut self.pending)
    }

    /// What could not be written stays in front of what came since; buffers that were written are used again.
    pub(super) fn put_back(&mut self, mut unwritten: VecDeque<Pending>, spare: Vec<AlignedBuf>) {
        unwritten.append(&mut self.pending);
        self.pending = unwritten;
        let usual = spare.into_iter().filter(|buf| buf.len() == BUF_BYTES);
        self.spare.extend(usual.take(SPARE_MAX.saturating_sub(self.spare.len())));
    }
}
