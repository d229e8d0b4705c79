//! Power cuts, failing calls and full disks, at every moment of a fold.

use super::*;
use std::io::ErrorKind;

fn some_changes(rng: &mut Rng) -> Changes {
    let count = [1, 40, 400][rng.below(3) as usize];
    let keyspace = 1 + rng.below(2) as u32;
    let rows = (0..count).map(|_| {
        let value = match rng.below(8) {
            0 => None,
            1 => Some(vec![rng.next() as u8; rng.below(20_000) as usize]),
            _ => Some(vec![rng.next() as u8; rng.below(300) as usize]),
        };
        (key(rng.below(3000)), value)
    });
    Changes::from([(keyspace, rows.collect())])
}

#[test]
fn a_power_cut_leaves_the_old_state_or_the_new_one() {
    let mut kept = [0; 2];
    for seed in 0..150 {
        let mut rng = Rng(seed);
        let mut file = new_file();
        let mut model = Model::new();
        for _ in 0..6 {
            let (store, mut root) = open(&file);
            for _ in 0..rng.below(4) {
                let changes = some_changes(&mut rng);
                root = fold(&store, &root, &changes).unwrap();
                follow(&mut model, &changes);
            }
            let changes = some_changes(&mut rng);
            file.fail_at(file.changes() + 1 + rng.below(6), ErrorKind::Other, true);
            let result = fold(&store, &root, &changes);
            let mut after = model.clone();
            follow(&mut after, &changes);
            drop((store, root));
            file = Arc::new(file.power_cut(&mut rng));
            let (store, root) = open(&file);
            let found = contents(&store, &root).unwrap();
            if result.is_ok() {
                assert!(found == after, "seed {seed}: what was published is gone");
            }
            assert!(found == after || found == model, "seed {seed}: neither the old state nor the new one");
            kept[usize::from(found == after)] += 1;
            model = found;
            verified(&store, &root);
        }
    }
    assert!(kept[0] > 50 && kept[1] > 50, "both outcomes were met: {kept:?}");
}

#[test]
fn every_failing_call_is_reported_and_nothing_is_published_later() {
    let mut rng = Rng(1);
    let base = some_changes(&mut rng);
    for call in 1.. {
        let file = new_file();
        let (store, root) = open(&file);
        let root = fold(&store, &root, &base).unwrap();
        let mut model = Model::new();
        follow(&mut model, &base);
        let changes = put(1, (0..3000).map(|n| (key(n), vec![1; 500])));
        file.fail_at(file.changes() + call, ErrorKind::Other, false);
        let result = fold(&store, &root, &changes);
        let Err(error) = result else { break };
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert!(contents(&store, &root).unwrap() == model, "reads go on");
        assert!(matches!(store.begin_fold(&root), Err(Error::Poisoned(_))), "call {call}");
        file.mend();
        let (store, root) = open(&file);
        let found = contents(&store, &root).unwrap();
        verified(&store, &root);
        if found != model {
            follow(&mut model, &changes);
            assert!(found == model, "call {call}");
        }
        fold(&store, &root, &base).unwrap();
        assert!(call < 100);
    }
}

#[test]
fn a_full_disk_changes_nothing_and_passes() {
    for spare in [0, 4096, 40_000, 400_000, 900_000] {
        let file = new_file();
        let (store, root) = open(&file);
        let mut model = put(1, (0..3000).map(|n| (key(n), vec![1; 100])));
        let root = fold(&store, &root, &model).unwrap();
        let before = contents(&store, &root).unwrap();
        let (free, live) = (store.stats().free_bytes, store.stats().live_bytes);
        file.set_capacity(Some(file.size() + spare));
        let large = put(1, (0..200).map(|n| (key(n), vec![1; 20_000])));
        assert!(matches!(fold(&store, &root, &large), Err(Error::NoSpace)));
        assert!(contents(&store, &root).unwrap() == before);
        assert!(store.stats().free_bytes >= free && store.stats().live_bytes == live, "all was given back");
        let small = put(1, [(key(5), vec![2; 10])]);
        let root = fold(&store, &root, &small).expect("the reserve is enough for a small one");
        model.extend(small);
        file.set_capacity(None);
        let root = fold(&store, &root, &large).unwrap();
        verified(&store, &root);
    }
}

