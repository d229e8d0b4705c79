//! Each fault of `SimDisk`, on its own: that it strikes where it is aimed, what it does, and that it is counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use seawall_wal::disk::sim::{CrashStyle, Damage, Fault, FaultRates, Op, Zone};
use seawall_wal::disk::{Disk, DiskFile, Open, SimDisk};
use seawall_wal::runtime::{Rng, SimRuntime};
use seawall_wal::{AlignedBuf, Runtime, Wal};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn path(name: &str) -> &Path {
    Path::new(name)
}

/// A file `/log/f` of `blocks` durable blocks, each filled with its number and 1.
fn with_file(seed: u64, blocks: u8) -> (Arc<SimDisk>, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    let bytes: Vec<u8> = (1..=blocks).flat_map(|block| [block; 4096]).collect();
    disk.write_file("/log/f", &bytes).unwrap();
    let file = disk.open(path("/log/f"), Open::ReadWrite).unwrap();
    (disk, file)
}

fn count(disk: &SimDisk, what: &str) -> u64 {
    disk.counts().get(what).copied().unwrap_or(0)
}

fn device(file: &dyn DiskFile, block: u64) -> io::Result<Vec<u8>> {
    let mut buf = AlignedBuf::zeroed(4096)?;
    assert!(file.read_device_at(&mut buf, block * 4096)?.1);
    Ok(buf.to_vec())
}

fn cached(file: &dyn DiskFile, block: u64) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; 4096];
    file.read_at(&mut buf, block * 4096)?;
    Ok(buf)
}

fn is_eio<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(5))
}

#[test]
fn an_aimed_fault_strikes_its_call_and_no_other() {
    let (disk, file) = with_file(1, 4);
    disk.fail(Fault::eio(Op::Write).at_call(3));
    let results: Vec<bool> = (0..5).map(|_| file.write_at(&[0; 8], 0).is_ok()).collect();
    assert_eq!(results, [true, true, false, true, true]);
    disk.fail(Fault::eio(Op::Read).path_contains("/other/").forever());
    disk.fail(Fault::eio(Op::Read).zone(Zone::suffix("f").bytes(4096..8192)).forever());
    assert!(cached(&*file, 0).is_ok() && cached(&*file, 2).is_ok());
    assert!(is_eio(cached(&*file, 1)) && is_eio(cached(&*file, 1)));
    disk.clear_faults();
    assert!(cached(&*file, 1).is_ok());
    assert_eq!(count(&disk, "eio"), 3);
}

/// Makes one call of each kind.
fn call(disk: &SimDisk, file: &dyn DiskFile, op: Op) -> io::Result<()> {
    match op {
        Op::Open => disk.open(path("/log/new"), Open::CreateNew).map(drop),
        Op::Rename => disk.rename(path("/log/f"), path("/log/g")),
        Op::Remove => disk.remove(path("/log/f")),
        Op::List => disk.list(path("/log")).map(drop),
        Op::CreateDir => disk.create_dir(path("/dir")),
        Op::SyncDir => disk.sync_dir(path("/log")),
        Op::Exists => disk.exists(path("/log/f")).map(drop),
        Op::FreeBytes => disk.free_bytes(path("/")).map(drop),
        Op::Read => file.read_at(&mut [0; 16], 0).map(drop),
        Op::Write => file.write_at(&[9; 8192], 0),
        Op::WriteDurable => file.write_durable_at(&[9; 8192], 0),
        Op::Sync => file.sync_data(),
        Op::Allocate => file.allocate(1 << 20, 8192),
        Op::Punch => file.punch(0, 4096),
        Op::SetLen => file.set_len(100),
        Op::Len => file.len().map(drop),
        Op::Lock => file.try_lock(seawall_wal::disk::Lock::Shared).map(drop),
        _ => unreachable!(),
    }
}

