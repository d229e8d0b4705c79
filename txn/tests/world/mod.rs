//! Nodes, their disks and a network around the production machines, one step at a time: what the models explore, and
//! the simulation walks through.
//!
//! What a node has in memory, what it has handed to its log, and what is durable are apart, and each record becomes
//! durable by a step of its own. The network is the set of all messages that are on their way: whether they are
//! delivered, when, how often and in which order is the explorer's choice, and a partition is a choice not to.
#![allow(dead_code, reason = "each test uses its part")]

use seawall_txn::mutation::Mutation;
use seawall_txn::{
    Context, Decision, Durable, Effect, Entry, Group, Input, Key, Message, NodeId, Plan, Protocol, Record,
    Role, Site, Timer, Timing, Token, TxnId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub const COORDINATOR: NodeId = NodeId(0);
pub const TXN: TxnId = TxnId { coordinator: COORDINATOR, epoch: 1, sequence: 1 };

/// What a participant's store says when it is asked to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Will {
    Yes,
    No,
    Reads,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub site: Option<Site>,
    pub durable: Durable,
    pub pending: VecDeque<(Key, Token, Record, bool)>,
    pub timers: BTreeSet<(Key, Timer)>,
    pub epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    Deliver(Message),
    Persist(NodeId),
    Fire(NodeId, Key, Timer),
    /// So many of the records that are on their way get there.
    Crash(NodeId, usize),
    Return(NodeId),
    /// Delivered to the coordinator's earlier incarnation.
    Haunt(Message),
}

/// Forced and lazy records, as they are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    pub forced: u32,
    pub lazy: u32,
    pub messages: u32,
}

/// Counts do not make states differ.
impl std::hash::Hash for Costs {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub nodes: BTreeMap<NodeId, Node>,
    pub network: BTreeSet<Message>,
    pub group: Arc<Group>,
    pub wills: BTreeMap<NodeId, Will>,
    pub merged: bool,
    /// What each participant has done: seen by its readers, so never to be taken back.
    pub applied: BTreeMap<NodeId, Decision>,
    /// Those that could commit, whatever happens.
    pub prepared: BTreeSet<NodeId>,
    /// What the client was told.
    pub outcome: Option<Decision>,
    /// What was wrong.
    pub fault: Option<&'static str>,
    pub crashes_left: u8,
    pub mutation: Option<Mutation>,
    /// The coordinator's earlier incarnation, which was thought dead and goes on: it hears, and has no timers and no disk.
    pub ghost: Option<Site>,
    /// Links that are cut, both ways.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub costs: Costs,
}

pub struct Setup {
    pub protocol: Protocol,
    pub participants: Vec<u64>,
    pub acceptors: Vec<u64>,
    pub wills: Vec<Will>,
    pub merged: bool,
    pub crashes: u8,
    pub mutation: Option<Mutation>,
}

impl Setup {
    pub fn new(protocol: Protocol, participants: &[u64]) -> Setup {
        Setup {
            protocol,
            participants: participants.to_vec(),
            acceptors: Vec::new(),
            wills: vec![Will::Yes; participants.len()],
            merged: false,
            crashes: 0,
            mutation: None,
        }
    }

    pub fn world(&self) -> World {
        let ids = |ids: &[u64]| ids.iter().map(|&id| NodeId(id)).collect::<Vec<_>>();
        let group =
            Arc::new(Group { participants: ids(&self.participants), acceptors: ids(&self.acceptors) });
        let mut all: BTreeSet<NodeId> = group.participants.iter().chain(&group.acceptors).copied().collect();
        all.insert(COORDINATOR);
        let mut world = World {
            nodes: BTreeMap::new(),
            network: BTreeSet::new(),
            wills: group.participants.iter().copied().zip(self.wills.iter().copied()).collect(),
            group: group.clone(),
            merged: self.merged,
            applied: BTreeMap::new(),
            prepared: BTreeSet::new(),
            outcome: None,
            fault: None,
            crashes_left: self.crashes,
            mutation: self.mutation,
            ghost: None,
            cut: BTreeSet::new(),
            costs: Costs::default(),
        };
        for id in all {
            let site = Some(Site::new(world.context(id, 1)));
            let node = Node {
                site,
                durable: Durable::default(),
                pending: VecDeque::new(),
                timers: BTreeSet::new(),
                epoch: 1,
            };
            world.nodes.insert(id, node);
        }
        for &id in &group.participants {
            world.input(id, Key { txn: TXN, role: Role::Participant }, Input::Join);
        }
        let plan = Plan { protocol: self.protocol, group, merged: self.merged };
        world.input(COORDINATOR, Key { txn: TXN, role: Role::Coordinator }, Input::Start(plan));
        world
    }
}

impl World {
    fn context(&self, me: NodeId, epoch: u64) -> Context {
        let mut context = Context::new(me, epoch);
        context.timing = Timing { retry_us: 1, retry_doublings_max: 1, deadline_us: 1 };
        context.mutation = self.mutation;
        context
    }

    pub fn is_participant(&self, id: NodeId) -> bool {
        self.group.participants.contains(&id)
    }

