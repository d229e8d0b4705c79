//! One store's part of a transaction, from its vote to its end.

use crate::commit::locks::Held;
use crate::commit::pending::Pending;
use crate::read::track::ReadSet;
use crate::record::{CATALOGUE, Completion, PreparedRow, WriteSet};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::{Lsn, Xid};
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

/// How a prepared transaction can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Commit,
    Rollback,
    Forget,
    Heuristic(Heuristic),
}

/// How an operator ended a prepared transaction whose coordinator gave no outcome: XA's heuristic outcomes.
///
/// ```
/// assert_eq!(seawall_engine::Heuristic::Mixed.to_string(), "mixed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heuristic {
    /// Its writes are committed: `XA_HEURCOM`.
    Committed,
    /// Its writes are gone: `XA_HEURRB`.
    RolledBack,
    /// Its writes are gone, and the operator has made a part of them good by other means: `XA_HEURMIX`.
    Mixed,
    /// Its writes are gone, and whether a part of them was made good is not known: `XA_HEURHAZ`.
    Hazard,
}

impl std::fmt::Display for Heuristic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Heuristic::Committed => "committed",
            Heuristic::RolledBack => "rolled back",
            Heuristic::Mixed => "mixed",
            Heuristic::Hazard => "hazard",
        })
    }
}

impl Ending {
    pub(crate) fn code(self) -> u8 {
        match self {
            Ending::Commit => 1,
            Ending::Rollback => 2,
            Ending::Forget => 3,
            Ending::Heuristic(Heuristic::Committed) => 4,
            Ending::Heuristic(Heuristic::RolledBack) => 5,
            Ending::Heuristic(Heuristic::Mixed) => 6,
            Ending::Heuristic(Heuristic::Hazard) => 7,
        }
    }

    pub(crate) fn of_code(code: u8) -> Option<Ending> {
        Some(match code {
            1 => Ending::Commit,
            2 => Ending::Rollback,
            3 => Ending::Forget,
            4 => Ending::Heuristic(Heuristic::Committed),
            5 => Ending::Heuristic(Heuristic::RolledBack),
            6 => Ending::Heuristic(Heuristic::Mixed),
            7 => Ending::Heuristic(Heuristic::Hazard),
            _ => return None,
        })
    }

    /// Whether the writes are made.
    pub(crate) fn applies(self) -> bool {
        matches!(self, Ending::Commit | Ending::Heuristic(Heuristic::Committed))
    }
}

/// What has become of a branch.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Open,
    /// The outcome has its place.
    Deciding(Arc<Pending>, Ending),
    Done(Lsn, Ending),
}

/// A prepared transaction, or one that an operator has ended and that is not forgotten.
pub(crate) struct Branch {
    pub(crate) xid: Xid,
    pub(crate) serial: u64,
    pub(crate) lsn: Lsn,
    pub(crate) time_us: u64,
    pub(crate) reads: ReadSet,
    pub(crate) set: WriteSet,
    /// Of its row.
    pub(crate) bytes: u64,
    /// An operator has ended it.
    is_completed: AtomicBool,
    pub(crate) fate: Mutex<Fate>,
    /// How an operator had ended it, once that is to be forgotten: handles that are still there go on to say it.
    pub(crate) forgotten: OnceLock<Heuristic>,
    /// Row locks, until the outcome.
    pub(crate) locks: Mutex<Option<Held>>,
    placed: AtomicU64,
    end: AtomicU64,
    pub(crate) has_been_told_of: AtomicBool,
    /// Its outcome may have been placed without being forced.
    pub(crate) is_lazy: AtomicBool,
}

impl Branch {
    pub(crate) fn new(xid: Xid, row: PreparedRow, bytes: u64) -> Branch {
        let PreparedRow { serial, lsn, time_us, reads, set, .. } = row;
        Branch {
            xid,
            serial,
            lsn: Lsn(lsn),
            time_us,
            reads,
            set,
            bytes,
            is_completed: AtomicBool::new(false),
            fate: Mutex::new(Fate::Open),
            forgotten: OnceLock::new(),
            locks: Mutex::new(None),
            placed: AtomicU64::new(0),
            end: AtomicU64::new(0),
            has_been_told_of: AtomicBool::new(false),
            is_lazy: AtomicBool::new(false),
        }
    }

    /// As an operator left it.
    pub(crate) fn completed(xid: Xid, completion: Completion, ending: Ending) -> Branch {
        let row = PreparedRow {
            serial: completion.serial,
            lsn: 0,
            time_us: completion.time_us,
            is_serializable: false,
            reads: ReadSet::default(),
            set: crate::record::Builder::default().finish(),
        };
        let branch = Branch::new(xid, row, 0);
        branch.complete(true);
        *branch.fate.lock() = Fate::Done(Lsn::ZERO, ending);
        branch
    }

    pub(crate) fn is_completed(&self) -> bool {
        self.is_completed.load(Ordering::SeqCst)
    }

    /// Under the sequencer's lock.
    pub(crate) fn complete(&self, yes: bool) {
        self.is_completed.store(yes, Ordering::SeqCst);
    }

    /// Its prepare has its place.
    pub(crate) fn place(&self, lsn: Lsn, end: Lsn) {
        self.placed.store(lsn.0, Ordering::SeqCst);
        self.end.store(end.0, Ordering::SeqCst);
    }

    /// Where its vote stands, if it was given in this life of the store.
    pub(crate) fn vote(&self) -> Option<Lsn> {
        (self.end.load(Ordering::SeqCst) != 0).then(|| self.placed_at())
    }

    pub(crate) fn placed_at(&self) -> Lsn {
        Lsn(self.placed.load(Ordering::SeqCst))
    }

    pub(crate) fn is_visible(&self, visible: Lsn) -> bool {
        self.end.load(Ordering::SeqCst) <= visible.0
    }

    /// The keyspaces that must be there when it commits, its own aside.
    pub(crate) fn keyspaces(&self) -> BTreeSet<u32> {
        let rows = self.set.rows().iter().map(|row| self.set.key_of(row).0);
        let all = rows.chain(self.set.removed().iter().map(|(keyspace, _)| *keyspace));
        all.filter(|id| *id != CATALOGUE && !self.set.created().contains(id)).collect()
    }
}

impl std::fmt::Debug for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Branch").field("xid", &self.xid).field("serial", &self.serial).finish_non_exhaustive()
    }
}
