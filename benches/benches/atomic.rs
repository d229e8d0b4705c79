//! The protocols of atomic commit beside the engine alone: transactions a second, and how long one takes, with many at once.
//!
//! ```text
//! cargo bench -p seawall-benches --features net --bench atomic [-- --seconds 2 --reps 5 --threads 64 --only '2pc;paxos']
//! ```
//!
//! Every way runs in fresh stores, one after the other, again and again: what is printed are medians over the repetitions,
//! and the median of the ratios within each.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench fails by panicking, prints, and looks at the real clock"
)]

use seawall_benches::{fresh_dir, print_device, remove};
use seawall_engine::{Db, Keyspace};
use seawall_txn::{Coordinator, CoordinatorBuilder, Error, NodeId, Protocol, Store, TxnId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "net")]
#[path = "atomic/apart.rs"]
mod apart;

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const VALUE: [u8; 100] = [0x5a; 100];
/// Before what is measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// A way to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// None: the engine alone.
    pub(crate) protocol: Option<Protocol>,
    /// Stores that take part.
    pub(crate) stores: usize,
    pub(crate) acceptors: usize,
    /// Each store in a node of its own, with TLS between them.
    pub(crate) is_apart: bool,
}

const fn way(
    name: &'static str,
    protocol: Option<Protocol>,
    stores: usize,
    acceptors: usize,
    is_apart: bool,
) -> Way {
    Way { name, protocol, stores, acceptors, is_apart }
}

/// Three acceptors: those that take part, and one more.
const WAYS: [Way; 10] = [
    way("engine alone", None, 1, 0, false),
    way("one-phase", Some(Protocol::TwoPhase), 1, 0, false),
    way("2pc, 2 stores", Some(Protocol::TwoPhase), 2, 0, false),
    way("2pc, 4 stores", Some(Protocol::TwoPhase), 4, 0, false),
    way("3pc, 2 stores", Some(Protocol::ThreePhase), 2, 0, false),
    way("paxos f=1, 2 stores", Some(Protocol::PaxosCommit), 2, 3, false),
    way("tls one-phase", Some(Protocol::TwoPhase), 1, 0, true),
    way("tls 2pc, 2 nodes", Some(Protocol::TwoPhase), 2, 0, true),
    way("tls 3pc, 2 nodes", Some(Protocol::ThreePhase), 2, 0, true),
    way("tls paxos f=1, 2 nodes", Some(Protocol::PaxosCommit), 2, 3, true),
];

impl Way {
    /// As many nodes as it takes.
    pub(crate) fn nodes(&self) -> usize {
        // A node that commits another's branch in one phase does not take part itself.
        let coordinator = usize::from(self.is_apart && self.stores == 1);
        self.stores.max(self.acceptors) + coordinator
    }

    pub(crate) fn set_up(&self, builder: CoordinatorBuilder) -> CoordinatorBuilder {
        match self.protocol {
            Some(Protocol::PaxosCommit) => builder.acceptors((1..=self.acceptors as u64).map(NodeId)),
            Some(protocol) => builder.protocol(protocol),
            None => builder,
        }
    }
}

pub(crate) struct Opened {
    pub(crate) db: Db,
    pub(crate) rows: Keyspace,
}

fn open(dir: &Path) -> Opened {
    let db = Db::builder(dir).segment_bytes(16 << 20).memory_budget(128 << 20).open().expect("a store");
    let rows = db.keyspace("rows").expect("a keyspace");
    Opened { db, rows }
}

/// What one run has found.
#[derive(Clone, Debug, Default)]
struct Found {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    /// Of all stores.
    syncs_per_s: f64,
    sync_us: f64,
    cpu_us: f64,
    switches: f64,
    /// Transactions that nobody refused: somebody was waited for too long.
    aborted: f64,
}

/// `commit` is called by all threads, with keys that do not come twice.
fn run(threads: usize, seconds: f64, stores: &[Opened], commit: impl Fn([u8; 8]) -> bool + Sync) -> Found {
    let (next, is_over, is_measured) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let (barrier, aborted) = (Barrier::new(threads + 1), AtomicU64::new(0));
    let mut found = Found::default();
    let mut took: Vec<u32> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut took = Vec::new();
                    barrier.wait();
                    while !is_over.load(Ordering::Relaxed) {
                        let counts = is_measured.load(Ordering::Relaxed);
                        let begin = Instant::now();
                        let is_done = commit(next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
                        if !is_done {
                            aborted.fetch_add(1, Ordering::Relaxed);
                        } else if counts {
                            took.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
                        }
                    }
                    took
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(WARM_UP);
        let (before, cpu_before) = (syncs(stores), cpu());
        let begin = Instant::now();
        is_measured.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs_f64(seconds));
        is_over.store(true, Ordering::Relaxed);
        let took =
            workers.into_iter().flat_map(|worker| worker.join().expect("a thread")).collect::<Vec<_>>();
        let elapsed = begin.elapsed().as_secs_f64();
        let (after, cpu_after) = (syncs(stores), cpu());
        found.rate = took.len() as f64 / elapsed;
        found.syncs_per_s = (after.0 - before.0) as f64 / elapsed;
        found.sync_us = after.1;
        found.cpu_us = (cpu_after.0 - cpu_before.0) * 1e6 / took.len().max(1) as f64;
        found.switches = (cpu_after.1 - cpu_before.1) / took.len().max(1) as f64;
        took
    });
    took.sort_unstable();
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).map_or(0.0, |us| f64::from(*us));
    (found.p50_us, found.p99_us) = (at(0.5), at(0.99));
    found.aborted = aborted.into_inner() as f64;
    found
}

