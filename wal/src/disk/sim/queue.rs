//! Queues of a simulated disk: the seed chooses when each operation begins, and when it completes.
//!
//! ```text
//! submit ─► waiting ─────► begun ─────► completed
//!              │ not yet     │ pending     │ as promised
//!              ▼             ▼             ▼
//!  crash:   nothing     all, torn, none   all
//! ```
//!
//! With a runtime an operation that has begun takes its time, beside the others, and the earliest ends first;
//! without one the next to go a step further is drawn.

use super::Shared;
use super::fault::{self, Call, Verdict};
use super::file::SimFile;
use super::state::{State, no_power};
use crate::buf::AlignedBuf;
use crate::disk::queue::{execute, too_long};
use crate::disk::{Completion, DiskFile, Op, Queue};
use crate::runtime::{Runtime, SimRuntime, absorb};
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

/// A queue of a simulated disk.
pub(super) struct SimQueue {
    shared: Arc<Shared>,
    depth: usize,
    next_token: u64,
    /// In the order of their tokens.
    flying: Vec<Flying>,
    /// Who submitted what is in flight.
    thread: Option<ThreadId>,
}

struct Flying {
    token: u64,
    stage: Stage,
}

enum Stage {
    Waiting(Op),
    Begun(Begun),
    /// Of another disk, and completed by its own methods.
    Done(Completion),
    /// Never to be seen: while it goes from one stage to the next.
    Moving,
}

/// An operation on its way.
struct Begun {
    file: Arc<SimFile>,
    /// With a runtime: when it ends.
    due: Duration,
    /// What is left to be done at its end.
    end: End,
    buf: Option<AlignedBuf>,
    result: io::Result<usize>,
    from_device: bool,
}

enum End {
    Nothing,
    WriteDurable { id: u64, end: u64 },
    Sync { upto: u64 },
}

impl SimQueue {
    pub(super) fn new(shared: Arc<Shared>, depth: usize) -> SimQueue {
        SimQueue { shared, depth: depth.max(1), next_token: 0, flying: Vec::new(), thread: None }
    }

    fn runtime(&self) -> Option<Arc<SimRuntime>> {
        self.shared.runtime.clone()
    }

