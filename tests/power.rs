//! The power is cut under real file systems: ext4, XFS and Btrfs, with all that they keep in memory and put in order as
//! they like.
//!
//! They stand on a device of the test's own (`power/device.rs`), which remembers every write and every flush. A process
//! works there on a store, the one of `tests/kill.rs`, and says what it was told is durable. Afterwards the power fails, at
//! moments drawn from its whole life: of the writes that no flush vouched for then, each is there, or is not, or some of its
//! sectors are. The file system recovers in its own way, and then the store is opened, and must hold of each writer exactly the
//! first *n* commits, in both keyspaces alike, with *n* at least what had been acknowledged. One of the images is where the next
//! process goes on, so that recoveries are cut short too.
//!
//! The simulated disk tries many more such moments; what it cannot show is that real file systems keep what it supposes of
//! them: `docs/failure-model.md`. Where file systems cannot be mounted, or made, the test says so and passes, unless
//! `SEAWALL_POWER` is `required`. `SEAWALL_POWER_CUTS` asks for more cuts, `SEAWALL_POWER_SEED` for the same again: the same draws, though
//! not the same timing.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is no part of what simulation drives"
)]

#[path = "kill/bank.rs"]
mod bank;
#[path = "power/device.rs"]
mod device;
#[path = "power/mounted.rs"]
mod mounted;
#[path = "../src/torture/mutant.rs"]
#[allow(dead_code, unreachable_pub, reason = "torture lists them")]
mod mutant;
#[path = "kill/process.rs"]
#[allow(dead_code, reason = "kills look at more of it")]
mod process;
#[path = "kill/writers.rs"]
mod writers;

use bank::WRITERS;
use device::{Content, Device};
use mounted::{BTRFS, EXT4, Kind, Mounted, XFS};
use mutant::MutantDisk;
use process::{Child, Death};
use seawall::wal::OsDisk;
use seawall::wal::runtime::Rng;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Cuts of the power, on each file system.
const CUTS: u64 = 24;
/// Of one life of the device.
const CUTS_A_LIFE: u64 = 8;
/// Lives of a device within which a step that is left out shows.
const LIVES_MAX: u64 = 4;
/// Steps without which commits, or checkpoints, are not on the device.
const OMISSIONS: [&str; 3] = ["plain-log-write", "skip-data-sync", "plain-superblock-write"];

/// The process that works on the device; see [`process::Child`].
#[test]
fn writers() {
    if let Some(role) = process::role() {
        let omission = std::env::var(process::OMISSION).ok();
        let disk = MutantDisk::wrap(OsDisk::new(), omission.as_deref());
        writers::run(&role, bank::builder(&role.store).disk(disk));
    }
}

#[test]
fn what_was_acknowledged_survives_every_cut_of_the_power_on_ext4() {
    survives(&EXT4);
}

#[test]
fn what_was_acknowledged_survives_every_cut_of_the_power_on_xfs() {
    survives(&XFS);
}

#[test]
fn what_was_acknowledged_survives_every_cut_of_the_power_on_btrfs() {
    survives(&BTRFS);
}

/// Each is a durable step that an engine forgot; some cut must show it.
#[test]
fn steps_that_are_left_out_are_seen() {
    let Some(bench) = Bench::new(&EXT4, "omissions") else { return };
    let mut rng = Rng::new(bench.seed);
    for omission in OMISSIONS {
        let (mut is_seen, mut lives) = (false, 0);
        while !is_seen {
            lives += 1;
            assert!(lives <= LIVES_MAX, "no cut of the power shows {omission}");
            let Some(life) = bench.life(&bench.empty, 0, Some(omission), &mut rng) else { return };
            is_seen = (0..CUTS).any(|_| bench.shows(&life, omission, &mut rng));
        }
    }
}

fn survives(kind: &Kind) {
    let Some(bench) = Bench::new(kind, kind.name) else { return };
    let mut rng = Rng::new(bench.seed);
    let start = Instant::now();
    let (mut content, mut proven, mut announced) = (bench.empty.clone(), [0; WRITERS], [0; WRITERS]);
    let (mut cuts, mut at_risk, mut acknowledged, mut checkpoints, mut lives) = (0, 0, 0, 0, 0);
    while cuts < bench.cuts {
        let Some(life) = bench.life(&content, lives, None, &mut rng) else { return };
        announced = life.death.announced_above(announced);
        checkpoints += life.death.checkpoints;
        let next = rng.below(CUTS_A_LIFE);
        let mut goes_on = None;
        for turn in 0..CUTS_A_LIFE {
            let cut = life.cut(&mut rng);
            let what = format!("{}, seed {}, life {lives}, cut at {cut}", kind.name, bench.seed);
            let image = life.device.image(cut, kind.sector, &mut rng);
            at_risk += life.device.at_risk(cut);
            let there = life.proven(proven, cut);
            let mounted = bench.mounted(&image, lives);
            let store = mounted.dir.join("db");
            // Cut while it was being made, a store is made anew, or is there.
            let is_young = there == [0; WRITERS] && lives == 0;
            if is_young {
                let opened = bank::builder(&store).open();
                let db = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
                bank::keyspaces(&db).unwrap_or_else(|error| panic!("{what}: {error}"));
                db.close().unwrap_or_else(|error| panic!("{what}: closing: {error}"));
            }
            let is_reader = rng.chance(1, 3);
            let found = bank::check(&store, is_reader, turn % 4 == 0, there, announced, &what);
            // Whoever has opened it once opens it again, and what was shown stays.
            bank::check(&store, false, false, found, announced, &what);
            mounted.unmount().unwrap_or_else(|error| panic!("{what}: {error}"));
            cuts += 1;
            acknowledged += there.iter().sum::<u64>();
            // Not one that was cut before there was a store: the next life is to begin with a recovery.
            if !is_young && (goes_on.is_none() || turn <= next) {
                goes_on = Some((image, there));
            }
        }
        if let Some((image, there)) = goes_on {
            (content, proven) = (image, there);
            lives += 1;
        }
    }
    println!(
        "{}, seed {}: {cuts} cuts in {lives} lives with {checkpoints} checkpoints; {at_risk} writes at risk, {acknowledged} commits \
         looked for, nothing lost, in {:.1} s",
        kind.name,
        bench.seed,
        start.elapsed().as_secs_f64()
    );
    assert!(at_risk > 0, "no write was ever at risk");
    assert!(acknowledged > 0, "nothing was ever acknowledged");
}

