//! Random folds against a map, reopened after each; cursors both ways.

use super::*;
use std::ops::Bound;

#[derive(Clone, Copy)]
enum Pattern {
    Random,
    Ascending,
    Clustered,
    Deleting,
    Odd,
}

const PATTERNS: [Pattern; 5] =
    [Pattern::Random, Pattern::Ascending, Pattern::Clustered, Pattern::Deleting, Pattern::Odd];

fn odd_key(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(6) {
        0 => 0,
        1 => rng.below(3),
        2 => 65_535,
        3 => 65_300 + rng.below(200),
        4 => 2_000 + rng.below(4_000),
        _ => rng.below(300),
    };
    let letter = b'a' + rng.below(3) as u8;
    let mut key = vec![letter; len as usize];
    if let Some(last) = key.last_mut() {
        *last = rng.next() as u8;
    }
    key
}

fn odd_value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(8) {
        0 => 0,
        1 => 1984,
        2 => 1985,
        3 => 4096,
        4 => rng.below(3_000_000),
        _ => rng.below(9_000),
    };
    vec![rng.next() as u8; len as usize]
}

fn changes(rng: &mut Rng, model: &Model, pattern: Pattern, count: u64, next: &mut u64) -> Changes {
    let mut changes = Changes::new();
    let start = rng.below(20_000);
    for n in 0..count {
        let keyspace = 1 + rng.below(3) as u32;
        let rows = changes.entry(keyspace).or_default();
        let value = |rng: &mut Rng| Some(vec![rng.next() as u8; rng.below(200) as usize]);
        match pattern {
            Pattern::Random => {
                let value = if rng.one_in(4) { None } else { value(rng) };
                rows.insert(key(rng.below(20_000)), value);
            }
            Pattern::Ascending => {
                *next += 1;
                rows.insert(key(*next), value(rng));
            }
            Pattern::Clustered => {
                rows.insert(key(start + n), if rng.one_in(9) { None } else { value(rng) });
            }
            Pattern::Deleting => {
                let tree = model.get(&keyspace);
                let from = key(start);
                let here = tree.and_then(|tree| tree.range(from..).nth(rng.below(40) as usize));
                rows.insert(here.map_or_else(|| key(start + n), |(key, _)| key.clone()), None);
            }
            Pattern::Odd => {
                let value = if rng.one_in(3) { None } else { Some(odd_value(rng)) };
                rows.insert(odd_key(rng), value);
            }
        }
    }
    changes
}

#[test]
fn random_folds_follow_the_model() {
    for seed in 0..12 {
        let mut rng = Rng(seed);
        let mut model = Model::new();
        let mut next = 100_000;
        let file = new_file();
        let (mut store, mut root) = open(&file);
        for _ in 0..25 {
            let pattern = PATTERNS[rng.below(PATTERNS.len() as u64) as usize];
            let count = match pattern {
                Pattern::Odd => rng.below(12),
                _ => [1, 30, 300, 3000][rng.below(4) as usize],
            };
            let changes = changes(&mut rng, &model, pattern, count, &mut next);
            root = fold(&store, &root, &changes).unwrap();
            follow(&mut model, &changes);
            if rng.one_in(2) {
                drop((store, root));
                (store, root) = open(&file);
            }
            check(&store, &root, &model);
            check_gets(&mut rng, &store, &root, &model);
        }
        // And all of it away again.
        let all = model.iter().map(|(id, rows)| (*id, rows.keys().map(|key| (key.clone(), None)).collect()));
        let changes: Changes = all.collect();
        root = fold(&store, &root, &changes).unwrap();
        check(&store, &root, &Model::new());
        assert_eq!(root.superblock.rows, 0);
        assert!(root.superblock.roots.is_none());
    }
}

fn check_gets(rng: &mut Rng, store: &Arc<TreeStore>, root: &Arc<Root>, model: &Model) {
    for _ in 0..200 {
        let keyspace = 1 + rng.below(4) as u32;
        let wanted = if rng.one_in(10) { odd_key(rng) } else { key(rng.below(30_000)) };
        let expected = model.get(&keyspace).and_then(|rows| rows.get(&wanted));
        let found = store.get(root, keyspace, &wanted).unwrap();
        assert_eq!(found.as_deref(), expected.map(Vec::as_slice));
        assert_eq!(store.contains(root, keyspace, &wanted).unwrap(), expected.is_some());
    }
}

#[test]
fn cursors_step_both_ways_from_any_bound() {
    let mut rng = Rng(77);
    let file = new_file();
    let (store, root) = open(&file);
    let rows: BTreeMap<Vec<u8>, Vec<u8>> =
        (0..3000).map(|n| (key(n * 3), vec![n as u8; 1 + (n % 90) as usize * 30])).collect();
    let root = fold(&store, &root, &put(1, rows.clone())).unwrap();
    let sorted: Vec<(&Vec<u8>, &Vec<u8>)> = rows.iter().collect();
    for _ in 0..200 {
        let bound_key = key(rng.below(9100));
        let bound = match rng.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Included(&bound_key[..]),
            _ => Bound::Excluded(&bound_key[..]),
        };
        let mut cursor = store.cursor(&root, 1);
        let mut gap = if rng.one_in(2) {
            cursor.seek(bound).unwrap();
            sorted.iter().position(|(key, _)| within(key, bound, true)).unwrap_or(sorted.len())
        } else {
            cursor.seek_back(bound).unwrap();
            sorted.iter().rposition(|(key, _)| within(key, bound, false)).map_or(0, |last| last + 1)
        };
        let stride = 1 + rng.below(60);
        for _ in 0..8 {
            let forward = rng.one_in(2);
            for _ in 0..stride {
                let expected = if forward { sorted.get(gap) } else { gap.checked_sub(1).map(|n| &sorted[n]) };
                gap = match (expected.is_some(), forward) {
                    (true, true) => gap + 1,
                    (true, false) => gap - 1,
                    (false, _) => gap,
                };
                compare(&mut cursor, forward, expected, rng.one_in(2));
            }
        }
    }
}

