//! What is asked of stores of many rows: reading, updating, disk, memory.

use super::{Found, Target, Verdict, ours, ratio};
use crate::condition::{Condition, Entrant};
use crate::contenders::Contender;
use crate::summary::{Race, Row, Table};
use crate::workload::Workload;

/// The share of random reads that a store with memory for a quarter of its rows cannot serve from there.
const MISSES: f64 = 0.75;
/// Of the 4 KiB rate of the device.
const DEVICE_SHARE: f64 = 0.85;
const OPEN_S_MAX: f64 = 0.05;
const DISK_LOADED_MAX: f64 = 1.15;
const DISK_UPDATED_MAX: f64 = 1.5;
const MEMORY_OVER_MAX: f64 = 1.1;
const CHECKPOINTS_MIN: u64 = 5;
const TAIL_MAX: f64 = 5.0;
const DISJOINT_MIN: f64 = 0.9;

pub(super) fn targets(race: &Race, targets: &mut Vec<Target>) {
    reads(race, targets);
    updates(race, targets);
    space(race, targets);
    for threads in [16, 64] {
        let of = |condition| {
            let entrant = Entrant::under(Contender::Seawall, condition);
            Some(race.row_under(Workload::Disjoint, threads, entrant)?.rate)
        };
        targets.push(ratio(
            format!(
                "{threads} threads on rows of their own, serializable: at least 0.9 of snapshot isolation"
            ),
            DISJOINT_MIN,
            of(Condition::Usual),
            of(Condition::SnapshotIsolation),
        ));
    }
}

fn rate(race: &Race, workload: Workload, threads: u16, name: &str) -> Option<f64> {
    Some(row(race, workload, threads, name)?.rate)
}

/// By name: not every build has every contender.
fn row<'a>(race: &'a Race, workload: Workload, threads: u16, name: &str) -> Option<&'a Row> {
    let table = race.table(workload, threads)?;
    table.rows.iter().find(|row| row.contender.name() == name && row.condition == Condition::Usual)
}

fn reads(race: &Race, targets: &mut Vec<Target>) {
    let mut against = |what: &str, peer: &str, workload, threads| {
        let asked = format!("{what}: at least {peer}'s");
        targets.push(ratio(asked, 1.0, ours(race, workload, threads), rate(race, workload, threads, peer)));
    };
    against("Point reads, in memory, 1 thread", "lmdb", Workload::Get, 1);
    against("Point reads, in memory, 2 threads", "lmdb", Workload::Get, 2);
    against("Full scan, in memory", "lmdb", Workload::FullScan, 1);
    against("Ranges of 100 rows, in memory", "lmdb", Workload::Ranges, 1);
    against("Random reads of 4 × the memory, 1 thread", "rocksdb", Workload::Get4x, 1);
    against("Random reads of 4 × the memory, 16 threads", "rocksdb", Workload::Get4x, 16);
    against("Random-order load in durable batches of 10,000", "rocksdb", Workload::Load, 1);
    targets.push(ratio(
        "Point reads, in memory, mapped, 2 threads: ahead of canopydb's".to_owned(),
        1.0,
        rate(race, Workload::Get, 2, "seawall-mapped"),
        rate(race, Workload::Get, 2, "canopydb"),
    ));
    let device = race.table(Workload::MultiGet4x, 1).and_then(|table| Some(table.floor()?.rate));
    // What a quarter of the memory cannot serve goes to the device.
    let misses = ours(race, Workload::MultiGet4x, 1).map(|rate| rate * MISSES);
    let mut of_device = ratio(
        "`multi_get` of 4 × the memory: three quarters of its reads at least 0.85 of the device's random 4 KiB at \
         depth 32"
            .to_owned(),
        DEVICE_SHARE,
        misses,
        device,
    );
    let is_from_memory = misses.zip(device).is_some_and(|(misses, device)| misses > device * 1.2);
    if let Some(found) = of_device.found.as_mut().filter(|_| is_from_memory) {
        // More than the device can have served: they came out of the kernel's memory.
        found.verdict = Verdict::TooLittle;
    }
    targets.push(of_device);
    targets.push(Target {
        asked: "Cold open of a store that was closed: under 50 ms".to_owned(),
        found: ours(race, Workload::ColdOpen, 1).map(|rate| {
            let seconds = 1.0 / rate;
            Found { text: format!("{:.1} ms", seconds * 1e3), verdict: Verdict::of(seconds < OPEN_S_MAX) }
        }),
    });
}

