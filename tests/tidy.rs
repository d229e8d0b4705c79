//! The repository's own rules, as tests: which crate may import which, which module may touch the world, and that
//! nothing is left lying about.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the repository's files"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A file longer than this holds a second idea.
const LINES_MAX: usize = 700;

/// The crates' sources.
const SOURCES: [&str; 5] = ["wal/src", "engine/src", "txn/src", "replication/src", "src"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of the repository with this extension, relative to its root; build output and hidden directories aside.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let skipped = name.starts_with('.') || ["target", "corpus", "artifacts"].contains(&name.as_str());
            if path.is_dir() && !skipped {
                dirs.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// The names in a manifest's dependency tables, those for tests and builds aside.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in read(manifest).lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside =
                table == "dependencies" || table.starts_with("target.") && table.ends_with(".dependencies");
        } else if inside
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once('=')
        {
            names.insert(name.trim().trim_end_matches(".workspace").to_owned());
        }
    }
    names
}

#[test]
fn nothing_below_knows_what_is_above_it() {
    let ours = |manifest: &str| -> Vec<String> {
        dependencies(manifest).into_iter().filter(|name| name.starts_with("seawall")).collect()
    };
    assert_eq!(ours("wal/Cargo.toml"), [""; 0]);
    assert_eq!(ours("engine/Cargo.toml"), ["seawall-wal"]);
    let txn = ours("txn/Cargo.toml");
    assert!(txn.iter().all(|name| ["seawall-engine", "seawall-wal"].contains(&&name[..])), "{txn:?}");
    assert_eq!(ours("replication/Cargo.toml"), ["seawall-engine", "seawall-wal"]);
    assert_eq!(ours("Cargo.toml"), ["seawall-engine", "seawall-replication", "seawall-txn", "seawall-wal"]);
}

/// Atomic commit and log shipping meet in the command alone: neither names the other, in a dependency of any kind or in its code.
#[test]
fn the_protocols_do_not_know_each_other() {
    let mut found = Vec::new();
    for (of, other) in [("txn", "replication"), ("replication", "txn")] {
        let (dashed, joined) = (format!("seawall-{other}"), format!("seawall_{other}"));
        let manifest = PathBuf::from(of).join("Cargo.toml");
        let sources = files("rs").into_iter().filter(|path| path.starts_with(of));
        let naming = sources.chain([manifest]).filter(|path| {
            let text = read(path);
            text.contains(&dashed) || text.contains(&joined)
        });
        found.extend(naming.map(|path| path.display().to_string()));
    }
    assert_none("txn and replication know each other", &found);
}

#[test]
fn the_log_the_engine_and_the_protocols_have_no_async_runtime() {
    let runtimes =
        ["tokio", "async-std", "smol", "async-executor", "futures-executor", "mio", "glommio", "monoio"];
    assert!(dependencies("wal/Cargo.toml").contains("crc32fast"), "manifests are read");
    for manifest in ["wal/Cargo.toml", "engine/Cargo.toml"] {
        let names = dependencies(manifest);
        assert!(!runtimes.iter().any(|name| names.contains(*name)), "{manifest}: {names:?}");
    }
    // The protocols' network has one, and is only built when it is asked for.
    for name in ["txn", "replication"] {
        let text = read(format!("{name}/Cargo.toml"));
        let lines =
            text.lines().filter(|line| runtimes.iter().any(|name| line.starts_with(&format!("{name} "))));
        assert!(
            lines.clone().count() > 0 && lines.clone().all(|line| line.contains("optional = true")),
            "{name}"
        );
        let net = Path::new(name).join("src/net");
        let inside = |path: &PathBuf| path.starts_with(format!("{name}/src")) && !path.starts_with(&net);
        let outside_net =
            files("rs").into_iter().filter(|path| inside(path) && *path != net.with_extension("rs"));
        let uses =
            outside_net.filter(|path| runtimes.iter().any(|name| read(path).contains(&format!("{name}::"))));
        assert_none(
            "an async runtime outside of a crate's net",
            &uses.map(|path| path.display().to_string()).collect::<Vec<_>>(),
        );
    }
}

/// Bytes and ticks in, values out: these decide and decode, and touch nothing.
const PURE: [&str; 44] = [
    "wal/src/lsn.rs",
    "wal/src/bytes.rs",
    "wal/src/record.rs",
    "wal/src/frame.rs",
    "wal/src/segment.rs",
    "wal/src/anchor.rs",
    "wal/src/recovery.rs",
    "engine/src/key.rs",
    "engine/src/record.rs",
    "txn/src/id.rs",
    "txn/src/xid.rs",
    "txn/src/postgres/gid.rs",
    "txn/src/bytes.rs",
    "txn/src/message.rs",
    "txn/src/record.rs",
    "txn/src/site.rs",
    "txn/src/proto.rs",
    "txn/src/proto/participant.rs",
    "txn/src/proto/two_phase.rs",
    "txn/src/proto/cooperative.rs",
    "txn/src/proto/three_phase.rs",
    "txn/src/proto/three_phase/termination.rs",
    "txn/src/proto/paxos_commit.rs",
    "txn/src/proto/paxos_commit/leader.rs",
    "txn/src/proto/paxos_commit/acceptor.rs",
    "replication/src/bytes.rs",
    "replication/src/timeline.rs",
    "replication/src/message.rs",
    "replication/src/ack.rs",
    "replication/src/ack/parse.rs",
    "replication/src/invariants.rs",
    "replication/src/phi.rs",
    "replication/src/decide.rs",
    "replication/src/balance.rs",
    "replication/src/balance/health.rs",
    "replication/src/ship.rs",
    "replication/src/ship/primary.rs",
    "replication/src/ship/replica.rs",
    "replication/src/ship/replica/delay.rs",
    "replication/src/ship/replica/order.rs",
    "replication/src/ship/replica/said.rs",
    "replication/src/ship/replica/way.rs",
    "replication/src/mutation.rs",
    "replication/src/node/link/moments.rs",
];

