//! `seawall log`: looking into the write-ahead log, without opening the store for writing.

use super::{Exit, Failure, Outcome, Ui, store};
use clap::{Args, Subcommand};
use seawall::wal::anchor;
use std::path::{Path, PathBuf};

mod dump;
mod follow;
mod print;
mod select;
mod stats;
mod verify;

pub(super) use stats::read_anchor;

/// Looks into the write-ahead log.
///
/// Changes nothing.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

// They say themselves what they are.
#[derive(Debug, Subcommand)]
enum LogCommand {
    Dump(dump::DumpArgs),
    Follow(follow::FollowArgs),
    Stats(stats::StatsArgs),
    Verify(verify::VerifyArgs),
}

pub(crate) fn run(ui: &Ui, args: LogArgs) -> Outcome {
    match args.command {
        LogCommand::Dump(args) => dump::run(ui, args),
        LogCommand::Follow(args) => follow::run(ui, args),
        LogCommand::Stats(args) => stats::run(ui, args),
        LogCommand::Verify(args) => verify::run(ui, args),
    }
}

/// The directory of the log's own files.
pub(super) fn directory(dir: &Path) -> Outcome<PathBuf> {
    let inside = dir.join("log");
    if inside.is_dir() {
        return Ok(inside);
    }
    if dir.join(anchor::FILE_NAME).exists() {
        return Ok(dir.to_owned());
    }
    store::require(dir)?;
    Err(Failure::new(Exit::Corruption, format!("the store at {} has no log directory", dir.display())))
}
