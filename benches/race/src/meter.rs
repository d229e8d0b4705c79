//! What a window of time cost: this process's CPU time and context switches, and what reached the device.
//!
//! The device's own counters (`/sys/block/<device>/stat`) count everybody's writes and flushes: the race wants a
//! machine of its own, and says when it has none (see [`crate::machine::Machine::flushes_idle_per_s`]).

use crate::Result;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the block device below a directory keeps its counters.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// `/sys/block/<device>`.
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DeviceCounts {
    pub(crate) written_bytes: u64,
    /// None where the kernel does not count them.
    pub(crate) flushes: Option<u64>,
}

impl Device {
    /// The whole disk that holds a directory; None for file systems without one of their own (tmpfs, overlay, btrfs).
    pub(crate) fn of(dir: &Path) -> Option<Device> {
        let device = rustix::fs::stat(dir).ok()?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let mut dir = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        // Flushes are counted for the whole disk only.
        if dir.join("partition").exists() {
            dir.pop();
        }
        let name = dir.file_name()?.to_string_lossy().into_owned();
        Some(Device { dir, name })
    }

    /// Sectors written are field 7, flush requests field 16, of the kernel's block/stat.rst.
    pub(crate) fn counts(&self) -> Option<DeviceCounts> {
        let text = fs::read_to_string(self.dir.join("stat")).ok()?;
        let fields: Vec<u64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
        Some(DeviceCounts { written_bytes: fields.get(6)? * 512, flushes: fields.get(15).copied() })
    }

    /// A queue's setting: `write_cache`, `fua`.
    pub(crate) fn queue(&self, what: &str) -> Option<String> {
        Some(fs::read_to_string(self.dir.join("queue").join(what)).ok()?.trim().to_owned())
    }

    /// True if a durable write must show as a flush: the device has a volatile cache, and the kernel cannot write
    /// around it.
    pub(crate) fn shows_flushes(&self) -> bool {
        let cached = self.queue("write_cache").as_deref() == Some("write back");
        let fua = self.queue("fua").as_deref() == Some("1");
        cached && !fua && self.counts().is_some_and(|counts| counts.flushes.is_some())
    }
}

/// What a window cost.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// User and system time of all threads, in microseconds.
    pub(crate) cpu_us: f64,
    /// User time of all other processes: what disturbed the window. The kernel's own work for this process is not in
    /// it.
    pub(crate) others_cpu_us: f64,
    /// Voluntary and involuntary.
    pub(crate) switches: u64,
    /// What the kernel charges this process with (`/proc/self/io`, `write_bytes`).
    pub(crate) process_bytes: u64,
    /// What the device was sent, by anybody.
    pub(crate) device_bytes: Option<u64>,
    pub(crate) flushes: Option<u64>,
}

pub(crate) struct Meter {
    device: Option<Device>,
    /// Threads of this process whose time is not the contender's.
    without: Vec<ThreadId>,
    before: Sample,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    cpu_us: f64,
    user_us: f64,
    all_user_us: f64,
    switches: u64,
    process_bytes: u64,
    device: Option<DeviceCounts>,
}

impl Meter {
    /// `without` are threads that belong to the workload, not to the contender.
    pub(crate) fn start(dir: &Path, without: &[ThreadId]) -> Result<Meter> {
        let device = Device::of(dir);
        let before = sample(device.as_ref(), without)?;
        Ok(Meter { device, without: without.to_vec(), before })
    }

    pub(crate) fn stop(&self) -> Result<Cost> {
        let (before, after) = (self.before, sample(self.device.as_ref(), &self.without)?);
        let device = before.device.zip(after.device);
        Ok(Cost {
            cpu_us: after.cpu_us - before.cpu_us,
            others_cpu_us: (after.all_user_us - before.all_user_us - (after.user_us - before.user_us))
                .max(0.0),
            switches: after.switches - before.switches,
            process_bytes: after.process_bytes - before.process_bytes,
            device_bytes: device.map(|(before, after)| after.written_bytes - before.written_bytes),
            flushes: device.and_then(|(before, after)| Some(after.flushes? - before.flushes?)),
        })
    }
}

fn sample(device: Option<&Device>, without: &[ThreadId]) -> Result<Sample> {
    let (mut not_his_us, mut not_his_switches) = (0.0, 0);
    for thread in without {
        let (us, switches) = thread.usage()?;
        not_his_us += us;
        not_his_switches += switches;
    }
    let usage = usage()?;
    let time_us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    let io = fs::read_to_string("/proc/self/io")?;
    let process_bytes = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .and_then(|bytes| bytes.trim().parse().ok())
        .ok_or("/proc/self/io has no write_bytes")?;
    Ok(Sample {
        cpu_us: time_us(usage.ru_utime) + time_us(usage.ru_stime) - not_his_us,
        user_us: time_us(usage.ru_utime),
        all_user_us: all_user_us()?,
        switches: ((usage.ru_nvcsw + usage.ru_nivcsw) as u64).saturating_sub(not_his_switches),
        process_bytes,
        device: device.and_then(Device::counts),
    })
}

/// A live thread of this process, by the kernel's number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadId(i32);

impl ThreadId {
    pub(crate) fn own() -> ThreadId {
        ThreadId(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// Its processor time in microseconds, and its context switches of both kinds.
    fn usage(self) -> Result<(f64, u64)> {
        let dir = PathBuf::from(format!("/proc/self/task/{}", self.0));
        let times = fs::read_to_string(dir.join("schedstat"))?;
        let ns: f64 = times.split_whitespace().next().unwrap_or_default().parse()?;
        let status = fs::read_to_string(dir.join("status"))?;
        let switches = status.lines().filter(|line| line.contains("ctxt_switches:"));
        let switches = switches.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum();
        Ok((ns / 1e3, switches))
    }
}

/// User time of all processes since the machine began: `user` and `nice` of `/proc/stat`, in hundredths of a second.
fn all_user_us() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.split_whitespace().skip(1).take(2);
    let ticks: Option<f64> = fields.map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks.ok_or("/proc/stat does not begin with the processors' times")? * 1e4)
}

/// Of all threads, those that have ended included.
fn usage() -> Result<libc::rusage> {
    // SAFETY: all zeros is a value of this plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live struct of the right type.
    match unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) } {
        0 => Ok(usage),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// The most memory that this process has from here on is what [`peak_bytes`] says.
pub(crate) fn forget_peak() -> Result<()> {
    // 5: "reset the peak resident set size", proc(5).
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

pub(crate) fn peak_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.ok_or("/proc/self/status has no VmHWM")? << 10)
}

/// Writes back what the file system holds, so that it does not fall into somebody's window.
pub(crate) fn settle(dir: &Path) -> Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
    Ok(rustix::fs::syncfs(fd)?)
}
