//! Single runs that show what a protocol can, and what it cannot.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod world;

use seawall_txn::mutation::Mutation;
use seawall_txn::{
    Body, Context, Decision, Durable, Effect, Entry, Group, Input, Key, Message, NodeId, Protocol, Record,
    Role, Site, Timer, TxnId, Vote,
};
use std::sync::Arc;
use world::{Act, COORDINATOR, Setup, TXN, World};

/// Delivers and persists what `may` allows, until nothing moves.
fn flow(world: &mut World, may: impl Fn(&Act) -> bool) {
    let moves = |act: &Act| matches!(act, Act::Deliver(_) | Act::Persist(_));
    while let Some(act) = world.acts(true).into_iter().find(|act| moves(act) && may(act)) {
        world.act(&act, false);
    }
}

fn fire_all(world: &mut World) {
    let acts = world.acts(false);
    for act in acts.into_iter().filter(|act| matches!(act, Act::Fire(_, _, Timer::Retry))) {
        world.act(&act, false);
    }
    flow(world, |_| true);
}

fn crash(world: &mut World, id: NodeId) {
    world.crashes_left += 1;
    world.act(&Act::Crash(id, 0), false);
    world.network.retain(|message| message.to != id);
}

/// Skeen's counterexample: the second phase has reached one side of a partition and not the other.
#[test]
fn three_phase_commit_splits_under_partition() {
    let mut world = Setup::new(Protocol::ThreePhase, &[1, 2]).world();
    let to_two =
        |act: &Act| matches!(act, Act::Deliver(Message { to: NodeId(2), body: Body::PreCommit(_), .. }));
    flow(&mut world, |act| !to_two(act));
    assert!(world.network.iter().any(|message| message.to == NodeId(2)), "on its way, never to arrive");
    // Node 2 alone on one side; the coordinator dies, and node 1 is alone on the other.
    world.network.clear();
    for (a, b) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
        world.cut.insert((NodeId(a), NodeId(b)));
    }
    crash(&mut world, COORDINATOR);
    for _ in 0..6 {
        fire_all(&mut world);
    }
    assert_eq!(world.applied.get(&NodeId(1)), Some(&Decision::Commit));
    assert_eq!(world.applied.get(&NodeId(2)), Some(&Decision::Abort));
    assert!(!world.agrees());
}

/// The same partition, and whatever else it does: Paxos Commit waits for a majority.
#[test]
fn paxos_commit_finishes_without_the_coordinator_and_any_one_acceptor() {
    for dead in [11, 12, 13] {
        for messages in 0..40 {
            let setup =
                Setup { acceptors: vec![11, 12, 13], ..Setup::new(Protocol::PaxosCommit, &[1, 2, 3]) };
            let mut world = setup.world();
            // They die somewhere on the way.
            for _ in 0..messages {
                let moves = |act: &Act| matches!(act, Act::Deliver(_) | Act::Persist(_));
                let Some(act) = world.acts(true).into_iter().find(moves) else { break };
                world.act(&act, false);
            }
            let dead = [COORDINATOR, NodeId(dead)];
            dead.iter().for_each(|&id| crash(&mut world, id));
            let told = world.outcome;
            for (id, will) in &world.applied.clone() {
                assert!(world.is_participant(*id), "{will:?}");
            }
            // Those who were never asked give up by themselves.
            for act in world.acts(false) {
                if matches!(act, Act::Fire(_, Key { role: Role::Participant, .. }, Timer::Deadline)) {
                    world.act(&act, false);
                }
            }
            world.heal(&dead).unwrap();
            let outcome = world.applied[&NodeId(1)];
            assert!(told.is_none_or(|told| told == outcome), "after {messages} messages");
        }
    }
}

/// Fires what makes a participant ask, and in the end lead.
fn fire(world: &mut World, id: NodeId) {
    let acts = world.acts(false);
    for act in acts.into_iter().filter(|act| matches!(act, Act::Fire(of, _, Timer::Retry) if *of == id)) {
        world.act(&act, false);
    }
}

/// A leader dies and is back, and leads again; what it proposed before it died arrives only then. Were both in one ballot,
/// acceptors would put the old proposal over the new one, which has been chosen.
#[test]
fn what_a_leader_proposed_in_its_earlier_life_is_outbid_by_its_later_one() {
    assert!(a_leader_that_comes_back(None).agrees());
    let mut reusing = a_leader_that_comes_back(Some(Mutation::ReuseBallots));
    assert!(!reusing.agrees() && reusing.heal(&[COORDINATOR]).is_err());
}

