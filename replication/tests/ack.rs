//! Policies of acknowledgement: their text, and what they come to, against a model that counts naively.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use seawall_replication::ack::{Level, Member, Method, Part, Policy, Reached, Table};
use seawall_wal::Lsn;
use seawall_wal::runtime::Rng;
use std::collections::BTreeMap;

fn policy(text: &str) -> Policy {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn text_is_read_as_postgresql_reads_it() {
    let named =
        |names: &[&str]| names.iter().map(|name| Member::Named((*name).to_owned())).collect::<Vec<_>>();
    for (text, method, count, members) in [
        ("ANY 2 (a, b, c)", Method::Any, 2, named(&["a", "b", "c"])),
        ("any 1(a)", Method::Any, 1, named(&["a"])),
        ("FIRST 2 (b,a)", Method::First, 2, named(&["b", "a"])),
        ("2 (x, y)", Method::First, 2, named(&["x", "y"])),
        ("  s1 ,s2 ", Method::First, 1, named(&["s1", "s2"])),
        ("Shore", Method::First, 1, named(&["shore"])),
        ("\"Shore\", \"any\"", Method::First, 1, named(&["Shore", "any"])),
        ("ANY 1 (\"a \"\"quoted\"\" one\")", Method::Any, 1, named(&["a \"quoted\" one"])),
        ("*", Method::First, 1, vec![Member::Any]),
        ("ANY 3 (*)", Method::Any, 3, vec![Member::Any]),
        ("FIRST 1 (first-of-all, node.2)", Method::First, 1, named(&["first-of-all", "node.2"])),
    ] {
        let policy = policy(text);
        assert_eq!(
            (policy.method(), policy.count(), policy.members()),
            (method, count, &members[..]),
            "{text}"
        );
        assert_eq!(policy.to_string().parse(), Ok(policy), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for text in [
        "",
        "  ",
        "ANY",
        "ANY 2",
        "ANY (a)",
        "ANY 0 (a)",
        "ANY 2 (a)",
        "FIRST 3 (a, b)",
        "ANY 1 ()",
        "ANY 1 (a",
        "ANY 1 a)",
        "ANY 1 (a) b",
        "a,",
        ",a",
        "a b",
        "ANY 1 (a, a)",
        "ANY 1 (a;b)",
        "\"a",
        "ANY -1 (a)",
        "ANY 99999999999999999999 (*)",
        "ANY 1 (\"\")",
        "1 (a))",
        "ANY \"1\" (a)",
    ] {
        assert!(text.parse::<Policy>().is_err(), "{text:?}");
    }
    let long = format!("ANY 1 ({})", "n".repeat(65));
    assert!(long.parse::<Policy>().is_err());
}

fn all(lsn: u64) -> Reached {
    Reached { received: Lsn(lsn), durable: Lsn(lsn), applied: Lsn(lsn) }
}

#[test]
fn first_counts_those_that_are_there_in_order() {
    let mut table = Table::new(policy("FIRST 2 (a, b, c)"));
    assert_eq!(table.update("c", all(900)), Reached::default(), "one is too few");
    assert_eq!(table.update("b", all(500)), all(500));
    assert_eq!(table.update("a", all(100)), all(500), "it is waited for from now on, and takes nothing back");
    assert_eq!(
        (table.part("a"), table.part("b"), table.part("c")),
        (Part::Sync, Part::Sync, Part::Potential)
    );
    assert_eq!(table.part("stranger"), Part::Async);
    assert_eq!(table.update("b", all(800)), all(500));
    assert_eq!(table.update("a", all(700)), all(700));
    assert_eq!(table.leave("a"), all(800), "the next one takes its part");
    assert_eq!(table.leave("b"), all(800), "too few again: nothing moves");
    assert_eq!(table.update("c", all(5000)), all(800));
}

#[test]
fn a_quorum_keeps_what_those_have_who_went() {
    let mut table = Table::new(policy("ANY 2 (a, b, c)"));
    table.update("a", all(300));
    table.update("stranger", all(900));
    assert_eq!(table.update("b", all(200)), all(200));
    table.leave("a");
    assert_eq!(table.update("b", all(400)), all(300));
    // It comes back, made anew.
    assert_eq!(table.update("a", all(10)), all(300));
    assert_eq!(table.update("b", all(500)), all(300));
    assert_eq!(table.update("c", all(450)), all(450));
    assert_eq!(table.forget("c"), all(450));
    assert_eq!(table.set_policy(policy("ANY 1 (a, b)")), all(500));
}

/// The largest LSN that enough replicas have, tried one by one.
fn naive(policy: &Policy, rows: &BTreeMap<String, (bool, Lsn)>) -> Lsn {
    let counts = |name: &str| policy.rank(name).is_some();
    let mut chosen: Vec<(&String, Lsn)> = match policy.method() {
        Method::Any => {
            rows.iter().filter(|(name, _)| counts(name)).map(|(name, row)| (name, row.1)).collect()
        }
        Method::First => {
            let mut there: Vec<_> = rows.iter().filter(|(name, row)| counts(name) && row.0).collect();
            there.sort_by_key(|(name, _)| (policy.rank(name), (*name).clone()));
            there.truncate(policy.count());
            there.into_iter().map(|(name, row)| (name, row.1)).collect()
        }
    };
    chosen.sort();
    let mut best = Lsn::ZERO;
    for &(_, candidate) in &chosen {
        if chosen.iter().filter(|(_, mark)| *mark >= candidate).count() >= policy.count() {
            best = best.max(candidate);
        }
    }
    best
}

#[test]
fn what_is_reached_is_what_counting_says() {
    let texts =
        ["ANY 1 (a, b, c)", "ANY 2 (a, b, c)", "ANY 3 (*)", "FIRST 1 (c, a)", "FIRST 2 (b, *)", "a, b"];
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let policy = policy(texts[rng.below(texts.len() as u64) as usize]);
        let mut table = Table::new(policy.clone());
        let mut rows: BTreeMap<String, (bool, Lsn)> = BTreeMap::new();
        let mut highest = Lsn::ZERO;
        for _ in 0..60 {
            let name = ["a", "b", "c", "d", "e"][rng.below(5) as usize].to_owned();
            match rng.below(8) {
                0 => {
                    table.leave(&name);
                    if let Some(row) = rows.get_mut(&name) {
                        *row = (false, row.1);
                    }
                }
                1 => {
                    table.forget(&name);
                    rows.remove(&name);
                }
                _ => {
                    let mark = Lsn(rng.below(100));
                    let marks = Reached { received: mark.plus(5), durable: mark, applied: Lsn(mark.0 / 2) };
                    table.update(&name, marks);
                    rows.insert(name, (true, mark));
                }
            }
            let found = policy.reached(Level::Durable, table.standings());
            assert_eq!(found, naive(&policy, &rows), "seed {seed}, {policy}, {rows:?}");
            highest = highest.max(found);
            assert_eq!(table.reached().durable, highest, "R7, seed {seed}");
            assert!(table.reached().applied <= table.reached().durable);
        }
    }
}
