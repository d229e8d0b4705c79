//! A node that runs elsewhere, and what it says of itself.

use super::output::Cell;
use super::secure::{self, Secure};
use super::{Failure, Outcome};
use clap::Args;
use seawall::replication::net::Remote;
use seawall::replication::net::wire::StatusReply;
use serde_json::{Value, json};

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct Elsewhere {
    /// Ask this node, which ships its log or follows one
    #[arg(long, value_name = "HOST:PORT", value_parser = secure::address)]
    of: Option<String>,
    /// The DNS name in its certificate, where that is not the address's
    #[arg(long, value_name = "NAME", requires = "of")]
    of_name: Option<String>,
    #[command(flatten)]
    secure: Secure,
}

/// One that is to be asked.
pub(crate) struct Asked<'a> {
    pub(crate) address: &'a str,
    pub(crate) remote: Remote,
}

impl Elsewhere {
    /// Who is to be asked, if anybody is.
    pub(crate) fn asked(&self) -> Outcome<Option<Asked<'_>>> {
        let Some(of) = &self.of else { return Ok(None) };
        let remote = self.secure.remote(std::slice::from_ref(of), self.of_name.as_deref())?;
        Ok(Some(Asked { address: of, remote }))
    }
}

impl Asked<'_> {
    pub(crate) fn status(&self) -> Outcome<StatusReply> {
        let failed = |error| Failure::error(format!("{} does not say how far it is: {error}", self.address));
        self.remote.status().map_err(failed)
    }
}

/// What it says of itself.
pub(crate) fn cells(of: &str, status: &StatusReply) -> Vec<Cell> {
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
