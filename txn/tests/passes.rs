//! What goes wrong in the middle of a pass, or never lets it end: who waits for an outcome is told something all the same.
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
    Answer, Body, Coordinator, CoordinatorBuilder, Decision, DecisionLog, Entry, Error, Group, Host, Message,
    NodeId, Participant, Pending, Protocol, Record, Reply, Role, Stage, Store, Timing, Transport, TxnId,
};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::Fault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Far longer than anything here takes, and far shorter than the deadline of a vote.
const SOON: Duration = Duration::from_secs(20);
const DEADLINE_US: u64 = 600_000_000;
const FOREIGN: NodeId = NodeId(9);

struct Node {
    disk: Arc<SimDisk>,
    db: Db,
    rows: Keyspace,
    store: Arc<Store>,
}

fn node(id: u64) -> Node {
    let disk = SimDisk::new(id);
    let builder = Db::builder("/dir/store").disk(disk.clone()).segment_bytes(64 << 10);
    let db = builder.memory_budget(64 << 20).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    let store = Store::new(NodeId(id), &db).unwrap();
    Node { disk, db, rows, store }
}

fn nodes(ids: std::ops::RangeInclusive<u64>) -> Vec<Node> {
    ids.map(node).collect()
}

fn builder(node: &Node) -> CoordinatorBuilder {
    let timing = Timing { retry_us: 2_000, retry_doublings_max: 4, deadline_us: DEADLINE_US };
    Coordinator::builder(&node.store).timing(timing)
}

/// Until it holds, not for ever.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < SOON, "{what}: not in {SOON:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What another thread comes to, if it does so soon.
fn soon<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(f()));
    receiver.recv_timeout(SOON).unwrap_or_else(|_| panic!("{what}: not in {SOON:?}"))
}

/// What is heard through a handle.
fn heard(pending: &Pending) -> Receiver<Result<TxnId, Error>> {
    let (sender, receiver) = channel();
    pending.clone().on_done(move |result| drop(sender.send(result)));
    receiver
}

/// Keeps what it is asked, until it is told to answer.
#[derive(Default)]
struct Slow {
    asked: Mutex<Vec<(TxnId, Reply)>>,
    abandoned: Mutex<Vec<TxnId>>,
}

impl Slow {
    fn attach(coordinator: &Coordinator) -> Arc<Slow> {
        Slow::attach_as(coordinator, FOREIGN)
    }

    fn attach_as(coordinator: &Coordinator, node: NodeId) -> Arc<Slow> {
        let slow = Arc::new(Slow::default());
        let participant: Arc<dyn Participant> = slow.clone();
        coordinator.attach_foreign(node, &participant).unwrap();
        slow
    }

    /// Once it is asked for that many.
    fn holds(&self, count: usize) {
        eventually("it is asked", || self.asked.lock().unwrap().len() >= count);
    }

    fn answer(&self, txn: TxnId) {
        self.answer_with(txn, Answer::Durable(0));
    }

    fn answer_with(&self, txn: TxnId, answer: Answer) {
        let mut asked = self.asked.lock().unwrap();
        let at = asked.iter().position(|(of, _)| *of == txn).unwrap();
        let (_, reply) = asked.remove(at);
        drop(asked);
        reply(answer);
    }
}

impl Participant for Slow {
    fn prepare(&self, txn: TxnId, _: &Record, reply: Reply) {
        self.asked.lock().unwrap().push((txn, reply));
    }
    fn commit(&self, txn: TxnId, _: bool, reply: Reply) {
        self.asked.lock().unwrap().push((txn, reply));
    }
    fn rollback(&self, _: TxnId, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit_one_phase(&self, txn: TxnId, _: &Record, reply: Reply) {
        self.asked.lock().unwrap().push((txn, reply));
    }
    fn abandon(&self, txn: TxnId) {
        self.abandoned.lock().unwrap().push(txn);
    }
    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        Ok(Vec::new())
    }
}

/// Handed over, of a participant alone that does not answer.
fn begin_foreign(coordinator: &Coordinator) -> Pending {
    let mut global = coordinator.begin();
    global.enlist(FOREIGN).unwrap();
    global.commit_pipelined().unwrap()
}

