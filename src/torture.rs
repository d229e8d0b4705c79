//! Model-based crash testing by seed. Each seed is one history: a store on a [`SimDisk`](seawall_wal::SimDisk), work,
//! faults and power cuts, recovery (itself cut short), and after each recovery the *whole contents* compared with a
//! model of the first n commits, n at least every acknowledgement and at most every attempt. Everything follows from
//! the seed, so a failure is replayed by its number.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub mod engine;
pub mod log;
mod mutant;
pub mod replication;
pub mod txn;

pub use mutant::MutantDisk;

/// What a seed went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeedReport {
    /// How often each fault, recovery row and stage was met.
    pub counts: BTreeMap<String, u64>,
    /// Hash of every call to the disk: equal for two runs of a seed.
    pub trace_hash: u64,
    /// What happened, call by call, if it was asked for.
    pub trace: Vec<String>,
}

impl SeedReport {
    /// What went wrong, behind the trace if there is one.
    pub fn failure(&mut self, what: &str) -> String {
        self.trace.push(what.to_owned());
        self.trace.join("\n")
    }

    /// Counts `name`.
    pub fn hit(&mut self, name: impl Into<String>) {
        self.add(name, 1);
    }

    /// Counts `name` `n` times.
    pub fn add(&mut self, name: impl Into<String>, n: u64) {
        *self.counts.entry(name.into()).or_default() += n;
    }
}

static TRACING: AtomicBool = AtomicBool::new(false);

/// Whether seeds keep a trace of what they do.
pub fn set_tracing(yes: bool) {
    TRACING.store(yes, Ordering::Relaxed);
}

pub(crate) fn is_tracing() -> bool {
    TRACING.load(Ordering::Relaxed)
}

/// What was tested.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Sums over the seeds.
    pub counts: BTreeMap<String, u64>,
    /// The seeds that failed, and how; the first few.
    pub failures: Vec<(u64, String)>,
}

/// A layer's test: one seed, optionally with a deliberate mistake.
pub type SeedTest = fn(seed: u64, mutation: Option<&str>) -> Result<SeedReport, String>;

/// Runs `seeds` on `threads` threads; stops at the first failure if `stop_early`. `progress` gets the seeds done.
pub fn run(
    test: SeedTest,
    seeds: Range<u64>,
    mutation: Option<&str>,
    threads: usize,
    stop_early: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = run_seed(test, seed, mutation);
                    let mut summary = summary.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    summary.seeds += 1;
                    match outcome {
                        Ok(report) => {
                            for (name, n) in report.counts {
                                *summary.counts.entry(name).or_default() += n;
                            }
                        }
                        Err(what) => {
                            stop.fetch_or(stop_early, Ordering::Relaxed);
                            if summary.failures.len() < 20 {
                                summary.failures.push((seed, what));
                            }
                        }
                    }
                    drop(summary);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs one seed; a panic is a failure like any other.
pub fn run_seed(test: SeedTest, seed: u64, mutation: Option<&str>) -> Result<SeedReport, String> {
    catch_unwind(AssertUnwindSafe(|| test(seed, mutation))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}
