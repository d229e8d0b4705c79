//! From measurements to rows: medians, who flushes honestly, who is the best peer.

use crate::condition::{Condition, Entrant};
use crate::contenders::{Contender, Role};
use crate::drive::Measured;
use crate::histogram::Latency;
use crate::parent::{Case, Record};
use crate::seen::Seen;
use crate::workload::{Level, Workload};

/// Reopens a sixteenth of the rows, and is compared with nobody there.
const SHORTENED: Contender = Contender::Sqlite;

/// Whether a contender did what it promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It flushed the device often enough for its commits; or this workload promises nothing.
    Honest,
    /// It cannot have.
    Dishonest(String),
    /// The device does not show flushes.
    Unknown,
}

/// Medians of a contender's repetitions.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) contender: Contender,
    pub(crate) condition: Condition,
    /// Rows a second (openings a second for `reopen` and `recovery`).
    pub(crate) rate: f64,
    pub(crate) rate_min: f64,
    pub(crate) rate_max: f64,
    pub(crate) bytes_per_s: f64,
    pub(crate) latency: Latency,
    pub(crate) cpu_us_per_commit: f64,
    pub(crate) switches_per_commit: f64,
    /// What the device was sent for each byte that the user handed over.
    pub(crate) device_bytes_per_byte: Option<f64>,
    /// What the kernel charged the process with, likewise.
    pub(crate) process_bytes_per_byte: f64,
    pub(crate) flushes_per_commit: Option<f64>,
    /// Repetitions during which other processes were busy.
    pub(crate) disturbed: usize,
    /// Of all repetitions together; rates and sizes are medians.
    pub(crate) seen: Seen,
    /// Seconds of all windows together.
    pub(crate) seconds: f64,
    pub(crate) repetitions: usize,
    pub(crate) verdict: Verdict,
}

