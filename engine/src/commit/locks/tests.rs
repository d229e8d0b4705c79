#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use seawall_wal::runtime::{Rng, SimRuntime};
use std::sync::atomic::AtomicBool;

const LONG: Duration = Duration::from_secs(1000);

#[test]
fn a_lock_is_had_once_and_given_back_at_the_end() {
    let locks = Locks::new(SimRuntime::new(1));
    let (mut a, mut b) = (locks.owner(), locks.owner());
    a.lock(1, b"x", LONG).unwrap();
    a.lock(1, b"x", LONG).unwrap();
    assert!(matches!(b.lock(1, b"x", Duration::ZERO), Err(Error::LockTimeout)));
    b.lock(2, b"x", LONG).unwrap();
    b.lock(1, b"y", LONG).unwrap();
    assert!(matches!(b.lock(1, b"x", Duration::from_millis(5)), Err(Error::LockTimeout)));
    assert_eq!(locks.count(), (3, 0));
    drop(a);
    b.lock(1, b"x", Duration::ZERO).unwrap();
    drop(b);
    assert_eq!(locks.count(), (0, 0));
}

#[test]
fn those_who_wait_are_served_in_their_order() {
    let runtime = SimRuntime::new(3);
    let locks = Locks::new(runtime.clone());
    let mut first = locks.owner();
    first.lock(1, b"x", LONG).unwrap();
    let served = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut threads = Vec::new();
    for number in 0..5 {
        let (locks, served) = (Arc::clone(&locks), Arc::clone(&served));
        let mut held = locks.owner();
        let body = move || {
            held.lock(1, b"x", LONG).unwrap();
            served.lock().unwrap().push(number);
        };
        threads.push(runtime.spawn("waiter", Box::new(body)).unwrap());
        while locks.count().1 <= number {
            runtime.sleep(Duration::from_micros(1));
        }
    }
    drop(first);
    for thread in threads {
        assert!(!thread.join());
    }
    assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(locks.count(), (0, 0));
}

/// Owners that take several rows in any order: of those in a circle one is told, nobody waits for ever, and no two hold
/// a row at once.
#[test]
fn circles_are_found_and_rows_have_one_holder() {
    let (mut deadlocks, mut timeouts) = (0, 0);
    for seed in 0..60 {
        let runtime = SimRuntime::new(seed);
        let locks = Locks::new(runtime.clone());
        let holders: Arc<Vec<AtomicBool>> = Arc::new((0..3).map(|_| AtomicBool::new(false)).collect());
        let failed = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for thread in 0..4 {
            let (locks, runtime, holders) = (Arc::clone(&locks), runtime.clone(), Arc::clone(&holders));
            let failed = Arc::clone(&failed);
            let spawner = runtime.clone();
            let body = move || {
                let mut rng = Rng::new(seed * 10 + thread);
                for _ in 0..6 {
                    let mut held = locks.owner();
                    let mut mine = Vec::new();
                    for _ in 0..2 + rng.below(2) {
                        let row = rng.below(3) as usize;
                        let limit = if rng.chance(1, 8) { Duration::from_nanos(900) } else { LONG };
                        match held.lock(1, &[row as u8], limit) {
                            Ok(()) if mine.contains(&row) => {}
                            Ok(()) => {
                                assert!(!holders[row].swap(true, Ordering::SeqCst), "two hold a row");
                                mine.push(row);
                            }
                            Err(Error::Deadlock) => {
                                failed.fetch_add(1, Ordering::SeqCst);
                                break;
                            }
                            Err(Error::LockTimeout) => {
                                failed.fetch_add(1000, Ordering::SeqCst);
                            }
                            Err(error) => panic!("{error}"),
                        }
                        runtime.yield_point();
                    }
                    mine.iter().for_each(|row| holders[*row].store(false, Ordering::SeqCst));
                    drop(held);
                }
            };
            threads.push(spawner.spawn("owner", Box::new(body)).unwrap());
        }
        for thread in threads {
            assert!(!thread.join(), "seed {seed}");
        }
        assert_eq!(locks.count(), (0, 0));
        let failed = failed.load(Ordering::SeqCst);
        (deadlocks, timeouts) = (deadlocks + failed % 1000, timeouts + failed / 1000);
        assert!(runtime.now() < LONG, "a circle was overlooked until time was over");
    }
    assert!(deadlocks > 20 && timeouts > 5, "{deadlocks} deadlocks, {timeouts} timeouts");
}
