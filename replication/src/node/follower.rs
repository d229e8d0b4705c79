//! A replica's side: its machine, stepped by whoever brings pieces or the log's word and by a thread of its own; a thread for its
//! log, and one that applies.

use super::inbox::Inbox;
use super::link::{Link, LinkListener};
use super::stepped::{Stepped, Steps};
use super::{Dialler, Ear, Host, ImageSource, Status, Wire, micros};
use crate::message::{Marks, Message};
use crate::ship::Replica;
use crate::ship::replica::{Effect, Input, Own, Settings, State};
use crate::timeline::History;
use parking_lot::Mutex;
use seawall_engine::Shipping;
use seawall_wal::runtime::Thread;
use seawall_wal::{Lsn, OsRuntime, Runtime};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

mod line;
mod work;

use line::Line;
#[doc(hidden)]
pub use work::accept;
use work::{Applier, LogWorker};

/// Events that may wait; a primary that sends faster is not one.
const EVENTS_MAX: usize = 64 << 10;
/// Marks that are new may wait for so many events that are there already, and be said once.
const UNSAID_MAX: u32 = 16;
/// How often somebody who waits for the machine looks whether it is still there.
const LOOK: Duration = Duration::from_millis(50);

/// How a replica follows.
#[derive(Clone)]
#[non_exhaustive]
pub struct FollowerOptions {
    /// How its machine behaves: its name, its slot, its delay.
    pub settings: Settings,
    /// Told when the primary comes and goes, and when following needs a hand.
    pub listener: Option<Arc<dyn LinkListener>>,
    /// Clock and threads.
    pub runtime: Arc<dyn Runtime>,
}

impl FollowerOptions {
    /// With these settings.
    pub fn new(settings: Settings) -> FollowerOptions {
        FollowerOptions { settings, listener: None, runtime: OsRuntime::new() }
    }
}

impl std::fmt::Debug for FollowerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FollowerOptions").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A store that follows a primary. Dropping it stops that; the store stays a replica.
pub struct Follower {
    shared: Arc<Shared>,
    threads: Mutex<Vec<Box<dyn Thread>>>,
}

pub(super) struct Shared {
    pub(super) shipping: Shipping,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) dialler: Arc<dyn Dialler>,
    pub(super) machine: Arc<Stepped<Machine>>,
    pub(super) wire: Mutex<Option<(u64, Arc<dyn Wire>)>>,
    known: Mutex<Known>,
    /// What the log or the store said last against something.
    error: Mutex<Option<String>>,
    name: String,
    listener: Option<Arc<dyn LinkListener>>,
    line: Mutex<Line>,
    /// Changes with each state, for those who wait for one.
    word: AtomicU32,
}

/// What the machine said last of itself.
struct Known {
    state: State,
    marks: Marks,
    distance: Option<u8>,
}

impl Known {
    fn of(machine: &Replica) -> Known {
        Known { state: machine.state().clone(), marks: machine.marks(), distance: machine.distance() }
    }
}

/// What happens to a replica: its machine's input.
pub(super) enum Event {
    Input(Box<Input>),
    /// Somebody was promised this epoch; the word is set once that is heeded.
    Fenced(u64, Arc<AtomicU32>),
    Close,
}

/// The machine, and what carries out its effects.
pub(super) struct Machine {
    shared: Arc<Shared>,
    machine: Replica,
    jobs: Arc<Inbox<Effect>>,
    to_apply: Arc<Inbox<Lsn>>,
    /// Marks that wait for what is there already, and since how many steps.
    unsaid: Option<Message>,
    held_back: u32,
    is_over: bool,
}

/// What comes over the connection of one attempt.
pub(super) struct Hearing {
    session: u64,
    log: Arc<LogWorker>,
}

impl Ear for Hearing {
    fn hear(&self, message: Message) {
        let (session, machine) = (self.session, self.log.machine());
        let input = match machine.len() < EVENTS_MAX {
            true => Input::Message { session, message },
            false => Input::Lost { session },
        };
        machine.post(Event::Input(Box::new(input)));
    }

    fn hear_all(&self, messages: Vec<Message>) {
        let bytes = |message: &Message| match message {
            Message::Piece(piece) => piece.length,
            _ => 0,
        };
        let all = messages.iter().map(bytes).fold(0, u32::saturating_add);
        self.log.bring(all, || messages.into_iter().for_each(|message| self.hear(message)));
    }

    fn lost(&self) {
        self.log.machine().post(Event::Input(Box::new(Input::Lost { session: self.session })));
    }
}

