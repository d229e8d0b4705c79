//! A store and its replicas in one process: threads, a transport without sockets, simulated disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod stores;

use seawall_engine::{Ack, Db, Error, SlotOptions, SlotState, rewind};
use seawall_replication::ack::Part;
use seawall_replication::message::{Message, Name, Why};
use seawall_replication::node::local::Switch;
use seawall_replication::node::{Follower, Host, Keeper, Leader, LeaderOptions, claim, greet};
use seawall_replication::ship::replica::State;
use seawall_wal::disk::sim::{Fault, Op};
use seawall_wal::{OsRuntime, Runtime};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stores::{LONG, Store, leader, options, replica_of};

fn following(store: &Store, switch: &Arc<Switch>, name: &str) -> Follower {
    Follower::run(&store.db.shipping(), switch.clone(), options(name)).unwrap()
}

#[test]
fn commits_wait_for_a_replica_and_replicas_show_them() {
    let primary = Store::primary(1, Ack::Durable);
    let (one, two) = (replica_of(&primary, 2), replica_of(&primary, 3));
    let switch = Arc::new(Switch::default());
    let leader = leader(&primary, Some("ANY 1 (one, two)"));
    switch.set(Some(Arc::new(leader.clone())));
    let followers = [following(&one, &switch, "one"), following(&two, &switch, "two")];
    primary.write(0..300);
    let visible = primary.db.shipping().visible();
    for store in [&one, &two] {
        assert!(store.db.shipping().wait_visible(visible, LONG).unwrap(), "{followers:?}");
        assert_eq!(store.rows(), primary.rows());
        assert!(matches!(store.put("x"), Err(Error::ReadOnly)), "a replica takes no writes");
    }
    assert!(followers.iter().all(|follower| follower.state() == State::Following));
    let known = leader.followers();
    assert_eq!(known.iter().map(|of| of.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(known.iter().all(|of| of.is_connected && of.part == Part::Quorum));
    assert!(leader.reached().unwrap().durable >= visible);
    let status = leader.status();
    assert!(!status.is_replica && status.policy.as_deref() == Some("ANY 1 (one, two)"));
    assert!(followers[0].status().is_replica);
}

#[test]
fn a_cable_that_is_pulled_holds_commits_up_and_nothing_is_lost() {
    let primary = Store::primary(1, Ack::Durable);
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let leader = leader(&primary, Some("one"));
    switch.set(Some(Arc::new(leader.clone())));
    let follower = following(&one, &switch, "one");
    primary.write(0..10);
    switch.set(None);
    switch.cut();
    let Err(Error::CommitUnknown { lsn }) = primary.put("held up") else { panic!("it did not wait") };
    assert!(primary.rows().len() == 10, "what no replica has is not shown");
    // Both sides find out by silence.
    assert!(follower.wait_state(|state| matches!(state, State::Waiting { .. }), LONG));
    switch.set(Some(Arc::new(leader)));
    assert!(primary.db.await_commit(lsn, LONG).unwrap());
    let visible = primary.db.shipping().visible();
    assert!(one.db.shipping().wait_visible(visible, LONG).unwrap());
    assert_eq!(one.rows().len(), 11);
}

#[test]
fn a_replica_comes_back_where_it_was() {
    let primary = Store::primary(1, Ack::Local);
    let mut one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let leader = leader(&primary, None);
    switch.set(Some(Arc::new(leader)));
    for round in 0..4 {
        let follower = following(&one, &switch, "one");
        primary.write(round * 50..round * 50 + 50);
        if round % 2 == 0 {
            let visible = primary.db.shipping().visible();
            assert!(one.db.shipping().wait_visible(visible, LONG).unwrap(), "{visible}, {follower:?}");
        }
        drop(follower);
        one = one.reopened(true);
    }
    let _follower = following(&one, &switch, "one");
    assert!(one.db.shipping().wait_visible(primary.db.shipping().visible(), LONG).unwrap());
    assert_eq!(one.rows(), primary.rows());
}

#[test]
fn one_is_promoted_the_others_follow_and_the_old_one_is_fenced() {
    let primary = Store::primary(1, Ack::Durable);
    let (one, two) = (replica_of(&primary, 2), replica_of(&primary, 3));
    let switch = Arc::new(Switch::default());
    let old = leader(&primary, Some("ANY 2 (one, two)"));
    switch.set(Some(Arc::new(old.clone())));
    let first = following(&one, &switch, "one");
    let second = following(&two, &switch, "two");
    primary.write(0..40);
    // The old primary is cut off, and goes on.
    switch.set(None);
    switch.cut();
    assert!(matches!(primary.put("nobody has it"), Err(Error::CommitUnknown { .. })));
    first.stop();
    // The other one promises first: it acknowledges nothing to the old one any more.
    two.db.shipping().fence(1).unwrap();
    second.fenced(1);
    assert_eq!(two.db.shipping().wal().timeline().promised, 1);
    let started = Instant::now();
    one.db.shipping().promote(1).unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
    let new = leader(&one, Some("two"));
    switch.set(Some(Arc::new(new)));
    one.write(40..60);
    assert!(two.db.shipping().wait_visible(one.db.shipping().visible(), LONG).unwrap());
    assert_eq!(two.rows().len(), 60);
    assert_eq!(two.rows(), one.rows());
    // The cable is back: whoever follows the new primary tells the old one.
    switch.set(Some(Arc::new(old)));
    switch.cut();
    let until = Instant::now() + LONG;
    while primary.db.shipping().fenced() != Some(1) {
        assert!(Instant::now() < until, "the old primary never hears of the new one");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(primary.put("too late"), Err(Error::Fenced { epoch: 1 })));
    assert!(second.wait_state(|state| matches!(state, State::Waiting { .. }), LONG));
    assert_eq!(two.rows().len(), 60, "the stale primary is not followed");
}

#[test]
fn one_that_wrote_what_nobody_has_is_told_where_it_parted() {
    // An idle log's seal, which a checkpoint may then cover, would be cut off below.
    let primary = Store::primary(1, Ack::Local).quietly();
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let old = leader(&primary, None);
    switch.set(Some(Arc::new(old.clone())));
    let follower = following(&one, &switch, "one");
    primary.write(0..20);
    assert!(one.db.shipping().wait_visible(primary.db.shipping().visible(), LONG).unwrap());
    follower.stop();
    primary.write(20..30);
    one.db.shipping().promote(3).unwrap();
    let fork = one.db.shipping().wal().timeline().history.turns()[0].start;
    switch.set(Some(Arc::new(leader(&one, None))));
    old.close();
    drop(old);
    // It comes back as a replica, with its own end.
    let (disk, end) = (primary.disk.clone(), primary.db.shipping().wal().tail().place);
    drop(primary);
    let timeline = one.db.shipping().wal().timeline();
    stores::rewind_to_end(&disk, end, &timeline);
    let back = Store::open(disk, true, Ack::Local);
    let follower = following(&back, &switch, "back");
    assert!(follower.wait_state(|state| matches!(state, State::NeedsRewind { .. }), LONG), "{follower:?}");
    let State::NeedsRewind { to, history } = follower.state() else { panic!() };
    assert_eq!(follower.goes_back(), None, "it has records that would be lost");
    assert_eq!((to, history.epoch()), (fork, 3));
}

/// Hands over all of the log, and applies it.
fn feed(from: &Store, to: &Store) {
    let (source, target) = (from.db.shipping().wal().clone(), to.db.shipping().wal().clone());
    let mut shipper = source.ship(target.tail().place.max(source.first_place())).unwrap();
    while let Some(piece) = shipper.next_piece(1).unwrap() {
        target.accept(&piece).unwrap();
    }
    target.sync_replica().unwrap();
    to.db.shipping().apply().unwrap();
}

/// A seal is no record, and whoever has it may yet follow one who has not.
#[test]
fn one_that_has_no_record_more_goes_back_and_loses_nothing() {
    let primary = Store::primary(1, Ack::Local);
    let (one, two) = (replica_of(&primary, 2), replica_of(&primary, 3));
    let rows = 20;
    primary.db.create_slot("two", SlotOptions::default()).unwrap();
    let primary = primary.quietly();
    primary.write(0..rows);
    feed(&primary, &one);
    // Who closes a store seals its log.
    let primary = primary.reopened(false);
    feed(&primary, &two);
    let ends = [&one, &two].map(|store| store.db.shipping().wal().tail());
    assert!(ends[0].whole_end == ends[1].whole_end && ends[0].place < ends[1].place, "{ends:?}");
    one.db.shipping().promote(1).unwrap();
    let switch = Arc::new(Switch::default());
    switch.set(Some(Arc::new(leader(&one, None))));
    let follower = following(&two, &switch, "two");
    assert!(follower.wait_state(|state| matches!(state, State::NeedsRewind { .. }), LONG), "{follower:?}");
    let (to, history) = follower.goes_back().expect("no record is lost by it");
    drop(follower);
    let disk = two.disk.clone();
    two.db.close().unwrap();
    let builder = Db::builder("/store").disk(disk.clone()).probe(false);
    rewind(&builder, to, history.epoch(), &(&history).into()).unwrap();
    let two = Store::open(disk, true, Ack::Local);
    let _follower = following(&two, &switch, "two");
    one.write(rows..rows + 4);
    assert!(two.db.shipping().wait_visible(one.db.shipping().visible(), LONG).unwrap());
    assert_eq!(two.rows(), one.rows());
}

#[test]
fn a_replica_that_lags_on_purpose_applies_what_is_old_enough() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let leader = leader(&primary, None);
    switch.set(Some(Arc::new(leader)));
    let mut lagging = options("one");
    lagging.settings.delay_us = 400_000;
    let follower = Follower::run(&one.db.shipping(), switch.clone(), lagging).unwrap();
    let started = Instant::now();
    primary.write(0..20);
    let visible = primary.db.shipping().visible();
    assert!(follower.wait_state(|_| follower.marks().durable >= visible, LONG), "it has it at once");
    let shipping = one.db.shipping();
    assert!(started.elapsed() > Duration::from_millis(300) || one.rows().is_empty(), "and does not show it");
    assert!(shipping.wait_visible(visible, LONG).unwrap());
    assert!(started.elapsed() >= Duration::from_millis(350), "{:?}", started.elapsed());
}

/// A replica behind another one: when that one's primary is replaced, it promises the new epoch before it gets any of its log.
#[test]
fn who_follows_a_replica_promises_the_epoch_that_it_follows_next() {
    let primary = Store::primary(1, Ack::Local);
    let (one, middle, last) = (replica_of(&primary, 2), replica_of(&primary, 3), replica_of(&primary, 4));
    let (first, second) = (Arc::new(Switch::default()), Arc::new(Switch::default()));
    first.set(Some(Arc::new(leader(&primary, None))));
    second.set(Some(Arc::new(leader(&middle, None))));
    let followers = [
        following(&one, &first, "one"),
        following(&middle, &first, "middle"),
        following(&last, &second, "last"),
    ];
    primary.write(0..20);
    let shown = primary.db.shipping().visible();
    for store in [&one, &middle, &last] {
        assert!(store.db.shipping().wait_visible(shown, LONG).unwrap());
    }
    followers[0].stop();
    one.db.shipping().promote(5).unwrap();
    first.set(Some(Arc::new(leader(&one, None))));
    first.cut();
    one.write(20..40);
    assert!(last.db.shipping().wait_visible(one.db.shipping().visible(), LONG).unwrap());
    let timeline = last.db.shipping().wal().timeline();
    assert_eq!((timeline.promised, timeline.history.epoch()), (5, 5), "{followers:?}");
    // It is a replica like any: it goes on after its connection was lost, and can be promoted.
    second.cut();
    one.write(40..60);
    assert!(last.db.shipping().wait_visible(one.db.shipping().visible(), LONG).unwrap(), "{followers:?}");
    followers[2].stop();
    last.db.shipping().promote(6).unwrap();
    assert_eq!(last.rows(), one.rows());
}

/// What a promoter is told: a promise that was given to another is none.
#[test]
fn an_epoch_is_promised_to_one_claimant() {
    let primary = Store::primary(1, Ack::Local);
    let (one, two) = (replica_of(&primary, 2), replica_of(&primary, 3));
    let peer = replica_of(&primary, 4);
    let switch = Arc::new(Switch::default());
    switch.set(Some(Arc::new(leader(&peer, None))));
    let runtime: Arc<dyn Runtime> = OsRuntime::new();
    let ask = |store: &Store, epoch| {
        let claim = claim(&store.db.shipping(), Name::new("claimant").unwrap(), epoch);
        greet(&*switch, claim, LONG, &runtime)
    };
    assert_eq!(ask(&one, 1).unwrap(), Message::Refuse(Why::Fenced { epoch: 1 }));
    assert_eq!(ask(&two, 1).unwrap(), Message::Refuse(Why::Busy));
    assert_eq!(ask(&two, 2).unwrap(), Message::Refuse(Why::Fenced { epoch: 2 }));
    assert_eq!(ask(&one, 1).unwrap(), Message::Refuse(Why::Busy));
    assert_eq!(peer.db.shipping().wal().timeline().promised, 2);
    // One above which there would be none is nobody's.
    assert!(ask(&one, u64::MAX).is_err());
    assert_eq!(peer.db.shipping().wal().timeline().promised, 2);
    // What cannot be written down is not promised.
    for op in [Op::Write, Op::WriteDurable, Op::Sync] {
        peer.disk.fail(Fault::eio(op).path_contains("anchor").forever());
    }
    assert!(ask(&one, 3).is_err());
    assert_eq!(peer.db.shipping().wal().timeline().promised, 2);
}

/// A replica that is there and takes nothing: beyond its slot's limits the log is not kept for it.
#[test]
fn a_session_does_not_outlive_its_slot() {
    let primary = Store::primary(1, Ack::Local);
    let limits = SlotOptions { bytes_max: Some(1 << 20), age_max: None };
    primary.db.create_slot("one", limits).unwrap();
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let mut serving = LeaderOptions::default();
    serving.keeping = Some(Arc::new(Keeper::new(&primary.db, limits, OsRuntime::new())));
    switch.set(Some(Arc::new(Leader::serve(&primary.db.shipping(), serving).unwrap())));
    let mut named = options("one");
    named.settings.slot = Name::new("one");
    let follower = Follower::run(&one.db.shipping(), switch.clone(), named).unwrap();
    assert!(follower.wait_state(|state| *state == State::Following, LONG));
    // Its disk is full: it waits, and says that it is there.
    one.disk.set_capacity(1);
    let first = primary.db.shipping().wal().first_lsn();
    primary.write(0..4000);
    let checkpoints_until = |what: &str, is_so: &dyn Fn() -> bool| {
        let until = Instant::now() + 3 * LONG;
        while !is_so() {
            assert!(Instant::now() < until, "{what}: {follower:?} {:?}", primary.db.slots());
            primary.db.checkpoint().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    checkpoints_until("the slot is lost", &|| primary.db.slots()[0].state == SlotState::Lost);
    checkpoints_until("the log is given back", &|| primary.db.shipping().wal().first_lsn() > first);
    assert_ne!(follower.state(), State::Following);
}

#[test]
fn what_only_the_primarys_data_file_has_takes_a_new_image() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    switch.set(Some(Arc::new(leader(&primary, None))));
    let follower = following(&one, &switch, "one");
    let rows = primary.db.open_keyspace("rows").unwrap().unwrap();
    let mut tx = primary.db.begin();
    tx.insert_from(&rows, "large", 4 << 20, &mut &vec![7; 4 << 20][..]).unwrap();
    tx.commit().unwrap();
    assert!(follower.wait_state(|state| matches!(state, State::NeedsImage { .. }), LONG), "{follower:?}");
    assert!(follower.last_error().unwrap().contains("new image"), "{follower:?}");
}

#[test]
fn sessions_end_with_the_leader_and_with_the_store() {
    let primary = Store::primary(1, Ack::Local);
    let one = replica_of(&primary, 2);
    let switch = Arc::new(Switch::default());
    let leader = leader(&primary, None);
    switch.set(Some(Arc::new(leader.clone())));
    let follower = following(&one, &switch, "one");
    assert!(follower.wait_state(|state| *state == State::Following, LONG));
    leader.close();
    assert!(follower.wait_state(|state| matches!(state, State::Waiting { .. }), LONG));
    assert!(leader.followers().is_empty());
    let second = stores::leader(&primary, None);
    switch.set(Some(Arc::new(second)));
    assert!(follower.wait_state(|state| *state == State::Following, LONG));
    // What needs a slot that is not there is refused, and says why.
    drop(follower);
    let mut named = options("one");
    named.settings.slot = seawall_replication::message::Name::new("none");
    let follower = Follower::run(&one.db.shipping(), switch.clone(), named).unwrap();
    let is_refused = |state: &State| matches!(state, State::Waiting { why: Some(_), .. });
    assert!(follower.wait_state(is_refused, LONG));
}
