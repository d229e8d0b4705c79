//! A log, and somebody who follows it: `cargo run --example follow [DIR]`
//!
//! The follower is handed each record once it is on the device, and never one that a crash could take back. In another
//! process, `WalReader::follow(dir, from)` does the same by the log's files alone.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with threads"
)]
use seawall::wal::{Lsn, Result, Wal, WalReader};

/// Blocks for new records, until the log is closed. Where it has come to, it tells the log by its pin.
fn consume(follower: &mut WalReader, seen: &mut Vec<Lsn>) -> Result<()> {
    while let Some((lsn, payload)) = follower.next_ref()? {
        println!("{lsn}: {}", payload.escape_ascii());
        seen.push(lsn);
    }
    Ok(())
}

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "followed.log".to_owned());
    let wal = Wal::open(&dir)?;
    // Only what comes from now on; `wal.first_lsn()` would begin with all that is kept.
    let mut follower = wal.follow(wal.next_lsn())?;
    let consumer = std::thread::spawn(move || {
        let mut seen = Vec::new();
        consume(&mut follower, &mut seen).map(|()| seen)
    });
    let mut written = Vec::new();
    for temperature in [21, 22, 24, 23] {
        written.push(wal.commit(format!("{temperature} degrees"))?);
    }
    wal.close()?; // ends the follower, behind the last record
    match consumer.join() {
        Ok(seen) => println!("all of it was seen, in order: {}", seen? == written),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(())
}
