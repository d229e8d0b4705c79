//! A primary and two replicas in one process; the primary is lost, a replica takes its place, and the old one comes back:
//! `cargo run --example replicas [DIR]`
//!
//! Each commit waits until one of the two replicas has it on its device. So nothing that was acknowledged is lost with the primary, if
//! whoever promotes hears both of them first, and takes the one that has more.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, and begins in a directory of its own"
)]
use seawall::replication::decide::{Candidate, MostAdvanced, PromotionPolicy};
use seawall::replication::message::Name;
use seawall::replication::node::local::Switch;
use seawall::replication::node::{Follower, FollowerOptions, Keeper, Leader, LeaderOptions};
use seawall::replication::ship::replica::Settings;
use seawall::wal::OsRuntime;
use seawall::{Ack, Db, DbBuilder, ImageWriter, SlotOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What replicas dial: whoever is the primary. Over a network, `replication::net::{Server, Remote}` stand in its place.
type Network = Arc<Switch>;

fn store(dir: &Path) -> DbBuilder {
    Db::builder(dir).ack(Ack::Durable).ack_timeout(Duration::from_millis(500))
}

/// Ships the store's log. It keeps what replicas lack, and commits wait for one of these two.
fn lead(db: &Db, replicas: &str, network: &Network) -> Result<Leader> {
    let limits = SlotOptions { bytes_max: Some(64 << 20), age_max: None };
    let mut options = LeaderOptions::default();
    options.policy = Some(replicas.parse()?);
    options.keeping = Some(Arc::new(Keeper::new(db, limits, OsRuntime::new())));
    let leader = Leader::serve(&db.shipping(), options)?;
    network.set(Some(Arc::new(leader.clone())));
    Ok(leader)
}

fn follow(db: &Db, name: &str, network: &Network) -> Result<Follower> {
    let name = Name::new(name).ok_or("no name for a replica")?;
    Ok(Follower::run(&db.shipping(), network.clone(), FollowerOptions::new(Settings::new(name)))?)
}

/// A new replica: the data file as of a checkpoint, and from there on the log.
fn replica_of(primary: &Db, dir: &Path, name: &str) -> Result<Db> {
    primary.create_slot(name, SlotOptions { bytes_max: Some(64 << 20), age_max: None })?;
    let image = primary.image()?;
    let mut writer = ImageWriter::begin(&store(dir), image.info())?;
    while let Some(piece) = image.piece(writer.offset(), 1 << 20)? {
        writer.write(&piece)?;
    }
    let timeline = primary.shipping().wal().timeline();
    writer.finish(timeline.epoch, &timeline.history)?;
    Ok(store(dir).replica(true).open()?)
}

fn rows(db: &Db) -> Result<usize> {
    let rows = db.open_keyspace("rows")?.ok_or("no keyspace")?;
    Ok(rows.range(..).count())
}

fn main() -> Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("seawall-replicas"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir); // it begins anew each time
    std::fs::create_dir_all(&dir)?;
    let network = Network::default();

    // The primary has its keyspace before anybody follows: who waits for replicas cannot commit without them.
    let a = Db::open(dir.join("a"))?;
    a.keyspace("rows")?;
    a.close()?;
    let a = store(&dir.join("a")).open()?;
    let leader = lead(&a, "ANY 1 (b, c)", &network)?;
    let (b, c) = (replica_of(&a, &dir.join("b"), "b")?, replica_of(&a, &dir.join("c"), "c")?);
    let followers = [follow(&b, "b", &network)?, follow(&c, "c", &network)?];
    let posts = a.keyspace("rows")?;
    for row in 0..500_u32 {
        posts.insert(row.to_be_bytes(), "acknowledged by a replica")?;
    }
    println!("500 rows at the primary, each on the device of b or c as well");

    // It is cut off. What it writes now nobody acknowledges: its clients are told that they cannot know.
    network.set(None);
    network.cut();
    let alone = posts.insert(u32::MAX.to_be_bytes(), "nobody else has it");
    println!("cut off, it says: {}", alone.err().ok_or("a commit that nobody acknowledged")?);

    // First both promise to follow no older primary; only then it is asked who has more.
    let epoch = a.shipping().wal().timeline().epoch + 1;
    let mut heard = Vec::new();
    for (name, db, follower) in [("b", &b, &followers[0]), ("c", &c, &followers[1])] {
        follower.stop();
        db.shipping().fence(epoch)?;
        heard.push(Candidate { name: name.to_owned(), tail: db.shipping().wal().tail(), is_eligible: true });
    }
    let chosen = MostAdvanced::of_quorum(1, 2).choose(&heard).ok_or("too few were heard")?;
    let (new, other, other_name) = if chosen == "b" { (&b, &c, "c") } else { (&c, &b, "b") };
    new.shipping().promote(epoch + 1)?; // above all that was promised
    let _leader = lead(new, &format!("ANY 1 (a, {other_name})"), &network)?;
    let _other = follow(other, other_name, &network)?;
    new.keyspace("rows")?.insert(500_u32.to_be_bytes(), "by the new primary")?;
    println!("{chosen} was promoted, and has {} rows", rows(new)?);

    // The old one comes back: what nobody acknowledged is taken back, and it follows.
    drop((posts, leader));
    a.close()?;
    let timeline = new.shipping().wal().timeline();
    let fork = timeline.history.turns().first().ok_or("no turn of the log")?.start;
    let rewound = seawall::rewind(&store(&dir.join("a")), fork, timeline.epoch, &timeline.history)?;
    let a = store(&dir.join("a")).replica(true).open()?;
    let _back = follow(&a, "a", &network)?;
    for db in [&a, other] {
        if !db.shipping().wait_visible(new.shipping().visible(), Duration::from_secs(10))? {
            return Err("a replica that does not follow".into());
        }
    }
    println!("a is back, without {} bytes that were its own", rewound.cut_bytes);
    println!("{} rows at a, {} at b, {} at c", rows(&a)?, rows(&b)?, rows(&c)?);
    Ok(())
}