/// One workload at one number of threads.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) workload: Workload,
    pub(crate) threads: u16,
    pub(crate) rows: Vec<Row>,
    /// Those none of whose repetitions ended well, and why.
    pub(crate) failed: Vec<(Entrant, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Race {
    pub(crate) tables: Vec<Table>,
}

impl Race {
    pub(crate) fn new(cases: &[Case], records: &[Record], shows_flushes: bool) -> Race {
        let tables = cases.iter().map(|case| Table::new(case, records, shows_flushes)).collect();
        Race { tables }
    }

    pub(crate) fn table(&self, workload: Workload, threads: u16) -> Option<&Table> {
        self.tables.iter().find(|table| table.workload == workload && table.threads == threads)
    }

    pub(crate) fn row(&self, workload: Workload, threads: u16, contender: Contender) -> Option<&Row> {
        self.table(workload, threads)?.row(contender)
    }

    pub(crate) fn row_under(&self, workload: Workload, threads: u16, entrant: Entrant) -> Option<&Row> {
        self.table(workload, threads)?.row_under(entrant)
    }

    /// Seconds that one durable write of 4 KiB takes, when nothing else is under way.
    pub(crate) fn device_write_s(&self) -> Option<f64> {
        let floor = |workload| self.row(workload, 1, Contender::Device);
        Some(1.0 / floor(Workload::Log).or_else(|| floor(Workload::Put))?.rate)
    }

    /// Seconds that the commit scheme itself takes for a commit: its best in this run without I/O, by committers that
    /// wait for each other (a lone one wakes nobody).
    pub(crate) fn scheme_s(&self) -> Option<f64> {
        let crowds = self.tables.iter().filter(|table| table.workload == Workload::Log && table.threads > 1);
        let rates = crowds.filter_map(|table| Some(table.row(Contender::SeawallNoIo)?.rate));
        rates.reduce(f64::max).map(|rate| 1.0 / rate)
    }

    /// T(N) = N / (L + N·c): commits a second of N committers who share each durable write among all of them.
    pub(crate) fn model(&self, threads: u16) -> Option<f64> {
        let n = f64::from(threads);
        Some(n / (self.device_write_s()? + n * self.scheme_s()?))
    }
}

impl Table {
    fn new(case: &Case, records: &[Record], shows_flushes: bool) -> Table {
        let (mut rows, mut failed) = (Vec::new(), Vec::new());
        for &entrant in &case.field {
            let of_it = || {
                records.iter().filter(|record| {
                    record.workload == case.workload
                        && record.threads == case.threads
                        && record.entrant == entrant
                })
            };
            let measured: Vec<&Measured> = of_it().filter_map(|record| record.measured.as_ref()).collect();
            match row(case, entrant, &measured, shows_flushes) {
                Some(row) => rows.push(row),
                None => {
                    let error = of_it().find_map(|record| record.error.clone());
                    failed.push((entrant, error.unwrap_or_else(|| "no commit within the window".to_owned())));
                }
            }
        }
        Table { workload: case.workload, threads: case.threads, rows, failed }
    }

    pub(crate) fn row(&self, contender: Contender) -> Option<&Row> {
        self.row_under(Entrant::usual(contender))
    }

    pub(crate) fn row_under(&self, entrant: Entrant) -> Option<&Row> {
        self.rows.iter().find(|row| row.entrant() == entrant)
    }

    pub(crate) fn floor(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender.role() == Role::Floor)
    }

    /// The floor under the same condition as a row, where there is one.
    pub(crate) fn floor_of(&self, row: &Row) -> Option<&Row> {
        let floor = self.floor()?;
        self.row_under(Entrant::under(floor.contender, row.condition)).or(Some(floor))
    }

    /// The quickest peer that keeps its promise and whose committers are of the same kind as this contender's, threads
    /// or tasks (tickets are compared with tasks, their like); only those with an index of their keys, if asked.
    pub(crate) fn best_peer(&self, of: Contender, index_only: bool) -> Option<&Row> {
        let any_kind = self.workload.outstanding() > 1;
        self.rows
            .iter()
            .filter(|row| matches!(row.contender.role(), Role::Peer { index } if index || !index_only))
            .filter(|row| self.workload != Workload::Reopen || row.contender != SHORTENED)
            .filter(|row| any_kind || row.contender.is_of_tasks() == of.is_of_tasks())
            .filter(|row| !matches!(row.verdict, Verdict::Dishonest(_)))
            .max_by(|a, b| a.rate.total_cmp(&b.rate))
    }

    /// The row of ours that a peer is compared with: the engine's where it runs, in the peer's kind, else the log's.
    pub(crate) fn ours(&self, peer: Contender) -> Option<&Row> {
        let of_tasks = if peer.is_of_tasks() { self.row(Contender::SeawallTasks) } else { None };
        of_tasks.or_else(|| self.row(Contender::Seawall)).or_else(|| self.row(Contender::SeawallLog))
    }
}

impl Row {
    pub(crate) fn entrant(&self) -> Entrant {
        Entrant { contender: self.contender, condition: self.condition }
    }
}

fn row(case: &Case, entrant: Entrant, measured: &[&Measured], shows_flushes: bool) -> Option<Row> {
    let measured: Vec<&Measured> = measured.iter().filter(|measured| measured.commits > 0).copied().collect();
    if measured.is_empty() {
        return None;
    }
    let of =
        |value: &dyn Fn(&Measured) -> f64| median(measured.iter().map(|measured| value(measured)).collect());
    let maybe = |value: &dyn Fn(&Measured) -> Option<f64>| {
        let known: Option<Vec<f64>> = measured.iter().map(|measured| value(measured)).collect();
        known.map(median)
    };
    let rates: Vec<f64> = measured.iter().map(|measured| measured.ops as f64 / measured.seconds).collect();
    let flushes_per_commit =
        maybe(&|measured| measured.cost.flushes.map(|flushes| flushes as f64 / measured.commits as f64));
    Some(Row {
        contender: entrant.contender,
        condition: entrant.condition,
        rate_min: rates.iter().copied().fold(f64::INFINITY, f64::min),
        rate_max: rates.iter().copied().fold(0.0, f64::max),
        rate: median(rates),
        bytes_per_s: of(&|measured| measured.user_bytes as f64 / measured.seconds),
        latency: Latency {
            p50_us: of(&|measured| measured.latency.p50_us),
            p99_us: of(&|measured| measured.latency.p99_us),
            p999_us: of(&|measured| measured.latency.p999_us),
            max_us: of(&|measured| measured.latency.max_us),
        },
        cpu_us_per_commit: of(&|measured| measured.cost.cpu_us / measured.commits as f64),
        switches_per_commit: of(&|measured| measured.cost.switches as f64 / measured.commits as f64),
        device_bytes_per_byte: maybe(&|measured| {
            measured.cost.device_bytes.map(|bytes| bytes as f64 / measured.user_bytes as f64)
        }),
        process_bytes_per_byte: of(&|measured| {
            measured.cost.process_bytes as f64 / measured.user_bytes as f64
        }),
        flushes_per_commit,
        disturbed: measured.iter().filter(|measured| measured.is_disturbed()).count(),
        seen: seen(&measured),
        seconds: measured.iter().map(|measured| measured.seconds).sum(),
        repetitions: measured.len(),
        verdict: verdict(case, entrant.contender, flushes_per_commit.filter(|_| shows_flushes)),
    })
}

