//! Nodes with sockets and certificates between them, on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test"
)]

#[path = "net/certificates.rs"]
mod certificates;
#[path = "net/hostile.rs"]
mod hostile;
#[path = "net/limits.rs"]
mod limits;
#[path = "net/world.rs"]
mod world;

use seawall_txn::net::wire;
use std::time::{Duration, Instant};
use tonic::Code;
use world::{World, add, begin_at, put, xa, xid};

/// Until it holds, not for ever.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_client_commits_over_two_nodes() {
    let world = World::new(2);
    let mut client = world.client("client.test");
    let txn = client.begin(1);
    for node in [1, 2] {
        client.work(node, vec![begin_at(txn), add("ada", if node == 1 { -10 } else { 10 })]).unwrap();
    }
    let outcome = client.commit(1, txn, &[1, 2]).unwrap();
    assert_eq!(outcome.state(), wire::State::Committed, "{outcome:?}");
    // The other node hears of it.
    eventually("both show it", || (world.number(1, "ada"), world.number(2, "ada")) == (Some(-10), Some(10)));
    // Asked again, it is the same; and nothing is left behind.
    assert_eq!(client.commit(1, txn, &[1, 2]).unwrap().state(), wire::State::Committed);
    eventually("everything is forgotten", || world.nodes.iter().all(|node| node.coordinator.is_idle()));
    let stats = world.nodes[0].network.stats();
    assert!(stats.sent > 0 && stats.received > 0 && stats.refused == 0, "{stats:?}");
}

#[test]
fn a_branch_that_was_never_joined_aborts_all() {
    let world = World::new(2);
    let mut client = world.client("client.test");
    let txn = client.begin(1);
    client.work(1, vec![begin_at(txn), add("ada", 1)]).unwrap();
    let outcome = client.commit(1, txn, &[1, 2]).unwrap();
    assert_eq!(outcome.state(), wire::State::Aborted, "{outcome:?}");
    assert_eq!(world.number(1, "ada"), None);
}

#[test]
fn a_node_that_starts_again_finishes_what_it_had_prepared() {
    let mut world = World::new(2);
    let mut client = world.client("client.test");
    for round in 0..5 {
        let txn = client.begin(1);
        for node in [1, 2] {
            client.work(node, vec![begin_at(txn), add("ada", 1)]).unwrap();
        }
        let commit = std::thread::spawn({
            let mut client = world.client("client.test");
            move || client.commit(1, txn, &[1, 2])
        });
        std::thread::sleep(Duration::from_micros(300 * round));
        world.restart(2);
        client = world.client("client.test");
        let outcome = commit.join().unwrap().unwrap();
        assert_ne!(outcome.state(), wire::State::Unspecified);
        eventually("the node has the outcome", || {
            let [a, b] = [1, 2].map(|node| world.number(node, "ada"));
            a == b && world.nodes.iter().all(|node| node.db.prepared().next().is_none())
        });
    }
}

#[test]
fn a_foreign_coordinator_speaks_xa() {
    let world = World::new(1);
    let mut client = world.client("client.test");
    let name = xid("order 1");
    // Begun, worked in, ended; prepared twice, for the first answer may be lost; committed.
    let replies = client.work(1, vec![xa(&name), put("k", "v"), world::get("k"), world::scan()]).unwrap();
    assert_eq!(replies[2].rows[0].value, b"v");
    assert_eq!((replies[3].rows.len(), replies[3].more), (1, false));
    assert!(!client.prepare(&name).unwrap().read_only);
    assert!(!client.prepare(&name).unwrap().read_only);
    let found = client.recover(0, 10).unwrap();
    assert_eq!((found.branches.len(), found.more), (1, false));
    assert_eq!(found.branches[0].xid, Some(name.clone()));
    assert!(found.branches[0].pinned_bytes > 0 && found.branches[0].locked_keys >= 1);
    assert!(client.recover(found.branches[0].serial, 10).unwrap().branches.is_empty());
    let by_lsn = wire::RecoverRequest { after_lsn: found.branches[0].lsn, ..Default::default() };
    assert!(client.recover_of(by_lsn).unwrap().branches.is_empty());
    assert!(client.end("commit", &name).unwrap().lsn > 0);
    assert_eq!(world.value(1, "k").as_deref(), Some("v"));
    // It is over: XA's word for that is that there is no such branch.
    let status = client.end("commit", &name).unwrap_err();
    assert_eq!((status.code(), xa_code(&status)), (Code::NotFound, "XAER_NOTA"));

    // Rolled back, prepared or not; one-phase; read-only.
    let second = xid("order 2");
    client.work(1, vec![xa(&second), put("k", "w")]).unwrap();
    client.end("rollback", &second).unwrap();
    client.work(1, vec![xa(&second), put("k", "w")]).unwrap();
    client.prepare(&second).unwrap();
    client.end("rollback", &second).unwrap();
    client.work(1, vec![xa(&second), put("k", "x")]).unwrap();
    client.end("one-phase", &second).unwrap();
    assert_eq!(world.value(1, "k").as_deref(), Some("x"));
    client.work(1, vec![xa(&second), world::get("k")]).unwrap();
    assert!(client.prepare(&second).unwrap().read_only);
}

