//! Runs beside a tree that is larger than the cache: written where they pay, read like rows of the tree, taken in later.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and waits for a thread of the system"
)]

use seawall_engine::{Db, DbBuilder, Durability, Keyspace, Readable, WriteBatch};
use seawall_wal::SimDisk;
use seawall_wal::disk::Disk;
use seawall_wal::runtime::Rng;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ROWS: u64 = 60_000;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/store").disk(disk.clone()).segment_bytes(256 << 10).memory_budget(1 << 20).background(false)
}

fn key(n: u64) -> Vec<u8> {
    format!("row/{n:08}").into_bytes()
}

/// Several megabytes of rows, far more than the cache has room for.
fn loaded(db: &Db) -> (Keyspace, Rows) {
    let keyspace = db.keyspace("rows").unwrap();
    let mut rows = Rows::new();
    for from in (0..ROWS).step_by(1000) {
        let mut batch = WriteBatch::new();
        for n in from..from + 1000 {
            batch.insert(&keyspace, key(n), n.to_le_bytes().repeat(12));
            rows.insert(key(n), n.to_le_bytes().repeat(12));
        }
        db.write_with(batch, Durability::Written).unwrap();
        if from % 4000 == 0 {
            db.checkpoint().unwrap();
        }
    }
    db.checkpoint().unwrap();
    (keyspace, rows)
}

/// Updates of random rows, with removals, adds and now and then a range.
fn change(db: &Db, keyspace: &Keyspace, rng: &mut Rng, rows: &mut Rows, count: u64) {
    let mut batch = WriteBatch::new();
    if rng.chance(1, 5) {
        let (from, to) = (rng.below(ROWS), rng.below(40));
        let (from, to) = (key(from), key(from + to));
        rows.retain(|key, _| !(from <= *key && *key < to));
        batch.remove_range(keyspace, (Bound::Included(from), Bound::Excluded(to)));
    }
    for _ in 0..count {
        let n = rng.below(ROWS);
        match rng.below(12) {
            0 => {
                batch.remove(keyspace, key(n));
                rows.remove(&key(n));
            }
            1 => {
                let key = [b"count/", &key(n % 500)[..]].concat();
                batch.add_i64(keyspace, key.clone(), n as i64);
                let old = rows.get(&key).map_or(0, |old| i64::from_le_bytes(old[..].try_into().unwrap()));
                rows.insert(key, old.wrapping_add(n as i64).to_le_bytes().to_vec());
            }
            _ => {
                let value = rng.next_u64().to_le_bytes().repeat(12);
                batch.insert(keyspace, key(n), &value);
                rows.insert(key(n), value);
            }
        }
    }
    db.write_with(batch, Durability::Written).unwrap();
}

fn check(db: &Db, keyspace: &Keyspace, rows: &Rows, what: &str) {
    let snapshot = db.snapshot();
    let mut expected = rows.iter();
    for row in snapshot.range(keyspace, ..) {
        let (key, value) = row.unwrap();
        let (wanted, there) = expected.next().unwrap();
        assert!(key == wanted[..] && value == there[..], "{what}: {}", key.escape_ascii());
    }
    assert!(expected.next().is_none(), "{what}: rows are missing");
    let back: Vec<Vec<u8>> =
        snapshot.range(keyspace, ..).keys().rev().take(3000).map(|key| key.unwrap().to_vec()).collect();
    assert!(back.iter().eq(rows.keys().rev().take(3000)), "{what}: backwards");
    let keys: Vec<Vec<u8>> = (0..ROWS + 10).step_by(7).map(key).collect();
    let many = snapshot.multi_get(keyspace, &keys).unwrap();
    for (key, found) in keys.iter().zip(many) {
        let wanted = rows.get(key).map(|value| &value[..]);
        assert_eq!(found.as_deref(), wanted, "{what}: {} of many", key.escape_ascii());
        assert_eq!(snapshot.get(keyspace, key).unwrap().as_deref(), wanted, "{what}: {}", key.escape_ascii());
        assert_eq!(snapshot.contains_key(keyspace, key).unwrap(), wanted.is_some(), "{what}");
    }
    let report = db.verify(|_| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "{what}");
}

