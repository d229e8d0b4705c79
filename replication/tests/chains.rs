//! Whom a replica follows where several could be followed: the machines alone, and a clock that is turned.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use seawall_replication::message::{Message, Name, Welcome, Why};
use seawall_replication::ship::primary::{self, Opened, Primary};
use seawall_replication::ship::replica::{self, Effect, Own, Replica, Settings, State};
use seawall_replication::timeline::{History, Tail, Turn};
use seawall_wal::Lsn;

const STORE: [u8; 16] = [3; 16];
const END: Lsn = Lsn(8192);
const MS: u64 = 1_000;

fn own() -> Own {
    let tail = Tail { epoch: 0, place: END, whole_end: END, checksum: 9 };
    Own { tail, history: History::default(), promised: 0, durable: END, applied: END, visible: END }
}

fn machine(name: &str) -> Replica {
    one_of(name, 1)
}

fn one_of(name: &str, addresses: u32) -> Replica {
    let settings = Settings { addresses, ..Settings::new(Name::new(name).unwrap()) };
    Replica::new(settings, STORE, own(), 0)
}

fn session(now: u64) -> Primary {
    let own = primary::Own { store_id: STORE, history: History::default(), promised: 0 };
    Primary::new(primary::Settings::default(), own, now)
}

/// A machine, and the connection that it has.
struct Node {
    machine: Replica,
    upstream: Option<Upstream>,
    /// Whom it dials, one after the other where it is to look elsewhere.
    addresses: Vec<usize>,
    at: usize,
    elsewhere: u32,
}

/// Whom a machine has reached by which attempt, and the session there.
struct Upstream {
    to: usize,
    attempt: u64,
    session: Primary,
}

/// Replicas of one store, all with the same log, and a primary that is there or not.
struct Chain {
    now: u64,
    nodes: Vec<Node>,
    has_primary: bool,
}

const PRIMARY: usize = usize::MAX;

impl Chain {
    fn new(addresses: &[&[usize]], has_primary: bool) -> Chain {
        let node = |(at, addresses): (usize, &&[usize])| Node {
            machine: one_of(["a", "b", "c"][at], addresses.len() as u32),
            upstream: None,
            addresses: addresses.to_vec(),
            at: 0,
            elsewhere: 0,
        };
        Chain { now: 0, nodes: addresses.iter().enumerate().map(node).collect(), has_primary }
    }

    fn run(&mut self, time_us: u64) {
        let end = self.now + time_us;
        while self.now < end {
            self.now += MS;
            for id in 0..self.nodes.len() {
                self.step(id, replica::Input::Tick);
                self.lead(id, primary::Input::Tick);
            }
        }
    }

