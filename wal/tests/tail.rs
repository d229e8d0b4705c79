//! Following a log by its files alone, as from another process: only what something on the disk proves to be durable,
//! over rotation, recycling, restarts and cuts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and one is of the system's own threads"
)]

use seawall_wal::disk::sim::{CrashStyle, Fault, Op, Zone};
use seawall_wal::mutation::Mutation;
use seawall_wal::runtime::Rng;
use seawall_wal::{
    Disk, Durability, Error, Lsn, Next, OsDisk, Record, Runtime, SimDisk, SimRuntime, Wal, WalOptions,
    WalReader,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const DIR: &str = "/log";
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(600);

fn options(disk: &Arc<SimDisk>) -> WalOptions {
    let runtime = SimRuntime::new(disk.trace_hash());
    Wal::options().segment_bytes(SEGMENT).disk(disk.clone()).runtime(runtime).background(false)
}

fn new() -> (Arc<SimDisk>, Wal) {
    let disk = SimDisk::new(1);
    let wal = options(&disk).open(DIR).unwrap();
    (disk, wal)
}

fn tail(disk: &Arc<SimDisk>, from: Lsn) -> WalReader {
    WalReader::follow_with(DIR, from, &options(disk)).unwrap()
}

/// Falls idle: the newest records are proven as well.
fn settle(wal: &Wal) {
    while wal.step().unwrap() {}
}

fn record(follower: &mut WalReader) -> Record {
    match follower.next_timeout(SHORT).unwrap() {
        Next::Record(record) => record,
        other => panic!("no record, but {other:?}"),
    }
}

fn waits(follower: &mut WalReader) -> bool {
    matches!(follower.next_timeout(SHORT).unwrap(), Next::TimedOut)
}

/// Everything that it shows now.
fn drain(follower: &mut WalReader) -> Vec<(Lsn, Vec<u8>)> {
    let mut found = Vec::new();
    while let Next::Record(record) = follower.next_timeout(SHORT).unwrap() {
        found.push((record.lsn, record.payload.to_vec()));
    }
    found
}

fn all(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    wal.read(..).unwrap().map(|record| record.unwrap()).map(|r| (r.lsn, r.payload.to_vec())).collect()
}

/// Whether nothing is shown that nothing proves.
fn shows_only_what_is_proven(mutation: Option<Mutation>) -> bool {
    let (disk, wal) = new();
    let mut follower = WalReader::follow_with(DIR, Lsn::ZERO, &options(&disk).mutation(mutation)).unwrap();
    let mut good = waits(&mut follower);
    wal.commit_with(b"with the system", Durability::Written).unwrap();
    good &= waits(&mut follower);
    wal.commit_with(b"too", Durability::Written).unwrap();
    good &= waits(&mut follower);
    wal.commit(b"on the device").unwrap();
    // Its own frame says only what was durable before it.
    good &= waits(&mut follower);
    wal.commit_with(b"behind it", Durability::Written).unwrap();
    let shown = drain(&mut follower);
    good &= shown.len() == 3 && shown[2].1 == b"on the device";
    settle(&wal);
    good &= waits(&mut follower);
    wal.sync().unwrap();
    settle(&wal);
    good && record(&mut follower).payload == b"behind it" && waits(&mut follower)
}

#[test]
fn only_what_is_proven_is_shown() {
    assert!(shows_only_what_is_proven(None));
    assert!(!shows_only_what_is_proven(Some(Mutation::FollowPastDurable)), "the mistake goes unnoticed");
}

#[test]
fn an_idle_log_and_one_that_nobody_has_open() {
    let (disk, wal) = new();
    wal.commit(b"one").unwrap();
    settle(&wal);
    let mut follower = tail(&disk, Lsn::ZERO);
    assert_eq!(record(&mut follower).payload, b"one");
    wal.close().unwrap();
    assert!(waits(&mut follower), "the end of the writer is no end");
    let mut late = tail(&disk, Lsn::ZERO);
    assert_eq!(record(&mut late).payload, b"one");
    let wal = options(&disk).open(DIR).unwrap();
    wal.commit(b"two").unwrap();
    settle(&wal);
    for follower in [&mut follower, &mut late] {
        assert_eq!(record(follower).payload, b"two");
        assert!(waits(follower));
    }
    follower.stopper().stop();
    assert!(matches!(follower.next_timeout(LONG).unwrap(), Next::Ended));
    let missing = WalReader::follow_with("/nothing", Lsn::ZERO, &options(&disk));
    assert!(matches!(missing, Err(Error::Io { .. })));
}

/// Commits of all sizes, rotation, files used again, the writer closed and opened: everything is shown, once.
#[test]
fn it_keeps_up_with_a_writer() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let mut wal = options(&disk).open(DIR).unwrap();
        let mut followers = [tail(&disk, Lsn::ZERO), tail(&disk, Lsn::ZERO)];
        let mut shown = [Vec::new(), Vec::new()];
        let mut written = Vec::new();
        for n in 0..120u64 {
            let mut payload = vec![n as u8; [20, 3_000, 30_000, 100_000][rng.below(4) as usize]];
            rng.fill(&mut payload);
            let level = [Durability::Memory, Durability::Written, Durability::Synced][rng.below(3) as usize];
            written.push((wal.commit_with(&payload, level).unwrap(), payload));
            for (follower, shown) in followers.iter_mut().zip(&mut shown) {
                if rng.chance(1, 3) {
                    shown.extend(drain(follower));
                }
            }
            if rng.chance(1, 6) {
                let least = shown.iter().map(Vec::len).min().unwrap();
                if let Some((lsn, _)) = written.get(least) {
                    wal.truncate_before(*lsn).unwrap();
                }
            }
            match rng.below(12) {
                0 => settle(&wal),
                1 => {
                    wal.close().unwrap();
                    wal = options(&disk).open(DIR).unwrap();
                }
                _ => {}
            }
            assert!(shown.iter().all(|shown| shown.len() <= written.len()));
        }
        assert!(seed > 0 || wal.stats().segments_recycled > 0);
        wal.sync().unwrap();
        settle(&wal);
        for (follower, shown) in followers.iter_mut().zip(&mut shown) {
            shown.extend(drain(follower));
            assert!(*shown == written, "seed {seed}: {} of {}", shown.len(), written.len());
        }
    }
}

