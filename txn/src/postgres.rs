//! PostgreSQL as a participant: by PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED.
//!
//! ```text
//! branch ── SQL ──► open ── prepare ──► prepared ── commit, rollback ──► gone
//!                    │         │ it has only read: committed at once
//!                    └─────────┴──► rolled back
//! ```
//!
//! A branch is a session of its own until it has voted. What is prepared belongs to no session, and survives the server's end;
//! any session ends it. Its name says whose it is ([`gid_of`]), so what a crash has left is found in `pg_prepared_xacts`, and is
//! ended as the coordinator's decision log says. Nothing is written in the database but by its own SQL.
//!
//! | the connection is lost … | what is done |
//! |---|---|
//! | before PREPARE TRANSACTION is sent | a vote of no: the server rolls back |
//! | before it is answered | the session's process is ended, if it still runs; then `pg_prepared_xacts` says what has become of it |
//! | before COMMIT PREPARED is answered | asked again; if there is no such transaction any more, `pg_xact_status` says how it has ended |
//!
//! That a transaction which is not prepared any more has been committed follows from nothing but its own status: a person may
//! have ended it, which is then reported as [`Notice::Damage`](crate::Notice::Damage). Its number is on the disk once it was
//! prepared, so no other transaction ever has it.
//!
//! An only participant could commit by COMMIT alone. It does not: if the answer is lost with a crash of the server, nothing
//! tells whether it has, for numbers of transactions that were not written down are given out again. It is prepared, and
//! committed by the participant itself: two forced writes instead of one.
//!
//! The client is the `postgres` crate's, which blocks: verbs are carried out by threads (`seawall-postgres`), SQL of a branch
//! by whoever calls.

use crate::coordinator::{Coordinator, Global};
use crate::error::{Error, Result};
use crate::id::{Group, NodeId, TxnId};
use crate::message::{Decision, Protocol};
use crate::participant::{Answer, Found, Participant, Reply};
use crate::record::{Entry, Record};
use crate::xid::BranchName;
use ::postgres::{Client, Config, IsolationLevel, NoTls};
use parking_lot::Mutex;
use seawall_wal::Runtime;
use seawall_wal::runtime::OsRuntime;
use session::{Identity, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use work::{Asked, Job, Task};

mod branch;
mod error;
mod gid;
mod permits;
mod session;
mod work;

pub use ::postgres as client;
pub use branch::Branch;
pub use error::{SqlError, SqlErrorKind};
pub use gid::{GID_BYTES_MAX, GID_PREFIX, gid_of, xid_of};

/// How much is asked of a server, and how long is waited for it.
///
/// The server's `max_connections` is to have room for `connections` and `workers` together, and its
/// `max_prepared_transactions` for as many as may be under way at once, those in doubt included.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Branches at a time, each with a connection of its own; who wants one more waits.
    pub connections: usize,
    /// Threads that carry out verbs, each with a connection.
    pub workers: usize,
    /// After so long a verb is answered that the server cannot be reached; and so long a branch waits for a connection.
    pub answer: Duration,
    /// To connect, and for a dead peer to be noticed, where the configuration says nothing else.
    pub connect: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let second = Duration::from_secs(1);
        Limits { connections: 64, workers: 24, answer: 5 * second, connect: 5 * second }
    }
}

type Connector = Box<dyn Fn() -> std::result::Result<Client, ::postgres::Error> + Send + Sync>;

/// A database of a PostgreSQL server as a node of transactions over several stores. Version 13 or later, directly, not
/// through a pooler. The node's number is this database's for ever; another coordinator that uses the same database does so
/// under a number of its own.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use seawall_engine::Db;
/// use seawall_txn::postgres::Postgres;
/// use seawall_txn::{Coordinator, NodeId, Store};
///
/// let db = Db::open("/var/lib/app/store")?;
/// let (rows, store) = (db.keyspace("money")?, Store::new(NodeId(1), &db)?);
/// let bank = Postgres::connect(NodeId(2), &"host=db.example user=app dbname=bank".parse()?)?;
/// let coordinator = Coordinator::open(&store)?;
/// bank.attach(&coordinator)?; // what a crash has left there is ended from here on
///
/// let mut global = coordinator.begin();
/// bank.branch(&mut global)?.execute("UPDATE account SET cents = cents - $1 WHERE id = $2", &[&10_i64, &"ada"])?;
/// global.branch(&store)?.add_i64(&rows, "ada", 10)?;
/// global.commit()?; // in both, or in none
/// # Ok(()) }
/// ```
pub struct Postgres {
    shared: Arc<Shared>,
}

