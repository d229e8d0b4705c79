//! Crashes, and who acts on them.

use super::node::Role;
use super::{NAMES, World, Wrong};
use seawall_replication::decide::{Candidate, MostAdvanced, PromotionPolicy};
use seawall_replication::message::Message;
use seawall_replication::ship::replica::{Input, State};

impl World {
    pub(crate) fn crash(&mut self) {
        let id = self.rng.below(self.nodes.len() as u64) as usize;
        if matches!(self.nodes[id].role, Role::Down { .. }) {
            return;
        }
        let by_chance = self.rng.below(4) as usize;
        self.take_down(id, by_chance);
        self.count("crashed");
    }

    fn take_down(&mut self, id: usize, by_chance: usize) {
        let links: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.primary == id || link.replica == id)
            .map(|(id, _)| *id)
            .collect();
        self.nodes[id].lose(by_chance);
        self.nodes[id].link = None;
        // The other side hears of it, or does not.
        links.into_iter().for_each(|link| self.drop_link(link));
    }

    pub(crate) fn come_back(&mut self) {
        let id = self.rng.below(self.nodes.len() as u64) as usize;
        self.bring_back(id);
    }

    pub(crate) fn bring_back(&mut self, id: usize) {
        match self.nodes[id].role {
            Role::Down { was_primary: true } => self.become_primary(id),
            Role::Down { was_primary: false } => self.become_replica(id),
            _ => {}
        }
    }

    /// Somebody looks after nodes that need it: a fenced primary becomes a replica, a replica goes back or begins anew.
    pub(crate) fn repair(&mut self) {
        for id in 0..self.nodes.len() {
            match &self.nodes[id].role {
                Role::Primary(primary) if primary.is_fenced && self.rng.chance(1, 3) => {
                    let links: Vec<u64> = primary.sessions.keys().copied().collect();
                    links.into_iter().for_each(|link| self.drop_link(link));
                    let node = &mut self.nodes[id];
                    node.synced = node.log.len();
                    node.shown = seawall_wal::Lsn::ZERO;
                    self.become_replica(id);
                    self.count("demoted");
                }
                Role::Replica(machine) => match machine.state().clone() {
                    // Two histories of one epoch number could not be told apart: the operator makes none.
                    State::NeedsRewind { to, history } => {
                        let node = &mut self.nodes[id];
                        node.rewind(to);
                        node.promised = node.promised.max(history.epoch());
                        node.history = history;
                        self.become_replica(id);
                        self.count("rewound");
                    }
                    State::NeedsImage { .. } => {
                        self.fail(format!("{id} needs an image, and no log was released"))
                    }
                    State::Broken | State::Closed => self.become_replica(id),
                    _ => {}
                },
                _ => {}
            }
        }
    }

    /// The most advanced of enough replicas that have promised.
    pub(crate) fn promote(&mut self) {
        let highest = self.highest();
        let is_replica = |id: &usize| matches!(self.nodes[*id].role, Role::Replica(_));
        let mut heard: Vec<usize> = (0..self.nodes.len()).filter(is_replica).collect();
        let policy = MostAdvanced::of_quorum(self.acks, NAMES.len() - 1);
        if heard.len() < policy.heard_min || self.rng.chance(1, 2) && !self.is_calm {
            return;
        }
        // As few as it takes, now and then: the others learn of it from who is promoted.
        while heard.len() > policy.heard_min && self.rng.chance(1, 2) {
            let at = self.rng.below(heard.len() as u64) as usize;
            heard.remove(at);
        }
        let epoch =
            1 + self.nodes.iter().map(|node| node.promised.max(node.history.epoch())).max().unwrap_or(0);
        let promises = self.wrong != Some(Wrong::PromoteUnpromised);
        for &id in &heard {
            // What its log was asked for is answered first; what it knows of epochs to come is not what its log is.
            self.step_replica(id, Input::Close);
            while !self.nodes[id].jobs.is_empty() {
                let before = self.nodes[id].jobs.len();
                self.finish(id);
                assert!(self.nodes[id].jobs.len() < before, "each job ends");
            }
            if promises {
                self.nodes[id].promised = epoch;
            }
            self.become_replica(id);
        }
        let candidate = |&id: &usize| {
            let mut tail = self.nodes[id].tail();
            tail.whole_end = self.nodes[id].durable();
            Candidate { name: NAMES[id].to_owned(), tail, is_eligible: true }
        };
        let candidates: Vec<Candidate> = heard.iter().map(candidate).collect();
        let Some(chosen) = policy.choose(&candidates) else { return };
        let Some(id) = NAMES.iter().position(|name| *name == chosen) else { return };
        self.enthrone(id, epoch);
        self.count(if highest.is_some() { "promoted beside another" } else { "promoted" });
    }

    /// Nothing acknowledged is lost: the frames that anybody was shown are there.
    fn enthrone(&mut self, id: usize, epoch: u64) {
        let node = &mut self.nodes[id];
        while node.log.last().is_some_and(|frame| !frame.whole) {
            node.log.pop();
        }
        node.synced = node.log.len();
        let has: std::collections::BTreeSet<u64> = node.log.iter().map(|frame| frame.id).collect();
        if !self.acked.iter().all(|frame| has.contains(frame)) {
            self.fail(format!("{id} is promoted to epoch {epoch} without a commit that was acknowledged"));
        }
        let node = &mut self.nodes[id];
        let (tail, place) = (node.tail(), node.place());
        node.history = node.history.known(tail).promoted(epoch, place).unwrap();
        node.promised = node.promised.max(epoch);
        self.push_frame(id, epoch, true);
        self.nodes[id].synced = self.nodes[id].log.len();
        self.become_primary(id);
    }

    fn finish(&mut self, id: usize) {
        // A dial that is answered now is answered in vain: it was closed.
        let Some(mut job) = self.nodes[id].jobs.pop_front() else { return };
        use seawall_replication::ship::replica::Effect;
        if job.answer.is_none() && !matches!(job.effect, Effect::Dial { .. }) {
            let (node, effect) = (&mut self.nodes[id], &job.effect);
            match effect {
                Effect::Sync => node.synced = node.log.len(),
                Effect::Accept(piece) if piece.after == node.place() => {
                    node.log.extend(super::Frame::of_piece(piece));
                }
                Effect::Promise { history } => {
                    node.promised = node.promised.max(history.epoch());
                    node.history = history.clone();
                }
                _ => {}
            }
            job.answer = None;
        }
        let node = &mut self.nodes[id];
        if node.jobs.is_empty() {
            node.synced = node.log.len();
        }
        debug_assert!(!matches!(job.answer, Some(Input::Message { message: Message::Bye, .. })));
    }
}