fn seen(measured: &[&Measured]) -> Seen {
    let all = || measured.iter().map(|measured| measured.seen);
    let middle = |values: Option<Vec<f64>>| values.map(median);
    Seen {
        rotations: all().map(|seen| seen.rotations).sum(),
        checkpoints: all().map(|seen| seen.checkpoints).sum(),
        checkpoint_s: all().map(|seen| seen.checkpoint_s).sum(),
        log_bytes: middle(all().map(|seen| Some(seen.log_bytes? as f64)).collect()).map(|bytes| bytes as u64),
        read_bytes_per_s: middle(all().map(|seen| seen.read_bytes_per_s).collect()),
        memory_bytes: all().filter_map(|seen| seen.memory_bytes).max(),
        budget_bytes: all().find_map(|seen| seen.budget_bytes),
        disk_bytes_per_byte: middle(all().map(|seen| seen.disk_bytes_per_byte).collect()),
    }
}

/// A flush covers what was written before it began, and every committer has so many commits outstanding at most: a
/// flush can acknowledge no more than all of those.
fn verdict(case: &Case, contender: Contender, flushes_per_commit: Option<f64>) -> Verdict {
    if case.workload.level() != Level::Synced || contender.role() == Role::Model {
        return Verdict::Honest;
    }
    let Some(flushes) = flushes_per_commit else {
        return Verdict::Unknown;
    };
    let outstanding = f64::from(case.threads) * case.workload.outstanding() as f64;
    // The window's edges cut a group in two.
    let needed = 0.9 / outstanding;
    if flushes >= needed {
        return Verdict::Honest;
    }
    Verdict::Dishonest(format!(
        "{flushes:.5} device flushes a commit, where {needed:.5} are the least possible"
    ))
}

