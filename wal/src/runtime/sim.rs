//! Threads, time and chance from a seed.
//!
//! Simulated threads are real threads of the system, of which only one runs: the holder of the *baton*. It gives the
//! baton away at *switch points* alone: [`wait`](Runtime::wait), the wakes, [`spawn`](Runtime::spawn),
//! [`Thread::join`], [`SimRuntime::yield_point`], [`SimRuntime::sleep`], and with them every call to a
//! [`SimDisk`](crate::SimDisk) that was made [with this runtime](crate::SimDisk::with_runtime). Who gets it is drawn
//! from the seed among those that can run, so a seed *is* an interleaving, and can be replayed.
//!
//! ```text
//!           gets the baton            wait, sleep, join
//! runnable ───────────────▶ running ────────────────────▶ blocked
//!     ▲ ◀─────────────────────┘ │                            │
//!     │        switch point     └──▶ done (wakes joiners)    │
//!     └──────────────────────────────────────────────────────┘
//!               wake · deadline reached · joined thread done
//! ```
//!
//! Time stands still while anyone can run, but for a few nanoseconds at each call, and jumps to the earliest
//! deadline when nobody can. If nobody can run and there is no deadline, the threads are deadlocked (a lost wake-up,
//! mostly): all of them panic with a message that names them.
//!
//! What the code under simulation must keep to: no lock may be held across a switch point (the next thread would
//! block on it outside the simulation, holding the baton; after half a minute the run fails and says so), and every thread comes from [`Runtime::spawn`]: a call
//! from any other panics. What a harness must do: create the runtime on the thread that drives the test, which is
//! then the thread called `main` and holds the baton, and join every thread before it goes away, by closing what it
//! opened. Threads left over keep waiting for a baton that never comes; they cost memory, but do not keep the process
//! alive, and [`SimRuntime::abandon`] unwinds them. From the first `spawn` until the runtime goes away, its threads
//! share one processor.

use super::{Runtime, Thread};
use crate::sync::{AtomicU32, Ordering};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

mod pin;
mod rng;
mod sched;

pub use rng::Rng;
pub(crate) use rng::absorb;
use sched::{Sched, Status, Stop};

/// What the simulated wall clock shows when a run starts: 14 November 2023.
const EPOCH_US: i64 = 1_700_000_000_000_000;
/// What a switch point costs. Above zero, so that a loop that polls reaches every deadline in the end.
const STEP_NS: u64 = 200;
/// What looking at the clock costs, for the same reason.
const LOOK_NS: u64 = 20;

/// For how long, in real time, the baton's holder may go without a call: then it is blocked outside the simulation.
const PATIENCE: Duration = Duration::from_secs(30);
/// The thread that made the runtime.
const MAIN: usize = 0;

thread_local! {
    /// Which simulated thread this one is, per runtime.
    static SELF: RefCell<Vec<(u64, usize)>> = const { RefCell::new(Vec::new()) };
}

/// A deterministic scheduler: threads, time and randomness are functions of a seed.
///
/// ```
/// use seawall_wal::runtime::{Runtime, SimRuntime};
/// use std::time::Duration;
///
/// let runtime = SimRuntime::new(1);
/// let other = runtime.clone();
/// let thread = runtime.spawn("sleeper", Box::new(move || other.sleep(Duration::from_secs(3600)))).unwrap();
/// assert!(!thread.join());
/// assert!(runtime.now() >= Duration::from_secs(3600));
/// ```
pub struct SimRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    id: u64,
    sched: Mutex<Sched>,
}

