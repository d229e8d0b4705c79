//! Values streamed in and out: extents of their own, written before the commit, and what becomes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::mutation::{Group, Mutation};
use seawall_engine::{Db, DbBuilder, Durability, Error, Keyspace, Readable, Result, ValueReader};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::{Fault, Op};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

#[path = "stream/prepared.rs"]
mod prepared;
#[path = "stream/readers.rs"]
mod readers;

/// Values from here on are streamed, in pieces of twice that.
const MIN: usize = 8 << 10;

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/dir/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(1 << 20)
        .background(false)
        .stream(MIN, 2 * MIN)
}

/// Bytes that tell by themselves where they belong.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(byte).collect()
}

fn put(db: &Db, ks: &Keyspace, key: &str, value: &[u8]) {
    let mut tx = db.begin();
    tx.insert_from(ks, key, value.len() as u64, value).unwrap();
    tx.commit().unwrap();
}

fn all(mut reader: ValueReader) -> Vec<u8> {
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    assert_eq!(out.len() as u64, reader.len());
    out
}

fn is_sound(db: &Db) {
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn values_of_every_length_come_back_from_delta_tree_and_log() {
    let disk = SimDisk::new(1);
    let lens = [0, 1, 4096, MIN - 1, MIN, MIN + 1, 2 * MIN, 2 * MIN + 1, 5 * MIN + 77, 40 * MIN];
    let check = |db: &Db, what: &str| {
        let ks = db.keyspace("a").unwrap();
        let snapshot = db.snapshot();
        for (n, len) in lens.into_iter().enumerate() {
            let (key, expected) = (format!("{n}"), bytes(n as u64, len));
            assert!(snapshot.get(&ks, &key).unwrap().unwrap()[..] == expected, "{what}, {len}");
            assert!(all(snapshot.open_value(&ks, &key).unwrap().unwrap()) == expected, "{what}, {len}");
            assert!(db.begin().multi_get(&ks, &[&key]).unwrap()[0].as_deref() == Some(&expected), "{what}");
        }
        let found: Vec<usize> = snapshot.range(&ks, ..).map(|row| row.unwrap().1.len()).collect();
        assert_eq!(found, lens, "{what}");
        assert!(snapshot.open_value(&ks, "none").unwrap().is_none());
        is_sound(db);
    };
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    let mut tx = db.begin();
    for (n, len) in lens.into_iter().enumerate() {
        tx.insert_from(&ks, format!("{n}"), len as u64, &bytes(n as u64, len)[..]).unwrap();
        assert!(all(tx.open_value(&ks, format!("{n}")).unwrap().unwrap()) == bytes(n as u64, len), "its own");
    }
    tx.commit().unwrap();
    check(&db, "in the delta");
    let crashed = disk.crash_copy();
    db.checkpoint().unwrap();
    check(&db, "in the tree");
    db.checkpoint().unwrap();
    drop((ks, db));
    check(&builder(&disk.crash()).open().unwrap(), "in the tree, opened again");
    let db = builder(&crashed).open().unwrap();
    check(&db, "redone");
    db.checkpoint().unwrap();
    check(&db, "redone and folded");
    assert!(builder(&crashed).read_only(true).open().is_err(), "locked");
    drop(db);
    check(&builder(&crashed).read_only(true).open().unwrap(), "read-only");
}

#[test]
fn a_reader_seeks_and_outlives_what_it_came_from() {
    let disk = SimDisk::new(2);
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    let expected = bytes(7, 9 * MIN + 5);
    put(&db, &ks, "k", &expected);
    let mut early = db.snapshot().open_value(&ks, "k").unwrap().unwrap();
    db.checkpoint().unwrap();
    let mut late = db.snapshot().open_value(&ks, "k").unwrap().unwrap();
    // Replaced, folded, and as much written as would take its place.
    for n in 0..6 {
        put(&db, &ks, "k", &bytes(100 + n, 9 * MIN));
        db.checkpoint().unwrap();
    }
    for reader in [&mut early, &mut late] {
        for at in [0, 1, 2 * MIN - 1, 2 * MIN, 7 * MIN + 3, 9 * MIN + 4, 9 * MIN + 5, 100 * MIN] {
            assert_eq!(reader.seek(SeekFrom::Start(at as u64)).unwrap(), at as u64);
            let mut found = [0; 50];
            let mut count = 0;
            while let n @ 1.. = reader.read(&mut found[count..]).unwrap() {
                count += n;
            }
            let end = expected.len().min(at + 50);
            assert_eq!(&found[..count], expected.get(at..end).unwrap_or_default(), "{at}");
        }
        assert_eq!(reader.seek(SeekFrom::End(-5)).unwrap(), expected.len() as u64 - 5);
        assert_eq!(reader.seek(SeekFrom::Current(-5)).unwrap(), expected.len() as u64 - 10);
        assert!(reader.seek(SeekFrom::Current(-1 << 40)).is_err());
        assert_eq!(reader.stream_position().unwrap(), expected.len() as u64 - 10);
    }
    assert!(
        all({
            early.rewind().unwrap();
            early
        }) == expected
    );
}

fn file_bytes(disk: &Arc<SimDisk>) -> u64 {
    disk.read_file("/dir/store/data").unwrap().len() as u64
}

#[test]
fn what_does_not_commit_leaves_nothing() {
    let disk = SimDisk::new(3);
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    put(&db, &ks, "k", &bytes(1, 4 * MIN));
    db.checkpoint().unwrap();
    // In a tree, or dead, or set aside.
    let used = |db: &Db| file_bytes(&disk) - db.stats().free_bytes;
    let before = used(&db);
    let value = bytes(2, 5 * MIN);
    let len = value.len() as u64;
    let mut tx = db.begin();
    for wrong in [len + 1, len - 1, 1 << 29, 10] {
        let error = tx.insert_from(&ks, "k", wrong, &value[..]).unwrap_err();
        assert!(matches!(error, Error::BadInput(_)), "{wrong}: {error}");
    }
    assert!(matches!(tx.insert_from(&ks, "k", (1 << 30) + 1, &value[..]), Err(Error::TooLarge { .. })));
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(std::io::ErrorKind::Interrupted.into()),
                2 => Ok(buf.len()),
                _ => Err(std::io::Error::other("the source is gone")),
            }
        }
    }
    let error = tx.insert_from(&ks, "k", len, Fails(0)).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("source"), "{error}");
    assert_eq!(used(&db), before);
    assert_eq!(tx.get(&ks, "k").unwrap().unwrap().len(), 4 * MIN, "as it was");
    // Replaced within the transaction, taken back by a savepoint, dropped.
    tx.insert_from(&ks, "k", len, &value[..]).unwrap();
    let savepoint = tx.savepoint();
    tx.insert_from(&ks, "k", len, &value[..]).unwrap();
    tx.insert_from(&ks, "l", len, &value[..]).unwrap();
    assert!(used(&db) > before + 2 * len);
    tx.rollback_to(&savepoint).unwrap();
    assert!(used(&db) < before + 2 * len && used(&db) > before);
    let mut reader = tx.open_value(&ks, "k").unwrap().unwrap();
    tx.rollback();
    let mut out = Vec::new();
    reader.read_to_end(&mut out).unwrap();
    assert!(out == value, "a reader holds what it reads");
    drop(reader);
    assert_eq!(used(&db), before);
    // A conflict.
    let mut tx = db.begin();
    tx.insert_from(&ks, "k", len, &value[..]).unwrap();
    put(&db, &ks, "k", b"short");
    assert!(tx.commit().unwrap_err().is_conflict());
    assert_eq!(used(&db), before);
    // While a value waits for its commit a checkpoint says that its space is free, and nobody takes it.
    let mut tx = db.begin();
    tx.insert_from(&ks, "waiting", len, &value[..]).unwrap();
    for n in 0..4 {
        put(&db, &ks, "k", &bytes(n, 3 * MIN));
        db.checkpoint().unwrap();
        is_sound(&db);
        is_sound(&builder(&disk.crash_copy()).open().unwrap());
    }
    tx.commit().unwrap();
    assert!(all(db.snapshot().open_value(&ks, "waiting").unwrap().unwrap()) == value);
    db.checkpoint().unwrap();
    assert!(db.snapshot().get(&ks, "waiting").unwrap().unwrap()[..] == value);
    is_sound(&db);
}

