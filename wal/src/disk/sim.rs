//! A disk in memory that keeps what [the seam](super) promises, and nothing more.
//!
//! [`SimDisk`] is a [`Disk`] for tests: of this project, and of programs that embed it. Everything that it does follows
//! from its seed. [`SimDisk::crash`] cuts the power and gives the disk as the next start would find it; calls fail,
//! tear and lie when a [`Fault`] says so.
//!
//! # What a crash keeps
//!
//! | | kept for certain | may be kept |
//! |---|---|---|
//! | bytes | covered by a `sync_data` that returned; the range of a `write_durable_at` that returned | any later write, whole, or any of its 512-byte sectors |
//! | length | at the last `sync_data`; what reaches the end of a durable write | any that the file has had since |
//! | names | at the last `sync_dir` of their directory | any later operation that is not [related](NameHabit) to a lost one |
//!
//! For each sector, one value survives that it had since it was last durable. A [`CrashStyle`] is drawn for each crash:
//! everything survives, nothing does, what came first does, or each write has a fate of its own.
//!
//! # What may fail, and where
//!
//! | fault | what it can hit | what a store owes |
//! |---|---|---|
//! | power cut | every call | all that was acknowledged, nothing by halves |
//! | `EIO`, full, short | every call that can meet it | a typed error; nothing is acknowledged that may be lost |
//! | dropped sync | `sync_data` | never to believe a later sync, or what reads show ([`DiskFile::read_device_at`] does not lie) |
//! | slow | every call, under a [`SimRuntime`] | patience |
//! | lost and misdirected writes | `write_durable_at` | to find out; it may refuse to go on |
//! | [`Damage`] at rest | a file that nobody has open | the same; for the newest, unprovable bytes, to end before them |
//!
//! # Many operations at once
//!
//! A [`Queue`] begins its operations and completes them in an order that the seed chooses, and promises
//! no more than [its rules](super::queue): what is in flight at a crash may have happened, wholly, torn or not at
//! all; a sync may begin before a write that was submitted ahead of it. Each operation is a call, and meets the
//! faults of its kind. An idle queue may change threads; one that changes them with operations in flight is an error.
//!
//! # With threads
//!
//! [`SimDisk::with_runtime`] makes every call a switch point of a [`SimRuntime`], and lets it take simulated time; a
//! durable write or sync is then *on its way* while other threads run, and a crash may come in between.
//!
//! # Example
//!
//! ```
//! use seawall_wal::disk::{Disk, DiskFile, Open, SimDisk};
//! use std::path::Path;
//!
//! # fn main() -> std::io::Result<()> {
//! let disk = SimDisk::new(42);
//! let file = disk.open(Path::new("/note"), Open::CreateNew)?;
//! disk.sync_dir(Path::new("/"))?;
//! file.write_durable_at(b"kept", 0)?;
//! file.write_at(b"perhaps", 4)?;
//!
//! let after = disk.crash();
//! assert!(file.write_at(b"too late", 0).is_err());
//! assert!(after.read_file("/note").unwrap().starts_with(b"kept"));
//! # Ok(())
//! # }
//! ```

use super::{Backend, Disk, DiskFile, Open, Queue};
use crate::runtime::SimRuntime;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod content;
mod crash;
mod fault;
mod file;
mod map;
mod names;
mod queue;
mod ranges;
mod rest;
mod state;

pub use crash::CrashStyle;
pub use fault::{Damage, Fault, FaultRates, Op, Zone};
pub use map::CHANGED_UNDER_VIEW;
pub use names::NameHabit;

use fault::{Call, Verdict};
use file::SimFile;
use queue::SimQueue;
use state::{File, State, no_power};

/// A deterministic disk in memory; see the [module](self).
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    /// Never held across a switch point.
    state: Mutex<State>,
    runtime: Option<Arc<SimRuntime>>,
}

impl SimDisk {
    /// An empty disk, all of whose choices follow from `seed`. For one thread, or for threads whose order is nobody's
    /// concern.
    pub fn new(seed: u64) -> Arc<SimDisk> {
        SimDisk::from_state(State::new(seed), None)
    }

    /// An empty disk whose calls are switch points of `runtime`, and take simulated time.
    pub fn with_runtime(seed: u64, runtime: Arc<SimRuntime>) -> Arc<SimDisk> {
        SimDisk::from_state(State::new(seed), Some(runtime))
    }

    fn from_state(state: State, runtime: Option<Arc<SimRuntime>>) -> Arc<SimDisk> {
        Arc::new(SimDisk { shared: Arc::new(Shared { state: Mutex::new(state), runtime }) })
    }

