//! Threads that nobody joins one by one: waited for together.

use parking_lot::Mutex;
use seawall_wal::Runtime;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ThreadId};

/// Who is at work.
pub(super) struct Crew {
    runtime: Arc<dyn Runtime>,
    state: Mutex<State>,
    /// Changes whenever one has gone home.
    word: AtomicU32,
}

#[derive(Default)]
struct State {
    hired: usize,
    at_work: Vec<ThreadId>,
}

/// One of them, until it is dropped.
struct Shift {
    crew: Arc<Crew>,
    thread: Option<ThreadId>,
}

/// See [`Crew::visit`].
pub(super) struct Visit<'a> {
    crew: &'a Crew,
    me: ThreadId,
}

impl Crew {
    pub(super) fn new(runtime: &Arc<dyn Runtime>) -> Arc<Crew> {
        Arc::new(Crew { runtime: Arc::clone(runtime), state: Mutex::default(), word: AtomicU32::new(0) })
    }

    /// Starts a thread. It counts until all that `body` has taken with it is dropped.
    pub(super) fn spawn(
        self: &Arc<Crew>,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        self.state.lock().hired += 1;
        let mut shift = Shift { crew: Arc::clone(self), thread: None };
        let work = move || {
            let me = thread::current().id();
            shift.crew.state.lock().at_work.push(me);
            shift.thread = Some(me);
            body();
            drop(shift);
        };
        self.runtime.spawn(name, Box::new(work)).map(drop)
    }

    /// As long as this is kept, this thread does the work of one of them: it does not wait for itself.
    pub(super) fn visit(&self) -> Visit<'_> {
        let me = thread::current().id();
        self.state.lock().at_work.push(me);
        Visit { crew: self, me }
    }

    /// Waits until all have gone; at once if one of them asks, or who does the work of one.
    pub(super) fn wait(&self) {
        loop {
            let word = self.word.load(Ordering::SeqCst);
            {
                let state = self.state.lock();
                if state.hired == 0 || state.at_work.contains(&thread::current().id()) {
                    return;
                }
            }
            self.runtime.wait(&self.word, word, None);
        }
    }
}

impl State {
    fn leave(&mut self, who: ThreadId) {
        if let Some(at) = self.at_work.iter().rposition(|thread| *thread == who) {
            self.at_work.swap_remove(at);
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.crew.state.lock().leave(self.me);
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        {
            let mut state = self.crew.state.lock();
            state.hired -= 1;
            if let Some(me) = self.thread {
                state.leave(me);
            }
        }
        self.crew.word.fetch_add(1, Ordering::SeqCst);
        self.crew.runtime.wake_all(&self.crew.word);
    }
}
