//! Connections that are cut, sessions that are ended, servers that are killed, and coordinators that die, each at a step of
//! the protocol.

use super::kind;
use super::proxy::Then::{self, Cut, Pass};
use super::proxy::When::{self, After, Before};
use super::server::{children_of, signal};
use super::world::{World, eventually, limits};
use seawall_txn::mutation::Mutation;
use seawall_txn::postgres::SqlErrorKind;
use seawall_txn::{Error, Pending, SWEEP_US};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::CrashStyle;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Whether a commit that was disturbed at this step goes through all the same.
const STEPS: [(&str, When, bool); 8] = [
    ("BEGIN", Before, true),
    ("BEGIN", After, true),
    ("seawall.branch', true", Before, false),
    ("seawall.branch', true", After, false),
    ("PREPARE TRANSACTION", Before, false),
    ("PREPARE TRANSACTION", After, true),
    ("COMMIT PREPARED", Before, true),
    ("COMMIT PREPARED", After, true),
];

#[test]
fn a_connection_that_is_cut_at_any_step_leaves_nothing_half_done() {
    let Some(world) = World::start("cut") else { return };
    for (round, stores) in [&[0][..], &[1], &[0, 1], &[]].into_iter().enumerate() {
        for (number, (statement, when, commits)) in STEPS.into_iter().enumerate() {
            let key = format!("{round}-{number}");
            world.proxy.at(statement, when, Cut, || {});
            let told = world.put(&key, stores);
            assert!(!world.proxy.is_armed(), "{statement} was never said");
            assert_eq!(told.is_ok(), commits, "{statement}, {when:?}: {told:?}");
            if let Err(error) = told {
                assert!(error.is_retryable(), "nothing happened: {error:?}");
                assert_eq!(kind(&error), Some(SqlErrorKind::Lost), "{error}");
            }
            assert_eq!(world.agreed(&key, stores), commits, "{statement}, {when:?}");
        }
    }
    world.settle();
}

/// `pg_terminate_backend` of all sessions: the server says good-bye, and the statement may have been done or not.
#[test]
fn sessions_that_are_ended_at_any_step_leave_nothing_half_done() {
    let Some(world) = World::start("terminate") else { return };
    let mut committed = 0;
    for (round, stores) in [&[0][..], &[1], &[]].into_iter().enumerate() {
        for (number, (statement, when, _)) in STEPS.into_iter().enumerate() {
            let key = format!("{round}-{number}");
            let mut admin = world.server.admin("app");
            let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'";
            world.proxy.at(statement, when, Pass, move || {
                admin.execute(end, &[]).unwrap();
            });
            let told = world.put(&key, stores);
            assert!(!world.proxy.is_armed(), "{statement} was never said");
            let there = world.agreed(&key, stores);
            assert_eq!(told.is_ok(), there, "{statement}, {when:?}: {told:?}");
            committed += u32::from(there);
        }
    }
    assert!(committed >= 12, "{committed}");
    world.settle();
}

#[test]
fn a_server_that_is_killed_at_any_step_is_waited_for() {
    let Some(world) = World::start("killed") else { return };
    let World { coordinator, bank, nodes, notices, proxy, server } = world;
    let server = Arc::new(Mutex::new(server));
    let mut outcomes = Vec::new();
    for (number, (statement, when, commits)) in STEPS.into_iter().enumerate().skip(4) {
        for (stores, how) in [(&[1][..], "immediate"), (&[0], "kill"), (&[], "kill")] {
            let key = format!("{number}-{}", outcomes.len());
            let shared = server.clone();
            proxy.at(statement, when, Pass, move || {
                let mut server = shared.lock().unwrap();
                if how == "immediate" {
                    server.restart();
                } else {
                    server.kill();
                    server.run();
                }
            });
            let mut global = coordinator.begin();
            bank.branch(&mut global).unwrap().execute("INSERT INTO moves VALUES ($1, 1)", &[&key]).unwrap();
            for &index in stores {
                global.branch(&nodes[index].store).unwrap().insert(&nodes[index].rows, &key, "1").unwrap();
            }
            let told = global.commit();
            assert!(!proxy.is_armed(), "{statement} was never said");
            outcomes.push((key, stores, told.is_ok(), format!("{statement}, {when:?}, {how}: {told:?}")));
            assert_eq!(told.is_ok(), commits, "{:?}", outcomes.last());
        }
    }
    drop(proxy.config());
    let server = Arc::try_unwrap(server).unwrap_or_else(|_| panic!("still held")).into_inner().unwrap();
    let world = World { coordinator, bank, nodes, notices, proxy, server };
    for (key, stores, told, how) in &outcomes {
        assert_eq!(world.agreed(key, stores), *told, "{how}");
    }
    world.settle();
}

/// What stands on the disks now, and nothing that was not synced.
fn crash_copies(disks: &[Arc<SimDisk>]) -> Vec<Arc<SimDisk>> {
    disks
        .iter()
        .map(|disk| {
            disk.set_crash_style(Some(CrashStyle::KeepNone));
            disk.crash_copy()
        })
        .collect()
}

