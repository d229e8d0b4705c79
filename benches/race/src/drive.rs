//! Committers for a window of time: a warm-up, a pause in which everything settles, then the window that counts.

mod burn;
mod tasks;
mod threads;
mod tickets;

pub(crate) use burn::beside;
pub(crate) use tasks::{Committing, tasks};
pub(crate) use threads::threads;
pub(crate) use tickets::tickets;

use crate::Result;
use crate::contenders::Store;
use crate::histogram::{Histogram, Latency};
use crate::meter::{Cost, Meter, ThreadId};
use crate::seen::Seen;
use crate::workload::Workload;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks after a log that would grow for ever.
const TIDY_EVERY: Duration = Duration::from_millis(50);

/// Tasks that keep commits outstanding where one thread with tickets does.
const TICKET_TASKS: usize = 4096;

/// Of one processor; the kernel counts in hundredths of a second.
const DISTURBANCE_MAX: f64 = 0.1;

/// What to drive.
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) threads: usize,
    pub(crate) window: Duration,
    /// A directory on the device that is metered.
    pub(crate) dir: PathBuf,
    /// Whose time is not the contender's.
    pub(crate) burners: Vec<ThreadId>,
    /// Where rows that are there are to be changed: how many there are.
    pub(crate) rows_there: Option<u64>,
}

/// What a child measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) commits: u64,
    /// Rows put, or writes of a floor.
    pub(crate) ops: u64,
    pub(crate) user_bytes: u64,
    pub(crate) latency: Latency,
    pub(crate) cost: Cost,
    #[serde(default)]
    pub(crate) seen: Seen,
}

impl Measured {
    /// How much of one processor other processes used meanwhile.
    pub(crate) fn disturbance(&self) -> f64 {
        self.cost.others_cpu_us / 1e6 / self.seconds
    }

    /// True if other processes used so much that the figures are not to be relied on.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.disturbance() > DISTURBANCE_MAX
    }
}

/// What all threads of a window did.
pub(crate) struct Tally {
    pub(crate) commits: u64,
    pub(crate) latency: Histogram,
    pub(crate) end: Instant,
}

impl Plan {
    /// Starts metering; the file system is to be at rest.
    pub(crate) fn meter(&self) -> Result<Meter> {
        Meter::start(&self.dir, &self.burners)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        (self.window / 5).min(Duration::from_millis(500))
    }

    /// How many tasks stand for the threads, or for the tickets of one thread.
    pub(crate) fn tasks(&self) -> usize {
        if self.workload.outstanding() > 1 { TICKET_TASKS } else { self.threads }
    }

    pub(crate) fn measured(&self, start: Instant, tallies: &[Tally], cost: Cost) -> Measured {
        let mut latency = Histogram::new();
        let (mut commits, mut end) = (0, start);
        for tally in tallies {
            latency.merge(&tally.latency);
            commits += tally.commits;
            end = end.max(tally.end);
        }
        Measured {
            seconds: end.duration_since(start).as_secs_f64(),
            commits,
            ops: commits * self.workload.rows_per_commit() as u64,
            user_bytes: commits * self.workload.commit_bytes() as u64,
            latency: latency.latency(),
            cost,
            seen: Seen::default(),
        }
    }
}

impl Tally {
    fn new(start: Instant) -> Tally {
        Tally { commits: 0, latency: Histogram::new(), end: start }
    }

    /// Counts a commit that began at `before` and is done now.
    fn count(&mut self, before: Instant) {
        let after = Instant::now();
        self.latency.record(after.duration_since(before).as_nanos() as u64);
        self.commits += 1;
        self.end = after;
    }
}

/// Runs `work` with a thread beside it that looks after the store.
fn tidied<T>(store: &dyn Store, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let tidy = scope.spawn(|| tidy(store, &done));
        let result = work();
        done.store(true, Ordering::Relaxed);
        tidy.join().map_err(|_| "the tidying thread panicked")??;
        result
    })
}

fn tidy(store: &dyn Store, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        thread::sleep(TIDY_EVERY);
        store.tidy()?;
    }
    Ok(())
}
