//! What transactions promise each other, named after the phenomenon that must not happen (Berenson et al., 1995).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, clippy::disallowed_methods)]

use seawall_engine::{Db, Durability, Error, Readable, TxOptions, WriteBatch};
use seawall_wal::SimDisk;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn open(disk: &Arc<SimDisk>) -> Db {
    Db::builder("/store").disk(disk.clone()).segment_bytes(1 << 20).background(false).open().unwrap()
}

#[test]
fn anomaly_lost_update() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    ks.insert("x", "1").unwrap();
    let (mut a, mut b) = (db.begin(), db.begin());
    assert_eq!(a.get(&ks, "x").unwrap(), b.get(&ks, "x").unwrap());
    a.insert(&ks, "x", "2").unwrap();
    b.insert(&ks, "x", "3").unwrap();
    assert!(!b.is_doomed());
    a.commit().unwrap();
    assert!(b.is_doomed());
    assert!(b.commit().unwrap_err().is_conflict());
    assert_eq!(ks.get("x").unwrap().unwrap(), "2");
    assert_eq!(db.stats().conflicts, 1);
}

#[test]
fn many_keys_at_once_are_of_one_moment() {
    let db = open(&SimDisk::new(2));
    let ks = db.keyspace("k").unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..500_u32 {
        batch.insert(&ks, n.to_be_bytes(), vec![n as u8; 1 + n as usize % 300]);
    }
    db.write(batch).unwrap();
    db.checkpoint().unwrap();
    ks.insert(3_u32.to_be_bytes(), "in the delta").unwrap();
    ks.remove(4_u32.to_be_bytes()).unwrap();
    let before = db.snapshot();
    ks.insert(5_u32.to_be_bytes(), "too late").unwrap();
    let mut tx = db.begin();
    tx.insert(&ks, 6_u32.to_be_bytes(), "of its own").unwrap();
    tx.remove(&ks, 7_u32.to_be_bytes()).unwrap();
    let keys: Vec<[u8; 4]> = [900, 7, 6, 5, 4, 3, 2, 2, 499].map(u32::to_be_bytes).to_vec();
    assert_eq!(before.multi_get::<&str>(&ks, &[]).unwrap(), []);
    let one_by_one: Vec<_> = keys.iter().map(|key| before.get(&ks, key).unwrap()).collect();
    assert_eq!(before.multi_get(&ks, &keys).unwrap(), one_by_one);
    assert_eq!(one_by_one.iter().filter(|value| value.is_none()).count(), 2);
    let in_tx = tx.multi_get(&ks, &keys).unwrap();
    assert_eq!(in_tx, keys.iter().map(|key| tx.get(&ks, key).unwrap()).collect::<Vec<_>>());
    assert!(in_tx[1].is_none() && in_tx[2].as_ref().unwrap() == "of its own");
    assert!(in_tx[3].as_ref().unwrap() == "too late");
    let other = tx.create_keyspace("other", Default::default()).unwrap();
    assert_eq!(tx.multi_get(&other, &keys).unwrap(), vec![None; 9]);
    assert!(matches!(before.multi_get(&other, &keys), Err(Error::KeyspaceMissing(_))));
}

#[test]
fn a_blind_batch_neither_loses_nor_goes_unnoticed() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut a = db.begin();
    a.insert(&ks, "x", "transaction").unwrap();
    let mut batch = WriteBatch::new();
    batch.insert(&ks, "x", "batch");
    db.write(batch).unwrap();
    assert!(a.commit().unwrap_err().is_conflict());
    assert_eq!(ks.get("x").unwrap().unwrap(), "batch");
}

#[test]
fn anomaly_read_skew() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut batch = WriteBatch::new();
    batch.insert(&ks, "x", "50").insert(&ks, "y", "50");
    db.write(batch).unwrap();
    let reader = db.begin();
    assert_eq!(reader.get(&ks, "x").unwrap().unwrap(), "50");
    let mut batch = WriteBatch::new();
    batch.insert(&ks, "x", "25").insert(&ks, "y", "75");
    db.write(batch).unwrap();
    db.checkpoint().unwrap();
    assert_eq!(reader.get(&ks, "y").unwrap().unwrap(), "50");
    assert_eq!(reader.range(&ks, ..).map(|row| row.unwrap().1.to_vec()).collect::<Vec<_>>(), [b"50", b"50"]);
}

