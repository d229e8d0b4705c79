//! Creating and opening the data file.

use super::cache::Cache;
use super::many::Readers;
use super::mapped::Mapped;
use super::ptr::{FIRST_BLOCK, GRID, Ptr};
use super::run::{Run, Runs};
use super::space::Space;
use super::superblock::{FEATURE_RUNS, FORMAT_VERSION, Refusal, SLOT_BYTES, Superblock};
use super::walk::Walker;
use super::{
    Error, Latest, Memory, ROOTS_KEYSPACE, Reach, Result, Root, Totals, TreeRoot, TreeStore, freemap,
};
use crate::ReadMode;
use crate::record::{BRANCHES, CATALOGUE};
use crate::sync::Mutex;
use seawall_wal::disk::BlockArena;
use seawall_wal::{AlignedBuf, Disk, DiskFile};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What an encoding of some length would hide: the two slots and nothing else.
pub(super) const SLOTS_BYTES: usize = 2 * SLOT_BYTES;

impl TreeStore {
    /// Writes both superblock slots of an empty store and syncs the file. The caller has created it under a temporary
    /// name, and renames it when this has returned. `first` gives the store's identity; what it says of trees and
    /// space is replaced by that of an empty file.
    ///
    /// # Errors
    /// `NoSpace` and `Io`.
    pub fn create(file: Arc<dyn DiskFile>, path: &Path, first: &Superblock) -> Result<()> {
        let newer = Superblock {
            generation: first.generation.max(1),
            file_bytes: FIRST_BLOCK,
            rows: 0,
            blocks: 0,
            live_bytes: 0,
            roots: None,
            free_map: None,
            ..first.clone()
        };
        let older = Superblock { generation: newer.generation - 1, ..newer.clone() };
        let mut slots = buffer(SLOTS_BYTES, path)?;
        for superblock in [older, newer] {
            let at = Superblock::slot_offset(superblock.generation) as usize;
            super::bytes::put(&mut slots, at, &superblock.encode());
        }
        file.write_at(&slots, 0).map_err(|error| Error::io("write", path, Some(0), error))?;
        file.sync_data().map_err(|error| Error::io("sync", path, None, error))
    }

    /// As [`open_in`](Self::open_in), every block being read into memory.
    ///
    /// # Errors
    /// As there.
    pub fn open(
        disk: Arc<dyn Disk>,
        file: Arc<dyn DiskFile>,
        path: &Path,
        cache_bytes: usize,
        read_only: bool,
    ) -> Result<(Arc<TreeStore>, Arc<Root>)> {
        TreeStore::open_in(ReadMode::Cached, disk, file, path, cache_bytes, read_only)
    }

    /// Opens the file, which `disk` has opened, and reads the newest published state; `cache_bytes` is the block
    /// cache's budget.
    ///
    /// The superblocks are read from the device. Where that is not to be had, the chosen one is written once more:
    /// the page cache may show a superblock whose sync failed. Its blocks were durable before it was written (T1).
    ///
    /// # Errors
    /// `Corruption`, `FormatVersion`, `NoSpace` and `Io`.
    pub fn open_in(
        mode: ReadMode,
        disk: Arc<dyn Disk>,
        file: Arc<dyn DiskFile>,
        path: &Path,
        cache_bytes: usize,
        read_only: bool,
    ) -> Result<(Arc<TreeStore>, Arc<Root>)> {
        let Settled { superblock, reach_before, warning } = settle_superblock(&*file, path, read_only)?;
        let len = file.len().map_err(|error| Error::io("length", path, None, error))?;
        let damaged = |offset, what| Error::Corruption { file: path.to_owned(), offset, lsn: None, what };
        if len < superblock.file_bytes {
            let what = format!("the file ends here, and its superblock says at {}", superblock.file_bytes);
            return Err(damaged(len, what));
        }
        let end = superblock.file_bytes.max(len - len % GRID);
        let mapped = (mode == ReadMode::Mapped).then(|| Mapped::new(&*file, end, cache_bytes as u64 / 2));
        let (mapped, why_unmapped) = match mapped.transpose() {
            Ok(mapped) => (mapped, None),
            Err(error) => (None, Some(format!("the data file cannot be mapped: {error}"))),
        };
        let store = TreeStore {
            disk,
            file,
            path: path.to_owned(),
            read_only,
            end: AtomicU64::new(end),
            cache: Cache::new(cache_bytes),
            arena: BlockArena::new(),
            mapped,
            why_unmapped,
            readers: Readers::default(),
            space: Arc::new(Mutex::new(Space::default())),
            is_folding: AtomicBool::new(false),
            latest: Mutex::new(Latest {
                generation: superblock.generation,
                file_bytes: superblock.file_bytes,
                // The other slot may reach as far as the file does.
                file_bytes_before: end,
                blocks: superblock.blocks,
                reach: Reach::of(&superblock),
                reach_before,
            }),
            failure: Mutex::new(None),
            syncs: Mutex::default(),
            is_sync_early: AtomicBool::new(false),
            is_unrepeated: AtomicBool::new(false),
            is_punching_early: AtomicBool::new(false),
            is_stream_unsynced: AtomicBool::new(false),
            is_unpacked_unverified: AtomicBool::new(false),
            run_mistake: OnceLock::new(),
            warning,
            totals: Totals::default(),
            memory: Memory::default(),
        };
        let mut space = store.load_space(&superblock, end)?;
        space.known = store.mapped.as_ref().map(|mapped| Arc::clone(&mapped.known));
        store.memory.space_map.store(space.memory_bytes(), Ordering::Relaxed);
        *store.space.lock() = space;
        let store = Arc::new(store);
        let (trees, runs) = store.load_roots(&superblock)?;
        let root = Root::new(superblock, trees, runs, &store.space);
        Ok((store, root))
    }

