//! Group commit: *the last arriver leads*. No I/O of its own; a [`Sink`] writes what it gathers.
//!
//! A committer takes a short lock, copies its record into the open batch, and, when it comes to wait, looks: if nothing
//! is in flight and as many wait as are expected (`gather::Gather`), it writes the batch itself, so a lone committer
//! never changes threads. Otherwise it sleeps on its batch's word. The first to sleep *tends* the batch: it sleeps with
//! a limit, and leads with what is there if nobody did before. Records that nobody waits for (tickets) are written by
//! the thread that *drives* the log, as soon as nothing is in flight.
//!
//! One write is in flight at a time. Its leader publishes the durable LSN, *then* tells the engine above, changes the
//! word of each batch written and wakes its sleepers, once: whoever looked at the mark before it slept is woken,
//! whoever looks later sees the mark. A leader that goes on with the next batch at once wakes one sleeper and leaves it
//! to that one to wake the others (*relay*), so that the device does not wait while threads are being woken. A waiter
//! that leaves early hands tending on.
//!
//! ```text
//!  idle --lead--> in flight --finish--> idle | in flight (leads again)
//!                     |--fail--> failed, for good
//!                     `--fail_for_room--> failed --resume--> idle
//! ```
//!
//! - **W6** Marks only grow: durable ≤ written ≤ reserved; durable and written only move to ends of whole records.
//! - **W7** A commit is acknowledged only when everything before it, and it itself, reached what each asked for.
//! - **W8** After a failed write nothing is acknowledged any more, and nothing is written; unless room was all that was
//!   missing, and what found none is written after all.
//! - **W10** A log is cut only while nothing is placed, gathered or in flight; what is placed behind a cut stands behind
//!   everything that was.

use crate::Lsn;
pub(crate) use crate::batch::Batch;
use crate::batch::{self, Piece};
use crate::buf::AlignedBuf;
use crate::callbacks::{Callback, Callbacks};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::follow::Followers;
use crate::frame::{self, Flags};
use crate::record::{self, Kind};
use crate::runtime::Runtime;
use crate::segment::Geometry;
use crate::stats::{Counters, add};
use crate::sync::{AtomicU64, Mutex, Ordering};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

mod cut;
mod end;
#[cfg(seawall_shuttle)]
pub(crate) mod explored;
mod gather;
mod lead;
mod room;
mod word;

use gather::Gather;
pub(crate) use word::Word;

/// Words that waiters sleep on, a batch's being its number modulo this.
const WORDS: usize = 64;
/// Bytes gathered and not yet written beyond which appenders wait.
const PENDING_BYTES_MAX: usize = 8 << 20;

/// What a sink has written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The end of the last whole record given to the system.
    pub(crate) end: Lsn,
    /// Whether all up to there is on the device.
    pub(crate) durable: bool,
}

/// Called by the thread that leads, after the marks were published; true if the log has failed. Must not block.
pub(crate) type OnMarks = Box<dyn Fn(bool) + Send + Sync>;

/// Who is told of every change of the marks.
#[derive(Default)]
struct Listener(OnceLock<OnMarks>);

impl Listener {
    fn tell(&self, has_failed: bool) {
        if let Some(listener) = self.0.get() {
            listener(has_failed);
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", self.0.get().is_some())
    }
}

/// Where batches go.
pub(crate) trait Sink: Send + Sync {
    /// Writes batches in order; makes them, and all written before, durable if asked. `claim` is what is durable
    /// now. Called by one thread at a time.
    fn write(&self, batches: &mut [Batch], durable: bool, claim: Lsn) -> Result<Written>;

    /// After a failed [`write`](Sink::write): where it may go on with the same frames, if nothing but room was missing.
    fn unwritten(&self) -> Option<Lsn> {
        None
    }
}

/// A place in the log's order, and what has to happen before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The record's first byte.
    pub lsn: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    need: Need,
    /// The batch that reaches what is needed: its own, or, for a record that asks for nothing, that of the last one
    /// before it that asked.
    seq: u64,
}

