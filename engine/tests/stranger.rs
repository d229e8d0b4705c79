//! A stranger reads our stores: `stranger/reader.rs` and the log's own stranger know `docs/format/` and nothing else, and
//! must find the rows that the engine finds, over stores of every shape, crashed ones and damaged ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test fails by panicking; the log's stranger says more than is asked here"
)]

#[path = "../../wal/tests/stranger/reader.rs"]
mod log;
#[path = "stranger/reader.rs"]
mod reader;

use log::Files;
use reader::Rows;
use seawall_engine::{
    Compression, Db, DbBuilder, Durability, Error, Keyspace, KeyspaceOptions, Readable, Result, Spilling,
    WriteBatch,
};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::Damage;
use seawall_wal::runtime::Rng;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Store = BTreeMap<String, Rows>;

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/dir/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(2 << 20)
        .background(false)
        .stream(8 << 10, 16 << 10)
}

/// The stranger's view.
fn theirs(disk: &SimDisk) -> std::result::Result<Store, log::Refusal> {
    let prefix = "dir/store/log/";
    let names = disk.paths().into_iter().filter_map(|path| Some(path.strip_prefix(prefix)?.to_owned()));
    let files: Files =
        names.map(|name| (name.clone(), disk.read_file(format!("{prefix}{name}")).unwrap())).collect();
    reader::read(&disk.read_file("dir/store/data").unwrap(), &files)
}

/// The engine's view, every row read.
fn ours(db: &Db) -> Result<Store> {
    let mut store = Store::new();
    for name in db.keyspace_names()? {
        let keyspace = db.open_keyspace(&name)?.expect("it was listed");
        let mut rows = Rows::new();
        for row in db.snapshot().range(&keyspace, ..) {
            let (key, value) = row?;
            rows.insert(key.to_vec(), value.to_vec());
        }
        store.insert(name, rows);
    }
    Ok(store)
}

fn same(disk: &Arc<SimDisk>, what: &str) -> Store {
    let theirs = theirs(disk).unwrap_or_else(|refusal| panic!("{what}: {refusal:?}"));
    let db = builder(disk).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let ours = ours(&db).unwrap();
    let brief =
        |store: &Store| store.iter().map(|(name, rows)| (name.clone(), rows.len())).collect::<Vec<_>>();
    assert_eq!(brief(&theirs), brief(&ours), "{what}");
    assert!(theirs == ours, "{what}: other rows");
    ours
}

