//! The log's fuzz targets over their committed corpus, and over mutations of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and reads the repository's files"
)]

#[path = "../../fuzz/replay.rs"]
mod replay;

use replay::replay;
use seawall_wal::Lsn;
use seawall_wal::frame::{self, Flags};
use seawall_wal::fuzzing;
use seawall_wal::record::{self, Kind};
use seawall_wal::runtime::Rng;
use seawall_wal::segment::{self, Predecessor};

#[test]
fn frame() {
    replay("frame", 20_000, fuzzing::frame);
}

#[test]
fn segment_anchor() {
    replay("segment_anchor", 5_000, fuzzing::segment_anchor);
}

#[test]
fn recovery_arbitrary() {
    replay("recovery_arbitrary", 400, fuzzing::recovery_arbitrary);
}

#[test]
fn recovery_mutated() {
    replay("recovery_mutated", 400, fuzzing::recovery_mutated);
}

/// Every undamaged log that the target can build is read whole, in each way that it can end.
#[test]
fn undamaged_logs_are_read_whole() {
    for seed in 0..40 {
        for shape in 0..16 {
            fuzzing::recovery_mutated(&[shape, 3 + seed, seed, shape, seed & 1]);
        }
    }
}

/// The plainest damages, each alone and all over the place.
#[test]
fn single_damages_are_found_or_harmless() {
    let mut rng = Rng::new(11);
    for round in 0..1500u32 {
        let kind = [0, 1, 2, 3, 4, 5][round as usize % 6];
        let mut input =
            vec![rng.next_u64() as u8, rng.next_u64() as u8, rng.next_u64() as u8, 1, round as u8 & 1];
        input.push(kind);
        input.extend(rng.next_u64().to_le_bytes());
        fuzzing::recovery_mutated(&input[..5 + 8]);
    }
}

fn sample_frame(payloads: &[&[u8]], flags: Flags) -> Vec<u8> {
    let mut payload = Vec::new();
    for text in payloads {
        let header = record::Header { length: text.len() as u32, kind: Kind::RECORD, group: 0, time_us: 1 };
        payload.extend_from_slice(&header.encode());
        payload.extend_from_slice(text);
    }
    let mut bytes = vec![0; frame::padded(payload.len())];
    bytes[frame::HEADER_BYTES..frame::HEADER_BYTES + payload.len()].copy_from_slice(&payload);
    let header = frame::Header {
        checksum: 0,
        salt: 1,
        lsn: Lsn(69_632),
        durable: Lsn(4096),
        length: payload.len() as u32,
        records: payloads.len() as u32,
        previous: 9,
        flags,
    };
    frame::finish(&mut bytes, &header);
    bytes.truncate(frame::HEADER_BYTES + payload.len());
    bytes
}

fn sample_header(predecessor: Option<Predecessor>) -> Vec<u8> {
    let header = segment::Header {
        store_id: [1; 16],
        number: 3,
        segment_bytes: 1 << 20,
        salt: 5,
        predecessor,
        durable: Lsn(8),
        epoch: 1,
    };
    header.encode().0[..160].to_vec()
}

#[test]
#[ignore = "writes the corpus"]
fn write_corpus() {
    let mut lying = sample_frame(&[b"short"], Flags::NONE);
    lying[32..36].copy_from_slice(&((4u32 << 20) - 64).to_le_bytes());
    let mut long_record = sample_frame(&[b"one"], Flags::FIRST);
    long_record[64..68].copy_from_slice(&(1u32 << 31).to_le_bytes());
    replay::write(
        "frame",
        &[
            ("whole", sample_frame(&[b"one", b"", b"three"], Flags::NONE)),
            ("first", sample_frame(&[b"the beginning of a long record"], Flags::FIRST)),
            ("seal", sample_frame(&[], Flags::SEAL)),
            ("claims-4-mib", lying),
            ("long-record", long_record),
            ("zeros", vec![0; 64]),
            ("cut", sample_frame(&[b"cut"], Flags::NONE)[..40].to_vec()),
        ],
    );
    let before = Predecessor { number: 2, salt: 4, end: Lsn(77), checksum: 6, cut: None };
    replay::write(
        "segment_anchor",
        &[
            ("first-segment", sample_header(None)),
            ("segment", sample_header(Some(before))),
            ("zeros", vec![0; 64]),
            ("name", b"00000000000000ab.log".to_vec()),
        ],
    );
    let arbitrary: &[(&str, Vec<u8>)] = &[
        ("empty", vec![]),
        ("no-anchor", vec![1, 0]),
        ("no-headers", vec![2, 2]),
        ("clean", vec![0, 0, 0x80, 0, 3, 0, 1, b'a', 0, 2, b'b']),
        ("three-segments", vec![0, 2, 10, 240, 2, 0, 3, b'x', 0, 0, 4, b'y', 0, 240, 1, 0, 9, b'z', 0, 200]),
        ("cut-record", vec![0, 1, 0, 0, 4, 3, 90, 1, 2, 3, 4, 5, 6, 7, 8, 4, 90, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("last-numbers", vec![4, 2, 0, 1, 0, 0, 1, 0, 1, b'a']),
        ("last-number-of-all", vec![4, 0, 0, 2, 0, 0, 1, 0, 1, b'a']),
        ("unsealed", vec![8, 1, 0, 0, 3, 0, 9, b'q', 0, 0, 16, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("through-the-cache", vec![16, 1, 0, 0, 3, 0, 9, b'q', 0, 0, 16]),
    ];
    replay::write("recovery_arbitrary", arbitrary);
    let mut mutated: Vec<(String, Vec<u8>)> = Vec::new();
    for shape in 0..16u8 {
        mutated.push((format!("undamaged-{shape:02}"), vec![shape, 9, shape, 1, shape & 1]));
    }
    for kind in 0..12u8 {
        for (variant, at) in [3u32, 4096 + 20, 65_536 - 9].into_iter().enumerate() {
            let mut input =
                vec![kind ^ (variant as u8 * 5), 11, kind, 2, variant as u8, kind, variant as u8 + 1];
            input.extend(at.to_le_bytes());
            input.extend([variant as u8 * 32 + 8, 0xc0, 200, 4 + variant as u8, 0, 0, 0, 1, 0, 0, 0]);
            let name = ["flip", "zero", "swap", "swap-files", "cut", "lost", "grow", "gone", "copy"];
            let name = name.get(usize::from(kind)).copied().unwrap_or("forged");
            mutated.push((format!("{name}-{kind}-{variant}"), input));
        }
    }
    // The length of the first and of the second frame says 4 MiB, in a file of 64 KiB, with checksums that match.
    for block in [1, 2] {
        let input = vec![0, 9, 3, 1, 0, 10, 0, block, 0, 0, 0, 0x40, 0x80, 13];
        mutated.push((format!("claims-4-mib-{block}"), input));
    }
    let mutated: Vec<(&str, Vec<u8>)> =
        mutated.iter().map(|(name, input)| (&**name, input.clone())).collect();
    replay::write("recovery_mutated", &mutated);
}
