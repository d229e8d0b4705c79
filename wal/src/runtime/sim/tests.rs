#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{Runtime, SimRuntime};
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// A lock on a word, as code above the seam would write it.
fn lock(runtime: &SimRuntime, word: &AtomicU32) {
    while word.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        runtime.wait(word, 1, None);
    }
}

fn unlock(runtime: &SimRuntime, word: &AtomicU32) {
    word.store(0, Ordering::SeqCst);
    runtime.wake_one(word);
}

/// Four threads take turns; returns who came when, and the run's hash.
fn contend(seed: u64) -> (Vec<u8>, u64) {
    let runtime = SimRuntime::new(seed);
    let word = Arc::new(AtomicU32::new(0));
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..4)
        .map(|who| {
            let (own, word, order) = (runtime.clone(), word.clone(), order.clone());
            let body = move || {
                for _ in 0..10 {
                    lock(&own, &word);
                    order.lock().push(who);
                    own.yield_point();
                    order.lock().push(who);
                    unlock(&own, &word);
                }
            };
            runtime.spawn(&format!("contender-{who}"), Box::new(body)).unwrap()
        })
        .collect();
    for thread in threads {
        assert!(!thread.join());
    }
    let order = order.lock().clone();
    (order, runtime.trace_hash())
}

#[test]
fn threads_contend_and_none_is_lost() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let (order, hash) = contend(seed);
        assert_eq!(order.len(), 80);
        assert!(order.chunks(2).all(|pair| pair[0] == pair[1]), "two in the critical section: {order:?}");
        hashes.insert(hash);
    }
    assert!(hashes.len() > 95, "seeds are to differ");
}

#[test]
fn one_seed_is_one_interleaving() {
    for seed in 0..20 {
        assert_eq!(contend(seed), contend(seed));
    }
}

#[test]
fn a_lost_wake_up_is_reported() {
    let runtime = SimRuntime::new(3);
    let word = Arc::new(AtomicU32::new(0));
    let (own, theirs) = (runtime.clone(), word.clone());
    let body = move || {
        while theirs.load(Ordering::SeqCst) == 0 {
            own.wait(&theirs, 0, None);
        }
    };
    let thread = runtime.spawn("sleeper", Box::new(body)).unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..10 {
            runtime.yield_point();
        }
        thread.join()
    }));
    let message = *ended.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("deadlock") && message.contains("main (joins sleeper)"), "{message}");
    assert!(message.contains("sleeper (waits on a word)"), "{message}");
}

#[test]
#[should_panic(expected = "deadlock")]
fn waiting_alone_for_ever_is_a_deadlock() {
    let runtime = SimRuntime::new(0);
    let word = AtomicU32::new(0);
    loop {
        runtime.wait(&word, 0, None);
    }
}

#[test]
fn a_destructor_that_waits_does_not_hang_after_a_deadlock() {
    struct Waits(Arc<SimRuntime>, AtomicU32);
    impl Drop for Waits {
        fn drop(&mut self) {
            for _ in 0..100 {
                self.0.wait(&self.1, 0, None);
            }
        }
    }
    let runtime = SimRuntime::new(0);
    let own = runtime.clone();
    let body = move || {
        let waits = Waits(own, AtomicU32::new(0));
        loop {
            waits.0.wait(&waits.1, 0, None);
        }
    };
    let thread = runtime.spawn("waits", Box::new(body)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| thread.join())).is_err());
}

#[test]
fn time_passes_only_when_everyone_waits() {
    for seed in 0..50 {
        let runtime = SimRuntime::new(seed);
        let own = runtime.clone();
        let long = runtime.spawn("long", Box::new(move || own.sleep(Duration::from_secs(10)))).unwrap();
        let started = runtime.now();
        runtime.sleep(Duration::from_secs(1));
        let slept = runtime.now() - started;
        assert!(slept >= Duration::from_secs(1) && slept < Duration::from_millis(1001), "{slept:?}");
        assert!(!long.join());
        assert!(runtime.now() < Duration::from_millis(10_001));
    }
}

#[test]
fn a_wait_ends_at_its_timeout_and_polling_reaches_a_deadline() {
    let runtime = SimRuntime::new(1);
    let word = AtomicU32::new(7);
    let deadline = runtime.now() + Duration::from_millis(5);
    while runtime.now() < deadline {
        runtime.wait(&word, 7, Some(deadline.saturating_sub(runtime.now())));
    }
    runtime.wait(&word, 8, None);
    let flag = Arc::new(AtomicBool::new(false));
    let (own, theirs) = (runtime.clone(), flag.clone());
    let body = move || {
        own.sleep(Duration::from_micros(50));
        theirs.store(true, Ordering::SeqCst);
    };
    let thread = runtime.spawn("setter", Box::new(body)).unwrap();
    while !flag.load(Ordering::SeqCst) {
        runtime.yield_point();
    }
    assert!(!thread.join());
}

#[test]
fn a_panic_is_reported_by_join_and_harms_nobody_else() {
    let runtime = SimRuntime::new(5);
    let bad = runtime.spawn("bad", Box::new(|| panic!("on purpose"))).unwrap();
    let own = runtime.clone();
    let good = runtime.spawn("good", Box::new(move || own.sleep(Duration::from_secs(1)))).unwrap();
    assert!(bad.join());
    assert!(!good.join());
}

#[test]
fn abandoned_threads_unwind() {
    struct Tells(Arc<AtomicBool>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let runtime = SimRuntime::new(5);
    let unwound = Arc::new(AtomicBool::new(false));
    let (own, tells) = (runtime.clone(), Tells(unwound.clone()));
    let body = move || {
        let _tells = tells;
        own.sleep(Duration::from_secs(1_000_000));
    };
    let _left = runtime.spawn("left over", Box::new(body)).unwrap();
    runtime.abandon();
    while !unwound.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

#[test]
fn a_foreign_thread_is_refused_by_name() {
    let runtime = SimRuntime::new(5);
    let own = runtime.clone();
    let foreign = std::thread::Builder::new().spawn(move || own.yield_point()).unwrap();
    let message = *foreign.join().unwrap_err().downcast::<&str>().unwrap();
    assert!(message.contains("did not start"), "{message}");
    runtime.yield_point();
}

#[test]
fn chance_and_the_wall_clock_follow_the_seed() {
    let (one, same, other) = (SimRuntime::new(1), SimRuntime::new(1), SimRuntime::new(2));
    let randoms = |runtime: &SimRuntime| (0..4).map(|_| runtime.random()).collect::<Vec<_>>();
    let first = randoms(&one);
    assert_eq!(first, randoms(&same));
    assert_ne!(first, randoms(&other));
    one.set_clock_jumps(true);
    let clock: Vec<u64> = (0..1000).map(|_| one.wall_clock_us()).collect();
    assert!(clock.windows(2).any(|pair| pair[1] < pair[0]), "the clock is to jump back");
    assert!(same.wall_clock_us() >= 1_700_000_000_000_000);
}

/// Not an assertion on time, which other tests disturb: run it alone with `--nocapture` to see the figure.
#[test]
fn the_baton_is_passed_many_times() {
    let runtime = SimRuntime::new(9);
    let own = runtime.clone();
    let body = move || (0..2000).for_each(|_| own.sleep(Duration::from_nanos(100)));
    let thread = runtime.spawn("other", Box::new(body)).unwrap();
    (0..2000).for_each(|_| runtime.sleep(Duration::from_nanos(100)));
    assert!(!thread.join());
    assert!(runtime.switches() > 1000);
}
