//! Shared set-up of the criterion benches: where they write, how many threads share the work, what the device can do.
//!
//! A figure of a log means little without the device's own, taken in the same run: [`print_device`] says it first.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "benches fail by panicking, print, and look at the real clock and disk"
)]

use seawall_wal::disk::os::probe_durable_write;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// An empty directory on the real disk, under the build directory that cargo gives to benches.
pub fn fresh_dir(base: &str, name: &str) -> PathBuf {
    let dir = Path::new(base).join(format!("bench-{}-{name}", std::process::id()));
    // It may not be there.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a directory for the bench");
    dir
}

/// Removes what a bench wrote.
pub fn remove(dir: &Path) {
    // What is left over is in the build directory, and goes with it.
    let _ = std::fs::remove_dir_all(dir);
}

/// Prints, once a run, how many durable 4 KiB overwrites a second one thread gets from the device under `base`.
pub fn print_device(base: &str) {
    let rates = probe_durable_write(Path::new(base), Duration::from_millis(300)).unwrap_or_default();
    let rates: Vec<String> = rates.iter().map(|(method, rate)| format!("{method:?} {rate:.0}/s")).collect();
    println!("device under {base}: durable 4 KiB overwrites, one thread: {}", rates.join(", "));
}

/// The time that `iters` calls of `body` take when `threads` threads share them. `body` gets the call's number.
pub fn shared_by(threads: u64, iters: u64, body: impl Fn(u64) + Sync) -> Duration {
    let each = iters.div_ceil(threads);
    let barrier = Barrier::new(threads as usize + 1);
    let took = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (barrier, body) = (&barrier, &body);
                scope.spawn(move || {
                    barrier.wait();
                    (thread * each..(thread + 1) * each).for_each(body);
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for worker in workers {
            worker.join().expect("a bench thread");
        }
        start.elapsed()
    });
    // Every thread makes the same number of calls, so there may be a few more than asked for.
    took.mul_f64(iters as f64 / (each * threads) as f64)
}
