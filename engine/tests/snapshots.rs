//! What old snapshots hold in memory and on disk: counted exactly, and given up when it is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::{Db, DbBuilder, Error, Event, EventListener, Keyspace, Readable, WriteBatch};
use seawall_wal::{Disk, SimDisk, SimRuntime};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
/// The smallest budget there is: half of it is for deltas.
const BUDGET: usize = 1 << 20;

struct World {
    disk: Arc<SimDisk>,
    runtime: Arc<SimRuntime>,
    events: Arc<Ages>,
    db: Db,
    ks: Keyspace,
}

/// The ages of snapshots that had to give way.
#[derive(Default)]
struct Ages(Mutex<Vec<Duration>>);

impl EventListener for Ages {
    fn event(&self, event: &Event) {
        if let Event::SnapshotOld { age } = event {
            self.0.lock().unwrap().push(*age);
        }
    }
}

fn world_with(change: impl FnOnce(DbBuilder) -> DbBuilder) -> World {
    let (disk, runtime, events) = (SimDisk::new(1), SimRuntime::new(1), Arc::<Ages>::default());
    let builder = Db::builder("/store")
        .disk(disk.clone())
        .runtime(runtime.clone())
        .events(events.clone())
        .segment_bytes(256 << 10)
        .memory_budget(BUDGET)
        .snapshot_age_max(MINUTE)
        .background(false);
    let db = change(builder).open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    db.checkpoint().unwrap();
    World { disk, runtime, events, db, ks }
}

fn world() -> World {
    world_with(|builder| builder)
}

impl World {
    /// Overwrites the same rows, of `bytes` in all.
    fn write(&self, bytes: usize) {
        for n in 0..(bytes / 8192) as u32 {
            let mut batch = WriteBatch::new();
            batch.insert(&self.ks, n.to_be_bytes(), vec![n as u8; 8192]);
            self.db.write(batch).unwrap();
        }
    }

    fn delta_bytes(&self) -> (u64, u64) {
        let stats = self.db.stats();
        (stats.delta_bytes, stats.delta_pinned_bytes)
    }
}

#[test]
fn what_snapshots_pin_is_counted_once_and_exactly() {
    let world = world();
    assert_eq!(world.delta_bytes(), (0, 0));
    let first = world.db.snapshot();
    world.write(100 << 10);
    let (one, pinned) = world.delta_bytes();
    assert!(one > 90 << 10 && pinned == 0);
    let second = world.db.snapshot();
    world.db.checkpoint().unwrap();
    // Both hold the delta that was there when they were taken.
    assert_eq!(world.delta_bytes(), (one, one));
    world.write(50 << 10);
    let (two, pinned) = world.delta_bytes();
    assert!(two > one && pinned == one);
    world.db.checkpoint().unwrap();
    assert_eq!(world.delta_bytes(), (one, one), "nobody holds the second delta");
    drop(first);
    assert_eq!(world.delta_bytes(), (one, one));
    let scan = second.range(&world.ks, ..);
    drop(second);
    assert_eq!(world.delta_bytes(), (one, one), "the scan has it");
    drop(scan);
    assert_eq!(world.delta_bytes(), (0, 0));
}

#[test]
fn what_is_kept_for_validation_is_counted_until_nobody_needs_it() {
    let world = world();
    let transaction = world.db.begin();
    world.db.checkpoint().unwrap();
    world.write(100 << 10);
    let (bytes, _) = world.delta_bytes();
    world.db.checkpoint().unwrap();
    assert_eq!(world.delta_bytes(), (bytes, bytes));
    drop(transaction);
    world.db.checkpoint().unwrap();
    assert_eq!(world.delta_bytes(), (0, 0));
}