#[test]
fn pure_modules_import_no_seam() {
    let seams =
        ["dyn Disk", "DiskFile", "OsDisk", "Runtime", "std::fs", "std::thread", "std::time", "rustix"];
    let mut found = Vec::new();
    for path in PURE {
        let text = read(path);
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let line = line.trim();
            if !line.starts_with("//") && seams.iter().any(|seam| line.contains(seam)) {
                found.push(format!("{path}:{}: {line}", number + 1));
            }
        }
    }
    assert_none("pure modules that touch the world", &found);
}

#[test]
fn nothing_is_left_to_be_done_later() {
    // Written in pieces, or this file would find itself.
    let marks =
        [["FIX", "ME"], ["XX", "X"], ["TO", "DO"], ["todo", "!"], ["unimplemented", "!"], ["dbg", "!("]];
    let mut found = Vec::new();
    for path in files("rs") {
        for (number, line) in read(&path).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(&mark.concat())) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("left for later", &found);
}

/// Each module that may be unsafe is named, with its reasons, where a reader looks for them.
#[test]
fn unsafe_code_is_where_the_architecture_says() {
    let listed = read("docs/ARCHITECTURE.md");
    let is_ours = |path: &PathBuf| SOURCES.iter().any(|dir| path.starts_with(dir));
    let unlisted: Vec<String> = files("rs")
        .into_iter()
        .filter(|path| is_ours(path) && read(path).contains("(unsafe_code"))
        .map(|path| path.display().to_string())
        .filter(|path| !listed.contains(&format!("| `{path}` |")))
        .collect();
    assert_none("unsafe, and not in docs/ARCHITECTURE.md", &unlisted);
}

#[test]
fn files_hold_one_idea() {
    let long = files("rs").into_iter().map(|path| (read(&path).lines().count(), path));
    let long: Vec<String> = long
        .filter(|(lines, path)| *lines > LINES_MAX && !path.iter().any(|dir| dir == "generated"))
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert_none("longer than 700 lines", &long);
}

#[test]
fn every_source_file_is_part_of_its_crate() {
    let roots = SOURCES.map(|dir| format!("{dir}/lib.rs"));
    let mut reached = BTreeSet::new();
    let mut open: Vec<PathBuf> = roots.iter().map(PathBuf::from).collect();
    open.push(PathBuf::from("src/main.rs"));
    while let Some(path) = open.pop() {
        open.extend(modules(&path));
        reached.insert(path);
    }
    let inside = |path: &PathBuf| SOURCES.iter().any(|dir| path.starts_with(dir));
    let dead: Vec<String> = files("rs")
        .into_iter()
        .filter(|path| inside(path) && !reached.contains(path))
        .map(|path| path.display().to_string())
        .collect();
    assert_none("no `mod` names these files", &dead);
}

/// The files of the modules that a file declares.
fn modules(path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let is_root = ["lib", "main", "mod"].contains(&stem);
    let dir = if is_root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let text = read(path);
    let mut named: Option<&str> = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
            named = Some(name);
            continue;
        }
        let declaration = line.strip_suffix(';').and_then(|line| line.split_once("mod "));
        if let Some((before, name)) = declaration
            && (before.is_empty() || before.starts_with("pub"))
        {
            found.push(match named.take() {
                Some(file) => path.parent().unwrap().join(file),
                None if root().join(dir.join(name).with_extension("rs")).exists() => {
                    dir.join(name).with_extension("rs")
                }
                None => dir.join(name).join("mod.rs"),
            });
        }
    }
    found
}

/// A heading's anchor, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether a document has a section.
fn has_section(path: &Path, section: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(root().join(path)) else { return false };
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).any(|found| found == section)
}

#[test]
fn cited_sections_exist() {
    let mut missing = Vec::new();
    for path in files("rs") {
        for (number, line) in read(&path).lines().enumerate() {
            let citation = line.trim().trim_start_matches("//!").trim_start_matches("///").trim();
            let Some(target) = citation.strip_prefix("//= ") else { continue };
            let (document, section) = target.split_once('#').unwrap_or((target, ""));
            if !has_section(Path::new(document), section) {
                missing.push(format!("{}:{}: {target}", path.display(), number + 1));
            }
        }
    }
    assert_none("citations of sections that are not there", &missing);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for path in files("md") {
        let text = read(&path);
        // Code is no link.
        let prose: String = text.split("```").step_by(2).collect();
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let document = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let found = root().join(&document).exists();
            if !found || !section.is_empty() && !has_section(&document, section) {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert_none("broken links", &broken);
}

#[test]
fn the_readme_shows_the_example_that_is_built() {
    let readme = read("README.md");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(shown.expect("README.md has an example").trim(), read("examples/quickstart.rs").trim());
}
