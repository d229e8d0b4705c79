//! The engine: durable puts and batches by threads, warm reads and scans, checkpoints.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench fails by panicking, and looks at the real clock"
)]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use seawall_benches::{fresh_dir, print_device, remove, shared_by};
use seawall_engine::{Db, Keyspace, Readable, WriteBatch};
use seawall_wal::runtime::Rng;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const VALUE: [u8; 100] = [0x5a; 100];
const ROWS: u64 = 100_000;

fn open(dir: &Path) -> (Db, Keyspace) {
    let db = Db::builder(dir).segment_bytes(16 << 20).memory_budget(128 << 20).open().expect("a store");
    let rows = db.keyspace("rows").expect("a keyspace");
    (db, rows)
}

/// Keys in no order, as hashes are.
fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// A store of [`ROWS`] rows in key order, folded.
fn filled(name: &str) -> (std::path::PathBuf, Db, Keyspace) {
    let dir = fresh_dir(BASE, name);
    let (db, rows) = open(&dir);
    for start in (0..ROWS).step_by(1000) {
        write_run(&db, &rows, start, 1000);
    }
    db.checkpoint().expect("folded");
    (dir, db, rows)
}

fn write_run(db: &Db, rows: &Keyspace, start: u64, count: u64) {
    let mut batch = WriteBatch::new();
    for n in start..start + count {
        batch.insert(rows, n.to_be_bytes(), VALUE);
    }
    db.write(batch).expect("written");
}

fn put(c: &mut Criterion) {
    print_device(BASE);
    let mut group = c.benchmark_group("engine/put, synced");
    group.throughput(Throughput::Elements(1));
    for threads in [1, 16, 64] {
        let dir = fresh_dir(BASE, "put");
        let (db, rows) = open(&dir);
        let next = AtomicU64::new(0);
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter_custom(|iters| {
                let put = |_| {
                    rows.insert(key(next.fetch_add(1, Ordering::Relaxed)), VALUE).expect("committed");
                };
                shared_by(threads, iters, put)
            });
        });
        drop((db, rows));
        remove(&dir);
    }
    group.throughput(Throughput::Elements(100));
    let dir = fresh_dir(BASE, "batch");
    let (db, rows) = open(&dir);
    let next = AtomicU64::new(0);
    group.bench_function("batch of 100", |bencher| {
        bencher.iter(|| {
            let mut batch = WriteBatch::new();
            for _ in 0..100 {
                batch.insert(&rows, key(next.fetch_add(1, Ordering::Relaxed)), VALUE);
            }
            db.write(batch).expect("written")
        });
    });
    group.finish();
    drop((db, rows));
    remove(&dir);
}

fn read(c: &mut Criterion) {
    let (dir, db, rows) = filled("read");
    let mut group = c.benchmark_group("engine/read");
    let mut rng = Rng::new(1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("get, warm", |bencher| {
        let snapshot = db.snapshot();
        bencher.iter(|| {
            let found = snapshot.get(&rows, rng.below(ROWS).to_be_bytes()).expect("read");
            assert!(black_box(found).is_some());
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("scan of 100 rows, warm", |bencher| {
        let snapshot = db.snapshot();
        bencher.iter(|| {
            let start = rng.below(ROWS - 100).to_be_bytes();
            assert_eq!(black_box(snapshot.range(&rows, start..).take(100).count()), 100);
        });
    });
    group.finish();
    drop((db, rows));
    remove(&dir);
}

fn checkpoint(c: &mut Criterion) {
    let (dir, db, rows) = filled("checkpoint");
    let mut group = c.benchmark_group("engine/checkpoint");
    let mut rng = Rng::new(2);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(ROWS / 100));
    group.bench_function("1 % of 100,000 rows, clustered", |bencher| {
        bencher.iter_custom(|iters| {
            let mut took = Duration::ZERO;
            for _ in 0..iters {
                write_run(&db, &rows, rng.below(ROWS - ROWS / 100), ROWS / 100);
                let start = Instant::now();
                db.checkpoint().expect("folded");
                took += start.elapsed();
            }
            took
        });
    });
    group.finish();
    drop((db, rows));
    remove(&dir);
}

fn short() -> Criterion {
    let quick = Criterion::default().sample_size(10);
    quick.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2))
}

criterion_group! { name = engine; config = short(); targets = put, read, checkpoint }
criterion_main!(engine);
