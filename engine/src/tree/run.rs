//! Runs: what checkpoints brought to a keyspace whose tree they left as it is.
//!
//! Where changes are thinly spread over a tree far larger than they are, folding rewrites nearly all of it for them. So a
//! checkpoint may *spill* them: they become a tree of their own, with rows that say "removed" and "added to", beside the
//! keyspace's. Reads ask the newest run first and the tree last. With each new run a stretch of the tree takes in what all
//! older runs have of it, and then the next stretch, round and round: each leaf is rewritten once for many checkpoints
//! (O'Neil, Cheng, Gawlick, O'Neil: "The Log-Structured Merge-Tree", 1996, whose *rolling merge* this is). The cost rule is
//! in `cost`, the decision in `docs/design/0010`.
//!
//! - R1: a run hides what lies below it: older runs, then the tree.
//! - R2: what deltas have cleared is cleared in the tree and in every run by the checkpoint that brings it; no run clears anything.
//! - R3: a row leaves the runs in the superblock that brings it into the tree, so nothing is added twice.
//! - R4: a stretch takes in what *all* runs have of it, so no run is ever newer than what the tree has from a younger one.

use super::ahead::Ahead;
use super::block::{Block, EXTENT_PAYLOAD_BYTES, Payload};
use super::changes::Change;
use super::codec::leaf_bytes;
use super::filter::Filter;
use super::fold::Held;
use super::ptr::{BlockKind, Flaw, PTR_BYTES, Ptr};
use super::walk::Top;
use super::{Error, Result, Root, TREE_ROOT_BYTES, TreeRoot, TreeStore};
use crate::cover::{Span, SpanCursor};
use crate::mutation::Mutation;
use crate::number::{flawed, number_of, number_value};
use crate::record::Compression;
use seawall_wal::Slice;
use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::sync::{Arc, OnceLock};

/// By keyspace, the newest first.
pub(super) type Runs = BTreeMap<u32, Vec<Arc<Run>>>;

/// A tree of changes beside a keyspace's tree. Shared by all roots that have it.
#[derive(Debug)]
pub(super) struct Run {
    /// Higher ones are newer; unique within a keyspace.
    pub(super) number: u32,
    pub(super) root: TreeRoot,
    pub(super) top: Top,
    filter_at: Ptr,
    /// Shared with what the run was before some of its rows came into the tree.
    filter: Arc<OnceLock<Filter>>,
}

/// Bytes of an encoded run.
const RUN_BYTES: usize = TREE_ROOT_BYTES + PTR_BYTES;

impl Run {
    pub(super) fn new(number: u32, root: TreeRoot, filter_at: Ptr) -> Arc<Run> {
        Arc::new(Run { number, root, top: Top::default(), filter_at, filter: Arc::default() })
    }

    /// The same run with fewer rows. Its filter, if it was read, stays; it has keys too many, which is no harm.
    pub(super) fn with(&self, root: TreeRoot) -> Arc<Run> {
        let (number, filter_at, filter) = (self.number, self.filter_at, Arc::clone(&self.filter));
        Arc::new(Run { number, root, top: Top::default(), filter_at, filter })
    }

    /// What the tree of roots has of it.
    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.root.encode()[..], &self.filter_at.encode()].concat()
    }

    //= docs/format/data.md#tree-of-roots
    pub(super) fn decode(number: u32, row: &[u8]) -> Result<Arc<Run>, Flaw> {
        let (root, filter) = row.split_at_checked(TREE_ROOT_BYTES).ok_or("a run's root row is cut short")?;
        let (root, filter_at) = (TreeRoot::decode(root)?, Ptr::decode(filter)?);
        if row.len() != RUN_BYTES || filter_at.kind != BlockKind::Filter {
            return Err("a run's root row leads to no filter".to_owned());
        }
        Ok(Run::new(number, root, filter_at))
    }

    /// Where its filter is.
    pub(super) fn filter_at(&self) -> &Ptr {
        &self.filter_at
    }

    /// Whether it may have the key. The filter is read when it is first asked.
    pub(super) fn may_have(&self, store: &TreeStore, key: &[u8]) -> Result<bool> {
        let filter = match self.filter.get() {
            Some(filter) => filter,
            None => {
                let filter = Filter::read(store, &self.filter_at)?;
                // Two threads may read it at once; nobody waits for another's read.
                self.filter.get_or_init(|| filter)
            }
        };
        Ok(filter.may_have(key))
    }
}

