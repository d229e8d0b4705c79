//! PostgreSQL as a participant, with a server of its own for each test: fsync on, and killed at will. Nothing is tested where
//! PostgreSQL is not installed, which is said; `SEAWALL_POSTGRES=required` makes that an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    reason = "a test"
)]

#[path = "postgres/crashes.rs"]
mod crashes;
#[path = "postgres/proxy.rs"]
mod proxy;
#[path = "postgres/server.rs"]
mod server;
#[path = "postgres/world.rs"]
mod world;

use postgres::{IsolationLevel, NoTls};
use seawall_engine::Xid;
use seawall_txn::postgres::{Postgres, SqlError, SqlErrorKind, gid_of};
use seawall_txn::{
    Answer, BranchName, CoordinatorBuilder, Entry, Error, Group, NodeId, Participant, Protocol, Record,
    Timing, TxnId,
};
use server::Server;
use std::sync::Arc;
use std::sync::mpsc::channel;
use world::{BANK, World, eventually, limits};

fn kind(error: &Error) -> Option<SqlErrorKind> {
    SqlError::of(error).map(SqlError::kind)
}

#[test]
fn all_or_none() {
    let Some(world) = World::start("all-or-none") else { return };
    // Merged with the coordinator's own store, beside it, with both, and alone.
    for (key, stores) in [("a", &[0][..]), ("b", &[1]), ("c", &[0, 1, 2]), ("d", &[])] {
        world.put(key, stores).unwrap();
        assert!(world.agreed(key, stores), "visible when it returns");
    }
    // Given up.
    let mut global = world.coordinator.begin();
    world.bank.branch(&mut global).unwrap().execute("INSERT INTO moves VALUES ('e', 1)", &[]).unwrap();
    global.branch(&world.nodes[0].store).unwrap().insert(&world.nodes[0].rows, "e", "1").unwrap();
    global.rollback();
    // A store says no.
    let mut global = world.coordinator.begin();
    world.bank.branch(&mut global).unwrap().execute("INSERT INTO moves VALUES ('f', 1)", &[]).unwrap();
    let branch = global.branch(&world.nodes[1].store).unwrap();
    branch.insert(&world.nodes[1].rows, "f", "1").unwrap();
    let branch = global.branch(&world.nodes[0].store).unwrap();
    use seawall_engine::Readable;
    branch.get(&world.nodes[0].rows, "g").unwrap();
    branch.insert(&world.nodes[0].rows, "f", "1").unwrap();
    world.nodes[0].rows.insert("g", "before").unwrap();
    let error = global.commit().unwrap_err();
    assert!(matches!(error, Error::Aborted { .. }) && error.is_retryable(), "{error}");
    assert!(!world.agreed("e", &[0]) && !world.agreed("f", &[0, 1]));
    // PostgreSQL does, in the middle.
    let error = world.put("a", &[1]).unwrap_err();
    assert_eq!(SqlError::of(&error).unwrap().code(), Some("23505"), "{error}");
    assert!(!error.is_retryable() && world.nodes[0].has("a") && !world.nodes[1].has("a"));
    // And at the vote.
    let mut global = world.coordinator.begin();
    let mut sql = world.bank.branch(&mut global).unwrap();
    sql.batch_execute("ALTER TABLE moves ADD UNIQUE (amount) DEFERRABLE INITIALLY DEFERRED").unwrap_err();
    drop(sql);
    drop(global);
    let mut global = world.coordinator.begin();
    let mut sql = world.bank.branch(&mut global).unwrap();
    sql.batch_execute("CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)").unwrap();
    sql.batch_execute("INSERT INTO once VALUES (1), (1)").unwrap();
    drop(sql);
    global.branch(&world.nodes[1].store).unwrap().insert(&world.nodes[1].rows, "h", "1").unwrap();
    let error = global.commit().unwrap_err();
    assert_eq!(SqlError::of(&error).unwrap().code(), Some("23505"), "{error}");
    assert!(!world.nodes[1].has("h"));
    world.settle();
}

