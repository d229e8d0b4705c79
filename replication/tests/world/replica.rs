//! Nodes that follow.

use super::node::{Frame, Job, Role, whole_end};
use super::{STORE, World, name};
use seawall_replication::invariants;
use seawall_replication::message::Message;
use seawall_replication::ship::Replica;
use seawall_replication::ship::replica::{Effect, Input, Settings};
use seawall_wal::Lsn;

impl World {
    pub(crate) fn become_replica(&mut self, id: usize) {
        let seed = self.rng.next_u64();
        let settings = Settings { seed, mutation: self.mutation(), ..Settings::new(name(id)) };
        let node = &mut self.nodes[id];
        node.jobs.clear();
        node.link = None;
        let own = node.own();
        node.role = Role::Replica(Box::new(Replica::new(settings, STORE, own, self.now)));
    }

    pub(crate) fn step_replica(&mut self, id: usize, input: Input) {
        let now = self.now;
        let Role::Replica(machine) = &mut self.nodes[id].role else { return };
        let before = machine.view();
        let effects = machine.step(now, input);
        let after = machine.view();
        if let Err(broken) = invariants::replica_step(&before, &after) {
            self.fail(broken);
        }
        for effect in effects {
            self.replica_effect(id, effect);
        }
    }

    fn replica_effect(&mut self, id: usize, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                self.check_word(id, &message);
                let link = self.nodes[id].link;
                if let Some(link) = link.and_then(|link| self.links.get_mut(&link)) {
                    link.up.push(message);
                }
            }
            Effect::Hang => {
                if let Some(link) = self.nodes[id].link.take()
                    && let Some(link_of) = self.links.get(&link)
                {
                    let primary = link_of.primary;
                    // What is on its way up may still arrive.
                    let up = link_of.up.clone();
                    if self.rng.chance(1, 2) {
                        up.into_iter().for_each(|message| self.primary_hears(primary, link, message));
                    }
                    self.links.remove(&link);
                    if self.rng.chance(2, 3) {
                        self.primary_lost(primary, link);
                    }
                }
            }
            Effect::Violation(what) => self.count(what),
            Effect::Show { limit } => {
                let node = &mut self.nodes[id];
                node.shown = node.shown.max(limit);
                self.check_shown(id);
            }
            effect => self.nodes[id].jobs.push_back(Job { effect, answer: None }),
        }
    }

    /// R2, R3: what it says is so on its device at this moment.
    fn check_word(&mut self, id: usize, message: &Message) {
        let Message::Marks(marks) = message else { return };
        let node = &self.nodes[id];
        if marks.durable > node.durable() {
            let what = format!("R2: {id} says {} is durable, and {} is", marks.durable, node.durable());
            return self.fail(what);
        }
        let Role::Replica(machine) = &node.role else { return };
        if machine.following().is_some_and(|epoch| epoch != node.promised) {
            let what =
                format!("R3, R4: {id} follows {:?}, having promised {}", machine.following(), node.promised);
            self.fail(what);
        }
    }

    /// R5: whatever is shown, somebody was told that it is there.
    fn check_shown(&mut self, id: usize) {
        let node = &self.nodes[id];
        let seen = node.seen();
        let is_acked = |frame: &Frame| frame.end > seen || self.acked.contains(&frame.id);
        if !node.log.iter().all(is_acked) {
            self.fail(format!("R5: {id} shows up to {seen} what no primary has shown"));
        }
    }

    /// Carries out what a node's machine has asked for, or answers it.
    pub(crate) fn work(&mut self) {
        let id = self.rng.below(self.nodes.len() as u64) as usize;
        if matches!(self.nodes[id].role, Role::Primary(_)) {
            return self.work_primary(id);
        }
        let jobs = &self.nodes[id].jobs;
        let answers = jobs.front().is_some_and(|job| job.answer.is_some()) && self.rng.chance(1, 2);
        if answers {
            let answer = self.nodes[id].jobs.pop_front().and_then(|job| job.answer);
            if let Some(answer) = answer {
                self.step_replica(id, answer);
            }
            return;
        }
        let Some(at) = self.nodes[id].jobs.iter().position(|job| job.answer.is_none()) else { return };
        let effect = self.nodes[id].jobs[at].effect.clone();
        let answer = self.carry_out(id, effect);
        if let Some(job) = self.nodes[id].jobs.get_mut(at) {
            job.answer = answer;
        }
    }

    fn carry_out(&mut self, id: usize, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Dial { session, .. } => Some(self.dial(id, session)),
            Effect::Promise { history } => {
                let node = &mut self.nodes[id];
                node.promised = node.promised.max(history.epoch());
                node.history = history;
                self.count("promised");
                Some(Input::Promised)
            }
            Effect::Accept(piece) => {
                let node = &mut self.nodes[id];
                if piece.after != node.place() {
                    let what = format!("R6: {id} is handed {piece:?} at {}", node.place());
                    self.fail(what);
                    return Some(Input::Accepted { received: Lsn::ZERO });
                }
                node.log.extend(Frame::of_piece(&piece));
                let received = node.end();
                self.count("accepted");
                Some(Input::Accepted { received })
            }
            Effect::Sync => {
                let node = &mut self.nodes[id];
                node.synced = node.log.len();
                Some(Input::Synced { durable: node.durable() })
            }
            Effect::Apply { to } => {
                let node = &mut self.nodes[id];
                let durable = whole_end(&node.log[..node.synced]);
                let found = node.log.iter().rev().find(|frame| frame.whole && frame.end <= to.min(durable));
                node.applied = node.applied.max(found.map_or(Lsn::ZERO, |frame| frame.end));
                let (applied, visible) = (node.applied, node.seen());
                self.check_shown(id);
                Some(Input::Applied { applied, visible })
            }
            _ => {
                self.fail("an effect that is new here");
                None
            }
        }
    }

    /// To some primary: the right one, mostly.
    fn dial(&mut self, id: usize, session: u64) -> Input {
        let all = self.primaries();
        let highest = self.highest();
        let stale = !self.is_calm && self.rng.chance(1, 3);
        let to = match highest {
            Some(highest) if !stale => Some(highest),
            Some(_) => Some(all[self.rng.below(all.len() as u64) as usize]),
            None => None,
        };
        let Some(link) = to.and_then(|to| self.connect(to, id, session)) else {
            return Input::Lost { session };
        };
        self.nodes[id].link = Some(link);
        Input::Connected { session, own: self.nodes[id].own() }
    }
}
