//! What a fold would write, told beforehand, and whether a run beside the tree would be the cheaper: docs/design/0010.
//!
//! The forecast looks at pairs of neighbouring changes: if the second one's leaf is another than the first one's, the fold
//! rewrites one leaf more. A sample of pairs from all over the changes tells the rest. Only inner blocks are read.

use super::{Ptr, Result, Root, TreeStore};

/// Checkpoints that a leaf waits to be rewritten for, at most: each has a run, one more place to look for a row.
const CYCLE_MAX: u32 = 16;
/// Where ranges are cleared all the time, stretches cannot be rolled: with more runs all are folded.
pub(crate) const RUNS_MAX: u32 = 2 * CYCLE_MAX;
/// The share of the tree's bytes that runs may take.
const RUNS_SHARE: u64 = 4;
/// A run must save a quarter of what the fold would write: it makes reads dearer.
const WORTH: f64 = 0.75;

/// Pairs of neighbouring changes that were looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pairs: u64,
    /// Bytes of the leaves that began with a pair's second change.
    begun_bytes: u64,
    /// Keys whose leaf was looked for, and the bytes that the tree's leaves would have if all parts of it were as the one
    /// on the way to it, added up.
    keys: u64,
    tree_bytes: u128,
}

impl Sample {
    /// Bytes of the leaves that so many changes would rewrite.
    pub(crate) fn fold_bytes(&self, changes: u64) -> u64 {
        let bytes = u128::from(self.begun_bytes) * u128::from(changes) / u128::from(self.pairs.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Bytes of all leaves, about.
    pub(crate) fn tree_bytes(&self) -> u64 {
        u64::try_from(self.tree_bytes / u128::from(self.keys.max(1))).unwrap_or(u64::MAX)
    }
}

/// What a checkpoint has before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prospect {
    /// Bytes of the tree.
    pub(crate) tree: u64,
    /// Bytes that folding the changes alone would write.
    pub(crate) fold: u64,
    /// Bytes of the changes as a run.
    pub(crate) run: u64,
    /// Runs that are there already, and their bytes.
    pub(crate) runs: u32,
    pub(crate) runs_bytes: u64,
}

/// What a checkpoint does with its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// They go into the tree, and all runs with them.
    Fold,
    /// They become a run, and this part of the tree takes in what older runs have of it: one in so many.
    Spill { part: u32 },
}

impl Prospect {
    /// Runs are begun only if that is cheaper than folding each time, and go on within bounds.
    pub(crate) fn plan(&self) -> Plan {
        let part = self.cycle();
        let has_room = self.runs < RUNS_MAX && self.runs_bytes + self.run <= self.tree / RUNS_SHARE;
        let is_worth_it = self.runs > 0 || self.bytes_spilled() <= WORTH * self.fold as f64;
        if part > 1 && has_room && is_worth_it { Plan::Spill { part } } else { Plan::Fold }
    }

    /// How many deltas such as this one a leaf waits for.
    fn cycle(&self) -> u32 {
        let share = self.tree / RUNS_SHARE / self.run.max(1);
        CYCLE_MAX.min(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// Bytes written for each delta if all are such as this one and become runs: itself, and its part of the tree's leaves,
    /// but for those that none has touched.
    fn bytes_spilled(&self) -> f64 {
        let deltas = f64::from(self.cycle().max(1));
        let tree = self.tree.max(1) as f64;
        let untouched = (1.0 - self.fold as f64 / tree).clamp(0.0, 1.0);
        self.run as f64 + tree * (1.0 - untouched.powf(deltas)) / deltas
    }
}

impl TreeStore {
    /// Adds the pairs in a stretch of changes, whose keys ascend, to a sample.
    ///
    /// # Errors
    /// `Corruption` and `Io`.
    pub(crate) fn sample<K: AsRef<[u8]>>(
        &self,
        root: &Root,
        keyspace: u32,
        keys: impl Iterator<Item = K>,
        sample: &mut Sample,
    ) -> Result<()> {
        let mut before: Option<Ptr> = None;
        for key in keys {
            let Some((leaf, leaves)) = self.leaf_of(root, keyspace, key.as_ref())? else { return Ok(()) };
            sample.keys += 1;
            sample.tree_bytes += u128::from(leaves) * u128::from(leaf.bytes);
            if let Some(before) = before.replace(leaf) {
                sample.pairs += 1;
                if before != leaf {
                    sample.begun_bytes += u64::from(leaf.bytes);
                }
            }
        }
        Ok(())
    }

    /// Where the leaf is that a key would be in, which is not read, and how many there are if all inner blocks have as many
    /// children as those above it.
    fn leaf_of(&self, root: &Root, keyspace: u32, key: &[u8]) -> Result<Option<(Ptr, u64)>> {
        let Some(tree) = root.trees.get(&keyspace) else { return Ok(None) };
        let mut leaves = 1u64;
        let count = |block: &std::sync::Arc<super::block::Block>, _| {
            leaves = leaves.saturating_mul(block.count() as u64);
        };
        let mut ptr = tree.top.descend(self, (tree.root.ptr, keyspace), key, count)?;
        while ptr.level > 0 {
            let block = self.load(&ptr, keyspace)?;
            leaves = leaves.saturating_mul(block.count() as u64);
            ptr = self.child_of(&block, block.child_index(key))?;
        }
        Ok(Some((ptr, leaves)))
    }
}
