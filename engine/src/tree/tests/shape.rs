//! How full, how high, and how much is written.

use super::*;

fn fill(report: &TreeReport) -> f64 {
    report.leaf_bytes_used as f64 / report.leaf_bytes as f64
}

#[test]
fn ascending_loads_fill_their_leaves() {
    for batch in [1_u64, 10, 1000, 20_000] {
        let file = new_file();
        let (store, mut root) = open(&file);
        let total = if batch == 1 { 2000 } else { 20_000 };
        for start in (0..total).step_by(batch as usize) {
            root =
                fold(&store, &root, &put(1, (start..start + batch).map(|n| (key(n), vec![3; 100])))).unwrap();
        }
        let report = verified(&store, &root);
        assert!(fill(&report) > 0.9, "batches of {batch}: {}", fill(&report));
        let high = if batch == 1 { 2 } else { 3 };
        assert!(report.height <= high, "{} levels", report.height);
    }
}

#[test]
fn random_loads_fill_their_leaves_well_enough() {
    for batch in [20, 200, 2000] {
        let mut rng = Rng(batch);
        let file = new_file();
        let (store, mut root) = open(&file);
        for _ in 0..(20_000 / batch).min(300) {
            let rows = (0..batch).map(|_| (key(rng.below(1 << 40)), vec![3; 60 + rng.below(80) as usize]));
            root = fold(&store, &root, &put(1, rows.collect::<Vec<_>>())).unwrap();
        }
        let report = verified(&store, &root);
        assert!(fill(&report) > 0.6, "batches of {batch}: {}", fill(&report));
        assert!(report.height <= 3, "{} levels", report.height);
    }
}

#[test]
fn deleting_draws_the_rest_together() {
    let mut rng = Rng(9);
    let file = new_file();
    let (store, mut root) = open(&file);
    root = fold(&store, &root, &put(1, (0..3000).map(|n| (key(n), vec![3; 100])))).unwrap();
    let before = verified(&store, &root).leaf_bytes;
    let mut doomed: Vec<u64> = (0..3000).filter(|n| n % 20 != 0).collect();
    while !doomed.is_empty() {
        // One at a time, so that a leaf's neighbours are untouched.
        let n = doomed.swap_remove(rng.below(doomed.len() as u64) as usize);
        root = fold(&store, &root, &Changes::from([(1, BTreeMap::from([(key(n), None)]))])).unwrap();
    }
    let report = verified(&store, &root);
    assert_eq!(report.rows, 150);
    assert!(report.leaf_bytes < before / 6, "{} of {before}", report.leaf_bytes);
    let rest = Changes::from([(1, (1..3000).map(|n| (key(n), None)).collect())]);
    root = fold(&store, &root, &rest).unwrap();
    assert_eq!(verified(&store, &root).height, 1);
}

#[test]
fn the_last_leaf_joins_its_left_neighbour() {
    let file = new_file();
    let (store, mut root) = open(&file);
    root = fold(&store, &root, &put(1, (0..100).map(|n| (key(n), vec![3; 100])))).unwrap();
    let before = verified(&store, &root).leaf_bytes / 4096;
    assert_eq!(before, 3);
    // The middle leaf is thinned out, but not so far that it draws in the last one.
    let middle = Changes::from([(1, (50..74).map(|n| (key(n), None)).collect())]);
    root = fold(&store, &root, &middle).unwrap();
    assert_eq!(verified(&store, &root).leaf_bytes / 4096, before);
    let last = Changes::from([(1, (76..99).map(|n| (key(n), None)).collect())]);
    root = fold(&store, &root, &last).unwrap();
    assert_eq!(verified(&store, &root).leaf_bytes / 4096, before - 1);
}

#[test]
fn a_cluster_of_one_per_cent_writes_under_five() {
    let mut rng = Rng(3);
    let file = new_file();
    let (store, mut root) = open(&file);
    root = fold(&store, &root, &put(1, (0..60_000).map(|n| (key(n), vec![0; 100])))).unwrap();
    for round in 0..6 {
        let live = store.stats().live_bytes;
        let start = rng.below(59_400);
        let (before, _) = file.written();
        root =
            fold(&store, &root, &put(1, (start..start + 600).map(|n| (key(n), vec![round; 100])))).unwrap();
        let written = file.written().0 - before;
        assert!(written * 100 < live * 3, "{written} of {live} bytes");
        assert_eq!(written, store.stats().fold_bytes_last);
    }
}

#[test]
fn large_values_stay_where_they_are_when_neighbours_change() {
    let file = new_file();
    let (store, mut root) = open(&file);
    root = fold(&store, &root, &put(1, (0..100).map(|n| (key(n * 2), vec![0; 100_000])))).unwrap();
    let (before, _) = file.written();
    root = fold(&store, &root, &put(1, (0..100).map(|n| (key(n * 2 + 1), vec![0; 10])))).unwrap();
    assert!(file.written().0 - before < 100_000);
    verified(&store, &root);
}

#[test]
fn writes_are_gathered_into_runs() {
    let file = new_file();
    let (store, root) = open(&file);
    let (bytes_before, writes_before) = file.written();
    let syncs = file.syncs();
    fold(&store, &root, &put(1, (0..50_000).map(|n| (key(n), vec![3; 100])))).unwrap();
    let (bytes, writes) = file.written();
    let (bytes, writes) = (bytes - bytes_before, writes - writes_before);
    assert!(bytes / writes > 200 << 10, "{writes} writes for {bytes} bytes");
    assert_eq!(file.syncs() - syncs, 1);
}

#[test]
fn the_cache_is_bounded_and_hit() {
    let file = new_file();
    let (store, root) = open(&file);
    let root = fold(&store, &root, &put(1, (0..50_000).map(|n| (key(n), vec![3; 100])))).unwrap();
    contents(&store, &root).unwrap();
    let stats = store.stats();
    assert!(
        stats.cache_bytes <= stats.cache_bytes_max && stats.cache_bytes > stats.cache_bytes_max / 2,
        "{stats:?}"
    );
    for _ in 0..100 {
        store.get(&root, 1, &key(7)).unwrap();
    }
    let after = store.stats();
    assert!(after.cache_hits >= stats.cache_hits + 95 && after.cache_misses <= stats.cache_misses + 3);
}
