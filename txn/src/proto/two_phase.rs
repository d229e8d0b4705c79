//! Two-phase commit with presumed abort: the coordinator.
//!
//! ```text
//!            start            all voted, one yes           persisted               all acknowledged
//!   New ───────────► Voting ────────────────────► Deciding ──────────► Telling ───────────────────► dropped
//!    │                 │  a no, or the deadline       │ refused                          (a lazy End record)
//!    │                 └──────────► aborted ◄─────────┘     no record, nobody acknowledges (T5)
//!    │                 │  all only read
//!    │                 └──────────► committed, without any record
//!    │ one participant                  its answer
//!    └────────────────► OnePhase ───────────────────► its outcome, its record
//! ```
//!
//! [`Coordinator::step`] → `start`, `vote`, `decide`, `tell`, `abort`, `one_phase_answer`.
//!
//! Forced writes: one for each participant that wrote, and the decision: N+1. If the coordinator's own store takes part
//! and [`Plan::merged`](crate::Plan) is set, its branch commits by the decision's record: N. Participants' commit records
//! and the coordinator's End record are lazy.
//!
//! A dead coordinator blocks participants that have voted yes until it, or its log, is back; see
//! [`cooperative`](super::cooperative) for what they can do meanwhile.
//!
//! Sources: Mohan, Lindsay, Obermarck, *Transaction Management in the R\* Distributed Database Management System* (TODS
//! 1986), for presumed abort and read-only votes; Gray, *Notes on Data Base Operating Systems* (1978), for the protocol and
//! for handing the decision to the last agent, which the merged record comes down to.

use crate::id::{NodeId, TxnId};
use crate::message::{Body, Decision, Vote};
use crate::mutation::Mutation;
use crate::proto::{Context, Effect, Input, Out, Plan, Timer, Token, Votes};
use crate::record::{Entry, told};
use std::collections::BTreeSet;

const DECISION: Token = Token(1);
const END: Token = Token(2);

/// The coordinator of one transaction.
///
/// ```
/// use seawall_txn::proto::two_phase::Coordinator;
/// use seawall_txn::{Context, Effect, Group, Input, NodeId, Plan, Protocol, TxnId};
/// use std::sync::Arc;
///
/// let txn = TxnId { coordinator: NodeId(0), epoch: 1, sequence: 1 };
/// let group = Arc::new(Group { participants: vec![NodeId(1), NodeId(2)], acceptors: vec![] });
/// let mut coordinator = Coordinator::new(Context::new(NodeId(0), 1), txn);
/// let plan = Plan { protocol: Protocol::TwoPhase, group, merged: false };
/// let effects = coordinator.step(0, Input::Start(plan));
/// assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Send(_))).count(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinator {
    ctx: Context,
    txn: TxnId,
    attempt: u32,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum State {
    New,
    OnePhase(NodeId),
    Voting { plan: Plan, votes: Votes },
    Deciding { plan: Plan, tell: Vec<NodeId> },
    Telling { waiting: BTreeSet<NodeId> },
    Ended,
}

impl Coordinator {
    /// Before anything has happened.
    pub fn new(ctx: Context, txn: TxnId) -> Coordinator {
        Coordinator { ctx, txn, attempt: 0, state: State::New }
    }

