//! What the writers write, and what must be there of it.

use seawall::{Db, DbBuilder, Keyspace, Readable, Result, Transaction};
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) const WRITERS: usize = 8;
/// Small, so that kills meet rotations.
pub(crate) const SEGMENT_BYTES: u64 = 256 << 10;
/// A writer's older rows are removed, so that checks stay quick however long a run is.
const KEPT: u64 = 60;
const KEYSPACES: [&str; 2] = ["left", "right"];

/// How this test opens its store: with little memory, so that kills meet checkpoints.
pub(crate) fn builder(store: &Path) -> DbBuilder {
    Db::builder(store).segment_bytes(SEGMENT_BYTES).memory_budget(1 << 20)
}

/// The keyspaces, made if need be.
pub(crate) fn keyspaces(db: &Db) -> Result<[Keyspace; 2]> {
    Ok([db.keyspace(KEYSPACES[0])?, db.keyspace(KEYSPACES[1])?])
}

/// Whether a commit's values go into the store as streams, into extents of their own.
fn is_streamed(sequence: u64) -> bool {
    sequence % 211 == 7
}

fn key(writer: usize, sequence: u64) -> Vec<u8> {
    format!("{writer}/{sequence:012}").into_bytes()
}

/// Every byte follows from where it stands: a row cannot pass for another, nor a part of one for the whole.
fn value(side: usize, writer: usize, sequence: u64) -> Vec<u8> {
    let len = match sequence % 23 {
        _ if is_streamed(sequence) => 300_000,
        0 => 9_000,
        short @ 1..9 => 20 * short,
        _ => 700,
    };
    let mut state = (sequence << 8) | (writer as u64) << 1 | side as u64;
    let mut bytes = Vec::with_capacity(len as usize + 8);
    while bytes.len() < len as usize {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// One commit's writes: a row in each keyspace, and one removed from each.
pub(crate) fn write(
    transaction: &mut Transaction,
    keyspaces: &[Keyspace; 2],
    writer: usize,
    sequence: u64,
) -> Result<()> {
    for (side, keyspace) in keyspaces.iter().enumerate() {
        let (key, value) = (key(writer, sequence), value(side, writer, sequence));
        if is_streamed(sequence) {
            transaction.insert_from(keyspace, key, value.len() as u64, &value[..])?;
        } else {
            transaction.insert(keyspace, key, value)?;
        }
        if let Some(old) = sequence.checked_sub(KEPT).filter(|old| *old > 0) {
            transaction.remove(keyspace, self::key(writer, old))?;
        }
    }
    Ok(())
}

/// The last sequence number of each writer that is in the store.
pub(crate) fn last_sequences(db: &Db, keyspace: &Keyspace) -> Result<[u64; WRITERS]> {
    let mut last = [0; WRITERS];
    for row in db.snapshot().range(keyspace, ..) {
        let (writer, sequence) = parse(&row?.0);
        last[writer] = sequence;
    }
    Ok(last)
}

fn parse(key: &[u8]) -> (usize, u64) {
    let (writer, sequence) = std::str::from_utf8(key).unwrap().split_once('/').unwrap();
    (writer.parse().unwrap(), sequence.parse().unwrap())
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// All that is there if each writer made its first commits up to these.
fn expected(side: usize, last: [u64; WRITERS]) -> Rows {
    let kept = |writer: usize| {
        (last[writer].saturating_sub(KEPT - 1).max(1)..=last[writer]).map(move |n| (writer, n))
    };
    let places = (0..WRITERS).flat_map(kept);
    places.map(|(writer, sequence)| (key(writer, sequence), value(side, writer, sequence))).collect()
}

/// Opens the store and looks at everything. Returns what is there of each writer: it was shown, so it must stay.
pub(crate) fn check(
    store: &Path,
    is_reader: bool,
    is_thorough: bool,
    proven: [u64; WRITERS],
    announced: [u64; WRITERS],
    what: &str,
) -> [u64; WRITERS] {
    let opened = builder(store).read_only(is_reader).create(false).open();
    let db = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut last = [0; WRITERS];
    for (side, name) in KEYSPACES.iter().enumerate() {
        let keyspace =
            db.open_keyspace(name).unwrap().unwrap_or_else(|| panic!("{what}: no keyspace {name}"));
        if side == 0 {
            last = last_sequences(&db, &keyspace).unwrap();
        }
        let snapshot = db.snapshot();
        let rows =
            snapshot.range(&keyspace, ..).map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
        let found: Rows = rows.collect::<Result<_>>().unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected = expected(side, last);
        let wrong = expected.iter().find(|(key, value)| found.get(*key) != Some(value)).map(|(key, _)| key);
        let wrong = wrong.or_else(|| found.keys().find(|key| !expected.contains_key(*key)));
        if let Some(key) = wrong {
            panic!("{what}: with {last:?} there, row {} of {name} is not as it was", key.escape_ascii());
        }
    }
    for writer in 0..WRITERS {
        let (proven, announced, found) = (proven[writer], announced[writer], last[writer]);
        assert!(
            found >= proven,
            "{what}: writer {writer}: {found} of {proven} acknowledged commits are there"
        );
        assert!(found <= announced, "{what}: writer {writer}: {found} commits, {announced} were begun");
    }
    if is_thorough {
        assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new(), "{what}");
    }
    db.close().unwrap_or_else(|error| panic!("{what}: closing: {error}"));
    last
}
