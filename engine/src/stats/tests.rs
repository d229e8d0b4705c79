//! The exposition, read as a scraper reads it (prometheus.io, *Exposition formats*, the text format 0.0.4).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// One line that is no comment.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All lines between one `# HELP` and the next.
#[derive(Debug)]
struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// `a="x",b="y"}`; gives what is behind the brace.
fn labels(mut rest: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return (labels, after);
        }
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "{name}");
        let (mut value, mut letters) = (String::new(), after.char_indices());
        let end = loop {
            match letters.next().expect("an open label") {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next().unwrap().1 {
                    'n' => '\n',
                    letter @ ('\\' | '"') => letter,
                    letter => panic!("\\{letter} is no escape"),
                }),
                (_, letter) => value.push(letter),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn value(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().unwrap_or_else(|_| panic!("{text} is no number")),
    }
}

fn parse(text: &str) -> Vec<Family> {
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            families.push(Family { name: name.to_owned(), kind: String::new(), samples: Vec::new() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let family = families.last_mut().unwrap();
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{line} comes too late");
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family.name);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            family.kind = kind.to_owned();
        } else {
            let family = families.last_mut().unwrap();
            let end = line.find(['{', ' ']).unwrap();
            let (name, rest) = line.split_at(end);
            assert!(is_name(name), "{line}");
            let (labels, rest) = match rest.strip_prefix('{') {
                Some(rest) => labels(rest),
                None => (BTreeMap::new(), rest),
            };
            let value = value(rest.strip_prefix(' ').unwrap());
            family.samples.push(Sample { name: name.to_owned(), labels, value });
        }
    }
    check(&families);
    families
}

fn check(families: &[Family]) {
    let names: BTreeSet<&str> = families.iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names.len(), families.len(), "a family twice");
    for Family { name, kind, samples } in families {
        let series: BTreeSet<_> = samples.iter().map(|sample| (&sample.name, &sample.labels)).collect();
        assert_eq!(series.len(), samples.len(), "{name}: a series twice");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        if kind == "histogram" {
            check_histogram(name, samples);
        } else {
            assert!(samples.iter().all(|sample| sample.name == *name && sample.value.is_finite()), "{name}");
        }
    }
}

fn check_histogram(name: &str, samples: &[Sample]) {
    let of = |suffix: &'static str| {
        samples.iter().filter(move |sample| sample.name.strip_prefix(name) == Some(suffix))
    };
    let buckets: Vec<(f64, f64)> =
        of("_bucket").map(|bucket| (value(&bucket.labels["le"]), bucket.value)).collect();
    assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{buckets:?}");
    let (last, count) = (buckets.last().unwrap(), of("_count").next().unwrap().value);
    assert_eq!(*last, (f64::INFINITY, count));
    assert_eq!((of("_sum").count(), of("_count").count()), (1, 1));
    assert_eq!(samples.len(), buckets.len() + 2, "{name}");
}

fn of<'a>(families: &'a [Family], name: &str) -> &'a Family {
    families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_exposition_is_what_a_scraper_expects() {
    let who = "slot \"a\\b\"\nand c";
    let retainer = Retainer { who: who.into(), lsn: Lsn(1), bytes: 7, age: Duration::from_secs(90) };
    let times = Histogram::default();
    [0, 1, 1000, 1 << 40].into_iter().for_each(|us| times.record(us));
    let stats = Stats {
        commits: 3,
        oldest_snapshot_age: Duration::from_millis(1500),
        log_retained: vec![retainer],
        commit_us: times.snapshot(),
        ..Stats::default()
    };
    let families = parse(&stats.to_prometheus());
    assert_eq!(of(&families, "seawall_commits_total").samples[0].value, 3.0);
    assert_eq!(of(&families, "seawall_oldest_snapshot_age_seconds").samples[0].value, 1.5);
    for (name, value) in [("seawall_log_retained_bytes", 7.0), ("seawall_log_retained_age_seconds", 90.0)] {
        let sample = &of(&families, name).samples[0];
        assert_eq!((sample.labels["who"].as_str(), sample.value), (who, value));
    }
    let commits = of(&families, "seawall_commit_seconds");
    let at = |le: f64| {
        let found = commits.samples.iter().find(|s| s.labels.get("le").is_some_and(|end| value(end) == le));
        found.map(|sample| sample.value)
    };
    // 0 µs, 1 µs, and 1,000 µs in whole microseconds; the last one is longer than any bucket.
    let found = [1e-6, 2e-6, 512e-6, 1024e-6, 134.217_728, f64::INFINITY].map(at);
    assert_eq!(found, [1.0, 2.0, 2.0, 3.0, 3.0, 4.0].map(Some));
    let sum = commits.samples.iter().find(|sample| sample.name.ends_with("_sum")).unwrap().value;
    assert!((sum - (1001 + (1_u64 << 40)) as f64 / 1e6).abs() < 1e-3, "{sum}");
}

/// A scraper that asks for rates needs the same series each time.
#[test]
fn the_same_series_are_there_before_anything_happened() {
    let names = |stats: &Stats| {
        let families = parse(&stats.to_prometheus());
        let all = families.into_iter().flat_map(|family| family.samples);
        all.map(|sample| (sample.name, sample.labels)).collect::<Vec<_>>()
    };
    let times = Histogram::default();
    times.record(70);
    let used = Stats { commit_us: times.snapshot(), ..Stats::default() };
    assert_eq!(names(&Stats::default()), names(&used));
}
