//! The face of the engine: a store, its keyspaces, and every call on them.
//!
//! [`Core`] is what all parts share; [`Handle`] is what clones of [`Db`], [`Keyspace`] and running transactions hold:
//! when the last of them goes, the store closes. Snapshots, scans and tickets hold neither, only what they read or
//! wait for.

mod core;

pub(crate) use self::core::{Core, Handle};

use crate::commit::batch::WriteBatch;
use crate::commit::ticket::Ticket;
use crate::commit::transaction::Transaction;
use crate::key::KeyRange;
use crate::keyspace::{Life, check_name};
use crate::options::{DbBuilder, TxOptions};
use crate::read::scan::Own;
use crate::read::view::{Readable, Snapshot};
use crate::record::{CATALOGUE, CatalogueRow, KeyspaceOptions};
use crate::stats::{Checkpoint, Progress, Stats, VerifyReport};
use crate::{Error, Result, Scan};
use seawall_wal::{Durability, Lsn, Recovery, Slice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An open store. Clones share it; the last one's drop closes it.
///
/// ```no_run
/// # fn main() -> seawall_engine::Result<()> {
/// let db = seawall_engine::Db::open("store")?;
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

    /// Opens the store in a directory, creating it if there is none. Commits are synced by default.
    ///
    /// # Errors
    /// As [`DbBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Db> {
        Db::builder(path.as_ref()).open()
    }

    /// To open a store with other choices.
    pub fn builder(path: impl Into<PathBuf>) -> DbBuilder {
        DbBuilder::new(path.into())
    }

    /// Opens a keyspace, whatever options it was made with, creating it with the default ones if there is none.
    ///
    /// # Errors
    /// `ReadOnly` if it would have to be created, `Closed`, `Poisoned`, `NoSpace`, `TooLarge` for the name.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.open_or_create(name, &KeyspaceOptions::default())
    }

    /// Opens a keyspace, creating it with these options if there is none. One that is there keeps the options that it was
    /// made with: they must be the same.
    ///
    /// # Errors
    /// As [`keyspace`](Db::keyspace); `BadInput` for options that this version cannot keep to, and for others than the
    /// keyspace was made with.
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
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a keyspace if there is one, whatever options it was made with.
    ///
    /// # Errors
    /// `Closed`, what reading can meet, and `BadInput` if it was made with options that this version cannot keep to.
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
    pub fn drop_keyspace(&self, ks: Keyspace) -> Result<()> {
        self.transact(|transaction| transaction.drop_keyspace(&ks))
    }

    /// The names of all keyspaces, sorted; none if the store is closed or the catalogue cannot be read: where that
    /// matters, ask [`keyspace_names`](Db::keyspace_names).
    pub fn keyspaces(&self) -> Vec<String> {
        self.keyspace_names().unwrap_or_default()
    }

    /// The names of all keyspaces, sorted.
    ///
    /// # Errors
    /// `Closed`; `Io` and `Corruption` if the catalogue cannot be read.
    pub fn keyspace_names(&self) -> Result<Vec<String>> {
        self.core().check_open()?;
        let row = CatalogueRow::new(CATALOGUE, KeyspaceOptions::default());
        let catalogue = self.core().catalogue.found(row, "");
        let rows = Scan::range(&self.snapshot(), &catalogue, Own::none(), &..);
        rows.keys().map(|name| Ok(String::from_utf8_lossy(&name?).into_owned())).collect()
    }

    /// The store as it is now. Hold it no longer than needed: see [`Snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        let core = self.core();
        core.reads.snapshot(core.catalogue.instance(), false)
    }

    /// Begins a transaction with the store's defaults.
    pub fn begin(&self) -> Transaction {
        self.begin_with(TxOptions::default())
    }

    /// Begins a transaction.
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
    /// ```no_run
    /// # fn main() -> seawall_engine::Result<()> {
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::open("store")?;
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
    /// ```no_run
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
    /// As [`Transaction::commit`], without `Conflict`.
    pub fn write(&self, batch: WriteBatch) -> Result<Lsn> {
        self.write_with(batch, self.core().options.durability)
    }

    /// Commits a batch.
    ///
    /// # Errors
    /// As [`write`](Db::write).
    pub fn write_with(&self, batch: WriteBatch, durability: Durability) -> Result<Lsn> {
        let core = self.core();
        core.check_writable()?;
        let (set, touched) = batch.finish(core.catalogue.instance(), core.memory.transaction_max())?;
        if set.is_empty() {
            return Ok(core.reads.visible());
        }
        core.commit(set, &touched, None, durability)
    }

    /// Takes a batch's place in the order and returns at once; the batch is visible and durable when the ticket
    /// resolves.
    ///
    /// # Errors
    /// As [`write`](Db::write).
    pub fn write_pipelined(&self, batch: WriteBatch) -> Result<Ticket> {
        let core = self.core();
        core.check_writable()?;
        let (set, touched) = batch.finish(core.catalogue.instance(), core.memory.transaction_max())?;
        if set.is_empty() {
            return Ok(Ticket::nothing(core.reads.visible()));
        }
        core.commit_pipelined(set, &touched, None, core.options.durability, None)
    }

    /// Everything committed so far is on the device when this returns; the position up to which that is so.
    ///
    /// # Errors
    /// `Closed`, `ReadOnly`, `Poisoned`, and what the device says.
    pub fn sync(&self) -> Result<Lsn> {
        let core = self.core();
        core.check_writable()?;
        let lsn = core.log.sync().inspect_err(|error| core.poison(error));
        core.sequencer.advance();
        lsn
    }

    /// Folds the log into the data file: bounds recovery, frees log.
    ///
    /// # Errors
    /// `NoSpace`: nothing happened, and it may be tried again. After any other failure of a write or a sync, the
    /// store refuses writes.
    #[doc(alias = "compact")]
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        self.core().check_writable()?;
        self.core().checkpoint()
    }

    /// Reads and checks every block of the data file and every record of the log. Reading goes on beside it.
    ///
    /// # Errors
    /// `Closed`, `Io`. What is damaged is in the report.
    pub fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<VerifyReport> {
        self.core().check_open()?;
        self.core().verify(&mut progress)
    }

    /// What recovery found when the store was opened.
    pub fn recovery(&self) -> &Recovery {
        self.core().log.recovery()
    }

    /// Figures of now.
    pub fn stats(&self) -> Stats {
        self.core().stats()
    }

    /// After `NoSpace`: looks for room, and accepts writes again. Also after the log found no room for what had its place
    /// already, which file systems that copy on write may do and which poisons the store: what could not be written is
    /// written in place, and commits of which `CommitUnknown` was told become visible.
    ///
    /// # Errors
    /// `NoSpace` if there still is none; `Poisoned` if another write, or a sync, failed, and only reopening helps.
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
    pub fn name(&self) -> &str {
        self.life.name()
    }

    /// What it was made with.
    pub fn options(&self) -> &KeyspaceOptions {
        self.life.options()
    }

    /// The value of a key, now.
    ///
    /// # Errors
    /// `KeyspaceMissing`, `Closed`, and what reading can meet.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let core = self.handle.core();
        core.check_open()?;
        core.reads.get_now(&self.life, key.as_ref())
    }

    /// The key gets this value.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Lsn> {
        let mut batch = WriteBatch::new();
        batch.put(&self.life, key.as_ref(), value.as_ref());
        Db(Arc::clone(&self.handle)).write(batch)
    }

    /// The key is gone.
    ///
    /// # Errors
    /// As [`Db::write`].
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Lsn> {
        let mut batch = WriteBatch::new();
        batch.delete(&self.life, key.as_ref());
        Db(Arc::clone(&self.handle)).write(batch)
    }

    /// The rows of a range as they are now, from either end.
    pub fn range(&self, range: impl KeyRange) -> Scan {
        match self.handle.core().check_open() {
            Ok(()) => self.snapshot().range(self, range),
            Err(error) => Scan::failed(error),
        }
    }

    /// The rows whose keys start with `prefix`, as they are now.
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

#[cfg(test)]
mod tests;
