//! A transaction: a snapshot to read from, and a private set of writes on top of it.
//!
//! Nothing is shared before the commit: a transaction that is dropped, or whose thread panics, leaves no trace.
//! Writes are kept per keyspace in an ordered map that scans share (it is copied if it is written while a scan of it
//! is alive), and an undo list is kept from the first savepoint on: see `own`.

use crate::commit::batch::{check_range, too_large};
use crate::commit::gate::Reach;
use crate::commit::locks::Held;
use crate::commit::own::{OwnRow, OwnWrites, cost, cost_of_clear};
use crate::commit::ticket::Ticket;
use crate::commit::validate::Seen;
use crate::db::{Core, Handle};
use crate::delta::Version;
use crate::key::{KeyRange, check_key, check_value};
use crate::keyspace::{Life, check_name};
use crate::memory::{CHARGE_STEP, Charge, Memory};
use crate::number::{NUMBER_BYTES, no_number};
use crate::options::{Isolation, OnPrepared, TxOptions};
use crate::read::track::ReadLog;
use crate::read::view::{Readable, Snapshot};
use crate::record::{Builder, CatalogueRow, KeyspaceOptions, WriteSet};
use crate::sync::{AtomicBool, Ordering};
use crate::{Error, Keyspace, Result};
use seawall_wal::{Durability, Lsn, Slice};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use locking::Doom;

mod locking;
mod preparing;
mod reading;
mod streaming;

/// How long a row's lock is waited for.
const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// A transaction: it reads the store as it was when it began, plus its own writes, and commits only if nothing that it
/// wrote ([`Isolation::Snapshot`]), or nothing that it wrote or read ([`Isolation::Serializable`], the default), was
/// changed by another since. The first to commit wins; the other gets `Conflict`, and nothing has happened. One that wrote
/// nothing never loses. Dropping it rolls it back.
///
/// [`Db::transact`](crate::Db::transact) runs one with retries.
///
/// ```
/// # fn main() -> seawall_engine::Result<()> {
/// # use seawall_engine::{Db, Readable};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let on_call = db.keyspace("on-call")?;
/// let mut tx = db.begin();
/// // Somebody must stay: whoever else leaves at the same time has read what this one writes, and gets a conflict.
/// if tx.range(&on_call, ..).count() > 1 {
///     tx.remove(&on_call, "ada")?;
/// }
/// tx.commit()?;
/// # Ok(()) }
/// ```
pub struct Transaction {
    handle: Arc<Handle>,
    snapshot: Snapshot,
    reach: Reach,
    is_read_only: bool,
    /// What it reads is noted, and validated.
    is_serializable: bool,
    reads: Arc<ReadLog>,
    /// Something was read and not noted: the snapshot must stay.
    is_pinned: AtomicBool,
    locks: Option<Held>,
    lock_timeout: Option<Duration>,
    on_prepared: OnPrepared,
    doom: Option<Doom>,
    own: OwnWrites,
    /// For what it writes.
    charge: Charge,
    lock_charge: Charge,
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
///
/// ```
/// # use seawall_engine::Db;
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// let mut tx = db.begin();
/// let savepoint = tx.savepoint();
/// tx.insert(&rows, "a", "1")?;
/// tx.rollback_to(&savepoint)?;
/// tx.commit()?;
/// assert!(rows.get("a")?.is_none());
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct Savepoint {
    transaction: u64,
    number: u64,
}

impl Transaction {
    pub(crate) fn new(handle: Arc<Handle>, options: &TxOptions) -> Transaction {
        let core = handle.core();
        let is_read_only = options.read_only || core.is_read_only();
        let isolation = options.isolation.unwrap_or(core.options.isolation);
        let snapshot = core.reads.snapshot(core.catalogue.instance(), !is_read_only);
        let memory = &core.memory;
        let reads = ReadLog::new(memory.transaction_max(), memory.transactions_max(), &memory.transactions);
        let charge = Charge::none(&core.memory.transactions);
        let lock_charge = Charge::none(&core.memory.transactions);
        Transaction {
            reach: Reach {
                durability: options.durability.unwrap_or(core.options.durability),
                ack: options.ack.unwrap_or(core.options.ack),
            },
            number: core.runtime.random(),
            handle,
            snapshot,
            is_read_only,
            is_serializable: isolation == Isolation::Serializable && !is_read_only,
            reads,
            is_pinned: AtomicBool::new(false),
            locks: None,
            lock_timeout: options.lock_timeout,
            on_prepared: options.on_prepared,
            doom: None,
            own: OwnWrites::default(),
            charge,
            lock_charge,
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
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.insert(&rows, "a", "1")?;
    /// assert!(tx.get(&rows, "a")?.is_some(), "it sees its own writes");
    /// tx.commit()?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn insert(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        check_value(value.as_ref())?;
        self.write(ks, key.as_ref(), Some(value.as_ref()))
    }

    /// The key is gone, whether it was there or not.
    ///
    /// # Errors
    /// As [`insert`](Transaction::insert).
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// let mut tx = db.begin();
    /// tx.remove(&rows, "a")?;
    /// tx.commit()?;
    /// assert!(rows.get("a")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn remove(&mut self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(ks, key.as_ref(), None)
    }

