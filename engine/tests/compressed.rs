//! Compressed keyspaces through a store's whole life: written, crashed, folded, crashed, opened again, verified, with each
//! method that this build has. Zstandard is among them with the feature `zstd`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use seawall_engine::{Compression, Db, Keyspace, KeyspaceOptions, Readable, WriteBatch};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::Fault;
use std::collections::BTreeMap;
use std::sync::Arc;

const METHODS: &[Compression] = &[
    Compression::Lz4,
    #[cfg(feature = "zstd")]
    Compression::Zstd,
];

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: &Arc<SimDisk>, method: Compression) -> (Db, Keyspace) {
    let db = Db::builder("/dir/store").disk(disk.clone()).segment_bytes(64 << 10).background(false);
    let db = db.memory_budget(1 << 20).open().unwrap();
    let options = KeyspaceOptions { compression: method, ..KeyspaceOptions::default() };
    let ks = db.keyspace_with("texts", options).unwrap();
    (db, ks)
}

/// Text of which a part is like its neighbours' and a part is not, or noise that no method makes smaller.
fn value(n: u64, round: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(31).wrapping_add(round).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 56
    };
    if n.is_multiple_of(17) {
        return (0..700).map(|_| random() as u8).collect();
    }
    let words = (0..n % 60).map(|_| format!("the word {} of round {round}, ", random() % 40));
    words.collect::<String>().into_bytes()
}

fn write(db: &Db, ks: &Keyspace, rows: &mut Rows, round: u64) {
    for part in 0..6 {
        let mut batch = WriteBatch::new();
        for n in (part * 100..(part + 1) * 100).filter(|n| (n + round) % 3 != 1) {
            let key = format!("text {n:05}").into_bytes();
            if (n * 7 + round).is_multiple_of(11) {
                batch.remove(ks, &key);
                rows.remove(&key);
            } else {
                batch.insert(ks, &key, value(n, round));
                rows.insert(key, value(n, round));
            }
        }
        db.write(batch).unwrap();
    }
}

fn check(db: &Db, ks: &Keyspace, rows: &Rows, what: &str) -> u64 {
    let snapshot = db.snapshot();
    let found = snapshot.range(ks, ..).map(|row| row.unwrap());
    let found: Rows = found.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert!(found == *rows, "{what}: other rows");
    for (key, value) in rows.iter().step_by(13) {
        assert_eq!(snapshot.get(ks, key).unwrap().as_deref(), Some(&value[..]), "{what}");
    }
    let report = db.verify(|_| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "{what}");
    if report.leaves_compressed > 0 {
        assert!(report.leaf_bytes_stored * 3 < report.leaf_bytes * 2, "{what}: {report:?}");
    }
    report.leaves_compressed
}

#[test]
fn compressed_rows_outlive_crashes_folds_and_openings() {
    for &method in METHODS {
        let mut disk = SimDisk::new(1);
        let mut rows = Rows::new();
        for round in 0..6 {
            let what = |step: &str| format!("{method:?}, round {round}, {step}");
            let (db, ks) = open(&disk, method);
            write(&db, &ks, &mut rows, round);
            check(&db, &ks, &rows, &what("written"));
            drop((ks, db));
            disk = disk.crash();
            let (db, ks) = open(&disk, method);
            assert_eq!(ks.options().compression, method);
            check(&db, &ks, &rows, &what("recovered"));
            db.checkpoint().unwrap();
            assert!(check(&db, &ks, &rows, &what("folded")) > 0, "no leaf is compressed");
            drop((ks, db));
            disk = disk.crash();
            let (db, ks) = open(&disk, method);
            assert!(check(&db, &ks, &rows, &what("opened again")) > 0, "no leaf is compressed");
            assert_eq!(db.recovery().records, 0, "all of it was in the data file");
        }
    }
}

/// A fold that a crash cuts short at any of its calls leaves compressed leaves of before, or of after.
#[test]
fn a_crash_at_every_call_of_a_fold_leaves_all_rows() {
    for &method in METHODS {
        let disk = SimDisk::new(2);
        let mut rows = Rows::new();
        let (db, ks) = open(&disk, method);
        write(&db, &ks, &mut rows, 0);
        db.checkpoint().unwrap();
        write(&db, &ks, &mut rows, 1);
        drop((ks, db));
        let mut cut_short = 0;
        for call in 1.. {
            let copy = disk.crash_copy();
            let (db, ks) = open(&copy, method);
            copy.fail(Fault::power_cut().at_call(call));
            let is_done = db.checkpoint().is_ok();
            drop((ks, db));
            let (db, ks) = open(&copy.crash(), method);
            check(&db, &ks, &rows, &format!("{method:?}, cut short at call {call}"));
            if is_done {
                break;
            }
            cut_short += 1;
        }
        assert!(cut_short > 3, "{cut_short} calls");
    }
}