impl Follower {
    /// Follows whoever the dialler reaches, from now on: `shipping` is of a store that was opened as a replica.
    ///
    /// # Errors
    /// `InvalidInput` if the store is no replica; what the system says of a thread that is not to be had.
    pub fn run(
        shipping: &Shipping,
        dialler: Arc<dyn Dialler>,
        options: FollowerOptions,
    ) -> io::Result<Follower> {
        if !shipping.is_replica() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the store is no replica"));
        }
        let runtime = options.runtime;
        let (jobs, to_apply) = (Inbox::new(&runtime), Inbox::new(&runtime));
        let own = own(shipping);
        let now = micros(runtime.now());
        let name = options.settings.name.to_string();
        let machine = Replica::new(options.settings, shipping.store_id(), own, now);
        let shared = Arc::new(Shared {
            shipping: shipping.clone(),
            runtime: Arc::clone(&runtime),
            dialler,
            machine: Stepped::new(&runtime),
            wire: Mutex::default(),
            known: Mutex::new(Known::of(&machine)),
            error: Mutex::default(),
            name,
            listener: options.listener,
            line: Mutex::default(),
            word: AtomicU32::new(0),
        });
        let follower = Follower { shared: Arc::clone(&shared), threads: Mutex::default() };
        let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
            follower.threads.lock().push(runtime.spawn(name, body)?);
            io::Result::Ok(())
        };
        shared.machine.begin(Machine {
            shared: Arc::clone(&shared),
            machine,
            jobs: Arc::clone(&jobs),
            to_apply: Arc::clone(&to_apply),
            unsaid: None,
            held_back: 0,
            is_over: false,
        });
        let worker = LogWorker::new(&shared, &jobs);
        let applier = Applier::new(&shared, &to_apply);
        let started = start("seawall-accept", Box::new(move || worker.run()))
            .and_then(|()| start("seawall-apply", Box::new(move || applier.run())))
            .and_then(|()| {
                let (shared, jobs, to_apply) =
                    (Arc::clone(&shared), Arc::clone(&jobs), Arc::clone(&to_apply));
                start("seawall-follow", Box::new(move || drive(&shared, &jobs, &to_apply)))
            });
        if started.is_err() {
            jobs.close();
            to_apply.close();
            shared.machine.close();
        }
        started.map(|()| follower)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.shared.known.lock().state.clone()
    }

    /// What the log, the store or the network said last against something, for people: where it stands, the state says.
    pub fn last_error(&self) -> Option<String> {
        self.shared.error.lock().clone()
    }

    /// How far it is.
    pub fn marks(&self) -> Marks {
        self.shared.known.lock().marks
    }

    /// How many hops away the primary is: 1 where that itself is followed; none: nobody is, or one that has no way to it.
    pub fn distance(&self) -> Option<u8> {
        self.shared.known.lock().distance
    }

    /// How the link to the primary stands. What the primary has is known by its last sign of life.
    pub fn link(&self) -> Link {
        self.shared.link()
    }

    /// Where the log must go back to ([`State::NeedsRewind`]) if no record is lost by that: what it has more is an idle primary's
    /// seal, or a segment's beginning, which whoever was promoted had not been sent.
    pub fn goes_back(&self) -> Option<(Lsn, History)> {
        match self.state() {
            State::NeedsRewind { to, history } if self.shared.shipping.wal().tail().whole_end <= to => {
                Some((to, history))
            }
            _ => None,
        }
    }

    /// Waits until the state is one that is wanted. False when the time is over.
    pub fn wait_state(&self, is_wanted: impl Fn(&State) -> bool, timeout: Duration) -> bool {
        let until = self.shared.runtime.now() + timeout;
        loop {
            let word = self.shared.word.load(Ordering::SeqCst);
            if is_wanted(&self.state()) {
                return true;
            }
            let left = until.saturating_sub(self.shared.runtime.now());
            if left == Duration::ZERO {
                return false;
            }
            self.shared.runtime.wait(&self.shared.word, word, Some(left));
        }
    }

    /// Somebody who is about to promote another store was promised this epoch, durably: when this returns, no primary of a lower
    /// one is followed or told anything any more.
    pub fn fenced(&self, epoch: u64) {
        let heeded = Arc::new(AtomicU32::new(0));
        self.shared.machine.post(Event::Fenced(epoch, Arc::clone(&heeded)));
        while heeded.load(Ordering::SeqCst) == 0 && !self.shared.machine.is_closed() {
            self.shared.runtime.wait(&heeded, 0, Some(LOOK));
        }
    }

    /// Stops following: what was accepted is in the log, and nothing more comes when this returns. Then the store may be promoted.
    pub fn stop(&self) {
        self.shared.machine.post(Event::Close);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Follower");
        f.field("state", &self.state()).field("marks", &self.marks()).field("last_error", &self.last_error());
        f.finish_non_exhaustive()
    }
}

