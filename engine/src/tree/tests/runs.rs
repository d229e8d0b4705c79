//! Runs beside trees: changes that are spilled and folded in any order, against a map.

use super::*;
use crate::cover::{Span, joined};
use crate::number::{number_of, number_value};
use std::ops::Bound;

/// What a step does to one keyspace.
#[derive(Default)]
struct Step {
    cleared: Vec<Span>,
    changes: BTreeMap<Vec<u8>, Change>,
}

const ROWS: u64 = 400;

fn span(rng: &mut Rng) -> Span {
    let (a, b) = (key(rng.below(ROWS)), key(rng.below(ROWS)));
    let (from, to) = if a < b { (a, b) } else { (b, a) };
    match rng.below(8) {
        0 => Span::new(Bound::Unbounded, Bound::Excluded(&to)).unwrap(),
        1 => Span::new(Bound::Included(&from), Bound::Unbounded).unwrap(),
        _ => Span::new(Bound::Included(&from), Bound::Included(&to)).unwrap(),
    }
}

/// A step over what the model has, which follows it. Even keys hold numbers, and are added to.
fn step(rng: &mut Rng, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Step {
    let mut step = Step::default();
    if rng.one_in(4) {
        let mut spans: Vec<Span> = (0..1 + rng.below(3)).map(|_| span(rng)).collect();
        spans.sort_by(|a, b| a.from.cmp(&b.from));
        step.cleared = joined(spans.into_iter());
        rows.retain(|key, _| !step.cleared.iter().any(|span| span.contains(key)));
    }
    for _ in 0..[0, 1, 20, 200][rng.below(4) as usize] {
        let n = rng.below(ROWS);
        let key = key(n);
        if step.changes.contains_key(&key) {
            continue;
        }
        let change = match (n % 2, rng.below(4)) {
            (_, 0) => Change::Remove,
            (0, 1) => Change::Put(number_value(rng.next() as i64)),
            (0, _) => Change::Add(rng.next() as i64),
            (_, 1) => Change::Put(Slice::from(vec![rng.next() as u8; 2000 + rng.below(9000) as usize])),
            _ => Change::Put(Slice::from(vec![rng.next() as u8; rng.below(300) as usize])),
        };
        match &change {
            Change::Put(value) => drop(rows.insert(key.clone(), value.to_vec())),
            Change::Add(more) => {
                let old = rows.get(&key).map_or(0, |value| number_of(value).unwrap());
                rows.insert(key.clone(), number_value(old.wrapping_add(*more)).to_vec());
            }
            _ => drop(rows.remove(&key)),
        }
        step.changes.insert(key, change);
    }
    step
}

fn runs_check(store: &Arc<TreeStore>, root: &Arc<Root>, model: &Model) {
    verified(store, root);
    for keyspace in 1..=3 {
        let none = BTreeMap::new();
        let rows = model.get(&keyspace).unwrap_or(&none);
        let keys: Vec<Vec<u8>> = (0..ROWS + 20).map(key).collect();
        let asked: Vec<&[u8]> = keys.iter().rev().map(|key| &key[..]).collect();
        let found = store.get_many(root, keyspace, &asked).unwrap();
        for (key, many) in keys.iter().zip(found.iter().rev()) {
            let expected = rows.get(key).map(|value| &value[..]);
            let said = || format!("{} in {keyspace}", key.escape_ascii());
            assert_eq!(store.get(root, keyspace, key).unwrap().as_deref(), expected, "{}", said());
            assert_eq!(many.as_deref(), expected, "{}, of many", said());
            assert_eq!(store.contains(root, keyspace, key).unwrap(), expected.is_some(), "{}", said());
        }
        assert!(root.rows(keyspace) >= rows.len() as u64);
    }
}

#[test]
fn changes_that_are_spilled_and_folded_follow_the_model() {
    let mut runs_seen = 0;
    for seed in 0..30 {
        let mut rng = Rng(seed);
        let mut model = Model::new();
        let file = new_file();
        let (mut store, mut root) = open(&file);
        let mut older: Vec<(Arc<Root>, Model)> = Vec::new();
        for _ in 0..40 {
            let mut fold = store.begin_fold(&root).unwrap();
            for keyspace in 1..=3 {
                if rng.one_in(30) {
                    fold.drop_keyspace(keyspace).unwrap();
                    model.remove(&keyspace);
                    continue;
                }
                let Step { cleared, changes } = step(&mut rng, model.entry(keyspace).or_default());
                let layout = layout(keyspace, changes.len());
                let changes = changes.into_iter().map(Ok);
                if rng.one_in(4) {
                    fold.apply_over(keyspace, layout, cleared, changes, &mut || {}).unwrap();
                } else {
                    if cleared.is_empty() && rng.one_in(2) {
                        fold.roll(keyspace, layout, &span(&mut rng), &mut || ()).unwrap();
                    }
                    fold.spill(keyspace, layout, cleared, changes).unwrap();
                }
            }
            root = fold.finish(|superblock| superblock.next_keyspace += 1).unwrap();
            runs_seen = runs_seen.max(verified(&store, &root).runs);
            if rng.one_in(3) {
                root = store.repeat(&root).unwrap();
            }
            if rng.one_in(3) {
                older.clear();
                drop((store, root));
                (store, root) = open(&file);
            }
            runs_check(&store, &root, &model);
            older.push((Arc::clone(&root), model.clone()));
            if older.len() > 3 {
                older.remove(0);
            }
            let (before, then) = &older[0];
            runs_check(&store, before, then);
        }
        // All runs come into their trees, and nothing stays beside them.
        let mut fold = store.begin_fold(&root).unwrap();
        for keyspace in 1..=3 {
            let touch = [Ok((key(0), Change::Remove))];
            fold.apply_over(keyspace, Compression::None, Vec::new(), touch.into_iter(), &mut || {}).unwrap();
            model.get_mut(&keyspace).map(|rows| rows.remove(&key(0)));
        }
        let root = fold.finish(|_| ()).unwrap();
        model.retain(|_, rows| !rows.is_empty());
        assert_eq!(verified(&store, &root).runs, 0);
        assert_eq!(root.superblock.features_incompatible, 0);
        assert!(contents(&store, &root).unwrap() == model);
    }
    assert!(runs_seen >= 9, "{runs_seen} runs at once, at most");
}

#[test]
fn earlier_builds_refuse_a_store_with_runs_and_later_ones_take_it() {
    let file = new_file();
    let (store, root) = open(&file);
    let root = fold(&store, &root, &put(1, (0..100).map(|n| (key(n), vec![1; 50])))).unwrap();
    assert_eq!(root.superblock.features_incompatible, 0);
    let mut spilled = store.begin_fold(&root).unwrap();
    let change = [Ok((key(7), Change::Remove))];
    spilled.spill(1, Compression::None, Vec::new(), change.into_iter()).unwrap();
    let root = spilled.finish(|_| ()).unwrap();
    assert_eq!(root.superblock.features_incompatible, 1);
    assert_eq!(root.superblock.rows, 101, "a bound");
    assert!(store.get(&root, 1, &key(7)).unwrap().is_none());
    assert!(store.get(&root, 1, &key(8)).unwrap().is_some());
}

/// All stretches together are the tree, each once.
#[test]
fn stretches_go_round_the_tree() {
    let file = new_file();
    let (store, mut root) = open(&file);
    assert_eq!(store.stretch(&root, 1, b"", 4).unwrap(), None, "there is no tree");
    for (rows, part) in [(1, 3), (100, 2), (5000, 8), (60_000, 16), (60_000, 1)] {
        root = fold(&store, &root, &put(rows as u32, (0..rows).map(|n| (key(n), vec![1; 100])))).unwrap();
        let (mut ends, mut from) = (Vec::new(), Vec::new());
        while let Some(end) = store.stretch(&root, rows as u32, &from, part).unwrap() {
            assert!(end > from, "{rows} rows, {part} parts");
            ends.push(end.clone());
            from = end;
        }
        let leaves = verified(&store, &root).leaf_bytes / 4096;
        let wanted = if leaves < 10 { ends.len() } else { part as usize - 1 };
        assert!(
            ends.len().abs_diff(wanted) <= 1 + part as usize / 4,
            "{rows} rows: {} ends, {part} parts",
            ends.len()
        );
    }
}

/// A damaged filter is told, and never taken for "not there".
#[test]
fn a_damaged_filter_is_an_error() {
    let file = new_file();
    let (store, root) = open(&file);
    let root = fold(&store, &root, &put(1, (0..100).map(|n| (key(n), vec![1; 50])))).unwrap();
    let mut spilled = store.begin_fold(&root).unwrap();
    spilled.spill(1, Compression::None, Vec::new(), [Ok((key(7), Change::Remove))].into_iter()).unwrap();
    let root = spilled.finish(|_| ()).unwrap();
    let filter = *root.runs(1)[0].filter_at();
    drop((store, root));
    let mut bytes = file.bytes();
    bytes[filter.offset as usize + 100] ^= 4;
    let file = Arc::new(MemFile::with_bytes(bytes));
    let (store, root) = open(&file);
    assert!(matches!(store.get(&root, 1, &key(7)), Err(Error::Corruption { .. })));
    assert!(matches!(store.get_many(&root, 1, &[&key(7), &key(8)]), Err(Error::Corruption { .. })));
    let report = store.verify(&root, &mut |_, _| ()).unwrap();
    assert!(report.problems.iter().any(|problem| problem.contains("filter")), "{:?}", report.problems);
}

/// One keyspace's tree and three runs beside it, with values in extents of their own.
fn with_runs(file: &Arc<MemFile>) -> (BTreeMap<Vec<u8>, Vec<u8>>, Rng) {
    let (store, root) = open(file);
    let mut root =
        fold(&store, &root, &put(1, (0..ROWS).map(|n| (key(n), number_value(7).to_vec())))).unwrap();
    let mut rows: BTreeMap<_, _> = (0..ROWS).map(|n| (key(n), number_value(7).to_vec())).collect();
    let mut rng = Rng(11);
    for _ in 0..3 {
        let step = Step { cleared: Vec::new(), ..full_step(&mut rng, &mut rows) };
        root = spilled(&store, &root, &step, None).unwrap();
    }
    assert_eq!(verified(&store, &root).runs, 3);
    (rows, rng)
}

/// A step with many changes and no range cleared.
fn full_step(rng: &mut Rng, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Step {
    loop {
        let mut after = rows.clone();
        let step = step(rng, &mut after);
        if step.cleared.is_empty() && step.changes.len() > 100 {
            *rows = after;
            return step;
        }
    }
}

fn spilled(store: &Arc<TreeStore>, root: &Arc<Root>, step: &Step, roll: Option<&Span>) -> Result<Arc<Root>> {
    let mut fold = store.begin_fold(root)?;
    if let Some(span) = roll {
        fold.roll(1, Compression::None, span, &mut || ())?;
    }
    let changes = step.changes.clone().into_iter().map(Ok);
    fold.spill(1, Compression::None, step.cleared.clone(), changes)?;
    fold.finish(|superblock| superblock.next_keyspace += 1)
}

fn is_there(store: &Arc<TreeStore>, root: &Arc<Root>, rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> bool {
    (0..ROWS)
        .map(key)
        .all(|key| store.get(root, 1, &key).unwrap().as_deref() == rows.get(&key).map(|value| &value[..]))
}

#[test]
fn a_fold_that_rolls_and_spills_is_all_or_nothing() {
    let mut outcomes = [0; 3];
    for call in 1.. {
        let file = new_file();
        let (before, mut rng) = with_runs(&file);
        let mut after = before.clone();
        let step = match call % 3 {
            0 => loop {
                let mut rows = before.clone();
                let step = step(&mut rng, &mut rows);
                if !step.cleared.is_empty() {
                    after = rows;
                    break step;
                }
            },
            _ => full_step(&mut rng, &mut after),
        };
        let span = span(&mut rng);
        let roll = step.cleared.is_empty().then_some(&span);
        let (store, root) = open(&file);
        let is_cut = call % 2 == 0;
        file.fail_at(file.changes() + 1 + call / 6, std::io::ErrorKind::Other, is_cut);
        let result = spilled(&store, &root, &step, roll);
        assert!(is_there(&store, &root, &before), "call {call}: an older root");
        drop((store, root));
        let is_done = result.is_ok();
        let file = if is_cut { Arc::new(file.power_cut(&mut rng)) } else { file };
        file.mend();
        let (store, root) = open(&file);
        verified(&store, &root);
        let (is_old, is_new) = (is_there(&store, &root, &before), is_there(&store, &root, &after));
        assert!(is_new || is_old && !is_done, "call {call}: neither the old state nor the new one");
        outcomes[if is_done { 2 } else { usize::from(is_new) }] += 1;
        // It is made again, and then all comes into the tree.
        let root = match is_new {
            true => root,
            false => spilled(&store, &root, &step, roll).unwrap(),
        };
        assert!(is_there(&store, &root, &after), "call {call}: made again");
        let mut last = store.begin_fold(&root).unwrap();
        let none = std::iter::empty::<Result<(Vec<u8>, Change)>>();
        last.apply_over(1, Compression::None, Vec::new(), none, &mut || {}).unwrap();
        let root = last.finish(|_| ()).unwrap();
        assert_eq!(verified(&store, &root).runs, 0);
        assert!(contents(&store, &root).unwrap() == Model::from([(1, after)]), "call {call}: folded");
        if is_done && call > 40 {
            break;
        }
    }
    assert!(outcomes[0] > 20, "{outcomes:?}");
}

#[test]
fn a_full_disk_takes_no_run_in_and_loses_none() {
    let file = new_file();
    let (mut rows, mut rng) = with_runs(&file);
    let (store, mut root) = open(&file);
    file.set_capacity(Some(file.size()));
    // What is replaced stays.
    let mut older: Vec<Arc<Root>> = Vec::new();
    for round in 0.. {
        assert!(round < 500, "the file never fills");
        let mut after = rows.clone();
        let step = full_step(&mut rng, &mut after);
        let (live, roll) = (store.stats().live_bytes, Some(span(&mut rng)));
        match spilled(&store, &root, &step, roll.as_ref()) {
            Ok(next) => {
                older.push(std::mem::replace(&mut root, next));
                rows = after;
            }
            Err(error) => {
                assert!(matches!(error, Error::NoSpace), "{error:?}");
                assert!(is_there(&store, &root, &rows) && store.stats().live_bytes == live);
                verified(&store, &root);
                file.set_capacity(None);
                let root = spilled(&store, &root, &step, roll.as_ref()).unwrap();
                verified(&store, &root);
                assert!(is_there(&store, &root, &after));
                break;
            }
        }
    }
}

/// What a stretch leaves in a run keeps its filter, which is not read again.
#[test]
fn a_filter_stays_with_its_run() {
    use seawall_wal::DiskFile;
    let file = new_file();
    let (store, root) = open(&file);
    let root = fold(&store, &root, &put(1, (0..ROWS).map(|n| (key(n), vec![1; 50])))).unwrap();
    let changes = (0..ROWS).step_by(3).map(|n| (key(n), Change::Remove)).collect();
    let root = spilled(&store, &root, &Step { cleared: Vec::new(), changes }, None).unwrap();
    assert!(store.get(&root, 1, &key(300)).unwrap().is_none());
    let roll = Span::new(Bound::Unbounded, Bound::Excluded(&key(100))).unwrap();
    let root = spilled(&store, &root, &Step::default(), Some(&roll)).unwrap();
    let filter = *root.runs(1)[0].filter_at();
    file.write_at(&vec![0; filter.bytes as usize], filter.offset).unwrap();
    assert!(store.get(&root, 1, &key(300)).unwrap().is_none());
    assert!(store.get(&root, 1, &key(301)).unwrap().is_some());
}
