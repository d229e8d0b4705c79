//! What is chosen for a store that ships its log, or that gets another's.

use super::DbBuilder;
use crate::commit::gate::Ack;
use std::time::Duration;

impl DbBuilder {
    /// Opens the store as a replica: its log is another store's, which is shipped to it ([`Shipping`](crate::Shipping)); it
    /// reads, and refuses writes with `ReadOnly`, until it is [promoted](crate::Shipping::promote). Such a store is never
    /// created here: it begins as an image of the other one. Default: no.
    ///
    /// ```no_run
    /// # use seawall_engine::Db;
    /// let replica = Db::builder("copy").replica(true).open()?;
    /// assert!(replica.shipping().is_replica());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn replica(mut self, yes: bool) -> Self {
        self.replica = yes;
        self
    }

    /// How far replicas must have come with a commit before it counts, unless its transaction says otherwise
    /// ([`TxOptions::ack`](crate::TxOptions::ack)). Default: [`Ack::Local`].
    ///
    /// With more than that, what the log holds beyond the last checkpoint is not shown after opening before replicas are
    /// known to have it: this store may have lost its place to one of them. Until then reads see the checkpoint's state, and
    /// writes queue behind.
    ///
    /// ```
    /// # use seawall_engine::{Ack, Db, Error};
    /// # use std::time::Duration;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).segment_bytes(256 << 10);
    /// let db = db.ack(Ack::Durable).ack_timeout(Duration::from_millis(1)).open()?;
    /// // Nobody ships the log: what asks for more than the local log is in doubt, not lost.
    /// assert!(matches!(db.keyspace("rows"), Err(Error::CommitUnknown { .. })));
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn ack(mut self, default: Ack) -> Self {
        self.ack = default;
        self
    }

    /// How long a commit that the local log has reached waits for replicas before its caller gets `CommitUnknown`. It is
    /// not taken back: see [`Db::await_commit`](crate::Db::await_commit). Default: 10 seconds.
    ///
    /// ```
    /// # use seawall_engine::{Ack, Db};
    /// # use std::time::Duration;
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// let db = Db::builder("/store").disk(disk).ack_timeout(Duration::from_secs(2)).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn ack_timeout(mut self, limit: Duration) -> Self {
        self.ack_timeout = limit;
        self
    }
}
