//! The protocols, as state machines: input in, effects out. No I/O, no clock, no randomness.
//!
//! One machine stands for one transaction in one role at one node; a [`crate::Site`] holds a node's. Each has a single
//! method, `step(now, input) -> effects`, and whoever drives it owes it this:
//!
//! - effects are carried out in their order; what a message says may not depend on a later effect;
//! - [`Effect::Persist`] is answered once, by [`Input::Persisted`], [`Input::ReadOnly`] or [`Input::Refused`], and records
//!   become durable in the order in which they were handed out; the machine holds back whatever may only be said once the
//!   record is durable, so a step that sends too early is a mistake that a model can reach;
//! - messages may be lost, repeated, delayed and reordered at will; a crash forgets the machine, and
//!   [`Input::Recovered`] makes a new one of what is durable.
//!
//! The same functions run in production, in simulation, and in the models of `tests/`.
//!
//! Invariants, cited where they are asserted or relied on:
//!
//! - T1: a vote of yes leaves a node only after its prepare record is durable there.
//! - T2: a prepared branch ends only by a decision: the coordinator's, a leader's, a peer's that knows it, or a person's.
//! - T3: a decision to commit leaves its node only after it is durable: in the coordinator's log, or at F+1 acceptors.
//! - T4: a coordinator forgets a commit only after each participant's outcome is durable.
//! - T5: no record of an abort is needed: a coordinator that knows nothing of a transaction of its own answers *abort*.
//! - T6: an acceptor's promise and vote leave it only after they are durable, its ballot never falls, and no ballot has two
//!   leaders, nor one leader in two of its lives.
//! - T7: votes are forgotten only when no participant is in doubt and the coordinator knows, or is gone; if a later
//!   incarnation of it said so, what earlier ones lead is refused from then on, by acceptors that have crashed since as well.
//! - T8: orders of a coordinator's earlier incarnation are not followed, nor ballots that it leads, and it never answers for a
//!   later one.
//! - T9: sizes are within their limits before anything is sent or written.
//! - T10: no two leaders share a ballot, and answers count only for the values that were proposed in it.

use crate::id::{Group, NodeId, TxnId};
use crate::message::{Body, Decision, Message, Protocol};
use crate::mutation::Mutation;
use crate::record::{Entry, Record};
use std::collections::BTreeMap;
use std::sync::Arc;

pub mod cooperative;
pub mod participant;
pub mod paxos_commit;
pub mod three_phase;
pub mod two_phase;

/// Names a record within its machine, so that the answer finds its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u32);

/// What a machine may have itself woken for. Setting one again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Waiting is over: go on without.
    Deadline,
    /// Ask again.
    Retry,
}

/// What a coordinator is to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Plan {
    /// By which protocol. A single participant commits in one phase, whatever the protocol.
    pub protocol: Protocol,
    /// With whom.
    pub group: Arc<Group>,
    /// Whether the coordinator's own store is a participant that commits by the decision's own record, and so needs none
    /// to prepare. Only in two-phase commit.
    pub merged: bool,
}

/// What happens to a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Input {
    /// A coordinator: commit this transaction.
    Start(Plan),
    /// A participant: a branch has begun here.
    Join,
    /// A participant: the coordinator here will commit this branch by its own record.
    Merge,
    /// After a crash: this was found.
    Recovered(Entry),
    /// A recovery leader of Paxos Commit: find out, or bring about, how the transaction ends.
    Lead(Arc<Group>),
    /// A message.
    Message {
        /// From whom.
        from: NodeId,
        /// That node's incarnation.
        epoch: u64,
        /// What.
        body: Body,
    },
    /// The record is durable.
    Persisted(Token),
    /// In answer to a prepare record: the branch has only read, there is nothing to write; the store has let it go.
    ReadOnly(Token),
    /// The record is not there, and will not be: the branch conflicts, or there is no room. (If that is not known, the
    /// node has to start again.)
    Refused(Token),
    /// A timer has run out.
    Timer(Timer),
    /// A person ends a prepared branch, not knowing the outcome.
    Heuristic(Decision),
    /// A person, or a foreign coordinator, has seen to what was ended so.
    ForgetHeuristic,
}

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// Write this down.
    Persist {
        /// The record.
        record: Record,
        /// Comes back with the answer.
        token: Token,
        /// Whether to make it durable now. If not, whenever the log gets there: nobody waits for it but a forgetting
        /// coordinator.
        forced: bool,
    },
    /// Send this.
    Send(Message),
    /// Wake me.
    SetTimer {
        /// For what.
        timer: Timer,
        /// When, in microseconds on the driver's clock.
        at: u64,
    },
    /// A participant's branch that was never prepared is given up: roll it back.
    Rollback,
    /// Tell the client. From a coordinator, at most once.
    Outcome(Decision),
    /// Tell the client, if it still waits, that the outcome is not known yet.
    Unknown,
    /// Lead a ballot from here: the coordinator does not answer.
    Lead(Arc<Group>),
    /// A participant was ended by a person otherwise than was decided: atomicity is lost, and someone must be told.
    Damage {
        /// Where.
        participant: NodeId,
        /// What was done there.
        done: Decision,
    },
    /// A later incarnation of this node is at work: this one must stop.
    Fenced {
        /// The later one's epoch.
        epoch: u64,
    },
    /// Someone did what the protocol does not allow.
    Violation(&'static str),
    /// The machine can be dropped.
    Done,
}

