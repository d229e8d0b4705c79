//! Errors as gRPC has them, with XA's code beside: `seawall-xa` in the metadata.

use crate::error::Error;
use seawall_engine::{Error as EngineError, Heuristic};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The metadata's key for XA's code, as `XAER_NOTA`.
pub(super) const XA: &str = "seawall-xa";

fn with(code: Code, xa: &'static str, message: String) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(XA, MetadataValue::from_static(xa));
    status
}

pub(super) fn unknown_branch(what: &str) -> Status {
    with(
        Code::NotFound,
        "XAER_NOTA",
        format!("{what} is not known here: never begun, given up, or ended and forgotten"),
    )
}

pub(super) fn protocol(what: impl Into<String>) -> Status {
    with(Code::FailedPrecondition, "XAER_PROTO", what.into())
}

pub(super) fn invalid(what: impl Into<String>) -> Status {
    with(Code::InvalidArgument, "XAER_INVAL", what.into())
}

pub(super) fn busy(what: impl Into<String>) -> Status {
    with(Code::ResourceExhausted, "XAER_RMERR", what.into())
}

/// Nothing was done: there is no thread to do it.
pub(super) fn full(what: impl Into<String>) -> Status {
    with(Code::ResourceExhausted, "XAER_RMFAIL", what.into())
}

/// The branch is rolled back, for it took too long.
pub(super) fn too_old(what: impl Into<String>) -> Status {
    with(Code::Aborted, "XA_RBTIMEOUT", what.into())
}

pub(super) fn internal(what: impl Into<String>) -> Status {
    with(Code::Internal, "XAER_RMFAIL", what.into())
}

/// What a store's error is to a caller.
pub(super) fn of_engine(error: &EngineError) -> Status {
    use EngineError as E;
    let (code, xa) = match error {
        E::Conflict | E::Deadlock | E::PreparedConflict { .. } => (Code::Aborted, xa_rollback(error)),
        E::LockTimeout => (Code::Aborted, "XA_RBTIMEOUT"),
        E::SnapshotTooOld { .. } => (Code::Aborted, "XA_RBTRANSIENT"),
        E::XidDuplicate { .. } => (Code::AlreadyExists, "XAER_DUPID"),
        E::XidFinished { .. } => (Code::FailedPrecondition, "XAER_PROTO"),
        E::Heuristic { outcome, .. } => (Code::FailedPrecondition, heuristic(*outcome)),
        E::NoSpace => (Code::ResourceExhausted, "XAER_RMERR"),
        E::TooLarge { .. } | E::BadInput(_) | E::KeyspaceMissing(_) => (Code::InvalidArgument, "XAER_INVAL"),
        E::ReadOnly => (Code::FailedPrecondition, "XAER_PROTO"),
        E::Corruption { .. } => (Code::DataLoss, "XAER_RMFAIL"),
        E::CommitUnknown { .. } => (Code::Unknown, "XA_RETRY"),
        E::Closed | E::Poisoned(_) => (Code::Unavailable, "XAER_RMFAIL"),
        _ => (Code::Internal, "XAER_RMFAIL"),
    };
    with(code, xa, error.to_string())
}

fn xa_rollback(error: &EngineError) -> &'static str {
    if matches!(error, EngineError::Deadlock) { "XA_RBDEADLOCK" } else { "XA_RBINTEGRITY" }
}

fn heuristic(outcome: Heuristic) -> &'static str {
    match outcome {
        Heuristic::Committed => "XA_HEURCOM",
        Heuristic::RolledBack => "XA_HEURRB",
        Heuristic::Mixed => "XA_HEURMIX",
        _ => "XA_HEURHAZ",
    }
}

pub(super) fn of(error: &Error) -> Status {
    match error {
        Error::Engine(error) => of_engine(error),
        Error::BadInput(_) => invalid(error.to_string()),
        Error::NodeMissing(_) => with(Code::NotFound, "XAER_NOTA", error.to_string()),
        Error::Closed | Error::Fenced { .. } | Error::Unreachable { .. } => {
            with(Code::Unavailable, "XAER_RMFAIL", error.to_string())
        }
        Error::Busy => with(Code::ResourceExhausted, "XAER_RMFAIL", error.to_string()),
        Error::ForeignConflict(_) => with(Code::Aborted, "XA_RBINTEGRITY", error.to_string()),
        _ => internal(error.to_string()),
    }
}
