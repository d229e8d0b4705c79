//! What was found, as JSON and as tables.

use super::device::Row;
use super::log::Log;
use super::plan::Plan;
use crate::command::measure::machine::{Machine, Place};
use crate::command::measure::units::{show_bytes, show_count, show_ratio, show_us};
use crate::command::output::{Format, aligned};
use crate::command::{Outcome, Ui};
use serde::Serialize;

/// The whole document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) place: Place,
    pub(super) writes: Vec<Row>,
    pub(super) log: Log,
    pub(super) plan: Plan,
    pub(super) warnings: Vec<String>,
}

impl Report {
    pub(super) fn print(&self, ui: &Ui) -> Outcome {
        let mut out = ui.out();
        if ui.format == Format::Table {
            let text = format!("{}\n{}\n{}", self.device_table(), self.log_table(), self.plan_text());
            out.raw(text.as_bytes())?;
        } else {
            out.value(self)?;
        }
        out.finish()?;
        for warning in &self.warnings {
            ui.warn(warning);
        }
        Ok(())
    }

    /// A line for each method and size, a column for each number in flight.
    fn device_table(&self) -> String {
        let mut depths: Vec<u32> = self.writes.iter().map(|row| row.in_flight).collect();
        depths.sort_unstable();
        depths.dedup();
        let columns: Vec<String> = depths.iter().map(|depth| format!("{depth} IN FLIGHT")).collect();
        let mut head = vec!["WRITES/S", "BYTES"];
        head.extend(columns.iter().map(String::as_str));
        head.extend(["P50", "P99", "MIB/S"]);
        let same = |a: &Row, b: &Row| (a.method, a.way, a.bytes) == (b.method, b.way, b.bytes);
        let lines: Vec<Vec<String>> = self.writes.chunk_by(same).map(|rows| line(rows, &depths)).collect();
        let mut text = aligned(&head, &lines);
        for (method, why) in self.refusals() {
            text += &format!("{method} is refused here: {why}\n");
        }
        text
    }

    /// Each once, with what the system said.
    fn refusals(&self) -> Vec<(&'static str, &str)> {
        let all = self.writes.iter().filter_map(|row| Some((row.method, row.refused.as_deref()?)));
        let mut refusals: Vec<_> = all.collect();
        refusals.dedup();
        refusals
    }

    fn log_table(&self) -> String {
        let head = ["COMMITTERS", "COMMITS/S", "× DEVICE", "COMMITS/SYNC", "P50", "P99", "P99.9", "MAX"];
        let line = |row: &super::log::Row| {
            let latency = &row.latency;
            let mut cells = vec![
                row.committers.to_string(),
                show_count(row.commits_per_s),
                show_ratio(row.ratio_to_device),
                show_ratio(row.commits_per_sync),
            ];
            cells.extend([latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us].map(show_us));
            cells
        };
        let lines: Vec<Vec<String>> = self.log.rows.iter().map(line).collect();
        aligned(&head, &lines)
    }

    fn plan_text(&self) -> String {
        self.plan.advice.iter().map(|line| format!("- {line}\n")).collect()
    }
}

/// The times, and the bytes a second, are those of the fewest in flight.
fn line(rows: &[Row], depths: &[u32]) -> Vec<String> {
    let Some(first) = rows.first() else { return Vec::new() };
    let mut cells = vec![first.method.to_owned(), show_bytes(first.bytes)];
    for depth in depths {
        let figures = rows.iter().find(|row| row.in_flight == *depth).and_then(|row| row.figures);
        cells.push(figures.map_or_else(|| "-".to_owned(), |figures| show_count(figures.writes_per_s)));
    }
    match first.figures {
        None => cells.resize(depths.len() + 5, "-".to_owned()),
        Some(figures) => cells.extend([
            show_us(figures.latency.p50_us),
            show_us(figures.latency.p99_us),
            show_ratio(figures.mib_per_s),
        ]),
    }
    cells
}
