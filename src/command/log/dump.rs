//! `seawall log dump`.

use super::directory;
use super::print::{Found, Printer};
use super::select::Selection;
use crate::command::{Outcome, Ui};
use clap::Args;
use seawall::wal::{Lsn, RecordRef, WalReader};

/// Prints the operations in the log, oldest first.
///
/// One a line, those of one transaction under one LSN. A keyspace whose creation is no longer in the log is shown by its
/// number, as `#7`. `remove-range` shows the first key that is removed, and as its value the first one behind it that is
/// not; none, if all are. `add` shows the number that is added.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  seawall log dump db -n 20\n  seawall log dump db -k users -o jsonl\n  \
                        seawall log dump db --start 67108864 --end 67200000")]
pub(super) struct DumpArgs {
    #[command(flatten)]
    selection: Selection,
    /// Begin at this LSN
    #[arg(long, default_value_t = 0, value_name = "LSN")]
    start: u64,
}

pub(super) fn run(ui: &Ui, args: DumpArgs) -> Outcome {
    let Selection { db, keyspace, .. } = &args.selection;
    let log = directory(db)?;
    // From the log's beginning: the names of keyspaces are in it.
    let mut reader = WalReader::open(&log, Lsn::ZERO)?;
    let mut printer = Printer::new(ui, keyspace.clone());
    let mut left = args.selection.count();
    let mut printed = 0;
    let mut end = None;
    while left > 0 {
        let Some(found) = reader.next_record()? else { break };
        if args.selection.is_past(found.lsn) {
            break;
        }
        let shown = args.selection.shows(found.lsn, Lsn(args.start));
        let RecordRef { lsn, kind, time_us, payload, .. } = found;
        end = Some(found.end);
        let some = u64::from(printer.record(&Found { lsn, kind, time_us, payload }, shown)?);
        (left, printed) = (left - some, printed + some);
    }
    printer.finish()?;
    if printed == 0 {
        ui.say(match end {
            Some(end) => format!("none of the log's records, which end at LSN {end}, is what was asked for"),
            None => "the log holds no records there: what was committed is in the data file".to_owned(),
        });
    }
    Ok(())
}
