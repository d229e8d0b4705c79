//! What a server says, and what it means for a transaction.

use crate::error::Error;
use crate::id::NodeId;
use ::postgres::error::{Severity, SqlState};
use std::error::Error as _;
use std::fmt;

/// What a PostgreSQL server says, or the connection to it: the source of [`Error::Foreign`], [`Error::ForeignConflict`]
/// and [`Error::Unreachable`].
///
/// ```
/// use seawall_txn::Error;
/// use seawall_txn::postgres::{SqlError, SqlErrorKind};
/// fn is_full(error: &Error) -> bool {
///     SqlError::of(error).is_some_and(|error| error.kind() == SqlErrorKind::NoRoom)
/// }
/// assert!(!is_full(&Error::Closed));
/// ```
#[derive(Debug)]
pub struct SqlError {
    kind: SqlErrorKind,
    code: Option<String>,
    message: String,
    source: Option<::postgres::Error>,
}

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SqlErrorKind {
    /// 40001, 40P01: another transaction was in the way. Running it again is right.
    Conflict,
    /// 55000 to PREPARE TRANSACTION: the server's `max_prepared_transactions` is 0.
    PreparedDisabled,
    /// 53xxx: no room for more connections, prepared transactions, memory, or on the disk.
    NoRoom,
    /// The connection is gone, or there was none to be had.
    Lost,
    /// The branch's transaction was ended by SQL that ran in it, or had failed before.
    Ended,
    /// Everything else: see [`SqlError::code`].
    Other,
}

impl SqlError {
    pub(super) fn new(kind: SqlErrorKind, message: impl Into<String>) -> SqlError {
        SqlError { kind, code: None, message: message.into(), source: None }
    }

    /// The server's, or the connection's, behind an error of this crate; none if it is another's.
    pub fn of(error: &Error) -> Option<&SqlError> {
        match error {
            Error::Aborted { cause: Some(cause), .. } => SqlError::of(cause),
            Error::Foreign(source) | Error::ForeignConflict(source) | Error::Unreachable { source, .. } => {
                source.downcast_ref()
            }
            _ => None,
        }
    }

    /// What it means.
    pub fn kind(&self) -> SqlErrorKind {
        self.kind
    }

    /// The server's code of five characters; none if it is the connection's.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.kind == SqlErrorKind::Lost
    }

    /// Of PREPARE TRANSACTION.
    pub(super) fn of_prepare(self) -> SqlError {
        if self.code() != Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE.code()) {
            return self;
        }
        let message = format!("{} (PREPARE TRANSACTION needs max_prepared_transactions > 0)", self.message);
        SqlError { kind: SqlErrorKind::PreparedDisabled, message, ..self }
    }

    pub(super) fn into_error(self, node: NodeId) -> Error {
        match self.kind {
            SqlErrorKind::Conflict => Error::ForeignConflict(Box::new(self)),
            SqlErrorKind::Lost => Error::Unreachable { node, source: Box::new(self) },
            _ => Error::Foreign(Box::new(self)),
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgreSQL: ")?;
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

impl From<::postgres::Error> for SqlError {
    fn from(error: ::postgres::Error) -> SqlError {
        let Some(said) = error.as_db_error() else {
            let is_lost =
                error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>());
            let kind = if is_lost { SqlErrorKind::Lost } else { SqlErrorKind::Other };
            let mut message = error.to_string();
            if let Some(source) = error.source() {
                message = format!("{message}: {source}");
            }
            return SqlError { kind, code: None, message, source: Some(error) };
        };
        let code = said.code().code();
        let is_fatal = !matches!(said.parsed_severity(), Some(Severity::Error));
        let kind = match code {
            _ if code.starts_with("53") => SqlErrorKind::NoRoom,
            _ if is_fatal => SqlErrorKind::Lost,
            "40001" | "40P01" => SqlErrorKind::Conflict,
            "25P02" => SqlErrorKind::Ended,
            _ => SqlErrorKind::Other,
        };
        let mut message = said.message().to_owned();
        for more in [said.detail(), said.hint()].into_iter().flatten() {
            message = format!("{message}; {more}");
        }
        SqlError { kind, code: Some(code.to_owned()), message, source: Some(error) }
    }
}
