//! A follower is woken by whoever publishes, closes, or fails: it never sleeps on while there is something to show.

use super::explore;
use super::harness::{Bench, GEOMETRY, Plan, join};
use crate::Lsn;
use crate::commit::explored::Misorder;
use crate::durability::Durability::{Memory, Synced, Written};
use crate::error::Error;
use crate::{frame, record};

/// Others may run during a write.
const SLOW: Plan = Plan { fails_at: 0, panics_at: 0, yields: 1 };
const QUICK: Plan = Plan { fails_at: 0, panics_at: 0, yields: 0 };

/// One commit, and one who waits for it to be durable: nobody else would wake him.
pub(super) fn one_follows(misorder: Option<Misorder>) {
    let bench = Bench::with(QUICK, misorder);
    let start = GEOMETRY.first_frame(1);
    let end = start.plus((frame::HEADER_BYTES + record::HEADER_BYTES + 40) as u64);
    let following = bench.spawn(move |bench| assert_eq!(bench.follows(start, end).unwrap(), end));
    let writing = bench.spawn(|bench| bench.commits(Synced));
    join(vec![following, writing]);
    bench.finish();
}

/// Commits of all levels, and two who follow until the log has closed: they have seen all, what closing wrote included.
pub(super) fn following_to_the_end(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let start = GEOMETRY.first_frame(1);
    let following: Vec<_> = (0..2)
        .map(|_| {
            bench.spawn(move |bench| {
                let seen = bench.follows(start, Lsn::MAX).unwrap();
                assert_eq!(seen, bench.committer.reserved(), "a follower ended early");
            })
        })
        .collect();
    let writing: Vec<_> = [Memory, Written, Synced]
        .into_iter()
        .map(|level| bench.spawn(move |bench| bench.commits(level)))
        .collect();
    join(writing);
    bench.appends(40, Memory);
    bench.committer.close();
    bench.committer.drain(|| Lsn::MAX).unwrap();
    bench.committer.end();
    join(following);
    bench.finish();
}

/// One follows a log whose write fails.
fn following_to_a_failure() {
    let bench = Bench::with(Plan { fails_at: 2, yields: 1, ..Plan::default() }, None);
    let start = GEOMETRY.first_frame(1);
    let following =
        bench.spawn(move |bench| assert!(matches!(bench.follows(start, Lsn::MAX), Err(Error::Poisoned(_)))));
    let writing = bench.spawn(|bench| {
        bench.commits(Synced);
        assert!(bench.commit(Synced).is_err());
    });
    join(vec![following, writing]);
    bench.finish();
}

#[test]
fn the_only_follower_is_woken() {
    explore(20_000, || one_follows(None));
}

#[test]
fn followers_see_all_and_end_with_the_log() {
    explore(8_000, || following_to_the_end(None));
}

#[test]
fn a_follower_is_told_of_a_failure() {
    explore(8_000, following_to_a_failure);
}
