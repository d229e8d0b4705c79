//! Scans and cursors over a tree alone, over deltas alone, and over both, against a map: both ways, turning at will.
//! A row that comes straight from a leaf takes another way than one that is merged or read, so rows of all kinds are
//! mixed: large values beside small ones, and keys that differ behind their first four bytes only, or in length alone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use seawall_engine::{Db, Durability, Error, Keyspace, Readable, Scan, WriteBatch};
use seawall_wal::SimDisk;
use std::collections::BTreeMap;

type Row = (Vec<u8>, Vec<u8>);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn key(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => vec![0; self.below(8) as usize],
            1 => [&b"same"[..], &vec![0; self.below(4) as usize]].concat(),
            2 => self.below(3000).to_be_bytes()[5..].to_vec(),
            _ => [&b"same"[..], &self.below(3000).to_be_bytes()].concat(),
        }
    }
}

fn fill(db: &Db, ks: &Keyspace, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, count: u64, random: &mut Random) {
    let mut batch = WriteBatch::new();
    for _ in 0..count {
        let (key, len) = (random.key(), [9, 90, 0, 700, 3000][random.below(5) as usize % 5]);
        if random.below(5) == 0 {
            batch.remove(ks, &key);
            rows.remove(&key);
        } else {
            let value = vec![random.below(256) as u8; len];
            batch.insert(ks, &key, &value);
            rows.insert(key, value);
        }
    }
    db.write(batch).unwrap();
}

fn take(scan: &mut Scan, is_front: bool) -> Option<Row> {
    let row = if is_front { scan.next() } else { scan.next_back() };
    row.map(|row| row.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec()))
}

/// Runs from one end and then from the other, until they meet.
fn check_scan(reader: &impl Readable, ks: &Keyspace, rows: &[Row], random: &mut Random) {
    let (mut from, mut to) = (0, rows.len());
    if random.below(2) == 0 && rows.len() > 10 {
        from = random.below(rows.len() as u64 / 2) as usize;
        to = from + random.below((rows.len() - from) as u64) as usize;
    }
    let mut scan = if to < rows.len() {
        reader.range(ks, &rows[from].0[..]..&rows[to].0[..])
    } else {
        reader.range(ks, rows.get(from).map_or(&[][..], |row| &row.0[..])..)
    };
    let mut is_front = random.below(2) == 0;
    loop {
        for _ in 0..[1, 3, 40, 100_000][random.below(4) as usize] {
            let expected =
                if from == to { None } else { rows.get(if is_front { from } else { to - 1 }).cloned() };
            assert_eq!(take(&mut scan, is_front), expected);
            if expected.is_none() {
                assert_eq!(take(&mut scan, !is_front), None);
                return;
            }
            if is_front { from += 1 } else { to -= 1 }
        }
        is_front = !is_front;
    }
}

/// Long runs of a cursor, turned round, with a look at the next row now and then.
fn check_cursor(reader: &impl Readable, ks: &Keyspace, rows: &[Row], random: &mut Random) {
    let mut cursor = reader.cursor(ks);
    let mut gap = 0;
    for _ in 0..20 {
        if random.below(3) == 0 {
            let key = random.key();
            if random.below(2) == 0 {
                cursor.seek(&key).unwrap();
                gap = rows.partition_point(|row| row.0 < key);
            } else {
                cursor.seek_for_prev(&key).unwrap();
                gap = rows.partition_point(|row| row.0 <= key);
            }
        }
        let is_back = random.below(2) == 0;
        for _ in 0..[1, 2, 50, 300][random.below(4) as usize] {
            if random.below(40) == 0 {
                let peeked = cursor.peek().unwrap().map(|(key, value)| (key.to_vec(), value.to_vec()));
                assert_eq!(peeked.as_ref(), rows.get(gap));
            }
            let shown = if is_back { cursor.prev().unwrap() } else { cursor.next().unwrap() };
            let shown = shown.map(|(key, value)| (key.to_vec(), value.to_vec()));
            let expected = if is_back { gap.checked_sub(1) } else { Some(gap) };
            assert_eq!(shown.as_ref(), expected.and_then(|index| rows.get(index)));
            gap = if is_back { gap.saturating_sub(1) } else { (gap + 1).min(rows.len()) };
        }
    }
}

#[test]
fn scans_and_cursors_agree_with_a_map_over_tree_and_deltas() {
    for seed in 1..13 {
        let disk = SimDisk::new(seed);
        let mut random = Random(seed * 0x9e37_79b9);
        let db = Db::builder("/store").disk(disk).background(false).open().unwrap();
        let ks = db.keyspace("a").unwrap();
        let mut model = BTreeMap::new();
        if seed % 3 != 0 {
            fill(&db, &ks, &mut model, 1500, &mut random);
            db.checkpoint().unwrap();
        }
        if seed % 3 != 1 {
            // Few: a scan is over deltas and tree first, and then over the tree alone.
            fill(&db, &ks, &mut model, [5, 300][seed as usize % 2], &mut random);
        }
        let rows: Vec<Row> = model.into_iter().collect();
        let (snapshot, tx) = (db.snapshot(), db.begin());
        for _ in 0..12 {
            check_scan(&snapshot, &ks, &rows, &mut random);
            check_cursor(&snapshot, &ks, &rows, &mut random);
        }
        check_scan(&tx, &ks, &rows, &mut random);
        check_cursor(&tx, &ks, &rows, &mut random);
        for _ in 0..300 {
            let key = random.key();
            let expected = rows.binary_search_by(|row| row.0.cmp(&key)).ok().map(|index| &rows[index].1);
            assert_eq!(snapshot.get(&ks, &key).unwrap().as_deref(), expected.map(|value| &value[..]));
        }
    }
}

