//! A transaction, until it is handed over; and what is left in hand then.

use super::Shared;
use crate::error::{Error, Result};
use crate::host::{Client, Come, Start};
use crate::id::{Group, NodeId, TxnId};
use crate::participant::Participant;
use crate::store::Store;
use seawall_engine::{Transaction, TxOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A transaction over several stores, being made. Dropping it rolls it back.
///
/// See [`Coordinator`](crate::Coordinator).
pub struct Global {
    pub(super) shared: Arc<Shared>,
    pub(super) txn: TxnId,
    pub(super) branches: BTreeMap<NodeId, (Arc<Store>, Transaction)>,
    pub(super) foreign: BTreeMap<NodeId, Arc<dyn Participant>>,
    /// Nodes that hold a branch of it already: see [`Coordinator::join`](crate::Coordinator::join).
    pub(super) joined: BTreeSet<NodeId>,
}

impl Global {
    /// Its name.
    pub fn txn(&self) -> TxnId {
        self.txn
    }

    /// Its branch in this store: begun at the first call.
    ///
    /// # Errors
    /// None so far; a store that is not attached is an error of [`commit`](Global::commit).
    pub fn branch(&mut self, store: &Arc<Store>) -> Result<&mut Transaction> {
        self.branch_with(store, TxOptions::default())
    }

    /// As [`branch`](Global::branch), begun with these options.
    ///
    /// # Errors
    /// As [`branch`](Global::branch).
    pub fn branch_with(&mut self, store: &Arc<Store>, options: TxOptions) -> Result<&mut Transaction> {
        let begin = || (Arc::clone(store), store.db().begin_with(options));
        Ok(&mut self.branches.entry(store.node()).or_insert_with(begin).1)
    }

    /// A participant takes part that keeps the branch itself, under this transaction's name: one that is no seawall store, or
    /// a node, of another process too, where a branch was joined to it.
    ///
    /// # Errors
    /// `NodeMissing`, or `Fenced`, if no such participant is attached, and there is no transport that could reach it. `BadInput`
    /// if it would be one of more than [`Group::PARTICIPANTS_MAX`].
    pub fn enlist(&mut self, node: NodeId) -> Result<TxnId> {
        if self.branches.len() + self.foreign.len() + self.joined.len() >= Group::PARTICIPANTS_MAX {
            let mut nodes = self.nodes();
            nodes.insert(node);
            Group::check_participants(nodes.len())?;
        }
        let found = self.shared.foreign.lock().get(&node).cloned();
        if let Some(participant) = found {
            self.foreign.insert(node, participant);
            return Ok(self.txn);
        }
        let absent = self.shared.lacks(node).filter(|_| self.shared.transport.is_none());
        if let Some(absent) = absent {
            return Err(absent.into());
        }
        self.joined.insert(node);
        Ok(self.txn)
    }

    /// All that take part.
    fn nodes(&self) -> BTreeSet<NodeId> {
        self.branches.keys().chain(self.foreign.keys()).chain(&self.joined).copied().collect()
    }

    /// Commits it in all stores, or in none. It is visible in all stores of this process when this returns.
    ///
    /// # Errors
    /// `Aborted`: nothing happened, anywhere; it may be right to run it again. `OutcomeUnknown`: that is not known yet; the
    /// handle inside is to be waited for, and running it again may apply it twice; so it is too if the coordinator is closed
    /// meanwhile, and then the stores know, or fenced, and then the later incarnation does. `NodeMissing`, `Fenced`, `Closed`, `Busy`,
    /// `BadInput` for more than [`Group::PARTICIPANTS_MAX`] participants: nothing happened.
    pub fn commit(self) -> Result<TxnId> {
        let pending = self.commit_pipelined()?;
        pending.wait_known()
    }

    /// Hands it over and returns at once.
    ///
    /// # Errors
    /// `NodeMissing`, `Fenced`, `Closed`, `BadInput` for too many participants, `Busy`: nothing happened.
    pub fn commit_pipelined(mut self) -> Result<Pending> {
        let (shared, txn) = (Arc::clone(&self.shared), self.txn);
        if shared.is_closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        let nodes: Vec<NodeId> = self.nodes().into_iter().collect();
        // T9, before anything is written: a longer record could not be read again.
        Group::check_participants(nodes.len())?;
        let pending = |client| Pending { shared: Arc::clone(&shared), client, txn };
        if nodes.is_empty() {
            return Ok(pending(Arc::new(Client::committed())));
        }
        let begun_here = || self.branches.keys().chain(self.foreign.keys()).chain([&txn.coordinator]);
        if let Some(absent) = begun_here().find_map(|node| shared.lacks(*node)) {
            return Err(absent.into());
        }
        let is_merged = self.branches.contains_key(&txn.coordinator) && nodes.len() > 1;
        let plan = shared.plan(nodes, is_merged);
        plan.group.check()?;
        let client = Arc::new(Client::default());
        let pending = pending(Arc::clone(&client));
        let branches = std::mem::take(&mut self.branches).into_values().collect();
        let foreign = std::mem::take(&mut self.foreign).into_keys().collect();
        shared.leave(Come::Start(Box::new(Start { txn, plan, branches, foreign, client })))?;
        Ok(pending)
    }

    /// Gives it up; so does dropping it.
    pub fn rollback(self) {}
}

impl Drop for Global {
    fn drop(&mut self) {
        for participant in self.foreign.values() {
            participant.abandon(self.txn);
        }
    }
}

impl std::fmt::Debug for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Global").field("txn", &self.txn).finish_non_exhaustive()
    }
}

