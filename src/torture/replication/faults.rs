//! What goes wrong: power, disks, links, clocks; and nodes that come back.

use super::node::{SEGMENT_BYTES, STORE};
use super::{Violation, World};
use seawall_replication::ship::replica;
use seawall_wal::Lsn;
use seawall_wal::disk::sim::{Fault, Op};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A replica that is away for long.
pub(super) struct Away {
    id: u64,
    /// For so many steps yet.
    steps: u64,
}

/// Longer than a primary takes a replica for one of those that it hears of.
const LONG_US: u64 = 12_000_000;

impl World {
    /// Something happens to a node.
    pub(super) fn fail(&mut self, id: u64) -> Result<(), Violation> {
        let kind = self.rng.below(13);
        let at = 1 + self.rng.below(14);
        let room = self.rng.below(5) * SEGMENT_BYTES;
        self.model.poll()?;
        let is_primary = id == self.primary;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let what = match kind {
            0..=3 => {
                node.crash();
                "crash"
            }
            4 => {
                node.kill();
                "killed"
            }
            5..=7 => {
                node.disk.fail(Fault::power_cut().at_call(at));
                "power cut ahead"
            }
            8 => {
                node.disk.fail(Fault::eio(Op::WriteDurable).at_call(1 + at / 4).once());
                "write that fails ahead"
            }
            9 => {
                node.disk.fail(Fault::dropped_sync().at_call(1 + at / 4).once());
                "sync that drops pages ahead"
            }
            10 => {
                node.ahead += self.rng.below(400_000);
                "clock that jumps"
            }
            _ => {
                node.fill_disk(room);
                if is_primary { "disk nearly full, of a primary" } else { "disk nearly full, of a replica" }
            }
        };
        self.hit(what);
        self.say(|| format!("n{id}: {what}, at call {at}"));
        self.settle_down(id)
    }

    /// There is room on all disks, and what stopped for want of it goes on.
    pub(super) fn make_room(&mut self) {
        let mut resumed = 0;
        for node in self.nodes.values_mut().filter(|node| node.is_full) {
            node.is_full = false;
            node.disk.set_capacity(u64::MAX);
            resumed += u64::from(node.up.as_ref().is_some_and(|up| up.db.resume().is_ok()));
        }
        self.report.add("replication: went on once there was room", resumed);
    }

    /// What a node that went down leaves behind.
    pub(super) fn settle_down(&mut self, id: u64) -> Result<(), Violation> {
        if self.nodes.get(&id).is_some_and(|node| node.up.is_none()) {
            self.model.forget_tickets(id);
        }
        self.drop_connections_of_the_down()
    }

