//! Who runs next: the state behind the baton. Pure but for the condition variables it hands out.

use super::pin::Pin;
use super::rng::{Rng, absorb};
use parking_lot::Condvar;
use std::sync::Arc;

/// What a simulated thread is doing. The baton's holder is `Runnable`, and the only one to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Would run if it had the baton.
    Runnable,
    /// Waits for a wake on the word at this address, or for its time, or for both.
    Blocked { word: Option<usize>, until_ns: Option<u64> },
    /// Waits for the end of another thread.
    Joining(usize),
    /// Has ended.
    Done { panicked: bool },
}

/// One simulated thread.
pub(super) struct Task {
    pub(super) name: String,
    pub(super) status: Status,
    /// Signalled when the baton comes to this thread, or the run stops.
    pub(super) turn: Arc<Condvar>,
}

/// Why no thread may go on.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    /// Nobody can go on; the message says why.
    Failed(Arc<str>),
    /// The harness has ended the run.
    Abandoned,
}

pub(super) struct Sched {
    pub(super) tasks: Vec<Task>,
    /// Who holds the baton.
    pub(super) current: usize,
    pub(super) now_ns: u64,
    pub(super) rng: Rng,
    /// What `Runtime::random` hands out: its own stream, so that code asking for randomness moves no thread.
    pub(super) entropy: Rng,
    pub(super) hash: u64,
    pub(super) switches: u64,
    pub(super) calls: u64,
    /// A yield point gives others a chance once in so many times.
    pub(super) yield_one_in: u64,
    pub(super) pin: Option<Pin>,
    pub(super) stop: Option<Stop>,
    /// Calls made by unwinding threads after the stop; see `SimRuntime::enter`.
    pub(super) calls_after_stop: u64,
    pub(super) is_clock_jumping: bool,
    pub(super) clock_offset_us: i64,
}

impl Sched {
    pub(super) fn new(seed: u64) -> Sched {
        let mut rng = Rng::new(seed);
        let entropy = rng.fork();
        let yield_one_in = [1, 2, 4, 8, 32][rng.below(5) as usize];
        Sched {
            tasks: Vec::new(),
            current: 0,
            now_ns: 0,
            rng,
            entropy,
            hash: seed,
            switches: 0,
            calls: 0,
            yield_one_in,
            pin: None,
            stop: None,
            calls_after_stop: 0,
            is_clock_jumping: false,
            clock_offset_us: 0,
        }
    }

    pub(super) fn add(&mut self, name: &str) -> usize {
        let turn = Arc::new(Condvar::new());
        self.tasks.push(Task { name: name.to_owned(), status: Status::Runnable, turn });
        self.tasks.len() - 1
    }

    /// Chooses who runs next, moving time to the earliest deadline if nobody can run now. `None`: a deadlock.
    pub(super) fn pick(&mut self) -> Option<usize> {
        if self.runnable() == 0 {
            let earliest = self.tasks.iter().filter_map(|task| match task.status {
                Status::Blocked { until_ns, .. } => until_ns,
                _ => None,
            });
            self.now_ns = earliest.min()?.max(self.now_ns);
        }
        let count = self.runnable();
        let chosen = self.rng.below(count);
        let mut runnable = self
            .tasks
            .iter()
            .enumerate()
            .filter(|(_, task)| task.status == Status::Runnable)
            .map(|(at, _)| at);
        let next = runnable.nth(chosen as usize)?;
        self.hash = absorb(absorb(self.hash, next as u64), self.now_ns);
        Some(next)
    }

    /// Makes runnable whose time has come, and counts who can run.
    fn runnable(&mut self) -> u64 {
        let mut count = 0;
        for task in &mut self.tasks {
            if matches!(task.status, Status::Blocked { until_ns: Some(until), .. } if until <= self.now_ns) {
                task.status = Status::Runnable;
            }
            count += u64::from(task.status == Status::Runnable);
        }
        count
    }

    /// Wakes up to `max` of those that wait on a word, chosen by seed.
    pub(super) fn wake(&mut self, address: usize, max: usize) {
        let is_waiter =
            |task: &Task| matches!(task.status, Status::Blocked { word: Some(word), .. } if word == address);
        let mut waiters: Vec<usize> =
            (0..self.tasks.len()).filter(|&at| is_waiter(&self.tasks[at])).collect();
        for _ in 0..max.min(waiters.len()) {
            let chosen = waiters.swap_remove(self.rng.below(waiters.len() as u64) as usize);
            self.tasks[chosen].status = Status::Runnable;
        }
    }

    /// Marks a thread's end, and frees those that wait for it.
    pub(super) fn end(&mut self, ended: usize, panicked: bool) {
        self.tasks[ended].status = Status::Done { panicked };
        for task in &mut self.tasks {
            if task.status == Status::Joining(ended) {
                task.status = Status::Runnable;
            }
        }
    }

    /// Stops the run because nobody can ever go on.
    pub(super) fn deadlock(&mut self) {
        let describe = |task: &Task| match task.status {
            Status::Blocked { word: Some(_), .. } => Some(format!("{} (waits on a word)", task.name)),
            Status::Joining(other) => Some(format!("{} (joins {})", task.name, self.tasks[other].name)),
            Status::Runnable | Status::Blocked { .. } => Some(task.name.clone()),
            Status::Done { .. } => None,
        };
        let waiting: Vec<String> = self.tasks.iter().filter_map(describe).collect();
        let message = format!(
            "deadlock at {} ns of simulated time: every thread waits, none has a deadline: {}",
            self.now_ns,
            waiting.join(", ")
        );
        self.halt(Stop::Failed(message.into()));
    }

    /// Stops the run because the baton's holder has made no call for so long.
    pub(super) fn stuck(&mut self, patience: std::time::Duration) {
        let message = format!(
            "{} has had the baton for {} s without a call: does it want a lock that another thread holds across one?",
            self.tasks[self.current].name,
            patience.as_secs()
        );
        self.halt(Stop::Failed(message.into()));
    }

    pub(super) fn halt(&mut self, stop: Stop) {
        self.stop = Some(stop);
        for task in &self.tasks {
            task.turn.notify_one();
        }
    }
}
