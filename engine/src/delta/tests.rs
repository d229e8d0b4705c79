#![allow(clippy::unwrap_used)]
use super::*;
use crate::record::Builder;

fn put(delta: &Delta, lsn: u64, keyspace: u32, key: &[u8], value: Option<&[u8]>) {
    let mut builder = Builder::default();
    match value {
        Some(value) => builder.put(keyspace, key, value),
        None => builder.remove(keyspace, key),
    }
    delta.apply(&builder.finish(), Lsn(lsn));
}

type Shown = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn rows(delta: &Delta, keyspace: u32, before: u64, is_reverse: bool, chunk: usize) -> Shown {
    shown(delta, keyspace, before, is_reverse, chunk, false)
}

fn row(version: Version) -> Option<Vec<u8>> {
    version
        .row(std::path::Path::new("test"), |_| unreachable!("no large value"))
        .unwrap()
        .map(|value| value.to_vec())
}

fn shown(delta: &Delta, keyspace: u32, before: u64, is_reverse: bool, chunk: usize, added: bool) -> Shown {
    let mut rows = Vec::new();
    let mut out = VecDeque::new();
    let (mut from, mut to) = (Bound::Unbounded, Bound::Unbounded);
    loop {
        let bounds = (from.as_ref().map(|k: &Vec<u8>| &k[..]), to.as_ref().map(|k: &Vec<u8>| &k[..]));
        let want = Want { keyspace, before: Lsn(before), rows_max: chunk, is_reverse, added };
        let more = delta.rows_between(want, bounds, &mut out);
        for (key, version) in out.drain(..) {
            rows.push((key.to_vec(), row(version)));
        }
        if !more {
            return rows;
        }
        let last = rows.last().unwrap().0.clone();
        if is_reverse {
            to = Bound::Excluded(last);
        } else {
            from = Bound::Excluded(last);
        }
    }
}

#[test]
fn a_snapshot_sees_the_newest_version_below_it() {
    let delta = Delta::default();
    put(&delta, 10, 1, b"k", Some(b"a"));
    put(&delta, 20, 1, b"k", None);
    put(&delta, 30, 1, b"k", Some(b"c"));
    assert_eq!(delta.newest(1, b"k", Lsn(10)), None);
    assert_eq!(row(delta.newest(1, b"k", Lsn(11)).unwrap().1).unwrap(), b"a");
    assert_eq!(delta.newest(1, b"k", Lsn(30)), Some((Lsn(20), Version::Removed)));
    assert_eq!(delta.newest(1, b"k", Lsn(31)).unwrap().0, Lsn(30));
    assert_eq!(delta.newest_lsn(1, b"k"), Some(Lsn(30)));
    assert_eq!(delta.newest(1, b"", Lsn::MAX), None);
    assert_eq!(delta.newest(2, b"k", Lsn::MAX), None);
}

#[test]
fn both_directions_agree_with_a_model_at_every_snapshot() {
    let delta = Delta::default();
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut history = Vec::new();
    for lsn in 1..400_u64 {
        let keyspace = 1 + random(3) as u32;
        let key = format!("key-{:0width$}", random(40), width = random(3) as usize).into_bytes();
        let value = (random(4) > 0).then(|| lsn.to_string().into_bytes());
        put(&delta, lsn, keyspace, &key, value.as_deref());
        history.push((lsn, keyspace, key, value));
    }
    assert_eq!(delta.keyspaces(), [1, 2, 3]);
    for before in [0, 1, 50, 200, 400] {
        for keyspace in 0..5 {
            let mut model = BTreeMap::new();
            for (_, _, key, value) in history.iter().filter(|h| h.0 < before && h.1 == keyspace) {
                model.insert(key.clone(), value.clone());
            }
            let mut model: Vec<_> = model.into_iter().collect();
            for chunk in [1, 3, 1000] {
                assert_eq!(rows(&delta, keyspace, before, false, chunk), model);
            }
            model.reverse();
            for chunk in [1, 3, 1000] {
                assert_eq!(rows(&delta, keyspace, before, true, chunk), model);
            }
        }
    }
}

#[test]
fn bytes_are_exact_and_a_discard_gives_them_back() {
    let delta = Delta::default();
    let mut builder = Builder::default();
    builder.put(1, b"a", b"1");
    builder.drop_keyspace(2, "two");
    let set = builder.finish();
    delta.apply(&set, Lsn(5));
    assert_eq!(delta.bytes(), set.payload().len() as u64 + PAYLOAD_BYTES + rows::LEAF_BYTES);
    assert_eq!(delta.dropped().get(&2), Some(&Lsn(5)));
    delta.discard(&set, Lsn(5));
    assert!(delta.is_empty() && delta.dropped().is_empty() && delta.keyspaces().is_empty());
}

