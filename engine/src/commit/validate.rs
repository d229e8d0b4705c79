//! Snapshot isolation: the first committer wins.
//!
//! A transaction that read at S may not overwrite a row that another changed at or after S (Berenson et al., "A
//! Critique of ANSI SQL Isolation Levels", 1995). It is held against everything that has its place in the log,
//! visible or not: the deltas that can hold such a version, and the commits that are still being applied to one.
//!
//! A range that was cleared counts as a write of every row in it, on both sides. Adds commute: they conflict with
//! everything but adds. That is also what keeps a number a number: whoever adds has seen that the row holds one, or
//! none, and that nobody has set it since.

use crate::commit::sequencer::{Pending, State};
use crate::mutation::Mutation;
use crate::record::{Effect, WriteSet};
use crate::{Error, Result};
use seawall_wal::Lsn;

/// `Conflict` if a row of the write set was changed at or after `snapshot`. Under the sequencer's lock.
pub(crate) fn validate(state: &State, set: &WriteSet, snapshot: Lsn) -> Result<()> {
    if snapshot < state.floor {
        // What was folded between the snapshot and here is no longer known row by row.
        return Err(Error::Conflict);
    }
    let unapplied: Vec<&Pending> = state
        .pending
        .iter()
        .map(|pending| &**pending)
        .filter(|pending| !pending.is_applied() && pending.lsn() >= snapshot)
        .collect();
    let deltas = || std::iter::once(&state.active).chain(&state.older).filter(|d| d.end() > snapshot);
    let is_late = |lsn: Option<Lsn>| lsn.is_some_and(|lsn| lsn >= snapshot);
    for row in set.rows() {
        let (keyspace, key) = set.key_of(row);
        let is_changed = match row.effect() {
            Some(Effect::Add(_)) if state.mutation != Some(Mutation::AddsConflict) => {
                deltas().any(|delta| is_late(delta.newest_overwrite(keyspace, key)))
                    || unapplied.iter().any(|pending| pending.overwrites(keyspace, key))
            }
            _ if set.is_blind => false,
            _ => {
                deltas().any(|delta| is_late(delta.newest_lsn(keyspace, key)))
                    || unapplied.iter().any(|pending| pending.writes(keyspace, key))
            }
        };
        if is_changed {
            return Err(Error::Conflict);
        }
    }
    let overlooks = state.mutation == Some(Mutation::ClearUnvalidated);
    for (keyspace, span) in set.removed().iter().filter(|_| !set.is_blind && !overlooks) {
        let is_changed = deltas().any(|delta| delta.is_changed_in(*keyspace, span, snapshot))
            || unapplied.iter().any(|pending| pending.writes_in(*keyspace, span));
        if is_changed {
            return Err(Error::Conflict);
        }
    }
    Ok(())
}
