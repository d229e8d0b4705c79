//! `seawall serve`.

use super::output::Format;
use super::secure::Secure;
use super::shipping::Ships;
use super::watching::{Shown, Watch, Watching};
use super::{Failure, Outcome, Ui, store};
use clap::{Args, ValueEnum};
use seawall::replication::ack::{Part, Policy};
use seawall::replication::net::Server;
use seawall::replication::node::{Keeper, Leader, LeaderOptions, Link, LinkListener};
use seawall::txn::net::{Network, NetworkOptions, Peer, Security};
use seawall::txn::{Coordinator, NodeId, Notice, Protocol, Store};
use seawall::{Ack, Db, DbBuilder};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long to sleep before looking whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(50);
/// What a node writes for its transactions waits for replicas as long as they are away: by giving up it would be taken out, where
/// they are back a moment later. A client waits as long as it likes.
const ACK_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Serves a store to other processes: as a node of transactions over several stores, and to replicas.
///
/// With --replication it ships the log to replicas (`seawall replica`), keeps it for those that are away, in a slot for each, and
/// gives images of the store to those that begin. With --sync and --ack commits wait until replicas have them.
///
/// With --node it is a participant for coordinators elsewhere (XA's verbs), a coordinator for clients, and an acceptor for Paxos Commit.
/// Who may call is said by certificates: a node by the name that `--peer` gives it, anybody else by `--client`. What was prepared
/// here and has no outcome is finished as its coordinator, or whoever knows, is reached. Ends with Ctrl-C or SIGTERM; and with exit
/// code 1 when its store fails, or when the node runs elsewhere in a later incarnation.
///
/// With --metrics-addr its figures and its health can be asked for by HTTP. It is ready when its store takes writes, and as many
/// replicas are connected as commits wait for.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall serve db --node 1 --listen 10.0.0.1:7400 --peer 2=b.example@10.0.0.2:7400 \\\n      \
                  --client app.example --certificate a.pem --key a.key --authority ca.pem\n  seawall serve db --node 1 \
                  --listen 127.0.0.1:7400 --plain-text\n  seawall serve db --replication 10.0.0.1:7410 --replica b.example \\\n      --sync \"ANY 1 \
                  (b, c)\" --ack durable --certificate a.pem --key a.key --authority ca.pem"
)]
pub(crate) struct ServeArgs {
    /// The store's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// The store's number among nodes: its own for ever
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "listen",
          required_unless_present = "replication")]
    node: Option<u64>,
    /// Where to listen; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT", requires = "node")]
    listen: Option<SocketAddr>,
    /// Another node: its number, the DNS name in its certificate, and where it listens; may be given more than once
    #[arg(long = "peer", value_name = "N=NAME@HOST:PORT", value_parser = peer, requires = "node")]
    peers: Vec<Peer>,
    /// A name in the certificate of a client that may call; may be given more than once
    #[arg(long = "client", value_name = "NAME", requires = "node")]
    clients: Vec<String>,
    /// How transactions that begin here are committed
    #[arg(long, value_enum, default_value = "two-phase", value_name = "NAME")]
    protocol: Way,
    /// The nodes that remember votes in Paxos Commit: an odd number of them, itself or peers
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,N,N",
        requires = "node",
        required_if_eq("protocol", "paxos-commit")
    )]
    acceptors: Vec<u64>,
    /// Ships the store's log to replicas that connect here; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT")]
    replication: Option<SocketAddr>,
    /// Whose acknowledgement commits wait for: `ANY 1 (a, b)`, `FIRST 2 (a, b, c)`
    #[arg(long, value_name = "POLICY", requires = "replication")]
    sync: Option<Policy>,
    /// How far those must have come with a commit
    #[arg(long, value_enum, default_value = "local", requires = "sync", value_name = "LEVEL")]
    ack: Far,
    #[command(flatten)]
    ships: Ships,
    #[command(flatten)]
    watching: Watching,
    #[command(flatten)]
    secure: Secure,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Far {
    /// Replicas are not waited for
    Local,
    /// They have it in memory
    Received,
    /// They have it on their devices
    Durable,
    /// They have applied it
    Applied,
}

