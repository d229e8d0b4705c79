//! The changes that a fold is given, checked as they come.

use super::{Error, KEY_BYTES_MAX, Result, VALUE_BYTES_MAX};
use seawall_wal::Slice;

/// What a fold does to a key.
#[derive(Clone, Debug)]
pub enum Change {
    /// The key has this value from now on.
    Put(Slice),
    /// The key has no value from now on; it may have had none.
    Remove,
    /// The key's number grows by this; a key without value counts as 0.
    Add(i64),
}

/// Sorted changes, one at a time.
pub(super) trait Feed {
    /// The key of the next change.
    fn key(&self) -> Option<&[u8]>;
    /// The next change; its key is written to `key`.
    fn take(&mut self, key: &mut Vec<u8>) -> Result<Option<Change>>;
}

/// A stream of changes, looked at one ahead; keys must ascend.
pub(super) struct Changes<K, I> {
    head: Option<(K, Change)>,
    rest: I,
}

impl<K: AsRef<[u8]>, I: Iterator<Item = Result<(K, Change)>>> Changes<K, I> {
    pub(super) fn new(mut rest: I) -> Result<Self> {
        let head = rest.next().transpose()?;
        let changes = Changes { head, rest };
        changes.check(None)?;
        Ok(changes)
    }

    fn check(&self, previous: Option<&[u8]>) -> Result<()> {
        let Some((key, change)) = &self.head else { return Ok(()) };
        let key = key.as_ref();
        if previous.is_some_and(|previous| previous >= key) {
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
        self.head.as_ref().map(|(key, _)| key.as_ref())
    }

    fn take(&mut self, key: &mut Vec<u8>) -> Result<Option<Change>> {
        let Some((next, change)) = self.head.take() else { return Ok(None) };
        key.clear();
        key.extend_from_slice(next.as_ref());
        self.head = self.rest.next().transpose()?;
        self.check(Some(key))?;
        Ok(Some(change))
    }
}
