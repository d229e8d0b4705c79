//! Several threads on simulated time, every interleaving chosen by a seed: transfers, readers, tickets, checkpoints,
//! the store's own threads, a power cut. A lost wake-up is a deadlock here, and found at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::{Db, DbBuilder, Durability, Error, Keyspace, Readable, Runtime, WriteBatch};
use seawall_wal::disk::sim::Fault;
use seawall_wal::runtime::Thread;
use seawall_wal::{SimDisk, SimRuntime};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

const ACCOUNTS: u64 = 6;
const ROUNDS: u64 = 12;

fn builder(disk: &Arc<SimDisk>, runtime: &Arc<SimRuntime>, background: bool) -> DbBuilder {
    Db::builder("/store")
        .disk(disk.clone())
        .runtime(runtime.clone())
        .segment_bytes(64 << 10)
        .memory_budget(1 << 20)
        .checkpoint_interval(Duration::from_millis(3))
        .background(background)
}

fn number(value: &[u8]) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn total(reader: &impl Readable, ks: &Keyspace) -> Result<i64, Error> {
    reader.range(ks, ..).map(|row| row.map(|(_, value)| number(&value))).sum()
}

/// What the clients know of what they did.
#[derive(Default)]
struct Ledger {
    /// Commits acknowledged, and commits that may have happened.
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    /// Tickets that were told of.
    told: AtomicI64,
}

fn transfer(db: &Db, ks: &Keyspace, ledger: &Ledger, seed: u64, thread: u64) {
    let mut state = seed ^ (thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for round in 0..ROUNDS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (from, to) = ((state >> 33) % ACCOUNTS, (state >> 43) % ACCOUNTS);
        let result = db.transact(|tx| {
            tx.set_durability(if round % 3 == 0 { Durability::Written } else { Durability::Synced });
            let get = |key: u64| tx.get(ks, key.to_be_bytes()).map(|value| number(&value.unwrap()));
            let (a, b) = (get(from)?, get(to)?);
            if from != to {
                tx.insert(ks, from.to_be_bytes(), (a - 1).to_string())?;
                tx.insert(ks, to.to_be_bytes(), (b + 1).to_string())?;
            }
            // A row of its own says that the whole transfer is there.
            tx.insert(ks, format!("done-{thread}-{round}"), "0")
        });
        match result {
            Ok(()) if round % 3 != 0 => ledger.acknowledged.fetch_add(1, Ordering::SeqCst),
            Ok(()) | Err(Error::CommitUnknown { .. }) => ledger.unknown.fetch_add(1, Ordering::SeqCst),
            Err(error) if error.is_conflict() => 0,
            Err(_) => return,
        };
        if round % 4 == 1 {
            let mut batch = WriteBatch::new();
            batch.insert(ks, format!("ticket-{thread}-{round}"), "0");
            let Ok(ticket) = db.write_pipelined(batch) else { return };
            ledger.told.fetch_sub(1, Ordering::SeqCst);
            if ticket.wait().is_ok() {
                ledger.told.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// Runs clients against a store; with a power cut at some call, if given.
fn run(seed: u64, background: bool, power_cut: Option<u64>) -> (u64, u64) {
    let runtime = SimRuntime::new(seed);
    let disk = SimDisk::with_runtime(seed, runtime.clone());
    let db = builder(&disk, &runtime, background).open().unwrap();
    let ks = db.keyspace("accounts").unwrap();
    db.transact(|tx| (0..ACCOUNTS).try_for_each(|n| tx.insert(&ks, n.to_be_bytes(), "10"))).unwrap();
    if let Some(call) = power_cut {
        disk.fail(Fault::power_cut().at_call(call));
    }
    let ledger = Arc::new(Ledger::default());
    let mut threads: Vec<Box<dyn Thread>> = Vec::new();
    for thread in 0..3 {
        let (db, ks, ledger) = (db.clone(), ks.clone(), ledger.clone());
        let body = move || transfer(&db, &ks, &ledger, seed, thread);
        threads.push(runtime.spawn("client", Box::new(body)).unwrap());
    }
    let (reader, accounts) = (db.clone(), ks.clone());
    let body = move || {
        for _ in 0..ROUNDS {
            // Without power there is nothing to read.
            let total = match total(&reader.snapshot(), &accounts) {
                Err(_) if power_cut.is_some() => return,
                total => total.unwrap(),
            };
            assert_eq!(total, 10 * ACCOUNTS as i64);
            if reader.checkpoint().is_err() {
                return;
            }
        }
    };
    threads.push(runtime.spawn("reader", Box::new(body)).unwrap());
    for thread in threads {
        assert!(!thread.join(), "a thread panicked, seed {seed}");
    }
    drop(ks);
    let closed = db.close();
    assert!(closed.is_ok() || power_cut.is_some(), "{closed:?}, seed {seed}");
    if power_cut.is_none() {
        assert_eq!(ledger.told.load(Ordering::SeqCst), 0);
    }
    let survived = disk.crash();
    let db = builder(&survived, &runtime, background).open().unwrap();
    let ks = db.keyspace("accounts").unwrap();
    let snapshot = db.snapshot();
    assert_eq!(total(&snapshot, &ks).unwrap(), 10 * ACCOUNTS as i64, "seed {seed}");
    let done = snapshot.prefix(&ks, "done-").count() as u64;
    let acknowledged = ledger.acknowledged.load(Ordering::SeqCst);
    assert!(done >= acknowledged, "seed {seed}: {done} of {acknowledged} acknowledged transfers survive");
    if power_cut.is_none() {
        assert_eq!(done, acknowledged + ledger.unknown.load(Ordering::SeqCst));
    }
    drop((snapshot, ks));
    db.close().unwrap();
    (survived.trace_hash(), disk.calls())
}

#[test]
fn threads_in_any_order_keep_the_sum() {
    for seed in 0..25 {
        run(seed, seed % 2 == 0, None);
    }
}

#[test]
fn a_power_cut_among_threads_keeps_what_was_acknowledged() {
    for seed in 0..60 {
        run(1000 + seed, seed % 2 == 0, Some(1 + seed * 3));
    }
}

/// Two runs of one seed are one run.
#[test]
fn a_seed_is_a_history() {
    for seed in [3, 4] {
        assert_eq!(run(seed, true, None), run(seed, true, None));
    }
}
