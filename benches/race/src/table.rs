//! The report for people, on standard output.

use crate::Result;
use crate::args::Args;
use crate::contenders::{Contender, Role};
use crate::machine::Machine;
use crate::parent::Record;
use crate::summary::{Race, Row, Table, Verdict};
use crate::targets::targets;
use crate::workload::Workload;
use std::io::Write;

/// The columns of every table. Times are microseconds; "a commit" is one acknowledged transaction.
pub(crate) const HEAD: [&str; 15] = [
    "contender",
    "rate",
    "× device",
    "× best peer",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    "max µs",
    "CPU µs/commit",
    "switches/commit",
    "device B/B",
    "process B/B",
    "flushes/commit",
    "range of rate",
    "remark",
];

/// What a rate counts.
pub(crate) fn unit(workload: Workload) -> &'static str {
    match workload {
        workload if workload.is_opening() => "seconds until the first read",
        Workload::ColdOpen => "milliseconds until the first read",
        Workload::FullScan => "M rows/s",
        Workload::Load | Workload::Updates5x | Workload::Updates10x => "k rows/s",
        Workload::Get | Workload::Get4x | Workload::MultiGet4x => "k reads/s",
        Workload::Ranges => "k ranges/s",
        Workload::Disjoint => "k transactions/s",
        workload if workload.is_in_bytes() => "MB/s",
        Workload::Log | Workload::TicketsLog128 | Workload::Rotations => "k records/s",
        _ => "k puts/s",
    }
}

pub(crate) fn title(table: &Table) -> String {
    let threads =
        if table.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", table.threads) };
    format!("{}, {threads}", table.workload.name())
}

/// The rate in the workload's unit.
fn rate(workload: Workload, rate: f64) -> String {
    match workload {
        workload if workload.is_opening() => format!("{:.3}", 1.0 / rate),
        Workload::ColdOpen => format!("{:.1}", 1e3 / rate),
        Workload::FullScan => format!("{:.2}", rate / 1e6),
        // Whole ranges; what is counted are rows.
        Workload::Ranges => format!("{:.1}", rate / 100.0 / 1e3),
        workload if workload.is_in_bytes() => format!("{:.0}", rate * workload.commit_bytes() as f64 / 1e6),
        _ if rate >= 1e5 => format!("{:.0}", rate / 1e3),
        _ => format!("{:.1}", rate / 1e3),
    }
}

/// The rows of a table, as text: those that ran, the quickest first, then those that failed.
pub(crate) fn rows(table: &Table) -> Vec<Vec<String>> {
    let mut ran: Vec<&Row> = table.rows.iter().collect();
    ran.sort_by(|a, b| b.rate.total_cmp(&a.rate));
    let mut rows: Vec<Vec<String>> = ran.into_iter().map(|row| cells(table, row)).collect();
    for (entrant, error) in &table.failed {
        let mut cells = vec![String::new(); HEAD.len()];
        cells[0] = entrant.name();
        cells[HEAD.len() - 1] = format!("FAILED: {error}");
        rows.push(cells);
    }
    rows
}

fn cells(table: &Table, row: &Row) -> Vec<String> {
    let workload = table.workload;
    let over =
        |of: Option<&Row>| of.map_or_else(|| "–".to_owned(), |of| format!("{:.2}", row.rate / of.rate));
    let us = |us: f64| if us < 99.5 { format!("{us:.1}") } else { format!("{us:.0}") };
    let small = |value: f64| if value < 0.095 { format!("{value:.4}") } else { format!("{value:.2}") };
    let maybe = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), small);
    // A log's model and floor are in no race.
    let raced = !matches!(row.contender.role(), Role::Model);
    vec![
        row.entrant().name(),
        rate(workload, row.rate),
        over(table.floor_of(row).filter(|_| raced)),
        over(table.best_peer(row.contender, false).filter(|_| raced)),
        us(row.latency.p50_us),
        us(row.latency.p99_us),
        us(row.latency.p999_us),
        us(row.latency.max_us),
        us(row.cpu_us_per_commit),
        small(row.switches_per_commit),
        maybe(row.device_bytes_per_byte),
        small(row.process_bytes_per_byte),
        maybe(row.flushes_per_commit),
        format!("{}–{}", rate(workload, row.rate_min), rate(workload, row.rate_max)),
        remark(table, row),
    ]
}

/// Who loses to whom, and who does not keep its promise.
fn remark(table: &Table, row: &Row) -> String {
    let mut remarks = Vec::new();
    match &row.verdict {
        Verdict::Dishonest(why) => return format!("DISHONEST: {why}"),
        Verdict::Unknown => remarks.push("flushes not visible".to_owned()),
        Verdict::Honest => {}
    }
    match row.contender.role() {
        Role::Peer { index } => {
            if !index {
                remarks.push("log only".to_owned());
            }
            if table.ours(row.contender).is_some_and(|ours| row.rate > ours.rate) {
                remarks.push("ahead of seawall".to_owned());
            }
        }
        Role::Ours => {
            let mut lost: Vec<String> = [false, true]
                .into_iter()
                .filter_map(|index_only| table.best_peer(row.contender, index_only))
                .filter(|best| best.rate > row.rate)
                .map(|best| best.contender.name())
                .collect();
            lost.dedup();
            if !lost.is_empty() {
                remarks.push(format!("LOSES to {}", lost.join(", ")));
            }
        }
        Role::Floor | Role::Model => {}
    }
    remarks.extend(happened(table.workload, row));
    if row.disturbed > 0 {
        remarks.push(format!("disturbed {} ×", row.disturbed));
    }
    remarks.join(", ")
}

