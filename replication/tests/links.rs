//! What is known of links: a primary and its replicas in one process, on simulated disks.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod stores;

use parking_lot::Mutex;
use seawall_engine::{Ack, SlotOptions};
use seawall_replication::ack::Part;
use seawall_replication::message::{Marks, Message, Name};
use seawall_replication::node::local::Switch;
use seawall_replication::node::{
    Direction, Follower, Host, Keeper, Leader, LeaderOptions, Link, LinkEvent, LinkListener, Wire, hello,
    to_prometheus,
};
use seawall_replication::ship::replica::State;
use seawall_wal::OsRuntime;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stores::{LONG, Store, leader, options, replica_of};

#[derive(Default)]
struct Told(Mutex<Vec<(String, Direction, LinkEvent)>>);

impl LinkListener for Told {
    fn event(&self, name: &str, direction: Direction, event: &LinkEvent) {
        self.0.lock().push((name.to_owned(), direction, event.clone()));
    }
}

impl Told {
    fn has(&self, is_it: impl Fn(&(String, Direction, LinkEvent)) -> bool) -> bool {
        self.0.lock().iter().any(is_it)
    }
}

#[track_caller]
fn until<T: std::fmt::Debug>(look: impl Fn() -> T, is_it: impl Fn(&T) -> bool) -> T {
    let begin = Instant::now();
    loop {
        let found = look();
        if is_it(&found) {
            return found;
        }
        assert!(begin.elapsed() < LONG, "{found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn link_to(leader: &Leader, name: &str) -> Link {
    leader.links().into_iter().find(|link| link.name == name).unwrap()
}

#[test]
fn both_sides_of_a_link_know_how_far_it_is() {
    let primary = Store::primary(1, Ack::Durable);
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let leader = leader(&primary, Some("one"));
    switch.set(Some(Arc::new(leader.clone())));
    let told = Arc::new(Told::default());
    let mut following = options("one");
    following.listener = Some(told.clone());
    let follower = Follower::run(&one.db.shipping(), switch.clone(), following).unwrap();
    primary.write(0..200);
    let visible = primary.db.shipping().visible();
    assert!(one.db.shipping().wait_visible(visible, LONG).unwrap());

    let out = until(|| link_to(&leader, "one"), |link| link.marks.visible >= visible);
    assert_eq!((out.direction, out.is_connected, out.part), (Direction::Out, true, Some(Part::Sync)));
    assert_eq!((out.lag_bytes, out.lag), (0, Duration::ZERO), "it has all that there is");
    assert!(out.sent >= out.marks.taken && out.marks.are_ordered(), "{out:?}");
    assert!(out.source_durable >= visible && out.source_visible >= visible);
    assert!(out.bytes > 200 * 20 && out.bytes_per_s > 0, "{out:?}");
    assert_eq!((out.sessions, out.reconnects(), out.errors, out.retained), (1, 0, 0, None));

    let inward = until(|| follower.link(), |link| link.source_durable >= visible);
    assert_eq!((inward.name.as_str(), inward.direction, inward.part), ("one", Direction::In, None));
    assert!(inward.is_connected && inward.silence < LONG && inward.connected_for > Duration::ZERO);
    assert_eq!((inward.lag_bytes, inward.lag), (0, Duration::ZERO));
    // What one side has sent the other has taken; an idle log's seal may just be on its way.
    until(|| (follower.link().bytes, link_to(&leader, "one").bytes), |(taken, sent)| taken == sent);
    assert!(matches!(told.0.lock()[0], (_, Direction::In, LinkEvent::Connected { .. })));

    let status = leader.status();
    assert_eq!(status.links.len(), 1);
    assert_eq!(follower.status().links[0].name, "one");
}

#[test]
fn a_replica_that_hears_nothing_lags_more_and_more_and_its_link_says_why_it_ended() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let told = Arc::new(Told::default());
    let mut shipping = LeaderOptions::default();
    shipping.settings.heartbeat_us = 20_000;
    shipping.settings.timeout_us = 400_000;
    shipping.listener = Some(told.clone());
    let leader = Leader::serve(&primary.db.shipping(), shipping).unwrap();
    switch.set(Some(Arc::new(leader.clone())));
    let follower = Follower::run(&one.db.shipping(), switch.clone(), options("one")).unwrap();
    primary.write(0..10);
    until(
        || link_to_any(&leader),
        |link| link.as_ref().is_some_and(|link| link.is_connected && link.lag_bytes == 0),
    );
    switch.set(None);
    switch.cut();
    let before = Instant::now();
    primary.write(10..20);
    let first = until(|| link_to(&leader, "one"), |link| link.lag > Duration::from_millis(50));
    assert!(first.lag <= before.elapsed() + Duration::from_millis(20) && first.lag_bytes > 0, "{first:?}");
    let later = until(|| link_to(&leader, "one"), |link| link.lag > Duration::from_millis(600));
    assert!(later.lag_bytes >= first.lag_bytes && later.lag <= before.elapsed() + Duration::from_millis(20));
    // By now both have noticed.
    let away = until(|| link_to(&leader, "one"), |link| !link.is_connected);
    assert_eq!((away.errors, away.connected_for), (1, Duration::ZERO));
    assert!(away.last_error.clone().unwrap().contains("nothing was heard"), "{away:?}");
    assert!(away.silence >= Duration::from_millis(400));
    assert!(told.has(|(name, direction, event)| {
        let is_end =
            matches!(event, LinkEvent::Disconnected { why: Some(why) } if why.contains("nothing was heard"));
        name == "one" && *direction == Direction::Out && is_end
    }));
    // It comes back, and catches up.
    switch.set(Some(Arc::new(leader.clone())));
    let back = until(|| link_to(&leader, "one"), |link| link.is_connected && link.lag_bytes == 0);
    assert_eq!((back.lag, back.sessions, back.reconnects()), (Duration::ZERO, 2, 1));
    let inward = follower.link();
    assert!(inward.sessions == 2 && inward.errors >= 1, "{inward:?}");
    leader.forget("one");
    assert_eq!(leader.links().len(), 1, "who is there is not forgotten");
}

fn link_to_any(leader: &Leader) -> Option<Link> {
    leader.links().into_iter().next()
}

#[test]
fn a_lag_on_purpose_is_seen_in_bytes_and_time_on_both_sides() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let leader = leader(&primary, None);
    switch.set(Some(Arc::new(leader.clone())));
    let mut lagging = options("one");
    lagging.settings.delay_us = 1_500_000;
    let follower = Follower::run(&one.db.shipping(), switch.clone(), lagging).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG));
    until(|| link_to_any(&leader), Option::is_some);
    primary.write(0..20);
    for look in [&(|| link_to(&leader, "one")) as &dyn Fn() -> Link, &|| follower.link()] {
        let link = until(look, |link| link.lag > Duration::from_millis(500));
        assert!(link.lag_bytes > 0 && link.lag < LONG && link.marks.durable > link.marks.applied, "{link:?}");
    }
    until(|| link_to(&leader, "one"), |link| link.lag_bytes == 0 && link.lag == Duration::ZERO);
}

