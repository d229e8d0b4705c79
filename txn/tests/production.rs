//! The production machines, explored: every order of deliveries, repetitions, losses, time-outs, writes and crashes, within
//! bounds. In every state: agreement, validity, stability, a step of `TCommit.tla`; and from every state, once nodes
//! return and messages flow, everything comes to its end.
//!
//! Each durable step that is left out is found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod spec;
mod world;

use seawall_txn::mutation::Mutation;
use seawall_txn::{Ballot, Body, Decision, Key, Message, NodeId, Protocol, Role, Timer, Value};
use spec::{Rm, tcommit_allows};
use stateright::{Checker, HasDiscoveries, Model, Property};
use world::{Act, COORDINATOR, Setup, TXN, Will, World};

struct Cluster {
    setup: Setup,
    /// Silence means death, and nothing is lost or repeated.
    synchronous: bool,
    /// Leaders of Paxos Commit do not go further.
    rounds_max: u32,
    /// From which of the states everything is brought to its end: one in so many.
    heal_one_in: u64,
    /// What has happened before the search begins.
    prelude: fn(&mut World),
}

impl Cluster {
    fn new(setup: Setup) -> Cluster {
        Cluster { setup, synchronous: false, rounds_max: 1, heal_one_in: 1, prelude: |_| {} }
    }
}

/// The state of `TCommit.tla` that a state of production comes to.
fn abstracted(world: &World) -> Vec<Rm> {
    let of = |id: &NodeId| match world.applied.get(id) {
        Some(Decision::Commit) => Rm::Committed,
        Some(Decision::Abort) => Rm::Aborted,
        None if world.prepared.contains(id) => Rm::Prepared,
        None => Rm::Working,
    };
    world.group.participants.iter().map(of).collect()
}

/// Whether there is a way from one to the other by steps of the specification, the first of which are preparations.
fn refines(before: &World, after: &World) -> bool {
    let (mut now, then) = (abstracted(before), abstracted(after));
    for to in [Rm::Prepared, Rm::Committed, Rm::Aborted] {
        for at in 0..now.len() {
            let prepares = to == Rm::Prepared && then[at] == Rm::Committed && now[at] == Rm::Working;
            if now[at] != then[at] && (then[at] == to || prepares) {
                if !tcommit_allows(&now, at, to) {
                    return false;
                }
                now[at] = to;
            }
        }
    }
    now == then
}

fn hashed(world: &World) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

impl Model for Cluster {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let mut world = self.setup.world();
        (self.prelude)(&mut world);
        vec![world]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Act>) {
        actions.extend(state.acts(self.synchronous));
    }

    fn next_state(&self, state: &World, act: Act) -> Option<World> {
        let mut next = state.clone();
        next.act(&act, !self.synchronous);
        if self.synchronous {
            let down: Vec<_> =
                next.network.iter().filter(|m| next.nodes[&m.to].site.is_none()).cloned().collect();
            down.iter().for_each(|message| {
                next.network.remove(message);
            });
        }
        if next.fault.is_none() && !refines(state, &next) {
            next.fault = Some("not a step of TCommit");
        }
        let same = World { costs: state.costs, ..next.clone() } == *state;
        (!same).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        vec![
            Property::always("agreement", |_, state: &World| state.agrees()),
            Property::always("validity, stability, refinement", |_, state: &World| state.fault.is_none()),
            Property::always("recovery", |model: &Cluster, state: &World| {
                !hashed(state).is_multiple_of(model.heal_one_in) || state.clone().heal(&[]).is_ok()
            }),
        ]
    }

    fn within_boundary(&self, state: &World) -> bool {
        let too_far = |ballot: &Ballot| ballot.round > self.rounds_max;
        !state
            .network
            .iter()
            .any(|message| matches!(&message.body, Body::Phase1a { ballot, .. } if too_far(ballot)))
    }
}

