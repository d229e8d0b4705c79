//! What waits for a thread.

use parking_lot::Mutex;
use seawall_wal::Runtime;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// A queue that one thread sleeps on.
pub(super) struct Inbox<T> {
    runtime: Arc<dyn Runtime>,
    queue: Mutex<VecDeque<T>>,
    word: AtomicU32,
    /// Threads that sleep, or are about to: nobody is woken where there is none.
    sleepers: AtomicU32,
    /// Somebody looks at it who rings at the end, if need be.
    is_held: AtomicBool,
    is_closed: AtomicBool,
    /// Nothing more comes: it is closed once it is empty.
    is_ending: AtomicBool,
}

/// What stands first in a queue.
pub(super) enum Next<T> {
    Item {
        item: T,
        is_last: bool,
    },
    /// Something that is not wanted, and stays.
    Unwanted,
    Nothing,
}

impl<T> Inbox<T> {
    pub(super) fn new(runtime: &Arc<dyn Runtime>) -> Arc<Inbox<T>> {
        Arc::new(Inbox {
            runtime: Arc::clone(runtime),
            queue: Mutex::default(),
            word: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            is_held: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        })
    }

    pub(super) fn post(&self, item: T) {
        self.queue.lock().push_back(item);
        // Behind that: who releases it looks at the queue behind saying so.
        if !self.is_held.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// From now on nobody is woken by `post`. For one at a time.
    pub(super) fn hold(&self) {
        self.is_held.store(true, Ordering::SeqCst);
    }

    pub(super) fn release(&self) {
        self.is_held.store(false, Ordering::SeqCst);
        if self.len() > 0 {
            self.ring();
        }
    }

    /// As `post`, and nobody is woken. Dropped where it is closed.
    pub(super) fn put(&self, item: T) {
        let mut queue = self.queue.lock();
        // Behind the lock: closing sets this before it empties the queue.
        if !self.is_closed() {
            queue.push_back(item);
        }
    }

    /// The first, if there is one and it is wanted.
    pub(super) fn take_if(&self, is_wanted: impl FnOnce(&T) -> bool) -> Next<T> {
        let mut queue = self.queue.lock();
        match queue.pop_front() {
            None => Next::Nothing,
            Some(item) if is_wanted(&item) => Next::Item { item, is_last: queue.is_empty() },
            Some(item) => {
                queue.push_front(item);
                Next::Unwanted
            }
        }
    }

    /// It was taken, and stands first again.
    pub(super) fn put_back(&self, item: T) {
        self.queue.lock().push_front(item);
    }

    /// What `sleep` is told: taken before one looks whether there is anything to do.
    pub(super) fn word(&self) -> u32 {
        self.word.load(Ordering::SeqCst)
    }

    /// Until somebody rings who has not before `word` was taken, something is there, or the time is over.
    pub(super) fn sleep(&self, word: u32, until: Option<Duration>) {
        let left = until.map(|until| until.saturating_sub(self.runtime.now()));
        if self.len() == 0 && left != Some(Duration::ZERO) {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            self.runtime.wait(&self.word, word, left);
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Nothing more is taken, and what waits is dropped.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.queue.lock().clear();
        self.ring();
    }

    /// What waits is still taken, and nothing behind it.
    pub(super) fn finish(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Nothing behind what waits is wanted.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst) || self.is_closed()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    pub(super) fn ring(&self) {
        // A sleeper counts itself before it looks at the word a last time: one of the two sees the other.
        self.word.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.runtime.wake_all(&self.word);
        }
    }

    /// The next, waited for until then by the runtime's clock; none when the time is over, or it was closed.
    pub(super) fn take(&self, until: Option<Duration>) -> Option<T> {
        loop {
            // Before the queue is looked at: what is posted behind that changes it.
            let word = self.word.load(Ordering::SeqCst);
            if self.is_closed() {
                return None;
            }
            if let Some(item) = self.queue.lock().pop_front() {
                return Some(item);
            }
            if self.is_ending() {
                return None;
            }
            if until.is_some_and(|until| until <= self.runtime.now()) {
                return None;
            }
            self.sleep(word, until);
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.lock().len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may")]

    use super::*;
    use seawall_wal::OsRuntime;
    use std::thread;

    #[test]
    fn what_is_posted_to_a_held_one_wakes_its_thread_once_it_is_released() {
        let inbox: Arc<Inbox<u32>> = Inbox::new(&(OsRuntime::new() as _));
        thread::scope(|scope| {
            let taker = scope.spawn(|| inbox.take(Some(Duration::from_secs(60))));
            while inbox.sleepers.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            inbox.hold();
            inbox.post(7);
            thread::sleep(Duration::from_millis(30));
            assert!(!taker.is_finished(), "nobody was to ring");
            inbox.release();
            assert_eq!(taker.join().unwrap(), Some(7));
        });
    }
}
