//! Transactions that interleave at random, each replayed at its commit: whatever it read must come out the same if it
//! runs in one moment there, over a plain map that holds all commits before it. That is strict serializability, of all
//! that a transaction can do: clears, adds, locks, scans that stay open, savepoints, keyspaces; beside blind batches,
//! checkpoints, and power cuts after which recovery folds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use seawall_engine::mutation::Mutation;
use seawall_engine::{
    Db, Error, Keyspace, Readable, Savepoint, Scan, Snapshot, Transaction, TxOptions, WriteBatch,
};
use seawall_wal::SimDisk;
use seawall_wal::runtime::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
/// By name; a keyspace that is not there has no entry.
type Model = BTreeMap<usize, Rows>;
type Handles = BTreeMap<usize, Keyspace>;

const NAMES: [&str; 2] = ["a", "b"];
const KEYS: u64 = 12;

fn key(n: u64) -> Vec<u8> {
    format!("k{n:02}").into_bytes()
}

/// What a transaction did, and what it was told.
#[derive(Clone, Debug)]
enum Did {
    Get(usize, Vec<u8>, Option<Vec<u8>>),
    Put(usize, Vec<u8>, Vec<u8>),
    Remove(usize, Vec<u8>),
    Clear(usize, Vec<u8>, Vec<u8>),
    /// Whether the row held a number, or nothing.
    Add(usize, Vec<u8>, i64, bool),
    Mark,
    Back(usize),
    Open(usize, Vec<u8>, Vec<u8>),
    /// The number of the scan, whether from its end, and what came.
    Step(usize, bool, Option<(Vec<u8>, Vec<u8>)>),
    Drop(usize),
    Create(usize),
}

fn add(rows: &mut Rows, key: &[u8], delta: i64) -> bool {
    let old = rows.get(key).map_or(Some([0; 8]), |value| value.as_slice().try_into().ok());
    let Some(old) = old else { return false };
    rows.insert(key.to_vec(), i64::from_le_bytes(old).wrapping_add(delta).to_le_bytes().to_vec());
    true
}

/// The model after all that was done; none if it was told something else.
fn replay(mut model: Model, done: &[Did]) -> Option<Model> {
    let (mut marks, mut scans) = (Vec::new(), Vec::new());
    for did in done {
        let is_right = match did {
            Did::Create(ks) => model.insert(*ks, Rows::new()).is_none(),
            Did::Drop(ks) => model.remove(ks).is_some(),
            Did::Mark => {
                marks.push(model.clone());
                true
            }
            Did::Back(mark) => {
                marks.truncate(mark + 1);
                model = marks[*mark].clone();
                true
            }
            Did::Step(scan, is_reverse, row) => {
                let rows: &mut Rows = &mut scans[*scan];
                *row == if *is_reverse { rows.pop_last() } else { rows.pop_first() }
            }
            Did::Open(ks, from, to) => {
                let rows = model.get(ks)?.clone().into_iter().filter(|(key, _)| (from..to).contains(&key));
                scans.push(rows.collect());
                true
            }
            Did::Get(ks, key, value) => model.get(ks)?.get(key) == value.as_ref(),
            Did::Put(ks, key, value) => {
                model.get_mut(ks)?.insert(key.clone(), value.clone());
                true
            }
            Did::Remove(ks, key) => {
                model.get_mut(ks)?.remove(key);
                true
            }
            Did::Clear(ks, from, to) => {
                model.get_mut(ks)?.retain(|key, _| !(from..to).contains(&key));
                true
            }
            Did::Add(ks, key, delta, is_number) => add(model.get_mut(ks)?, key, *delta) == *is_number,
        };
        if !is_right {
            return None;
        }
    }
    Some(model)
}

struct Open {
    tx: Transaction,
    done: Vec<Did>,
    scans: Vec<Option<Scan>>,
    marks: Vec<Savepoint>,
    /// The handles that it uses: those of its own making first.
    made: Handles,
    /// How many commits there were before it.
    begun: usize,
    /// An add keeps the snapshot where it is.
    adds: bool,
}

struct Run {
    rng: Rng,
    db: Db,
    model: Model,
    /// The model before each commit.
    past: Vec<Model>,
    /// Old snapshots, the keyspaces that they see, and what they hold.
    held: Vec<(Snapshot, Handles, Model)>,
    handles: Handles,
    counts: BTreeMap<&'static str, u64>,
    name: String,
}

