//! A node: a disk, and, while it is up, a store with the machines that ship its log, or follow another's.

use super::Violation;
use bytes::Bytes;
use seawall_engine::mutation::Mutation as EngineMutation;
use seawall_engine::{Ack, Db, Error, Keyspace, Lsn, Shipping, SlotOptions, SlotState, SlotStatus, Spilling};
use seawall_replication::ack::{Level, Policy, Reached, Table};
use seawall_replication::message::{Awaited, Compression, Message, Name, Piece};
use seawall_replication::mutation::Mutation;
use seawall_replication::node::{Keeper, Keeping, accept, open_log, own};
use seawall_replication::ship::primary::{self, Progress};
use seawall_replication::ship::replica::{self, State};
use seawall_replication::ship::{Primary, Replica};
use seawall_replication::timeline::{History, Tail};
use seawall_wal::mutation::Mutation as WalMutation;
use seawall_wal::{Runtime, Shipper, SimDisk, SimRuntime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) const STORE: &str = "/home/store";
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;

/// The mistake of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mistake {
    pub(super) log: Option<WalMutation>,
    pub(super) engine: Option<EngineMutation>,
    pub(super) machine: Option<Mutation>,
}

pub(super) struct Node {
    pub(super) id: u64,
    pub(super) disk: Arc<SimDisk>,
    pub(super) up: Option<Up>,
    /// Whether its store is opened as a replica's.
    pub(super) is_replica: bool,
    /// Of whom, as far as it has been told.
    pub(super) upstream: u64,
    /// What its clock is ahead of the world's, in microseconds.
    pub(super) ahead: u64,
    /// Whether there is no store yet.
    pub(super) is_blank: bool,
    /// Whether its disk has little room.
    pub(super) is_full: bool,
    /// It applies what is so old, in microseconds.
    delay_us: u64,
    runtime: Arc<SimRuntime>,
    mistake: Mistake,
}

pub(super) struct Up {
    pub(super) db: Db,
    pub(super) keeper: Keeper,
    pub(super) shipping: Shipping,
    /// Sessions of those that follow, by connection.
    pub(super) links: BTreeMap<u64, Link>,
    /// Whose acknowledgements count; of a primary.
    pub(super) table: Table,
    pub(super) follower: Option<Following>,
    /// What it has shown is below this.
    pub(super) seen: Lsn,
    /// It was told to take no more writes.
    pub(super) is_fenced: bool,
    /// What goes out: connection, whether to the primary, and what.
    pub(super) out: Vec<(u64, bool, Message)>,
    pub(super) counts: Vec<&'static str>,
}

pub(super) struct Link {
    machine: Primary,
    shipper: Option<Shipper>,
    reading: Option<(Lsn, usize)>,
    name: Option<Name>,
}

pub(super) struct Following {
    pub(super) machine: Replica,
    /// The attempt, and the connection that it has.
    pub(super) dialling: Option<u64>,
    pub(super) connection: Option<(u64, u64)>,
    syncs: bool,
    /// Up to where it is to apply.
    applies: Option<Lsn>,
}

pub(super) fn name_of(id: u64) -> Option<Name> {
    Name::new(&format!("n{id}"))
}

impl Node {
    pub(super) fn new(
        id: u64,
        seed: u64,
        runtime: &Arc<SimRuntime>,
        mistake: Mistake,
        delay_us: u64,
    ) -> Node {
        Node {
            id,
            disk: SimDisk::new(seed),
            up: None,
            is_replica: true,
            upstream: 1,
            ahead: 0,
            is_blank: false,
            is_full: false,
            delay_us,
            runtime: Arc::clone(runtime),
            mistake,
        }
    }

    /// The process starts. False if a fault is in the way; then it is down.
    pub(super) fn start(
        &mut self,
        now: u64,
        policy: &Policy,
        limits: SlotOptions,
        seed: u64,
    ) -> Result<bool, Violation> {
        let now = now + self.ahead;
        match self.open() {
            Ok(db) => {
                let shipping = db.shipping();
                let table = table_of(policy, &shipping);
                let follower = match self.is_replica {
                    true => Some(self.follow(&shipping, now, seed)?),
                    false => None,
                };
                let (links, out, counts) = (BTreeMap::new(), Vec::new(), Vec::new());
                let (seen, keeper) = (Lsn::ZERO, Keeper::new(&db, limits, self.runtime.clone()));
                let is_fenced = false;
                self.up =
                    Some(Up { db, keeper, shipping, links, table, follower, seen, is_fenced, out, counts });
                Ok(true)
            }
            Err(error) if self.is_explained(&error) => {
                self.crash();
                Ok(false)
            }
            Err(error) => Err(format!("n{} does not start: {error}", self.id)),
        }
    }

