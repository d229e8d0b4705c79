//! Links between a node and its replicas, as the node says them.

use super::output::{Cell, Format, Style};
use seawall::replication::net::wire::{Follower, Link, StatusReply};
use serde_json::{Value, json};

/// As a table has them.
pub(crate) const COLUMNS: Style = Style::Columns(&[16, 3, 9, 9, 14, 14, 14, 14, 14, 12, 8, 12]);

/// How its links stand; of an older node, as far as it says so.
pub(crate) fn of(status: &StatusReply) -> Vec<Link> {
    let by_follower = |of: &Follower| Link {
        name: of.name.clone(),
        is_connected: of.is_connected,
        received: of.received,
        durable: of.durable,
        applied: of.applied,
        part: of.part.clone(),
        source_durable: status.durable,
        lag_bytes: status.durable.saturating_sub(of.applied),
        ..Link::default()
    };
    match status.links.is_empty() {
        true => status.followers.iter().map(by_follower).collect(),
        false => status.links.clone(),
    }
}

/// A link; all that is known of it but in a table.
pub(crate) fn cells(link: &Link, format: Format) -> Vec<Cell> {
    let text = |text: &String| if text.is_empty() { Value::Null } else { json!(text) };
    let seconds = |us: u64| json!((us / 1000) as f64 / 1e3);
    let mut cells = vec![
        ("name", json!(link.name)),
        ("log", json!(if link.is_inward { "in" } else { "out" })),
        ("state", json!(if link.is_connected { "connected" } else { "away" })),
        ("part", text(&link.part)),
        ("sent", json!(link.sent)),
        ("received", json!(link.received)),
        ("durable", json!(link.durable)),
        ("applied", json!(link.applied)),
        ("visible", json!(link.visible)),
        ("lag_bytes", json!(link.lag_bytes)),
        ("lag_s", seconds(link.lag_us)),
        ("bytes_per_s", json!(link.bytes_per_s)),
    ];
    if format != Format::Table {
        cells.extend([
            ("source_durable", json!(link.source_durable)),
            ("source_visible", json!(link.source_visible)),
            ("bytes", json!(link.bytes)),
            ("connected_s", seconds(link.connected_us)),
            ("silence_s", seconds(link.silence_us)),
            ("reconnects", json!(link.sessions.saturating_sub(1))),
            ("errors", json!(link.errors)),
        ]);
    }
    cells.extend([
        ("retained_bytes", json!(link.retained_bytes)),
        ("retained_by", text(&link.retained_by)),
        ("last_error", text(&link.last_error)),
    ]);
    cells
}
