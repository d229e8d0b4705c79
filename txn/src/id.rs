//! Names: of nodes, transactions and ballots. Pure.

use crate::error::{Error, Result};
use std::fmt;

/// A node: a store, a daemon, a foreign database. Given out by whoever puts the system together, and never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A transaction across stores: who coordinates it, in which of its incarnations, and which one it is of that
/// incarnation. It is never reused: an incarnation's epoch is durable before it gives out its first transaction.
///
/// ```
/// use seawall_txn::{NodeId, TxnId};
/// let txn = TxnId { coordinator: NodeId(7), epoch: 2, sequence: 40 };
/// assert_eq!(txn.to_string(), "n7/2/40");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId {
    /// The node that began it.
    pub coordinator: NodeId,
    /// That node's incarnation: it grows with each start.
    pub epoch: u64,
    /// Counted within the incarnation.
    pub sequence: u64,
}

impl TxnId {
    /// Stands for all that a node coordinates. No transaction is called so: incarnations are counted from 1.
    pub(crate) fn of_node(coordinator: NodeId) -> TxnId {
        TxnId { coordinator, epoch: 0, sequence: 0 }
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.coordinator, self.epoch, self.sequence)
    }
}

/// A ballot of Paxos Commit. Ballot 0 belongs to the participants, each of which proposes its own vote in it; every
/// other belongs to one leader of one incarnation of the node in its name: no two leaders ever share one, not even a
/// node's before and after a crash, nor two that follow each other in one incarnation (T10). Ordered as its fields are.
///
/// Source: Lamport, *Paxos Made Simple* (2001), section 2.2: proposers choose from disjoint sets of numbers, and remember
/// the highest that they have tried; a durable epoch stands for what is remembered here.
///
/// ```
/// use seawall_txn::{Ballot, NodeId};
/// let before = Ballot { round: 1, leader: NodeId(7), epoch: 1, sequence: 1 };
/// let after = Ballot { epoch: 2, ..before };
/// assert!(Ballot::ZERO < before && before < after);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Compared first; 0 only in ballot 0.
    pub round: u32,
    /// Who leads it.
    pub leader: NodeId,
    /// In which of that node's incarnations.
    pub epoch: u64,
    /// Which of that incarnation's leaders, counted over all transactions.
    pub sequence: u64,
}

impl Ballot {
    /// The participants' own.
    pub const ZERO: Ballot = Ballot { round: 0, leader: NodeId(0), epoch: 0, sequence: 0 };

    /// Whether it is the participants' own.
    pub fn is_zero(self) -> bool {
        self.round == 0
    }
}

/// Who takes part in a transaction, in ascending order: it travels with what must outlive its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// The stores that the transaction wrote to, or read from.
    pub participants: Vec<NodeId>,
    /// For Paxos Commit: 2F+1 nodes; the first F+1 are enough while all is well. Otherwise empty.
    pub acceptors: Vec<NodeId>,
}

impl Group {
    /// The most participants of one transaction.
    pub const PARTICIPANTS_MAX: usize = 1024;
    /// The most acceptors of one transaction.
    pub const ACCEPTORS_MAX: usize = 15;

    pub(crate) fn check_participants(count: usize) -> Result<()> {
        if count <= Group::PARTICIPANTS_MAX {
            return Ok(());
        }
        Err(Error::BadInput(format!(
            "{count} participants: a transaction has at most {}",
            Group::PARTICIPANTS_MAX
        )))
    }

    /// Whether it can be written down, and read again (T9).
    pub(crate) fn check(&self) -> Result<()> {
        Group::check_participants(self.participants.len())?;
        if self.acceptors.len() <= Group::ACCEPTORS_MAX {
            return Ok(());
        }
        Err(Error::BadInput(format!(
            "{} acceptors: a transaction has at most {}",
            self.acceptors.len(),
            Group::ACCEPTORS_MAX
        )))
    }

    /// How many acceptors make a majority: F+1.
    pub fn majority(&self) -> usize {
        self.acceptors.len() / 2 + 1
    }

    /// Those acceptors that are asked first.
    pub fn first_acceptors(&self) -> &[NodeId] {
        self.acceptors.get(..self.majority()).unwrap_or(&self.acceptors)
    }

    /// A node's place among the participants; behind them all if it is none.
    pub(crate) fn rank(&self, node: NodeId) -> u64 {
        self.participants.iter().position(|&other| other == node).unwrap_or(self.participants.len()) as u64
    }
}
