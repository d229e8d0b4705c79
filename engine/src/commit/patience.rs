//! Tickets that wait for replicas, and nobody waits for: told when the time is over.
//!
//! Whoever blocks keeps the time itself. A future or a call-back has no thread to do that, so the first of them that may have
//! to wait for replicas starts one, which sleeps until the oldest has waited for long enough. A store without threads of its
//! own has none: its tickets are waited for.

use crate::commit::pending::Pending;
use crate::commit::sequencer::Sequencer;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};
use seawall_wal::Runtime;
use seawall_wal::runtime::Thread;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The tickets, oldest first, and until when each waits.
pub(crate) struct Patience {
    runtime: Arc<dyn Runtime>,
    sequencer: Arc<Sequencer>,
    queue: Mutex<VecDeque<(Duration, Arc<Pending>)>>,
    word: AtomicU32,
    is_stopping: AtomicBool,
    thread: Mutex<Option<Box<dyn Thread>>>,
}

impl Patience {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, sequencer: Arc<Sequencer>) -> Arc<Patience> {
        Arc::new(Patience {
            runtime,
            sequencer,
            queue: Mutex::default(),
            word: AtomicU32::new(0),
            is_stopping: AtomicBool::new(false),
            thread: Mutex::new(None),
        })
    }

    /// Tells this commit's listener when it has waited for replicas for as long as commits do.
    pub(crate) fn watch(self: &Arc<Self>, pending: &Arc<Pending>) {
        let until = self.runtime.now().saturating_add(self.sequencer.gate.timeout());
        let was_empty = {
            let mut queue = self.queue.lock();
            // As many go as come, and one more.
            for _ in 0..2 {
                if queue.front().is_some_and(|(_, first)| self.sequencer.settled(first).is_some()) {
                    queue.pop_front();
                }
            }
            queue.push_back((until, Arc::clone(pending)));
            queue.len() == 1
        };
        if was_empty {
            self.start();
            self.wake();
        }
    }

    fn start(self: &Arc<Self>) {
        let mut thread = self.thread.lock();
        if thread.is_none() && !self.is_stopping.load(Ordering::Acquire) {
            let patience = Arc::clone(self);
            // Without it the ticket resolves when replicas are back, or the store closes.
            *thread = self.runtime.spawn("seawall-acks", Box::new(move || patience.keep_time())).ok();
        }
    }

    fn wake(&self) {
        self.word.fetch_add(1, Ordering::Release);
        self.runtime.wake_all(&self.word);
    }

    /// The thread ends.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.wake();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join();
        }
    }

    fn keep_time(&self) {
        loop {
            let seen = self.word.load(Ordering::Acquire);
            if self.is_stopping.load(Ordering::Acquire) {
                return;
            }
            let pause = self.tell_those_behind_time();
            self.runtime.wait(&self.word, seen, pause);
        }
    }

    /// For how long there is nothing to do; none if nobody waits.
    fn tell_those_behind_time(&self) -> Option<Duration> {
        loop {
            let now = self.runtime.now();
            let (until, pending) = {
                let mut queue = self.queue.lock();
                let (until, first) = queue.front()?;
                let is_over = *until <= now || self.sequencer.settled(first).is_some();
                if !is_over {
                    return Some(until.saturating_sub(now));
                }
                queue.pop_front()?
            };
            if until > now || self.sequencer.settled(&pending).is_some() {
                continue;
            }
            if self.sequencer.is_held_up() {
                self.sequencer.expire(&pending);
            } else {
                let until = now.saturating_add(self.sequencer.gate.timeout().max(Duration::from_millis(1)));
                self.queue.lock().push_back((until, pending));
            }
        }
    }
}
