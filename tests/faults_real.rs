//! What goes wrong in ordinary use, on the real file system, through the library and through the command: the wrong
//! directory, a store in use, a newer format, directories that cannot be written, full disks, files that were moved
//! about, rows that are too large, a panic in the program's own code.
//!
//! Full disks and read-only directories are small file systems of their own, mounted for the test; where that is not
//! allowed, the test says so and passes.
#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is no part of what simulation drives"
)]

#[path = "faults_real/files.rs"]
mod files;
#[path = "faults_real/full.rs"]
mod full;
#[path = "faults_real/rig.rs"]
mod rig;

use rig::{command, expected, fresh, holder, refused, rows, written};
use seawall::{Db, Error, Readable, WriteBatch};
use std::io::ErrorKind;

#[test]
fn the_wrong_directory_is_told_from_a_store() {
    let dir = fresh("wrong");
    // Nothing there, and nothing is made by looking.
    let missing = Db::builder(dir.join("missing")).create(false).open();
    assert!(matches!(missing, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound));
    assert!(Db::builder(dir.join("missing")).read_only(true).open().is_err());
    assert!(!dir.join("missing").exists());
    refused(&dir, &["get", "missing", "k"], 3, "no store at");
    // Somebody else's directory.
    std::fs::create_dir(dir.join("photos")).unwrap();
    std::fs::write(dir.join("photos/holiday.jpg"), "bytes").unwrap();
    let foreign = Db::open(dir.join("photos")).unwrap_err();
    assert!(matches!(&foreign, Error::BadInput(why) if why.contains("holiday.jpg")), "{foreign}");
    refused(&dir, &["init", "photos"], 2, "holiday.jpg");
    refused(&dir, &["get", "photos", "k"], 3, "holds no store");
    assert_eq!(std::fs::read_dir(dir.join("photos")).unwrap().count(), 1, "nothing was left there");
    // A file.
    std::fs::write(dir.join("file"), "bytes").unwrap();
    let file = Db::open(dir.join("file")).unwrap_err();
    assert!(file.to_string().contains("file"), "{file}");
    refused(&dir, &["get", "file", "k"], 3, "is a file");
    // The log's own directory, in place of the store above it.
    written(&dir.join("db"), 3);
    let log = Db::open(dir.join("db/log")).unwrap_err();
    assert!(matches!(&log, Error::BadInput(_)), "{log}");
    assert_eq!(rows(&Db::open(dir.join("db")).unwrap()).len(), 3);
}

#[test]
fn a_store_in_use_names_the_process() {
    let dir = fresh("in-use");
    let store = dir.join("db");
    let mut held = holder(&store, 50);
    let pid = held.process.id();
    for builder in [Db::builder(&store), Db::builder(&store).read_only(true)] {
        let error = builder.open().unwrap_err();
        assert!(matches!(error, Error::Locked { pid: Some(holder), .. } if holder == pid), "{error}");
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
    }
    refused(&dir, &["put", "db", "k", "v"], 4, &pid.to_string());
    refused(&dir, &["verify", "db"], 4, &pid.to_string());
    held.process.kill().unwrap();
    held.process.wait().unwrap();
    // The lock went with the process.
    let db = Db::open(&store).unwrap();
    assert!(rows(&db) == expected(50));
    // A second handle in one process is as much of an intruder.
    let error = Db::open(&store).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
}

/// The process that holds the store of the test above; does nothing unless it was started for that.
#[test]
fn process() {
    if let Some(store) = std::env::var_os(rig::HOLD) {
        rig::hold(store.as_ref());
    }
}

#[test]
fn what_is_too_large_is_refused_and_the_rest_goes_on() {
    let dir = fresh("limits");
    let db = Db::open(dir.join("db")).unwrap();
    let keyspace = db.keyspace("default").unwrap();
    let (key_max, value_max) = (vec![b'k'; 65_535], vec![b'v'; 16 << 20]);
    let mut tx = db.begin();
    tx.insert(&keyspace, "before", "1").unwrap();
    let key = tx.insert(&keyspace, vec![b'k'; 65_536], "v").unwrap_err();
    assert!(matches!(key, Error::TooLarge { what: "key", len: 65_536, max: 65_535 }), "{key}");
    let value = tx.insert(&keyspace, "k", vec![b'v'; (16 << 20) + 1]).unwrap_err();
    assert!(matches!(value, Error::TooLarge { what: "value", max: 16_777_216, .. }), "{value}");
    assert!(tx.remove(&keyspace, vec![b'k'; 65_536]).is_err());
    tx.insert(&keyspace, &key_max, &value_max).unwrap();
    tx.insert(&keyspace, "", "").unwrap();
    tx.commit().unwrap();
    // Of a batch with a row that is too large, nothing happens.
    let mut batch = WriteBatch::new();
    batch.insert(&keyspace, "batch", "1").insert(&keyspace, vec![b'k'; 65_536], "v");
    assert!(matches!(db.write(batch), Err(Error::TooLarge { what: "key", .. })));
    assert_eq!(keyspace.get("batch").unwrap(), None);
    db.checkpoint().unwrap();
    drop(keyspace);
    db.close().unwrap();

    let db = Db::open(dir.join("db")).unwrap();
    let keyspace = db.open_keyspace("default").unwrap().unwrap();
    assert_eq!(keyspace.get(&key_max).unwrap().as_deref(), Some(&value_max[..]));
    assert_eq!(db.snapshot().range(&keyspace, ..).count(), 3);
    drop(keyspace);
    db.close().unwrap();
    let too_large = vec![b'v'; (16 << 20) + 1];
    let output = rig::run_with_input(command(&dir, &["put", "db", "k", "-"]), &too_large);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("16777216"), "{words}");
    refused(&dir, &["get", "db", "k"], 3, "k");
}

#[test]
fn a_panic_in_a_closure_costs_its_own_transaction_only() {
    let dir = fresh("panic");
    let db = Db::open(dir.join("db")).unwrap();
    let keyspace = db.keyspace("default").unwrap();
    keyspace.insert("before", "1").unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        db.transact(|tx| -> seawall::Result<()> {
            tx.insert(&keyspace, "half", "done")?;
            panic!("a mistake in the program");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(keyspace.get("half").unwrap(), None);
    db.transact(|tx| tx.insert(&keyspace, "after", "1")).unwrap();
    db.checkpoint().unwrap();
    keyspace.insert("last", "1").unwrap();
    // And one that takes the store with it.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let (db, keyspace) = (db, keyspace);
        db.transact(|tx| -> seawall::Result<()> {
            tx.insert(&keyspace, "half", "done")?;
            panic!("another");
        })
    }));
    assert!(panicked.is_err());
    let db = Db::open(dir.join("db")).unwrap();
    let keys: Vec<_> = rows(&db).into_keys().collect();
    assert_eq!(keys, [&b"after"[..], b"before", b"last"]);
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}
