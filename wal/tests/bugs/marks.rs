//! Classes 26 to 42: threads, groups, marks and versions.

use crate::rig::{
    DIR, SEGMENT, Trace, barely, bytes, claimed, committers, file, open, options, payloads, simulated, torn,
};
use seawall_wal::disk::SimDisk;
use seawall_wal::disk::sim::{CrashStyle, Fault};
use seawall_wal::{Durability, Error, Lsn, Runtime};
use std::time::Duration;

#[test]
pub fn bug_26_a_hang_after_recovery() {
    for (seed, (torn, trace)) in (0..100).filter_map(|seed| Some((seed, torn(seed)?))) {
        let (disk, runtime) = simulated(seed, Some(&torn));
        let wal = options(&disk).runtime(runtime.clone()).background(true).open(DIR).unwrap();
        let found = payloads(&wal);
        trace.check(&found, "recovered");
        assert_eq!(committers(&disk, &runtime, &wal, 4, 6), 24);
        wal.sync().unwrap();
        let ticket = wal.commit_pipelined(b"a ticket").unwrap();
        assert!(ticket.wait_timeout(Duration::from_secs(5)).unwrap().is_some());
        assert_eq!(payloads(&wal).len(), found.len() + 25);
        wal.close().unwrap();
        assert!(runtime.now() < Duration::from_secs(2), "seed {seed}: {:?} of simulated time", runtime.now());
    }
}

