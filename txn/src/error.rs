//! What can go wrong with a transaction over several stores.

use crate::coordinator::Pending;
use crate::id::{NodeId, TxnId};
use std::fmt;

/// The result of a coordinator's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a transaction over several stores, to be matched on.
///
/// ```
/// # use seawall_txn::Error;
/// fn advice(error: &Error) -> &'static str {
///     match error {
///         Error::OutcomeUnknown { .. } => "do not run it again: wait on the handle inside",
///         error if error.is_retryable() => "nothing happened in any store: run it again",
///         _ => "see what it says",
///     }
/// }
/// # assert_eq!(advice(&Error::Closed), "see what it says");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It is rolled back, everywhere. Nothing happened.
    Aborted {
        /// Which transaction.
        txn: TxnId,
        /// What a participant said, if one refused; else it was too late, or a participant had lost its branch.
        cause: Option<Box<Error>>,
    },
    /// It may or may not commit: that is not known *yet*. Running it again could apply it twice.
    OutcomeUnknown {
        /// Resolves when the outcome is known.
        handle: Pending,
    },
    /// What a store says.
    Engine(seawall_engine::Error),
    /// What a participant that is no seawall store says.
    Foreign(Box<dyn std::error::Error + Send + Sync>),
    /// Another transaction was in the way in a participant that is no seawall store; nothing happened there; run it again.
    ForeignConflict(Box<dyn std::error::Error + Send + Sync>),
    /// A participant cannot be reached, or the connection to it was lost before it had voted.
    Unreachable {
        /// Which.
        node: NodeId,
        /// What was met.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What a store keeps of a transaction is damaged: it is not skipped.
    Damaged {
        /// Where.
        node: NodeId,
        /// What.
        what: String,
    },
    /// A later incarnation of this node is at work: this one has stopped. Of a transaction that was handed over before, this says
    /// nothing.
    Fenced {
        /// Which node.
        node: NodeId,
        /// The later one's epoch.
        epoch: u64,
    },
    /// The node is not there: it was never attached, or its store has failed and was not attached again.
    NodeMissing(NodeId),
    /// So much waits for the coordinator already that it takes no more: nothing happened. See
    /// [`CoordinatorBuilder::waiting_max`](crate::CoordinatorBuilder::waiting_max).
    Busy,
    /// An argument that makes no sense.
    BadInput(String),
    /// The coordinator was closed. Of a transaction that was handed over before, this says nothing.
    Closed,
}

impl Error {
    /// Nothing happened in any store, and running it again is right.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Aborted { cause, .. } => cause.as_ref().is_none_or(|cause| cause.is_retryable()),
            Error::Engine(error) => error.is_retryable(),
            Error::ForeignConflict(_) | Error::Unreachable { .. } | Error::Busy => true,
            _ => false,
        }
    }

    /// It may or may not have committed.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::OutcomeUnknown { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Aborted { txn, cause: Some(cause) } => write!(f, "{txn} is rolled back: {cause}"),
            Error::Aborted { txn, cause: None } => {
                write!(
                    f,
                    "{txn} is rolled back: a participant did not answer in time, or had lost its branch"
                )
            }
            Error::OutcomeUnknown { handle } => {
                write!(
                    f,
                    "whether {} commits is not known yet: wait for it, do not run it again",
                    handle.txn()
                )
            }
            Error::Engine(error) => error.fmt(f),
            Error::Foreign(error) | Error::ForeignConflict(error) => error.fmt(f),
            Error::Unreachable { node, source } => write!(f, "{node} cannot be reached: {source}"),
            Error::Damaged { node, what } => write!(f, "{node}: {what} is damaged"),
            Error::Fenced { node, epoch } => {
                write!(
                    f,
                    "{node} runs elsewhere in a later incarnation, of epoch {epoch}: this one has stopped"
                )
            }
            Error::NodeMissing(node) => write!(f, "{node} is not attached"),
            Error::Busy => f.write_str("the coordinator has too much to do: try again later"),
            Error::BadInput(what) => f.write_str(what),
            Error::Closed => f.write_str("the coordinator is closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Aborted { cause: Some(cause), .. } => Some(&**cause),
            Error::Engine(error) => Some(error),
            Error::Foreign(error) | Error::ForeignConflict(error) => Some(&**error),
            Error::Unreachable { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl From<seawall_engine::Error> for Error {
    fn from(error: seawall_engine::Error) -> Error {
        Error::Engine(error)
    }
}
