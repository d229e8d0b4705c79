//! What a directory's file system can do, and how fast: found out on a scratch file without a name, or whose name is
//! gone as soon as the file is open.

use super::durable::DurableWrite;
use super::file::OsFile;
use super::{OsDisk, sys};
use crate::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Backend, Disk, DiskFile, Io, Open};
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
        name: disk.choice().name(),
        reason: format!("{}; {}", disk.choice().reason(), reason(disk, dir)),
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
#[expect(clippy::disallowed_methods, reason = "the device's speed is measured by the real clock")]
pub fn probe_durable_write(dir: &Path, budget: Duration) -> io::Result<Vec<(DurableWrite, f64)>> {
    let disk = OsDisk::with(super::OsOptions {
        allow_network: true,
        io: Io::Blocking,
        ..super::OsOptions::default()
    });
    let block = AlignedBuf::zeroed(BLOCK_BYTES)?;
    let mut runs = Vec::new();
    for method in DurableWrite::ALL {
        let file = scratch_file(&disk, dir, method)?;
        file.allocate(0, BLOCKS * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        file.write_durable_at(&block, 0)?;
        if file.method() == method {
            runs.push(Run { method, file, writes: 0, took: Duration::ZERO });
        }
    }
    let end = Instant::now() + budget;
    loop {
        for run in &mut runs {
            let started = Instant::now();
            for _ in 0..WRITES_PER_TURN {
                run.file.write_durable_at(&block, run.writes % BLOCKS * BLOCK_BYTES as u64)?;
                run.writes += 1;
            }
            run.took += started.elapsed();
        }
        if Instant::now() >= end {
            break;
        }
    }
    let held_out = runs.iter().filter(|run| run.file.method() == run.method);
    Ok(held_out.map(|run| (run.method, run.writes as f64 / run.took.as_secs_f64().max(1e-9))).collect())
}

struct Run {
    method: DurableWrite,
    file: OsFile,
    writes: u64,
    took: Duration,
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