    /// A switch point, and the rule on threads.
    fn enter(&mut self) -> io::Result<()> {
        if let Some(runtime) = &self.shared.runtime {
            runtime.yield_point();
        }
        let me = std::thread::current().id();
        if !self.flying.is_empty() && self.thread.is_some_and(|thread| thread != me) {
            let what = "operations in flight are reaped by the thread that submitted them";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.thread = Some(me);
        Ok(())
    }

    fn roll(&self, n: u64) -> u64 {
        self.shared.state.lock().rng.below(n)
    }

    fn has_room(&self) -> bool {
        let begun = self.flying.iter().filter(|flying| matches!(flying.stage, Stage::Begun(_)));
        begun.count() < self.depth
    }

    fn is_waiting(&self, index: usize) -> bool {
        self.flying.get(index).is_some_and(|flying| matches!(flying.stage, Stage::Waiting(_)))
    }

    /// Lets each waiting operation begin with a chance of a half; in no order, therefore.
    fn begin_some(&mut self) {
        for index in 0..self.flying.len() {
            if self.is_waiting(index) && self.roll(2) == 0 && self.has_room() {
                self.begin(index);
            }
        }
    }

    fn begin(&mut self, index: usize) {
        let now = self.shared.runtime.as_ref().map_or(Duration::ZERO, |runtime| runtime.now());
        let Some(flying) = self.flying.get_mut(index) else { return };
        let stage = std::mem::replace(&mut flying.stage, Stage::Moving);
        let Stage::Waiting(op) = stage else {
            flying.stage = stage;
            return;
        };
        let mut state = self.shared.state.lock();
        state.in_flight += 1;
        flying.stage = match sim_file(&op) {
            Some(file) => Stage::Begun(begin(&mut state, file, op, now)),
            // Checked when it was submitted.
            None => Stage::Waiting(op),
        };
    }

    /// Ends an operation that has begun.
    fn complete(&mut self, index: usize) -> Completion {
        let earlier = self.flying.get(..index).is_some_and(|earlier| !earlier.is_empty());
        let Flying { token, stage } = self.flying.remove(index);
        let begun = match stage {
            Stage::Begun(begun) => begun,
            Stage::Done(completion) => return completion,
            Stage::Waiting(_) | Stage::Moving => {
                return Completion { token, result: Err(no_power()), buf: None, from_device: false };
            }
        };
        let Begun { file, end, buf, mut result, from_device, .. } = begun;
        let mut state = self.shared.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        if !state.has_power {
            result = Err(no_power());
        } else if result.is_ok() {
            let ended = match end {
                End::Nothing => Ok(()),
                End::WriteDurable { id, end } => file.write_durable_end(&mut state, id, end),
                End::Sync { upto } => file.sync_end(&mut state, upto),
            };
            result = ended.and(result);
        }
        if earlier && state.has_power {
            state.count("completed out of order");
        }
        state.hash = absorb(state.hash, token);
        // A file that goes away locks the state.
        drop(state);
        Completion { token, from_device: from_device && result.is_ok(), result, buf }
    }

    /// Without a runtime: draws operations, each of which goes one step further, until one is through.
    fn next_drawn(&mut self) -> Option<Completion> {
        while !self.flying.is_empty() {
            let index = self.roll(self.flying.len() as u64) as usize;
            if !self.is_waiting(index) {
                return Some(self.complete(index));
            }
            if self.has_room() {
                self.begin(index);
            }
        }
        None
    }

    /// With a runtime: the operation that ends first, once it has ended; or, if not to wait, one that has.
    fn next_due(&mut self, runtime: &SimRuntime, may_wait: bool) -> Option<Completion> {
        loop {
            self.begin_some();
            if let Some(first) = (0..self.flying.len()).find(|index| self.is_waiting(*index))
                && self.flying.iter().all(|flying| matches!(flying.stage, Stage::Waiting(_)))
            {
                self.begin(first);
            }
            let due = |(index, flying): (usize, &Flying)| match &flying.stage {
                Stage::Begun(begun) => Some((begun.due, index)),
                Stage::Done(_) => Some((Duration::ZERO, index)),
                _ => None,
            };
            let (due, index) = self.flying.iter().enumerate().filter_map(due).min()?;
            let now = runtime.now();
            if due <= now {
                return Some(self.complete(index));
            }
            if !may_wait {
                return None;
            }
            runtime.sleep(due - now);
        }
    }
}

/// The operation's first step.
fn begin(state: &mut State, file: Arc<SimFile>, op: Op, now: Duration) -> Begun {
    let (mut from_device, mut time, mut end) = (false, Duration::ZERO, End::Nothing);
    let (result, buf) = match op {
        Op::Write { offset, buf, len, durable, .. } => {
            let kind = if durable { fault::Op::WriteDurable } else { fault::Op::Write };
            let written = buf.get(..len).ok_or_else(too_long).and_then(|bytes| {
                file.check(offset, len as u64, true)?;
                step(state, file.call(kind, offset, len as u64), &mut time, |state, verdict| {
                    file.write_now(state, verdict, bytes, offset)
                })
            });
            if let (Ok(Some(id)), true) = (&written, durable) {
                end = End::WriteDurable { id: *id, end: offset + len as u64 };
            }
            (written.map(|_| len), Some(buf))
        }
        Op::Read { offset, mut buf, len, from_device: wanted, .. } => {
            let read = buf.get_mut(..len).ok_or_else(too_long).and_then(|bytes| {
                file.check(offset, len as u64, false)?;
                step(state, file.call(fault::Op::Read, offset, len as u64), &mut time, |state, verdict| {
                    file.read_now(state, verdict, bytes, offset, wanted)
                })
            });
            from_device = read.as_ref().is_ok_and(|(_, from_device)| *from_device);
            (read.map(|(read, _)| read), Some(buf))
        }
        Op::Sync { .. } => {
            let call = file.call(fault::Op::Sync, 0, u64::MAX);
            let begun = step(state, call, &mut time, |state, verdict| file.sync_begin(state, verdict));
            if let Ok(upto) = &begun {
                end = End::Sync { upto: *upto };
            }
            (begun.map(|_| 0), None)
        }
    };
    Begun { file, due: now + time, end, buf, result, from_device }
}

/// One call: its fate, its effect, how long it takes.
fn step<T>(
    state: &mut State,
    call: Call<'_>,
    time: &mut Duration,
    effect: impl FnOnce(&mut State, Verdict) -> io::Result<T>,
) -> io::Result<T> {
    let verdict;
    (verdict, *time) = state.begin(&call)?;
    let result = effect(state, verdict);
    state.note(&call, &result);
    result
}

/// The file as one of a simulated disk, if it is.
fn sim_file(op: &Op) -> Option<Arc<SimFile>> {
    let (Op::Write { file, .. } | Op::Read { file, .. } | Op::Sync { file }) = op;
    let file: Arc<dyn Any + Send + Sync> = Arc::<dyn DiskFile>::clone(file);
    file.downcast().ok()
}

impl Queue for SimQueue {
    fn submit(&mut self, ops: Vec<Op>) -> io::Result<u64> {
        self.enter()?;
        let first = self.next_token;
        for op in ops {
            let token = self.next_token;
            self.next_token += 1;
            let is_ours = sim_file(&op).is_some_and(|file| Arc::ptr_eq(&file.shared, &self.shared));
            let stage = match is_ours {
                true => Stage::Waiting(op),
                // Of another disk: done at once, by its own methods.
                false => Stage::Done(execute(token, op)),
            };
            self.flying.push(Flying { token, stage });
        }
        self.begin_some();
        Ok(first)
    }

    fn reap(&mut self, min: usize, out: &mut Vec<Completion>) -> io::Result<()> {
        self.enter()?;
        let min = min.min(self.flying.len());
        let runtime = self.runtime();
        for reaped in 0.. {
            let must = reaped < min;
            let next = match &runtime {
                Some(runtime) => self.next_due(runtime, must),
                // What has completed beyond that is anybody's guess.
                None if must || self.roll(4) == 0 => self.next_drawn(),
                None => None,
            };
            match next {
                Some(completion) => out.push(completion),
                None => break,
            }
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.flying.len()
    }
}

impl Drop for SimQueue {
    /// What has begun ends; of the rest, some has begun and ended too.
    fn drop(&mut self) {
        while let Some(index) = self.flying.len().checked_sub(1) {
            if self.is_waiting(index) && self.roll(2) == 0 {
                self.begin(index);
            }
            self.complete(index);
        }
    }
}

impl std::fmt::Debug for SimQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimQueue").field("in_flight", &self.flying.len()).finish_non_exhaustive()
    }
}