/// A row with more versions than a leaf holds, beside others, at every snapshot and from both ends.
#[test]
fn a_row_whose_versions_fill_many_leaves_is_one_row() {
    let delta = Delta::default();
    for lsn in 1..=1000_u64 {
        put(&delta, lsn, 1, b"hot", Some(lsn.to_string().as_bytes()));
        if lsn % 7 == 0 {
            put(&delta, lsn, 1, format!("row{lsn:04}").as_bytes(), Some(b"v"));
            put(&delta, lsn, 1, format!("a{lsn:04}").as_bytes(), Some(b"v"));
        }
    }
    for before in [1, 2, 128, 129, 500, 1000, 1001] {
        let hot = delta.newest(1, b"hot", Lsn(before)).map(|(lsn, _)| lsn);
        assert_eq!(hot, (before > 1).then(|| Lsn(before - 1)));
        let mut model: Vec<_> =
            (1..before).filter(|lsn| lsn % 7 == 0).map(|lsn| format!("a{lsn:04}")).collect();
        model.extend((before > 1).then(|| "hot".to_owned()));
        model.extend((1..before).filter(|lsn| lsn % 7 == 0).map(|lsn| format!("row{lsn:04}")));
        let names = |is_reverse, chunk| {
            let found = rows(&delta, 1, before, is_reverse, chunk).into_iter();
            found.map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
        };
        for chunk in [1, 7, 10_000] {
            assert_eq!(names(false, chunk), model);
            assert!(names(true, chunk).iter().rev().eq(&model));
        }
    }
}

/// Insertions from several threads, splits among them, lose nothing, and a reader beside them sees every row that was
/// there before it began, in order.
#[test]
fn insertions_side_by_side_lose_nothing() {
    const EACH: u64 = 3000;
    let delta = Delta::default();
    for i in 0..500 {
        put(&delta, 1, 1, format!("{:08}", i * 97 % 500 * 16).as_bytes(), Some(b"old"));
    }
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let delta = &delta;
            scope.spawn(move || {
                for i in 0..EACH {
                    let key = format!("{:08}", (i * 7919 % EACH) * 4 + thread + 1);
                    put(delta, 10 + i, 1, key.as_bytes(), Some(b"new"));
                }
            });
        }
        for is_reverse in [false, true, false, true] {
            let mut seen = rows(&delta, 1, 2, is_reverse, 50);
            if is_reverse {
                seen.reverse();
            }
            assert_eq!(seen.len(), 500);
            assert!(seen.is_sorted());
        }
    });
    let all = rows(&delta, 1, u64::MAX, false, 1000);
    assert!(all.is_sorted());
    let new = all.iter().filter(|(_, value)| value.as_deref() == Some(b"new")).count() as u64;
    assert_eq!(new, 3 * EACH, "what was inserted is there");
}

/// The last row of a keyspace has no version that is old enough, and the next keyspace's first row has the same key.
#[test]
fn a_neighbour_keyspaces_row_is_not_taken_for_a_version() {
    let delta = Delta::default();
    put(&delta, 5, 1, b"a", Some(b"1"));
    put(&delta, 50, 1, b"k", Some(b"later"));
    put(&delta, 10, 2, b"k", Some(b"another's"));
    for is_reverse in [false, true] {
        assert_eq!(rows(&delta, 1, 20, is_reverse, 10), [(b"a".to_vec(), Some(b"1".to_vec()))]);
    }
    assert_eq!(delta.newest(1, b"k", Lsn(20)), None);
}

/// What a commit does, for a model.
#[derive(Clone, Debug)]
enum Did {
    Put(Vec<u8>, Option<i64>),
    Add(Vec<u8>, i64),
    Clear(Span),
}

/// One commit of several operations, applied in call order to a model of what a delta says: the row, or the sum that
/// is added to whatever is below.
fn apply_to(model: &mut BTreeMap<Vec<u8>, Version>, cleared: &mut Vec<Span>, did: &[Did]) {
    for did in did {
        match did {
            Did::Put(key, number) => {
                let version = number.map_or(Version::Removed, |number| Version::Removed.plus(number));
                model.insert(key.clone(), version);
            }
            Did::Add(key, delta) => {
                let is_cleared = cleared.iter().any(|span| span.contains(key));
                let below = if is_cleared { Version::Removed } else { Version::Add(0) };
                let row = model.remove(key).unwrap_or(below);
                model.insert(key.clone(), row.plus(*delta));
            }
            Did::Clear(span) => {
                model.retain(|key, _| !span.contains(key));
                cleared.push(span.clone());
            }
        }
    }
}