impl From<Far> for Ack {
    fn from(far: Far) -> Ack {
        match far {
            Far::Local => Ack::Local,
            Far::Received => Ack::Received,
            Far::Durable => Ack::Durable,
            Far::Applied => Ack::Applied,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    TwoPhase,
    ThreePhase,
    PaxosCommit,
}

fn peer(text: &str) -> Result<Peer, String> {
    let parsed = || {
        let (node, rest) = text.split_once('=')?;
        let (name, address) = rest.split_once('@')?;
        let node = NodeId(node.parse().ok().filter(|node| *node > 0)?);
        let is_whole = !name.is_empty()
            && address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        is_whole.then(|| Peer { node, address: address.to_owned(), name: name.to_owned() })
    };
    parsed().ok_or_else(|| format!("`{text}` is not N=NAME@HOST:PORT"))
}

pub(crate) fn run(ui: &Ui, args: ServeArgs) -> Outcome {
    ui.catch_interrupts()?;
    let security = args.secure.of_txn()?;
    let options = args.node.map(|node| options(&args, node, security)).transpose()?;
    store::require(&args.db)?;
    let mut watch = args.watching.start(ui, &args.db, "the store is being opened")?;
    let open = |builder: DbBuilder| {
        let builder = builder.ack(args.ack.into()).events(watch.recorder());
        if args.node.is_some() { builder.ack_timeout(ACK_TIMEOUT) } else { builder }
    };
    let db = store::open_as(ui, &args.db, open)?;
    // First the log is shipped: what is written for transactions may wait for replicas.
    let shipped = args.replication.map(|listen| ship(&args, &db, listen, watch.recorder())).transpose()?;
    let has_begun = Arc::new(AtomicBool::new(args.node.is_none()));
    watch.show(Arc::new(Serving {
        db: db.clone(),
        leader: shipped.as_ref().map(|shipped| shipped.leader.clone()),
        sync: args.waits(),
        has_begun: Arc::clone(&has_begun),
    }));
    let address = shipped.as_ref().map(|shipped| shipped.server.address().to_string());
    if let Some(address) = &address {
        tell_address(
            ui,
            "ships its log",
            json!({ "replication": address, "pid": std::process::id() }),
            address,
        )?;
    }
    if let Some(shipped) = shipped.as_ref().filter(|_| args.node.is_some()) {
        await_replicas(ui, &args, &db, shipped, &mut watch);
    }
    let ended = Arc::new(OnceLock::new());
    let node = options.map(|options| Node::start(ui, &args, &db, options, &ended)).transpose()?;
    has_begun.store(true, Ordering::Relaxed);
    let mut fenced = None;
    while !ui.is_interrupted() && ended.get().is_none() && fenced.is_none() {
        std::thread::sleep(LOOK);
        watch.tick(ui);
        if let Some(shipped) = &shipped {
            shipped.keeper.tidy();
            fenced = db.shipping().fenced();
        }
        if let Some(why) = db.poisoned() {
            let _ = ended.set(format!("the store has failed: {why}"));
        }
    }
    // First nobody asks any more; then what is under way ends.
    watch.hide();
    if let Some(node) = node {
        node.close();
    }
    if let Some(shipped) = shipped {
        drop(shipped.server);
        shipped.leader.close();
    }
    // Commits that waited have failed by it, and the node with them.
    let fenced = fenced.or_else(|| db.shipping().fenced());
    let closed = db.close();
    watch.tell(ui);
    match (ended.get(), fenced) {
        // What closing a store that has failed meets is no news.
        (Some(why), None) => Err(Failure::error(why.clone())),
        (_, Some(epoch)) => {
            let why = format!("another store has taken this one's place, in epoch {epoch}");
            Err(Failure::error(why)
                .hint("`seawall rewind DB --to ADDRESS --name NAME` makes this one its replica"))
        }
        (None, None) => Ok(closed?),
    }
}

impl ServeArgs {
    /// Whom commits wait for, if they wait for anybody.
    fn waits(&self) -> Option<Policy> {
        self.sync.clone().filter(|_| Ack::from(self.ack) > Ack::Local)
    }
}

/// A node that serves, to be looked at.
struct Serving {
    db: Db,
    leader: Option<Leader>,
    /// Whom commits wait for.
    sync: Option<Policy>,
    /// Whether clients of transactions are answered, where there are any.
    has_begun: Arc<AtomicBool>,
}

impl Shown for Serving {
    fn db(&self) -> &Db {
        &self.db
    }

    fn links(&self) -> Vec<Link> {
        self.leader.as_ref().map(Leader::links).unwrap_or_default()
    }

    fn unready(&self) -> Vec<String> {
        let stats = self.db.stats();
        let mut reasons = Vec::new();
        if let Some(epoch) = stats.fenced {
            reasons.push(format!("another store has taken this one's place, in epoch {epoch}"));
        } else if let Some(why) = stats.poisoned {
            reasons.push(format!("the store refuses writes: {why}"));
        }
        if !self.has_begun.load(Ordering::Relaxed) {
            reasons.push("transactions are not served yet".to_owned());
        }
        if let (Some(sync), Some(leader), false) = (&self.sync, &self.leader, stats.is_degraded) {
            let there = connected(leader);
            if there < sync.count() {
                reasons.push(format!("commits wait for {sync}, and {there} of those are connected"));
            }
        }
        reasons
    }
}

/// How many of those are connected whose acknowledgements count.
fn connected(leader: &Leader) -> usize {
    leader.followers().iter().filter(|of| of.is_connected && of.part != Part::Async).count()
}

/// Replicas, and what they need.
struct Shipped {
    leader: Leader,
    server: Server,
    keeper: Arc<Keeper>,
}

/// A node writes as it starts, and what it writes may wait for replicas: they come first, however long that takes.
fn await_replicas(ui: &Ui, args: &ServeArgs, db: &Db, shipped: &Shipped, watch: &mut Watch) {
    let Some(sync) = args.waits() else { return };
    let mut has_told = false;
    while !ui.is_interrupted() && db.shipping().fenced().is_none() {
        if connected(&shipped.leader) >= sync.count() {
            return;
        }
        if !std::mem::replace(&mut has_told, true) {
            ui.say("waits for replicas: commits here need them");
        }
        watch.tick(ui);
        std::thread::sleep(LOOK);
    }
}

fn ship(args: &ServeArgs, db: &Db, listen: SocketAddr, listener: Arc<dyn LinkListener>) -> Outcome<Shipped> {
    let keeper = args.ships.keeper(db);
    let mut options = LeaderOptions::default();
    options.settings = args.ships.settings()?;
    options.policy = args.sync.clone();
    options.keeping = Some(Arc::clone(&keeper) as _);
    options.listener = Some(listener);
    let leader = Leader::serve(&db.shipping(), options)
        .map_err(|error| Failure::error(format!("shipping the log: {error}")))?;
    let server = args.ships.listen(listen, &args.secure, Arc::new(leader.clone()))?;
    Ok(Shipped { leader, server, keeper })
}

/// A node of transactions over several stores.
struct Node {
    network: Network,
    coordinator: Coordinator,
    _store: Arc<Store>,
}

impl Node {
    fn start(
        ui: &Ui,
        args: &ServeArgs,
        db: &Db,
        options: NetworkOptions,
        ended: &Arc<OnceLock<String>>,
    ) -> Outcome<Node> {
        let me = options.node;
        let failed = |error: seawall::txn::Error| Failure::error(error.to_string());
        let store = Store::new(me, db).map_err(failed)?;
        // Before the store is joined to anything: an address that is taken is said at once.
        let network = Network::bind(options).map_err(failed)?;
        let protocol = match args.protocol {
            Way::TwoPhase => Protocol::TwoPhase,
            Way::ThreePhase => Protocol::ThreePhase,
            Way::PaxosCommit => Protocol::PaxosCommit,
        };
        let says = Arc::clone(ended);
        let listener = move |notice: &Notice| match notice {
            Notice::Down { node, .. } | Notice::Fenced { node, .. } if *node == me => {
                let _ = says.set(notice.to_string());
            }
            notice => tell(notice),
        };
        let mut builder = Coordinator::builder(&store)
            .protocol(protocol)
            .transport(network.transport())
            .on_notice(listener);
        if protocol == Protocol::PaxosCommit {
            builder = builder.acceptors(args.acceptors.iter().map(|&node| NodeId(node)));
        }
        let coordinator = builder.open().map_err(failed)?;
        network.serve(&coordinator, &store).map_err(failed)?;
        let address = network.address().to_string();
        let value = json!({ "node": me.0, "address": address, "pid": std::process::id() });
        tell_address(ui, &format!("node {me} serves"), value, &address)?;
        Ok(Node { network, coordinator, _store: store })
    }

    fn close(self) {
        drop(self.network);
        self.coordinator.close();
    }
}

pub(crate) fn tell_address(ui: &Ui, does: &str, value: serde_json::Value, address: &str) -> Outcome {
    let mut out = ui.out();
    match ui.format {
        Format::Table => out.raw(format!("{does} at {address}\n").as_bytes())?,
        _ => out.value(&value)?,
    }
    out.flush()
}

fn options(args: &ServeArgs, node: u64, security: Security) -> Outcome<NetworkOptions> {
    if let Some(peer) = args.peers.iter().find(|peer| peer.node.0 == node) {
        return Err(Failure::usage(format!("--peer {}: this node is {} itself", peer.node, node)));
    }
    let is_known = |other: u64| other == node || args.peers.iter().any(|peer| peer.node.0 == other);
    if let Some(node) = args.acceptors.iter().find(|&&node| !is_known(node)) {
        return Err(Failure::usage(format!("--acceptors {node}: that is neither this node nor a --peer")));
    }
    let listen = args.listen.ok_or_else(|| Failure::usage("--node needs --listen"))?;
    Ok(NetworkOptions {
        node: NodeId(node),
        listen,
        peers: args.peers.clone(),
        clients: args.clients.clone(),
        security,
        limits: Default::default(),
    })
}

/// What an operator should know.
fn tell(notice: &Notice) {
    use std::io::Write;
    // Nobody can be told when standard error itself is gone.
    let _ = writeln!(std::io::stderr().lock(), "seawall: {notice}");
}
