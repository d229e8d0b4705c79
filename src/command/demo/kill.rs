//! A run of the writers in a child process, and its end by SIGKILL.

use super::bank::{Acknowledged, History};
use crate::command::measure::random::Random;
use crate::command::{Failure, Outcome, Ui};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The writers run so long at least.
const SHORTEST_MS: u64 = 300;
/// Commits count as flowing if one was acknowledged within this time.
const FLOWING: Duration = Duration::from_millis(20);
/// Nothing acknowledged for so long means that nothing will be.
const PATIENCE: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;

/// What a run did before it was killed.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) acknowledged: Vec<Acknowledged>,
    /// From the first acknowledgement to the kill.
    pub(super) flowing: Duration,
    /// Commits and syncs of the child, when it last said so.
    pub(super) commits: u64,
    pub(super) syncs: u64,
    /// It was killed by SIGKILL while commits were flowing.
    pub(super) crashed: bool,
}

/// Starts the writers, kills them at a random moment, and returns all that they reported.
pub(super) fn run_and_kill(ui: &Ui, store: &Path, history: &History, longest_ms: u64) -> Outcome<Run> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::error(format!("finding this program: {error}")))?;
    let spawned = Command::new(&program)
        .arg("demo-child")
        .arg(store)
        .arg(history.writers().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut writers = Writers(spawned.map_err(|error| Failure::file("starting", &program, &error))?);
    let pipe =
        writers.0.stdout.take().ok_or_else(|| Failure::error("the writers have no standard output"))?;
    let spread_ms = longest_ms.saturating_sub(SHORTEST_MS);
    let moment = Duration::from_millis(SHORTEST_MS + Random::new().below(spread_ms + 1));

    let reported = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| drain(pipe, &reported));
        // Whatever happens here, the writers must end, or the reader never would.
        let waited = wait_for_moment(ui, &mut writers, &reported, moment);
        let ended = writers.kill();
        let reports =
            reader.join().map_err(|_| Failure::error("reading the writers' reports panicked"))??;
        let (flowing, in_flight) = waited?;
        let status = ended?;
        Ok(Run {
            acknowledged: reports.acknowledged,
            flowing,
            commits: reports.commits,
            syncs: reports.syncs,
            crashed: in_flight && status.signal() == Some(SIGKILL),
        })
    })
}

/// Waits until commits have flowed for `moment` and are flowing still.
fn wait_for_moment(
    ui: &Ui,
    writers: &mut Writers,
    reported: &AtomicU64,
    moment: Duration,
) -> Outcome<(Duration, bool)> {
    let mut first: Option<Instant> = None;
    let mut last = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(1));
        ui.check_interrupt()?;
        if let Some(status) = writers.ended()? {
            // Ctrl-C goes to both processes, and may have reached this one second.
            std::thread::sleep(FLOWING);
            ui.check_interrupt()?;
            return Err(Failure::error(format!("the writers ended by themselves: {status}")));
        }
        let count = reported.load(Ordering::Relaxed);
        if count > last.0 {
            last = (count, Instant::now());
            first.get_or_insert(last.1);
        }
        let flowing = count > 0 && last.1.elapsed() < FLOWING;
        match first {
            Some(first) if first.elapsed() >= moment && flowing => return Ok((first.elapsed(), true)),
            _ if last.1.elapsed() > PATIENCE => {
                return Err(Failure::error(format!("nothing was committed for {} s", PATIENCE.as_secs())));
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Reports {
    acknowledged: Vec<Acknowledged>,
    commits: u64,
    syncs: u64,
}

/// Reads the pipe to its end: what the writers put into it outlives them.
fn drain(pipe: impl Read, reported: &AtomicU64) -> Outcome<Reports> {
    let mut reports = Reports::default();
    for line in BufReader::with_capacity(256 << 10, pipe).lines() {
        let line = line.map_err(|error| Failure::error(format!("reading the writers' reports: {error}")))?;
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            ("A", &[writer, sequence, commit_us]) => {
                let commit_us = u32::try_from(commit_us).unwrap_or(u32::MAX);
                reports.acknowledged.push(Acknowledged { writer: writer as u32, sequence, commit_us });
                reported.fetch_add(1, Ordering::Relaxed);
            }
            ("S", &[commits, syncs]) => (reports.commits, reports.syncs) = (commits, syncs),
            // A report is written whole or not at all.
            _ => return Err(Failure::error(format!("the writers reported `{line}`"))),
        }
    }
    Ok(reports)
}

/// The child process; never left behind.
struct Writers(Child);

impl Writers {
    fn ended(&mut self) -> Outcome<Option<std::process::ExitStatus>> {
        self.0.try_wait().map_err(|error| Failure::error(format!("waiting for the writers: {error}")))
    }

    fn kill(&mut self) -> Outcome<std::process::ExitStatus> {
        // `kill` is SIGKILL here. It fails only if the child has ended, which the status then shows.
        let _ = self.0.kill();
        self.0.wait().map_err(|error| Failure::error(format!("waiting for the writers: {error}")))
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
