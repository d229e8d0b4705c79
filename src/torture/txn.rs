//! Atomic commit under torture: whole systems. Every node is a process of its own, with a real store on a simulated disk, its
//! host, and a network between them that delays, loses, repeats and reorders, and is cut one way or both. Nodes lose power
//! at any call to their disk, and may fail again while they recover; and some that were thought dead go on beside the process
//! that has taken their place (`ghosts`). Clients at any node begin transactions over several.
//!
//! At all times a store shows a transaction whole or not at all. Once nodes are back and messages flow, every transaction
//! ends, in all of its stores or in none, as its client was told; nothing is in doubt, no lock is left, no record is kept; and
//! another power cut of all nodes then changes nothing.

use super::SeedReport;
use ghosts::{Ghosts, answers_for_successor};
use model::{Begun, Model, marks};
use node::{Mistake, Node, Up};
use seawall_engine::mutation::Mutation as EngineMutation;
use seawall_engine::{Error, Readable};
use seawall_txn::mutation::{Mutation, Unsynced};
use seawall_txn::{Decision, Group, KEYSPACE, Message, NodeId, Notice, Participant, Plan, Protocol, TxnId};
use seawall_wal::disk::sim::{CrashStyle, Fault, Op};
use seawall_wal::runtime::{Rng, SimRuntime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod ghosts;
mod model;
mod node;

/// What is wrong, in words.
type Violation = String;

/// Steps after which a healed system must have come to rest.
const ROUNDS_MAX: u32 = 3000;

/// For so long earlier incarnations go on when everything else has come to rest.
const GHOST_ROUNDS: u32 = 12;

/// Machines' mistakes that this simulation finds as well; the others' models are in `txn/tests`.
const MACHINES: [(&str, Mutation); 7] = [
    ("vote-early", Mutation::VoteEarly),
    ("decide-early", Mutation::DecideEarly),
    ("forget-early", Mutation::ForgetEarly),
    ("abort-prepared", Mutation::AbortPrepared),
    ("decide-by-few", Mutation::DecideByFew),
    ("ignore-epoch", Mutation::IgnoreFence),
    ("answer-for-successor", Mutation::AnswerForSuccessor),
];
const PREPARE_UNSYNCED: &str = "prepare-unsynced";

/// The names of the deliberate mistakes that this layer can make.
pub fn mutations() -> Vec<&'static str> {
    let unsynced = Unsynced::ALL.into_iter().map(Unsynced::name);
    unsynced.chain([PREPARE_UNSYNCED]).chain(MACHINES.into_iter().map(|(name, _)| name)).collect()
}

fn mistake(name: Option<&str>) -> Mistake {
    Mistake {
        engine: (name == Some(PREPARE_UNSYNCED)).then_some(EngineMutation::PrepareUnsynced),
        unsynced: Unsynced::ALL.into_iter().find(|unsynced| Some(unsynced.name()) == name),
        machine: MACHINES.into_iter().find(|(known, _)| Some(*known) == name).map(|(_, machine)| machine),
    }
}

/// What must have been met when many seeds were run.
pub fn required() -> Vec<String> {
    [
        "two-phase",
        "two-phase, merged",
        "paxos commit",
        "one participant",
        "read-only branch",
        "committed",
        "aborted",
        "told",
        "unknown to its client",
        "refused",
        "message delivered",
        "message lost",
        "message repeated",
        "message overtook another",
        "link cut",
        "link healed",
        "crash",
        "crash within a call",
        "crash while recovering",
        "killed",
        "store failed",
        "node restarted",
        "in doubt after a crash",
        "decision found after a crash",
        "votes found after a crash",
        "checkpoint",
        "checkpoint with something prepared",
        "in the way of a prepared one",
        "order from before a crash refused",
        "earlier incarnation goes on",
        "earlier incarnation heard again",
        "earlier incarnation begins a transaction",
        "earlier incarnation told that it is over",
        "earlier incarnation's disk has failed it",
        "order of an earlier incarnation refused",
    ]
    .iter()
    .map(|name| format!("txn: {name}"))
    .collect()
}

struct World {
    rng: Rng,
    runtime: Arc<SimRuntime>,
    nodes: BTreeMap<NodeId, Node>,
    network: Vec<Message>,
    cut: BTreeSet<(NodeId, NodeId)>,
    ghosts: Ghosts,
    now: u64,
    protocol: Protocol,
    acceptors: Vec<NodeId>,
    model: Model,
    report: SeedReport,
    hash: u64,
    /// In percent: how much goes wrong.
    loss: u64,
    repeats: u64,
}

