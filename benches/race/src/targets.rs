//! What is asked of seawall, and whether this run shows it.

use crate::contenders::Contender;
use crate::summary::Race;
use crate::workload::Workload;

/// One thing asked, and what came out.
pub(crate) struct Target {
    pub(crate) asked: String,
    /// `1.07 × (12.9 k/s of 12.1 k/s)`; None if this run did not measure it.
    pub(crate) found: Option<Found>,
}

pub(crate) struct Found {
    pub(crate) text: String,
    pub(crate) met: bool,
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
            Some(Found { text: format!("{:.2} GB/s{share}", rate / 1e9), met })
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
        Found { text: format!("{ratio:.2} ×"), met: ratio >= least }
    });
    Target { asked, found }
}
