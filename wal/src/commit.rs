//! Group commit: *the last arriver leads*. No I/O of its own; a [`Sink`] writes what it gathers.
//!
//! A committer takes a short lock, copies its record into the open batch, and looks: if nothing is in flight and the
//! batch holds as many commits as are expected (`target`), it writes the batch itself, so a lone committer never
//! changes threads. Otherwise it sleeps on its batch's word. The first to sleep *tends* the batch: it sleeps with a
//! limit, and leads with what is there if nobody did before. When a write of n commits ends and m wait,
//!
//! - m = 0: the n will be back soon: `target` = n;
//! - m ≥ n/2: lead again at once;
//! - otherwise the woken ones will join the waiting ones: `target` = n + m.
//!
//! One write is in flight at a time. Its leader publishes the durable LSN, *then* changes the word of each batch
//! written and wakes its sleepers, once: whoever looked at the mark before it slept is woken, whoever looks later
//! sees the mark. A waiter that leaves early hands tending on.
//!
//! ```text
//!  idle --lead--> in flight --finish--> idle | in flight (leads again)
//!                     `--fail--> failed, for good
//! ```
//!
//! - **W6** Marks only grow: durable ≤ written ≤ reserved; durable and written only move to ends of whole records.
//! - **W7** A commit is acknowledged only when everything before it, and it itself, reached what each asked for.
//! - **W8** After a failed write nothing is acknowledged any more, and nothing is written.

use crate::Lsn;
pub(crate) use crate::batch::Batch;
use crate::batch::{self, Piece};
use crate::buf::AlignedBuf;
use crate::callbacks::{Callback, Callbacks};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::frame::{self, Flags};
use crate::record::{self, Kind};
use crate::runtime::Runtime;
use crate::segment::Geometry;
use crate::stats::{Counters, add};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(seawall_shuttle)]
pub(crate) mod explored;
mod lead;

/// Words that waiters sleep on, a batch's being its number modulo this.
const WORDS: usize = 64;
/// Bytes gathered and not yet written beyond which appenders wait.
const PENDING_BYTES_MAX: usize = 16 << 20;

/// What a sink has written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The end of the last whole record given to the system.
    pub(crate) end: Lsn,
    /// Whether all up to there is on the device.
    pub(crate) durable: bool,
}

/// Where batches go.
pub(crate) trait Sink: Send + Sync {
    /// Writes batches in order; makes them, and all written before, durable if asked. `claim` is what is durable
    /// now. Called by one thread at a time.
    fn write(&self, batches: &mut [Batch], durable: bool, claim: Lsn) -> Result<Written>;
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
    /// Commits that the open batch should hold before it is written.
    target: u32,
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
    closed: bool,
    time_us: u64,
    /// How long a write takes, smoothed.
    write_ns: u64,
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
    words: [AtomicU32; WORDS],
    /// Changes with every write that ends; slept on by those who wait for a mark or for room.
    progress: AtomicU32,
    progress_waiters: AtomicU32,
    callbacks: Callbacks,
    counters: Arc<Counters>,
    /// A test's deliberate mistake: failed writes are acknowledged.
    pub(crate) forgetful: bool,
    /// What the exploration of interleavings may get wrong on purpose, and what it counts.
    #[cfg(seawall_shuttle)]
    pub(crate) explored: explored::Explored,
}

enum Step {
    Done,
    Lead,
    /// Sleep; true if the caller now tends the batch.
    Sleep(Option<Duration>, bool),
}

