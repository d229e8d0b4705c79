//! W8, whoever is doing what when a write fails or a leader panics: everybody is told, and nothing is promised or
//! written afterwards.

use super::explore;
use super::harness::{Bench, Plan, join};
use crate::commit::explored::Misorder;
use crate::durability::Durability::{Memory, Synced, Written};
use crate::error::Error;
use crate::{Lsn, Result};
use shuttle::rand::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

fn expect_unknown<T>(outcome: Result<T>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(Error::CommitUnknown { .. } | Error::Poisoned(_)) => true,
        Err(error) => panic!("a failed write is told as: {error}"),
    }
}

/// Commits, a waiter for a mark, one for room and a callback, beside a write that fails.
pub(super) fn a_failed_write(misorder: Option<Misorder>) {
    let fails_at = shuttle::rand::thread_rng().gen_range(1..4);
    let bench = Bench::with(Plan { fails_at, yields: 1, ..Plan::default() }, misorder);
    let failed = Arc::new(AtomicBool::new(false));
    let called = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for level in [Synced, Written, Synced] {
        let failed = failed.clone();
        threads.push(bench.spawn(move |bench| {
            for _ in 0..2 {
                // What was acknowledged is checked by `commit`.
                let knew = failed.load(Ordering::Relaxed);
                let is_unknown = expect_unknown(bench.commit(level));
                assert!(is_unknown || !knew, "W8: acknowledged after a failure was told");
                failed.fetch_or(is_unknown, Ordering::Relaxed);
            }
        }));
    }
    threads.push(bench.spawn(|bench| {
        if let Ok(placed) = bench.place(40, Memory) {
            expect_unknown(bench.committer.sync_to(placed.end));
        }
        expect_unknown(bench.committer.make_progress());
    }));
    let counted = called.clone();
    threads.push(bench.spawn(move |bench| match bench.place(40, Synced) {
        Ok(placed) => {
            let callback = move |outcome: Result<Lsn>| {
                expect_unknown(outcome);
                counted.fetch_add(1, Ordering::Relaxed);
            };
            bench.committer.on_reached(&placed, Box::new(callback));
        }
        Err(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
    }));
    join(threads);
    let _ = bench.committer.sync_to(Lsn::MAX);
    assert_eq!(called.load(Ordering::Relaxed), 1, "a callback is called once, with what went wrong");
    bench.finish();
}

/// The anchor could not be written: the log fails from outside while a leader writes. What it wrote may be
/// acknowledged; nobody hangs.
fn a_failure_from_outside() {
    let bench = Bench::new(Plan { yields: 1, ..Plan::default() });
    let mut threads = Vec::new();
    for _ in 0..3 {
        threads.push(bench.spawn(|bench| {
            for _ in 0..2 {
                expect_unknown(bench.commit(Synced));
            }
        }));
    }
    threads.push(bench.spawn(|bench| bench.committer.fail(Error::NoSpace)));
    join(threads);
    expect_unknown(bench.place(40, Memory));
    let before = bench.committer.sink.writes();
    expect_unknown(bench.commit(Synced));
    assert_eq!(bench.committer.sink.writes(), before, "W8: written to after a failure");
    bench.finish();
}

/// A leader that panics is a failed write for everyone else.
pub(super) fn a_leader_panics(misorder: Option<Misorder>) {
    let bench = Bench::with(Plan { panics_at: 1, yields: 1, ..Plan::default() }, misorder);
    let panics = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for _ in 0..3 {
        let panics = panics.clone();
        threads.push(bench.spawn(move |bench| {
            match catch_unwind(AssertUnwindSafe(|| bench.commit(Synced))) {
                Ok(outcome) => assert!(outcome.is_err(), "acknowledged by a leader that panicked"),
                Err(_) => drop(panics.fetch_add(1, Ordering::Relaxed)),
            }
        }));
    }
    join(threads);
    assert_eq!(panics.load(Ordering::Relaxed), 1);
    bench.finish();
}

/// A refused appender is not a hanging one.
fn closing() {
    let bench = Bench::new(Plan { yields: 1, ..Plan::default() });
    let mut threads = Vec::new();
    for _ in 0..2 {
        threads.push(bench.spawn(|bench| match bench.place(40, Synced) {
            // Its place was given out before the log closed: it is written.
            Ok(placed) => assert!(bench.wait(&placed, None).unwrap()),
            Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
        }));
    }
    threads.push(bench.spawn(|bench| bench.committer.close()));
    join(threads);
    bench.finish();
}

#[test]
fn a_failed_write_is_told_to_everyone() {
    explore(10_000, || a_failed_write(None));
}

#[test]
fn a_failure_from_outside_is_told_to_everyone() {
    explore(10_000, a_failure_from_outside);
}

#[test]
fn a_panic_of_the_leader_is_told_to_everyone() {
    explore(3_000, || a_leader_panics(None));
}

#[test]
fn closing_beside_commits() {
    explore(10_000, closing);
}
