//! What nodes write down, its bytes, and what it comes to. Pure.
//!
//! A record is what [`crate::Effect::Persist`] hands to the log. Those of a participant go with a verb of its store, which
//! puts the branch's own operations beside them (see [`Record::Prepared`] and the others); the rest are records of their
//! own. The bytes are normative in `docs/format/txn.md`.

#![warn(clippy::indexing_slicing)]

use crate::bytes::{Malformed, Reader, Result, Writer};
use crate::id::{Ballot, Group, NodeId, TxnId};
use crate::message::{Accepted, Decision, Protocol, Role, decode_accepted, encode_accepted};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is written down about a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The transaction.
    pub txn: TxnId,
    /// What.
    pub entry: Entry,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Entry {
    /// A participant can commit or roll back, whatever happens. The store's verb is *prepare*: it validates the branch, and
    /// keeps its locks; it may answer with [`crate::Input::ReadOnly`] or [`crate::Input::Refused`].
    Prepared {
        /// How the transaction will end.
        protocol: Protocol,
        /// Who else is in it: they may be asked for the outcome.
        group: Arc<Group>,
    },
    /// A participant of three-phase commit knows that all have voted yes.
    PreCommitted {
        /// Who else is in it.
        group: Arc<Group>,
    },
    /// A participant's branch has ended. The store's verb is *commit*, *roll back*, or, if the branch was never prepared,
    /// *one-phase commit*.
    Finished {
        /// How.
        decision: Decision,
        /// Whether the outcome was reached without the coordinator, and is kept until it knows.
        retained: bool,
    },
    /// Someone ended a prepared branch by their own decision. Kept until it is told to be forgotten.
    Heuristic {
        /// What was done.
        decision: Decision,
    },
    /// A coordinator of three-phase commit has all votes.
    CoordinatorPreCommit {
        /// Those who have to be told.
        group: Arc<Group>,
    },
    /// A coordinator has decided to commit. There is no such record of an abort: what is not found was aborted.
    Committing {
        /// Those who have to be told.
        group: Arc<Group>,
        /// Whether the coordinator's own store's branch commits by this very record.
        merged: bool,
    },
    /// An acceptor's whole state.
    Acceptor {
        /// Who takes part.
        group: Arc<Group>,
        /// The highest ballot that it has taken part in.
        promised: Ballot,
        /// Ascending by instance.
        accepted: Vec<Accepted>,
    },
    /// Nothing about the transaction is needed any more in this role.
    End(Role),
    /// An acceptor has forgotten votes because a later incarnation of their coordinator knows the outcome, or is without: what
    /// earlier ones still lead is over. About a node, and so with epoch and sequence 0; the highest counts.
    Fence {
        /// That incarnation.
        epoch: u64,
    },
}

const VERSION: u8 = 3;

impl Record {
    /// The most bytes that a record takes.
    pub const BYTES_MAX: usize = 64 << 10;

    /// Whose record it is.
    pub fn role(&self) -> Role {
        match self.entry {
            Entry::Prepared { .. }
            | Entry::PreCommitted { .. }
            | Entry::Finished { .. }
            | Entry::Heuristic { .. } => Role::Participant,
            Entry::CoordinatorPreCommit { .. } | Entry::Committing { .. } => Role::Coordinator,
            Entry::Acceptor { .. } | Entry::Fence { .. } => Role::Acceptor,
            Entry::End(role) => role,
        }
    }

