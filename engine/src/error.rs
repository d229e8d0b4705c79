//! What can go wrong with a store.
//!
//! Three questions matter to a caller, and each has a method: did another transaction win
//! ([`is_conflict`](Error::is_conflict)), is running it again right ([`is_retryable`](Error::is_retryable)), and is
//! the outcome known ([`is_outcome_unknown`](Error::is_outcome_unknown)).

use crate::{Heuristic, Xid};
use seawall_wal::Lsn;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of an engine operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the store, to be matched on. `Display` is written for people and says what to do.
///
/// ```
/// use seawall_engine::Error;
///
/// fn advice(error: &Error) -> &'static str {
///     match error {
///         Error::NoSpace => "make room, then call Db::resume",
///         error if error.is_retryable() => "nothing happened: try again",
///         error if error.is_outcome_unknown() => "open the store again, and look",
///         _ => "see what it says",
///     }
/// }
/// assert_eq!(advice(&Error::Conflict), "nothing happened: try again");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The system refused a call on a file.
    Io {
        /// The call: `"write"`, `"sync"`, …
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: Option<u64>,
        /// What the system said.
        source: io::Error,
    },
    /// Another transaction won; nothing happened; run it again.
    Conflict,
    /// Transactions waited for each other's row locks in a circle, and this one was chosen to end it; nothing happened; run
    /// it again.
    Deadlock,
    /// Another transaction held a row's lock for longer than this one would wait.
    LockTimeout,
    /// A prepared transaction, whose outcome is not known yet, is in the way; nothing happened; run it again later.
    PreparedConflict {
        /// Whose outcome.
        xid: Xid,
    },
    /// A transaction of that name is prepared already: XA's `XAER_DUPID`.
    XidDuplicate {
        /// The name.
        xid: Xid,
    },
    /// The prepared transaction had the other outcome already: XA's `XAER_PROTO`.
    XidFinished {
        /// Its name.
        xid: Xid,
        /// Whether that was a commit.
        is_committed: bool,
    },
    /// An operator has ended the prepared transaction, and not in the way that is asked for now: XA's `XA_HEURCOM`,
    /// `XA_HEURRB`, `XA_HEURMIX`, `XA_HEURHAZ`.
    Heuristic {
        /// Its name.
        xid: Xid,
        /// How it was ended.
        outcome: Heuristic,
    },
    /// The disk is full. Nothing was promised and nothing is lost; free some space and go on.
    NoSpace,
    /// This instance refuses writes since the failure named; reopen, which decides from what is on the disk.
    Poisoned(Arc<Error>),
    /// The commit may or may not survive: ask again after reopening; where replicas are waited for, [`Db::await_commit`]
    /// waits on for it.
    ///
    /// [`Db::await_commit`]: crate::Db::await_commit
    CommitUnknown {
        /// Where the commit's record was to stand.
        lsn: Lsn,
    },
    /// Bytes that were promised are damaged.
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// The first log position that is lost, where it is known.
        lsn: Option<Lsn>,
        /// What was expected and what was found.
        what: String,
    },
    /// Another process, or another handle in this one, has the store open.
    Locked {
        /// The locked file.
        path: PathBuf,
        /// The holder, where it is known.
        pid: Option<u32>,
    },
    /// The files are of a format that this version does not read.
    FormatVersion {
        /// The format's number in the file.
        found: u32,
        /// What this version reads.
        supported: RangeInclusive<u32>,
    },
    /// The keyspace was dropped, or is not there in this snapshot.
    KeyspaceMissing(String),
    /// The snapshot, or the transaction that read from it, was older than `snapshot_age_max` allows, and what it held
    /// back was needed. Nothing happened; read from a new one.
    SnapshotTooOld {
        /// The oldest position that is still held.
        oldest: Lsn,
    },
    /// There is no slot of that name.
    SlotMissing(String),
    /// The slot fell behind beyond its limits: the log that it kept is gone, and its owner needs a new image.
    SlotLost(String),
    /// What is on the disk does not reach back so far, or the log does not have it all: only a new image helps.
    NeedsImage {
        /// The position that was asked for, or where what is missing is named.
        to: Lsn,
        /// What there is instead.
        what: String,
    },
    /// A key, a value, a transaction or an option is over its limit.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// An argument that makes no sense.
    BadInput(String),
    /// The store, or the transaction, was opened read-only.
    ReadOnly,
    /// Another store has taken this one's place, in a later epoch: this one refuses writes for good, and reads go on.
    Fenced {
        /// The epoch that was heard of.
        epoch: u64,
    },
    /// Replicas have not come far enough in time; on a replica, the primary has not shown enough. Nothing happened; what
    /// the log holds stays there; try again when they are back.
    Unacknowledged {
        /// Everything below is acknowledged.
        lsn: Lsn,
    },
    /// The store was closed.
    Closed,
}

