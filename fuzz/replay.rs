//! Replays a target's committed corpus on a stable compiler, and goes a little further: every entry is mutated, by
//! chance that is the same each time. Part of the tests `corpus` of each crate.
//!
//! `cargo test -p CRATE --test corpus -- --ignored` writes the hand-made part of the corpus anew.

use seawall_wal::fuzzing::mutate;
use seawall_wal::runtime::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The longest input that mutation makes.
const INPUT_BYTES_MAX: usize = 16 << 10;

fn dir(target: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let inside = here.join("fuzz/corpus");
    let corpus = if inside.is_dir() { inside } else { here.join("../fuzz/corpus") };
    corpus.join(target)
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = dir(target);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found.push((name, std::fs::read(&path).unwrap()));
    }
    found.sort();
    assert!(!found.is_empty(), "{} is empty", dir.display());
    found
}

/// Runs `body` on every entry, and on `rounds` mutations of them.
pub fn replay(target: &str, rounds: u32, body: fn(&[u8])) {
    let corpus = corpus(target);
    for (name, input) in &corpus {
        run(&format!("{target}/{name}"), input, body);
    }
    let mut rng = Rng::new(0x5ea_3a11);
    let count = corpus.len() as u64;
    for round in 0..rounds {
        let (name, base) = &corpus[rng.below(count) as usize];
        let (_, other) = &corpus[rng.below(count) as usize];
        let input = mutate(&mut rng, base, other, INPUT_BYTES_MAX);
        run(&format!("{target}/{name}, mutation {round}"), &input, body);
    }
}

fn run(name: &str, input: &[u8], body: fn(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
        let what =
            panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let path = std::env::temp_dir().join(format!("seawall-fuzz-{}", std::process::id()));
        let kept = std::fs::write(&path, input).map_or(String::new(), |()| path.display().to_string());
        panic!("{name}: {}; the input is in {kept}", what.unwrap_or("a panic"));
    }
}

/// Replaces the hand-made entries of a target's corpus; those that a fuzzer found stay.
pub fn write(target: &str, entries: &[(&str, Vec<u8>)]) {
    let dir = dir(target);
    std::fs::create_dir_all(&dir).unwrap();
    for (name, input) in entries {
        std::fs::write(dir.join(name), input).unwrap();
    }
}
