//! Who carries out verbs: threads that take tasks, and one that answers for those that take too long.
//!
//! ```text
//! Prepare ──► done: Durable, ReadOnly, Refused
//!    │ the session is gone
//!    └──► Find: end the session's process, wait until it is gone, look ──► Durable, Refused
//! Finish  ──► done: Durable          │ no such transaction: how did it end?
//!    │ the session is gone           └──► Durable, Heuristic
//!    └──► again, by another session
//! ```
//!
//! A task that cannot be done now comes again, with back-off; after [`Limits::answer`](super::Limits::answer) it is answered
//! [`Answer::Away`], and what still comes of it changes nothing. The commit of an only branch is never given up: it is asked
//! for once.

use super::error::{SqlError, SqlErrorKind};
use super::session::{Backend, Ending, Session};
use super::{Prepared, Shared, State};
use crate::error::Error;
use crate::id::TxnId;
use crate::message::Decision;
use crate::participant::{Answer, Found, Reply};
use ::postgres::error::SqlState;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const BACK_OFF_MIN: Duration = Duration::from_millis(5);
const BACK_OFF_DOUBLINGS_MAX: u32 = 8;

/// What there is to do.
pub(super) enum Task {
    /// Prepare a branch; `only` is the commit of a transaction's only one, which goes on to commit it.
    Prepare { session: Session, gid: String, only: bool },
    /// Whether a branch was prepared by a session that is lost.
    Find { lost: Backend, error: SqlError, only: bool },
    /// End what is prepared.
    Finish { decision: Decision, only: bool },
    /// Roll a branch back that nobody was asked to prepare.
    Abandon(Session),
    /// What is prepared.
    List(Found),
}

/// A task, of which transaction, and whose question it answers.
pub(super) struct Job {
    task: Task,
    txn: TxnId,
    asked: u64,
    attempt: u32,
}

/// A verb that is not answered yet.
pub(super) struct Asked {
    reply: Reply,
    give_up: Duration,
    is_prepare: bool,
    txn: TxnId,
    /// What was met last.
    met: Option<SqlError>,
}

enum Step {
    Answer(Answer),
    /// Go on with this, now.
    Next(Task),
    /// Again with this, later.
    Again(Task, SqlError),
    Nothing,
}

