//! Log shipping under torture: whole systems. Every node is a process of its own, with a real store on a simulated disk, the
//! production machines that ship its log or follow another's, and a network between them that delays, loses, repeats and
//! reorders, and is cut one way or both. Nodes lose power at any call to their disk. A client commits at the primary, most
//! of the time so that replicas must have it; some follow a replica, not the primary. An operator promotes another node when
//! the primary is gone, or cut off and still at work: the others promise first, the most advanced of them takes over, and
//! what was the primary comes back, rewound.
//!
//! At all times a store shows the first so many commits of the log, each whole; a replica's files are its primary's, byte for
//! byte, as far as they go; no commit that was acknowledged with replicas behind it is lost, and nothing that anybody was
//! shown of those is taken back. Once nodes are back and messages flow, all show the same.

use super::SeedReport;
use model::{Commit, Model, marks};
use node::{Mistake, Node, SEGMENT_BYTES, STORE};
use seawall_engine::mutation::Mutation as EngineMutation;
use seawall_engine::{Ack, KeyspaceOptions, Lsn, TxOptions, Vote, Xid};
use seawall_replication::ack::{Member, Policy};
use seawall_replication::message::Message;
use seawall_replication::mutation::Mutation;
use seawall_replication::ship::{primary, replica};
use seawall_wal::disk::sim::{CrashStyle, Fault, Op};
use seawall_wal::mutation::Mutation as WalMutation;
use seawall_wal::runtime::{Rng, SimRuntime};
use seawall_wal::{Wal, segment};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod model;
mod network;
mod node;
mod operator;

/// What is wrong, in words.
type Violation = String;

/// Steps after which a healed system must have come to rest.
const ROUNDS_MAX: u32 = 600;

/// Machines' mistakes that this simulation finds as well; the others' model is in `replication/tests`.
const MACHINES: [(&str, Mutation); 1] = [("ack-unsynced", Mutation::AckUnsynced)];
const LOGS: [(&str, WalMutation); 2] = [
    ("acknowledge-received", WalMutation::AcknowledgeReceived),
    ("judge-by-primary", WalMutation::JudgeByPrimary),
];
const ENGINES: [(&str, EngineMutation); 1] = [("show-unreached", EngineMutation::ShowUnreached)];

/// The names of the deliberate mistakes that this layer can make.
pub fn mutations() -> Vec<&'static str> {
    let machines = MACHINES.into_iter().map(|(name, _)| name);
    machines
        .chain(LOGS.into_iter().map(|(name, _)| name))
        .chain(ENGINES.into_iter().map(|(name, _)| name))
        .collect()
}

fn mistake(name: Option<&str>) -> Mistake {
    Mistake {
        machine: MACHINES.into_iter().find(|(known, _)| Some(*known) == name).map(|(_, it)| it),
        log: LOGS.into_iter().find(|(known, _)| Some(*known) == name).map(|(_, it)| it),
        engine: ENGINES.into_iter().find(|(known, _)| Some(*known) == name).map(|(_, it)| it),
    }
}

/// What must have been met when many seeds were run.
pub fn required() -> Vec<String> {
    [
        "acknowledged",
        "commit that asks for no replica",
        "commit lost by a promotion",
        "message delivered",
        "message lost",
        "message repeated",
        "message overtook another",
        "connection lost",
        "link cut",
        "link healed",
        "crash",
        "crash within a call",
        "crash while recovering",
        "killed",
        "node restarted",
        "checkpoint of a primary",
        "checkpoint of a replica",
        "promotion",
        "promotion beside a primary at work",
        "promotion cut short",
        "primary fenced",
        "rewound",
        "rewinding cut short",
        "new image",
        "log gone",
        "followed a replica",
        "prepared",
        "prepared, and promoted over",
        "looked at a replica",
    ]
    .iter()
    .map(|name| format!("replication: {name}"))
    .collect()
}

struct Connection {
    replica: u64,
    upstream: u64,
}

struct World {
    rng: Rng,
    runtime: Arc<SimRuntime>,
    nodes: BTreeMap<u64, Node>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    network: Vec<(u64, bool, Message)>,
    cut: BTreeSet<(u64, u64)>,
    /// Who is the primary, by the operator's word.
    primary: u64,
    /// Nodes that were a primary in an earlier epoch, and have not been rewound.
    deposed: BTreeSet<u64>,
    epoch: u64,
    policy: Policy,
    now: u64,
    model: Model,
    report: SeedReport,
    hash: u64,
    /// In percent: how much goes wrong.
    loss: u64,
    repeats: u64,
    is_healed: bool,
    /// Some have promised, and nobody is promoted yet: the operator goes on with it.
    is_failing_over: bool,
}

