//! Everything behind the disk's mutex: inodes, names, faults, counters, and the effects of calls.

use super::CrashStyle;
use super::content::{Content, SECTOR_BYTES};
use super::fault::{Call, Faults, Op, Verdict, path_parts};
use super::map::Views;
use super::names::{Inode, NameHabit, Namespace, Place, ROOT};
use crate::disk::{BLOCK_BYTES, Lock};
use crate::runtime::{Rng, absorb};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often each fault was hit. Shared by a disk and all that its crashes leave.
pub(super) type Counts = Arc<Mutex<BTreeMap<&'static str, u64>>>;

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) content: Content,
    pub(super) handles: u32,
    /// Its space was given back: only a crash can bring its name back.
    is_released: bool,
}

impl File {
    pub(super) fn new(content: Content) -> File {
        File { content, ..File::default() }
    }
}

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) files: BTreeMap<Inode, File>,
    pub(super) dirs: BTreeSet<Inode>,
    pub(super) space: Namespace,
    pub(super) next_inode: Inode,
    /// The newest change to anything that a crash may or may not keep.
    pub(super) last_change: u64,
    pub(super) has_power: bool,
    pub(super) faults: Faults,
    pub(super) capacity_pages: Option<u64>,
    pub(super) used_pages: u64,
    pub(super) is_copy_on_write: bool,
    pub(super) is_direct: bool,
    pub(super) habit: NameHabit,
    pub(super) style: Option<CrashStyle>,
    /// How slow this device is, in thousandths of the usual.
    pub(super) pace: u64,
    pub(super) locks: BTreeMap<Inode, Vec<(u64, Lock)>>,
    pub(super) views: Views,
    pub(super) next_handle: u64,
    /// Of handles that mappings keep as well, how many do.
    pub(super) handle_shares: BTreeMap<u64, u32>,
    /// Handles that are open, and the most that ever were.
    pub(super) open_handles: (u64, u64),
    /// Operations of queues that have begun and not ended.
    pub(super) in_flight: u64,
    pub(super) hash: u64,
    pub(super) calls: u64,
    pub(super) trace: Option<Vec<String>>,
    pub(super) counts: Counts,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        let mut rng = Rng::new(seed);
        let habit = if rng.chance(1, 2) { NameHabit::Strict } else { NameHabit::Ext4 };
        let pace = 500 + rng.below(2000);
        State {
            rng,
            files: BTreeMap::new(),
            dirs: BTreeSet::from([ROOT]),
            space: Namespace::default(),
            next_inode: ROOT + 1,
            last_change: 0,
            has_power: true,
            faults: Faults::default(),
            capacity_pages: None,
            used_pages: 0,
            is_copy_on_write: false,
            is_direct: true,
            habit,
            style: None,
            pace,
            locks: BTreeMap::new(),
            views: Views::default(),
            next_handle: 0,
            handle_shares: BTreeMap::new(),
            open_handles: (0, 0),
            in_flight: 0,
            hash: seed,
            calls: 0,
            trace: None,
            counts: Counts::default(),
        }
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.counts.lock().entry(what).or_default() += 1;
    }

    /// Starts a call: its fate, and how long it takes.
    pub(super) fn begin(&mut self, call: &Call<'_>) -> io::Result<(Verdict, Duration)> {
        if !self.has_power {
            return Err(no_power());
        }
        self.calls += 1;
        let verdict = self.faults.decide(call, &mut self.rng);
        match (verdict, call.op) {
            (Verdict::Go, _) => {}
            (Verdict::Short, Op::Read) => self.count("short read"),
            (Verdict::Short, _) => self.count("short write"),
            _ => self.count(verdict.name()),
        }
        let base_ns = match call.op {
            Op::WriteDurable => 80_000 + call.len / 8,
            Op::Sync | Op::SyncDir => 60_000,
            Op::Read => 50_000 + call.len / 4,
            Op::Write | Op::Allocate => 5_000 + call.len / 8,
            _ => 2_000,
        };
        let jitter = 750 + self.rng.below(500);
        let nanos = base_ns * self.pace / 1000 * jitter / 1000;
        let nanos = if verdict == Verdict::Slow { nanos * 100 } else { nanos };
        if verdict == Verdict::PowerCut {
            if self.in_flight > 0 {
                self.count("power lost with operations in flight");
            }
            self.has_power = false;
        }
        Ok((verdict, Duration::from_nanos(nanos)))
    }

    /// Ends a call: it enters the trace with what it returned.
    pub(super) fn note<T>(&mut self, call: &Call<'_>, result: &io::Result<T>) {
        let outcome = match result {
            Ok(_) => 0,
            Err(error) => 1 + error.kind() as u64,
        };
        self.note_data(call.path.as_bytes());
        for bits in [call.op as u64, call.offset, call.len, outcome] {
            self.hash = absorb(self.hash, bits);
        }
        if let Some(trace) = &mut self.trace {
            let place =
                if call.len == u64::MAX { String::new() } else { format!(" {}+{}", call.offset, call.len) };
            let outcome = match result {
                Ok(_) => "ok".to_owned(),
                Err(error) => error.to_string(),
            };
            trace.push(format!("{} {} {}{place} {outcome}", self.calls, call.op.name(), call.path));
        }
    }

    /// What was read or written enters the trace's hash.
    pub(super) fn note_data(&mut self, data: &[u8]) {
        self.hash = absorb(self.hash, u64::from(crc32fast::hash(data)));
    }

    /// A new place in the order of all changes.
    pub(super) fn change(&mut self) -> u64 {
        self.last_change += 1;
        self.last_change
    }

    /// Whether a call that changes names or lengths takes effect, and what it returns.
    pub(super) fn fate(&mut self, verdict: Verdict) -> (bool, io::Result<()>) {
        match verdict {
            Verdict::PowerCut => (self.rng.chance(1, 2), Err(no_power())),
            Verdict::Eio => (self.rng.chance(1, 4), Err(eio())),
            Verdict::Full => (false, Err(io::ErrorKind::StorageFull.into())),
            _ => (true, Ok(())),
        }
    }

    // Names.

    pub(super) fn resolve(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for name in path_parts(path) {
            if !self.dirs.contains(&at) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            at = self.space.visible.get(&(at, name)).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(super) fn resolve_file(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.resolve(path)?;
        if self.dirs.contains(&inode) { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(inode) }
    }

    pub(super) fn resolve_dir(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.resolve(path)?;
        if self.dirs.contains(&inode) { Ok(inode) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    /// The directory that a path is in, and its name there.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let mut parts = path_parts(path);
        let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let parent: std::path::PathBuf = parts.iter().collect();
        Ok((self.resolve_dir(&parent)?, name))
    }

    /// The visible path of an inode.
    pub(super) fn path_of(&self, inode: Inode) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = inode;
        while at != ROOT {
            let (parent, name) = self.space.visible.place_of(at)?;
            parts.push(name.clone());
            at = *parent;
        }
        parts.reverse();
        Some(parts.join("/"))
    }

    pub(super) fn new_inode(&mut self) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        inode
    }

    /// Gives back the space of a file that no name and no handle leads to any more, and, when no crash can bring a name
    /// back, the file itself.
    pub(super) fn collect(&mut self, inode: Inode) {
        let Some(file) = self.files.get_mut(&inode) else { return };
        if file.handles > 0 || self.space.visible.place_of(inode).is_some() {
            return;
        }
        if !std::mem::replace(&mut file.is_released, true) {
            self.used_pages = self.used_pages.saturating_sub(file.content.allocated.count());
        }
        if !self.space.is_named(inode) {
            self.files.remove(&inode);
        }
    }

    /// Drops files that became unreachable when names settled.
    pub(super) fn collect_all(&mut self) {
        let inodes: Vec<Inode> = self.files.keys().copied().collect();
        for inode in inodes {
            self.collect(inode);
        }
    }

    /// One more handle of a file is open.
    pub(super) fn count_handle(&mut self, inode: Inode) {
        let open = self.open_handles.0 + 1;
        self.open_handles = (open, self.open_handles.1.max(open));
        if let Some(file) = self.files.get_mut(&inode) {
            file.handles += 1;
        }
    }

    // Bytes.

    pub(super) fn content(&mut self, inode: Inode) -> io::Result<&mut Content> {
        self.files.get_mut(&inode).map(|file| &mut file.content).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Runs a change to a file, and keeps the account of space.
    pub(super) fn edit<T>(&mut self, inode: Inode, edit: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        let content = self.content(inode)?;
        let before = content.allocated.count();
        let result = edit(content);
        let after = content.allocated.count();
        self.used_pages = (self.used_pages + after).saturating_sub(before);
        Ok(result)
    }

    /// How many of `bytes` at `offset` there is room for.
    pub(super) fn room(&mut self, inode: Inode, offset: u64, bytes: u64) -> io::Result<u64> {
        let Some(capacity) = self.capacity_pages else { return Ok(bytes) };
        let free = capacity.saturating_sub(self.used_pages);
        let is_copy_on_write = self.is_copy_on_write;
        let content = self.content(inode)?;
        let needed = |bytes: u64| match is_copy_on_write {
            true => bytes.div_ceil(BLOCK_BYTES as u64),
            false => content.pages_needed(&(offset..offset + bytes)),
        };
        if needed(bytes) <= free {
            return Ok(bytes);
        }
        // The longest prefix that fits; `needed` only grows.
        let (mut fits, mut too_much) = (0, bytes);
        while too_much - fits > 1 {
            let middle = fits + (too_much - fits) / 2;
            if needed(middle) <= free { fits = middle } else { too_much = middle }
        }
        Ok(fits)
    }

    /// Hands a write to the system; a durable one is not yet on the device. `Ok(None)`: acknowledged, and that is all.
    pub(super) fn submit_write(
        &mut self,
        inode: Inode,
        offset: u64,
        bytes: &[u8],
        verdict: Verdict,
    ) -> io::Result<Option<u64>> {
        let id = self.change();
        let error = match verdict {
            Verdict::Go | Verdict::Slow | Verdict::DropSync => {
                let fits = self.room(inode, offset, bytes.len() as u64)? as usize;
                self.edit(inode, |content| content.write(id, &bytes[..fits], offset))?;
                if fits == bytes.len() {
                    return Ok(Some(id));
                }
                self.count("full");
                return Err(io::ErrorKind::StorageFull.into());
            }
            Verdict::Lost => {
                self.edit(inode, |content| {
                    content.write(id, bytes, offset);
                    content.forget(id);
                })?;
                return Ok(None);
            }
            Verdict::Misdirected => {
                self.edit(inode, |content| {
                    content.write(id, bytes, offset);
                    content.forget(id);
                })?;
                self.misdirect(inode, offset, bytes)?;
                return Ok(None);
            }
            Verdict::PowerCut => no_power(),
            Verdict::Full => io::ErrorKind::StorageFull.into(),
            Verdict::Short => io::Error::new(io::ErrorKind::WriteZero, "short write"),
            Verdict::Eio => eio(),
        };
        let room = self.room(inode, offset, bytes.len() as u64)?;
        let done = match self.rng.below(4) {
            0 => 0,
            1 => room,
            _ => self.rng.below(room + 1),
        };
        // A write ends between sectors, wherever it ends early.
        let end = (offset + done) / SECTOR_BYTES * SECTOR_BYTES;
        let done = if done == bytes.len() as u64 { done } else { end.saturating_sub(offset) };
        let never_arrives = verdict == Verdict::Eio && self.rng.chance(1, 3);
        self.edit(inode, |content| {
            content.write(id, &bytes[..done as usize], offset);
            if never_arrives {
                content.forget(id);
            }
        })?;
        Err(error)
    }

    /// Applies a write where it was not meant to go.
    fn misdirect(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let named: Vec<Inode> = self
            .files
            .keys()
            .copied()
            .filter(|inode| self.space.visible.place_of(*inode).is_some())
            .collect();
        let mut victim = inode;
        if self.rng.chance(1, 4) && !named.is_empty() {
            victim = named[self.rng.below(named.len() as u64) as usize];
        }
        let block = BLOCK_BYTES as u64;
        let blocks = self.content(victim)?.visible_len / block;
        let own = offset / block;
        let mut wrong = self.rng.below(blocks.max(1));
        if victim == inode && wrong == own {
            wrong = if own == 0 { 1 } else { own - 1 };
        }
        let start = wrong * block + offset % block;
        // Within the file's length: the device does not know of files, the file system gave it this block.
        let len = self.content(victim)?.visible_len;
        let fits = len.saturating_sub(start).min(bytes.len() as u64) as usize;
        self.edit(victim, |content| content.patch(&bytes[..fits], start))
    }

    /// A sync that fails: what becomes of each pending write of the file.
    pub(super) fn fail_sync(&mut self, inode: Inode, verdict: Verdict) -> io::Result<()> {
        let mut rng = self.rng.fork();
        let drops_all = verdict == Verdict::DropSync;
        let upto = self.last_change;
        let content = self.content(inode)?;
        // An error may come after any part has reached the device: the oldest part, here.
        if !drops_all && rng.chance(1, 2) {
            content.sync(rng.below(upto + 1));
        }
        let keep_one_in = 1 + rng.below(3);
        let lost = content.drop_pending(|_| drops_all || !rng.chance(1, keep_one_in));
        if lost > 0 {
            self.count("pages dropped by a failed sync");
        }
        Ok(())
    }
}

pub(super) fn no_power() -> io::Error {
    io::Error::other("power lost")
}

pub(super) fn eio() -> io::Error {
    // The number of EIO on every system that this project runs on.
    io::Error::from_raw_os_error(5)
}
