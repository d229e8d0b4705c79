//! One order for all commits, and how far it is visible.
//!
//! ```text
//!            reserve()                 apply (own thread)          log            advance()
//! (nothing) ──────────► reserved ───────────────────────► applied ────► reached ──────────► visible
//!                          │                                 │             log fails: lost
//!                          └────────── withdraw() ──────────►┴──► discarded
//! ```
//!
//! Under a short lock a commit is validated, gets its place in the log (a copy in memory) and stands in the queue of
//! pending commits. Outside the lock its thread inserts its rows into the delta that was active at that moment, and
//! waits for the log. [`visible`](Reads::visible) moves over the queue's front while that is applied *and* the log
//! has reached it: so a commit is visible only after all before it, and nobody sees what a crash can take back (but
//! for the levels that ask for it).
//!
//! The thread that led the log's write calls [`advance`](Sequencer::advance) before it wakes those who wait for the
//! write, so that they wake once, and find their commits visible without a lock. Whoever finds its commit reached and
//! not visible (it, or one before it, was not applied yet) calls `advance` itself, once its own is applied. The log
//! moves its mark and then looks at what is applied; a commit is marked as applied and then looks at the log's mark:
//! whichever is last finds all of it ready. So waiting on the word that `advance` bumps never hangs.
//!
//! Lock order: sequencer state → view, lives, or roster. No lock is held across I/O, a wait, or a call-back.
//!
//! Invariants: E1 pending commits stand in the order of their ends. E2 visible never falls, and never passes a
//! commit that is not applied. E3 a delta is frozen once, and after that gets only commits reserved before.

use crate::commit::batch::too_large;
#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use crate::commit::gate::{Gate, Reach};
use crate::commit::log::{CommitLog, News, Outcome, Place};
#[cfg(seawall_shuttle)]
use crate::commit::pending::APPLIED;
use crate::commit::pending::{EXPIRED, LOST, Pending, WITHDRAWN};
use crate::commit::prepared::roster::Roster;
use crate::commit::prepared::table::Table;
use crate::commit::validate::{Recent, Seen, look_early, validate};
use crate::delta::Delta;
use crate::invariants;
use crate::keyspace::{Catalogue, Life};
use crate::mutation::Mutation;
use crate::read::view::Reads;
use crate::record::{PAYLOAD_BYTES_MAX, WriteSet};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, fence};
use crate::{Error, Result};
use seawall_wal::{Lsn, Runtime};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Commits of up to so many rows are applied under the sequencer's lock; none where interleavings are explored, for those
/// of the other way are the more.
const APPLIED_AT_ONCE_ROWS: usize = if cfg!(seawall_shuttle) { 0 } else { 2 };

/// What the sequencer's lock guards.
pub(crate) struct State {
    pub(crate) pending: VecDeque<Arc<Pending>>,
    /// Those that have left the queue while somebody validates.
    pub(crate) recent: Recent,
    pub(crate) active: Arc<Delta>,
    /// Commits with a place in `active`, applied or not.
    reserved: u64,
    /// Frozen deltas, newest first: not yet folded, or folded and kept for validation.
    pub(crate) older: Vec<Arc<Delta>>,
    /// Everything below is in the tree.
    folded: Lsn,
    /// A transaction whose snapshot is below cannot be validated any more.
    pub(crate) floor: Lsn,
    /// The newest place of a commit that made or dropped a keyspace, since the store was opened.
    pub(crate) catalogue_changed: Lsn,
    pub(crate) prepared: Table,
    /// Where the last freeze was, and where redo of what comes behind it begins.
    frozen: (Lsn, Lsn),
    /// Of a replica: what is applied, and how far it may be shown.
    followed: Option<Followed>,
    refusal: Option<Refusal>,
    /// Something failed that only reopening mends.
    is_beyond_resuming: bool,
    /// A test's deliberate mistake.
    mistake: Option<Mutation>,
}

impl State {
    pub(crate) fn errs(&self, mutation: Mutation) -> bool {
        self.mistake == Some(mutation)
    }
}