fn a_leader_that_comes_back(mutation: Option<Mutation>) -> World {
    let leader = NodeId(1);
    let all = Setup::new(Protocol::PaxosCommit, &[1, 2, 3]);
    let setup = Setup { acceptors: vec![11, 12, 13], mutation, ..all };
    let mut world = setup.world();
    // Only one acceptor gets the votes, and the coordinator dies.
    let is_for = |act: &Act, ids: &[u64]| match act {
        Act::Deliver(message) => ids.iter().any(|&id| message.to == NodeId(id)),
        _ => true,
    };
    flow(&mut world, |act| is_for(act, &[1, 2, 3, 11]));
    crash(&mut world, COORDINATOR);
    world.network.clear();
    // The leader asks the other two, finds nothing, proposes to abort; and dies, its proposals on their way.
    (0..3).for_each(|_| fire(&mut world, leader));
    world.network.retain(|message| matches!(message.body, Body::Phase1a { .. }));
    flow(&mut world, |act| {
        is_for(act, &[1, 12, 13]) && !matches!(act, Act::Deliver(Message { body: Body::Phase2a { .. }, .. }))
    });
    let old = |message: &Message| matches!(message.body, Body::Phase2a { .. }) && message.epoch == 1;
    assert_eq!(world.network.iter().filter(|message| old(message)).count(), 3);
    crash(&mut world, leader);
    world.network.retain(old);
    // It is back, and asks the one that has the votes.
    world.act(&Act::Return(leader), false);
    (0..3).for_each(|_| fire(&mut world, leader));
    let is_new = |act: &Act| !matches!(act, Act::Deliver(message) if old(message));
    flow(&mut world, |act| is_for(act, &[1, 11, 12]) && is_new(act));
    flow(&mut world, |act| is_for(act, &[2]) && is_new(act));
    assert_eq!(world.applied.get(&NodeId(2)), Some(&Decision::Commit));
    // Now the old proposals arrive, and the leader dies again.
    world.network.retain(old);
    flow(&mut world, |act| is_for(act, &[12, 13]));
    crash(&mut world, leader);
    world.network.clear();
    for _ in 0..8 {
        fire(&mut world, NodeId(3));
        flow(&mut world, |act| is_for(act, &[3, 12, 13]));
    }
    assert!(world.applied.contains_key(&NodeId(3)));
    if mutation.is_none() {
        world.heal(&[COORDINATOR]).unwrap();
    }
    world
}

#[test]
fn two_phase_commit_is_blocked_by_its_coordinator_and_then_goes_on() {
    let mut world = Setup::new(Protocol::TwoPhase, &[1, 2]).world();
    flow(&mut world, |act| !matches!(act, Act::Deliver(Message { body: Body::Vote(_), .. })));
    world.network.clear();
    crash(&mut world, COORDINATOR);
    for _ in 0..6 {
        fire_all(&mut world);
    }
    assert!(world.applied.is_empty(), "nobody may decide");
    world.heal(&[]).unwrap();
    assert_eq!(world.applied.get(&NodeId(1)), Some(&Decision::Abort), "presumed");
}

#[test]
fn a_peer_that_knows_the_outcome_ends_the_doubt() {
    let mut world = Setup::new(Protocol::TwoPhase, &[1, 2]).world();
    // Node 1 hears of the commit, its record not being durable yet; node 2 does not, and the coordinator is gone.
    let held = |act: &Act| match act {
        Act::Deliver(message) => !matches!(message.body, Body::Decide { .. }) || message.to == NodeId(1),
        Act::Persist(id) => *id != NodeId(1),
        _ => true,
    };
    flow(&mut world, |act| match act {
        Act::Deliver(message) => !matches!(message.body, Body::Decide { .. }),
        _ => true,
    });
    flow(&mut world, held);
    crash(&mut world, COORDINATOR);
    world.network.clear();
    for _ in 0..3 {
        let acts = world.acts(false);
        for act in acts.into_iter().filter(|act| matches!(act, Act::Fire(_, _, Timer::Retry))) {
            world.act(&act, false);
        }
        flow(&mut world, held);
    }
    assert_eq!(world.applied.get(&NodeId(2)), Some(&Decision::Commit));
    world.heal(&[]).unwrap();
}

fn prepare(txn: TxnId, epoch: u64) -> Message {
    let group = Arc::new(Group { participants: vec![NodeId(1), NodeId(2)], acceptors: vec![] });
    let body = Body::Prepare { protocol: Protocol::TwoPhase, group };
    Message { txn, from: COORDINATOR, to: NodeId(1), epoch, body }
}

/// A coordinator's earlier incarnation, not dead after all, gives orders that nobody follows.
#[test]
fn an_earlier_incarnation_of_the_coordinator_is_fenced() {
    let refuses = |mutation| {
        let mut site = Site::new(Context { mutation, ..Context::new(NodeId(1), 1) });
        let old = TxnId { sequence: 2, ..TXN };
        site.step(0, Key { txn: old, role: Role::Participant }, Input::Join);
        let new = TxnId { epoch: 2, ..TXN };
        site.receive(0, prepare(new, 2));
        let actions = site.receive(0, prepare(old, 1));
        let fenced = |(_, effect): &(Key, Effect)| {
            matches!(effect, Effect::Send(Message { body: Body::Fenced { epoch: 2 }, .. }))
        };
        actions.iter().any(fenced) && actions.len() == 1
    };
    assert!(refuses(None));
    assert!(!refuses(Some(Mutation::IgnoreFence)));

    // It is told, and stops.
    let mut old = Site::new(Context::new(COORDINATOR, 1));
    let message =
        Message { txn: TXN, from: NodeId(1), to: COORDINATOR, epoch: 1, body: Body::Fenced { epoch: 2 } };
    assert!(matches!(old.receive(0, message)[..], [(_, Effect::Fenced { epoch: 2 })]));
}

