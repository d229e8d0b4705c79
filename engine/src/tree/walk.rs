//! Reading a tree: a key's row, and rows in order both ways.
//!
//! A position is a *gap* between two rows, as between two letters of a text: `next` gives the row behind the gap and
//! steps over it, `prev` the row before it. So turning round gives the same row again, and a bound is simply a gap:
//! before the first row that is not below a key, or behind it.

use super::block::{Block, Payload};
use super::file::ValuePlace;
use super::ptr::Ptr;
use super::run::{Run, Said};
use super::stream::{LargeValue, Located};
use super::{Error, Result, Root, TreeRoot, TreeStore};
use crate::number::number_value;
use seawall_wal::Slice;
use seawall_wal::disk::BLOCK_BYTES;
use std::ops::{Bound, Range};
use std::sync::{Arc, OnceLock};

/// Which end of a block to enter by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    First,
    Last,
}

/// A gap in one tree.
#[derive(Debug)]
pub(super) struct Walker {
    keyspace: u32,
    tree: Option<Ptr>,
    path: Vec<(Arc<Block>, usize)>,
    leaf: Option<Arc<Block>>,
    gap: usize,
}

impl Walker {
    pub(super) fn new(tree: Option<Ptr>, keyspace: u32) -> Walker {
        Walker { keyspace, tree, path: Vec::new(), leaf: None, gap: 0 }
    }

    /// The leaf beside the gap.
    pub(super) fn leaf(&self) -> Option<&Arc<Block>> {
        self.leaf.as_ref()
    }

    /// To the gap before the first row at or above `key`, or, with `behind`, above it.
    /// A root that keeps its highest blocks spares looking for them.
    pub(super) fn seek(
        &mut self,
        store: &TreeStore,
        top: Option<&Top>,
        key: &[u8],
        behind: bool,
    ) -> Result<()> {
        let Some(mut ptr) = self.tree else { return Ok(()) };
        let mut path = Vec::with_capacity(usize::from(ptr.level));
        if let Some(top) = top {
            let see = |block: &Arc<Block>, index| path.push((Arc::clone(block), index));
            ptr = top.descend(store, (ptr, self.keyspace), key, see)?;
        }
        let leaf = loop {
            let block = store.load(&ptr, self.keyspace)?;
            if block.level() == 0 {
                break block;
            }
            let index = block.child_index(key);
            ptr = store.child_of(&block, index)?;
            path.push((block, index));
        };
        self.gap = match leaf.search(key) {
            Ok(index) => index + usize::from(behind),
            Err(index) => index,
        };
        self.path = path;
        self.leaf = Some(leaf);
        Ok(())
    }

    /// To the gap before all rows.
    pub(super) fn seek_first(&mut self, store: &TreeStore) -> Result<()> {
        self.seek_edge(store, Edge::First)
    }

    /// To the gap behind all rows.
    pub(super) fn seek_last(&mut self, store: &TreeStore) -> Result<()> {
        self.seek_edge(store, Edge::Last)
    }

    fn seek_edge(&mut self, store: &TreeStore, edge: Edge) -> Result<()> {
        let Some(tree) = self.tree else { return Ok(()) };
        let mut path = Vec::new();
        let leaf = self.descend(store, tree, edge, &mut path)?;
        self.enter(path, leaf, edge);
        Ok(())
    }

    fn enter(&mut self, path: Vec<(Arc<Block>, usize)>, leaf: Arc<Block>, edge: Edge) {
        self.gap = if edge == Edge::First { 0 } else { leaf.count() };
        self.path = path;
        self.leaf = Some(leaf);
    }

    /// Down one edge of a subtree. Levels fall by one with each step (`Block::parse`), so this ends.
    fn descend(
        &self,
        store: &TreeStore,
        mut ptr: Ptr,
        edge: Edge,
        path: &mut Vec<(Arc<Block>, usize)>,
    ) -> Result<Arc<Block>> {
        loop {
            let block = store.load(&ptr, self.keyspace)?;
            if block.level() == 0 {
                return Ok(block);
            }
            let index = if edge == Edge::First { 0 } else { block.count().saturating_sub(1) };
            ptr = store.child_of(&block, index)?;
            path.push((block, index));
        }
    }

