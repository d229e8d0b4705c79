//! PostgreSQL's own prepared transactions on the same disk, 64 at a time, beside `txn`: what a commit costs there, one
//! that two databases share, and one that a database and a seawall store share. Nothing is measured where PostgreSQL is
//! not installed. `cargo bench -p seawall-benches --features postgres --bench txn_postgres`
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a bench fails by panicking, and looks at the real clock"
)]

#[path = "../../txn/tests/postgres/server.rs"]
mod server;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use postgres::{Client, NoTls, Statement};
use seawall_benches::{fresh_dir, print_device, remove, shared_by};
use seawall_engine::Db;
use seawall_txn::postgres::{Limits, Postgres};
use seawall_txn::{Coordinator, NodeId, Store};
use server::Server;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const VALUE: [u8; 100] = [0x5a; 100];
/// So many transactions are under way at once.
const THREADS: u64 = 64;
const SETTINGS: [&str; 4] =
    ["max_connections=300", "max_prepared_transactions=300", "shared_buffers=256MB", "max_wal_size=4GB"];

/// A session, and its insertion of a row.
struct Session(Client, Statement);

impl Session {
    fn new(server: &Server, database: &str) -> Session {
        let mut config = server.config();
        let mut client = config.dbname(database).connect(NoTls).expect("a connection");
        let insert = client.prepare("INSERT INTO rows VALUES ($1, $2)").expect("a statement");
        Session(client, insert)
    }

    fn put(&mut self, key: i64) {
        self.0.batch_execute("BEGIN").expect("begun");
        self.0.execute(&self.1, &[&key, &VALUE.as_slice()]).expect("in");
    }

    fn run(&mut self, statement: &str) {
        self.0.batch_execute(statement).expect("done");
    }
}

/// Hands out what threads use, one each.
struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    fn new(make: impl Fn() -> T) -> Pool<T> {
        Pool(Mutex::new((0..THREADS).map(|_| make()).collect()))
    }

    fn with(&self, f: impl FnOnce(&mut T)) {
        let mut one = self.0.lock().expect("no panic").pop().expect("one for each thread");
        f(&mut one);
        self.0.lock().expect("no panic").push(one);
    }
}

fn commits(c: &mut Criterion) {
    let Some(server) = Server::start_with("bench", &SETTINGS) else { return };
    print_device(BASE);
    let table = "CREATE TABLE rows (key bigint PRIMARY KEY, value bytea NOT NULL)";
    server.admin("postgres").batch_execute("CREATE DATABASE other OWNER app").expect("a database");
    for database in ["app", "other"] {
        let mut config = server.config();
        let mut client = config.dbname(database).connect(NoTls).expect("a connection");
        client.batch_execute(table).expect("a table");
    }
    let mut group = c.benchmark_group("txn/put, 64 at once, PostgreSQL");
    group.throughput(Throughput::Elements(1)).sampling_mode(SamplingMode::Flat).sample_size(20);
    let next = AtomicU64::new(0);
    let number = || next.fetch_add(1, Ordering::Relaxed).cast_signed();

    let one = Pool::new(|| Session::new(&server, "app"));
    group.bench_function("one database, COMMIT", |bencher| {
        bencher.iter_custom(|iters| {
            shared_by(THREADS, iters, |_| {
                one.with(|session| {
                    session.put(number());
                    session.run("COMMIT");
                });
            })
        });
    });
    group.bench_function("one database, PREPARE and COMMIT PREPARED", |bencher| {
        bencher.iter_custom(|iters| {
            shared_by(THREADS, iters, |_| {
                one.with(|session| {
                    let key = number();
                    session.put(key);
                    session.run(&format!("PREPARE TRANSACTION 'bench {key}'"));
                    session.run(&format!("COMMIT PREPARED 'bench {key}'"));
                });
            })
        });
    });
    drop(one);
    let two = Pool::new(|| ["app", "other"].map(|database| Session::new(&server, database)));
    // Without a coordinator: nobody writes the decision down.
    group.bench_function("two databases, PREPARE and COMMIT PREPARED", |bencher| {
        bencher.iter_custom(|iters| {
            shared_by(THREADS, iters, |_| {
                two.with(|sessions| {
                    let key = number();
                    sessions.iter_mut().for_each(|session| session.put(key));
                    // One after the other: so it is for a client that has one thread.
                    for verb in ["PREPARE TRANSACTION", "COMMIT PREPARED"] {
                        for (number, session) in sessions.iter_mut().enumerate() {
                            session.run(&format!("{verb} 'bench {key} {number}'"));
                        }
                    }
                });
            })
        });
    });
    drop(two);

    let dir = fresh_dir(BASE, "txn-postgres");
    let db = Db::builder(&dir).segment_bytes(16 << 20).memory_budget(128 << 20).open().expect("a store");
    let rows = db.keyspace("rows").expect("a keyspace");
    let store = Store::new(NodeId(1), &db).expect("a node");
    let coordinator = Coordinator::open(&store).expect("a coordinator");
    let mut limits = Limits::default();
    (limits.connections, limits.workers) = (THREADS as usize, THREADS as usize);
    let bank = Postgres::builder(NodeId(2)).limits(limits).connect(&server.config()).expect("a participant");
    bank.attach(&coordinator).expect("attached");
    group.bench_function("a database and a store, Coordinator", |bencher| {
        bencher.iter_custom(|iters| {
            shared_by(THREADS, iters, |_| {
                let key = number();
                let mut global = coordinator.begin();
                let mut sql = bank.branch(&mut global).expect("a branch");
                sql.execute("INSERT INTO rows VALUES ($1, $2)", &[&key, &VALUE.as_slice()]).expect("in");
                drop(sql);
                global.branch(&store).expect("a branch").insert(&rows, key.to_be_bytes(), VALUE).expect("in");
                global.commit().expect("committed");
            })
        });
    });
    group.finish();
    drop((coordinator, bank, store, rows, db));
    remove(&dir);
}

criterion_group!(benches, commits);
criterion_main!(benches);
