//! Values that are streamed in beside space that is given back: no extent of one is cut off or made a hole.

use super::*;
use crate::tree::LargeValue;
use std::io::Cursor;
use std::sync::Mutex;

/// What is free becomes a hole from this length on.
const PIECE_BYTES: usize = 32 << 10;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(7) + at / 251 + seed * 31) as u8).collect()
}

fn key(n: u64) -> Vec<u8> {
    format!("large/{n}").into_bytes()
}

/// Where free space is as streams begin.
#[derive(Clone, Copy)]
enum Free {
    /// At the file's end.
    Behind,
    /// Between what is in use, too.
    Between,
}

/// Some who stream, and one who gives space back.
fn streams_beside_giving_back(free: Free, streams: u64) {
    let (_, store, root) = new_store(ReadMode::Cached);
    // Each in an extent of its own.
    let len = |n| if n == 1 { 10 * PIECE_BYTES } else { PIECE_BYTES };
    let root = fold(&store, &root, 1, (0..3).map(|n| (key(n), put(bytes(n, len(n)))))).unwrap();
    // More is given back than what is in use, so a part of the largest stays.
    let gone = match free {
        Free::Behind => 3..3,
        Free::Between => 1..2,
    };
    let rows = gone.map(|n| (key(n), Change::Remove)).chain([(key(7), put(bytes(7, 9)))]);
    let root = fold(&store, &root, 2, rows).unwrap();
    let streamed = Arc::new(Mutex::new(Vec::<(u64, LargeValue)>::new()));
    let mut threads = Vec::new();
    for seed in 10..10 + streams {
        let (store, streamed) = (Arc::clone(&store), Arc::clone(&streamed));
        threads.push(shuttle::thread::spawn(move || {
            let mut source = Cursor::new(bytes(seed, 2 * PIECE_BYTES));
            let value = store.stream(2 * PIECE_BYTES as u64, PIECE_BYTES, &mut source).unwrap();
            assert!(store.read_large(&value).unwrap() == bytes(seed, 2 * PIECE_BYTES), "other bytes");
            streamed.lock().unwrap().push((seed, value));
        }));
    }
    let giving = Arc::clone(&store);
    threads.push(shuttle::thread::spawn(move || (0..2).for_each(|_| giving.release_space(0).unwrap())));
    for thread in threads {
        thread.join().unwrap();
    }
    let streamed = std::mem::take(&mut *streamed.lock().unwrap());
    let rows = streamed.iter().map(|(n, value)| {
        // A record names it.
        value.naming().unwrap().store(true, std::sync::atomic::Ordering::Release);
        (key(*n), Change::PutLarge(value.clone()))
    });
    let root = fold(&store, &root, 3, rows).unwrap();
    store.release_space(0).unwrap();
    is_sound(&store, &root);
    for (n, _) in &streamed {
        let found = store.get(&root, KEYSPACE, &key(*n)).unwrap().unwrap();
        assert!(found == bytes(*n, 2 * PIECE_BYTES), "other bytes");
    }
    store.release_space(0).unwrap();
}

/// As above, and a checkpoint puts one value into the tree meanwhile, and gives back what it can.
fn streams_beside_a_fold() {
    let (_, store, root) = new_store(ReadMode::Cached);
    let rows = (0..6).map(|n| (key(n), put(bytes(n, 3 * PIECE_BYTES))));
    let root = fold(&store, &root, 1, rows).unwrap();
    let streaming = Arc::clone(&store);
    let streaming = shuttle::thread::spawn(move || {
        let stream = |seed| {
            let mut source = Cursor::new(bytes(seed, 2 * PIECE_BYTES));
            streaming.stream(2 * PIECE_BYTES as u64, PIECE_BYTES, &mut source).unwrap()
        };
        // One is given up, which frees its extents beside the fold.
        drop(stream(10));
        (stream(11), stream(12))
    });
    let folding = Arc::clone(&store);
    let folding = shuttle::thread::spawn(move || {
        let rows = (0..6).filter(|n| n % 3 != 1).map(|n| (key(n), Change::Remove));
        let root = fold(&folding, &root, 2, rows).unwrap();
        folding.release_space(0).unwrap();
        let root = fold(&folding, &root, 3, [(key(1), put(bytes(7, PIECE_BYTES)))].into_iter()).unwrap();
        folding.release_space(0).unwrap();
        root
    });
    let (first, second) = streaming.join().unwrap();
    let root = folding.join().unwrap();
    for (seed, value) in [(11, &first), (12, &second)] {
        assert!(store.read_large(value).unwrap() == bytes(seed, 2 * PIECE_BYTES), "other bytes");
    }
    is_sound(&store, &root);
    for (n, seed, len) in [(1, 7, PIECE_BYTES), (4, 4, 3 * PIECE_BYTES)] {
        let found = store.get(&root, KEYSPACE, &key(n)).unwrap().unwrap();
        assert!(found == bytes(seed, len), "other bytes");
    }
}

#[test]
fn what_is_streamed_in_is_neither_cut_off_nor_made_a_hole() {
    explore(500, || streams_beside_giving_back(Free::Between, 2));
    explore(500, || streams_beside_giving_back(Free::Behind, 2));
}

#[test]
fn streams_and_folds_take_and_give_back_apart() {
    explore(500, streams_beside_a_fold);
}

fn noticed_with(misorder: Misorder, free: Free, how: &str) {
    noticed(Some(misorder), move || streams_beside_giving_back(free, 1), how);
}

#[test]
fn giving_back_beside_streams() {
    noticed_with(Misorder::CutBesideStreams, Free::Behind, "what is in use was given back");
    noticed_with(Misorder::CutBesideStreams, Free::Between, "what is in use was given back");
}

#[test]
fn streaming_beside_giving_back() {
    // In use when it is given back, or gone when it is read: whichever is seen first.
    noticed_with(Misorder::StreamBesideCut, Free::Behind, "");
    noticed_with(Misorder::StreamBesideCut, Free::Between, "");
}

#[test]
fn making_a_hole_of_what_was_free() {
    noticed_with(Misorder::PunchUnseen, Free::Between, "what is in use was given back");
}

#[test]
fn cutting_where_the_used_part_ended() {
    noticed_with(Misorder::CutUnseen, Free::Behind, "what is in use was given back");
}
