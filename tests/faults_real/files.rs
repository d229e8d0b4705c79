//! A store's files, moved about by hand: removed, cut, lengthened, replaced; strangers among them; a newer format's.

use super::rig::{Rows, expected, fresh, killed, refused, rows, succeeded, written};
use seawall::{Db, Error};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

fn copy(source: &Path, target: &Path) {
    let _ = std::fs::remove_dir_all(target);
    std::fs::create_dir_all(target.join("log")).unwrap();
    for file in files(source) {
        std::fs::copy(&file, target.join(file.strip_prefix(source).unwrap())).unwrap();
    }
}

/// The files of a store.
fn files(store: &Path) -> Vec<PathBuf> {
    let entries = [store, &store.join("log")].map(|dir| std::fs::read_dir(dir).unwrap());
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

const ROWS: u64 = 300;

/// A store, closed or killed; and its rows.
fn store(dir: &Path, is_closed: bool) -> Rows {
    if is_closed {
        written(dir, ROWS)
    } else {
        killed(dir, ROWS)
    }
    expected(ROWS)
}

/// What opening made of it.
#[derive(Debug, PartialEq)]
enum Found {
    Whole,
    Corrupt,
    /// There is no store here.
    Missing,
}

/// Opens a store that somebody has had his hands on: it is whole, or it says what is wrong. Never less, never a panic.
fn look(dir: &Path, expected: &Rows, what: &str) -> Found {
    let opened = Db::builder(dir).create(false).open();
    match opened {
        Ok(db) => {
            assert!(rows(&db) == *expected, "{what}: rows are missing, and nothing is said");
            assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new(), "{what}");
            db.keyspace("default").unwrap().insert("more", "rows").unwrap();
            db.close().unwrap();
            Found::Whole
        }
        Err(Error::Corruption { file, what: why, .. }) => {
            assert!(!why.is_empty() && file.starts_with(dir), "{what}: {}: {why}", file.display());
            Found::Corrupt
        }
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Found::Missing,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Does something to each file of a store in turn; the name of each, and what came of it.
fn each_file(name: &str, is_closed: bool, change: impl Fn(&Path)) -> Vec<(String, Found)> {
    let (dir, again) = (fresh(name).join("db"), fresh(&format!("{name}-copy")).join("db"));
    let expected = store(&dir, is_closed);
    let mut all = Vec::new();
    for file in files(&dir) {
        let relative = file.strip_prefix(&dir).unwrap();
        let what = format!("{name}, closed {is_closed}, {}", relative.display());
        copy(&dir, &again);
        change(&again.join(relative));
        let before: Vec<Vec<u8>> = files(&again).iter().map(|file| std::fs::read(file).unwrap()).collect();
        let found = look(&again, &expected, &what);
        if found != Found::Whole {
            // What is refused is left as it is: with the file put back, all is well.
            let after: Vec<Vec<u8>> = files(&again).iter().map(|file| std::fs::read(file).unwrap()).collect();
            assert!(before == after, "{what}: refused, and written to");
            std::fs::copy(&file, again.join(relative)).unwrap();
            assert_eq!(look(&again, &expected, &format!("{what}, put back")), Found::Whole);
        }
        all.push((relative.display().to_string(), found));
    }
    all
}

fn of<'a>(all: &'a [(String, Found)], name: &str) -> &'a Found {
    &all.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no {name} in {all:?}")).1
}

fn corrupt(all: &[(String, Found)]) -> usize {
    all.iter().filter(|(name, found)| name.ends_with(".log") && *found == Found::Corrupt).count()
}

#[test]
fn a_file_that_is_missing_is_missed() {
    for is_closed in [true, false] {
        let all = each_file("missing", is_closed, |file| std::fs::remove_file(file).unwrap());
        assert_eq!(*of(&all, "log/anchor"), Found::Corrupt);
        // Without a data file there is no store; one is not made over what is left of it, which the next test shows.
        assert_eq!(*of(&all, "data"), Found::Missing);
        let least = if is_closed { 1 } else { 3 };
        assert!(corrupt(&all) >= least, "{all:?}");
    }
}

#[test]
fn a_store_without_its_data_file_is_not_made_anew() {
    let dir = fresh("data").join("db");
    store(&dir, false);
    std::fs::remove_file(dir.join("data")).unwrap();
    let error = Db::open(&dir).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
    refused(dir.parent().unwrap(), &["init", "db"], 5, "damaged");
    // Nor without its log.
    let dir = fresh("log").join("db");
    store(&dir, true);
    std::fs::remove_dir_all(dir.join("log")).unwrap();
    let error = Db::open(&dir).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
    refused(dir.parent().unwrap(), &["get", "db", "k"], 5, "missing");
}

