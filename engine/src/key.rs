//! Keys, their limits, and ranges of them.

use crate::{Error, Result};
use seawall_wal::Slice;
use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// The longest key, in bytes. The empty key is a key.
pub const KEY_BYTES_MAX: usize = 65_535;
/// The longest value, in bytes. The empty value is a value.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// The longest name of a keyspace, in bytes of UTF-8; the shortest is one byte.
pub const NAME_BYTES_MAX: usize = 255;

/// A row: key and value.
pub type Entry = (Slice, Slice);

/// Any range over byte-like keys; `..` needs no turbofish. A range whose start lies after its end is empty.
///
/// ```
/// use seawall_engine::KeyRange;
/// use std::ops::Bound;
/// assert_eq!(("a".."c").bounds(), (Bound::Included(&b"a"[..]), Bound::Excluded(&b"c"[..])));
/// assert_eq!((..).bounds(), (Bound::Unbounded, Bound::Unbounded));
/// ```
pub trait KeyRange {
    /// Where the range starts and where it ends.
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>);
}

impl KeyRange for RangeFull {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

macro_rules! key_range {
    ($($range:ident),*) => {$(
        impl<K: AsRef<[u8]>> KeyRange for $range<K> {
            fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
                (self.start_bound().map(|key| key.as_ref()), self.end_bound().map(|key| key.as_ref()))
            }
        }
    )*};
}
key_range!(Range, RangeInclusive, RangeFrom, RangeTo, RangeToInclusive);

impl<K: AsRef<[u8]>> KeyRange for (Bound<K>, Bound<K>) {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.0.as_ref().map(|key| key.as_ref()), self.1.as_ref().map(|key| key.as_ref()))
    }
}

/// A range that owns its ends, for scans that outlive the call.
#[derive(Clone, Debug)]
pub(crate) struct OwnedRange {
    pub(crate) from: Bound<Slice>,
    pub(crate) to: Bound<Slice>,
}

impl OwnedRange {
    pub(crate) fn all() -> OwnedRange {
        OwnedRange { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    pub(crate) fn new(range: &impl KeyRange) -> OwnedRange {
        let (from, to) = range.bounds();
        OwnedRange {
            from: from.map(|key| Slice::from(key.to_vec())),
            to: to.map(|key| Slice::from(key.to_vec())),
        }
    }

    pub(crate) fn prefix(prefix: &[u8]) -> OwnedRange {
        let to = match prefix_end(prefix) {
            Some(end) => Bound::Excluded(Slice::from(end)),
            None => Bound::Unbounded,
        };
        OwnedRange { from: Bound::Included(Slice::from(prefix.to_vec())), to }
    }

    pub(crate) fn is_past_end(&self, key: &[u8]) -> bool {
        match &self.to {
            Bound::Unbounded => false,
            Bound::Included(to) => *key > **to,
            Bound::Excluded(to) => *key >= **to,
        }
    }

    pub(crate) fn is_before_start(&self, key: &[u8]) -> bool {
        match &self.from {
            Bound::Unbounded => false,
            Bound::Included(from) => *key < **from,
            Bound::Excluded(from) => *key <= **from,
        }
    }
}

/// The shortest key above every key that starts with `prefix`; none if there is no such key.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

/// A bound as bytes.
pub(crate) fn bound_bytes(bound: &Bound<Slice>) -> Bound<&[u8]> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
    }
}

/// Refuses a key that is too long.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::TooLarge { what: "key", len: key.len() as u64, max: KEY_BYTES_MAX as u64 });
    }
    Ok(())
}

/// Refuses a value that is too long.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::TooLarge { what: "value", len: value.len() as u64, max: VALUE_BYTES_MAX as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_the_next_key_that_does_not_have_it() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
        let range = OwnedRange::prefix(b"a\xff");
        assert!(range.is_before_start(b"a") && !range.is_before_start(b"a\xff"));
        assert!(!range.is_past_end(b"a\xff\xff\xff") && range.is_past_end(b"b"));
    }
}
