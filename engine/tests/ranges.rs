//! Ranges that are removed, and rows that are added to: what they come to, and what they conflict with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::{Db, Error, Keyspace, Readable, Result, Transaction, WriteBatch};
use seawall_wal::SimDisk;
use std::ops::Bound;
use std::sync::Arc;

fn open(disk: &Arc<SimDisk>) -> Db {
    Db::builder("/store").disk(disk.clone()).segment_bytes(1 << 20).background(false).open().unwrap()
}

fn keys(reader: &impl Readable, ks: &Keyspace) -> Vec<String> {
    let forward: Vec<String> =
        reader.range(ks, ..).keys().map(|key| String::from_utf8(key.unwrap().to_vec()).unwrap()).collect();
    let mut backward: Vec<String> =
        reader.range(ks, ..).rev().map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap()).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    assert!(forward.iter().all(|key| reader.get(ks, key).unwrap().is_some()));
    forward
}

fn number(reader: &impl Readable, ks: &Keyspace, key: &str) -> Option<i64> {
    let value = reader.get(ks, key).unwrap();
    let row = reader.range(ks, key..=key).next().map(|row| row.unwrap().1);
    assert_eq!(value, row, "get and scan");
    value.map(|value| i64::from_le_bytes(value.to_vec().try_into().unwrap()))
}

fn fill(ks: &Keyspace, names: &str) {
    for name in names.split(' ') {
        ks.insert(name, "old").unwrap();
    }
}

#[test]
fn every_kind_of_bound_removes_what_a_scan_of_it_shows() {
    let db = open(&SimDisk::new(1));
    let bounds = [
        Bound::Unbounded,
        Bound::Included("b"),
        Bound::Excluded("b"),
        Bound::Included("bb"),
        Bound::Excluded("bb"),
        Bound::Included("d"),
        Bound::Excluded("d"),
    ];
    let names = "a b b\0 ba bb bb\0 c d d\0 e";
    for from in bounds {
        for to in bounds {
            for folded in [false, true] {
                let ks = db.keyspace("k").unwrap();
                fill(&ks, names);
                if folded {
                    db.checkpoint().unwrap();
                }
                let shown: Vec<_> = ks.range((from, to)).keys().map(|key| key.unwrap().to_vec()).collect();
                let left: Vec<&str> =
                    names.split(' ').filter(|name| !shown.iter().any(|key| key == name.as_bytes())).collect();
                db.transact(|tx| tx.remove_range(&ks, (from, to))).unwrap();
                assert_eq!(keys(&db.snapshot(), &ks), left, "{from:?} to {to:?}");
                db.checkpoint().unwrap();
                assert_eq!(keys(&db.snapshot(), &ks), left, "{from:?} to {to:?}, folded");
                db.drop_keyspace(ks).unwrap();
            }
        }
    }
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_range_without_keys_removes_nothing_and_a_bound_that_is_no_key_is_refused() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    fill(&ks, "a b c");
    let before = db.stats().commits;
    let mut tx = db.begin();
    tx.remove_range(&ks, "c".."a").unwrap();
    tx.remove_range(&ks, "b".."b").unwrap();
    tx.remove_range(&ks, (Bound::Excluded("b"), Bound::Excluded("b\0"))).unwrap();
    tx.commit().unwrap();
    assert_eq!(db.stats().commits, before, "there was nothing to commit");
    let mut batch = WriteBatch::new();
    batch.remove_range(&ks, "c".."a");
    assert!(batch.is_empty());
    let long = vec![b'x'; 65_536];
    let longest = &long[..65_535];
    batch.remove_range(&ks, &long[..]..);
    assert!(matches!(db.write(batch), Err(Error::TooLarge { what: "key", .. })));
    let mut tx = db.begin();
    assert!(matches!(tx.remove_range(&ks, ..&long[..]), Err(Error::TooLarge { what: "key", .. })));
    // The longest key has a place behind it all the same.
    ks.insert(longest, "longest").unwrap();
    db.transact(|tx| tx.remove_range(&ks, (Bound::Excluded(longest), Bound::Unbounded))).unwrap();
    assert_eq!(ks.range(..).count(), 4);
    db.transact(|tx| tx.remove_range(&ks, (Bound::Excluded(&b"c"[..]), Bound::Included(longest)))).unwrap();
    assert_eq!(ks.range(..).count(), 3);
}

