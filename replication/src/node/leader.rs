//! The primary's side: a session for each replica that connects, acknowledgements, and what becomes visible.

use super::crew::Crew;
use super::inbox::Inbox;
use super::link::{Link, LinkListener};
use super::{Ear, FollowerStatus, Host, ImageSource, Keeping, Status, Wire};
use crate::ack::{Level, Policy, Reached, Table};
use crate::message::{Awaited, Message, Name};
use crate::ship::primary::{Opened, Own, Progress, Settings};
use crate::timeline::History;
use parking_lot::Mutex;
use seawall_engine::{Ack, Shipping};
use seawall_wal::{Lsn, OsRuntime, Runtime};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

mod links;
mod reader;
mod session;

use links::Links;
#[doc(hidden)]
pub use reader::open_log;
use session::Session;

/// How often what is visible is looked at where nothing moves.
const IDLE: Duration = Duration::from_millis(500);

/// How a store is shipped from.
#[derive(Clone)]
#[non_exhaustive]
pub struct LeaderOptions {
    /// How sessions behave.
    pub settings: Settings,
    /// Whose acknowledgement commits wait for, where they wait for any ([`Ack`]); none: nobody's counts.
    pub policy: Option<Policy>,
    /// Sessions at a time.
    pub sessions_max: usize,
    /// Slots and images; none: there are none, and a replica that names a slot is refused.
    pub keeping: Option<Arc<dyn Keeping>>,
    /// Told of a higher epoch once that is promised, before whoever spoke of it is answered: a replica that ships on must have
    /// left its own primary by then ([`Follower::fenced`](super::Follower::fenced)).
    pub on_fence: Option<Arc<dyn Fn(u64) + Send + Sync>>,
    /// Of a replica that ships on: how far the primary is ([`Follower::distance`](super::Follower::distance)). None: near.
    pub distance: Option<Arc<dyn Fn() -> Option<u8> + Send + Sync>>,
    /// Told of replicas that come and go.
    pub listener: Option<Arc<dyn LinkListener>>,
    /// Clock and threads.
    pub runtime: Arc<dyn Runtime>,
}

impl Default for LeaderOptions {
    fn default() -> LeaderOptions {
        LeaderOptions {
            settings: Settings::default(),
            policy: None,
            sessions_max: 64,
            keeping: None,
            on_fence: None,
            distance: None,
            listener: None,
            runtime: OsRuntime::new(),
        }
    }
}

/// Ships a store's log to those that connect. Dropping it ends all sessions. A replica's log can be shipped on in the same way:
/// then nobody's acknowledgement counts here.
#[derive(Clone)]
pub struct Leader(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
}

/// What the sessions share.
pub(super) struct Shared {
    shipping: Shipping,
    options: LeaderOptions,
    table: Mutex<Option<Table>>,
    state: Mutex<State>,
    /// The highest epoch that anybody has spoken of to this leader.
    claimed: Mutex<u64>,
    links: Mutex<Links>,
    /// What the notifier sleeps on when it must end.
    stop: Arc<Inbox<()>>,
    /// The sessions' threads, and the notifier's.
    crew: Arc<Crew>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<u64, Arc<Session>>,
    /// Who follows under which name, by session.
    names: BTreeMap<Name, u64>,
    last: u64,
    is_closed: bool,
    /// What was told last: when the newest durable record was seen first.
    newest: (Lsn, u64),
}

impl Leader {
    /// Ships this store's log from now on, to whoever is handed to it as a [`Host`].
    ///
    /// # Errors
    /// What the system says of a thread that is not to be had.
    pub fn serve(shipping: &Shipping, options: LeaderOptions) -> io::Result<Leader> {
        let begins = History::from(&shipping.wal().timeline().history).begins();
        let table = options.policy.clone().map(|policy| Table::new(policy).of_epoch(begins));
        let runtime = Arc::clone(&options.runtime);
        let shared = Arc::new(Shared {
            shipping: shipping.clone(),
            table: Mutex::new(table),
            state: Mutex::default(),
            claimed: Mutex::default(),
            links: Mutex::default(),
            stop: Inbox::new(&runtime),
            crew: Crew::new(&runtime),
            options,
        });
        let notified = Arc::clone(&shared);
        shared.crew.spawn("seawall-ship", move || notified.notify())?;
        Ok(Leader(Arc::new(Running { shared })))
    }