    pub(super) fn builder(&self) -> seawall_engine::DbBuilder {
        Db::builder(STORE)
            .segment_bytes(SEGMENT_BYTES)
            .memory_budget(1 << 20)
            .disk(self.disk.clone())
            .runtime(self.runtime.clone())
            .background(false)
            .spilling(match self.id % 3 {
                0 => Spilling::Rolling(2),
                1 => Spilling::Below(2),
                _ => Spilling::Weighed,
            })
            .ack_timeout(Duration::from_millis(1))
            .mutation(self.mistake.engine)
            .log_mutation(self.mistake.log)
    }

    fn open(&self) -> Result<Db, Error> {
        self.builder().replica(self.is_replica).ack(Ack::Durable).create(false).open()
    }

    fn follow(&self, shipping: &Shipping, now: u64, seed: u64) -> Result<Following, Violation> {
        let name = name_of(self.id).ok_or("a name")?;
        let settings = replica::Settings {
            heartbeat_us: 20_000,
            timeout_us: 200_000,
            pause_us: (1_000, 40_000),
            gap_us: 40_000,
            window_bytes: 128 << 10,
            delay_us: self.delay_us,
            seed,
            mutation: self.mistake.machine,
            ..replica::Settings::new(name)
        };
        let machine = Replica::new(settings, shipping.store_id(), own(shipping), now);
        Ok(Following { machine, dialling: None, connection: None, syncs: false, applies: None })
    }

    pub(super) fn session(&self) -> primary::Settings {
        primary::Settings {
            heartbeat_us: 20_000,
            visible_us: 1_000,
            timeout_us: 200_000,
            read_bytes: 24 << 10,
            ahead_bytes: 64 << 10,
            window_bytes_max: 128 << 10,
            compression: match self.id.is_multiple_of(2) {
                true => Compression::Lz4,
                false => Compression::None,
            },
            mutation: self.mistake.machine,
        }
    }

    pub(super) fn is_explained(&self, error: &Error) -> bool {
        matches!(error, Error::Io { .. } | Error::NoSpace | Error::Poisoned(_) | Error::CommitUnknown { .. })
            || !self.disk.has_power()
    }

    /// The power fails: what was not synced may be gone, or torn, or there.
    pub(super) fn crash(&mut self) {
        let next = self.disk.crash();
        self.up = None;
        self.disk = next;
    }

    /// The process ends, and the power stays.
    pub(super) fn kill(&mut self) {
        let next = self.disk.kill();
        self.up = None;
        self.disk = next;
    }

    /// Another disk, with nothing on it.
    pub(super) fn replace_disk(&mut self, seed: u64) {
        self.disk = SimDisk::new(seed);
        (self.is_blank, self.is_full) = (true, false);
    }

    pub(super) fn keyspace(&self) -> Option<Keyspace> {
        self.up.as_ref().and_then(|up| up.db.open_keyspace("rows").ok().flatten())
    }

    pub(super) fn runtime(&self) -> &Arc<SimRuntime> {
        &self.runtime
    }
}

/// R10: what counts is acknowledged with something of the primary's own epoch.
pub(super) fn table_of(policy: &Policy, shipping: &Shipping) -> Table {
    Table::new(policy.clone()).of_epoch(History::from(&shipping.wal().timeline().history).begins())
}

impl Up {
    fn progress(&self, runtime: &SimRuntime) -> Progress {
        let now_us = runtime.wall_clock_us();
        let durable = self.shipping.wal().durable_lsn();
        let epoch = self.shipping.wal().timeline().history.epoch();
        Progress { visible: self.shipping.visible(), durable, time_us: now_us, now_us, epoch }
    }

    /// Somebody connects.
    pub(super) fn accept(&mut self, now: u64, connection: u64, settings: primary::Settings) {
        let wal = self.shipping.wal();
        let timeline = wal.timeline();
        let own = primary::Own {
            store_id: self.shipping.store_id(),
            history: History::from(&timeline.history),
            promised: timeline.promised,
        };
        let machine = Primary::new(settings, own, now);
        self.links.insert(connection, Link { machine, shipper: None, reading: None, name: None });
    }

