//! The promises of `seawall_wal::disk`, held against `SimDisk` over many seeds: what is durable is never lost, and what
//! is not durable *can* be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use seawall_wal::AlignedBuf;
use seawall_wal::disk::sim::{CrashStyle, NameHabit};
use seawall_wal::disk::{Disk, DiskFile, Lock, MapPromise, Open, SimDisk};
use seawall_wal::runtime::Rng;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const SECTOR: usize = 512;
const FILE_BYTES_MAX: usize = 40_000;

fn path(name: &str) -> &Path {
    Path::new(name)
}

/// A file `/f` of `bytes` durable ones.
fn with_file(seed: u64, bytes: usize) -> (Arc<SimDisk>, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    let file = disk.open(path("/f"), Open::CreateNew).unwrap();
    disk.sync_dir(path("/")).unwrap();
    file.write_durable_at(&vec![1; bytes], 0).unwrap();
    (disk, file)
}

/// A second opinion on what a crash may leave of one file: for each sector, and for the length, every value that it had
/// since it was last durable.
struct Model {
    visible: Vec<u8>,
    sectors: Vec<Vec<Vec<u8>>>,
    lens: Vec<usize>,
}

impl Model {
    fn new() -> Model {
        let sectors = vec![vec![vec![0; SECTOR]]; FILE_BYTES_MAX / SECTOR + 1];
        Model { visible: Vec::new(), sectors, lens: vec![0] }
    }

    fn image(&self, sector: usize) -> Vec<u8> {
        let mut image: Vec<u8> = self.visible.iter().skip(sector * SECTOR).take(SECTOR).copied().collect();
        image.resize(SECTOR, 0);
        image
    }

    fn touch(&mut self, start: usize, end: usize) {
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let image = self.image(sector);
            self.sectors[sector].push(image);
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.visible.len() {
            self.visible.resize(end, 0);
            self.lens.push(end);
        }
        self.visible[offset..end].copy_from_slice(bytes);
        self.touch(offset, end);
    }

    fn write_durable(&mut self, bytes: &[u8], offset: usize) {
        self.write(bytes, offset);
        let end = offset + bytes.len();
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            self.sectors[sector] = vec![self.image(sector)];
        }
        for len in &mut self.lens {
            *len = (*len).max(end);
        }
    }

    fn set_len(&mut self, len: usize) {
        let old = self.visible.len();
        self.visible.resize(len, 0);
        self.lens.push(len);
        self.touch(len.min(old), old);
    }

    fn sync(&mut self) {
        for sector in 0..self.sectors.len() {
            self.sectors[sector] = vec![self.image(sector)];
        }
        self.lens = vec![self.visible.len()];
    }

    fn check(&self, seed: u64, left: &[u8]) {
        assert!(self.lens.contains(&left.len()), "seed {seed}: length {} not in {:?}", left.len(), self.lens);
        for (sector, bytes) in left.chunks(SECTOR).enumerate() {
            let is_known = self.sectors[sector].iter().any(|image| image.starts_with(bytes));
            assert!(
                is_known,
                "seed {seed}: sector {sector} has a value that it never had since it was durable"
            );
        }
    }
}

/// Does something to the file, and the same to the model.
fn step(rng: &mut Rng, file: &dyn DiskFile, model: &mut Model) {
    let offset = rng.below(FILE_BYTES_MAX as u64 - 10_000) as usize;
    let align = if rng.chance(1, 2) { 4096 } else { 1 };
    let offset = offset / align * align;
    let mut bytes = vec![0; 1 + rng.below(9_000) as usize];
    rng.fill(&mut bytes);
    match rng.below(10) {
        0..4 => {
            file.write_at(&bytes, offset as u64).unwrap();
            model.write(&bytes, offset);
        }
        4..7 => {
            file.write_durable_at(&bytes, offset as u64).unwrap();
            model.write_durable(&bytes, offset);
        }
        7 => {
            file.allocate(offset as u64, bytes.len() as u64).unwrap();
            model.write(&vec![0; bytes.len()], offset);
        }
        8 => {
            file.set_len(offset as u64).unwrap();
            model.set_len(offset);
        }
        _ => {
            file.sync_data().unwrap();
            model.sync();
        }
    }
}

