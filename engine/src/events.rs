//! Telling a listener what happened, so that whatever it does harms nothing here.
//!
//! ```text
//! tell ──► queue (bounded) ──► "seawall-events", a thread of its own ──► listener
//!    `──► listener, at once, where the store has no threads of its own
//! ```
//!
//! The thread is none of those that commit, write the log or make checkpoints: a listener that takes long holds up
//! later events alone, and once the queue is full those are counted and dropped. A listener that panics has missed
//! that event.

use crate::stats::{Event, EventListener};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use seawall_wal::Runtime;
use seawall_wal::runtime::Thread;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Events that wait for the listener at most.
const WAITING_MAX: usize = 1024;
/// How long closing a store waits until its last events have been told.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the listener of one store.
pub(crate) struct Events {
    listener: Option<Arc<dyn EventListener>>,
    runtime: Arc<dyn Runtime>,
    waiting: Mutex<VecDeque<Event>>,
    /// Changes when there is something to do for the thread.
    wake: AtomicU32,
    /// 1 when the thread has told all that there was, and has ended.
    ended: AtomicU32,
    is_ending: AtomicBool,
    thread: Mutex<Option<Box<dyn Thread>>>,
    /// Where there is a thread, events are its to tell.
    is_queued: AtomicBool,
    dropped: AtomicU64,
}

impl Events {
    pub(crate) fn new(listener: Option<Arc<dyn EventListener>>, runtime: Arc<dyn Runtime>) -> Arc<Events> {
        Arc::new(Events {
            listener,
            runtime,
            waiting: Mutex::new(VecDeque::new()),
            wake: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            is_ending: AtomicBool::new(false),
            thread: Mutex::new(None),
            is_queued: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        })
    }

    /// Whether anybody is told anything.
    pub(crate) fn has_listener(&self) -> bool {
        self.listener.is_some()
    }

    /// Events that the listener was too slow for.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// From here on a thread of its own tells the listener.
    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        if self.has_listener() {
            let events = Arc::clone(self);
            let thread = self.runtime.spawn("seawall-events", Box::new(move || events.tell_all()))?;
            *self.thread.lock() = Some(thread);
            self.is_queued.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn tell(&self, event: Event) {
        let Some(listener) = &self.listener else { return };
        if !self.is_queued.load(Ordering::Acquire) {
            return call(&**listener, &event);
        }
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING_MAX {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push_back(event);
        }
        self.wake.fetch_add(1, Ordering::Release);
        self.runtime.wake_all(&self.wake);
    }

    /// The thread's body.
    fn tell_all(&self) {
        let Some(listener) = &self.listener else { return };
        loop {
            let seen = self.wake.load(Ordering::Acquire);
            let next = self.waiting.lock().pop_front();
            match next {
                Some(event) => call(&**listener, &event),
                None if self.is_ending.load(Ordering::Acquire) => break,
                None => self.runtime.wait(&self.wake, seen, None),
            }
        }
        self.ended.store(1, Ordering::Release);
        self.runtime.wake_all(&self.ended);
    }

    /// Nothing more happens. Returns when all has been told, or after a second: nobody waits for a listener that hangs.
    pub(crate) fn end(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        self.is_ending.store(true, Ordering::Release);
        self.wake.fetch_add(1, Ordering::Release);
        self.runtime.wake_all(&self.wake);
        let until = self.runtime.now() + PATIENCE;
        while self.ended.load(Ordering::Acquire) == 0 {
            let left = until.saturating_sub(self.runtime.now());
            if left.is_zero() {
                return;
            }
            self.runtime.wait(&self.ended, 0, Some(left));
        }
        thread.join();
    }
}

fn call(listener: &dyn EventListener, event: &Event) {
    // What it said in its panic has been printed by the panic hook; the store goes on.
    let _ = catch_unwind(AssertUnwindSafe(|| listener.event(event)));
}
