//! One test for each class of bug that cost others their data, as far as it takes more than the log to have it. Each is
//! written to fail on an engine that has the bug. `docs/failure-model.md` lists the classes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "bugs/checkpoints.rs"]
mod checkpoints;
#[path = "bugs/lives.rs"]
mod lives;
#[path = "bugs/rows.rs"]
mod rows_of;

use seawall_engine::mutation::{Group, Mutation};
use seawall_engine::{Db, DbBuilder, Durability, Error, Keyspace, Readable, Result, WriteBatch};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::{CrashStyle, Fault, NameHabit, Op, Zone};
use seawall_wal::runtime::Rng;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

const DATA: &str = "/dir/store/data";

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

thread_local! {
    /// The mistake that stores opened by this thread make.
    static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// These tests are worth something: each deliberate mistake turns those red that are there for it. Of those that are
/// left out, the ones of isolation are noticed by `tests/history.rs`, those of prepared transactions by
/// `tests/prepared.rs`, and a checkpoint that does not wait for what it folds, a matter of an unlucky moment between
/// threads, by the seeds of `seawall torture`; those also notice, seldom, a superblock that is not repeated, as
/// `tree::tests::give_back` always does.
#[test]
fn every_deliberate_mistake_is_noticed() {
    type Guard = (Mutation, &'static [fn()]);
    let guards: [Guard; 13] = [
        (Mutation::FoldUnsynced, &[checkpoints::bug_21_a_checkpoint_of_what_is_not_durable]),
        (Mutation::ReuseEarly, &[checkpoints::bug_20_a_snapshots_blocks_are_used_again]),
        (Mutation::PunchEarly, &[checkpoints::bug_20_a_snapshots_blocks_are_used_again]),
        (
            Mutation::ReleaseEarly,
            &[
                bug_16_a_failed_root_write_whose_bytes_are_there,
                bug_24_a_pointer_durable_before_its_value,
                lives::bug_06_a_torn_checkpoint_of_many_pages,
            ],
        ),
        (Mutation::ReplayLate, &[checkpoints::bug_21_a_checkpoint_beside_commits]),
        (
            Mutation::SyncEarly,
            &[bug_24_a_pointer_durable_before_its_value, lives::bug_06_a_torn_checkpoint_of_many_pages],
        ),
        (
            Mutation::CreateInPlace,
            &[
                lives::bug_13_a_crash_while_the_store_is_created,
                lives::bug_13_a_call_that_fails_while_the_store_is_created,
            ],
        ),
        (
            Mutation::FoldUncleared,
            &[rows_of::bug_22_a_cleared_range_comes_back, rows_of::bug_22_a_cleared_range_and_a_power_cut],
        ),
        (
            Mutation::ReadUncleared,
            &[
                rows_of::bug_22_a_cleared_range_is_back_while_it_is_folded,
                rows_of::bug_22_a_cleared_range_comes_back,
            ],
        ),
        (Mutation::RedoApplied, &[rows_of::bug_12_what_is_added_is_added_once_however_often_recovery_begins]),
        (
            Mutation::FoldAddsTwice,
            &[
                rows_of::what_is_added_is_folded_once,
                rows_of::bug_12_what_is_added_is_added_once_however_often_recovery_begins,
            ],
        ),
        (Mutation::AddsConflict, &[rows_of::adds_wait_for_nobody]),
        (Mutation::ClearUnvalidated, &[rows_of::a_clear_and_a_write_beside_it]),
    ];
    let is_guarded = |mutation: &Mutation| guards.iter().any(|(guarded, _)| guarded == mutation);
    let others = [Mutation::FoldUnfrozen, Mutation::RepeatUnwritten];
    let is_elsewhere = |mutation: &Mutation| mutation.group() != Group::Life || others.contains(mutation);
    assert!(Mutation::ALL.iter().all(|mutation| is_guarded(mutation) != is_elsewhere(mutation)));
    for (mutation, tests) in guards {
        for (i, test) in tests.iter().enumerate() {
            MUTATION.set(Some(mutation));
            let outcome = std::panic::catch_unwind(test);
            MUTATION.set(None);
            assert!(outcome.is_err(), "{} goes unnoticed by test {i}", mutation.name());
        }
    }
}

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/dir/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(1 << 20)
        .replay_bytes(Some(512 << 10))
        .background(false)
        .mutation(MUTATION.get())
}

fn open(disk: &Arc<SimDisk>, what: &str) -> Db {
    builder(disk).open().unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// What a crash would leave if it kept nothing that it need not keep.
fn barely(disk: &Arc<SimDisk>) -> Arc<SimDisk> {
    disk.set_crash_style(Some(CrashStyle::KeepNone));
    let after = disk.crash_copy();
    disk.set_crash_style(None);
    after.set_crash_style(None);
    after
}

fn rows(db: &Db, name: &str) -> Rows {
    let Some(keyspace) = db.open_keyspace(name).unwrap() else { return Rows::new() };
    let rows = db.snapshot().range(&keyspace, ..).map(|row| row.unwrap());
    rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn problems(db: &Db) -> Vec<String> {
    db.verify(|_| {}).unwrap().problems
}

/// A store in this state opens, has no problems, and holds exactly these rows in keyspace `a`.
fn check(disk: &Arc<SimDisk>, expected: &Rows, what: &str) {
    let db = open(disk, what);
    assert!(rows(&db, "a") == *expected, "{what}: the rows are not those that were committed");
    assert_eq!(problems(&db), Vec::<String>::new(), "{what}");
}

fn key(n: u64) -> Vec<u8> {
    format!("key-{n:05}").into_bytes()
}

/// Commits a few rows, of all sizes, and keeps account.
fn put(keyspace: &Keyspace, model: &mut Rows, rng: &mut Rng, count: u64) -> Result<()> {
    for _ in 0..count {
        let key = key(rng.below(120));
        if rng.chance(1, 4) {
            keyspace.remove(&key)?;
            model.remove(&key);
            continue;
        }
        let len = if rng.chance(1, 5) { rng.below(12_000) } else { rng.below(200) } as usize;
        let mut value = vec![0; len];
        rng.fill(&mut value);
        keyspace.insert(&key, &value)?;
        model.insert(key, value);
    }
    Ok(())
}

#[test]
fn bug_05_a_root_names_blocks_never_made_durable() {
    for habit in [NameHabit::Strict, NameHabit::Ext4] {
        let disk = SimDisk::new(5);
        disk.set_name_habit(habit);
        let db = open(&disk, "new");
        check(&barely(&disk), &Rows::new(), "just created");
        let keyspace = db.keyspace("a").unwrap();
        let (mut model, mut rng) = (Rows::new(), Rng::new(5));
        for round in 0..12 {
            put(&keyspace, &mut model, &mut rng, 30).unwrap();
            db.checkpoint().unwrap();
            check(&barely(&disk), &model, &format!("{habit:?}, checkpoint {round}"));
        }
    }
}

#[test]
fn bug_16_a_failed_root_write_whose_bytes_are_there() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        let (mut model, mut rng) = (Rows::new(), Rng::new(seed));
        for _ in 0..3 {
            put(&keyspace, &mut model, &mut rng, 20).unwrap();
            db.checkpoint().unwrap();
        }
        put(&keyspace, &mut model, &mut rng, 20).unwrap();
        let fault = if seed.is_multiple_of(2) {
            Fault::eio(Op::WriteDurable)
        } else {
            Fault::short(Op::WriteDurable)
        };
        disk.fail(fault.path_contains("/data").zone(Zone::any().bytes(0..8192)));
        assert!(db.checkpoint().is_err(), "seed {seed}: the superblock was not written");
        // Which of the two roots the device has is not known: both must stay whole, and the log for the older one.
        assert!(matches!(keyspace.insert("more", "rows"), Err(Error::Poisoned(_))));
        let _ = db.checkpoint();
        assert!(rows(&db, "a") == model, "reads go on");
        for draw in 0..4 {
            check(&disk.crash_copy(), &model, &format!("seed {seed}, draw {draw}"));
        }
        drop(keyspace);
        drop(db);
        check(&disk, &model, &format!("seed {seed}, without a power cut"));
    }
}

#[test]
fn bug_20_a_block_is_freed_twice() {
    for seed in 0..12 {
        let disk = SimDisk::new(seed);
        let mut db = open(&disk, "new");
        let (mut model, mut rng) = (Rows::new(), Rng::new(seed));
        for round in 0..25 {
            let what = format!("seed {seed}, round {round}");
            let keyspace = db.keyspace("a").unwrap();
            put(&keyspace, &mut model, &mut rng, 15).unwrap();
            let other = db.keyspace("other").unwrap();
            other.insert(key(round), vec![1; 5000]).unwrap();
            if rng.chance(1, 4) {
                // An attempt that fails gives back what it took, once.
                drop((keyspace, other));
                disk.fail(Fault::full(Op::Any).path_contains("data").at_call(1 + rng.below(6)));
                let _ = db.checkpoint();
                disk.clear_faults();
                drop(db);
                db = open(&disk, &what);
            } else {
                let held = db.snapshot();
                let seen = rows(&db, "a");
                db.checkpoint().unwrap();
                // A snapshot keeps what it sees, while others' blocks are used again.
                keyspace.insert("passing", "by").unwrap();
                db.checkpoint().unwrap();
                keyspace.remove("passing").unwrap();
                let still: Rows = held
                    .range(&keyspace, ..)
                    .map(|row| row.unwrap())
                    .map(|(k, v)| (k.to_vec(), v.to_vec()))
                    .collect();
                assert!(still == seen, "{what}: a snapshot changed");
            }
            if rng.chance(1, 3) {
                db.drop_keyspace(db.keyspace("other").unwrap()).unwrap();
            }
            assert_eq!(problems(&db), Vec::<String>::new(), "{what}");
            assert!(rows(&db, "a") == model, "{what}");
        }
        check(&barely(&disk), &model, &format!("seed {seed}, in the end"));
    }
}

#[test]
fn bug_21_a_checkpoint_ahead_of_the_log() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        db.sync().unwrap();
        let mut model = Rows::new();
        for n in 0..20 {
            let mut batch = WriteBatch::new();
            batch.insert(&keyspace, key(n), vec![n as u8; 300]);
            model.insert(key(n), vec![n as u8; 300]);
            let level =
                [Durability::Memory, Durability::Written, Durability::Synced][(seed + n) as usize % 3];
            db.write_with(batch, level).unwrap();
            if n % 7 == seed % 7 {
                // It folds what no sync has covered yet: after it, all of that is durable, and it names no more.
                db.checkpoint().unwrap();
                check(&barely(&disk), &model, &format!("seed {seed}, checkpoint at {n}"));
            }
            // Whatever was lost, what was checkpointed and the log behind it fit.
            let left = open(&disk.crash_copy(), "a crash");
            let found = rows(&left, "a");
            assert!(
                model.iter().take(found.len()).eq(found.iter()),
                "seed {seed}: not a beginning of the commits"
            );
        }
    }
}

