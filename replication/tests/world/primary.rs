//! Nodes that write.

use super::node::{Frame, Job, Role, SEGMENT};
use super::{Link, STORE, World, Wrong};
use seawall_replication::ack::{Level, Member, Policy, Reached, Table};
use seawall_replication::invariants;
use seawall_replication::message::{Compression, Message};
use seawall_replication::mutation::Mutation;
use seawall_replication::ship::primary::{Effect, Input, Opened, Own, Primary, Progress, Settings};
use seawall_wal::Lsn;
use std::collections::{BTreeMap, VecDeque};

pub(crate) struct Session {
    pub(crate) machine: Primary,
    pub(crate) replica: usize,
    pub(crate) jobs: VecDeque<Job<Effect, Input>>,
}

pub(crate) struct PrimaryNode {
    pub(crate) own: Own,
    pub(crate) table: Table,
    pub(crate) visible: Lsn,
    pub(crate) is_fenced: bool,
    pub(crate) sessions: BTreeMap<u64, Session>,
}

impl PrimaryNode {
    pub(crate) fn epoch(&self) -> u64 {
        self.own.history.epoch()
    }
}

impl World {
    pub(crate) fn become_primary(&mut self, id: usize) {
        let counts_old = self.wrong == Some(Wrong::CountOldEpoch);
        let acks = self.acks;
        let node = &mut self.nodes[id];
        let own = Own { store_id: STORE, history: node.history.clone(), promised: node.promised };
        let start = node.history.begins();
        let policy = Policy::any(acks, vec![Member::Any]).unwrap();
        let mut table = Table::new(policy);
        if !counts_old {
            table = table.of_epoch(start);
        }
        let is_fenced = own.promised > own.history.epoch();
        let visible = node.seen();
        node.role = Role::Primary(Box::new(PrimaryNode {
            own,
            table,
            visible,
            is_fenced,
            sessions: BTreeMap::new(),
        }));
        node.link = None;
    }

    pub(crate) fn primaries(&self) -> Vec<usize> {
        let is_primary = |id: &usize| matches!(self.nodes[*id].role, Role::Primary(_));
        (0..self.nodes.len()).filter(is_primary).collect()
    }

    /// The primary of the highest epoch that is up.
    pub(crate) fn highest(&self) -> Option<usize> {
        self.primaries().into_iter().max_by_key(|&id| self.nodes[id].history.epoch())
    }

    pub(crate) fn append(&mut self) {
        let all = self.primaries();
        if all.is_empty() {
            return;
        }
        let id = all[self.rng.below(all.len() as u64) as usize];
        let Role::Primary(primary) = &self.nodes[id].role else { return };
        if !primary.is_fenced {
            let epoch = primary.epoch();
            let whole = self.rng.chance(3, 4);
            self.push_frame(id, epoch, whole);
        }
    }

    pub(crate) fn push_frame(&mut self, id: usize, epoch: u64, whole: bool) {
        let after = self.nodes[id].place();
        // The rest of a segment may stay empty.
        let skips = !after.0.is_multiple_of(SEGMENT) && self.rng.chance(1, 6);
        let at = if skips { Lsn((after.0 / SEGMENT + 1) * SEGMENT) } else { after };
        let end = at.plus(Frame::BYTES);
        let frame = Frame { after, at, end, epoch, id: self.next_frame, whole };
        self.next_frame += 1;
        self.nodes[id].log.push(frame);
    }

    pub(crate) fn sync_primary(&mut self) {
        for id in self.primaries() {
            self.nodes[id].synced = self.nodes[id].log.len();
            self.moved(id);
        }
    }

    fn moved(&mut self, id: usize) {
        let durable = self.nodes[id].durable();
        let now = self.now;
        let Role::Primary(primary) = &mut self.nodes[id].role else { return };
        let reached = primary.table.reached().of(Level::Durable);
        let visible =
            if primary.is_fenced { primary.visible } else { primary.visible.max(reached.min(durable)) };
        primary.visible = visible;
        let sessions: Vec<u64> = primary.sessions.keys().copied().collect();
        let shown: Vec<u64> =
            self.nodes[id].log.iter().filter(|frame| frame.end <= visible).map(|frame| frame.id).collect();
        self.acked.extend(shown);
        let Role::Primary(primary) = &self.nodes[id].role else { return };
        let epoch = primary.own.history.epoch();
        let progress = Progress { visible, durable, time_us: now, now_us: now, epoch };
        for session in sessions {
            self.step_primary(id, session, Input::Moved(progress));
        }
    }

    pub(crate) fn tick_primary(&mut self, id: usize) {
        self.moved(id);
        let Role::Primary(primary) = &self.nodes[id].role else { return };
        for session in primary.sessions.keys().copied().collect::<Vec<_>>() {
            self.step_primary(id, session, Input::Tick);
        }
    }

    /// A replica dials.
    pub(crate) fn connect(&mut self, primary: usize, replica: usize, session: u64) -> Option<u64> {
        let now = self.now;
        // By LZ4 as well where there is no Zstandard.
        let compression = if session.is_multiple_of(2) { Compression::Lz4 } else { Compression::Zstd };
        let settings = Settings { mutation: self.mutation(), compression, ..Settings::default() };
        let Role::Primary(node) = &mut self.nodes[primary].role else { return None };
        let machine = Primary::new(settings, node.own.clone(), now);
        let id = self.next_link;
        self.next_link += 1;
        node.sessions.insert(id, Session { machine, replica, jobs: VecDeque::new() });
        self.links.insert(id, Link { primary, replica, session, up: Vec::new(), down: Vec::new() });
        self.moved(primary);
        Some(id)
    }

