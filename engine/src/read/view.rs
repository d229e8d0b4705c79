//! What a snapshot pins: a position, the deltas alive at that moment, and a root of the tree.
//!
//! A snapshot at S sees exactly the commits below S. Position and view are taken together under the view's lock, and
//! the view is changed under the same lock, which makes it hold: a commit below S was reserved after its delta
//! became part of the view (the sequencer swaps the active delta under its own lock, inside which it changes the
//! view), so a view read now has that delta, or a root that the delta was folded into. And a root never has anything
//! at or above S, because only what is visible is folded.

#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use crate::delta::{Delta, Version};
use crate::keyspace::Life;
use crate::mutation::Mutation;
use crate::read::held::{Hold, Holders};
use crate::read::scan::Own;
use crate::read::value::ValueReader;
use crate::record::{CATALOGUE, CatalogueRow, Compression};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, RwLock};
use crate::tree::{Located, Root, TreeStore};
use crate::{Cursor, Error, KeyRange, Keyspace, Result, Scan};
use seawall_wal::{Lsn, Runtime, Slice};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The sources of all rows, newest first.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) active: Arc<Delta>,
    /// Newest first.
    pub(crate) frozen: Vec<Arc<Delta>>,
    pub(crate) root: Arc<Root>,
}

impl View {
    pub(crate) fn deltas(&self) -> impl Iterator<Item = &Arc<Delta>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }
}

/// What all readers share.
pub(crate) struct Reads {
    pub(crate) store: Arc<TreeStore>,
    view: RwLock<Arc<View>>,
    visible: AtomicU64,
    pub(crate) holders: Holders,
    /// Memory of deltas that are folded, and still held.
    pinned_bytes: Arc<AtomicU64>,
    runtime: Arc<dyn Runtime>,
    /// By keyspace, once a checkpoint had to know.
    pub(crate) known_compressions: Mutex<BTreeMap<u32, Compression>>,
    /// By keyspace, where the stretch of its tree ends that took in its runs last.
    pub(crate) rolled: Mutex<BTreeMap<u32, Arc<[u8]>>>,
    /// The last keyspace whose runs came in beside others' changes although nothing is new in it.
    pub(crate) idle_turn: AtomicU32,
    /// A test's deliberate mistake.
    mutation: OnceLock<Mutation>,
}

/// What lies in deltas, and where the tree's share ends.
pub(crate) struct DeltaBytes {
    /// Memory of the deltas that are not folded yet.
    pub(crate) bytes: u64,
    /// Memory of the active one.
    pub(crate) active: u64,
    /// Memory of those that are folded, and still held.
    pub(crate) pinned: u64,
    /// The position that the tree has reached.
    pub(crate) folded: Lsn,
}

impl Reads {
    pub(crate) fn new(store: Arc<TreeStore>, view: View, visible: Lsn, runtime: Arc<dyn Runtime>) -> Reads {
        Reads {
            store,
            view: RwLock::new(Arc::new(view)),
            visible: AtomicU64::new(visible.0),
            holders: Holders::default(),
            pinned_bytes: Arc::new(AtomicU64::new(0)),
            runtime,
            known_compressions: Mutex::default(),
            rolled: Mutex::default(),
            idle_turn: AtomicU32::new(0),
            mutation: OnceLock::new(),
        }
    }

    /// A test's deliberate mistake. Once.
    pub(crate) fn err_by(&self, mutation: Mutation) {
        let _ = self.mutation.set(mutation);
    }

    pub(crate) fn errs_by(&self, mutation: Mutation) -> bool {
        self.mutation.get() == Some(&mutation)
    }

    /// Everything below is visible, nothing at or above.
    pub(crate) fn visible(&self) -> Lsn {
        Lsn(self.visible.load(Ordering::SeqCst))
    }

