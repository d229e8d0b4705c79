//! What follows from the figures: how a store here would write, how many committers reach what, and what makes one
//! doubt that the device keeps what it is given. Figures in, words out.

use super::device::{Method, Row, Way};
use super::log::Log;
use crate::command::measure::device::{SUSPICIOUS_WRITES_PER_S, is_memory};
use crate::command::measure::units::{show_bytes, show_count, show_ratio, show_us};
use serde::Serialize;

/// A flush costs nothing if a durable write is so much as quick as one that is not.
const FREE_FLUSH_SHARE: f64 = 0.9;
/// File systems of which it is not known what they do with a sync.
const OPAQUE: [&str; 2] = ["unknown", "fuse"];

/// What is known without measuring.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) file_system: String,
    pub(super) is_network: bool,
    pub(super) is_without_barriers: bool,
    /// The device's, as the kernel knows it.
    pub(super) write_cache: Option<String>,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Plan {
    /// The quickest durable method for single writes of the smallest size measured.
    pub(super) quickest_method: Option<&'static str>,
    pub(super) quickest_writes_per_s: Option<f64>,
    /// How much longer a durable write takes than one that is not.
    pub(super) flush_us: Option<f64>,
    pub(super) most_commits_per_s: Option<f64>,
    pub(super) most_committers: Option<u32>,
    /// The fewest that reach half, and nine tenths, of the most.
    pub(super) half_committers: Option<u32>,
    pub(super) nine_tenths_committers: Option<u32>,
    /// The same in words.
    pub(super) advice: Vec<String>,
}

impl Plan {
    pub(super) fn make(writes: &[Row], log: &Log) -> Plan {
        let singles = || singles(writes).filter(|row| row.durable);
        let quickest = singles().max_by(|a, b| rate(a).total_cmp(&rate(b)));
        let most = log.rows.iter().max_by(|a, b| a.commits_per_s.total_cmp(&b.commits_per_s));
        let reaches = |share: f64| {
            let enough = most.map_or(f64::INFINITY, |most| most.commits_per_s * share);
            let enough = log.rows.iter().filter(|row| row.commits_per_s >= enough);
            enough.map(|row| row.committers).min()
        };
        let mut plan = Plan {
            quickest_method: quickest.map(|row| row.method),
            quickest_writes_per_s: quickest.map(rate),
            flush_us: flush_us(writes),
            most_commits_per_s: most.map(|row| row.commits_per_s),
            most_committers: most.map(|row| row.committers),
            half_committers: reaches(0.5),
            nine_tenths_committers: reaches(0.9),
            advice: Vec::new(),
        };
        plan.advice.push(format!("a store here uses the {} backend: {}", log.io_backend, log.io_reason));
        plan.advise_on_device(quickest, writes);
        plan.advise_on_committers(log);
        plan
    }

    fn advise_on_device(&mut self, quickest: Option<&Row>, writes: &[Row]) {
        if let Some(row) = quickest {
            self.advice.push(format!(
                "the quickest durable write of {} is {}: {} a second, one at a time",
                show_bytes(row.bytes),
                row.method,
                show_count(rate(row))
            ));
        }
        if let Some(us) = self.flush_us.filter(|us| *us > 0.0) {
            self.advice.push(format!("making a write durable takes {} more than writing", show_us(us)));
        }
        // Of the same size: what larger blocks do, or smaller ones, is another question.
        let deepest = quickest.and_then(|quickest| {
            let of_its_size = writes.iter().filter(|row| row.durable && row.bytes == quickest.bytes);
            of_its_size.max_by(|a, b| rate(a).total_cmp(&rate(b)))
        });
        if let (Some(deepest), Some(quickest)) = (deepest, quickest)
            && deepest.in_flight > quickest.in_flight
            && rate(deepest) > rate(quickest)
        {
            self.advice.push(format!(
                "with {} in flight ({}) the device does {} of them a second, {} times as many",
                deepest.in_flight,
                deepest.method,
                show_count(rate(deepest)),
                show_ratio(rate(deepest) / rate(quickest))
            ));
        }
    }