/// Commits, and dies with all its stores at this step. What its client was told before, and the world that has come back.
fn die_at(
    world: World,
    statement: &'static str,
    when: super::proxy::When,
    stores: &[usize],
    mutation: Option<Mutation>,
) -> (bool, World) {
    let disks: Vec<Arc<SimDisk>> = world.nodes.iter().map(|node| node.disk.clone()).collect();
    let (sender, receiver) = channel();
    world.proxy.at(statement, when, Cut, move || drop(sender.send(crash_copies(&disks))));
    let told = world.put("a", stores).is_ok();
    let disks = receiver.recv().unwrap();
    // What the first life has gone on to do is undone in the stores; in the server it is not, so it must not have been.
    (
        told,
        world.reborn(disks, |builder| match mutation {
            Some(mutation) => builder.mutation(mutation),
            None => builder,
        }),
    )
}

/// The coordinator had decided, and nobody in PostgreSQL had heard of it. (Its client hears of it in the same moment.)
#[test]
fn what_was_decided_is_committed_by_the_next_life() {
    for stores in [&[1][..], &[0]] {
        let Some(world) = World::start("decided") else { return };
        let (told, world) = die_at(world, "COMMIT PREPARED", Before, stores, None);
        assert!(told);
        world.settle();
        assert!(world.agreed("a", stores));
    }
}

/// The same with the decision not on the disk when COMMIT PREPARED is sent, and with a resolver that does not look for it.
#[test]
fn a_decision_that_is_not_there_or_not_looked_for_is_found_out() {
    let is_sound = |first: Option<Mutation>, second: Option<Mutation>| {
        let by = |builder: seawall_txn::CoordinatorBuilder| match first {
            Some(mutation) => builder.mutation(mutation),
            None => builder,
        };
        let world = World::start_by("mutated", by)?;
        let disks: Vec<Arc<SimDisk>> = world.nodes.iter().map(|node| node.disk.clone()).collect();
        let (sender, receiver) = channel();
        let (release, held) = channel::<()>();
        world.proxy.at("COMMIT PREPARED", Before, Cut, move || {
            sender.send(crash_copies(&disks)).unwrap();
            let _ = held.recv();
        });
        let mut global = world.coordinator.begin();
        let mut sql = world.bank.branch(&mut global).unwrap();
        sql.execute("INSERT INTO moves VALUES ('a', 1)", &[]).unwrap();
        drop(sql);
        let node = &world.nodes[1];
        global.branch(&node.store).unwrap().insert(&node.rows, "a", "1").unwrap();
        let pending = global.commit_pipelined().unwrap();
        let disks = receiver.recv().unwrap();
        drop(pending);
        let world = world.reborn(disks, |builder| match second {
            Some(mutation) => builder.mutation(mutation),
            None => builder,
        });
        eventually("it has ended", || {
            world.server.prepared().is_empty() && world.nodes[1].db.prepared().next().is_none()
        });
        drop(release);
        Some((world.has("a"), world.nodes[1].has("a")))
    };
    let Some(sound) = is_sound(None, None) else { return };
    assert_eq!(sound, (true, true));
    // It was on its way to PostgreSQL, and may be there already, as in the store: to roll it back is wrong.
    let in_postgres = |first, second| is_sound(first, second).map(|there| there.0);
    assert_eq!(in_postgres(Some(Mutation::DecideUnlogged), None), Some(false));
    assert_eq!(in_postgres(None, Some(Mutation::AbortPrepared)), Some(false));
}

/// Hands over a row `a` for the database and for a store, and holds the connection at PREPARE TRANSACTION: what the disks would hold
/// after a crash just then, and what lets the connection go on when it is dropped.
fn held_at_prepare(world: &World, when: When, then: Then) -> (Pending, Vec<Arc<SimDisk>>, Sender<()>) {
    let disks: Vec<Arc<SimDisk>> = world.nodes.iter().map(|node| node.disk.clone()).collect();
    let (sender, receiver) = channel();
    let (release, held) = channel::<()>();
    world.proxy.at("PREPARE TRANSACTION", when, then, move || {
        sender.send(crash_copies(&disks)).unwrap();
        let _ = held.recv();
    });
    let mut global = world.coordinator.begin();
    world.bank.branch(&mut global).unwrap().execute("INSERT INTO moves VALUES ('a', 1)", &[]).unwrap();
    let node = &world.nodes[1];
    global.branch(&node.store).unwrap().insert(&node.rows, "a", "1").unwrap();
    (global.commit_pipelined().unwrap(), receiver.recv().unwrap(), release)
}

/// It had not decided: nobody was told anything, and all is rolled back.
#[test]
fn what_was_not_decided_is_rolled_back_by_the_next_life() {
    let Some(world) = World::start("undecided") else { return };
    let (pending, disks, release) = held_at_prepare(&world, After, Cut);
    assert_eq!(world.server.prepared().len(), 1);
    drop(pending);
    let world = world.reborn(disks, |builder| builder);
    world.settle();
    assert!(!world.agreed("a", &[1]));
    drop(release);
    // The next ones are not in its way.
    world.put("a", &[0, 1]).unwrap();
    assert!(world.agreed("a", &[0, 1]));
}

