//! A node's machines, for all its transactions and roles: who gets which input, what is answered for transactions of
//! which nothing is known, and whose orders are followed.
//!
//! A driver owns a `Site`, feeds it messages, timers and answers of the log, and carries out what it says. Messages from a
//! node to itself never leave it: co-located roles talk within a step.
//!
//! | nothing is known, and there comes … | it answers |
//! |---|---|
//! | Prepare | a vote of *unknown*: it cannot commit |
//! | CommitOnePhase | *aborted*: a commit would have been kept until the coordinator knew |
//! | Decide, to be acknowledged | that it is done: it was, before it was forgotten |
//! | Ask | no trace |
//! | a vote of yes, or Inquire, in two- and three-phase commit | *abort*: presumed (T5) |
//! | Inquire in Paxos Commit | nothing: the acceptors know |
//! | Finished | that it may be forgotten |
//! | Learned | that it was heard |
//! | the first or second phase of a ballot | an acceptor begins; of ballot 0 only while no later incarnation of the coordinator is known of |

use crate::id::{NodeId, TxnId};
use crate::message::{Body, Decision, Message, Protocol, Role, Stage, Vote};
use crate::mutation::Mutation;
use crate::proto::participant::Participant;
use crate::proto::paxos_commit::{Acceptor, Leader};
use crate::proto::{Context, Effect, Input, Plan, three_phase, two_phase};
use crate::record::{Durable, Entry, Record};
use std::collections::{BTreeMap, VecDeque};

/// Names a machine of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its transaction.
    pub txn: TxnId,
    /// Its role.
    pub role: Role,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Machine {
    TwoPhase(two_phase::Coordinator),
    ThreePhase(three_phase::Coordinator),
    Leader(Leader),
    Participant(Participant),
    Acceptor(Acceptor),
}

impl Machine {
    fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        match self {
            Machine::TwoPhase(machine) => machine.step(now, input),
            Machine::ThreePhase(machine) => machine.step(now, input),
            Machine::Leader(machine) => machine.step(now, input),
            Machine::Participant(machine) => machine.step(now, input),
            Machine::Acceptor(machine) => machine.step(now, input),
        }
    }
}

/// A node's machines.
///
/// ```
/// use seawall_txn::{Context, Effect, Group, Input, Key, NodeId, Plan, Protocol, Role, Site, TxnId};
/// use std::sync::Arc;
///
/// let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
/// let mut site = Site::new(Context::new(NodeId(1), 1));
/// // The only participant is the node itself: it commits in one phase.
/// site.step(0, Key { txn, role: Role::Participant }, Input::Join);
/// let group = Arc::new(Group { participants: vec![NodeId(1)], acceptors: vec![] });
/// let plan = Plan { protocol: Protocol::TwoPhase, group, merged: false };
/// let actions = site.step(0, Key { txn, role: Role::Coordinator }, Input::Start(plan));
/// assert!(actions.iter().any(|(_, effect)| matches!(effect, Effect::Persist { forced: true, .. })));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    ctx: Context,
    machines: BTreeMap<Key, Box<Machine>>,
    /// The latest incarnation of others that has given orders here, or that votes were forgotten for.
    fence: BTreeMap<NodeId, u64>,
    /// Leaders so far, the latest one's number (T10).
    leaders: u64,
}

type Actions = Vec<(Key, Effect)>;

impl Site {
    /// A node without a past.
    pub fn new(ctx: Context) -> Site {
        Site { ctx, machines: BTreeMap::new(), fence: BTreeMap::new(), leaders: ctx.leaders_before }
    }

    /// A node that comes back, in a new incarnation, with what it had written down.
    pub fn recover(ctx: Context, durable: &Durable, now: u64) -> (Site, Actions) {
        let mut site = Site::new(ctx);
        site.fence.extend(durable.fences());
        let mut actions = Vec::new();
        for (txn, role, entry) in durable.iter() {
            let machine = match (role, entry) {
                (Role::Participant, _) => Machine::Participant(Participant::new(ctx, txn)),
                (Role::Acceptor, _) => Machine::Acceptor(Acceptor::new(ctx, txn)),
                (Role::Coordinator, Entry::CoordinatorPreCommit { .. }) => {
                    Machine::ThreePhase(three_phase::Coordinator::new(ctx, txn))
                }
                // From here on three-phase commit is the same.
                (Role::Coordinator, _) => Machine::TwoPhase(two_phase::Coordinator::new(ctx, txn)),
            };
            site.machines.insert(Key { txn, role }, Box::new(machine));
        }
        for (txn, role, entry) in durable.iter() {
            actions.extend(site.step(now, Key { txn, role }, Input::Recovered(entry.clone())));
        }
        (site, actions)
    }

    /// The node, its incarnation, and how long it waits.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Whether nothing is going on here.
    pub fn is_idle(&self) -> bool {
        self.machines.is_empty()
    }