#[test]
fn a_coordinator_is_closed_by_who_is_told_of_an_outcome() {
    let nodes = nodes(1..=1);
    let coordinator = builder(&nodes[0]).open().unwrap();
    let slow = Slow::attach(&coordinator);
    let [first, other] = [(); 2].map(|()| begin_foreign(&coordinator));
    let other = heard(&other);
    slow.holds(2);
    // The call-back has the last handle, and is called by the coordinator's own thread.
    let txn = first.txn();
    let (sender, receiver) = channel();
    first.on_done(move |_| {
        drop(coordinator);
        let _ = sender.send(());
    });
    slow.answer(txn);
    receiver.recv_timeout(SOON).expect("it goes on after that");
    assert!(matches!(other.recv_timeout(SOON), Ok(Err(Error::Closed))), "who waits is told");
    // The store is let go: it can be opened elsewhere.
    eventually("the store is let go", || Arc::strong_count(&nodes[0].store) == 1);
}

#[test]
fn a_coordinator_is_closed_by_who_listens_to_it() {
    let nodes = nodes(1..=2);
    let place: Arc<OnceLock<Coordinator>> = Arc::default();
    let for_listener = Arc::clone(&place);
    let (sender, closed) = channel();
    let builder = builder(&nodes[0]).on_notice(move |_| {
        for_listener.get().unwrap().close();
        let _ = sender.send(());
    });
    let coordinator = place.get_or_init(|| builder.open().unwrap());
    let slow = Slow::attach(coordinator);
    let pending = heard(&begin_foreign(coordinator));
    slow.holds(1);
    coordinator.deliver(fenced(99));
    assert!(pending.recv_timeout(SOON).unwrap().is_err());
    closed.recv_timeout(SOON).expect("it goes on after that");
    eventually("the store is let go", || Arc::strong_count(&nodes[0].store) == 1);
    assert!(matches!(coordinator.attach(&nodes[1].store), Err(Error::Closed)), "nobody would see to it");
}

fn fenced(epoch: u64) -> Message {
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
    Message { txn, from: NodeId(2), to: NodeId(1), epoch: 1, body: Body::Fenced { epoch } }
}

#[test]
fn who_waits_for_a_coordinator_that_is_fenced_is_told_so() {
    let nodes = nodes(1..=1);
    let coordinator = builder(&nodes[0]).open().unwrap();
    let slow = Slow::attach(&coordinator);
    let pending = begin_foreign(&coordinator);
    let called = heard(&pending);
    let mut global = coordinator.begin();
    global.enlist(FOREIGN).unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(global.commit()));
    let late = coordinator.begin();
    slow.holds(2);
    coordinator.deliver(fenced(99));
    // It may be committed: who began it does not know, and never will here.
    let error = receiver.recv_timeout(SOON).expect("it does not wait for ever").unwrap_err();
    let Error::OutcomeUnknown { handle } = error else { panic!("{error}") };
    let is_fenced =
        |error: Option<Error>| matches!(error, Some(Error::Fenced { node: NodeId(1), epoch: 99 }));
    assert!(is_fenced(soon("the handle", move || handle.wait().err())));
    assert!(is_fenced(called.recv_timeout(SOON).unwrap().err()));
    assert!(is_fenced(soon("another handle", move || pending.wait().err())));
    // What is not handed over has not happened.
    let mut late = late;
    late.enlist(FOREIGN).unwrap();
    assert!(is_fenced(late.commit().err()));
    // In a new incarnation it goes on.
    coordinator.attach(&nodes[0].store).unwrap();
    let mut global = coordinator.begin();
    global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
    global.commit().unwrap();
}

