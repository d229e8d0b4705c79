//! The data file: copy-on-write B+trees on a 4 KiB grid, one for each keyspace, replaced as a whole by checkpoints.
//!
//! ```text
//! superblock (two slots) ──► tree of roots ──► one tree a keyspace ──► leaves ──► extents of large values
//!            └──────────────► free map
//! ```
//!
//! Every arrow is a [`Ptr`] with the checksum and the birth generation of what it leads to. No block that a published
//! superblock leads to is ever overwritten: a [`Fold`] writes new blocks beside the old ones, makes them durable, and
//! only then writes the next superblock. So a reader needs no locks, only a [`Root`] to keep its blocks from being
//! used again, and a crash at any moment leaves the old tree or the new one.
//!
//! Invariants, cited in the code:
//! - T1: blocks, free map included, are written, and then synced, before the superblock that leads to them is written.
//! - T2: after a failed write or sync nothing more is published; reopening decides from what is on the disk.
//! - T3: a fold that ends without publishing changes nothing.
//! - S1–S3 on space: see `space`.
//!
//! The bytes are described in `docs/format/data.md`.

#![warn(clippy::indexing_slicing)]

mod ahead;
mod block;
mod bytes;
mod cache;
mod changes;
mod codec;
pub(crate) mod cost;
mod file;
mod filter;
mod fold;
mod freemap;
mod front;
pub(crate) mod fuzzing;
mod give_back;
pub(crate) mod image;
mod many;
mod mapped;
mod merge;
mod open;
mod pack;
mod ptr;
pub(crate) mod rewind;
mod run;
#[cfg(all(test, seawall_shuttle))]
mod shuttle_tests;
mod space;
mod stream;
mod superblock;
#[cfg(test)]
mod tests;
mod verify;
mod walk;
mod write;

pub use changes::Change;
pub use fold::Fold;
pub use ptr::{BlockKind, Ptr};
pub use stream::LargeValue;
pub(crate) use stream::{Located, PIECE_BYTES_MAX};
pub use superblock::{FORMAT_VERSION, Superblock};
pub use verify::TreeReport;
pub(crate) use walk::RunRow;
pub use walk::TreeCursor;

use crate::mutation::Mutation;
use crate::sync::Mutex;
use crate::{Error, Result};
use cache::Cache;
use seawall_wal::disk::BlockArena;
use seawall_wal::{Disk, DiskFile, Lsn};
use space::Space;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// The longest value that the format has room for, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// The keyspace id under which the tree of roots is kept; never given out.
pub(crate) const ROOTS_KEYSPACE: u32 = u32::MAX;

/// An open data file. Shared between threads; reads run beside each other and beside a fold.
#[derive(Debug)]
pub struct TreeStore {
    /// Whose queues `file` is read and written by.
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    read_only: bool,
    /// The end of the managed part of the file; what `Space` says, readable without its lock.
    end: AtomicU64,
    cache: Cache,
    /// Where the cache's blocks lie.
    arena: Arc<BlockArena>,
    /// None if all blocks are read into memory.
    mapped: Option<mapped::Mapped>,
    /// Why it is none although it was to be.
    why_unmapped: Option<String>,
    readers: many::Readers,
    space: Arc<Mutex<Space>>,
    is_folding: AtomicBool,
    latest: Mutex<Latest>,
    /// The failure after which nothing may be published any more (T2).
    failure: Mutex<Option<Arc<Error>>>,
    /// Syncs whose outcome is not known yet.
    syncs: Mutex<stream::Syncs>,
    is_sync_early: AtomicBool,
    is_unrepeated: AtomicBool,
    is_punching_early: AtomicBool,
    is_stream_unsynced: AtomicBool,
    is_unpacked_unverified: AtomicBool,
    run_mistake: OnceLock<Mutation>,
    warning: Option<String>,
    totals: Totals,
    memory: Memory,
}

/// Memory beside the cache's, in bytes.
#[derive(Debug, Default)]
struct Memory {
    /// What a fold may work in.
    buffers_max: AtomicU64,
    /// What it does.
    fold_buffers: Arc<AtomicU64>,
    space_map: AtomicU64,
    /// Blocks that are not mapped, whoever has them.
    blocks: Arc<AtomicU64>,
}

/// What a superblock says of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Replay begins here: what is below is not needed.
    pub(crate) replay: Lsn,
    /// The trees have everything below, and nothing from here on.
    pub(crate) covered: Lsn,
}

