//! Single puts of 100 bytes, each a synced commit, by many threads at once.

use super::report::Puts;
use crate::command::measure::drive::{Done, Load, drive};
use crate::command::{Outcome, Ui};
use seawall::Db;
use std::time::Duration;

const LENGTH: Duration = Duration::from_secs(2);
const VALUE: [u8; 100] = [b'v'; 100];

/// Measures the store for two seconds.
pub(super) fn measure(ui: &Ui, db: &Db, threads: u32, device_syncs_per_s: f64) -> Outcome<Puts> {
    let keyspace = db.keyspace("puts")?;
    let before = db.stats();
    let load = Load { threads, length: LENGTH, rate: None };
    let driven = drive(ui, &load, |thread| {
        let keyspace = &keyspace;
        let mut number = 0u64;
        Ok(move || {
            let mut key = [0; 12];
            key[..4].copy_from_slice(&thread.to_be_bytes());
            key[4..].copy_from_slice(&number.to_be_bytes());
            keyspace.insert(key, VALUE)?;
            number += 1;
            Ok(Done::WRITE)
        })
    })?;
    let syncs = db.stats().syncs.saturating_sub(before.syncs).max(1);
    let commits_per_s = driven.per_second(driven.ops());
    let quantiles = driven.latency()?.quantiles();
    Ok(Puts {
        threads,
        commits_per_s,
        p50_us: quantiles.p50_us.round() as u32,
        p99_us: quantiles.p99_us.round() as u32,
        commits_per_sync: driven.ops() as f64 / syncs as f64,
        device_syncs_per_s,
        ratio_to_device: commits_per_s / device_syncs_per_s.max(1e-9),
    })
}