/// The marks that have to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    durable: Lsn,
    written: Lsn,
}

#[derive(Debug)]
struct State {
    open: Batch,
    sealed: VecDeque<Batch>,
    sealed_bytes: usize,
    in_flight: bool,
    gather: Gather,
    /// Ends of the last records that asked for each level: what later ones wait for.
    asked_synced: Lsn,
    asked_written: Lsn,
    /// The batch that the last of them stands in: who waits for less than its own batch must not tend that.
    asked_seq: u64,
    /// Somebody waits for this to be durable, whatever its records asked for.
    sync_wanted: Lsn,
    /// Files exist for positions before this.
    ready_end: Lsn,
    pool: Vec<AlignedBuf>,
    failure: Option<Arc<Error>>,
    /// The failure was a lack of room, and the frames that found none are the first of `sealed`.
    lacks_room: bool,
    /// Nothing new is taken.
    closed: bool,
    /// Nothing is published any more either.
    ended: bool,
    /// The log is about to be cut: whoever wants a place waits.
    paused: bool,
    time_us: u64,
}

#[derive(Debug)]
pub(crate) struct Committer<S> {
    pub(crate) sink: S,
    geometry: Geometry,
    runtime: Arc<dyn Runtime>,
    state: Mutex<State>,
    reserved: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    words: [Word; WORDS],
    /// Changes with every write that ends; slept on by those who wait for a mark or for room.
    progress: Word,
    callbacks: Callbacks,
    /// Told of every change of the marks, and of failure, before anybody is woken.
    listener: Listener,
    /// Told of every write after the marks, and of the end.
    pub(crate) followers: Followers,
    pub(crate) cuts: cut::Cuts,
    counters: Arc<Counters>,
    /// A test's deliberate mistake: failed writes are acknowledged.
    pub(crate) forgetful: bool,
    /// What the exploration of interleavings may get wrong on purpose, and what it counts.
    #[cfg(seawall_shuttle)]
    pub(crate) explored: explored::Explored,
}

/// What stands between a record and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Ready,
    /// Files have to exist for the positions before this.
    NeedsFiles(Lsn),
    /// So much is gathered that a write has to end first.
    Crowded,
}

enum Step {
    Done,
    Lead,
    /// Sleep; true if the caller now tends the batch.
    Sleep(Option<Duration>, bool),
}

/// One who waits: with which batch, and how.
struct Waiter {
    seq: u64,
    /// Looks after the batch: sleeps with a limit, and leads if nobody else did.
    tends: bool,
    /// Stands for those who hold tickets: it is not counted, and gathers nobody.
    drives: bool,
    /// Has been counted among those who wait for the batch.
    is_counted: bool,
}

impl<S: Sink> Committer<S> {
    /// A committer whose next frame stands at `base`, with everything before `durable` on the device.
    pub(crate) fn new(
        sink: S,
        geometry: Geometry,
        runtime: &Arc<dyn Runtime>,
        counters: &Arc<Counters>,
        base: Lsn,
        durable: Lsn,
        time_us: u64,
    ) -> Result<Committer<S>> {
        let buf = new_buf(geometry)?;
        Ok(Committer {
            sink,
            geometry,
            runtime: runtime.clone(),
            state: Mutex::new(State {
                open: Batch::new(0, base, buf, geometry),
                sealed: VecDeque::new(),
                sealed_bytes: 0,
                in_flight: false,
                gather: Gather::default(),
                asked_synced: Lsn::ZERO,
                asked_written: Lsn::ZERO,
                asked_seq: 0,
                sync_wanted: Lsn::ZERO,
                ready_end: base,
                pool: Vec::new(),
                failure: None,
                lacks_room: false,
                closed: false,
                ended: false,
                paused: false,
                time_us,
            }),
            reserved: AtomicU64::new(durable.0),
            written: AtomicU64::new(durable.0),
            durable: AtomicU64::new(durable.0),
            words: std::array::from_fn(|_| Word::default()),
            progress: Word::default(),
            callbacks: Callbacks::default(),
            listener: Listener::default(),
            followers: Followers::default(),
            cuts: cut::Cuts::default(),
            counters: counters.clone(),
            forgetful: false,
            #[cfg(seawall_shuttle)]
            explored: explored::Explored::default(),
        })
    }

