//! Where what was handed to stores is answered, and where clients and other processes leave what a pass is to see to.
//!
//! *Rounds.* A pass hands everything that it has for a store over together, so that it is one flush there; and the next pass
//! waits for the answers to all of that, so that what follows from them is together again, in the other stores. Whoever
//! brings the last answer of a round rings. What comes meanwhile lies here until then; it rings by itself only if nothing is
//! awaited. A round that takes too long is over, and from then on each of its answers rings: see
//! [`begin`](Inbox::begin). Participants that are no stores of this process may take their time: theirs always do.

use super::client::Client;
use crate::error::{Error, Result};
use crate::id::{NodeId, TxnId};
use crate::message::Message;
use crate::participant::{Answer, Found, Reply};
use crate::proto::{Plan, Token};
use crate::record::Entry;
use crate::site::Key;
use crate::store::Store;
use parking_lot::Mutex;
use seawall_engine::Transaction;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where stores' answers arrive, from any thread.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    ring: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Waiting {
    answers: Vec<Answered>,
    come: Vec<Come>,
    round: Arc<Round>,
}

/// What a pass has handed to stores.
#[derive(Default)]
struct Round {
    /// Answers that are awaited, and one more while the pass goes on.
    left: AtomicUsize,
    /// The next one has begun.
    is_over: AtomicBool,
}

impl Round {
    /// Whether whoever leaves something must ring: nobody will do so for it.
    fn is_quiet(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0 || self.is_over.load(Ordering::SeqCst)
    }
}

/// An answer that a round waits for. It is awaited no more when this is dropped.
struct Awaited(Arc<Inbox>, Arc<Round>);

impl Drop for Awaited {
    fn drop(&mut self) {
        // The answer lies there already.
        if self.1.left.fetch_sub(1, Ordering::SeqCst) == 1 || self.1.is_over.load(Ordering::SeqCst) {
            self.0.ring();
        }
    }
}

/// What a client, or another process, wants.
pub(crate) enum Come {
    Message(Message),
    /// A branch has begun; its participant holds it.
    Join(NodeId, TxnId),
    Start(Box<Start>),
}

/// A transaction that is to be committed.
pub(crate) struct Start {
    pub(crate) txn: TxnId,
    pub(crate) plan: Plan,
    /// Without a transaction, it has [voted](Store::vote_early).
    pub(crate) branches: Vec<(Arc<Store>, Option<Transaction>)>,
    /// Participants here that hold their branches themselves.
    pub(crate) foreign: Vec<NodeId>,
    pub(crate) client: Arc<Client>,
}

impl Start {
    /// It will not be started.
    pub(crate) fn take_back(&self) {
        for (store, _) in self.branches.iter().filter(|(_, branch)| branch.is_none()) {
            store.take_back(self.txn);
        }
    }
}

pub(super) struct Answered {
    pub(super) node: NodeId,
    /// Who was asked: a node that was attached again since is not meant.
    pub(super) attachment: u64,
    pub(super) said: Said,
}

pub(super) enum Said {
    Answer(What, Answer),
    Found(Result<Vec<(TxnId, Entry)>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Log,
    Branches,
}

pub(super) enum What {
    /// Records of the node's log.
    Records(Vec<(Key, Token)>),
    /// A verb.
    Verb(Key, Token, Verb),
    Flush(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Prepare,
    Finish,
    Complete,
}

impl Inbox {
    pub(crate) fn new(ring: Box<dyn Fn() + Send + Sync>) -> Inbox {
        Inbox { waiting: Mutex::default(), ring: Some(ring) }
    }

    fn ring(&self) {
        if let Some(ring) = &self.ring {
            ring();
        }
    }

    /// A pass begins. If answers to the last one are still to come, they have been waited for long enough.
    pub(crate) fn begin(&self) {
        let next = Arc::new(Round { left: AtomicUsize::new(1), is_over: AtomicBool::new(false) });
        let last = std::mem::replace(&mut self.waiting.lock().round, next);
        last.is_over.store(true, Ordering::SeqCst);
    }

    /// A pass has ended. Whether there is anything to wait for before the next one.
    pub(crate) fn end(&self) -> bool {
        let waiting = self.waiting.lock();
        let is_awaited = waiting.round.left.fetch_sub(1, Ordering::SeqCst) > 1;
        if !is_awaited && !(waiting.answers.is_empty() && waiting.come.is_empty()) {
            drop(waiting);
            self.ring();
        }
        is_awaited
    }

    /// What has come, in exchange for what is empty and has room.
    pub(super) fn take(&self, answers: &mut Vec<Answered>, come: &mut Vec<Come>) {
        let mut waiting = self.waiting.lock();
        std::mem::swap(&mut waiting.answers, answers);
        std::mem::swap(&mut waiting.come, come);
    }

    /// What has come and was not looked at.
    pub(crate) fn take_come(&self) -> Vec<Come> {
        std::mem::take(&mut self.waiting.lock().come)
    }

    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.answers.is_empty() && waiting.come.is_empty()
    }

    /// Leaves something for the next pass.
    pub(crate) fn leave(&self, come: Come) {
        let mut waiting = self.waiting.lock();
        waiting.come.push(come);
        let is_quiet = waiting.round.is_quiet();
        drop(waiting);
        if is_quiet {
            self.ring();
        }
    }

    fn put(&self, answered: Answered, awaited: Option<Awaited>) {
        self.waiting.lock().answers.push(answered);
        match awaited {
            Some(awaited) => drop(awaited),
            None => self.ring(),
        }
    }

    fn awaited(self: &Arc<Self>) -> Awaited {
        let round = Arc::clone(&self.waiting.lock().round);
        round.left.fetch_add(1, Ordering::SeqCst);
        Awaited(Arc::clone(self), round)
    }
}

/// For an answer that the round waits for, if it is one of a store here.
pub(super) fn reply(
    inbox: &Arc<Inbox>,
    (node, attachment, is_awaited): (NodeId, u64, bool),
    what: What,
) -> Reply {
    let awaited = is_awaited.then(|| inbox.awaited());
    let inbox = Arc::clone(inbox);
    Box::new(move |answer| {
        inbox.put(Answered { node, attachment, said: Said::Answer(what, answer) }, awaited);
    })
}

pub(super) fn found(inbox: &Arc<Inbox>, node: NodeId, attachment: u64) -> Found {
    let inbox = Arc::clone(inbox);
    Box::new(move |found| inbox.put(Answered { node, attachment, said: Said::Found(found) }, None))
}

pub(super) fn no_log(reply: Reply) {
    reply(Answer::Refused(Error::BadInput("the node keeps no records".into())));
}
