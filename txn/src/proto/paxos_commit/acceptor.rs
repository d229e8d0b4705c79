//! An acceptor of Paxos Commit: remembers votes.
//!
//! ```text
//!            2a of ballot 0, until all are there           persisted
//! gathering ─────────────────────────────────────► record ───────────► 2b to the coordinator
//!            1a of a higher ballot                          persisted
//!            ─────────────────────────────────────► record ───────────► 1b to its leader
//!            2a of a ballot not below the promise           persisted
//!            ─────────────────────────────────────► record ───────────► 2b to its leader
//! ForgetVotes, or nobody is in doubt any more ────► dropped (a lazy End record)
//! ```
//!
//! [`Acceptor::step`] → `phase1a`, `phase2a`, `persisted`, `forget`. Each record is the whole state, so the last one counts. Every
//! answer is composed when its record is handed out and sent when that is durable (T6): what comes in between changes later
//! answers, not this one.
//!
//! An acceptor that has forgotten takes a ballot as new. So with its votes it remembers which incarnation of the coordinator was
//! through, if that is a later one than began the transaction ([`Entry::Fence`]), and [`Site`](crate::Site) refuses what earlier ones
//! lead, and votes of ballot 0 that come late (T7).
//!
//! If nobody tells it to forget, because leaders died, it asks the participants and the coordinator whether any of them may
//! still ask; when none may, it forgets. What is said about that before the state last changed does not count.

use crate::id::{Ballot, Group, NodeId, TxnId};
use crate::message::{Accepted, Body, Role, Stage, Value};
use crate::mutation::Mutation;
use crate::proto::{Context, Effect, Input, Out, Timer, Token};
use crate::record::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// An acceptor of one transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acceptor {
    ctx: Context,
    txn: TxnId,
    attempt: u32,
    group: Arc<Group>,
    /// With what is on its way to the disk.
    latest: Memory,
    durable: Memory,
    /// Votes of ballot 0, until all are there.
    gathered: BTreeSet<NodeId>,
    /// Records on their way, and what is said once they are there.
    pending: VecDeque<(Token, Memory, NodeId, Body)>,
    /// Who is not in doubt any more.
    through: BTreeSet<(NodeId, Role)>,
    /// The latest incarnation of the coordinator that has said so.
    coordinator_epoch: u64,
    tokens: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Memory {
    promised: Ballot,
    accepted: BTreeMap<NodeId, (Ballot, Value)>,
}

impl Memory {
    fn votes(&self) -> Vec<Accepted> {
        let votes = self.accepted.iter();
        votes.map(|(&instance, &(ballot, value))| Accepted { instance, ballot, value }).collect()
    }

    /// The votes accepted in a ballot.
    fn accepted_in(&self, at: Ballot) -> Vec<(NodeId, Value)> {
        let votes = self.accepted.iter().filter(|(_, (ballot, _))| *ballot == at);
        votes.map(|(&instance, &(_, value))| (instance, value)).collect()
    }
}

impl Acceptor {
    /// Before anything has happened.
    pub fn new(ctx: Context, txn: TxnId) -> Acceptor {
        Acceptor {
            ctx,
            txn,
            attempt: 0,
            group: Arc::default(),
            latest: Memory::default(),
            durable: Memory::default(),
            gathered: BTreeSet::new(),
            pending: VecDeque::new(),
            through: BTreeSet::new(),
            coordinator_epoch: 0,
            tokens: 0,
        }
    }