/// Runs one seed.
///
/// # Errors
/// What was found, in words.
pub fn run(seed: u64, mutation: Option<&str>) -> Result<SeedReport, String> {
    let mut rng = Rng::new(seed ^ 0x7265_706c);
    let runtime = SimRuntime::new(rng.next_u64());
    let mistake = mistake(mutation);
    let count = 3 + rng.below(2);
    let mut nodes = BTreeMap::new();
    for id in 1..=count {
        nodes.insert(id, Node::new(id, rng.next_u64(), &runtime, mistake));
    }
    let policy = Policy::any(1, vec![Member::Any]).map_err(|error| error.to_string())?;
    let mut world = World {
        rng,
        runtime,
        nodes,
        connections: BTreeMap::new(),
        next_connection: 1,
        network: Vec::new(),
        cut: BTreeSet::new(),
        primary: 1,
        deposed: BTreeSet::new(),
        epoch: 0,
        policy,
        now: 0,
        model: Model::default(),
        report: SeedReport::default(),
        hash: 0,
        loss: 0,
        repeats: 0,
        is_healed: false,
        is_failing_over: false,
    };
    let outcome = world.begin().and_then(|()| world.history());
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
    /// The first store, and copies of it.
    fn begin(&mut self) -> Result<(), Violation> {
        let wrong = |error: seawall_engine::Error| error.to_string();
        let Some(first) = self.nodes.get_mut(&1) else { return Ok(()) };
        first.is_replica = false;
        let db = first.builder().log_mutation(None).mutation(None).open().map_err(wrong)?;
        db.keyspace_with("rows", KeyspaceOptions::default()).map_err(wrong)?;
        db.checkpoint().map_err(wrong)?;
        let (log, at) = (db.shipping().wal().clone(), db.stats().checkpoint_lsn);
        db.sync().map_err(wrong)?;
        let data = first.disk.read_file(format!("{STORE}/data")).ok_or("no data file")?;
        for node in self.nodes.values().filter(|node| node.id != 1) {
            node.clone_of(&data, &log, at)?;
        }
        drop(log);
        db.close().map_err(wrong)?;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.restart(id)?;
        }
        Ok(())
    }

    fn history(&mut self) -> Result<(), Violation> {
        (self.loss, self.repeats) = (self.rng.below(15), self.rng.below(15));
        for _ in 0..120 + self.rng.below(260) {
            self.step()?;
            self.crash_the_powerless()?;
        }
        self.heal()?;
        self.check_all_same()?;
        for node in self.nodes.values_mut() {
            node.disk.set_crash_style(Some(CrashStyle::KeepNone));
            node.crash();
        }
        self.drop_connections_of_the_down()?;
        self.heal()?;
        self.check_all_same()
    }

    fn step(&mut self) -> Result<(), Violation> {
        match self.rng.below(100) {
            0..=13 => self.write(),
            14..=55 => self.deliver(),
            56..=69 => {
                let id = self.any_node();
                self.work(id)
            }
            70..=80 => self.pass_time(),
            81..=83 => {
                let id = self.any_node();
                self.fail(id)
            }
            84..=88 => {
                let id = self.any_node();
                self.restart(id)
            }
            89..=90 => self.change_links(),
            91..=92 => {
                let id = self.any_node();
                self.checkpoint(id)
            }
            93..=94 => self.fail_over(),
            95..=96 => self.rejoin(),
            _ => {
                let id = self.any_node();
                self.look(id)
            }
        }
    }

    fn any_node(&mut self) -> u64 {
        1 + self.rng.below(self.nodes.len() as u64)
    }

    fn hit(&mut self, name: &str) {
        self.report.hit(format!("replication: {name}"));
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

    /// A client commits at the primary, or prepares, or ends what was prepared.
    fn write(&mut self) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&self.primary) else { return Ok(()) };
        let (Some(rows), Some(up)) = (node.keyspace(), node.up.as_ref()) else { return Ok(()) };
        let is_replicated = self.rng.chance(9, 10);
        let ack = Some(if is_replicated { Ack::Durable } else { Ack::Local });
        let kind = self.rng.below(12);
        if kind == 0 && self.model.prepared.len() < 3 {
            return self.prepare();
        }
        if kind == 1 && !self.model.prepared.is_empty() {
            return self.end_prepared();
        }
        let number = self.model.next;
        let [a, z] = marks(number);
        let big = if self.rng.chance(1, 12) { 40_000 } else { 10 + self.rng.below(800) as usize };
        let value = vec![number as u8; big];
        let mut tx = up.db.begin_with(TxOptions { ack, ..TxOptions::default() });
        let written = tx
            .insert(&rows, a, &value)
            .and_then(|()| tx.add_i64(&rows, "count", 1))
            .and_then(|()| tx.insert(&rows, z, "1"));
        // What is refused has not happened.
        let ticket = match written.and_then(|()| tx.commit_pipelined()) {
            Ok(ticket) => ticket,
            Err(_) => return Ok(()),
        };
        self.model.next += 1;
        let lsn = ticket.lsn();
        self.say(|| format!("commit {number} at {lsn}, {ack:?}"));
        if !is_replicated {
            self.hit("commit that asks for no replica");
        }
        let shown_by = BTreeSet::new();
        let commit = Commit { number, lsn, is_replicated, ticket: Some(ticket), is_acked: false, shown_by };
        self.model.commits.push(commit);
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&self.primary) else { return Ok(()) };
        let (Some(rows), Some(up)) = (node.keyspace(), node.up.as_ref()) else { return Ok(()) };
        let name = self.model.next;
        let mut tx = up.db.begin_with(TxOptions { ack: Some(Ack::Local), ..TxOptions::default() });
        let xid = xid(name)?;
        let voted = tx.insert(&rows, format!("p/{name}"), "held").and_then(|()| tx.prepare(xid));
        self.model.next += 1;
        if let Ok(Vote::Prepared(_)) = voted {
            let below = up.shipping.wal().durable_lsn();
            self.model.prepared.insert(name, below);
            self.hit("prepared");
            self.say(|| format!("prepared {name} below {below}"));
        }
        Ok(())
    }

    fn end_prepared(&mut self) -> Result<(), Violation> {
        let Some((&name, _)) = self.model.prepared.first_key_value() else { return Ok(()) };
        let Some(up) = self.nodes.get(&self.primary).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let Ok(Some(prepared)) = up.db.prepared_by(&xid(name)?) else { return Ok(()) };
        // Whatever comes of it, a later primary may have it as prepared yet.
        let _ = prepared.rollback();
        self.model.prepared.remove(&name);
        self.say(|| format!("rolled back {name}"));
        Ok(())
    }

    /// A node's disk comes to its work.
    fn work(&mut self, id: u64) -> Result<(), Violation> {
        self.now += 50;
        let (now, runtime) = (self.now, Arc::clone(&self.runtime));
        let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) else { return Ok(()) };
        if up.shipping.is_replica() {
            up.work(now)?;
        } else {
            // A failure is met by whoever commits next.
            let _ = up.db.sync();
        }
        if self.rng.chance(1, 3) {
            let _ = up.shipping.wal().step();
        }
        up.read_on(now, &runtime)?;
        self.model.poll();
        self.collect()
    }

    fn pass_time(&mut self) -> Result<(), Violation> {
        self.now += 500 + self.rng.below(20_000);
        let (now, runtime) = (self.now, Arc::clone(&self.runtime));
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) else { continue };
            up.follow(now, replica::Input::Tick)?;
            let links: Vec<u64> = up.links.keys().copied().collect();
            for link in links {
                up.lead(now, link, &runtime, primary::Input::Tick)?;
            }
        }
        self.collect()
    }

    /// Something happens to a node.
    fn fail(&mut self, id: u64) -> Result<(), Violation> {
        let kind = self.rng.below(10);
        let at = 1 + self.rng.below(14);
        self.model.poll();
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
        self.say(|| format!("n{id}: failure of kind {kind}, at call {at}"));
        self.settle_down(id)
    }

    /// What a node that went down leaves behind.
    fn settle_down(&mut self, id: u64) -> Result<(), Violation> {
        let is_down = self.nodes.get(&id).is_some_and(|node| node.up.is_none());
        if is_down && id == self.primary {
            self.model.forget_tickets();
        }
        self.drop_connections_of_the_down()
    }

    fn crash_the_powerless(&mut self) -> Result<(), Violation> {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.disk.has_power()) else { continue };
            node.crash();
            self.hit("crash within a call");
            self.say(|| format!("n{id}: its power has failed"));
            self.settle_down(id)?;
        }
        Ok(())
    }

    fn restart(&mut self, id: u64) -> Result<(), Violation> {
        let fails_again = self.rng.chance(1, 8) && !self.is_healed && self.now > 0;
        let (at, seed) = (1 + self.rng.below(40), self.rng.next_u64());
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up.is_none()) else { return Ok(()) };
        if fails_again {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        let is_deposed = self.deposed.contains(&id);
        let started = match node.start(self.now, &self.policy, seed) {
            // It was being rewound, and will be.
            Err(why) if is_deposed && (why.contains("rewound") || why.contains("a replica's")) => false,
            started => started?,
        };
        if !started {
            self.hit("crash while recovering");
            return Ok(());
        }
        let is_replica = node.is_replica;
        self.hit("node restarted");
        self.say(|| format!("n{id} starts, replica: {is_replica}"));
        if id == self.primary {
            // What it recovered is the log now: commits that it has not are gone.
            self.forget_unrecovered(id)?;
        }
        self.collect()
    }

    /// The primary came back with a shorter log: what nobody was promised may be gone.
    fn forget_unrecovered(&mut self, id: u64) -> Result<(), Violation> {
        let Some(up) = self.nodes.get(&id).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let end = up.shipping.wal().recovery().end;
        let lost = self.model.fork(end)?;
        self.report.add("replication: commit lost by a crash", lost);
        Ok(())
    }

    fn change_links(&mut self) -> Result<(), Violation> {
        if self.rng.chance(1, 2) && !self.cut.is_empty() {
            self.cut.clear();
            self.hit("link healed");
            return Ok(());
        }
        let (a, b) = (self.any_node(), self.any_node());
        if a != b {
            self.cut.insert((a, b));
            if self.rng.chance(1, 2) {
                self.cut.insert((b, a));
            }
            self.hit("link cut");
            self.say(|| format!("n{a} -> n{b} is cut"));
        }
        // Some follow a replica for a while.
        let (node, other) = (self.any_node(), self.any_node());
        let follows = self.rng.chance(1, 3) && node != other && other != self.primary;
        let to = if follows { other } else { self.primary };
        let loops = self.nodes.get(&to).is_some_and(|next| next.is_replica && next.upstream != self.primary);
        if let Some(node) = self.nodes.get_mut(&node).filter(|_| !loops) {
            node.upstream = to;
        }
        Ok(())
    }

    fn checkpoint(&mut self, id: u64) -> Result<(), Violation> {
        let Some(up) = self.nodes.get(&id).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let is_replica = up.shipping.is_replica();
        if up.db.checkpoint().is_ok() {
            self.hit(if is_replica { "checkpoint of a replica" } else { "checkpoint of a primary" });
        }
        self.collect()
    }

    fn look(&mut self, id: u64) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&id).filter(|_| !self.deposed.contains(&id)) else { return Ok(()) };
        let Some(rows) = node.keyspace() else { return Ok(()) };
        self.model.poll();
        self.model.look(node, &rows)?;
        if node.is_replica {
            self.hit("looked at a replica");
            self.check_files(id)?;
        }
        Ok(())
    }

    /// A replica's segments are its primary's, as far as what is durable of them.
    fn check_files(&mut self, id: u64) -> Result<(), Violation> {
        let (Some(primary), Some(node)) = (self.nodes.get(&self.primary), self.nodes.get(&id)) else {
            return Ok(());
        };
        let (Some(of), Some(up)) = (&primary.up, &node.up) else { return Ok(()) };
        let (theirs, ours) = (of.shipping.wal(), up.shipping.wal());
        // A replica that has yet to be told that it has parted is not looked at.
        let (tail, timeline) = (ours.tail(), ours.timeline());
        if theirs.timeline().history.fork(&timeline.history, tail.epoch, tail.place).is_some() {
            return Ok(());
        }
        let from = segment_of(ours.first_lsn().max(theirs.first_lsn()));
        let end = ours.durable_lsn();
        for number in from..=segment_of(end) {
            let path = format!("{STORE}/log/{}", segment::file_name(number));
            let (Some(a), Some(b)) = (primary.disk.read_file(&path), node.disk.read_file(&path)) else {
                continue;
            };
            let upto = (end.0.saturating_sub(number * SEGMENT_BYTES)).min(SEGMENT_BYTES) as usize;
            if !is_path(theirs, number) || !is_path(ours, number) {
                continue;
            }
            let (a, b) = (a.get(..upto).unwrap_or_default(), b.get(..upto).unwrap_or_default());
            let ends = frames_end(a).min(frames_end(b)).min(upto);
            if a.get(..ends) != b.get(..ends) {
                return Err(format!("n{id}'s segment {number} is not its primary's"));
            }
        }
        Ok(())
    }

    /// No more faults: everyone is back, and messages flow, until all have the same.
    fn heal(&mut self) -> Result<(), Violation> {
        self.say(|| "healed".to_owned());
        (self.loss, self.repeats, self.is_healed) = (0, 0, true);
        self.cut.clear();
        for _ in 0..ROUNDS_MAX {
            let primary = self.primary;
            for node in self.nodes.values_mut() {
                node.disk.clear_faults();
                node.upstream = primary;
                let is_broken = node.up.as_ref().is_some_and(|up| {
                    up.db.stats().poisoned.is_some()
                        || matches!(up.state(), Some(replica::State::Broken | replica::State::Closed))
                });
                if is_broken && node.disk.has_power() {
                    node.kill();
                }
            }
            self.crash_the_powerless()?;
            self.drop_connections_of_the_down()?;
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for &id in &ids {
                if !self.deposed.contains(&id) {
                    self.restart(id)?;
                }
            }
            if self.is_failing_over {
                self.fail_over()?;
            }
            self.rejoin()?;
            for message in std::mem::take(&mut self.network) {
                self.arrive(message)?;
            }
            for &id in &ids {
                self.work(id)?;
                self.look(id)?;
                let state = self.nodes.get(&id).and_then(|node| node.up.as_ref()).and_then(|up| up.state());
                if let Some(
                    state @ (replica::State::NeedsRewind { .. } | replica::State::NeedsImage { .. }),
                ) = state
                {
                    self.mend(id, state.clone())?;
                }
            }
            if self.is_settled() {
                return Ok(());
            }
            if self.network.is_empty() {
                self.pass_time()?;
            }
        }
        Err("it does not come to rest".to_owned())
    }

    /// A replica that has parted from its primary is rewound as well.
    fn mend(&mut self, id: u64, state: replica::State) -> Result<(), Violation> {
        if matches!(state, replica::State::NeedsImage { .. }) {
            self.hit("log gone");
            return self.copy_anew(id);
        }
        self.deposed.insert(id);
        self.rejoin()
    }

    fn is_settled(&self) -> bool {
        let Some(of) = self.nodes.get(&self.primary).and_then(|node| node.up.as_ref()) else { return false };
        let end = self.model.commits.last().map_or(Lsn::ZERO, |last| last.lsn.plus(1));
        let shows_all = |node: &Node| {
            node.up.as_ref().is_some_and(|up| up.shipping.visible() >= end && up.shipping.wal().is_filled())
        };
        let settled = |up: &node::Up| up.shipping.waiting().is_none();
        settled(of) && self.deposed.is_empty() && self.nodes.values().all(shows_all)
    }

    fn check_all_same(&mut self) -> Result<(), Violation> {
        self.model.poll();
        let acked = self.model.commits.iter().filter(|commit| commit.is_acked).count() as u64;
        self.report.add("replication: acknowledged", acked);
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get(&id) else { continue };
            let Some(rows) = node.keyspace() else { return Err(format!("n{id} has no keyspace")) };
            self.model.look(node, &rows)?;
            if node.is_replica {
                self.check_files(id)?;
            }
        }
        Ok(())
    }
}

fn xid(name: u64) -> Result<Xid, Violation> {
    Xid::new(1, name.to_le_bytes(), "torture").map_err(|error| error.to_string())
}

fn segment_of(lsn: Lsn) -> u64 {
    lsn.0 / SEGMENT_BYTES
}

/// Whether the log reads through that segment.
fn is_path(wal: &Wal, number: u64) -> bool {
    wal.checksum_before(Lsn(number * SEGMENT_BYTES + 4096)).is_ok_and(|found| found.is_some())
}

/// Where the frames of a segment's file end.
fn frames_end(bytes: &[u8]) -> usize {
    let mut at = 4096;
    while let Some(Ok(header)) = bytes.get(at..).map(seawall_wal::frame::Header::parse) {
        at += header.padded_bytes();
    }
    at.min(bytes.len())
}