fn updates(race: &Race, targets: &mut Vec<Target>) {
    let threads = 64;
    let table = |workload| race.table(workload, threads);
    let best = |workload| Some(table(workload)?.best_peer(Contender::Seawall, true)?.rate);
    targets.push(ratio(
        "Durable updates of 5 × the memory, 64 threads: at least 1.5 × the best peer".to_owned(),
        1.5,
        ours(race, Workload::Updates5x, threads),
        best(Workload::Updates5x),
    ));
    targets.push(Target {
        asked: "The same: p99.9 within 5 × p50, through at least 5 checkpoints a run".to_owned(),
        found: race.row(Workload::Updates5x, threads, Contender::Seawall).and_then(tail),
    });
    targets.push(ratio(
        "Durable updates of 10 × the memory, 64 threads: ahead of rocksdb".to_owned(),
        1.0,
        ours(race, Workload::Updates10x, threads),
        rate(race, Workload::Updates10x, threads, "rocksdb"),
    ));
    for (workload, peer, times) in [
        (Workload::Updates5x, "redb", 5),
        (Workload::Updates5x, "lmdb", 5),
        (Workload::Updates10x, "rocksdb", 10),
    ] {
        let bytes = |row: &Row| row.device_bytes_per_byte;
        let ours = race.row(workload, threads, Contender::Seawall).and_then(bytes);
        let theirs = row(race, workload, threads, peer).and_then(bytes);
        targets.push(Target {
            asked: format!("Device bytes for each byte updated, {times} × the memory: below {peer}'s"),
            found: ours.zip(theirs).map(|(ours, theirs)| Found {
                text: format!("{ours:.1} of {theirs:.1}"),
                verdict: Verdict::of(ours < theirs),
            }),
        });
    }
}

/// Of all repetitions together there are so many checkpoints; each is to have had its share.
fn tail(row: &Row) -> Option<Found> {
    let (checkpoints, runs) = (row.seen.checkpoints?, row.repetitions as u64);
    let ratio = row.latency.p999_us / row.latency.p50_us;
    let verdict = if checkpoints < CHECKPOINTS_MIN * runs {
        Verdict::TooLittle
    } else {
        Verdict::of(ratio <= TAIL_MAX)
    };
    Some(Found { text: format!("{ratio:.1} × ({checkpoints} checkpoints in {runs} runs)"), verdict })
}

fn space(race: &Race, targets: &mut Vec<Target>) {
    for (what, workload, threads, most) in [
        ("after the load", Workload::Load, 1, DISK_LOADED_MAX),
        ("under random updates", Workload::Updates5x, 64, DISK_UPDATED_MAX),
    ] {
        let row = race.row(workload, threads, Contender::Seawall);
        targets.push(Target {
            asked: format!(
                "Bytes on disk for each byte of rows, {what}, the log's files included: at most {most}"
            ),
            found: row
                .and_then(|row| row.seen.disk_bytes_per_byte)
                .map(|disk| Found { text: format!("{disk:.2}"), verdict: Verdict::of(disk <= most) }),
        });
    }
    targets.push(Target {
        asked:
            "Memory by the operating system's count, in every one of these: at most the budget and a tenth"
                .to_owned(),
        found: worst_memory(&race.tables),
    });
}

