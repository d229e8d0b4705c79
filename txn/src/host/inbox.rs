//! Where what was handed to stores is answered, and where clients and other processes leave what a pass is to see to.
//!
//! *Rounds.* What a pass has for a store is handed over together, so that it is one flush there; and no more is, until all of
//! that is answered. What follows from the answers is together again, in the other stores. Whoever brings the last answer
//! of a store's round rings. What clients leave lies here until then; it rings by itself only if no store is awaited.
//! A store that takes long holds up nobody but itself, and what clients leave for a moment. Participants that are no stores of this process have no rounds: what is
//! for them is handed over at once, and each of their answers rings.

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
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Where stores' answers arrive, from any thread.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Answers that are awaited in any round, and one more while a pass goes on.
    awaited: AtomicUsize,
    ring: Option<Box<dyn Fn() + Send + Sync>>,
    /// So much of what clients and other processes leave lies here at most. 0: there is no limit.
    come_max: usize,
    waiting_most: AtomicUsize,
    refused: AtomicU64,
    dropped: AtomicU64,
}

/// What waits for a coordinator's thread, and what there was no room for.
///
/// See [`Coordinator::backlog`](crate::Coordinator::backlog).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Transactions, branches and messages that wait.
    pub waiting: usize,
    /// The most that have waited at once.
    pub waiting_most: usize,
    /// Transactions and branches that were refused with [`Error::Busy`].
    pub refused: u64,
    /// Messages that were dropped. Whoever sent them asks again.
    pub dropped: u64,
}

#[derive(Default)]
struct Waiting {
    answers: Vec<Answered>,
    come: Vec<Come>,
}

/// What was handed to a store together.
#[derive(Default)]
pub(super) struct Round {
    /// Answers that are awaited, and one more while it is being handed over.
    left: AtomicUsize,
    /// It took too long, and the next one has begun: from here on each of its answers rings.
    is_over: AtomicBool,
}

