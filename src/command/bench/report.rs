//! What a bench found: as JSON, which a later run can be compared with, and as a table.

use super::compare::Compared;
use crate::command::measure::latency::{Bar, Quantiles};
use crate::command::measure::machine::{Machine, Place};
use crate::command::measure::units::{show_bytes, show_count, show_ratio, show_threads, show_us};
use crate::command::output::{Format, aligned};
use crate::command::{Failure, Outcome, Ui};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Moves when a field changes its meaning.
pub(super) const FORMAT: u32 = 2;

/// The whole document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// [`FORMAT`]; also what tells this document from others.
    pub(super) seawall_bench: u32,
    pub(super) version: String,
    pub(super) unix_time_s: u64,
    pub(super) machine: Machine,
    pub(super) place: Place,
    pub(super) io_backend: String,
    /// Why this backend, and how durable writes are made.
    pub(super) io_reason: String,
    /// Single durable 4 KiB writes, one at a time: the median of what was measured before each run.
    pub(super) device_writes_per_s: f64,
    pub(super) settings: Settings,
    /// The stores that were filled before they were measured.
    pub(super) loaded: Vec<Loaded>,
    pub(super) rows: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) comparison: Vec<Compared>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) duration_s: f64,
    pub(super) key_bytes: u64,
    pub(super) value_bytes: u64,
    pub(super) keys: u64,
    pub(super) batch: u64,
    pub(super) durability: String,
    /// The store's memory budget.
    pub(super) memory_bytes: u64,
    /// How blocks were to be read.
    #[serde(default = "cached")]
    pub(super) read_mode: String,
    /// Operations begun a second in an open loop.
    pub(super) rate: Option<u64>,
}

/// Of reports that do not say it.
fn cached() -> String {
    "cached".to_owned()
}

impl Settings {
    pub(super) fn row_bytes(&self) -> u64 {
        self.key_bytes + self.value_bytes
    }
}

/// A store's rows, committed in batches that the kernel had and then put into the data file: YCSB's load phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Loaded {
    /// The directory's name, with `--keep`.
    pub(super) store: String,
    pub(super) rows: u64,
    pub(super) seconds: f64,
    pub(super) rows_per_s: f64,
    /// Of the data file, in use.
    pub(super) data_bytes: u64,
    pub(super) data_bytes_per_user_byte: f64,
}

/// The operations of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OfKind {
    pub(super) kind: String,
    pub(super) ops: u64,
    pub(super) ops_per_s: f64,
    #[serde(flatten)]
    pub(super) latency: Quantiles,
}

/// One workload with one number of threads. In the workloads that fill, an operation is a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) workload: String,
    pub(super) about: String,
    pub(super) threads: u32,
    pub(super) ops: u64,
    pub(super) rows: u64,
    pub(super) seconds: f64,
    pub(super) ops_per_s: f64,
    pub(super) rows_per_s: f64,
    #[serde(flatten)]
    pub(super) latency: Quantiles,
    /// Each kind of operation by itself.
    pub(super) kinds: Vec<OfKind>,
    /// Due in an open loop, and never begun; their waiting is in the distribution.
    pub(super) unserved: u64,
    /// Transactions that lost against another, and were run again.
    pub(super) conflicts: u64,
    pub(super) commits_per_sync: Option<f64>,
    pub(super) device_bytes_per_user_byte: Option<f64>,
    /// Data file and log, at the end.
    pub(super) store_bytes: u64,
    pub(super) cpu_us_per_op: f64,
    pub(super) voluntary_switches_per_op: Option<f64>,
    pub(super) involuntary_switches_per_op: Option<f64>,
    /// The device's rate just before.
    pub(super) device_writes_per_s: f64,
    pub(super) ratio_to_device: Option<f64>,
    pub(super) histogram: Vec<Bar>,
    pub(super) ops_per_100_ms: Vec<u64>,
}

