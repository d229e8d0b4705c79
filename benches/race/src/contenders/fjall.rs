//! fjall: an LSM tree with a journal.

use super::{Reader, Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::{Level, Workload};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

pub(super) const MODE: &str = "durable: insert, then `persist(SyncData)`; `written`: insert (the journal goes to the \
     kernel at each commit); `memory`: `manual_journal_persist`; where memory is \
     given: three quarters of it `cache_size`, memtables of a sixteenth, and the page cache beside; other \
     options as they come";

struct Fjall {
    db: Database,
    rows: Keyspace,
    /// Asked for after each commit.
    persist: Option<PersistMode>,
}

struct Committer<'a>(&'a Fjall);

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let manual = setup.level != Level::Written;
    let mut builder = Database::builder(setup.dir.join("fjall")).manual_journal_persist(manual);
    let mut options = KeyspaceCreateOptions::default().manual_journal_persist(manual);
    if setup.workload == Workload::Reopen {
        builder = builder.max_journaling_size(64 << 30);
        options = options.max_memtable_size(64 << 30);
    }
    if let Some(memory) = setup.memory {
        builder = builder.cache_size(memory / 4 * 3);
        options = options.max_memtable_size(memory / 16);
    }
    let db = builder.open()?;
    let rows = db.keyspace("rows", || options)?;
    let persist = (setup.level == Level::Synced).then_some(PersistMode::SyncData);
    Ok(Box::new(Fjall { db, rows, persist }))
}

impl Store for Fjall {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(self)))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.rows.get(key)?.map(|value| value.to_vec()))
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut Rows(&self.rows))
    }

    fn settle(&self) -> Result<()> {
        Ok(self.rows.rotate_memtable_and_wait()?)
    }

    driven_by_threads!();
}

struct Rows<'a>(&'a Keyspace);

impl Reader for Rows<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.0.range(from.unwrap_or_default()..).take(rows) {
            let (key, value) = found.into_inner()?;
            row(&key, &value);
        }
        Ok(())
    }
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let Fjall { db, rows: keyspace, persist } = self.0;
        if let [row] = rows {
            keyspace.insert(row.key, row.value)?;
        } else {
            let mut batch = db.batch();
            for row in rows {
                batch.insert(keyspace, row.key, row.value);
            }
            batch.commit()?;
        }
        if let Some(mode) = persist {
            db.persist(*mode)?;
        }
        Ok(())
    }
}