/// Clears and adds among puts, several in a commit, commits applied out of order, some discarded again: at every
/// snapshot, by key and by scan, both ways, the delta says what a model says.
#[test]
fn clears_and_adds_agree_with_a_model_at_every_snapshot() {
    let mut state = 11_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..20 {
        let delta = Delta::default();
        let mut commits: Vec<(u64, Vec<Did>)> = Vec::new();
        let mut waiting: Vec<(u64, WriteSet)> = Vec::new();
        for lsn in 1..120_u64 {
            let mut builder = Builder::default();
            let mut did = Vec::new();
            for _ in 0..1 + random(4) {
                let key = format!("{:02}", random(30)).into_bytes();
                match random(6) {
                    0 | 1 => {
                        let number = (random(4) > 0).then(|| random(1000) as i64);
                        match number {
                            Some(number) => builder.put(1, &key, &number.to_le_bytes()),
                            None => builder.remove(1, &key),
                        }
                        did.push(Did::Put(key, number));
                    }
                    2..5 => {
                        let number = random(1000) as i64 - 500;
                        builder.add(1, &key, number);
                        did.push(Did::Add(key, number));
                    }
                    _ => {
                        let end = format!("{:02}", random(34)).into_bytes();
                        let to = if random(8) == 0 { Bound::Unbounded } else { Bound::Excluded(&end[..]) };
                        if let Some(span) = Span::new(Bound::Included(&key), to) {
                            builder.remove_range(1, (Bound::Included(&key), to));
                            did.push(Did::Clear(span));
                        }
                    }
                }
            }
            if random(10) == 0 {
                // Withdrawn: it comes and goes.
                let set = builder.finish();
                delta.apply(&set, Lsn(lsn));
                delta.discard(&set, Lsn(lsn));
                continue;
            }
            waiting.push((lsn, builder.finish()));
            commits.push((lsn, did));
            while waiting.len() > 3 {
                let (lsn, set) = waiting.swap_remove(random(4) as usize);
                delta.apply(&set, Lsn(lsn));
            }
        }
        waiting.into_iter().for_each(|(lsn, set)| delta.apply(&set, Lsn(lsn)));
        for before in [0, 1, 2, 30, 60, 61, 100, 119, 120] {
            let (mut model, mut cleared) = (BTreeMap::new(), Vec::new());
            let seen = commits.iter().filter(|(lsn, _)| *lsn < before);
            seen.for_each(|(_, did)| apply_to(&mut model, &mut cleared, did));
            compare(&delta, before, &model, &cleared, round);
        }
        let changed_since = |key: &[u8], since: u64| {
            commits.iter().filter(|(lsn, _)| *lsn >= since).flat_map(|(_, did)| did).any(|did| match did {
                Did::Put(row, _) | Did::Add(row, _) => row == key,
                Did::Clear(span) => span.contains(key),
            })
        };
        for since in [1, 50, 110, 118, 119] {
            for key in (0..34).map(|key| format!("{key:02}").into_bytes()) {
                let newest = delta.newest_lsn(1, &key);
                assert_eq!(newest >= Some(Lsn(since)), changed_since(&key, since));
                let alone = Span::new(Bound::Included(&key), Bound::Included(&key)).unwrap();
                assert_eq!(delta.is_changed_in(1, &alone, Lsn(since)), changed_since(&key, since));
            }
        }
    }
}

fn compare(delta: &Delta, before: u64, model: &BTreeMap<Vec<u8>, Version>, cleared: &[Span], round: u64) {
    let hides = delta.cleared(1, Lsn(before)).unwrap_or_default();
    for key in (0..34).map(|key| format!("{key:02}").into_bytes()) {
        let is_cleared = cleared.iter().any(|span| span.contains(&key));
        let expected = model.get(&key).cloned().or(is_cleared.then_some(Version::Removed));
        let found = delta.newest(1, &key, Lsn(before)).map(|(_, version)| version);
        assert_eq!(found, expected, "round {round}, {} before {before}", key.escape_ascii());
        assert_eq!(hides.mark(&key).is_some(), is_cleared);
    }
    for (chunk, is_reverse) in [(1, false), (3, true), (100, false), (2, true)] {
        let added: BTreeMap<_, _> = shown(delta, 1, before, is_reverse, chunk, true).into_iter().collect();
        let mut all: BTreeMap<_, _> = shown(delta, 1, before, is_reverse, chunk, false).into_iter().collect();
        all.extend(added);
        let rows = |map: BTreeMap<Vec<u8>, Option<Vec<u8>>>| -> Vec<_> {
            map.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
        };
        let expected = model.iter().map(|(key, version)| (key.clone(), row(version.clone()))).collect();
        assert_eq!(rows(all), rows(expected), "round {round} before {before}");
    }
}

