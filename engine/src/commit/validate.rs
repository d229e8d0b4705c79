//! May this transaction take its place? What it wrote, and what it read, must be as it was in its snapshot.
//!
//! *Snapshot isolation* (Berenson et al., "A Critique of ANSI SQL Isolation Levels", 1995): a transaction that read at S
//! may not overwrite a row that another changed at or after S; the first committer wins.
//!
//! *Serializable*, by backward validation (Kung and Robinson, "On Optimistic Methods for Concurrency Control", 1981):
//! beyond that, nothing that it *read* may have been changed at or after S, keys that were absent and the gaps between
//! the rows of a scan included. Then all its reads would come out the same at its place in the log, so the log's order
//! is a serial order of all that wrote. It is also the order in which they became visible, and who began after another
//! had returned has its snapshot behind it: strictly serializable.
//!
//! A range that was cleared counts as a write of every row in it, on both sides. Adds commute: they conflict with
//! everything but adds. That is also what keeps a number a number: whoever adds has seen that the row holds one, or
//! none, and that nobody has set it since.
//!
//! Who wrote nothing is not validated, and never loses. Its snapshot at S is the state after exactly the commits below S:
//! visible moves over the queue of pending commits from the front, so what is visible is always a prefix of the log's
//! order, never a choice from it. Such a reader stands in the serial order at S, between the last commit below and the
//! first above. (Under snapshot isolation among writers even a reader can see what no order explains: Fekete et al., "A
//! Read-Only Transaction Anomaly Under Snapshot Isolation", 2004. What it needs is two writers of which one read what
//! the other wrote; here one of them does not commit.)
//!
//! Both are held against everything that has its place in the log, visible or not: the deltas that can hold a version
//! that new, and the commits that are still being applied to one. That is done under the sequencer's lock, in one step
//! with taking the place, and must be quick there. A few rows are looked up one by one. More than that, and spans, are
//! looked through in two steps:
//!
//! ```text
//! lock      P := behind everything reserved · note the deltas and the unapplied commits · watch what comes from P on
//! unlocked  all that was read against those
//! lock      all that was read against the commits from P on, of which there are few · take the place
//! ```
//!
//! (If there are many by then, the second step is made again from a new P, a few times.) A commit that becomes visible
//! leaves the queue of pending ones; while somebody watches, [`Recent`] keeps it.

use crate::commit::pending::Pending;
use crate::commit::sequencer::{Sequencer, State};
use crate::cover::Span;
use crate::delta::Delta;
use crate::mutation::Mutation;
use crate::read::track::ReadSet;
use crate::record::{CATALOGUE, Effect, WriteSet};
use crate::{Error, Result};
use seawall_wal::Lsn;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a transaction has seen: must be unchanged when it commits, with the rows that it writes.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) snapshot: Lsn,
    pub(crate) reads: &'a ReadSet,
}

/// Commits with more rows in all are looked through before the lock is taken.
const ROWS_UNDER_LOCK_MAX: usize = if cfg!(any(test, seawall_shuttle)) { 2 } else { 1024 };
const ROUNDS_MAX: usize = 4;

/// `Conflict` if a row of the write set, or anything that was seen, was changed since the snapshot. Under the sequencer's
/// lock; `early` is what was done before it was taken.
pub(crate) fn validate(
    state: &State,
    set: &WriteSet,
    seen: Seen<'_>,
    early: Option<&Early<'_>>,
) -> Result<()> {
    check_floor(state, seen.snapshot)?;
    let unapplied: Vec<&Pending> = unapplied(state, seen.snapshot).map(|pending| &**pending).collect();
    let is_late = |lsn: Option<Lsn>| lsn.is_some_and(|lsn| lsn >= seen.snapshot);
    let is_changed = |keyspace: u32, key: &[u8]| {
        deltas(state, seen.snapshot).any(|delta| is_late(delta.newest_lsn(keyspace, key)))
            || unapplied.iter().any(|pending| pending.set().is_some_and(|set| set.contains(keyspace, key)))
    };
    let is_overwritten = |keyspace: u32, key: &[u8]| {
        deltas(state, seen.snapshot).any(|delta| is_late(delta.newest_overwrite(keyspace, key)))
            || unapplied.iter().any(|pending| pending.set().is_some_and(|set| set.overwrites(keyspace, key)))
    };
    let is_changed_in = |keyspace: u32, span: &Span| {
        deltas(state, seen.snapshot).any(|delta| delta.is_changed_in(keyspace, span, seen.snapshot))
            || unapplied.iter().any(|pending| pending.set().is_some_and(|set| set.meets(keyspace, span)))
    };
    let adds_commute = !state.errs(Mutation::AddsConflict);
    let overlooks = set.is_blind || state.errs(Mutation::ClearUnvalidated);
    let is_lost =
        set.rows().iter().any(|row| {
            let (keyspace, key) = set.key_of(row);
            match row.effect() {
                Some(Effect::Add(_)) if adds_commute => is_overwritten(keyspace, key),
                _ => !set.is_blind && is_changed(keyspace, key),
            }
        }) || set.removed().iter().any(|(keyspace, span)| !overlooks && is_changed_in(*keyspace, span))
            || match early {
                Some(early) => since(state, early.from).any(|pending| meets(pending, seen.reads)),
                None => {
                    let is_open = |keyspace, key: &[u8]| !set.overwrites(keyspace, key) || overlooks;
                    let is_catalogue_as_it_was = state.catalogue_changed < seen.snapshot;
                    // What it writes as well was looked up above; and that its keyspaces are there is no look-up's worth.
                    seen.reads
                        .points()
                        .filter(|(keyspace, _)| *keyspace != CATALOGUE || !is_catalogue_as_it_was)
                        .any(|(keyspace, key)| is_open(keyspace, key) && is_changed(keyspace, key))
                }
            };
    if is_lost { Err(Error::Conflict) } else { Ok(()) }
}