#[test]
fn thinly_spread_updates_of_a_large_tree_become_runs() {
    let disk = SimDisk::new(1);
    let db = builder(&disk).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(1);
    let (mut most, mut written, mut user) = (0, 0, 0);
    let mut db = db;
    let mut keyspace = keyspace;
    for round in 0..40 {
        let old = db.snapshot();
        let then = rows.clone();
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        let made = db.checkpoint().unwrap();
        most = most.max(db.stats().runs);
        if round > 10 {
            (written, user) = (written + made.bytes, user + 1500 * 108);
        }
        if round % 8 == 0 {
            check(&db, &keyspace, &rows, &format!("round {round}"));
            let at = rng.below(ROWS);
            let range = (Bound::Included(key(at)), Bound::Unbounded);
            let shown: Rows = old
                .range(&keyspace, range)
                .take(50)
                .map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
                .collect();
            assert!(then.range(key(at)..).take(50).eq(shown.iter()), "round {round}: an older snapshot");
        }
        drop(old);
        if round == 20 {
            // What is beside the tree is there after a crash, too.
            drop((db, keyspace));
            let disk = disk.crash();
            db = builder(&disk).open().unwrap();
            keyspace = db.keyspace("rows").unwrap();
            // It goes on on the other disk.
            check(&db, &keyspace, &rows, "after a crash");
            assert!(db.stats().runs > 1);
        }
    }
    assert!((4..=24).contains(&most), "{most} runs");
    // Folding would have written two thirds of the tree each time: forty times as much as was changed.
    assert!(written < 16 * user, "{written} bytes for {user}");
    let metrics = db.stats().to_prometheus();
    assert!(metrics.contains("seawall_runs ") && metrics.contains("seawall_run_bytes "), "{metrics}");
}

#[test]
fn what_fits_in_the_cache_is_folded() {
    let disk = SimDisk::new(2);
    let db = builder(&disk).memory_budget(64 << 20).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(2);
    for _ in 0..4 {
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        db.checkpoint().unwrap();
        assert_eq!(db.stats().runs, 0);
    }
}

#[test]
fn what_lies_close_together_is_folded() {
    let disk = SimDisk::new(3);
    let db = builder(&disk).open().unwrap();
    let (keyspace, _) = loaded(&db);
    for round in 0..6 {
        let mut batch = WriteBatch::new();
        for n in 0..1500 {
            batch.insert(&keyspace, key(round * 3000 + n), n.to_le_bytes().repeat(12));
        }
        db.write_with(batch, Durability::Written).unwrap();
        db.checkpoint().unwrap();
        assert_eq!(db.stats().runs, 0);
    }
}

/// A store that is left alone has none of them a little later.
#[test]
fn an_idle_store_takes_its_runs_in() {
    let disk = SimDisk::new(4);
    let db = builder(&disk).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(4);
    for _ in 0..3 {
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        db.checkpoint().unwrap();
    }
    assert!(db.stats().runs > 0);
    db.close().unwrap();
    drop(keyspace);
    let db = builder(&disk).background(true).open().unwrap();
    let keyspace = db.keyspace("rows").unwrap();
    let mut waited = 0;
    while db.stats().runs > 0 {
        std::thread::sleep(Duration::from_millis(50));
        waited += 1;
        assert!(waited < 1200, "{:?}", db.stats());
    }
    check(&db, &keyspace, &rows, "at rest");
}

/// A checkpoint that brings nothing but a range removed is no reason to take all runs in.
#[test]
fn a_range_removed_alone_folds_nothing_else() {
    let disk = SimDisk::new(5);
    let db = builder(&disk).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(5);
    while db.stats().runs < 3 {
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        db.checkpoint().unwrap();
    }
    let mut batch = WriteBatch::new();
    let (from, to) = (key(4000), key(4010));
    batch.remove_range(&keyspace, (Bound::Included(from.clone()), Bound::Excluded(to.clone())));
    rows.retain(|key, _| !(from <= *key && *key < to));
    db.write_with(batch, Durability::Written).unwrap();
    let made = db.checkpoint().unwrap();
    assert!(db.stats().runs >= 3, "all runs were folded");
    assert!(made.bytes < 1 << 20, "{} bytes for a range of ten rows", made.bytes);
    check(&db, &keyspace, &rows, "without the range");
}