    /// To the neighbouring leaf; false if there is none. After an error the gap is where it was.
    fn turn_leaf(&mut self, store: &TreeStore, forward: bool) -> Result<bool> {
        let edge = if forward { Edge::First } else { Edge::Last };
        if let Some((block, index)) = self.path.last_mut()
            && let Some(sibling) = if forward { index.checked_add(1) } else { index.checked_sub(1) }
            && sibling < block.count()
        {
            // Mostly it is the next child of the same block.
            let leaf = store.load(&store.child_of(block, sibling)?, self.keyspace)?;
            *index = sibling;
            self.gap = if forward { 0 } else { leaf.count() };
            self.leaf = Some(leaf);
            return Ok(true);
        }
        let mut path = self.path.clone();
        while let Some((block, index)) = path.pop() {
            let sibling = if forward { index.checked_add(1) } else { index.checked_sub(1) };
            let Some(sibling) = sibling.filter(|sibling| *sibling < block.count()) else { continue };
            let ptr = store.child_of(&block, sibling)?;
            path.push((block, sibling));
            let leaf = self.descend(store, ptr, edge, &mut path)?;
            self.enter(path, leaf, edge);
            return Ok(true);
        }
        Ok(false)
    }

    /// Steps over the next row, or back over the one before, if it is in the leaf at hand and its value with it. Gives
    /// the leaf, the row's index and where its value is: no step that fails, and none that reads.
    #[inline]
    fn step_in_leaf(&mut self, forward: bool) -> Option<(&Arc<Block>, usize, Range<usize>)> {
        let leaf = self.leaf.as_ref()?;
        let row = if forward { self.gap } else { self.gap.checked_sub(1)? };
        let value = leaf.inline_value(row)?;
        self.gap = if forward { row + 1 } else { row };
        Some((leaf, row, value))
    }

    /// Steps over the next row and gives its index in [`leaf`](Self::leaf).
    pub(super) fn next(&mut self, store: &TreeStore) -> Result<Option<usize>> {
        let Some(leaf) = &self.leaf else { return Ok(None) };
        if self.gap >= leaf.count() && !self.turn_leaf(store, true)? {
            return Ok(None);
        }
        self.gap += 1;
        Ok(Some(self.gap - 1))
    }

    /// Steps back over the row before and gives its index.
    pub(super) fn prev(&mut self, store: &TreeStore) -> Result<Option<usize>> {
        if self.leaf.is_none() || (self.gap == 0 && !self.turn_leaf(store, false)?) {
            return Ok(None);
        }
        self.gap -= 1;
        Ok(Some(self.gap))
    }
}

/// The inner blocks of a tree's highest levels, kept by the root once read: every search passes them, and would otherwise
/// fight with all others for their place in the cache and their reference counts.
#[derive(Debug, Default)]
pub(super) struct Top {
    root: Kept,
}

/// An inner block, and those below it that are kept.
#[derive(Debug, Default)]
struct Kept {
    block: OnceLock<Arc<Block>>,
    below: OnceLock<Box<[Kept]>>,
}

/// Levels whose blocks are kept whatever the cache's size.
const KEPT_LEVELS_MIN: usize = 2;
/// Levels whose blocks are kept where they take little of it.
const KEPT_LEVELS_MAX: usize = 3;
/// The share of the cache's bytes that the blocks of the last of these levels may take.
const KEPT_SHARE: u64 = 8;

impl Kept {
    /// The block, which is an inner one.
    fn block(&self, store: &TreeStore, ptr: &Ptr, keyspace: u32) -> Result<&Arc<Block>> {
        match self.block.get() {
            Some(block) => Ok(block),
            None => {
                let block = store.load(ptr, keyspace)?;
                // Two threads may read it at once; nobody waits for another's read.
                Ok(self.block.get_or_init(|| block))
            }
        }
    }