#[test]
fn it_begins_anywhere() {
    let (disk, wal) = new();
    let mut rng = Rng::new(3);
    for n in 0..40u64 {
        let bytes = vec![n as u8; [10, 300, 5_000, 30_000, 150_000][rng.below(5) as usize]];
        wal.append_batch(&[&bytes, &vec![n as u8; 40 * n as usize]]).unwrap();
        if n % 3 == 0 {
            wal.sync().unwrap();
        }
    }
    wal.sync().unwrap();
    settle(&wal);
    let placed: Vec<Record> = wal.read(..).unwrap().map(Result::unwrap).collect();
    for (i, record) in placed.iter().enumerate() {
        for (from, index) in [(record.lsn, i), (record.lsn.plus(1), i + 1), (record.end, i + 1)] {
            let mut follower = tail(&disk, from);
            let found = follower.next_timeout(SHORT).unwrap();
            match (placed.get(index), found) {
                (Some(expected), Next::Record(found)) => {
                    assert_eq!((found.lsn, found.end), (expected.lsn, expected.end), "from {from}");
                    assert!(found.payload == expected.payload);
                }
                (None, Next::TimedOut) => {}
                other => panic!("from {from}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_was_reclaimed_is_an_error() {
    let (disk, wal) = new();
    let mut follower = tail(&disk, Lsn::ZERO);
    let mut lsns = Vec::new();
    for n in 0..3u8 {
        lsns.push(wal.commit(vec![n; 30_000]).unwrap());
    }
    assert_eq!(record(&mut follower).payload[0], 0);
    for n in 3..12u8 {
        lsns.push(wal.commit(vec![n; 30_000]).unwrap());
    }
    wal.truncate_before(lsns[10]).unwrap();
    for n in 12..24u8 {
        lsns.push(wal.commit(vec![n; 30_000]).unwrap());
    }
    assert!(wal.stats().segments_recycled > 0);
    let mut told = follower.next_timeout(SHORT);
    if let Ok(Next::Record(record)) = &told {
        // What was read already may still be shown.
        assert_eq!(record.payload[0], 1);
        told = follower.next_timeout(SHORT);
    }
    assert!(matches!(&told, Err(Error::Reclaimed { first, .. }) if *first == lsns[10]), "{told:?}");
    assert!(follower.next().is_none());
    let late = WalReader::follow_with(DIR, lsns[5], &options(&disk));
    assert!(matches!(late, Err(Error::Reclaimed { .. })));
    assert_eq!(record(&mut tail(&disk, lsns[10])).lsn, lsns[10]);
}

/// An idle log whose beginning goes with its checkpoints, over seals, loses no reader that has shown all.
#[test]
fn one_that_has_shown_all_is_not_left_behind() {
    let (disk, wal) = new();
    let mut follower = tail(&disk, Lsn::ZERO);
    for n in 0..40u8 {
        wal.commit(vec![n; 7_000]).unwrap();
        settle(&wal);
        assert_eq!(record(&mut follower).payload[0], n);
        let checkpoint = wal.barrier().unwrap();
        wal.commit(vec![n; 20]).unwrap();
        settle(&wal);
        wal.truncate_before(checkpoint).unwrap();
        assert_eq!(record(&mut follower).payload.len(), 20);
        assert!(waits(&mut follower));
    }
}

#[test]
fn cuts_are_seen() {
    let (disk, wal) = new();
    let lsns: Vec<Lsn> = (0..6u8).map(|n| wal.commit(vec![n; 30_000]).unwrap()).collect();
    settle(&wal);
    let mut followers: Vec<WalReader> = (0..7).map(|_| tail(&disk, Lsn::ZERO)).collect();
    for (n, follower) in followers.iter_mut().enumerate() {
        assert_eq!(follower.by_ref().take(n).count(), n);
    }
    wal.truncate_after(lsns[3]).unwrap();
    wal.commit(b"instead").unwrap();
    settle(&wal);
    for (n, follower) in followers.iter_mut().enumerate() {
        if n > 3 {
            let told = follower.next_timeout(SHORT);
            assert!(matches!(told, Err(Error::Truncated { .. })), "{n}: {told:?}");
            continue;
        }
        let rest: Vec<u8> = drain(follower).iter().map(|(_, payload)| payload[0]).collect();
        let expected: Vec<u8> = (n as u8..3).chain([b'i']).collect();
        assert_eq!(rest, expected, "{n}");
    }
    let late = WalReader::follow_with(DIR, lsns[5], &options(&disk));
    assert!(matches!(late, Err(Error::Truncated { .. })));
    assert_eq!(drain(&mut tail(&disk, lsns[3])).len(), 1);
}

/// A follower after every cut of a long history: within batches, within records that no frame holds, in older segments.
/// What was shown was cut off, and then the log gave up all that stood before: told as a cut all the same.
#[test]
fn a_cut_is_told_when_the_log_begins_behind_it() {
    let (disk, wal) = new();
    let mut follower = tail(&disk, Lsn::ZERO);
    wal.commit(b"stays").unwrap();
    let cut = wal.next_lsn();
    wal.commit(b"goes").unwrap();
    settle(&wal);
    assert_eq!(drain(&mut follower).len(), 2);
    wal.truncate_after(cut).unwrap();
    let kept = wal.commit(b"later").unwrap();
    wal.truncate_before(kept).unwrap();
    settle(&wal);
    match follower.next_timeout(SHORT) {
        Err(Error::Truncated { at }) => assert!(at <= cut),
        other => panic!("{other:?}"),
    }
}

#[test]
fn cuts_everywhere() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let wal = options(&disk).open(DIR).unwrap();
        let mut follower = tail(&disk, Lsn::ZERO);
        let mut shown: Vec<(Lsn, Vec<u8>)> = Vec::new();
        let mut told = 0;
        for n in 0..60u8 {
            let payload = vec![n; [30, 4_000, 40_000, 130_000][rng.below(4) as usize]];
            wal.append_batch(&[&payload[..], &[n; 50]]).unwrap();
            if rng.chance(1, 2) {
                wal.sync().unwrap();
            }
            if rng.chance(1, 3) {
                settle(&wal);
            }
            if rng.chance(1, 2) {
                // One, within a unit.
                if let Next::Record(record) = follower.next_timeout(SHORT).unwrap() {
                    shown.push((record.lsn, record.payload.to_vec()));
                }
            } else {
                shown.extend(drain(&mut follower));
            }
            let there = all(&wal);
            if rng.chance(1, 6) && !there.is_empty() {
                let (at, _) = there[rng.below(there.len() as u64) as usize];
                wal.truncate_after(at).unwrap();
                let left = all(&wal);
                let is_behind = shown.iter().any(|(lsn, _)| *lsn >= at);
                wal.commit(vec![n; 100]).unwrap();
                settle(&wal);
                let next = follower.next_timeout(SHORT);
                if is_behind {
                    assert!(matches!(next, Err(Error::Truncated { .. })), "seed {seed}, {n}: {next:?}");
                    told += 1;
                    shown = left;
                    follower = tail(&disk, at);
                } else if let Next::Record(record) = next.unwrap() {
                    shown.push((record.lsn, record.payload.to_vec()));
                }
            }
            let there = all(&wal);
            assert!(there.starts_with(&shown), "seed {seed}, {n}");
        }
        wal.sync().unwrap();
        settle(&wal);
        shown.extend(drain(&mut follower));
        assert!(shown == all(&wal), "seed {seed}");
        assert!(told > 0 || seed > 5, "seed {seed}");
    }
}

/// After a power cut whatever was shown is there again, and a follower goes on from where it was.
#[test]
fn what_was_shown_survives() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(seed);
        disk.set_crash_style(Some([CrashStyle::KeepNone, CrashStyle::Random][rng.below(2) as usize]));
        let (mut shown, mut last) = (Vec::new(), Lsn::ZERO);
        for _ in 0..4 {
            let wal = options(&disk).open(DIR).unwrap();
            let mut follower = tail(&disk, last);
            for n in 0..20u8 {
                let level =
                    [Durability::Memory, Durability::Written, Durability::Synced][rng.below(3) as usize];
                wal.commit_with(vec![n; rng.below(30_000) as usize], level).unwrap();
                if rng.chance(1, 3) {
                    shown.extend(drain(&mut follower));
                }
            }
            last = shown.last().map_or(last, |(lsn, _): &(Lsn, Vec<u8>)| lsn.plus(1));
            let next = disk.crash();
            drop(wal);
            disk = next;
            let wal = options(&disk).open(DIR).unwrap();
            assert!(all(&wal).starts_with(&shown), "seed {seed}");
            disk = disk.kill();
        }
    }
}

