//! Segment files ahead of need: filled with zeros, synced, and already under the name that they will serve under, so
//! that a rotation costs one durable write of a header. Overwriting blocks that were written before needs no journal
//! commit of the file system. A log that is written faster than files can be filled does not wait for that: its segment
//! gets its space reserved, and each write there pays the file system's price, until the filler has caught up.
//!
//! A file made ahead is not begun: its header does not parse, or, where an old segment was renamed, says another
//! number. States of a file, and who changes them:
//!
//! ```text
//! (none) --create--> NAME.tmp --publish--> ready --Writer::rotate--> live --retire--> old --reuse--> ready
//!                                                                            `--remove--> (none)
//! ```
//!
//! A log that has been idle for long *rests*: what is kept ready goes back to the file system as well, but for one file once
//! a first segment was filled or the live one is half written ([`rest`]). Whoever gives out positions is told under the
//! same lock under which files come and go ([`Spares::publish_end`]), so that none is given out that has no file.

use crate::Lsn;
use crate::buf::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, DurableWrite, Lock, Open, crashsafe};
use crate::error::{Error, Result};
use crate::latch::Latch;
use crate::open::is_temporary;
use crate::runtime::Runtime;
use crate::segment::{self, Geometry};
use crate::stats::{Counters, add};
use crate::sync::{AtomicBool, Mutex, Ordering};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod rest;

/// Files kept ready ahead of the live segment once the log is busy.
pub(crate) const READY_MAX: usize = 2;

/// Old files kept beyond that while the log is busy.
const REUSED_MAX: usize = 6;

pub(crate) const TEMPORARY: &str = "segment.tmp";
pub(crate) const URGENT: &str = "urgent.tmp";

#[derive(Debug)]
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    geometry: Geometry,
    /// One at a time fills a file ahead of need: held for as long as that takes.
    filling: Latch,
    /// One at a time gives a file the next segment's name, or takes one's away: held across a rename and a sync of the
    /// directory, and removals by a log at rest. Whoever has no file to write to waits for this, and for nothing longer.
    naming: Latch,
    has_filler: AtomicBool,
    state: Mutex<State>,
    runtime: Arc<dyn Runtime>,
    counters: Arc<Counters>,
    durable_write: Option<DurableWrite>,
}

#[derive(Debug)]
struct State {
    ready: VecDeque<(u64, Arc<dyn DiskFile>)>,
    /// The number that the next file made ready gets.
    next: u64,
    /// Names of whole segment files that nobody needs any more.
    old: Vec<String>,
    /// Files made ready since the log was last idle: a log that needs many gets to keep more of its own.
    recent: usize,
    rest: rest::Rest,
}

impl Spares {
    pub(crate) fn new(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        geometry: Geometry,
        runtime: &Arc<dyn Runtime>,
        counters: &Arc<Counters>,
        next: u64,
        durable_write: Option<DurableWrite>,
    ) -> Spares {
        Spares {
            disk: disk.clone(),
            dir: dir.to_owned(),
            geometry,
            filling: Latch::new(runtime.clone()),
            naming: Latch::new(runtime.clone()),
            has_filler: AtomicBool::new(false),
            state: Mutex::new(State {
                ready: VecDeque::new(),
                next,
                old: Vec::new(),
                recent: 0,
                rest: rest::Rest::default(),
            }),
            runtime: runtime.clone(),
            counters: counters.clone(),
            durable_write,
        }
    }

    /// The end of the positions for which files exist.
    pub(crate) fn ready_end(&self) -> Lsn {
        self.geometry.start(self.state.lock().next)
    }

    /// Calls `publish` with that end, which does not change meanwhile.
    pub(crate) fn publish_end(&self, publish: impl FnOnce(Lsn)) {
        let state = self.state.lock();
        publish(self.geometry.start(state.next));
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// The number of the segment that begins next.
    pub(crate) fn next_number(&self) -> u64 {
        let state = self.state.lock();
        state.ready.front().map_or(state.next, |(number, _)| *number)
    }

    /// Takes over a file that recovery found ready: whole, locked, and next in number.
    pub(crate) fn adopt_ready(&self, number: u64, file: Arc<dyn DiskFile>) -> bool {
        let mut state = self.state.lock();
        let is_next = state.next == number;
        if is_next {
            state.ready.push_back((number, file));
            state.next += 1;
        }
        is_next
    }

    /// Takes over a whole file that nobody needs: it will be renamed, or removed.
    pub(crate) fn adopt_old(&self, name: String) {
        self.state.lock().old.push(name);
    }

    /// Hands out the file of the next segment.
    pub(crate) fn take(&self, number: u64) -> Option<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let is_next = state.ready.front().is_some_and(|(ready, _)| *ready == number);
        if is_next { state.ready.pop_front().map(|(_, file)| file) } else { None }
    }