    fn input(&mut self, id: NodeId, key: Key, input: Input) {
        let Some(site) = self.nodes.get_mut(&id).and_then(|node| node.site.as_mut()) else { return };
        let actions = site.step(0, key, input);
        self.carry_out(id, actions);
    }

    fn carry_out(&mut self, id: NodeId, actions: Vec<(Key, Effect)>) {
        for (key, effect) in actions {
            match effect {
                Effect::Send(message) => {
                    self.costs.messages += 1;
                    assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
                    if !self.cut.contains(&(id, message.to)) {
                        self.network.insert(message);
                    }
                }
                Effect::Persist { record, token, forced } => self.hand_out(id, key, token, record, forced),
                Effect::SetTimer { timer, .. } => {
                    self.node(id).timers.insert((key, timer));
                }
                Effect::Rollback => self.apply(id, Decision::Abort),
                Effect::Outcome(decision) => {
                    if self.outcome.is_some_and(|told| told != decision) {
                        self.fault = Some("the client was told two outcomes");
                    }
                    self.outcome = Some(decision);
                    self.check_commit(decision);
                }
                Effect::Violation(what) => self.fault = Some(what),
                Effect::Done => self.node(id).timers.retain(|(other, _)| *other != key),
                Effect::Damage { .. } => self.fault = Some("damage without a person"),
                _ => {}
            }
        }
    }

