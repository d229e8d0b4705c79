//! A log that has been idle for long gives its files back, and makes them anew when it is written again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use seawall_wal::disk::Disk;
use seawall_wal::runtime::Rng;
use seawall_wal::{Durability, Kind, Lsn, SimDisk, SimRuntime, Wal};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SEGMENT: u64 = 64 << 10;
const LONG: Duration = Duration::from_secs(1);

fn open(disk: &Arc<SimDisk>, runtime: &Arc<SimRuntime>) -> Wal {
    let options = Wal::options().segment_bytes(SEGMENT).background(false);
    options.disk(disk.clone()).runtime(runtime.clone()).open("/log").unwrap()
}

/// Files of the log but for its anchor.
fn files(disk: &Arc<SimDisk>) -> usize {
    disk.list(Path::new("/log")).unwrap().len() - 1
}

fn settle(wal: &Wal) {
    while wal.step().unwrap() {}
}

fn rest(wal: &Wal, runtime: &SimRuntime) {
    settle(wal);
    runtime.advance(LONG);
    settle(wal);
}

fn payloads(wal: &Wal) -> Vec<Vec<u8>> {
    wal.read(..).unwrap().map(|record| record.unwrap().payload.to_vec()).collect()
}

#[test]
fn files_go_when_the_log_rests_and_come_back_with_what_is_written() {
    let (disk, runtime) = (SimDisk::new(1), SimRuntime::new(1));
    let wal = open(&disk, &runtime);
    let mut number = 0_u64;
    let mut commit = |bytes: usize| {
        number += 1;
        let mut payload = vec![7; bytes];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        wal.commit(&payload).unwrap()
    };
    for _ in 0..40 {
        commit(8000);
        settle(&wal);
    }
    assert!(files(&disk) >= 7, "{} files: some are ready", files(&disk));
    wal.truncate_before(wal.durable_lsn()).unwrap();
    settle(&wal);
    assert_eq!(files(&disk), 3, "the live one, and two that are ready");
    rest(&wal, &runtime);
    assert!(files(&disk) <= 2, "{} files", files(&disk));
    // One commit now and then makes no files but for segments that it begins.
    for _ in 0..3 {
        commit(100);
        rest(&wal, &runtime);
        let begun = wal.durable_lsn().0.div_ceil(SEGMENT) - wal.first_lsn().0 / SEGMENT;
        assert_eq!(files(&disk) as u64, begun + 1, "one is ready");
    }
    // Whatever follows finds its place, with threads that make files ahead and without.
    for turn in 0..30 {
        commit(8000);
        if turn % 2 == 0 {
            settle(&wal);
        }
    }
    settle(&wal);
    assert!(wal.stats().rotations >= 8, "{:?}", wal.stats());
    wal.close().unwrap();
    let wal = open(&disk, &runtime);
    assert_eq!(payloads(&wal).len(), 33);
}

