//! `seawall fsync-test`: what the device below a directory can do, and what a log makes of it.
//!
//! ```text
//! machine, file system, device
//!   → device   durable writes/s by method × block size × in flight      (as many threads; one thread and io_uring)
//!   → log      commits/s by committers, beside the device's rate just before
//!   → plan     how a store here would write, how many committers reach what, what is suspicious
//! ```
//!
//! It works in a directory of its own inside the one given, and removes it at the end; nothing else is touched.

use super::measure::machine::{Machine, Place};
use super::measure::units;
use super::measure::workplace::Workplace;
use super::ui::Unit;
use super::{Failure, Outcome, Ui};
use clap::Args;
use device::{Method, Target};
use report::Report;
use ring::Ring;
use seawall::wal::OsDisk;
use seawall::wal::disk::os::OsOptions;
use seawall::wal::disk::{BLOCK_BYTES, Disk};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod device;
mod log;
mod plan;
mod report;
mod ring;

/// What is written at a time, all threads together, has its place in the file that is overwritten.
const IN_FLIGHT_BYTES_MAX: u64 = 4 << 30;

/// Measures durable writes on the device below a directory, and the log's commits on top of it.
///
/// The device first: blocks that have been written before are overwritten, in order, each write durable when it
/// returns, by each method, block size and number in flight. Then the log alone: so many threads commit records of 128
/// bytes, each waiting until its own is on the device. Last a plan, and a warning if what was measured cannot be a
/// device that keeps what it is given: memory, a network file system, a flush that costs nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seawall fsync-test
  seawall fsync-test /mnt/disk --seconds 2
  seawall fsync-test --sizes 4k,16k --in-flight 1,16 --committers 1,64 -o json")]
pub(crate) struct FsyncTestArgs {
    /// An existing directory on the device to measure
    #[arg(default_value = ".", hide_default_value = true)]
    dir: PathBuf,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.5, value_name = "N", value_parser = seconds)]
    seconds: f64,
    /// Bytes of a write: multiples of 4 KiB
    #[arg(long, value_delimiter = ',', default_value = "4k,16k,64k,1M", value_name = "BYTES", value_parser = size)]
    sizes: Vec<u64>,
    /// Writes in flight
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_name = "NUMBERS", value_parser = clap::value_parser!(u32).range(1..=256))]
    in_flight: Vec<u32>,
    /// Threads that commit to the log
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128", value_name = "NUMBERS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    committers: Vec<u32>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|_| "this is no number".to_owned())?;
    if (0.01..=600.0).contains(&number) { Ok(number) } else { Err("0.01 to 600 seconds".to_owned()) }
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = units::bytes(text)?;
    let fits = bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES as u64) && bytes <= 64 << 20;
    if fits { Ok(bytes) } else { Err("a multiple of 4 KiB, up to 64 MiB".to_owned()) }
}

pub(crate) fn run(ui: &Ui, args: FsyncTestArgs) -> Outcome {
    if args.file_bytes() > IN_FLIGHT_BYTES_MAX {
        let max = units::show_bytes(IN_FLIGHT_BYTES_MAX);
        return Err(Failure::usage(format!("--sizes and --in-flight: at most {max} in flight together")));
    }
    check_dir(&args.dir)?;
    ui.catch_interrupts()?;
    let workplace = Workplace::create_inside(&args.dir, "fsync-test")?;
    let outcome = measure(ui, &args, &workplace);
    workplace.remove()?;
    let report = outcome?;
    report.print(ui)
}

/// It must be there, and be nobody's store.
fn check_dir(dir: &Path) -> Outcome {
    let found = std::fs::metadata(dir).map_err(|error| Failure::file("looking at", dir, &error))?;
    if !found.is_dir() {
        return Err(Failure::usage(format!("{} is a file; give a directory", dir.display())));
    }
    if dir.join("data").is_file() && dir.join("log").is_dir() {
        let what = format!("{} is a store: nothing else is to be written there", dir.display());
        return Err(Failure::usage(what).hint("give the directory that the store is in"));
    }
    Ok(())
}

fn measure(ui: &Ui, args: &FsyncTestArgs, workplace: &Workplace) -> Outcome<Report> {
    // Where syncs cannot be relied on is worth measuring too; it is said.
    let disk = OsDisk::with(OsOptions { allow_network: true, ..OsOptions::default() });
    let backend = disk.describe(&workplace.dir);
    let (machine, place) = (Machine::look(), Place::look(&workplace.dir, &backend));
    ui.say(format!("machine: {}", machine.line()));
    ui.say(format!("disk: {}", place.line()));
    ui.say(format!("measuring for about {:.0} s", args.estimated_s()));

    let length = Duration::from_secs_f64(args.seconds);
    let writes = measure_device(ui, args, &disk, workplace, length)?;
    let log = log::measure(ui, disk, workplace, &args.committers, length)?;
    let surroundings = plan::Surroundings {
        file_system: backend.file_system,
        is_network: backend.is_network,
        is_without_barriers: place.is_without_barriers(),
        write_cache: place.device.as_ref().and_then(|device| device.write_cache.clone()),
    };
    let warnings = plan::warnings(&surroundings, &writes);
    let plan = plan::Plan::make(&writes, &log);
    Ok(Report { machine, place, writes, log, plan, warnings })
}

fn measure_device(
    ui: &Ui,
    args: &FsyncTestArgs,
    disk: &Arc<OsDisk>,
    workplace: &Workplace,
    length: Duration,
) -> Outcome<Vec<device::Row>> {
    let target = Target::prepare(disk, workplace.path("device"), args.file_bytes())?;
    let bar = ui.progress(Some(args.device_rows() as u64), Unit::Measurements);
    let mut rows = Vec::new();
    for (method, bytes, in_flight) in args.plan() {
        bar.set_message(format!("{}, {}", method.name(), units::show_bytes(bytes)));
        rows.push(target.measure(ui, method, bytes, in_flight, length)?);
        bar.inc(1);
    }
    let ring = Ring::open(&target);
    for &bytes in &args.sizes {
        for &depth in &args.in_flight {
            bar.set_message(format!("io_uring, {}", units::show_bytes(bytes)));
            rows.push(ring.measure(ui, bytes, depth, length)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

impl FsyncTestArgs {
    /// Every measurement of the device by threads: what is not durable only as a measure for the rest.
    fn plan(&self) -> impl Iterator<Item = (Method, u64, u32)> + '_ {
        let depths = |method: Method| {
            let all = self.in_flight.iter().copied();
            all.take(if method.is_durable() { usize::MAX } else { 1 })
        };
        Method::ALL.into_iter().flat_map(move |method| {
            let of_size = move |&bytes| depths(method).map(move |depth| (method, bytes, depth));
            self.sizes.iter().flat_map(of_size)
        })
    }

    fn device_rows(&self) -> usize {
        self.plan().count() + self.sizes.len() * self.in_flight.len()
    }

    fn file_bytes(&self) -> u64 {
        let size = self.sizes.iter().copied().max().unwrap_or(0);
        let depth = self.in_flight.iter().copied().max().unwrap_or(0);
        device::FILE_BYTES_MIN.max(size * u64::from(depth))
    }

    fn estimated_s(&self) -> f64 {
        let log =
            self.committers.len() as f64 * (self.seconds + self.seconds.min(log::INTERLUDE.as_secs_f64()));
        self.device_rows() as f64 * self.seconds + log
    }
}
