//! Full disks, and disks that cannot be written to at all.

use super::rig::{Mount, Rows, key, refused, rows, succeeded, value};
use seawall::{Db, DbBuilder, Durability, Error, Keyspace, WriteBatch};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn builder(store: &Path) -> DbBuilder {
    Db::builder(store).segment_bytes(1 << 20).memory_budget(2 << 20)
}

/// Takes all the room that is left.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = File::create(&path).unwrap();
    for piece in [1 << 20, 64 << 10, 4 << 10] {
        while file.write_all(&vec![7; piece]).and_then(|()| file.sync_data()).is_ok() {}
    }
    path
}

/// Commits rows until there is no room; those that were acknowledged are added to `model`.
fn write_until_full(db: &Db, keyspace: &Keyspace, model: &mut Rows, what: &str) {
    let first = model.len() as u64;
    for n in first..first + 200_000 {
        // A row that was refused is tried again with the same content, so `n` says which rows can be there.
        let mut batch = WriteBatch::new();
        batch.insert(keyspace, key(n), value(n));
        let level = if n % 3 == 0 { Durability::Written } else { Durability::Synced };
        match db.write_with(batch, level) {
            Ok(_) => _ = model.insert(key(n), value(n)),
            Err(Error::NoSpace) => return,
            Err(error) => panic!("{what}: row {n}: {error}"),
        }
    }
    panic!("{what}: the disk does not fill");
}

/// Commits rows until there is no room, and there is none for one more either: a checkpoint that ends meanwhile gives back
/// some. The number of the row that was refused.
fn stay_full(db: &Db, keyspace: &Keyspace, model: &mut Rows, what: &str) -> u64 {
    for _ in 0..100 {
        write_until_full(db, keyspace, model, what);
        // Nothing was promised, nothing happened, and reads go on.
        assert!(rows(db) == *model, "{what}: what is there is not what was acknowledged");
        let next = model.len() as u64;
        match keyspace.insert(key(next), value(next)) {
            Ok(_) => _ = model.insert(key(next), value(next)),
            Err(Error::NoSpace) => return next,
            Err(error) => panic!("{what}: row {next}: {error}"),
        }
    }
    panic!("{what}: the disk does not stay full");
}

/// Goes on as soon as there is room, without being opened anew.
fn resume(db: &Db, what: &str) {
    let start = Instant::now();
    while let Err(error) = db.resume() {
        assert!(matches!(error, Error::NoSpace), "{what}: {error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: it does not go on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_full_disk(mount: &Mount, what: &str) {
    let store = mount.dir.join("db");
    let mut model = Rows::new();
    let db = builder(&store).open().unwrap();
    let keyspace = db.keyspace("default").unwrap();
    keyspace.insert(key(0), value(0)).unwrap();
    model.insert(key(0), value(0));
    for round in 0..3 {
        let what = format!("{what}, round {round}");
        let ballast = fill(&mount.dir);
        let next = stay_full(&db, &keyspace, &mut model, &what);
        assert_eq!(keyspace.get(key(next)).unwrap(), None, "{what}");
        assert_eq!(db.stats().poisoned, None, "{what}");
        std::fs::remove_file(ballast).unwrap();
        resume(&db, &what);
        for n in next..next + 300 {
            keyspace.insert(key(n), value(n)).unwrap_or_else(|error| panic!("{what}: row {n}: {error}"));
            model.insert(key(n), value(n));
        }
        db.checkpoint().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(rows(&db) == model, "{what}: after going on");
    }
    // Full once more, and closed like that; what is closed can be opened, at the latest when there is room.
    let ballast = fill(&mount.dir);
    write_until_full(&db, &keyspace, &mut model, what);
    let next = String::from_utf8(key(model.len() as u64)).unwrap();
    drop(keyspace);
    let closed = db.close();
    assert!(matches!(closed, Ok(()) | Err(Error::NoSpace)), "{what}: {closed:?}");
    let read = builder(&store).read_only(true).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(rows(&read) == model, "{what}: read while the disk is full");
    drop(read);
    match builder(&store).open() {
        Ok(db) => assert!(rows(&db) == model, "{what}: opened while the disk is full"),
        Err(Error::NoSpace) => {}
        Err(error) => panic!("{what}: {error}"),
    }
    a_full_disk_for_the_command(mount, &next, &mut model);
    std::fs::remove_file(ballast).unwrap();
    succeeded(&mount.dir, &["put", "db", &next, "v"]);
    model.insert(next.into_bytes(), b"v".to_vec());
    let db = builder(&store).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(rows(&db) == model, "{what}: in the end");
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new(), "{what}");
}

/// One row may still fit here and there; then it is there.
fn a_full_disk_for_the_command(mount: &Mount, next: &str, model: &mut Rows) {
    let large = "v".repeat(100_000);
    for attempt in 0..400 {
        let name = format!("{next}-{attempt}");
        let output = super::command(&mount.dir, &["put", "db", &name, &large]).output().unwrap();
        if output.status.success() {
            model.insert(name.into_bytes(), large.clone().into_bytes());
            continue;
        }
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.starts_with("error: ") && words.contains("full"), "{words}");
        assert_eq!(succeeded(&mount.dir, &["scan", "db", "--keys-only"]).lines().count(), model.len());
        return;
    }
    panic!("the disk does not fill");
}

