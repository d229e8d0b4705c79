//! A commit's receipt: waitable from any thread or any executor.

#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use crate::commit::locks::Held;
use crate::commit::pending::Pending;
use crate::commit::sequencer::Sequencer;
use crate::db::Handle;
use crate::memory::Charge;
use crate::sync::{AtomicBool, Mutex, Ordering};
use crate::{Error, Result};
use seawall_wal::Lsn;
use seawall_wal::callbacks::guarded;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

type OnDone = Box<dyn FnOnce(Result<Lsn>) + Send>;

#[derive(Default)]
struct Slot {
    waker: Option<Waker>,
    on_done: Option<OnDone>,
    /// The transaction's locks, until its commit is visible.
    locks: Option<Held>,
}

/// Who wants to be told of a commit's end.
#[derive(Default)]
pub(crate) struct Listener {
    is_wanted: AtomicBool,
    slot: Mutex<Slot>,
}

impl Listener {
    /// Asked by the completing thread *after* it moved visible; set by a listener *before* it looks at visible: at
    /// least one of the two sees the other.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::SeqCst)
    }

    fn want(&self, change: impl FnOnce(&mut Slot)) {
        change(&mut self.slot.lock());
        self.is_wanted.store(true, Ordering::SeqCst);
    }

    /// Keeps a transaction's locks until its commit has ended.
    pub(crate) fn keep(&self, locks: Held, settled: impl Fn() -> Option<Result<Lsn>>) {
        self.want(|slot| slot.locks = Some(locks));
        if settled().is_some() {
            self.tell(settled);
        }
    }

    /// Tells whoever listens; nobody is told twice. Without a lock held.
    pub(crate) fn tell(&self, settled: impl FnOnce() -> Option<Result<Lsn>>) {
        let slot = std::mem::take(&mut *self.slot.lock());
        // The next holder is to see this commit: it is visible, or never will be.
        drop(slot.locks);
        if let Some(waker) = slot.waker {
            guarded(|| waker.wake());
        }
        if let Some(on_done) = slot.on_done {
            match settled() {
                Some(result) => guarded(|| on_done(result)),
                None => self.want(|slot| slot.on_done = Some(on_done)),
            }
        }
    }
}

/// While it lives, commits that are handed over for a ticket gather, and are written together when it is dropped: see
/// [`Db::hold_tickets`](crate::Db::hold_tickets).
#[must_use = "what is handed over gathers for as long as it lives"]
pub struct HeldTickets(Arc<Handle>);

impl HeldTickets {
    pub(crate) fn new(handle: Arc<Handle>) -> HeldTickets {
        handle.core().log.hold(true);
        HeldTickets(handle)
    }
}

impl Drop for HeldTickets {
    fn drop(&mut self) {
        self.0.core().log.hold(false);
    }
}

impl std::fmt::Debug for HeldTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldTickets").finish_non_exhaustive()
    }
}

enum State {
    /// There was nothing to write.
    Nothing(Lsn),
    Pending(
        Arc<Sequencer>,
        Arc<Pending>,
        #[allow(dead_code, reason = "held for what its drop gives back")] Charge,
    ),
}

/// A commit's receipt: it has its place in the order, and is visible and durable once the ticket resolves.
/// Dropping it changes nothing about the commit.
///
/// As a `Future` it needs no particular executor. With a store that runs without background threads, only
/// [`wait`](Ticket::wait) and [`wait_timeout`](Ticket::wait_timeout) drive it.
///
/// ```
/// # use seawall_engine::{Db, WriteBatch};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// let mut batch = WriteBatch::new();
/// batch.insert(&rows, "a", "1");
/// let ticket = db.write_pipelined(batch)?;
/// assert!(ticket.lsn() < ticket.wait()? || rows.get("a")?.is_some());
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[must_use = "the commit is not known to be durable until the ticket resolves"]
pub struct Ticket(State);

impl Ticket {
    pub(crate) fn nothing(lsn: Lsn) -> Ticket {
        Ticket(State::Nothing(lsn))
    }

