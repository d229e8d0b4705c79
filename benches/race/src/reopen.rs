//! Opening after a kill: one child fills a log and is killed, another opens it and reads.

use crate::Result;
use crate::child::Job;
use crate::contenders::Contender;
use crate::drive::Measured;
use crate::histogram::Latency;
use crate::meter::Meter;
use crate::rows::Rows;
use crate::seen::Seen;
use crate::workload::KEY_BYTES;
use std::io::{Read, Write};
use std::time::Instant;

/// Begins the line by which a child says that it may be killed, and what it has counted.
pub(crate) const FILLED: &str = "FILLED ";

const ROWS_PER_COMMIT: usize = 100;
/// How many rows are looked for after opening, besides the first and the last.
const LOOKED_FOR: u64 = 1000;

/// SQLite's log holds whole pages: a commit of 100 rows in random order writes more than that, 60 times the rows. A
/// sixteenth of the others' rows makes a log that is still almost four times as large as theirs, and fits on the disk.
const SQLITE_SHARE: u64 = 16;

fn rows_of(job: &Job) -> u64 {
    let share = if job.entrant.contender == Contender::Sqlite { SQLITE_SHARE } else { 1 };
    job.log_bytes / share / (KEY_BYTES + job.workload.value_bytes()) as u64
}

/// Fills, makes all of it durable, says so, and waits for the end.
pub(crate) fn fill(job: &Job) -> Result<()> {
    let store = job.entrant.contender.open(&job.setup())?;
    let rows = Rows::new(job.workload.value_bytes());
    let mut writer = store.writer(0)?;
    let mut commit = Vec::with_capacity(ROWS_PER_COMMIT);
    for i in 0..rows_of(job) {
        commit.push(rows.row(i));
        if commit.len() == ROWS_PER_COMMIT || i + 1 == rows_of(job) {
            writer.commit(&commit)?;
            commit.clear();
        }
    }
    store.sync()?;
    println!("{FILLED}{}", serde_json::to_string(&store.seen())?);
    std::io::stdout().flush()?;
    // Until the parent kills this process, or has ended itself.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    std::process::exit(0);
}

/// Opens, reads one row: that is the time. Then looks whether the rest is there.
pub(crate) fn reopen(job: &Job) -> Result<Measured> {
    let rows = Rows::new(job.workload.value_bytes());
    let count = rows_of(job);
    let meter = Meter::start(&job.dir, &[])?;
    let start = Instant::now();
    let store = job.entrant.contender.open(&job.setup())?;
    let first = store.get(&Rows::key(0))?;
    let took = start.elapsed();
    let cost = meter.stop()?;
    if first.as_deref() != Some(rows.value(0)) {
        return Err("the first row is gone after the kill".into());
    }
    let last = count - 1;
    for i in (0..LOOKED_FOR).map(|n| n * last / LOOKED_FOR).chain([last]) {
        if store.get(&Rows::key(i))?.as_deref() != Some(rows.value(i)) {
            return Err(format!("row {i} of {count} is gone after the kill").into());
        }
    }
    std::mem::forget(store);
    let us = took.as_secs_f64() * 1e6;
    Ok(Measured {
        seconds: took.as_secs_f64(),
        commits: 1,
        ops: 1,
        user_bytes: job.log_bytes,
        latency: Latency { p50_us: us, p99_us: us, p999_us: us, max_us: us },
        cost,
        seen: Seen::default(),
    })
}
