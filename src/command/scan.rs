//! `seawall scan`.

use super::output::Style;
use super::range::RangeArgs;
use super::store::{self, Place};
use super::{Outcome, Ui};
use clap::Args;
use serde_json::json;

/// Prints keys and values in key order.
///
/// One snapshot of them: a key and its value a line, a tab between them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall scan db --limit 10\n  seawall scan db -k users --prefix 'eu/' --keys-only\n  \
                        seawall scan db --from a --to b --reverse -o jsonl"
)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    range: RangeArgs,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// Keys without values
    #[arg(long)]
    keys_only: bool,
}

pub(crate) fn run(ui: &Ui, args: ScanArgs) -> Outcome {
    let bounds = args.range.bounds(ui)?;
    let db = store::open_to_read(ui, &args.place.db)?;
    let keyspace = store::rows_to_read(&db, &args.place.keyspace)?;
    let mut list = ui.out().list(Style::Tabs);
    if let (Some(bounds), Some(keyspace)) = (bounds, keyspace) {
        let mut rows = keyspace.range(bounds);
        let mut left = args.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(row) = (if args.reverse { rows.next_back() } else { rows.next() }) else { break };
            let (key, value) = row?;
            let key = ("key", json!(ui.codec.encode(&key)));
            if args.keys_only {
                list.push(&[key])?;
            } else {
                list.push(&[key, ("value", json!(ui.codec.encode(&value)))])?;
            }
            left -= 1;
        }
    }
    list.finish()
}
