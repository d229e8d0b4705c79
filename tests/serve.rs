//! `seawall serve`: three daemons, real disks, real certificates, killed again and again in the middle of transactions over two
//! of them. `SEAWALL_KILLS` says how often (6).
#![cfg(all(unix, feature = "serve"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test fails by panicking, and runs processes"
)]

#[path = "../txn/tests/net/certificates.rs"]
mod certificates;

use certificates::Authority;
use seawall::Db;
use seawall::txn::net::wire::coordinator_client::CoordinatorClient;
use seawall::txn::net::wire::participant_client::ParticipantClient;
use seawall::txn::net::wire::peers_client::PeersClient;
use seawall::txn::net::wire::work_request::Request as Work;
use seawall::txn::net::wire::{self, begin};
use seawall::txn::net::{Credentials, VERSION};
use seawall::txn::{Body, Message, NodeId, TxnId};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const NODES: u64 = 3;

struct Cluster {
    dir: PathBuf,
    ports: Vec<u16>,
    daemons: Vec<Option<Child>>,
}

fn name(node: u64) -> String {
    format!("node{node}.test")
}

impl Cluster {
    fn start(dir: &Path, authority: &Authority, protocol: &'static [&'static str]) -> Cluster {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("authority.pem"), authority.pem()).unwrap();
        let listeners: Vec<TcpListener> =
            (0..NODES).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(listeners);
        let mut cluster = Cluster { dir: dir.to_owned(), ports, daemons: (0..NODES).map(|_| None).collect() };
        for node in 1..=NODES {
            let credentials = authority.issue(&name(node));
            std::fs::write(dir.join(format!("{node}.pem")), &credentials.certificate).unwrap();
            std::fs::write(dir.join(format!("{node}.key")), &credentials.key).unwrap();
            let store = dir.join(node.to_string());
            let init = Command::new(env!("CARGO_BIN_EXE_seawall"))
                .args(["-q", "init"])
                .arg(&store)
                .output()
                .unwrap();
            assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        }
        (1..=NODES).for_each(|node| cluster.run(node, protocol));
        cluster
    }

    fn port(&self, node: u64) -> u16 {
        self.ports[node as usize - 1]
    }

    fn run(&mut self, node: u64, protocol: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.current_dir(&self.dir).arg("serve").arg(node.to_string());
        command.args(["--node", &node.to_string(), "--listen", &format!("127.0.0.1:{}", self.port(node))]);
        command.args(["--client", "client.test", "--authority", "authority.pem"]);
        command
            .args(["--certificate", &format!("{node}.pem"), "--key", &format!("{node}.key")])
            .args(protocol);
        for other in (1..=NODES).filter(|&other| other != node) {
            command.args(["--peer", &format!("{other}={}@127.0.0.1:{}", name(other), self.port(other))]);
        }
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.daemons[node as usize - 1] = Some(child);
    }

    fn kill(&mut self, node: u64) {
        let mut child = self.daemons[node as usize - 1].take().unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself: {}", self.errors());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// In good order.
    fn stop(&mut self) {
        for child in self.daemons.iter_mut().filter_map(Option::take).collect::<Vec<_>>() {
            let mut child = child;
            let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
            assert!(sent.success());
            let status = child.wait().unwrap();
            assert!(status.success(), "{status}: {}", self.errors());
        }
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
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

struct Client {
    runtime: tokio::runtime::Runtime,
    channels: Vec<Channel>,
}

/// How a transaction ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Committed,
    Aborted,
    Nothing,
}

/// By key: at which nodes, and what the client was told.
type Outcomes = BTreeMap<String, ([u64; 2], Told)>;

impl Client {
    fn new(authority: &Authority, credentials: &Credentials, ports: &[u16]) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let channel = |(index, port): (usize, &u16)| {
            let tls = ClientTlsConfig::new()
                .identity(Identity::from_pem(&credentials.certificate, &credentials.key))
                .ca_certificate(Certificate::from_pem(authority.pem()))
                .domain_name(name(index as u64 + 1));
            let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).unwrap();
            let endpoint = endpoint.timeout(Duration::from_secs(20)).tls_config(tls).unwrap();
            runtime.block_on(async { endpoint.connect_lazy() })
        };
        let channels = ports.iter().enumerate().map(channel).collect();
        Client { runtime, channels }
    }

    /// A row in each of two stores, or in none.
    fn transfer(&self, coordinator: u64, nodes: [u64; 2], key: &str) -> Told {
        let at = |node: u64| self.channels[node as usize - 1].clone();
        self.runtime.block_on(async {
            let mut service = CoordinatorClient::new(at(coordinator));
            let Ok(txn) = service.begin(wire::BeginRequest {}).await else { return Told::Nothing };
            let txn = txn.into_inner();
            for (node, delta) in nodes.into_iter().zip([-1, 1]) {
                let requests = [
                    Work::Begin(wire::Begin { name: Some(begin::Name::Txn(txn)), ..Default::default() }),
                    Work::Put(wire::Put { keyspace: "rows".into(), key: key.into(), value: "1".into() }),
                    Work::Add(wire::Add { keyspace: "rows".into(), key: "total".into(), delta }),
                    Work::End(wire::End {}),
                ];
                let requests = requests.map(|request| wire::WorkRequest { request: Some(request) });
                let mut participant = ParticipantClient::new(at(node));
                let Ok(replies) = participant.work(tokio_stream::iter(requests)).await else {
                    return Told::Nothing;
                };
                let mut replies = replies.into_inner();
                loop {
                    match replies.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Told::Nothing,
                    }
                }
            }
            let request = wire::CommitRequest { txn: Some(txn), participants: nodes.to_vec() };
            match service.commit(request).await.map(|outcome| outcome.into_inner().state()) {
                Ok(wire::State::Committed) => Told::Committed,
                Ok(wire::State::Aborted) => Told::Aborted,
                _ => Told::Nothing,
            }
        })
    }
}