#[test]
fn a_file_that_is_cut_short_is_noticed() {
    for divisor in [2, 4096] {
        for is_closed in [true, false] {
            let cut = |file: &Path| {
                let len = std::fs::metadata(file).unwrap().len();
                OpenOptions::new().write(true).open(file).unwrap().set_len(len / divisor).unwrap();
            };
            let all = each_file("cut", is_closed, cut);
            // Half of it may be room that no checkpoint has used yet.
            assert!(divisor == 2 || *of(&all, "data") == Found::Corrupt);
            assert!(corrupt(&all) >= 1, "{all:?}");
        }
    }
}

#[test]
fn a_file_that_is_too_long_loses_nothing() {
    for is_closed in [true, false] {
        let lengthen = |file: &Path| {
            let mut bytes = std::fs::read(file).unwrap();
            bytes.extend_from_slice(&[0xA5; 10_000]);
            std::fs::write(file, bytes).unwrap();
        };
        let all = each_file("long", is_closed, lengthen);
        assert_eq!(*of(&all, "data"), Found::Whole);
    }
}

#[test]
fn another_stores_file_is_told_from_ones_own() {
    let other = fresh("other").join("db");
    store(&other, false);
    for is_closed in [true, false] {
        let replace = |file: &Path| {
            let name = file.file_name().unwrap();
            let place = if name == "data" { other.join(name) } else { other.join("log").join(name) };
            if place.exists() {
                std::fs::copy(place, file).unwrap();
            }
        };
        let all = each_file("exchanged", is_closed, replace);
        assert_eq!(*of(&all, "data"), Found::Corrupt);
        assert_eq!(*of(&all, "log/anchor"), Found::Corrupt);
    }
}

#[test]
fn strangers_among_the_files_are_left_alone() {
    let dir = fresh("strangers").join("db");
    let expected = store(&dir, false);
    for name in ["notes.txt", "log/notes.txt", "log/segment.log", "log/00000000000000000000.log.bak"] {
        std::fs::write(dir.join(name), "not ours").unwrap();
    }
    std::fs::create_dir(dir.join("log/directory")).unwrap();
    assert_eq!(look(&dir, &expected, "with strangers"), Found::Whole);
    assert_eq!(std::fs::read(dir.join("notes.txt")).unwrap(), b"not ours");
    assert_eq!(std::fs::read(dir.join("log/notes.txt")).unwrap(), b"not ours");
    assert!(dir.join("log/directory").is_dir());
}

/// CRC-32 (IEEE), bit by bit.
fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.into_iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// Raises the version in every header block of a file, with a checksum that is right.
fn raise_version(file: &Path, version: u32, checksum_at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    for block in bytes.chunks_mut(4096).take(2).filter(|block| block[..6].eq_ignore_ascii_case(b"seawal")) {
        block[8..12].copy_from_slice(&version.to_le_bytes());
        let checksum = crc32(block[..checksum_at].iter().chain(&block[checksum_at + 4..]).copied());
        block[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_newer_format_is_named_and_not_called_damaged() {
    let (dir, again) = (fresh("newer").join("db"), fresh("newer-copy").join("db"));
    let expected = store(&dir, false);
    let live = files(&dir).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log"));
    let newest = live.max_by_key(|file| {
        let bytes = std::fs::read(file).unwrap();
        (bytes.starts_with(b"SEAWALSG"), bytes[48..56].iter().rev().copied().collect::<Vec<u8>>())
    });
    let newest = newest.unwrap();
    for (file, checksum_at) in [(dir.join("data"), 4092), (dir.join("log/anchor"), 12), (newest, 12)] {
        let relative = file.strip_prefix(&dir).unwrap();
        for version in [2, 77, 0x0001_0000] {
            copy(&dir, &again);
            raise_version(&again.join(relative), version, checksum_at);
            for read_only in [false, true] {
                let error = Db::builder(&again).read_only(read_only).open().unwrap_err();
                let is_named = matches!(&error, Error::FormatVersion { found, supported }
                    if *found == version && !supported.contains(found));
                assert!(is_named, "{}, version {version}: {error}", relative.display());
            }
            refused(again.parent().unwrap(), &["get", "db", "k"], 6, &version.to_string());
        }
    }
    assert_eq!(look(&dir, &expected, "the original"), Found::Whole);
}

#[test]
fn a_store_that_was_copied_while_closed_is_a_store() {
    let dir = fresh("copied");
    written(&dir.join("db"), 300);
    copy(&dir.join("db"), &dir.join("copy"));
    let scan = |name: &str| succeeded(&dir, &["scan", name]);
    assert_eq!(scan("db"), scan("copy"));
    // They go separate ways from there, and both open.
    succeeded(&dir, &["put", "copy", "k", "v"]);
    assert_eq!(scan("db").lines().count() + 1, scan("copy").lines().count());
}
