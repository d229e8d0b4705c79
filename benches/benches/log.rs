//! The log alone: durable commits by threads, appends, batches, frames, recovery.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench fails by panicking, and looks at the real clock"
)]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use seawall_benches::{fresh_dir, print_device, remove, shared_by};
use seawall_wal::frame::{self, Flags};
use seawall_wal::{Lsn, Wal};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const RECORD: [u8; 128] = [0x5a; 128];
/// Appended between two syncs: what a log holds that is not on the device is bounded by somebody.
const SYNC_EVERY_BYTES: u64 = 16 << 20;

fn open(dir: &Path) -> Wal {
    Wal::options().segment_bytes(32 << 20).open(dir).expect("a log")
}

fn reclaim(wal: &Wal) {
    wal.truncate_before(wal.durable_lsn()).expect("reclaimed");
}

fn commit(c: &mut Criterion) {
    print_device(BASE);
    let mut group = c.benchmark_group("log/commit");
    group.throughput(Throughput::Elements(1));
    for threads in [1, 4, 16, 64] {
        let dir = fresh_dir(BASE, "commit");
        let wal = open(&dir);
        group.bench_function(BenchmarkId::from_parameter(threads), |bencher| {
            bencher.iter_custom(|iters| {
                reclaim(&wal);
                shared_by(threads, iters, |_| {
                    wal.commit(RECORD).expect("committed");
                })
            });
        });
        drop(wal);
        remove(&dir);
    }
    group.finish();
}

fn append(c: &mut Criterion) {
    let dir = fresh_dir(BASE, "append");
    let wal = open(&dir);
    let mut group = c.benchmark_group("log/append");
    group.throughput(Throughput::Bytes(RECORD.len() as u64));
    group.bench_function("128 bytes, synced every 16 MiB", |bencher| {
        bencher.iter_custom(|iters| {
            let (mut took, mut left) = (Duration::ZERO, iters);
            while left > 0 {
                let now = left.min(SYNC_EVERY_BYTES / RECORD.len() as u64);
                let start = Instant::now();
                for _ in 0..now {
                    wal.append(RECORD).expect("appended");
                }
                wal.sync().expect("synced");
                took += start.elapsed();
                left -= now;
                reclaim(&wal);
            }
            took
        });
    });
    let records = [RECORD; 100];
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("batch of 100, synced each", |bencher| {
        bencher.iter_custom(|iters| {
            reclaim(&wal);
            let start = Instant::now();
            for _ in 0..iters {
                wal.append_batch(&records).expect("appended");
                wal.sync().expect("synced");
            }
            start.elapsed()
        });
    });
    group.finish();
    drop(wal);
    remove(&dir);
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/frame");
    for payload in [4096 - frame::HEADER_BYTES, 65_536 - frame::HEADER_BYTES] {
        let mut bytes = vec![0x5a; frame::padded(payload)];
        let header = frame::Header {
            checksum: 0,
            salt: 1,
            lsn: Lsn(4096),
            durable: Lsn(4096),
            length: payload as u32,
            records: 1,
            previous: 0,
            flags: Flags::NONE,
        };
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("finish", bytes.len()), |bencher| {
            bencher.iter(|| black_box(frame::finish(black_box(&mut bytes), &header)));
        });
        frame::finish(&mut bytes, &header);
        group.bench_function(BenchmarkId::new("decode and verify", bytes.len()), |bencher| {
            bencher.iter(|| {
                let read = frame::Header::decode(black_box(&bytes), 1, Lsn(4096)).expect("a frame");
                assert!(read.verify(&bytes));
            });
        });
    }
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let dir = fresh_dir(BASE, "recovery");
    let wal = open(&dir);
    let first = wal.next_lsn();
    while wal.next_lsn().0 - first.0 < 32 << 20 {
        for _ in 0..1000 {
            wal.append(RECORD).expect("appended");
        }
        wal.sync().expect("synced");
    }
    drop(wal);
    let mut group = c.benchmark_group("log/recovery");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(32 << 20));
    group.bench_function("open 32 MiB", |bencher| {
        bencher.iter_custom(|iters| {
            let mut took = Duration::ZERO;
            for _ in 0..iters {
                let start = Instant::now();
                let wal = open(&dir);
                took += start.elapsed();
                assert!(wal.recovery().records > 100_000);
            }
            took
        });
    });
    group.finish();
    remove(&dir);
}

fn short() -> Criterion {
    let quick = Criterion::default().sample_size(10);
    quick.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2))
}

criterion_group! { name = log; config = short(); targets = commit, append, frames, recovery }
criterion_main!(log);
