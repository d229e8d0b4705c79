//! Every event, brought about for real, and listeners that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

use seawall_engine::{Db, DbBuilder, Durability, Error, Event, EventListener, Keyspace, WriteBatch};
use seawall_wal::disk::sim::{Fault, Op};
use seawall_wal::{SimDisk, SimRuntime};
use std::mem::{Discriminant, discriminant};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps what it is told.
#[derive(Default)]
struct Told {
    events: Mutex<Vec<Event>>,
    more: Condvar,
}

impl EventListener for Told {
    fn event(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
        self.more.notify_all();
    }
}

impl Told {
    /// Waits for one that fits, and gives what is taken from it.
    fn wait_for<T>(&self, mut fits: impl FnMut(&Event) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut events = self.events.lock().unwrap();
        loop {
            if let Some(found) = events.iter().find_map(&mut fits) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not among {events:?}");
            events = self.more.wait_timeout(events, left).unwrap().0;
        }
    }

    fn count(&self, kind: Discriminant<Event>) -> usize {
        self.events.lock().unwrap().iter().filter(|event| discriminant(*event) == kind).count()
    }
}

fn builder(disk: &Arc<SimDisk>, listener: Arc<dyn EventListener>) -> DbBuilder {
    Db::builder("/store").disk(disk.clone()).segment_bytes(256 << 10).memory_budget(1 << 20).events(listener)
}

fn fill(db: &Db, ks: &Keyspace, bytes: usize) {
    for n in 0..(bytes / 8192) as u32 {
        let mut batch = WriteBatch::new();
        batch.insert(ks, n.to_be_bytes(), vec![n as u8; 8192]);
        db.write_with(batch, Durability::Memory).unwrap();
    }
}

#[test]
fn a_checkpoint_says_how_far_it_came() {
    let told = Arc::new(Told::default());
    let db = builder(&SimDisk::new(1), told.clone()).open().unwrap();
    db.keyspace("k").unwrap().insert("a", "1").unwrap();
    let made = db.checkpoint().unwrap();
    told.wait_for(|event| {
        matches!(event, Event::CheckpointDone { lsn, .. } if *lsn == made.lsn).then_some(())
    });
}

