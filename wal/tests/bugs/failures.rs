//! Classes 14 to 25: what failing calls, full disks, panics and damage may do.

use crate::rig::{
    DIR, SEGMENT, Trace, barely, bytes, check_after, claimed, every_cut_of_both, open, options, payloads,
    torn,
};
use seawall_wal::anchor::{Anchor, Slot};
use seawall_wal::disk::SimDisk;
use seawall_wal::disk::sim::{Damage, Fault, Op};
use seawall_wal::runtime::Rng;
use seawall_wal::{Durability, Error, Kind, Lsn, WalReader};
use std::sync::Arc;

#[test]
pub fn bug_14_a_failed_sync_is_tried_again() {
    for (seed, is_direct) in (0..40).map(|seed| (seed, seed % 2 == 0)) {
        let disk = SimDisk::new(seed);
        disk.set_direct(is_direct);
        disk.set_trace(true);
        let wal = open(&disk).unwrap();
        let mut trace = Trace::default();
        trace.commit(&wal, 100).unwrap();
        trace.write(&wal, 200).unwrap();
        trace.next(300);
        let placed = wal.place(Kind::RECORD, 0, &trace.units[2][0], Durability::Synced).unwrap().unwrap();
        disk.fail(if seed % 4 < 2 { Fault::dropped_sync() } else { Fault::eio(Op::Sync) });
        let durable = wal.durable_lsn();
        let calls = disk.trace().len();
        assert!(wal.wait_for(&placed, None).unwrap_err().is_outcome_unknown());
        for _ in 0..3 {
            assert!(matches!(wal.sync(), Err(Error::Poisoned(_))));
            assert!(matches!(wal.commit(b"more"), Err(Error::Poisoned(_))));
            assert!(wal.step().is_err());
        }
        assert_eq!(wal.durable_lsn(), durable);
        assert!(wal.close().is_err());
        let syncs = disk.trace()[calls..].iter().filter(|call| call.contains(" sync ")).count();
        assert_eq!(syncs, 1, "{:#?}", &disk.trace()[calls..]);
        // Without a power cut between: the page cache still shows what the device does not have.
        let found = payloads(&open(&disk).unwrap());
        trace.check(&found, "reopened");
        assert_eq!(payloads(&open(&barely(&disk)).unwrap()), found, "seed {seed}: shown, and then lost");
    }
}

#[test]
pub fn bug_15_going_on_after_a_write_error() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let wal = open(&disk).unwrap();
        let mut trace = Trace::default();
        for _ in 0..3 {
            trace.commit(&wal, 6000).unwrap();
        }
        let fault = [Fault::eio, Fault::short, Fault::full][seed as usize % 3](Op::WriteDurable);
        disk.fail(fault);
        assert!(trace.commit(&wal, 12_000).unwrap_err().is_outcome_unknown());
        assert!(matches!(wal.commit(b"behind the hole"), Err(Error::Poisoned(_))));
        assert!(matches!(wal.append(b"behind the hole"), Err(Error::Poisoned(_))));
        assert_eq!(payloads(&wal), trace.units[..3].concat(), "what was there can be read");
        drop(wal);
        check_after(&if seed % 2 == 0 { disk.crash() } else { disk }, &trace, &format!("seed {seed}"));
    }
}

#[test]
pub fn bug_17_a_full_disk_ruins_the_log() {
    let disk = SimDisk::new(17);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    disk.set_capacity(4 * SEGMENT + 3 * 4096);
    let error = loop {
        if let Err(error) = trace.commit(&wal, 20_000) {
            break error;
        }
        let _ = wal.step();
    };
    assert!(matches!(error, Error::NoSpace), "{error}");
    trace.units.pop();
    assert!(trace.acked >= 8, "{} commits before the disk was full", trace.acked);
    for _ in 0..3 {
        assert!(matches!(wal.commit(bytes(99, 20_000)), Err(Error::NoSpace)));
        assert!(matches!(wal.resume(), Err(Error::NoSpace)));
    }
    assert_eq!(payloads(&wal), trace.units.concat());
    // A full disk does not keep a log from being opened and read, nor from giving space back.
    drop(wal);
    check_after_reading(&disk, &trace);
    let wal = open(&disk).unwrap();
    assert_eq!(payloads(&wal), trace.units.concat());
    trace.truncate(&wal).unwrap();
    wal.resume().unwrap();
    trace.commit(&wal, 20_000).unwrap();
    disk.set_capacity(u64::MAX);
    for _ in 0..8 {
        trace.commit(&wal, 20_000).unwrap();
    }
    trace.check(&payloads(&open(&barely(&disk)).unwrap()), "space came back");
}

