//! Commits that nothing happens to: they become visible in order, and whoever waits is told. Each scenario can be run
//! with a mistake, for [`mistakes`](super::mistakes).

use super::explore;
use super::harness::{World, join, uncharged};
use crate::commit::ticket::Ticket;
use shuttle::rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Commits of several threads beside readers: all return, and nobody sees a gap or half a commit.
pub(super) fn commits_beside_readers() {
    let world = World::new(None);
    let mut threads: Vec<_> = (0..3)
        .map(|thread| {
            world.spawn(move |world| {
                for round in 0..2 {
                    world.commits(&format!("{thread}-{round}"));
                }
            })
        })
        .collect();
    threads.push(world.spawn(|world| (0..3).for_each(|_| world.check())));
    join(threads);
    world.finish();
}

/// Two commits, nothing else: a wake-up that is lost is lost for good.
pub(super) fn two_commits() {
    let world = World::new(None);
    let threads = (0..2).map(|thread| world.spawn(move |world| world.commits(&thread.to_string()))).collect();
    join(threads);
    world.finish();
}

/// Receipts as futures and as call-backs, registered while the log tells their commits' agents.
pub(super) fn receipts() {
    let world = World::new(None);
    let called = Arc::new(AtomicU32::new(0));
    let mut threads = Vec::new();
    for thread in 0..2 {
        let called = Arc::clone(&called);
        threads.push(world.spawn(move |world| {
            let sequencer = &world.core.sequencer;
            let pending = world.place(&[format!("{thread}-a")]).unwrap();
            sequencer.notify(&pending);
            let ticket = Ticket::pending(Arc::clone(sequencer), Arc::clone(&pending), uncharged());
            if thread == 0 {
                assert_eq!(shuttle::future::block_on(ticket).unwrap(), pending.lsn());
            } else {
                ticket.on_done(move |result| {
                    assert_eq!(result.unwrap(), pending.lsn());
                    called.fetch_add(1, Ordering::SeqCst);
                });
            }
        }));
    }
    threads.push(world.spawn(|world| world.commits("2")));
    join(threads);
    world.finish();
    assert_eq!(called.load(Ordering::SeqCst), 1, "a receipt's call-back is called once");
}

/// Those who wait only for a while, and give up, leave nobody behind hanging.
fn giving_up() {
    let world = World::new(None);
    let mut threads = Vec::new();
    for thread in 0..2 {
        threads.push(world.spawn(move |world| {
            let sequencer = &world.core.sequencer;
            let pending = world.place(&[format!("{thread}-a")]).unwrap();
            sequencer.notify(&pending);
            let limit = Duration::from_micros(shuttle::rand::thread_rng().gen_range(0..50));
            if let Some(outcome) = sequencer.wait(&pending, Some(limit)) {
                assert_eq!(outcome.unwrap(), pending.lsn());
            }
        }));
    }
    threads.push(world.spawn(|world| world.commits("2")));
    join(threads);
    world.finish();
}

/// Closing refuses what comes later, and what has its place goes on.
fn closing_beside_commits() {
    let world = World::new(None);
    let mut threads = Vec::new();
    for thread in 0..3 {
        threads.push(world.spawn(move |world| match world.place(&[format!("{thread}-a")]) {
            Ok(pending) => drop(world.core.sequencer.wait(&pending, None).unwrap().unwrap()),
            Err(error) => assert!(matches!(error, crate::Error::Closed), "{error}"),
        }));
    }
    threads.push(world.spawn(|world| world.core.sequencer.close()));
    join(threads);
    world.finish();
}

#[test]
fn commits_are_seen_in_order_and_whole() {
    explore(2_000, commits_beside_readers);
}

#[test]
fn both_of_two_commits_return() {
    explore(4_000, two_commits);
}

#[test]
fn receipts_are_told_once() {
    explore(4_000, receipts);
}

#[test]
fn those_who_give_up_leave_nobody_behind() {
    explore(4_000, giving_up);
}

#[test]
fn what_has_its_place_goes_on_when_the_store_closes() {
    explore(4_000, closing_beside_commits);
}