/// How a connection to a server is made: [`Postgres::builder`].
#[derive(Debug)]
pub struct PostgresBuilder {
    node: NodeId,
    limits: Limits,
    runtime: Arc<dyn Runtime>,
}

struct Shared {
    node: NodeId,
    limits: Limits,
    runtime: Arc<dyn Runtime>,
    connector: Connector,
    permits: Arc<permits::Permits>,
    state: Mutex<State>,
    /// There is something to do.
    bell: AtomicU32,
    /// There is something to wait for.
    keeper: AtomicU32,
}

#[derive(Default)]
struct State {
    identity: Option<Identity>,
    /// Branches that no verb was asked of yet.
    open: BTreeMap<TxnId, Session>,
    /// What is prepared, or may be.
    prepared: BTreeMap<TxnId, Prepared>,
    /// What somebody else has ended otherwise.
    by_hand: BTreeMap<TxnId, Decision>,
    idle: Vec<Session>,
    jobs: BTreeMap<(Duration, u64), Job>,
    asked: BTreeMap<u64, Asked>,
    numbered: u64,
    workers: usize,
    idle_workers: usize,
    keeper_sleeps: bool,
    /// Who is looking for what is prepared, and what has ended since.
    listings: usize,
    over_meanwhile: BTreeSet<TxnId>,
    is_closed: bool,
}

#[derive(Clone)]
struct Prepared {
    gid: String,
    xid: u64,
}

impl PostgresBuilder {
    /// Other limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Clock, randomness and threads. (The sockets, and what they wait for, are the `postgres` crate's.)
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = runtime;
        self
    }

    /// To a server, without TLS.
    ///
    /// # Errors
    /// As [`connect_by`](PostgresBuilder::connect_by).
    pub fn connect(self, config: &Config) -> Result<Arc<Postgres>> {
        let mut config = config.clone();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(self.limits.connect);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(self.limits.connect);
        }
        self.connect_by(move || config.connect(NoTls))
    }

    /// By a function that makes connections, with TLS perhaps: all to the same database, by the same user, who owns what is
    /// prepared, and so may end it.
    ///
    /// # Errors
    /// `Unreachable`; `Foreign` if the server refuses, is older than 13, or has no room for prepared transactions.
    pub fn connect_by(
        self,
        connector: impl Fn() -> std::result::Result<Client, ::postgres::Error> + Send + Sync + 'static,
    ) -> Result<Arc<Postgres>> {
        let PostgresBuilder { node, limits, runtime } = self;
        let shared = Arc::new(Shared {
            node,
            limits: Limits {
                connections: limits.connections.max(1),
                workers: limits.workers.max(1),
                ..limits
            },
            permits: permits::Permits::new(&runtime, limits.connections.max(1)),
            runtime,
            connector: Box::new(connector),
            state: Mutex::default(),
            bell: AtomicU32::new(0),
            keeper: AtomicU32::new(0),
        });
        shared.with_session(|_| Ok(())).map_err(|error| error.into_error(node))?;
        let postgres = Arc::new(Postgres { shared: Arc::clone(&shared) });
        let keeper = Arc::clone(&shared);
        shared
            .runtime
            .spawn("seawall-postgres", Box::new(move || keeper.keep()))
            .map_err(|error| Error::Foreign(Box::new(error)))?;
        Ok(postgres)
    }
}

impl Postgres {
    /// A database under its node's name, without TLS: see [`PostgresBuilder`] for more.
    ///
    /// # Errors
    /// As [`PostgresBuilder::connect_by`].
    pub fn connect(node: NodeId, config: &Config) -> Result<Arc<Postgres>> {
        Postgres::builder(node).connect(config)
    }

    /// Other limits, TLS.
    pub fn builder(node: NodeId) -> PostgresBuilder {
        PostgresBuilder { node, limits: Limits::default(), runtime: OsRuntime::new() }
    }

    /// Its name among nodes.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Takes part in a coordinator's transactions. What a crash left prepared is seen to from here on.
    ///
    /// # Errors
    /// As [`Coordinator::attach_foreign`]: `Unreachable` if the server is away, and then this is to be called again.
    pub fn attach(self: &Arc<Self>, coordinator: &Coordinator) -> Result<()> {
        let participant: Arc<dyn Participant> = Arc::clone(self) as _;
        coordinator.attach_foreign(self.node(), &participant)
    }

    /// A transaction's branch here, begun at the first call, at the server's default isolation level. It blocks: for the server,
    /// and while [`Limits::connections`] others are open.
    ///
    /// # Errors
    /// `NodeMissing` if it is not attached; `Unreachable`; `Foreign` if there is no connection to be had in time.
    pub fn branch<'a>(&'a self, global: &'a mut Global) -> Result<Branch<'a>> {
        self.branch_at(global, None)
    }