/// A million adds are summed up once, and then from where that left off.
#[test]
fn the_sum_of_many_adds_is_kept() {
    let delta = Delta::default();
    for lsn in 1..=2000_u64 {
        let mut builder = Builder::default();
        builder.add(1, b"n", 1);
        delta.apply(&builder.finish(), Lsn(lsn));
    }
    let steps = |before: u64| {
        let mut steps = 0;
        let place = Place::new(1, b"n", before - 1);
        delta.adds().unwrap().versions(&place, |row| {
            steps += 1;
            row.kind == Kind::Add
        });
        steps
    };
    assert_eq!(steps(2001), 2000);
    for before in [2001, 2001, 1500, 1800, 2000, 1, 2] {
        let expected = (before > 1).then(|| (Lsn(before - 1), Version::Add(before as i64 - 1)));
        assert_eq!(delta.newest(1, b"n", Lsn(before)), expected);
    }
    assert_eq!((steps(2001), steps(2000), steps(1800), steps(1799)), (1, 1, 1, 300));
}

#[test]
fn rows_that_are_absorbed_stand_as_if_they_had_been_inserted_one_by_one() {
    let (one, many) = (Delta::default(), Delta::default());
    let mut gathered = Gathered::default();
    let mut state = 7u64;
    for lsn in 1..600u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = [&b"prefix--"[..(state >> 60) as usize % 9], &((state >> 40) % 50).to_be_bytes()].concat();
        let mut builder = Builder::default();
        match state >> 62 {
            0 => builder.remove(1 + (state >> 50) as u32 % 2, &key),
            _ => builder.put(1 + (state >> 50) as u32 % 2, &key, &lsn.to_be_bytes()),
        }
        let set = builder.finish();
        one.apply(&set, Lsn(lsn));
        many.gather(&set, Lsn(lsn), &mut gathered);
        if many.is_worth_absorbing(&gathered) {
            many.absorb(&mut gathered);
            assert_eq!(gathered.len(), 0);
        }
    }
    many.absorb(&mut gathered);
    for keyspace in 1..3 {
        for before in [1, 200, 600, u64::MAX] {
            for is_reverse in [false, true] {
                let expected = rows(&one, keyspace, before, is_reverse, 7);
                assert_eq!(rows(&many, keyspace, before, is_reverse, 7), expected);
            }
        }
    }
    put(&one, 700, 1, b"later", Some(b"v"));
    put(&many, 700, 1, b"later", Some(b"v"));
    assert_eq!(rows(&many, 1, u64::MAX, false, 100), rows(&one, 1, u64::MAX, false, 100));
}

/// Whether anything between two keys is newer than a position, against a plain look at every version.
#[test]
fn a_change_between_two_keys_is_found_wherever_it_stands() {
    let delta = Delta::default();
    let mut random = seawall_wal::runtime::Rng::new(3);
    let mut versions = Vec::new();
    for lsn in 1..300_u64 {
        let (keyspace, key) = (1 + random.below(2) as u32, format!("{:03}", random.below(200)).into_bytes());
        put(&delta, lsn, keyspace, &key, random.chance(1, 2).then_some(b"v"));
        versions.push((lsn, keyspace, key));
    }
    let (mut found, mut missed) = (0, 0);
    for _ in 0..4000 {
        let keyspace = random.below(4) as u32;
        let (from, width) = (random.below(200), random.below(30));
        let to = random.chance(9, 10).then(|| format!("{:03}", from + width).into_bytes());
        let from = format!("{from:03}").into_bytes();
        let since = 300 - random.below(279) * random.below(2) - random.below(20);
        let expected = versions.iter().any(|(lsn, of, key)| {
            *of == keyspace && *lsn >= since && *key >= from && to.as_ref().is_none_or(|to| key < to)
        });
        let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let found_any = Span::new(Bound::Included(&from), to)
            .is_some_and(|span| delta.is_changed_in(keyspace, &span, Lsn(since)));
        assert_eq!(found_any, expected);
        (found, missed) = if expected { (found + 1, missed) } else { (found, missed + 1) };
    }
    assert!(found > 500 && missed > 500, "{found} {missed}");
}
