//! `seawall txn`: prepared transactions whose coordinator does not come back.

use super::store;
use super::{Failure, Outcome, Ui};
use clap::{Args, Subcommand};
use seawall::txn::BranchName;
use seawall::{Db, Heuristic, Prepared, Xid};
use serde_json::json;
use std::path::PathBuf;

/// Prepared transactions of a store: lists them, and ends them by hand.
///
/// A prepared transaction waits for its coordinator, holds its rows, and ends by itself once the coordinator is back. To end
/// it by hand is a guess: other stores may do the opposite. That it was so is kept until it is forgotten, and the
/// coordinator is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall txn list db\n  seawall txn rollback db 1937178625.01…00.02…00\n  \
                        seawall txn forget db 1937178625.01…00.02…00"
)]
pub(crate) struct TxnArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Those that are in doubt, and those that were ended by hand and are not forgotten
    List(Which),
    /// Ends one: its writes are made
    Commit(One),
    /// Ends one: its writes are dropped
    Rollback(One),
    /// Forgets that one was ended by hand
    Forget(One),
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
    /// Which, as `list` shows it: FORMAT.GTRID.BQUAL
    #[arg(value_name = "XID")]
    xid: Xid,
}

pub(crate) fn run(ui: &Ui, args: TxnArgs) -> Outcome {
    match args.verb {
        Verb::List(which) => list(ui, &which),
        Verb::Commit(one) => end(ui, &one, |prepared| prepared.complete(Heuristic::Committed).map(drop)),
        Verb::Rollback(one) => end(ui, &one, |prepared| prepared.complete(Heuristic::RolledBack).map(drop)),
        Verb::Forget(one) => end(ui, &one, Prepared::forget),
    }
}

fn list(ui: &Ui, which: &Which) -> Outcome {
    let db = store::open_to_read(ui, &which.db)?;
    let mut found = 0;
    let mut out = ui.out();
    for prepared in db.prepared().chain(db.heuristics()) {
        found += 1;
        let state = match prepared.heuristic() {
            Some(outcome) => format!("{outcome} by hand"),
            None => "in doubt".to_owned(),
        };
        // Of our own coordinators' transactions the name says more.
        let name = BranchName::of(prepared.xid());
        let coordinator = name.as_ref().map(|name| name.txn.coordinator.to_string());
        let others = name.and_then(|name| name.ends).map(|(protocol, group)| {
            let nodes: Vec<String> = group.participants.iter().map(ToString::to_string).collect();
            format!("{protocol:?} over {}", nodes.join(" "))
        });
        out.object(&[
            ("xid", json!(prepared.xid().to_string())),
            ("state", json!(state)),
            ("age_s", json!(prepared.age().as_secs())),
            ("keys_held", json!(prepared.locked_keys())),
            ("bytes", json!(prepared.pinned_bytes())),
            ("coordinator", json!(coordinator)),
            ("ends", json!(others)),
        ])?;
    }
    if found == 0 {
        ui.say("nothing is prepared");
    }
    out.finish()
}

fn end(ui: &Ui, one: &One, how: impl FnOnce(&Prepared) -> seawall::Result<()>) -> Outcome {
    let db = store::open_to_write(ui, &one.db)?;
    let prepared = find(&db, &one.xid)?;
    how(&prepared)?;
    drop(prepared);
    db.close()?;
    Ok(())
}

fn find(db: &Db, xid: &Xid) -> Outcome<Prepared> {
    db.prepared_by(xid)?.ok_or_else(|| {
        Failure::not_found(format!("{xid} is not prepared in this store"))
            .hint("`seawall txn list DB` shows what is; what is not there has its outcome")
    })
}
