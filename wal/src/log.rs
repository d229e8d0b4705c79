//! The face of the log: [`Wal`].

use crate::Lsn;
use crate::anchor::{self, Anchor};
use crate::buf::AlignedBuf;
use crate::commit::{Committer, Placed, Room, placed_bytes};
use crate::disk::{BLOCK_BYTES, Disk, DiskFile};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::keeper::Keeper;
use crate::mutation::Mutation;
pub use crate::options::{Io, Outcome, Recovery, Repair, WalOptions};
use crate::record::{self, Kind};
use crate::replica::{Replica, ReplicaChain};
use crate::retention::{Pin, Retainer, Retention};
use crate::runtime::{OsRuntime, Runtime};
use crate::scan::SegmentUse;
use crate::segment::{Geometry, Predecessor};
use crate::spares::Spares;
use crate::stats::{Counters, WalStats, add};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::ticket::Ticket;
use crate::writer::{Live, Writer};
use crate::{latch::Latch, open};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod cut;
mod hold;
mod idle;
mod read;
mod reclaim;

/// A write-ahead log: many small commits into few large durable writes. Cheap to clone; all clones are one log.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-wal-doc-{}", std::process::id()));
/// use seawall_wal::{Lsn, Wal};
/// let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;
/// let lsn = wal.commit(b"paid 5 to Ann")?; // on the device when it returns
/// assert!(wal.durable_lsn() > lsn);
///
/// let ticket = wal.commit_pipelined(b"paid 7 to Ben")?; // has its place; not yet durable
/// ticket.wait()?;
///
/// for record in wal.read(Lsn::ZERO..)? {
///     println!("{:?}", record?.payload);
/// }
/// wal.close()?;
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall_wal::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Wal(pub(crate) Arc<Handle>);

/// What all clones share; closes the log when the last is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) inner: Arc<Inner>,
    keeper: Option<Keeper>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) committer: Committer<Writer>,
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) geometry: Geometry,
    pub(crate) spares: Arc<Spares>,
    pub(crate) counters: Arc<Counters>,
    durability: Durability,
    retention: Arc<Retention>,
    pub(crate) recovery: Recovery,
    pub(crate) anchor: Mutex<Anchor>,
    pub(crate) anchor_file: Option<Arc<dyn DiskFile>>,
    /// One writer of the anchor, and one reclaimer, at a time.
    pub(crate) anchor_latch: Latch,
    /// One closer at a time.
    closing: Latch,
    has_closed: AtomicBool,
    /// Mirrors the anchor's first LSN.
    first: AtomicU64,
    keeper: crate::keeper::Signals,
    pub(crate) mutation: Option<Mutation>,
    /// Of a replica's log, until it is promoted.
    pub(crate) replica: Mutex<Option<Replica>>,
}

