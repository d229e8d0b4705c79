//! Two stores and a PostgreSQL database, and a coordinator over them.

use super::proxy::Proxy;
use super::server::Server;
use seawall_engine::{Db, Keyspace, Readable};
use seawall_txn::postgres::{Limits, Postgres};
use seawall_txn::{Coordinator, CoordinatorBuilder, Error, NodeId, Store, Timing, TxnId};
use seawall_wal::SimDisk;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const BANK: NodeId = NodeId(9);

pub struct Node {
    pub disk: Arc<SimDisk>,
    pub db: Db,
    pub rows: Keyspace,
    pub store: Arc<Store>,
}

pub fn node_on(id: u64, disk: Arc<SimDisk>) -> Node {
    let db = Db::builder("/dir/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(64 << 20)
        .open()
        .unwrap();
    let rows = db.keyspace("rows").unwrap();
    let store = Store::new(NodeId(id), &db).unwrap();
    Node { disk, db, rows, store }
}

impl Node {
    pub fn has(&self, key: &str) -> bool {
        self.db.snapshot().get(&self.rows, key).unwrap().is_some()
    }
}

pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.answer = Duration::from_secs(20);
    limits
}

pub fn timing() -> Timing {
    Timing { retry_us: 2_000, retry_doublings_max: 6, deadline_us: 30_000_000 }
}

/// Until it holds, not for ever.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct World {
    pub coordinator: Coordinator,
    pub bank: Arc<Postgres>,
    pub nodes: Vec<Node>,
    pub notices: Arc<Mutex<Vec<String>>>,
    pub proxy: Proxy,
    pub server: Server,
}

impl World {
    /// None if PostgreSQL is not there.
    pub fn start(name: &str) -> Option<World> {
        World::start_by(name, |builder| builder)
    }

    pub fn start_by(name: &str, f: impl FnOnce(CoordinatorBuilder) -> CoordinatorBuilder) -> Option<World> {
        World::start_with(name, limits(), f)
    }

    pub fn start_with(
        name: &str,
        limits: Limits,
        f: impl FnOnce(CoordinatorBuilder) -> CoordinatorBuilder,
    ) -> Option<World> {
        let server = Server::start(name)?;
        let mut admin = server.config().connect(postgres::NoTls).unwrap();
        admin.batch_execute("CREATE TABLE moves (key text PRIMARY KEY, amount bigint NOT NULL)").unwrap();
        let proxy = Proxy::new(&server);
        let nodes = (1..=3).map(|id| node_on(id, SimDisk::new(id))).collect();
        Some(World::over(server, proxy, limits, nodes, f))
    }

    fn over(
        server: Server,
        proxy: Proxy,
        limits: Limits,
        nodes: Vec<Node>,
        f: impl FnOnce(CoordinatorBuilder) -> CoordinatorBuilder,
    ) -> World {
        let notices = Arc::<Mutex<Vec<String>>>::default();
        let listened = notices.clone();
        let builder = Coordinator::builder(&nodes[0].store)
            .timing(timing())
            .on_notice(move |notice| listened.lock().unwrap().push(notice.to_string()));
        let coordinator = f(builder).open().unwrap();
        nodes[1..].iter().for_each(|node| coordinator.attach(&node.store).unwrap());
        let bank = Postgres::builder(BANK).limits(limits).connect(&proxy.config()).unwrap();
        bank.attach(&coordinator).unwrap();
        World { coordinator, bank, nodes, notices, proxy, server }
    }

    /// The coordinator and the stores have died, their disks being these now, and come back.
    pub fn reborn(
        self,
        disks: Vec<Arc<SimDisk>>,
        f: impl FnOnce(CoordinatorBuilder) -> CoordinatorBuilder,
    ) -> World {
        let World { coordinator, bank, nodes, proxy, server, .. } = self;
        coordinator.close();
        drop((coordinator, bank, nodes));
        let nodes = disks.into_iter().zip(1..).map(|(disk, id)| node_on(id, disk)).collect();
        World::over(server, proxy, limits(), nodes, f)
    }

    /// A row in the bank, and one in each of these stores.
    pub fn put(&self, key: &str, stores: &[usize]) -> Result<TxnId, Error> {
        let mut global = self.coordinator.begin();
        self.bank.branch(&mut global)?.execute("INSERT INTO moves VALUES ($1, 1)", &[&key])?;
        for &index in stores {
            let node = &self.nodes[index];
            global.branch(&node.store)?.insert(&node.rows, key, "1")?;
        }
        global.commit()
    }

    pub fn has(&self, key: &str) -> bool {
        let mut client = self.server.config().connect(postgres::NoTls).unwrap();
        client.query_opt("SELECT 1 FROM moves WHERE key = $1", &[&key]).unwrap().is_some()
    }

    /// Whether it is there: in the bank and these stores alike.
    pub fn agreed(&self, key: &str, stores: &[usize]) -> bool {
        let there = self.has(key);
        for &index in stores {
            assert_eq!(self.nodes[index].has(key), there, "{key} is half there");
        }
        there
    }

    /// Everything has ended and is forgotten.
    pub fn settle(&self) {
        eventually("everything is forgotten", || self.coordinator.is_idle());
        assert_eq!(self.server.prepared(), [""; 0]);
        assert!(self.nodes.iter().all(|node| node.db.prepared().next().is_none()));
    }

    pub fn told(&self, what: &str) -> bool {
        self.notices.lock().unwrap().iter().any(|notice| notice.contains(what))
    }
}