#[test]
fn an_uncommitted_write_is_seen_by_nobody_else_and_by_oneself_at_once() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut a = db.begin();
    a.insert(&ks, "x", "mine").unwrap();
    assert_eq!(ks.get("x").unwrap(), None);
    assert_eq!(a.get(&ks, "x").unwrap().unwrap(), "mine");
    let scan = a.range(&ks, ..);
    a.remove(&ks, "x").unwrap();
    // A scan sees the writes as of its making.
    assert_eq!(scan.map(|row| row.unwrap().0.to_vec()).collect::<Vec<_>>(), [b"x"]);
    assert_eq!(a.range(&ks, ..).count(), 0);
    let mut late = a.range(&ks, ..);
    a.rollback();
    assert!(matches!(late.next(), Some(Err(Error::BadInput(_)))));
    assert!(late.next().is_none());
}

/// Deltas that were folded are remembered for as long as a transaction could overwrite what they hold.
#[test]
fn a_conflict_is_found_across_checkpoints() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut old = db.begin();
    let mut other = db.begin();
    ks.insert("x", "1").unwrap();
    db.checkpoint().unwrap();
    for round in 0..5 {
        ks.insert(format!("y{round}"), "1").unwrap();
        db.checkpoint().unwrap();
    }
    old.insert(&ks, "x", "2").unwrap();
    other.insert(&ks, "z", "2").unwrap();
    assert!(old.commit().unwrap_err().is_conflict());
    other.commit().unwrap();
}

/// Beyond the bytes kept for it, an old transaction is refused rather than believed.
#[test]
fn a_transaction_older_than_what_is_remembered_conflicts() {
    let disk = SimDisk::new(1);
    let db = Db::builder("/store")
        .disk(disk)
        .segment_bytes(1 << 20)
        .memory_budget(1 << 20)
        .background(false)
        .open()
        .unwrap();
    let ks = db.keyspace("k").unwrap();
    let mut old = db.begin();
    old.insert(&ks, "untouched", "1").unwrap();
    for round in 0..3 {
        ks.insert(format!("y{round}"), vec![0; 100_000]).unwrap();
        db.checkpoint().unwrap();
    }
    assert!(old.is_doomed());
    assert!(old.commit().unwrap_err().is_conflict());
    let mut new = db.begin();
    new.insert(&ks, "untouched", "1").unwrap();
    new.commit().unwrap();
}

#[test]
fn a_read_only_transaction_refuses_writes() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut a = db.begin_with(TxOptions { read_only: true, ..Default::default() });
    assert!(matches!(a.insert(&ks, "x", "1"), Err(Error::ReadOnly)));
    assert!(matches!(a.create_keyspace("n", Default::default()), Err(Error::ReadOnly)));
    a.commit().unwrap();
}

#[test]
fn savepoints_nest_and_do_not_leak_between_transactions() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut a = db.begin();
    a.insert(&ks, "x", "1").unwrap();
    let outer = a.savepoint();
    a.insert(&ks, "x", "2").unwrap();
    let made = a.create_keyspace("inner", Default::default()).unwrap();
    a.insert(&made, "m", "1").unwrap();
    let inner = a.savepoint();
    a.remove(&ks, "x").unwrap();
    a.rollback_to(&inner).unwrap();
    assert_eq!(a.get(&ks, "x").unwrap().unwrap(), "2");
    a.rollback_to(&outer).unwrap();
    assert_eq!(a.get(&ks, "x").unwrap().unwrap(), "1");
    assert!(matches!(a.rollback_to(&inner), Err(Error::BadInput(_))));
    assert!(matches!(a.get(&made, "m"), Err(Error::KeyspaceMissing(_))));
    let mut b = db.begin();
    assert!(matches!(b.rollback_to(&outer), Err(Error::BadInput(_))));
    a.rollback_to(&outer).unwrap();
    a.commit().unwrap();
    assert_eq!(ks.get("x").unwrap().unwrap(), "1");
    assert_eq!(db.keyspaces(), ["k"]);
}