/// One who waits: which batch, and whether it tends it.
struct Waiter {
    seq: u64,
    tends: bool,
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
                target: 1,
                asked_synced: Lsn::ZERO,
                asked_written: Lsn::ZERO,
                asked_seq: 0,
                sync_wanted: Lsn::ZERO,
                ready_end: base,
                pool: Vec::new(),
                failure: None,
                closed: false,
                time_us,
                write_ns: 100_000,
            }),
            reserved: AtomicU64::new(durable.0),
            written: AtomicU64::new(durable.0),
            durable: AtomicU64::new(durable.0),
            words: std::array::from_fn(|_| AtomicU32::new(0)),
            progress: AtomicU32::new(0),
            progress_waiters: AtomicU32::new(0),
            callbacks: Callbacks::default(),
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

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Where the next record will stand, if the batch takes it.
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.state.lock().open.end()
    }

    pub(crate) fn failure(&self) -> Option<Arc<Error>> {
        self.state.lock().failure.clone()
    }

    /// Says that files exist for positions before `end`.
    pub(crate) fn set_ready_end(&self, end: Lsn) {
        let mut state = self.state.lock();
        state.ready_end = state.ready_end.max(end);
    }

    /// The position that files must cover for a `bytes` bytes of records, headers included, to be placed,
    /// and whether they do.
    pub(crate) fn room_for(&self, bytes: usize) -> Result<(Lsn, bool)> {
        let state = self.state.lock();
        state.check()?;
        if bytes <= batch::single_bytes_max(self.geometry) && state.open.fits(bytes) {
            return Ok((state.ready_end, true));
        }
        let end = batch::end_needed(state.open.next_base(), bytes, self.geometry);
        Ok((end, end <= state.ready_end))
    }

    /// True if so much is gathered that appenders should wait for a write to end.
    pub(crate) fn is_crowded(&self) -> bool {
        self.state.lock().sealed_bytes > PENDING_BYTES_MAX
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
        if state.sealed_bytes > PENDING_BYTES_MAX {
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
            state.open.commits += 1;
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
        let reached = self.wait_until(placed.need, Some(placed.seq), timeout);
        reached.map_err(|_| Error::CommitUnknown { lsn: placed.lsn })
    }

    /// Waits until everything before `lsn` is on the device.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        let lsn = {
            let mut state = self.state.lock();
            if self.durable() >= lsn {
                return Ok(());
            }
            state.check()?;
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
        let seen = self.progress.load(Ordering::Acquire);
        let mut state = self.state.lock();
        state.check()?;
        if !state.in_flight {
            if state.has_pending() {
                state.in_flight = true;
                drop(state);
                self.lead();
            }
            return Ok(());
        }
        drop(state);
        self.progress_waiters.fetch_add(1, Ordering::SeqCst);
        self.runtime.wait(&self.progress, seen, None);
        self.progress_waiters.fetch_sub(1, Ordering::AcqRel);
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

    /// Writes what is gathered if nobody does, and carries the durable LSN on in an empty frame if the newest frame
    /// does not carry it yet. For idle moments and for closing.
    pub(crate) fn settle(&self, carried: Lsn, seal: bool) -> Result<bool> {
        let mut state = self.state.lock();
        state.check()?;
        if state.in_flight {
            return Ok(false);
        }
        let durable = self.durable();
        if !state.has_pending() {
            let base = state.open.base;
            let fits = self.geometry.offset(base) != 0 && base < state.ready_end;
            if !seal || durable <= carried || !fits {
                return Ok(false);
            }
            if state.pool.is_empty() {
                state.pool.push(new_buf(self.geometry)?);
            }
            state.open.flags = Flags::SEAL;
            state.open.durability = Durability::Synced;
            self.seal_open(&mut state)?;
            add(&self.counters.seals, 1);
        }
        state.in_flight = true;
        drop(state);
        self.lead();
        Ok(true)
    }

    /// Refuses everything from now on.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
    }

    fn has(&self, need: Need) -> bool {
        self.durable() >= need.durable && self.written() >= need.written
    }

    fn wait_until(&self, need: Need, seq: Option<u64>, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.map(|timeout| self.runtime.now().saturating_add(timeout));
        let mut waiter = seq.map(|seq| Waiter { seq, tends: false });
        loop {
            if self.has(need) {
                return Ok(true);
            }
            let word = match &waiter {
                Some(waiter) => self.word(waiter.seq),
                None => &self.progress,
            };
            let seen = word.load(Ordering::Acquire);
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
                    let limit = limit.into_iter().chain(left).min();
                    if waiter.is_none() {
                        self.progress_waiters.fetch_add(1, Ordering::SeqCst);
                    }
                    self.runtime.wait(word, seen, limit);
                    if waiter.is_none() {
                        self.progress_waiters.fetch_sub(1, Ordering::AcqRel);
                    }
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
        let write = Duration::from_nanos(state.write_ns);
        let Some(waiter) = waiter else {
            // Waits for a mark, not with a batch: leads when nobody does.
            return Ok(if state.in_flight { Step::Sleep(Some(write * 2), false) } else { Step::Lead });
        };
        if state.in_flight {
            // The batch in flight wakes its own; the open one is tended by its first waiter.
            if waiter.seq == state.open.seq && !state.open.tended {
                state.open.tended = true;
                waiter.tends = true;
            }
            // A sealed batch that nobody writes yet may have no tender: its waiters look again by themselves.
            let untaken = state.sealed.front().is_some_and(|front| front.seq <= waiter.seq);
            let looks_again = waiter.tends || (untaken && waiter.seq < state.open.seq);
            return Ok(Step::Sleep(looks_again.then_some(write + write / 2), waiter.tends));
        }
        let written_already = waiter.seq < state.open.seq;
        if written_already || !state.sealed.is_empty() || state.open.commits >= state.target || waiter.tends {
            return Ok(Step::Lead);
        }
        if state.open.tended {
            return Ok(Step::Sleep(None, false));
        }
        state.open.tended = true;
        waiter.tends = true;
        Ok(Step::Sleep(Some(write / 2), true))
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
        let word = self.word(waiter.seq);
        word.fetch_add(1, Ordering::Release);
        self.runtime.wake_all(word);
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
            piece.commits = u32::from(i == last);
            piece.durability = durability;
            end = piece.end();
            state.open.seq += 1;
            state.open.place_at(piece.next_base(), self.geometry);
            state.sealed_bytes += piece.len;
            state.sealed.push_back(piece);
        }
        Ok((first.plus(frame::HEADER_BYTES as u64), end, state.open.seq - 1))
    }

    fn word(&self, seq: u64) -> &AtomicU32 {
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
