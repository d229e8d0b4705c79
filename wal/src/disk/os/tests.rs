//! The promises of [`Disk`] and [`DiskFile`] that can be seen without cutting the power, on the real file system.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, reason = "a test may")]

use super::*;
use crate::AlignedBuf;
use crate::disk::{BLOCK_BYTES, DiskFile, Lock, read_exact_at};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A directory of the test's own, on the disk that the build is on; gone when dropped.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Dir {
        Dir::below(std::env::current_exe().unwrap().parent().unwrap())
    }

    pub(crate) fn below(parent: &Path) -> Dir {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("os-disk-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn filled(byte: u8, bytes: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(bytes).unwrap();
    buf.fill(byte);
    buf
}

fn read(file: &dyn DiskFile, offset: u64, bytes: usize) -> Vec<u8> {
    let mut buf = vec![0xEE; bytes];
    read_exact_at(file, &mut buf, offset).unwrap();
    buf
}

/// Every combination of a durable write's place and buffer that a caller may come with.
fn durable_writes(disk: &OsDisk, dir: &Path) {
    let file = disk.open(&dir.join("durable"), Open::CreateNew).unwrap();
    file.allocate(0, 4 * BLOCK).unwrap();
    let block = filled(1, BLOCK_BYTES);
    file.write_durable_at(&block, BLOCK).unwrap();
    file.write_durable_at(&[2; 10], 2 * BLOCK - 5).unwrap();
    file.write_durable_at(&[3; 100], 5 * BLOCK).unwrap();
    file.write_durable_at(&[], 9 * BLOCK).unwrap();
    assert_eq!(file.len().unwrap(), 5 * BLOCK + 100, "a durable write grows the file, an empty one does not");
    assert_eq!(read(&*file, BLOCK, 10), [1; 10]);
    assert_eq!(read(&*file, 2 * BLOCK - 6, 12), [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0]);
    assert_eq!(read(&*file, 5 * BLOCK, 100), [3; 100]);
    file.sync_data().unwrap();
    disk.remove(&dir.join("durable")).unwrap();
}

#[test]
fn durable_writes_by_every_method() {
    let dir = Dir::new();
    for method in DurableWrite::ALL {
        let disk = OsDisk::with(OsOptions { durable_write: Some(method), ..OsOptions::default() });
        assert_eq!(disk.durable_write(), method);
        durable_writes(&disk, &dir.0);
    }
}

#[test]
fn a_file_listens_to_a_wish_unless_the_disk_was_made_otherwise() {
    let dir = Dir::new();
    let way_of = |disk: &OsDisk, wish: DurableWrite| {
        let file = disk.open_file_with(&dir.path("w"), Open::CreateNew, disk.durable_write()).unwrap();
        file.prefer_durable_write(wish);
        file.write_durable_at(&filled(1, BLOCK_BYTES), 0).unwrap();
        disk.remove(&dir.path("w")).unwrap();
        file.method()
    };
    assert_eq!(way_of(&OsDisk::new(), DurableWrite::WriteThenSync), DurableWrite::WriteThenSync);
    let fixed = OsOptions { durable_write: Some(DurableWrite::Dsync), ..OsOptions::default() };
    assert_eq!(way_of(&OsDisk::with(fixed), DurableWrite::WriteThenSync), DurableWrite::Dsync);
    // A way that was refused does not come back.
    let best = way_of(&OsDisk::new(), DurableWrite::DirectDsync);
    assert_eq!(way_of(&OsDisk::new(), DurableWrite::DirectDsync), best);
}

#[cfg(target_os = "linux")]
#[test]
fn the_promises_hold_in_memory_too() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        eprintln!("skipped: there is no /dev/shm here");
        return;
    }
    let dir = Dir::below(shm);
    let disk = OsDisk::new();
    durable_writes(&disk, &dir.0);
    let file = disk.open(&dir.path("x"), Open::CreateNew).unwrap();
    let mut block = filled(7, BLOCK_BYTES);
    file.write_at(&block, 0).unwrap();
    assert_eq!(file.read_device_at(&mut block, 0).unwrap(), (BLOCK_BYTES, false), "tmpfs has no device");
    assert_eq!(disk.describe(&dir.0).file_system, "tmpfs");
    assert!(!probe_durable_write(&dir.0, Duration::ZERO).unwrap().is_empty());
}