    fn child(&self, index: usize, count: usize) -> Option<&Kept> {
        self.below.get_or_init(|| (0..count).map(|_| Kept::default()).collect()).get(index)
    }
}

impl Top {
    /// Down from a tree's root towards a key as far as blocks are kept: shows each block on the way and which child was
    /// taken, and gives the pointer below.
    pub(super) fn descend(
        &self,
        store: &TreeStore,
        (root, keyspace): (Ptr, u32),
        key: &[u8],
        mut see: impl FnMut(&Arc<Block>, usize),
    ) -> Result<Ptr> {
        let (mut ptr, mut kept, mut blocks) = (root, &self.root, 1u64);
        for level in 1..=KEPT_LEVELS_MAX {
            let is_small =
                || blocks.saturating_mul(BLOCK_BYTES as u64) <= store.cache.capacity() / KEPT_SHARE;
            if ptr.level == 0 || level > KEPT_LEVELS_MIN && !is_small() {
                break;
            }
            let block = kept.block(store, &ptr, keyspace)?;
            let index = block.child_index(key);
            ptr = store.child_of(block, index)?;
            see(block, index);
            blocks = blocks.saturating_mul(block.count() as u64);
            match kept.child(index, block.count()) {
                Some(child) => kept = child,
                None => break,
            }
        }
        Ok(ptr)
    }
}

impl TreeStore {
    /// The value of a key.
    ///
    /// # Errors
    /// `Corruption` and `Io`.
    pub fn get(&self, root: &Root, keyspace: u32, key: &[u8]) -> Result<Option<Slice>> {
        match self.find(root, keyspace, key)? {
            Some(found) => self.value_found(found, keyspace).map(Some),
            None => Ok(None),
        }
    }

    /// The value of what was found.
    pub(super) fn value_found(&self, found: Found, keyspace: u32) -> Result<Slice> {
        match found {
            Found::Row(leaf, index) => self.value_of(&leaf, index, keyspace),
            Found::Added(leaf, index, more) => self.added_to(&self.value_of(&leaf, index, keyspace)?, more),
            Found::Number(number) => Ok(number_value(number)),
        }
    }

    /// As [`get`](Self::get), but for a value in extents of its own, of which nothing is read.
    pub(crate) fn find_value(&self, root: &Root, keyspace: u32, key: &[u8]) -> Result<Option<Located>> {
        let (leaf, index) = match self.find(root, keyspace, key)? {
            None => return Ok(None),
            Some(Found::Row(leaf, index)) => (leaf, index),
            Some(number) => return self.value_found(number, keyspace).map(Located::Here).map(Some),
        };
        Ok(Some(match self.value_place(&leaf, index)? {
            ValuePlace::Inline(value) => Located::Here(value),
            ValuePlace::Extent { len, ptr } => Located::Apart(LargeValue::sole(len as u64, &ptr)),
            ValuePlace::Pieces { len, ptr } => Located::Apart(self.large_value(len, &ptr)?),
        }))
    }

