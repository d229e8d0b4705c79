//! A value as a stream: piece by piece, each verified before a byte of it is shown.

use crate::read::view::{Reads, Snapshot};
use crate::tree::{LargeValue, Located};
use crate::{Error, Result};
use seawall_wal::Slice;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

/// A value, read as a stream, from [`Readable::open_value`](crate::Readable::open_value). It holds at most one piece of
/// it in memory: of a value that was streamed in (see [`Transaction::insert_from`](crate::Transaction::insert_from))
/// 1 MiB, of any other the whole, which is 16 MiB at most.
///
/// It stays what it is: it outlives the snapshot or the transaction that it came from, and holds what that held. Like any
/// holder it has to give way once it is too old, see [`Snapshot`].
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use seawall_engine::{Db, Readable};
/// # let db = Db::open("store")?;
/// use std::io::{Read, Seek, SeekFrom};
/// # let films = db.keyspace("films")?;
/// if let Some(mut film) = db.snapshot().open_value(&films, "nosferatu")? {
///     film.seek(SeekFrom::End(-128))?;
///     let mut tail = Vec::new();
///     film.read_to_end(&mut tail)?;
/// }
/// # Ok(()) }
/// ```
pub struct ValueReader {
    source: Source,
    len: u64,
    position: u64,
}

enum Source {
    Here(Slice),
    Apart(Box<Apart>),
}

struct Apart {
    value: LargeValue,
    /// Where each piece ends in the value.
    ends: Vec<u64>,
    reads: Arc<Reads>,
    /// None for what a transaction has written itself: then `value` holds the extents.
    snapshot: Option<Snapshot>,
    /// The piece in hand, and which one it is.
    piece: Option<(usize, Slice)>,
}

impl ValueReader {
    pub(crate) fn new(found: Located, reads: &Arc<Reads>, snapshot: Option<&Snapshot>) -> ValueReader {
        let (len, source) = match found {
            Located::Here(value) => (value.len() as u64, Source::Here(value)),
            Located::Apart(value) => {
                let mut end = 0;
                let ends = value.pieces().map(|ptr| {
                    end += u64::from(ptr.bytes);
                    end
                });
                let ends = ends.collect();
                let (reads, snapshot) = (Arc::clone(reads), snapshot.cloned());
                (value.len(), Source::Apart(Box::new(Apart { value, ends, reads, snapshot, piece: None })))
            }
        };
        ValueReader { source, len, position: 0 }
    }

    /// The value's length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is the empty value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Apart {
    /// The bytes from `position`, which is within the value, up to the end of their piece.
    fn at(&mut self, position: u64) -> Result<&[u8]> {
        let index = self.ends.partition_point(|end| *end <= position);
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        if self.piece.as_ref().is_none_or(|(found, _)| *found != index) {
            self.piece = None;
            // What the snapshot holds is held until the piece is here.
            let _view = self.snapshot.as_ref().map(Snapshot::view).transpose()?;
            if let Some(ptr) = self.value.piece(index) {
                self.piece = Some((index, self.reads.store.read_piece(&ptr)?));
            }
        }
        let piece = self.piece.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        Ok(piece.get((position - start) as usize..).unwrap_or_default())
    }
}

/// An error of the store as the source of one of the system.
fn wrapped(error: Error) -> io::Error {
    let kind = match &error {
        Error::Corruption { .. } => io::ErrorKind::InvalidData,
        Error::Io { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// An error wraps the store's [`Error`] ([`io::Error::get_ref`]): `Corruption`, with the kind `InvalidData`, before a byte of the
/// damaged piece was shown; `Io`; `SnapshotTooOld`. Reading on tries the piece again.
impl Read for ValueReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.position);
        if left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let bytes = match &mut self.source {
            Source::Here(value) => value.get(self.position as usize..).unwrap_or_default(),
            Source::Apart(apart) => apart.at(self.position).map_err(wrapped)?,
        };
        // Behind the value's end its last piece has zeros.
        let count = bytes.len().min(buf.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        if let (Some(target), Some(found)) = (buf.get_mut(..count), bytes.get(..count)) {
            target.copy_from_slice(found);
        }
        self.position += count as u64;
        Ok(count)
    }
}

/// Reads nothing. A position behind the end is none of the value's: reads there find the end.
impl Seek for ValueReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        match position {
            Some(position) => {
                self.position = position;
                Ok(position)
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "a position before the value's start")),
        }
    }
}

impl std::fmt::Debug for ValueReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueReader")
            .field("len", &self.len)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