#[test]
fn bug_22_what_was_cleared_comes_back() {
    let disk = SimDisk::new(22);
    let db = open(&disk, "new");
    for fold_before in [false, true] {
        for fold_after in [false, true] {
            let what = format!("folded before {fold_before}, after {fold_after}");
            let keyspace = db.keyspace("a").unwrap();
            assert_eq!(rows(&db, "a"), Rows::new(), "{what}");
            for n in 0..50 {
                keyspace.insert(key(n), vec![7; 400]).unwrap();
            }
            if fold_before {
                db.checkpoint().unwrap();
            }
            for n in 0..25 {
                keyspace.remove(key(n)).unwrap();
            }
            assert_eq!(rows(&open(&barely(&disk), &what), "a").len(), 25, "{what}: removed rows are back");
            db.drop_keyspace(keyspace).unwrap();
            if fold_after {
                db.checkpoint().unwrap();
            }
            let left = open(&barely(&disk), &what);
            assert!(left.open_keyspace("a").unwrap().is_none(), "{what}: a dropped keyspace is back");
            assert_eq!(
                left.keyspace("a").unwrap().range(..).count(),
                0,
                "{what}: under its name, rows are back"
            );
            assert_eq!(problems(&left), Vec::<String>::new(), "{what}");
        }
    }
}

