//! The face of the engine: a store, its keyspaces, and every call on them.
//!
//! [`Core`] is what all parts share; [`Handle`] is what clones of [`Db`], [`Keyspace`] and running transactions hold:
//! when the last of them goes, the store closes. Snapshots, scans and tickets hold neither, only what they read or
//! wait for.

mod core;
mod keyspace;
mod slots;

pub(crate) use self::core::{Core, Handle};
pub use self::keyspace::Keyspace;

use crate::commit::batch::WriteBatch;
use crate::commit::gate::Reach;
use crate::commit::ticket::{HeldTickets, Ticket};
use crate::commit::transaction::Transaction;
use crate::keyspace::check_name;
use crate::options::{DbBuilder, TxOptions};
use crate::read::scan::Own;
use crate::read::view::Snapshot;
use crate::record::{CATALOGUE, CatalogueRow, KeyspaceOptions};
use crate::stats::{Checkpoint, Progress, Stats, VerifyReport};
use crate::{Error, Result, Scan};
use seawall_wal::{Durability, Lsn, Recovery};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An open store. Clones share it; the last one's drop closes it.
///
/// ```
/// # fn main() -> seawall_engine::Result<()> {
/// let db = seawall_engine::Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// let accounts = db.keyspace("accounts")?;
/// accounts.insert("ada", "100")?;
/// db.transact(|tx| {
///     use seawall_engine::Readable;
///     let old = tx.get(&accounts, "ada")?;
///     assert_eq!(old.as_deref(), Some(&b"100"[..]));
///     tx.insert(&accounts, "ada", "90")?;
///     tx.insert(&accounts, "bob", "10")
/// })?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Db(Arc<Handle>);

impl Db {
    pub(crate) fn new(handle: Arc<Handle>) -> Db {
        Db(handle)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.0.core()
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.0
    }

