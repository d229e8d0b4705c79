//! The coordinator's process: it announces each transfer on its standard error, makes it, and says how it has ended; what went
//! into the pipe outlives it.

use super::server::Server;
use postgres::{Config, NoTls};
use seawall_engine::{Db, Keyspace};
use seawall_txn::mutation::Mutation;
use seawall_txn::postgres::{Limits, Postgres};
use seawall_txn::{Coordinator, Error, NodeId, Store};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const ROLE: &str = "SEAWALL_POSTGRES_ROLE";
const DIR: &str = "SEAWALL_POSTGRES_DIR";
const SOCKET: &str = "SEAWALL_POSTGRES_SOCKET";
const LIFE: &str = "SEAWALL_POSTGRES_LIFE";
const MUTATION: &str = "SEAWALL_KILL_MUTATION";
const THREADS: u64 = 6;
pub const ACCOUNTS: i32 = 16;

/// How a transfer ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    Committed,
    RolledBack,
    Unknown,
    Nothing,
}

/// Which stores take part with the database: its key says it, at its end.
fn stores_of(key: &str) -> &'static [usize] {
    match key.chars().last() {
        Some('0') => &[0],
        Some('1') => &[1],
        Some('2') => &[0, 1],
        _ => &[],
    }
}

/// A running process; never left behind.
pub struct Child {
    process: std::process::Child,
    reader: Option<JoinHandle<BTreeMap<String, Told>>>,
    acknowledged: Arc<AtomicU64>,
    noise: Arc<Mutex<Vec<String>>>,
}

impl Child {
    pub fn start(role: &str, dir: &Path, server: &Server, life: u64) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["helper", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DIR, dir)
            .env(SOCKET, server.socket_file().parent().unwrap())
            .env(LIFE, life.to_string())
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = BufReader::new(process.stderr.take().unwrap());
        let acknowledged = Arc::<AtomicU64>::default();
        let noise = Arc::<Mutex<Vec<String>>>::default();
        let (counter, heard) = (acknowledged.clone(), noise.clone());
        let reader = std::thread::spawn(move || {
            let mut told = BTreeMap::new();
            for line in pipe.lines().map_while(Result::ok) {
                let said = match line.split_once(' ') {
                    Some(("B", key)) => Some((key, Told::Nothing)),
                    Some(("A", key)) => Some((key, Told::Committed)),
                    Some(("X", key)) => Some((key, Told::RolledBack)),
                    Some(("U", key)) => Some((key, Told::Unknown)),
                    _ => None,
                };
                let Some((key, outcome)) = said else {
                    heard.lock().unwrap().push(line);
                    continue;
                };
                counter.fetch_add(u64::from(outcome == Told::Committed), Ordering::SeqCst);
                told.insert(key.to_owned(), outcome);
            }
            told
        });
        Child { process, reader: Some(reader), acknowledged, noise }
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    pub fn noise(&self) -> String {
        self.noise.lock().unwrap().join("\n")
    }

    /// Kills it. What it has told its clients.
    pub fn kill(mut self) -> BTreeMap<String, Told> {
        assert_eq!(self.process.try_wait().unwrap(), None, "it ended by itself: {}", self.noise());
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap()
    }

    /// Until it is done.
    pub fn wait(mut self) {
        let status = self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}: {}", self.noise());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn say(kind: char, key: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{kind} {key}");
}

