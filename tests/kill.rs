//! A hundred real SIGKILLs, in the middle of commits, of checkpoints, and of recovery.
//!
//! This program runs itself again as the process that dies: `writers` is a test that does nothing unless it was started
//! that way. Its threads announce a commit in a pipe, make it, and acknowledge it in the pipe once it has returned; what
//! went into the pipe outlives them. After each kill the store is opened, and must hold, of each writer, exactly the
//! first *n* commits, in both keyspaces alike, with *n* at least every acknowledgement and at most every announcement.
//!
//! A kill leaves everything that the kernel was given where it is. So this shows that a process can die anywhere; that
//! the device was told to keep it, only a cut of the power can show: the simulated disk does that, and `tests/power.rs`.
#![cfg(unix)]
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
#[path = "kill/process.rs"]
#[allow(dead_code, reason = "tests/power.rs looks at more of it")]
mod process;
#[path = "kill/writers.rs"]
mod writers;

use bank::WRITERS;
use process::{Child, Death};
use seawall::wal::runtime::Rng;
use std::path::Path;
use std::time::{Duration, Instant};

/// Kills of working writers; `SEAWALL_KILLS` asks for more.
const KILLS: u64 = 100;
/// Of a hundred, so many must meet a commit that has begun and not returned.
const IN_FLIGHT_PERCENT_MIN: u64 = 90;

/// What all the kills met.
#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    in_flight: u64,
    in_checkpoint: u64,
    in_recovery: u64,
    acknowledged: u64,
    checkpoints: u64,
    segments: u64,
    verified: u64,
}

/// The process that dies; see [`process::Child`].
#[test]
fn writers() {
    if let Some(role) = process::role() {
        writers::run(&role, bank::builder(&role.store));
    }
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kill");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let seed = std::env::var("SEAWALL_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let kills = std::env::var("SEAWALL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let start = Instant::now();

    let store = dir.join("store");
    let mut rng = Rng::new(seed);
    let (mut tally, mut proven) = (Tally::default(), [0; WRITERS]);
    while tally.kills < kills {
        let what = format!("seed {seed}, kill {}", tally.kills);
        let flowing = Duration::from_micros(5_000 + rng.below(55_000));
        let death = Child::start(&store, "write").kill_when_flowing(flowing);
        let announced = death.announced_above(proven);
        for (proven, acknowledged) in proven.iter_mut().zip(death.acknowledged) {
            *proven = acknowledged.max(*proven);
        }
        note(&mut tally, &death);
        for _ in 0..rng.below(4).saturating_sub(1) {
            let death = Child::start(&store, "recover").kill_within(Duration::from_micros(rng.below(12_000)));
            tally.in_recovery += u64::from(death.was_opening);
        }
        // Half the time nothing is written by the check, so that the next writers recover what this kill left.
        let is_reader = rng.chance(1, 2);
        proven = bank::check(&store, is_reader, tally.kills.is_multiple_of(5), proven, announced, &what);
        tally.verified += u64::from(tally.kills.is_multiple_of(5));
    }
    println!("seed {seed}: {tally:?}, nothing lost, in {:.1} s", start.elapsed().as_secs_f64());
    assert!(
        tally.in_flight * 100 >= tally.kills * IN_FLIGHT_PERCENT_MIN,
        "{} of {} kills met a commit",
        tally.in_flight,
        tally.kills
    );
    assert!(tally.checkpoints >= tally.kills / 2, "{} checkpoints", tally.checkpoints);
    assert!(tally.segments >= tally.kills, "the log filled {} segments", tally.segments);
    assert!(tally.in_recovery > 0, "no kill met a recovery");
    std::fs::remove_dir_all(&dir).unwrap();
}

fn note(tally: &mut Tally, death: &Death) {
    tally.kills += 1;
    tally.in_flight += u64::from(death.has_commit_in_flight);
    tally.in_checkpoint += u64::from(death.is_in_checkpoint);
    tally.acknowledged += death.acknowledgements;
    tally.checkpoints += death.checkpoints;
    tally.segments += death.log_bytes / bank::SEGMENT_BYTES;
}
