//! The log on its own: a durable queue in a few lines. Run with `cargo run -p seawall-wal --example log_alone`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use seawall_wal::{Lsn, Result, Wal};

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("seawall-queue-{}", std::process::id()));
    let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;

    // Each commit is on the device when it returns; concurrent callers share one durable write.
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let wal = wal.clone();
            scope.spawn(move || (0..100).try_for_each(|job| wal.commit(format!("{worker}/{job}")).map(drop)));
        }
    });

    // A consumer reads by LSN, and gives back what it is done with.
    let mut done = Lsn::ZERO;
    let mut count = 0;
    for record in wal.read(..)? {
        done = record?.end;
        count += 1;
    }
    wal.truncate_before(done)?;
    println!("{count} jobs read; the log now begins at {}", wal.first_lsn());
    let stats = wal.stats();
    println!("{} commits shared {} syncs", stats.commits, stats.syncs);
    wal.close()?;
    let _ = std::fs::remove_dir_all(dir);
    Ok(())
}
