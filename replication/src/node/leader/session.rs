//! One session: the machine's thread.

use super::super::inbox::Inbox;
use super::super::{Ear, Wire};
use super::reader::{Job, Reader};
use super::{Event, Shared};
use crate::ack::Reached;
use crate::message::{Message, Name};
use crate::ship::Primary;
use crate::ship::primary::{Effect, Input};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Events of a session that may wait; a replica that sends faster is not one.
const EVENTS_MAX: usize = 16 << 10;
/// How often a replica that ships on looks how far its primary is.
const LOOK: Duration = Duration::from_millis(50);

pub(super) struct Session {
    id: u64,
    inbox: Arc<Inbox<Event>>,
    jobs: Arc<Inbox<Job>>,
    wire: Arc<dyn Wire>,
    /// What the other side's certificate bears.
    names: Option<Vec<String>>,
    named: Mutex<Option<(Name, Reached)>>,
}

struct Hearing {
    inbox: Arc<Inbox<Event>>,
}

impl Ear for Hearing {
    fn hear(&self, message: Message) {
        if self.inbox.len() < EVENTS_MAX {
            self.inbox.post(Event::Message(message));
        } else {
            self.inbox.post(Event::Close);
        }
    }

    fn lost(&self) {
        self.inbox.post(Event::Lost);
    }
}

impl Session {
    pub(super) fn new(
        id: u64,
        shared: &Arc<Shared>,
        names: Option<Vec<String>>,
        wire: Arc<dyn Wire>,
    ) -> Arc<Session> {
        let (inbox, jobs) = (Inbox::new(shared.runtime()), Inbox::new(shared.runtime()));
        Arc::new(Session { id, inbox, jobs, wire, names, named: Mutex::default() })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn ear(&self) -> Arc<dyn Ear> {
        Arc::new(Hearing { inbox: Arc::clone(&self.inbox) })
    }

    /// Who follows, once that is known, and how far.
    pub(super) fn named(&self) -> Option<(Name, Reached)> {
        self.named.lock().clone()
    }

    pub(super) fn moved(&self) {
        self.inbox.post(Event::Moved);
    }

    pub(super) fn fenced(&self, epoch: u64) {
        self.inbox.post(Event::Fenced(epoch));
    }

    pub(super) fn close(&self) {
        self.inbox.post(Event::Close);
    }

    /// Its two threads, which end by themselves.
    pub(super) fn start(self: &Arc<Session>, shared: &Arc<Shared>) -> io::Result<()> {
        let reader = Reader::new(shared, &self.jobs, &self.inbox);
        shared.runtime().spawn("seawall-read", Box::new(move || reader.run()))?;
        let (session, of) = (Arc::clone(self), Arc::clone(shared));
        let spawned = shared.runtime().spawn("seawall-lead", Box::new(move || session.run(&of)));
        if spawned.is_err() {
            self.jobs.close();
        }
        spawned.map(drop)
    }

    fn run(&self, shared: &Arc<Shared>) {
        let now = || u64::try_from(shared.runtime().now().as_micros()).unwrap_or(u64::MAX);
        let mut machine = Primary::new(shared.settings(), shared.own(), now());
        let mut distance = shared.distance();
        while !machine.is_over() {
            let look = (distance != Some(0)).then(|| shared.runtime().now() + LOOK);
            let wakes = machine.wake_at().map(Duration::from_micros);
            let event = self.inbox.take([wakes, look].into_iter().flatten().min());
            distance = shared.distance();
            let mut effects = machine.step(now(), Input::Moved(shared.progress()));
            effects.extend(machine.step(now(), Input::Distance(distance)));
            let input = match event {
                None => Input::Tick,
                Some(Event::Message(message)) => match self.may_say(&message) {
                    true => Input::Message(message),
                    false => Input::Close,
                },
                Some(Event::Lost) => Input::Lost,
                Some(Event::Moved) => Input::Tick,
                Some(Event::Fenced(epoch)) => Input::Fenced { epoch },
                Some(Event::Opened(opened)) => Input::Opened(opened),
                Some(Event::Pieces(pieces)) => Input::Pieces(pieces),
                Some(Event::Ended) => Input::Ended,
                Some(Event::Close) => Input::Close,
            };
            effects.extend(machine.step(now(), input));
            for effect in effects {
                self.carry_out(shared, effect);
            }
        }
        self.jobs.close();
        self.wire.close();
        self.inbox.close();
        shared.ended(self.id);
    }

    /// A replica calls itself by a name that its certificate bears, where there are certificates: else it could acknowledge in
    /// another's name.
    fn may_say(&self, message: &Message) -> bool {
        match (message, &self.names) {
            (Message::Hello(hello), Some(names)) => {
                let is_its = |name: &String| name.split('.').next() == Some(hello.name.as_str());
                names.iter().any(is_its)
            }
            _ => true,
        }
    }

    fn carry_out(&self, shared: &Arc<Shared>, effect: Effect) {
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
                self.jobs.post(Job::Advance { durable: marks.durable });
            }
            Effect::Fence { epoch } => shared.fence(epoch),
            // It is closed by the next effect.
            Effect::Violation(_) | Effect::Close => {}
        }
    }
}