#[test]
fn what_was_replaced_is_free_again() {
    let disk = SimDisk::new(4);
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    let other = db.keyspace("b").unwrap();
    for n in 0..40 {
        put(&db, &ks, "k", &bytes(n, 20 * MIN));
        put(&db, &ks, "l", &bytes(n, 20 * MIN));
        put(&db, &other, "m", &bytes(n, 20 * MIN));
        if n % 2 == 0 {
            let mut tx = db.begin();
            tx.remove_range(&ks, "l"..).unwrap();
            tx.commit().unwrap();
        }
        db.checkpoint().unwrap();
        is_sound(&db);
    }
    db.drop_keyspace(other).unwrap();
    db.checkpoint().unwrap();
    is_sound(&db);
    let bytes = file_bytes(&disk);
    assert!(bytes < 20 * 20 * MIN as u64, "{bytes} for three values of 160 KiB");
}

#[test]
fn damage_in_any_piece_is_named_and_never_shown() {
    let disk = SimDisk::new(5);
    let expected = bytes(3, 7 * MIN);
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    put(&db, &ks, "k", &expected);
    db.checkpoint().unwrap();
    drop((ks, db));
    let file = "/dir/store/data";
    let image = disk.read_file(file).unwrap();
    let mut hit = 0;
    for piece in expected.chunks(2 * MIN) {
        let at =
            image.windows(64).position(|window| window == &piece[..64]).expect("the piece is in the file");
        let disk = disk.crash_copy();
        disk.flip(file, at as u64 + 100, 1).unwrap();
        let db = builder(&disk).open().unwrap();
        let ks = db.keyspace("a").unwrap();
        let snapshot = db.snapshot();
        assert!(matches!(snapshot.get(&ks, "k"), Err(Error::Corruption { .. })));
        let mut reader = snapshot.open_value(&ks, "k").unwrap().unwrap();
        let mut out = Vec::new();
        let error = reader.read_to_end(&mut out).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
        assert!(error.get_ref().is_some_and(|error| error.is::<Error>()));
        assert!(expected.starts_with(&out), "nothing of the damaged piece");
        let problems = db.verify(|_| {}).unwrap().problems;
        assert!(problems.iter().any(|problem| problem.contains(&format!("{at}"))), "{problems:?}");
        hit += 1;
    }
    assert_eq!(hit, 4);
}

