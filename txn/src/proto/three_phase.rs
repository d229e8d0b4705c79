//! Three-phase commit: the coordinator. What participants do without it is in [`termination`].
//!
//! ```text
//!       start            all yes                  persisted                  all there            persisted
//! New ────────► Voting ─────────► (PreCommit) ───────────────► Advancing ─────────────► Deciding ──────────► Telling
//!                 │ a no, deadline                                 │ deadline, and one is there ▲                │ all
//!                 └──► aborted, no record                          └────────────────────────────┘                ▼
//!                                                                                                             dropped
//! after a crash:  PreCommit found ──► Returned: others may have ended it; it asks, writes the outcome down, and follows
//! ```
//!
//! [`Coordinator::step`] → `start`, `vote`, `advance`, `decide`, `decided`, `tell`, `follow`, `followed`.
//!
//! Forced writes: prepare and second phase at each participant, second phase and decision at the coordinator: 2N+2.
//!
//! Before anyone may commit, everyone knows that all voted yes. So those who are left when nodes die can tell from their own
//! states what the dead may have done, and no death blocks them. It is right only while nodes can tell the dead from the
//! slow: under partition it splits (see [`termination`]). It is here because it is in the books, and to be measured
//! against; Paxos Commit does not block either, costs less, and is right.
//!
//! Source: Skeen, *Nonblocking Commit Protocols* (SIGMOD 1981).

use crate::id::{NodeId, TxnId};
use crate::message::{Body, Decision, Role, Stage, Vote};
use crate::mutation::Mutation;
use crate::proto::{Context, Effect, Input, Out, Plan, Timer, Token, Votes};
use crate::record::{Entry, told};
use std::collections::BTreeSet;

pub mod termination;

const PRE_COMMIT: Token = Token(1);
const DECISION: Token = Token(2);
const END: Token = Token(3);
const FOLLOWED: Token = Token(4);

/// The coordinator of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinator {
    ctx: Context,
    txn: TxnId,
    attempt: u32,
    recovered: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum State {
    New,
    Voting { plan: Plan, votes: Votes },
    PreCommitting { tell: BTreeSet<NodeId> },
    Advancing { tell: BTreeSet<NodeId>, there: BTreeSet<NodeId> },
    Returned { tell: BTreeSet<NodeId> },
    Deciding { tell: BTreeSet<NodeId> },
    Following { decision: Decision, tell: BTreeSet<NodeId> },
    Telling { decision: Decision, waiting: BTreeSet<NodeId> },
    Ended,
}

impl Coordinator {
    /// Before anything has happened.
    pub fn new(ctx: Context, txn: TxnId) -> Coordinator {
        Coordinator { ctx, txn, attempt: 0, recovered: false, state: State::New }
    }