/// Of all stores: how many, and how long half of them took at most.
fn syncs(stores: &[Opened]) -> (u64, f64) {
    let stats: Vec<_> = stores.iter().map(|store| store.db.stats()).collect();
    let mid = stats.iter().map(|stats| stats.sync_us.quantile(0.5)).max().unwrap_or_default();
    (stats.iter().map(|stats| stats.syncs).sum(), mid as f64)
}

/// Seconds of processor time of this process, and its voluntary context switches.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let ticks = fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0);
    let mut switches = 0.0;
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches += line.and_then(|count| count.trim().parse::<f64>().ok()).unwrap_or(0.0);
    }
    (ticks / 100.0, switches)
}

/// What was given up because somebody was not heard of for long, on a machine with too much to do, is counted.
pub(crate) fn is_committed(done: seawall_txn::Result<TxnId>) -> bool {
    match done {
        Ok(_) => true,
        Err(Error::Aborted { cause: None, .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn engine_alone(threads: usize, seconds: f64, stores: &[Opened]) -> Found {
    let Opened { db, rows, .. } = &stores[0];
    run(threads, seconds, stores, |key| {
        let mut tx = db.begin();
        tx.insert(rows, key, VALUE).expect("in");
        tx.commit().expect("committed");
        true
    })
}

fn together(way: Way, threads: usize, seconds: f64, stores: &[Opened]) -> Found {
    let nodes: Vec<Arc<Store>> = stores
        .iter()
        .zip(1..)
        .map(|(store, id)| Store::new(NodeId(id), &store.db).expect("a node"))
        .collect();
    let coordinator = way.set_up(Coordinator::builder(&nodes[0])).open().expect("a coordinator");
    nodes.iter().skip(1).for_each(|node| coordinator.attach(node).expect("attached"));
    run(threads, seconds, stores, |key| {
        let mut global = coordinator.begin();
        for (node, store) in nodes.iter().zip(stores).take(way.stores) {
            global.branch(node).expect("a branch").insert(&store.rows, key, VALUE).expect("in");
        }
        is_committed(global.commit())
    })
}

fn once(way: Way, threads: usize, seconds: f64) -> Found {
    let dirs: Vec<PathBuf> = (0..way.nodes()).map(|n| fresh_dir(BASE, &format!("atomic-{n}"))).collect();
    let stores: Vec<Opened> = dirs.iter().map(|dir| open(dir)).collect();
    let found = match way.protocol {
        None => engine_alone(threads, seconds, &stores),
        Some(_) if way.is_apart => apart(way, threads, seconds, &stores),
        Some(_) => together(way, threads, seconds, &stores),
    };
    drop(stores);
    dirs.iter().for_each(|dir| remove(dir));
    found
}

#[cfg(feature = "net")]
use apart::apart;

#[cfg(not(feature = "net"))]
fn apart(_: Way, _: usize, _: f64, _: &[Opened]) -> Found {
    Found::default()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let number =
        |name: &str, default: f64| value(name).map_or(default, |text| text.parse().expect("a number"));
    let (seconds, reps) = (number("--seconds", 2.0), number("--reps", 5.0) as usize);
    let threads = number("--threads", 64.0) as usize;
    let only = value("--only").unwrap_or_default();
    let wants = |way: &Way| {
        (cfg!(feature = "net") || !way.is_apart)
            && (way.protocol.is_none()
                || only.is_empty()
                || only.split(';').any(|part| way.name.contains(part)))
    };
    let ways: Vec<Way> = WAYS.into_iter().filter(wants).collect();
    print_device(BASE);
    let mut found: Vec<Vec<Found>> = vec![Vec::new(); ways.len()];
    for _ in 0..reps {
        for (way, found) in ways.iter().zip(&mut found) {
            found.push(once(*way, threads, seconds));
        }
    }
    println!("{threads} at once, {reps} × {seconds} s each, interleaved; medians\n");
    println!(
        "| | txn/s | of the engine alone | p50 µs | p99 µs | syncs/s, all stores | sync µs | processor µs/txn | switches/txn | given up |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (way, runs) in ways.iter().zip(&found) {
        let of = |what: fn(&Found) -> f64| median(runs.iter().map(what));
        let ratio = median(runs.iter().zip(&found[0]).map(|(run, alone)| run.rate / alone.rate.max(1.0)));
        println!(
            "| {} | {:.0} | {ratio:.3} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
            way.name,
            of(|run| run.rate),
            of(|run| run.p50_us),
            of(|run| run.p99_us),
            of(|run| run.syncs_per_s),
            of(|run| run.sync_us),
            of(|run| run.cpu_us),
            of(|run| run.switches),
            runs.iter().map(|run| run.aborted).sum::<f64>(),
        );
    }
}
