//! Several durable writes in flight from *one* thread, by `io_uring`: the way that the log and checkpoints have for
//! many operations at once. Made by the disk seam's own queue, so that what is measured is what a store gets.

use super::device::{Figures, Row, Target, Way, filled};
use crate::command::measure::latency::Latency;
use crate::command::{Outcome, Ui};
use seawall::wal::AlignedBuf;
use seawall::wal::disk::os::OsOptions;
use seawall::wal::disk::{Completion, Disk, DiskFile, DurableWrite, Io, Op, Open, OsDisk, Queue};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a durable write is made is the seam's choice, write by write where the system refuses one.
fn method_name(durable_write: Option<DurableWrite>) -> &'static str {
    match durable_write {
        Some(DurableWrite::DirectDsync) => "io_uring, O_DIRECT + RWF_DSYNC",
        Some(DurableWrite::Dsync) => "io_uring, RWF_DSYNC",
        Some(DurableWrite::WriteThenSync) => "io_uring, write + fdatasync",
        // Nothing was written, or the seam does not tell.
        _ => "io_uring, durable",
    }
}

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
    pub(super) fn open(target: &Target) -> Ring<'_> {
        Ring { target, opened: Opened::open(target) }
    }

    /// Overwrites of `bytes` each, in order, `depth` of them in flight, for `length`. What fails, the making of the ring
    /// included, is said in the row; what else was measured is worth having.
    pub(super) fn measure(&self, ui: &Ui, bytes: u64, depth: u32, length: Duration) -> Outcome<Row> {
        let row = |method, refused, figures| Row {
            method: method_name(method),
            durable: true,
            way: Way::Ring,
            bytes,
            in_flight: depth,
            refused,
            figures,
        };
        let opened = match &self.opened {
            Ok(opened) => opened,
            Err(why) => return Ok(row(None, Some(why.clone()), None)),
        };
        let latency = Latency::new()?;
        match overwrite(ui, opened, self.target, bytes, depth, length, latency) {
            Ok(figures) => {
                ui.check_interrupt()?;
                Ok(row(opened.file.durable_write(), None, Some(figures)))
            }
            Err(error) => Ok(row(None, Some(error.to_string()), None)),
        }
    }
}

impl Opened {
    fn open(target: &Target) -> Result<Opened, String> {
        let options =
            OsOptions { allow_network: true, durable_write: Some(DurableWrite::DirectDsync), io: Io::Uring };
        // What a store would get here: where the environment says no, no ring is asked for either.
        let usual = OsDisk::new().describe(target.path.parent().unwrap_or(&target.path));
        if usual.name != "uring" {
            return Err(usual.reason);
        }
        let disk = OsDisk::try_with(options).map_err(|error| error.to_string())?;
        let file = disk.open(&target.path, Open::ReadWrite).map_err(|error| error.to_string())?;
        Ok(Opened { disk, file })
    }
}

fn overwrite(
    ui: &Ui,
    opened: &Opened,
    target: &Target,
    bytes: u64,
    depth: u32,
    length: Duration,
    latency: Latency,
) -> io::Result<Figures> {
    let mut flight = Flight {
        queue: opened.disk.queue(depth as usize)?,
        file: &opened.file,
        bytes,
        places: target.bytes / bytes,
        begun: BTreeMap::new(),
        latency,
        writes: 0,
    };
    let start = Instant::now();
    flight.submit((0..depth).map(|_| filled(bytes)).collect::<io::Result<Vec<_>>>()?)?;
    while start.elapsed() < length && !ui.is_interrupted() {
        let free = flight.reap(1)?;
        flight.submit(free)?;
    }
    flight.reap(depth as usize)?;
    Ok(Figures::of(flight.writes, start.elapsed(), &flight.latency, bytes))
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