#[test]
fn paxos_commit_takes_it_as_any_other() {
    let acceptors = [NodeId(1), NodeId(2), NodeId(3)];
    // Who is in doubt for long stands in for the coordinator, and aborts for want of a vote.
    let patient = Timing { retry_us: 5_000_000, ..world::timing() };
    let by = |builder: CoordinatorBuilder| builder.acceptors(acceptors).timing(patient);
    let Some(world) = World::start_by("paxos", by) else { return };
    world.put("a", &[0, 1]).unwrap();
    assert!(world.agreed("a", &[0, 1]));
    // One that only reads stays until the others are through.
    let mut global = world.coordinator.begin();
    world.bank.branch(&mut global).unwrap().query("SELECT * FROM moves", &[]).unwrap();
    global.branch(&world.nodes[1].store).unwrap().insert(&world.nodes[1].rows, "b", "1").unwrap();
    global.commit().unwrap();
    world.settle();
    assert_eq!(world.proxy.count("PREPARE TRANSACTION"), 1);
}

#[test]
fn three_phase_commit_is_refused() {
    let Some(world) = World::start_by("three", |builder| builder.protocol(Protocol::ThreePhase)) else {
        return;
    };
    let error = world.put("a", &[1]).unwrap_err();
    assert!(error.to_string().contains("three-phase"), "{error}");
    assert!(!world.agreed("a", &[1]));
    world.settle();
}

