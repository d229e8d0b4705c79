//! The end that a clean close notes in the anchor: believed where it is true, and only there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use seawall_wal::anchor::{Anchor, Closed, Slot};
use seawall_wal::disk::sim::{CrashStyle, Fault};
use seawall_wal::frame::{Flags, Header};
use seawall_wal::mutation::Mutation;
use seawall_wal::{Lsn, Outcome, SimDisk, SimRuntime, Wal, WalOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const SEGMENT: u64 = 1 << 20;
const DIR: &str = "/log";
const ANCHOR: &str = "/log/anchor";
/// The row of recovery's table for an end that was noted.
const CLOSED: &str = "closed here";

fn options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options()
        .segment_bytes(SEGMENT)
        .disk(disk.clone())
        .runtime(SimRuntime::new(disk.trace_hash()))
        .background(false)
}

fn open(disk: &Arc<SimDisk>) -> Wal {
    options(disk).open(DIR).unwrap()
}

/// As an owner opens it that has applied everything below `at`.
fn open_at(disk: &Arc<SimDisk>, at: Lsn) -> Wal {
    options(disk).start(at, at).open(DIR).unwrap()
}

fn payloads(wal: &Wal) -> Vec<Vec<u8>> {
    wal.read(..).unwrap().map(|record| record.unwrap().payload.to_vec()).collect()
}

fn anchor(disk: &SimDisk) -> Anchor {
    match Anchor::choose(&disk.read_file(ANCHOR).unwrap()) {
        Slot::Valid(anchor) => anchor,
        other => panic!("{other:?}"),
    }
}

/// Many records, closed; where an owner would go on that has applied them all.
fn closed(records: u32) -> (Arc<SimDisk>, Lsn) {
    let disk = SimDisk::new(3);
    let wal = open(&disk);
    for n in 0..records {
        wal.commit([n as u8; 5_000]).unwrap();
    }
    while wal.step().unwrap() {}
    let at = wal.barrier().unwrap();
    wal.close().unwrap();
    (disk, at)
}

fn end_of(disk: &SimDisk) -> Closed {
    anchor(disk).closed.expect("a clean close notes the end")
}

/// The log's end is known without reading the log.
#[test]
fn a_closed_log_is_not_read_to_find_its_end() {
    let opening = |disk: &Arc<SimDisk>, at| {
        disk.set_trace(true);
        let before = disk.trace().len();
        let wal = open_at(disk, at);
        let reads = disk.trace()[before..].iter().filter(|call| call.contains("read")).count();
        (reads, wal.recovery().clone(), wal.barrier().unwrap())
    };
    let (disk, at) = closed(100);
    assert_eq!(end_of(&disk).end, at);
    let (few, report, next) = opening(&disk.crash_copy(), at);
    assert_eq!((report.row, report.end, report.bytes), (CLOSED, at, 0));
    // Without the note, as an older program left it.
    let old = disk.crash_copy();
    let unnoted = Anchor { closed: None, ..anchor(&old) };
    let mut bytes = old.read_file(ANCHOR).unwrap();
    bytes[unnoted.offset() as usize..][..4096].copy_from_slice(&unnoted.encode());
    old.write_file(ANCHOR, &bytes).unwrap();
    let (more, report, next_of_old) = opening(&old, at);
    assert_eq!((report.row, report.end, next_of_old), ("blank behind the end", at, next));
    assert!(few < more + 3, "{few} reads, and {more} without the note");
    // What was closed again without a write is known again.
    let again = disk.crash_copy();
    open_at(&again, at).close().unwrap();
    assert_eq!(end_of(&again), end_of(&disk));
    let wal = open_at(&again, at);
    assert_eq!(wal.recovery().row, CLOSED);
    wal.commit(b"on").unwrap();
    wal.close().unwrap();
    let all = payloads(&open(&again));
    assert_eq!((all.len(), &*all[100]), (101, &b"on"[..]));
}