    /// As [`branch`](Postgres::branch), begun at this isolation level.
    ///
    /// # Errors
    /// As [`branch`](Postgres::branch).
    pub fn branch_with<'a>(&'a self, global: &'a mut Global, level: IsolationLevel) -> Result<Branch<'a>> {
        self.branch_at(global, Some(level))
    }

    fn branch_at<'a>(&'a self, global: &'a mut Global, level: Option<IsolationLevel>) -> Result<Branch<'a>> {
        let (shared, txn) = (&self.shared, global.txn());
        let open = shared.state.lock().open.remove(&txn);
        let session = match open {
            Some(session) => session,
            None => {
                let session = shared.begin(txn, level).map_err(|error| error.into_error(shared.node))?;
                if let Err(error) = global.enlist(shared.node) {
                    shared.hand_over(txn, Task::Abandon(session));
                    return Err(error);
                }
                session
            }
        };
        Ok(Branch::new(shared, txn, session))
    }
}

fn said(error: ::postgres::Error, node: NodeId) -> Error {
    SqlError::from(error).into_error(node)
}

impl Shared {
    fn unreachable(&self, error: SqlError) -> Error {
        Error::Unreachable { node: self.node, source: Box::new(error) }
    }

    /// A branch is kept until a verb is asked of it.
    fn hold(&self, txn: TxnId, session: Session) {
        let mut state = self.state.lock();
        if state.is_closed {
            drop(state);
            drop(session);
        } else {
            state.open.insert(txn, session);
        }
    }

    fn begin(&self, txn: TxnId, level: Option<IsolationLevel>) -> Result<Session, SqlError> {
        let full = || SqlError::new(SqlErrorKind::NoRoom, "as many branches are open as may be at a time");
        let permit = self.permits.take(self.limits.answer).ok_or_else(full)?;
        loop {
            let (mut session, was_idle) = self.session()?;
            match session.begin(txn, level) {
                Ok(()) => {
                    session.permit = Some(permit);
                    return Ok(session);
                }
                // The server has been restarted, say: nothing has happened.
                Err(_) if session.is_lost && was_idle => self.forget_idle(),
                Err(error) => return Err(error),
            }
        }
    }

    /// A session, and whether it was there already.
    fn session(&self) -> Result<(Session, bool), SqlError> {
        let idle = self.state.lock().idle.pop();
        if let Some(session) = idle {
            return Ok((session, true));
        }
        let (session, identity) = Session::new((self.connector)()?)?;
        let mut state = self.state.lock();
        if *state.identity.get_or_insert(identity) != identity {
            drop(state);
            return Err(SqlError::new(
                SqlErrorKind::Lost,
                "the connection leads to another server or database",
            ));
        }
        Ok((session, false))
    }

    fn with_session<T>(&self, f: impl FnOnce(&mut Session) -> Result<T, SqlError>) -> Result<T, SqlError> {
        let (mut session, _) = self.session()?;
        let done = f(&mut session);
        if session.is_lost {
            self.forget_idle();
        }
        self.give_back(session);
        done
    }

    fn give_back(&self, mut session: Session) {
        session.permit = None;
        let mut state = self.state.lock();
        let has_room = state.idle.len() < self.limits.connections + self.limits.workers;
        if !session.is_lost && has_room && !state.is_closed {
            state.idle.push(session);
        } else {
            drop(state);
            drop(session);
        }
    }

    /// A session in which somebody's SQL has run.
    fn give_back_used(&self, mut session: Session) {
        if !session.is_lost && session.reset().is_err() {
            session.is_lost = true;
        }
        self.give_back(session);
    }

    /// One was lost: the others were perhaps as well.
    fn forget_idle(&self) {
        let idle = std::mem::take(&mut self.state.lock().idle);
        drop(idle);
    }

    /// What is prepared under this node's name.
    fn list(&self) -> Result<Vec<(TxnId, Entry)>> {
        self.state.lock().listings += 1;
        // Idle sessions may be of a server that has been restarted since.
        let listed = self.with_session(Session::list).or_else(|_| self.with_session(Session::list));
        let mut state = self.state.lock();
        let mut found = Vec::new();
        for session::Found { gid, xid } in listed.iter().flatten() {
            // Somebody else's, or of another node's number: it stays as it is.
            let name = xid_of(gid).as_ref().and_then(BranchName::of);
            let Some(name) = name.filter(|name| name.participant == self.node) else { continue };
            if state.over_meanwhile.contains(&name.txn) {
                continue;
            }
            let prepared = || Prepared { gid: gid.clone(), xid: *xid };
            state.prepared.entry(name.txn).or_insert_with(prepared);
            // A group for which there was no room is only of two-phase commit: the coordinator is asked.
            let (protocol, group) = name.ends.unwrap_or((Protocol::TwoPhase, Arc::default()));
            found.push((name.txn, Entry::Prepared { protocol, group }));
        }
        state.listings -= 1;
        if state.listings == 0 {
            state.over_meanwhile.clear();
        }
        drop(state);
        listed.map(|_| found).map_err(|error| self.unreachable(error))
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let (open, idle) = (std::mem::take(&mut state.open), std::mem::take(&mut state.idle));
        let (jobs, asked) = (std::mem::take(&mut state.jobs), std::mem::take(&mut state.asked));
        drop(state);
        drop((open, idle, jobs, asked));
        for word in [&self.bell, &self.keeper] {
            word.fetch_add(1, Ordering::SeqCst);
            self.runtime.wake_all(word);
        }
    }
}

