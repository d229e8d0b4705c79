//! `seawall put`.

use super::compression::CompressionArg;
use super::store::{self, Place};
use super::{Failure, Outcome, Ui};
use clap::Args;
use std::io::Read;

/// Sets the value of a key; on the device when it returns.
///
/// When it returns with 0, the value is on the device: a loss of power does not take it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall put db greeting 'hello\\nworld'\n  seawall put db photo - -k blobs < photo.jpg"
)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    place: Place,
    /// The key, escaped
    key: String,
    /// The value, escaped; `-` takes the bytes of standard input as they are
    #[arg(allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    compression: CompressionArg,
}

pub(crate) fn run(ui: &Ui, args: PutArgs) -> Outcome {
    let key = ui.decode("key", &args.key)?;
    let value = if args.value == "-" { standard_input()? } else { ui.decode("value", &args.value)? };
    let db = store::open_to_write(ui, &args.place.db)?;
    let lsn = args.compression.keyspace(&db, &args.place.keyspace)?.insert(&key, &value)?;
    ui.detail(|| format!("committed at LSN {lsn}"));
    Ok(db.close()?)
}

/// One byte more than a value may have is enough for the engine to refuse it.
fn standard_input() -> Outcome<Vec<u8>> {
    let mut value = Vec::new();
    let limit = super::rows::VALUE_BYTES_MAX as u64 + 1;
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut value);
    read.map_err(|error| Failure::error(format!("reading standard input: {error}")))?;
    Ok(value)
}