/// A file that answers `EOPNOTSUPP` to `RWF_DSYNC`, as some file systems do.
#[cfg(target_os = "linux")]
#[test]
fn the_kernels_refusal_is_recognised() {
    let fd =
        rustix::fs::open("/proc/self/oom_score_adj", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let error: io::Error = sys::write_dsync(&fd, b"x", 0).unwrap_err().into();
    assert!(durable::is_refusal(&error), "{error}");
}

#[test]
fn an_unknown_file_system_is_not_believed() {
    let dir = Dir::new();
    let path = dir.path("x");
    let fd = rustix::fs::open(&path, OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o600)).unwrap();
    let file = OsFile::new(fd, &path, true, &file_system::UNKNOWN, DurableWrite::DirectDsync, true).unwrap();
    assert_eq!(file.method(), DurableWrite::WriteThenSync, "whether RWF_DSYNC syncs there is not known");
    let mut block = filled(1, BLOCK_BYTES);
    file.write_durable_at(&block, 0).unwrap();
    assert_eq!(file.read_device_at(&mut block, 0).unwrap(), (BLOCK_BYTES, false));
}

#[test]
fn the_two_descriptors_see_each_others_bytes() {
    let dir = Dir::new();
    let disk = OsDisk::new();
    let file = disk.open(&dir.path("x"), Open::CreateNew).unwrap();
    let mut buf = AlignedBuf::zeroed(2 * BLOCK_BYTES).unwrap();
    for round in 1..20_u8 {
        file.write_at(&filled(round, 2 * BLOCK_BYTES), 0).unwrap();
        assert_eq!(file.read_device_at(&mut buf, 0).unwrap().0, 2 * BLOCK_BYTES);
        assert!(buf.iter().all(|byte| *byte == round), "a direct read missed a buffered write");
        file.write_durable_at(&filled(100 + round, BLOCK_BYTES), BLOCK).unwrap();
        assert_eq!(read(&*file, BLOCK - 1, 2), [round, 100 + round], "a buffered read missed a direct write");
    }
}

#[test]
fn reads_of_the_device_end_where_the_file_ends() {
    let dir = Dir::new();
    let disk = OsDisk::new();
    let file = disk.open(&dir.path("x"), Open::CreateNew).unwrap();
    file.write_at(&[9; BLOCK_BYTES + 100], 0).unwrap();
    file.sync_data().unwrap();
    let mut buf = filled(0, 4 * BLOCK_BYTES);
    let (read, direct) = file.read_device_at(&mut buf, 0).unwrap();
    assert_eq!(read, BLOCK_BYTES + 100);
    assert!(buf[..read].iter().all(|byte| *byte == 9));
    assert_eq!(file.read_device_at(&mut buf, BLOCK).unwrap().0, 100);
    assert_eq!(file.read_device_at(&mut buf, 2 * BLOCK).unwrap().0, 0);
    assert_eq!(file.read_at(&mut buf, 2 * BLOCK).unwrap(), 0);
    let backend = disk.describe(&dir.0);
    if ["ext4", "xfs"].contains(&backend.file_system.as_str()) {
        assert_eq!(direct, !backend.reason.contains("cannot read past"), "{backend:?}");
    }
    assert_eq!(file.read_device_at(&mut buf[1..101], 0).unwrap(), (100, false), "off the grid");
    let reader = disk.open(&dir.path("x"), Open::Read).unwrap();
    assert_eq!(reader.read_device_at(&mut buf, 0).unwrap(), (BLOCK_BYTES + 100, direct));
    assert!(reader.write_at(&[0], 0).is_err());
}

