//! PostgreSQL's own prepared transactions, driven by as many clients on the same disk: a row in each of two databases of one server,
//! `PREPARE TRANSACTION` in both, then `COMMIT PREPARED` in both. Nobody writes a decision down.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "a bench fails by panicking; the server is the tests'"
)]

#[path = "../../../txn/tests/postgres/server.rs"]
mod server;

use super::{Found, VALUE};
use postgres::{Client, NoTls, Statement};
use seawall_benches::load;
use server::Server;
use std::sync::Mutex;

const SETTINGS: [&str; 4] =
    ["max_connections=300", "max_prepared_transactions=300", "shared_buffers=256MB", "max_wal_size=4GB"];
const TABLE: &str = "CREATE TABLE rows (key bigint PRIMARY KEY, value bytea NOT NULL)";

type Session = (Client, Statement);

fn session(server: &Server, database: &str) -> Session {
    let mut config = server.config();
    let mut client = config.dbname(database).connect(NoTls).expect("a connection");
    let insert = client.prepare("INSERT INTO rows VALUES ($1, $2)").expect("a statement");
    (client, insert)
}

/// Nothing is found where PostgreSQL is not installed.
pub(super) fn prepared(threads: usize, seconds: f64) -> Found {
    let Some(server) = Server::start_with("bench", &SETTINGS) else { return Found::default() };
    server.admin("postgres").batch_execute("CREATE DATABASE other OWNER app").expect("a database");
    for database in ["app", "other"] {
        let mut config = server.config();
        let mut client = config.dbname(database).connect(NoTls).expect("a connection");
        client.batch_execute(TABLE).expect("a table");
    }
    let both = || ["app", "other"].map(|database| session(&server, database));
    let pool: Mutex<Vec<[Session; 2]>> = Mutex::new((0..threads).map(|_| both()).collect());
    let (load, (), ()) = load(
        threads,
        seconds,
        || (),
        |_, number| {
            let mut sessions = pool.lock().expect("no panic").pop().expect("one for each thread");
            let key = number.cast_signed();
            for (client, insert) in &mut sessions {
                client.batch_execute("BEGIN").expect("begun");
                client.execute(&*insert, &[&key, &VALUE.as_slice()]).expect("in");
            }
            for verb in ["PREPARE TRANSACTION", "COMMIT PREPARED"] {
                for (number, (client, _)) in sessions.iter_mut().enumerate() {
                    client.batch_execute(&format!("{verb} 'bench {key} {number}'")).expect("done");
                }
            }
            pool.lock().expect("no panic").push(sessions);
            true
        },
    );
    Found { rate: load.rate, p50_us: load.quantile(0.5), p99_us: load.quantile(0.99), ..Found::default() }
}