#[test]
fn a_crash_leaves_nothing_that_the_model_does_not_allow() {
    for seed in 0..1000 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let file = disk.open(path("/f"), Open::CreateNew).unwrap();
        disk.sync_dir(path("/")).unwrap();
        let mut model = Model::new();
        for _ in 0..rng.below(30) {
            step(&mut rng, &*file, &mut model);
            assert_eq!(disk.read_file("/f").unwrap(), model.visible, "seed {seed}: reads show the newest");
            model.check(seed, &disk.crash_copy().read_file("/f").unwrap());
        }
        for _ in 0..4 {
            let after = disk.crash();
            model.check(seed, &after.read_file("/f").unwrap());
            assert_eq!(after.read_file("/f"), after.read_durable("/f"));
            let len = after.read_file("/f").unwrap().len();
            let file = after.open(path("/f"), Open::ReadWrite).unwrap();
            file.set_len(FILE_BYTES_MAX as u64).unwrap();
            assert!(
                after.read_file("/f").unwrap()[len..].iter().all(|byte| *byte == 0),
                "a cut tail is back"
            );
            after.truncate("/f", len as u64).unwrap();
            let again = after.crash();
            assert_eq!(after.read_file("/f"), again.read_file("/f"), "nothing was pending after a crash");
        }
    }
}

#[test]
fn every_fate_of_a_write_occurs() {
    let mut seen = BTreeSet::new();
    for seed in 0..500 {
        let (disk, file) = with_file(seed, 8192);
        file.write_at(&[2; 4096], 0).unwrap();
        file.write_at(&[3; 4096], 4096).unwrap();
        let left = disk.crash().read_file("/f").unwrap();
        assert_eq!(left.len(), 8192);
        let fate = |part: &[u8], new: u8| match part.iter().filter(|byte| **byte == new).count() {
            0 => "gone",
            4096 => "whole",
            n => {
                assert_eq!(n % SECTOR, 0, "torn at sectors only");
                "torn"
            }
        };
        seen.insert((fate(&left[..4096], 2), fate(&left[4096..], 3)));
    }
    assert_eq!(seen.len(), 9, "all pairs of fates, the later write without the earlier among them: {seen:?}");
}

#[test]
fn a_durable_write_is_no_barrier() {
    let mut lost_earlier = 0;
    for seed in 0..500 {
        let (disk, file) = with_file(seed, 8192);
        file.write_at(&[2; 4096], 0).unwrap();
        file.write_durable_at(&[3; 4096], 4096).unwrap();
        let left = disk.crash().read_file("/f").unwrap();
        assert_eq!(left[4096..], [3; 4096], "seed {seed}: a durable write was lost");
        lost_earlier += usize::from(left[..4096] == [1; 4096]);
    }
    assert!(lost_earlier > 50);
}

#[test]
fn a_file_sync_covers_all_handles_and_no_other_file() {
    let mut lost_other = 0;
    for seed in 0..300 {
        let (disk, file) = with_file(seed, 4096);
        let other = disk.open(path("/g"), Open::CreateNew).unwrap();
        disk.sync_dir(path("/")).unwrap();
        other.write_at(&[9; 4096], 0).unwrap();
        disk.open(path("/f"), Open::ReadWrite).unwrap().write_at(&[2; 512], 100).unwrap();
        file.sync_data().unwrap();
        let after = disk.crash();
        assert_eq!(after.read_file("/f").unwrap()[100..612], [2; 512]);
        lost_other += usize::from(after.read_file("/g").unwrap() != [9; 4096]);
    }
    assert!(lost_other > 50);
}

#[test]
fn names_need_their_directory_synced() {
    for habit in [NameHabit::Strict, NameHabit::Ext4] {
        let (mut lost, mut reordered, mut kept_by_file_sync) = (0, 0, 0);
        for seed in 0..500 {
            let disk = SimDisk::new(seed);
            disk.set_name_habit(habit);
            disk.create_dir(path("/d")).unwrap();
            disk.sync_dir(path("/")).unwrap();
            disk.open(path("/d/synced"), Open::CreateNew).unwrap();
            disk.sync_dir(path("/d")).unwrap();
            let first = disk.open(path("/d/first"), Open::CreateNew).unwrap();
            disk.open(path("/d/second"), Open::CreateNew).unwrap();
            let with_sync = seed % 2 == 0;
            if with_sync {
                first.sync_data().unwrap();
            }
            let names = disk.crash().list(path("/d")).unwrap();
            let has = |name: &str| names.iter().any(|own| own == name);
            assert!(has("synced"));
            lost += usize::from(!has("first"));
            reordered += usize::from(has("second") && !has("first"));
            kept_by_file_sync += usize::from(with_sync && has("first"));
        }
        assert!(lost > 20);
        match habit {
            NameHabit::Strict => assert!(reordered > 20 && kept_by_file_sync < 250),
            NameHabit::Ext4 => assert!(reordered == 0 && kept_by_file_sync == 250),
        }
    }
}

