//! Slots: named positions in the log that outlive the process, and that the log is kept for.
//!
//! ```text
//! advance ─► in memory ─► (once a second, after 16 MiB, before log is released, at close) the file, replaced as a whole ─► the pin
//! ```
//!
//! A slot is for somebody who follows the log: a replica, an archive. It keeps the log from its *place* on, which is where
//! the next bytes that its owner wants begin, and it says how far the owner has *confirmed* that all is on its own device.
//!
//! - L1: every slot of the file is pinned before anything of the log is reclaimed, at every opening for writing.
//! - L2: a pin moves only to a place that the file has: what a power cut brings back is never below what was reclaimed.
//! - L3: a slot is lost in the file before the log that it kept is released.
//! - L4: while there is a slot, no record is placed that names bytes outside of the log: its owner would not have them.
//!   Whoever creates the first one waits for those that are being placed, and begins behind them.
//!
//! A slot that falls behind beyond its limits is *lost* at the next checkpoint: an event tells, and it stays listed until it
//! is dropped or created anew.

pub(crate) mod file;
mod write;

use crate::commit::log::CommitLog;
use crate::mutation::Mutation;
use crate::options::Options;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use crate::{Error, Result};
use file::{FILE_BYTES_MAX, FORMAT_VERSION, Flaw, Slot, SlotsFile};
use seawall_wal::disk::{Disk, Open, crashsafe, read_exact_at};
use seawall_wal::latch::{Latch, LatchGuard};
use seawall_wal::{Lsn, Pin, Runtime};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The file's name in the store's directory.
pub(crate) const SLOTS_NAME: &str = "slots";

/// Whoever was heard of in this time counts for the rewind floor.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// A store that was closed, or crashed, no longer ago than this takes its slots for heard of when it opens.
const REOPENED_WITHIN_US: u64 = 600_000_000;

/// What a slot may cost before it is lost: see [`Db::create_slot`](crate::Db::create_slot). No limit by default: then
/// an owner that never comes back fills the disk.
///
/// ```
/// use seawall_engine::SlotOptions;
/// use std::time::Duration;
///
/// let options = SlotOptions { bytes_max: Some(10 << 30), age_max: Some(Duration::from_secs(86_400)) };
/// assert_ne!(options, SlotOptions::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotOptions {
    /// Bytes of log that it may keep.
    pub bytes_max: Option<u64>,
    /// For how long, of the time that the store is open, it may keep log without being heard of.
    pub age_max: Option<Duration>,
}

/// How a slot stands.
///
/// ```
/// use seawall_engine::SlotState;
/// assert_eq!(SlotState::Lost.to_string(), "lost");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// It keeps no more log than the store may keep between checkpoints anyway.
    Reserved,
    /// It keeps more, within its limits.
    Extended,
    /// Its limits were exceeded: the log that it needs is gone, and its owner needs a new image.
    Lost,
}

impl std::fmt::Display for SlotState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SlotState::Reserved => "reserved",
            SlotState::Extended => "extended",
            SlotState::Lost => "lost",
        })
    }
}

/// What [`Db::slots`](crate::Db::slots) says of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// Where what its owner wants next begins.
    pub lsn: Lsn,
    /// Everything below is on its owner's device.
    pub confirmed: Lsn,
    /// Bytes of log that it keeps.
    pub retained_bytes: u64,
    /// For how long it has not been heard of.
    pub idle: Duration,
    /// How it stands.
    pub state: SlotState,
    /// What it may cost.
    pub options: SlotOptions,
}

/// A slot's log is about to be released, for these reasons.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// The slots of an open store.
pub(crate) struct Slots {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    runtime: Arc<dyn Runtime>,
    log: Arc<dyn CommitLog>,
    store_id: [u8; 16],
    segment_bytes: u64,
    log_bytes_max: u64,
    is_unpinned: bool,
    /// One at a time replaces the file.
    writing: Latch,
    /// Held by whoever places a record that names bytes outside of the log, and by whoever creates a slot (L4).
    naming: Latch,
    /// A pin has moved, or is gone.
    has_moved: AtomicBool,
    /// Slots that are not lost, and those that are being created.
    alive: AtomicUsize,
    /// Records that name bytes outside of the log end at or below this.
    outside_end: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<String, Held>,
    sequence: u64,
    /// When the file was last tried to be replaced.
    written_at: Duration,
    opened_at: Duration,
    /// Of slots of which it is not known whether the file has them.
    doubtful: Vec<Pin>,
}

