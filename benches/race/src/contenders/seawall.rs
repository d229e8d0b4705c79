//! seawall's engine through its public face.

use super::{Reader, Setup, Store, Writer};
use crate::Result;
use crate::condition::Condition;
use crate::drive::{self, Committing, Measured, Plan};
use crate::rows::{Row, Rows, mix};
use crate::seen::Seen;
use crate::workload::{KEY_BYTES, Level, Workload};
use seawall::{Db, Durability, Isolation, Keyspace, ReadMode, Readable, Snapshot, TxOptions, WriteBatch};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

pub(super) const MODE_THREADS: &str = "`Keyspace::insert`, `Db::write` for batches, `Db::write_pipelined` for tickets; \
     the store's defaults. Durable: `Synced`, log files recycled, made before the window by filling the log and a \
     checkpoint; `written`: `Written`; `memory`: `Memory`. Where memory is given it is the `memory_budget`; reads: one snapshot a thread, a \
     `Cursor` for scans, `multi_get`";
pub(super) const MODE_MAPPED: &str = "the same as seawall, with `ReadMode::Mapped`";
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
    /// Commits are transactions that read first.
    disjoint: Option<Isolation>,
}

struct Opened {
    db: Db,
    rows: Keyspace,
}

struct Committer<'a>(&'a Opened);

/// Which of the engine's contenders.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Threads,
    Tasks,
    Mapped,
}

pub(super) fn open(setup: &Setup<'_>, kind: Kind) -> Result<Box<dyn Store>> {
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
    if let Some(memory) = setup.memory {
        options = options.memory_budget(memory as usize);
    }
    if kind == Kind::Mapped {
        options = options.read_mode(ReadMode::Mapped);
    }
    let db = options.open()?;
    let rows = db.keyspace("rows")?;
    if setup.workload == Workload::Checkpoint {
        fill_tree(&db, &rows, setup.workload)?;
    }
    if setup.level == Level::Synced && setup.memory.is_none() {
        fill_log(&db, &rows)?;
    }
    let runtime =
        (kind == Kind::Tasks).then(|| tokio::runtime::Builder::new_multi_thread().build()).transpose()?;
    let disjoint = (setup.workload == Workload::Disjoint).then_some(match setup.condition {
        Condition::SnapshotIsolation => Isolation::Snapshot,
        _ => Isolation::Serializable,
    });
    Ok(Box::new(Seawall { store: Arc::new(Opened { db, rows }), runtime, disjoint }))
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
        Ok(match self.disjoint {
            Some(isolation) => Box::new(ReadAndWrite { store: &self.store, isolation }),
            None => Box::new(Committer(&self.store)),
        })
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut Reading { snapshot: self.store.db.snapshot(), rows: &self.store.rows })
    }

    fn settle(&self) -> Result<()> {
        self.store.db.checkpoint()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.store.db.clone().close()?)
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

struct Reading<'a> {
    snapshot: Snapshot,
    rows: &'a Keyspace,
}

impl Reader for Reading<'_> {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.snapshot.get(self.rows, key)?.map(|value| found(&value)).is_some())
    }

    fn multi_get(&mut self, keys: &[[u8; KEY_BYTES]], found: &mut dyn FnMut(&[u8])) -> Result<usize> {
        let values = self.snapshot.multi_get(self.rows, keys)?;
        Ok(values.iter().flatten().map(|value| found(value)).count())
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let mut cursor = self.snapshot.cursor(self.rows);
        match from {
            Some(key) => cursor.seek(key)?,
            None => cursor.seek_first()?,
        }
        let mut left = rows;
        while left > 0
            && let Some((key, value)) = cursor.next()?
        {
            row(key, value);
            left -= 1;
        }
        Ok(())
    }
}

/// Transactions on rows that no other thread has.
struct ReadAndWrite<'a> {
    store: &'a Opened,
    isolation: Isolation,
}

impl Writer for ReadAndWrite<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let options = TxOptions { isolation: Some(self.isolation), ..TxOptions::default() };
        let mut transaction = self.store.db.begin_with(options);
        for row in rows {
            transaction.get(&self.store.rows, row.key)?;
            transaction.insert(&self.store.rows, row.key, row.value)?;
        }
        transaction.commit()?;
        Ok(())
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
