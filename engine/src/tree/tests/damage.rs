//! Damage at rest: it is named, or the data is right; never wrong data, never a panic.

use super::*;

fn damaged(bytes: Vec<u8>) -> Result<(Arc<TreeStore>, Arc<Root>)> {
    TreeStore::open(SimDisk::new(0), Arc::new(MemFile::with_bytes(bytes)), path(), CACHE_BYTES, false)
}

fn store_with_everything() -> (Vec<u8>, Model) {
    let file = new_file();
    let (store, root) = open(&file);
    let mut model = Model::new();
    let first = put(1, (0..900).map(|n| (key(n), vec![n as u8; 80])));
    let mut second = put(1, (300..500).map(|n| (key(n), vec![1; 90])));
    second.insert(2, BTreeMap::from([(vec![], Some(vec![])), (vec![5; 3000], Some(vec![6; 9000]))]));
    let third = Changes::from([(1, (0..30).map(|n| (key(n), None)).collect())]);
    let mut root = root;
    for changes in [first, second, third] {
        root = fold(&store, &root, &changes).unwrap();
        follow(&mut model, &changes);
    }
    check(&store, &root, &model);
    let used = root.superblock.file_bytes as usize;
    let mut bytes = file.bytes();
    bytes.truncate(used);
    (bytes, model)
}

/// Whatever is read is right, or it is an error. True if all of it was right.
fn right_or_refused(store: &Arc<TreeStore>, root: &Arc<Root>, model: &Model, what: &str) -> bool {
    let scanned = contents(store, root);
    if let Ok(found) = &scanned {
        assert!(found == model, "{what}: a scan gave wrong data");
    }
    for (keyspace, rows) in model {
        for (key, value) in rows.iter().step_by(97) {
            match store.get(root, *keyspace, key) {
                Ok(found) => assert_eq!(found.as_deref(), Some(&value[..]), "{what}"),
                Err(error) => assert!(matches!(error, Error::Corruption { .. }), "{what}: {error}"),
            }
        }
    }
    scanned.is_ok()
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let (bytes, model) = store_with_everything();
    let mut rng = Rng(8);
    let (mut refused, mut found, mut harmless) = (0, 0, 0);
    for block in 0..bytes.len() / 4096 {
        for _ in 0..6 {
            let within = if rng.one_in(2) { 4096 } else { 64 };
            let at = block * 4096 + rng.below(within) as usize;
            let mut bad = bytes.clone();
            bad[at] ^= 1 << rng.below(8);
            let what = format!("byte {at}");
            match damaged(bad) {
                Err(error) => {
                    assert!(
                        matches!(error, Error::Corruption { .. } | Error::FormatVersion { .. }),
                        "{error}"
                    );
                    refused += 1;
                }
                Ok((store, root)) if root.generation < 4 => {
                    // The newest superblock was hit: the one before it, with the state of its time.
                    assert!(block < 2 && store.superblock_warning().is_some(), "{what}");
                    refused += 1;
                }
                Ok((store, root)) => {
                    let scan_is_right = right_or_refused(&store, &root, &model, &what);
                    let report = store.verify(&root, &mut |_, _| ()).unwrap();
                    assert!(scan_is_right || !report.problems.is_empty(), "{what}: verify saw nothing");
                    if report.problems.is_empty() { harmless += 1 } else { found += 1 }
                }
            }
        }
    }
    assert!(refused > 10 && found > 50 && harmless > 10, "{refused} {found} {harmless}");
}