impl Reach {
    fn of(superblock: &Superblock) -> Reach {
        let replay = superblock.checkpoint_lsn;
        Reach { replay, covered: replay.max(superblock.applied_lsn) }
    }
}

/// The newest published state, and how far into the file the one before it reaches.
#[derive(Clone, Copy, Debug)]
struct Latest {
    generation: u64,
    file_bytes: u64,
    file_bytes_before: u64,
    blocks: u64,
    /// Of the newer superblock, and of the one that was written before it.
    reach: Reach,
    reach_before: Reach,
}

#[derive(Debug, Default)]
struct Totals {
    folds: AtomicU64,
    fold_bytes: AtomicU64,
    fold_bytes_last: AtomicU64,
    returned: AtomicU64,
}

/// A published state of all keyspaces; immutable. While it lives, none of its blocks is used again.
#[derive(Debug)]
pub struct Root {
    /// The superblock's generation.
    pub generation: u64,
    /// The superblock.
    pub superblock: Superblock,
    trees: BTreeMap<u32, Tree>,
    runs: run::Runs,
    space: Arc<Mutex<Space>>,
}

/// A keyspace's tree as a published root has it.
#[derive(Debug)]
struct Tree {
    root: TreeRoot,
    top: walk::Top,
}

impl Root {
    fn new(
        superblock: Superblock,
        trees: BTreeMap<u32, TreeRoot>,
        runs: run::Runs,
        space: &Arc<Mutex<Space>>,
    ) -> Arc<Root> {
        space.lock().pin(superblock.generation);
        let trees = trees
            .into_iter()
            .map(|(keyspace, root)| (keyspace, Tree { root, top: walk::Top::default() }))
            .collect();
        Arc::new(Root {
            generation: superblock.generation,
            superblock,
            trees,
            runs,
            space: Arc::clone(space),
        })
    }

    fn tree(&self, keyspace: u32) -> Option<Ptr> {
        self.trees.get(&keyspace).map(|tree| tree.root.ptr)
    }

    /// The runs of a keyspace, the newest first.
    fn runs(&self, keyspace: u32) -> &[Arc<run::Run>] {
        self.runs.get(&keyspace).map_or(&[], Vec::as_slice)
    }

    /// How many runs a keyspace has, and bytes of their rows.
    pub(crate) fn runs_of(&self, keyspace: u32) -> (u32, u64) {
        let runs = self.runs(keyspace);
        (runs.len() as u32, runs.iter().map(|run| run.root.payload_bytes).sum())
    }

    /// Whether a keyspace has as many as there may be.
    pub(crate) fn has_many_runs(&self) -> bool {
        self.runs.values().any(|runs| runs.len() >= cost::RUNS_MAX as usize)
    }

    pub(crate) fn has_runs(&self, keyspace: u32) -> bool {
        self.runs.contains_key(&keyspace)
    }

    /// The keyspaces that have runs, ascending.
    pub(crate) fn keyspaces_with_runs(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs.keys().copied()
    }

    /// Runs of all keyspaces, and bytes of their rows.
    pub(crate) fn runs_size(&self) -> (u64, u64) {
        let all = || self.runs.values().flatten();
        (all().count() as u64, all().map(|run| run.root.payload_bytes).sum())
    }

    /// Rows of the tree of roots.
    fn roots_count(&self) -> u64 {
        (self.trees.len() + self.runs.values().map(Vec::len).sum::<usize>()) as u64
    }

    fn roots_of(&self, keyspace: u32) -> impl Iterator<Item = &TreeRoot> {
        let tree = self.trees.get(&keyspace).map(|tree| &tree.root);
        tree.into_iter().chain(self.runs(keyspace).iter().map(|run| &run.root))
    }

    /// Rows of a keyspace; at most so many, once a range was cleared, or while it has runs.
    pub fn rows(&self, keyspace: u32) -> u64 {
        self.roots_of(keyspace).map(|root| root.rows).sum()
    }

    /// Bytes of a keyspace's keys and values; at most so many, as with [`rows`](Self::rows).
    pub fn payload_bytes(&self, keyspace: u32) -> u64 {
        self.roots_of(keyspace).map(|root| root.payload_bytes).sum()
    }

    /// The same of all keyspaces together.
    pub(crate) fn payload_bytes_of_all(&self) -> u64 {
        let trees = self.trees.values().map(|tree| tree.root.payload_bytes);
        trees.chain(self.runs.values().flatten().map(|run| run.root.payload_bytes)).sum()
    }