/// Values in blocks of their own, and a power cut at every call of the checkpoint that writes them.
#[test]
fn bug_24_a_pointer_durable_before_its_value() {
    for call in 1.. {
        let disk = SimDisk::new(call);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        let mut model = Rows::new();
        for n in 0..12 {
            let mut value = vec![n as u8; 3000 + 5000 * n as usize];
            value.extend_from_slice(b"its end");
            keyspace.insert(key(n), &value).unwrap();
            model.insert(key(n), value);
        }
        disk.fail(Fault::power_cut().at_call(call));
        let outcome = db.checkpoint();
        // The last round's cut comes right behind the checkpoint.
        for draw in 0..4 {
            check(&disk.crash_copy(), &model, &format!("power cut at call {call}, draw {draw}"));
        }
        if disk.has_power() {
            outcome.unwrap();
            assert!(call > 5, "a checkpoint makes calls");
            break;
        }
    }
}

#[test]
fn bug_27_writes_lost_across_keyspaces_on_reopen() {
    for seed in 0..10 {
        let mut disk = SimDisk::new(seed);
        let mut rng = Rng::new(seed);
        let names: Vec<String> = (0..6).map(|n| format!("keyspace-{n}")).collect();
        let mut model: Vec<Rows> = vec![Rows::new(); names.len()];
        for round in 0..8 {
            let what = format!("seed {seed}, round {round}");
            let db = open(&disk, &what);
            let keyspaces: Vec<Keyspace> = names.iter().map(|name| db.keyspace(name).unwrap()).collect();
            for (name, expected) in names.iter().zip(&model) {
                assert!(rows(&db, name) == *expected, "{what}: {name}");
            }
            for n in 0..rng.below(10) {
                // Some keyspaces take part in every commit, some in few, one in none but the first round.
                let mut batch = WriteBatch::new();
                for (i, keyspace) in keyspaces.iter().enumerate() {
                    if i == 0 || (i < 5 && rng.chance(1, 1 + i as u64)) || round == 0 {
                        let (key, value) = (key(rng.below(40)), vec![n as u8; rng.below(3000) as usize]);
                        batch.insert(keyspace, &key, &value);
                        model[i].insert(key, value);
                    }
                }
                db.write(batch).unwrap();
                if rng.chance(1, 6) {
                    db.checkpoint().unwrap();
                }
            }
            if rng.chance(1, 2) {
                disk = disk.crash();
            } else {
                drop(keyspaces);
                db.close().unwrap();
            }
        }
    }
}

