//! Earlier incarnations of coordinators that are not dead. A process was thought so, another has opened its store, and it goes on all the same:
//! its disk answers no more, its memory is as it was; it is cut off for a while, and then it is heard again, and hears.
//!
//! Whoever has followed an order of the later incarnation must refuse those of the earlier one, and say so; the earlier one stops
//! when it is told, and says nothing of transactions that have begun after it. That is looked at message by message. What stores show,
//! and what clients are told, is held against the model as ever, with one exception: an abort that an earlier incarnation tells. It
//! presumes that when nobody knows its transaction, and nobody may because the later incarnation has seen to it and all is forgotten.

use super::node::Up;
use super::{Violation, World};
use seawall_txn::{Body, Message, NodeId, Role};
use seawall_wal::runtime::Rng;
use std::collections::BTreeMap;

/// They, and who has heard whom. With randomness of their own: a seed without them goes as it would go if there were none.
pub(super) struct Ghosts {
    rng: Rng,
    haunts: bool,
    pub(super) all: BTreeMap<NodeId, Ghost>,
    /// Whose orders a node has followed since it started: node, who gave them, the latest incarnation.
    heard: BTreeMap<(NodeId, NodeId), u64>,
}

/// An incarnation whose place another has taken.
pub(super) struct Ghost {
    pub(super) up: Up,
    pub(super) is_cut: bool,
}

impl Ghosts {
    pub(super) fn new(seed: u64) -> Ghosts {
        let mut rng = Rng::new(seed ^ 0x6768_6f73_7400);
        let haunts = rng.chance(1, 2);
        Ghosts { rng, haunts, all: BTreeMap::new(), heard: BTreeMap::new() }
    }

    /// A node starts again: whom it has heard it does not remember.
    pub(super) fn starts(&mut self, id: NodeId) {
        self.heard.retain(|(by, _), _| *by != id);
    }

    /// Whether a node must refuse this. If not, it may follow it.
    fn is_stale(&mut self, message: &Message) -> bool {
        let is_order = message.body.is_order();
        let latest = self.heard.entry((message.to, message.from)).or_default();
        if is_order && *latest <= message.epoch {
            *latest = message.epoch;
        }
        is_order && *latest > message.epoch
    }

    fn is_of_one(&self, message: &Message) -> bool {
        self.all.get(&message.from).is_some_and(|ghost| ghost.up.epoch == message.epoch)
    }
}

impl World {
    /// At each step something may happen to an earlier incarnation, or make one.
    pub(super) fn haunt(&mut self) -> Result<(), Violation> {
        if !self.ghosts.haunts {
            return Ok(());
        }
        match self.ghosts.rng.below(48) {
            0 | 1 => self.supersede(),
            2..=4 => {
                self.let_ghosts_be_heard();
                Ok(())
            }
            5 => {
                // It asks its disk.
                for ghost in self.ghosts.all.values_mut() {
                    let _ = ghost.up.db.sync();
                    ghost.up.host.tick(self.now);
                }
                self.collect()
            }
            _ => Ok(()),
        }
    }

    /// A node is thought dead, and another process takes its place.
    fn supersede(&mut self) -> Result<(), Violation> {
        let at = self.ghosts.rng.below(self.nodes.len() as u64) as usize;
        let Some(id) = self.nodes.keys().nth(at).copied() else { return Ok(()) };
        let by_crash = self.ghosts.rng.chance(1, 2);
        let Some(node) = self.nodes.get_mut(&id).filter(|_| !self.ghosts.all.contains_key(&id)) else {
            return Ok(());
        };
        let Some(up) = node.supersede(by_crash) else { return Ok(()) };
        self.say(|| format!("{id} is thought dead, and goes on as incarnation {}", up.epoch));
        self.hit("earlier incarnation goes on");
        self.ghosts.all.insert(id, Ghost { up, is_cut: true });
        self.restart(id)
    }

    pub(super) fn let_ghosts_be_heard(&mut self) {
        let mut healed = 0;
        for ghost in self.ghosts.all.values_mut() {
            healed += u64::from(std::mem::replace(&mut ghost.is_cut, false));
        }
        if healed > 0 {
            self.say(|| "earlier incarnations are heard again".to_owned());
            self.report.add("txn: earlier incarnation heard again", healed);
        }
    }

    /// Whether a client talks to a node's earlier incarnation.
    pub(super) fn is_asked_as_ghost(&mut self, id: NodeId) -> bool {
        let is_there = self.ghosts.all.get(&id).is_some_and(|ghost| !ghost.is_cut);
        is_there && self.ghosts.rng.chance(1, 3)
    }

    /// What is for a coordinator gets to the node, to its earlier incarnation, or to both; everything else to the node. (And an
    /// earlier incarnation speaks of transactions that it coordinates: participants and acceptors have their store, or are none.)
    pub(super) fn hand_over(&mut self, message: Message) -> Result<(), Violation> {
        let now = self.now;
        if let Some(ghost) = self.ghosts.all.get_mut(&message.to).filter(|ghost| !ghost.is_cut)
            && message.txn.coordinator == message.to
            && message.body.role() == Role::Coordinator
            && self.ghosts.rng.chance(1, 2)
        {
            ghost.up.host.receive(now, message.clone());
            if self.ghosts.rng.chance(1, 3) {
                return Ok(());
            }
        }
        let (is_of_one, epoch) = (self.ghosts.is_of_one(&message), message.epoch);
        let (from, to, txn) = (message.from, message.to, message.txn);
        let Some(up) = self.nodes.get_mut(&to).and_then(|node| node.up.as_mut()) else { return Ok(()) };
        let is_stale = self.ghosts.is_stale(&message);
        up.host.receive(now, message);
        // A store that fails in this moment takes its node out before it has looked at the message.
        if !is_stale || !up.host.has(to) {
            return Ok(());
        }
        let answers = up.host.take_outgoing();
        let refuses = |answer: &Message| {
            (answer.to, answer.txn) == (from, txn)
                && matches!(answer.body, Body::Fenced { epoch: later } if later > epoch)
        };
        let is_refused = answers.iter().any(refuses);
        self.network.extend(answers);
        if !is_refused {
            return Err(format!(
                "{to} follows an order of {from}'s incarnation {epoch}, and has heard a later one"
            ));
        }
        self.hit(if is_of_one {
            "order of an earlier incarnation refused"
        } else {
            "order from before a crash refused"
        });
        Ok(())
    }
}

/// An incarnation answers for one that came after it.
pub(super) fn answers_for_successor(message: &Message) -> bool {
    let is_answer = matches!(
        message.body,
        Body::Decide { .. } | Body::Forget | Body::Heard | Body::Answer { of: Role::Coordinator, .. }
    );
    is_answer && message.txn.coordinator == message.from && message.txn.epoch > message.epoch
}
