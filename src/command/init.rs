//! `seawall init`.

use super::compression::CompressionArg;
use super::{Failure, Outcome, Ui};
use clap::Args;
use seawall::Db;
use serde_json::json;
use std::path::PathBuf;

/// Creates a store.
///
/// On a store that exists it changes nothing but the keyspaces asked for.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall init db\n  seawall init db -k users -k orders\n  seawall init db -k texts --compression lz4"
)]
pub(crate) struct InitArgs {
    /// The store's directory: new, empty, or a store already
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// A keyspace to create with it; may be given more than once
    #[arg(short, long, value_name = "NAME")]
    keyspace: Vec<String>,
    #[command(flatten)]
    compression: CompressionArg,
}

pub(crate) fn run(ui: &Ui, args: InitArgs) -> Outcome {
    if args.db.is_file() {
        return Err(Failure::usage(format!("{} is a file; a store is a directory", args.db.display())));
    }
    let existed = args.db.join("data").exists();
    let db = Db::open(&args.db)?;
    for name in &args.keyspace {
        args.compression.keyspace(&db, name)?;
    }
    let keyspaces = db.keyspace_names()?;
    db.close()?;
    let mut out = ui.out();
    out.object(&[
        ("store", json!(args.db.display().to_string())),
        ("created", json!(!existed)),
        ("keyspaces", json!(keyspaces)),
    ])?;
    out.finish()
}
