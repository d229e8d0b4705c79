//! What is to be called when a commit counts.

use crate::Lsn;
use crate::error::{Error, Result};
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Called once with the record's LSN, or with what went wrong.
pub(crate) type Callback = Box<dyn FnOnce(Result<Lsn>) + Send>;

type IsReached = Box<dyn Fn(Lsn, Lsn) -> bool + Send>;

/// Callbacks in LSN order. What a record needs never shrinks with its LSN, so those reached are a prefix.
#[derive(Default)]
pub(crate) struct Callbacks {
    waiting: Mutex<BTreeMap<(Lsn, u64), (IsReached, Callback)>>,
    count: AtomicU64,
}

impl Callbacks {
    pub(crate) fn insert(
        &self,
        lsn: Lsn,
        is_reached: impl Fn(Lsn, Lsn) -> bool + Send + 'static,
        callback: Callback,
    ) {
        let mut waiting = self.waiting.lock();
        let id = waiting.range((lsn, 0)..=(lsn, u64::MAX)).next_back().map_or(0, |((_, id), _)| id + 1);
        waiting.insert((lsn, id), (Box::new(is_reached), callback));
        self.count.store(waiting.len() as u64, Ordering::SeqCst);
    }

    /// Calls those that are reached, outside the lock; all of them, with an error, if the log has failed.
    pub(crate) fn run(&self, durable: Lsn, written: Lsn, failed: bool) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        loop {
            let mut waiting = self.waiting.lock();
            let Some(entry) = waiting.first_entry() else { return };
            let reached = (entry.get().0)(durable, written);
            if !reached && !failed {
                return;
            }
            let ((lsn, _), (_, callback)) = entry.remove_entry();
            self.count.store(waiting.len() as u64, Ordering::SeqCst);
            drop(waiting);
            let outcome = if reached { Ok(lsn) } else { Err(Error::CommitUnknown { lsn }) };
            guarded(|| callback(outcome));
        }
    }
}

thread_local! {
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Runs somebody's callback. One that panics is its owner's fault: the others are called all the same, and the panic
/// hook has reported it.
#[doc(hidden)]
pub fn guarded(callback: impl FnOnce()) {
    INSIDE.set(INSIDE.get() + 1);
    let _ = catch_unwind(AssertUnwindSafe(callback));
    INSIDE.set(INSIDE.get() - 1);
}

/// Whether the calling thread is in a callback: it may lead the log just now, and must not wait for it.
#[doc(hidden)]
pub fn is_inside() -> bool {
    INSIDE.get() > 0
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Callbacks({})", self.count.load(Ordering::SeqCst))
    }
}
