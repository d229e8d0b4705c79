//! A fold: the next generation of the trees, from changes to superblock.
//!
//! ```text
//! begin_fold ──► apply, drop_keyspace … ──► finish: roots ─► free map ─► sync ─► superblock ─► in memory
//!      └───────────────┴──────────── dropped, or an error ──► everything taken is given back (T3)
//! ```
//!
//! Blocks are written as they fill, several runs in flight, unsynced; nothing leads to them. `finish` writes the tree
//! of roots and the free map, waits for all writes, syncs the file (T1), and writes the superblock durably into the slot of the generation before last. From the
//! first failed sync or superblock write on, the store publishes nothing any more (T2).

use super::block::{Block, EXTENT_PAYLOAD_BYTES, FORM_EXTENT, FORM_PIECES, Payload};
use super::changes::{Change, Changes};
use super::freemap;
use super::merge::{Making, Old, merge};
use super::pack::{Packed, Packer};
use super::ptr::{BlockKind, GRID, Ptr};
use super::run::Runs;
use super::space::{Dead, Extent};
use super::stream::LargeValue;
use super::superblock::{FEATURE_RUNS, SLOT_BYTES, Superblock};
use super::write::{Writer, Written};
use super::{Error, Latest, ROOTS_KEYSPACE, Reach, Result, Root, TreeRoot, TreeStore};
use crate::cover::Span;
use crate::mutation::Mutation;
use crate::record::Compression;
use seawall_wal::Slice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

mod runs;

type StageHook = Box<dyn FnMut(&'static str) + Send>;

/// The next generation, being built. Only one at a time; dropping it gives it up.
pub struct Fold {
    store: Arc<TreeStore>,
    base: Arc<Root>,
    building: u64,
    writer: Writer,
    dead: Vec<Dead>,
    /// Values in extents of their own that no tree has yet, by their first offset.
    awaited: BTreeMap<u64, LargeValue>,
    /// Of those that came: what the new generation has, or has done with.
    adopted: BTreeSet<Extent>,
    trees: BTreeMap<u32, TreeRoot>,
    runs: Runs,
    /// Keyspaces whose tree, or whose run of that number, is another one.
    changed: BTreeSet<(u32, Option<u32>)>,
    last_applied: Option<u32>,
    blocks_written: u64,
    blocks_killed: u64,
    cached: Vec<Ptr>,
    stage: Option<StageHook>,
    has_failed: bool,
    is_done: bool,
}

impl std::fmt::Debug for Fold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fold").field("building", &self.building).finish_non_exhaustive()
    }
}

impl TreeStore {
    /// Begins generation `root.generation + 1`. `root` must be the newest.
    ///
    /// # Errors
    /// `ReadOnly`; `Poisoned` after a failed write, sync or superblock; `BadInput` if another fold is running or the
    /// root is not the newest; `Corruption` if the free space contradicts itself.
    pub fn begin_fold(self: &Arc<Self>, root: &Arc<Root>) -> Result<Fold> {
        self.check_usable()?;
        if self.is_folding.swap(true, Ordering::AcqRel) {
            return Err(Error::BadInput("another fold is running".to_owned()));
        }
        let mut fold = Fold {
            store: Arc::clone(self),
            base: Arc::clone(root),
            building: root.generation.saturating_add(1),
            writer: Writer::new(Arc::clone(self)),
            dead: Vec::new(),
            awaited: BTreeMap::new(),
            adopted: BTreeSet::new(),
            trees: root.trees.iter().map(|(keyspace, tree)| (*keyspace, tree.root)).collect(),
            runs: root.runs.clone(),
            changed: BTreeSet::new(),
            last_applied: None,
            blocks_written: 0,
            blocks_killed: 0,
            cached: Vec::new(),
            stage: None,
            has_failed: false,
            is_done: false,
        };
        if self.latest.lock().generation != root.generation {
            return Err(Error::BadInput("a fold must begin at the newest root".to_owned()));
        }
        let released = self.space.lock().release(fold.building);
        if let Err(flaw) = released {
            fold.has_failed = true;
            return Err(self.fail(self.corruption(0, flaw)));
        }
        if let Some(map) = root.superblock.free_map {
            fold.writer.reserve_map(u64::from(map.bytes));
        }
        Ok(fold)
    }
}

