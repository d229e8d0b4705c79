//! SQLite with its write-ahead log. It has one writer at a time, and waiting for another connection means sleeping:
//! one connection that the threads take turns on is quicker.

use super::{Reader, Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::{Level, Workload};
use rusqlite::{Connection, OptionalExtension};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

pub(super) const MODE: &str = "`journal_mode=WAL`, one connection under a lock, a table `WITHOUT ROWID`, prepared \
     statements; durable: `synchronous=FULL`; `written`: `synchronous=NORMAL`; `reopen`: a sixteenth of the rows, \
     for its log holds whole pages; reads: a connection a thread, each \
     with the memory given as its cache, and the page cache beside";

struct Sqlite {
    connection: Mutex<Connection>,
    path: PathBuf,
    cache_kib: i64,
}

struct Committer<'a>(&'a Sqlite);

const PUT: &str = "INSERT OR REPLACE INTO rows VALUES (?1, ?2)";

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let path = setup.dir.join("sqlite");
    let connection = Connection::open(&path)?;
    let synchronous = match setup.level {
        Level::Synced => "FULL",
        Level::Written => "NORMAL",
        Level::Memory => return Err("SQLite gives every commit to the kernel".into()),
    };
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    let cache_kib = setup.memory.map_or(256 << 10, |memory| (memory >> 10) as i64);
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    if setup.workload == Workload::Reopen {
        // The log is what is to be opened.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    )?;
    Ok(Box::new(Sqlite { connection: Mutex::new(connection), path, cache_kib }))
}

impl Sqlite {
    fn connection(&self) -> Result<MutexGuard<'_, Connection>> {
        self.connection.lock().map_err(|_| "a committer panicked".into())
    }
}

impl Store for Sqlite {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(self)))
    }

    fn sync(&self) -> Result<()> {
        // SQLite syncs its log when a transaction ends under FULL.
        let connection = self.connection()?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.prepare_cached(PUT)?.execute((&b"synced"[..], &b""[..]))?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let connection = self.connection()?;
        let mut query = connection.prepare_cached("SELECT value FROM rows WHERE key = ?1")?;
        Ok(query.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Every thread has a connection of its own, and its cache with it.
    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let connection = Connection::open(&self.path)?;
        connection.pragma_update(None, "cache_size", -self.cache_kib)?;
        connection.execute_batch("BEGIN")?;
        work(&mut Rows(&connection))
    }

    fn settle(&self) -> Result<()> {
        let connection = self.connection()?;
        Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    driven_by_threads!();
}

struct Rows<'a>(&'a Connection);

impl Reader for Rows<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut query = self.0.prepare_cached("SELECT value FROM rows WHERE key = ?1")?;
        let mut rows = query.query([key])?;
        let Some(row) = rows.next()? else { return Ok(false) };
        found(row.get_ref(0)?.as_blob()?);
        Ok(true)
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let text = "SELECT key, value FROM rows WHERE key >= ?1 ORDER BY key LIMIT ?2";
        let mut query = self.0.prepare_cached(text)?;
        let limit = i64::try_from(rows).unwrap_or(i64::MAX);
        let mut found = query.query((from.unwrap_or_default(), limit))?;
        while let Some(next) = found.next()? {
            row(next.get_ref(0)?.as_blob()?, next.get_ref(1)?.as_blob()?);
        }
        Ok(())
    }
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let connection = self.0.connection()?;
        if let [row] = rows {
            connection.prepare_cached(PUT)?.execute((&row.key[..], row.value))?;
            return Ok(());
        }
        let transaction = connection.unchecked_transaction()?;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            for row in rows {
                put.execute((&row.key[..], row.value))?;
            }
        }
        Ok(transaction.commit()?)
    }
}
