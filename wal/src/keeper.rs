//! The log's own threads: `seawall-spare` makes segments ahead and seals an idle log, `seawall-ticket` (started when
//! first wanted) sees to it that commits without a waiter are written. Neither is needed for correctness: whoever
//! waits leads, whoever needs a segment makes one.

#[cfg(seawall_shuttle)]
use crate::commit::explored::Misorder;
use crate::error::Result;
use crate::log::Inner;
use crate::runtime::{Runtime, Thread};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// How long nothing must have been written before the log counts as idle.
const IDLE: Duration = Duration::from_millis(2);
/// How long to wait before trying again when the disk is full.
const RETRY: Duration = Duration::from_millis(100);

/// What wakes the threads. Shared by the writer, the log and the threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    has_keeper: AtomicBool,
    keeper_word: AtomicU32,
    keeper_asleep: AtomicBool,
    /// Grows with every write.
    activity: AtomicU64,
    ticket_word: AtomicU32,
    /// The ticket thread runs, and will look again before it sleeps.
    drives: AtomicBool,
    /// So many are placing records that are to be written together.
    holds: AtomicU32,
    /// Something was placed meanwhile, and nobody was told.
    is_owed: AtomicBool,
    tickets: Mutex<Tickets>,
}

#[derive(Default)]
struct Tickets {
    is_started: bool,
    thread: Option<Box<dyn Thread>>,
    /// Said by the thread itself, once it runs.
    id: Option<ThreadId>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signals(activity {})", self.activity.load(Ordering::Relaxed))
    }
}

impl Signals {
    /// Something was written: an idle keeper looks up.
    pub(crate) fn poke(&self, runtime: &dyn Runtime) {
        // The keeper says that it sleeps, then looks for activity; here it is the other way round.
        self.0.activity.fetch_add(1, Ordering::SeqCst);
        if self.0.keeper_asleep.swap(false, Ordering::SeqCst) {
            self.0.keeper_word.fetch_add(1, Ordering::Release);
            runtime.wake_one(&self.0.keeper_word);
        }
    }

    /// Somebody holds a ticket for what was just placed.
    pub(crate) fn want(&self, inner: &Arc<Inner>) {
        // The thread says that it sleeps, then looks for work; here it is the other way round.
        let drives = &self.0.drives;
        if !self.0.has_keeper.load(Ordering::Acquire)
            || self.is_held(inner)
            || drives.load(Ordering::SeqCst)
            || drives.swap(true, Ordering::SeqCst)
        {
            return;
        }
        self.start_ticket_thread(inner);
        self.0.ticket_word.fetch_add(1, Ordering::Release);
        inner.runtime.wake_one(&self.0.ticket_word);
    }

    /// What is placed from here on is left alone until [`release`](Self::release).
    pub(crate) fn hold(&self) {
        self.0.holds.fetch_add(1, Ordering::SeqCst);
    }

    /// What was placed since [`hold`](Self::hold) is seen to.
    pub(crate) fn release(&self, inner: &Arc<Inner>) {
        #[cfg(seawall_shuttle)]
        if inner.committer.errs(Misorder::LetGoLate) {
            let is_owed = self.0.is_owed.swap(false, Ordering::SeqCst);
            if self.0.holds.fetch_sub(1, Ordering::SeqCst) == 1 && is_owed {
                self.want(inner);
            }
            return;
        }
        if self.0.holds.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.is_owed.swap(false, Ordering::SeqCst) {
            self.want(inner);
        }
    }

    /// Whether what is there to be driven is left to the one who releases. That one lets go, then looks whether something is
    /// owed; here it is the other way round.
    #[cfg_attr(not(seawall_shuttle), allow(unused_variables, reason = "it says which mistake is to be made"))]
    fn is_held(&self, inner: &Inner) -> bool {
        let is_held = || self.0.holds.load(Ordering::SeqCst) > 0;
        is_held() && {
            self.0.is_owed.store(true, Ordering::SeqCst);
            #[cfg(seawall_shuttle)]
            if inner.committer.errs(Misorder::OweBlindly) {
                return true;
            }
            is_held()
        }
    }