/// Runs one seed.
///
/// # Errors
/// What was found, in words.
pub fn run(seed: u64, mutation: Option<&str>) -> Result<SeedReport, String> {
    let mut rng = Rng::new(seed ^ 0x7478_6e00);
    let runtime = SimRuntime::new(rng.next_u64());
    let mistake = mistake(mutation);
    let count = 2 + rng.below(3);
    let mut nodes: BTreeMap<NodeId, Node> = BTreeMap::new();
    for id in 1..=count {
        nodes.insert(NodeId(id), Node::new(id, rng.next_u64(), &runtime, mistake));
    }
    let protocol = if rng.chance(1, 2) { Protocol::PaxosCommit } else { Protocol::TwoPhase };
    let acceptors = if count >= 3 && rng.chance(3, 4) { 3 } else { 1 };
    let mut world = World {
        acceptors: nodes.keys().copied().take(acceptors).collect(),
        rng,
        runtime,
        nodes,
        network: Vec::new(),
        cut: BTreeSet::new(),
        ghosts: Ghosts::new(seed),
        now: 0,
        protocol,
        model: Model::default(),
        report: SeedReport::default(),
        hash: 0,
        loss: 0,
        repeats: 0,
    };
    let outcome = world.history();
    outcome.map_err(|what| world.report.failure(&what))?;
    for node in world.nodes.values() {
        world.hash = world.hash.rotate_left(7) ^ node.disk.trace_hash();
        for (name, n) in node.disk.counts() {
            world.report.add(format!("disk: {name}"), n);
        }
    }
    world.report.trace_hash = world.hash ^ world.runtime.trace_hash().rotate_left(1);
    Ok(world.report)
}

