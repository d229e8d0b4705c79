//! The fuzz targets over their committed corpus, and over mutations of it; and the bytes of each message, as they are for ever.
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

use bytes::Bytes;
use replay::replay;
use seawall_replication::fuzzing;
use seawall_replication::message::{
    Awaited, Compression, Heartbeat, Hello, Marks, Message, Name, Piece, Welcome, Why,
};
use seawall_replication::timeline::{History, Tail, Turn};
use seawall_wal::Lsn;

#[test]
fn wire_message() {
    replay("wire_message", 20_000, fuzzing::wire_message);
}

#[test]
fn ack_policy() {
    replay("ack_policy", 20_000, fuzzing::ack_policy);
}

fn history() -> History {
    History::new(vec![Turn { epoch: 1, start: Lsn(0) }, Turn { epoch: 3, start: Lsn(12288) }]).unwrap()
}

/// 500 bytes 9, as `zstd -1 --no-check` has them.
const ZSTD: [u8; 18] = [
    0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x48, 0x4d, 0x00, 0x00, 0x10, 0x09, 0x09, 0x01, 0x00, 0xef, 0x2a, 0xc0,
    0x02,
];

fn messages() -> Vec<(&'static str, Message)> {
    let hello = Hello {
        version: 1,
        version_min: 1,
        features: 1,
        store_id: *b"sixteen bytes id",
        name: Name::new("shore-1").unwrap(),
        tail: Tail { epoch: 3, place: Lsn(16384), whole_end: Lsn(16000), checksum: 0xdead_beef },
        history: history(),
        promised: 4,
        slot: Some(Name::new("s").unwrap()),
    };
    let welcome =
        Welcome { version: 1, features: 1, history: history(), resume: Lsn(16384), visible: Lsn(15000) };
    let marks = Marks {
        received: Lsn(5),
        durable: Lsn(4),
        applied: Lsn(3),
        visible: Lsn(2),
        taken: Lsn(4096),
        credit: 1 << 24,
    };
    let beat = Heartbeat { visible: Lsn(1), durable: Lsn(2), sent: Lsn(4096), time_us: 7, now_us: 8 };
    let plain = Piece::plain(Lsn(100), Lsn(4096), Bytes::from_static(b"whole frames"));
    let packed = Piece::plain(Lsn(4096), Lsn(4096), Bytes::from(vec![9; 500])).compressed(Compression::Lz4);
    assert_eq!(packed.compression, Compression::Lz4);
    let zstd = Piece { compression: Compression::Zstd, bytes: Bytes::from_static(&ZSTD), ..packed.clone() };
    vec![
        ("hello", Message::Hello(hello.clone())),
        ("hello-bare", Message::Hello(Hello { slot: None, ..hello })),
        ("welcome", Message::Welcome(welcome)),
        ("refuse-version", Message::Refuse(Why::Version)),
        ("refuse-foreign", Message::Refuse(Why::ForeignStore)),
        ("refuse-diverged", Message::Refuse(Why::Diverged { fork: Lsn(8192), history: history() })),
        ("refuse-fenced", Message::Refuse(Why::Fenced { epoch: 9 })),
        ("refuse-gone", Message::Refuse(Why::LogGone { first: Lsn(4096) })),
        ("refuse-slot", Message::Refuse(Why::SlotMissing)),
        ("refuse-busy", Message::Refuse(Why::Busy)),
        ("refuse-closing", Message::Refuse(Why::NotServing)),
        ("piece", Message::Piece(plain)),
        ("piece-lz4", Message::Piece(packed)),
        ("piece-zstd", Message::Piece(zstd)),
        ("marks", Message::Marks(marks)),
        ("heartbeat", Message::Heartbeat(beat)),
        ("bye", Message::Bye),
        ("distance", Message::Distance(Some(2))),
        ("distance-none", Message::Distance(None)),
        ("awaited", Message::Awaited(Awaited { received: false, applied: true })),
    ]
}

