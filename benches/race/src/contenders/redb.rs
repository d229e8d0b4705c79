//! redb: a copy-on-write B+tree in one file, one writer at a time.

use super::{Reader, Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::Level;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

pub(super) const MODE: &str = "durable: `Durability::Immediate`, one-phase commit; `memory`: `Durability::None`; cache 256 MiB, \
     or the memory given, and the page cache beside; reads: one transaction a thread";

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

struct Redb {
    db: Database,
    durability: Durability,
}

struct Committer<'a>(&'a Redb);

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let mut builder = Database::builder();
    builder.set_cache_size(setup.memory.map_or(256 << 20, |memory| memory as usize));
    let db = builder.create(setup.dir.join("redb"))?;
    let durability = match setup.level {
        Level::Synced => Durability::Immediate,
        Level::Memory => Durability::None,
        Level::Written => return Err("redb has nothing between the device and memory".into()),
    };
    Ok(Box::new(Redb { db, durability }))
}

impl Store for Redb {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(self)))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let table = self.db.begin_read()?.open_table(ROWS)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut Snapshot(self.db.begin_read()?.open_table(ROWS)?))
    }

    driven_by_threads!();
}

struct Snapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Reader for Snapshot {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(value.value())).is_some())
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for found in self.0.range(from.unwrap_or_default()..)?.take(rows) {
            let (key, value) = found?;
            row(key.value(), value.value());
        }
        Ok(())
    }
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let mut transaction = self.0.db.begin_write()?;
        transaction.set_durability(self.0.durability)?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for row in rows {
                table.insert(row.key.as_slice(), row.value)?;
            }
        }
        Ok(transaction.commit()?)
    }
}
