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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Before what is measured.
const WARM_UP: Duration = Duration::from_millis(500);

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

/// What threads that commit without pause have found.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Commits a second.
    pub rate: f64,
    /// Those that were given up.
    pub given_up: u64,
    took_us: Vec<u32>,
}

impl Load {
    /// How many committed.
    pub fn count(&self) -> usize {
        self.took_us.len()
    }

    /// The time, in microseconds, that this part of the commits took at most.
    pub fn quantile(&self, part: f64) -> f64 {
        let at = (self.took_us.len() as f64 * part) as usize;
        self.took_us.get(at).map_or(0.0, |us| f64::from(*us))
    }
}

/// `threads` threads commit for so many seconds, after a while in which they commit as well. `commit` gets the thread's
/// number and one that does not come twice, and says whether it has committed. `look` is called where the measured time
/// begins, and where it ends.
pub fn load<T>(
    threads: usize,
    seconds: f64,
    look: impl Fn() -> T,
    commit: impl Fn(usize, u64) -> bool + Sync,
) -> (Load, T, T) {
    load_at(threads, seconds, None, look, commit)
}

/// As [`load`], and all threads together commit no more often than so many times a second, each evenly. Who falls behind does not
/// catch up.
pub fn load_at<T>(
    threads: usize,
    seconds: f64,
    rate_max: Option<f64>,
    look: impl Fn() -> T,
    commit: impl Fn(usize, u64) -> bool + Sync,
) -> (Load, T, T) {
    let pause = rate_max.map(|rate| Duration::from_secs_f64(threads as f64 / rate.max(1.0)));
    let (next, is_over, is_measured) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let (barrier, given_up) = (Barrier::new(threads + 1), AtomicU64::new(0));
    let work = |thread: usize| {
        let mut took = Vec::new();
        barrier.wait();
        let mut due = Instant::now() + pause.unwrap_or_default().mul_f64(thread as f64 / threads as f64);
        while !is_over.load(Ordering::Relaxed) {
            if let Some(pause) = pause {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due = (due + pause).max(Instant::now());
            }
            let counts = is_measured.load(Ordering::Relaxed);
            let begin = Instant::now();
            if !commit(thread, next.fetch_add(1, Ordering::Relaxed)) {
                given_up.fetch_add(1, Ordering::Relaxed);
            } else if counts {
                took.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
        }
        took
    };
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        barrier.wait();
        std::thread::sleep(WARM_UP);
        let (before, begin) = (look(), Instant::now());
        is_measured.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs_f64(seconds));
        is_over.store(true, Ordering::Relaxed);
        let mut took_us: Vec<u32> =
            workers.into_iter().flat_map(|worker| worker.join().expect("a thread")).collect();
        let elapsed = begin.elapsed().as_secs_f64();
        let after = look();
        took_us.sort_unstable();
        let rate = took_us.len() as f64 / elapsed;
        (Load { rate, given_up: given_up.load(Ordering::Relaxed), took_us }, before, after)
    })
}

/// The middle one of these values; of two, the higher one.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Seconds of processor time that a process has used: its number, or `self`.
pub fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<f64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    (fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)) / 100.0
}