    /// What it keeps in memory is charged for as long as it lives.
    pub(crate) fn pending(sequencer: Arc<Sequencer>, pending: Arc<Pending>, charge: Charge) -> Ticket {
        Ticket(State::Pending(sequencer, pending, charge))
    }

    /// Where the commit's record stands in the log.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # let mut batch = WriteBatch::new();
    /// # batch.insert(&rows, "a", "1");
    /// let ticket = db.write_pipelined(batch)?;
    /// let place = ticket.lsn();
    /// assert_eq!(ticket.wait()?, place);
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn lsn(&self) -> Lsn {
        match &self.0 {
            State::Nothing(lsn) => *lsn,
            State::Pending(_, pending, _) => pending.lsn(),
        }
    }

    /// Waits until the commit is visible at the durability that it asked for.
    ///
    /// # Errors
    /// `CommitUnknown` if the log failed before that.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # let mut batch = WriteBatch::new();
    /// # batch.insert(&rows, "a", "1");
    /// let ticket = db.write_pipelined(batch)?;
    /// ticket.wait()?; // visible, and on the device
    /// assert!(rows.get("a")?.is_some());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn wait(self) -> Result<Lsn> {
        match &self.0 {
            State::Nothing(lsn) => Ok(*lsn),
            State::Pending(sequencer, pending, _) => {
                sequencer.wait(pending, None).unwrap_or(Err(Error::CommitUnknown { lsn: pending.lsn() }))
            }
        }
    }

    /// Like [`wait`](Ticket::wait), for at most `limit`; none if it was not enough.
    ///
    /// # Errors
    /// `CommitUnknown` if the log failed.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # let mut batch = WriteBatch::new();
    /// # batch.insert(&rows, "a", "1");
    /// let ticket = db.write_pipelined(batch)?;
    /// while ticket.wait_timeout(std::time::Duration::from_millis(100))?.is_none() {
    ///     println!("not yet");
    /// }
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<Lsn>> {
        match &self.0 {
            State::Nothing(lsn) => Ok(Some(*lsn)),
            State::Pending(sequencer, pending, _) => sequencer.wait(pending, Some(limit)).transpose(),
        }
    }

    /// `f` is called once, from the thread that completes the commit, or at once; it must not block.
    ///
    /// ```
    /// # use seawall_engine::{Db, WriteBatch};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # let mut batch = WriteBatch::new();
    /// # batch.insert(&rows, "a", "1");
    /// let ticket = db.write_pipelined(batch)?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// ticket.on_done(move |done| sender.send(done.is_ok()).unwrap());
    /// assert!(receiver.recv().unwrap());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn on_done(self, f: impl FnOnce(Result<Lsn>) + Send + 'static) {
        match &self.0 {
            State::Nothing(lsn) => f(Ok(*lsn)),
            State::Pending(sequencer, pending, _) => {
                #[cfg(seawall_shuttle)]
                if errs(Misorder::WantLate) && sequencer.settled(pending).is_none() {
                    pending.listener.want(|slot| slot.on_done = Some(Box::new(f)));
                    return;
                }
                pending.listener.want(|slot| slot.on_done = Some(Box::new(f)));
                if sequencer.settled(pending).is_some() {
                    pending.listener.tell(|| sequencer.settled(pending));
                }
            }
        }
    }
}

impl Future for Ticket {
    type Output = Result<Lsn>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &self.0 {
            State::Nothing(lsn) => Poll::Ready(Ok(*lsn)),
            State::Pending(sequencer, pending, _) => {
                #[cfg(seawall_shuttle)]
                if errs(Misorder::WantLate) && sequencer.settled(pending).is_none() {
                    pending.listener.want(|slot| slot.waker = Some(context.waker().clone()));
                    return Poll::Pending;
                }
                pending.listener.want(|slot| slot.waker = Some(context.waker().clone()));
                match sequencer.settled(pending) {
                    Some(result) => Poll::Ready(result),
                    None => Poll::Pending,
                }
            }
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("lsn", &self.lsn()).finish_non_exhaustive()
    }
}
