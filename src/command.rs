//! The command: one file for each sub-command, and what they share.
//!
//! ```text
//! clap → Ui (what goes where) → one `run` each → Failure → exit code
//! ```
//!
//! Data goes to standard output; progress, summaries and errors to standard error. A reader that goes away
//! (`seawall scan db | head`) ends the command in silence. Keys and values are bytes: they are printed and read in
//! the escaped form of [`escape`], or in hexadecimal with `--hex`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the command is the edge: it reads the user's files, looks at the real clock and starts processes; \
              the store itself it reaches only through the library"
)]

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod completions;
mod compression;
mod del;
mod demo;
mod doctor;
mod dump;
#[cfg(feature = "serve")]
mod elsewhere;
mod escape;
mod failure;
mod fsync_test;
mod get;
mod init;
#[cfg(feature = "serve")]
mod links;
mod load;
mod log;
mod man;
mod measure;
mod output;
#[cfg(feature = "serve")]
mod promote;
mod put;
mod range;
#[cfg(feature = "serve")]
mod replica;
#[cfg(feature = "serve")]
mod rewind;
mod rows;
mod scan;
#[cfg(feature = "serve")]
mod secure;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod shipping;
mod slot;
mod status;
mod store;
mod time;
mod top;
mod torture;
mod txn;
mod ui;
mod verify;
#[cfg(feature = "serve")]
mod watching;

pub(crate) use failure::{Exit, Failure, Outcome};
pub(crate) use ui::Ui;

/// A crash-safe transactional storage engine: stores, and what is in them.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, propagate_version = true, max_term_width = 110, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// How data is printed
    #[arg(short, long, value_enum, default_value = "table", global = true, value_name = "FORMAT")]
    output: output::Format,
    /// Colours in what is printed; `auto` honours NO_COLOR
    #[arg(long, value_enum, default_value = "auto", global = true, value_name = "WHEN")]
    color: clap::ColorChoice,
    /// Errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// More about what happens, on standard error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print keys and values in hexadecimal, and read them so
    #[arg(long, global = true)]
    hex: bool,
}

const AFTER_HELP: &str = "\
Keys and values are bytes. They are printed and read with escapes: \\n \\r \\t \\\\ and \\xNN for bytes that are no \
printable ASCII.

Examples:
  seawall demo                         kill -9 in the middle, three times
  seawall init db && seawall put db k v && seawall get db k
  seawall load db people.csv && seawall scan db --limit 10

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 locked by another process, 5 corruption found, \
6 format too new, 7 a threshold was missed, 130 interrupted.";

// What a command is, it says itself, above its arguments: a line for the list, then at length. A line here would take
// the place of both.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    DemoChild(demo::child::ChildArgs),
    Init(init::InitArgs),
    Get(get::GetArgs),
    Put(put::PutArgs),
    Del(del::DelArgs),
    Scan(scan::ScanArgs),
    Load(load::LoadArgs),
    Dump(dump::DumpArgs),
    Log(log::LogArgs),
    Verify(verify::VerifyArgs),
    Doctor(doctor::DoctorArgs),
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
    #[cfg(feature = "serve")]
    Replica(replica::ReplicaArgs),
    #[cfg(feature = "serve")]
    Promote(promote::PromoteArgs),
    #[cfg(feature = "serve")]
    Rewind(rewind::RewindArgs),
    Slot(slot::SlotArgs),
    Status(status::StatusArgs),
    Top(top::TopArgs),
    Bench(bench::BenchArgs),
    FsyncTest(fsync_test::FsyncTestArgs),
    Torture(torture::TortureArgs),
    Txn(txn::TxnArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Parses the command line, runs, reports: the whole process.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new(&cli.common);
    match run(&ui, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ui.report(&failure),
    }
}

fn run(ui: &Ui, command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(ui, args),
        Command::DemoChild(args) => demo::child::run(args),
        Command::Init(args) => init::run(ui, args),
        Command::Get(args) => get::run(ui, args),
        Command::Put(args) => put::run(ui, args),
        Command::Del(args) => del::run(ui, args),
        Command::Scan(args) => scan::run(ui, args),
        Command::Load(args) => load::run(ui, args),
        Command::Dump(args) => dump::run(ui, args),
        Command::Log(args) => log::run(ui, args),
        Command::Verify(args) => verify::run(ui, args),
        Command::Doctor(args) => doctor::run(ui, args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(ui, args),
        #[cfg(feature = "serve")]
        Command::Replica(args) => replica::run(ui, args),
        #[cfg(feature = "serve")]
        Command::Promote(args) => promote::run(ui, args),
        #[cfg(feature = "serve")]
        Command::Rewind(args) => rewind::run(ui, args),
        Command::Slot(args) => slot::run(ui, args),
        Command::Status(args) => status::run(ui, args),
        Command::Top(args) => top::run(ui, args),
        Command::Bench(args) => bench::run(ui, args),
        Command::FsyncTest(args) => fsync_test::run(ui, args),
        Command::Torture(args) => torture::run(ui, args),
        Command::Txn(args) => txn::run(ui, args),
        Command::Completions(args) => completions::run(ui, args),
        Command::Man(args) => man::run(ui, args),
    }
}

/// The command line's grammar, for completions and manual pages.
pub(crate) fn grammar() -> clap::Command {
    Cli::command()
}
