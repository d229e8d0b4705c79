//! Many keys at once. The tree is descended for all of them together, level by level, and the blocks that a level
//! lacks in the cache are read with several in flight: a device that gives 17,000 random blocks a second one after
//! another gives 60,000 when it is asked for sixteen at a time.
//!
//! A result is what [`TreeStore::get`] would give; of several errors, that of the lowest key.

use super::block::Block;
use super::file::ValuePlace;
use super::ptr::Ptr;
use super::run::Said;
use super::walk::{Found, Top};
use super::{Result, Root, TreeRoot, TreeStore};
use parking_lot::Mutex;
use seawall_wal::disk::{Completion, Disk, Op, Queue};
use seawall_wal::{AlignedBuf, Slice};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Blocks in flight at once, for one reader.
pub(super) const DEPTH: usize = 32;

/// Bytes of blocks in flight, at most, unless a single one is larger.
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;

/// Keys descended for together: bounds what is held beside the results.
const KEYS_MAX: usize = 1024;

/// Idle queues kept for the next reader.
const IDLE_MAX: usize = 4;

/// The length of buffers that a queue keeps while it is idle: of one block of the usual length.
const BUF_BYTES: usize = 4096;

/// The length of the longest buffers that are used more than once.
pub(super) const BUF_BYTES_MAX: usize = 128 << 10;

/// Queues that are not in use; a reader takes one, and gives it back empty.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Vec<Reader>>);

impl Readers {
    /// One that is idle, or a new one; none if there are none to be had.
    pub(super) fn take(&self, disk: &dyn Disk) -> Option<Reader> {
        let idle = self.0.lock().pop();
        idle.or_else(|| Some(Reader { queue: disk.queue(DEPTH).ok()?, spare: Vec::new() }))
    }

    /// Keeps one for the next reader. Nothing may be in flight.
    pub(super) fn give_back(&self, mut reader: Reader) {
        reader.spare.retain(|buf| buf.len() == BUF_BYTES);
        let mut idle = self.0.lock();
        if idle.len() < IDLE_MAX {
            idle.push(reader);
        }
    }
}

/// A queue, and buffers for what it reads.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) queue: Box<dyn Queue>,
    spare: Vec<AlignedBuf>,
}

impl Reader {
    /// A buffer of at least so many bytes.
    pub(super) fn buf(&mut self, bytes: usize) -> io::Result<AlignedBuf> {
        match self.spare.iter().rposition(|buf| buf.len() >= bytes) {
            Some(index) => Ok(self.spare.swap_remove(index)),
            None => AlignedBuf::zeroed(bytes),
        }
    }

    /// Bytes of the buffers that wait for their next use.
    pub(super) fn spare_bytes(&self) -> usize {
        self.spare.iter().map(|buf| buf.len()).sum()
    }

    /// Takes a buffer back.
    pub(super) fn keep(&mut self, buf: AlignedBuf) {
        if buf.len() <= BUF_BYTES_MAX && self.spare.len() < DEPTH {
            self.spare.push(buf);
        }
    }
}

/// What tells blocks apart.
pub(super) type Id = (u64, u64, u32);

pub(super) fn id(ptr: &Ptr) -> Id {
    (ptr.offset, ptr.birth, ptr.checksum)
}

/// Blocks by what names them; an error where one cannot be had.
type Blocks = BTreeMap<Id, Result<Arc<Block>>>;

