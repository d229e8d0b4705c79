//! The changes that a fold is given, checked as they come.

use super::block::EXTENT_PAYLOAD_BYTES;
use super::stream::LargeValue;
use super::{Error, KEY_BYTES_MAX, Result, VALUE_BYTES_MAX};
use seawall_wal::Slice;
use std::collections::VecDeque;

/// What a fold does to a key.
#[derive(Clone, Debug)]
pub enum Change {
    /// The key has this value from now on.
    Put(Slice),
    /// The key has this value, whose extents are written and durable, from now on.
    PutLarge(LargeValue),
    /// The key has no value from now on; it may have had none.
    Remove,
    /// The key's number grows by this; a key without value counts as 0.
    Add(i64),
    /// The key has the value, of so many bytes, that a run's row leads to.
    #[doc(hidden)]
    Moved { form: u16, payload: [u8; EXTENT_PAYLOAD_BYTES], len: u64 },
}

/// Sorted changes, one at a time.
pub(super) trait Feed {
    /// The key of the next change.
    fn key(&self) -> Option<&[u8]>;
    /// The next change; its key is written to `key`.
    fn take(&mut self, key: &mut Vec<u8>) -> Result<Option<Change>>;
    /// The key of a change whose turn comes later, each once; none at the end, and none for now if too many have
    /// been looked at already.
    fn scout(&mut self) -> Option<&[u8]>;
}

/// Changes that are held to be looked at before their turn, at most.
const HELD_MAX: usize = if cfg!(test) { 20 } else { 16_384 };

/// A stream of changes, some of them looked at before their turn; keys must ascend.
pub(super) struct Changes<K, I> {
    held: VecDeque<(K, Change)>,
    /// How many of them were scouted.
    scouted: usize,
    /// What the stream gave in place of the change behind those that are held.
    failed: Option<Error>,
    rest: I,
}

impl<K: AsRef<[u8]>, I: Iterator<Item = Result<(K, Change)>>> Changes<K, I> {
    pub(super) fn new(rest: I) -> Result<Self> {
        let mut changes = Changes { held: VecDeque::new(), scouted: 0, failed: None, rest };
        changes.pull();
        match changes.failed.take() {
            Some(error) => Err(error),
            None => Ok(changes),
        }
    }

    /// Takes one more from the stream, if there is one.
    fn pull(&mut self) {
        if self.failed.is_some() {
            return;
        }
        match self.rest.next() {
            None => {}
            Some(Err(error)) => self.failed = Some(error),
            Some(Ok((key, change))) => match self.check(key.as_ref(), &change) {
                Ok(()) => self.held.push_back((key, change)),
                Err(error) => self.failed = Some(error),
            },
        }
    }

    fn check(&self, key: &[u8], change: &Change) -> Result<()> {
        if self.held.back().is_some_and(|(previous, _)| previous.as_ref() >= key) {
            return Err(Error::BadInput("the changes of a fold are not in key order".to_owned()));
        }
        let too_large =
            |what, len: usize, max: usize| Error::TooLarge { what, len: len as u64, max: max as u64 };
        match change {
            _ if key.len() > KEY_BYTES_MAX => Err(too_large("a key", key.len(), KEY_BYTES_MAX)),
            Change::Put(value) if value.len() > VALUE_BYTES_MAX => {
                Err(too_large("a value", value.len(), VALUE_BYTES_MAX))
            }
            _ => Ok(()),
        }
    }
}

impl<K: AsRef<[u8]>, I: Iterator<Item = Result<(K, Change)>>> Feed for Changes<K, I> {
    fn key(&self) -> Option<&[u8]> {
        self.held.front().map(|(key, _)| key.as_ref())
    }

    fn take(&mut self, key: &mut Vec<u8>) -> Result<Option<Change>> {
        // The next one is held against this one.
        if self.held.len() == 1 {
            self.pull();
        }
        let Some((next, change)) = self.held.pop_front() else { return Ok(None) };
        self.scouted = self.scouted.saturating_sub(1);
        key.clear();
        key.extend_from_slice(next.as_ref());
        match self.failed.take_if(|_| self.held.is_empty()) {
            Some(error) => Err(error),
            None => Ok(Some(change)),
        }
    }

    fn scout(&mut self) -> Option<&[u8]> {
        if self.scouted == self.held.len() && self.held.len() < HELD_MAX {
            self.pull();
        }
        let (key, _) = self.held.get(self.scouted)?;
        self.scouted += 1;
        Some(key.as_ref())
    }
}