/// How long to wait, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timing {
    /// Before the first time that something is asked again.
    pub retry_us: u64,
    /// How often that doubles.
    pub retry_doublings_max: u32,
    /// For all votes; for a branch to be prepared, at its participant, ten times that.
    pub deadline_us: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { retry_us: 50_000, retry_doublings_max: 6, deadline_us: 10_000_000 }
    }
}

/// What all machines of a node share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Context {
    /// The node.
    pub me: NodeId,
    /// Its incarnation. It grows with each start, and is durable before it is used.
    pub epoch: u64,
    /// How long to wait.
    pub timing: Timing,
    /// After what the leaders of this incarnation are numbered. 0, unless a node takes part in an epoch more than once: then
    /// above all that it has used in it.
    pub leaders_before: u64,
    /// A mistake to make on purpose.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

impl Context {
    /// Of a node in this incarnation.
    pub fn new(me: NodeId, epoch: u64) -> Context {
        Context { me, epoch, timing: Timing::default(), leaders_before: 0, mutation: None }
    }

    pub(crate) fn makes(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

/// A step's effects, as they are collected.
pub(crate) struct Out {
    ctx: Context,
    txn: TxnId,
    now: u64,
    effects: Vec<Effect>,
}

impl Out {
    pub(crate) fn new(ctx: Context, txn: TxnId, now: u64) -> Out {
        Out { ctx, txn, now, effects: Vec::new() }
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        let message = Message { txn: self.txn, from: self.ctx.me, to, epoch: self.ctx.epoch, body };
        self.push(Effect::Send(message));
    }

    pub(crate) fn send_all<'a>(&mut self, to: impl IntoIterator<Item = &'a NodeId>, body: &Body) {
        to.into_iter().for_each(|&to| self.send(to, body.clone()));
    }

    pub(crate) fn force(&mut self, token: Token, entry: Entry) {
        self.push(Effect::Persist { record: Record { txn: self.txn, entry }, token, forced: true });
    }

    /// Not waited for.
    pub(crate) fn lazy(&mut self, token: Token, entry: Entry) {
        self.push(Effect::Persist { record: Record { txn: self.txn, entry }, token, forced: false });
    }

    /// Not waited for: ballots led by earlier incarnations of this transaction's coordinator are over.
    pub(crate) fn fence(&mut self, token: Token, epoch: u64) {
        let record = Record { txn: TxnId::of_node(self.txn.coordinator), entry: Entry::Fence { epoch } };
        self.push(Effect::Persist { record, token, forced: false });
    }

    /// Sets the timer for asking again, and counts. `rank` keeps nodes that wait for the same from doing the same at once.
    pub(crate) fn retry(&mut self, attempt: &mut u32, rank: u64) {
        let timing = self.ctx.timing;
        let delay = (timing.retry_us << (*attempt).min(32)).saturating_mul(2 + rank) / 2;
        // What is due at once, again and again, would leave time for nothing else.
        let delay = delay.max(1);
        *attempt = (*attempt + 1).min(timing.retry_doublings_max);
        self.push(Effect::SetTimer { timer: Timer::Retry, at: self.now.saturating_add(delay) });
    }

    pub(crate) fn deadline(&mut self, times: u64) {
        let delay = self.ctx.timing.deadline_us.saturating_mul(times);
        self.push(Effect::SetTimer { timer: Timer::Deadline, at: self.now.saturating_add(delay) });
    }

    pub(crate) fn finish(self) -> Vec<Effect> {
        self.effects
    }
}

/// Votes as they come in: each participant's first one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Votes {
    /// True for yes, false for read-only; none so far.
    cast: BTreeMap<NodeId, Option<bool>>,
}

impl Votes {
    pub(crate) fn of(voters: impl IntoIterator<Item = NodeId>) -> Votes {
        Votes { cast: voters.into_iter().map(|node| (node, None)).collect() }
    }

    /// False if it counts for nothing: a stranger's, or not the first.
    pub(crate) fn cast(&mut self, from: NodeId, yes: bool) -> bool {
        match self.cast.get_mut(&from) {
            Some(vote @ None) => {
                *vote = Some(yes);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn is_open(&self, from: NodeId) -> bool {
        self.cast.get(&from) == Some(&None)
    }

    pub(crate) fn missing(&self) -> Vec<NodeId> {
        self.cast.iter().filter(|(_, vote)| vote.is_none()).map(|(&node, _)| node).collect()
    }

    /// All but those who have no use for an outcome.
    pub(crate) fn not_read_only(&self) -> Vec<NodeId> {
        self.cast.iter().filter(|(_, vote)| **vote != Some(false)).map(|(&node, _)| node).collect()
    }
}
