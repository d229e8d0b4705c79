//! What counts as read, beyond the scripts: every way of reading, both ways, keyspaces, memory; and row locks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::{Db, Error, Isolation, Keyspace, Readable, Result, Transaction, TxOptions, WriteBatch};
use seawall_wal::runtime::{Rng, SimRuntime};
use seawall_wal::{Runtime, SimDisk};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn open() -> (Db, Keyspace) {
    let db =
        Db::builder("/store").disk(SimDisk::new(1)).segment_bytes(1 << 20).background(false).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    (db, ks)
}

fn key(n: u64) -> String {
    format!("{n:03}")
}

/// Whether a transaction that reads in this way loses to a change of that key. The rows 10, 20, 30 … 90 are there.
fn loses(read: impl Fn(&mut Transaction, &Keyspace), changed: u64, is_folded: bool) -> bool {
    let (db, ks) = open();
    let mut batch = WriteBatch::new();
    for n in 1..10 {
        batch.insert(&ks, key(n * 10), "old");
    }
    db.write(batch).unwrap();
    let mut tx = db.begin();
    read(&mut tx, &ks);
    tx.insert(&ks, "result", "r").unwrap();
    ks.insert(key(changed), "new").unwrap();
    if is_folded {
        db.checkpoint().unwrap();
    }
    let is_doomed = tx.is_doomed();
    let outcome = tx.commit();
    assert_eq!(outcome.is_err(), is_doomed);
    assert!(outcome.is_ok() || outcome.unwrap_err().is_conflict());
    is_doomed
}

/// These keys, and no others, may not change.
fn depends_on(read: impl Fn(&mut Transaction, &Keyspace), keys: impl IntoIterator<Item = u64>, what: &str) {
    let keys: BTreeSet<u64> = keys.into_iter().collect();
    for changed in 0..100 {
        if changed % 5 == 0 || keys.contains(&changed) != keys.contains(&(changed + 1)) {
            let is_folded = changed % 2 == 0;
            assert_eq!(loses(&read, changed, is_folded), keys.contains(&changed), "{what}: {changed}");
        }
    }
}

#[test]
fn what_was_consumed_counts_and_nothing_else() {
    depends_on(|tx, ks| drop(tx.get(ks, "020").unwrap()), [20], "get");
    depends_on(|tx, ks| drop(tx.get(ks, "025").unwrap()), [25], "get of nothing");
    depends_on(|tx, ks| assert!(tx.contains_key(ks, "020").unwrap()), [20], "contains_key");
    depends_on(|tx, ks| drop(tx.multi_get(ks, &["020", "045"]).unwrap()), [20, 45], "multi_get");
    depends_on(|tx, ks| drop(tx.get_untracked(ks, "020").unwrap()), [], "get_untracked");
    depends_on(|tx, ks| drop(tx.range(ks, ..)), [], "a scan that was never moved");
    depends_on(|tx, ks| drop(tx.range(ks, "015"..).next()), 15..=20, "one row");
    depends_on(|tx, ks| assert!(tx.range(ks, "015".."050").take(3).count() < 100), 15..=40, "three rows");
    depends_on(|tx, ks| assert!(tx.range(ks, "015".."050").count() < 100), 15..50, "to the end");
    depends_on(|tx, ks| assert!(tx.range(ks, "015"..="050").count() < 100), 15..=50, "to the end, included");
    depends_on(|tx, ks| drop(tx.range(ks, ..).next_back()), 90..100, "the last row");
    depends_on(|tx, ks| assert!(tx.range(ks, .."055").rev().take(2).count() < 100), 40..55, "backwards");
    depends_on(
        |tx, ks| assert!(tx.range(ks, "015".."055").rev().count() < 100),
        15..55,
        "backwards to the start",
    );
    depends_on(|tx, ks| assert!(tx.prefix(ks, "03").count() < 100), 30..40, "a prefix");
    depends_on(|tx, ks| assert!(tx.range(ks, "050".."020").count() < 100), [], "no keys");
    let both = |tx: &mut Transaction, ks: &Keyspace| {
        let mut scan = tx.range(ks, "015".."085");
        assert!(scan.next().is_some() && scan.next_back().is_some());
    };
    depends_on(both, (15..=20).chain(80..85), "both ends");
    let meeting = |tx: &mut Transaction, ks: &Keyspace| {
        let mut scan = tx.range(ks, "015".."045");
        assert!(scan.next().is_some() && scan.next_back().is_some() && scan.next().is_some());
        assert!(scan.next_back().is_none());
    };
    depends_on(meeting, 15..45, "ends that meet");
}