    /// Takes an input, and says what is to be done.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let mut out = Out::new(self.ctx, self.txn, now);
        match input {
            Input::Start(plan) => self.start(plan, &mut out),
            Input::Recovered(entry) => self.recover(entry, &mut out),
            Input::Message { from, body, .. } => self.message(from, body, &mut out),
            Input::Persisted(PRE_COMMIT) => self.advance(&mut out),
            Input::Persisted(DECISION) => self.decided(&mut out),
            Input::Persisted(FOLLOWED) => self.followed(&mut out),
            Input::Refused(FOLLOWED) => {
                if let State::Following { tell, .. } = &self.state {
                    self.state = State::Returned { tell: tell.clone() };
                    out.retry(&mut self.attempt, 0);
                }
            }
            Input::Refused(PRE_COMMIT) => {
                if let State::PreCommitting { tell } = &self.state {
                    let tell: Vec<NodeId> = tell.iter().copied().collect();
                    self.abort(&tell, &mut out);
                }
            }
            // It is as good as decided: only the record is missing, and is tried again.
            Input::Refused(DECISION) => {
                if let State::Deciding { tell } = &self.state {
                    self.state = State::Advancing { there: tell.clone(), tell: tell.clone() };
                    out.deadline(1);
                }
            }
            Input::Timer(Timer::Retry) => self.retry(&mut out),
            Input::Timer(Timer::Deadline) => match &self.state {
                State::Voting { votes, .. } => {
                    let tell = votes.not_read_only();
                    self.abort(&tell, &mut out);
                }
                // One that knows is enough for the others to learn it, whoever dies. With none, wait.
                State::Advancing { there, .. } if there.is_empty() => out.deadline(1),
                State::Advancing { .. } => self.decide(&mut out),
                _ => {}
            },
            _ => {}
        }
        out.finish()
    }

    fn recover(&mut self, entry: Entry, out: &mut Out) {
        self.recovered = true;
        match entry {
            Entry::CoordinatorPreCommit { group } => {
                self.state = State::Returned { tell: group.participants.iter().copied().collect() };
                self.retry(out);
            }
            Entry::Committing { group, .. } => {
                self.tell(Decision::Commit, group.participants.iter().copied().collect(), out);
            }
            _ => {}
        }
    }

    fn start(&mut self, plan: Plan, out: &mut Out) {
        if self.state != State::New {
            return;
        }
        let votes = Votes::of(plan.group.participants.iter().copied());
        let body = Body::Prepare { protocol: plan.protocol, group: plan.group.clone() };
        out.send_all(&votes.missing(), &body);
        out.deadline(1);
        out.retry(&mut self.attempt, 0);
        self.state = State::Voting { plan, votes };
    }

    fn message(&mut self, from: NodeId, body: Body, out: &mut Out) {
        match (&mut self.state, body) {
            (State::Voting { .. }, Body::Vote(vote)) => self.vote(from, vote, out),
            (State::Advancing { tell, there }, Body::PreCommitted(_)) => {
                if tell.contains(&from) {
                    there.insert(from);
                }
                if tell == there {
                    self.decide(out);
                }
            }
            (State::Telling { decision, waiting }, Body::Ack { heuristic }) => {
                let decision = *decision;
                if waiting.remove(&from)
                    && let Some(done) = heuristic.filter(|done| *done != decision)
                {
                    out.push(Effect::Damage { participant: from, done });
                }
                self.told(out);
            }
            (State::Telling { decision, waiting }, Body::Inquire(_) | Body::Finished(_))
                if waiting.contains(&from) =>
            {
                out.send(from, Body::Decide { decision: *decision, acknowledge: true });
            }
            (state, Body::Finished(decision)) => {
                let tell = match state {
                    State::Returned { tell }
                    | State::Advancing { tell, .. }
                    | State::PreCommitting { tell } => tell.clone(),
                    State::Voting { votes, .. } => votes.not_read_only().into_iter().collect(),
                    // Its own decision is on its way, and is not another.
                    _ => return,
                };
                self.follow(decision, tell, out);
            }
            (State::Returned { tell }, Body::Answer { stage: Stage::Ended(decision), .. }) => {
                let tell = tell.clone();
                self.follow(decision, tell, out);
            }
            (state, Body::Inquire(_)) if !matches!(state, State::Ended) => out.send(
                from,
                Body::Answer {
                    to: Role::Participant,
                    of: Role::Coordinator,
                    stage: Stage::Uncertain,
                    operational: !self.recovered,
                },
            ),
            _ => {}
        }
    }

    fn vote(&mut self, from: NodeId, vote: Vote, out: &mut Out) {
        let State::Voting { votes, .. } = &mut self.state else { return };
        if matches!(vote, Vote::Yes | Vote::ReadOnly) {
            if !votes.cast(from, vote == Vote::Yes) || !votes.missing().is_empty() {
                return;
            }
            let tell: BTreeSet<NodeId> = votes.not_read_only().into_iter().collect();
            if tell.is_empty() {
                return self.end(Decision::Commit, out);
            }
            let entry = Entry::CoordinatorPreCommit { group: told(tell.iter().copied()) };
            self.state = State::PreCommitting { tell };
            if self.ctx.makes(Mutation::PreCommitUnlogged) {
                self.advance(out);
            } else {
                out.force(PRE_COMMIT, entry);
            }
        } else if votes.is_open(from) {
            let mut tell = votes.not_read_only();
            tell.retain(|&node| node != from);
            self.abort(&tell, out);
        }
    }

    /// That all have voted yes is durable: now the others may know.
    fn advance(&mut self, out: &mut Out) {
        let State::PreCommitting { tell } = &self.state else { return };
        let tell = tell.clone();
        out.send_all(&tell, &Body::PreCommit(Role::Coordinator));
        self.attempt = 0;
        out.deadline(1);
        out.retry(&mut self.attempt, 0);
        self.state = State::Advancing { tell, there: BTreeSet::new() };
    }

    fn decide(&mut self, out: &mut Out) {
        let State::Advancing { tell, .. } = &self.state else { return };
        let tell = tell.clone();
        let entry = Entry::Committing { group: told(tell.iter().copied()), merged: false };
        self.state = State::Deciding { tell };
        if !self.ctx.makes(Mutation::DecideUnlogged) {
            out.force(DECISION, entry);
        }
        if self.ctx.makes(Mutation::DecideUnlogged) || self.ctx.makes(Mutation::DecideEarly) {
            self.decided(out);
        }
    }

    /// The decision is durable (T3).
    fn decided(&mut self, out: &mut Out) {
        let State::Deciding { tell } = &self.state else { return };
        let tell = tell.clone();
        out.push(Effect::Outcome(Decision::Commit));
        self.tell(Decision::Commit, tell, out);
    }

    /// Others have ended it meanwhile. They keep the outcome until this node has it durably: an abort by forgetting
    /// the second phase (T5).
    fn follow(&mut self, decision: Decision, tell: BTreeSet<NodeId>, out: &mut Out) {
        let entry = match decision {
            Decision::Commit => Entry::Committing { group: told(tell.iter().copied()), merged: false },
            Decision::Abort => Entry::End(Role::Coordinator),
        };
        out.force(FOLLOWED, entry);
        self.state = State::Following { decision, tell };
    }

    fn followed(&mut self, out: &mut Out) {
        let State::Following { decision, tell } = &self.state else { return };
        let (decision, tell) = (*decision, tell.clone());
        out.push(Effect::Outcome(decision));
        self.tell(decision, tell, out);
    }

    fn tell(&mut self, decision: Decision, waiting: BTreeSet<NodeId>, out: &mut Out) {
        self.attempt = 0;
        out.send_all(&waiting, &Body::Decide { decision, acknowledge: true });
        out.retry(&mut self.attempt, 0);
        self.state = State::Telling { decision, waiting };
        self.told(out);
    }

    /// Forgets, once everyone has the outcome durably (T4).
    fn told(&mut self, out: &mut Out) {
        if matches!(&self.state, State::Telling { waiting, .. } if waiting.is_empty()) {
            out.lazy(END, Entry::End(Role::Coordinator));
            out.push(Effect::Done);
            self.state = State::Ended;
        }
    }

    fn retry(&mut self, out: &mut Out) {
        match &self.state {
            State::Voting { plan, votes } => {
                let body = Body::Prepare { protocol: plan.protocol, group: plan.group.clone() };
                out.send_all(&votes.missing(), &body);
            }
            State::Advancing { tell, there } => {
                out.send_all(tell.difference(there), &Body::PreCommit(Role::Coordinator));
            }
            State::Returned { tell } => {
                out.send_all(tell, &Body::Ask { of: Role::Participant, by: Role::Coordinator });
            }
            State::Telling { decision, waiting } => {
                out.send_all(waiting, &Body::Decide { decision: *decision, acknowledge: true });
            }
            State::New
            | State::PreCommitting { .. }
            | State::Deciding { .. }
            | State::Following { .. }
            | State::Ended => {
                return;
            }
        }
        out.retry(&mut self.attempt, 0);
    }

    /// No record, and no acknowledgement (T5).
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