fn check(name: &str, cluster: Cluster, states_max: usize) {
    let checker = cluster.checker().threads(2).target_state_count(states_max).spawn_bfs().join();
    // The search ended by itself, or by its bound.
    let whole = if checker.state_count() < states_max { "all" } else { "the first" };
    println!("{name}: {whole} {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let last = path.last_state().clone();
        let healed = last.clone().heal(&[]);
        panic!("{name}: {property}: fault {:?}\n{healed:?}\n{:#?}", last.fault, path.into_actions());
    }
}

fn finds(cluster: Cluster, mutation: Mutation, states_max: usize) {
    let cluster = Cluster { setup: Setup { mutation: Some(mutation), ..cluster.setup }, ..cluster };
    let checker = cluster
        .checker()
        .threads(2)
        .target_state_count(states_max)
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    println!("{mutation:?}: {} states", checker.unique_state_count());
    assert!(!checker.discoveries().is_empty(), "{mutation:?} was not found");
}

fn two_phase(crashes: u8) -> Setup {
    Setup { crashes, ..Setup::new(Protocol::TwoPhase, &[1, 2]) }
}

fn three_phase(crashes: u8) -> Cluster {
    let setup = Setup { crashes, ..Setup::new(Protocol::ThreePhase, &[1, 2]) };
    Cluster { synchronous: true, ..Cluster::new(setup) }
}

fn paxos(crashes: u8) -> Cluster {
    let setup = Setup { crashes, acceptors: vec![0, 11, 12], ..Setup::new(Protocol::PaxosCommit, &[1, 2]) };
    Cluster { heal_one_in: 16, ..Cluster::new(setup) }
}

#[test]
fn two_phase_commit() {
    check("2PC, a crash", Cluster::new(two_phase(1)), 400_000);
    let wills = vec![Will::Yes, Will::No];
    check("2PC, a no", Cluster::new(Setup { wills, ..two_phase(1) }), 60_000);
    let wills = vec![Will::Reads, Will::Yes];
    check("2PC, a reader", Cluster::new(Setup { wills, ..two_phase(1) }), 60_000);
    let merged = Setup { merged: true, crashes: 1, ..Setup::new(Protocol::TwoPhase, &[0, 1]) };
    check("2PC, merged", Cluster::new(merged), 60_000);
    let merged = Setup {
        merged: true,
        crashes: 1,
        wills: vec![Will::No, Will::Yes],
        ..Setup::new(Protocol::TwoPhase, &[0, 1])
    };
    check("2PC, merged, refused", Cluster::new(merged), 60_000);
    let one = Setup { crashes: 2, ..Setup::new(Protocol::TwoPhase, &[1]) };
    check("one phase", Cluster::new(one), 60_000);
}

#[test]
fn three_phase_commit_while_silence_means_death() {
    check("3PC", three_phase(2), 400_000);
}

#[test]
fn paxos_commit() {
    check("Paxos Commit", paxos(1), 400_000);
    let none = Setup { crashes: 1, acceptors: vec![0], ..Setup::new(Protocol::PaxosCommit, &[1, 2]) };
    check("Paxos Commit, F = 0", Cluster { heal_one_in: 16, ..Cluster::new(none) }, 60_000);
}

#[test]
fn what_two_phase_commit_leaves_out_is_found() {
    for mutation in [
        Mutation::VoteUnprepared,
        Mutation::VoteEarly,
        Mutation::DecideUnlogged,
        Mutation::DecideEarly,
        Mutation::ForgetEarly,
        Mutation::AbortPrepared,
        Mutation::AckEarly,
    ] {
        finds(Cluster::new(two_phase(1)), mutation, 400_000);
    }
}

#[test]
fn what_three_phase_commit_leaves_out_is_found() {
    finds(three_phase(2), Mutation::PreCommitUnlogged, 400_000);
}

/// Both are prepared, and the first has lost patience and begun a ballot.
fn first_leads(world: &mut World) {
    let mut all = |wanted: fn(&Act) -> bool| {
        while let Some(act) = world.acts(false).into_iter().find(wanted) {
            world.act(&act, false);
        }
    };
    all(|act| matches!(act, Act::Deliver(message) if matches!(message.body, Body::Prepare { .. })));
    all(|act| matches!(act, Act::Persist(_)));
    for _ in 0..2 {
        let impatient = |act: &Act| {
            matches!(act, Act::Fire(NodeId(1), Key { role: Role::Participant, .. }, Timer::Retry))
        };
        let act = world.acts(false).into_iter().find(impatient).expect("it waits");
        world.act(&act, false);
    }
    world.network.retain(|message| !matches!(message.body, Body::Inquire(_) | Body::Vote(_)));
}