/// What the runs of a keyspace say of a key.
#[derive(Debug)]
pub(super) enum Said {
    /// Nothing, or that so much is added to what the tree has.
    Below(Option<i64>),
    /// There is no row.
    Removed,
    /// The row, in a run's leaf, and what is added to it.
    Row(Arc<Block>, usize, Option<i64>),
    /// The number that the row is.
    Number(i64),
}

impl TreeStore {
    /// What the runs say of a key, from the newest on (R1).
    pub(super) fn ask_runs(&self, runs: &[Arc<Run>], keyspace: u32, key: &[u8]) -> Result<Said> {
        let mut added: Option<i64> = None;
        for run in runs {
            if !run.may_have(self, key)? {
                continue;
            }
            let Some((leaf, index)) = self.find_in((&run.root, &run.top), keyspace, key)? else { continue };
            if let Some(said) = self.said(leaf, index, &mut added)? {
                return Ok(said);
            }
        }
        Ok(Said::Below(added))
    }

    /// What a row of a run comes to, under what was added above it; none if what lies below counts too.
    pub(super) fn said(
        &self,
        leaf: Arc<Block>,
        index: usize,
        added: &mut Option<i64>,
    ) -> Result<Option<Said>> {
        let payload = leaf.payload(index).map_err(|flaw| self.corruption(leaf.ptr().offset, flaw))?;
        Ok(match (payload, *added) {
            (Payload::Added(more), sum) => {
                *added = Some(sum.unwrap_or(0).wrapping_add(more));
                None
            }
            (Payload::Removed, None) if self.errs_in_runs(Mutation::RunRemovalIgnored) => None,
            (Payload::Removed, None) => Some(Said::Removed),
            (Payload::Removed, Some(sum)) => Some(Said::Number(sum)),
            (_, sum) => Some(Said::Row(leaf, index, sum)),
        })
    }

    /// A value, and what is added to it.
    pub(super) fn added_to(&self, value: &[u8], more: i64) -> Result<Slice> {
        let number = number_of(value).ok_or_else(|| flawed(&self.path))?;
        Ok(number_value(number.wrapping_add(more)))
    }
}

/// The leaves of a tree in key order, read from the file with several on their way.
struct Leaves {
    store: Arc<TreeStore>,
    keyspace: u32,
    /// Inner blocks, and which child comes next.
    above: Vec<(Arc<Block>, usize)>,
    /// Found and not yet given.
    found: VecDeque<Ptr>,
    /// Where to end.
    to: Option<Arc<[u8]>>,
    ahead: Option<Ahead>,
}

impl Leaves {
    /// Those that may have keys of the span; `share` is by how many the room for what is read ahead is to be divided.
    fn of(
        store: &Arc<TreeStore>,
        keyspace: u32,
        root: &Ptr,
        span: &Span,
        (leaf_bytes, share): (usize, usize),
    ) -> Result<Leaves> {
        let ahead = Ahead::new(store, keyspace, Some(*root), leaf_bytes, share);
        let (mut above, mut ptr) = (Vec::new(), *root);
        while ptr.level > 0 {
            let block = store.load(&ptr, keyspace)?;
            let index = block.child_index(&span.from);
            ptr = store.child_of(&block, index)?;
            above.push((block, index + 1));
        }
        let mut leaves = Leaves {
            store: Arc::clone(store),
            keyspace,
            above,
            found: VecDeque::new(),
            to: span.to.clone(),
            ahead,
        };
        leaves.expect(ptr);
        Ok(leaves)
    }

    fn expect(&mut self, leaf: Ptr) {
        if let Some(ahead) = &mut self.ahead {
            ahead.expect(&leaf);
        }
        self.found.push_back(leaf);
    }

