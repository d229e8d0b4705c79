//! Stores on simulated disks, and replicas of them.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use seawall_engine::{Ack, Db, Result};
use seawall_replication::message::Name;
use seawall_replication::node::{FollowerOptions, Leader, LeaderOptions};
use seawall_replication::ship::{primary, replica};
use seawall_wal::{Lsn, ReplicaStart, SimDisk, Timeline, Wal, create_replica};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub const LONG: Duration = Duration::from_secs(10);
pub const SEGMENT: u64 = 256 << 10;

pub struct Store {
    pub disk: Arc<SimDisk>,
    pub db: Db,
    ack: Ack,
}

impl Store {
    pub fn open(disk: Arc<SimDisk>, is_replica: bool, ack: Ack) -> Store {
        let builder = Db::builder("/store").disk(disk.clone()).segment_bytes(SEGMENT).probe(false);
        let builder = builder.ack(ack).ack_timeout(Duration::from_millis(300)).replica(is_replica);
        Store { disk, db: builder.open().unwrap(), ack }
    }

    /// Opened again, without threads: nothing is written that nobody asks for, such as an idle log's seal.
    pub fn quietly(self) -> Store {
        let Store { disk, db, ack } = self;
        db.close().unwrap();
        let builder = Db::builder("/store").disk(disk.clone()).segment_bytes(SEGMENT).probe(false);
        Store { disk, db: builder.ack(ack).background(false).open().unwrap(), ack }
    }

    /// One with a keyspace, checkpointed: a replica can be made of it.
    pub fn primary(seed: u64, ack: Ack) -> Store {
        let disk = SimDisk::new(seed);
        let store = Store::open(disk.clone(), false, Ack::Local);
        store.db.keyspace("rows").unwrap();
        store.db.checkpoint().unwrap();
        drop(store);
        Store::open(disk, false, ack)
    }

    pub fn put(&self, key: &str) -> Result<Lsn> {
        self.db.open_keyspace("rows")?.unwrap().insert(key, key.repeat(20))
    }

    pub fn write(&self, rows: Range<u32>) {
        for row in rows {
            self.put(&format!("row {row:06}")).unwrap();
        }
    }

    pub fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let rows = self.db.open_keyspace("rows").unwrap().unwrap();
        rows.range(..)
            .map(|entry| entry.unwrap())
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    pub fn reopened(self, is_replica: bool) -> Store {
        let Store { disk, db, ack } = self;
        db.close().unwrap();
        Store::open(disk, is_replica, ack)
    }
}

/// A replica of a store that was only just made: its data file, and a log that holds nothing yet.
pub fn replica_of(primary: &Store, seed: u64) -> Store {
    let disk = SimDisk::new(seed);
    let shipping = primary.db.shipping();
    let timeline = shipping.wal().timeline();
    let start = ReplicaStart {
        store_id: shipping.store_id(),
        segment_bytes: SEGMENT,
        first: primary.db.stats().checkpoint_lsn,
        covered: primary.db.stats().checkpoint_lsn,
        epoch: timeline.epoch,
        history: timeline.history,
    };
    let options = Wal::options().segment_bytes(SEGMENT).disk(disk.clone()).background(false);
    create_replica("/store/log", &options, &start).unwrap();
    disk.write_file("/store/data", &primary.disk.read_file("/store/data").unwrap()).unwrap();
    Store::open(disk, true, Ack::Local)
}

/// Makes a closed store's log a replica's, and cuts nothing.
pub fn rewind_to_end(disk: &Arc<SimDisk>, end: Lsn, timeline: &Timeline) {
    let options = Wal::options().segment_bytes(SEGMENT).disk(disk.clone()).background(false);
    let none = seawall_wal::History::default();
    seawall_wal::rewind("/store/log", &options, end, timeline.epoch.min(1), &none).unwrap();
}

pub fn leader(store: &Store, policy: Option<&str>) -> Leader {
    let mut options = LeaderOptions::default();
    options.policy = policy.map(|policy| policy.parse().unwrap());
    options.settings =
        primary::Settings { heartbeat_us: 20_000, timeout_us: 400_000, ..primary::Settings::default() };
    Leader::serve(&store.db.shipping(), options).unwrap()
}

pub fn options(name: &str) -> FollowerOptions {
    let name = Name::new(name).unwrap();
    FollowerOptions::new(replica::Settings {
        heartbeat_us: 20_000,
        timeout_us: 400_000,
        pause_us: (5_000, 50_000),
        ..replica::Settings::new(name)
    })
}
