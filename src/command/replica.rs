//! `seawall replica`.

use super::measure::units;
use super::secure::{self, Secure};
use super::serve::tell_address;
use super::shipping::Ships;
use super::watching::{Shown, Watch, Watching};
use super::{Failure, Outcome, Ui, store};
use clap::Args;
use seawall::replication::message::{Name, Why};
use seawall::replication::net::{Remote, Server};
use seawall::replication::node::{
    Ear, Follower, FollowerOptions, Host, ImageSource, Keeper, Leader, LeaderOptions, Link, LinkListener,
    Status, Wire,
};
use seawall::replication::ship::replica::{Settings, State};
use seawall::replication::timeline::History;
use seawall::{Db, DbBuilder, Lsn};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod copy;

/// How long to sleep before looking whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(50);

/// Follows a store elsewhere: holds a copy of it that can be read, and that can take its place.
///
/// Where DB is not there, an image of the store is copied first, and a copy that was interrupted goes on. Then the log is followed,
/// from whoever of --of can be reached, until Ctrl-C or SIGTERM. With --listen the log is shipped on to further replicas, and
/// `seawall status --of` is answered. Ends with exit code 1 where following needs a hand: then it says which command helps.
///
/// With --metrics-addr its figures and its health can be asked for by HTTP. It is ready when it follows, and lags by no more than
/// --ready-lag.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall replica copy --of 10.0.0.1:7410 --of-name a.example --name b --certificate b.pem \\\n      \
                  --key b.key --authority ca.pem\n  seawall replica copy --of 127.0.0.1:7410 --name b --listen \
                  127.0.0.1:7411 --plain-text"
)]
pub(crate) struct ReplicaArgs {
    /// The replica's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// Who ships the log; may be given more than once: the next is tried where one does not answer
    #[arg(long = "of", value_name = "HOST:PORT", required = true, value_parser = secure::address)]
    of: Vec<String>,
    /// The DNS name in its certificate, where that is not the address's
    #[arg(long, value_name = "NAME")]
    of_name: Option<String>,
    /// What the replica is called, and its slot: the first label of a name in its certificate
    #[arg(long, value_name = "NAME", value_parser = secure::name)]
    name: Name,
    /// Ships the log on, and answers for the status, here; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Shows what the primary shows only so long after
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    delay: Option<Duration>,
    /// With --metrics-addr: ready only if it is no further behind, and heard of the primary no longer ago; 1s at least, for signs
    /// of life come twice a second
    #[arg(long, value_name = "TIME", value_parser = ready_lag, requires = "metrics_addr")]
    ready_lag: Option<Duration>,
    #[command(flatten)]
    ships: Ships,
    #[command(flatten)]
    watching: Watching,
    #[command(flatten)]
    secure: Secure,
}

fn ready_lag(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if time < Duration::from_secs(1) { Err("at least 1s".to_owned()) } else { Ok(time) }
}

pub(crate) fn run(ui: &Ui, args: ReplicaArgs) -> Outcome {
    ui.catch_interrupts()?;
    let mut watch = args.watching.start(ui, &args.db, "the replica is being opened")?;
    let remote = Arc::new(args.secure.remote(&args.of, args.of_name.as_deref())?);
    if !args.db.join("data").exists() {
        copy::image(ui, &args.db, &remote, &args.name)?;
    }
    while let Some((to, history)) = follow(ui, &args, &remote, &mut watch)? {
        ui.say(format!("goes back to LSN {to}: no record ends behind it here"));
        seawall::rewind(&Db::builder(&args.db), to, history.epoch(), &(&history).into())?;
    }
    Ok(())
}