    /// Where the next leaf is that was not found yet. Levels fall by one with each step (`Block::parse`), so this ends.
    fn find(&mut self) -> Result<Option<Ptr>> {
        let mut separator = Vec::new();
        while let Some((block, next)) = self.above.last_mut() {
            if *next == block.count() {
                self.above.pop();
                continue;
            }
            // A first child begins where its block does, which was looked at above.
            if let Some(to) = self.to.as_deref().filter(|_| *next > 0) {
                block.key_into(*next, &mut separator);
                if *separator >= *to {
                    self.above.clear();
                    break;
                }
            }
            let child = self.store.child_of(block, *next)?;
            *next += 1;
            if child.level == 0 {
                return Ok(Some(child));
            }
            let block = self.store.load(&child, self.keyspace)?;
            self.above.push((block, 0));
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<Arc<Block>>> {
        let wanted = self.ahead.as_ref().map_or(1, Ahead::room);
        while self.found.len() < wanted
            && let Some(leaf) = self.find()?
        {
            self.expect(leaf);
        }
        let Some(leaf) = self.found.pop_front() else { return Ok(None) };
        match self.ahead.as_mut().and_then(|ahead| ahead.take_expected(&leaf)) {
            Some(block) => block.map(Some),
            None => self.store.load_once(&leaf, self.keyspace).map(|(block, _)| Some(block)),
        }
    }
}

/// A run's rows of a span, in key order.
struct Rows {
    leaves: Leaves,
    leaf: Option<Arc<Block>>,
    index: usize,
    /// The key of the row in hand, if there is one.
    key: Vec<u8>,
}

impl Rows {
    fn of(leaves: Leaves, from: &[u8]) -> Result<Rows> {
        let mut rows = Rows { leaves, leaf: None, index: 0, key: Vec::new() };
        rows.turn()?;
        if let Some(leaf) = &rows.leaf {
            rows.index = leaf.search(from).unwrap_or_else(|index| index);
            rows.show()?;
        }
        Ok(rows)
    }

    fn turn(&mut self) -> Result<()> {
        (self.leaf, self.index) = (self.leaves.next()?, 0);
        self.show()
    }

    /// Takes the row at the index in hand; from the next leaf, behind the last.
    fn show(&mut self) -> Result<()> {
        let Some(leaf) = &self.leaf else { return Ok(()) };
        if self.index == leaf.count() {
            return self.turn();
        }
        leaf.key_into(self.index, &mut self.key);
        if self.leaves.to.as_deref().is_some_and(|to| *self.key >= *to) {
            self.leaf = None;
        }
        Ok(())
    }

    fn key(&self) -> Option<&[u8]> {
        self.leaf.is_some().then_some(&self.key[..])
    }

    /// The row in hand as a change, with its payload; the next one is in hand then.
    fn take(&mut self) -> Result<Option<(Change, Payload)>> {
        let Some(leaf) = self.leaf.clone() else { return Ok(None) };
        let payload =
            leaf.payload(self.index).map_err(|flaw| self.leaves.store.corruption(leaf.ptr().offset, flaw))?;
        let change = match &payload {
            Payload::Removed => Change::Remove,
            Payload::Added(more) => Change::Add(*more),
            Payload::Inline(range) => Change::Put(Slice::within(Arc::<Block>::clone(&leaf), range.clone())),
            Payload::Child(_) => {
                return Err(self.leaves.store.corruption(leaf.ptr().offset, "a child where a row belongs"));
            }
            Payload::Extent { .. } | Payload::Pieces { .. } => {
                let (form, bytes) = leaf.raw_payload(self.index);
                let mut moved = [0; EXTENT_PAYLOAD_BYTES];
                super::bytes::put(&mut moved, 0, bytes);
                Change::Moved { form, payload: moved, len: payload.value_bytes() }
            }
        };
        self.index += 1;
        self.show()?;
        Ok(Some((change, payload)))
    }
}

/// Changes over all runs of a keyspace, as one stream of changes for its tree.
pub(super) struct Joined<'a, K, I: Iterator<Item = Result<(K, Change)>>> {
    changes: Peekable<I>,
    /// Newest first.
    runs: Vec<Rows>,
    cleared: SpanCursor,
    taken: &'a mut Taken,
    store: Arc<TreeStore>,
}

/// What was taken out of runs.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Values in extents of their own that something newer hides.
    pub(super) hidden: Vec<Payload>,
    /// Of each run, in their order.
    pub(super) held: Vec<Held>,
}

impl<'a, K: AsRef<[u8]>, I: Iterator<Item = Result<(K, Change)>>> Joined<'a, K, I> {
    /// Of the runs' rows those in `within` count; of these, those in `cleared`, which is in key order, as hidden.
    pub(super) fn new(
        store: &Arc<TreeStore>,
        (keyspace, compression): (u32, Compression),
        (runs, within): (&[Arc<Run>], &Span),
        cleared: Vec<Span>,
        changes: I,
        taken: &'a mut Taken,
    ) -> Result<Self> {
        taken.held = vec![Held::default(); runs.len()];
        let room = (leaf_bytes(compression), runs.len());
        let rows = |run: &Arc<Run>| {
            Rows::of(Leaves::of(store, keyspace, &run.root.ptr, within, room)?, &within.from)
        };
        let runs = runs.iter().map(rows).collect::<Result<Vec<Rows>>>()?;
        let changes = changes.peekable();
        let cleared = SpanCursor::new(cleared);
        Ok(Joined { changes, runs, cleared, taken, store: Arc::clone(store) })
    }