#[test]
fn allocate_punch_and_length() {
    let dir = Dir::new();
    let file = OsDisk::new().open(&dir.path("x"), Open::CreateNew).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.write_at(&[5; 100], BLOCK).unwrap();
    file.allocate(0, (3 << 20) + 12).unwrap();
    assert_eq!(file.len().unwrap(), (3 << 20) + 12);
    assert_eq!(read(&*file, BLOCK, 100), [0; 100], "allocating fills with zeros");
    file.sync_data().unwrap();
    let allocated = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(dir.path("x")).unwrap());
    assert!(allocated() >= 3 << 11, "the zeros were really written");

    file.write_at(&[6; 2 * BLOCK_BYTES], 0).unwrap();
    file.sync_data().unwrap();
    let before = allocated();
    file.punch(0, BLOCK).unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(read(&*file, BLOCK - 1, 2), [0, 6]);
        assert!(allocated() < before, "punching gave nothing back");
    }
    assert_eq!(file.len().unwrap(), (3 << 20) + 12);
    file.punch(0, 0).unwrap();
    file.allocate(0, 0).unwrap();

    file.set_len(10).unwrap();
    file.set_len(BLOCK).unwrap();
    assert_eq!(read(&*file, 0, BLOCK_BYTES), [0; BLOCK_BYTES]);
    assert_eq!(file.allocate(u64::MAX, 2).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(file.write_at(&[0; 2], u64::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn names() {
    let dir = Dir::new();
    let disk = OsDisk::new();
    let (a, b) = (dir.path("a"), dir.path("b"));
    assert_eq!(disk.open(&a, Open::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
    disk.open(&a, Open::CreateNew).unwrap();
    assert_eq!(disk.open(&a, Open::CreateNew).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    disk.open(&a, Open::ReadWrite).unwrap().write_at(b"a", 0).unwrap();
    disk.open(&b, Open::CreateNew).unwrap();
    disk.create_dir(&dir.path("sub")).unwrap();
    disk.create_dir(&dir.path("sub")).unwrap();
    assert_eq!(disk.create_dir(&a).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(disk.create_dir(&dir.path("no/where")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.list(&dir.0).unwrap(), ["a", "b", "sub"]);
    disk.rename(&a, &b).unwrap();
    disk.sync_dir(&dir.0).unwrap();
    assert!(!disk.exists(&a).unwrap() && disk.exists(&b).unwrap() && disk.exists(&dir.0).unwrap());
    assert!(!disk.exists(&b.join("below-a-file")).unwrap());
    assert_eq!(read(&*disk.open(&b, Open::Read).unwrap(), 0, 1), b"a");
    disk.remove(&b).unwrap();
    assert_eq!(disk.remove(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.list(&dir.path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(disk.sync_dir(&dir.path("none")).is_err());
    assert!(disk.open(&dir.0, Open::Read).is_err(), "a directory is not a file");
    assert!(disk.free_bytes(&dir.0).unwrap() > 0);
}

#[test]
fn the_direct_descriptor_survives_a_rename() {
    let dir = Dir::new();
    let disk = OsDisk::new();
    let file = disk.open(&dir.path("a"), Open::CreateNew).unwrap();
    disk.rename(&dir.path("a"), &dir.path("b")).unwrap();
    disk.open(&dir.path("a"), Open::CreateNew).unwrap();
    file.write_durable_at(&filled(4, BLOCK_BYTES), 0).unwrap();
    assert_eq!(read(&*disk.open(&dir.path("b"), Open::Read).unwrap(), 0, 3), [4; 3]);
    assert_eq!(disk.open(&dir.path("a"), Open::Read).unwrap().len().unwrap(), 0);
}

#[test]
fn locks_within_a_process() {
    let dir = Dir::new();
    let disk = OsDisk::new();
    let path = dir.path("x");
    let first = disk.open(&path, Open::CreateNew).unwrap();
    let second = disk.open(&path, Open::ReadWrite).unwrap();
    assert_eq!(disk.lock_holder(&path), None);
    assert!(first.try_lock(Lock::Shared).unwrap());
    assert!(second.try_lock(Lock::Shared).unwrap());
    assert!(!second.try_lock(Lock::Exclusive).unwrap());
    drop(first);
    assert!(second.try_lock(Lock::Exclusive).unwrap(), "a shared lock grows when the others are gone");
    assert!(second.try_lock(Lock::Exclusive).unwrap(), "what is held may be asked for again");
    let first = disk.open(&path, Open::ReadWrite).unwrap();
    assert!(!first.try_lock(Lock::Shared).unwrap() && !first.try_lock(Lock::Exclusive).unwrap());
    assert_eq!(disk.lock_holder(&path), Some(std::process::id()));
    assert!(second.try_lock(Lock::Shared).unwrap());
    assert!(first.try_lock(Lock::Shared).unwrap(), "an exclusive lock shrinks");
    drop((first, second));
    assert_eq!(disk.lock_holder(&path), None);
    let file = disk.open(&path, Open::ReadWrite).unwrap();
    let also = Arc::clone(&file);
    assert!(file.try_lock(Lock::Exclusive).unwrap());
    drop(file);
    assert!(
        !disk.open(&path, Open::Read).unwrap().try_lock(Lock::Shared).unwrap(),
        "until the last handle is dropped"
    );
    drop(also);
}

const HOLD: &str = "SEAWALL_TEST_HOLD_LOCK";

/// The other process of the next test; does nothing by itself.
#[test]
fn child_that_holds_a_lock() {
    let Some(path) = std::env::var_os(HOLD) else { return };
    let file = OsDisk::new().open(path.as_ref(), Open::ReadWrite).unwrap();
    assert!(file.try_lock(Lock::Exclusive).unwrap());
    std::fs::write(PathBuf::from(&path).with_extension("held"), b"").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn locks_between_processes() {
    let dir = Dir::new();
    let disk = OsDisk::new();
    let path = dir.path("x");
    let file = disk.open(&path, Open::CreateNew).unwrap();
    let test = concat!(module_path!(), "::child_that_holds_a_lock");
    let test = test.split_once("::").unwrap().1;
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1"])
        .env(HOLD, &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..1000 {
        if dir.path("x.held").exists() || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let refused = (file.try_lock(Lock::Exclusive), file.try_lock(Lock::Shared), disk.lock_holder(&path));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!refused.0.unwrap() && !refused.1.unwrap());
    if cfg!(target_os = "linux") {
        assert_eq!(refused.2, Some(child.id()));
    }
    assert!(file.try_lock(Lock::Exclusive).unwrap(), "a killed process holds nothing");
    assert_eq!(disk.lock_holder(&path), Some(std::process::id()));
}

#[test]
fn describe_says_what_was_tried_and_leaves_nothing() {
    let dir = Dir::new();
    let disk = OsDisk::new();
    let backend = disk.describe(&dir.0);
    assert!(!backend.is_network);
    // Whichever it is: what was found out about rings, then about durable writes.
    assert!(["uring", "blocking"].contains(&backend.name) && backend.reason.contains("; "), "{backend:?}");
    drop(probe::named_scratch_file_for_tests(&disk, &dir.0).unwrap());
    assert!(disk.list(&dir.0).unwrap().is_empty());
    let nowhere = disk.describe(&dir.path("none"));
    assert!(nowhere.reason.contains("could not be tried"), "{}", nowhere.reason);
    assert_eq!(nowhere.file_system, "unknown");
}

#[test]
fn probing_measures_every_way_that_works() {
    let dir = Dir::new();
    let rates = probe_durable_write(&dir.0, Duration::from_millis(20)).unwrap();
    assert!(rates.iter().any(|(method, _)| *method == DurableWrite::WriteThenSync));
    assert!(rates.iter().all(|(_, rate)| rate.is_finite() && *rate > 0.0), "{rates:?}");
    assert!(OsDisk::new().list(&dir.0).unwrap().is_empty());
    assert!(probe_durable_write(&dir.path("none"), Duration::ZERO).is_err());
    eprintln!("durable 4 KiB overwrites a second: {rates:?}");
    let choice = probe::choose(&dir.0);
    assert!(choice.way.is_some() && choice.reason.contains("/s"), "{choice:?}");
    let choice = probe::choose(&dir.path("none"));
    assert!(choice.way.is_none() && choice.reason.contains("could not be measured"), "{choice:?}");
    let fixed = OsOptions { durable_write: Some(DurableWrite::Dsync), ..OsOptions::default() };
    assert_eq!(OsDisk::with(fixed).choose_durable_write(&dir.0), None, "there is nothing to choose");
}

/// A file system of 1 MiB, if we may mount one; unmounted when dropped.
#[cfg(target_os = "linux")]
struct SmallDisk(Dir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = Dir::new();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&dir.0).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0.0).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_as_such() {
    let Some(SmallDisk(dir)) = &SmallDisk::mount() else {
        eprintln!("skipped: mounting a small file system is not permitted here");
        return;
    };
    let disk = OsDisk::new();
    let file = disk.open(&dir.path("x"), Open::CreateNew).unwrap();
    let errors = [
        file.allocate(0, 2 << 20).unwrap_err(),
        file.write_at(&filled(1, 2 << 20), 0).unwrap_err(),
        file.write_durable_at(&filled(1, 2 << 20), 0).unwrap_err(),
    ];
    for error in errors {
        assert!(crate::error::is_disk_full(&error), "{error}");
    }
    assert!(disk.free_bytes(&dir.0).unwrap() < 1 << 20);
}
