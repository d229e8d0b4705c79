//! How the keyspaces are compressed that a checkpoint writes to. The catalogue says so: what of it lies in the deltas that
//! are folded, and in the tree below them. A keyspace keeps its options and an id is never used again, so what was found
//! once holds.

use crate::delta::Delta;
use crate::read::scan::Merge;
use crate::read::view::Reads;
use crate::record::{CATALOGUE, CatalogueRow, Compression};
use crate::tree::Root;
use crate::{Error, Result};
use seawall_wal::Lsn;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Reads {
    /// The compression of keyspaces that are there at `end`.
    ///
    /// # Errors
    /// `BadInput` if this build is without one of them; what reading the catalogue can meet.
    pub(crate) fn compressions(
        self: &Arc<Self>,
        root: &Arc<Root>,
        deltas: &[Arc<Delta>],
        end: Lsn,
        keyspaces: impl Iterator<Item = u32>,
    ) -> Result<BTreeMap<u32, Compression>> {
        let wanted: Vec<u32> = keyspaces.filter(|keyspace| *keyspace != CATALOGUE).collect();
        let mut known = self.known_compressions.lock();
        let lacks = |known: &BTreeMap<u32, Compression>| wanted.iter().any(|id| !known.contains_key(id));
        if lacks(&known) {
            let mut rows = Merge::of_deltas(self, deltas, CATALOGUE, end);
            while let Some((_, version)) = rows.next_found()? {
                let row = self.row_of(version)?;
                known.extend(row.and_then(|row| compression_of(&row)));
            }
        }
        if lacks(&known) {
            let mut rows = self.store.cursor(root, CATALOGUE);
            while rows.advance()? {
                known.extend(compression_of(&rows.value()?));
            }
        }
        let found = |id: &u32| (*id, known.get(id).copied().unwrap_or_default());
        let found: BTreeMap<u32, Compression> = wanted.iter().map(found).collect();
        match found.iter().find(|(_, compression)| !compression.is_supported()) {
            Some((id, compression)) => Err(Error::BadInput(format!(
                "keyspace {id} has rows to be stored: {}",
                compression.missing()
            ))),
            None => Ok(found),
        }
    }

    /// Refuses what was replayed of keyspaces that this build could not store.
    ///
    /// # Errors
    /// As [`compressions`](Self::compressions).
    pub(crate) fn check_compressions(self: &Arc<Self>, end: Lsn) -> Result<()> {
        let view = self.view();
        let dropped: BTreeSet<u32> = view.active.dropped().into_keys().collect();
        let keyspaces = view.active.keyspaces().into_iter().filter(|keyspace| !dropped.contains(keyspace));
        self.compressions(&view.root, &[Arc::clone(&view.active)], end, keyspaces).map(drop)
    }
}

fn compression_of(row: &[u8]) -> Option<(u32, Compression)> {
    CatalogueRow::decode(row).map(|row| (row.id, row.options.compression))
}
