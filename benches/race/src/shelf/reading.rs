//! Threads that read for a window of time.

use super::{LOOKED_AT, MULTI_KEYS, RANGE_ROWS, ROW_BYTES};
use crate::Result;
use crate::contenders::{Reader, Store};
use crate::drive::Measured;
use crate::histogram::Histogram;
use crate::meter::Meter;
use crate::rows::{Rows, mix};
use crate::seen::Seen;
use crate::workload::KEY_BYTES;
use std::path::Path;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// What one thread reads with, and what it has read.
pub(super) struct Window<'a> {
    reader: &'a mut dyn Reader,
    rows: &'a Rows,
    /// Rows that are there.
    count: u64,
    /// Operations begun, of the warm-up too.
    number: u64,
    rows_read: u64,
    latency: Histogram,
    keys: Vec<[u8; KEY_BYTES]>,
}

impl Window<'_> {
    pub(super) fn get(&mut self, random: u64) -> Result<()> {
        let i = random % self.count;
        let expected = self.number.is_multiple_of(LOOKED_AT).then(|| self.rows.value(i));
        let mut is_right = true;
        let there = self.reader.get(&Rows::key(i), &mut |value| {
            is_right = expected.map_or(value.len() == super::VALUE_BYTES, |expected| value == expected);
        })?;
        self.rows_read += 1;
        if there && is_right { Ok(()) } else { Err(format!("row {i} is missing or wrong").into()) }
    }

    pub(super) fn multi_get(&mut self, random: u64) -> Result<()> {
        self.keys.clear();
        self.keys.extend((0..MULTI_KEYS as u64).map(|n| Rows::key(mix(random ^ n << 48) % self.count)));
        let mut bytes = 0;
        let there = self.reader.multi_get(&self.keys, &mut |value| bytes += value.len())?;
        self.rows_read += there as u64;
        let all = there == MULTI_KEYS && bytes == MULTI_KEYS * super::VALUE_BYTES;
        if all { Ok(()) } else { Err(format!("{there} of {MULTI_KEYS} keys are there").into()) }
    }

    /// From a row that is there on; near the end there are fewer.
    pub(super) fn range(&mut self, random: u64) -> Result<()> {
        let from = Rows::key(random % self.count);
        let (mut rows, mut bytes) = (0, 0);
        self.reader.scan(Some(&from), RANGE_ROWS, &mut |key, value| {
            rows += 1;
            bytes += key.len() + value.len();
        })?;
        self.rows_read += rows;
        if rows > 0 && bytes as u64 == rows * ROW_BYTES { Ok(()) } else { Err("a range is wrong".into()) }
    }

    pub(super) fn full_scan(&mut self) -> Result<()> {
        let (mut rows, mut bytes) = (0, 0);
        self.reader.scan(None, usize::MAX, &mut |key, value| {
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
        })?;
        self.rows_read += rows;
        let all = rows == self.count && bytes == rows * ROW_BYTES;
        if all { Ok(()) } else { Err(format!("{rows} of {} rows were scanned", self.count).into()) }
    }
}

/// What one thread has read within the window.
struct Tally {
    operations: u64,
    rows: u64,
    latency: Histogram,
    end: Instant,
}

/// Counted are rows; a "commit" is one call.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
pub(super) fn measure(
    store: &dyn Store,
    rows: &Rows,
    count: u64,
    dir: &Path,
    threads: usize,
    warm_up: Duration,
    length: Duration,
    work: impl Fn(&mut Window<'_>, u64) -> Result<()> + Sync,
) -> Result<Measured> {
    let (warm, ready, started) = (Barrier::new(threads + 1), Barrier::new(threads + 1), OnceLock::new());
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads)
            .map(|thread| {
                let (warm, ready, started, work) = (&warm, &ready, &started, &work);
                scope.spawn(move || {
                    let mut tally = None;
                    let mut met = 0;
                    let result = store.read(&mut |reader| {
                        let keys = Vec::with_capacity(MULTI_KEYS);
                        let latency = Histogram::new();
                        let mut window =
                            Window { reader, rows, count, number: 0, rows_read: 0, latency, keys };
                        let random = |number: u64| mix((thread as u64 + 1) << 44 | number);
                        let warmed = run(&mut window, Instant::now() + warm_up, &random, work);
                        warm.wait();
                        met = 1;
                        ready.wait();
                        met = 2;
                        warmed?;
                        let start = *started.get_or_init(Instant::now);
                        let (number, read) = (window.number, window.rows_read);
                        window.latency = Histogram::new();
                        let end = run(&mut window, start + length, &random, work)?;
                        tally = Some(Tally {
                            operations: window.number - number,
                            rows: window.rows_read - read,
                            latency: window.latency,
                            end,
                        });
                        Ok(())
                    });
                    // Whoever could not even begin must not leave the others waiting.
                    if met < 1 {
                        warm.wait();
                    }
                    if met < 2 {
                        ready.wait();
                    }
                    result.and_then(|()| tally.ok_or_else(|| "it did not read".into()))
                })
            })
            .collect();
        warm.wait();
        let meter = Meter::start(dir, &[]);
        let start = *started.get_or_init(Instant::now);
        ready.wait();
        let tallies: Vec<Result<Tally>> =
            readers.into_iter().map(|reader| reader.join().map_err(|_| "a reader panicked")?).collect();
        let cost = meter?.stop()?;
        let tallies = tallies.into_iter().collect::<Result<Vec<Tally>>>()?;
        let mut latency = Histogram::new();
        tallies.iter().for_each(|tally| latency.merge(&tally.latency));
        let end = tallies.iter().map(|tally| tally.end).max().unwrap_or(start);
        let ops = tallies.iter().map(|tally| tally.rows).sum();
        Ok(Measured {
            seconds: end.duration_since(start).as_secs_f64(),
            commits: tallies.iter().map(|tally| tally.operations).sum(),
            ops,
            user_bytes: ops * ROW_BYTES,
            latency: latency.latency(),
            cost,
            seen: Seen::default(),
        })
    })
}

/// At least one operation; gives when the last one ended.
fn run(
    window: &mut Window<'_>,
    until: Instant,
    random: &impl Fn(u64) -> u64,
    work: &(impl Fn(&mut Window<'_>, u64) -> Result<()> + Sync),
) -> Result<Instant> {
    loop {
        let before = Instant::now();
        work(window, random(window.number))?;
        window.number += 1;
        let after = Instant::now();
        window.latency.record(after.duration_since(before).as_nanos() as u64);
        if after >= until {
            return Ok(after);
        }
        // Between two that are timed; long ones are all timed.
        if after.duration_since(before) < Duration::from_micros(20) {
            for _ in 1..LOOKED_AT {
                work(window, random(window.number))?;
                window.number += 1;
            }
        }
    }
}
