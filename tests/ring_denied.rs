//! A machine that denies io_uring, in every way that is known: all works as before, and the reason is reported. The
//! denial is a seccomp filter, so each case runs in a process of its own: this program, started again.
#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts processes"
)]

use seawall::wal::disk::os::OsOptions;
use seawall::wal::disk::{Disk, Io, Op, Open};
use seawall::wal::{AlignedBuf, Lsn, OsDisk, Wal};
use seawall::{Db, Readable, WriteBatch};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

// The same on every architecture.
const SETUP: i64 = 425;
const ENTER: i64 = 426;
const REGISTER: i64 = 427;

const EPERM: u32 = 1;
const ENOMEM: u32 = 12;
const ENOSYS: u32 = 38;

const SIGABRT: i32 = 6;

/// Names what the process is to do; its other variables say how.
const WHAT: &str = "SEAWALL_TEST_WHAT";
const STORE: &str = "SEAWALL_TEST_STORE";
const DENY: &str = "SEAWALL_TEST_DENY";

fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("denied-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Starts this program again. `deny` is a call's number and an error's; error 0 kills.
fn process_with(what: &str, dir: &Path, deny: Option<(i64, u32)>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["process", "--exact", "--nocapture", "--test-threads=1"]);
    command.env_remove("SEAWALL_IO").env(WHAT, what).env(STORE, dir.join("store"));
    if let Some((call, errno)) = deny {
        command.env(DENY, format!("{call} {errno}"));
    }
    command
}

/// What a process that succeeded said behind `"said: "`.
fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}{why}");
    // The first one stands behind the test's name.
    out.lines().filter_map(|line| line.split_once("said: ")).map(|(_, said)| format!("{said}\n")).collect()
}

fn run(what: &str, deny: Option<(i64, u32)>) -> String {
    let dir = fresh(what);
    let output = process_with(what, &dir, deny).output().unwrap();
    let _ = std::fs::remove_dir_all(dir);
    said(&output)
}

/// False on a machine that denies rings by itself, where there is nothing to deny.
fn has_rings() -> bool {
    let has = OsDisk::try_with(OsOptions { io: Io::Uring, ..OsOptions::default() });
    has.inspect_err(|why| println!("skipped: {why}")).is_ok()
}

fn deny(call: i64, errno: u32) {
    let action = if errno == 0 { SeccompAction::KillProcess } else { SeccompAction::Errno(errno) };
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new([(call, Vec::new())].into(), SeccompAction::Allow, action, arch);
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    apply_filter_all_threads(&program).unwrap();
}

/// The other processes' part; by itself it does nothing.
#[test]
fn process() {
    let Ok(what) = std::env::var(WHAT) else { return };
    let store = PathBuf::from(std::env::var(STORE).unwrap());
    let denied = std::env::var(DENY).ok().map(|deny| {
        let (call, errno) = deny.split_once(' ').unwrap();
        (call.parse().unwrap(), errno.parse().unwrap())
    });
    if let Some((call, errno)) = denied.filter(|_| what != "late") {
        deny(call, errno);
    }
    match what.as_str() {
        "use" => use_store(&store, Io::Auto),
        "insist" => match Db::builder(&store).io(Io::Uring).open() {
            Ok(_) => println!("said: opened"),
            Err(error) => println!("said: {error}"),
        },
        "late" => late(&store, denied.unwrap()),
        "log" => use_log(&store),
        "abort" => commit_and_abort(&store),
        "recover" => recover(&store),
        _ => panic!("{what}?"),
    }
}