const OPS: [Op; 17] = [
    Op::Open,
    Op::Rename,
    Op::Remove,
    Op::List,
    Op::CreateDir,
    Op::SyncDir,
    Op::Exists,
    Op::FreeBytes,
    Op::Read,
    Op::Write,
    Op::WriteDurable,
    Op::Sync,
    Op::Allocate,
    Op::Punch,
    Op::SetLen,
    Op::Len,
    Op::Lock,
];

#[test]
fn every_call_can_fail_once_or_for_ever_and_lose_power() {
    for op in OPS {
        for seed in 0..50 {
            let (disk, file) = with_file(seed, 4);
            disk.fail(Fault::eio(op).forever());
            assert!(is_eio(call(&disk, &*file, op)), "{op:?}");
            assert!(call(&disk, &*file, op).is_err(), "{op:?}");
            assert!(count(&disk, "eio") >= 1);

            let (disk, file) = with_file(seed, 4);
            disk.fail(Fault::power_cut().at_call(2));
            file.len().unwrap();
            assert!(call(&disk, &*file, op).is_err(), "{op:?}");
            assert!(!disk.has_power());
            assert!(OPS.iter().all(|op| call(&disk, &*file, *op).is_err()));
            assert_eq!((count(&disk, "power cut"), disk.calls()), (1, 3));
            let after = disk.crash();
            assert!(after.paths().len() <= 2 && after.has_power());
        }
    }
}

#[test]
fn a_failed_call_may_have_taken_effect() {
    for (op, effect) in [(Op::Rename, "/log/g"), (Op::Open, "/log/new"), (Op::CreateDir, "/dir")] {
        let seen: BTreeSet<bool> = (0..100)
            .map(|seed| {
                let (disk, file) = with_file(seed, 1);
                disk.fail(Fault::eio(op));
                assert!(call(&disk, &*file, op).is_err());
                disk.exists(path(effect)).unwrap()
            })
            .collect();
        assert_eq!(seen.len(), 2, "{op:?}");
    }
}

#[test]
fn a_failed_durable_write_may_or_may_not_have_reached_the_device() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let (disk, file) = with_file(seed, 2);
        disk.fail(Fault::eio(Op::WriteDurable));
        assert!(is_eio(file.write_durable_at(&[9; 8192], 0)));
        let shown = disk.read_file("/log/f").unwrap().iter().filter(|byte| **byte == 9).count();
        let kept = disk.crash().read_file("/log/f").unwrap().iter().filter(|byte| **byte == 9).count();
        assert!(kept <= 8192 && kept % 512 == 0 || kept == shown);
        seen.insert((shown > 0, kept > 0));
    }
    assert!(seen.contains(&(true, true)) && seen.contains(&(true, false)) && seen.contains(&(false, false)));
}

#[test]
fn a_failed_sync_drops_its_pages_and_reads_go_on_showing_them() {
    for seed in 0..300 {
        let (disk, file) = with_file(seed, 4);
        file.write_at(&[8; 4096], 4096).unwrap();
        disk.fail(Fault::dropped_sync());
        assert!(is_eio(file.sync_data()));
        file.sync_data().expect("the error is reported once");
        assert_eq!(cached(&*file, 1).unwrap(), [8; 4096]);
        assert_eq!(device(&*file, 1).unwrap(), [2; 4096], "a read of the device does not lie");
        assert_eq!(disk.crash_copy().read_file("/log/f").unwrap()[4096..8192], [2; 4096]);
        // Written again, it is like any other write.
        file.write_at(&[7; 4096], 4096).unwrap();
        assert_eq!(device(&*file, 1).unwrap(), [7; 4096]);
        file.sync_data().unwrap();
        assert_eq!(disk.crash().read_file("/log/f").unwrap()[4096..8192], [7; 4096]);
        assert_eq!(count(&disk, "dropped sync"), 1);
    }
}

