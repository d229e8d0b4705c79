//! `seawall get`.

use super::output::Format;
use super::store::{self, Place};
use super::{Failure, Outcome, Ui};
use clap::Args;
use serde_json::json;

/// Prints the value of a key.
///
/// Exits with 3 if there is none.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall get db greeting\n  seawall get db 'k\\x00' -k blobs --raw > file\n  \
                        seawall get db greeting -o json"
)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    place: Place,
    /// The key, escaped
    key: String,
    /// Print the value's bytes as they are, without a line end
    #[arg(long)]
    raw: bool,
}

pub(crate) fn run(ui: &Ui, args: GetArgs) -> Outcome {
    let key = ui.decode("key", &args.key)?;
    let db = store::open_to_read(ui, &args.place.db)?;
    let keyspace = store::keyspace_to_read(&db, &args.place.keyspace)?;
    let value = keyspace
        .get(&key)?
        .ok_or_else(|| Failure::not_found(format!("no key `{}`", ui.codec.encode(&key))))?;
    let mut out = ui.out();
    if args.raw {
        out.raw(&value)?;
    } else if ui.format == Format::Table {
        out.raw(format!("{}\n", ui.codec.encode(&value)).as_bytes())?;
    } else {
        out.object(&[("key", json!(ui.codec.encode(&key))), ("value", json!(ui.codec.encode(&value)))])?;
    }
    out.finish()
}
