//! The raw device through a preallocated file: what no engine can beat without putting several commits into one write.

use super::{Setup, Store, Writer, driven_by_threads};
use crate::Result;
use crate::rows::Row;
use crate::workload::{Level, Workload};
use rustix::fs::{Mode, OFlags};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

pub(super) const MODE: &str = "O_DIRECT with pwritev2 and RWF_DSYNC over blocks written before, \
     every thread its own region (`sequential`: without RWF_DSYNC, one fdatasync at the end of each pass)";

const BLOCK_BYTES: usize = 4096;
/// Filled before anything is measured.
const FILE_BYTES: usize = 512 << 20;
const FILL_BYTES: usize = 4 << 20;

struct Device {
    file: OwnedFd,
    write_bytes: usize,
    durable: bool,
    threads: usize,
}

struct Region<'a> {
    device: &'a Device,
    buf: Aligned,
    start: usize,
    end: usize,
    at: usize,
}

/// Memory on the grid of direct I/O.
struct Aligned {
    memory: Vec<u8>,
    offset: usize,
    bytes: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Aligned {
        // Not zeros: a device may treat them as nothing.
        let memory: Vec<u8> = (0..bytes + BLOCK_BYTES).map(|i| crate::rows::mix(i as u64) as u8).collect();
        let offset = memory.as_ptr().align_offset(BLOCK_BYTES);
        Aligned { memory, offset, bytes }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.offset..self.offset + self.bytes]
    }
}

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let path = setup.dir.join("floor");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file =
        rustix::fs::open(&path, flags | OFlags::DIRECT, Mode::from_raw_mode(0o644)).map_err(|error| {
            format!("the file system refuses direct I/O, so there is no floor to compare with: {error}")
        })?;
    let zeros = Aligned { memory: vec![0; FILL_BYTES + BLOCK_BYTES], offset: 0, bytes: FILL_BYTES };
    let zeros = Aligned { offset: zeros.memory.as_ptr().align_offset(BLOCK_BYTES), ..zeros };
    for at in (0..FILE_BYTES).step_by(FILL_BYTES) {
        write(&file, &zeros, at, ReadWriteFlags::empty())?;
    }
    rustix::fs::fsync(&file)?;
    File::open(setup.dir)?.sync_all()?;
    let write_bytes = match setup.workload {
        // A batch's rows, a large value, in whole blocks; a put fits one.
        Workload::Batch => setup.workload.commit_bytes().next_multiple_of(BLOCK_BYTES),
        Workload::Large => setup.workload.value_bytes(),
        Workload::Sequential1m => 1 << 20,
        Workload::Sequential4m => 4 << 20,
        _ => BLOCK_BYTES,
    };
    Ok(Box::new(Device { file, write_bytes, durable: setup.level == Level::Synced, threads: setup.threads }))
}

fn write(file: &OwnedFd, buf: &Aligned, at: usize, flags: ReadWriteFlags) -> Result<()> {
    let written = rustix::io::pwritev2(file, &[IoSlice::new(buf.bytes())], at as u64, flags)?;
    if written == buf.bytes { Ok(()) } else { Err("a short write".into()) }
}

impl Store for Device {
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + '_>> {
        let region = (FILE_BYTES / self.threads) / self.write_bytes * self.write_bytes;
        let start = (FILE_BYTES / self.threads * thread).next_multiple_of(BLOCK_BYTES);
        Ok(Box::new(Region {
            device: self,
            buf: Aligned::new(self.write_bytes),
            start,
            end: start + region,
            at: start,
        }))
    }

    driven_by_threads!();
}

impl Writer for Region<'_> {
    fn commit(&mut self, _rows: &[Row<'_>]) -> Result<()> {
        let flags = if self.device.durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        write(&self.device.file, &self.buf, self.at, flags)?;
        self.at += self.device.write_bytes;
        if self.at + self.device.write_bytes > self.end {
            self.at = self.start;
            if !self.device.durable {
                rustix::fs::fdatasync(&self.device.file)?;
            }
        }
        Ok(())
    }
}
