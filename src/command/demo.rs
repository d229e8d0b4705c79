//! `seawall demo`: the promise, tested on the user's own machine in under a minute.
//!
//! ```text
//! calibrate the device → load a text file, read it back
//!   → 3 × { child process: 8 writers, bank transfers, synced commits → kill -9 → reopen, replay, check }
//!   → single puts at 1, 16, 64 threads beside the device's rate → report
//! ```
//!
//! The child says on a pipe which commit was acknowledged, *after* it was; what the parent has read there must be in
//! the store after the kill. The pipe itself survives the child: everything written into it is read.

use super::measure::device::{self, Device};
use super::measure::workplace::Workplace;
use super::{Exit, Failure, Outcome, Ui};
use clap::Args;
use seawall::Db;
use seawall::wal::{Disk, OsDisk};
use std::path::PathBuf;
use std::time::Instant;

mod bank;
pub(crate) mod child;
mod kill;
mod puts;
mod report;
mod text;

/// Shows in under a minute that nothing acknowledged is lost: writers, kill -9, recovery, checks, figures.
///
/// Measures the device, loads a text file, then lets a child process run writers that move money between two
/// keyspaces with synced commits, and kills it with SIGKILL in the middle, again and again. After each kill the store
/// is reopened and every acknowledged transfer is looked for; no transfer may be half done, and the total must be
/// what it was. Exits with 1 if anything was lost or half applied.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall demo\n  seawall demo /mnt/disk/try --kills 10 --seconds 30\n  seawall demo -o json"
)]
pub(crate) struct DemoArgs {
    /// Where to work: a new or empty directory on a real disk. A fresh one under the current directory without it
    dir: Option<PathBuf>,
    /// The text file whose lines are loaded as rows
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Seconds that the writers run, all runs together
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Writers at a time
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    writers: u32,
    /// How many times the writers are killed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    kills: u64,
    /// Leave the directory as it is at the end
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(ui: &Ui, args: DemoArgs) -> Outcome {
    if args.seconds * 1000 < args.kills * 500 {
        let hint = format!("--seconds {} or more", args.kills.div_ceil(2));
        return Err(Failure::usage("each run needs half a second of writing before its kill").hint(hint));
    }
    let input = text::Input::choose(args.input.clone())?;
    ui.catch_interrupts()?;
    let workplace = Workplace::create(args.dir.as_deref(), "demo")?;
    let store = workplace.path("store");
    let outcome = steps(ui, &args, &input, &workplace);
    // What went wrong can be looked into; an interrupted demo tells nothing.
    let is_of_use = match &outcome {
        Ok(report) => !report.passed(),
        Err(failure) => failure.exit != Exit::Interrupted,
    };
    if store.exists() && (args.keep || is_of_use) {
        ui.say(format!("the store is left in {}", store.display()));
    } else {
        workplace.remove()?;
    }
    let report = outcome?;
    report.print(ui)?;
    report.verdict()
}

fn steps(ui: &Ui, args: &DemoArgs, input: &text::Input, workplace: &Workplace) -> Outcome<report::Report> {
    let start = Instant::now();
    let mut report = report::Report::default();

    let disk = OsDisk::new();
    device::warn_of_memory(ui, &workplace.dir, &disk.describe(&workplace.dir).file_system);
    let device = Device::prepare(ui, disk, &workplace.dir)?;
    let rate = device.rate(ui, device::CALIBRATION)?;
    device::warn_of_rate(ui, rate);
    ui.say(format!(
        "device: {rate:.0} durable 4 KiB writes/s, one at a time, in {}",
        workplace.dir.display()
    ));
    report.device_before = rate;

    let store = workplace.path("store");
    let db = Db::open(&store)?;
    let rows = text::load(ui, &db, input)?;
    bank::open_accounts(&db)?;
    db.close()?;
    ui.say(format!("text: {rows} lines of {} loaded and read back", input.name()));
    report.text_rows = rows;

    let mut history = bank::History::new(args.writers);
    for kill in 1..=args.kills {
        let longest_ms = args.seconds * 1000 / args.kills;
        let run = kill::run_and_kill(ui, &store, &history, longest_ms)?;
        let opened = Instant::now();
        let db = Db::builder(&store).create(false).open()?;
        let recovery_ms = opened.elapsed().as_secs_f64() * 1e3;
        let mut check = history.check(&db, &run.acknowledged)?;
        check.lost += text::missing(ui, &db, input, rows)?;
        ui.say(format!(
            "kill {kill} of {}: {} transfers acknowledged in {:.1} s; reopened in {recovery_ms:.1} ms, {} log records \
             replayed; {check}",
            args.kills,
            run.acknowledged.len(),
            run.flowing.as_secs_f64(),
            db.recovery().records,
        ));
        db.close()?;
        report.add_run(&run, &check, recovery_ms);
        ui.check_interrupt()?;
    }

    let db = Db::builder(&store).create(false).open()?;
    for threads in [1, 16, 64] {
        let device_rate = device.rate(ui, device::INTERLUDE)?;
        let measured = puts::measure(ui, &db, threads, device_rate)?;
        ui.say(format!(
            "puts: {:>7.0} synced commits/s with {threads:>2} threads, {:.1} commits a sync, {:.1} × the device",
            measured.commits_per_s, measured.commits_per_sync, measured.ratio_to_device,
        ));
        report.puts.push(measured);
    }
    db.close()?;
    report.device_after = device.rate(ui, device::CALIBRATION)?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}
