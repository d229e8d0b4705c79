//! What a fold writes is what was forecast, and runs are written where they pay.

use super::super::cost::{Plan, Prospect, Sample};
use super::*;
use std::collections::{BTreeSet, VecDeque};

const ROWS: u64 = 40_000;

/// Bytes of blocks that a fold writes beside the leaves, here: inner blocks, roots, free map, superblock.
const BESIDE: u64 = 64 * 4096;

fn loaded() -> (Arc<TreeStore>, Arc<Root>) {
    let (store, root) = open(&new_file());
    let root = fold(&store, &root, &put(1, (0..ROWS).map(|n| (key(n), vec![1; 200])))).unwrap();
    (store, root)
}

fn random(count: usize) -> BTreeSet<u64> {
    let mut rng = Rng(count as u64);
    (0..count).map(|_| rng.below(ROWS)).collect()
}

/// Bytes that folding changes to these rows was forecast to write, by stretches of so many rows in each so many, and wrote.
fn forecast_and_written(rows: &BTreeSet<u64>, stretch: usize, of: usize) -> (u64, u64) {
    let (store, root) = loaded();
    let keys: Vec<Vec<u8>> = rows.iter().map(|n| key(*n)).collect();
    let mut sample = Sample::default();
    for part in keys.chunks(of) {
        store.sample(&root, 1, part.iter().take(stretch), &mut sample).unwrap();
    }
    fold(&store, &root, &put(1, keys.into_iter().map(|key| (key, vec![2; 200])))).unwrap();
    (sample.fold_bytes(rows.len() as u64), store.stats().fold_bytes_last)
}

#[test]
fn a_fold_writes_what_was_forecast() {
    let few_in_a_row: BTreeSet<u64> = (10_000..12_000).collect();
    for rows in [random(200), random(1000), random(4000), random(20_000), few_in_a_row] {
        let (forecast, written) = forecast_and_written(&rows, usize::MAX, usize::MAX);
        assert!(written + written / 20 >= forecast, "{} rows: {forecast} and {written}", rows.len());
        assert!(
            written <= forecast + forecast / 10 + BESIDE,
            "{} rows: {forecast} and {written}",
            rows.len()
        );
    }
}

#[test]
fn a_tenth_of_the_changes_tells_the_rest() {
    for rows in [random(4000), random(20_000), (0..20_000).collect()] {
        let (forecast, written) = forecast_and_written(&rows, 32, 320);
        let difference = forecast.abs_diff(written);
        assert!(difference <= written / 5 + BESIDE, "{} rows: {forecast} and {written}", rows.len());
    }
}

#[test]
fn a_keyspace_without_a_tree_has_nothing_to_rewrite() {
    let (store, root) = open(&new_file());
    let mut sample = Sample::default();
    store.sample(&root, 1, [b"a", b"b"].iter(), &mut sample).unwrap();
    assert_eq!(sample.fold_bytes(1_000_000), 0);
}

/// Bytes written for each byte of the changes, and the most runs and bytes of them that there were, over many checkpoints
/// of random updates.
fn simulated(tree: u64, share: f64, run: u64, spills: bool) -> (f64, u32, u64) {
    let (mut written, mut most, mut most_bytes) = (0.0, 0, 0);
    // For each of 10080 pieces of the tree the changes that wait for it, in deltas; and where each run began to be taken in.
    let (mut waiting, mut at, mut begun) = (vec![0_i32; 10080], 0, VecDeque::new());
    let deltas = 400;
    for _ in 0..deltas {
        let fold = (tree as f64 * share) as u64;
        let touched = |deltas: i32| tree as f64 / 10080.0 * (1.0 - (1.0 - share).powi(deltas));
        let bytes = (waiting.iter().map(|deltas| *deltas as u64).sum::<u64>() * run) / 10080;
        let prospect = Prospect { tree, fold, run, runs: begun.len() as u32, runs_bytes: bytes };
        match prospect.plan() {
            Plan::Spill { part } if spills => {
                let mut left = 10080 / part as usize;
                while left > 0 && !begun.is_empty() {
                    written += touched(waiting[at % 10080]);
                    waiting[at % 10080] = 0;
                    (at, left) = (at + 1, left - 1);
                    begun.retain(|from| at - from < 10080);
                }
                written += run as f64;
                waiting.iter_mut().for_each(|deltas| *deltas += 1);
                begun.push_back(at);
            }
            _ => {
                written += waiting.iter().map(|deltas| touched(deltas + 1)).sum::<f64>();
                waiting.fill(0);
                begun.clear();
            }
        }
        (most, most_bytes) = (most.max(begun.len() as u32), most_bytes.max(bytes));
    }
    (written / f64::from(deltas) / run as f64, most, most_bytes)
}

#[test]
fn random_updates_spill() {
    // Five million rows in 660 MB, 147,000 of them in a delta of 18 MB: 0.6 of the leaves.
    let (folded, ..) = simulated(660 << 20, 0.6, 18 << 20, false);
    let (spilled, runs, bytes) = simulated(660 << 20, 0.6, 18 << 20, true);
    assert!((21.0..23.0).contains(&folded), "{folded}");
    assert!((5.0..6.0).contains(&spilled), "{spilled}");
    assert!(runs <= 10 && bytes <= 6 * (18 << 20), "{runs} runs of {bytes}");
}

#[test]
fn runs_are_never_dearer_than_folds() {
    for share in [0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0] {
        for part in [1, 2, 3, 4, 5, 8, 16, 64, 256, 4096] {
            let tree = 1 << 30;
            let (folded, ..) = simulated(tree, share, tree / part, false);
            let (spilled, runs, bytes) = simulated(tree, share, tree / part, true);
            assert!(spilled <= folded * 1.0001, "{share} of the leaves, 1/{part}: {spilled} and {folded}");
            assert!(runs <= 17 && bytes <= tree / 4, "{share}, 1/{part}: {runs} runs of {bytes}");
        }
    }
}

#[test]
fn what_lies_close_together_is_folded() {
    let prospect = Prospect { tree: 1 << 30, fold: 11 << 20, run: 10 << 20, runs: 0, runs_bytes: 0 };
    assert_eq!(prospect.plan(), Plan::Fold, "a run would be written beside nearly the same bytes");
    let few = Prospect { fold: 40 << 20, run: 1 << 20, ..prospect };
    assert_eq!(few.plan(), Plan::Fold, "sixteen such deltas meet in few leaves");
    let empty = Prospect { tree: 0, fold: 0, ..prospect };
    assert_eq!(empty.plan(), Plan::Fold);
}
