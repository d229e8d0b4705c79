//! File systems of the kernel, on a [`Device`](super::device::Device) and on images of one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// After so long, whoever holds a file holds it for good.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file system, and the ways to mount it that are tried in turn.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    make: &'static [&'static str],
    options: &'static [&'static str],
    /// Bytes that it takes a device to write whole or not at all: Btrfs has a checksum on a superblock of a page, and one of them
    /// only that mounting looks at.
    pub(crate) sector: usize,
}

pub(crate) const EXT4: Kind = Kind {
    name: "ext4",
    make: &["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"],
    options: &["data=ordered", "data=writeback", "data=ordered,nodelalloc", "data=journal"],
    sector: 512,
};
pub(crate) const XFS: Kind = Kind {
    name: "xfs",
    make: &["mkfs.xfs", "-q", "-f", "-K"],
    options: &["nouuid", "nouuid,wsync"],
    sector: 512,
};
pub(crate) const BTRFS: Kind = Kind {
    name: "btrfs",
    make: &["mkfs.btrfs", "-q", "-f", "-K"],
    options: &["noatime", "nodatacow"],
    sector: 4096,
};

impl Kind {
    /// Makes an empty one in a file.
    pub(crate) fn make(&self, image: &Path) -> Result<(), String> {
        let mut args = self.make[1..].to_vec();
        args.push(image.to_str().unwrap());
        call(self.make[0], &args).map(drop)
    }

    pub(crate) fn options(&self, turn: usize) -> &'static str {
        self.options[turn % self.options.len()]
    }
}

/// A mounted file system; unmounted when it is dropped.
pub(crate) struct Mounted {
    pub(crate) dir: PathBuf,
}

impl Mounted {
    /// `file` becomes a loop device, and what is on it is mounted at `dir`.
    pub(crate) fn new(kind: &Kind, file: &Path, dir: &Path, options: &str) -> Result<Mounted, String> {
        if kind.name == BTRFS.name {
            // It remembers devices by what they say they are, and an image says what the device says. It fails where there is nothing
            // to forget.
            let _ = call("btrfs", &["device", "scan", "--forget"]);
        }
        let device = call("losetup", &["--find", "--show", "--direct-io=on", file.to_str().unwrap()])?;
        let mounted = call("mount", &["-t", kind.name, "-o", options, device.trim(), dir.to_str().unwrap()]);
        // Detached at once if it is not mounted, else when it is not any more.
        let detached = call("losetup", &["--detach", device.trim()]);
        mounted?;
        detached?;
        Ok(Mounted { dir: dir.to_owned() })
    }

    /// With all that the kernel has to write there. A process that was killed may hold its files a little longer.
    pub(crate) fn unmount(self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match call("umount", &[self.dir.to_str().unwrap()]) {
                Err(why) if start.elapsed() > PATIENCE => return Err(why),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                Ok(_) => break,
            }
        }
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A test has failed.
        let_go(&self.dir);
    }
}

/// What is mounted there is gone when the last file in it is closed. It fails where nothing is.
pub(crate) fn let_go(dir: &Path) {
    let _ = call("umount", &["-l", dir.to_str().unwrap()]);
}

fn call(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
