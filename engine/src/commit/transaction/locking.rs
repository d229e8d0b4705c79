//! Reading rows under their locks, and moving the snapshot on to what the lock protects.
//!
//! A lock alone says nothing about the past: by the time it is got, the row may have been changed since the snapshot, and
//! a transaction that went on from the snapshot's value could only lose. So the snapshot follows. If the row is newer,
//! a snapshot of now takes the place of the old one, provided that nobody could tell: everything that the transaction
//! has read is unchanged up to now (CockroachDB calls it a read refresh; Taft et al., "CockroachDB: The Resilient
//! Geo-Distributed SQL Database", 2020). Otherwise it has lost, and is told at once instead of at its commit.
//!
//! What was read and not noted cannot be compared, so it holds the snapshot where it is: an untracked read, the look that
//! an add takes at what it adds to, an open scan or cursor, and any plain read under snapshot isolation.

use super::{LOCK_TIMEOUT_DEFAULT, Transaction, check_share, contains};
use crate::commit::validate::Seen;
use crate::key::check_key;
use crate::keyspace::Life;
use crate::mutation::Mutation;
use crate::read::track::ReadSet;
use crate::record::{Builder, WriteSet};
use crate::sync::Ordering;
use crate::{Error, Keyspace, Result};
use seawall_wal::Slice;
use std::sync::Arc;

/// Why a transaction can no longer commit, whatever it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    Conflict,
    Deadlock,
}

impl Doom {
    pub(super) fn error(self) -> Error {
        match self {
            Doom::Conflict => Error::Conflict,
            Doom::Deadlock => Error::Deadlock,
        }
    }
}

impl Transaction {
    /// The value of a key, which nobody else who asks in this way gets before this transaction ends. For rows that many
    /// want to change at once: they wait for each other, instead of losing to each other and starting again.
    ///
    /// It waits for the lock for at most [`TxOptions::lock_timeout`](crate::TxOptions::lock_timeout), first come first
    /// served. The value is the newest one that is visible once the lock is got, so the commit does not fail for what
    /// happened to the row before. If that is newer than the snapshot, the snapshot moves on to now, provided that
    /// nothing that was read so far has changed: lock first, read then. If it cannot (something has changed; a scan or a
    /// cursor is open; [`get_untracked`](Transaction::get_untracked), [`add_i64`](Transaction::add_i64), or under snapshot
    /// isolation any other read, came before) this is a `Conflict`.
    ///
    /// The lock is held until the transaction is committed and visible, or rolled back; rolling back to a savepoint keeps
    /// it. Only `get_for_update` looks at locks: a row that is written without one, by a transaction, a batch or
    /// [`Keyspace::insert`](crate::Keyspace::insert), neither waits nor is refused, and then of both the first to commit
    /// wins. The row counts as read at either level of isolation: the commit conflicts if another changed it all the same.
    ///
    /// # Errors
    /// `LockTimeout`: somebody held the lock for too long; the transaction can go on. `Deadlock`: to wait would have closed
    /// a circle; its locks are gone, and it can only be rolled back. `Conflict`: as above; it can only be rolled back.
    /// All three [`is_retryable`](Error::is_retryable). `TooLarge` if the locks take more memory than a transaction may,
    /// `ReadOnly`, `Closed`, `KeyspaceMissing`, and what reading can meet.
    ///
    /// ```
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let queue = db.keyspace("queue")?;
    /// // Takes a number, as many others do at this moment.
    /// let mine = db.transact(|tx| {
    ///     let next = tx.get_for_update(&queue, "next")?.map_or(0, |next| next.len());
    ///     tx.insert(&queue, "next", vec![b'|'; next + 1])?;
    ///     Ok(next)
    /// })?;
    /// # Ok(()) }
    /// ```
    pub fn get_for_update(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let (life, key) = (ks.life(), key.as_ref());
        self.check_writable()?;
        check_key(key)?;
        self.check_keyspace(life)?;
        self.check_doom()?;
        if contains(&self.created, life) {
            // Nobody else knows the keyspace.
            return self.row_over(life, key, || Ok(None));
        }
        self.lock(life, key)?;
        self.mind_newest(life, key)?;
        self.catch_up(life, key)?;
        self.row_over(life, key, || {
            self.reads.note_row(life, key);
            self.snapshot.get_row(life, key)
        })
    }

    pub(super) fn check_doom(&self) -> Result<()> {
        self.doom.map_or(Ok(()), |doom| Err(doom.error()))
    }

    /// Whether it was told that it can only be rolled back.
    pub(crate) fn has_lost(&self) -> bool {
        self.doom.is_some()
    }

    fn doomed(&mut self, doom: Doom) -> Error {
        self.doom = Some(doom);
        doom.error()
    }

    fn lock(&mut self, life: &Life, key: &[u8]) -> Result<()> {
        let core = self.handle.core();
        let held = self.locks.get_or_insert_with(|| core.locks.owner());
        check_share(&core.memory, held.bytes(), &self.lock_charge)?;
        self.lock_charge.set(held.bytes() as u64);
        let limit = self.lock_timeout.unwrap_or(LOCK_TIMEOUT_DEFAULT);
        match held.lock(life.id(), key, limit) {
            Err(Error::Deadlock) => {
                // The others go on at once.
                self.locks = None;
                Err(self.doomed(Doom::Deadlock))
            }
            outcome => outcome,
        }
    }

    /// Sees to it that the snapshot has the newest version of a row that is locked.
    fn catch_up(&mut self, life: &Arc<Life>, key: &[u8]) -> Result<()> {
        self.snapshot.check_age()?;
        let core = Arc::clone(self.handle.core());
        let sequencer = &core.sequencer;
        let mut row = ReadSet::default();
        row.add_point(life.id(), key);
        let nothing = Builder::default().finish();
        let is_newest =
            |snapshot| sequencer.check_unchanged(&nothing, Seen { snapshot, reads: &row }).is_ok();
        if is_newest(self.snapshot.lsn()) {
            return Ok(());
        }
        if self.is_pinned.load(Ordering::Relaxed) || self.reads.has_scans() {
            return Err(self.doomed(Doom::Conflict));
        }
        // First the snapshot, then the look at what was read: what comes between is found by the look.
        let next = core.reads.snapshot(core.catalogue.instance(), true);
        let has_moved = self.is_unchanged_but_for_time(&nothing)
            && self.touched.values().chain(&self.dropped).all(|life| {
                // What was written to a keyspace that is gone must not be left out in silence.
                contains(&self.created, life) || next.check(life).is_ok()
            })
            && next.check(life).is_ok();
        // A change that is not visible yet was made by somebody without the lock.
        if !has_moved || !is_newest(next.lsn()) {
            return Err(self.doomed(Doom::Conflict));
        }
        self.snapshot = next;
        Ok(())
    }

    fn is_unchanged_but_for_time(&self, nothing: &WriteSet) -> bool {
        let core = self.core();
        let seen = Seen { snapshot: self.snapshot.lsn(), reads: &self.reads.now() };
        core.options.has(Mutation::RefreshBlindly) || core.sequencer.check_unchanged(nothing, seen).is_ok()
    }
}