fn check_after_reading(disk: &Arc<SimDisk>, trace: &Trace) {
    let wal = open(&barely(disk)).unwrap();
    trace.check(&payloads(&wal), "opened on a full disk");
}

#[test]
pub fn bug_18_a_panic_is_no_clean_close() {
    let is_clean = |disk: &SimDisk| match Anchor::choose(&disk.read_file(format!("{DIR}/anchor")).unwrap()) {
        Slot::Valid(anchor) => anchor.clean,
        other => panic!("{other:?}"),
    };
    let disk = SimDisk::new(18);
    let mut trace = Trace::default();
    let wal = open(&disk).unwrap();
    trace.commit(&wal, 10).unwrap();
    trace.batch(&wal, &[10]).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _wal = wal;
        panic!("while a record was being made");
    }));
    assert!(panicked.is_err() && !is_clean(&disk));
    check_after(&disk, &trace, "after a panic");
    drop(open(&disk).unwrap());
    assert!(is_clean(&disk), "dropping the last handle closes");
}

#[test]
pub fn bug_19_recovery_panics_on_partial_pages() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let Some((disk, trace)) = torn(seed) else { continue };
        let paths = disk.paths();
        for _ in 0..1 + rng.below(3) {
            let path = &paths[rng.below(paths.len() as u64) as usize];
            let len = disk.read_file(path).unwrap().len() as u64;
            let mut garbage = vec![0; rng.below(700) as usize];
            rng.fill(&mut garbage);
            let offset = rng.below((len / 512).max(1)).min(60) * 512 + rng.below(80);
            match rng.below(3) {
                0 => disk.truncate(path, rng.below(len + 1)).unwrap(),
                1 => disk.damage(path, &Damage::Overwrite { offset, bytes: vec![0xFF; 64] }).unwrap(),
                _ => disk.damage(path, &Damage::Overwrite { offset, bytes: garbage }).unwrap(),
            }
        }
        // Any error will do, and a shorter log where it cannot be told from an unacknowledged tail.
        if let Ok(reader) = WalReader::open_with(DIR, Lsn::ZERO, &options(&disk)) {
            reader.for_each(drop);
        }
        if let Ok(wal) = open(&disk) {
            let found = payloads(&wal);
            assert!(trace.units.concat().starts_with(&found), "seed {seed}: nothing that was not written");
        }
    }
}

#[test]
pub fn bug_21_a_durable_mark_too_far_ahead() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let wal = open(&disk).unwrap();
        let mut trace = Trace::default();
        for _ in 0..25 {
            let len = rng.below(20_000) as usize;
            match rng.below(5) {
                0 => trace.write(&wal, len).unwrap(),
                1 => trace.batch(&wal, &[len, 8]).unwrap(),
                2 => drop(wal.step().unwrap()),
                3 => trace.sync(&wal).unwrap(),
                _ => trace.commit(&wal, len).unwrap(),
            }
            // With a claim too far ahead, a crash that keeps nothing more would look like damage.
            let left = open(&barely(&disk)).unwrap();
            assert!(claimed(&disk) <= left.recovery().end && wal.durable_lsn() <= left.recovery().end);
            trace.check(&payloads(&left), &format!("seed {seed}"));
        }
    }
}

#[test]
pub fn bug_23_a_batch_in_part() {
    every_cut_of_both(|disk, trace| {
        let wal = open(disk)?;
        trace.batch(&wal, &[10, 20, 30])?;
        trace.sync(&wal)?;
        trace.batch(&wal, &[9000, 9000, 9000])?;
        trace.batch(&wal, &[30_000, 30_000, 30_000])?;
        trace.sync(&wal)?;
        trace.batch(&wal, &[40_000, 8, 50_000])?;
        wal.close()
    });
}

#[test]
pub fn bug_25_an_aborted_reclaim_loses_data() {
    let fill = |disk: &Arc<SimDisk>| {
        let wal = open(disk).unwrap();
        let mut trace = Trace::default();
        for _ in 0..10 {
            trace.commit(&wal, 30_000).unwrap();
        }
        (wal, trace)
    };
    for call in 1..30 {
        for fault in [Fault::eio(Op::Any), Fault::full(Op::Any), Fault::power_cut()] {
            let disk = SimDisk::new(call);
            let (wal, mut trace) = fill(&disk);
            let middle = wal.read(..).unwrap().nth(5).unwrap().unwrap().end;
            trace.reclaimed = 6;
            disk.fail(fault.at_call(call));
            let _ = wal.truncate_before(middle);
            while wal.step().is_ok_and(|more| more) {}
            disk.clear_faults();
            let after = disk.crash();
            drop(wal);
            check_after(&after, &trace, &format!("reclaiming failed at call {call}"));
        }
    }
}
