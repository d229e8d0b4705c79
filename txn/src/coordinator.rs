//! The coordinator: transactions over several stores, for programs.
//!
//! ```text
//! begin ──► branch, branch, … ──► commit ──► inbox ──► Host (votes, decision) ──► the client's word
//!                                              ▲ answers of stores, messages; timers: one thread, `seawall-txn`
//! ```
//!
//! A client's own thread leaves its transaction in the inbox and waits; everything that follows is done by the one thread,
//! in passes. A pass sees to all that has come, and hands each store together what follows from it; the next one begins when a
//! store has answered all of that. So as many transactions as there are share the flushes of both phases, and a client is
//! woken once.

use crate::decision::DecisionLog;
use crate::error::{Error, Result};
use crate::host::{Absent, Backlog, Client, Come, Host, Inbox, Notice, Present, Start, Word, guarded};
use crate::id::{Group, NodeId, TxnId};
use crate::message::{Message, Protocol};
use crate::mutation::Mutation;
use crate::participant::Participant;
use crate::proto::{Plan, Timing};
use crate::store::Store;
use parking_lot::{Mutex, RwLock};
use seawall_engine::Transaction;
use seawall_wal::Runtime;
use seawall_wal::runtime::{OsRuntime, Thread};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

mod global;

pub use global::{Global, Pending};

/// Runs again at most so often what another transaction was in the way of.
const RETRIES_MAX: u32 = 20;
/// So much waits for the thread at most, if nobody chooses.
const WAITING_MAX: usize = 16_384;
/// So long what clients leave lies there at most while stores are awaited, in microseconds.
const LOOK_US: u64 = 1_000;

/// Takes messages to nodes of other processes. They may be lost, repeated and reordered; it must not block. If it panics, the
/// message is lost.
pub trait Transport: Send + Sync {
    /// Sends it, perhaps.
    fn send(&self, message: Message);
}

/// Told of what nobody waits for. It must not block.
pub type Listener = Box<dyn Fn(&Notice) + Send + Sync>;

/// Transactions over several stores. Clones are the same coordinator.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use seawall_engine::Db;
/// use seawall_txn::{Coordinator, NodeId, Store};
/// # let open = |name: &str| Db::builder(name).disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open();
/// let (here, there) = (open("/here")?, open("/there")?);
/// let (a, b) = (Store::new(NodeId(1), &here)?, Store::new(NodeId(2), &there)?);
/// let coordinator = Coordinator::open(&a)?; // it remembers in the first store
/// coordinator.attach(&b)?;
///
/// let (from, to) = (here.keyspace("money")?, there.keyspace("money")?);
/// let mut global = coordinator.begin();
/// global.branch(&a)?.add_i64(&from, "ada", -10)?;
/// global.branch(&b)?.add_i64(&to, "bob", 10)?;
/// global.commit()?; // in both, or in none
/// assert!(from.get("ada")?.is_some() && to.get("bob")?.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
    _face: Arc<Face>,
}

/// Closes when the last clone is gone: the thread holds the rest.
struct Face(Arc<Shared>);

impl Drop for Face {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How a coordinator is made: [`Coordinator::builder`].
pub struct CoordinatorBuilder {
    store: Arc<Store>,
    protocol: Protocol,
    acceptors: Vec<NodeId>,
    timing: Timing,
    runtime: Arc<dyn Runtime>,
    transport: Option<Arc<dyn Transport>>,
    listener: Option<Listener>,
    mutation: Option<Mutation>,
    waiting_max: usize,
}

struct Shared {
    me: NodeId,
    epoch: AtomicU64,
    sequence: AtomicU64,
    protocol: Protocol,
    acceptors: Vec<NodeId>,
    host: Mutex<Host>,
    inbox: Arc<Inbox>,
    /// The nodes of the host.
    present: Arc<RwLock<Present>>,
    foreign: Mutex<BTreeMap<NodeId, Arc<dyn Participant>>>,
    runtime: Arc<dyn Runtime>,
    bell: Arc<Bell>,
    transport: Option<Arc<dyn Transport>>,
    listener: Option<Listener>,
    is_closed: AtomicBool,
    thread: Mutex<Option<Box<dyn Thread>>>,
    thread_id: OnceLock<ThreadId>,
}

/// The thread's end, by a panic too: nobody is to wait for what will not come.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
        self.0.let_go();
    }
}

/// Wakes the thread.
struct Bell {
    runtime: Arc<dyn Runtime>,
    word: AtomicU32,
    is_waited_for: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
        if self.is_waited_for.swap(false, Ordering::SeqCst) {
            self.runtime.wake_all(&self.word);
        }
    }
}

