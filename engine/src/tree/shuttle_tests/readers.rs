//! Readers that miss the same block beside each other, beside an eviction, and beside folds that use its place again: nobody is
//! shown another block's bytes, and who has a block, or a part of it, keeps it.

use super::*;
use crate::sync::Mutex;
use seawall_wal::disk::sim::CHANGED_UNDER_VIEW;

/// Three to a leaf; behind them values in extents of their own.
const ROWS: u64 = 9;

fn key(n: u64) -> Vec<u8> {
    format!("row/{n}").into_bytes()
}

/// Every byte tells which row it is of, and which round.
fn value(n: u64, round: u64) -> Vec<u8> {
    vec![(round * 20 + n) as u8; if n < 6 { 1200 } else { 2500 }]
}

fn rewritten(store: &Arc<TreeStore>, root: &Arc<Root>, round: u64) -> Arc<Root> {
    fold(store, root, round, (0..ROWS).map(|n| (key(n), put(value(n, round))))).unwrap()
}

/// A mistake is made once the store is there.
fn readers_with(mode: ReadMode, mistake: fn(&TreeStore)) {
    let (disk, store, root) = new_store(mode);
    mistake(&store);
    let root = rewritten(&store, &root, 1);
    let newest = Arc::new(Mutex::new(root));
    let mut threads = Vec::new();
    for _ in 0..2 {
        let (store, newest) = (Arc::clone(&store), Arc::clone(&newest));
        threads.push(shuttle::thread::spawn(move || {
            let mut kept = Vec::new();
            for n in [1, 7, 1] {
                let root = Arc::clone(&*newest.lock());
                let round = root.superblock.applied_lsn.0;
                let found = store.get(&root, KEYSPACE, &key(n)).unwrap().expect("the row is there");
                assert!(found == value(n, round), "another block's bytes");
                // The root goes, the value stays.
                kept.push((found, value(n, round)));
            }
            (0..2).for_each(|_| shuttle::thread::yield_now());
            assert!(kept.iter().all(|(found, expected)| found == expected), "what was given has changed");
        }));
    }
    let (folding, published) = (Arc::clone(&store), Arc::clone(&newest));
    threads.push(shuttle::thread::spawn(move || {
        for round in 2..5 {
            let root = Arc::clone(&*published.lock());
            let next = rewritten(&folding, &root, round);
            drop(root);
            let before = std::mem::replace(&mut *published.lock(), next);
            drop(before);
            folding.release_space(0).unwrap();
        }
    }));
    let evicting = Arc::clone(&store);
    threads.push(shuttle::thread::spawn(move || {
        for bytes in [0, CACHE_BYTES as u64, 0, CACHE_BYTES as u64] {
            evicting.set_cache_bytes(bytes);
            shuttle::thread::yield_now();
        }
    }));
    for thread in threads {
        thread.join().unwrap();
    }
    let root = Arc::clone(&*newest.lock());
    assert_eq!(store.cache.strays(), 0, "a block in front that the cache has given up");
    is_sound(&store, &root);
    let changed = disk.counts().get(CHANGED_UNDER_VIEW).copied().unwrap_or(0);
    assert_eq!(changed, 0, "bytes changed that somebody had a view of");
}

fn cached() {
    readers_with(ReadMode::Cached, |_| ());
}

fn mapped() {
    readers_with(ReadMode::Mapped, |_| ());
}

#[test]
fn readers_of_one_block_are_shown_that_block() {
    explore(700, cached);
}

#[test]
fn readers_of_one_mapped_block_are_shown_that_block() {
    explore(700, mapped);
}

#[test]
fn telling_cached_blocks_apart_by_their_place() {
    // As that, or in what an inner block of another time leads to.
    noticed(Some(Misorder::CacheByPlace), cached, "");
}

#[test]
fn keeping_in_front_what_the_cache_has_given_up() {
    noticed(Some(Misorder::KeepUnasked), cached, "that the cache has given up");
}

#[test]
fn using_a_place_again_while_a_root_leads_there() {
    noticed(None, || readers_with(ReadMode::Cached, TreeStore::reuse_early), "checksum");
    noticed(None, || readers_with(ReadMode::Mapped, TreeStore::reuse_early), "checksum");
}

#[test]
fn using_a_place_again_while_a_part_of_it_is_held() {
    let how = "bytes changed that somebody had a view of";
    noticed(None, || readers_with(ReadMode::Mapped, TreeStore::reuse_mapped), how);
}
