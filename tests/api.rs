//! The public surface, used as embedders write it: every item under its name, with its types, from the facade alone.
//! A call that stops compiling here breaks somebody, and belongs into the CHANGELOG.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall::wal::{self, Disk};
use seawall::{
    Checkpoint, Compression, Cursor, Db, DbBuilder, Durability, Entry, Error, Event, EventListener,
    Isolation, KeyRange, Keyspace, KeyspaceOptions, Lsn, Progress, ReadMode, Readable, Result, Retainer,
    Runtime, Savepoint, Scan, Slice, Snapshot, Stats, Ticket, Transaction, TxOptions, ValueReader,
    VerifyReport, WriteBatch,
};
use std::future::Future;
use std::io::{self, Read};
use std::iter::FusedIterator;
use std::ops::{Bound, Deref, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn store() -> (Db, Keyspace) {
    let db = Db::builder("/store").disk(wal::SimDisk::new(1)).segment_bytes(256 << 10).open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    (db, ks)
}

/// Handles are owned, go to other threads, and may be shared.
#[test]
fn handles_are_owned_and_can_be_sent() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Db>();
    shared::<Keyspace>();
    shared::<Snapshot>();
    shared::<Slice>();
    shared::<wal::Wal>();
    sent::<Transaction>();
    sent::<Scan>();
    sent::<Cursor>();
    sent::<Ticket>();
    sent::<WriteBatch>();
    sent::<Error>();
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    is_error::<Error>();
    fn is_scan<T: Iterator<Item = Result<Entry>> + DoubleEndedIterator + FusedIterator>() {}
    is_scan::<Scan>();
    fn is_future<T: Future<Output = Result<Lsn>>>() {}
    is_future::<Ticket>();
}

#[test]
fn every_error_has_its_fields_and_words() {
    let path = PathBuf::from("file");
    let source = || io::Error::other("no");
    let io = Error::Io { op: "write", path: path.clone(), offset: Some(7), source: source() };
    let supported: RangeInclusive<u32> = 1..=2;
    let all = [
        io,
        Error::Conflict,
        Error::Deadlock,
        Error::LockTimeout,
        Error::NoSpace,
        Error::Poisoned(Arc::new(Error::Closed)),
        Error::CommitUnknown { lsn: Lsn(1) },
        Error::Corruption { file: path.clone(), offset: 0, lsn: Some(Lsn(1)), what: "torn".into() },
        Error::Locked { path, pid: Some(1) },
        Error::FormatVersion { found: 3, supported },
        Error::KeyspaceMissing("rows".into()),
        Error::SnapshotTooOld { oldest: Lsn(9) },
        Error::TooLarge { what: "key", len: 70_000, max: 65_535 },
        Error::BadInput("why".into()),
        Error::ReadOnly,
        Error::Closed,
    ];
    for error in &all {
        assert!(!error.to_string().is_empty() && !format!("{error:?}").is_empty());
        let is_lost = matches!(error, Error::Conflict | Error::Deadlock | Error::LockTimeout);
        assert_eq!(error.is_retryable(), is_lost, "{error:?}");
        assert_eq!(error.is_conflict(), matches!(error, Error::Conflict), "{error:?}");
        assert_eq!(error.is_outcome_unknown(), matches!(error, Error::CommitUnknown { .. }), "{error:?}");
    }
    assert!(std::error::Error::source(&all[0]).is_some());
}

