//! Reading an open log: what there is, or what becomes durable.

use super::Wal;
use crate::Lsn;
use crate::error::{Error, Result};
use crate::reader::WalReader;
use std::ops::{Bound, RangeBounds};

impl Wal {
    /// Reads records, as far as they are written now. The log is kept from being reclaimed under the reader.
    ///
    /// # Errors
    /// [`Error::BadInput`](crate::Error::BadInput) if the range begins before [`first_lsn`](Wal::first_lsn) and is not open there.
    pub fn read(&self, range: impl RangeBounds<Lsn>) -> Result<WalReader> {
        let inner = &self.0.inner;
        let from = match range.start_bound() {
            Bound::Included(&Lsn::ZERO) | Bound::Unbounded => inner.first(),
            Bound::Included(lsn) => *lsn,
            Bound::Excluded(lsn) => lsn.plus(1),
        };
        let to = match range.end_bound() {
            Bound::Included(lsn) => lsn.plus(1),
            Bound::Excluded(lsn) => *lsn,
            Bound::Unbounded => Lsn::MAX,
        };
        let pin = self.pin("reader", from)?;
        WalReader::bounded(inner, pin, from, to.min(inner.committer.shown_written()))
    }

    /// Reads records from `from` on as they become durable, and never one that is not. `next` waits, woken by whoever made
    /// the next record durable; it gives `None` once the log is closed and all of it was shown, and an error once the log
    /// has failed. [`WalReader::next_timeout`] waits for a while, [`WalReader::stopper`] ends the reader from elsewhere.
    /// What the reader has not read yet is kept from being reclaimed.
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("seawall-follow-doc-{}", std::process::id()));
    /// use seawall_wal::{Lsn, Wal};
    /// let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;
    /// let follower = wal.follow(Lsn::ZERO)?;
    /// let thread = std::thread::spawn(move || follower.map(|record| record.unwrap().payload).collect::<Vec<_>>());
    /// wal.commit(b"one")?;
    /// wal.commit(b"two")?;
    /// wal.close()?; // and so the follower ends
    /// assert_eq!(thread.join().unwrap(), [b"one", b"two"]);
    /// # std::fs::remove_dir_all(dir).unwrap();
    /// # Ok::<(), seawall_wal::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BadInput`](crate::Error::BadInput) if `from` is before [`first_lsn`](Wal::first_lsn) and not zero; [`Error::Truncated`](crate::Error::Truncated) if `from` was [cut off](Wal::truncate_after);
    /// [`Error::ReadOnly`](crate::Error::ReadOnly) for a log that this handle cannot write.
    pub fn follow(&self, from: Lsn) -> Result<WalReader> {
        let inner = &self.0.inner;
        inner.check_open_for_writing()?;
        let from = if from == Lsn::ZERO { inner.first() } else { from };
        // From the log's beginning there is nothing else to begin with, wherever that lies.
        if let Some(at) = inner.committer.cuts.gap_around(from).filter(|_| from > inner.first()) {
            return Err(Error::Truncated { at });
        }
        let pin = self.pin("follower", from)?;
        WalReader::following(inner, pin, from)
    }
}
