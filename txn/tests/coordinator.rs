//! The coordinator over real engines: outcomes, forced writes, crashes, and what is found afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

use seawall_engine::{Db, Keyspace, Readable};
use seawall_txn::{
    Answer, Coordinator, Entry, Error, NodeId, Participant, Protocol, Record, Reply, Store, Timing, TxnId,
};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::CrashStyle;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct Node {
    disk: Arc<SimDisk>,
    db: Db,
    rows: Keyspace,
    store: Arc<Store>,
}

fn open(disk: &Arc<SimDisk>) -> Db {
    Db::builder("/dir/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        // With little, what commits are validated against may be gone: a `Conflict` that nobody else's commit explains.
        .memory_budget(64 << 20)
        .open()
        .unwrap()
}

fn node_on(id: u64, disk: Arc<SimDisk>) -> Node {
    let db = open(&disk);
    let rows = db.keyspace("rows").unwrap();
    let store = Store::new(NodeId(id), &db).unwrap();
    Node { disk, db, rows, store }
}

fn node(id: u64) -> Node {
    node_on(id, SimDisk::new(id))
}

fn nodes(ids: std::ops::RangeInclusive<u64>) -> Vec<Node> {
    ids.map(node).collect()
}

fn timing() -> Timing {
    Timing { retry_us: 2_000, retry_doublings_max: 4, deadline_us: 300_000 }
}

fn coordinator(nodes: &[Node]) -> Coordinator {
    let coordinator = Coordinator::builder(&nodes[0].store).timing(timing()).open().unwrap();
    nodes[1..].iter().for_each(|node| coordinator.attach(&node.store).unwrap());
    coordinator
}

fn put(coordinator: &Coordinator, nodes: &[&Node], key: &str) -> Result<TxnId, Error> {
    let mut global = coordinator.begin();
    for node in nodes {
        global.branch(&node.store)?.insert(&node.rows, key, "1")?;
    }
    global.commit()
}

fn commit(coordinator: &Coordinator, nodes: &[&Node], key: &str) {
    put(coordinator, nodes, key).unwrap();
}

fn has(node: &Node, key: &str) -> bool {
    node.rows.get(key).unwrap().is_some()
}

/// Everything is durable and forgotten.
fn settle(coordinator: &Coordinator) {
    for _ in 0..2000 {
        if coordinator.is_idle() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("something is left over");
}

fn kept(node: &Node) -> usize {
    node.db.keyspace(seawall_txn::KEYSPACE).unwrap().prefix("r").count()
}

#[test]
fn all_or_none() {
    let nodes = nodes(1..=3);
    let coordinator = coordinator(&nodes);
    let all: Vec<&Node> = nodes.iter().collect();
    put(&coordinator, &all, "a").unwrap();
    assert!(nodes.iter().all(|node| has(node, "a")), "visible when it returns");
    // One of them has lost against another: none commits.
    let mut global = coordinator.begin();
    for node in &nodes {
        let branch = global.branch(&node.store).unwrap();
        branch.get(&node.rows, "b").unwrap();
        branch.insert(&node.rows, "b", "1").unwrap();
    }
    nodes[1].rows.insert("b", "before").unwrap();
    let error = global.commit().unwrap_err();
    assert!(error.is_retryable() && matches!(error, Error::Aborted { cause: Some(_), .. }), "{error}");
    assert!(!has(&nodes[0], "b") && !has(&nodes[2], "b"));
    // Again, and it is through.
    coordinator
        .transact(|global| {
            for node in &nodes {
                global.branch(&node.store)?.insert(&node.rows, "b", "2")?;
            }
            Ok(())
        })
        .unwrap();
    settle(&coordinator);
    assert!(nodes.iter().all(|node| kept(node) == 0 && node.db.prepared().next().is_none()));
}

/// Forced writes until the client has its answer, summed over all stores: the table in the crate's documentation. Logs also
/// flush by themselves what has lain there for a while, which comes between now and then: the fewest of several runs count.
fn forced(coordinator: &Coordinator, nodes: &[Node], expected: u64, act: impl Fn()) {
    let syncs = || nodes.iter().map(|node| node.db.stats().syncs).sum::<u64>();
    let mut fewest = u64::MAX;
    for _ in 0..200 {
        settle(coordinator);
        // Nothing is left to be flushed.
        nodes.iter().for_each(|node| drop(node.db.sync()));
        let before = syncs();
        act();
        fewest = fewest.min(syncs() - before);
        assert!(fewest >= expected, "{fewest} instead of {expected}: something is not forced");
        if fewest == expected {
            return;
        }
    }
    panic!("{fewest} instead of {expected}: something is forced that need not be");
}

#[test]
fn forced_writes_are_what_the_protocols_say() {
    let mut nodes = nodes(1..=4);
    let coordinator = coordinator(&nodes);
    let count = |expected: usize, act: &dyn Fn()| forced(&coordinator, &nodes, expected as u64, act);
    // One participant.
    count(1, &|| commit(&coordinator, &[&nodes[1]], "a"));
    for n in 2..=3_usize {
        let apart: Vec<&Node> = nodes[1..=n].iter().collect();
        count(n + 1, &|| commit(&coordinator, &apart, "b"));
        let merged: Vec<&Node> = nodes[..n].iter().collect();
        count(n, &|| commit(&coordinator, &merged, "c"));
    }
    let reads = |refuse: bool, merged: bool| {
        let mut global = coordinator.begin();
        for node in &nodes[usize::from(!merged)..3] {
            global.branch(&node.store).unwrap().get(&node.rows, "b").unwrap();
        }
        if refuse {
            drop(global);
        } else {
            global.commit().unwrap();
        }
    };
    count(0, &|| reads(false, false));
    count(0, &|| reads(true, false));
    // The only participant, which has only read.
    let alone = || {
        let mut global = coordinator.begin();
        global.branch(&nodes[1].store).unwrap().get(&nodes[1].rows, "b").unwrap();
        global.commit().unwrap();
    };
    count(0, &alone);
    // An abort, beside the two writes that were in the way.
    let abort = || {
        let mut global = coordinator.begin();
        for node in &nodes[1..3] {
            let branch = global.branch(&node.store).unwrap();
            branch.get(&node.rows, "d").unwrap();
            branch.insert(&node.rows, "d", "1").unwrap();
        }
        nodes[1].rows.insert("d", "before").unwrap();
        nodes[2].rows.insert("d", "before").unwrap();
        global.commit().unwrap_err();
    };
    count(2, &abort);
    drop(coordinator);
    nodes.extend(self::nodes(5..=6));
    // Paxos Commit, F = 1: three acceptors, two of them asked while all is well.
    let builder = Coordinator::builder(&nodes[0].store).timing(timing());
    let coordinator = builder.acceptors([NodeId(4), NodeId(5), NodeId(6)]).open().unwrap();
    nodes[1..].iter().for_each(|node| coordinator.attach(&node.store).unwrap());
    for n in 2..=3_usize {
        let some: Vec<&Node> = nodes[..n].iter().collect();
        forced(&coordinator, &nodes, n as u64 + 1 + 1, || commit(&coordinator, &some, "e"));
    }
    settle(&coordinator);
    assert!(nodes.iter().all(|node| kept(node) == 0));
}

/// Too few acceptors are there: the client hears that the outcome is not known, and its handle knows when one is back.
#[test]
fn paxos_commit_without_a_majority_is_unknown_until_there_is_one() {
    let mut nodes = nodes(1..=2);
    nodes.extend(self::nodes(4..=4));
    let builder = Coordinator::builder(&nodes[0].store).timing(timing());
    let coordinator = builder.acceptors([NodeId(1), NodeId(4), NodeId(5)]).open().unwrap();
    coordinator.attach(&nodes[1].store).unwrap();
    let both: Vec<&Node> = nodes[..2].iter().collect();
    let Err(Error::OutcomeUnknown { handle }) = put(&coordinator, &both, "a") else {
        panic!("it is not known")
    };
    assert!(!has(&nodes[0], "a") && !has(&nodes[1], "a"));
    coordinator.attach(&nodes[2].store).unwrap();
    let is_committed = handle.wait().is_ok();
    assert_eq!([has(&nodes[0], "a"), has(&nodes[1], "a")], [is_committed; 2]);
}

#[test]
fn three_phase_commit_commits() {
    let nodes = nodes(1..=3);
    let builder = Coordinator::builder(&nodes[0].store).timing(timing());
    let coordinator = builder.protocol(Protocol::ThreePhase).open().unwrap();
    nodes[1..].iter().for_each(|node| coordinator.attach(&node.store).unwrap());
    let all: Vec<&Node> = nodes[1..].iter().collect();
    put(&coordinator, &all, "a").unwrap();
    assert!(has(&nodes[1], "a") && has(&nodes[2], "a"));
    settle(&coordinator);
    assert!(nodes.iter().all(|node| kept(node) == 0));
}

/// Power is cut everywhere after the client was told; nothing that need not survive does.
#[test]
fn bug_32_what_was_acknowledged_is_there_after_a_crash() {
    for merged in [false, true] {
        let nodes = nodes(1..=3);
        let coordinator = coordinator(&nodes);
        let some: Vec<&Node> = nodes[usize::from(!merged)..].iter().collect();
        put(&coordinator, &some, "a").unwrap();
        let disks: Vec<_> = nodes
            .iter()
            .map(|node| {
                node.disk.set_crash_style(Some(CrashStyle::KeepNone));
                node.disk.crash_copy()
            })
            .collect();
        let back: Vec<Node> = disks.into_iter().zip(1..).map(|(disk, id)| node_on(id, disk)).collect();
        let found: usize = back.iter().map(|node| node.db.prepared().count()).sum();
        assert!(found >= 1, "outcomes are lazy: {found} in doubt");
        let resolver = self::coordinator(&back);
        settle(&resolver);
        for node in &back[usize::from(!merged)..] {
            assert!(has(node, "a"), "{:?}", node.store);
            assert_eq!((kept(node), node.db.prepared().count()), (0, 0));
            node.rows.insert("a", "free").unwrap();
        }
    }
}

/// A coordinator that never decided: what it left prepared is rolled back when it is back.
#[test]
fn what_a_dead_coordinator_left_prepared_is_rolled_back() {
    let nodes = nodes(1..=3);
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 77 };
    drop(coordinator(&nodes));
    let (sender, receiver) = std::sync::mpsc::channel();
    let group = Arc::new(seawall_txn::Group { participants: vec![NodeId(2), NodeId(3)], acceptors: vec![] });
    let record = Record { txn, entry: Entry::Prepared { protocol: Protocol::TwoPhase, group } };
    let mut tx = nodes[1].db.begin();
    tx.insert(&nodes[1].rows, "a", "1").unwrap();
    nodes[1].store.join(txn, tx);
    nodes[1].store.prepare(txn, &record, Box::new(move |answer| sender.send(answer).unwrap()));
    assert!(matches!(receiver.recv().unwrap(), Answer::Durable(_)));
    assert!(nodes[1].rows.insert("a", "2").is_err(), "in doubt");
    let coordinator = coordinator(&nodes);
    settle(&coordinator);
    assert_eq!(nodes[1].db.prepared().count(), 0);
    nodes[1].rows.insert("a", "2").unwrap();
}

/// A store that failed with the outcome on its way: the client is not told a lie, and its handle resolves.
#[test]
fn bug_33_an_unknown_outcome_is_waited_for_and_not_run_again() {
    let mut nodes = nodes(1..=2);
    let coordinator = coordinator(&nodes);
    put(&coordinator, &[&nodes[0]], "x").unwrap();
    settle(&coordinator);
    // The coordinator's own store loses its disk when the decision is written.
    let mut global = coordinator.begin();
    for node in &nodes {
        global.branch(&node.store).unwrap().insert(&node.rows, "a", "1").unwrap();
    }
    let fault = seawall_wal::disk::sim::Fault::power_cut().at_call(1);
    nodes[0].disk.fail(fault);
    let error = global.commit().unwrap_err();
    let Error::OutcomeUnknown { handle } = error else { panic!("{error}") };
    assert!(handle.wait_timeout(Duration::from_millis(5)).unwrap().is_none());
    let disk = nodes[0].disk.crash();
    nodes[0] = node_on(1, disk);
    coordinator.attach(&nodes[0].store).unwrap();
    let committed = handle.wait().is_ok();
    settle(&coordinator);
    assert_eq!((has(&nodes[0], "a"), has(&nodes[1], "a")), (committed, committed));
    put(&coordinator, &[&nodes[0], &nodes[1]], "b").unwrap();
}

/// A commit merged with the decision, of which all others have only read: its store fails while it is written, and it may be on
/// the disk or not. Who waits is told what is there.
#[test]
fn a_merged_commit_whose_store_failed_is_known_when_it_is_back() {
    let mut seen = [false; 2];
    for style in [CrashStyle::KeepAll, CrashStyle::KeepNone] {
        for call in 1..6 {
            let mut nodes = nodes(1..=2);
            nodes[1].rows.insert("b", "1").unwrap();
            let coordinator = coordinator(&nodes);
            put(&coordinator, &[&nodes[0]], "x").unwrap();
            settle(&coordinator);
            let mut global = coordinator.begin();
            global.branch(&nodes[0].store).unwrap().insert(&nodes[0].rows, "a", "1").unwrap();
            global.branch(&nodes[1].store).unwrap().get(&nodes[1].rows, "b").unwrap();
            nodes[0].disk.set_crash_style(Some(style));
            nodes[0].disk.fail(seawall_wal::disk::sim::Fault::power_cut().at_call(call));
            let Err(Error::OutcomeUnknown { handle }) = global.commit() else { continue };
            let disk = nodes[0].disk.crash();
            nodes[0] = node_on(1, disk);
            coordinator.attach(&nodes[0].store).unwrap();
            let committed = handle.wait().is_ok();
            assert_eq!(has(&nodes[0], "a"), committed, "{style:?}, call {call}");
            settle(&coordinator);
            assert_eq!(kept(&nodes[0]), 0);
            seen[usize::from(committed)] = true;
        }
    }
    assert_eq!(seen, [true; 2], "rolled back, committed");
}

/// A store has one name.
#[test]
fn a_store_is_one_node_for_ever() {
    let one = node(1);
    drop(coordinator(std::slice::from_ref(&one)));
    let other = Store::new(NodeId(2), &one.db).unwrap();
    assert!(matches!(Coordinator::open(&other), Err(Error::BadInput(_))));
    let coordinator = coordinator(std::slice::from_ref(&one));
    assert!(matches!(coordinator.attach(&one.store), Err(Error::BadInput(_))), "twice");
}

/// A group for whose names there is no room in a branch's name.
#[test]
fn a_group_without_room_in_the_name_is_a_row() {
    let all: Vec<Node> = (1..=12).map(|n| node(n * 1_000_000_007)).collect();
    let coordinator = coordinator(&all);
    let some: Vec<&Node> = all[1..].iter().collect();
    put(&coordinator, &some, "a").unwrap();
    assert!(all[1..].iter().all(|node| has(node, "a")));
    settle(&coordinator);
    assert!(all.iter().all(|node| kept(node) == 0));
}

/// What is kept of a transaction and is damaged is not skipped.
#[test]
fn bug_29_a_damaged_record_is_an_error() {
    let one = node(1);
    drop(coordinator(std::slice::from_ref(&one)));
    let rows = one.db.keyspace(seawall_txn::KEYSPACE).unwrap();
    rows.insert("r\u{1}junk", "junk").unwrap();
    assert!(matches!(Coordinator::open(&one.store), Err(Error::Damaged { .. })));
}

/// An operator has ended a branch while its coordinator was away.
#[test]
fn a_persons_outcome_is_reported() {
    let nodes = nodes(1..=3);
    let coordinator1 = coordinator(&nodes);
    let some: Vec<&Node> = nodes[1..].iter().collect();
    put(&coordinator1, &some, "a").unwrap();
    let copies: Vec<_> = nodes
        .iter()
        .map(|node| {
            node.disk.set_crash_style(Some(CrashStyle::KeepNone));
            node.disk.crash_copy()
        })
        .collect();
    let back: Vec<Node> = copies.into_iter().zip(1..).map(|(disk, id)| node_on(id, disk)).collect();
    let prepared = back[1].db.prepared().next().expect("outcomes are lazy");
    prepared.complete(seawall_engine::Heuristic::RolledBack).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_too = Arc::clone(&seen);
    let builder = Coordinator::builder(&back[0].store).timing(timing());
    let coordinator =
        builder.on_notice(move |notice| seen_too.lock().unwrap().push(format!("{notice:?}"))).open().unwrap();
    back[1..].iter().for_each(|node| coordinator.attach(&node.store).unwrap());
    for _ in 0..1000 {
        if !seen.lock().unwrap().is_empty() && back[2].db.prepared().next().is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let seen = seen.lock().unwrap().join(" ");
    assert!(seen.contains("Damage") && seen.contains("Abort"), "{seen}");
    assert!(!has(&back[1], "a") && has(&back[2], "a"), "what a person did stands, and is told of");
}

/// A participant that is no store.
#[derive(Default)]
struct Counter {
    value: Mutex<i64>,
    open: Mutex<BTreeMap<TxnId, i64>>,
    prepared: Mutex<BTreeMap<TxnId, i64>>,
}

impl Participant for Counter {
    fn prepare(&self, txn: TxnId, _record: &Record, reply: Reply) {
        let Some(add) = self.open.lock().unwrap().remove(&txn) else {
            return reply(Answer::Refused(Error::BadInput("no such branch".into())));
        };
        self.prepared.lock().unwrap().insert(txn, add);
        reply(Answer::Durable(0));
    }
    fn commit(&self, txn: TxnId, _forced: bool, reply: Reply) {
        if let Some(add) = self.prepared.lock().unwrap().remove(&txn) {
            *self.value.lock().unwrap() += add;
        }
        reply(Answer::Durable(0));
    }
    fn rollback(&self, txn: TxnId, reply: Reply) {
        self.prepared.lock().unwrap().remove(&txn);
        reply(Answer::Durable(0));
    }
    fn commit_one_phase(&self, txn: TxnId, _record: &Record, reply: Reply) {
        if let Some(add) = self.open.lock().unwrap().remove(&txn) {
            *self.value.lock().unwrap() += add;
        }
        reply(Answer::Durable(0));
    }
    fn abandon(&self, txn: TxnId) {
        self.open.lock().unwrap().remove(&txn);
    }
    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        Ok(Vec::new())
    }
}

#[test]
fn a_foreign_participant_takes_part() {
    let nodes = nodes(1..=2);
    let coordinator = coordinator(&nodes);
    let counter = Arc::new(Counter::default());
    let participant: Arc<dyn Participant> = counter.clone();
    coordinator.attach_foreign(NodeId(9), &participant).unwrap();
    let add = |with: usize, refused: bool| {
        let mut global = coordinator.begin();
        for node in &nodes[..with] {
            let branch = global.branch(&node.store).unwrap();
            branch.get(&node.rows, "n").unwrap();
            branch.insert(&node.rows, "n", "1").unwrap();
        }
        let txn = global.enlist(NodeId(9)).unwrap();
        counter.open.lock().unwrap().insert(txn, 5);
        if refused {
            nodes[0].rows.insert("n", "before").unwrap();
        }
        global.commit()
    };
    add(2, false).unwrap();
    assert_eq!(*counter.value.lock().unwrap(), 5);
    add(2, true).unwrap_err();
    assert_eq!(*counter.value.lock().unwrap(), 5);
    add(0, false).unwrap();
    assert_eq!(*counter.value.lock().unwrap(), 10);
    settle(&coordinator);
    assert!(counter.open.lock().unwrap().is_empty() && counter.prepared.lock().unwrap().is_empty());
}

/// One that does not answer. Counts how often it was asked what it has prepared.
#[derive(Default)]
struct Silent {
    asked: AtomicU64,
    replies: Mutex<Vec<Reply>>,
}

impl Participant for Silent {
    fn prepare(&self, _txn: TxnId, _record: &Record, reply: Reply) {
        self.replies.lock().unwrap().push(reply);
    }
    fn commit(&self, _txn: TxnId, _forced: bool, _reply: Reply) {}
    fn rollback(&self, _txn: TxnId, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit_one_phase(&self, _txn: TxnId, _record: &Record, reply: Reply) {
        self.replies.lock().unwrap().push(reply);
    }
    fn abandon(&self, _txn: TxnId) {}
    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(Vec::new())
    }
}

/// The coordinator's thread wakes for a deadline even if nothing else does: it used to be kept no earlier than the next search
/// for what is prepared.
#[test]
fn a_deadline_is_kept_when_nobody_answers() {
    let nodes = nodes(1..=1);
    let hasty = Timing { deadline_us: 50_000, ..timing() };
    let coordinator = Coordinator::builder(&nodes[0].store).timing(hasty).open().unwrap();
    let silent = Arc::new(Silent::default());
    let participant: Arc<dyn Participant> = silent.clone();
    coordinator.attach_foreign(NodeId(9), &participant).unwrap();
    let is_kept = || {
        let before = silent.asked.load(Ordering::SeqCst);
        let mut global = coordinator.begin();
        global.enlist(NodeId(9)).unwrap();
        let Err(Error::OutcomeUnknown { .. }) = global.commit() else { panic!("it has not answered") };
        silent.asked.load(Ordering::SeqCst) == before
    };
    // One search may come by chance in between.
    assert!((0..5).any(|_| is_kept()));
}

/// What was handed over and not answered when a coordinator closes is unknown: it may be committed.
#[test]
fn a_transaction_that_was_handed_over_is_unknown_when_its_coordinator_closes() {
    let nodes = nodes(1..=1);
    let coordinator = coordinator(&nodes);
    let silent = Arc::new(Silent::default());
    let participant: Arc<dyn Participant> = silent.clone();
    coordinator.attach_foreign(NodeId(9), &participant).unwrap();
    let begin = || {
        let mut global = coordinator.begin();
        global.enlist(NodeId(9)).unwrap();
        global
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let (pending, late) = (begin().commit_pipelined().unwrap(), begin().commit_pipelined().unwrap());
    let told = sender.clone();
    pending.on_done(move |result| told.send(result).unwrap());
    let global = begin();
    let commit = std::thread::spawn(move || global.commit());
    while silent.replies.lock().unwrap().len() < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    coordinator.close();
    let Err(Error::OutcomeUnknown { handle }) = commit.join().unwrap() else { panic!("it may be committed") };
    assert!(matches!(handle.wait(), Err(Error::Closed)));
    assert!(matches!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), Err(Error::Closed)));
    late.on_done(move |result| sender.send(result).unwrap());
    assert!(matches!(receiver.try_recv().unwrap(), Err(Error::Closed)));
    assert!(matches!(begin().commit(), Err(Error::Closed)), "what is not handed over has not happened");
}