    /// By the sequencer alone.
    pub(crate) fn set_visible(&self, lsn: Lsn) {
        self.visible.store(lsn.0, Ordering::SeqCst);
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// View and position that belong together.
    pub(crate) fn now(&self) -> (Arc<View>, Lsn) {
        #[cfg(seawall_shuttle)]
        if errs(Misorder::LookApart) {
            return (self.view(), self.visible());
        }
        let view = self.view.read();
        (Arc::clone(&view), self.visible())
    }

    /// The active delta was frozen. Under the sequencer's lock.
    pub(crate) fn froze(&self, frozen: Arc<Delta>, active: Arc<Delta>) {
        let mut view = self.view.write();
        let mut next = View::clone(&view);
        next.active = active;
        next.frozen.insert(0, frozen);
        *view = Arc::new(next);
    }

    /// The frozen deltas that end at or below `folded` are in this root. Single flight, with `froze`.
    pub(crate) fn folded(&self, folded: Lsn, root: Arc<Root>) {
        #[cfg(seawall_shuttle)]
        if errs(Misorder::DropBeforeRoot) {
            let mut next = View::clone(&self.view());
            next.frozen.retain(|delta| delta.end() > folded);
            *self.view.write() = Arc::new(next);
        }
        let before = {
            let mut view = self.view.write();
            let mut next = View::clone(&view);
            let (gone, kept) = next.frozen.into_iter().partition(|delta| delta.end() <= folded);
            let gone: Vec<Arc<Delta>> = gone;
            gone.iter().for_each(|delta| delta.count_as_pinned(&self.pinned_bytes));
            next.frozen = kept;
            next.root = root;
            std::mem::replace(&mut *view, Arc::new(next))
        };
        // Dropping a delta of millions of rows takes a while: not under the lock.
        drop(before);
    }

    /// Memory of the deltas that are not folded yet.
    pub(crate) fn delta_bytes(&self) -> u64 {
        self.deltas().bytes
    }

    /// Memory of deltas that are in the tree already, and that snapshots, scans or the validation of old transactions
    /// still hold.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes.load(Ordering::Relaxed)
    }

    /// Memory of all deltas.
    pub(crate) fn memory(&self) -> u64 {
        self.delta_bytes().saturating_add(self.pinned_bytes())
    }

    pub(crate) fn deltas(&self) -> DeltaBytes {
        let view = self.view.read();
        DeltaBytes {
            bytes: view.deltas().map(|delta| delta.bytes()).sum(),
            active: view.active.bytes(),
            pinned: self.pinned_bytes(),
            folded: view.root.superblock.checkpoint_lsn,
        }
    }

    /// How long the oldest snapshot has been there.
    pub(crate) fn oldest_age(&self) -> Duration {
        self.holders.since().map_or(Duration::ZERO, |since| self.runtime.now().saturating_sub(since))
    }

    /// Takes a snapshot, known until it is dropped: what it may still need is kept.
    pub(crate) fn snapshot(self: &Arc<Self>, instance: u64, is_read_write: bool) -> Snapshot {
        let since = self.runtime.now();
        #[cfg(seawall_shuttle)]
        let early = errs(Misorder::HoldLate).then(|| self.now());
        #[cfg(seawall_shuttle)]
        let look = || early.unwrap_or_else(|| self.now());
        #[cfg(not(seawall_shuttle))]
        let look = || self.now();
        Snapshot(self.holders.take(self, look, since, instance, is_read_write))
    }

    /// As [`snapshot`](Self::snapshot), at a position that need not be visible: for what must be respected before it is.
    pub(crate) fn snapshot_at(self: &Arc<Self>, lsn: Lsn, instance: u64) -> Snapshot {
        let look = || (self.view(), lsn);
        Snapshot(self.holders.take(self, look, self.runtime.now(), instance, false))
    }

    /// While memory `is_short`, the oldest snapshots that have reached this age give way. The age of the first that did.
    pub(crate) fn expire(&self, age_max: Duration, is_short: impl FnMut() -> bool) -> Option<Duration> {
        let now = self.runtime.now();
        let limit = now.checked_sub(age_max)?;
        self.holders.expire(limit, is_short).map(|since| now.saturating_sub(since))
    }