const HEAD: [&str; 14] = [
    "WORKLOAD",
    "THREADS",
    "OPS/S",
    "ROWS/S",
    "× DEVICE",
    "P50",
    "P99",
    "P99.9",
    "MAX",
    "COMMITS/SYNC",
    "WRITE AMP",
    "STORE",
    "CPU/OP",
    "SWITCHES/OP",
];

impl Report {
    /// What an earlier run wrote.
    pub(super) fn read(file: &Path) -> Outcome<Report> {
        let text = std::fs::read(file).map_err(|error| Failure::file("reading", file, &error))?;
        let report: Report = serde_json::from_slice(&text).map_err(|error| {
            let what = format!("{} is not what `seawall bench -o json` writes: {error}", file.display());
            Failure::usage(what)
        })?;
        if report.seawall_bench == FORMAT {
            return Ok(report);
        }
        let found = report.seawall_bench;
        Err(Failure::usage(format!("{} has format {found}; this version reads {FORMAT}", file.display())))
    }

    /// The report on standard output.
    pub(super) fn print(&self, ui: &Ui) -> Outcome {
        for row in self.rows.iter().filter(|row| row.unserved > 0) {
            ui.warn(format!(
                "{} with {} could not keep up: {} operations were due and never begun; their waiting is counted",
                row.workload,
                show_threads(row.threads),
                row.unserved
            ));
        }
        let mut out = ui.out();
        if ui.format == Format::Table {
            out.raw(self.table().as_bytes())?;
        } else {
            out.value(self)?;
        }
        out.finish()
    }

    /// Names and values of what was measured on, and how.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let settings = &self.settings;
        let pace = match settings.rate {
            Some(rate) => format!("open loop, {} operations a second", show_count(rate as f64)),
            None => "closed loop".to_owned(),
        };
        let memory = show_bytes(settings.memory_bytes);
        let mut facts = vec![
            ("machine", self.machine.line()),
            ("disk", self.place.line()),
            ("I/O", format!("{}: {}", self.io_backend, self.io_reason)),
            (
                "device",
                format!("{} durable 4 KiB writes/s, one at a time", show_count(self.device_writes_per_s)),
            ),
            (
                "rows",
                format!("keys of {} B, values of {}", settings.key_bytes, show_bytes(settings.value_bytes)),
            ),
            ("commits", format!("{}; {pace}, {} s each", settings.durability, settings.duration_s)),
            (
                "memory",
                format!(
                    "a budget of {memory} for what is not in the data file yet and for its blocks, which are {}",
                    settings.read_mode
                ),
            ),
        ];
        facts.extend(self.loaded.iter().map(|loaded| ("loaded", loaded.line())));
        facts
    }

    fn table(&self) -> String {
        let facts = self.facts();
        let mut text: String = facts.iter().map(|(name, value)| format!("{name:<9} {value}\n")).collect();
        let cells = self.rows.iter().flat_map(Row::lines).collect::<Vec<_>>();
        text += &format!("\n{}", aligned(&HEAD, &cells));
        if !self.comparison.is_empty() {
            text += &format!("\n{}", super::compare::table(&self.comparison));
        }
        text
    }
}

impl Loaded {
    /// In one line.
    pub(super) fn line(&self) -> String {
        format!(
            "{}: {} rows in {:.1} s, {} rows/s; {} in the data file, {:.2} bytes for each byte of keys and values",
            self.store,
            show_count(self.rows as f64),
            self.seconds,
            show_count(self.rows_per_s),
            show_bytes(self.data_bytes),
            self.data_bytes_per_user_byte
        )
    }
}

impl Row {
    /// A line of progress.
    pub(super) fn line(&self) -> String {
        let latency = &self.latency;
        let ratio = self.ratio_to_device.map(|ratio| format!(", {} × the device", show_ratio(ratio)));
        format!(
            "{} with {}: {} ops/s{}, p50 {}, p99 {}",
            self.workload,
            show_threads(self.threads),
            show_count(self.ops_per_s),
            ratio.unwrap_or_default(),
            show_us(latency.p50_us),
            show_us(latency.p99_us),
        )
    }