/// Nothing is asked of the disk but to read.
#[test]
fn it_only_reads() {
    let (disk, wal) = new();
    for n in 0..6u8 {
        wal.commit(vec![n; 30_000]).unwrap();
    }
    settle(&wal);
    disk.set_trace(true);
    let mut follower = tail(&disk, Lsn::ZERO);
    assert_eq!(drain(&mut follower).len(), 6);
    let trace = disk.trace();
    assert!(trace.len() > 20);
    for line in trace {
        let call = line.split(' ').nth(1).unwrap();
        assert!(["open", "read", "len", "list"].contains(&call), "{line}");
    }
    drop(wal);
}

/// Damage is damage, here too, and a read that fails is an error and no end.
#[test]
fn damage_and_failing_reads_are_told() {
    let (disk, wal) = new();
    for n in 0..6u8 {
        wal.commit(vec![n; 30_000]).unwrap();
    }
    settle(&wal);
    disk.fail(Fault::eio(Op::Read).zone(Zone::suffix("3.log").bytes(4096..SEGMENT)).forever());
    let mut follower = tail(&disk, Lsn::ZERO);
    assert_eq!(follower.by_ref().filter(|found| found.is_ok()).take(2).count(), 2);
    assert!(matches!(follower.next(), Some(Err(Error::Io { .. }))));
}

