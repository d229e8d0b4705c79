//! One session: its machine, stepped by whoever brings marks or pieces, and by a thread of its own.

use super::super::inbox::Inbox;
use super::super::stepped::{Stepped, Steps};
use super::super::{Ear, Wire};
use super::reader::{Job, Reader};
use super::{Event, Kept, Shared};
use crate::ack::Reached;
use crate::message::{Message, Name, Why};
use crate::ship::Primary;
use crate::ship::primary::{Effect, Input};
use parking_lot::Mutex;
use seawall_wal::Lsn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Events of a session that may wait; a replica that sends faster is not one.
const EVENTS_MAX: usize = 16 << 10;
/// How often a replica that ships on looks how far its primary is.
const LOOK: Duration = Duration::from_millis(50);

/// News goes on in the notifier's thread: so much later the session's own, which would be woken for each commit, looks after that.
pub(super) const LATE: Duration = Duration::from_millis(5);

pub(super) struct Session {
    id: u64,
    machine: Arc<Stepped<Machine>>,
    jobs: Arc<Inbox<Job>>,
    wire: Arc<dyn Wire>,
    /// What the other side's certificate bears.
    names: Option<Vec<String>>,
    named: Mutex<Option<(Name, Reached)>>,
}

/// Who has said hello, and what is known of the link from then on.
struct Greeted {
    name: Name,
    has_slot: bool,
    /// Marks were heard: before that, a hello may have been said for its answer's sake alone.
    is_linked: bool,
}

/// The machine, and what is kept between its steps.
struct Machine {
    session: Arc<Session>,
    shared: Arc<Shared>,
    machine: Primary,
    greeted: Option<Greeted>,
    /// How far the primary is, and when that is to be looked at again.
    distance: Option<u8>,
    look: Option<Duration>,
    /// What the session has ended by.
    why: Option<String>,
    /// It ends without another word.
    is_cut: bool,
}

struct Hearing {
    machine: Arc<Stepped<Machine>>,
}

impl Ear for Hearing {
    fn hear(&self, message: Message) {
        if self.machine.len() < EVENTS_MAX {
            self.machine.post(Event::Message(message));
        } else {
            self.machine.post(Event::Close);
        }
    }

    fn lost(&self) {
        self.machine.post(Event::Lost);
    }
}

impl Session {
    pub(super) fn new(
        id: u64,
        shared: &Arc<Shared>,
        names: Option<Vec<String>>,
        wire: Arc<dyn Wire>,
    ) -> Arc<Session> {
        let (machine, jobs) = (Stepped::new(shared.runtime()), Inbox::new(shared.runtime()));
        Arc::new(Session { id, machine, jobs, wire, names, named: Mutex::default() })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn ear(&self) -> Arc<dyn Ear> {
        Arc::new(Hearing { machine: Arc::clone(&self.machine) })
    }

    /// Who follows, once that is known, and how far.
    pub(super) fn named(&self) -> Option<(Name, Reached)> {
        self.named.lock().clone()
    }

    pub(super) fn post(&self, event: Event) {
        self.machine.post(event);
    }

    pub(super) fn close(&self) {
        self.machine.post(Event::Close);
    }

    /// Its two threads, which end by themselves.
    pub(super) fn start(self: &Arc<Session>, shared: &Arc<Shared>) -> io::Result<()> {
        self.machine.begin(Machine {
            session: Arc::clone(self),
            shared: Arc::clone(shared),
            machine: Primary::new(shared.settings(), shared.own(), shared.now()),
            greeted: None,
            distance: shared.distance(),
            look: None,
            why: None,
            is_cut: false,
        });
        let reader = Reader::new(shared, &self.jobs, self);
        let spawned = shared.crew().spawn("seawall-read", move || reader.run()).and_then(|()| {
            let (session, of) = (Arc::clone(self), Arc::clone(shared));
            shared.crew().spawn("seawall-lead", move || session.run(&of))
        });
        if spawned.is_err() {
            self.jobs.close();
            self.machine.close();
        }
        spawned
    }

    fn run(&self, shared: &Shared) {
        let over = self.machine.run();
        self.jobs.close();
        self.wire.close();
        self.machine.close();
        shared.ended(self.id);
        let Some(Machine { greeted: Some(of), why, .. }) = over.map(|over| *over) else { return };
        match of.is_linked {
            true => shared.link_ends(self.id, &of.name, why),
            false => shared.link_refused(&of.name, of.has_slot, why),
        }
    }

    /// A replica calls itself by a name that its certificate bears, where there are certificates, and its slot by no other: else it
    /// could acknowledge, and release log, in another's name.
    fn may_say(&self, message: &Message) -> bool {
        match (message, &self.names) {
            (Message::Hello(hello), Some(names)) => {
                let is_its = |name: &String| name.split('.').next() == Some(hello.name.as_str());
                names.iter().any(is_its) && hello.slot.as_ref().is_none_or(|slot| *slot == hello.name)
            }
            _ => true,
        }
    }

    /// Its slot hears that it is there, and how far; and may be lost meanwhile.
    fn tell_slot(&self) {
        if let Some((_, marks)) = &*self.named.lock() {
            self.jobs.post(Job::Advance { durable: marks.durable });
        }
    }

    /// False if the session must end without another word.
    fn carry_out(&self, shared: &Arc<Shared>, effect: Effect) -> bool {
        match effect {
            Effect::Send(message) => self.wire.send(message),
            Effect::Open { name, slot, tail } => {
                shared.take_name(self.id, &name);
                *self.named.lock() = Some((name, Reached::default()));
                self.jobs.post(Job::Open { slot, tail });
            }
            Effect::Read { from, bytes_max } => self.jobs.post(Job::Read { from, bytes_max }),
            Effect::Acked(marks) => {
                let reached = Reached::from(marks);
                let named = self.named.lock().as_mut().map(|(name, known)| {
                    *known = reached;
                    name.clone()
                });
                if let Some(name) = named {
                    shared.acked(&name, reached);
                }
            }
            Effect::Fence { epoch, is_claim } => match shared.fence(epoch, is_claim) {
                Kept::Promised => {}
                Kept::ByAnother => {
                    self.wire.send(Message::Refuse(Why::Busy));
                    return false;
                }
                Kept::Failed => return false,
            },
            // It is closed by the next effect.
            Effect::Violation(_) | Effect::Close => {}
        }
        true
    }
}

impl Steps for Machine {
    type Event = Event;