    fn step(&mut self, id: usize, input: replica::Input) {
        for effect in self.nodes[id].machine.step(self.now, input) {
            match effect {
                Effect::Dial { session, elsewhere } => self.dial(id, session, elsewhere),
                Effect::Send(message) => self.lead(id, primary::Input::Message(message)),
                Effect::Promise { .. } => self.step(id, replica::Input::Promised),
                Effect::Hang => self.nodes[id].upstream = None,
                Effect::Show { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn dial(&mut self, id: usize, attempt: u64, elsewhere: bool) {
        let node = &mut self.nodes[id];
        node.elsewhere += u32::from(elsewhere);
        node.at += usize::from(elsewhere);
        let to = node.addresses[node.at % node.addresses.len()];
        if to == PRIMARY && !self.has_primary {
            node.at += 1;
            return self.step(id, replica::Input::Lost { session: attempt });
        }
        node.upstream = Some(Upstream { to, attempt, session: session(self.now) });
        self.step(id, replica::Input::Connected { session: attempt, own: own() });
    }

    /// The session that this node has at whom it follows.
    fn lead(&mut self, id: usize, input: primary::Input) {
        let to = self.nodes[id].upstream.as_ref().map(|upstream| upstream.to);
        let Some(to) = to else { return };
        let distance = self.nodes.get(to).map_or(Some(0), |node| node.machine.distance());
        let Some(Upstream { attempt, session, .. }) = &mut self.nodes[id].upstream else { return };
        let attempt = *attempt;
        let mut effects = session.step(self.now, primary::Input::Distance(distance));
        effects.extend(session.step(self.now, input));
        for effect in effects {
            match effect {
                primary::Effect::Send(message) => {
                    self.step(id, replica::Input::Message { session: attempt, message });
                }
                primary::Effect::Open { .. } => self.lead(id, primary::Input::Opened(Opened::Ready)),
                primary::Effect::Read { .. } | primary::Effect::Acked(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn distances(&self) -> Vec<Option<u8>> {
        self.nodes.iter().map(|node| node.machine.distance()).collect()
    }

    fn kill_primary(&mut self) {
        self.has_primary = false;
        for id in 0..self.nodes.len() {
            let lost = self.nodes[id].upstream.take_if(|upstream| upstream.to == PRIMARY);
            if let Some(Upstream { attempt, .. }) = lost {
                self.step(id, replica::Input::Lost { session: attempt });
            }
        }
    }
}

/// As after a promotion: the other replica, and what was the primary, come upon each other before the new primary is there.
#[test]
fn two_replicas_that_follow_each_other_part_and_find_the_primary() {
    let mut chain = Chain::new(&[&[1, PRIMARY], &[0, PRIMARY]], false);
    chain.run(200 * MS);
    assert!(chain.nodes.iter().all(|node| *node.machine.state() == State::Following), "each the other");
    chain.run(300 * MS);
    assert_eq!(chain.distances(), [None, None], "and none of them has a way to a primary");
    chain.run(3_000 * MS);
    assert!(chain.nodes.iter().all(|node| node.elsewhere > 0), "they look elsewhere");
    chain.has_primary = true;
    chain.run(5_000 * MS);
    let distances = chain.distances();
    assert!(distances.contains(&Some(1)) && distances.iter().all(Option::is_some), "{distances:?}");
}

/// The way that they believe in leads round and round: it gets longer until there is none.
#[test]
fn a_circle_with_a_primary_that_is_gone_is_left() {
    let mut chain = Chain::new(&[&[PRIMARY, 1], &[0]], true);
    chain.run(1_000 * MS);
    assert_eq!(chain.distances(), [Some(1), Some(2)]);
    chain.kill_primary();
    // Before the second one has heard of it, the first one follows it.
    while chain.nodes[0].upstream.as_ref().is_none_or(|upstream| upstream.to != 1) {
        chain.run(MS);
    }
    chain.run(10_000 * MS);
    assert_eq!(chain.distances(), [None, None]);
    assert!(chain.nodes.iter().all(|node| node.elsewhere > 0));
}

#[test]
fn a_chain_has_an_end() {
    let mut chain = Chain::new(&[&[PRIMARY], &[0], &[1]], true);
    chain.run(5_000 * MS);
    assert_eq!(chain.distances(), [Some(1), Some(2), Some(3)]);
    assert!(chain.nodes.iter().all(|node| node.elsewhere == 0), "nobody leaves what leads to a primary");
}

/// What acknowledges to the primary is who follows it, not who follows a replica.
#[test]
fn a_replica_that_could_follow_the_primary_does() {
    let mut chain = Chain::new(&[&[PRIMARY], &[0, PRIMARY]], true);
    chain.run(500 * MS);
    assert_eq!(chain.distances(), [Some(1), Some(2)]);
    chain.run(2_000 * MS);
    assert_eq!(chain.distances(), [Some(1), Some(1)]);
    // Where there is none nearer it looks once, and then seldom.
    let mut chain = Chain::new(&[&[PRIMARY], &[PRIMARY], &[0, 1]], true);
    chain.run(9_000 * MS);
    assert_eq!(chain.distances(), [Some(1), Some(1), Some(2)]);
    assert_eq!(chain.nodes[2].elsewhere, 1);
    chain.run(30_000 * MS);
    assert!((2..=4).contains(&chain.nodes[2].elsewhere), "{}", chain.nodes[2].elsewhere);
}

fn dials(effects: &[Effect]) -> Vec<bool> {
    let dial = |effect: &Effect| match effect {
        Effect::Dial { elsewhere, .. } => Some(*elsewhere),
        _ => None,
    };
    effects.iter().filter_map(dial).collect()
}

fn next_dial(machine: &mut Replica) -> (u64, bool) {
    let at = machine.wake_at().unwrap();
    let effects = machine.step(at, replica::Input::Tick);
    (at, dials(&effects)[0])
}

#[test]
fn who_is_refused_looks_elsewhere_and_who_has_lost_a_connection_looks_there_again() {
    for why in [Why::NotServing, Why::Busy, Why::Fenced { epoch: 4 }] {
        let mut machine = machine("a");
        assert_eq!(next_dial(&mut machine), (0, false));
        machine.step(1, replica::Input::Connected { session: 0, own: own() });
        machine.step(2, replica::Input::Message { session: 0, message: Message::Refuse(why.clone()) });
        assert!(next_dial(&mut machine).1, "{why:?}");
        machine.step(700_000, replica::Input::Connected { session: 1, own: own() });
        machine.step(700_001, replica::Input::Lost { session: 1 });
        assert!(!next_dial(&mut machine).1, "{why:?}");
    }
}

/// As of what was a primary before, and keeps no log for the others.
#[test]
fn what_one_lacks_of_the_log_another_may_have() {
    for (why, addresses) in [(Why::LogGone { first: Lsn(16384) }, 2), (Why::SlotMissing, 3)] {
        let mut machine = one_of("a", addresses);
        let mut now = 0;
        for attempt in 0..u64::from(addresses) {
            now = next_dial(&mut machine).0 + 1;
            machine.step(now, replica::Input::Connected { session: attempt, own: own() });
            let message = Message::Refuse(why.clone());
            machine.step(now, replica::Input::Message { session: attempt, message });
            let is_last = attempt + 1 == u64::from(addresses);
            let goes_on = matches!(machine.state(), State::Waiting { why: None, .. });
            assert_eq!(goes_on, !is_last, "{:?}", machine.state());
        }
        assert!(now < 1_000 * MS, "nobody waits long in between");
        let is_told = match machine.state() {
            State::NeedsImage { first } => *first == Lsn(16384),
            State::Waiting { why, .. } => *why == Some(Why::SlotMissing),
            _ => false,
        };
        assert!(is_told, "{:?}", machine.state());
    }
}

/// An operator asks for promises just before there is a primary to follow.
#[test]
fn a_promise_to_somebody_ends_a_long_pause() {
    let mut machine = machine("a");
    let mut session = 0;
    let mut now = 0;
    while now < 60_000 * MS {
        now = next_dial(&mut machine).0;
        machine.step(now, replica::Input::Lost { session });
        session += 1;
    }
    assert!(machine.wake_at().unwrap() > now + 2_000 * MS, "by now it tries seldom");
    machine.step(now, replica::Input::Fenced { epoch: 1 });
    assert!(machine.wake_at().unwrap() <= now + 50 * MS);
    now = next_dial(&mut machine).0;
    machine.step(now, replica::Input::Lost { session });
    assert!(machine.wake_at().unwrap() <= now + 50 * MS, "and soon again");
}

/// What was sent behind the welcome comes while the promise is on its way to the disk.
#[test]
fn the_way_is_heard_while_a_promise_is_made() {
    let mut machine = machine("a");
    next_dial(&mut machine);
    machine.step(1, replica::Input::Connected { session: 0, own: own() });
    let history = History::new(vec![Turn { epoch: 2, start: END }]).unwrap();
    let welcome = Welcome { version: 1, features: 0, history, resume: END, visible: END };
    let hears = |machine: &mut Replica, message| {
        machine.step(2, replica::Input::Message { session: 0, message });
    };
    hears(&mut machine, Message::Welcome(welcome));
    assert_eq!(*machine.state(), State::Promising);
    hears(&mut machine, Message::Distance(None));
    machine.step(3, replica::Input::Promised);
    assert_eq!((machine.state(), machine.distance()), (&State::Following, None));
    let effects = machine.step(1_100 * MS, replica::Input::Tick);
    assert!(effects.contains(&Effect::Hang), "{effects:?}");
    // One that leads on is stayed with.
    let why = Some(Why::NotServing);
    assert!(matches!(machine.state(), State::Waiting { why: found, .. } if *found == why));
}
