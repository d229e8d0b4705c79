//! Old roots stay whole while later folds use the space of others again.

use super::*;

/// Folds for a while with snapshots held, and says whether any of them was ever damaged.
fn readers_survive(ignore_pins: bool) -> bool {
    let mut rng = Rng(5);
    let file = new_file();
    let (store, mut root) = open(&file);
    store.space.lock().reuse_early = ignore_pins;
    let mut model = Model::new();
    let mut held: Vec<(Arc<Root>, Model)> = Vec::new();
    let mut whole = true;
    for round in 0..40 {
        let changes = put(1, (0..300).map(|_| (key(rng.below(2000)), vec![round; rng.below(3000) as usize])));
        root = fold(&store, &root, &changes).unwrap();
        follow(&mut model, &changes);
        held.push((Arc::clone(&root), model.clone()));
        if held.len() > 6 {
            held.swap_remove(rng.below(5) as usize);
        }
        // The cache would hide what happened on the disk.
        let fresh = held.iter().all(|(root, model)| {
            let report = store.verify(root, &mut |_, _| ()).unwrap();
            let damaged = report.problems.iter().any(|problem| problem.contains("damaged"));
            !damaged && contents(&store, root).is_ok_and(|found| found == *model)
        });
        whole &= fresh;
    }
    whole
}

#[test]
fn snapshots_stay_readable_while_space_is_used_again() {
    assert!(readers_survive(false));
}

#[test]
fn without_the_rule_on_pins_they_would_not() {
    assert!(!readers_survive(true), "the test above proves nothing");
}

#[test]
fn space_is_used_again_and_given_back() {
    let mut rng = Rng(6);
    let file = new_file();
    let (store, mut root) = open(&file);
    root = fold(&store, &root, &put(1, (0..20_000).map(|n| (key(n), vec![0; 200])))).unwrap();
    let live = store.stats().live_bytes;
    for _ in 0..40 {
        let changes = put(1, (0..2000).map(|_| (key(rng.below(20_000)), vec![1; 200])));
        root = fold(&store, &root, &changes).unwrap();
    }
    let stats = store.stats();
    assert!(stats.file_bytes < 5 * live, "{stats:?} after {live} live");
    assert!(stats.live_bytes < 2 * live, "{stats:?}");
    let most = file.size();
    let gone = Changes::from([(1, (0..20_000).map(|n| (key(n), None)).collect())]);
    root = fold(&store, &root, &gone).unwrap();
    for _ in 0..4 {
        root = fold(&store, &root, &Changes::new()).unwrap();
    }
    assert!(file.size() < most / 3, "{} of {most} bytes", file.size());
    assert_eq!(store.stats().file_bytes, file.size());
    verified(&store, &root);
    drop((store, root));
    let (store, root) = open(&file);
    check(&store, &root, &Model::new());
}

#[test]
fn many_threads_read_while_folds_run() {
    let file = new_file();
    let (store, root) = open(&file);
    let first = fold(&store, &root, &put(1, (0..5000).map(|n| (key(n), vec![0; 100])))).unwrap();
    let current = Arc::new(parking_lot::RwLock::new(Arc::clone(&first)));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                let (store, current) = (Arc::clone(&store), Arc::clone(&current));
                scope.spawn(move || {
                    let mut rng = Rng(seed);
                    for _ in 0..300 {
                        let root = Arc::clone(&current.read());
                        let mut cursor = store.cursor(&root, 1);
                        let at = key(rng.below(5000));
                        cursor.seek(std::ops::Bound::Included(&at)).unwrap();
                        let value = store.get(&root, 1, &at).unwrap().unwrap();
                        let (found, same) = cursor.next().unwrap().unwrap();
                        assert_eq!(found, at);
                        assert_eq!(same, value);
                        let expected = root.generation - first_generation();
                        assert_eq!(value[0], expected as u8, "a root shows its own generation only");
                    }
                })
            })
            .collect();
        for round in 1..20u8 {
            let base = Arc::clone(&current.read());
            let next = fold(&store, &base, &put(1, (0..5000).map(|n| (key(n), vec![round; 100])))).unwrap();
            *current.write() = next;
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

fn first_generation() -> u64 {
    2
}
