//! What a directory's file system can do, and how fast: found out on a scratch file without a name, or whose name is
//! gone as soon as the file is open.

use super::durable::DurableWrite;
use super::file::OsFile;
use super::{OsDisk, sys};
use crate::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Backend, Choice, Disk, DiskFile, Io, Open};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The scratch file that is measured: allocated, so that a write is an overwrite, as in a log.
const BLOCKS: u64 = 64;
/// Writes by one method before it is the next one's turn: short, so that a burst of other work hits all of them.
const WRITES_PER_TURN: u64 = 4;

/// How files of `dir` are read and written.
pub(super) fn describe(disk: &OsDisk, dir: &Path) -> Backend {
    let file_system = sys::file_system_of(dir);
    Backend {
        name: disk.io_choice().name(),
        reason: format!("{}; {}", disk.io_choice().reason(), reason(disk, dir)),
        file_system: file_system.name.to_owned(),
        is_network: file_system.network,
        is_copy_on_write: file_system.copy_on_write,
    }
}

fn reason(disk: &OsDisk, dir: &Path) -> String {
    let file = match tried(disk, dir) {
        Ok(file) => file,
        Err(error) => return format!("how durable writes are made here could not be tried ({error})"),
    };
    let writes = match file.method() {
        DurableWrite::DirectDsync => "direct I/O with RWF_DSYNC works here",
        DurableWrite::Dsync => "durable writes go through the page cache with RWF_DSYNC",
        DurableWrite::WriteThenSync => "durable writes are made by write and fdatasync",
    };
    let reads = if file.reads_device() { "" } else { "; recovery cannot read past the page cache" };
    format!("{writes}{reads}")
}

/// A scratch file that one durable write and one direct read have been tried on.
fn tried(disk: &OsDisk, dir: &Path) -> io::Result<OsFile> {
    let file = scratch_file(disk, dir, disk.durable_write())?;
    let mut block = AlignedBuf::zeroed(BLOCK_BYTES)?;
    file.write_durable_at(&block, 0)?;
    file.read_device_at(&mut block, 0)?;
    Ok(file)
}

/// Durable 4 KiB overwrites a second in `dir`, by each way that its file system does not refuse. `budget` bounds the
/// writing; the preparation takes about as long as one allocation of 256 KiB and its sync.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use seawall_wal::disk::os::probe_durable_write;
/// let rates = probe_durable_write("store".as_ref(), std::time::Duration::from_millis(50))?;
/// let quickest = rates.iter().max_by(|a, b| a.1.total_cmp(&b.1));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// What the system says to creating and writing a file there.
pub fn probe_durable_write(dir: &Path, budget: Duration) -> io::Result<Vec<(DurableWrite, f64)>> {
    let rate = |run: &Run| {
        let took: Duration = run.took.iter().sum();
        run.took.len() as f64 / took.as_secs_f64().max(1e-9)
    };
    Ok(measure(dir, budget)?.iter().map(|run| (run.method, rate(run))).collect())
}

/// One way's writes.
struct Run {
    method: DurableWrite,
    file: OsFile,
    /// How long each took.
    took: Vec<Duration>,
}