/// The same operations by transaction and by batch; one record each, whatever they remove.
#[test]
fn operations_apply_in_call_order() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    for by_batch in [false, true] {
        let ks = db.keyspace("k").unwrap();
        let n = 5_i64.to_le_bytes();
        fill(&ks, "a b c z");
        ks.insert("n", n).unwrap();
        if by_batch {
            let mut batch = WriteBatch::new();
            batch.insert(&ks, "b", "1").insert(&ks, "c", "1").add_i64(&ks, "n", 1);
            batch.remove_range(&ks, "a".."y").insert(&ks, "b", "2").add_i64(&ks, "n", 7);
            batch.add_i64(&ks, "n", 1).add_i64(&ks, "m", 2).remove(&ks, "m").add_i64(&ks, "m", 3);
            batch.insert(&ks, "l", n).add_i64(&ks, "l", -6);
            db.write(batch).unwrap();
        } else {
            let mut tx = db.begin();
            tx.insert(&ks, "b", "1").unwrap();
            tx.insert(&ks, "c", "1").unwrap();
            tx.add_i64(&ks, "n", 1).unwrap();
            assert_eq!(number(&tx, &ks, "n"), Some(6));
            let savepoint = tx.savepoint();
            tx.remove_range(&ks, ..).unwrap();
            tx.add_i64(&ks, "n", 100).unwrap();
            tx.insert(&ks, "q", "gone").unwrap();
            assert_eq!((keys(&tx, &ks), number(&tx, &ks, "n")), (vec!["n".into(), "q".into()], Some(100)));
            tx.rollback_to(&savepoint).unwrap();
            assert_eq!(keys(&tx, &ks), ["a", "b", "c", "n", "z"]);
            assert_eq!(number(&tx, &ks, "n"), Some(6));
            tx.remove_range(&ks, "a".."y").unwrap();
            assert_eq!(tx.multi_get(&ks, &["a", "z"]).unwrap()[0], None);
            tx.insert(&ks, "b", "2").unwrap();
            tx.add_i64(&ks, "n", 7).unwrap();
            tx.add_i64(&ks, "n", 1).unwrap();
            tx.add_i64(&ks, "m", 2).unwrap();
            tx.remove(&ks, "m").unwrap();
            tx.add_i64(&ks, "m", 3).unwrap();
            tx.insert(&ks, "l", n).unwrap();
            tx.add_i64(&ks, "l", -6).unwrap();
            assert_eq!(keys(&tx, &ks), ["b", "l", "m", "n", "z"]);
            tx.commit().unwrap();
        }
        for folded in [false, true] {
            let reader = db.snapshot();
            assert_eq!(keys(&reader, &ks), ["b", "l", "m", "n", "z"], "by batch {by_batch}, folded {folded}");
            assert_eq!(ks.get("b").unwrap().unwrap(), "2");
            let numbers = ["l", "m", "n"].map(|key| number(&reader, &ks, key));
            assert_eq!(numbers, [Some(-1), Some(3), Some(8)]);
            db.sync().unwrap();
            let replayed = open(&disk.crash_copy());
            let again = replayed.open_keyspace("k").unwrap().unwrap();
            assert_eq!(keys(&replayed.snapshot(), &again), ["b", "l", "m", "n", "z"]);
            db.checkpoint().unwrap();
        }
        db.drop_keyspace(ks).unwrap();
    }
}

#[test]
fn many_rows_go_by_one_small_record() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..20_000_u32 {
        batch.insert(&ks, n.to_be_bytes(), [1; 40]);
    }
    db.write(batch).unwrap();
    db.checkpoint().unwrap();
    let (old, before) = (db.snapshot(), db.stats());
    db.transact(|tx| tx.remove_range(&ks, 100_u32.to_be_bytes()..)).unwrap();
    let after = db.stats();
    assert!(after.log_payload_bytes - before.log_payload_bytes < 200);
    assert!(after.delta_bytes - before.delta_bytes < 20_000, "{}", after.delta_bytes - before.delta_bytes);
    assert_eq!(
        (ks.range(..).count(), ks.range(..).rev().count(), old.range(&ks, ..).count()),
        (100, 100, 20_000)
    );
    let mut cursor = db.snapshot().cursor(&ks);
    cursor.seek(99_u32.to_be_bytes()).unwrap();
    assert!(cursor.next().unwrap().is_some() && cursor.next().unwrap().is_none());
    db.checkpoint().unwrap();
    assert_eq!((ks.range(..).count(), old.range(&ks, ..).count()), (100, 20_000));
    drop(old);
    db.checkpoint().unwrap();
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn numbers_wrap_begin_at_nothing_and_must_be_numbers() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    for _ in 0..3 {
        db.transact(|tx| tx.add_i64(&ks, "n", i64::MAX)).unwrap();
    }
    assert_eq!(number(&db.snapshot(), &ks, "n"), Some(i64::MAX.wrapping_mul(3)));
    assert!(db.snapshot().contains_key(&ks, "n").unwrap());
    for (name, value) in [("text", "text"), ("empty", ""), ("nine", "123456789")] {
        ks.insert(name, value).unwrap();
        for folded in [false, true] {
            let mut tx = db.begin();
            let refused = tx.add_i64(&ks, name, 1);
            assert!(matches!(&refused, Err(Error::BadInput(what)) if what.contains(name)), "{refused:?}");
            assert_eq!(tx.commit().unwrap(), db.snapshot().lsn());
            let mut batch = WriteBatch::new();
            batch.insert(&ks, "other", "1").add_i64(&ks, name, 1);
            assert!(matches!(db.write(batch), Err(Error::BadInput(_))));
            assert!(ks.get("other").unwrap().is_none() && ks.get(name).unwrap().unwrap() == *value);
            if !folded {
                db.checkpoint().unwrap();
            }
        }
    }
    let mut tx = db.begin();
    tx.insert(&ks, "mine", "text").unwrap();
    assert!(matches!(tx.add_i64(&ks, "mine", 1), Err(Error::BadInput(_))));
    let mut batch = WriteBatch::new();
    batch.insert(&ks, "mine", "text").add_i64(&ks, "mine", 1);
    assert!(matches!(db.write(batch), Err(Error::BadInput(_))));
}