    /// What the deltas say of a row as of `lsn`, if anything: an add means that the tree's row is added to.
    fn in_deltas(view: &View, lsn: Lsn, keyspace: u32, key: &[u8]) -> Option<Version> {
        let mut newer: Option<Version> = None;
        for delta in view.deltas() {
            let Some((_, version)) = delta.newest(keyspace, key, lsn) else { continue };
            let version = match newer {
                Some(newer) => newer.over(version),
                None => version,
            };
            if !matches!(version, Version::Add(_)) {
                return Some(version);
            }
            newer = Some(version);
        }
        newer
    }

    /// The row that a version is when nothing is below it.
    pub(crate) fn row_of(&self, version: Version) -> Result<Option<Slice>> {
        version.row(self.store.path(), |value| self.store.read_large(value))
    }

    /// A row as of `lsn` in `view`.
    pub(crate) fn get(&self, view: &View, lsn: Lsn, keyspace: u32, key: &[u8]) -> Result<Option<Slice>> {
        match Reads::in_deltas(view, lsn, keyspace, key) {
            None => self.store.get(&view.root, keyspace, key),
            Some(add @ Version::Add(_)) => {
                let below = self.store.get(&view.root, keyspace, key)?;
                self.row_of(add.over(Version::of(below)))
            }
            Some(version) => self.row_of(version),
        }
    }

    /// As [`get`](Self::get), but for a value in extents of its own, of which nothing is read.
    fn find(&self, view: &View, lsn: Lsn, keyspace: u32, key: &[u8]) -> Result<Option<Located>> {
        match Reads::in_deltas(view, lsn, keyspace, key) {
            None => self.store.find_value(&view.root, keyspace, key),
            Some(Version::Large(value)) => Ok(Some(Located::Apart(value))),
            Some(_) => Ok(self.get(view, lsn, keyspace, key)?.map(Located::Here)),
        }
    }

    /// Several rows as of `lsn` in `view`, in the order of their keys; what is in no delta is read from the tree with
    /// several blocks in flight.
    fn get_many(&self, view: &View, lsn: Lsn, keyspace: u32, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let mut rows: Vec<Option<Slice>> = vec![None; keys.len()];
        let mut in_tree = Vec::new();
        for (row, key) in rows.iter_mut().zip(keys) {
            match Reads::in_deltas(view, lsn, keyspace, key) {
                None => in_tree.push((row, *key, None)),
                Some(add @ Version::Add(_)) => in_tree.push((row, *key, Some(add))),
                Some(version) => *row = self.row_of(version)?,
            }
        }
        let wanted: Vec<&[u8]> = in_tree.iter().map(|(_, key, _)| *key).collect();
        let found = self.store.get_many(&view.root, keyspace, &wanted)?;
        for ((row, _, added), value) in in_tree.into_iter().zip(found) {
            *row = match added {
                Some(added) => self.row_of(added.over(Version::of(value)))?,
                None => value,
            };
        }
        Ok(rows)
    }

    /// Whether a row is there, without reading a large value.
    fn contains(&self, view: &View, lsn: Lsn, keyspace: u32, key: &[u8]) -> Result<bool> {
        match Reads::in_deltas(view, lsn, keyspace, key) {
            None => self.store.contains(&view.root, keyspace, key),
            Some(version) => Ok(version != Version::Removed),
        }
    }

    /// A keyspace's row of the catalogue, as of `lsn` in `view`.
    pub(crate) fn catalogue_row(&self, view: &View, lsn: Lsn, name: &str) -> Result<Option<CatalogueRow>> {
        let Some(row) = self.get(view, lsn, CATALOGUE, name.as_bytes())? else { return Ok(None) };
        match CatalogueRow::decode(&row) {
            Some(row) => Ok(Some(row)),
            None => Err(Error::Corruption {
                file: self.store.path().to_owned(),
                offset: 0,
                lsn: None,
                what: format!("the catalogue's row of \"{}\" is none", name.escape_debug()),
            }),
        }
    }

