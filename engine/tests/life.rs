//! Keyspaces' and stores' lives: creation, dropping, closing, full disks, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, clippy::disallowed_methods)]

use seawall_engine::{Db, DbBuilder, Durability, Error, Event, EventListener, Readable, WriteBatch};
use seawall_wal::disk::Open;
use seawall_wal::{Disk, SimDisk};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/dir/store").disk(disk.clone()).segment_bytes(256 << 10).background(false)
}

fn open(disk: &Arc<SimDisk>) -> Db {
    builder(disk).open().unwrap()
}

#[test]
fn a_keyspace_lives_from_its_creation_to_its_drop() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    assert!(db.open_keyspace("a").unwrap().is_none());
    let before = db.snapshot();
    let a = db.keyspace("a").unwrap();
    assert_eq!((a.name(), db.keyspaces()), ("a", vec!["a".to_owned()]));
    a.insert("k", "old").unwrap();
    assert!(matches!(before.get(&a, "k"), Err(Error::KeyspaceMissing(_))));
    let during = db.snapshot();
    let mut late = db.begin();
    late.insert(&a, "late", "1").unwrap();
    db.drop_keyspace(a.clone()).unwrap();
    assert!(matches!(a.get("k"), Err(Error::KeyspaceMissing(name)) if name == "a"));
    assert!(matches!(a.insert("k", "x"), Err(Error::KeyspaceMissing(_))));
    assert!(matches!(late.commit(), Err(Error::KeyspaceMissing(_))));
    assert!(matches!(a.range(..).next(), Some(Err(Error::KeyspaceMissing(_)))));
    assert!(matches!(db.drop_keyspace(a.clone()), Err(Error::KeyspaceMissing(_))));
    assert_eq!(during.get(&a, "k").unwrap().unwrap(), "old");
    let again = db.keyspace("a").unwrap();
    assert_eq!(again.get("k").unwrap(), None);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert_eq!(during.get(&a, "k").unwrap().unwrap(), "old");
    assert_eq!(during.range(&a, ..).count(), 1);
    again.insert("k", "new").unwrap();
    drop((before, during, a, again, db));
    let db = open(&disk);
    let a = db.open_keyspace("a").unwrap().unwrap();
    assert_eq!(a.get("k").unwrap().unwrap(), "new");
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn keyspaces_are_made_and_dropped_within_transactions() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let a = db.keyspace("a").unwrap();
    a.insert("k", "1").unwrap();
    let mut tx = db.begin();
    tx.drop_keyspace(&a).unwrap();
    assert!(matches!(tx.get(&a, "k"), Err(Error::KeyspaceMissing(_))));
    let b = tx.create_keyspace("a", Default::default()).unwrap();
    assert!(matches!(tx.create_keyspace("a", Default::default()), Err(Error::BadInput(_))));
    assert_eq!(tx.get(&b, "k").unwrap(), None);
    tx.insert(&b, "k", "2").unwrap();
    assert_eq!(tx.range(&b, ..).count(), 1);
    assert!(matches!(b.get("k"), Err(Error::KeyspaceMissing(_))));
    tx.commit().unwrap();
    assert_eq!(b.get("k").unwrap().unwrap(), "2");
    // A name is made by one only.
    let (mut one, mut two) = (db.begin(), db.begin());
    one.create_keyspace("n", Default::default()).unwrap();
    two.create_keyspace("n", Default::default()).unwrap();
    one.commit().unwrap();
    assert!(two.commit().unwrap_err().is_conflict());
    // One that was never committed cannot be written to.
    let mut tx = db.begin();
    let never = tx.create_keyspace("never", Default::default()).unwrap();
    tx.rollback();
    assert!(matches!(never.insert("k", "v"), Err(Error::KeyspaceMissing(_))));
    let survived = disk.crash();
    drop((a, b, never, db));
    let db = open(&survived);
    assert_eq!(db.keyspaces(), ["a", "n"]);
    assert_eq!(db.keyspace("a").unwrap().get("k").unwrap().unwrap(), "2");
}

