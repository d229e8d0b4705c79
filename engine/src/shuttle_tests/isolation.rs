//! Validation and the place in the log are one step, for what was looked at before the lock was taken too: of two
//! transactions that each read what the other writes, one does not commit.

use super::explore;
use super::harness::{KEYSPACE, World, join};
use crate::commit::validate::Seen;
use crate::mutation::Mutation;
use crate::read::track::{Edge, ReadSet};
use seawall_wal::Slice;

/// What is noted of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Points,
    Span,
}

const STAFF: [&str; 2] = ["staff-a", "staff-b"];

/// Leaves if the other stays; whether it did.
fn leave(world: &World, me: usize, how: How) -> bool {
    let reads = &world.core.reads;
    let snapshot = reads.snapshot(world.core.catalogue.instance(), true);
    let view = snapshot.view().unwrap();
    let mut set = ReadSet::default();
    let edge = |key: &str| Edge::before(&Slice::from(key.as_bytes().to_vec()));
    match how {
        How::Points => STAFF.iter().for_each(|key| set.add_point(KEYSPACE, key.as_bytes())),
        How::Span => set.add_span(KEYSPACE, &edge("staff-"), Some(&edge("staff~"))),
    }
    let is_gone = |key: &&str| reads.get(&view, snapshot.lsn(), KEYSPACE, key.as_bytes()).unwrap().is_some();
    if STAFF.iter().any(is_gone) {
        return false;
    }
    // A second row: so it is applied beside others, in production too.
    let rows = [STAFF[me].to_owned(), format!("note-{me}"), format!("more-{me}")];
    let seen = Seen { snapshot: snapshot.lsn(), reads: &set };
    match world.place_seen(&rows, b"gone", Some(seen)) {
        Ok(pending) => world.core.sequencer.wait(&pending, None).unwrap().is_ok(),
        Err(error) => {
            assert!(error.is_conflict(), "{error}");
            false
        }
    }
}

fn write_skew(how: How, mutation: Option<Mutation>, beside: impl FnOnce(&World) + Send + 'static) {
    let world = World::new(mutation);
    let left = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut threads = Vec::new();
    for me in 0..2 {
        let left = std::sync::Arc::clone(&left);
        threads.push(world.spawn(move |world| {
            let has_left = leave(world, me, how);
            left.fetch_add(u32::from(has_left), std::sync::atomic::Ordering::SeqCst);
        }));
    }
    threads.push(world.spawn(|world| beside(world)));
    join(threads);
    world.finish();
    assert!(left.load(std::sync::atomic::Ordering::SeqCst) < 2, "both have left");
}

pub(super) fn skew_of_points_with(mutation: Option<Mutation>) {
    write_skew(How::Points, mutation, |_| {});
}

pub(super) fn skew_of_spans_with(mutation: Option<Mutation>) {
    write_skew(How::Span, mutation, |_| {});
}

#[test]
fn one_of_two_that_read_each_others_rows_loses() {
    explore(3_000, || skew_of_points_with(None));
}

#[test]
fn one_of_two_that_scan_each_others_rows_loses() {
    explore(3_000, || skew_of_spans_with(None));
}

#[test]
fn one_of_them_loses_whatever_is_folded() {
    for how in [How::Points, How::Span] {
        explore(1_500, move || write_skew(how, None, |world| drop(world.core.checkpoint().unwrap())));
    }
}

/// So many come between the first look and the lock that it is looked again.
#[test]
fn one_of_them_loses_among_many_others() {
    let others = |world: &World| (0..3).for_each(|round| world.commits(&round.to_string()));
    explore(1_500, move || write_skew(How::Span, None, others));
}
