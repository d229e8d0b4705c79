//! The command's fuzz target over its committed corpus, and over mutations of it.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and reads the repository's files"
)]

#[path = "replay/loader.rs"]
mod loader;
#[path = "../fuzz/replay.rs"]
mod replay;

// The row readers name each other by their place in the command.
use loader::command;

#[test]
fn rows() {
    replay::replay("loader", 20_000, loader::loader);
}

#[test]
#[ignore = "writes the corpus"]
fn write_corpus() {
    let entry = |how: u8, file: &str| [&[how], file.as_bytes()].concat();
    let jsonl =
        "{\"key\": \"a\", \"value\": \"1\\\\n\"}\n\n{\"key\":\"\",\"value\":\"\"}\r\n{\"key\":1}\n[]\n";
    let csv = "key,value\na,1\n\"q\"\"uoted\",\"two\nlines\"\nshort\n\\x00,\\\\\n";
    replay::write(
        "loader",
        &[
            ("jsonl", entry(0, jsonl)),
            ("jsonl-fields", entry(48, "{\"k\":\"a\",\"v\":{\"deep\":[[[1.0e400]]]}}\n{\"k\":null,\"v\":2}")),
            ("jsonl-key-field", entry(18, "{\"k\":\"\\ud83d\\ude00\",\"x\":\"\\ud83d\"}")),
            ("jsonl-hex", entry(66, "{\"key\":\"00ff\",\"value\":\"0\"}\n{\"key\":\"zz\",\"value\":\"\"}")),
            ("jsonl-mark", entry(0, "\u{feff}{\"key\":\"a\",\"value\":\"b\"}")),
            ("jsonl-not-utf8", [&[0][..], b"{\"key\":\"\xff\",\"value\":\"\"}\n\xff\xfe"].concat()),
            ("csv", entry(1, csv)),
            ("csv-columns", entry(49, "k,v,w\n1,2,3\n4,5\n\"open")),
            ("csv-object", entry(1, "id,name,name,\n1,x,y,\n2,\"\",\"\"\"\",z\n")),
            ("csv-empty", entry(1, "")),
            ("tsv", entry(2, "key\tvalue\na\\tb\t\\xff\n\t\n")),
            ("tsv-object", entry(2, "a\tb\n1\t2\n")),
            ("tsv-hex", entry(65, "key,value\n6b,76\n6,7\n")),
        ],
    );
}
