//! `seawall slot`.

use super::{fail, fresh, json, run, succeed};

#[test]
fn slots_are_created_listed_and_dropped() {
    let dir = fresh("slot");
    fail(&dir, &["slot", "list", "db"], 3);
    succeed(&dir, &["init", "db"]);
    let none = run(&dir, &["slot", "list", "db", "-o", "json"]);
    assert_eq!(String::from_utf8(none.stdout).unwrap(), "[]\n");
    assert!(String::from_utf8(none.stderr).unwrap().contains("no slots"));
    succeed(&dir, &["slot", "create", "db", "replica-1", "--bytes-max", "20G", "--age-max", "24h"]);
    succeed(&dir, &["slot", "create", "db", "archive"]);
    fail(&dir, &["slot", "create", "db", "archive"], 2);
    fail(&dir, &["slot", "create", "db", "No Name"], 2);
    fail(&dir, &["slot", "create", "db", "b", "--age-max", "soon"], 2);
    succeed(&dir, &["put", "db", "k", "v"]);

    let listed = json(&succeed(&dir, &["slot", "list", "db", "-o", "json"]));
    let slots = listed.as_array().unwrap();
    assert_eq!((&slots[0]["name"], &slots[1]["name"]), (&"archive".into(), &"replica-1".into()));
    assert_eq!(slots[1]["bytes_max"], 20_u64 << 30);
    assert_eq!((&slots[1]["age_max_s"], &slots[0]["age_max_s"]), (&86_400.into(), &().into()));
    assert!(slots[0]["retained_bytes"].as_u64().unwrap() > 0 && slots[0]["state"] == "reserved");
    let lines = succeed(&dir, &["slot", "list", "db", "-o", "jsonl"]);
    assert_eq!(lines.lines().count(), 2);
    assert!(succeed(&dir, &["slot", "list", "db"]).starts_with("NAME"));

    // Whoever asks who keeps the log is told.
    let held = json(&succeed(&dir, &["log", "stats", "db", "-o", "json"]));
    let held = held["held_by"].as_array().unwrap();
    assert!(held.iter().any(|one| one.as_str().unwrap().starts_with("slot replica-1 from LSN")), "{held:?}");
    assert!(succeed(&dir, &["status", "db"]).contains("slot archive from LSN"));

    succeed(&dir, &["slot", "drop", "db", "archive"]);
    fail(&dir, &["slot", "drop", "db", "archive"], 3);
    assert_eq!(json(&succeed(&dir, &["slot", "list", "db", "-o", "json"])).as_array().unwrap().len(), 1);
    // What is left of the file is no file of slots.
    std::fs::write(dir.join("db/slots"), "nothing of the kind").unwrap();
    fail(&dir, &["slot", "list", "db"], 5);
    fail(&dir, &["get", "db", "k"], 5);
}
