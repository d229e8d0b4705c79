//! Ten thousand transactions in doubt: what they cost the commits beside them, and how long it takes to find them again.
//!
//! `cargo bench -p seawall-benches --bench in_doubt`. Not criterion's: two stores that differ in nothing but what is prepared take
//! turns, so that each ratio is of moments that lie next to each other.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a bench fails by panicking, prints, and looks at the real clock"
)]

use seawall_benches::{fresh_dir, print_device, remove};
use seawall_engine::{Db, Durability, Keyspace, Readable, Vote, WriteBatch};
use seawall_txn::{BranchName, Coordinator, Group, NodeId, Protocol, Store, TxnId};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const PREPARED: u64 = 10_000;
const ROUNDS: usize = 41;
const WINDOW: Duration = Duration::from_millis(80);
const ME: NodeId = NodeId(1);

struct Side {
    db: Db,
    rows: Keyspace,
    next: AtomicU64,
}

fn open(dir: &Path) -> Side {
    let builder = Db::builder(dir).segment_bytes(16 << 20).memory_budget(256 << 20);
    let db = builder.durability(Durability::Memory).open().expect("a store");
    let rows = db.keyspace("rows").expect("a keyspace");
    Side { db, rows, next: AtomicU64::new(0) }
}

impl Side {
    fn close(self) {
        drop(self.rows);
        self.db.sync().and_then(|_| self.db.close()).expect("closed");
    }
}

/// Each writes a row of its own, adds to one that all of them add to, has read a row of its own, a few rows of its own and a
/// hundred rows that all of them have read.
fn prepare(side: &Side, count: u64) {
    let Side { db, rows, .. } = side;
    let mut batch = WriteBatch::new();
    for n in 0..100 {
        batch.insert(rows, format!("table/{n:03}"), "row");
    }
    db.write(batch).expect("written");
    let mut votes = Vec::new();
    for n in 0..count {
        let mut tx = db.begin();
        assert_eq!(tx.prefix(rows, "table/").count(), 100);
        assert_eq!(tx.prefix(rows, format!("own/{n:06}/")).count(), 0);
        tx.get(rows, format!("read/{n:06}")).expect("read");
        tx.insert(rows, format!("written/{n:06}"), [0x5a; 100]).expect("in");
        tx.add_i64(rows, "sum", 1).expect("in");
        let ends = Group { participants: vec![ME, NodeId(2)], acceptors: vec![] };
        let txn = TxnId { coordinator: NodeId(2), epoch: 1, sequence: n };
        let ends = Some((Protocol::TwoPhase, Arc::new(ends)));
        let xid = BranchName { txn, participant: ME, ends }.to_xid().expect("a name");
        let (vote, ticket) = tx.prepare_pipelined(xid).expect("a vote");
        assert!(matches!(vote, Vote::Prepared(_)));
        votes.push(ticket);
    }
    for vote in votes {
        vote.wait().expect("durable");
    }
    assert_eq!(db.stats().prepared, count);
}

