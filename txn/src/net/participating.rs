//! A store's branches for clients elsewhere: begun, worked in, ended; then XA's verbs, or the protocols' messages.
//!
//! ```text
//!        Begin            End                Prepare              Commit, Rollback
//! (none) ─────► working ──────► open ──┬──────────────► prepared ─────────────────► (none)
//!                  │ the stream ends   │ CommitOnePhase, Rollback; or nobody asks for longer than its age
//!                  └──────► (none)     └──────► (none)
//! ```
//!
//! A branch of one of these nodes' own transactions goes to the [`Coordinator`] at its End, and is its from then on. What is
//! prepared is the store's, and survives this process; the rest is here, in memory.

use super::incoming::{Gate, blocking};
use super::wire::participant_server::Participant;
use super::wire::work_request::Request as Work;
use super::wire::{
    Begin, Branch, Done, InDoubt, Isolation as WireIsolation, RecoverReply, RecoverRequest, Row, Scan, Vote,
    WorkReply, WorkRequest, Xid as WireXid, begin,
};
use super::{status, wire};
use crate::coordinator::Coordinator;
use crate::id::{NodeId, TxnId};
use crate::store::Store;
use crate::xid::XID_FORMAT;
use parking_lot::Mutex;
use seawall_engine::{
    Db, Heuristic, Isolation, Keyspace, Prepared, Readable, Ticket, Transaction, TxOptions,
    Vote as EngineVote, Xid,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// So many branches make a page, unless fewer are asked for.
const PAGE: usize = 256;
/// Requests and replies of a stream that are under way.
const UNDER_WAY: usize = 16;
/// As good as never.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A branch that no verb has ended yet.
enum Open {
    Working,
    Waiting(Instant, Box<Transaction>),
    /// A verb is at work with it.
    Taken,
}

struct Shared {
    gate: Arc<Gate>,
    coordinator: Coordinator,
    store: Arc<Store>,
    open: Mutex<BTreeMap<Xid, Open>>,
}

#[derive(Clone)]
pub(super) struct Participating(Arc<Shared>);

impl Participating {
    pub(super) fn new(gate: &Arc<Gate>, coordinator: &Coordinator, store: &Arc<Store>) -> Participating {
        Participating(Arc::new(Shared {
            gate: Arc::clone(gate),
            coordinator: coordinator.clone(),
            store: Arc::clone(store),
            open: Mutex::default(),
        }))
    }

    /// What nobody came back for goes: a branch that is open holds a snapshot, and locks.
    pub(super) fn expire(&self) {
        self.0.expire();
    }

    fn xid<T>(&self, request: &Request<T>, xid: Option<&WireXid>) -> Result<Xid, Status> {
        self.0.gate.admit(request)?;
        xid_of(xid)
    }
}

fn xid_of(xid: Option<&WireXid>) -> Result<Xid, Status> {
    let xid = xid.ok_or_else(|| status::invalid("an xid is needed"))?;
    if xid.format == XID_FORMAT {
        // Ended by anybody but their own coordinator, they would end here otherwise than elsewhere.
        let what = format!("xids of format {XID_FORMAT} are those of these nodes' own transactions");
        return Err(status::protocol(what));
    }
    Xid::new(xid.format, &xid.gtrid, &xid.bqual).map_err(|error| status::invalid(error.to_string()))
}

fn wire_xid(xid: &Xid) -> WireXid {
    WireXid { format: xid.format(), gtrid: xid.gtrid().to_vec(), bqual: xid.bqual().to_vec() }
}

fn engine(error: seawall_engine::Error) -> Status {
    status::of_engine(&error)
}

fn done(lsn: seawall_engine::Lsn) -> Response<Done> {
    Response::new(Done { lsn: lsn.0 })
}

impl Shared {
    fn db(&self) -> &Db {
        self.store.db()
    }

    /// One that is being worked in sees to it itself.
    fn expire(&self) {
        let (age, now) = (self.gate.limits().branch_age, Instant::now());
        let mut open = self.open.lock();
        let is_old = |branch: &Open| match branch {
            Open::Waiting(since, _) => now.duration_since(*since) >= age,
            Open::Working | Open::Taken => false,
        };
        let old: Vec<Xid> =
            open.iter().filter(|(_, branch)| is_old(branch)).map(|(xid, _)| xid.clone()).collect();
        let old: Vec<Open> = old.iter().filter_map(|xid| open.remove(xid)).collect();
        drop(open);
        // Rolled back when nobody waits for the others.
        drop(old);
    }

    /// Takes the place of a branch's name, so that nobody else has it meanwhile.
    fn claim(&self, xid: &Xid) -> Result<(), Status> {
        let limits = *self.gate.limits();
        self.expire();
        let mut open = self.open.lock();
        if open.contains_key(xid) || self.db().prepared_by(xid).map_err(engine)?.is_some() {
            return Err(status::of_engine(&seawall_engine::Error::XidDuplicate { xid: xid.clone() }));
        }
        if open.len() >= limits.branches {
            return Err(status::busy(format!("{} branches are open already", open.len())));
        }
        open.insert(xid.clone(), Open::Working);
        Ok(())
    }

    /// A branch that was ended by its client and is neither prepared nor gone. None if there is no trace of it in memory.
    fn take(&self, xid: &Xid) -> Result<Option<Transaction>, Status> {
        let mut open = self.open.lock();
        match open.get_mut(xid) {
            None => Ok(None),
            Some(branch @ Open::Waiting(..)) => match std::mem::replace(branch, Open::Taken) {
                Open::Waiting(since, _) if since.elapsed() >= self.gate.limits().branch_age => {
                    open.remove(xid);
                    Ok(None)
                }
                Open::Waiting(_, transaction) => Ok(Some(*transaction)),
                Open::Working | Open::Taken => Ok(None),
            },
            Some(Open::Working) => {
                Err(status::protocol(format!("{xid} is being worked in: End comes first")))
            }
            Some(Open::Taken) => Err(status::protocol(format!("another call is at work with {xid}"))),
        }
    }

    fn forget(&self, xid: &Xid) {
        self.open.lock().remove(xid);
    }

    /// Runs a verb on what was taken; whatever comes of it, it is not here any more.
    fn with_taken<T>(&self, xid: &Xid, verb: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
        let done = verb();
        self.forget(xid);
        done
    }

    fn prepared(&self, xid: &Xid) -> Result<Prepared, Status> {
        let found = self.db().prepared_by(xid).map_err(engine)?;
        found.ok_or_else(|| status::unknown_branch(&xid.to_string()))
    }

    fn prepare(&self, xid: &Xid) -> Result<(EngineVote, Option<Ticket>), Status> {
        match self.take(xid)? {
            Some(transaction) => self.with_taken(xid, || {
                let (vote, ticket) = transaction.prepare_pipelined(xid.clone()).map_err(engine)?;
                Ok((vote, Some(ticket)))
            }),
            // Once more: the first answer was lost. That it is durable is not known of a vote that is on its way.
            None => {
                let prepared = self.prepared(xid)?;
                self.db().sync().map_err(engine)?;
                Ok((EngineVote::Prepared(prepared), None))
            }
        }
    }

    fn recover(&self, request: RecoverRequest) -> RecoverReply {
        let page = if request.limit == 0 { PAGE } else { (request.limit as usize).min(PAGE) };
        let all = if request.ended { self.db().heuristics() } else { self.db().prepared() };
        let mut behind = all.filter(|prepared| is_behind(prepared, &request));
        let branches = behind.by_ref().take(page).map(|prepared| in_doubt(&prepared)).collect();
        RecoverReply { branches, more: behind.next().is_some() }
    }
}

/// By serials alone nothing is left out: several votes may stand behind one position, and what an operator ended has none
/// after a restart.
fn is_behind(prepared: &Prepared, request: &RecoverRequest) -> bool {
    match request.after_serial {
        0 => request.after_lsn == 0 || prepared.lsn().0 > request.after_lsn,
        after => prepared.serial() > after,
    }
}

fn in_doubt(prepared: &Prepared) -> InDoubt {
    let heuristic = match prepared.heuristic() {
        None => wire::Heuristic::None,
        Some(Heuristic::Committed) => wire::Heuristic::Committed,
        Some(Heuristic::RolledBack) => wire::Heuristic::RolledBack,
        Some(Heuristic::Mixed) => wire::Heuristic::Mixed,
        Some(_) => wire::Heuristic::Hazard,
    };
    InDoubt {
        xid: Some(wire_xid(prepared.xid())),
        age_ms: u64::try_from(prepared.age().as_millis()).unwrap_or(u64::MAX),
        lsn: prepared.lsn().0,
        pinned_bytes: prepared.pinned_bytes(),
        locked_keys: prepared.locked_keys(),
        heuristic: heuristic.into(),
        serial: prepared.serial(),
    }
}

#[tonic::async_trait]
impl Participant for Participating {
    type WorkStream = ReceiverStream<Result<WorkReply, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        self.0.gate.admit(&request)?;
        let mut requests = request.into_inner();
        let (to_worker, work) = mpsc::channel(UNDER_WAY);
        let (replies, answers) = mpsc::channel(UNDER_WAY);
        let shared = Arc::clone(&self.0);
        let permit = shared.gate.stream()?;
        let now = tokio::time::Instant::now();
        let until = now.checked_add(shared.gate.limits().branch_age).unwrap_or(now + FAR);
        // One thread a stream: the store's calls block.
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            worker(&shared, work, &replies, until);
        });
        tokio::spawn(async move {
            while let Ok(Ok(Some(request))) = tokio::time::timeout_at(until, requests.message()).await {
                if to_worker.send(request).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn prepare(&self, request: Request<Branch>) -> Result<Response<Vote>, Status> {
        let xid = self.xid(&request, request.get_ref().xid.as_ref())?;
        let shared = Arc::clone(&self.0);
        let (vote, ticket) = blocking(move || shared.prepare(&xid)).await?;
        if let Some(ticket) = ticket {
            ticket.await.map_err(engine)?;
        }
        Ok(Response::new(Vote { read_only: matches!(vote, EngineVote::ReadOnly(_)) }))
    }

    async fn commit(&self, request: Request<Branch>) -> Result<Response<Done>, Status> {
        let xid = self.xid(&request, request.get_ref().xid.as_ref())?;
        let shared = Arc::clone(&self.0);
        blocking(move || shared.prepared(&xid)?.commit().map_err(engine)).await.map(done)
    }

    async fn commit_one_phase(&self, request: Request<Branch>) -> Result<Response<Done>, Status> {
        let xid = self.xid(&request, request.get_ref().xid.as_ref())?;
        let shared = Arc::clone(&self.0);
        let ticket = blocking(move || match shared.take(&xid)? {
            Some(transaction) => shared.with_taken(&xid, || transaction.commit_pipelined().map_err(engine)),
            None => Err(status::unknown_branch(&xid.to_string())),
        })
        .await?;
        ticket.await.map(done).map_err(engine)
    }

    async fn rollback(&self, request: Request<Branch>) -> Result<Response<Done>, Status> {
        let xid = self.xid(&request, request.get_ref().xid.as_ref())?;
        let shared = Arc::clone(&self.0);
        blocking(move || match shared.take(&xid)? {
            Some(transaction) => shared.with_taken(&xid, || {
                drop(transaction);
                Ok(seawall_engine::Lsn::ZERO)
            }),
            None => shared.prepared(&xid)?.rollback().map_err(engine),
        })
        .await
        .map(done)
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<RecoverReply>, Status> {
        self.0.gate.admit(&request)?;
        let (shared, request) = (Arc::clone(&self.0), request.into_inner());
        blocking(move || Ok(shared.recover(request))).await.map(Response::new)
    }

    async fn forget(&self, request: Request<Branch>) -> Result<Response<Done>, Status> {
        let xid = self.xid(&request, request.get_ref().xid.as_ref())?;
        let shared = Arc::clone(&self.0);
        blocking(move || shared.prepared(&xid)?.forget().map_err(engine)).await?;
        Ok(done(seawall_engine::Lsn::ZERO))
    }
}

type Replies = mpsc::Sender<Result<WorkReply, Status>>;

/// A stream's thread: one branch, request by request. The first error ends the stream, and the branch with it; and so does its
/// age, whether its client is silent, does not read, or chats on.
fn worker(
    shared: &Shared,
    mut work: mpsc::Receiver<WorkRequest>,
    replies: &Replies,
    until: tokio::time::Instant,
) {
    let threads = tokio::runtime::Handle::current();
    let is_too_old = || tokio::time::Instant::now() >= until;
    let too_old =
        || status::too_old("the branch was worked in for longer than it may be, and is rolled back");
    let mut branch: Option<Working<'_>> = None;
    loop {
        let next = threads.block_on(tokio::time::timeout_at(until, work.recv()));
        let Ok(Some(WorkRequest { request })) = next else {
            drop(branch);
            if is_too_old() {
                // If there is no room, its client does not read.
                let _ = replies.try_send(Err(too_old()));
            }
            return;
        };
        let is_end = matches!(request, Some(Work::End(_)));
        let done = match (request, &mut branch) {
            _ if is_too_old() => Err(too_old()),
            (Some(Work::Begin(begin)), None) => Working::begin(shared, &begin).map(|begun| {
                branch = Some(begun);
                WorkReply::default()
            }),
            (Some(Work::End(_)), Some(_)) => {
                branch.take().map_or(Ok(()), Working::end).map(|()| WorkReply::default())
            }
            (Some(Work::Begin(_)), Some(_)) => Err(status::protocol("the branch is begun already")),
            (Some(request), Some(working)) => working.run(request),
            (None, _) => Err(status::invalid("a request of a kind that is not known here")),
            (Some(_), None) => Err(status::protocol("Begin comes first")),
        };
        let is_over = is_end || done.is_err();
        if is_over {
            // Whoever hears that it is over may use the name again.
            branch = None;
        }
        let sent = threads.block_on(tokio::time::timeout_at(until, replies.send(done)));
        if is_over || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

enum Name {
    Foreign(Xid),
    Ours(TxnId),
}

/// A branch while its client works in it. Dropping it gives it up.
struct Working<'a> {
    shared: &'a Shared,
    name: Name,
    transaction: Option<Transaction>,
    keyspaces: BTreeMap<String, Keyspace>,
}

impl<'a> Working<'a> {
    fn begin(shared: &'a Shared, begin: &Begin) -> Result<Working<'a>, Status> {
        let name = match &begin.name {
            Some(begin::Name::Xid(xid)) => Name::Foreign(xid_of(Some(xid))?),
            Some(begin::Name::Txn(txn)) => Name::Ours(TxnId {
                coordinator: NodeId(txn.coordinator),
                epoch: txn.epoch,
                sequence: txn.sequence,
            }),
            None => return Err(status::invalid("a branch needs a name")),
        };
        let isolation = match begin.isolation() {
            WireIsolation::Unspecified => None,
            WireIsolation::Snapshot => Some(Isolation::Snapshot),
            WireIsolation::Serializable => Some(Isolation::Serializable),
        };
        if let Name::Foreign(xid) = &name {
            shared.claim(xid)?;
        }
        let options = TxOptions { isolation, read_only: begin.read_only, ..TxOptions::default() };
        let transaction = Some(shared.db().begin_with(options));
        Ok(Working { shared, name, transaction, keyspaces: BTreeMap::new() })
    }

    fn end(mut self) -> Result<(), Status> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        match &self.name {
            Name::Foreign(xid) => {
                let waiting = Open::Waiting(Instant::now(), Box::new(transaction));
                self.shared.open.lock().insert(xid.clone(), waiting);
                Ok(())
            }
            Name::Ours(txn) => {
                let joined = self.shared.coordinator.join(&self.shared.store, *txn, transaction);
                joined.map_err(|error| status::of(&error))
            }
        }
    }

    fn run(&mut self, request: Work) -> Result<WorkReply, Status> {
        match request {
            Work::Get(get) => {
                let ks = self.keyspace(&get.keyspace)?;
                let value = match get.for_update {
                    true => self.transaction()?.get_for_update(&ks, &get.key),
                    false => self.transaction()?.get(&ks, &get.key),
                };
                let value = value.map_err(engine)?;
                let row = value.map(|value| Row { key: get.key, value: value.to_vec() });
                Ok(WorkReply { rows: row.into_iter().collect(), more: false })
            }
            Work::Put(put) => {
                let ks = self.keyspace(&put.keyspace)?;
                self.written(|tx| tx.insert(&ks, &put.key, &put.value))
            }
            Work::Delete(delete) => {
                let ks = self.keyspace(&delete.keyspace)?;
                self.written(|tx| tx.remove(&ks, &delete.key))
            }
            Work::Add(add) => {
                let ks = self.keyspace(&add.keyspace)?;
                self.written(|tx| tx.add_i64(&ks, &add.key, add.delta))
            }
            Work::Scan(scan) => self.scan(scan),
            Work::Begin(_) | Work::End(_) => Err(status::protocol("not within a branch")),
        }
    }

    /// Rows until there are enough, or as many bytes as a reply may have.
    fn scan(&mut self, scan: Scan) -> Result<WorkReply, Status> {
        let ks = self.keyspace(&scan.keyspace)?;
        let bytes_max = self.shared.gate.limits().request_bytes / 2;
        let rows_max = if scan.limit == 0 { usize::MAX } else { scan.limit as usize };
        let from = std::ops::Bound::Included(scan.from);
        let to = scan.to.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut found = self.transaction()?.range(&ks, (from, to));
        let (mut reply, mut bytes) = (WorkReply::default(), 0);
        while reply.rows.len() < rows_max && bytes < bytes_max {
            let Some(row) = found.next() else { return Ok(reply) };
            let (key, value) = row.map_err(engine)?;
            bytes += key.len() + value.len();
            reply.rows.push(Row { key: key.to_vec(), value: value.to_vec() });
        }
        reply.more = true;
        Ok(reply)
    }

    fn written(
        &mut self,
        write: impl FnOnce(&mut Transaction) -> seawall_engine::Result<()>,
    ) -> Result<WorkReply, Status> {
        write(self.transaction()?).map(|()| WorkReply::default()).map_err(engine)
    }

    fn transaction(&mut self) -> Result<&mut Transaction, Status> {
        self.transaction.as_mut().ok_or_else(|| status::protocol("the branch has ended"))
    }

    fn keyspace(&mut self, name: &str) -> Result<Keyspace, Status> {
        if let Some(keyspace) = self.keyspaces.get(name) {
            return Ok(keyspace.clone());
        }
        if name == crate::store::KEYSPACE {
            return Err(status::invalid(format!("`{name}` is the coordinator's own")));
        }
        let keyspace = match self.shared.db().open_keyspace(name).map_err(engine)? {
            Some(keyspace) => keyspace,
            // Made with the branch, and not without it.
            None => self
                .transaction()?
                .create_keyspace(name, seawall_engine::KeyspaceOptions::default())
                .map_err(engine)?,
        };
        self.keyspaces.insert(name.to_owned(), keyspace.clone());
        Ok(keyspace)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if let (Name::Foreign(xid), Some(_)) = (&self.name, &self.transaction) {
            self.shared.forget(xid);
        }
    }
}
