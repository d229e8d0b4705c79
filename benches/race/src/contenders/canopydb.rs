//! canopydb: a copy-on-write B+tree with a log, checkpoints in the background.

use super::{Reader, Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::{Level, Workload};
use canopydb::{Database, DbOptions, EnvOptions, Error, ReadTransaction, Tree};

pub(super) const MODE: &str = "durable: `commit_with(true)`; `written`: `commit_with(false)`; single puts are concurrent \
     transactions, run again after a conflict; where memory is given: half of it page cache, the other half what its \
     checkpoints may leave, and the kernel's page cache beside; no checksums, its default; reads: one transaction a thread";

const TREE: &[u8] = b"rows";

struct Canopy {
    db: Database,
    sync: bool,
}

struct Committer<'a>(&'a Canopy);

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let sync = match setup.level {
        Level::Synced => true,
        Level::Written => false,
        Level::Memory => return Err("canopydb gives every commit to the kernel".into()),
    };
    let dir = setup.dir.join("canopydb");
    std::fs::create_dir_all(&dir)?;
    let (mut env, mut options) = (EnvOptions::new(&dir), DbOptions::new());
    if setup.workload == Workload::Reopen {
        env.max_wal_size = 64 << 30;
        options.checkpoint_interval = std::time::Duration::from_secs(86_400);
        options.checkpoint_target_size = 32 << 30;
        options.throttle_memory_limit = 64 << 30;
        options.stall_memory_limit = 64 << 30;
    }
    if let Some(memory) = setup.memory {
        let memory = memory as usize;
        env.page_cache_size = memory / 2;
        options.write_txn_memory_limit = (memory / 8).max(8 << 20);
        options.checkpoint_target_size = (memory / 8).min(64 << 20);
        options.throttle_memory_limit = (memory / 4).min(256 << 20);
        options.stall_memory_limit = (memory / 2).min(256 << 20);
    }
    let db = Database::with_options(env, options)?;
    let transaction = db.begin_write()?;
    transaction.get_or_create_tree(TREE)?;
    transaction.commit_with(sync)?;
    Ok(Box::new(Canopy { db, sync }))
}

impl Canopy {
    fn try_commit(&self, rows: &[Row<'_>]) -> std::result::Result<(), Error> {
        let transaction =
            if rows.len() == 1 { self.db.begin_write_concurrent()? } else { self.db.begin_write()? };
        {
            let mut tree = transaction.get_or_create_tree(TREE)?;
            for row in rows {
                tree.insert(&row.key, row.value)?;
            }
        }
        transaction.commit_with(self.sync).map(drop)
    }

    fn snapshot(&self) -> Result<ReadTransaction> {
        Ok(self.db.begin_read()?)
    }
}

fn tree(transaction: &ReadTransaction) -> Result<Tree<'_>> {
    transaction.get_tree(TREE)?.ok_or_else(|| "canopydb has no tree".into())
}

impl Store for Canopy {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(self)))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.sync()?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let transaction = self.snapshot()?;
        let value = tree(&transaction)?.get(key)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let transaction = self.snapshot()?;
        work(&mut Snapshot(tree(&transaction)?))
    }

    fn settle(&self) -> Result<()> {
        Ok(self.db.checkpoint()?)
    }

    driven_by_threads!();
}

struct Snapshot<'a>(Tree<'a>);

impl Reader for Snapshot<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.0.range(from.unwrap_or_default()..)?.take(rows) {
            let (key, value) = found?;
            row(&key, &value);
        }
        Ok(())
    }
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        loop {
            match self.0.try_commit(rows) {
                Err(Error::WriteConflict) => {}
                done => return Ok(done?),
            }
        }
    }
}
