//! The command as a user meets it: the built binary, its output, its exit codes.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads what the command wrote"
)]

#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/follow.rs"]
mod follow;
#[path = "cli/fsync_test.rs"]
mod fsync_test;
#[path = "cli/help.rs"]
mod help;
#[cfg(feature = "serve")]
#[path = "cli/replica.rs"]
mod replica;
#[path = "cli/slot.rs"]
mod slot;
#[path = "cli/top.rs"]
mod top;
#[path = "cli/txn.rs"]
mod txn;

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory of its own for each test, empty at the start.
fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.env("SEAWALL_PROBE", "0");
    command.current_dir(dir).args(args).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn run_with_input(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut command = command(dir, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The command may stop reading at a bad line.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn succeed(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fail(dir: &Path, args: &[&str], code: i32) -> String {
    let output = run(dir, args);
    let words = String::from_utf8(output.stderr).unwrap();
    let shown: String = format!("{args:?}: {words}").chars().take(500).collect();
    assert_eq!(output.status.code(), Some(code), "{shown}");
    assert!(words.starts_with("error: "), "{shown}");
    words
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every byte, in the escaped form.
fn odd() -> String {
    (0..=255u8).map(|byte| format!("\\x{byte:02x}")).collect()
}

#[test]
fn put_get_del_scan_keep_every_byte() {
    let dir = fresh("bytes");
    let created = json(&succeed(&dir, &["init", "db", "-o", "json"]));
    assert_eq!(created["created"], true);
    succeed(&dir, &["put", "db", &odd(), &odd()]);
    succeed(&dir, &["put", "db", "naïve", "-1"]);
    succeed(&dir, &["put", "db", "", ""]);

    let raw = run(&dir, &["get", "db", &odd(), "--raw"]).stdout;
    assert_eq!(raw, (0..=255).collect::<Vec<u8>>());
    assert_eq!(succeed(&dir, &["get", "db", "naïve"]), "-1\n");
    assert_eq!(succeed(&dir, &["get", "db", ""]), "\n");
    let hex: String = (0..=255u8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(succeed(&dir, &["get", "db", &hex, "--hex"]), format!("{hex}\n"));

    // What is printed can be typed.
    for key in succeed(&dir, &["scan", "db", "--keys-only"]).lines() {
        succeed(&dir, &["get", "db", key]);
    }
    let rows = json(&succeed(&dir, &["scan", "db", "-o", "json"]));
    assert_eq!(rows.as_array().unwrap().len(), 3);

    succeed(&dir, &["del", "db", &odd()]);
    fail(&dir, &["get", "db", &odd()], 3);
    fail(&dir, &["del", "db", &odd()], 3);
}

#[test]
fn a_value_comes_from_standard_input_as_it_is() {
    let dir = fresh("stdin");
    succeed(&dir, &["init", "db"]);
    let value: Vec<u8> = (0..100_000u32).map(|number| (number % 251) as u8).collect();
    assert!(run_with_input(&dir, &["put", "db", "k", "-"], &value).status.success());
    assert_eq!(run(&dir, &["get", "db", "k", "--raw"]).stdout, value);
}

#[test]
fn scan_takes_ranges_prefixes_limits_and_goes_both_ways() {
    let dir = fresh("scan");
    succeed(&dir, &["init", "db"]);
    for key in ["a", "b1", "b2", "b\\xff", "c"] {
        succeed(&dir, &["put", "db", key, "v", "-k", "letters"]);
    }
    let keys = |args: &[&str]| {
        let args = [&["scan", "db", "-k", "letters", "--keys-only"], args].concat();
        succeed(&dir, &args).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys(&[]), ["a", "b1", "b2", "b\\xff", "c"]);
    assert_eq!(keys(&["--prefix", "b"]), ["b1", "b2", "b\\xff"]);
    assert_eq!(keys(&["--prefix", "b", "--from", "b2", "--to", "c"]), ["b2", "b\\xff"]);
    assert_eq!(keys(&["--from", "b", "--to", "b2"]), ["b1"]);
    assert_eq!(keys(&["--from", "c", "--to", "a"]), [""; 0]);
    assert_eq!(keys(&["--reverse", "--limit", "2"]), ["c", "b\\xff"]);
    assert_eq!(keys(&["--limit", "0"]), [""; 0]);
    assert_eq!(succeed(&dir, &["scan", "db", "-k", "letters", "--limit", "1"]), "a\tv\n");
    assert_eq!(
        json(&succeed(&dir, &["scan", "db", "-k", "letters", "--limit", "0", "-o", "json"])),
        json("[]")
    );
    for line in succeed(&dir, &["scan", "db", "-k", "letters", "-o", "jsonl"]).lines() {
        assert_eq!(json(line)["value"], "v");
    }
    let words = fail(&dir, &["scan", "db", "-k", "digits"], 3);
    assert!(words.contains("letters"), "{words}");
}

#[test]
fn newcomers_mistakes_are_named_and_nothing_is_created() {
    let dir = fresh("mistakes");
    std::fs::create_dir(dir.join("empty")).unwrap();
    std::fs::write(dir.join("file"), "text").unwrap();
    for args in [
        &["get", "missing", "k"][..],
        &["put", "missing", "k", "v"],
        &["del", "missing", "k"],
        &["scan", "missing"],
        &["dump", "missing"],
        &["load", "missing", "rows.jsonl"],
        &["verify", "missing"],
        &["status", "missing"],
        &["log", "stats", "missing"],
        &["get", "empty", "k"],
        &["get", "file", "k"],
    ] {
        let words = fail(&dir, args, 3);
        assert!(words.contains("hint: `seawall init"), "{args:?}: {words}");
    }
    let mut left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["empty", "file"]);
    assert_eq!(std::fs::read_dir(dir.join("empty")).unwrap().count(), 0);

    fail(&dir, &["init", "file"], 2);
    succeed(&dir, &["init", "db"]);
    assert_eq!(json(&succeed(&dir, &["init", "db", "-o", "json"]))["created"], false);
    fail(&dir, &["put", "db", "\\q", "v"], 2);
    fail(&dir, &["put", "db", "abc", "v", "--hex"], 2);
    fail(&dir, &["put", "db", &"k".repeat(70_000), "v"], 2);
    fail(&dir, &["load", "db", "file"], 2);
    fail(&dir, &["load", "db", "missing.csv"], 3);
    fail(&dir, &["load", "db", "missing-and-of-no-format"], 3);
    let words = fail(&dir, &["get", "db/log", "k"], 3);
    assert!(words.contains("is a log"), "{words}");
    assert_eq!(run(&dir, &["get", "db"]).status.code(), Some(2));
    assert_eq!(run(&dir, &["frobnicate"]).status.code(), Some(2));
    fail(&dir, &["demo", "."], 2);
    fail(&dir, &["demo", "new", "--kills", "9", "--seconds", "1"], 2);
    fail(&dir, &["demo", "new", "--input", "missing"], 3);
    assert!(!dir.join("new").exists());
}

#[test]
fn a_new_store_is_empty_and_no_mistake() {
    let dir = fresh("new");
    succeed(&dir, &["init", "db"]);
    assert_eq!(succeed(&dir, &["scan", "db"]), "");
    assert_eq!(json(&succeed(&dir, &["scan", "db", "-o", "json"])), json("[]"));
    assert_eq!(succeed(&dir, &["dump", "db"]), "");
    let dump = run(&dir, &["log", "dump", "db"]);
    assert!(dump.status.success() && dump.stdout.is_empty());
    assert!(String::from_utf8_lossy(&dump.stderr).contains("no records"), "{dump:?}");
    // A name that was asked for is missed, and so is the default one where there are others.
    fail(&dir, &["scan", "db", "-k", "users"], 3);
    succeed(&dir, &["init", "db", "-k", "users"]);
    assert!(fail(&dir, &["scan", "db"], 3).contains("users"));
}

#[test]
fn a_store_without_its_data_file_is_damaged_and_not_made_again() {
    let dir = fresh("no-data");
    succeed(&dir, &["init", "db"]);
    succeed(&dir, &["put", "db", "k", "v"]);
    // Opened and closed without a commit: what was committed is in the data file, and nothing of it in the log.
    succeed(&dir, &["del", "db", "k"]);
    std::fs::write(dir.join("none.jsonl"), "").unwrap();
    succeed(&dir, &["load", "db", "none.jsonl"]);
    std::fs::remove_file(dir.join("db/data")).unwrap();
    for args in [&["get", "db", "k"][..], &["put", "db", "k", "v"], &["verify", "db"], &["status", "db"]] {
        let words = fail(&dir, args, 5);
        assert!(words.contains("missing"), "{words}");
    }
    fail(&dir, &["init", "db"], 5);
    assert!(!dir.join("db/data").exists());
}

#[test]
fn a_store_in_use_names_its_holder() {
    let dir = fresh("locked");
    let db = seawall::Db::open(dir.join("db")).unwrap();
    for args in [&["get", "db", "k"][..], &["put", "db", "k", "v"], &["verify", "db"]] {
        let words = fail(&dir, args, 4);
        assert!(words.contains(&std::process::id().to_string()), "{words}");
    }
    db.close().unwrap();
    succeed(&dir, &["put", "db", "k", "v"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_in_silence() {
    let dir = fresh("pipe");
    succeed(&dir, &["init", "db"]);
    let rows: String =
        (0..20_000).map(|n| format!("{{\"key\":\"{n:08}\",\"value\":\"some text\"}}\n")).collect();
    assert!(run_with_input(&dir, &["load", "db", "-"], rows.as_bytes()).status.success());
    for args in [&["scan", "db"][..], &["scan", "db", "-o", "json"], &["dump", "db", "--format", "csv"]] {
        let mut child = command(&dir, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn dump_and_load_keep_every_byte_in_every_format() {
    let dir = fresh("dump");
    succeed(&dir, &["init", "db"]);
    let pairs = [
        ("", "empty key"),
        ("empty value", ""),
        ("comma, \"quotes\" and 'more'", "a,b\tc"),
        ("line\\nend\\r\\n", "\\\\n is no line end"),
        ("\\xef\\xbb\\xbf", "{\"json\":1}"),
        ("#comment", " blanks "),
    ];
    for (key, value) in pairs {
        succeed(&dir, &["put", "db", key, value]);
    }
    succeed(&dir, &["put", "db", &odd(), &odd()]);
    let before = succeed(&dir, &["scan", "db", "--hex"]);
    for format in ["jsonl", "csv", "tsv"] {
        for extra in [&[][..], &["--hex"]] {
            let dumped = run(&dir, &[&["dump", "db", "--format", format], extra].concat());
            assert!(dumped.status.success(), "{dumped:?}");
            let copy = format!("copy-{format}-{}", extra.len());
            succeed(&dir, &["init", &copy]);
            let args = [&["load", &copy, "-", "--format", format], extra].concat();
            let loaded = run_with_input(&dir, &args, &dumped.stdout);
            assert!(loaded.status.success(), "{format}: {loaded:?}");
            assert_eq!(succeed(&dir, &["scan", &copy, "--hex"]), before, "{format} {extra:?}");
        }
    }
}

#[test]
fn files_of_others_are_taken_as_they_are() {
    let dir = fresh("others");
    succeed(&dir, &["init", "db"]);
    std::fs::write(
        dir.join("p.csv"),
        "\u{feff}id,name,path\r\n7,\"O\"\"Neil, J\",C:\\new\r\n8,\"two\nlines\",\r\n",
    )
    .unwrap();
    let summary = json(&succeed(&dir, &["load", "db", "p.csv", "-k", "people", "-o", "json"]));
    assert_eq!((&summary["rows"], &summary["skipped"]), (&Value::from(2), &Value::from(0)));
    let person = run(&dir, &["get", "db", "7", "-k", "people", "--raw"]).stdout;
    assert_eq!(person, br#"{"name":"O\"Neil, J","path":"C:\\new"}"#);
    let person = run(&dir, &["get", "db", "8", "-k", "people", "--raw"]).stdout;
    assert_eq!(person, br#"{"name":"two\nlines","path":""}"#);

    succeed(&dir, &["load", "db", "p.csv", "-k", "paths", "--key-column", "name", "--value-column", "path"]);
    assert_eq!(run(&dir, &["get", "db", "O\"Neil, J", "-k", "paths", "--raw"]).stdout, b"C:\\new");
    let words = fail(&dir, &["load", "db", "p.csv", "--key-column", "nome"], 2);
    assert!(words.contains("id, name, path"), "{words}");

    let line = r#"{"id":12345678901234567890123,"v":{"a":[1.50]}}"#;
    let args = ["load", "db", "-", "-k", "events", "--key-field", "id"];
    assert!(run_with_input(&dir, &args, format!("{line}\n\n").as_bytes()).status.success());
    assert_eq!(
        run(&dir, &["get", "db", "12345678901234567890123", "-k", "events", "--raw"]).stdout,
        line.as_bytes()
    );
    let args = ["load", "db", "-", "-k", "values", "--key-field", "id", "--value-field", "v"];
    assert!(run_with_input(&dir, &args, line.as_bytes()).status.success());
    let value = run(&dir, &["get", "db", "12345678901234567890123", "-k", "values", "--raw"]).stdout;
    assert_eq!(value, br#"{"a":[1.50]}"#);
}

#[test]
fn a_bad_line_is_named_and_nothing_of_its_batch_is_left() {
    let dir = fresh("bad-line");
    let good = |from: u32, to: u32| -> String {
        (from..to).map(|n| format!("{{\"key\":\"{n:04}\",\"value\":\"v\"}}\n")).collect()
    };
    for (bad, why) in [
        ("not json", "not a JSON object"),
        ("{\"key\":\"k\"}", "no field `value`"),
        ("{\"key\":1,\"value\":\"v\"}", "not a string"),
        ("{\"key\":\"k\",\"value\":\"v\",\"x\":1}", "unknown field `x`"),
        ("{\"key\":\"\\\\q\",\"value\":\"v\"}", "no escape"),
        (&format!("{{\"key\":\"{}\",\"value\":\"\"}}", "k".repeat(65_536)), "limit is 65535"),
        ("{\"key\":\"\u{0}\",\"value\":\"\"}", "not a JSON object"),
    ] {
        let _ = std::fs::remove_dir_all(dir.join("db"));
        succeed(&dir, &["init", "db"]);
        let input = format!("{}{bad}\n{}", good(0, 25), good(25, 30));
        std::fs::write(dir.join("rows.jsonl"), &input).unwrap();
        let words = fail(&dir, &["load", "db", "rows.jsonl", "--batch", "10"], 1);
        assert!(words.contains("line 26: ") && words.contains(why), "{words}");
        assert!(words.contains("the 20 rows of earlier batches are committed"), "{words}");
        let keys = succeed(&dir, &["scan", "db", "--keys-only"]);
        assert_eq!(keys.lines().count(), 20, "{keys}");
        assert_eq!(keys.lines().last(), Some("0019"));

        let output = run(&dir, &["load", "db", "rows.jsonl", "--batch", "10", "--skip-bad", "-o", "json"]);
        let summary = json(&String::from_utf8(output.stdout).unwrap());
        assert_eq!((&summary["rows"], &summary["skipped"]), (&Value::from(30), &Value::from(1)));
        assert!(String::from_utf8_lossy(&output.stderr).contains("line 26 skipped"));
        assert_eq!(succeed(&dir, &["scan", "db", "--keys-only"]).lines().count(), 30);
    }
}

#[test]
fn bad_lines_of_tables_are_named_too() {
    let dir = fresh("bad-table");
    succeed(&dir, &["init", "db"]);
    std::fs::write(dir.join("t.csv"), "key,value\na,1\nb\nc,3\nd,\\q\n").unwrap();
    let words = fail(&dir, &["load", "db", "t.csv"], 1);
    assert!(words.contains("line 3: 1 columns") && words.contains("nothing was committed"), "{words}");
    assert_eq!(json(&succeed(&dir, &["load", "db", "t.csv", "--skip-bad", "-o", "jsonl"]))["skipped"], 2);
    succeed(&dir, &["load", "db", "t.csv", "--skip-bad", "--raw"]);
    assert_eq!(run(&dir, &["get", "db", "d", "--raw"]).stdout, b"\\q");

    std::fs::write(dir.join("b.tsv"), b"id\tname\n1\t\xff\n").unwrap();
    let words = fail(&dir, &["load", "db", "b.tsv"], 1);
    assert!(words.contains("line 2: ") && words.contains("not UTF-8"), "{words}");
    succeed(&dir, &["load", "db", "b.tsv", "--value-column", "name"]);
    assert_eq!(run(&dir, &["get", "db", "1", "--raw"]).stdout, b"\xff");
    std::fs::write(dir.join("empty.csv"), "").unwrap();
    assert_eq!(json(&succeed(&dir, &["load", "db", "empty.csv", "-o", "json"]))["rows"], 0);
}

#[test]
fn stores_are_inspected() {
    let dir = fresh("inspect");
    succeed(&dir, &["init", "db", "-k", "one", "-k", "two"]);
    for n in 0..10 {
        succeed(&dir, &["put", "db", &n.to_string(), "v", "-k", "one"]);
    }
    let status = json(&succeed(&dir, &["status", "db", "-o", "json"]));
    assert_eq!(status["keyspaces"], json(r#"["one","two"]"#));
    assert!(succeed(&dir, &["status", "db", "--prometheus"]).contains("seawall"));
    let report = json(&succeed(&dir, &["verify", "db", "-o", "json"]));
    assert_eq!(report["problems"], json("[]"));
    let verified = json(&succeed(&dir, &["log", "verify", "db", "-o", "json"]));
    assert_eq!(verified["problems"], json("[]"));
    let records = json(&succeed(&dir, &["log", "dump", "db", "-o", "json"]));
    assert!(records.is_array());
    let segments = json(&succeed(&dir, &["log", "stats", "db", "-o", "json"]));
    assert!(!segments["segments"].as_array().unwrap().is_empty(), "{segments}");
    for table in [&["status", "db"][..], &["verify", "db"], &["log", "stats", "db"], &["log", "verify", "db"]]
    {
        assert!(!succeed(&dir, table).is_empty());
    }
}

#[test]
fn the_log_shows_every_kind_of_operation() {
    let dir = fresh("dump-ops");
    let db = seawall::Db::open(dir.join("db")).unwrap();
    let rows = db.keyspace("rows").unwrap();
    let mut batch = seawall::WriteBatch::new();
    batch.insert(&rows, "a", "1").remove(&rows, "b").add_i64(&rows, "n", -7).remove_range(&rows, "c"..="e");
    batch.remove_range(&rows, "x"..);
    db.write(batch).unwrap();
    db.drop_keyspace(rows).unwrap();
    // Closing would make a checkpoint, and give the log up.
    std::mem::forget(db);
    let ops = json(&succeed(&dir, &["log", "dump", "db", "-o", "json"]));
    let shown = |op: &Value| ["op", "keyspace", "key", "value"].map(|field| op[field].clone());
    let shown: Vec<_> = ops.as_array().unwrap().iter().map(shown).collect();
    let expected = json(
        r#"[["create","rows",null,null],["put","rows","a","1"],["remove","rows","b",null],["add","rows","n",-7],
            ["remove-range","rows","c","e\\x00"],["remove-range","rows","x",null],["drop","rows",null,null]]"#,
    );
    assert_eq!(json(&serde_json::to_string(&shown).unwrap()), expected);
}

#[test]
fn help_completions_and_manual_name_what_is_there() {
    let dir = fresh("help");
    let help = succeed(&dir, &["--help"]);
    let commands = [
        "demo",
        "init",
        "get",
        "put",
        "del",
        "scan",
        "load",
        "dump",
        "log",
        "verify",
        "status",
        "bench",
        "fsync-test",
        "torture",
        "txn",
        "completions",
        "man",
    ];
    for name in commands {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))),
            "{name}: {help}"
        );
        let own = succeed(&dir, &[name, "--help"]);
        assert!(own.contains("Usage"), "{own}");
        if name != "log" {
            assert!(own.contains("Example"), "{own}");
        }
    }
    for absent in ["demo-child", "backup", "shell"] {
        assert!(!help.lines().any(|line| line.trim_start().starts_with(absent)), "{absent}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(succeed(&dir, &["completions", shell]).contains("seawall"), "{shell}");
    }
    assert!(succeed(&dir, &["man"]).contains(".TH seawall"));
    assert!(succeed(&dir, &["man", "load"]).contains("skip"));
    fail(&dir, &["man", "nothing"], 2);
    assert!(succeed(&dir, &["--version"]).starts_with("seawall "));
}

#[test]
fn colours_come_when_asked_for() {
    let dir = fresh("color");
    let colored = run(&dir, &["get", "missing", "k", "--color", "always"]).stderr;
    assert!(String::from_utf8(colored).unwrap().contains("\x1b["));
    for args in [&["get", "missing", "k"][..], &["get", "missing", "k", "--color", "never"]] {
        assert!(!String::from_utf8(run(&dir, args).stderr).unwrap().contains('\x1b'), "{args:?}");
    }
}

#[test]
fn the_demo_loses_nothing() {
    let dir = fresh("demo");
    let args = ["demo", "work", "--seconds", "1", "--kills", "2", "--writers", "4", "-o", "json", "-q"];
    let output = run(&dir, &args);
    assert!(output.status.success(), "{output:?}");
    let report = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((&report["lost"], &report["half_applied"]), (&Value::from(0), &Value::from(0)), "{report}");
    assert_eq!(report["crashes"], 2);
    for figure in [
        "acknowledged",
        "commits_per_s",
        "p50_us",
        "p99_us",
        "commits_per_sync",
        "device_syncs_per_s",
        "ratio_to_device",
        "recovery_ms",
    ] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    assert!(!dir.join("work").exists());
}