#[test]
fn who_has_only_read_prepares_nothing() {
    let Some(world) = World::start("reader") else { return };
    world.put("a", &[]).unwrap();
    assert_eq!(world.proxy.count("PREPARE TRANSACTION"), 1);
    for stores in [&[1][..], &[]] {
        let mut global = world.coordinator.begin();
        let mut sql = world.bank.branch(&mut global).unwrap();
        assert_eq!(sql.query("SELECT key FROM moves", &[]).unwrap().len(), 1);
        drop(sql);
        for &index in stores {
            let node = &world.nodes[index];
            global.branch(&node.store).unwrap().insert(&node.rows, "b", "1").unwrap();
        }
        global.commit().unwrap();
    }
    world.settle();
    assert_eq!(world.proxy.count("PREPARE TRANSACTION"), 1);
    // Its session is free again.
    let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in%'";
    assert_eq!(world.server.admin("app").query_one(query, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn conflicts_are_run_again() {
    let Some(world) = World::start("conflict") else { return };
    world.put("a", &[]).unwrap();
    let mut other = world.server.config().connect(NoTls).unwrap();
    // In the middle.
    let mut tries = 0;
    let begin = |tries: i32, global: &mut seawall_txn::Global| {
        let mut sql = world.bank.branch_with(global, IsolationLevel::RepeatableRead)?;
        sql.query("SELECT * FROM moves", &[])?;
        Ok::<_, Error>(tries)
    };
    world
        .coordinator
        .transact(|global| {
            tries += 1;
            begin(tries, global)?;
            if tries == 1 {
                other.execute("UPDATE moves SET amount = 10 WHERE key = 'a'", &[]).unwrap();
            }
            let mut sql = world.bank.branch(global)?;
            let done = sql.execute("UPDATE moves SET amount = amount + 1 WHERE key = 'a'", &[]);
            assert_eq!(done.as_ref().err().and_then(kind), (tries == 1).then_some(SqlErrorKind::Conflict));
            done?;
            drop(sql);
            global.branch(&world.nodes[1].store)?.insert(&world.nodes[1].rows, "a", "1")?;
            Ok(())
        })
        .unwrap();
    assert_eq!(tries, 2);
    // At the vote: each has read what the other writes.
    let mut globals = [world.coordinator.begin(), world.coordinator.begin()];
    for global in &mut globals {
        let mut sql = world.bank.branch_with(global, IsolationLevel::Serializable).unwrap();
        sql.query("SELECT sum(amount) FROM moves", &[]).unwrap();
    }
    for (global, key) in globals.iter_mut().zip(["x", "y"]) {
        let mut sql = world.bank.branch(global).unwrap();
        sql.execute("INSERT INTO moves VALUES ($1, 1)", &[&key]).unwrap();
        drop(sql);
        global.branch(&world.nodes[1].store).unwrap().insert(&world.nodes[1].rows, key, "1").unwrap();
    }
    let [first, second] = globals;
    first.commit().unwrap();
    let error = second.commit().unwrap_err();
    assert!(matches!(error, Error::Aborted { .. }) && error.is_retryable(), "{error}");
    assert_eq!(kind(&error), Some(SqlErrorKind::Conflict), "{error}");
    assert!(world.agreed("x", &[1]) && !world.agreed("y", &[1]));
    world.settle();
}

#[test]
fn a_server_without_prepared_transactions_is_told_so() {
    let Some(mut world) = World::start("no-room") else { return };
    // One place, and somebody else has it.
    world.server.restart_with(&["max_prepared_transactions=1"]);
    let mut other = world.server.admin("app");
    other.batch_execute("BEGIN; CREATE TABLE theirs (n int); PREPARE TRANSACTION 'theirs'").unwrap();
    let error = world.put("a", &[1]).unwrap_err();
    assert!(matches!(error, Error::Aborted { .. }), "{error}");
    assert_eq!(kind(&error), Some(SqlErrorKind::NoRoom), "{error}");
    other.batch_execute("ROLLBACK PREPARED 'theirs'").unwrap();
    world.put("a", &[1]).unwrap();
    world.settle();
    // None.
    world.server.restart_with(&["max_prepared_transactions=0"]);
    let error = Postgres::connect(BANK, &world.server.config()).unwrap_err();
    assert_eq!(kind(&error), Some(SqlErrorKind::PreparedDisabled), "{error}");
    assert!(error.to_string().contains("max_prepared_transactions is 0"), "{error}");
    // It was there when it was connected to: nothing of the branch is left.
    let error = world.put("b", &[1]).unwrap_err();
    assert_eq!(kind(&error), Some(SqlErrorKind::PreparedDisabled), "{error}");
    assert!(!error.is_retryable() && !world.agreed("b", &[1]));
}

#[test]
fn what_is_somebody_elses_stays() {
    let Some(server) = Server::start("others") else { return };
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 7 };
    let name = |participant| {
        let group = Arc::new(Group { participants: vec![NodeId(2), BANK], acceptors: vec![] });
        let ends = Some((Protocol::TwoPhase, group));
        gid_of(&BranchName { txn, participant, ends }.to_xid().unwrap())
    };
    let foreign = [
        "theirs".to_owned(),
        "seawall.junk".to_owned(),
        gid_of(&Xid::new(7, "another's", "").unwrap()),
        name(NodeId(8)),
    ];
    let prepare = |database: &str, gid: &str| {
        let sql = format!("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{gid}'");
        server.admin(database).batch_execute(&sql).unwrap();
    };
    foreign.iter().for_each(|gid| prepare("app", gid));
    // This one is ours, and of a transaction of which nothing is known: it is rolled back.
    prepare("app", &name(BANK));
    let mut expected = foreign.to_vec();
    expected.sort();
    assert_eq!(server.prepared().len(), expected.len() + 1);
    // Ours by its name, in another database.
    let elsewhere = {
        let txn = TxnId { sequence: 8, ..txn };
        gid_of(&BranchName { txn, participant: BANK, ends: None }.to_xid().unwrap())
    };
    prepare("postgres", &elsewhere);
    expected.push(elsewhere);
    expected.sort();
    let node = world::node_on(1, seawall_wal::SimDisk::new(1));
    let coordinator = seawall_txn::Coordinator::builder(&node.store).timing(world::timing()).open().unwrap();
    // Who has prepared it, or a superuser, may end it.
    let mut config = server.config();
    config.user("postgres");
    let bank = Postgres::connect(BANK, &config).unwrap();
    bank.attach(&coordinator).unwrap();
    eventually("what is ours is rolled back", || server.prepared() == expected);
    // As often as it looks.
    std::thread::sleep(std::time::Duration::from_micros(seawall_txn::SWEEP_US + 500_000));
    assert!(coordinator.is_idle());
    assert_eq!(server.prepared(), expected);
}

#[test]
fn a_transaction_that_sql_has_ended_is_not_committed_elsewhere() {
    let Some(world) = World::start("ended") else { return };
    for (key, end) in [
        ("a", "COMMIT"),
        ("b", "ROLLBACK"),
        ("c", "ROLLBACK; BEGIN; INSERT INTO moves VALUES ('c2', 1)"),
        ("d", "SELECT 1 / 0"),
        ("e", "PREPARE TRANSACTION 'by itself'"),
    ] {
        let mut global = world.coordinator.begin();
        let mut sql = world.bank.branch(&mut global).unwrap();
        sql.execute("INSERT INTO moves VALUES ($1, 1)", &[&key]).unwrap();
        // The error is overlooked.
        let _ = sql.batch_execute(end);
        drop(sql);
        global.branch(&world.nodes[1].store).unwrap().insert(&world.nodes[1].rows, key, "1").unwrap();
        let error = global.commit().unwrap_err();
        assert_eq!(kind(&error), Some(SqlErrorKind::Ended), "{error}");
        assert!(!world.nodes[1].has(key), "{end}");
    }
    assert!(!world.has("c2"));
    world.server.admin("app").batch_execute("ROLLBACK PREPARED 'by itself'").unwrap();
    // What a branch has set is not the next one's.
    let mut global = world.coordinator.begin();
    let mut sql = world.bank.branch(&mut global).unwrap();
    sql.batch_execute("SET work_mem = '1234kB'; INSERT INTO moves VALUES ('f', 1)").unwrap();
    drop(sql);
    global.commit().unwrap();
    world.settle();
    for _ in 0..20 {
        let mut global = world.coordinator.begin();
        let row = world.bank.branch(&mut global).unwrap().query_one("SHOW work_mem", &[]).unwrap();
        assert_ne!(row.get::<_, &str>(0), "1234kB");
    }
}

#[test]
fn verbs_out_of_turn_do_no_harm() {
    let Some(world) = World::start("verbs") else { return };
    let ask = |verb: &dyn Fn(seawall_txn::Reply)| {
        let (sender, receiver) = channel();
        verb(Box::new(move |answer| sender.send(answer).unwrap()));
        receiver.recv().unwrap()
    };
    let bank = &world.bank;
    let mut global = world.coordinator.begin();
    let txn = global.txn();
    let group = Arc::new(Group { participants: vec![NodeId(2), BANK], acceptors: vec![] });
    let record = Record { txn, entry: Entry::Prepared { protocol: Protocol::TwoPhase, group } };
    // No branch.
    assert!(matches!(ask(&|reply| bank.prepare(txn, &record, reply)), Answer::Refused(_)));
    assert!(matches!(ask(&|reply| bank.commit_one_phase(txn, &record, reply)), Answer::Refused(_)));
    bank.branch(&mut global).unwrap().execute("INSERT INTO moves VALUES ('a', 1)", &[]).unwrap();
    assert!(matches!(ask(&|reply| bank.prepare(txn, &record, reply)), Answer::Durable(_)));
    assert_eq!(world.server.prepared().len(), 1);
    // Once more.
    assert!(matches!(ask(&|reply| bank.prepare(txn, &record, reply)), Answer::Refused(_)));
    assert!(matches!(
        ask(&|reply| bank.complete(txn, seawall_txn::Decision::Abort, reply)),
        Answer::Refused(_)
    ));
    assert_eq!(bank.recover().unwrap().len(), 1);
    for _ in 0..2 {
        assert!(matches!(ask(&|reply| bank.commit(txn, false, reply)), Answer::Durable(_)));
    }
    assert!(world.has("a") && bank.recover().unwrap().is_empty());
    // Of the same name: the transaction is rolled back.
    bank.branch(&mut global).unwrap().execute("INSERT INTO moves VALUES ('b', 1)", &[]).unwrap();
    let gid = {
        let Entry::Prepared { protocol, group } = &record.entry else { unreachable!() };
        let ends = Some((*protocol, group.clone()));
        gid_of(&BranchName { txn, participant: BANK, ends }.to_xid().unwrap())
    };
    let sql = format!("BEGIN; CREATE TABLE theirs (n int); PREPARE TRANSACTION '{gid}'");
    world.server.admin("postgres").batch_execute(&sql).unwrap();
    let Answer::Refused(error) = ask(&|reply| bank.prepare(txn, &record, reply)) else { panic!() };
    assert_eq!(SqlError::of(&error).unwrap().code(), Some("42710"), "{error}");
    world.server.admin("postgres").batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).unwrap();
    assert!(!world.has("b"));
    // More branches than may be.
    drop(global);
    let mut few = limits();
    (few.connections, few.answer) = (1, std::time::Duration::from_millis(50));
    let small = Postgres::builder(NodeId(8)).limits(few).connect(&world.server.config()).unwrap();
    small.attach(&world.coordinator).unwrap();
    let (mut one, mut two) = (world.coordinator.begin(), world.coordinator.begin());
    small.branch(&mut one).unwrap();
    let error = small.branch(&mut two).unwrap_err();
    assert_eq!(kind(&error), Some(SqlErrorKind::NoRoom), "{error}");
    drop(one);
    eventually("there is room again", || small.branch(&mut two).is_ok());
}