/// From the moment that a log is opened for writing, nothing is noted any more: not behind a crash either.
#[test]
fn an_opened_log_notes_no_end() {
    let (disk, at) = closed(20);
    let wal = open_at(&disk, at);
    assert_eq!(anchor(&disk).closed, None);
    disk.set_crash_style(Some(CrashStyle::KeepNone));
    let after = disk.crash_copy();
    assert_eq!((anchor(&after).closed, anchor(&after).clean), (None, false));
    assert_ne!(open_at(&after, at).recovery().row, CLOSED);
    drop(wal);
}

/// An anchor from before, whichever of its slots, over a log that went on: nothing is lost.
#[test]
fn a_stale_note_is_not_believed() {
    for (records, appended) in [(20, 1), (20, 400), (0, 1), (0, 3)] {
        let (disk, at) = closed(records);
        let stale = disk.read_file(ANCHOR).unwrap();
        let wal = open_at(&disk, at);
        for n in 0..appended {
            wal.commit([n as u8; 6_000]).unwrap();
        }
        drop(wal);
        disk.write_file(ANCHOR, &stale).unwrap();
        let wal = open_at(&disk, at);
        let what = format!("{records} records, then {appended}");
        // It may have been closed meanwhile, but not where this anchor says.
        assert_ne!(wal.recovery().row, CLOSED, "{what}");
        assert_eq!(payloads(&wal).len() as u32, records + appended as u32, "{what}");
    }
}

/// A frame of the same use behind the end that was noted, whole or torn, and one in a file whose header is lost.
#[test]
fn what_stands_behind_the_end_is_seen() {
    let (disk, at) = closed(20);
    let segment = format!("{DIR}/{:016x}.log", at.0 / SEGMENT);
    let bytes = disk.read_file(&segment).unwrap();
    let end = end_of(&disk);
    let (last, offset) = ((end.last.0 % SEGMENT) as usize, (end.end.0 % SEGMENT) as usize);
    let mut header = Header::parse(&bytes[last..]).unwrap();
    (header.lsn, header.previous) = (end.end, header.checksum);
    assert_eq!((header.flags, offset - last), (Flags::SEAL, 4096));
    for torn in [false, true] {
        let mut behind = bytes.clone();
        let mut frame = vec![7; 4096];
        let (length, flags) = if torn { (100, Flags::NONE) } else { (0, Flags::SEAL) };
        seawall_wal::frame::finish(&mut frame, &Header { length, flags, ..header });
        frame[70] ^= u8::from(torn);
        behind[offset..offset + frame.len()].copy_from_slice(&frame);
        let changed = disk.crash_copy();
        changed.write_file(&segment, &behind).unwrap();
        for wal in [options(&changed).start(at, at), options(&changed)] {
            let report = wal.read_only(true).open(DIR).unwrap().recovery().clone();
            assert_ne!(report.row, CLOSED, "torn: {torn}");
        }
    }
    // In the next segment's place, under no header.
    let next = format!("{DIR}/{:016x}.log", at.0 / SEGMENT + 1);
    let mut file = vec![0; SEGMENT as usize];
    header.lsn = Lsn((at.0 / SEGMENT + 1) * SEGMENT + 4096);
    let mut frame = bytes[last..offset].to_vec();
    seawall_wal::frame::finish(&mut frame, &header);
    file[4096..4096 + frame.len()].copy_from_slice(&frame);
    let changed = disk.crash_copy();
    changed.write_file(&next, &file).unwrap();
    let error = options(&changed).start(at, at).open(DIR).unwrap_err();
    assert!(error.to_string().contains("successor's header broken"), "{error}");
}

