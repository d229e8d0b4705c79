//! The whole log under exploration, its threads included.

use super::explore;
use super::runtime::ShuttleRuntime;
use crate::disk::SimDisk;
use crate::{Durability, Wal};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Commits, receipts as futures and as callbacks, and a reader, beside the log's own threads.
fn a_log_at_work() {
    let disk = SimDisk::new(1);
    let options = Wal::options().segment_bytes(64 << 10).disk(disk.clone()).runtime(ShuttleRuntime::new());
    let wal = options.clone().open("/log").unwrap();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let mut threads = Vec::new();
    for i in 0..3 {
        let (wal, acknowledged) = (wal.clone(), acknowledged.clone());
        threads.push(shuttle::thread::spawn(move || {
            let lsn = match i {
                0 => wal.commit_with(vec![0; 100], Durability::Written).unwrap(),
                1 => shuttle::future::block_on(wal.commit_pipelined(vec![1; 30_000]).unwrap()).unwrap(),
                _ => {
                    let noted = acknowledged.clone();
                    let ticket = wal.commit_pipelined(vec![2; 40_000]).unwrap();
                    ticket.on_done(move |lsn| {
                        assert!(noted.lock().unwrap().insert(lsn.unwrap()), "called once")
                    });
                    return;
                }
            };
            acknowledged.lock().unwrap().insert(lsn);
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    wal.close().unwrap();
    let acknowledged = acknowledged.lock().unwrap();
    assert_eq!(acknowledged.len(), 3, "closing completes what was placed");
    let wal = options.disk(disk.kill()).background(false).open("/log").unwrap();
    let found: BTreeSet<_> = wal.read(..).unwrap().map(|record| record.unwrap().lsn).collect();
    assert_eq!(found, *acknowledged);
}

#[test]
fn threads_receipts_and_closing() {
    explore(3_000, a_log_at_work);
}
