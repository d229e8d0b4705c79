//! What a life is made of: one client, or several threads of them, beside checkpoints, snapshots and readers.

use super::client::Client;
use super::compare::{Handles, STREAMED_MIN, compare_snapshot, contents_of, handles, is_read_in_parts};
use super::model::Contents;
use super::{KEYSPACES, Torture};
use seawall_engine::{Db, Entry, Error, ReadMode, Readable, Snapshot, ValueReader};
use seawall_wal::Runtime;
use seawall_wal::runtime::Thread;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What is held while the store goes on, and over its end.
#[derive(Default)]
pub(super) struct Held {
    snapshots: Vec<Old>,
    /// With the bytes that each must show.
    readers: Vec<(ValueReader, Vec<u8>)>,
}

struct Old {
    snapshot: Snapshot,
    handles: Handles,
    expected: Contents,
    /// Checkpoints that there had been.
    checkpoints: u64,
}

impl Torture {
    pub(super) fn work(&mut self, db: &Db) -> Result<(), String> {
        let mut client = self.client(db);
        let mut held = Held::default();
        let mut kept: Vec<(Entry, Vec<u8>)> = Vec::new();
        client.probe_now()?;
        for _ in 0..3 + self.rng.below(50) {
            match self.rng.below(31) {
                0..=2 => self.checkpoint(db)?,
                3 | 7 => {
                    // What is visible now is what every commit so far made of it.
                    let snapshot = db.snapshot();
                    let expected = self.history().now().rows;
                    let handles = match handles(db, expected.keys()) {
                        Ok(handles) => handles,
                        Err(Error::Io { .. }) => continue,
                        Err(error) => return Err(format!("opening keyspaces: {error}")),
                    };
                    compare_snapshot(&snapshot, &handles, &expected, "now")?;
                    self.hold_a_reader(&mut held, &snapshot, &handles, &expected)?;
                    // They outlive their snapshot, and are compared when all is done.
                    let rows = handles.iter().flat_map(|ks| snapshot.range(ks, ..).take(2));
                    kept.extend(rows.filter_map(Result::ok).map(|row| (row.clone(), row.1.to_vec())));
                    let checkpoints = db.stats().checkpoints;
                    held.snapshots.push(Old { snapshot, handles, expected, checkpoints });
                }
                4 | 8 if !held.snapshots.is_empty() => {
                    let at = self.rng.below(held.snapshots.len() as u64) as usize;
                    let old = held.snapshots.swap_remove(at);
                    // Meanwhile the tree has gone on, and would like its blocks.
                    for _ in 0..self.rng.below(4) {
                        client.step()?;
                        self.checkpoint(db)?;
                    }
                    self.compare_old(&old, db)?;
                }
                10 if !held.readers.is_empty() => {
                    for _ in 0..1 + self.rng.below(3) {
                        client.step()?;
                        self.checkpoint(db)?;
                    }
                    self.compare_readers(&mut held)?;
                }
                5 if self.rng.chance(1, 3) => self.verify(db)?,
                6 | 9 => self.resume(db),
                _ => client.step()?,
            }
            if !self.disk.has_power() {
                break;
            }
        }
        self.add_counts(&client.counts);
        if let Some(((key, _), _)) = kept.iter().find(|((_, value), copy)| value != copy) {
            return Err(format!("a row that was kept has changed: {}", key.escape_ascii()));
        }
        if self.read_mode == ReadMode::Mapped {
            self.report.add("engine: mapped row kept", kept.len() as u64);
        }
        if self.disk.has_power() {
            for old in &held.snapshots {
                self.compare_old(old, db)?;
            }
            self.compare_readers(&mut held)?;
        }
        self.held = held;
        Ok(())
    }

    /// Of a large value of the snapshot, if there is one.
    fn hold_a_reader(
        &mut self,
        held: &mut Held,
        snapshot: &Snapshot,
        handles: &Handles,
        expected: &Contents,
    ) -> Result<(), String> {
        let ks = handles.get(self.rng.below(handles.len().max(1) as u64) as usize);
        let Some((ks, rows)) = ks.and_then(|ks| Some((ks, expected.get(ks.name())?))) else { return Ok(()) };
        let Some((key, value)) = rows.iter().find(|(_, value)| value.len() >= STREAMED_MIN) else {
            return Ok(());
        };
        match snapshot.open_value(ks, key) {
            Ok(Some(reader)) => held.readers.push((reader, value.clone())),
            Ok(None) => return Err("a snapshot lacks a value that it has just shown".to_owned()),
            Err(Error::Io { .. }) => {}
            Err(error) => return Err(format!("opening a value: {error}")),
        }
        Ok(())
    }

    /// They show what they showed, whatever became of the row.
    fn compare_readers(&mut self, held: &mut Held) -> Result<(), String> {
        for (reader, expected) in &mut held.readers {
            match is_read_in_parts(reader, expected) {
                Ok(true) => self.report.hit("engine: reader compared behind checkpoints"),
                Ok(false) => return Err("a reader shows other bytes than before".to_owned()),
                Err(Error::Io { .. }) => {}
                Err(_) if !self.disk.has_power() => {}
                Err(error) => return Err(format!("a reader that was held: {error}")),
            }
        }
        Ok(())
    }

