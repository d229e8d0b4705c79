//! Nodes in one process, each with its own store and sockets, and a client.

use super::certificates::Authority;
use seawall_engine::Db;
use seawall_txn::net::wire::coordinator_client::CoordinatorClient;
use seawall_txn::net::wire::participant_client::ParticipantClient;
use seawall_txn::net::wire::work_request::Request as Work;
use seawall_txn::net::{Credentials, Limits, Network, NetworkOptions, Peer, Security, wire};
use seawall_txn::{Coordinator, NodeId, Store, Timing};
use seawall_wal::SimDisk;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) struct Node {
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) db: Db,
    pub(crate) network: Network,
    pub(crate) coordinator: Coordinator,
    credentials: Credentials,
    limits: Limits,
}

pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) nodes: Vec<Node>,
}

pub(crate) fn options(node: u64, listen: SocketAddr, security: Security) -> NetworkOptions {
    NetworkOptions {
        node: NodeId(node),
        listen,
        peers: Vec::new(),
        clients: vec!["client.test".to_owned()],
        security,
        limits: Default::default(),
    }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn start(
    node: u64,
    disk: &Arc<SimDisk>,
    credentials: Credentials,
    listen: SocketAddr,
    peers: Vec<Peer>,
    limits: Limits,
) -> Node {
    let db = Db::builder("/store").disk(disk.clone()).segment_bytes(256 << 10).open().unwrap();
    db.keyspace("rows").unwrap();
    let store = Store::new(NodeId(node), &db).unwrap();
    let mut options = options(node, listen, Security::MutualTls(credentials.clone()));
    (options.peers, options.limits) = (peers, limits);
    let network = Network::bind(options).unwrap();
    let timing = Timing { retry_us: 5_000, retry_doublings_max: 4, deadline_us: 2_000_000 };
    let builder = Coordinator::builder(&store).timing(timing).transport(network.transport());
    let coordinator = builder.open().unwrap();
    network.serve(&coordinator, &store).unwrap();
    Node { disk: disk.clone(), db, network, coordinator, credentials, limits }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap()
}

/// All but this one.
fn peers(me: u64, addresses: &[SocketAddr]) -> Vec<Peer> {
    let peer = |(node, address): (u64, &SocketAddr)| Peer {
        node: NodeId(node),
        address: address.to_string(),
        name: format!("node{node}.test"),
    };
    (1..).zip(addresses).filter(|(node, _)| *node != me).map(peer).collect()
}

impl World {
    pub(crate) fn new(count: u64) -> World {
        World::with(count, Limits::default())
    }

    pub(crate) fn with(count: u64, limits: Limits) -> World {
        let authority = Authority::new();
        let addresses: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
        let node = |node: u64| {
            let credentials = authority.issue(&format!("node{node}.test"));
            start(
                node,
                &SimDisk::new(node),
                credentials,
                addresses[node as usize - 1],
                peers(node, &addresses),
                limits,
            )
        };
        let nodes = (1..=count).map(node).collect();
        World { authority, nodes }
    }

    /// A node's process ends without a word, its power with it, and comes back.
    pub(crate) fn restart(&mut self, node: u64) {
        let index = node as usize - 1;
        let addresses: Vec<SocketAddr> = self.nodes.iter().map(|node| node.network.address()).collect();
        let gone = self.nodes.remove(index);
        let Node { disk, db, network, coordinator, credentials, limits } = gone;
        drop(network);
        coordinator.close();
        drop((coordinator, db));
        let back = start(node, &disk, credentials, addresses[index], peers(node, &addresses), limits);
        self.nodes.insert(index, back);
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        self.client_with(&self.authority.issue(name))
    }

    pub(crate) fn client_with(&self, credentials: &Credentials) -> Client {
        let runtime = Runtime::new().unwrap();
        let channel = |node: &Node, number: usize| {
            let tls = ClientTlsConfig::new()
                .identity(Identity::from_pem(&credentials.certificate, &credentials.key))
                .ca_certificate(Certificate::from_pem(self.authority.pem()))
                .domain_name(format!("node{number}.test"));
            let endpoint = Endpoint::from_shared(format!("https://{}", node.network.address())).unwrap();
            runtime.block_on(async { endpoint.tls_config(tls).unwrap().connect_lazy() })
        };
        let channels = self.nodes.iter().enumerate().map(|(index, node)| channel(node, index + 1)).collect();
        Client { runtime, channels }
    }

    pub(crate) fn value(&self, node: u64, key: &str) -> Option<String> {
        let rows = self.nodes[node as usize - 1].db.keyspace("rows").unwrap();
        rows.get(key).unwrap().map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    pub(crate) fn number(&self, node: u64, key: &str) -> Option<i64> {
        let rows = self.nodes[node as usize - 1].db.keyspace("rows").unwrap();
        rows.get(key).unwrap().map(|value| i64::from_le_bytes(value[..].try_into().unwrap()))
    }
}

pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    pub(crate) channels: Vec<Channel>,
}

impl Client {
    pub(crate) fn participant(&self, node: u64) -> ParticipantClient<Channel> {
        ParticipantClient::new(self.channels[node as usize - 1].clone())
    }

    fn coordinator(&self, node: u64) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channels[node as usize - 1].clone())
    }

    pub(crate) fn begin(&mut self, node: u64) -> wire::Txn {
        let mut coordinator = self.coordinator(node);
        self.runtime.block_on(coordinator.begin(wire::BeginRequest {})).unwrap().into_inner()
    }

    /// One branch: these requests, and End.
    pub(crate) fn work(
        &mut self,
        node: u64,
        mut requests: Vec<Work>,
    ) -> Result<Vec<wire::WorkReply>, Status> {
        requests.push(Work::End(wire::End {}));
        let requests: Vec<wire::WorkRequest> =
            requests.into_iter().map(|request| wire::WorkRequest { request: Some(request) }).collect();
        let mut participant = self.participant(node);
        self.runtime.block_on(async {
            let mut replies = participant.work(tokio_stream::iter(requests)).await?.into_inner();
            let mut found = Vec::new();
            while let Some(reply) = replies.message().await? {
                found.push(reply);
            }
            Ok(found)
        })
    }

    pub(crate) fn commit(
        &mut self,
        node: u64,
        txn: wire::Txn,
        participants: &[u64],
    ) -> Result<wire::Outcome, Status> {
        let mut coordinator = self.coordinator(node);
        let request = wire::CommitRequest { txn: Some(txn), participants: participants.to_vec() };
        self.runtime.block_on(coordinator.commit(request)).map(tonic::Response::into_inner)
    }

    pub(crate) fn wait(&mut self, node: u64, txn: wire::Txn) -> Result<wire::Outcome, Status> {
        let mut coordinator = self.coordinator(node);
        let request = wire::AwaitRequest { txn: Some(txn), wait_ms: 0 };
        self.runtime.block_on(coordinator.r#await(request)).map(tonic::Response::into_inner)
    }

    pub(crate) fn prepare(&mut self, xid: &wire::Xid) -> Result<wire::Vote, Status> {
        let mut participant = self.participant(1);
        self.runtime.block_on(participant.prepare(branch(xid))).map(tonic::Response::into_inner)
    }

    pub(crate) fn prepare_none(&mut self) -> Result<wire::Vote, Status> {
        let mut participant = self.participant(1);
        self.runtime
            .block_on(participant.prepare(wire::Branch { xid: None }))
            .map(tonic::Response::into_inner)
    }

    pub(crate) fn end(&mut self, verb: &str, xid: &wire::Xid) -> Result<wire::Done, Status> {
        let mut participant = self.participant(1);
        let branch = branch(xid);
        self.runtime
            .block_on(async {
                match verb {
                    "commit" => participant.commit(branch).await,
                    "rollback" => participant.rollback(branch).await,
                    "one-phase" => participant.commit_one_phase(branch).await,
                    _ => participant.forget(branch).await,
                }
            })
            .map(tonic::Response::into_inner)
    }

    pub(crate) fn recover(&mut self, after_serial: u64, limit: u32) -> Result<wire::RecoverReply, Status> {
        self.recover_of(wire::RecoverRequest { after_serial, limit, ..Default::default() })
    }

    pub(crate) fn recover_of(&mut self, request: wire::RecoverRequest) -> Result<wire::RecoverReply, Status> {
        let mut participant = self.participant(1);
        self.runtime.block_on(participant.recover(request)).map(tonic::Response::into_inner)
    }
}

