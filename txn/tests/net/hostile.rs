//! Those who may not, and what makes no sense: each a clear refusal, and the node goes on.

use super::certificates::Authority;
use super::world::{World, begin_at, loopback, options, put, xa, xid};
use seawall_txn::net::wire::peers_client::PeersClient;
use seawall_txn::net::{Network, Security, VERSION, wire};
use seawall_txn::{Body, BranchName, Group, Message, NodeId, Protocol, TxnId, Vote};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

fn introduction(from: u64) -> Option<wire::Introduction> {
    Some(wire::Introduction { version: VERSION, version_min: VERSION, from })
}

fn message(from: u64) -> Vec<u8> {
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
    Message { txn, from: NodeId(from), to: NodeId(1), epoch: 1, body: Body::Vote(Vote::Yes) }.encode()
}

/// What a caller under this name is told for these parcels.
fn deliver(world: &World, name: &str, parcels: Vec<wire::Parcel>) -> Result<(), Status> {
    let client = world.client(name);
    let mut peers = PeersClient::new(client.channels[0].clone());
    client.runtime.block_on(async {
        let mut answers = peers.deliver(tokio_stream::iter(parcels)).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    })
}

#[test]
fn messages_are_taken_from_the_node_that_the_certificate_names() {
    let world = World::new(2);
    let parcel = |from, messages| wire::Parcel { introduction: introduction(from), messages };
    deliver(&world, "node2.test", vec![parcel(2, vec![message(2)])]).unwrap();
    assert_eq!(world.nodes[0].network.stats().received, 1);
    let cases = [
        ("node2.test", parcel(1, vec![]), Code::PermissionDenied),
        ("client.test", parcel(2, vec![]), Code::PermissionDenied),
        ("node2.test", parcel(2, vec![message(1)]), Code::PermissionDenied),
        ("node2.test", parcel(2, vec![vec![0; 40]]), Code::InvalidArgument),
        ("node2.test", parcel(2, vec![vec![1; Message::BYTES_MAX + 1]]), Code::InvalidArgument),
        (
            "node2.test",
            wire::Parcel { introduction: None, messages: vec![message(2)] },
            Code::InvalidArgument,
        ),
        (
            "node2.test",
            wire::Parcel {
                introduction: Some(wire::Introduction { version: 9, version_min: VERSION + 1, from: 2 }),
                messages: vec![],
            },
            Code::FailedPrecondition,
        ),
        ("node2.test", parcel(2, vec![vec![1; 20 << 20]]), Code::OutOfRange),
    ];
    for (name, parcel, code) in cases {
        let about = format!("{name} {:?} {} messages", parcel.introduction, parcel.messages.len());
        let refused = world.nodes[0].network.stats().refused;
        assert_eq!(deliver(&world, name, vec![parcel]).unwrap_err().code(), code, "{about}");
        assert_eq!(world.nodes[0].network.stats().refused, refused + 1, "{about}");
    }
    assert_eq!(world.nodes[0].network.stats().received, 1);
    deliver(&world, "node2.test", vec![]).unwrap_err();
    // It goes on.
    deliver(&world, "node2.test", vec![parcel(2, vec![message(2)])]).unwrap();
}

#[test]
fn certificates_that_do_not_count_open_nothing() {
    let world = World::new(1);
    let elsewhere = Authority::new().issue("client.test");
    let expired = world.authority.issue_until("client.test", 2020);
    for (what, credentials) in [("another authority's", elsewhere), ("expired", expired)] {
        let mut client = world.client_with(&credentials);
        let status = client.work(1, vec![xa(&xid("t"))]).unwrap_err();
        // No service has answered: the connection is refused, whichever side notices first.
        let source = std::error::Error::source(&status);
        assert!(source.is_some_and(|error| error.is::<tonic::transport::Error>()), "{what}: {status:?}");
        assert_eq!(status.metadata().get("seawall-xa"), None, "{what}: {status:?}");
    }
    let mut stranger = world.client("stranger.test");
    let status = stranger.work(1, vec![xa(&xid("t"))]).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let txn = wire::Txn { coordinator: 1, epoch: 1, sequence: 1 };
    assert_eq!(stranger.commit(1, txn, &[]).unwrap_err().code(), Code::PermissionDenied);
    assert!(stranger.recover(0, 1).is_err() && stranger.prepare(&xid("t")).is_err());
    world.client("client.test").work(1, vec![xa(&xid("t")), put("k", "v")]).unwrap();
}

/// Its coordinator has decided, or will: a client that knows its name must not end it otherwise.
#[test]
fn xa_verbs_do_not_reach_a_nodes_own_branches() {
    let world = World::new(1);
    let mut client = world.client("client.test");
    let group = Arc::new(Group { participants: vec![NodeId(1), NodeId(2)], acceptors: vec![] });
    let txn = TxnId { coordinator: NodeId(2), epoch: 1, sequence: 1 };
    let name = BranchName { txn, participant: NodeId(1), ends: Some((Protocol::TwoPhase, group)) };
    let name = name.to_xid().unwrap();
    let db = &world.nodes[0].db;
    let mut branch = db.begin();
    branch.insert(&db.keyspace("rows").unwrap(), "k", "v").unwrap();
    branch.prepare(name.clone()).unwrap();
    let name =
        wire::Xid { format: name.format(), gtrid: name.gtrid().to_vec(), bqual: name.bqual().to_vec() };
    let mut refusals = vec![client.prepare(&name).unwrap_err(), client.work(1, vec![xa(&name)]).unwrap_err()];
    for verb in ["commit", "rollback", "one-phase", "forget"] {
        refusals.push(client.end(verb, &name).unwrap_err());
    }
    for status in refusals {
        let code = status.metadata().get("seawall-xa").map(|code| code.to_str().unwrap());
        assert_eq!((status.code(), code), (Code::FailedPrecondition, Some("XAER_PROTO")), "{status:?}");
    }
    assert_eq!(client.recover(0, 10).unwrap().branches[0].xid, Some(name));
}

#[test]
fn plain_text_stays_on_loopback_unless_it_is_asked_for() {
    let anywhere = "0.0.0.0:0".parse().unwrap();
    let refused = Network::bind(options(1, anywhere, Security::PlainText { anywhere: false }));
    assert!(refused.unwrap_err().to_string().contains("without certificates"));
    Network::bind(options(1, anywhere, Security::PlainText { anywhere: true })).unwrap();
    Network::bind(options(1, loopback(), Security::PlainText { anywhere: false })).unwrap();
    let mut empty = Authority::new().issue("n");
    empty.key.clear();
    let refused = Network::bind(options(1, loopback(), Security::MutualTls(empty)));
    assert!(refused.unwrap_err().to_string().contains("private key"));
}

#[test]
fn a_stream_that_breaks_off_leaves_no_branch_behind() {
    let world = World::new(1);
    let mut client = world.client("client.test");
    // The rows' last error ends the stream, and the branch.
    let too_long = put(&"k".repeat(70_000), "v");
    let status = client.work(1, vec![xa(&xid("t")), put("a", "1"), too_long]).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    client.work(1, vec![xa(&xid("t")), put("a", "2")]).unwrap();
    // One of a node's own transactions is that coordinator's; a second branch of it is refused.
    let txn = wire::Txn { coordinator: 1, epoch: 1, sequence: 77 };
    client.work(1, vec![begin_at(txn), put("b", "1")]).unwrap();
    let status = client.work(1, vec![begin_at(txn), put("b", "1")]).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    // A client that says nothing more and goes: what it had begun is given up.
    let quiet = world.client("client.test");
    drop(quiet);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(world.value(1, "a"), None);
}
