//! A limit for the memory of a child, its share of the page cache included: a cgroup that whoever runs the race has made
//! for it (`systemd-run --scope -p Delegate=yes`, or by hand). One child at a time is in it.

use crate::Result;
use std::fs;
use std::path::Path;

/// What a process needs besides what a store was given: its program, its stacks, its buffers.
pub(crate) const BESIDE_BYTES: u64 = 64 << 20;

/// Limits the cgroup, and puts this process into it.
pub(crate) fn enter(dir: &Path, bytes: u64) -> Result<()> {
    let cannot = |what: &Path, error| format!("cannot limit memory by {}: {error}", what.display());
    // Version 2, or 1.
    let limit = ["memory.max", "memory.limit_in_bytes"].map(|name| dir.join(name));
    let Some(limit) = limit.iter().find(|file| file.exists()) else {
        return Err(format!("{} is no cgroup with a limit for memory", dir.display()).into());
    };
    fs::write(limit, bytes.to_string()).map_err(|error| cannot(limit, error))?;
    let members = dir.join("cgroup.procs");
    fs::write(&members, std::process::id().to_string()).map_err(|error| cannot(&members, error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_set_before_the_process_enters() {
        for (name, is_one) in [("memory.max", true), ("memory.limit_in_bytes", true), ("other", false)] {
            let dir = std::env::temp_dir().join(format!("race-cgroup-{}-{name}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(name), "max").unwrap();
            assert_eq!(enter(&dir, 1 << 30).is_ok(), is_one);
            if is_one {
                assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), (1_u64 << 30).to_string());
                let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
                assert_eq!(members, std::process::id().to_string());
            }
            fs::remove_dir_all(dir).unwrap();
        }
    }
}
