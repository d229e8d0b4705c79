//! Directories, small file systems, processes.

use seawall::{Db, Readable};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) const HOLD: &str = "SEAWALL_HOLD";
const HOLD_ROWS: &str = "SEAWALL_HOLD_ROWS";

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A directory of its own for each test, empty at the start.
pub(crate) fn fresh(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{name}"));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.env("SEAWALL_PROBE", "0");
    command.current_dir(dir).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run_with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // The command may stop reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[track_caller]
pub(crate) fn succeeded(dir: &Path, args: &[&str]) -> String {
    let output = command(dir, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The command fails with this code, and says this.
#[track_caller]
pub(crate) fn refused(dir: &Path, args: &[&str], code: i32, words: &str) {
    let output = command(dir, args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.starts_with("error: ") && said.contains(words), "{args:?}: {said}");
}

pub(crate) fn key(n: u64) -> Vec<u8> {
    format!("key-{n:06}").into_bytes()
}

pub(crate) fn value(n: u64) -> Vec<u8> {
    vec![n as u8; 500 + (n % 7) as usize]
}

/// Rows that [`written`] and [`holder`] write.
pub(crate) fn expected(count: u64) -> Rows {
    (0..count).map(|n| (key(n), value(n))).collect()
}

/// Makes a store with a checkpoint and a few files of log behind it.
pub(crate) fn write(store: &Path, count: u64) -> Db {
    let db = Db::builder(store).segment_bytes(64 << 10).checkpoint_interval(Duration::from_secs(3600));
    let db = db.open().unwrap();
    let keyspace = db.keyspace("default").unwrap();
    for n in 0..count {
        keyspace.insert(key(n), value(n)).unwrap();
        if n == count / 3 {
            db.checkpoint().unwrap();
        }
    }
    db
}

/// The same, closed.
pub(crate) fn written(store: &Path, count: u64) {
    write(store, count).close().unwrap();
}

/// The same, killed.
pub(crate) fn killed(store: &Path, count: u64) {
    let mut holder = holder(store, count);
    holder.process.kill().unwrap();
    holder.process.wait().unwrap();
}

/// The rows of keyspace `default`.
pub(crate) fn rows(db: &Db) -> Rows {
    let Some(keyspace) = db.open_keyspace("default").unwrap() else { return Rows::new() };
    let rows = db.snapshot().range(&keyspace, ..).map(|row| row.unwrap());
    rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// A process that has a store open; never left behind.
pub(crate) struct Holder {
    pub(crate) process: Child,
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It fails only if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts this program again, to write a store, and wait with it to be killed.
pub(crate) fn holder(store: &Path, count: u64) -> Holder {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["process", "--exact", "--nocapture", "--test-threads=1"])
        .env(HOLD, store)
        .env(HOLD_ROWS, count.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = BufReader::new(process.stderr.take().unwrap());
    let (mut holder, mut said) = (Holder { process }, String::new());
    pipe.read_line(&mut said).unwrap();
    if said != "open\n" {
        holder.process.kill().unwrap();
        pipe.read_to_string(&mut said).unwrap();
        panic!("it does not hold {}: {said}", store.display());
    }
    holder
}

/// What that process does.
pub(crate) fn hold(store: &Path) {
    let count = std::env::var(HOLD_ROWS).unwrap().parse().unwrap();
    let _db = write(store, count);
    // A log that has fallen idle vouches for its newest file too, by a thread of the lowest priority: beside busy processors that
    // takes its time.
    std::thread::sleep(Duration::from_millis(500));
    std::io::stderr().write_all(b"open\n").unwrap();
    // Ends with the parent, if that should forget.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// A small file system of its own; unmounted at the end.
pub(crate) struct Mount {
    pub(crate) dir: PathBuf,
}

impl Mount {
    /// A file system in memory; none, and the reason printed, where mounting is not allowed.
    pub(crate) fn in_memory(name: &str, mib: u64) -> Option<Mount> {
        let dir = fresh(name);
        let size = format!("size={mib}m");
        let mounted = call("mount", &["-t", "tmpfs", "-o", &size, "seawall-test", &dir.to_string_lossy()]);
        mounted.map(|()| Mount { dir }).map_err(|why| println!("skipped: {why}")).ok()
    }

    /// ext4 in a file; none, and the reason printed, where that cannot be had.
    pub(crate) fn ext4(name: &str, mib: u64) -> Option<Mount> {
        let (dir, image) = (fresh(name), fresh(&format!("{name}-image")).join("image"));
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        let (at, image) = (dir.to_string_lossy(), image.to_string_lossy());
        // No blocks are kept back for root, which tests may run as.
        call("mkfs.ext4", &["-q", "-m", "0", &image])
            .and_then(|()| call("mount", &["-o", "loop", &image, &at]))
            .and_then(|()| std::fs::remove_dir(dir.join("lost+found")).map_err(|error| error.to_string()))
            .map(|()| Mount { dir: dir.clone() })
            .map_err(|why| println!("skipped: {why}"))
            .ok()
    }

    pub(crate) fn make_read_only(&self) {
        call("mount", &["-o", "remount,ro", &self.dir.to_string_lossy()]).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Detached at once, and gone when the last file in it is closed.
        let _ = call("umount", &["-l", &self.dir.to_string_lossy()]);
    }
}

fn call(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", words.trim())) }
}
