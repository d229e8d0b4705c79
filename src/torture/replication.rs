//! Log shipping under torture: whole systems. Every node is a process of its own, with a real store on a simulated disk, the
//! production machines that ship its log or follow another's, and a network between them that delays, loses, repeats and
//! reorders, and is cut one way or both. Nodes lose power at any call to their disk. A client commits at the primary, most
//! of the time so that replicas must have it; some follow a replica, not the primary. An operator promotes another node when
//! the primary is gone, or cut off and still at work: enough of the others promise first, the most advanced of them takes over, and
//! what was the primary comes back, rewound, or with an image. Until it has heard of that, clients and replicas still ask it.
//!
//! At all times a store shows the first so many commits of the log, each whole; a replica's files are its primary's, byte for
//! byte, as far as they go; no commit that was acknowledged with replicas behind it is lost, and nothing that anybody was
//! shown of those is taken back. Once nodes are back and messages flow, all show the same.

use super::SeedReport;
use faults::Away;
use model::Model;
use node::{Mistake, Node, SEGMENT_BYTES};
use operator::Parted;
use seawall_engine::mutation::Mutation as EngineMutation;
use seawall_engine::{KeyspaceOptions, Lsn, SlotOptions};
use seawall_replication::ack::{Member, Policy};
use seawall_replication::message::Message;
use seawall_replication::mutation::Mutation;
use seawall_replication::ship::replica;
use seawall_wal::disk::sim::CrashStyle;
use seawall_wal::mutation::Mutation as WalMutation;
use seawall_wal::runtime::{Rng, SimRuntime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

mod check;
mod client;
mod faults;
mod model;
mod network;
mod node;
mod operator;

/// What is wrong, in words.
type Violation = String;

/// Steps after which a healed system must have come to rest.
const ROUNDS_MAX: u32 = 600;

/// Machines' mistakes that this simulation finds as well; the others' model is in `replication/tests`.
const MACHINES: [(&str, Mutation); 3] = [
    ("ack-unsynced", Mutation::AckUnsynced),
    ("ignore-epoch", Mutation::IgnoreFence),
    ("show-unshipped", Mutation::ShowUnshipped),
];
const LOGS: [(&str, WalMutation); 2] = [
    ("acknowledge-received", WalMutation::AcknowledgeReceived),
    ("judge-by-primary", WalMutation::JudgeByPrimary),
];
const ENGINES: [(&str, EngineMutation); 4] = [
    ("show-unreached", EngineMutation::ShowUnreached),
    ("show-applied", EngineMutation::ShowUnshipped),
    ("ignore-fence", EngineMutation::IgnoreFence),
    ("ignore-slots", EngineMutation::IgnoreSlots),
];

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
        "acknowledged, and promoted over",
        "shown by a replica",
        "shown by a replica, and promoted over",
        "segment compared with its primary's",
        "commit that asks for no replica",
        "commit lost by a promotion",
        "commit that another promotion had lost, back",
        "commit at one that another has taken the place of",
        "looked at one that another has taken the place of",
        "refused by a primary that is fenced off",
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
        "clock that jumps",
        "disk nearly full, of a primary",
        "disk nearly full, of a replica",
        "replica waits for room",
        "went on once there was room",
        "failed node ended",
        "node restarted",
        "checkpoint of a primary",
        "checkpoint of a replica",
        "promotion",
        "promotion beside a primary at work",
        "promotion by a part of the others",
        "promotion cut short",
        "dialled one that another has taken the place of",
        "primary fenced",
        "rewound",
        "rewinding cut short",
        "replica parted",
        "new image",
        "new image, of a replica's",
        "image cut short",
        "log gone",
        "away for long",
        "went on with log that a slot has kept",
        "followed a replica",
        "delayed replica",
        "prepared",
        "prepared, and committed",
        "prepared, and promoted over",
        "prepared, and committed after a promotion",
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
    /// Nodes that were a primary in an earlier epoch, or have parted from theirs, and have not been rewound.
    deposed: BTreeMap<u64, Option<Parted>>,
    /// Nodes that began with an image: they count for a promotion once their log has come so far.
    newcomers: BTreeMap<u64, Lsn>,
    /// A replica that is away for long.
    away: Option<Away>,
    epoch: u64,
    /// Of the others, any so many must have a commit.
    acks: usize,
    /// What a slot may cost.
    limits: SlotOptions,
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
    // One that stays behind.
    let delayed = if rng.chance(1, 4) { count } else { 0 };
    let mut nodes = BTreeMap::new();
    for id in 1..=count {
        let delay_us = if id == delayed { 40_000 } else { 0 };
        nodes.insert(id, Node::new(id, rng.next_u64(), &runtime, mistake, delay_us));
    }
    runtime.set_clock_jumps(rng.chance(1, 3));
    let acks = if count > 3 && rng.chance(1, 2) { 2 } else { 1 };
    let bytes_max = rng.chance(1, 5).then_some(4 * SEGMENT_BYTES);
    let mut world = World {
        rng,
        runtime,
        nodes,
        connections: BTreeMap::new(),
        next_connection: 1,
        network: Vec::new(),
        cut: BTreeSet::new(),
        primary: 1,
        deposed: BTreeMap::new(),
        newcomers: BTreeMap::new(),
        away: None,
        epoch: 0,
        acks,
        limits: SlotOptions { bytes_max, ..SlotOptions::default() },
        now: 0,
        model: Model::default(),
        report: SeedReport::default(),
        hash: 0,
        loss: 0,
        repeats: 0,
        is_healed: false,
        is_failing_over: false,
    };
    if delayed > 0 {
        world.hit("delayed replica");
    }
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
        db.sync().map_err(wrong)?;
        let (timeline, end) = (db.shipping().wal().timeline(), db.shipping().wal().durable_lsn());
        let image = db.image().map_err(wrong)?;
        for node in self.nodes.values().filter(|node| node.id != 1) {
            operator::copy(&node.builder(), &image, &timeline).map_err(wrong)?;
            self.newcomers.insert(node.id, end.max(image.info().checkpoint_lsn));
        }
        drop(image);
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
            self.come_back();
            self.watch()?;
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

    /// Of the others, any so many.
    fn policy_of(&self, id: u64) -> Result<Policy, Violation> {
        let others = self.nodes.keys().filter(|other| **other != id);
        let members = others.map(|other| Member::Named(format!("n{other}"))).collect();
        Policy::any(self.acks, members).map_err(|error| error.to_string())
    }

    /// What a node's clock says.
    fn clock(&self, id: u64) -> u64 {
        self.now + self.nodes.get(&id).map_or(0, |node| node.ahead)
    }

    fn pass(&mut self, us: u64) {
        self.now += us;
        self.runtime.advance(Duration::from_micros(us));
    }

    fn step(&mut self) -> Result<(), Violation> {
        match self.rng.below(100) {
            0..=13 => self.write(),
            14..=53 => self.deliver(),
            54..=67 => {
                let id = self.any_node();
                self.work(id)
            }
            68..=77 => self.pass_some_time(),
            78..=80 => {
                let id = self.any_node();
                self.fail(id)
            }
            81..=85 => {
                let id = self.any_node();
                self.restart(id)
            }
            86..=87 => self.change_links(),
            88..=90 => {
                let id = self.any_node();
                self.checkpoint(id)
            }
            91..=92 => self.fail_over(),
            93..=94 => self.rejoin(),
            95 => self.mend(),
            96 if self.rng.chance(1, 4) => self.go_away(),
            96 => {
                self.make_room();
                Ok(())
            }
            _ => {
                let id = self.any_node();
                self.model.poll()?;
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

    /// A node's disk comes to its work.
    fn work(&mut self, id: u64) -> Result<(), Violation> {
        self.pass(50);
        let (now, runtime) = (self.clock(id), Arc::clone(&self.runtime));
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
        self.model.poll()?;
        self.collect()
    }

    fn checkpoint(&mut self, id: u64) -> Result<(), Violation> {
        let Some(up) = self.nodes.get(&id).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let is_replica = up.shipping.is_replica();
        if up.db.checkpoint().is_ok() {
            self.hit(if is_replica { "checkpoint of a replica" } else { "checkpoint of a primary" });
        }
        self.collect()
    }

    /// No more faults: everyone is back, and messages flow, until all have the same.
    fn heal(&mut self) -> Result<(), Violation> {
        self.say(|| "healed".to_owned());
        (self.loss, self.repeats, self.is_healed, self.away) = (0, 0, true, None);
        self.cut.clear();
        for _ in 0..ROUNDS_MAX {
            self.make_room();
            self.nodes.values_mut().for_each(|node| node.disk.clear_faults());
            self.crash_the_powerless()?;
            self.redirect_all()?;
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for &id in &ids {
                match self.deposed.contains_key(&id) {
                    true => self.kill_broken(id)?,
                    false => self.restart(id)?,
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
            }
            self.mend()?;
            self.watch()?;
            match self.is_settled() {
                true if self.are_filled() => return Ok(()),
                true => {
                    // What an idle primary's image begins with lies behind a seal, which is shipped with what comes next.
                    self.hit("image that waits for a commit");
                    self.commit(self.primary)?;
                }
                false => {}
            }
            if self.network.is_empty() {
                self.pass_some_time()?;
            }
        }
        Err(format!("it does not come to rest: {}", self.stand()))
    }

    /// How far everybody is, in words.
    fn stand(&self) -> String {
        let of = |node: &Node| match &node.up {
            None => format!("n{} is down", node.id),
            Some(up) => format!(
                "n{} shows {} of {}, {:?}",
                node.id,
                up.shipping.visible(),
                up.shipping.wal().tail().place,
                up.state()
            ),
        };
        let nodes: Vec<String> = self.nodes.values().map(of).collect();
        let end = self.model.commits.last().map_or(Lsn::ZERO, |last| last.lsn);
        let deposed: Vec<&u64> = self.deposed.keys().collect();
        format!(
            "the last commit is at {end}, n{} the primary; deposed {deposed:?}; {}",
            self.primary,
            nodes.join("; ")
        )
    }

    /// A replica that has parted from its primary is rewound, one that lacks log takes an image.
    fn mend(&mut self) -> Result<(), Violation> {
        if self.is_failing_over {
            return Ok(());
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let up = self.nodes.get(&id).and_then(|node| node.up.as_ref());
            match up.and_then(|up| up.state()) {
                Some(replica::State::NeedsRewind { .. }) => {
                    self.hit("replica parted");
                    self.deposed.insert(id, None);
                    self.rejoin()?;
                }
                Some(replica::State::NeedsImage { .. }) => {
                    self.hit("log gone");
                    self.copy_anew(id)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether everybody has come to where its image begins.
    fn are_filled(&self) -> bool {
        let mut ups = self.nodes.values().filter_map(|node| node.up.as_ref());
        ups.all(|up| up.shipping.wal().is_filled())
    }

    fn is_settled(&self) -> bool {
        let Some(of) = self.nodes.get(&self.primary).and_then(|node| node.up.as_ref()) else { return false };
        let end = self.model.commits.last().map_or(Lsn::ZERO, |last| last.lsn.plus(1));
        let shows_all = |node: &Node| node.up.as_ref().is_some_and(|up| up.shipping.visible() >= end);
        let settled = |up: &node::Up| up.shipping.waiting().is_none();
        settled(of) && self.deposed.is_empty() && self.nodes.values().all(shows_all)
    }
}
