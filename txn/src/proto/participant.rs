//! A participant: the same machine for all three protocols, which differ in what it does while in doubt.
//!
//! ```text
//!          Prepare            persisted             a decision            persisted
//! Working ────────► Preparing ─────────► InDoubt ──────────────► Finishing ─────────► acknowledged, dropped
//!    │                 │ refused, read-only │  ▲       refused        │
//!    │                 └──► dropped         │  └──────────────────────┘ it stays prepared, and tries again
//!    │                                      │  a person                 ▲
//!    │                                      └────────────► Heuristic ───┘ kept until ForgetHeuristic
//!    │ abort, deadline, a peer in doubt asks
//!    ├────────► rolled back, dropped
//!    │ CommitOnePhase      persisted          Forget
//!    └────────► Finishing ──────────► Retained ─────► dropped
//! ```
//!
//! [`Participant::step`] → `prepare`, `prepared`, `in_doubt`, `finish`, `finished`, `release`. While in doubt it waits for
//! its coordinator and asks: [`cooperative`](super::cooperative) in two-phase commit, the
//! [termination protocol](super::three_phase::termination) in three-phase commit, and in Paxos Commit it
//! [leads a ballot](super::paxos_commit) itself.
//!
//! Its own commit and abort records are lazy: an outcome that is lost is asked for again. It acknowledges when they are
//! durable, and not before (T4).

use super::three_phase::termination::{self, Answers, Verdict};
use crate::id::{Ballot, Group, NodeId, TxnId};
use crate::message::{Body, Decision, Protocol, Role, Stage, Value, Vote};
use crate::mutation::Mutation;
use crate::proto::{Context, Effect, Input, Out, Timer, Token};
use crate::record::Entry;
use std::collections::BTreeSet;
use std::sync::Arc;

const PREPARED: Token = Token(1);
const PRE_COMMITTED: Token = Token(2);
const FINISHED: Token = Token(3);
const END: Token = Token(4);
const HEURISTIC: Token = Token(5);

/// A participant in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Participant {
    ctx: Context,
    txn: TxnId,
    attempt: u32,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum State {
    /// Not asked to prepare yet: it may still give up.
    Working,
    /// The coordinator here will commit it by its own record.
    Merging,
    Preparing {
        protocol: Protocol,
        group: Arc<Group>,
        aborted: bool,
    },
    InDoubt(Doubt),
    Finishing(Finishing),
    Retained(Decision),
    Heuristic {
        doubt: Doubt,
        decision: Decision,
        durable: bool,
    },
    Ended,
}

/// Prepared, and without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Doubt {
    protocol: Protocol,
    group: Arc<Group>,
    /// Nothing to commit: only in Paxos Commit, where others count on its vote.
    read_only: bool,
    /// It has crashed since.
    recovered: bool,
    /// It knows that all voted yes.
    pre_committed: bool,
    /// Who waits to hear that this is durable.
    pre_commit_asked: BTreeSet<(NodeId, Role)>,
    /// What others said, if they were asked.
    answers: Option<Answers>,
    /// As the one who stands in for the coordinator: who has not been brought to the same state yet.
    standing_in: Option<BTreeSet<NodeId>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Finishing {
    /// None in one phase: a refusal ends it.
    doubt: Option<Doubt>,
    decision: Decision,
    /// Who waits to hear that it is durable.
    acknowledge: BTreeSet<NodeId>,
    /// Whether it is kept until the coordinator knows.
    retained: bool,
    /// Whether the others are told once it is durable.
    announce: bool,
}

impl Doubt {
    fn new(protocol: Protocol, group: Arc<Group>) -> Doubt {
        Doubt {
            protocol,
            group,
            read_only: false,
            recovered: false,
            pre_committed: false,
            pre_commit_asked: BTreeSet::new(),
            answers: None,
            standing_in: None,
        }
    }