#[test]
fn who_waits_for_a_coordinator_that_is_detached_is_told_that_it_is_not_known() {
    let nodes = nodes(1..=2);
    let coordinator = builder(&nodes[0]).open().unwrap();
    coordinator.attach(&nodes[1].store).unwrap();
    let slow = Slow::attach(&coordinator);
    let mut global = coordinator.begin();
    global.branch(&nodes[1].store).unwrap().insert(&nodes[1].rows, "a", "1").unwrap();
    global.enlist(FOREIGN).unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(global.commit()));
    slow.holds(1);
    coordinator.detach(NodeId(1));
    let error = receiver.recv_timeout(SOON).expect("it does not wait for ever").unwrap_err();
    let Error::OutcomeUnknown { handle } = error else { panic!("{error}") };
    // It is back, and had decided nothing.
    coordinator.attach(&nodes[0].store).unwrap();
    slow.answer(handle.txn());
    let told = soon("the handle", move || handle.wait());
    assert!(matches!(told, Err(Error::Aborted { .. })), "{told:?}");
}

/// Nobody is in doubt, so nobody leads: the coordinator does when it is back.
#[test]
fn who_waits_for_paxos_commit_is_told_when_the_coordinator_is_back() {
    let nodes = nodes(1..=4);
    let coordinator = builder(&nodes[0]).acceptors([2, 3, 4].map(NodeId)).open().unwrap();
    nodes[1..].iter().for_each(|node| coordinator.attach(&node.store).unwrap());
    let slow = [8, 9].map(|node| Slow::attach_as(&coordinator, NodeId(node)));
    let mut global = coordinator.begin();
    for node in [8, 9] {
        global.enlist(NodeId(node)).unwrap();
    }
    let pending = global.commit_pipelined().unwrap();
    slow.iter().for_each(|slow| slow.holds(1));
    coordinator.detach(NodeId(1));
    for slow in &slow {
        slow.answer_with(pending.txn(), Answer::Refused(Error::BadInput("no".into())));
    }
    // It is seen to before the coordinator is there to hear of it.
    eventually("both have given up", || slow.iter().all(|slow| !slow.abandoned.lock().unwrap().is_empty()));
    coordinator.attach(&nodes[0].store).unwrap();
    let told = soon("the handle", move || pending.wait());
    assert!(matches!(told, Err(Error::Aborted { .. })), "{told:?}");
    eventually("all is forgotten", || coordinator.is_idle());
}

/// The decision was written, told to all, and forgotten by an incarnation elsewhere. That nothing is known of it says nothing.
#[test]
fn nothing_is_presumed_of_what_another_incarnation_has_ended() {
    let nodes = nodes(1..=1);
    let coordinator = builder(&nodes[0]).open().unwrap();
    let slow = Slow::attach(&coordinator);
    let mut global = coordinator.begin();
    global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
    global.enlist(FOREIGN).unwrap();
    let pending = global.commit_pipelined().unwrap();
    // In these the coordinator's thread waits.
    let gates = [(); 2].map(|()| {
        let other = begin_foreign(&coordinator);
        let (txn, (reached, is_reached), (opens, is_open)) = (other.txn(), channel(), channel());
        other.on_done(move |_| {
            reached.send(()).unwrap();
            is_open.recv().unwrap();
        });
        (txn, is_reached, opens)
    });
    slow.holds(3);
    // The decision is on its way when the node leaves: handed over, and its answer not looked at.
    slow.answer(gates[0].0);
    gates[0].1.recv_timeout(SOON).unwrap();
    slow.answer(pending.txn());
    slow.answer(gates[1].0);
    gates[0].2.send(()).unwrap();
    gates[1].1.recv_timeout(SOON).unwrap();
    coordinator.detach(NodeId(1));
    gates[1].2.send(()).unwrap();
    let store = Store::new(NodeId(1), &nodes[0].db).unwrap();
    let elsewhere = builder(&Node { store, ..node(7) }).open().unwrap();
    let other = Slow::attach(&elsewhere);
    eventually("it has told all, and forgotten", || elsewhere.is_idle());
    drop(other);
    elsewhere.close();
    assert!(nodes[0].rows.get("a").unwrap().is_some(), "it is committed");
    coordinator.attach(&nodes[0].store).unwrap();
    // On a slow machine the answer may have come in the same pass after all.
    let is_known = slow.asked.lock().unwrap().iter().any(|(txn, _)| *txn == pending.txn());
    if is_known {
        slow.answer(pending.txn());
    }
    let told = soon("the handle", move || pending.wait());
    let is_fenced = matches!(told, Err(Error::Fenced { node: NodeId(1), epoch: 2 }));
    assert!(is_known == told.is_ok() && is_known != is_fenced, "{told:?}");
}

