//! The protocols of atomic commit beside the engine alone: transactions a second, and how long one takes, with many at once.
//!
//! ```text
//! cargo bench -p seawall-benches --features net,postgres --bench atomic [-- --seconds 2 --reps 5 --threads 64 --only '2pc;paxos']
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

use seawall_benches::{cpu_seconds, fresh_dir, load, median, print_device, remove};
use seawall_engine::{Db, Keyspace};
use seawall_txn::{Coordinator, CoordinatorBuilder, Error, NodeId, Protocol, Store, TxnId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "net")]
#[path = "atomic/apart.rs"]
mod apart;

#[cfg(feature = "postgres")]
#[path = "atomic/prepared.rs"]
mod prepared;

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const VALUE: [u8; 100] = [0x5a; 100];

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
const WAYS: [Way; 11] = [
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
    // No store of ours.
    way("postgres 2pc, 2 databases", Some(Protocol::TwoPhase), 0, 0, false),
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
    let look = || (Instant::now(), syncs(stores), cpu_seconds("self"), switches());
    let (load, before, after) = load(threads, seconds, look, |_, number| commit(number.to_be_bytes()));
    let count = load.count().max(1) as f64;
    Found {
        rate: load.rate,
        p50_us: load.quantile(0.5),
        p99_us: load.quantile(0.99),
        syncs_per_s: (after.1.0 - before.1.0) as f64 / (after.0 - before.0).as_secs_f64(),
        sync_us: after.1.1,
        cpu_us: (after.2 - before.2) * 1e6 / count,
        switches: (after.3 - before.3) / count,
        aborted: load.given_up as f64,
    }
}

/// Of all stores: how many, and how long half of them took at most.
fn syncs(stores: &[Opened]) -> (u64, f64) {
    let stats: Vec<_> = stores.iter().map(|store| store.db.stats()).collect();
    let mid = stats.iter().map(|stats| stats.sync_us.quantile(0.5)).max().unwrap_or_default();
    (stats.iter().map(|stats| stats.syncs).sum(), mid as f64)
}

/// Voluntary context switches of this process.
fn switches() -> f64 {
    let mut switches = 0.0;
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches += line.and_then(|count| count.trim().parse::<f64>().ok()).unwrap_or(0.0);
    }
    switches
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
        Some(_) if way.stores == 0 => postgres(threads, seconds),
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

#[cfg(feature = "postgres")]
use prepared::prepared as postgres;

#[cfg(not(feature = "postgres"))]
fn postgres(_: usize, _: f64) -> Found {
    Found::default()
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
            && (cfg!(feature = "postgres") || way.stores > 0)
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