impl Participant for Postgres {
    fn prepare(&self, txn: TxnId, record: &Record, reply: Reply) {
        let refused = |what: &str| Answer::Refused(Error::BadInput(what.to_owned()));
        let Entry::Prepared { protocol, group } = &record.entry else {
            return reply(refused("no record of a prepared branch"));
        };
        if *protocol == Protocol::ThreePhase {
            return reply(refused("PostgreSQL has no place for the second phase of three-phase commit"));
        }
        if *protocol == Protocol::PaxosCommit && !BranchName::has_room(*protocol, group) {
            return reply(refused("the branch's name has no room for so many nodes: use two-phase commit"));
        }
        self.prepare_as(txn, (*protocol, Arc::clone(group)), false, reply);
    }

    fn commit(&self, txn: TxnId, _forced: bool, reply: Reply) {
        self.finish(txn, Decision::Commit, reply);
    }

    fn rollback(&self, txn: TxnId, reply: Reply) {
        self.finish(txn, Decision::Abort, reply);
    }

    fn commit_one_phase(&self, txn: TxnId, _record: &Record, reply: Reply) {
        let group = Arc::new(Group { participants: vec![self.node()], acceptors: Vec::new() });
        self.prepare_as(txn, (Protocol::TwoPhase, group), true, reply);
    }

    fn abandon(&self, txn: TxnId) {
        let open = self.shared.state.lock().open.remove(&txn);
        if let Some(session) = open {
            self.shared.hand_over(txn, Task::Abandon(session));
        }
    }

    /// What somebody has done in the server's own way is all that can be told.
    fn complete(&self, txn: TxnId, decision: Decision, reply: Reply) {
        let done = self.shared.state.lock().by_hand.get(&txn).copied();
        reply(if done == Some(decision) {
            Answer::Durable(0)
        } else {
            Answer::Refused(Error::BadInput("end it by SQL: COMMIT PREPARED, ROLLBACK PREPARED".into()))
        });
    }

    fn forget(&self, txn: TxnId) {
        self.shared.state.lock().by_hand.remove(&txn);
    }

    fn recover(&self) -> Result<Vec<(TxnId, Entry)>> {
        self.shared.list()
    }

    fn recover_later(&self, found: Found) {
        let nobody = TxnId { coordinator: self.node(), epoch: 0, sequence: 0 };
        self.shared.hand_over(nobody, Task::List(found));
    }
}

impl Postgres {
    fn prepare_as(&self, txn: TxnId, ends: (Protocol, Arc<Group>), only: bool, reply: Reply) {
        let open = self.shared.state.lock().open.remove(&txn);
        let Some(session) = open else {
            let what = format!("{txn} has no open branch here");
            return reply(Answer::Refused(Error::BadInput(what)));
        };
        let name = BranchName { txn, participant: self.node(), ends: Some(ends) };
        match name.to_xid() {
            Ok(xid) => {
                let task = Task::Prepare { session, gid: gid_of(&xid), only };
                self.shared.ask(txn, task, !only, reply);
            }
            Err(error) => {
                self.shared.hand_over(txn, Task::Abandon(session));
                reply(Answer::Refused(error.into()));
            }
        }
    }

    fn finish(&self, txn: TxnId, decision: Decision, reply: Reply) {
        let done = {
            let state = self.shared.state.lock();
            match (state.prepared.contains_key(&txn), state.by_hand.get(&txn)) {
                (true, _) => None,
                (false, Some(&done)) if done != decision => Some(Answer::Heuristic(done)),
                // It was found, or prepared by this program, before it was asked for; so it has ended.
                (false, _) => Some(Answer::Durable(0)),
            }
        };
        match done {
            Some(answer) => reply(answer),
            None => self.shared.ask(txn, Task::Finish { decision, only: false }, true, reply),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("node", &self.shared.node).finish_non_exhaustive()
    }
}
