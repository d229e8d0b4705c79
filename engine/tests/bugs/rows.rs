//! Bugs of ranges that are cleared, and of rows that are added to.

use super::*;
use std::sync::OnceLock;

/// Puts rows, clears a range with most of them, puts some of them again.
fn clear_most(db: &Db, keyspace: &Keyspace, model: &mut Rows, fold_before: bool, large: bool) {
    for n in 0..50 {
        let value = vec![n as u8; if large && n % 10 == 0 { 9000 } else { 400 }];
        keyspace.insert(key(n), &value).unwrap();
        model.insert(key(n), value);
    }
    if fold_before {
        db.checkpoint().unwrap();
    }
    db.transact(|tx| tx.remove_range(keyspace, key(5)..key(40))).unwrap();
    model.retain(|row, _| !(key(5)..key(40)).contains(row));
    for n in [7, 8, 30] {
        keyspace.insert(key(n), "again").unwrap();
        model.insert(key(n), b"again".to_vec());
    }
}

#[test]
pub(crate) fn bug_22_a_cleared_range_comes_back() {
    for (fold_before, fold_after, large) in [
        (false, false, false),
        (false, true, true),
        (true, false, false),
        (true, true, true),
        (true, true, false),
    ] {
        let disk = SimDisk::new(22);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        let mut model = Rows::new();
        clear_most(&db, &keyspace, &mut model, fold_before, large);
        let what = format!("folded before {fold_before}, after {fold_after}, large {large}");
        assert!(rows(&db, "a") == model, "{what}: at once");
        if fold_after {
            db.checkpoint().unwrap();
            assert!(rows(&db, "a") == model, "{what}: after the checkpoint");
        }
        check(&barely(&disk), &model, &what);
        // And the keyspace is cleared as a whole, twice.
        for _ in 0..2 {
            db.transact(|tx| tx.remove_range(&keyspace, ..)).unwrap();
            check(&barely(&disk), &Rows::new(), &what);
            db.checkpoint().unwrap();
            check(&barely(&disk), &Rows::new(), &what);
        }
    }
}

/// While a checkpoint is on its way, what it folds is read from a delta that is frozen.
#[test]
pub(crate) fn bug_22_a_cleared_range_is_back_while_it_is_folded() {
    let disk = SimDisk::new(22);
    let reader: Arc<OnceLock<Keyspace>> = Arc::default();
    let (seen, hook) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), reader.clone());
    let count = seen.clone();
    let db = builder(&disk)
        .on_stage(Arc::new(move |_| {
            let Some(keyspace) = hook.get() else { return };
            let found = [5, 6, 39].map(|n| keyspace.get(key(n)).unwrap());
            assert_eq!(found, [None, None, None]);
            assert!(keyspace.get(key(7)).unwrap().unwrap() == "again");
            assert_eq!(keyspace.range(..).count(), 18);
            assert_eq!(keyspace.range(..).rev().count(), 18);
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }))
        .open()
        .unwrap();
    let keyspace = db.keyspace("a").unwrap();
    clear_most(&db, &keyspace, &mut Rows::new(), true, false);
    reader.set(keyspace).unwrap();
    db.checkpoint().unwrap();
    assert_eq!(seen.load(std::sync::atomic::Ordering::Relaxed), 3, "stages");
}

/// A power cut at every call of the checkpoint that folds a clear: whole leaves go, and large values with them.
#[test]
pub(crate) fn bug_22_a_cleared_range_and_a_power_cut() {
    for call in 1.. {
        let disk = SimDisk::new(call);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        let mut model = Rows::new();
        clear_most(&db, &keyspace, &mut model, true, call % 2 == 0);
        disk.fail(Fault::power_cut().at_call(call));
        let outcome = db.checkpoint();
        for draw in 0..3 {
            check(&disk.crash_copy(), &model, &format!("power cut at call {call}, draw {draw}"));
        }
        if disk.has_power() {
            outcome.unwrap();
            break;
        }
    }
}