impl Wal {
    /// Opens the log in `dir` with the default options, creating it if it is missing.
    ///
    /// # Errors
    /// Those of [`WalOptions::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Wal> {
        WalOptions::default().open(dir)
    }

    /// Options to open a log with.
    pub fn options() -> WalOptions {
        WalOptions::default()
    }

    pub(crate) fn open_with(dir: &Path, options: WalOptions) -> Result<Wal> {
        let runtime: Arc<dyn Runtime> = options.runtime.clone().unwrap_or_else(|| OsRuntime::new());
        let found = open::open(dir, &options, &runtime)?;
        let background = options.background && !options.read_only;
        let inner = Arc::new(Inner::new(dir, &options, &runtime, found)?);
        if !options.read_only {
            inner.begin(&options)?;
        }
        let keeper = if background { Some(Keeper::start(&inner)?) } else { None };
        if background {
            inner.spares.has_filler();
        }
        Ok(Wal(Arc::new(Handle { inner, keeper })))
    }

    /// Takes a place in the log's order for a record of up to 2 GiB. It is not durable, nor even written: see
    /// [`sync`](Wal::sync) and [`commit`](Wal::commit).
    ///
    /// # Errors
    /// [`Error::NoSpace`], before anything is promised; [`Error::TooLarge`], [`Error::Poisoned`],
    /// [`Error::ReadOnly`], [`Error::Closed`].
    pub fn append(&self, record: impl AsRef<[u8]>) -> Result<Lsn> {
        Ok(self.put(&[record.as_ref()], Durability::Memory)?.lsn)
    }

    /// Like [`append`](Wal::append) for several records, of which a crash leaves all or none. The first one's LSN.
    ///
    /// # Errors
    /// Like `append`; [`Error::BadInput`] for no record at all.
    pub fn append_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Lsn> {
        let payloads: Vec<&[u8]> = records.iter().map(AsRef::as_ref).collect();
        if payloads.is_empty() {
            return Err(Error::BadInput("a batch of no records has no place in the log".to_owned()));
        }
        Ok(self.put(&payloads, Durability::Memory)?.lsn)
    }

    /// Appends a record and waits for the log's default durability. Concurrent callers share one durable write.
    ///
    /// # Errors
    /// Like [`append`](Wal::append); [`Error::CommitUnknown`] if the log failed before the record was acknowledged.
    pub fn commit(&self, record: impl AsRef<[u8]>) -> Result<Lsn> {
        self.commit_with(record, self.0.inner.durability)
    }

    /// Like [`commit`](Wal::commit), for a durability of its own.
    ///
    /// # Errors
    /// Like `commit`.
    pub fn commit_with(&self, record: impl AsRef<[u8]>, durability: Durability) -> Result<Lsn> {
        let placed = self.put(&[record.as_ref()], durability)?;
        self.wait_for(&placed, None)?;
        Ok(placed.lsn)
    }

    /// Like [`commit`](Wal::commit), but returns at once with a receipt.
    ///
    /// # Errors
    /// Like `append`.
    pub fn commit_pipelined(&self, record: impl AsRef<[u8]>) -> Result<Ticket> {
        let placed = self.put(&[record.as_ref()], self.0.inner.durability)?;
        Ok(Ticket::new(self.0.inner.clone(), placed))
    }

    /// Everything appended so far is on the device when this returns.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and [`Error::Closed`].
    pub fn sync(&self) -> Result<Lsn> {
        let end = self.0.inner.committer.reserved();
        self.sync_to(end)?;
        Ok(self.0.inner.committer.shown_reserved().min(end))
    }

    /// Everything before `lsn` is on the device when this returns.
    ///
    /// # Errors
    /// Like [`sync`](Wal::sync).
    pub fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.0.inner.committer.sync_to(lsn)
    }

    /// Makes sure that a record of `payload_bytes` can be placed. May wait, and may make a segment file. A log to which
    /// nothing comes for half a second may give the room back.
    ///
    /// # Errors
    /// Like [`append`](Wal::append).
    pub fn make_room(&self, payload_bytes: usize) -> Result<()> {
        self.0.inner.make_room(payload_bytes.saturating_add(record::HEADER_BYTES))
    }

    /// Takes the next place for a record: a copy in memory under a short lock, no I/O. `None` if
    /// [`make_room`](Wal::make_room) has to be called first.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::ReadOnly`], [`Error::Closed`]; [`Error::BadInput`] for kind 0.
    pub fn place(
        &self,
        kind: Kind,
        group: u64,
        payload: &[u8],
        durability: Durability,
    ) -> Result<Option<Placed>> {
        if kind.0 == 0 {
            return Err(Error::BadInput("a record of kind 0 would not be one: zeros never parse".to_owned()));
        }
        self.0.inner.check_writable()?;
        self.0.inner.committer.place(kind, group, &[payload], durability)
    }

    /// True once a placed record counts. Takes no lock.
    pub fn is_reached(&self, placed: &Placed) -> bool {
        self.0.inner.committer.is_reached(placed)
    }

    /// Waits until a placed record counts. False if the time was over first.
    ///
    /// # Errors
    /// [`Error::CommitUnknown`] if the log failed first.
    pub fn wait_for(&self, placed: &Placed, timeout: Option<Duration>) -> Result<bool> {
        self.0.inner.committer.wait(placed, timeout)
    }

    /// Calls `f` once when a placed record counts, from the thread that completes it, or at once. It must not block.
    pub fn on_reached(&self, placed: &Placed, f: Box<dyn FnOnce(Result<Lsn>) + Send>) {
        self.0.inner.committer.on_reached(placed, f);
        self.0.inner.drive(placed);
    }

    /// Sees to it that a placed record is written although nobody waits for it: by the log's own thread, where there
    /// is one.
    pub fn drive(&self, placed: &Placed) {
        self.0.inner.drive(placed);
    }

    /// Calls `f` from now on after every change of the durable and the written LSN, before anybody who waits for it
    /// is woken, with true once the log has failed. It runs in the thread that wrote, and must not block. The first
    /// call's listener stays.
    pub fn on_marks(&self, f: Box<dyn Fn(bool) + Send + Sync>) {
        self.0.inner.committer.listen(f);
    }

    /// Closes the open frame, without I/O. Every record so far is before the position returned, every later one at
    /// or behind it: a position that replay can start at.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn barrier(&self) -> Result<Lsn> {
        self.0.inner.committer.barrier()
    }

    /// Where the log begins: what is before may be gone.
    pub fn first_lsn(&self) -> Lsn {
        self.0.inner.first()
    }

    /// Where the next record would stand, unless it needs a new segment.
    pub fn next_lsn(&self) -> Lsn {
        self.0.inner.committer.next_lsn()
    }

    /// Everything before is on the device.
    pub fn durable_lsn(&self) -> Lsn {
        self.0.inner.committer.shown_durable()
    }

    /// Everything before was given to the system.
    pub fn written_lsn(&self) -> Lsn {
        self.0.inner.committer.shown_written()
    }

    /// Everything before has its place.
    pub fn reserved_lsn(&self) -> Lsn {
        self.0.inner.committer.shown_reserved()
    }

    /// Keeps the log from `lsn` on until the pin is dropped. `who` is shown by [`retained`](Wal::retained).
    ///
    /// # Errors
    /// [`Error::BadInput`] if the log does not reach back so far.
    pub fn pin(&self, who: &str, lsn: Lsn) -> Result<Pin> {
        self.0.inner.pin(who, lsn)
    }

    /// Who keeps the log, the oldest first.
    pub fn retained(&self) -> Vec<Retainer> {
        self.0.inner.retention.retained(self.0.inner.committer.shown_reserved())
    }

    /// Allows what is before `lsn` to be reclaimed, unless somebody keeps it. Whole segments go: to new use, or
    /// back to the file system. Returns the bytes no longer used by the log.
    ///
    /// # Errors
    /// [`Error::Io`]; the log is then poisoned if its anchor could not be written.
    pub fn truncate_before(&self, lsn: Lsn) -> Result<u64> {
        self.0.inner.truncate_before(lsn)
    }

    /// Bytes of log between its beginning and its end.
    pub fn log_bytes(&self) -> u64 {
        self.0.inner.committer.shown_reserved().0.saturating_sub(self.0.inner.first().0)
    }

    /// Counters since opening.
    pub fn stats(&self) -> WalStats {
        self.0.inner.counters.snapshot()
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.0.inner.recovery
    }

    /// The id of the store that the log belongs to.
    pub fn store_id(&self) -> [u8; 16] {
        self.0.inner.anchor.lock().store_id
    }

    /// Bytes of each segment.
    pub fn segment_bytes(&self) -> u64 {
        self.0.inner.geometry.segment_bytes
    }

    /// After [`Error::NoSpace`]: tries to make room again. After a write of the log that failed for want of room, which
    /// file systems that copy on write may do: writes after all what found none, in place, and accepts records again. What
    /// had its place then counts, also where [`Error::CommitUnknown`] was told of it. Followers that ended begin anew.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if there is still none; [`Error::Poisoned`] after any other failed write, and after a failed
    /// sync, which take reopening.
    pub fn resume(&self) -> Result<()> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        inner.committer.resume()?;
        let wanted = inner.geometry.segment_bytes as usize / 2;
        inner.make_room(wanted.min(crate::batch::single_bytes_max(inner.geometry)))
    }

    /// One round of what the background threads do: segments ahead, writing what lies in memory, sealing an idle
    /// log. For logs opened with [`WalOptions::background`] off. True if there was something to do.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Poisoned`], [`Error::Io`].
    pub fn step(&self) -> Result<bool> {
        self.0.inner.step(true)
    }

    /// Syncs everything, seals the log and closes it, for all clones: later calls get [`Error::Closed`]. Dropping
    /// the last clone does the same, without the error.
    ///
    /// # Errors
    /// What made a clean close impossible; the log is closed all the same.
    pub fn close(self) -> Result<()> {
        self.0.close()
    }
}

