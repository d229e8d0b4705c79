//! A fold's read-ahead: the leaves that its next changes fall into, on their way while the ones before are merged.
//!
//! Changes are looked at well before their turn (`Feed::scout`) and the leaf of each is found in the inner blocks, which
//! the cache keeps. Leaves that follow each other in the file come in one read: where most are touched, the device reads
//! long stretches; where few are, it is asked for many at once. One after another they cost 100 µs each, which
//! was all that a fold of random changes did.
//!
//! What is read is checked like any block. An error is kept until the leaf's turn; if there is no queue to be had, or a
//! leaf was not foreseen, it is read when it is needed.

use super::block::{Block, TARGET_BYTES};
use super::changes::Feed;
use super::many::{BUF_BYTES_MAX, DEPTH, Id, Reader, id};
use super::ptr::Ptr;
use super::{Result, TreeStore};
use crate::memory::Charge;
use seawall_wal::disk::{Completion, Op};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The length of a read that takes in several leaves, in bytes, at most.
const STRETCH_BYTES: u64 = BUF_BYTES_MAX as u64;

/// Leaves ahead of the merge, at most; more are sent for when half of them are used up.
const LEAVES_MAX: usize = if cfg!(test) { 6 } else { 512 };

/// The leaves of one tree that changes are about to reach.
pub(super) struct Ahead {
    store: Arc<TreeStore>,
    keyspace: u32,
    root: Ptr,
    /// None where the tree is a single leaf, or once its queue has failed.
    reader: Option<Reader>,
    /// The block above the leaf found last, and the key at which its part of the tree ends.
    above: Option<(Arc<Block>, Option<Vec<u8>>)>,
    /// In key order, all that were found and not taken.
    leaves: VecDeque<Ptr>,
    /// Those of them that are not on their way.
    unsent: VecDeque<Ptr>,
    arrived: BTreeMap<Id, Result<Arc<Block>>>,
    /// By its token, what a read in flight brings.
    flying: BTreeMap<u64, Vec<Ptr>>,
    leaves_max: usize,
    leaf_bytes: usize,
    charge: Charge,
}

impl Ahead {
    /// `leaf_bytes` is what a leaf takes in memory, about, and `share` by how many the room for leaves is divided.
    pub(super) fn new(
        store: &Arc<TreeStore>,
        keyspace: u32,
        root: Option<Ptr>,
        leaf_bytes: usize,
        share: usize,
    ) -> Option<Ahead> {
        let root = root.filter(|root| root.level > 0)?;
        let reader = store.readers.take(&*store.disk);
        let leaves = |bytes: usize| bytes / leaf_bytes.max(1) / share.max(1);
        let leaves_max = leaves(store.memory.buffers_max.load(Ordering::Relaxed) as usize / 4);
        Some(Ahead {
            store: Arc::clone(store),
            keyspace,
            root,
            reader,
            above: None,
            leaves: VecDeque::new(),
            unsent: VecDeque::new(),
            arrived: BTreeMap::new(),
            flying: BTreeMap::new(),
            leaves_max: leaves_max.clamp(leaves(LEAVES_MAX * TARGET_BYTES / 16).max(2), LEAVES_MAX),
            leaf_bytes,
            charge: Charge::none(&store.memory.fold_buffers),
        })
    }

    /// The leaf, if it was foreseen; waits until it is there. Sends for more.
    pub(super) fn take(&mut self, ptr: &Ptr, feed: &mut dyn Feed) -> Option<Result<Arc<Block>>> {
        if self.leaves.len() <= self.leaves_max / 2 {
            self.look_ahead(feed);
        }
        self.take_expected(ptr)
    }

    /// How many leaves may be expected at once.
    pub(super) fn room(&self) -> usize {
        self.leaves_max
    }

    /// A leaf will be taken, after those that were expected before.
    pub(super) fn expect(&mut self, leaf: &Ptr) {
        let is_here = || self.store.cache.contains(leaf) || self.store.known(leaf, self.keyspace).is_some();
        if self.reader.is_some() && self.store.check_ptr(leaf).is_ok() && !is_here() {
            self.leaves.push_back(*leaf);
            self.unsent.push_back(*leaf);
        }
    }

    /// As [`take`](Self::take), looking for no others.
    pub(super) fn take_expected(&mut self, ptr: &Ptr) -> Option<Result<Arc<Block>>> {
        self.send();
        let place = self.leaves.iter().position(|leaf| id(leaf) == id(ptr))?;
        // What was cleared whole is passed over.
        for passed in self.leaves.drain(..place) {
            self.arrived.remove(&id(&passed));
        }
        self.leaves.pop_front();
        while !self.arrived.contains_key(&id(ptr)) && !self.flying.is_empty() {
            self.reap();
            self.send();
        }
        self.arrived.remove(&id(ptr))
    }