    /// One who follows says something; or time passes for its session.
    pub(super) fn lead(
        &mut self,
        now: u64,
        connection: u64,
        runtime: &SimRuntime,
        input: primary::Input,
    ) -> Result<(), Violation> {
        let progress = self.progress(runtime);
        let Some(mut link) = self.links.remove(&connection) else { return Ok(()) };
        let mut effects = link.machine.step(now, primary::Input::Moved(progress));
        let is_asked = |level| self.db.shipping().is_asked(level);
        let awaited = Awaited { received: is_asked(Ack::Received), applied: is_asked(Ack::Applied) };
        effects.extend(link.machine.step(now, primary::Input::Awaited(awaited)));
        effects.extend(link.machine.step(now, input));
        let mut queue: std::collections::VecDeque<primary::Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                primary::Effect::Send(message) => self.out.push((connection, false, message)),
                primary::Effect::Open { name, tail, .. } => {
                    let (opened, shipper) = self.open_for(&name, tail)?;
                    link.shipper = shipper;
                    link.name = Some(name);
                    queue.extend(link.machine.step(now, primary::Input::Opened(opened)));
                }
                primary::Effect::Read { from, bytes_max } => link.reading = Some((from, bytes_max)),
                primary::Effect::Acked(marks) => {
                    let name = link.name.as_ref().map(|name| name.as_str().to_owned()).unwrap_or_default();
                    self.keeper.advance_slot(&name, marks.durable);
                    let reached = self.table.update(&name, Reached::from(marks));
                    self.acknowledge(reached);
                }
                primary::Effect::Fence { epoch, .. } => {
                    self.counts.push("primary fenced");
                    self.is_fenced = !self.shipping.is_replica();
                    // It has nothing to say against it but that the disk has failed: then nobody is answered.
                    let _ = self.shipping.fence(epoch);
                    if self.shipping.wal().timeline().promised < epoch {
                        self.counts.push("promise that could not be kept");
                        queue = [primary::Effect::Close].into();
                    }
                }
                primary::Effect::Violation(what) => return Err(format!("a follower's {what}")),
                primary::Effect::Close => {
                    if let Some(name) = &link.name {
                        let reached = self.table.leave(name.as_str());
                        self.acknowledge(reached);
                    }
                    return Ok(());
                }
                other => return Err(format!("an effect unknown here: {other:?}")),
            }
        }
        self.links.insert(connection, link);
        Ok(())
    }

    /// The log from where another's ends. For whoever has a slot it is there.
    fn open_for(&mut self, name: &Name, tail: Tail) -> Result<(primary::Opened, Option<Shipper>), Violation> {
        let is_own = |slot: &&SlotStatus| slot.name == name.as_str();
        let slot = self.db.slots().iter().find(is_own).map(|slot| (slot.state, slot.lsn));
        // A slot keeps the log for it, and a way back for this store.
        if self.keeper.keeps(name.as_str(), tail.place).is_err() {
            self.counts.push("slot that could not be made");
            return Ok((primary::Opened::Failed, None));
        }
        let (opened, shipper) = open_log(self.shipping.wal(), tail);
        let is_gone = matches!(opened, primary::Opened::Gone { .. });
        match slot {
            Some((SlotState::Lost, _)) if is_gone => self.counts.push("log of a lost slot gone"),
            Some((_, lsn))
                if is_gone && lsn <= tail.place && tail.place < self.shipping.wal().first_place() =>
            {
                return Err(format!("{name} has a slot, and its log from {} on is gone", tail.place));
            }
            Some(_) if opened == primary::Opened::Ready && self.has_folded(tail.place) => {
                self.counts.push("went on with log that a slot has kept");
            }
            _ => {}
        }
        Ok((opened, shipper))
    }

    /// Whether this store needs no log there any more.
    fn has_folded(&self, place: Lsn) -> bool {
        self.db.stats().checkpoint_lsn > place.plus(2 * SEGMENT_BYTES)
    }

    fn acknowledge(&self, reached: Reached) {
        let levels = [Ack::Received, Ack::Durable, Ack::Applied].into_iter().zip(Level::ALL);
        for (ack, level) in levels {
            if reached.of(level) > Lsn::ZERO && !self.shipping.is_replica() {
                self.shipping.acked(ack, reached.of(level));
            }
        }
    }

    /// What sessions wait for from the log.
    pub(super) fn read_on(&mut self, now: u64, runtime: &SimRuntime) -> Result<(), Violation> {
        let connections: Vec<u64> = self.links.keys().copied().collect();
        for connection in connections {
            let Some(link) = self.links.get_mut(&connection) else { continue };
            let (Some((from, bytes_max)), Some(shipper)) = (link.reading, link.shipper.as_mut()) else {
                continue;
            };
            let input = match shipper.next_piece(bytes_max) {
                Ok(Some(piece)) => {
                    let piece = Piece::plain(from, piece.at, Bytes::from(piece.bytes));
                    primary::Input::Pieces(vec![piece])
                }
                Ok(None) => continue,
                Err(_) => primary::Input::Ended,
            };
            link.reading = None;
            self.lead(now, connection, runtime, input)?;
        }
        Ok(())
    }

    /// The replica's machine goes on.
    pub(super) fn follow(&mut self, now: u64, input: replica::Input) -> Result<(), Violation> {
        let Some(mut following) = self.follower.take() else { return Ok(()) };
        let mut queue: std::collections::VecDeque<replica::Effect> =
            following.machine.step(now, input).into();
        let wal = self.shipping.wal().clone();
        while let Some(effect) = queue.pop_front() {
            match effect {
                replica::Effect::Dial { session, .. } => following.dialling = Some(session),
                replica::Effect::Send(message) => {
                    if let Some((_, connection)) = following.connection {
                        self.out.push((connection, true, message));
                    }
                }
                replica::Effect::Promise { history } => {
                    let log = seawall_wal::History::from(&history);
                    let input = match wal.promise(history.epoch(), &log) {
                        Ok(()) => replica::Input::Promised,
                        Err(_) => replica::Input::Failed,
                    };
                    queue.extend(following.machine.step(now, input));
                }
                replica::Effect::Accept(piece) => {
                    let (input, _) = accept(&wal, piece);
                    queue.extend(following.machine.step(now, input));
                }
                replica::Effect::Sync => following.syncs = true,
                replica::Effect::Apply { to } => following.applies = Some(to),
                replica::Effect::Show { limit } => self.shipping.set_visible_limit(limit),
                replica::Effect::Violation(_) => self.counts.push("protocol violated by what came late"),
                replica::Effect::Hang => following.connection = None,
                other => return Err(format!("an effect unknown here: {other:?}")),
            }
        }
        self.follower = Some(following);
        Ok(())
    }

    /// The replica's disk, and its store, do what was asked of them.
    pub(super) fn work(&mut self, now: u64) -> Result<(), Violation> {
        let Some(following) = self.follower.as_mut() else { return Ok(()) };
        let (syncs, applies) = (std::mem::take(&mut following.syncs), std::mem::take(&mut following.applies));
        if syncs {
            match self.shipping.wal().sync_replica() {
                Ok(durable) => self.follow(now, replica::Input::Synced { durable })?,
                // Nothing was promised: it is tried again.
                Err(seawall_wal::Error::NoSpace) => {
                    self.counts.push("replica waits for room");
                    self.follower.iter_mut().for_each(|following| following.syncs = true);
                }
                Err(_) => self.follow(now, replica::Input::Failed)?,
            }
        }
        if let Some(to) = applies {
            let input = match self.shipping.apply_to(to) {
                Ok(applied) => replica::Input::Applied { applied, visible: self.shipping.visible() },
                Err(Error::Corruption { what, .. }) => return Err(format!("it cannot be applied: {what}")),
                Err(_) => replica::Input::Failed,
            };
            self.follow(now, input)?;
        }
        Ok(())
    }

    pub(super) fn connected(&mut self, now: u64, session: u64, connection: u64) -> Result<(), Violation> {
        let own = own(&self.shipping);
        if let Some(following) = self.follower.as_mut() {
            following.connection = Some((session, connection));
        }
        self.follow(now, replica::Input::Connected { session, own })
    }

    pub(super) fn state(&self) -> Option<&State> {
        self.follower.as_ref().map(|following| following.machine.state())
    }
}