#[test]
fn names_keys_and_values_have_their_limits() {
    let db = builder(&SimDisk::new(1)).memory_budget(8 << 20).open().unwrap();
    assert!(matches!(db.keyspace(""), Err(Error::BadInput(_))));
    assert!(matches!(db.keyspace(&"n".repeat(256)), Err(Error::TooLarge { .. })));
    let ks = db.keyspace(&"n".repeat(255)).unwrap();
    ks.insert(vec![1; 65_535], "v").unwrap();
    assert!(matches!(ks.insert(vec![1; 65_536], "v"), Err(Error::TooLarge { what: "key", .. })));
    assert!(matches!(ks.insert("k", vec![0; (16 << 20) + 1]), Err(Error::TooLarge { what: "value", .. })));
    let mut tx = db.begin();
    tx.insert(&ks, "a", vec![0; 1 << 20]).unwrap();
    assert!(matches!(
        tx.insert(&ks, "b", vec![0; 1 << 20]),
        Err(Error::TooLarge { what: "transaction", .. })
    ));
    tx.commit().unwrap();
    db.checkpoint().unwrap();
    assert_eq!(ks.get("a").unwrap().unwrap().len(), 1 << 20);
    assert_eq!(ks.get(vec![1; 65_535]).unwrap().unwrap(), "v");
}

#[test]
fn handles_of_another_store_are_refused() {
    let (one, two) = (open(&SimDisk::new(1)), open(&SimDisk::new(2)));
    let ks = one.keyspace("k").unwrap();
    two.keyspace("k").unwrap();
    assert!(matches!(two.snapshot().get(&ks, "x"), Err(Error::BadInput(_))));
    assert!(matches!(two.begin().insert(&ks, "x", "y"), Err(Error::BadInput(_))));
    let mut batch = WriteBatch::new();
    batch.insert(&ks, "x", "y");
    assert!(matches!(two.write(batch), Err(Error::BadInput(_))));
}

#[test]
fn after_close_everything_is_closed_but_snapshots() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let ks = db.keyspace("k").unwrap();
    ks.insert("a", "1").unwrap();
    let snapshot = db.snapshot();
    let mut tx = db.begin();
    tx.insert(&ks, "b", "2").unwrap();
    let clone = db.clone();
    db.close().unwrap();
    assert!(matches!(ks.get("a"), Err(Error::Closed)));
    assert!(matches!(ks.insert("a", "2"), Err(Error::Closed)));
    assert!(matches!(tx.commit(), Err(Error::Closed)));
    assert!(matches!(clone.checkpoint(), Err(Error::Closed)));
    assert!(matches!(clone.keyspace("k"), Err(Error::Closed)));
    assert_eq!(snapshot.get(&ks, "a").unwrap().unwrap(), "1");
    assert!(matches!(builder(&disk).open(), Err(Error::Locked { .. })));
    assert!(matches!(clone.close(), Err(Error::Closed)));
    drop((snapshot, ks));
    assert_eq!(open(&disk).keyspace("k").unwrap().get("a").unwrap().unwrap(), "1");
}

#[test]
fn a_panic_in_a_closure_rolls_back_and_goes_on() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let ks = db.keyspace("k").unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.transact(|tx| -> seawall_engine::Result<()> {
            tx.insert(&ks, "a", "1")?;
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(ks.get("a").unwrap(), None);
    ks.insert("a", "2").unwrap();
    // The last handle goes in a panic: no clean close, and nothing is lost.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _last = (db, ks);
        panic!("with the store open");
    }));
    assert!(panicked.is_err());
    assert_eq!(open(&disk).keyspace("k").unwrap().get("a").unwrap().unwrap(), "2");
}