/// One that cannot be reached: to prepare, nobody waits for it, and that is no vote; to commit, it is asked again.
#[derive(Default)]
struct Away {
    commits: AtomicU64,
    /// Prepared after all.
    prepared: Mutex<Option<(TxnId, Entry)>>,
    is_away: AtomicBool,
}

impl Away {
    fn error() -> Error {
        Error::Unreachable { node: NodeId(9), source: "nobody is there".into() }
    }
}

impl Participant for Away {
    fn prepare(&self, txn: TxnId, record: &Record, reply: Reply) {
        *self.prepared.lock().unwrap() = Some((txn, record.entry.clone()));
        let is_away = self.is_away.load(Ordering::SeqCst);
        reply(if is_away { Answer::Away(Away::error()) } else { Answer::Durable(0) });
    }
    fn commit(&self, _txn: TxnId, _forced: bool, reply: Reply) {
        if self.commits.fetch_add(1, Ordering::SeqCst) < 3 {
            return reply(Answer::Away(Away::error()));
        }
        *self.prepared.lock().unwrap() = None;
        reply(Answer::Durable(0));
    }
    fn rollback(&self, _txn: TxnId, reply: Reply) {
        *self.prepared.lock().unwrap() = None;
        reply(Answer::Durable(0));
    }
    fn commit_one_phase(&self, _txn: TxnId, _record: &Record, _reply: Reply) {}
    fn abandon(&self, _txn: TxnId) {}
    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        Ok(self.prepared.lock().unwrap().iter().cloned().collect())
    }
}

