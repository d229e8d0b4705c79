//! What a client knows of its log, and what it must find in it.

use seawall_wal::{Durability, Error, Lsn, Wal};

/// A client of one thread: records have the order of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) records: Vec<Known>,
    /// So many records, from the first, must survive a power cut.
    pub(crate) durable: usize,
    /// So many must survive a kill.
    pub(crate) written: usize,
    /// So many may have been reclaimed.
    pub(crate) reclaimed: usize,
    /// The log may end with so many records, because it was being cut there.
    pub(crate) may_end: Option<usize>,
    /// Distinguishes payloads, also of records that were lost.
    pub(crate) next: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) lsn: Lsn,
    pub(crate) payload: Vec<u8>,
    /// Records placed in one call share it.
    pub(crate) unit: u64,
}

impl Model {
    pub(crate) fn payload(&mut self, bytes: usize) -> Vec<u8> {
        self.next += 1;
        let tag = self.next.to_le_bytes();
        tag.iter().copied().cycle().take(bytes.max(tag.len())).collect()
    }

    /// Records have got their places, in one call.
    pub(crate) fn placed(&mut self, lsn: Lsn, payloads: Vec<Vec<u8>>) {
        self.next += 1;
        let unit = self.next;
        let mut lsn = lsn;
        for payload in payloads {
            let bytes = 24 + payload.len() as u64;
            self.records.push(Known { lsn, payload, unit });
            // If all are in one frame.
            lsn = lsn.plus(bytes);
        }
    }

    /// All so far is acknowledged.
    pub(crate) fn promised(&mut self, durability: Durability) {
        match durability {
            Durability::Synced => (self.durable, self.written) = (self.records.len(), self.records.len()),
            Durability::Written => self.written = self.records.len(),
            _ => {}
        }
    }

    /// The log was cut, so that this many are left; or, on the way there, something failed.
    pub(crate) fn cut_after(&mut self, left: usize, is_done: bool) {
        if is_done {
            self.records.truncate(left);
            (self.durable, self.written) = (left, left);
        } else {
            // A log that has failed already is not cut any more.
            self.may_end.get_or_insert(left);
        }
    }

    /// A call failed: a client may go on, and must be told by an error that it knows how to take. A failed sync may have
    /// dropped what was only written.
    pub(crate) fn refused(&mut self, error: &Error) -> Result<(), String> {
        match error {
            Error::Io { .. } | Error::NoSpace | Error::Poisoned(_) | Error::CommitUnknown { .. } => {
                self.written = self.durable;
                Ok(())
            }
            error => Err(format!("a call fails with: {error}")),
        }
    }

    /// The power was cut: only what is durable counts.
    pub(crate) fn cut(&self) -> Model {
        Model { written: self.durable, ..self.clone() }
    }

    /// Compares everything in the log, and forgets what is not there: what was shown once must never be gone again.
    pub(crate) fn compare(&mut self, wal: &Wal) -> Result<(), String> {
        let mut found = Vec::new();
        for record in wal.read(..).map_err(|error| format!("reading: {error}"))? {
            let record = record.map_err(|error| format!("reading: {error}"))?;
            found.push((record.lsn, record.payload.to_vec()));
        }
        let skipped = match found.first() {
            Some((_, payload)) => self.records.iter().position(|known| known.payload == *payload),
            None => Some(self.reclaimed.min(self.written)),
        };
        let skipped = skipped.ok_or("the first record is none that was written")?;
        if skipped > self.reclaimed {
            return Err(format!(
                "the log begins with record {skipped}, and {} may be reclaimed",
                self.reclaimed
            ));
        }
        let end = skipped + found.len();
        if end > self.records.len() {
            return Err(format!("{end} records, and {} were written", self.records.len()));
        }
        let mut unit = 0;
        for (known, (lsn, payload)) in self.records.iter().skip(skipped).zip(&found) {
            if known.payload != *payload || (known.unit != unit && known.lsn != *lsn) {
                return Err(format!("the record at {lsn} is not the one written at {}", known.lsn));
            }
            unit = known.unit;
        }
        // Cut before the records that may be reclaimed, it is empty.
        let ends_there = |left| left == end || (found.is_empty() && left <= end);
        if !self.may_end.take().is_some_and(ends_there) {
            if self.records.get(end).is_some_and(|next| next.unit == unit) {
                return Err("half of what was placed together".to_owned());
            }
            if end < self.written {
                return Err(format!("{end} records, and {} were acknowledged", self.written));
            }
        }
        self.records.truncate(end);
        (self.durable, self.written) = (end, end);
        Ok(())
    }
}