    fn look_ahead(&mut self, feed: &mut dyn Feed) {
        while self.reader.is_some() && self.leaves.len() < self.leaves_max {
            let Some(key) = feed.scout() else { break };
            // The merge will meet the error, and say so.
            let Ok(leaf) = self.leaf_of(key) else { break };
            if self.leaves.back().is_none_or(|last| id(last) != id(&leaf)) {
                self.expect(&leaf);
            }
        }
    }

    /// The pointer to the leaf that a key falls into. Keys ascend, so it is mostly in the block found last.
    fn leaf_of(&mut self, key: &[u8]) -> Result<Ptr> {
        let is_below = |upper: &Option<Vec<u8>>| upper.as_deref().is_none_or(|upper| key < upper);
        if let Some((block, _)) = self.above.as_ref().filter(|(_, upper)| is_below(upper)) {
            return self.store.child_of(block, block.child_index(key));
        }
        let (mut ptr, mut upper) = (self.root, None);
        // Levels fall by one with each step (`Block::parse`), so this ends.
        loop {
            let block = self.store.load(&ptr, self.keyspace)?;
            let index = block.child_index(key);
            ptr = self.store.child_of(&block, index)?;
            if ptr.level == 0 {
                self.above = Some((block, upper));
                return Ok(ptr);
            }
            if index + 1 < block.count() {
                block.key_into(index + 1, upper.get_or_insert_default());
            }
        }
    }

    /// Sends for leaves while half of the reads that may be in flight are not.
    fn send(&mut self) {
        let Some(reader) = self.reader.as_mut().filter(|_| self.flying.len() <= DEPTH / 2) else { return };
        let (mut ops, mut stretches) = (Vec::new(), Vec::new());
        while self.flying.len() + ops.len() < DEPTH
            && let Some(stretch) = next_stretch(&mut self.unsent)
        {
            let (offset, end) =
                (stretch.first().map_or(0, |ptr| ptr.offset), stretch.last().map_or(0, Ptr::end));
            let len = (end - offset) as usize;
            let Ok(buf) = reader.buf(len.next_power_of_two()) else { break };
            let file = Arc::clone(&self.store.file);
            ops.push(Op::Read { file, offset, buf, len, from_device: false });
            stretches.push(stretch);
        }
        if ops.is_empty() {
            return;
        }
        match reader.queue.submit(ops) {
            Ok(first) => self.flying.extend((first..).zip(stretches)),
            Err(_) => self.give_up(),
        }
    }

    /// From here on leaves are read when they are needed.
    fn give_up(&mut self) {
        self.reader = None;
        self.leaves.clear();
        self.unsent.clear();
        self.flying.clear();
    }

    fn reap(&mut self) {
        let mut done = Vec::new();
        let reaped = self.reader.as_mut().map_or(Ok(()), |reader| reader.queue.reap(1, &mut done));
        for Completion { token, result, buf, .. } in done {
            let (Some(stretch), Some(buf)) = (self.flying.remove(&token), buf) else { continue };
            let start = stretch.first().map_or(0, |first| first.offset);
            for ptr in stretch {
                let at = (ptr.offset - start) as usize;
                let bytes = buf.get(at..at + ptr.bytes as usize).unwrap_or_default();
                let read = match &result {
                    Ok(read) if at + bytes.len() <= *read => Ok(()),
                    Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => Err(crate::error::same_io(error)),
                };
                let verified = self.store.verify_read(&ptr, bytes, read);
                let parse =
                    |()| self.store.parse_uncounted(self.store.arena.copy_of(bytes), &ptr, self.keyspace);
                self.arrived.insert(id(&ptr), verified.and_then(parse).map(Arc::new));
            }
            if let Some(reader) = &mut self.reader {
                reader.keep(buf);
            }
        }
        if reaped.is_err() {
            self.give_up();
        }
        let spare = self.reader.as_ref().map_or(0, Reader::spare_bytes);
        self.charge.set((spare + self.arrived.len() * (self.leaf_bytes + 200)) as u64);
    }
}

impl Drop for Ahead {
    /// What was sent for in vain, if a fold is given up, goes with its queue.
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take_if(|_| self.flying.is_empty()) {
            self.store.readers.give_back(reader);
        }
    }
}

/// The next leaves that stand side by side in the file.
fn next_stretch(unsent: &mut VecDeque<Ptr>) -> Option<Vec<Ptr>> {
    let first = unsent.front()?.offset;
    let mut end = first;
    let goes_on = |ptr: &&Ptr| {
        let is_next = ptr.offset == first || ptr.offset == end && ptr.end() - first <= STRETCH_BYTES;
        end = ptr.end();
        is_next
    };
    let count = unsent.iter().take_while(goes_on).count();
    Some(unsent.drain(..count).collect())
}
