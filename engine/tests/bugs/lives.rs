//! Bugs at the beginnings and ends of a store's lives: creation, recovery, panics, groups of commits.

use super::{DATA, Rows, barely, builder, check, key, open, put, rows};
use seawall_engine::{Db, Durability, Error, Keyspace, Result, Runtime, WriteBatch};
use seawall_wal::anchor::{Anchor, Slot};
use seawall_wal::disk::sim::{CrashStyle, Fault, NameHabit, Op};
use seawall_wal::runtime::{Rng, Thread};
use seawall_wal::{SimDisk, SimRuntime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// A fold of many pages, of which a power cut leaves any, whole or torn; then again, over what that left.
#[test]
pub(crate) fn bug_06_a_torn_checkpoint_of_many_pages() {
    for call in 1.. {
        let mut disk = SimDisk::new(call);
        let (mut model, mut rng) = (Rows::new(), Rng::new(6));
        let db = open(&disk, "new");
        put(&db.keyspace("a").unwrap(), &mut model, &mut rng, 120).unwrap();
        db.checkpoint().unwrap();
        drop(db);
        for again in 0..2 {
            let what = format!("power cut at call {call}, time {again}");
            let db = open(&disk, &what);
            put(&db.keyspace("a").unwrap(), &mut model, &mut rng, 60).unwrap();
            disk.fail(Fault::power_cut().at_call(call));
            let outcome = db.checkpoint();
            if disk.has_power() {
                outcome.unwrap();
                assert!(call > 5, "a checkpoint makes calls");
                return;
            }
            for style in [CrashStyle::Random, CrashStyle::Random, CrashStyle::Random, CrashStyle::Prefix] {
                disk.set_crash_style(Some(style));
                let left = disk.crash_copy();
                left.set_crash_style(None);
                check(&left, &model, &what);
            }
            disk = disk.crash();
            disk.set_crash_style(None);
        }
    }
}

/// Checkpoints that write where the one before the last stood, the last of them cut short at every call: its superblock
/// may be torn, and the other one's tree is whole.
#[test]
pub(crate) fn bug_06_a_torn_superblock_over_space_used_again() {
    for call in 1.. {
        let disk = SimDisk::new(call);
        let (mut model, mut rng) = (Rows::new(), Rng::new(6));
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        for _ in 0..3 {
            put(&keyspace, &mut model, &mut rng, 100).unwrap();
            db.checkpoint().unwrap();
        }
        put(&keyspace, &mut model, &mut rng, 60).unwrap();
        disk.fail(Fault::power_cut().at_call(call));
        let outcome = db.checkpoint();
        for style in [CrashStyle::Random, CrashStyle::Random, CrashStyle::Random, CrashStyle::Prefix] {
            disk.set_crash_style(Some(style));
            check(&disk.crash_copy(), &model, &format!("power cut at call {call}"));
        }
        if disk.has_power() {
            outcome.unwrap();
            assert!(call > 5, "a checkpoint makes calls");
            return;
        }
    }
}

/// A store whose recovery has much to do: a log that does not fit into memory, so that recovery folds.
fn with_much_to_recover() -> (Arc<SimDisk>, Rows) {
    let disk = SimDisk::new(12);
    let db = open(&disk, "new");
    let keyspace = db.keyspace("a").unwrap();
    let (mut model, mut rng) = (Rows::new(), Rng::new(12));
    put(&keyspace, &mut model, &mut rng, 40).unwrap();
    db.checkpoint().unwrap();
    for n in 0..60 {
        let value = vec![n as u8; 12_000];
        keyspace.insert(key(n), &value).unwrap();
        model.insert(key(n), value);
        if n % 5 == 0 {
            keyspace.remove(key(n / 2)).unwrap();
            model.remove(&key(n / 2));
        }
    }
    // Without its last handles closing it.
    let left = barely(&disk);
    let before = left.read_file(DATA);
    drop(open(&left.crash_copy(), "a copy"));
    assert_eq!(left.read_file(DATA), before, "a copy is a copy");
    (left, model)
}

#[test]
pub(crate) fn bug_12_a_recovery_that_folds_is_cut_short() {
    let (start, model) = with_much_to_recover();
    let copy = || start.crash_copy();
    let mut folds = 0;
    for call in 1.. {
        let disk = copy();
        disk.fail(Fault::power_cut().at_call(call));
        let opened = builder(&disk).open();
        if disk.has_power() {
            let db = opened.unwrap();
            folds = db.stats().checkpoint_bytes;
            break;
        }
        assert!(opened.is_err());
        let what = format!("recovery cut short at call {call}");
        check(&disk.crash_copy(), &model, &what);
        // The next one is cut short as well, somewhere else, and the one after that.
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

#[test]
pub(crate) fn bug_12_a_recovery_in_which_a_call_fails() {
    let (start, model) = with_much_to_recover();
    for fault in [Fault::eio(Op::Any), Fault::short(Op::Any), Fault::full(Op::Any), Fault::dropped_sync()] {
        for call in 1.. {
            let disk = start.crash_copy();
            disk.fail(fault.clone().at_call(call));
            let before = disk.counts();
            let opened = builder(&disk).open();
            let what = format!("{fault:?} at call {call}");
            // A fault that strikes is counted; when there is none, every call has been tried.
            let has_struck = disk.counts() != before;
            disk.clear_faults();
            let is_open = opened.map(|db| assert!(rows(&db, "a") == model, "{what}: wrong rows")).is_ok();
            check(&disk.crash_copy(), &model, &format!("{what}, then a power cut"));
            check(&disk.kill(), &model, &format!("{what}, then the next process"));
            if !has_struck {
                assert!(is_open && call > 5);
                break;
            }
        }
    }
}

/// Creates a store, and commits a row.
fn create(disk: &Arc<SimDisk>) -> Result<Rows> {
    let db = builder(disk).open()?;
    let keyspace = db.keyspace("a")?;
    keyspace.insert("first", "row")?;
    drop(keyspace);
    db.close()?;
    Ok([(b"first".to_vec(), b"row".to_vec())].into())
}

/// There is no store, or a good one; and creating it now works.
fn check_creation(disk: &Arc<SimDisk>, acknowledged: Option<&Rows>, what: &str) {
    match builder(disk).create(false).open() {
        Ok(db) => {
            let found = rows(&db, "a");
            assert!(acknowledged.is_none_or(|rows| found == *rows), "{what}: {found:?}");
            assert!(found.len() <= 1, "{what}: {found:?}");
        }
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            assert!(acknowledged.is_none(), "{what}: the store is gone");
        }
        Err(error) => panic!("{what}: {error}"),
    }
    let rows = create(disk).unwrap_or_else(|error| panic!("{what}: creating it again: {error}"));
    check(&barely(disk), &rows, &format!("{what}: created again"));
}

#[test]
pub(crate) fn bug_13_a_crash_while_the_store_is_created() {
    for habit in [NameHabit::Strict, NameHabit::Ext4] {
        for call in 1.. {
            let disk = SimDisk::new(call);
            disk.set_name_habit(habit);
            disk.fail(Fault::power_cut().at_call(call));
            let created = create(&disk);
            let has_power = disk.has_power();
            for draw in 0..6 {
                let what = format!("{habit:?}, power cut at call {call}, draw {draw}");
                let left = disk.crash_copy();
                // A second attempt may be cut short too.
                if draw % 2 == 1 {
                    left.fail(Fault::power_cut().at_call(1 + call / 2));
                    let again = create(&left);
                    let acknowledged = again.as_ref().or(created.as_ref()).ok();
                    check_creation(&left.crash(), acknowledged, &what);
                } else {
                    check_creation(&left, created.as_ref().ok(), &what);
                }
            }
            if has_power {
                assert!(created.is_ok() && call > 20, "creating a store makes calls");
                break;
            }
        }
    }
}

#[test]
pub(crate) fn bug_13_a_call_that_fails_while_the_store_is_created() {
    for fault in [Fault::eio(Op::Any), Fault::full(Op::Any), Fault::short(Op::Any), Fault::dropped_sync()] {
        for call in 1..120 {
            let disk = SimDisk::new(call);
            disk.fail(fault.clone().at_call(call));
            let created = create(&disk);
            disk.clear_faults();
            let what = format!("{fault:?} at call {call}");
            check_creation(&disk.crash_copy(), created.as_ref().ok(), &format!("{what}, then a power cut"));
            check_creation(&disk, created.as_ref().ok(), &what);
        }
    }
}

/// A panic in the middle of a checkpoint, at each of its stages, and the store dropped while unwinding.
#[test]
pub(crate) fn bug_18_a_panic_in_a_checkpoint_is_no_clean_end() {
    let mut stages = 0;
    for stage in 0.. {
        let disk = SimDisk::new(18);
        let passed = Arc::new(AtomicU64::new(0));
        let (seen, what) = (Arc::clone(&passed), format!("a panic at stage {stage}"));
        let panics = move |_| assert!(seen.fetch_add(1, Ordering::SeqCst) != 10 + stage, "at a stage");
        let db = builder(&disk).on_stage(Arc::new(panics)).open().unwrap();
        let keyspace = db.keyspace("a").unwrap();
        let (mut model, mut rng) = (Rows::new(), Rng::new(18));
        put(&keyspace, &mut model, &mut rng, 60).unwrap();
        db.checkpoint().unwrap();
        stages = passed.swap(10, Ordering::SeqCst);
        put(&keyspace, &mut model, &mut rng, 60).unwrap();
        let level = Durability::Memory;
        let folded = catch_unwind(AssertUnwindSafe(|| db.checkpoint()));
        if stage == stages {
            folded.unwrap().unwrap();
            break;
        }
        assert!(folded.is_err());
        for draw in 0..4 {
            check(&disk.crash_copy(), &model, &format!("{what}, then a power cut, draw {draw}"));
        }
        assert!(rows(&db, "a") == model, "{what}: reads go on");
        // It may refuse to go on; if it goes on, it does so rightly.
        if stage % 2 == 0 && put(&keyspace, &mut model, &mut rng, 1).is_ok() {
            put(&keyspace, &mut model, &mut rng, 20).unwrap();
            db.checkpoint().unwrap();
            check(&barely(&disk), &model, &format!("{what}, and on"));
        }
        let mut late = WriteBatch::new();
        late.insert(&keyspace, "late", "in memory only");
        let is_placed = db.write_with(late, level).is_ok();
        let unwound = catch_unwind(AssertUnwindSafe(move || {
            let _last = (db, keyspace);
            panic!("with the store open");
        }));
        assert!(unwound.is_err());
        let anchor = Anchor::choose(&disk.read_file("/dir/store/log/anchor").unwrap());
        assert!(matches!(anchor, Slot::Valid(anchor) if !anchor.clean), "{what}: this was no clean end");
        let left = open(&disk, &what);
        let mut found = rows(&left, "a");
        assert!(found.remove(&b"late"[..]).is_none() || is_placed);
        assert!(found == model, "{what}: after unwinding");
    }
    assert!(stages >= 3, "a checkpoint has stages");
}

/// Batches over three keyspaces, each as large as several blocks, cut at every call: all of a batch, or nothing.
#[test]
pub(crate) fn bug_23_a_batch_over_keyspaces_in_part() {
    let names = ["a", "b", "c"];
    let work = |disk: &Arc<SimDisk>, done: &mut u8| -> Result<()> {
        let db = builder(disk).open()?;
        let keyspaces: Vec<Keyspace> = names.iter().map(|name| db.keyspace(name)).collect::<Result<_>>()?;
        for round in 1..=9u8 {
            let mut batch = WriteBatch::new();
            for (i, keyspace) in keyspaces.iter().enumerate() {
                for n in 0..12 {
                    batch.insert(keyspace, key(n), vec![round; 100 + 900 * i]);
                }
                batch.insert(keyspace, "gone", "soon").remove(keyspace, "gone");
            }
            let level = [Durability::Synced, Durability::Written][usize::from(round % 2)];
            db.write_with(batch, level)?;
            if level == Durability::Synced {
                *done = round;
            }
            if round % 4 == 0 {
                db.checkpoint()?;
            }
        }
        db.close()
    };
    for call in 1.. {
        let disk = SimDisk::new(call);
        disk.fail(Fault::power_cut().at_call(call));
        let mut done = 0;
        let outcome = work(&disk, &mut done);
        for draw in 0..4 {
            let what = format!("power cut at call {call}, draw {draw}");
            let Ok(db) = builder(&disk.crash_copy()).create(false).open() else {
                assert_eq!(done, 0, "{what}: it does not open");
                continue;
            };
            let found: Vec<Rows> = names.iter().map(|name| rows(&db, name)).collect();
            let round = found[0].get(&key(0)).map_or(0, |value| value[0]);
            assert!(round >= done, "{what}: {round} of {done}");
            for (i, rows) in found.iter().enumerate() {
                let expected = |n| (key(n), vec![round; 100 + 900 * i]);
                let expected: Rows = (0..12).map(expected).filter(|_| round > 0).collect();
                assert!(*rows == expected, "{what}: keyspace {} has a part of a batch", names[i]);
            }
        }
        if disk.has_power() {
            outcome.unwrap();
            assert_eq!(done, 8);
            break;
        }
    }
}

/// Opened with more log and more unfolded rows than it may have, a store with its own threads does not wait for what
/// nobody does.
#[test]
pub(crate) fn bug_26_a_hang_after_recovery() {
    let (start, model) = with_much_to_recover();
    for round in 0..6 {
        let (sender, done) = mpsc::channel();
        let (disk, mut model) = (start.crash_copy(), model.clone());
        let body = move || {
            let opened = builder(&disk).background(true).log_bytes_max(256 << 10);
            let db = opened.checkpoint_interval(Duration::from_secs(3600)).open().unwrap();
            let keyspace = db.keyspace("a").unwrap();
            for n in 0..300 {
                let value = vec![n as u8; 8_000];
                let mut batch = WriteBatch::new();
                batch.insert(&keyspace, key(n % 100), &value);
                match (n + round) % 3 {
                    0 => _ = db.write(batch).unwrap(),
                    1 => _ = db.write_pipelined(batch).unwrap().wait().unwrap(),
                    _ => _ = db.write_with(batch, Durability::Written).unwrap(),
                }
                model.insert(key(n % 100), value);
            }
            db.sync().unwrap();
            db.checkpoint().unwrap();
            drop(keyspace);
            db.close().unwrap();
            check(&disk, &model, "closed");
            sender.send(()).unwrap();
        };
        let thread = seawall_wal::OsRuntime::new().spawn("opened", Box::new(body)).unwrap();
        let outcome = done.recv_timeout(Duration::from_secs(60));
        assert_ne!(outcome, Err(mpsc::RecvTimeoutError::Timeout), "round {round}: it hangs");
        assert!(!thread.join(), "round {round}");
    }
}

/// Sixteen threads, one commit after the other: nothing above the log makes them queue one by one.
#[test]
pub(crate) fn bug_38_group_commit_that_never_groups() {
    for seed in 0..8 {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::with_runtime(seed, runtime.clone());
        let db = builder(&disk).runtime(runtime.clone()).background(seed % 2 == 0).open().unwrap();
        let keyspace = db.keyspace("a").unwrap();
        let before = db.stats();
        let mut threads: Vec<Box<dyn Thread>> = Vec::new();
        for thread in 0..16u64 {
            let (db, keyspace) = (db.clone(), keyspace.clone());
            let body = move || commit_many(&db, &keyspace, thread);
            threads.push(runtime.spawn("client", Box::new(body)).unwrap());
        }
        assert!(threads.into_iter().all(|thread| !thread.join()), "seed {seed}");
        let after = db.stats();
        let (commits, syncs) = (after.commits - before.commits, after.syncs - before.syncs);
        assert_eq!(commits, 16 * 20);
        assert!(syncs > 0 && syncs < commits / 2, "seed {seed}: {syncs} syncs for {commits} commits");
    }
}

fn commit_many(db: &Db, keyspace: &Keyspace, thread: u64) {
    use seawall_engine::Readable;
    for n in 0..20 {
        // Half of them read, validate and write, half are blind.
        if n % 2 == 0 {
            let own = key(thread);
            db.transact(|tx| {
                let old = tx.get(keyspace, &own)?.map_or(0, |value| value.len());
                tx.insert(keyspace, &own, vec![1; old + 1])
            })
            .unwrap();
        } else {
            keyspace.insert(key(100 + thread * 20 + n), "row").unwrap();
        }
    }
}
