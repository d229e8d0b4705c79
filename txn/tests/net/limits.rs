//! What clients hold ends, whatever they do; and there is room for others.

use super::world::{Client, World, add, begin_at, get, lock, put, xa, xid};
use super::{eventually, xa_code};
use seawall_engine::Keyspace;
use seawall_txn::net::wire::coordinator_client::CoordinatorClient;
use seawall_txn::net::wire::work_request::Request as Work;
use seawall_txn::net::{Limits, wire};
use seawall_txn::{Error, Group, NodeId, Store};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// A client in the middle of a branch.
struct Stream {
    requests: mpsc::Sender<wire::WorkRequest>,
    replies: Streaming<wire::WorkReply>,
}

impl Stream {
    fn open(client: &Client) -> Result<Stream, Status> {
        let (requests, receiver) = mpsc::channel(256);
        let mut participant = client.participant(1);
        let replies = client.runtime.block_on(participant.work(ReceiverStream::new(receiver)))?.into_inner();
        Ok(Stream { requests, replies })
    }

    /// Without waiting for what is said to it. False if nobody listens any more.
    fn say(&self, request: Work) -> bool {
        self.requests.try_send(wire::WorkRequest { request: Some(request) }).is_ok()
    }

    fn reply(&mut self, client: &Client) -> Result<Option<wire::WorkReply>, Status> {
        client.runtime.block_on(self.replies.message())
    }
}

fn is_free(world: &World, rows: &Keyspace, key: &str) -> bool {
    world.nodes[0].db.begin().get_for_update(rows, key).is_ok()
}

#[test]
fn an_ended_branch_that_nobody_prepares_lets_its_locks_go_though_nobody_begins_another() {
    let world = World::with(1, limits(|limits| limits.branch_age = Duration::from_millis(200)));
    let rows = world.nodes[0].db.keyspace("rows").unwrap();
    let mut client = world.client("client.test");
    client.work(1, vec![xa(&xid("t")), lock("k"), put("k", "v")]).unwrap();
    eventually("the row is free", || is_free(&world, &rows, "k"));
    assert_eq!(xa_code(&client.prepare(&xid("t")).unwrap_err()), "XAER_NOTA");
}

#[test]
fn a_client_that_chats_on_is_told_that_its_time_is_over() {
    let world = World::with(1, limits(|limits| limits.branch_age = Duration::from_millis(300)));
    let client = world.client("client.test");
    let mut stream = Stream::open(&client).unwrap();
    assert!(stream.say(xa(&xid("t"))) && stream.say(lock("k")));
    let begin = Instant::now();
    let status = loop {
        assert!(begin.elapsed() < Duration::from_secs(60), "it goes on for a minute");
        match stream.reply(&client) {
            Ok(reply) => assert!(reply.is_some(), "it ended without a word"),
            Err(status) => break status,
        }
        std::thread::sleep(Duration::from_millis(5));
        stream.say(get("k"));
    };
    assert_eq!((status.code(), xa_code(&status)), (Code::Aborted, "XA_RBTIMEOUT"), "{status:?}");
    assert!(is_free(&world, &world.nodes[0].db.keyspace("rows").unwrap(), "k"));
}

#[test]
fn a_client_that_does_not_read_holds_its_locks_no_longer_than_another() {
    let world = World::with(1, limits(|limits| limits.branch_age = Duration::from_millis(500)));
    let rows = world.nodes[0].db.keyspace("rows").unwrap();
    rows.insert("big", vec![b'x'; 100_000]).unwrap();
    let client = world.client("client.test");
    let mut stream = Stream::open(&client).unwrap();
    assert!(stream.say(xa(&xid("t"))) && stream.say(lock("k")));
    (0..2).for_each(|_| assert!(stream.reply(&client).unwrap().is_some()));
    // More than the connection and all queues hold.
    assert!((0..200).all(|_| stream.say(get("big"))));
    eventually("the row is free", || is_free(&world, &rows, "k"));
    drop(stream);
}