impl Fold {
    /// Names each stage of [`finish`](Self::finish) as it is passed: `"blocks written"`, `"blocks synced"`,
    /// `"superblock written"`.
    pub fn on_stage(&mut self, hook: impl FnMut(&'static str) + Send + 'static) {
        self.stage = Some(Box::new(hook));
    }

    /// Merges changes, in strictly ascending key order, into a keyspace, which need not exist. Keyspaces come in
    /// ascending order too, each once.
    ///
    /// # Errors
    /// Whatever the iterator gives; `BadInput` for a wrong order; `TooLarge`; `NoSpace`; `Corruption`; `Io`. After
    /// any of them the fold can only be dropped.
    pub fn apply<K: AsRef<[u8]>>(
        &mut self,
        keyspace: u32,
        changes: impl Iterator<Item = Result<(K, Change)>>,
    ) -> Result<()> {
        self.apply_over(keyspace, Compression::None, Vec::new(), changes, &mut || {})
    }

    /// As [`apply`](Self::apply), with the rows of all runs that the keyspace has, after all rows of the spans are gone, which come in key order, none touching another. What lies wholly in
    /// one of them is not read, but for the blocks that lead to it. Leaves that are written are compressed so, whatever
    /// the others are. `on_row` is called after each row that there is to merge if there are runs.
    pub(crate) fn apply_over<K: AsRef<[u8]>>(
        &mut self,
        keyspace: u32,
        compression: Compression,
        cleared: Vec<Span>,
        changes: impl Iterator<Item = Result<(K, Change)>>,
        on_row: &mut dyn FnMut(),
    ) -> Result<()> {
        self.guarded(|fold| {
            fold.comes_to(keyspace)?;
            let mut changes = changes.peekable();
            let runs = fold.runs.remove(&keyspace).unwrap_or_default();
            if runs.is_empty() {
                let is_idle = changes.peek().is_none() && cleared.is_empty();
                return if is_idle { Ok(()) } else { fold.merge(keyspace, compression, cleared, changes) };
            }
            fold.take_in(keyspace, compression, (&runs, &Span::all()), cleared, changes, on_row)?;
            for run in &runs {
                // Its values have moved, or were hidden.
                fold.kill_run(keyspace, run, false)?;
            }
            if fold.store.errs_in_runs(Mutation::RunKept) {
                fold.runs.insert(keyspace, runs);
                fold.changed.retain(|(_, number)| number.is_none());
            }
            Ok(())
        })
    }

    /// Keyspaces are told of in ascending order, each once.
    fn comes_to(&mut self, keyspace: u32) -> Result<()> {
        if keyspace >= ROOTS_KEYSPACE - 1 || self.last_applied.is_some_and(|last| last >= keyspace) {
            return Err(Error::BadInput(format!("keyspace {keyspace} is out of order in a fold")));
        }
        self.last_applied = Some(keyspace);
        Ok(())
    }

    fn merge<K: AsRef<[u8]>>(
        &mut self,
        keyspace: u32,
        compression: Compression,
        cleared: Vec<Span>,
        changes: impl Iterator<Item = Result<(K, Change)>>,
    ) -> Result<()> {
        let mut changes = Changes::new(changes)?;
        let tree = self.trees.get(&keyspace).copied();
        let old = Old { tree, cleared, keeps_values: false, compression };
        self.changed.insert((keyspace, None));
        match merge(self, keyspace, Making::Tree, old, &mut changes)?.0 {
            Some(tree) => self.trees.insert(keyspace, tree),
            None => self.trees.remove(&keyspace),
        };
        Ok(())
    }

    /// Frees a keyspace's whole tree, and its runs. No rows, no error.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn drop_keyspace(&mut self, keyspace: u32) -> Result<()> {
        self.guarded(|fold| {
            // They may have been written by this very fold.
            fold.writer.settle()?;
            for run in fold.runs.remove(&keyspace).unwrap_or_default() {
                fold.kill_run(keyspace, &run, run.root.extents > 0)?;
            }
            let Some(tree) = fold.trees.remove(&keyspace) else { return Ok(()) };
            fold.changed.insert((keyspace, None));
            fold.kill_below(keyspace, &tree.ptr, tree.extents > 0).map(drop)
        })
    }

