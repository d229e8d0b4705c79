//! `seawall log follow`.

use super::directory;
use super::print::{Found, Printer};
use super::select::Selection;
use crate::command::{Outcome, Ui};
use clap::Args;
use seawall::wal::{Lsn, Next, WalReader};
use std::time::Duration;

/// How long to sleep in the log before looking whether Ctrl-C was pressed, or nobody reads any more.
const LOOK: Duration = Duration::from_millis(100);

/// Prints the operations in the log as they become durable: one a line, those of one transaction under one LSN.
///
/// Works beside a process that has the store open, and changes nothing. The last transactions of a busy writer are shown
/// when it writes on, or has been idle for some milliseconds. Ends with Ctrl-C, or when what it prints is not read any more.
/// A keyspace whose creation is no longer in the log is shown by its number, as `#7`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall log follow db\n  seawall log follow db --start end -o jsonl | jq .key\n  \
                        seawall log follow db -k users -n 10"
)]
pub(super) struct FollowArgs {
    #[command(flatten)]
    selection: Selection,
    /// Begin at this LSN, or at `end`: with what becomes durable from now on
    #[arg(long, default_value = "0", value_name = "LSN", value_parser = start)]
    start: Start,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    At(Lsn),
    End,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "end" => Ok(Start::End),
        lsn => {
            lsn.parse().map(|lsn| Start::At(Lsn(lsn))).map_err(|_| format!("`{text}` is no LSN, nor `end`"))
        }
    }
}

pub(super) fn run(ui: &Ui, args: FollowArgs) -> Outcome {
    let Selection { db, keyspace, .. } = &args.selection;
    let log = directory(db)?;
    ui.catch_interrupts()?;
    // From the log's beginning: the names of keyspaces are in it.
    let mut reader = WalReader::follow(&log, Lsn::ZERO)?;
    let start = match args.start {
        Start::At(lsn) => lsn,
        Start::End => reader.limit(),
    };
    let mut printer = Printer::new(ui, keyspace.clone());
    let mut left = args.selection.count();
    let mut limit = Duration::ZERO;
    while left > 0 && !ui.is_interrupted() {
        match reader.next_timeout(limit)? {
            Next::Record(found) => {
                if args.selection.is_past(found.lsn) {
                    break;
                }
                let shown = args.selection.shows(found.lsn, start);
                let found = Found {
                    lsn: found.lsn,
                    kind: found.kind,
                    time_us: found.time_us,
                    payload: &found.payload,
                };
                left -= u64::from(printer.record(&found, shown)?);
                limit = Duration::ZERO;
            }
            // Nothing at this moment: what there was is handed on before sleeping.
            Next::TimedOut => {
                printer.flush()?;
                limit = LOOK;
            }
            _ => break,
        }
    }
    printer.finish()?;
    ui.check_interrupt()
}
