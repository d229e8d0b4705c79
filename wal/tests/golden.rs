//! Format 1, held in place: a log committed under `tests/golden/format1/` is read as it always was, and today's encoder
//! still writes the same bytes. `cargo test -p seawall-wal --test golden -- --ignored` writes the committed log anew,
//! which is right only together with a new format number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads and writes the repository's files"
)]

use seawall_wal::anchor::{self, Anchor, Closed, Slot};
use seawall_wal::disk::SimDisk;
use seawall_wal::frame::{self, Flags};
use seawall_wal::segment::{self, Parsed, Predecessor};
use seawall_wal::{Durability, Error, Kind, Lsn, Outcome, SimRuntime, Wal, WalOptions, WalReader, record};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SEGMENT: u64 = 64 << 10;
const DIR: &str = "/log";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format1")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The committed files, by name.
fn committed() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(golden().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// A copy of the committed log on a disk of its own.
fn copy() -> Arc<SimDisk> {
    let disk = SimDisk::new(1);
    for (name, bytes) in committed() {
        disk.write_file(format!("{DIR}/{name}"), &bytes).unwrap();
    }
    disk
}

fn options(disk: &Arc<SimDisk>, seed: u64) -> WalOptions {
    let runtime = SimRuntime::new(seed);
    Wal::options().segment_bytes(SEGMENT).disk(disk.clone()).runtime(runtime).background(false)
}

/// One line a record; a long payload by length, beginning and checksum.
fn listing(reader: WalReader) -> String {
    let mut lines = String::new();
    for record in reader {
        let record = record.unwrap();
        let head = &record.payload[..record.payload.len().min(16)];
        writeln!(
            lines,
            "{{\"lsn\":{},\"end\":{},\"kind\":{},\"group\":{},\"time_us\":{},\"len\":{},\"crc32\":\"{:08x}\",\"head\":\"{}\"}}",
            record.lsn,
            record.end,
            record.kind.0,
            record.group,
            record.time_us,
            record.payload.len(),
            crc32fast::hash(&record.payload),
            hex(head)
        )
        .unwrap();
    }
    lines
}

fn expected() -> String {
    std::fs::read_to_string(golden().join("expected.jsonl")).unwrap()
}

#[test]
fn the_committed_log_reads_as_it_always_did() {
    let disk = copy();
    let wal = options(&disk, 1).open(DIR).unwrap();
    assert_eq!(wal.recovery().outcome, Outcome::Clean);
    assert_eq!(listing(wal.read(..).unwrap()), expected());

    // And it can be built upon.
    wal.commit(b"one more").unwrap();
    wal.close().unwrap();
    let wal = options(&disk, 2).open(DIR).unwrap();
    let lines = listing(wal.read(..).unwrap());
    assert_eq!(lines.lines().count(), expected().lines().count() + 1);
    assert!(lines.starts_with(&expected()));
}

#[test]
fn a_copy_on_the_systems_disk_reads_alike() {
    let dir = std::env::temp_dir().join(format!("seawall-golden-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, bytes) in committed() {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    let read_only = listing(WalReader::open(&dir, Lsn::ZERO).unwrap());
    let wal = Wal::open(&dir).unwrap();
    let writable = listing(wal.read(..).unwrap());
    wal.close().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(read_only, expected());
    assert_eq!(writable, expected());
}

/// The committed log holds what it is there for: two openings, a cut record, seals, a clean close.
#[test]
fn the_committed_log_covers_the_format() {
    let files = committed();
    assert!(files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < 400 << 10);
    let Slot::Valid(anchor) = Anchor::choose(&files.iter().find(|(name, _)| name == "anchor").unwrap().1)
    else {
        panic!("the committed anchor is whole")
    };
    assert!(anchor.clean && anchor.durable > Lsn::ZERO);
    let mut flags = [0; 16];
    let mut salts = Vec::new();
    for (name, bytes) in files.iter().filter(|(name, _)| name != "anchor") {
        let Parsed::Header(header, _) = segment::Header::parse(bytes) else { panic!("{name} is not begun") };
        assert_eq!(segment::file_name(header.number), *name);
        salts.push(header.salt);
        for frame in frames(bytes) {
            flags[usize::from(frame.flags.0)] += 1;
        }
    }
    assert_eq!(salts.len(), 3);
    for flag in [Flags::NONE, Flags::FIRST, Flags::LAST, Flags::SEAL] {
        assert!(flags[usize::from(flag.0)] > 0, "{flag:?}");
    }
}

/// The frames of a segment file, from its first on.
fn frames(file: &[u8]) -> Vec<frame::Header> {
    let mut frames = Vec::new();
    let mut at = 4096;
    while let Some(Ok(header)) = file.get(at..).map(frame::Header::parse) {
        assert!(header.verify(&file[at..]));
        at += header.padded_bytes();
        frames.push(header);
    }
    frames
}

#[test]
fn todays_encoder_writes_the_committed_bytes() {
    for (name, bytes) in committed() {
        if name == anchor::FILE_NAME {
            for slot in bytes.chunks(4096) {
                let Slot::Valid(anchor) = Anchor::parse(slot) else {
                    panic!("a committed slot is not whole")
                };
                assert_eq!(hex(&anchor.encode()), hex(slot));
            }
            continue;
        }
        let Parsed::Header(header, checksum) = segment::Header::parse(&bytes) else { panic!("{name}") };
        let (block, again) = header.encode();
        assert_eq!((hex(&block), again), (hex(&bytes[..4096]), checksum), "{name}");
        let mut at = 4096;
        for header in frames(&bytes) {
            let whole = &bytes[at..at + header.padded_bytes()];
            let mut again = vec![0xEE; whole.len()];
            let end = frame::HEADER_BYTES + header.length as usize;
            again[frame::HEADER_BYTES..end].copy_from_slice(&whole[frame::HEADER_BYTES..end]);
            assert_eq!(frame::finish(&mut again, &header), header.checksum);
            assert!(again == whole, "{name}: the frame at {at}");
            at += whole.len();
        }
    }
}

#[test]
fn fixed_headers_have_fixed_bytes() {
    let record =
        record::Header { length: 5, kind: Kind::TRANSACTION, group: 7, time_us: 1_700_000_000_000_000 };
    assert_eq!(hex(&record.encode()), RECORD);

    let mut bytes = vec![0xEE; 4096];
    bytes[frame::HEADER_BYTES..][..24].copy_from_slice(&record.encode());
    bytes[frame::HEADER_BYTES + 24..][..5].copy_from_slice(b"hello");
    let header = frame::Header {
        checksum: 0,
        salt: 0x0123_4567_89AB_CDEF,
        lsn: Lsn(69_632),
        durable: Lsn(65_600),
        length: 29,
        records: 1,
        previous: 0xCAFE_F00D,
        flags: Flags::NONE,
    };
    frame::finish(&mut bytes, &header);
    assert_eq!(hex(&bytes[..96]), FRAME);
    assert!(bytes[96..].iter().all(|byte| *byte == 0));

    let predecessor = Predecessor { number: 2, salt: 9, end: Lsn(196_608), checksum: 0x1234_5678, cut: None };
    let header = segment::Header {
        store_id: *b"0123456789abcdef",
        number: 3,
        segment_bytes: SEGMENT,
        salt: 10,
        predecessor: Some(predecessor),
        durable: Lsn(196_000),
        epoch: 4,
    };
    let block = header.encode().0;
    assert_eq!(hex(&block[..120]), SEGMENT_HEADER);
    assert!(block[120..].iter().all(|byte| *byte == 0));
    let first = segment::Header { predecessor: None, ..header }.encode().0;
    assert_eq!(hex(&first[72..120]), FIRST_SEGMENT_FROM_72);

    let anchor = Anchor {
        store_id: *b"0123456789abcdef",
        sequence: 5,
        segment_bytes: SEGMENT,
        write_method: 0,
        first: Lsn(69_632),
        epoch: 4,
        durable: Lsn(196_000),
        replica_durable: Lsn(0),
        is_replica: false,
        promised: 0,
        history: Default::default(),
        rewinding: Lsn::ZERO,
        clean: true,
        closed: None,
    };
    let block = anchor.encode();
    assert_eq!((hex(&block[..108]), anchor.offset()), (ANCHOR.to_owned(), 4096));
    assert!(block[108..].iter().all(|byte| *byte == 0));
    let closed = Closed {
        end: Lsn(200_704),
        last: Lsn(192_512),
        checksum: 0x0403_0201,
        whole_end: Lsn(196_000),
        time_us: 0x0005_0607_0809,
    };
    let block = Anchor { closed: Some(closed), ..anchor }.encode();
    assert_eq!(hex(&block[104..144]), ANCHOR_FROM_104_CLOSED);
    assert!(block[144..].iter().all(|byte| *byte == 0));
}

/// Another version is refused by its number, and an unknown feature too; neither is called damage.
#[test]
fn other_versions_are_refused_by_number() {
    for (file, at, byte, found) in [
        ("anchor", 8, 2, 2),
        ("anchor", 24, 2, 2),
        ("0000000000000002.log", 8, 9, 9),
        ("0000000000000002.log", 112, 2, 2),
    ] {
        let disk = copy();
        let path = format!("{DIR}/{file}");
        let mut bytes = disk.read_file(&path).unwrap();
        // Both slots of the anchor, so that neither is passed over.
        let blocks = if file == "anchor" { 2 } else { 1 };
        for block in bytes.chunks_mut(4096).take(blocks) {
            block[at] = byte;
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&block[..12]);
            hasher.update(&block[16..]);
            block[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
        }
        disk.write_file(&path, &bytes).unwrap();
        let error = options(&disk, 1).open(DIR).unwrap_err();
        assert!(matches!(error, Error::FormatVersion { found: f, .. } if f == found), "{file} {at}: {error}");
    }
}

/// Writes the committed log anew.
#[test]
#[ignore = "writes to the repository"]
fn write_the_committed_log_anew() {
    let disk = SimDisk::new(1);
    let wal = options(&disk, 1).open(DIR).unwrap();
    wal.commit(b"the first record").unwrap();
    wal.commit(b"").unwrap();
    wal.append_batch(&[b"two".as_slice(), b"together", b""]).unwrap();
    wal.sync().unwrap();
    while wal.step().unwrap() {}
    for (kind, group, payload) in
        [(2, 0, "a transaction"), (8, 42, "of group 42"), (255, u64::MAX, "the last kind")]
    {
        let placed = wal.place(Kind(kind), group, payload.as_bytes(), Durability::Written).unwrap().unwrap();
        wal.wait_for(&placed, None).unwrap();
    }
    let long: Vec<u8> = (0..70_000u32).map(|i| (i / 7 * 31) as u8).collect();
    wal.commit(&long).unwrap();
    wal.close().unwrap();
    let wal = options(&disk, 2).open(DIR).unwrap();
    wal.commit(&long[..4008]).unwrap();
    wal.commit(b"behind a frame that is full").unwrap();
    wal.close().unwrap();

    let lines = listing(WalReader::open_with(DIR, Lsn::ZERO, &options(&disk, 3)).unwrap());
    let target = golden().join("log");
    let _ = std::fs::remove_dir_all(&target);
    std::fs::create_dir_all(&target).unwrap();
    for path in disk.paths() {
        let name = path.rsplit('/').next().unwrap();
        std::fs::write(target.join(name), disk.read_file(&path).unwrap()).unwrap();
    }
    std::fs::write(golden().join("expected.jsonl"), lines).unwrap();
}

// Worked out from the document with another language's CRC-32.
const RECORD: &str = "0500000002000000070000000000000000401e18240a0600";
const FRAME: &str = "\
     4ed16abb53574652efcdab8967452301001001000000000040000100000000001d000000010000000df0fecac46b7c9a\
     000000000000000000000000000000000500000002000000070000000000000000401e18240a060068656c6c6f000000";
const SEGMENT_HEADER: &str = "\
     53454157414c5347010000003f88f92b0000000000000000000000000000000030313233343536373839616263646566\
     030000000000000000000100000000000a00000000000000020000000000000009000000000000000000030000000000\
     a0fd02000000000004000000000000000100000078563412";
const FIRST_SEGMENT_FROM_72: &str =
    "ffffffffffffffff00000000000000000000000000000000a0fd02000000000004000000000000000100000000000000";
const ANCHOR_FROM_104_CLOSED: &str = "\
     03000000010203040010030000000000\
     00f0020000000000a0fd020000000000\
     0908070605000000";
const ANCHOR: &str = "\
     53454157414c414e010000000a146c0a0000000000000000000000000000000030313233343536373839616263646566\
     05000000000000000000010000000000001000000000000000100100000000000400000000000000a0fd020000000000\
     000000000000000001000000";
