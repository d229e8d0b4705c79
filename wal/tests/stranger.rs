//! A stranger reads our logs: `stranger/reader.rs` knows `docs/format/wal.md` and nothing else, and must list what
//! [`Wal::read`] lists, and refuse what opening refuses, over logs of every shape, crashed ones and damaged ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test fails by panicking, and the stranger reads files by itself"
)]

#[path = "stranger/reader.rs"]
mod reader;

use reader::{Files, Refusal, Verdict};
use seawall_wal::disk::SimDisk;
use seawall_wal::disk::sim::Damage;
use seawall_wal::runtime::Rng;
use seawall_wal::{Durability, Error, Kind, Lsn, Outcome, SimRuntime, Wal, WalOptions};
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/db/log";
const SEGMENT: u64 = 64 << 10;
/// The largest payload that one frame of such a segment holds: the segment, less two headers and its first block.
const SINGLE_MAX: usize = (64 << 10) - 4096 - 64 - 24;

fn options(disk: &Arc<SimDisk>, seed: u64) -> WalOptions {
    let runtime = SimRuntime::new(seed);
    Wal::options().segment_bytes(SEGMENT).disk(disk.clone()).runtime(runtime).background(false)
}

fn files_on(disk: &SimDisk) -> Files {
    let prefix = &format!("{DIR}/")[1..];
    let names = disk.paths().into_iter().filter_map(|path| Some(path.strip_prefix(prefix)?.to_owned()));
    names.map(|name| (name.clone(), disk.read_file(format!("{DIR}/{name}")).unwrap())).collect()
}

fn files_in(dir: &Path) -> Files {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

/// What the log's own reader lists, as the stranger would.
fn list(wal: &Wal, from: Lsn) -> Vec<reader::Record> {
    let records = wal.read(from..).unwrap().map(|record| {
        let record = record.unwrap();
        reader::Record {
            lsn: record.lsn.0,
            end: record.end.0,
            kind: record.kind.0,
            group: record.group,
            time_us: record.time_us,
            payload: record.payload.to_vec(),
        }
    });
    records.collect()
}

fn assert_same(found: &[reader::Record], expected: &[reader::Record], what: &str) {
    let brief = |records: &[reader::Record]| -> Vec<(u64, u64, u8, usize)> {
        records.iter().map(|r| (r.lsn, r.end, r.kind, r.payload.len())).collect()
    };
    assert_eq!(brief(found), brief(expected), "{what}");
    assert_eq!(found, expected, "{what}");
}

fn payload(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// Sizes at which something changes: nothing, a block, a frame, a segment, several.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![0, 0, 1, 7, 100, 4096 - 89, 4096 - 88, 4096 - 87, 4096, 8192 - 88, 30_000];
    sizes.extend([
        SINGLE_MAX - 1,
        SINGLE_MAX,
        0,
        SINGLE_MAX + 1,
        SINGLE_MAX + 25,
        0,
        2 * SINGLE_MAX,
        200_000,
        3,
    ]);
    sizes
}

#[test]
fn the_stranger_knows_its_checksum() {
    assert_eq!(reader::crc32(&[b"12345", b"6789"]), 0xCBF4_3926);
}

/// The committed log, as `golden.rs` lists it.
#[test]
fn the_committed_log_is_read_alike() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format1");
    let log = reader::read(&files_in(&golden.join("log"))).unwrap();
    let mut lines = String::new();
    for record in &log.records {
        let head: String = record.payload.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        lines += &format!(
            "{{\"lsn\":{},\"end\":{},\"kind\":{},\"group\":{},\"time_us\":{},\"len\":{},\"crc32\":\"{:08x}\",\"head\":\"{head}\"}}\n",
            record.lsn,
            record.end,
            record.kind,
            record.group,
            record.time_us,
            record.payload.len(),
            reader::crc32(&[&record.payload]),
        );
    }
    assert_eq!(lines, std::fs::read_to_string(golden.join("expected.jsonl")).unwrap());
    assert!(log.clean && log.cut_over_segments == 1 && log.seals >= 2);
}

