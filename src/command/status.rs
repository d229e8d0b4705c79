//! `seawall status`.

use super::compression::Method;
use super::store;
use super::{Outcome, Ui};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[cfg(feature = "serve")]
mod elsewhere;

/// What a store holds, and what its last recovery did.
///
/// Also who keeps its log, and which way it goes to the disk. With --of it is asked of one that runs: of `seawall serve
/// --replication`, or of `seawall replica --listen`; then it says how far its log is, and those are that follow it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall status db\n  seawall status db --prometheus\n  seawall status --of 127.0.0.1:7410 --plain-text"
)]
pub(crate) struct StatusArgs {
    /// The store's directory
    #[cfg_attr(feature = "serve", arg(value_name = "DB", required_unless_present = "of"))]
    #[cfg_attr(not(feature = "serve"), arg(value_name = "DB", required = true))]
    db: Option<PathBuf>,
    /// Print Prometheus' text exposition
    #[arg(long)]
    prometheus: bool,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    elsewhere: elsewhere::Elsewhere,
}

pub(crate) fn run(ui: &Ui, args: StatusArgs) -> Outcome {
    #[cfg(feature = "serve")]
    if elsewhere::run(ui, &args.elsewhere)? {
        return Ok(());
    }
    let dir = args.db.unwrap_or_default();
    let db = store::open_to_read(ui, &dir)?;
    let stats = db.stats();
    let mut out = ui.out();
    if args.prometheus {
        out.raw(stats.to_prometheus().as_bytes())?;
        return out.finish();
    }
    let recovery = db.recovery();
    let retained = stats.log_retained.iter().map(|holder| {
        json!(format!("{} from LSN {} ({} bytes, {:.0?})", holder.who, holder.lsn, holder.bytes, holder.age))
    });
    let tail = recovery.dropped_tail.as_ref();
    let mut compressed = serde_json::Map::new();
    for name in db.keyspace_names()? {
        // One that this build cannot keep is among the keyspaces all the same.
        let keyspace = db.open_keyspace(&name).ok().flatten();
        let method = keyspace.and_then(|keyspace| Method::of(keyspace.options().compression));
        compressed.extend(method.map(|method| (name, json!(method.name()))));
    }
    out.object(&[
        ("store", json!(dir.display().to_string())),
        ("keyspaces", json!(db.keyspace_names()?)),
        ("compressed", json!(compressed)),
        ("disk_bytes", json!(stats.disk_bytes)),
        ("replayed_records", json!(recovery.records)),
        ("replayed_bytes", json!(recovery.bytes)),
        ("recovery_ms", json!(recovery.took.as_micros() as f64 / 1e3)),
        ("dropped_tail", json!(tail.map(|(file, offset)| format!("{} at byte {offset}", file.display())))),
        ("io_backend", json!(recovery.backend)),
        ("io_reason", json!(recovery.backend_reason)),
        ("log_retained", retained.collect()),
    ])?;
    out.finish()
}
