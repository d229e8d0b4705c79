//! What the device can do: single durable overwrites of 4 KiB, the way that the log itself writes.

use crate::command::{Failure, Outcome, Ui};
use seawall::wal::AlignedBuf;
use seawall::wal::disk::{Disk, DiskFile, DurableWrite, Open, OsDisk};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the device is measured at the beginning and at the end.
pub(crate) const CALIBRATION: Duration = Duration::from_millis(1000);
/// How long it is measured before each measurement of the store.
pub(crate) const INTERLUDE: Duration = Duration::from_millis(500);

const WINDOW: Duration = Duration::from_millis(25);
const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: u64 = 16 << 20;
/// Above this a durable write has hardly reached any device.
pub(crate) const SUSPICIOUS_WRITES_PER_S: f64 = 200_000.0;

/// True for file systems that keep nothing on any device.
pub(crate) fn is_memory(file_system: &str) -> bool {
    matches!(file_system, "tmpfs" | "ramfs")
}

/// Warns, before anything is measured, if there is no device there.
pub(crate) fn warn_of_memory(ui: &Ui, dir: &Path, file_system: &str) {
    if is_memory(file_system) {
        ui.warn(format!(
            "{} is memory ({file_system}), not a disk: what is measured here says nothing about one",
            dir.display()
        ));
    }
}

/// Warns of a rate that is hardly a device's.
pub(crate) fn warn_of_rate(ui: &Ui, rate: f64) {
    if rate > SUSPICIOUS_WRITES_PER_S {
        ui.warn(format!(
            "{rate:.0} durable writes/s is more than devices do: is it memory, or a cache that lies?"
        ));
    }
}

/// A file of written blocks to overwrite. Removed when dropped.
pub(crate) struct Device {
    disk: Arc<OsDisk>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    block: AlignedBuf,
}

impl Device {
    /// On a disk that may allow network file systems, or not.
    pub(crate) fn prepare(ui: &Ui, disk: Arc<OsDisk>, dir: &Path) -> Outcome<Device> {
        let path = dir.join("device-rate");
        let backend = disk.describe(dir);
        ui.detail(|| format!("I/O by {} on {}: {}", backend.name, backend.file_system, backend.reason));
        let failed = |error| Failure::file("preparing", &path, &error);
        let file = disk.open(&path, Open::CreateNew).map_err(failed)?;
        let mut block = AlignedBuf::zeroed(BLOCK_BYTES).map_err(failed)?;
        block.fill(0xa5);
        let device = Device { disk, file, path: path.clone(), block };
        device.file.allocate(0, FILE_BYTES).and_then(|()| device.file.sync_data()).map_err(failed)?;
        Ok(device)
    }

    /// The way that these writes are made by now: a store's own, from the best that the system has not refused.
    pub(crate) fn method(&self) -> Option<DurableWrite> {
        self.file.durable_write()
    }

    /// Durable 4 KiB overwrites a second, one at a time, over `length`: the median of short windows, so that a stall
    /// caused by something else on the machine does not make the device look slow, and the store quick beside it.
    pub(crate) fn rate(&self, ui: &Ui, length: Duration) -> Outcome<f64> {
        let start = Instant::now();
        let mut rates = Vec::new();
        let mut writes = 0u64;
        while start.elapsed() < length {
            ui.check_interrupt()?;
            let window = Instant::now();
            let before = writes;
            while window.elapsed() < WINDOW {
                let offset = writes * BLOCK_BYTES as u64 % FILE_BYTES;
                let written = self.file.write_durable_at(&self.block, offset);
                written.map_err(|error| Failure::file("writing", &self.path, &error))?;
                writes += 1;
            }
            rates.push((writes - before) as f64 / window.elapsed().as_secs_f64());
        }
        rates.sort_unstable_by(f64::total_cmp);
        ui.detail(|| format!("device: {rates:.0?} durable writes/s in windows of {WINDOW:.0?}"));
        let rate = rates.get(rates.len() / 2).copied().unwrap_or_default();
        Ok(rate)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nothing depends on it; a file that stays shows when its directory is removed.
        let _ = self.disk.remove(&self.path);
    }
}