/// Until Ctrl-C, or something that does not go away by itself; or until the log is to go back, and nothing is lost by it.
fn follow(
    ui: &Ui,
    args: &ReplicaArgs,
    remote: &Arc<Remote>,
    watch: &mut Watch,
) -> Outcome<Option<(Lsn, History)>> {
    let open = |builder: DbBuilder| builder.replica(true).events(watch.recorder());
    let db = store::open_as(ui, &args.db, open).map_err(|failure| {
        let hint = format!("`{}` makes a store that was a primary a replica", rewinding(args));
        if failure.hint.is_none() && failure.message.contains("no replica's") {
            failure.hint(hint)
        } else {
            failure
        }
    })?;
    let mut settings = Settings::new(args.name.clone());
    settings.slot = Some(args.name.clone());
    settings.addresses = u32::try_from(args.of.len()).unwrap_or(u32::MAX);
    settings.delay_us = args.delay.map_or(0, |delay| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
    let mut options = FollowerOptions::new(settings);
    options.listener = Some(watch.recorder());
    let follower = Follower::run(&db.shipping(), Arc::clone(remote) as _, options)
        .map_err(|error| Failure::error(format!("following: {error}")))?;
    let follower = Arc::new(follower);
    let start = |listen| Relay::start(args, &db, &follower, listen, watch.recorder());
    let relay = args.listen.map(start).transpose()?;
    watch.show(Arc::new(Following {
        db: db.clone(),
        follower: Arc::clone(&follower),
        leader: relay.as_ref().map(|relay| relay.leader.clone()),
        ready_lag: args.ready_lag,
    }));
    let mut out = ui.out();
    match &relay {
        Some(relay) => {
            let address = relay.server.address().to_string();
            let value = json!({ "name": args.name.as_str(), "address": address, "pid": std::process::id() });
            tell_address(ui, &format!("replica {} answers", args.name), value, &address)?;
        }
        None => out.flush()?,
    }
    let keeper = relay.as_ref().map(|relay| &*relay.keeper);
    let ended = attend(ui, args, &follower, keeper, watch);
    watch.rest("its log is closed, or goes back to that of its primary");
    if let Some(relay) = relay {
        drop(relay.server);
        relay.leader.close();
    }
    follower.stop();
    drop(follower);
    let closed = db.close();
    watch.tell(ui);
    let ended = ended?;
    closed?;
    Ok(ended)
}

/// A replica, to be looked at.
struct Following {
    db: Db,
    follower: Arc<Follower>,
    leader: Option<Leader>,
    ready_lag: Option<Duration>,
}

impl Shown for Following {
    fn db(&self) -> &Db {
        &self.db
    }

    fn links(&self) -> Vec<Link> {
        let out = self.leader.as_ref().map(Leader::links).unwrap_or_default();
        std::iter::once(self.follower.link()).chain(out).collect()
    }

    fn unready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(why) = self.db.stats().poisoned {
            reasons.push(format!("the store has failed: {why}"));
        }
        let (state, link) = (self.follower.state(), self.follower.link());
        let distance = self.follower.distance();
        if state != State::Following || distance.is_none() {
            let words = match words(&state, distance, self.follower.last_error().is_some()) {
                words if words.is_empty() => "is connecting".to_owned(),
                words => words,
            };
            reasons.push(match link.last_error {
                Some(error) => format!("{words}; last: {error}"),
                None => words,
            });
        }
        if let Some(most) = self.ready_lag {
            let behind = link.lag.max(link.silence);
            if behind > most {
                reasons.push(format!("is {behind:.1?} behind; {most:?} are allowed"));
            }
        }
        reasons
    }
}