    pub(crate) fn reserved(&self) -> Lsn {
        Lsn(self.reserved.load(Ordering::Acquire))
    }

    pub(crate) fn written(&self) -> Lsn {
        Lsn(self.written.load(Ordering::Acquire))
    }

    /// The time of the last record that was placed.
    pub(crate) fn last_time_us(&self) -> u64 {
        self.state.lock().time_us
    }

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Where the next record will stand, if the batch takes it.
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.state.lock().open.end()
    }

    /// Where the next frame may stand.
    pub(crate) fn next_base(&self) -> Lsn {
        self.state.lock().open.next_base()
    }

    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        self.state.lock().failure.clone()
    }

    pub(crate) fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    /// Says that files exist for positions before `end`.
    pub(crate) fn set_ready_end(&self, end: Lsn) {
        let mut state = self.state.lock();
        state.ready_end = state.ready_end.max(end);
    }

    /// Files are about to exist for positions before `end` only. False, and nothing has changed, if positions behind it are
    /// given out, or somebody is about to begin a segment.
    pub(crate) fn lower_ready_end(&self, end: Lsn) -> bool {
        let mut state = self.state.lock();
        let is_quiet = !state.in_flight && !state.has_pending() && !state.paused && !state.closed;
        let is_free = is_quiet && state.failure.is_none() && state.open.next_base() <= end;
        if is_free {
            state.ready_end = state.ready_end.min(end);
        }
        is_free
    }

    /// What has to happen before `bytes` bytes of records, headers included, can be placed.
    pub(crate) fn room_for(&self, bytes: usize) -> Result<Room> {
        let state = self.state.lock();
        state.check()?;
        let fits = bytes <= batch::single_bytes_max(self.geometry) && state.open.fits(bytes);
        let end = batch::end_needed(state.open.next_base(), bytes, self.geometry);
        Ok(if !fits && end > state.ready_end {
            Room::NeedsFiles(end)
        } else if state.sealed_bytes > PENDING_BYTES_MAX || state.paused {
            Room::Crowded
        } else {
            Room::Ready
        })
    }

    /// Takes the next place for records that stand or fall together: a copy in memory under a short lock. `None` if
    /// there is no room, or no file for it yet.
    pub(crate) fn place(
        &self,
        kind: Kind,
        group: u64,
        payloads: &[&[u8]],
        durability: Durability,
    ) -> Result<Option<Placed>> {
        let bytes = placed_bytes(payloads);
        let mut state = self.state.lock();
        state.check()?;
        if state.sealed_bytes > PENDING_BYTES_MAX || state.paused {
            return Ok(None);
        }
        let is_cut = bytes > batch::single_bytes_max(self.geometry);
        if is_cut || !state.open.fits(bytes) {
            let base = state.open.next_base();
            if batch::end_needed(base, bytes, self.geometry) > state.ready_end {
                return Ok(None);
            }
            self.seal_open(&mut state)?;
            if !is_cut && !state.open.fits(bytes) {
                let number = self.geometry.number(base) + u64::from(self.geometry.offset(base) != 0);
                state.open.place_at(self.geometry.first_frame(number), self.geometry);
            }
        }
        state.time_us = state.time_us.max(self.runtime.wall_clock_us());
        let time_us = state.time_us;
        let header =
            |payload: &[u8]| record::Header { length: payload.len() as u32, kind, group, time_us }.encode();
        let (lsn, end, seq) = if is_cut {
            let mut whole = Vec::with_capacity(bytes);
            for payload in payloads {
                whole.extend_from_slice(&header(payload));
                whole.extend_from_slice(payload);
            }
            self.place_cut(&mut state, &whole, payloads.len() as u32, durability)?
        } else {
            let lsn = state.open.end();
            for payload in payloads {
                state.open.push(&header(payload));
                state.open.push(payload);
            }
            state.open.records += payloads.len() as u32;
            state.open.durability = state.open.durability.max(durability);
            (lsn, state.open.end(), state.open.seq)
        };
        if durability >= Durability::Written {
            state.asked_written = end;
            state.asked_seq = seq;
        }
        if durability >= Durability::Synced {
            state.asked_synced = end;
        }
        let need = Need { durable: state.asked_synced, written: state.asked_written };
        debug_assert!(end.0 > self.reserved.load(Ordering::Relaxed), "W6");
        self.reserved.store(end.0, Ordering::Release);
        add(&self.counters.commits, 1);
        add(&self.counters.payload_bytes, bytes as u64);
        #[cfg(seawall_shuttle)]
        let asked_seq = if self.errs(explored::Misorder::TendOwnBatch) { seq } else { state.asked_seq };
        #[cfg(not(seawall_shuttle))]
        let asked_seq = state.asked_seq;
        Ok(Some(Placed { lsn, end, need, seq: asked_seq }))
    }

    /// Closes the open batch, so that every record so far stands before, and every later one at or behind, the
    /// frame boundary returned.
    pub(crate) fn barrier(&self) -> Result<Lsn> {
        let mut state = self.state.lock();
        state.check()?;
        self.seal_open(&mut state)?;
        Ok(state.open.base)
    }

    pub(crate) fn is_reached(&self, placed: &Placed) -> bool {
        self.has(placed.need)
    }

    /// Waits until `placed` counts. False if `timeout` passed first.
    pub(crate) fn wait(&self, placed: &Placed, timeout: Option<Duration>) -> Result<bool> {
        let waiter = Waiter { seq: placed.seq, tends: false, drives: false, is_counted: false };
        let reached = self.wait_until(placed.need, Some(waiter), timeout);
        reached.map_err(|_| Error::CommitUnknown { lsn: placed.lsn })
    }

    /// Sees to it that all that was asked for so far is reached, for those who hold tickets. False if it is already.
    pub(crate) fn drive(&self) -> Result<bool> {
        let (need, seq) = {
            let state = self.state.lock();
            (Need { durable: state.asked_synced, written: state.asked_written }, state.asked_seq)
        };
        if self.has(need) {
            return Ok(false);
        }
        self.wait_until(need, Some(Waiter { seq, tends: false, drives: true, is_counted: false }), None)
    }

    /// `listener` is called with every change of the marks from now on. Once.
    pub(crate) fn listen(&self, listener: OnMarks) {
        let _ = self.listener.0.set(listener);
    }

    /// Waits until everything before `lsn` is on the device.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        {
            let state = self.state.lock();
            if self.durable() >= lsn {
                return Ok(());
            }
            state.check()?;
        }
        self.make_durable(lsn)
    }

    fn make_durable(&self, lsn: Lsn) -> Result<()> {
        let lsn = {
            let mut state = self.state.lock();
            // Looked up once: what is placed from here on is not asked for, and so not waited for.
            let lsn = lsn.min(self.reserved());
            state.sync_wanted = state.sync_wanted.max(lsn);
            lsn
        };
        self.wait_until(Need { durable: lsn, written: lsn }, None, None)?;
        Ok(())
    }

    /// Waits for a write in flight to end, or leads one: makes room.
    pub(crate) fn make_progress(&self) -> Result<()> {
        let seen = self.progress.seen();
        let mut state = self.state.lock();
        state.check()?;
        if !state.in_flight && !state.paused {
            if state.has_pending() {
                state.in_flight = true;
                drop(state);
                self.lead();
            }
            return Ok(());
        }
        drop(state);
        self.progress.sleep(&*self.runtime, seen, None);
        Ok(())
    }

    /// Calls `callback` once when `placed` counts, or fails; at once if it does already.
    pub(crate) fn on_reached(&self, placed: &Placed, callback: Callback) {
        let need = placed.need;
        self.callbacks.insert(
            placed.lsn,
            move |durable, written| durable >= need.durable && written >= need.written,
            callback,
        );
        #[cfg(seawall_shuttle)]
        if self.errs(explored::Misorder::RegisterBlindly) {
            return;
        }
        // Whoever publishes after this insertion sees it; whoever published before is seen here.
        let failed = self.failure().is_some();
        self.callbacks.run(self.durable(), self.written(), failed);
    }

    fn has(&self, need: Need) -> bool {
        self.durable() >= need.durable && self.written() >= need.written
    }

    fn wait_until(&self, need: Need, mut waiter: Option<Waiter>, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.map(|timeout| self.runtime.now().saturating_add(timeout));
        loop {
            if self.has(need) {
                return Ok(true);
            }
            let word = waiter.as_ref().map_or(&self.progress, |waiter| self.word(waiter.seq));
            let seen = word.seen();
            let step = {
                let mut state = self.state.lock();
                let step = self.next_step(&mut state, need, waiter.as_mut());
                if let Ok(Step::Lead) = step {
                    state.in_flight = true;
                }
                step?
            };
            match step {
                Step::Done => return Ok(true),
                Step::Lead => self.lead(),
                Step::Sleep(limit, tends) => {
                    let left = deadline.map(|deadline| deadline.saturating_sub(self.runtime.now()));
                    if left == Some(Duration::ZERO) {
                        self.leave(waiter.as_ref().filter(|_| tends));
                        return Ok(false);
                    }
                    word.sleep(&*self.runtime, seen, limit.into_iter().chain(left).min());
                    self.relay(word);
                }
            }
        }
    }

    /// What a waiter does next.
    fn next_step(&self, state: &mut State, need: Need, waiter: Option<&mut Waiter>) -> Result<Step> {
        if self.has(need) {
            return Ok(Step::Done);
        }
        if let Some(failure) = &state.failure {
            return Err(Error::Poisoned(failure.clone()));
        }
        let write = state.gather.write_time();
        let Some(waiter) = waiter else {
            // Waits for a mark, not with a batch: leads when nobody does.
            return Ok(if state.in_flight { Step::Sleep(Some(write * 2), false) } else { Step::Lead });
        };
        let is_open = waiter.seq == state.open.seq;
        if is_open && !waiter.is_counted && !waiter.drives {
            waiter.is_counted = true;
            state.open.commits += 1;
        }
        if state.in_flight {
            // The batch in flight wakes its own; the open one is tended by its first waiter.
            if is_open && !state.open.tended {
                state.open.tended = true;
                waiter.tends = true;
            }
            // A sealed batch that nobody writes yet may have no tender: its waiters look again by themselves.
            let untaken = state.sealed.front().is_some_and(|front| front.seq <= waiter.seq);
            let looks_again = waiter.tends || (untaken && !is_open);
            let limit = write + state.gather.patience(0);
            return Ok(Step::Sleep(looks_again.then_some(limit), waiter.tends));
        }
        let is_full = state.open.commits >= state.gather.target();
        let gathers_nobody = waiter.drives && !state.gather.is_waiting();
        if !is_open || !state.sealed.is_empty() || is_full || gathers_nobody || waiter.tends {
            return Ok(Step::Lead);
        }
        if state.open.tended {
            return Ok(Step::Sleep(None, false));
        }
        state.open.tended = true;
        waiter.tends = true;
        Ok(Step::Sleep(Some(state.gather.patience(state.open.commits)), true))
    }

    /// A waiter that tends a batch gives up: another has to take over.
    fn leave(&self, waiter: Option<&Waiter>) {
        let Some(waiter) = waiter else { return };
        #[cfg(seawall_shuttle)]
        if self.errs(explored::Misorder::LeaveSilently) {
            return;
        }
        let mut state = self.state.lock();
        if state.open.seq == waiter.seq {
            state.open.tended = false;
        }
        drop(state);
        self.word(waiter.seq).change_and_wake(&*self.runtime);
    }

    /// Passes on what a leader left to the first that it woke.
    fn relay(&self, word: &Word) {
        #[cfg(seawall_shuttle)]
        if self.errs(explored::Misorder::RelayForgotten) {
            return;
        }
        word.relay(&*self.runtime);
    }

    /// Moves the open batch, if it holds anything, behind the sealed ones, and opens the next.
    fn seal_open(&self, state: &mut State) -> Result<()> {
        if state.open.is_empty() && state.open.flags != Flags::SEAL {
            return Ok(());
        }
        let buf = match state.pool.pop() {
            Some(buf) => buf,
            None => new_buf(self.geometry)?,
        };
        let next = Batch::new(state.open.seq + 1, state.open.next_base(), buf, self.geometry);
        let sealed = std::mem::replace(&mut state.open, next);
        state.sealed_bytes += sealed.len;
        state.sealed.push_back(sealed);
        Ok(())
    }

    /// Places records that no frame holds: frames of their own, back to back. The open batch is empty.
    fn place_cut(
        &self,
        state: &mut State,
        whole: &[u8],
        records: u32,
        durability: Durability,
    ) -> Result<(Lsn, Lsn, u64)> {
        let pieces = batch::cut(state.open.base, whole.len(), self.geometry);
        // All memory first: a record is placed whole or not at all.
        let mut bufs = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            bufs.push(map(frame::padded(piece.bytes))?);
        }
        let last = pieces.len().saturating_sub(1);
        let first = pieces.first().map_or(state.open.base, |piece| piece.base);
        let mut rest = whole;
        let mut end = first;
        for (i, (&Piece { base, bytes }, buf)) in pieces.iter().zip(bufs).enumerate() {
            let mut piece = Batch::new(state.open.seq, base, buf, self.geometry);
            let (here, behind) = rest.split_at(bytes.min(rest.len()));
            piece.push(here);
            rest = behind;
            piece.flags = match i {
                0 => Flags::FIRST,
                i if i == last => Flags::LAST,
                _ => Flags::MIDDLE,
            };
            piece.records = if i == 0 { records } else { 0 };
            piece.durability = durability;
            end = piece.end();
            state.open.seq += 1;
            state.open.place_at(piece.next_base(), self.geometry);
            state.sealed_bytes += piece.len;
            state.sealed.push_back(piece);
        }
        Ok((first.plus(frame::HEADER_BYTES as u64), end, state.open.seq - 1))
    }

    fn word(&self, seq: u64) -> &Word {
        &self.words[(seq % WORDS as u64) as usize]
    }
}

/// Bytes that records take in a frame, their headers included.
pub(crate) fn placed_bytes(payloads: &[&[u8]]) -> usize {
    payloads.iter().map(|payload| record::HEADER_BYTES + payload.len()).sum()
}

impl State {
    fn check(&self) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(Error::Poisoned(failure.clone()));
        }
        if self.closed { Err(Error::Closed) } else { Ok(()) }
    }

    fn has_pending(&self) -> bool {
        !self.open.is_empty() || !self.sealed.is_empty()
    }
}

fn new_buf(geometry: Geometry) -> Result<AlignedBuf> {
    map(batch::buffer_bytes(geometry))
}

fn map(bytes: usize) -> Result<AlignedBuf> {
    AlignedBuf::zeroed(bytes)
        .map_err(|source| Error::io("map memory", Path::new("the log's buffer"), None, source))
}