/// Delivers what is wanted, and makes durable what comes of it.
fn deliver(world: &mut World, wanted: impl Fn(&Message) -> bool) {
    while let Some(message) = world.network.iter().find(|message| wanted(message)).cloned() {
        let to = message.to;
        world.act(&Act::Deliver(message), false);
        while world.acts(false).contains(&Act::Persist(to)) {
            world.act(&Act::Persist(to), false);
        }
    }
}

/// All votes are at 13, and what the first has had accepted there in a ballot of its own. It has crashed, is back and in
/// doubt, and has begun another ballot; nobody else has been told of it.
fn first_leads_again(world: &mut World) {
    first_leads(world);
    let impatient =
        |act: &&Act| matches!(act, Act::Fire(NodeId(2), Key { role: Role::Participant, .. }, Timer::Retry));
    let act = world.acts(false).iter().find(impatient).cloned().expect("it waits");
    world.act(&act, false);
    let (first, others) = (NodeId(1), [NodeId(12), NodeId(13)]);
    let is_vote = |body: &Body| matches!(body, Body::Phase2a { ballot, .. } if ballot.is_zero());
    deliver(world, |message| message.to == others[1] && is_vote(&message.body));
    deliver(world, |m| m.from == first && others.contains(&m.to) && matches!(m.body, Body::Phase1a { .. }));
    deliver(world, |m| m.to == first && matches!(m.body, Body::Phase1b { .. }));
    deliver(world, |m| m.to == others[1] && matches!(m.body, Body::Phase2a { .. }) && !is_vote(&m.body));
    let has_votes = |message: &Message| {
        matches!(&message.body, Body::Phase2b { ballot, values } if !ballot.is_zero()
            && values.iter().all(|(_, value)| *value == Value::Prepared))
    };
    assert!(world.network.iter().any(has_votes), "13 has accepted");
    world.act(&Act::Crash(first, 0), false);
    world.act(&Act::Return(first), false);
    let impatient = Act::Fire(first, Key { txn: TXN, role: Role::Participant }, Timer::Retry);
    world.act(&impatient, false);
    world.network.retain(|m| m.from == first && m.epoch == 2 && matches!(m.body, Body::Phase1a { .. }));
    assert_eq!(world.network.len(), 3, "it leads");
}

fn leader_that_comes_back() -> Cluster {
    let acceptors = vec![11, 12, 13];
    let setup = Setup { crashes: 1, acceptors, ..Setup::new(Protocol::PaxosCommit, &[1, 2]) };
    Cluster { heal_one_in: 16, prelude: first_leads_again, ..Cluster::new(setup) }
}

#[test]
fn paxos_commit_with_a_leader_that_crashed_and_is_back() {
    check("Paxos Commit, a leader again", leader_that_comes_back(), 60_000);
}

