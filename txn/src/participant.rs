//! The seam to whoever holds branches: XA's verbs, each handed over and answered later, so that many can be on their way to
//! one flush without a thread for each.

use crate::error::{Error, Result};
use crate::id::TxnId;
use crate::message::Decision;
use crate::record::{Entry, Record};
use seawall_engine::HeldTickets;

/// What becomes of a verb, or of records.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// Done, and on the device, with all that is marked up to this.
    Durable(u64),
    /// Done and visible, and on the device once something that is marked as high, or higher, is.
    Written(u64),
    /// To `prepare`: nothing was written, the branch is over.
    ReadOnly,
    /// It was not done, and will not be.
    Refused(Error),
    /// A person has ended the branch, in this way.
    Heuristic(Decision),
    /// It cannot be reached now, and whether it was done is not known; no more will come of this call. To `prepare`: the branch
    /// may be prepared, now or later, and is then found by [`recover_later`](Participant::recover_later). To `commit` and
    /// `rollback` of a prepared branch: they are asked for again until they are answered otherwise. No answer to anything else.
    Away(Error),
    /// Whether it was done is not known: the node has failed, and must be attached again.
    Lost(Error),
}

/// Takes the answer, once, from any thread. It does not block. Dropped without one, that is [`Answer::Lost`].
pub type Reply = Box<dyn FnOnce(Answer) + Send>;

/// Takes what [`Participant::recover_later`] has found, once, from any thread. It does not block.
pub type Found = Box<dyn FnOnce(Result<Vec<(TxnId, Entry)>>) + Send>;

/// Who holds branches of transactions: [`Store`](crate::Store) is one; a foreign database can be another.
///
/// Verbs are handed over in order and answered in any; none of them may block for long, nor panic. Asking for the same once
/// more must do no harm.
///
/// A participant of something else, here a counter in memory that forgets everything in a crash:
///
/// ```
/// use parking_lot::Mutex;
/// use seawall_txn::{Answer, Entry, Participant, Record, Reply, Result, TxnId};
/// use std::collections::BTreeMap;
///
/// #[derive(Default)]
/// struct Counter {
///     value: Mutex<i64>,
///     open: Mutex<BTreeMap<TxnId, i64>>,
///     prepared: Mutex<BTreeMap<TxnId, i64>>,
/// }
///
/// impl Participant for Counter {
///     fn prepare(&self, txn: TxnId, _record: &Record, reply: Reply) {
///         let Some(add) = self.open.lock().remove(&txn) else {
///             return reply(Answer::Refused(seawall_txn::Error::BadInput("no such branch".into())));
///         };
///         self.prepared.lock().insert(txn, add);
///         reply(Answer::Durable(0)); // a database answers from the thread that has seen its flush
///     }
///     fn commit(&self, txn: TxnId, _forced: bool, reply: Reply) {
///         if let Some(add) = self.prepared.lock().remove(&txn) {
///             *self.value.lock() += add;
///         }
///         reply(Answer::Durable(0));
///     }
///     fn rollback(&self, txn: TxnId, reply: Reply) {
///         self.prepared.lock().remove(&txn);
///         reply(Answer::Durable(0));
///     }
///     fn commit_one_phase(&self, txn: TxnId, record: &Record, reply: Reply) {
///         if let Some(add) = self.open.lock().remove(&txn) {
///             *self.value.lock() += add;
///         }
///         reply(Answer::Durable(0));
///     }
///     fn abandon(&self, txn: TxnId) {
///         self.open.lock().remove(&txn);
///     }
///     fn recover(&self) -> Result<Vec<(TxnId, Entry)>> {
///         Ok(Vec::new())
///     }
/// }
/// # let counter = Counter::default();
/// # assert!(counter.recover()?.is_empty() && *counter.value.lock() == 0);
/// # Ok::<(), seawall_txn::Error>(())
/// ```
pub trait Participant: Send + Sync {
    /// XA's prepare: the branch can be committed and rolled back from here on, whatever happens. The record says how it will
    /// end and who else is in it; to be given back by [`recover`](Participant::recover), as far as there is room. Answered by
    /// `Durable`, `ReadOnly`, `Refused`, `Lost`.
    fn prepare(&self, txn: TxnId, record: &Record, reply: Reply);

    /// Commits a prepared branch: visible when it is answered. Not `forced`, a crash may take it back into doubt before
    /// something later is durable.
    fn commit(&self, txn: TxnId, forced: bool, reply: Reply);

    /// Rolls a prepared branch back. Never forced.
    fn rollback(&self, txn: TxnId, reply: Reply);

    /// Commits a branch that was not prepared: it is the only one. Where there is room for it, the record is kept by the same
    /// write until [`forget`](Participant::forget), so that the coordinator can be told after a crash.
    fn commit_one_phase(&self, txn: TxnId, record: &Record, reply: Reply);

    /// Commits a branch that was not prepared together with the coordinator's decision, in one write, if both are kept in the
    /// same place.
    fn commit_merged(&self, txn: TxnId, record: &Record, reply: Reply) {
        let _ = (txn, record);
        reply(Answer::Refused(Error::BadInput("this participant keeps no decisions".into())));
    }

    /// Whether [`commit_merged`](Participant::commit_merged) is there.
    fn can_merge(&self) -> bool {
        false
    }

    /// While what this gives back lives, verbs come that are to share a flush.
    fn hold(&self) -> Option<HeldTickets> {
        None
    }

    /// Drops a branch that was not prepared.
    fn abandon(&self, txn: TxnId);

    /// A person ends a prepared branch. Forced, and kept until [`forget`](Participant::forget).
    fn complete(&self, txn: TxnId, decision: Decision, reply: Reply) {
        let _ = (txn, decision);
        reply(Answer::Refused(Error::BadInput("this participant knows no heuristic outcomes".into())));
    }

    /// What was kept for the coordinator, or a person, is not needed any more.
    fn forget(&self, txn: TxnId) {
        let _ = txn;
    }

    /// Makes durable what was written. Answered by `Durable`.
    fn flush(&self, reply: Reply) {
        reply(Answer::Durable(u64::MAX));
    }

    /// XA's recover: branches that are prepared, or that a person has ended, by transaction: what a crash has left, and what is
    /// there now.
    ///
    /// # Errors
    /// What reading meets. A branch that cannot be read is an error, never left out.
    fn recover(&self) -> Result<Vec<(TxnId, Entry)>>;

    /// As [`recover`](Participant::recover), answered later: asked for every [`SWEEP_US`](crate::SWEEP_US). Who has to ask
    /// somebody else must not do so here. A branch that has ended, and was said to have, may not be among what is found.
    /// [`Error::Unreachable`] leaves everything as it is until the next time.
    fn recover_later(&self, found: Found) {
        found(self.recover());
    }
}