    /// True if the key is there; a large value is not read.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains(&self, root: &Root, keyspace: u32, key: &[u8]) -> Result<bool> {
        Ok(self.find(root, keyspace, key)?.is_some())
    }

    fn find(&self, root: &Root, keyspace: u32, key: &[u8]) -> Result<Option<Found>> {
        let added = match root.runs(keyspace) {
            [] => None,
            runs => match self.ask_runs(runs, keyspace, key)? {
                Said::Below(added) => added,
                Said::Removed => return Ok(None),
                Said::Number(number) => return Ok(Some(Found::Number(number))),
                Said::Row(leaf, index, None) => return Ok(Some(Found::Row(leaf, index))),
                Said::Row(leaf, index, Some(more)) => return Ok(Some(Found::Added(leaf, index, more))),
            },
        };
        let row = match root.trees.get(&keyspace) {
            Some(tree) => self.find_in((&tree.root, &tree.top), keyspace, key)?,
            None => None,
        };
        Ok(Found::of(row, added))
    }

    /// The row of one tree.
    pub(super) fn find_in(
        &self,
        (tree, top): (&TreeRoot, &Top),
        keyspace: u32,
        key: &[u8],
    ) -> Result<Option<(Arc<Block>, usize)>> {
        let mut ptr = top.descend(self, (tree.ptr, keyspace), key, |_, _| {})?;
        loop {
            let block = self.load(&ptr, keyspace)?;
            if block.level() == 0 {
                return Ok(block.search(key).ok().map(|index| (block, index)));
            }
            ptr = self.child_of(&block, block.child_index(key))?;
        }
    }

    /// A cursor before the first row of a keyspace's tree, whatever its runs say. It keeps the root, and so all its blocks,
    /// as they are.
    pub fn cursor(self: &Arc<Self>, root: &Arc<Root>, keyspace: u32) -> TreeCursor {
        self.cursor_in(root, keyspace, None)
    }

    /// Cursors of the keyspace's runs, the newest first.
    pub(crate) fn run_cursors(
        self: &Arc<Self>,
        root: &Arc<Root>,
        keyspace: u32,
    ) -> impl Iterator<Item = TreeCursor> {
        root.runs(keyspace).iter().map(move |run| self.cursor_in(root, keyspace, Some(Arc::clone(run))))
    }

    fn cursor_in(self: &Arc<Self>, root: &Arc<Root>, keyspace: u32, run: Option<Arc<Run>>) -> TreeCursor {
        let tree = run.as_ref().map_or_else(|| root.tree(keyspace), |run| Some(run.root.ptr));
        TreeCursor {
            store: Arc::clone(self),
            walker: Walker::new(tree, keyspace),
            root: Arc::clone(root),
            run,
            keyspace,
            is_placed: false,
            row: None,
            key: Vec::new(),
            value: None,
            keys: None,
        }
    }
}

/// What there is of a key below the deltas.
pub(super) enum Found {
    Row(Arc<Block>, usize),
    /// A row that a run adds to.
    Added(Arc<Block>, usize, i64),
    /// What runs add to no row.
    Number(i64),
}

impl Found {
    /// A tree's row, and what runs add to it.
    pub(super) fn of(row: Option<(Arc<Block>, usize)>, added: Option<i64>) -> Option<Found> {
        match (row, added) {
            (Some((leaf, index)), None) => Some(Found::Row(leaf, index)),
            (Some((leaf, index)), Some(more)) => Some(Found::Added(leaf, index, more)),
            (None, Some(number)) => Some(Found::Number(number)),
            (None, None) => None,
        }
    }
}

/// What a run has of a key.
pub(crate) enum RunRow {
    Value(Slice),
    Removed,
    Added(i64),
}

/// The keys of one leaf, whole, so that key slices share one allocation.
#[derive(Debug)]
struct LeafKeys {
    leaf: Arc<Block>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl AsRef<[u8]> for LeafKeys {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl LeafKeys {
    fn of(leaf: &Arc<Block>) -> LeafKeys {
        // Keys of a leaf are mostly of one length.
        let bytes_about = leaf.count() * (leaf.prefix().len() + leaf.suffix(0).len() + 1);
        let (mut bytes, mut ends) = (Vec::with_capacity(bytes_about), Vec::with_capacity(leaf.count()));
        for index in 0..leaf.count() {
            bytes.extend_from_slice(leaf.prefix());
            bytes.extend_from_slice(leaf.suffix(index));
            ends.push(bytes.len());
        }
        LeafKeys { leaf: Arc::clone(leaf), bytes, ends }
    }

    /// Those of `leaf`, which mostly are at hand.
    #[inline]
    fn keep<'a>(kept: &'a mut Option<Arc<LeafKeys>>, leaf: &Arc<Block>) -> &'a Arc<LeafKeys> {
        if kept.as_ref().is_none_or(|keys| !Arc::ptr_eq(&keys.leaf, leaf)) {
            *kept = None;
        }
        kept.get_or_insert_with(|| Arc::new(LeafKeys::of(leaf)))
    }

