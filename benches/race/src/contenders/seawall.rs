//! seawall's engine through its public face.

use super::{Setup, Store, Writer};
use crate::Result;
use crate::drive::{self, Measured, Plan};
use crate::rows::Row;
use crate::workload::{Level, Workload};
use seawall::{Db, Durability, Keyspace, WriteBatch};
use std::time::Duration;

pub(super) const MODE: &str = "`Keyspace::insert`, `Db::write` for batches, `Db::write_pipelined` for tickets; \
     the store's defaults. Durable: `Synced`; `written`: `Written`; `memory`: `Memory`";

struct Seawall {
    db: Db,
    rows: Keyspace,
}

struct Committer<'a>(&'a Seawall);

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let durability = match setup.level {
        Level::Synced => Durability::Synced,
        Level::Written => Durability::Written,
        Level::Memory => Durability::Memory,
    };
    let mut options = Db::builder(setup.dir.join("store")).durability(durability);
    if setup.workload == Workload::Reopen {
        // No checkpoint before the kill: room for all of the log, in memory and on disk.
        let day = Duration::from_secs(86_400);
        options = options.memory_budget(12 << 30).log_bytes_max(64 << 30).checkpoint_interval(day);
    }
    let db = options.open()?;
    let rows = db.keyspace("rows")?;
    Ok(Box::new(Seawall { db, rows }))
}

fn batch(rows: &Keyspace, commit: &[Row<'_>]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for row in commit {
        batch.insert(rows, row.key, row.value);
    }
    batch
}

impl Store for Seawall {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(self)))
    }

    fn sync(&self) -> Result<()> {
        self.db.sync()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.rows.get(key)?.map(Vec::from))
    }

    fn drive(&self, plan: &Plan) -> Result<Measured> {
        if plan.workload == Workload::TicketsEngine {
            let issue = |rows: &[Row<'_>]| Ok(self.db.write_pipelined(batch(&self.rows, rows))?);
            return drive::tickets(self, plan, issue, |ticket| Ok(ticket.wait().map(drop)?));
        }
        drive::threads(self, plan)
    }
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        match rows {
            [row] => self.0.rows.insert(row.key, row.value)?,
            _ => self.0.db.write(batch(&self.0.rows, rows))?,
        };
        Ok(())
    }
}
