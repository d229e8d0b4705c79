//! `seawall bench`: how fast a store is here, beside the device it stands on.
//!
//! ```text
//! measure the device → for each workload and number of threads { measure the device · a store · drive it }
//!   → report: table or JSON, one HTML page, a comparison with an earlier report, thresholds
//! ```
//!
//! Every workload that fills has a fresh store, so that none pays for the one before; those that read share one that
//! is loaded first, and so do those of YCSB that do not insert. Every run is preceded by a look at the device: its rate is printed beside the store's.

use super::measure::device::{self, Device};
use super::measure::machine::{Machine, Place};
use super::measure::units;
use super::measure::workplace::Workplace;
use super::{Failure, Outcome, Ui};
use clap::{Args, ValueEnum};
use report::{Report, Settings};
use seawall::key::VALUE_BYTES_MAX;
use seawall::wal::OsDisk;
use seawall::wal::disk::Disk;
use seawall::{Durability, ReadMode};
use stage::Stage;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use verdict::Thresholds;
use workload::Workload;

mod compare;
mod html;
mod report;
mod stage;
mod verdict;
mod workload;
mod ycsb;

const LENGTH_MIN: Duration = Duration::from_millis(100);
const LENGTH_MAX: Duration = Duration::from_secs(3600);

/// Measures a store on this machine, beside the device that it stands on.
///
/// Each workload runs with each number of threads. Those that write (fillsync, fillbatch, fillrandom) begin with an
/// empty store each; those that read share one of --keys rows, and those of YCSB another; D and E, which
/// insert, have one of their own each. What is printed: operations a second and their ratio to
/// single durable 4 KiB writes of the device, measured in the same run; the median, 99th and 99.9th percentile and the
/// longest time of an operation; commits that shared a flush; bytes written to the device for each byte of keys and
/// values; processor time and context switches for each operation, those of this command included.
#[derive(Debug, Args)]
#[command(after_help = "\
With --rate the operations begin at fixed moments, whatever the store does (an open loop), and the time of each \
counts from the moment at which it was meant to begin, so that a stall is seen by all that it would have held up.

Keys have 16 bytes; values are random bytes. YCSB's own rows have 1,000 bytes: --value-size 1000. Rows of several \
gigabytes, or a small --memory, show a store that is larger than its memory. A run can be compared with an earlier one's `-o json`.

Examples:
  seawall bench
  seawall bench /mnt/disk/try --workload fillsync --threads 1,16,64 --html report.html
  seawall bench --workload fillsync --threads 8 --rate 20000 --assert-p99 5ms
  seawall bench --workload ycsb-a,ycsb-b,ycsb-c,ycsb-f,ycsb-d,ycsb-e --value-size 1000 --threads 16
  seawall bench -o json > before.json; seawall bench --compare before.json")]
pub(crate) struct BenchArgs {
    /// Where to work: a new or empty directory on a real disk. A fresh one under the current directory without it
    dir: Option<PathBuf>,
    /// What to do, one after another
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "fillsync,fillbatch,fillrandom",
        value_name = "NAMES"
    )]
    workload: Vec<Workload>,
    /// Threads at a time
    #[arg(long, value_delimiter = ',', default_value = "1,8,64", value_name = "NUMBERS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Vec<u32>,
    /// How long each workload runs with each number of threads
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = units::duration)]
    duration: Duration,
    /// Bytes of a value
    #[arg(long, default_value = "100", value_name = "BYTES", value_parser = units::bytes)]
    value_size: u64,
    /// Keys that fillrandom chooses from, and rows that the store to be read has at first
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    keys: u64,
    /// Rows in one commit of fillbatch
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: u64,
    /// How far a commit must have come before it returns
    #[arg(long, value_enum, default_value = "synced", value_name = "LEVEL")]
    durability: Level,
    /// The store's memory budget, for what is not in the data file yet and for its blocks
    #[arg(long, default_value = "256M", value_name = "BYTES", value_parser = units::bytes)]
    memory: u64,
    /// How blocks of the store's file are read
    #[arg(long, value_enum, default_value = "cached", value_name = "MODE")]
    read_mode: Mode,
    /// Open loop: begin so many operations a second, all threads together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: Option<u64>,
    /// Write one page with charts, which needs nothing else to be looked at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with what an earlier run wrote with `-o json`; exit 7 if this one is slower
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// By how much this run may be slower
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT", value_parser = percent, requires = "compare")]
    compare_tolerance: f64,
    #[command(flatten)]
    thresholds: Thresholds,
    /// Leave the stores as they are at the end
    #[arg(long)]
    keep: bool,
}

/// [`Durability`], as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// On the device: survives the power
    Synced,
    /// With the kernel: survives this process
    Written,
    /// In memory
    Memory,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Synced => "synced",
            Level::Written => "written",
            Level::Memory => "memory",
        }
    }

    fn durability(self) -> Durability {
        match self {
            Level::Synced => Durability::Synced,
            Level::Written => Durability::Written,
            Level::Memory => Durability::Memory,
        }
    }
}

