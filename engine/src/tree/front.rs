//! Blocks of the cache by their place in the file: a reader finds one there without hashing, and without a lock that many want.
//!
//! A place is a function of a block's offset alone, so blocks that are further apart in the file than there are places share one;
//! the first has it until it leaves the cache, and the others are found in the cache itself.
//!
//! - F1: what a place has is told from others by the cache's whole key.
//! - F2: what is in a place is in the cache, or is about to leave its place: whoever puts a block in looks afterwards whether the cache
//!   still has it, and what the cache gives up leaves its place afterwards.
//! - F3: the cache's hand is to see what is used here. The first use after it has passed is told the cache, and noted in the block.
//!   The hand passes over what is noted, once, and wipes the note.

#![warn(clippy::indexing_slicing)]

use super::block::Block;
use super::cache::CacheKey;
use super::ptr::GRID;
use parking_lot::RwLock;
use std::sync::{Arc, OnceLock};

/// Places that are made at once, when the first of them is wanted.
const SHELF: usize = 1024;

/// Held for a moment, and across nothing that a scheduler could see.
type Place = RwLock<Option<Arc<Block>>>;

/// Blocks by their place.
#[derive(Debug)]
pub(super) struct Front {
    /// A power of two of them.
    shelves: Box<[OnceLock<Box<[Place]>>]>,
}

/// What a place has.
pub(super) enum Seen {
    Block(Arc<Block>),
    Nothing,
    Another,
}

impl Front {
    /// For a cache of so many bytes.
    pub(super) fn new(bytes: usize) -> Front {
        let shelves = (bytes / GRID as usize).div_ceil(SHELF).next_power_of_two();
        Front { shelves: (0..shelves).map(|_| OnceLock::new()).collect() }
    }

    fn shelf(&self, key: &CacheKey) -> (Option<&OnceLock<Box<[Place]>>>, usize) {
        let number = (key.offset() / GRID) as usize;
        let shelf = (number / SHELF) & (self.shelves.len() - 1);
        (self.shelves.get(shelf), number % SHELF)
    }

    fn place(&self, key: &CacheKey) -> Option<&Place> {
        let (shelf, at) = self.shelf(key);
        shelf?.get()?.get(at)
    }

    #[inline]
    pub(super) fn look(&self, key: &CacheKey) -> Seen {
        let Some(place) = self.place(key) else { return Seen::Nothing };
        match &*place.read() {
            Some(block) if CacheKey::of(block.ptr()) == *key => Seen::Block(Arc::clone(block)),
            Some(_) => Seen::Another,
            None => Seen::Nothing,
        }
    }

    /// Puts a block into its place, if that is free.
    pub(super) fn put(&self, block: &Arc<Block>) {
        let (Some(shelf), at) = self.shelf(&CacheKey::of(block.ptr())) else { return };
        let shelf = shelf.get_or_init(|| (0..SHELF).map(|_| Place::default()).collect());
        if let Some(place) = shelf.get(at) {
            place.write().get_or_insert_with(|| Arc::clone(block));
        }
    }

    /// Empties a place, if it has that.
    pub(super) fn forget(&self, key: &CacheKey) {
        let Some(place) = self.place(key) else { return };
        let gone = {
            let mut found = place.write();
            let is_it = found.as_ref().is_some_and(|block| CacheKey::of(block.ptr()) == *key);
            if is_it { found.take() } else { None }
        };
        drop(gone);
    }

    /// All that there is.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<Arc<Block>> {
        let places = self.shelves.iter().filter_map(OnceLock::get).flatten();
        places.filter_map(|place| place.read().as_ref().map(Arc::clone)).collect()
    }
}
