//! The whole log under exploration, its threads included.

use super::{explore, find};
use crate::anchor::{self, Anchor, Slot};
use crate::commit::explored::{Misorder, err_by};
use crate::disk::{Disk, Open, SimDisk, read_exact_at};
use crate::runtime::ShuttleRuntime;
use crate::{Durability, Error, Lsn, Wal};
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

/// Tickets are held and let go again while others commit. Nobody waits in the log: its thread sees to it that all of it is
/// written. The first of those who hold has nothing to place itself.
fn holding_tickets(holders: u8) {
    let disk = SimDisk::new(1);
    let options = Wal::options().segment_bytes(64 << 10).disk(disk).runtime(ShuttleRuntime::new());
    let wal = options.background(false).open("/log").unwrap();
    let commit = |wal: &Wal, byte: u8| wal.commit_pipelined([byte; 100]).unwrap();
    wal.with_tickets_alone(|| {
        let mut threads = Vec::new();
        for i in 0..holders {
            let wal = wal.clone();
            threads.push(shuttle::thread::spawn(move || {
                wal.hold_tickets();
                let ticket = (i > 0).then(|| commit(&wal, 0));
                wal.release_tickets();
                if let Some(ticket) = ticket {
                    shuttle::future::block_on(ticket).unwrap();
                }
            }));
        }
        shuttle::future::block_on(commit(&wal, 1)).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    wal.close().unwrap();
}

#[test]
fn tickets_that_are_held_resolve() {
    for holders in 1..=3 {
        explore(3_000, move || holding_tickets(holders));
    }
}

fn misheld(misorder: Misorder) {
    err_by(Some(misorder));
    let found = find(20_000, || holding_tickets(1));
    err_by(None);
    let found = found.expect("a ticket that nobody sees to");
    assert!(found.contains("deadlock"), "{found}");
}

#[test]
fn letting_go_after_looking_is_found() {
    misheld(Misorder::LetGoLate);
}

#[test]
fn owing_without_looking_again_is_found() {
    misheld(Misorder::OweBlindly);
}

/// Clones commit while one closes: each commit is refused, or stands below the end that the anchor vouches for.
fn closing_beside_clones() {
    let disk = SimDisk::new(1);
    let options = Wal::options().segment_bytes(64 << 10).disk(disk.clone()).runtime(ShuttleRuntime::new());
    let wal = options.background(false).open("/log").unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for i in 0..2 {
        let (wal, acknowledged) = (wal.clone(), acknowledged.clone());
        threads.push(shuttle::thread::spawn(move || {
            for _ in 0..2 {
                match wal.commit([i; 100]) {
                    Ok(lsn) => acknowledged.lock().unwrap().push(lsn),
                    Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
                }
            }
        }));
    }
    wal.close().unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    let file = disk.kill().open(&std::path::Path::new("/log").join(anchor::FILE_NAME), Open::Read).unwrap();
    let mut bytes = vec![0; anchor::FILE_BYTES];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    let Slot::Valid(anchor) = Anchor::choose(&bytes) else { panic!("no anchor") };
    assert!(anchor.clean);
    let last = acknowledged.lock().unwrap().iter().max().copied().unwrap_or(Lsn::ZERO);
    assert!(last < anchor.durable, "{last} is acknowledged behind a clean end at {}", anchor.durable);
}

#[test]
fn nothing_is_acknowledged_behind_a_clean_end() {
    explore(3_000, closing_beside_clones);
}

#[test]
fn closing_before_refusing_is_found() {
    err_by(Some(Misorder::CloseLate));
    let found = find(20_000, closing_beside_clones);
    err_by(None);
    let found = found.expect("a log that goes on while it closes");
    assert!(found.contains("behind a clean end") || found.contains("is not known"), "{found}");
}