    /// The first marks tell a listener that the link is there.
    fn is_quick(&self, event: &Event) -> bool {
        let is_linked = self.greeted.as_ref().is_some_and(|of| of.is_linked);
        is_linked && matches!(event, Event::Message(Message::Marks(_)) | Event::Pieces(_) | Event::Moved)
    }

    fn step(&mut self, event: Option<Event>, _: bool) {
        let shared = Arc::clone(&self.shared);
        let _at_work = shared.crew().visit();
        let now = self.shared.now();
        let is_alive = matches!(event, Some(Event::Message(Message::Marks(_))));
        self.distance = self.shared.distance();
        self.look = (self.distance != Some(0)).then(|| self.shared.runtime().now() + LOOK);
        let mut effects = self.machine.step(now, Input::Moved(self.shared.progress()));
        effects.extend(self.machine.step(now, Input::Distance(self.distance)));
        effects.extend(self.machine.step(now, Input::Awaited(self.shared.awaited())));
        // If it is over, then by itself, or by its log's epoch: not by what is heard.
        let by_itself = self.machine.is_over() || matches!(event, None | Some(Event::Moved));
        let (input, cause) = self.input(event);
        effects.extend(self.machine.step(now, input));
        if self.machine.is_over() {
            let said = said_of_end(&effects);
            self.why = match by_itself {
                true => said.or_else(|| Some(silence(&self.shared))),
                false => cause.or(said),
            };
        }
        let bytes = effects.iter().map(shipped_bytes).sum();
        for effect in effects {
            if let Effect::Acked(marks) = &effect {
                self.heard(marks.taken);
            }
            if !self.session.carry_out(&self.shared, effect) {
                self.why = Some("another was promised what it asks for, or nothing could be".to_owned());
                self.is_cut = true;
                return;
            }
        }
        if is_alive {
            self.session.tell_slot();
        }
        let linked = self.greeted.as_ref().filter(|of| of.is_linked);
        if let (Some(of), Some(view)) = (linked, self.machine.view()) {
            self.shared.link_moves(self.session.id, &of.name, &view, self.machine.heard_at(), bytes);
        }
    }

    fn wake_at(&self) -> Option<Duration> {
        let late = if self.machine.has_news() { LATE } else { Duration::ZERO };
        let own = self.machine.wake_at().map(|at| Duration::from_micros(at) + late);
        [own, self.look].into_iter().flatten().min()
    }

    fn is_over(&self) -> bool {
        self.is_cut || self.machine.is_over()
    }
}

impl Machine {
    /// What the machine is told; and what an end that comes of it is put down to, if it is none in good order.
    fn input(&mut self, event: Option<Event>) -> (Input, Option<String>) {
        match event {
            None | Some(Event::Moved) => (Input::Tick, None),
            Some(Event::Message(message)) => {
                if !self.session.may_say(&message) {
                    let why = "it calls itself, or its slot, by a name that is not in its certificate";
                    return (Input::Close, Some(why.to_owned()));
                }
                if let (Message::Hello(hello), None) = (&message, &self.greeted) {
                    let (name, has_slot) = (hello.name.clone(), hello.slot.is_some());
                    self.greeted = Some(Greeted { name, has_slot, is_linked: false });
                }
                let why = match &message {
                    Message::Refuse(why) => Some(format!("it refused: {why}")),
                    _ => None,
                };
                (Input::Message(message), why)
            }
            Some(Event::Lost) => (Input::Lost, Some("the connection was lost".to_owned())),
            Some(Event::Fenced(epoch)) => {
                (Input::Fenced { epoch }, Some(format!("another primary was heard of, in epoch {epoch}")))
            }
            Some(Event::Opened(opened)) => (Input::Opened(opened), None),
            Some(Event::Pieces(pieces)) => (Input::Pieces(pieces), None),
            Some(Event::Ended) => (Input::Ended, Some("the log could not be read on".to_owned())),
            Some(Event::Close) => (Input::Close, None),
        }
    }

    /// Marks came, and are believed.
    fn heard(&mut self, taken: Lsn) {
        if let Some(of) = self.greeted.as_mut().filter(|of| !of.is_linked) {
            of.is_linked = true;
            self.shared.link_begins(self.session.id, &of.name, taken);
        }
    }
}

/// What a session that ends by itself has ended by.
fn silence(shared: &Shared) -> String {
    format!("nothing was heard of it for {:?}", Duration::from_micros(shared.settings().timeout_us))
}

/// What the machine has said against the other side.
fn said_of_end(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Violation(what) => Some((*what).to_owned()),
        Effect::Send(Message::Refuse(why)) => Some(format!("refused: {why}")),
        _ => None,
    })
}

fn shipped_bytes(effect: &Effect) -> u64 {
    match effect {
        Effect::Send(Message::Piece(piece)) => u64::from(piece.length),
        _ => 0,
    }
}
