//! Following a log: live, only what is durable, to the end of the log or of the follower.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and one is of the system's own threads"
)]

use seawall_wal::disk::sim::{Fault, Op};
use seawall_wal::mutation::Mutation;
use seawall_wal::runtime::Rng;
use seawall_wal::{
    Disk, Durability, Error, Lsn, Next, OsDisk, Record, Runtime, SimDisk, SimRuntime, Wal, WalOptions,
    WalReader,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

fn options(disk: Arc<dyn Disk>, seed: u64) -> WalOptions {
    Wal::options().segment_bytes(SEGMENT).disk(disk).runtime(SimRuntime::new(seed)).background(false)
}

fn open() -> (Arc<SimDisk>, Wal) {
    let disk = SimDisk::new(1);
    let wal = options(disk.clone(), 1).open("/log").unwrap();
    (disk, wal)
}

/// The next record, which must be there.
fn record(follower: &mut WalReader) -> Record {
    match follower.next_timeout(SHORT).unwrap() {
        Next::Record(record) => record,
        other => panic!("no record, but {other:?}"),
    }
}

fn payload(follower: &mut WalReader) -> Vec<u8> {
    record(follower).payload.to_vec()
}

fn waits(follower: &mut WalReader) -> bool {
    matches!(follower.next_timeout(SHORT).unwrap(), Next::TimedOut)
}

#[test]
fn only_what_is_durable_is_shown() {
    let (_disk, wal) = open();
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    wal.append(b"in memory").unwrap();
    assert!(waits(&mut follower));
    wal.commit_with(b"with the system", Durability::Written).unwrap();
    assert!(wal.written_lsn() > wal.durable_lsn());
    assert!(waits(&mut follower), "what is written and not durable is not shown");
    wal.commit(b"on the device").unwrap();
    for expected in [&b"in memory"[..], b"with the system", b"on the device"] {
        assert_eq!(payload(&mut follower), expected);
    }
    assert!(waits(&mut follower));
    wal.append(b"then a sync").unwrap();
    assert!(waits(&mut follower));
    wal.sync().unwrap();
    assert_eq!(payload(&mut follower), b"then a sync");
}

/// The check above can fail.
#[test]
fn a_follower_past_the_durable_lsn_is_noticed() {
    let disk = SimDisk::new(1);
    let options = options(disk, 1).mutation(Some(Mutation::FollowPastDurable));
    let wal = options.open("/log").unwrap();
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    wal.commit_with(b"with the system", Durability::Written).unwrap();
    assert!(!waits(&mut follower), "the mistake goes unnoticed");
}

#[test]
fn a_closed_log_ends_its_followers_when_all_is_shown() {
    let (_disk, wal) = open();
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    let stopper = follower.stopper();
    wal.append(b"closing makes it durable").unwrap();
    wal.close().unwrap();
    assert_eq!(payload(&mut follower), b"closing makes it durable");
    assert!(matches!(follower.next_timeout(LONG).unwrap(), Next::Ended));
    assert!(follower.next().is_none());
    stopper.stop();
    assert!(follower.next().is_none());
}

#[test]
fn dropping_the_last_clone_ends_followers_too() {
    let (_disk, wal) = open();
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    let clone = wal.clone();
    drop(wal);
    assert!(waits(&mut follower));
    drop(clone);
    assert!(follower.next().is_none());
}

#[test]
fn a_failed_log_is_an_error_behind_all_that_was_durable() {
    let (disk, wal) = open();
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    wal.commit(b"durable").unwrap();
    disk.fail(Fault::eio(Op::WriteDurable).path_contains(".log"));
    assert!(wal.commit(b"lost").is_err());
    disk.clear_faults();
    assert_eq!(payload(&mut follower), b"durable");
    assert!(matches!(follower.next(), Some(Err(Error::Poisoned(_)))));
    assert!(follower.next().is_none(), "after an error there is no more");
    let mut late = wal.follow(Lsn::ZERO).unwrap();
    assert_eq!(payload(&mut late), b"durable");
    assert!(matches!(late.next_timeout(LONG), Err(Error::Poisoned(_))));
}

#[test]
fn a_stopped_follower_ends_at_once() {
    let (_disk, wal) = open();
    wal.commit(b"one").unwrap();
    wal.commit(b"two").unwrap();
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    assert_eq!(payload(&mut follower), b"one");
    follower.stopper().stop();
    assert!(matches!(follower.next_timeout(LONG).unwrap(), Next::Ended));
    let mut reader = wal.read(..).unwrap();
    reader.stopper().stop();
    assert!(reader.next().is_none(), "a reader of what is there can be stopped too");
}

/// Over frames, segments and records that no frame holds, from each record on and from between them.
#[test]
fn a_follower_begins_anywhere() {
    let (_disk, wal) = open();
    let mut placed = Vec::new();
    let mut rng = Rng::new(3);
    for n in 0..60u64 {
        let bytes = [10, 300, 5_000, 30_000, 150_000][rng.below(5) as usize];
        let mut bytes = vec![n as u8; bytes];
        rng.fill(&mut bytes);
        if n % 7 == 0 {
            // Both in one unit, the second in the midst of a piece.
            let second = vec![n as u8; 40_000];
            wal.append_batch(&[&bytes, &second]).unwrap();
            wal.sync().unwrap();
        } else {
            wal.commit(&bytes).unwrap();
        }
    }
    for record in wal.read(..).unwrap() {
        placed.push(record.unwrap());
    }
    assert!(wal.stats().rotations > 10);
    let mut starts: Vec<(Lsn, usize)> = Vec::new();
    for (i, record) in placed.iter().enumerate() {
        starts.extend([(record.lsn, i), (record.lsn.plus(1), i + 1), (record.end, i + 1)]);
    }
    let end = wal.durable_lsn();
    for (from, index) in starts {
        let mut follower = wal.follow(from).unwrap();
        for expected in placed.iter().skip(index).take(3) {
            let found = record(&mut follower);
            assert_eq!((found.lsn, found.end), (expected.lsn, expected.end), "from {from}");
            assert!(found.payload == expected.payload, "from {from}");
        }
        if index + 3 >= placed.len() {
            assert!(waits(&mut follower), "from {from}");
        }
        let read: Vec<Lsn> = wal.read(from..).unwrap().map(|record| record.unwrap().lsn).collect();
        let expected: Vec<Lsn> = placed.iter().skip(index).map(|record| record.lsn).collect();
        assert_eq!(read, expected, "reading from {from}");
    }
    // From where nothing stands yet: the next record, and from behind it: the one after.
    let mut next = wal.follow(end).unwrap();
    let mut at_next = wal.follow(wal.next_lsn()).unwrap();
    let mut later = wal.follow(wal.next_lsn().plus(1)).unwrap();
    let first = wal.commit(b"first").unwrap();
    wal.commit(b"second").unwrap();
    assert_eq!(record(&mut next).lsn, first);
    assert_eq!(record(&mut at_next).lsn, first);
    assert_eq!(payload(&mut later), b"second");
}

#[test]
fn the_pin_goes_with_the_follower() {
    let (_disk, wal) = open();
    for _ in 0..6 {
        wal.commit(vec![7; 40_000]).unwrap();
    }
    let mut follower = wal.follow(Lsn::ZERO).unwrap();
    let first = wal.first_lsn();
    assert_eq!(wal.truncate_before(wal.durable_lsn()).unwrap(), 0, "the follower has read nothing");
    assert_eq!(wal.first_lsn(), first);
    let held = wal.retained();
    assert_eq!((held.len(), held[0].who.as_str(), held[0].lsn), (1, "follower", first));
    assert!(held[0].bytes > 5 * 40_000);
    for _ in 0..6 {
        record(&mut follower);
    }
    assert!(waits(&mut follower));
    assert!(wal.retained()[0].lsn >= wal.durable_lsn());
    assert!(wal.truncate_before(wal.durable_lsn()).unwrap() >= 4 * SEGMENT);
    wal.commit(b"goes on").unwrap();
    assert_eq!(payload(&mut follower), b"goes on");
    drop(follower);
    assert!(wal.retained().is_empty());
    assert!(matches!(wal.follow(first), Err(Error::BadInput(_))), "that was reclaimed");
}

#[test]
fn a_log_that_cannot_be_written_is_not_followed() {
    let (disk, wal) = open();
    wal.commit(b"one").unwrap();
    wal.close().unwrap();
    let wal = options(disk, 2).read_only(true).open("/log").unwrap();
    assert!(matches!(wal.follow(Lsn::ZERO), Err(Error::ReadOnly)));
}

/// Simulated threads: at every moment a follower has shown a beginning of what is durable, in the end all of it.
#[test]
fn followers_beside_committers() {
    for seed in 0..60 {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::with_runtime(seed, runtime.clone());
        let wal =
            Wal::options().segment_bytes(SEGMENT).disk(disk).runtime(runtime.clone()).open("/log").unwrap();
        let mut threads = Vec::new();
        let mut shown = Vec::new();
        for i in 0..2 {
            let (log, records) = (wal.clone(), Arc::new(Mutex::new(Vec::new())));
            shown.push(records.clone());
            // No handle of its own: the log must close under it.
            let follower = wal.follow(Lsn::ZERO).unwrap();
            let durable = move || log.durable_lsn();
            let body = move || {
                for found in follower {
                    let found = found.unwrap();
                    assert!(found.end <= durable(), "W9: seed {seed}");
                    records.lock().unwrap().push((found.lsn, found.payload.to_vec()));
                    if records.lock().unwrap().len() == 30 {
                        break;
                    }
                }
            };
            threads.push(runtime.spawn(&format!("follower-{i}"), Box::new(body)).unwrap());
        }
        for i in 0..3u64 {
            let (wal, mut rng) = (wal.clone(), Rng::new(seed * 10 + i));
            let body = move || {
                for _ in 0..10 {
                    let payload = vec![i as u8; rng.below(20_000) as usize];
                    let levels = [Durability::Memory, Durability::Written, Durability::Synced];
                    wal.commit_with(payload, levels[rng.below(3) as usize]).unwrap();
                }
            };
            threads.push(runtime.spawn(&format!("committer-{i}"), Box::new(body)).unwrap());
        }
        for thread in threads.drain(2..) {
            assert!(!thread.join(), "seed {seed}");
        }
        wal.sync().unwrap();
        for thread in threads {
            assert!(!thread.join(), "seed {seed}");
        }
        let all: Vec<(Lsn, Vec<u8>)> =
            wal.read(..).unwrap().map(|r| r.unwrap()).map(|r| (r.lsn, r.payload.to_vec())).collect();
        assert_eq!(all.len(), 30);
        for shown in shown {
            assert!(*shown.lock().unwrap() == all, "seed {seed}");
        }
        wal.close().unwrap();
    }
}

/// On the system's disk and threads: blocked for long, and woken.
#[test]
fn a_follower_on_the_systems_disk() {
    let dir = std::env::temp_dir().join(format!("seawall-follow-{}", std::process::id()));
    let wal = Wal::options().segment_bytes(1 << 20).disk(OsDisk::new()).open(&dir).unwrap();
    let follower = wal.follow(Lsn::ZERO).unwrap();
    let thread = std::thread::spawn(move || {
        follower.map(|record| record.unwrap().payload.to_vec()).collect::<Vec<_>>()
    });
    std::thread::scope(|scope| {
        for i in 0..4u8 {
            let wal = &wal;
            scope.spawn(move || (0..200).for_each(|_| assert!(wal.commit(vec![i; 3_000]).is_ok())));
        }
    });
    let all: Vec<Vec<u8>> = wal.read(..).unwrap().map(|record| record.unwrap().payload.to_vec()).collect();
    wal.close().unwrap();
    let shown = thread.join().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    assert_eq!(shown.len(), 800);
    assert!(shown == all);
}
