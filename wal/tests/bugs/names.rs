//! Classes 1 to 13: what a crash may do to bytes, names, and to recovery itself.

use crate::rig::{
    Result, SEGMENT, Trace, barely, check_after, every_cut_of_both, file, open, payloads, torn,
};
use seawall_wal::disk::SimDisk;
use seawall_wal::disk::sim::{CrashStyle, Damage, Fault, NameHabit, Op};
use seawall_wal::{Error, frame};
use std::sync::Arc;

#[test]
pub fn bug_01_durable_without_a_flush() {
    let disk = SimDisk::new(1);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    for round in 0..60 {
        match round % 4 {
            0 => trace.commit(&wal, 100).unwrap(),
            1 => trace.batch(&wal, &[10, 20]).and_then(|()| trace.sync(&wal)).unwrap(),
            2 => {
                trace.write(&wal, 5000).unwrap();
                wal.commit_pipelined(trace.next(70)).unwrap().wait().unwrap();
                trace.acked = trace.units.len();
            }
            _ => trace.commit(&wal, 30_000).unwrap(),
        }
        trace.check(&payloads(&open(&barely(&disk)).unwrap()), "after an acknowledgement");
    }
    trace.batch(&wal, &[8]).unwrap();
    wal.close().unwrap();
    trace.acked = trace.units.len();
    trace.check(&payloads(&open(&barely(&disk)).unwrap()), "after a close");
}

#[test]
pub fn bug_02_a_new_files_name_not_synced() {
    let disk = SimDisk::new(2);
    disk.set_name_habit(NameHabit::Strict);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    for _ in 0..12 {
        trace.commit(&wal, 30_000).unwrap();
        trace.check(&payloads(&open(&barely(&disk)).unwrap()), "names that no sync covered are gone");
    }
    assert!(wal.stats().segments_created >= 5);
}

/// Three rounds of filling segments and giving them back: files are made, renamed for new use, and removed.
fn recycling(disk: &Arc<SimDisk>, trace: &mut Trace) -> Result<()> {
    let wal = open(disk)?;
    for _ in 0..3 {
        for _ in 0..5 {
            trace.commit(&wal, 30_000)?;
        }
        trace.truncate(&wal)?;
        while wal.step()? {}
    }
    trace.commit(&wal, 9)
}

#[test]
pub fn bug_03_a_rename_without_a_directory_sync() {
    let disk = SimDisk::new(3);
    disk.set_name_habit(NameHabit::Strict);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    for _ in 0..4 {
        for _ in 0..6 {
            trace.commit(&wal, 30_000).unwrap();
            trace.check(&payloads(&open(&barely(&disk)).unwrap()), "a rename that no sync covered is undone");
        }
        trace.truncate(&wal).unwrap();
        while wal.step().unwrap() {}
    }
    assert!(wal.stats().segments_recycled >= 4);
}

#[test]
pub fn bug_04_an_unlink_overtakes_a_rename() {
    assert!(every_cut_of_both(recycling) > 100);
}

#[test]
pub fn bug_06_a_torn_write_of_many_pages() {
    every_cut_of_both(|disk, trace| {
        let wal = open(disk)?;
        for len in [20_000, 50_000, 150_000] {
            trace.commit(&wal, len)?;
        }
        Ok(())
    });
}

#[test]
pub fn bug_07_the_older_tail_is_lost_and_the_newer_survives() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let wal = open(&disk).unwrap();
        let mut trace = Trace::default();
        for round in 0..8 {
            // Nobody asks for durability, and segments fill all the same.
            trace.write(&wal, 25_000).unwrap();
            for _ in 0..3 {
                check_after(&disk.crash_copy(), &trace, &format!("seed {seed}, round {round}"));
            }
        }
    }
}

#[test]
pub fn bug_08_stale_records_in_a_recycled_segment() {
    let disk = SimDisk::new(8);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    // Frames of one size, so that old ones stand exactly where new ones would.
    for _ in 0..40 {
        trace.commit(&wal, 4000).unwrap();
    }
    trace.truncate(&wal).unwrap();
    while wal.step().unwrap() {}
    let mut stale = 0;
    for _ in 0..40 {
        trace.commit(&wal, 4000).unwrap();
        let end = wal.durable_lsn().0;
        let live = disk.read_file(file(end / SEGMENT)).unwrap();
        let behind = &live[(end % SEGMENT).next_multiple_of(4096) as usize..];
        stale += usize::from(behind.chunks(4096).any(|block| frame::Header::parse(block).is_ok()));
        trace.check(&payloads(&open(&barely(&disk)).unwrap()), "old frames behind the end");
    }
    assert!(wal.stats().segments_recycled > 0 && stale > 10, "{stale} ends before old frames");
}