    /// Frees a subtree. Without large values its leaves are not read; else what they held is counted.
    pub(super) fn kill_below(&mut self, keyspace: u32, ptr: &Ptr, has_extents: bool) -> Result<Option<Held>> {
        let mut held = Held::default();
        let mut waiting = vec![*ptr];
        while let Some(ptr) = waiting.pop() {
            self.kill(&ptr);
            if ptr.level == 0 && !has_extents {
                continue;
            }
            let (block, _) = self.store.load_once(&ptr, keyspace)?;
            for index in 0..block.count() {
                let payload = block.payload(index).map_err(|flaw| self.store.corruption(ptr.offset, flaw))?;
                let value_bytes = payload.value_bytes();
                match payload {
                    Payload::Child(child) => {
                        waiting.push(child);
                        continue;
                    }
                    apart if apart.is_apart() => {
                        self.kill_value(&apart)?;
                        held.extents += 1;
                    }
                    _ => {}
                }
                held.rows += 1;
                held.payload_bytes += (block.prefix().len() + block.suffix(index).len()) as u64 + value_bytes;
            }
        }
        Ok(has_extents.then_some(held))
    }

    /// Makes the new generation durable and gives its root. `set` fills in what the superblock says beside trees and
    /// space (replay position, next keyspace id, times); it must not touch the store's identity.
    ///
    /// # Errors
    /// `NoSpace`: nothing has changed, try again later. `Io`: a failed write, sync or superblock; which generation is
    /// on the disk is decided by reopening. `Corruption`; and `BadInput` if an earlier step failed.
    pub fn finish(mut self, set: impl FnOnce(&mut Superblock)) -> Result<Arc<Root>> {
        self.guarded(|fold| {
            let roots = fold.write_roots()?;
            fold.kill_unwanted();
            let map = fold.write_free_map()?;
            let is_early = fold.store.is_sync_early.load(Ordering::Relaxed);
            if !is_early {
                fold.writer.settle()?;
            }
            fold.passed("blocks written");
            // T1: nothing may lead to blocks that are not on the device.
            fold.store.sync_blocks()?;
            if is_early {
                fold.writer.settle()?;
            }
            fold.passed("blocks synced");
            let superblock = fold.next_superblock(set, roots, &map);
            fold.store.write_superblock(&superblock)?;
            fold.passed("superblock written");
            fold.settle(superblock)
        })
    }