impl TreeStore {
    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_many(&self, root: &Root, keyspace: u32, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let mut values: Vec<Option<Slice>> = vec![None; keys.len()];
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|index| keys.get(*index));
        for part in order.chunks(KEYS_MAX) {
            let sorted: Vec<&[u8]> = part.iter().filter_map(|index| keys.get(*index).copied()).collect();
            for (index, value) in part.iter().zip(self.get_sorted(root, keyspace, &sorted)?) {
                if let Some(place) = values.get_mut(*index) {
                    *place = value;
                }
            }
        }
        Ok(values)
    }

    fn get_sorted(&self, root: &Root, keyspace: u32, keys: &[&[u8]]) -> Result<Vec<Option<Slice>>> {
        let mut places = Vec::with_capacity(keys.len());
        for found in self.find_sorted(root, keyspace, keys)? {
            places.push(match found {
                Some(Found::Row(leaf, index)) => Some(self.value_place(&leaf, index)?),
                Some(number) => Some(ValuePlace::Inline(self.value_found(number, keyspace)?)),
                None => None,
            });
        }
        let large = places.iter().filter_map(|place| match place {
            Some(ValuePlace::Extent { ptr, .. }) => Some(*ptr),
            _ => None,
        });
        let mut blocks = self.load_many(large.collect(), keyspace);
        let value = |place| match place {
            None => Ok(None),
            Some(ValuePlace::Inline(value)) => Ok(Some(value)),
            Some(ValuePlace::Pieces { len, ptr }) => self.read_large(&self.large_value(len, &ptr)?).map(Some),
            Some(ValuePlace::Extent { len, ptr }) => {
                found(&mut blocks, &ptr).map(|block| Some(Slice::new(block, 0..len)))
            }
        };
        places.into_iter().map(value).collect()
    }

    /// What there is of each key: first the runs are asked, then the tree for what is left.
    fn find_sorted(&self, root: &Root, keyspace: u32, keys: &[&[u8]]) -> Result<Vec<Option<Found>>> {
        let mut found: Vec<Option<Found>> = keys.iter().map(|_| None).collect();
        let mut left: Vec<Asked<'_>> = keys.iter().zip(&mut found).map(Asked::new).collect();
        for run in root.runs(keyspace) {
            let (mut asked, mut others) = (Vec::new(), Vec::new());
            for one in left {
                let may_have = run.may_have(self, one.key)?;
                if may_have { &mut asked } else { &mut others }.push(one);
            }
            let keys: Vec<&[u8]> = asked.iter().map(|one| one.key).collect();
            let leaves = self.leaves_of(Some((&run.root, &run.top)), keyspace, &keys)?;
            for (mut one, leaf) in asked.into_iter().zip(leaves) {
                let row = leaf.and_then(|leaf| Some((leaf.search(one.key).ok()?, leaf)));
                let said = match row {
                    Some((index, leaf)) => self.said(leaf, index, &mut one.added)?,
                    None => None,
                };
                match said {
                    None | Some(Said::Below(_)) => others.push(one),
                    Some(Said::Removed) => {}
                    Some(Said::Number(number)) => *one.found = Some(Found::Number(number)),
                    Some(Said::Row(leaf, index, added)) => {
                        *one.found = Found::of(Some((leaf, index)), added);
                    }
                }
            }
            left = others;
        }
        // Blocks are asked for in the order of their keys, and errors told so.
        left.sort_unstable_by_key(|one| one.key);
        let keys: Vec<&[u8]> = left.iter().map(|one| one.key).collect();
        let tree = root.trees.get(&keyspace).map(|tree| (&tree.root, &tree.top));
        for (one, leaf) in left.into_iter().zip(self.leaves_of(tree, keyspace, &keys)?) {
            let row = leaf.and_then(|leaf| Some((leaf.search(one.key).ok()?, leaf)));
            *one.found = Found::of(row.map(|(index, leaf)| (leaf, index)), one.added);
        }
        Ok(found)
    }

    /// The leaf that each key would be in; `None` where there is no tree.
    fn leaves_of(
        &self,
        tree: Option<(&TreeRoot, &Top)>,
        keyspace: u32,
        keys: &[&[u8]],
    ) -> Result<Vec<Option<Arc<Block>>>> {
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            places.push(match tree {
                Some((tree, top)) => Some(top.descend(self, (tree.ptr, keyspace), key, |_, _| {})?),
                None => None,
            });
        }
        let mut leaves: Vec<Option<Arc<Block>>> = vec![None; keys.len()];
        // Levels fall by one with each step (`Block::parse`), so this ends.
        while places.iter().any(Option::is_some) {
            let mut blocks = self.load_many(places.iter().flatten().copied().collect(), keyspace);
            for ((place, leaf), key) in places.iter_mut().zip(&mut leaves).zip(keys) {
                let Some(ptr) = place.take() else { continue };
                let block = found(&mut blocks, &ptr)?;
                if block.level() == 0 {
                    *leaf = Some(block);
                } else {
                    *place = Some(self.child_of(&block, block.child_index(key))?);
                }
            }
        }
        Ok(leaves)
    }

    /// Blocks, of a tree or values, from the cache or the file.
    fn load_many(&self, ptrs: Vec<Ptr>, keyspace: u32) -> Blocks {
        let mut blocks = Blocks::new();
        let mut missing: BTreeMap<Id, Ptr> = BTreeMap::new();
        for ptr in ptrs {
            if blocks.contains_key(&id(&ptr)) || missing.contains_key(&id(&ptr)) {
                continue;
            }
            match self.cached(&ptr, keyspace) {
                Some(block) => {
                    blocks.insert(id(&ptr), Ok(block));
                }
                None => {
                    missing.insert(id(&ptr), ptr);
                }
            }
        }
        if missing.len() > 1 {
            self.read_many(&mut missing, keyspace, &mut blocks);
        }
        // A single one; and what no queue was to be had for.
        for ptr in missing.into_values() {
            let block = self.read_for_cache(&ptr).and_then(|bytes| self.take_in(bytes, &ptr, keyspace));
            blocks.insert(id(&ptr), block);
        }
        blocks
    }

    /// Reads blocks with several in flight, and takes them out of `missing`.
    fn read_many(&self, missing: &mut BTreeMap<Id, Ptr>, keyspace: u32, blocks: &mut Blocks) {
        let Some(mut reader) = self.readers.take(&*self.disk) else { return };
        let all: Vec<Ptr> = missing.values().copied().collect();
        let mut take = |ptr: &Ptr, block| {
            missing.remove(&id(ptr));
            blocks.insert(id(ptr), block);
        };
        if self.read_all(&mut reader, &all, keyspace, &mut take).is_ok() {
            self.readers.give_back(reader);
        }
    }

    /// Fails only if the queue does; nothing is in flight when it succeeds.
    fn read_all(
        &self,
        reader: &mut Reader,
        all: &[Ptr],
        keyspace: u32,
        take: &mut impl FnMut(&Ptr, Result<Arc<Block>>),
    ) -> io::Result<()> {
        let mut ptrs = all.iter().peekable();
        let mut flying: BTreeMap<u64, Ptr> = BTreeMap::new();
        let mut flying_bytes = 0;
        let mut done = Vec::new();
        while ptrs.peek().is_some() || !flying.is_empty() {
            let (mut ops, mut named) = (Vec::new(), Vec::new());
            let fits = |ptr: &Ptr, count: usize, bytes: usize| {
                count == 0 || count < DEPTH && bytes + ptr.bytes as usize <= IN_FLIGHT_BYTES_MAX
            };
            while let Some(ptr) = ptrs.next_if(|ptr| fits(ptr, flying.len() + ops.len(), flying_bytes)) {
                if let Err(error) = self.check_ptr(ptr) {
                    take(ptr, Err(error));
                    continue;
                }
                let (len, offset) = (ptr.bytes as usize, ptr.offset);
                let (file, buf) = (Arc::clone(&self.file), reader.buf(len)?);
                ops.push(Op::Read { file, offset, buf, len, from_device: false });
                named.push(*ptr);
                flying_bytes += len;
            }
            if !ops.is_empty() {
                let first = reader.queue.submit(ops)?;
                flying.extend((first..).zip(named));
            }
            // The device is not to run dry while there is more to read.
            let min = if ptrs.peek().is_some() { (flying.len() / 4).max(1) } else { flying.len() };
            reader.queue.reap(min, &mut done)?;
            for Completion { token, result, buf, .. } in done.drain(..) {
                let (Some(ptr), Some(buf)) = (flying.remove(&token), buf) else { continue };
                flying_bytes -= ptr.bytes as usize;
                take(&ptr, self.block_of(result, &buf, &ptr, keyspace));
                reader.keep(buf);
            }
        }
        Ok(())
    }

    fn block_of(
        &self,
        read: io::Result<usize>,
        buf: &AlignedBuf,
        ptr: &Ptr,
        keyspace: u32,
    ) -> Result<Arc<Block>> {
        let bytes = buf.get(..ptr.bytes as usize).unwrap_or_default();
        let read = read.and_then(|read| match read == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        self.verify_read(ptr, bytes, read)?;
        self.take_in(self.arena.copy_of(bytes), ptr, keyspace)
    }
}

/// A key that is looked for.
struct Asked<'a> {
    key: &'a [u8],
    /// By runs that were asked already.
    added: Option<i64>,
    found: &'a mut Option<Found>,
}

impl<'a> Asked<'a> {
    fn new((key, found): (&&'a [u8], &'a mut Option<Found>)) -> Asked<'a> {
        Asked { key, added: None, found }
    }
}

/// A block that was loaded. An error is given once, to the lowest key that needs the block.
fn found(blocks: &mut Blocks, ptr: &Ptr) -> Result<Arc<Block>> {
    match blocks.get(&id(ptr)) {
        Some(Ok(block)) => Ok(Arc::clone(block)),
        _ => match blocks.remove(&id(ptr)) {
            Some(Err(error)) => Err(error),
            _ => Err(crate::Error::BadInput("a block that was asked for was not read".to_owned())),
        },
    }
}
