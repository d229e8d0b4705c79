//! Every call to the disk as a crash point and as a failing call. After each the store opens and holds *exactly* the
//! first n commits, with n at least every acknowledgement and at most every attempt; and so again when recovery itself
//! is cut short.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::{Db, DbBuilder, Durability, Error, Keyspace, Readable, Result, Transaction};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::{Fault, Op};
use std::collections::BTreeMap;
use std::sync::Arc;

const COMMITS: u64 = 24;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/dir/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(1 << 20)
        .background(false)
}

/// One operation on a keyspace.
enum Write {
    Put(usize, Vec<u8>, Vec<u8>),
    Remove(usize, Vec<u8>),
    /// Of all rows from the first key on and below the second.
    Clear(usize, Vec<u8>, Vec<u8>),
    Add(usize, &'static str, i64),
}

/// What commit `n` writes.
fn writes(n: u64) -> Vec<Write> {
    let key = |n: u64| format!("row-{}", n % 7).into_bytes();
    let len = if n.is_multiple_of(6) { 9000 } else { 40 };
    let mut writes = vec![
        Write::Put(0, b"n".to_vec(), n.to_string().into_bytes()),
        Write::Put(0, key(n), vec![n as u8; len]),
        Write::Put(1, key(n), vec![n as u8; 60]),
        Write::Remove(1, key(n + 3)),
        Write::Add(0, "sum", n as i64),
    ];
    if n.is_multiple_of(4) {
        // What was just put is among them, and one of them comes back; so does another sum.
        writes.push(Write::Clear(0, key(n), b"row-~".to_vec()));
        writes.push(Write::Put(0, b"row-4".to_vec(), vec![n as u8; 30]));
        writes.push(Write::Clear(1, b"a".to_vec(), b"t".to_vec()));
        writes.push(Write::Add(1, "sum", 1000));
    }
    writes.push(Write::Add(1, "sum", -(n as i64)));
    writes
}

fn apply(rows: &mut [Rows; 2], write: Write) {
    match write {
        Write::Put(keyspace, key, value) => drop(rows[keyspace].insert(key, value)),
        Write::Remove(keyspace, key) => drop(rows[keyspace].remove(&key)),
        Write::Clear(keyspace, from, to) => rows[keyspace].retain(|key, _| !(&from..&to).contains(&key)),
        Write::Add(keyspace, key, delta) => {
            let row = rows[keyspace].entry(key.as_bytes().to_vec()).or_insert_with(|| vec![0; 8]);
            let number = i64::from_le_bytes(row[..].try_into().unwrap());
            *row = (number + delta).to_le_bytes().to_vec();
        }
    }
}

fn write(tx: &mut Transaction, keyspaces: &[Keyspace; 2], write: Write) -> Result<()> {
    match write {
        Write::Put(keyspace, key, value) => tx.insert(&keyspaces[keyspace], key, value),
        Write::Remove(keyspace, key) => tx.remove(&keyspaces[keyspace], key),
        Write::Clear(keyspace, from, to) => tx.remove_range(&keyspaces[keyspace], from..to),
        Write::Add(keyspace, key, delta) => tx.add_i64(&keyspaces[keyspace], key, delta),
    }
}

fn model(n: u64) -> [Rows; 2] {
    let mut rows = [Rows::new(), Rows::new()];
    (1..=n).flat_map(writes).for_each(|write| apply(&mut rows, write));
    rows
}

#[derive(Debug, Default)]
struct Outcome {
    acknowledged: u64,
    attempted: u64,
}

fn commit(db: &Db, keyspaces: &[Keyspace; 2], n: u64) -> Result<()> {
    let mut transaction = db.begin();
    for one in writes(n) {
        write(&mut transaction, keyspaces, one)?;
    }
    transaction.commit().map(|_| ())
}

/// Commits 1, 2, … with checkpoints and reopenings in between, until something fails.
fn work(disk: &Arc<SimDisk>, outcome: &mut Outcome) -> Result<()> {
    loop {
        let db = builder(disk).open()?;
        let keyspaces = [db.keyspace("a")?, db.keyspace("b")?];
        loop {
            let n = outcome.acknowledged + 1;
            if n > COMMITS {
                return db.close();
            }
            outcome.attempted = n;
            match commit(&db, &keyspaces, n) {
                Ok(()) => outcome.acknowledged = n,
                // Nothing happened; there is room again.
                Err(Error::NoSpace) => continue,
                Err(error) => return Err(error),
            }
            if n.is_multiple_of(5) {
                match db.checkpoint() {
                    Ok(_) | Err(Error::NoSpace) => {}
                    Err(error) => return Err(error),
                }
            }
            if n.is_multiple_of(8) {
                break;
            }
        }
        drop(keyspaces);
        db.close()?;
    }
}

fn rows(db: &Db, name: &str) -> Rows {
    match db.open_keyspace(name).unwrap() {
        Some(ks) => db
            .snapshot()
            .range(&ks, ..)
            .map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
            .collect(),
        None => Rows::new(),
    }
}

fn check(disk: &Arc<SimDisk>, outcome: &Outcome, what: &str) {
    let db = builder(disk).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = [rows(&db, "a"), rows(&db, "b")];
    let n = found[0].get(&b"n"[..]).map_or(0, |n| std::str::from_utf8(n).unwrap().parse::<u64>().unwrap());
    assert!(
        n >= outcome.acknowledged,
        "{what}: {n} of {} acknowledged commits are there",
        outcome.acknowledged
    );
    assert!(n <= outcome.attempted, "{what}: {n} commits are there, {} were tried", outcome.attempted);
    assert_eq!(found, model(n), "{what}: not exactly the first {n} commits");
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new(), "{what}");
    // And it goes on from there.
    if n > 0 {
        let keyspaces = [db.keyspace("a").unwrap(), db.keyspace("b").unwrap()];
        commit(&db, &keyspaces, n + 1).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(rows(&db, "b"), model(n + 1)[1], "{what}");
    }
}

