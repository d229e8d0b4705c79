//! The store that is measured: made, loaded, driven, looked at before and after.

use super::report::{Loaded, OfKind, Row, Settings};
use super::workload::{Ground, Stock, Values, Worker, Workload, key};
use super::ycsb::{Inserted, scattered};
use crate::command::measure::drive::{Driven, Load, drive};
use crate::command::measure::workplace::Workplace;
use crate::command::ui::Unit;
use crate::command::{Failure, Outcome, Ui};
use seawall::{Db, Durability, Keyspace, ReadMode, Stats, WriteBatch};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Loading commits batches of about so many bytes.
const LOAD_BATCH_BYTES: u64 = 1 << 20;
const KEYSPACE: &str = "bench";

pub(super) struct Stage<'a> {
    workplace: &'a Workplace,
    settings: Settings,
    durability: Durability,
    read_mode: ReadMode,
    keep: bool,
    values: Values,
    store: Option<Store>,
    loaded: Vec<Loaded>,
    /// How the stores were read and written, and why so.
    io: (String, String),
}

struct Store {
    db: Db,
    keyspace: Keyspace,
    path: PathBuf,
    /// What it still is, whatever has run on it; `Empty` if that is not known.
    stock: Stock,
    inserted: Inserted,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        workplace: &'a Workplace,
        settings: Settings,
        (durability, read_mode): (Durability, ReadMode),
        keep: bool,
    ) -> Stage<'a> {
        let values = Values::new(settings.value_bytes);
        Stage {
            workplace,
            settings,
            durability,
            read_mode,
            keep,
            values,
            store: None,
            loaded: Vec::new(),
            io: Default::default(),
        }
    }

    /// Makes the store ready for the next run.
    pub(super) fn set(&mut self, ui: &Ui, workload: Workload, threads: u32) -> Outcome {
        let stock = workload.stock();
        let is_shared = workload.keeps_rows();
        if is_shared && self.store.as_ref().is_some_and(|store| store.stock == stock) {
            return Ok(());
        }
        self.clear()?;
        let name = match stock {
            Stock::Ordered => "rows".to_owned(),
            Stock::Scattered if is_shared => "ycsb".to_owned(),
            _ => format!("{}-{threads}", workload.name()),
        };
        let path = self.workplace.path(&name);
        // Asked for twice, and kept.
        self.workplace.clear(&path)?;
        let budget = usize::try_from(self.settings.memory_bytes).unwrap_or(usize::MAX);
        let builder = Db::builder(&path).durability(self.durability).memory_budget(budget);
        let db = builder.read_mode(self.read_mode).open()?;
        if let Some(reason) = db.stats().read_mode_reason {
            ui.warn(format!("blocks are not mapped: {reason}"));
        }
        let recovery = db.recovery();
        self.io = (recovery.backend.to_owned(), recovery.backend_reason.clone());
        let keyspace = db.keyspace(KEYSPACE)?;
        if stock != Stock::Empty {
            let loaded = self.load(ui, &db, &keyspace, name, stock)?;
            ui.say(loaded.line());
            self.loaded.push(loaded);
        }
        let inserted = Inserted::new(if stock == Stock::Empty { 0 } else { self.settings.keys });
        let stock = if is_shared { stock } else { Stock::Empty };
        self.store = Some(Store { db, keyspace, path, stock, inserted });
        Ok(())
    }

    /// Commits all rows, and puts them into the data file.
    fn load(&self, ui: &Ui, db: &Db, keyspace: &Keyspace, store: String, stock: Stock) -> Outcome<Loaded> {
        let keys = self.settings.keys;
        let bar = ui.progress(Some(keys), Unit::Rows);
        // A transaction is to fit into a small memory as well.
        let batch_bytes = LOAD_BATCH_BYTES.min(self.settings.memory_bytes / 16);
        let batch_rows = (batch_bytes / self.settings.row_bytes()).clamp(1, 10_000);
        let start = Instant::now();
        let mut number = 0;
        while number < keys {
            ui.check_interrupt()?;
            let mut batch = WriteBatch::new();
            let end = keys.min(number + batch_rows);
            for number in number..end {
                let key = if stock == Stock::Scattered { scattered(number) } else { key(number) };
                batch.insert(keyspace, key, self.values.get(number));
            }
            db.write_with(batch, Durability::Written)?;
            number = end;
            bar.set_position(number);
        }
        bar.finish_and_clear();
        // So that it is the tree that is read, not the log's memory.
        db.checkpoint()?;
        let seconds = start.elapsed().as_secs_f64();
        let stats = db.stats();
        let user_bytes = (keys * self.settings.row_bytes()).max(1);
        Ok(Loaded {
            store,
            rows: keys,
            seconds,
            rows_per_s: keys as f64 / seconds.max(1e-9),
            data_bytes: stats.live_bytes,
            data_bytes_per_user_byte: stats.live_bytes as f64 / user_bytes as f64,
        })
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
        let ground = Ground {
            db: &store.db,
            keyspace: &store.keyspace,
            values: &self.values,
            inserted: &store.inserted,
        };
        let before = store.db.stats();
        let driven = drive(ui, &load, |thread| {
            let mut worker = Worker::new(ground, workload, &self.settings, thread);
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

    /// The end; says which backend the stores used, and why, and what was loaded.
    pub(super) fn close(mut self) -> Outcome<((String, String), Vec<Loaded>)> {
        self.clear()?;
        Ok((self.io, self.loaded))
    }
}

/// What the store did meanwhile.
struct Cost {
    commits: u64,
    syncs: u64,
    device_bytes: u64,
    conflicts: u64,
    /// At the end.
    disk_bytes: u64,
}

impl Cost {
    fn between(before: &Stats, after: &Stats) -> Cost {
        let written = |stats: &Stats| stats.log_device_bytes + stats.checkpoint_bytes;
        Cost {
            commits: after.commits.saturating_sub(before.commits),
            syncs: after.syncs.saturating_sub(before.syncs),
            device_bytes: written(after).saturating_sub(written(before)),
            conflicts: after.conflicts.saturating_sub(before.conflicts),
            disk_bytes: after.disk_bytes,
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
    let user_bytes = driven.rows_written() * settings.row_bytes();
    let switches = driven.usage.switches;
    let has_written = driven.sides.all().any(|(kind, _)| kind.writes());
    let has_read = driven.sides.all().any(|(kind, _)| !kind.writes());
    let kinds: Vec<OfKind> = driven
        .sides
        .all()
        .map(|(kind, side)| OfKind {
            kind: kind.name().to_owned(),
            ops: side.ops,
            ops_per_s: driven.per_second(side.ops),
            latency: side.latency.quantiles(),
        })
        .collect();
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
        kinds,
        unserved: driven.unserved,
        conflicts: cost.conflicts,
        commits_per_sync: (has_written && cost.syncs > 0).then(|| cost.commits as f64 / cost.syncs as f64),
        device_bytes_per_user_byte: (user_bytes > 0).then(|| cost.device_bytes as f64 / user_bytes as f64),
        store_bytes: cost.disk_bytes,
        cpu_us_per_op: driven.per_op(driven.usage.cpu.as_secs_f64() * 1e6),
        voluntary_switches_per_op: switches.map(|switches| driven.per_op(switches.voluntary as f64)),
        involuntary_switches_per_op: switches.map(|switches| driven.per_op(switches.involuntary as f64)),
        device_writes_per_s,
        ratio_to_device: (has_written && !has_read).then(|| ops_per_s / device_writes_per_s.max(1e-9)),
        histogram: latency.bars(),
        ops_per_100_ms: driven.series.clone().into_counts(),
    })
}
