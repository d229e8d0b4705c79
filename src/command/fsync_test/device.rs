//! Writes of one size, by one method, so many in flight, on a file whose blocks are all written already: the way a log
//! writes, without a log. The calls are made here and not by the disk seam, which chooses its own method, and falls
//! back to another when one is refused.

use crate::command::measure::drive::{Done, Load, drive};
use crate::command::measure::latency::{Latency, Quantiles};
use crate::command::{Failure, Outcome, Ui};
use seawall::wal::AlignedBuf;
use seawall::wal::disk::{Disk, Open, OsDisk};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

pub(super) const FILE_BYTES_MIN: u64 = 64 << 20;

/// How a write is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `pwrite` through the page cache, then `fdatasync`.
    WriteThenSync,
    /// `pwrite` through the page cache on a file opened with `O_DSYNC`; `RWF_DSYNC` does the same for one call.
    Dsync,
    /// `pwrite` past the page cache on a file opened with `O_DIRECT` and `O_DSYNC`.
    DirectDsync,
    /// `pwrite` past the page cache, *not durable*: what the device's flush costs is the difference.
    Direct,
}

/// What keeps several writes in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// As many threads, each waiting for its own write.
    Threads,
    /// One thread that submits to `io_uring`.
    #[serde(rename = "io_uring")]
    Ring,
}

impl Method {
    pub(super) const ALL: [Method; 4] =
        [Method::WriteThenSync, Method::Dsync, Method::DirectDsync, Method::Direct];

    pub(super) fn name(self) -> &'static str {
        match self {
            Method::WriteThenSync => "write + fdatasync",
            Method::Dsync => "O_DSYNC",
            Method::DirectDsync => "O_DIRECT | O_DSYNC",
            Method::Direct => "O_DIRECT, not durable",
        }
    }

    pub(super) fn is_durable(self) -> bool {
        self != Method::Direct
    }

    /// The flags that the file is opened with; `None` where the system has no such thing.
    #[cfg(target_os = "linux")]
    fn flags(self) -> Option<u32> {
        use rustix::fs::OFlags;
        let flags = match self {
            Method::WriteThenSync => OFlags::empty(),
            Method::Dsync => OFlags::DSYNC,
            Method::DirectDsync => OFlags::DIRECT | OFlags::DSYNC,
            Method::Direct => OFlags::DIRECT,
        };
        Some(flags.bits())
    }

    #[cfg(not(target_os = "linux"))]
    fn flags(self) -> Option<u32> {
        (self == Method::WriteThenSync).then_some(0)
    }

    /// One write, and what belongs to it.
    fn write(self, file: &File, buf: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(buf, offset)?;
        if self == Method::WriteThenSync { file.sync_data() } else { Ok(()) }
    }
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) durable: bool,
    pub(super) way: Way,
    pub(super) bytes: u64,
    pub(super) in_flight: u32,
    /// Why this cannot be done here; there are no figures then.
    pub(super) refused: Option<String>,
    #[serde(flatten)]
    pub(super) figures: Option<Figures>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Figures {
    pub(super) writes_per_s: f64,
    pub(super) mib_per_s: f64,
    #[serde(flatten)]
    pub(super) latency: Quantiles,
}

impl Figures {
    pub(super) fn of(writes: u64, elapsed: Duration, latency: &Latency, bytes: u64) -> Figures {
        let writes_per_s = writes as f64 / elapsed.as_secs_f64().max(1e-9);
        Figures {
            writes_per_s,
            mib_per_s: writes_per_s * bytes as f64 / f64::from(1 << 20),
            latency: latency.quantiles(),
        }
    }
}

/// The file that is overwritten.
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

impl Target {
    /// Makes it, with all its blocks written and on the device.
    pub(super) fn prepare(disk: &OsDisk, path: PathBuf, bytes: u64) -> Outcome<Target> {
        let made = disk.open(&path, Open::CreateNew);
        let filled = made.and_then(|file| file.allocate(0, bytes).and_then(|()| file.sync_data()));
        filled.map_err(|error| Failure::file("preparing", &path, &error))?;
        Ok(Target { path, bytes })
    }

    /// `in_flight` threads, each overwriting its own part of the file in order, again and again.
    pub(super) fn measure(
        &self,
        ui: &Ui,
        method: Method,
        bytes: u64,
        in_flight: u32,
        length: Duration,
    ) -> Outcome<Row> {
        let row = |refused, figures| Row {
            method: method.name(),
            durable: method.is_durable(),
            way: Way::Threads,
            bytes,
            in_flight,
            refused,
            figures,
        };
        let file = match self.open(method, bytes) {
            Ok(file) => file,
            Err(error) => return Ok(row(Some(error.to_string()), None)),
        };
        let load = Load { threads: in_flight, length, rate: None };
        let failed = |error: io::Error| Failure::file("writing", &self.path, &error);
        let part = self.bytes / u64::from(in_flight) / bytes * bytes;
        let driven = drive(ui, &load, |thread| {
            let buf = filled(bytes).map_err(failed)?;
            let (file, start) = (&file, u64::from(thread) * part);
            let mut at = 0;
            Ok(move || {
                method.write(file, &buf, start + at).map_err(failed)?;
                at = (at + bytes) % part;
                Ok(Done::WRITE)
            })
        })?;
        let figures = Figures::of(driven.ops(), driven.elapsed, &driven.latency()?, bytes);
        Ok(row(None, Some(figures)))
    }

    /// Opens the file for a method, and tries it: what is refused is refused at the first write at the latest.
    fn open(&self, method: Method, bytes: u64) -> io::Result<File> {
        let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "this system has no such flag");
        let flags = method.flags().ok_or_else(unsupported)?;
        let file = OpenOptions::new().write(true).custom_flags(flags.cast_signed()).open(&self.path)?;
        method.write(&file, &filled(bytes)?, 0)?;
        Ok(file)
    }
}

pub(super) fn filled(bytes: u64) -> io::Result<AlignedBuf> {
    let mut buf = AlignedBuf::zeroed(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    buf.fill(0xa5);
    Ok(buf)
}