#[test]
fn a_cursor_counts_where_it_has_looked() {
    let seek = |tx: &mut Transaction, ks: &Keyspace| tx.cursor(ks).seek("033").unwrap();
    depends_on(seek, [], "a seek alone");
    let peek = |tx: &mut Transaction, ks: &Keyspace| {
        let mut cursor = tx.cursor(ks);
        cursor.seek("033").unwrap();
        assert_eq!(cursor.peek().unwrap().unwrap().0, b"040");
    };
    depends_on(peek, 33..=40, "a peek");
    let around = |tx: &mut Transaction, ks: &Keyspace| {
        let mut cursor = tx.cursor(ks);
        cursor.seek("033").unwrap();
        assert_eq!(cursor.next().unwrap().unwrap().0, b"040");
        assert_eq!(cursor.next().unwrap().unwrap().0, b"050");
        cursor.seek_for_prev("073").unwrap();
        assert_eq!(cursor.prev().unwrap().unwrap().0, b"070");
        assert_eq!(cursor.prev().unwrap().unwrap().0, b"060");
    };
    depends_on(around, (33..=50).chain(60..=73), "there and back");
    let ends = |tx: &mut Transaction, ks: &Keyspace| {
        let mut cursor = tx.cursor(ks);
        assert!(cursor.prev().unwrap().is_none());
        assert!(cursor.next().unwrap().is_some());
        cursor.seek_last().unwrap();
        assert!(cursor.next().unwrap().is_none());
        assert!(cursor.prev().unwrap().is_some());
    };
    depends_on(ends, (0..=10).chain(90..100), "both ends of all");
}

/// A scan or a cursor that outlives the commit has counted all the same, and shows nothing more.
#[test]
fn a_scan_that_is_still_there_counts() {
    let (db, ks) = open();
    (0..20).for_each(|n| assert!(ks.insert(key(n), "v").unwrap() > seawall_engine::Lsn::ZERO));
    let mut tx = db.begin();
    let mut scan = tx.range(&ks, ..);
    let mut cursor = tx.cursor(&ks);
    scan.next().unwrap().unwrap();
    scan.next().unwrap().unwrap();
    cursor.seek("005").unwrap();
    cursor.next().unwrap().unwrap();
    tx.insert(&ks, "result", "r").unwrap();
    ks.insert(key(9), "new").unwrap();
    assert!(!tx.is_doomed());
    ks.insert(key(1), "new").unwrap();
    assert!(tx.is_doomed());
    assert!(tx.commit().unwrap_err().is_conflict());
    assert!(matches!(scan.next(), Some(Err(Error::BadInput(_)))));
    assert!(cursor.next().is_err());
}

#[test]
fn a_keyspace_that_is_dropped_or_made_meanwhile_counts() {
    let (db, ks) = open();
    let other = db.keyspace("other").unwrap();
    ks.insert("x", "1").unwrap();
    let writes = |tx: &mut Transaction| tx.insert(&other, "result", "r").unwrap();
    // Read, and dropped.
    let mut tx = db.begin();
    tx.get(&ks, "absent").unwrap();
    writes(&mut tx);
    let mut scanning = db.begin();
    let scan = scanning.range(&ks, ..);
    writes(&mut scanning);
    db.drop_keyspace(ks).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    // To open a scan is to say that the keyspace is there.
    assert!(scanning.commit().unwrap_err().is_conflict());
    drop(scan);
    // Not there, and made.
    let mut tx = db.begin();
    let made = db.keyspace("made").unwrap();
    assert!(matches!(tx.get(&made, "x"), Err(Error::KeyspaceMissing(_))));
    writes(&mut tx);
    assert!(tx.commit().unwrap_err().is_conflict());
    // A name that was taken.
    let mut tx = db.begin();
    assert!(matches!(tx.create_keyspace("made", Default::default()), Err(Error::BadInput(_))));
    writes(&mut tx);
    db.drop_keyspace(made).unwrap();
    assert!(tx.commit().unwrap_err().is_conflict());
    // A name that was free, for two at once.
    let (mut a, mut b) = (db.begin(), db.begin());
    a.create_keyspace("new", Default::default()).unwrap();
    b.create_keyspace("new", Default::default()).unwrap();
    a.commit().unwrap();
    assert!(b.commit().unwrap_err().is_conflict());
}

