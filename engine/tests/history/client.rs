//! What the clients do: transactions over a few lists and registers, many of them reading what others write. Some write
//! by clearing the row first, or a few rows that stand side by side. And they add: to two numbers whose sum stays 0 in
//! every snapshot, and to one that counts the commits which did.

use crate::check::{Op, Outcome, Txn};
use seawall_engine::{
    Db, Durability, Error, Isolation, Keyspace, Readable, Result, Slice, Snapshot, Transaction, TxOptions,
    WriteBatch,
};
use seawall_wal::runtime::{Rng, SimRuntime};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Few, so that clients meet.
pub(crate) const LISTS: u64 = 6;
pub(crate) const REGISTERS: u64 = 3;

/// What all clients write down, over all lives of the store.
#[derive(Default)]
pub(crate) struct Book {
    moment: AtomicU64,
    element: AtomicU64,
    /// Adds to the count that were committed, and those of which nobody knows.
    added: AtomicU64,
    maybe_added: AtomicU64,
    pub(crate) txns: Mutex<Vec<Txn>>,
    /// How often what happened.
    pub(crate) counts: Mutex<BTreeMap<&'static str, u64>>,
}

fn name_of(error: &Error) -> &'static str {
    match error {
        Error::Conflict => "conflict",
        Error::Deadlock => "deadlock",
        Error::LockTimeout => "lock timeout",
        Error::CommitUnknown { .. } => "commit unknown",
        Error::Poisoned(_) | Error::Io { .. } => "the store is gone",
        _ => "other",
    }
}

impl Book {
    fn moment(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::SeqCst)
    }

    fn element(&self) -> u64 {
        1 + self.element.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    fn write_down(&self, txn: Txn) {
        let added = txn.ops.iter().filter(|op| matches!(op, Op::Add)).count() as u64;
        match txn.outcome {
            Outcome::Committed => drop(self.added.fetch_add(added, Ordering::SeqCst)),
            Outcome::Unknown => drop(self.maybe_added.fetch_add(added, Ordering::SeqCst)),
            Outcome::Aborted => {}
        }
        self.txns.lock().unwrap().push(txn);
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) db: Db,
    pub(crate) rows: Keyspace,
    pub(crate) padding: Keyspace,
    pub(crate) book: Arc<Book>,
    pub(crate) runtime: Arc<SimRuntime>,
    pub(crate) isolation: Isolation,
    /// This life ends with a close, which loses nothing: commits may ask for less than the device.
    pub(crate) is_calm: bool,
    pub(crate) rng: Rng,
}

fn list_key(n: u64) -> String {
    format!("list-{n}")
}

fn register_key(n: u64) -> String {
    format!("register-{n}")
}

/// Two that are added to together, and a count.
const SUMS: [&str; 2] = ["sum-0", "sum-1"];
const COUNT: &str = "sum-2";

fn number(value: Option<Slice>) -> i64 {
    value.map_or(0, |value| i64::from_le_bytes((*value).try_into().unwrap()))
}