    fn advise_on_committers(&mut self, log: &Log) {
        if let Some(first) = log.rows.iter().min_by_key(|row| row.committers) {
            self.advice.push(format!(
                "{} commits {} records a second: {} times the device's single writes",
                committers(first.committers),
                show_count(first.commits_per_s),
                show_ratio(first.ratio_to_device)
            ));
        }
        let (Some(most), Some(at)) = (self.most_commits_per_s, self.most_committers) else { return };
        let (Some(half), Some(tenths)) = (self.half_committers, self.nine_tenths_committers) else { return };
        if log.rows.len() > 1 {
            self.advice.push(format!(
                "the most was {} commits a second, with {}; half of it takes {}, nine tenths {}",
                show_count(most),
                committers(at),
                committers(half),
                committers(tenths)
            ));
        }
    }
}

fn committers(count: u32) -> String {
    if count == 1 { "one committer".to_owned() } else { format!("{count} committers") }
}

/// Single writes by threads, of the smallest size.
fn singles(writes: &[Row]) -> impl Iterator<Item = &Row> {
    let by_thread = || writes.iter().filter(|row| row.way == Way::Threads && row.figures.is_some());
    let depth = by_thread().map(|row| row.in_flight).min();
    let bytes = by_thread().map(|row| row.bytes).min();
    by_thread().filter(move |row| Some(row.in_flight) == depth && Some(row.bytes) == bytes)
}

fn rate(row: &Row) -> f64 {
    row.figures.map_or(0.0, |figures| figures.writes_per_s)
}

fn flush_us(writes: &[Row]) -> Option<f64> {
    let mean = |method: Method| {
        let row = singles(writes).find(|row| row.method == method.name())?;
        row.figures.map(|figures| figures.latency.mean_us)
    };
    Some(mean(Method::DirectDsync)? - mean(Method::Direct)?)
}

/// All that makes one doubt.
pub(super) fn warnings(around: &Surroundings, writes: &[Row]) -> Vec<String> {
    let mut warnings = Vec::new();
    let file_system = around.file_system.as_str();
    if is_memory(file_system) {
        let what = "is memory: nothing here survives the power, and the figures say nothing about a disk";
        warnings.push(format!("{file_system} {what}"));
        return warnings;
    }
    if around.is_network {
        warnings.push(format!(
            "{file_system} is a network file system: locks and syncs are another machine's word, and stores are refused \
             there unless that is allowed"
        ));
    }
    if OPAQUE.contains(&file_system) {
        warnings
            .push(format!("file system {file_system}: what it does with a sync cannot be known from here"));
    }
    if around.is_without_barriers {
        warnings.push("it is mounted so that it does not flush the device: a sync here is none".to_owned());
    }
    let quickest = singles(writes).filter(|row| row.durable).map(rate).fold(0.0, f64::max);
    if quickest > SUSPICIOUS_WRITES_PER_S {
        warnings.push(format!(
            "{} durable writes/s, one at a time, is more than devices do: memory, or a cache that is not flushed",
            show_count(quickest)
        ));
    }
    warnings.extend(free_flush(around, writes));
    warnings
}

