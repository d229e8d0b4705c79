//! A primary with two replicas, the loss of the primary, and a promotion: `cargo run --example replicas [DIR]`
//!
//! All three stores are in this process, over a transport without sockets; `replication::net` has one between processes. A commit
//! returns when one of the two replicas has it on its device. So of any two that are heard, one has all that was acknowledged: the
//! most advanced is promoted, once each has promised not to follow the old primary any more.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with threads"
)]
use seawall::replication::ack::Policy;
use seawall::replication::decide::{Candidate, MostAdvanced, PromotionPolicy};
use seawall::replication::message::Name;
use seawall::replication::node::local::Switch;
use seawall::replication::node::{Follower, FollowerOptions, Leader, LeaderOptions};
use seawall::replication::ship::replica::Settings;
use seawall::{Ack, Db, ImageWriter, SlotOptions, TxOptions};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// First the slot, which keeps the log from here on; then the image, which is followed by that log.
fn replica_of(primary: &Db, name: &str, dir: &Path) -> Result<Db> {
    primary.create_slot(name, SlotOptions { bytes_max: Some(64 << 20), age_max: None })?;
    let image = primary.image()?;
    let mut writer = ImageWriter::begin(&Db::builder(dir), image.info())?;
    while let Some(piece) = image.piece(writer.offset(), 1 << 20)? {
        writer.write(&piece)?;
    }
    let timeline = primary.shipping().wal().timeline();
    writer.finish(timeline.epoch, &timeline.history)?;
    Ok(Db::builder(dir).replica(true).open()?)
}

fn follow(db: &Db, name: &str, switch: &Arc<Switch>) -> Result<Follower> {
    let settings = Settings::new(Name::new(name).ok_or("no name for a replica")?);
    Ok(Follower::run(&db.shipping(), switch.clone(), FollowerOptions::new(settings))?)
}

fn lead(db: &Db, policy: &str) -> Result<Leader> {
    let mut options = LeaderOptions::default();
    options.policy = Some(policy.parse::<Policy>()?);
    Ok(Leader::serve(&db.shipping(), options)?)
}

fn insert(db: &Db, key: &str) -> Result<()> {
    let rows = db.keyspace("rows")?;
    // `DbBuilder::ack` makes this the level of every commit.
    let mut tx = db.begin_with(TxOptions { ack: Some(Ack::Durable), ..TxOptions::default() });
    tx.insert(&rows, key, "on two devices")?;
    tx.commit()?;
    Ok(())
}

fn count(db: &Db) -> Result<usize> {
    Ok(db.open_keyspace("rows")?.map_or(0, |rows| rows.range(..).count()))
}

fn main() -> Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("seawall-replicas"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir); // it begins anew each time
    std::fs::create_dir_all(&dir)?;
    let primary = Db::open(dir.join("primary"))?;
    primary.keyspace("rows")?;
    let stores = [("one", replica_of(&primary, "one", &dir.join("one"))?)]
        .into_iter()
        .chain([("two", replica_of(&primary, "two", &dir.join("two"))?)])
        .collect::<Vec<_>>();

    let switch = Arc::new(Switch::default());
    let leader = lead(&primary, "ANY 1 (one, two)")?;
    switch.set(Some(Arc::new(leader.clone())));
    let followers: Vec<Follower> =
        stores.iter().map(|(name, db)| follow(db, name, &switch)).collect::<Result<_>>()?;
    for row in 0..200 {
        insert(&primary, &format!("row {row:03}"))?;
    }
    for follower in leader.followers() {
        println!(
            "{}: durable up to {}, applied up to {}",
            follower.name, follower.marks.durable, follower.marks.applied
        );
    }

    // The primary is gone.
    switch.set(None);
    leader.close();
    drop((leader, primary));

    // The others promise first: from then on none of them acknowledges anything to a primary of a lower epoch.
    let epoch = 1 + stores.iter().map(|(_, db)| db.shipping().wal().timeline().promised).max().unwrap_or(0);
    let mut candidates = Vec::new();
    for ((name, db), follower) in stores.iter().zip(&followers) {
        follower.stop();
        db.shipping().fence(epoch)?;
        let tail = db.shipping().wal().tail();
        candidates.push(Candidate { name: (*name).to_owned(), tail, is_eligible: true });
    }
    // Any one of two acknowledges: both had to be heard.
    let chosen = MostAdvanced::of_quorum(1, 2).choose(&candidates).ok_or("too few were heard")?;
    let (new, rest): (Vec<_>, Vec<_>) = stores.iter().partition(|(name, _)| *name == chosen);
    let ([(_, new)], [(name, other)]) = (&new[..], &rest[..]) else { return Err("two stores".into()) };
    let begins = new.shipping().promote(epoch + 1)?;
    println!("{chosen} was promoted: epoch {} begins at {begins}", epoch + 1);

    switch.set(Some(Arc::new(lead(new, name)?)));
    let _follower = follow(other, name, &switch)?;
    insert(new, "row 200")?;
    let is_shown = other.shipping().wait_visible(new.shipping().visible(), Duration::from_secs(10))?;
    let all = is_shown && count(new)? == 201 && count(other)? == 201;
    println!("200 rows of the old primary and 1 of the new one, in both stores: {all}");
    Ok(())
}