/// Taking runs in is no duty: where the disk has no room for it, a checkpoint of a store at rest has nothing to do.
#[test]
fn a_full_disk_leaves_the_runs_of_a_store_at_rest() {
    let disk = SimDisk::new(6);
    let db = builder(&disk).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(6);
    while db.stats().runs < 3 {
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        db.checkpoint().unwrap();
    }
    // What is replaced stays.
    let old = db.snapshot();
    let capacity = 1 << 30;
    disk.set_capacity(capacity);
    let used = capacity - disk.free_bytes(Path::new("/")).unwrap();
    disk.set_capacity(used);
    let mut made = 1;
    for _ in 0..60 {
        made = db.checkpoint().unwrap().bytes;
    }
    assert_eq!(made, 0, "there was room");
    assert!(db.stats().runs > 0);
    check(&db, &keyspace, &rows, "full");
    drop(old);
    disk.set_capacity(capacity);
    while db.stats().runs > 0 {
        assert!(db.checkpoint().unwrap().bytes > 0);
    }
    check(&db, &keyspace, &rows, "taken in");
}

/// What closing finds in memory becomes one more run, and nothing is left to be replayed.
#[test]
fn closing_a_store_with_runs_leaves_nothing_to_replay() {
    let disk = SimDisk::new(7);
    let db = builder(&disk).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(7);
    while db.stats().runs < 3 {
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        db.checkpoint().unwrap();
    }
    let before = db.stats().runs;
    let mut batch = WriteBatch::new();
    for n in (0..ROWS).step_by(300) {
        batch.insert(&keyspace, key(n), "last");
        rows.insert(key(n), b"last".to_vec());
    }
    db.write_with(batch, Durability::Written).unwrap();
    db.close().unwrap();
    drop(keyspace);
    let db = builder(&disk).open().unwrap();
    let stats = db.stats();
    assert_eq!((stats.runs, stats.memory.deltas_active), (before + 1, 0), "{stats:?}");
    check(&db, &db.keyspace("rows").unwrap(), &rows, "reopened");
}

/// Runs of a keyspace that is left alone come into its tree while another one is written to.
#[test]
fn an_idle_keyspace_takes_its_runs_in_beside_others() {
    let disk = SimDisk::new(8);
    let db = builder(&disk).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(8);
    while db.stats().runs < 3 {
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        db.checkpoint().unwrap();
    }
    let other = db.keyspace("other").unwrap();
    for n in 0..20_u8 {
        other.insert([n], "small").unwrap();
        db.checkpoint().unwrap();
    }
    assert_eq!(db.stats().runs, 0);
    check(&db, &keyspace, &rows, "taken in");
}

/// A checkpoint that finds no room for what runs have is made without it.
#[test]
fn a_full_disk_has_room_for_what_is_new() {
    let disk = SimDisk::new(9);
    let db = builder(&disk).open().unwrap();
    let (keyspace, mut rows) = loaded(&db);
    let mut rng = Rng::new(9);
    while db.stats().runs < 3 {
        change(&db, &keyspace, &mut rng, &mut rows, 1500);
        db.checkpoint().unwrap();
    }
    let old = db.snapshot();
    let mut batch = WriteBatch::new();
    for n in (0..ROWS).step_by(3000) {
        batch.insert(&keyspace, key(n), "new");
        rows.insert(key(n), b"new".to_vec());
    }
    db.write_with(batch, Durability::Written).unwrap();
    let runs = db.stats().runs;
    let capacity = 1 << 30;
    disk.set_capacity(capacity);
    let used = capacity - disk.free_bytes(Path::new("/")).unwrap();
    // Room for a few blocks beside what the file has free.
    disk.set_capacity(used);
    let mut ends = BTreeMap::new();
    for _ in 0..40 {
        let is_made = db.checkpoint().is_ok();
        *ends.entry((is_made, db.stats().runs > runs)).or_insert(0) += 1;
        let mut batch = WriteBatch::new();
        batch.insert(&keyspace, key(0), "again");
        rows.insert(key(0), b"again".to_vec());
        db.write_with(batch, Durability::Written).unwrap();
    }
    assert!(ends.keys().any(|(is_made, is_one_more)| *is_made && *is_one_more), "{ends:?}");
    check(&db, &keyspace, &rows, "full");
    drop(old);
}