/// What an earlier incarnation knows nothing of may have been committed by a later one.
#[test]
fn an_earlier_incarnation_does_not_answer_for_a_later_one() {
    let answers = |mutation| {
        let mut site = Site::new(Context { mutation, ..Context::new(COORDINATOR, 1) });
        let txn = TxnId { epoch: 2, ..TXN };
        let body = Body::Inquire(Protocol::TwoPhase);
        site.receive(0, Message { txn, from: NodeId(1), to: COORDINATOR, epoch: 1, body }).len()
    };
    assert_eq!(answers(None), 0);
    assert_eq!(answers(Some(Mutation::AnswerForSuccessor)), 1);
}

fn in_doubt() -> (Site, Key) {
    let group = Arc::new(Group { participants: vec![NodeId(1), NodeId(2)], acceptors: vec![] });
    let mut durable = Durable::default();
    durable.apply(&Record { txn: TXN, entry: Entry::Prepared { protocol: Protocol::TwoPhase, group } });
    let (site, _) = Site::recover(Context::new(NodeId(1), 2), &durable, 0);
    (site, Key { txn: TXN, role: Role::Participant })
}

fn decide(decision: Decision) -> Message {
    let body = Body::Decide { decision, acknowledge: decision == Decision::Commit };
    Message { txn: TXN, from: COORDINATOR, to: NodeId(1), epoch: 1, body }
}

/// A commit that fails leaves the transaction prepared, and it can be tried again.
#[test]
fn a_commit_that_is_refused_leaves_the_branch_prepared() {
    let (mut site, key) = in_doubt();
    let token_of = |actions: &[(Key, Effect)]| {
        actions.iter().find_map(|(_, effect)| match effect {
            Effect::Persist { token, .. } => Some(*token),
            _ => None,
        })
    };
    let token = token_of(&site.receive(0, decide(Decision::Commit))).expect("its commit");
    site.step(0, key, Input::Refused(token));
    assert!(site.keys().any(|other| other == key));
    let token = token_of(&site.receive(0, decide(Decision::Commit))).expect("once more");
    let actions = site.step(0, key, Input::Persisted(token));
    assert!(matches!(&actions[0].1, Effect::Send(Message { body: Body::Ack { heuristic: None }, .. })));
    assert!(site.is_idle());
}

/// A person who guessed wrong: both sides are told, and the branch stays until someone has seen to it.
#[test]
fn a_heuristic_outcome_is_reported_until_it_is_forgotten() {
    let (mut site, key) = in_doubt();
    let actions = site.step(0, key, Input::Heuristic(Decision::Abort));
    let Effect::Persist { token, record, forced: true } = &actions[0].1 else { panic!("{actions:?}") };
    site.step(0, key, Input::Persisted(*token));
    let mut durable = Durable::default();
    durable.apply(record);
    for mut site in [site, Site::recover(Context::new(NodeId(1), 3), &durable, 0).0] {
        let actions = site.receive(0, decide(Decision::Commit));
        let has = |wanted: &dyn Fn(&Effect) -> bool| actions.iter().any(|(_, effect)| wanted(effect));
        assert!(has(&|effect| matches!(effect, Effect::Damage { done: Decision::Abort, .. })));
        assert!(has(&|effect| {
            matches!(
                effect,
                Effect::Send(Message { body: Body::Ack { heuristic: Some(Decision::Abort) }, .. })
            )
        }));
        assert!(!site.is_idle());
        site.step(0, key, Input::ForgetHeuristic);
        assert!(site.is_idle());
    }
}

#[test]
fn verbs_in_the_wrong_order_change_nothing() {
    let mut site = Site::new(Context::new(NodeId(1), 1));
    let vote = |actions: Vec<(Key, Effect)>| match actions.as_slice() {
        [(_, Effect::Send(Message { body: Body::Vote(vote), .. }))] => Some(*vote),
        _ => None,
    };
    assert_eq!(vote(site.receive(0, prepare(TXN, 1))), Some(Vote::Unknown), "prepare of what is not there");
    let ack = site.receive(0, decide(Decision::Commit));
    assert!(
        matches!(&ack[0].1, Effect::Send(Message { body: Body::Ack { .. }, .. })),
        "outcomes are idempotent"
    );
    let key = Key { txn: TXN, role: Role::Participant };
    site.step(0, key, Input::Join);
    let actions = site.receive(0, decide(Decision::Commit));
    assert!(matches!(actions[..], [(_, Effect::Violation(_))]), "a commit without a vote");
    assert!(matches!(site.step(0, key, Input::Join)[..], [(_, Effect::Violation(_))]), "a branch twice");
}