/// The middle value, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Cost;

    fn record(contender: Contender, threads: u16, rate: u64, flushes: u64) -> Record {
        let measured = Measured {
            seconds: 2.0,
            commits: rate * 2,
            ops: rate * 2,
            user_bytes: rate * 200,
            latency: Latency::default(),
            cost: Cost { flushes: Some(flushes), ..Cost::default() },
            seen: Seen::default(),
        };
        Record {
            workload: Workload::Put,
            threads,
            entrant: Entrant::usual(contender),
            repetition: 1,
            measured: Some(measured),
            error: None,
        }
    }

    fn table(threads: u16, records: &[Record], shows_flushes: bool) -> Table {
        let mut field: Vec<Entrant> = records.iter().map(|record| record.entrant).collect();
        field.dedup();
        Table::new(&Case { workload: Workload::Put, threads, field }, records, shows_flushes)
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
        let records: Vec<Record> = [10, 30, 11].map(|rate| record(Contender::Redb, 1, rate, rate * 2)).into();
        let table = table(1, &records, true);
        assert_eq!((table.rows[0].rate, table.rows[0].rate_min, table.rows[0].rate_max), (11.0, 10.0, 30.0));
    }

    #[test]
    fn who_does_not_flush_is_no_peer() {
        // 16 committers: a flush acknowledges 16 commits at most.
        let records = [
            record(Contender::Seawall, 16, 10_000, 2000),
            record(Contender::Fjall, 16, 90_000, 0),
            record(Contender::Redb, 16, 50_000, 5000),
            record(Contender::Okaywal, 16, 9000, 1200),
            record(Contender::Lmdb, 16, 800, 1600),
        ];
        let judged = table(16, &records, true);
        let dishonest: Vec<Contender> = judged
            .rows
            .iter()
            .filter(|row| matches!(row.verdict, Verdict::Dishonest(_)))
            .map(|row| row.contender)
            .collect();
        assert_eq!(dishonest, [Contender::Fjall, Contender::Redb]);
        let best = |index_only| judged.best_peer(Contender::Seawall, index_only).map(|row| row.contender);
        assert_eq!((best(false), best(true)), (Some(Contender::Okaywal), Some(Contender::Lmdb)));
        let unseen = table(16, &records, false);
        assert!(unseen.rows.iter().all(|row| row.verdict == Verdict::Unknown));
    }

    #[test]
    fn tasks_are_compared_with_tasks() {
        let records = [
            record(Contender::Seawall, 16, 30_000, 60_000),
            record(Contender::SeawallTasks, 16, 60_000, 60_000),
            record(Contender::SurrealkvTasks, 16, 50_000, 60_000),
            record(Contender::Surrealkv, 16, 20_000, 60_000),
            record(Contender::Okaywal, 16, 25_000, 60_000),
        ];
        let table = table(16, &records, true);
        let best = |of| table.best_peer(of, false).map(|row| row.contender);
        assert_eq!(best(Contender::Seawall), Some(Contender::Okaywal));
        assert_eq!(best(Contender::SeawallTasks), Some(Contender::SurrealkvTasks));
        let ours = |peer| table.ours(peer).map(|row| row.contender);
        assert_eq!(ours(Contender::SurrealkvTasks), Some(Contender::SeawallTasks));
        assert_eq!(ours(Contender::Okaywal), Some(Contender::Seawall));
    }

    #[test]
    fn conditions_are_rows_of_their_own() {
        let busy = |contender, rate| Record {
            entrant: Entrant::under(contender, Condition::Busy),
            ..record(contender, 1, rate, rate)
        };
        let records = [
            record(Contender::Device, 1, 10_000, 20_000),
            busy(Contender::Device, 6000),
            record(Contender::Seawall, 1, 9000, 18_000),
            busy(Contender::Seawall, 3000),
        ];
        let table = table(1, &records, true);
        assert_eq!(table.rows.len(), 4);
        let rate = |row: Option<&Row>| row.map(|row| row.rate);
        assert_eq!(rate(table.row(Contender::Seawall)), Some(9000.0));
        let under = table.row_under(Entrant::under(Contender::Seawall, Condition::Busy));
        assert_eq!(rate(under), Some(3000.0));
        assert_eq!(rate(under.and_then(|row| table.floor_of(row))), Some(6000.0));
    }

    #[test]
    fn a_contender_that_fails_is_named() {
        let failed =
            Record { measured: None, error: Some("no room".to_owned()), ..record(Contender::Lmdb, 1, 1, 1) };
        let lmdb = Entrant::usual(Contender::Lmdb);
        assert_eq!(table(1, &[failed], true).failed, [(lmdb, "no room".to_owned())]);
    }

    #[test]
    fn the_model_shares_one_write_among_all() {
        let log = |threads, contender, rate| Record {
            workload: Workload::Log,
            ..record(contender, threads, rate, 1)
        };
        let records = [
            log(1, Contender::Device, 12_500),
            // Wakes nobody, so it is no measure of the scheme.
            log(1, Contender::SeawallNoIo, 1_000_000),
            log(64, Contender::SeawallNoIo, 500_000),
        ];
        let cases = [1, 64].map(|threads| Case {
            workload: Workload::Log,
            threads,
            field: vec![Entrant::usual(Contender::Device), Entrant::usual(Contender::SeawallNoIo)],
        });
        let race = Race::new(&cases, &records, true);
        // 64 / (80 µs + 64 · 2 µs)
        let model = race.model(64).unwrap_or_default();
        assert!((model - 64.0 / 208e-6).abs() < 1.0, "{model}");
    }
}