    /// A life is over, and what was held is let go. Over a crash it may refuse, never show anything else.
    pub(super) fn let_go(&mut self, is_over_crash: bool) -> Result<(), String> {
        let Held { snapshots, readers } = std::mem::take(&mut self.held);
        if !is_over_crash {
            return Ok(());
        }
        for old in &snapshots {
            match contents_of(&old.snapshot, &old.handles) {
                Ok(found) if found != old.expected => {
                    return Err("a snapshot shows something else over a crash".to_owned());
                }
                Err(error @ (Error::Corruption { .. } | Error::BadInput(_))) => {
                    return Err(format!("a snapshot held over a crash: {error}"));
                }
                _ => self.report.hit("engine: old snapshot held over a crash"),
            }
        }
        for (mut reader, expected) in readers {
            match is_read_in_parts(&mut reader, &expected) {
                Ok(false) => return Err("a reader shows something else over a crash".to_owned()),
                Err(error @ (Error::Corruption { .. } | Error::BadInput(_))) => {
                    return Err(format!("a reader held over a crash: {error}"));
                }
                _ => self.report.hit("engine: reader held over a crash"),
            }
        }
        Ok(())
    }

    /// Makes room, and asks the store to go on.
    fn resume(&mut self, db: &Db) {
        let (no_space, has_failed) = {
            let history = self.history();
            (history.no_space, history.has_failed)
        };
        if !no_space && !has_failed {
            return;
        }
        self.disk.set_capacity(u64::MAX);
        if db.resume().is_err() {
            return;
        }
        self.history().no_space = false;
        self.report.hit("engine: resumed");
        if has_failed {
            self.history().went_on();
            self.report.hit("engine: resumed after a failed write");
        }
    }

    /// What it shows stays, whatever was dropped since.
    fn compare_old(&mut self, old: &Old, db: &Db) -> Result<(), String> {
        if !self.history().poisoned {
            compare_snapshot(&old.snapshot, &old.handles, &old.expected, "an old snapshot")?;
            self.report.hit("engine: old snapshot compared");
            if db.stats().checkpoints > old.checkpoints {
                self.report.hit("engine: old snapshot compared behind checkpoints");
            }
        }
        Ok(())
    }

    fn client(&mut self, db: &Db) -> Client {
        Client::new(db.clone(), self.history.clone(), self.rng.fork(), self.runtime.clone(), self.threads)
    }

    fn add_counts(&mut self, counts: &BTreeMap<&'static str, u64>) {
        for (name, n) in counts {
            self.report.add(format!("engine: {name}"), *n);
        }
    }

    pub(super) fn checkpoint(&mut self, db: &Db) -> Result<(), String> {
        let attempted = self.history().attempted();
        let before = db.stats();
        match db.checkpoint() {
            Ok(checkpoint) => {
                self.history().promise_all(attempted);
                let is_longer = db.stats().data_file_bytes > before.data_file_bytes;
                if checkpoint.bytes > 0 && before.free_bytes > 0 && !is_longer {
                    self.report.hit("engine: free space used again");
                }
                self.report.hit("engine: checkpoint");
                match (before.runs, db.stats().runs) {
                    (0, 0) => {}
                    (_, 0) => self.report.hit("engine: runs folded"),
                    _ => self.report.hit("engine: runs beside trees"),
                }
                if !self.history().branches.is_empty() {
                    self.report.hit("engine: in doubt at a checkpoint");
                }
                Ok(())
            }
            Err(error) => {
                if !self.disk.has_power() {
                    self.report.hit("engine: power cut in a checkpoint");
                }
                self.history().note(&error)
            }
        }
    }

    pub(super) fn verify(&mut self, db: &Db) -> Result<(), String> {
        // A planned read error is no finding.
        self.disk.clear_faults();
        match db.verify(|_| {}) {
            Ok(report) if report.problems.is_empty() => {
                self.report.hit("engine: verified");
                self.report.add("engine: compressed leaf", report.leaves_compressed);
                Ok(())
            }
            Ok(_) if !self.disk.has_power() => Ok(()),
            Ok(report) => Err(format!("verify finds: {}", report.problems.join("; "))),
            Err(Error::Io { .. } | Error::Poisoned(_)) => Ok(()),
            Err(_) if !self.disk.has_power() => Ok(()),
            Err(error) => Err(format!("verify fails: {error}")),
        }
    }

    pub(super) fn work_in_threads(&mut self, db: &Db) -> Result<(), String> {
        for name in KEYSPACES {
            match self.client(db).create(name) {
                // It is promised to a prepared transaction.
                Ok(_) | Err(Error::PreparedConflict { .. }) => {}
                Err(error) => return self.history().note(&error),
            }
        }
        let failed: Arc<Mutex<Option<String>>> = Arc::default();
        let counts: Arc<Mutex<BTreeMap<&'static str, u64>>> = Arc::default();
        let mut threads: Vec<Box<dyn Thread>> = Vec::new();
        for i in 0..2 + self.rng.below(3) {
            let mut client = self.client(db);
            let (failed, counts, steps) = (failed.clone(), counts.clone(), 2 + self.rng.below(16));
            let body = Box::new(move || {
                for _ in 0..steps {
                    if let Err(what) = client.step() {
                        failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(what);
                        break;
                    }
                }
                let mut counts = counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                client.counts.iter().for_each(|(name, n)| *counts.entry(name).or_default() += n);
            });
            threads
                .push(self.runtime.spawn(&format!("client-{i}"), body).map_err(|error| error.to_string())?);
        }
        for _ in 0..self.rng.below(3) {
            self.runtime.yield_point();
            self.checkpoint(db)?;
        }
        for thread in threads {
            if thread.join() {
                return Err("a client panicked".to_owned());
            }
        }
        let counts = std::mem::take(&mut *counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.add_counts(&counts);
        let failed = failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        failed.map_or(Ok(()), Err)
    }
}
