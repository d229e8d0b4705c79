//! A store over a log whose marks a thread of the test moves, and what must hold whenever anybody reads.

use crate::commit::gate::Reach;
use crate::commit::log::{CommitLog, News, OnNews, Outcome, Place};
use crate::commit::pending::Pending;
use crate::commit::validate::Seen;
use crate::db::Core;
use crate::life::open::{Files, start};
use crate::life::slots::Slots;
use crate::memory::Charge;
use crate::mutation::Mutation;
use crate::read::track::ReadSet;
use crate::read::view::View;
use crate::record::{Builder, WriteSet};
use crate::sync::{AtomicU32, Mutex};
use crate::tree::{Superblock, TreeStore};
use crate::{Db, Error, Result};
use seawall_wal::disk::{Disk, Open};
use seawall_wal::runtime::ShuttleRuntime;
use seawall_wal::{Durability, Lsn, RecordRef, Recovery, Retainer, Runtime, SimDisk, WalStats};
use shuttle::rand::Rng;
use shuttle::thread::JoinHandle;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The keyspace that all rows are in.
pub(super) const KEYSPACE: u32 = 1;
/// What each record takes in the log.
const RECORD_BYTES: u64 = 10;

/// A log in name only. Places are given out; [`run`](MovingLog::run) moves the mark of what is reached, in steps of any
/// size, until [`end`](MovingLog::end), or fails.
pub(super) struct MovingLog {
    runtime: Arc<ShuttleRuntime>,
    marks: Mutex<Marks>,
    /// Changes whenever somebody's outcome may have.
    outcome: AtomicU32,
    /// Changes when there is something to do for whoever moves the mark.
    work: AtomicU32,
    listener: OnceLock<OnNews>,
    recovery: Recovery,
}

struct Marks {
    next: u64,
    reached: u64,
    withdrawn: Vec<Range<u64>>,
    /// At which step the log fails, counted down.
    fails_in: Option<u32>,
    has_failed: bool,
    is_ending: bool,
    placed: Vec<Placed>,
}

/// A record as it was placed, for the checks.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) lsn: u64,
    pub(super) keys: Vec<Vec<u8>>,
    /// Its rows may be written again by later ones, so only their presence can be told.
    is_withdrawn: bool,
}

impl Marks {
    fn outcome(&self, place: &Place) -> Option<Result<Outcome>> {
        let withdrawn = self.withdrawn.iter().find(|range| range.contains(&place.lsn.0));
        if let Some(range) = withdrawn {
            return Some(Ok(Outcome::Withdrawn { from: Lsn(range.start), to: Lsn(range.end) }));
        }
        if place.end.0 <= self.reached {
            return Some(Ok(Outcome::Reached));
        }
        self.has_failed.then_some(Err(Error::CommitUnknown { lsn: place.lsn }))
    }
}

impl MovingLog {
    fn new(runtime: &Arc<ShuttleRuntime>) -> MovingLog {
        MovingLog {
            runtime: Arc::clone(runtime),
            marks: Mutex::new(Marks {
                next: 100,
                reached: 100,
                withdrawn: Vec::new(),
                fails_in: None,
                has_failed: false,
                is_ending: false,
                placed: Vec::new(),
            }),
            outcome: AtomicU32::new(0),
            work: AtomicU32::new(0),
            listener: OnceLock::new(),
            recovery: Recovery::default(),
        }
    }

    fn signal(&self, word: &AtomicU32) {
        word.fetch_add(1, Ordering::SeqCst);
        self.runtime.wake_all(word);
    }

    /// Changes the marks, tells the listener, and then whoever waits.
    fn change(&self, change: impl FnOnce(&mut Marks) -> News) {
        let news = change(&mut self.marks.lock());
        if let Some(listener) = self.listener.get() {
            listener(news);
        }
        self.signal(&self.outcome);
    }

    /// Moves the mark over what is placed, until the end.
    fn run(&self) {
        loop {
            let seen = self.work.load(Ordering::SeqCst);
            let (reached, next, is_over) = {
                let marks = self.marks.lock();
                let is_done = marks.is_ending && marks.reached == marks.next;
                (marks.reached, marks.next, marks.has_failed || is_done)
            };
            if is_over {
                return;
            }
            if reached < next {
                let steps = (next - reached) / RECORD_BYTES;
                let target = reached + RECORD_BYTES * shuttle::rand::thread_rng().gen_range(1..=steps);
                self.change(|marks| {
                    if marks.fails_in == Some(0) {
                        marks.has_failed = true;
                        return News::Failed;
                    }
                    marks.fails_in = marks.fails_in.map(|steps| steps - 1);
                    marks.reached = target;
                    News::Moved
                });
                continue;
            }
            self.runtime.wait(&self.work, seen, None);
        }
    }

