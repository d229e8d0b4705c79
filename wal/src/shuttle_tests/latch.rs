//! The latch: one at a time, and nobody left waiting.

use super::{explore, find};
use crate::latch::Latch;
use crate::runtime::ShuttleRuntime;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn taking_turns(frees_silently: bool) {
    let mut latch = Latch::new(ShuttleRuntime::new());
    latch.frees_silently = frees_silently;
    let latch = Arc::new(latch);
    let is_held = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..4)
        .map(|i| {
            let (latch, is_held) = (latch.clone(), is_held.clone());
            shuttle::thread::spawn(move || {
                for _ in 0..2 {
                    let guard = if i == 0 { latch.try_lock() } else { Some(latch.lock()) };
                    if guard.is_some() {
                        assert!(!is_held.swap(true, Ordering::Relaxed), "two hold the latch");
                        shuttle::thread::yield_now();
                        is_held.store(false, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn one_at_a_time_and_nobody_left_waiting() {
    explore(10_000, || taking_turns(false));
}

#[test]
fn a_latch_freed_without_a_wake_up_is_found() {
    let found = find(3000, || taking_turns(true)).expect("somebody waits for ever");
    assert!(found.contains("deadlock"), "{found}");
}