#[test]
fn every_size_kind_and_group_is_read_alike() {
    for (name, stays_open) in [("closed", false), ("open", true)] {
        let disk = SimDisk::new(7);
        let wal = options(&disk, 7).open(DIR).unwrap();
        let mut rng = Rng::new(7);
        let mut kind = 1;
        for len in sizes() {
            let bytes = payload(&mut rng, len);
            let group = u64::from(kind) * 1000;
            wal.make_room(len).unwrap();
            let placed = wal.place(Kind(kind), group, &bytes, Durability::Synced).unwrap().unwrap();
            wal.wait_for(&placed, None).unwrap();
            kind = kind % 255 + 1;
        }
        let batch: Vec<Vec<u8>> = [0, 10, 40_000, 40_000, 1].map(|len| payload(&mut rng, len)).into();
        wal.append_batch(&batch).unwrap();
        wal.append_batch(&[b"a".as_slice(), b"", b"c"]).unwrap();
        wal.sync().unwrap();
        let expected = list(&wal, Lsn::ZERO);
        assert_eq!(expected.len(), sizes().len() + 8);
        if !stays_open {
            wal.close().unwrap();
        }
        let log = reader::read(&files_on(&disk)).unwrap();
        assert_same(&log.records, &expected, name);
        assert_eq!((log.verdict, log.clean, log.seals > 0), (Verdict::CleanEnd, !stays_open, !stays_open));
        assert!(log.cut_units >= 5 && log.cut_over_segments >= 5 && log.segments.len() > 8);
    }
}

#[test]
fn reopened_truncated_and_recycled_logs_are_read_alike() {
    let disk = SimDisk::new(3);
    let mut rng = Rng::new(3);
    let mut recycled = 0;
    for round in 0..12 {
        let wal = options(&disk, round).open(DIR).unwrap();
        for _ in 0..rng.below(12) {
            let len = rng.below(40_000) as usize;
            wal.commit(payload(&mut rng, len)).unwrap();
        }
        if round % 3 == 2 {
            wal.commit(payload(&mut rng, 150_000)).unwrap();
            let records = list(&wal, Lsn::ZERO);
            // In the middle of the log, or behind a record that is cut over segments: where its last piece stands.
            let at = if round % 2 == 0 { records.len() / 2 } else { records.len() - 1 };
            wal.truncate_before(Lsn(records[at].end)).unwrap();
        }
        if round % 4 == 1 {
            wal.append_batch(&[payload(&mut rng, 50), payload(&mut rng, 90_000), payload(&mut rng, 60)])
                .unwrap();
            wal.sync().unwrap();
            let records = list(&wal, Lsn::ZERO);
            let at = [records.len() - 1, records.len() - 2, records.len() / 2][round as usize / 4];
            wal.truncate_after(Lsn(records[at].lsn)).unwrap();
            assert_eq!(list(&wal, Lsn::ZERO), records[..at]);
        }
        while wal.step().unwrap() {}
        let expected = list(&wal, Lsn::ZERO);
        recycled += wal.stats().segments_recycled;
        assert_same(&reader::read(&files_on(&disk)).unwrap().records, &expected, "open");
        wal.close().unwrap();
        assert_same(&reader::read(&files_on(&disk)).unwrap().records, &expected, "closed");
    }
    assert!(recycled > 3, "{recycled} segments were used again");
}

/// An engine starts reading where its checkpoint ended, behind every frame; the next segment names the last one all the
/// same.
#[test]
fn a_log_opened_behind_its_last_frame_is_read_alike() {
    let disk = SimDisk::new(4);
    let mut expected = Vec::new();
    for round in 0..4 {
        let wal = options(&disk, round).open(DIR).unwrap();
        wal.commit(bytes_of(round)).unwrap();
        let durable = wal.sync().unwrap();
        // Sealed first, so that closing adds nothing behind the replay position.
        while wal.step().unwrap() {}
        let replay = wal.barrier().unwrap();
        wal.close().unwrap();
        let wal = options(&disk, 100 + round).start(replay, durable).open(DIR).unwrap();
        wal.commit(bytes_of(round)).unwrap();
        expected = list(&wal, Lsn::ZERO);
        wal.close().unwrap();
        assert_same(&reader::read(&files_on(&disk)).unwrap().records, &expected, "closed");
    }
    assert_eq!(list(&options(&disk, 9).open(DIR).unwrap(), Lsn::ZERO), expected);
    assert_eq!(expected.len(), 8);
}

