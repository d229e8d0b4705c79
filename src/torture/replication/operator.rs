//! What an operator does: another node in the primary's place, and what was the primary back among the others.

use super::node::{Node, STORE};
use super::{Violation, World};
use seawall_engine::{Ack, Error, ImageWriter, Lsn};
use seawall_replication::decide::{Candidate, MostAdvanced, PromotionPolicy};
use seawall_replication::node::Keeping;
use seawall_replication::ship::replica;
use seawall_wal::disk::BLOCK_BYTES;
use seawall_wal::disk::sim::Fault;
use seawall_wal::{History, Tail, Wal};

/// What the log of one was that has parted from its primary's, before anything was taken back.
#[derive(Clone, Copy)]
pub(super) struct Parted {
    tail: Tail,
    history: History,
    promised: u64,
    /// Where it goes back to, once that has begun.
    to: Lsn,
}

impl World {
    fn up(&self, id: u64) -> Option<&super::node::Up> {
        self.nodes.get(&id).and_then(|node| node.up.as_ref())
    }

    /// Whether what a node says of its log can be relied on: one that was given a new image has forgotten what it has
    /// acknowledged, and counts once it has as much as its primary had then.
    fn counts(&self, id: u64) -> bool {
        let Some(up) = self.up(id) else { return false };
        let from = self.newcomers.get(&id).copied().unwrap_or_default();
        let durable = up.shipping.wal().durable_lsn().0.next_multiple_of(BLOCK_BYTES as u64);
        up.shipping.is_replica() && up.shipping.wal().is_filled() && Lsn(durable) >= from
    }

