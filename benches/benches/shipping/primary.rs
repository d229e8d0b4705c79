//! A store whose log is shipped over TLS, and stores to ship it to.

use super::certificates::Authority;
use super::{BASE, VALUE, builder};
use seawall_benches::{fresh_dir, remove};
use seawall_engine::{Ack, Db, ImageWriter, Keyspace, SlotOptions, TxOptions};
use seawall_replication::net::{Roles, Security, Server, ServerOptions};
use seawall_replication::node::{FollowerStatus, Keeper, Leader, LeaderOptions};
use seawall_wal::{Lsn, OsRuntime};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whoever is measured has made a step by then, or never does.
const LONG: Duration = Duration::from_secs(120);
pub(crate) const REPLICAS: [&str; 2] = ["one", "two"];

pub(crate) fn roles() -> Roles {
    let name = |of: &&str| format!("{of}.test");
    Roles { replicas: REPLICAS.iter().map(name).collect(), operators: Vec::new() }
}

/// What a process of its own needs to be let in: files of its certificate, its key, and the authority's.
pub(crate) fn write_credentials(authority: &Authority, name: &str, dir: &Path) {
    let credentials = authority.issue(&format!("{name}.test"));
    let parts = [("pem", credentials.certificate), ("key", credentials.key), ("ca", credentials.authority)];
    for (ending, bytes) in parts {
        std::fs::write(dir.join(format!("{name}.{ending}")), bytes).expect("a file of credentials");
    }
}

pub(crate) fn serve(security: Security, leader: &Leader) -> Server {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServerOptions::new(loopback, security, roles());
    Server::bind(options, Arc::new(leader.clone())).expect("a server")
}

pub(crate) fn lead(db: &Db, policy: Option<&str>) -> Leader {
    let mut options = LeaderOptions::default();
    options.policy = policy.map(|policy| policy.parse().expect("a policy"));
    options.keeping = Some(Arc::new(Keeper::new(db, SlotOptions::default(), OsRuntime::new())));
    Leader::serve(&db.shipping(), options).expect("a leader")
}

pub(crate) fn put(db: &Db, rows: &Keyspace, ack: Ack, number: u64) -> bool {
    let mut tx = db.begin_with(TxOptions { ack: Some(ack), ..TxOptions::default() });
    tx.insert(rows, number.to_be_bytes(), VALUE).expect("in");
    tx.commit().expect("committed");
    true
}

/// What a new replica begins with, in a directory.
pub(crate) fn write_image(db: &Db, dir: &Path) {
    let image = db.image().expect("an image");
    let mut writer = ImageWriter::begin(&builder(dir), image.info()).expect("begun");
    while let Some(piece) = image.piece(writer.offset(), 1 << 20).expect("a piece") {
        writer.write(&piece).expect("written");
    }
    let timeline = db.shipping().wal().timeline();
    writer.finish(timeline.epoch, &timeline.history).expect("a replica's store");
}

/// A store, and what serves it.
pub(crate) struct Primary {
    pub(crate) dir: PathBuf,
    pub(crate) rows: Keyspace,
    pub(crate) db: Db,
    pub(crate) leader: Leader,
    pub(crate) server: Server,
}

impl Primary {
    pub(crate) fn new(policy: Option<&str>) -> Primary {
        let dir = fresh_dir(BASE, "shipping");
        let db = builder(&dir.join("primary")).open().expect("a store");
        let rows = db.keyspace("rows").expect("a keyspace");
        db.checkpoint().expect("a checkpoint");
        let authority = Authority::new();
        let leader = lead(&db, policy);
        let server = serve(Security::MutualTls(authority.issue("primary.test")), &leader);
        REPLICAS.iter().for_each(|name| write_credentials(&authority, name, &dir));
        Primary { dir, rows, db, leader, server }
    }

    /// A store that is to follow under this name: the log is kept for it.
    pub(crate) fn replica(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        self.db.create_slot(name, SlotOptions::default()).expect("a slot");
        write_image(&self.db, &dir);
        dir
    }

    pub(crate) fn durable(&self) -> Lsn {
        self.db.shipping().wal().durable_lsn()
    }

    /// Until one of this name has come so far.
    pub(crate) fn wait(&self, name: &str, is_there: impl Fn(&FollowerStatus) -> bool) {
        wait(&self.leader, name, is_there);
    }

    /// Until nobody follows.
    pub(crate) fn wait_gone(&self) {
        while self.leader.followers().iter().any(|of| of.is_connected) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn close(self) {
        let Primary { dir, db, rows, leader, server, .. } = self;
        leader.close();
        drop((server, leader, rows));
        db.close().expect("closed");
        remove(&dir);
    }
}

pub(crate) fn wait(leader: &Leader, name: &str, is_there: impl Fn(&FollowerStatus) -> bool) {
    let begin = Instant::now();
    let found = || leader.followers().into_iter().find(|of| of.name == name);
    while !found().is_some_and(|status| status.is_connected && is_there(&status)) {
        assert!(begin.elapsed() < LONG, "{name} does not come along: {:?}", found());
        std::thread::sleep(Duration::from_micros(500));
    }
}
