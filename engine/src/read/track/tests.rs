#![allow(clippy::unwrap_used)]
use super::*;
use crate::record::Builder;
use seawall_wal::runtime::Rng;

fn slice(key: &str) -> Slice {
    Slice::from(key.as_bytes().to_vec())
}

fn writes(keys: &[&str]) -> WriteSet {
    let mut builder = Builder::default();
    for key in keys {
        builder.put(1, key.as_bytes(), b"v");
    }
    builder.finish()
}

/// A key, and whether it is the place behind it.
type Place = (String, bool);

/// Spans and points, in any order, against a plain list of them.
#[test]
fn a_set_knows_what_was_added_and_nothing_else() {
    let mut rng = Rng::new(11);
    for round in 0..300 {
        let mut set = ReadSet::default();
        let mut model: Vec<(String, bool, Option<Place>)> = Vec::new();
        for _ in 0..rng.below(12) {
            let key = format!("{:02}", rng.below(40));
            if rng.chance(1, 3) {
                set.add_point(1, key.as_bytes());
                model.push((key.clone(), false, Some((key, true))));
                continue;
            }
            let to = rng.chance(7, 8).then(|| (format!("{:02}", rng.below(40)), rng.chance(1, 2)));
            let from = (key, rng.chance(1, 2));
            let edge = |(key, is_behind): &(String, bool)| Edge { key: slice(key), is_behind: *is_behind };
            set.add_span(1, &edge(&from), to.as_ref().map(edge).as_ref());
            model.push((from.0, from.1, to));
        }
        for n in 0..41 {
            let key = format!("{n:02}");
            let expected = model.iter().any(|(from, is_behind, to)| {
                let is_after = if *is_behind { *from < key } else { *from <= key };
                is_after
                    && to
                        .as_ref()
                        .is_none_or(|(to, is_behind)| if *is_behind { key <= *to } else { key < *to })
            });
            assert_eq!(set.meets(&writes(&[&key])), expected, "round {round}, key {key}: {set:?}");
            // The same from the other side: many rows, few reads.
            let keys: Vec<String> = (0..400).map(|i| format!("{key}{i:03}")).chain([key.clone()]).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let any = keys.iter().any(|key| set.meets(&writes(&[key])));
            assert_eq!(set.meets(&writes(&keys)), any);
        }
        let text = |(key, is_behind): &Place| if *is_behind { format!("{key}\0") } else { key.clone() };
        for _ in 0..20 {
            let (from, to) = (format!("{:02}", rng.below(40)), format!("{:02}", rng.below(42)));
            let mut builder = Builder::default();
            builder.remove_range(1, (Bound::Included(from.as_bytes()), Bound::Excluded(to.as_bytes())));
            let expected = model.iter().any(|(first, is_behind, end)| {
                let first = text(&(first.clone(), *is_behind)).max(from.clone());
                first < to && end.as_ref().is_none_or(|end| first < text(end))
            });
            assert_eq!(
                set.meets(&builder.clone().finish()),
                expected,
                "round {round}: {from}..{to}, {set:?}"
            );
            // The same from the other side.
            (0..400).for_each(|n| builder.put(2, format!("{n}").as_bytes(), b"v"));
            assert_eq!(set.meets(&builder.finish()), expected);
        }
        assert_eq!(set.bytes, set.parts.values().map(Part::bytes).sum::<usize>());
        let part = set.parts.get(&1).cloned().unwrap_or_default();
        let spans: Vec<_> = part.spans.iter().collect();
        let is_apart = |pair: &[(&Key, &Option<Key>)]| pair[0].1.as_ref().is_some_and(|to| to < pair[1].0);
        assert!(spans.windows(2).all(is_apart), "{spans:?}");
    }
}

/// What does not fit loses its detail, and never a key.
#[test]
fn a_set_beyond_its_budget_becomes_coarser_and_forgets_nothing() {
    let mut set = ReadSet::default();
    for n in 0..1000 {
        set.add_point(1, format!("{n:04}").as_bytes());
        if n % 10 == 0 {
            set.add_point(2, format!("{n:04}").as_bytes());
        }
        set.fit(10_000);
        assert!(set.bytes <= 10_000);
    }
    assert!((0..1000).all(|n| set.meets(&writes(&[&format!("{n:04}")]))));
    assert!(!set.meets(&writes(&["", "zzzz"])), "still not everything");
    set.fit(100);
    assert!(set.meets(&writes(&[""])) && set.parts.len() == 2);
    assert!(set.parts.values().all(Part::is_all));
}

#[test]
fn a_scan_that_goes_on_is_one_span_and_its_end_is_noted_when_it_is_dropped() {
    let log = ReadLog::new(1 << 20, 1 << 30, &Arc::default());
    let track = Track::new(&log, 1);
    track.pass(Edge::first(), Some(Edge::behind(&slice("b")))).unwrap();
    track.pass(Edge::behind(&slice("b")), Some(Edge::behind(&slice("d")))).unwrap();
    let has = |key: &str| log.now().meets(&writes(&[key]));
    assert!(has("") && has("c") && has("d") && !has("e"));
    track.pass(Edge::behind(&slice("d")), None).unwrap();
    drop(track);
    assert!(has("zz") && !log.has_scans());
    let late = Track::new(&log, 1);
    assert_eq!(log.close().parts.get(&1).unwrap().spans.len(), 1);
    assert!(late.pass(Edge::first(), None).is_err());
}