impl CoordinatorBuilder {
    /// Two-phase commit unless another is chosen. A transaction over one store needs none, and takes none.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Paxos Commit, its votes kept by these nodes: 2F+1, of which any F+1 are enough. They may be participants as well.
    pub fn acceptors(mut self, acceptors: impl IntoIterator<Item = NodeId>) -> Self {
        self.protocol = Protocol::PaxosCommit;
        self.acceptors = acceptors.into_iter().collect();
        self.acceptors.sort();
        self.acceptors.dedup();
        self
    }

    /// How long to wait: for votes, and before asking again.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Clock and threads.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = runtime;
        self
    }

    /// How messages get to nodes of other processes; what comes from there goes to [`Coordinator::deliver`].
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Told of damage, failed stores, and later incarnations. If it panics, that is printed, and the coordinator goes on.
    pub fn on_notice(mut self, listener: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// So many transactions and messages may wait for the coordinator's thread; what comes beyond that is refused with
    /// [`Error::Busy`], and messages are dropped, as a network may. 16,384 unless another is chosen; at least 1.
    pub fn waiting_max(mut self, count: usize) -> Self {
        self.waiting_max = count.max(1);
        self
    }

    /// Makes a mistake on purpose.
    #[doc(hidden)]
    pub fn mutation(mut self, mutation: Mutation) -> Self {
        self.mutation = Some(mutation);
        self
    }

    /// Begins an incarnation, and takes up again what earlier ones have left.
    ///
    /// # Errors
    /// What the store says; `BadInput` for an even number of acceptors.
    pub fn open(self) -> Result<Coordinator> {
        let count = self.acceptors.len();
        if self.protocol == Protocol::PaxosCommit && (count.is_multiple_of(2) || count > Group::ACCEPTORS_MAX)
        {
            return Err(Error::BadInput(format!("{count} acceptors: it takes an odd number, up to 15")));
        }
        let bell = Arc::new(Bell {
            runtime: Arc::clone(&self.runtime),
            word: AtomicU32::new(0),
            is_waited_for: AtomicBool::new(false),
        });
        let for_answers = Arc::clone(&bell);
        let inbox = Arc::new(Inbox::with_limit(Box::new(move || for_answers.ring()), self.waiting_max));
        let mut host = Host::with_inbox(self.timing, Arc::clone(&inbox));
        host.set_mutation(self.mutation);
        let shared = Arc::new(Shared {
            me: self.store.node(),
            epoch: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            protocol: self.protocol,
            acceptors: self.acceptors,
            present: host.present(),
            host: Mutex::new(host),
            inbox,
            foreign: Mutex::default(),
            runtime: self.runtime,
            bell,
            transport: self.transport,
            listener: self.listener,
            is_closed: AtomicBool::new(false),
            thread: Mutex::new(None),
            thread_id: OnceLock::new(),
        });
        let face = Arc::new(Face(Arc::clone(&shared)));
        let coordinator = Coordinator { shared: Arc::clone(&shared), _face: face };
        coordinator.attach(&self.store)?;
        let for_thread = Arc::clone(&shared);
        let thread = shared
            .runtime
            .spawn("seawall-txn", Box::new(move || for_thread.serve()))
            .map_err(|error| Error::Foreign(Box::new(error)))?;
        *shared.thread.lock() = Some(thread);
        Ok(coordinator)
    }
}

impl Coordinator {
    /// A coordinator that remembers in this store, which can take part as well: two-phase commit, by default.
    ///
    /// # Errors
    /// As [`CoordinatorBuilder::open`].
    pub fn open(store: &Arc<Store>) -> Result<Coordinator> {
        Coordinator::builder(store).open()
    }

    /// Another protocol, other times.
    pub fn builder(store: &Arc<Store>) -> CoordinatorBuilder {
        CoordinatorBuilder {
            store: Arc::clone(store),
            protocol: Protocol::TwoPhase,
            acceptors: Vec::new(),
            timing: Timing::default(),
            runtime: OsRuntime::new(),
            transport: None,
            listener: None,
            mutation: None,
            waiting_max: WAITING_MAX,
        }
    }

    /// A store takes part, or is an acceptor, or is back after it failed and was opened again. What a crash left prepared in it
    /// is seen to from here on.
    ///
    /// # Errors
    /// What the store says; `BadInput` if a store of that name is attached, or if the store has another name; `Closed`.
    pub fn attach(&self, store: &Arc<Store>) -> Result<()> {
        let log: Arc<dyn DecisionLog> = Arc::clone(store) as _;
        let participant: Arc<dyn Participant> = Arc::clone(store) as _;
        let now = self.shared.now();
        let mut host = self.shared.host.lock();
        self.shared.check()?;
        let epoch = host.attach(now, store.node(), Some(log), Some(participant), 0)?;
        if store.node() == self.shared.me {
            self.shared.epoch.store(epoch, Ordering::SeqCst);
        }
        self.shared.dispatch(host);
        self.shared.bell.ring();
        Ok(())
    }