    fn stage(&self) -> Stage {
        if self.pre_committed { Stage::PreCommitted } else { Stage::Uncertain }
    }
}

impl Participant {
    /// Before its branch begins, or is recovered.
    pub fn new(ctx: Context, txn: TxnId) -> Participant {
        Participant { ctx, txn, attempt: 0, state: State::Ended }
    }

    /// Whether it has voted, or is about to, and knows no outcome.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.state, State::InDoubt(_) | State::Preparing { .. })
    }

    /// Whether its branch is open, and nobody has asked to prepare or commit it alone.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Working | State::Merging)
    }

    /// Whether it will vote.
    pub(crate) fn is_before_vote(&self) -> bool {
        matches!(self.state, State::Working | State::Preparing { .. })
    }

    /// Takes an input, and says what is to be done.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let mut out = Out::new(self.ctx, self.txn, now);
        match input {
            Input::Join => {
                self.state = State::Working;
                out.deadline(10);
            }
            Input::Merge if self.state == State::Working => self.state = State::Merging,
            Input::Recovered(entry) => self.recover(entry, &mut out),
            Input::Message { from, body, .. } => self.message(from, body, &mut out),
            Input::Persisted(PREPARED) => self.prepared(&mut out),
            Input::Persisted(PRE_COMMITTED) => self.pre_committed(&mut out),
            Input::Persisted(FINISHED) => self.finished(&mut out),
            Input::Persisted(HEURISTIC) => {
                if let State::Heuristic { durable, .. } = &mut self.state {
                    *durable = true;
                }
            }
            Input::ReadOnly(PREPARED) => self.read_only(&mut out),
            Input::Refused(token) => self.refused(token, &mut out),
            Input::Timer(Timer::Retry) => self.retry(&mut out),
            Input::Timer(Timer::Deadline) if self.state == State::Working => self.give_up(&mut out),
            Input::Heuristic(decision) => self.heuristic(decision, &mut out),
            Input::ForgetHeuristic if matches!(self.state, State::Heuristic { durable: true, .. }) => {
                self.release(&mut out);
            }
            _ => {}
        }
        out.finish()
    }

    fn recover(&mut self, entry: Entry, out: &mut Out) {
        let doubt = |protocol, group| Doubt { recovered: true, ..Doubt::new(protocol, group) };
        self.state = match entry {
            Entry::Prepared { protocol, group } => State::InDoubt(doubt(protocol, group)),
            Entry::PreCommitted { group } => {
                State::InDoubt(Doubt { pre_committed: true, ..doubt(Protocol::ThreePhase, group) })
            }
            Entry::Finished { decision, .. } => State::Retained(decision),
            Entry::Heuristic { decision } => {
                let doubt = doubt(Protocol::TwoPhase, Arc::default());
                State::Heuristic { doubt, decision, durable: true }
            }
            _ => State::Ended,
        };
        if matches!(self.state, State::InDoubt(_) | State::Retained(_)) {
            self.retry(out);
        }
    }

    fn message(&mut self, from: NodeId, body: Body, out: &mut Out) {
        match body {
            Body::Prepare { protocol, group } => self.prepare(from, protocol, group, out),
            Body::CommitOnePhase => self.one_phase(out),
            Body::Decide { decision, acknowledge } => self.decide(from, decision, acknowledge, out),
            Body::PreCommit(role) => self.pre_commit(from, role, out),
            Body::PreCommitted(_) => self.other_pre_committed(from, out),
            Body::Ask { by, .. } => self.asked(from, by, out),
            Body::Answer { of, stage, operational, .. } => self.answered(from, of, stage, operational, out),
            Body::Forget if matches!(self.state, State::Retained(_)) => self.release(out),
            _ => {}
        }
    }

    fn prepare(&mut self, from: NodeId, protocol: Protocol, group: Arc<Group>, out: &mut Out) {
        match &self.state {
            State::Working => {
                let entry = Entry::Prepared { protocol, group: group.clone() };
                self.state = State::Preparing { protocol, group, aborted: false };
                if !self.ctx.makes(Mutation::VoteUnprepared) {
                    out.force(PREPARED, entry);
                }
                if self.ctx.makes(Mutation::VoteUnprepared) || self.ctx.makes(Mutation::VoteEarly) {
                    self.prepared(out);
                }
            }
            State::InDoubt(doubt) => match doubt.protocol {
                Protocol::PaxosCommit => self.propose(&doubt.group.acceptors, doubt, out),
                _ => out.send(from, Body::Vote(Vote::Yes)),
            },
            _ => {}
        }
    }

    /// The prepare record is durable: now it may vote (T1).
    fn prepared(&mut self, out: &mut Out) {
        let State::Preparing { protocol, group, aborted } = &self.state else { return };
        let (doubt, aborted) = (Doubt::new(*protocol, group.clone()), *aborted);
        if aborted {
            return self.finish(doubt, Decision::Abort, BTreeSet::new(), out);
        }
        self.vote(doubt, out);
    }

    fn vote(&mut self, doubt: Doubt, out: &mut Out) {
        self.attempt = 0;
        match doubt.protocol {
            Protocol::PaxosCommit => self.propose(doubt.group.first_acceptors(), &doubt, out),
            _ => out.send(self.txn.coordinator, Body::Vote(Vote::Yes)),
        }
        out.retry(&mut self.attempt, doubt.group.rank(self.ctx.me));
        self.state = State::InDoubt(doubt);
    }

    /// Paxos Commit: this participant's vote, in ballot 0, which is its own.
    fn propose(&self, acceptors: &[NodeId], doubt: &Doubt, out: &mut Out) {
        let values = vec![(self.ctx.me, Value::Prepared)];
        let body = Body::Phase2a { ballot: Ballot::ZERO, values, group: doubt.group.clone() };
        out.send_all(acceptors, &body);
    }

    fn read_only(&mut self, out: &mut Out) {
        let State::Preparing { protocol, group, .. } = &self.state else { return };
        if *protocol == Protocol::PaxosCommit {
            // Leaders that know nothing of its vote would have to abort: it stays until the others are through.
            let doubt = Doubt { read_only: true, ..Doubt::new(*protocol, group.clone()) };
            return self.vote(doubt, out);
        }
        out.send(self.txn.coordinator, Body::Vote(Vote::ReadOnly));
        self.end(out);
    }

    fn refused(&mut self, token: Token, out: &mut Out) {
        match (&mut self.state, token) {
            (State::Preparing { .. }, PREPARED) => {
                out.send(self.txn.coordinator, Body::Vote(Vote::No));
                self.give_up(out);
            }
            (State::InDoubt(doubt), PRE_COMMITTED) => {
                doubt.pre_commit_asked.clear();
                doubt.standing_in = None;
            }
            (State::Finishing(finishing), FINISHED) => match finishing.doubt.take() {
                // Still prepared: it will ask again, and be told again.
                Some(doubt) => {
                    out.retry(&mut self.attempt, doubt.group.rank(self.ctx.me));
                    self.state = State::InDoubt(doubt);
                }
                None => {
                    out.send(self.txn.coordinator, Body::Finished(Decision::Abort));
                    self.give_up(out);
                }
            },
            (State::Heuristic { doubt, durable: false, .. }, HEURISTIC) => {
                self.state = State::InDoubt(doubt.clone());
            }
            _ => {}
        }
    }

    fn one_phase(&mut self, out: &mut Out) {
        match &self.state {
            State::Working => {
                self.state = State::Finishing(Finishing {
                    doubt: None,
                    decision: Decision::Commit,
                    acknowledge: BTreeSet::new(),
                    retained: true,
                    announce: false,
                });
                out.force(FINISHED, Entry::Finished { decision: Decision::Commit, retained: true });
            }
            State::Retained(decision) => out.send(self.txn.coordinator, Body::Finished(*decision)),
            _ => {}
        }
    }

    fn decide(&mut self, from: NodeId, decision: Decision, acknowledge: bool, out: &mut Out) {
        let waiting: BTreeSet<NodeId> = acknowledge.then_some(from).into_iter().collect();
        match &mut self.state {
            State::Working if decision == Decision::Abort => {
                out.send_all(&waiting, &Body::Ack { heuristic: None });
                self.give_up(out);
            }
            State::Working => out.push(Effect::Violation("a commit that nobody was asked to prepare for")),
            State::Merging => match decision {
                Decision::Commit => self.end(out),
                Decision::Abort => self.give_up(out),
            },
            State::Preparing { aborted, .. } => match decision {
                // Its record may be on its way already: wait for it.
                Decision::Abort => *aborted = true,
                Decision::Commit => out.push(Effect::Violation("a commit before the vote")),
            },
            State::InDoubt(_) => {
                if let State::InDoubt(doubt) = std::mem::replace(&mut self.state, State::Ended) {
                    self.finish(doubt, decision, waiting, out);
                }
            }
            State::Finishing(finishing) => {
                if finishing.decision == decision {
                    finishing.acknowledge.extend(waiting);
                } else {
                    out.push(Effect::Violation("two outcomes"));
                }
            }
            State::Retained(done) => {
                if *done != decision {
                    out.push(Effect::Violation("two outcomes"));
                }
                out.send_all(&waiting, &Body::Ack { heuristic: None });
                if from == self.txn.coordinator {
                    self.release(out);
                }
            }
            State::Heuristic { decision: done, durable: true, .. } => {
                let done = *done;
                out.send_all(&waiting, &Body::Ack { heuristic: Some(done) });
                if done != decision {
                    out.push(Effect::Damage { participant: self.ctx.me, done });
                }
            }
            State::Heuristic { .. } | State::Ended => {}
        }
    }

    /// There is an outcome: it is carried out (T2).
    fn finish(&mut self, doubt: Doubt, decision: Decision, acknowledge: BTreeSet<NodeId>, out: &mut Out) {
        self.finish_as(
            Finishing { doubt: Some(doubt), decision, acknowledge, retained: false, announce: false },
            out,
        );
    }

    fn finish_as(&mut self, finishing: Finishing, out: &mut Out) {
        if finishing.doubt.as_ref().is_some_and(|doubt| doubt.read_only) {
            out.send_all(&finishing.acknowledge, &Body::Ack { heuristic: None });
            return self.end(out);
        }
        if self.ctx.makes(Mutation::AckEarly) {
            out.send_all(&finishing.acknowledge, &Body::Ack { heuristic: None });
        }
        let entry = Entry::Finished { decision: finishing.decision, retained: finishing.retained };
        if finishing.announce {
            out.force(FINISHED, entry)
        } else {
            out.lazy(FINISHED, entry)
        }
        self.state = State::Finishing(finishing);
    }

    /// The outcome is durable: now it may be acknowledged (T4).
    fn finished(&mut self, out: &mut Out) {
        if !matches!(self.state, State::Finishing(_)) {
            return;
        }
        let State::Finishing(finishing) = std::mem::replace(&mut self.state, State::Ended) else { return };
        out.send_all(&finishing.acknowledge, &Body::Ack { heuristic: None });
        if finishing.announce
            && let Some(doubt) = &finishing.doubt
        {
            let others = doubt.group.participants.iter().filter(|&&node| node != self.ctx.me);
            out.send_all(others, &Body::Decide { decision: finishing.decision, acknowledge: false });
        }
        if finishing.retained {
            self.attempt = 0;
            self.state = State::Retained(finishing.decision);
            out.send(self.txn.coordinator, Body::Finished(finishing.decision));
            out.retry(&mut self.attempt, 0);
        } else {
            self.end(out);
        }
    }

    /// All voted yes (three-phase commit).
    fn pre_commit(&mut self, from: NodeId, role: Role, out: &mut Out) {
        let State::InDoubt(doubt) = &mut self.state else { return };
        if doubt.protocol != Protocol::ThreePhase {
            return out.push(Effect::Violation("a second phase in a protocol that has none"));
        }
        if doubt.pre_committed {
            return out.send(from, Body::PreCommitted(role));
        }
        let first = doubt.pre_commit_asked.is_empty();
        doubt.pre_commit_asked.insert((from, role));
        // Someone leads: leave it to them.
        doubt.answers = None;
        if first {
            out.force(PRE_COMMITTED, Entry::PreCommitted { group: doubt.group.clone() });
        }
    }

    fn pre_committed(&mut self, out: &mut Out) {
        let State::InDoubt(doubt) = &mut self.state else { return };
        doubt.pre_committed = true;
        for (node, role) in std::mem::take(&mut doubt.pre_commit_asked) {
            // One that stands in here asks itself, and is told below; a coordinator here waits for the answer as any.
            if node != self.ctx.me || role == Role::Coordinator {
                out.send(node, Body::PreCommitted(role));
            }
        }
        let me = self.ctx.me;
        self.other_pre_committed(me, out);
    }

    /// Someone whom this node has brought to the second phase is there.
    fn other_pre_committed(&mut self, from: NodeId, out: &mut Out) {
        let State::InDoubt(doubt) = &mut self.state else { return };
        let Some(waiting) = &mut doubt.standing_in else { return };
        waiting.remove(&from);
        if waiting.is_empty() {
            self.stand_in_decides(Decision::Commit, out);
        }
    }

    fn stand_in_decides(&mut self, decision: Decision, out: &mut Out) {
        let State::InDoubt(doubt) = &self.state else { return };
        let doubt = Some(doubt.clone());
        let acknowledge = BTreeSet::new();
        self.finish_as(Finishing { doubt, decision, acknowledge, retained: true, announce: true }, out);
    }

    fn asked(&mut self, from: NodeId, by: Role, out: &mut Out) {
        let (stage, operational) = match &self.state {
            State::Working => {
                // It has not voted, so it can end everyone's doubt.
                self.give_up(out);
                (Stage::Ended(Decision::Abort), true)
            }
            State::Merging | State::Preparing { .. } => (Stage::Uncertain, true),
            State::InDoubt(doubt) => (doubt.stage(), !doubt.recovered),
            // An acceptor wants to know whether this node may come to ask again.
            State::Finishing(_) if by == Role::Acceptor => (Stage::Uncertain, true),
            State::Finishing(Finishing { doubt: None, .. }) => (Stage::Uncertain, true),
            // Who stands in tells the others when it is durable.
            State::Finishing(finishing) if finishing.announce => (Stage::Uncertain, true),
            State::Finishing(finishing) => (Stage::Ended(finishing.decision), true),
            State::Retained(decision) => (Stage::Ended(*decision), true),
            // What a person did is no outcome.
            State::Heuristic { .. } => (Stage::Uncertain, false),
            State::Ended => (Stage::Unknown, true),
        };
        out.send(from, Body::Answer { to: by, of: Role::Participant, stage, operational });
    }

    fn answered(&mut self, from: NodeId, of: Role, stage: Stage, operational: bool, out: &mut Out) {
        let State::InDoubt(doubt) = &mut self.state else { return };
        if let Stage::Ended(decision) = stage {
            let three_phase = doubt.protocol == Protocol::ThreePhase;
            let finishing = Finishing {
                doubt: Some(doubt.clone()),
                decision,
                acknowledge: BTreeSet::new(),
                // In three-phase commit the others may be ahead of the coordinator.
                retained: three_phase,
                announce: false,
            };
            return self.finish_as(finishing, out);
        }
        if let Some(answers) = &mut doubt.answers {
            if of == Role::Coordinator {
                answers.coordinator = Some(operational);
            } else {
                answers.participants.insert(from, (stage, operational));
            }
        }
    }

    fn retry(&mut self, out: &mut Out) {
        if self.ctx.makes(Mutation::AbortPrepared)
            && let State::InDoubt(doubt) = &self.state
        {
            let doubt = doubt.clone();
            return self.finish(doubt, Decision::Abort, BTreeSet::new(), out);
        }
        match &mut self.state {
            State::InDoubt(doubt) => {
                let (me, coordinator) = (self.ctx.me, self.txn.coordinator);
                match doubt.protocol {
                    Protocol::TwoPhase => {
                        super::cooperative::ask(me, coordinator, &doubt.group, self.attempt, out)
                    }
                    Protocol::PaxosCommit => {
                        let doubt = doubt.clone();
                        self.propose(&doubt.group.acceptors, &doubt, out);
                        out.send(coordinator, Body::Inquire(Protocol::PaxosCommit));
                        if self.attempt > 0 {
                            out.push(Effect::Lead(doubt.group));
                        }
                    }
                    Protocol::ThreePhase => return self.terminate(out),
                }
            }
            State::Retained(decision) => out.send(self.txn.coordinator, Body::Finished(*decision)),
            _ => return,
        }
        self.again(out);
    }

    fn again(&mut self, out: &mut Out) {
        let rank = match &self.state {
            State::InDoubt(doubt) => doubt.group.rank(self.ctx.me),
            _ => 0,
        };
        out.retry(&mut self.attempt, rank);
    }

    /// Three-phase commit: every other time asks everyone, and in between acts on what they said.
    fn terminate(&mut self, out: &mut Out) {
        let State::InDoubt(doubt) = &mut self.state else { return };
        let (me, coordinator) = (self.ctx.me, self.txn.coordinator);
        if doubt.standing_in.is_some() {
            // Whoever has not answered by now is down, and will ask when it is back.
            self.stand_in_decides(Decision::Commit, out);
            return;
        }
        let Some(answers) = doubt.answers.take() else {
            doubt.answers = Some(Answers::default());
            termination::ask(me, coordinator, &doubt.group, out);
            return self.again(out);
        };
        let mine = (doubt.stage(), !doubt.recovered);
        match termination::verdict(me, mine, &doubt.group, &answers) {
            Verdict::Wait => {}
            Verdict::Abort => return self.stand_in_decides(Decision::Abort, out),
            Verdict::PreCommit(mut others) => {
                out.send_all(&others, &Body::PreCommit(Role::Participant));
                if !doubt.pre_committed {
                    let first = doubt.pre_commit_asked.is_empty();
                    doubt.pre_commit_asked.insert((me, Role::Participant));
                    others.insert(me);
                    if first {
                        out.force(PRE_COMMITTED, Entry::PreCommitted { group: doubt.group.clone() });
                    }
                }
                let nobody = others.is_empty();
                doubt.standing_in = Some(others);
                if nobody {
                    return self.stand_in_decides(Decision::Commit, out);
                }
            }
        }
        self.again(out);
    }

    fn heuristic(&mut self, decision: Decision, out: &mut Out) {
        if let State::InDoubt(doubt) = &self.state
            && !doubt.read_only
        {
            self.state = State::Heuristic { doubt: doubt.clone(), decision, durable: false };
            out.force(HEURISTIC, Entry::Heuristic { decision });
        }
    }

    /// Nobody will ask for the outcome any more.
    fn release(&mut self, out: &mut Out) {
        out.lazy(END, Entry::End(Role::Participant));
        self.end(out);
    }

    /// An unprepared branch ends.
    fn give_up(&mut self, out: &mut Out) {
        out.push(Effect::Rollback);
        self.end(out);
    }

    fn end(&mut self, out: &mut Out) {
        out.push(Effect::Done);
        self.state = State::Ended;
    }
}