#[test]
fn a_full_disk_in_memory_is_outlived() {
    if let Some(mount) = Mount::in_memory("full-memory", 24) {
        a_full_disk(&mount, "tmpfs");
    }
}

#[test]
fn a_full_ext4_is_outlived() {
    if let Some(mount) = Mount::ext4("full-ext4", 32) {
        a_full_disk(&mount, "ext4");
    }
}

/// From its first call on: there is no room for a store.
#[test]
fn a_store_is_not_created_on_a_full_disk_and_is_when_there_is_room() {
    let Some(mount) = Mount::in_memory("full-new", 8) else { return };
    let ballast = fill(&mount.dir);
    let error = builder(&mount.dir.join("db")).open().unwrap_err();
    assert!(matches!(error, Error::NoSpace), "{error}");
    refused(&mount.dir, &["init", "db"], 1, "full");
    std::fs::remove_file(ballast).unwrap();
    let db = builder(&mount.dir.join("db")).open().unwrap();
    db.keyspace("default").unwrap().insert("k", "v").unwrap();
    db.close().unwrap();
    assert_eq!(succeeded(&mount.dir, &["get", "db", "k"]), "v\n");
}

#[test]
fn a_directory_that_cannot_be_written_can_be_read() {
    let Some(mount) = Mount::in_memory("read-only", 32) else { return };
    let store = mount.dir.join("db");
    super::written(&store, 200);
    // And one that was not closed.
    super::rig::killed(&mount.dir.join("unclosed"), 100);
    mount.make_read_only();
    for (store, count) in [(&store, 200), (&mount.dir.join("unclosed"), 100)] {
        let error = Db::open(store).unwrap_err();
        let is_read_only =
            |error: &Error| matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(30));
        assert!(is_read_only(&error), "{error}");
        let db = Db::builder(store).read_only(true).open().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(rows(&db).len(), count);
        let keyspace = db.open_keyspace("default").unwrap().unwrap();
        assert!(matches!(keyspace.insert("k", "v"), Err(Error::ReadOnly)));
        assert!(matches!(db.checkpoint(), Err(Error::ReadOnly)));
        assert!(is_read_only(&Db::open(mount.dir.join("new")).unwrap_err()));
    }
    refused(&mount.dir, &["put", "db", "k", "v"], 1, "Read-only");
    refused(&mount.dir, &["init", "new"], 1, "Read-only");
    assert_eq!(succeeded(&mount.dir, &["scan", "db", "--keys-only"]).lines().count(), 200);
    succeeded(&mount.dir, &["verify", "db"]);
}