/// A detached node's open branches are rolled back: nobody will see to them.
#[test]
fn open_branches_of_a_node_that_leaves_are_rolled_back() {
    let nodes = nodes(1..=2);
    let coordinator = builder(&nodes[0]).open().unwrap();
    coordinator.attach(&nodes[1].store).unwrap();
    let txn = TxnId { coordinator: NodeId(7), epoch: 1, sequence: 1 };
    let join = || {
        let mut branch = nodes[1].db.begin();
        branch.insert(&nodes[1].rows, "a", "1").unwrap();
        coordinator.join(&nodes[1].store, txn, branch)
    };
    // What comes after it is over: it has been seen to.
    let is_seen = || {
        let mut global = coordinator.begin();
        global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
        global.commit().unwrap();
    };
    join().unwrap();
    is_seen();
    coordinator.detach(NodeId(2));
    coordinator.attach(&nodes[1].store).unwrap();
    join().expect("the one before is gone");
    is_seen();
    coordinator.close();
    let second = builder(&nodes[0]).open().unwrap();
    second.attach(&nodes[1].store).unwrap();
    second.join(&nodes[1].store, txn, nodes[1].db.begin()).expect("the one before is gone");
}

/// Begins another transaction whenever it is asked to commit one.
struct Endless {
    coordinator: OnceLock<Coordinator>,
    stops: AtomicBool,
}

