//! Transactions of several clients, on simulated time and disks, with power cuts and kills between and among them: the
//! history that they write down must have an order, see [`check`]. And each way of weakening isolation must show.
//!
//! `SEAWALL_DRAWN=N` has as many seeds from N on run beside the fixed ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "history/check.rs"]
mod check;
#[path = "history/client.rs"]
mod client;

use check::{Level, check};
use client::{Book, Client};
use seawall_engine::mutation::{Group, Mutation};
use seawall_engine::{Db, Isolation};
use seawall_wal::disk::sim::Fault;
use seawall_wal::runtime::{Rng, SimRuntime, Thread};
use seawall_wal::{Runtime, SimDisk};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Seeds of each kind that run whenever the tests do.
const SEEDS: u64 = 400;
/// So many seeds must be enough to see a mistake.
const SEEDS_TO_SEE: u64 = 3000;

struct World {
    rng: Rng,
    runtime: Arc<SimRuntime>,
    disk: Arc<SimDisk>,
    book: Arc<Book>,
    isolation: Isolation,
    mutation: Option<Mutation>,
}

impl World {
    fn open(&self, background: bool) -> Db {
        Db::builder("/store")
            .disk(self.disk.clone())
            .runtime(self.runtime.clone())
            .segment_bytes(256 << 10)
            .memory_budget(1 << 20)
            .background(background)
            .mutation(self.mutation)
            .open()
            .unwrap()
    }

    fn client(&mut self, db: &Db, name: String, is_calm: bool) -> Client {
        Client {
            name,
            db: db.clone(),
            rows: db.keyspace("rows").unwrap(),
            padding: db.keyspace("padding").unwrap(),
            book: Arc::clone(&self.book),
            runtime: Arc::clone(&self.runtime),
            isolation: self.isolation,
            is_calm,
            rng: self.rng.fork(),
        }
    }

    /// One life of the store, from opening to a crash or a close.
    fn live(&mut self, life: u64) {
        let background = self.rng.chance(1, 4);
        let db = self.open(background);
        self.client(&db, format!("all-{life}"), true).read_all();
        let is_calm = self.rng.chance(1, 3);
        if !is_calm && self.rng.chance(2, 3) {
            let call = 1 + self.rng.below(60);
            self.disk.fail(Fault::power_cut().at_call(call));
        }
        let mut threads: Vec<Box<dyn Thread>> = Vec::new();
        for number in 0..2 + self.rng.below(4) {
            let client = self.client(&db, format!("{life}-{number}"), is_calm);
            let count = 2 + self.rng.below(6);
            threads.push(self.runtime.spawn("client", Box::new(move || client.run(count))).unwrap());
        }
        let panicked: Vec<bool> = threads.into_iter().map(|thread| thread.join()).collect();
        assert!(!panicked.contains(&true), "a client panicked");
        self.disk.clear_faults();
        self.book.count(if self.disk.has_power() { "a calm end" } else { "power cut" });
        if is_calm {
            db.close().unwrap();
            self.disk = self.disk.crash();
            return;
        }
        let is_killed = self.disk.has_power() && self.rng.chance(1, 2);
        let next = if is_killed { self.disk.kill() } else { self.disk.crash() };
        drop(db);
        self.disk = next;
    }
}

/// What is wrong with the history of a seed.
fn run(seed: u64, isolation: Isolation, mutation: Option<Mutation>) -> Result<(), String> {
    let level = match isolation {
        Isolation::Snapshot => Level::Snapshot,
        _ => Level::Serializable,
    };
    let book = play(seed, isolation, mutation);
    let txns = book.txns.lock().unwrap();
    check(&txns, level)
}

