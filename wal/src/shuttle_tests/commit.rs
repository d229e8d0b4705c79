//! What committers do to each other when nothing fails. Each scenario takes a mistake to be made, for
//! [`mistakes`](super::mistakes).

use super::explore;
use super::harness::{Bench, Plan, join};
use crate::Lsn;
use crate::commit::explored::Misorder;
use crate::durability::Durability::{self, Memory, Synced, Written};
use shuttle::rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(super) type Scenario = fn(Option<Misorder>);

/// Others may run during a write.
const SLOW: Plan = Plan { fails_at: 0, panics_at: 0, yields: 1 };
/// A write is over at once. To a scheduler that goes by priorities, a thread that yields is the last: here none does.
const QUICK: Plan = Plan { fails_at: 0, panics_at: 0, yields: 0 };

fn any_level() -> Durability {
    [Memory, Written, Synced][shuttle::rand::thread_rng().gen_range(0..3)]
}

/// Commits of one level meet in groups; nobody is left asleep.
pub(super) fn synced_commits(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let mut threads: Vec<_> = (0..3)
        .map(|_| {
            bench.spawn(|bench| {
                for _ in 0..2 {
                    bench.commit(Synced).unwrap();
                }
            })
        })
        .collect();
    threads.push(bench.spawn(|bench| bench.watch_marks(4)));
    join(threads);
    bench.finish();
}

/// Leaders go on, and leave it to the first that they wake to wake the others.
pub(super) fn in_turns(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    bench.committer.write_in_turns();
    let threads = (0..5)
        .map(|_| {
            bench.spawn(|bench| {
                for _ in 0..2 {
                    bench.commit(Synced).unwrap();
                }
            })
        })
        .collect();
    join(threads);
    bench.finish();
}

/// A commit is acknowledged when it and all before it reached what each asked for.
pub(super) fn mixed_levels(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let mut threads: Vec<_> = (0..4)
        .map(|_| {
            bench.spawn(|bench| {
                for _ in 0..2 {
                    bench.commit(any_level()).unwrap();
                }
            })
        })
        .collect();
    threads.push(bench.spawn(|bench| bench.watch_marks(4)));
    join(threads);
    bench.finish();
}

/// A commit that asks for nothing waits for an earlier one; whoever stands behind it in its batch must not depend on
/// its staying: five records in flight keep the next leader gathering.
pub(super) fn behind_a_memory_commit(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    for _ in 0..5 {
        bench.place(40, Memory).unwrap();
    }
    let leader = bench.spawn(|bench| bench.commits(Synced));
    let passing = bench.spawn(|bench| bench.commits(Memory));
    let staying = bench.spawn(|bench| bench.commits(Synced));
    join(vec![leader, passing, staying]);
    bench.finish();
}

/// Whoever waits for a mark leads when nobody does, and is woken when somebody did. A mark that is not yet given out is
/// not waited for.
pub(super) fn waiting_for_marks(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let mut threads = Vec::new();
    for _ in 0..2 {
        threads.push(bench.spawn(|bench| {
            let placed = bench.place(40, Memory).unwrap();
            bench.committer.sync_to(placed.end).unwrap();
            assert!(bench.committer.durable() >= placed.end);
        }));
    }
    threads.push(bench.spawn(|bench| {
        let reserved = bench.committer.reserved();
        bench.committer.sync_to(Lsn::MAX).unwrap();
        assert!(bench.committer.durable() >= reserved);
    }));
    threads.push(bench.spawn(|bench| bench.commits(Synced)));
    threads.push(bench.spawn(|bench| bench.appends(40, Memory)));
    join(threads);
    bench.finish();
}

/// One waits for the end of all, while one writes and one only appends: what is appended meanwhile is not waited for.
pub(super) fn waiting_for_the_end(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let waiting = bench.spawn(|bench| {
        let reserved = bench.place(40, Memory).unwrap().end;
        bench.committer.sync_to(Lsn::MAX).unwrap();
        assert!(bench.committer.durable() >= reserved);
    });
    let writing = bench.spawn(|bench| bench.commits(Synced));
    let appending = bench.spawn(|bench| bench.appends(40, Memory));
    join(vec![waiting, writing, appending]);
    bench.finish();
}

/// Waiters give up, or drop their receipts; those who stay are looked after all the same.
pub(super) fn leaving(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let mut threads = Vec::new();
    for _ in 0..2 {
        threads.push(bench.spawn(|bench| {
            let placed = bench.place(40, Synced).unwrap();
            let limit = shuttle::rand::thread_rng().gen_range(0..100);
            let _ = bench.wait(&placed, Some(Duration::from_micros(limit))).unwrap();
        }));
    }
    threads.push(bench.spawn(|bench| bench.appends(40, any_level())));
    for _ in 0..2 {
        threads.push(bench.spawn(|bench| bench.commits(Synced)));
    }
    join(threads);
    bench.finish();
}

/// Nine commits in flight make the next batch wait for more; its tender leaves, and the one who stays is told.
pub(super) fn a_tender_leaves(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    for _ in 0..8 {
        bench.place(40, Memory).unwrap();
    }
    let leader = bench.spawn(|bench| bench.commits(Synced));
    let leaving = bench.spawn(|bench| {
        let placed = bench.place(40, Synced).unwrap();
        let _ = bench.wait(&placed, Some(Duration::from_micros(1))).unwrap();
    });
    let staying = bench.spawn(|bench| bench.commits(Synced));
    join(vec![leader, leaving, staying]);
    bench.finish();
}