impl SimRuntime {
    /// A runtime whose every choice follows from `seed`. The calling thread becomes its first thread, `main`, and
    /// holds the baton.
    pub fn new(seed: u64) -> Arc<SimRuntime> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut sched = Sched::new(seed);
        sched.add("main");
        SELF.with_borrow_mut(|list| list.push((id, MAIN)));
        Arc::new(SimRuntime { shared: Arc::new(Shared { id, sched: Mutex::new(sched) }) })
    }

    /// A switch point: with a chance that the seed sets, another thread goes on here.
    pub fn yield_point(&self) {
        if let Some((mut sched, me)) = self.shared.enter() {
            let one_in = sched.yield_one_in;
            if sched.rng.chance(1, one_in) {
                self.shared.pass(&mut sched, me);
            }
        }
    }

    /// Lets `duration` of simulated time pass for this thread, while others run.
    pub fn sleep(&self, duration: Duration) {
        self.shared.block(None, Some(duration));
    }

    /// Moves simulated time on by `duration` without giving the baton away.
    pub fn advance(&self, duration: Duration) {
        let mut sched = self.shared.sched.lock();
        sched.now_ns = sched.now_ns.saturating_add(nanos(duration));
    }

    /// Whether the wall clock jumps, by up to ten seconds back or ahead, now and then. Off at first.
    pub fn set_clock_jumps(&self, yes: bool) {
        self.shared.sched.lock().is_clock_jumping = yes;
    }

    /// A hash of all scheduling decisions so far: equal for two runs of one seed.
    pub fn trace_hash(&self) -> u64 {
        self.shared.sched.lock().hash
    }

    /// How often the baton changed hands.
    pub fn switches(&self) -> u64 {
        self.shared.sched.lock().switches
    }

    /// Ends the run: every thread that waits unwinds quietly, others do so at their next call. For a harness that
    /// cannot join its threads; the calling thread must not use the runtime after this.
    pub fn abandon(&self) {
        self.shared.sched.lock().halt(Stop::Abandoned);
    }
}

impl Runtime for SimRuntime {
    fn switch_point(&self) {
        self.yield_point();
    }

    fn now(&self) -> Duration {
        let mut sched = self.shared.sched.lock();
        sched.now_ns += LOOK_NS;
        Duration::from_nanos(sched.now_ns)
    }

    fn wall_clock_us(&self) -> u64 {
        let mut sched = self.shared.sched.lock();
        if sched.is_clock_jumping && sched.rng.chance(1, 64) {
            let by = sched.rng.below(20_000_000) as i64 - 10_000_000;
            sched.clock_offset_us = by;
        }
        let now_us = (sched.now_ns / 1000) as i64;
        EPOCH_US.saturating_add(now_us).saturating_add(sched.clock_offset_us).unsigned_abs()
    }

    fn random(&self) -> u64 {
        self.shared.sched.lock().entropy.next_u64()
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send + 'static>) -> io::Result<Box<dyn Thread>> {
        let Some((mut sched, me)) = self.shared.enter() else {
            return Err(io::Error::other("the simulation has stopped"));
        };
        if sched.tasks.len() == 1 {
            sched.pin = pin::Pin::here();
        }
        let task = sched.add(name);
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || shared.run(task, body));
        let handle = match started {
            Ok(handle) => handle,
            Err(error) => {
                sched.end(task, false);
                return Err(error);
            }
        };
        self.shared.pass(&mut sched, me);
        drop(sched);
        Ok(Box::new(SimThread { shared: Arc::clone(&self.shared), task, handle }))
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        // Between the caller's look at its condition and this one a waker may come: the race that a futex closes.
        self.yield_point();
        if word.load(Ordering::SeqCst) == expected {
            self.shared.block(Some(std::ptr::from_ref(word).addr()), timeout);
        }
    }

    fn wake_all(&self, word: &AtomicU32) {
        self.shared.wake(std::ptr::from_ref(word).addr(), usize::MAX);
    }

    fn wake_one(&self, word: &AtomicU32) {
        self.shared.wake(std::ptr::from_ref(word).addr(), 1);
    }

    fn lower_priority(&self) {}
}

impl Shared {
    /// The scheduler, locked by the baton's holder, and who that is. `None` after a stop, if the caller is unwinding
    /// already; whoever is not starts to.
    fn enter(&self) -> Option<(MutexGuard<'_, Sched>, usize)> {
        let mut sched = self.sched.lock();
        if sched.stop.is_some() {
            stopped(sched);
            return None;
        }
        let me = self.me();
        sched.now_ns += STEP_NS;
        sched.calls += 1;
        Some((sched, me))
    }

    #[expect(clippy::panic, reason = "a thread outside the simulation would make it depend on the machine")]
    fn me(&self) -> usize {
        let found =
            SELF.with_borrow(|list| list.iter().rev().find(|(id, _)| *id == self.id).map(|(_, task)| *task));
        match found {
            Some(task) => task,
            None => panic!("a SimRuntime was called from a thread that it did not start: use Runtime::spawn"),
        }
    }

    /// Gives the baton to whom the seed chooses, and returns when it comes back.
    fn pass(&self, sched: &mut MutexGuard<'_, Sched>, me: usize) {
        match sched.pick() {
            Some(next) if next == me => return,
            Some(next) => {
                sched.current = next;
                sched.switches += 1;
                sched.tasks[next].turn.notify_one();
            }
            None => sched.deadlock(),
        }
        let turn = Arc::clone(&sched.tasks[me].turn);
        self.await_turn(sched, me, &turn);
    }

