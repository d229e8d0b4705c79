//! Values that come as streams, whole and failing.

use super::{Client, Failed};
use crate::torture::engine::compare::{PIECE_BYTES, STREAMED_MIN, is_read_in_parts};
use crate::torture::engine::model::Change;
use seawall_engine::{Durability, Error, Keyspace, Readable, Transaction};
use seawall_wal::runtime::Rng;
use std::io::{self, Read};

/// How a source behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It has what was said.
    Whole,
    EndsEarly,
    GoesOn,
    Fails,
}

/// A source that gives some bytes at a time.
struct Source<'a> {
    left: &'a [u8],
    rng: Rng,
    manner: Manner,
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.rng.chance(1, 16) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.left.is_empty() {
            return match self.manner {
                Manner::Fails => Err(io::Error::other("the source fails")),
                Manner::GoesOn => {
                    buf.fill(7);
                    Ok(buf.len())
                }
                Manner::Whole | Manner::EndsEarly => Ok(0),
            };
        }
        let some = (1 + self.rng.below(9_000) as usize).min(self.left.len()).min(buf.len());
        let (now, left) = self.left.split_at(some);
        if let Some(to) = buf.get_mut(..some) {
            to.copy_from_slice(now);
        }
        self.left = left;
        Ok(some)
    }
}

impl Client {
    /// A key, and a value at one of the lengths where something changes.
    pub(super) fn streamed(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (min, piece) = (STREAMED_MIN as u64, PIECE_BYTES as u64);
        let edges = [min - 1, min, min + 1, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 1];
        let len = match self.rng.below(12) {
            at @ 0..8 => edges[at as usize],
            8 => self.rng.below(min),
            _ => min + self.rng.below(5 * piece),
        };
        self.hit(match len {
            len if len < min => "streamed value: in the log",
            len if len <= piece => "streamed value: one piece",
            _ => "streamed value: several pieces",
        });
        (format!("key-{:03}", self.rng.below(60)).into_bytes(), self.bytes(len))
    }

    /// Streams it in, sees it there, and sees that a stream that fails changes nothing.
    pub(super) fn stream_into(
        &mut self,
        tx: &mut Transaction,
        ks: &Keyspace,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Failed> {
        let len = value.len() as u64;
        if self.rng.chance(1, 5) {
            let before = tx.get_untracked(ks, key)?;
            let manner = [Manner::EndsEarly, Manner::GoesOn, Manner::Fails][self.rng.below(3) as usize];
            let cut =
                if manner == Manner::GoesOn { value.len() } else { self.rng.below(len.max(1)) as usize };
            let left = value.get(..cut).unwrap_or_default();
            let said = if left.len() == value.len() && manner != Manner::GoesOn { len + 1 } else { len };
            match tx.insert_from(ks, key, said, Source { left, rng: self.rng.fork(), manner }) {
                Err(Error::BadInput(_) | Error::Io { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Err(Failed::Wrong(format!("a stream that {manner:?} is taken"))),
            }
            if tx.get_untracked(ks, key)? != before {
                return Err(Failed::Wrong("a stream that failed has changed the row".to_owned()));
            }
            self.hit("stream failed");
        }
        tx.insert_from(ks, key, len, Source { left: value, rng: self.rng.fork(), manner: Manner::Whole })?;
        let Some(mut reader) = tx.open_value(ks, key)? else {
            return Err(Failed::Wrong("a transaction does not see what it streamed in".to_owned()));
        };
        match is_read_in_parts(&mut reader, value)? {
            true => Ok(()),
            false => Err(Failed::Wrong("a transaction sees other bytes than it streamed in".to_owned())),
        }
    }

    /// One streamed value; another takes its place, or it goes, alone, with its range, or with its keyspace.
    pub(super) fn stream(&mut self) -> Result<(), Failed> {
        let ks = self.keyspace()?;
        let name = ks.name().to_owned();
        let (key, value) = self.streamed();
        let is_streamed = value.len() >= STREAMED_MIN;
        let mut tx = self.db.begin();
        self.stream_into(&mut tx, &ks, &key, &value)?;
        if self.rng.chance(1, 6) {
            drop(tx);
            self.hit("stream rolled back");
            return Ok(());
        }
        let committed = tx.commit();
        self.told(committed, vec![Change::Row(name.clone(), key.clone(), Some(value))], Durability::Synced)?;
        let (mut tx, how) = (self.db.begin(), self.rng.below(if self.threads { 5 } else { 6 }));
        let change = match how {
            0 => {
                let (_, value) = self.streamed();
                self.stream_into(&mut tx, &ks, &key, &value)?;
                Change::Row(name, key, Some(value))
            }
            1 => {
                tx.remove(&ks, &key)?;
                Change::Row(name, key, None)
            }
            2 => {
                let (from, to) = (key.clone(), [&key[..], b"~"].concat());
                tx.remove_range(&ks, from.clone()..to.clone())?;
                Change::Clear(name, (std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)))
            }
            5 => {
                tx.drop_keyspace(&ks)?;
                Change::Drop(name)
            }
            _ => return Ok(()),
        };
        let committed = tx.commit();
        self.told(committed, vec![change], Durability::Synced)?;
        if is_streamed {
            self.hit(match how {
                0 => "streamed value replaced",
                1 => "streamed value removed",
                2 => "streamed value removed with its range",
                _ => "streamed value dropped with its keyspace",
            });
        }
        Ok(())
    }
}