/// Whether the thing whose price is measured happened.
fn happened(workload: Workload, row: &Row) -> Option<String> {
    let seen = row.seen;
    match workload {
        Workload::Reopen if row.contender == Contender::Sqlite => {
            Some("a sixteenth of the rows, and no peer for it".to_owned())
        }
        Workload::Rotations => Some(format!("{} rotations", seen.rotations?)),
        Workload::Checkpoint => {
            let share = seen.checkpoint_s? / row.seconds * 100.0;
            Some(format!("{} checkpoints, {share:.0} % of the time", seen.checkpoints?))
        }
        Workload::Recovery => Some(format!(
            "log of {:.0} MB, its files read at {:.0} MB/s",
            seen.log_bytes? as f64 / 1e6,
            seen.read_bytes_per_s? / 1e6
        )),
        workload if workload.shelf().is_some() => {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let mut text = Vec::new();
            if workload.updates() && row.contender == Contender::Seawall {
                text.push(format!("{} checkpoints", seen.checkpoints?));
            }
            if let Some((peak, given)) = seen.memory_bytes.zip(seen.budget_bytes) {
                text.push(format!("memory {:.0} MiB of {:.0}", mib(peak), mib(given)));
            }
            if let Some(disk) = seen.disk_bytes_per_byte {
                text.push(format!("disk {disk:.2} B/B"));
            }
            Some(text.join(", ")).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

/// What stands below a table.
pub(crate) fn footer(race: &Race, table: &Table) -> Option<String> {
    if table.workload != Workload::Log {
        return None;
    }
    let model = race.model(table.threads)?;
    let reached = table.row(Contender::SeawallLog)?.rate / model;
    Some(format!(
        "T({n}) = N / (L + N·c) = {:.1} k/s with L = {:.1} µs (one durable write), c = {:.2} µs (seawall-no-io \
         at its best with several threads); seawall-log reaches {reached:.2} of it.",
        model / 1e3,
        race.device_write_s()? * 1e6,
        race.scheme_s()? * 1e6,
        n = table.threads,
    ))
}

/// Asked, found, and `met`, `MISSED` or `not measured`.
pub(crate) fn targets_as_rows(race: &Race) -> Vec<[String; 3]> {
    targets(race)
        .into_iter()
        .map(|target| match target.found {
            Some(found) => [target.asked, found.text, found.verdict.word().to_owned()],
            None => [target.asked, "–".to_owned(), "not measured".to_owned()],
        })
        .collect()
}

/// What was typed, without names of this machine's files.
pub(crate) fn command() -> String {
    let mut words = vec!["cargo".to_owned(), "run".to_owned(), "--release".to_owned()];
    let mut args = std::env::args().skip(1).peekable();
    if args.peek().is_some() {
        words.push("--".to_owned());
    }
    while let Some(word) = args.next() {
        let is_path = |option: &str| word == option || word.starts_with(&format!("{option}="));
        if is_path("--dir") || is_path("--json") {
            if !word.contains('=') {
                args.next();
            }
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

/// One line of a child's outcome.
pub(crate) fn progress(record: &Record) -> String {
    let what = format!(
        "{} {} thr. rep {} {}",
        record.workload.name(),
        record.threads,
        record.repetition,
        record.entrant.name()
    );
    match &record.measured {
        Some(measured) => {
            let found = rate(record.workload, measured.ops as f64 / measured.seconds);
            let disturbed = if measured.is_disturbed() {
                format!(" (others used {:.0} % of a processor meanwhile)", measured.disturbance() * 100.0)
            } else {
                String::new()
            };
            format!("{what}: {found} {}{disturbed}", unit(record.workload))
        }
        None => format!("{what}: FAILED: {}", record.error.as_deref().unwrap_or_default()),
    }
}

pub(crate) fn print(race: &Race, machine: &Machine, args: &Args) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, value) in machine.lines() {
        writeln!(out, "{name:12} {value}")?;
    }
    writeln!(out, "{:12} {}", "Command", command())?;
    writeln!(out, "{:12} medians of {} × {} s", "Method", args.repetitions(), args.window_s())?;
    for table in &race.tables {
        writeln!(out, "\n{} ({}; {})", title(table), table.workload.about(), unit(table.workload))?;
        let mut rows = rows(table);
        rows.insert(0, HEAD.map(str::to_owned).to_vec());
        write_aligned(&mut out, &rows)?;
        if let Some(footer) = footer(race, table) {
            writeln!(out, "  {footer}")?;
        }
    }
    writeln!(out, "\nTargets")?;
    let targets: Vec<Vec<String>> = targets_as_rows(race).into_iter().map(Vec::from).collect();
    write_aligned(&mut out, &targets)
}

/// Names to the left, figures to the right, the last column as it is.
fn write_aligned(out: &mut impl Write, rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            line += &match column {
                0 => format!("  {cell}{pad}"),
                column if column + 1 == columns => format!("  {cell}"),
                _ => format!("  {pad}{cell}"),
            };
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
