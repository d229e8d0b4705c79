//! Records that were cut over several segments and did not end: the files that they had begun are given up, and
//! nothing about that may be mistaken for damage, now or later; nor may damage hide behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use seawall_wal::disk::sim::{CrashStyle, Fault};
use seawall_wal::segment::{Header, Parsed};
use seawall_wal::{Durability, Error, Lsn, Outcome, SimDisk, SimRuntime, Wal, WalOptions, WalReader};
use std::sync::Arc;

const DIR: &str = "/db/log";
const SEGMENT_BYTES: u64 = 64 << 10;

fn options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options()
        .segment_bytes(SEGMENT_BYTES)
        .disk(disk.clone())
        .runtime(SimRuntime::new(1))
        .background(false)
}

fn path(number: u64) -> String {
    format!("{DIR}/{}", seawall_wal::segment::file_name(number))
}

/// How many segments' headers are whole.
fn begun(disk: &SimDisk) -> usize {
    let is_begun = |number: &u64| {
        let block = disk.read_file(path(*number));
        block
            .is_some_and(|block| matches!(Header::parse(&block), Parsed::Header(h, _) if h.number == *number))
    };
    (1..20).filter(is_begun).count()
}

/// A disk whose log ends in a record of `bytes` bytes that had begun as many segments as it can without ending.
fn unfinished(bytes: usize, before: usize) -> Arc<SimDisk> {
    let mut best = (1, None);
    for call in 1.. {
        let disk = SimDisk::new(7);
        let wal = options(&disk).open(DIR).unwrap();
        for _ in 0..before {
            wal.commit(vec![1; 9000]).unwrap();
        }
        disk.fail(Fault::power_cut().at_call(call));
        let _ = wal.commit_with(vec![9; bytes], Durability::Synced);
        if disk.has_power() {
            return best.1.expect("some cut leaves the record unfinished");
        }
        for draw in 0..12 {
            disk.set_crash_style((draw == 0).then_some(CrashStyle::KeepAll));
            let after = disk.crash();
            after.set_crash_style(None);
            let Ok(wal) = options(&after).read_only(true).open(DIR) else { continue };
            if wal.recovery().row == "unfinished record" && begun(&after) > best.0 {
                best = (begun(&after), Some(after));
            }
        }
    }
    unreachable!("the loop ends when the power stays")
}

#[test]
fn giving_up_its_segments_may_be_cut_short_anywhere() {
    let base = unfinished(300_000, 1);
    for call in 1..200 {
        let disk = base.crash_copy();
        disk.fail(Fault::power_cut().at_call(call));
        let opened = options(&disk).open(DIR).and_then(|wal| wal.commit(b"next"));
        if disk.has_power() {
            opened.unwrap();
            return;
        }
        for _ in 0..6 {
            let wal = options(&disk.crash()).open(DIR).unwrap();
            assert!(wal.read(..).unwrap().all(|record| record.is_ok()), "call {call}");
        }
    }
    panic!("opening never ended");
}

#[test]
fn a_replay_position_behind_them_opens() {
    for (bytes, before) in [(70_000, 1), (70_000, 4), (130_000, 1), (300_000, 4)] {
        let disk = unfinished(bytes, before);
        let wal = options(&disk).open(DIR).unwrap();
        let replay = wal.barrier().unwrap();
        while wal.step().unwrap() {}
        wal.close().unwrap();
        let wal = options(&disk).start(replay, replay).open(DIR).unwrap();
        wal.commit(b"next").unwrap();
        wal.close().unwrap();
        let all = WalReader::open_with(DIR, Lsn::ZERO, &options(&disk)).unwrap();
        assert_eq!(all.map(|record| record.unwrap().payload.len()).collect::<Vec<_>>(), {
            let mut lengths = vec![9000; before];
            lengths.push(4);
            lengths
        });
    }
}

#[test]
fn a_broken_header_behind_a_gap_is_damage() {
    let disk = unfinished(70_000, 4);
    let wal = options(&disk).open(DIR).unwrap();
    for i in 0..7u8 {
        wal.commit([i; 2000]).unwrap();
    }
    wal.make_room(150_000).unwrap();
    let live = wal.durable_lsn().0 / SEGMENT_BYTES;
    assert!(live > 2, "the torn record's second segment was passed over");
    let damaged = disk.crash_copy();
    damaged.flip(path(live), 70, 1).unwrap();
    match options(&damaged).open(DIR) {
        Err(Error::Corruption { .. }) => {}
        Ok(wal) => panic!("opened with {} records", wal.read(..).unwrap().count()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_log_without_its_anchor_is_not_made_anew_whatever_its_segments_size() {
    let disk = SimDisk::new(5);
    let wal = options(&disk).segment_bytes(SEGMENT_BYTES * 4).open(DIR).unwrap();
    wal.commit(b"kept").unwrap();
    drop(wal);
    disk.remove_durably(format!("{DIR}/anchor")).unwrap();
    let before = disk.paths();
    assert!(matches!(options(&disk).open(DIR), Err(Error::Corruption { .. })));
    assert_eq!(disk.paths(), before, "nothing was removed");
}

#[test]
fn strangers_are_refused_before_anything_is_removed() {
    let disk = SimDisk::new(5);
    disk.write_file(format!("{DIR}/segment.tmp"), b"left over").unwrap();
    disk.write_file(format!("{DIR}/notes.tmp"), b"mine").unwrap();
    assert!(matches!(options(&disk).open(DIR), Err(Error::BadInput(_))));
    assert!(disk.read_file(format!("{DIR}/segment.tmp")).is_some());
}

#[test]
fn whoever_makes_the_log_just_now_is_not_disturbed() {
    let disk = SimDisk::new(5);
    // As if another were between its first segment and its anchor.
    disk.write_file(path(1), &vec![0; SEGMENT_BYTES as usize]).unwrap();
    use seawall_wal::disk::{Disk, Lock, Open};
    let held = disk.open(std::path::Path::new(&path(1)), Open::ReadWrite).unwrap();
    assert!(held.try_lock(Lock::Exclusive).unwrap());
    assert!(matches!(options(&disk).open(DIR), Err(Error::Locked { .. })));
    assert!(disk.read_file(path(1)).is_some());
    drop(held);
    let wal = options(&disk).open(DIR).unwrap();
    assert_eq!(wal.recovery().outcome, Outcome::Clean);
}
