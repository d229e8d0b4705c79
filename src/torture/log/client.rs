//! One client of the log under torture.

use super::model::Model;
use seawall_wal::runtime::{Rng, SimRuntime};
use seawall_wal::{Durability, Error, Lsn, Wal};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A client of the log: one step is one call, and the model told of it.
pub(super) struct Client {
    pub(super) wal: Wal,
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) rng: Rng,
    pub(super) runtime: Arc<SimRuntime>,
}

impl Client {
    pub(super) fn step(&mut self) -> Result<(), String> {
        let durability = match self.rng.below(6) {
            0 => Durability::Memory,
            1 | 2 => Durability::Written,
            _ => Durability::Synced,
        };
        match self.rng.below(10) {
            0 => {
                let result = self.wal.sync();
                if let Ok(lsn) = result {
                    self.promise(lsn, Durability::Synced);
                }
                self.note(&result.map(|_| ()))
            }
            1 => {
                let payloads: Vec<Vec<u8>> = (0..1 + self.rng.below(4)).map(|_| self.payload()).collect();
                let placed = self.wal.append_batch(&payloads);
                if let Ok(lsn) = placed {
                    self.model().attempted(lsn, &payloads);
                }
                self.note(&placed.map(|_| ()))
            }
            2 => {
                let payload = self.payload();
                let placed = self.wal.append(&payload);
                if let Ok(lsn) = placed {
                    self.model().attempted(lsn, &[payload]);
                }
                self.note(&placed.map(|_| ()))
            }
            3 => {
                let payload = self.payload();
                let ticket = self.wal.commit_pipelined(&payload);
                match ticket {
                    Ok(ticket) => {
                        let lsn = ticket.lsn();
                        self.model().attempted(lsn, &[payload]);
                        if self.rng.chance(1, 3) {
                            return Ok(());
                        }
                        let outcome = if self.rng.chance(1, 2) {
                            ticket.wait().map(Some)
                        } else {
                            ticket.wait_timeout(Duration::from_micros(self.rng.below(200)))
                        };
                        if let Ok(Some(lsn)) = outcome {
                            self.promise(lsn.plus(1), Durability::Synced);
                        }
                        self.note(&outcome.map(|_| ()))
                    }
                    Err(error) => self.note(&Err(error)),
                }
            }
            4 => {
                // What is read is a part of what was written, in order.
                let from = self.some_lsn();
                if let Ok(reader) = self.wal.read(from.max(self.wal.first_lsn())..) {
                    let mut last = Lsn::ZERO;
                    for record in reader {
                        match record {
                            Ok(record) if record.lsn <= last => return Err("records out of order".to_owned()),
                            Ok(record) => last = record.lsn,
                            Err(Error::Io { .. }) => break,
                            Err(error) => return Err(format!("reading the live log: {error}")),
                        }
                    }
                }
                Ok(())
            }
            _ => {
                let payload = self.payload();
                let committed = self.wal.commit_with(&payload, durability);
                match &committed {
                    Ok(lsn) => {
                        self.model().attempted(*lsn, &[payload]);
                        self.promise(lsn.plus(1), durability);
                    }
                    Err(Error::CommitUnknown { lsn }) => self.model().attempted(*lsn, &[payload]),
                    Err(_) => {}
                }
                self.note(&committed.map(|_| ()))
            }
        }
    }

    /// Everything before `lsn` will be there again.
    pub(super) fn promise(&self, lsn: Lsn, durability: Durability) {
        let mut model = self.model();
        match durability {
            Durability::Synced => {
                model.durable = model.durable.max(lsn);
                model.written = model.written.max(lsn);
            }
            Durability::Written => model.written = model.written.max(lsn),
            _ => {}
        }
    }

    pub(super) fn note(&self, result: &Result<(), Error>) -> Result<(), String> {
        let mut model = self.model();
        match result {
            Ok(()) => {}
            Err(Error::NoSpace) => model.no_space = true,
            Err(Error::Poisoned(_) | Error::CommitUnknown { .. }) => {
                // A failed sync may have dropped what was only written.
                model.poisoned = true;
                model.written = model.durable;
            }
            Err(Error::Io { .. }) => {}
            Err(error) => return Err(format!("a call failed with: {error}")),
        }
        Ok(())
    }

    pub(super) fn payload(&mut self) -> Vec<u8> {
        self.runtime.advance(Duration::from_micros(self.rng.below(300)));
        let model = self.model.clone();
        let mut model = model.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        model.payload(&mut self.rng)
    }

    /// A position of the past. Whoever asks for it may cut the log there.
    pub(super) fn some_lsn(&mut self) -> Lsn {
        let model = self.model.clone();
        let mut model = model.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = self.rng.below(model.records.len() as u64 + 1) as usize;
        // What is promised after a cut is counted by the model's own keys, which are no places in the log.
        let known = model.records.values().nth(at).or(model.records.values().next_back());
        let lsn = known.map_or(model.durable, |known| known.head);
        model.truncated = model.truncated.max(lsn);
        lsn
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
