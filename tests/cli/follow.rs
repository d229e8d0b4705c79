//! `seawall log follow`: beside a writer, on an idle store, and how it ends.

use super::{fail, fresh, json, run, succeed};
use seawall::Db;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn spawn(dir: &Path, args: &[&str]) -> Child {
    let mut command = super::command(dir, args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end, not for ever.
fn ended(mut child: Child) -> Option<i32> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

/// A store that somebody has open and does nothing with: closing it would fold its log into the tree.
fn idle(dir: &Path) -> Db {
    let db = Db::open(dir.join("db")).unwrap();
    let users = db.keyspace("users").unwrap();
    for n in 0..5 {
        users.insert(format!("k{n}"), "v").unwrap();
    }
    // It seals its log meanwhile.
    std::thread::sleep(Duration::from_millis(200));
    db
}

#[test]
fn an_idle_store_is_printed_as_dump_prints_it() {
    let dir = fresh("follow-idle");
    let db = idle(&dir);
    let dumped = succeed(&dir, &["log", "dump", "db", "-o", "jsonl"]);
    let lsns: BTreeSet<u64> = dumped.lines().map(|line| json(line)["lsn"].as_u64().unwrap()).collect();
    let followed = succeed(&dir, &["log", "follow", "db", "-o", "jsonl", "-n", &lsns.len().to_string()]);
    assert_eq!(followed, dumped);
    let last = json(dumped.lines().last().unwrap())["lsn"].to_string();
    let from = succeed(&dir, &["log", "follow", "db", "-o", "json", "-n", "1", "--start", &last]);
    assert_eq!(json(&from)[0]["key"], "k4");
    let third = lsns.iter().nth(2).unwrap().to_string();
    for args in [&["log", "dump"][..], &["log", "follow", "-n", "1"]] {
        let one = succeed(&dir, &[args, &["db", "-o", "json", "--tx", &third]].concat());
        let rows = json(&one);
        let found: Vec<String> = rows.as_array().unwrap().iter().map(|row| row["lsn"].to_string()).collect();
        assert_eq!(found, [third.as_str()], "{args:?}");
    }
    let verified = json(&succeed(&dir, &["log", "verify", "db", "-o", "json"]));
    assert_eq!(verified["records"], lsns.len());
    assert!(verified["bytes"].as_u64().unwrap() > verified["payload_bytes"].as_u64().unwrap());
    fail(&dir, &["log", "follow", "missing"], 3);
    assert_eq!(run(&dir, &["log", "follow", "db", "--start", "soon"]).status.code(), Some(2));
    drop(db);
}

#[test]
fn a_live_writer_is_followed_and_an_interrupt_ends_it() {
    let dir = fresh("follow-live");
    let db = Db::open(dir.join("db")).unwrap();
    let users = db.keyspace("users").unwrap();
    users.insert("before", "1").unwrap();
    let mut child = spawn(&dir, &["log", "follow", "db", "-o", "jsonl", "-k", "users"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first is the keyspace's creation.
    assert_eq!(json(&lines.next().unwrap().unwrap())["op"], "create");
    assert_eq!(json(&lines.next().unwrap().unwrap())["key"], "before");
    for n in 0..20 {
        users.insert(format!("key-{n}"), "v").unwrap();
        assert_eq!(json(&lines.next().unwrap().unwrap())["key"], format!("key-{n}"));
    }
    signal(&child, "-INT");
    assert!(lines.next().is_none());
    assert_eq!(ended(child), Some(130));
    drop(db);
}

#[test]
fn a_closed_pipe_ends_it_even_when_nothing_happens() {
    let dir = fresh("follow-pipe");
    let db = idle(&dir);
    let mut child = spawn(&dir, &["log", "follow", "db", "-o", "jsonl"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    drop(lines);
    assert_eq!(ended(child), Some(0));
    drop(db);
}
