//! A disk that a scheduler may interrupt before and after each call, and that knows what must not be given back.

use crate::tree::TreeStore;
use crate::tree::space::Extent;
use seawall_wal::SimDisk;
use seawall_wal::disk::{Backend, Disk, DiskFile, Lock, MapPromise, Mapping, Open};
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread::ThreadId;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// A simulated disk, call by call.
#[derive(Debug)]
pub(super) struct Stepwise {
    inner: Arc<SimDisk>,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// Touching it is where another may go on.
    step: AtomicU64,
    /// Whose last call was a sync.
    synced: Mutex<Vec<ThreadId>>,
    store: OnceLock<Weak<TreeStore>>,
}

impl Stepwise {
    pub(super) fn over(inner: &Arc<SimDisk>) -> Arc<Stepwise> {
        let seen = Seen { step: AtomicU64::new(0), synced: Mutex::default(), store: OnceLock::new() };
        Arc::new(Stepwise { inner: Arc::clone(inner), seen: Arc::new(seen) })
    }

    /// From now on only free space may be given back.
    pub(super) fn watch(&self, store: &Arc<TreeStore>) {
        self.seen.store.set(Arc::downgrade(store)).unwrap();
    }
}

impl Seen {
    fn around<T>(&self, call: impl FnOnce() -> T) -> T {
        self.synced.lock().unwrap().retain(|id| *id != shuttle::thread::current().id());
        self.step.fetch_add(1, Ordering::SeqCst);
        let result = call();
        self.step.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// Whatever happens during the call, it stays free.
    fn around_giving_back<T>(&self, is_free: impl Fn(&TreeStore) -> bool, call: impl FnOnce() -> T) -> T {
        let store = self.store.get().and_then(Weak::upgrade);
        let check =
            || assert!(store.as_ref().is_none_or(|store| is_free(store)), "what is in use was given back");
        check();
        let result = self.around(call);
        check();
        result
    }
}

impl Disk for Stepwise {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, how)?;
        Ok(Arc::new(StepwiseFile { inner, seen: Arc::clone(&self.seen) }))
    }

    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.inner.rename(source, target)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }

    fn lock_holder(&self, path: &Path) -> Option<u32> {
        self.inner.lock_holder(path)
    }

    fn describe(&self, dir: &Path) -> Backend {
        self.inner.describe(dir)
    }
}

#[derive(Debug)]
struct StepwiseFile {
    inner: Arc<dyn DiskFile>,
    seen: Arc<Seen>,
}

impl DiskFile for StepwiseFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.seen.around(|| self.inner.read_at(buf, offset))
    }

    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        self.seen.around(|| self.inner.read_device_at(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.seen.around(|| self.inner.write_at(buf, offset))
    }

    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.seen.around(|| self.inner.write_durable_at(buf, offset))
    }

    /// Who calls it again has not seen the end of another's, and waits for that.
    fn sync_data(&self) -> io::Result<()> {
        let me = shuttle::thread::current().id();
        if self.seen.synced.lock().unwrap().contains(&me) {
            shuttle::thread::yield_now();
        }
        let synced = self.seen.around(|| self.inner.sync_data());
        self.seen.synced.lock().unwrap().push(me);
        synced
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.seen.around(|| self.inner.allocate(offset, bytes))
    }

    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let is_free = |store: &TreeStore| store.space.lock().is_free(Extent { offset, bytes });
        self.seen.around_giving_back(is_free, || self.inner.punch(offset, bytes))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let is_free = |store: &TreeStore| store.space.lock().used_end() <= bytes;
        self.seen.around_giving_back(is_free, || self.inner.set_len(bytes))
    }

    /// Asked for by who waits for another's call.
    fn len(&self) -> io::Result<u64> {
        shuttle::thread::yield_now();
        self.inner.len()
    }

    fn map(&self, bytes: u64, promise: MapPromise) -> io::Result<Arc<dyn Mapping>> {
        self.seen.around(|| self.inner.map(bytes, promise))
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.inner.try_lock(lock)
    }
}