    /// Another policy from now on. What was acknowledged stays so.
    pub fn set_policy(&self, policy: Option<Policy>) {
        self.0.shared.set_policy(policy);
    }

    /// How far each level is acknowledged; none without a policy.
    pub fn reached(&self) -> Option<Reached> {
        self.0.shared.table.lock().as_ref().map(Table::reached)
    }

    /// How far those are that follow, and those that did.
    pub fn followers(&self) -> Vec<FollowerStatus> {
        self.0.shared.followers()
    }

    /// How the links stand to those that follow, and to those that did since this node ships its log.
    ///
    /// ```
    /// # use seawall_replication::node::{Leader, LeaderOptions};
    /// # let disk = seawall_wal::SimDisk::new(1);
    /// # let db = seawall_engine::Db::builder("/store").disk(disk).segment_bytes(256 << 10).open().unwrap();
    /// let leader = Leader::serve(&db.shipping(), LeaderOptions::default())?;
    /// for link in leader.links() {
    ///     println!("{} is {} bytes, {:?} behind", link.name, link.lag_bytes, link.lag);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn links(&self) -> Vec<Link> {
        self.0.shared.links()
    }

    /// A replica will not come back under this name, and counts no more.
    pub fn forget(&self, name: &str) {
        self.0.shared.forget_link(name);
        let reached = self.0.shared.table.lock().as_mut().map(|table| table.forget(name));
        self.0.shared.acknowledge(reached);
    }

    /// Ends all sessions, and waits until none of their threads uses the store any more. Whoever is called by one of them, a
    /// [`LinkListener`] say, does not wait. The store stays as it is.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Running {
    fn close(&self) {
        let sessions = {
            let mut state = self.shared.state.lock();
            state.is_closed = true;
            std::mem::take(&mut state.sessions)
        };
        self.shared.stop.close();
        for session in sessions.into_values() {
            session.close();
        }
        self.shared.crew.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(super) fn shipping(&self) -> &Shipping {
        &self.shipping
    }

    pub(super) fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.options.runtime
    }

    pub(super) fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    pub(super) fn keeping(&self) -> Option<&Arc<dyn Keeping>> {
        self.options.keeping.as_ref()
    }

    pub(super) fn settings(&self) -> Settings {
        self.options.settings
    }

    pub(super) fn own(&self) -> Own {
        let timeline = self.shipping.wal().timeline();
        let history = History::from(&timeline.history);
        Own { store_id: self.shipping.store_id(), history, promised: timeline.promised }
    }

    /// How many hops away the primary is, if a way leads to it.
    pub(super) fn distance(&self) -> Option<u8> {
        match &self.options.distance {
            _ if !self.shipping.is_replica() => Some(0),
            Some(distance) => distance(),
            None => Some(1),
        }
    }

    /// Which marks commits wait for here.
    pub(super) fn awaited(&self) -> Awaited {
        let is_asked = |level| self.shipping.is_asked(level);
        Awaited { received: is_asked(Ack::Received), applied: is_asked(Ack::Applied) }
    }

    /// Whether commits wait for replicas here.
    pub(super) fn is_waited_for(&self) -> bool {
        [Ack::Received, Ack::Durable, Ack::Applied].into_iter().any(|level| self.shipping.is_asked(level))
    }

    /// How far the store is; and about when its newest record was committed: when it was first seen here.
    pub(super) fn progress(&self) -> Progress {
        let now_us = self.options.runtime.wall_clock_us();
        let durable = self.shipping.wal().durable_lsn();
        let epoch = self.shipping.wal().epoch();
        let mut state = self.state.lock();
        if durable > state.newest.0 {
            state.newest = (durable, now_us);
            self.note_durable(durable);
        }
        Progress { visible: self.shipping.visible(), durable, time_us: state.newest.1, now_us, epoch }
    }

    /// The store moves: every session is told, until it is over. Behind the last move once more, for what a session had told too
    /// little before: none of them wakes its own thread for that ([`LATE`](session::LATE)).
    fn notify(&self) {
        let (mut seen, mut is_echo) = (Lsn::ZERO, false);
        while !self.stop.is_closed() {
            let patience = if is_echo { Duration::ZERO } else { IDLE };
            match self.shipping.wait_visible(seen.plus(1), patience) {
                Ok(_) => {}
                // Fenced, or failed: nothing moves any more, and sessions are told by others.
                Err(_) => {
                    self.stop.take(Some(self.options.runtime.now() + IDLE));
                }
            }
            // Whoever is away lags by what becomes durable meanwhile.
            let visible = self.progress().visible;
            let has_moved = visible > seen;
            if has_moved || is_echo {
                seen = seen.max(visible);
                self.tell_all(|session| session.post(Event::Moved));
            }
            if has_moved {
                // Nobody passes the next on any sooner.
                let soon = Duration::from_micros(self.settings().visible_us);
                self.stop.take(Some(self.options.runtime.now() + soon));
            }
            is_echo = has_moved;
        }
    }

    fn tell_all(&self, tell: impl Fn(&Session)) {
        let sessions: Vec<Arc<Session>> = self.state.lock().sessions.values().cloned().collect();
        sessions.iter().for_each(|session| tell(session));
    }

    /// A session takes this name. One that has it is over: who connects anew knows better than a connection that may be dead.
    pub(super) fn take_name(&self, session: u64, name: &Name) {
        let old = {
            let mut state = self.state.lock();
            let old = state.names.insert(name.clone(), session).filter(|old| *old != session);
            old.and_then(|old| state.sessions.get(&old).cloned())
        };
        if let Some(old) = old {
            old.close();
        }
    }

    pub(super) fn ended(&self, session: u64) {
        let name = {
            let mut state = self.state.lock();
            state.sessions.remove(&session);
            let name = state.names.iter().find(|(_, by)| **by == session).map(|(name, _)| name.clone());
            name.inspect(|name| {
                state.names.remove(name);
            })
        };
        if let Some(name) = name {
            let reached = self.table.lock().as_mut().map(|table| table.leave(name.as_str()));
            self.acknowledge(reached);
        }
    }

    pub(super) fn acked(&self, name: &Name, marks: Reached) {
        let reached = self.table.lock().as_mut().map(|table| table.update(name.as_str(), marks));
        self.acknowledge(reached);
    }

    fn set_policy(&self, policy: Option<Policy>) {
        let begins = self.own().history.begins();
        let reached = {
            let mut table = self.table.lock();
            match (&mut *table, policy) {
                (Some(table), Some(policy)) => Some(table.set_policy(policy)),
                (found, policy) => {
                    *found = policy.map(|policy| Table::new(policy).of_epoch(begins));
                    None
                }
            }
        };
        self.acknowledge(reached);
    }

    fn acknowledge(&self, reached: Option<Reached>) {
        let Some(reached) = reached else { return };
        let levels = [Ack::Received, Ack::Durable, Ack::Applied].into_iter().zip(Level::ALL);
        for (ack, level) in levels {
            if reached.of(level) > Lsn::ZERO {
                self.shipping.acked(ack, reached.of(level));
            }
        }
    }

    /// R4.
    pub(super) fn fence(&self, epoch: u64, is_claim: bool) -> Kept {
        let promised = || self.shipping.wal().timeline().promised;
        {
            let mut claimed = self.claimed.lock();
            if is_claim && epoch <= (*claimed).max(promised()) {
                return Kept::ByAnother;
            }
            *claimed = (*claimed).max(epoch);
        }
        // What it says against it is that there is nothing to fence, or that the disk has failed: then it writes nothing either.
        let _ = self.shipping.fence(epoch);
        if let Some(on_fence) = &self.options.on_fence {
            on_fence(epoch);
        }
        self.tell_all(|session| session.post(Event::Fenced(epoch)));
        if promised() >= epoch { Kept::Promised } else { Kept::Failed }
    }

    fn followers(&self) -> Vec<FollowerStatus> {
        let table = self.table.lock();
        let sessions: Vec<Arc<Session>> = self.state.lock().sessions.values().cloned().collect();
        let connected = sessions.iter().filter_map(|session| session.named());
        let mut found: BTreeMap<String, FollowerStatus> = BTreeMap::new();
        for (name, marks) in connected {
            let part = table.as_ref().map_or(crate::ack::Part::Async, |table| table.part(name.as_str()));
            let name = name.to_string();
            found.insert(name.clone(), FollowerStatus { name, is_connected: true, marks, part });
        }
        for standing in table.iter().flat_map(Table::standings) {
            found.entry(standing.name.to_owned()).or_insert_with(|| FollowerStatus {
                name: standing.name.to_owned(),
                is_connected: false,
                marks: standing.marks,
                part: table.as_ref().map_or(crate::ack::Part::Async, |table| table.part(standing.name)),
            });
        }
        found.into_values().collect()
    }
}

