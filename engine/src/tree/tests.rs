//! The data file as a whole, on a file in memory that can fail, fill up and lose power.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clears;
mod cost;
mod crash;
mod damage;
mod disk;
mod give_back;
mod many;
mod mapped;
mod model;
mod readers;
mod runs;
mod shape;

use super::{Change, Fold, Root, Superblock, TreeCursor, TreeReport, TreeStore};
use crate::{Compression, Error, Result};
use disk::MemFile;
use seawall_wal::{SimDisk, Slice};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The rows of each keyspace.
type Model = BTreeMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What a fold does: for each keyspace, keys and their new values.
type Changes = BTreeMap<u32, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

const CACHE_BYTES: usize = 1 << 20;

/// SplitMix64: small, fast, the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn path() -> &'static Path {
    Path::new("store/data")
}

fn new_file() -> Arc<MemFile> {
    let file = Arc::new(MemFile::default());
    TreeStore::create(file.clone(), path(), &Superblock { store_id: [7; 16], ..Superblock::default() })
        .unwrap();
    file
}

fn open(file: &Arc<MemFile>) -> (Arc<TreeStore>, Arc<Root>) {
    TreeStore::open(SimDisk::new(0), file.clone(), path(), CACHE_BYTES, false).unwrap()
}

fn apply(fold: &mut Fold, changes: &Changes) -> Result<()> {
    for (keyspace, rows) in changes {
        let rows = rows.iter().map(|(key, value)| {
            let change =
                value.as_ref().map_or(Change::Remove, |value| Change::Put(Slice::from(value.clone())));
            Ok((key, change))
        });
        fold.apply_over(*keyspace, layout(*keyspace, rows.len()), Vec::new(), rows, &mut || {})?;
    }
    Ok(())
}

/// One of three keyspaces is compressed, another now and then: leaves of both kinds stand side by side.
fn layout(keyspace: u32, changes: usize) -> Compression {
    match keyspace % 3 {
        2 => Compression::Lz4,
        0 if changes.is_multiple_of(2) => Compression::Lz4,
        _ => Compression::None,
    }
}

fn fold(store: &Arc<TreeStore>, root: &Arc<Root>, changes: &Changes) -> Result<Arc<Root>> {
    let mut fold = store.begin_fold(root)?;
    apply(&mut fold, changes)?;
    fold.finish(|superblock| superblock.next_keyspace += 1)
}

fn follow(model: &mut Model, changes: &Changes) {
    for (keyspace, rows) in changes {
        let tree = model.entry(*keyspace).or_default();
        for (key, value) in rows {
            match value {
                Some(value) => tree.insert(key.clone(), value.clone()),
                None => tree.remove(key),
            };
        }
    }
    model.retain(|_, rows| !rows.is_empty());
}

fn contents(store: &Arc<TreeStore>, root: &Arc<Root>) -> Result<Model> {
    let mut model = Model::new();
    for keyspace in root.keyspaces() {
        let mut cursor = store.cursor(root, keyspace);
        let rows = model.entry(keyspace).or_default();
        while let Some((key, value)) = cursor.next()? {
            rows.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(model)
}

fn verified(store: &Arc<TreeStore>, root: &Arc<Root>) -> TreeReport {
    let report = store.verify(root, &mut |_, _| ()).unwrap();
    assert_eq!(report.problems, Vec::<String>::new(), "generation {}", root.generation);
    report
}

/// Compares everything: rows in order, counts, and the file's inner consistency.
fn check(store: &Arc<TreeStore>, root: &Arc<Root>, model: &Model) {
    assert!(contents(store, root).unwrap() == *model, "generation {}: other contents", root.generation);
    for (keyspace, rows) in model {
        assert_eq!(root.rows(*keyspace), rows.len() as u64);
    }
    verified(store, root);
}

fn put(keyspace: u32, rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Changes {
    Changes::from([(keyspace, rows.into_iter().map(|(key, value)| (key, Some(value))).collect())])
}

fn key(n: u64) -> Vec<u8> {
    format!("user/{n:010}").into_bytes()
}