/// What was folded between the snapshot and the floor is no longer known row by row.
fn check_floor(state: &State, snapshot: Lsn) -> Result<()> {
    let is_known = snapshot >= state.floor || state.errs(Mutation::IgnoreFloor);
    if is_known { Ok(()) } else { Err(Error::Conflict) }
}

fn deltas(state: &State, snapshot: Lsn) -> impl Iterator<Item = &Arc<Delta>> {
    std::iter::once(&state.active).chain(&state.older).filter(move |delta| delta.end() > snapshot)
}

fn unapplied(state: &State, snapshot: Lsn) -> impl Iterator<Item = &Arc<Pending>> {
    let counts = !state.errs(Mutation::SkipPending);
    let is_open = move |pending: &&Arc<Pending>| !pending.is_applied() && pending.lsn() >= snapshot;
    state.pending.iter().filter(move |_| counts).filter(is_open)
}

/// The commits from a watched position on, newest first.
fn since(state: &State, from: Lsn) -> impl Iterator<Item = &Arc<Pending>> {
    let all = state.recent.commits.iter().chain(&state.pending).rev();
    all.take_while(move |pending| pending.lsn() >= from)
}

fn meets(pending: &Pending, reads: &ReadSet) -> bool {
    pending.set().is_some_and(|set| reads.meets(set))
}

/// Commits that became visible while somebody validated, for as long as it does.
#[derive(Default)]
pub(crate) struct Recent {
    /// From where on, and how many watch from there.
    watched: BTreeMap<Lsn, usize>,
    commits: VecDeque<Arc<Pending>>,
}

impl Recent {
    fn enter(&mut self, from: Lsn) {
        *self.watched.entry(from).or_default() += 1;
    }

    fn leave(&mut self, from: Lsn) {
        if let Some(count) = self.watched.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.watched.remove(&from);
            }
        }
        let oldest = self.watched.first_key_value().map_or(Lsn::MAX, |(from, _)| *from);
        let gone = self.commits.partition_point(|pending| pending.lsn() < oldest);
        self.commits.drain(..gone);
    }

    /// A commit leaves the queue.
    pub(crate) fn note(&mut self, pending: &Arc<Pending>) {
        if !self.watched.is_empty() {
            self.commits.push_back(Arc::clone(pending));
        }
    }
}

/// What was read holds up to a position, and whatever comes from there on is kept for the rest of the validation.
pub(crate) struct Early<'a> {
    sequencer: &'a Sequencer,
    from: Lsn,
    is_over: bool,
}

impl Early<'_> {
    /// The place is taken.
    pub(crate) fn end(&mut self, state: &mut State) {
        state.recent.leave(self.from);
        self.is_over = true;
    }

    /// Watches from behind everything that is reserved now.
    fn move_on(&mut self, state: &mut State) {
        let from = self.sequencer.reserved_end(state);
        state.recent.enter(from);
        state.recent.leave(self.from);
        self.from = from;
    }
}

impl Drop for Early<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.sequencer.state().recent.leave(self.from);
        }
    }
}

/// The first steps of a validation of more than a few points, without the lock.
pub(crate) fn look_early<'a>(sequencer: &'a Sequencer, seen: Seen<'_>) -> Result<Early<'a>> {
    let (mut early, known, open) = {
        let mut state = sequencer.state();
        check_floor(&state, seen.snapshot)?;
        let known: Vec<Arc<Delta>> = deltas(&state, seen.snapshot).map(Arc::clone).collect();
        let open: Vec<Arc<Pending>> = unapplied(&state, seen.snapshot).map(Arc::clone).collect();
        let from = sequencer.reserved_end(&state);
        state.recent.enter(from);
        (Early { sequencer, from, is_over: false }, known, open)
    };
    let is_changed = |delta: &Arc<Delta>| {
        sequencer.switch_point();
        seen.reads.is_changed_in(delta, seen.snapshot)
    };
    if known.iter().any(is_changed) || open.iter().any(|pending| meets(pending, seen.reads)) {
        return Err(Error::Conflict);
    }
    drop((known, open));
    for _ in 0..ROUNDS_MAX {
        sequencer.switch_point();
        let new: Vec<Arc<Pending>> = {
            let mut state = sequencer.state();
            let rows = |pending: &Arc<Pending>| pending.set().map_or(0, |set| set.rows().len());
            if since(&state, early.from).map(rows).sum::<usize>() <= ROWS_UNDER_LOCK_MAX {
                break;
            }
            let new = since(&state, early.from).map(Arc::clone).collect();
            early.move_on(&mut state);
            new
        };
        if new.iter().any(|pending| meets(pending, seen.reads)) {
            return Err(Error::Conflict);
        }
    }
    Ok(early)
}
