//! Reading and checking every block that a root leads to.
//!
//! Each block is read from the file, not from the cache: its checksum, its header, the order of its keys, the bounds
//! that its parent sets it, births, levels, the counts in the tree of roots, and the free map, which must together
//! with the blocks in use cover the file exactly once. What is found is listed; nothing stops the check.

use super::block::{Block, Payload};
use super::filter::Filter;
use super::freemap;
use super::ptr::{FIRST_BLOCK, Ptr};
use super::run::Run;
use super::space::Extent;
use super::{ROOTS_KEYSPACE, Result, Root, TreeRoot, TreeStore};
use std::sync::Arc;

/// More problems than this are counted, not listed.
const PROBLEMS_MAX: usize = 1000;

/// What a check of the data file found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeReport {
    /// The generation that was checked.
    pub generation: u64,
    /// Blocks read: leaves, inner blocks, values, the free map.
    pub blocks: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
    /// Rows in the trees of all keyspaces.
    pub rows: u64,
    /// Runs beside them.
    pub runs: u64,
    /// Rows in those, removals and adds included.
    pub run_rows: u64,
    /// Keyspaces with rows.
    pub keyspaces: u64,
    /// Height of the highest tree, in blocks from root to leaf.
    pub height: u64,
    /// Bytes of the keyspaces' leaves, those that are compressed as they were before.
    pub leaf_bytes: u64,
    /// Bytes that the leaves take in the file.
    pub leaf_bytes_stored: u64,
    /// Leaves that are compressed.
    pub leaves_compressed: u64,
    /// Bytes of the leaves, not compressed, that hold something.
    pub leaf_bytes_used: u64,
    /// What is wrong, for people; empty if all is well.
    pub problems: Vec<String>,
    /// Further problems, not listed.
    pub problems_unlisted: u64,
}

impl TreeStore {
    /// Checks everything that a root leads to, beside readers and folds. `progress` hears of blocks done and in all.
    ///
    /// # Errors
    /// None so far: problems are in the report.
    pub fn verify(&self, root: &Root, progress: &mut dyn FnMut(u64, u64)) -> Result<TreeReport> {
        let mut verifier = Verifier {
            store: self,
            root,
            progress,
            used: Vec::new(),
            is_complete: true,
            rows: 0,
            payload_bytes: 0,
            extents: 0,
            run: None,
            report: TreeReport { generation: root.generation, ..TreeReport::default() },
        };
        verifier.roots();
        for (keyspace, tree) in &root.trees {
            let rows = verifier.keyspace(*keyspace, &tree.root);
            verifier.report.rows += rows;
            verifier.report.keyspaces += 1;
        }
        for (keyspace, runs) in &root.runs {
            runs.iter().for_each(|run| verifier.run(*keyspace, run));
        }
        verifier.totals();
        verifier.space();
        Ok(verifier.report)
    }
}

struct Verifier<'a> {
    store: &'a TreeStore,
    root: &'a Root,
    progress: &'a mut dyn FnMut(u64, u64),
    used: Vec<Extent>,
    /// No block was unreadable, so that what is not in `used` is not in use.
    is_complete: bool,
    rows: u64,
    payload_bytes: u64,
    extents: u64,
    /// In a run: what must have all of its keys, if it could be read.
    run: Option<Option<Filter>>,
    report: TreeReport,
}

