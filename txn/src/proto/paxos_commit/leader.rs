//! The leader of Paxos Commit: the coordinator, which learns ballot 0 and leads higher ones if votes are late; and any
//! node in doubt, which begins with a higher one.
//!
//! ```text
//!      start            F+1 acceptors have all votes; or a no
//! New ───────► Voting ─────────────────────────────────────────────┐
//!   │ lead        │ deadline, an unknown participant                ▼           all, and the coordinator
//!   └──────────► Phase1 ── F+1 promises ──► Phase2 ── F+1 ──► Telling ───────────────────► dropped, votes forgotten
//!                 ▲ │ outbid                  │ outbid
//!                 └─┴── Outbid: wait ◄────────┘
//! ```
//!
//! [`Leader::step`] → `start`, `late`, `lead`, `phase1b`, `phase2b`, `decide`, `told`. It writes nothing: after a crash it is gone,
//! and participants in doubt lead. Its ballots are its own (T10): the node's incarnation and its number there are in them.
//!
//! A client that waits hears that the outcome is not known yet when a ballot has taken longer than the deadline.

use crate::id::{Ballot, Group, NodeId, TxnId};
use crate::message::{Accepted, Body, Decision, Role, Stage, Value, Vote};
use crate::mutation::Mutation;
use crate::proto::{Context, Effect, Input, Out, Plan, Timer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A leader of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leader {
    ctx: Context,
    txn: TxnId,
    /// Which of this incarnation's leaders it is.
    sequence: u64,
    group: Arc<Group>,
    attempt: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    New,
    Voting {
        plan: Plan,
        accepted: BTreeSet<NodeId>,
    },
    One {
        ballot: Ballot,
        promises: BTreeMap<NodeId, Vec<Accepted>>,
    },
    Two {
        ballot: Ballot,
        values: Vec<(NodeId, Value)>,
        accepted: BTreeSet<NodeId>,
    },
    Outbid {
        round: u32,
    },
    /// `coordinator`: the incarnation of it that knows.
    Telling {
        decision: Decision,
        waiting: BTreeSet<NodeId>,
        coordinator: Option<u64>,
    },
    Ended,
}

impl Leader {
    /// Before anything has happened. `sequence` is its alone in this incarnation of the node, whatever the transaction.
    pub fn new(ctx: Context, txn: TxnId, sequence: u64) -> Leader {
        Leader { ctx, txn, sequence, group: Arc::default(), attempt: 0, phase: Phase::New }
    }

    /// Whether it has found an outcome, and is telling it.
    pub fn has_decided(&self) -> bool {
        matches!(self.phase, Phase::Telling { .. })
    }

    /// Takes an input, and says what is to be done.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let mut out = Out::new(self.ctx, self.txn, now);
        match input {
            Input::Start(plan) if self.phase == Phase::New => self.start(plan, &mut out),
            Input::Lead(group) if self.phase == Phase::New => {
                self.group = group;
                self.lead(1, &mut out);
            }
            Input::Message { from, epoch, body } => self.message(from, epoch, body, &mut out),
            Input::Timer(Timer::Retry) => self.retry(&mut out),
            Input::Timer(Timer::Deadline) => self.late(&mut out),
            _ => {}
        }
        out.finish()
    }

    fn start(&mut self, plan: Plan, out: &mut Out) {
        self.group = plan.group.clone();
        let body = Body::Prepare { protocol: plan.protocol, group: plan.group.clone() };
        out.send_all(&self.group.participants, &body);
        out.deadline(1);
        out.retry(&mut self.attempt, 0);
        self.phase = Phase::Voting { plan, accepted: BTreeSet::new() };
    }

    /// Votes are late, or the acceptors are.
    fn late(&mut self, out: &mut Out) {
        match self.phase {
            Phase::Voting { .. } => {
                self.lead(1, out);
                out.deadline(1);
            }
            Phase::One { .. } | Phase::Two { .. } | Phase::Outbid { .. } if self.is_coordinator() => {
                out.push(Effect::Unknown);
            }
            _ => {}
        }
    }

    fn majority(&self) -> usize {
        if self.ctx.makes(Mutation::DecideByFew) { 1 } else { self.group.majority() }
    }

    fn is_coordinator(&self) -> bool {
        self.ctx.me == self.txn.coordinator
    }

    fn message(&mut self, from: NodeId, epoch: u64, body: Body, out: &mut Out) {
        match body {
            Body::Vote(vote) if matches!(self.phase, Phase::Voting { .. }) => match vote {
                // It has never proposed "prepared", so that cannot be chosen.
                Vote::No => self.decide(Decision::Abort, out),
                // It may have, before it lost its memory.
                Vote::Unknown => self.lead(1, out),
                Vote::Yes | Vote::ReadOnly => {}
            },
            Body::Phase1b { ballot, accepted } => self.phase1b(from, ballot, accepted, out),
            Body::Phase2b { ballot, values } => self.phase2b(from, ballot, &values, out),
            Body::Outbid { promised } => self.outbid(promised, out),
            Body::Learned(decision) => {
                out.send(from, Body::Heard);
                match &self.phase {
                    Phase::Telling { decision: mine, .. } if *mine != decision => {
                        out.push(Effect::Violation("two outcomes"));
                    }
                    Phase::Telling { .. } | Phase::Ended => {}
                    _ => {
                        // The other leader tells the participants, and has the votes forgotten.
                        if self.is_coordinator() {
                            out.push(Effect::Outcome(decision));
                        }
                        out.push(Effect::Done);
                        self.phase = Phase::Ended;
                    }
                }
            }
            Body::Ack { heuristic } => {
                if let Phase::Telling { decision, waiting, .. } = &mut self.phase {
                    let decision = *decision;
                    if waiting.remove(&from)
                        && let Some(done) = heuristic.filter(|done| *done != decision)
                    {
                        out.push(Effect::Damage { participant: from, done });
                    }
                    self.told(out);
                }
            }
            Body::Heard => {
                if let Phase::Telling { coordinator, .. } = &mut self.phase {
                    *coordinator = (*coordinator).max(Some(epoch));
                    self.told(out);
                }
            }
            Body::Inquire(_) => {
                if let Phase::Telling { decision, .. } = &self.phase {
                    out.send(from, Body::Decide { decision: *decision, acknowledge: true });
                }
            }
            Body::Ask { by, .. } => {
                let stage = match &self.phase {
                    Phase::Telling { decision, .. } => Stage::Ended(*decision),
                    _ => Stage::Uncertain,
                };
                out.send(from, Body::Answer { to: by, of: Role::Coordinator, stage, operational: true });
            }
            _ => {}
        }
    }

    /// Begins a ballot of its own: what has been accepted? Rounds grow, so that it is a new one (T10).
    fn lead(&mut self, round: u32, out: &mut Out) {
        let ballot = Ballot { round, leader: self.ctx.me, epoch: self.ctx.epoch, sequence: self.sequence };
        let ballot = if self.ctx.makes(Mutation::ReuseBallots) {
            Ballot { epoch: 1, sequence: 1, ..ballot }
        } else {
            ballot
        };
        out.send_all(&self.group.acceptors, &Body::Phase1a { ballot, group: self.group.clone() });
        self.attempt = 0;
        self.phase = Phase::One { ballot, promises: BTreeMap::new() };
        self.again(out);
    }

    fn phase1b(&mut self, from: NodeId, at: Ballot, accepted: Vec<Accepted>, out: &mut Out) {
        let majority = self.majority();
        let Phase::One { ballot, promises } = &mut self.phase else { return };
        if *ballot != at || !self.group.acceptors.contains(&from) {
            return;
        }
        promises.insert(from, accepted);
        if promises.len() < majority {
            return;
        }
        let value_of = |instance: NodeId| {
            let votes = promises.values().flatten().filter(|vote| vote.instance == instance);
            let highest = votes.max_by_key(|vote| vote.ballot);
            // What nobody in a majority has accepted was not chosen, and now will be "aborted".
            highest.map_or(Value::Aborted, |vote| vote.value)
        };
        let mut values: Vec<(NodeId, Value)> =
            self.group.participants.iter().map(|&instance| (instance, value_of(instance))).collect();
        if self.ctx.makes(Mutation::IgnoreAccepted) {
            values.iter_mut().for_each(|(_, value)| *value = Value::Aborted);
        }
        let body = Body::Phase2a { ballot: at, values: values.clone(), group: self.group.clone() };
        out.send_all(&self.group.acceptors, &body);
        self.attempt = 0;
        self.phase = Phase::Two { ballot: at, values, accepted: BTreeSet::new() };
        self.again(out);
    }

    fn phase2b(&mut self, from: NodeId, at: Ballot, values: &[(NodeId, Value)], out: &mut Out) {
        let majority = self.majority();
        if !self.group.acceptors.contains(&from) {
            return;
        }
        match &mut self.phase {
            // Acceptors answer in ballot 0 when they have everyone's vote, and only "prepared" is proposed there.
            Phase::Voting { accepted, .. } if at.is_zero() && is_everyone_prepared(&self.group, values) => {
                accepted.insert(from);
                if accepted.len() >= majority {
                    self.decide(Decision::Commit, out);
                }
            }
            // What was not proposed was not accepted for this leader (T10).
            Phase::Two { ballot, values: mine, accepted } if *ballot == at && mine == values => {
                accepted.insert(from);
                if accepted.len() >= majority {
                    let all = mine.iter().all(|(_, value)| *value == Value::Prepared);
                    self.decide(if all { Decision::Commit } else { Decision::Abort }, out);
                }
            }
            _ => {}
        }
    }

    fn outbid(&mut self, promised: Ballot, out: &mut Out) {
        if let Phase::One { ballot, .. } | Phase::Two { ballot, .. } = self.phase
            && ballot < promised
        {
            // Leave the other one time.
            self.phase = Phase::Outbid { round: promised.round };
            self.again(out);
        }
    }

    /// Something is chosen in every instance, or enough of them (T3).
    fn decide(&mut self, decision: Decision, out: &mut Out) {
        if self.is_coordinator() {
            out.push(Effect::Outcome(decision));
        }
        let waiting = self.group.participants.iter().copied().collect();
        self.phase = Phase::Telling {
            decision,
            waiting,
            coordinator: self.is_coordinator().then_some(self.ctx.epoch),
        };
        self.attempt = 0;
        self.retry(out);
    }

    /// Everyone knows: nobody will ask the acceptors again (T7).
    fn told(&mut self, out: &mut Out) {
        if let Phase::Telling { waiting, coordinator: Some(epoch), .. } = &self.phase
            && waiting.is_empty()
        {
            out.send_all(&self.group.acceptors, &Body::ForgetVotes { epoch: *epoch });
            out.push(Effect::Done);
            self.phase = Phase::Ended;
        }
    }

    fn retry(&mut self, out: &mut Out) {
        match &self.phase {
            Phase::Voting { plan, .. } => {
                let body = Body::Prepare { protocol: plan.protocol, group: self.group.clone() };
                out.send_all(&self.group.participants, &body);
            }
            Phase::One { ballot, promises } => {
                let missing = self.group.acceptors.iter().filter(|node| !promises.contains_key(node));
                out.send_all(missing, &Body::Phase1a { ballot: *ballot, group: self.group.clone() });
            }
            Phase::Two { ballot, values, accepted } => {
                let missing = self.group.acceptors.iter().filter(|node| !accepted.contains(node));
                let body =
                    Body::Phase2a { ballot: *ballot, values: values.clone(), group: self.group.clone() };
                out.send_all(missing, &body);
            }
            Phase::Outbid { round } => {
                // Behind the last round there is none.
                if let Some(round) = round.checked_add(1) {
                    return self.lead(round, out);
                }
            }
            Phase::Telling { decision, waiting, coordinator } => {
                out.send_all(waiting, &Body::Decide { decision: *decision, acknowledge: true });
                if coordinator.is_none() {
                    out.send(self.txn.coordinator, Body::Learned(*decision));
                }
            }
            Phase::New | Phase::Ended => return,
        }
        self.again(out);
    }

    fn again(&mut self, out: &mut Out) {
        // Leaders that outbid each other step aside for different times.
        let rank = if self.is_coordinator() { 0 } else { 1 + self.group.rank(self.ctx.me) };
        out.retry(&mut self.attempt, rank);
    }
}

fn is_everyone_prepared(group: &Group, values: &[(NodeId, Value)]) -> bool {
    let prepared = group.participants.iter().map(|&node| (node, Value::Prepared));
    prepared.eq(values.iter().copied())
}
