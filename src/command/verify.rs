//! `seawall verify`.

use super::store;
use super::ui::Unit;
use super::{Exit, Failure, Outcome, Ui};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Reads and checks everything in a store.
///
/// Every block, link and checksum, the keys' order, the free space, every log record. Changes nothing. Exits with 5 if anything is damaged.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  seawall verify db -o json")]
pub(crate) struct VerifyArgs {
    /// The store's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
}

pub(crate) fn run(ui: &Ui, args: VerifyArgs) -> Outcome {
    // What keeps the store from being opened is all that can be said of it.
    let db = store::open_to_read(ui, &args.db).map_err(Failure::unless_verifying)?;
    let bar = ui.progress(Some(0), Unit::Blocks);
    let report = db.verify(|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let report = report?;
    let mut out = ui.out();
    out.object(&[
        ("store", json!(args.db.display().to_string())),
        ("blocks", json!(report.blocks)),
        ("rows", json!(report.rows)),
        ("runs", json!(report.runs)),
        ("run_rows", json!(report.run_rows)),
        ("leaf_bytes", json!(report.leaf_bytes)),
        ("leaf_bytes_stored", json!(report.leaf_bytes_stored)),
        ("leaves_compressed", json!(report.leaves_compressed)),
        ("log_records", json!(db.recovery().records)),
        ("problems", json!(report.problems)),
    ])?;
    out.finish()?;
    match report.problems.len() {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Corruption, "1 problem found")),
        count => Err(Failure::new(Exit::Corruption, format!("{count} problems found"))),
    }
}
