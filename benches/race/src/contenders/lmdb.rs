//! LMDB: a copy-on-write B+tree in a mapped file, one writer at a time.

use super::{Reader, Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::{Level, Shelf};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use std::ops::Bound;

pub(super) const MODE: &str = "durable: no flags (pages written, then fdatasync); `written`: `MDB_NOSYNC`; reads: one \
     transaction a thread, `MDB_NORDAHEAD` where memory is short; memory is the page cache's alone";

const MAP_BYTES: usize = 32 << 30;

struct Lmdb {
    env: &'static Env,
    rows: Database<'static, Bytes, Bytes>,
}

struct Committer<'a>(&'a Lmdb);

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let dir = setup.dir.join("lmdb");
    std::fs::create_dir_all(&dir)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    let mut flags = EnvFlags::empty();
    if setup.memory.is_some() && setup.workload.shelf() != Some(Shelf::Warm) {
        // Random reads of more than memory holds: what LMDB's own documentation says to set then.
        flags |= EnvFlags::NO_READ_AHEAD;
    }
    match setup.level {
        Level::Synced => {}
        Level::Written => flags |= EnvFlags::NO_SYNC,
        Level::Memory => return Err("LMDB gives every commit to the kernel".into()),
    }
    // SAFETY: the flags give up durability, or reading ahead, not memory safety; the store is thrown away afterwards.
    unsafe {
        options.flags(flags);
    }
    // SAFETY: the directory is this child's own; nobody else opens or changes the file. A store lasts until its
    // process ends, so what the database borrows from may be leaked.
    let env: &'static Env = Box::leak(Box::new(unsafe { options.open(&dir)? }));
    let opened = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
        opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
    })?;
    let CommitOrAbort::Commit(rows) = opened else {
        return Err("LMDB made no database".into());
    };
    Ok(Box::new(Lmdb { env, rows }))
}

impl Store for Lmdb {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(self)))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let transaction = self.env.read_txn()?;
        Ok(self.rows.get(&transaction, key)?.map(<[u8]>::to_vec))
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut Snapshot { transaction: self.env.read_txn()?, rows: self.rows })
    }

    driven_by_threads!();
}

struct Snapshot {
    transaction: RoTxn<'static, WithTls>,
    rows: Database<'static, Bytes, Bytes>,
}

impl Reader for Snapshot {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.rows.get(&self.transaction, key)?;
        Ok(value.map(found).is_some())
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let bounds = (from.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded);
        for found in self.rows.range(&self.transaction, &bounds)?.take(rows) {
            let (key, value) = found?;
            row(key, value);
        }
        Ok(())
    }
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let mut transaction = self.0.env.write_txn()?;
        for row in rows {
            self.0.rows.put(&mut transaction, &row.key, row.value)?;
        }
        Ok(transaction.commit()?)
    }
}
