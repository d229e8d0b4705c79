//! `seawall serve`.

use super::output::Format;
use super::{Failure, Outcome, Ui, store};
use clap::{Args, ValueEnum};
use seawall::txn::net::{Credentials, Network, NetworkOptions, Peer, Security};
use seawall::txn::{Coordinator, NodeId, Notice, Protocol, Store};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long to sleep before looking whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(50);

/// Serves a store to other processes, as a node of transactions over several stores.
///
/// It is a participant for coordinators elsewhere (XA's verbs), a coordinator for clients, and an acceptor for Paxos Commit.
/// Who may call is said by certificates: a node by the name that `--peer` gives it, anybody else by `--client`. What was prepared
/// here and has no outcome is finished as its coordinator, or whoever knows, is reached. Ends with Ctrl-C or SIGTERM; and with exit
/// code 1 when its store fails, or when the node runs elsewhere in a later incarnation.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall serve db --node 1 --listen 10.0.0.1:7400 --peer 2=b.example@10.0.0.2:7400 \\\n      \
                  --client app.example --certificate a.pem --key a.key --authority ca.pem\n  seawall serve db --node 1 \
                  --listen 127.0.0.1:7400 --plain-text"
)]
pub(crate) struct ServeArgs {
    /// The store's directory
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// The store's number among nodes: its own for ever
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    node: u64,
    /// Where to listen; port 0 takes any
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Another node: its number, the DNS name in its certificate, and where it listens; may be given more than once
    #[arg(long = "peer", value_name = "N=NAME@HOST:PORT", value_parser = peer)]
    peers: Vec<Peer>,
    /// A name in the certificate of a client that may call; may be given more than once
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,
    /// How transactions that begin here are committed
    #[arg(long, value_enum, default_value = "two-phase", value_name = "NAME")]
    protocol: Way,
    /// The nodes that remember votes in Paxos Commit: an odd number of them, itself or peers
    #[arg(long, value_delimiter = ',', value_name = "N,N,N", required_if_eq("protocol", "paxos-commit"))]
    acceptors: Vec<u64>,
    /// This node's certificate, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "plain_text")]
    certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "plain_text")]
    key: Option<PathBuf>,
    /// The authority that the others' certificates come from, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "plain_text")]
    authority: Option<PathBuf>,
    /// Without certificates: whoever reaches the address is believed; on loopback only
    #[arg(long, conflicts_with_all = ["certificate", "key", "authority"])]
    plain_text: bool,
    /// With --plain-text: on any address
    #[arg(long, requires = "plain_text")]
    anywhere: bool,
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
    let options = options(&args)?;
    let db = store::open_to_write(ui, &args.db)?;
    let failed = |error: seawall::txn::Error| Failure::error(error.to_string());
    let store = Store::new(NodeId(args.node), &db).map_err(failed)?;
    // Before the store is joined to anything: an address that is taken is said at once.
    let network = Network::bind(options).map_err(failed)?;
    let protocol = match args.protocol {
        Way::TwoPhase => Protocol::TwoPhase,
        Way::ThreePhase => Protocol::ThreePhase,
        Way::PaxosCommit => Protocol::PaxosCommit,
    };
    let ended = Arc::new(OnceLock::new());
    let (me, says) = (NodeId(args.node), Arc::clone(&ended));
    let listener = move |notice: &Notice| match notice {
        Notice::Down { node, .. } | Notice::Fenced { node, .. } if *node == me => {
            let _ = says.set(notice.to_string());
        }
        notice => tell(notice),
    };
    let mut builder =
        Coordinator::builder(&store).protocol(protocol).transport(network.transport()).on_notice(listener);
    if protocol == Protocol::PaxosCommit {
        builder = builder.acceptors(args.acceptors.iter().map(|&node| NodeId(node)));
    }
    let coordinator = builder.open().map_err(failed)?;
    network.serve(&coordinator, &store).map_err(failed)?;
    let mut out = ui.out();
    let address = network.address().to_string();
    match ui.format {
        Format::Table => out.raw(format!("node {} serves at {address}\n", args.node).as_bytes())?,
        _ => out.value(&json!({ "node": args.node, "address": address, "pid": std::process::id() }))?,
    }
    out.flush()?;
    while !ui.is_interrupted() && ended.get().is_none() {
        std::thread::sleep(LOOK);
    }
    // First nobody asks any more; then what is under way ends.
    drop(network);
    coordinator.close();
    drop((coordinator, store));
    let closed = db.close();
    match ended.get() {
        // What closing a store that has failed meets is no news.
        Some(why) => Err(Failure::error(why.clone())),
        None => Ok(closed?),
    }
}

fn options(args: &ServeArgs) -> Outcome<NetworkOptions> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| Failure::file("reading", path, &error));
    let security = match (&args.certificate, &args.key, &args.authority) {
        (Some(certificate), Some(key), Some(authority)) => Security::MutualTls(Credentials {
            certificate: read(certificate)?,
            key: read(key)?,
            authority: read(authority)?,
        }),
        _ => Security::PlainText { anywhere: args.anywhere },
    };
    if let Some(peer) = args.peers.iter().find(|peer| peer.node.0 == args.node) {
        return Err(Failure::usage(format!("--peer {}: this node is {} itself", peer.node, args.node)));
    }
    let is_known = |node: u64| node == args.node || args.peers.iter().any(|peer| peer.node.0 == node);
    if let Some(node) = args.acceptors.iter().find(|&&node| !is_known(node)) {
        return Err(Failure::usage(format!("--acceptors {node}: that is neither this node nor a --peer")));
    }
    Ok(NetworkOptions {
        node: NodeId(args.node),
        listen: args.listen,
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