impl World {
    fn history(&mut self) -> Result<(), Violation> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.restart(id)?;
        }
        (self.loss, self.repeats) = (self.rng.below(25), self.rng.below(25));
        for _ in 0..60 + self.rng.below(160) {
            self.step()?;
            self.crash_the_powerless();
        }
        self.heal()?;
        let (committed, aborted) = self.model.settled(&self.nodes)?;
        self.report.add("txn: committed", committed);
        self.report.add("txn: aborted", aborted);
        self.check_nothing_left()?;
        // What is settled is durable, everywhere, without anybody's help.
        for node in self.nodes.values_mut() {
            node.disk.set_crash_style(Some(CrashStyle::KeepNone));
            node.crash();
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.restart(id)?;
        }
        self.model.settled(&self.nodes)?;
        self.check_nothing_left()
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.haunt()?;
        match self.rng.below(100) {
            0..=11 => self.begin(),
            12..=56 => self.deliver(),
            57..=76 => {
                let id = self.any_node();
                self.sync(id)
            }
            77..=86 => self.pass_time(),
            87..=88 => {
                let id = self.any_node();
                self.fail(id)
            }
            89..=92 => {
                let id = self.any_node();
                self.restart(id)
            }
            93..=95 => {
                self.change_links();
                Ok(())
            }
            96..=97 => {
                let id = self.any_node();
                self.checkpoint(id)
            }
            _ => {
                let id = self.any_node();
                let Some(node) = self.nodes.get(&id) else { return Ok(()) };
                self.model.look(node)
            }
        }
    }

    fn any_node(&mut self) -> NodeId {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        self.nodes.keys().nth(at).copied().unwrap_or_default()
    }

    fn hit(&mut self, name: &str) {
        self.report.hit(format!("txn: {name}"));
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if super::is_tracing() {
            let now = self.now;
            self.report.trace.push(format!("{now:>9} {}", what()));
        }
    }

    fn note(&mut self, what: u64) {
        self.hash = (self.hash ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(11);
    }

    /// A client at some node begins a transaction over some, and commits it.
    fn begin(&mut self) -> Result<(), Violation> {
        if self.model.begun.len() >= 12 {
            return Ok(());
        }
        let at = self.any_node();
        let mut participants: Vec<NodeId> =
            self.nodes.keys().copied().filter(|_| self.rng.chance(2, 3)).collect();
        if participants.is_empty() {
            participants.push(at);
        }
        let all_up = participants
            .iter()
            .chain([&at])
            .all(|id| self.nodes.get(id).is_some_and(|node| node.up.is_some()));
        if !all_up {
            return Ok(());
        }
        let number = self.model.begun.len() as u64;
        let as_ghost = self.is_asked_as_ghost(at);
        if as_ghost {
            // Its own store is out of its reach.
            participants.retain(|id| *id != at);
            if participants.is_empty() {
                return Ok(());
            }
            self.hit("earlier incarnation begins a transaction");
        }
        let Some(up) = self.up_at(at, as_ghost) else { return Ok(()) };
        up.sequence += 1;
        let txn = TxnId { coordinator: at, epoch: up.epoch, sequence: up.sequence };
        let mut writes = Vec::new();
        for &id in &participants {
            let is_reader = participants.len() > 1 && self.rng.chance(1, 6);
            let hot = format!("hot/{}", self.rng.below(3));
            let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) else { continue };
            let mut branch = up.db.begin();
            if branch.get(&up.rows, &hot).is_err() {
                continue;
            }
            if is_reader {
                self.report.hit("txn: read-only branch");
            } else {
                let [a, b] = marks(number);
                let written = branch
                    .insert(&up.rows, a, "1")
                    .and_then(|()| branch.insert(&up.rows, &hot, number.to_string()))
                    .and_then(|()| branch.insert(&up.rows, b, "1"));
                if written.is_err() {
                    continue;
                }
                writes.push(id);
            }
            up.store.join(txn, branch);
            // Another program's begin would come by a message of its own, which is not lost here.
            if up.host.join(self.now, id, txn).is_err() {
                // Its store has just failed.
                writes.retain(|other| *other != id);
                up.store.abandon(txn);
            }
        }
        self.model.begun.insert(txn, Begun { number, writes, told: None, shown: false });
        let merged = self.protocol == Protocol::TwoPhase
            && participants.len() > 1
            && participants.contains(&at)
            && self.rng.chance(1, 2);
        let name = match (participants.len(), self.protocol, merged) {
            (1, ..) => "one participant",
            (_, _, true) => "two-phase, merged",
            (_, Protocol::PaxosCommit, _) => "paxos commit",
            _ => "two-phase",
        };
        self.hit(name);
        let acceptors =
            if self.protocol == Protocol::PaxosCommit { self.acceptors.clone() } else { Vec::new() };
        self.say(|| format!("{txn} begins at {at}, number {number}, over {participants:?}, {name}"));
        let plan =
            Plan { protocol: self.protocol, group: Arc::new(Group { participants, acceptors }), merged };
        let now = self.now;
        if let Some(up) = self.up_at(at, as_ghost) {
            // If its store has just failed nobody is told anything.
            let _ = up.host.start(now, txn, plan);
        }
        self.collect()
    }

    fn up_at(&mut self, id: NodeId, as_ghost: bool) -> Option<&mut Up> {
        match as_ghost {
            true => self.ghosts.all.get_mut(&id).map(|ghost| &mut ghost.up),
            false => self.nodes.get_mut(&id)?.up.as_mut(),
        }
    }

    /// Some message arrives, or is lost, or arrives and is still on its way.
    fn deliver(&mut self) -> Result<(), Violation> {
        if self.network.is_empty() {
            return self.pass_time();
        }
        let at = self.rng.below(self.network.len() as u64) as usize;
        let Some(message) = self.network.get(at).cloned() else { return Ok(()) };
        if self.rng.below(100) < self.repeats {
            self.hit("message repeated");
        } else {
            self.network.remove(at);
        }
        if self.cut.contains(&(message.from, message.to)) || self.rng.below(100) < self.loss {
            self.hit("message lost");
            return Ok(());
        }
        if at > 0 {
            self.hit("message overtook another");
        }
        self.arrive(message)
    }

    fn arrive(&mut self, message: Message) -> Result<(), Violation> {
        self.hit("message delivered");
        self.now += 50;
        self.say(|| format!("{} -> {}: {} {:?}", message.from, message.to, message.txn, message.body));
        self.note(message.to.0 ^ message.txn.sequence << 8 ^ self.now << 16);
        self.hand_over(message)?;
        self.collect()
    }

    /// A node's log comes to the device: what was handed over is answered.
    fn sync(&mut self, id: NodeId) -> Result<(), Violation> {
        self.now += 100;
        if let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) {
            let done = up.db.sync();
            self.say(|| format!("{id} syncs: {:?}", done.is_ok()));
        }
        if let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) {
            up.host.tick(self.now);
        }
        self.collect()
    }

    fn pass_time(&mut self) -> Result<(), Violation> {
        let ghosts = self.ghosts.all.values().map(|ghost| &ghost.up);
        let all = self.nodes.values().filter_map(|node| node.up.as_ref()).chain(ghosts);
        if let Some(due) = all.map(|up| up.host.next_due()).min() {
            self.now = self.now.max(due.min(self.now + 1_000_000));
        }
        let ghosts = self.ghosts.all.values_mut().map(|ghost| &mut ghost.up);
        for up in self.nodes.values_mut().filter_map(|node| node.up.as_mut()).chain(ghosts) {
            if up.host.next_due() <= self.now {
                up.host.tick(self.now);
            }
        }
        self.collect()
    }

    /// What hosts have for the network, and for clients.
    fn collect(&mut self) -> Result<(), Violation> {
        let mut counts = Vec::new();
        let mut said = Vec::new();
        for (&id, node) in &mut self.nodes {
            let Some(up) = node.up.as_mut() else { continue };
            self.network.extend(up.host.take_outgoing());
            said.extend(up.host.take_notices().into_iter().map(|notice| (id, false, notice)));
        }
        for (&id, ghost) in &mut self.ghosts.all {
            let messages = ghost.up.host.take_outgoing();
            if let Some(message) = messages.iter().find(|message| answers_for_successor(message)) {
                let (epoch, txn, body) = (message.epoch, message.txn, &message.body);
                return Err(format!("{id}'s incarnation {epoch} answers for {txn}: {body:?}"));
            }
            if !ghost.is_cut {
                self.network.extend(messages.into_iter().filter(|message| message.txn.coordinator == id));
            }
            said.extend(ghost.up.host.take_notices().into_iter().map(|notice| (id, true, notice)));
        }
        let mut down = Vec::new();
        for (id, is_ghost, notice) in said {
            match notice {
                Notice::Outcome { txn, decision, cause } => {
                    counts.push("told");
                    if cause.is_some() {
                        counts.push("refused");
                    }
                    if cause.is_some_and(|cause| {
                        matches!(cause, seawall_txn::Error::Engine(Error::PreparedConflict { .. }))
                    }) {
                        counts.push("in the way of a prepared one");
                    }
                    self.say(|| format!("client of {txn}: {decision:?}"));
                    if is_ghost && decision == Decision::Abort {
                        // Only what it presumes, and no store's: others may have forgotten all of it by now.
                        counts.push("client of an earlier incarnation told abort");
                        continue;
                    }
                    self.model.told(txn, decision)?;
                }
                Notice::Unknown { .. } => counts.push("unknown to its client"),
                Notice::Down { .. } | Notice::Fenced { .. } if is_ghost => {
                    let is_fenced = matches!(notice, Notice::Fenced { .. });
                    counts.push(match is_fenced {
                        true => "earlier incarnation told that it is over",
                        false => "earlier incarnation's disk has failed it",
                    });
                    self.say(|| format!("{id}: its earlier incarnation ends"));
                    self.ghosts.all.remove(&id);
                }
                Notice::Down { .. } => down.push(id),
                Notice::Damage { txn, participant, .. } => {
                    return Err(format!("{txn}: damage at {participant}, and no person did it"));
                }
                Notice::Violation { node, txn, what } => return Err(format!("{txn} at {node}: {what}")),
                Notice::Fenced { node, .. } => return Err(format!("{node} is fenced, and is the latest")),
                _ => {}
            }
        }
        counts.into_iter().for_each(|name| self.hit(name));
        for id in down {
            self.hit("store failed");
            self.say(|| format!("{id}: its store has failed"));
            if let Some(node) = self.nodes.get_mut(&id) {
                if node.disk.has_power() { node.kill() } else { node.crash() }
            }
        }
        Ok(())
    }

    /// Something happens to a node.
    fn fail(&mut self, id: NodeId) -> Result<(), Violation> {
        let kind = self.rng.below(10);
        let at = 1 + self.rng.below(12);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        match kind {
            0..=3 => {
                node.crash();
                self.hit("crash");
            }
            4 => {
                node.kill();
                self.hit("killed");
            }
            5..=7 => node.disk.fail(Fault::power_cut().at_call(at)),
            8 => node.disk.fail(Fault::eio(Op::WriteDurable).at_call(1 + at / 4).once()),
            _ => node.disk.fail(Fault::dropped_sync().at_call(1 + at / 4).once()),
        }
        self.say(|| format!("{id}: failure of kind {kind}, at call {at}"));
        Ok(())
    }

    fn crash_the_powerless(&mut self) {
        let mut crashed = Vec::new();
        for (&id, node) in &mut self.nodes {
            if !node.disk.has_power() {
                node.crash();
                crashed.push(id);
            }
        }
        for id in crashed {
            self.hit("crash within a call");
            self.say(|| format!("{id}: its power has failed"));
        }
    }

    fn restart(&mut self, id: NodeId) -> Result<(), Violation> {
        let fails_again = self.rng.chance(1, 8);
        let at = 1 + self.rng.below(40);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up.is_none()) else { return Ok(()) };
        let was_there = node.disk.calls() > 0 || !node.disk.paths().is_empty();
        if fails_again && was_there && self.loss > 0 {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        if !node.start(self.now)? {
            self.hit("crash while recovering");
            return Ok(());
        }
        self.ghosts.starts(id);
        if let Some(up) = node.up.as_ref() {
            let (in_doubt, records) = (up.db.prepared().count() as u64, records(up));
            self.report.add("txn: in doubt after a crash", in_doubt);
            for (role, n) in records {
                let name = [
                    "",
                    "decision found after a crash",
                    "outcome found after a crash",
                    "votes found after a crash",
                ];
                let name = name.get(usize::from(role)).copied().unwrap_or_default();
                self.report.add(format!("txn: {name}"), n);
            }
        }
        self.hit("node restarted");
        self.say(|| format!("{id} starts"));
        if let Some(node) = self.nodes.get(&id) {
            self.model.look(node)?;
        }
        self.collect()
    }

    fn change_links(&mut self) {
        if self.rng.chance(1, 2) && !self.cut.is_empty() {
            self.cut.clear();
            self.hit("link healed");
            return;
        }
        let (a, b) = (self.any_node(), self.any_node());
        if a == b {
            return;
        }
        self.cut.insert((a, b));
        if self.rng.chance(1, 2) {
            self.cut.insert((b, a));
        }
        self.hit("link cut");
        self.say(|| format!("{a} -> {b} is cut"));
    }

    fn checkpoint(&mut self, id: NodeId) -> Result<(), Violation> {
        if let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) {
            let has_prepared = up.db.stats().prepared > 0;
            if up.db.checkpoint().is_ok() {
                self.hit("checkpoint");
                if has_prepared {
                    self.hit("checkpoint with something prepared");
                }
            }
        }
        if let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) {
            up.host.tick(self.now);
        }
        self.collect()
    }

    /// No more faults: everyone is back, and messages flow, until nothing is left to be done.
    fn heal(&mut self) -> Result<(), Violation> {
        self.say(|| "healed".to_owned());
        (self.loss, self.repeats) = (0, 0);
        self.cut.clear();
        self.let_ghosts_be_heard();
        let mut patience = GHOST_ROUNDS;
        for _ in 0..ROUNDS_MAX {
            for node in self.nodes.values_mut() {
                node.disk.clear_faults();
                // A store that refuses writes is opened again, by whoever sees that.
                if node.up.as_ref().is_some_and(|up| up.db.stats().poisoned.is_some())
                    && node.disk.has_power()
                {
                    node.kill();
                }
            }
            self.crash_the_powerless();
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for &id in &ids {
                self.restart(id)?;
            }
            for message in std::mem::take(&mut self.network) {
                self.arrive(message)?;
            }
            for &id in &ids {
                self.sync(id)?;
            }
            let rests = |node: &Node| node.up.as_ref().is_some_and(|up| up.host.is_idle());
            if self.network.is_empty() && self.nodes.values().all(rests) {
                if self.ghosts.all.is_empty() || patience == 0 {
                    self.ghosts.all.clear();
                    return Ok(());
                }
                patience -= 1;
            }
            if self.network.is_empty() {
                self.pass_time()?;
            }
        }
        Err("it does not come to rest".to_owned())
    }

    /// No branch, no lock, no record.
    fn check_nothing_left(&mut self) -> Result<(), Violation> {
        for node in self.nodes.values() {
            let Some(up) = &node.up else { continue };
            if let Some(prepared) = up.db.prepared().next() {
                return Err(format!("{}: {} is still prepared", node.id, prepared.xid()));
            }
            if let Some((role, n)) = records(up).into_iter().next() {
                return Err(format!("{}: {n} records of role {role} are still kept", node.id));
            }
            for hot in 0..3 {
                let mut branch = up.db.begin();
                branch.insert(&up.rows, format!("hot/{hot}"), "free").map_err(|error| error.to_string())?;
                branch.commit().map_err(|error| format!("{}: a lock is left: {error}", node.id))?;
            }
        }
        Ok(())
    }
}

/// How many records a node keeps of transactions, by role. (What it keeps of other nodes' incarnations, under epoch 0, stays.)
fn records(up: &Up) -> BTreeMap<u8, u64> {
    let mut found = BTreeMap::new();
    let Ok(Some(rows)) = up.db.open_keyspace(KEYSPACE) else { return found };
    let is_of_node = |key: &[u8]| key.get(10..18).is_some_and(|epoch| epoch == [0; 8]);
    for (key, _) in rows.prefix("r").flatten().filter(|(key, _)| !is_of_node(key)) {
        *found.entry(key.get(1).copied().unwrap_or_default()).or_default() += 1;
    }
    found
}