    /// A row as of now.
    pub(crate) fn get_now(&self, life: &Life, key: &[u8]) -> Result<Option<Slice>> {
        let (view, lsn) = self.now();
        if !life.is_at(lsn) {
            return Err(life.missing());
        }
        self.get(&view, lsn, life.id(), key)
    }
}

/// The store as it was at one moment: it never changes, blocks nobody, and is never blocked. It keeps in memory and
/// on disk what was replaced since, so drop it when you are done: once it is older than
/// [`snapshot_age_max`](crate::DbBuilder::snapshot_age_max) it has to give way where memory or disk is short, and reads
/// answer `SnapshotTooOld`.
///
/// ```
/// # use seawall_engine::{Db, Readable};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// rows.insert("a", "1")?;
/// let snapshot = db.snapshot();
/// rows.remove("a")?;
/// assert!(snapshot.get(&rows, "a")?.is_some());
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Snapshot(Arc<Hold>);

impl Snapshot {
    /// The position up to which this snapshot sees the log: commits below it, none at or above.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// let before = db.snapshot();
    /// rows.insert("a", "1")?;
    /// assert!(before.lsn() < db.snapshot().lsn());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn lsn(&self) -> Lsn {
        self.0.lsn
    }

    /// How long ago it was taken.
    ///
    /// ```
    /// # use seawall_engine::Db;
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// let snapshot = db.snapshot();
    /// assert!(snapshot.age() < std::time::Duration::from_secs(60));
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn age(&self) -> Duration {
        self.0.reads.runtime.now().saturating_sub(self.0.since)
    }

    pub(crate) fn reads(&self) -> &Arc<Reads> {
        &self.0.reads
    }

    /// `SnapshotTooOld` once it had to give way.
    pub(crate) fn view(&self) -> Result<Arc<View>> {
        self.0.view()
    }

    /// As [`view`](Self::view), when the view itself is not needed.
    pub(crate) fn check_age(&self) -> Result<()> {
        self.0.check()
    }

    /// Refuses a keyspace of another store, and one that is not there at this position.
    pub(crate) fn check(&self, life: &Life) -> Result<()> {
        check_instance(life, self.0.instance)?;
        if life.is_at(self.0.lsn) { Ok(()) } else { Err(life.missing()) }
    }

    pub(crate) fn get_row(&self, life: &Life, key: &[u8]) -> Result<Option<Slice>> {
        self.check(life)?;
        self.0.reads.get(&*self.view()?, self.0.lsn, life.id(), key)
    }

    pub(crate) fn open_row(&self, life: &Life, key: &[u8]) -> Result<Option<ValueReader>> {
        self.check(life)?;
        let reads = self.reads();
        let found = reads.find(&*self.view()?, self.0.lsn, life.id(), key)?;
        Ok(found.map(|found| ValueReader::new(found, reads, Some(self))))
    }

    pub(crate) fn get_rows(&self, life: &Life, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        self.check(life)?;
        self.0.reads.get_many(&*self.view()?, self.0.lsn, life.id(), keys)
    }

    /// A keyspace's row of the catalogue.
    pub(crate) fn catalogue_row(&self, name: &str) -> Result<Option<CatalogueRow>> {
        self.0.reads.catalogue_row(&*self.view()?, self.0.lsn, name)
    }
}

/// Refuses a keyspace of another store.
pub(crate) fn check_instance(life: &Life, instance: u64) -> Result<()> {
    if life.instance() == instance {
        Ok(())
    } else {
        Err(crate::Error::BadInput(format!("the keyspace \"{}\" belongs to another open store", life.name())))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("lsn", &self.lsn()).finish_non_exhaustive()
    }
}