impl Shared {
    /// A verb is handed over. `is_given_up`: after a while it is answered anyhow.
    pub(super) fn ask(self: &Arc<Self>, txn: TxnId, task: Task, is_given_up: bool, reply: Reply) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        state.numbered += 1;
        let asked = state.numbered;
        let wakes_keeper = std::mem::replace(&mut state.keeper_sleeps, false);
        let now = self.runtime.now();
        let give_up = if is_given_up { now.saturating_add(self.limits.answer) } else { Duration::MAX };
        let is_prepare = matches!(task, Task::Prepare { .. });
        state.asked.insert(asked, Asked { reply, give_up, is_prepare, txn, met: None });
        self.push(state, Job { task, txn, asked, attempt: 0 }, now);
        if wakes_keeper {
            self.keeper.fetch_add(1, Ordering::SeqCst);
            self.runtime.wake_all(&self.keeper);
        }
    }

    /// A task that answers nothing.
    pub(super) fn hand_over(self: &Arc<Self>, txn: TxnId, task: Task) {
        let state = self.state.lock();
        if !state.is_closed {
            self.push(state, Job { task, txn, asked: 0, attempt: 0 }, self.runtime.now());
        }
    }

    fn push(self: &Arc<Self>, mut state: parking_lot::MutexGuard<'_, State>, job: Job, due: Duration) {
        state.numbered += 1;
        let place = (due, state.numbered);
        state.jobs.insert(place, job);
        let is_new = state.jobs.len() > state.idle_workers && state.workers < self.limits.workers;
        if is_new {
            state.workers += 1;
        }
        drop(state);
        if is_new {
            let shared = Arc::clone(self);
            if self.runtime.spawn("seawall-postgres", Box::new(move || shared.work())).is_err() {
                // Those that are there do it, or the keeper answers.
                self.state.lock().workers -= 1;
            }
        }
        self.bell.fetch_add(1, Ordering::SeqCst);
        self.runtime.wake_one(&self.bell);
    }

    /// A thread.
    fn work(self: &Arc<Self>) {
        loop {
            let seen = self.bell.load(Ordering::SeqCst);
            let mut state = self.state.lock();
            if state.is_closed {
                return;
            }
            let now = self.runtime.now();
            let first = state.jobs.first_entry().filter(|first| first.key().0 <= now);
            if let Some(first) = first {
                let job = first.remove();
                drop(state);
                self.carry_out(job);
                continue;
            }
            let limit = state.jobs.first_key_value().map(|((due, _), _)| due.saturating_sub(now));
            state.idle_workers += 1;
            drop(state);
            self.runtime.wait(&self.bell, seen, limit);
            self.state.lock().idle_workers -= 1;
        }
    }

    /// The thread that answers for tasks that take too long, stuck ones among them.
    pub(super) fn keep(self: &Arc<Self>) {
        loop {
            let seen = self.keeper.load(Ordering::SeqCst);
            let now = self.runtime.now();
            let mut late = Vec::new();
            let mut state = self.state.lock();
            if state.is_closed {
                return;
            }
            while let Some(number) =
                state.asked.iter().find(|(_, asked)| asked.give_up <= now).map(|(&number, _)| number)
            {
                let Some(asked) = state.asked.remove(&number) else { break };
                if asked.is_prepare {
                    // If it is prepared after all, it is found.
                    state.prepared.remove(&asked.txn);
                }
                late.push(asked);
            }
            let next = state.asked.values().map(|asked| asked.give_up).min();
            let next = next.filter(|next| *next != Duration::MAX);
            let is_late = !late.is_empty();
            state.keeper_sleeps = next.is_none() && !is_late;
            drop(state);
            for Asked { reply, met, .. } in late {
                let met = met.unwrap_or_else(|| SqlError::new(SqlErrorKind::Lost, "no answer in time"));
                reply(Answer::Away(self.unreachable(met)));
            }
            if !is_late {
                self.runtime.wait(&self.keeper, seen, next.map(|next| next.saturating_sub(now)));
            }
        }
    }

    fn carry_out(self: &Arc<Self>, job: Job) {
        let Job { mut task, txn, asked, attempt } = job;
        loop {
            match self.step(txn, asked, task) {
                Step::Next(next) => task = next,
                Step::Answer(answer) => return self.answer(asked, answer),
                Step::Again(task, error) => {
                    let mut state = self.state.lock();
                    // Given up: whoever needs it asks again.
                    let Some(question) = state.asked.get_mut(&asked) else { return };
                    question.met = Some(error);
                    if state.is_closed {
                        return;
                    }
                    let attempt_next = (attempt + 1).min(BACK_OFF_DOUBLINGS_MAX);
                    let half = BACK_OFF_MIN * (1 << attempt) / 2;
                    let more = self.runtime.random() % (half.as_micros() as u64).max(1);
                    let due = self.runtime.now() + half + Duration::from_micros(more);
                    return self.push(state, Job { task, txn, asked, attempt: attempt_next }, due);
                }
                Step::Nothing => return,
            }
        }
    }

    fn answer(&self, asked: u64, answer: Answer) {
        let mut state = self.state.lock();
        let question = state.asked.remove(&asked);
        drop(state);
        if let Some(question) = question {
            (question.reply)(answer);
        }
    }

    fn step(self: &Arc<Self>, txn: TxnId, asked: u64, task: Task) -> Step {
        match task {
            Task::Prepare { session, gid, only } => self.prepare((txn, asked), session, gid, only),
            Task::Find { lost, error, only } => self.find(txn, lost, error, only),
            Task::Finish { decision, only } => self.finish(txn, decision, only),
            Task::Abandon(session) => {
                self.give_back_used(session);
                Step::Nothing
            }
            Task::List(found) => {
                found(self.list());
                Step::Nothing
            }
        }
    }

    fn prepare(
        self: &Arc<Self>,
        (txn, asked): (TxnId, u64),
        mut session: Session,
        gid: String,
        only: bool,
    ) -> Step {
        let refused = |error: SqlError| {
            self.state.lock().prepared.remove(&txn);
            Step::Answer(Answer::Refused(error.into_error(self.node)))
        };
        let xid = match session.check(txn) {
            Ok(Some(xid)) => xid,
            Ok(None) => {
                let ended = session.end_reading();
                self.give_back_used(session);
                let read = if only { Answer::Durable(0) } else { Answer::ReadOnly };
                return ended.map_or_else(refused, |()| Step::Answer(read));
            }
            // It was not asked to prepare yet.
            Err(error) => {
                self.give_back_used(session);
                return refused(error);
            }
        };
        {
            let mut state = self.state.lock();
            if !state.asked.contains_key(&asked) {
                // Given up, and nobody has a use for it any more.
                drop(state);
                self.give_back_used(session);
                return Step::Nothing;
            }
            state.prepared.insert(txn, Prepared { gid: gid.clone(), xid });
        }
        let prepared = session.prepare(&gid);
        let (lost, is_lost) = (session.backend, session.is_lost);
        let looked = match &prepared {
            // The server's word can have crossed with its cancelling something that was done already.
            Err(_) if !is_lost => session.has(&gid).ok(),
            _ => None,
        };
        if session.is_lost {
            self.forget_idle();
        }
        self.hand_over(txn, Task::Abandon(session));
        match (prepared, looked) {
            (Ok(()), _) | (Err(_), Some(true)) => self.prepared(only),
            (Err(error), Some(false)) => refused(error),
            (Err(error), None) => Step::Next(Task::Find { lost, error, only }),
        }
    }

    fn prepared(&self, only: bool) -> Step {
        if only {
            return Step::Next(Task::Finish { decision: Decision::Commit, only });
        }
        Step::Answer(Answer::Durable(0))
    }

    fn find(&self, txn: TxnId, lost: Backend, error: SqlError, only: bool) -> Step {
        let prepared = self.state.lock().prepared.get(&txn).map(|prepared| prepared.gid.clone());
        // Given up, and taken from the list.
        let Some(gid) = prepared else { return Step::Nothing };
        let looked = self.with_session(|session| {
            // Until it is gone it may still prepare.
            if !session.is_gone(lost)? {
                return Err(SqlError::new(SqlErrorKind::Lost, "the lost session's process still runs"));
            }
            session.has(&gid)
        });
        match looked {
            Ok(true) => self.prepared(only),
            Ok(false) => {
                self.state.lock().prepared.remove(&txn);
                Step::Answer(Answer::Refused(error.into_error(self.node)))
            }
            Err(met) => Step::Again(Task::Find { lost, error, only }, met),
        }
    }

    fn finish(&self, txn: TxnId, decision: Decision, only: bool) -> Step {
        let prepared = self.state.lock().prepared.get(&txn).cloned();
        let Some(Prepared { gid, xid }) = prepared else {
            // By an earlier call that was given up.
            return Step::Answer(Answer::Durable(0));
        };
        let is_absent = |error: &SqlError| error.code() == Some(SqlState::UNDEFINED_OBJECT.code());
        let ended = self.with_session(|session| match session.finish(&gid, decision) {
            Ok(()) => Ok(Ending::Known(decision)),
            // By an earlier call whose answer was lost; or a person has done it.
            Err(error) if is_absent(&error) => session.ending(xid),
            Err(error) => Err(error),
        });
        match ended {
            Ok(Ending::Known(done)) => {
                self.over(txn, (done != decision && !only).then_some(done));
                Step::Answer(match done {
                    _ if done == decision => Answer::Durable(0),
                    _ if only => Answer::Refused(Error::Foreign(Box::new(SqlError::new(
                        SqlErrorKind::Other,
                        "the prepared transaction was rolled back by somebody else",
                    )))),
                    _ => Answer::Heuristic(done),
                })
            }
            Ok(Ending::Forgotten) => {
                self.over(txn, None);
                Step::Answer(Answer::Durable(0))
            }
            Ok(Ending::InProgress) => {
                let busy = SqlError::new(SqlErrorKind::Other, "another session is ending the transaction");
                Step::Again(Task::Finish { decision, only }, busy)
            }
            Err(error) => Step::Again(Task::Finish { decision, only }, error),
        }
    }

    /// It has ended: it is not found from here on, not even by who is looking right now.
    fn over(&self, txn: TxnId, by_hand: Option<Decision>) {
        let mut state = self.state.lock();
        state.prepared.remove(&txn);
        if state.listings > 0 {
            state.over_meanwhile.insert(txn);
        }
        if let Some(done) = by_hand {
            state.by_hand.insert(txn, done);
        }
    }
}
