//! A store of many rows: loaded once in random order, then read and changed in the ways that were asked for.
//!
//! ```text
//! load (timed) → settle → scan once, to warm up → each workload: warm up · window · what it cost
//!   → close → (the files forgotten) another child opens it and reads the first row
//! ```

mod reading;

use crate::child::Job;
use crate::contenders::{Setup, Store};
use crate::drive::{Measured, Plan};
use crate::histogram::{Histogram, Latency};
use crate::meter::{self, Meter};
use crate::rows::{Row, Rows, mix};
use crate::seen::Seen;
use crate::workload::{KEY_BYTES, Shelf, Workload};
use crate::{Result, cold};
use reading::Window;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of a value on every shelf.
pub(crate) const VALUE_BYTES: usize = 100;
/// Of keys and values.
pub(crate) const ROW_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;
/// Rows of one operation of [`Workload::Ranges`].
const RANGE_ROWS: usize = 100;
/// Keys of one call of [`Workload::MultiGet4x`].
const MULTI_KEYS: usize = 100;
/// One of so many reads is timed, and its value compared: a clock costs as much as a tenth of a read.
const LOOKED_AT: u64 = 16;
/// Page faults that a scan of the warm-up takes are nobody's.
const WARM_READS: Duration = Duration::from_secs(2);

/// What is to be measured on a shelf.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) shelf: Shelf,
    pub(crate) rows: u64,
    /// For [`Workload::Updates5x`] and its like, which run until checkpoints have had their turns.
    pub(crate) update_s: f64,
    /// What the child had in memory before it opened a store.
    pub(crate) own_bytes: u64,
    /// Each with its number of threads.
    pub(crate) cases: Vec<(Workload, u16)>,
}

/// What came of it: each case, measured or failed.
pub(crate) type Delivery = Vec<(Workload, u16, std::result::Result<Measured, String>)>;

impl Order {
    fn bytes(&self) -> u64 {
        self.rows * ROW_BYTES
    }

    fn setup<'a>(&self, dir: &'a Path, job: &Job) -> Setup<'a> {
        // Whichever of them: they have the shelf in common.
        let workload = self.cases.first().map_or(Workload::Load, |case| case.0);
        Setup {
            dir,
            level: crate::workload::Level::Synced,
            workload,
            condition: job.entrant.condition,
            threads: 1,
            is_filling: false,
            memory: Some(self.shelf.memory(self.bytes())),
        }
    }
}

/// All that was ordered but for opening again.
pub(crate) fn deliver(job: &Job, order: &Order) -> Result<Delivery> {
    let rows = Rows::new(VALUE_BYTES);
    // What the race itself has in memory is not the store's.
    meter::forget_peak()?;
    let own = meter::peak_bytes()?;
    let order = &Order { own_bytes: own, ..order.clone() };
    let store = job.entrant.contender.open(&order.setup(&job.dir, job))?;
    let mut delivery = Delivery::new();
    let loaded = load(&*store, &rows, job, order)?;
    if order.cases.contains(&(Workload::Load, 1)) {
        delivery.push((Workload::Load, 1, Ok(loaded)));
    }
    let stand = Stand { store: &*store, rows: &rows, job, order };
    if order.cases.iter().any(|(workload, _)| !matches!(workload, Workload::Load | Workload::ColdOpen)) {
        stand.warm_up()?;
    }
    for &(workload, threads) in &order.cases {
        if !matches!(workload, Workload::Load | Workload::ColdOpen) {
            let measured = stand.measure(workload, usize::from(threads)).map_err(|error| error.to_string());
            delivery.push((workload, threads, measured));
        }
    }
    store.close()?;
    Ok(delivery)
}

/// Commits all rows, in the random order of their keys.
fn load(store: &dyn Store, rows: &Rows, job: &Job, order: &Order) -> Result<Measured> {
    let mut latency = Histogram::new();
    let per_commit = Workload::Load.rows_per_commit() as u64;
    let (mut commits, mut batch) = (0, Vec::with_capacity(per_commit as usize));
    let mut writer = store.writer(0)?;
    let meter = Meter::start(&job.dir, &[])?;
    let start = Instant::now();
    let mut next = 0;
    while next < order.rows {
        batch.extend((next..order.rows.min(next + per_commit)).map(|i| rows.row(i)));
        next += batch.len() as u64;
        let before = Instant::now();
        writer.commit(&batch)?;
        latency.record(before.elapsed().as_nanos() as u64);
        commits += 1;
        batch.clear();
    }
    let seconds = start.elapsed().as_secs_f64();
    drop(writer);
    // What comes after the last commit is not timed; what it writes is counted.
    store.settle()?;
    meter::settle(&job.dir)?;
    let cost = meter.stop()?;
    let seen = Seen {
        disk_bytes_per_byte: Some(disk_bytes(&job.dir)? as f64 / order.bytes() as f64),
        ..memory(order)?
    };
    let user_bytes = order.bytes();
    Ok(Measured { seconds, commits, ops: order.rows, user_bytes, latency: latency.latency(), cost, seen })
}

