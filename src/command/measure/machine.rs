//! What is measured on: the processor, the kernel, and what is below the directory. All of it is read, none of it
//! asked for; what the system does not tell is `unknown`.

use super::units::show_bytes;
use seawall::wal::disk::Backend;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const UNKNOWN: &str = "unknown";

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) system: String,
}

impl Machine {
    pub(crate) fn look() -> Machine {
        let cpus = read("/proc/cpuinfo");
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib = memory.trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0);
        let cpu = ["model name", "Model", "cpu model", "CPU part"].iter().find_map(|name| field(&cpus, name));
        let kernel = read("/proc/sys/kernel/osrelease");
        Machine {
            cpu: format!("{} ({})", cpu.as_deref().unwrap_or(UNKNOWN), std::env::consts::ARCH),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib << 10,
            system: format!("{} {}", std::env::consts::OS, kernel.trim()).trim().to_owned(),
        }
    }
}

impl Machine {
    /// A line for people.
    pub(crate) fn line(&self) -> String {
        let memory = show_bytes(self.memory_bytes);
        format!("{}, {} cores, {memory}; {}", self.cpu, self.cores, self.system)
    }
}

/// What is below a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) dir: String,
    pub(crate) file_system: String,
    /// Those of the mount and of the file system, as the kernel lists them.
    pub(crate) mount_options: Option<String>,
    pub(crate) device: Option<BlockDevice>,
}

/// A block device, as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct BlockDevice {
    pub(crate) name: String,
    pub(crate) model: Option<String>,
    /// `write back`: it has a cache that must be flushed, and the kernel does. `write through`: none that matters.
    pub(crate) write_cache: Option<String>,
    /// It can write one block through its cache; otherwise a durable write is a write and a flush.
    pub(crate) fua: Option<bool>,
}

impl Place {
    pub(crate) fn look(dir: &Path, backend: &Backend) -> Place {
        let number = device_number(dir);
        let mounts = read("/proc/self/mountinfo");
        Place {
            dir: dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).display().to_string(),
            file_system: backend.file_system.clone(),
            mount_options: number.as_deref().and_then(|number| mount_options(&mounts, number)),
            device: number.as_deref().and_then(BlockDevice::look),
        }
    }

    /// The file system was told not to flush.
    pub(crate) fn is_without_barriers(&self) -> bool {
        let options = self.mount_options.as_deref().unwrap_or_default();
        options.split(',').any(|option| ["nobarrier", "barrier=0", "barrier=none"].contains(&option))
    }

    /// A line for people.
    pub(crate) fn line(&self) -> String {
        let device = match &self.device {
            None => String::new(),
            Some(device) => {
                let model = device.model.as_deref().map(|model| format!(" ({model})")).unwrap_or_default();
                let cache = device.write_cache.as_deref().unwrap_or(UNKNOWN);
                let fua = if device.fua == Some(true) { ", FUA" } else { "" };
                format!(" on {}{model}, cache: {cache}{fua}", device.name)
            }
        };
        format!("{}{device}", self.file_system)
    }
}

impl BlockDevice {
    fn look(number: &str) -> Option<BlockDevice> {
        let mut dir = PathBuf::from(format!("/sys/dev/block/{number}")).canonicalize().ok()?;
        // A partition has its disk's queue.
        if dir.join("partition").exists() {
            dir.pop();
        }
        let attribute = |name: &str| {
            let text = std::fs::read_to_string(dir.join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        Some(BlockDevice {
            name: dir.file_name()?.to_string_lossy().into_owned(),
            model: attribute("device/model"),
            write_cache: attribute("queue/write_cache"),
            fua: attribute("queue/fua").map(|text| text == "1"),
        })
    }
}

/// Of the device that the directory's file system is on, as `major:minor`.
#[cfg(target_os = "linux")]
fn device_number(dir: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let number = std::fs::metadata(dir).ok()?.dev();
    Some(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

#[cfg(not(target_os = "linux"))]
fn device_number(_: &Path) -> Option<String> {
    None
}

/// Fields of a line: id, parent, `major:minor`, root, mount point, options, …, `-`, type, source, its own options.
fn mount_options(mounts: &str, number: &str) -> Option<String> {
    // Of several mounts of one device the last hides the others where they meet.
    let line = mounts.lines().rfind(|line| line.split(' ').nth(2) == Some(number))?;
    let (mount, file_system) = line.split_once(" - ")?;
    let (of_mount, own) = (mount.split(' ').nth(5)?, file_system.split(' ').nth(2)?);
    Some(format!("{of_mount},{own}"))
}

fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(found, _)| found.trim() == name);
    value.map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,discard,errors=remount-ro
30 27 0:30 / /tmp rw,nosuid - tmpfs tmpfs rw,size=1024k
31 27 8:1 / /mnt/a\\040b rw,noatime - ext4 /dev/sda1 rw,nobarrier
";

    fn with(options: Option<String>) -> Place {
        Place { dir: "/".to_owned(), file_system: "ext4".to_owned(), mount_options: options, device: None }
    }

    #[test]
    fn a_mount_that_does_not_flush_is_seen() {
        let root = mount_options(MOUNTS, "254:0");
        assert_eq!(root.as_deref(), Some("rw,relatime,rw,discard,errors=remount-ro"));
        assert!(!with(root).is_without_barriers());
        assert!(with(mount_options(MOUNTS, "8:1")).is_without_barriers());
        assert_eq!(mount_options(MOUNTS, "8:2"), None);
        assert!(!with(None).is_without_barriers());
    }

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::look();
        assert!(machine.cores > 0 && machine.cpu.ends_with(&format!("({})", std::env::consts::ARCH)));
        assert_eq!(field("a : b: c\nd:\n", "a").as_deref(), Some("b: c"));
        assert_eq!(field("a : b: c\nd:\n", "d"), None);
    }
}