/// Directories and the empty file system of one test.
struct Bench<'a> {
    kind: &'a Kind,
    dir: PathBuf,
    empty: Content,
    seed: u64,
    cuts: u64,
}

/// What happened on a device.
struct Life {
    device: Device,
    death: Death,
    /// The device's clock when the process had died.
    end: usize,
}

impl Life {
    fn cut(&self, rng: &mut Rng) -> usize {
        self.device.cut(self.end, rng)
    }

    /// What must be there after this cut, if that much was there at the beginning.
    fn proven(&self, mut before: [u64; WRITERS], cut: usize) -> [u64; WRITERS] {
        for synced in self.death.synced.iter().filter(|synced| synced.clock <= cut) {
            before[synced.writer] = before[synced.writer].max(synced.sequence);
        }
        before
    }
}

impl<'a> Bench<'a> {
    /// None, and the reason printed, where file systems cannot be made or mounted.
    fn new(kind: &'a Kind, name: &str) -> Option<Bench<'a>> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-{name}"));
        // What a run has left that was killed itself.
        for part in ["after", "mounted", "device"] {
            mounted::let_go(&dir.join(part));
        }
        let _ = std::fs::remove_dir_all(&dir);
        for part in ["after", "mounted", "device"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        let asked = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
        let (seed, cuts) = (asked("SEAWALL_POWER_SEED"), asked("SEAWALL_POWER_CUTS"));
        let image = dir.join("image");
        std::fs::File::create(&image).unwrap().set_len(device::LEN).unwrap();
        if let Err(why) = kind.make(&image) {
            return skipped(&why);
        }
        let empty = Content::of(&image);
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        Some(Bench { kind, dir, empty, seed, cuts: cuts.unwrap_or(CUTS) })
    }

    /// A process works on a device with this content, and is killed.
    fn life(&self, content: &Content, turn: usize, omission: Option<&str>, rng: &mut Rng) -> Option<Life> {
        let device = match Device::start(&self.dir.join("device"), content.clone(), rng.next_u64()) {
            Ok(device) => device,
            Err(why) => return skipped(&format!("a file system in user space: {why}")),
        };
        let options = self.kind.options(turn);
        let mounted = match Mounted::new(self.kind, &device.file(), &self.dir.join("mounted"), options) {
            Ok(mounted) => mounted,
            Err(why) => return skipped(&why),
        };
        let child = Child::start_beside(&mounted.dir.join("db"), "write", omission, device.clock());
        let death = child.kill_when_flowing(Duration::from_millis(300 + rng.below(700)));
        let end = device.clock().load(std::sync::atomic::Ordering::SeqCst);
        mounted.unmount().unwrap();
        Some(Life { device, death, end })
    }

    /// Whether a cut of the power shows that something was left out: one just when a commit was said to be on the device.
    fn shows(&self, life: &Life, omission: &str, rng: &mut Rng) -> bool {
        let said = rng.below(life.death.synced.len() as u64) as usize;
        let cut = life.death.synced[said].clock.max(1);
        let there = life.proven([0; WRITERS], cut);
        let mounted = self.mounted(&life.device.image(cut, self.kind.sector, rng), 0);
        let store = mounted.dir.join("db");
        let announced = life.death.announced;
        let check = || bank::check(&store, false, true, there, announced, omission);
        let found = std::panic::catch_unwind(check);
        mounted.unmount().unwrap();
        found.is_err()
    }

    /// An image, recovered by its file system.
    fn mounted(&self, image: &Content, turn: usize) -> Mounted {
        let file = self.dir.join("image");
        image.write_to(&file);
        let options = self.kind.options(turn);
        Mounted::new(self.kind, &file, &self.dir.join("after"), options)
            .unwrap_or_else(|why| panic!("{}: the file system is lost: {why}", self.kind.name))
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("SEAWALL_POWER").is_none_or(|asked| asked != "required"), "{why}");
    println!("skipped: {why}");
    None
}
