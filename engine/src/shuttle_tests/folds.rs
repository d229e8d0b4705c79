//! Freezing and folding beside commits that are still being applied: nothing is lost between deltas and tree, and
//! nothing is folded that is not visible.

use super::explore;
use super::harness::{KEYSPACE, World, join};
use crate::mutation::Mutation;
use seawall_wal::Lsn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Checkpoints beside commits and readers.
pub(super) fn folds_with(mutation: Option<Mutation>) {
    let world = World::new(mutation);
    let mut threads: Vec<_> = (0..2)
        .map(|thread| {
            world.spawn(move |world| {
                for round in 0..2 {
                    world.commits(&format!("{thread}-{round}"));
                }
            })
        })
        .collect();
    threads.push(world.spawn(|world| {
        for _ in 0..2 {
            let checkpoint = world.core.checkpoint().unwrap();
            assert!(checkpoint.lsn <= world.core.reads.visible(), "folded what is not visible");
            assert!(world.core.reads.view().root.superblock.checkpoint_lsn <= world.core.reads.visible());
        }
    }));
    threads.push(world.spawn(|world| (0..2).for_each(|_| world.check())));
    join(threads);
    world.finish();
}

pub(super) fn folds() {
    folds_with(None);
}

/// What is frozen at C is everything below C and nothing else, once visible has reached C.
pub(super) fn freezing() {
    let world = World::new(None);
    let mut threads: Vec<_> = (0..3)
        .map(|thread| {
            world.spawn(move |world| {
                let pending = world.place(&[format!("{thread}-a"), format!("{thread}-b")]).unwrap();
                world.core.sequencer.wait(&pending, None).unwrap().unwrap();
            })
        })
        .collect();
    threads.push(world.spawn(|world| {
        let sequencer = &world.core.sequencer;
        let end = sequencer.freeze().unwrap();
        sequencer.wait_visible(end).unwrap();
        let view = world.core.reads.view();
        assert!(view.frozen.iter().all(|delta| delta.end() <= end), "frozen at another place");
        for record in world.log.placed() {
            for key in &record.keys {
                let lsn = Lsn(record.lsn);
                let in_frozen = view.frozen.iter().any(|delta| delta.newest_lsn(KEYSPACE, key) == Some(lsn));
                assert_eq!(
                    in_frozen,
                    lsn < end,
                    "the record at {lsn} with a freeze at {end}: lost by a fold"
                );
            }
        }
    }));
    join(threads);
    world.finish();
}

/// Transactions that read and write one row, beside folds: no update is lost, whichever layer holds the row.
pub(super) fn counting() {
    count_beside(|world| drop(world.core.checkpoint().unwrap()));
}

/// As [`counting`], and snapshots have to give way, of whatever age.
pub(super) fn counting_beside_expiry() {
    count_beside(|world| {
        world.core.checkpoint().unwrap();
        let core = &world.core;
        let mut rounds = 0;
        core.reads.expire(Duration::ZERO, || {
            rounds += 1;
            rounds < 3
        });
        core.sequencer.prune(u64::MAX);
    });
}

/// A transaction that nobody competes with commits, whatever is folded and given up meanwhile.
pub(super) fn counting_alone() {
    let world = World::new(None);
    let counting = world.spawn(|world| {
        for _ in 0..2 {
            assert!(count(world), "a conflict with nobody");
        }
    });
    let beside = world.spawn(|world| (0..2).for_each(|round| world.commits(&round.to_string())));
    let folding = world.spawn(|world| (0..2).for_each(|_| drop(world.core.checkpoint().unwrap())));
    join(vec![counting, beside, folding]);
    world.finish();
}

fn count_beside(other: fn(&Arc<World>)) {
    let world = World::new(None);
    let done = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for _ in 0..2 {
        let done = Arc::clone(&done);
        threads.push(world.spawn(move |world| {
            for _ in 0..2 {
                done.fetch_add(u64::from(count(world)), Ordering::SeqCst);
            }
        }));
    }
    threads.push(world.spawn(move |world| other(world)));
    join(threads);
    let (view, lsn) = world.core.reads.now();
    let counted = world.core.reads.get(&view, lsn, KEYSPACE, b"n").unwrap();
    let counted = counted.map_or(0, |value| u64::from(value[0]));
    assert_eq!(counted, done.load(Ordering::SeqCst), "an update is lost");
    world.finish();
}

/// Adds one to a row; false if another was first.
fn count(world: &World) -> bool {
    let reads = &world.core.reads;
    let snapshot = reads.snapshot(world.core.catalogue.instance(), true);
    let Ok(view) = snapshot.view() else { return false };
    let old = reads.get(&view, snapshot.lsn(), KEYSPACE, b"n").unwrap();
    drop(view);
    let next = old.map_or(0, |value| value[0]) + 1;
    match world.place_at(&["n".to_owned()], &[next], Some(snapshot.lsn())) {
        Ok(pending) => world.core.sequencer.wait(&pending, None).unwrap().is_ok(),
        Err(error) => {
            assert!(error.is_conflict(), "{error}");
            false
        }
    }
}

#[test]
fn folds_beside_commits_lose_nothing() {
    explore(1_500, folds);
}

#[test]
fn a_freeze_takes_what_is_below_it_and_nothing_else() {
    explore(3_000, freezing);
}

#[test]
fn no_update_is_lost_when_snapshots_give_way() {
    explore(2_000, counting_beside_expiry);
}

#[test]
fn nobody_conflicts_with_a_fold() {
    explore(2_000, counting_alone);
}

#[test]
fn no_update_is_lost_beside_folds() {
    explore(2_000, counting);
}
