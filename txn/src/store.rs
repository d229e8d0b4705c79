//! A seawall store as a node: it holds branches, and remembers decisions and votes, in the one log that it has anyway.
//!
//! ```text
//! Transaction ── join ──► open ── prepare ──► prepared ── commit, rollback ──► gone
//!                          │                                 lazy: on the device with whatever is forced next
//!                          └── commit_one_phase, commit_merged: the record is a row of the same commit
//! ```
//!
//! Records are rows of a keyspace of their own, `seawall-txn` (see `docs/format/txn.md`), so what holds for rows holds for
//! them: group commit, checkpoints, backup. A branch's name says who else is in its transaction; only where there is no room
//! for that a row does, written before the branch is prepared, so that a crash leaves both or the row alone.

use crate::bytes::Writer;
use crate::decision::DecisionLog;
use crate::error::{Error, Result};
use crate::id::{Group, NodeId, TxnId};
use crate::message::{Decision, Protocol, Role};
use crate::mutation::Unsynced;
use crate::participant::{Answer, Participant, Reply};
use crate::record::{Durable, Entry, Record};
use crate::xid::BranchName;
use parking_lot::Mutex;
use seawall_engine::{
    Db, Durability, Error as EngineError, HeldTickets, Heuristic, Keyspace, Lsn, Prepared, Ticket,
    Transaction, Vote, WriteBatch,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The keyspace that holds a node's records.
pub const KEYSPACE: &str = "seawall-txn";

const INCARNATION: &[u8] = b"i";
const RECORDS: u8 = b'r';
const FLUSHED: &[u8] = b"f";

/// A seawall store as a node of transactions over several.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use seawall_engine::Db;
/// use seawall_txn::{NodeId, Store};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// let store = Store::new(NodeId(1), &db)?;
/// assert_eq!(store.node(), NodeId(1));
/// # Ok(()) }
/// ```
pub struct Store {
    node: NodeId,
    db: Db,
    rows: Keyspace,
    branches: Mutex<Branches>,
    unsynced: Option<Unsynced>,
}

#[derive(Default)]
struct Branches {
    open: BTreeMap<TxnId, Transaction>,
    prepared: BTreeMap<TxnId, Prepared>,
}

impl Store {
    /// The store under its node's name, which it keeps for ever.
    ///
    /// # Errors
    /// What opening the keyspace meets.
    pub fn new(node: NodeId, db: &Db) -> Result<Arc<Store>> {
        Store::with_unsynced(node, db, None)
    }

    /// With a sync left out on purpose.
    ///
    /// # Errors
    /// As [`new`](Store::new).
    #[doc(hidden)]
    pub fn with_unsynced(node: NodeId, db: &Db, unsynced: Option<Unsynced>) -> Result<Arc<Store>> {
        let rows = db.keyspace(KEYSPACE)?;
        Ok(Arc::new(Store { node, db: db.clone(), rows, branches: Mutex::default(), unsynced }))
    }

    /// Its name among nodes.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The store.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Holds an open transaction as this store's branch until it is asked to prepare it.
    pub fn join(&self, txn: TxnId, branch: Transaction) {
        self.branches.lock().open.insert(txn, branch);
    }

    /// As [`join`](Store::join), unless there is one: then false, and the given one is dropped.
    pub(crate) fn join_new(&self, txn: TxnId, branch: Transaction) -> bool {
        let mut branches = self.branches.lock();
        if branches.open.contains_key(&txn) || branches.prepared.contains_key(&txn) {
            return false;
        }
        branches.open.insert(txn, branch);
        true
    }

    fn take_open(&self, txn: TxnId) -> Result<Transaction, Answer> {
        let open = self.branches.lock().open.remove(&txn);
        open.ok_or_else(|| Answer::Refused(Error::BadInput(format!("{txn} has no open branch here"))))
    }

    fn prepared(&self, txn: TxnId) -> Option<Prepared> {
        self.branches.lock().prepared.get(&txn).cloned()
    }

    /// Commits an open branch with a record of its transaction as a row.
    fn commit_with(&self, txn: TxnId, record: &Record, reply: Reply) {
        let mut branch = match self.take_open(txn) {
            Ok(branch) => branch,
            Err(answer) => return reply(answer),
        };
        let is_kept = Durable::keeps(record);
        let needs_row = match &record.entry {
            Entry::Committing { group, .. } if !group.participants.is_empty() => is_kept,
            // Who only read has nothing to remember.
            _ => is_kept && branch.has_writes(),
        };
        if !needs_row && !branch.has_writes() {
            return match branch.commit() {
                Ok(_) => reply(Answer::Durable(0)),
                Err(error) => reply(refusal(error)),
            };
        }
        branch.set_durability(self.durability(record, true));
        let key = key_of(record.txn, record.role());
        let placed = match needs_row {
            true => branch.insert(&self.rows, key, record.encode()).and_then(|()| branch.commit_pipelined()),
            false => branch.commit_pipelined(),
        };
        answer_from(placed, true, reply);
    }

    fn durability(&self, record: &Record, forced: bool) -> Durability {
        let left_out = matches!(
            (&self.unsynced, &record.entry),
            (Some(Unsynced::Decision), Entry::Committing { .. })
                | (Some(Unsynced::Accept), Entry::Acceptor { .. })
                | (Some(Unsynced::OnePhase), Entry::Finished { .. })
        );
        if forced && !left_out { Durability::Synced } else { Durability::Memory }
    }

    fn write(&self, batch: WriteBatch, durability: Durability, forced: bool, reply: Reply) {
        answer_from(self.db.write_pipelined_with(batch, durability), forced, reply);
    }

    fn end(
        &self,
        txn: TxnId,
        how: impl FnOnce(&Prepared) -> seawall_engine::Result<Ticket>,
        forced: bool,
        reply: Reply,
    ) {
        let Some(prepared) = self.prepared(txn) else {
            // It has ended before, and its end came before whatever is written next.
            return reply(Answer::Written(self.db_end().0));
        };
        let ended = how(&prepared);
        if ended.is_ok() {
            self.branches.lock().prepared.remove(&txn);
            if BranchName::of(prepared.xid()).is_some_and(|name| name.ends.is_none()) {
                let mut batch = WriteBatch::new();
                batch.remove(&self.rows, key_of(txn, Role::Participant));
                // Left over, it is removed when the store is attached again.
                let _ = self.db.write_pipelined_with(batch, Durability::Memory);
            }
        }
        answer_from(ended, forced, reply);
    }

    fn db_end(&self) -> Lsn {
        self.db.snapshot().lsn()
    }

    /// Rows of records, by transaction and role.
    fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for row in self.rows.prefix([RECORDS]) {
            let (key, value) = row?;
            let damaged = |what: &str| Error::Damaged {
                node: self.node,
                what: format!("a record of atomic commit ({what}; key {})", key.escape_ascii()),
            };
            let record = Record::decode(&value).map_err(|error| damaged(&error.to_string()))?;
            if key_of(record.txn, record.role()) != *key {
                return Err(damaged("it stands under another's key"));
            }
            records.push(record);
        }
        Ok(records)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("node", &self.node).finish_non_exhaustive()
    }
}

