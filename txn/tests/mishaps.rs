//! What others do that nobody asked them to: they end branches behind a coordinator's back, panic where they are told of
//! something, and have no room.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

use seawall_engine::{Db, Keyspace};
use seawall_txn::{
    Answer, Body, Coordinator, CoordinatorBuilder, Decision, Entry, Group, Host, Message, NodeId,
    Participant, Plan, Protocol, Record, Reply, Store, Timing, TxnId,
};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::CrashStyle;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Node {
    disk: Arc<SimDisk>,
    db: Db,
    rows: Keyspace,
    store: Arc<Store>,
}

fn node_on(id: u64, disk: Arc<SimDisk>) -> Node {
    let builder = Db::builder("/dir/store").disk(disk.clone()).segment_bytes(64 << 10);
    let db = builder.memory_budget(64 << 20).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    let store = Store::new(NodeId(id), &db).unwrap();
    Node { disk, db, rows, store }
}

fn nodes(ids: std::ops::RangeInclusive<u64>) -> Vec<Node> {
    ids.map(|id| node_on(id, SimDisk::new(id))).collect()
}

fn builder(node: &Node) -> CoordinatorBuilder {
    let timing = Timing { retry_us: 2_000, retry_doublings_max: 4, deadline_us: 300_000 };
    Coordinator::builder(&node.store).timing(timing)
}

/// Until it holds, not for ever.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a coordinator has told of, as text.
type Told = Arc<Mutex<String>>;

fn telling(builder: CoordinatorBuilder) -> (CoordinatorBuilder, Told) {
    let told = Told::default();
    let too = Arc::clone(&told);
    (builder.on_notice(move |notice| *too.lock().unwrap() += &format!("{notice:?} ")), told)
}

#[test]
fn a_branch_that_was_rolled_back_and_should_commit_is_damage() {
    let first = nodes(1..=3);
    let coordinator = builder(&first[0]).open().unwrap();
    first[1..].iter().for_each(|node| coordinator.attach(&node.store).unwrap());
    let mut global = coordinator.begin();
    for node in &first[1..] {
        global.branch(&node.store).unwrap().insert(&node.rows, "a", "1").unwrap();
    }
    global.commit().unwrap();
    // The power goes, and with it the outcomes at the participants, which are lazy.
    let back: Vec<Node> = (1..)
        .zip(&first)
        .map(|(id, node)| {
            node.disk.set_crash_style(Some(CrashStyle::KeepNone));
            node_on(id, node.disk.crash_copy())
        })
        .collect();
    // They are in doubt, and their coordinator is not there yet.
    let (builder, told) = telling(builder(&back[1]));
    let second = builder.open().unwrap();
    second.attach(&back[2].store).unwrap();
    back[1].db.prepared().next().expect("in doubt").rollback().unwrap();
    second.attach(&back[0].store).unwrap();
    eventually("somebody is told", || told.lock().unwrap().contains("Damage"));
    assert!(told.lock().unwrap().contains("participant: NodeId(2), done: Abort"), "{}", told.lock().unwrap());
    eventually("the other has the outcome", || back[2].db.prepared().next().is_none());
    let there = [1, 2].map(|n: usize| back[n].rows.get("a").unwrap().is_some());
    assert_eq!(there, [false, true], "what was done stands");
}

#[test]
fn a_branch_that_was_committed_and_should_roll_back_is_damage() {
    let nodes = nodes(1..=2);
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 77 };
    // Node 1 has been here, and decided nothing.
    drop(builder(&nodes[0]).open().unwrap());
    let group = Arc::new(Group { participants: vec![NodeId(1), NodeId(2)], acceptors: vec![] });
    let record = Record { txn, entry: Entry::Prepared { protocol: Protocol::TwoPhase, group } };
    let mut branch = nodes[1].db.begin();
    branch.insert(&nodes[1].rows, "a", "1").unwrap();
    nodes[1].store.join(txn, branch);
    let (sender, receiver) = std::sync::mpsc::channel();
    nodes[1].store.prepare(txn, &record, Box::new(move |answer| sender.send(answer).unwrap()));
    assert!(matches!(receiver.recv().unwrap(), Answer::Durable(_)));
    let (builder, told) = telling(builder(&nodes[1]));
    let coordinator = builder.open().unwrap();
    nodes[1].db.prepared().next().expect("in doubt").commit().unwrap();
    coordinator.attach(&nodes[0].store).unwrap();
    eventually("somebody is told", || told.lock().unwrap().contains("Damage"));
    assert!(
        told.lock().unwrap().contains("participant: NodeId(2), done: Commit"),
        "{}",
        told.lock().unwrap()
    );
}