    /// The lowest key that any has.
    fn lowest(&mut self) -> Result<Option<Vec<u8>>> {
        let mut lowest: Option<&[u8]> = self.runs.iter().filter_map(Rows::key).min();
        match self.changes.peek() {
            Some(Ok((key, _))) if lowest.is_none_or(|lowest| key.as_ref() < lowest) => {
                lowest = Some(key.as_ref());
            }
            Some(Err(_)) => {
                return match self.changes.next() {
                    Some(Err(error)) => Err(error),
                    _ => Ok(None),
                };
            }
            _ => {}
        }
        Ok(lowest.map(<[u8]>::to_vec))
    }

    /// What the tree is told of a key; nothing if all that there was is cleared.
    fn change(&mut self, key: &[u8]) -> Result<Option<Change>> {
        let mut change = None;
        if let Some(newest) =
            self.changes.next_if(|next| next.as_ref().is_ok_and(|(at, _)| at.as_ref() == key))
        {
            change = Some(newest?.1);
        }
        let is_cleared = self.cleared.contains(key);
        for (run, held) in self.runs.iter_mut().zip(&mut self.taken.held) {
            if run.key() != Some(key) {
                continue;
            }
            let Some((row, payload)) = run.take()? else { continue };
            held.rows += 1;
            held.payload_bytes += key.len() as u64 + payload.value_bytes();
            held.extents += u64::from(payload.is_apart());
            change = match change {
                None if !is_cleared => Some(row),
                Some(Change::Add(sum)) if !is_cleared => Some(match row {
                    Change::Add(more) => Change::Add(sum.wrapping_add(more)),
                    Change::Remove => Change::Put(number_value(sum)),
                    Change::Put(value) => Change::Put(self.store.added_to(&value, sum)?),
                    Change::Moved { .. } | Change::PutLarge(_) => return Err(flawed(&self.store.path)),
                }),
                newer => {
                    if payload.is_apart() {
                        self.taken.hidden.push(payload);
                    }
                    newer
                }
            };
        }
        Ok(change)
    }

    fn step(&mut self) -> Result<Option<(Vec<u8>, Change)>> {
        while let Some(key) = self.lowest()? {
            if let Some(change) = self.change(&key)? {
                return Ok(Some((key, change)));
            }
        }
        Ok(None)
    }
}

impl<K: AsRef<[u8]>, I: Iterator<Item = Result<(K, Change)>>> Iterator for Joined<'_, K, I> {
    type Item = Result<(Vec<u8>, Change)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl TreeStore {
    /// Where the part of a keyspace's tree ends, one of so many, that begins with the leaf that `from` is in; none if the tree
    /// ends there. How many leaves there are, about, is told by the blocks on the way to that one.
    pub(crate) fn stretch(
        &self,
        root: &Root,
        keyspace: u32,
        from: &[u8],
        part: u32,
    ) -> Result<Option<Vec<u8>>> {
        let Some(tree) = root.trees.get(&keyspace).filter(|_| part > 1) else { return Ok(None) };
        let mut above: Vec<(Arc<Block>, usize)> = Vec::new();
        let mut ptr = tree.root.ptr;
        while ptr.level > 0 {
            let block = self.load(&ptr, keyspace)?;
            let index = block.child_index(from);
            ptr = self.child_of(&block, index)?;
            above.push((block, index));
        }
        let leaves =
            above.iter().fold(1u64, |leaves, (block, _)| leaves.saturating_mul(block.count() as u64));
        let mut left = leaves.div_ceil(u64::from(part));
        while let Some((block, index)) = above.last_mut() {
            if block.level() == 1 {
                let here = (block.count() - *index) as u64;
                if here > left {
                    let mut end = Vec::new();
                    block.key_into(*index + left as usize, &mut end);
                    return Ok(Some(end));
                }
                left -= here;
                *index = block.count();
            }
            if *index + 1 >= block.count() {
                above.pop();
                continue;
            }
            *index += 1;
            if left == 0 {
                let mut end = Vec::new();
                block.key_into(*index, &mut end);
                return Ok(Some(end));
            }
            let mut child = self.child_of(block, *index)?;
            while child.level > 0 {
                let block = self.load(&child, keyspace)?;
                child = self.child_of(&block, 0)?;
                above.push((block, 0));
            }
        }
        Ok(None)
    }
}

/// The number of a new run.
pub(super) fn next_number(runs: &[Arc<Run>]) -> Result<u32> {
    let newest = runs.first().map_or(0, |run| run.number);
    newest.checked_add(1).ok_or_else(|| Error::BadInput("no number is left for a run".to_owned()))
}