    /// Cuts the power: returns the disk as the next start would find it. Calls to this one, and to its open files, fail
    /// from now on. It can crash again: each time gives another of the states that the power cut could have left.
    ///
    /// Settings (capacity, habits, style) are passed on; faults are not.
    pub fn crash(&self) -> Arc<SimDisk> {
        let mut state = self.shared.state.lock();
        state.has_power = false;
        SimDisk::from_state(state.crashed(), self.shared.runtime.clone())
    }

    /// Ends the process, not the power: what was written stays, synced or not; locks are free again. Calls to this
    /// disk, and to its open files, fail from now on. Returns the disk as the next process finds it; faults are gone.
    pub fn kill(&self) -> Arc<SimDisk> {
        let mut state = self.shared.state.lock();
        let mut gone = State::new(state.rng.next_u64());
        gone.has_power = false;
        let mut next = std::mem::replace(&mut *state, gone);
        next.count("killed");
        next.faults = fault::Faults::default();
        next.locks.clear();
        next.handle_shares.clear();
        next.views = map::Views::default();
        next.in_flight = 0;
        next.open_handles = (0, 0);
        for file in next.files.values_mut() {
            file.handles = 0;
        }
        SimDisk::from_state(next, self.shared.runtime.clone())
    }

    /// Like [`crash`](SimDisk::crash), but this disk goes on: what a power cut at this moment could leave.
    pub fn crash_copy(&self) -> Arc<SimDisk> {
        let next = self.shared.state.lock().crashed();
        SimDisk::from_state(next, self.shared.runtime.clone())
    }

    /// False after a crash or a power cut.
    pub fn has_power(&self) -> bool {
        self.shared.state.lock().has_power
    }

    /// Adds a fault.
    pub fn fail(&self, fault: Fault) {
        self.shared.state.lock().faults.aimed.push(fault);
    }

    /// Forgets all faults, aimed and random.
    pub fn clear_faults(&self) {
        self.shared.state.lock().faults = fault::Faults::default();
    }

    /// Lets faults strike at random.
    pub fn set_fault_rates(&self, rates: FaultRates) {
        self.shared.state.lock().faults.rates = rates;
    }

    /// How many bytes fit, in whole blocks of 4 KiB; `u64::MAX` (as at first) for no bound.
    pub fn set_capacity(&self, bytes: u64) {
        let pages = (bytes != u64::MAX).then_some(bytes / super::BLOCK_BYTES as u64);
        self.shared.state.lock().capacity_pages = pages;
    }

    /// Whether overwriting takes new space, as on btrfs and ZFS, and so can meet a full disk.
    pub fn set_copy_on_write(&self, yes: bool) {
        self.shared.state.lock().is_copy_on_write = yes;
    }

    /// Whether [`DiskFile::read_device_at`] can go round the page cache; it can at first.
    pub fn set_direct(&self, yes: bool) {
        self.shared.state.lock().is_direct = yes;
    }

    /// When names become durable; drawn from the seed at first.
    pub fn set_name_habit(&self, habit: NameHabit) {
        self.shared.state.lock().habit = habit;
    }

    /// What crashes do; `None` (as at first): drawn for each.
    pub fn set_crash_style(&self, style: Option<CrashStyle>) {
        self.shared.state.lock().style = style;
    }

    /// How often each fault, and each thing that a crash can do, was hit: by this disk, by those it came from, and by
    /// those that came from it.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.shared.state.lock().counts.lock().clone()
    }

    /// Calls so far to this disk and its files.
    pub fn calls(&self) -> u64 {
        self.shared.state.lock().calls
    }

    /// The most handles of files that were open at a time, since the disk was made, or left by a crash or a kill.
    pub fn handles_most(&self) -> u64 {
        self.shared.state.lock().open_handles.1
    }

    /// Whether to keep a log of calls. Off at first; passed on by a crash.
    pub fn set_trace(&self, yes: bool) {
        self.shared.state.lock().trace = yes.then(Vec::new);
    }

    /// The log of calls: number, call, path, offset+length, outcome.
    pub fn trace(&self) -> Vec<String> {
        self.shared.state.lock().trace.clone().unwrap_or_default()
    }

    /// A hash of all calls so far, their data and their outcomes: equal for two runs of one seed.
    pub fn trace_hash(&self) -> u64 {
        self.shared.state.lock().hash
    }
}

impl Shared {
    /// Makes one call: a switch point, its fate, its effect, its time.
    fn run<T>(
        &self,
        call: Call<'_>,
        effect: impl FnOnce(&mut State, Verdict) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(runtime) = &self.runtime {
            runtime.yield_point();
        }
        let mut state = self.state.lock();
        let (verdict, time) = state.begin(&call)?;
        let result = effect(&mut state, verdict);
        state.note(&call, &result);
        drop(state);
        self.pass_time(call.op, time);
        result
    }

    fn pass_time(&self, op: Op, time: Duration) {
        let Some(runtime) = &self.runtime else { return };
        match op {
            Op::Read | Op::WriteDurable | Op::Sync | Op::SyncDir => runtime.sleep(time),
            _ => runtime.advance(time),
        }
    }

