//! A long log needs no more open files than a short one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use seawall_wal::{Lsn, SimDisk, SimRuntime, Wal, WalOptions, WalReader};
use std::sync::Arc;

fn options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options().segment_bytes(64 << 10).disk(disk.clone()).runtime(SimRuntime::new(1)).background(false)
}

/// A process may have 1,024 descriptors open, and the system's files need two each.
#[test]
fn a_long_log_is_opened_with_few_files_open() {
    let disk = SimDisk::new(1);
    let wal = options(&disk).open("/log").unwrap();
    for n in 0..700u32 {
        wal.append(vec![n as u8; 50_000]).unwrap();
        if n % 8 == 0 {
            wal.sync().unwrap();
        }
    }
    wal.sync().unwrap();
    assert!(wal.stats().rotations > 600);
    // Beside one that is written to, too.
    let follower = WalReader::follow_with("/log", Lsn::ZERO, &options(&disk)).unwrap();
    assert!(follower.limit() > Lsn::ZERO);
    drop(follower);
    assert!(disk.handles_most() < 32, "{}", disk.handles_most());
    for is_direct in [true, false] {
        let disk = disk.crash_copy();
        disk.set_direct(is_direct);
        let wal = options(&disk).open("/log").unwrap();
        assert_eq!(wal.read(..).unwrap().count(), 700);
        assert!(disk.handles_most() < 32, "{}", disk.handles_most());
        assert_eq!(wal.recovery().rewritten, !is_direct);
        // Most are dropped, and some used again.
        let middle = wal.read(..).unwrap().nth(20).unwrap().unwrap().lsn;
        wal.truncate_after(middle).unwrap();
        wal.commit(b"behind").unwrap();
        drop(wal);
        let wal = options(&disk).open("/log").unwrap();
        assert_eq!(wal.read(..).unwrap().count(), 21);
        assert!(disk.handles_most() < 32, "{}", disk.handles_most());
    }
}
