//! `seawall top`: beside a writer, and on a store that nobody has open.

use super::{fail, fresh, json, run, succeed};
use seawall::Db;
use std::process::Stdio;

#[test]
fn a_writer_in_another_process_is_seen() {
    let dir = fresh("top-live");
    let db = Db::open(dir.join("db")).unwrap();
    let rows = db.keyspace("rows").unwrap();
    for n in 0..10 {
        rows.insert(format!("k{n}"), "v").unwrap();
    }
    db.checkpoint().unwrap();
    let args = ["top", "db", "--interval", "1s", "-n", "3", "-o", "jsonl"];
    let mut command = super::command(&dir, &args);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut written = 0_u64;
    while child.try_wait().unwrap().is_none() {
        written += 1;
        rows.insert(format!("w{written}"), "v").unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(json).collect();
    assert_eq!(lines.len(), 3);
    let sum = |name: &str| lines.iter().map(|line| line[name].as_u64().unwrap()).sum::<u64>();
    // A second each, so a rate is about a count; what was written before and after the three lines is not theirs.
    assert!(sum("commits_per_s") > 0 && sum("commits_per_s") <= written, "{text}");
    assert!(sum("bytes_per_s") > sum("commits_per_s"), "{text}");
    let last = &lines[2];
    assert_eq!(last["pid"].as_u64(), Some(u64::from(std::process::id())), "{text}");
    assert!(last["rows"].as_u64() >= Some(10), "{text}");
    assert!(last["durable_lsn"].as_u64() > lines[0]["durable_lsn"].as_u64(), "{text}");
    assert!(last["log_to_replay"].as_u64() > Some(0), "{text}");
    assert!(last["disk_bytes"].as_u64() > Some(0) && last["log_bytes"].as_u64() > Some(0), "{text}");
    drop((rows, db));
}

#[test]
fn a_store_at_rest_is_shown_and_what_is_no_store_is_said() {
    let dir = fresh("top-rest");
    succeed(&dir, &["init", "db"]);
    succeed(&dir, &["put", "db", "k", "v"]);
    let shown = succeed(&dir, &["top", "db", "--interval", "10ms", "-n", "22"]);
    // The heading comes again after 20 lines.
    assert_eq!(shown.lines().filter(|line| line.starts_with("PID")).count(), 2, "{shown}");
    assert_eq!(shown.lines().count(), 24, "{shown}");
    let line = &json(&succeed(&dir, &["top", "db", "--interval", "10ms", "-n", "1", "-o", "json"]))[0];
    assert_eq!((line["pid"].is_null(), line["commits_per_s"].as_u64()), (true, Some(0)), "{line}");
    fail(&dir, &["top", "missing"], 3);
    assert_eq!(run(&dir, &["top", "db", "--interval", "1ms"]).status.code(), Some(2));
}