impl Wal {
    fn put(&self, payloads: &[&[u8]], durability: Durability) -> Result<Placed> {
        let inner = &self.0.inner;
        inner.check_writable()?;
        let bytes = placed_bytes(payloads);
        let mut held = None;
        loop {
            if let Some(placed) = inner.committer.place(Kind::RECORD, 0, payloads, durability)? {
                return Ok(placed);
            }
            held.get_or_insert_with(|| inner.spares.hold());
            inner.make_room(bytes)?;
        }
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        if let Some(keeper) = &self.keeper {
            keeper.stop(&self.inner);
        }
        self.inner.close()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A panic is no clean close (bug 18): the next opening looks at everything.
        if crate::callbacks::is_inside() {
            // This thread may lead the log: closing waits for that, elsewhere.
            let closing = Handle { inner: self.inner.clone(), keeper: self.keeper.take() };
            let _ = self.inner.runtime.spawn("seawall-close", Box::new(move || drop(closing)));
            return;
        }
        if std::thread::panicking() {
            if let Some(keeper) = &self.keeper {
                keeper.stop(&self.inner);
            }
            self.inner.committer.end();
        } else {
            let _ = self.close();
        }
    }
}

impl Inner {
    fn new(
        dir: &Path,
        options: &WalOptions,
        runtime: &Arc<dyn Runtime>,
        found: open::Found,
    ) -> Result<Inner> {
        let disk = options.disk_or_default();
        let counters = Counters { slow_write: options.slow_write.clone(), ..Counters::default() };
        let counters = Arc::new(counters);
        let geometry = found.geometry;
        let is_replica = found.anchor.is_replica && !options.read_only;
        let last = found.path.last().copied();
        if last.is_none() && !found.anchor.is_replica {
            return Err(Error::Closed);
        }
        let chain = ReplicaChain::of(&found);
        // After salvage a segment of its own comes behind the damage: see `begin`.
        let salvaged = found.report.outcome == Outcome::AcknowledgedLoss;
        let ends_newest = last.is_some_and(|last| last.number == found.highest_begun);
        let reuse = found.last_is_unused && ends_newest && !salvaged && !is_replica;
        let highest = match (is_replica, last) {
            // What a replica had begun behind its end comes again.
            (true, Some(last)) => last.number,
            (true, None) => found.geometry.number(found.end).saturating_sub(1),
            _ => found.highest_begun,
        };
        let next = highest + 1;
        let spares =
            Arc::new(Spares::new(&disk, dir, geometry, runtime, &counters, next, found.durable_write));
        let mut files = found.files;
        let mut live_file = last.and_then(|last| files.remove(&last.number));
        if !options.read_only {
            if let Some(last) = last.filter(|_| live_file.is_none()) {
                live_file = Some(crate::spares::open_locked(&*disk, dir, last.number)?);
            }
            let mut rest = found.numbers;
            rest.retain(|number| !found.path.iter().any(|segment| segment.number == *number));
            crate::spares::adopt(&*disk, dir, &spares, &rest, files, geometry, highest)?;
        }
        let live = last.zip(live_file).map(|(last, file)| Live {
            number: last.number,
            file,
            salt: last.salt,
            checksum: found.last_checksum,
            end: found.end,
            last: found.last,
            whole_end: found.whole_end,
            unsynced: false,
        });
        let keeper = crate::keeper::Signals::default();
        let segments: BTreeMap<u64, SegmentUse> =
            found.path.iter().map(|segment| (segment.number, *segment)).collect();
        let writer = Writer {
            dir: dir.to_owned(),
            geometry,
            store_id: found.anchor.store_id,
            // A replica's newest segment may be of a later epoch than its log was begun in.
            epoch: AtomicU64::new(match options.read_only && found.anchor.is_replica {
                true => found.anchor.epoch.max(found.last_epoch),
                false => found.anchor.epoch,
            }),
            disk: disk.clone(),
            queue: Mutex::new(None),
            runtime: runtime.clone(),
            spares: spares.clone(),
            counters: counters.clone(),
            live: Mutex::new(live),
            left: Mutex::default(),
            segments: Mutex::new(segments),
            carried: AtomicU64::new(0),
            signals: keeper.clone(),
            mutation: options.mutation,
            unwritten: Mutex::new(None),
            reheads: Mutex::new(reuse.then_some(found.last_predecessor)),
        };
        // A log that is written again goes on in a segment of its own: what was dropped can never come back.
        let go_on = options.has(Mutation::GoOnBehindTornTail);
        let base = if reuse || go_on || is_replica { found.end } else { geometry.start(next) };
        let mut committer =
            Committer::new(writer, geometry, runtime, &counters, base, found.whole_end, found.time_us)?;
        committer.forgetful = options.has(Mutation::GoOnAfterFailure);
        committer.set_ready_end(spares.ready_end());
        found.gaps.into_iter().for_each(|gap| committer.cuts.add_gap(gap));
        Ok(Inner {
            mutation: options.mutation,
            replica: Mutex::new(is_replica.then(|| Replica::new(chain))),
            committer,
            dir: dir.to_owned(),
            disk,
            runtime: runtime.clone(),
            geometry,
            spares,
            counters,
            durability: options.durability,
            retention: Retention::new(runtime),
            recovery: found.report,
            anchor: Mutex::new(found.anchor),
            anchor_file: found.anchor_file,
            anchor_latch: Latch::new(runtime.clone()),
            closing: Latch::new(runtime.clone()),
            has_closed: AtomicBool::new(false),
            first: AtomicU64::new(found.anchor.first.0),
            keeper,
        })
    }