#[test]
fn a_rename_leaves_the_old_name_or_the_new_one() {
    let mut seen = BTreeSet::new();
    for seed in 0..500 {
        let disk = SimDisk::new(seed);
        disk.write_file("/d/live", b"old").unwrap();
        disk.write_file("/d/log", b"log").unwrap();
        let new = disk.open(path("/d/new"), Open::CreateNew).unwrap();
        new.write_durable_at(b"new", 0).unwrap();
        disk.sync_dir(path("/d")).unwrap();
        disk.rename(path("/d/new"), path("/d/live")).unwrap();
        disk.remove(path("/d/log")).unwrap();
        assert_eq!(new.len().unwrap(), 3, "the handle follows its file");
        let after = disk.crash();
        let live = after.read_file("/d/live").expect("a replaced name is never missing");
        let is_new = live == b"new";
        assert!(is_new || live == b"old");
        assert_eq!(after.read_file("/d/new").is_some(), !is_new, "seed {seed}: both names, or neither");
        seen.insert((is_new, after.read_file("/d/log").is_some()));

        let synced = SimDisk::new(seed);
        synced.write_file("/a", b"a").unwrap();
        synced.rename(path("/a"), path("/b")).unwrap();
        synced.sync_dir(path("/")).unwrap();
        assert_eq!(synced.crash().paths(), ["b"]);
    }
    assert_eq!(seen.len(), 4, "an unlink may overtake a rename");
}

#[test]
fn chains_of_renames_never_lose_or_double_a_file() {
    for seed in 0..1000 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        for name in ["a", "b", "c"] {
            disk.write_file(name, name.as_bytes()).unwrap();
        }
        // Onto free names only, so that no step destroys a file.
        for _ in 0..6 {
            let names = disk.list(path("/")).unwrap();
            let source = &names[rng.below(3) as usize];
            let target = ["a", "b", "c", "x", "y", "z"][rng.below(6) as usize];
            if !names.iter().any(|name| name == target) {
                disk.rename(path(source), path(target)).unwrap();
            }
        }
        let after = disk.crash();
        let mut left: Vec<Vec<u8>> =
            after.paths().iter().map(|name| after.read_file(name).unwrap()).collect();
        left.sort();
        assert_eq!(left, [b"a", b"b", b"c"], "seed {seed}");
    }
}

#[test]
fn renames_between_directories_are_whole_whichever_is_synced() {
    for seed in 0..1000 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        for dir in ["d0", "d1", "d2"] {
            disk.write_file(format!("{dir}/keep"), b"k").unwrap();
        }
        disk.write_file("d0/f", b"f").unwrap();
        let mut at = 0;
        let mut where_synced = None;
        for _ in 0..rng.below(6) {
            let next = rng.below(3);
            let (source, target) = (format!("d{at}/f"), format!("d{next}/f"));
            disk.rename(path(&source), path(&target)).unwrap();
            at = next;
            if rng.chance(1, 2) {
                let synced = rng.below(3);
                disk.sync_dir(path(&format!("d{synced}"))).unwrap();
                where_synced = (synced == at).then_some(at);
            } else if source != target {
                where_synced = None;
            }
        }
        let left: Vec<String> =
            disk.crash().paths().into_iter().filter(|path| path.ends_with("/f")).collect();
        assert_eq!(left.len(), 1, "seed {seed}: {left:?}");
        if let Some(dir) = where_synced {
            assert_eq!(left[0], format!("d{dir}/f"), "seed {seed}");
        }
    }
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_along() {
    let mut lost = 0;
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        disk.set_name_habit(NameHabit::Strict);
        disk.create_dir(path("/store")).unwrap();
        let file = disk.open(path("/store/f"), Open::CreateNew).unwrap();
        file.write_durable_at(b"x", 0).unwrap();
        disk.sync_dir(path("/store")).unwrap();
        lost += usize::from(disk.crash().read_file("/store/f").is_none());
    }
    assert!(lost > 20);
}