#[test]
fn zeroed_swapped_and_stale_blocks_are_found() {
    let (bytes, model) = store_with_everything();
    let blocks = bytes.len() / 4096;
    let mut rng = Rng(9);
    for _ in 0..400 {
        let (a, b) = (2 + rng.below(blocks as u64 - 2) as usize, 2 + rng.below(blocks as u64 - 2) as usize);
        let mut bad = bytes.clone();
        if rng.one_in(2) {
            bad[a * 4096..][..4096].fill(0);
        } else {
            // A misdirected write: one block's bytes where another's belong.
            bad.copy_within(b * 4096..(b + 1) * 4096, a * 4096);
        }
        if bad == bytes {
            continue;
        }
        match damaged(bad) {
            Err(error) => assert!(matches!(error, Error::Corruption { .. }), "{error}"),
            Ok((store, root)) => {
                let is_right = right_or_refused(&store, &root, &model, "swapped");
                let report = store.verify(&root, &mut |_, _| ()).unwrap();
                assert!(is_right || !report.problems.is_empty());
            }
        }
    }
}

#[test]
fn a_lost_write_is_found() {
    // A block of the old generation where the new one's was written.
    let file = new_file();
    let (store, root) = open(&file);
    let rows = |n: u8| put(1, (0..200).map(move |k| (key(k), vec![n; 80])));
    let mut root = fold(&store, &root, &rows(1)).unwrap();
    for n in 2..7 {
        let before = file.bytes();
        root = fold(&store, &root, &rows(n)).unwrap();
        let mut bytes = file.bytes();
        let ptr = root.tree(1).unwrap();
        let at = ptr.offset as usize;
        let mut old = before.get(at..at + 4096).map_or(vec![0; 4096], <[u8]>::to_vec);
        old.resize(4096, 0);
        bytes[at..at + 4096].copy_from_slice(&old);
        let (store, root) = damaged(bytes).unwrap();
        assert!(
            matches!(store.get(&root, 1, &key(3)), Err(Error::Corruption { offset, .. }) if offset == ptr.offset)
        );
        assert!(contents(&store, &root).is_err());
    }
}

#[test]
fn cut_files_and_files_of_others_are_refused() {
    let (bytes, _) = store_with_everything();
    for len in [0, 1, 4096, 8191, 8192, bytes.len() - 4096] {
        let error = damaged(bytes[..len].to_vec()).unwrap_err();
        assert!(matches!(error, Error::Corruption { .. }), "{len}: {error}");
    }
    assert!(matches!(damaged(vec![0; 1 << 20]), Err(Error::Corruption { .. })));
    assert!(matches!(damaged(vec![0xff; 1 << 20]), Err(Error::Corruption { .. })));
    let mut later = bytes;
    for slot in [0, 4096] {
        later[slot + 8] = 2;
    }
    assert!(matches!(damaged(later), Err(Error::FormatVersion { found: 2, .. })));
}

#[test]
fn mutated_blocks_with_right_checksums_never_panic() {
    let (bytes, _) = store_with_everything();
    let mut rng = Rng(10);
    let (store, root) = damaged(bytes).unwrap();
    let mut waiting: Vec<_> = root.tree(1).into_iter().chain(root.tree(2)).collect();
    let mut parsed = 0;
    while let Some(ptr) = waiting.pop() {
        let keyspace = u32::from(ptr == root.tree(2).unwrap()) + 1;
        let clean = store.read_verified(&ptr).unwrap();
        let block = super::super::block::Block::parse(clean.clone(), ptr, keyspace).unwrap();
        if block.level() > 0 {
            waiting.extend((0..block.count()).map(|index| block.child(index).unwrap()));
        }
        for _ in 0..200 {
            let mut bad = clean.clone();
            for _ in 0..=rng.below(3) {
                let within = if rng.one_in(3) { 4096 } else { 120 };
                let at = rng.below(within) as usize;
                bad[at] = rng.next() as u8;
            }
            if let Ok(block) = super::super::block::Block::parse(bad, ptr, keyspace) {
                parsed += 1;
                for index in 0..block.count() + 1 {
                    let _ = (block.suffix(index), block.payload(index), block.raw_payload(index));
                }
                let _ = (block.search(b"user/0000000300"), block.child_index(b""), block.prefix());
            }
        }
    }
    assert!(parsed > 100);
}
