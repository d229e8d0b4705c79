//! The engine's fuzz targets over their committed corpus, and over mutations of it.
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
use seawall_engine::fuzzing;
use seawall_wal::runtime::Rng;

#[test]
fn engine_record() {
    replay("engine_record", 20_000, fuzzing::engine_record);
}

#[test]
fn block() {
    replay("block", 20_000, fuzzing::block);
}

#[test]
fn superblock() {
    replay("superblock", 5_000, fuzzing::superblock);
}

#[test]
fn side_file() {
    replay("side_file", 20_000, fuzzing::side_file);
}

#[test]
fn store_mutated() {
    replay("store_mutated", 300, fuzzing::store_mutated);
}

/// Every undamaged store that the target can build is read whole, in each way that it can end.
#[test]
fn undamaged_stores_are_read_whole() {
    for seed in 0..12 {
        for shape in 0..16 {
            fuzzing::store_mutated(&[shape, 3 + 2 * seed, seed, shape, seed & 1]);
        }
    }
}

/// The plainest damages, each alone and all over the place.
#[test]
fn single_damages_are_found_or_harmless() {
    let mut rng = Rng::new(13);
    for round in 0..600u32 {
        let mut input =
            vec![rng.next_u64() as u8, rng.next_u64() as u8, rng.next_u64() as u8, 1, round as u8 & 1];
        input.push([0, 1, 2, 3, 4, 5][round as usize % 6]);
        // Every other one in the data file, which comes first.
        input.push(if round & 8 == 0 { 0 } else { rng.next_u64() as u8 });
        input.extend(&rng.next_u64().to_le_bytes()[..6]);
        fuzzing::store_mutated(&input);
    }
}

