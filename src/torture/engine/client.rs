//! One client of the engine under torture: each step is one transaction, and the history told of it.

mod prepared;
mod rivals;
mod streams;

use super::KEYSPACES;
use super::model::{Change, History};
use seawall_engine::{
    Compression, Db, Durability, Error, Keyspace, KeyspaceOptions, Lsn, Readable, Ticket, Transaction,
    WriteBatch,
};
use seawall_wal::runtime::{Rng, SimRuntime};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(super) struct Client {
    db: Db,
    history: Arc<Mutex<History>>,
    rng: Rng,
    runtime: Arc<SimRuntime>,
    threads: bool,
    /// What was done, and how often.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Client {
    pub(super) fn new(
        db: Db,
        history: Arc<Mutex<History>>,
        rng: Rng,
        runtime: Arc<SimRuntime>,
        threads: bool,
    ) -> Client {
        Client { db, history, rng, runtime, threads, counts: BTreeMap::new() }
    }

    fn hit(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        self.runtime.advance(Duration::from_micros(self.rng.below(300)));
        let result = match self.rng.below(32) {
            25 | 26 => self.prepare_with_reads(),
            27 | 28 => self.outcome(),
            29 => self.probe(),
            30 => self.stream(),
            31 => self.fill(),
            0 if !self.threads => self.drop_keyspace(),
            20 if !self.threads => self.keyspaces_in_a_transaction(),
            20 | 21 => self.adds_side_by_side(),
            22 => self.clear_and_write(),
            23 => self.single_clear(),
            24 => self.single_add(),
            0 => self.look(),
            1 => self.sync(),
            2..=4 => self.single(),
            5..=8 => self.batch(),
            9..=12 => self.transaction(),
            13..=15 => self.transfer(),
            16 => self.pipelined(),
            17 => self.savepoint(),
            18 => self.race(),
            _ => self.compare_and_set(),
        };
        self.settle(result)
    }

    /// What is in doubt is respected.
    pub(super) fn probe_now(&mut self) -> Result<(), String> {
        let result = self.probe();
        self.settle(result)
    }

    /// Errors that may be.
    fn settle(&mut self, result: Result<(), Failed>) -> Result<(), String> {
        match result {
            Ok(()) => Ok(()),
            Err(Failed::Engine(Error::Conflict)) => {
                self.hit("conflict");
                Ok(())
            }
            // Only what is in doubt is in the way.
            Err(Failed::Engine(Error::PreparedConflict { xid })) => {
                self.hit("refused for what is prepared");
                let history = self.history();
                let is_open = history.branches.get(&xid).is_some_and(|branch| branch.ended.is_none());
                if is_open || self.threads || history.has_failed {
                    return Ok(());
                }
                Err(format!("{xid} is in the way, and has its outcome"))
            }
            // Nothing was placed.
            Err(Failed::Engine(Error::TooLarge { .. })) => Ok(()),
            Err(Failed::Engine(error)) => self.history().note(&error),
            Err(Failed::Wrong(what)) => Err(what),
        }
    }

    /// Makes a keyspace unless it is there.
    pub(super) fn create(&mut self, name: &str) -> Result<Keyspace, Error> {
        if let Some(ks) = self.db.open_keyspace(name)? {
            return Ok(ks);
        }
        let options = self.options();
        let made = self.db.keyspace_with(name, options);
        let changes = vec![Change::Create(name.to_owned())];
        match &made {
            Ok(_) => {
                let lsn = self.history().attempt(None, changes);
                self.history().promise(lsn, Durability::Synced);
            }
            Err(Error::CommitUnknown { lsn }) => drop(self.history().attempt(Some(*lsn), changes)),
            Err(_) => {}
        }
        made
    }

    /// Half of the keyspaces are compressed.
    fn options(&mut self) -> KeyspaceOptions {
        if self.rng.chance(1, 2) {
            return KeyspaceOptions::default();
        }
        self.hit("keyspace compressed");
        KeyspaceOptions { compression: Compression::Lz4, ..KeyspaceOptions::default() }
    }

    fn keyspace(&mut self) -> Result<Keyspace, Error> {
        let name = KEYSPACES[self.rng.below(KEYSPACES.len() as u64) as usize];
        self.create(name)
    }

    fn drop_keyspace(&mut self) -> Result<(), Failed> {
        let name = KEYSPACES[self.rng.below(KEYSPACES.len() as u64) as usize];
        let Some(ks) = self.db.open_keyspace(name)? else { return Ok(()) };
        let dropped = self.db.drop_keyspace(ks);
        let changes = vec![Change::Drop(name.to_owned())];
        match &dropped {
            Ok(()) => {
                let lsn = self.history().attempt(None, changes);
                self.history().promise(lsn, Durability::Synced);
                self.hit("keyspace dropped");
            }
            Err(Error::CommitUnknown { lsn }) => drop(self.history().attempt(Some(*lsn), changes)),
            Err(_) => {}
        }
        Ok(dropped?)
    }

    fn sync(&mut self) -> Result<(), Failed> {
        let attempted = self.history().attempted();
        self.db.sync()?;
        if !self.threads {
            self.history().promise_all(attempted);
        }
        Ok(())
    }

    fn single(&mut self) -> Result<(), Failed> {
        let ks = self.keyspace()?;
        let (key, value) = self.row();
        let committed = match &value {
            Some(value) => ks.insert(&key, value),
            None => ks.remove(&key),
        };
        self.told(committed, vec![Change::Row(ks.name().to_owned(), key, value)], Durability::Synced)
    }

    /// A few operations in call order, some of which undo what came before.
    fn acts(&mut self) -> Result<Vec<(Keyspace, Act)>, Failed> {
        let mut acts = Vec::new();
        for _ in 0..1 + self.rng.below(8) {
            let ks = self.keyspace()?;
            let act = match self.rng.below(18) {
                16 => {
                    let (key, value) = self.streamed();
                    Act::Stream(key, value)
                }
                0 => Act::Clear(self.range()),
                1..4 => Act::Add(self.number_key(), self.rng.next_u64() as i64 >> 8),
                _ => {
                    let (key, value) = self.row();
                    Act::Row(key, value)
                }
            };
            acts.push((ks, act));
        }
        Ok(acts)
    }

    fn batch_of(&mut self, acts: Vec<(Keyspace, Act)>) -> (WriteBatch, Vec<Change>) {
        let mut batch = WriteBatch::new();
        let mut changes = Vec::new();
        for (ks, act) in acts {
            match &act {
                Act::Stream(key, value) => drop(batch.insert(&ks, key, value)),
                Act::Row(key, Some(value)) => drop(batch.insert(&ks, key, value)),
                Act::Row(key, None) => drop(batch.remove(&ks, key)),
                Act::Clear(range) => drop(batch.remove_range(&ks, range.clone())),
                Act::Add(key, delta) => drop(batch.add_i64(&ks, key, *delta)),
            }
            self.count(&act);
            changes.push(act.change(&ks));
        }
        (batch, changes)
    }

    fn count(&mut self, act: &Act) {
        match act {
            Act::Row(..) | Act::Stream(..) => {}
            Act::Clear(_) => self.hit("range removed"),
            Act::Add(..) => self.hit("added"),
        }
    }

    fn batch(&mut self) -> Result<(), Failed> {
        let acts = self.acts()?;
        let (batch, changes) = self.batch_of(acts);
        let durability = self.durability();
        let committed = self.db.write_with(batch, durability);
        self.told(committed, changes, durability)
    }

    fn pipelined(&mut self) -> Result<(), Failed> {
        let acts = self.acts()?;
        let (batch, changes) = self.batch_of(acts);
        let ticket: Ticket = match self.db.write_pipelined(batch) {
            Err(Error::CommitUnknown { lsn }) => {
                return self.told(Err(Error::CommitUnknown { lsn }), changes, Durability::Synced);
            }
            other => other?,
        };
        let lsn = self.history().attempt(Some(ticket.lsn()), changes);
        // Without a thread of its own a ticket completes when it is waited for.
        if !self.threads || self.rng.chance(1, 2) {
            ticket.wait()?;
            self.history().promise(lsn, Durability::Synced);
        }
        Ok(())
    }

    fn single_clear(&mut self) -> Result<(), Failed> {
        let (ks, act) = (self.keyspace()?, Act::Clear(self.range()));
        let mut tx = self.db.begin();
        self.act(&mut tx, &ks, &act)?;
        let committed = tx.commit();
        self.told(committed, vec![act.change(&ks)], Durability::Synced)
    }

    fn single_add(&mut self) -> Result<(), Failed> {
        let (ks, act) = (self.keyspace()?, Act::Add(self.number_key(), 1));
        let (batch, changes) = self.batch_of(vec![(ks, act)]);
        let committed = self.db.write(batch);
        self.told(committed, changes, Durability::Synced)
    }

    /// Does it, and sees it done.
    fn act(&mut self, tx: &mut Transaction, ks: &Keyspace, act: &Act) -> Result<(), Failed> {
        let unseen = || Failed::Wrong("a transaction does not see its own write".to_owned());
        self.count(act);
        match act {
            Act::Row(key, value) => {
                self.put(tx, ks, key, value.as_deref())?;
                if tx.get(ks, key)?.as_deref() != value.as_deref() {
                    return Err(unseen());
                }
            }
            Act::Stream(key, value) => self.stream_into(tx, ks, key, value)?,
            Act::Clear(range) => {
                tx.remove_range(ks, range.clone())?;
                if tx.range(ks, range.clone()).next().transpose()?.is_some() {
                    return Err(unseen());
                }
            }
            Act::Add(key, delta) => {
                let before = tx.get(ks, key)?.map_or(0, |value| number(&value));
                tx.add_i64(ks, key, *delta)?;
                if tx.get(ks, key)?.map(|value| number(&value)) != Some(before.wrapping_add(*delta)) {
                    return Err(unseen());
                }
            }
        }
        Ok(())
    }

    fn transaction(&mut self) -> Result<(), Failed> {
        let acts = self.acts()?;
        let mut tx = self.db.begin();
        let mut changes = Vec::new();
        for (ks, act) in acts {
            self.act(&mut tx, &ks, &act)?;
            changes.push(act.change(&ks));
        }
        if self.rng.chance(1, 8) {
            tx.rollback();
            self.hit("rolled back");
            return Ok(());
        }
        let durability = self.durability();
        tx.set_durability(durability);
        self.end(tx, changes, durability)
    }

    fn savepoint(&mut self) -> Result<(), Failed> {
        let (kept, dropped, later) = (self.acts()?, self.acts()?, self.acts()?);
        let mut tx = self.db.begin();
        let mut changes = Vec::new();
        for (ks, act) in kept {
            self.act(&mut tx, &ks, &act)?;
            changes.push(act.change(&ks));
        }
        let savepoint = tx.savepoint();
        for (ks, act) in dropped {
            self.act(&mut tx, &ks, &act)?;
        }
        tx.rollback_to(&savepoint)?;
        for (ks, act) in later {
            self.act(&mut tx, &ks, &act)?;
            changes.push(act.change(&ks));
        }
        self.end(tx, changes, Durability::Synced)
    }

    /// A keyspace ends, or begins with rows in it, or both under one name, in one transaction with a write elsewhere.
    fn keyspaces_in_a_transaction(&mut self) -> Result<(), Failed> {
        let name = KEYSPACES[1 + self.rng.below(KEYSPACES.len() as u64 - 1) as usize];
        let elsewhere = self.create(KEYSPACES[0])?;
        let old = self.db.open_keyspace(name)?;
        let (mut changes, mut tx) = (Vec::new(), self.db.begin());
        let (drops, makes) = (old.is_some(), old.is_none() || self.rng.chance(1, 2));
        if let Some(old) = &old {
            tx.drop_keyspace(old)?;
            changes.push(Change::Drop(name.to_owned()));
        }
        if makes {
            let ks = tx.create_keyspace(name, self.options())?;
            changes.push(Change::Create(name.to_owned()));
            for _ in 0..self.rng.below(4) {
                let (key, value) = self.row();
                let act = Act::Row(key, value);
                self.act(&mut tx, &ks, &act)?;
                changes.push(act.change(&ks));
            }
            let act = Act::Add(self.number_key(), 5);
            self.act(&mut tx, &ks, &act)?;
            changes.push(act.change(&ks));
        }
        let act = Act::Add(self.number_key(), 1);
        self.act(&mut tx, &elsewhere, &act)?;
        changes.push(act.change(&elsewhere));
        if self.rng.chance(1, 6) {
            return self.prepare(tx, changes, Vec::new());
        }
        let committed = tx.commit();
        if committed.is_ok() {
            if drops {
                self.hit("keyspace dropped in a transaction");
            }
            if makes {
                self.hit("keyspace made in a transaction");
            }
        }
        self.told(committed, changes, Durability::Synced)
    }

    /// No snapshot shows half a transfer: the accounts' sum is always 0.
    fn look(&mut self) -> Result<(), Failed> {
        let ks = self.create(KEYSPACES[0])?;
        let snapshot = self.db.snapshot();
        let keys: Vec<String> = (0..4).map(|account| format!("#{account}")).collect();
        let mut values = Vec::new();
        if self.rng.chance(1, 2) {
            values = snapshot.multi_get(&ks, &keys)?;
        } else {
            for key in &keys {
                values.push(snapshot.get(&ks, key)?);
                self.runtime.yield_point();
            }
        }
        let sum = values.iter().flatten().map(|value| number(value)).fold(0, i64::wrapping_add);
        if sum == 0 { Ok(()) } else { Err(Failed::Wrong(format!("a snapshot shows half a transfer: {sum}"))) }
    }

    /// Moves an amount between two rows that each hold a number: a lost update changes the sum.
    fn transfer(&mut self) -> Result<(), Failed> {
        let ks = self.create(KEYSPACES[0])?;
        let (from, to) = (self.rng.below(4), self.rng.below(4));
        if from == to {
            return Ok(());
        }
        let amount = self.rng.below(100) as i64;
        let mut tx = self.db.begin();
        let mut changes = Vec::new();
        for (account, delta) in [(from, -amount), (to, amount)] {
            let key = format!("#{account}").into_bytes();
            let seen = tx.get(&ks, &key)?.map(|value| value.to_vec());
            let old = seen.as_deref().map_or(0, number);
            changes.push(Change::Saw(ks.name().to_owned(), key.clone(), seen));
            let value = (old + delta).to_le_bytes().to_vec();
            tx.insert(&ks, &key, &value)?;
            changes.push(Change::Row(ks.name().to_owned(), key, Some(value)));
            self.runtime.yield_point();
        }
        let committed = tx.commit();
        self.told(committed, changes, Durability::Synced)
    }

    fn compare_and_set(&mut self) -> Result<(), Failed> {
        let ks = self.keyspace()?;
        let (key, value) = self.row();
        let mut tx = self.db.begin();
        let expected = tx.get(&ks, &key)?.map(|value| value.to_vec());
        if !tx.compare_and_set(&ks, &key, expected.as_deref(), value.as_deref())? {
            return Err(Failed::Wrong("compare_and_set misses the value that was just read".to_owned()));
        }
        let saw = Change::Saw(ks.name().to_owned(), key.clone(), expected);
        self.runtime.yield_point();
        let committed = tx.commit();
        self.told(committed, vec![saw, Change::Row(ks.name().to_owned(), key, value)], Durability::Synced)
    }

    fn put(
        &self,
        tx: &mut Transaction,
        ks: &Keyspace,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        match value {
            Some(value) => tx.insert(ks, key, value),
            None => tx.remove(ks, key),
        }
    }

    /// Tells the history how a commit ended.
    fn told(
        &mut self,
        committed: Result<Lsn, Error>,
        changes: Vec<Change>,
        durability: Durability,
    ) -> Result<(), Failed> {
        if committed.is_ok() {
            self.check_allowed(&changes)?;
        }
        match &committed {
            Ok(lsn) => {
                // An empty transaction has no place, and changes nothing.
                let lsn = self.history().attempt(Some(*lsn), changes);
                self.history().promise(lsn, durability);
            }
            Err(Error::CommitUnknown { lsn }) => drop(self.history().attempt(Some(*lsn), changes)),
            Err(_) => {}
        }
        committed?;
        Ok(())
    }

    fn durability(&mut self) -> Durability {
        match self.rng.below(6) {
            0 => Durability::Memory,
            1 => Durability::Written,
            _ => Durability::Synced,
        }
    }

    /// Of a row that holds a number or is not there.
    fn number_key(&mut self) -> Vec<u8> {
        format!("n-{}", self.rng.below(6)).into_bytes()
    }

    /// Never between two accounts: they go together.
    fn range(&mut self) -> Bounds {
        let is_whole = self.rng.chance(1, 40);
        let (name, from, to) = match self.rng.below(5) {
            0 => ("n-", 0, 1 + self.rng.below(5)),
            _ => ("key-", self.rng.below(60), 1 + self.rng.below(12)),
        };
        let key = |at: u64| match name {
            "n-" => format!("n-{at}").into_bytes(),
            _ => format!("key-{at:03}").into_bytes(),
        };
        if is_whole {
            return (Bound::Unbounded, Bound::Unbounded);
        }
        let (a, b) = (key(from), key(from + to));
        let mut bound = |key| match self.rng.below(20) {
            0 => Bound::Unbounded,
            1..10 => Bound::Included(key),
            _ => Bound::Excluded(key),
        };
        // Never empty: whoever commits nothing has no place.
        (bound(a), bound(b))
    }

    /// A key that others use too, and a value; or none, to remove it.
    fn row(&mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = match self.rng.below(12) {
            0 => Vec::new(),
            1 => vec![0xff; 1 + self.rng.below(3) as usize],
            3 => {
                let number = self.rng.chance(3, 4).then(|| self.rng.next_u64().to_le_bytes().to_vec());
                return (self.number_key(), number);
            }
            2 if self.rng.chance(1, 20) => vec![b'k'; 60_000 + self.rng.below(5_000) as usize],
            _ => format!("key-{:03}", self.rng.below(60)).into_bytes(),
        };
        if self.rng.chance(1, 5) {
            return (key, None);
        }
        let bytes = match self.rng.below(24) {
            0 => 0,
            1..=16 => self.rng.below(120),
            17..=21 => self.rng.below(3_000),
            _ => {
                self.hit("large value");
                self.rng.below(90_000)
            }
        };
        let value = self.bytes(bytes);
        (key, Some(value))
    }

    /// Bytes without an order, or with one that compresses.
    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut unit = vec![0; if self.rng.chance(1, 2) { len.min(12) } else { len } as usize];
        self.rng.fill(&mut unit);
        unit.iter().copied().cycle().take(len as usize).collect()
    }

    /// Enough rows that compress to fill leaves with.
    fn fill(&mut self) -> Result<(), Failed> {
        let ks = self.keyspace()?;
        let (mut batch, mut changes) = (WriteBatch::new(), Vec::new());
        let from = self.rng.below(200);
        for n in from..from + 20 + self.rng.below(80) {
            let (key, len) = (format!("row-{n:03}").into_bytes(), 100 + self.rng.below(200));
            let mut value = format!("{:04x} ", self.rng.below(1 << 16)).into_bytes();
            value.resize(len as usize, b'.');
            batch.insert(&ks, &key, &value);
            changes.push(Change::Row(ks.name().to_owned(), key, Some(value)));
        }
        let committed = self.db.write(batch);
        self.told(committed, changes, Durability::Synced)?;
        self.hit("leaves filled");
        Ok(())
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub(super) fn number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// One operation on a keyspace.
enum Act {
    /// The key, and the value; none removes.
    Row(Vec<u8>, Option<Vec<u8>>),
    /// The key, and a value that comes as a stream.
    Stream(Vec<u8>, Vec<u8>),
    Clear(Bounds),
    Add(Vec<u8>, i64),
}

impl Act {
    fn change(self, ks: &Keyspace) -> Change {
        let name = ks.name().to_owned();
        match self {
            Act::Row(key, value) => Change::Row(name, key, value),
            Act::Stream(key, value) => Change::Row(name, key, Some(value)),
            Act::Clear(range) => Change::Clear(name, range),
            Act::Add(key, delta) => Change::Add(name, key, delta),
        }
    }
}

pub(super) enum Failed {
    Engine(Error),
    Wrong(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Engine(error)
    }
}