struct Held {
    /// As of now.
    slot: Slot,
    /// As the file has it.
    written: Slot,
    pin: Option<Pin>,
    heard_at: Option<Duration>,
}

impl Held {
    fn is_alive(&self) -> bool {
        !self.slot.is_lost
    }
}

impl Slots {
    /// Of a store that has none.
    pub(crate) fn new(
        options: &Options,
        log: &Arc<dyn CommitLog>,
        store_id: [u8; 16],
        segment_bytes: u64,
    ) -> Slots {
        let runtime = &options.runtime;
        let now = runtime.now();
        Slots {
            disk: Arc::clone(&options.disk),
            path: options.path.join(SLOTS_NAME),
            runtime: Arc::clone(runtime),
            log: Arc::clone(log),
            store_id,
            segment_bytes,
            log_bytes_max: options.log_bytes_max_of(segment_bytes),
            is_unpinned: options.has(Mutation::IgnoreSlots),
            writing: Latch::new(Arc::clone(runtime)),
            naming: Latch::new(Arc::clone(runtime)),
            has_moved: AtomicBool::new(false),
            alive: AtomicUsize::new(0),
            outside_end: AtomicU64::new(0),
            state: Mutex::new(State { written_at: now, opened_at: now, ..State::default() }),
        }
    }

    /// Pins what the file has (L1). Slots whose log is gone, which no crash leaves, are lost.
    pub(crate) fn load(&self, file: SlotsFile) {
        let (now, wall_us) = (self.runtime.now(), self.runtime.wall_clock_us());
        let mut held = BTreeMap::new();
        for written in file.slots {
            let pin = if written.is_lost { None } else { self.pin(&written.name, written.place).ok() };
            let is_lost = written.is_lost || (pin.is_none() && !self.is_unpinned);
            self.alive.fetch_add(usize::from(!is_lost), Ordering::AcqRel);
            let was_heard = written.moved_us > written.created_us
                && written.moved_us.saturating_add(REOPENED_WITHIN_US) >= wall_us;
            let slot = Slot { is_lost, ..written.clone() };
            let heard_at = was_heard.then_some(now);
            held.insert(written.name.clone(), Held { slot, written, pin, heard_at });
        }
        let mut state = self.state.lock();
        state.sequence = file.sequence;
        state.held = held;
    }

    fn pin(&self, name: &str, place: Lsn) -> Result<Pin> {
        if self.is_unpinned {
            return Err(Error::BadInput("a mistake is made on purpose: nothing is pinned".into()));
        }
        self.log.pin(&format!("slot {name}"), place)
    }

    /// Whether there is a slot that is not lost.
    pub(crate) fn is_any(&self) -> bool {
        self.alive.load(Ordering::Acquire) > 0
    }