#[test]
#[ignore = "writes the corpus"]
fn write_corpus() {
    let op = |op: u8, key: &[u8], value: Option<&[u8]>| {
        let mut bytes = vec![op, 7, 0, 0, 0, key.len() as u8, 0];
        bytes.extend_from_slice(key);
        if let Some(value) = value {
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    };
    let record = |ops: &[Vec<u8>]| [&[1, 0, 0, 0, ops.len() as u8, 0, 0, 0][..], &ops.concat()].concat();
    let put = op(1, b"key", Some(b"value"));
    let mut long = record(std::slice::from_ref(&put));
    long[18..22].copy_from_slice(&(1u32 << 30).to_le_bytes());
    let behind = |op_bytes: Vec<u8>, rest: &[u8]| [&op_bytes[..], rest].concat();
    let range = |kinds: u8, from: &[u8], to: &[u8]| {
        let end = [&[kinds, to.len() as u8, 0][..], to].concat();
        behind(op(5, from, None), &end)
    };
    let add = |key: &[u8], delta: i64| behind(op(6, key, None), &delta.to_le_bytes());
    // Of the table of prepared transactions: xid 7."order".01, and what `docs/format/wal.md` says of its rows.
    let branch = |op: u8, row: &[u8]| {
        let xid = [&7_i32.to_le_bytes()[..], &[5], b"order", &[1]].concat();
        let head = [&[op][..], &0xFFFF_FFFD_u32.to_le_bytes(), &(xid.len() as u16).to_le_bytes(), &xid];
        [&head.concat()[..], &(row.len() as u32).to_le_bytes(), row].concat()
    };
    let completion =
        |outcome: u8| [&[2, outcome, 0, 0][..], &[9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0]].concat();
    let prepared = |flags: u8, reads: &[u8], counts: [u8; 2], set: &[u8]| {
        let numbers = [9_u64, 77, 513].map(u64::to_le_bytes).concat();
        let counts = [counts[0], 0, 0, 0, counts[1], 0, 0, 0];
        [&[1, flags, 0, 0][..], &numbers, &counts, reads, set].concat()
    };
    let point = [&[7, 0, 0, 0, 4, 0, 0, 0][..], b"read"].concat();
    let span = [&[7, 0, 0, 0, 1, 0, 0, 0, b'x', 1, 1, 0, 0, 0, b'y'][..]].concat();
    let set = record(std::slice::from_ref(&put));
    // A value of 5000 bytes in one piece, and one of 12,289 in two.
    let piece = |offset: u64, bytes: u32| {
        let ptr = [&offset.to_le_bytes()[..], &3_u64.to_le_bytes(), &bytes.to_le_bytes(), &[1, 2, 3, 4]];
        [&ptr.concat()[..], &[3, 0, 0, 0, 0, 0, 0, 0]].concat()
    };
    let large = |len: u64, pieces: &[Vec<u8>]| {
        op(8, b"film", Some(&[&len.to_le_bytes()[..], &pieces.concat()].concat()))
    };
    let with_large = |ops: &[Vec<u8>]| {
        let mut bytes = record(ops);
        bytes[1] = 1;
        bytes
    };
    let number = op(1, b"n", Some(&7_i64.to_le_bytes()));
    replay::write(
        "engine_record",
        &[
            ("range", record(&[put.clone(), range(9, b"a", b"z"), put.clone()])),
            ("range-of-all", record(&[number.clone(), range(0, b"", b""), add(b"n", 3)])),
            (
                "range-excluded",
                record(&[range(6, b"a", b"a\0\0"), range(1, b"b", b""), range(8, b"", b"aa")]),
            ),
            ("range-empty", record(&[range(9, b"b", b"a")])),
            ("range-unknown-bound", record(&[range(3, b"b", b"a")])),
            ("adds", record(&[add(b"n", -1), add(b"n", i64::MAX), number.clone(), add(b"n", 5)])),
            ("add-to-text", record(&[put.clone(), add(b"key", 5)])),
            ("put", record(std::slice::from_ref(&put))),
            ("put-and-remove", record(&[put.clone(), op(2, b"key", None)])),
            ("create", record(&[op(3, "näme".as_bytes(), Some(&[1, 0, 0, 0, 7, 0, 0, 0])), put.clone()])),
            ("create-with-options", {
                let row = [2, 1, 0, 0, 7, 0, 0, 0, 64, 66, 15, 0, 0, 0, 0, 0];
                record(&[op(3, b"name", Some(&row)), put.clone()])
            }),
            ("large", with_large(&[large(5000, &[piece(8192, 8192)])])),
            (
                "large-in-pieces",
                with_large(&[put.clone(), large(12_289, &[piece(8192, 8192), piece(65_536, 8192)])]),
            ),
            ("large-unflagged", record(&[large(5000, &[piece(8192, 8192)])])),
            ("large-too-short", with_large(&[large(9000, &[piece(8192, 8192)])])),
            ("large-without-pieces", with_large(&[large(5000, &[])])),
            ("prepared", record(&[branch(9, &prepared(0, &[], [0, 0], &set))])),
            ("prepared-with-reads", {
                record(&[branch(9, &prepared(1, &[&point[..], &span].concat(), [1, 1], &set))])
            }),
            ("prepared-cut-short", record(&[branch(9, &prepared(1, &point, [2, 0], &set))])),
            ("prepared-committed", record(&[put.clone(), branch(10, &completion(1))])),
            ("prepared-rolled-back", record(&[branch(10, &completion(2))])),
            ("prepared-by-an-operator", record(&[put.clone(), branch(11, &completion(4))])),
            ("prepared-unknown-outcome", record(&[branch(11, &completion(9))])),
            ("drop", record(&[op(4, b"name", None)])),
            ("empty-key-and-value", record(&[op(1, b"", Some(b""))])),
            ("none", record(&[])),
            ("many-announced", [&[1, 0, 0, 0, 255, 255, 255, 255][..], &put].concat()),
            ("long-value", long),
            ("headless", [&[2][..], &put, &put].concat()),
        ],
    );
    let rows: Vec<u8> = (0..20u8).flat_map(|n| [3, b'k', b'e', n, n * 3]).collect();
    replay::write(
        "block",
        &[
            ("leaf", [&[4, 20][..], &rows, &[0, 9, 0, 0x11, 0x28, 0x37]].concat()),
            ("inner", [&[5, 1, 20][..], &rows].concat()),
            ("values-apart", vec![4, 2, 1, b'a', 7, 1, b'b', 7]),
            ("values-in-pieces", vec![4, 3, 1, b'a', 8, 1, b'b', 7, 1, b'c', 8]),
            ("patched", [&[4, 20][..], &rows, &[2, 8, 0, 3, 1, 42, 0, 17, 2]].concat()),
            ("arbitrary", [&[2, 3, 0, 2, 0, 0, 0, 90, 0][..], &rows].concat()),
            ("arbitrary-inner", [&[3, 1, 3, 0, 2, 0, 0, 0, 90, 0][..], &rows].concat()),
            ("free-map", vec![0, 0, 0, 9, 0x10, 0x20, 0x31, 0x05, 0x44, 0x13, 0x70, 1, 2]),
            ("free-map-patched", vec![0, 0, 0, 4, 0x10, 0x20, 0x31, 0x05, 2, 40, 0, 17, 3, 48, 0, 23, 3]),
            ("empty", vec![]),
        ],
    );
    replay::write(
        "superblock",
        &[
            ("valid", vec![0]),
            ("zeros", vec![1]),
            ("generation", [&[0][..], &[9; 64], &[48]].concat()),
            ("pointers", [&[0][..], &[1; 64], &[192]].concat()),
            ("unsealed", [&[4][..], &[0; 64], &[8]].concat()),
            ("version", [&[2][..], &[7; 288], &[8], &[0; 288], &[8]].concat()),
        ],
    );
    replay::write("side_file", &side_files());
    let mut stores: Vec<(String, Vec<u8>)> = Vec::new();
    for shape in 0..6u8 {
        stores.push((format!("undamaged-{shape}"), vec![shape, 12, shape, 3, shape & 1]));
    }
    for shape in 8..14u8 {
        stores.push((format!("undamaged-{shape}"), vec![shape, 23, shape, 3, shape & 1]));
    }
    for kind in 0..12u8 {
        for (variant, at) in [4096u32 * 3 + 20, 48, 65_536 - 9].into_iter().enumerate() {
            let mut input = vec![kind ^ (variant as u8 * 3), 14, kind, 5, variant as u8, kind, variant as u8];
            input.extend(at.to_le_bytes());
            input.extend([variant as u8 * 20 + 8, 0xc0, 200, 4 + variant as u8, 0, 0, 0, 1, 0, 0, 0]);
            let name = ["flip", "zero", "swap", "swap-files", "cut", "lost", "grow", "gone", "copy"];
            let name = name.get(usize::from(kind)).copied().unwrap_or("forged");
            stores.push((format!("{name}-{kind}-{variant}"), input));
        }
    }
    let stores: Vec<(&str, Vec<u8>)> = stores.iter().map(|(name, input)| (&**name, input.clone())).collect();
    replay::write("store_mutated", &stores);
}

/// As `docs/format/data.md` has them; the target seals them.
fn side_files() -> Vec<(&'static str, Vec<u8>)> {
    let slots = |count: u32, slots: &[Vec<u8>]| {
        let head = [&b"seawallS"[..], &[1, 0, 0, 0], &[0; 20], &[7; 16], &[3, 0, 0, 0, 0, 0, 0, 0]].concat();
        [&head[..], &count.to_le_bytes(), &[0; 4], &slots.concat()].concat()
    };
    let slot = |name: &str, flags: u8, limit: u64| {
        let head = [name.len() as u8, flags, 0, 0, 0, 0, 0, 0];
        let numbers = [70_000, 69_000, 1_700_000_000_000_000, 1_600_000_000_000_000, limit, u64::MAX];
        let mut slot =
            [&head[..], &numbers.map(u64::to_le_bytes).concat(), &[0; 8], name.as_bytes()].concat();
        slot.resize(128, 0);
        slot
    };
    let two = [slot("archive", 1, 1 << 30), slot("replica-1", 0, u64::MAX)];
    vec![
        ("slots", slots(2, &two)),
        ("slots-none", slots(0, &[])),
        ("slots-too-many", slots(u32::MAX, &two)),
        ("slots-disordered", slots(2, &[two[1].clone(), two[0].clone()])),
        ("slots-nameless", slots(1, &[slot("", 0, 0)])),
        ("image", {
            let head = [&b"seawallI"[..], &[1, 0, 0, 0, 0, 0, 0, 0], &65_536_u64.to_le_bytes(), &[0; 40]];
            [&head.concat()[..], b"seawallD", &[1, 0, 0, 0, 0, 16, 0, 0]].concat()
        }),
        ("slots-misnamed", slots(1, &[slot("A b", 0, 0)])),
    ]
}
