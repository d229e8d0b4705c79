//! The interleavings of the commit path, explored by [shuttle](https://docs.rs/shuttle): threads are tasks, and at
//! each lock, atomic, wait and wake a scheduler chooses who goes on.
//!
//! ```text
//! RUSTFLAGS='--cfg seawall_shuttle' cargo test -p seawall-wal --lib --target-dir target/shuttle shuttle_tests
//! ```
//!
//! What is explored is the order of things under sequential consistency: lost wake-ups, marks that go up too early,
//! two leaders at a time, calls left out or made twice. Weaker orders of memory are not: the few places that rest on a
//! store being seen before a load (a sleeper counts itself, then looks; a waker changes, then counts) use `SeqCst`.
//!
//! Timers would hide a lost wake-up, so [`ShuttleRuntime`](runtime::ShuttleRuntime) lets only those waits time out
//! whose purpose is to gather: a tender's. Whoever sleeps for a mark, or without a limit, is woken or the test
//! deadlocks. Each ordering that matters is also gotten wrong on purpose, and the test must notice: see `mistakes`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod commit;
mod failure;
mod harness;
mod latch;
mod log;
mod mistakes;
mod runtime;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Random choices find most; priorities (PCT) find what takes threads to be held back for long, at one place fewer than
/// the depth says.
const DEPTHS: [usize; 2] = [3, 5];

fn config(failure_persistence: FailurePersistence) -> Config {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    config.failure_persistence = failure_persistence;
    config
}

/// One run for each scheduler, of `iterations` interleavings.
fn runs(
    iterations: usize,
    persistence: &FailurePersistence,
    body: impl Fn() + Send + Sync + Clone + 'static,
) -> Vec<Box<dyn FnOnce()>> {
    let (random, config_of_random) = (body.clone(), config(persistence.clone()));
    let mut runs: Vec<Box<dyn FnOnce()>> = vec![Box::new(move || {
        Runner::new(RandomScheduler::new_from_seed(1, iterations), config_of_random).run(random);
    })];
    for depth in DEPTHS {
        let (body, config) = (body.clone(), config(persistence.clone()));
        runs.push(Box::new(move || {
            Runner::new(PctScheduler::new_from_seed(2, depth, iterations), config).run(body);
        }));
    }
    runs
}

/// Explores `iterations` interleavings of each kind; any panic, deadlock or endless loop fails the test, and prints the
/// schedule that `shuttle::replay` takes.
fn explore(iterations: usize, body: impl Fn() + Send + Sync + Clone + 'static) {
    for run in runs(iterations, &FailurePersistence::Print, body) {
        run();
    }
}

/// What goes wrong within `iterations` interleavings of each kind.
fn find(iterations: usize, body: impl Fn() + Send + Sync + Clone + 'static) -> Option<String> {
    runs(iterations, &FailurePersistence::None, body).into_iter().find_map(|run| {
        let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}