#[test]
pub fn bug_09_appending_behind_a_partial_record() {
    let mut met = 0;
    for (mut disk, mut trace) in (0..200).filter_map(torn) {
        met += 1;
        for round in 0..3 {
            let wal = open(&disk).unwrap();
            let found = payloads(&wal);
            trace.check(&found, "behind a torn tail");
            // From here on, exactly this is the log.
            trace.units = found.into_iter().map(|record| vec![record]).collect();
            trace.commit(&wal, 100 + round).unwrap();
            trace.write(&wal, 20_000).unwrap();
            let next = disk.crash();
            drop(wal);
            disk = next;
        }
    }
    assert!(met > 10, "{met} torn tails");
}

#[test]
pub fn bug_10_a_truncated_old_segment_is_no_clean_end() {
    let disk = SimDisk::new(10);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    for _ in 0..12 {
        trace.commit(&wal, 25_000).unwrap();
    }
    let whole = disk.crash();
    for number in 1..=6 {
        for len in [0, 4095, 4096, 5000, 20_000, 40_000, 65_535] {
            let cut = whole.crash_copy();
            cut.truncate(file(number), len).unwrap();
            match open(&cut) {
                Ok(wal) => trace.check(&payloads(&wal), "a cut that lost nothing"),
                Err(error) => assert!(matches!(error, Error::Corruption { .. }), "{number}, {len}: {error}"),
            }
        }
        let gone = whole.crash_copy();
        gone.remove_durably(file(number)).unwrap();
        assert!(
            number == 6 || matches!(open(&gone), Err(Error::Corruption { .. })),
            "segment {number} is missing"
        );
    }
    for call in 1..40 {
        // Nor is a read that falls short or fails.
        for fault in [Fault::short(Op::Read), Fault::eio(Op::Read)] {
            let disk = whole.crash_copy();
            disk.fail(fault.at_call(call));
            if let Ok(wal) = open(&disk) {
                disk.clear_faults();
                trace.check(&payloads(&wal), "a read that failed");
            }
        }
    }
}

#[test]
pub fn bug_11_a_torn_tail_is_refused() {
    let disk = SimDisk::new(11);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    trace.commit(&wal, 100).unwrap();
    let at = wal.durable_lsn().0.next_multiple_of(4096) % SEGMENT;
    trace.write(&wal, 12_000).unwrap();
    disk.set_crash_style(Some(CrashStyle::KeepAll));
    let whole = disk.crash();
    whole.set_crash_style(None);
    for sectors in 0..=24 {
        // Everything before is there, then nothing; and one sector alone is missing.
        for lost in [sectors * 512..24 * 512, sectors * 512..sectors * 512 + 512] {
            let torn = whole.crash_copy();
            let zeros = vec![0; lost.len()];
            torn.damage(file(1), &Damage::Overwrite { offset: at + lost.start as u64, bytes: zeros })
                .unwrap();
            check_after(&torn, &trace, &format!("sectors {lost:?} lost"));
        }
    }
}

#[test]
pub fn bug_12_recovery_is_cut_short() {
    let mut cuts = 0;
    for (disk, trace) in (0..80).filter_map(torn) {
        for call in 1.. {
            let first = disk.crash_copy();
            first.fail(Fault::power_cut().at_call(call));
            let wal = open(&first);
            if first.has_power() {
                break;
            }
            drop(wal);
            cuts += 1;
            // And the recovery from that as well.
            let second = first.crash();
            second.fail(Fault::power_cut().at_call(1 + call % 17));
            drop(open(&second));
            check_after(&second.crash(), &trace, &format!("recovery cut at call {call}, and again"));
        }
    }
    assert!(cuts > 50, "{cuts} cuts");
}

#[test]
pub fn bug_13_a_crash_while_the_log_is_created() {
    let calls = every_cut_of_both(|disk, trace| {
        drop(open(disk)?);
        // Opened twice without a record: the empty segment gets a new header.
        let wal = open(disk)?;
        trace.commit(&wal, 10)?;
        wal.close()
    });
    assert!(calls > 20);
    for call in 1..40 {
        for fault in [Fault::eio(Op::Any), Fault::full(Op::Any)] {
            let disk = SimDisk::new(call);
            disk.fail(fault.at_call(call));
            drop(open(&disk));
            disk.clear_faults();
            check_after(&disk, &Trace::default(), "created at the second attempt");
        }
    }
}
