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
use seawall_wal::{Lsn, SimDisk, SimRuntime, Wal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
    let resting = files(&disk);
    // One commit now and then makes no files.
    for _ in 0..3 {
        commit(100);
        rest(&wal, &runtime);
        assert!(files(&disk) <= resting.max(2), "{} files", files(&disk));
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
