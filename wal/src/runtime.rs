//! The seam to clock, randomness and threads.
//!
//! Production code asks a [`Runtime`] instead of the standard library, so that [`SimRuntime`] can run the same code
//! on simulated time, with every interleaving chosen by a seed. All blocking is on *words*: a 32-bit word that a
//! waiter looks at, and that a waker changes before it wakes (a futex).

use crate::sync::AtomicU32;
use std::fmt::Debug;
use std::io;
use std::time::Duration;

mod allocator;
mod os;
#[cfg(seawall_shuttle)]
mod shuttle;
mod sim;

pub use os::OsRuntime;
#[cfg(seawall_shuttle)]
pub use shuttle::ShuttleRuntime;
pub(crate) use sim::absorb;
pub use sim::{Rng, SimRuntime};

/// Clock, randomness, threads, and waiting. Implementations are shared between threads.
pub trait Runtime: Debug + Send + Sync + 'static {
    /// Monotonic time since some fixed moment.
    fn now(&self) -> Duration;

    /// Microseconds since 1970, UTC, as the system believes; may jump.
    fn wall_clock_us(&self) -> u64;

    /// 64 random bits, unpredictable in production, from the seed in simulation.
    fn random(&self) -> u64;

    /// Starts a thread.
    ///
    /// # Errors
    /// What the system says.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send + 'static>) -> io::Result<Box<dyn Thread>>;

    /// Sleeps while `word` holds `expected`, until woken or until `timeout` has passed. May return early for no
    /// reason: callers look at their condition again. No lock may be held across this call.
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>);

    /// Wakes all that wait on `word`; the word must have been changed before.
    fn wake_all(&self, word: &AtomicU32);

    /// Wakes at least one that waits on `word`, if any.
    fn wake_one(&self, word: &AtomicU32);

    /// A place where simulation may let another thread go on; nothing otherwise. For the moments between two steps
    /// that have no call of the seams of their own. No lock may be held across this call.
    fn switch_point(&self) {}

    /// Much memory was freed and none of it is wanted soon: the allocator may give back to the system what it keeps. May take
    /// tens of milliseconds, in which all of the process wait who allocate. `OsRuntime` has glibc do it (`malloc_trim`), once
    /// in ten seconds at most; one that does nothing here turns it off.
    fn give_back_memory(&self) {}

    /// Asks the system to run the calling thread after everyone else (nice 19); cannot be taken back.
    fn lower_priority(&self);
}

/// A running thread.
pub trait Thread: Send + Sync {
    /// Waits for its end. True if it ended by a panic. No lock may be held across this call.
    fn join(self: Box<Self>) -> bool;
}
