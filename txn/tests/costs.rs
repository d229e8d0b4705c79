//! What a transaction costs: forced writes, counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod world;

use seawall_txn::{Decision, Protocol};
use world::{Setup, Will, World};

fn finished(setup: &Setup) -> World {
    let mut world = setup.world();
    world.run();
    assert!(world.outcome.is_some(), "{world:#?}");
    assert!(world.is_over(&[]), "nothing is left over: {world:#?}");
    assert_eq!(world.fault, None);
    assert!(world.agrees());
    world
}

fn nodes(n: u64) -> Vec<u64> {
    (1..=n).collect()
}

fn acceptors(f: u64) -> Vec<u64> {
    (0..=2 * f).map(|i| if i == 0 { 0 } else { 100 + i }).collect()
}

#[test]
fn two_phase_commit_forces_once_a_participant_and_once_more() {
    for n in 2..6 {
        let world = finished(&Setup::new(Protocol::TwoPhase, &nodes(n)));
        assert_eq!(world.outcome, Some(Decision::Commit));
        assert_eq!(u64::from(world.costs.forced), n + 1);
        assert_eq!(u64::from(world.costs.messages), 4 * n, "ask, vote, tell, acknowledge");
    }
}

#[test]
fn a_merged_decision_saves_the_coordinators_own_prepare() {
    for n in 1..6 {
        let participants: Vec<u64> = (0..n).collect();
        let world = finished(&Setup { merged: true, ..Setup::new(Protocol::TwoPhase, &participants) });
        assert_eq!(world.outcome, Some(Decision::Commit));
        assert_eq!(u64::from(world.costs.forced), n);
        assert_eq!(world.applied.len() as u64, n);
    }
}

#[test]
fn three_phase_commit_forces_twice_as_often() {
    for n in 2..6 {
        let world = finished(&Setup::new(Protocol::ThreePhase, &nodes(n)));
        assert_eq!(world.outcome, Some(Decision::Commit));
        assert_eq!(u64::from(world.costs.forced), 2 * n + 2);
    }
}

/// Nobody's time runs out in such a run: the coordinator hears the participant beside it as it hears the others.
#[test]
fn three_phase_commit_with_a_participant_at_the_coordinator_waits_for_nothing() {
    for n in 2..6 {
        let participants: Vec<u64> = (0..n).collect();
        let world = finished(&Setup::new(Protocol::ThreePhase, &participants));
        assert_eq!(world.outcome, Some(Decision::Commit));
        assert_eq!(u64::from(world.costs.forced), 2 * n + 2);
        assert_eq!(u64::from(world.costs.messages), 6 * (n - 1), "all but its own");
    }
}

#[test]
fn paxos_commit_forces_once_a_participant_and_once_an_acceptor_of_a_majority() {
    for (n, f) in [(2, 0), (3, 0), (2, 1), (3, 1), (5, 1), (2, 2), (4, 2)] {
        let acceptors = acceptors(f);
        let world = finished(&Setup { acceptors, ..Setup::new(Protocol::PaxosCommit, &nodes(n)) });
        assert_eq!(world.outcome, Some(Decision::Commit));
        assert_eq!(u64::from(world.costs.forced), n + f + 1, "{n} participants, {f} faults");
    }
}

#[test]
fn paxos_commit_without_faults_costs_what_two_phase_commit_does() {
    for n in 2..5 {
        let two = finished(&Setup::new(Protocol::TwoPhase, &nodes(n)));
        let paxos = finished(&Setup { acceptors: vec![0], ..Setup::new(Protocol::PaxosCommit, &nodes(n)) });
        assert_eq!((two.costs.forced, two.costs.messages), (paxos.costs.forced, paxos.costs.messages));
    }
}

#[test]
fn paxos_commit_with_acceptors_at_the_participants_sends_less() {
    let apart = Setup { acceptors: vec![101, 102, 103], ..Setup::new(Protocol::PaxosCommit, &nodes(3)) };
    let together = Setup { acceptors: vec![1, 2, 3], ..Setup::new(Protocol::PaxosCommit, &nodes(3)) };
    let (apart, together) = (finished(&apart), finished(&together));
    assert_eq!(apart.costs.forced, together.costs.forced);
    assert!(together.costs.messages < apart.costs.messages);
}

#[test]
fn a_single_participant_forces_once_whatever_the_protocol() {
    for protocol in [Protocol::TwoPhase, Protocol::ThreePhase, Protocol::PaxosCommit] {
        let world = finished(&Setup { acceptors: acceptors(1), ..Setup::new(protocol, &[1]) });
        assert_eq!((world.outcome, world.costs.forced), (Some(Decision::Commit), 1));
    }
    let refused = finished(&Setup { wills: vec![Will::No], ..Setup::new(Protocol::TwoPhase, &[1]) });
    assert_eq!((refused.outcome, refused.costs.forced), (Some(Decision::Abort), 0));
}

#[test]
fn readers_write_nothing() {
    for protocol in [Protocol::TwoPhase, Protocol::ThreePhase] {
        let all = finished(&Setup { wills: vec![Will::Reads; 3], ..Setup::new(protocol, &nodes(3)) });
        assert_eq!((all.outcome, all.costs.forced, all.costs.lazy), (Some(Decision::Commit), 0, 0));
    }
    let wills = vec![Will::Yes, Will::Reads, Will::Reads];
    let one = finished(&Setup { wills: wills.clone(), ..Setup::new(Protocol::TwoPhase, &nodes(3)) });
    assert_eq!((one.outcome, one.costs.forced), (Some(Decision::Commit), 2));
    let paxos = Setup { wills, acceptors: acceptors(1), ..Setup::new(Protocol::PaxosCommit, &nodes(3)) };
    assert_eq!(finished(&paxos).costs.forced, 1 + 2);
}

#[test]
fn an_abort_costs_the_coordinator_nothing() {
    for protocol in [Protocol::TwoPhase, Protocol::ThreePhase, Protocol::PaxosCommit] {
        let setup =
            Setup { acceptors: acceptors(1), wills: vec![Will::No; 3], ..Setup::new(protocol, &nodes(3)) };
        let mut world = setup.world();
        world.run();
        assert_eq!((world.outcome, world.costs.forced, world.costs.lazy), (Some(Decision::Abort), 0, 0));
        world.heal(&[]).unwrap();
        // One of three refuses: only the others' prepare records were forced.
        let setup = Setup {
            wills: vec![Will::Yes, Will::No, Will::Yes],
            acceptors: acceptors(1),
            ..Setup::new(protocol, &nodes(3))
        };
        let mut world = setup.world();
        world.run();
        assert_eq!(world.outcome, Some(Decision::Abort));
        assert!(world.costs.forced <= 2, "{protocol:?}: {:?}", world.costs);
    }
}
