//! Checks at a size where an engine's habits show: what a checkpoint writes, what a recovery and a stream hold in memory. Too
//! large for every run: `cargo test --release -p seawall-engine --test large -- --ignored`.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test fails by panicking, and is no part of what simulation drives"
)]

use seawall_engine::{Db, DbBuilder, Durability, Keyspace, Readable, WriteBatch};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const VALUE_BYTES: usize = 100;

/// A directory that goes when the test ends, however it ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("large-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Directory(dir)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left, the next run removes.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"row-....-\0\0\0\0\0\0\0";
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// Every byte follows from the row and its version.
fn value(n: u64, version: u8) -> [u8; VALUE_BYTES] {
    let mut state = n << 8 | u64::from(version);
    std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
}

/// Writes rows in large batches, given to the kernel only.
fn write(db: &Db, keyspace: &Keyspace, rows: std::ops::Range<u64>, version: u8) {
    const BATCH: u64 = 20_000;
    for start in rows.clone().step_by(BATCH as usize) {
        let mut batch = WriteBatch::new();
        for n in start..(start + BATCH).min(rows.end) {
            batch.insert(keyspace, key(n), value(n, version));
        }
        db.write_with(batch, Durability::Written).unwrap();
    }
}

/// One hundredth of a store of 1 GiB is changed, in one place: the checkpoint writes that part, not the store.
#[test]
#[ignore = "writes more than 1 GiB"]
fn a_small_clustered_change_makes_a_small_checkpoint() {
    const ROWS: u64 = 9_700_000;
    let dir = Directory::new("clustered");
    let start = Instant::now();
    // The last checkpoint is to be the one that is measured, so nothing else asks for one.
    let db = Db::builder(dir.0.join("store"))
        .memory_budget(512 << 20)
        .log_bytes_max(512 << 20)
        .checkpoint_interval(Duration::from_secs(3600));
    let db = db.open().unwrap();
    let keyspace = db.keyspace("rows").unwrap();
    write(&db, &keyspace, 0..ROWS, 0);
    db.checkpoint().unwrap();
    let loaded = start.elapsed();
    let before = db.stats();
    assert!(before.live_bytes >= 1024 * MIB, "{} MiB are loaded", before.live_bytes / MIB);

    let changed = ROWS / 2..ROWS / 2 + ROWS / 100;
    write(&db, &keyspace, changed.clone(), 1);
    let began = Instant::now();
    db.checkpoint().unwrap();
    let (took, after) = (began.elapsed(), db.stats());
    assert_eq!(after.checkpoints, before.checkpoints + 1, "one checkpoint is measured");
    let written = after.checkpoint_bytes - before.checkpoint_bytes;
    let percent = written as f64 * 100.0 / before.live_bytes as f64;
    println!(
        "loaded {} MiB of blocks in {:.1} s; 1 % of the rows changed: the checkpoint wrote {:.1} MiB, {percent:.2} % \
         of the live bytes, in {:.0} ms",
        before.live_bytes / MIB,
        loaded.as_secs_f64(),
        written as f64 / MIB as f64,
        took.as_secs_f64() * 1e3,
    );
    assert!(percent < 5.0, "{percent:.2} % of the live bytes were written");

    let snapshot = db.snapshot();
    for n in [0, changed.start - 1, changed.start, changed.end - 1, changed.end, ROWS - 1] {
        let version = u8::from(changed.contains(&n));
        assert_eq!(
            snapshot.get(&keyspace, key(n)).unwrap().as_deref(),
            Some(&value(n, version)[..]),
            "row {n}"
        );
    }
    drop((snapshot, keyspace));
    db.close().unwrap();
}

const ROLE: &str = "SEAWALL_LARGE_ROLE";
const STORE: &str = "SEAWALL_LARGE_STORE";
/// About 256 MiB of log.
const LOGGED_ROWS: u64 = 2_200_000;
const BUDGET: u64 = 32 * MIB;
/// Beyond its budget a recovery may hold: two buffers of log read ahead (a record of up to 16 MiB each, and its decoded
/// copy), the nodes of the delta that its budget does not see, the fold's runs of 1 MiB, and what the allocator keeps.
const SLACK: u64 = 64 * MIB;

fn unfolded(store: &Path) -> DbBuilder {
    Db::builder(store).log_bytes_max(4 << 30).checkpoint_interval(Duration::from_secs(3600))
}

/// The processes of the next test; does nothing unless that has started it.
#[test]
fn process() {
    let (Ok(role), Some(store)) = (std::env::var(ROLE), std::env::var_os(STORE)) else { return };
    match role.as_str() {
        "write" => {
            let db = unfolded(Path::new(&store)).memory_budget(4 << 30).open().unwrap();
            let keyspace = db.keyspace("rows").unwrap();
            for round in 0..LOGGED_ROWS / 2000 {
                write_scattered(&db, &keyspace, round);
            }
            db.sync().unwrap();
            assert_eq!(db.stats().checkpoints, 0, "all of it is in the log");
            // Neither closed nor dropped.
            std::process::abort();
        }
        "recover" => recover(Path::new(&store)),
        "stream" => stream(Path::new(&store)),
        other => panic!("no role {other}"),
    }
}

/// Two thousand rows, spread over all keys: a fold of some of the log touches every part of the tree.
fn write_scattered(db: &Db, keyspace: &Keyspace, round: u64) {
    let mut batch = WriteBatch::new();
    for i in 0..2000 {
        let n = scattered(round * 2000 + i);
        batch.insert(keyspace, key(n), value(n, 0));
    }
    db.write_with(batch, Durability::Written).unwrap();
}