#[test]
fn what_is_encoded_decodes_and_nothing_shorter_does() {
    for (name, message) in messages() {
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message), "{name}");
        let (head, body) = message.parts();
        assert_eq!(Message::from_parts(&head, body).as_ref(), Ok(&message), "{name}");
        // Of a piece compressed, the body's length is what it is: unpacking says whether it is whole.
        let is_packed = matches!(name, "piece-lz4" | "piece-zstd");
        let shorter =
            |length: usize| Message::decode(&bytes[..length]).is_err() || is_packed && length > head.len();
        assert!((0..bytes.len()).all(shorter), "{name}");
        if !is_packed {
            assert!(Message::decode(&[&bytes[..], &[0]].concat()).is_err(), "{name}");
        }
        assert!(Message::decode(&[&[2], &bytes[1..]].concat()).is_err(), "another version");
    }
    assert!(Message::decode(&vec![1; Message::BYTES_MAX + 1]).is_err());
}

#[test]
fn a_piece_unpacks_to_its_length_or_not_at_all() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(4096)
    .collect();
    let plain = Piece::plain(Lsn(0), Lsn(0), Bytes::from(noise));
    assert_eq!(plain.unpacked().unwrap(), plain.bytes);
    let zeros = Piece::plain(Lsn(0), Lsn(0), Bytes::from(vec![0; 100_000]));
    for by in [Compression::Lz4, Compression::Zstd] {
        assert_eq!(plain.clone().compressed(by).compression, Compression::None, "noise stays as it is");
        let packed = zeros.clone().compressed(by);
        if by == Compression::Zstd && !cfg!(feature = "zstd") {
            assert_eq!(packed, zeros);
            continue;
        }
        assert_eq!(packed.compression, by);
        assert!(packed.bytes.len() < 1000);
        assert_eq!(packed.unpacked().unwrap(), zeros.bytes);
        for length in [1, 99_999, 100_001, Piece::BYTES_MAX as u32, u32::MAX] {
            assert!(Piece { length, ..packed.clone() }.unpacked().is_err(), "{by:?}, {length}");
        }
    }
}

/// What 500 bytes 9 come to; without the feature it is taken off the wire, and not unpacked.
#[test]
fn a_piece_that_zstandard_has_packed() {
    let plain = Piece::plain(Lsn(4096), Lsn(4096), Bytes::from(vec![9; 500]));
    let packed = Piece { compression: Compression::Zstd, bytes: Bytes::from_static(&ZSTD), ..plain.clone() };
    match cfg!(feature = "zstd") {
        true => assert_eq!(packed.unpacked().unwrap(), plain.bytes),
        false => assert!(packed.unpacked().is_err()),
    }
}

/// The largest that there can be is within the limits.
#[test]
fn the_longest_hello_fits_into_a_head() {
    let turns = (1..=64).map(|epoch| Turn { epoch, start: Lsn(epoch) }).collect();
    let name = Name::new(&"n".repeat(64)).unwrap();
    let (_, Message::Hello(hello)) = messages().remove(0) else { panic!("the first is a hello") };
    let hello =
        Hello { history: History::new(turns).unwrap(), name: name.clone(), slot: Some(name), ..hello };
    let (head, _) = Message::Hello(hello.clone()).parts();
    assert!(head.len() <= Message::HEAD_BYTES_MAX, "{}", head.len());
    assert_eq!(Message::decode(&head), Ok(Message::Hello(hello)));
}

/// The bytes of version 1. A change here is a change of the format: docs/format/wire.md moves with it, and its version.
#[test]
fn the_bytes_are_those_of_the_format() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let found: Vec<String> = messages()
        .into_iter()
        .filter(|(name, _)| *name != "piece-lz4")
        .map(|(name, message)| format!("{name} {}", hex(&message.encode())))
        .collect();
    let golden = include_str!("golden/messages.txt");
    assert_eq!(found, golden.lines().collect::<Vec<_>>(), "{}", found.join("\n"));
}

#[test]
#[ignore = "writes the corpus"]
fn write_corpus() {
    let all: Vec<(&str, Vec<u8>)> =
        messages().into_iter().map(|(name, message)| (name, message.encode().to_vec())).collect();
    replay::write("wire_message", &all);
    let texts = ["ANY 2 (a, b, c)", "FIRST 1 (\"A \"\"b\", *)", "2 (x, y)", "a, b-1.c", "*"];
    let all: Vec<(String, Vec<u8>)> =
        texts.iter().enumerate().map(|(i, text)| (format!("policy-{i}"), text.as_bytes().to_vec())).collect();
    replay::write(
        "ack_policy",
        &all.iter().map(|(name, text)| (&name[..], text.clone())).collect::<Vec<_>>(),
    );
}