#[test]
fn pages_of_what_is_prepared_leave_nothing_out() {
    let world = World::new(1);
    let mut client = world.client("client.test");
    for n in 0..7 {
        let name = xid(&format!("t{n}"));
        client.work(1, vec![xa(&name), put(&format!("k{n}"), "v")]).unwrap();
        client.prepare(&name).unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = client.recover(after, 3).unwrap();
        seen.extend(page.branches.iter().map(|branch| branch.xid.clone().unwrap().gtrid));
        after = page.branches.last().unwrap().serial;
        if !page.more {
            break;
        }
    }
    let wanted: Vec<Vec<u8>> = (0..7).map(|n| format!("t{n}").into_bytes()).collect();
    assert_eq!(seen, wanted);
}

/// Votes at once stand behind one position of the log, or out of their numbers' order.
#[test]
fn pages_of_what_was_prepared_at_once_leave_nothing_out() {
    let world = World::new(1);
    let db = &world.nodes[0].db;
    let rows = db.keyspace("rows").unwrap();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (rows, barrier) = (&rows, &barrier);
            scope.spawn(move || {
                for n in 0..40 {
                    let name = format!("{thread}/{n}");
                    let mut branch = db.begin();
                    branch.insert(rows, &name, "1").unwrap();
                    barrier.wait();
                    branch.prepare(seawall_engine::Xid::new(7, &name, "").unwrap()).unwrap();
                }
            });
        }
    });
    let mut client = world.client("client.test");
    let (mut seen, mut after) = (std::collections::BTreeSet::new(), 0);
    loop {
        let page = client.recover(after, 7).unwrap();
        let names = page.branches.iter().map(|branch| branch.xid.clone().unwrap().gtrid);
        assert_eq!(names.filter(|name| !seen.insert(name.clone())).count(), 0, "listed twice");
        after = page.branches.last().unwrap().serial;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen.len(), 320);
}

#[test]
fn what_an_operator_ended_is_listed_after_a_restart() {
    let mut world = World::new(1);
    let mut client = world.client("client.test");
    for n in 0..3 {
        let name = xid(&format!("t{n}"));
        client.work(1, vec![xa(&name), put(&format!("k{n}"), "v")]).unwrap();
        client.prepare(&name).unwrap();
    }
    for prepared in world.nodes[0].db.prepared().take(2) {
        prepared.complete(seawall_engine::Heuristic::RolledBack).unwrap();
    }
    world.restart(1);
    let mut client = world.client("client.test");
    let ended =
        |after_serial| wire::RecoverRequest { after_serial, limit: 1, ended: true, ..Default::default() };
    let first = client.recover_of(ended(0)).unwrap();
    assert_eq!((first.branches.len(), first.more), (1, true));
    assert_eq!(first.branches[0].heuristic(), wire::Heuristic::RolledBack);
    let second = client.recover_of(ended(first.branches[0].serial)).unwrap();
    assert_eq!((second.branches.len(), second.more), (1, false));
    assert_ne!(first.branches[0].xid, second.branches[0].xid);
    assert_eq!(client.recover(0, 10).unwrap().branches.len(), 1);
}

#[test]
fn verbs_in_the_wrong_order_are_told_so() {
    let world = World::new(1);
    let mut client = world.client("client.test");
    let name = xid("order 1");
    for verb in ["commit", "rollback", "one-phase", "forget"] {
        let status = client.end(verb, &name).unwrap_err();
        assert_eq!((status.code(), xa_code(&status)), (Code::NotFound, "XAER_NOTA"), "{verb}");
    }
    let status = client.work(1, vec![put("k", "v")]).unwrap_err();
    assert_eq!((status.code(), xa_code(&status)), (Code::FailedPrecondition, "XAER_PROTO"));
    let status = client.work(1, vec![xa(&name), xa(&name)]).unwrap_err();
    assert_eq!(xa_code(&status), "XAER_PROTO");
    // The error has given the branch up, so its name is free; then it is not.
    client.work(1, vec![xa(&name), put("k", "v")]).unwrap();
    let status = client.work(1, vec![xa(&name)]).unwrap_err();
    assert_eq!((status.code(), xa_code(&status)), (Code::AlreadyExists, "XAER_DUPID"));
    client.prepare(&name).unwrap();
    let status = client.work(1, vec![xa(&name)]).unwrap_err();
    assert_eq!(xa_code(&status), "XAER_DUPID");
    // Another is in doubt over the row.
    let other = xid("order 2");
    client.work(1, vec![xa(&other), put("k", "w")]).unwrap();
    let status = client.prepare(&other).unwrap_err();
    assert_eq!((status.code(), xa_code(&status)), (Code::Aborted, "XA_RBINTEGRITY"));
    let prepared = world.nodes[0].db.prepared().next().unwrap();
    prepared.complete(seawall_engine::Heuristic::RolledBack).unwrap();
    let status = client.end("commit", &name).unwrap_err();
    assert_eq!((status.code(), xa_code(&status)), (Code::FailedPrecondition, "XA_HEURRB"));
    client.end("forget", &name).unwrap();
    let long = wire::Xid { format: 1, gtrid: vec![1; 65], bqual: vec![] };
    let status = client.work(1, vec![xa(&long)]).unwrap_err();
    assert_eq!((status.code(), xa_code(&status)), (Code::InvalidArgument, "XAER_INVAL"));
    let status = client.prepare_none().unwrap_err();
    assert_eq!(xa_code(&status), "XAER_INVAL");
}

fn xa_code(status: &tonic::Status) -> &str {
    status.metadata().get("seawall-xa").map_or("none", |code| code.to_str().unwrap())
}