    fn await_turn(&self, sched: &mut MutexGuard<'_, Sched>, me: usize, turn: &Condvar) {
        while sched.current != me && sched.stop.is_none() {
            let calls = sched.calls;
            let is_late = turn.wait_for(sched, PATIENCE).timed_out();
            if is_late && sched.calls == calls && sched.current != me && sched.stop.is_none() {
                sched.stuck(PATIENCE);
            }
        }
        if sched.stop.is_some() {
            MutexGuard::unlocked(sched, || stopped(self.sched.lock()));
        }
    }

    /// Blocks until a wake on the word, or for `timeout`. Now and then it returns early, as a futex may.
    fn block(&self, word: Option<usize>, timeout: Option<Duration>) {
        let Some((mut sched, me)) = self.enter() else { return };
        let is_spurious = word.is_some() && sched.rng.chance(1, 64);
        if !is_spurious {
            let until_ns = timeout.map(|timeout| sched.now_ns.saturating_add(nanos(timeout)));
            sched.tasks[me].status = Status::Blocked { word, until_ns };
        }
        self.pass(&mut sched, me);
    }

    fn wake(&self, address: usize, max: usize) {
        let Some((mut sched, me)) = self.enter() else { return };
        let one_more = usize::from(max == 1 && sched.rng.chance(1, 16));
        sched.wake(address, max.saturating_add(one_more));
        let one_in = sched.yield_one_in;
        if sched.rng.chance(1, one_in) {
            self.pass(&mut sched, me);
        }
    }

    /// A simulated thread's life: waits for its first turn, runs, and passes the baton on for good.
    fn run(self: Arc<Shared>, task: usize, body: Box<dyn FnOnce() + Send>) {
        SELF.with_borrow_mut(|list| list.push((self.id, task)));
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let mut sched = self.sched.lock();
            let turn = Arc::clone(&sched.tasks[task].turn);
            self.await_turn(&mut sched, task, &turn);
            drop(sched);
            body();
        }));
        let mut sched = self.sched.lock();
        sched.end(task, ended.is_err());
        if sched.stop.is_some() {
            return;
        }
        match sched.pick() {
            Some(next) => {
                sched.current = next;
                sched.switches += 1;
                sched.tasks[next].turn.notify_one();
            }
            None if sched.tasks.iter().all(|task| matches!(task.status, Status::Done { .. })) => {}
            None => sched.deadlock(),
        }
    }
}

/// Unwinds the calling thread after a stop. One that is unwinding already is let through, so that its destructors can
/// run without the baton, up to a bound: a destructor that waits for ever must not hang the process.
#[expect(clippy::panic, reason = "a deadlock in simulation is a failed test")]
fn stopped(mut sched: MutexGuard<'_, Sched>) {
    let Some(stop) = sched.stop.clone() else { return };
    sched.calls_after_stop += 1;
    let is_patient = sched.calls_after_stop < 100_000;
    drop(sched);
    if std::thread::panicking() && is_patient {
        return;
    }
    match stop {
        Stop::Failed(message) => panic!("{message}"),
        Stop::Abandoned => resume_unwind(Box::new("the simulation was abandoned")),
    }
}

struct SimThread {
    shared: Arc<Shared>,
    task: usize,
    handle: JoinHandle<()>,
}

impl Thread for SimThread {
    fn join(self: Box<Self>) -> bool {
        loop {
            let Some((mut sched, me)) = self.shared.enter() else { return true };
            if let Status::Done { panicked } = sched.tasks[self.task].status {
                drop(sched);
                return self.handle.join().is_err() || panicked;
            }
            sched.tasks[me].status = Status::Joining(self.task);
            self.shared.pass(&mut sched, me);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // `try_with`: the last holder may be a thread whose locals are gone already.
        let is_main = SELF.try_with(|list| {
            let mut list = list.borrow_mut();
            let is_main = list.contains(&(self.id, MAIN));
            list.retain(|(id, _)| *id != self.id);
            is_main
        });
        if let (Ok(true), Some(pin)) = (is_main, &self.sched.get_mut().pin) {
            pin.release();
        }
    }
}

impl std::fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sched = self.shared.sched.lock();
        f.debug_struct("SimRuntime")
            .field("now_ns", &sched.now_ns)
            .field("threads", &sched.tasks.len())
            .finish()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(seawall_shuttle)))]
mod tests;