    fn range(&self, row: usize) -> Range<usize> {
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        start..self.ends.get(row).copied().unwrap_or(start)
    }
}

/// A gap between the rows of one keyspace, as of one root. A fresh cursor stands before the first row.
///
/// There are two ways to step: [`next`](Self::next) and [`prev`](Self::prev) give rows that may be kept;
/// [`advance`](Self::advance) and [`retreat`](Self::retreat) lend the row that was stepped over, without allocating,
/// and read a large value only if asked for it. After an error the cursor stands where it stood.
#[derive(Debug)]
pub struct TreeCursor {
    store: Arc<TreeStore>,
    root: Arc<Root>,
    walker: Walker,
    /// What it steps through, if that is not the tree.
    run: Option<Arc<Run>>,
    keyspace: u32,
    is_placed: bool,
    /// The row that was stepped over last, in the walker's leaf.
    row: Option<usize>,
    key: Vec<u8>,
    /// Where the value of the row that was lent last is, if it stands in the leaf.
    value: Option<Range<usize>>,
    keys: Option<Arc<LeafKeys>>,
}

impl TreeCursor {
    /// To where a scan from this *lower* bound begins: `next` gives the first row within it.
    ///
    /// # Errors
    /// `Corruption` and `Io`.
    pub fn seek(&mut self, lower: Bound<&[u8]>) -> Result<()> {
        match lower {
            Bound::Included(key) => self.place(|walker, store, top| walker.seek(store, top, key, false)),
            Bound::Excluded(key) => self.place(|walker, store, top| walker.seek(store, top, key, true)),
            Bound::Unbounded => self.place(|walker, store, _| walker.seek_first(store)),
        }
    }