const COMMITS: u64 = 18;

type Rows = BTreeMap<String, Vec<u8>>;

fn value_of(n: u64) -> Vec<u8> {
    bytes(n, [3 * MIN + 7, MIN, 100, 2 * MIN + 1][n as usize % 4])
}

fn apply(rows: &mut Rows, n: u64) {
    rows.insert("n".into(), n.to_string().into_bytes());
    if n.is_multiple_of(7) {
        rows.remove(&format!("{}", (n + 1) % 4));
    }
    rows.insert(format!("{}", n % 4), value_of(n));
    rows.insert(format!("{}", (n + 2) % 4), value_of(n + 50));
}

fn commit(db: &Db, ks: &Keyspace, n: u64) -> Result<()> {
    let mut rolled_back = db.begin();
    rolled_back.insert_from(ks, "never", 2 * MIN as u64, &value_of(n + 9)[..]).or_else(
        |error| match error {
            Error::BadInput(_) => Ok(()),
            error => Err(error),
        },
    )?;
    let mut tx = db.begin();
    if n.is_multiple_of(3) {
        tx.set_durability(Durability::Written);
    }
    tx.insert(ks, "n", n.to_string())?;
    if n.is_multiple_of(7) {
        tx.remove(ks, format!("{}", (n + 1) % 4))?;
    }
    for (key, value) in [(n % 4, value_of(n)), ((n + 2) % 4, value_of(n + 50))] {
        tx.insert_from(ks, format!("{key}"), value.len() as u64, &value[..])?;
    }
    drop(rolled_back);
    tx.commit().map(drop)?;
    if n.is_multiple_of(3) { db.sync().map(drop) } else { Ok(()) }
}

fn work(builder: &dyn Fn() -> DbBuilder, done: &mut (u64, u64)) -> Result<()> {
    loop {
        let db = builder().open()?;
        let ks = db.keyspace("a")?;
        loop {
            let n = done.0 + 1;
            if n > COMMITS {
                return db.close();
            }
            done.1 = n;
            match commit(&db, &ks, n) {
                Ok(()) => done.0 = n,
                Err(Error::NoSpace) => continue,
                Err(error) => return Err(error),
            }
            if n.is_multiple_of(4) {
                match db.checkpoint() {
                    Ok(_) | Err(Error::NoSpace) => {}
                    Err(error) => return Err(error),
                }
            }
            if n.is_multiple_of(7) {
                break;
            }
        }
        drop(ks);
        // As if it was killed: the log is replayed.
        drop(db);
    }
}

