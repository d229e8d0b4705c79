//! A primary and two replicas over a network that loses, repeats, delays and reorders, with crashes between any two steps and
//! promotions at the worst moments, by seed. `SEAWALL_SEEDS=from..to` runs others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it met"
)]

mod world;

use seawall_replication::mutation::Mutation;
use std::collections::BTreeMap;
use world::{World, Wrong};

const STEPS: u32 = 3000;

fn run(seed: u64, wrong: Option<Wrong>) -> World {
    let mut world = World::new(seed, wrong);
    for _ in 0..STEPS {
        world.step();
        if world.fault.is_some() {
            return world;
        }
    }
    world.settle();
    world
}

fn seeds() -> std::ops::Range<u64> {
    let said = std::env::var("SEAWALL_SEEDS").ok();
    let range = said.as_deref().and_then(|said| {
        let (from, to) = said.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.unwrap_or(0..600)
}

#[test]
fn nothing_acknowledged_is_lost_and_all_come_to_the_same() {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in seeds() {
        let world = run(seed, None);
        if let Some(fault) = world.fault {
            panic!("seed {seed}: {fault}");
        }
        world.counts.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
        *counts.entry("commits").or_default() += world.acked.len() as u64;
    }
    println!("{counts:#?}");
    for what in [
        "acked",
        "accepted",
        "crashed",
        "promised",
        "promoted",
        "promoted beside another",
        "fenced",
        "demoted",
        "rewound",
        "commits",
    ] {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "{what} never happened: {counts:?}");
    }
}

/// Each deliberate mistake shows within so many seeds.
#[test]
fn mistakes_are_noticed() {
    let machines = Mutation::ALL.into_iter().map(Wrong::Machine);
    for wrong in machines.chain([Wrong::CountOldEpoch, Wrong::PromoteUnpromised]) {
        let found = (0..1500).find_map(|seed| Some((seed, run(seed, Some(wrong)).fault?)));
        match found {
            Some((seed, fault)) => println!("{wrong:?}: seed {seed}: {fault}"),
            None => panic!("{wrong:?} goes unnoticed"),
        }
    }
}