    /// Runs a step; after one that failed, none succeeds.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Fold) -> Result<T>) -> Result<T> {
        if self.has_failed {
            return Err(Error::BadInput("an earlier step of this fold failed".to_owned()));
        }
        self.has_failed = true;
        let result = step(self)?;
        self.has_failed = false;
        Ok(result)
    }

    fn passed(&mut self, stage: &'static str) {
        if let Some(hook) = &mut self.stage {
            hook(stage);
        }
    }

    pub(super) fn store(&self) -> &Arc<TreeStore> {
        &self.store
    }

    pub(super) fn building(&self) -> u64 {
        self.building
    }

    /// True if this fold wrote the block.
    pub(super) fn is_fresh(&self, ptr: &Ptr) -> bool {
        ptr.birth == self.building
    }

    /// The new tree no longer leads to this block.
    pub(super) fn kill(&mut self, ptr: &Ptr) {
        let extent = Extent::of(ptr);
        self.blocks_killed += 1;
        self.dead.push(Dead { extent, birth: ptr.birth, death: self.building });
    }

    pub(super) fn write_entries(
        &mut self,
        packer: &Packer,
        level: u8,
        count: usize,
        keyspace: u32,
        leaf: LeafKind,
    ) -> Result<Ptr> {
        let (plain_bytes, birth) = (packer.block_bytes(count), self.building);
        let cached = (level > 0 || leaf.is_warm) && self.store.mapped.is_none();
        let compression = if level == 0 { leaf.compression } else { Compression::None };
        let packed = packer.compress(compression, count, keyspace, birth);
        let arena = Arc::clone(&self.store.arena);
        let bytes = packed.as_ref().map_or(plain_bytes, Packed::block_bytes);
        let mut copy = None;
        let written = self.writer.block(bytes, |offset, out| {
            match &packed {
                Some(packed) => packed.encode(offset, out),
                None => packer.encode(count, keyspace, birth, offset, out),
            }
            if cached {
                copy = Some(arena.copy_of(out));
            }
        })?;
        let kind = BlockKind::of_level(level);
        let ptr = Ptr {
            offset: written.offset,
            bytes: bytes as u32,
            checksum: written.checksum,
            kind,
            level,
            birth,
        };
        self.blocks_written += 1;
        if let Some(copy) = copy {
            let block =
                Block::parse(copy, ptr, keyspace).map_err(|flaw| self.store.corruption(ptr.offset, flaw))?;
            self.store.cache.insert(&Arc::new(block.counted(&self.store.memory.blocks)));
            self.cached.push(ptr);
        }
        Ok(ptr)
    }

    /// Writes a value to an extent of its own, padded with zeros.
    pub(super) fn write_value(&mut self, value: &[u8]) -> Result<Ptr> {
        let bytes = (value.len() as u64).next_multiple_of(GRID) as usize;
        let written = self.writer.block(bytes, |_, out| {
            let (head, padding) = out.split_at_mut(value.len().min(out.len()));
            head.copy_from_slice(value.get(..head.len()).unwrap_or_default());
            padding.fill(0);
        })?;
        self.blocks_written += 1;
        Ok(self.ptr_to(written, BlockKind::Value))
    }

    /// The pointer to a block of this fold that is no part of a tree's levels.
    fn ptr_to(&self, written: Written, kind: BlockKind) -> Ptr {
        let Written { offset, bytes, checksum } = written;
        Ptr { offset, bytes, checksum, kind, level: 0, birth: self.building }
    }

    /// What the changes may put, or may have replaced already: those that are not put are of no use to anybody but older
    /// readers, and die with this generation.
    pub(crate) fn await_values(&mut self, values: impl Iterator<Item = LargeValue>) {
        self.awaited.extend(values.map(|value| (value.first_offset(), value)));
    }

    /// Makes a streamed value a part of the new tree. The form and the payload of its row.
    pub(super) fn adopt(&mut self, value: &LargeValue) -> Result<(u16, [u8; EXTENT_PAYLOAD_BYTES])> {
        if self.awaited.remove(&value.first_offset()).is_none() {
            return Err(Error::BadInput("a fold was given a value that it does not know of".to_owned()));
        }
        self.take_over(value);
        let (form, ptr) = match value.sole_piece() {
            Some(ptr) => (FORM_EXTENT, ptr),
            None => (FORM_PIECES, self.write_value(&value.list())?),
        };
        let mut payload = [0; EXTENT_PAYLOAD_BYTES];
        super::bytes::put(&mut payload, 0, &value.len().to_le_bytes());
        super::bytes::put(&mut payload, 8, &ptr.encode());
        Ok((form, payload))
    }

    fn take_over(&mut self, value: &LargeValue) {
        for ptr in value.pieces() {
            self.blocks_written += 1;
            self.adopted.insert(Extent::of(&ptr));
        }
    }

    /// What was replaced before it came into a tree.
    fn kill_unwanted(&mut self) {
        for value in std::mem::take(&mut self.awaited).into_values() {
            self.take_over(&value);
            value.pieces().for_each(|ptr| self.kill(&ptr));
        }
    }

    /// A row's value is gone, and with it whatever it had beside its leaf.
    pub(super) fn kill_value(&mut self, payload: &Payload) -> Result<()> {
        match payload {
            Payload::Extent { ptr, .. } => self.kill(ptr),
            Payload::Pieces { len, ptr } => {
                let value = self.store.large_value(*len, ptr)?;
                value.pieces().for_each(|ptr| self.kill(&ptr));
                self.kill(ptr);
            }
            Payload::Inline(_) | Payload::Child(_) | Payload::Removed | Payload::Added(_) => {}
        }
        Ok(())
    }

    fn write_roots(&mut self) -> Result<Option<Ptr>> {
        let old = self.base.superblock.roots;
        if self.changed.is_empty() {
            return Ok(old);
        }
        let changes: Vec<_> = std::mem::take(&mut self.changed)
            .into_iter()
            .map(|(keyspace, number)| {
                let row = match number {
                    None => self.trees.get(&keyspace).map(|tree| tree.encode().to_vec()),
                    Some(number) => {
                        let runs = self.runs.get(&keyspace).map(Vec::as_slice).unwrap_or_default();
                        runs.iter().find(|run| run.number == number).map(|run| run.encode())
                    }
                };
                let change = row.map_or(Change::Remove, |row| Change::Put(Slice::from(row)));
                let key = number.map_or_else(Vec::new, |number| number.to_be_bytes().to_vec());
                Ok(([&keyspace.to_be_bytes()[..], &key].concat(), change))
            })
            .collect();
        let rows = self.base.roots_count();
        let tree = old.map(|ptr| TreeRoot { ptr, rows, payload_bytes: 0, is_bound: false, extents: 0 });
        let (cleared, compression) = (Vec::new(), Compression::None);
        let old = Old { tree, cleared, keeps_values: false, compression };
        let mut changes = Changes::new(changes.into_iter())?;
        let (roots, _) = merge(self, ROOTS_KEYSPACE, Making::Tree, old, &mut changes)?;
        Ok(roots.map(|tree| tree.ptr))
    }

    /// Writes the free map as it will be once this generation is published.
    fn write_free_map(&mut self) -> Result<MapWritten> {
        if let Some(old) = self.base.superblock.free_map {
            self.kill(&old);
        }
        self.writer.flush()?;
        join_dead(&mut self.dead);
        let store = Arc::clone(&self.store);
        let bytes = {
            let space = store.space.lock();
            space.check_burial(&self.dead).map_err(|flaw| store.fail(store.corruption(0, flaw)))?;
            // What was kept for the map may come back, and growing the file may add an extent; taking one, or setting one
            // aside, adds none.
            let free_count = space.published(&self.adopted).0.len();
            freemap::block_bytes(free_count + 3, space.dead_count() + self.dead.len())
        };
        if u32::try_from(bytes).is_err() {
            return Err(Error::TooLarge {
                what: "the free map",
                len: bytes as u64,
                max: u64::from(u32::MAX),
            });
        }
        let (mut live_bytes, mut file_bytes) = (0, 0);
        let mut has_room = false;
        let (birth, newly_dead, adopted) = (self.building, &self.dead, &self.adopted);
        let written = self.writer.map_block(bytes, |offset, out| {
            out.fill(0);
            let space = store.space.lock();
            let (free, used_end) = space.published(adopted);
            file_bytes = used_end;
            let mut dead: Vec<Dead> = space.dead().chain(newly_dead).copied().collect();
            dead.sort_unstable_by_key(|dead| dead.extent);
            let dying: u64 = newly_dead.iter().map(|dead| dead.extent.bytes).sum();
            let adopted: u64 = adopted.iter().map(|extent| extent.bytes).sum();
            live_bytes = (space.live_bytes() + adopted).saturating_sub(dying);
            has_room = freemap::encode(&free, &dead, birth, offset, out);
        })?;
        if !has_room {
            return Err(Error::BadInput("the free map outgrew its block".to_owned()));
        }
        self.blocks_written += 1;
        let ptr = self.ptr_to(written, BlockKind::FreeMap);
        Ok(MapWritten { ptr, live_bytes, file_bytes })
    }

    fn next_superblock(
        &self,
        set: impl FnOnce(&mut Superblock),
        roots: Option<Ptr>,
        map: &MapWritten,
    ) -> Superblock {
        let base = &self.base.superblock;
        let mut next = base.clone();
        set(&mut next);
        let rows = self.trees.values().map(|tree| tree.rows);
        let in_runs = self.runs.values().flatten().map(|run| run.root.rows);
        let has_runs = if self.runs.is_empty() { 0 } else { FEATURE_RUNS };
        Superblock {
            features_incompatible: base.features_incompatible & !FEATURE_RUNS | has_runs,
            store_id: base.store_id,
            generation: self.building,
            file_bytes: map.file_bytes,
            rows: rows.chain(in_runs).sum(),
            blocks: (base.blocks + self.blocks_written).saturating_sub(self.blocks_killed),
            live_bytes: map.live_bytes,
            roots,
            free_map: Some(map.ptr),
            ..next
        }
    }

    /// The new generation is on the device: now in memory too.
    fn settle(&mut self, superblock: Superblock) -> Result<Arc<Root>> {
        self.is_done = true;
        let store = Arc::clone(&self.store);
        let bytes = self.writer.bytes() + SLOT_BYTES as u64;
        store.totals.folds.fetch_add(1, Ordering::Relaxed);
        store.totals.fold_bytes.fetch_add(bytes, Ordering::Relaxed);
        store.totals.fold_bytes_last.store(bytes, Ordering::Relaxed);
        let settled = {
            let mut space = store.space.lock();
            let adopted: Vec<Extent> = std::mem::take(&mut self.adopted).into_iter().collect();
            let settled = space.adopt(&adopted).and_then(|()| space.bury(std::mem::take(&mut self.dead)));
            store.memory.space_map.store(space.memory_bytes(), Ordering::Relaxed);
            settled
        };
        settled.map_err(|flaw| store.fail(store.corruption(0, flaw)))?;
        let latest = {
            let mut latest = store.latest.lock();
            *latest = Latest {
                generation: superblock.generation,
                file_bytes: superblock.file_bytes,
                file_bytes_before: latest.file_bytes,
                blocks: superblock.blocks,
                reach: Reach::of(&superblock),
                reach_before: latest.reach,
            };
            *latest
        };
        let (trees, runs) = (std::mem::take(&mut self.trees), std::mem::take(&mut self.runs));
        let root = Root::new(superblock, trees, runs, &store.space);
        store.trim(latest);
        store.is_folding.store(false, Ordering::Release);
        Ok(root)
    }
}