#[test]
fn slices_ranges_and_choices() {
    let (_db, ks) = store();
    ks.insert(b"key", b"value").unwrap();
    let slice: Slice = ks.get(b"key").unwrap().unwrap();
    let bytes: &[u8] = slice.deref();
    assert_eq!((bytes, slice.as_ref(), &slice[1..2]), (&b"value"[..], &b"value"[..], &b"a"[..]));
    assert_eq!(format!("{slice:?}"), "b\"value\"");
    let detached: Slice = slice.detach();
    assert_eq!(Vec::from(detached), b"value");

    fn bounds(range: impl KeyRange) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let (from, to) = range.bounds();
        (from.map(<[u8]>::to_vec), to.map(<[u8]>::to_vec))
    }
    let (a, b) = (b"a".to_vec(), b"b".to_vec());
    assert_eq!(bounds(..), (Bound::Unbounded, Bound::Unbounded));
    assert_eq!(bounds("a".."b"), (Bound::Included(a.clone()), Bound::Excluded(b.clone())));
    assert_eq!(bounds("a"..="b"), (Bound::Included(a.clone()), Bound::Included(b.clone())));
    assert_eq!(bounds(a.clone()..), (Bound::Included(a.clone()), Bound::Unbounded));
    assert_eq!(bounds(.."b"), (Bound::Unbounded, Bound::Excluded(b.clone())));
    assert_eq!(bounds(..="b"), (Bound::Unbounded, Bound::Included(b.clone())));
    assert_eq!(
        bounds((Bound::Excluded("a"), Bound::Included("b"))),
        (Bound::Excluded(a), Bound::Included(b))
    );

    assert_eq!(Durability::default(), Durability::Synced);
    assert_ne!(Durability::Memory, Durability::Written);
    assert_eq!(Isolation::default(), Isolation::Serializable);
    assert_ne!(Isolation::Snapshot, Isolation::Serializable);
    assert_eq!((ReadMode::default(), ReadMode::Mapped), (ReadMode::Cached, ReadMode::Mapped));
    assert_eq!(Compression::default(), Compression::None);
    let _ = (Compression::Lz4, Compression::Zstd);
    let TxOptions { isolation, durability, read_only, retries_max, lock_timeout, .. } = TxOptions::default();
    assert_eq!(
        (isolation, durability, read_only, retries_max, lock_timeout),
        (None, None, false, None, None)
    );
    let _ = TxOptions { read_only: true, ..Default::default() };
    let KeyspaceOptions { compression, ttl, .. } = KeyspaceOptions::default();
    assert_eq!((compression, ttl), (Compression::None, None));
}

struct Silent;
impl EventListener for Silent {}

#[test]
fn a_store_is_built_with_every_choice() {
    let disk: Arc<dyn Disk> = wal::SimDisk::new(1);
    let runtime: Arc<dyn Runtime> = wal::OsRuntime::new();
    let builder: DbBuilder = Db::builder("/store")
        .create(true)
        .read_only(false)
        .durability(Durability::Written)
        .isolation(Isolation::Snapshot)
        .memory_budget(64 << 20)
        .log_bytes_max(256 << 20)
        .segment_bytes(1 << 20)
        .checkpoint_interval(Duration::from_secs(1))
        .snapshot_age_max(Duration::from_secs(60))
        .read_mode(ReadMode::Cached)
        .io(wal::Io::Auto)
        .disk(disk)
        .runtime(runtime)
        .events(Arc::new(Silent));
    let db: Db = builder.open().unwrap();
    let ks: Keyspace = db.keyspace_with("rows", KeyspaceOptions::default()).unwrap();
    assert_eq!(ks.name(), "rows");
    let missing: Option<Keyspace> = db.open_keyspace("missing").unwrap();
    assert!(missing.is_none());
    let names: Vec<String> = db.keyspaces();
    assert_eq!(names, ["rows"]);
    let recovery: &wal::Recovery = db.recovery();
    assert_eq!(recovery.records, 0);
    db.drop_keyspace(ks).unwrap();
    db.close().unwrap();
}