#[expect(clippy::disallowed_methods, reason = "the device's speed is measured by the real clock")]
fn measure(dir: &Path, budget: Duration) -> io::Result<Vec<Run>> {
    let disk = OsDisk::with(super::OsOptions { allow_network: true, io: Io::Blocking, durable_write: None });
    let block = AlignedBuf::zeroed(BLOCK_BYTES)?;
    let mut runs = Vec::new();
    for method in DurableWrite::ALL {
        let file = scratch_file(&disk, dir, method)?;
        file.allocate(0, BLOCKS * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        file.write_durable_at(&block, 0)?;
        if file.method() == method {
            runs.push(Run { method, file, took: Vec::new() });
        }
    }
    let end = Instant::now() + budget;
    loop {
        for run in &mut runs {
            // On a slow device one write each has to do.
            let turn = if run.took.is_empty() { 1 } else { WRITES_PER_TURN };
            for _ in 0..turn {
                let started = Instant::now();
                run.file.write_durable_at(&block, run.took.len() as u64 % BLOCKS * BLOCK_BYTES as u64)?;
                run.took.push(started.elapsed());
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    runs.retain(|run| run.file.method() == run.method);
    Ok(runs)
}

/// How long a log measures when it is created.
const BUDGET: Duration = Duration::from_millis(50);
/// By how much another way must beat the first: what is measured in so short a time is rough. With few writes, rougher.
const CLEARLY: f64 = 1.15;
const CLEARLY_OF_FEW: f64 = 2.0;
const FEW: usize = 16;

/// `SEAWALL_PROBE=0` in the environment: nothing is measured.
pub(super) fn is_switched_off() -> bool {
    std::env::var_os("SEAWALL_PROBE").is_some_and(|value| value == "0")
}

/// The way to write durably in `dir`: the first that is not refused, unless another is clearly quicker.
pub(super) fn choose(dir: &Path) -> Choice {
    match measure(dir, BUDGET) {
        Ok(runs) => choose_among(runs.into_iter().map(|run| (run.method, run.took)).collect()),
        Err(error) => Choice { way: None, reason: format!("durable writes could not be measured ({error})") },
    }
}

/// Compared by medians, which a burst of other work does not move.
fn choose_among(mut runs: Vec<(DurableWrite, Vec<Duration>)>) -> Choice {
    let mut medians = Vec::new();
    for (method, took) in &mut runs {
        took.sort_unstable();
        if let Some(median) = took.get(took.len() / 2) {
            medians.push((*method, median.as_secs_f64().max(1e-9), took.len()));
        }
    }
    let quickest = medians.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    let (Some(first), Some(quickest)) = (medians.first(), quickest) else {
        return Choice { way: None, reason: "durable writes could not be measured".to_owned() };
    };
    let margin = if first.2.min(quickest.2) < FEW { CLEARLY_OF_FEW } else { CLEARLY };
    let chosen = if first.1 > quickest.1 * margin { quickest } else { first };
    let rates: Vec<String> =
        medians.iter().map(|(method, median, _)| format!("{method} {:.0}/s", 1.0 / median)).collect();
    Choice {
        way: Some(chosen.0),
        reason: format!("{} was chosen (measured: {})", chosen.0, rates.join(", ")),
    }
}

/// A new file that nothing else will ever see.
fn scratch_file(disk: &OsDisk, dir: &Path, method: DurableWrite) -> io::Result<OsFile> {
    let file_system = sys::file_system_of(dir);
    if let Some(fd) = sys::nameless_file(dir) {
        if file_system.copy_on_write {
            sys::switch_copy_on_write_off(&fd);
        }
        return OsFile::new(fd, dir, true, &file_system, method, false);
    }
    named_scratch_file(disk, dir, method)
}

fn named_scratch_file(disk: &OsDisk, dir: &Path, method: DurableWrite) -> io::Result<OsFile> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!(".seawall-probe-{}-{count}", std::process::id()));
    // Left behind by a process of the same number that was killed between two calls.
    if disk.exists(&path)? {
        disk.remove(&path)?;
    }
    let file = disk.open_file_with(&path, Open::CreateNew, method);
    let removed = disk.remove(&path);
    let file = file?;
    removed?;
    Ok(file)
}

#[cfg(test)]
pub(super) fn named_scratch_file_for_tests(disk: &OsDisk, dir: &Path) -> io::Result<OsFile> {
    named_scratch_file(disk, dir, DurableWrite::DirectDsync)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::DurableWrite::{DirectDsync, Dsync, WriteThenSync};
    use super::*;

    fn chosen(us: &[(DurableWrite, u64)], writes: usize) -> Option<DurableWrite> {
        let took = |us: u64| {
            let mut took = vec![Duration::from_micros(us); writes];
            // A burst of other work hits one of them.
            *took.last_mut().unwrap() *= 50;
            took
        };
        choose_among(us.iter().map(|(method, us)| (*method, took(*us))).collect()).way
    }

    #[test]
    fn another_way_must_be_clearly_quicker() {
        let near = [(DirectDsync, 100), (Dsync, 140), (WriteThenSync, 90)];
        assert_eq!(chosen(&near, 100), Some(DirectDsync));
        let clear = [(DirectDsync, 100), (Dsync, 140), (WriteThenSync, 80)];
        assert_eq!(chosen(&clear, 100), Some(WriteThenSync));
        assert_eq!(chosen(&clear, 5), Some(DirectDsync), "five writes show little");
        assert_eq!(chosen(&[(DirectDsync, 6000), (WriteThenSync, 1200)], 5), Some(WriteThenSync));
        // The first was refused: the next is the one to beat.
        assert_eq!(chosen(&[(Dsync, 100), (WriteThenSync, 95)], 100), Some(Dsync));
        assert_eq!(chosen(&[], 1), None);
    }
}