/// The deadline of these nodes is longer than outcomes are remembered.
#[test]
fn an_outcome_that_comes_late_is_remembered_as_long_as_any() {
    let world = World::with(1, limits(|limits| limits.branch_age = Duration::from_millis(1_900)));
    let mut client = world.client("client.test");
    let txn = client.begin(1);
    client.work(1, vec![begin_at(txn), add("ada", 1)]).unwrap();
    // Of the other nobody hears.
    let outcome = client.commit(1, txn, &[1, 7]).unwrap();
    assert_eq!(outcome.state(), wire::State::Aborted);
    client.begin(1);
    assert_eq!(client.wait(1, txn).unwrap().state(), wire::State::Aborted);
    eventually("it is forgotten", || {
        client.wait(1, txn).is_err_and(|status| xa_code(&status) == "XAER_NOTA")
    });
}

/// Outcomes that are remembered are no transactions: however many there have been, another may begin.
#[test]
fn transactions_that_are_over_keep_nobody_out() {
    let world = World::with(1, limits(|limits| limits.branches = 4));
    let mut client = world.client("client.test");
    let mut last = None;
    for n in 0..20 {
        let txn = client.begin(1);
        client.work(1, vec![begin_at(txn), put(&format!("k{n}"), "v")]).unwrap();
        assert_eq!(client.commit(1, txn, &[1]).unwrap().state(), wire::State::Committed);
        last = Some(txn);
    }
    // Who has not heard the answer can ask for it.
    assert_eq!(client.wait(1, last.unwrap()).unwrap().state(), wire::State::Committed);
    // Those that are open count.
    for _ in 0..4 {
        client.begin(1);
    }
    let mut service = CoordinatorClient::new(client.channels[0].clone());
    let status = client.runtime.block_on(service.begin(wire::BeginRequest {})).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[test]
fn there_are_threads_for_verbs_however_many_streams_and_waits_there_are() {
    let world = World::with(1, limits(|limits| (limits.streams, limits.waits) = (2, 0)));
    let mut client = world.client("client.test");
    client.work(1, vec![xa(&xid("before")), put("k", "v")]).unwrap();
    let mut streams: Vec<Stream> = (0..2).map(|_| Stream::open(&client).unwrap()).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        assert!(stream.say(xa(&xid(&format!("t{n}")))));
        stream.reply(&client).unwrap().unwrap();
    }
    let Err(status) = Stream::open(&client) else { panic!("a third") };
    assert_eq!((status.code(), xa_code(&status)), (Code::ResourceExhausted, "XAER_RMFAIL"), "{status:?}");
    // Whoever has something to end can.
    client.prepare(&xid("before")).unwrap();
    client.end("commit", &xid("before")).unwrap();
    streams.pop();
    eventually("there is room again", || client.work(1, vec![xa(&xid("after"))]).is_ok());
    // A commit that nobody could wait for has not begun.
    let txn = client.begin(1);
    for _ in 0..2 {
        let status = client.commit(1, txn, &[1]).unwrap_err();
        assert_eq!((status.code(), xa_code(&status)), (Code::ResourceExhausted, "XAER_RMFAIL"), "{status:?}");
    }
    assert_eq!(xa_code(&client.wait(1, txn).unwrap_err()), "XAER_PROTO");
}

#[test]
fn more_participants_than_a_record_may_name_are_refused_before_anything_is_written() {
    let mut world = World::new(1);
    let mut client = world.client("client.test");
    let txn = client.begin(1);
    client.work(1, vec![begin_at(txn), add("ada", 1)]).unwrap();
    let many: Vec<u64> = (1..=Group::PARTICIPANTS_MAX as u64 + 1).collect();
    let status = client.commit(1, txn, &many).unwrap_err();
    assert_eq!((status.code(), xa_code(&status)), (Code::InvalidArgument, "XAER_INVAL"), "{status:?}");
    // Nothing has happened to it.
    assert_eq!(client.commit(1, txn, &[1]).unwrap().state(), wire::State::Committed);

    // In the process: one by one, and a branch that comes in beside.
    let node = &world.nodes[0];
    let mut global = node.coordinator.begin();
    for &other in &many[1..] {
        global.enlist(NodeId(other)).unwrap();
    }
    assert!(matches!(global.enlist(NodeId(5000)), Err(Error::BadInput(_))));
    global.enlist(NodeId(2)).unwrap();
    let store = Store::new(NodeId(1), &node.db).unwrap();
    global.branch(&store).unwrap();
    let refused = global.commit().unwrap_err();
    assert!(matches!(&refused, Error::BadInput(what) if what.contains("1025")), "{refused}");
    drop(store);
    world.restart(1);
    assert_eq!(world.number(1, "ada"), Some(1));
}
