//! What a host has to tell.

use crate::error::Error;
use crate::id::{NodeId, TxnId};
use crate::message::Decision;

/// What there is to be told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice {
    /// A coordinator here knows the outcome. It may not be visible everywhere yet.
    Outcome {
        /// Of which transaction.
        txn: TxnId,
        /// Which.
        decision: Decision,
        /// What a participant here said, if one refused.
        cause: Option<Error>,
    },
    /// All branches here show the outcome.
    Settled {
        /// Of which transaction.
        txn: TxnId,
    },
    /// The outcome will not be known soon.
    Unknown {
        /// Of which transaction.
        txn: TxnId,
    },
    /// A person has ended a branch otherwise than was decided: someone must see to it.
    Damage {
        /// Of which transaction.
        txn: TxnId,
        /// Where.
        participant: NodeId,
        /// What was done there.
        done: Decision,
    },
    /// A later incarnation of a node is at work: this one was taken out.
    Fenced {
        /// Which node.
        node: NodeId,
        /// The later one's epoch.
        epoch: u64,
    },
    /// A node's store has failed, and it was taken out.
    Down {
        /// Which node.
        node: NodeId,
        /// Why.
        error: Error,
    },
    /// Someone did what the protocol does not allow.
    Violation {
        /// Where it was seen.
        node: NodeId,
        /// Of which transaction.
        txn: TxnId,
        /// What.
        what: &'static str,
    },
}
