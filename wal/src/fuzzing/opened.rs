//! Opening a log of unknown content, reading all of it, writing to it, and opening it again: within bounds.

use super::Files;
use crate::disk::{Disk, SimDisk};
use crate::log::{Outcome, Repair, Wal, WalOptions};
use crate::runtime::SimRuntime;
use crate::segment::SEGMENT_BYTES_MIN;
use crate::{Lsn, WalReader};
use std::sync::Arc;

pub(super) const DIR: &str = "/log";

/// What a log showed.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) outcome: Outcome,
    pub(super) records: Vec<(Lsn, Vec<u8>)>,
    /// Reading ended without an error.
    pub(super) is_whole: bool,
    /// After another record was committed, the log closed and opened again: what it showed then.
    pub(super) again: Result<Vec<(Lsn, Vec<u8>)>, crate::Error>,
}

/// What is committed behind whatever was found.
pub(super) const AFTER: &[u8] = b"after recovery";

pub(super) fn options(disk: &Arc<SimDisk>) -> WalOptions {
    let disk: Arc<dyn Disk> = disk.clone();
    Wal::options().segment_bytes(SEGMENT_BYTES_MIN).background(false).disk(disk).runtime(SimRuntime::new(1))
}

/// Opens the log on a disk with these files; `None` if it was refused.
pub(super) fn show(files: &Files, repair: Repair, is_direct: bool) -> Option<Shown> {
    let disk = files.disk(1);
    disk.set_direct(is_direct);
    disk.set_trace(true);
    let opened = options(&disk).repair(repair).open(DIR);
    let shown = opened.ok().map(|wal| {
        let outcome = wal.recovery().outcome;
        let (records, is_whole) = wal.read(..).map_or((Vec::new(), false), all);
        let written = wal.commit(AFTER).and_then(|_| wal.close());
        let again = written.and_then(|()| {
            let wal = options(&disk).open(DIR)?;
            let (records, _) = all(wal.read(..)?);
            wal.close().map(|()| records)
        });
        Shown { outcome, records, is_whole, again }
    });
    check_bounds(&disk, files);
    shown
}

/// Opens the log read-only, which writes nothing.
pub(super) fn look(files: &Files) -> Option<Vec<(Lsn, Vec<u8>)>> {
    let disk = files.disk(2);
    disk.set_trace(true);
    let records = WalReader::open_with(DIR, Lsn::ZERO, &options(&disk)).ok().map(|reader| all(reader).0);
    assert!(Files::of(&disk) == *files, "reading changed the disk");
    check_bounds(&disk, files);
    records
}

fn all(mut reader: WalReader) -> (Vec<(Lsn, Vec<u8>)>, bool) {
    let mut records = Vec::new();
    loop {
        match reader.next_ref() {
            Ok(Some((lsn, payload))) => records.push((lsn, payload.to_vec())),
            Ok(None) => return (records, true),
            Err(_) => return (records, false),
        }
    }
}

/// Work in proportion to what is there: calls, and bytes asked for.
fn check_bounds(disk: &SimDisk, files: &Files) {
    let blocks = files.bytes() / 4096 + 64;
    let calls = disk.calls();
    assert!(calls < 64 * blocks, "{calls} calls for {blocks} blocks");
    let mut asked = 0;
    for line in disk.trace() {
        asked += read_bytes(&line).unwrap_or(0);
    }
    let bytes = files.bytes() + (1 << 20);
    assert!(asked <= 64 * bytes, "{asked} bytes read of {bytes}");
}

/// The bytes that a line of a disk's trace asked for, if it is a read.
fn read_bytes(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == "read")?;
    let place = words.find(|word| word.contains('+'))?;
    place.rsplit('+').next()?.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}
