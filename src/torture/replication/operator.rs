//! What an operator does: another node in the primary's place, and what was the primary back among the others.

use super::node::{Node, STORE};
use super::{Violation, World, xid};
use seawall_engine::{Ack, Error, Lsn};
use seawall_replication::ship::replica;
use seawall_wal::Wal;
use seawall_wal::disk::sim::Fault;

impl World {
    /// The operator puts another node in the primary's place.
    pub(super) fn fail_over(&mut self) -> Result<(), Violation> {
        let old = self.primary;
        let is_at_work = self.nodes.get(&old).is_some_and(|node| node.up.is_some());
        let is_put_off = is_at_work && !self.is_failing_over && self.rng.chance(2, 3);
        if is_put_off || !self.deposed.is_empty() {
            return Ok(());
        }
        let others: Vec<u64> = self.nodes.keys().copied().filter(|id| *id != old).collect();
        for &id in &others {
            self.restart(id)?;
        }
        self.crash_the_powerless()?;
        let is_up = |id: &u64| self.nodes.get(id).is_some_and(|node| node.up.is_some());
        if !others.iter().all(is_up) {
            return Ok(());
        }
        // What has never come to its image's end is no store yet.
        let is_filled = |id: &u64| {
            let up = self.nodes.get(id).and_then(|node| node.up.as_ref());
            up.is_some_and(|up| up.shipping.wal().is_filled())
        };
        if !others.iter().any(is_filled) {
            return Ok(());
        }
        let epoch = self.epoch + 1;
        (self.is_failing_over, self.epoch) = (true, epoch);
        // First they promise: from then on none of them acknowledges anything to the old one.
        for &id in &others {
            let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) else { return Ok(()) };
            if up.shipping.fence(epoch).is_err() || up.shipping.wal().sync_replica().is_err() {
                return self.crash_the_powerless();
            }
            up.follow(self.now, replica::Input::Fenced { epoch })?;
        }
        let tail = |id: &u64| {
            let up = self.nodes.get(id).and_then(|node| node.up.as_ref());
            up.map(|up| (up.shipping.wal().tail().epoch, up.shipping.wal().tail().place))
        };
        let is_filled = |id: &&u64| {
            let up = self.nodes.get(id).and_then(|node| node.up.as_ref());
            up.is_some_and(|up| up.shipping.wal().is_filled())
        };
        let Some(&chosen) = others.iter().filter(is_filled).max_by_key(|id| tail(id)) else {
            return Ok(());
        };
        self.promote(chosen, old, epoch + 1, is_at_work)
    }

    pub(super) fn promote(
        &mut self,
        chosen: u64,
        old: u64,
        epoch: u64,
        is_at_work: bool,
    ) -> Result<(), Violation> {
        self.model.poll();
        (self.is_failing_over, self.epoch) = (false, epoch);
        let fails = self.rng.chance(1, 4) && !self.is_healed;
        let at = 1 + self.rng.below(12);
        let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
        if fails {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        let Some(up) = node.up.as_mut() else { return Ok(()) };
        up.follow(self.now, replica::Input::Close)?;
        up.follower = None;
        let promoted = up.shipping.promote(epoch);
        self.say(|| format!("n{chosen} is promoted, epoch {epoch}: {promoted:?}"));
        if promoted.is_err() {
            self.hit("promotion cut short");
            let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
            if promoted.as_ref().is_err_and(|why| !node.is_explained(why)) {
                return Err(format!("n{chosen} is not promoted: {promoted:?}"));
            }
            node.crash();
            self.settle_down(chosen)?;
            // What it is now is said by its log.
            let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
            node.disk.clear_faults();
            let seed = self.rng.next_u64();
            let opened = node.builder().replica(true).ack(Ack::Durable).create(false).open();
            node.is_replica = !matches!(&opened, Err(Error::BadInput(why)) if why.contains("no replica"));
            drop(opened);
            if node.is_replica {
                node.start(self.now, &self.policy, seed)?;
                let Some(up) = node.up.as_mut() else { return Err("it does not start".to_owned()) };
                up.follower = None;
                up.shipping.promote(epoch).map_err(|error| format!("n{chosen}: {error}"))?;
            } else {
                node.start(self.now, &self.policy, seed)?;
            }
        }
        let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
        node.is_replica = false;
        let Some(up) = node.up.as_mut() else { return Err("the promoted node is down".to_owned()) };
        up.table = super::node::table_of(&self.policy, &up.shipping);
        let timeline = up.shipping.wal().timeline();
        let fork = timeline.history.turns().last().map_or(Lsn::ZERO, |turn| turn.start);
        if timeline.epoch != epoch {
            return Err(format!("n{chosen} was promoted to epoch {epoch} and is in {}", timeline.epoch));
        }
        self.model.forget_tickets();
        let lost = self.model.fork(fork)?;
        self.report.add("replication: commit lost by a promotion", lost);
        self.hit("promotion");
        if is_at_work {
            self.hit("promotion beside a primary at work");
        }
        self.primary = chosen;
        self.deposed.insert(old);
        for node in self.nodes.values_mut() {
            node.upstream = chosen;
        }
        self.check_prepared(chosen)?;
        self.collect()
    }

    /// What was prepared before is prepared there, with its locks.
    pub(super) fn check_prepared(&mut self, id: u64) -> Result<(), Violation> {
        let Some(up) = self.nodes.get(&id).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let mut met = 0;
        for name in self.model.prepared.keys() {
            match up.db.prepared_by(&xid(*name)?) {
                Ok(Some(_)) => met += 1,
                Ok(None) => return Err(format!("n{id} does not have what was prepared as {name}")),
                Err(error) => return Err(error.to_string()),
            }
        }
        self.report.add("replication: prepared, and promoted over", met);
        Ok(())
    }

    /// What was the primary comes back: rewound to where the two logs part.
    pub(super) fn rejoin(&mut self) -> Result<(), Violation> {
        let Some(&id) = self.deposed.first() else { return Ok(()) };
        let Some(up) = self.nodes.get(&self.primary).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let timeline = up.shipping.wal().timeline();
        let fails = self.rng.chance(1, 4) && !self.is_healed;
        let at = 1 + self.rng.below(20);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.up.is_some() {
            node.kill();
        }
        if fails {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        let rewound = rewind(node, &timeline);
        let has_power = node.disk.has_power();
        self.say(|| format!("n{id} is rewound: {rewound:?}"));
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        match rewound {
            Ok(()) => {}
            // Both of its superblocks are newer.
            Err(Error::NeedsImage { .. }) => return self.copy_anew(id),
            Err(why) if has_power && !node.is_explained(&why) => {
                return Err(format!("n{id} is not rewound: {why}"));
            }
            Err(_) => {
                node.crash();
                self.hit("rewinding cut short");
                return self.settle_down(id);
            }
        }
        node.is_replica = true;
        node.upstream = self.primary;
        self.deposed.remove(&id);
        self.hit("rewound");
        self.settle_down(id)?;
        self.restart(id)
    }

    /// What was the primary comes back, on a new disk.
    pub(super) fn copy_anew(&mut self, id: u64) -> Result<(), Violation> {
        let seed = self.rng.next_u64();
        let Some(of) = self.nodes.get(&self.primary) else { return Ok(()) };
        let Some(up) = of.up.as_ref() else { return Ok(()) };
        let (log, at) = (up.shipping.wal().clone(), up.db.stats().checkpoint_lsn);
        let data = of.disk.read_file(format!("{STORE}/data")).ok_or("no data file")?;
        let primary = self.primary;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.up.is_some() {
            node.kill();
        }
        node.replace_disk(seed);
        node.clone_of(&data, &log, at)?;
        node.is_replica = true;
        node.upstream = primary;
        self.deposed.remove(&id);
        self.hit("new image");
        self.settle_down(id)?;
        self.restart(id)
    }
}

/// Where the two logs part is said by their histories.
fn rewind(node: &Node, timeline: &seawall_wal::Timeline) -> Result<(), Error> {
    let log = format!("{STORE}/log");
    let options = Wal::options().disk(node.disk.clone()).runtime(node.runtime().clone()).background(false);
    let (fork, promised) = match options.read_only(true).open(&log) {
        Ok(old) => {
            let (tail, own) = (old.tail(), old.timeline());
            let fork = timeline.history.fork(&own.history, tail.epoch, tail.place).unwrap_or(tail.place);
            (fork, own.promised)
        }
        // It was cut short on the way, and is to go on.
        Err(_) => (timeline.history.turns().last().map_or(Lsn::ZERO, |turn| turn.start), 0),
    };
    let epoch = timeline.epoch.max(promised);
    seawall_engine::rewind(&node.builder(), fork, epoch, &timeline.history).map(drop)
}
