//! What is asked of seawall, and whether this run shows it.

use crate::condition::{Condition, Entrant};
use crate::contenders::Contender;
use crate::summary::{Race, Row};
use crate::workload::Workload;

mod shelves;

/// One thing asked, and what came out.
pub(crate) struct Target {
    pub(crate) asked: String,
    /// `1.07 × (12.9 k/s of 12.1 k/s)`; None if this run did not measure it.
    pub(crate) found: Option<Found>,
}

pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// What was to be measured did not happen, or too seldom.
    TooLittle,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::TooLittle => "not measured",
        }
    }

    fn of(met: bool) -> Verdict {
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

/// All that the race can measure.
pub(crate) fn targets(race: &Race) -> Vec<Target> {
    let mut targets = vec![ratio(
        "One committer, engine: at least 0.95 of single durable 4 KiB overwrites".to_owned(),
        0.95,
        ours(race, Workload::Put, 1),
        floor(race, Workload::Put, 1),
    )];
    for threads in [2, 4] {
        targets.push(ratio(
            format!("{threads} threads, engine: at least 1.15 × one durable write a commit"),
            1.15,
            ours(race, Workload::Put, threads),
            floor(race, Workload::Put, threads),
        ));
    }
    for (of, kind) in [(Contender::Seawall, "threads"), (Contender::SeawallTasks, "tasks on all processors")]
    {
        for threads in [16, 64, 128] {
            targets.push(ratio(
                format!(
                    "{threads} {kind}, engine: at least 1.5 × the best peer with the same, logs included"
                ),
                1.5,
                race.row(Workload::Put, threads, of).map(|row| row.rate),
                best_peer(race, Workload::Put, threads, of, false),
            ));
        }
    }
    for (threads, share) in [(4, 0.75), (16, 0.8), (64, 0.8), (128, 0.9)] {
        targets.push(ratio(
            format!("{threads} threads, log alone: at least {share} of T({threads})"),
            share,
            race.row(Workload::Log, threads, Contender::SeawallLog).map(|row| row.rate),
            race.model(threads),
        ));
    }
    tickets(race, &mut targets);
    targets.push(ratio(
        "16 KiB values, 64 threads: at least 0.8 of the device's durable rate for that size".to_owned(),
        0.8,
        ours(race, Workload::Large, 64),
        floor(race, Workload::Large, 64),
    ));
    ahead(race, &mut targets);
    beside(race, &mut targets);
    shelves::targets(race, &mut targets);
    targets
}

fn tickets(race: &Race, targets: &mut Vec<Target>) {
    let log = |workload| race.row(workload, 1, Contender::SeawallLog);
    targets.push(ratio(
        "Tickets, one thread, log: at least 1 M records/s of 128 bytes".to_owned(),
        1.0,
        log(Workload::TicketsLog128).map(|row| row.rate),
        Some(1e6),
    ));
    let device = [Workload::Sequential1m, Workload::Sequential4m]
        .into_iter()
        .filter_map(|workload| Some(race.row(workload, 1, Contender::Device)?.bytes_per_s))
        .reduce(f64::max);
    targets.push(Target {
        asked: "Tickets, one thread, log: at least 3 GB/s of 4 KiB records, or 0.7 of the device's sequential rate"
            .to_owned(),
        found: log(Workload::TicketsLog4k).and_then(|row| {
            let rate = row.bytes_per_s;
            // Without the device's rate only the first half can be judged.
            let share = device.map(|device| rate / device);
            let met = rate >= 3e9 || share? >= 0.7;
            let share = share.map_or_else(String::new, |share| format!(", {share:.2} of the device's"));
            let verdict = Verdict::of(met);
            Some(Found { text: format!("{:.2} GB/s{share}", rate / 1e9), verdict })
        }),
    });
    targets.push(ratio(
        "Tickets, one thread, engine: at least 5 × its blocking rate at 16 threads".to_owned(),
        5.0,
        ours(race, Workload::TicketsEngine, 1),
        ours(race, Workload::Put, 16),
    ));
}

/// Workloads in which every peer that keeps an index is to be beaten.
fn ahead(race: &Race, targets: &mut Vec<Target>) {
    let cases = [
        (Workload::Batch, 1, "Batches of 100 puts, 1 thread"),
        (Workload::Batch, 16, "Batches of 100 puts, 16 threads"),
        (Workload::Written, 1, "Buffered puts given to the kernel, 1 thread"),
        (Workload::Written, 4, "Buffered puts given to the kernel, 4 threads"),
        (Workload::Memory, 1, "Buffered puts in memory, 1 thread"),
        (Workload::Memory, 4, "Buffered puts in memory, 4 threads"),
        (Workload::Reopen, 1, "Reopening after a kill"),
    ];
    for (workload, threads, what) in cases {
        targets.push(ratio(
            format!("{what}: ahead of every peer that keeps an index"),
            1.0,
            ours(race, workload, threads),
            best_peer(race, workload, threads, Contender::Seawall, true),
        ));
    }
}

/// Rotations that the tail of a latency is to be judged by.
const ROTATIONS_MIN: u64 = 100;
/// The share of a window that checkpoints are to run for, where they run all the time.
const CHECKPOINTING_MIN: f64 = 0.5;
const RECOVERY_S_MAX: f64 = 2.0;
const RECOVERY_SHARE_MIN: f64 = 0.8;

/// What is to cost little: rotations, checkpoints, busy processors, a recovery.
fn beside(race: &Race, targets: &mut Vec<Target>) {
    let pair = |workload, threads, contender, condition| {
        let with = race.row_under(workload, threads, Entrant::under(contender, condition))?;
        Some((with, race.row(workload, threads, contender)?))
    };
    targets.push(Target {
        asked: "p99.9 of one committer on the log, across 100 rotations: within 1.2 × of that without"
            .to_owned(),
        found: pair(Workload::Rotations, 1, Contender::SeawallLog, Condition::SmallSegments)
            .and_then(|(with, without)| rotations(with, without)),
    });
    targets.push(Target {
        asked: "p99 of 16 threads of durable puts while checkpoints run: within 2 × of that without"
            .to_owned(),
        found: pair(Workload::Checkpoint, 16, Contender::Seawall, Condition::Checkpointing)
            .and_then(|(with, without)| checkpoints(with, without)),
    });
    targets.push(Target {
        asked: "p99 of one committer beside 8 busy threads: under 5 × of that alone".to_owned(),
        found: pair(Workload::Busy, 1, Contender::Seawall, Condition::Busy).map(|(with, without)| {
            let floor = pair(Workload::Busy, 1, Contender::Device, Condition::Busy);
            busy(with, without, floor)
        }),
    });
    targets.push(Target {
        asked: "Recovery of 256 MB of 100-byte rows: under 2 s, or 0.8 of the rate of reading the files"
            .to_owned(),
        found: race.row(Workload::Recovery, 1, Contender::Seawall).and_then(recovery),
    });
}

fn rotations(with: &Row, without: &Row) -> Option<Found> {
    let (seen, few) = (with.seen.rotations?, without.seen.rotations?);
    let ratio = with.latency.p999_us / without.latency.p999_us;
    let verdict = if seen < ROTATIONS_MIN { Verdict::TooLittle } else { Verdict::of(ratio <= 1.2) };
    Some(Found { text: format!("{ratio:.2} × ({seen} rotations; {few} without)"), verdict })
}

fn checkpoints(with: &Row, without: &Row) -> Option<Found> {
    let (seen, none) = (with.seen.checkpoints?, without.seen.checkpoints?);
    let share = with.seen.checkpoint_s? / with.seconds;
    let ratio = with.latency.p99_us / without.latency.p99_us;
    let happened = seen > 0 && none == 0 && share >= CHECKPOINTING_MIN;
    let verdict = if happened { Verdict::of(ratio <= 2.0) } else { Verdict::TooLittle };
    let text = format!(
        "{ratio:.2} × ({seen} checkpoints, {:.0} % of the time; {none} without), rate {:.2} ×",
        share * 100.0,
        with.rate / without.rate
    );
    Some(Found { text, verdict })
}

fn busy(with: &Row, without: &Row, floor: Option<(&Row, &Row)>) -> Found {
    let p99 = |(with, without): (&Row, &Row)| with.latency.p99_us / without.latency.p99_us;
    let rate = |(with, without): (&Row, &Row)| with.rate / without.rate;
    let ratio = p99((with, without));
    let device = floor.map_or_else(String::new, |floor| {
        format!("; the device's own writes {:.2} ×, rate {:.2} ×", p99(floor), rate(floor))
    });
    let text = format!("{ratio:.2} ×, rate {:.2} ×{device}", rate((with, without)));
    Found { text, verdict: Verdict::of(ratio < 5.0) }
}

fn recovery(row: &Row) -> Option<Found> {
    let seconds = 1.0 / row.rate;
    let share = row.seen.log_bytes? as f64 / seconds / row.seen.read_bytes_per_s?;
    let met = seconds < RECOVERY_S_MAX || share >= RECOVERY_SHARE_MIN;
    Some(Found { text: format!("{seconds:.2} s, {share:.2} of the rate"), verdict: Verdict::of(met) })
}

fn ours(race: &Race, workload: Workload, threads: u16) -> Option<f64> {
    Some(race.row(workload, threads, Contender::Seawall)?.rate)
}

fn floor(race: &Race, workload: Workload, threads: u16) -> Option<f64> {
    Some(race.table(workload, threads)?.floor()?.rate)
}

fn best_peer(race: &Race, workload: Workload, threads: u16, of: Contender, index_only: bool) -> Option<f64> {
    Some(race.table(workload, threads)?.best_peer(of, index_only)?.rate)
}

fn ratio(asked: String, least: f64, found: Option<f64>, of: Option<f64>) -> Target {
    let found = found.zip(of).map(|(found, of)| {
        let ratio = found / of;
        Found { text: format!("{ratio:.2} ×"), verdict: Verdict::of(ratio >= least) }
    });
    Target { asked, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Measured;
    use crate::histogram::Latency;
    use crate::meter::Cost;
    use crate::parent::{Case, Record};
    use crate::seen::Seen;

    fn record(workload: Workload, entrant: Entrant, tail_us: f64, seen: Seen) -> Record {
        let measured = Measured {
            seconds: 2.0,
            commits: 1000,
            ops: 1000,
            user_bytes: 1000,
            latency: Latency { p99_us: tail_us, p999_us: tail_us, ..Latency::default() },
            cost: Cost::default(),
            seen,
        };
        let threads = workload.threads_default()[0];
        Record { workload, threads, entrant, repetition: 1, measured: Some(measured), error: None }
    }

    /// The verdict on the target that begins so.
    fn verdict(asked: &str, records: &[Record]) -> Option<Verdict> {
        let first = &records[0];
        let field = records.iter().map(|record| record.entrant).collect();
        let case = Case { workload: first.workload, threads: first.threads, field };
        let targets = targets(&Race::new(&[case], records, true));
        targets.into_iter().find(|target| target.asked.starts_with(asked))?.found.map(|found| found.verdict)
    }

    #[test]
    fn rotations_are_judged_by_a_hundred_of_them() {
        let of = |tail_us, rotations| {
            let seen = |rotations| Seen { rotations: Some(rotations), ..Seen::default() };
            let entrant = Entrant::under(Contender::SeawallLog, Condition::SmallSegments);
            let usual = Entrant::usual(Contender::SeawallLog);
            verdict(
                "p99.9 of one committer",
                &[
                    record(Workload::Rotations, usual, 100.0, seen(1)),
                    record(Workload::Rotations, entrant, tail_us, seen(rotations)),
                ],
            )
        };
        assert_eq!(of(119.0, 100), Some(Verdict::Met));
        assert_eq!(of(121.0, 100), Some(Verdict::Missed));
        assert_eq!(of(119.0, 99), Some(Verdict::TooLittle));
    }

    #[test]
    fn checkpoints_must_have_run() {
        let of = |tail_us, with: (u64, f64), without: u64| {
            let seen = |checkpoints, checkpoint_s| Seen {
                checkpoints: Some(checkpoints),
                checkpoint_s: Some(checkpoint_s),
                ..Seen::default()
            };
            let entrant = Entrant::under(Contender::Seawall, Condition::Checkpointing);
            verdict(
                "p99 of 16 threads",
                &[
                    record(
                        Workload::Checkpoint,
                        Entrant::usual(Contender::Seawall),
                        100.0,
                        seen(without, 0.0),
                    ),
                    record(Workload::Checkpoint, entrant, tail_us, seen(with.0, with.1)),
                ],
            )
        };
        assert_eq!(of(199.0, (9, 1.9), 0), Some(Verdict::Met));
        assert_eq!(of(201.0, (9, 1.9), 0), Some(Verdict::Missed));
        assert_eq!(of(150.0, (9, 0.9), 0), Some(Verdict::TooLittle), "for less than half of the time");
        assert_eq!(of(150.0, (9, 1.9), 1), Some(Verdict::TooLittle), "without was not without");
    }

    #[test]
    fn busy_and_recovery() {
        let busy = |tail_us| {
            let entrant = Entrant::under(Contender::Seawall, Condition::Busy);
            let usual = record(Workload::Busy, Entrant::usual(Contender::Seawall), 100.0, Seen::default());
            let records = [usual, record(Workload::Busy, entrant, tail_us, Seen::default())];
            verdict("p99 of one committer", &records)
        };
        assert_eq!((busy(499.0), busy(500.0)), (Some(Verdict::Met), Some(Verdict::Missed)));
        // Opened in two seconds: as quick as 0.8 of reading a log of 160 bytes, or not.
        let recovery = |read_bytes_per_s| {
            let seen =
                Seen { log_bytes: Some(160), read_bytes_per_s: Some(read_bytes_per_s), ..Seen::default() };
            let mut record = record(Workload::Recovery, Entrant::usual(Contender::Seawall), 0.0, seen);
            if let Some(measured) = &mut record.measured {
                (measured.commits, measured.ops) = (1, 1);
            }
            verdict("Recovery", &[record])
        };
        assert_eq!((recovery(99.0), recovery(101.0)), (Some(Verdict::Met), Some(Verdict::Missed)));
    }
}
