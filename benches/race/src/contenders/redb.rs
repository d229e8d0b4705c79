//! redb: a copy-on-write B+tree in one file, one writer at a time.

use super::{Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::Level;
use redb::{Database, Durability, TableDefinition};

pub(super) const MODE: &str =
    "durable: `Durability::Immediate`, one-phase commit; `memory`: `Durability::None`; cache 256 MiB";

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

struct Redb {
    db: Database,
    durability: Durability,
}

struct Committer<'a>(&'a Redb);

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let mut builder = Database::builder();
    builder.set_cache_size(256 << 20);
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

    driven_by_threads!();
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
