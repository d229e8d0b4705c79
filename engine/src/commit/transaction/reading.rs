//! How a transaction reads: its own writes over its snapshot; and how it notes what it read.

use super::{Transaction, contains};
use crate::commit::own::OwnRow;
use crate::delta::Version;
use crate::key::KeyRange;
use crate::keyspace::Life;
use crate::mutation::Mutation;
use crate::read::scan::Own;
use crate::read::track::ReadSet;
use crate::read::view::{Readable, check_instance};
use crate::sync::Ordering;
use crate::{Cursor, Keyspace, Result, Scan, ValueReader};
use seawall_wal::Slice;
use std::sync::Arc;

impl Transaction {
    /// Reads as [`get`](Readable::get) does, and enters nothing into the read set: the commit does not depend on the row.
    /// For what is only a hint, or is checked otherwise. Under snapshot isolation there is no difference.
    ///
    /// # Errors
    /// As [`get`](Readable::get).
    ///
    /// ```
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let visits = db.keyspace("visits")?;
    /// let mut tx = db.begin();
    /// let about = tx.get_untracked(&visits, "total")?.unwrap_or(b"none".to_vec().into());
    /// tx.insert(&visits, "as shown to ada", about)?;
    /// tx.commit()?; // no conflict with those who count on
    /// # Ok(()) }
    /// ```
    pub fn get_untracked(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let (life, key) = (ks.life(), key.as_ref());
        self.check_keyspace(life)?;
        self.row_over(life, key, || {
            self.is_pinned.store(true, Ordering::Relaxed);
            self.snapshot.get_row(life, key)
        })
    }

    /// What a row is for this transaction, given what its snapshot says of it, which is asked for only if needed.
    pub(super) fn row_over(
        &self,
        life: &Arc<Life>,
        key: &[u8],
        below: impl FnOnce() -> Result<Option<Slice>>,
    ) -> Result<Option<Slice>> {
        let below = || if contains(&self.created, life) { Ok(None) } else { below() };
        match self.own.row(life.id(), key) {
            OwnRow::Unwritten => below(),
            OwnRow::Cleared => Ok(None),
            OwnRow::Written(add @ Version::Add(_)) => {
                self.snapshot.reads().row_of(add.over(Version::of(below()?)))
            }
            OwnRow::Written(version) => self.snapshot.reads().row_of(version),
        }
    }

    pub(super) fn note(&self, life: &Life, key: &[u8]) {
        if self.is_serializable {
            self.reads.note_row(life, key);
        } else {
            self.is_pinned.store(true, Ordering::Relaxed);
        }
    }

    fn note_name(&self, name: &str) {
        if self.is_serializable {
            self.reads.note_name(name);
        } else {
            self.is_pinned.store(true, Ordering::Relaxed);
        }
    }

    /// Nothing is read any more.
    pub(super) fn close_reads(&self) -> ReadSet {
        let mut reads = self.reads.close();
        let options = &self.core().options;
        if options.has(Mutation::SkipPoints) {
            reads.forget_points();
        }
        if options.has(Mutation::SkipSpans) {
            reads.forget_spans();
        }
        reads
    }

    pub(super) fn check_keyspace(&self, life: &Arc<Life>) -> Result<()> {
        check_instance(life, self.core().catalogue.instance())?;
        let is_there = self.is_mine_or_older(life);
        if is_there && !contains(&self.dropped, life) {
            return Ok(());
        }
        if !is_there {
            self.note_name(life.name());
        }
        Err(life.missing())
    }

    /// Whether a keyspace of that name is there for this transaction.
    pub(super) fn has_keyspace(&self, name: &str) -> Result<bool> {
        let is_live = |life: &&Arc<Life>| &**life.name() == name && !contains(&self.dropped, life);
        if self.created.iter().any(|life| is_live(&life)) {
            return Ok(true);
        }
        self.note_name(name);
        let row = self.snapshot.catalogue_row(name)?;
        Ok(row.is_some_and(|row| !self.dropped.iter().any(|life| life.id() == row.id)))
    }

    /// What a scan of this keyspace reads beside the snapshot.
    fn own(&self, life: &Arc<Life>) -> Own {
        let is_new = contains(&self.created, life);
        if !is_new {
            self.note_name(life.name());
        }
        let (rows, cleared) = self.own.of(life.id()).unzip();
        Own {
            rows,
            cleared: cleared.unwrap_or_default(),
            has_ended: Some(Arc::clone(&self.has_ended)),
            reads: (self.is_serializable && !is_new).then(|| Arc::clone(&self.reads)),
            is_new,
        }
    }
}

impl Readable for Transaction {
    fn get(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let (life, key) = (ks.life(), key.as_ref());
        self.check_keyspace(life)?;
        self.row_over(life, key, || {
            self.mind_row(life, key)?;
            self.note(life, key);
            self.snapshot.get_row(life, key)
        })
    }

    fn multi_get<K: AsRef<[u8]>>(&self, ks: &Keyspace, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let life = ks.life();
        self.check_keyspace(life)?;
        let is_new = contains(&self.created, life);
        let needs_below = |key: &[u8]| match self.own.row(life.id(), key) {
            OwnRow::Unwritten | OwnRow::Written(Version::Add(_)) => !is_new,
            _ => false,
        };
        let wanted: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).filter(|key| needs_below(key)).collect();
        wanted.iter().try_for_each(|key| self.mind_row(life, key))?;
        wanted.iter().for_each(|key| self.note(life, key));
        let found = if wanted.is_empty() { Vec::new() } else { self.snapshot.get_rows(life, &wanted)? };
        let mut found = found.into_iter();
        keys.iter().map(|key| self.row_over(life, key.as_ref(), || Ok(found.next().flatten()))).collect()
    }

    fn open_value(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>> {
        self.open(ks, key.as_ref())
    }

    fn range(&self, ks: &Keyspace, range: impl KeyRange) -> Scan {
        match self.check_keyspace(ks.life()).and_then(|()| self.mind_range(ks.life(), &range)) {
            Ok(()) => Scan::range(&self.snapshot, ks.life(), self.own(ks.life()), &range),
            Err(error) => Scan::failed(error),
        }
    }

    fn prefix(&self, ks: &Keyspace, prefix: impl AsRef<[u8]>) -> Scan {
        let prefix = prefix.as_ref();
        match self.check_keyspace(ks.life()).and_then(|()| self.mind_prefix(ks.life(), prefix)) {
            Ok(()) => Scan::prefix(&self.snapshot, ks.life(), self.own(ks.life()), prefix),
            Err(error) => Scan::failed(error),
        }
    }

    fn cursor(&self, ks: &Keyspace) -> Cursor {
        match self.check_keyspace(ks.life()).and_then(|()| self.mind_range(ks.life(), &..)) {
            Ok(()) => Cursor::new(&self.snapshot, ks.life(), self.own(ks.life())),
            Err(error) => Cursor::failed(error),
        }
    }
}
