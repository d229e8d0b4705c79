//! Stands between a participant and its server, and does something at a moment of one's choice: before a statement gets
//! there, or before its answer gets back.

use super::server::Server;
use postgres::Config;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The server has not got it.
    Before,
    /// The server has answered it.
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Pass,
    /// The connection is cut, and what was held is gone.
    Cut,
}

struct Rule {
    statement: &'static str,
    when: When,
    act: Box<dyn FnOnce() + Send>,
    then: Then,
}

#[derive(Default)]
struct Shared {
    rule: Mutex<Option<Rule>>,
    /// Everything that was said to the server.
    said: Mutex<Vec<u8>>,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn new(server: &Server) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let (for_thread, socket) = (shared.clone(), server.socket_file());
        // Until the test's process ends.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                connect(client, &socket, &for_thread);
            }
        });
        Proxy { port, shared }
    }

    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.user("app").dbname("app").host("127.0.0.1").port(self.port);
        config
    }

    /// Once, at the next statement that has this in it.
    pub fn at(&self, statement: &'static str, when: When, then: Then, act: impl FnOnce() + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Rule { statement, when, act: Box::new(act), then });
    }

    /// Whether it has not happened yet.
    pub fn is_armed(&self) -> bool {
        self.shared.rule.lock().unwrap().is_some()
    }

    /// How often a statement with this in it was said.
    pub fn count(&self, statement: &str) -> usize {
        let said = self.shared.said.lock().unwrap();
        said.windows(statement.len()).filter(|window| *window == statement.as_bytes()).count()
    }
}

fn connect(client: TcpStream, socket: &PathBuf, shared: &Arc<Shared>) {
    // While the server is away, so is this.
    let Ok(server) = UnixStream::connect(socket) else { return };
    client.set_nodelay(true).unwrap();
    // The rule that waits for an answer on this connection.
    let waiting: Arc<Mutex<Option<Rule>>> = Arc::default();
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (for_thread, for_answer) = (shared.clone(), waiting.clone());
    std::thread::spawn(move || {
        let close = {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            move || drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)))
        };
        pump(from, to, |bytes| {
            for_thread.said.lock().unwrap().extend_from_slice(bytes);
            let mut rule = for_thread.rule.lock().unwrap();
            let is_meant = |rule: &mut Rule| {
                bytes.windows(rule.statement.len()).any(|window| window == rule.statement.as_bytes())
            };
            let Some(met) = rule.take_if(is_meant) else { return Then::Pass };
            drop(rule);
            if met.when == When::After {
                *for_answer.lock().unwrap() = Some(met);
                return Then::Pass;
            }
            (met.act)();
            met.then
        });
        close();
    });
    std::thread::spawn(move || {
        let close = {
            let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            move || drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)))
        };
        pump(server, client, |_| {
            let Some(met) = waiting.lock().unwrap().take() else { return Then::Pass };
            (met.act)();
            met.then
        });
        close();
    });
}

fn pump(mut from: impl Read, mut to: impl Write, mut see: impl FnMut(&[u8]) -> Then) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if see(&buffer[..count]) == Then::Cut || to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