#[test]
fn a_cut_whose_zeros_were_dropped_does_not_bring_old_bytes_back() {
    for seed in 0..50 {
        let (disk, file) = with_file(seed, 4);
        file.set_len(5000).unwrap();
        disk.fail(Fault::dropped_sync());
        assert!(is_eio(file.sync_data()));
        file.sync_data().unwrap();
        let after = disk.crash();
        let file = after.open(path("/log/f"), Open::ReadWrite).unwrap();
        assert_eq!(file.len().unwrap(), 5000);
        file.set_len(8192).unwrap();
        assert!(after.read_file("/log/f").unwrap()[5000..].iter().all(|byte| *byte == 0), "seed {seed}");
    }
}

#[test]
fn a_plain_failed_sync_leaves_all_open() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let (disk, file) = with_file(seed, 4);
        file.write_at(&[8; 4096], 0).unwrap();
        file.write_at(&[8; 4096], 8192).unwrap();
        disk.fail(Fault::eio(Op::Sync));
        assert!(is_eio(file.sync_data()));
        file.sync_data().unwrap();
        let left = disk.crash().read_file("/log/f").unwrap();
        seen.insert((left[0], left[8192]));
    }
    assert_eq!(seen, BTreeSet::from([(1, 3), (1, 8), (8, 3), (8, 8)]));
}

#[test]
fn short_writes_and_reads_stop_in_the_middle() {
    let mut lens = BTreeSet::new();
    for seed in 0..100 {
        let (disk, file) = with_file(seed, 4);
        disk.fail(Fault::short(Op::Write));
        disk.fail(Fault::short(Op::Read));
        assert_eq!(file.write_at(&[9; 16_384], 0).unwrap_err().kind(), ErrorKind::WriteZero);
        lens.insert(disk.read_file("/log/f").unwrap().iter().filter(|byte| **byte == 9).count());
        assert!(file.read_at(&mut [0; 4096], 0).unwrap() < 4096);
        assert_eq!((count(&disk, "short write"), count(&disk, "short read")), (1, 1));
    }
    assert!(lens.len() > 20);
}