    /// The kinds of its operations, where there are several.
    pub(super) fn parts(&self) -> &[OfKind] {
        if self.kinds.len() > 1 { &self.kinds } else { &[] }
    }

    /// Of the table: one, and one more of each kind where there are several.
    pub(super) fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = vec![self.cells()];
        for part in self.parts() {
            let mut cells = vec![format!("  {}", part.kind), String::new(), show_count(part.ops_per_s)];
            cells.resize(5, String::new());
            cells.extend(times(&part.latency));
            cells.resize(HEAD.len(), String::new());
            lines.push(cells);
        }
        lines
    }

    /// In the order of the table's heading.
    fn cells(&self) -> Vec<String> {
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), show_ratio);
        let switches = self.voluntary_switches_per_op.zip(self.involuntary_switches_per_op);
        let mut cells = vec![
            self.workload.clone(),
            self.threads.to_string(),
            show_count(self.ops_per_s),
            show_count(self.rows_per_s),
            optional(self.ratio_to_device),
        ];
        cells.extend(times(&self.latency));
        cells.extend([
            optional(self.commits_per_sync),
            optional(self.device_bytes_per_user_byte),
            show_bytes(self.store_bytes),
            show_us(self.cpu_us_per_op),
            switches.map_or_else(|| "-".to_owned(), |(own, forced)| format!("{own:.2} + {forced:.2}")),
        ]);
        cells
    }
}

fn times(latency: &Quantiles) -> [String; 4] {
    [latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us].map(show_us)
}

/// What the table's columns mean.
pub(super) fn columns() -> impl Iterator<Item = (&'static str, &'static str)> {
    HEAD.into_iter().zip([
        "",
        "",
        "operations a second; in the workloads that fill, commits",
        "",
        "operations for each single durable 4 KiB write that the device did just before",
        "half of the operations took no longer",
        "99 of 100 took no longer",
        "999 of 1,000 took no longer",
        "the longest",
        "commits that shared one flush of the device",
        "bytes given to the device, by log and checkpoints, for each byte of keys and values",
        "data file and log on disk, at the end",
        "processor time of the whole process, this command's own included",
        "context switches: those of threads that waited, and those that were forced",
    ])
}

/// A row whose p50 is half of its p99, and its p99.9 twice that.
#[cfg(test)]
pub(super) fn test_row(workload: &str, threads: u32, ops_per_s: f64, p99_us: f64) -> Row {
    let latency = Quantiles {
        mean_us: p99_us / 2.0,
        p50_us: p99_us / 2.0,
        p99_us,
        p999_us: p99_us * 2.0,
        max_us: p99_us * 3.0,
    };
    Row {
        workload: workload.to_owned(),
        about: "one <row> & a commit".to_owned(),
        threads,
        ops: ops_per_s as u64,
        rows: ops_per_s as u64,
        seconds: 1.0,
        ops_per_s,
        rows_per_s: ops_per_s,
        latency,
        kinds: Vec::new(),
        unserved: 0,
        conflicts: 0,
        commits_per_sync: Some(1.0),
        device_bytes_per_user_byte: Some(30.0),
        store_bytes: 1 << 20,
        cpu_us_per_op: 10.0,
        voluntary_switches_per_op: Some(1.0),
        involuntary_switches_per_op: None,
        device_writes_per_s: 500.0,
        ratio_to_device: Some(ops_per_s / 500.0),
        histogram: vec![Bar(p99_us / 2.0, p99_us, 99), Bar(p99_us * 2.0, p99_us * 3.0, 1)],
        ops_per_100_ms: vec![(ops_per_s / 10.0) as u64; 10],
    }
}