    /// All rows of the range are gone, those that this transaction wrote included: one operation, however many rows.
    /// A range without keys, one whose start lies after its end among them, clears nothing.
    ///
    /// It conflicts with whatever another has written in the range since this transaction began.
    ///
    /// ```
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
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
        self.charge.set(self.own.bytes() as u64);
        Ok(())
    }

    /// Adds to the number in a row, without its being read: 8 bytes, little endian, two's complement
    /// ([`i64::to_le_bytes`]). A row that is not there counts as 0; the sum wraps.
    ///
    /// Adds of several transactions to one row never conflict with each other. Any other write to the row conflicts with
    /// an add that was committed since, and an add with any such write. An add that is refused, or taken back by a
    /// savepoint, counts as a read of the row.
    ///
    /// ```
    /// # fn main() -> seawall_engine::Result<()> {
    /// # let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
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
                // Whoever changes the type later conflicts with this add, as long as it is one of the writes: a snapshot
                // that moved on would leave out what came before. Of an add that is refused nothing else is left.
                self.is_pinned.store(true, Ordering::Relaxed);
                let value = self.snapshot.get_row(life, key)?;
                if value.is_some_and(|value| value.len() != NUMBER_BYTES) {
                    self.note(life, key);
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
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// let mut tx = db.begin();
    /// assert!(tx.compare_and_set(&rows, "a", Some(b"1"), Some(b"2"))?);
    /// assert!(!tx.compare_and_set(&rows, "a", Some(b"1"), None)?);
    /// tx.commit()?;
    /// assert_eq!(rows.get("a")?.as_deref(), Some(&b"2"[..]));
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
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

    /// Makes a keyspace that is there once this transaction commits, and for it at once.
    ///
    /// # Errors
    /// `BadInput` if there is one of that name, or for options that this version cannot keep to; `TooLarge` for a name
    /// over 255 bytes; `ReadOnly`, `Closed`.
    ///
    /// ```
    /// # use seawall_engine::{Db, KeyspaceOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let mut tx = db.begin();
    /// let names = tx.create_keyspace("names", KeyspaceOptions::default())?;
    /// tx.insert(&names, "a", "1")?;
    /// tx.commit()?; // the keyspace, and what is in it
    /// assert!(db.open_keyspace("names")?.is_some());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
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
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.drop_keyspace(&rows)?;
    /// assert!(db.open_keyspace("rows")?.is_some(), "until it commits");
    /// tx.commit()?;
    /// assert!(db.open_keyspace("rows")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn drop_keyspace(&mut self, ks: &Keyspace) -> Result<()> {
        self.check_writable()?;
        self.check_keyspace(ks.life())?;
        let life = ks.life();
        // Adds to its rows are written no more: what they were told of the rows would be forgotten.
        let has_added = self.is_pinned.load(Ordering::Relaxed) && self.own.of(life.id()).is_some();
        if has_added && self.is_serializable && !contains(&self.created, life) {
            self.reads.note_all(life);
        }
        self.dropped.push(Arc::clone(life));
        Ok(())
    }

