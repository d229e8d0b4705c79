//! Whether a checkpoint's changes go into a keyspace's tree, or into a run beside it: docs/design/0010.
//!
//! Runs cost whoever reads: a filter for each, and now and then a block. Where a tree does not fit in the cache, that is
//! little beside the block that a read waits for anyway; where it does, it would be most of the read. So trees that fit are
//! folded, whatever it costs.

use crate::Result;
use crate::delta::Delta;
use crate::options::Spilling;
use crate::read::view::Reads;
use crate::record::{BRANCHES, CATALOGUE};
use crate::tree::cost::{Plan, Prospect, Sample};
use crate::tree::{Root, TreeStore};
use std::sync::Arc;

/// Places in a delta that are looked at, each about a hundred neighbouring rows.
const PLACES: usize = 64;

/// What to do with the changes that these deltas have for a keyspace.
///
/// # Errors
/// `Corruption` and `Io`: inner blocks of the tree are read.
pub(crate) fn plan(
    reads: &Reads,
    root: &Root,
    deltas: &[Arc<Delta>],
    keyspace: u32,
    spilling: Spilling,
) -> Result<Plan> {
    // Opening reads both with plain cursors, and they have few rows.
    if keyspace == CATALOGUE || keyspace == BRANCHES || deltas.is_empty() {
        return Ok(Plan::Fold);
    }
    let (runs, runs_bytes) = TreeStore::runs_of(root, keyspace);
    if let Spilling::Below(runs_max) = spilling {
        return Ok(if runs < runs_max { Plan::Spill } else { Plan::Fold });
    }
    let store = &reads.store;
    // Its rows alone fit, whatever their leaves take.
    if root.payload_bytes(keyspace) <= store.stats().cache_bytes_max / 2 {
        return Ok(Plan::Fold);
    }
    let mut sample = Sample::default();
    let (mut rows, mut run) = (0, 0);
    for delta in deltas {
        let sampled = delta.sample(keyspace, PLACES);
        for part in &sampled.parts {
            store.sample(root, keyspace, part.iter(), &mut sample)?;
        }
        rows += sampled.rows;
        run += sampled.bytes;
    }
    let tree = sample.tree_bytes();
    if tree <= store.stats().cache_bytes_max {
        return Ok(Plan::Fold);
    }
    Ok(Prospect { tree, fold: sample.fold_bytes(rows).min(tree), run, runs, runs_bytes }.plan())
}
