//! The store against a plain map: random transactions, scans both ways, snapshots, checkpoints and reopening.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::{Db, Error, KeyRange, Keyspace, Readable, Snapshot, WriteBatch};
use seawall_wal::SimDisk;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn key(&mut self) -> Vec<u8> {
        match self.below(20) {
            0 => Vec::new(),
            1 => vec![b'k'; self.below(300) as usize],
            2 => vec![0xff; self.below(4) as usize],
            3..6 => format!("n-{:02}", self.below(20)).into_bytes(),
            _ => format!("key-{:03}", self.below(400)).into_bytes(),
        }
    }

    fn number(&mut self) -> i64 {
        if self.below(10) == 0 { i64::MAX - self.below(3) as i64 } else { self.below(2000) as i64 - 1000 }
    }

    /// Mostly a few keys, now and then all; sometimes none.
    fn range(&mut self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let bound =
            |key: Vec<u8>, kind: u64| if kind == 0 { Bound::Excluded(key) } else { Bound::Included(key) };
        match self.below(12) {
            0 => (Bound::Unbounded, Bound::Unbounded),
            1 => (bound(self.key(), self.below(2)), Bound::Unbounded),
            2 => (Bound::Unbounded, bound(self.key(), self.below(2))),
            3 => (bound(self.key(), self.below(2)), bound(self.key(), self.below(2))),
            _ => {
                let from = self.below(400);
                let to = from + self.below(30);
                let key = |at: u64| format!("key-{at:03}").into_bytes();
                (bound(key(from), self.below(2)), bound(key(to), self.below(2)))
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.below(30) {
            0 => 0,
            1 => 20_000,
            2 => 1500,
            3..9 => 8,
            _ => self.below(120),
        };
        vec![self.below(256) as u8; len as usize]
    }
}

fn open(disk: &Arc<SimDisk>) -> Db {
    Db::builder("/store")
        .disk(disk.clone())
        .segment_bytes(256 << 10)
        .memory_budget(4 << 20)
        .background(false)
        .open()
        .unwrap()
}

fn rows(
    scan: impl Iterator<Item = seawall_engine::Result<seawall_engine::Entry>>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    scan.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn model_rows(model: &Model, range: &impl KeyRange) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (from, to) = range.bounds();
    let is_in = |key: &[u8]| {
        let above = match from {
            Bound::Unbounded => true,
            Bound::Included(from) => key >= from,
            Bound::Excluded(from) => key > from,
        };
        above
            && match to {
                Bound::Unbounded => true,
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
            }
    };
    model.iter().filter(|(key, _)| is_in(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn remove_range(model: &mut Model, range: &impl KeyRange) {
    for (key, _) in model_rows(model, range) {
        model.remove(&key);
    }
}

/// False, and nothing done, if the row holds no number.
fn add(model: &mut Model, key: &[u8], delta: i64) -> bool {
    let number = match model.get(key).map(|value| <[u8; 8]>::try_from(&value[..])) {
        None => 0,
        Some(Ok(bytes)) => i64::from_le_bytes(bytes),
        Some(Err(_)) => return false,
    };
    model.insert(key.to_vec(), number.wrapping_add(delta).to_le_bytes().to_vec());
    true
}

fn check(reader: &impl Readable, ks: &Keyspace, model: &Model, random: &mut Random) {
    for _ in 0..10 {
        let key = random.key();
        assert_eq!(reader.get(ks, &key).unwrap().as_deref(), model.get(&key).map(|value| &**value));
        assert_eq!(reader.contains_key(ks, &key).unwrap(), model.contains_key(&key));
    }
    let keys: Vec<Vec<u8>> = (0..random.below(20)).map(|_| random.key()).collect();
    let many = reader.multi_get(ks, &keys).unwrap();
    assert!(
        many.iter().map(|value| value.as_deref()).eq(keys.iter().map(|key| model.get(key).map(|v| &**v)))
    );
    let bound = |random: &mut Random| match random.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(random.key()),
        _ => Bound::Excluded(random.key()),
    };
    for range in [(Bound::Unbounded, Bound::Unbounded), (bound(random), bound(random))] {
        let expected = model_rows(model, &range);
        assert_eq!(rows(reader.range(ks, range.clone())), expected);
        let mut backwards = rows(reader.range(ks, range.clone()).rev());
        backwards.reverse();
        assert_eq!(backwards, expected);
        // From both ends, until they meet.
        let mut scan = reader.range(ks, range);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        loop {
            let is_front = random.below(2) == 0;
            let row = if is_front { scan.next() } else { scan.next_back() };
            let Some(row) = row else { break };
            let row = row.unwrap();
            if is_front { &mut front } else { &mut back }.push((row.0.to_vec(), row.1.to_vec()));
        }
        assert!(scan.next().is_none() && scan.next_back().is_none());
        back.reverse();
        front.extend(back);
        assert_eq!(front, expected);
    }
    let prefix = random.key();
    let expected: Vec<_> =
        model.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(k, _)| k.clone()).collect();
    let found: Vec<_> = reader.prefix(ks, &prefix).keys().map(|key| key.unwrap().to_vec()).collect();
    assert_eq!(found, expected);
    check_cursor(reader, ks, model, random);
}

fn check_cursor(reader: &impl Readable, ks: &Keyspace, model: &Model, random: &mut Random) {
    let keys: Vec<&Vec<u8>> = model.keys().collect();
    let mut cursor = reader.cursor(ks);
    let mut gap = 0;
    for _ in 0..60 {
        match random.below(9) {
            0 => {
                let key = random.key();
                cursor.seek(&key).unwrap();
                gap = keys.partition_point(|k| **k < key);
            }
            1 => {
                let key = random.key();
                cursor.seek_for_prev(&key).unwrap();
                gap = keys.partition_point(|k| **k <= key);
            }
            2 => {
                cursor.seek_first().unwrap();
                gap = 0;
            }
            3 => {
                cursor.seek_last().unwrap();
                gap = keys.len();
            }
            4 | 5 => {
                let shown = cursor.prev().unwrap().map(|(key, _)| key.to_vec());
                assert_eq!(shown.as_ref(), gap.checked_sub(1).map(|at| keys[at]));
                gap = gap.saturating_sub(1);
            }
            6 => {
                let shown = cursor.peek().unwrap().map(|(key, _)| key.to_vec());
                assert_eq!(shown.as_ref(), keys.get(gap).copied());
            }
            _ => {
                let shown = cursor.next().unwrap().map(|(key, value)| (key.to_vec(), value.to_vec()));
                assert_eq!(shown.as_ref().map(|(key, _)| key), keys.get(gap).copied());
                assert_eq!(
                    shown.as_ref().map(|(key, value)| model[key] == *value),
                    keys.get(gap).map(|_| true)
                );
                gap = (gap + 1).min(keys.len());
            }
        }
    }
}

fn change(random: &mut Random, db: &Db, keyspaces: &[Keyspace], models: &mut [Model]) {
    let at = random.below(2) as usize;
    match random.below(4) {
        0 => {
            let mut batch = WriteBatch::new();
            let (ks, mut model, mut is_right) = (&keyspaces[at], models[at].clone(), true);
            for _ in 0..random.below(30) {
                let key = random.key();
                match random.below(10) {
                    0 | 1 => {
                        batch.remove(ks, &key);
                        model.remove(&key);
                    }
                    2 => {
                        let range = random.range();
                        batch.remove_range(ks, range.clone());
                        remove_range(&mut model, &range);
                    }
                    3..6 => {
                        let delta = random.number();
                        // Mostly where it is allowed: a batch fails as a whole.
                        if add(&mut model, &key, delta) {
                            batch.add_i64(ks, &key, delta);
                        } else if random.below(20) == 0 {
                            batch.add_i64(ks, &key, delta);
                            is_right = false;
                        }
                    }
                    _ => {
                        let value = random.value();
                        batch.insert(ks, &key, &value);
                        model.insert(key, value);
                    }
                }
            }
            match db.write(batch) {
                Ok(_) => models[at] = model,
                Err(error) => assert!(!is_right && matches!(error, Error::BadInput(_)), "{error}"),
            }
        }
        _ => transaction(random, db, keyspaces, models),
    }
}

fn transaction(random: &mut Random, db: &Db, keyspaces: &[Keyspace], models: &mut [Model]) {
    let mut transaction = db.begin();
    let mut own = models.to_vec();
    let mut marks = Vec::new();
    for _ in 0..random.below(25) {
        let at = random.below(2) as usize;
        let (ks, model, key) = (&keyspaces[at], &mut own[at], random.key());
        match random.below(16) {
            12 => {
                let range = random.range();
                transaction.remove_range(ks, range.clone()).unwrap();
                remove_range(model, &range);
            }
            13.. => {
                let delta = random.number();
                let added = transaction.add_i64(ks, &key, delta);
                match add(model, &key, delta) {
                    true => added.unwrap(),
                    false => assert!(matches!(added, Err(Error::BadInput(_)))),
                }
            }
            0..=2 => {
                transaction.remove(ks, &key).unwrap();
                model.remove(&key);
            }
            3 => {
                let expected = (random.below(2) == 0).then(|| model.get(&key).cloned()).flatten();
                let new = (random.below(3) > 0).then(|| random.value());
                let is_equal = model.get(&key) == expected.as_ref();
                assert_eq!(
                    transaction.compare_and_set(ks, &key, expected.as_deref(), new.as_deref()).unwrap(),
                    is_equal
                );
                if is_equal {
                    match new {
                        Some(new) => model.insert(key, new),
                        None => model.remove(&key),
                    };
                }
            }
            4 => marks.push((transaction.savepoint(), own.clone())),
            5 if !marks.is_empty() => {
                marks.truncate(1 + random.below(marks.len() as u64) as usize);
                let (savepoint, state) = marks.last().unwrap();
                transaction.rollback_to(savepoint).unwrap();
                own = state.clone();
            }
            6 => check(&transaction, ks, &own[at], random),
            _ => {
                let value = random.value();
                transaction.insert(ks, &key, &value).unwrap();
                model.insert(key, value);
            }
        }
    }
    if random.below(5) == 0 {
        transaction.rollback();
    } else {
        transaction.commit().unwrap();
        models.clone_from_slice(&own);
    }
}

fn run(seed: u64, steps: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let disk = SimDisk::new(seed);
    let mut db = open(&disk);
    let names = ["a", "b"];
    let mut keyspaces: Vec<Keyspace> = names.iter().map(|name| db.keyspace(name).unwrap()).collect();
    let mut models = vec![Model::new(), Model::new()];
    let mut snapshots: Vec<(Snapshot, Vec<Model>)> = Vec::new();
    for _ in 0..steps {
        match random.below(20) {
            0 => {
                db.checkpoint().unwrap();
            }
            1 => snapshots.push((db.snapshot(), models.clone())),
            2 if !snapshots.is_empty() => {
                snapshots.swap_remove(random.below(snapshots.len() as u64) as usize);
            }
            3 if random.below(3) == 0 => {
                snapshots.clear();
                keyspaces.clear();
                if random.below(2) == 0 {
                    db.close().unwrap();
                } else {
                    drop(db);
                }
                db = open(&disk);
                keyspaces = names.iter().map(|name| db.open_keyspace(name).unwrap().unwrap()).collect();
            }
            _ => change(&mut random, &db, &keyspaces, &mut models),
        }
        let at = random.below(2) as usize;
        check(&db.snapshot(), &keyspaces[at], &models[at], &mut random);
        if let Some((snapshot, models)) = snapshots.first() {
            check(snapshot, &keyspaces[at], &models[at], &mut random);
        }
    }
    let report = db.verify(|_| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    drop(snapshots);
}

#[test]
fn random_histories_agree_with_a_model() {
    for seed in 1..=12 {
        run(seed, 120);
    }
}

/// What replay makes is what a checkpoint made, byte for byte.
#[test]
fn replay_and_checkpoint_end_in_the_same_rows() {
    for seed in 100..104 {
        let contents: Vec<_> = [false, true]
            .map(|with_checkpoints| {
                let mut random = Random(seed);
                let disk = SimDisk::new(seed);
                let db = open(&disk);
                let keyspaces = [db.keyspace("a").unwrap(), db.keyspace("b").unwrap()];
                let mut models = vec![Model::new(), Model::new()];
                for step in 0..60 {
                    change(&mut random, &db, &keyspaces, &mut models);
                    if with_checkpoints && step % 7 == 0 {
                        db.checkpoint().unwrap();
                    }
                }
                db.sync().unwrap();
                let survived = disk.crash();
                drop((db, keyspaces));
                let db = open(&survived);
                let snapshot = db.snapshot();
                ["a", "b"].map(|name| {
                    let ks = db.open_keyspace(name).unwrap().unwrap();
                    rows(snapshot.range(&ks, ..))
                })
            })
            .into();
        assert_eq!(contents[0], contents[1], "seed {seed}");
    }
}