/// The coordinator was thought dead, and leads a ballot that would commit; nobody has heard of its second phase. The first participant
/// has led a higher one, which aborts, and the coordinator's next incarnation has heard of that. Nobody is in doubt any more, and the
/// acceptors are about to be told to forget.
fn the_dead_lead(world: &mut World) {
    let (first, second) = (NodeId(1), NodeId(2));
    let fire = |world: &mut World, node: NodeId, role: Role, timer: Timer| {
        world.act(&Act::Fire(node, Key { txn: TXN, role }, timer), false);
    };
    let is_vote = |body: &Body| matches!(body, Body::Phase2a { ballot, .. } if ballot.is_zero());
    let leads = |message: &Message| matches!(message.body, Body::Phase1a { .. });
    let proposes =
        |message: &Message| matches!(&message.body, Body::Phase2a { ballot, .. } if !ballot.is_zero());
    deliver(world, |message| matches!(message.body, Body::Prepare { .. }));
    for node in [first, second] {
        fire(world, node, Role::Participant, Timer::Retry);
    }
    deliver(world, |message| message.to == NodeId(13) && is_vote(&message.body));
    let votes: Vec<Message> =
        world.network.iter().filter(|m| m.to != COORDINATOR && is_vote(&m.body)).cloned().collect();
    world.network.clear();
    fire(world, COORDINATOR, Role::Coordinator, Timer::Deadline);
    deliver(world, |message| leads(message) && message.to != NodeId(11));
    deliver(world, |message| matches!(message.body, Body::Phase1b { .. }));
    let commits: Vec<Message> = world.network.iter().filter(|message| proposes(message)).cloned().collect();
    assert!(commits.iter().any(|message| matches!(&message.body, Body::Phase2a { values, .. }
        if values.iter().all(|(_, value)| *value == Value::Prepared))));
    world.network.clear();
    world.supersede();
    world.network.clear();
    fire(world, first, Role::Participant, Timer::Retry);
    fire(world, first, Role::Coordinator, Timer::Retry);
    world.network.retain(|message| leads(message) && message.from == first);
    assert!(!world.network.is_empty(), "it leads");
    // 13, which has the votes, hears nothing of it.
    for _ in 0..8 {
        deliver(world, |message| {
            message.to != NodeId(13) && !matches!(message.body, Body::ForgetVotes { .. })
        });
    }
    assert!([first, second].iter().all(|node| world.applied.get(node) == Some(&Decision::Abort)));
    world.network.retain(|message| matches!(message.body, Body::ForgetVotes { .. }));
    assert_eq!(world.network.len(), 3, "they are to forget");
    world.network.extend(commits);
    world.network.extend(votes);
}

fn led_by_the_dead() -> Cluster {
    let acceptors = vec![11, 12, 13];
    let setup = Setup { crashes: 1, acceptors, ..Setup::new(Protocol::PaxosCommit, &[1, 2]) };
    Cluster { heal_one_in: 16, prelude: the_dead_lead, ..Cluster::new(setup) }
}

/// Fewer things may happen beside it: what goes wrong without a fence is seven steps from there.
fn led_by_the_dead_alone() -> Cluster {
    let prelude = |world: &mut World| {
        the_dead_lead(world);
        let is_vote = |body: &Body| matches!(body, Body::Phase2a { ballot, .. } if ballot.is_zero());
        world.network.retain(|message| message.to != NodeId(11) && !is_vote(&message.body));
        world.crashes_left = 0;
    };
    Cluster { prelude, ..led_by_the_dead() }
}

/// T7: what a coordinator's earlier incarnation still leads is over, when votes are forgotten.
#[test]
fn paxos_commit_beside_a_coordinator_that_was_thought_dead() {
    check("Paxos Commit, led by the dead", led_by_the_dead(), 100_000);
    check("Paxos Commit, led by the dead alone", led_by_the_dead_alone(), 300_000);
}

#[test]
fn acceptors_that_forget_without_a_fence_are_found() {
    finds(led_by_the_dead_alone(), Mutation::ForgetUnfenced, 600_000);
}

#[test]
fn what_paxos_commit_leaves_out_is_found() {
    let leading = |crashes, acceptors: &[u64]| {
        let setup =
            Setup { crashes, acceptors: acceptors.to_vec(), ..Setup::new(Protocol::PaxosCommit, &[1, 2]) };
        Cluster { heal_one_in: 1, prelude: first_leads, ..Cluster::new(setup) }
    };
    let whole = |acceptors: &[u64]| Cluster { prelude: |_| {}, ..leading(1, acceptors) };
    finds(whole(&[0]), Mutation::VoteUnprepared, 400_000);
    finds(whole(&[0]), Mutation::AcceptUnlogged, 400_000);
    finds(leading(1, &[11]), Mutation::PromiseUnlogged, 2_000_000);
    finds(leading(0, &[11]), Mutation::IgnoreAccepted, 2_000_000);
    finds(leading(0, &[11, 12, 13]), Mutation::DecideByFew, 2_000_000);
    finds(leader_that_comes_back(), Mutation::ReuseBallots, 400_000);
}