#[test]
fn what_a_slot_keeps_for_a_replica_is_said_and_who_is_refused_too() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    primary.db.create_slot("one", SlotOptions::default()).unwrap();
    let mut shipping = LeaderOptions::default();
    let keeper = Keeper::new(&primary.db, SlotOptions::default(), OsRuntime::new());
    shipping.keeping = Some(Arc::new(keeper));
    let leader = Leader::serve(&primary.db.shipping(), shipping).unwrap();
    let switch = Arc::new(Switch::default());
    switch.set(Some(Arc::new(leader.clone())));
    let mut named = options("one");
    named.settings.slot = Name::new("one");
    let follower = Follower::run(&one.db.shipping(), switch.clone(), named).unwrap();
    primary.write(0..50);
    let link =
        until(|| link_to_any(&leader), |link| link.as_ref().is_some_and(|link| link.lag_bytes == 0)).unwrap();
    let retained = link.retained.unwrap();
    assert!(retained.holder == "slot one" && retained.bytes > 0, "{retained:?}");
    let text = to_prometheus(&leader.links());
    assert!(text.contains("seawall_link_connected{name=\"one\",direction=\"out\"} 1\n"), "{text}");
    let kept = "seawall_link_retained_bytes{name=\"one\",direction=\"out\",who=\"slot one\"} ";
    assert!(text.lines().any(|line| line.starts_with(kept)), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value >= 0.0, "{line}");
    }
    drop(follower);

    // One whose store is another's asks, and leaves the word why it got nothing.
    let stranger = Store::primary(9, Ack::Local);
    let foreign = replica_of(&stranger, 10);
    let mut named = options("strange");
    named.settings.slot = Name::new("strange");
    let asking = Follower::run(&foreign.db.shipping(), switch, named).unwrap();
    let refused = until(
        || leader.links().into_iter().find(|link| link.name == "strange"),
        |link| link.as_ref().is_some_and(|link| link.errors > 0),
    )
    .unwrap();
    assert!(!refused.is_connected && refused.sessions == 0, "{refused:?}");
    assert!(refused.last_error.unwrap().contains("another store"));
    let inward = until(|| asking.link(), |link| link.errors > 0);
    assert!(inward.last_error.unwrap().contains("another store"));
    drop(asking);
    // Its last attempt may still be on its way.
    let forgotten = || {
        leader.forget("strange");
        leader.links().iter().all(|link| link.name != "strange")
    };
    until(forgotten, |is_forgotten| *is_forgotten);
}

/// A replica that is there, and at whose end of the connection something closes the leader when it hears of news.
struct Closing {
    leader: Leader,
    is_welcome: AtomicBool,
    is_closed: AtomicBool,
}

impl Wire for Closing {
    fn send(&self, message: Message) {
        match message {
            Message::Welcome(_) => self.is_welcome.store(true, Ordering::SeqCst),
            Message::Heartbeat(_) => {
                self.leader.close();
                self.is_closed.store(true, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    fn close(&self) {}
}

/// By the notifier's thread, by the session's, or by whoever brings marks: none of them waits for itself.
#[test]
fn a_leader_can_be_closed_in_a_step_of_one_of_its_sessions() {
    for _ in 0..4 {
        let primary = Store::primary(1, Ack::Local);
        let one = replica_of(&primary, 2);
        let leader = leader(&primary, None);
        let [is_welcome, is_closed] = [false; 2].map(AtomicBool::new);
        let wire = Arc::new(Closing { leader: leader.clone(), is_welcome, is_closed });
        let ear = leader.connected(None, wire.clone()).unwrap();
        let hello = hello(&one.db.shipping(), Name::new("one").unwrap());
        let taken = hello.tail.place;
        ear.hear(Message::Hello(hello));
        until(|| wire.is_welcome.load(Ordering::SeqCst), |is_welcome| *is_welcome);
        let marks = Marks { taken, credit: 1 << 20, ..Marks::default() };
        until(
            || {
                ear.hear(Message::Marks(marks));
                primary.put("a").unwrap();
                wire.is_closed.load(Ordering::SeqCst)
            },
            |is_closed| *is_closed,
        );
        leader.close();
        drop(ear);
    }
}
