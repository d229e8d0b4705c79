//! Nodes of their own on loopback, with TLS between them: each with a store, a coordinator and sockets, as in processes of their
//! own.

use super::{Found, Opened, VALUE, Way, is_committed, run};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use seawall_txn::net::{Credentials, Network, NetworkOptions, Peer, Security};
use seawall_txn::{Coordinator, NodeId, Store};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

struct Node {
    store: Arc<Store>,
    coordinator: Coordinator,
    _network: Network,
}

fn name(node: u64) -> String {
    format!("node{node}.test")
}

fn credentials(count: u64) -> Vec<Credentials> {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let issue = |node| {
        let params = CertificateParams::new(vec![name(node)]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        Credentials {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
            authority: authority.pem().into_bytes(),
        }
    };
    (1..=count).map(issue).collect()
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("its address")
}

fn nodes(way: Way, stores: &[Opened]) -> Vec<Node> {
    let addresses: Vec<SocketAddr> = stores.iter().map(|_| free_address()).collect();
    let mut nodes = Vec::new();
    for ((id, opened), credentials) in (1..).zip(stores).zip(credentials(stores.len() as u64)) {
        let peer = |(node, address): (u64, &SocketAddr)| Peer {
            node: NodeId(node),
            address: address.to_string(),
            name: name(node),
        };
        let options = NetworkOptions {
            node: NodeId(id),
            listen: addresses[id as usize - 1],
            peers: (1..).zip(&addresses).filter(|(node, _)| *node != id).map(peer).collect(),
            clients: Vec::new(),
            security: Security::MutualTls(credentials),
            limits: Default::default(),
        };
        let network = Network::bind(options).expect("sockets");
        let store = Store::new(NodeId(id), &opened.db).expect("a node");
        let builder = way.set_up(Coordinator::builder(&store).transport(network.transport()));
        let coordinator = builder.open().expect("a coordinator");
        network.serve(&coordinator, &store).expect("served");
        nodes.push(Node { store, coordinator, _network: network });
    }
    nodes
}

/// The first node coordinates, and takes part if it is not the other's branch alone that is to be committed.
pub(super) fn apart(way: Way, threads: usize, seconds: f64, stores: &[Opened]) -> Found {
    let nodes = nodes(way, stores);
    let first = usize::from(way.stores == 1);
    run(threads, seconds, stores, |key| {
        let mut global = nodes[0].coordinator.begin();
        let txn = global.txn();
        for (node, opened) in nodes.iter().zip(stores).skip(first).take(way.stores) {
            if node.store.node() == nodes[0].store.node() {
                global.branch(&node.store).expect("a branch").insert(&opened.rows, key, VALUE).expect("in");
                continue;
            }
            let mut branch = opened.db.begin();
            branch.insert(&opened.rows, key, VALUE).expect("in");
            node.coordinator.join(&node.store, txn, branch).expect("joined");
            global.enlist(node.store.node()).expect("enlisted");
        }
        is_committed(global.commit())
    })
}