    /// The keyspaces that hold rows, ascending.
    pub fn keyspaces(&self) -> impl Iterator<Item = u32> + '_ {
        let all: std::collections::BTreeSet<u32> =
            self.trees.keys().chain(self.runs.keys()).copied().collect();
        all.into_iter()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // First what it keeps of its blocks (M3).
        drop((std::mem::take(&mut self.trees), std::mem::take(&mut self.runs)));
        self.space.lock().unpin(self.generation);
    }
}

/// What the tree of roots says of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TreeRoot {
    ptr: Ptr,
    rows: u64,
    payload_bytes: u64,
    /// Leaves went unread since these were counted: there are at most so many rows and bytes.
    is_bound: bool,
    /// Values in extents of their own: without any, a dropped tree's leaves need not be read.
    extents: u64,
}

/// Set in the number of rows: it, and that of bytes, is a bound.
const IS_BOUND: u64 = 1 << 63;

/// Bytes of an encoded [`TreeRoot`].
const TREE_ROOT_BYTES: usize = ptr::PTR_BYTES + 24;

impl TreeRoot {
    fn encode(&self) -> [u8; TREE_ROOT_BYTES] {
        let mut out = [0; TREE_ROOT_BYTES];
        bytes::put(&mut out, 0, &self.ptr.encode());
        let rows = self.rows | if self.is_bound { IS_BOUND } else { 0 };
        bytes::put(&mut out, 32, &rows.to_le_bytes());
        bytes::put(&mut out, 40, &self.payload_bytes.to_le_bytes());
        bytes::put(&mut out, 48, &self.extents.to_le_bytes());
        out
    }

    //= docs/format/data.md#tree-of-roots
    fn decode(row: &[u8]) -> Result<TreeRoot, ptr::Flaw> {
        let ptr = Ptr::decode(row)?;
        if row.len() != TREE_ROOT_BYTES || !matches!(ptr.kind, BlockKind::Leaf | BlockKind::Inner) {
            return Err("a keyspace's root row is no root".to_owned());
        }
        Ok(TreeRoot {
            ptr,
            rows: bytes::u64_at(row, 32) & !IS_BOUND,
            is_bound: bytes::u64_at(row, 32) & IS_BOUND != 0,
            payload_bytes: bytes::u64_at(row, 40),
            extents: bytes::u64_at(row, 48),
        })
    }
}

/// Figures of the data file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// The newest generation.
    pub generation: u64,
    /// Bytes of the file that are managed: in use, dead or free.
    pub file_bytes: u64,
    /// Bytes of blocks in use.
    pub live_bytes: u64,
    /// Bytes that a fold may use.
    pub free_bytes: u64,
    /// Bytes of replaced blocks that a superblock or a reader may still want.
    pub dead_bytes: u64,
    /// Blocks in use.
    pub blocks: u64,
    /// Bytes of cached blocks.
    pub cache_bytes: u64,
    /// The cache's budget.
    pub cache_bytes_max: u64,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks read from the file.
    pub cache_misses: u64,
    /// Folds published since the file was opened.
    pub folds: u64,
    /// Bytes that those folds wrote, superblocks included.
    pub fold_bytes: u64,
    /// Bytes that the last of them wrote.
    pub fold_bytes_last: u64,
    /// Bytes of the free ones that were given back to the file system and are holes in the file, as far as is known.
    pub hole_bytes: u64,
    /// Bytes of the file that are mapped and known: read, verified, and found without another look.
    pub mapped_bytes: u64,
    /// Memory that knowing them takes.
    pub mapped_index_bytes: u64,
    /// Memory of blocks that are not in the cache, or not any more, and that somebody has: a reader with a value or a cursor.
    pub held_bytes: u64,
    /// Pieces that were given back since the file was opened: holes made, and tails cut off.
    pub returned: u64,
}

impl TreeStore {
    /// A test's deliberate mistake: space is reused while older roots still need it.
    pub(crate) fn reuse_early(&self) {
        self.space.lock().reuse_early = true;
    }

    /// A test's deliberate mistake: the superblock is not repeated, and what was replaced is used again all the same.
    pub(crate) fn leave_unrepeated(&self) {
        self.is_unrepeated.store(true, Ordering::Relaxed);
    }

