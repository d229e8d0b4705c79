//! Whether a checkpoint's changes go into a keyspace's tree, or into a run beside it: docs/design/0010.
//!
//! Runs cost whoever reads: a filter for each, and now and then a block. Where a tree does not fit in the cache, that is
//! little beside the block that a read waits for anyway; where it does, it would be most of the read. So trees that fit are
//! folded, whatever it costs.

use crate::Result;
use crate::cover::Span;
use crate::delta::Delta;
use crate::life::checkpoint::{Folding, Rolling};
use crate::options::Spilling;
use crate::read::view::Reads;
use crate::record::{BRANCHES, CATALOGUE};
use crate::sync::Ordering;
use crate::tree::Root;
use crate::tree::cost::{Plan, Prospect, RUNS_MAX, Sample};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Places in a delta that are looked at, each about a hundred neighbouring rows.
const PLACES: usize = 64;

/// An idle store's runs come into the tree in so many parts: each is free for the next.
const IDLE_PARTS: u32 = 16;

/// Beside others' changes the stretches of all that are idle have about so many bytes at most: they are written for each
/// checkpoint.
const IDLE_STRETCH_BYTES: u64 = 32 << 20;

/// A tree that takes this share of the cache at most counts as being in it.
const SMALL_SHARE: u64 = 8;

impl Reads {
    /// The next stretch of a keyspace's tree that takes in what runs have of it: one in so many parts, from where the one
    /// before ended.
    ///
    /// # Errors
    /// `Corruption` and `Io`: inner blocks of the tree are read.
    pub(crate) fn next_stretch(&self, root: &Root, keyspace: u32, part: u32) -> Result<Span> {
        let from = self.rolled.lock().get(&keyspace).cloned().unwrap_or_default();
        let to = self.store.stretch(root, keyspace, &from, part)?;
        Ok(Span { from, to: to.map(Arc::from) })
    }

    /// Keyspaces whose turn it is among those that have runs and are not `changed`: so many that their stretches have
    /// [`IDLE_STRETCH_BYTES`] together, or one.
    pub(crate) fn idle_in_turn(&self, root: &Root, changed: &BTreeSet<u32>) -> Vec<u32> {
        let idle: Vec<u32> =
            root.keyspaces_with_runs().filter(|keyspace| !changed.contains(keyspace)).collect();
        let last = self.idle_turn.load(Ordering::Relaxed);
        let (before, behind): (Vec<u32>, Vec<u32>) = idle.into_iter().partition(|keyspace| *keyspace <= last);
        let mut bytes = 0;
        let mut turn = Vec::new();
        for keyspace in behind.into_iter().chain(before) {
            bytes += root.payload_bytes(keyspace) / u64::from(idle_parts(root, keyspace));
            if bytes > IDLE_STRETCH_BYTES && !turn.is_empty() {
                break;
            }
            self.idle_turn.store(keyspace, Ordering::Relaxed);
            turn.push(keyspace);
        }
        turn
    }

    /// The stretch is published; at the end all begins anew.
    pub(crate) fn rolled(&self, keyspace: u32, stretch: &Span) {
        self.rolled.lock().insert(keyspace, stretch.to.clone().unwrap_or_default());
    }
}

/// What to do with the changes that these deltas have for a keyspace.
///
/// # Errors
/// `Corruption` and `Io`: inner blocks of the tree are read.
pub(crate) fn plan(
    reads: &Reads,
    root: &Root,
    deltas: &[Arc<Delta>],
    keyspace: u32,
    how: &Folding<'_>,
) -> Result<Plan> {
    // Opening reads both with plain cursors, and they have few rows.
    if keyspace == CATALOGUE || keyspace == BRANCHES {
        return Ok(Plan::Fold);
    }
    let (runs, runs_bytes) = root.runs_of(keyspace);
    if how.rolling == Rolling::Never && (1..RUNS_MAX).contains(&runs) {
        return Ok(Plan::Spill { part: u32::MAX });
    }
    match how.spilling {
        Spilling::Below(most) if runs < most => return Ok(Plan::Spill { part: u32::MAX }),
        Spilling::Below(_) => return Ok(Plan::Fold),
        Spilling::Rolling(part) => return Ok(rolling(part, runs)),
        Spilling::Weighed => {}
    }
    let store = &reads.store;
    let cache = store.cache_bytes_max();
    // All rows fit, whatever their leaves take.
    let (own, all) = (root.payload_bytes(keyspace), root.payload_bytes_of_all());
    if all <= cache / 2 {
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
    if rows == 0 {
        // Ranges are removed and nothing else: that is no reason to fold what waits beside a large tree.
        store.sample(root, keyspace, [b""].iter(), &mut sample)?;
    }
    let tree = sample.tree_bytes();
    // Trees share the cache; a small one has its part of it whatever the others are.
    let with_others = u128::from(tree) * u128::from(all) / u128::from(own.max(1));
    if with_others <= u128::from(cache) || tree <= cache / SMALL_SHARE {
        return Ok(Plan::Fold);
    }
    Ok(Prospect { tree, fold: sample.fold_bytes(rows).min(tree), run, runs, runs_bytes }.plan())
}

/// What to do with the runs of a keyspace that nothing is new in, at rest or beside others' changes.
pub(crate) fn plan_idle(root: &Root, keyspace: u32, spilling: Spilling, is_at_rest: bool) -> Plan {
    match spilling {
        Spilling::Weighed if is_at_rest => Plan::Spill { part: IDLE_PARTS },
        Spilling::Weighed => Plan::Spill { part: idle_parts(root, keyspace) },
        Spilling::Rolling(part) => rolling(part, root.runs_of(keyspace).0),
        Spilling::Below(_) if is_at_rest => Plan::Fold,
        Spilling::Below(_) => Plan::Spill { part: u32::MAX },
    }
}

/// In how many parts a keyspace's runs come into its tree beside others' changes.
fn idle_parts(root: &Root, keyspace: u32) -> u32 {
    let parts = root.payload_bytes(keyspace).div_ceil(IDLE_STRETCH_BYTES);
    IDLE_PARTS.max(u32::try_from(parts).unwrap_or(u32::MAX - 1))
}

fn rolling(part: u32, runs: u32) -> Plan {
    if runs < 3 * part { Plan::Spill { part } } else { Plan::Fold }
}
