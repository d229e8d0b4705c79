//! Files without the kernel's cache: forgotten, and read at the device's rate.

use crate::Result;
use crate::child::Job;
use crate::drive::Measured;
use crate::histogram::Latency;
use crate::meter::Meter;
use crate::seen::Seen;
use rustix::fs::{Advice, Mode, OFlags};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

const BLOCK_BYTES: usize = 4096;
const READ_BYTES: usize = 4 << 20;

/// All files below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty())?)
}

/// The kernel forgets what it holds of the files below a directory. What is not written back stays: settle first.
pub(crate) fn forget(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        rustix::fs::fadvise(open(&path, OFlags::empty())?, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads every file of a store past the cache from end to end, 4 MiB at a time, one read after the other.
pub(crate) fn read(job: &Job) -> Result<Measured> {
    let mut memory = vec![0u8; READ_BYTES + BLOCK_BYTES];
    let aligned = memory.as_ptr().align_offset(BLOCK_BYTES);
    let buf = &mut memory[aligned..aligned + READ_BYTES];
    let files = files(&job.dir.join("store"))?;
    let meter = Meter::start(&job.dir, &[])?;
    let start = Instant::now();
    let (mut bytes, mut reads) = (0, 0);
    for path in files {
        let file = open(&path, OFlags::DIRECT)?;
        let mut at = 0;
        loop {
            let read = rustix::io::pread(&file, &mut *buf, at)?;
            reads += 1;
            at += read as u64;
            if read < READ_BYTES {
                break;
            }
        }
        bytes += at;
    }
    let seconds = start.elapsed().as_secs_f64();
    let seen = Seen { read_bytes_per_s: Some(bytes as f64 / seconds), ..Seen::default() };
    let cost = meter.stop()?;
    Ok(Measured {
        seconds,
        commits: reads,
        ops: reads,
        user_bytes: bytes,
        latency: Latency::default(),
        cost,
        seen,
    })
}
