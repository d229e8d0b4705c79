//! Commits that the log takes back, or whose outcome it does not know: whoever waits is told, and nobody has seen them.

use super::explore;
use super::harness::{World, join, uncharged};
use crate::commit::ticket::Ticket;
use crate::{Error, Result};
use seawall_wal::Lsn;
use shuttle::rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The log takes back what it has not reached, while others commit, read and fold.
pub(super) fn withdrawal() {
    let world = World::new(None);
    let mut threads = Vec::new();
    for thread in 0..3 {
        threads.push(world.spawn(move |world| {
            for round in 0..2 {
                let pending = world.place(&[format!("{thread}-{round}")]).unwrap();
                match world.core.sequencer.wait(&pending, None).unwrap() {
                    Ok(lsn) => assert_eq!(lsn, pending.lsn()),
                    Err(error) => assert!(error.is_conflict(), "{error}"),
                }
            }
        }));
    }
    threads.push(world.spawn(|world| {
        if let Some(range) = world.log.take_back() {
            world.core.sequencer.withdraw(Lsn(range.start), Lsn(range.end));
        }
    }));
    threads.push(world.spawn(|world| (0..3).for_each(|_| world.check())));
    join(threads);
    world.finish();
}

/// As [`withdrawal`], and a checkpoint folds what stays.
fn withdrawal_and_a_fold() {
    let world = World::new(None);
    let mut threads = Vec::new();
    for thread in 0..2 {
        threads.push(world.spawn(move |world| {
            let pending = world.place(&[format!("{thread}")]).unwrap();
            let outcome = world.core.sequencer.wait(&pending, None).unwrap();
            assert!(outcome.is_ok_and(|lsn| lsn == pending.lsn()) || pending.is_applied());
        }));
    }
    threads.push(world.spawn(|world| {
        let _ = world.log.take_back();
    }));
    threads.push(world.spawn(|world| drop(world.core.checkpoint().unwrap())));
    join(threads);
    world.finish();
}

fn is_unknown(outcome: Result<Lsn>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(Error::CommitUnknown { .. } | Error::Poisoned(_)) => true,
        Err(error) => panic!("a failed log is told as: {error}"),
    }
}

/// The log fails: waiters, receipts and a checkpoint are all told, and visible moves no more.
pub(super) fn failure() {
    let world = World::new(None);
    world.log.fail_at(shuttle::rand::thread_rng().gen_range(0..3));
    let called = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for thread in 0..2 {
        threads.push(world.spawn(move |world| {
            for round in 0..2 {
                let pending = match world.place(&[format!("{thread}-{round}")]) {
                    Ok(pending) => pending,
                    Err(error) => {
                        assert!(matches!(error, Error::Poisoned(_)), "{error}");
                        return;
                    }
                };
                if is_unknown(world.core.sequencer.wait(&pending, None).unwrap()) {
                    assert!(world.core.reads.visible() < pending.end(), "visible, and told as unknown");
                }
            }
        }));
    }
    let counted = Arc::clone(&called);
    threads.push(world.spawn(move |world| {
        let sequencer = &world.core.sequencer;
        let Ok(pending) = world.place(&["ticket".to_owned()]) else {
            counted.fetch_add(1, Ordering::SeqCst);
            return;
        };
        sequencer.notify(&pending);
        Ticket::pending(Arc::clone(sequencer), pending, uncharged()).on_done(move |outcome| {
            is_unknown(outcome);
            counted.fetch_add(1, Ordering::SeqCst);
        });
    }));
    threads.push(world.spawn(|world| {
        let _ = world.core.checkpoint();
        world.check();
    }));
    join(threads);
    world.finish();
    assert_eq!(called.load(Ordering::SeqCst), 1, "a receipt's call-back is called once");
}

/// A checkpoint that waits for commits to become visible is told when they never will.
pub(super) fn failure_beside_a_freeze() {
    let world = World::new(None);
    world.log.fail_at(0);
    let committing = world.spawn(|world| {
        if let Ok(pending) = world.place(&["a".to_owned()]) {
            is_unknown(world.core.sequencer.wait(&pending, None).unwrap());
        }
    });
    let freezing = world.spawn(|world| {
        if let Ok(end) = world.core.sequencer.freeze() {
            let _ = world.core.sequencer.wait_visible(end);
        }
    });
    join(vec![committing, freezing]);
    world.finish();
}

#[test]
fn what_is_withdrawn_was_never_seen() {
    explore(2_000, withdrawal);
}

#[test]
fn what_is_withdrawn_is_never_folded() {
    explore(2_000, withdrawal_and_a_fold);
}

#[test]
fn a_failed_log_is_told_to_everyone() {
    explore(3_000, failure);
}

#[test]
fn a_failed_log_is_told_to_whoever_freezes() {
    explore(3_000, failure_beside_a_freeze);
}
