//! Several durable writes in flight from *one* thread, by `io_uring`: the way that the log and checkpoints have for
//! many operations at once. Made by the disk seam's own queue, so that what is measured is what a store gets.

use super::device::{Figures, Row, Target, Way, filled};
use crate::command::measure::latency::Latency;
use crate::command::{Failure, Outcome, Ui};
use seawall::wal::AlignedBuf;
use seawall::wal::disk::os::{DurableWrite, OsOptions};
use seawall::wal::disk::{Completion, Disk, DiskFile, Io, Op, Open, OsDisk, Queue};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

const METHOD: &str = "io_uring, durable";

/// The file to overwrite, opened by a disk that uses the ring, or why there is none.
pub(super) struct Ring<'a> {
    target: &'a Target,
    opened: Result<Opened, String>,
}

struct Opened {
    disk: Arc<OsDisk>,
    file: Arc<dyn DiskFile>,
}

impl Ring<'_> {
    pub(super) fn open(target: &Target) -> Outcome<Ring<'_>> {
        let options =
            OsOptions { allow_network: true, durable_write: Some(DurableWrite::DirectDsync), io: Io::Uring };
        // What a store would get here: where the environment says no, no ring is asked for either.
        let usual = OsDisk::new().describe(target.path.parent().unwrap_or(&target.path));
        if usual.name != "uring" {
            return Ok(Ring { target, opened: Err(usual.reason) });
        }
        let opened = match OsDisk::try_with(options) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(error.to_string()),
            Err(error) => return Err(Failure::file("opening", &target.path, &error)),
            Ok(disk) => {
                let file = disk.open(&target.path, Open::ReadWrite);
                Ok(Opened {
                    file: file.map_err(|error| Failure::file("opening", &target.path, &error))?,
                    disk,
                })
            }
        };
        Ok(Ring { target, opened })
    }

    /// Overwrites of `bytes` each, in order, `depth` of them in flight, for `length`.
    pub(super) fn measure(&self, ui: &Ui, bytes: u64, depth: u32, length: Duration) -> Outcome<Row> {
        let row = |refused, figures| Row {
            method: METHOD,
            durable: true,
            way: Way::Ring,
            bytes,
            in_flight: depth,
            refused,
            figures,
        };
        let opened = match &self.opened {
            Ok(opened) => opened,
            Err(why) => return Ok(row(Some(why.clone()), None)),
        };
        let failed = |error: io::Error| Failure::file("writing", &self.target.path, &error);
        let mut flight = Flight {
            queue: opened.disk.queue(depth as usize).map_err(failed)?,
            file: &opened.file,
            bytes,
            places: self.target.bytes / bytes,
            begun: BTreeMap::new(),
            latency: Latency::new()?,
            writes: 0,
        };
        let start = Instant::now();
        let first = (0..depth).map(|_| filled(bytes)).collect::<io::Result<Vec<_>>>().map_err(failed)?;
        flight.submit(first).map_err(failed)?;
        while start.elapsed() < length && !ui.is_interrupted() {
            let free = flight.reap(1).map_err(failed)?;
            flight.submit(free).map_err(failed)?;
        }
        flight.reap(depth as usize).map_err(failed)?;
        ui.check_interrupt()?;
        let elapsed = start.elapsed();
        Ok(row(None, Some(Figures::of(flight.writes, elapsed, &flight.latency, bytes))))
    }
}

/// The writes under way, and what is kept of those that have ended.
struct Flight<'a> {
    queue: Box<dyn Queue>,
    file: &'a Arc<dyn DiskFile>,
    bytes: u64,
    /// So many writes have their own place in the file, more than are ever in flight.
    places: u64,
    /// When each began, by its token.
    begun: BTreeMap<u64, Instant>,
    latency: Latency,
    writes: u64,
}

impl Flight<'_> {
    /// One write of each buffer, to the places that follow.
    fn submit(&mut self, buffers: Vec<AlignedBuf>) -> io::Result<()> {
        let first = self.writes + self.begun.len() as u64;
        let count = buffers.len() as u64;
        let ops = (first..).zip(buffers).map(|(number, buf)| Op::Write {
            file: Arc::clone(self.file),
            offset: number % self.places * self.bytes,
            buf,
            len: self.bytes as usize,
            durable: true,
        });
        let ops: Vec<Op> = ops.collect();
        let now = Instant::now();
        let token = self.queue.submit(ops)?;
        self.begun.extend((token..token + count).map(|token| (token, now)));
        Ok(())
    }

    /// Waits for `min` writes, and gives the buffers of all that have ended.
    fn reap(&mut self, min: usize) -> io::Result<Vec<AlignedBuf>> {
        let mut ended: Vec<Completion> = Vec::new();
        self.queue.reap(min, &mut ended)?;
        let now = Instant::now();
        let mut buffers = Vec::new();
        for Completion { token, result, buf, .. } in ended {
            result?;
            self.writes += 1;
            if let Some(begun) = self.begun.remove(&token) {
                self.latency.record(now - begun);
            }
            buffers.extend(buf);
        }
        Ok(buffers)
    }
}
