//! Money moves between a PostgreSQL database and two seawall stores while processes are killed by SIGKILL, in turn and at
//! random: the coordinator's, the postmaster, a process that serves a connection, any other of the server's, and several at
//! once. `SEAWALL_KILLS` says how often (10). Afterwards everything is healed, and the books are compared: what left one place
//! is in the other, each transaction is everywhere or nowhere, what was acknowledged is there, and nothing is in doubt.
//!
//! This program runs itself again as the coordinator's process: `helper` is a test that does nothing unless it was started
//! that way. `SEAWALL_KILL_MUTATION` (`decide-unlogged`, `abort-prepared`) makes it wrong on purpose: the comparison must fail.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a test fails by panicking, and runs processes"
)]

#[path = "postgres_kill/helper.rs"]
mod helper;
#[path = "postgres/server.rs"]
mod server;

use helper::{ACCOUNTS, Books, Child, Told};
use server::{Server, children_of, signal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The process that dies; see [`Child`].
#[test]
fn helper() {
    helper::run();
}

fn kills() -> u64 {
    std::env::var("SEAWALL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// Whom a kill meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Coordinator,
    Backend,
    Postmaster,
    AnyOfTheServer,
    Both,
    /// The coordinator's process while the server is not there.
    CoordinatorAlone,
}

const VICTIMS: [Victim; 6] = [
    Victim::Coordinator,
    Victim::Backend,
    Victim::Postmaster,
    Victim::AnyOfTheServer,
    Victim::Both,
    Victim::CoordinatorAlone,
];

#[derive(Debug, Default)]
struct Tally {
    kills: BTreeMap<Victim, u64>,
    /// Branches that PostgreSQL had prepared when the coordinator's process was dead.
    in_doubt: usize,
}

struct Run {
    dir: PathBuf,
    server: Server,
    child: Option<Child>,
    lives: u64,
    told: BTreeMap<String, Told>,
    tally: Tally,
    random: u64,
}

impl Run {
    fn random(&mut self, below: u64) -> u64 {
        // An ordinary linear generator; which processes are hit at which moment is chance anyway.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn begin_life(&mut self) {
        self.lives += 1;
        self.child = Some(Child::start("work", &self.dir, &self.server, self.lives));
    }

    fn end_life(&mut self) {
        if let Some(child) = self.child.take() {
            self.told.extend(child.kill());
        }
    }

    fn kill(&mut self, victim: Victim) {
        *self.tally.kills.entry(victim).or_default() += 1;
        match victim {
            Victim::Coordinator => {
                self.end_life();
                self.tally.in_doubt += self.server.prepared().len();
                self.begin_life();
            }
            Victim::Backend => {
                let query =
                    "SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY random() LIMIT 1";
                let found = self.server.admin("postgres").query_opt(query, &[]).unwrap();
                if let Some(row) = found {
                    signal("KILL", &[u32::try_from(row.get::<_, i32>(0)).unwrap()]);
                }
            }
            Victim::AnyOfTheServer => {
                let processes = children_of(self.server.pid());
                if !processes.is_empty() {
                    let index = self.random(processes.len() as u64) as usize;
                    signal("KILL", &[processes[index]]);
                }
            }
            Victim::Postmaster => {
                self.server.kill();
                let pause = self.random(300);
                std::thread::sleep(Duration::from_millis(pause));
                self.server.run();
            }
            Victim::Both => {
                self.server.kill();
                self.end_life();
                self.server.run();
                self.tally.in_doubt += self.server.prepared().len();
                self.begin_life();
            }
            Victim::CoordinatorAlone => {
                self.server.kill();
                let pause = self.random(50);
                std::thread::sleep(Duration::from_millis(pause));
                self.end_life();
                // It begins before the server is there.
                self.begin_life();
                std::thread::sleep(Duration::from_millis(pause));
                self.server.run();
            }
        }
    }

    /// Something commits between any two kills.
    fn work(&mut self) {
        let begin = Instant::now();
        let target = 3 + self.random(15);
        let child = self.child.as_ref().unwrap();
        let seen = child.acknowledged();
        while child.acknowledged() < seen + target {
            assert!(begin.elapsed() < Duration::from_secs(120), "nothing commits: {}", child.noise());
            std::thread::sleep(Duration::from_micros(200));
        }
        let pause = self.random(3000);
        std::thread::sleep(Duration::from_micros(pause));
    }
}

#[test]
fn processes_that_are_killed_never_split_a_transaction() {
    if std::env::var_os(helper::ROLE).is_some() {
        return;
    }
    let Some(server) = Server::start("kill") else { return };
    let mut admin = server.config().connect(postgres::NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE TABLE moves (key text PRIMARY KEY, amount bigint NOT NULL); \
             CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)",
        )
        .unwrap();
    for account in 0..ACCOUNTS {
        admin.execute("INSERT INTO accounts VALUES ($1, 0)", &[&account]).unwrap();
    }
    drop(admin);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-kill-stores");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let random = u64::from(std::process::id());
    let (told, tally) = (BTreeMap::new(), Tally::default());
    let mut run = Run { dir, server, child: None, lives: 0, told, tally, random };
    let begin = Instant::now();
    run.begin_life();
    for kill in 0..kills() {
        run.work();
        // In turn first, then at random.
        let index = if kill < VICTIMS.len() as u64 { kill } else { run.random(VICTIMS.len() as u64) };
        run.kill(VICTIMS[index as usize]);
    }
    run.work();
    run.end_life();
    heal_and_compare(run, begin);
}

fn heal_and_compare(mut run: Run, begin: Instant) {
    let found = run.server.prepared().len();
    let healer = Child::start("heal", &run.dir, &run.server, run.lives + 1);
    healer.wait();
    assert_eq!(run.server.prepared(), [""; 0], "nothing is in doubt");
    let books = Books::read(&run.dir, &run.server);
    let (mut committed, mut counts) = (0, BTreeMap::<Told, u64>::new());
    for (key, told) in &run.told {
        let there = books.is_there(key);
        match told {
            Told::Committed => assert!(there, "{key} was told to be committed, and is gone"),
            Told::RolledBack => assert!(!there, "{key} was told to be rolled back, and is there"),
            Told::Nothing | Told::Unknown => {}
        }
        committed += u64::from(there);
        *counts.entry(*told).or_default() += 1;
    }
    books.compare(&run.told);
    assert!(committed > 0);
    run.server.kill();
    let (took, kills) = (begin.elapsed().as_secs(), run.tally.kills.values().sum::<u64>());
    println!(
        "{kills} kills in {took} s: {:?}; {} transactions, {committed} committed; clients were told {counts:?}; \
         {} branches were in doubt in PostgreSQL after kills, {found} at the end",
        run.tally.kills,
        run.told.len(),
        run.tally.in_doubt,
    );
}