/// The session hangs in the server when the coordinator's next life looks: what it prepares later is found as well.
#[test]
fn what_is_prepared_after_the_look_is_found_by_the_next_one() {
    let Some(world) = World::start("late") else { return };
    let (pending, disks, release) = held_at_prepare(&world, Before, Pass);
    drop(pending);
    let world = world.reborn(disks, |builder| builder);
    world.settle();
    drop(release);
    eventually("it is prepared", || {
        world.proxy.count("PREPARE TRANSACTION") == 1 && !world.server.prepared().is_empty()
    });
    eventually("and rolled back", || world.server.prepared().is_empty());
    world.settle();
    assert!(!world.agreed("a", &[1]));
}

#[test]
fn what_a_person_has_ended_otherwise_is_reported() {
    let Some(world) = World::start("person") else { return };
    let mut admin = world.server.admin("app");
    world.proxy.at("COMMIT PREPARED", Before, Pass, move || {
        let gid: String = admin.query_one("SELECT gid FROM pg_prepared_xacts", &[]).unwrap().get(0);
        admin.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).unwrap();
    });
    world.put("a", &[1]).unwrap();
    eventually("it is reported", || world.told("rolled back by hand at n9"));
    assert!(!world.has("a") && world.nodes[1].has("a"), "what a person did stands");
    // In the decided way: nothing to be said.
    let mut admin = world.server.admin("app");
    world.proxy.at("COMMIT PREPARED", Before, Pass, move || {
        let gid: String = admin.query_one("SELECT gid FROM pg_prepared_xacts", &[]).unwrap().get(0);
        admin.batch_execute(&format!("COMMIT PREPARED '{gid}'")).unwrap();
    });
    let before = world.notices.lock().unwrap().len();
    world.put("b", &[1]).unwrap();
    assert!(world.agreed("b", &[1]));
    assert_eq!(world.notices.lock().unwrap().len(), before);
}

/// It is there, and answers nothing: neither clients nor other participants wait for it for ever.
#[test]
fn a_server_that_hangs_is_given_up_and_taken_up_again() {
    let mut short = limits();
    short.answer = Duration::from_millis(300);
    let Some(world) = World::start_with("hangs", short, |builder| builder) else { return };
    for (key, statement) in [("a", "PREPARE TRANSACTION"), ("b", "COMMIT PREPARED")] {
        let postmaster = world.server.pid();
        world.proxy.at(statement, Before, Pass, move || {
            signal("STOP", &[postmaster]);
            signal("STOP", &children_of(postmaster));
        });
        let told = world.put(key, &[1]);
        match &told {
            Err(error @ Error::Aborted { .. }) => {
                assert_eq!(kind(error), Some(SqlErrorKind::Lost), "{error}")
            }
            told => assert!(key == "b" && told.is_ok(), "{told:?}"),
        }
        assert_eq!(world.nodes[1].has(key), key == "b");
        // Others go on.
        let mut global = world.coordinator.begin();
        for node in &world.nodes {
            global.branch(&node.store).unwrap().insert(&node.rows, format!("{key}-others"), "1").unwrap();
        }
        global.commit().unwrap();
        signal("CONT", &children_of(postmaster));
        signal("CONT", &[postmaster]);
        eventually("it is taken up again", || {
            world.coordinator.is_idle() && world.server.prepared().is_empty()
        });
        std::thread::sleep(Duration::from_micros(SWEEP_US + 500_000));
        world.settle();
        assert_eq!(world.agreed(key, &[1]), key == "b");
    }
    assert!(world.told("n9 is away"));
}

/// Its coordinator has asked once: the answer is found out by whoever has it, however long that takes.
#[test]
fn an_only_branch_whose_server_is_gone_is_waited_for() {
    let mut hasty = super::world::timing();
    hasty.deadline_us = 200_000;
    let Some(mut world) = World::start_by("only", |builder| builder.timing(hasty)) else { return };
    for (key, statement) in [("a", "PREPARE TRANSACTION"), ("b", "COMMIT PREPARED")] {
        for (when, is_there) in [(Before, statement == "COMMIT PREPARED"), (After, true)] {
            let key = format!("{key}-{when:?}");
            let postmaster = world.server.pid();
            world.proxy.at(statement, when, Cut, move || {
                let processes = children_of(postmaster);
                signal("KILL", &[postmaster]);
                signal("KILL", &processes);
            });
            let error = world.put(&key, &[]).unwrap_err();
            let Error::OutcomeUnknown { handle } = error else { panic!("{error}") };
            assert!(handle.wait_timeout(Duration::from_millis(50)).unwrap().is_none());
            world.server.run();
            assert_eq!(handle.wait().is_ok(), is_there, "{key}");
            assert_eq!(world.has(&key), is_there, "{key}");
        }
    }
    world.settle();
}
