//! Positions in the log.

use std::fmt;

/// A byte position in the endless log. A record's LSN is the position of its first byte; as a watermark an LSN is
/// an exclusive end. Positions are never reused, not even after a crash dropped what stood there.
///
/// ```
/// use seawall_wal::Lsn;
/// assert!(Lsn(4096) > Lsn::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position before every record.
    pub const ZERO: Lsn = Lsn(0);
    /// The position after every record.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
