//! Nodes with logs, the production machines, and a network between them, one step at a time by seed.
//!
//! A node's log is a list of frames; how many of them are on its device is apart, and so is what its machine has asked for
//! and was not answered yet. A crash keeps what is on the device alone, and may come between any two steps: between an effect
//! and its being carried out, and between that and its answer. Messages are lost, repeated, overtaken and held back. The
//! *operator* promotes the most advanced of enough replicas that have promised, cuts back or copies what asks for it.
#![allow(dead_code, reason = "each test uses its part")]

mod node;
mod operator;
mod primary;
mod replica;

pub(crate) use node::{Frame, Node, Role};

use seawall_replication::message::{Message, Name};
use seawall_replication::mutation::Mutation;
use seawall_replication::timeline::History;
use seawall_wal::runtime::Rng;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const STORE: [u8; 16] = [5; 16];
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];
pub(crate) fn name(node: usize) -> Name {
    Name::new(NAMES[node]).unwrap()
}

/// What the world itself does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Machine(Mutation),
    /// Marks count though the replica has nothing of the epoch.
    CountOldEpoch,
    /// Who is promoted is not asked to promise, nor are the others.
    PromoteUnpromised,
}

/// A connection, with what is on its way.
pub(crate) struct Link {
    pub(crate) primary: usize,
    pub(crate) replica: usize,
    pub(crate) session: u64,
    pub(crate) up: Vec<Message>,
    pub(crate) down: Vec<Message>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    /// Commits wait for so many replicas, of two.
    pub(crate) acks: usize,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) next_link: u64,
    pub(crate) next_frame: u64,
    /// Commits that somebody was told are there: never to be lost, by end and frame.
    pub(crate) acked: BTreeSet<u64>,
    pub(crate) wrong: Option<Wrong>,
    pub(crate) fault: Option<String>,
    /// No more crashes and losses: what was begun must come to its end.
    pub(crate) is_calm: bool,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, wrong: Option<Wrong>) -> World {
        let mut world = World {
            rng: Rng::new(seed),
            acks: 1 + (seed % 2) as usize,
            now: 0,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            next_frame: 1,
            acked: BTreeSet::new(),
            wrong,
            fault: None,
            is_calm: false,
            counts: BTreeMap::new(),
        };
        for id in 0..NAMES.len() {
            world.nodes.push(Node::new(id, History::default()));
        }
        world.become_primary(0);
        (1..NAMES.len()).for_each(|id| world.become_replica(id));
        world
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn mutation(&self) -> Option<Mutation> {
        match self.wrong {
            Some(Wrong::Machine(mutation)) => Some(mutation),
            _ => None,
        }
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        if self.fault.is_none() {
            self.fault = Some(what.into());
        }
    }

    /// One step: something that could happen next, by chance.
    pub(crate) fn step(&mut self) {
        let chaos = !self.is_calm;
        match self.rng.below(100) {
            0..14 => self.append(),
            14..22 => self.sync_primary(),
            22..52 => self.deliver(),
            52..80 => self.work(),
            80..94 => self.pass_time(),
            94 if chaos => self.crash(),
            95 if chaos => self.cut(),
            96..98 => self.repair(),
            98 if chaos => self.promote(),
            _ => self.come_back(),
        }
        self.check();
    }

    fn pass_time(&mut self) {
        self.now += match self.rng.below(10) {
            0..7 => self.rng.below(2_000),
            7..9 => self.rng.below(100_000),
            _ => self.rng.below(3_000_000),
        };
        for id in 0..self.nodes.len() {
            self.tick(id);
        }
    }

    pub(crate) fn tick(&mut self, id: usize) {
        match self.nodes[id].role {
            Role::Primary(_) => self.tick_primary(id),
            Role::Replica(_) => self.step_replica(id, seawall_replication::ship::replica::Input::Tick),
            Role::Down { .. } => {}
        }
    }

    fn deliver(&mut self) {
        let busy: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| !link.up.is_empty() || !link.down.is_empty())
            .map(|(id, _)| *id)
            .collect();
        if busy.is_empty() {
            return;
        }
        let id = busy[self.rng.below(busy.len() as u64) as usize];
        let Some(link) = self.links.get_mut(&id) else { return };
        let goes_up = link.down.is_empty() || !link.up.is_empty() && self.rng.chance(1, 2);
        let queue = if goes_up { &mut link.up } else { &mut link.down };
        let late = !self.is_calm && self.rng.chance(1, 12);
        let at = if late { self.rng.below(queue.len() as u64) as usize } else { 0 };
        let message = queue[at].clone();
        if self.is_calm || !self.rng.chance(1, 25) {
            queue.remove(at);
        }
        if !self.is_calm && self.rng.chance(1, 40) {
            return;
        }
        // As the network would have it.
        let message = Message::decode(&message.encode()).unwrap();
        let (primary, replica, session) = (link.primary, link.replica, link.session);
        if goes_up {
            self.primary_hears(primary, id, message);
        } else {
            let input = seawall_replication::ship::replica::Input::Message { session, message };
            self.step_replica(replica, input);
        }
    }

    /// A connection ends: each side hears of it, or does not.
    fn cut(&mut self) {
        let all: Vec<u64> = self.links.keys().copied().collect();
        if !all.is_empty() {
            let id = all[self.rng.below(all.len() as u64) as usize];
            self.drop_link(id);
        }
    }

    pub(crate) fn drop_link(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else { return };
        if self.rng.chance(2, 3) || self.is_calm {
            self.primary_lost(link.primary, id);
        }
        if self.rng.chance(2, 3) || self.is_calm {
            let input = seawall_replication::ship::replica::Input::Lost { session: link.session };
            self.step_replica(link.replica, input);
        }
    }

    fn check(&mut self) {
        for id in 0..self.nodes.len() {
            let Role::Replica(machine) = &self.nodes[id].role else { continue };
            let Some(epoch) = machine.following() else { continue };
            let node = &self.nodes[id];
            if node.promised > epoch {
                self.fail(format!("R4: {id} follows epoch {epoch} and has promised {}", node.promised));
                return;
            }
            let of = |other: &&Node| matches!(&other.role, Role::Primary(p) if p.epoch() == epoch);
            let Some(primary) = self.nodes.iter().find(of) else { continue };
            // A primary that crashed within a record begins it anew: until this one hears of that, it has the old beginning.
            let whole = node.log.iter().rposition(|frame| frame.whole).map_or(0, |last| last + 1);
            if primary.log.get(..whole) != Some(&node.log[..whole]) {
                let (ours, theirs) = (node.log.len(), primary.log.len());
                self.fail(format!(
                    "{id} has {ours} frames that are no prefix of the {theirs} of epoch {epoch}"
                ));
                return;
            }
        }
    }

    /// Quiet from now on, until nothing more happens; then all have the same, and show the same.
    pub(crate) fn settle(&mut self) {
        self.is_calm = true;
        for _ in 0..40 {
            (0..self.nodes.len()).for_each(|id| self.bring_back(id));
            match self.highest() {
                None => self.promote(),
                // Whom nobody follows nobody tells: a person does.
                Some(highest) => {
                    let epoch = self.nodes[highest].history.epoch();
                    self.primaries()
                        .into_iter()
                        .filter(|&id| id != highest)
                        .for_each(|id| self.fence(id, epoch));
                }
            }
            for _ in 0..400 {
                match self.rng.below(10) {
                    0..4 => self.deliver(),
                    4..8 => self.work(),
                    8 => self.pass_time(),
                    _ => {
                        self.sync_primary();
                        self.repair();
                    }
                }
                self.check();
                if self.fault.is_some() {
                    return;
                }
            }
            if self.is_settled() {
                return;
            }
        }
        let said: Vec<String> = self.nodes.iter().map(Node::describe).collect();
        self.fail(format!("they do not come to the same: {}", said.join("; ")));
    }

    fn is_settled(&self) -> bool {
        let Some(primary) = self.highest() else { return false };
        let of = &self.nodes[primary];
        let same = |node: &Node| node.log == of.log && node.synced == of.log.len() && node.seen() == of.end();
        self.nodes.iter().all(same)
    }
}
