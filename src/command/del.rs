//! `seawall del`.

use super::store::{self, Place};
use super::{Failure, Outcome, Ui};
use clap::Args;
use seawall::Readable;

/// Removes a key.
///
/// Exits with 3, and changes nothing, if there is none.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  seawall del db greeting")]
pub(crate) struct DelArgs {
    #[command(flatten)]
    place: Place,
    /// The key, escaped
    key: String,
}

pub(crate) fn run(ui: &Ui, args: DelArgs) -> Outcome {
    let key = ui.decode("key", &args.key)?;
    let db = store::open_to_write(ui, &args.place.db)?;
    let keyspace = store::keyspace_to_read(&db, &args.place.keyspace)?;
    let existed = db.transact(|transaction| {
        let existed = transaction.get(&keyspace, &key)?.is_some();
        if existed {
            transaction.remove(&keyspace, &key)?;
        }
        Ok(existed)
    })?;
    db.close()?;
    if existed { Ok(()) } else { Err(Failure::not_found(format!("no key `{}`", ui.codec.encode(&key)))) }
}
