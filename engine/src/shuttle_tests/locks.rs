//! Row locks: one holder at a time, nobody forgotten, whoever waits in a circle is told, and who gives up leaves nothing
//! behind.

use super::explore;
use super::harness::join;
use crate::Error;
use crate::commit::locks::Locks;
use seawall_wal::runtime::ShuttleRuntime;
use shuttle::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// A short time, which may be over at any moment.
const SHORT: Duration = Duration::from_micros(40);

/// Three add to a number that only the lock guards.
pub(super) fn counting() {
    let locks = Locks::new(ShuttleRuntime::new());
    let number = Arc::new(AtomicU32::new(0));
    let threads = (0..3)
        .map(|_| {
            let (locks, number) = (Arc::clone(&locks), Arc::clone(&number));
            shuttle::thread::spawn(move || {
                let mut held = locks.owner();
                held.lock(1, b"x", Duration::MAX).unwrap();
                let seen = number.load(Ordering::SeqCst);
                number.store(seen + 1, Ordering::SeqCst);
            })
        })
        .collect();
    join(threads);
    assert_eq!(number.load(Ordering::SeqCst), 3, "two held a lock at once");
    assert_eq!(locks.count(), (0, 0));
}

/// Two take two rows each, in any order.
pub(super) fn circle() {
    let locks = Locks::new(ShuttleRuntime::new());
    let threads = [[b"x", b"y"], [b"y", b"x"], [b"x", b"x"]]
        .map(|rows| {
            let locks = Arc::clone(&locks);
            shuttle::thread::spawn(move || {
                let mut held = locks.owner();
                for row in rows {
                    match held.lock(1, row, Duration::MAX) {
                        Ok(()) => {}
                        Err(Error::Deadlock) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .into();
    join(threads);
    assert_eq!(locks.count(), (0, 0));
}

/// One waits for a while only, and may get the lock in the moment in which it gives up.
pub(super) fn giving_up() {
    let locks = Locks::new(ShuttleRuntime::new());
    let threads = [Duration::MAX, SHORT, Duration::MAX]
        .map(|limit| {
            let locks = Arc::clone(&locks);
            shuttle::thread::spawn(move || {
                let mut held = locks.owner();
                match held.lock(1, b"x", limit) {
                    Ok(()) => {}
                    Err(Error::LockTimeout) => assert_eq!(limit, SHORT),
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .into();
    join(threads);
    assert_eq!(locks.count(), (0, 0), "a lock is left behind");
}

#[test]
fn a_lock_has_one_holder_and_forgets_nobody() {
    explore(4_000, counting);
}

#[test]
fn those_in_a_circle_are_told() {
    explore(4_000, circle);
}

#[test]
fn those_who_give_up_leave_no_lock_behind() {
    explore(4_000, giving_up);
}