impl Round {
    pub(super) fn is_answered(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    /// The next one begins, in place of this.
    pub(super) fn begin_next(round: &mut Arc<Round>) {
        if !round.is_answered() {
            round.is_over.store(true, Ordering::SeqCst);
            *round = Arc::default();
        }
        round.left.fetch_add(1, Ordering::SeqCst);
    }

    /// All is handed over.
    pub(super) fn is_handed_over(&self) {
        self.left.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An answer that a round waits for. It is awaited no more when this is dropped.
struct Awaited(Arc<Inbox>, Arc<Round>);

impl Drop for Awaited {
    fn drop(&mut self) {
        // The answer lies there already.
        self.0.awaited.fetch_sub(1, Ordering::SeqCst);
        if self.1.left.fetch_sub(1, Ordering::SeqCst) == 1 || self.1.is_over.load(Ordering::SeqCst) {
            self.0.ring();
        }
    }
}

/// What a client, or another process, wants.
pub(crate) enum Come {
    Message(Message),
    /// A branch has begun; the store holds it.
    Join(Arc<Store>, TxnId),
    Start(Box<Start>),
}

/// A transaction that is to be committed.
pub(crate) struct Start {
    pub(crate) txn: TxnId,
    pub(crate) plan: Plan,
    pub(crate) branches: Vec<(Arc<Store>, Transaction)>,
    /// Participants here that hold their branches themselves.
    pub(crate) foreign: Vec<NodeId>,
    pub(crate) client: Arc<Client>,
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
        Inbox { ring: Some(ring), ..Inbox::default() }
    }

    pub(crate) fn with_limit(ring: Box<dyn Fn() + Send + Sync>, come_max: usize) -> Inbox {
        Inbox { come_max, ..Inbox::new(ring) }
    }

    pub(crate) fn backlog(&self) -> Backlog {
        Backlog {
            waiting: self.waiting.lock().come.len(),
            waiting_most: self.waiting_most.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    fn ring(&self) {
        if let Some(ring) = &self.ring {
            ring();
        }
    }

    /// Whether somebody waits to be rung for.
    pub(super) fn rings(&self) -> bool {
        self.ring.is_some()
    }

    /// A pass begins.
    pub(crate) fn begin(&self) {
        self.awaited.fetch_add(1, Ordering::SeqCst);
    }

    /// A pass has ended. Whether a store is awaited: what clients leave does not ring then.
    pub(crate) fn end(&self) -> bool {
        let is_awaited = self.awaited.fetch_sub(1, Ordering::SeqCst) > 1;
        if !is_awaited && !self.is_empty() {
            self.ring();
        }
        is_awaited
    }

    /// What stores have answered, and what clients have left if it is asked for, in exchange for what is empty and has room.
    pub(super) fn take(&self, answers: &mut Vec<Answered>, come: Option<&mut Vec<Come>>) {
        let mut waiting = self.waiting.lock();
        std::mem::swap(&mut waiting.answers, answers);
        if let Some(come) = come {
            std::mem::swap(&mut waiting.come, come);
        }
    }

    /// What has come and was not looked at.
    pub(crate) fn take_come(&self) -> Vec<Come> {
        std::mem::take(&mut self.waiting.lock().come)
    }

    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.answers.is_empty() && waiting.come.is_empty()
    }

    /// Leaves something for the next pass. Gives it back if there is no room, unless it must be taken.
    pub(crate) fn leave(&self, come: Come, must: bool) -> std::result::Result<(), Come> {
        let mut waiting = self.waiting.lock();
        if self.come_max > 0 && waiting.come.len() >= self.come_max && !must {
            let count = if matches!(come, Come::Message(_)) { &self.dropped } else { &self.refused };
            count.fetch_add(1, Ordering::Relaxed);
            return Err(come);
        }
        waiting.come.push(come);
        self.waiting_most.fetch_max(waiting.come.len(), Ordering::Relaxed);
        drop(waiting);
        if self.awaited.load(Ordering::SeqCst) == 0 {
            self.ring();
        }
        Ok(())
    }

    fn put(&self, answered: Answered, awaited: Option<Awaited>) {
        self.waiting.lock().answers.push(answered);
        match awaited {
            Some(awaited) => drop(awaited),
            None => self.ring(),
        }
    }

    fn awaited(self: &Arc<Self>, round: &Arc<Round>) -> Awaited {
        self.awaited.fetch_add(1, Ordering::SeqCst);
        round.left.fetch_add(1, Ordering::SeqCst);
        Awaited(Arc::clone(self), Arc::clone(round))
    }
}

/// Whose answer it is: of which attachment of which node, and which round waits for it.
pub(super) type Whom<'a> = (NodeId, u64, Option<&'a Arc<Round>>);

/// A question that is on its way. Dropped without an answer, by a panic for one, it is lost: somebody waits.
struct Question {
    inbox: Arc<Inbox>,
    node: NodeId,
    attachment: u64,
    /// None if what is prepared was asked for.
    what: Option<What>,
    awaited: Option<Awaited>,
    is_answered: bool,
}

impl Question {
    fn said(&mut self, said: Said) {
        self.is_answered = true;
        let (node, attachment) = (self.node, self.attachment);
        self.inbox.put(Answered { node, attachment, said }, self.awaited.take());
    }

    fn answer(mut self, answer: Answer) {
        if let Some(what) = self.what.take() {
            self.said(Said::Answer(what, answer));
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let error = Error::Foreign("what it was asked was dropped, and not answered".into());
        let said = match self.what.take() {
            Some(what) => Said::Answer(what, Answer::Lost(error)),
            None => Said::Found(Err(error)),
        };
        self.said(said);
    }
}

pub(super) fn reply(inbox: &Arc<Inbox>, (node, attachment, round): Whom<'_>, what: What) -> Reply {
    let awaited = round.map(|round| inbox.awaited(round));
    let inbox = Arc::clone(inbox);
    let question = Question { inbox, node, attachment, what: Some(what), awaited, is_answered: false };
    Box::new(move |answer| question.answer(answer))
}

pub(super) fn found(inbox: &Arc<Inbox>, node: NodeId, attachment: u64) -> Found {
    let inbox = Arc::clone(inbox);
    let mut question = Question { inbox, node, attachment, what: None, awaited: None, is_answered: false };
    Box::new(move |found| question.said(Said::Found(found)))
}

pub(super) fn no_log(reply: Reply) {
    reply(Answer::Refused(Error::BadInput("the node keeps no records".into())));
}
