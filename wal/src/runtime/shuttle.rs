//! Clock, threads and waiting for the exploration of interleavings, here and in the crates above. Compiled only with
//! `--cfg seawall_shuttle`.

use super::{Runtime, Thread};
use crate::sync::AtomicU32;
use shuttle::rand::Rng;
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Words are slept on in a table by address, each sleeper on a condition variable of its own, so that a wake-up of one
/// is a wake-up of exactly one. A timed wait ends at any moment, but at last: its timer is a coin that is thrown as long
/// as the thread sleeps. Time passes when a timer fires, and a little with each look at the clock.
pub struct ShuttleRuntime {
    sleepers: Mutex<Vec<Sleeper>>,
    next: AtomicU64,
    now_us: AtomicU64,
    /// The word whose waits never time out.
    untimed: AtomicUsize,
}

struct Sleeper {
    id: u64,
    address: usize,
    woken: Arc<Condvar>,
}

impl ShuttleRuntime {
    /// Its clock starts at one microsecond.
    pub fn new() -> Arc<ShuttleRuntime> {
        Arc::new(ShuttleRuntime {
            sleepers: Mutex::new(Vec::new()),
            next: AtomicU64::new(0),
            now_us: AtomicU64::new(1),
            untimed: AtomicUsize::new(0),
        })
    }

    /// No timer ends a wait on the word at `address`: if it is not woken, the test deadlocks.
    pub fn never_time_out(&self, address: usize) {
        self.untimed.store(address, Ordering::Relaxed);
    }

    /// A leader that panics on its way out wakes the others.
    fn sleepers(&self) -> MutexGuard<'_, Vec<Sleeper>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, word: &AtomicU32, count_max: usize) {
        let address = std::ptr::from_ref(word).addr();
        let mut sleepers = self.sleepers();
        for _ in 0..count_max {
            let here: Vec<usize> = (0..sleepers.len())
                .filter(|&i| sleepers.get(i).is_some_and(|s| s.address == address))
                .collect();
            // The system wakes whom it likes.
            let Some(&chosen) = here.get(if here.len() > 1 {
                shuttle::rand::thread_rng().gen_range(0..here.len())
            } else {
                0
            }) else {
                return;
            };
            sleepers.remove(chosen).woken.notify_one();
        }
    }

    /// Throws the coin until the timer fires, or the sleeper is woken.
    fn wait_timed(&self, id: u64, timeout: Duration) {
        loop {
            shuttle::thread::yield_now();
            let mut sleepers = self.sleepers();
            let Some(at) = sleepers.iter().position(|sleeper| sleeper.id == id) else { return };
            if shuttle::rand::thread_rng().gen_range(0..4u8) == 0 {
                sleepers.remove(at);
                self.now_us.fetch_add(u64::try_from(timeout.as_micros()).unwrap_or(0), Ordering::Relaxed);
                return;
            }
        }
    }
}

impl Runtime for ShuttleRuntime {
    fn now(&self) -> Duration {
        Duration::from_micros(self.now_us.fetch_add(1, Ordering::Relaxed))
    }

    fn wall_clock_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }

    fn random(&self) -> u64 {
        shuttle::rand::thread_rng().gen_range(0..u64::MAX)
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send + 'static>) -> io::Result<Box<dyn Thread>> {
        let thread = shuttle::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Box::new(ShuttleThread(thread)))
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        let address = std::ptr::from_ref(word).addr();
        let timeout = timeout.filter(|_| self.untimed.load(Ordering::Relaxed) != address);
        let mut sleepers = self.sleepers();
        // As in a futex, looking and lying down are one step for whoever wakes.
        if word.load(crate::sync::Ordering::SeqCst) != expected {
            return;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let woken = Arc::new(Condvar::new());
        sleepers.push(Sleeper { id, address, woken: woken.clone() });
        if let Some(timeout) = timeout {
            drop(sleepers);
            return self.wait_timed(id, timeout);
        }
        while sleepers.iter().any(|sleeper| sleeper.id == id) {
            sleepers = woken.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wake_all(&self, word: &AtomicU32) {
        self.wake(word, usize::MAX);
    }

    fn wake_one(&self, word: &AtomicU32) {
        self.wake(word, 1);
    }

    fn lower_priority(&self) {}
}

impl fmt::Debug for ShuttleRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShuttleRuntime")
    }
}

struct ShuttleThread(shuttle::thread::JoinHandle<()>);

impl Thread for ShuttleThread {
    fn join(self: Box<Self>) -> bool {
        self.0.join().is_err()
    }
}