    /// The machines that there are, for whoever wants to look.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.machines.keys().copied()
    }

    /// Whether there is such a machine.
    pub fn has(&self, key: Key) -> bool {
        self.machines.contains_key(&key)
    }

    /// Transactions whose branch here nobody has been asked to prepare or commit.
    pub(crate) fn open_branches(&self) -> impl Iterator<Item = TxnId> {
        self.participants().filter(|(_, participant)| participant.is_open()).map(|(txn, _)| txn)
    }

    /// Transactions whose participant here has not voted yet.
    pub(crate) fn before_vote(&self) -> impl Iterator<Item = TxnId> {
        self.participants().filter(|(_, participant)| participant.is_before_vote()).map(|(txn, _)| txn)
    }

    fn participants(&self) -> impl Iterator<Item = (TxnId, &Participant)> {
        self.machines.iter().filter_map(|(key, machine)| match &**machine {
            Machine::Participant(participant) => Some((key.txn, participant)),
            _ => None,
        })
    }

    /// Takes up again a branch that was found, and that no machine here knows.
    pub fn resume(&mut self, now: u64, key: Key, entry: Entry) -> Actions {
        if key.role != Role::Participant || self.has(key) {
            return Vec::new();
        }
        self.machines.insert(key, Box::new(Machine::Participant(Participant::new(self.ctx, key.txn))));
        self.step(now, key, Input::Recovered(entry))
    }

    /// Forgets a machine, as a crash would: what is true of it is at its store.
    pub(crate) fn drop_machine(&mut self, key: Key) {
        self.machines.remove(&key);
    }

    /// Takes a message. One for another node changes nothing.
    pub fn receive(&mut self, now: u64, message: Message) -> Actions {
        if message.to != self.ctx.me {
            return Vec::new();
        }
        let key = Key { txn: message.txn, role: message.body.role() };
        if let Body::Fenced { epoch } = message.body {
            let fenced = message.txn.coordinator == self.ctx.me && epoch > self.ctx.epoch;
            return if fenced { vec![(key, Effect::Fenced { epoch })] } else { Vec::new() };
        }
        if message.body.is_order() && !self.ctx.makes(Mutation::IgnoreFence) {
            // T8: a later incarnation has been here; what the earlier one still says is over.
            let known = self.fence.entry(message.from).or_insert(message.epoch);
            if *known > message.epoch {
                let epoch = *known;
                return vec![self.reply(&message, Body::Fenced { epoch })];
            }
            *known = message.epoch;
        }
        let Message { from, epoch, body, .. } = message;
        self.step(now, key, Input::Message { from, epoch, body })
    }

    fn reply(&self, to: &Message, body: Body) -> (Key, Effect) {
        let message = Message { txn: to.txn, from: self.ctx.me, to: to.from, epoch: self.ctx.epoch, body };
        (Key { txn: to.txn, role: to.body.role() }, Effect::Send(message))
    }

    /// Hands an input to a machine: what the log answers, timers, and what begins here.
    pub fn step(&mut self, now: u64, key: Key, input: Input) -> Actions {
        let mut actions = Vec::new();
        let (mut next, mut queue) = (Some((key, input)), VecDeque::new());
        while let Some((key, input)) = next.take().or_else(|| queue.pop_front()) {
            for effect in self.one(now, key, input, &mut queue) {
                match effect {
                    // To itself: within the step.
                    Effect::Send(Message { txn, from, to, epoch, body }) if to == self.ctx.me => {
                        let key = Key { txn, role: body.role() };
                        queue.push_back((key, Input::Message { from, epoch, body }));
                    }
                    Effect::Lead(group) => {
                        let leader = Key { role: Role::Coordinator, ..key };
                        queue.push_back((leader, Input::Lead(group)));
                    }
                    Effect::Done => {
                        self.machines.remove(&key);
                        actions.push((key, Effect::Done));
                    }
                    effect => {
                        self.note_fence(&effect);
                        actions.push((key, effect));
                    }
                }
            }
        }
        actions
    }

    /// An acceptor here fences a coordinator's earlier incarnations.
    fn note_fence(&mut self, effect: &Effect) {
        if let Effect::Persist { record: Record { txn, entry: Entry::Fence { epoch } }, .. } = effect {
            let known = self.fence.entry(txn.coordinator).or_default();
            *known = (*known).max(*epoch);
        }
    }

    fn one(&mut self, now: u64, key: Key, input: Input, queue: &mut VecDeque<(Key, Input)>) -> Vec<Effect> {
        let ctx = self.ctx;
        if !self.machines.contains_key(&key) {
            let machine = match (&input, key.role) {
                (Input::Start(plan), Role::Coordinator) => self.coordinator(key, plan, queue),
                (Input::Lead(_), Role::Coordinator) => Machine::Leader(self.leader(key.txn)),
                (Input::Join, Role::Participant) => Machine::Participant(Participant::new(ctx, key.txn)),
                // T7: votes that come late, perhaps behind their own end. Who is in doubt leads.
                (Input::Message { body: Body::Phase2a { ballot, .. }, .. }, Role::Acceptor)
                    if ballot.is_zero() && self.is_over(key.txn) =>
                {
                    return Vec::new();
                }
                (
                    Input::Message { body: Body::Phase1a { .. } | Body::Phase2a { .. }, .. },
                    Role::Acceptor,
                ) => Machine::Acceptor(Acceptor::new(ctx, key.txn)),
                (Input::Message { from, body, .. }, _) => return self.unknown(key, *from, body),
                _ => return Vec::new(),
            };
            self.machines.insert(key, Box::new(machine));
        } else if matches!(input, Input::Join) {
            return vec![Effect::Violation("a branch that is there already")];
        }
        let Some(machine) = self.machines.get_mut(&key) else { return Vec::new() };
        let was_in_doubt =
            matches!(&**machine, Machine::Participant(participant) if participant.is_in_doubt());
        let effects = machine.step(now, input);
        let is_in_doubt =
            matches!(&**machine, Machine::Participant(participant) if participant.is_in_doubt());
        if was_in_doubt && !is_in_doubt {
            self.stop_leading(key.txn);
        }
        effects
    }

    /// Whether a later incarnation of its coordinator is known of than the one that began it.
    fn is_over(&self, txn: TxnId) -> bool {
        let latest = match txn.coordinator == self.ctx.me {
            true => Some(self.ctx.epoch),
            false => self.fence.get(&txn.coordinator).copied(),
        };
        latest.is_some_and(|latest| latest > txn.epoch)
    }

    /// T10: each has a number of its own.
    fn leader(&mut self, txn: TxnId) -> Leader {
        self.leaders += 1;
        Leader::new(self.ctx, txn, self.leaders)
    }

    fn coordinator(&mut self, key: Key, plan: &Plan, queue: &mut VecDeque<(Key, Input)>) -> Machine {
        if plan.merged {
            // Before anybody can ask it.
            queue.push_front((Key { role: Role::Participant, ..key }, Input::Merge));
        }
        match plan.protocol {
            Protocol::ThreePhase if plan.group.participants.len() > 1 => {
                Machine::ThreePhase(three_phase::Coordinator::new(self.ctx, key.txn))
            }
            Protocol::PaxosCommit if plan.group.participants.len() > 1 => {
                Machine::Leader(self.leader(key.txn))
            }
            _ => Machine::TwoPhase(two_phase::Coordinator::new(self.ctx, key.txn)),
        }
    }

    /// This node has led a ballot for its own doubt, and has heard from another leader: what it has begun is moot, and
    /// must not go on when the votes are forgotten (T7).
    fn stop_leading(&mut self, txn: TxnId) {
        let key = Key { txn, role: Role::Coordinator };
        if txn.coordinator != self.ctx.me
            && let Some(Machine::Leader(leader)) = self.machines.get(&key).map(|machine| &**machine)
            && !leader.has_decided()
        {
            self.machines.remove(&key);
        }
    }

    fn unknown(&self, key: Key, from: NodeId, body: &Body) -> Vec<Effect> {
        let abort = Body::Decide { decision: Decision::Abort, acknowledge: false };
        let no_trace = |to| Body::Answer { to, of: key.role, stage: Stage::Unknown, operational: true };
        let answer = match (key.role, body) {
            (Role::Participant, Body::Prepare { .. }) => Body::Vote(Vote::Unknown),
            (Role::Participant, Body::CommitOnePhase) => Body::Finished(Decision::Abort),
            (Role::Participant, Body::Decide { acknowledge: true, .. }) => Body::Ack { heuristic: None },
            (Role::Participant, Body::Ask { by, .. }) => no_trace(*by),
            // T8: what is not this node's own, or began after it, it knows nothing of.
            (Role::Coordinator, _) if key.txn.coordinator != self.ctx.me => return Vec::new(),
            (Role::Coordinator, _)
                if key.txn.epoch > self.ctx.epoch && !self.ctx.makes(Mutation::AnswerForSuccessor) =>
            {
                return Vec::new();
            }
            (Role::Coordinator, Body::Vote(Vote::Yes)) => abort,
            (Role::Coordinator, Body::Inquire(Protocol::TwoPhase | Protocol::ThreePhase)) => abort,
            (Role::Coordinator, Body::Finished(_)) => Body::Forget,
            (Role::Coordinator, Body::Learned(_)) => Body::Heard,
            (Role::Coordinator, Body::Ask { by, .. }) => no_trace(*by),
            _ => return Vec::new(),
        };
        let epoch = self.ctx.epoch;
        vec![Effect::Send(Message { txn: key.txn, from: self.ctx.me, to: from, epoch, body: answer })]
    }
}
