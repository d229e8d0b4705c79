//! Nodes as processes, and what they say by HTTP.

use super::client::put;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// Ports of loopback that nobody has at the moment.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

pub(super) fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A directory with stores, and the nodes that have them open.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    nodes: BTreeMap<String, Child>,
}

impl Place {
    pub(super) fn new(name: &str) -> Place {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seeing-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Place { dir, nodes: BTreeMap::new() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
        command.env("SEAWALL_PROBE", "0").current_dir(&self.dir).args(args).stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    pub(super) fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}\n{}", self.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub(super) fn json(&self, args: &[&str]) -> Value {
        let text = self.succeed(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(super) fn start(&mut self, name: &str, args: &[&str]) {
        let path = self.dir.join("errors");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        let child = self.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.nodes.insert(name.to_owned(), child);
    }

    pub(super) fn signal(&self, name: &str, signal: &str) {
        let pid = self.nodes[name].id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// In good order.
    #[track_caller]
    pub(super) fn stop(&mut self, name: &str) {
        self.signal(name, "-TERM");
        let status = self.nodes.remove(name).unwrap().wait().unwrap();
        assert!(status.success(), "{name}: {status}: {}", self.errors());
    }

    /// Until it ends by itself.
    #[track_caller]
    pub(super) fn ended(&mut self, name: &str) -> Option<i32> {
        let mut child = self.nodes.remove(name).unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if begin.elapsed() > LONG {
                child.kill().unwrap();
                panic!("{name} does not end: {}", self.errors());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn kill(&mut self, name: &str) {
        let mut child = self.nodes.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(super) fn errors(&self) -> String {
        std::fs::read_to_string(self.dir.join("errors")).unwrap_or_default()
    }

    #[track_caller]
    pub(super) fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        mut look: impl FnMut() -> T,
        is_it: impl Fn(&T) -> bool,
    ) -> T {
        let begin = Instant::now();
        loop {
            let found = look();
            if is_it(&found) {
                return found;
            }
            assert!(begin.elapsed() < LONG, "{what}: {found:?}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The dumps of flight recorders in a directory, oldest first, each as its lines.
    pub(super) fn dumps(&self, dir: &str) -> Vec<(String, Vec<Value>)> {
        let Ok(entries) = std::fs::read_dir(self.dir.join(dir)) else { return Vec::new() };
        let mut names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        names.sort();
        let lines = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        names.iter().map(|path| (name(path), lines(path))).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in self.nodes.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Rows, each in a transaction of its own, by a node that serves some.
pub(super) fn write(port: u16, rows: std::ops::Range<u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for row in rows {
        let begin = Instant::now();
        while !runtime.block_on(put(&local(port), &format!("row {row}"))) {
            assert!(begin.elapsed() < LONG, "nothing commits");
        }
    }
}

/// Of a request: its status, and the body. None where nobody answers.
pub(super) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    ask(port, format!("GET {path} HTTP/1.1\r\nHost: here\r\nAccept: application/json\r\n\r\n").as_bytes())
}

pub(super) fn ask(port: u16, request: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(local(port)).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().unwrap();
    Some((status, body.to_owned()))
}

/// Prometheus' text: each sample's value by its name and labels.
pub(super) fn metrics(port: u16) -> BTreeMap<String, f64> {
    let Some((200, text)) = get(port, "/metrics") else { return BTreeMap::new() };
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    samples.map(sample).collect()
}

/// A figure of the link to, or of, a replica; none while there is no such link.
pub(super) fn of_link(port: u16, figure: &str, name: &str, direction: &str) -> Option<f64> {
    metrics(port).get(&format!("seawall_link_{figure}{{name=\"{name}\",direction=\"{direction}\"}}")).copied()
}

/// Whether a node is ready, and why it is not.
pub(super) fn ready(port: u16) -> Option<(u16, Vec<String>)> {
    let (status, body) = get(port, "/health/ready")?;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ready"], status == 200, "{body}");
    let reasons = body["reasons"].as_array().unwrap().iter();
    Some((status, reasons.map(|reason| reason.as_str().unwrap().to_owned()).collect()))
}
