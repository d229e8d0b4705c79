//! A keyspace's face.

use super::{Db, Handle};
use crate::commit::batch::WriteBatch;
use crate::key::KeyRange;
use crate::keyspace::Life;
use crate::read::view::{Readable, Snapshot};
use crate::record::KeyspaceOptions;
use crate::{Result, Scan};
use seawall_wal::{Lsn, Slice};
use std::sync::Arc;

/// A named, ordered map in a store. Each call on it is a transaction of its own; to do several things together see
/// [`Db::transact`], [`Db::snapshot`] and [`WriteBatch`]. A handle keeps the store open.
#[derive(Clone)]
pub struct Keyspace {
    handle: Arc<Handle>,
    life: Arc<Life>,
}

impl Keyspace {
    pub(crate) fn new(handle: Arc<Handle>, life: Arc<Life>) -> Keyspace {
        Keyspace { handle, life }
    }

    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    /// Its name.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// assert_eq!(rows.name(), "rows");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        self.life.name()
    }

    /// What it was made with.
    ///
    /// ```
    /// # use seawall_engine::{Db, KeyspaceOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// assert_eq!(*rows.options(), KeyspaceOptions::default());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn options(&self) -> &KeyspaceOptions {
        self.life.options()
    }

    /// The value of a key, now.
    ///
    /// # Errors
    /// `KeyspaceMissing`, `Closed`, and what reading can meet.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// assert_eq!(rows.get("a")?.as_deref(), Some(&b"1"[..]));
    /// assert!(rows.get("b")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let core = self.handle.core();
        core.check_open()?;
        core.reads.get_now(&self.life, key.as_ref())
    }

    /// The key gets this value.
    ///
    /// # Errors
    /// As [`Db::write`].
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?; // on the device when this returns
    /// rows.insert("a", "2")?;
    /// assert_eq!(rows.get("a")?.as_deref(), Some(&b"2"[..]));
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Lsn> {
        let mut batch = WriteBatch::new();
        batch.put(&self.life, key.as_ref(), value.as_ref());
        Db(Arc::clone(&self.handle)).write(batch)
    }

    /// The key is gone.
    ///
    /// # Errors
    /// As [`Db::write`].
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// rows.remove("a")?;
    /// rows.remove("never there")?;
    /// assert!(rows.get("a")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Lsn> {
        let mut batch = WriteBatch::new();
        batch.delete(&self.life, key.as_ref());
        Db(Arc::clone(&self.handle)).write(batch)
    }

    /// The rows of a range as they are now, from either end.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// for key in ["a", "b", "c"] {
    ///     rows.insert(key, "v")?;
    /// }
    /// assert_eq!(rows.range("b"..).count(), 2);
    /// let (last, _) = rows.range(..).next_back().unwrap()?;
    /// assert_eq!(last, "c");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn range(&self, range: impl KeyRange) -> Scan {
        match self.handle.core().check_open() {
            Ok(()) => self.snapshot().range(self, range),
            Err(error) => Scan::failed(error),
        }
    }

    /// The rows whose keys start with `prefix`, as they are now.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// for key in ["user/ada", "user/bob", "visit"] {
    ///     rows.insert(key, "v")?;
    /// }
    /// assert_eq!(rows.prefix("user/").count(), 2);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        match self.handle.core().check_open() {
            Ok(()) => self.snapshot().prefix(self, prefix),
            Err(error) => Scan::failed(error),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let core = self.handle.core();
        core.reads.snapshot(core.catalogue.instance(), false)
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace")
            .field("name", &self.name())
            .field("id", &self.life.id())
            .finish_non_exhaustive()
    }
}