fn bytes_of(round: u64) -> Vec<u8> {
    vec![round as u8; 5000]
}

#[test]
fn files_of_the_system_are_read_alike() {
    let dir = std::env::temp_dir().join(format!("seawall-stranger-{}", std::process::id()));
    let wal = Wal::options().segment_bytes(SEGMENT).open(&dir).unwrap();
    let mut rng = Rng::new(5);
    for len in [10, 0, 70_000, 4008] {
        wal.commit(payload(&mut rng, len)).unwrap();
    }
    let expected = list(&wal, Lsn::ZERO);
    wal.close().unwrap();
    let log = reader::read(&files_in(&dir)).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_same(&log.records, &expected, "files");
    assert!(log.clean);
}

/// What a log promised: the records that it had made durable, and up to where something on the disk can prove it.
/// The newest durable group is proven by what is written after it.
#[derive(Default)]
struct Promised {
    durable: Lsn,
    proven: Lsn,
    records: Vec<reader::Record>,
}

impl Promised {
    fn look(&mut self, wal: &Wal) {
        if wal.durable_lsn() > self.durable {
            self.proven = std::mem::replace(&mut self.durable, wal.durable_lsn());
            self.records = list(wal, Lsn::ZERO);
        }
    }

    /// All of it is in the anchor, or in a seal.
    fn all_proven(&mut self, wal: &Wal) {
        self.look(wal);
        self.proven = self.durable;
    }

    /// Whether a log that was read holds all up to a mark.
    fn check(&self, found: &[reader::Record], mark: Lsn, what: &str) {
        let kept = self.records.iter().filter(|record| record.end <= mark.0).cloned().collect::<Vec<_>>();
        assert!(found.len() >= kept.len(), "{what}: {} records of {}", found.len(), kept.len());
        assert_same(&found[..kept.len()], &kept, what);
    }
}

/// A few rounds of work that end in a power cut each, over every kind of write.
fn crashed(seed: u64) -> (Arc<SimDisk>, Promised) {
    let mut rng = Rng::new(seed);
    let mut disk = SimDisk::new(seed);
    let mut promised = Promised::default();
    for round in 0..1 + rng.below(4) {
        let Ok(wal) = options(&disk, seed * 16 + round).open(DIR) else {
            panic!("seed {seed}: does not open")
        };
        promised.all_proven(&wal);
        for _ in 0..rng.below(14) {
            let len = if rng.chance(1, 6) { rng.below(150_000) } else { rng.below(9_000) } as usize;
            let bytes = payload(&mut rng, len);
            match rng.below(6) {
                0 => drop(wal.append(&bytes).unwrap()),
                1 => drop(wal.append_batch(&[&bytes[..], b"and"]).unwrap()),
                2 => drop(wal.commit_with(&bytes, Durability::Written).unwrap()),
                3 => drop(wal.step().unwrap()),
                _ => drop(wal.commit(&bytes).unwrap()),
            }
            promised.look(&wal);
        }
        if rng.chance(1, 4) {
            wal.truncate_before(wal.durable_lsn()).unwrap();
            promised.all_proven(&wal);
            promised.records.retain(|record| record.lsn >= wal.first_lsn().0);
        }
        if rng.chance(1, 4) {
            let records = list(&wal, Lsn::ZERO);
            let at = records.get(rng.below(records.len() as u64 + 1) as usize).map(|record| Lsn(record.lsn));
            wal.truncate_after(at.unwrap_or(wal.next_lsn())).unwrap();
            (promised.durable, promised.proven) = (wal.durable_lsn(), wal.durable_lsn());
            promised.records = list(&wal, Lsn::ZERO);
        }
        if rng.chance(1, 3) {
            wal.sync().unwrap();
            promised.all_proven(&wal);
            wal.close().unwrap();
            disk = disk.crash();
        } else {
            // While a handle is there the log is open: it is dropped behind the cut.
            let next = disk.crash();
            drop(wal);
            disk = next;
        }
    }
    (disk, promised)
}