fn key(rng: &mut Rng) -> Vec<u8> {
    let n = rng.below(3000);
    match n % 10 {
        0 => n.to_be_bytes().to_vec(),
        1 => [vec![b'l'; 300], n.to_string().into_bytes()].concat(),
        2 if n < 30 => Vec::new(),
        _ => format!("a-common-beginning/{n:04}").into_bytes(),
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(20) {
        0 => 0,
        1 => 1984,
        2 => 1985,
        3 => 4096,
        4 => rng.below(30_000),
        _ => rng.below(300),
    };
    let mut value = vec![0; len as usize];
    rng.fill(&mut value);
    value
}

/// Too short to be streamed, one piece, several.
fn streamed(rng: &mut Rng) -> Vec<u8> {
    let lens = [8191, 8192, 8193, 16_384, 16_385, 32_768, 50_000];
    let mut value = vec![0; lens[rng.below(7) as usize]];
    rng.fill(&mut value);
    value
}

/// Some keyspaces are compressed.
fn options(rng: &mut Rng) -> KeyspaceOptions {
    let compression = if rng.chance(1, 3) { Compression::Lz4 } else { Compression::None };
    KeyspaceOptions { compression, ..KeyspaceOptions::default() }
}

/// A store after some commits, checkpoints, dropped keyspaces and reopenings; ended by a power cut or a close.
fn store(seed: u64) -> Arc<SimDisk> {
    let mut rng = Rng::new(seed);
    let mut disk = SimDisk::new(seed);
    let spilling = [Spilling::Weighed, Spilling::Below(3), Spilling::Rolling(2)][seed as usize % 3];
    for _ in 0..1 + rng.below(3) {
        let db = builder(&disk).spilling(spilling).open().unwrap();
        for _ in 0..rng.below(30) {
            let names = ["rows", "others", "a third"];
            let name = names[rng.below(3) as usize];
            let keyspace: Keyspace = match db.open_keyspace(name).unwrap() {
                Some(keyspace) => keyspace,
                None => db.keyspace_with(name, options(&mut rng)).unwrap(),
            };
            let mut batch = WriteBatch::new();
            for _ in 0..1 + rng.below(40) {
                match rng.below(20) {
                    0..5 => drop(batch.remove(&keyspace, key(&mut rng))),
                    5 if rng.chance(1, 8) => {
                        let mut bound = || match rng.below(5) {
                            0 => Bound::Unbounded,
                            1 | 2 => Bound::Included(key(&mut rng)),
                            _ => Bound::Excluded(key(&mut rng)),
                        };
                        batch.remove_range(&keyspace, (bound(), bound()));
                    }
                    6..9 => {
                        let number = format!("number {}", rng.below(5));
                        batch.add_i64(&keyspace, number, rng.next_u64() as i64);
                    }
                    _ => drop(batch.insert(&keyspace, key(&mut rng), value(&mut rng))),
                }
            }
            let level = if rng.chance(1, 4) { Durability::Written } else { Durability::Synced };
            db.write_with(batch, level).unwrap();
            if rng.chance(1, 6) {
                let streamed = streamed(&mut rng);
                let mut tx = db.begin();
                tx.insert_from(&keyspace, key(&mut rng), streamed.len() as u64, &streamed[..]).unwrap();
                tx.commit().unwrap();
            }
            if rng.chance(1, 5) {
                db.checkpoint().unwrap();
            }
            if rng.chance(1, 20) {
                db.drop_keyspace(keyspace).unwrap();
            }
        }
        if rng.chance(1, 2) {
            db.close().unwrap();
        } else {
            disk = disk.crash();
        }
    }
    disk
}

#[test]
fn a_new_store_is_read_alike() {
    let disk = SimDisk::new(1);
    drop(builder(&disk).open().unwrap());
    assert!(same(&disk, "new").is_empty());
}

#[test]
fn stores_of_every_shape_are_read_alike() {
    let (mut rows, mut with_runs) = (0, 0);
    for seed in 0..60 {
        let disk = store(seed);
        with_runs += usize::from(builder(&disk.crash_copy()).open().unwrap().stats().runs > 0);
        rows += same(&disk, &format!("seed {seed}")).values().map(Rows::len).sum::<usize>();
    }
    assert!(rows > 5000 && with_runs > 20, "{rows} rows, {with_runs} stores with runs");
}

#[test]
fn a_tree_of_several_levels_is_read_alike() {
    let disk = SimDisk::new(2);
    let db = builder(&disk).memory_budget(64 << 20).open().unwrap();
    let keyspace = db.keyspace("deep").unwrap();
    let lz4 = KeyspaceOptions { compression: Compression::Lz4, ..KeyspaceOptions::default() };
    let dense = db.keyspace_with("dense", lz4).unwrap();
    for from in (0..20_000u32).step_by(500) {
        let mut batch = WriteBatch::new();
        for n in from..from + 500 {
            let (key, value) = (n.wrapping_mul(2_654_435_761).to_be_bytes(), vec![n as u8; 100]);
            batch.insert(&keyspace, key, &value).insert(&dense, key, value);
        }
        db.write_with(batch, Durability::Written).unwrap();
    }
    db.checkpoint().unwrap();
    drop((keyspace, dense));
    db.close().unwrap();
    let rows = same(&disk, "deep");
    assert_eq!((rows["deep"].len(), rows["dense"] == rows["deep"]), (20_000, true));
}

/// A range of many leaves is removed, and freed unread: numbers of rows are bounds.
#[test]
fn a_tree_with_a_range_cut_out_is_read_alike() {
    let disk = SimDisk::new(3);
    let db = builder(&disk).memory_budget(64 << 20).open().unwrap();
    let keyspace = db.keyspace("cut").unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..6000u32 {
        batch.insert(&keyspace, n.to_be_bytes(), vec![n as u8; 100]);
    }
    db.write(batch).unwrap();
    db.checkpoint().unwrap();
    let mut batch = WriteBatch::new();
    batch.remove_range(&keyspace, 10_u32.to_be_bytes()..5000_u32.to_be_bytes());
    db.write(batch).unwrap();
    assert_eq!(same(&disk.crash_copy(), "in the log")["cut"].len(), 1010);
    db.checkpoint().unwrap();
    assert_eq!(same(&disk.crash_copy(), "in the tree")["cut"].len(), 1010);
}

/// Streamed values as the log names them, as a tree does, and both at once.
#[test]
fn streamed_values_are_read_alike() {
    let disk = SimDisk::new(5);
    let db = builder(&disk).open().unwrap();
    let keyspace = db.keyspace("large").unwrap();
    let mut rng = Rng::new(5);
    let put = |n: u64, len: usize| {
        let mut value = vec![n as u8; len];
        value.truncate(len);
        let mut tx = db.begin();
        tx.insert_from(&keyspace, n.to_be_bytes(), len as u64, &value[..]).unwrap();
        tx.commit().unwrap();
    };
    let lens = [8191, 8192, 8193, 16_384, 16_385, 100_000];
    (0..).zip(lens).for_each(|(n, len)| put(n, len));
    let found = |disk: Arc<SimDisk>, what| -> Vec<usize> {
        same(&disk, what)["large"].values().map(Vec::len).collect()
    };
    assert_eq!(found(disk.crash_copy(), "in the log"), lens);
    db.checkpoint().unwrap();
    assert_eq!(found(disk.crash_copy(), "in the tree"), lens);
    put(2, 40_000);
    let mut tx = db.begin();
    tx.remove(&keyspace, 3_u64.to_be_bytes()).unwrap();
    tx.commit().unwrap();
    assert_eq!(found(disk.crash_copy(), "in both"), [8191, 8192, 40_000, 16_385, 100_000]);
    // A bit of a piece that only the log leads to.
    let whole = theirs(&disk).unwrap();
    let blocks = disk.read_file("dir/store/data").unwrap().len() as u64 / 4096;
    let mut refused = 0;
    for block in 2..blocks {
        let copy = disk.crash_copy();
        copy.damage("dir/store/data", &Damage::Flip { offset: block * 4096 + rng.below(4096), mask: 1 })
            .unwrap();
        match theirs(&copy) {
            Ok(rows) => assert!(rows == whole),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 30, "{refused} refused");
}

/// Recovery has folded a part of the log, and was stopped: what is in the tree is not added once more.
#[test]
fn a_store_whose_recovery_was_stopped_is_read_alike() {
    let disk = SimDisk::new(4);
    let db = builder(&disk).open().unwrap();
    let keyspace = db.keyspace("n").unwrap();
    for n in 0..60_u64 {
        let mut batch = WriteBatch::new();
        batch.add_i64(&keyspace, "n", 1).insert(&keyspace, (n % 3).to_be_bytes(), vec![n as u8; 40_000]);
        db.write(batch).unwrap();
    }
    let disk = disk.crash();
    drop((db, keyspace));
    let checkpoint = |disk: &SimDisk| {
        let data = disk.read_file("dir/store/data").unwrap();
        let field = |slot: usize| u64::from_le_bytes(data[slot + 56..slot + 64].try_into().unwrap());
        field(0).max(field(4096))
    };
    let before = checkpoint(&disk);
    drop(builder(&disk).open().unwrap());
    assert!(checkpoint(&disk) > before, "this recovery is to fold");
    let kept = disk.kill();
    assert_eq!(same(&kept, "stopped")["n"][&b"n"[..]], 60_i64.to_le_bytes());
}

/// One damage at rest. Where the stranger finds rows, so does the engine, and the same; where it refuses, the engine may
/// find the same rows as before the damage, or say that there is damage, but never other rows.
#[test]
fn damaged_stores_are_never_read_as_others() {
    let (mut refused, mut outlived) = (0, 0);
    for seed in 0..250 {
        let disk = store(seed % 50);
        let whole = same(&disk.crash_copy(), "before the damage");
        let mut rng = Rng::new(seed ^ 0xDA7A);
        let blocks = disk.read_file("dir/store/data").unwrap().len() as u64 / 4096;
        let block = rng.below(blocks);
        let damage = match rng.below(5) {
            0 => Damage::Flip { offset: block * 4096 + rng.below(200), mask: 1 << rng.below(8) },
            1 => Damage::Flip { offset: block * 4096 + rng.below(4096), mask: 1 << rng.below(8) },
            2 => Damage::ZeroBlock(block),
            3 => Damage::SwapBlocks(block, rng.below(blocks)),
            _ => Damage::Truncate(rng.below(blocks * 4096)),
        };
        let what = format!("seed {seed}: {damage:?}");
        disk.damage("dir/store/data", &damage).unwrap();
        let theirs = theirs(&disk);
        let found = builder(&disk).open().and_then(|db| ours(&db));
        match (theirs, found) {
            (Ok(theirs), Ok(ours)) => {
                assert!(theirs == ours, "{what}: read differently");
                assert!(ours == whole, "{what}: other rows than were committed");
                outlived += 1;
            }
            (Err(_), Ok(ours)) => assert!(ours == whole, "{what}: other rows than were committed"),
            (theirs, Err(error)) => {
                let is_damage = matches!(error, Error::Corruption { .. } | Error::FormatVersion { .. });
                assert!(is_damage && theirs.is_err(), "{what}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 60 && outlived > 20, "{refused} refused, {outlived} without effect");
}