/// Records that do not fit seal the batch; a record that no frame holds takes several.
pub(super) fn full_batches(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let mut threads = Vec::new();
    for bytes in [40_000, 40_000, 130_000, 100] {
        threads.push(bench.spawn(move |bench| {
            for durability in [any_level(), Synced] {
                let placed = bench.place(bytes, durability).unwrap();
                bench.wait(&placed, None).unwrap();
            }
        }));
    }
    join(threads);
    bench.finish();
}

/// Calls are made once each, however registration and publication meet.
pub(super) fn callbacks(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let calls: Arc<[AtomicU32; 3]> = Arc::default();
    let mut threads = Vec::new();
    for i in 0..3 {
        let calls = calls.clone();
        threads.push(bench.spawn(move |bench| {
            let placed = bench.place(40, any_level()).unwrap();
            let counted = calls.clone();
            let callback = move |outcome: crate::Result<Lsn>| {
                assert_eq!(outcome.unwrap(), placed.lsn);
                counted[i].fetch_add(1, Ordering::Relaxed);
            };
            bench.committer.on_reached(&placed, Box::new(callback));
        }));
    }
    threads.push(bench.spawn(|bench| bench.commits(Synced)));
    join(threads);
    bench.committer.sync_to(Lsn::MAX).unwrap();
    bench.finish();
    for count in &*calls {
        assert_eq!(count.load(Ordering::Relaxed), 1, "a callback is called once");
    }
}

/// One registers while another publishes what is registered for.
pub(super) fn registering(misorder: Option<Misorder>) {
    let bench = Bench::with(QUICK, misorder);
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let registering = bench.spawn(move |bench| {
        let placed = bench.place(40, Synced).unwrap();
        let callback = move |outcome: crate::Result<Lsn>| {
            assert_eq!(outcome.unwrap(), placed.lsn);
            counted.fetch_add(1, Ordering::Relaxed);
        };
        bench.committer.on_reached(&placed, Box::new(callback));
    });
    let publishing = bench.spawn(|bench| bench.commits(Synced));
    join(vec![registering, publishing]);
    bench.committer.sync_to(Lsn::MAX).unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1, "a callback is called once");
    bench.finish();
}

/// The log's own thread writes what lies in memory, and seals, while others commit.
fn settled_beside_commits(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let mut threads = Vec::new();
    for _ in 0..2 {
        threads.push(bench.spawn(|bench| {
            bench.place(40, Memory).unwrap();
            bench.commit(any_level()).unwrap();
        }));
    }
    threads.push(bench.spawn(|bench| {
        for _ in 0..3 {
            bench.committer.settle(Lsn::ZERO, true).unwrap();
        }
    }));
    threads.push(bench.spawn(|bench| assert!(bench.committer.barrier().unwrap() > Lsn::ZERO)));
    join(threads);
    bench.finish();
}

/// Appenders that wait for room are woken by the write that they wait for.
pub(super) fn waiting_for_room(misorder: Option<Misorder>) {
    let bench = Bench::with(SLOW, misorder);
    let mut threads = Vec::new();
    for _ in 0..2 {
        threads.push(bench.spawn(|bench| bench.commits(any_level())));
        threads.push(bench.spawn(|bench| {
            bench.place(40, Memory).unwrap();
            bench.committer.make_progress().unwrap();
        }));
    }
    join(threads);
    bench.finish();
}

/// One appender waits for one write.
pub(super) fn one_waits_for_room(misorder: Option<Misorder>) {
    let bench = Bench::with(QUICK, misorder);
    let writing = bench.spawn(|bench| bench.commits(Synced));
    let waiting = bench.spawn(|bench| bench.committer.make_progress().unwrap());
    join(vec![writing, waiting]);
    bench.finish();
}

macro_rules! explored {
    ($($name:ident: $iterations:expr, $scenario:path;)*) => {$(
        #[test]
        fn $name() {
            explore($iterations, || $scenario(None));
        }
    )*};
}

explored! {
    synced_commits_all_return: 8_000, synced_commits;
    those_who_are_relayed_to_return: 4_000, in_turns;
    mixed_levels_are_acknowledged_in_order: 10_000, mixed_levels;
    nobody_depends_on_a_commit_that_waits_for_an_earlier_one: 20_000, behind_a_memory_commit;
    whoever_waits_for_a_mark_gets_it: 8_000, waiting_for_marks;
    those_who_stay_are_looked_after: 8_000, leaving;
    a_tender_that_leaves_hands_over: 20_000, a_tender_leaves;
    full_batches_are_written_in_order: 4_000, full_batches;
    callbacks_are_called_once: 8_000, callbacks;
    settling_beside_commits: 8_000, settled_beside_commits;
    a_mark_that_moves_is_not_chased: 8_000, waiting_for_the_end;
    a_call_registered_beside_its_publication: 8_000, registering;
    the_only_one_who_waits_for_room: 8_000, one_waits_for_room;
    whoever_waits_for_room_gets_it: 8_000, waiting_for_room;
}