    /// The second half of a call that the device had to complete.
    fn complete<T>(&self, effect: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if !state.has_power {
            return Err(no_power());
        }
        effect(&mut state)
    }

    /// Makes a call on a path.
    fn run_on<T>(
        &self,
        op: Op,
        path: &Path,
        effect: impl FnOnce(&mut State, Verdict) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = path.to_string_lossy();
        self.run(Call { op, path: &path, offset: 0, len: u64::MAX }, effect)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let (inode, handle) = self.shared.run_on(Op::Open, path, |state, verdict| {
            let (applies, result) = state.fate(verdict);
            if !applies && let Err(error) = result {
                return Err(error);
            }
            let inode = if how == Open::CreateNew {
                let place = state.place(path)?;
                if state.space.visible.get(&place).is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let (inode, id) = (state.new_inode(), state.change());
                state.files.insert(inode, File::default());
                state.space.link(id, place, inode);
                inode
            } else {
                state.resolve_file(path)?
            };
            result?;
            state.next_handle += 1;
            state.count_handle(inode);
            Ok((inode, state.next_handle))
        })?;
        Ok(Arc::new(SimFile {
            shared: Arc::clone(&self.shared),
            inode,
            handle,
            path: path.to_string_lossy().into_owned(),
            is_writable: how != Open::Read,
        }))
    }

    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.shared.run_on(Op::Rename, source, |state, verdict| {
            let (applies, result) = state.fate(verdict);
            let inode = state.resolve(source)?;
            let (source, place) = (state.place(source)?, state.place(target)?);
            let is_dir = state.dirs.contains(&inode);
            match state.space.visible.get(&place) {
                Some(old) if old == inode => return result,
                Some(old) if state.dirs.contains(&old) => return Err(io::ErrorKind::IsADirectory.into()),
                Some(_) if is_dir => return Err(io::ErrorKind::NotADirectory.into()),
                _ => {}
            }
            if applies {
                let id = state.change();
                if let Some(replaced) = state.space.rename(id, source, place, inode) {
                    state.collect(replaced);
                }
            }
            result
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.shared.run_on(Op::Remove, path, |state, verdict| {
            let (applies, result) = state.fate(verdict);
            let inode = state.resolve_file(path)?;
            let place = state.place(path)?;
            if applies {
                let id = state.change();
                state.space.unlink(id, place);
                state.collect(inode);
            }
            result
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.shared.run_on(Op::List, dir, |state, verdict| {
            state.fate(verdict).1?;
            let dir = state.resolve_dir(dir)?;
            Ok(state.space.visible.list(dir).map(|(name, _)| name.to_owned()).collect())
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.shared.run_on(Op::CreateDir, dir, |state, verdict| {
            let (applies, result) = state.fate(verdict);
            if state.resolve_dir(dir).is_ok() {
                return result;
            }
            let place = state.place(dir)?;
            if state.space.visible.get(&place).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if applies {
                let (inode, id) = (state.new_inode(), state.change());
                state.dirs.insert(inode);
                state.space.link(id, place, inode);
            }
            result
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (dir, upto) = self.shared.run_on(Op::SyncDir, dir, |state, verdict| {
            state.fate(verdict).1?;
            Ok((state.resolve_dir(dir)?, state.last_change))
        })?;
        self.shared.complete(|state| {
            let habit = state.habit;
            state.space.sync_dir(dir, upto, habit);
            state.collect_all();
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.shared.run_on(Op::Exists, path, |state, verdict| {
            state.fate(verdict).1?;
            match state.resolve(path) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.shared.run_on(Op::FreeBytes, dir, |state, verdict| {
            state.fate(verdict).1?;
            let free = state.capacity_pages.map(|all| all.saturating_sub(state.used_pages));
            Ok(free.map_or(1 << 50, |pages| pages * super::BLOCK_BYTES as u64))
        })
    }

    /// The simulated machine has one process, number 1.
    fn lock_holder(&self, path: &Path) -> Option<u32> {
        let state = self.shared.state.lock();
        let inode = state.resolve(path).ok()?;
        state.locks.get(&inode).filter(|holders| !holders.is_empty()).map(|_| 1)
    }

    fn describe(&self, _dir: &Path) -> Backend {
        let is_copy_on_write = self.shared.state.lock().is_copy_on_write;
        Backend {
            name: "sim",
            reason: "a disk in memory, for tests; nothing outlives the process".to_owned(),
            file_system: "sim".to_owned(),
            is_network: false,
            is_copy_on_write,
        }
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(SimQueue::new(Arc::clone(&self.shared), depth)))
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("SimDisk").field("calls", &state.calls).field("files", &state.files.len()).finish()
    }
}