    /// A participant that is no seawall store.
    ///
    /// # Errors
    /// What it says to [`recover`](Participant::recover): if it cannot be reached, this is to be called again. `Closed`.
    pub fn attach_foreign(&self, node: NodeId, participant: &Arc<dyn Participant>) -> Result<()> {
        let found = participant.recover()?;
        let now = self.shared.now();
        let epoch = self.shared.epoch.load(Ordering::SeqCst);
        let mut host = self.shared.host.lock();
        self.shared.check()?;
        host.attach_found(now, node, Arc::clone(participant), found, epoch)?;
        self.shared.foreign.lock().insert(node, Arc::clone(participant));
        self.shared.dispatch(host);
        self.shared.bell.ring();
        Ok(())
    }

    /// A node leaves. Its prepared branches stay as they are, until it is attached again somewhere.
    pub fn detach(&self, node: NodeId) {
        let mut host = self.shared.host.lock();
        host.detach(node);
        self.shared.foreign.lock().remove(&node);
        self.shared.dispatch(host);
        // Coordinators here need not wait for its votes.
        self.shared.bell.ring();
    }

    /// Begins a transaction. Nothing is sent or written before it commits.
    pub fn begin(&self) -> Global {
        let shared = &self.shared;
        let sequence = shared.sequence.fetch_add(1, Ordering::SeqCst) + 1;
        let epoch = shared.epoch.load(Ordering::SeqCst);
        let txn = TxnId { coordinator: shared.me, epoch, sequence };
        Global {
            shared: Arc::clone(shared),
            txn,
            branches: BTreeMap::new(),
            foreign: BTreeMap::new(),
            joined: BTreeSet::new(),
        }
    }

    /// Runs a transaction, again if another was in its way. Not if the outcome is unknown: that error comes back.
    ///
    /// # Errors
    /// What `f` returns, and as [`Global::commit`].
    pub fn transact<T>(&self, mut f: impl FnMut(&mut Global) -> Result<T>) -> Result<T> {
        let mut tries = 0;
        loop {
            let mut global = self.begin();
            let done = f(&mut global).and_then(|value| global.commit().map(|_| value));
            match done {
                Err(error) if error.is_retryable() && tries < RETRIES_MAX => {
                    tries += 1;
                    let most = 50_u64 << tries.min(12);
                    let pause = self.shared.runtime.random() % most;
                    self.shared.pause(Duration::from_micros(pause));
                }
                done => return done,
            }
        }
    }

    /// An open transaction of an attached store is its branch of a transaction, whoever coordinates that: it is kept until the
    /// coordinator asks for a vote, and given up if that takes ten times [`Timing::deadline_us`].
    ///
    /// # Errors
    /// `NodeMissing` if the store is not attached, `Fenced` if a later incarnation of it is why; `BadInput` if it has a branch of
    /// that transaction; `Busy`.
    pub fn join(&self, store: &Arc<Store>, txn: TxnId, branch: Transaction) -> Result<()> {
        if let Some(absent) = self.shared.lacks(store.node()) {
            return Err(absent.into());
        }
        if !store.join_new(txn, branch) {
            return Err(Error::BadInput(format!("{} has a branch of {txn} already", store.node())));
        }
        self.shared.leave(Come::Join(Arc::clone(store), txn))
    }

    /// A message has come from another process. It is dropped if [too many](CoordinatorBuilder::waiting_max) wait.
    pub fn deliver(&self, message: Message) {
        let _ = self.shared.leave(Come::Message(message));
    }

    /// What waits for the coordinator's thread.
    pub fn backlog(&self) -> Backlog {
        self.shared.inbox.backlog()
    }

    /// Whether nothing is going on: every outcome is known, durable, and forgotten.
    pub fn is_idle(&self) -> bool {
        self.shared.host.lock().is_idle()
    }

