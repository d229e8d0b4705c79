//! A whole store under exploration: its log, its threads, a simulated disk.

use super::explore;
use crate::{Db, Error, Readable};
use seawall_wal::SimDisk;
use seawall_wal::runtime::ShuttleRuntime;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Commits and a receipt beside a checkpoint, and then closing, which completes what was placed.
fn a_store_at_work() {
    let disk = SimDisk::new(1);
    let open = |disk: Arc<SimDisk>, background: bool| {
        let builder = Db::builder("/store").disk(disk).runtime(ShuttleRuntime::new()).segment_bytes(64 << 10);
        builder.background(background).open().unwrap()
    };
    let db = open(disk.clone(), true);
    let ks = db.keyspace("rows").unwrap();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut threads = Vec::new();
    for thread in 0..3_u8 {
        let (db, ks, acknowledged) = (db.clone(), ks.clone(), acknowledged.clone());
        threads.push(shuttle::thread::spawn(move || {
            match thread {
                0 => drop(db.checkpoint().unwrap()),
                1 => {
                    let mut batch = crate::WriteBatch::new();
                    batch.insert(&ks, [thread], "v");
                    shuttle::future::block_on(db.write_pipelined(batch).unwrap()).unwrap();
                }
                _ => drop(ks.insert([thread], "v").unwrap()),
            }
            if thread > 0 {
                acknowledged.lock().unwrap().insert(thread);
            }
        }));
    }
    let late = (db.clone(), ks.clone(), acknowledged.clone());
    let late = shuttle::thread::spawn(move || {
        let (db, ks, acknowledged) = late;
        match ks.insert([9], "v") {
            Ok(_) => drop(acknowledged.lock().unwrap().insert(9)),
            Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
        }
        drop(db);
    });
    for thread in threads {
        thread.join().unwrap();
    }
    drop(ks);
    db.close().unwrap();
    late.join().unwrap();
    let db = open(disk.kill(), false);
    let ks = db.keyspace("rows").unwrap();
    let found: BTreeSet<u8> = db.snapshot().range(&ks, ..).map(|row| row.unwrap().0[0]).collect();
    assert_eq!(found, *acknowledged.lock().unwrap());
}

#[test]
fn commits_checkpoints_and_closing() {
    explore(300, a_store_at_work);
}
