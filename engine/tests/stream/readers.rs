//! Who reads a streamed value while it is replaced: beside a checkpoint that has published, after the commit that made it, and
//! beside a vote.

use super::{MIN, builder, bytes, put};
use seawall_engine::{Error, OnPrepared, Readable, Snapshot, TxOptions, Vote, Xid};
use seawall_wal::SimDisk;
use seawall_wal::disk::{Backend, Disk, DiskFile, Lock, MapPromise, Mapping, Open};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

type Hook = Box<dyn FnOnce() + Send>;
/// Does something once, within one of the data file's durable writes.
#[derive(Default)]
struct Trap {
    left: AtomicI64,
    hook: Mutex<Option<Hook>>,
}
impl std::fmt::Debug for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("trap")
    }
}
#[derive(Debug)]
struct TrapDisk {
    inner: Arc<dyn Disk>,
    trap: Arc<Trap>,
}
#[derive(Debug)]
struct TrapFile {
    inner: Arc<dyn DiskFile>,
    is_data: bool,
    trap: Arc<Trap>,
}
impl Disk for TrapDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let is_data = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("data"));
        Ok(Arc::new(TrapFile { inner: self.inner.open(path, how)?, is_data, trap: self.trap.clone() }))
    }
    fn rename(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.inner.rename(a, b)
    }
    fn remove(&self, p: &Path) -> io::Result<()> {
        self.inner.remove(p)
    }
    fn list(&self, p: &Path) -> io::Result<Vec<String>> {
        self.inner.list(p)
    }
    fn create_dir(&self, p: &Path) -> io::Result<()> {
        self.inner.create_dir(p)
    }
    fn sync_dir(&self, p: &Path) -> io::Result<()> {
        self.inner.sync_dir(p)
    }
    fn exists(&self, p: &Path) -> io::Result<bool> {
        self.inner.exists(p)
    }
    fn free_bytes(&self, p: &Path) -> io::Result<u64> {
        self.inner.free_bytes(p)
    }
    fn lock_holder(&self, p: &Path) -> Option<u32> {
        self.inner.lock_holder(p)
    }
    fn describe(&self, p: &Path) -> Backend {
        self.inner.describe(p)
    }
}
impl DiskFile for TrapFile {
    fn read_at(&self, b: &mut [u8], o: u64) -> io::Result<usize> {
        self.inner.read_at(b, o)
    }
    fn read_device_at(&self, b: &mut [u8], o: u64) -> io::Result<(usize, bool)> {
        self.inner.read_device_at(b, o)
    }
    fn write_at(&self, b: &[u8], o: u64) -> io::Result<()> {
        self.inner.write_at(b, o)
    }
    fn write_durable_at(&self, b: &[u8], o: u64) -> io::Result<()> {
        if self.is_data && self.trap.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let hook = self.trap.hook.lock().unwrap().take();
            if let Some(hook) = hook {
                hook()
            }
        }
        self.inner.write_durable_at(b, o)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }
    fn allocate(&self, o: u64, n: u64) -> io::Result<()> {
        self.inner.allocate(o, n)
    }
    fn punch(&self, o: u64, n: u64) -> io::Result<()> {
        self.inner.punch(o, n)
    }
    fn set_len(&self, n: u64) -> io::Result<()> {
        self.inner.set_len(n)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn map(&self, n: u64, p: MapPromise) -> io::Result<Arc<dyn Mapping>> {
        self.inner.map(n, p)
    }
    fn try_lock(&self, l: Lock) -> io::Result<bool> {
        self.inner.try_lock(l)
    }
}

/// A checkpoint is in the midst of its second superblock when a value is streamed, committed and seen by a snapshot.
#[test]
fn a_value_that_is_streamed_beside_a_checkpoint_stays_for_whoever_sees_it() {
    let trap = Arc::new(Trap::default());
    let disk = Arc::new(TrapDisk { inner: SimDisk::new(1), trap: trap.clone() });
    let db = builder(&SimDisk::new(1)).disk(disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    ks.insert("x", "1").unwrap();
    db.checkpoint().unwrap();
    ks.insert("x", "2").unwrap();
    let expected = bytes(7, 9 * MIN);
    let taken: Arc<Mutex<Option<Snapshot>>> = Arc::default();
    let (db2, ks2, taken2, value) = (db.clone(), ks.clone(), taken.clone(), expected.clone());
    *trap.hook.lock().unwrap() = Some(Box::new(move || {
        put(&db2, &ks2, "k", &value);
        *taken2.lock().unwrap() = Some(db2.snapshot());
    }));
    trap.left.store(2, Ordering::SeqCst); // the fold's superblock, then its repetition
    db.checkpoint().unwrap();
    let snapshot = taken.lock().unwrap().take().expect("the trap sprang");
    assert!(snapshot.get(&ks, "k").unwrap().unwrap()[..] == expected);
    for n in 0..6 {
        put(&db, &ks, "k", &bytes(100 + n, 9 * MIN));
        db.checkpoint().unwrap();
    }
    let got = snapshot.get(&ks, "k").map(|v| v.unwrap()[..] == expected);
    assert!(matches!(got, Ok(true)), "{got:?}");
}

#[test]
fn a_reader_of_what_its_transaction_streamed_outlives_the_commit() {
    let db = builder(&SimDisk::new(1)).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    let expected = bytes(7, 9 * MIN);
    let mut tx = db.begin();
    tx.insert_from(&ks, "k", expected.len() as u64, &expected[..]).unwrap();
    let mut reader = tx.open_value(&ks, "k").unwrap().unwrap();
    tx.commit().unwrap();
    for n in 0..6 {
        put(&db, &ks, "k", &bytes(100 + n, 9 * MIN));
        db.checkpoint().unwrap();
    }
    let mut out = Vec::new();
    let got = reader.read_to_end(&mut out);
    assert!(got.is_ok() && out == expected, "{got:?}");
}

#[test]
fn opening_a_value_minds_what_is_prepared() {
    let db = builder(&SimDisk::new(1)).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    ks.insert("k", "old").unwrap();
    let mut tx = db.begin();
    tx.insert(&ks, "k", "new").unwrap();
    let Vote::Prepared(_p) = tx.prepare(Xid::new(1, "t", "s").unwrap()).unwrap() else { panic!() };
    let tx = db.begin_with(TxOptions { on_prepared: OnPrepared::Conflict, ..TxOptions::default() });
    assert!(matches!(tx.get(&ks, "k"), Err(Error::PreparedConflict { .. })));
    let got = tx.open_value(&ks, "k");
    assert!(matches!(got, Err(Error::PreparedConflict { .. })), "{got:?}");
}
