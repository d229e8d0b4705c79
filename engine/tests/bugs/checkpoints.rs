//! Bugs that only a checkpoint in the middle of things has: cut short, beside commits, under a snapshot.

use super::{Rows, barely, builder, key, open, problems, put, rows};
use seawall_engine::{Durability, Readable, Runtime, WriteBatch};
use seawall_wal::disk::sim::Fault;
use seawall_wal::runtime::{Rng, Thread};
use seawall_wal::{SimDisk, SimRuntime};
use std::sync::{Arc, Mutex};

/// A snapshot of more rows than the cache holds, while checkpoints rewrite all of them.
#[test]
pub(crate) fn bug_20_a_snapshots_blocks_are_used_again() {
    for seed in 0..3 {
        let disk = SimDisk::new(seed);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        let (mut model, mut rng) = (Rows::new(), Rng::new(seed));
        for round in 0..6u8 {
            for n in 0..400 {
                keyspace.insert(key(n), vec![round; 3000]).unwrap();
                model.insert(key(n), vec![round; 3000]);
                if n % 100 == 99 {
                    db.checkpoint().unwrap();
                }
            }
            let held = db.snapshot();
            for again in 0..4u64 {
                for _ in 0..60 {
                    keyspace.insert(key(rng.below(400)), vec![100 + again as u8; 3000]).unwrap();
                }
                db.checkpoint().unwrap();
            }
            let seen = held.range(&keyspace, ..).map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())));
            let seen: Rows = seen.map(|row| row.unwrap_or_else(|e| panic!("seed {seed}: {e}"))).collect();
            assert!(seen == model, "seed {seed}, round {round}: a snapshot changed");
            drop(held);
            assert_eq!(problems(&db), Vec::<String>::new(), "seed {seed}, round {round}");
        }
    }
}

/// A checkpoint of commits that no sync has covered, cut short at every call: what it names, the log reaches.
#[test]
pub(crate) fn bug_21_a_checkpoint_of_what_is_not_durable() {
    for level in [Durability::Memory, Durability::Written] {
        for call in 1.. {
            let disk = SimDisk::new(call);
            let db = open(&disk, "new");
            let keyspace = db.keyspace("a").unwrap();
            let mut model = Rows::new();
            let mut commit = |n: u64, level| {
                let mut batch = WriteBatch::new();
                batch.insert(&keyspace, key(n), vec![n as u8; 7000]);
                model.insert(key(n), vec![n as u8; 7000]);
                db.write_with(batch, level).unwrap();
            };
            (0..5).for_each(|n| commit(n, Durability::Synced));
            (5..15).for_each(|n| commit(n, level));
            disk.fail(Fault::power_cut().at_call(call));
            let outcome = db.checkpoint();
            for draw in 0..6 {
                let what = format!("{level:?}, power cut at call {call}, draw {draw}");
                let left = if draw == 0 { barely(&disk) } else { disk.crash_copy() };
                let db = open(&left, &what);
                let found = rows(&db, "a");
                let least = if outcome.is_ok() { 15 } else { 5 };
                assert!(found.len() >= least, "{what}: {} rows", found.len());
                assert!(model.iter().take(found.len()).eq(&found), "{what}: not a beginning of the commits");
                // What is committed from here on stands behind the checkpoint, not before it.
                db.keyspace("a").unwrap().insert("later", "row").unwrap();
                let later = rows(&open(&barely(&left), &what), "a");
                assert_eq!(later.len(), found.len() + 1, "{what}: a later commit is lost");
            }
            if disk.has_power() {
                outcome.unwrap();
                break;
            }
        }
    }
}

/// Commits that get their place while a checkpoint runs are in it or behind it, never between.
#[test]
pub(crate) fn bug_21_a_checkpoint_beside_commits() {
    for seed in 0..12 {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::with_runtime(seed, runtime.clone());
        let db = builder(&disk).runtime(runtime.clone()).open().unwrap();
        let keyspace = db.keyspace("a").unwrap();
        let acknowledged = Arc::new(Mutex::new(Rows::new()));
        let mut threads: Vec<Box<dyn Thread>> = Vec::new();
        for thread in 0..3u64 {
            let (keyspace, acknowledged) = (keyspace.clone(), acknowledged.clone());
            let body = move || {
                for n in 0..15 {
                    let (key, value) = (key(thread * 100 + n), vec![n as u8; 900]);
                    keyspace.insert(&key, &value).unwrap();
                    acknowledged.lock().unwrap().insert(key, value);
                }
            };
            threads.push(runtime.spawn("client", Box::new(body)).unwrap());
        }
        let images = Arc::new(Mutex::new(Vec::new()));
        let (folder, power, taken, known) = (db.clone(), disk.clone(), images.clone(), acknowledged.clone());
        let body = move || {
            for _ in 0..8 {
                folder.checkpoint().unwrap();
                let expected = known.lock().unwrap().clone();
                taken.lock().unwrap().push((expected, barely(&power)));
            }
        };
        threads.push(runtime.spawn("folder", Box::new(body)).unwrap());
        assert!(threads.into_iter().all(|thread| !thread.join()), "seed {seed}");
        for (i, (expected, image)) in images.lock().unwrap().drain(..).enumerate() {
            let what = format!("seed {seed}, checkpoint {i}");
            let opened = builder(&image).runtime(runtime.clone()).open();
            let found = rows(&opened.unwrap_or_else(|error| panic!("{what}: {error}")), "a");
            let lost = expected.iter().find(|(key, value)| found.get(*key) != Some(value));
            assert!(lost.is_none(), "{what}: {} of {} rows are there", found.len(), expected.len());
        }
    }
}

/// Rows go, their leaves with them, and a power cut at every call of that checkpoint brings none back.
#[test]
pub(crate) fn bug_22_removed_rows_and_a_power_cut() {
    for call in 1.. {
        let disk = SimDisk::new(call);
        let db = open(&disk, "new");
        let keyspace = db.keyspace("a").unwrap();
        let (mut model, mut rng) = (Rows::new(), Rng::new(22));
        put(&keyspace, &mut model, &mut rng, 150).unwrap();
        db.checkpoint().unwrap();
        let gone: Vec<Vec<u8>> = model.keys().skip(10).take(60).cloned().collect();
        for key in gone {
            keyspace.remove(&key).unwrap();
            model.remove(&key);
        }
        disk.fail(Fault::power_cut().at_call(call));
        let outcome = db.checkpoint();
        for draw in 0..3 {
            super::check(&disk.crash_copy(), &model, &format!("power cut at call {call}, draw {draw}"));
        }
        if disk.has_power() {
            outcome.unwrap();
            break;
        }
    }
}
