//! `SimDisk` under `SimRuntime`: crashes while several threads have writes on their way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use seawall_wal::Runtime;
use seawall_wal::disk::{Disk, Open, SimDisk};
use seawall_wal::runtime::SimRuntime;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

fn path(name: &str) -> &Path {
    Path::new(name)
}

/// Threads on a simulated runtime; returns what a second run must repeat.
fn threads(seed: u64) -> (u64, u64, Vec<u8>, std::time::Duration) {
    let runtime = SimRuntime::new(seed);
    let disk = SimDisk::with_runtime(seed, runtime.clone());
    let file = disk.open(path("/f"), Open::CreateNew).unwrap();
    disk.sync_dir(path("/")).unwrap();
    let acked = Arc::new(parking_lot::Mutex::new(BTreeSet::new()));
    let writers: Vec<_> = (0..4u64)
        .map(|who| {
            let (file, acked) = (file.clone(), acked.clone());
            let body = move || {
                for round in 0..8 {
                    let block = round * 4 + who;
                    if file.write_durable_at(&[block as u8 + 1; 4096], block * 4096).is_err() {
                        return;
                    }
                    acked.lock().insert(block);
                }
            };
            runtime.spawn("writer", Box::new(body)).unwrap()
        })
        .collect();
    runtime.sleep(std::time::Duration::from_micros(50 + seed % 500));
    let acked_then = acked.lock().clone();
    let after = disk.crash();
    for writer in writers {
        assert!(!writer.join());
    }
    assert_eq!(*acked.lock(), acked_then, "nothing is acknowledged without power");
    let left = after.read_file("/f").unwrap();
    for block in acked_then {
        let at = block as usize * 4096;
        assert_eq!(left[at..at + 4096], [block as u8 + 1; 4096], "seed {seed}: acknowledged, then lost");
    }
    (disk.trace_hash(), runtime.trace_hash(), left, runtime.now())
}

#[test]
fn threads_crash_in_the_middle_of_writes_and_repeat_exactly() {
    let mut torn = 0;
    for seed in 0..200 {
        let run = threads(seed);
        let is_torn = |block: &[u8]| block.windows(2).any(|pair| pair[0] != pair[1]);
        torn += run.2.chunks(4096).filter(|block| is_torn(block)).count();
        if seed % 4 == 0 {
            assert_eq!(run, threads(seed), "seed {seed}");
        }
    }
    assert!(torn > 10, "writes on their way are to be torn now and then: {torn}");
}