/// The most memory since it was last forgotten, and what was given.
fn memory(order: &Order) -> Result<Seen> {
    Ok(Seen {
        memory_bytes: Some(meter::peak_bytes()?.saturating_sub(order.own_bytes)),
        budget_bytes: Some(order.shelf.memory(order.bytes())),
        ..Seen::default()
    })
}

/// Blocks of all files below a directory.
fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(bytes)
}

/// A loaded store, and who measures what on it.
struct Stand<'a> {
    store: &'a dyn Store,
    rows: &'a Rows,
    job: &'a Job,
    order: &'a Order,
}

impl Stand<'_> {
    /// Reads all rows once, and looks whether they are all there.
    fn warm_up(&self) -> Result<()> {
        let mut count = 0;
        self.store.read(&mut |reader| reader.scan(None, usize::MAX, &mut |_, _| count += 1))?;
        if count != self.order.rows {
            return Err(format!("{} rows were loaded, and {count} are there", self.order.rows).into());
        }
        Ok(())
    }

    fn measure(&self, workload: Workload, threads: usize) -> Result<Measured> {
        meter::settle(&self.job.dir)?;
        meter::forget_peak()?;
        // With a cgroup the kernel itself sees to it.
        let is_short = self.order.shelf != Shelf::Warm && self.job.cgroup.is_none();
        let _forgetting = is_short.then(|| cold::Forgetting::start(&self.job.dir));
        let measured = match workload {
            Workload::Get | Workload::Get4x => self.reads(threads, |window, random| window.get(random)),
            Workload::MultiGet4x => self.reads(threads, |window, random| window.multi_get(random)),
            Workload::Ranges => self.reads(threads, |window, random| window.range(random)),
            Workload::FullScan => self.reads(threads, |window, _| window.full_scan()),
            workload if workload.updates() => self.updates(workload, threads),
            _ => Err("this is not measured on a shelf".into()),
        }?;
        let (given, seen) = (memory(self.order)?, measured.seen);
        let disk = disk_bytes(&self.job.dir)? as f64 / self.order.bytes() as f64;
        let seen = Seen {
            memory_bytes: given.memory_bytes,
            budget_bytes: given.budget_bytes,
            disk_bytes_per_byte: Some(disk),
            ..seen
        };
        Ok(Measured { seen, ..measured })
    }

    fn reads(
        &self,
        threads: usize,
        work: impl Fn(&mut Window<'_>, u64) -> Result<()> + Sync,
    ) -> Result<Measured> {
        let length = Duration::from_secs_f64(self.job.window_s);
        let warm_up = WARM_READS.min(length * 2);
        reading::measure(
            self.store,
            self.rows,
            self.order.rows,
            &self.job.dir,
            threads,
            warm_up,
            length,
            work,
        )
    }

    /// Each thread changes a random row, durably, again and again. What the store still writes after the last commit
    /// belongs to the window.
    fn updates(&self, workload: Workload, threads: usize) -> Result<Measured> {
        let plan = Plan {
            workload,
            threads,
            window: Duration::from_secs_f64(self.order.update_s),
            dir: self.job.dir.clone(),
            burners: Vec::new(),
            rows_there: Some(self.order.rows),
        };
        crate::drive::threads(self.store, &plan)
    }
}

/// Random rows of those that are there, each with a value of another row.
pub(crate) fn update<'a>(rows: &'a Rows, count: u64, thread: usize, number: u64) -> Row<'a> {
    let random = mix((thread as u64) << 40 | number);
    Row { key: Rows::key(random % count), value: rows.value(random) }
}

/// Opens what was closed, and reads its first row: that is the time.
pub(crate) fn open_cold(job: &Job, order: &Order) -> Result<Measured> {
    let rows = Rows::new(VALUE_BYTES);
    meter::forget_peak()?;
    let order = &Order { own_bytes: meter::peak_bytes()?, ..order.clone() };
    let meter = Meter::start(&job.dir, &[])?;
    let start = Instant::now();
    let store = job.entrant.contender.open(&order.setup(&job.dir, job))?;
    let first = store.get(&Rows::key(0))?;
    let took = start.elapsed();
    let cost = meter.stop()?;
    if first.as_deref() != Some(rows.value(0)) {
        return Err("the first row is gone".into());
    }
    let seen = memory(order)?;
    std::mem::forget(store);
    let us = took.as_secs_f64() * 1e6;
    let latency = Latency { p50_us: us, p99_us: us, p999_us: us, max_us: us };
    Ok(Measured {
        seconds: took.as_secs_f64(),
        commits: 1,
        ops: 1,
        user_bytes: order.bytes(),
        latency,
        cost,
        seen,
    })
}

/// The device's own random reads of 4 KiB, 32 at a time, from a file as large as the rows.
pub(crate) fn device_reads(job: &Job, order: &Order) -> Result<Measured> {
    cold::random_reads(job, order.bytes(), Duration::from_secs_f64(job.window_s))
}
