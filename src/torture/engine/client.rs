//! One client of the engine under torture: each step is one transaction, and the history told of it.

use super::KEYSPACES;
use super::model::{Change, History};
use seawall_engine::{Db, Durability, Error, Keyspace, Lsn, Readable, Ticket, Transaction, WriteBatch};
use seawall_wal::runtime::{Rng, SimRuntime};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(super) struct Client {
    db: Db,
    history: Arc<Mutex<History>>,
    rng: Rng,
    runtime: Arc<SimRuntime>,
    threads: bool,
    pub(super) conflicts: u64,
    pub(super) dropped: u64,
    pub(super) large: u64,
}

impl Client {
    pub(super) fn new(
        db: Db,
        history: Arc<Mutex<History>>,
        rng: Rng,
        runtime: Arc<SimRuntime>,
        threads: bool,
    ) -> Client {
        Client { db, history, rng, runtime, threads, conflicts: 0, dropped: 0, large: 0 }
    }

    pub(super) fn step(&mut self) -> Result<(), String> {
        self.runtime.advance(Duration::from_micros(self.rng.below(300)));
        let result = match self.rng.below(20) {
            0 if !self.threads => self.drop_keyspace(),
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
        match result {
            Ok(()) => Ok(()),
            Err(Failed::Engine(Error::Conflict)) => {
                self.conflicts += 1;
                Ok(())
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
        let made = self.db.keyspace(name);
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
                self.dropped += 1;
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

    fn rows(&mut self) -> Result<Vec<Put>, Failed> {
        (0..1 + self.rng.below(8))
            .map(|_| {
                let ks = self.keyspace()?;
                let (key, value) = self.row();
                Ok((ks, key, value))
            })
            .collect()
    }

    fn batch(&mut self) -> Result<(), Failed> {
        let mut batch = WriteBatch::new();
        let mut changes = Vec::new();
        for (ks, key, value) in self.rows()? {
            match &value {
                Some(value) => batch.insert(&ks, &key, value),
                None => batch.remove(&ks, &key),
            };
            changes.push(Change::Row(ks.name().to_owned(), key, value));
        }
        let durability = self.durability();
        let committed = self.db.write_with(batch, durability);
        self.told(committed, changes, durability)
    }

    fn pipelined(&mut self) -> Result<(), Failed> {
        let mut batch = WriteBatch::new();
        let mut changes = Vec::new();
        for (ks, key, value) in self.rows()? {
            match &value {
                Some(value) => batch.insert(&ks, &key, value),
                None => batch.remove(&ks, &key),
            };
            changes.push(Change::Row(ks.name().to_owned(), key, value));
        }
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

    fn transaction(&mut self) -> Result<(), Failed> {
        let rows = self.rows()?;
        let mut tx = self.db.begin();
        let mut changes = Vec::new();
        for (ks, key, value) in rows {
            self.put(&mut tx, &ks, &key, value.as_deref())?;
            if tx.get(&ks, &key)?.as_deref() != value.as_deref() {
                return Err(Failed::Wrong("a transaction does not see its own write".to_owned()));
            }
            changes.push(Change::Row(ks.name().to_owned(), key, value));
        }
        if self.rng.chance(1, 8) {
            tx.rollback();
            return Ok(());
        }
        let durability = self.durability();
        tx.set_durability(durability);
        let committed = tx.commit();
        self.told(committed, changes, durability)
    }

    fn savepoint(&mut self) -> Result<(), Failed> {
        let (kept, dropped) = (self.rows()?, self.rows()?);
        let mut tx = self.db.begin();
        let mut changes = Vec::new();
        for (ks, key, value) in kept {
            self.put(&mut tx, &ks, &key, value.as_deref())?;
            changes.push(Change::Row(ks.name().to_owned(), key, value));
        }
        let savepoint = tx.savepoint();
        for (ks, key, value) in dropped {
            self.put(&mut tx, &ks, &key, value.as_deref())?;
        }
        tx.rollback_to(&savepoint)?;
        let committed = tx.commit();
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

    /// Two that write the same row, begun at the same time: the second must not commit.
    fn race(&mut self) -> Result<(), Failed> {
        let ks = self.keyspace()?;
        let (key, value) = self.row();
        let (mut first, mut second) = (self.db.begin(), self.db.begin());
        self.put(&mut first, &ks, &key, value.as_deref())?;
        second.insert(&ks, &key, b"never")?;
        let committed = first.commit();
        let won = committed.is_ok();
        self.told(committed, vec![Change::Row(ks.name().to_owned(), key, value)], Durability::Synced)?;
        match second.commit() {
            Err(Error::Conflict) => {
                self.conflicts += 1;
                Ok(())
            }
            Ok(_) if won => Err(Failed::Wrong("both of two that wrote the same row committed".to_owned())),
            other => Ok(other.map(drop)?),
        }
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

    /// A key that others use too, and a value; or none, to remove it.
    fn row(&mut self) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = match self.rng.below(12) {
            0 => Vec::new(),
            1 => vec![0xff; 1 + self.rng.below(3) as usize],
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
                self.large += 1;
                self.rng.below(90_000)
            }
        };
        let mut value = vec![0; bytes as usize];
        self.rng.fill(&mut value);
        (key, Some(value))
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

/// Where, the key, and the value; none removes.
type Put = (Keyspace, Vec<u8>, Option<Vec<u8>>);

enum Failed {
    Engine(Error),
    Wrong(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Engine(error)
    }
}
