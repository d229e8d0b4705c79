//! What the files of a store say, whoever has it open.

use super::super::log::{directory, read_anchor};
use super::super::measure::units::show_bytes;
use super::super::time::utc;
use super::super::{Failure, Outcome};
use super::{Findings, ago};
use seawall::wal::anchor;
use seawall::wal::disk::{Disk, OsDisk};
use seawall_engine::tree::Superblock;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Less is soon used up.
const ROOM_MIN: u64 = 1 << 30;

/// Says what is found; whether the store is a replica.
pub(super) fn examine(dir: &Path, found: &mut Findings) -> Outcome<bool> {
    let log = directory(dir)?;
    let anchor = match read_anchor(&log) {
        Ok(anchor) => anchor,
        Err(failure) if failure.exit == super::super::Exit::Corruption => {
            found.damage("log", failure.message);
            return Ok(false);
        }
        Err(failure) => return Err(failure),
    };
    let shown = dir.display();
    if anchor.rewinding.0 > 0 {
        let to = anchor.rewinding;
        found
            .problem("rewind", format!("going back to LSN {to} was begun, and not finished"))
            .helps(format!("`seawall rewind {shown} --to HOST:PORT` once more, to the same primary"));
    }
    if anchor.promised > anchor.epoch && !anchor.is_replica {
        let (epoch, promised) = (anchor.epoch, anchor.promised);
        let says = format!(
            "another store has taken this one's place, in epoch {promised}; this one's log is of epoch {epoch}: it opens \
             for reading only"
        );
        let helps = format!(
            "`seawall rewind {shown} --to HOST:PORT` makes it a replica of the new primary; read first what it may have \
             committed alone"
        );
        found.problem("fenced", says).helps(helps);
    } else if anchor.promised > anchor.epoch {
        let promised = anchor.promised;
        found.note(
            "promise",
            format!("it follows no primary of an epoch below {promised}, as it has promised"),
        );
    }
    let role = if anchor.is_replica { "a replica" } else { "a primary" };
    found.note("role", format!("{role}, in epoch {}", anchor.epoch));
    checkpoint(dir, found)?;
    let (count, bytes) = segments(&log)?;
    found
        .note("log", format!("{count} files, {} on disk, begins at LSN {}", show_bytes(bytes), anchor.first));
    room(dir, found)?;
    Ok(anchor.is_replica)
}

fn checkpoint(dir: &Path, found: &mut Findings) -> Outcome {
    let data = dir.join("data");
    let mut head = Vec::new();
    let read = std::fs::File::open(&data).and_then(|file| file.take(8192).read_to_end(&mut head));
    read.map_err(|error| Failure::file("reading", &data, &error))?;
    let Some(superblock) = Superblock::newest(&head) else {
        // Opening the store says what is wrong with them.
        return Ok(());
    };
    let (lsn, at) = (superblock.checkpoint_lsn, superblock.visible_time_us);
    if at == 0 {
        found.note(
            "checkpoint",
            format!("none since the store was made; the log from LSN {lsn} on is read when it opens"),
        );
        return Ok(());
    }
    let age = now_us().saturating_sub(at);
    let said = ago(Duration::from_micros(age));
    found.note(
        "checkpoint",
        format!("{said} ago, at {}: everything below LSN {lsn} is in the data file", utc(at)),
    );
    Ok(())
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Files of the log, and their bytes.
fn segments(log: &Path) -> Outcome<(usize, u64)> {
    let failed = |error: std::io::Error| Failure::file("reading", log, &error);
    let disk = OsDisk::new();
    let names = disk.list(log).map_err(failed)?;
    let segments: Vec<&String> = names.iter().filter(|name| *name != anchor::FILE_NAME).collect();
    // One may go while it is looked at.
    let bytes = segments.iter().filter_map(|name| disk.allocated_bytes(&log.join(name)).ok()).sum();
    Ok((segments.len(), bytes))
}

fn room(dir: &Path, found: &mut Findings) -> Outcome {
    let free = OsDisk::new().free_bytes(dir).map_err(|error| Failure::file("looking at", dir, &error))?;
    let says = format!("{} are free where the store is", show_bytes(free));
    if free < ROOM_MIN {
        found.warning("disk", says).helps(
            "make room: without it commits get `NoSpace`; look who keeps the log, and drop slots that nobody needs",
        );
    } else {
        found.note("disk", says);
    }
    Ok(())
}