fn attend(
    ui: &Ui,
    args: &ReplicaArgs,
    follower: &Follower,
    keeper: Option<&Keeper>,
    watch: &mut Watch,
) -> Outcome<Option<(Lsn, History)>> {
    let mut told = String::new();
    while !ui.is_interrupted() {
        watch.tick(ui);
        if let Some(back) = follower.goes_back() {
            return Ok(Some(back));
        }
        let state = follower.state();
        if let Some(failure) = needs_a_hand(args, &state, follower.last_error()) {
            return Err(failure);
        }
        let error = follower.last_error();
        let words = words(&state, follower.distance(), error.is_some());
        if !words.is_empty() && words != told {
            let error = error.filter(|_| matches!(state, State::Waiting { why: None, .. }));
            ui.say(error.map_or_else(|| words.clone(), |error| format!("{words}: {error}")));
            told = words;
        }
        if let Some(keeper) = keeper {
            keeper.tidy();
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

/// Where it stands, and whether a way leads to the primary; nothing of what is over in a moment.
fn words(state: &State, distance: Option<u8>, has_failed: bool) -> String {
    let not_serving = "who answers ships no log, or not so far yet; tries again";
    match state {
        // Before the first attempt.
        State::Waiting { why: None, .. } if !has_failed => String::new(),
        State::Waiting { why: None, .. } => "nobody who ships the log answers; tries again".to_owned(),
        State::Waiting { why: Some(why), .. } => match why {
            Why::Fenced { epoch } => {
                format!("who answers has been replaced, in epoch {epoch}; waits for the new primary")
            }
            Why::NotServing => not_serving.to_owned(),
            Why::Busy => "as many follow already as may; tries again".to_owned(),
            other => format!("refused: {other}; tries again"),
        },
        State::Following if distance.is_none() => not_serving.to_owned(),
        State::Following => "follows".to_owned(),
        State::NeedsRewind { to, .. } => format!("needs to be rewound to LSN {to}"),
        State::NeedsImage { .. } => "needs a new image".to_owned(),
        State::Broken => "the store has failed".to_owned(),
        State::Dialling | State::Greeting | State::Promising | State::Closed => String::new(),
    }
}

fn rewinding(args: &ReplicaArgs) -> String {
    let to = args.of.first().map_or("", String::as_str);
    format!("seawall rewind {} --to {to}", args.db.display())
}

/// What does not go away by itself, and what does away with it.
fn needs_a_hand(args: &ReplicaArgs, state: &State, error: Option<String>) -> Option<Failure> {
    let anew = || {
        let db = args.db.display();
        let of = args.of.first().map_or("", String::as_str);
        format!(
            "move {db} away; then `seawall replica {db} --of {of} --name {}` copies a new image",
            args.name.as_str()
        )
    };
    let (message, hint) = match state {
        State::NeedsRewind { to, .. } => {
            let what = format!("this replica has log from LSN {to} on that the primary has not");
            (what, format!("`{}` goes back to there", rewinding(args)))
        }
        State::NeedsImage { first } => {
            let what = format!("the primary's log begins at LSN {first}, behind where this replica's ends");
            (what, anew())
        }
        State::Waiting { why: Some(Why::SlotMissing), .. } => {
            let what = "the primary keeps no log for this replica, and has none from where it ends on";
            (what.to_owned(), anew())
        }
        State::Waiting { why: Some(Why::ForeignStore), .. } => {
            let what = "who answers there ships the log of another store".to_owned();
            (what, "--of names the primary, or a replica, of the store that this is a copy of".to_owned())
        }
        State::Broken => {
            let what = error.map_or_else(String::new, |error| format!(": {error}"));
            (
                format!("the replica's store has failed{what}"),
                "started again, it goes on where it can".to_owned(),
            )
        }
        _ => return None,
    };
    Some(Failure::error(message).hint(hint))
}

/// A replica that answers others: follows, and ships on.
struct Relay {
    leader: Leader,
    server: Server,
    keeper: Arc<Keeper>,
}

impl Relay {
    fn start(
        args: &ReplicaArgs,
        db: &Db,
        follower: &Arc<Follower>,
        listen: SocketAddr,
        listener: Arc<dyn LinkListener>,
    ) -> Outcome<Relay> {
        let keeper = args.ships.keeper(db);
        let mut options = LeaderOptions::default();
        options.settings = args.ships.settings()?;
        options.listener = Some(listener);
        options.keeping = Some(Arc::clone(&keeper) as _);
        let of_follower = Arc::downgrade(follower);
        options.on_fence = Some(Arc::new(move |epoch| {
            if let Some(follower) = of_follower.upgrade() {
                follower.fenced(epoch);
            }
        }));
        let of_follower = Arc::downgrade(follower);
        options.distance =
            Some(Arc::new(move || of_follower.upgrade().and_then(|follower| follower.distance())));
        let leader = Leader::serve(&db.shipping(), options)
            .map_err(|error| Failure::error(format!("shipping the log: {error}")))?;
        let host = Answers { leader: leader.clone(), follower: Arc::downgrade(follower) };
        let server = args.ships.listen(listen, &args.secure, Arc::new(host))?;
        Ok(Relay { leader, server, keeper })
    }
}

struct Answers {
    leader: Leader,
    follower: std::sync::Weak<Follower>,
}

impl Host for Answers {
    fn connected(&self, names: Option<Vec<String>>, wire: Arc<dyn Wire>) -> Option<Arc<dyn Ear>> {
        self.leader.connected(names, wire)
    }

    fn status(&self) -> Status {
        let mut status = self.leader.status();
        if let Some(follower) = self.follower.upgrade() {
            let has_failed = follower.last_error().is_some();
            status.state = words(&follower.state(), follower.distance(), has_failed);
            status.links.insert(0, follower.link());
        }
        status
    }

    fn keep(&self, slot: &str) -> std::io::Result<()> {
        self.leader.keep(slot)
    }

    fn image(&self, about: &[u8]) -> std::io::Result<Box<dyn ImageSource>> {
        self.leader.image(about)
    }
}
