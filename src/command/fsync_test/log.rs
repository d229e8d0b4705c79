//! The log alone: threads that commit records of 128 bytes, each waiting until its own is on the device.

use crate::command::measure::device::Device;
use crate::command::measure::drive::{Done, Load, drive};
use crate::command::measure::latency::Quantiles;
use crate::command::measure::units;
use crate::command::measure::workplace::Workplace;
use crate::command::ui::Unit;
use crate::command::{Failure, Outcome, Ui};
use seawall::wal::{OsDisk, Wal};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

pub(super) use crate::command::measure::device::INTERLUDE;

const RECORD: [u8; 128] = [0xa5; 128];
/// What is older is given back while measuring, so that no time is too long for a small disk.
const LOG_BYTES_MAX: u64 = 512 << 20;
/// So often, in commits of one thread, that is looked at.
const TRIM_EVERY: u64 = 1024;

/// What the log did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Log {
    pub(super) record_bytes: u64,
    pub(super) io_backend: String,
    /// Why this backend, and how durable writes are made.
    pub(super) io_reason: String,
    /// How the device's own single writes beside it were made: by the method that a store comes down to here.
    pub(super) device_method: Option<String>,
    pub(super) rows: Vec<Row>,
}

/// So many committers.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) committers: u32,
    pub(super) commits_per_s: f64,
    #[serde(flatten)]
    pub(super) latency: Quantiles,
    pub(super) commits_per_sync: f64,
    /// Single durable 4 KiB writes, just before.
    pub(super) device_writes_per_s: f64,
    pub(super) ratio_to_device: f64,
}

pub(super) fn measure(
    ui: &Ui,
    disk: Arc<OsDisk>,
    workplace: &Workplace,
    committers: &[u32],
    length: Duration,
) -> Outcome<Log> {
    let wal = Wal::options().allow_network(true).open(workplace.path("log"))?;
    let recovery = wal.recovery();
    let (io_backend, io_reason) = (recovery.backend.to_owned(), recovery.backend_reason.clone());
    let device = Device::prepare(ui, disk, &workplace.dir)?;
    let bar = ui.progress(Some(committers.len() as u64), Unit::Measurements);
    let mut rows = Vec::new();
    for &threads in committers {
        bar.set_message(format!("the log, {}", units::show_threads(threads)));
        let device_writes_per_s = device.rate(ui, length.min(INTERLUDE))?;
        rows.push(row(ui, &wal, threads, length, device_writes_per_s)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    wal.close()?;
    let device_method = device.method().map(|method| method.to_string());
    Ok(Log { record_bytes: RECORD.len() as u64, io_backend, io_reason, device_method, rows })
}

fn row(ui: &Ui, wal: &Wal, threads: u32, length: Duration, device_writes_per_s: f64) -> Outcome<Row> {
    let before = wal.stats();
    let load = Load { threads, length, rate: None };
    let driven = drive(ui, &load, |thread| {
        let mut number = 0u64;
        Ok(move || {
            wal.commit(RECORD).map_err(Failure::from)?;
            number += 1;
            if thread == 0 && number.is_multiple_of(TRIM_EVERY) && wal.log_bytes() > LOG_BYTES_MAX {
                wal.truncate_before(wal.durable_lsn())?;
            }
            Ok(Done::WRITE)
        })
    })?;
    let syncs = wal.stats().syncs.saturating_sub(before.syncs).max(1);
    let commits_per_s = driven.per_second(driven.ops());
    Ok(Row {
        committers: threads,
        commits_per_s,
        latency: driven.latency()?.quantiles(),
        commits_per_sync: driven.ops() as f64 / syncs as f64,
        device_writes_per_s,
        ratio_to_device: commits_per_s / device_writes_per_s.max(1e-9),
    })
}