#[derive(Clone)]
enum Refusal {
    Poisoned(Arc<Error>),
    /// Another store writes, in this epoch.
    Fenced(u64),
    Closed,
}

impl Refusal {
    fn error(&self) -> Error {
        match self {
            Refusal::Poisoned(cause) => Error::Poisoned(Arc::clone(cause)),
            Refusal::Fenced(epoch) => Error::Fenced { epoch: *epoch },
            Refusal::Closed => Error::Closed,
        }
    }
}

impl Refusal {
    /// Nothing becomes visible any more.
    fn is_lasting(&self) -> bool {
        matches!(self, Refusal::Poisoned(_) | Refusal::Fenced(_))
    }
}

/// Crowds at the gate. Commits of one frame stand in few, and those of frames that follow each other in different ones.
const CROWDS: usize = 16;
const CROWD_BYTES: u64 = 4096;

/// Where some sleep.
#[derive(Default)]
struct Crowd {
    /// Bumped when what they wait for may have come, and somebody waits.
    word: AtomicU32,
    waiting: AtomicU32,
}

/// The crowd at the gate that waits for what ends there.
fn crowd_of(end: Lsn) -> usize {
    (end.0.saturating_sub(1) / CROWD_BYTES) as usize % CROWDS
}

/// One order for all commits.
pub(crate) struct Sequencer {
    log: Arc<dyn CommitLog>,
    pub(crate) gate: Arc<Gate>,
    runtime: Arc<dyn Runtime>,
    reads: Arc<Reads>,
    catalogue: Arc<Catalogue>,
    /// Of what is prepared in the state.
    roster: Arc<Roster>,
    state: Mutex<State>,
    /// Those who wait for anything that may change.
    all: Crowd,
    /// Those who wait for replicas to have their commits, by where these stand: what wakes some leaves the others asleep.
    at_gate: [Crowd; CROWDS],
    is_refusing: AtomicBool,
    pub(crate) conflicts: AtomicU64,
    next_serial: AtomicU64,
    /// The end of the last record that is visible; visible itself may be at a freeze, behind it.
    shown: AtomicU64,
}

impl Sequencer {
    pub(crate) fn new(
        log: Arc<dyn CommitLog>,
        gate: Arc<Gate>,
        runtime: Arc<dyn Runtime>,
        reads: Arc<Reads>,
        catalogue: Arc<Catalogue>,
    ) -> Arc<Sequencer> {
        let view = reads.view();
        let state = State {
            pending: VecDeque::new(),
            recent: Recent::default(),
            active: Arc::clone(&view.active),
            reserved: u64::from(!view.active.is_empty()),
            older: view.frozen.clone(),
            folded: Lsn::ZERO,
            floor: Lsn::ZERO,
            catalogue_changed: Lsn::ZERO,
            prepared: Table::default(),
            frozen: (Lsn::ZERO, Lsn::ZERO),
            followed: None,
            refusal: None,
            is_beyond_resuming: false,
            mistake: None,
        };
        let sequencer = Arc::new(Sequencer {
            log: Arc::clone(&log),
            gate,
            runtime,
            reads,
            catalogue,
            roster: state.prepared.roster(),
            state: Mutex::new(state),
            all: Crowd::default(),
            at_gate: std::array::from_fn(|_| Crowd::default()),
            is_refusing: AtomicBool::new(false),
            conflicts: AtomicU64::new(0),
            next_serial: AtomicU64::new(1),
            shown: AtomicU64::new(0),
        });
        let listening = Arc::downgrade(&sequencer);
        log.listen(Box::new(move |news| {
            if let Some(sequencer) = listening.upgrade() {
                sequencer.heard(news);
            }
        }));
        sequencer
    }