/// A replica answers for itself; it ships nothing on. For that, [`Leader::serve`](super::Leader::serve) its store too.
impl Host for Follower {
    fn connected(&self, _: Option<Vec<String>>, _: Arc<dyn Wire>) -> Option<Arc<dyn Ear>> {
        None
    }

    fn status(&self) -> Status {
        let state = format!("{:?}", self.state());
        let status = super::leader::status(&self.shared.shipping, None, Vec::new(), state);
        Status { links: vec![self.link()], ..status }
    }

    fn image(&self, _: &[u8]) -> io::Result<Box<dyn ImageSource>> {
        super::no_image()
    }
}

impl Shared {
    /// Keeps what was said, for people.
    pub(super) fn note(&self, error: &dyn std::fmt::Display) {
        *self.error.lock() = Some(error.to_string());
    }
}

/// What there is here, once everything handed to the log is answered.
#[doc(hidden)]
pub fn own(shipping: &Shipping) -> Own {
    let wal = shipping.wal();
    let timeline = wal.timeline();
    Own {
        tail: wal.tail(),
        history: History::from(&timeline.history),
        promised: timeline.promised,
        durable: wal.durable_lsn(),
        applied: shipping.applied(),
        visible: shipping.visible(),
    }
}

impl Steps for Machine {
    type Event = Event;

    fn is_quick(&self, event: &Event) -> bool {
        let Event::Input(input) = event else { return false };
        match **input {
            Input::Message { message: Message::Piece(_) | Message::Heartbeat(_), .. }
            | Input::Accepted { .. }
            | Input::Synced { .. }
            | Input::Applied { .. }
            | Input::Shown { .. } => *self.machine.state() == State::Following,
            _ => false,
        }
    }

    fn step(&mut self, event: Option<Event>, is_last: bool) {
        let shared = Arc::clone(&self.shared);
        let now = micros(shared.runtime.now());
        let mut heeded = None;
        let input = match event {
            Some(Event::Input(input)) => *input,
            Some(Event::Fenced(epoch, word)) => {
                heeded = Some(word);
                Input::Fenced { epoch }
            }
            Some(Event::Close) => {
                self.is_over = true;
                Input::Close
            }
            None => Input::Tick,
        };
        let ending = line::ending(&input);
        let effects = self.machine.step(now, input);
        shared.follow_line(&self.machine, &effects, ending, now);
        effects.into_iter().for_each(|effect| self.carry_out(effect));
        self.held_back += 1;
        if self.is_over || self.held_back >= UNSAID_MAX || is_last {
            self.say();
        }
        let is_new = {
            let mut known = shared.known.lock();
            let is_new = known.state != *self.machine.state();
            *known = Known::of(&self.machine);
            is_new
        };
        if is_new {
            shared.word.fetch_add(1, Ordering::SeqCst);
            shared.runtime.wake_all(&shared.word);
        }
        if let Some(word) = heeded {
            word.store(1, Ordering::SeqCst);
            shared.runtime.wake_all(&word);
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        self.machine.wake_at().map(Duration::from_micros)
    }

    fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Machine {
    fn send(&self, message: Message) {
        let wire = self.shared.wire.lock().as_ref().map(|(_, wire)| Arc::clone(wire));
        if let Some(wire) = wire {
            wire.send(message);
        }
    }

    /// The marks that were held back.
    fn say(&mut self) {
        self.held_back = 0;
        if let Some(marks) = self.unsaid.take() {
            self.send(marks);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(marks @ Message::Marks(_)) => self.unsaid = Some(marks),
            Effect::Send(message) => {
                self.say();
                self.send(message);
            }
            Effect::Hang => {
                self.say();
                let wire = self.shared.wire.lock().take();
                if let Some((_, wire)) = wire {
                    wire.close();
                }
            }
            Effect::Show { limit } => {
                let shipping = &self.shared.shipping;
                shipping.set_visible_limit(limit);
                let visible = shipping.visible();
                self.shared.machine.post(Event::Input(Box::new(Input::Shown { visible })));
            }
            Effect::Apply { to } => self.to_apply.post(to),
            Effect::Violation(_) => {}
            other => self.jobs.post(other),
        }
    }
}

/// The machine's thread.
fn drive(shared: &Shared, jobs: &Inbox<Effect>, to_apply: &Inbox<Lsn>) {
    let over = shared.machine.run();
    // What was handed to the log is done before this ends: nothing is half accepted when the store is promoted.
    jobs.finish();
    to_apply.finish();
    // A dead address would hold that up.
    shared.dialler.give_up();
    shared.machine.close();
    drop(over);
}