    /// To where a backward scan from this *upper* bound begins: `prev` gives the last row within it.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    pub fn seek_back(&mut self, upper: Bound<&[u8]>) -> Result<()> {
        match upper {
            Bound::Included(key) => self.place(|walker, store, top| walker.seek(store, top, key, true)),
            Bound::Excluded(key) => self.place(|walker, store, top| walker.seek(store, top, key, false)),
            Bound::Unbounded => self.place(|walker, store, _| walker.seek_last(store)),
        }
    }

    fn place(&mut self, go: impl FnOnce(&mut Walker, &TreeStore, Option<&Top>) -> Result<()>) -> Result<()> {
        let top = match &self.run {
            Some(run) => Some(&run.top),
            None => self.root.trees.get(&self.keyspace).map(|tree| &tree.top),
        };
        go(&mut self.walker, &self.store, top)?;
        self.is_placed = true;
        self.row = None;
        Ok(())
    }

    fn step(&mut self, forward: bool) -> Result<Option<usize>> {
        if !self.is_placed {
            self.place(|walker, store, _| walker.seek_first(store))?;
        }
        let row = if forward { self.walker.next(&self.store)? } else { self.walker.prev(&self.store)? };
        self.row = row;
        Ok(row)
    }

    /// As [`next`](Self::next) and [`prev`](Self::prev), as long as nothing has to be read for it. `None` says nothing:
    /// ask those.
    #[inline]
    pub(crate) fn step_in_leaf(&mut self, forward: bool) -> Option<(Slice, Slice)> {
        let (leaf, row, value) = self.walker.step_in_leaf(forward)?;
        self.row = Some(row);
        let keys = LeafKeys::keep(&mut self.keys, leaf);
        let value = Slice::within(Arc::<Block>::clone(leaf), value);
        Some((Slice::within(Arc::<LeafKeys>::clone(keys), keys.range(row)), value))
    }

    /// As [`advance`](Self::advance) and [`retreat`](Self::retreat), as long as nothing has to be read for it, the value
    /// included, which is then [`lent_value`](Self::lent_value). False says nothing: ask those.
    #[inline]
    pub(crate) fn lend_in_leaf(&mut self, forward: bool) -> bool {
        let Some((leaf, row, value)) = self.walker.step_in_leaf(forward) else { return false };
        leaf.key_into(row, &mut self.key);
        (self.row, self.value) = (Some(row), Some(value));
        true
    }

    /// The value of the row that [`lend_in_leaf`](Self::lend_in_leaf) stepped over.
    #[inline]
    pub(crate) fn lent_value(&self) -> &[u8] {
        let bytes = self.walker.leaf().map_or(&[][..], |leaf| (**leaf).as_ref());
        self.value.clone().and_then(|value| bytes.get(value)).unwrap_or_default()
    }

    /// Steps over the next row and gives it; `None` behind the last.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot turn round or be placed anew")]
    pub fn next(&mut self) -> Result<Option<(Slice, Slice)>> {
        match self.step(true)? {
            Some(_) => self.row_slices(true),
            None => Ok(None),
        }
    }

    /// Steps back over the row before and gives it; `None` before the first.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    pub fn prev(&mut self) -> Result<Option<(Slice, Slice)>> {
        match self.step(false)? {
            Some(_) => self.row_slices(false),
            None => Ok(None),
        }
    }

    fn row_slices(&mut self, forward: bool) -> Result<Option<(Slice, Slice)>> {
        match self.value() {
            Ok(value) => Ok(self.key_slice().map(|key| (key, value))),
            Err(error) => {
                // Back over the row that could not be given: the leaf is in hand, so this cannot fail.
                let undone =
                    if forward { self.walker.prev(&self.store) } else { self.walker.next(&self.store) };
                self.row = None;
                undone.and(Err(error))
            }
        }
    }

    /// Steps over the next row; false behind the last.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    pub fn advance(&mut self) -> Result<bool> {
        let row = self.step(true)?;
        Ok(self.lend_key(row))
    }

    /// Steps back over the row before; false before the first.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    pub fn retreat(&mut self) -> Result<bool> {
        let row = self.step(false)?;
        Ok(self.lend_key(row))
    }

    fn lend_key(&mut self, row: Option<usize>) -> bool {
        if let (Some(row), Some(leaf)) = (row, self.walker.leaf()) {
            leaf.key_into(row, &mut self.key);
        }
        row.is_some()
    }

    /// The key of the row that `advance` or `retreat` stepped over.
    pub fn key(&self) -> &[u8] {
        if self.row.is_some() { &self.key } else { &[] }
    }

    /// The key of the row that was stepped over last, to keep. It shares its bytes with its leaf's other keys.
    pub fn key_slice(&mut self) -> Option<Slice> {
        let (row, leaf) = (self.row?, self.walker.leaf()?);
        let keys = LeafKeys::keep(&mut self.keys, leaf);
        Some(Slice::within(Arc::<LeafKeys>::clone(keys), keys.range(row)))
    }

    /// The value of the row that was stepped over last.
    ///
    /// # Errors
    /// `Corruption` and `Io`, if it is a large one; `BadInput` if no row was stepped over.
    pub fn value(&self) -> Result<Slice> {
        match (self.row, self.walker.leaf()) {
            (Some(row), Some(leaf)) => self.store.value_of(leaf, row, self.keyspace),
            _ => Err(Error::BadInput("the cursor has not stepped over a row".to_owned())),
        }
    }

    /// Steps over the next row of a run, or back over the one before.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    pub(crate) fn step_in_run(&mut self, forward: bool) -> Result<Option<(Slice, RunRow)>> {
        let Some(index) = self.step(forward)? else { return Ok(None) };
        let Some(leaf) = self.walker.leaf() else { return Ok(None) };
        let flawed = |flaw| self.store.corruption(leaf.ptr().offset, flaw);
        let row = match leaf.payload(index).map_err(flawed)? {
            Payload::Removed => RunRow::Removed,
            Payload::Added(more) => RunRow::Added(more),
            _ => return Ok(self.row_slices(forward)?.map(|(key, value)| (key, RunRow::Value(value)))),
        };
        Ok(self.key_slice().map(|key| (key, row)))
    }

    /// The root that this cursor reads.
    pub fn root(&self) -> &Arc<Root> {
        &self.root
    }
}
