//! Starting the process that dies, killing it at a moment of one's choice, and reading what it left in the pipe.

use super::bank::WRITERS;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ROLE: &str = "SEAWALL_KILL_ROLE";
const STORE: &str = "SEAWALL_KILL_STORE";
/// A step that the process leaves out, if any.
pub(crate) const OMISSION: &str = "SEAWALL_KILL_OMISSION";
/// Commits flow if one was acknowledged within this time.
const FLOWING: Duration = Duration::from_millis(20);
/// After so long without an acknowledgement, none will come.
const PATIENCE: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

/// What this process was started to do.
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) store: PathBuf,
}

/// None unless [`Child::start`] has started this process.
pub(crate) fn role() -> Option<Role> {
    let name = std::env::var(ROLE).ok()?;
    Some(Role { name, store: std::env::var_os(STORE)?.into() })
}

/// That a commit is on the device, said when the clock that its reader was given stood there.
#[derive(Debug)]
pub(crate) struct Synced {
    pub(crate) clock: usize,
    pub(crate) writer: usize,
    pub(crate) sequence: u64,
}

/// What a process had reported when it died.
#[derive(Debug, Default)]
pub(crate) struct Death {
    pub(crate) announced: [u64; WRITERS],
    pub(crate) acknowledged: [u64; WRITERS],
    pub(crate) acknowledgements: u64,
    pub(crate) synced: Vec<Synced>,
    /// A commit that a thread was waiting for had begun, and not returned.
    pub(crate) has_commit_in_flight: bool,
    pub(crate) is_in_checkpoint: bool,
    /// Recovery had begun, and not ended.
    pub(crate) was_opening: bool,
    pub(crate) checkpoints: u64,
    /// Bytes that the log grew by.
    pub(crate) log_bytes: u64,
    /// What it said besides: a panic's message.
    noise: Vec<String>,
}

impl Death {
    /// The last commit begun by each writer: now, or in an earlier life.
    pub(crate) fn announced_above(&self, before: [u64; WRITERS]) -> [u64; WRITERS] {
        std::array::from_fn(|writer| self.announced[writer].max(before[writer]))
    }
}

/// A running process; never left behind.
pub(crate) struct Child {
    process: std::process::Child,
    reader: Option<JoinHandle<Death>>,
    acknowledged: Arc<AtomicU64>,
    /// 1: about to open the store; 2: it is open.
    opened: Arc<AtomicU64>,
}

impl Child {
    /// Starts this program again, to do one thing.
    pub(crate) fn start(store: &Path, role: &str) -> Child {
        Child::start_beside(store, role, None, Arc::default())
    }

    /// The same, without a step of that name, and beside something whose clock its reports are read by.
    pub(crate) fn start_beside(
        store: &Path,
        role: &str,
        omission: Option<&str>,
        clock: Arc<AtomicUsize>,
    ) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["writers", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(STORE, store)
            .env(OMISSION, omission.unwrap_or_default())
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = BufReader::with_capacity(256 << 10, process.stderr.take().unwrap());
        let (acknowledged, opened) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counter, stage) = (Arc::clone(&acknowledged), Arc::clone(&opened));
        let reader = std::thread::spawn(move || read(pipe, &counter, &stage, &clock));
        Child { process, reader: Some(reader), acknowledged, opened }
    }

    /// Kills it when acknowledgements have flowed for so long, and flow still.
    pub(crate) fn kill_when_flowing(self, time: Duration) -> Death {
        let mut first = None;
        let (mut count, mut last) = (0, Instant::now());
        loop {
            let now = self.acknowledged.load(Ordering::Relaxed);
            if now > count {
                (count, last) = (now, Instant::now());
                first.get_or_insert(last);
            }
            if first.is_some_and(|first: Instant| first.elapsed() >= time) && last.elapsed() < FLOWING {
                return self.kill();
            }
            if last.elapsed() > PATIENCE || self.reader.as_ref().is_some_and(JoinHandle::is_finished) {
                let death = self.kill();
                panic!("nothing is committed any more: {death:?}");
            }
            std::thread::sleep(Duration::from_micros(300));
        }
    }

    /// Kills it so long after it began to open the store, or when that is done.
    pub(crate) fn kill_within(self, time: Duration) -> Death {
        let start = Instant::now();
        let mut began = None;
        loop {
            match self.opened.load(Ordering::Relaxed) {
                0 => {}
                1 => _ = began.get_or_insert_with(Instant::now),
                _ => return self.kill(),
            }
            if began.is_some_and(|began: Instant| began.elapsed() >= time) {
                return self.kill();
            }
            if start.elapsed() > PATIENCE || self.reader.as_ref().is_some_and(JoinHandle::is_finished) {
                let death = self.kill();
                panic!("the store is not opened: {death:?}");
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn kill(mut self) -> Death {
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        let death = self.reader.take().unwrap().join().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "it ended by itself: {:?}", death.noise);
        assert_eq!(death.noise, Vec::<String>::new());
        death
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It fails only if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads reports to the end of the pipe, which is the process's end.
fn read(pipe: impl BufRead, counter: &AtomicU64, opened: &AtomicU64, clock: &AtomicUsize) -> Death {
    let mut death = Death::default();
    let mut waiting = [0; WRITERS];
    let mut first_lsn = None;
    for line in pipe.lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("O", []) => opened.store(1, Ordering::Relaxed),
            ("R", []) => opened.store(2, Ordering::Relaxed),
            ("B" | "P", &[writer, sequence]) => {
                death.announced[writer as usize] = sequence;
                if kind == "B" {
                    waiting[writer as usize] = sequence;
                }
            }
            ("A" | "W", &[writer, sequence]) => {
                if kind == "A" {
                    let clock = clock.load(Ordering::SeqCst);
                    death.synced.push(Synced { clock, writer: writer as usize, sequence });
                }
                death.acknowledged[writer as usize] = sequence;
                death.acknowledgements += 1;
                counter.fetch_add(1, Ordering::Relaxed);
            }
            ("C", []) => death.is_in_checkpoint = true,
            ("D", []) => (death.is_in_checkpoint, death.checkpoints) = (false, death.checkpoints + 1),
            ("L", &[lsn]) => death.log_bytes = lsn - *first_lsn.get_or_insert(lsn),
            _ => death.noise.push(line),
        }
    }
    death.was_opening = opened.load(Ordering::Relaxed) == 1;
    let in_flight = |writer: usize| waiting[writer] > death.acknowledged[writer];
    death.has_commit_in_flight = (0..WRITERS).any(in_flight);
    death
}
