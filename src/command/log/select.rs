//! What of the log is to be shown: the same for `dump` and `follow`.

use clap::Args;
use seawall::wal::Lsn;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Selection {
    /// The store's directory, or that of a log used alone
    #[arg(value_name = "DB")]
    pub(super) db: PathBuf,
    /// End before this LSN
    #[arg(long, value_name = "LSN")]
    end: Option<u64>,
    /// At most so many records
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) records: Option<u64>,
    /// Only operations on this keyspace: a name, or `#` and its number
    #[arg(short, long, value_name = "NAME")]
    pub(super) keyspace: Option<String>,
    /// Only the transaction with this number: the LSN that its operations stand under
    #[arg(long, value_name = "ID")]
    tx: Option<u64>,
}

impl Selection {
    /// How many records may be shown.
    pub(super) fn count(&self) -> u64 {
        self.records.unwrap_or(u64::MAX)
    }

    /// Whether nothing from this record on is asked for.
    pub(super) fn is_past(&self, lsn: Lsn) -> bool {
        self.end.is_some_and(|end| lsn >= Lsn(end)) || self.tx.is_some_and(|tx| lsn > Lsn(tx))
    }

    /// Whether a record that is not past is asked for, where showing begins at `start`.
    pub(super) fn shows(&self, lsn: Lsn, start: Lsn) -> bool {
        lsn >= start && self.tx.is_none_or(|tx| lsn == Lsn(tx))
    }
}