#[test]
fn a_directory_is_opened_by_its_path() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("api-{}", std::process::id()));
    let db = Db::open(&dir).unwrap();
    db.keyspace("rows").unwrap().insert("a", "1").unwrap();
    db.close().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn keyspaces_batches_and_tickets() {
    let (db, ks) = store();
    let lsn: Lsn = ks.insert("a", vec![1_u8]).unwrap();
    let removed: Lsn = ks.remove("b").unwrap();
    assert!(lsn < removed);
    let scan: Scan = ks.range("a".."b");
    assert_eq!(scan.count(), 1);
    assert_eq!(ks.prefix("a").rev().count(), 1);

    let mut batch = WriteBatch::new();
    batch.insert(&ks, "c", "3").remove(&ks, "a").remove_range(&ks, "x"..).add_i64(&ks, "n", 7);
    assert_eq!(batch.len(), 4);
    assert!(batch.byte_len() > 0);
    let copy: WriteBatch = batch.clone();
    let lsn: Lsn = db.write(copy.clone()).unwrap();
    let _: Lsn = db.write_with(copy, Durability::Memory).unwrap();
    let ticket: Ticket = db.write_pipelined(batch.clone()).unwrap();
    assert!(ticket.lsn() > lsn);
    let _: Lsn = ticket.wait().unwrap();
    let ticket = db.write_pipelined(batch.clone()).unwrap();
    let within: Option<Lsn> = ticket.wait_timeout(Duration::from_secs(30)).unwrap();
    assert!(within.is_some());
    let (sender, receiver) = std::sync::mpsc::channel();
    db.write_pipelined(batch.clone())
        .unwrap()
        .on_done(move |done: Result<Lsn>| sender.send(done.is_ok()).unwrap());
    assert!(receiver.recv_timeout(Duration::from_secs(30)).unwrap());
    let mut ticket = Box::pin(db.write_pipelined(batch.clone()).unwrap());
    let mut context = Context::from_waker(Waker::noop());
    let resolved: Result<Lsn> = loop {
        match ticket.as_mut().poll(&mut context) {
            Poll::Ready(resolved) => break resolved,
            Poll::Pending => std::thread::yield_now(),
        }
    };
    resolved.unwrap();
    batch.clear();
    assert_eq!(batch.len(), 0);
    assert_eq!(i64::from_le_bytes(ks.get("n").unwrap().unwrap()[..].try_into().unwrap()), 6 * 7);
    let _: Lsn = db.sync().unwrap();
}

/// A read helper is written once, for both.
fn all_reads(reader: &impl Readable, ks: &Keyspace) -> Result<()> {
    let found: Option<Slice> = reader.get(ks, "a")?;
    assert!(found.is_some());
    let many: Vec<Option<Slice>> = reader.multi_get(ks, &["a", "missing"])?;
    let value: Option<ValueReader> = reader.open_value(ks, "a")?;
    let mut text = String::new();
    value.unwrap().read_to_string(&mut text).unwrap();
    let first: Option<&[u8]> = many[0].as_deref();
    assert_eq!(first, Some(text.as_bytes()));
    assert!(many[0].is_some() && many[1].is_none());
    assert!(reader.contains_key(ks, b"b")?);
    let rows: Result<Vec<Entry>> = reader.range(ks, ..).collect();
    assert_eq!(rows?.len(), 3);
    assert_eq!(reader.prefix(ks, "c").count(), 1);
    let keys: Result<Vec<Slice>> = reader.range(ks, "b"..).keys().rev().collect();
    assert_eq!(keys?.len(), 2);
    let mut cursor: Cursor = reader.cursor(ks);
    cursor.seek("b")?;
    let next: Option<(&[u8], &[u8])> = cursor.next()?;
    assert_eq!(next, Some((&b"b"[..], &b"2"[..])));
    cursor.seek_for_prev("bb")?;
    assert_eq!(cursor.prev()?.map(|(key, _)| key), Some(&b"b"[..]));
    cursor.seek_last()?;
    assert!(cursor.peek()?.is_none());
    assert_eq!(cursor.prev()?.map(|(key, _)| key), Some(&b"c"[..]));
    cursor.seek_first()?;
    assert_eq!(cursor.peek()?.map(|(key, _)| key), Some(&b"a"[..]));
    Ok(())
}

