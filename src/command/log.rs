//! `seawall log`: looking into the write-ahead log, without opening the store for writing.

use super::output::Cell;
use super::{Exit, Failure, Outcome, Ui, store};
use clap::{Args, Subcommand};
use seawall::wal::record::Kind;
use seawall::wal::{Lsn, WalReader, anchor};
use seawall_engine::record;
use serde_json::json;
use std::path::{Path, PathBuf};

mod dump;
mod stats;

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
    Stats(stats::StatsArgs),
    Verify(VerifyArgs),
}

/// Reads and checks every record of the log.
///
/// Exits with 5 if anything is damaged.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// The store's directory, or that of a log used alone
    #[arg(value_name = "DB")]
    db: PathBuf,
}

pub(crate) fn run(ui: &Ui, args: LogArgs) -> Outcome {
    match args.command {
        LogCommand::Dump(args) => dump::run(ui, args),
        LogCommand::Stats(args) => stats::run(ui, args),
        LogCommand::Verify(args) => verify(ui, &args.db),
    }
}

/// The directory of the log's own files.
fn directory(dir: &Path) -> Outcome<PathBuf> {
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

fn verify(ui: &Ui, dir: &Path) -> Outcome {
    let log = directory(dir)?;
    let (mut records, mut bytes, mut end) = (0u64, 0u64, Lsn::ZERO);
    let mut problems = Vec::new();
    match WalReader::open(&log, Lsn::ZERO) {
        Ok(mut reader) => loop {
            match reader.next_record() {
                Ok(None) => break,
                Ok(Some(found)) => {
                    records += 1;
                    bytes += found.payload.len() as u64;
                    end = found.end;
                    if found.kind == Kind::TRANSACTION
                        && let Err(why) = record::decode(found.payload)
                    {
                        problems.push(format!("LSN {}: {why}", found.lsn));
                    }
                }
                // After an error the reader has no more.
                Err(error) => problems.push(checked(error)?),
            }
        },
        Err(error) => problems.push(checked(error)?),
    }
    let mut out = ui.out();
    let count = problems.len();
    let cells: [Cell; 5] = [
        ("log", json!(log.display().to_string())),
        ("records", json!(records)),
        ("payload_bytes", json!(bytes)),
        ("end_lsn", json!(end.0)),
        ("problems", json!(problems)),
    ];
    out.object(&cells)?;
    out.finish()?;
    if count == 0 { Ok(()) } else { Err(Failure::new(Exit::Corruption, "the log is damaged")) }
}

/// Damage is a finding; anything else ends the command.
fn checked(error: seawall::wal::Error) -> Outcome<String> {
    if matches!(error, seawall::wal::Error::Corruption { .. }) {
        Ok(error.to_string())
    } else {
        Err(error.into())
    }
}
