//! RocksDB: an LSM tree with a write-ahead log.

use super::{Reader, Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::{Row, mix};
use crate::workload::{KEY_BYTES, Level, Shelf, Workload};
use rocksdb::{BlockBasedOptions, Cache, DB, FlushOptions, Options, WriteBatch, WriteOptions};

pub(super) const MODE: &str = "durable: `sync`, `recycle_log_file_num` 4, the recycled files made before the window by \
     filling and flushing memtables; `written`: no `sync`; `memory`: `manual_wal_flush`; memtables of 64 MiB, no \
     compaction within the window. Where memory is given: three quarters of it block cache, filters of 10 bits a key, \
     memtables of an eighth, direct I/O where that is less than the rows, compacted after the load";

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
    if let Some(memory) = setup.memory {
        return open_shelf(setup, memory as usize);
    }
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

/// Its defaults for levels and compaction; three quarters of the memory are block cache, filters and indexes included,
/// and a quarter memtables. Where memory is short reads go past the page cache: the memory is the same for all then.
fn open_shelf(setup: &Setup<'_>, memory: usize) -> Result<Box<dyn Store>> {
    let is_short = setup.workload.shelf() != Some(Shelf::Warm);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(memory / 4 * 3));
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size((memory / 8).clamp(1 << 20, MEMTABLE_BYTES));
    options.set_max_write_buffer_number(2);
    options.set_recycle_log_file_num(RECYCLED);
    options.increase_parallelism(2);
    options.set_use_direct_reads(is_short);
    options.set_use_direct_io_for_flush_and_compaction(is_short);
    let db = DB::open(&options, setup.dir.join("rocksdb"))?;
    Ok(Box::new(Rocks { db, sync: true }))
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

    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut Rows(&self.db))
    }

    fn settle(&self) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options)?;
        // What the load has left to compact is part of it.
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    driven_by_threads!();
}

struct Rows<'a>(&'a DB);

impl Reader for Rows<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get_pinned(key)?.map(|value| found(&value)).is_some())
    }

    fn multi_get(&mut self, keys: &[[u8; KEY_BYTES]], found: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let mut count = 0;
        for value in self.0.multi_get(keys) {
            if let Some(value) = value? {
                found(&value);
                count += 1;
            }
        }
        Ok(count)
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let mut iterator = self.0.raw_iterator();
        match from {
            Some(key) => iterator.seek(key),
            None => iterator.seek_to_first(),
        }
        let mut left = rows;
        while left > 0
            && let Some((key, value)) = iterator.item()
        {
            row(key, value);
            left -= 1;
            iterator.next();
        }
        Ok(iterator.status()?)
    }
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
