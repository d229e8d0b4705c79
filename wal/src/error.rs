//! What can go wrong with a log.

use crate::Lsn;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of a log operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the log, to be matched on. `Display` is written for people and says what to do.
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
    /// The disk is full. Nothing was promised and nothing is lost; free some space and go on.
    NoSpace,
    /// This instance refuses writes since the failure named; reopen, which decides from what is on the disk.
    Poisoned(Arc<Error>),
    /// The record may or may not survive: ask again after reopening.
    CommitUnknown {
        /// Where the record was to stand.
        lsn: Lsn,
    },
    /// Bytes that were promised are damaged.
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// The first position that is lost, where it is known.
        lsn: Option<Lsn>,
        /// What was expected and what was found.
        what: String,
    },
    /// The log was [cut](crate::Wal::truncate_after) before the position of a reader, a follower or a pin: what it
    /// stands on, and may have shown, is no part of the log any more. Begin again before `at`.
    Truncated {
        /// The first position that was dropped.
        at: Lsn,
    },
    /// What is asked for was reclaimed.
    Reclaimed {
        /// What was asked for.
        lsn: Lsn,
        /// Where the log begins now.
        first: Lsn,
    },
    /// Another process, or another handle in this one, has the log open.
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
    /// A record or an option is over its limit.
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
    /// The log was opened read-only.
    ReadOnly,
    /// The log is a replica's: it takes what its primary ships and nothing else, until it is promoted.
    Replica,
    /// What was shipped does not go on where this replica's log ends: the two have parted.
    Diverged {
        /// Where it was to go on.
        at: Lsn,
    },
    /// A higher epoch was promised: another is, or is about to be, the primary.
    Fenced {
        /// The epoch that was promised.
        epoch: u64,
    },
    /// The log was closed.
    Closed,
}

impl Error {
    /// True if the record may or may not survive.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::CommitUnknown { .. })
    }

    /// A second of an error that a write gave: one for the log, one for the caller.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Io { op, path, offset, source } => {
                let source = std::io::Error::from(source.kind());
                Error::Io { op, path: path.clone(), offset: *offset, source }
            }
            Error::NoSpace => Error::NoSpace,
            other => Error::BadInput(other.to_string()),
        }
    }

    /// Wraps a system error; a full disk becomes [`Error::NoSpace`].
    pub fn io(op: &'static str, path: &Path, offset: Option<u64>, source: io::Error) -> Error {
        if is_disk_full(&source) {
            Error::NoSpace
        } else {
            Error::Io { op, path: path.to_owned(), offset, source }
        }
    }
}

/// True for `ENOSPC` and `EDQUOT`.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
            Error::NoSpace => {
                write!(f, "the disk is full: nothing was written; free some space and try again")
            }
            Error::Poisoned(cause) if matches!(**cause, Error::NoSpace) => f.write_str(
                "this log refuses writes since one of its own found no room on the disk: free some space, then call \
                 `resume`, or reopen it",
            ),
            Error::Poisoned(cause) => {
                write!(f, "this log refuses writes since an earlier failure; reopen it. The failure: {cause}")
            }
            Error::CommitUnknown { lsn } => {
                write!(
                    f,
                    "whether the record at LSN {lsn} survives is not known; reopen the log and look for it"
                )
            }
            Error::Corruption { file, offset, lsn, what } => {
                write!(f, "{} is damaged at byte {offset}", file.display())?;
                if let Some(lsn) = lsn {
                    write!(f, " (LSN {lsn})")?;
                }
                write!(f, ": {what}")
            }
            Error::Truncated { at } => write!(
                f,
                "the log was cut at LSN {at}, before this position: what stood from there on is gone; begin again there"
            ),
            Error::Reclaimed { lsn, first } => {
                write!(f, "LSN {lsn} was reclaimed: the log begins at {first} now")
            }
            Error::Locked { path, pid: Some(pid) } if *pid == std::process::id() => {
                let path = path.display();
                write!(
                    f,
                    "{path} is in use by this process; clone that `Wal`, or drop it and its readers first"
                )
            }
            Error::Locked { path, pid: Some(pid) } => {
                write!(f, "{} is in use by process {pid}; close it there first", path.display())
            }
            Error::Locked { path, pid: None } => {
                write!(f, "{} is in use by another process; close it there first", path.display())
            }
            Error::FormatVersion { found, supported } => write!(
                f,
                "the files have format {found}, and this version reads {} to {}; use a version that reads them",
                supported.start(),
                supported.end()
            ),
            Error::TooLarge { what, len, max } => {
                write!(f, "{what} of {len} bytes is over the limit of {max}")
            }
            Error::BadInput(what) => f.write_str(what),
            Error::ReadOnly => f.write_str("opened read-only: open it for writing first"),
            Error::Replica => f.write_str(
                "this log is a replica's: it takes only what its primary ships; promote it, or open it as a replica",
            ),
            Error::Diverged { at } => write!(
                f,
                "the primary's log does not go on at {at} with what is here: the two have parted; rewind this one"
            ),
            Error::Fenced { epoch } => {
                write!(f, "epoch {epoch} was promised to another primary: nothing is written in an older one")
            }
            Error::Closed => f.write_str("it was closed: open it again"),
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
