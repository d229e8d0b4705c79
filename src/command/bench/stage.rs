//! The store that is measured: made, loaded, driven, looked at before and after.

use super::report::{Row, Settings};
use super::workload::{Values, Worker, Workload, key};
use crate::command::measure::drive::{Driven, Kind, Load, drive};
use crate::command::measure::latency::Quantiles;
use crate::command::measure::workplace::Workplace;
use crate::command::ui::Unit;
use crate::command::{Failure, Outcome, Ui};
use seawall::{Db, Durability, Keyspace, Stats, WriteBatch};
use std::path::PathBuf;
use std::time::Duration;

/// Loading commits batches of about so many bytes.
const LOAD_BATCH_BYTES: u64 = 1 << 20;
const KEYSPACE: &str = "bench";

pub(super) struct Stage<'a> {
    workplace: &'a Workplace,
    settings: Settings,
    durability: Durability,
    keep: bool,
    values: Values,
    store: Option<Store>,
    /// How the stores were read and written, and why so.
    io: (String, String),
}

struct Store {
    db: Db,
    keyspace: Keyspace,
    path: PathBuf,
    /// It has all rows, and only workloads that leave it so have run on it.
    is_loaded: bool,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        workplace: &'a Workplace,
        settings: Settings,
        durability: Durability,
        keep: bool,
    ) -> Stage<'a> {
        let values = Values::new(settings.value_bytes);
        Stage { workplace, settings, durability, keep, values, store: None, io: Default::default() }
    }

    /// Makes the store ready for the next run.
    pub(super) fn set(&mut self, ui: &Ui, workload: Workload, threads: u32) -> Outcome {
        if workload.reads() && self.store.as_ref().is_some_and(|store| store.is_loaded) {
            return Ok(());
        }
        self.clear()?;
        let name =
            if workload.reads() { "rows".to_owned() } else { format!("{}-{threads}", workload.name()) };
        let path = self.workplace.path(&name);
        // Asked for twice, and kept.
        self.workplace.clear(&path)?;
        let db = Db::builder(&path).durability(self.durability).open()?;
        let recovery = db.recovery();
        self.io = (recovery.backend.to_owned(), recovery.backend_reason.clone());
        let keyspace = db.keyspace(KEYSPACE)?;
        if workload.reads() {
            self.load(ui, &db, &keyspace)?;
        }
        self.store = Some(Store { db, keyspace, path, is_loaded: workload.reads() });
        Ok(())
    }

    fn load(&self, ui: &Ui, db: &Db, keyspace: &Keyspace) -> Outcome {
        let keys = self.settings.keys;
        let bar = ui.progress(Some(keys), Unit::Rows);
        let batch_rows = (LOAD_BATCH_BYTES / self.settings.row_bytes()).clamp(1, 10_000);
        let mut number = 0;
        while number < keys {
            ui.check_interrupt()?;
            let mut batch = WriteBatch::new();
            let end = keys.min(number + batch_rows);
            for number in number..end {
                batch.insert(keyspace, key(number), self.values.get(number));
            }
            db.write_with(batch, Durability::Written)?;
            number = end;
            bar.set_position(number);
        }
        bar.finish_and_clear();
        // So that it is the tree that is read, not the log's memory.
        db.checkpoint()?;
        Ok(())
    }

    /// One measurement.
    pub(super) fn run(
        &self,
        ui: &Ui,
        workload: Workload,
        threads: u32,
        length: Duration,
        device_writes_per_s: f64,
    ) -> Outcome<Row> {
        let store = self.store.as_ref().ok_or_else(|| Failure::error("there is no store to measure"))?;
        let load = Load { threads, length, rate: self.settings.rate };
        let before = store.db.stats();
        let driven = drive(ui, &load, |thread| {
            let mut worker = Worker::new(&store.db, &store.keyspace, &self.values, &self.settings, thread);
            Ok(move || worker.work(workload))
        })?;
        let cost = Cost::between(&before, &store.db.stats());
        row(workload, threads, &self.settings, &driven, &cost, device_writes_per_s)
    }

    /// Closes the store, and removes it unless it is to be kept.
    fn clear(&mut self) -> Outcome {
        let Some(Store { db, keyspace, path, .. }) = self.store.take() else { return Ok(()) };
        drop(keyspace);
        db.close()?;
        if self.keep { Ok(()) } else { self.workplace.clear(&path) }
    }

    /// The end; says which backend the stores used, and why.
    pub(super) fn close(mut self) -> Outcome<(String, String)> {
        self.clear()?;
        Ok(self.io)
    }
}

/// What the store did meanwhile.
struct Cost {
    commits: u64,
    syncs: u64,
    device_bytes: u64,
}

impl Cost {
    fn between(before: &Stats, after: &Stats) -> Cost {
        let written = |stats: &Stats| stats.log_device_bytes + stats.checkpoint_bytes;
        Cost {
            commits: after.commits.saturating_sub(before.commits),
            syncs: after.syncs.saturating_sub(before.syncs),
            device_bytes: written(after).saturating_sub(written(before)),
        }
    }
}

fn row(
    workload: Workload,
    threads: u32,
    settings: &Settings,
    driven: &Driven,
    cost: &Cost,
    device_writes_per_s: f64,
) -> Outcome<Row> {
    let latency = driven.latency()?;
    let ops_per_s = driven.per_second(driven.ops());
    let user_bytes = driven.written.rows * settings.row_bytes();
    let switches = driven.usage.switches;
    let is_both = driven.read.ops > 0 && driven.written.ops > 0;
    let of = |kind| -> Option<Quantiles> {
        is_both.then(|| match kind {
            Kind::Read => driven.read.latency.quantiles(),
            Kind::Write => driven.written.latency.quantiles(),
        })
    };
    let has_written = driven.written.ops > 0;
    Ok(Row {
        workload: workload.name().to_owned(),
        about: workload.about(settings),
        threads,
        ops: driven.ops(),
        rows: driven.rows(),
        seconds: driven.elapsed.as_secs_f64(),
        ops_per_s,
        rows_per_s: driven.per_second(driven.rows()),
        latency: latency.quantiles(),
        read_latency: of(Kind::Read),
        write_latency: of(Kind::Write),
        unserved: driven.unserved,
        commits_per_sync: (has_written && cost.syncs > 0).then(|| cost.commits as f64 / cost.syncs as f64),
        device_bytes_per_user_byte: (user_bytes > 0).then(|| cost.device_bytes as f64 / user_bytes as f64),
        cpu_us_per_op: driven.per_op(driven.usage.cpu.as_secs_f64() * 1e6),
        voluntary_switches_per_op: switches.map(|switches| driven.per_op(switches.voluntary as f64)),
        involuntary_switches_per_op: switches.map(|switches| driven.per_op(switches.involuntary as f64)),
        device_writes_per_s,
        ratio_to_device: (has_written && !is_both).then(|| ops_per_s / device_writes_per_s.max(1e-9)),
        histogram: latency.bars(),
        ops_per_100_ms: driven.series.clone().into_counts(),
    })
}
