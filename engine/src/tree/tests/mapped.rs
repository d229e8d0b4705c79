//! The file mapped: what readers have in hand stays, what is damaged is found at the first look, and the file goes on.

use super::*;
use crate::ReadMode;
use crate::tree::space::Extent;
use seawall_wal::disk::sim::{CHANGED_UNDER_VIEW, Damage, Fault, Op};
use seawall_wal::{Disk, DiskFile, disk::Open};

const DATA: &str = "/data";

fn new_disk(seed: u64) -> Arc<SimDisk> {
    let disk = SimDisk::new(seed);
    let file = disk.open(Path::new(DATA), Open::CreateNew).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    TreeStore::create(file, Path::new(DATA), &Superblock { store_id: [7; 16], ..Superblock::default() })
        .unwrap();
    disk
}

fn open_mapped(disk: &Arc<SimDisk>) -> (Arc<TreeStore>, Arc<Root>) {
    let file: Arc<dyn DiskFile> = disk.open(Path::new(DATA), Open::ReadWrite).unwrap();
    let disk = Arc::clone(disk);
    TreeStore::open_in(ReadMode::Mapped, disk, file, Path::new(DATA), CACHE_BYTES, false).unwrap()
}

fn checkpoint(store: &Arc<TreeStore>, root: Arc<Root>, changes: &Changes) -> Arc<Root> {
    let folded = fold(store, &root, changes).unwrap();
    let repeated = store.repeat(&folded).unwrap();
    drop((root, folded));
    store.release_space(0).unwrap();
    repeated
}

fn violations(disk: &SimDisk) -> u64 {
    disk.counts().get(CHANGED_UNDER_VIEW).copied().unwrap_or(0)
}

/// Rounds of changes to a mapped store, values of all sizes being held through many of them, each root only at times. How
/// often bytes changed that somebody had a view of.
fn held_through_changes(mistake: fn(&TreeStore)) -> u64 {
    let mut rng = Rng(5);
    let disk = new_disk(1);
    let (store, mut root) = open_mapped(&disk);
    mistake(&store);
    let mut model = Model::new();
    let mut held: Vec<(Slice, Vec<u8>)> = Vec::new();
    for round in 0..40u8 {
        let sizes = [20, 100, 1500, 2500, 9000];
        let value = |rng: &mut Rng| vec![round; sizes[rng.below(5) as usize]];
        let changes = put(1, (0..300).map(|_| (key(rng.below(1500)), value(&mut rng))));
        root = checkpoint(&store, root, &changes);
        follow(&mut model, &changes);
        for _ in 0..10 {
            let wanted = key(rng.below(1500));
            let expected = model[&1].get(&wanted);
            let found = store.get(&root, 1, &wanted).unwrap();
            assert_eq!(found.as_deref(), expected.map(Vec::as_slice));
            held.extend(found.map(|found| (found.clone(), found.to_vec())));
        }
        if round % 4 == 3 {
            assert!(contents(&store, &root).unwrap() == model);
            verified(&store, &root);
        }
        while held.len() > 60 {
            held.swap_remove(rng.below(30) as usize);
        }
        for (slice, expected) in &held {
            assert!(slice == expected);
        }
    }
    let stats = store.stats();
    assert!(stats.mapped_bytes > 0 && stats.returned > 0, "{stats:?}");
    violations(&disk)
}

#[test]
fn what_a_reader_has_is_not_used_again() {
    assert_eq!(held_through_changes(|_| ()), 0);
    assert!(held_through_changes(TreeStore::reuse_mapped) > 0, "the line above proves nothing");
}

#[test]
fn an_extent_is_free_once_the_last_reader_has_gone() {
    let disk = new_disk(2);
    let (store, mut root) = open_mapped(&disk);
    root = checkpoint(&store, root, &put(1, (0..1000).map(|n| (key(n), vec![1; 100]))));
    let slice = store.get(&root, 1, &key(500)).unwrap().unwrap();
    let cursor = store.cursor(&root, 1);
    drop(cursor);
    for round in 2..5 {
        root = checkpoint(&store, root, &put(1, (0..1000).map(|n| (key(n), vec![round; 100]))));
        assert_eq!(store.stats().dead_bytes, 4096, "one leaf is held, whatever became of its tree");
    }
    let copy = slice.detach();
    drop(slice);
    store.release_space(0).unwrap();
    assert_eq!((store.stats().dead_bytes, copy), (0, Slice::from(vec![1; 100])));
    assert_eq!(violations(&disk), 0);
    drop(root);
}