    /// The operator puts another node in the primary's place.
    pub(super) fn fail_over(&mut self) -> Result<(), Violation> {
        let old = self.primary;
        let is_at_work = self.up(old).is_some();
        if is_at_work && !self.is_failing_over && self.rng.chance(2, 3) {
            return Ok(());
        }
        let others: Vec<u64> = self.nodes.keys().copied().filter(|id| *id != old).collect();
        let heard_min = (others.len() + 1).saturating_sub(self.acks);
        let mut heard = Vec::new();
        for &id in &others {
            if self.deposed.contains_key(&id) {
                continue;
            }
            self.restart(id)?;
            if self.counts(id) {
                heard.push(id);
            }
        }
        self.crash_the_powerless()?;
        heard.retain(|id| self.up(*id).is_some());
        if heard.len() < heard_min {
            return Ok(());
        }
        // Often there are no more than it takes.
        while heard.len() > heard_min && self.rng.chance(1, 2) {
            let one = self.rng.below(heard.len() as u64) as usize;
            heard.remove(one);
        }
        let epoch = self.epoch + 1;
        (self.is_failing_over, self.epoch) = (true, epoch);
        // First they promise: from then on none of them acknowledges anything to the old one.
        for &id in &heard {
            let now = self.clock(id);
            let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) else { return Ok(()) };
            if up.shipping.fence(epoch).is_err() || up.shipping.wal().sync_replica().is_err() {
                return self.crash_the_powerless();
            }
            up.follow(now, replica::Input::Fenced { epoch })?;
        }
        let candidate = |id: &u64| {
            let tail = self.up(*id)?.shipping.wal().tail();
            Some(Candidate { name: id.to_string(), tail, is_eligible: true })
        };
        let candidates: Vec<Candidate> = heard.iter().filter_map(candidate).collect();
        let policy = MostAdvanced::of_quorum(self.acks, others.len());
        let chosen = policy.choose(&candidates).and_then(|name| name.parse().ok());
        let Some(chosen) = chosen else { return Ok(()) };
        if heard.len() < others.len() {
            self.hit("promotion by a part of the others");
        }
        self.promote(chosen, old, epoch + 1, is_at_work)
    }

    pub(super) fn promote(
        &mut self,
        chosen: u64,
        old: u64,
        epoch: u64,
        is_at_work: bool,
    ) -> Result<(), Violation> {
        self.model.poll()?;
        (self.is_failing_over, self.epoch) = (false, epoch);
        let fails = self.rng.chance(1, 4) && !self.is_healed;
        let at = 1 + self.rng.below(12);
        let now = self.clock(chosen);
        let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
        if fails {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        let Some(up) = node.up.as_mut() else { return Ok(()) };
        up.follow(now, replica::Input::Close)?;
        up.follower = None;
        let promoted = up.shipping.promote(epoch);
        self.say(|| format!("n{chosen} is promoted, epoch {epoch}: {promoted:?}"));
        if let Err(why) = promoted {
            self.promote_again(chosen, epoch, &why)?;
        }
        let policy = self.policy_of(chosen)?;
        let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
        node.is_replica = false;
        let Some(up) = node.up.as_mut() else { return Err("the promoted node is down".to_owned()) };
        up.table = super::node::table_of(&policy, &up.shipping);
        let timeline = up.shipping.wal().timeline();
        if timeline.epoch != epoch {
            return Err(format!("n{chosen} was promoted to epoch {epoch} and is in {}", timeline.epoch));
        }
        let fork = self.model.fork(&timeline.history)?;
        for (name, n) in [
            ("commit lost by a promotion", fork.lost),
            ("commit that another promotion had lost, back", fork.back),
            ("acknowledged, and promoted over", fork.acked),
            ("shown by a replica, and promoted over", fork.shown),
        ] {
            self.report.add(format!("replication: {name}"), n);
        }
        self.hit("promotion");
        if is_at_work {
            self.hit("promotion beside a primary at work");
        }
        let begin = self.model.begin();
        self.newcomers.values_mut().for_each(|from| *from = begin.min(*from));
        self.primary = chosen;
        self.deposed.insert(old, None);
        self.newcomers.remove(&chosen);
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            // Some have not heard of it, and some ask the old one first.
            let keeps = is_at_work && !self.is_healed && self.rng.chance(1, 3);
            if let Some(node) = self.nodes.get_mut(&id).filter(|_| !keeps) {
                node.upstream = chosen;
            }
        }
        self.check_promoted(chosen)?;
        self.check_prepared(chosen)?;
        self.collect()
    }

    /// It was cut short, and is repeated, as its log then says what it is.
    fn promote_again(&mut self, chosen: u64, epoch: u64, why: &Error) -> Result<(), Violation> {
        self.hit("promotion cut short");
        let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
        if !node.is_explained(why) {
            return Err(format!("n{chosen} is not promoted: {why}"));
        }
        node.crash();
        self.settle_down(chosen)?;
        let (policy, limits, seed) = (self.policy_of(chosen)?, self.limits, self.rng.next_u64());
        let Some(node) = self.nodes.get_mut(&chosen) else { return Ok(()) };
        node.disk.clear_faults();
        node.disk.set_capacity(u64::MAX);
        let opened = node.builder().replica(true).ack(Ack::Durable).create(false).open();
        node.is_replica = !matches!(&opened, Err(Error::BadInput(why)) if why.contains("no replica"));
        drop(opened);
        node.start(self.now, &policy, limits, seed)?;
        let Some(up) = node.up.as_mut().filter(|_| node.is_replica) else { return Ok(()) };
        up.follower = None;
        up.shipping.promote(epoch).map(drop).map_err(|error| format!("n{chosen}: {error}"))
    }

    /// What was the primary comes back: rewound to where the two logs part.
    pub(super) fn rejoin(&mut self) -> Result<(), Violation> {
        let Some(id) = self.deposed.keys().next().copied().filter(|_| !self.is_failing_over) else {
            return Ok(());
        };
        let Some(up) = self.up(self.primary) else { return Ok(()) };
        let timeline = up.shipping.wal().timeline();
        let fails = self.rng.chance(1, 4) && !self.is_healed;
        let at = 1 + self.rng.below(20);
        let known = self.deposed.get(&id).copied().flatten();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.up.is_some() {
            node.kill();
            self.settle_down(id)?;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(parted) = known.or_else(|| parted(node)) else { return self.copy_anew(id) };
        let fork = timeline.history.fork(&parted.history, parted.tail.epoch, parted.tail.place);
        let to = fork.unwrap_or(parted.tail.place).min(parted.to);
        self.deposed.insert(id, Some(Parted { to, ..parted }));
        if fails {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        let epoch = timeline.epoch.max(parted.promised);
        let rewound = seawall_engine::rewind(&node.builder(), to, epoch, &timeline.history);
        let (has_power, is_explained) =
            (node.disk.has_power(), rewound.as_ref().is_err_and(|why| node.is_explained(why)));
        self.say(|| format!("n{id} is rewound to {to}: {rewound:?}"));
        match rewound {
            Ok(_) => {}
            // Both of its superblocks are newer.
            Err(Error::NeedsImage { .. }) => return self.copy_anew(id),
            Err(why) if has_power && !is_explained => return Err(format!("n{id} is not rewound: {why}")),
            Err(_) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.crash();
                }
                self.hit("rewinding cut short");
                return self.settle_down(id);
            }
        }
        self.hit("rewound");
        self.join(id)
    }

    fn join(&mut self, id: u64) -> Result<(), Violation> {
        let primary = self.primary;
        if let Some(node) = self.nodes.get_mut(&id) {
            (node.is_replica, node.is_blank) = (true, false);
            node.upstream = primary;
        }
        self.deposed.remove(&id);
        self.settle_down(id)?;
        self.restart(id)
    }

    /// A node begins with an image, on a new disk: the primary's, or another replica's.
    pub(super) fn copy_anew(&mut self, id: u64) -> Result<(), Violation> {
        let (seed, fails) = (self.rng.next_u64(), self.rng.chance(1, 4) && !self.is_healed);
        let at = 1 + self.rng.below(40);
        let replicas: Vec<u64> = self
            .nodes
            .keys()
            .copied()
            .filter(|of| *of != id && self.counts(*of) && !self.has_parted(*of))
            .collect();
        let of = match self.rng.chance(1, 3) && !replicas.is_empty() {
            true => {
                replicas.get(self.rng.below(replicas.len() as u64) as usize).copied().unwrap_or(self.primary)
            }
            false => self.primary,
        };
        let (Some(of_up), Some(lead)) = (self.up(of), self.up(self.primary)) else { return Ok(()) };
        let name = super::node::name_of(id).ok_or("a name")?;
        // First the slot: it keeps the log that the image is followed with.
        if lead.keeper.keep(name.as_str()).is_err() {
            return Ok(());
        }
        let (from, timeline) = (lead.shipping.wal().durable_lsn(), lead.shipping.wal().timeline());
        let Ok(image) = of_up.db.image() else { return Ok(()) };
        let from = from.max(image.info().checkpoint_lsn);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.up.is_some() {
            node.kill();
            self.model.forget_tickets(id);
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        node.replace_disk(seed);
        if fails {
            node.disk.fail(Fault::power_cut().at_call(at));
        }
        // A power cut in between: it goes on where it was.
        for _ in 0..2 {
            let copied = copy(&node.builder(), &image, &timeline);
            match copied {
                Ok(()) => {
                    self.newcomers.insert(id, from);
                    self.hit(if of == self.primary { "new image" } else { "new image, of a replica's" });
                    self.say(|| format!("n{id} begins with an image of n{of}'s"));
                    return self.join(id);
                }
                Err(_) if !node.disk.has_power() => {
                    node.crash();
                    self.report.hit("replication: image cut short");
                }
                // The one that is copied has failed.
                Err(_) => break,
            }
        }
        self.deposed.insert(id, None);
        self.settle_down(id)
    }
}

/// What its log is; none if there is no log.
fn parted(node: &Node) -> Option<Parted> {
    let log = format!("{STORE}/log");
    let options = Wal::options().disk(node.disk.clone()).runtime(node.runtime().clone()).background(false);
    let options = options.read_only(true).create(false).replica(node.is_replica);
    let old = options.open(&log).ok()?;
    let (tail, own) = (old.tail(), old.timeline());
    Some(Parted { tail, history: own.history, promised: own.promised, to: Lsn::MAX })
}

/// Copies an image.
pub(super) fn copy(
    builder: &seawall_engine::DbBuilder,
    image: &seawall_engine::Image,
    timeline: &seawall_wal::Timeline,
) -> Result<(), Error> {
    let mut writer = ImageWriter::begin(builder, image.info())?;
    while let Some(piece) = image.piece(writer.offset(), 16 << 10)? {
        writer.write(&piece)?;
    }
    writer.finish(timeline.epoch, &timeline.history)
}
