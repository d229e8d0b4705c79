//! A connection to a server, and what is said on it. Every statement's answer is one of three: done, refused by the server
//! in a session that lives on, or not known, for the session is gone.

use super::error::{SqlError, SqlErrorKind};
use super::gid::GID_PREFIX;
use crate::id::TxnId;
use crate::message::Decision;
use ::postgres::error::SqlState;
use ::postgres::{Client, IsolationLevel, SimpleQueryMessage};

/// The oldest version that is understood: `pg_xact_status` and its kin are of 13.
const VERSION_MIN: u32 = 13_00_00;

type Result<T, E = SqlError> = std::result::Result<T, E>;

/// Which server and database: a reconnection must lead to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    system: u64,
    database: u32,
}

/// A session's process at the server. Numbers of processes come again; with the time of its start it is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pid: i64,
    started_us: i64,
}

/// How a transaction that was prepared, and is not any more, has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Known(Decision),
    /// It has not yet, after all.
    InProgress,
    /// Long ago: the server has forgotten.
    Forgotten,
}

/// A prepared transaction that was found.
pub(super) struct Found {
    pub(super) gid: String,
    /// Its number, counted without wrapping.
    pub(super) xid: u64,
}

pub(super) struct Session {
    pub(super) client: Client,
    pub(super) backend: Backend,
    /// Nothing more can be said on it.
    pub(super) is_lost: bool,
    /// Counts as a branch while it is there.
    pub(super) permit: Option<super::permits::Permit>,
}

impl Session {
    /// A connection just made, if it is one to a server that will do.
    pub(super) fn new(mut client: Client) -> Result<(Session, Identity)> {
        let query = "SELECT pg_backend_pid(), \
            (SELECT (extract(epoch FROM backend_start) * 1000000)::int8 FROM pg_stat_activity \
                WHERE pid = pg_backend_pid()), \
            (SELECT system_identifier FROM pg_control_system()), \
            (SELECT oid FROM pg_database WHERE datname = current_database()), \
            pg_is_in_recovery()::int, \
            current_setting('max_prepared_transactions')";
        let version = numbers(&mut client, "SELECT current_setting('server_version_num')")?;
        if version.first().copied().flatten().is_none_or(|version| version < u64::from(VERSION_MIN)) {
            return Err(SqlError::new(SqlErrorKind::Other, "a server of version 13 or later is needed"));
        }
        let found = numbers(&mut client, query)?;
        let &[Some(pid), Some(started_us), Some(system), Some(database), Some(is_standby), Some(room)] =
            found.as_slice()
        else {
            return Err(SqlError::new(SqlErrorKind::Other, "the server does not say who it is"));
        };
        if is_standby != 0 {
            return Err(SqlError::new(SqlErrorKind::Lost, "the server is a standby"));
        }
        if room == 0 {
            return Err(SqlError::new(
                SqlErrorKind::PreparedDisabled,
                "max_prepared_transactions is 0: set it in the server's configuration, to at least as many as \
                 transactions are under way at once, and restart the server",
            ));
        }
        let backend = Backend { pid: pid.cast_signed(), started_us: started_us.cast_signed() };
        let identity = Identity { system, database: u32::try_from(database).unwrap_or(u32::MAX) };
        Ok((Session { client, backend, is_lost: false, permit: None }, identity))
    }

    /// Whatever comes of it; a session that is gone is marked so.
    pub(super) fn noting<T>(
        &mut self,
        f: impl FnOnce(&mut Client) -> std::result::Result<T, ::postgres::Error>,
    ) -> Result<T> {
        f(&mut self.client).map_err(|error| {
            let error = SqlError::from(error);
            self.is_lost |= error.is_lost();
            error
        })
    }

    /// Of a statement that has nothing in it that a client could get wrong: what is not the server's word is a loss.
    fn run(&mut self, statement: &str) -> Result<()> {
        let done = self.noting(|client| client.batch_execute(statement));
        self.is_lost |= done.as_ref().is_err_and(|error| error.code().is_none());
        done
    }

    fn rows(&mut self, query: &str) -> Result<Vec<Vec<Option<String>>>> {
        let done = self.noting(|client| rows(client, query));
        self.is_lost |= done.as_ref().is_err_and(|error| error.code().is_none());
        done
    }