#[test]
fn try_transact_keeps_its_own_error() {
    #[derive(Debug)]
    enum Mine {
        Db(#[allow(dead_code)] Error),
        No,
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Mine {
            Mine::Db(error)
        }
    }
    let db = open(&SimDisk::new(1));
    let ks = db.keyspace("k").unwrap();
    let refused = db.try_transact(|tx| -> Result<(), Mine> {
        tx.insert(&ks, "a", "1")?;
        Err(Mine::No)
    });
    assert!(matches!(refused, Err(Mine::No)));
    assert_eq!(ks.get("a").unwrap(), None);
    let mut runs = 0;
    db.try_transact(|tx| -> Result<(), Mine> {
        runs += 1;
        if runs < 3 {
            ks.insert("a", "other")?;
        }
        Ok(tx.insert(&ks, "a", "mine")?)
    })
    .unwrap();
    assert_eq!((runs, ks.get("a").unwrap().unwrap()), (3, "mine".as_bytes().to_vec().into()));
}

#[test]
fn a_second_opening_is_refused_and_a_missing_store_is_named() {
    let disk = SimDisk::new(1);
    let missing = builder(&disk).create(false).open().unwrap_err();
    assert!(matches!(&missing, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    let db = open(&disk);
    assert!(matches!(builder(&disk).open(), Err(Error::Locked { .. })));
    drop(db);
    let file = disk.open(Path::new("/dir/store/data.new"), Open::CreateNew);
    drop(file);
    drop(open(&disk));
}

#[test]
fn foreign_files_are_left_alone() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("/dir")).unwrap();
    disk.create_dir(Path::new("/dir/store")).unwrap();
    disk.open(Path::new("/dir/store/thesis.tex"), Open::CreateNew).unwrap();
    let refused = builder(&disk).open().unwrap_err();
    assert!(matches!(&refused, Error::BadInput(what) if what.contains("thesis.tex")));
}

#[test]
fn a_log_without_its_data_file_is_damage_and_a_data_file_without_its_log_too() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    db.keyspace("k").unwrap().insert("a", "1").unwrap();
    let copy = disk.crash_copy();
    drop(db);
    copy.remove(Path::new("/dir/store/data")).unwrap();
    assert!(matches!(builder(&copy).open(), Err(Error::Corruption { .. })));
    let names = disk.list(Path::new("/dir/store/log")).unwrap();
    for name in names {
        disk.remove(&Path::new("/dir/store/log").join(name)).unwrap();
    }
    assert!(builder(&disk).open().is_err());
}

#[test]
fn a_read_only_store_reads_what_is_there_and_writes_nothing() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let ks = db.keyspace("k").unwrap();
    ks.insert("folded", "1").unwrap();
    db.checkpoint().unwrap();
    ks.insert("logged", "2").unwrap();
    let disk = disk.crash();
    drop((db, ks));
    drop(open(&disk));
    let calls_that_write = |disk: &SimDisk| disk.counts();
    let before = calls_that_write(&disk);
    let db = builder(&disk).read_only(true).open().unwrap();
    let ks = db.open_keyspace("k").unwrap().unwrap();
    assert_eq!(ks.range(..).count(), 2);
    assert!(matches!(ks.insert("x", "y"), Err(Error::ReadOnly)));
    assert!(matches!(db.keyspace("new"), Err(Error::ReadOnly)));
    assert!(matches!(db.checkpoint(), Err(Error::ReadOnly)));
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
    drop((ks, db));
    assert_eq!(before, calls_that_write(&disk));
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl EventListener for Seen {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

#[test]
fn a_full_disk_promises_nothing_loses_nothing_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(3);
    let seen = Arc::new(Seen::default());
    let db = builder(&disk).events(seen.clone()).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    disk.set_capacity(3 << 20);
    let mut written = 0_u64;
    let full = loop {
        match ks.insert(written.to_be_bytes(), vec![written as u8; 4000]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::NoSpace), "{full}");
    assert!(written > 20);
    let check = |db: &Db| {
        let ks = db.keyspace("k").unwrap();
        for n in 0..written {
            assert_eq!(ks.get(n.to_be_bytes()).unwrap().unwrap(), vec![n as u8; 4000]);
        }
    };
    check(&db);
    match db.checkpoint() {
        Ok(_) | Err(Error::NoSpace) => {}
        Err(error) => panic!("{error}"),
    }
    check(&db);
    disk.set_capacity(1 << 30);
    db.resume().unwrap();
    ks.insert("more", "1").unwrap();
    db.checkpoint().unwrap();
    check(&db);
    assert!(seen.0.lock().unwrap().iter().any(|event| event == "NoSpace"));
    assert!(seen.0.lock().unwrap().iter().any(|event| event.starts_with("CheckpointDone")));
    let survived = disk.crash();
    drop((ks, db));
    let db = open(&survived);
    check(&db);
    assert_eq!(db.keyspace("k").unwrap().get("more").unwrap().unwrap(), "1");
}