/// Commits a second of one thread.
fn rate(side: &Side, commit: fn(&Side, u64)) -> f64 {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < WINDOW {
        for _ in 0..32 {
            commit(side, side.next.fetch_add(1, Ordering::Relaxed));
        }
        done += 32;
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}

fn put(side: &Side, n: u64) {
    let mut tx = side.db.begin();
    tx.insert(&side.rows, format!("beside/{:06}", n % 100_000), [0x5a; 100]).expect("in");
    tx.commit().expect("committed");
}

fn read_and_put(side: &Side, n: u64) {
    let mut tx = side.db.begin();
    tx.get(&side.rows, format!("written/{:06}", n % PREPARED)).expect("read");
    tx.insert(&side.rows, format!("beside/{:06}", n % 100_000), [0x5a; 100]).expect("in");
    tx.commit().expect("committed");
}

fn add(side: &Side, _: u64) {
    let mut tx = side.db.begin();
    tx.add_i64(&side.rows, "sum", 1).expect("in");
    tx.commit().expect("committed");
}

fn clear(side: &Side, n: u64) {
    let mut tx = side.db.begin();
    let (from, to) = (format!("beside/{:06}", n % 100_000), format!("beside/{:06}", n % 100_000 + 1));
    tx.remove_range(&side.rows, from..to).expect("in");
    tx.commit().expect("committed");
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// The median, and the least and the greatest.
fn spread(of: &[f64]) -> String {
    let (least, most) = of.iter().fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
    format!("{:.2} ({least:.2} to {most:.2})", median(of.to_vec()))
}

fn in_turns(name: &str, empty: &Side, full: &Side, commit: fn(&Side, u64)) {
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (first, second) = if round % 2 == 0 { (empty, full) } else { (full, empty) };
        let (x, y) = (rate(first, commit), rate(second, commit));
        let (x, y) = if round % 2 == 0 { (x, y) } else { (y, x) };
        a.push(x);
        b.push(y);
        ratios.push(y / x);
    }
    println!(
        "{name}: {:.0} k/s beside none, {:.0} k/s beside {PREPARED}, ratio {}",
        median(a) / 1e3,
        median(b) / 1e3,
        spread(&ratios)
    );
}

/// Commits while another thread goes through all that is prepared, again and again, and while one only keeps a processor busy.
fn beside_recover(full: &Side) {
    let is_over = AtomicBool::new(false);
    let beside = |work: &(dyn Fn() + Sync)| {
        is_over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let busy = scope.spawn(|| {
                let (start, mut times) = (Instant::now(), 0_u32);
                while !is_over.load(Ordering::Relaxed) {
                    work();
                    times += 1;
                }
                start.elapsed().as_secs_f64() * 1e3 / f64::from(times.max(1))
            });
            let rate = rate(full, put);
            is_over.store(true, Ordering::Relaxed);
            (rate, busy.join().expect("a busy thread"))
        })
    };
    let (mut ratios, mut lists) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (alone, _) = beside(&|| {
            black_box((0..black_box(PREPARED)).fold(0, u64::wrapping_add));
        });
        let (listing, list) = beside(&|| assert_eq!(full.db.prepared().count() as u64, PREPARED));
        ratios.push(listing / alone);
        lists.push(list);
    }
    println!("put while another thread lists them without pause: ratio {}", spread(&ratios));
    println!("one list of all of them beside that: {} ms", spread(&lists));
}

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = f();
    println!("{what}: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    done
}

fn main() {
    print_device(BASE);
    let dirs: Vec<PathBuf> =
        ["empty", "full", "other"].iter().map(|name| fresh_dir(BASE, &format!("in-doubt-{name}"))).collect();
    let [empty_dir, full_dir, other_dir] = dirs.as_slice() else { panic!("three directories") };
    let (empty, full) = (open(empty_dir), open(full_dir));
    prepare(&empty, 0);
    timed("preparing them, one thread", || prepare(&full, PREPARED));
    for (name, commit) in
        [("put", put as fn(&Side, u64)), ("get and put", read_and_put), ("add", add), ("clear", clear)]
    {
        in_turns(name, &empty, &full, commit);
    }
    beside_recover(&full);
    full.close();
    let full = timed("opening, what is behind the last checkpoint by the log", || open(full_dir));
    full.db.checkpoint().expect("a checkpoint");
    full.close();
    let full = timed("opening, all of them in the tree", || open(full_dir));
    timed("listing them", || assert_eq!(full.db.prepared().count() as u64, PREPARED));
    // Their coordinator knows of none: presumed abort.
    let other = Db::open(other_dir).expect("a store");
    let node = Store::new(ME, &full.db).expect("a node");
    let coordinator =
        Coordinator::open(&Store::new(NodeId(2), &other).expect("a node")).expect("a coordinator");
    timed("attaching the store, and ending all of them", || {
        coordinator.attach(&node).expect("attached");
        while full.db.stats().prepared > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    put(&full, 0);
    let (vote, _) = {
        let mut tx = full.db.begin();
        tx.remove_range(&full.rows, ..).expect("in");
        let xid = seawall_engine::Xid::new(1, "all", "rows").expect("a name");
        tx.prepare_pipelined(xid).expect("nothing is held any more")
    };
    assert!(matches!(vote, Vote::Prepared(_)));
    coordinator.close();
    drop((vote, node, full, empty, other));
    dirs.iter().for_each(|dir| remove(dir));
}
