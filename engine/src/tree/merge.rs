//! Merging sorted changes into one tree, bottom-up and in one pass.
//!
//! The old tree is walked in key order. A subtree without changes is *passed*: its pointer goes to the packer of the
//! level above, and none of its blocks is read. A leaf with changes is *opened*: its rows and the changes flow,
//! merged, into the packer of level 0, whose full blocks become entries of level 1, and so on up. Before a subtree of
//! level `h` can be passed, what waits in the packers of levels `0..=h` must become blocks; if that would leave a
//! block less than a quarter full, the subtree is opened instead, and so emptied regions draw together. What remains
//! at the end may draw in its left neighbour.
//!
//! *Cleared* spans come with the changes, and before them: no old row in them stays. A subtree wholly in one is
//! neither passed nor opened but freed, for which its inner blocks are read, and its leaves only where there are large values
//! to be freed too; without that the number of rows left is a bound from then on.
//!
//! A separator is any key above all that is left of it and not above what is right of it. The first child of a block
//! inherits the bound of the block: at the left edge of the tree that is the empty key.

use super::ahead::Ahead;
use super::block::{Block, EXTENT_PAYLOAD_BYTES, FORM_ADDED, FORM_EXTENT, FORM_REMOVED};
use super::changes::{Change, Feed};
use super::codec::{inline_max, leaf_bytes};
use super::filter::FilterKeys;
use super::fold::{Fold, LeafKind};
use super::pack::{Ending, Packer, separator};
use super::ptr::{MAX_LEVEL, Ptr};
use super::{Error, Result, TreeRoot};
use crate::cover::{Span, SpanCursor};
use crate::number::{NUMBER_BYTES, flawed, number_of};
use crate::record::Compression;
use std::sync::Arc;

/// What a merge makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Making {
    /// A keyspace's tree, or that of roots.
    Tree,
    /// A run: removals and adds stay.
    Run,
}

/// What there is to merge into.
pub(super) struct Old {
    pub(super) tree: Option<TreeRoot>,
    /// In key order, none touching another: no old row in them stays.
    pub(super) cleared: Vec<Span>,
    /// Values of the rows there, in extents of their own, stay: another tree has them. What those rows come to is not counted
    /// then.
    pub(super) keeps_values: bool,
    pub(super) compression: Compression,
}

/// Merges changes into a tree, whose new leaves are compressed so, and gives the new one, `None` if it has no rows left.
///
/// # Errors
/// Those of reading and writing; the fold can then only be given up.
pub(super) fn merge(
    fold: &mut Fold,
    keyspace: u32,
    making: Making,
    old: Old,
    feed: &mut dyn Feed,
) -> Result<(Option<TreeRoot>, FilterKeys)> {
    let Old { tree, cleared, keeps_values, compression } = old;
    let ahead = Ahead::new(fold.store(), keyspace, tree.map(|tree| tree.ptr), leaf_bytes(compression), 1);
    let mut merge = Merge {
        making,
        keys: FilterKeys::default(),
        fold,
        feed,
        ahead,
        cleared: SpanCursor::new(cleared),
        keeps_values,
        keyspace,
        compression,
        packers: vec![Packer::of(0, leaf_bytes(compression))],
        bound: Vec::new(),
        ending: Ending::Growing,
        is_warm: false,
        key: Vec::new(),
        rows: tree.map_or(0, |tree| tree.rows),
        payload_bytes: tree.map_or(0, |tree| tree.payload_bytes),
        is_bound: tree.is_some_and(|tree| tree.is_bound),
        extents: tree.map_or(0, |tree| tree.extents),
    };
    match tree {
        Some(tree) => merge.node(&[], tree.ptr, None)?,
        None => merge.rows_until(None)?,
    }
    let sealed = merge.seal()?;
    let Merge { rows, payload_bytes, is_bound, extents, keys, .. } = merge;
    Ok((sealed.map(|ptr| TreeRoot { ptr, rows, payload_bytes, is_bound, extents }), keys))
}

/// How much of a subtree is cleared.
enum Cleared {
    Nothing,
    Some,
    All,
}

struct Merge<'a> {
    fold: &'a mut Fold,
    making: Making,
    /// Of a run's rows.
    keys: FilterKeys,
    feed: &'a mut dyn Feed,
    ahead: Option<Ahead>,
    cleared: SpanCursor,
    keeps_values: bool,
    keyspace: u32,
    compression: Compression,
    /// By level.
    packers: Vec<Packer>,
    /// The separator of the next leaf to be written.
    bound: Vec<u8>,
    ending: Ending,
    /// The leaf opened last was in the cache, so its successor shall be.
    is_warm: bool,
    /// The key of the change in hand.
    key: Vec<u8>,
    rows: u64,
    payload_bytes: u64,
    is_bound: bool,
    extents: u64,
}