fn number(value: Option<seawall_engine::Slice>) -> i64 {
    std::str::from_utf8(&value.unwrap()).unwrap().parse().unwrap()
}

/// Writers move money, readers add it up, checkpoints run beside them, a crash ends it.
#[test]
fn concurrent_transfers_keep_the_sum() {
    const ACCOUNTS: u64 = 20;
    let disk = SimDisk::new(7);
    let db = Db::builder("/store")
        .disk(disk.clone())
        .segment_bytes(1 << 20)
        .memory_budget(1 << 20)
        .open()
        .unwrap();
    let (left, right) = (db.keyspace("left").unwrap(), db.keyspace("right").unwrap());
    db.transact(|tx| {
        for account in 0..ACCOUNTS {
            tx.insert(&left, account.to_be_bytes(), "100")?;
            tx.insert(&right, account.to_be_bytes(), "100")?;
        }
        Ok(())
    })
    .unwrap();
    let sum = |reader: &dyn Fn(&seawall_engine::Keyspace) -> i64| reader(&left) + reader(&right);
    let total = |db: &Db| {
        let snapshot = db.snapshot();
        sum(&|ks| snapshot.range(ks, ..).map(|row| number(Some(row.unwrap().1))).sum())
    };
    let is_done = AtomicBool::new(false);
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (db, left, right, acknowledged) = (&db, &left, &right, &acknowledged);
                scope.spawn(move || {
                    let mut state = thread + 1;
                    for round in 0..150_u64 {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let (from, to) = ((state >> 33) % ACCOUNTS, (state >> 43) % ACCOUNTS);
                        db.transact(|tx| {
                            tx.set_durability(match round % 3 {
                                0 => Durability::Memory,
                                1 => Durability::Written,
                                _ => Durability::Synced,
                            });
                            let a = number(tx.get(left, from.to_be_bytes())?);
                            let b = number(tx.get(right, to.to_be_bytes())?);
                            tx.insert(left, from.to_be_bytes(), (a - 1).to_string())?;
                            tx.insert(right, to.to_be_bytes(), (b + 1).to_string())
                        })
                        .unwrap();
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                assert_eq!(total(&db), 200 * ACCOUNTS as i64);
            }
        });
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                db.checkpoint().unwrap();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let expected = 100 * ACCOUNTS as i64 - 600;
    let left_sum: i64 = left.range(..).map(|row| number(Some(row.unwrap().1))).sum();
    assert_eq!(left_sum, expected, "a transfer was lost or doubled");
    db.sync().unwrap();
    let survived = disk.crash();
    drop((left, right, db));
    let db = Db::builder("/store").disk(survived).open().unwrap();
    let left = db.keyspace("left").unwrap();
    let left_sum: i64 = left.range(..).map(|row| number(Some(row.unwrap().1))).sum();
    assert_eq!(left_sum, expected);
    assert_eq!(acknowledged.into_inner(), 600);
}

/// What a savepoint would bring back is memory as well.
#[test]
fn a_transaction_with_a_savepoint_stays_within_its_memory() {
    let db = Db::builder("/store").disk(SimDisk::new(1)).memory_budget(1 << 20).background(false);
    let db = db.open().unwrap();
    let ks = db.keyspace("k").unwrap();
    let mut tx = db.begin();
    let value = vec![7; 50_000];
    (0..100).for_each(|_| tx.insert(&ks, "x", &value).unwrap());
    let savepoint = tx.savepoint();
    let writes = (0..100).take_while(|_| tx.insert(&ks, "x", &value).is_ok()).count();
    assert!(writes < 100, "each keeps the one before");
    tx.rollback_to(&savepoint).unwrap();
    assert_eq!((0..100).take_while(|_| tx.insert(&ks, "x", &value).is_ok()).count(), writes);
    tx.rollback_to(&savepoint).unwrap();
    tx.remove_range(&ks, ..).unwrap();
    tx.rollback_to(&savepoint).unwrap();
    tx.commit().unwrap();
    assert_eq!(&*ks.get("x").unwrap().unwrap(), &value);
}
