//! A commit's receipt: durable when it resolves.

use crate::Lsn;
use crate::commit::Placed;
use crate::error::Result;
use crate::log::Inner;
use crate::sync::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A record's receipt: it can be waited for from any thread or on any executor; no runtime is needed. A place in the
/// log is not durability: only a resolved ticket is.
#[must_use = "the record is not known to be durable until the ticket resolves"]
#[derive(Debug)]
pub struct Ticket {
    inner: Arc<Inner>,
    placed: Placed,
    state: Option<Arc<Mutex<TicketState>>>,
}

#[derive(Debug, Default)]
struct TicketState {
    waker: Option<Waker>,
    outcome: Option<Result<Lsn>>,
}

impl Ticket {
    pub(crate) fn new(inner: Arc<Inner>, placed: Placed) -> Ticket {
        inner.drive(&placed);
        Ticket { inner, placed, state: None }
    }

    /// Where the record stands.
    pub fn lsn(&self) -> Lsn {
        self.placed.lsn
    }

    /// Blocks until the record counts.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`](crate::Error::CommitUnknown) if the log failed first.
    pub fn wait(self) -> Result<Lsn> {
        self.inner.committer.wait(&self.placed, None)?;
        Ok(self.placed.lsn)
    }

    /// Blocks until the record counts, or the time is over: then `None`, and the ticket stays good.
    ///
    /// # Errors
    /// Like [`wait`](Ticket::wait).
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<Lsn>> {
        let reached = self.inner.committer.wait(&self.placed, Some(limit))?;
        Ok(reached.then_some(self.placed.lsn))
    }

    /// Calls `f` once, from the thread that completes the commit: it must not block.
    pub fn on_done(self, f: impl FnOnce(Result<Lsn>) + Send + 'static) {
        self.inner.committer.on_reached(&self.placed, Box::new(f));
    }
}

impl Future for Ticket {
    type Output = Result<Lsn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = match &self.state {
            Some(state) => state.clone(),
            None => {
                let state = Arc::new(Mutex::new(TicketState::default()));
                let shared = state.clone();
                self.inner.committer.on_reached(
                    &self.placed,
                    Box::new(move |outcome| {
                        let waker = {
                            let mut state = shared.lock();
                            state.outcome = Some(outcome);
                            state.waker.take()
                        };
                        if let Some(waker) = waker {
                            waker.wake();
                        }
                    }),
                );
                self.state = Some(state.clone());
                state
            }
        };
        let mut state = state.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
