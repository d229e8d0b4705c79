//! surrealkv: an LSM tree with a write-ahead log and an asynchronous commit pipeline. Run both ways that a program can
//! use it: a thread for each committer, and a task for each committer.

use super::{Reader, Setup, Store, Writer};
use crate::Result;
use crate::drive::{self, Committing, Measured, Plan};
use crate::rows::Row;
use crate::workload::{Level, Workload};
use std::sync::Arc;
use surrealkv::{Durability, LSMIterator, Mode, Options, ReadOptions, Transaction, Tree, TreeBuilder};
use tokio::runtime::Runtime;

pub(super) const MODE_THREADS: &str = "preallocated log; durable: `Durability::Immediate`; `written`: \
     `Durability::Eventual`; write-only transactions; threads wait for their commits with `block_on`; \
     where memory is given: three quarters of it block cache, a sixteenth each memtable, and the page cache beside; \
     reads: one transaction a thread";
pub(super) const MODE_TASKS: &str =
    "the same; the committers are tasks of a tokio runtime with as many threads as there are processors";

struct Surrealkv {
    committing: Arc<Transactions>,
    tasks: bool,
    runtime: Runtime,
}

struct Transactions {
    tree: Tree,
    durability: Durability,
}

struct Committer<'a>(&'a Surrealkv);

pub(super) fn open(setup: &Setup<'_>, tasks: bool) -> Result<Box<dyn Store>> {
    let durability = match setup.level {
        Level::Synced => Durability::Immediate,
        Level::Written => Durability::Eventual,
        Level::Memory => return Err("surrealkv gives every commit to the kernel".into()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut options = Options::new().with_path(setup.dir.join("surrealkv")).with_wal_preallocation(true);
    if setup.workload == Workload::Reopen {
        options = options.with_max_memtable_size(4 << 30);
    }
    if let Some(memory) = setup.memory {
        options = options
            .with_block_cache_capacity(memory / 4 * 3)
            .with_max_memtable_size((memory / 16).max(1 << 20) as usize);
    }
    let tree = {
        let _entered = runtime.enter();
        TreeBuilder::with_options(options).build()?
    };
    Ok(Box::new(Surrealkv { committing: Arc::new(Transactions { tree, durability }), tasks, runtime }))
}

impl Committing for Transactions {
    async fn commit<'a>(&'a self, rows: &'a [Row<'a>]) -> Result<()> {
        loop {
            let begun = self.tree.begin_with_mode(Mode::WriteOnly)?;
            let mut transaction = begun.with_durability(self.durability);
            for row in rows {
                transaction.set(&row.key[..], row.value)?;
            }
            match transaction.commit().await {
                // Two have changed the same row at once: the one that lost does it again.
                Err(surrealkv::Error::TransactionWriteConflict) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl Store for Surrealkv {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer(self)))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.committing.tree.flush_wal(true)?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let transaction = self.committing.tree.begin_with_mode(Mode::ReadOnly)?;
        Ok(transaction.get(key)?.map(|value| value.to_vec()))
    }

    fn read(&self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let _entered = self.runtime.enter();
        work(&mut Snapshot(self.committing.tree.begin_with_mode(Mode::ReadOnly)?))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.committing.tree.close())?)
    }

    fn drive(&self, plan: &Plan) -> Result<Measured> {
        if !self.tasks {
            return drive::threads(self, plan);
        }
        drive::tasks(&self.runtime, plan, &self.committing)
    }
}

struct Snapshot(Transaction);

impl Reader for Snapshot {
    fn get(&mut self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: Option<&[u8]>, rows: usize, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from.map(<[u8]>::to_vec));
        let mut iterator = self.0.range_with_options(&options)?;
        let mut left = rows;
        let mut there = iterator.seek_first()?;
        while there && left > 0 {
            row(iterator.key().user_key(), &iterator.value_ref()?);
            left -= 1;
            there = iterator.next()?;
        }
        Ok(())
    }
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        self.0.runtime.block_on(self.0.committing.commit(rows))
    }
}
