//! `seawall dump`.

use super::range::RangeArgs;
use super::rows::{FileFormat, Sink};
use super::store::{self, Place};
use super::{Failure, Outcome, Ui};
use clap::Args;
use std::io::BufWriter;

/// Writes a keyspace's rows (JSONL, CSV, TSV); `load` reads them back, byte for byte.
///
/// They go to standard output in key order, one snapshot of them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall dump db > rows.jsonl\n  seawall dump db -k users --format csv | \
                        seawall load other - -k users --format csv"
)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    range: RangeArgs,
    /// The format to write
    #[arg(short, long, value_enum, default_value = "jsonl")]
    format: FileFormat,
}

pub(crate) fn run(ui: &Ui, args: DumpArgs) -> Outcome {
    let bounds = args.range.bounds(ui)?;
    let db = store::open_to_read(ui, &args.place.db)?;
    let keyspace = store::rows_to_read(&db, &args.place.keyspace)?;
    let out = BufWriter::with_capacity(256 << 10, std::io::stdout());
    let mut sink = Sink::new(out, args.format, ui.codec)?;
    let mut count = 0u64;
    if let (Some(bounds), Some(keyspace)) = (bounds, keyspace) {
        for row in keyspace.range(bounds) {
            let (key, value) =
                row.map_err(|error| Failure::from(error).context(format!("after {count} rows")))?;
            sink.push(&key, &value)?;
            count += 1;
        }
    }
    sink.finish()?;
    ui.detail(|| format!("{count} rows"));
    Ok(())
}