pub(crate) fn xid(gtrid: &str) -> wire::Xid {
    wire::Xid { format: 7, gtrid: gtrid.into(), bqual: b"here".to_vec() }
}

pub(crate) fn branch(xid: &wire::Xid) -> wire::Branch {
    wire::Branch { xid: Some(xid.clone()) }
}

pub(crate) fn begin_at(txn: wire::Txn) -> Work {
    Work::Begin(wire::Begin { name: Some(wire::begin::Name::Txn(txn)), ..Default::default() })
}

pub(crate) fn xa(xid: &wire::Xid) -> Work {
    Work::Begin(wire::Begin { name: Some(wire::begin::Name::Xid(xid.clone())), ..Default::default() })
}

pub(crate) fn put(key: &str, value: &str) -> Work {
    Work::Put(wire::Put { keyspace: "rows".into(), key: key.into(), value: value.into() })
}

pub(crate) fn get(key: &str) -> Work {
    Work::Get(wire::Get { keyspace: "rows".into(), key: key.into(), for_update: false })
}

pub(crate) fn lock(key: &str) -> Work {
    Work::Get(wire::Get { keyspace: "rows".into(), key: key.into(), for_update: true })
}

pub(crate) fn scan() -> Work {
    Work::Scan(wire::Scan { keyspace: "rows".into(), ..Default::default() })
}

pub(crate) fn add(key: &str, delta: i64) -> Work {
    Work::Add(wire::Add { keyspace: "rows".into(), key: key.into(), delta })
}
