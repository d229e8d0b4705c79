//! Everything that a store shows, read in every way there is.

use super::branches::{Branch, Branches};
use super::model::{self, Contents, State};
use seawall_engine::{Db, Error, Keyspace, Readable, Snapshot, ValueReader};
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

/// From this length on values are streamed, in pieces of that length.
pub(super) const STREAMED_MIN: usize = 4 << 10;
pub(super) const PIECE_BYTES: usize = 8 << 10;

pub(super) enum Compared {
    Read(Error),
    Differs(String),
}

/// Everything in the store.
pub(super) fn contents(db: &Db) -> Result<State, Error> {
    let names = db.keyspace_names()?;
    let rows = contents_of(&db.snapshot(), &handles(db, names.iter())?)?;
    let branches: Branches = db
        .prepared()
        .chain(db.heuristics())
        .map(|found| (found.xid().clone(), Branch { ended: found.heuristic(), ..Branch::default() }))
        .collect();
    Ok(State { rows, branches })
}

/// Whether a stream shows these bytes: at the edges of pieces, from behind, and as a whole.
pub(super) fn is_read_in_parts(reader: &mut ValueReader, expected: &[u8]) -> Result<bool, Error> {
    let mut read = || -> io::Result<bool> {
        if reader.len() != expected.len() as u64 {
            return Ok(false);
        }
        let end = expected.len();
        for at in [end.saturating_sub(9), PIECE_BYTES, PIECE_BYTES - 3, 0] {
            let wanted = expected.get(at..end.min(at + 16)).unwrap_or_default();
            let mut found = vec![0; wanted.len()];
            reader.seek(SeekFrom::Start(at as u64))?;
            reader.read_exact(&mut found)?;
            if found != wanted {
                return Ok(false);
            }
        }
        reader.rewind()?;
        let mut whole = Vec::with_capacity(end);
        reader.read_to_end(&mut whole)?;
        Ok(whole == expected)
    };
    read().map_err(|error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::BadInput(format!("a stream failed: {error}")),
    })
}

/// By these, rows of keyspaces can be asked for that are dropped since.
pub(super) type Handles = Vec<Keyspace>;

pub(super) fn handles<'a>(db: &Db, names: impl Iterator<Item = &'a String>) -> Result<Handles, Error> {
    names.filter_map(|name| db.open_keyspace(name).transpose()).collect()
}

pub(super) fn compare_snapshot(
    snapshot: &Snapshot,
    handles: &Handles,
    expected: &Contents,
    which: &str,
) -> Result<(), String> {
    match contents_of(snapshot, handles) {
        Ok(found) if found == *expected => Ok(()),
        Ok(found) => Err(format!("{which} differs: {}", model::difference(expected, &found))),
        Err(Error::Io { .. }) => Ok(()),
        Err(error) => Err(format!("reading {which}: {error}")),
    }
}

/// Everything that a snapshot sees in these keyspaces; forward, and checked backward.
pub(super) fn contents_of(snapshot: &Snapshot, handles: &Handles) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    for ks in handles {
        let name = ks.name();
        let mut rows = BTreeMap::new();
        for row in snapshot.range(ks, ..) {
            let (key, value) = row?;
            rows.insert(key.to_vec(), value.to_vec());
        }
        let mut backward = BTreeMap::new();
        for row in snapshot.range(ks, ..).rev() {
            let (key, value) = row?;
            backward.insert(key.to_vec(), value.to_vec());
        }
        if rows != backward {
            return Err(Error::BadInput(format!("keyspace {name} differs read backward")));
        }
        let keys: Vec<&Vec<u8>> = rows.keys().rev().collect();
        let at_once = snapshot.multi_get(ks, &keys)?;
        if !at_once.iter().rev().map(|value| value.as_deref()).eq(rows.values().map(|value| Some(&**value))) {
            return Err(Error::BadInput(format!("keyspace {name} differs read by many keys at once")));
        }
        for (key, value) in rows.iter().filter(|(_, value)| value.len() >= STREAMED_MIN) {
            let reader = snapshot.open_value(ks, key)?;
            if !reader.map_or(Ok(false), |mut reader| is_read_in_parts(&mut reader, value))? {
                return Err(Error::BadInput(format!("keyspace {name} differs read as streams")));
            }
        }
        contents.insert(name.to_owned(), rows);
    }
    Ok(contents)
}
