//! PostgreSQL on the same disk: a primary and two standbys by streaming replication, commits of one row each.

use super::server::Server;
use super::{Figures, VALUE};
use postgres::{Client, NoTls, Statement};
use seawall_benches::load;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const SETTINGS: [&str; 4] =
    ["max_connections=150", "max_prepared_transactions=150", "shared_buffers=256MB", "max_wal_size=4GB"];
const STANDBYS: [&str; 2] = ["one", "two"];

pub(crate) struct Streaming {
    primary: Server,
    /// Their processes end with them.
    _standbys: Vec<Server>,
}

impl Streaming {
    /// None where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Streaming> {
        let primary = Server::start_with("streaming", &SETTINGS)?;
        let table = "CREATE TABLE rows (key bigserial PRIMARY KEY, value bytea NOT NULL)";
        primary.config().connect(NoTls).expect("a connection").batch_execute(table).expect("a table");
        let standbys = STANDBYS.map(|name| primary.standby(name));
        let streaming = Streaming { primary, _standbys: standbys.into() };
        let mut admin = streaming.primary.admin("postgres");
        let names = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (one, two)'";
        for statement in [names, "SELECT pg_reload_conf()"] {
            admin.batch_execute(statement).expect("done");
        }
        let begin = Instant::now();
        let follow =
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'";
        while admin.query_one(follow, &[]).expect("an answer").get::<_, i64>(0) < STANDBYS.len() as i64 {
            assert!(begin.elapsed() < Duration::from_secs(60), "no standby: {}", streaming.primary.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(streaming)
    }

    /// `waits`: for one of the standbys to have it on its device, or for nobody.
    pub(crate) fn measure(&self, name: &str, waits: bool, clients: usize, seconds: f64, found: &mut Figures) {
        let sessions: Vec<Mutex<(Client, Statement)>> = (0..clients)
            .map(|_| {
                let mut client = self.primary.config().connect(NoTls).expect("a connection");
                let level = if waits { "on" } else { "local" };
                client.batch_execute(&format!("SET synchronous_commit = {level}")).expect("set");
                let insert = client.prepare("INSERT INTO rows (value) VALUES ($1)").expect("a statement");
                Mutex::new((client, insert))
            })
            .collect();
        let (load, (), ()) = load(
            clients,
            seconds,
            || {},
            |thread, _| {
                let mut session = sessions[thread].lock().expect("no panic");
                let (client, insert) = &mut *session;
                client.execute(&*insert, &[&VALUE.as_slice()]).expect("committed");
                true
            },
        );
        found.add(&format!("{name}, commits/s"), load.rate);
        found.add(&format!("{name}, p50 µs"), load.quantile(0.5));
        found.add(&format!("{name}, p99 µs"), load.quantile(0.99));
    }
}