/// Reads a disk both ways; what both make of it must be the same: its records, or `None` where it is refused.
fn both(disk: &Arc<SimDisk>, seed: u64, what: &str) -> Option<Vec<reader::Record>> {
    let theirs = reader::read(&files_on(disk));
    let opened = options(disk, seed).open(DIR);
    match (theirs, opened) {
        (Ok(log), Ok(wal)) => {
            let expected = list(&wal, Lsn::ZERO);
            assert_same(&log.records, &expected, &format!("seed {seed}, {what}"));
            assert_eq!(log.first, wal.first_lsn().0, "seed {seed}, {what}");
            assert_eq!(log.end, wal.recovery().end.0, "seed {seed}, {what}");
            let is_clean = wal.recovery().outcome == Outcome::Clean;
            assert_eq!(
                log.verdict == Verdict::CleanEnd,
                is_clean,
                "seed {seed}, {what}: {:?}",
                wal.recovery()
            );
            Some(log.records)
        }
        (Err(Refusal::Damage(_)), Err(Error::Corruption { .. })) => None,
        (Err(Refusal::Version(_)), Err(Error::FormatVersion { .. })) => None,
        (theirs, opened) => {
            let theirs = theirs.map(|log| (log.records.len(), log.end, log.verdict));
            let opened = opened.map(|wal| (list(&wal, Lsn::ZERO).len(), wal.recovery().clone()));
            panic!("seed {seed}, {what}: the stranger says {theirs:?}, opening says {opened:?}")
        }
    }
}

#[test]
fn crashed_logs_are_judged_alike() {
    let mut torn = 0;
    for seed in 0..seeds(300) {
        let (disk, promised) = crashed(seed);
        if let Ok(log) = reader::read(&files_on(&disk)) {
            torn += u32::from(log.verdict == Verdict::TornTail);
        }
        let Some(records) = both(&disk, seed, "crashed") else {
            panic!("seed {seed}: a crash alone is never damage")
        };
        promised.check(&records, promised.durable, &format!("seed {seed}"));
    }
    assert!(torn > 5, "{torn} torn tails");
}

/// How many seeds: more on request.
fn seeds(usual: u64) -> u64 {
    std::env::var("SEAWALL_STRANGER_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

fn some_damage(rng: &mut Rng, files: &Files) -> (String, Damage) {
    let pick = |rng: &mut Rng| files.iter().nth(rng.below(files.len() as u64) as usize).unwrap();
    // Mostly where something stands: the first blocks.
    let block = |rng: &mut Rng, file: &[u8]| {
        let blocks = file.len() as u64 / 4096;
        if rng.chance(3, 4) { rng.below(blocks.min(4)) } else { rng.below(blocks) }
    };
    let (name, file) = pick(rng);
    let damage = match rng.below(6) {
        0 => Damage::Flip { offset: block(rng, file) * 4096 + rng.below(128), mask: 1 << rng.below(8) },
        1 => Damage::Flip { offset: rng.below(file.len() as u64), mask: 1 << rng.below(8) },
        2 => Damage::ZeroBlock(block(rng, file)),
        3 => Damage::SwapBlocks(block(rng, file), block(rng, file)),
        4 => Damage::Truncate(rng.below(file.len() as u64)),
        _ => {
            let (other, other_file) = pick(rng);
            let other_block = block(rng, other_file);
            Damage::SwapWith { block: block(rng, file), other: Path::new(DIR).join(other), other_block }
        }
    };
    (name.clone(), damage)
}

/// One damage at rest: the log is refused, or holds all that it can prove to have promised.
#[test]
fn damaged_logs_are_judged_alike_and_never_shorter_in_silence() {
    let mut refused = 0;
    for seed in 0..seeds(1000) {
        let (disk, promised) = crashed(seed);
        let mut rng = Rng::new(seed ^ 0xDA);
        let (name, damage) = some_damage(&mut rng, &files_on(&disk));
        let what = format!("{name}: {damage:?}");
        disk.damage(format!("{DIR}/{name}"), &damage).unwrap();
        match both(&disk, seed, &what) {
            Some(records) => promised.check(&records, promised.proven, &format!("seed {seed}, {what}")),
            None => refused += 1,
        }
    }
    assert!(refused > 100, "{refused} damaged logs were refused");
}
