//! Whoever waits for a transaction's outcome, and what it is told.

use crate::error::{Error, Result};
use crate::id::{NodeId, TxnId};
use parking_lot::Mutex;
use seawall_wal::Runtime;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

type OnDone = Box<dyn FnOnce(Result<TxnId>) + Send>;

/// One that waits, or has left a call-back.
#[derive(Default)]
pub(crate) struct Client {
    /// Slept on.
    pub(crate) word: AtomicU32,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    told: Option<Word>,
    is_unknown: bool,
    pub(crate) on_done: Option<OnDone>,
}

/// What it is told.
pub(crate) enum Word {
    /// Committed, and visible in all stores here.
    Committed,
    Aborted(Option<Error>),
    /// Not known soon.
    Unknown,
    /// A node was gone by then: nothing happened.
    NotStarted(NodeId),
    /// The coordinator was closed first.
    Closed,
}

impl State {
    /// Its result, if it has one; what an abort was caused by is given to the first who asks.
    pub(crate) fn result(&mut self, txn: TxnId) -> Option<Result<TxnId>> {
        Some(match self.told.as_mut()? {
            Word::Committed => Ok(txn),
            Word::Aborted(cause) => Err(Error::Aborted { txn, cause: cause.take().map(Box::new) }),
            Word::NotStarted(node) => Err(Error::NodeMissing(*node)),
            Word::Unknown | Word::Closed => Err(Error::Closed),
        })
    }

    #[cfg(feature = "net")]
    pub(crate) fn is_over(&self) -> bool {
        self.told.is_some()
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown
    }
}

impl Client {
    /// Of a transaction that has nothing to commit.
    pub(crate) fn committed() -> Client {
        let state = State { told: Some(Word::Committed), ..State::default() };
        Client { state: Mutex::new(state), ..Client::default() }
    }

    /// Tells it, and wakes it.
    pub(crate) fn tell(self: Arc<Client>, txn: TxnId, word: Word, runtime: &dyn Runtime) {
        let mut state = self.state.lock();
        let mut done = None;
        match word {
            Word::Unknown => state.is_unknown = true,
            // It is no outcome, and whoever asks hears so by himself.
            Word::Closed => done = state.on_done.take().map(|on_done| (on_done, Err(Error::Closed))),
            word => {
                state.told = Some(word);
                if let Some(on_done) = state.on_done.take()
                    && let Some(result) = state.result(txn)
                {
                    done = Some((on_done, result));
                }
            }
        }
        drop(state);
        self.word.fetch_add(1, Ordering::SeqCst);
        runtime.wake_all(&self.word);
        if let Some((on_done, result)) = done {
            guarded(|| on_done(result));
        }
    }
}

/// Calls what a program has given. What it said in its panic has been printed by the panic hook; the coordinator goes on.
pub(crate) fn guarded(call: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(call));
}
