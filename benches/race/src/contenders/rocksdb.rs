//! RocksDB: an LSM tree with a write-ahead log.

use super::{Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::{Row, mix};
use crate::workload::{Level, Workload};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};

pub(super) const MODE: &str = "durable: `sync`, `recycle_log_file_num` 4, the recycled files made before the window by \
     filling and flushing memtables; `written`: no `sync`; `memory`: `manual_wal_flush`; memtables of 64 MiB, no \
     compaction within the window";

const MEMTABLE_BYTES: usize = 64 << 20;
const RECYCLED: usize = 4;

struct Rocks {
    db: DB,
    sync: bool,
}

struct Committer<'a> {
    db: &'a DB,
    options: WriteOptions,
}

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_recycle_log_file_num(RECYCLED);
    options.set_manual_wal_flush(setup.level == Level::Memory);
    options.set_write_buffer_size(if setup.workload == Workload::Reopen { 8 << 30 } else { MEMTABLE_BYTES });
    options.set_max_write_buffer_number(4);
    options.set_level_zero_file_num_compaction_trigger(32);
    options.set_level_zero_slowdown_writes_trigger(64);
    options.set_level_zero_stop_writes_trigger(96);
    options.increase_parallelism(2);
    if setup.workload == Workload::Reopen {
        options.set_max_total_wal_size(64 << 30);
    }
    let db = DB::open(&options, setup.dir.join("rocksdb"))?;
    let sync = setup.level == Level::Synced;
    if sync {
        fill_logs(&db)?;
    }
    Ok(Box::new(Rocks { db, sync }))
}

/// A log is recycled once its memtable is flushed: writes one key until there are enough files to recycle, so that
/// the window overwrites blocks that are there already, and little is left in the tree.
fn fill_logs(db: &DB) -> Result<()> {
    let value: Vec<u8> = (0..64u64 << 10).map(|i| mix(i) as u8).collect();
    for _ in 0..=RECYCLED {
        for _ in 0..MEMTABLE_BYTES / value.len() * 9 / 10 {
            db.put(b"filling", &value)?;
        }
        db.flush()?;
    }
    Ok(())
}

impl Store for Rocks {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        Ok(Box::new(Committer { db: &self.db, options }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get(key)?)
    }

    driven_by_threads!();
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        if let [row] = rows {
            return Ok(self.db.put_opt(row.key, row.value, &self.options)?);
        }
        let mut batch = WriteBatch::default();
        for row in rows {
            batch.put(row.key, row.value);
        }
        Ok(self.db.write_opt(batch, &self.options)?)
    }
}
