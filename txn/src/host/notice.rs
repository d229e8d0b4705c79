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
    /// A participant cannot be reached at the moment. What it has prepared stays so, and is seen to when it is back.
    Away {
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

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Notice::Outcome { txn, decision: Decision::Commit, .. } => write!(f, "{txn} is committed"),
            Notice::Outcome { txn, decision: Decision::Abort, .. } => write!(f, "{txn} is rolled back"),
            Notice::Settled { txn } => write!(f, "{txn} is visible in all stores here"),
            Notice::Unknown { txn } => write!(f, "whether {txn} commits will not be known soon"),
            Notice::Damage { txn, participant, done } => {
                let done = if *done == Decision::Commit { "committed" } else { "rolled back" };
                write!(f, "{txn} was {done} by hand at {participant}, and otherwise elsewhere: see to it")
            }
            Notice::Fenced { node, epoch } => {
                write!(
                    f,
                    "{node} runs elsewhere in a later incarnation, of epoch {epoch}: it has stopped here"
                )
            }
            Notice::Down { node, error } => {
                write!(f, "{node} was taken out, for its store has failed: {error}")
            }
            Notice::Away { node, error } => write!(f, "{node} is away, and will be asked again: {error}"),
            Notice::Violation { node, txn, what } => {
                write!(f, "{node} has seen what the protocol does not allow, in {txn}: {what}")
            }
        }
    }
}
