//! What was found, as JSON and as tables.

use super::device::{Row, Way};
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
        let measured = self.writes.chunk_by(same).filter(|rows| rows.iter().any(|row| row.figures.is_some()));
        let lines: Vec<Vec<String>> = measured.map(|rows| line(rows, &depths)).collect();
        aligned(&head, &lines) + &remarks(&self.writes)
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
        let device = self.log.device_method.as_deref().unwrap_or("the store's own method");
        aligned(&head, &lines) + &format!("DEVICE: single durable writes of 4 KiB by {device}, just before\n")
    }

    fn plan_text(&self) -> String {
        self.plan.advice.iter().map(|line| format!("- {line}\n")).collect()
    }
}

/// What is left out, and why: once for a way that never worked, else each measurement by itself.
fn remarks(writes: &[Row]) -> String {
    let mut remarks: Vec<String> = Vec::new();
    for row in writes {
        let Some(why) = row.refused.as_deref() else { continue };
        // A ring that did not work has no method to be named by.
        let mut alike = writes
            .iter()
            .filter(|other| other.way == row.way && (row.way == Way::Ring || other.method == row.method));
        let remark = if alike.all(|other| other.refused.as_deref() == Some(why)) {
            format!("{} is refused here: {why}\n", row.method)
        } else {
            let bytes = show_bytes(row.bytes);
            format!("{}, {bytes}, {} in flight, is left out: {why}\n", row.method, row.in_flight)
        };
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    }
    remarks.concat()
}

/// The times, and the bytes a second, are those of the fewest in flight.
fn line(rows: &[Row], depths: &[u32]) -> Vec<String> {
    let Some(first) = rows.iter().find(|row| row.figures.is_some()) else { return Vec::new() };
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

#[cfg(test)]
mod tests {
    use super::super::device::Figures;
    use super::*;
    use crate::command::measure::latency::Quantiles;

    fn row(method: &'static str, way: Way, in_flight: u32, refused: Option<&str>) -> Row {
        let figures = Figures { writes_per_s: 1.0, mib_per_s: 1.0, latency: Quantiles::default() };
        Row {
            method,
            durable: true,
            way,
            bytes: 4096,
            in_flight,
            refused: refused.map(str::to_owned),
            figures: refused.is_none().then_some(figures),
        }
    }

    #[test]
    fn what_is_left_out_is_said_once() {
        let denied = Some("no rings");
        let mut writes = vec![
            row("O_DSYNC", Way::Threads, 1, None),
            row("O_DIRECT", Way::Threads, 1, Some("no direct I/O")),
            row("io_uring, durable", Way::Ring, 1, denied),
            row("io_uring, durable", Way::Ring, 16, denied),
        ];
        let remarks_all =
            "O_DIRECT is refused here: no direct I/O\nio_uring, durable is refused here: no rings\n";
        assert_eq!(remarks(&writes), remarks_all);
        // One that worked: then it is not the way that is refused.
        writes[2] = row("io_uring, O_DIRECT + RWF_DSYNC", Way::Ring, 1, None);
        let said = remarks(&writes);
        assert!(said.ends_with("io_uring, durable, 4 KiB, 16 in flight, is left out: no rings\n"), "{said}");
    }
}