#[test]
pub fn bug_28_a_misdirected_log_write() {
    let (mut caught, mut outlived) = (0, 0);
    for seed in 0..200 {
        for fault in [Fault::misdirected_write(), Fault::lost_write()] {
            let disk = SimDisk::new(seed);
            let wal = open(&disk).unwrap();
            let mut trace = Trace::default();
            for _ in 0..seed % 5 {
                trace.commit(&wal, 5000).unwrap();
            }
            disk.fail(fault);
            for _ in 0..3 {
                // The device says yes to all of them. What follows the lost one proves that it was acknowledged.
                trace.commit(&wal, 5000).unwrap();
            }
            trace.acked -= 1;
            let after = disk.crash();
            drop(wal);
            match open(&after) {
                Ok(wal) => {
                    trace.check(&payloads(&wal), &format!("seed {seed}"));
                    outlived += 1;
                }
                Err(Error::Corruption { .. }) => caught += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    assert!(caught > 300, "{caught} caught, {outlived} without effect");
}

#[test]
pub fn bug_34_acknowledged_before_its_own_sync() {
    for seed in 0..60 {
        let (disk, runtime) = simulated(seed, None);
        let wal = options(&disk).runtime(runtime.clone()).background(true).open(DIR).unwrap();
        disk.fail(Fault::power_cut().at_call(10 + seed * 2));
        disk.set_crash_style(Some(CrashStyle::KeepNone));
        let acked = committers(&disk, &runtime, &wal, 6, 12);
        drop(wal);
        let after = simulated(seed, Some(&disk.crash())).0;
        let found = payloads(&options(&after).runtime(runtime.clone()).open(DIR).unwrap()).len();
        assert!(found >= acked, "seed {seed}: {acked} acknowledged, {found} kept");
    }
    // A commit that asks for less, and comes before one that asks for more, is covered by its sync.
    let disk = SimDisk::new(34);
    let wal = open(&disk).unwrap();
    wal.commit_with(b"written", Durability::Written).unwrap();
    wal.append(b"in memory").unwrap();
    wal.commit(b"synced").unwrap();
    assert_eq!(payloads(&open(&barely(&disk)).unwrap()).len(), 3);
}

#[test]
pub fn bug_38_group_commit_that_never_groups() {
    let (disk, runtime) = simulated(38, None);
    let wal = options(&disk).runtime(runtime.clone()).open(DIR).unwrap();
    let before = wal.stats();
    assert_eq!(committers(&disk, &runtime, &wal, 8, 40), 320);
    let after = wal.stats();
    let (commits, syncs) = (after.commits - before.commits, after.syncs - before.syncs);
    assert_eq!(commits, 320);
    assert!(syncs * 3 < commits, "{syncs} syncs for {commits} commits of 8 threads");
    wal.close().unwrap();
}

#[test]
pub fn bug_39_a_stall_at_rotation() {
    let disk = SimDisk::new(39);
    let wal = open(&disk).unwrap();
    disk.set_trace(true);
    let mut slow = Vec::new();
    for _ in 0..200 {
        let from = disk.trace().len();
        wal.commit(bytes(1, 8000)).unwrap();
        let calls = disk.trace().split_off(from);
        // A rotation writes one header; files are made elsewhere, ahead of need.
        let is_quick = |call: &&String| call.contains(" write_durable ") || call.contains(" write ");
        slow.extend(calls.iter().filter(|call| !is_quick(call)).cloned());
        assert!(calls.len() <= 2, "{calls:#?}");
        while wal.step().unwrap() {}
    }
    assert!(wal.stats().rotations > 20);
    assert!(slow.is_empty(), "commits waited for {slow:#?}");
}

#[test]
pub fn bug_41_a_watermark_that_does_not_advance() {
    // Nobody looks at a statistic here: the marks on the disk advance all the same, and damage is noticed.
    let disk = SimDisk::new(41);
    let wal = open(&disk).unwrap();
    let mut before = Lsn::ZERO;
    for _ in 0..10 {
        let durable = wal.durable_lsn();
        wal.commit(bytes(1, 9000)).unwrap();
        assert!(claimed(&disk) >= durable && claimed(&disk) >= before);
        before = claimed(&disk);
    }
    assert!(before > Lsn(SEGMENT + 60_000));
    let lsns: Vec<Lsn> = wal.read(..).unwrap().map(|record| record.unwrap().lsn).collect();
    let after = disk.crash();
    for lsn in &lsns[..9] {
        let damaged = after.crash_copy();
        damaged.flip(file(lsn.0 / SEGMENT), lsn.0 % SEGMENT + 100, 1).unwrap();
        let error = open(&damaged).expect_err("acknowledged bytes are damaged");
        assert!(matches!(error, Error::Corruption { lsn: Some(at), .. } if at <= *lsn), "{lsn}: {error}");
    }
    // Idle, or closed: the last one is covered as well.
    drop(wal);
    for close in [false, true] {
        let disk = after.crash_copy();
        let wal = open(&disk).unwrap();
        let last = wal.commit(bytes(2, 100)).unwrap();
        if close {
            wal.close().unwrap()
        } else {
            assert!(wal.step().unwrap())
        }
        let damaged = disk.crash();
        damaged.flip(file(last.0 / SEGMENT), last.0 % SEGMENT + 10, 1).unwrap();
        assert!(matches!(open(&damaged), Err(Error::Corruption { .. })), "closed: {close}");
    }
    // So it is where its segment has no room for another frame.
    for files_ahead in [false, true] {
        let disk = SimDisk::new(41);
        let wal = open(&disk).unwrap();
        // A seal stands between the two, if the log was idle meanwhile.
        let room = SEGMENT as usize - if files_ahead { 3 * 4096 } else { 2 * 4096 };
        let first = wal.commit(bytes(3, room - 64 - 24)).unwrap();
        while files_ahead && wal.step().unwrap() {}
        let last = wal.commit(bytes(4, 4000)).unwrap();
        assert_eq!((first.0 / SEGMENT, last.0 % SEGMENT), (last.0 / SEGMENT, SEGMENT - 4096 + 64));
        while wal.step().unwrap() {}
        let damaged = disk.crash();
        damaged.flip(file(last.0 / SEGMENT), last.0 % SEGMENT + 10, 1).unwrap();
        assert!(matches!(open(&damaged), Err(Error::Corruption { .. })), "files ahead: {files_ahead}");
    }
}

#[test]
pub fn bug_42_every_future_version_reads_as_corrupt() {
    let reseal = |block: &mut [u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&block[..12]);
        hasher.update(&block[16..]);
        let sum = hasher.finalize();
        block[12..16].copy_from_slice(&sum.to_le_bytes());
    };
    let disk = SimDisk::new(42);
    let wal = open(&disk).unwrap();
    wal.commit(b"of today").unwrap();
    wal.close().unwrap();
    for (path, slots) in [(format!("{DIR}/anchor"), 2), (file(1), 1)] {
        for version in [0u32, 2, 3, 255, 256, 65_536, u32::MAX] {
            let disk = disk.crash_copy();
            let mut bytes = disk.read_file(&path).unwrap();
            for block in bytes.chunks_mut(4096).take(slots) {
                block[8..12].copy_from_slice(&version.to_le_bytes());
                reseal(block);
            }
            disk.write_file(&path, &bytes).unwrap();
            let error = open(&disk).unwrap_err();
            assert!(matches!(error, Error::FormatVersion { .. }), "{path}, version {version}: {error}");
            assert!(version < 2 || matches!(error, Error::FormatVersion { found, .. } if found == version));
        }
        for at in 0..8 {
            // The whole width of the magic counts.
            let disk = disk.crash_copy();
            let mut bytes = disk.read_file(&path).unwrap();
            for block in bytes.chunks_mut(4096).take(slots) {
                block[at] ^= 0x20;
                reseal(block);
            }
            disk.write_file(&path, &bytes).unwrap();
            assert!(matches!(open(&disk), Err(Error::Corruption { .. })), "{path}, byte {at} of the magic");
        }
    }
}