#[test]
fn snapshots_and_transactions() {
    let (db, ks) = store();
    let mut tx: Transaction = db.begin();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        tx.insert(&ks, key, value).unwrap();
    }
    all_reads(&tx, &ks).unwrap();
    let _: Lsn = tx.commit().unwrap();
    let snapshot: Snapshot = db.snapshot();
    all_reads(&snapshot, &ks).unwrap();
    let _: (Lsn, Duration) = (snapshot.lsn(), snapshot.age());

    let mut tx = db.begin_with(TxOptions { isolation: Some(Isolation::Snapshot), ..Default::default() });
    tx.remove(&ks, "a").unwrap();
    let savepoint: Savepoint = tx.savepoint();
    tx.remove_range(&ks, "b"..).unwrap();
    tx.rollback_to(&savepoint).unwrap();
    assert!(tx.compare_and_set(&ks, "b", Some(b"2"), Some(b"22")).unwrap());
    assert!(!tx.compare_and_set(&ks, "b", None, None).unwrap());
    tx.add_i64(&ks, "n", -1).unwrap();
    let _: Option<Slice> = tx.get_untracked(&ks, "a").unwrap();
    let _: Option<Slice> = tx.get_for_update(&ks, "c").unwrap();
    let other: Keyspace = tx.create_keyspace("other", KeyspaceOptions::default()).unwrap();
    tx.drop_keyspace(&other).unwrap();
    assert!(!tx.is_doomed());
    let ticket: Ticket = {
        tx.set_durability(Durability::Written).set_durability(Durability::Synced);
        tx.commit_pipelined().unwrap()
    };
    ticket.wait().unwrap();
    db.begin().rollback();

    let value: usize = db.transact(|tx| Ok(tx.get(&ks, "b")?.map_or(0, |value| value.len()))).unwrap();
    assert_eq!(value, 2);
    #[derive(Debug, PartialEq)]
    enum Refused {
        Poor,
        Store(String),
    }
    impl From<Error> for Refused {
        fn from(error: Error) -> Refused {
            Refused::Store(error.to_string())
        }
    }
    let refused = db.try_transact(|tx| {
        tx.insert(&ks, "b", "0")?;
        Err::<(), _>(Refused::Poor)
    });
    assert_eq!(refused, Err(Refused::Poor));
}

#[test]
fn checkpoints_checks_and_figures() {
    let (db, ks) = store();
    ks.insert("a", "1").unwrap();
    let Checkpoint { lsn, path, bytes } = db.checkpoint().unwrap();
    assert!(lsn > Lsn(0) && path.ends_with("data") && bytes > 0);
    let mut last = Progress::default();
    let report: VerifyReport = db.verify(|progress: Progress| last = progress).unwrap();
    assert_eq!((last.done, report.rows), (last.total, 2), "the row, and its keyspace's in the catalogue");
    assert!(report.blocks > 0 && report.problems.is_empty());
    let stats: Stats = db.stats();
    assert!(stats.commits > 0 && stats.syncs > 0 && stats.disk_bytes > 0);
    let _: (Duration, &Vec<Retainer>) = (stats.oldest_snapshot_age, &stats.log_retained);
    for Retainer { who, lsn, bytes, age } in &stats.log_retained {
        let _: (&String, &Lsn, &u64, &Duration) = (who, lsn, bytes, age);
    }
    assert!(stats.to_prometheus().contains("seawall_commits_total"));
    db.resume().unwrap();
    db.close().unwrap();
    assert!(matches!(ks.get("a"), Err(Error::Closed)));
}

#[test]
fn events_have_their_fields() {
    let (took, age) = (Duration::from_secs(1), Duration::from_secs(2));
    for event in [
        Event::CheckpointDone { lsn: Lsn(1), took },
        Event::WriteStall { took },
        Event::SlowSync { took },
        Event::Poisoned { why: "why".to_owned() },
        Event::NoSpace,
        Event::SnapshotOld { age },
    ] {
        Silent.event(&event.clone());
        assert!(!format!("{event:?}").is_empty());
    }
}