/// Says yes, and takes its time to commit.
#[derive(Default)]
struct Slow {
    held: Mutex<Vec<Reply>>,
    flushes: AtomicU64,
}

impl Slow {
    /// Once it has been asked to commit.
    fn answer(&self, answer: impl Fn() -> Answer) {
        eventually("it is asked to commit", || !self.held.lock().unwrap().is_empty());
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        held.into_iter().for_each(|reply| reply(answer()));
    }
}

impl Participant for Slow {
    fn prepare(&self, _: TxnId, _: &Record, reply: Reply) {
        reply(Answer::Durable(0));
    }

    fn commit(&self, _: TxnId, _: bool, reply: Reply) {
        self.held.lock().unwrap().push(reply);
    }

    fn rollback(&self, _: TxnId, reply: Reply) {
        reply(Answer::Durable(0));
    }

    fn commit_one_phase(&self, _: TxnId, _: &Record, reply: Reply) {
        self.held.lock().unwrap().push(reply);
    }

    fn abandon(&self, _: TxnId) {}

    fn flush(&self, reply: Reply) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        reply(Answer::Refused(seawall_engine::Error::NoSpace.into()));
    }

    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        Ok(Vec::new())
    }
}

#[test]
fn a_panic_in_what_a_program_gave_ends_no_coordinator() {
    let nodes = nodes(1..=1);
    let builder = builder(&nodes[0]).on_notice(|_| panic!("a program's, when it is told of something"));
    let coordinator = builder.open().unwrap();
    let slow = Arc::new(Slow::default());
    let participant: Arc<dyn Participant> = Arc::clone(&slow) as _;
    coordinator.attach_foreign(NodeId(9), &participant).unwrap();
    let begin = || {
        let mut global = coordinator.begin();
        global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
        global.enlist(NodeId(9)).unwrap();
        global.commit_pipelined().unwrap()
    };
    // The answer comes when `on_done` is set: the coordinator's own thread calls it.
    begin().on_done(|_| panic!("a program's, when a transaction is over"));
    slow.answer(|| Answer::Durable(0));
    // A commit that nobody was asked to prepare for: that is told of.
    let mut global = coordinator.begin();
    let txn = TxnId { sequence: 1_000, ..global.txn() };
    coordinator.join(&nodes[0].store, txn, nodes[0].db.begin()).unwrap();
    let body = Body::Decide { decision: Decision::Commit, acknowledge: false };
    coordinator.deliver(Message { txn, from: NodeId(1), to: NodeId(1), epoch: txn.epoch, body });
    global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "b", "1").unwrap();
    global.commit().unwrap();
    // The thread is there.
    let pending = begin();
    slow.answer(|| Answer::Durable(0));
    assert!(pending.wait_timeout(Duration::from_secs(60)).unwrap().is_some());
}

#[test]
fn a_store_that_cannot_flush_is_not_asked_again_at_once() {
    let nodes = nodes(1..=1);
    let mut host = Host::new(Timing { retry_us: 60_000_000, ..Timing::default() });
    let epoch =
        host.attach(0, NodeId(1), Some(nodes[0].store.clone()), Some(nodes[0].store.clone()), 0).unwrap();
    let slow = Arc::new(Slow::default());
    let txn = TxnId { coordinator: NodeId(1), epoch, sequence: 1 };
    for node in [8, 9] {
        host.attach(0, NodeId(node), None, Some(Arc::clone(&slow) as _), epoch).unwrap();
        host.join(0, NodeId(node), txn).unwrap();
    }
    let group = Arc::new(Group { participants: vec![NodeId(8), NodeId(9)], acceptors: vec![] });
    host.start(0, txn, Plan { protocol: Protocol::TwoPhase, group, merged: false }).unwrap();
    eventually("both are asked to commit", || {
        host.tick(0);
        slow.held.lock().unwrap().len() == 2
    });
    slow.answer(|| Answer::Written(5));
    host.tick(0);
    let mut now = 0;
    for _ in 0..100 {
        assert!(host.next_due() > now, "after {} flushes", slow.flushes.load(Ordering::SeqCst));
        now = host.next_due();
        host.tick(now);
    }
    let flushes = slow.flushes.load(Ordering::SeqCst);
    // It is asked again, and not at every turn.
    assert!(flushes > 2 && now / flushes > 100_000, "{flushes} in {now} µs");
}
