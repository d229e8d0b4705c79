//! Reads spread over replicas, where a client finds what it has written: `cargo run --example read_your_writes [DIR]`
//!
//! One replica shows everything 100 ms late. The router is told with each read what its client has written and seen: it asks a
//! replica that shows as much, or says which one to wait for.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with threads and a clock"
)]
use seawall::replication::balance::{Choice, Need, Report, Router, Session, Strategy, Target};
use seawall::replication::message::Name;
use seawall::replication::node::local::Switch;
use seawall::replication::node::{Follower, FollowerOptions, Leader, LeaderOptions};
use seawall::replication::ship::replica::Settings;
use seawall::{Db, ImageWriter, Lsn, SlotOptions};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A replica, as the router sees it. In another process this would be a client that remembers what it was told last.
struct Replica {
    name: &'static str,
    db: Db,
    _follower: Follower,
}

impl Target for Replica {
    fn name(&self) -> &str {
        self.name
    }
    fn visible(&self) -> Lsn {
        self.db.shipping().visible()
    }
    fn stale_us(&self) -> u64 {
        0 // only `Need::stale_us_max` asks for it
    }
    fn lease_until(&self) -> Option<u64> {
        None // it is no primary
    }
}

fn replica_of(
    primary: &Db,
    (name, delay_us): (&'static str, u64),
    dir: &Path,
    switch: &Arc<Switch>,
) -> Result<Arc<Replica>> {
    primary.create_slot(name, SlotOptions { bytes_max: Some(64 << 20), age_max: None })?;
    let image = primary.image()?;
    let mut writer = ImageWriter::begin(&Db::builder(dir), image.info())?;
    while let Some(piece) = image.piece(writer.offset(), 1 << 20)? {
        writer.write(&piece)?;
    }
    let timeline = primary.shipping().wal().timeline();
    writer.finish(timeline.epoch, &timeline.history)?;
    let db = Db::builder(dir).replica(true).open()?;
    let settings = Settings { delay_us, ..Settings::new(Name::new(name).ok_or("no name for a replica")?) };
    let follower = Follower::run(&db.shipping(), switch.clone(), FollowerOptions::new(settings))?;
    Ok(Arc::new(Replica { name, db, _follower: follower }))
}

fn main() -> Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("seawall-read-your-writes"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir); // it begins anew each time
    std::fs::create_dir_all(&dir)?;
    let primary = Db::open(dir.join("primary"))?;
    let posts = primary.keyspace("posts")?;
    let switch = Arc::new(Switch::default());
    let leader = Leader::serve(&primary.shipping(), LeaderOptions::default())?;
    switch.set(Some(Arc::new(leader)));
    let replicas = vec![
        replica_of(&primary, ("near", 0), &dir.join("near"), &switch)?,
        replica_of(&primary, ("late", 100_000), &dir.join("late"), &switch)?,
    ];
    let mut router = Router::new(replicas, Strategy::TwoChoices, 1);

    let (mut session, start) = (Session::default(), Instant::now());
    let (mut found, mut waited, mut asked) = (0, 0, [0; 2]);
    for post in 0..100_u32 {
        posts.insert(post.to_be_bytes(), "hello")?;
        // What the primary shows now has the commit in it.
        session.wrote(primary.shipping().visible());

        let need = session.need(Need::any());
        let now = || start.elapsed().as_micros() as u64;
        let (place, must_wait) = match router.choose(now(), &need) {
            Choice::Ask(places) => (places[0], false),
            Choice::Wait(places) => (places[0], true),
            Choice::Nobody(why) => return Err(format!("nobody to ask: {why:?}").into()),
        };
        let replica = Arc::clone(router.target(place).ok_or("no such target")?);
        let before = now();
        waited += u32::from(must_wait);
        if must_wait && !replica.db.shipping().wait_visible(need.at_least, Duration::from_secs(10))? {
            router.report(now(), place, Report::Failed);
            continue;
        }
        let visible = replica.visible(); // before the read, which may see more
        let theirs = replica.db.open_keyspace("posts")?.ok_or("no keyspace")?;
        found += u32::from(theirs.get(post.to_be_bytes())?.is_some());
        router.report(now(), place, Report::Answered { latency_us: now() - before });
        session.saw(visible);
        asked[place] += 1;
    }
    println!(
        "near was asked {} times, late {}; {waited} times there was something to wait for",
        asked[0], asked[1]
    );
    println!("{found} of 100 reads found what was written before");
    Ok(())
}
