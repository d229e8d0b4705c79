//! What the features `tracing` and `metrics` bring: events and figures of a real store, as those crates have them.
#![cfg(all(feature = "tracing", feature = "metrics"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder};
use metrics::{SharedString, Unit};
use seawall::observe::{Listeners, MetricsBridge, MetricsListener, TracingListener};
use seawall::wal::SimDisk;
use seawall::wal::disk::sim::{Fault, Op};
use seawall::{Db, EventListener};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Subscriber};

/// Keeps what is recorded, by name and labels.
#[derive(Clone, Default)]
struct Figures(Arc<Mutex<BTreeMap<String, (f64, u64)>>>);

struct Cell {
    name: String,
    figures: Figures,
}

impl Cell {
    fn change(&self, change: impl FnOnce(&mut (f64, u64))) {
        change(self.figures.0.lock().unwrap().entry(self.name.clone()).or_default());
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.change(|cell| cell.0 += value as f64);
    }
    fn absolute(&self, value: u64) {
        self.change(|cell| cell.0 = value as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.change(|cell| cell.0 += value);
    }
    fn decrement(&self, value: f64) {
        self.change(|cell| cell.0 -= value);
    }
    fn set(&self, value: f64) {
        self.change(|cell| cell.0 = value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.change(|cell| *cell = (cell.0 + value, cell.1 + 1));
    }
}

impl Figures {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: String =
            key.labels().map(|label| format!(" {}={}", label.key(), label.value())).collect();
        Arc::new(Cell { name: format!("{}{labels}", key.name()), figures: self.clone() })
    }

    fn get(&self, name: &str) -> (f64, u64) {
        let figures = self.0.lock().unwrap();
        *figures.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", figures.keys()))
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

/// Keeps level, target and fields of each event.
#[derive(Clone, Default)]
struct Traced(Arc<Mutex<Vec<(Level, String, String)>>>);

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl Subscriber for Traced {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        let meta = event.metadata();
        self.0.lock().unwrap().push((*meta.level(), meta.target().to_owned(), words.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// One test at a time: what a call site's events are wanted for is the process's, and found out when it is first passed.
static ALONE: Mutex<()> = Mutex::new(());

/// A checkpoint, a full disk, and a device that fails. Without threads of its own the store tells on this one, whose
/// subscriber and recorder are the test's.
fn eventful_life() -> (Db, Arc<SimDisk>) {
    let disk = SimDisk::new(1);
    let all: [Arc<dyn EventListener>; 2] = [Arc::new(TracingListener), Arc::new(MetricsListener)];
    let db = Db::builder("/store")
        .disk(disk.clone())
        .segment_bytes(256 << 10)
        .background(false)
        .events(Arc::new(Listeners::new(all)))
        .open()
        .unwrap();
    let ks = db.keyspace("k").unwrap();
    ks.insert("a", "1").unwrap();
    db.checkpoint().unwrap();
    disk.set_capacity(2 << 20);
    while ks.insert("b", vec![0; 10_000]).is_ok() {}
    disk.set_capacity(1 << 30);
    db.resume().unwrap();
    (db, disk)
}

#[test]
fn events_are_traced() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let traced = Traced::default();
    tracing::subscriber::with_default(traced.clone(), || {
        let (db, disk) = eventful_life();
        disk.fail(Fault::eio(Op::WriteDurable));
        db.keyspace("k").unwrap().insert("c", "3").unwrap_err();
    });
    let traced = traced.0.lock().unwrap();
    let seen = |level: Level, words: &str| {
        traced
            .iter()
            .any(|(found, target, text)| *found == level && target == "seawall" && text.contains(words))
    };
    assert!(seen(Level::DEBUG, "checkpoint done") && seen(Level::DEBUG, "took_us="), "{traced:?}");
    assert!(seen(Level::WARN, "the disk is full"), "{traced:?}");
    assert!(seen(Level::ERROR, "refuses writes") && seen(Level::ERROR, "why="), "{traced:?}");
}

#[test]
fn figures_and_events_are_recorded() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let figures = Figures::default();
    metrics::with_local_recorder(&figures, || {
        let (db, _) = eventful_life();
        let (ks, snapshot) = (db.keyspace("k").unwrap(), db.snapshot());
        let mut bridge = MetricsBridge::default();
        bridge.publish(&db.stats());
        let stats = db.stats();
        assert_eq!(figures.get("seawall_commits_total").0, stats.commits as f64);
        assert_eq!(figures.get("seawall_checkpoints_total").0, 1.0);
        assert_eq!(figures.get("seawall_visible_lsn").0, stats.visible_lsn.0 as f64);
        let (_, recorded) = figures.get("seawall_commit_seconds");
        assert_eq!(recorded, stats.commit_us.count());
        assert_eq!(figures.get("seawall_events_total event=checkpoint_done").0, 1.0);
        assert!(figures.get("seawall_events_total event=no_space").0 >= 1.0);
        assert_eq!(figures.get("seawall_event_seconds event=checkpoint_done").1, 1);
        for n in 0..10_u32 {
            ks.insert(n.to_be_bytes(), "v").unwrap();
        }
        // What is published again is what came since.
        bridge.publish(&db.stats());
        assert_eq!(figures.get("seawall_commits_total").0, stats.commits as f64 + 10.0);
        assert_eq!(figures.get("seawall_commit_seconds").1, recorded + 10);
        drop(snapshot);
    });
}
