//! seawall's engine through its public face.

use super::{Setup, Store, Writer};
use crate::Result;
use crate::condition::Condition;
use crate::drive::{self, Committing, Measured, Plan};
use crate::rows::{Row, Rows, mix};
use crate::seen::Seen;
use crate::workload::{Level, Workload};
use seawall::{Db, Durability, Keyspace, WriteBatch};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

pub(super) const MODE_THREADS: &str = "`Keyspace::insert`, `Db::write` for batches, `Db::write_pipelined` for tickets; \
     the store's defaults. Durable: `Synced`, log files recycled, made before the window by filling the log and a \
     checkpoint; `written`: `Written`; `memory`: `Memory`";
pub(super) const MODE_TASKS: &str = "the same, but every commit is a `Db::write_pipelined` whose ticket is awaited by \
     a task of a tokio runtime with as many threads as there are processors";

/// Log filled before the window, so that what the window writes goes into files used before: a store's steady state.
const FILL_BYTES: usize = 256 << 20;

/// Rows that are in the data file before checkpoints are measured: they have a tree to change.
const TREE_ROWS: u64 = 500_000;
/// Their numbers begin where no committer's come to.
const TREE_FIRST: u64 = 1 << 44;

/// The background begins the next checkpoint when the last one has ended.
const ALL_THE_TIME: Duration = Duration::from_millis(1);

struct Seawall {
    store: Arc<Opened>,
    /// For committers that are tasks.
    runtime: Option<Runtime>,
}

struct Opened {
    db: Db,
    rows: Keyspace,
}

struct Committer<'a>(&'a Opened);

pub(super) fn open(setup: &Setup<'_>, tasks: bool) -> Result<Box<dyn Store>> {
    let durability = match setup.level {
        Level::Synced => Durability::Synced,
        Level::Written => Durability::Written,
        Level::Memory => Durability::Memory,
    };
    let mut options = Db::builder(setup.dir.join("store")).durability(durability);
    let day = Duration::from_secs(86_400);
    if setup.workload == Workload::Reopen || setup.is_filling {
        // No checkpoint before the kill: room for all of the log, in memory and on disk.
        options = options.memory_budget(12 << 30).log_bytes_max(64 << 30).checkpoint_interval(day);
    }
    if setup.workload == Workload::Checkpoint {
        // Nothing but the interval makes checkpoints.
        let interval = if setup.condition == Condition::Checkpointing { ALL_THE_TIME } else { day };
        options = options.memory_budget(2 << 30).log_bytes_max(64 << 30).checkpoint_interval(interval);
    }
    let db = options.open()?;
    let rows = db.keyspace("rows")?;
    if setup.workload == Workload::Checkpoint {
        fill_tree(&db, &rows, setup.workload)?;
    }
    if setup.level == Level::Synced {
        fill_log(&db, &rows)?;
    }
    let runtime = tasks.then(|| tokio::runtime::Builder::new_multi_thread().build()).transpose()?;
    Ok(Box::new(Seawall { store: Arc::new(Opened { db, rows }), runtime }))
}

/// One key again and again, so that little is left in the tree.
fn fill_log(db: &Db, rows: &Keyspace) -> Result<()> {
    let value: Vec<u8> = (0..64u64 << 10).map(|i| mix(i) as u8).collect();
    for _ in 0..FILL_BYTES / value.len() {
        let mut batch = WriteBatch::new();
        batch.insert(rows, "filling", &value);
        db.write_with(batch, Durability::Written)?;
    }
    db.checkpoint()?;
    Ok(())
}

fn fill_tree(db: &Db, rows: &Keyspace, workload: Workload) -> Result<()> {
    let source = Rows::new(workload.value_bytes());
    let mut batch = WriteBatch::new();
    for i in TREE_FIRST..TREE_FIRST + TREE_ROWS {
        let row = source.row(i);
        batch.insert(rows, row.key, row.value);
        if batch.len() == 1000 {
            db.write_with(std::mem::take(&mut batch), Durability::Written)?;
        }
    }
    db.write_with(batch, Durability::Written)?;
    db.checkpoint()?;
    Ok(())
}

fn batch(rows: &Keyspace, commit: &[Row<'_>]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for row in commit {
        batch.insert(rows, row.key, row.value);
    }
    batch
}

impl Committing for Opened {
    async fn commit<'a>(&'a self, rows: &'a [Row<'a>]) -> Result<()> {
        self.db.write_pipelined(batch(&self.rows, rows))?.await?;
        Ok(())
    }
}

impl Store for Seawall {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(&self.store)))
    }

    fn sync(&self) -> Result<()> {
        self.store.db.sync()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.store.rows.get(key)?.map(Vec::from))
    }

    fn seen(&self) -> Seen {
        let stats = self.store.db.stats();
        Seen {
            checkpoints: Some(stats.checkpoints),
            checkpoint_s: Some(stats.checkpoint_us.sum as f64 / 1e6),
            log_bytes: Some(stats.log_bytes),
            ..Seen::default()
        }
    }

    fn drive(&self, plan: &Plan) -> Result<Measured> {
        if let Some(runtime) = &self.runtime {
            return drive::tasks(runtime, plan, &self.store);
        }
        if plan.workload == Workload::TicketsEngine {
            let issue =
                |rows: &[Row<'_>]| Ok(self.store.db.write_pipelined(batch(&self.store.rows, rows))?);
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