/// Written, left alone, reclaimed and filled up in any order, over power cuts: nothing acknowledged is lost, and no position
/// is given out that has no file.
#[test]
fn a_log_that_rests_now_and_then_keeps_what_it_acknowledged() {
    let mut rested = 0;
    for seed in 0..300 {
        let (mut disk, runtime) = (SimDisk::new(seed), SimRuntime::new(seed));
        let mut rng = Rng::new(seed);
        let mut kept: Vec<(Lsn, Vec<u8>)> = Vec::new();
        for _ in 0..3 {
            let wal = open(&disk, &runtime);
            kept.retain(|(lsn, _)| *lsn >= wal.first_lsn());
            let there: Vec<_> =
                wal.read(..).unwrap().map(Result::unwrap).map(|r| (r.lsn, r.payload.to_vec())).collect();
            assert!(
                there == kept,
                "seed {seed}: {} records, and {} were acknowledged",
                there.len(),
                kept.len()
            );
            for _ in 0..rng.below(40) {
                match rng.below(12) {
                    0..=5 => {
                        let mut payload = vec![0; 8 + rng.below(20_000) as usize];
                        payload[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
                        kept.push((wal.commit(&payload).unwrap(), payload));
                    }
                    6 => {
                        let large = vec![kept.len() as u8; 150_000];
                        kept.push((wal.commit(&large).unwrap(), large));
                    }
                    7 => settle(&wal),
                    8 => {
                        wal.truncate_before(wal.durable_lsn()).unwrap();
                    }
                    9 => {
                        let lsn = wal.commit(b"cut").unwrap();
                        wal.truncate_after(lsn).unwrap();
                    }
                    _ => {
                        let before = files(&disk);
                        rest(&wal, &runtime);
                        rested += usize::from(files(&disk) < before);
                    }
                }
            }
            if rng.chance(1, 3) {
                wal.close().unwrap();
            }
            disk = disk.crash();
        }
    }
    assert!(rested > 300, "{rested}");
}

/// Whoever was told that there is room finds it, also if the log was at rest before.
#[test]
fn room_that_was_made_stays() {
    let (disk, runtime) = (SimDisk::new(1), SimRuntime::new(1));
    let wal = open(&disk, &runtime);
    wal.commit(b"x").unwrap();
    let payload = vec![1; 400_000];
    for _ in 0..3 {
        rest(&wal, &runtime);
        wal.make_room(payload.len()).unwrap();
        settle(&wal);
        // There is room already, and it stays for whoever asks again.
        runtime.advance(LONG);
        wal.make_room(payload.len()).unwrap();
        settle(&wal);
        assert!(wal.place(Kind(3), 0, &payload, Durability::Synced).unwrap().is_some());
    }
}

/// Another thread steps while a large record waits for its files, in a log that is at rest.
#[test]
#[expect(clippy::disallowed_methods, reason = "the system's threads and clock, beside a simulated disk")]
fn a_large_commit_ends_beside_steps() {
    let options = Wal::options().segment_bytes(SEGMENT).background(false);
    let wal = options.disk(SimDisk::new(1)).open("/log").unwrap();
    wal.commit(b"x").unwrap();
    settle(&wal);
    std::thread::sleep(LONG);
    let thread = {
        let wal = wal.clone();
        std::thread::spawn(move || wal.commit(vec![1; 20_000_000]).unwrap())
    };
    let begun = Instant::now();
    while !thread.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", wal.stats());
        let _ = wal.step();
        std::thread::yield_now();
    }
    thread.join().unwrap();
    assert!(wal.stats().segments_created < 330, "{:?}", wal.stats());
}

/// One burst after the other, each reclaimed, with so long a pause between them. Files that were made.
fn bursts(wal: &Wal, runtime: &SimRuntime, count: usize, pause: Duration) -> u64 {
    let before = wal.stats().segments_created;
    for _ in 0..count {
        for _ in 0..12 {
            wal.commit(vec![1; 8000]).unwrap();
        }
        wal.truncate_before(wal.durable_lsn()).unwrap();
        settle(wal);
        runtime.advance(pause);
        settle(wal);
    }
    wal.stats().segments_created - before
}

#[test]
fn a_log_that_is_busy_now_and_then_keeps_its_files() {
    let (disk, runtime) = (SimDisk::new(1), SimRuntime::new(1));
    let wal = open(&disk, &runtime);
    bursts(&wal, &runtime, 5, LONG);
    assert_eq!(bursts(&wal, &runtime, 40, LONG), 0);
    // It rests later for that, and keeps one file.
    runtime.advance(Duration::from_secs(61));
    settle(&wal);
    assert_eq!(files(&disk), 2, "the live one, and one that is ready");
    // After a long quiet it is as it was.
    runtime.advance(Duration::from_secs(61));
    bursts(&wal, &runtime, 1, Duration::ZERO);
    assert!(files(&disk) > 2, "{} files", files(&disk));
    rest(&wal, &runtime);
    assert_eq!(files(&disk), 2);
}

/// The live segment is full to its last byte, or was left: whatever comes next needs a file, and finds it.
#[test]
fn a_log_at_rest_keeps_the_file_that_it_needs_next() {
    let (disk, runtime) = (SimDisk::new(1), SimRuntime::new(1));
    let wal = open(&disk, &runtime);
    // Frames of whole blocks: the first segment is full.
    wal.commit(vec![1; SEGMENT as usize / 2]).unwrap();
    settle(&wal);
    while !wal.reserved_lsn().0.next_multiple_of(4096).is_multiple_of(SEGMENT) {
        wal.commit(b"x").unwrap();
    }
    settle(&wal);
    rest(&wal, &runtime);
    rest(&wal, &runtime);
    assert_eq!(files(&disk), 2, "the full one, and the next");
    let made = wal.stats().segments_created;
    assert!(wal.place(Kind(3), 0, b"y", Durability::Synced).unwrap().is_some());
    assert_eq!(wal.stats().segments_created, made);
    // A cut goes on in another segment.
    let lsn = wal.commit(b"cut").unwrap();
    wal.truncate_after(lsn).unwrap();
    rest(&wal, &runtime);
    assert!(files(&disk) >= 3, "{} files", files(&disk));
}
