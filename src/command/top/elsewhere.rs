//! What a node elsewhere is doing, with its links.

use super::super::elsewhere::Asked;
use super::super::output::{Cell, Format};
use super::super::{Outcome, Ui, links};
use super::{LINES_A_HEADING, LOOK, next_page};
use seawall::replication::net::wire::{Link, StatusReply};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Asks again and again. One that does not answer is no end: it may come back.
pub(super) fn run(ui: &Ui, asked: &Asked<'_>, interval: Duration, rounds: u64) -> Outcome {
    // The first answer decides whether this is somebody who can be asked.
    let mut status = asked.status()?;
    let mut asked_at = Instant::now();
    let mut list = ui.out().list(links::COLUMNS);
    let mut lines = 0;
    for round in 0..rounds {
        let until = asked_at + interval;
        while Instant::now() < until && !ui.is_interrupted() {
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
        if ui.is_interrupted() {
            break;
        }
        let took = asked_at.elapsed();
        asked_at = Instant::now();
        let now = match asked.status() {
            Ok(now) => now,
            Err(failure) => {
                ui.say(failure.message);
                continue;
            }
        };
        if round > 0 && ui.format == Format::Table && lines >= LINES_A_HEADING {
            list = next_page(list, ui, links::COLUMNS)?;
            lines = 0;
        }
        list.push(&node(&now, &status, took, ui.format))?;
        for link in &links::of(&now) {
            list.push(&links::cells(link, ui.format))?;
            lines += 1;
        }
        list.flush()?;
        (status, lines) = (now, lines + 1);
    }
    list.finish()?;
    ui.check_interrupt()
}

/// The node itself, in the columns of a link: what becomes durable, a second.
fn node(now: &StatusReply, before: &StatusReply, took: Duration, format: Format) -> Vec<Cell> {
    let more = now.durable.saturating_sub(before.durable);
    let link = Link {
        name: "(this node)".to_owned(),
        received: now.place,
        durable: now.durable,
        applied: now.applied,
        visible: now.visible,
        bytes_per_s: (more as f64 / took.as_secs_f64().max(1e-3)).round() as u64,
        last_error: now.state.clone(),
        ..Link::default()
    };
    let role = if now.is_replica { "replica" } else { "primary" };
    // What a node has none of.
    let own = |(name, value): Cell| match name {
        "log" | "sent" | "lag_bytes" | "lag_s" | "retained_bytes" => (name, Value::Null),
        "state" => (name, json!(role)),
        "last_error" if format != Format::Table => ("last_error", Value::Null),
        _ => (name, value),
    };
    super::super::links::cells(&link, format).into_iter().map(own).collect()
}