fn worst_memory(tables: &[Table]) -> Option<Found> {
    let of = |table: &Table| {
        let seen = table.row(Contender::Seawall)?.seen;
        let share = seen.memory_bytes? as f64 / seen.budget_bytes? as f64;
        Some((share, format!("{}, {} threads", table.workload.name(), table.threads)))
    };
    let (share, at) = tables.iter().filter_map(of).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(Found {
        text: format!("{share:.2} × at worst ({at})"),
        verdict: Verdict::of(share <= MEMORY_OVER_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::super::targets as all_targets;
    use super::*;
    use crate::drive::Measured;
    use crate::histogram::Latency;
    use crate::meter::Cost;
    use crate::parent::{Case, Record};
    use crate::seen::Seen;

    fn measured(rate: u64, seen: Seen) -> Measured {
        Measured {
            seconds: 1.0,
            commits: rate,
            ops: rate,
            user_bytes: rate * 116,
            latency: Latency { p50_us: 100.0, p999_us: 400.0, ..Latency::default() },
            cost: Cost { device_bytes: Some(rate * 116 * 3), flushes: Some(rate), ..Cost::default() },
            seen,
        }
    }

    fn record(workload: Workload, threads: u16, contender: Contender, measured: Measured) -> Record {
        let entrant = Entrant::usual(contender);
        Record { workload, threads, entrant, repetition: 1, measured: Some(measured), error: None }
    }

    /// Those of the targets whose text holds `words`.
    fn verdicts(records: &[Record], words: &str) -> Vec<Option<Verdict>> {
        let field = records.iter().map(|record| record.entrant).collect();
        let case = Case { workload: records[0].workload, threads: records[0].threads, field };
        let targets = all_targets(&Race::new(&[case], records, true));
        let targets = targets.into_iter().filter(|target| target.asked.contains(words));
        targets.map(|target| target.found.map(|found| found.verdict)).collect()
    }

    #[test]
    fn reads_are_compared_with_the_peer_that_was_named() {
        for (rate, verdict) in [(1001, Verdict::Met), (999, Verdict::Missed)] {
            let records = [
                record(Workload::Get, 1, Contender::Seawall, measured(rate, Seen::default())),
                record(Workload::Get, 1, Contender::Lmdb, measured(1000, Seen::default())),
                record(Workload::Get, 1, Contender::Canopydb, measured(9000, Seen::default())),
            ];
            assert_eq!(verdicts(&records, "Point reads, in memory, 1 thread"), [Some(verdict)]);
            assert_eq!(verdicts(&records, "Point reads, in memory, 2 threads"), [None]);
        }
    }

    #[test]
    fn updates_count_with_their_checkpoints() {
        let of = |checkpoints, peer_rate| {
            let seen = Seen { checkpoints: Some(checkpoints), ..Seen::default() };
            [
                record(Workload::Updates5x, 64, Contender::Seawall, measured(1500, seen)),
                record(Workload::Updates5x, 64, Contender::Redb, measured(peer_rate, Seen::default())),
            ]
        };
        assert_eq!(verdicts(&of(5, 1000), "p99.9 within 5"), [Some(Verdict::Met)]);
        assert_eq!(verdicts(&of(4, 1000), "p99.9 within 5"), [Some(Verdict::TooLittle)]);
        assert_eq!(verdicts(&of(5, 1000), "1.5 × the best peer")[6..], [Some(Verdict::Met)]);
        assert_eq!(verdicts(&of(5, 1001), "1.5 × the best peer")[6..], [Some(Verdict::Missed)]);
        // Both send three bytes for each.
        assert_eq!(verdicts(&of(5, 1001), "below redb's"), [Some(Verdict::Missed)]);
    }

    #[test]
    fn the_worst_memory_is_what_counts() {
        let of = |memory_bytes, disk| {
            let (memory_bytes, budget_bytes) = (Some(memory_bytes), Some(100));
            let seen =
                Seen { memory_bytes, budget_bytes, disk_bytes_per_byte: Some(disk), ..Seen::default() };
            [record(Workload::Load, 1, Contender::Seawall, measured(1, seen))]
        };
        for (memory, verdict) in [(110, Verdict::Met), (111, Verdict::Missed)] {
            assert_eq!(verdicts(&of(memory, 1.0), "operating system"), [Some(verdict)]);
        }
        for (disk, verdict) in [(1.15, Verdict::Met), (1.16, Verdict::Missed)] {
            assert_eq!(verdicts(&of(1, disk), "after the load"), [Some(verdict)]);
        }
    }
}
