//! Files without the kernel's cache: forgotten, and read at the device's rate.

use crate::Result;
use crate::child::Job;
use crate::drive::Measured;
use crate::histogram::Latency;
use crate::meter::Meter;
use crate::rows::mix;
use crate::seen::Seen;
use rustix::fs::{Advice, Mode, OFlags};
use seawall::wal::disk::{Disk, Op, Open};
use seawall::wal::{AlignedBuf, OsDisk};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;
const READ_BYTES: usize = 4 << 20;
/// Reads in flight of [`random_reads`].
const DEPTH: usize = 32;

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

/// Keeps the kernel from serving a store's files out of memory that the store was not given: until dropped, they are
/// forgotten many times a second, and so is what this process has mapped of them. What is written stays until it is
/// on the device.
pub(crate) struct Forgetting {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// At 20,000 reads of 4 KiB a second, about 4 MB come together between two times.
const FORGET_EVERY: Duration = Duration::from_millis(50);

impl Forgetting {
    pub(crate) fn start(dir: &Path) -> Forgetting {
        let done = Arc::new(AtomicBool::new(false));
        let (dir, is_done) = (dir.to_owned(), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                // A file may go away meanwhile.
                let _ = unmap(&dir).and_then(|()| forget(&dir));
                std::thread::sleep(FORGET_EVERY);
            }
        });
        Forgetting { done, thread: Some(thread) }
    }
}

impl Drop for Forgetting {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Shared mappings of files below a directory lose their pages; those of a file that is memory shared between processes
/// (SQLite's `-shm`) keep them.
fn unmap(dir: &Path) -> Result<()> {
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let Some(path) = words.nth(3).map(Path::new) else { continue };
        let is_memory = path.to_string_lossy().ends_with("-shm");
        if !rights.ends_with('s') || !path.starts_with(dir) || is_memory {
            continue;
        }
        let Some((from, to)) = range.split_once('-') else { continue };
        let (from, to) = (usize::from_str_radix(from, 16)?, usize::from_str_radix(to, 16)?);
        // SAFETY: of a shared mapping of a file only the page table's entries go: the next access finds the same bytes,
        // in the page cache or in the file. If the mapping has gone meanwhile the call fails, or, at worst, does the
        // same to another mapping of this child's store.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Random reads past the cache from a file of so many bytes, [`DEPTH`] at a time, by io_uring where the machine has it.
pub(crate) fn random_reads(job: &Job, bytes: u64, length: Duration) -> Result<Measured> {
    let disk = OsDisk::new();
    let path = job.dir.join("floor");
    let file = disk.open(&path, Open::CreateNew)?;
    let mut chunk = AlignedBuf::zeroed(READ_BYTES)?;
    let blocks = bytes / BLOCK_BYTES as u64;
    let mut at = 0;
    while at < blocks * BLOCK_BYTES as u64 {
        // Not zeros: a device may treat them as nothing.
        chunk.iter_mut().zip(0..).for_each(|(byte, i)| *byte = mix(at + i) as u8);
        file.write_at(&chunk, at)?;
        at += READ_BYTES as u64;
    }
    file.sync_data()?;
    forget(&job.dir)?;
    let mut queue = disk.queue(DEPTH)?;
    let mut free: Vec<AlignedBuf> =
        (0..DEPTH).map(|_| AlignedBuf::zeroed(BLOCK_BYTES)).collect::<std::io::Result<_>>()?;
    let (mut done, mut begun, mut ended, mut by_device) = (Vec::new(), 0_u64, 0_u64, 0_u64);
    let meter = Meter::start(&job.dir, &[])?;
    let start = Instant::now();
    loop {
        let is_over = start.elapsed() >= length;
        if !is_over {
            let ops = free.drain(..).map(|buf| {
                begun += 1;
                let offset = mix(begun) % blocks * BLOCK_BYTES as u64;
                Op::Read { file: file.clone(), offset, buf, len: BLOCK_BYTES, from_device: true }
            });
            queue.submit(ops.collect())?;
        }
        if queue.in_flight() == 0 {
            break;
        }
        queue.reap(1, &mut done)?;
        for completion in done.drain(..) {
            if completion.result? != BLOCK_BYTES {
                return Err("a short read".into());
            }
            ended += 1;
            by_device += u64::from(completion.from_device);
            free.extend(completion.buf);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let cost = meter.stop()?;
    if by_device < ended {
        return Err("the file system serves reads from memory: there is no floor to compare with".into());
    }
    let user_bytes = ended * BLOCK_BYTES as u64;
    let (latency, seen) = (Latency::default(), Seen::default());
    Ok(Measured { seconds, commits: ended, ops: ended, user_bytes, latency, cost, seen })
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