    /// Its bytes.
    ///
    /// ```
    /// use seawall_txn::{Entry, NodeId, Record, Role, TxnId};
    /// let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
    /// let record = Record { txn, entry: Entry::End(Role::Coordinator) };
    /// assert_eq!(Record::decode(&record.encode())?, record);
    /// # Ok::<(), seawall_txn::Malformed>(())
    /// ```
    //= docs/format/txn.md#records
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.txn(self.txn);
        match &self.entry {
            Entry::Prepared { protocol, group } => {
                out.u8(1);
                protocol.encode(&mut out);
                out.group(group);
            }
            Entry::PreCommitted { group } => {
                out.u8(2);
                out.group(group);
            }
            Entry::Finished { decision, retained } => {
                out.u8(3);
                decision.encode(&mut out);
                out.bool(*retained);
            }
            Entry::Heuristic { decision } => {
                out.u8(4);
                decision.encode(&mut out);
            }
            Entry::CoordinatorPreCommit { group } => {
                out.u8(5);
                out.group(group);
            }
            Entry::Committing { group, merged } => {
                out.u8(6);
                out.group(group);
                out.bool(*merged);
            }
            Entry::Acceptor { group, promised, accepted } => {
                out.u8(7);
                out.group(group);
                out.ballot(*promised);
                encode_accepted(&mut out, accepted);
            }
            Entry::End(role) => {
                out.u8(8);
                role.encode(&mut out);
            }
            Entry::Fence { epoch } => {
                out.u8(9);
                out.u64(*epoch);
            }
        }
        out.finish()
    }

    /// The record of these bytes.
    ///
    /// # Errors
    /// If they are not exactly what [`Record::encode`] writes.
    //= docs/format/txn.md#records
    pub fn decode(bytes: &[u8]) -> Result<Record> {
        if bytes.len() > Record::BYTES_MAX {
            return Err(Malformed { at: Record::BYTES_MAX, what: "longer than a record may be" });
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed { at: 0, what: "not a version that this program knows" });
        }
        let txn = reader.txn()?;
        let entry = match reader.u8()? {
            1 => {
                Entry::Prepared { protocol: Protocol::decode(&mut reader)?, group: Arc::new(reader.group()?) }
            }
            2 => Entry::PreCommitted { group: Arc::new(reader.group()?) },
            3 => Entry::Finished { decision: Decision::decode(&mut reader)?, retained: reader.bool()? },
            4 => Entry::Heuristic { decision: Decision::decode(&mut reader)? },
            5 => Entry::CoordinatorPreCommit { group: Arc::new(reader.group()?) },
            6 => Entry::Committing { group: Arc::new(reader.group()?), merged: reader.bool()? },
            7 => Entry::Acceptor {
                group: Arc::new(reader.group()?),
                promised: reader.ballot()?,
                accepted: decode_accepted(&mut reader)?,
            },
            8 => Entry::End(Role::decode(&mut reader)?),
            9 if txn == TxnId::of_node(txn.coordinator) => Entry::Fence { epoch: reader.u64()? },
            _ => return Err(reader.bad("no kind of record")),
        };
        reader.end()?;
        Ok(Record { txn, entry })
    }
}

/// What a node's records come to: for each transaction and role the last entry, until it is not needed any more. This
/// is what recovery hands to [`crate::Site::recover`], and what a checkpoint has to keep.
///
/// ```
/// use seawall_txn::{Decision, Durable, Entry, NodeId, Record, TxnId};
/// let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
/// let mut durable = Durable::default();
/// durable.apply(&Record { txn, entry: Entry::Heuristic { decision: Decision::Commit } });
/// assert_eq!(durable.iter().count(), 1);
/// // A branch that ended as its coordinator knows is no longer of interest.
/// durable.apply(&Record { txn, entry: Entry::Finished { decision: Decision::Commit, retained: false } });
/// assert_eq!(durable.iter().count(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Durable {
    entries: BTreeMap<(TxnId, Role), Entry>,
    fences: BTreeMap<NodeId, u64>,
}

impl Durable {
    /// Adds a record, in the order of the log.
    pub fn apply(&mut self, record: &Record) {
        if let Entry::Fence { epoch } = record.entry {
            let fence = self.fences.entry(record.txn.coordinator).or_default();
            *fence = (*fence).max(epoch);
            return;
        }
        let place = (record.txn, record.role());
        let keeps = match &record.entry {
            Entry::End(_) => false,
            Entry::Finished { retained, .. } => *retained,
            // Nobody to tell: the record was the end as well. One that is merged says what became of its store's branch, in case
            // that store fails before it can.
            Entry::Committing { group, merged } => *merged || !group.participants.is_empty(),
            _ => true,
        };
        if keeps {
            self.entries.insert(place, record.entry.clone());
        } else {
            self.entries.remove(&place);
        }
        // The coordinator's own branch ended by the same record.
        if matches!(record.entry, Entry::Committing { merged: true, .. }) {
            self.entries.remove(&(record.txn, Role::Participant));
        }
    }

    /// Whether this record is kept when nothing else is.
    pub(crate) fn keeps(record: &Record) -> bool {
        let mut durable = Durable::default();
        durable.apply(record);
        !durable.entries.is_empty() || !durable.fences.is_empty()
    }

    /// Of nodes that coordinate, the incarnations whose predecessors' ballots are over.
    pub fn fences(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.fences.iter().map(|(&node, &epoch)| (node, epoch))
    }

    /// With these fences as well.
    pub(crate) fn fenced_as(self, other: &Durable) -> Durable {
        Durable { fences: other.fences.clone(), ..self }
    }

    /// What is kept, by transaction and role.
    pub fn iter(&self) -> impl Iterator<Item = (TxnId, Role, &Entry)> {
        self.entries.iter().map(|(&(txn, role), entry)| (txn, role, entry))
    }

    /// What is kept of a transaction in a role.
    pub fn get(&self, txn: TxnId, role: Role) -> Option<&Entry> {
        self.entries.get(&(txn, role))
    }
}

/// Nodes that must be told, as a group without acceptors.
pub(crate) fn told(participants: impl IntoIterator<Item = NodeId>) -> Arc<Group> {
    Arc::new(Group { participants: participants.into_iter().collect(), acceptors: Vec::new() })
}
