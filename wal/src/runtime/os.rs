//! The operating system's clock, randomness and threads.

use super::{Runtime, Thread, allocator};
use crate::sync::AtomicU32;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The operating system's clock, randomness and threads.
#[derive(Debug)]
pub struct OsRuntime {
    created: Instant,
}

impl OsRuntime {
    /// Its clock starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the seam to the clock")]
    pub fn new() -> Arc<OsRuntime> {
        Arc::new(OsRuntime { created: Instant::now() })
    }
}

impl Runtime for OsRuntime {
    fn now(&self) -> Duration {
        self.created.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam to the clock")]
    fn wall_clock_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        from_system().unwrap_or_else(from_hasher)
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send + 'static>) -> io::Result<Box<dyn Thread>> {
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Box::new(OsThread(handle)))
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        waiting::wait(word, expected, timeout);
    }

    fn wake_all(&self, word: &AtomicU32) {
        waiting::wake(word, i32::MAX as u32);
    }

    fn wake_one(&self, word: &AtomicU32) {
        waiting::wake(word, 1);
    }

    fn give_back_memory(&self) {
        allocator::give_back();
    }

    fn lower_priority(&self) {
        // Elsewhere this would be the whole process's priority.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
    }
}

#[derive(Debug)]
struct OsThread(JoinHandle<()>);

impl Thread for OsThread {
    fn join(self: Box<Self>) -> bool {
        self.0.join().is_err()
    }
}

#[cfg(target_os = "linux")]
fn from_system() -> Option<u64> {
    let mut bytes = [0; 8];
    let flags = rustix::rand::GetRandomFlags::empty();
    let filled = rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut bytes[..], flags)).ok()?;
    (filled == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

#[cfg(not(target_os = "linux"))]
fn from_system() -> Option<u64> {
    None
}

/// The standard library seeds its hashers from the system's randomness, once a thread; the clock tells calls apart.
#[expect(clippy::disallowed_methods, reason = "this is the seam to randomness")]
fn from_hasher() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((Instant::now(), std::thread::current().id()))
}

/// Waiting on words by futex, as the system's own locks do.
#[cfg(all(target_os = "linux", not(seawall_shuttle)))]
mod waiting {
    use crate::sync::AtomicU32;
    use rustix::thread::futex::{self, Flags, Timespec};
    use std::time::Duration;

    pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        // One that is too long for the kernel is as good as none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // Woken, timed out, interrupted, or changed before we slept: the caller looks again in any case.
        let _ = futex::wait(word, Flags::PRIVATE, expected, timeout.as_ref());
    }

    pub(super) fn wake(word: &AtomicU32, waiters_max: u32) {
        let _ = futex::wake(word, Flags::PRIVATE, waiters_max);
    }
}

#[cfg(any(not(target_os = "linux"), seawall_shuttle))]
use parking as waiting;

/// Waiting on words where there is no futex: a fixed table of condition variables, by the word's address. A word
/// shares its place with others, so all that wait there are woken, and look again.
#[cfg(any(not(target_os = "linux"), seawall_shuttle, test))]
mod parking {
    use crate::sync::{AtomicU32, Ordering};
    use parking_lot::{Condvar, Mutex};
    use std::time::Duration;

    struct Place {
        mutex: Mutex<()>,
        woken: Condvar,
    }

    const PLACES: usize = 64;
    static TABLE: [Place; PLACES] =
        [const { Place { mutex: Mutex::new(()), woken: Condvar::new() } }; PLACES];

    fn place(word: &AtomicU32) -> Option<&'static Place> {
        // Words that are near each other should not meet: Fibonacci hashing of the address.
        let hash = (std::ptr::from_ref(word).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        TABLE.get(hash as usize % PLACES)
    }

    pub(super) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        let Some(place) = place(word) else { return };
        // The waker changes the word before it takes the mutex: either we see the change, or it sees us waiting.
        let mut guard = place.mutex.lock();
        if word.load(Ordering::SeqCst) != expected {
            return;
        }
        match timeout {
            Some(timeout) => drop(place.woken.wait_for(&mut guard, timeout)),
            None => place.woken.wait(&mut guard),
        }
    }

    pub(super) fn wake(word: &AtomicU32, _: u32) {
        let Some(place) = place(word) else { return };
        drop(place.mutex.lock());
        place.woken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may")]

    use super::*;
    use crate::sync::Ordering;

    type Wait = fn(&AtomicU32, u32, Option<Duration>);
    type Wake = fn(&AtomicU32, u32);
    const BOTH: [(Wait, Wake); 2] = [(waiting::wait, waiting::wake), (parking::wait, parking::wake)];

    #[test]
    fn a_changed_word_is_not_waited_for() {
        for (wait, _) in BOTH {
            wait(&AtomicU32::new(1), 0, None);
        }
    }

    #[test]
    fn a_timeout_ends_the_wait() {
        for (wait, _) in BOTH {
            let started = Instant::now();
            wait(&AtomicU32::new(0), 0, Some(Duration::from_millis(20)));
            assert!(started.elapsed() >= Duration::from_millis(15));
            assert!(started.elapsed() < Duration::from_secs(10));
        }
    }

    #[test]
    fn every_waiter_is_woken() {
        for (wait, wake) in BOTH {
            let word = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while word.load(Ordering::SeqCst) == 0 {
                            wait(&word, 0, None);
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(20));
                word.store(1, Ordering::SeqCst);
                wake(&word, i32::MAX as u32);
            });
        }
    }

    /// Two threads hand the word back and forth: a lost wake-up would hang the test.
    #[test]
    fn no_wake_up_is_lost() {
        for (wait, wake) in BOTH {
            let word = AtomicU32::new(0);
            let player = |me: u32| {
                for _ in 0..2000 {
                    while word.load(Ordering::SeqCst) != me {
                        wait(&word, 1 - me, None);
                    }
                    word.store(1 - me, Ordering::SeqCst);
                    wake(&word, 1);
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(|| player(0));
                scope.spawn(|| player(1));
            });
        }
    }

    #[test]
    fn clocks_randomness_and_threads() {
        let runtime = OsRuntime::new();
        let before = runtime.now();
        assert!(runtime.now() >= before);
        assert!(runtime.wall_clock_us() > 1_700_000_000_000_000, "microseconds since 1970");
        assert_ne!(runtime.random(), runtime.random());
        assert_ne!(from_hasher(), from_hasher());

        let name = |thread: &str| {
            let thread = thread.to_owned();
            move || assert_eq!(std::thread::current().name(), Some(thread.as_str()))
        };
        assert!(!runtime.spawn("seawall-x", Box::new(name("seawall-x"))).unwrap().join());
        assert!(runtime.spawn("seawall-x", Box::new(|| panic!("on purpose"))).unwrap().join());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lowered_priority_is_the_threads_own() {
        let priority = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = priority();
        let runtime = OsRuntime::new();
        let inner = Arc::clone(&runtime);
        let body = move || {
            inner.lower_priority();
            assert_eq!(priority(), 19);
        };
        assert!(!runtime.spawn("seawall-nice", Box::new(body)).unwrap().join());
        assert_eq!(priority(), before);
    }
}
