//! The table at the end of `docs/failure-model.md` is true: every class of bug has its row, every test that it names
//! exists in the file that it names, and every class has one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the repository's files"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Classes in all.
const CLASSES: u32 = 44;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Class, test and file of each row.
fn rows() -> Vec<(u32, String, String)> {
    let text = read("docs/failure-model.md");
    let (_, table) = text.split_once("| class | what it was | test | file |").expect("the table is there");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells: Vec<&str> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [class, _, test, file] = cells[..] else { panic!("not a row of four: {line}") };
        (class.parse().unwrap(), test.to_owned(), file.to_owned())
    })
    .collect()
}

#[test]
fn every_class_has_its_row_and_its_test() {
    let mut tests: BTreeMap<u32, usize> = BTreeMap::new();
    for (class, test, _) in rows() {
        *tests.entry(class).or_default() += usize::from(test != "—");
    }
    assert_eq!(tests.keys().copied().collect::<Vec<_>>(), (1..=CLASSES).collect::<Vec<_>>());
    let missing: Vec<u32> = tests.iter().filter(|(_, n)| **n == 0).map(|(class, _)| *class).collect();
    assert!(missing.is_empty(), "classes without a test: {missing:?}");
}

#[test]
fn every_test_named_is_where_it_is_said_to_be() {
    let mut seen = BTreeSet::new();
    for (class, test, file) in rows().into_iter().filter(|(_, test, _)| test != "—") {
        assert!(test.starts_with(&format!("bug_{class:02}_")), "{test} is named for class {class}");
        let source = read(&file);
        let place = source.find(&format!("fn {test}()")).unwrap_or_else(|| panic!("{file} has no {test}"));
        let above = source[..place].rsplit("\n}\n").next().unwrap();
        assert!(above.contains("#[test]"), "{file}: {test} is no test");
        assert!(!above.contains("#[ignore"), "{file}: {test} is switched off");
        assert!(seen.insert((test.clone(), file)), "{test} is listed twice");
    }
}
