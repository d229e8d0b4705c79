//! The fuzz targets over their committed corpus, and over mutations of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and reads the repository's files"
)]

#[path = "../../fuzz/replay.rs"]
mod replay;

use replay::replay;
use seawall_txn::{
    Accepted, Ballot, Body, BranchName, Decision, Entry, Group, Message, NodeId, Protocol, Record, Role,
    Stage, TxnId, Value, Vote, fuzzing,
};
use std::sync::Arc;

#[test]
fn txn_message() {
    replay("txn_message", 20_000, fuzzing::txn_message);
}

#[test]
fn txn_record() {
    replay("txn_record", 20_000, fuzzing::txn_record);
}

#[test]
fn txn_xid() {
    replay("txn_xid", 20_000, fuzzing::txn_xid);
}

#[test]
#[cfg(feature = "net")]
fn txn_calls() {
    replay("txn_calls", 3_000, fuzzing::txn_calls);
}

const TXN: TxnId = TxnId { coordinator: NodeId(1), epoch: 2, sequence: 3 };

fn group() -> Arc<Group> {
    Arc::new(Group {
        participants: vec![NodeId(4), NodeId(5)],
        acceptors: vec![NodeId(1), NodeId(4), NodeId(6)],
    })
}

fn messages() -> Vec<Body> {
    let ballot = Ballot { round: 1, leader: NodeId(4), epoch: 7, sequence: 2 };
    let values = vec![(NodeId(4), Value::Prepared), (NodeId(5), Value::Aborted)];
    vec![
        Body::Prepare { protocol: Protocol::TwoPhase, group: group() },
        Body::Prepare { protocol: Protocol::PaxosCommit, group: group() },
        Body::CommitOnePhase,
        Body::Vote(Vote::ReadOnly),
        Body::Decide { decision: Decision::Commit, acknowledge: true },
        Body::Ack { heuristic: Some(Decision::Abort) },
        Body::Finished(Decision::Commit),
        Body::Forget,
        Body::Inquire(Protocol::ThreePhase),
        Body::Ask { of: Role::Participant, by: Role::Acceptor },
        Body::Answer {
            to: Role::Participant,
            of: Role::Coordinator,
            stage: Stage::PreCommitted,
            operational: true,
        },
        Body::PreCommit(Role::Coordinator),
        Body::PreCommitted(Role::Participant),
        Body::Phase1a { ballot, group: group() },
        Body::Phase1b {
            ballot,
            accepted: vec![Accepted { instance: NodeId(4), ballot: Ballot::ZERO, value: Value::Prepared }],
        },
        Body::Phase2a { ballot, values: values.clone(), group: group() },
        Body::Phase2b { ballot: Ballot::ZERO, values },
        Body::Outbid { promised: ballot },
        Body::ForgetVotes { epoch: 2 },
        Body::Learned(Decision::Abort),
        Body::Heard,
        Body::Fenced { epoch: 9 },
    ]
}

fn records() -> Vec<Record> {
    let entries = vec![
        Entry::Prepared { protocol: Protocol::TwoPhase, group: group() },
        Entry::PreCommitted { group: group() },
        Entry::Finished { decision: Decision::Commit, retained: true },
        Entry::Heuristic { decision: Decision::Abort },
        Entry::CoordinatorPreCommit { group: group() },
        Entry::Committing { group: group(), merged: true },
        Entry::Acceptor {
            group: group(),
            promised: Ballot { round: 2, leader: NodeId(5), epoch: 3, sequence: 1 },
            accepted: vec![Accepted { instance: NodeId(4), ballot: Ballot::ZERO, value: Value::Prepared }],
        },
        Entry::End(Role::Acceptor),
    ];
    let mut records: Vec<Record> = entries.into_iter().map(|entry| Record { txn: TXN, entry }).collect();
    // About a node.
    records.push(Record { txn: TxnId { epoch: 0, sequence: 0, ..TXN }, entry: Entry::Fence { epoch: 8 } });
    records
}

#[test]
fn what_is_encoded_decodes_and_nothing_shorter_does() {
    for body in messages() {
        let message = Message { txn: TXN, from: NodeId(4), to: NodeId(1), epoch: 7, body };
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes), Ok(message));
        assert!((0..bytes.len()).all(|length| Message::decode(&bytes[..length]).is_err()));
        assert!(Message::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(Message::decode(&[&[1], &bytes[1..]].concat()).is_err(), "another version");
    }
    for record in records() {
        let bytes = record.encode();
        assert_eq!(Record::decode(&bytes), Ok(record));
        assert!((0..bytes.len()).all(|length| Record::decode(&bytes[..length]).is_err()));
        assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
    assert!(Message::decode(&vec![1; Message::BYTES_MAX + 1]).is_err());
    assert!(Record::decode(&vec![1; Record::BYTES_MAX + 1]).is_err());
}