    /// Whether a pin has moved, or is gone, since this was asked last.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved.swap(false, Ordering::AcqRel)
    }

    /// Held while a record is placed that names bytes outside of the log, if that is still allowed (L4).
    pub(crate) fn name_outside(&self) -> Result<LatchGuard<'_>> {
        let naming = self.naming.lock();
        // Whoever runs it again finds the slot, and sends the bytes through the log.
        if self.is_any() { Err(Error::Conflict) } else { Ok(naming) }
    }

    /// A record that ends there names bytes outside of the log.
    pub(crate) fn note_outside(&self, end: Lsn) {
        self.outside_end.fetch_max(end.0, Ordering::AcqRel);
    }

    /// Records that name bytes outside of the log end at or below this, of those that are not in the newest tree.
    pub(crate) fn outside_end(&self) -> Lsn {
        Lsn(self.outside_end.load(Ordering::Acquire))
    }

    /// The lowest position that any of those who were heard of lately has on its device. None if nobody was: then nobody
    /// is about to take over, either.
    pub(crate) fn rewind_floor(&self) -> Option<Lsn> {
        if !self.is_any() {
            return None;
        }
        let now = self.runtime.now();
        let is_heard = |held: &&Held| {
            held.is_alive() && held.heard_at.is_some_and(|at| now.saturating_sub(at) <= HEARD_WITHIN)
        };
        let state = self.state.lock();
        state.held.values().filter(is_heard).map(|held| held.slot.confirmed).min()
    }

    /// All of them, by name.
    pub(crate) fn status(&self) -> Vec<SlotStatus> {
        let (end, wall_us) = (self.log.next_lsn(), self.runtime.wall_clock_us());
        let state = self.state.lock();
        let status = state.held.values().map(|held| {
            let retained_bytes = self.retained(held, end);
            let slot = &held.slot;
            SlotStatus {
                name: slot.name.clone(),
                lsn: slot.place,
                confirmed: slot.confirmed,
                retained_bytes,
                idle: Duration::from_micros(wall_us.saturating_sub(slot.moved_us)),
                state: match held.is_alive() {
                    false => SlotState::Lost,
                    true if retained_bytes <= self.log_bytes_max => SlotState::Reserved,
                    true => SlotState::Extended,
                },
                options: SlotOptions {
                    bytes_max: slot.bytes_max,
                    age_max: slot.age_max_us.map(Duration::from_micros),
                },
            }
        });
        status.collect()
    }

    /// Bytes that it keeps: from where its pin is.
    fn retained(&self, held: &Held, end: Lsn) -> u64 {
        if held.is_alive() { end.0.saturating_sub(held.written.place.0) } else { 0 }
    }
}

/// The log becomes a replica's: a closed store's slots go.
///
/// # Errors
/// As [`read`], and `NoSpace`.
pub(crate) fn drop_all(options: &Options, store_id: [u8; 16]) -> Result<()> {
    let Some(mut file) = read(options, store_id)?.filter(|file| !file.slots.is_empty()) else {
        return Ok(());
    };
    file.slots.clear();
    file.sequence += 1;
    let path = options.path.join(SLOTS_NAME);
    crashsafe::write_new(&*options.disk, &path, &file.encode())
        .map_err(|source| Error::io("replace", &path, None, source))
}

/// Reads the file of a store's slots. None if there is none: then there are no slots.
///
/// # Errors
/// `Corruption`, `FormatVersion`, `Io`.
pub(crate) fn read(options: &Options, store_id: [u8; 16]) -> Result<Option<SlotsFile>> {
    let (disk, path) = (&options.disk, options.path.join(SLOTS_NAME));
    let io = |op, source| Error::Io { op, path: path.clone(), offset: None, source };
    if !disk.exists(&path).map_err(|error| io("look for", error))? {
        return Ok(None);
    }
    let damaged = |what: String| Error::Corruption { file: path.clone(), offset: 0, lsn: None, what };
    let file = disk.open(&path, Open::Read).map_err(|error| io("open", error))?;
    let len = file.len().map_err(|error| io("length", error))?;
    if len > FILE_BYTES_MAX {
        return Err(damaged(format!("{len} bytes are more than the slots of a store can take")));
    }
    let mut bytes = vec![0; len as usize];
    read_exact_at(&*file, &mut bytes, 0).map_err(|error| io("read", error))?;
    match SlotsFile::decode(&bytes) {
        Ok(file) if file.store_id != store_id => Err(damaged("the slots are those of another store".into())),
        Ok(file) => Ok(Some(file)),
        Err(Flaw::Newer(found)) => {
            Err(Error::FormatVersion { found, supported: FORMAT_VERSION..=FORMAT_VERSION })
        }
        Err(Flaw::Damaged(what)) => Err(damaged(format!("the store's slots: {what}"))),
    }
}