type Write = fn(&mut Transaction, &Keyspace) -> Result<()>;

const WRITES: [(&str, Write); 7] = [
    ("put", |tx, ks| tx.insert(ks, "m", 1_i64.to_le_bytes())),
    ("remove", |tx, ks| tx.remove(ks, "m")),
    ("add", |tx, ks| tx.add_i64(ks, "m", 1)),
    ("add after put", |tx, ks| tx.insert(ks, "m", 1_i64.to_le_bytes()).and_then(|()| tx.add_i64(ks, "m", 1))),
    ("clear", |tx, ks| tx.remove_range(ks, "l".."m\0")),
    ("clear of more", |tx, ks| tx.remove_range(ks, "a"..="m")),
    ("elsewhere", |tx, ks| {
        tx.insert(ks, "n", "other")?;
        tx.remove(ks, "k")?;
        tx.add_i64(ks, "mm", 1)?;
        tx.remove_range(ks, (Bound::Excluded("m"), Bound::Excluded("mb")))?;
        tx.remove_range(ks, "b".."c")
    }),
];

/// Of two that run beside each other, whatever they write: both commit only if both add, or they write to different
/// places. And that in whichever delta the first stands by then.
#[test]
fn whatever_writes_a_row_conflicts_and_adds_do_not() {
    for (first, a) in WRITES {
        for (second, b) in WRITES {
            for checkpoints in 0..3 {
                let db = open(&SimDisk::new(1));
                let ks = db.keyspace("k").unwrap();
                ks.insert("m", 10_i64.to_le_bytes()).unwrap();
                let (mut winner, mut loser) = (db.begin(), db.begin());
                a(&mut winner, &ks).unwrap();
                b(&mut loser, &ks).unwrap();
                winner.commit().unwrap();
                for _ in 0..checkpoints {
                    db.checkpoint().unwrap();
                    ks.insert("z", "in the next delta").unwrap();
                }
                let is_here = |name: &str| name != "elsewhere";
                let both_elsewhere = !is_here(first) && !is_here(second);
                let clears_k = |name: &str| name == "clear of more";
                // "clear of more" takes "k" and "b" too, which "elsewhere" writes.
                let meet = (is_here(first) && is_here(second))
                    || both_elsewhere
                    || (clears_k(first) && !is_here(second))
                    || (clears_k(second) && !is_here(first));
                let expected = meet && !(first == "add" && second == "add");
                assert_eq!(loser.is_doomed(), expected, "{first}, then {second}");
                let committed = loser.commit();
                assert_eq!(committed.is_err(), expected, "{first}, then {second}: {committed:?}");
                assert!(committed.is_ok() || committed.is_err_and(|error| error.is_conflict()));
                if first == "add" && second == "add" {
                    assert_eq!(number(&db.snapshot(), &ks, "m"), Some(12));
                }
            }
        }
    }
}

/// A batch is blind, and adds to what stands there by then.
#[test]
fn a_batch_never_conflicts_and_is_noticed() {
    for (name, write) in WRITES.iter().take(6) {
        let db = open(&SimDisk::new(1));
        let ks = db.keyspace("k").unwrap();
        ks.insert("m", 10_i64.to_le_bytes()).unwrap();
        let mut tx = db.begin();
        write(&mut tx, &ks).unwrap();
        let mut batch = WriteBatch::new();
        batch.add_i64(&ks, "m", 5);
        db.write(batch).unwrap();
        assert_eq!(number(&db.snapshot(), &ks, "m"), Some(15));
        assert_eq!(tx.commit().is_err(), *name != "add", "{name} after a batch's add");
        let mut tx = db.begin();
        write(&mut tx, &ks).unwrap();
        let mut batch = WriteBatch::new();
        batch.remove_range(&ks, "m"..="m");
        db.write(batch).unwrap();
        assert!(tx.commit().unwrap_err().is_conflict(), "{name} after a batch's clear");
    }
}

#[test]
fn a_row_added_to_very_often_is_one_number_at_every_snapshot() {
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let mut snapshots = Vec::new();
    for n in 0..3000_i64 {
        let mut batch = WriteBatch::new();
        batch.add_i64(&ks, "hot", 1);
        db.write(batch).unwrap();
        if n % 500 == 17 {
            snapshots.push((db.snapshot(), n + 1));
        }
        if n % 1000 == 700 {
            db.checkpoint().unwrap();
        }
        if n == 1500 {
            db.transact(|tx| tx.remove_range(&ks, ..)).unwrap();
        }
    }
    for (snapshot, expected) in &snapshots {
        let expected = if *expected > 1501 { expected - 1501 } else { *expected };
        assert_eq!(number(snapshot, &ks, "hot"), Some(expected));
    }
    assert_eq!(number(&db.snapshot(), &ks, "hot"), Some(1499));
}
