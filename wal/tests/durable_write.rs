//! The way of writing durably: measured once, kept, told to every file, overridden at will.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use seawall_wal::anchor::{self, Anchor, Slot};
use seawall_wal::disk::DurableWrite::{self, Dsync, WriteThenSync};
use seawall_wal::disk::{Backend, Choice, Disk, DiskFile, Lock, Open, SimDisk, read_exact_at};
use seawall_wal::{Wal, WalOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A simulated disk on which there is something to choose; it notes who asks, and what files are told.
#[derive(Debug)]
struct Choosing {
    disk: Arc<SimDisk>,
    choice: Option<Choice>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    asked: u32,
    /// Files opened for writing, without a wish yet.
    silent: Vec<PathBuf>,
    wishes: Vec<(PathBuf, DurableWrite)>,
}

#[derive(Debug)]
struct Told {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Disk for Choosing {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(Told { file, path: path.to_owned(), seen: self.seen.clone() }))
    }
    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.disk.rename(source, target)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
    fn lock_holder(&self, path: &Path) -> Option<u32> {
        self.disk.lock_holder(path)
    }
    fn describe(&self, dir: &Path) -> Backend {
        self.disk.describe(dir)
    }
    fn choose_durable_write(&self, _: &Path) -> Option<Choice> {
        self.seen.lock().unwrap().asked += 1;
        self.choice.clone()
    }
}

impl DiskFile for Told {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        self.file.read_device_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(buf, offset)
    }
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        if !seen.wishes.iter().any(|(path, _)| *path == self.path) {
            seen.silent.push(self.path.clone());
        }
        drop(seen);
        self.file.write_durable_at(buf, offset)
    }
    fn prefer_durable_write(&self, way: DurableWrite) {
        self.seen.lock().unwrap().wishes.push((self.path.clone(), way));
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.allocate(offset, bytes)
    }
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.punch(offset, bytes)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.file.try_lock(lock)
    }
}

const SEGMENT: u64 = 4 << 20;

struct Rig {
    disk: Arc<Choosing>,
}

impl Rig {
    fn new(choice: Option<Choice>) -> Rig {
        let disk = Choosing { disk: SimDisk::new(1), choice, seen: Arc::default() };
        Rig { disk: Arc::new(disk) }
    }

    fn options(&self) -> WalOptions {
        *self.disk.seen.lock().unwrap() = Seen::default();
        Wal::options().segment_bytes(SEGMENT).disk(self.disk.clone()).background(false)
    }

    fn kept(&self) -> u32 {
        let path = Path::new("/log").join(anchor::FILE_NAME);
        let file = self.disk.open(&path, Open::Read).unwrap();
        let mut bytes = vec![0; anchor::FILE_BYTES];
        read_exact_at(&*file, &mut bytes, 0).unwrap();
        match Anchor::choose(&bytes) {
            Slot::Valid(anchor) => anchor.write_method,
            other => unreachable!("{other:?}"),
        }
    }

    /// Writes through two rotations; every file that was written durably was told `way` before, and nothing else.
    fn write_and_check(&self, wal: &Wal, way: DurableWrite) {
        for _ in 0..12 {
            wal.commit(vec![7; 1 << 20]).unwrap();
        }
        let seen = self.disk.seen.lock().unwrap();
        assert!(seen.silent.is_empty(), "written without being told: {:?}", seen.silent);
        assert!(seen.wishes.len() >= 4, "{:?}", seen.wishes);
        assert!(seen.wishes.iter().all(|(_, told)| *told == way), "{:?}", seen.wishes);
    }
}

#[test]
fn what_was_measured_is_kept_and_told_to_every_file() {
    let choice = Choice { way: Some(WriteThenSync), reason: "it was a photo finish".to_owned() };
    let rig = Rig::new(Some(choice));
    let wal = rig.options().open("/log").unwrap();
    assert!(wal.recovery().backend_reason.ends_with("; it was a photo finish"));
    rig.write_and_check(&wal, WriteThenSync);
    assert_eq!(rig.disk.seen.lock().unwrap().asked, 1);
    wal.close().unwrap();
    assert_eq!(rig.kept(), 3);
    // Kept from then on, not measured again.
    let wal = rig.options().open("/log").unwrap();
    let reason = &wal.recovery().backend_reason;
    assert!(reason.ends_with("; write + fdatasync was chosen when the log was created"), "{reason}");
    rig.write_and_check(&wal, WriteThenSync);
    assert_eq!(rig.disk.seen.lock().unwrap().asked, 0);
    wal.close().unwrap();
    // Another for this time only.
    let wal = rig.options().durable_write(Dsync).open("/log").unwrap();
    assert!(wal.recovery().backend_reason.ends_with("; RWF_DSYNC was asked for"));
    rig.write_and_check(&wal, Dsync);
    wal.close().unwrap();
    assert_eq!(rig.kept(), 3);
}

#[test]
fn a_failed_measurement_leaves_the_default() {
    let rig = Rig::new(Some(Choice { way: None, reason: "the stop-watch broke".to_owned() }));
    let wal = rig.options().open("/log").unwrap();
    assert!(wal.recovery().backend_reason.ends_with("; the stop-watch broke"));
    wal.close().unwrap();
    assert!(rig.disk.seen.lock().unwrap().wishes.is_empty());
    assert_eq!(rig.kept(), 0);
}

#[test]
fn nobody_measures_who_was_told_not_to() {
    let rig = Rig::new(Some(Choice { way: Some(Dsync), reason: String::new() }));
    for options in [rig.options().probe(false), rig.options().segment_bytes(1 << 20)] {
        let wal = options.open(format!("/log-{}", rig.disk.disk.calls())).unwrap();
        wal.close().unwrap();
    }
    let wal = rig.options().durable_write(WriteThenSync).open("/log").unwrap();
    wal.close().unwrap();
    assert_eq!(rig.disk.seen.lock().unwrap().asked, 0);
    assert_eq!(rig.kept(), 3, "a new log keeps what was asked for");
}

/// The machine's own disk: measured unless the environment says otherwise, and the figures are told.
#[test]
fn a_real_disk_is_measured_when_a_log_is_created() {
    let here = std::env::current_exe().unwrap();
    let dir = here.with_file_name(format!("durable-write-{}", std::process::id()));
    let wal = Wal::options().segment_bytes(SEGMENT).open(&dir).unwrap();
    let reason = wal.recovery().backend_reason.clone();
    let is_off = std::env::var("SEAWALL_PROBE").is_ok_and(|value| value == "0");
    assert_eq!(reason.contains("was chosen (measured: "), !is_off, "{reason}");
    wal.commit([1; 100]).unwrap();
    wal.close().unwrap();
    let wal = Wal::open(&dir).unwrap();
    assert_eq!(wal.recovery().backend_reason.contains("was chosen when the log was created"), !is_off);
    wal.close().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}