fn open(disk: &Arc<SimDisk>, replay_bytes: Option<u64>, mutation: Option<Mutation>) -> Db {
    Db::builder("/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(1 << 20)
        .replay_bytes(replay_bytes)
        .mutation(mutation)
        .background(false)
        .open()
        .unwrap()
}

impl Run {
    fn value(&mut self) -> Vec<u8> {
        let len = [8, 8, 8, 3, 30, 900][self.rng.below(6) as usize];
        vec![self.rng.below(200) as u8; len]
    }

    fn span(&mut self) -> (Vec<u8>, Vec<u8>) {
        let from = self.rng.below(KEYS);
        (key(from), key(from + 1 + self.rng.below(KEYS / 2)))
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn begin(&mut self) -> Open {
        let options = TxOptions { lock_timeout: Some(Duration::ZERO), ..Default::default() };
        Open {
            tx: self.db.begin_with(options),
            done: Vec::new(),
            scans: Vec::new(),
            marks: Vec::new(),
            made: BTreeMap::new(),
            begun: self.past.len(),
            adds: self.rng.chance(1, 2),
        }
    }

    /// One step. False if it can only be given up.
    fn step(&mut self, open: &mut Open) -> bool {
        let ks = usize::from(self.rng.chance(1, 4));
        let (n, what) = (self.rng.below(KEYS), self.rng.below(24));
        if what == 0 {
            open.marks.push(open.tx.savepoint());
            open.done.push(Did::Mark);
            return true;
        }
        if what == 1 && !open.marks.is_empty() {
            let mark = self.rng.below(open.marks.len() as u64) as usize;
            open.marks.truncate(mark + 1);
            open.tx.rollback_to(&open.marks[mark]).unwrap();
            open.done.push(Did::Back(mark));
            return true;
        }
        if (2..=5).contains(&what) && !open.scans.is_empty() {
            let at = self.rng.below(open.scans.len() as u64) as usize;
            if what == 2 {
                open.scans[at] = None;
                return true;
            }
            let is_reverse = self.rng.chance(1, 2);
            let Some(scan) = &mut open.scans[at] else { return true };
            let row = if is_reverse { scan.next_back() } else { scan.next() };
            let is_over = row.is_none();
            let row = row.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap());
            open.done.push(Did::Step(at, is_reverse, row));
            if is_over {
                open.scans[at] = None;
            }
            return true;
        }
        let Some(handle) = open.made.get(&ks).or(self.handles.get(&ks)).cloned() else {
            return self.make(open, ks);
        };
        let tx = &mut open.tx;
        let did = match what {
            6..=8 => {
                tx.get(&handle, key(n)).map(|value| Did::Get(ks, key(n), value.map(|value| value.to_vec())))
            }
            9..=11 => {
                let got = tx.get_for_update(&handle, key(n));
                self.counts
                    .entry(if got.is_ok() { "locked" } else { "not locked" })
                    .and_modify(|n| *n += 1)
                    .or_default();
                got.map(|value| Did::Get(ks, key(n), value.map(|value| value.to_vec())))
            }
            12 | 13 => {
                let value = self.value();
                tx.insert(&handle, key(n), &value).map(|()| Did::Put(ks, key(n), value))
            }
            14 => tx.remove(&handle, key(n)).map(|()| Did::Remove(ks, key(n))),
            15 | 16 => {
                let (from, to) = self.span();
                tx.remove_range(&handle, &from[..]..&to[..]).map(|()| Did::Clear(ks, from, to))
            }
            17..=20 if open.adds => match tx.add_i64(&handle, key(n), 1 + n as i64) {
                Err(Error::BadInput(_)) => Ok(Did::Add(ks, key(n), 1 + n as i64, false)),
                added => added.map(|()| Did::Add(ks, key(n), 1 + n as i64, true)),
            },
            21 | 22 => {
                let (from, to) = self.span();
                let scan = tx.range(&handle, &from[..]..&to[..]);
                // Of a keyspace that is not there it is told at the first row.
                tx.multi_get::<&str>(&handle, &[]).map(|_| {
                    open.scans.push(Some(scan));
                    Did::Open(ks, from, to)
                })
            }
            _ if self.rng.chance(1, 6) => tx.drop_keyspace(&handle).map(|()| Did::Drop(ks)),
            _ => return true,
        };
        match did {
            Ok(did) => open.done.push(did),
            Err(Error::KeyspaceMissing(_)) => return self.make(open, ks),
            Err(Error::LockTimeout) => {}
            Err(Error::Conflict | Error::Deadlock) => return false,
            Err(error) => panic!("{}: {error}", self.name),
        }
        true
    }

    fn make(&mut self, open: &mut Open, ks: usize) -> bool {
        match open.tx.create_keyspace(NAMES[ks], Default::default()) {
            Ok(handle) => {
                open.made.insert(ks, handle);
                open.done.push(Did::Create(ks));
            }
            // There is one, of which the handle is another's.
            Err(Error::BadInput(_)) => {}
            Err(error) => panic!("{}: {error}", self.name),
        }
        true
    }

    fn end(&mut self, open: Open) {
        let Open { tx, done, made, begun, .. } = open;
        if self.rng.chance(1, 10) {
            return tx.rollback();
        }
        let before = self.db.stats().visible_lsn;
        let outcome = match self.rng.below(2) {
            0 => tx.commit(),
            _ => tx.commit_pipelined().and_then(|ticket| ticket.wait()),
        };
        match outcome {
            Ok(_) if self.db.stats().visible_lsn > before => {
                let next = replay(self.model.clone(), &done);
                let next = next.unwrap_or_else(|| panic!("{}: {done:?}\nover {:?}", self.name, self.model));
                self.past.push(std::mem::replace(&mut self.model, next));
                self.handles.extend(made);
                self.find_handles();
                self.count("commit");
            }
            Ok(_) => {
                // Who wrote nothing stands where it began, or where a lock has moved it.
                let mut models = self.past.get(begun..).unwrap_or_default().iter().chain([&self.model]);
                let is_right = models.any(|model| replay(model.clone(), &done).is_some());
                assert!(is_right, "{}: {done:?}", self.name);
            }
            Err(Error::Conflict | Error::KeyspaceMissing(_)) => self.count("conflict"),
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    fn find_handles(&mut self) {
        for (ks, name) in NAMES.iter().enumerate() {
            match self.db.open_keyspace(name).unwrap() {
                Some(handle) => drop(self.handles.insert(ks, handle)),
                None => drop(self.handles.remove(&ks)),
            }
        }
    }

    fn batch(&mut self) {
        let (mut batch, mut model) = (WriteBatch::new(), self.model.clone());
        let mut is_bad = false;
        for _ in 0..1 + self.rng.below(4) {
            let (ks, n) = (usize::from(self.rng.chance(1, 4)), self.rng.below(KEYS));
            let Some(handle) = self.handles.get(&ks).cloned() else { continue };
            let rows = model.get_mut(&ks).unwrap();
            match self.rng.below(6) {
                0 => {
                    let (from, to) = self.span();
                    batch.remove_range(&handle, &from[..]..&to[..]);
                    rows.retain(|key, _| !(&from..&to).contains(&key));
                }
                1 | 2 => {
                    let value = self.value();
                    batch.insert(&handle, key(n), &value);
                    rows.insert(key(n), value);
                }
                3 => {
                    batch.remove(&handle, key(n));
                    rows.remove(&key(n));
                }
                _ => {
                    batch.add_i64(&handle, key(n), -3);
                    is_bad |= !add(rows, &key(n), -3);
                }
            }
        }
        match self.db.write(batch) {
            Ok(_) => self.past.push(std::mem::replace(&mut self.model, model)),
            Err(Error::BadInput(_)) if is_bad => {}
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    fn compare(&mut self) {
        self.held.push((self.db.snapshot(), self.handles.clone(), self.model.clone()));
        for (snapshot, handles, model) in &self.held {
            self.compare_with(snapshot, handles, model);
        }
        assert!(self.db.verify(|_| {}).unwrap().problems.is_empty(), "{}", self.name);
        if self.held.len() > 3 {
            self.held.swap_remove(0);
        }
    }

    fn compare_with(&self, snapshot: &Snapshot, handles: &Handles, model: &Model) {
        let mut found = Model::new();
        for (ks, handle) in handles {
            let rows = |scan: Scan| -> Rows {
                scan.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
            };
            let forth = rows(snapshot.range(handle, ..));
            let mut back: Vec<_> = snapshot.range(handle, ..).rev().map(Result::unwrap).collect();
            back.reverse();
            assert!(
                back.iter().map(|(k, v)| (&**k, &**v)).eq(forth.iter().map(|(k, v)| (&k[..], &v[..]))),
                "{}",
                self.name
            );
            for n in 0..KEYS {
                let got = snapshot.get(handle, key(n)).unwrap().map(|value| value.to_vec());
                assert_eq!(got.as_ref(), forth.get(&key(n)), "{}", self.name);
            }
            found.insert(*ks, forth);
        }
        assert_eq!(found, *model, "{}", self.name);
    }
}

/// One store's life, and what happened in it.
fn live(seed: u64, mutation: Option<Mutation>) -> BTreeMap<&'static str, u64> {
    let mut disk = SimDisk::new(seed);
    let db = open(&disk, None, mutation);
    let handles: Handles =
        NAMES.iter().enumerate().map(|(ks, name)| (ks, db.keyspace(name).unwrap())).collect();
    let model: Model = handles.keys().map(|ks| (*ks, Rows::new())).collect();
    let (counts, name) = (BTreeMap::new(), format!("seed {seed}"));
    let mut run =
        Run { rng: Rng::new(seed), db, model, past: Vec::new(), held: Vec::new(), handles, counts, name };
    let mut opens: Vec<Open> = Vec::new();
    for _ in 0..600 {
        match run.rng.below(40) {
            0..=3 if opens.len() < 5 => {
                let open = run.begin();
                opens.push(open);
            }
            4..=6 if !opens.is_empty() => {
                let at = run.rng.below(opens.len() as u64) as usize;
                let open = opens.swap_remove(at);
                run.end(open);
            }
            7 => run.batch(),
            8 => drop(run.db.checkpoint().unwrap()),
            9 => run.compare(),
            10 if run.rng.chance(1, 4) => {
                opens.clear();
                run.handles.clear();
                run.held.clear();
                disk = disk.crash();
                let folds = run.rng.chance(1, 2).then_some(1 + run.rng.below(20_000));
                run.db = open(&disk, folds, mutation);
                run.find_handles();
                run.compare();
            }
            _ if !opens.is_empty() => {
                let at = run.rng.below(opens.len() as u64) as usize;
                let mut open = opens.swap_remove(at);
                if run.step(&mut open) {
                    opens.push(open);
                }
            }
            _ => {}
        }
    }
    opens.clear();
    run.compare();
    run.counts
}

#[test]
fn every_transaction_could_have_run_at_its_commit() {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..80 {
        for (what, count) in live(seed, None) {
            *counts.entry(what).or_default() += count;
        }
    }
    let count = |what| counts.get(what).copied().unwrap_or(0);
    assert!(count("commit") > 500 && count("conflict") > 100, "{counts:?}");
    assert!(count("locked") > 100 && count("not locked") > 100, "{counts:?}");
}

#[test]
fn what_is_not_validated_is_found() {
    for mutation in [
        Mutation::SkipValidation,
        Mutation::SkipPoints,
        Mutation::SkipSpans,
        Mutation::RefreshBlindly,
        Mutation::ReadUncleared,
        Mutation::FoldUncleared,
        Mutation::FoldAddsTwice,
        Mutation::RedoApplied,
    ] {
        let is_found = (0..400).any(|seed| std::panic::catch_unwind(|| live(seed, Some(mutation))).is_err());
        assert!(is_found, "{mutation:?}");
    }
}

fn one() -> (Db, Keyspace) {
    let db = open(&SimDisk::new(1), None, None);
    let ks = db.keyspace("a").unwrap();
    (db, ks)
}

/// A scan that was not stepped yet holds the snapshot as well: what it will show is what the commit is validated for.
#[test]
fn no_lock_moves_the_snapshot_under_a_scan() {
    let (db, ks) = one();
    ks.insert("x", "old").unwrap();
    for is_ended in [false, true] {
        let mut tx = db.begin();
        let mut scan = tx.range(&ks, .."y");
        if is_ended {
            assert_eq!(scan.by_ref().count(), 1);
        }
        ks.insert("z", "newer").unwrap();
        let locked = tx.get_for_update(&ks, "z");
        assert_eq!(locked.is_ok(), is_ended, "an ended scan shows nothing more");
        drop(scan);
    }
    let mut tx = db.begin();
    drop(tx.range(&ks, ..));
    ks.insert("z", "newer still").unwrap();
    assert_eq!(&*tx.get_for_update(&ks, "z").unwrap().unwrap(), b"newer still");
}

/// An add that is refused, or taken back, has told something of its row.
#[test]
fn an_add_that_is_not_written_was_a_read() {
    for way in 0..3 {
        let (db, ks) = one();
        let (before, after): (&[u8], &[u8]) = if way == 0 { (b"word", &[0; 8]) } else { (&[0; 8], b"word") };
        ks.insert("n", before).unwrap();
        let mut tx = db.begin();
        let savepoint = tx.savepoint();
        assert_eq!(tx.add_i64(&ks, "n", 1).is_err(), way == 0);
        match way {
            0 => {}
            1 => tx.rollback_to(&savepoint).unwrap(),
            _ => tx.drop_keyspace(&ks).unwrap(),
        }
        if way < 2 {
            tx.create_keyspace("result", Default::default()).unwrap();
        }
        ks.insert("n", after).unwrap();
        assert!(tx.commit().unwrap_err().is_conflict(), "{way}");
    }
    // One that is still written commutes, savepoints or not.
    let (db, ks) = one();
    let mut tx = db.begin();
    tx.add_i64(&ks, "n", 1).unwrap();
    let savepoint = tx.savepoint();
    tx.add_i64(&ks, "n", 1).unwrap();
    tx.rollback_to(&savepoint).unwrap();
    db.transact(|other| other.add_i64(&ks, "n", 5)).unwrap();
    tx.commit().unwrap();
    assert_eq!(&*ks.get("n").unwrap().unwrap(), &6_i64.to_le_bytes());
}
