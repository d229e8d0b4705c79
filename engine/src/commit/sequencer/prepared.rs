//! What the sequencer knows of prepared transactions: votes and outcomes as commits take their places, and who is asked what
//! others hold.

use super::{Sequencer, State};
use crate::commit::pending::Pending;
use crate::commit::prepared::branch::{Branch, Ending, Fate};
use crate::commit::prepared::table::Limits;
use crate::commit::validate::Seen;
use crate::cover::Span;
use crate::record::{Builder, WriteSet};
use crate::sync::Ordering;
use crate::{Error, Result, Xid};
use seawall_wal::Lsn;
use std::sync::Arc;
use std::time::Duration;

/// What a record is in the life of a prepared transaction.
#[derive(Clone, Copy)]
pub(crate) enum Role<'a> {
    /// Nothing: an ordinary commit, held against what was `seen`, or a blind one.
    Commit(Option<Seen<'a>>),
    /// Its vote, which is validated as its commit would be.
    Prepare(&'a Arc<Branch>, Seen<'a>, Limits),
    /// Its outcome, which nothing can keep from its place.
    Outcome(&'a Arc<Branch>, Ending),
}

impl<'a> Role<'a> {
    pub(super) fn seen(self) -> Option<Seen<'a>> {
        match self {
            Role::Commit(seen) => seen,
            Role::Prepare(_, seen, _) => Some(seen),
            Role::Outcome(..) => None,
        }
    }

    /// What is validated.
    pub(super) fn writes(self, record: &'a WriteSet) -> &'a WriteSet {
        match self {
            Role::Prepare(branch, ..) => &branch.set,
            _ => record,
        }
    }
}

impl Sequencer {
    pub(super) fn check_prepared(&self, state: &State, role: Role<'_>, set: &WriteSet) -> Result<()> {
        match role {
            Role::Commit(_) => state.prepared.check(set),
            Role::Prepare(branch, _, limits) => {
                state.prepared.check_new(branch, limits, self.reads.visible())
            }
            Role::Outcome(branch, Ending::Forget) if state.prepared.is_listed(branch) => Ok(()),
            Role::Outcome(branch, _) if state.prepared.is_open(branch) => Ok(()),
            Role::Outcome(..) => Err(Error::Conflict),
        }
    }

    pub(super) fn note_prepared(&self, state: &mut State, role: Role<'_>, pending: &Arc<Pending>) {
        match role {
            Role::Commit(_) => {}
            Role::Prepare(branch, ..) => {
                branch.place(pending.lsn(), pending.end());
                state.prepared.admit(branch, None);
            }
            Role::Outcome(branch, ending) => {
                state.prepared.close(branch, pending, ending, self.reads.visible());
            }
        }
    }

    /// One more is prepared.
    pub(crate) fn next_serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Found when the store was opened.
    pub(crate) fn restore(&self, branch: Arc<Branch>) {
        self.next_serial.fetch_max(branch.serial + 1, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.prepared.find(&branch.xid, Lsn::MAX).is_some() {
            // A promotion that failed had come so far.
            return;
        }
        if branch.is_completed() {
            state.prepared.list(&branch);
        } else {
            let mistake = state.mistake;
            state.prepared.admit(&branch, mistake);
        }
    }

    /// The prepared transaction of this name.
    pub(crate) fn branch(&self, xid: &Xid) -> Option<Arc<Branch>> {
        self.state.lock().prepared.find(xid, self.reads.visible())
    }

    /// Some prepared transactions, from a serial number on. Commits do not wait for this.
    pub(crate) fn branches(&self, from: u64, max: usize) -> Vec<Arc<Branch>> {
        self.roster.page(from, max, self.reads.visible())
    }

    /// How many are prepared, and the bytes of what they hold.
    pub(crate) fn prepared_size(&self) -> (u64, u64) {
        self.roster.size()
    }

    /// Who is prepared and will change a row of this.
    pub(crate) fn prepared_writer(&self, keyspace: u32, span: &Span) -> Option<Arc<Branch>> {
        self.state.lock().prepared.writer(keyspace, span)
    }

    /// `Conflict` if what was seen is not what it was, `PreparedConflict` if that hangs on an outcome.
    pub(crate) fn check_reads(&self, seen: Seen<'_>) -> Result<()> {
        let nothing = Builder::default().finish();
        self.check_unchanged(&nothing, seen)?;
        self.state.lock().prepared.check_reads(seen.reads)
    }

    /// Waits until a prepared transaction has its outcome. False when the time is over.
    pub(crate) fn wait_for_outcome(&self, branch: &Branch, limit: Duration) -> bool {
        let deadline = (limit != Duration::MAX).then(|| self.runtime.now().saturating_add(limit));
        let has_outcome = || {
            let pending = match &*branch.fate.lock() {
                Fate::Open => return None,
                Fate::Deciding(pending, _) => Arc::clone(pending),
                Fate::Done(..) => return Some(()),
            };
            self.settled(&pending).map(drop)
        };
        self.park(deadline, has_outcome).is_some()
    }
}
