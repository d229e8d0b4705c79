//! SQLite with its write-ahead log. It has one writer at a time, and waiting for another connection means sleeping:
//! one connection that the threads take turns on is quicker.

use super::{Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::{Level, Workload};
use rusqlite::{Connection, OptionalExtension};
use std::sync::{Mutex, MutexGuard};

pub(super) const MODE: &str = "`journal_mode=WAL`, one connection under a lock, a table `WITHOUT ROWID`, prepared \
     statements; durable: `synchronous=FULL`; `written`: `synchronous=NORMAL`";

struct Sqlite(Mutex<Connection>);

struct Committer<'a>(&'a Sqlite);

const PUT: &str = "INSERT OR REPLACE INTO rows VALUES (?1, ?2)";

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let connection = Connection::open(setup.dir.join("sqlite"))?;
    let synchronous = match setup.level {
        Level::Synced => "FULL",
        Level::Written => "NORMAL",
        Level::Memory => return Err("SQLite gives every commit to the kernel".into()),
    };
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -256 * 1024)?;
    if setup.workload == Workload::Reopen {
        // The log is what is to be opened.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    )?;
    Ok(Box::new(Sqlite(Mutex::new(connection))))
}

impl Sqlite {
    fn connection(&self) -> Result<MutexGuard<'_, Connection>> {
        self.0.lock().map_err(|_| "a committer panicked".into())
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

    driven_by_threads!();
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
