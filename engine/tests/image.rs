//! Images: what a copy holds, whatever the store does meanwhile; begun again after a crash at any call of the copy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use seawall_engine::{
    Db, DbBuilder, Error, Image, ImageInfo, ImagePiece, ImageWriter, Prepared, Readable, Result, SlotOptions,
    Vote, Xid,
};
use seawall_wal::disk::sim::{Fault, Op};
use seawall_wal::disk::{Disk, Open};
use seawall_wal::{History, Lsn, SimDisk, Wal, WalOptions};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

const SOURCE: &str = "/source";
const COPY: &str = "/dir/copy";
const PIECE: usize = 12 << 10;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A fault by its name.
type Named = (&'static str, fn() -> Fault);

fn builder(disk: &Arc<SimDisk>, dir: &str) -> DbBuilder {
    Db::builder(dir)
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(2 << 20)
        .stream(32 << 10, 16 << 10)
        .background(false)
}

fn log_options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options().segment_bytes(64 << 10).disk(disk.clone()).background(false)
}

fn rows(db: &Db) -> Rows {
    let ks = db.keyspace("rows").unwrap();
    let all = db.snapshot().range(&ks, ..);
    all.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn fill(db: &Db, from: u64, count: u64) {
    let ks = db.keyspace("rows").unwrap();
    for n in from..from + count {
        let len = if n.is_multiple_of(7) { 9000 } else { 200 };
        ks.insert(format!("row {}", n % 60), vec![n as u8; len]).unwrap();
    }
}

fn source(disk: &Arc<SimDisk>) -> Db {
    let db = builder(disk, SOURCE).open().unwrap();
    fill(&db, 0, 80);
    db.checkpoint().unwrap();
    fill(&db, 80, 30);
    db.checkpoint().unwrap();
    db.create_slot("copy", SlotOptions::default()).unwrap();
    db
}

/// Copies what is missing; the writer.
fn copy(image: &Image, disk: &Arc<SimDisk>) -> Result<ImageWriter> {
    let mut writer = ImageWriter::begin(&builder(disk, COPY), image.info())?;
    let mut count = 0;
    while let Some(piece) = image.piece(writer.offset(), PIECE)? {
        writer.write(&piece)?;
        count += 1;
        if count % 5 == 0 {
            writer.sync()?;
        }
    }
    Ok(writer)
}

/// The copy as a store of its own, when it has the log of a source that has come to where `disk` has it.
fn follow(source: &Arc<SimDisk>, disk: &Arc<SimDisk>) -> Db {
    let primary = log_options(&source.crash_copy()).open(Path::new(SOURCE).join("log")).unwrap();
    let replica = log_options(disk).replica(true).open(Path::new(COPY).join("log")).unwrap();
    let mut shipper = primary.ship(replica.tail().place).unwrap();
    while let Some(piece) = shipper.next_piece(32 << 10).unwrap() {
        replica.accept(&piece).unwrap();
    }
    replica.sync_replica().unwrap();
    replica.promote(1).unwrap();
    replica.close().unwrap();
    let db = builder(disk, COPY).create(false).open().unwrap();
    assert_eq!(db.verify(|_| {}).unwrap().problems, [""; 0]);
    db
}

#[test]
fn an_image_and_the_log_behind_it_are_the_store() {
    let (disk, target) = (SimDisk::new(1), SimDisk::new(2));
    let db = source(&disk);
    let image = db.image().unwrap();
    let info = image.info();
    assert_eq!(info.checkpoint_lsn, db.stats().checkpoint_lsn);
    assert_eq!(ImageInfo::from_superblock(info.superblock()).unwrap(), *info);
    assert!(db.stats().log_retained.iter().any(|one| one.who == "image" && one.lsn == info.checkpoint_lsn));
    let total = image.bytes_from(0);
    assert!(
        total > 0 && total < info.file_bytes,
        "what is free is not copied: {total} of {}",
        info.file_bytes
    );
    // While it is copied the store is rewritten twice over.
    let mut writer = ImageWriter::begin(&builder(&target, COPY), info).unwrap();
    let (mut copied, mut n) = (0, 1000);
    while let Some(piece) = image.piece(writer.offset(), PIECE).unwrap() {
        assert!(piece.offset >= 8192 && piece.bytes.len().is_multiple_of(4096) && piece.bytes.len() <= PIECE);
        copied += piece.bytes.len() as u64;
        writer.write(&piece).unwrap();
        fill(&db, n, 12);
        n += 12;
        db.checkpoint().unwrap();
    }
    assert_eq!(copied, total);
    writer.finish(0, &History::default()).unwrap();
    drop(image);
    let copied = follow(&disk, &target);
    assert_eq!(rows(&copied), rows(&db));
    // It goes on by itself.
    fill(&copied, 5000, 40);
    copied.checkpoint().unwrap();
    let expected = rows(&copied);
    copied.close().unwrap();
    let again = builder(&target, COPY).open().unwrap();
    assert_eq!(rows(&again), expected);
    assert_eq!(again.verify(|_| {}).unwrap().problems, [""; 0]);
    assert!(again.slots().is_empty(), "slots are the source's own");
}

#[test]
fn a_new_store_has_an_image_too() {
    let (disk, target) = (SimDisk::new(1), SimDisk::new(2));
    let db = builder(&disk, SOURCE).open().unwrap();
    let image = db.image().unwrap();
    assert_eq!(image.piece(0, PIECE).unwrap(), None);
    copy(&image, &target).unwrap().finish(0, &History::default()).unwrap();
    fill(&db, 0, 10);
    assert_eq!(rows(&follow(&disk, &target)), rows(&db));
}

#[test]
fn a_copy_that_was_left_goes_on_and_another_image_begins_again() {
    let (disk, target) = (SimDisk::new(1), SimDisk::new(2));
    let db = source(&disk);
    let image = db.image().unwrap();
    let begin = |image: &Image| ImageWriter::begin(&builder(&target, COPY), image.info()).unwrap();
    let mut writer = begin(&image);
    let write = |writer: &mut ImageWriter, count: usize| {
        for _ in 0..count {
            writer.write(&image.piece(writer.offset(), PIECE).unwrap().unwrap()).unwrap();
        }
    };
    write(&mut writer, 2);
    writer.sync().unwrap();
    let synced = writer.offset();
    write(&mut writer, 1);
    assert!(matches!(ImageWriter::begin(&builder(&target, COPY), image.info()), Err(Error::Locked { .. })));
    drop(writer);
    let mut writer = begin(&image);
    assert_eq!((writer.offset(), writer.durable_offset()), (synced, synced));
    // A piece that was written already, and ones that are none.
    for (offset, len) in [(8192, 4096), (synced + 1, 4096), (synced, 100), (synced, 0)] {
        let piece = ImagePiece { offset, bytes: vec![0; len] };
        assert!(matches!(writer.write(&piece), Err(Error::BadInput(_))), "{offset} {len}");
    }
    drop(writer);
    fill(&db, 500, 20);
    db.checkpoint().unwrap();
    let newer = db.image().unwrap();
    assert_eq!(begin(&newer).offset(), 0);
    assert_eq!(begin(&image).offset(), 0, "what there was of the first one is gone");
    copy(&newer, &target).unwrap().finish(0, &History::default()).unwrap();
    assert!(matches!(ImageWriter::begin(&builder(&target, COPY), newer.info()), Err(Error::BadInput(_))));
    assert_eq!(rows(&follow(&disk, &target)), rows(&db));
}

#[test]
fn directories_of_others_are_left_alone() {
    let disk = SimDisk::new(1);
    let db = source(&disk);
    let image = db.image().unwrap();
    for name in ["data.new", "log", "letters"] {
        let target = SimDisk::new(2);
        target.create_dir("/dir".as_ref()).unwrap();
        target.create_dir(COPY.as_ref()).unwrap();
        drop(target.open(&Path::new(COPY).join(name), Open::CreateNew).unwrap());
        let refused = ImageWriter::begin(&builder(&target, COPY), image.info());
        assert!(matches!(refused, Err(Error::BadInput(_))), "{name}");
    }
    // Nor does anything else take a copy that is not whole for an empty directory.
    let target = SimDisk::new(2);
    drop(copy(&image, &target).unwrap());
    assert!(matches!(builder(&target, COPY).open(), Err(Error::BadInput(what)) if what.contains("image")));
}

#[test]
fn what_was_damaged_on_its_way_becomes_no_store() {
    let disk = SimDisk::new(1);
    let db = source(&disk);
    let image = db.image().unwrap();
    let mut at = 0;
    while let Some(piece) = image.piece(at, PIECE).unwrap() {
        at = piece.end();
        let target = SimDisk::new(2);
        let mut writer = ImageWriter::begin(&builder(&target, COPY), image.info()).unwrap();
        let mut next = 0;
        while let Some(mut other) = image.piece(next, PIECE).unwrap() {
            next = other.end();
            if other.offset == piece.offset {
                let byte = (at / 4096 % 64) as usize;
                other.bytes[byte] ^= 1;
            }
            writer.write(&other).unwrap();
        }
        let finished = writer.finish(0, &History::default());
        assert!(matches!(finished, Err(Error::Corruption { .. })), "{}: {finished:?}", piece.offset);
        assert!(!target.exists(&Path::new(COPY).join("data")).unwrap());
    }
    // A superblock that is none.
    let mut bytes = image.info().superblock().to_vec();
    bytes[100] ^= 1;
    assert!(matches!(ImageInfo::from_superblock(&bytes), Err(Error::BadInput(_))));
    assert!(ImageInfo::from_superblock(&[]).is_err());
}

#[test]
fn values_outside_of_the_log_are_in_the_image() {
    let (disk, target) = (SimDisk::new(1), SimDisk::new(2));
    let db = builder(&disk, SOURCE).open().unwrap();
    fill(&db, 0, 20);
    let ks = db.keyspace("rows").unwrap();
    let stream = |tx: &mut seawall_engine::Transaction, key: &str, byte: u8| {
        tx.insert_from(&ks, key, 100_000, std::io::repeat(byte).take(100_000))
    };
    db.transact(|tx| stream(tx, "named by the log alone", 1)).unwrap();
    let xid = |name: &str| Xid::new(7, name, "branch").unwrap();
    let prepare = |name: &str, byte: u8| {
        let mut tx = db.begin();
        stream(&mut tx, name, byte).unwrap();
        assert!(matches!(tx.prepare(xid(name)).unwrap(), Vote::Prepared(_)));
    };
    prepare("committed later", 2);
    prepare("in doubt", 3);
    // From here on there is a follower.
    db.create_slot("copy", SlotOptions::default()).unwrap();
    let checkpoint = db.stats().checkpoint_lsn;
    let image = db.image().unwrap();
    assert!(image.info().checkpoint_lsn > checkpoint, "a checkpoint has to take in what the log names");
    let ended = |db: &Db, name: &str| db.prepared_by(&xid(name)).unwrap().unwrap().commit().unwrap();
    ended(&db, "committed later");
    copy(&image, &target).unwrap().finish(0, &History::default()).unwrap();
    let copied = follow(&disk, &target);
    let values = rows(&copied);
    assert_eq!(values[&b"named by the log alone"[..]], vec![1; 100_000]);
    assert_eq!(values[&b"committed later"[..]], vec![2; 100_000]);
    assert_eq!(values, rows(&db));
    // What is in doubt has its bytes, and nothing takes their place meanwhile.
    fill(&copied, 300, 60);
    copied.checkpoint().unwrap();
    fill(&copied, 360, 60);
    copied.checkpoint().unwrap();
    assert_eq!(
        copied.prepared().map(|one: Prepared| one.xid().clone()).collect::<Vec<_>>(),
        [xid("in doubt")]
    );
    ended(&copied, "in doubt");
    copied.checkpoint().unwrap();
    assert_eq!(rows(&copied)[&b"in doubt"[..]], vec![3; 100_000]);
    assert_eq!(copied.verify(|_| {}).unwrap().problems, [""; 0]);
}

/// What a fault has left can be gone on with, and comes out right.
fn check(image: &Image, source: &Arc<SimDisk>, left: &Arc<SimDisk>, expected: &Rows, what: &str) {
    let is_there = left.exists(&Path::new(COPY).join("data")).unwrap();
    if !is_there {
        let writer = copy(image, left).unwrap_or_else(|error| panic!("{what}: {error}"));
        writer.finish(0, &History::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_eq!(rows(&follow(source, left)), *expected, "{what}");
}

#[test]
fn a_fault_at_any_call_of_a_copy_leaves_something_to_go_on_with() {
    let disk = SimDisk::new(1);
    let db = source(&disk);
    let image = db.image().unwrap();
    fill(&db, 200, 20);
    let expected = rows(&db);
    let make = |target: &Arc<SimDisk>| copy(&image, target)?.finish(0, &History::default());
    let target = SimDisk::new(2);
    make(&target).unwrap();
    let calls = target.calls();
    check(&image, &disk, &target, &expected, "no fault");
    let faults: [Named; 4] = [
        ("a power cut", Fault::power_cut),
        ("EIO", || Fault::eio(Op::Any)),
        ("ENOSPC", || Fault::full(Op::Any)),
        ("a dropped sync", Fault::dropped_sync),
    ];
    for (name, fault) in faults {
        for call in 1..=calls {
            let target = SimDisk::new(call);
            target.fail(fault().at_call(call));
            let made = make(&target);
            let what = format!("{name} at call {call}");
            let crashed = target.crash();
            let is_there = crashed.exists(&Path::new(COPY).join("data")).unwrap();
            assert!(is_there || made.is_err(), "{what}: it was done, and is gone");
            check(&image, &disk, &crashed, &expected, &what);
        }
    }
    let first: Lsn = image.info().checkpoint_lsn;
    assert!(db.stats().log_retained.iter().all(|one| one.lsn >= first));
}