/// The largest that there can be is within the limits.
#[test]
fn everyone_fits_into_a_message() {
    let participants: Vec<NodeId> = (0..Group::PARTICIPANTS_MAX as u64).map(NodeId).collect();
    let acceptors = (0..Group::ACCEPTORS_MAX as u64).map(NodeId).collect();
    let ballot = Ballot { round: 1, leader: NodeId(1), epoch: 1, sequence: 1 };
    let accepted: Vec<Accepted> =
        participants.iter().map(|&instance| Accepted { instance, ballot, value: Value::Prepared }).collect();
    let values = participants.iter().map(|&node| (node, Value::Prepared)).collect();
    let group = Arc::new(Group { participants, acceptors });
    let record = Record {
        txn: TXN,
        entry: Entry::Acceptor { group: group.clone(), promised: ballot, accepted: accepted.clone() },
    };
    assert_eq!(Record::decode(&record.encode()), Ok(record));
    for body in [Body::Phase2a { ballot, values, group }, Body::Phase1b { ballot, accepted }] {
        let message = Message { txn: TXN, from: NodeId(4), to: NodeId(1), epoch: 7, body };
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}

/// Calls that are well-formed.
#[cfg(feature = "net")]
fn calls() -> Vec<(&'static str, Vec<u8>)> {
    use prost::Message as _;
    use seawall_txn::net::{VERSION, wire};
    use wire::work_request::Request as Work;
    let call = |method: u8, messages: &[Vec<u8>]| {
        let mut bytes = vec![method, messages.len() as u8];
        for message in messages {
            bytes.extend((message.len() as u16).to_le_bytes());
            bytes.extend(message);
        }
        bytes
    };
    let xid = || Some(wire::Xid { format: 7, gtrid: b"order 1".to_vec(), bqual: b"here".to_vec() });
    let key = |key: &str| (b"rows".to_vec(), key.as_bytes().to_vec());
    let work = |requests: Vec<Work>| {
        let encoded = requests.into_iter().map(|request| wire::WorkRequest { request: Some(request) });
        call(1, &encoded.map(|request| request.encode_to_vec()).collect::<Vec<_>>())
    };
    let begin = |name| Work::Begin(wire::Begin { name: Some(name), ..Default::default() });
    let put = |at: &str| {
        let (keyspace, key) = key(at);
        Work::Put(wire::Put { keyspace: String::from_utf8(keyspace).unwrap(), key, value: b"1".to_vec() })
    };
    let txn = wire::Txn { coordinator: 1, epoch: 1, sequence: 1 };
    let open = work(vec![begin(wire::begin::Name::Xid(xid().unwrap())), put("a"), Work::End(wire::End {})]);
    let ours = work(vec![begin(wire::begin::Name::Txn(txn)), put("b"), Work::End(wire::End {})]);
    let branch = wire::Branch { xid: xid() }.encode_to_vec();
    let verb = |method| call(method, std::slice::from_ref(&branch));
    let introduction = wire::Introduction { version: VERSION, version_min: VERSION, from: 2 };
    let message = Message { txn: TXN, from: NodeId(2), to: NodeId(1), epoch: 7, body: Body::Heard };
    let parcel = wire::Parcel { introduction: Some(introduction), messages: vec![message.encode()] };
    let commit = wire::CommitRequest { txn: Some(txn), participants: vec![1] };
    vec![
        ("prepared-committed", [open.clone(), verb(2), verb(3)].concat()),
        ("one-phase", [open.clone(), verb(4)].concat()),
        ("rolled-back", [open.clone(), verb(2), verb(5), verb(7)].concat()),
        ("left-open", open),
        ("delivered", call(0, &[parcel.encode_to_vec()])),
        ("recovered", call(6, &[wire::RecoverRequest { limit: 3, ..Default::default() }.encode_to_vec()])),
        ("coordinated", [call(8, &[vec![]]), ours, call(9, &[commit.encode_to_vec()])].concat()),
    ]
}

#[test]
#[ignore = "writes the corpus"]
fn write_corpus() {
    #[cfg(feature = "net")]
    replay::write("txn_calls", &calls());
    let message = |body: Body| Message { txn: TXN, from: NodeId(4), to: NodeId(1), epoch: 7, body }.encode();
    let all: Vec<(String, Vec<u8>)> = messages()
        .into_iter()
        .map(message)
        .enumerate()
        .map(|(i, bytes)| (format!("message-{i:02}"), bytes))
        .collect();
    replay::write(
        "txn_message",
        &all.iter().map(|(name, bytes)| (&name[..], bytes.clone())).collect::<Vec<_>>(),
    );
    let all: Vec<(String, Vec<u8>)> = records()
        .into_iter()
        .map(|record| record.encode())
        .enumerate()
        .map(|(i, bytes)| (format!("record-{i:02}"), bytes))
        .collect();
    replay::write(
        "txn_record",
        &all.iter().map(|(name, bytes)| (&name[..], bytes.clone())).collect::<Vec<_>>(),
    );
    let name = |ends| {
        let xid = BranchName { txn: TXN, participant: NodeId(4), ends }.to_xid().unwrap();
        [xid.gtrid(), xid.bqual()].concat()
    };
    let many = Group { participants: (0..30).map(|n| NodeId(n * 1000)).collect(), acceptors: vec![] };
    replay::write(
        "txn_xid",
        &[
            ("bare", name(None)),
            ("grouped", name(Some((Protocol::PaxosCommit, group())))),
            ("without-room", name(Some((Protocol::TwoPhase, Arc::new(many))))),
            ("foreign", b"a global part of 24 bytesand a branch".to_vec()),
        ],
    );
}