    /// Takes an input, and says what is to be done.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let mut out = Out::new(self.ctx, self.txn, now);
        match input {
            Input::Recovered(Entry::Acceptor { group, promised, accepted }) => {
                let accepted = accepted.into_iter().map(|vote| (vote.instance, (vote.ballot, vote.value)));
                self.durable = Memory { promised, accepted: accepted.collect() };
                self.latest = self.durable.clone();
                self.group = group;
                out.retry(&mut self.attempt, 0);
            }
            Input::Message { from, epoch, body } => self.message(from, epoch, body, &mut out),
            Input::Persisted(token) => self.persisted(token, &mut out),
            Input::Refused(_) => {
                // Nothing behind it will be durable either that builds on it: who waits will ask again.
                self.pending.clear();
                self.latest = self.durable.clone();
            }
            Input::Timer(Timer::Retry) => self.ask(&mut out),
            _ => {}
        }
        out.finish()
    }

    fn message(&mut self, from: NodeId, epoch: u64, body: Body, out: &mut Out) {
        match body {
            Body::Phase1a { ballot, group } => {
                self.join(group, out);
                self.phase1a(from, ballot, out);
            }
            Body::Phase2a { ballot, values, group } => {
                self.join(group, out);
                if ballot.is_zero() {
                    self.gather(&values, out);
                } else {
                    self.phase2a(from, ballot, &values, out);
                }
            }
            Body::ForgetVotes { epoch } => self.forget(epoch, out),
            Body::Answer { of, stage, .. } => {
                if matches!(stage, Stage::Unknown | Stage::Ended(_)) {
                    self.through.insert((from, of));
                    if of == Role::Coordinator && from == self.txn.coordinator {
                        self.coordinator_epoch = self.coordinator_epoch.max(epoch);
                    }
                }
                let all = self
                    .group
                    .participants
                    .iter()
                    .all(|&node| self.through.contains(&(node, Role::Participant)));
                if all && self.through.contains(&(self.txn.coordinator, Role::Coordinator)) {
                    self.forget(self.coordinator_epoch, out);
                }
            }
            _ => {}
        }
    }

    fn join(&mut self, group: Arc<Group>, out: &mut Out) {
        if self.group.participants.is_empty() {
            self.group = group;
            out.retry(&mut self.attempt, 0);
        }
    }

    fn phase1a(&mut self, from: NodeId, ballot: Ballot, out: &mut Out) {
        let answer = |memory: &Memory| Body::Phase1b { ballot, accepted: memory.votes() };
        if ballot > self.latest.promised {
            self.latest.promised = ballot;
            let reply = answer(&self.latest);
            self.write(from, reply, Mutation::PromiseUnlogged, out);
        } else if ballot == self.durable.promised && self.latest == self.durable {
            out.send(from, answer(&self.durable));
        } else if ballot < self.latest.promised {
            out.send(from, Body::Outbid { promised: self.latest.promised });
        }
    }

    /// Votes of ballot 0 come from each participant alone: it waits for all of them, and writes once.
    fn gather(&mut self, values: &[(NodeId, Value)], out: &mut Out) {
        if !self.latest.promised.is_zero() {
            return;
        }
        let coordinator = self.txn.coordinator;
        if !self.latest.accepted.is_empty() {
            if self.latest == self.durable {
                let values = self.durable.accepted_in(Ballot::ZERO);
                out.send(coordinator, Body::Phase2b { ballot: Ballot::ZERO, values });
            }
            return;
        }
        let voters = values.iter().filter(|(_, value)| *value == Value::Prepared).map(|(node, _)| *node);
        self.gathered.extend(voters.filter(|node| self.group.participants.contains(node)));
        if self.gathered.len() == self.group.participants.len() {
            let all = std::mem::take(&mut self.gathered);
            self.latest.accepted =
                all.into_iter().map(|node| (node, (Ballot::ZERO, Value::Prepared))).collect();
            let values = self.latest.accepted_in(Ballot::ZERO);
            let reply = Body::Phase2b { ballot: Ballot::ZERO, values };
            self.write(coordinator, reply, Mutation::AcceptUnlogged, out);
        }
    }

    fn phase2a(&mut self, from: NodeId, ballot: Ballot, values: &[(NodeId, Value)], out: &mut Out) {
        if ballot < self.latest.promised {
            return out.send(from, Body::Outbid { promised: self.latest.promised });
        }
        let reply = Body::Phase2b { ballot, values: values.to_vec() };
        let before = self.latest.accepted_in(ballot);
        if before == values {
            if self.latest == self.durable {
                out.send(from, reply);
            }
            return;
        }
        if !before.is_empty() {
            return out.push(Effect::Violation("two proposals in one ballot"));
        }
        self.latest.promised = ballot;
        self.latest.accepted.extend(values.iter().map(|&(node, value)| (node, (ballot, value))));
        self.write(from, reply, Mutation::AcceptUnlogged, out);
    }

    fn write(&mut self, to: NodeId, reply: Body, unless: Mutation, out: &mut Out) {
        self.through.clear();
        if self.ctx.makes(unless) {
            self.durable = self.latest.clone();
            return out.send(to, reply);
        }
        self.tokens += 1;
        let token = Token(self.tokens);
        let entry = Entry::Acceptor {
            group: self.group.clone(),
            promised: self.latest.promised,
            accepted: self.latest.votes(),
        };
        out.force(token, entry);
        self.pending.push_back((token, self.latest.clone(), to, reply));
    }

    fn persisted(&mut self, token: Token, out: &mut Out) {
        while let Some((first, ..)) = self.pending.front()
            && *first <= token
        {
            if let Some((_, memory, to, reply)) = self.pending.pop_front() {
                self.durable = memory;
                out.send(to, reply);
            }
        }
    }

    /// May anyone still need this?
    fn ask(&mut self, out: &mut Out) {
        let open = |node: &&NodeId| !self.through.contains(&(**node, Role::Participant));
        let participants: Vec<NodeId> = self.group.participants.iter().filter(open).copied().collect();
        out.send_all(&participants, &Body::Ask { of: Role::Participant, by: Role::Acceptor });
        let coordinator = self.txn.coordinator;
        if !self.through.contains(&(coordinator, Role::Coordinator)) {
            out.send(coordinator, Body::Ask { of: Role::Coordinator, by: Role::Acceptor });
        }
        out.retry(&mut self.attempt, 0);
    }

    /// `epoch`: the incarnation of the coordinator that is through (T7).
    fn forget(&mut self, epoch: u64, out: &mut Out) {
        if epoch > self.txn.epoch && !self.ctx.makes(Mutation::ForgetUnfenced) {
            // The one that began it may be thought dead, and go on. Before the end, so that no crash leaves that alone.
            self.tokens += 1;
            out.fence(Token(self.tokens), epoch);
        }
        self.tokens += 1;
        out.lazy(Token(self.tokens), Entry::End(Role::Acceptor));
        out.push(Effect::Done);
    }
}