/// More than recovery holds in memory: it folds on its way. Every commit adds 1, and 10 to another row.
fn with_much_added() -> (Arc<SimDisk>, Rows) {
    let disk = SimDisk::new(33);
    let db = open(&disk, "new");
    let keyspace = db.keyspace("a").unwrap();
    let mut model = Rows::new();
    for n in 0..30_u64 {
        let mut batch = WriteBatch::new();
        batch.add_i64(&keyspace, "ones", 1).add_i64(&keyspace, "tens", 10);
        if n == 20 {
            batch.remove_range(&keyspace, "tens"..="tens").add_i64(&keyspace, "tens", 1000);
        }
        batch.insert(&keyspace, key(n % 3), vec![n as u8; 30_000]);
        db.write(batch).unwrap();
        model.insert(key(n % 3), vec![n as u8; 30_000]);
        if n == 3 {
            // Some of it lies in the tree.
            db.checkpoint().unwrap();
        }
    }
    model.insert(b"ones".to_vec(), 30_i64.to_le_bytes().to_vec());
    model.insert(b"tens".to_vec(), 1090_i64.to_le_bytes().to_vec());
    (barely(&disk), model)
}

/// An add is no write that may be done again: a recovery that has folded a part of the log, and is cut short, leaves
/// the rest to do.
#[test]
pub(crate) fn bug_12_what_is_added_is_added_once_however_often_recovery_begins() {
    let (start, model) = with_much_added();
    let mut folds = 0;
    for call in 1.. {
        let disk = start.crash_copy();
        disk.fail(Fault::power_cut().at_call(call));
        let opened = builder(&disk).open();
        if disk.has_power() {
            folds = opened.unwrap().stats().checkpoint_bytes;
            disk.clear_faults();
            check(&disk.crash(), &model, "opened once, and again");
            break;
        }
        let what = format!("recovery cut short at call {call}");
        check(&disk.crash_copy(), &model, &what);
        let mut next = disk.crash();
        for again in [call / 2 + 1, call / 3 + 2] {
            next.fail(Fault::power_cut().at_call(again));
            assert!(builder(&next).open().is_err());
            next = next.crash();
        }
        check(&next, &model, &format!("{what}, and then twice more"));
    }
    assert!(folds > 0, "this recovery is to write into the data file");
}

/// The same of a checkpoint, cut short at every call.
#[test]
pub(crate) fn what_is_added_is_folded_once() {
    for call in 1.. {
        let disk = SimDisk::new(call);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        let mut sums = [0_i64; 4];
        for round in 0..3 {
            for n in 0..8 {
                let (row, delta) = (n % 4, (n as i64 + 1) * 7);
                db.transact(|tx| tx.add_i64(&keyspace, key(row), delta)).unwrap();
                sums[row as usize] += delta;
            }
            if round == 0 {
                db.checkpoint().unwrap();
            }
        }
        let model: Rows = (0..4).map(|row| (key(row), sums[row as usize].to_le_bytes().to_vec())).collect();
        assert!(rows(&db, "a") == model);
        disk.fail(Fault::power_cut().at_call(call));
        let outcome = db.checkpoint();
        for draw in 0..3 {
            check(&disk.crash_copy(), &model, &format!("power cut at call {call}, draw {draw}"));
        }
        if disk.has_power() {
            outcome.unwrap();
            assert!(rows(&db, "a") == model);
            break;
        }
    }
}

/// A row that another has cleared, with a range, may not be written as if it had not been; nor the other way round.
#[test]
pub(crate) fn a_clear_and_a_write_beside_it() {
    let disk = SimDisk::new(44);
    let db = open(&disk, "new");
    let keyspace = db.keyspace("a").unwrap();
    keyspace.insert("balance", "100").unwrap();
    for clear_first in [false, true] {
        let (mut clears, mut writes) = (db.begin(), db.begin());
        clears.remove_range(&keyspace, "a".."c").unwrap();
        writes.insert(&keyspace, "balance", "200").unwrap();
        let (first, second) = if clear_first { (clears, writes) } else { (writes, clears) };
        first.commit().unwrap();
        assert!(second.commit().is_err_and(|error| error.is_conflict()), "cleared first: {clear_first}");
    }
}

/// Any number of transactions may add to a row at once.
#[test]
pub(crate) fn adds_wait_for_nobody() {
    let disk = SimDisk::new(44);
    let db = open(&disk, "new");
    let keyspace = db.keyspace("a").unwrap();
    let mut open_ones: Vec<_> = (0..10).map(|_| db.begin()).collect();
    for tx in &mut open_ones {
        tx.add_i64(&keyspace, "n", 3).unwrap();
    }
    for tx in open_ones {
        tx.commit().unwrap();
    }
    assert_eq!(rows(&db, "a")[&b"n"[..]], 30_i64.to_le_bytes());
}
