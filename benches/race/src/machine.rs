//! Where the race runs.

use crate::meter::Device;
use crate::{Result, contenders};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the device is watched for others' flushes before the race.
const WATCHED: Duration = Duration::from_millis(500);

pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: FileSystem,
    /// Whether ext4 keeps a journal, which a growing file's sync has to commit; None for other file systems.
    pub(crate) journal: Option<bool>,
    pub(crate) device: Option<Device>,
    /// Flushes that others sent while the race did nothing.
    pub(crate) flushes_idle_per_s: Option<f64>,
    /// `2026-01-31 12:00 UTC`.
    pub(crate) date: String,
    /// seawall's revision, where git can tell it.
    pub(crate) revision: Option<String>,
    pub(crate) versions: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) name: String,
    pub(crate) options: String,
}

impl FileSystem {
    pub(crate) fn is_memory(&self) -> bool {
        ["tmpfs", "ramfs", "rootfs"].contains(&self.name.as_str())
    }
}

impl Machine {
    pub(crate) fn look(dir: &Path) -> Result<Machine> {
        let device = Device::of(dir);
        let file_system = file_system_of(dir)?;
        Ok(Machine {
            processor: field("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            processors: thread::available_parallelism()?.get(),
            memory_bytes: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024,
            kernel: format!(
                "{} {}",
                rustix::system::uname().sysname().to_string_lossy(),
                rustix::system::uname().release().to_string_lossy()
            ),
            journal: device.as_ref().filter(|_| file_system.name == "ext4").map(has_journal),
            file_system,
            flushes_idle_per_s: device.as_ref().and_then(flushes_idle_per_s),
            device,
            date: date(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()),
            revision: revision(),
            versions: contenders::versions(),
        })
    }

    /// True if every durable write must show in the device's count of flushes.
    pub(crate) fn shows_flushes(&self) -> bool {
        self.device.as_ref().is_some_and(Device::shows_flushes)
    }

    /// Name and value, for the report.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let device = self.device.as_ref().map_or_else(
            || "none of its own".to_owned(),
            |device| {
                let cache = device.queue("write_cache").unwrap_or_default();
                let fua = if device.queue("fua").as_deref() == Some("1") { "FUA" } else { "no FUA" };
                format!("{} ({cache} cache, {fua})", device.name)
            },
        );
        let journal = if self.journal == Some(false) { "; without a journal" } else { "" };
        let versions: Vec<String> =
            self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        vec![
            (
                "Machine",
                format!(
                    "{}, {} processors, {:.0} GiB",
                    self.processor,
                    self.processors,
                    self.memory_bytes as f64 / f64::from(1 << 30)
                ),
            ),
            ("Kernel", self.kernel.clone()),
            ("File system", format!("{} ({}{journal})", self.file_system.name, self.file_system.options)),
            ("Device", device),
            ("Date", self.date.clone()),
            ("seawall", self.revision.clone().unwrap_or_else(|| "not under git".to_owned())),
            ("Peers", versions.join(", ")),
        ]
    }
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// jbd2 names its directories after the device, a partition included.
fn has_journal(device: &Device) -> bool {
    let journals = fs::read_dir("/proc/fs/jbd2")
        .map(|journals| journals.flatten().collect())
        .unwrap_or_else(|_| Vec::new());
    journals.iter().any(|journal| journal.file_name().to_string_lossy().starts_with(&device.name))
}

fn flushes_idle_per_s(device: &Device) -> Option<f64> {
    let before = device.counts()?.flushes?;
    thread::sleep(WATCHED);
    Some((device.counts()?.flushes? - before) as f64 / WATCHED.as_secs_f64())
}

pub(crate) fn file_system_of(dir: &Path) -> Result<FileSystem> {
    let dir = fs::canonicalize(dir)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    file_system_in(&mounts, &dir)
        .ok_or_else(|| format!("{} is on no mounted file system", dir.display()).into())
}

/// The mount that is nearest above; of several on one place, the one mounted last.
fn file_system_in(mounts: &str, dir: &Path) -> Option<FileSystem> {
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(4);
            let (place, options) = (fields.next()?.replace("\\040", " "), fields.next()?);
            let found = FileSystem { name: after.split(' ').next()?.to_owned(), options: options.to_owned() };
            dir.starts_with(&place).then_some((place.len(), found))
        })
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, found)| found)
}

fn revision() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let revision = git(&["rev-parse", "--short=12", "HEAD"])?;
    // The report itself may be what has changed.
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", "../..", ":!../../docs"])?;
    Some(if changed.is_empty() { revision } else { format!("{revision} and changes not committed") })
}

/// A date of the proleptic Gregorian calendar, from seconds since 1970.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days: years begin in March, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_around_leap_days() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_709_251_199), "2024-02-29 23:59 UTC");
        assert_eq!(date(1_709_251_200), "2024-03-01 00:00 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "1 0 8:1 / / rw,relatime - ext4 /dev/a rw\n\
                      2 1 0:5 / /mnt rw - tmpfs tmpfs rw\n\
                      3 2 8:2 / /mnt/my\\040disk rw,noatime shared:1 - xfs /dev/b rw";
        let found = |dir: &str| file_system_in(mounts, Path::new(dir)).unwrap_or_default();
        assert_eq!(found("/home").name, "ext4");
        assert!(found("/mnt/other").is_memory());
        let disk = FileSystem { name: "xfs".to_owned(), options: "rw,noatime".to_owned() };
        assert_eq!(found("/mnt/my disk/race"), disk);
        assert_eq!(found("/mntx").name, "ext4");
    }
}