/// A permutation of the row numbers.
fn scattered(n: u64) -> u64 {
    n * 1_000_003 % LOGGED_ROWS
}

/// Greatest resident memory so far, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn recover(store: &Path) {
    let baseline = peak_bytes();
    let start = Instant::now();
    let db = unfolded(store).memory_budget(BUDGET as usize).open().unwrap();
    let took = start.elapsed();
    let opened = peak_bytes() - baseline;
    let recovery = db.recovery().clone();
    println!(
        "recovered {} records, {} MiB of log, in {:.1} s; peak memory {:.1} MiB with a budget of {} MiB",
        recovery.records,
        recovery.bytes / MIB,
        took.as_secs_f64(),
        opened as f64 / MIB as f64,
        BUDGET / MIB,
    );
    assert!(recovery.bytes >= 240 * MIB, "{} MiB of log", recovery.bytes / MIB);
    assert!(opened < BUDGET + SLACK, "{} MiB", opened / MIB);
    let keyspace = db.open_keyspace("rows").unwrap().unwrap();
    let mut rows = 0;
    for row in db.snapshot().range(&keyspace, ..) {
        let (found_key, found_value) = row.unwrap();
        assert_eq!((&found_key[..], &found_value[..]), (&key(rows)[..], &value(rows, 0)[..]), "row {rows}");
        rows += 1;
    }
    assert_eq!(rows, LOGGED_ROWS);
    let all = peak_bytes() - baseline;
    assert!(all < BUDGET + SLACK, "{} MiB after reading everything", all / MIB);
    drop(keyspace);
    db.close().unwrap();
}

fn run(role: &str, store: &Path) -> std::process::Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["process", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(STORE, store)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Eight times the memory budget of log, and no clean end: recovery folds on its way, and stays within its budget.
#[test]
#[ignore = "writes 256 MiB of log, and recovers it"]
fn recovery_stays_within_its_memory_budget() {
    let dir = Directory::new("recovery");
    let store = dir.0.join("store");
    let written = run("write", &store);
    let words = String::from_utf8_lossy(&written.stderr);
    assert!(written.status.code().is_none() && !words.contains("panicked"), "{words}");
    let recovered = run("recover", &store);
    let shown = String::from_utf8_lossy(&recovered.stdout);
    println!("{}", shown.lines().filter(|line| line.contains("recovered")).collect::<String>());
    assert!(recovered.status.success(), "{shown}{}", String::from_utf8_lossy(&recovered.stderr));
}

/// The longest value there may be.
const STREAMED_BYTES: u64 = 1024 * MIB;

/// The value: no two pieces of it are alike.
struct Source {
    at: u64,
}

impl Source {
    fn word(at: u64) -> [u8; 8] {
        (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes()
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = (STREAMED_BYTES - self.at).min(buf.len() as u64) as usize;
        for byte in &mut buf[..left] {
            *byte = Source::word(self.at)[(self.at % 8) as usize];
            self.at += 1;
        }
        Ok(left)
    }
}

fn read_streamed(db: &Db, keyspace: &Keyspace) {
    let mut reader = db.snapshot().open_value(keyspace, "film").unwrap().unwrap();
    assert_eq!(reader.len(), STREAMED_BYTES);
    let (mut source, mut buf, mut expected) = (Source { at: 0 }, vec![0; 60_000], vec![0; 60_000]);
    loop {
        let count = reader.read(&mut buf).unwrap();
        source.read_exact(&mut expected[..count]).unwrap();
        assert!(buf[..count] == expected[..count], "before byte {}", source.at);
        if count == 0 {
            break;
        }
    }
    assert_eq!(source.at, STREAMED_BYTES);
}

fn stream(store: &Path) {
    let baseline = peak_bytes();
    let is_within = |what: &str| {
        let all = peak_bytes() - baseline;
        println!("streamed {}: peak memory {:.1} MiB", what, all as f64 / MIB as f64);
        assert!(all < BUDGET, "{} MiB: {what}", all / MIB);
    };
    let open = || unfolded(store).memory_budget(BUDGET as usize).open().unwrap();
    let db = open();
    let keyspace = db.keyspace("films").unwrap();
    let mut transaction = db.begin();
    transaction.insert_from(&keyspace, "film", STREAMED_BYTES, Source { at: 0 }).unwrap();
    transaction.commit().unwrap();
    is_within("in");
    read_streamed(&db, &keyspace);
    is_within("out before a checkpoint");
    db.checkpoint().unwrap();
    drop(keyspace);
    db.close().unwrap();
    let db = open();
    let keyspace = db.open_keyspace("films").unwrap().unwrap();
    read_streamed(&db, &keyspace);
    is_within("out of the data file");
    drop(keyspace);
    db.close().unwrap();
}

/// A value 32 times as large as the memory budget, in and out.
#[test]
#[ignore = "writes 1 GiB, and reads it twice"]
fn a_value_of_a_gibibyte_is_streamed_within_the_memory_budget() {
    let dir = Directory::new("stream");
    let streamed = run("stream", &dir.0.join("store"));
    let shown = String::from_utf8_lossy(&streamed.stdout);
    println!("{}", shown.lines().filter(|line| line.contains("streamed")).collect::<Vec<_>>().join("\n"));
    assert!(streamed.status.success(), "{shown}{}", String::from_utf8_lossy(&streamed.stderr));
    assert_eq!(shown.matches("streamed ").count(), 3, "the process ran: {shown}");
}
