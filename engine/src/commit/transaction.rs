//! A transaction: a snapshot to read from, and a private set of writes on top of it.
//!
//! Nothing is shared before the commit: a transaction that is dropped, or whose thread panics, leaves no trace.
//! Writes are kept per keyspace in an ordered map that scans share (it is copied if it is written while a scan of it
//! is alive), and an undo list is kept from the first savepoint on: see `own`.

use crate::commit::batch::{check_range, too_large};
use crate::commit::own::{OwnRow, OwnWrites, cost, cost_of_clear};
use crate::commit::ticket::Ticket;
use crate::db::{Core, Handle};
use crate::delta::Version;
use crate::key::{KeyRange, check_key, check_value};
use crate::keyspace::{Life, check_name};
use crate::number::{NUMBER_BYTES, no_number};
use crate::options::{Isolation, TxOptions};
use crate::read::scan::Own;
use crate::read::view::{Readable, Snapshot, check_instance};
use crate::record::{Builder, CatalogueRow, KeyspaceOptions, WriteSet};
use crate::sync::{AtomicBool, Ordering};
use crate::{Cursor, Error, Keyspace, Result, Scan};
use seawall_wal::{Durability, Lsn, Slice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A transaction under snapshot isolation: it reads the store as it was when it began, plus its own writes, and
/// commits only if no row that it writes was changed by another since (the first committer wins; the loser gets
/// `Conflict`, and nothing has happened). Dropping it rolls it back.
///
/// [`Db::transact`](crate::Db::transact) runs one with retries.
pub struct Transaction {
    handle: Arc<Handle>,
    snapshot: Snapshot,
    durability: Durability,
    is_read_only: bool,
    /// Why it cannot be used at all.
    refusal: Option<String>,
    own: OwnWrites,
    touched: BTreeMap<u32, Arc<Life>>,
    created: Vec<Arc<Life>>,
    dropped: Vec<Arc<Life>>,
    savepoints: Vec<Mark>,
    savepoints_made: u64,
    number: u64,
    has_ended: Arc<AtomicBool>,
}

/// What a savepoint goes back to.
struct Mark {
    number: u64,
    undo: usize,
    created: usize,
    dropped: usize,
}

/// A point in a transaction that [`Transaction::rollback_to`] goes back to.
#[derive(Debug)]
pub struct Savepoint {
    transaction: u64,
    number: u64,
}

impl Transaction {
    pub(crate) fn new(handle: Arc<Handle>, options: &TxOptions) -> Transaction {
        let core = handle.core();
        let is_read_only = options.read_only || core.options.read_only;
        let isolation = options.isolation.unwrap_or(core.options.isolation);
        let refusal = (isolation == Isolation::Serializable).then(|| {
            "serializable isolation is not there yet: ask for Isolation::Snapshot, which is the default"
                .into()
        });
        let snapshot = core.reads.snapshot(core.catalogue.instance(), !is_read_only);
        Transaction {
            durability: options.durability.unwrap_or(core.options.durability),
            number: core.runtime.random(),
            handle,
            snapshot,
            is_read_only,
            refusal,
            own: OwnWrites::default(),
            touched: BTreeMap::new(),
            created: Vec::new(),
            dropped: Vec::new(),
            savepoints: Vec::new(),
            savepoints_made: 0,
            has_ended: Arc::new(AtomicBool::new(false)),
        }
    }

    fn core(&self) -> &Arc<Core> {
        self.handle.core()
    }

    /// The key gets this value.
    ///
    /// # Errors
    /// `TooLarge`, `KeyspaceMissing`, `ReadOnly`, `Closed`.
    pub fn insert(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        check_value(value.as_ref())?;
        self.write(ks, key.as_ref(), Some(value.as_ref()))
    }

    /// The key is gone, whether it was there or not.
    ///
    /// # Errors
    /// As [`insert`](Transaction::insert).
    pub fn remove(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(ks, key.as_ref(), None)
    }

    /// All rows of the range are gone, those that this transaction wrote included: one operation, however many rows.
    /// A range without keys, one whose start lies after its end among them, clears nothing.
    ///
    /// It conflicts with whatever another has written in the range since this transaction began.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::open("store")?;
    /// let events = db.keyspace("events")?;
    /// db.transact(|tx| tx.remove_range(&events, .."2026-01-01"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Transaction::insert); `TooLarge` if a bound is longer than a key can be.
    pub fn remove_range(&mut self, ks: &Keyspace, range: impl KeyRange) -> Result<()> {
        self.check_writable()?;
        let span = check_range(&range)?;
        let life = ks.life();
        self.check_keyspace(life)?;
        let Some(span) = span else { return Ok(()) };
        self.check_room(cost_of_clear(&span))?;
        self.touched.entry(life.id()).or_insert_with(|| Arc::clone(life));
        self.own.clear(life.id(), &span);
        Ok(())
    }

    /// Adds to the number in a row, without its being read: 8 bytes, little endian, two's complement
    /// ([`i64::to_le_bytes`]). A row that is not there counts as 0; the sum wraps.
    ///
    /// Adds of several transactions to one row never conflict with each other. Any other write to the row conflicts with
    /// an add that was committed since, and an add with any such write.
    ///
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::open("store")?;
    /// let counters = db.keyspace("counters")?;
    /// db.transact(|tx| tx.add_i64(&counters, "visits", 1))?;
    /// let visits = counters.get("visits")?.map(|value| value.to_vec().try_into());
    /// assert_eq!(visits, Some(Ok(1_i64.to_le_bytes())));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `BadInput` if the row's present value is not 8 bytes long; as [`insert`](Transaction::insert).
    pub fn add_i64(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>, delta: i64) -> Result<()> {
        let (life, key) = (ks.life(), key.as_ref());
        self.check_writable()?;
        check_key(key)?;
        self.check_keyspace(life)?;
        let version = match self.own.row(life.id(), key) {
            OwnRow::Written(version) => version.plus(delta),
            OwnRow::Cleared => Version::Removed.plus(delta),
            OwnRow::Unwritten if contains(&self.created, life) => Version::Removed.plus(delta),
            OwnRow::Unwritten => {
                // Whoever changes the type later conflicts with this add.
                let value = self.snapshot.get_row(life, key)?;
                if value.is_some_and(|value| value.len() != NUMBER_BYTES) {
                    Version::Flawed
                } else {
                    Version::Add(delta)
                }
            }
        };
        if version == Version::Flawed {
            return Err(no_number(key));
        }
        self.set(life, key, version)
    }

    /// Writes `new` (none removes) if the current value is `expected` (none: the key is absent). False, and nothing
    /// written, if it is another.
    ///
    /// # Errors
    /// As [`insert`](Transaction::insert) and [`Readable::get`].
    pub fn compare_and_set(
        &mut self,
        ks: &Keyspace,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        if self.get(ks, key.as_ref())?.as_deref() != expected {
            return Ok(false);
        }
        check_value(new.unwrap_or_default())?;
        self.write(ks, key.as_ref(), new)?;
        Ok(true)
    }

    /// Reads without entering the read set; under snapshot isolation there is none, and this is
    /// [`get`](Readable::get).
    ///
    /// # Errors
    /// As [`get`](Readable::get).
    pub fn get_untracked(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.get(ks, key)
    }

    /// Makes a keyspace that is there once this transaction commits, and for it at once.
    ///
    /// # Errors
    /// `BadInput` if there is one of that name, or for options that this version cannot keep to; `TooLarge` for a name
    /// over 255 bytes; `ReadOnly`, `Closed`.
    pub fn create_keyspace(&mut self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        self.check_writable()?;
        check_name(name)?;
        options.check()?;
        if self.has_keyspace(name)? {
            return Err(Error::BadInput(format!("there is a keyspace \"{}\" already", name.escape_debug())));
        }
        let life = self.core().catalogue.conceive(name, options)?;
        self.created.push(Arc::clone(&life));
        Ok(Keyspace::new(Arc::clone(&self.handle), life))
    }

    /// Drops a keyspace with all its rows once this transaction commits, and for it at once. Older snapshots still
    /// read it.
    ///
    /// # Errors
    /// `KeyspaceMissing`, `ReadOnly`, `Closed`.
    pub fn drop_keyspace(&mut self, ks: &Keyspace) -> Result<()> {
        self.check_writable()?;
        self.check_keyspace(ks.life())?;
        self.dropped.push(Arc::clone(ks.life()));
        Ok(())
    }

    /// Remembers the present state.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoints_made += 1;
        self.own.keeps_undo = true;
        self.savepoints.push(Mark {
            number: self.savepoints_made,
            undo: self.own.mark(),
            created: self.created.len(),
            dropped: self.dropped.len(),
        });
        Savepoint { transaction: self.number, number: self.savepoints_made }
    }

    /// Takes back every write since the savepoint, which stays; later savepoints are gone.
    ///
    /// # Errors
    /// `BadInput` if the savepoint is gone, or another transaction's.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let position = self
            .savepoints
            .iter()
            .position(|mark| mark.number == savepoint.number && savepoint.transaction == self.number)
            .ok_or_else(|| Error::BadInput("this savepoint is gone, or another transaction's".into()))?;
        self.savepoints.truncate(position + 1);
        let Some(mark) = self.savepoints.get(position) else { return Ok(()) };
        self.created.truncate(mark.created);
        self.dropped.truncate(mark.dropped);
        self.own.rollback_to(mark.undo);
        Ok(())
    }

    /// How far the commit must have come before it counts; the store's default otherwise.
    pub fn set_durability(&mut self, durability: Durability) -> &mut Self {
        self.durability = durability;
        self
    }

    /// It can no longer commit: a row that it has written was changed by another since it began, its snapshot had to
    /// give way, or the store refuses writes. A long transaction may ask now and then, instead of finding out at its end.
    pub fn is_doomed(&self) -> bool {
        if self.check_usable().is_err() {
            return true;
        }
        let set = self.encode();
        let is_writer = !self.is_read_only && !set.is_empty();
        let sequencer = &self.core().sequencer;
        let is_too_old = self.snapshot.check_age().is_err();
        is_writer
            && (is_too_old
                || sequencer.check().is_err()
                || sequencer.would_conflict(&set, self.snapshot.lsn()))
    }

    /// Returns when the commit is visible, at the durability asked for.
    ///
    /// # Errors
    /// `Conflict`: another won, nothing happened. `SnapshotTooOld`, `NoSpace`, `TooLarge`, `KeyspaceMissing`, `Closed`, `Poisoned`:
    /// nothing happened. `CommitUnknown`: it may or may not survive; ask again after reopening.
    pub fn commit(self) -> Result<Lsn> {
        self.check_usable()?;
        let set = self.encode();
        if set.is_empty() {
            return Ok(self.snapshot.lsn());
        }
        self.snapshot.check_age()?;
        let core = self.core();
        let touched = self.touched_lives();
        core.commit(set, &touched, Some(self.snapshot.lsn()), self.durability)
    }

    /// Takes the commit's place in the order and returns at once: transactions after it see its writes only when
    /// the ticket resolves.
    ///
    /// # Errors
    /// As [`commit`](Transaction::commit); `CommitUnknown` comes from the ticket.
    pub fn commit_pipelined(self) -> Result<Ticket> {
        self.check_usable()?;
        let set = self.encode();
        if set.is_empty() {
            return Ok(Ticket::nothing(self.snapshot.lsn()));
        }
        self.snapshot.check_age()?;
        let core = self.core();
        let touched = self.touched_lives();
        core.commit_pipelined(set, &touched, Some(self.snapshot.lsn()), self.durability)
    }

    /// Forgets all writes; so does dropping it.
    pub fn rollback(self) {}

    fn write(&mut self, ks: &Keyspace, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.check_writable()?;
        check_key(key)?;
        let life = ks.life();
        self.check_keyspace(life)?;
        self.set(life, key, Version::of(value.map(|value| Slice::from(value.to_vec()))))
    }

    fn set(&mut self, life: &Arc<Life>, key: &[u8], version: Version) -> Result<()> {
        self.check_room(cost(key, version.byte_len()))?;
        self.touched.entry(life.id()).or_insert_with(|| Arc::clone(life));
        self.own.set(life.id(), key, version);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<()> {
        let (bytes, max) = (self.own.bytes() + more, self.core().options.transaction_bytes_max);
        if bytes > max { Err(too_large(bytes, max)) } else { Ok(()) }
    }

    /// Drops first, so that a name can be dropped and made anew in one transaction.
    fn encode(&self) -> WriteSet {
        let mut builder = Builder::default();
        for life in self.dropped.iter().filter(|life| !contains(&self.created, life)) {
            builder.drop_keyspace(life.id(), life.name());
        }
        for life in self.created.iter().filter(|life| !contains(&self.dropped, life)) {
            let row = CatalogueRow::new(life.id(), life.options().clone());
            builder.create_keyspace(life.id(), life.name(), &row.encode());
        }
        self.own.encode(&mut builder, |keyspace| {
            let has_ended = self.dropped.iter().any(|life| life.id() == keyspace);
            // A keyspace whose creation was rolled back keeps no rows either.
            let is_there = self.touched.get(&keyspace).is_some_and(|life| self.is_mine_or_older(life));
            !has_ended && is_there
        });
        builder.finish()
    }

    /// The keyspaces that must be there when the commit gets its place.
    fn touched_lives(&self) -> Vec<Arc<Life>> {
        let is_passing = |life: &Arc<Life>| contains(&self.created, life) && contains(&self.dropped, life);
        let is_needed = |life: &&Arc<Life>| self.is_mine_or_older(life) && !is_passing(life);
        self.touched.values().filter(is_needed).map(Arc::clone).collect()
    }

    fn is_mine_or_older(&self, life: &Arc<Life>) -> bool {
        contains(&self.created, life) || self.snapshot.check(life).is_ok()
    }

    fn check_usable(&self) -> Result<()> {
        match &self.refusal {
            Some(why) => Err(Error::BadInput(why.clone())),
            None => self.core().check_open(),
        }
    }

    fn check_writable(&self) -> Result<()> {
        self.check_usable()?;
        if self.is_read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    fn check_keyspace(&self, life: &Arc<Life>) -> Result<()> {
        check_instance(life, self.core().catalogue.instance())?;
        if self.is_mine_or_older(life) && !contains(&self.dropped, life) {
            Ok(())
        } else {
            Err(life.missing())
        }
    }

    /// Whether a keyspace of that name is there for this transaction.
    fn has_keyspace(&self, name: &str) -> Result<bool> {
        let is_live = |life: &&Arc<Life>| &**life.name() == name && !contains(&self.dropped, life);
        if self.created.iter().any(|life| is_live(&life)) {
            return Ok(true);
        }
        let row = self.snapshot.catalogue_row(name)?;
        Ok(row.is_some_and(|row| !self.dropped.iter().any(|life| life.id() == row.id)))
    }

    fn own(&self, life: &Arc<Life>) -> Own {
        let (rows, cleared) = self.own.of(life.id()).unzip();
        Own {
            rows,
            cleared: cleared.unwrap_or_default(),
            has_ended: Some(Arc::clone(&self.has_ended)),
            is_new: contains(&self.created, life),
        }
    }

    /// What a row is for this transaction, given what its snapshot says of it, which is asked for only if needed.
    fn row_over(
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

    fn check_readable(&self, life: &Arc<Life>) -> Result<()> {
        match &self.refusal {
            Some(why) => Err(Error::BadInput(why.clone())),
            None => self.check_keyspace(life),
        }
    }
}

fn contains(lives: &[Arc<Life>], life: &Arc<Life>) -> bool {
    lives.iter().any(|other| Arc::ptr_eq(other, life))
}

impl Readable for Transaction {
    fn get(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let (life, key) = (ks.life(), key.as_ref());
        self.check_readable(life)?;
        self.row_over(life, key, || self.snapshot.get_row(life, key))
    }

    fn multi_get<K: AsRef<[u8]>>(&self, ks: &Keyspace, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let life = ks.life();
        self.check_readable(life)?;
        let is_new = contains(&self.created, life);
        let needs_below = |key: &[u8]| match self.own.row(life.id(), key) {
            OwnRow::Unwritten | OwnRow::Written(Version::Add(_)) => !is_new,
            _ => false,
        };
        let wanted: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).filter(|key| needs_below(key)).collect();
        let found = if wanted.is_empty() { Vec::new() } else { self.snapshot.get_rows(life, &wanted)? };
        let mut found = found.into_iter();
        keys.iter().map(|key| self.row_over(life, key.as_ref(), || Ok(found.next().flatten()))).collect()
    }

    fn range(&self, ks: &Keyspace, range: impl KeyRange) -> Scan {
        match self.check_readable(ks.life()) {
            Ok(()) => Scan::range(&self.snapshot, ks.life(), self.own(ks.life()), &range),
            Err(error) => Scan::failed(error),
        }
    }

    fn prefix(&self, ks: &Keyspace, prefix: impl AsRef<[u8]>) -> Scan {
        match self.check_readable(ks.life()) {
            Ok(()) => Scan::prefix(&self.snapshot, ks.life(), self.own(ks.life()), prefix.as_ref()),
            Err(error) => Scan::failed(error),
        }
    }

    fn cursor(&self, ks: &Keyspace) -> Cursor {
        match self.check_readable(ks.life()) {
            Ok(()) => Cursor::new(&self.snapshot, ks.life(), self.own(ks.life())),
            Err(error) => Cursor::failed(error),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Release);
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("snapshot", &self.snapshot.lsn()).finish_non_exhaustive()
    }
}
