//! Nodes in processes of their own: this program, called with what it is to be. Each ends when its standard input does.
//!
//! ```text
//! node replica DIR NAME ADDRESS DELAY SLOT     opens a replica's store, follows when told to
//! node sink DIR NAME ADDRESS                   follows as such a replica would, and has no disk: everything is taken at once
//! node rejoin DIR NAME ADDRESS                 goes back to where its log and that of the new primary part, then follows
//! node primary DIR                             serves its store, and commits without pause once told to
//! ```

use super::certificates::Authority;
use super::primary::{lead, put, serve, write_credentials};
use super::{ADDRESSED, builder};
use seawall_engine::{Ack, Db, rewind};
use seawall_replication::message::Why;
use seawall_replication::message::{Message, Name};
use seawall_replication::net::{Credentials, Remote, RemoteOptions, Security};
use seawall_replication::node::{Dialler, Ear, Follower, FollowerOptions, greet, hello, own};
use seawall_replication::ship::Replica;
use seawall_replication::ship::replica::{Effect, Input, Settings, State};
use seawall_wal::OsRuntime;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Committers of a primary in a process of its own.
const COMMITTERS: u64 = 8;
const LONG: Duration = Duration::from_secs(60);

/// A process of a node's. Dropping it kills it.
pub(crate) struct Node {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Started, and ready.
    pub(crate) fn start(args: &[&str]) -> Node {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        let mut child = command
            .arg("node")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output")).lines();
        Node { child, input, output }
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        self.output.next().expect("a node that is still there").expect("a line")
    }

    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").expect("a node that is still there");
    }

    /// Its process.
    pub(crate) fn process(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: impl std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().expect("somebody who listens");
}

/// What a process does that was started as a node.
pub(crate) fn run(args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args.as_slice() {
        ["replica", dir, name, address, delay_us, slot] => {
            let settings = Settings {
                delay_us: delay_us.parse().expect("microseconds"),
                slot: (slot == "slot").then(|| named(name)),
                ..Settings::new(named(name))
            };
            replica(Path::new(dir), name, address, settings);
        }
        ["sink", dir, name, address] => sink(Path::new(dir), name, address),
        ["rejoin", dir, name, address] => rejoin(Path::new(dir), name, address),
        ["primary", dir] => primary(Path::new(dir)),
        _ => panic!("no node: {args:?}"),
    }
}

fn named(name: &str) -> Name {
    Name::new(name).expect("a name")
}

/// Until whoever has started this process ends, or ends it.
fn told() -> Option<String> {
    std::io::stdin().lines().next().and_then(Result::ok)
}

fn remote(dir: &Path, name: &str, address: &str) -> Arc<Remote> {
    let beside = dir.parent().expect("a directory");
    let read = |ending: &str| std::fs::read(beside.join(format!("{name}.{ending}"))).expect("credentials");
    let credentials = Credentials { certificate: read("pem"), key: read("key"), authority: read("ca") };
    let options = RemoteOptions {
        addresses: vec![address.to_owned()],
        name: ADDRESSED.to_owned(),
        security: Security::MutualTls(credentials),
    };
    Arc::new(Remote::new(&options).expect("an address"))
}

fn replica(dir: &Path, name: &str, address: &str, settings: Settings) {
    let db = builder(dir).replica(true).open().expect("a replica's store");
    let to = remote(dir, name, address);
    say("ready");
    if told().is_none() {
        return;
    }
    let follower = Follower::run(&db.shipping(), to, FollowerOptions::new(settings)).expect("a follower");
    while told().is_some() {
        say(format!("{:?} {:?}", follower.state(), follower.last_error()));
    }
}

/// What the sink's machine waits for.
enum Event {
    Input(Input),
    Over,
}

struct Hearing(u64, Sender<Event>);

impl Ear for Hearing {
    fn hear(&self, message: Message) {
        // Nobody hears it who is gone.
        let _ = self.1.send(Event::Input(Input::Message { session: self.0, message }));
    }

    fn lost(&self) {
        let _ = self.1.send(Event::Over);
    }
}