/// Until it is there, not for ever.
fn patiently<T>(what: &str, mut f: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match f() {
            Ok(value) => return value,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(100), "{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn open(dir: &Path, index: usize) -> (Db, Keyspace) {
    let path = dir.join(index.to_string());
    // The one before may still be dying.
    let db = patiently("a store", || {
        let builder = Db::builder(&path).segment_bytes(4 << 20).memory_budget(64 << 20);
        builder.open().map_err(|error| error.to_string())
    });
    let rows = db.keyspace("rows").unwrap();
    (db, rows)
}

/// Nothing, unless this process was started for it.
pub fn run() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let life = std::env::var(LIFE).unwrap();
    let mut config = Config::new();
    config.user("app").dbname("app").host_path(PathBuf::from(std::env::var_os(SOCKET).unwrap()));
    let open: Vec<(Db, Keyspace)> = (0..2).map(|index| open(&dir, index)).collect();
    let stores: Vec<Arc<Store>> =
        open.iter().zip(1..).map(|((db, _), id)| Store::new(NodeId(id), db).unwrap()).collect();
    let builder = Coordinator::builder(&stores[0]);
    let builder = builder.on_notice(|notice| {
        let _ = writeln!(std::io::stderr().lock(), "notice: {notice}");
    });
    let builder = match std::env::var(MUTATION).as_deref() {
        Ok("decide-unlogged") => builder.mutation(Mutation::DecideUnlogged),
        Ok("abort-prepared") => builder.mutation(Mutation::AbortPrepared),
        Ok(other) => panic!("no mutation is called {other}"),
        Err(_) => builder,
    };
    let coordinator = builder.open().unwrap();
    coordinator.attach(&stores[1]).unwrap();
    let mut limits = Limits::default();
    (limits.connections, limits.workers, limits.answer) = (8, 8, Duration::from_secs(2));
    let bank = patiently("PostgreSQL", || {
        Postgres::builder(NodeId(9)).limits(limits).connect(&config).map_err(|error| error.to_string())
    });
    patiently("what is prepared there", || bank.attach(&coordinator).map_err(|error| error.to_string()));
    if role == "heal" {
        patiently("everything ends", || {
            let mut client = config.connect(NoTls).map_err(|error| error.to_string())?;
            let query = "SELECT gid FROM pg_prepared_xacts";
            let left = client.query(query, &[]).map_err(|error| error.to_string())?.len()
                + open.iter().map(|(db, _)| db.prepared().count()).sum::<usize>();
            if left == 0 && coordinator.is_idle() { Ok(()) } else { Err(format!("{left} in doubt")) }
        });
        return;
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (coordinator, bank, stores, open, life) = (&coordinator, &bank, &stores, &open, &life);
            scope.spawn(move || {
                for round in 0_u64.. {
                    let key = format!("{life}-{thread}-{round}-{}", (thread + round) % 4);
                    say('B', &key);
                    let outcome = transfer(coordinator, bank, stores, open, &key, round);
                    match outcome {
                        Ok(()) => say('A', &key),
                        Err(Error::OutcomeUnknown { .. }) => say('U', &key),
                        Err(_) => say('X', &key),
                    }
                    if outcome.is_err() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
    });
}

fn transfer(
    coordinator: &Coordinator,
    bank: &Postgres,
    stores: &[Arc<Store>],
    open: &[(Db, Keyspace)],
    key: &str,
    round: u64,
) -> Result<(), Error> {
    let mut global = coordinator.begin();
    let amount = 1 + (round % 7) as i64;
    let all = amount * stores_of(key).len() as i64;
    let account = i32::try_from(round % ACCOUNTS as u64).unwrap();
    let mut sql = bank.branch(&mut global)?;
    sql.batch_execute("SET LOCAL lock_timeout = '10s'")?;
    sql.execute("INSERT INTO moves VALUES ($1, $2)", &[&key, &all])?;
    sql.execute("UPDATE accounts SET balance = balance - $1 WHERE id = $2", &[&all, &account])?;
    drop(sql);
    for &index in stores_of(key) {
        let rows = &open[index].1;
        let branch = global.branch(&stores[index])?;
        branch.insert(rows, key, amount.to_le_bytes())?;
        branch.add_i64(rows, "total", amount)?;
    }
    global.commit().map(drop)
}

/// What the places hold in the end.
pub struct Books {
    moves: BTreeMap<String, i64>,
    balance: i64,
    stores: Vec<(BTreeMap<String, i64>, i64)>,
}

impl Books {
    pub fn read(dir: &Path, server: &Server) -> Books {
        let mut client = server.config().connect(NoTls).unwrap();
        let moves = client.query("SELECT key, amount FROM moves", &[]).unwrap();
        let moves = moves.iter().map(|row| (row.get(0), row.get(1))).collect();
        let balance = client.query_one("SELECT sum(balance)::bigint FROM accounts", &[]).unwrap().get(0);
        let stores = (0..2)
            .map(|index| {
                let (db, rows) = open(dir, index);
                assert_eq!(db.prepared().count(), 0, "nothing is in doubt");
                let number = |value: &[u8]| i64::from_le_bytes(value.try_into().unwrap());
                let mut all: BTreeMap<String, i64> = rows
                    .range(..)
                    .map(|row| {
                        row.map(|(key, value)| (String::from_utf8(key.to_vec()).unwrap(), number(&value)))
                    })
                    .collect::<Result<_, _>>()
                    .unwrap();
                let total = all.remove("total").unwrap_or_default();
                (all, total)
            })
            .collect();
        Books { moves, balance, stores }
    }

    /// Everywhere where it should be, or nowhere.
    pub fn is_there(&self, key: &str) -> bool {
        let there = self.moves.contains_key(key);
        for (index, (rows, _)) in self.stores.iter().enumerate() {
            let expected = there && stores_of(key).contains(&index);
            assert_eq!(rows.contains_key(key), expected, "{key} is half there");
        }
        there
    }

    /// What left one place is in the other, and nothing is there of which nobody knows.
    pub fn compare(&self, told: &BTreeMap<String, Told>) {
        let everywhere = self.moves.keys().chain(self.stores.iter().flat_map(|(rows, _)| rows.keys()));
        for key in everywhere {
            assert!(told.contains_key(key), "{key} was never announced");
        }
        assert_eq!(self.moves.values().sum::<i64>(), -self.balance, "a transaction of PostgreSQL is whole");
        for (rows, total) in &self.stores {
            assert_eq!(rows.values().sum::<i64>(), *total, "a transaction of a store is whole");
        }
        let stores: i64 = self.stores.iter().map(|(_, total)| total).sum();
        assert_eq!(self.balance + stores, 0, "what left one place is in the other");
    }
}