    /// Begins a branch. The mark says at the vote that the transaction is still the one that was begun here.
    pub(super) fn begin(&mut self, txn: TxnId, isolation: Option<IsolationLevel>) -> Result<()> {
        let isolation = match isolation {
            Some(IsolationLevel::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
            Some(IsolationLevel::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(_) => " ISOLATION LEVEL READ COMMITTED",
            None => "",
        };
        self.run(&format!("BEGIN{isolation}; SET LOCAL seawall.branch TO '{txn}'"))
    }

    /// The transaction's number, or none if it has only read. A transaction that has failed is refused by the server here:
    /// PREPARE TRANSACTION itself would answer that it is done, and roll it back.
    pub(super) fn check(&mut self, txn: TxnId) -> Result<Option<u64>> {
        let query =
            "SELECT current_setting('seawall.branch', true), pg_current_xact_id_if_assigned()::text::int8";
        let rows = self.rows(query)?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        if row.first().cloned().flatten() != Some(txn.to_string()) {
            return Err(SqlError::new(
                SqlErrorKind::Ended,
                "the branch's transaction was ended by SQL that ran in it: part of it may be committed",
            ));
        }
        Ok(row.get(1).cloned().flatten().and_then(|number| number.parse().ok()))
    }

    pub(super) fn prepare(&mut self, gid: &str) -> Result<()> {
        self.run(&format!("PREPARE TRANSACTION '{gid}'")).map_err(SqlError::of_prepare)
    }

    /// Ends a branch that has only read.
    pub(super) fn end_reading(&mut self) -> Result<()> {
        self.run("COMMIT")
    }

    pub(super) fn finish(&mut self, gid: &str, decision: Decision) -> Result<()> {
        let verb = if decision == Decision::Commit { "COMMIT" } else { "ROLLBACK" };
        self.run(&format!("{verb} PREPARED '{gid}'"))
    }

    /// Whether it is prepared.
    pub(super) fn has(&mut self, gid: &str) -> Result<bool> {
        let query =
            format!("SELECT 1 FROM pg_prepared_xacts WHERE database = current_database() AND gid = '{gid}'");
        Ok(!self.rows(&query)?.is_empty())
    }

    /// Ends another session, and says whether it is gone: if so, what it has not done it never will.
    pub(super) fn is_gone(&mut self, backend: Backend) -> Result<bool> {
        let Backend { pid, started_us } = backend;
        let query = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE pid = {pid} AND (extract(epoch FROM backend_start) * 1000000)::int8 = {started_us}"
        );
        Ok(self.rows(&query)?.is_empty())
    }

    /// How a transaction has ended that was prepared once.
    pub(super) fn ending(&mut self, xid: u64) -> Result<Ending> {
        match self.rows(&format!("SELECT pg_xact_status('{xid}'::xid8)")) {
            Ok(rows) => Ok(match rows.into_iter().flatten().next().flatten().as_deref() {
                Some("committed") => Ending::Known(Decision::Commit),
                Some("aborted") => Ending::Known(Decision::Abort),
                Some(_) => Ending::InProgress,
                None => Ending::Forgotten,
            }),
            // Of the future: the server has lost it.
            Err(error) if error.code() == Some(SqlState::INVALID_PARAMETER_VALUE.code()) => {
                Ok(Ending::Known(Decision::Abort))
            }
            Err(error) => Err(error),
        }
    }

    /// What is prepared in this database under names as this program gives.
    pub(super) fn list(&mut self) -> Result<Vec<Found>> {
        let query = format!(
            "SELECT gid, transaction, pg_snapshot_xmax(pg_current_snapshot()) FROM pg_prepared_xacts \
             WHERE database = current_database() AND starts_with(gid, '{GID_PREFIX}')"
        );
        let mut found = Vec::new();
        for row in self.rows(&query)? {
            let [Some(gid), Some(short), Some(next)] = row.as_slice() else { continue };
            let (Ok(short), Ok(next)) = (short.parse::<u32>(), next.parse::<u64>()) else {
                return Err(SqlError::new(SqlErrorKind::Other, "a transaction's number is none"));
            };
            found.push(Found { gid: gid.clone(), xid: unwrapped(short, next) });
        }
        Ok(found)
    }

    /// Makes it as it was when it was new; the transaction that may be open is rolled back.
    pub(super) fn reset(&mut self) -> Result<()> {
        self.run("ROLLBACK")?;
        self.run(
            "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
             SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP",
        )
    }
}

/// A number of 32 bits next to one of 64.
fn unwrapped(short: u32, next: u64) -> u64 {
    let distance = short.wrapping_sub(next as u32).cast_signed();
    next.wrapping_add_signed(i64::from(distance))
}

fn rows(
    client: &mut Client,
    query: &str,
) -> std::result::Result<Vec<Vec<Option<String>>>, ::postgres::Error> {
    let mut rows = Vec::new();
    for message in client.simple_query(query)? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect());
        }
    }
    Ok(rows)
}

fn numbers(client: &mut Client, query: &str) -> Result<Vec<Option<u64>>> {
    let found = rows(client, query)?;
    let parse = |value: Option<String>| value.and_then(|value| value.parse().ok());
    Ok(found.into_iter().next().unwrap_or_default().into_iter().map(parse).collect())
}

#[cfg(test)]
mod tests {
    use super::unwrapped;

    #[test]
    fn a_short_number_is_the_one_next_to_the_latest() {
        for (short, next, expected) in [
            (7, 9, 7),
            (9, 9, 9),
            (11, 9, 11),
            (u32::MAX, (1 << 32) + 5, (1 << 32) - 1),
            (3, (1 << 32) - 2, (1 << 32) + 3),
            (3, (5 << 32) + 10, (5 << 32) + 3),
        ] {
            assert_eq!(unwrapped(short, next), expected, "{short} next to {next}");
        }
    }
}