    fn hand_out(&mut self, id: NodeId, key: Key, token: Token, record: Record, forced: bool) {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
        let will = self.wills.get(&id).copied();
        let asks_store = matches!(record.entry, Entry::Prepared { .. })
            || matches!(record.entry, Entry::Committing { merged: true, .. })
            || matches!(record.entry, Entry::Finished { retained: true, .. })
                && forced
                && !self.prepared.contains(&id);
        match will {
            Some(Will::No) if asks_store => return self.input(id, key, Input::Refused(token)),
            Some(Will::Reads) if matches!(record.entry, Entry::Prepared { .. }) => {
                self.prepared.insert(id);
                return self.input(id, key, Input::ReadOnly(token));
            }
            _ => {}
        }
        if forced {
            self.costs.forced += 1;
        } else {
            self.costs.lazy += 1;
            // Nobody waits for it to be seen.
            self.seen(id, &record);
        }
        self.node(id).pending.push_back((key, token, record, forced));
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// A record takes effect in its store.
    fn seen(&mut self, id: NodeId, record: &Record) {
        match &record.entry {
            Entry::Prepared { .. } => {
                self.prepared.insert(id);
            }
            Entry::Finished { decision, retained } => {
                // In one phase the record is the vote as well.
                if *retained && self.group.participants.len() == 1 {
                    self.prepared.insert(id);
                }
                self.apply(id, *decision);
            }
            Entry::Committing { merged: true, .. } => {
                self.prepared.insert(id);
                self.apply(id, Decision::Commit);
            }
            _ => {}
        }
    }

    fn apply(&mut self, id: NodeId, decision: Decision) {
        if self.applied.insert(id, decision).is_some_and(|done| done != decision) {
            self.fault = Some("an outcome changed");
        }
        self.check_commit(decision);
    }

    /// Validity: nobody commits unless all could.
    fn check_commit(&mut self, decision: Decision) {
        let all = self.group.participants.iter().all(|id| self.prepared.contains(id));
        if decision == Decision::Commit && !all {
            self.fault = Some("a commit that not all have voted for");
        }
    }

    /// Agreement.
    pub fn agrees(&self) -> bool {
        let mut outcomes = self.applied.values().chain(&self.outcome);
        let first = outcomes.next();
        outcomes.all(|outcome| Some(outcome) == first)
    }

    pub fn acts(&self, synchronous: bool) -> Vec<Act> {
        let mut acts = Vec::new();
        for message in &self.network {
            if self.nodes[&message.to].site.is_some() {
                acts.push(Act::Deliver(message.clone()));
            }
            if self.ghost.is_some() && message.to == COORDINATOR {
                acts.push(Act::Haunt(message.clone()));
            }
        }
        for (&id, node) in &self.nodes {
            if node.site.is_some() && !node.pending.is_empty() {
                acts.push(Act::Persist(id));
            }
        }
        let quiet = acts.is_empty();
        for (&id, node) in &self.nodes {
            if node.site.is_none() {
                acts.push(Act::Return(id));
                continue;
            }
            // Only silence that means something wakes anybody, if the network is synchronous.
            if !synchronous || quiet {
                acts.extend(node.timers.iter().map(|&(key, timer)| Act::Fire(id, key, timer)));
            }
            if self.crashes_left > 0 {
                acts.extend((0..=node.pending.len()).map(|count| Act::Crash(id, count)));
            }
        }
        acts
    }

    /// `keep`: whether a delivered message may come again.
    pub fn act(&mut self, act: &Act, keep: bool) {
        match act {
            Act::Deliver(message) => {
                if !keep {
                    self.network.remove(message);
                }
                let id = message.to;
                if let Some(site) = &mut self.node(id).site {
                    let actions = site.receive(0, message.clone());
                    self.carry_out(id, actions);
                }
            }
            Act::Haunt(message) => {
                if !keep {
                    self.network.remove(message);
                }
                if let Some(ghost) = &mut self.ghost {
                    let mut actions = ghost.receive(0, message.clone());
                    let has_written = |(_, effect): &(Key, Effect)| matches!(effect, Effect::Persist { .. });
                    assert!(!actions.iter().any(has_written), "it has no disk");
                    actions.retain(|(_, effect)| matches!(effect, Effect::Send(_) | Effect::Outcome(_)));
                    self.carry_out(COORDINATOR, actions);
                }
            }
            Act::Persist(id) => {
                if let Some((key, token)) = self.make_durable(*id) {
                    self.input(*id, key, Input::Persisted(token));
                }
            }
            Act::Fire(id, key, timer) => {
                self.node(*id).timers.remove(&(*key, *timer));
                self.input(*id, *key, Input::Timer(*timer));
            }
            Act::Crash(id, count) => {
                self.crashes_left = self.crashes_left.saturating_sub(1);
                for _ in 0..*count {
                    self.make_durable(*id);
                }
                let node = self.node(*id);
                node.site = None;
                node.pending.clear();
                node.timers.clear();
                if self.is_participant(*id) && !self.applied.contains_key(id) {
                    let kept = self.nodes[id].durable.get(TXN, Role::Participant).is_some();
                    let read_only = self.wills[id] == Will::Reads && self.prepared.contains(id);
                    if !kept && !read_only {
                        // What it had not written down is gone: the branch is rolled back.
                        self.apply(*id, Decision::Abort);
                    }
                }
            }
            Act::Return(id) => {
                let epoch = self.nodes[id].epoch + 1;
                let context = self.context(*id, epoch);
                let node = self.node(*id);
                node.epoch = epoch;
                let (site, actions) = Site::recover(context, &node.durable, 0);
                node.site = Some(site);
                self.carry_out(*id, actions);
            }
        }
    }

    /// The coordinator is thought dead, and goes on beside its next incarnation.
    pub fn supersede(&mut self) {
        let node = self.node(COORDINATOR);
        let ghost = node.site.take();
        node.pending.clear();
        node.timers.clear();
        self.ghost = ghost;
        self.act(&Act::Return(COORDINATOR), false);
    }

    fn make_durable(&mut self, id: NodeId) -> Option<(Key, Token)> {
        let node = self.node(id);
        let (key, token, record, forced) = node.pending.pop_front()?;
        node.durable.apply(&record);
        if forced {
            self.seen(id, &record);
        }
        Some((key, token))
    }

    /// Nodes return, messages flow, and nobody crashes any more: everything must come to its end.
    pub fn heal(&mut self, dead: &[NodeId]) -> Result<(), String> {
        self.crashes_left = 0;
        self.cut.clear();
        self.network.clear();
        for _ in 0..200 {
            let mut acts = self.acts(true);
            acts.retain(|act| !matches!(act, Act::Return(id) if dead.contains(id)));
            let lost: Vec<Message> =
                self.network.iter().filter(|message| dead.contains(&message.to)).cloned().collect();
            lost.iter().for_each(|message| {
                self.network.remove(message);
            });
            let timers = acts.iter().all(|act| matches!(act, Act::Fire(..)));
            if let Some(act) = acts.iter().find(|act| !matches!(act, Act::Fire(..))) {
                self.act(act, false);
                self.settle();
            } else if timers && !acts.is_empty() {
                for act in &acts {
                    self.act(act, false);
                }
                self.settle();
            } else {
                break;
            }
            if self.is_over(dead) {
                break;
            }
        }
        if let Some(fault) = self.fault {
            return Err(fault.to_owned());
        }
        if !self.agrees() {
            return Err(format!("a mixed outcome: {:?}, client {:?}", self.applied, self.outcome));
        }
        if self.is_over(dead) { Ok(()) } else { Err(format!("not finished: {self:#?}")) }
    }

    /// Delivers and persists until nothing moves.
    fn settle(&mut self) {
        for _ in 0..2000 {
            let act =
                self.acts(true).into_iter().find(|act| matches!(act, Act::Deliver(_) | Act::Persist(_)));
            match act {
                Some(act) => self.act(&act, false),
                None => return,
            }
        }
        self.fault = Some("messages without end");
    }

    /// Nothing is going on, and nothing is kept, but for what concerns the dead.
    pub fn is_over(&self, dead: &[NodeId]) -> bool {
        let alive = || self.nodes.iter().filter(|(id, _)| !dead.contains(id));
        if dead.is_empty() {
            return alive().all(|(_, node)| {
                node.pending.is_empty()
                    && node.durable.iter().next().is_none()
                    && node.site.as_ref().is_some_and(Site::is_idle)
            });
        }
        let participants = alive().filter(|(id, _)| self.is_participant(**id));
        participants.into_iter().all(|(id, _)| self.applied.contains_key(id))
    }

    /// A run without any mishap.
    pub fn run(&mut self) {
        self.settle();
    }
}