/// Everything that goes through queues: tickets, checkpoints, recovery, many keys at once.
fn use_store(store: &Path, io: Io) {
    let keys: Vec<[u8; 4]> = (0..3000_u32).map(u32::to_be_bytes).collect();
    for life in 0..3_u8 {
        // Next to no cache, so that reads are of the file.
        let db = Db::builder(store).io(io).memory_budget(1).segment_bytes(1 << 20).open().unwrap();
        let ks = db.keyspace("rows").unwrap();
        if life > 0 {
            let values = db.snapshot().multi_get(&ks, &keys).unwrap();
            assert!(values.iter().all(|value| value.as_ref().unwrap()[..] == [life - 1; 400]));
        }
        for keys in keys.chunks(500) {
            let mut batch = WriteBatch::new();
            for key in keys {
                batch.insert(&ks, key, [life; 400]);
            }
            db.write(batch).unwrap();
        }
        // Receipts, many outstanding, and commits whose callers wait.
        let tickets: Vec<_> = (0..200_u8)
            .map(|n| {
                let mut batch = WriteBatch::new();
                batch.insert(&ks, [b't', n], [life]);
                db.write_pipelined(batch).unwrap()
            })
            .collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
        for n in 0..20_u8 {
            ks.insert([b'c', n], [life]).unwrap();
        }
        assert_eq!(db.snapshot().prefix(&ks, "t").count(), 200);
        assert_eq!(db.snapshot().prefix(&ks, "c").count(), 20);
        db.sync().unwrap();
        if life == 1 {
            db.checkpoint().unwrap();
            assert!(db.verify(|_| {}).unwrap().problems.is_empty());
        }
        println!("said: {}: {}", db.recovery().backend, db.recovery().backend_reason);
    }
    // The command is under the same filter, and reports the same.
    let mut status = Command::new(env!("CARGO_BIN_EXE_seawall"));
    let status = status.args(["status", "-o", "json"]).arg(store).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    println!("said: {}: {}", status["io_backend"].as_str().unwrap(), status["io_reason"].as_str().unwrap());
}