fn kill_loop(dir: &str, protocol: &'static [&'static str], kills: u64) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(dir);
    let authority = Arc::new(Authority::new());
    let mut cluster = Cluster::start(&dir, &authority, protocol);
    let told: Arc<Mutex<Outcomes>> = Arc::default();
    let (is_over, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4_u64)
        .map(|number| {
            let (authority, ports) = (authority.clone(), cluster.ports.clone());
            let (told, is_over, committed) = (told.clone(), is_over.clone(), committed.clone());
            std::thread::spawn(move || {
                let credentials = authority.issue("client.test");
                let client = Client::new(&authority, &credentials, &ports);
                for round in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let key = format!("{number}-{round}");
                    let (first, second) = ((number + round) % NODES + 1, (number + round + 1) % NODES + 1);
                    let nodes = [first.min(second), first.max(second)];
                    let outcome = client.transfer(round / 2 % NODES + 1, nodes, &key);
                    committed.fetch_add(u64::from(outcome == Told::Committed), Ordering::SeqCst);
                    if outcome == Told::Nothing {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    told.lock().unwrap().insert(key, (nodes, outcome));
                }
            })
        })
        .collect();
    for kill in 0..kills {
        let seen = committed.load(Ordering::SeqCst);
        let begin = Instant::now();
        // Something goes on between any two kills.
        while committed.load(Ordering::SeqCst) < seen + 5 {
            assert!(begin.elapsed() < Duration::from_secs(120), "nothing commits: {}", cluster.errors());
            std::thread::sleep(Duration::from_millis(2));
        }
        let node = kill % NODES + 1;
        cluster.kill(node);
        std::thread::sleep(Duration::from_millis(kill * 7 % 40));
        cluster.run(node, protocol);
    }
    is_over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    settle_and_check(&mut cluster, &told.lock().unwrap(), protocol, kills);
}

/// With all nodes there, everything ends; and then it is the same everywhere.
fn settle_and_check(cluster: &mut Cluster, told: &Outcomes, protocol: &[&str], kills: u64) {
    let begin = Instant::now();
    loop {
        std::thread::sleep(Duration::from_secs(3));
        cluster.stop();
        let stores: Vec<Db> =
            (1..=NODES).map(|node| Db::open(cluster.dir.join(node.to_string())).unwrap()).collect();
        if stores.iter().all(|db| db.prepared().next().is_none()) {
            check(&stores, told, kills);
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "in doubt for ever: {}", cluster.errors());
        stores.into_iter().for_each(|db| db.close().unwrap());
        (1..=NODES).for_each(|node| cluster.run(node, protocol));
    }
}