/// [`ReadMode`], as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Into the block cache
    Cached,
    /// Where they lie, in a mapping of the file: for stores that fit in memory
    Mapped,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Cached => "cached",
            Mode::Mapped => "mapped",
        }
    }

    fn read_mode(self) -> ReadMode {
        match self {
            Mode::Cached => ReadMode::Cached,
            Mode::Mapped => ReadMode::Mapped,
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number =
        text.trim_end_matches('%').trim().parse::<f64>().map_err(|_| "this is no number".to_owned())?;
    if (0.0..=1000.0).contains(&number) { Ok(number) } else { Err("0 to 1000 percent".to_owned()) }
}

pub(crate) fn run(ui: &Ui, args: BenchArgs) -> Outcome {
    args.check()?;
    let earlier = args.compare.as_deref().map(Report::read).transpose()?;
    if let (Some(earlier), Some(file)) = (&earlier, &args.compare) {
        compare::check(&args.settings(), earlier, file)?;
    }
    ui.catch_interrupts()?;
    let workplace = Workplace::create(args.dir.as_deref(), "bench")?;
    let outcome = measure(ui, &args, &workplace);
    if args.keep {
        ui.say(format!("the stores are left in {}", workplace.dir.display()));
    } else {
        workplace.remove()?;
    }
    let mut report = outcome?;
    if let Some(earlier) = &earlier {
        report.comparison = compare::compare(ui, &report, earlier, args.compare_tolerance / 100.0);
    }
    if let Some(file) = &args.html {
        let written = std::fs::write(file, html::page(&report));
        written.map_err(|error| Failure::file("writing", file, &error))?;
        ui.say(format!("the report is in {}", file.display()));
    }
    report.print(ui)?;
    verdict::verdict(&args.thresholds, &report)
}

fn measure(ui: &Ui, args: &BenchArgs, workplace: &Workplace) -> Outcome<Report> {
    let disk = OsDisk::new();
    let backend = disk.describe(&workplace.dir);
    let place = Place::look(&workplace.dir, &backend);
    let machine = Machine::look();
    ui.say(format!("machine: {}", machine.line()));
    ui.say(format!("disk: {}, in {}", place.line(), place.dir));
    device::warn_of_memory(ui, &workplace.dir, &backend.file_system);
    if place.is_without_barriers() {
        ui.warn("this file system is mounted so that it does not flush the device: nothing is durable here");
    }
    let device = Device::prepare(ui, disk, &workplace.dir)?;
    let mut rates = vec![device.rate(ui, device::CALIBRATION.min(args.duration))?];
    ui.say(format!("device: {} durable 4 KiB writes/s, one at a time", units::show_count(rates[0])));
    device::warn_of_rate(ui, rates[0]);

    let modes = (args.durability.durability(), args.read_mode.read_mode());
    let mut stage = Stage::new(workplace, args.settings(), modes, args.keep);
    let mut rows = Vec::new();
    for &workload in &args.workload {
        for &threads in &args.threads {
            stage.set(ui, workload, threads)?;
            let device_rate = device.rate(ui, device::INTERLUDE.min(args.duration))?;
            rates.push(device_rate);
            let row = stage.run(ui, workload, threads, args.duration, device_rate)?;
            ui.say(row.line());
            rows.push(row);
        }
    }
    let ((io_backend, io_reason), loaded) = stage.close()?;
    rates.sort_unstable_by(f64::total_cmp);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(Report {
        seawall_bench: report::FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unix_time_s: now.map_or(0, |time| time.as_secs()),
        machine,
        place,
        io_backend,
        io_reason,
        device_writes_per_s: rates[rates.len() / 2],
        settings: args.settings(),
        loaded,
        rows,
        comparison: Vec::new(),
    })
}

impl BenchArgs {
    fn settings(&self) -> Settings {
        Settings {
            duration_s: self.duration.as_secs_f64(),
            key_bytes: workload::KEY_BYTES as u64,
            value_bytes: self.value_size,
            keys: self.keys,
            batch: self.batch,
            durability: self.durability.name().to_owned(),
            memory_bytes: self.memory,
            read_mode: self.read_mode.name().to_owned(),
            rate: self.rate,
        }
    }

    /// Everything that can be known to go wrong before anything is measured.
    fn check(&self) -> Outcome {
        if !(LENGTH_MIN..=LENGTH_MAX).contains(&self.duration) {
            return Err(Failure::usage("--duration is to be between 100ms and one hour"));
        }
        if self.value_size > VALUE_BYTES_MAX as u64 {
            let max = units::show_bytes(VALUE_BYTES_MAX as u64);
            return Err(Failure::usage(format!("--value-size: values have at most {max}")));
        }
        let Some(file) = &self.html else { return Ok(()) };
        let parent = file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        if file.is_dir() || !parent.is_dir() {
            return Err(Failure::usage(format!(
                "--html {}: there is no directory for this file",
                file.display()
            )));
        }
        Ok(())
    }
}
