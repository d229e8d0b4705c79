//! A primary and two replicas as processes: the primary is killed again and again in the middle of commits that wait for one of
//! the replicas, the most advanced is promoted, and the old primary goes back and follows. `SEAWALL_KILLS` says how often (3).
#![cfg(all(unix, feature = "serve"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test fails by panicking, and runs processes"
)]

use seawall::txn::net::wire::coordinator_client::CoordinatorClient;
use seawall::txn::net::wire::participant_client::ParticipantClient;
use seawall::txn::net::wire::work_request::Request as Work;
use seawall::txn::net::wire::{self, begin};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::Endpoint;

const NAMES: [&str; 3] = ["a", "b", "c"];
const LONG: Duration = Duration::from_secs(60);

/// Three stores, of which one is the primary.
struct Cluster {
    dir: PathBuf,
    /// Of replication, by store.
    ports: Vec<u16>,
    /// Of transactions, at whichever is the primary.
    port: u16,
    daemons: Vec<Option<Child>>,
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Cluster {
    fn new(name: &str) -> Cluster {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut ports = free_ports(4);
        let port = ports.pop().unwrap();
        let cluster = Cluster { dir, ports, port, daemons: (0..3).map(|_| None).collect() };
        cluster.succeed(&["-q", "init", "a"]);
        cluster
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.env("SEAWALL_PROBE", "0").current_dir(&self.dir).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node])
    }

    fn spawn(&mut self, node: usize, args: &[&str]) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let child = self.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.daemons[node] = Some(child);
    }

    fn serve(&mut self, node: usize) {
        let others: Vec<&str> = (0..3).filter(|other| *other != node).map(|other| NAMES[other]).collect();
        let (policy, address) = (format!("ANY 1 ({})", others.join(", ")), self.address(node));
        let listen = format!("127.0.0.1:{}", self.port);
        let args = ["serve", NAMES[node], "--replication", &address, "--sync", &policy, "--ack", "durable"];
        self.spawn(node, &[&args[..], &["--node", "1", "--listen", &listen, "--plain-text"]].concat());
    }

    fn follow(&mut self, node: usize) {
        let others: Vec<String> =
            (0..3).filter(|other| *other != node).map(|other| self.address(other)).collect();
        let listen = self.address(node);
        let mut args =
            vec!["replica", NAMES[node], "--name", NAMES[node], "--listen", &listen, "--plain-text"];
        others.iter().for_each(|of| args.extend(["--of", of.as_str()]));
        self.spawn(node, &args);
    }

    fn follow_one(&mut self, node: usize, of: usize) {
        let (of, listen) = (self.address(of), self.address(node));
        let args = ["replica", NAMES[node], "--name", NAMES[node], "--of", &of, "--listen", &listen];
        self.spawn(node, &[&args[..], &["--plain-text"]].concat());
    }

    fn status(&self, node: usize) -> Option<Value> {
        let output = self.run(&["status", "--of", &self.address(node), "--plain-text", "-o", "json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Until it says of itself what is wanted.
    #[track_caller]
    fn until(&self, node: usize, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let status = self.status(node);
            if let Some(status) = status.clone().filter(&is_wanted) {
                return status;
            }
            assert!(begin.elapsed() < LONG, "{}: {what}: {status:?}\n{}", NAMES[node], self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self, node: usize) {
        let mut child = self.daemons[node].take().unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself: {}", self.errors());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// In good order.
    fn stop(&mut self, node: usize) {
        let mut child = self.daemons[node].take().unwrap();
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.errors());
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
    }

    /// The keys of a store that nobody has open.
    fn keys(&self, node: usize) -> BTreeSet<String> {
        let rows = self.succeed(&["scan", NAMES[node], "-k", "rows", "--keys-only"]);
        rows.lines().map(|line| line.trim().to_owned()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.daemons.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn position(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap()
}

/// Writes a row; true once it was told to be committed.
async fn put(address: &str, key: &str) -> bool {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let Ok(channel) = endpoint.timeout(Duration::from_secs(20)).connect().await else { return false };
    let mut service = CoordinatorClient::new(channel.clone());
    let Ok(txn) = service.begin(wire::BeginRequest {}).await else { return false };
    let txn = txn.into_inner();
    let requests = [
        Work::Begin(wire::Begin { name: Some(begin::Name::Txn(txn)), ..Default::default() }),
        Work::Put(wire::Put { keyspace: "rows".into(), key: key.to_owned().into(), value: "1".into() }),
        Work::End(wire::End {}),
    ];
    let requests = requests.map(|request| wire::WorkRequest { request: Some(request) });
    let Ok(replies) = ParticipantClient::new(channel).work(tokio_stream::iter(requests)).await else {
        return false;
    };
    let mut replies = replies.into_inner();
    loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return false,
        }
    }
    let request = wire::CommitRequest { txn: Some(txn), participants: vec![1] };
    let outcome = service.commit(request).await.map(|outcome| outcome.into_inner().state());
    matches!(outcome, Ok(wire::State::Committed))
}

/// Clients that write until they are to end.
struct Writers {
    threads: Vec<std::thread::JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
}

impl Writers {
    fn start(cluster: &Cluster) -> Writers {
        let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let write = |number: u32| {
            let (is_over, count) = (Arc::clone(&is_over), Arc::clone(&count));
            let (acknowledged, address) = (Arc::clone(&acknowledged), format!("127.0.0.1:{}", cluster.port));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                for row in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let key = format!("{number}-{row:06}");
                    if runtime.block_on(put(&address, &key)) {
                        acknowledged.lock().unwrap().insert(key);
                        count.fetch_add(1, Ordering::SeqCst);
                    } else {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            })
        };
        let threads = (0..4).map(write).collect();
        Writers { threads, is_over, count, acknowledged }
    }

    /// Something goes on.
    fn wait(&self, more: u64, cluster: &Cluster) {
        let (seen, begin) = (self.count.load(Ordering::SeqCst), Instant::now());
        while self.count.load(Ordering::SeqCst) < seen + more {
            assert!(begin.elapsed() < LONG, "nothing commits: {}", cluster.errors());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(self) -> BTreeSet<String> {
        self.is_over.store(true, Ordering::SeqCst);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

fn kills() -> usize {
    std::env::var("SEAWALL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[test]
fn a_primary_that_is_killed_is_replaced_and_comes_back_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new("replica-kills");
    let mut primary = 0;
    cluster.serve(0);
    (1..3).for_each(|node| cluster.follow(node));
    let writers = Writers::start(&cluster);
    for round in 0..kills() {
        writers.wait(20, &cluster);
        let others: Vec<usize> = (0..3).filter(|node| *node != primary).collect();
        for &other in &others {
            cluster.until(other, "to follow", |status| status["state"] == "follows");
        }
        cluster.kill(primary);
        // Both have to be heard: the one that acknowledged last is among them.
        let at = |node: usize| position(&cluster.until(node, "to answer", |_| true), "durable");
        let next = others.iter().copied().max_by_key(|&node| at(node)).unwrap();
        let rest = others.iter().copied().find(|&node| node != next).unwrap();
        cluster.stop(next);
        let peer = cluster.address(rest);
        // What those lack of the log is kept for them.
        let slots = ["--slot", NAMES[primary], "--slot", NAMES[rest], "--plain-text", "-o", "json"];
        let promoted = cluster.succeed(&[&["promote", NAMES[next], "--peer", &peer][..], &slots].concat());
        let promoted: Value = serde_json::from_str(&promoted).unwrap();
        assert_eq!(promoted["epoch"], round as u64 + 1);
        cluster.serve(next);
        cluster.until(next, "to be the primary", |status| status["role"] == "primary");
        let to = cluster.address(next);
        let begin = Instant::now();
        let rewound = loop {
            let output = cluster.run(&["rewind", NAMES[primary], "--to", &to, "--plain-text", "-o", "json"]);
            if output.status.success() {
                break output;
            }
            assert!(begin.elapsed() < LONG, "{output:?}");
            std::thread::sleep(Duration::from_millis(50));
        };
        let rewound: Value = serde_json::from_slice(&rewound.stdout).unwrap();
        assert!(position(&rewound, "lsn") <= position(&promoted, "lsn"), "{rewound} {promoted}");
        cluster.follow(primary);
        primary = next;
    }
    writers.wait(20, &cluster);
    let acknowledged = writers.end();
    let end = position(&cluster.status(primary).unwrap(), "visible");
    for node in (0..3).filter(|node| *node != primary) {
        cluster.until(node, "to come up with the primary", |status| position(status, "visible") >= end);
    }
    (0..3).filter(|node| *node != primary).for_each(|node| cluster.stop(node));
    cluster.stop(primary);
    assert!(!cluster.errors().contains("begins with another"), "{}", cluster.errors());
    assert_eq!(cluster.errors().matches("copied an image").count(), 2, "{}", cluster.errors());
    for (node, name) in NAMES.iter().enumerate() {
        let keys = cluster.keys(node);
        let lost: Vec<&String> = acknowledged.difference(&keys).collect();
        assert!(lost.is_empty(), "{name} has lost {lost:?}\n{}", cluster.errors());
    }
    println!("{} kills, {} rows acknowledged, none lost", kills(), acknowledged.len());
}

#[test]
fn a_replica_ships_on() {
    let mut cluster = Cluster::new("replica-cascade");
    cluster.succeed(&["put", "a", "-k", "rows", "k", "v"]);
    let address = cluster.address(0);
    cluster.spawn(0, &["serve", "a", "--replication", &address, "--plain-text"]);
    cluster.until(0, "to serve", |_| true);
    cluster.follow_one(1, 0);
    cluster.until(1, "to follow", |status| status["state"] == "follows");
    cluster.follow_one(2, 1);
    cluster.until(2, "to follow a replica", |status| status["state"] == "follows");
    let status = cluster.until(0, "to be followed", |status| {
        let of = &status["followers"][0];
        of["name"] == "b" && of["state"] == "connected" && of["lag_bytes"].is_u64()
    });
    assert_eq!(status["role"], "primary");
    // The last record there is: what stands behind it at the primary is padding.
    let end = position(&cluster.status(1).unwrap(), "applied");
    cluster.until(2, "to have it all", |status| position(status, "applied") >= end);
    assert_eq!(
        cluster.until(1, "to be followed", |status| status["followers"][0]["name"] == "c")["role"],
        "replica"
    );
    let table = cluster.succeed(&["status", "--of", &address, "--plain-text"]);
    assert!(table.contains("primary") && table.contains("connected"), "{table}");
    (0..3).rev().for_each(|node| cluster.stop(node));
    assert_eq!(cluster.keys(2), BTreeSet::from(["k".to_owned()]));
    // A replica's store is for replicas, and a primary's for primaries.
    let output = cluster.run(&["put", "c", "-k", "rows", "k", "w"]);
    assert!(!output.status.success());
    let output = cluster.run(&["replica", "a", "--of", "127.0.0.1:1", "--name", "a", "--plain-text"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() != Some(0) && said.contains("seawall rewind a --to 127.0.0.1:1"), "{said}");
}
