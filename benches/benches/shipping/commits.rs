//! Commits of a primary: without replicas, with one that nobody waits for, and with two of which one is waited for.

use super::node::Node;
use super::primary::{Primary, REPLICAS, put};
use super::{BASE, Figures, SEGMENT_BYTES};
use seawall_benches::{cpu_seconds, fresh_dir, load_at, remove};
use seawall_engine::Ack;
use seawall_wal::{History, ReplicaStart, Wal, create_replica};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Threads of the primary that are there for its replicas alone.
const SHIPPING_THREADS: [&str; 4] = ["seawall-net", "seawall-read", "seawall-lead", "seawall-ship"];

/// Who follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followers {
    Nobody,
    /// One without a disk.
    Sink,
    /// So many, each with its store.
    Replicas(usize),
}

struct Look {
    primary: f64,
    shipping: f64,
    replicas: f64,
    idle: f64,
    bytes: u64,
    at: Instant,
}

/// Commits for so long, in fresh stores, so many times a second at most; figures' names begin with this one. How many there were a
/// second.
pub(crate) fn measure(
    name: &str,
    (followers, ack): (Followers, Ack),
    committers: usize,
    rate_max: Option<f64>,
    seconds: f64,
    found: &mut Figures,
) -> f64 {
    let primary = Primary::new(Some("ANY 1 (one, two)"));
    let mut nodes = Vec::new();
    let (kind, count) = match followers {
        Followers::Nobody => ("", 0),
        Followers::Sink => ("sink", 1),
        Followers::Replicas(count) => ("replica", count),
    };
    for replica in REPLICAS.into_iter().take(count) {
        let dir = primary.replica(replica);
        let (path, address) = (dir.to_string_lossy(), primary.server.address().to_string());
        let mut args = vec![kind, &path, replica, &address];
        if kind == "replica" {
            args.extend(["0", "slot"]);
        }
        let mut node = Node::start(&args);
        assert_eq!(node.line(), "ready");
        node.tell("follow");
        primary.wait(replica, |_| true);
        nodes.push(node);
    }
    let look = || Look {
        primary: cpu_seconds("self"),
        shipping: shipping_seconds(),
        replicas: nodes.iter().map(|node| cpu_seconds(&node.process())).sum(),
        idle: idle_seconds(),
        bytes: primary.durable().0,
        at: Instant::now(),
    };
    let commit = |_, number| put(&primary.db, &primary.rows, ack, number);
    let (load, before, after) = load_at(committers, seconds, rate_max, look, commit);
    let bytes = (after.bytes - before.bytes) as f64;
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let elapsed = (after.at - before.at).as_secs_f64();
    found.add(&format!("{name}, commits/s"), load.rate);
    found.add(&format!("{name}, p50 µs"), load.quantile(0.5));
    found.add(&format!("{name}, p99 µs"), load.quantile(0.99));
    found.add(&format!("{name}, idle %"), (after.idle - before.idle) / (elapsed * processors) * 100.0);
    found.add(&format!("{name}, log MiB/s"), bytes / f64::from(1 << 20) / elapsed);
    found.add(
        &format!("{name}, processor µs/commit"),
        (after.primary - before.primary) * 1e6 / load.count().max(1) as f64,
    );
    if followers != Followers::Nobody {
        let replicas = nodes.len() as f64;
        let per_byte = |seconds: f64| seconds * 1e9 / (bytes * replicas).max(1.0);
        found.add(&format!("{name}, shipping's processor ns/B"), per_byte(after.shipping - before.shipping));
        found.add(&format!("{name}, replica's processor ns/B"), per_byte(after.replicas - before.replicas));
    }
    drop(nodes);
    primary.close();
    load.rate
}

/// Processor time of the threads that ship.
fn shipping_seconds() -> f64 {
    let mut ns = 0.0;
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if SHIPPING_THREADS.contains(&read("comm").trim()) {
            let schedstat = read("schedstat");
            ns += schedstat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    ns / 1e9
}

/// Processor time that nobody had a use for, of all processors.
fn idle_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default();
    let fields: Vec<f64> = all.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // Idle, and waiting for the device.
    (fields.get(3).unwrap_or(&0.0) + fields.get(4).unwrap_or(&0.0)) / 100.0
}

/// What a replica's log takes to have one commit's piece on the device, in microseconds, with so many of them at once on
/// this disk.
pub(crate) fn replica_sync(replicas: usize, found: &mut Figures) {
    const ROUNDS: usize = 400;
    let dir = fresh_dir(BASE, "shipping-sync");
    let options = Wal::options().segment_bytes(SEGMENT_BYTES);
    let primary = options.clone().open(dir.join("primary")).expect("a log");
    let barrier = Barrier::new(replicas);
    let mut took: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..replicas)
            .map(|number| {
                let (dir, options, primary, barrier) =
                    (dir.join(number.to_string()), &options, &primary, &barrier);
                scope.spawn(move || {
                    let start = ReplicaStart {
                        store_id: primary.store_id(),
                        segment_bytes: primary.segment_bytes(),
                        first: primary.first_lsn(),
                        covered: primary.first_lsn(),
                        epoch: 0,
                        history: History::default(),
                    };
                    create_replica(&dir, options, &start).expect("a replica's log");
                    let replica = options.clone().replica(true).open(&dir).expect("a replica's log");
                    let mut shipper = primary.ship(replica.tail().place).expect("a shipper");
                    let mut took = Vec::new();
                    for _ in 0..ROUNDS {
                        if barrier.wait().is_leader() {
                            primary.commit([0x5a; 128]).expect("committed");
                        }
                        barrier.wait();
                        while let Some(piece) = shipper.next_piece(1 << 20).expect("a piece") {
                            let begin = Instant::now();
                            replica.accept(&piece).expect("taken");
                            replica.sync_replica().expect("synced");
                            took.push(begin.elapsed().as_secs_f64() * 1e6);
                        }
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    took
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    });
    drop(primary);
    remove(&dir);
    took.sort_by(f64::total_cmp);
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    found.add(&format!("a replica's sync, {replicas} at once, µs"), median);
}
