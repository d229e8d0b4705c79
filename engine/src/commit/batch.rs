//! Writes that go together without reading anything: all of them, or none.

use crate::cover::Span;
use crate::key::{KeyRange, check_key, check_value};
use crate::keyspace::Life;
use crate::read::view::check_instance;
use crate::record::{Builder, PAYLOAD_BYTES_MAX, WriteSet};
use crate::{Error, Keyspace, Result};
use std::ops::Bound;
use std::sync::Arc;

/// Writes that become visible and durable together, or not at all. Operations apply in call order. A batch is
/// blind: it overwrites what others have written, and never conflicts.
///
/// What is wrong with an operation (a key that is too long, say) is told by the write of the batch, of which nothing
/// then happens.
///
/// ```
/// # fn main() -> seawall_engine::Result<()> {
/// # let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// let users = db.keyspace("users")?;
/// let mut batch = seawall_engine::WriteBatch::new();
/// batch.insert(&users, "ada", "1815").remove(&users, "bob");
/// db.write(batch)?;
/// # Ok(()) }
/// ```
#[derive(Default, Clone)]
pub struct WriteBatch {
    builder: Builder,
    /// The keyspaces that it writes to, ascending by id, each once.
    touched: Vec<Arc<Life>>,
    problem: Option<Arc<Error>>,
}

impl WriteBatch {
    /// An empty batch.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let batch = WriteBatch::new();
    /// assert!(batch.is_empty());
    /// db.write(batch)?; // nothing happens
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// The key gets this value.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "a", "1").insert(&rows, "a", "2");
    /// db.write(batch)?;
    /// assert_eq!(rows.get("a")?.as_deref(), Some(&b"2"[..]));
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn insert(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.put(ks.life(), key.as_ref(), value.as_ref());
        self
    }

    /// The key is gone, whether it was there or not.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "a", "1").remove(&rows, "a");
    /// db.write(batch)?;
    /// assert!(rows.get("a")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn remove(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        self.delete(ks.life(), key.as_ref());
        self
    }

    /// All rows of the range are gone, those that this batch has put there before included: one operation, however many
    /// rows. A range without keys, one whose start lies after its end among them, clears nothing.
    ///
    /// ```
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let cache = db.keyspace("cache")?;
    /// let mut batch = seawall_engine::WriteBatch::new();
    /// batch.remove_range(&cache, ..).insert(&cache, "emptied", "just now");
    /// db.write(batch)?;
    /// # Ok(()) }
    /// ```
    pub fn remove_range(&mut self, ks: &Keyspace, range: impl KeyRange) -> &mut Self {
        let (life, span) = (ks.life(), check_range(&range));
        let bytes = span.as_ref().map_or(0, |span| span.as_ref().map_or(0, Span::byte_len));
        let is_range = matches!(span, Ok(Some(_)));
        if self.accepts(life, span.map(drop), bytes) && is_range {
            self.builder.remove_range(life.id(), range.bounds());
        }
        self
    }

    /// Adds to the number in a row, without its being read: see
    /// [`Transaction::add_i64`](crate::Transaction::add_i64). What others write to the row at the same time takes
    /// place before this or after it.
    ///
    /// ```
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let counters = db.keyspace("counters")?;
    /// let mut batch = seawall_engine::WriteBatch::new();
    /// batch.add_i64(&counters, "visits", 1).add_i64(&counters, "bytes", 1800);
    /// db.write(batch)?;
    /// # Ok(()) }
    /// ```
    pub fn add_i64(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>, delta: i64) -> &mut Self {
        let (life, key) = (ks.life(), key.as_ref());
        if self.accepts(life, check_key(key), key.len()) {
            self.builder.add(life.id(), key, delta);
        }
        self
    }

    /// The number of operations.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "a", "1").remove(&rows, "b");
    /// assert_eq!(batch.len(), 2);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.builder.len()
    }

    /// True if there is nothing to write.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.remove(&rows, "a");
    /// assert!(!batch.is_empty());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the log record, in bytes.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "a", [0; 1000]);
    /// assert!(batch.byte_len() > 1000);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn byte_len(&self) -> usize {
        self.builder.byte_len()
    }

    /// Forgets all operations, and keeps the memory.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "a", "1");
    /// batch.clear();
    /// assert!(batch.is_empty());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn clear(&mut self) {
        self.builder.clear();
        self.touched.clear();
        self.problem = None;
    }

    pub(crate) fn put(&mut self, life: &Arc<Life>, key: &[u8], value: &[u8]) {
        let checked = check_key(key).and_then(|()| check_value(value));
        if self.accepts(life, checked, key.len() + value.len()) {
            self.builder.put(life.id(), key, value);
        }
    }

    pub(crate) fn delete(&mut self, life: &Arc<Life>, key: &[u8]) {
        if self.accepts(life, check_key(key), key.len()) {
            self.builder.remove(life.id(), key);
        }
    }

    fn accepts(&mut self, life: &Arc<Life>, checked: Result<()>, bytes: usize) -> bool {
        let len = self.builder.byte_len() + bytes + 64;
        let fits = if len <= PAYLOAD_BYTES_MAX { Ok(()) } else { Err(too_large(len, PAYLOAD_BYTES_MAX)) };
        match checked.and(fits) {
            Ok(()) => {
                if let Err(at) = self.touched.binary_search_by_key(&life.id(), |touched| touched.id()) {
                    self.touched.insert(at, Arc::clone(life));
                }
                self.problem.is_none()
            }
            Err(problem) => {
                self.problem.get_or_insert(Arc::new(problem));
                false
            }
        }
    }

    /// The write set, and the keyspaces that it writes to.
    pub(crate) fn finish(self, instance: u64, bytes_max: usize) -> Result<(WriteSet, Vec<Arc<Life>>)> {
        if let Some(problem) = self.problem {
            return Err(problem.again());
        }
        if self.builder.byte_len() > bytes_max {
            return Err(too_large(self.builder.byte_len(), bytes_max));
        }
        for life in &self.touched {
            check_instance(life, instance)?;
        }
        let mut set = self.builder.finish();
        if let Some(flaw) = set.flaw() {
            return Err(Error::BadInput(format!("this batch holds {}", flaw.what)));
        }
        set.is_blind = true;
        Ok((set, self.touched))
    }
}

/// The keys of a range, if there are any.
///
/// # Errors
/// `TooLarge` if a bound is longer than a key can be.
pub(crate) fn check_range(range: &impl KeyRange) -> Result<Option<Span>> {
    let (from, to) = range.bounds();
    for bound in [from, to] {
        if let Bound::Included(key) | Bound::Excluded(key) = bound {
            check_key(key)?;
        }
    }
    Ok(Span::new(from, to))
}

pub(crate) fn too_large(len: usize, max: usize) -> Error {
    Error::TooLarge { what: "transaction", len: len as u64, max: max as u64 }
}

impl std::fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteBatch")
            .field("operations", &self.len())
            .field("bytes", &self.byte_len())
            .finish_non_exhaustive()
    }
}