fn play(seed: u64, isolation: Isolation, mutation: Option<Mutation>) -> Arc<Book> {
    let mut rng = Rng::new(seed ^ 0x4157);
    let runtime = SimRuntime::new(rng.next_u64());
    let disk = SimDisk::with_runtime(rng.next_u64(), runtime.clone());
    let mut world = World { rng, runtime, disk, book: Arc::default(), isolation, mutation };
    for life in 0..1 + world.rng.below(3) {
        world.live(life);
    }
    let db = world.open(false);
    world.client(&db, "last".to_owned(), true).read_all();
    drop(db);
    world.book
}

fn all_have_an_order(isolation: Isolation) {
    let drawn = std::env::var("SEAWALL_DRAWN").ok().map(|drawn| drawn.parse::<u64>().unwrap());
    let drawn = drawn.map_or(0..0, |drawn| drawn..drawn.saturating_add(SEEDS));
    for seed in (0..SEEDS).chain(drawn) {
        if let Err(what) = run(seed, isolation, None) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn histories_are_strictly_serializable() {
    all_have_an_order(Isolation::Serializable);
}

#[test]
fn histories_keep_to_snapshot_isolation() {
    all_have_an_order(Isolation::Snapshot);
}

/// The seeds meet what they are there for, and a seed is a history.
#[test]
fn histories_are_eventful_and_the_same_twice() {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..250 {
        let book = play(seed, Isolation::Serializable, None);
        for (what, n) in book.counts.lock().unwrap().iter() {
            *counts.entry(what).or_default() += n;
        }
    }
    let wanted =
        ["commit", "conflict", "deadlock", "lock timeout", "commit unknown", "power cut", "a calm end"];
    let missing: Vec<_> = wanted.iter().filter(|what| !counts.contains_key(*what)).collect();
    assert!(missing.is_empty() && !counts.contains_key("other"), "{missing:?} is missing: {counts:?}");
    assert!(counts["commit"] > counts["conflict"], "{counts:?}");
    for seed in [5, 6] {
        let told = |book: Arc<Book>| format!("{:?}", book.txns.lock().unwrap());
        let (first, second) =
            (play(seed, Isolation::Serializable, None), play(seed, Isolation::Serializable, None));
        assert!(told(first) == told(second), "seed {seed}");
    }
}

/// A weakened store must show a history without an order; that it panics is not enough.
fn notices(mutation: Mutation) {
    let is_seen = |seed: &u64| {
        let outcome = std::panic::catch_unwind(|| run(*seed, Isolation::Serializable, Some(mutation)));
        matches!(outcome, Ok(Err(_)))
    };
    let seed = (0..SEEDS_TO_SEE).find(is_seen);
    assert!(seed.is_some(), "{} goes unnoticed in {SEEDS_TO_SEE} seeds", mutation.name());
}

/// The clients see themselves that a number is not what was added.
#[test]
fn adding_twice_is_noticed() {
    let mutation = Some(Mutation::FoldAddsTwice);
    let is_seen = |seed| std::panic::catch_unwind(|| run(seed, Isolation::Serializable, mutation)).is_err();
    assert!((0..SEEDS).any(is_seen));
}

macro_rules! noticed {
    ($($name:ident: $mutation:ident;)*) => {
        $(
            #[test]
            fn $name() {
                notices(Mutation::$mutation);
            }
        )*

        #[test]
        fn every_mistake_of_isolation_has_its_test() {
            let tested = [$(Mutation::$mutation),*];
            assert!(Mutation::of(Group::Isolation).all(|mutation| tested.contains(&mutation)));
        }
    };
}

noticed! {
    not_validating_is_noticed: SkipValidation;
    leaving_keys_out_is_noticed: SkipPoints;
    leaving_scans_out_is_noticed: SkipSpans;
    leaving_unapplied_commits_out_is_noticed: SkipPending;
    believing_what_was_forgotten_is_noticed: IgnoreFloor;
    validating_without_the_lock_is_noticed: ValidateUnlocked;
    forgetting_what_comes_while_validating_is_noticed: ForgetRecent;
    showing_what_is_not_durable_is_noticed: ShowUnreached;
    moving_a_snapshot_blindly_is_noticed: RefreshBlindly;
}