    /// Without a thread the tickets still resolve when they are waited for.
    fn start_ticket_thread(&self, inner: &Arc<Inner>) {
        let mut tickets = self.0.tickets.lock();
        if tickets.is_started || self.0.stop.load(Ordering::Acquire) {
            return;
        }
        tickets.is_started = true;
        drop(tickets);
        let (signals, inner_of_thread) = (self.clone(), inner.clone());
        let body = Box::new(move || signals.run_tickets(&inner_of_thread));
        let thread = inner.runtime.spawn("seawall-ticket", body);
        self.0.tickets.lock().thread = thread.ok();
    }

    fn run_tickets(&self, inner: &Inner) {
        self.0.tickets.lock().id = Some(thread::current().id());
        loop {
            // The word before the flag: whoever stops sets the flag, then changes the word.
            let seen = self.0.ticket_word.load(Ordering::Acquire);
            if self.0.stop.load(Ordering::Acquire) {
                return;
            }
            // A failed log has told whoever asked.
            let drive = || !self.is_held(inner) && matches!(inner.committer.drive(), Ok(true));
            while drive() {}
            self.0.drives.store(false, Ordering::SeqCst);
            if !drive() {
                inner.runtime.wait(&self.0.ticket_word, seen, None);
            }
            self.0.drives.store(true, Ordering::SeqCst);
        }
    }

    fn run_keeper(&self, inner: &Inner) {
        let mut last = u64::MAX;
        loop {
            let seen = self.0.keeper_word.load(Ordering::Acquire);
            if self.0.stop.load(Ordering::Acquire) {
                return;
            }
            let activity = self.0.activity.load(Ordering::Acquire);
            let idle = activity == last;
            last = activity;
            match inner.step(idle) {
                Ok(true) => continue,
                Ok(false) if idle => {
                    self.0.keeper_asleep.store(true, Ordering::SeqCst);
                    if self.0.activity.load(Ordering::SeqCst) == last {
                        // A log that goes on being idle is looked at once more, to rest.
                        let rests = inner.rests_after();
                        inner.runtime.wait(&self.0.keeper_word, seen, rests);
                    }
                    self.0.keeper_asleep.store(false, Ordering::Release);
                }
                Ok(false) => inner.runtime.wait(&self.0.keeper_word, seen, Some(IDLE)),
                // Appenders meet the same error where it matters; a full disk may have room later.
                Err(_) => inner.runtime.wait(&self.0.keeper_word, seen, Some(RETRY)),
            }
        }
    }
}

/// The running threads of one log.
pub(crate) struct Keeper {
    signals: Signals,
    thread: Mutex<Option<Box<dyn Thread>>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keeper({:?})", self.signals)
    }
}

impl Keeper {
    pub(crate) fn start(inner: &Arc<Inner>) -> Result<Keeper> {
        let signals = inner.signals().clone();
        signals.0.has_keeper.store(true, Ordering::Release);
        let (signals_of_thread, inner_of_thread) = (signals.clone(), inner.clone());
        let body = Box::new(move || {
            inner_of_thread.runtime.lower_priority();
            signals_of_thread.run_keeper(&inner_of_thread);
        });
        let thread = inner
            .runtime
            .spawn("seawall-spare", body)
            .map_err(|source| crate::Error::io("start a thread for", &inner.dir, None, source))?;
        Ok(Keeper { signals, thread: Mutex::new(Some(thread)) })
    }

    /// Without the thread that writes what lies in an idle log: it would make good what the one for tickets forgets.
    #[cfg(all(test, seawall_shuttle))]
    pub(crate) fn of_tickets_alone(inner: &Inner) -> Keeper {
        let signals = inner.signals().clone();
        signals.0.has_keeper.store(true, Ordering::Release);
        Keeper { signals, thread: Mutex::new(None) }
    }

    /// Ends the threads. From within the ticket thread (a callback dropped the last handle) it is left to end by
    /// itself.
    pub(crate) fn stop(&self, inner: &Inner) {
        let shared = &self.signals.0;
        shared.stop.store(true, Ordering::Release);
        for word in [&shared.keeper_word, &shared.ticket_word] {
            word.fetch_add(1, Ordering::Release);
            inner.runtime.wake_all(word);
        }
        let keeper = self.thread.lock().take();
        let (ticket, is_ticket_thread) = {
            let mut tickets = shared.tickets.lock();
            let is_self = tickets.id == Some(thread::current().id());
            (if is_self { None } else { tickets.thread.take() }, is_self)
        };
        if let Some(thread) = keeper {
            thread.join();
        }
        if let Some(thread) = ticket.filter(|_| !is_ticket_thread) {
            thread.join();
        }
    }
}
