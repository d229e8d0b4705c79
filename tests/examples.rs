//! Every program in `examples/` runs to its end, twice over the same directory, and says what it should.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each example, whether it is given a directory, and what it prints.
const EXAMPLES: &[(&str, bool, &str)] = &[
    ("quickstart", true, "before: Some(b\"100\")"),
    ("transact", true, "800 in all accounts"),
    ("counter", true, "400 views, 0 conflicts"),
    ("stream", true, "8388608 of 8388608 bytes read back"),
    ("log", true, "400 jobs read"),
    ("follow", true, "all of it was seen, in order: true"),
    ("transfer_between_two_stores", true, "16000 in both stores together"),
    ("own_coordinator", true, "the stores agree: true"),
    ("replicas", true, "501 rows at a, 501 at b, 501 at c"),
    ("read_your_writes", true, "100 of 100 reads found what was written before"),
    ("crash_test", false, "none lost"),
];

/// Where Cargo puts examples: beside the directory of the tests. A whole `cargo test` builds them, a single test does not.
fn built(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    let changed = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    if changed(&program) < changed(&root.join(format!("examples/{name}.rs"))) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--profile", "test", "--examples", "--manifest-path"])
            .arg(root.join("Cargo.toml"));
        assert!(cargo.status().unwrap().success());
    }
    program
}

#[test]
fn every_example_is_tried_and_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = std::fs::read_dir(root.join("examples")).unwrap();
    let names = names.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let tried = EXAMPLES.iter().map(|(name, ..)| (*name).to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), tried.collect());
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    for (name, ..) in EXAMPLES {
        assert!(readme.contains(&format!("(examples/{name}.rs)")), "README.md does not list {name}");
    }
}

#[test]
fn every_example_runs_and_runs_again() {
    for (name, has_dir, says) in EXAMPLES {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("example-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        for round in 0..2 {
            let mut command = Command::new(built(name));
            if *has_dir {
                command.arg(&dir);
            }
            let output = command.env("SEAWALL_PROBE", "0").output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{name}, round {round}: {output:?}");
            // The second time there are rows already.
            let is_known = round == 0 || !matches!(*name, "quickstart");
            assert!(!is_known || printed.contains(says), "{name}, round {round}: {printed}");
        }
        let _ = std::fs::remove_dir_all(&dir);
    }
}