    /// A test's deliberate mistake: holes are made where superblocks and readers still lead.
    pub(crate) fn punch_early(&self) {
        self.is_punching_early.store(true, Ordering::Relaxed);
    }

    /// A test's deliberate mistake: a fold syncs before all of its blocks are written.
    pub(crate) fn sync_early(&self) {
        self.is_sync_early.store(true, Ordering::Relaxed);
    }

    /// The cache's budget from now on.
    pub(crate) fn set_cache_bytes(&self, bytes: u64) {
        let known = self.mapped.as_ref().map_or(0, |mapped| {
            mapped.known.set_heap_max(bytes / 2);
            bytes / 2
        });
        self.cache.set_capacity(bytes - known);
    }

    /// What a fold may work in, from the next one on.
    pub(crate) fn set_buffer_bytes(&self, bytes: u64) {
        self.memory.buffers_max.store(bytes, Ordering::Relaxed);
    }

    /// What the fold in hand works in.
    pub(crate) fn fold_buffer_bytes(&self) -> u64 {
        self.memory.fold_buffers.load(Ordering::Relaxed)
    }

    /// What is known of free and dead space takes so much, about.
    pub(crate) fn space_map_bytes(&self) -> u64 {
        self.memory.space_map.load(Ordering::Relaxed)
    }

    /// A test's deliberate mistake with runs.
    pub(crate) fn err_in_runs(&self, mutation: Mutation) {
        let _ = self.run_mistake.set(mutation);
    }

    fn errs_in_runs(&self, mutation: Mutation) -> bool {
        self.run_mistake.get() == Some(&mutation)
    }

    /// A test's deliberate mistake: streamed values are not synced.
    pub(crate) fn stream_unsynced(&self) {
        self.is_stream_unsynced.store(true, Ordering::Relaxed);
    }

    /// A test's deliberate mistake: compressed leaves are unpacked whatever their checksums say.
    pub(crate) fn unpack_unverified(&self) {
        self.is_unpacked_unverified.store(true, Ordering::Relaxed);
    }

    /// Its place, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The largest that the cache may become at present.
    pub(crate) fn cache_bytes_max(&self) -> u64 {
        self.cache.capacity()
    }

    /// The figures of now.
    pub fn stats(&self) -> TreeStats {
        let latest = *self.latest.lock();
        let mut stats = TreeStats {
            generation: latest.generation,
            blocks: latest.blocks,
            cache_bytes: self.cache.bytes(),
            cache_bytes_max: self.cache_bytes_max(),
            cache_hits: self.cache.hits(),
            cache_misses: self.cache.misses(),
            folds: self.totals.folds.load(Ordering::Relaxed),
            fold_bytes: self.totals.fold_bytes.load(Ordering::Relaxed),
            fold_bytes_last: self.totals.fold_bytes_last.load(Ordering::Relaxed),
            held_bytes: self.memory.blocks.load(Ordering::Relaxed).saturating_sub(self.cache.block_bytes()),
            ..TreeStats::default()
        };
        if let Some(mapped) = &self.mapped {
            stats.mapped_bytes = mapped.known.mapped_bytes();
            stats.mapped_index_bytes = mapped.known.heap_bytes();
        }
        let space = self.space.lock();
        stats.file_bytes = space.end();
        stats.live_bytes = space.live_bytes();
        stats.free_bytes = space.free_bytes();
        stats.dead_bytes = space.dead_bytes();
        stats.hole_bytes = space.hole_bytes();
        stats.returned = self.totals.returned.load(Ordering::Relaxed);
        stats
    }

    /// What the newer superblock says of the log, and the older one.
    pub(crate) fn reaches(&self) -> (Reach, Reach) {
        let latest = self.latest.lock();
        (latest.reach, latest.reach_before)
    }

    /// What is wrong with the superblock slot that was not chosen when the file was opened: a checkpoint that a
    /// crash cut short, or damage. The next checkpoint writes over it.
    pub fn superblock_warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Refuses every later fold (T2) and gives the error back.
    fn fail(&self, error: Error) -> Error {
        self.failure.lock().get_or_insert_with(|| Arc::new(error.again()));
        error
    }

    /// Whether a checkpoint can still be published.
    pub(crate) fn is_usable(&self) -> bool {
        self.check_usable().is_ok()
    }

    fn check_usable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        match &*self.failure.lock() {
            Some(cause) => Err(Error::Poisoned(Arc::clone(cause))),
            None => Ok(()),
        }
    }
}
