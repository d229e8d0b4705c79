//! This run beside an earlier one: ratios, and whether it is slower.

use super::report::{Report, Row, Settings};
use crate::command::measure::units::show_threads;
use crate::command::output::aligned;
use crate::command::{Failure, Outcome, Ui};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Ratios of now to then, of one workload with one number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Compared {
    pub(super) workload: String,
    pub(super) threads: u32,
    /// Above 1: more a second than then.
    pub(super) ops_ratio: f64,
    /// Above 1: longer than then.
    pub(super) p50_ratio: f64,
    pub(super) p99_ratio: f64,
    pub(super) p999_ratio: f64,
    /// By more than is tolerated.
    pub(super) slower: bool,
}

/// Fails if the two runs do not measure the same.
pub(super) fn check(settings: &Settings, earlier: &Report, file: &Path) -> Outcome {
    let then = &earlier.settings;
    let rate = |settings: &Settings| settings.rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
    let pairs = [
        ("--value-size", settings.value_bytes.to_string(), then.value_bytes.to_string()),
        ("--keys", settings.keys.to_string(), then.keys.to_string()),
        ("--batch", settings.batch.to_string(), then.batch.to_string()),
        ("--memory", settings.memory_bytes.to_string(), then.memory_bytes.to_string()),
        ("--read-mode", settings.read_mode.clone(), then.read_mode.clone()),
        ("--durability", settings.durability.clone(), then.durability.clone()),
        ("--rate", rate(settings), rate(then)),
    ];
    match pairs.iter().find(|(_, now, then)| now != then) {
        None => Ok(()),
        Some((name, now, then)) => {
            let what = format!("{} was measured with {name} {then}; now it is {now}", file.display());
            Err(Failure::usage(what).hint("runs can be compared that measure the same"))
        }
    }
}

/// The rows that both have. `tolerance` is a share: 0.1 allows a tenth less a second, or a tenth more time.
pub(super) fn compare(ui: &Ui, now: &Report, then: &Report, tolerance: f64) -> Vec<Compared> {
    if now.machine != then.machine || now.place.device != then.place.device {
        ui.warn(format!("the earlier run was made on another machine: {}", then.machine.line()));
    }
    let ratio = device_ratio(now, then);
    if !(0.8..=1.25).contains(&ratio) {
        ui.warn(format!(
            "the device did {ratio:.2} times what it did then: the figures compare the device as well"
        ));
    }
    let mut compared = Vec::new();
    for row in &now.rows {
        let same = |then: &&Row| then.workload == row.workload && then.threads == row.threads;
        match then.rows.iter().find(same) {
            Some(earlier) => compared.push(pair(row, earlier, now.settings.rate.is_some(), tolerance)),
            None => ui.warn(format!(
                "{} with {} is not in the earlier run, and is compared with nothing",
                row.workload,
                show_threads(row.threads)
            )),
        }
    }
    compared
}

fn device_ratio(now: &Report, then: &Report) -> f64 {
    now.device_writes_per_s / then.device_writes_per_s.max(1e-9)
}

/// In an open loop both do as many a second unless one cannot keep up: there the time is judged as well.
fn pair(now: &Row, then: &Row, is_open: bool, tolerance: f64) -> Compared {
    let ratio = |now: f64, then: f64| now / then.max(1e-9);
    let ops_ratio = ratio(now.ops_per_s, then.ops_per_s);
    let p99_ratio = ratio(now.latency.p99_us, then.latency.p99_us);
    let is_late = is_open && p99_ratio > 1.0 + tolerance;
    Compared {
        workload: now.workload.clone(),
        threads: now.threads,
        ops_ratio,
        p50_ratio: ratio(now.latency.p50_us, then.latency.p50_us),
        p99_ratio,
        p999_ratio: ratio(now.latency.p999_us, then.latency.p999_us),
        slower: ops_ratio < 1.0 - tolerance || is_late,
    }
}

/// For people.
pub(super) fn table(compared: &[Compared]) -> String {
    let rows: Vec<Vec<String>> = compared
        .iter()
        .map(|row| {
            let ratios = [row.ops_ratio, row.p50_ratio, row.p99_ratio, row.p999_ratio];
            let mut cells = vec![row.workload.clone(), row.threads.to_string()];
            cells.extend(ratios.map(|ratio| format!("{ratio:.2}")));
            cells.push(if row.slower { "SLOWER" } else { "ok" }.to_owned());
            cells
        })
        .collect();
    aligned(&["NOW / THEN", "THREADS", "OPS/S", "P50", "P99", "P99.9", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::super::report::test_row;
    use super::*;

    #[test]
    fn a_closed_loop_is_judged_by_how_many_a_second() {
        let then = test_row("fillsync", 8, 1000.0, 100.0);
        for (ops_per_s, p99_us, slower) in
            [(1000.0, 100.0, false), (901.0, 500.0, false), (899.0, 50.0, true), (5000.0, 1.0, false)]
        {
            let now = test_row("fillsync", 8, ops_per_s, p99_us);
            let compared = pair(&now, &then, false, 0.1);
            assert_eq!(compared.slower, slower, "{compared:?}");
            assert!((compared.ops_ratio - ops_per_s / 1000.0).abs() < 1e-9);
            assert!((compared.p99_ratio - p99_us / 100.0).abs() < 1e-9);
        }
    }

    #[test]
    fn an_open_loop_is_judged_by_its_times_too() {
        let then = test_row("fillsync", 8, 1000.0, 100.0);
        for (ops_per_s, p99_us, slower) in
            [(1000.0, 109.0, false), (1000.0, 111.0, true), (899.0, 100.0, true)]
        {
            let now = test_row("fillsync", 8, ops_per_s, p99_us);
            assert_eq!(pair(&now, &then, true, 0.1).slower, slower, "{ops_per_s} {p99_us}");
        }
    }

    #[test]
    fn the_table_names_what_is_slower() {
        let then = test_row("fillsync", 8, 1000.0, 100.0);
        let now = [test_row("fillsync", 8, 100.0, 100.0), test_row("fillsync", 64, 1000.0, 100.0)];
        let text = table(&now.map(|now| pair(&now, &then, false, 0.1)));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("SLOWER") && lines[1].contains("0.10"), "{text}");
        assert!(lines[2].ends_with("ok") && lines[2].contains("64"), "{text}");
    }
}