#[test]
fn who_cannot_be_reached_is_asked_again() {
    let nodes = nodes(1..=2);
    let coordinator = coordinator(&nodes);
    let away = Arc::new(Away::default());
    let participant: Arc<dyn Participant> = away.clone();
    coordinator.attach_foreign(NodeId(9), &participant).unwrap();
    let put = |key: &str| {
        let mut global = coordinator.begin();
        global.branch(&nodes[1].store).unwrap().insert(&nodes[1].rows, key, "1").unwrap();
        global.enlist(NodeId(9)).unwrap();
        global.commit()
    };
    // Decided, and the client is not kept waiting; it is told until it has it.
    put("a").unwrap();
    settle(&coordinator);
    assert_eq!(away.commits.load(Ordering::SeqCst), 4);
    assert!(has(&nodes[1], "a") && away.prepared.lock().unwrap().is_none());
    // Whether it has voted is not known: none commits, and what it has prepared after all is found, and rolled back.
    away.is_away.store(true, Ordering::SeqCst);
    let error = put("b").unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("nobody is there"), "{error}");
    assert!(away.prepared.lock().unwrap().is_some());
    for _ in 0..2000 {
        if away.prepared.lock().unwrap().is_none() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    settle(&coordinator);
    assert!(away.prepared.lock().unwrap().is_none() && !has(&nodes[1], "b"));
    assert_eq!(away.commits.load(Ordering::SeqCst), 4);
}