    /// Ends the thread. What is prepared stays so; whoever still waits for a handle gets `Closed`, and whoever waits in
    /// [`Global::commit`] is told that the outcome is unknown. So does dropping the last clone. Called by what that thread itself
    /// tells of something, it returns at once, and the thread ends when it is through.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("node", &self.shared.me).finish_non_exhaustive()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.runtime.now().as_micros()).unwrap_or(u64::MAX)
    }

    fn pause(&self, time: Duration) {
        let word = AtomicU32::new(0);
        self.runtime.wait(&word, 0, Some(time));
    }

    /// None if the node is here.
    fn lacks(&self, node: NodeId) -> Option<Absent> {
        self.present.read().lacks(node)
    }

    /// For the next pass, unless there is none any more. `Busy` if there is no room, and then its branches are rolled back; for
    /// what the thread itself leaves, as it calls back, there is always room.
    fn leave(&self, come: Come) -> Result<()> {
        let must = self.thread_id.get() == Some(&thread::current().id());
        if let Err(come) = self.inbox.leave(come, must) {
            let _ = self.give_up(come);
            return Err(Error::Busy);
        }
        if self.is_closed.load(Ordering::SeqCst) {
            self.drop_come();
        }
        Ok(())
    }

    /// What nobody will see to.
    fn drop_come(&self) {
        for come in self.inbox.take_come() {
            if let Some(start) = self.give_up(come) {
                Client::tell_all(vec![(start.client, start.txn, Word::Closed)], &self.runtime);
            }
        }
    }

    /// Its branches are rolled back.
    fn give_up(&self, come: Come) -> Option<Start> {
        match come {
            Come::Start(start) => {
                for node in &start.foreign {
                    let participant = self.foreign.lock().get(node).cloned();
                    participant.iter().for_each(|participant| participant.abandon(start.txn));
                }
                return Some(*start);
            }
            Come::Join(store, txn) => store.abandon(txn),
            Come::Message(_) => {}
        }
        None
    }

    /// Asked under the host's lock, a node that is attached then is let go as well.
    fn check(&self) -> Result<()> {
        if self.is_closed.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }

    /// The thread.
    fn serve(&self) {
        let _ = self.thread_id.set(thread::current().id());
        let _end = End(self);
        loop {
            let seen = self.bell.word.load(Ordering::SeqCst);
            let now = self.now();
            self.inbox.begin();
            let mut host = self.host.lock();
            host.tick(now);
            let mut due = host.next_due();
            self.dispatch(host);
            let is_awaited = self.inbox.end();
            if self.is_closed.load(Ordering::SeqCst) {
                return;
            }
            let now = self.now();
            if is_awaited {
                due = due.min(now.saturating_add(LOOK_US));
            }
            self.bell.is_waited_for.store(true, Ordering::SeqCst);
            if due > now && self.bell.word.load(Ordering::SeqCst) == seen {
                let limit = Duration::from_micros(due.saturating_sub(now));
                self.runtime.wait(&self.bell.word, seen, Some(limit));
            }
            self.bell.is_waited_for.store(false, Ordering::SeqCst);
        }
    }

    /// Hands on what a pass has brought, the host given back.
    fn dispatch(&self, mut host: parking_lot::MutexGuard<'_, Host>) {
        let (messages, notices, told) = (host.take_outgoing(), host.take_notices(), host.take_told());
        drop(host);
        Client::tell_all(told, &self.runtime);
        if let Some(transport) = &self.transport {
            messages.into_iter().for_each(|message| guarded(|| transport.send(message)));
        }
        for notice in notices {
            // Of what nobody here waits for, an outcome is no news.
            if !matches!(notice, Notice::Outcome { .. } | Notice::Settled { .. } | Notice::Unknown { .. }) {
                self.listener.iter().for_each(|listener| guarded(|| listener(&notice)));
            }
        }
    }

    fn close(&self) {
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.bell.ring();
        if self.thread_id.get() == Some(&thread::current().id()) {
            // Called back by the thread itself: it lets go when it ends.
            return;
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
        self.let_go();
    }

    /// Nothing more will be done, and whoever waits is told so.
    fn let_go(&self) {
        self.drop_come();
        let mut host = self.host.lock();
        let clients = host.take_clients();
        // Stores are let go, so that they can be opened elsewhere.
        let nodes: Vec<NodeId> = host.nodes().collect();
        nodes.into_iter().for_each(|node| host.detach(node));
        drop(host);
        Client::tell_all(clients, &self.runtime);
    }
}

impl Shared {
    fn plan(&self, participants: Vec<NodeId>, is_merged: bool) -> Plan {
        let needs_acceptors = self.protocol == Protocol::PaxosCommit && participants.len() > 1;
        let acceptors = if needs_acceptors { self.acceptors.clone() } else { Vec::new() };
        let merged = is_merged && self.protocol == Protocol::TwoPhase;
        Plan { protocol: self.protocol, group: Arc::new(Group { participants, acceptors }), merged }
    }
}