    pub(crate) fn primary_hears(&mut self, id: usize, link: u64, message: Message) {
        self.step_primary(id, link, Input::Message(message));
    }

    pub(crate) fn primary_lost(&mut self, id: usize, link: u64) {
        self.step_primary(id, link, Input::Lost);
    }

    pub(crate) fn step_primary(&mut self, id: usize, link: u64, input: Input) {
        let now = self.now;
        let Role::Primary(primary) = &mut self.nodes[id].role else { return };
        let Some(session) = primary.sessions.get_mut(&link) else { return };
        let before = session.machine.view();
        let effects = session.machine.step(now, input);
        if let (Some(before), Some(after)) = (before, session.machine.view())
            && let Err(broken) = invariants::primary_step(&before, &after)
        {
            self.fail(broken);
        }
        for effect in effects {
            self.primary_effect(id, link, effect);
        }
    }

    fn primary_effect(&mut self, id: usize, link: u64, effect: Effect) {
        match effect {
            Effect::Send(message) => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.down.push(message);
                }
            }
            Effect::Open { .. } | Effect::Read { .. } => {
                let Role::Primary(primary) = &mut self.nodes[id].role else { return };
                if let Some(session) = primary.sessions.get_mut(&link) {
                    session.jobs.push_back(Job { effect, answer: None });
                }
            }
            Effect::Acked(marks) => {
                let Role::Primary(primary) = &mut self.nodes[id].role else { return };
                let Some(session) = primary.sessions.get(&link) else { return };
                primary.table.update(super::NAMES[session.replica], Reached::from(marks));
                self.count("acked");
                self.moved(id);
            }
            Effect::Fence { epoch, .. } => self.fence(id, epoch),
            Effect::Violation(what) => self.count(what),
            Effect::Close => {
                if let Role::Primary(primary) = &mut self.nodes[id].role
                    && let Some(session) = primary.sessions.remove(&link)
                {
                    primary.table.leave(super::NAMES[session.replica]);
                }
                // What was sent may still arrive; the replica hears of the end behind it, or by silence.
            }
            _ => self.fail("an effect that is new here"),
        }
    }

    pub(crate) fn fence(&mut self, id: usize, epoch: u64) {
        let node = &mut self.nodes[id];
        node.promised = node.promised.max(epoch);
        let Role::Primary(primary) = &mut node.role else { return };
        primary.is_fenced = true;
        primary.own.promised = primary.own.promised.max(epoch);
        self.count("fenced");
        let Role::Primary(primary) = &self.nodes[id].role else { return };
        for session in primary.sessions.keys().copied().collect::<Vec<_>>() {
            self.step_primary(id, session, Input::Fenced { epoch });
        }
    }

    /// Carries out what a session has asked for, or answers it.
    pub(crate) fn work_primary(&mut self, id: usize) {
        let Role::Primary(primary) = &self.nodes[id].role else { return };
        let busy: Vec<u64> = primary
            .sessions
            .iter()
            .filter(|(_, session)| !session.jobs.is_empty())
            .map(|(id, _)| *id)
            .collect();
        if busy.is_empty() {
            return;
        }
        let link = busy[self.rng.below(busy.len() as u64) as usize];
        let pieces_max = 1 + self.rng.below(3) as usize;
        let cut = 1 + self.rng.below(3) as usize;
        let skips_check = self.mutation() == Some(Mutation::IgnoreHistory);
        let node = &mut self.nodes[id];
        let durable: Vec<Frame> = node.log[..node.synced].to_vec();
        let Role::Primary(primary) = &mut node.role else { return };
        let Some(session) = primary.sessions.get_mut(&link) else { return };
        let Some(job) = session.jobs.pop_front() else { return };
        let input = match job.effect {
            Effect::Open { tail, .. } => {
                let shared = durable.iter().take_while(|frame| frame.end <= tail.place).last();
                let end = shared.map_or(Lsn::ZERO, |frame| frame.end);
                let checksum = shared.map_or(0, |frame| frame.id as u32);
                let is_ready = end == tail.place && checksum == tail.checksum || skips_check;
                Input::Opened(if is_ready {
                    Opened::Ready
                } else {
                    Opened::Differs { fork: if end == tail.place { tail.whole_end } else { end } }
                })
            }
            Effect::Read { from, .. } => {
                let rest: Vec<&Frame> = durable.iter().filter(|frame| frame.after >= from).collect();
                let mut pieces = Vec::new();
                let mut at = 0;
                while at < rest.len() && pieces.len() < pieces_max {
                    let mut end = at + 1;
                    while end < rest.len() && end - at < cut && rest[end].at == rest[end - 1].end {
                        end += 1;
                    }
                    let frames: Vec<Frame> = rest[at..end].iter().map(|frame| (*frame).clone()).collect();
                    pieces.push(Frame::piece(&frames));
                    at = end;
                }
                Input::Pieces(pieces)
            }
            _ => return,
        };
        self.step_primary(id, link, input);
    }
}
