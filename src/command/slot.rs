//! `seawall slot`: positions that a store's log is kept for.

use super::measure::units;
use super::output::Style;
use super::store;
use super::{Outcome, Ui};
use clap::{Args, Subcommand};
use seawall::SlotOptions;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Slots of a store: positions that its log is kept for, over every restart.
///
/// A replica or an archive has one, and moves it on as it comes along. One whose owner does not come back keeps the log until
/// it is dropped, or beyond its limits is lost: then its owner needs a new image of the store.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall slot create db replica-1 --bytes-max 20G --age-max 24h\n  seawall slot list db\n  \
                  seawall slot drop db replica-1"
)]
pub(crate) struct SlotArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All slots, and how much log each keeps
    List(Which),
    /// Keeps the log from the newest checkpoint on
    Create(New),
    /// Keeps no log for it any more
    Drop(One),
}

#[derive(Debug, Args)]
struct Which {
    /// The store's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
}

#[derive(Debug, Args)]
struct One {
    /// The store's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// Its name: 1 to 64 of a to z, 0 to 9, _ and -
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct New {
    #[command(flatten)]
    one: One,
    /// Log that it may keep before it is lost
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    bytes_max: Option<u64>,
    /// For how long it may keep log without being heard of, of the time that the store is open
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    age_max: Option<Duration>,
}

pub(crate) fn run(ui: &Ui, args: SlotArgs) -> Outcome {
    match args.verb {
        Verb::List(which) => list(ui, &which),
        Verb::Create(new) => {
            let db = store::open_either(ui, &new.one.db)?;
            let options = SlotOptions { bytes_max: new.bytes_max, age_max: new.age_max };
            db.create_slot(&new.one.name, options)?;
            Ok(db.close()?)
        }
        Verb::Drop(one) => {
            let db = store::open_either(ui, &one.db)?;
            db.drop_slot(&one.name)?;
            Ok(db.close()?)
        }
    }
}

fn list(ui: &Ui, which: &Which) -> Outcome {
    let db = store::open_to_read(ui, &which.db)?;
    let slots = db.slots();
    if slots.is_empty() {
        ui.say("there are no slots");
    }
    let mut list = ui.out().list(Style::Columns(&[20, 8, 14, 14, 14, 8]));
    for slot in slots {
        list.push(&[
            ("name", json!(slot.name)),
            ("state", json!(slot.state.to_string())),
            ("lsn", json!(slot.lsn.0)),
            ("confirmed", json!(slot.confirmed.0)),
            ("retained_bytes", json!(slot.retained_bytes)),
            ("idle_s", json!(slot.idle.as_secs())),
            ("bytes_max", json!(slot.options.bytes_max)),
            ("age_max_s", json!(slot.options.age_max.map(|age| age.as_secs()))),
        ])?;
    }
    list.finish()
}