//= docs/format/txn.md#in-a-store
fn key_of(txn: TxnId, role: Role) -> Vec<u8> {
    let mut key = Writer::default();
    key.u8(RECORDS);
    role.encode(&mut key);
    for part in [txn.coordinator.0, txn.epoch, txn.sequence] {
        // Ascending in the order of bytes.
        key.slice(&part.to_be_bytes());
    }
    key.finish()
}

/// Hands on what becomes of a commit.
fn answer_from(placed: seawall_engine::Result<Ticket>, forced: bool, reply: Reply) {
    match placed {
        Ok(ticket) => ticket.on_done(move |done| {
            reply(match done {
                Ok(lsn) if forced => Answer::Durable(lsn.0),
                Ok(lsn) => Answer::Written(lsn.0),
                Err(error) => refusal(error),
            });
        }),
        Err(error) => reply(refusal(error)),
    }
}

/// Whether nothing happened, or that is not known.
fn refusal(error: EngineError) -> Answer {
    match error {
        EngineError::Heuristic { outcome, .. } => Answer::Heuristic(decision_of(outcome)),
        // Whoever it was went behind the coordinator's back.
        EngineError::XidFinished { is_committed: true, .. } => Answer::Heuristic(Decision::Commit),
        EngineError::XidFinished { is_committed: false, .. } => Answer::Heuristic(Decision::Abort),
        EngineError::CommitUnknown { .. }
        | EngineError::Io { .. }
        | EngineError::Corruption { .. }
        | EngineError::Poisoned(_)
        | EngineError::Closed => Answer::Lost(error.into()),
        error => Answer::Refused(error.into()),
    }
}