/// A read set beyond its budget becomes coarser: no change is missed, and the transaction is not refused.
#[test]
fn a_transaction_that_reads_more_than_memory_allows_still_counts_it_all() {
    let disk = SimDisk::new(1);
    let db = Db::builder("/store").disk(disk).memory_budget(1 << 20).background(false).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    for (changed, is_lost) in [(0_u32, true), (7_777, true), (19_998, true), (50_000, false)] {
        let mut tx = db.begin();
        for n in (0..20_000_u32).step_by(2) {
            tx.get(&ks, n.to_be_bytes()).unwrap();
        }
        tx.insert(&ks, "result", "r").unwrap();
        ks.insert(changed.to_be_bytes(), "new").unwrap();
        assert_eq!(tx.commit().is_err(), is_lost, "{changed}");
    }
}

/// Ranges that others clear, and numbers that others add to, count as changes of what was read.
#[test]
fn clears_and_adds_of_others_count() {
    let (db, ks) = open();
    type Read = fn(&mut Transaction, &Keyspace);
    let reads: [(Read, bool, bool); 6] = [
        (|tx, ks| drop(tx.get(ks, "n").unwrap()), true, true),
        (|tx, ks| drop(tx.get(ks, "m").unwrap()), true, false),
        (|tx, ks| drop(tx.get(ks, "z").unwrap()), false, false),
        (|tx, ks| assert!(tx.range(ks, "l".."o").count() < 9), true, true),
        (|tx, ks| assert!(tx.range(ks, "x"..).count() < 9), false, false),
        // One's own sum is read over what others have made of the row.
        (
            |tx, ks| {
                tx.add_i64(ks, "n", 1).unwrap();
                tx.get(ks, "n").unwrap();
            },
            true,
            true,
        ),
    ];
    for (i, (read, loses_to_clear, loses_to_add)) in reads.into_iter().enumerate() {
        for is_folded in [false, true] {
            for is_clear in [false, true] {
                db.write(std::mem::take(WriteBatch::new().remove_range(&ks, ..))).unwrap();
                ks.insert("n", 7_i64.to_le_bytes()).unwrap();
                let mut tx = db.begin();
                read(&mut tx, &ks);
                tx.insert(&ks, "result", "r").unwrap();
                let mut batch = WriteBatch::new();
                if is_clear {
                    batch.remove_range(&ks, "m".."p");
                } else {
                    batch.add_i64(&ks, "n", 1);
                }
                db.write(batch).unwrap();
                if is_folded {
                    db.checkpoint().unwrap();
                }
                let loses = if is_clear { loses_to_clear } else { loses_to_add };
                assert_eq!(tx.commit().is_err(), loses, "{i}, folded {is_folded}, a clear {is_clear}");
            }
        }
    }
    // Adds alone lose to nobody who adds, and a lock's snapshot does not move over what an add has looked at.
    let (mut a, mut b) = (db.begin(), db.begin());
    a.add_i64(&ks, "sum", 1).unwrap();
    b.add_i64(&ks, "sum", 1).unwrap();
    a.commit().unwrap();
    b.commit().unwrap();
    let mut tx = db.begin();
    tx.add_i64(&ks, "sum", 1).unwrap();
    ks.insert("sum", "no number").unwrap();
    ks.insert("x", "newer").unwrap();
    assert!(tx.get_for_update(&ks, "x").unwrap_err().is_conflict());
    assert!(tx.commit().unwrap_err().is_conflict());
}