    /// Nothing more will be placed.
    fn end(&self) {
        self.marks.lock().is_ending = true;
        self.signal(&self.work);
    }

    /// The log fails at its step of that number, counted from 0.
    pub(super) fn fail_at(&self, step: u32) {
        self.marks.lock().fails_in = Some(step);
    }

    /// Takes back what is not reached, from some record on. None if there is nothing.
    pub(super) fn take_back(&self) -> Option<Range<u64>> {
        let mut taken = None;
        self.change(|marks| {
            let from = marks.placed.iter().map(|record| record.lsn).find(|lsn| *lsn >= marks.reached);
            let Some(from) = from else { return News::Moved };
            let range = from..marks.next;
            for record in marks.placed.iter_mut().filter(|record| range.contains(&record.lsn)) {
                record.is_withdrawn = true;
            }
            marks.withdrawn.push(range.clone());
            taken = Some(range.clone());
            News::Withdrawn { from: Lsn(range.start), to: Lsn(range.end) }
        });
        taken
    }

    /// Everything placed so far.
    pub(super) fn placed(&self) -> Vec<Placed> {
        self.marks.lock().placed.clone()
    }
}

impl CommitLog for MovingLog {
    fn make_room(&self, _: usize) -> Result<()> {
        if self.marks.lock().has_failed {
            return Err(Error::Poisoned(Arc::new(Error::BadInput("the disk is on fire".into()))));
        }
        Ok(())
    }

    fn place(&self, payload: &[u8], _: Durability) -> Result<Option<Place>> {
        let place = {
            let mut marks = self.marks.lock();
            let set = WriteSet::decode(payload.to_vec()).unwrap();
            let keys = set.rows().iter().map(|row| set.key_of(row).1.to_vec()).collect();
            let lsn = marks.next;
            marks.next += RECORD_BYTES;
            marks.placed.push(Placed { lsn, keys, is_withdrawn: false });
            Place::mock(Lsn(lsn), Lsn(lsn + RECORD_BYTES))
        };
        self.signal(&self.work);
        Ok(Some(place))
    }

    fn is_reached(&self, place: &Place) -> bool {
        matches!(self.marks.lock().outcome(place), Some(Ok(Outcome::Reached)))
    }

    fn wait_for(&self, place: &Place, timeout: Option<Duration>) -> Result<Outcome> {
        loop {
            let seen = self.outcome.load(Ordering::SeqCst);
            if let Some(outcome) = self.marks.lock().outcome(place) {
                return outcome;
            }
            self.runtime.wait(&self.outcome, seen, timeout);
            if timeout.is_some() {
                return self.marks.lock().outcome(place).unwrap_or(Ok(Outcome::TimedOut));
            }
        }
    }

    fn drive(&self, _: &Place) {}

    fn listen(&self, listener: OnNews) {
        let _ = self.listener.set(listener);
    }

    fn barrier(&self) -> Result<Lsn> {
        Ok(self.next_lsn())
    }

    fn sync(&self) -> Result<Lsn> {
        let end = self.next_lsn();
        self.sync_to(end)?;
        Ok(end)
    }

    fn sync_to(&self, lsn: Lsn) -> Result<()> {
        loop {
            let seen = self.outcome.load(Ordering::SeqCst);
            {
                let marks = self.marks.lock();
                if marks.reached >= lsn.0 {
                    return Ok(());
                }
                if marks.has_failed {
                    return Err(Error::Poisoned(Arc::new(Error::BadInput("the disk is on fire".into()))));
                }
            }
            self.runtime.wait(&self.outcome, seen, None);
        }
    }

    fn next_lsn(&self) -> Lsn {
        Lsn(self.marks.lock().next)
    }

    fn log_bytes(&self) -> u64 {
        0
    }

    fn release_before(&self, _: Lsn) -> Result<()> {
        Ok(())
    }

    fn retained(&self) -> Vec<Retainer> {
        Vec::new()
    }

    fn stats(&self) -> WalStats {
        WalStats::default()
    }

    fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    fn replay(&self, _: Lsn, _: &mut dyn FnMut(RecordRef<'_>) -> Result<()>) -> Result<()> {
        Ok(())
    }

    fn dir(&self) -> &Path {
        Path::new("/log")
    }

    fn resume(&self) -> Result<()> {
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// What a ticket takes of a budget that there is none of here.
pub(super) fn uncharged() -> Charge {
    Charge::none(&Arc::new(AtomicU64::new(0)))
}

/// A store over a [`MovingLog`], and the thread that moves its marks.
pub(super) struct World {
    pub(super) log: Arc<MovingLog>,
    pub(super) core: Arc<Core>,
    /// Keeps the store open.
    _db: Db,
    mover: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl World {
    pub(super) fn new(mutation: Option<Mutation>) -> Arc<World> {
        let path = Path::new("/data");
        let disk = SimDisk::new(1);
        let file = disk.open(path, Open::CreateNew).unwrap();
        TreeStore::create(Arc::clone(&file), path, &Superblock::default()).unwrap();
        let (store, root) = TreeStore::open(disk.clone(), file, path, 64 << 10, false).unwrap();
        let runtime = ShuttleRuntime::new();
        let log = Arc::new(MovingLog::new(&runtime));
        let builder = Db::builder("/store").disk(disk).runtime(runtime).background(false).mutation(mutation);
        let options = builder.options().unwrap();
        let as_log: Arc<dyn CommitLog> = Arc::clone(&log) as _;
        let slots = Slots::new(&options, &as_log, root.superblock.store_id, root.superblock.segment_bytes);
        let db = start(options, Files { store, root, log: as_log, slots }).unwrap();
        let moving = Arc::clone(&log);
        let mover = shuttle::thread::spawn(move || moving.run());
        let core = Arc::clone(db.core());
        Arc::new(World { log, core, _db: db, mover: std::sync::Mutex::new(Some(mover)) })
    }

    /// A thread of the test.
    pub(super) fn spawn(self: &Arc<Self>, body: impl FnOnce(&Arc<World>) + Send + 'static) -> JoinHandle<()> {
        let world = Arc::clone(self);
        shuttle::thread::spawn(move || body(&world))
    }

    /// Places a commit of rows with these keys; it is applied when this returns.
    pub(super) fn place(&self, keys: &[String]) -> Result<Arc<Pending>> {
        self.place_at(keys, b"v", None)
    }

    pub(super) fn place_at(
        &self,
        keys: &[String],
        value: &[u8],
        snapshot: Option<Lsn>,
    ) -> Result<Arc<Pending>> {
        let reads = ReadSet::default();
        self.place_seen(keys, value, snapshot.map(|snapshot| Seen { snapshot, reads: &reads }))
    }

    pub(super) fn place_seen(
        &self,
        keys: &[String],
        value: &[u8],
        seen: Option<Seen<'_>>,
    ) -> Result<Arc<Pending>> {
        let mut builder = Builder::default();
        for key in keys {
            builder.put(KEYSPACE, key.as_bytes(), value);
        }
        self.core.sequencer.commit(builder.finish(), &[], seen, Reach::local(Durability::Synced))
    }

    /// A commit of two rows that must succeed.
    pub(super) fn commits(&self, name: &str) {
        let pending = self.place(&[format!("{name}-a"), format!("{name}-b")]).unwrap();
        self.core.sequencer.wait(&pending, None).unwrap().unwrap();
        assert!(self.get(name, "a").is_some(), "{name} is acknowledged and not there");
    }

    fn get(&self, name: &str, row: &str) -> Option<seawall_wal::Slice> {
        let (view, lsn) = self.core.reads.now();
        self.core.reads.get(&view, lsn, KEYSPACE, format!("{name}-{row}").as_bytes()).unwrap()
    }

    /// Whoever reads sees exactly the commits below its position, each of them whole.
    pub(super) fn check(&self) {
        let snapshot = self.core.reads.snapshot(self.core.catalogue.instance(), false);
        let placed = self.log.placed();
        self.check_at(&snapshot.view().unwrap(), snapshot.lsn(), &placed);
    }

    fn check_at(&self, view: &View, lsn: Lsn, placed: &[Placed]) {
        for record in placed {
            let is_there = record.lsn + RECORD_BYTES <= lsn.0 && !record.is_withdrawn;
            for key in &record.keys {
                let found = self.core.reads.get(view, lsn, KEYSPACE, key).unwrap();
                let name = String::from_utf8_lossy(key);
                assert_eq!(
                    found.is_some(),
                    is_there,
                    "the row {name} of {} as seen at {lsn}: there, or lost",
                    record.lsn
                );
            }
        }
    }

    /// When all threads have ended: nobody else waits, and all is where it belongs.
    pub(super) fn finish(&self) {
        self.log.end();
        let mover = self.mover.lock().unwrap().take();
        mover.unwrap().join().unwrap();
        let left = self.core.sequencer.open_pending();
        assert!(left.is_empty(), "left in the queue: {left:?}");
        self.check();
    }
}

/// Waits for all threads; a panic of one is a panic of the test.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}