#[test]
fn a_log_that_found_no_room_goes_on_in_place() {
    use seawall_wal::disk::sim::{Fault, Op};
    let disk = SimDisk::new(3);
    let seen = Arc::new(Seen::default());
    let db = builder(&disk).events(seen.clone()).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    ks.insert("a", "1").unwrap();
    let mut batch = WriteBatch::new();
    batch.insert(&ks, "memory", "1");
    db.write_with(batch, Durability::Memory).unwrap();
    let mut late = db.begin();
    assert_eq!(late.get(&ks, "b").unwrap(), None);
    late.insert(&ks, "late", "1").unwrap();
    disk.fail(Fault::full(Op::WriteDurable).path_contains(".log").forever());
    disk.fail(Fault::full(Op::Write).path_contains(".log").forever());
    let unknown = ks.insert("b", "2").unwrap_err();
    assert!(unknown.is_outcome_unknown(), "{unknown}");
    let refused = ks.insert("c", "3").unwrap_err();
    assert!(matches!(&refused, Error::Poisoned(cause) if matches!(**cause, Error::NoSpace)), "{refused}");
    assert!(refused.to_string().contains("resume"), "{refused}");
    assert_eq!(ks.get("memory").unwrap().unwrap(), "1", "what was shown stays");
    assert_eq!(ks.get("b").unwrap(), None);
    for _ in 0..2 {
        assert!(matches!(db.resume(), Err(Error::NoSpace)));
        assert!(matches!(db.checkpoint(), Err(Error::Poisoned(_))));
    }
    disk.clear_faults();
    db.resume().unwrap();
    // Whose outcome was open is there, and those who did not see it are in conflict with it.
    assert_eq!(ks.get("b").unwrap().unwrap(), "2");
    assert!(late.commit().unwrap_err().is_conflict());
    ks.insert("c", "3").unwrap();
    let check = |db: &Db| {
        let ks = db.keyspace("k").unwrap();
        let found: Vec<_> = ks.range(..).map(|row| row.unwrap().0.to_vec()).collect();
        assert_eq!(found, [&b"a"[..], b"b", b"c", b"memory"]);
    };
    check(&db);
    check(&open(&disk.crash_copy()));
    db.checkpoint().unwrap();
    // And again: it may happen more than once, and is told each time.
    disk.fail(Fault::full(Op::WriteDurable).path_contains(".log"));
    assert!(ks.insert("a", "2").unwrap_err().is_outcome_unknown());
    db.resume().unwrap();
    assert_eq!(ks.get("a").unwrap().unwrap(), "2");
    assert_eq!(seen.0.lock().unwrap().iter().filter(|event| event.starts_with("Poisoned")).count(), 2);
    // But not beside a failure that only reopening mends.
    disk.fail(Fault::full(Op::WriteDurable).path_contains(".log"));
    assert!(ks.insert("a", "3").unwrap_err().is_outcome_unknown());
    disk.fail(Fault::eio(Op::WriteDurable).path_contains(".log"));
    assert!(matches!(db.resume(), Err(Error::Poisoned(_))));
    assert!(matches!(db.resume(), Err(Error::Poisoned(cause)) if !matches!(*cause, Error::NoSpace)));
    let survived = disk.crash();
    drop((ks, db));
    check(&open(&survived));
}

#[test]
fn a_failed_sync_poisons_writes_and_leaves_reads() {
    let disk = SimDisk::new(3);
    let seen = Arc::new(Seen::default());
    let db = builder(&disk).events(seen.clone()).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    ks.insert("a", "1").unwrap();
    disk.fail(seawall_wal::disk::sim::Fault::eio(seawall_wal::disk::sim::Op::Sync));
    let failed = db.checkpoint();
    disk.clear_faults();
    let cause = failed.unwrap_err();
    assert!(matches!(ks.insert("b", "2"), Err(Error::Poisoned(_))), "{cause}");
    assert!(matches!(db.checkpoint(), Err(Error::Poisoned(_))));
    assert!(matches!(db.resume(), Err(Error::Poisoned(_))));
    assert_eq!(ks.get("a").unwrap().unwrap(), "1");
    assert_eq!(seen.0.lock().unwrap().iter().filter(|event| event.starts_with("Poisoned")).count(), 1);
    let survived = disk.crash();
    drop((ks, db));
    assert_eq!(open(&survived).keyspace("k").unwrap().get("a").unwrap().unwrap(), "1");
}