#[test]
fn a_full_disk_refuses_new_blocks_and_takes_overwrites() {
    let disk = SimDisk::new(1);
    disk.set_capacity(10 * 4096);
    let file = disk.open(path("/f"), Open::CreateNew).unwrap();
    file.allocate(0, 8 * 4096).unwrap();
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 2 * 4096);
    assert_eq!(file.write_at(&[1; 4 * 4096], 7 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 10 * 4096, "what fits is written");
    file.write_durable_at(&[2; 4096], 0).unwrap();
    assert_eq!(file.write_durable_at(&[2; 4096], 10 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.allocate(0, 20 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.set_copy_on_write(true);
    assert_eq!(file.write_durable_at(&[2; 4096], 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(disk.describe(path("/")).is_copy_on_write);
    disk.set_copy_on_write(false);
    file.punch(4096, 4096).unwrap();
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 4096);
    file.set_len(2 * 4096).unwrap();
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 9 * 4096);
    disk.remove(path("/f")).unwrap();
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 9 * 4096, "a handle keeps the space");
    drop(file);
    assert_eq!(disk.free_bytes(path("/")).unwrap(), 10 * 4096);
    disk.fail(Fault::full(Op::Any).forever());
    let refused = disk.open(path("/g"), Open::CreateNew).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    assert!(!disk.exists(path("/g")).unwrap());
}

#[test]
fn a_lost_write_is_acknowledged_and_only_the_cache_has_it() {
    for seed in 0..100 {
        let (disk, file) = with_file(seed, 2);
        file.write_at(&[6; 512], 0).unwrap();
        disk.fail(Fault::lost_write());
        file.write_durable_at(&[9; 4096], 0).unwrap();
        assert_eq!(cached(&*file, 0).unwrap(), [9; 4096]);
        assert_eq!(device(&*file, 0).unwrap(), [1; 4096]);
        file.sync_data().unwrap();
        assert_eq!(disk.crash().read_file("/log/f").unwrap()[..4096], [1; 4096]);
        assert_eq!(count(&disk, "lost write"), 1);
    }
}

#[test]
fn a_misdirected_write_harms_another_block() {
    let mut victims = BTreeSet::new();
    for seed in 0..200 {
        let (disk, file) = with_file(seed, 4);
        disk.write_file("/data", &[77; 3 * 4096]).unwrap();
        disk.fail(Fault::misdirected_write());
        file.write_durable_at(&[9; 4096], 4096).unwrap();
        assert_eq!(device(&*file, 1).unwrap(), [2; 4096]);
        let after = disk.crash();
        let (log, data) = (after.read_file("/log/f").unwrap(), after.read_file("/data").unwrap());
        let hit = |bytes: &[u8]| bytes.chunks(4096).position(|block| block == [9; 4096]);
        victims.insert((hit(&log), hit(&data)));
    }
    assert!(victims.contains(&(None, Some(2))) && victims.contains(&(Some(3), None)), "{victims:?}");
    assert!(victims.iter().all(|(log, data)| log.is_some() != data.is_some()), "{victims:?}");
}

#[test]
fn damage_at_rest_is_seen_by_reads_and_outlives_crashes() {
    let (disk, file) = with_file(1, 4);
    disk.write_file("/g", &[50; 4096]).unwrap();
    disk.flip("/log/f", 10, 0x81).unwrap();
    disk.damage("/log/f", &Damage::SwapBlocks(1, 2)).unwrap();
    disk.damage("/log/f", &Damage::SwapWith { block: 3, other: "/g".into(), other_block: 0 }).unwrap();
    disk.damage("/g", &Damage::Overwrite { offset: 2, bytes: vec![5, 6] }).unwrap();
    assert!(disk.flip("/log/f", 1 << 40, 1).is_err() && disk.flip("/none", 0, 1).is_err());
    let expect = |disk: &SimDisk| {
        let bytes = disk.read_file("/log/f").unwrap();
        assert_eq!((bytes[9], bytes[10], bytes[11]), (1, 1 ^ 0x81, 1));
        assert_eq!((bytes[4096], bytes[8192], bytes[12_288]), (3, 2, 50));
        assert_eq!(disk.read_file("/g").unwrap()[..5], [4, 4, 5, 6, 4]);
    };
    expect(&disk);
    assert_eq!(device(&*file, 1).unwrap(), [3; 4096]);
    let after = disk.crash();
    expect(&after);
    after.damage("/log/f", &Damage::ZeroBlock(1)).unwrap();
    after.truncate("/log/f", 5000).unwrap();
    let left = after.crash().read_file("/log/f").unwrap();
    assert_eq!((left.len(), left[4096]), (5000, 0));
    after.remove_durably("/log/f").unwrap();
    assert_eq!(after.crash().paths(), ["g"]);
    for what in ["bit flip", "zeroed block", "swapped blocks", "truncated"] {
        assert!(count(&after, what) >= 1, "{what}");
    }
}

#[test]
fn a_latent_error_lasts_until_the_range_is_written() {
    let (disk, file) = with_file(1, 4);
    disk.damage("/log/f", &Damage::Unreadable(4096..8192)).unwrap();
    assert!(cached(&*file, 0).is_ok() && is_eio(cached(&*file, 1)) && is_eio(device(&*file, 1)));
    let after = disk.crash();
    let file = after.open(path("/log/f"), Open::ReadWrite).unwrap();
    assert!(is_eio(cached(&*file, 1)));
    file.write_durable_at(&[9; 4096], 4096).unwrap();
    assert_eq!(cached(&*file, 1).unwrap(), [9; 4096]);
    assert_eq!(count(&after, "latent read error"), 3);
}

#[test]
fn slow_calls_take_simulated_time() {
    let time = |fault: bool| {
        let runtime = SimRuntime::new(1);
        let disk = SimDisk::with_runtime(1, runtime.clone());
        let file = disk.open(path("/f"), Open::CreateNew).unwrap();
        if fault {
            disk.fail(Fault::slow(Op::WriteDurable));
        }
        let started = runtime.now();
        file.write_durable_at(&[1; 4096], 0).unwrap();
        runtime.now() - started
    };
    let (usual, slow) = (time(false).as_micros(), time(true).as_micros());
    assert!((20..400).contains(&usual), "{usual}");
    assert!(slow > 50 * usual, "{slow}");
}

#[test]
fn who_asked_is_told_of_a_slow_write_and_of_no_other() {
    let runtime = SimRuntime::new(1);
    let disk = SimDisk::with_runtime(1, runtime.clone());
    let (sender, told) = std::sync::mpsc::channel();
    let limit = Duration::from_millis(2);
    let options = Wal::options().disk(disk.clone()).runtime(runtime.clone()).background(false);
    let tell = move |took| sender.send(took).unwrap();
    let wal = options.segment_bytes(64 << 10).on_slow_write(limit, Arc::new(tell)).open("/log").unwrap();
    wal.commit("quick").unwrap();
    assert!(told.try_recv().is_err());
    disk.fail(Fault::slow(Op::WriteDurable));
    let started = runtime.now();
    wal.commit("slow").unwrap();
    let took = told.try_recv().unwrap();
    assert!((limit..=runtime.now() - started).contains(&took), "{took:?}");
    wal.commit("quick again").unwrap();
    assert!(told.try_recv().is_err());
}

#[test]
fn random_faults_strike_at_their_rate_and_by_the_seed() {
    let mut all = BTreeSet::new();
    for seed in 0..60 {
        let (disk, file) = with_file(seed, 4);
        let mut rates = FaultRates::errors(seed);
        (rates.power_cut, rates.lost_write, rates.misdirected_write) = (50, 1000, 1000);
        disk.set_fault_rates(rates);
        let mut rng = Rng::new(seed);
        for _ in 0..2000 {
            let op = [Op::Read, Op::Write, Op::WriteDurable, Op::Sync, Op::Len][rng.below(5) as usize];
            let _ = call(&disk, &*file, op);
        }
        all.extend(disk.counts().into_keys());
    }
    for what in
        ["eio", "full", "short read", "short write", "dropped sync", "lost write", "misdirected write"]
    {
        assert!(all.contains(what), "{what}");
    }
    assert!(all.contains("slow") && all.contains("power cut"));
}

#[test]
fn what_crashes_do_is_counted_along_the_line_of_disks() {
    let mut disk = with_file(1, 8).0;
    disk.set_crash_style(Some(CrashStyle::Random));
    for round in 0..200 {
        let file = disk.open(path("/log/f"), Open::ReadWrite).unwrap();
        (0..8).for_each(|block| file.write_at(&[round; 4096], block * 4096).unwrap());
        let _ = disk.open(path(&format!("/log/{round}")), Open::CreateNew);
        let _ = disk.open(path(&format!("/{round}")), Open::CreateNew);
        file.set_len(8 * 4096 + u64::from(round)).unwrap();
        disk = disk.crash();
    }
    assert_eq!(count(&disk, "crash"), 200);
    let expected =
        ["torn write", "kept write", "dropped write", "reordered", "lost name", "kept name", "cut length"];
    for what in expected {
        assert!(count(&disk, what) > 0, "{what}: {:?}", disk.counts());
    }
}

#[test]
fn the_trace_tells_each_call() {
    let (disk, file) = with_file(1, 1);
    disk.set_trace(true);
    file.write_durable_at(&[1; 512], 512).unwrap();
    disk.fail(Fault::eio(Op::Sync));
    let _ = file.sync_data();
    let trace = disk.trace();
    assert_eq!(trace[0], "2 write_durable /log/f 512+512 ok");
    assert!(trace[1].starts_with("3 sync /log/f "), "{trace:?}");
}
