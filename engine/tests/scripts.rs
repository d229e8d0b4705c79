//! The anomalies of the literature, played as scripts: a few sessions take turns, and what each of them sees is written
//! down, at both levels of isolation. One file each under `tests/scripts/`, named after the phenomenon.
//!
//! A script is a line for each step, then what came of it:
//!
//! ```text
//! # what this is about
//! rows x=1 y=1                  what is there at the beginning
//! lost snapshot 0               so many transactions may not commit at this level: holds whatever is blessed
//! lost serializable 1
//! a begin                       session a; `begin read-only` for one that only reads
//! a get x                       also: put x 1 · del x · cas x 1 2 · untracked x · lock x
//! a scan b..d                   all rows of a range, `b..=d`, `..`; rscan backwards; `take 2 b..d` only the first two rows
//! a commit                      also: rollback
//! db put x 1                    without a transaction; also del, checkpoint, scan
//! --- snapshot                  what came of it, step by step
//! --- serializable
//! ```
//!
//! `SEAWALL_BLESS=1 cargo test -p seawall-engine --test scripts` writes the second half anew: read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

use seawall_engine::{Db, Error, Isolation, Keyspace, Readable, Result, Transaction, TxOptions, WriteBatch};
use seawall_wal::SimDisk;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LEVELS: [(&str, Isolation); 2] =
    [("snapshot", Isolation::Snapshot), ("serializable", Isolation::Serializable)];

struct Play {
    db: Db,
    rows: Keyspace,
    isolation: Isolation,
    sessions: BTreeMap<String, Transaction>,
    lost: usize,
}

impl Play {
    fn new(isolation: Isolation) -> Play {
        let disk = SimDisk::new(1);
        let db = Db::builder("/store").disk(disk).segment_bytes(1 << 20).background(false).open().unwrap();
        let rows = db.keyspace("rows").unwrap();
        Play { db, rows, isolation, sessions: BTreeMap::new(), lost: 0 }
    }

    fn set_up(&self, rows: &str) {
        let mut batch = WriteBatch::new();
        for row in rows.split_whitespace() {
            let (key, value) = row.split_once('=').expect("rows are key=value");
            batch.insert(&self.rows, key, value);
        }
        self.db.write(batch).unwrap();
    }

    /// What comes of a step, in words.
    fn step(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (session, verb) = (words[0], words[1]);
        let arg = |i: usize| *words.get(2 + i).unwrap_or_else(|| panic!("\"{line}\" lacks an argument"));
        if session == "db" {
            return told(match verb {
                "put" => self.rows.insert(arg(0), arg(1)).map(|_| "done".to_owned()),
                "del" => self.rows.remove(arg(0)).map(|_| "done".to_owned()),
                "checkpoint" => self.db.checkpoint().map(|_| "done".to_owned()),
                "scan" => show(self.rows.range(..)),
                _ => panic!("what is \"{line}\"?"),
            });
        }
        if verb == "begin" {
            let options = TxOptions {
                isolation: Some(self.isolation),
                read_only: words.contains(&"read-only"),
                lock_timeout: Some(Duration::ZERO),
                ..Default::default()
            };
            self.sessions.insert(session.to_owned(), self.db.begin_with(options));
            return "begun".to_owned();
        }
        if verb == "commit" || verb == "rollback" {
            let tx = self.sessions.remove(session).expect("a session that has begun");
            if verb == "rollback" {
                tx.rollback();
                return "rolled back".to_owned();
            }
            let outcome = tx.commit();
            self.lost += usize::from(outcome.is_err());
            return told(outcome.map(|_| "committed".to_owned()));
        }
        let ks = &self.rows;
        let tx = self.sessions.get_mut(session).expect("a session that has begun");
        told(match verb {
            "get" => tx.get(ks, arg(0)).map(value),
            "untracked" => tx.get_untracked(ks, arg(0)).map(value),
            "lock" => tx.get_for_update(ks, arg(0)).map(value),
            "put" => tx.insert(ks, arg(0), arg(1)).map(|()| "done".to_owned()),
            "del" => tx.remove(ks, arg(0)).map(|()| "done".to_owned()),
            "cas" => tx
                .compare_and_set(ks, arg(0), Some(arg(1).as_bytes()), Some(arg(2).as_bytes()))
                .map(|is_set| if is_set { "set" } else { "another value" }.to_owned()),
            "scan" => show(tx.range(ks, range(arg(0)))),
            "rscan" => show(tx.range(ks, range(arg(0))).rev()),
            "take" => show(tx.range(ks, range(arg(1))).take(arg(0).parse().unwrap())),
            _ => panic!("what is \"{line}\"?"),
        })
    }
}