    /// Takes an input, and says what is to be done.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let mut out = Out::new(self.ctx, self.txn, now);
        match input {
            Input::Start(plan) => self.start(plan, &mut out),
            Input::Recovered(Entry::Committing { group, .. }) => {
                self.tell(group.participants.clone(), &mut out);
            }
            Input::Message { from, body, .. } => self.message(from, body, &mut out),
            Input::Persisted(DECISION) => self.decided(&mut out),
            Input::Refused(DECISION) => {
                if let State::Deciding { plan, tell } = &self.state {
                    // The merged branch itself was refused: its store has rolled it back, and here it is let go.
                    let mut tell = tell.clone();
                    tell.extend(plan.merged.then_some(self.ctx.me));
                    self.abort(&tell, &mut out);
                }
            }
            Input::Timer(Timer::Retry) => self.retry(&mut out),
            Input::Timer(Timer::Deadline) => match &self.state {
                State::Voting { votes, plan } => {
                    let tell = Coordinator::concerned(votes, plan, self.ctx.me);
                    self.abort(&tell, &mut out);
                }
                // It may have committed: there is no way back.
                State::OnePhase(_) => out.push(Effect::Unknown),
                _ => {}
            },
            _ => {}
        }
        out.finish()
    }

    fn start(&mut self, plan: Plan, out: &mut Out) {
        if self.state != State::New {
            return;
        }
        let participants = &plan.group.participants;
        match participants.as_slice() {
            [] => return self.end(Decision::Commit, out),
            [only] if !plan.merged => {
                out.send(*only, Body::CommitOnePhase);
                out.deadline(1);
                self.state = State::OnePhase(*only);
            }
            _ => {
                let voters = participants.iter().copied().filter(|&node| !plan.merged || node != self.ctx.me);
                let votes = Votes::of(voters);
                let body = Body::Prepare { protocol: plan.protocol, group: plan.group.clone() };
                out.send_all(&votes.missing(), &body);
                if votes.missing().is_empty() {
                    return self.decide(plan, &votes, out);
                }
                out.deadline(1);
                self.state = State::Voting { plan, votes };
            }
        }
        out.retry(&mut self.attempt, 0);
    }

    fn message(&mut self, from: NodeId, body: Body, out: &mut Out) {
        match (&mut self.state, body) {
            (State::Voting { .. }, Body::Vote(vote)) => self.vote(from, vote, out),
            (State::OnePhase(only), Body::Finished(decision)) if *only == from => {
                out.send(from, Body::Forget);
                self.end(decision, out);
            }
            (State::Telling { waiting }, Body::Ack { heuristic }) => {
                if waiting.remove(&from)
                    && let Some(done) = heuristic.filter(|done| *done != Decision::Commit)
                {
                    out.push(Effect::Damage { participant: from, done });
                }
                self.told(out);
            }
            (State::Telling { waiting }, Body::Inquire(_) | Body::Vote(Vote::Yes))
                if waiting.contains(&from) =>
            {
                out.send(from, Body::Decide { decision: Decision::Commit, acknowledge: true });
            }
            _ => {}
        }
    }

    fn vote(&mut self, from: NodeId, vote: Vote, out: &mut Out) {
        let State::Voting { plan, votes } = &mut self.state else { return };
        match vote {
            Vote::Yes | Vote::ReadOnly => {
                if votes.cast(from, vote == Vote::Yes) && votes.missing().is_empty() {
                    let (plan, votes) = (plan.clone(), votes.clone());
                    self.decide(plan, &votes, out);
                }
            }
            Vote::No | Vote::Unknown if votes.is_open(from) => {
                let mut tell = Coordinator::concerned(votes, plan, self.ctx.me);
                tell.retain(|&node| node != from);
                self.abort(&tell, out);
            }
            Vote::No | Vote::Unknown => {}
        }
    }

    /// All have voted, and none of them no.
    fn decide(&mut self, plan: Plan, votes: &Votes, out: &mut Out) {
        let tell = votes.not_read_only();
        if tell.is_empty() && !plan.merged {
            // Nobody has anything to commit.
            return self.end(Decision::Commit, out);
        }
        let entry = Entry::Committing { group: told(tell.iter().copied()), merged: plan.merged };
        self.state = State::Deciding { plan, tell };
        if !self.ctx.makes(Mutation::DecideUnlogged) {
            out.force(DECISION, entry);
        }
        if self.ctx.makes(Mutation::DecideUnlogged) || self.ctx.makes(Mutation::DecideEarly) {
            self.decided(out);
        }
    }

    /// The decision is durable (T3).
    fn decided(&mut self, out: &mut Out) {
        let State::Deciding { plan, tell } = &self.state else { return };
        let tell = tell.clone();
        out.push(Effect::Outcome(Decision::Commit));
        if plan.merged {
            // Its store committed it with the decision; only the machine is left.
            out.send(self.ctx.me, Body::Decide { decision: Decision::Commit, acknowledge: false });
        }
        self.tell(tell, out);
    }

    fn tell(&mut self, tell: Vec<NodeId>, out: &mut Out) {
        self.attempt = 0;
        out.send_all(&tell, &Body::Decide { decision: Decision::Commit, acknowledge: true });
        self.state = State::Telling { waiting: tell.into_iter().collect() };
        if self.ctx.makes(Mutation::ForgetEarly) {
            self.state = State::Telling { waiting: BTreeSet::new() };
        }
        let State::Telling { waiting } = &self.state else { return };
        if waiting.is_empty() {
            // Nobody to tell: the record was the end as well, unless it names some.
            self.told(out);
        } else {
            out.retry(&mut self.attempt, 0);
        }
    }

    /// Forgets, once everyone has the outcome durably (T4).
    fn told(&mut self, out: &mut Out) {
        if matches!(&self.state, State::Telling { waiting } if waiting.is_empty()) {
            out.lazy(END, Entry::End(crate::message::Role::Coordinator));
            out.push(Effect::Done);
            self.state = State::Ended;
        }
    }

    fn retry(&mut self, out: &mut Out) {
        match &self.state {
            State::OnePhase(only) => out.send(*only, Body::CommitOnePhase),
            State::Voting { plan, votes } => {
                let body = Body::Prepare { protocol: plan.protocol, group: plan.group.clone() };
                out.send_all(&votes.missing(), &body);
            }
            State::Telling { waiting } => {
                out.send_all(waiting, &Body::Decide { decision: Decision::Commit, acknowledge: true });
            }
            State::New | State::Deciding { .. } | State::Ended => return,
        }
        out.retry(&mut self.attempt, 0);
    }

    /// Whom an abort concerns: all but those who only read.
    fn concerned(votes: &Votes, plan: &Plan, me: NodeId) -> Vec<NodeId> {
        let mut nodes = votes.not_read_only();
        nodes.extend(plan.merged.then_some(me));
        nodes
    }

    /// No record, and no acknowledgement: who does not hear of it will ask, and be told the same (T5).
    fn abort(&mut self, tell: &[NodeId], out: &mut Out) {
        out.send_all(tell, &Body::Decide { decision: Decision::Abort, acknowledge: false });
        self.end(Decision::Abort, out);
    }

    fn end(&mut self, decision: Decision, out: &mut Out) {
        out.push(Effect::Outcome(decision));
        out.push(Effect::Done);
        self.state = State::Ended;
    }
}