fn decision_of(outcome: Heuristic) -> Decision {
    match outcome {
        Heuristic::Committed => Decision::Commit,
        _ => Decision::Abort,
    }
}

impl DecisionLog for Store {
    fn start(&self) -> Result<(u64, Durable)> {
        let damaged = |what: &str| Error::Damaged { node: self.node, what: what.to_owned() };
        let epoch = match self.rows.get(INCARNATION)? {
            None => 0,
            Some(row) => {
                let node = row.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
                let epoch = row.get(8..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
                let (Some(node), Some(epoch)) = (node, epoch) else {
                    return Err(damaged("the row of its incarnations"));
                };
                if node != self.node.0 {
                    return Err(Error::BadInput(format!(
                        "the store is node {}, and not {}: a node's name is for ever",
                        NodeId(node),
                        self.node
                    )));
                }
                epoch
            }
        };
        let epoch = epoch.checked_add(1).ok_or_else(|| damaged("the number of its incarnations"))?;
        let mut row = self.node.0.to_le_bytes().to_vec();
        row.extend_from_slice(&epoch.to_le_bytes());
        let mut batch = WriteBatch::new();
        batch.insert(&self.rows, INCARNATION, row);
        self.db.write_with(batch, Durability::Synced)?;
        let mut durable = Durable::default();
        self.records()?.iter().for_each(|record| durable.apply(record));
        Ok((epoch, durable))
    }

    fn append(&self, records: &[Record], forced: bool, reply: Reply) {
        let mut batch = WriteBatch::new();
        let mut durability = Durability::Memory;
        for record in records {
            let key = key_of(record.txn, record.role());
            if Durable::keeps(record) {
                batch.insert(&self.rows, key, record.encode());
            } else {
                batch.remove(&self.rows, key);
            }
            if self.durability(record, forced) == Durability::Synced {
                durability = Durability::Synced;
            }
        }
        self.write(batch, durability, forced, reply);
    }

    fn flush(&self, reply: Reply) {
        let mut batch = WriteBatch::new();
        batch.insert(&self.rows, FLUSHED, []);
        self.write(batch, Durability::Synced, true, reply);
    }
}

impl Participant for Store {
    fn prepare(&self, txn: TxnId, record: &Record, reply: Reply) {
        let branch = match self.take_open(txn) {
            Ok(branch) => branch,
            Err(answer) => return reply(answer),
        };
        let Entry::Prepared { protocol, group } = &record.entry else {
            return reply(Answer::Refused(Error::BadInput("no record of a prepared branch".into())));
        };
        let ends = Some((*protocol, Arc::clone(group)));
        let xid = match (BranchName { txn, participant: self.node, ends }).to_xid() {
            Ok(xid) => xid,
            Err(error) => return reply(Answer::Refused(error.into())),
        };
        if !BranchName::has_room(*protocol, group) && branch.has_writes() {
            let mut batch = WriteBatch::new();
            batch.insert(&self.rows, key_of(txn, Role::Participant), record.encode());
            if let Err(error) = self.db.write_pipelined_with(batch, Durability::Memory) {
                return reply(refusal(error));
            }
        }
        match branch.prepare_pipelined(xid) {
            Ok((Vote::ReadOnly(_), _)) => reply(Answer::ReadOnly),
            Ok((Vote::Prepared(prepared), ticket)) => {
                self.branches.lock().prepared.insert(txn, prepared);
                answer_from(Ok(ticket), true, reply);
            }
            Err(error) => reply(refusal(error)),
        }
    }