/// A commit whose write fails is unknown, invisible, and the store says so.
#[test]
fn a_failed_log_write_leaves_the_outcome_open() {
    let disk = SimDisk::new(3);
    let db = open(&disk);
    let ks = db.keyspace("k").unwrap();
    ks.insert("a", "1").unwrap();
    disk.fail(seawall_wal::disk::sim::Fault::eio(seawall_wal::disk::sim::Op::WriteDurable));
    let unknown = ks.insert("a", "2").unwrap_err();
    assert!(unknown.is_outcome_unknown(), "{unknown}");
    assert_eq!(ks.get("a").unwrap().unwrap(), "1");
    assert!(matches!(ks.insert("a", "3"), Err(Error::Poisoned(_))));
}

#[test]
fn tickets_resolve_by_wait_by_future_and_by_callback() {
    let db = Db::builder("/dir/store").disk(SimDisk::new(1)).segment_bytes(256 << 10).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    let batch = |key: &str| {
        let mut batch = WriteBatch::new();
        batch.insert(&ks, key, "v");
        batch
    };
    let ticket = db.write_pipelined(batch("a")).unwrap();
    let lsn = ticket.lsn();
    assert_eq!(ticket.wait().unwrap(), lsn);
    assert!(ks.get("a").unwrap().is_some());
    let called = Arc::new(AtomicU64::new(0));
    for n in 0..50 {
        let called = called.clone();
        let ticket = db.write_pipelined(batch(&n.to_string())).unwrap();
        ticket.on_done(move |result| {
            result.unwrap();
            called.fetch_add(1, Ordering::SeqCst);
        });
    }
    let mut ticket = Box::pin(db.write_pipelined(batch("future")).unwrap());
    let mut context = Context::from_waker(Waker::noop());
    while ticket.as_mut().poll(&mut context).is_pending() {
        std::thread::yield_now();
    }
    // Visible in order: all before are told, at the latest once the next commit is through.
    db.sync().unwrap();
    while called.load(Ordering::SeqCst) < 50 {
        std::thread::yield_now();
    }
    let mut tx = db.begin();
    tx.set_durability(Durability::Memory);
    tx.insert(&ks, "tx", "v").unwrap();
    assert!(
        tx.commit_pipelined().unwrap().wait_timeout(std::time::Duration::from_secs(10)).unwrap().is_some()
    );
    assert!(db.begin().commit_pipelined().unwrap().wait().is_ok());
}

/// An idle log is written by itself now and then: the fewest flushes of several runs count.
#[test]
fn tickets_that_are_held_share_a_flush() {
    let db = Db::builder("/dir/store").disk(SimDisk::new(1)).segment_bytes(256 << 10).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    let flushes = || {
        db.sync().unwrap();
        let (before, called) = (db.stats().syncs, Arc::new(AtomicU64::new(0)));
        let held = db.hold_tickets();
        for n in 0..50_u8 {
            let mut batch = WriteBatch::new();
            batch.insert(&ks, [n], "v");
            let called = called.clone();
            db.write_pipelined(batch).unwrap().on_done(move |result| {
                result.unwrap();
                called.fetch_add(1, Ordering::SeqCst);
            });
        }
        drop(held);
        while called.load(Ordering::SeqCst) < 50 {
            std::thread::yield_now();
        }
        db.stats().syncs - before
    };
    assert!((0..200).any(|_| flushes() == 1));
}