/// Any damage to the note, or to the frame that it names: the log is then read as one that was not closed, or refused for
/// what is really missing.
#[test]
fn a_damaged_note_is_not_believed() {
    let (disk, at) = closed(20);
    let (noted, end) = (anchor(&disk), end_of(&disk));
    let wrong = [
        Closed { end: Lsn(end.end.0 + 4096), ..end },
        Closed { end: Lsn(end.end.0 - 4096), ..end },
        Closed { end: Lsn(u64::MAX), ..end },
        Closed { last: Lsn(end.last.0 - 4096), ..end },
        Closed { last: Lsn::ZERO, ..end },
        Closed { last: Lsn(end.last.0 + 1), ..end },
        Closed { last: Lsn(u64::MAX), ..end },
        Closed { checksum: end.checksum ^ 1, ..end },
    ];
    for closed in wrong {
        let changed = disk.crash_copy();
        let mut bytes = changed.read_file(ANCHOR).unwrap();
        let slot = Anchor { closed: Some(closed), ..noted };
        bytes[slot.offset() as usize..][..4096].copy_from_slice(&slot.encode());
        changed.write_file(ANCHOR, &bytes).unwrap();
        let wal = open_at(&changed, at);
        assert_ne!(wal.recovery().row, CLOSED, "{closed:?}");
        assert_eq!(wal.recovery().outcome, Outcome::Clean);
        assert_eq!(payloads(&wal).len(), 20);
    }
    // Beside a torn slot nothing is noted.
    let torn = disk.crash_copy();
    torn.flip(ANCHOR, (noted.sequence + 1) % 2 * 4096 + 80, 1).unwrap();
    assert_ne!(open_at(&torn, at).recovery().row, CLOSED);
    // The last frame, which nobody else looks at.
    let segment = format!("{DIR}/{:016x}.log", end.last.0 / SEGMENT);
    let damaged = disk.crash_copy();
    damaged.flip(&segment, end.last.0 % SEGMENT + 20, 1).unwrap();
    assert_ne!(open_at(&damaged, at).recovery().row, CLOSED);
}

/// A log is closed, opened, written and closed again, and the power fails at every call, and once more at every call of
/// what comes behind that.
fn cut_everywhere(mutation: Option<Mutation>) -> u64 {
    let lives = |disk: &Arc<SimDisk>, from: u8| -> Vec<u8> {
        let mut acked = Vec::new();
        for life in from..from + 2 {
            let Ok(wal) = options(disk).segment_bytes(64 << 10).mutation(mutation).open(DIR) else { break };
            for n in 0..2 {
                let name = life * 10 + n;
                if wal.commit([name; 3_000]).is_ok() {
                    acked.push(name);
                }
            }
            let _ = wal.close();
        }
        acked
    };
    let check = |disk: &Arc<SimDisk>, acked: &[u8], what: &str| {
        let wal = options(disk).segment_bytes(64 << 10).mutation(mutation).open(DIR);
        let wal = wal.unwrap_or_else(|error| panic!("{what}: {error}"));
        let found: Vec<u8> = payloads(&wal).iter().map(|bytes| bytes[0]).collect();
        assert!(acked.iter().all(|name| found.contains(name)), "{what}: {acked:?} of {found:?}");
        u64::from(wal.recovery().row == CLOSED)
    };
    let mut hits = 0;
    let first = SimDisk::new(5);
    lives(&first, 1);
    let calls = first.calls();
    for at in 0..calls {
        for style in [CrashStyle::KeepNone, CrashStyle::KeepAll] {
            let disk = SimDisk::new(5);
            disk.set_crash_style(Some(style));
            disk.fail(Fault::power_cut().at_call(at));
            let mut acked = lives(&disk, 1);
            let disk = disk.crash();
            disk.set_crash_style(Some(style));
            let what = format!("{style:?} at {at}");
            hits += check(&disk.crash_copy(), &acked, &what);
            disk.fail(Fault::power_cut().at_call(disk.calls() + at % 23));
            acked.extend(lives(&disk, 4));
            hits += check(&disk.crash(), &acked, &format!("{what}, again"));
        }
    }
    hits
}

#[test]
fn the_power_fails_at_every_call() {
    assert!(cut_everywhere(None) > 10, "hardly any end was noted");
}

#[test]
fn trust_in_a_stale_end_is_noticed() {
    let found = catch_unwind(AssertUnwindSafe(|| cut_everywhere(Some(Mutation::TrustStaleEnd))));
    assert!(found.is_err(), "an end that is not taken back goes unnoticed");
}
