//! How a command fails: one exit code for each kind of trouble, said in one place.

use seawall::Error;
use seawall::wal;
use std::io;
use std::path::Path;

/// What a command gives back.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// What to do about damage.
const VERIFY: &str = "`seawall verify` lists all that is damaged";

/// The exit codes that scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The reader of standard output has gone away: not an error of anybody.
    OutputClosed = 0,
    Error = 1,
    Usage = 2,
    NotFound = 3,
    Locked = 4,
    Corruption = 5,
    FormatVersion = 6,
    Threshold = 7,
    Interrupted = 130,
}

/// What went wrong and what to do, in words for people.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None }
    }

    pub(crate) fn error(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Error, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Exit::NotFound, message)
    }

    /// A file of the user's, or the system, refused something.
    pub(crate) fn file(doing: &str, path: &Path, source: &io::Error) -> Failure {
        let exit = if source.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Error };
        Failure::new(exit, format!("{doing} {}: {source}", path.display()))
    }

    /// Standard output refused something.
    pub(crate) fn output(source: &io::Error) -> Failure {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Exit::OutputClosed, ""),
            _ => Failure::error(format!("writing to standard output: {source}")),
        }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Without the advice to do what is being done.
    pub(crate) fn unless_verifying(self) -> Failure {
        if self.exit == Exit::Corruption && self.hint.as_deref() == Some(VERIFY) {
            return Failure { hint: None, ..self };
        }
        self
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub(crate) fn context(mut self, doing: impl AsRef<str>) -> Failure {
        self.message = format!("{}: {}", doing.as_ref(), self.message);
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (exit, hint) = match &error {
            Error::Locked { .. } => (Exit::Locked, None),
            Error::Corruption { .. } => (Exit::Corruption, Some(VERIFY)),
            Error::FormatVersion { .. } => (Exit::FormatVersion, None),
            Error::KeyspaceMissing(_) | Error::SlotMissing(_) => (Exit::NotFound, None),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => (Exit::NotFound, None),
            Error::BadInput(_) | Error::TooLarge { .. } => (Exit::Usage, None),
            _ => (Exit::Error, None),
        };
        Failure { exit, message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}

impl From<wal::Error> for Failure {
    fn from(error: wal::Error) -> Failure {
        let exit = match &error {
            wal::Error::Locked { .. } => Exit::Locked,
            wal::Error::Corruption { .. } => Exit::Corruption,
            wal::Error::FormatVersion { .. } => Exit::FormatVersion,
            wal::Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Error,
        };
        Failure::new(exit, error.to_string())
    }
}