fn calls_without_faults() -> u64 {
    let disk = SimDisk::new(1);
    let mut outcome = Outcome::default();
    work(&disk, &mut outcome).unwrap();
    assert_eq!(outcome.acknowledged, COMMITS);
    check(&disk, &outcome, "no fault");
    disk.calls()
}

#[test]
fn a_power_cut_at_any_call_leaves_a_prefix_that_holds_every_acknowledgement() {
    for call in 1..=calls_without_faults() {
        let disk = SimDisk::new(call);
        disk.fail(Fault::power_cut().at_call(call));
        let mut outcome = Outcome::default();
        let _ = work(&disk, &mut outcome);
        let what = format!("power cut at call {call}");
        let survived = disk.crash();
        check(&survived.crash_copy(), &outcome, &what);
        // Recovery is cut short too, again and again.
        let mut next = survived;
        for again in 1..=3 {
            next.fail(Fault::power_cut().at_call(again * 5 + call % 11));
            drop(builder(&next).open());
            next = next.crash();
        }
        check(&next, &outcome, &format!("{what}, and three times in recovery"));
    }
}

fn fail_every_call(name: &str, fault: impl Fn() -> Fault) {
    for call in 1..=calls_without_faults() {
        let disk = SimDisk::new(call);
        disk.fail(fault().at_call(call));
        let mut outcome = Outcome::default();
        let _ = work(&disk, &mut outcome);
        disk.clear_faults();
        let what = format!("{name} at call {call}");
        check(&disk.crash_copy(), &outcome, &format!("{what}, then a power cut"));
        check(&disk.kill(), &outcome, &format!("{what}, then a kill"));
    }
}

#[test]
fn any_call_may_fail_once() {
    fail_every_call("EIO", || Fault::eio(Op::Any));
}

#[test]
fn any_call_may_find_the_disk_full() {
    fail_every_call("ENOSPC", || Fault::full(Op::Any));
}

#[test]
fn any_call_may_stop_halfway() {
    fail_every_call("a short call", || Fault::short(Op::Any));
}

/// A failed sync that drops what it should have written, and serves it to reads until the crash.
#[test]
fn any_sync_may_drop_its_pages() {
    fail_every_call("a dropped sync", Fault::dropped_sync);
}

/// Levels below `Synced` may lose their tail in a power cut, and never a piece from the middle.
#[test]
fn lower_durability_loses_a_tail_at_most() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let db = builder(&disk).open().unwrap();
        let keyspaces = [db.keyspace("a").unwrap(), db.keyspace("b").unwrap()];
        let mut outcome = Outcome::default();
        for n in 1..=COMMITS {
            let mut transaction = db.begin();
            transaction.set_durability(match n % 4 {
                0 if n < 18 => Durability::Synced,
                1 => Durability::Written,
                _ => Durability::Memory,
            });
            for one in writes(n) {
                write(&mut transaction, &keyspaces, one).unwrap();
            }
            transaction.commit().unwrap();
            outcome.attempted = n;
            if n % 4 == 0 && n < 18 {
                outcome.acknowledged = n;
            }
        }
        check(&disk.crash(), &outcome, &format!("seed {seed}"));
    }
}