fn within(key: &[u8], bound: Bound<&[u8]>, is_lower: bool) -> bool {
    match (bound, is_lower) {
        (Bound::Unbounded, _) => true,
        (Bound::Included(bound), true) => key >= bound,
        (Bound::Excluded(bound), true) => key > bound,
        (Bound::Included(bound), false) => key <= bound,
        (Bound::Excluded(bound), false) => key < bound,
    }
}

fn compare(cursor: &mut TreeCursor, forward: bool, expected: Option<&(&Vec<u8>, &Vec<u8>)>, lend: bool) {
    if lend {
        let found = if forward { cursor.advance() } else { cursor.retreat() }.unwrap();
        assert_eq!(found, expected.is_some());
        if let Some((key, value)) = expected {
            assert_eq!(cursor.key(), &key[..]);
            assert_eq!(cursor.value().unwrap(), &value[..]);
        } else {
            assert!(cursor.value().is_err());
        }
    } else {
        let found = if forward { cursor.next() } else { cursor.prev() }.unwrap();
        let found = found.as_ref().map(|(key, value)| (&key[..], &value[..]));
        assert_eq!(found, expected.map(|(key, value)| (&key[..], &value[..])));
    }
}

#[test]
fn empty_keys_and_values_and_the_greatest_ones() {
    let file = new_file();
    let (store, root) = open(&file);
    let long = vec![0xff; 65_535];
    let rows =
        [(vec![], vec![]), (vec![0], vec![1; 16 << 20]), (long.clone(), vec![]), (vec![0xff], vec![9; 1984])];
    let changes = put(1, rows);
    let root = fold(&store, &root, &changes).unwrap();
    let mut model = Model::new();
    follow(&mut model, &changes);
    check(&store, &root, &model);
    assert_eq!(store.get(&root, 1, b"").unwrap().unwrap(), b"");
    assert_eq!(store.get(&root, 1, &long).unwrap().unwrap(), b"");
    assert!(store.get(&root, 2, b"").unwrap().is_none());
    let mut fold = store.begin_fold(&root).unwrap();
    let over = vec![0; 65_536];
    let refused = fold.apply(1, [Ok((&over, Change::Remove))].into_iter());
    assert!(matches!(refused, Err(Error::TooLarge { what: "a key", len: 65_536, max: 65_535 })));
}

#[test]
fn keyspaces_are_dropped_with_all_their_blocks() {
    let file = new_file();
    let (store, root) = open(&file);
    let small: Vec<_> = (0..5000).map(|n| (key(n), vec![1; 50])).collect();
    let large: Vec<_> = (0..20).map(|n| (key(n), vec![1; 50_000])).collect();
    let root = fold(&store, &root, &put(3, small.clone())).unwrap();
    let root = fold(&store, &root, &put(4, large)).unwrap();
    let root = fold(&store, &root, &put(5, small[..3].to_vec())).unwrap();
    let before = store.stats().live_bytes;
    let mut next = store.begin_fold(&root).unwrap();
    next.apply(6, small.iter().map(|(key, value)| Ok((key, Change::Put(Slice::from(value.clone()))))))
        .unwrap();
    for keyspace in [3, 4, 6, 77] {
        next.drop_keyspace(keyspace).unwrap();
    }
    let root = next.finish(|_| ()).unwrap();
    verified(&store, &root);
    assert_eq!(root.keyspaces().collect::<Vec<_>>(), [5]);
    assert_eq!(root.superblock.rows, 3);
    assert!(store.stats().live_bytes < before / 20);
}

#[test]
fn a_fold_refuses_disorder() {
    let file = new_file();
    let (store, root) = open(&file);
    let change = |key: &'static [u8]| Ok((key, Change::Put(Slice::from(vec![1]))));
    let mut fold = store.begin_fold(&root).unwrap();
    assert!(matches!(store.begin_fold(&root), Err(Error::BadInput(_))), "one at a time");
    assert!(fold.apply(1, [change(b"b"), change(b"a")].into_iter()).is_err());
    assert!(fold.apply(2, [change(b"a")].into_iter()).is_err(), "it has failed");
    assert!(fold.finish(|_| ()).is_err());
    let mut fold = store.begin_fold(&root).unwrap();
    assert!(fold.apply(1, [change(b"a"), change(b"a")].into_iter()).is_err());
    drop(fold);
    let mut fold = store.begin_fold(&root).unwrap();
    fold.apply(2, [change(b"a")].into_iter()).unwrap();
    assert!(fold.apply(2, [change(b"b")].into_iter()).is_err());
    drop(fold);
    let newer = super::fold(&store, &root, &put(1, [(vec![1], vec![1])])).unwrap();
    assert!(store.begin_fold(&root).is_err(), "not the newest");
    assert!(store.begin_fold(&newer).is_ok());
}
