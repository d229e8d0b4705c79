//! A machine that whoever brings it something steps, if nobody else does just then: a thread less is woken for it.
//!
//! What is brought stands in a queue. Whoever has put something there tries the machine's lock; if it is taken, the holder
//! finds it, for it looks at the queue once more behind unlocking. What is slow waits for the machine's own thread, and all behind it
//! does, so that nothing is overtaken.

use super::inbox::{Inbox, Next};
use parking_lot::Mutex;
use seawall_wal::Runtime;
use std::sync::Arc;
use std::time::Duration;

/// Steps that are made in a row for others.
const STEPS_MAX: usize = 64;

/// A machine, with what carries out its effects.
pub(super) trait Steps: Send {
    /// What happens to it.
    type Event: Send;

    /// Whether anybody may step it with this now: then neither the step nor what follows from it blocks.
    fn is_quick(&self, event: &Self::Event) -> bool;

    /// A step, and what follows from it; none: time has passed. `is_last` if nothing waits behind it.
    fn step(&mut self, event: Option<Self::Event>, is_last: bool);

    /// When time is to be told, by the runtime's clock.
    fn wake_at(&self) -> Option<Duration>;

    /// Whether no step is to follow.
    fn is_over(&self) -> bool;
}

/// See the module.
pub(super) struct Stepped<S: Steps> {
    inbox: Arc<Inbox<S::Event>>,
    held: Mutex<Held<S>>,
    /// Called behind the last look at the queue, before the lock is given back.
    #[cfg(test)]
    gap: Option<Box<dyn Fn() + Send + Sync>>,
    /// A mistake to make on purpose: the queue is not looked at once more.
    #[cfg(test)]
    looks_once: bool,
}

struct Held<S> {
    /// None before it begins, while it takes a step, after one that panicked, and once it is over.
    machine: Option<Box<S>>,
    /// Until when its thread sleeps; none: for ever.
    sleeps: Option<Duration>,
}

impl<S: Steps> Stepped<S> {
    /// Nothing is taken before there is a machine.
    pub(super) fn new(runtime: &Arc<dyn Runtime>) -> Arc<Stepped<S>> {
        let held = Mutex::new(Held { machine: None, sleeps: Some(Duration::ZERO) });
        Arc::new(Stepped {
            inbox: Inbox::new(runtime),
            held,
            #[cfg(test)]
            gap: None,
            #[cfg(test)]
            looks_once: false,
        })
    }

    /// From now on this one is stepped.
    pub(super) fn begin(&self, machine: S) {
        self.held.lock().machine = Some(Box::new(machine));
    }

    pub(super) fn post(&self, event: S::Event) {
        self.inbox.put(event);
        self.help();
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.inbox.len()
    }

    /// Whether nothing is heard any more.
    pub(super) fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Nothing is heard any more, and what is left of it dropped.
    pub(super) fn close(&self) {
        self.inbox.close();
        let left = self.held.lock().machine.take();
        drop(left);
    }

    /// Does what is quick and first in the queue. The rest, and the end, are for its own thread.
    fn help(&self) {
        while let Some(mut held) = self.held.try_lock() {
            let mut rings = true;
            for _ in 0..STEPS_MAX {
                let Some(machine) = held.machine.as_deref().filter(|machine| !machine.is_over()) else {
                    break;
                };
                match self.inbox.take_if(|event| machine.is_quick(event)) {
                    Next::Item { item, is_last } => held.step(Some(item), is_last),
                    Next::Unwanted => break,
                    Next::Nothing => {
                        rings = held.is_wanted_sooner();
                        break;
                    }
                }
            }
            #[cfg(test)]
            self.gap.iter().for_each(|gap| gap());
            drop(held);
            if rings {
                return self.inbox.ring();
            }
            #[cfg(test)]
            if self.looks_once {
                return;
            }
            // What came before the lock was given back has found it taken.
            if self.inbox.len() == 0 {
                return;
            }
        }
    }

    /// Its own thread, until it is over: then it is given back. None if another has panicked with it.
    pub(super) fn run(&self) -> Option<Box<S>> {
        loop {
            let word = self.inbox.word();
            let sleeps = {
                let mut held = self.held.lock();
                held.step(None, self.inbox.len() == 0);
                while held.machine.as_deref().is_some_and(|machine| !machine.is_over())
                    && let Next::Item { item, is_last } = self.inbox.take_if(|_| true)
                {
                    held.step(Some(item), is_last);
                }
                match held.machine.as_deref().filter(|machine| !machine.is_over()) {
                    Some(machine) => held.sleeps = machine.wake_at(),
                    None => return held.machine.take(),
                }
                held.sleeps
            };
            self.inbox.sleep(word, sleeps);
        }
    }
}

impl<S: Steps> Held<S> {
    fn step(&mut self, event: Option<S::Event>, is_last: bool) {
        // A machine that panics is gone, not half stepped.
        if let Some(mut machine) = self.machine.take() {
            machine.step(event, is_last);
            self.machine = Some(machine);
        }
    }

