//! Reading blocks: bounds, then checksum, then header and entries, and only then the cache.
//!
//! Nothing that has not passed all of these is ever handed out. A read cut short by the file's end is damage, not a
//! system error: the superblock says how long the file must be.

use super::block::{BLOCK_BYTES_MAX, Block, Header, Payload};
use super::bytes::u32_at;
use super::ptr::{BlockKind, FIRST_BLOCK, Flaw, Ptr};
use super::{Error, Result, TreeStore};
#[cfg(seawall_shuttle)]
use crate::commit::explored::{Misorder, errs};
use seawall_wal::Slice;
use seawall_wal::disk::{BlockBuf, BlockBytes, read_exact_at};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Larger values are read anew each time: one of them would push out too many blocks.
const VALUE_CACHED_MAX: u32 = 64 << 10;

/// Where a row's value is.
pub(super) enum ValuePlace {
    Inline(Slice),
    Extent { len: usize, ptr: Ptr },
    Pieces { len: u64, ptr: Ptr },
}

impl TreeStore {
    pub(super) fn corruption(&self, offset: u64, what: impl Into<Flaw>) -> Error {
        Error::Corruption { file: self.path.clone(), offset, lsn: None, what: what.into() }
    }

    /// The bytes that a pointer names, their checksum verified.
    pub(crate) fn read_verified(&self, ptr: &Ptr) -> Result<Vec<u8>> {
        self.check_ptr(ptr)?;
        let mut bytes = vec![0; ptr.bytes as usize];
        self.read_into(&mut bytes, ptr)?;
        Ok(bytes)
    }

    /// The same, in the cache's memory.
    pub(super) fn read_for_cache(&self, ptr: &Ptr) -> Result<BlockBuf> {
        self.check_ptr(ptr)?;
        let mut bytes = self.arena.take(ptr.bytes as usize);
        self.read_into(&mut bytes, ptr)?;
        Ok(bytes)
    }

    fn read_into(&self, bytes: &mut [u8], ptr: &Ptr) -> Result<()> {
        let read = read_exact_at(&*self.file, bytes, ptr.offset);
        self.verify_read(ptr, bytes, read)
    }

    /// Refuses a pointer that cannot be.
    pub(super) fn check_ptr(&self, ptr: &Ptr) -> Result<()> {
        let is_tree = matches!(ptr.kind, BlockKind::Leaf | BlockKind::Inner);
        if ptr.offset < FIRST_BLOCK
            || ptr.end() > self.end.load(Ordering::Acquire)
            || (is_tree && ptr.bytes as usize > BLOCK_BYTES_MAX)
        {
            let what = format!("a pointer names {} bytes here, which cannot be", ptr.bytes);
            return Err(self.corruption(ptr.offset, what));
        }
        Ok(())
    }

