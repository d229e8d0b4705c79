//! `seawall log verify`.

use super::directory;
use crate::command::output::Cell;
use crate::command::ui::Unit;
use crate::command::{Exit, Failure, Outcome, Ui};
use clap::Args;
use seawall::wal::record::Kind;
use seawall::wal::{Lsn, WalReader};
use seawall_engine::record;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Records between two moves of the progress bar.
const STRIDE: u64 = 256;

/// Reads and checks every record of the log.
///
/// In large pieces, which are on their way while others are checked. Exits with 5 if anything is damaged.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  seawall log verify db -o json")]
pub(super) struct VerifyArgs {
    /// The store's directory, or that of a log used alone
    #[arg(value_name = "DB")]
    db: PathBuf,
}

pub(super) fn run(ui: &Ui, args: VerifyArgs) -> Outcome {
    let log = directory(&args.db)?;
    let begin = Instant::now();
    let (mut records, mut payload_bytes, mut read, mut end) = (0u64, 0u64, 0u64, Lsn::ZERO);
    let mut problems = Vec::new();
    let bar = ui.progress(Some(0), Unit::Bytes);
    match WalReader::open(&log, Lsn::ZERO) {
        Ok(mut reader) => loop {
            let limit = reader.limit();
            match reader.next_record() {
                Ok(None) => break,
                Ok(Some(found)) => {
                    if records == 0 {
                        bar.set_length(limit.0.saturating_sub(found.lsn.0));
                    }
                    records += 1;
                    payload_bytes += found.payload.len() as u64;
                    read += found.end.0.saturating_sub(found.lsn.0);
                    end = found.end;
                    if records.is_multiple_of(STRIDE) {
                        bar.set_position(read);
                    }
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
    bar.finish_and_clear();
    let seconds = begin.elapsed().as_secs_f64();
    let mut out = ui.out();
    let count = problems.len();
    let cells: [Cell; 8] = [
        ("log", json!(log.display().to_string())),
        ("records", json!(records)),
        ("payload_bytes", json!(payload_bytes)),
        ("bytes", json!(read)),
        ("seconds", json!(seconds)),
        ("bytes_per_s", json!((read as f64 / seconds.max(1e-9)).round())),
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
