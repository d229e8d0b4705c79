//! Two stores in one process, each on its own simulated disk, and a history of commits of which any prefix can be told.

use seawall_engine::{Db, DbBuilder, KeyspaceOptions, Lsn, Readable, Result};
use seawall_wal::segment::Geometry;
use seawall_wal::{ReplicaStart, SimDisk, Wal, create_replica};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const SEGMENT: u64 = 128 << 10;
const GEOMETRY: Geometry = Geometry { segment_bytes: SEGMENT };

pub(crate) type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

pub(crate) fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    let builder = Db::builder("/store").disk(Arc::clone(disk) as _).segment_bytes(SEGMENT);
    builder.background(false).probe(false).ack_timeout(Duration::from_millis(1))
}

pub(crate) fn open_replica(disk: &Arc<SimDisk>) -> Result<Db> {
    builder(disk).replica(true).open()
}

/// A replica of a store that nothing is folded in meanwhile: its data file, and a log that holds nothing yet.
pub(crate) fn new_replica(primary: &Db, disk: &Arc<SimDisk>, seed: u64) -> Arc<SimDisk> {
    let copy = SimDisk::new(seed);
    let timeline = primary.shipping().wal().timeline();
    let start = ReplicaStart {
        store_id: primary.shipping().store_id(),
        segment_bytes: SEGMENT,
        first: primary.stats().checkpoint_lsn,
        covered: primary.stats().checkpoint_lsn,
        epoch: timeline.epoch,
        history: timeline.history,
    };
    let options = Wal::options().segment_bytes(SEGMENT).disk(Arc::clone(&copy) as _).background(false);
    create_replica("/store/log", &options, &start).unwrap();
    copy.write_file("/store/data", &disk.read_file("/store/data").unwrap()).unwrap();
    copy
}

/// Ships up to so many pieces; what is durable on the replica then.
pub(crate) fn ship_some(
    primary: &Db,
    replica: &Db,
    pieces: usize,
    piece_bytes: usize,
) -> seawall_wal::Result<Lsn> {
    let (from, to) = (primary.shipping(), replica.shipping());
    let tail = to.wal().tail();
    let mut place = tail.place;
    // A segment without a frame may have been given a new header since.
    if from.wal().checksum_before(place)? != Some(tail.checksum) && GEOMETRY.offset(place) == 4096 {
        place = GEOMETRY.start(GEOMETRY.number(place));
    }
    let mut shipper = from.wal().ship(place)?;
    for _ in 0..pieces {
        let Some(piece) = shipper.next_piece(piece_bytes)? else { break };
        to.wal().accept(&piece)?;
    }
    to.wal().sync_replica()
}

/// Ships and applies all that is durable.
pub(crate) fn ship(primary: &Db, replica: &Db) -> Result<Lsn> {
    ship_some(primary, replica, usize::MAX, 1 << 20)?;
    replica.shipping().apply()
}

/// And shows what the primary shows.
pub(crate) fn follow(primary: &Db, replica: &Db) {
    ship(primary, replica).unwrap();
    replica.shipping().set_visible_limit(primary.shipping().visible());
}

fn row(n: u64) -> (Vec<u8>, Vec<u8>) {
    (format!("k{:02}", n % 13).into_bytes(), format!("v{n}").repeat(1 + n as usize % 40).into_bytes())
}

/// What the first `n` commits come to.
pub(crate) fn model(n: u64) -> Contents {
    let mut all = Contents::new();
    if n > 0 {
        all.insert("rows".into(), BTreeMap::new());
    }
    for n in 1..=n {
        let rows = all.get_mut("rows").unwrap();
        if n % 11 == 0 {
            rows.retain(|key, _| !(&b"k03"[..]..&b"k09"[..]).contains(&&key[..]));
        }
        let (key, value) = row(n);
        rows.insert(key, value);
        rows.insert(b"n".to_vec(), n.to_string().into_bytes());
        rows.insert(b"sum".to_vec(), (n as i64).to_le_bytes().to_vec());
        if n % 6 == 0 {
            all.insert(format!("x{n}"), BTreeMap::from([(b"a".to_vec(), n.to_string().into_bytes())]));
        }
        if n % 6 == 4 {
            all.remove(&format!("x{}", n.wrapping_sub(4)));
        }
    }
    all
}

/// Makes the `n`th commit.
pub(crate) fn commit(db: &Db, n: u64) -> Result<Lsn> {
    let mut tx = db.begin();
    let rows = match db.open_keyspace("rows")? {
        Some(rows) => rows,
        None => tx.create_keyspace("rows", KeyspaceOptions::default())?,
    };
    if n.is_multiple_of(11) {
        tx.remove_range(&rows, "k03".."k09")?;
    }
    let (key, value) = row(n);
    tx.insert(&rows, key, value)?;
    tx.insert(&rows, "n", n.to_string())?;
    tx.add_i64(&rows, "sum", 1)?;
    if n.is_multiple_of(6) {
        let made = tx.create_keyspace(&format!("x{n}"), KeyspaceOptions::default())?;
        tx.insert(&made, "a", n.to_string())?;
    }
    if n % 6 == 4 && n > 4 {
        let old = db.open_keyspace(&format!("x{}", n - 4))?.unwrap();
        tx.drop_keyspace(&old)?;
    }
    tx.commit()
}

pub(crate) fn contents(db: &Db) -> Contents {
    let names = db.keyspace_names().unwrap();
    let of = |name: &String| {
        let ks = db.open_keyspace(name).unwrap().unwrap();
        let rows =
            db.snapshot().range(&ks, ..).map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap());
        rows.collect()
    };
    names.iter().map(|name| (name.clone(), of(name))).collect()
}

/// How many commits a store shows; it must show nothing else.
pub(crate) fn shown(db: &Db, what: &str) -> u64 {
    let found = contents(db);
    let n = found.get("rows").and_then(|rows| rows.get(&b"n"[..]));
    let n = n.map_or(0, |n| std::str::from_utf8(n).unwrap().parse().unwrap());
    assert_eq!(found, model(n), "{what}: not exactly the first {n} commits");
    n
}