/// How a leaf is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeafKind {
    pub(super) compression: Compression,
    /// The one it takes the place of was in the cache.
    pub(super) is_warm: bool,
}

/// The free map as it was written, and the superblock's figures that go with it.
#[derive(Clone, Copy, Debug)]
struct MapWritten {
    ptr: Ptr,
    live_bytes: u64,
    file_bytes: u64,
}

/// What leaves held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) rows: u64,
    pub(super) payload_bytes: u64,
    pub(super) extents: u64,
}

/// Joins neighbours that were born together: a rewritten run of leaves becomes one entry of the free map. What
/// overlaps stays as it is, for `check_burial` to find.
fn join_dead(dead: &mut Vec<Dead>) {
    dead.sort_unstable_by_key(|dead| dead.extent);
    dead.dedup_by(|next, before| {
        let joins = before.extent.end() == next.extent.offset && before.birth == next.birth;
        if joins {
            before.extent.bytes += next.extent.bytes;
        }
        joins
    });
}

impl Drop for Fold {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        for ptr in &self.cached {
            self.store.cache.remove(ptr);
        }
        // After a failed superblock write it may be on the disk all the same: then nothing is given back, and no
        // later fold can use it anyway.
        if self.store.failure.lock().is_none()
            && let Err(error) = self.writer.abort()
        {
            self.store.fail(error);
        }
        self.store.is_folding.store(false, Ordering::Release);
    }
}

impl TreeStore {
    /// Keeps a reserve inside the file, and gives back what is far beyond it. Best effort: the generation stands.
    fn trim(&self, latest: Latest) {
        let (end, free, live, used_end) = {
            let space = self.space.lock();
            (space.end(), space.free_bytes(), space.live_bytes(), space.used_end())
        };
        let reserve = super::give_back::RESERVE_BYTES.min(live / 2).next_multiple_of(GRID);
        if free < reserve {
            // An error other than a full disk is remembered by `grow_by`.
            let _ = self.grow_by(reserve - free);
            return;
        }
        // Neither superblock leads beyond this, and no reader does: what readers hold is dead, not free.
        let used = used_end.max(latest.file_bytes).max(latest.file_bytes_before);
        let keep = used + reserve;
        let slack = self.growth().max(end / 4);
        if end > keep + slack && self.space.lock().begin_cut() {
            // What was set aside since counts as used.
            let is_free = self.space.lock().used_end() <= keep;
            if is_free && self.file.set_len(keep).is_ok() {
                self.space.lock().cut(keep);
                self.end.store(keep, Ordering::Release);
            }
            self.space.lock().end_cut();
        }
    }
}
