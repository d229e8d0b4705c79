//! What counting a commit's time costs, against a commit: `histogram DIR [ROUNDS]`. In turns, on one thread: two looks at
//! the clock and a record in a histogram, as a commit makes them, and commits of one row of 100 bytes, durable and in memory.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use seawall_engine::{Db, Durability, WriteBatch};
use seawall_wal::{Histogram, OsRuntime, Runtime};
use std::hint::black_box;
use std::time::{Duration, Instant};

const RECORDS: u32 = 1_000_000;
const WINDOW: Duration = Duration::from_millis(500);

/// Nanoseconds that counting one time takes.
fn of_record(runtime: &dyn Runtime, times: &Histogram) -> f64 {
    let begun = Instant::now();
    for _ in 0..RECORDS {
        let start = runtime.now();
        times.record_duration(black_box(runtime.now()).saturating_sub(black_box(start)));
    }
    begun.elapsed().as_nanos() as f64 / f64::from(RECORDS)
}

fn median(mut found: Vec<f64>) -> f64 {
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let rounds: usize = args.get(2).map_or(9, |text| text.parse().unwrap());
    let db = Db::builder(args.get(1).unwrap()).memory_budget(1 << 30).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    let mut next = 0u64;
    // Nanoseconds that one commit takes, counting it included.
    let mut of_commit = |durability| {
        let (begun, first) = (Instant::now(), next);
        while begun.elapsed() < WINDOW {
            for _ in 0..16 {
                let mut batch = WriteBatch::new();
                batch.insert(
                    &rows,
                    next.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
                    [next as u8; 100],
                );
                db.write_with(batch, durability).unwrap();
                next += 1;
            }
        }
        begun.elapsed().as_nanos() as f64 / (next - first) as f64
    };
    let (runtime, times) = (OsRuntime::new(), Histogram::default());
    let mut found: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        found[0].push(of_record(&*runtime, &times));
        found[1].push(of_commit(Durability::Synced));
        found[2].push(of_commit(Durability::Memory));
    }
    let [record, synced, memory] = found.map(median);
    println!(
        "one record: {record:.0} ns; a durable commit: {:.1} µs, {:.3} % of it; one in memory: {:.2} µs, {:.2} %",
        synced / 1e3,
        record * 100.0 / synced,
        memory / 1e3,
        record * 100.0 / memory
    );
}