/// Simulated threads: nothing is left out, and nothing comes twice, whatever the writers and the pool of files do.
#[test]
fn beside_committers() {
    for seed in 0..30 {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::with_runtime(seed, runtime.clone());
        let options = Wal::options().segment_bytes(SEGMENT).disk(disk).runtime(runtime.clone());
        let wal = options.clone().open(DIR).unwrap();
        let mut follower = WalReader::follow_with(DIR, Lsn::ZERO, &options).unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let records = shown.clone();
        let body = move || {
            while records.lock().unwrap().len() < 40 {
                let Some(found) = follower.next() else { break };
                let found = found.unwrap();
                records.lock().unwrap().push((found.lsn, found.payload.to_vec()));
            }
        };
        let thread = runtime.spawn("follower", Box::new(body)).unwrap();
        let committers: Vec<_> = (0..2u64)
            .map(|i| {
                let (wal, mut rng) = (wal.clone(), Rng::new(seed * 10 + i));
                let body = move || {
                    for _ in 0..20 {
                        let payload = vec![i as u8; rng.below(20_000) as usize];
                        let levels = [Durability::Memory, Durability::Written, Durability::Synced];
                        wal.commit_with(payload, levels[rng.below(3) as usize]).unwrap();
                    }
                };
                runtime.spawn("committer", Box::new(body)).unwrap()
            })
            .collect();
        for committer in committers {
            assert!(!committer.join(), "seed {seed}");
        }
        wal.sync().unwrap();
        assert!(!thread.join(), "seed {seed}");
        assert!(*shown.lock().unwrap() == all(&wal), "seed {seed}");
        wal.close().unwrap();
    }
}

/// On the system's disk: a writer that rotates and reclaims, and a reader that opens the directory by itself.
#[test]
fn on_the_systems_disk() {
    let dir = std::env::temp_dir().join(format!("seawall-tail-{}", std::process::id()));
    let disk: Arc<dyn Disk> = OsDisk::new();
    let wal = Wal::options().segment_bytes(1 << 20).disk(disk).probe(false).open(&dir).unwrap();
    let mut follower = WalReader::follow(&dir, Lsn::ZERO).unwrap();
    let thread = std::thread::spawn(move || {
        follower.by_ref().take(400).map(|record| record.unwrap().payload.to_vec()).collect::<Vec<_>>()
    });
    std::thread::scope(|scope| {
        for i in 0..4u8 {
            let wal = &wal;
            scope.spawn(move || (0..100).for_each(|_| assert!(wal.commit(vec![i; 9_000]).is_ok())));
        }
    });
    let all: Vec<Vec<u8>> = wal.read(..).unwrap().map(|record| record.unwrap().payload.to_vec()).collect();
    let shown = thread.join().unwrap();
    wal.close().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    assert_eq!(shown.len(), 400);
    assert!(shown == all);
}
