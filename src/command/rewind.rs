//! `seawall rewind`.

use super::secure::{self, Secure};
use super::{Failure, Outcome, Ui, store};
use clap::Args;
use seawall::replication::message::{Message, Name, Why};
use seawall::replication::node::{greet, hello};
use seawall::replication::timeline::History;
use seawall::wal::OsRuntime;
use seawall::{Db, Error, Lsn};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Takes a store that was a primary back to where its log and the new primary's part, as its replica.
///
/// What the new primary has not is gone then, acknowledged here alone or not. `seawall replica` goes on with the store. Where it
/// cannot go back so far, it says so, and everything stays as it is. May be repeated.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall rewind db --to 10.0.0.2:7410 --name a --certificate a.pem --key a.key --authority \
                        ca.pem\n  seawall rewind db --to 127.0.0.1:7410 --plain-text"
)]
pub(crate) struct RewindArgs {
    /// The store's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// The new primary
    #[arg(long, value_name = "HOST:PORT", value_parser = secure::address)]
    to: String,
    /// The DNS name in its certificate, where that is not the address's
    #[arg(long, value_name = "NAME")]
    to_name: Option<String>,
    /// What this store is called: the first label of a name in its certificate
    #[arg(long, value_name = "NAME", default_value = "rewind", value_parser = secure::name)]
    name: Name,
    #[command(flatten)]
    secure: Secure,
}

pub(crate) fn run(ui: &Ui, args: RewindArgs) -> Outcome {
    let remote = args.secure.remote(std::slice::from_ref(&args.to), args.to_name.as_deref())?;
    store::require(&args.db)?;
    let builder = Db::builder(&args.db);
    // Before that nobody opens it. What it comes to is then held against what the primary says now.
    if let Some(begun) = seawall::rewinding(&builder)? {
        seawall::rewind(&builder, begun.to, begun.promised, &begun.history)?;
        ui.say(format!("the rewind to LSN {} that was cut short is made to its end", begun.to));
    }
    let db = store::open_to_read(ui, &args.db)?;
    let shipping = db.shipping();
    let (hello, tail) = (hello(&shipping, args.name.clone()), shipping.wal().tail());
    drop(shipping);
    db.close()?;
    let answer = greet(&remote, hello, ANSWER, &(OsRuntime::new() as _))
        .map_err(|error| Failure::error(format!("{} does not answer: {error}", args.to)))?;
    let (to, history): (Lsn, History) = match answer {
        // It has nothing that the new primary has not.
        Message::Welcome(welcome) => (tail.place, welcome.history),
        Message::Refuse(Why::Diverged { fork, history }) => (fork, history),
        Message::Refuse(why) => return Err(refused(&args, &why)),
        _ => return Err(Failure::error(format!("{} gives an answer that is none", args.to))),
    };
    let rewound = seawall::rewind(&builder, to, history.epoch(), &(&history).into());
    let rewound = rewound.map_err(|error| match error {
        Error::NeedsImage { .. } => Failure::from(error).hint(anew(&args)),
        other => other.into(),
    })?;
    let mut out = ui.out();
    out.object(&[
        ("store", json!(args.db.display().to_string())),
        ("lsn", json!(to.0)),
        ("epoch", json!(history.epoch())),
        ("checkpoint_lsn", json!(rewound.checkpoint_lsn.0)),
        ("cut_bytes", json!(rewound.cut_bytes)),
    ])?;
    out.finish()
}

fn anew(args: &RewindArgs) -> String {
    let db = args.db.display();
    format!(
        "nothing was changed; move {db} away, then `seawall replica {db} --of {} --name …` copies a new image",
        args.to
    )
}

fn refused(args: &RewindArgs, why: &Why) -> Failure {
    let to = &args.to;
    match why {
        Why::LogGone { first } => {
            Failure::error(format!("the log of {to} begins at LSN {first}, behind where this one's ends"))
                .hint(anew(args))
        }
        Why::ForeignStore => Failure::error(format!("{to} ships the log of another store")),
        Why::Fenced { epoch } => {
            Failure::error(format!("{to} is no primary: epoch {epoch} was promised, and its log is older"))
        }
        why => Failure::error(format!("{to} refuses: {why:?}")),
    }
}
