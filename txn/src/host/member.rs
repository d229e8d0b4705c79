//! A node of a host: its machines, where its records go, and what of them is not durable yet.

use super::inbox::{Place, Round};
use crate::decision::DecisionLog;
use crate::id::TxnId;
use crate::message::{Decision, Role};
use crate::participant::Participant;
use crate::proto::Token;
use crate::record::{Durable, Entry, Record};
use crate::site::{Key, Site};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So long a store may take for one round before it is handed the next, in microseconds.
const ROUND_US: u64 = 20_000;

/// Written, and waiting to be durable.
#[derive(Default)]
pub(super) struct Lazy {
    pub(super) waiting: BTreeMap<u64, Vec<(Key, Token)>>,
    pub(super) since: Option<u64>,
    pub(super) flushing: bool,
}

impl Lazy {
    pub(super) fn add(&mut self, now: u64, mark: u64, key: Key, token: Token) {
        self.waiting.entry(mark).or_default().push((key, token));
        self.since.get_or_insert(now);
    }

    /// All that is durable once `mark` is.
    pub(super) fn reached(&mut self, now: u64, mark: u64) -> Vec<(Key, Token)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let left = mark.checked_add(1).map_or_else(BTreeMap::new, |next| self.waiting.split_off(&next));
        let reached = std::mem::replace(&mut self.waiting, left);
        self.since = if self.waiting.is_empty() { None } else { Some(now) };
        reached.into_values().flatten().collect()
    }
}

/// A verb, to be handed over.
pub(super) struct Call {
    pub(super) key: Key,
    pub(super) token: Token,
    pub(super) record: Record,
    pub(super) forced: bool,
    /// Of `Finished`: the branch was prepared.
    pub(super) is_prepared: bool,
}

impl Call {
    /// The store holds its branch until it is handed over.
    pub(super) fn is_open(&self) -> bool {
        !self.is_prepared && !matches!(self.record.entry, Entry::Heuristic { .. })
    }

    /// Nothing waits for it to be durable.
    pub(super) fn is_lazy(&self) -> bool {
        self.is_prepared && !self.forced
    }
}

pub(super) struct Member {
    pub(super) site: Site,
    pub(super) epoch: u64,
    /// Tells it from what it was before it was attached again.
    pub(super) attachment: u64,
    /// It was asked what it has prepared, and has not answered.
    pub(super) is_searched: bool,
    pub(super) log: Option<Arc<dyn DecisionLog>>,
    pub(super) participant: Option<Arc<dyn Participant>>,
    pub(super) logged: Lazy,
    pub(super) branches: Lazy,
    /// Of a store here: what was handed over last, and when.
    pub(super) round: Option<Arc<Round>>,
    pub(super) since: u64,
    /// Verbs for the next round.
    pub(super) calls: Vec<Call>,
    /// Records for the next round.
    pub(super) records: Vec<(Key, Token, Record, bool)>,
    /// Branches whose prepare was durable, or was found so.
    pub(super) prepared: BTreeSet<TxnId>,
    /// Branches of which the log keeps a row until they end.
    pub(super) noted: BTreeSet<TxnId>,
}

impl Member {
    pub(super) fn has_something(&self) -> bool {
        !self.calls.is_empty() || !self.records.is_empty()
    }

    /// From when on the next round may begin, if the last one is not answered before.
    pub(super) fn ready_at(&self) -> u64 {
        match &self.round {
            Some(round) if !round.is_answered() => self.since.saturating_add(ROUND_US),
            _ => 0,
        }
    }

    pub(super) fn lazy(&mut self, place: Place) -> &mut Lazy {
        match place {
            Place::Log => &mut self.logged,
            Place::Branches => &mut self.branches,
        }
    }
}

impl Member {
    /// What the log has kept, with what the store has prepared: where they differ, a crash came between the two.
    pub(super) fn recovered(&mut self, kept: &Durable, found: Vec<(TxnId, Entry)>) -> Durable {
        let mut durable = Durable::default();
        for (txn, entry) in found {
            self.prepared.insert(txn);
            durable.apply(&Record { txn, entry });
        }
        let mut ended = Vec::new();
        for (txn, role, entry) in kept.iter() {
            let record = Record { txn, entry: entry.clone() };
            let is_prepared = matches!(durable.get(txn, Role::Participant), Some(Entry::Prepared { .. }));
            match entry {
                _ if role != Role::Participant => durable.apply(&record),
                Entry::Finished { decision, .. } => {
                    if let Some(store) = self.participant.as_ref().filter(|_| is_prepared) {
                        match decision {
                            Decision::Commit => store.commit(txn, false, Box::new(drop)),
                            Decision::Abort => store.rollback(txn, Box::new(drop)),
                        }
                    }
                    durable.apply(&record);
                }
                Entry::PreCommitted { .. } if is_prepared => {
                    self.noted.insert(txn);
                    durable.apply(&record);
                }
                // Of a branch whose name had room: the name counts; of one that was never prepared: nothing is left.
                _ if is_prepared => {}
                _ => ended.push(Record { txn, entry: Entry::End(Role::Participant) }),
            }
        }
        if let Some(log) = self.log.as_ref().filter(|_| !ended.is_empty()) {
            log.append(&ended, false, Box::new(drop));
        }
        durable.fenced_as(kept)
    }
}