#[test]
fn bug_40_idle_keyspaces_keep_the_log() {
    let disk = SimDisk::new(40);
    let db = open(&disk, "new");
    let idle = db.keyspace("idle").unwrap();
    idle.insert("long", "ago").unwrap();
    db.keyspace("never written").unwrap();
    let busy = db.keyspace("a").unwrap();
    let log_files = || disk.paths().iter().filter(|path| path.ends_with(".log")).count();
    let mut model = Rows::new();
    for n in 0..60 {
        for row in 0..4 {
            busy.insert(key(row), vec![n as u8; 12_000]).unwrap();
            model.insert(key(row), vec![n as u8; 12_000]);
        }
        db.checkpoint().unwrap();
        assert!(log_files() <= 6, "round {n}: {} log files are kept", log_files());
    }
    assert!(disk.read_file(DATA).is_some());
    assert_eq!(idle.get("long").unwrap().unwrap(), "ago");
    check(&barely(&disk), &model, "in the end");
    assert_eq!(rows(&open(&barely(&disk), "idle"), "idle").len(), 1);
    // And a store where nothing happens any more gives its log back as well.
    let retained = db.stats().log_retained.iter().map(|retainer| retainer.bytes).max().unwrap_or(0);
    assert!(retained <= 128 << 10, "{retained} bytes of log are kept");
}
