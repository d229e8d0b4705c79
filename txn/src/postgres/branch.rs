//! A branch while SQL runs in it.

use super::Shared;
use super::session::Session;
use crate::coordinator::Global;
use crate::error::Result;
use crate::id::TxnId;
use ::postgres::types::ToSql;
use ::postgres::{Client, CopyInWriter, CopyOutReader, Row, Statement, ToStatement};
use std::marker::PhantomData;
use std::sync::Arc;

/// A global transaction's branch in PostgreSQL: SQL runs in it until it is dropped, and its end is the global one's. Got by
/// [`Postgres::branch`](super::Postgres::branch), any number of times for a transaction.
///
/// SQL that ends the transaction itself (`COMMIT`, `ROLLBACK`, `PREPARE TRANSACTION`) is found out at the vote, which is then
/// no; what a `COMMIT` has committed stays so. Savepoints are free to be used.
pub struct Branch<'a> {
    shared: &'a Arc<Shared>,
    txn: TxnId,
    /// Always there but in drop.
    session: Option<Session>,
    /// It cannot end meanwhile.
    global: PhantomData<&'a mut Global>,
}

impl<'a> Branch<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, txn: TxnId, session: Session) -> Branch<'a> {
        Branch { shared, txn, session: Some(session), global: PhantomData }
    }

    /// Whose branch it is.
    pub fn txn(&self) -> TxnId {
        self.txn
    }

    fn with<T>(
        &mut self,
        f: impl FnOnce(&mut Client) -> std::result::Result<T, ::postgres::Error>,
    ) -> Result<T> {
        let node = self.shared.node;
        match &mut self.session {
            Some(session) => session.noting(f).map_err(|error| error.into_error(node)),
            None => Err(crate::Error::Closed),
        }
    }

    /// Runs a statement, and says how many rows it has touched.
    ///
    /// # Errors
    /// `ForeignConflict` if another transaction was in the way, `Unreachable` if the connection is gone: the global transaction
    /// is to be run again. `Foreign`: what else the server says; the branch can only be rolled back then, or back to a savepoint.
    pub fn execute<T>(&mut self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<u64>
    where
        T: ?Sized + ToStatement,
    {
        self.with(|client| client.execute(statement, params))
    }

    /// Runs a query.
    ///
    /// # Errors
    /// As [`execute`](Branch::execute).
    pub fn query<T>(&mut self, query: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>>
    where
        T: ?Sized + ToStatement,
    {
        self.with(|client| client.query(query, params))
    }

    /// Runs a query that has one row.
    ///
    /// # Errors
    /// As [`execute`](Branch::execute); `Foreign` if it has none, or more.
    pub fn query_one<T>(&mut self, query: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Row>
    where
        T: ?Sized + ToStatement,
    {
        self.with(|client| client.query_one(query, params))
    }

    /// Runs a query that has at most one row.
    ///
    /// # Errors
    /// As [`execute`](Branch::execute); `Foreign` if it has more.
    pub fn query_opt<T>(&mut self, query: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>>
    where
        T: ?Sized + ToStatement,
    {
        self.with(|client| client.query_opt(query, params))
    }

    /// Runs statements without parameters, with semicolons between.
    ///
    /// # Errors
    /// As [`execute`](Branch::execute).
    pub fn batch_execute(&mut self, statements: &str) -> Result<()> {
        self.with(|client| client.batch_execute(statements))
    }

    /// Prepares a statement, for this branch alone.
    ///
    /// # Errors
    /// As [`execute`](Branch::execute).
    pub fn prepare(&mut self, statement: &str) -> Result<Statement> {
        self.with(|client| client.prepare(statement))
    }

    /// `COPY … FROM STDIN`.
    ///
    /// # Errors
    /// As [`execute`](Branch::execute).
    pub fn copy_in<T>(&mut self, statement: &T) -> Result<CopyInWriter<'_>>
    where
        T: ?Sized + ToStatement,
    {
        let node = self.shared.node;
        match &mut self.session {
            Some(session) => session.client.copy_in(statement).map_err(|error| super::said(error, node)),
            None => Err(crate::Error::Closed),
        }
    }

    /// `COPY … TO STDOUT`.
    ///
    /// # Errors
    /// As [`execute`](Branch::execute).
    pub fn copy_out<T>(&mut self, statement: &T) -> Result<CopyOutReader<'_>>
    where
        T: ?Sized + ToStatement,
    {
        let node = self.shared.node;
        match &mut self.session {
            Some(session) => session.client.copy_out(statement).map_err(|error| super::said(error, node)),
            None => Err(crate::Error::Closed),
        }
    }
}

impl Drop for Branch<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.shared.hold(self.txn, session);
        }
    }
}

impl std::fmt::Debug for Branch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Branch").field("txn", &self.txn).finish_non_exhaustive()
    }
}
