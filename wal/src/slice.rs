//! Bytes that share their owner.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes that share their owner (a cached block, a log buffer): cheap to clone, no copy on read. Holding one keeps
/// the whole owner in memory; [`detach`](Slice::detach) gives a copy that does not.
///
/// ```
/// use seawall_wal::Slice;
/// use std::sync::Arc;
///
/// let part = Slice::new(Arc::new(b"abcdef".to_vec()), 2..4);
/// assert_eq!((&part[..], part.clone().len()), (&b"cd"[..], 2));
/// ```
#[derive(Clone)]
pub struct Slice {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Slice {
    /// The part `range` of the owner's bytes; cut to what there is.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Slice {
        let len = (*owner).as_ref().len();
        let end = range.end.min(len);
        Slice { owner, range: range.start.min(end)..end }
    }

    /// Like [`new`](Slice::new), by a caller who knows that the range lies within the owner's bytes: these are not looked
    /// at. A slice whose range does not is empty.
    pub fn within(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Slice {
        Slice { owner, range }
    }

    /// A copy that pins nothing but its own bytes.
    ///
    /// ```
    /// # use seawall_wal::Slice;
    /// # use std::sync::Arc;
    /// let large = Arc::new(vec![7; 1 << 20]);
    /// let kept = Slice::new(large.clone(), 0..10).detach();
    /// assert_eq!((kept.len(), Arc::strong_count(&large)), (10, 1));
    /// ```
    #[must_use]
    pub fn detach(&self) -> Slice {
        Slice::from(self.to_vec())
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        let len = bytes.len();
        Slice { owner: Arc::new(bytes), range: 0..len }
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Vec<u8> {
        slice.to_vec()
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Slice {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Slice {}
