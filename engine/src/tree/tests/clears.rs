//! Folds that clear ranges: against a map, and in what they read, free and count.

use super::*;
use crate::cover::{Span, joined};
use std::ops::Bound;

/// What a fold clears, by keyspace, before it changes rows.
type Clears = BTreeMap<u32, Vec<Span>>;

fn span(from: u64, to: u64) -> Span {
    Span::new(Bound::Included(&key(from)), Bound::Excluded(&key(to))).unwrap()
}

fn fold_over(
    store: &Arc<TreeStore>,
    root: &Arc<Root>,
    clears: &Clears,
    changes: &Changes,
    adds: &BTreeMap<Vec<u8>, i64>,
) -> Result<Arc<Root>> {
    let mut fold = store.begin_fold(root)?;
    for keyspace in 1..4 {
        let spans = clears.get(&keyspace).cloned().unwrap_or_default();
        let mut rows: BTreeMap<&[u8], Change> = BTreeMap::new();
        for (key, value) in changes.get(&keyspace).into_iter().flatten() {
            let put = |value: &Vec<u8>| Change::Put(Slice::from(value.clone()));
            rows.insert(key, value.as_ref().map_or(Change::Remove, put));
        }
        if keyspace == 1 {
            rows.extend(adds.iter().map(|(key, delta)| (&key[..], Change::Add(*delta))));
        }
        fold.apply_over(keyspace, layout(keyspace, rows.len()), spans, rows.into_iter().map(Ok), &mut || {})?;
    }
    fold.finish(|superblock| superblock.next_keyspace += 1)
}

fn follow_over(model: &mut Model, clears: &Clears, changes: &Changes, adds: &BTreeMap<Vec<u8>, i64>) {
    for (keyspace, spans) in clears {
        if let Some(rows) = model.get_mut(keyspace) {
            rows.retain(|key, _| !spans.iter().any(|span| span.contains(key)));
        }
    }
    follow(model, changes);
    let rows = model.entry(1).or_default();
    for (key, delta) in adds {
        let number = rows.get(key).map_or(0, |value| i64::from_le_bytes(value[..].try_into().unwrap()));
        rows.insert(key.clone(), number.wrapping_add(*delta).to_le_bytes().to_vec());
    }
    model.retain(|_, rows| !rows.is_empty());
}

fn check_bound(store: &Arc<TreeStore>, root: &Arc<Root>, model: &Model) {
    assert!(contents(store, root).unwrap() == *model, "generation {}: other contents", root.generation);
    for (keyspace, rows) in model {
        assert!(root.rows(*keyspace) >= rows.len() as u64);
    }
    verified(store, root);
}

#[test]
fn folds_that_clear_follow_the_model() {
    for seed in 0..8 {
        let mut rng = Rng(1000 + seed);
        let mut model = Model::new();
        let file = new_file();
        let (mut store, mut root) = open(&file);
        // Without large values leaves go unread.
        let largest = if seed % 2 == 0 { 200 } else { 6000 };
        for _ in 0..20 {
            let (mut clears, mut changes, mut adds) = (Clears::new(), Changes::new(), BTreeMap::new());
            for _ in 0..rng.below(5) {
                let from = rng.below(8000);
                let to = from + 1 + [1, 50, 1000, 8000][rng.below(4) as usize];
                clears.entry(1 + rng.below(3) as u32).or_default().push(span(from, to));
            }
            for spans in clears.values_mut() {
                spans.sort_by(|a, b| a.from.cmp(&b.from));
                *spans = joined(std::mem::take(spans).into_iter());
            }
            let start = rng.below(8000);
            for n in 0..[1, 30, 300, 3000][rng.below(4) as usize] {
                let at = if rng.one_in(2) { rng.below(8000) } else { start + n };
                let value = vec![n as u8; rng.below(largest) as usize];
                let value = if rng.one_in(5) { None } else { Some(value) };
                changes.entry(1 + rng.below(3) as u32).or_default().insert(key(at), value);
            }
            for _ in 0..rng.below(40) {
                adds.insert(format!("user/n{:04}", rng.below(200)).into_bytes(), rng.next() as i64);
            }
            root = fold_over(&store, &root, &clears, &changes, &adds).unwrap();
            follow_over(&mut model, &clears, &changes, &adds);
            if rng.one_in(2) {
                drop((store, root));
                (store, root) = open(&file);
            }
            check_bound(&store, &root, &model);
        }
        // And all of it away again: numbers count exactly from there.
        let all = Span::new(Bound::Unbounded, Bound::Unbounded).unwrap();
        let clears: Clears = (1..4).map(|keyspace| (keyspace, vec![all.clone()])).collect();
        root = fold_over(&store, &root, &clears, &Changes::new(), &BTreeMap::new()).unwrap();
        assert_eq!((root.superblock.rows, root.superblock.roots), (0, None));
        check(&store, &root, &Model::new());
        root = fold(&store, &root, &put(1, [(key(1), vec![1])])).unwrap();
        check(&store, &root, &Model::from([(1, BTreeMap::from([(key(1), vec![1])]))]));
    }
}

/// A range of many leaves goes for the price of the blocks that lead to them.
#[test]
fn what_lies_wholly_in_a_range_is_not_read() {
    let file = new_file();
    let (store, root) = open(&file);
    let rows = 60_000;
    drop(fold(&store, &root, &put(1, (0..rows).map(|n| (key(n), vec![3; 100])))).unwrap());
    drop((store, root));
    let (store, root) = open(&file);
    let (blocks, before) = (store.stats().blocks, store.stats());
    let clears = Clears::from([(1, vec![span(10, rows - 10)])]);
    let root = fold_over(&store, &root, &clears, &Changes::new(), &BTreeMap::new()).unwrap();
    let read = store.stats().cache_misses - before.cache_misses;
    assert!(blocks > 1500, "{blocks} blocks");
    assert!(read < blocks / 20, "{read} of {blocks} blocks were read");
    let model = (0..10).chain(rows - 10..rows).map(|n| (key(n), vec![3; 100])).collect();
    check_bound(&store, &root, &Model::from([(1, model)]));
    assert!(verified(&store, &root).height <= 2);
}

/// An add to a row that is no number was never let in: the fold refuses it, and makes nothing up.
#[test]
fn an_add_to_what_is_no_number_is_refused() {
    for bytes in [0, 7, 9, 5000] {
        let file = new_file();
        let (store, root) = open(&file);
        let root = fold(&store, &root, &put(1, [(key(1), vec![1; bytes])])).unwrap();
        let adds = BTreeMap::from([(key(1), 5)]);
        let folded = fold_over(&store, &root, &Clears::new(), &Changes::new(), &adds);
        assert!(matches!(folded, Err(Error::Corruption { .. })), "{bytes} bytes");
        assert_eq!(verified(&store, &root).rows, 1);
    }
}