    /// The file of a segment whose number somebody else has chosen. Numbers before it are passed over.
    ///
    /// # Errors
    /// Like [`ensure`](Spares::ensure); and for a number that was passed.
    pub(crate) fn file_for(&self, number: u64) -> Result<Arc<dyn DiskFile>> {
        {
            let _naming = self.naming.lock();
            let mut state = self.state.lock();
            while state.ready.front().is_some_and(|(ready, _)| *ready < number) {
                let passed = state.ready.pop_front();
                state.old.extend(passed.map(|(ready, _)| segment::file_name(ready)));
            }
            if state.ready.is_empty() {
                state.next = state.next.max(number);
            }
        }
        self.ensure(self.geometry.end(number))?;
        self.take(number).ok_or_else(|| {
            Error::BadInput(format!("segment {number} was shipped behind one of a higher number"))
        })
    }

    /// Takes back a file that was handed out and holds nothing of the log yet.
    pub(crate) fn put_back(&self, number: u64, file: Arc<dyn DiskFile>) {
        self.state.lock().ready.push_front((number, file));
    }

    /// Makes files ready until positions before `end` have one.
    ///
    /// # Errors
    /// [`Error::NoSpace`], and what the system says; what is ready stays ready.
    pub(crate) fn ensure(&self, end: Lsn) -> Result<()> {
        while self.ready_end() < end {
            let _one_at_a_time = self.naming.lock();
            if self.ready_end() >= end || self.reuse()? {
                continue;
            }
            // Somebody waits: space is reserved now, and filled by what is written there.
            let path = self.dir.join(URGENT);
            let file = self.create(&path, !self.has_filler.load(Ordering::Acquire))?;
            self.publish(file, &path)?;
        }
        Ok(())
    }

    /// Says that a thread calls [`top_up`](Spares::top_up) in time: whoever finds nothing ready is in a hurry.
    pub(crate) fn has_filler(&self) {
        self.has_filler.store(true, Ordering::Release);
    }

    /// Makes one file ready, if fewer than `count` are. False if there were enough.
    ///
    /// # Errors
    /// Like [`ensure`](Spares::ensure).
    pub(crate) fn top_up(&self, count: usize) -> Result<bool> {
        let _one_at_a_time = self.filling.lock();
        if self.ready_count() >= count {
            return Ok(false);
        }
        {
            let _naming = self.naming.lock();
            if self.reuse()? {
                return Ok(true);
            }
        }
        let path = self.dir.join(TEMPORARY);
        let file = self.create(&path, true)?;
        let _naming = self.naming.lock();
        self.publish(file, &path)?;
        Ok(true)
    }

    /// Takes files whose positions the anchor no longer covers: some are kept for reuse, the others removed.
    /// Returns how many bytes went back to the file system.
    ///
    /// # Errors
    /// What the system says; files left behind are found again at the next opening.
    pub(crate) fn retire(&self, numbers: &[u64]) -> Result<u64> {
        let mut freed = 0;
        let mut removed = false;
        for &number in numbers {
            let name = segment::file_name(number);
            let keep = {
                let mut state = self.state.lock();
                let most = if state.rest.is_on() { 1 } else { READY_MAX + state.recent.min(REUSED_MAX) };
                let keep = state.ready.len() + state.old.len() < most;
                if keep {
                    state.old.push(name.clone());
                }
                keep
            };
            if !keep {
                let path = self.dir.join(name);
                match self.disk.remove(&path) {
                    Ok(()) => freed += self.geometry.segment_bytes,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(source) => return Err(Error::io("remove", &path, None, source)),
                }
                removed = true;
            }
        }
        if removed {
            self.sync_dir()?;
        }
        Ok(freed)
    }

    /// The log is idle: what a busy one kept for reuse goes back to the file system.
    pub(crate) fn rest(&self) -> Result<()> {
        let is_more = {
            let mut state = self.state.lock();
            state.recent = 0;
            state.ready.len() + state.old.len() > READY_MAX && !state.old.is_empty()
        };
        if is_more { self.trim() } else { Ok(()) }
    }

    /// Removes what [`retire`](Spares::retire) or recovery left over beyond what will be reused.
    pub(crate) fn trim(&self) -> Result<()> {
        let surplus: Vec<String> = {
            let mut state = self.state.lock();
            let keep = READY_MAX.saturating_sub(state.ready.len()).min(state.old.len());
            state.old.split_off(keep)
        };
        for name in surplus.iter().rev() {
            let path = self.dir.join(name);
            self.disk.remove(&path).map_err(|source| Error::io("remove", &path, None, source))?;
        }
        if surplus.is_empty() { Ok(()) } else { self.sync_dir() }
    }

    /// Gives an old file to the next segment, if there is one. `naming` is held.
    fn reuse(&self) -> Result<bool> {
        let (number, old) = {
            let mut state = self.state.lock();
            // A file that has the name already must be the one that takes it, or a rename would replace it.
            let name = segment::file_name(state.next);
            let own = state.old.iter().position(|old| *old == name);
            let old = own.map(|at| state.old.swap_remove(at)).or_else(|| state.old.pop());
            (state.next, old)
        };
        let Some(old) = old else { return Ok(false) };
        let (source, target) = (self.dir.join(old), self.dir.join(segment::file_name(number)));
        self.disk.rename(&source, &target).map_err(|e| Error::io("rename", &source, None, e))?;
        let file = self.disk.open(&target, Open::ReadWrite);
        let file = file.map_err(|source| Error::io("open", &target, None, source))?;
        self.lock(&file, &target)?;
        add(&self.counters.segments_recycled, 1);
        self.make_ready(number, file)?;
        Ok(true)
    }

