//! The interleavings of the data file's users, explored by [shuttle](https://docs.rs/shuttle) as those of the commit path
//! are (`crate::shuttle_tests`): streams beside space that is given back, and readers of one block beside folds that use
//! its place again. Each call of the disk, and each of the tree's locks, is where another may go on ([`disk`]).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod disk;
mod readers;
mod streams;

use super::{Change, Root, Superblock, TreeStore};
use crate::commit::explored::{Misorder, err_by};
use crate::{ReadMode, Result};
use disk::Stepwise;
use seawall_wal::disk::{Disk, Open};
use seawall_wal::exploration::{explore, find};
use seawall_wal::{Lsn, SimDisk, Slice};
use std::path::Path;
use std::sync::Arc;

const DATA: &str = "/data";
const KEYSPACE: u32 = 1;
/// In each of the cache's parts there is room for one block, and not for two.
const CACHE_BYTES: usize = 80 << 10;

/// A new store whose disk is a scheduler's to interrupt.
fn new_store(mode: ReadMode) -> (Arc<SimDisk>, Arc<TreeStore>, Arc<Root>) {
    let (disk, path) = (SimDisk::new(1), Path::new(DATA));
    let stepwise = Stepwise::over(&disk);
    let file = stepwise.open(path, Open::CreateNew).unwrap();
    TreeStore::create(Arc::clone(&file), path, &Superblock::default()).unwrap();
    let (store, root) = TreeStore::open_in(mode, stepwise.clone(), file, path, CACHE_BYTES, false).unwrap();
    stepwise.watch(&store);
    (disk, store, root)
}

/// A checkpoint, as far as the tree is concerned, but for giving space back; it is told by `round` from others.
fn fold<K: AsRef<[u8]>>(
    store: &Arc<TreeStore>,
    root: &Arc<Root>,
    round: u64,
    rows: impl Iterator<Item = (K, Change)>,
) -> Result<Arc<Root>> {
    let mut fold = store.begin_fold(root)?;
    let mut rows: Vec<(K, Change)> = rows.collect();
    rows.sort_by(|(key, _), (other, _)| key.as_ref().cmp(other.as_ref()));
    fold.await_values(rows.iter().filter_map(|(_, change)| match change {
        Change::PutLarge(value) => Some(value.clone()),
        _ => None,
    }));
    fold.apply(KEYSPACE, rows.into_iter().map(Ok))?;
    let folded = fold.finish(|superblock| superblock.applied_lsn = Lsn(round))?;
    store.repeat(&folded)
}

fn put(bytes: Vec<u8>) -> Change {
    Change::Put(Slice::from(bytes))
}

fn is_sound(store: &Arc<TreeStore>, root: &Arc<Root>) {
    assert_eq!(store.verify(root, &mut |_, _| ()).unwrap().problems, Vec::<String>::new());
}

/// That exploration finds the mistake, and as what.
fn noticed(misorder: Option<Misorder>, scenario: impl Fn() + Send + Sync + Clone + 'static, how: &str) {
    err_by(misorder);
    let found = find(5_000, scenario);
    err_by(None);
    let found = found.unwrap_or_else(|| panic!("{misorder:?} goes unnoticed"));
    assert!(found.contains(how), "{misorder:?} is noticed as: {found}");
}
