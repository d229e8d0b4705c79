//! `seawall doctor`: of a store that nobody has open. What it says of nodes that run is in `tests/seeing.rs`.

use super::{fail, fresh, json, run, succeed};
use seawall::{Db, Heuristic, SlotOptions, Xid};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// All that is found, and of which kind how many.
#[track_caller]
fn examined(dir: &Path, more: &[&str]) -> Value {
    json(&succeed(dir, &[&["doctor", "db", "-o", "json"], more].concat()))
}

#[track_caller]
fn about<'a>(found: &'a Value, what: &str) -> &'a Value {
    let findings = found["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["about"] == what).unwrap_or_else(|| panic!("{what}: {found}"))
}

#[track_caller]
fn says(finding: &Value, severity: &str, words: &[&str]) {
    assert_eq!(finding["severity"], severity, "{finding}");
    let said = finding["says"].as_str().unwrap();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn of_a_sound_store_it_says_how_it_is() {
    let dir = fresh("doctor-sound");
    fail(&dir, &["doctor", "db"], 3);
    succeed(&dir, &["init", "db"]);
    let db = Db::open(dir.join("db")).unwrap();
    db.keyspace("rows").unwrap().insert("k", "v").unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    let found = examined(&dir, &[]);
    assert_eq!([&found["damage"], &found["problems"]], [&Value::from(0), &Value::from(0)], "{found}");
    says(about(&found, "role"), "note", &["a primary", "epoch 0"]);
    says(about(&found, "checkpoint"), "note", &["ago, at 2", "everything below LSN"]);
    says(about(&found, "log"), "note", &["files", "begins at LSN"]);
    says(about(&found, "I/O"), "note", &["by "]);
    says(about(&found, "snapshots"), "note", &[]);
    says(about(&found, "prepared"), "note", &["no transaction"]);
    says(about(&found, "retained log"), "note", &["are kept"]);
    says(about(&found, "store"), "note", &["all are whole"]);
    let quick = examined(&dir, &["--quick"]);
    assert!(
        quick["findings"].as_array().unwrap().iter().all(|finding| finding["about"] != "store"),
        "{quick}"
    );
    let words = run(&dir, &["doctor", "db"]);
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(
        words.lines().all(|line| line.starts_with("note")
            || line.starts_with("warning  disk")
            || line.contains(" -> "))
    );
}

#[test]
fn slots_that_hold_the_log_that_near_their_limits_and_that_are_lost_are_told_apart() {
    let dir = fresh("doctor-slots");
    let db = Db::builder(dir.join("db")).segment_bytes(256 << 10).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    let slot = |name: &str, bytes_max: Option<u64>, age_max: Option<Duration>| {
        db.create_slot(name, SlotOptions { bytes_max, age_max }).unwrap();
    };
    slot("holds", None, None);
    slot("gone", Some(100_000), None);
    slot("limited", Some(4 << 20), None);
    for row in 0..30 {
        rows.insert(format!("row {row}"), vec![7; 100_000]).unwrap();
    }
    db.checkpoint().unwrap();
    slot("late", None, Some(Duration::from_secs(2)));
    drop(rows);
    db.close().unwrap();
    std::thread::sleep(Duration::from_millis(1700));

    let found = examined(&dir, &["--quick"]);
    assert_eq!(found["problems"], 1, "{found}");
    let lost = about(&found, "slot gone");
    says(lost, "problem", &["its log is gone", "new image"]);
    assert!(lost["helps"].as_str().unwrap().contains("seawall slot drop db gone"), "{lost}");
    says(about(&found, "slot limited"), "warning", &["near its limit of 4 MiB"]);
    says(about(&found, "slot late"), "warning", &["near its limit of 2 s"]);
    // Within what the store keeps anyway, and heard of: nothing to say against it, yet.
    says(about(&found, "slot holds"), "note", &["MiB of log"]);
    says(about(&found, "retained log"), "note", &["by slot", "from LSN"]);
    let found = examined(&dir, &["--quick", "--silence", "1s"]);
    let holds = about(&found, "slot holds");
    says(holds, "warning", &["nothing limits what it keeps"]);
    assert!(holds["helps"].as_str().unwrap().contains("seawall slot drop db holds"), "{holds}");
    assert_eq!(found["findings"][0]["about"], "slot gone", "the worst comes first");
    let words = String::from_utf8(run(&dir, &["doctor", "db", "--quick"]).stdout).unwrap();
    assert!(
        words.starts_with("problem  slot gone: ") && words.contains("\n         -> move the replica's"),
        "{words}"
    );
}

#[test]
fn prepared_transactions_are_old_after_a_while_and_those_ended_by_hand_are_named() {
    let dir = fresh("doctor-prepared");
    let db = Db::open(dir.join("db")).unwrap();
    let rows = db.keyspace("rows").unwrap();
    for number in [1, 2] {
        let mut tx = db.begin();
        tx.insert(&rows, format!("row {number}"), "v").unwrap();
        let xid = Xid::new(7, [number], b"branch").unwrap();
        drop(tx.prepare(xid).unwrap());
    }
    let second = db.prepared().nth(1).unwrap();
    second.complete(Heuristic::RolledBack).unwrap();
    drop((second, rows));
    db.close().unwrap();
    let found = examined(&dir, &[]);
    says(about(&found, "prepared"), "note", &["outcome: 1", "hold 1 keys"]);
    let by_hand = about(&found, "heuristics");
    says(by_hand, "warning", &["by hand", ": 1"]);
    assert!(by_hand["helps"].as_str().unwrap().contains("seawall txn forget db"), "{by_hand}");
    std::thread::sleep(Duration::from_millis(1100));
    let found = examined(&dir, &["--prepared-age", "1s"]);
    let old = about(&found, "prepared");
    says(old, "warning", &["the oldest is 7.01."]);
    assert!(old["helps"].as_str().unwrap().contains("seawall txn list db"), "{old}");
}

#[test]
fn damage_is_said_with_its_exit_code_and_an_open_store_by_its_files() {
    let dir = fresh("doctor-damage");
    let db = Db::open(dir.join("db")).unwrap();
    let rows = db.keyspace("rows").unwrap();
    for row in 0..2000 {
        rows.insert(format!("row {row:06}"), vec![row as u8; 200]).unwrap();
    }
    db.checkpoint().unwrap();
    drop(rows);
    let found = examined(&dir, &[]);
    let open = about(&found, "open");
    says(open, "note", &[&format!("process {}", std::process::id())]);
    says(about(&found, "checkpoint"), "note", &["everything below LSN"]);
    db.close().unwrap();
    // Everything but the superblocks.
    let path = dir.join("db/data");
    let mut bytes = std::fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[8192..length].iter_mut().step_by(512).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, bytes).unwrap();
    let output = run(&dir, &["doctor", "db", "-o", "json"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let found = json(&String::from_utf8(output.stdout).unwrap());
    assert!(found["damage"].as_u64() > Some(0) && found["findings"][0]["severity"] == "damage", "{found}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("a replica, or a backup"));
    std::fs::write(dir.join("db/log/anchor"), "nothing of the kind").unwrap();
    fail(&dir, &["doctor", "db"], 5);
}
