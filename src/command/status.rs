//! `seawall status`.

use super::compression::Method;
use super::store;
use super::{Outcome, Ui};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// What a store holds, and what its last recovery did.
///
/// Also who keeps its log, and which way it goes to the disk. With --of it is asked of one that runs: of `seawall serve
/// --replication`, or of `seawall replica --listen`; then it says how far its log is, and how its links stand: to those that follow
/// it, and to the one that it follows.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall status db\n  seawall status db --prometheus\n  seawall status --of 127.0.0.1:7410 --plain-text"
)]
pub(crate) struct StatusArgs {
    /// The store's directory
    #[cfg_attr(
        feature = "serve",
        arg(value_name = "DB", required_unless_present = "of", conflicts_with = "of")
    )]
    #[cfg_attr(not(feature = "serve"), arg(value_name = "DB", required = true))]
    db: Option<PathBuf>,
    /// Print Prometheus' text exposition
    #[cfg_attr(feature = "serve", arg(long, conflicts_with = "of"))]
    #[cfg_attr(not(feature = "serve"), arg(long))]
    prometheus: bool,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    elsewhere: super::elsewhere::Elsewhere,
}

pub(crate) fn run(ui: &Ui, args: StatusArgs) -> Outcome {
    #[cfg(feature = "serve")]
    if let Some(asked) = args.elsewhere.asked()? {
        return show(ui, &asked);
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
    let timeline = db.shipping().wal().timeline();
    let slots = db.slots();
    let slots = slots.iter().map(|slot| {
        json!(format!(
            "{} {}, keeps {} bytes from LSN {}",
            slot.name, slot.state, slot.retained_bytes, slot.lsn
        ))
    });
    out.object(&[
        ("store", json!(dir.display().to_string())),
        ("role", json!(if db.shipping().is_replica() { "replica" } else { "primary" })),
        ("epoch", json!(timeline.epoch)),
        ("promised", json!(timeline.promised)),
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
        ("slots", slots.collect()),
    ])?;
    out.finish()
}

#[cfg(feature = "serve")]
fn show(ui: &Ui, asked: &super::elsewhere::Asked<'_>) -> Outcome {
    use super::output::Format;
    use super::{elsewhere, links};
    use seawall::replication::net::wire::Link;
    use serde_json::Value;

    let status = asked.status()?;
    let links = links::of(&status);
    let mut node = elsewhere::cells(asked.address, &status);
    let mut out = ui.out();
    if ui.format != Format::Table {
        let object = |link: &Link| -> Value {
            let cells = links::cells(link, ui.format);
            Value::Object(cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        };
        node.push(("follows", links.iter().find(|link| link.is_inward).map_or(Value::Null, object)));
        node.push(("followers", links.iter().filter(|link| !link.is_inward).map(object).collect()));
        out.object(&node)?;
        return out.finish();
    }
    out.object(&node)?;
    out.finish()?;
    if !links.iter().any(|link| !link.is_inward) {
        ui.say("nobody follows");
    }
    let mut list = ui.out().list(links::COLUMNS);
    for link in &links {
        list.push(&links::cells(link, ui.format))?;
    }
    list.finish()
}
