//! Threads that only compute: what a database shares its machine with.

use crate::Result;
use crate::meter::ThreadId;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

/// Steps of arithmetic between two looks at whether it is over.
const STRIDE: u64 = 1 << 14;

/// Runs `work`, which is told who they are, beside `count` threads that never sleep.
pub(crate) fn beside<T>(count: usize, work: impl FnOnce(&[ThreadId]) -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sender, ids) = mpsc::channel();
        for _ in 0..count {
            let (sender, done) = (sender.clone(), &done);
            scope.spawn(move || {
                // Nobody listens any more only if the whole has failed.
                let _ = sender.send(ThreadId::own());
                drop(sender);
                burn(done);
            });
        }
        drop(sender);
        let ids: Vec<ThreadId> = ids.iter().collect();
        let outcome = work(&ids);
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

fn burn(done: &AtomicBool) {
    let mut state = 1u64;
    while !done.load(Ordering::Relaxed) {
        for _ in 0..STRIDE {
            state = black_box(crate::rows::mix(state));
        }
    }
}
