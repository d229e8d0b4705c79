//! The torture is itself put to the test: it must be the same twice, and see every deliberate mistake.
//!
//! Thousands of seeds run by `seawall torture`; here are a few of each layer, and for every mutation as many as it
//! takes until one goes red.

use seawall::torture::{self, SeedTest};

/// A simulated panic is expected here; its backtrace would drown the test's own output.
fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let is_test = std::thread::current().name().is_some_and(|name| name.contains("torture_"));
        if is_test && info.location().is_some_and(|place| place.file().ends_with("tests/torture.rs")) {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("{info}");
            }
        }
    }));
}

fn stays_green(test: SeedTest, seeds: u64) {
    quiet();
    let summary = torture::run(test, 0..seeds, None, 2, false, &|_| {});
    assert_eq!(summary.seeds, seeds);
    assert!(summary.failures.is_empty(), "{:?}", summary.failures);
}

fn is_the_same_twice(test: SeedTest, seeds: u64) {
    quiet();
    for seed in 0..seeds {
        let (first, second) = (torture::run_seed(test, seed, None), torture::run_seed(test, seed, None));
        assert_eq!(first, second, "seed {seed} ran differently the second time");
    }
}

fn sees(test: SeedTest, mutations: &[&str], seeds_max: u64) {
    quiet();
    for mutation in mutations {
        let summary = torture::run(test, 0..seeds_max, Some(mutation), 2, true, &|_| {});
        assert!(!summary.failures.is_empty(), "{mutation} was not noticed in {} seeds", summary.seeds);
    }
}

#[test]
fn torture_log_stays_green() {
    stays_green(torture::log::run, 300);
}

#[test]
fn torture_engine_stays_green() {
    stays_green(torture::engine::run, 150);
}

#[test]
fn torture_txn_stays_green() {
    stays_green(torture::txn::run, 300);
}

#[test]
fn torture_txn_is_the_same_twice() {
    is_the_same_twice(torture::txn::run, 60);
}

#[test]
fn torture_txn_sees_every_mutation() {
    sees(torture::txn::run, &torture::txn::mutations(), 2_000);
}

#[test]
fn torture_replication_stays_green() {
    stays_green(torture::replication::run, 150);
}

#[test]
fn torture_replication_is_the_same_twice() {
    is_the_same_twice(torture::replication::run, 30);
}

#[test]
fn torture_replication_sees_every_mutation() {
    sees(torture::replication::run, &torture::replication::mutations(), 3_000);
}

#[test]
fn torture_log_is_the_same_twice() {
    is_the_same_twice(torture::log::run, 60);
}

#[test]
fn torture_engine_is_the_same_twice() {
    is_the_same_twice(torture::engine::run, 40);
}

#[test]
fn torture_log_sees_every_mutation() {
    sees(torture::log::run, &torture::log::mutations(), 3_000);
}

#[test]
fn every_exemption_has_its_reason() {
    use seawall_engine::mutation::{Group, Mutation, Noticed};
    let told = torture::engine::mutations();
    for mutation in Mutation::ALL {
        match mutation.noticed() {
            Noticed::Torture(seeds) => assert!(told.contains(&mutation.name()) && seeds <= 16_000),
            Noticed::Elsewhere(reason) => {
                let noticed_by: &[&str] = match mutation.group() {
                    Group::Isolation => &["tests/history.rs"],
                    Group::Shipping => &["tests/slots.rs, tests/rewind.rs", "tests/shipping.rs"],
                    // Torture's own.
                    _ => &[],
                };
                assert!(noticed_by.iter().any(|tests| reason.contains(tests)), "{mutation:?}");
            }
        }
    }
}

#[test]
fn torture_engine_sees_every_mutation() {
    // These two take a thousand seeds and more: `.ci/run` has them run by the release build.
    let slow = ["fold-unfrozen", "read-through-cache"];
    let quick: Vec<&str> =
        torture::engine::mutations().into_iter().filter(|name| !slow.contains(name)).collect();
    sees(torture::engine::run, &quick, 3_000);
}

/// What a seed found once: a vote of no by a store that had failed, and was prepared when it came back.
#[test]
fn torture_txn_keeps_what_it_found() {
    assert!(torture::run_seed(torture::txn::run, 5397, None).is_ok());
}