/// The log alone: commits, batches, tickets, and all of it read back by another handle.
fn use_log(dir: &Path) {
    const TICKETS: u32 = 2000;
    let wal = Wal::options().segment_bytes(1 << 20).open(dir).unwrap();
    println!("said: {}: {}", wal.recovery().backend, wal.recovery().backend_reason);
    let record = |n: u32| [n.to_be_bytes().as_slice(), &[7; 900]].concat();
    let tickets: Vec<_> = (0..TICKETS).map(|n| wal.commit_pipelined(record(n)).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    for n in TICKETS..TICKETS + 20 {
        wal.commit(record(n)).unwrap();
    }
    wal.append_batch(&(TICKETS + 20..TICKETS + 120).map(record).collect::<Vec<_>>()).unwrap();
    wal.sync().unwrap();
    assert!(wal.stats().rotations > 0);
    wal.close().unwrap();

    let wal = Wal::options().open(dir).unwrap();
    let read = wal.read(Lsn::ZERO..).unwrap().map(|found| found.unwrap().payload.to_vec());
    assert!(read.eq((0..TICKETS + 120).map(record)));
    println!("said: {}: {}", wal.recovery().backend, wal.recovery().backend_reason);
}

const ABORTED: u32 = 5000;

/// Leaves a log that nobody has closed.
fn commit_and_abort(store: &Path) {
    let db = Db::builder(store).segment_bytes(1 << 20).open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    for n in 0..ABORTED {
        let mut batch = WriteBatch::new();
        batch.insert(&ks, n.to_be_bytes(), [3; 400]);
        // One waits for all before it.
        let ticket = db.write_pipelined(batch).unwrap();
        if n % 1000 == 999 {
            ticket.wait().unwrap();
        }
    }
    std::process::abort();
}

fn recover(store: &Path) {
    let db = Db::builder(store).create(false).memory_budget(1).open().unwrap();
    let ks = db.open_keyspace("rows").unwrap().unwrap();
    assert!(db.recovery().records > 0);
    assert_eq!(db.snapshot().range(&ks, ..).count(), ABORTED as usize);
    assert!(db.verify(|_| {}).unwrap().problems.is_empty());
    println!("said: {}: {}", db.recovery().backend, db.recovery().backend_reason);
}

/// Rings are denied only when a disk has already settled on them.
fn late(store: &Path, (call, errno): (i64, u32)) {
    std::fs::create_dir_all(store).unwrap();
    let disk = OsDisk::with(OsOptions::default());
    println!("said: {}", disk.describe(store).name);
    let insisting = OsDisk::try_with(OsOptions { io: Io::Uring, ..OsOptions::default() }).unwrap();
    deny(call, errno);
    let file = disk.open(&store.join("file"), Open::CreateNew).unwrap();
    let mut queue = disk.queue(4).unwrap();
    let write = |block: u64| {
        let (file, buf) = (file.clone(), AlignedBuf::zeroed(4096).unwrap());
        Op::Write { file, offset: block * 4096, buf, len: 4096, durable: true }
    };
    queue.submit((0..8).map(write).collect()).unwrap();
    let mut done = Vec::new();
    queue.reap(8, &mut done).unwrap();
    assert!(done.len() == 8 && done.iter().all(|done| done.result.is_ok()));
    assert!(insisting.queue(4).is_err());
}

#[test]
fn a_store_works_without_rings_and_says_why() {
    if !has_rings() {
        return;
    }
    assert!(run("use", None).lines().all(|line| line.starts_with("uring: io_uring with ")));
    let denials = [
        ((SETUP, EPERM), "blocking: io_uring is refused (Operation not permitted"),
        ((SETUP, ENOSYS), "blocking: io_uring is refused (Function not implemented"),
        ((SETUP, ENOMEM), "blocking: io_uring is refused (Cannot allocate memory"),
        // Granted, but crippled.
        ((ENTER, EPERM), "blocking: io_uring is refused (Operation not permitted"),
        ((REGISTER, EPERM), "blocking: io_uring is refused (Operation not permitted"),
    ];
    for (denial, expected) in denials {
        let said = run("use", Some(denial));
        assert_eq!(said.lines().count(), 4);
        assert!(said.lines().all(|line| line.starts_with(expected)), "{denial:?}: {said}");
        let said = run("log", Some(denial));
        assert_eq!(said.lines().count(), 2);
        assert!(said.lines().all(|line| line.starts_with(expected)), "{denial:?}: {said}");
    }
    assert!(run("log", None).lines().all(|line| line.starts_with("uring: io_uring with ")));
}

/// A machine may lose its rings between two lives of a store, and get them back.
#[test]
fn what_an_aborted_process_left_is_recovered_either_way() {
    if !has_rings() {
        return;
    }
    let denial = Some((SETUP, EPERM));
    for (writes, reads, expected) in
        [(None, denial, "blocking: "), (denial, denial, "blocking: "), (denial, None, "uring: ")]
    {
        let dir = fresh("aborted");
        let aborted = process_with("abort", &dir, writes).output().unwrap();
        assert_eq!(aborted.status.signal(), Some(SIGABRT), "{}", String::from_utf8_lossy(&aborted.stderr));
        let said = said(&process_with("recover", &dir, reads).output().unwrap());
        assert!(said.lines().count() == 1 && said.starts_with(expected), "{said}");
        let _ = std::fs::remove_dir_all(dir);
    }
}

#[test]
fn the_variable_keeps_from_trying() {
    let dir = fresh("variable");
    // Whoever asks for a ring is killed.
    let mut command = process_with("use", &dir, Some((SETUP, 0)));
    let said = said(&command.env("SEAWALL_IO", "blocking").output().unwrap());
    assert!(said.lines().all(|line| line.starts_with("blocking: SEAWALL_IO=blocking; ")), "{said}");
    let dir = fresh("killed");
    let output = process_with("use", &dir, Some((SETUP, 0))).output().unwrap();
    assert!(!output.status.success(), "the filter does what it says");
}

#[test]
fn insisting_on_rings_is_an_error_that_says_why() {
    let said = run("insist", Some((SETUP, EPERM)));
    assert!(said.contains("io_uring was asked for: io_uring is refused (Operation not permitted"), "{said}");
}

#[test]
fn rings_denied_later_give_way_too() {
    if has_rings() {
        for errno in [EPERM, ENOMEM] {
            assert_eq!(run("late", Some((SETUP, errno))), "uring\n");
        }
    }
}