/// Disjoint transactions do not meet, and who reads only never loses.
#[test]
fn nobody_loses_without_a_cause() {
    let (db, ks) = open();
    (0..100).for_each(|n| assert!(ks.insert(key(n), "0").unwrap() > seawall_engine::Lsn::ZERO));
    let mut rng = Rng::new(5);
    for _ in 0..50 {
        let middle = 10 + rng.below(80);
        let (mut a, mut b) = (db.begin(), db.begin());
        let reader = db.begin();
        assert_eq!(a.range(&ks, ..key(middle)).count() as u64, middle);
        assert_eq!(b.range(&ks, key(middle)..).count() as u64, 100 - middle);
        assert_eq!(reader.range(&ks, ..).count(), 100);
        a.insert(&ks, key(rng.below(middle)), "a").unwrap();
        b.insert(&ks, key(middle + rng.below(100 - middle)), "b").unwrap();
        a.commit().unwrap();
        b.commit().unwrap();
        assert!(!reader.is_doomed());
        reader.commit().unwrap();
    }
    assert_eq!(db.stats().conflicts, 0);
}

#[test]
fn a_store_or_a_transaction_chooses_its_level() {
    let disk = SimDisk::new(1);
    let db =
        Db::builder("/store").disk(disk).isolation(Isolation::Snapshot).background(false).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    for (isolation, is_lost) in
        [(None, false), (Some(Isolation::Snapshot), false), (Some(Isolation::Serializable), true)]
    {
        let mut tx = db.begin_with(TxOptions { isolation, ..Default::default() });
        tx.get(&ks, "x").unwrap();
        tx.insert(&ks, "y", "1").unwrap();
        ks.insert("x", "2").unwrap();
        assert_eq!(tx.commit().is_err(), is_lost, "{isolation:?}");
    }
}

/// Those who count under a lock never lose, however many they are.
#[test]
fn those_who_lock_first_do_not_lose() {
    for seed in 0..20 {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::with_runtime(seed, runtime.clone());
        let db = Db::builder("/store")
            .disk(disk)
            .runtime(runtime.clone())
            .segment_bytes(1 << 20)
            .background(false)
            .open()
            .unwrap();
        let ks = db.keyspace("k").unwrap();
        let isolation = Some(if seed % 2 == 0 { Isolation::Serializable } else { Isolation::Snapshot });
        let threads: Vec<_> = (0..5)
            .map(|thread| {
                let (db, ks) = (db.clone(), ks.clone());
                let body = move || {
                    for round in 0..6 {
                        let options = TxOptions { isolation, retries_max: Some(0), ..Default::default() };
                        let mut tx = db.begin_with(options);
                        let old = tx.get_for_update(&ks, "n").unwrap().map_or(0, |value| value[0]);
                        tx.insert(&ks, "n", [old + 1]).unwrap();
                        if (thread + round) % 3 == 0 {
                            // The lock stays until the commit is visible.
                            tx.commit_pipelined().unwrap().wait().unwrap();
                        } else {
                            tx.commit().unwrap();
                        }
                    }
                };
                runtime.spawn("counter", Box::new(body)).unwrap()
            })
            .collect();
        for thread in threads {
            assert!(!thread.join(), "seed {seed}");
        }
        assert_eq!(ks.get("n").unwrap().unwrap()[0], 30);
        assert_eq!(db.stats().conflicts, 0);
        drop(ks);
        db.close().unwrap();
    }
}

