//! Three stores as processes: one is the primary, the others follow it.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use super::certificates::Authority;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const NAMES: [&str; 3] = ["a", "b", "c"];
pub const LONG: Duration = Duration::from_secs(60);
/// The name in the certificate of whoever asks for the status, and of whoever writes.
pub const OPERATOR: &str = "operator.test";
pub const CLIENT: &str = "client.test";

/// Where a node is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Of replication.
    pub ships: SocketAddr,
    /// Of transactions, while it is the primary.
    pub serves: SocketAddr,
    /// The network namespace that its processes run in, if it is another than this process's own.
    pub namespace: Option<String>,
}

/// All on this machine, under one address of transactions: that of whoever is the primary.
pub fn loopback() -> Vec<Place> {
    let listeners: Vec<TcpListener> =
        (0..=NAMES.len()).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let (serves, ships) = addresses.split_last().unwrap();
    ships.iter().map(|&ships| Place { ships, serves: *serves, namespace: None }).collect()
}

/// The stores' directories, and the processes that are at work in them.
pub struct Cluster {
    pub dir: PathBuf,
    pub places: Vec<Place>,
    /// Without one they speak plain text.
    pub authority: Option<Authority>,
    pub daemons: Vec<Option<Child>>,
}

impl Cluster {
    /// The first one's store is there, and holds nothing; nobody runs.
    pub fn new(name: &str, places: Vec<Place>, authority: Option<Authority>) -> Cluster {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let daemons = places.iter().map(|_| None).collect();
        let cluster = Cluster { dir, places, authority, daemons };
        cluster.certify();
        cluster.succeed(0, &["-q", "init", "a"]);
        cluster
    }

    fn certify(&self) {
        let Some(authority) = &self.authority else { return };
        fs::write(self.dir.join("authority.pem"), authority.pem()).unwrap();
        for (name, place) in NAMES.iter().zip(&self.places) {
            let names = [format!("{name}.test"), place.ships.ip().to_string()];
            self.write_credentials(name, &authority.issue_to(&names, 4000));
        }
        for name in [OPERATOR, CLIENT] {
            self.write_credentials(name, &authority.issue(name));
        }
    }

    pub fn write_credentials(&self, file: &str, credentials: &seawall::replication::net::Credentials) {
        fs::write(self.dir.join(format!("{file}.pem")), &credentials.certificate).unwrap();
        fs::write(self.dir.join(format!("{file}.key")), &credentials.key).unwrap();
    }

    /// What a command is told of certificates, as the one whose are in these files.
    pub fn security(&self, file: &str) -> Vec<String> {
        if self.authority.is_none() {
            return vec!["--plain-text".to_owned()];
        }
        let [certificate, key] = ["pem", "key"].map(|kind| format!("{file}.{kind}"));
        let args = ["--certificate", &certificate, "--key", &key, "--authority", "authority.pem"];
        args.map(str::to_owned).to_vec()
    }

    /// The command at a node.
    pub fn command(&self, node: usize, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_seawall");
        let mut command = match &self.places[node].namespace {
            Some(namespace) => {
                // It does not fork: the process is the command's.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, program]);
                command
            }
            None => Command::new(program),
        };
        command.env("SEAWALL_PROBE", "0").current_dir(&self.dir).args(args).stdin(Stdio::null());
        command
    }

    pub fn run(&self, node: usize, args: &[&str]) -> Output {
        self.command(node, args).output().unwrap()
    }

    /// The command, with the node's certificate.
    pub fn run_securely(&self, node: usize, args: &[&str]) -> Output {
        let security = self.security(NAMES[node]);
        let security: Vec<&str> = security.iter().map(String::as_str).collect();
        self.run(node, &[args, &security].concat())
    }

    #[track_caller]
    pub fn succeed(&self, node: usize, args: &[&str]) -> String {
        let output = self.run(node, args);
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn address(&self, node: usize) -> String {
        self.places[node].ships.to_string()
    }

    pub fn ip(&self, node: usize) -> IpAddr {
        self.places[node].ships.ip()
    }

    pub fn others(&self, node: usize) -> Vec<usize> {
        (0..self.places.len()).filter(|other| *other != node).collect()
    }

    pub fn spawn(&mut self, node: usize, args: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("errors")).unwrap();
        let mut security = self.security(NAMES[node]);
        if self.authority.is_some() && matches!(args[0], "serve" | "replica") {
            for other in NAMES {
                security.extend(["--replica", "--operator"].iter().flat_map(|role| {
                    let name = format!("{other}.test");
                    [(*role).to_owned(), name]
                }));
            }
            security.extend(["--operator".to_owned(), OPERATOR.to_owned()]);
        }
        let mut command = self.command(node, args);
        let child = command.args(security).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.daemons[node] = Some(child);
    }

    /// As the primary, whose commits wait for one of the others.
    pub fn serve(&mut self, node: usize) {
        let others: Vec<&str> = self.others(node).into_iter().map(|other| NAMES[other]).collect();
        let (policy, address) = (format!("ANY 1 ({})", others.join(", ")), self.address(node));
        let listen = self.places[node].serves.to_string();
        let args = ["serve", NAMES[node], "--replication", &address, "--sync", &policy, "--ack", "durable"];
        let client: &[&str] = if self.authority.is_some() { &["--client", CLIENT] } else { &[] };
        self.spawn(node, &[&args[..], &["--node", "1", "--listen", &listen], client].concat());
    }