#[test]
fn damage_is_found_at_the_first_look_and_by_verify_always() {
    let disk = new_disk(3);
    let (store, root) = open_mapped(&disk);
    let root = checkpoint(&store, root, &put(1, (0..4000).map(|n| (key(n), vec![1; 100]))));
    let (first, second) = (key(0), key(3999));
    assert!(store.get(&root, 1, &first).unwrap().is_some());
    let leaf_of = |key: &[u8]| {
        let mut ptr = root.tree(1).unwrap();
        while ptr.level > 0 {
            let block = store.load(&ptr, 1).unwrap();
            ptr = store.child_of(&block, block.child_index(key)).unwrap();
        }
        ptr
    };
    for key in [&first, &second] {
        let offset = leaf_of(key).offset + 1000;
        disk.damage(DATA, &Damage::Flip { offset, mask: 1 }).unwrap();
    }
    assert!(store.get(&root, 1, &first).is_ok(), "it was looked at before");
    assert!(matches!(store.get(&root, 1, &second), Err(Error::Corruption { .. })));
    assert!(matches!(store.get_many(&root, 1, &[&second]), Err(Error::Corruption { .. })));
    let report = store.verify(&root, &mut |_, _| ()).unwrap();
    let damaged = report.problems.iter().filter(|problem| problem.contains("is damaged at byte"));
    assert_eq!(damaged.count(), 2, "verify reads the file: {report:?}");
}

#[test]
fn an_error_at_the_first_look_is_an_error_and_the_next_look_is_another() {
    let disk = new_disk(4);
    let (store, root) = open_mapped(&disk);
    let root = checkpoint(&store, root, &put(1, (0..4000).map(|n| (key(n), vec![1; 100]))));
    for at in 1..3 {
        disk.fail(Fault::eio(Op::Read).at_call(at).once());
        let found = store.get(&root, 1, &key(at * 900));
        assert!(matches!(found, Err(Error::Io { .. })), "{at}: {found:?}");
        disk.clear_faults();
        assert!(store.get(&root, 1, &key(at * 900)).unwrap().is_some());
    }
}

#[test]
fn blocks_beyond_the_memory_for_them_and_compressed_ones_go_through_the_cache() {
    let disk = new_disk(5);
    let (store, root) = open_mapped(&disk);
    let mut changes = put(1, (0..20_000).map(|n| (key(n), vec![1; 100])));
    changes.extend(put(2, (0..2000).map(|n| (key(n), vec![2; 300]))));
    let root = checkpoint(&store, root, &changes);
    store.set_cache_bytes(512 << 10);
    store.set_cache_bytes(1 << 20);
    store.mapped.as_ref().unwrap().known.set_heap_max(32 << 10);
    let mut model = Model::new();
    follow(&mut model, &changes);
    check(&store, &root, &model);
    let stats = store.stats();
    assert!(stats.mapped_index_bytes <= 33 << 10, "{stats:?}");
    assert!(stats.mapped_bytes > 0 && stats.cache_bytes > 0, "{stats:?}");
    store.set_cache_bytes(0);
    assert!(store.stats().mapped_index_bytes < 2 << 10, "{:?}", store.stats());
    check(&store, &root, &model);
    store.set_cache_bytes(1 << 20);
    check(&store, &root, &model);
}

/// A pointer that leads to what is free, set aside, or of no published generation is none to remember.
#[test]
fn only_what_is_in_use_is_remembered() {
    let disk = new_disk(6);
    let (store, root) = open_mapped(&disk);
    let root = checkpoint(&store, root, &put(1, (0..200).map(|n| (key(n), vec![1; 100]))));
    let ptr = root.tree(1).unwrap();
    let bytes = store.read_verified(&ptr).unwrap();
    let extent = Extent::of(&ptr);
    assert!(store.map_in(&bytes, &ptr, 1).unwrap().is_some());
    let known = &store.mapped.as_ref().unwrap().known;
    assert!(known.get(&ptr, 1).is_some() && known.get(&ptr, 2).is_none());
    assert!(known.let_go(extent).is_empty() && known.get(&ptr, 1).is_none());
    let held = store.map_in(&bytes, &ptr, 1).unwrap().unwrap();
    assert_eq!(known.let_go(extent), [extent], "somebody has it");
    drop(held);
    assert!(known.let_go(extent).is_empty());
    store.space.lock().add_free(extent).unwrap();
    assert!(store.map_in(&bytes, &ptr, 1).unwrap().is_none(), "it is free");
    let free: Vec<Extent> = store.space.lock().free().collect();
    assert!(free.iter().any(|free| free.offset <= extent.offset && free.end() >= extent.end()));
    store.latest.lock().generation = ptr.birth - 1;
    assert!(store.map_in(&bytes, &ptr, 1).unwrap().is_none(), "its generation is not published");
}

#[test]
fn a_file_that_cannot_be_mapped_is_read_and_says_why() {
    let file = new_file();
    let opened =
        TreeStore::open_in(ReadMode::Mapped, SimDisk::new(0), file, path(), CACHE_BYTES, false).unwrap();
    let (store, root) = opened;
    let root = fold(&store, &root, &put(1, [(key(1), vec![1])])).unwrap();
    assert_eq!(store.get(&root, 1, &key(1)).unwrap().as_deref(), Some(&[1][..]));
    let (is_mapped, why) = store.mapped_state();
    assert!(!is_mapped && why.unwrap().contains("cannot be mapped"));
}