/// A checkpoint that does not come to its end holds up a writer, who is told of when it does.
#[test]
fn a_writer_that_waited_for_memory_says_how_long() {
    let told = Arc::new(Told::default());
    let held = Arc::new((AtomicBool::new(true), AtomicU64::new(0)));
    let hold = Arc::clone(&held);
    let db = builder(&SimDisk::new(1), told.clone())
        .on_stage(Arc::new(move |_| {
            hold.1.fetch_add(1, Ordering::AcqRel);
            while hold.0.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }))
        .open()
        .unwrap();
    let wait = Duration::from_millis(150);
    std::thread::scope(|scope| {
        scope.spawn(|| fill(&db, &db.keyspace("k").unwrap(), 2 << 20));
        let until = Instant::now() + PATIENCE;
        while held.1.load(Ordering::Acquire) == 0 {
            assert!(Instant::now() < until, "no checkpoint began");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(wait * 4);
        held.0.store(false, Ordering::Release);
    });
    let took = told.wait_for(|event| match event {
        Event::WriteStall { took } => Some(*took),
        _ => None,
    });
    assert!(took >= wait && took < PATIENCE, "{took:?}");
}

/// (A slow one takes a second, or, in the engine's own tests, a millisecond: `a_slow_write_of_the_log_is_an_event`.)
#[test]
fn a_full_device_and_a_failing_one_are_told() {
    let (disk, told) = (SimDisk::new(1), Arc::new(Told::default()));
    let db = builder(&disk, told.clone()).background(false).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    assert_eq!(told.count(discriminant(&Event::NoSpace)), 0);

    disk.set_capacity(3 << 20);
    let refused = (0..4000_u32).find_map(|n| ks.insert(n.to_be_bytes(), [0; 4000]).err());
    assert!(matches!(refused, Some(Error::NoSpace)), "{refused:?}");
    told.wait_for(|event| matches!(event, Event::NoSpace).then_some(()));
    disk.set_capacity(1 << 30);
    db.resume().unwrap();

    disk.fail(Fault::eio(Op::WriteDurable).path_contains("/log/"));
    assert!(ks.insert("b", "2").unwrap_err().is_outcome_unknown());
    for _ in 0..3 {
        assert!(matches!(ks.insert("c", "3"), Err(Error::Poisoned(_))));
    }
    let why = told.wait_for(|event| match event {
        Event::Poisoned { why } => Some(why.clone()),
        _ => None,
    });
    assert!(!why.is_empty());
    assert_eq!(told.count(discriminant(&Event::Poisoned { why })), 1, "once");
}

#[test]
fn a_snapshot_that_had_to_give_way_is_told_with_its_age() {
    let (runtime, told) = (SimRuntime::new(1), Arc::new(Told::default()));
    let db = builder(&SimDisk::new(1), told.clone())
        .runtime(runtime.clone())
        .snapshot_age_max(Duration::from_secs(60))
        .background(false)
        .open()
        .unwrap();
    let ks = db.keyspace("k").unwrap();
    fill(&db, &ks, 700 << 10);
    let old = db.snapshot();
    db.checkpoint().unwrap();
    runtime.advance(Duration::from_secs(120));
    let young = db.snapshot();
    fill(&db, &ks, 700 << 10);
    db.checkpoint().unwrap();
    let age = told.wait_for(|event| match event {
        Event::SnapshotOld { age } => Some(*age),
        _ => None,
    });
    assert!(age >= Duration::from_secs(60), "{age:?}");
    drop((old, young));
}

/// Panics at every event, having counted it.
#[derive(Default)]
struct Panicking(AtomicU64);

impl EventListener for Panicking {
    fn event(&self, _: &Event) {
        self.0.fetch_add(1, Ordering::AcqRel);
        panic!("a listener of a test");
    }
}

#[test]
fn a_listener_that_panics_misses_that_event_alone() {
    for background in [true, false] {
        let (disk, listener) = (SimDisk::new(1), Arc::new(Panicking::default()));
        let db = builder(&disk, listener.clone()).background(background).open().unwrap();
        let ks = db.keyspace("k").unwrap();
        for n in 0..5_u32 {
            ks.insert(n.to_be_bytes(), "v").unwrap();
            db.checkpoint().unwrap();
        }
        let survived = disk.crash_copy();
        drop(ks);
        db.close().unwrap();
        assert!(listener.0.load(Ordering::Acquire) >= 5);
        let again = builder(&survived, Arc::new(Told::default())).open().unwrap();
        assert_eq!(again.keyspace("k").unwrap().range(..).count(), 5);
    }
}

/// Does not return from its first event until it may.
#[derive(Default)]
struct Hanging {
    is_free: Mutex<bool>,
    freed: Condvar,
    told: AtomicU64,
}

impl EventListener for Hanging {
    fn event(&self, _: &Event) {
        let mut is_free = self.is_free.lock().unwrap();
        while !*is_free {
            is_free = self.freed.wait(is_free).unwrap();
        }
        self.told.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn a_listener_that_hangs_holds_up_no_commit_no_checkpoint_and_no_end() {
    let (disk, listener) = (SimDisk::new(1), Arc::new(Hanging::default()));
    let db = builder(&disk, listener.clone()).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    let started = Instant::now();
    for n in 0..1100_u32 {
        ks.insert(n.to_be_bytes(), "v").unwrap();
        db.checkpoint().unwrap();
    }
    let dropped = db.stats().events_dropped;
    // One is being told, 1,024 wait.
    assert!((1100 - 1025..1100).contains(&dropped), "{dropped}");
    let before = Instant::now();
    drop(ks);
    db.close().unwrap();
    assert!(before.elapsed() < Duration::from_secs(10) && started.elapsed() < PATIENCE * 4);
    assert_eq!(listener.told.load(Ordering::Acquire), 0);
    *listener.is_free.lock().unwrap() = true;
    listener.freed.notify_all();
    // What waited is told even so, once it can be.
    let until = Instant::now() + PATIENCE;
    while listener.told.load(Ordering::Acquire) < 1025 {
        assert!(Instant::now() < until, "{:?} told", listener.told);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn closing_tells_what_is_still_to_be_told() {
    struct Slow(AtomicU64);
    impl EventListener for Slow {
        fn event(&self, _: &Event) {
            std::thread::sleep(Duration::from_millis(10));
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
    let listener = Arc::new(Slow(AtomicU64::new(0)));
    let db = builder(&SimDisk::new(1), listener.clone()).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    for n in 0..10_u32 {
        ks.insert(n.to_be_bytes(), "v").unwrap();
        db.checkpoint().unwrap();
    }
    drop(ks);
    db.close().unwrap();
    assert!(listener.0.load(Ordering::Acquire) >= 10);
}
