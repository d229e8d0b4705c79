//! How far a node is that ships its log, and those that follow it.

use super::super::output::{Format, Style};
use super::super::secure::{self, Secure};
use super::super::{Failure, Outcome, Ui};
use clap::Args;
use seawall::replication::net::wire::StatusReply;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(crate) struct Elsewhere {
    /// Ask this node, which ships its log or follows one
    #[arg(long, value_name = "HOST:PORT", value_parser = secure::address, conflicts_with_all = ["db", "prometheus"])]
    of: Option<String>,
    /// The DNS name in its certificate, where that is not the address's
    #[arg(long, value_name = "NAME", requires = "of")]
    of_name: Option<String>,
    #[command(flatten)]
    secure: Secure,
}

/// False: of no other node.
pub(super) fn run(ui: &Ui, args: &Elsewhere) -> Outcome<bool> {
    let Some(of) = &args.of else { return Ok(false) };
    let remote = args.secure.remote(std::slice::from_ref(of), args.of_name.as_deref())?;
    let status = remote
        .status()
        .map_err(|error| Failure::error(format!("{of} does not say how far it is: {error}")))?;
    let mut out = ui.out();
    let mut node = node(of, &status);
    if matches!(ui.format, Format::Table) {
        out.object(&node)?;
        out.finish()?;
        if status.followers.is_empty() {
            ui.say("nobody follows");
            return Ok(true);
        }
        let mut list = ui.out().list(Style::Columns(&[16, 9, 9, 14, 14, 14, 12]));
        for of in &status.followers {
            list.push(&follower(of, &status))?;
        }
        list.finish()?;
    } else {
        let followers = status.followers.iter().map(|of| {
            let cells = follower(of, &status);
            Value::Object(cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        });
        node.push(("followers", followers.collect()));
        out.object(&node)?;
        out.finish()?;
    }
    Ok(true)
}

type Cells = Vec<(&'static str, Value)>;

fn node(of: &str, status: &StatusReply) -> Cells {
    let text = |text: &String| if text.is_empty() { Value::Null } else { json!(text) };
    vec![
        ("of", json!(of)),
        ("role", json!(if status.is_replica { "replica" } else { "primary" })),
        ("state", text(&status.state)),
        ("epoch", json!(status.epoch)),
        ("promised", json!(status.promised)),
        ("tail_epoch", json!(status.tail_epoch)),
        ("end", json!(status.place)),
        ("durable", json!(status.durable)),
        ("applied", json!(status.applied)),
        ("visible", json!(status.visible)),
        ("sync", text(&status.policy)),
    ]
}

fn follower(of: &seawall::replication::net::wire::Follower, status: &StatusReply) -> Cells {
    vec![
        ("name", json!(of.name)),
        ("state", json!(if of.is_connected { "connected" } else { "away" })),
        ("part", json!(of.part)),
        ("received", json!(of.received)),
        ("durable", json!(of.durable)),
        ("applied", json!(of.applied)),
        ("lag_bytes", json!(status.durable.saturating_sub(of.durable))),
    ]
}