fn elements(value: Option<&[u8]>) -> Vec<u64> {
    value.unwrap_or_default().chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// What a scan has shown of the lists from a first one on and below another, absent ones included.
fn scanned(from: u64, to: u64, shown: &[(Slice, Slice)]) -> Vec<Op> {
    let shown: BTreeMap<&[u8], &[u8]> = shown.iter().map(|(key, value)| (&**key, &**value)).collect();
    (from..to)
        .map(list_key)
        .map(|key| {
            let list = elements(shown.get(key.as_bytes()).copied());
            Op::Read(key, list)
        })
        .collect()
}

impl Client {
    /// Some transactions; ends early when the store gives up.
    pub(crate) fn run(mut self, count: u64) {
        for round in 0..count {
            let name = format!("{}-{round}", self.name);
            let goes_on = match self.rng.below(12) {
                0 => self.blind(name),
                1 => self.fill(),
                2 => self.look(name),
                _ => self.transaction(name),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// A crash is over: everything there is, read in one snapshot.
    pub(crate) fn read_all(self) {
        let begin = self.book.moment();
        let snapshot = self.db.snapshot();
        let ops = self.all(&snapshot).unwrap();
        let count = number(snapshot.get(&self.rows, COUNT).unwrap()) as u64;
        let added = self.book.added.load(Ordering::SeqCst);
        let possible = added..=added + self.book.maybe_added.load(Ordering::SeqCst);
        assert!(possible.contains(&count), "{}: {count} adds of {possible:?}", self.name);
        self.note(self.name.clone(), begin, Outcome::Committed, None, ops);
    }

    fn note(&self, name: String, begin: u64, outcome: Outcome, lsn: Option<u64>, ops: Vec<Op>) {
        let end = (outcome == Outcome::Committed).then(|| self.book.moment());
        self.book.write_down(Txn { name, begin, end, outcome, lsn, ops });
    }

    fn all(&self, snapshot: &Snapshot) -> Result<Vec<Op>> {
        let rows: Vec<_> = snapshot.prefix(&self.rows, "list-").collect::<Result<_>>()?;
        let mut ops = scanned(0, LISTS, &rows);
        for key in (0..REGISTERS).map(register_key) {
            let value = snapshot.get(&self.rows, &key)?;
            ops.push(Op::Look(key, value.map(|value| elements(Some(&value))[0])));
        }
        self.sums(snapshot)?;
        Ok(ops)
    }

    fn sums(&self, reads: &impl Readable) -> Result<()> {
        let [a, b] = [reads.get(&self.rows, SUMS[0])?, reads.get(&self.rows, SUMS[1])?].map(number);
        assert_eq!(a.wrapping_add(b), 0, "{}: half of an add, or of a clear", self.name);
        Ok(())
    }

    /// Registers, written without reading anything, and without a transaction.
    fn blind(&mut self, name: String) -> bool {
        let begin = self.book.moment();
        let mut batch = WriteBatch::new();
        let mut ops = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let (key, value) = (register_key(self.rng.below(REGISTERS)), self.book.element());
            if self.rng.chance(1, 4) {
                batch.remove_range(&self.rows, key.as_str()..=key.as_str());
            }
            batch.insert(&self.rows, &key, value.to_le_bytes());
            ops.push(Op::Set(key, value));
        }
        if self.rng.chance(1, 3) {
            let delta = self.rng.next_u64() as i64;
            if self.rng.chance(1, 3) {
                batch.remove_range(&self.rows, SUMS[0]..=SUMS[1]);
            }
            batch.add_i64(&self.rows, SUMS[0], delta).add_i64(&self.rows, SUMS[1], delta.wrapping_neg());
            batch.add_i64(&self.rows, COUNT, 1);
            ops.push(Op::Add);
        }
        let durability = self.durability();
        let outcome = self.db.write_with(batch, durability);
        self.told(name, begin, outcome.map(|lsn| lsn.0), ops)
    }

    /// Rows that nobody reads, and so many that what is validated against is given up, or a checkpoint.
    fn fill(&mut self) -> bool {
        if self.rng.chance(1, 2) {
            return self.db.checkpoint().is_ok();
        }
        let rounds = 1 + self.rng.below(4);
        (0..rounds).all(|n| {
            self.padding.insert(n.to_le_bytes(), vec![0; 140_000]).is_ok() && self.db.checkpoint().is_ok()
        })
    }

    /// Who only reads loses to nobody, with a transaction or without.
    fn look(&mut self, name: String) -> bool {
        let begin = self.book.moment();
        let snapshot = self.db.snapshot();
        self.pause();
        match self.all(&snapshot) {
            Ok(ops) => {
                self.note(name, begin, Outcome::Committed, None, ops);
                true
            }
            Err(error) => matches!(error, Error::SnapshotTooOld { .. }),
        }
    }

    fn transaction(&mut self, name: String) -> bool {
        let begin = self.book.moment();
        let options = TxOptions {
            isolation: Some(self.isolation),
            durability: Some(self.durability()),
            lock_timeout: self.rng.chance(1, 4).then_some(Duration::from_micros(self.rng.below(200))),
            ..Default::default()
        };
        let mut tx = self.db.begin_with(options);
        let mut ops = Vec::new();
        let style = self.rng.below(4);
        let steps = 1 + self.rng.below(5);
        // Now and then one takes so long that all others end meanwhile.
        let slow_at = if self.rng.chance(1, 8) { self.rng.below(steps) } else { steps };
        for at in 0..steps {
            if at == slow_at {
                self.runtime.sleep(Duration::from_millis(5));
            }
            if let Err(error) = self.step(&mut tx, style, &mut ops) {
                self.book.count(name_of(&error));
                drop(tx);
                self.note(name, begin, Outcome::Aborted, None, ops);
                return self.db.stats().poisoned.is_none();
            }
            self.pause();
        }
        let has_written = ops.iter().any(|op| matches!(op, Op::Append(..) | Op::Set(..) | Op::Add));
        let outcome = match self.rng.below(8) {
            0 => {
                tx.rollback();
                self.note(name, begin, Outcome::Aborted, None, ops);
                return true;
            }
            1 | 2 => tx.commit_pipelined().and_then(|ticket| ticket.wait()),
            _ => tx.commit(),
        };
        if !has_written && matches!(outcome, Err(Error::Conflict)) {
            panic!("{name} wrote nothing, and lost");
        }
        self.told(name, begin, outcome.map(|lsn| lsn.0), ops)
    }

    fn told(&self, name: String, begin: u64, outcome: Result<u64>, ops: Vec<Op>) -> bool {
        self.book.count(outcome.as_ref().map_or_else(name_of, |_| "commit"));
        match outcome {
            Ok(lsn) => {
                self.note(name, begin, Outcome::Committed, Some(lsn), ops);
                true
            }
            Err(Error::CommitUnknown { lsn }) => {
                self.note(name, begin, Outcome::Unknown, Some(lsn.0), ops);
                false
            }
            Err(error) => {
                self.note(name, begin, Outcome::Aborted, None, ops);
                error.is_retryable() || matches!(error, Error::SnapshotTooOld { .. })
            }
        }
    }

    /// One thing of what a transaction does; the style says what it does most.
    fn step(&mut self, tx: &mut Transaction, style: u64, ops: &mut Vec<Op>) -> Result<()> {
        let key = list_key(self.rng.below(LISTS));
        match self.rng.below(8) {
            0 | 1 if style == 0 => self.scan(tx, ops)?,
            0..=4 if style == 1 => {
                // Of these few, so that those who lock meet.
                let key = list_key(self.rng.below(LISTS / 2));
                let list = elements(tx.get_for_update(&self.rows, &key)?.as_deref());
                ops.push(Op::Read(key.clone(), list));
                if self.rng.chance(1, 2) {
                    self.append(tx, key, ops)?;
                }
            }
            0 => {
                let key = register_key(self.rng.below(REGISTERS));
                let value = tx.get(&self.rows, &key)?;
                ops.push(Op::Look(key, value.map(|value| elements(Some(&value))[0])));
            }
            1 => {
                let (key, value) = (register_key(self.rng.below(REGISTERS)), self.book.element());
                if self.rng.chance(1, 4) {
                    tx.remove_range(&self.rows, key.as_str()..=key.as_str())?;
                }
                tx.insert(&self.rows, &key, value.to_le_bytes())?;
                ops.push(Op::Set(key, value));
            }
            2 if style == 3 => self.rewrite(tx, ops)?,
            3 if style == 3 => self.add(tx, ops)?,
            4 if style == 3 => self.sums(tx)?,
            2 if style == 2 => {
                // Several at once: such commits are applied beside others.
                for _ in 0..3 {
                    let key = list_key(self.rng.below(LISTS));
                    self.append(tx, key, ops)?;
                }
            }
            2..=4 => self.append(tx, key, ops)?,
            5 => {
                let keys: Vec<String> = (0..2).map(|_| list_key(self.rng.below(LISTS))).collect();
                let values = tx.multi_get(&self.rows, &keys)?;
                for (key, value) in keys.into_iter().zip(values) {
                    ops.push(Op::Read(key, elements(value.as_deref())));
                }
            }
            _ => {
                let list = elements(tx.get(&self.rows, &key)?.as_deref());
                ops.push(Op::Read(key, list));
            }
        }
        Ok(())
    }

    fn append(&self, tx: &mut Transaction, key: String, ops: &mut Vec<Op>) -> Result<()> {
        let old = tx.get(&self.rows, &key)?;
        ops.push(Op::Read(key.clone(), elements(old.as_deref())));
        let element = self.book.element();
        let value = [old.as_deref().unwrap_or_default(), &element.to_le_bytes()].concat();
        tx.insert(&self.rows, &key, value)?;
        ops.push(Op::Append(key, element));
        Ok(())
    }

    /// A few lists that stand side by side are cleared, and come back longer.
    fn rewrite(&mut self, tx: &mut Transaction, ops: &mut Vec<Op>) -> Result<()> {
        let from = self.rng.below(LISTS);
        let keys: Vec<String> = (from..LISTS.min(from + 3)).map(list_key).collect();
        let old = tx.multi_get(&self.rows, &keys)?;
        tx.remove_range(&self.rows, list_key(from).as_str()..list_key(LISTS.min(from + 3)).as_str())?;
        for (key, old) in keys.into_iter().zip(old) {
            ops.push(Op::Read(key.clone(), elements(old.as_deref())));
            assert!(tx.get(&self.rows, &key)?.is_none(), "{}: it was cleared", self.name);
            let element = self.book.element();
            let value = [old.as_deref().unwrap_or_default(), &element.to_le_bytes()].concat();
            tx.insert(&self.rows, &key, value)?;
            ops.push(Op::Append(key, element));
        }
        Ok(())
    }

    fn add(&mut self, tx: &mut Transaction, ops: &mut Vec<Op>) -> Result<()> {
        let delta = self.rng.next_u64() as i64;
        if self.rng.chance(1, 5) {
            tx.remove_range(&self.rows, SUMS[0]..=SUMS[1])?;
        }
        tx.add_i64(&self.rows, SUMS[1], delta)?;
        tx.add_i64(&self.rows, SUMS[0], delta.wrapping_neg())?;
        tx.add_i64(&self.rows, COUNT, 1)?;
        ops.push(Op::Add);
        Ok(())
    }

    /// Some of the rows of a range, from either end, or all of them.
    fn scan(&mut self, tx: &Transaction, ops: &mut Vec<Op>) -> Result<()> {
        let from = self.rng.below(LISTS);
        let to = from + 1 + self.rng.below(LISTS - from);
        let mut rows = tx.range(&self.rows, list_key(from)..list_key(to));
        let limit = if self.rng.chance(1, 2) { self.rng.below(3) as usize } else { usize::MAX };
        let is_reverse = self.rng.chance(1, 2);
        let mut shown = Vec::new();
        let mut is_over = false;
        while shown.len() < limit {
            let row = if is_reverse { rows.next_back() } else { rows.next() };
            match row {
                Some(row) => shown.push(row?),
                None => {
                    is_over = true;
                    break;
                }
            }
            self.pause();
        }
        let number = |(key, _): &(Slice, Slice)| u64::from(key[key.len() - 1] - b'0');
        let (from, to) = match (shown.last(), is_over) {
            (_, true) => (from, to),
            (None, false) => (0, 0),
            (Some(last), false) if is_reverse => (number(last), to),
            (Some(last), false) => (from, number(last) + 1),
        };
        ops.extend(scanned(from, to, &shown));
        Ok(())
    }

    fn durability(&mut self) -> Durability {
        if self.is_calm && self.rng.chance(2, 3) { Durability::Memory } else { Durability::Synced }
    }

    fn pause(&mut self) {
        if self.rng.chance(1, 6) {
            self.runtime.sleep(Duration::from_micros(self.rng.below(100)));
        } else {
            self.runtime.yield_point();
        }
    }
}
