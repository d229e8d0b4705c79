//! Reading ahead of a recovery that walks a segment: while one piece is checked, the next ones are on their way.

use crate::buf::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Completion, Disk, DiskFile, Op, Queue};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Pieces on their way at once, at most; fewer at first, as a short log would not want them.
const PIECES_MAX: usize = 4;

/// The pieces of one file that follow each other.
#[derive(Debug)]
pub(super) struct Ahead {
    queue: Box<dyn Queue>,
    piece_bytes: usize,
    pieces: VecDeque<Piece>,
    depth: usize,
    spare: Vec<AlignedBuf>,
}

#[derive(Debug)]
struct Piece {
    token: u64,
    start: u64,
    bytes: usize,
    done: Option<io::Result<Done>>,
}

/// A piece that was read.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) buf: AlignedBuf,
    /// How many bytes of it.
    pub(super) read: usize,
    pub(super) from_device: bool,
}

impl Ahead {
    pub(super) fn new(disk: &dyn Disk, piece_bytes: usize) -> io::Result<Ahead> {
        let queue = disk.queue(PIECES_MAX)?;
        Ok(Ahead { queue, piece_bytes, pieces: VecDeque::new(), depth: 1, spare: Vec::new() })
    }

    /// The piece at `offset`, from the device; more of the file up to `limit` is sent for. `None` at the limit.
    ///
    /// # Errors
    /// What reading this piece gave, if it did not give all of it.
    pub(super) fn next(
        &mut self,
        file: &Arc<dyn DiskFile>,
        offset: u64,
        limit: u64,
    ) -> io::Result<Option<Done>> {
        if self.pieces.front().is_some_and(|piece| piece.start != offset) {
            self.stop()?;
        }
        self.send_for(file, offset, limit)?;
        while self.pieces.front().is_some_and(|piece| piece.done.is_none()) {
            self.reap(1)?;
        }
        self.depth = (self.depth * 2).min(PIECES_MAX);
        let Some(Piece { bytes, done: Some(done), .. }) = self.pieces.pop_front() else { return Ok(None) };
        let done = done?;
        if done.read < bytes {
            // The file was long enough a moment ago: a short read is an error, never an end (bug 10).
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(done))
    }

    /// Gives a buffer back.
    pub(super) fn keep(&mut self, buf: AlignedBuf) {
        if buf.len() == self.piece_bytes && self.spare.len() < PIECES_MAX {
            self.spare.push(buf);
        }
    }

    /// Forgets what was sent for.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.reap(usize::MAX)?;
        for piece in std::mem::take(&mut self.pieces) {
            if let Some(Ok(done)) = piece.done {
                self.keep(done.buf);
            }
        }
        self.depth = 1;
        Ok(())
    }

    fn send_for(&mut self, file: &Arc<dyn DiskFile>, offset: u64, limit: u64) -> io::Result<()> {
        let mut ops = Vec::new();
        let mut at = self.pieces.back().map_or(offset, |last| last.start + last.bytes as u64);
        while self.pieces.len() < self.depth && at < limit {
            let left = usize::try_from(limit - at).unwrap_or(usize::MAX);
            let bytes = self.piece_bytes.min(left - left % BLOCK_BYTES);
            if bytes == 0 {
                break;
            }
            let buf = self.spare.pop().map_or_else(|| AlignedBuf::zeroed(self.piece_bytes), Ok)?;
            ops.push(Op::Read { file: file.clone(), offset: at, buf, len: bytes, from_device: true });
            self.pieces.push_back(Piece { token: 0, start: at, bytes, done: None });
            at += bytes as u64;
        }
        let count = ops.len();
        if count > 0 {
            let first = self.queue.submit(ops)?;
            let sent_before = self.pieces.len() - count;
            for (piece, token) in self.pieces.iter_mut().skip(sent_before).zip(first..) {
                piece.token = token;
            }
        }
        Ok(())
    }

    /// A piece that failed is told when it is wanted: nobody may ever look there.
    fn reap(&mut self, min: usize) -> io::Result<()> {
        let mut completions = Vec::new();
        self.queue.reap(min, &mut completions)?;
        for Completion { token, result, buf, from_device } in completions {
            let waiting = |piece: &&mut Piece| piece.token == token && piece.done.is_none();
            if let (Some(piece), Some(buf)) = (self.pieces.iter_mut().find(waiting), buf) {
                piece.done = Some(result.map(|read| Done { buf, read, from_device }));
            }
        }
        Ok(())
    }
}