impl Merge<'_> {
    /// The part of the tree below `ptr`, whose keys are at or above `bound` and below `upper`.
    fn node(&mut self, bound: &[u8], ptr: Ptr, upper: Option<&[u8]>) -> Result<()> {
        match self.cleared_in(bound, upper) {
            Cleared::All => return self.clear(bound, &ptr, upper),
            Cleared::Nothing if !self.has_change_below(upper) && self.pass(bound, &ptr)? => return Ok(()),
            _ => {}
        }
        let (block, was_cached) = self.open(&ptr)?;
        self.fold.kill(&ptr);
        if block.level() == 0 {
            self.is_warm = was_cached;
            if self.packer(0)?.is_empty() {
                self.bound = bound.to_vec();
            }
            return self.leaf(&block, upper);
        }
        let mut separator = bound.to_vec();
        for index in 0..block.count() {
            let mut next = Vec::new();
            let has_next = index + 1 < block.count();
            if has_next {
                block.key_into(index + 1, &mut next);
            }
            let child = self.fold.store().child_of(&block, index)?;
            self.node(&separator, child, if has_next { Some(&next) } else { upper })?;
            separator = next;
        }
        Ok(())
    }

    /// A block, and whether it was in the cache.
    fn open(&mut self, ptr: &Ptr) -> Result<(Arc<Block>, bool)> {
        let ahead = self.ahead.as_mut().filter(|_| ptr.level == 0);
        match ahead.and_then(|ahead| ahead.take(ptr, self.feed)) {
            Some(block) => Ok((block?, false)),
            None => self.fold.store().load_once(ptr, self.keyspace),
        }
    }

    fn has_change_below(&self, upper: Option<&[u8]>) -> bool {
        self.feed.key().is_some_and(|key| upper.is_none_or(|upper| key < upper))
    }

    /// How much is cleared of the keys at or above `bound` and below `upper`.
    fn cleared_in(&mut self, bound: &[u8], upper: Option<&[u8]>) -> Cleared {
        let Some(span) = self.cleared.next_behind(bound) else { return Cleared::Nothing };
        let (from, to) = (&*span.from, span.to.as_deref());
        if upper.is_some_and(|upper| from >= upper) {
            Cleared::Nothing
        } else if from <= bound && to.is_none_or(|to| upper.is_some_and(|upper| upper <= to)) {
            Cleared::All
        } else {
            Cleared::Some
        }
    }

    /// Frees a subtree of which no row is left, and puts what the changes have in its place.
    fn clear(&mut self, bound: &[u8], ptr: &Ptr, upper: Option<&[u8]>) -> Result<()> {
        match self.fold.kill_below(self.keyspace, ptr, self.extents > 0 && !self.keeps_values)? {
            Some(held) => {
                self.rows = self.rows.saturating_sub(held.rows);
                self.payload_bytes = self.payload_bytes.saturating_sub(held.payload_bytes);
                self.extents = self.extents.saturating_sub(held.extents);
            }
            None => self.is_bound = true,
        }
        if self.packer(0)?.is_empty() {
            self.bound = bound.to_vec();
        }
        self.rows_until(upper)
    }

    /// Hands an untouched subtree up by its pointer; false if what waits below needs it as filling.
    fn pass(&mut self, bound: &[u8], ptr: &Ptr) -> Result<bool> {
        for level in 0..=ptr.level {
            let packer = self.packer(level)?;
            if packer.is_underfull() {
                return Ok(false);
            }
            self.flush(level, Ending::Even)?;
        }
        let above = ptr.level + 1;
        self.ending = Ending::Even;
        self.packer(above)?.push_child(bound, ptr);
        self.let_go_ripe(above)?;
        Ok(true)
    }

    fn packer(&mut self, level: u8) -> Result<&mut Packer> {
        let index = usize::from(level);
        while self.packers.len() <= index {
            self.packers.push(Packer::new(self.packers.len() as u8));
        }
        match self.packers.get_mut(index).filter(|_| level <= MAX_LEVEL) {
            Some(packer) => Ok(packer),
            None => Err(Error::BadInput("the tree is too high".to_owned())),
        }
    }

    fn leaf(&mut self, leaf: &Arc<Block>, upper: Option<&[u8]>) -> Result<()> {
        let mut key = Vec::new();
        for index in 0..leaf.count() {
            leaf.key_into(index, &mut key);
            self.rows_until(Some(&key))?;
            let is_cleared = self.cleared.contains(&key);
            if self.feed.key() == Some(&key[..]) {
                let row = (!is_cleared).then_some((leaf, index));
                self.forget_row(leaf, index, &key)?;
                self.change(row)?;
            } else if is_cleared {
                self.forget_row(leaf, index, &key)?;
            } else {
                let (form, payload) = leaf.raw_payload(index);
                self.row(&key, form, payload)?;
            }
            self.ending = Ending::Even;
        }
        self.rows_until(upper)
    }

    /// The changes with keys below `end`; all, without it.
    fn rows_until(&mut self, end: Option<&[u8]>) -> Result<()> {
        while self.has_change_below(end) {
            self.change(None)?;
            self.ending = Ending::Growing;
        }
        Ok(())
    }

    /// The next change, over the row that is there; which, if it is replaced, is forgotten already.
    fn change(&mut self, row: Option<(&Arc<Block>, usize)>) -> Result<()> {
        let mut key = std::mem::take(&mut self.key);
        let change = self.feed.take(&mut key)?;
        if self.making == Making::Run {
            self.keys.push(&key);
        }
        match change {
            Some(Change::Moved { form, payload, len }) => {
                self.rows += 1;
                self.payload_bytes += key.len() as u64 + len;
                self.extents += 1;
                self.row(&key, form, &payload)?;
            }
            Some(Change::Add(delta)) if self.making == Making::Run => {
                self.rows += 1;
                self.payload_bytes += (key.len() + NUMBER_BYTES) as u64;
                self.row(&key, FORM_ADDED, &delta.to_le_bytes())?;
            }
            Some(Change::Remove) if self.making == Making::Run => {
                self.rows += 1;
                self.payload_bytes += key.len() as u64;
                self.row(&key, FORM_REMOVED, &[])?;
            }
            Some(Change::Put(value)) => self.put(&key, &value)?,
            Some(Change::PutLarge(value)) => {
                self.rows += 1;
                self.payload_bytes += key.len() as u64 + value.len();
                self.extents += 1;
                let (form, payload) = self.fold.adopt(&value)?;
                self.row(&key, form, &payload)?;
            }
            Some(Change::Add(delta)) => {
                let number = match row {
                    Some((leaf, index)) => self.number(leaf, index)?,
                    None => 0,
                };
                self.put(&key, &number.wrapping_add(delta).to_le_bytes())?;
            }
            Some(Change::Remove) | None => {}
        }
        self.key = key;
        Ok(())
    }

    /// The number in a row that is added to.
    fn number(&self, leaf: &Arc<Block>, index: usize) -> Result<i64> {
        let (form, payload) = leaf.raw_payload(index);
        match number_of(payload).filter(|_| usize::from(form) == NUMBER_BYTES) {
            Some(number) => Ok(number),
            None => Err(flawed(self.fold.store().path())),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.rows += 1;
        self.payload_bytes += (key.len() + value.len()) as u64;
        if value.len() <= inline_max(self.compression) {
            return self.row(key, value.len() as u16, value);
        }
        let ptr = self.fold.write_value(value)?;
        self.extents += 1;
        let mut payload = [0; EXTENT_PAYLOAD_BYTES];
        super::bytes::put(&mut payload, 0, &(value.len() as u64).to_le_bytes());
        super::bytes::put(&mut payload, 8, &ptr.encode());
        self.row(key, FORM_EXTENT, &payload)
    }

    fn forget_row(&mut self, leaf: &Arc<Block>, index: usize, key: &[u8]) -> Result<()> {
        let flaw = |flaw| self.fold.store().corruption(leaf.ptr().offset, flaw);
        let payload = leaf.payload(index).map_err(flaw)?;
        self.rows = self.rows.saturating_sub(1);
        self.payload_bytes = self.payload_bytes.saturating_sub(key.len() as u64 + payload.value_bytes());
        if payload.is_apart() {
            self.extents = self.extents.saturating_sub(1);
            if !self.keeps_values {
                self.fold.kill_value(&payload)?;
            }
        }
        Ok(())
    }

    fn row(&mut self, key: &[u8], form: u16, payload: &[u8]) -> Result<()> {
        self.packer(0)?.push(key, form, payload);
        self.let_go_ripe(0)
    }

    fn let_go_ripe(&mut self, level: u8) -> Result<()> {
        while let Some(count) = self.packer(level)?.ripe() {
            self.emit(level, count)?;
        }
        Ok(())
    }

    /// Turns all that waits at a level into blocks.
    fn flush(&mut self, level: u8, ending: Ending) -> Result<()> {
        loop {
            let packer = self.packer(level)?;
            if packer.is_empty() {
                return Ok(());
            }
            let count = packer.last_cut(ending);
            self.emit(level, count)?;
        }
    }

    /// Writes the first `count` entries of a level as a block and hands its pointer up.
    fn emit(&mut self, level: u8, count: usize) -> Result<()> {
        let leaf = LeafKind { compression: self.compression, is_warm: self.is_warm };
        let keyspace = self.keyspace;
        self.packer(level)?;
        let Some(packer) = self.packers.get_mut(usize::from(level)) else { return Ok(()) };
        let ptr = self.fold.write_entries(packer, level, count, keyspace, leaf)?;
        let bound = if level == 0 {
            let last = packer.key(count.saturating_sub(1));
            let next = if packer.len() > count { separator(last, packer.key(count)) } else { Vec::new() };
            std::mem::replace(&mut self.bound, next)
        } else {
            packer.key(0).to_vec()
        };
        packer.drop_front(count);
        self.packer(level + 1)?.push_child(&bound, &ptr);
        self.let_go_ripe(level + 1)
    }

    /// Turns all that waits into blocks, level by level, until one block is left: the root.
    fn seal(&mut self) -> Result<Option<Ptr>> {
        let mut level = 0;
        loop {
            let packer = self.packer(level)?;
            let is_lonely = level > 0 && packer.len() == 1;
            if packer.is_underfull() && (self.ending == Ending::Even || is_lonely) {
                self.absorb_left(level)?;
            }
            self.flush(level, self.ending)?;
            let mut above =
                self.packers.iter().skip(usize::from(level) + 1).filter(|packer| !packer.is_empty());
            match (above.next(), above.next()) {
                (None, _) => return Ok(None),
                (Some(packer), None) if packer.len() == 1 => {
                    let Some(ptr) = packer.sole_child() else { return Ok(None) };
                    return self.lower_root(ptr).map(Some);
                }
                _ => level += 1,
            }
        }
    }

    /// A root with a single child is none: the child is.
    fn lower_root(&mut self, mut ptr: Ptr) -> Result<Ptr> {
        while ptr.level > 0 && !self.fold.is_fresh(&ptr) {
            let (block, _) = self.fold.store().load_once(&ptr, self.keyspace)?;
            if block.count() > 1 {
                break;
            }
            self.fold.kill(&ptr);
            ptr = self.fold.store().child_of(&block, 0)?;
        }
        Ok(ptr)
    }

    /// Puts the entries of the block to the left in front of those that wait, which are too few for a block.
    fn absorb_left(&mut self, level: u8) -> Result<()> {
        let Some((bound, ptr)) = self.pop_left(level)? else { return Ok(()) };
        let (block, was_cached) = self.fold.store().load_once(&ptr, self.keyspace)?;
        self.fold.kill(&ptr);
        let mut joined =
            if level == 0 { Packer::of(0, leaf_bytes(self.compression)) } else { Packer::new(level) };
        let mut key = Vec::new();
        for index in 0..block.count() {
            block.key_into(index, &mut key);
            let (form, payload) = block.raw_payload(index);
            joined.push(if level > 0 && index == 0 { &bound } else { &key }, form, payload);
        }
        let packer = self.packer(level)?;
        for index in 0..packer.len() {
            let (form, payload) = packer.payload(index);
            joined.push(packer.key(index), form, payload);
        }
        *packer = joined;
        if level == 0 {
            self.bound = bound;
            self.is_warm = was_cached;
        }
        Ok(())
    }

    /// Takes back the pointer to the last old block of a level; opens blocks above to get at it.
    fn pop_left(&mut self, level: u8) -> Result<Option<(Vec<u8>, Ptr)>> {
        let above = level + 1;
        if usize::from(above) >= self.packers.len() {
            return Ok(None);
        }
        if self.packer(above)?.is_empty() {
            let Some((bound, parent)) = self.pop_left(above)? else { return Ok(None) };
            let (block, _) = self.fold.store().load_once(&parent, self.keyspace)?;
            self.fold.kill(&parent);
            let mut key = Vec::new();
            for index in 0..block.count() {
                block.key_into(index, &mut key);
                let child = self.fold.store().child_of(&block, index)?;
                self.packer(above)?.push_child(if index == 0 { &bound } else { &key }, &child);
            }
        }
        let building = self.fold.building();
        Ok(self.packer(above)?.pop_child(|ptr| ptr.level == level && ptr.birth < building))
    }
}