    /// Opens the store in a directory, creating it if there is none. Commits are synced by default.
    ///
    /// # Errors
    /// As [`DbBuilder::open`].
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("seawall-open-{}", std::process::id()));
    /// use seawall_engine::Db;
    ///
    /// let db = Db::open(&dir)?;
    /// assert!(dir.join("data").exists());
    /// # drop(db);
    /// # std::fs::remove_dir_all(dir).unwrap();
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Db::builder(path.as_ref()).open()
    }

    /// To open a store with other choices.
    ///
    /// ```
    /// use seawall_engine::Db;
    ///
    /// // In memory, on a simulated disk, as for a test.
    /// let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).memory_budget(64 << 20).open()?;
    /// # drop(db);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn builder(path: impl Into<PathBuf>) -> DbBuilder {
        DbBuilder::new(path.into())
    }

    /// Opens a keyspace, whatever options it was made with, creating it with the default ones if there is none.
    ///
    /// # Errors
    /// `ReadOnly` if it would have to be created, `Closed`, `Poisoned`, `NoSpace`, `TooLarge` for the name.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let accounts = db.keyspace("accounts")?;
    /// assert_eq!(accounts.name(), "accounts");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.open_or_create(name, &KeyspaceOptions::default())
    }

    /// Opens a keyspace, creating it with these options if there is none. One that is there keeps the options that it was
    /// made with: they must be the same.
    ///
    /// # Errors
    /// As [`keyspace`](Db::keyspace); `BadInput` for options that this version cannot keep to, and for others than the
    /// keyspace was made with.
    ///
    /// ```
    /// # use seawall_engine::{Db, KeyspaceOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let plain = db.keyspace_with("plain", KeyspaceOptions::default())?;
    /// assert_eq!(*plain.options(), KeyspaceOptions::default());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn keyspace_with(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        options.check()?;
        let keyspace = self.open_or_create(name, &options)?;
        let found = keyspace.options();
        if *found == options {
            return Ok(keyspace);
        }
        let name = name.escape_debug();
        Err(Error::BadInput(format!("the keyspace \"{name}\" was made with {found:?}, not with {options:?}")))
    }

    fn open_or_create(&self, name: &str, options: &KeyspaceOptions) -> Result<Keyspace> {
        loop {
            if let Some(keyspace) = self.open_keyspace(name)? {
                return Ok(keyspace);
            }
            let mut transaction = self.begin();
            let keyspace = match transaction.create_keyspace(name, options.clone()) {
                // Made by another in the meantime.
                Err(Error::BadInput(_)) if self.open_keyspace(name)?.is_some() => continue,
                made => made?,
            };
            match transaction.commit() {
                Ok(_) => return Ok(keyspace),
                // What stands in the way may not be visible yet: another look alone would not show it.
                Err(error) if error.is_conflict() && self.core().sequencer.wait_for_pending() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a keyspace if there is one, whatever options it was made with.
    ///
    /// # Errors
    /// `Closed`, what reading can meet, and `BadInput` if it was made with options that this version cannot keep to.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// assert!(db.open_keyspace("rows")?.is_some());
    /// assert!(db.open_keyspace("other")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn open_keyspace(&self, name: &str) -> Result<Option<Keyspace>> {
        self.core().check_open()?;
        check_name(name)?;
        let reads = &self.core().reads;
        let (view, lsn) = reads.now();
        let Some(row) = reads.catalogue_row(&view, lsn, name)? else { return Ok(None) };
        // A later version may have made it with what this one cannot do.
        row.options.check()?;
        Ok(Some(Keyspace::new(Arc::clone(&self.0), self.core().catalogue.found(row, name))))
    }

    /// Drops a keyspace with all its rows. Snapshots taken before still read it; its other handles get
    /// `KeyspaceMissing`.
    ///
    /// # Errors
    /// `KeyspaceMissing` if it is gone already, and as [`Transaction::commit`].
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// db.drop_keyspace(rows)?;
    /// assert!(db.open_keyspace("rows")?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn drop_keyspace(&self, ks: Keyspace) -> Result<()> {
        self.transact(|transaction| transaction.drop_keyspace(&ks))
    }

    /// The names of all keyspaces, sorted; none if the store is closed or the catalogue cannot be read: where that
    /// matters, ask [`keyspace_names`](Db::keyspace_names).
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// db.keyspace("b")?;
    /// db.keyspace("a")?;
    /// assert_eq!(db.keyspaces(), ["a", "b"]);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn keyspaces(&self) -> Vec<String> {
        self.keyspace_names().unwrap_or_default()
    }

    /// The names of all keyspaces, sorted.
    ///
    /// # Errors
    /// `Closed`; `Io` and `Corruption` if the catalogue cannot be read.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// assert_eq!(db.keyspace_names()?, ["rows"]);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn keyspace_names(&self) -> Result<Vec<String>> {
        self.core().check_open()?;
        let row = CatalogueRow::new(CATALOGUE, KeyspaceOptions::default());
        let catalogue = self.core().catalogue.found(row, "");
        let rows = Scan::range(&self.snapshot(), &catalogue, Own::none(), &..);
        rows.keys().map(|name| Ok(String::from_utf8_lossy(&name?).into_owned())).collect()
    }

    /// The store as it is now. Hold it no longer than needed: see [`Snapshot`].
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let before = db.snapshot();
    /// rows.insert("a", "1")?;
    /// assert!(before.get(&rows, "a")?.is_none());
    /// assert!(db.snapshot().get(&rows, "a")?.is_some());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        let core = self.core();
        core.reads.snapshot(core.catalogue.instance(), false)
    }

    /// Begins a transaction with the store's defaults.
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin();
    /// tx.insert(&rows, "a", "1")?;
    /// assert!(rows.get("a")?.is_none(), "seen by nobody else");
    /// tx.commit()?;
    /// assert!(rows.get("a")?.is_some());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn begin(&self) -> Transaction {
        self.begin_with(TxOptions::default())
    }

    /// Begins a transaction.
    ///
    /// ```
    /// # use seawall_engine::{Db, TxOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tx = db.begin_with(TxOptions { read_only: true, ..TxOptions::default() });
    /// assert!(tx.insert(&rows, "a", "1").is_err());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn begin_with(&self, options: TxOptions) -> Transaction {
        Transaction::new(Arc::clone(&self.0), &options)
    }

    /// Runs `f` until it commits, trying again when that [is right](Error::is_retryable) (another transaction won, or had
    /// a lock), up to 64 times, each after a random time below a bound that doubles from 50 µs to 10 ms. So `f` may run
    /// more than once: what it does outside of the transaction it does each time. What `f` returns as an error of
    /// another kind rolls back, and so does a panic.
    ///
    /// # Errors
    /// Those of `f` and of [`Transaction::commit`]; `Conflict`, `Deadlock` or `LockTimeout` if it lost every time.
    ///
    /// ```
    /// # fn main() -> seawall_engine::Result<()> {
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let counts = db.keyspace("counts")?;
    /// let count = db.transact(|tx| {
    ///     let old = tx.get(&counts, "visits")?.map_or(0, |old| old.len());
    ///     tx.insert(&counts, "visits", vec![b'|'; old + 1])?;
    ///     Ok(old + 1)
    /// })?;
    /// # Ok(()) }
    /// ```
    pub fn transact<T>(&self, mut f: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.transact_with(TxOptions::default(), &mut f)
    }

    /// Like [`transact`](Db::transact), with options.
    ///
    /// # Errors
    /// As [`transact`](Db::transact).
    ///
    /// ```
    /// # use seawall_engine::{Db, TxOptions};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let once = TxOptions { retries_max: Some(0), ..TxOptions::default() };
    /// db.transact_with(once, |tx| tx.insert(&rows, "a", "1"))?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn transact_with<T>(
        &self,
        options: TxOptions,
        mut f: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        self.run(&options, &mut f, Error::is_retryable)
    }

    /// Like [`transact`](Db::transact) for an error type of one's own. Its errors are the end, unless the transaction had
    /// lost before (a `Conflict` or a `Deadlock` by [`get_for_update`](Transaction::get_for_update)); a lost commit is tried
    /// again.
    ///
    /// # Errors
    /// As [`transact`](Db::transact).
    ///
    /// ```
    /// # use seawall_engine::{Db, Error, Readable};
    /// enum Refused {
    ///     Poor,
    ///     Store(Error),
    /// }
    /// impl From<Error> for Refused {
    ///     fn from(error: Error) -> Refused {
    ///         Refused::Store(error)
    ///     }
    /// }
    /// # fn pay(db: &Db, purses: &seawall_engine::Keyspace) -> Result<(), Refused> {
    /// db.try_transact(|tx| match tx.get_for_update(purses, "ada")? {
    ///     Some(purse) if !purse.is_empty() => Ok(tx.insert(purses, "ada", &purse[1..])?),
    ///     _ => Err(Refused::Poor),
    /// })
    /// # }
    /// ```
    pub fn try_transact<T, E: From<Error>>(
        &self,
        mut f: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.run(&TxOptions::default(), &mut f, |_| false)
    }

    fn run<T, E: From<Error>>(
        &self,
        options: &TxOptions,
        f: &mut dyn FnMut(&mut Transaction) -> Result<T, E>,
        is_retryable: fn(&E) -> bool,
    ) -> Result<T, E> {
        let retries_max = options.retries_max.unwrap_or(RETRIES_MAX_DEFAULT);
        let mut retries = 0;
        loop {
            let mut transaction = self.begin_with(options.clone());
            let is_last = retries >= retries_max;
            match f(&mut transaction) {
                Ok(value) => match transaction.commit() {
                    Ok(_) => return Ok(value),
                    Err(error) if is_last || !error.is_retryable() => return Err(E::from(error)),
                    Err(_) => {}
                },
                // One that has lost already may have failed for that reason alone.
                Err(error) if is_last || !is_retryable(&error) && !transaction.has_lost() => {
                    return Err(error);
                }
                Err(_) => drop(transaction),
            }
            self.back_off(retries);
            retries += 1;
        }
    }

    /// A random time below a bound that doubles from 50 µs to 10 ms, so that those who met do not meet again.
    fn back_off(&self, retries: u32) {
        let core = self.core();
        let bound_us = (50_u64 << retries.min(8)).min(10_000);
        core.pause(Duration::from_micros(1 + core.runtime.random() % bound_us));
    }

    /// Commits a batch at the store's default durability.
    ///
    /// # Errors
    /// As [`Transaction::commit`], without `Conflict`. `PreparedConflict` if a prepared transaction holds a row of it.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "a", "1").insert(&rows, "b", "2");
    /// let lsn = db.write(batch)?;
    /// assert!(lsn < db.write_pipelined(WriteBatch::new())?.wait()?);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn write(&self, batch: WriteBatch) -> Result<Lsn> {
        self.write_reaching(batch, self.core().options.reach())
    }

    /// Commits a batch.
    ///
    /// # Errors
    /// As [`write`](Db::write).
    ///
    /// ```
    /// # use seawall_engine::{Db, Durability, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "a", "1");
    /// db.write_with(batch, Durability::Memory)?; // lost with this process, until
    /// db.sync()?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn write_with(&self, batch: WriteBatch, durability: Durability) -> Result<Lsn> {
        self.write_reaching(batch, self.core().options.reach_at(durability))
    }

    fn write_reaching(&self, batch: WriteBatch, reach: Reach) -> Result<Lsn> {
        let core = self.core();
        core.check_writable()?;
        let (set, touched) = batch.finish(core.catalogue.instance(), core.memory.transaction_max())?;
        if set.is_empty() {
            return Ok(core.reads.visible());
        }
        core.commit(set, &touched, None, reach)
    }

    /// Takes a batch's place in the order and returns at once; the batch is visible and durable when the ticket
    /// resolves.
    ///
    /// # Errors
    /// As [`write`](Db::write).
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut tickets = Vec::new();
    /// for n in 0..10_u8 {
    ///     let mut batch = WriteBatch::new();
    ///     batch.insert(&rows, [n], "v");
    ///     tickets.push(db.write_pipelined(batch)?);
    /// }
    /// for ticket in tickets {
    ///     ticket.wait()?;
    /// }
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn write_pipelined(&self, batch: WriteBatch) -> Result<Ticket> {
        self.write_pipelined_with(batch, self.core().options.durability)
    }

    /// As [`write_pipelined`](Db::write_pipelined), at another durability than the store's default.
    ///
    /// ```
    /// # use seawall_engine::{Db, Durability, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let mut batch = WriteBatch::new();
    /// batch.insert(&rows, "seen", "now");
    /// db.write_pipelined_with(batch, Durability::Memory)?.wait()?;
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write_pipelined`](Db::write_pipelined).
    pub fn write_pipelined_with(&self, batch: WriteBatch, durability: Durability) -> Result<Ticket> {
        let core = self.core();
        core.check_writable()?;
        let (set, touched) = batch.finish(core.catalogue.instance(), core.memory.transaction_max())?;
        if set.is_empty() {
            return Ok(Ticket::nothing(core.reads.visible()));
        }
        core.commit_pipelined(set, &touched, None, core.options.reach_at(durability), None)
    }

    /// What is handed over from here on (by the pipelined calls, from any thread) is written together when this is dropped, and
    /// not before, unless somebody waits for some of it. For whoever has many commits at hand, and nothing to do between
    /// them: it holds up everybody else's tickets as well.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let held = db.hold_tickets();
    /// let mut tickets = Vec::new();
    /// for n in 0..10_u8 {
    ///     let mut batch = WriteBatch::new();
    ///     batch.insert(&rows, [n], "v");
    ///     tickets.push(db.write_pipelined(batch)?);
    /// }
    /// drop(held); // one flush
    /// for ticket in tickets {
    ///     ticket.wait()?;
    /// }
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn hold_tickets(&self) -> HeldTickets {
        HeldTickets::new(Arc::clone(&self.0))
    }

    /// Everything committed so far is on the device when this returns; the position up to which that is so.
    ///
    /// # Errors
    /// `Closed`, `ReadOnly`, `Poisoned`, and what the device says.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let lsn = rows.insert("a", "1")?;
    /// assert!(db.sync()? > lsn);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn sync(&self) -> Result<Lsn> {
        let core = self.core();
        core.check_writable()?;
        let lsn = core.log.sync().inspect_err(|error| core.poison(error));
        core.sequencer.advance();
        lsn
    }

    /// Folds the log into the data file: bounds recovery, frees log. While [slots](Db::create_slot) have owners that are heard
    /// of, and behind what the newest checkpoint covers, it may be left for later, with 0 bytes written: the store could
    /// otherwise not go back to where they are, if one of them took over ([`rewind`](crate::rewind)).
    ///
    /// # Errors
    /// `NoSpace`: nothing happened, and it may be tried again. After any other failure of a write or a sync, the
    /// store refuses writes.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// let made = db.checkpoint()?;
    /// assert!(made.bytes > 0);
    /// assert_eq!(db.checkpoint()?.bytes, 0, "nothing is left to do");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    #[doc(alias = "compact")]
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        self.core().check_foldable()?;
        self.core().checkpoint()
    }

    /// Reads and checks every block of the data file and every record of the log. Reading goes on beside it.
    ///
    /// # Errors
    /// `Closed`, `Io`. What is damaged is in the report.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// db.checkpoint()?;
    /// let report = db.verify(|progress| println!("{} of {}", progress.done, progress.total))?;
    /// assert!(report.problems.is_empty(), "{:?}", report.problems);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<VerifyReport> {
        self.core().check_open()?;
        self.core().verify(&mut progress)
    }

    /// What recovery found when the store was opened.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// assert_eq!(db.recovery().records, 0, "a new store has nothing to recover");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn recovery(&self) -> &Recovery {
        self.core().log.recovery()
    }

    /// Figures of now.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// rows.insert("a", "1")?;
    /// let stats = db.stats();
    /// assert!(stats.commits > 0 && stats.log_bytes > 0);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.core().stats()
    }

    /// What the store has failed by, if it has: writes are refused. [`Stats::poisoned`] alone, for those who ask often.
    pub fn poisoned(&self) -> Option<String> {
        self.core().sequencer.failure().map(|cause| cause.to_string())
    }

    /// After `NoSpace`: looks for room, and accepts writes again. Also after the log found no room for what had its place
    /// already, which file systems that copy on write may do and which poisons the store: what could not be written is
    /// written in place, and commits of which `CommitUnknown` was told become visible.
    ///
    /// # Errors
    /// `NoSpace` if there still is none; `Poisoned` if another write, or a sync, failed, and only reopening helps.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// if let Err(seawall_engine::Error::NoSpace) = rows.insert("a", "1") {
    ///     // Somebody has made room meanwhile.
    ///     db.resume()?;
    /// }
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn resume(&self) -> Result<()> {
        self.core().check_open()?;
        if self.core().options.read_only {
            return Err(Error::ReadOnly);
        }
        self.core().resume()
    }

    /// Closes the store for all clones: later calls get `Closed`. Commits in flight are finished. Snapshots taken
    /// before go on reading; they, and transactions, keyspaces and tickets that are still held, keep the data file
    /// open and locked until they are dropped: until then nobody can open the store again, in this process or another.
    ///
    /// # Errors
    /// What the last writes meet; `Closed` if it is closed already.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let other = db.clone();
    /// db.close()?;
    /// assert!(matches!(rows.get("a"), Err(seawall_engine::Error::Closed)));
    /// assert!(matches!(other.close(), Err(seawall_engine::Error::Closed)));
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn close(self) -> Result<()> {
        self.0.close()
    }
}

const RETRIES_MAX_DEFAULT: u32 = 64;

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("path", &self.core().options.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