/// Several hold and let go at once, again and again: no ticket is forgotten.
#[test]
fn who_lets_go_of_tickets_sees_to_all_of_them() {
    let db = Db::builder("/dir/store").disk(SimDisk::new(1)).segment_bytes(256 << 10).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (db, ks) = (&db, &ks);
            scope.spawn(move || {
                for n in 0..300_u16 {
                    let held = (n % 3 > 0).then(|| db.hold_tickets());
                    let mut batch = WriteBatch::new();
                    batch.insert(ks, [thread, n as u8], "v");
                    let (sender, receiver) = std::sync::mpsc::channel();
                    db.write_pipelined(batch)
                        .unwrap()
                        .on_done(move |done| sender.send(done.is_ok()).unwrap());
                    drop(held);
                    assert!(receiver.recv_timeout(std::time::Duration::from_secs(60)).unwrap());
                }
            });
        }
    });
}

/// Idle keyspaces, and an idle store, do not keep the log (bug class 40).
#[test]
fn the_log_is_given_back_whoever_is_idle() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let (busy, idle) = (db.keyspace("busy").unwrap(), db.keyspace("idle").unwrap());
    idle.insert("once", "1").unwrap();
    for n in 0..400_u32 {
        busy.insert(n.to_be_bytes(), vec![0; 4000]).unwrap();
        if n % 50 == 0 {
            db.checkpoint().unwrap();
        }
    }
    db.checkpoint().unwrap();
    let stats = db.stats();
    assert!(stats.log_bytes <= 3 * (256 << 10), "{} bytes of log kept", stats.log_bytes);
    assert_eq!(stats.checkpoint_lsn, stats.visible_lsn);
    assert!(stats.checkpoints >= 8 && stats.delta_bytes == 0);
    assert_eq!(idle.get("once").unwrap().unwrap(), "1");
    assert_eq!(db.checkpoint().unwrap().bytes, 0, "nothing to do");
}

/// Replay folds when memory is over, as often as needed.
#[test]
fn replay_stays_within_its_memory() {
    let disk = SimDisk::new(1);
    let db = builder(&disk).memory_budget(64 << 20).open().unwrap();
    let (ks, gone) = (db.keyspace("k").unwrap(), db.keyspace("gone").unwrap());
    for n in 0..1500_u32 {
        let mut batch = WriteBatch::new();
        batch.insert(&ks, (n % 700).to_be_bytes(), vec![n as u8; 4000]);
        if n < 1200 {
            batch.insert(&gone, n.to_be_bytes(), "x");
        }
        db.write_with(batch, Durability::Memory).unwrap();
    }
    db.drop_keyspace(gone).unwrap();
    let survived = disk.crash();
    drop((ks, db));
    let db = builder(&survived).memory_budget(2 << 20).open().unwrap();
    assert!(db.stats().checkpoint_bytes > 0 && db.stats().delta_bytes <= (2 << 20) / 4 * 3);
    let ks = db.keyspace("k").unwrap();
    for n in 800..1500_u32 {
        assert_eq!(ks.get((n % 700).to_be_bytes()).unwrap().unwrap(), vec![n as u8; 4000]);
    }
    assert_eq!(db.keyspaces(), ["k"]);
    db.checkpoint().unwrap();
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}

/// The real disk, with its background threads, and more written than memory holds.
#[test]
fn the_machines_own_disk_with_writers_that_outrun_memory() {
    let dir = std::env::temp_dir().join(format!("seawall-engine-life-{}", std::process::id()));
    let db = Db::builder(&dir).segment_bytes(1 << 20).memory_budget(2 << 20).open().unwrap();
    let ks = db.keyspace("k").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3_u32 {
            let (db, ks) = (&db, &ks);
            scope.spawn(move || {
                for n in 0..60_u32 {
                    let mut batch = WriteBatch::new();
                    for row in 0..40_u32 {
                        batch.insert(ks, [thread, n, row].map(u32::to_be_bytes).concat(), vec![n as u8; 500]);
                    }
                    db.write_with(batch, Durability::Written).unwrap();
                }
            });
        }
    });
    assert!(db.stats().checkpoints > 0);
    assert_eq!(ks.range(..).count(), 3 * 60 * 40);
    db.close().unwrap();
    drop(ks);
    let db = Db::builder(&dir).create(false).open().unwrap();
    let ks = db.open_keyspace("k").unwrap().unwrap();
    assert_eq!(ks.range(..).rev().count(), 3 * 60 * 40);
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
    drop((ks, db));
    std::fs::remove_dir_all(dir).unwrap();
}