    /// Gives a new file to the next segment. `naming` is held.
    fn publish(&self, file: Arc<dyn DiskFile>, path: &Path) -> Result<()> {
        let number = self.state.lock().next;
        let target = self.dir.join(segment::file_name(number));
        self.disk.rename(path, &target).map_err(|source| Error::io("rename", path, None, source))?;
        add(&self.counters.segments_created, 1);
        self.state.lock().rest.made(self.runtime.now());
        self.make_ready(number, file)
    }

    fn make_ready(&self, number: u64, file: Arc<dyn DiskFile>) -> Result<()> {
        if let Some(way) = self.durable_write {
            file.prefer_durable_write(way);
        }
        // The name is durable before anything is acknowledged in the file (bugs 2 and 3).
        self.sync_dir()?;
        let mut state = self.state.lock();
        state.ready.push_back((number, file));
        state.next = number + 1;
        state.recent += 1;
        Ok(())
    }

    /// A new file that reads as zeros, durable but for its final name; filled with them, so that overwriting needs no
    /// journal commit of the file system, or with its space reserved only.
    fn create(&self, path: &Path, is_filled: bool) -> Result<Arc<dyn DiskFile>> {
        remove_leftover(&*self.disk, path)?;
        let file = self
            .disk
            .open(path, Open::CreateNew)
            .map_err(|source| Error::io("create", path, None, source))?;
        self.lock(&file, path)?;
        let bytes = self.geometry.segment_bytes;
        let made = if is_filled { file.allocate(0, bytes) } else { file.reserve(0, bytes) };
        let made = made
            .map_err(|source| Error::io("allocate", path, None, source))
            .and_then(|()| file.sync_data().map_err(|source| Error::io("sync", path, None, source)));
        if let Err(error) = made {
            // Best effort: a full disk should not stay full of half a segment.
            drop(file);
            let _ = self.disk.remove(path);
            return Err(error);
        }
        Ok(file)
    }

    fn lock(&self, file: &Arc<dyn DiskFile>, path: &Path) -> Result<()> {
        lock_file(&*self.disk, &**file, path)
    }

    fn sync_dir(&self) -> Result<()> {
        self.disk.sync_dir(&self.dir).map_err(|source| Error::io("sync directory", &self.dir, None, source))
    }
}

/// Takes the exclusive lock of a log file, or says who has it.
pub(crate) fn lock_file(disk: &dyn Disk, file: &dyn DiskFile, path: &Path) -> Result<()> {
    match file.try_lock(Lock::Exclusive) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Locked { path: path.to_owned(), pid: disk.lock_holder(path) }),
        Err(source) => Err(Error::io("lock", path, None, source)),
    }
}

/// Removes a file that a crash left under a temporary name.
pub(crate) fn remove_leftover(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("remove", path, None, source)),
    }
}

/// Writes a small file so that a crash leaves it whole or not there at all: temporary name, sync, rename, sync of
/// the directory.
pub(crate) fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut buf = AlignedBuf::zeroed(bytes.len().next_multiple_of(BLOCK_BYTES))
        .map_err(|source| Error::io("map memory for", path, None, source))?;
    crate::bytes::put(&mut buf, 0, bytes);
    crashsafe::write_new(disk, path, &buf)
        .map(|_| ())
        .map_err(|source| Error::io("create", path, None, source))
}

/// Opens a segment's file to write to it.
pub(crate) fn open_locked(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Arc<dyn DiskFile>> {
    let path = dir.join(segment::file_name(number));
    let file = disk.open(&path, Open::ReadWrite).map_err(|source| Error::io("open", &path, None, source))?;
    lock_file(disk, &*file, &path)?;
    Ok(file)
}

/// Sorts the files that are not part of the log: ready for the next segments, to be reused, or to be removed. Some of
/// them are open and locked.
pub(crate) fn adopt(
    disk: &dyn Disk,
    dir: &Path,
    spares: &Spares,
    numbers: &[u64],
    mut files: BTreeMap<u64, Arc<dyn DiskFile>>,
    geometry: Geometry,
    highest_begun: u64,
) -> Result<()> {
    for &number in numbers {
        let name = segment::file_name(number);
        let target = dir.join(&name);
        let file = match files.remove(&number) {
            Some(file) => file,
            None => open_locked(disk, dir, number)?,
        };
        let bytes = file.len().map_err(|source| Error::io("stat", &target, None, source))?;
        let whole = bytes == geometry.segment_bytes;
        if whole && number > highest_begun && spares.adopt_ready(number, file) {
            continue;
        }
        if whole {
            spares.adopt_old(name);
        } else {
            remove_leftover(disk, &target)?;
        }
    }
    for name in disk.list(dir).map_err(|source| Error::io("list", dir, None, source))? {
        if is_temporary(&name) {
            remove_leftover(disk, &dir.join(name))?;
        }
    }
    Ok(())
}