impl Participant for Endless {
    fn prepare(&self, _: TxnId, _: &Record, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit(&self, _: TxnId, _: bool, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn rollback(&self, _: TxnId, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit_one_phase(&self, _: TxnId, _: &Record, reply: Reply) {
        if !self.stops.load(Ordering::SeqCst) {
            drop(begin_foreign(self.coordinator.get().unwrap()));
        }
        reply(Answer::Durable(0));
    }
    fn abandon(&self, _: TxnId) {}
    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        Ok(Vec::new())
    }
}

/// While it goes on its stores' logs are held back, and no timer is looked at.
#[test]
fn a_pass_ends_though_there_is_always_something_new() {
    let nodes = nodes(1..=1);
    let endless = Arc::new(Endless { coordinator: OnceLock::new(), stops: AtomicBool::new(false) });
    let coordinator = endless.coordinator.get_or_init(|| builder(&nodes[0]).open().unwrap());
    let participant: Arc<dyn Participant> = endless.clone();
    coordinator.attach_foreign(FOREIGN, &participant).unwrap();
    let first = heard(&begin_foreign(coordinator)).recv_timeout(SOON);
    let mut global = coordinator.begin();
    global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
    let second = heard(&global.commit_pipelined().unwrap()).recv_timeout(SOON);
    endless.stops.store(true, Ordering::SeqCst);
    assert!(first.is_ok() && second.is_ok(), "{first:?}, {second:?}");
    coordinator.close();
}

/// Whoever had not voted will not: the others need not hold their locks until the deadline.
#[test]
fn nobody_waits_for_the_votes_of_a_store_that_has_failed() {
    for call in 1..=3 {
        let nodes = nodes(1..=2);
        let coordinator = builder(&nodes[0]).open().unwrap();
        coordinator.attach(&nodes[1].store).unwrap();
        let begin = |n: usize| {
            let mut global = coordinator.begin();
            for node in &nodes {
                global.branch(&node.store).unwrap().insert(&node.rows, format!("{n}"), "1").unwrap();
            }
            global
        };
        begin(0).commit().unwrap();
        eventually("the first is over", || coordinator.is_idle());
        let globals: Vec<_> = (1..=32).map(begin).collect();
        nodes[1].disk.fail(Fault::power_cut().at_call(call));
        // Those that come late are refused.
        let waiting =
            globals.into_iter().map(|global| global.commit_pipelined().map(|pending| heard(&pending)));
        let waiting: Vec<_> = waiting.collect();
        let told = waiting.into_iter().map(|heard| match heard {
            Ok(heard) => heard.recv_timeout(SOON),
            Err(error) => Ok(Err(error)),
        });
        let told: Vec<_> = told.collect();
        let silent = told.iter().filter(|told| told.is_err()).count();
        assert_eq!(silent, 0, "of 32 that have heard nothing, at call {call}");
        for (n, told) in (1..).zip(told) {
            let is_committed = told.unwrap().is_ok();
            assert_eq!(nodes[0].rows.get(format!("{n}")).unwrap().is_some(), is_committed, "{n}");
        }
    }
}

/// Panics in the middle of a pass, or forgets what it was asked.
struct Broken {
    panics: bool,
}

impl Participant for Broken {
    fn prepare(&self, _: TxnId, _: &Record, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit(&self, _: TxnId, _: bool, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn rollback(&self, _: TxnId, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit_one_phase(&self, _: TxnId, _: &Record, reply: Reply) {
        assert!(!self.panics, "a participant's, in the middle of a pass");
        drop(reply);
    }
    fn abandon(&self, _: TxnId) {}
    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        Ok(Vec::new())
    }
}

#[test]
fn a_participant_that_never_answers_is_taken_out() {
    for panics in [false, true] {
        let nodes = nodes(1..=1);
        let (sender, notices) = channel();
        let builder = builder(&nodes[0]).on_notice(move |notice| drop(sender.send(notice.to_string())));
        let coordinator = builder.open().unwrap();
        let participant: Arc<dyn Participant> = Arc::new(Broken { panics });
        coordinator.attach_foreign(FOREIGN, &participant).unwrap();
        let pending = heard(&begin_foreign(&coordinator));
        let notice = notices.recv_timeout(SOON).expect("somebody is told");
        assert!(notice.contains("n9 was taken out"), "{notice}");
        // The coordinator goes on.
        let mut global = coordinator.begin();
        global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
        soon("another transaction", move || global.commit()).unwrap();
        coordinator.close();
        assert!(matches!(pending.recv_timeout(SOON), Ok(Err(Error::Closed))));
    }
}

#[test]
fn everybody_who_has_left_a_call_back_is_called() {
    let nodes = nodes(1..=1);
    let coordinator = builder(&nodes[0]).open().unwrap();
    let slow = Slow::attach(&coordinator);
    let [over, open] = [(); 2].map(|()| begin_foreign(&coordinator));
    slow.holds(2);
    let told = [heard(&over), heard(&over)];
    let closed = [heard(&open), heard(&open)];
    slow.answer(over.txn());
    assert!(told.iter().all(|told| matches!(told.recv_timeout(SOON), Ok(Ok(_)))));
    coordinator.close();
    assert!(closed.iter().all(|told| matches!(told.recv_timeout(SOON), Ok(Err(Error::Closed)))));
}

/// Cannot send.
struct NoTransport;

impl Transport for NoTransport {
    fn send(&self, message: Message) {
        panic!("a program's, when it is to send {message:?}");
    }
}

#[test]
fn a_transport_that_panics_ends_no_coordinator() {
    let nodes = nodes(1..=1);
    let coordinator = builder(&nodes[0]).transport(Arc::new(NoTransport)).open().unwrap();
    let mut global = coordinator.begin();
    global.enlist(NodeId(5)).unwrap();
    let away = heard(&global.commit_pipelined().unwrap());
    assert!(away.recv_timeout(Duration::from_millis(50)).is_err());
    let mut global = coordinator.begin();
    global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
    soon("another transaction", move || global.commit()).unwrap();
}

/// What is known of another coordinator's transaction goes with its branch.
#[test]
fn nothing_is_kept_of_another_coordinators_transactions() {
    let node = node(2);
    let mut host = Host::new(Timing::default());
    host.attach(0, NodeId(2), Some(node.store.clone()), Some(node.store.clone()), 0).unwrap();
    let group = Arc::new(Group { participants: vec![NodeId(2), NodeId(3)], acceptors: vec![] });
    for sequence in 1..=100 {
        let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence };
        let mut branch = node.db.begin();
        branch.insert(&node.rows, format!("{sequence}"), "1").unwrap();
        node.store.join(txn, branch);
        host.join(0, NodeId(2), txn).unwrap();
        let message = |body| Message { txn, from: NodeId(1), to: NodeId(2), epoch: 1, body };
        host.take_outgoing();
        if sequence % 3 > 0 {
            host.receive(0, message(Body::Prepare { protocol: Protocol::TwoPhase, group: group.clone() }));
            eventually("it votes", || {
                host.tick(0);
                !host.take_outgoing().is_empty()
            });
        }
        let decision = if sequence % 3 == 1 { Decision::Commit } else { Decision::Abort };
        host.receive(0, message(Body::Decide { decision, acknowledge: true }));
    }
    let mut now = 0;
    eventually("all is over", || {
        now += 20_000;
        host.tick(now);
        host.is_idle()
    });
    assert_eq!(host.tracked(), 0);
}

/// Of a timer that is due when it is set.
#[test]
fn time_goes_on_though_nobody_is_to_wait_before_asking_again() {
    let nodes = nodes(1..=1);
    let builder = Coordinator::builder(&nodes[0].store).timing(Timing { retry_us: 0, ..Timing::default() });
    let coordinator = builder.open().unwrap();
    let slow = Slow::attach(&coordinator);
    let pending = begin_foreign(&coordinator);
    slow.holds(1);
    slow.answer(pending.txn());
    soon("it is told", move || pending.wait()).unwrap();
}

/// An outcome that has its place and is not visible yet: the branch has ended, and is not found as one that nobody sees to.
#[test]
fn a_branch_that_is_about_to_end_is_not_found() {
    let node = node(2);
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
    let group = Arc::new(Group { participants: vec![NodeId(2), NodeId(3)], acceptors: vec![] });
    let record = Record { txn, entry: Entry::Prepared { protocol: Protocol::TwoPhase, group } };
    let mut branch = node.db.begin();
    branch.insert(&node.rows, "a", "1").unwrap();
    node.store.join(txn, branch);
    let answer = |ask: &dyn Fn(Reply)| {
        let (sender, receiver) = channel();
        ask(Box::new(move |answer| drop(sender.send(answer))));
        receiver
    };
    let prepared = answer(&|reply| node.store.prepare(txn, &record, reply));
    assert!(matches!(prepared.recv_timeout(SOON).unwrap(), Answer::Durable(_)));
    assert_eq!(node.store.recover().unwrap().len(), 1);
    // Behind something that is to be forced and is held back, it is not visible.
    let held = node.db.hold_tickets();
    let mut batch = seawall_engine::WriteBatch::new();
    batch.insert(&node.rows, "before", "1");
    let before = node.db.write_pipelined(batch).unwrap();
    let committed = answer(&|reply| Participant::commit(&*node.store, txn, false, reply));
    assert!(committed.try_recv().is_err(), "it is not visible yet");
    let found = node.store.recover().unwrap();
    drop(held);
    before.wait().unwrap();
    assert!(matches!(committed.recv_timeout(SOON).unwrap(), Answer::Written(_)));
    assert!(found.is_empty(), "{found:?}");
    assert!(node.store.recover().unwrap().is_empty());
    // Nothing is kept of it, by which a repetition would be taken for somebody else's work.
    let again = answer(&|reply| Participant::commit(&*node.store, txn, false, reply)).recv_timeout(SOON);
    assert!(matches!(again, Ok(Answer::Written(_))), "{again:?}");
    let other = answer(&|reply| node.store.rollback(txn, reply)).recv_timeout(SOON);
    assert!(matches!(other, Ok(Answer::Written(_))), "{other:?}");
}

/// Keeps what is sent, and lets the coordinator's thread wait while a vote is.
#[derive(Default)]
struct Gate {
    sent: Mutex<Vec<Message>>,
    is_open: AtomicBool,
}

impl Transport for Gate {
    fn send(&self, message: Message) {
        let is_vote = matches!(message.body, Body::Vote(_));
        self.sent.lock().unwrap().push(message);
        while is_vote && !self.is_open.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Three-phase commit, and the second phase and the outcome come to a participant at once: what it keeps is the outcome.
#[test]
fn a_second_phase_is_not_written_over_an_outcome() {
    let node = node(2);
    let gate = Arc::new(Gate::default());
    let coordinator = builder(&node).transport(gate.clone()).open().unwrap();
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
    let mut branch = node.db.begin();
    branch.insert(&node.rows, "a", "1").unwrap();
    coordinator.join(&node.store, txn, branch).unwrap();
    let group = Arc::new(Group { participants: vec![NodeId(2), NodeId(3)], acceptors: vec![] });
    let deliver =
        |from, body| coordinator.deliver(Message { txn, from: NodeId(from), to: NodeId(2), epoch: 1, body });
    let has_sent = |is_it: &dyn Fn(&Body) -> bool| {
        eventually("it is sent", || gate.sent.lock().unwrap().iter().any(|message| is_it(&message.body)));
    };
    deliver(1, Body::Prepare { protocol: Protocol::ThreePhase, group });
    has_sent(&|body| matches!(body, Body::Vote(_)));
    deliver(1, Body::PreCommit(Role::Coordinator));
    let stage = Stage::Ended(Decision::Commit);
    deliver(3, Body::Answer { to: Role::Participant, of: Role::Participant, stage, operational: true });
    gate.is_open.store(true, Ordering::SeqCst);
    has_sent(&|body| matches!(body, Body::Finished(Decision::Commit)));
    // It is told to all who ask, after a crash too, until the coordinator knows.
    coordinator.close();
    let (_, kept) = node.store.start().unwrap();
    let kept = kept.get(txn, Role::Participant);
    assert!(matches!(kept, Some(Entry::Finished { decision: Decision::Commit, .. })), "{kept:?}");
}

/// The thread is held up, and clients go on handing over.
#[test]
fn a_coordinator_with_too_much_to_do_says_so() {
    let nodes = nodes(1..=1);
    let (sender, held_up) = channel();
    let (let_go, receiver) = channel::<()>();
    let receiver = Mutex::new(receiver);
    let builder = builder(&nodes[0]).waiting_max(8).on_notice(move |_| {
        let _ = sender.send(());
        let _ = receiver.lock().unwrap().recv_timeout(SOON);
    });
    let coordinator = builder.open().unwrap();
    let participant: Arc<dyn Participant> = Arc::new(Broken { panics: false });
    coordinator.attach_foreign(FOREIGN, &participant).unwrap();
    let _lost = begin_foreign(&coordinator);
    held_up.recv_timeout(SOON).expect("it listens");
    let begin = |n: usize| {
        let mut global = coordinator.begin();
        global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, format!("{n}"), "1").unwrap();
        global.commit_pipelined()
    };
    let taken: Vec<Pending> = (0..8).map(|n| begin(n).unwrap()).collect();
    for n in 8..12 {
        let error = begin(n).unwrap_err();
        assert!(matches!(error, Error::Busy) && error.is_retryable(), "{error}");
    }
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 77 };
    coordinator.deliver(Message {
        txn,
        from: NodeId(2),
        to: NodeId(1),
        epoch: 1,
        body: Body::Learned(Decision::Commit),
    });
    let open = nodes[0].db.begin();
    assert!(matches!(coordinator.join(&nodes[0].store, txn, open), Err(Error::Busy)));
    let backlog = coordinator.backlog();
    assert_eq!((backlog.waiting, backlog.waiting_most, backlog.refused, backlog.dropped), (8, 8, 5, 1));
    let_go.send(()).unwrap();
    for pending in taken {
        pending.wait().unwrap();
    }
    for n in 0..12 {
        assert_eq!(nodes[0].rows.get(format!("{n}")).unwrap().is_some(), n < 8, "{n}");
    }
    begin(12).unwrap().wait().unwrap();
    assert_eq!(coordinator.backlog().waiting, 0);
}