    pub(super) fn crash_the_powerless(&mut self) -> Result<(), Violation> {
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

    /// Ends processes that only stand there: the operator starts them again.
    pub(super) fn kill_broken(&mut self, id: u64) -> Result<(), Violation> {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.disk.has_power()) else { return Ok(()) };
        let is_broken = node.up.as_ref().is_some_and(|up| {
            up.db.stats().poisoned.is_some()
                || matches!(up.state(), Some(replica::State::Broken | replica::State::Closed))
        });
        if is_broken {
            node.kill();
            self.hit("failed node ended");
            self.settle_down(id)?;
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, id: u64) -> Result<(), Violation> {
        if self.away.as_ref().is_some_and(|away| away.id == id) {
            return Ok(());
        }
        self.kill_broken(id)?;
        let fails_again = self.rng.chance(1, 8) && !self.is_healed && self.now > 0;
        let (at, seed, ahead) = (1 + self.rng.below(40), self.rng.next_u64(), self.rng.below(1 << 30));
        let (policy, limits) = (self.policy_of(id)?, self.limits);
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up.is_none() && !node.is_blank) else {
            return Ok(());
        };
        if fails_again {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        node.ahead = ahead;
        let is_deposed = self.deposed.contains_key(&id);
        let started = match node.start(self.now, &policy, limits, seed) {
            // It was being rewound, and will be.
            Err(why) if is_deposed && (why.contains("rewound") || why.contains("a replica's")) => false,
            started => started?,
        };
        if !started {
            self.hit("crash while recovering");
            return Ok(());
        }
        let is_replica = node.is_replica;
        let end = node.up.as_ref().map_or(Lsn::ZERO, |up| up.shipping.wal().recovery().end);
        self.hit("node restarted");
        self.say(|| format!("n{id} starts, replica: {is_replica}, with its log up to {end}"));
        if !is_replica {
            // What it recovered is its log now: commits that it has not are gone.
            self.forget_unrecovered(id)?;
        }
        self.collect()
    }

    /// A primary came back with a shorter log: what nobody was promised may be gone.
    fn forget_unrecovered(&mut self, id: u64) -> Result<(), Violation> {
        let Some(up) = self.nodes.get(&id).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let wal = up.shipping.wal();
        let (first, end, epoch) = (wal.first_lsn(), wal.recovery().end, wal.timeline().epoch);
        // The end may be that of a segment that was begun behind what was lost.
        let Ok(records) = wal.read(first..).and_then(|records| records.collect::<Result<Vec<_>, _>>()) else {
            return Ok(());
        };
        let found: BTreeSet<Lsn> = records.iter().map(|record| record.lsn).collect();
        let is_there = |lsn| lsn < first || (lsn < end && found.contains(&lsn));
        let lost = self.model.recovered(id, id == self.primary, epoch, is_there)?;
        self.report.add("replication: commit lost by a crash", lost);
        Ok(())
    }

    pub(super) fn change_links(&mut self) -> Result<(), Violation> {
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

    /// A replica goes away for so long that its primary does not count on it any more; meanwhile there is much to write.
    pub(super) fn go_away(&mut self) -> Result<(), Violation> {
        let id = self.any_node();
        let is_replica = self.nodes.get(&id).is_some_and(|node| node.is_replica && node.up.is_some());
        if self.away.is_some() || id == self.primary || !is_replica || self.is_failing_over {
            return Ok(());
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.kill();
        }
        self.settle_down(id)?;
        self.away = Some(Away { id, steps: 20 + self.rng.below(60) });
        self.hit("away for long");
        self.say(|| format!("n{id} goes away"));
        self.let_time_pass(LONG_US)?;
        self.flow(20)?;
        for _ in 0..2 {
            for _ in 0..4 {
                self.commit(self.primary)?;
            }
            self.flow(12)?;
            self.checkpoint(self.primary)?;
        }
        Ok(())
    }

    /// Messages arrive, but where links are cut, and disks come to their work.
    fn flow(&mut self, rounds: u32) -> Result<(), Violation> {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for _ in 0..rounds {
            for message in std::mem::take(&mut self.network) {
                if !self.is_cut_off(&message) {
                    self.arrive(message)?;
                }
            }
            for &id in &ids {
                self.work(id)?;
            }
            self.crash_the_powerless()?;
            self.watch()?;
            self.pass_some_time()?;
        }
        Ok(())
    }

    /// It comes back.
    pub(super) fn come_back(&mut self) {
        if let Some(away) = self.away.as_mut() {
            away.steps = away.steps.saturating_sub(1);
            self.away = self.away.take().filter(|away| away.steps > 0);
        }
    }

    pub(super) fn pass_some_time(&mut self) -> Result<(), Violation> {
        let us = 500 + self.rng.below(20_000);
        self.let_time_pass(us)
    }

    pub(super) fn let_time_pass(&mut self, us: u64) -> Result<(), Violation> {
        self.pass(us);
        let runtime = Arc::clone(&self.runtime);
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let now = self.now + node.ahead;
            let Some(up) = node.up.as_mut() else { continue };
            up.follow(now, replica::Input::Tick)?;
            let links: Vec<u64> = up.links.keys().copied().collect();
            for link in links {
                up.lead(now, link, &runtime, seawall_replication::ship::primary::Input::Tick)?;
            }
        }
        self.collect()
    }
}

impl super::node::Node {
    /// The disk has so much room yet.
    fn fill_disk(&mut self, room: u64) {
        let files = self.disk.paths().into_iter().filter(|path| path.starts_with(STORE));
        let used: usize = files.filter_map(|path| self.disk.read_file(path)).map(|bytes| bytes.len()).sum();
        self.disk.set_capacity(used as u64 + room);
        self.is_full = true;
    }
}