    fn commit(&self, txn: TxnId, forced: bool, reply: Reply) {
        let durability = if forced { Durability::Synced } else { Durability::Memory };
        self.end(txn, |prepared| prepared.commit_pipelined(durability), forced, reply);
    }

    fn rollback(&self, txn: TxnId, reply: Reply) {
        self.end(txn, |prepared| prepared.rollback_pipelined(), false, reply);
    }

    fn commit_one_phase(&self, txn: TxnId, record: &Record, reply: Reply) {
        self.commit_with(txn, record, reply);
    }

    fn commit_merged(&self, txn: TxnId, record: &Record, reply: Reply) {
        self.commit_with(txn, record, reply);
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn hold(&self) -> Option<HeldTickets> {
        Some(self.db.hold_tickets())
    }

    fn abandon(&self, txn: TxnId) {
        let branch = self.branches.lock().open.remove(&txn);
        drop(branch);
    }

    fn complete(&self, txn: TxnId, decision: Decision, reply: Reply) {
        let outcome = match decision {
            Decision::Commit => Heuristic::Committed,
            Decision::Abort => Heuristic::RolledBack,
        };
        match self.prepared(txn).map(|prepared| prepared.complete(outcome)) {
            Some(Ok(lsn)) => reply(Answer::Durable(lsn.0)),
            Some(Err(error)) => match refusal(error) {
                // So it has ended already, though perhaps not by `complete`, and not durably.
                Answer::Heuristic(done) if done == decision => DecisionLog::flush(self, reply),
                answer => reply(answer),
            },
            None => reply(Answer::Refused(Error::BadInput(format!("{txn} is not prepared here")))),
        }
    }

    fn forget(&self, txn: TxnId) {
        let prepared = self.branches.lock().prepared.remove(&txn);
        if let Some(prepared) = prepared.filter(|prepared| prepared.heuristic().is_some()) {
            // If it fails, it is found again when the store is opened, and forgotten then.
            let _ = prepared.forget();
        }
    }

    fn flush(&self, reply: Reply) {
        DecisionLog::flush(self, reply);
    }

    fn recover(&self) -> Result<Vec<(TxnId, Entry)>> {
        let mut found = Vec::new();
        for prepared in self.db.prepared().chain(self.db.heuristics()) {
            let Some(name) = BranchName::of(prepared.xid()) else { continue };
            if name.participant != self.node {
                continue;
            }
            let entry = match (prepared.heuristic(), name.ends) {
                (Some(outcome), _) => Entry::Heuristic { decision: decision_of(outcome) },
                (None, Some((protocol, group))) => Entry::Prepared { protocol, group },
                (None, None) => self.noted(name.txn)?,
            };
            self.branches.lock().prepared.insert(name.txn, prepared);
            found.push((name.txn, entry));
        }
        Ok(found)
    }
}

impl Store {
    /// Of a branch whose name has no room for it.
    fn noted(&self, txn: TxnId) -> Result<Entry> {
        let damaged = || Error::Damaged { node: self.node, what: format!("what is kept of {txn}") };
        match self.rows.get(key_of(txn, Role::Participant))? {
            Some(row) => Ok(Record::decode(&row).map_err(|_| damaged())?.entry),
            None => Ok(Entry::Prepared { protocol: Protocol::TwoPhase, group: Arc::new(Group::default()) }),
        }
    }
}
