//! What a node that runs says.

use super::super::elsewhere::Asked;
use super::super::links;
use super::super::measure::units::show_bytes;
use super::super::{Failure, Outcome};
use super::{DoctorArgs, Findings, ago};
use seawall::Db;
use seawall::replication::message::{Message, Name, Why};
use seawall::replication::net::wire::Link;
use seawall::replication::node::{greet, hello};
use seawall::wal::OsRuntime;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// One that is so much behind is worth a word.
const LAG: Duration = Duration::from_secs(60);

/// The node, and its links.
pub(super) fn examine(args: &DoctorArgs, asked: &Asked<'_>, found: &mut Findings) -> Outcome {
    let (of, status) = (asked.address, asked.status()?);
    if status.promised > status.epoch && !status.is_replica {
        let says = format!(
            "another store has taken its place, in epoch {}: it commits nothing any more",
            status.promised
        );
        found.problem(of, says).helps("stop it, and rewind its store to the new primary");
    }
    let role = if status.is_replica { "a replica" } else { "a primary" };
    let state = if status.state.is_empty() { String::new() } else { format!(": {}", status.state) };
    found.note(of, format!("{role}, in epoch {}{state}", status.epoch));
    let links = links::of(&status);
    if !status.is_replica && links.is_empty() {
        found.note(of, "nobody follows it");
    }
    for link in &links {
        examine_link(args, of, link, found);
    }
    Ok(())
}

fn examine_link(args: &DoctorArgs, of: &str, link: &Link, found: &mut Findings) {
    let (lag, silence) = (Duration::from_micros(link.lag_us), Duration::from_micros(link.silence_us));
    let about = match link.is_inward {
        true => format!("{of} as replica {}", link.name),
        false => format!("replica {} of {of}", link.name),
    };
    let behind = format!("{} and {} behind", show_bytes(link.lag_bytes), ago(lag));
    let kept = match link.retained_by.as_str() {
        "" => String::new(),
        who => format!("; {who} keeps {} of log for it", show_bytes(link.retained_bytes)),
    };
    let last = match link.last_error.as_str() {
        "" => String::new(),
        error => format!("; last: {error}"),
    };
    if !link.is_connected {
        let since = if silence.is_zero() { String::new() } else { format!(" for {}", ago(silence)) };
        let says = format!("it is away{since}, {behind}{kept}{last}");
        let counts = !["", "async"].contains(&link.part.as_str());
        // A name that nobody keeps log for may be of one that has gone for good.
        if link.is_inward || counts || silence >= args.silence || !kept.is_empty() {
            found
                .warning(about, says)
                .helps("start it, and look at what it says; or drop its slot, if it does not come back");
        } else {
            found.note(about, says);
        }
    } else if lag >= LAG {
        let says = format!("it is {behind}, and takes {} a second{kept}", show_bytes(link.bytes_per_s));
        found.warning(about, says).helps(
            "a replica that is slower than the primary never catches up: look at its disk and network",
        );
    } else {
        let reconnects = link.sessions.saturating_sub(1);
        found.note(about, format!("connected, {behind}{kept}; {reconnects} reconnections{last}"));
    }
}

/// What the node's log is to that of a store here.
pub(super) fn compare(asked: &Asked<'_>, dir: &Path, db: &Db, found: &mut Findings) -> Outcome {
    let (of, shown) = (asked.address, dir.display());
    let name = Name::new("doctor").ok_or_else(|| Failure::error("no name"))?;
    let mut hello = hello(&db.shipping(), name);
    // A promise that it has not heard of would fence it.
    hello.promised = hello.promised.min(hello.tail.epoch);
    let answer = greet(&asked.remote, hello, ANSWER, &(OsRuntime::new() as _));
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            found.warning(of, format!("it does not say what its log is to this store's: {error}"));
            return Ok(());
        }
    };
    let image = format!("move {shown} away; `seawall replica {shown} --of {of}` then copies a new image");
    match answer {
        Message::Welcome(_) => {
            found.note(of, "its log goes on where this store's ends: a replica here can follow it");
        }
        Message::Refuse(Why::Diverged { fork, .. }) => {
            let end = db.shipping().wal().tail().place;
            let more = show_bytes(end.0.saturating_sub(fork.0));
            let says = format!(
                "this store has {more} of log from LSN {fork} on that {of} has not: it needs a rewind"
            );
            found.problem("rewind", says).helps(format!("`seawall rewind {shown} --to {of}`"));
        }
        Message::Refuse(Why::LogGone { first }) => {
            let says = format!(
                "the log of {of} begins at LSN {first}, behind where this store's ends: it needs a new image"
            );
            found.problem("image", says).helps(image);
        }
        Message::Refuse(Why::ForeignStore) => {
            found.problem(of, "it ships the log of another store than this one");
        }
        Message::Refuse(why) => {
            found.warning(of, format!("a replica here could not follow it now: {why}"));
        }
        _ => {
            found.warning(of, "it gives an answer that is none");
        }
    }
    Ok(())
}