/// A transaction whose outcome is on its way. Dropping it changes nothing.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use seawall_engine::Db;
/// # use seawall_txn::{Coordinator, NodeId, Store};
/// # let db = Db::builder("/a").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// # let store = Store::new(NodeId(1), &db)?;
/// # let coordinator = Coordinator::open(&store)?;
/// let mut global = coordinator.begin();
/// global.branch(&store)?.insert(&rows, "a", "1")?;
/// let pending = global.commit_pipelined()?;
/// // Something else, meanwhile.
/// let txn = pending.wait()?;
/// println!("{txn} is committed");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pending {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Arc<Client>,
    pub(super) txn: TxnId,
}

impl Pending {
    /// Its name.
    pub fn txn(&self) -> TxnId {
        self.txn
    }

    /// Waits until the outcome is known and visible, however long that takes.
    ///
    /// # Errors
    /// `Aborted`; `Closed` if the coordinator was closed first, `Fenced` if a later incarnation of it was heard of: they are no
    /// outcomes. `NodeMissing` if a node had gone by then: nothing happened.
    pub fn wait(&self) -> Result<TxnId> {
        loop {
            if let Some(done) = self.wait_timeout(Duration::from_secs(3600))? {
                return Ok(done);
            }
        }
    }

    /// As [`wait`](Pending::wait), for at most `limit`; none if it was not enough.
    ///
    /// # Errors
    /// As [`wait`](Pending::wait).
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<TxnId>> {
        self.until(Some(limit), false)
    }

    /// Whether [`wait`](Pending::wait) has something to say.
    #[cfg(feature = "net")]
    pub(crate) fn is_over(&self) -> bool {
        self.client.state.lock().is_over() || self.shared.is_closed.load(Ordering::SeqCst)
    }

    /// Calls `f` once, when it is known, from the thread that brings the news, or at once; it must not block. With `Closed` or
    /// `Fenced`, if the coordinator is closed first, or a later incarnation of it is heard of: they are no outcomes.
    /// If it panics in that thread, that is printed, and the coordinator goes on.
    pub fn on_done(self, f: impl FnOnce(Result<TxnId>) + Send + 'static) {
        let mut state = self.client.state.lock();
        let closed = || self.shared.is_closed.load(Ordering::SeqCst).then_some(Err(Error::Closed));
        if let Some(result) = state.result(self.txn).or_else(closed) {
            drop(state);
            f(result);
        } else {
            state.on_done.push(Box::new(f));
        }
    }

    /// Gives up waiting as soon as the outcome is said not to be known soon.
    fn wait_known(&self) -> Result<TxnId> {
        match self.until(None, true) {
            Ok(Some(txn)) => Ok(txn),
            // It was handed over.
            Ok(None) | Err(Error::Closed) => Err(Error::OutcomeUnknown { handle: self.clone() }),
            Err(error) => Err(error),
        }
    }

    fn until(&self, limit: Option<Duration>, only_while_known: bool) -> Result<Option<TxnId>> {
        let shared = &self.shared;
        let deadline = limit.map(|limit| shared.runtime.now().saturating_add(limit));
        loop {
            let seen = self.client.word.load(Ordering::SeqCst);
            {
                let mut state = self.client.state.lock();
                if only_while_known && state.is_unknown() {
                    return Ok(None);
                }
                if let Some(result) = state.result(self.txn) {
                    return result.map(Some);
                }
                if shared.is_closed.load(Ordering::SeqCst) {
                    return Err(Error::Closed);
                }
                let left = deadline.map(|deadline| deadline.saturating_sub(shared.runtime.now()));
                if left == Some(Duration::ZERO) {
                    return Ok(None);
                }
                state.sleeps();
                drop(state);
                shared.runtime.wait(&self.client.word, seen, left);
            }
            self.client.wakes(&*shared.runtime);
        }
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("txn", &self.txn).finish_non_exhaustive()
    }
}