fn check(stores: &[Db], told: &Outcomes, kills: u64) {
    let rows: Vec<_> = stores.iter().map(|db| db.keyspace("rows").unwrap()).collect();
    let has = |node: u64, key: &str| rows[node as usize - 1].get(key).unwrap().is_some();
    let (mut committed, mut unknown) = (0, 0);
    for (key, (nodes, outcome)) in told {
        let found = nodes.map(|node| has(node, key));
        assert_eq!(found[0], found[1], "{key} is half there: {nodes:?}, told {outcome:?}");
        match outcome {
            Told::Committed => assert!(found[0], "{key} was told to be committed, and is gone"),
            Told::Aborted => assert!(!found[0], "{key} was told to be rolled back, and is there"),
            Told::Nothing => unknown += 1,
        }
        committed += u64::from(found[0]);
    }
    let number = |value: &[u8]| i64::from_le_bytes(value.try_into().unwrap());
    let sum: i64 =
        rows.iter().filter_map(|rows| rows.get("total").unwrap()).map(|value| number(&value)).sum();
    assert_eq!(sum, 0, "what one store lost, another has");
    assert!(committed > 0);
    println!(
        "{kills} kills, {} transactions: {committed} committed, {unknown} without an answer",
        told.len()
    );
}

fn kills() -> u64 {
    std::env::var("SEAWALL_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn daemons_that_are_killed_never_split_a_transaction() {
    kill_loop("serve-two-phase", &[], kills());
}

#[test]
fn daemons_that_are_killed_never_split_a_transaction_of_paxos_commit() {
    kill_loop("serve-paxos", &["--protocol", "paxos-commit", "--acceptors", "1,2,3"], kills());
}

#[test]
fn what_makes_no_sense_is_said() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve-wrong");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        let output = command.current_dir(&dir).arg("serve").args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let local = ["--node", "1", "--listen", "127.0.0.1:0"];
    let with = |more: &[&'static str]| [&["db"][..], &local, more].concat();
    assert_eq!(run(&with(&["--plain-text"])).0, Some(3));
    assert_eq!(run(&with(&[])).0, Some(2));
    assert!(
        Command::new(env!("CARGO_BIN_EXE_seawall"))
            .current_dir(&dir)
            .args(["init", "db"])
            .status()
            .unwrap()
            .success()
    );
    let (code, said) = run(&["db", "--node", "1", "--listen", "0.0.0.0:0", "--plain-text"]);
    assert!(code == Some(1) && said.contains("without certificates"), "{said}");
    let (code, said) = run(&with(&["--plain-text", "--peer", "2=b.example"]));
    assert!(code == Some(2) && said.contains("N=NAME@HOST:PORT"), "{said}");
    let (code, said) = run(&with(&["--plain-text", "--peer", "1=a.example@127.0.0.1:1"]));
    assert!(code == Some(2) && said.contains("itself"), "{said}");
    let paxos = ["--plain-text", "--peer", "2=b.example@127.0.0.1:1", "--protocol", "paxos-commit"];
    let (code, said) = run(&with(&[&paxos[..], &["--acceptors", "1,2"]].concat()));
    assert!(code == Some(1) && said.contains("odd number"), "{said}");
    let (code, said) = run(&with(&[&paxos[..], &["--acceptors", "1,2,7"]].concat()));
    assert!(code == Some(2) && said.contains("--acceptors 7"), "{said}");
    let (code, said) = run(&with(&["--certificate", "no.pem", "--key", "no.key", "--authority", "no.pem"]));
    assert!(code == Some(3) && said.contains("no.pem"), "{said}");
}

/// Another incarnation of the node is at work: one that is left over would answer nobody, and look as if it did.
#[test]
fn a_daemon_that_was_taken_out_ends_and_says_why() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve-fenced");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let seawall = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.current_dir(&dir).stdin(Stdio::null());
        command
    };
    assert!(seawall().args(["-q", "init", "db"]).status().unwrap().success());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut command = seawall();
    command.args(["serve", "db", "--node", "1", "--listen", &address, "--plain-text"]);
    command.args(["--peer", "2=b.example@127.0.0.1:1"]);
    let daemon = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
    let body = Body::Fenced { epoch: 1_000 };
    let message = Message { txn, from: NodeId(2), to: NodeId(1), epoch: 1, body }.encode();
    let introduction = Some(wire::Introduction { version: VERSION, version_min: VERSION, from: 2 });
    let parcel = wire::Parcel { introduction, messages: vec![message] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let begin = Instant::now();
    runtime.block_on(async {
        // Until it listens.
        loop {
            assert!(begin.elapsed() < Duration::from_secs(60), "it does not listen");
            if let Ok(channel) = endpoint.connect().await {
                let parcels = tokio_stream::iter([parcel.clone()]);
                if PeersClient::new(channel).deliver(parcels).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let output = daemon.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("later incarnation"), "{said}");
    // In good order.
    Db::open(dir.join("db")).unwrap();
}