    /// What a writer does before its first commit: the anchor no longer says that the log was closed cleanly.
    fn begin(&self, options: &WalOptions) -> Result<()> {
        if self.is_replica() {
            // It goes on where it ends, with what comes from elsewhere.
            self.write_anchor(|anchor| (anchor.clean, anchor.closed) = (false, None))?;
            return self.spares.trim();
        }
        let salvaged = self.recovery.outcome == Outcome::AcknowledgedLoss;
        // W12: before anything is written, the anchor no longer vouches for an end.
        let trusts = options.has(Mutation::TrustStaleEnd);
        self.write_anchor(|anchor| {
            if !trusts {
                (anchor.clean, anchor.closed) = (false, None);
            }
            if salvaged {
                anchor.durable = self.recovery.end;
                anchor.first = anchor.first.min(self.recovery.end);
            }
        })?;
        debug_assert!(salvaged <= (options.repair == Repair::TruncateAtFirstError), "salvage was asked for");
        let reheads = *self.committer.sink.reheads.lock();
        let is_reheaded = reheads.is_some();
        if let Some(Some(Predecessor { cut: Some(_), .. })) = reheads {
            // The power may have failed before that was said.
            self.vouch_for_cut(self.committer.sink.live_number())?;
        }
        self.committer.sink.rehead(self.committer.durable())?;
        let dropped = self.recovery.outcome == Outcome::UnacknowledgedLoss && !is_reheaded;
        if salvaged || (dropped && !options.has(Mutation::GoOnBehindTornTail)) {
            // What was dropped must not be found again: a segment of its own comes behind it at once, before the
            // files of a record that did not end are used for anything else.
            match self.make_room(record::HEADER_BYTES) {
                Ok(()) => self.committer.sink.begin_next()?,
                // It comes with the first commit, for which there is no room either.
                Err(Error::NoSpace) if !salvaged => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.spares.trim()
    }

    pub(crate) fn pin(&self, who: &str, lsn: Lsn) -> Result<Pin> {
        self.retention.pin(who, lsn, || self.first())
    }

    pub(crate) fn first(&self) -> Lsn {
        Lsn(self.first.load(Ordering::Acquire))
    }

    pub(crate) fn segments(&self) -> Vec<SegmentUse> {
        self.committer.sink.segments.lock().values().copied().collect()
    }

    pub(crate) fn signals(&self) -> &crate::keeper::Signals {
        &self.keeper
    }

    pub(crate) fn check_open_for_writing(&self) -> Result<()> {
        if self.anchor_file.is_some() { Ok(()) } else { Err(Error::ReadOnly) }
    }

    /// Whether it takes records of its own.
    fn check_writable(&self) -> Result<()> {
        self.check_open_for_writing()?;
        if self.is_replica() { Err(Error::Replica) } else { Ok(()) }
    }

    fn make_room(&self, bytes: usize) -> Result<()> {
        self.check_writable()?;
        if bytes > record::PAYLOAD_BYTES_MAX {
            let max = (record::PAYLOAD_BYTES_MAX - record::HEADER_BYTES) as u64;
            return Err(Error::TooLarge { what: "record", len: bytes as u64, max });
        }
        let _held = self.spares.hold();
        loop {
            match self.committer.room_for(bytes)? {
                Room::Ready => return Ok(()),
                Room::Crowded => self.committer.make_progress()?,
                Room::NeedsFiles(end) => {
                    self.spares.ensure(end)?;
                    self.publish_ready_end();
                }
            }
        }
    }

    /// Sees to it that a placed record is written although nobody waits for it.
    pub(crate) fn drive(self: &Arc<Self>, placed: &Placed) {
        if !self.committer.is_reached(placed) {
            self.keeper.want(self);
        }
    }

    pub(crate) fn write_anchor(&self, change: impl FnOnce(&mut Anchor)) -> Result<()> {
        let _one_at_a_time = self.anchor_latch.lock();
        self.write_anchor_locked(change)
    }

    /// Durable when it returns: only then is anything reclaimed.
    pub(crate) fn write_anchor_locked(&self, change: impl FnOnce(&mut Anchor)) -> Result<()> {
        let file = self.anchor_file.as_ref().ok_or(Error::ReadOnly)?;
        let mut next = *self.anchor.lock();
        next.durable = next.durable.max(self.committer.durable());
        if next.is_replica {
            next.replica_durable = next.replica_durable.max(self.committer.durable());
        }
        change(&mut next);
        next.sequence += 1;
        let path = self.dir.join(anchor::FILE_NAME);
        let mut buf = AlignedBuf::zeroed(BLOCK_BYTES)
            .map_err(|source| Error::io("map memory for", &path, None, source))?;
        buf.copy_from_slice(&next.encode());
        add(&self.counters.syncs, 1);
        add(&self.counters.device_bytes, BLOCK_BYTES as u64);
        match file.write_durable_at(&buf, next.offset()) {
            Ok(()) => {
                *self.anchor.lock() = next;
                Ok(())
            }
            Err(source) => {
                let again = std::io::Error::from(source.kind());
                self.committer.fail(Error::Io {
                    op: "write",
                    path: path.clone(),
                    offset: Some(next.offset()),
                    source: again,
                });
                Err(Error::Io { op: "write", path, offset: Some(next.offset()), source })
            }
        }
    }

    fn close(&self) -> Result<()> {
        if self.anchor_file.is_none() {
            self.committer.close();
            return Ok(());
        }
        let _one_at_a_time = self.closing.lock();
        if self.has_closed.swap(true, Ordering::AcqRel) {
            // Another clone was first.
            return Ok(());
        }
        if self.is_replica() {
            return self.close_replica();
        }
        // Nothing new is taken; what has its place gets as far as it asked for; only then does the anchor say that
        // nothing stands behind the end.
        #[cfg(seawall_shuttle)]
        let drained_early = self.committer.closes_late().then(|| self.drain());
        self.committer.close();
        #[cfg(seawall_shuttle)]
        let closed = drained_early.unwrap_or_else(|| self.drain());
        #[cfg(not(seawall_shuttle))]
        let closed = self.drain();
        self.committer.end();
        let end = self.committer.sink.closed_at(self.committer.last_time_us());
        let closed =
            closed.and_then(|()| self.write_anchor(|anchor| (anchor.clean, anchor.closed) = (true, end)));
        // The locks go with the last handle, not with the last receipt or reader.
        self.committer.sink.take_live();
        closed
    }

    fn drain(&self) -> Result<()> {
        self.committer.drain(|| Lsn(self.committer.sink.carried.load(Ordering::Acquire)))
    }
}