/// A real file, mapped: it grows and shrinks while rows are held, they outlive the store, and it stays locked until then.
#[test]
fn a_mapped_store_reads_as_any_other_and_keeps_what_it_gave() {
    use seawall_engine::ReadMode;
    let dir = std::env::temp_dir().join(format!("seawall-mapped-rows-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let open = |read_only| {
        let builder = Db::builder(&dir).segment_bytes(256 << 10).read_mode(ReadMode::Mapped);
        builder.probe(false).read_only(read_only).open()
    };
    let db = open(false).unwrap();
    let rows = db.keyspace("rows").unwrap();
    let value = |n: u64, round: u64| vec![(n + round) as u8; [10, 100, 1500, 3000, 20_000][(n % 5) as usize]];
    let mut kept = Vec::new();
    for round in 0..6 {
        for part in 0..10u64 {
            let mut batch = WriteBatch::new();
            for n in part * 40..(part + 1) * 40 {
                batch.insert(&rows, n.to_be_bytes(), value(n, round));
            }
            db.write_with(batch, Durability::Memory).unwrap();
        }
        db.checkpoint().unwrap();
        let snapshot = db.snapshot();
        for n in (0..400u64).step_by(7) {
            kept.push((snapshot.get(&rows, n.to_be_bytes()).unwrap().unwrap(), value(n, round)));
        }
        let mut cursor = snapshot.cursor(&rows);
        let mut n = 0u64;
        while let Some((key, found)) = cursor.next().unwrap() {
            assert!(key == n.to_be_bytes() && found == value(n, round));
            n += 1;
        }
        assert_eq!(n, 400);
    }
    db.write(WriteBatch::new().remove_range(&rows, ..).clone()).unwrap();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    let stats = db.stats();
    assert_eq!((stats.read_mode, stats.read_mode_reason), (ReadMode::Mapped, None));
    assert!(stats.memory.total() < stats.memory.budget && stats.dead_bytes > 0, "{:?}", stats.memory);
    drop(rows);
    db.close().unwrap();
    assert!(matches!(open(false), Err(Error::Locked { .. })), "somebody reads its file");
    assert!(kept.iter().all(|(found, expected)| *found == *expected));
    drop(kept);
    drop(open(false).unwrap());
    let db = open(true).unwrap();
    assert_eq!(db.stats().read_mode, ReadMode::Mapped);
    assert_eq!(db.open_keyspace("rows").unwrap().unwrap().range(..).count(), 0);
    drop(db);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What readers hold beyond the cache is memory like any other, and none where the file is mapped.
#[test]
fn blocks_that_readers_hold_are_counted_once_the_cache_has_let_them_go() {
    use seawall_engine::ReadMode;
    const ROWS: u64 = 1000;
    const BLOCK_BYTES: u64 = 4096;
    for mode in [ReadMode::Cached, ReadMode::Mapped] {
        let disk = SimDisk::new(1);
        let builder = Db::builder("/store").disk(disk).background(false).read_mode(mode);
        let db = builder.memory_budget(1 << 20).open().unwrap();
        let ks = db.keyspace("a").unwrap();
        for n in 0..ROWS {
            // Each in an extent of its own.
            ks.insert(n.to_be_bytes(), vec![n as u8; 3000]).unwrap();
        }
        db.checkpoint().unwrap();
        let (snapshot, before) = (db.snapshot(), db.stats().memory);
        let get = |n: u64| snapshot.get(&ks, n.to_be_bytes()).unwrap().unwrap();
        for n in 0..ROWS {
            get(n);
        }
        let read = db.stats().memory;
        assert!(read.blocks_held < before.blocks_held + 8 * BLOCK_BYTES, "nobody has them: {read:?}");
        let kept: Vec<_> = (0..ROWS).map(get).collect();
        let held = db.stats().memory;
        if mode == ReadMode::Cached {
            assert!(
                held.cache < held.cache_max && held.blocks_held > ROWS * BLOCK_BYTES - held.cache,
                "{held:?}"
            );
            assert!(held.blocks_held < (ROWS + 100) * BLOCK_BYTES, "{held:?}");
            assert!(held.total() >= held.blocks_held + held.cache);
        } else {
            assert!(held.blocks_held < before.blocks_held + 8 * BLOCK_BYTES, "{held:?}");
        }
        let text = db.stats().to_prometheus();
        let held_text = format!("\nseawall_memory_bytes{{part=\"blocks_held\"}} {}\n", held.blocks_held);
        let mode_text = format!("\nseawall_read_mapped {}\n", u64::from(mode == ReadMode::Mapped));
        assert!(text.contains(&held_text) && text.contains(&mode_text), "{text}");
        assert!(kept.iter().zip(0..ROWS).all(|(found, n)| **found == *vec![n as u8; 3000]));
        drop(kept);
        let after = db.stats().memory;
        assert!(after.blocks_held < before.blocks_held + 8 * BLOCK_BYTES, "{after:?}");
    }
}
