//! Another store takes the place of a primary of its own process, and that one comes back.

use super::certificates::Authority;
use super::node::Node;
use super::primary::{lead, put, serve, wait, write_credentials, write_image};
use super::{ADDRESSED, BASE, Figures, builder};
use seawall_benches::{fresh_dir, remove};
use seawall_engine::{Ack, SlotOptions};
use seawall_replication::message::Name;
use seawall_replication::net::{Credentials, Remote, RemoteOptions, Security};
use seawall_replication::node::{Follower, FollowerOptions};
use seawall_replication::ship::replica::{Settings, State};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROW: [u8; 1000] = [0x5a; 1000];
const ROWS_AT_ONCE: u64 = 1000;
const LONG: Duration = Duration::from_secs(60);

/// A store of so many MiB is followed; its replica is promoted under load, both go on by themselves for so long, the old one's
/// process is killed, and comes back.
pub(crate) fn measure(mib: u64, diverge: Duration, found: &mut Figures) {
    let dir = fresh_dir(BASE, "shipping-failover");
    let (old, copy) = (dir.join("old"), dir.join("copy"));
    fill(&old, &copy, mib);
    let old_path = old.to_string_lossy();
    let mut primary = Node::start(&["primary", &old_path]);
    let address = primary.line();

    let db = builder(&copy).replica(true).open().expect("a replica's store");
    let read = |ending: &str| std::fs::read(dir.join(format!("one.{ending}"))).expect("credentials");
    let credentials = Credentials { certificate: read("pem"), key: read("key"), authority: read("ca") };
    let options = RemoteOptions {
        addresses: vec![address],
        name: ADDRESSED.to_owned(),
        security: Security::MutualTls(credentials),
    };
    let remote = Arc::new(Remote::new(&options).expect("an address"));
    let name = Name::new("one").expect("a name");
    let settings = Settings { slot: Some(name.clone()), ..Settings::new(name) };
    let follower = Follower::run(&db.shipping(), remote, FollowerOptions::new(settings)).expect("a follower");
    assert!(follower.wait_state(|state| *state == State::Following, LONG), "{follower:?}");
    primary.tell("load");
    std::thread::sleep(Duration::from_secs(5));

    // The decision.
    let begin = Instant::now();
    let epoch = db.shipping().wal().timeline().promised + 2;
    follower.stop();
    let stopped = begin.elapsed();
    db.shipping().promote(epoch).expect("promoted");
    let promoted = begin.elapsed();
    let rows = db.open_keyspace("rows").expect("a catalogue").expect("a keyspace");
    put(&db, &rows, Ack::Local, u64::MAX);
    let committed = begin.elapsed();
    found.add("promotion to first commit, ms", committed.as_secs_f64() * 1e3);
    found.add("of it: the follower stops, ms", stopped.as_secs_f64() * 1e3);
    found.add("of it: promotion, ms", (promoted - stopped).as_secs_f64() * 1e3);
    drop(follower);

    let authority = Authority::new();
    write_credentials(&authority, "two", &dir);
    let leader = lead(&db, None);
    let server = serve(Security::MutualTls(authority.issue(ADDRESSED)), &leader);
    let until = begin + diverge;
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        put(&db, &rows, Ack::Local, number);
        std::thread::sleep(Duration::from_millis(1));
    }
    // Without a word.
    drop(primary);
    let begin = Instant::now();
    let address = server.address().to_string();
    let mut rejoined = Node::start(&["rejoin", &old_path, "two", &address]);
    let end = db.shipping().wal().durable_lsn();
    wait(&leader, "two", |status| status.marks.applied >= end);
    found.add("rejoin by rewind, s", begin.elapsed().as_secs_f64());
    let line = rejoined.line();
    let steps: Vec<f64> = line.split(' ').map(|figure| figure.parse().expect("a figure")).collect();
    let names = ["open to read", "ask where they part", "go back", "open as a replica", "connect"];
    for (name, us) in names.iter().zip(&steps) {
        found.add(&format!("of it: {name}, ms"), us / 1e3);
    }
    found.add("log that was cut off, MiB", steps.last().unwrap_or(&0.0) / f64::from(1 << 20));
    drop(rejoined);
    leader.close();
    drop((server, leader, rows));
    db.close().expect("closed");
    remove(&dir);
}

/// A store of so much, and an image of it.
fn fill(old: &std::path::Path, copy: &std::path::Path, mib: u64) {
    let db = builder(old).open().expect("a store");
    let rows = db.keyspace("rows").expect("a keyspace");
    let count = (mib << 20) / ROW.len() as u64;
    for first in (0..count).step_by(ROWS_AT_ONCE as usize) {
        let mut tx = db.begin();
        for row in first..first + ROWS_AT_ONCE {
            tx.insert(&rows, row.to_be_bytes(), ROW).expect("in");
        }
        tx.commit().expect("committed");
    }
    db.checkpoint().expect("a checkpoint");
    db.create_slot("one", SlotOptions::default()).expect("a slot");
    write_image(&db, copy);
    drop(rows);
    db.close().expect("closed");
}