#[test]
fn a_removed_file_lives_on_for_its_handles() {
    let (disk, file) = with_file(1, 4096);
    disk.remove(path("/f")).unwrap();
    assert!(!disk.exists(path("/f")).unwrap());
    file.write_at(&[7; 10], 0).unwrap();
    let mut buf = [0; 10];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 10);
    assert_eq!(buf, [7; 10]);
    assert!(disk.open(path("/f"), Open::Read).is_err());
    disk.open(path("/f"), Open::CreateNew).unwrap();
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(file.len().unwrap(), 4096);
}

#[test]
fn locks_exclude_and_end_with_their_handle() {
    let (disk, one) = with_file(1, 1);
    let two = disk.open(path("/f"), Open::ReadWrite).unwrap();
    assert!(one.try_lock(Lock::Shared).unwrap() && two.try_lock(Lock::Shared).unwrap());
    assert!(!one.try_lock(Lock::Exclusive).unwrap());
    drop(two);
    assert!(one.try_lock(Lock::Exclusive).unwrap());
    assert!(disk.lock_holder(path("/f")).is_some());
    let after = disk.crash();
    assert!(after.lock_holder(path("/f")).is_none());
    assert!(after.open(path("/f"), Open::ReadWrite).unwrap().try_lock(Lock::Exclusive).unwrap());
}

#[test]
fn after_a_crash_old_handles_only_fail_and_touch_nothing() {
    let (disk, file) = with_file(1, 4096);
    let after = disk.crash();
    assert!(!disk.has_power() && after.has_power());
    assert!(file.write_durable_at(&[9; 16], 0).is_err() && file.sync_data().is_err() && file.len().is_err());
    assert!(disk.list(path("/")).is_err() && disk.open(path("/f"), Open::Read).is_err());
    assert_eq!(after.read_file("/f").unwrap(), [1; 4096]);
}

#[test]
fn crash_styles_can_be_chosen() {
    for (style, expected) in [(CrashStyle::KeepAll, 2), (CrashStyle::KeepNone, 1)] {
        let (disk, file) = with_file(1, 4096);
        disk.set_crash_style(Some(style));
        file.write_at(&[2; 4096], 0).unwrap();
        file.set_len(5000).unwrap();
        let left = disk.crash().read_file("/f").unwrap();
        assert_eq!((left[0], left.len() > 4096), (expected, style == CrashStyle::KeepAll));
    }
    for seed in 0..200 {
        let (disk, file) = with_file(seed, 4096 * 8);
        disk.set_crash_style(Some(CrashStyle::Prefix));
        (0..8).for_each(|block| file.write_at(&[2; 4096], block * 4096).unwrap());
        let left = disk.crash().read_file("/f").unwrap();
        let whole = left.chunks(4096).take_while(|block| **block == [2; 4096]).count();
        assert!(left.chunks(4096).skip(whole + 1).all(|block| *block == [1; 4096]), "seed {seed}");
    }
}

type Image = Vec<(String, Vec<u8>)>;

/// A workload that meets everything; returns what a second run of the seed must repeat.
fn workload(seed: u64) -> (u64, Vec<String>, Image) {
    let mut rng = Rng::new(seed);
    let mut disk = SimDisk::new(seed);
    disk.set_trace(true);
    let mut hashes = 0u64;
    for start in 0..3 {
        disk.set_fault_rates(seawall_wal::disk::sim::FaultRates::errors(seed));
        for round in 0..40 {
            let name = format!("/f{}", rng.below(4));
            let Ok(file) =
                disk.open(path(&name), Open::CreateNew).or_else(|_| disk.open(path(&name), Open::ReadWrite))
            else {
                continue;
            };
            let _ = file.write_at(&[round as u8; 3000], rng.below(20_000));
            let _ = file.write_durable_at(&[start; 4096], 4096 * rng.below(6));
            let _ = if rng.chance(1, 2) { file.sync_data() } else { disk.sync_dir(path("/")) };
            let _ = disk.rename(path(&name), path("/renamed"));
        }
        hashes = hashes.wrapping_mul(31).wrapping_add(disk.trace_hash());
        disk = disk.crash();
    }
    let image = disk.paths().into_iter().map(|path| (path.clone(), disk.read_file(path).unwrap())).collect();
    (hashes, disk.trace(), image)
}

