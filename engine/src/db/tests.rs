//! Keyspaces and the options that they were made with.
#![allow(clippy::unwrap_used)]

use super::*;
#[cfg(not(feature = "zstd"))]
use crate::record::Builder;
use crate::record::Compression;
use seawall_wal::SimDisk;

fn open(disk: &Arc<SimDisk>) -> Db {
    Db::builder("/store").disk(disk.clone()).segment_bytes(64 << 10).background(false).open().unwrap()
}

#[test]
fn options_are_kept_and_what_is_not_there_yet_makes_nothing() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let plain = KeyspaceOptions::default();
    assert_eq!(*db.keyspace("plain").unwrap().options(), plain);
    let ttl = Some(Duration::from_secs(60));
    let dense = KeyspaceOptions { compression: Compression::Zstd, ttl: None };
    let others = [KeyspaceOptions { ttl, ..plain.clone() }, dense];
    for options in others.into_iter().filter(|options| options.check().is_err()) {
        for name in ["plain", "other"] {
            let refused = db.keyspace_with(name, options.clone());
            let says_why = |what: &str| what.contains("not there yet") || what.contains("`zstd`");
            assert!(matches!(refused, Err(Error::BadInput(what)) if says_why(&what)));
        }
        let mut transaction = db.begin();
        assert!(matches!(transaction.create_keyspace("other", options), Err(Error::BadInput(_))));
        transaction.commit().unwrap();
    }
    assert_eq!(db.keyspaces(), ["plain"]);
    db.keyspace_with("plain", plain.clone()).unwrap().insert("a", "1").unwrap();
    for checkpoint in [false, true] {
        if checkpoint {
            db.checkpoint().unwrap();
        }
        let again = open(&disk.crash_copy());
        let keyspace = again.keyspace_with("plain", plain.clone()).unwrap();
        assert_eq!(
            (keyspace.options(), keyspace.get("a").unwrap().unwrap()),
            (&plain, "1".as_bytes().to_vec().into())
        );
    }
}

/// Options outlive checkpoints, crashes, and a drop with another keyspace of the name.
#[test]
fn a_compressed_keyspace_stays_one() {
    let disk = SimDisk::new(3);
    let db = open(&disk);
    let lz4 = KeyspaceOptions { compression: Compression::Lz4, ttl: None };
    let row = |n: u32| (format!("{n:05}"), format!("{{\"name\": \"visitor\", \"number\": {n}}}"));
    let leaves = |db: &Db| {
        let report = db.verify(|_| {}).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        report.leaves_compressed
    };
    for round in 0..2 {
        let dense = db.keyspace_with("dense", lz4.clone()).unwrap();
        (0..3000).map(row).for_each(|(key, value)| _ = dense.insert(key, value).unwrap());
        for checkpoint in [false, true] {
            if checkpoint {
                db.checkpoint().unwrap();
            }
            let again = open(&disk.crash_copy());
            let found = again.keyspace("dense").unwrap();
            assert_eq!(*found.options(), lz4);
            assert!(matches!(
                again.keyspace_with("dense", KeyspaceOptions::default()),
                Err(Error::BadInput(_))
            ));
            // A checkpoint of the store that was opened again knows it, too.
            found.insert("00000", "changed").unwrap();
            again.checkpoint().unwrap();
            assert_eq!(found.get("00000").unwrap().unwrap(), "changed".as_bytes());
            assert_eq!(found.get("02999").unwrap().unwrap(), row(2999).1.as_bytes());
            assert!(leaves(&again) > 3, "round {round}");
        }
        db.drop_keyspace(dense).unwrap();
        let plain = db.keyspace("dense").unwrap();
        (0..3000).map(row).for_each(|(key, value)| _ = plain.insert(key, value).unwrap());
        db.checkpoint().unwrap();
        assert_eq!(leaves(&db), 0);
        db.drop_keyspace(plain).unwrap();
    }
}

/// What a build with other features has made is refused by name, and the rest of the store is there. With rows of it still
/// in the log, which could not be stored, the store does not open.
#[cfg(not(feature = "zstd"))]
#[test]
fn rows_that_this_build_cannot_store_keep_the_store_shut() {
    let disk = SimDisk::new(4);
    let db = open(&disk);
    db.keyspace("plain").unwrap().insert("a", "1").unwrap();
    let options = KeyspaceOptions { compression: Compression::Zstd, ttl: None };
    let mut builder = Builder::default();
    builder.create_keyspace(77, "dense", &CatalogueRow::new(77, options).encode());
    builder.put(77, b"key", b"value");
    db.core().commit(builder.finish(), &[], None, Reach::local(Durability::Synced)).unwrap();
    assert!(matches!(db.checkpoint(), Err(Error::BadInput(what)) if what.contains("`zstd`")));
    let disk = disk.crash_copy();
    let again = Db::builder("/store").disk(disk.clone()).background(false).open();
    assert!(
        matches!(again, Err(Error::BadInput(what)) if what.contains("keyspace 77") && what.contains("`zstd`"))
    );
    let reader = Db::builder("/store").disk(disk).read_only(true).background(false).open().unwrap();
    assert!(reader.keyspace("plain").unwrap().get("a").unwrap().is_some());
}

/// What another build has made is refused by name, and the rest of the store is there.
#[cfg(not(feature = "zstd"))]
#[test]
fn a_keyspace_that_this_build_cannot_keep_is_refused_alone() {
    let disk = SimDisk::new(2);
    let db = open(&disk);
    db.keyspace("plain").unwrap().insert("a", "1").unwrap();
    let options = KeyspaceOptions { compression: Compression::Zstd, ttl: None };
    let mut builder = Builder::default();
    builder.create_keyspace(77, "dense", &CatalogueRow::new(77, options).encode());
    db.core().commit(builder.finish(), &[], None, Reach::local(Durability::Synced)).unwrap();
    for checkpoint in [false, true] {
        if checkpoint {
            db.checkpoint().unwrap();
        }
        let again = open(&disk.crash_copy());
        assert_eq!(again.keyspaces(), ["dense", "plain"]);
        assert!(again.keyspace("plain").unwrap().get("a").unwrap().is_some());
        for opened in [again.keyspace("dense").map(Some), again.open_keyspace("dense")] {
            assert!(matches!(opened, Err(Error::BadInput(what)) if what.contains("`zstd`")));
        }
    }
}

#[test]
fn a_slow_write_of_the_log_is_an_event() {
    use crate::{Event, EventListener};
    use seawall_wal::{Fault, SimRuntime, disk::sim::Op};

    #[derive(Default)]
    struct Slow(crate::sync::Mutex<Vec<Duration>>);
    impl EventListener for Slow {
        fn event(&self, event: &Event) {
            if let Event::SlowSync { took } = event {
                self.0.lock().push(*took);
            }
        }
    }
    let runtime = SimRuntime::new(1);
    let disk = SimDisk::with_runtime(1, runtime.clone());
    let slow = Arc::new(Slow::default());
    let builder = Db::builder("/store").disk(disk.clone()).runtime(runtime).events(slow.clone());
    let db = builder.segment_bytes(64 << 10).background(false).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    rows.insert("a", "1").unwrap();
    assert!(slow.0.lock().is_empty());
    disk.fail(Fault::slow(Op::WriteDurable).path_contains("/log/"));
    rows.insert("a", "2").unwrap();
    assert_eq!(slow.0.lock().len(), 1);
}