    /// Whether its thread sleeps for longer than it should. Said once.
    fn is_wanted_sooner(&mut self) -> bool {
        let wakes = self.machine.as_deref().and_then(Steps::wake_at);
        let is_sooner = wakes.is_some_and(|wakes| self.sleeps.is_none_or(|sleeps| wakes < sleeps));
        if is_sooner {
            self.sleeps = wakes;
        }
        is_sooner
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may")]

    use super::*;
    use seawall_wal::OsRuntime;
    use std::collections::BTreeMap;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{self, ThreadId};

    const POSTERS: u32 = 4;
    const EACH: u32 = 5_000;
    const LONG: Duration = Duration::from_secs(60);

    enum Event {
        /// By this poster, the so manieth.
        Quick(u32, u32),
        Slow(u32, u32),
        /// From now on time is to be told then.
        Alarm(Duration),
        End,
    }

    #[derive(Default)]
    struct Machine {
        seen: BTreeMap<u32, u32>,
        slow: Vec<ThreadId>,
        alarm: Option<Duration>,
        rings: Option<(Arc<dyn Runtime>, Sender<ThreadId>)>,
        is_over: bool,
    }

    impl Steps for Machine {
        type Event = Event;

        fn is_quick(&self, event: &Event) -> bool {
            matches!(event, Event::Quick(..) | Event::Alarm(_))
        }

        fn step(&mut self, event: Option<Event>, _: bool) {
            let mut note = |poster, number| {
                assert_eq!(self.seen.insert(poster, number), number.checked_sub(1), "in order, each once");
            };
            match event {
                Some(Event::Quick(poster, number)) => note(poster, number),
                Some(Event::Slow(poster, number)) => {
                    note(poster, number);
                    self.slow.push(thread::current().id());
                }
                Some(Event::Alarm(at)) => self.alarm = Some(at),
                Some(Event::End) => self.is_over = true,
                None => {
                    if let Some((runtime, rings)) = &self.rings
                        && self.alarm.take_if(|at| *at <= runtime.now()).is_some()
                    {
                        rings.send(thread::current().id()).unwrap();
                    }
                }
            }
        }

        fn wake_at(&self) -> Option<Duration> {
            self.alarm
        }

        fn is_over(&self) -> bool {
            self.is_over
        }
    }

    #[test]
    fn everything_is_stepped_once_in_order_and_what_is_slow_by_its_own_thread() {
        let stepped = Stepped::new(&(OsRuntime::new() as _));
        stepped.begin(Machine::default());
        let (machine, own) = thread::scope(|scope| {
            let own = scope.spawn(|| (stepped.run().unwrap(), thread::current().id()));
            let posters: Vec<_> = (0..POSTERS)
                .map(|poster| {
                    let stepped = &stepped;
                    scope.spawn(move || {
                        for number in 0..EACH {
                            stepped.post(match number % 97 {
                                96 => Event::Slow(poster, number),
                                _ => Event::Quick(poster, number),
                            });
                        }
                    })
                })
                .collect();
            posters.into_iter().for_each(|poster| poster.join().unwrap());
            stepped.post(Event::End);
            own.join().unwrap()
        });
        assert_eq!(machine.seen, (0..POSTERS).map(|poster| (poster, EACH - 1)).collect());
        assert_eq!(machine.slow.len() as u32, POSTERS * (EACH / 97));
        assert!(machine.slow.iter().all(|thread| *thread == own));
    }

    /// Its thread sleeps without end, and somebody else's step makes it wake up in time.
    #[test]
    fn a_time_that_comes_sooner_is_told() {
        let runtime: Arc<dyn Runtime> = OsRuntime::new();
        let stepped = Stepped::new(&runtime);
        let (rings, rung) = channel();
        stepped.begin(Machine { rings: Some((Arc::clone(&runtime), rings)), ..Machine::default() });
        thread::scope(|scope| {
            let own = scope.spawn(|| stepped.run().is_some());
            for _ in 0..20 {
                stepped.post(Event::Alarm(runtime.now() + Duration::from_millis(2)));
                assert_eq!(rung.recv_timeout(LONG), Ok(own.thread().id()));
            }
            stepped.post(Event::End);
            assert!(own.join().unwrap());
        });
    }
    /// Somebody brings something behind the last look at the queue, and finds the machine taken. Whether it is stepped all the same,
    /// with its own thread asleep.
    fn is_seen_in_the_gap(looks_once: bool) -> bool {
        let runtime: Arc<dyn Runtime> = OsRuntime::new();
        let late: Arc<OnceLock<Arc<Stepped<Machine>>>> = Arc::default();
        let (stepped, once) = (Arc::clone(&late), AtomicBool::new(false));
        let gap = move || {
            if let Some(stepped) = stepped.get()
                && !once.swap(true, Ordering::SeqCst)
            {
                let stepped = Arc::clone(stepped);
                thread::spawn(move || stepped.post(Event::Quick(1, 0))).join().unwrap();
            }
        };
        let mut stepped = Stepped::new(&runtime);
        let own = Arc::get_mut(&mut stepped).unwrap();
        own.gap = Some(Box::new(gap));
        own.looks_once = looks_once;
        stepped.begin(Machine::default());
        late.set(Arc::clone(&stepped)).ok().unwrap();
        stepped.post(Event::Quick(0, 0));
        let seen = stepped.held.lock().machine.as_ref().unwrap().seen.clone();
        assert_eq!(seen.get(&0), Some(&0));
        seen.contains_key(&1)
    }

    #[test]
    fn what_finds_the_machine_taken_is_stepped_by_whoever_has_it() {
        assert!(is_seen_in_the_gap(false));
        assert!(!is_seen_in_the_gap(true), "a holder that does not look again was to be noticed");
    }
}
