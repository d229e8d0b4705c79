//! Space that is given back to the next fold and to the file system, and is nobody's by then.

use super::*;

/// As a checkpoint does it.
fn checkpoint(store: &Arc<TreeStore>, root: Arc<Root>, changes: &Changes) -> Arc<Root> {
    let folded = fold(store, &root, changes).unwrap();
    let repeated = store.repeat(&folded).unwrap();
    drop((root, folded));
    store.release_space(0).unwrap();
    repeated
}

fn all_rows(round: u8) -> Changes {
    put(1, (0..20_000).map(|n| (key(n), vec![round; 200])))
}

/// Bytes that the file takes on the disk.
fn solid(store: &TreeStore) -> u64 {
    let stats = store.stats();
    stats.file_bytes - stats.hole_bytes
}

#[test]
fn a_file_that_is_rewritten_takes_little_more_than_what_is_in_it() {
    let file = new_file();
    let (store, mut root) = open(&file);
    let mut model = Model::new();
    for round in 0..6 {
        root = checkpoint(&store, root, &all_rows(round));
        follow(&mut model, &all_rows(round));
        let (stats, reserve) = (store.stats(), store.reserve());
        assert!(solid(&store) <= stats.live_bytes + stats.live_bytes / 20 + reserve, "{stats:?}");
        assert!(stats.file_bytes < 3 * stats.live_bytes, "two trees and what a reserve adds: {stats:?}");
        assert_eq!(file.size(), stats.file_bytes);
        check(&store, &root, &model);
    }
    assert!(store.stats().returned > 0);
    drop((store, root));
    let (store, mut root) = open(&file);
    check(&store, &root, &model);
    // Holes are not known any more; what is taken and given back again is.
    root = checkpoint(&store, root, &all_rows(9));
    follow(&mut model, &all_rows(9));
    assert!(solid(&store) < 3 * store.stats().live_bytes / 2 + store.reserve(), "{:?}", store.stats());
    check(&store, &root, &model);
}

/// Rounds of changes with snapshots held, and whether all of them stayed whole.
fn snapshots_survive(mistake: fn(&TreeStore)) -> bool {
    let mut rng = Rng(8);
    let file = new_file();
    let (store, mut root) = open(&file);
    mistake(&store);
    let mut model = Model::new();
    let mut held: Vec<(Arc<Root>, Model)> = Vec::new();
    let mut is_whole = true;
    for round in 0..30 {
        let changes = put(1, (0..400).map(|_| (key(rng.below(2000)), vec![round; rng.below(3000) as usize])));
        root = checkpoint(&store, root, &changes);
        follow(&mut model, &changes);
        held.push((Arc::clone(&root), model.clone()));
        if held.len() > 5 {
            held.swap_remove(rng.below(4) as usize);
        }
        for (root, model) in &held {
            let report = store.verify(root, &mut |_, _| ()).unwrap();
            let is_damaged = report.problems.iter().any(|problem| problem.contains("damaged"));
            is_whole &= !is_damaged && contents(&store, root).is_ok_and(|found| found == *model);
        }
    }
    assert!(store.stats().returned > 0);
    is_whole
}

#[test]
fn what_a_snapshot_leads_to_is_not_given_back() {
    assert!(snapshots_survive(|_| ()));
    assert!(!snapshots_survive(TreeStore::punch_early), "the line above proves nothing");
}

/// After each step of a checkpoint either slot may be lost, and the other one's tree is whole. False if it was not.
fn either_slot_is_enough(mistake: fn(&TreeStore)) -> bool {
    let mut rng = Rng(3);
    let file = new_file();
    let (store, mut root) = open(&file);
    mistake(&store);
    let (mut model, mut is_whole) = (Model::new(), true);
    for round in 0..20u8 {
        let changes = put(1, (0..300).map(|_| (key(rng.below(1000)), vec![round; rng.below(900) as usize])));
        let mut next = store.begin_fold(&root).unwrap();
        apply(&mut next, &changes).unwrap();
        let images = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (taken, at) = (Arc::clone(&images), Arc::clone(&file));
        next.on_stage(move |_| taken.lock().push(at.bytes()));
        let folded = next.finish(|_| ()).unwrap();
        let mut after = model.clone();
        follow(&mut after, &changes);
        let repeated = store.repeat(&folded).unwrap();
        images.lock().push(file.bytes());
        drop((root, folded));
        root = repeated;
        store.release_space(0).unwrap();
        images.lock().push(file.bytes());
        for mut bytes in images.lock().drain(..) {
            // The slot that the fold writes: torn.
            bytes[((root.generation - 1) % 2 * 4096) as usize + 100] ^= 1;
            let file = Arc::new(MemFile::with_bytes(bytes));
            let opened = TreeStore::open(SimDisk::new(0), file, path(), CACHE_BYTES, false);
            let found = opened.and_then(|(store, root)| contents(&store, &root));
            is_whole &= found.is_ok_and(|found| found == model || found == after);
        }
        model = after;
    }
    is_whole
}

#[test]
fn a_repeated_superblock_is_worth_the_first() {
    assert!(either_slot_is_enough(|_| ()));
    assert!(!either_slot_is_enough(TreeStore::leave_unrepeated), "the line above proves nothing");
}

#[test]
fn a_superblock_that_cannot_be_repeated_is_the_last() {
    let file = new_file();
    let (store, root) = open(&file);
    let folded = fold(&store, &root, &all_rows(1)).unwrap();
    file.fail_at(file.changes() + 1, std::io::ErrorKind::Other, false);
    assert!(matches!(store.repeat(&folded), Err(Error::Io { .. })));
    assert!(matches!(fold(&store, &folded, &all_rows(2)), Err(Error::Poisoned(_))));
    let (store, root) = open(&file);
    check(&store, &root, &Model::from([(1, (0..20_000).map(|n| (key(n), vec![1; 200])).collect())]));
}