    /// Follows whichever of the others ships its log.
    pub fn follow(&mut self, node: usize) {
        self.follow_any(node, &self.others(node));
    }

    pub fn follow_any(&mut self, node: usize, of: &[usize]) {
        let of: Vec<String> = of.iter().map(|&other| self.address(other)).collect();
        let listen = self.address(node);
        let mut args = vec!["replica", NAMES[node], "--name", NAMES[node], "--listen", &listen];
        of.iter().for_each(|of| args.extend(["--of", of.as_str()]));
        self.spawn(node, &args);
    }

    pub fn status(&self, node: usize) -> Option<Value> {
        let (of, security) = (self.address(node), self.security(OPERATOR));
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.current_dir(&self.dir).args(["status", "--of", &of, "-o", "json"]).args(security);
        serde_json::from_slice(&command.stdin(Stdio::null()).output().unwrap().stdout).ok()
    }

    /// Until it says of itself what is wanted.
    #[track_caller]
    pub fn until(&self, node: usize, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let status = self.status(node);
            if let Some(status) = status.clone().filter(&is_wanted) {
                return status;
            }
            assert!(begin.elapsed() < LONG, "{}: {what}: {status:?}\n{}", NAMES[node], self.describe());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub fn until_follows(&self, node: usize) {
        self.until(node, "to follow", |status| status["state"] == "follows");
    }

    /// The one to promote: who has most, of those that can be heard.
    fn most_advanced(&self, heard: &[usize]) -> usize {
        let at = |node: usize| {
            let status = self.until(node, "to answer", |_| true);
            ["tail_epoch", "durable", "end"].map(|name| position(&status, name))
        };
        heard.iter().copied().max_by_key(|&node| at(node)).unwrap()
    }

    /// Stops the replica that has most and makes it the primary, once the others that can be heard have promised. One that turns
    /// out to have more, because something was still on its way to it, is the one.
    pub fn promote_one(&mut self, heard: &[usize]) -> (usize, Value) {
        let begin = Instant::now();
        loop {
            let node = self.most_advanced(heard);
            let peers: Vec<usize> = heard.iter().copied().filter(|peer| *peer != node).collect();
            match self.promote(node, &peers) {
                Ok(promoted) => return (node, promoted),
                Err(said) => {
                    assert!(begin.elapsed() < LONG && said.contains("has more of the log"), "{said}");
                    self.follow(node);
                }
            }
        }
    }

    /// What the others lack of the log is kept for them.
    fn promote(&mut self, node: usize, peers: &[usize]) -> Result<Value, String> {
        self.stop(node);
        let mut args = vec!["promote", NAMES[node], "--name", NAMES[node], "-o", "json"];
        let peers: Vec<String> = peers.iter().map(|&peer| self.address(peer)).collect();
        peers.iter().for_each(|peer| args.extend(["--peer", peer]));
        self.others(node).into_iter().for_each(|other| args.extend(["--slot", NAMES[other]]));
        let output = self.run_securely(node, &args);
        if !output.status.success() {
            return Err(format!("{args:?}: {output:?}\n{}", self.errors()));
        }
        let promoted = serde_json::from_slice(&output.stdout).unwrap();
        self.serve(node);
        Ok(promoted)
    }

    /// Takes what was the primary back to where it and the new one part; what it said, if it cannot.
    pub fn rewind(&self, node: usize, to: usize) -> Result<Value, Output> {
        let (address, begin) = (self.address(to), Instant::now());
        loop {
            let args = ["rewind", NAMES[node], "--to", &address, "--name", NAMES[node], "-o", "json"];
            let output = self.run_securely(node, &args);
            if output.status.success() {
                return Ok(serde_json::from_slice(&output.stdout).unwrap());
            }
            // The new primary may not listen yet.
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if begin.elapsed() > LONG || !said.contains("does not answer") {
                return Err(output);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self, node: usize) {
        let mut child = self.daemons[node].take().unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself: {}", self.errors());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// In good order.
    pub fn stop(&mut self, node: usize) {
        let mut child = self.daemons[node].take().unwrap();
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.errors());
    }

    /// Waits until a process has ended by itself: its exit code.
    #[track_caller]
    pub fn ended(&mut self, node: usize) -> Option<i32> {
        let mut child = self.daemons[node].take().unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < LONG, "{} goes on: {}", NAMES[node], self.errors());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
    }

    /// What everybody says of themselves, and what was said.
    pub fn describe(&self) -> String {
        let say = |node: usize| match self.status(node) {
            Some(status) => format!("{}: {status}\n", NAMES[node]),
            None => format!("{}: no answer\n", NAMES[node]),
        };
        (0..self.places.len()).map(say).collect::<String>() + &self.errors()
    }

    /// How often something was said.
    pub fn said(&self, what: &str) -> usize {
        self.errors().matches(what).count()
    }

    /// The keys of a store that nobody has open.
    pub fn keys(&self, node: usize) -> BTreeSet<String> {
        let rows = self.succeed(node, &["scan", NAMES[node], "-k", "rows", "--keys-only"]);
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

pub fn position(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap()
}