#[test]
fn many_at_once_share_flushes() {
    let nodes = nodes(1..=2);
    let coordinator = coordinator(&nodes);
    let pending: Vec<_> = (0..64)
        .map(|n| {
            let mut global = coordinator.begin();
            for node in &nodes {
                global.branch(&node.store).unwrap().insert(&node.rows, format!("k{n}"), "1").unwrap();
            }
            global.commit_pipelined().unwrap()
        })
        .collect();
    pending.iter().for_each(|pending| assert!(pending.wait().is_ok()));
    assert!((0..64).all(|n| nodes.iter().all(|node| has(node, &format!("k{n}")))));
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut global = coordinator.begin();
    global.branch(&nodes[1].store).unwrap().insert(&nodes[1].rows, "last", "1").unwrap();
    global.commit_pipelined().unwrap().on_done(move |done| sender.send(done.is_ok()).unwrap());
    assert!(receiver.recv().unwrap());
    settle(&coordinator);
}

/// Passes that end at once in several threads: nobody is left waiting.
#[test]
fn every_client_of_many_hears_its_outcome() {
    let nodes = nodes(1..=2);
    let coordinator = coordinator(&nodes);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (nodes, coordinator) = (&nodes, &coordinator);
            scope.spawn(move || {
                for round in 0..150 {
                    let both: Vec<&Node> = nodes.iter().collect();
                    put(coordinator, &both, &format!("{thread}/{round}")).unwrap();
                }
            });
        }
    });
    settle(&coordinator);
    assert!(nodes.iter().all(|node| node.rows.range(..).count() == 1200 && kept(node) == 0));
}
