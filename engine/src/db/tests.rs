//! Keyspaces and the options that they were made with.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::record::{Builder, Compression};
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
    db.core().commit(builder.finish(), &[], None, Durability::Synced).unwrap();
    for checkpoint in [false, true] {
        if checkpoint {
            db.checkpoint().unwrap();
        }
        let again = open(&disk.crash_copy());
        assert_eq!(again.keyspaces(), ["dense", "plain"]);
        assert!(again.keyspace("plain").unwrap().get("a").unwrap().is_some());
        for opened in [again.keyspace("dense").map(Some), again.open_keyspace("dense")] {
            assert!(matches!(opened, Err(Error::BadInput(what)) if what.contains("Zstandard")));
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
