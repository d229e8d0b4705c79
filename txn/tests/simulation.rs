//! Thousands of seeded runs over the production machines: a network that loses, repeats, delays and reorders, links that
//! are cut one way or both, nodes that crash with part of what they were writing. In no run is an outcome mixed, and once
//! nodes return and messages flow nothing is left over.
//!
//! `SEAWALL_TXN_SEEDS` says how many seeds each setup runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod world;

use seawall_txn::mutation::Mutation;
use seawall_txn::{Decision, NodeId, Protocol};
use seawall_wal::runtime::Rng;
use world::{Act, Setup, Will, World};

#[derive(Debug, Default)]
struct Hits {
    crashes: u64,
    torn: u64,
    lost: u64,
    repeated: u64,
    timers: u64,
    cuts: u64,
    commits: u64,
    aborts: u64,
}

fn setup(rng: &mut Rng, protocol: Protocol) -> Setup {
    let n = 1 + rng.below(4);
    let merged = protocol == Protocol::TwoPhase && n > 1 && rng.below(3) == 0;
    let first = u64::from(!merged && rng.below(2) == 0);
    let participants: Vec<u64> = (first..first + n).collect();
    let f = rng.below(3);
    let acceptors: Vec<u64> = match rng.below(3) {
        0 => (100..=100 + 2 * f).collect(),
        1 => (0..=2 * f).collect(),
        _ => std::iter::once(0).chain(100..100 + 2 * f).collect(),
    };
    let will = |rng: &mut Rng| match rng.below(12) {
        0 => Will::No,
        1 | 2 => Will::Reads,
        _ => Will::Yes,
    };
    Setup {
        acceptors: if protocol == Protocol::PaxosCommit { acceptors } else { Vec::new() },
        wills: (0..n).map(|_| will(rng)).collect(),
        merged,
        crashes: rng.below(5) as u8,
        ..Setup::new(protocol, &participants)
    }
}

/// Some steps of what may happen.
fn disturb(world: &mut World, rng: &mut Rng, hits: &mut Hits) {
    let nodes: Vec<NodeId> = world.nodes.keys().copied().collect();
    let patience = 2 + rng.below(20);
    for _ in 0..rng.below(160) {
        if rng.below(30) == 0 {
            let mut pick = || nodes[rng.below(nodes.len() as u64) as usize];
            let link = (pick(), pick());
            if link.0 != link.1 && !world.cut.remove(&link) {
                world.cut.insert(link);
                hits.cuts += 1;
            }
        }
        let acts = world.acts(false);
        if acts.is_empty() {
            return;
        }
        let act = acts[rng.below(acts.len() as u64) as usize].clone();
        let mut keep = false;
        match &act {
            Act::Deliver(message) => {
                if world.cut.contains(&(message.from, message.to)) || rng.below(12) == 0 {
                    world.network.remove(message);
                    hits.lost += 1;
                    continue;
                }
                keep = rng.below(6) == 0;
                hits.repeated += u64::from(keep);
            }
            // Time passes more slowly than messages.
            Act::Fire(..) if rng.below(patience) > 0 => continue,
            Act::Fire(..) => hits.timers += 1,
            Act::Crash(..) if rng.below(8) > 0 => continue,
            Act::Crash(_, durable) => {
                hits.crashes += 1;
                hits.torn += u64::from(*durable > 0);
            }
            Act::Return(_) if rng.below(4) > 0 => continue,
            // Nobody is thought dead here.
            Act::Haunt(_) | Act::Persist(_) | Act::Return(_) => {}
        }
        world.act(&act, keep);
    }
}

fn run(seed: u64, protocol: Protocol, mutation: Option<Mutation>, hits: &mut Hits) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let setup = Setup { mutation, ..setup(&mut rng, protocol) };
    let mut world = setup.world();
    disturb(&mut world, &mut rng, hits);
    if let Some(fault) = world.fault {
        return Err(format!("seed {seed}: {fault}"));
    }
    let told = world.outcome;
    world.heal(&[]).map_err(|what| format!("seed {seed}, {protocol:?}: {what}"))?;
    // What the client heard stays true; and with all preparations there is an outcome everywhere.
    if told.is_some() && world.outcome != told {
        return Err(format!("seed {seed}: the client was told {told:?}, then {:?}", world.outcome));
    }
    match world.applied.values().next() {
        Some(Decision::Commit) => hits.commits += 1,
        Some(Decision::Abort) => hits.aborts += 1,
        None => {}
    }
    Ok(())
}

fn seeds() -> u64 {
    std::env::var("SEAWALL_TXN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000)
}

fn runs(protocol: Protocol) {
    let mut hits = Hits::default();
    for seed in 0..seeds() {
        if let Err(what) = run(seed, protocol, None, &mut hits) {
            panic!("{what}");
        }
    }
    println!("{protocol:?}: {hits:?}");
    let Hits { crashes, torn, lost, repeated, timers, cuts, commits, aborts } = hits;
    for count in [crashes, torn, lost, repeated, timers, cuts, commits, aborts] {
        assert!(count > 0, "something never happened");
    }
}

#[test]
fn two_phase_commit() {
    runs(Protocol::TwoPhase);
}

#[test]
fn paxos_commit() {
    runs(Protocol::PaxosCommit);
}

#[test]
fn a_seed_runs_the_same_twice() {
    for seed in 0..50 {
        let once = |protocol| {
            let mut rng = Rng::new(seed);
            let mut world = setup(&mut rng, protocol).world();
            disturb(&mut world, &mut rng, &mut Hits::default());
            world
        };
        assert_eq!(once(Protocol::TwoPhase), once(Protocol::TwoPhase));
        assert_eq!(once(Protocol::PaxosCommit), once(Protocol::PaxosCommit));
    }
}

fn finds(protocol: Protocol, mutation: Mutation) {
    let found = (0..20_000).find(|&seed| run(seed, protocol, Some(mutation), &mut Hits::default()).is_err());
    println!("{mutation:?}: seed {found:?}");
    assert!(found.is_some(), "{mutation:?} was not found");
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
        finds(Protocol::TwoPhase, mutation);
    }
}

#[test]
fn what_paxos_commit_leaves_out_is_found() {
    for mutation in [
        Mutation::VoteUnprepared,
        Mutation::VoteEarly,
        Mutation::PromiseUnlogged,
        Mutation::AcceptUnlogged,
        Mutation::DecideByFew,
        Mutation::IgnoreAccepted,
        Mutation::AckEarly,
    ] {
        finds(Protocol::PaxosCommit, mutation);
    }
}