#[test]
fn beyond_the_budget_the_oldest_gives_way_by_its_age() {
    let world = world();
    world.write(360 << 10);
    let (first, _) = world.delta_bytes();
    let old = world.db.snapshot();
    let (mut scan, mut cursor) = (old.range(&world.ks, ..), old.cursor(&world.ks));
    assert!(scan.next().unwrap().is_ok() && cursor.next().unwrap().is_some());
    let mut transaction = world.db.begin();
    transaction.insert(&world.ks, "tx", "1").unwrap();
    world.db.checkpoint().unwrap();
    world.runtime.advance(MINUTE * 2);
    world.db.checkpoint().unwrap();
    assert!(old.get(&world.ks, 0_u32.to_be_bytes()).unwrap().is_some(), "there is memory enough");
    assert!(world.db.stats().oldest_snapshot_age >= MINUTE * 2);
    let young = world.db.snapshot();
    world.write(360 << 10);
    let (used, pinned) = world.delta_bytes();
    assert!(used > (BUDGET / 4 * 3) as u64 - (100 << 10) && pinned > 350 << 10);
    world.db.checkpoint().unwrap();

    let oldest = |result: Result<_, Error>| match result {
        Err(Error::SnapshotTooOld { oldest }) => oldest,
        Err(error) => panic!("{error}"),
        Ok(()) => panic!("it was too old to be read"),
    };
    assert_eq!(oldest(old.get(&world.ks, "x").map(drop)), young.lsn());
    assert_eq!(oldest(old.contains_key(&world.ks, "x").map(drop)), young.lsn());
    assert_eq!(oldest(old.clone().range(&world.ks, ..).next().unwrap().map(drop)), young.lsn());
    assert_eq!(oldest(scan.next().unwrap().map(drop)), young.lsn());
    assert!(scan.next().is_none(), "a scan ends after its error");
    assert_eq!(oldest(cursor.next().map(drop)), young.lsn());
    assert!(transaction.is_doomed());
    assert_eq!(oldest(transaction.get(&world.ks, "x").map(drop)), young.lsn());
    assert_eq!(oldest(transaction.commit().map(drop)), young.lsn());
    let told = world.events.0.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0] >= MINUTE * 2, "{told:?}");
    // What the old ones held is gone; the young one was taken before the second half was written.
    let (bytes, pinned) = world.delta_bytes();
    assert_eq!((bytes, pinned), (used - first, used - first));
    assert!(young.get(&world.ks, 0_u32.to_be_bytes()).unwrap().is_some());
    assert!(world.ks.get("tx").unwrap().is_none());
    let age = world.db.stats().oldest_snapshot_age;
    assert!(age < MINUTE, "{age:?}");
    drop(young);
    assert_eq!(world.delta_bytes(), (0, 0));
}

#[test]
fn young_snapshots_never_give_way() {
    let world = world();
    let young = world.db.snapshot();
    let transaction = world.db.begin();
    for _ in 0..4 {
        world.write(200 << 10);
        let _another = world.db.snapshot();
        world.db.checkpoint().unwrap();
    }
    assert_eq!(young.range(&world.ks, ..).count(), 0);
    assert!(transaction.get(&world.ks, "x").unwrap().is_none());
    assert!(world.events.0.lock().unwrap().is_empty());
}

/// A transaction that had to give way has lost its place among the others: it must not overwrite them.
#[test]
fn no_update_is_lost_to_a_transaction_that_was_too_old() {
    let world = world_with(|builder| builder.snapshot_age_max(Duration::ZERO));
    world.ks.insert("n", "1").unwrap();
    let mut old = world.db.begin();
    let before = old.get(&world.ks, "n").unwrap().unwrap();
    old.insert(&world.ks, "n", [&*before, b"!"].concat()).unwrap();
    world.ks.insert("n", "2").unwrap();
    world.write(800 << 10);
    world.db.checkpoint().unwrap();
    let error = old.commit().unwrap_err();
    assert!(matches!(error, Error::SnapshotTooOld { .. }) && !error.is_retryable(), "{error}");
    assert_eq!(world.ks.get("n").unwrap().unwrap(), "2");
}

/// On a full disk a checkpoint takes back what old snapshots hold there.
#[test]
fn a_full_disk_is_a_reason_to_give_way() {
    let world = world_with(|builder| builder.memory_budget(64 << 20).log_bytes_max(64 << 20));
    world.write(1 << 20);
    world.db.checkpoint().unwrap();
    let old = world.db.snapshot();
    // Each checkpoint writes the rows anew, beside those that the snapshot holds.
    for _ in 0..3 {
        world.write(1 << 20);
        world.db.checkpoint().unwrap();
    }
    assert!(old.get(&world.ks, 0_u32.to_be_bytes()).unwrap().is_some());
    let capacity = 1 << 30;
    world.disk.set_capacity(capacity);
    let used = capacity - world.disk.free_bytes(Path::new("/")).unwrap();
    world.disk.set_capacity(used + (1 << 20));
    world.runtime.advance(MINUTE);
    let mut rounds = 0_u32;
    while old.get(&world.ks, 0_u32.to_be_bytes()).is_ok() {
        rounds += 1;
        assert!(rounds < 100, "the disk never fills");
        // New rows, until neither log nor data file has room.
        match world.ks.insert((1000 + rounds).to_be_bytes(), vec![1; 64 << 10]) {
            Ok(_) | Err(Error::NoSpace) => drop(world.db.checkpoint()),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(rounds > 3, "there was room enough");
    assert_eq!(world.events.0.lock().unwrap().len(), 1);
    world.disk.set_capacity(u64::MAX);
    world.db.checkpoint().unwrap();
    assert_eq!(world.db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}