#[test]
fn an_aborted_fold_leaves_no_trace() {
    let mut rng = Rng(4);
    let file = new_file();
    let (store, mut root) = open(&file);
    let mut model = Model::new();
    for _ in 0..30 {
        let changes = some_changes(&mut rng);
        let before = store.stats();
        let mut given_up = store.begin_fold(&root).unwrap();
        apply(&mut given_up, &some_changes(&mut rng)).unwrap();
        drop(given_up);
        let after = store.stats();
        assert_eq!((after.live_bytes, after.generation), (before.live_bytes, before.generation));
        check(&store, &root, &model);
        root = fold(&store, &root, &changes).unwrap();
        follow(&mut model, &changes);
        check(&store, &root, &model);
    }
}

#[test]
fn blocks_are_synced_before_the_superblock_leads_to_them() {
    let file = new_file();
    let (store, root) = open(&file);
    let mut fold = store.begin_fold(&root).unwrap();
    let changes = put(1, (0..500).map(|n| (key(n), vec![1; 500])));
    apply(&mut fold, &changes).unwrap();
    let stages = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (seen, at) = (Arc::clone(&stages), Arc::clone(&file));
    fold.on_stage(move |stage| {
        let mut rng = Rng(2);
        let image = Arc::new(at.power_cut(&mut rng));
        let (_, root) = open(&image);
        seen.lock().push((stage, at.syncs(), root.generation));
    });
    let syncs = file.syncs();
    fold.finish(|_| ()).unwrap();
    let expected =
        [("blocks written", syncs, 1), ("blocks synced", syncs + 1, 1), ("superblock written", syncs + 1, 2)];
    assert_eq!(*stages.lock(), expected);
}

#[test]
fn a_lost_superblock_costs_one_generation_and_no_more() {
    let mut rng = Rng(12);
    let file = new_file();
    let (store, mut root) = open(&file);
    let mut states = vec![Model::new()];
    for _ in 0..30 {
        let changes = some_changes(&mut rng);
        let mut model = states.last().unwrap().clone();
        follow(&mut model, &changes);
        let mut next = store.begin_fold(&root).unwrap();
        apply(&mut next, &changes).unwrap();
        let images = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (taken, at) = (Arc::clone(&images), Arc::clone(&file));
        next.on_stage(move |stage| taken.lock().push((stage, at.bytes())));
        root = next.finish(|_| ()).unwrap();
        states.push(model);
        for (stage, mut bytes) in images.lock().drain(..) {
            let newest = root.generation - u64::from(stage != "superblock written");
            if newest < 2 {
                continue;
            }
            bytes[(newest % 2 * 4096) as usize + 100] ^= 1;
            let (store, older) = open(&Arc::new(MemFile::with_bytes(bytes)));
            assert!(store.superblock_warning().is_some());
            assert_eq!(older.generation, newest - 1);
            check(&store, &older, &states[older.generation as usize - 1]);
        }
    }
}

#[test]
fn creation_and_identity() {
    let file = new_file();
    let (store, root) = open(&file);
    assert_eq!((root.generation, root.superblock.store_id), (1, [7; 16]));
    assert!(store.superblock_warning().is_none());
    let mut fold = store.begin_fold(&root).unwrap();
    apply(&mut fold, &put(1, [(vec![1], vec![2])])).unwrap();
    let root = fold
        .finish(|superblock| {
            superblock.checkpoint_lsn = seawall_wal::Lsn(99);
            superblock.store_id = [0; 16];
            superblock.generation = 1000;
        })
        .unwrap();
    assert_eq!((root.generation, root.superblock.checkpoint_lsn.0), (2, 99));
    drop((store, root));
    let reads_only = TreeStore::open(SimDisk::new(0), file.clone(), path(), CACHE_BYTES, true).unwrap();
    let before = file.changes();
    let (store, root) = reads_only;
    assert_eq!(store.get(&root, 1, &[1]).unwrap().unwrap(), [2]);
    assert_eq!((root.superblock.store_id, root.superblock.checkpoint_lsn.0), ([7; 16], 99));
    assert!(matches!(store.begin_fold(&root), Err(Error::ReadOnly)));
    assert_eq!(file.changes(), before);
}
