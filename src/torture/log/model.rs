//! What the clients of a log know: the history that recovery is compared with.

use super::SEGMENT_BYTES;
use seawall_wal::Lsn;
use seawall_wal::runtime::Rng;
use std::collections::BTreeMap;

/// One record as the client knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) payload: Vec<u8>,
    /// Records placed together share the unit: all or none survive.
    pub(super) unit: u64,
    /// Where the unit's first record stands.
    pub(super) head: Lsn,
}

/// What the clients know: shared by simulated threads.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) records: BTreeMap<Lsn, Known>,
    /// Every record before is promised to survive a power cut.
    pub(super) durable: Lsn,
    /// Every record before is promised to survive a kill.
    pub(super) written: Lsn,
    /// The log may begin anywhere up to here.
    pub(super) truncated: Lsn,
    /// The log may end before this record: it was being cut there when something failed.
    pub(super) may_end: Option<Lsn>,
    pub(super) next_unit: u64,
    pub(super) next_payload: u64,
    pub(super) no_space: bool,
    pub(super) poisoned: bool,
    pub(super) cut: bool,
}

impl Model {
    pub(super) fn payload(&mut self, rng: &mut Rng) -> Vec<u8> {
        let bytes = match rng.below(20) {
            0 => 0,
            1..=11 => rng.below(200),
            12..=16 => rng.below(5_000),
            17..=18 => rng.below(61_400),
            _ => rng.below(200_000),
        };
        self.next_payload += 1;
        let mut payload = vec![0; bytes as usize];
        Rng::new(self.next_payload).fill(&mut payload);
        let tag = self.next_payload.to_le_bytes();
        let len = payload.len().min(8);
        payload[..len].copy_from_slice(&tag[..len]);
        payload
    }

    pub(super) fn attempted(&mut self, lsn: Lsn, payloads: &[Vec<u8>]) {
        self.next_unit += 1;
        self.cut |= payloads.iter().any(|payload| payload.len() as u64 > SEGMENT_BYTES - 4096 - 64 - 24);
        // Only the first one's place is known; the others are told apart by their bytes.
        for (i, payload) in payloads.iter().enumerate() {
            let known = Known { payload: payload.clone(), unit: self.next_unit, head: lsn };
            self.records.insert(Lsn(lsn.0 + i as u64), known);
        }
    }
}

impl Model {
    /// The log was cut before this record; what is left was made durable first.
    pub(super) fn cut(&mut self, dropped: Lsn) {
        self.records.split_off(&dropped);
        let end = self.records.keys().next_back().map_or(Lsn::ZERO, |last| last.plus(1));
        (self.durable, self.written) = (end, end);
    }

    /// The records found must be exactly the first n known from `first` on, n covering every promise.
    pub(super) fn check(&self, first: Lsn, found: &[(Lsn, Vec<u8>)]) -> Result<(), String> {
        if first > self.truncated.max(Lsn(SEGMENT_BYTES + 4096)) {
            return Err(format!("the log begins at {first}, but was only cut up to {}", self.truncated));
        }
        let known: Vec<(&Lsn, &Known)> = self.records.range(self.begins_at(first, found)..).collect();
        if found.len() > known.len() {
            return Err(format!("{} records found, {} attempted", found.len(), known.len()));
        }
        if let Some(end) = self.may_end {
            let next = known.get(found.len()).map(|(lsn, _)| **lsn);
            if next == Some(end) || (found.is_empty() && first > end) {
                return self.same(found, &known).map(|_| ());
            }
        }
        let unit = self.same(found, &known)?;
        if let Some((lsn, next)) = known.get(found.len()) {
            if next.unit == unit && !found.is_empty() {
                return Err(format!("half a batch survived at {lsn}"));
            }
            if **lsn < self.durable {
                return Err(format!(
                    "the record at {lsn} was promised (durable up to {}) and is gone",
                    self.durable
                ));
            }
            if **lsn < self.written {
                return Err(format!("the record at {lsn} was written before the kill and is gone"));
            }
        }
        Ok(())
    }

    /// The key of the record that the log begins with. A reader's pin may hold it within a batch, of whose records the
    /// bytes tell which is which.
    pub(super) fn begins_at(&self, first: Lsn, found: &[(Lsn, Vec<u8>)]) -> Lsn {
        let Some((lsn, payload)) = found.first().filter(|(lsn, _)| !self.records.contains_key(lsn)) else {
            return first;
        };
        let Some((_, last)) = self.records.range(..*lsn).next_back() else { return first };
        let batch = self.records.range(last.head..*lsn).filter(|(_, known)| known.unit == last.unit);
        let known = batch.skip(1).find(|(_, known)| known.payload == *payload);
        known.map_or(first, |(key, _)| *key)
    }

    /// The records found must be the first ones of those known. The unit of the last.
    fn same(&self, found: &[(Lsn, Vec<u8>)], known: &[(&Lsn, &Known)]) -> Result<u64, String> {
        let mut unit = 0;
        for (i, ((lsn, payload), (known_lsn, known))) in found.iter().zip(known).enumerate() {
            let is_first = known.unit != unit;
            unit = known.unit;
            if is_first && lsn != *known_lsn && **known_lsn == known.head {
                return Err(format!("record {i} stands at {lsn}, not at {known_lsn}"));
            }
            if *payload != known.payload {
                return Err(format!("record {i} at {lsn} has other bytes than were written"));
            }
        }
        Ok(unit)
    }
}