impl Error {
    /// True if another transaction won: nothing happened.
    ///
    /// ```
    /// use seawall_engine::Error;
    ///
    /// assert!(Error::Conflict.is_conflict() && !Error::Deadlock.is_conflict());
    /// ```
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Conflict)
    }

    /// True if nothing happened and trying again is right: a conflict, a deadlock, a lock that was not to be had in
    /// time, a prepared transaction in the way.
    ///
    /// ```
    /// use seawall_engine::Error;
    ///
    /// assert!(Error::LockTimeout.is_retryable() && !Error::NoSpace.is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::Conflict | Error::Deadlock | Error::LockTimeout | Error::PreparedConflict { .. }
        )
    }

    /// True if the commit may or may not survive.
    ///
    /// ```
    /// use seawall_engine::Error;
    ///
    /// assert!(Error::CommitUnknown { lsn: seawall_engine::Lsn(7) }.is_outcome_unknown());
    /// ```
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::CommitUnknown { .. })
    }

    /// True if no record of the commit can have come into the log.
    pub(crate) fn is_without_effect(&self) -> bool {
        !matches!(
            self,
            Error::CommitUnknown { .. } | Error::Io { .. } | Error::Corruption { .. } | Error::Poisoned(_)
        )
    }

    /// Wraps a system error; a full disk becomes [`Error::NoSpace`].
    pub fn io(op: &'static str, path: &Path, offset: Option<u64>, source: io::Error) -> Error {
        if seawall_wal::error::is_disk_full(&source) {
            Error::NoSpace
        } else {
            Error::Io { op, path: path.to_owned(), offset, source }
        }
    }

    /// The same error once more, for another who waits for the same event. A system error's number and words are
    /// kept, what it may have wrapped is not.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Io { op, path, offset, source } => {
                Error::Io { op, path: path.clone(), offset: *offset, source: same_io(source) }
            }
            Error::Conflict => Error::Conflict,
            Error::Deadlock => Error::Deadlock,
            Error::LockTimeout => Error::LockTimeout,
            Error::PreparedConflict { xid } => Error::PreparedConflict { xid: xid.clone() },
            Error::XidDuplicate { xid } => Error::XidDuplicate { xid: xid.clone() },
            Error::XidFinished { xid, is_committed } => {
                Error::XidFinished { xid: xid.clone(), is_committed: *is_committed }
            }
            Error::Heuristic { xid, outcome } => Error::Heuristic { xid: xid.clone(), outcome: *outcome },
            Error::NoSpace => Error::NoSpace,
            Error::Poisoned(cause) => Error::Poisoned(Arc::clone(cause)),
            Error::CommitUnknown { lsn } => Error::CommitUnknown { lsn: *lsn },
            Error::Corruption { file, offset, lsn, what } => {
                Error::Corruption { file: file.clone(), offset: *offset, lsn: *lsn, what: what.clone() }
            }
            Error::Locked { path, pid } => Error::Locked { path: path.clone(), pid: *pid },
            Error::FormatVersion { found, supported } => {
                Error::FormatVersion { found: *found, supported: supported.clone() }
            }
            Error::KeyspaceMissing(name) => Error::KeyspaceMissing(name.clone()),
            Error::SnapshotTooOld { oldest } => Error::SnapshotTooOld { oldest: *oldest },
            Error::SlotMissing(name) => Error::SlotMissing(name.clone()),
            Error::SlotLost(name) => Error::SlotLost(name.clone()),
            Error::NeedsImage { to, what } => Error::NeedsImage { to: *to, what: what.clone() },
            Error::TooLarge { what, len, max } => Error::TooLarge { what, len: *len, max: *max },
            Error::BadInput(what) => Error::BadInput(what.clone()),
            Error::ReadOnly => Error::ReadOnly,
            Error::Fenced { epoch } => Error::Fenced { epoch: *epoch },
            Error::Unacknowledged { lsn } => Error::Unacknowledged { lsn: *lsn },
            Error::Closed => Error::Closed,
        }
    }
}