#[test]
fn one_seed_is_one_trace_and_one_image() {
    let mut hashes = BTreeSet::new();
    for seed in 0..100 {
        let first = workload(seed);
        assert_eq!(first, workload(seed));
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 100);
}

#[test]
fn a_large_file_of_zeros_costs_nothing() {
    let disk = SimDisk::new(1);
    for segment in 0..16 {
        let file = disk.open(path(&format!("/{segment}")), Open::CreateNew).unwrap();
        file.allocate(0, 64 << 20).unwrap();
        file.write_durable_at(&[1; 4096], 32 << 20).unwrap();
        if segment % 2 == 0 {
            file.sync_data().unwrap();
        }
    }
    disk.sync_dir(path("/")).unwrap();
    let after = disk.crash();
    let file = after.open(path("/0"), Open::Read).unwrap();
    assert_eq!(file.len().unwrap(), 64 << 20);
    let mut buf = [0; 4096];
    file.read_at(&mut buf, 32 << 20).unwrap();
    assert_eq!(buf, [1; 4096]);
}

#[test]
fn device_reads_are_aligned_and_can_be_refused() {
    let (disk, file) = with_file(1, 8192);
    let mut buf = AlignedBuf::zeroed(4096).unwrap();
    assert_eq!(file.read_device_at(&mut buf, 4096).unwrap(), (4096, true));
    assert!(!file.read_device_at(&mut buf, 100).unwrap().1);
    disk.set_direct(false);
    assert_eq!(file.read_device_at(&mut buf, 4096).unwrap(), (4096, false));
}

/// A view of a mapping is a read at that moment, with its faults, and keeps the file's lock; who changes bytes under one is
/// told of.
#[test]
fn mappings_show_what_reads_would_and_watch_what_is_viewed() {
    use seawall_wal::disk::sim::{CHANGED_UNDER_VIEW, Fault, Op};
    let disk = SimDisk::new(1);
    let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
    assert!(file.try_lock(Lock::Exclusive).unwrap());
    file.write_at(&[7; 8192], 0).unwrap();
    // SAFETY: a simulated mapping's views are copies.
    #[allow(unsafe_code)]
    let promise = || unsafe { MapPromise::new() };
    let map = file.map(1 << 20, promise()).unwrap();
    assert!(Arc::clone(&map).view(4096, 8192).is_err(), "the file is shorter");
    assert!(Arc::clone(&map).view(1 << 20, 1).is_err(), "and so is the mapping");
    disk.fail(Fault::eio(Op::Read).at_call(1).once());
    assert!(Arc::clone(&map).view(0, 4096).is_err());
    let view = Arc::clone(&map).view(4096, 4096).unwrap();
    assert_eq!(*view, [7; 4096]);
    let changed = || disk.counts().get(CHANGED_UNDER_VIEW).copied().unwrap_or(0);
    file.write_at(&[8; 4096], 0).unwrap();
    file.write_at(&[8; 4096], 8192).unwrap();
    file.punch(0, 4096).unwrap();
    file.set_len(8192).unwrap();
    assert_eq!(changed(), 0, "beside it");
    file.write_at(&[8; 2], 8191).unwrap();
    file.write_durable_at(&[8; 8192], 0).unwrap();
    file.punch(4096, 4096).unwrap();
    file.set_len(8191).unwrap();
    file.allocate(0, 8192).unwrap();
    assert_eq!((changed(), &*view), (5, &[7; 4096][..]));
    let other = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
    drop((file, map));
    assert!(!other.try_lock(Lock::Exclusive).unwrap(), "whoever looks keeps others from writing");
    other.punch(0, 4096).unwrap();
    drop(view);
    assert!(other.try_lock(Lock::Exclusive).is_ok());
    other.write_at(&[9; 8192], 0).unwrap();
    assert_eq!(changed(), 5);
}
