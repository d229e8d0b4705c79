//! `seawall promote`.

use super::secure::{self, Secure};
use super::shipping::SlotLimits;
use super::{Failure, Outcome, Ui, store};
use clap::Args;
use seawall::replication::message::{Message, Name, Why};
use seawall::replication::net::Remote;
use seawall::replication::node::{claim, greet};
use seawall::wal::OsRuntime;
use seawall::{Db, SlotState};
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Makes a stopped replica a primary, in a new epoch.
///
/// Every --peer promises first to follow no primary of an earlier epoch, and one that has more of the log is said: then that one is
/// to be promoted. Give all other replicas that count in --sync, or as many that the rest are too few to acknowledge anything. The
/// old primary, once it hears of the new epoch, takes no more writes. `seawall serve` goes on with the store.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall promote copy --slot a --slot c\n  seawall promote copy --peer 10.0.0.3:7410 --name b --certificate b.pem \
                  --key b.key --authority ca.pem"
)]
pub(crate) struct PromoteArgs {
    /// The replica's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// Another replica that promises the new epoch first; may be given more than once
    #[arg(long = "peer", value_name = "HOST:PORT", value_parser = secure::address)]
    peers: Vec<String>,
    /// A replica that will follow this store, or the old primary: what it may lack of the log is kept for it from now on; may be
    /// given more than once
    #[arg(long = "slot", value_name = "NAME", value_parser = secure::name)]
    slots: Vec<Name>,
    #[command(flatten)]
    limits: SlotLimits,
    /// Goes on where a peer promises and may not be asked how far its log is. If it has more than this one, that is lost
    #[arg(long)]
    unheard: bool,
    /// What this replica is called: the first label of a name in its certificate
    #[arg(long, value_name = "NAME", default_value = "promote", value_parser = secure::name)]
    name: Name,
    #[command(flatten)]
    secure: Secure,
}

pub(crate) fn run(ui: &Ui, args: PromoteArgs) -> Outcome {
    let peers = args.peers.iter().map(|peer| {
        let remote = args.secure.remote(std::slice::from_ref(peer), None)?;
        Ok((peer.as_str(), remote))
    });
    let peers = peers.collect::<Outcome<Vec<_>>>()?;
    let db = store::open_as(ui, &args.db, |builder| builder.replica(true))?;
    let timeline = db.shipping().wal().timeline();
    let next = |epoch: u64| {
        epoch
            .checked_add(1)
            .ok_or_else(|| Failure::error(format!("there is no epoch above {epoch}, which was promised")))
    };
    let mut epoch = next(timeline.epoch.max(timeline.promised))?;
    while let Some(higher) = promise(ui, &args, &db, &peers, epoch)? {
        epoch = next(higher)?;
    }
    // Those who were behind want what is before the new epoch: no checkpoint may give it back, the one at close included.
    let first = db.shipping().wal().first_lsn();
    let is_kept = |name: &Name| {
        db.slots().iter().any(|slot| slot.name == name.as_str() && slot.state != SlotState::Lost)
    };
    for slot in args.slots.iter().filter(|slot| !is_kept(slot)) {
        db.create_slot_at(slot.as_str(), args.limits.options(), first)?;
    }
    let place = db.shipping().promote(epoch)?;
    db.close()?;
    let mut out = ui.out();
    out.object(&[
        ("store", json!(args.db.display().to_string())),
        ("epoch", json!(epoch)),
        ("lsn", json!(place.0)),
    ])?;
    out.finish()
}

/// Lets all peers promise an epoch. One that has promised a higher one says so.
fn promise(
    ui: &Ui,
    args: &PromoteArgs,
    db: &Db,
    peers: &[(&str, Remote)],
    epoch: u64,
) -> Outcome<Option<u64>> {
    for (address, remote) in peers {
        let failed = |error: io::Error| {
            Failure::error(format!("{address} promises nothing: {error}"))
                .hint("without it: leave it out, once it is sure that it cannot acknowledge anything either")
        };
        let claim = claim(&db.shipping(), args.name.clone(), epoch);
        let answer = greet(remote, claim, ANSWER, &(OsRuntime::new() as _)).map_err(failed)?;
        match answer {
            // To somebody else.
            Message::Refuse(Why::Busy) => return Ok(Some(epoch)),
            Message::Refuse(Why::Fenced { epoch: promised }) if promised == epoch => {}
            Message::Refuse(Why::Fenced { epoch: promised }) => return Ok(Some(promised)),
            Message::Refuse(why) => return Err(failed(io::Error::other(format!("it says {why:?}")))),
            _ => return Err(failed(io::Error::other("its log is of that epoch, or a later one"))),
        }
        let status = match remote.status() {
            Ok(status) => status,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && args.unheard => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let what = format!("{address} does not tell this one how far its log is: {error}");
                return Err(Failure::error(what).hint(
                    "let it be an operator there (--operator with a name in this certificate); or, if it is sure that its log \
                     has no more, --unheard",
                ));
            }
            Err(error) => return Err(failed(error)),
        };
        if status.promised > epoch {
            return Ok(Some(status.promised));
        }
        if status.promised < epoch {
            return Err(failed(io::Error::other("it could not keep the promise")));
        }
        let tail = db.shipping().wal().tail();
        if (status.tail_epoch, status.durable) > (tail.epoch, db.shipping().wal().durable_lsn().0) {
            let what = format!("{address} has more of the log, up to LSN {}", status.durable);
            return Err(Failure::error(what).hint("promote that one, so that nothing is lost"));
        }
        ui.say(format!("{address} has promised epoch {epoch}"));
    }
    Ok(None)
}