fn told(outcome: Result<String>) -> String {
    match outcome {
        Ok(what) => what,
        Err(Error::Conflict) => "CONFLICT".to_owned(),
        Err(Error::Deadlock) => "DEADLOCK".to_owned(),
        Err(Error::LockTimeout) => "LOCKED".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

fn value(value: Option<seawall_engine::Slice>) -> String {
    value.map_or("nothing".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
}

fn show(rows: impl Iterator<Item = Result<seawall_engine::Entry>>) -> Result<String> {
    let mut shown = String::new();
    for row in rows {
        let (key, value) = row?;
        write!(shown, "{}={} ", key.escape_ascii(), value.escape_ascii()).unwrap();
    }
    Ok(if shown.is_empty() { "nothing".to_owned() } else { shown.trim_end().to_owned() })
}

fn range(text: &str) -> (Bound<String>, Bound<String>) {
    let (from, to) = text.split_once("..").expect("a range");
    let bound = |key: &str, of: fn(String) -> Bound<String>| match key {
        "" => Bound::Unbounded,
        key => of(key.to_owned()),
    };
    match to.strip_prefix('=') {
        Some(to) => (bound(from, Bound::Included), bound(to, Bound::Included)),
        None => (bound(from, Bound::Included), bound(to, Bound::Excluded)),
    }
}

/// The script with what comes of it.
fn play(name: &str, script: &str) -> String {
    let mut out = script.trim_end().to_owned() + "\n";
    for (level, isolation) in LEVELS {
        let mut play = Play::new(isolation);
        let mut expected = None;
        writeln!(out, "--- {level}").unwrap();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(rows) = line.strip_prefix("rows ") {
                play.set_up(rows);
            } else if let Some(lost) = line.strip_prefix("lost ") {
                let (of, count) = lost.split_once(' ').expect("lost LEVEL COUNT");
                assert!(LEVELS.iter().any(|(known, _)| *known == of), "{name}: what level is {of}?");
                expected = if of == level { Some(count.parse::<usize>().unwrap()) } else { expected };
            } else {
                let outcome = play.step(line);
                writeln!(out, "{line:24} {outcome}").unwrap();
            }
        }
        assert_eq!(Some(play.lost), expected, "{name}, {level}: so many transactions did not commit\n{out}");
    }
    out
}

fn scripts() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_script_is_played_as_it_is_written() {
    let is_blessed = std::env::var_os("SEAWALL_BLESS").is_some();
    let paths = scripts();
    assert!(paths.len() >= 10, "the scripts are not where they belong");
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let script = text.split("\n--- ").next().unwrap();
        let played = play(&name, script);
        if is_blessed {
            std::fs::write(&path, played).unwrap();
        } else {
            assert!(played == text, "{name} is played otherwise than it is written:\n{played}");
        }
    }
}

/// What the literature calls an anomaly is there as a script, and prevented at the level that is the default.
#[test]
fn bug_44_no_anomaly_of_the_literature_under_serializable() {
    assert_eq!(Isolation::default(), Isolation::Serializable);
    let anomalies = [
        "dirty_write",
        "aborted_read",
        "intermediate_read",
        "circular_information_flow",
        "lost_update",
        "read_skew",
        "write_skew",
        "phantom",
        "read_only",
        "long_fork",
    ];
    for anomaly in anomalies {
        let name = format!("anomaly_{anomaly}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(&name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        play(&name, text.split("\n--- ").next().unwrap());
    }
}