    /// What is to be made of a read's result.
    pub(super) fn verify_read(&self, ptr: &Ptr, bytes: &[u8], read: io::Result<()>) -> Result<()> {
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.corruption(ptr.offset, "the file ends within a block"));
            }
            Err(error) => return Err(Error::io("read", &self.path, Some(ptr.offset), error)),
        }
        let found = crc32fast::hash(bytes);
        if found != ptr.checksum && !self.overlooks(ptr, bytes) {
            let what = format!(
                "a {:?} block of generation {}: its checksum is {found:08x} instead of {:08x}",
                ptr.kind, ptr.birth, ptr.checksum
            );
            return Err(self.corruption(ptr.offset, what));
        }
        Ok(())
    }

    /// A test's deliberate mistake, of compressed leaves.
    fn overlooks(&self, ptr: &Ptr, bytes: &[u8]) -> bool {
        self.is_unpacked_unverified.load(Ordering::Relaxed)
            && ptr.kind == BlockKind::Leaf
            && Header::decode(bytes, ptr, u32_at(bytes, 12)).is_ok_and(|header| header.packed.is_some())
    }

    /// A tree block from the file, whatever the cache has.
    pub(super) fn read_block(&self, ptr: &Ptr, keyspace: u32) -> Result<Arc<Block>> {
        self.parse(self.read_for_cache(ptr)?, ptr, keyspace)
    }

    /// Verified bytes as the block that they are, of a tree or a value's.
    pub(super) fn parse(&self, bytes: impl Into<BlockBytes>, ptr: &Ptr, keyspace: u32) -> Result<Arc<Block>> {
        let block = self.parse_uncounted(bytes, ptr, keyspace)?;
        Ok(Arc::new(block.counted(&self.memory.blocks)))
    }

    /// As [`parse`](Self::parse), for whoever counts its memory otherwise.
    pub(super) fn parse_uncounted(
        &self,
        bytes: impl Into<BlockBytes>,
        ptr: &Ptr,
        keyspace: u32,
    ) -> Result<Block> {
        match ptr.kind {
            BlockKind::Value => Ok(Block::value(bytes, *ptr, keyspace)),
            _ => Block::parse(bytes, *ptr, keyspace).map_err(|flaw| self.corruption(ptr.offset, flaw)),
        }
    }

    /// A tree block from the cache or the file.
    pub(super) fn load(&self, ptr: &Ptr, keyspace: u32) -> Result<Arc<Block>> {
        match self.cached(ptr, keyspace) {
            Some(block) => Ok(block),
            None => self.take_in(self.read_for_cache(ptr)?, ptr, keyspace),
        }
    }

    /// A tree block for a fold, which reads every leaf once: leaves do not enter the cache. True if it was there.
    pub(super) fn load_once(&self, ptr: &Ptr, keyspace: u32) -> Result<(Arc<Block>, bool)> {
        if let Some(block) = self.known(ptr, keyspace) {
            return Ok((block, false));
        }
        match self.cache.get(ptr) {
            Some(block) if block.is(ptr, keyspace) => Ok((block, true)),
            _ => {
                let block = self.read_block(ptr, keyspace)?;
                if block.level() > 0 && self.mapped.is_none() {
                    self.cache.insert(&block);
                }
                Ok((block, false))
            }
        }
    }

    /// The value of a row; the bytes stay those of the block.
    pub(super) fn value_of(&self, leaf: &Arc<Block>, index: usize, keyspace: u32) -> Result<Slice> {
        match self.value_place(leaf, index)? {
            ValuePlace::Inline(value) => Ok(value),
            ValuePlace::Extent { len, ptr } => {
                let block = match self.cached(&ptr, keyspace) {
                    Some(block) => block,
                    None => self.take_in(self.read_for_cache(&ptr)?, &ptr, keyspace)?,
                };
                Ok(Slice::new(block, 0..len))
            }
            ValuePlace::Pieces { len, ptr } => self.read_large(&self.large_value(len, &ptr)?),
        }
    }

    /// Where the value of a row is.
    pub(super) fn value_place(&self, leaf: &Arc<Block>, index: usize) -> Result<ValuePlace> {
        match leaf.payload(index).map_err(|flaw| self.corruption(leaf.ptr().offset, flaw))? {
            Payload::Inline(range) => Ok(ValuePlace::Inline(Slice::within(Arc::<Block>::clone(leaf), range))),
            Payload::Extent { len, ptr } => Ok(ValuePlace::Extent { len: len as usize, ptr }),
            Payload::Pieces { len, ptr } => Ok(ValuePlace::Pieces { len, ptr }),
            Payload::Child(_) => Err(self.corruption(leaf.ptr().offset, "a child where a row belongs")),
            Payload::Removed | Payload::Added(_) => {
                Err(self.corruption(leaf.ptr().offset, "a run's row where a tree's belongs"))
            }
        }
    }

    /// The block, if it was read from the mapping before.
    #[inline]
    pub(super) fn known(&self, ptr: &Ptr, keyspace: u32) -> Option<Arc<Block>> {
        self.mapped.as_ref()?.known.get(ptr, keyspace)
    }

    /// The block, of a tree or a value's, if it is known or in the cache.
    pub(super) fn cached(&self, ptr: &Ptr, keyspace: u32) -> Option<Arc<Block>> {
        if let Some(block) = self.known(ptr, keyspace) {
            return Some(block);
        }
        let found = self.cache.get(ptr);
        #[cfg(seawall_shuttle)]
        if errs(Misorder::CacheByPlace) {
            return found;
        }
        found.filter(|block| block.is(ptr, keyspace))
    }

    /// Verified bytes as a block, for a reader: it is known from now on if the file is mapped; else it enters the cache,
    /// unless it is a value that is too long.
    pub(super) fn take_in(&self, bytes: BlockBuf, ptr: &Ptr, keyspace: u32) -> Result<Arc<Block>> {
        if let Some(block) = self.map_in(&bytes, ptr, keyspace)? {
            return Ok(block);
        }
        let block = self.parse(bytes, ptr, keyspace)?;
        if ptr.kind != BlockKind::Value || ptr.bytes <= VALUE_CACHED_MAX {
            self.cache.insert(&block);
        }
        Ok(block)
    }

    /// The child at `index`, as an error of this file if it does not parse.
    pub(super) fn child_of(&self, block: &Block, index: usize) -> Result<Ptr> {
        block.child(index).map_err(|flaw| self.corruption(block.ptr().offset, flaw))
    }
}