#[test]
fn a_lock_lasts_until_the_end_whatever_end_it_is() {
    let (db, ks) = open();
    let impatient = || TxOptions { lock_timeout: Some(Duration::ZERO), ..Default::default() };
    let is_free = || db.begin_with(impatient()).get_for_update(&ks, "x").is_ok();
    let held = || {
        let mut tx = db.begin_with(impatient());
        tx.get_for_update(&ks, "x").unwrap();
        assert!(!is_free());
        tx
    };
    held().commit().unwrap();
    assert!(is_free());
    held().rollback();
    assert!(is_free());
    drop(held());
    assert!(is_free());
    let mut tx = held();
    let savepoint = tx.savepoint();
    tx.rollback_to(&savepoint).unwrap();
    assert!(!is_free(), "a savepoint is no end");
    tx.insert(&ks, "x", "1").unwrap();
    let ticket = tx.commit_pipelined().unwrap();
    assert!(!is_free(), "not visible yet");
    ticket.wait().unwrap();
    assert!(is_free());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.transact(|tx| -> Result<()> {
            tx.get_for_update(&ks, "x")?;
            tx.insert(&ks, "x", "never")?;
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err() && is_free());
    assert_eq!(ks.get("x").unwrap().unwrap(), "1");
    let mut reading = db.begin_with(TxOptions { read_only: true, ..Default::default() });
    assert!(matches!(reading.get_for_update(&ks, "x"), Err(Error::ReadOnly)));
}

/// Two that lock each other's rows: one is told, the other goes on at once, and both come through in the end.
#[test]
fn a_deadlock_is_told_to_one_and_tried_again() {
    for seed in 0..20 {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::with_runtime(seed, runtime.clone());
        let db = Db::builder("/store")
            .disk(disk)
            .runtime(runtime.clone())
            .segment_bytes(1 << 20)
            .background(false)
            .open()
            .unwrap();
        let ks = db.keyspace("k").unwrap();
        let deadlocks = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = [["x", "y"], ["y", "x"]]
            .into_iter()
            .map(|[first, second]| {
                let (db, ks, sleeper, deadlocks) =
                    (db.clone(), ks.clone(), runtime.clone(), Arc::clone(&deadlocks));
                let body = move || {
                    db.transact(|tx| {
                        tx.get_for_update(&ks, first)?;
                        sleeper.sleep(Duration::from_micros(50));
                        let got = tx.get_for_update(&ks, second);
                        if let Err(Error::Deadlock) = got {
                            deadlocks.fetch_add(1, Ordering::SeqCst);
                            assert!(tx.is_doomed());
                            assert!(matches!(tx.get_for_update(&ks, second), Err(Error::Deadlock)));
                        }
                        got?;
                        tx.insert(&ks, first, first)
                    })
                    .unwrap();
                };
                runtime.spawn("locker", Box::new(body)).unwrap()
            })
            .collect();
        for thread in threads {
            assert!(!thread.join(), "seed {seed}");
        }
        assert!(deadlocks.load(Ordering::SeqCst) > 0, "seed {seed}: nobody was told");
        assert!(
            runtime.now() < Duration::from_millis(500),
            "seed {seed}: somebody waited until time was over"
        );
        assert_eq!(ks.range(..).count(), 2);
        drop(ks);
        db.close().unwrap();
    }
}

#[derive(Debug)]
enum Own {
    Refused,
    Store(Error),
}

impl From<Error> for Own {
    fn from(error: Error) -> Own {
        Own::Store(error)
    }
}

#[test]
fn what_is_lost_is_tried_again_and_what_fails_is_not() {
    let (db, ks) = open();
    let mut runs = 0;
    let racing = |runs: &mut u32, tx: &mut Transaction| -> Result<()> {
        *runs += 1;
        tx.get(&ks, "x")?;
        if *runs < 4 {
            ks.insert("x", runs.to_string())?;
        }
        tx.insert(&ks, "y", runs.to_string())
    };
    db.transact(|tx| racing(&mut runs, tx)).unwrap();
    assert_eq!((runs, ks.get("y").unwrap().unwrap().to_vec()), (4, b"4".to_vec()));
    // Not more often than asked for.
    let mut runs = 0;
    let options = TxOptions { retries_max: Some(2), ..Default::default() };
    let lost = db.transact_with(options, |tx| {
        runs += 1;
        tx.get(&ks, "x")?;
        ks.insert("x", runs.to_string())?;
        tx.insert(&ks, "z", "never")
    });
    assert!(lost.unwrap_err().is_conflict() && runs == 3);
    // An error of one's own ends it and leaves nothing.
    let mut runs = 0;
    let refused = db.try_transact(|tx| -> Result<(), Own> {
        runs += 1;
        tx.insert(&ks, "z", "never")?;
        Err(Own::Refused)
    });
    assert!(matches!(refused, Err(Own::Refused)) && runs == 1);
    // An error that comes of having lost does not.
    let mut runs = 0;
    db.try_transact(|tx| -> Result<(), Own> {
        runs += 1;
        tx.get(&ks, "y")?;
        if runs == 1 {
            ks.insert("y", "other")?;
            ks.insert("x", "other")?;
        }
        tx.get_for_update(&ks, "x")?;
        Ok(tx.insert(&ks, "x", "mine")?)
    })
    .unwrap();
    assert_eq!(runs, 2);
    assert!(ks.get("z").unwrap().is_none());
    let failed = db.try_transact(|tx| -> Result<(), Own> { Ok(tx.insert(&ks, vec![0; 70_000], "")?) });
    assert!(matches!(failed, Err(Own::Store(Error::TooLarge { .. }))));
}