/// A flush that costs nothing is either not needed, or not made.
fn free_flush(around: &Surroundings, writes: &[Row]) -> Option<String> {
    let of = |method: Method| singles(writes).find(|row| row.method == method.name()).map(rate);
    let (durable, plain) = (of(Method::DirectDsync)?, of(Method::Direct)?);
    if durable < plain * FREE_FLUSH_SHARE || around.write_cache.as_deref() == Some("write through") {
        return None;
    }
    let cache = match around.write_cache.as_deref() {
        Some(cache) => format!("although the kernel knows of a cache there ({cache})"),
        None => "and the kernel does not tell whether there is a cache".to_owned(),
    };
    Some(format!(
        "a durable write is as quick as one that is not ({} and {} a second), {cache}: unless that cache is safe from a \
         loss of power, something on the way acknowledges flushes and does not make them",
        show_count(durable),
        show_count(plain)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::device::Figures;
    use super::super::log;
    use super::*;
    use crate::command::measure::latency::Quantiles;

    fn write(method: Method, bytes: u64, in_flight: u32, writes_per_s: f64) -> Row {
        let latency =
            Quantiles { mean_us: f64::from(in_flight) * 1e6 / writes_per_s, ..Quantiles::default() };
        Row {
            method: method.name(),
            durable: method.is_durable(),
            way: Way::Threads,
            bytes,
            in_flight,
            refused: None,
            figures: Some(Figures { writes_per_s, mib_per_s: 0.0, latency }),
        }
    }

    fn device(durable: f64, plain: f64) -> Vec<Row> {
        vec![
            write(Method::WriteThenSync, 4096, 1, durable / 2.0),
            write(Method::DirectDsync, 4096, 1, durable),
            write(Method::DirectDsync, 4096, 16, durable * 5.0),
            write(Method::DirectDsync, 65536, 1, durable / 4.0),
            // A queue may take large blocks more readily than a few threads take small ones.
            write(Method::DirectDsync, 65536, 32, durable * 6.0),
            write(Method::Direct, 4096, 1, plain),
        ]
    }

    fn disk(write_cache: &str) -> Surroundings {
        let write_cache = Some(write_cache.to_owned());
        Surroundings { file_system: "ext4".to_owned(), write_cache, ..Surroundings::default() }
    }

    fn committing(rates: &[(u32, f64)]) -> Log {
        let row = |&(committers, commits_per_s): &(u32, f64)| log::Row {
            committers,
            commits_per_s,
            latency: Quantiles::default(),
            commits_per_sync: 1.0,
            device_writes_per_s: 10_000.0,
            ratio_to_device: commits_per_s / 10_000.0,
        };
        Log {
            record_bytes: 128,
            io_backend: "blocking".to_owned(),
            io_reason: "direct I/O works here".to_owned(),
            device_method: None,
            rows: rates.iter().map(row).collect(),
        }
    }

    #[test]
    fn an_honest_disk_is_not_doubted() {
        assert_eq!(warnings(&disk("write back"), &device(12_000.0, 26_000.0)), [""; 0]);
        // Nothing to flush: a safe cache, or none.
        assert_eq!(warnings(&disk("write through"), &device(90_000.0, 91_000.0)), [""; 0]);
    }

    #[test]
    fn what_cannot_be_a_device_is_doubted() {
        let honest = device(12_000.0, 26_000.0);
        let of =
            |file_system: &str| Surroundings { file_system: file_system.to_owned(), ..disk("write back") };
        let one = |around: &Surroundings, writes: &[Row], word: &str| {
            let found = warnings(around, writes);
            assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
        };
        one(&of("tmpfs"), &device(900_000.0, 900_000.0), "memory");
        one(&of("fuse"), &honest, "fuse");
        one(&Surroundings { is_network: true, ..of("nfs") }, &honest, "network");
        one(&Surroundings { is_without_barriers: true, ..disk("write back") }, &honest, "does not flush");
        one(&disk("write back"), &device(24_000.0, 26_000.0), "does not make them");
        one(&Surroundings { write_cache: None, ..disk("") }, &device(24_000.0, 26_000.0), "does not tell");
        one(&disk("write through"), &device(300_000.0, 310_000.0), "more than devices do");
        assert_eq!(warnings(&disk("write back"), &device(300_000.0, 310_000.0)).len(), 2);
    }

    #[test]
    fn what_was_refused_is_not_judged() {
        let mut writes = device(12_000.0, 12_000.0);
        writes.retain(|row| row.durable);
        let refused =
            Row { figures: None, refused: Some("no".to_owned()), ..write(Method::Direct, 4096, 1, 1.0) };
        writes.push(refused);
        assert_eq!(warnings(&disk("write back"), &writes), [""; 0]);
        assert_eq!(Plan::make(&writes, &committing(&[])).flush_us, None);
        let nothing = Plan::make(&[], &committing(&[]));
        assert_eq!(
            (nothing.quickest_method, nothing.most_committers, nothing.half_committers),
            (None, None, None)
        );
    }

    #[test]
    fn the_plan_says_how_many_reach_what() {
        let log = committing(&[(1, 9_500.0), (8, 60_000.0), (64, 110_000.0), (128, 120_000.0)]);
        let plan = Plan::make(&device(10_000.0, 20_000.0), &log);
        assert_eq!(plan.quickest_method, Some("O_DIRECT | O_DSYNC"));
        assert_eq!(plan.most_committers, Some(128));
        assert_eq!((plan.half_committers, plan.nine_tenths_committers), (Some(8), Some(64)));
        assert!(plan.flush_us.is_some_and(|us| (us - 50.0).abs() < 1e-6), "{:?}", plan.flush_us);
        let advice = plan.advice.join("\n");
        for words in [
            "the blocking backend: direct I/O works",
            "10,000 a second",
            "with 16 in flight (O_DIRECT | O_DSYNC) the device does 50,000 of them a second, 5.00 times",
            "one committer commits",
        ] {
            assert!(advice.contains(words), "{words}: {advice}");
        }
        assert!(
            advice.contains("120,000 commits a second, with 128 committers; half of it takes 8 committers")
        );
    }
}