fn sink(dir: &Path, name: &str, address: &str) {
    let db = builder(dir).replica(true).open().expect("a replica's store");
    let (own, store_id) = (own(&db.shipping()), db.shipping().store_id());
    let to = remote(dir, name, address);
    say("ready");
    if told().is_none() {
        return;
    }
    let begin = Instant::now();
    let now = || begin.elapsed().as_micros() as u64;
    let mut machine = Replica::new(Settings::new(named(name)), store_id, own.clone(), now());
    let (sender, events) = channel();
    let mut wire = None;
    let mut taken = own.tail.place;
    let mut input = Input::Tick;
    loop {
        for effect in machine.step(now(), input) {
            let answer = match effect {
                Effect::Dial { session, elsewhere } => {
                    let ear = Arc::new(Hearing(session, sender.clone()));
                    wire = Some(to.dial(ear, elsewhere).expect("a connection"));
                    Input::Connected { session, own: own.clone() }
                }
                Effect::Send(message) => {
                    wire.as_ref().expect("a connection").send(message);
                    continue;
                }
                Effect::Promise { .. } => Input::Promised,
                Effect::Accept(piece) => {
                    taken = piece.end();
                    Input::Accepted { received: taken }
                }
                Effect::Sync => Input::Synced { durable: taken },
                Effect::Apply { to } => Input::Applied { applied: to, visible: to },
                Effect::Show { .. } => continue,
                other => panic!("{other:?}"),
            };
            sender.send(Event::Input(answer)).expect("this thread listens");
        }
        let until = machine.wake_at().unwrap_or(u64::MAX);
        let left = Duration::from_micros(until.saturating_sub(now()).min(1_000_000));
        input = match events.recv_timeout(left) {
            Ok(Event::Input(input)) => input,
            Err(RecvTimeoutError::Timeout) => Input::Tick,
            Ok(Event::Over) | Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

/// Says how long each step took, in microseconds: to find where the logs part, to go back, to open.
fn rejoin(dir: &Path, name: &str, address: &str) {
    let begin = Instant::now();
    let took = || begin.elapsed().as_micros();
    let to = remote(dir, name, address);
    let db = builder(dir).read_only(true).open().expect("a store");
    let shipping = db.shipping();
    let tail = shipping.wal().tail();
    let greeting = hello(&shipping, named(name));
    drop(shipping);
    db.close().expect("closed");
    let read = took();
    let answer = greet(&*to, greeting, LONG, &(OsRuntime::new() as _)).expect("an answer");
    let (fork, history) = match answer {
        Message::Refuse(Why::Diverged { fork, history }) => (fork, history),
        other => panic!("it has not parted from the new primary at {tail:?}: {other:?}"),
    };
    let answered = took();
    let rewound = rewind(&builder(dir), fork, history.epoch(), &(&history).into()).expect("gone back");
    let back = took();
    let db = builder(dir).replica(true).open().expect("a replica's store");
    let opened = took();
    let settings = Settings { slot: Some(named(name)), ..Settings::new(named(name)) };
    let follower = Follower::run(&db.shipping(), to, FollowerOptions::new(settings)).expect("a follower");
    assert!(follower.wait_state(|state| *state == State::Following, LONG), "{follower:?}");
    let following = took();
    let cut = rewound.cut_bytes;
    say(format!(
        "{read} {} {} {} {} {cut}",
        answered - read,
        back - answered,
        opened - back,
        following - opened
    ));
    while told().is_some() {}
}

fn primary(dir: &Path) {
    let db: Db = builder(dir).open().expect("a store");
    let rows = db.keyspace("rows").expect("a keyspace");
    let authority = Authority::new();
    let beside: PathBuf = dir.parent().expect("a directory").to_owned();
    for name in ["one", "primary"] {
        write_credentials(&authority, name, &beside);
    }
    let leader = lead(&db, None);
    let server = serve(Security::MutualTls(authority.issue(ADDRESSED)), &leader);
    say(server.address());
    if told().is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for committer in 0..COMMITTERS {
            let (db, rows) = (&db, &rows);
            // New rows, and old ones again.
            scope.spawn(move || {
                for number in 0_u64.. {
                    put(db, rows, Ack::Local, (number * COMMITTERS + committer) * 7 % 2_000_000);
                }
            });
        }
        // It is killed.
    });
}