impl Host for Leader {
    fn connected(&self, names: Option<Vec<String>>, wire: Arc<dyn Wire>) -> Option<Arc<dyn Ear>> {
        let shared = &self.0.shared;
        let session = {
            let mut state = shared.state.lock();
            if state.is_closed || state.sessions.len() >= shared.options.sessions_max {
                None
            } else {
                state.last += 1;
                let session = Session::new(state.last, shared, names, wire);
                state.sessions.insert(session.id(), Arc::clone(&session));
                Some(session)
            }
        }?;
        match session.start(shared) {
            Ok(()) => Some(session.ear()),
            Err(_) => {
                shared.ended(session.id());
                None
            }
        }
    }

    fn status(&self) -> Status {
        let followers = self.followers();
        let policy = self.0.shared.table.lock().as_ref().map(|table| table.policy().to_string());
        Status { links: self.links(), ..status(&self.0.shared.shipping, policy, followers, String::new()) }
    }

    fn keep(&self, slot: &str) -> io::Result<()> {
        match &self.0.shared.options.keeping {
            Some(keeping) => keeping.keep(slot),
            None => super::no_image().map(drop),
        }
    }

    fn image(&self, about: &[u8]) -> io::Result<Box<dyn ImageSource>> {
        match &self.0.shared.options.keeping {
            Some(keeping) => keeping.image(about),
            None => super::no_image(),
        }
    }
}

/// A store's, with what is known of those around it.
pub(super) fn status(
    shipping: &Shipping,
    policy: Option<String>,
    followers: Vec<FollowerStatus>,
    state: String,
) -> Status {
    let wal = shipping.wal();
    let timeline = wal.timeline();
    Status {
        store_id: shipping.store_id(),
        is_replica: shipping.is_replica(),
        epoch: timeline.epoch,
        promised: timeline.promised,
        tail: wal.tail(),
        durable: wal.durable_lsn(),
        applied: shipping.applied(),
        visible: shipping.visible(),
        policy,
        followers,
        state,
        links: Vec::new(),
    }
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("followers", &self.followers()).finish_non_exhaustive()
    }
}

/// What became of a promise.
pub(super) enum Kept {
    /// It is durable.
    Promised,
    /// That epoch, or a higher one, was promised before, on another's word.
    ByAnother,
    /// It could not be written down: whoever asks must not hear that it is promised.
    Failed,
}

/// A message that came, or what else happens to a session.
pub(super) enum Event {
    Message(Message),
    Lost,
    Moved,
    Fenced(u64),
    Opened(Opened),
    Pieces(Vec<crate::message::Piece>),
    Ended,
    Close,
}