impl Verifier<'_> {
    fn problem(&mut self, what: String) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(what);
        } else {
            self.report.problems_unlisted += 1;
        }
    }

    fn roots(&mut self) {
        let Some(ptr) = self.root.superblock.roots else {
            if self.root.roots_count() > 0 {
                self.problem("there are keyspaces, and no tree of roots".to_owned());
            }
            return;
        };
        self.subtree(&ptr, ROOTS_KEYSPACE, &[], None, self.root.generation);
        if self.is_complete && self.rows != self.root.roots_count() {
            self.problem(format!("{} roots on the disk, {} in memory", self.rows, self.root.roots_count()));
        }
    }

    fn run(&mut self, keyspace: u32, run: &Run) {
        self.count(run.filter_at());
        let filter = Filter::read(self.store, run.filter_at());
        if let Err(error) = &filter {
            self.problem(format!("keyspace {keyspace}: the filter of run {}: {error}", run.number));
        }
        self.run = Some(filter.ok());
        self.report.run_rows += self.keyspace(keyspace, &run.root);
        self.report.runs += 1;
        self.run = None;
    }

    /// A tree and its counts; gives its rows.
    fn keyspace(&mut self, keyspace: u32, tree: &TreeRoot) -> u64 {
        (self.rows, self.payload_bytes, self.extents) = (0, 0, 0);
        let was_complete = std::mem::replace(&mut self.is_complete, true);
        self.subtree(&tree.ptr, keyspace, &[], None, self.root.generation);
        let found = (self.rows, self.payload_bytes, self.extents);
        let fits = if tree.is_bound {
            found.0 <= tree.rows && found.1 <= tree.payload_bytes && found.2 == tree.extents
        } else {
            found == (tree.rows, tree.payload_bytes, tree.extents)
        };
        if self.is_complete && !fits {
            self.problem(format!(
                "keyspace {keyspace}: {found:?} rows, bytes and large values found, ({}, {}, {}) recorded",
                tree.rows, tree.payload_bytes, tree.extents
            ));
        }
        self.is_complete &= was_complete;
        self.report.height = self.report.height.max(u64::from(tree.ptr.level) + 1);
        self.rows
    }

    fn count(&mut self, ptr: &Ptr) {
        self.used.push(Extent { offset: ptr.offset, bytes: u64::from(ptr.bytes) });
        self.report.blocks += 1;
        self.report.bytes += u64::from(ptr.bytes);
        (self.progress)(self.report.blocks, self.root.superblock.blocks.max(self.report.blocks));
    }

    /// One block and all below it. Levels fall by one with each step (`Block::parse`), so this ends.
    fn subtree(&mut self, ptr: &Ptr, keyspace: u32, lower: &[u8], upper: Option<&[u8]>, birth_max: u64) {
        self.count(ptr);
        if ptr.birth > birth_max || ptr.end() > self.root.superblock.file_bytes {
            self.problem(format!("byte {}: younger than its parent, or beyond the file's end", ptr.offset));
        }
        let block = match self.store.read_block(ptr, keyspace) {
            Ok(block) => block,
            Err(error) => {
                self.is_complete = false;
                return self.problem(format!("keyspace {keyspace}: {error}"));
            }
        };
        self.bounds(&block, keyspace, lower, upper);
        if block.level() == 0 {
            return self.rows_of(&block, keyspace);
        }
        let mut separator = lower.to_vec();
        for index in 0..block.count() {
            let mut next = Vec::new();
            let has_next = index + 1 < block.count();
            if has_next {
                block.key_into(index + 1, &mut next);
            }
            match block.child(index) {
                Ok(child) => {
                    let end = if has_next { Some(&next[..]) } else { upper };
                    self.subtree(&child, keyspace, &separator, end, ptr.birth);
                }
                Err(flaw) => self.problem(format!("byte {}: {flaw}", ptr.offset)),
            }
            separator = next;
        }
    }

    fn bounds(&mut self, block: &Arc<Block>, keyspace: u32, lower: &[u8], upper: Option<&[u8]>) {
        let mut key = Vec::new();
        block.key_into(0, &mut key);
        let is_below = &key[..] < lower;
        block.key_into(block.count().saturating_sub(1), &mut key);
        if is_below || upper.is_some_and(|upper| &key[..] >= upper) {
            let offset = block.ptr().offset;
            self.problem(format!(
                "keyspace {keyspace}: byte {offset}: keys outside the bounds of the parent"
            ));
        }
    }

    fn rows_of(&mut self, leaf: &Arc<Block>, keyspace: u32) {
        if keyspace != ROOTS_KEYSPACE {
            self.report.leaf_bytes += leaf.bytes_len() as u64;
            self.report.leaf_bytes_used += leaf.used_len() as u64;
            self.report.leaf_bytes_stored += u64::from(leaf.ptr().bytes);
            self.report.leaves_compressed += u64::from(leaf.is_compressed());
        }
        let mut key = Vec::new();
        for index in 0..leaf.count() {
            let payload = match leaf.payload(index) {
                Ok(payload) => payload,
                Err(flaw) => {
                    self.problem(format!("byte {}: {flaw}", leaf.ptr().offset));
                    continue;
                }
            };
            self.rows += 1;
            self.payload_bytes +=
                (leaf.prefix().len() + leaf.suffix(index).len()) as u64 + payload.value_bytes();
            if let Some(Some(filter)) = &self.run {
                leaf.key_into(index, &mut key);
                if !filter.may_have(&key) {
                    let at = leaf.ptr().offset;
                    self.problem(format!("byte {at}: a run's row that its filter does not know"));
                }
            }
            match payload {
                Payload::Removed | Payload::Added(_) if self.run.is_none() => {
                    self.problem(format!("byte {}: a run's row where a tree's belongs", leaf.ptr().offset));
                }
                Payload::Inline(_) | Payload::Child(_) | Payload::Removed | Payload::Added(_) => {}
                Payload::Extent { ptr, .. } => {
                    self.extents += 1;
                    self.piece(&ptr, keyspace);
                }
                Payload::Pieces { len, ptr } => {
                    self.extents += 1;
                    self.count(&ptr);
                    match self.store.large_value(len, &ptr) {
                        Ok(value) => value.pieces().for_each(|ptr| self.piece(&ptr, keyspace)),
                        Err(error) => {
                            self.is_complete = false;
                            self.problem(format!("keyspace {keyspace}: a value's list of pieces: {error}"));
                        }
                    }
                }
            }
        }
    }

    /// A value, or a part of one.
    fn piece(&mut self, ptr: &Ptr, keyspace: u32) {
        self.count(ptr);
        if let Err(error) = self.store.read_verified(ptr) {
            self.problem(format!("keyspace {keyspace}: a value: {error}"));
        }
    }

    fn totals(&mut self) {
        let superblock = &self.root.superblock;
        let in_trees = self.root.trees.values().map(|tree| &tree.root);
        let mut roots = in_trees.chain(self.root.runs.values().flatten().map(|run| &run.root));
        let found = self.report.rows + self.report.run_rows;
        let fits =
            if roots.any(|root| root.is_bound) { found <= superblock.rows } else { found == superblock.rows };
        if self.is_complete && !fits {
            let what = format!("{found} rows found, {} recorded", superblock.rows);
            self.problem(what);
        }
    }

    /// Free, dead and used extents must cover the file once.
    fn space(&mut self) {
        let superblock = &self.root.superblock;
        let end = superblock.file_bytes;
        let mut all: Vec<(Extent, &str)> = Vec::new();
        if let Some(ptr) = superblock.free_map {
            self.count(&ptr);
            let map = self.store.read_verified(&ptr).map_err(|error| error.to_string());
            match map.and_then(|block| freemap::decode(&block, &ptr, end)) {
                Ok((free, dead)) => {
                    all.extend(free.into_iter().map(|extent| (extent, "free")));
                    all.extend(dead.into_iter().map(|dead| (dead.extent, "dead")));
                }
                Err(flaw) => return self.problem(format!("the free map: {flaw}")),
            }
        }
        if !self.is_complete {
            return self.problem("free space was not checked, for blocks could not be read".to_owned());
        }
        if self.report.blocks != superblock.blocks || self.report.bytes != superblock.live_bytes {
            let what = format!(
                "{} blocks of {} bytes found, {} of {} recorded",
                self.report.blocks, self.report.bytes, superblock.blocks, superblock.live_bytes
            );
            self.problem(what);
        }
        all.extend(self.used.iter().map(|extent| (*extent, "in use")));
        all.sort_unstable();
        let mut at = FIRST_BLOCK;
        let mut before = "the superblocks";
        for (extent, what) in all {
            if extent.offset < at {
                self.problem(format!("byte {}: {what}, and within what is {before}", extent.offset));
            } else if extent.offset > at {
                self.problem(format!("byte {at}: {} bytes are neither free nor in use", extent.offset - at));
            }
            at = at.max(extent.end());
            before = what;
        }
        if at != end {
            self.problem(format!("the extents end at {at}, and the file at {end}"));
        }
    }
}