pub(crate) fn same_io(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn from_log(error: &seawall_wal::Error) -> Error {
    use seawall_wal::Error as Log;
    match error {
        Log::Io { op, path, offset, source } => {
            Error::Io { op, path: path.clone(), offset: *offset, source: same_io(source) }
        }
        Log::NoSpace => Error::NoSpace,
        Log::Poisoned(cause) => Error::Poisoned(Arc::new(from_log(cause))),
        Log::CommitUnknown { lsn } => Error::CommitUnknown { lsn: *lsn },
        Log::Corruption { file, offset, lsn, what } => {
            Error::Corruption { file: file.clone(), offset: *offset, lsn: *lsn, what: what.clone() }
        }
        Log::Locked { path, pid } => Error::Locked { path: path.clone(), pid: *pid },
        Log::FormatVersion { found, supported } => {
            Error::FormatVersion { found: *found, supported: supported.clone() }
        }
        Log::TooLarge { what, len, max } => Error::TooLarge { what, len: *len, max: *max },
        Log::BadInput(what) => Error::BadInput(what.clone()),
        Log::Fenced { epoch } => Error::Fenced { epoch: *epoch },
        Log::ReadOnly => Error::ReadOnly,
        Log::Closed => Error::Closed,
        other => Error::BadInput(format!("the log reports: {other}")),
    }
}

impl From<seawall_wal::Error> for Error {
    fn from(error: seawall_wal::Error) -> Error {
        match error {
            seawall_wal::Error::Io { op, path, offset, source } => Error::Io { op, path, offset, source },
            other => from_log(&other),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Io { op, path, offset: Some(offset), source } => {
                write!(f, "{op} of {} at byte {offset} failed: {source}", path.display())
            }
            Error::Io { op, path, offset: None, source } => {
                write!(f, "{op} of {} failed: {source}", path.display())
            }
            Error::Conflict => {
                f.write_str("another transaction changed what this one read or wrote; run this one again")
            }
            Error::Deadlock => f.write_str(
                "transactions waited for each other's row locks in a circle; this one gave way: run it again, \
                 and lock rows in one order everywhere",
            ),
            Error::LockTimeout => {
                f.write_str("another transaction held a row's lock for too long; run this one again")
            }
            Error::PreparedConflict { xid } => write!(
                f,
                "the prepared transaction {xid} holds what this one needs; run this one again once its outcome is known"
            ),
            Error::XidDuplicate { xid } => {
                write!(f, "a transaction of the name {xid} is prepared already; give each its own")
            }
            Error::XidFinished { xid, is_committed } => {
                let outcome = if *is_committed { "committed" } else { "rolled back" };
                write!(f, "the prepared transaction {xid} is {outcome} already")
            }
            Error::Heuristic { xid, outcome } => write!(
                f,
                "an operator has ended the prepared transaction {xid} ({outcome}); compare the stores, then forget it"
            ),
            Error::NoSpace => {
                f.write_str("the disk is full: nothing was written; free some space and try again")
            }
            Error::Poisoned(cause) if matches!(**cause, Error::NoSpace) => f.write_str(
                "this store refuses writes since its log found no room on the disk: free some space, then call `resume`, \
                 or reopen it",
            ),
            Error::Poisoned(cause) => {
                write!(
                    f,
                    "this store refuses writes since an earlier failure; reopen it. The failure: {cause}"
                )
            }
            Error::CommitUnknown { lsn } => {
                write!(
                    f,
                    "whether the commit at LSN {lsn} survives is not known; reopen the store and look for it, or, where \
                     replicas are waited for, wait on for it"
                )
            }
            Error::Corruption { file, offset, lsn, what } => {
                write!(f, "{} is damaged at byte {offset}", file.display())?;
                if let Some(lsn) = lsn {
                    write!(f, " (LSN {lsn})")?;
                }
                write!(f, ": {what}")
            }
            Error::Locked { path, pid: Some(pid) } if *pid == std::process::id() => {
                let path = path.display();
                write!(
                    f,
                    "{path} is in use by this process; clone that `Db`, or drop it and all that came from it first: \
                     keyspaces, snapshots, scans, transactions, tickets"
                )
            }
            Error::Locked { path, pid: Some(pid) } => {
                write!(f, "{} is in use by process {pid}; close it there first", path.display())
            }
            Error::Locked { path, pid: None } => {
                write!(f, "{} is in use by another process or handle; close it there first", path.display())
            }
            Error::FormatVersion { found, supported } => write!(
                f,
                "the files have format {found}, and this version reads {} to {}; use a version that reads them",
                supported.start(),
                supported.end()
            ),
            Error::KeyspaceMissing(name) => write!(f, "there is no keyspace \"{}\"", name.escape_debug()),
            Error::SnapshotTooOld { oldest } => write!(
                f,
                "this snapshot is too old: its memory was needed, and only LSN {oldest} and later can be read; \
                 take a new one, or raise snapshot_age_max"
            ),
            Error::SlotMissing(name) => write!(f, "there is no slot \"{}\"", name.escape_debug()),
            Error::SlotLost(name) => write!(
                f,
                "slot {name} fell behind beyond its limits, and its log is gone: its owner needs a new image; then drop \
                 the slot, or create it anew"
            ),
            Error::NeedsImage { to, what } => {
                write!(f, "this store cannot go on from LSN {to}, and needs a new image: {what}")
            }
            Error::TooLarge { what, len, max } => {
                write!(f, "{what} of {len} bytes is over the limit of {max}")
            }
            Error::BadInput(what) => f.write_str(what),
            Error::ReadOnly => f.write_str("opened read-only: open it for writing first"),
            Error::Fenced { epoch } => write!(
                f,
                "another store has taken this one's place in epoch {epoch}: write there, and make this one its replica"
            ),
            Error::Unacknowledged { lsn } => write!(
                f,
                "replicas have not confirmed what stands in the log from LSN {lsn} on, and it has to wait for that; bring \
                 them back, or let commits go on without them"
            ),
            Error::Closed => f.write_str("the store was closed: open it again"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Poisoned(cause) => Some(&**cause),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_error_keeps_its_kind_and_its_cause() {
        let cause = seawall_wal::Error::io("sync", Path::new("log/1"), None, io::Error::from_raw_os_error(5));
        let poisoned = Error::from(seawall_wal::Error::Poisoned(Arc::new(cause)));
        assert!(
            matches!(&poisoned, Error::Poisoned(cause) if matches!(**cause, Error::Io { op: "sync", .. }))
        );
        assert!(std::error::Error::source(&poisoned).is_some());
        assert!(poisoned.to_string().contains("sync of log/1 failed"));
        assert!(Error::from(seawall_wal::Error::CommitUnknown { lsn: Lsn(7) }).is_outcome_unknown());
    }
}