    fn load_space(&self, superblock: &Superblock, end: u64) -> Result<Space> {
        let (free, dead) = match &superblock.free_map {
            Some(ptr) => {
                let block = self.read_verified(ptr)?;
                freemap::decode(&block, ptr, superblock.file_bytes)
                    .map_err(|flaw| self.corruption(ptr.offset, flaw))?
            }
            None => (Vec::new(), Vec::new()),
        };
        let at = superblock.free_map.map_or(0, |ptr| ptr.offset);
        let space = Space::new(superblock.file_bytes, &free, dead).and_then(|mut space| {
            space.grow(end)?;
            Ok(space)
        });
        space.map_err(|flaw| self.corruption(at, flaw))
    }

    fn load_roots(&self, superblock: &Superblock) -> Result<(BTreeMap<u32, TreeRoot>, Runs)> {
        let (mut trees, mut runs) = (BTreeMap::new(), Runs::new());
        let mut walker = Walker::new(superblock.roots, ROOTS_KEYSPACE);
        walker.seek_first(self)?;
        let mut key = Vec::new();
        while let Some(row) = walker.next(self)? {
            let Some(leaf) = walker.leaf() else { break };
            leaf.key_into(row, &mut key);
            let (_, payload) = leaf.raw_payload(row);
            let offset = leaf.ptr().offset;
            let flawed = |flaw| self.corruption(offset, flaw);
            let Some((id, number)) = id_of(&key).filter(|(id, _)| *id < ROOTS_KEYSPACE) else {
                return Err(flawed("a keyspace's root has no id".to_owned()));
            };
            let fits = match number {
                None => {
                    let tree = TreeRoot::decode(payload).map_err(flawed)?;
                    trees.insert(id, tree);
                    self.fits(&tree.ptr, superblock)
                }
                Some(_) if id == CATALOGUE || id == BRANCHES => {
                    return Err(flawed(format!("keyspace {id:#x} has a run, and may have none")));
                }
                Some(number) => {
                    let run = Run::decode(number, payload).map_err(flawed)?;
                    let fits = self.fits(&run.root.ptr, superblock) && self.fits(run.filter_at(), superblock);
                    // Numbers ascend as keys do, and the newest comes first.
                    runs.entry(id).or_default().insert(0, run);
                    fits
                }
            };
            if !fits {
                return Err(flawed("a keyspace's root leads out of the file".to_owned()));
            }
        }
        if !runs.is_empty() && superblock.features_incompatible & FEATURE_RUNS == 0 {
            let at = superblock.roots.map_or(0, |ptr| ptr.offset);
            return Err(self.corruption(at, "there are runs, and the superblock says that there are none"));
        }
        Ok((trees, runs))
    }

    fn fits(&self, ptr: &Ptr, superblock: &Superblock) -> bool {
        ptr.end() <= self.end.load(Ordering::Acquire) && ptr.birth <= superblock.generation
    }
}

/// A keyspace, and for one of its runs the run's number.
fn id_of(key: &[u8]) -> Option<(u32, Option<u32>)> {
    let (id, rest) = key.split_first_chunk::<4>()?;
    let number = match rest {
        [] => None,
        rest => Some(u32::from_be_bytes(rest.try_into().ok()?)),
    };
    Some((u32::from_be_bytes(*id), number))
}

pub(super) fn buffer(bytes: usize, path: &Path) -> Result<AlignedBuf> {
    AlignedBuf::zeroed(bytes).map_err(|error| Error::Io {
        op: "buffer",
        path: path.to_owned(),
        offset: None,
        source: error,
    })
}

/// The superblock that counts, and what there is of the other one.
struct Settled {
    superblock: Superblock,
    /// As this one's, if there is none.
    reach_before: Reach,
    warning: Option<String>,
}

/// Reads both slots, chooses, and makes sure that what was chosen is on the device.
fn settle_superblock(file: &dyn DiskFile, path: &Path, read_only: bool) -> Result<Settled> {
    let mut slots = buffer(SLOTS_BYTES, path)?;
    let (read, from_device) =
        file.read_device_at(&mut slots, 0).map_err(|error| Error::io("read", path, Some(0), error))?;
    let damaged = |offset, what| Error::Corruption { file: path.to_owned(), offset, lsn: None, what };
    if read < SLOTS_BYTES {
        return Err(damaged(read as u64, "the file ends within the superblocks".to_owned()));
    }
    let (first, second) = slots.split_at(SLOT_BYTES);
    let (superblock, warning) = match Superblock::choose([first, second]) {
        Ok(chosen) => chosen,
        Err(Refusal::Newer(found)) => {
            return Err(Error::FormatVersion { found, supported: FORMAT_VERSION..=FORMAT_VERSION });
        }
        Err(Refusal::Damaged { offset, flaw }) => return Err(damaged(offset, flaw)),
    };
    if !read_only {
        if !from_device {
            let offset = Superblock::slot_offset(superblock.generation);
            let slot = if offset == 0 { first } else { second };
            let written = file.write_durable_at(slot, offset);
            written.map_err(|error| Error::io("write", path, Some(offset), error))?;
        }
        file.sync_data().map_err(|error| Error::io("sync", path, None, error))?;
    }
    let older = Superblock::other([first, second], &superblock);
    let reach_before = Reach::of(older.as_ref().unwrap_or(&superblock));
    Ok(Settled { superblock, reach_before, warning })
}
