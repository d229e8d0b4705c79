//! Calls of a node's services, with any bytes where their messages should be.

use super::{Limits, Network, NetworkOptions, Peer, Security};
use crate::{Coordinator, NodeId, Store, Timing};
use prost::bytes::{Buf, BufMut};
use seawall_engine::Db;
use seawall_wal::SimDisk;
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Every method that is served: a call's first byte, modulo their number.
const METHODS: [&str; 10] = [
    "/seawall.txn.v1.Peers/Deliver",
    "/seawall.txn.v1.Participant/Work",
    "/seawall.txn.v1.Participant/Prepare",
    "/seawall.txn.v1.Participant/Commit",
    "/seawall.txn.v1.Participant/CommitOnePhase",
    "/seawall.txn.v1.Participant/Rollback",
    "/seawall.txn.v1.Participant/Recover",
    "/seawall.txn.v1.Participant/Forget",
    "/seawall.txn.v1.Coordinator/Begin",
    "/seawall.txn.v1.Coordinator/Commit",
];

/// An answer takes no longer.
const ANSWER: Duration = Duration::from_secs(30);

struct Node {
    runtime: Runtime,
    channel: Channel,
    db: Db,
    _serving: (Network, Coordinator),
}

/// Calls of one connection, one after the other. Each is a byte for the method, one for the number of its messages, and those, each
/// behind its length in two bytes; the last may be short. Each must be answered, by an error or not, without a panic.
pub fn txn_calls(data: &[u8]) {
    static NODE: OnceLock<Option<Node>> = OnceLock::new();
    let node = NODE.get_or_init(|| {
        watch();
        serve()
    });
    assert!(node.is_some(), "a node listens on loopback");
    let Some(node) = node else { return };
    for (method, messages) in parse(data) {
        node.call(method, messages);
        assert!(!HAS_PANICKED.load(Ordering::SeqCst), "a call of {method} made the node panic");
    }
    // What stays prepared would be in the way of the inputs to come.
    for prepared in node.db.prepared() {
        prepared.rollback().ok();
    }
    let rows = node.db.keyspace("rows").and_then(|rows| rows.insert("still", "there"));
    assert!(rows.is_ok(), "the store goes on: {rows:?}");
}

static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// A service's panic ends its task, and nobody hears of it.
fn watch() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let is_ours = std::thread::current().name().is_some_and(|name| name.starts_with("seawall-"));
        HAS_PANICKED.fetch_or(is_ours, Ordering::SeqCst);
        before(info);
    }));
}

fn serve() -> Option<Node> {
    let db = Db::builder("/store").disk(SimDisk::new(1)).segment_bytes(256 << 10).open().ok()?;
    let store = Store::new(NodeId(1), &db).ok()?;
    let limits = Limits { branch_age: Duration::from_millis(50), ..Limits::default() };
    let nobody = Peer { node: NodeId(2), address: "127.0.0.1:9".into(), name: "node2.test".into() };
    let options = NetworkOptions {
        node: NodeId(1),
        listen: ([127, 0, 0, 1], 0).into(),
        peers: vec![nobody],
        clients: Vec::new(),
        security: Security::PlainText { anywhere: false },
        limits,
    };
    let network = Network::bind(options).ok()?;
    let timing = Timing { retry_us: 2_000, retry_doublings_max: 4, deadline_us: 10_000 };
    let builder = Coordinator::builder(&store).timing(timing).transport(network.transport());
    let coordinator = builder.open().ok()?;
    network.serve(&coordinator, &store).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let endpoint = Endpoint::from_shared(format!("http://{}", network.address())).ok()?;
    let channel = runtime.block_on(endpoint.connect()).ok()?;
    Some(Node { runtime, channel, db, _serving: (network, coordinator) })
}

impl Node {
    fn call(&self, method: &'static str, messages: Vec<Vec<u8>>) {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let call = async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static(method);
            let request = Request::new(tokio_stream::iter(messages));
            let mut replies = client.streaming(request, path, Raw).await?.into_inner();
            while replies.message().await?.is_some() {}
            Ok::<(), Status>(())
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(ANSWER, call).await });
        assert!(answer.is_ok(), "a call of {method} is not answered");
    }
}

fn parse(mut data: &[u8]) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut calls = Vec::new();
    while let [method, count, rest @ ..] = data {
        data = rest;
        let mut messages = Vec::new();
        for _ in 0..*count {
            let [low, high, rest @ ..] = data else { break };
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (message, rest) = rest.split_at(length);
            messages.push(message.to_vec());
            data = rest;
        }
        let method = METHODS.get(usize::from(*method) % METHODS.len()).copied().unwrap_or_default();
        calls.push((method, messages));
    }
    calls
}

/// Bytes as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, bytes: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&bytes);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        bytes.advance(bytes.remaining());
        Ok(Some(()))
    }
}
