//! Transactions over several stores, beside puts into one: what a commit costs that two or four stores share.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench fails by panicking, and looks at the real clock"
)]

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use seawall_benches::{fresh_dir, print_device, remove, shared_by};
use seawall_engine::{Db, Keyspace};
use seawall_txn::{Coordinator, NodeId, Store};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const VALUE: [u8; 100] = [0x5a; 100];
/// So many transactions are under way at once.
const THREADS: u64 = 64;

fn open(dir: &Path) -> (Db, Keyspace) {
    let db = Db::builder(dir).segment_bytes(16 << 20).memory_budget(128 << 20).open().expect("a store");
    let rows = db.keyspace("rows").expect("a keyspace");
    (db, rows)
}

/// The target: 0.6/N of what one store does.
fn commits(c: &mut Criterion) {
    print_device(BASE);
    let mut group = c.benchmark_group("txn/put, 64 at once");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat).sample_size(20);
    let next = AtomicU64::new(0);
    let dir = fresh_dir(BASE, "txn-one");
    let (db, rows) = open(&dir);
    group.bench_function("one store, engine", |bencher| {
        bencher.iter_custom(|iters| {
            shared_by(THREADS, iters, |_| {
                let mut tx = db.begin();
                tx.insert(&rows, next.fetch_add(1, Ordering::Relaxed).to_be_bytes(), VALUE).expect("in");
                tx.commit().expect("committed");
            })
        });
    });
    drop((db, rows));
    remove(&dir);
    for stores in [1, 2, 4] {
        let dirs: Vec<_> = (0..stores).map(|n| fresh_dir(BASE, &format!("txn-{n}"))).collect();
        let open: Vec<(Db, Keyspace)> = dirs.iter().map(|dir| open(dir)).collect();
        let nodes: Vec<Arc<Store>> =
            open.iter().zip(1..).map(|((db, _), id)| Store::new(NodeId(id), db).expect("a node")).collect();
        let coordinator = Coordinator::open(&nodes[0]).expect("a coordinator");
        nodes.iter().skip(1).for_each(|node| coordinator.attach(node).expect("attached"));
        group.bench_function(BenchmarkId::new("two-phase commit", stores), |bencher| {
            bencher.iter_custom(|iters| {
                shared_by(THREADS, iters, |_| {
                    let key = next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                    let mut global = coordinator.begin();
                    for (node, (_, rows)) in nodes.iter().zip(&open) {
                        global.branch(node).expect("a branch").insert(rows, key, VALUE).expect("in");
                    }
                    global.commit().expect("committed");
                })
            });
        });
        drop((coordinator, nodes, open));
        dirs.iter().for_each(|dir| remove(dir));
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