/// What is wrong, if anything.
fn check(builder: &dyn Fn() -> DbBuilder, done: (u64, u64)) -> std::result::Result<(), String> {
    let db = builder().open().map_err(|error| error.to_string())?;
    let Some(ks) = db.open_keyspace("a").map_err(|error| error.to_string())? else {
        return if done.0 == 0 { Ok(()) } else { Err("all is gone".into()) };
    };
    let found = |db: &Db| -> std::result::Result<Rows, String> {
        let snapshot = db.snapshot();
        let mut rows = Rows::new();
        for row in snapshot.range(&ks, ..) {
            let (key, value) = row.map_err(|error| error.to_string())?;
            rows.insert(String::from_utf8(key.to_vec()).unwrap(), value.to_vec());
        }
        Ok(rows)
    };
    let rows = found(&db)?;
    let n = rows.get("n").map_or(0, |n| std::str::from_utf8(n).unwrap().parse::<u64>().unwrap());
    if n < done.0 || n > done.1 {
        return Err(format!("{n} commits are there, {} acknowledged and {} tried", done.0, done.1));
    }
    let mut model = Rows::new();
    (1..=n).for_each(|n| apply(&mut model, n));
    let problems = db.verify(|_| {}).unwrap().problems;
    if rows != model || !problems.is_empty() {
        return Err(format!("not exactly the first {n} commits, or {problems:?}"));
    }
    // It goes on from there, and a checkpoint finds all extents where they belong.
    for n in n + 1..n + 4 {
        commit(&db, &ks, n).map_err(|error| error.to_string())?;
        apply(&mut model, n);
        db.checkpoint().map_err(|error| error.to_string())?;
    }
    let problems = db.verify(|_| {}).unwrap().problems;
    if found(&db)? != model || !problems.is_empty() {
        return Err(format!("it does not go on after {n}, or {problems:?}"));
    }
    Ok(())
}

fn calls() -> u64 {
    let disk = SimDisk::new(1);
    let mut done = (0, 0);
    let open = || builder(&disk);
    work(&open, &mut done).unwrap();
    assert_eq!(done.0, COMMITS);
    check(&open, done).unwrap();
    disk.calls()
}

#[test]
fn a_power_cut_at_any_call_leaves_a_prefix() {
    for call in 1..=calls() {
        let disk = SimDisk::new(call);
        disk.fail(Fault::power_cut().at_call(call));
        let mut done = (0, 0);
        let _ = work(&|| builder(&disk), &mut done);
        let survived = disk.crash();
        check(&|| builder(&survived.crash_copy()), done).unwrap_or_else(|what| panic!("call {call}: {what}"));
        // A recovery that folds on its way, cut short.
        survived.fail(Fault::power_cut().at_call(call % 23 + 1));
        drop(builder(&survived).replay_bytes(Some(4096)).open());
        let again = survived.crash();
        let open = || builder(&again).replay_bytes(Some(4096));
        check(&open, done).unwrap_or_else(|what| panic!("call {call}, and again: {what}"));
    }
}

#[test]
fn any_call_may_fail() {
    let calls = calls();
    for call in 1..=calls {
        for (name, fault) in [
            ("EIO", Fault::eio(Op::Any)),
            ("ENOSPC", Fault::full(Op::Any)),
            ("a short call", Fault::short(Op::Any)),
            ("a dropped sync", Fault::dropped_sync()),
        ] {
            let disk = SimDisk::new(call);
            disk.fail(fault.at_call(call));
            let mut done = (0, 0);
            let _ = work(&|| builder(&disk), &mut done);
            disk.clear_faults();
            for (how, disk) in [("a power cut", disk.crash_copy()), ("a kill", disk.kill())] {
                check(&|| builder(&disk), done)
                    .unwrap_or_else(|what| panic!("{name} at call {call}, then {how}: {what}"));
            }
        }
    }
}

/// Each mistake shows in one of the runs above.
#[test]
fn what_is_left_out_on_purpose_is_found() {
    for mutation in Mutation::of(Group::Streams) {
        let calls = calls();
        let is_found = (1..=calls).any(|call| {
            let disk = SimDisk::new(call);
            disk.fail(Fault::power_cut().at_call(call));
            let open = |disk: &Arc<SimDisk>| builder(disk).replay_bytes(Some(4096)).mutation(Some(mutation));
            let mut done = (0, 0);
            let worked = work(&|| open(&disk), &mut done);
            let survived = disk.crash();
            let is_odd = matches!(worked, Err(Error::Corruption { .. } | Error::BadInput(_)));
            is_odd || check(&|| open(&survived), done).is_err()
        });
        // Some matter only to what is prepared.
        let is_found = is_found || prepared::is_found(mutation);
        assert!(is_found, "{mutation:?}");
    }
}
