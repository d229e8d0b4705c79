//! Whoever waits for a transaction's outcome, and what it is told.

use super::present::Absent;
use crate::error::{Error, Result};
use crate::id::TxnId;
use crate::message::Decision;
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
    /// Of each clone of the handle.
    pub(crate) on_done: Vec<OnDone>,
    /// How many sleep, or are about to, and will [look](Client::wakes) when they wake.
    sleeping: u32,
    /// Whom it is to wake when it wakes.
    relays_to: Vec<Arc<Client>>,
}

/// One of so many that are told at once is woken, and wakes the others: waking takes longer than telling, and whoever tells has
/// more to do.
const RELAYED: usize = 8;

/// What it is told.
pub(crate) enum Word {
    /// Committed, and visible in all stores here.
    Committed,
    Aborted(Option<Error>),
    /// Not known soon.
    Unknown,
    /// A node was gone by then: nothing happened.
    NotStarted(Absent),
    /// Its coordinator has stopped, for a later incarnation is at work, and knows.
    Fenced(Absent),
    /// The coordinator was closed first.
    Closed,
}

impl Word {
    pub(super) fn of(decision: Decision, cause: Option<Error>) -> Word {
        match decision {
            Decision::Commit => Word::Committed,
            Decision::Abort => Word::Aborted(cause),
        }
    }
}

impl State {
    /// Its result, if it has one; what an abort was caused by is given to the first who asks.
    pub(crate) fn result(&mut self, txn: TxnId) -> Option<Result<TxnId>> {
        Some(match self.told.as_mut()? {
            Word::Committed => Ok(txn),
            Word::Aborted(cause) => Err(Error::Aborted { txn, cause: cause.take().map(Box::new) }),
            Word::NotStarted(absent) | Word::Fenced(absent) => Err((*absent).into()),
            Word::Unknown | Word::Closed => Err(Error::Closed),
        })
    }

    #[cfg(feature = "net")]
    pub(crate) fn is_over(&self) -> bool {
        self.told.is_some()
    }

    /// Whether the outcome will not be known soon, or not here.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown && matches!(self.told, None | Some(Word::Fenced(_)))
    }

    /// Somebody is about to sleep, having seen that nothing is told.
    pub(crate) fn sleeps(&mut self) {
        self.sleeping += 1;
    }
}

impl Client {
    /// Of a transaction that has nothing to commit.
    pub(crate) fn committed() -> Client {
        let state = State { told: Some(Word::Committed), ..State::default() };
        Client { state: Mutex::new(state), ..Client::default() }
    }

    /// Tells each its word, and wakes those who sleep.
    pub(crate) fn tell_all(told: Vec<(Arc<Client>, TxnId, Word)>, runtime: &Arc<dyn Runtime>) {
        let mut sleepers = Vec::with_capacity(told.len());
        for (client, txn, word) in told {
            if client.tell(txn, word) {
                sleepers.push(client);
            }
        }
        while !sleepers.is_empty() {
            let others = sleepers.split_off(sleepers.len().saturating_sub(RELAYED) + 1);
            let Some(first) = sleepers.pop() else { return };
            let mut state = first.state.lock();
            let is_left_alone = state.sleeping == 0;
            let mut others = others;
            if !is_left_alone {
                state.relays_to.append(&mut others);
            }
            drop(state);
            runtime.wake_all(&first.word);
            // It woke by itself meanwhile, and has gone.
            others.iter().for_each(|other| runtime.wake_all(&other.word));
        }
    }

    /// True if it sleeps, and must be woken.
    fn tell(&self, txn: TxnId, word: Word) -> bool {
        let mut state = self.state.lock();
        let mut done = Vec::new();
        match word {
            Word::Unknown => state.is_unknown = true,
            // It is no outcome, and whoever asks hears so by himself.
            Word::Closed => {
                let waiting = std::mem::take(&mut state.on_done);
                done.extend(waiting.into_iter().map(|on_done| (on_done, Err(Error::Closed))));
            }
            word => {
                state.is_unknown |= matches!(word, Word::Fenced(_));
                state.told = Some(word);
                for on_done in std::mem::take(&mut state.on_done) {
                    done.extend(state.result(txn).map(|result| (on_done, result)));
                }
            }
        }
        self.word.fetch_add(1, Ordering::SeqCst);
        let sleeps = state.sleeping > 0;
        drop(state);
        for (on_done, result) in done {
            guarded(|| on_done(result));
        }
        sleeps
    }

    /// One that slept is awake: it wakes those who were left to it.
    pub(crate) fn wakes(&self, runtime: &dyn Runtime) {
        let mut state = self.state.lock();
        state.sleeping -= 1;
        let others = std::mem::take(&mut state.relays_to);
        drop(state);
        others.iter().for_each(|other| runtime.wake_all(&other.word));
    }
}

/// Calls what a program has given. What it said in its panic has been printed by the panic hook; the coordinator goes on.
pub(crate) fn guarded(call: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(call));
}