    /// Refuses when writes are refused.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_refusing.load(Ordering::Acquire) {
            return Ok(());
        }
        match &self.state.lock().refusal {
            Some(refusal) => Err(refusal.error()),
            None => Ok(()),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// From now on it makes this mistake.
    pub(crate) fn err_by(&self, mistake: Option<Mutation>) {
        self.state.lock().mistake = mistake;
    }

    /// Behind every record that has its place.
    pub(super) fn reserved_end(&self, state: &State) -> Lsn {
        state.pending.back().map_or(self.reads.visible(), |last| last.end())
    }

    pub(super) fn switch_point(&self) {
        self.runtime.switch_point();
    }

    /// `Conflict` if a transaction that has seen this could not commit these rows now.
    pub(crate) fn check_unchanged(&self, set: &WriteSet, seen: Seen<'_>) -> Result<()> {
        let early = if seen.reads.is_small() { None } else { Some(look_early(self, seen)?) };
        let state = self.state.lock();
        validate(&state, set, seen, early.as_ref())
    }

    /// Validates, takes the next place in the log, and applies. What was `seen` must be unchanged, with every row of the
    /// set. What comes back is applied, and neither durable nor visible: see [`wait`](Self::wait) and
    /// [`notify`](Self::notify), one of which must follow.
    pub(crate) fn commit(
        &self,
        set: WriteSet,
        touched: &[Arc<Life>],
        seen: Option<Seen<'_>>,
        reach: Reach,
    ) -> Result<Arc<Pending>> {
        self.commit_as(Role::Commit(seen), set, touched, reach)
    }

    /// As [`commit`](Self::commit), for a record of any role.
    pub(crate) fn commit_as(
        &self,
        role: Role<'_>,
        set: WriteSet,
        touched: &[Arc<Life>],
        reach: Reach,
    ) -> Result<Arc<Pending>> {
        let seen = role.seen();
        if set.payload().len() > PAYLOAD_BYTES_MAX {
            return Err(too_large(set.payload().len(), PAYLOAD_BYTES_MAX));
        }
        // A few rows are applied in their order at once, in less time than another thread would wait for this one to come
        // back to it; many, beside other commits.
        let is_small = set.rows().len() <= APPLIED_AT_ONCE_ROWS;
        let lost = |_: &Error| {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        };
        let mut early = match seen {
            Some(seen) if !seen.reads.is_small() => Some(look_early(self, seen).inspect_err(lost)?),
            _ => None,
        };
        let pending = loop {
            let mut state = self.state.lock();
            if let Some(refusal) = &state.refusal {
                return Err(refusal.error());
            }
            check_lives(role.writes(&set), touched)?;
            if let Some(seen) = seen.filter(|_| !state.errs(Mutation::SkipValidation)) {
                validate(&state, role.writes(&set), seen, early.as_ref()).inspect_err(lost)?;
                if state.errs(Mutation::ValidateUnlocked) {
                    drop(state);
                    self.runtime.switch_point();
                    state = self.state.lock();
                }
            }
            self.check_prepared(&state, role, &set).inspect_err(lost)?;
            if let Some(mut place) = self.log.place(set.payload(), reach.durability)? {
                self.ask_gate(&mut place, reach.ack);
                if let Some(early) = &mut early {
                    early.end(&mut state);
                }
                let pending = self.enqueue(&mut state, place, set);
                self.note_prepared(&mut state, role, &pending);
                if is_small {
                    pending.apply();
                }
                break pending;
            }
            drop(state);
            self.log.make_room(set.payload().len())?;
        };
        if !is_small {
            self.runtime.switch_point();
            #[cfg(seawall_shuttle)]
            if errs(Misorder::CountUnapplied) {
                pending.flags.fetch_or(APPLIED, Ordering::SeqCst);
            }
            let is_withdrawn = pending.apply() & WITHDRAWN != 0;
            #[cfg(seawall_shuttle)]
            let is_withdrawn = is_withdrawn && !errs(Misorder::StayBehind);
            if is_withdrawn {
                // It was withdrawn meanwhile, and those behind it could not pass.
                self.advance();
            }
        }
        Ok(pending)
    }

    fn enqueue(&self, state: &mut State, place: Place, set: WriteSet) -> Arc<Pending> {
        debug_assert!(state.pending.back().is_none_or(|last| last.end() <= place.lsn), "E1");
        self.catalogue.placed(set.created(), set.dropped(), place.lsn);
        if !set.created().is_empty() || !set.dropped().is_empty() {
            state.catalogue_changed = place.lsn;
        }
        let pending = Arc::new(Pending::commit(place, Arc::clone(&state.active), set));
        state.reserved += 1;
        state.pending.push_back(Arc::clone(&pending));
        pending
    }

    /// Closes the active delta at a position C that is returned: every record so far is below it, every later one is
    /// not. What is below C is all in the frozen deltas of the view once visible ≥ C.
    pub(crate) fn freeze(&self) -> Result<Lsn> {
        let end = {
            let mut state = self.state.lock();
            if let Some(refusal) = state.refusal.as_ref().filter(|refusal| refusal.is_lasting()) {
                return Err(refusal.error());
            }
            let (end, replay) = match &state.followed {
                Some(followed) => followed.applied(),
                None => {
                    let end = self.log.barrier()?;
                    state.pending.push_back(Arc::new(Pending::freeze(end)));
                    (end, end)
                }
            };
            state.frozen = (end, replay);
            #[cfg(seawall_shuttle)]
            if errs(Misorder::SwapUnlocked) {
                drop(state);
                state = self.state.lock();
            }
            if state.reserved > 0 {
                let frozen = std::mem::take(&mut state.active);
                frozen.freeze(end);
                if state.errs(Mutation::ReadUncleared) {
                    frozen.forget_clears();
                }
                state.older.insert(0, Arc::clone(&frozen));
                state.reserved = 0;
                self.reads.froze(frozen, Arc::clone(&state.active));
            }
            end
        };
        self.advance();
        Ok(end)
    }

    /// Where redo begins of what comes behind the last freeze, which was at `end`.
    pub(crate) fn replay_from(&self, end: Lsn) -> Lsn {
        let (frozen, replay) = self.state.lock().frozen;
        if frozen == end { replay } else { end }
    }

    /// The tree now holds everything below `folded`. Deltas below stay for validation: see [`prune`](Self::prune).
    pub(crate) fn folded(&self, folded: Lsn, bytes_max: u64) {
        {
            let mut state = self.state.lock();
            state.folded = state.folded.max(folded);
        }
        self.prune(bytes_max);
    }

    /// Gives up folded deltas that no read-write transaction is older than the end of, and what is beyond `bytes_max`. A
    /// transaction that is older all the same (its snapshot had to give way, or there is no memory) gets `Conflict`.
    pub(crate) fn prune(&self, bytes_max: u64) {
        let oldest = self.reads.holders.oldest_read_write();
        // Dropping a delta of millions of rows takes a while: not under the lock.
        let mut given_up = Vec::new();
        {
            let mut state = self.state.lock();
            let (mut bytes, folded) = (0, state.folded);
            for delta in std::mem::take(&mut state.older) {
                let is_folded = delta.end() <= folded;
                let is_needed = !is_folded || oldest.is_some_and(|lsn| lsn < delta.end());
                bytes += if is_folded && is_needed { delta.bytes() } else { 0 };
                if is_needed && (!is_folded || bytes <= bytes_max) {
                    state.older.push(delta);
                    continue;
                }
                #[cfg(seawall_shuttle)]
                let raises = is_needed || !errs(Misorder::ForgetFloor);
                #[cfg(not(seawall_shuttle))]
                let raises = true;
                if raises {
                    state.floor = state.floor.max(delta.end());
                }
                given_up.push(delta);
            }
        }
        drop(given_up);
    }

    /// Moves visible over every pending commit that is ready, and tells who waits.
    pub(crate) fn advance(&self) {
        // The log's mark was moved, or a commit marked as applied, before this; what is looked at comes after.
        fence(Ordering::SeqCst);
        #[cfg(seawall_shuttle)]
        if errs(Misorder::AnnounceEarly) {
            self.announce();
        }
        #[cfg(seawall_shuttle)]
        let mut discarded = Vec::new();
        let (mut done, mut crowds) = (Vec::new(), 0_u32);
        let is_moved = {
            let mut state = self.state.lock();
            if state.refusal.as_ref().is_some_and(Refusal::is_lasting) {
                return;
            }
            let before = state.pending.len();
            while let Some(front) = state.pending.front() {
                if !front.is_applied() {
                    break;
                }
                let is_withdrawn = front.flags() & WITHDRAWN != 0;
                let is_awaited = front.place.as_ref().is_some_and(|place| !self.is_reached(place));
                if is_awaited && !is_withdrawn && !state.errs(Mutation::ShowUnreached) {
                    break;
                }
                let Some(front) = state.pending.pop_front() else { break };
                if !state.errs(Mutation::ForgetRecent) {
                    state.recent.note(&front);
                }
                #[cfg(seawall_shuttle)]
                if is_withdrawn && errs(Misorder::DiscardLate) {
                    discarded.push(front);
                    continue;
                }
                if is_withdrawn {
                    state.prepared.withdrawn(front.lsn(), self.reads.visible());
                    self.discard(&front);
                } else {
                    invariants::visible_moves(self.reads.visible(), front.end, &front);
                    self.reads.set_visible(front.end);
                    if front.place.is_some() {
                        self.shown.store(front.end.0, Ordering::SeqCst);
                    }
                }
                if front.waits_at_gate() {
                    crowds |= 1 << crowd_of(front.end);
                }
                if front.listener.is_wanted() {
                    done.push(front);
                }
            }
            state.pending.len() != before
        };
        #[cfg(seawall_shuttle)]
        discarded.iter().for_each(|pending| self.discard(pending));
        #[cfg(seawall_shuttle)]
        let is_moved = is_moved && !errs(Misorder::AnnounceEarly);
        if is_moved {
            self.wake(&self.all);
            let at_gate = self.at_gate.iter().enumerate();
            at_gate.filter(|(crowd, _)| crowds & 1 << crowd != 0).for_each(|(_, crowd)| self.wake(crowd));
        }
        for pending in done {
            pending.listener.tell(|| self.settled(&pending));
        }
    }

    fn discard(&self, pending: &Pending) {
        if let Some((delta, set)) = &pending.commit {
            delta.discard(set, pending.lsn());
            self.catalogue.withdrawn(set.created(), set.dropped());
        }
    }

    fn wake(&self, crowd: &Crowd) {
        // Pairs with `park_in`: a waiter counts itself before it looks, we look after the change.
        if crowd.waiting.load(Ordering::SeqCst) > 0 {
            crowd.word.fetch_add(1, Ordering::SeqCst);
            self.runtime.wake_all(&crowd.word);
        }
    }

    /// Whoever waits looks again.
    fn announce(&self) {
        self.wake(&self.all);
        self.at_gate.iter().for_each(|crowd| self.wake(crowd));
    }

    /// What became of a commit; none while that is open.
    pub(crate) fn settled(&self, pending: &Pending) -> Option<Result<Lsn>> {
        let flags = pending.flags();
        if flags & WITHDRAWN != 0 {
            Some(Err(Error::Conflict))
        } else if flags & LOST != 0 {
            Some(Err(Error::CommitUnknown { lsn: pending.lsn() }))
        } else if self.reads.visible() >= pending.end {
            Some(Ok(pending.lsn()))
        } else {
            (flags & EXPIRED != 0).then(|| Err(Error::CommitUnknown { lsn: pending.lsn() }))
        }
    }

    /// Waits until a commit is visible. None when the time is over.
    pub(crate) fn wait(&self, pending: &Pending, limit: Option<Duration>) -> Option<Result<Lsn>> {
        let deadline = limit.map(|limit| self.runtime.now().saturating_add(limit));
        if let Some(place) = pending.place.as_ref().filter(|place| !place.is_recovered())
            && self.settled(pending).is_none()
        {
            match self.log.wait_for(place, limit) {
                Ok(Outcome::TimedOut) => return self.settled(pending),
                Ok(Outcome::Reached) => {
                    // Almost always the log's leader has seen to it.
                    if let Some(result) = self.settled(pending) {
                        return Some(result);
                    }
                    self.advance();
                }
                Ok(Outcome::Withdrawn { from, to }) => self.withdraw(from, to),
                Err(error) => self.failed(error),
            }
        }
        self.wait_past_log(pending, deadline)
    }

    /// Waits until every commit that has its place by now is visible, or has failed. False if replicas are waited for, and
    /// that for too long.
    pub(crate) fn wait_for_pending(&self) -> bool {
        let last = {
            let state = self.state.lock();
            state.pending.iter().rev().find(|pending| pending.place.is_some()).map(Arc::clone)
        };
        // Whoever made it hears how it ended; who asks here tries again.
        let Some(last) = last else { return true };
        self.wait(&last, None).is_some_and(|ended| !is_in_doubt(&ended)) || self.check().is_err()
    }

    fn park<T>(&self, deadline: Option<Duration>, ready: impl Fn() -> Option<T>) -> Option<T> {
        self.park_in(&self.all, deadline, ready)
    }

    fn park_in<T>(
        &self,
        crowd: &Crowd,
        deadline: Option<Duration>,
        ready: impl Fn() -> Option<T>,
    ) -> Option<T> {
        if let Some(value) = ready() {
            return Some(value);
        }
        #[cfg(seawall_shuttle)]
        if errs(Misorder::CountLate) {
            return self.park_uncounted(crowd, deadline, ready);
        }
        crowd.waiting.fetch_add(1, Ordering::SeqCst);
        let value = loop {
            let seen = crowd.word.load(Ordering::SeqCst);
            if let Some(value) = ready() {
                break Some(value);
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(self.runtime.now()));
            if left.is_some_and(|left| left.is_zero()) {
                break None;
            }
            self.runtime.wait(&crowd.word, seen, left);
        };
        crowd.waiting.fetch_sub(1, Ordering::SeqCst);
        value
    }

    /// [`park_in`](Self::park_in) with a mistake.
    #[cfg(seawall_shuttle)]
    fn park_uncounted<T>(
        &self,
        crowd: &Crowd,
        deadline: Option<Duration>,
        ready: impl Fn() -> Option<T>,
    ) -> Option<T> {
        loop {
            let seen = crowd.word.load(Ordering::SeqCst);
            if let Some(value) = ready() {
                return Some(value);
            }
            crowd.waiting.fetch_add(1, Ordering::SeqCst);
            let left = deadline.map(|deadline| deadline.saturating_sub(self.runtime.now()));
            self.runtime.wait(&crowd.word, seen, left);
            crowd.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Nobody waits for the commit: the log sees to its being written, and says so.
    pub(crate) fn notify(&self, pending: &Pending) {
        let Some(place) = &pending.place else { return };
        fence(Ordering::SeqCst);
        if self.log.is_reached(place) {
            self.advance();
        } else {
            self.log.drive(place);
        }
    }

    pub(super) fn heard(&self, news: News) {
        match news {
            News::Moved => self.advance(),
            News::Withdrawn { from, to } => self.withdraw(from, to),
            News::Failed => self.failed(Error::CommitUnknown { lsn: self.reads.visible() }),
        }
    }

    /// Commits and freezes that are not visible yet, and not lost.
    #[cfg(seawall_shuttle)]
    pub(crate) fn open_pending(&self) -> Vec<Arc<Pending>> {
        let state = self.state.lock();
        if matches!(state.refusal, Some(Refusal::Poisoned(_))) {
            Vec::new()
        } else {
            state.pending.iter().cloned().collect()
        }
    }

    /// No more commits. Those that have their place go on.
    pub(crate) fn close(&self) {
        self.state.lock().refusal.get_or_insert(Refusal::Closed);
        self.is_refusing.store(true, Ordering::Release);
        // A checkpoint that waits for replicas gives up.
        self.announce();
    }
}

/// No row goes into a keyspace that is gone, or that was never made.
fn check_lives(set: &WriteSet, touched: &[Arc<Life>]) -> Result<()> {
    for life in touched {
        if !life.is_writable() && !set.created().contains(&life.id()) {
            return Err(life.missing());
        }
    }
    Ok(())
}

mod failing;
mod prepared;
mod replica;
#[cfg(test)]
mod tests;
mod waiting;

pub(crate) use replica::{Followed, ShippedPlace};
use waiting::is_in_doubt;

pub(crate) use prepared::Role;
