//! The log on its own, a durable queue in a few lines: `cargo run --example log [DIR]`
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with threads"
)]
use seawall::wal::{Lsn, Result, Wal};

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "queue.log".to_owned());
    let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;

    // Each commit is on the device when it returns; concurrent callers share one durable write.
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let wal = &wal;
            scope.spawn(move || {
                let all = (0..100).try_for_each(|job| wal.commit(format!("{worker}/{job}")).map(drop));
                all.unwrap_or_else(|error| println!("worker {worker}: {error}"));
            });
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
    wal.close()
}