/// Reading, by [`Snapshot`] and [`Transaction`](crate::Transaction) alike: write read helpers once.
///
/// ```
/// # use seawall_engine::{Db, Keyspace, Readable, Result};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// fn total(reader: &impl Readable, rows: &Keyspace) -> Result<usize> {
///     reader.range(rows, ..).map(|row| Ok(row?.1.len())).sum()
/// }
/// rows.insert("a", "123")?;
/// let mut tx = db.begin();
/// tx.insert(&rows, "b", "45")?;
/// assert_eq!((total(&db.snapshot(), &rows)?, total(&tx, &rows)?), (3, 5));
/// assert!(tx.contains_key(&rows, "b")?);
/// assert_eq!(tx.multi_get(&rows, &["a", "c"])?[0].as_deref(), Some(&b"123"[..]));
/// # Ok::<(), seawall_engine::Error>(())
/// ```
pub trait Readable {
    /// The value of a key. Sharing its memory with a cache or a delta: [`Slice::detach`] it to keep it for long.
    ///
    /// # Errors
    /// `KeyspaceMissing`, `SnapshotTooOld`, and `Io` or `Corruption` from the data file.
    fn get(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>>;

    /// The values of several keys, in their order. What has to be read from the data file is read with many blocks in
    /// flight, so this is several times quicker than as many calls of [`get`](Readable::get) when memory lacks them.
    ///
    /// # Errors
    /// As [`get`](Readable::get).
    fn multi_get<K: AsRef<[u8]>>(&self, ks: &Keyspace, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        keys.iter().map(|key| self.get(ks, key)).collect()
    }

    /// Whether the key is there.
    ///
    /// # Errors
    /// As [`get`](Readable::get).
    fn contains_key(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(ks, key)?.is_some())
    }

    /// The rows of a range, in key order, from either end. A scan of a transaction sees its writes as of this call,
    /// and errors once the transaction has ended.
    fn range(&self, ks: &Keyspace, range: impl KeyRange) -> Scan;

    /// The value of a key as a stream, for a large one: [`get`](Readable::get) gives it as a whole, in memory. None if the
    /// key is not there.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::open("store")?;
    /// # let films = db.keyspace("films")?;
    /// if let Some(mut film) = db.snapshot().open_value(&films, "nosferatu")? {
    ///     std::io::copy(&mut film, &mut std::fs::File::create("nosferatu.mkv")?)?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Readable::get); reading the stream has errors of its own.
    fn open_value(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>>;

    /// The rows whose keys start with `prefix`.
    fn prefix(&self, ks: &Keyspace, prefix: impl AsRef<[u8]>) -> Scan;

    /// A cursor, before the first row.
    fn cursor(&self, ks: &Keyspace) -> Cursor;
}

impl Readable for Snapshot {
    fn get(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.get_row(ks.life(), key.as_ref())
    }

    fn multi_get<K: AsRef<[u8]>>(&self, ks: &Keyspace, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        self.get_rows(ks.life(), &keys)
    }

    fn contains_key(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        self.check(ks.life())?;
        self.0.reads.contains(&*self.view()?, self.0.lsn, ks.life().id(), key.as_ref())
    }

    fn open_value(&self, ks: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<ValueReader>> {
        self.open_row(ks.life(), key.as_ref())
    }

    fn range(&self, ks: &Keyspace, range: impl KeyRange) -> Scan {
        Scan::range(self, ks.life(), Own::none(), &range)
    }

    fn prefix(&self, ks: &Keyspace, prefix: impl AsRef<[u8]>) -> Scan {
        Scan::prefix(self, ks.life(), Own::none(), prefix.as_ref())
    }

    fn cursor(&self, ks: &Keyspace) -> Cursor {
        Cursor::new(self, ks.life(), Own::none())
    }
}

/// A row that a source found: its key, and what the source says of it.
pub(crate) type Found = (Slice, Version);