    /// Remembers the present state.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.insert(&rows, "a", "1")?;
    /// let savepoint = tx.savepoint();
    /// tx.insert(&rows, "b", "2")?;
    /// tx.rollback_to(&savepoint)?;
    /// tx.commit()?;
    /// assert!(rows.get("a")?.is_some() && rows.get("b")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
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
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// let first = tx.savepoint();
    /// tx.remove_range(&rows, ..)?;
    /// tx.rollback_to(&first)?;
    /// tx.rollback_to(&first)?; // again, if need be
    /// tx.commit()?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
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
        for (keyspace, key) in self.own.rollback_to(mark.undo) {
            // The add is gone; that there was a number to add to, or no row, was told all the same.
            let is_added = matches!(self.own.row(keyspace, &key), OwnRow::Written(Version::Add(_)));
            if let Some(life) = self.touched.get(&keyspace).filter(|_| !is_added) {
                self.note(life, &key);
            }
        }
        Ok(())
    }

    /// How far the commit must have come before it counts; the store's default otherwise.
    ///
    /// ```
    /// # use seawall_engine::{Db, Durability};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.insert(&rows, "a", "1")?;
    /// tx.set_durability(Durability::Written);
    /// tx.commit()?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn set_durability(&mut self, durability: Durability) -> &mut Self {
        self.reach.durability = durability;
        self
    }

    /// Whether its commit would write anything.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// assert!(!tx.has_writes());
    /// tx.insert(&rows, "a", "1")?;
    /// assert!(tx.has_writes());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn has_writes(&self) -> bool {
        let is_passing = |life: &Arc<Life>| contains(&self.created, life) && contains(&self.dropped, life);
        self.created.iter().chain(&self.dropped).any(|life| !is_passing(life)) || self.own.has_any()
    }

    /// It can no longer commit: something that it wrote, or read and is to be validated for, was changed by another since
    /// it began, its snapshot had to give way, or the store refuses writes. A long transaction may ask now and then,
    /// instead of finding out at its end.
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// let mut slow = db.begin();
    /// slow.get(&rows, "a")?;
    /// rows.insert("a", "2")?;
    /// slow.insert(&rows, "b", "3")?;
    /// if slow.is_doomed() {
    ///     // No need to do the rest.
    /// }
    /// assert!(slow.commit().unwrap_err().is_conflict());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn is_doomed(&self) -> bool {
        let core = self.core();
        if core.check_open().is_err() || self.doom.is_some() {
            return true;
        }
        let set = self.encode();
        if self.is_read_only || set.is_empty() {
            return false;
        }
        let seen = Seen { snapshot: self.snapshot.lsn(), reads: &self.reads.now() };
        self.snapshot.check_age().is_err()
            || core.sequencer.check().is_err()
            || core.sequencer.check_unchanged(&set, seen).is_err()
    }

    /// Returns when the commit is visible, at the durability asked for.
    ///
    /// # Errors
    /// `Conflict`, `Deadlock`: another won, nothing happened. `PreparedConflict`: another is prepared and may win, nothing
    /// happened. `SnapshotTooOld`, `NoSpace`, `TooLarge`, `KeyspaceMissing`, `Closed`, `Poisoned`:
    /// nothing happened. `CommitUnknown`: it may or may not survive; ask again after reopening.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.insert(&rows, "a", "1")?;
    /// let lsn = tx.commit()?; // on the device
    /// assert!(db.sync()? > lsn);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn commit(self) -> Result<Lsn> {
        self.core().check_open()?;
        self.check_doom()?;
        let set = self.encode();
        if set.is_empty() {
            return Ok(self.snapshot.lsn());
        }
        self.snapshot.check_age()?;
        let (reads, touched) = (self.close_reads(), self.touched_lives());
        let seen = Seen { snapshot: self.snapshot.lsn(), reads: &reads };
        self.core().commit(set, &touched, Some(seen), self.reach)
    }

    /// Takes the commit's place in the order and returns at once: transactions after it see its writes only when
    /// the ticket resolves.
    ///
    /// # Errors
    /// As [`commit`](Transaction::commit); `CommitUnknown` comes from the ticket.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.insert(&rows, "a", "1")?;
    /// let ticket = tx.commit_pipelined()?;
    /// // Something else, while the device writes.
    /// ticket.wait()?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn commit_pipelined(mut self) -> Result<Ticket> {
        self.core().check_open()?;
        self.check_doom()?;
        let set = self.encode();
        if set.is_empty() {
            return Ok(Ticket::nothing(self.snapshot.lsn()));
        }
        self.snapshot.check_age()?;
        let (reads, touched) = (self.close_reads(), self.touched_lives());
        let seen = Seen { snapshot: self.snapshot.lsn(), reads: &reads };
        let locks = self.locks.take();
        self.core().commit_pipelined(set, &touched, Some(seen), self.reach, locks)
    }

    /// Forgets all writes; so does dropping it.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.insert(&rows, "a", "1")?;
    /// tx.rollback();
    /// assert!(rows.get("a")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
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
        self.charge.set(self.own.bytes() as u64);
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<()> {
        check_share(&self.core().memory, self.own.bytes() + more, &self.charge)
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

    fn check_writable(&self) -> Result<()> {
        self.core().check_open()?;
        if self.is_read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }
}

/// `TooLarge` if a transaction that holds so much would have more than its share of the memory budget, or all of them
/// together more than theirs.
fn check_share(memory: &Memory, bytes: usize, charge: &Charge) -> Result<()> {
    let max = memory.transaction_max();
    if bytes > max {
        return Err(too_large(bytes, max));
    }
    let (all, all_max) = (charge.all() - charge.bytes() + bytes as u64, memory.transactions_max());
    // What is too little to be charged is always there.
    if all > all_max && bytes as u64 > CHARGE_STEP {
        let what = "what all transactions that are open hold in memory";
        return Err(Error::TooLarge { what, len: all, max: all_max });
    }
    Ok(())
}

fn contains(lives: &[Arc<Life>], life: &Arc<Life>) -> bool {
    lives.iter().any(|other| Arc::ptr_eq(other, life))
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
