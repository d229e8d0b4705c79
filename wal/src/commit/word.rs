//! A word that waiters sleep on, and how many do.
//!
//! A sleeper counts itself, then the kernel compares the word with what the sleeper had seen; a waker changes the word,
//! then looks at the count. At least one of the two sees the other, so nobody is left asleep, and a waker whom nobody
//! waits for makes no system call.

use crate::runtime::Runtime;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// On a cache line of its own: words of neighbouring batches are changed by different threads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Word {
    word: AtomicU32,
    sleepers: AtomicU32,
    /// One sleeper was woken, and has to wake the others.
    relays: AtomicBool,
}

impl Word {
    /// What a waiter has to look at before it looks at what it waits for.
    pub(crate) fn seen(&self) -> u32 {
        self.word.load(Ordering::Acquire)
    }

    /// Sleeps until the word is no longer what was `seen`, or the time is over.
    pub(crate) fn sleep(&self, runtime: &dyn Runtime, seen: u32, limit: Option<Duration>) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        runtime.wait(&self.word, seen, limit);
        self.sleepers.fetch_sub(1, Ordering::Release);
    }

    pub(super) fn change(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes all sleepers; the word has been changed.
    pub(super) fn wake(&self, runtime: &dyn Runtime) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            runtime.wake_all(&self.word);
        }
    }

    pub(crate) fn change_and_wake(&self, runtime: &dyn Runtime) {
        self.change();
        self.wake(runtime);
    }

    /// Wakes one sleeper, who wakes the others: see [`relay`](Word::relay). For a waker that has better things to do.
    pub(super) fn change_and_wake_by_relay(&self, runtime: &dyn Runtime) {
        // Before the change: whoever sees that sees this.
        self.relays.store(true, Ordering::SeqCst);
        self.change();
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            runtime.wake_one(&self.word);
        }
    }

    /// What everyone does who has slept, whatever woke it.
    pub(super) fn relay(&self, runtime: &dyn Runtime) {
        if self.relays.load(Ordering::SeqCst) && self.relays.swap(false, Ordering::SeqCst) {
            self.wake(runtime);
        }
    }

    /// Wakes one who sleeps here, whatever for.
    pub(super) fn change_and_wake_one(&self, runtime: &dyn Runtime) {
        self.change();
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            runtime.wake_one(&self.word);
        }
    }

    #[cfg(all(test, seawall_shuttle))]
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(&self.word).addr()
    }

    #[cfg(seawall_shuttle)]
    pub(crate) fn raw(&self) -> (&AtomicU32, &AtomicU32) {
        (&self.word, &self.sleepers)
    }
}
