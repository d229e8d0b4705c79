//! Single puts of 100 bytes, each a synced commit, by many threads at once.

use super::report::{Puts, percentile};
use crate::command::{Failure, Outcome, Ui};
use seawall::Db;
use std::time::{Duration, Instant};

const LENGTH: Duration = Duration::from_secs(2);
const VALUE: [u8; 100] = [b'v'; 100];

/// Measures the store for two seconds.
pub(super) fn measure(ui: &Ui, db: &Db, threads: u32, device_syncs_per_s: f64) -> Outcome<Puts> {
    let keyspace = db.keyspace("puts")?;
    let before = db.stats();
    let start = Instant::now();
    let write = |thread: u32| -> Outcome<Vec<u32>> {
        let mut took = Vec::new();
        for number in 0u64.. {
            let begun = start.elapsed();
            if begun >= LENGTH || ui.is_interrupted() {
                break;
            }
            let mut key = [0; 12];
            key[..4].copy_from_slice(&thread.to_be_bytes());
            key[4..].copy_from_slice(&number.to_be_bytes());
            keyspace.insert(key, VALUE)?;
            took.push(u32::try_from((start.elapsed() - begun).as_micros()).unwrap_or(u32::MAX));
        }
        Ok(took)
    };
    let mut took = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || write(thread))).collect();
        for thread in running {
            took.extend(thread.join().map_err(|_| Failure::error("a writer panicked"))??);
        }
        Ok::<(), Failure>(())
    })?;
    ui.check_interrupt()?;
    let elapsed = start.elapsed().as_secs_f64();
    let after = db.stats();
    let commits_per_s = took.len() as f64 / elapsed;
    let syncs = after.syncs.saturating_sub(before.syncs).max(1);
    took.sort_unstable();
    Ok(Puts {
        threads,
        commits_per_s,
        p50_us: percentile(&took, 50),
        p99_us: percentile(&took, 99),
        commits_per_sync: took.len() as f64 / syncs as f64,
        device_syncs_per_s,
        ratio_to_device: commits_per_s / device_syncs_per_s.max(1e-9),
    })
}
