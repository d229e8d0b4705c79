//! Keyspaces: named, ordered maps. What a handle is, and for which snapshots its keyspace is there.
//!
//! The catalogue is keyspace 0, a map from names to ids like any other: versioned, transactional, folded. Beside it
//! stands one [`Life`] per id in use, shared by all handles: from which LSN to which it lives. A reader holds its
//! snapshot against it (two loads), a writer is checked under the sequencer's lock, so that no row is ever committed
//! into a keyspace that is gone. Ids are never reused: what is left of a dropped keyspace cannot come back.

use crate::record::{BRANCHES, CatalogueRow, KeyspaceOptions, WriteSet};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::{Error, Result};
use seawall_wal::Lsn;
use std::collections::BTreeMap;
use std::sync::Arc;

/// From where to where in the log a keyspace lives.
#[derive(Debug)]
pub(crate) struct Life {
    /// The open store that this belongs to: a handle used on another store is refused.
    instance: u64,
    id: u32,
    name: Arc<str>,
    options: KeyspaceOptions,
    /// The record that creates it; [`Lsn::MAX`] until that has its place in the log.
    created: AtomicU64,
    /// The record that drops it; [`Lsn::MAX`] while it lives.
    dropped: AtomicU64,
}

impl Life {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn options(&self) -> &KeyspaceOptions {
        &self.options
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    fn created(&self) -> Lsn {
        Lsn(self.created.load(Ordering::Acquire))
    }

    fn dropped(&self) -> Lsn {
        Lsn(self.dropped.load(Ordering::Acquire))
    }

    /// True if a snapshot at `lsn` sees the keyspace.
    pub(crate) fn is_at(&self, lsn: Lsn) -> bool {
        self.created() < lsn && self.dropped() >= lsn
    }

    /// True if a record that is placed next may write into the keyspace.
    pub(crate) fn is_writable(&self) -> bool {
        self.created() != Lsn::MAX && self.dropped() == Lsn::MAX
    }

    pub(crate) fn missing(&self) -> Error {
        Error::KeyspaceMissing(self.name.to_string())
    }
}

/// The lives of the keyspaces that were used since the store was opened, and the next id.
#[derive(Debug)]
pub(crate) struct Catalogue {
    instance: u64,
    next_id: AtomicU32,
    lives: Mutex<Lives>,
}

#[derive(Debug, Default)]
struct Lives {
    by_id: BTreeMap<u32, Arc<Life>>,
    /// Where those were dropped that had no handle then, and that an older snapshot may still find.
    dropped: BTreeMap<u32, Lsn>,
}

impl Catalogue {
    pub(crate) fn new(instance: u64, next_id: u32) -> Catalogue {
        Catalogue { instance, next_id: AtomicU32::new(next_id.max(1)), lives: Mutex::default() }
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// The id that the next keyspace gets.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id.load(Ordering::Acquire)
    }

    /// An id seen in the log is not given again.
    pub(crate) fn note_used(&self, id: u32) {
        self.next_id.fetch_max(id.saturating_add(1), Ordering::AcqRel);
    }

    /// A keyspace to be created: its life begins when its record has its place in the log. An id whose transaction
    /// fails is lost, which is harmless.
    pub(crate) fn conceive(&self, name: &str, options: KeyspaceOptions) -> Result<Arc<Life>> {
        let next = |id: u32| (id < BRANCHES).then_some(id + 1);
        let taken = self.next_id.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        let id = taken.map_err(|id| Error::TooLarge {
            what: "number of keyspaces ever created",
            len: u64::from(id),
            max: u64::from(BRANCHES - 1),
        })?;
        Ok(self.life(CatalogueRow::new(id, options), name, Lsn::MAX))
    }

    /// The life of a keyspace that a snapshot found in the catalogue. All that were created since the store was
    /// opened are known already; another was there before.
    pub(crate) fn found(&self, row: CatalogueRow, name: &str) -> Arc<Life> {
        self.life(row, name, Lsn::ZERO)
    }

    /// A keyspace that a prepared transaction makes: its life begins with that transaction's commit.
    pub(crate) fn expected(&self, row: CatalogueRow, name: &str) {
        self.note_used(row.id);
        self.life(row, name, Lsn::MAX);
    }

    fn life(&self, row: CatalogueRow, name: &str, created: Lsn) -> Arc<Life> {
        let CatalogueRow { id, options } = row;
        let mut lives = self.lives.lock();
        let Lives { by_id, dropped } = &mut *lives;
        let dropped = dropped.get(&id).copied().unwrap_or(Lsn::MAX);
        let life = by_id.entry(id).or_insert_with(|| {
            Arc::new(Life {
                instance: self.instance,
                id,
                name: name.into(),
                options,
                created: AtomicU64::new(created.0),
                dropped: AtomicU64::new(dropped.0),
            })
        });
        Arc::clone(life)
    }

    /// A record that creates and drops keyspaces got its place. Under the sequencer's lock.
    pub(crate) fn placed(&self, created: &[u32], dropped: &[u32], lsn: Lsn) {
        if created.is_empty() && dropped.is_empty() {
            return;
        }
        let lives = self.lives.lock();
        for life in created.iter().filter_map(|id| lives.by_id.get(id)) {
            life.created.store(lsn.0, Ordering::Release);
        }
        for life in dropped.iter().filter_map(|id| lives.by_id.get(id)) {
            life.dropped.store(lsn.0, Ordering::Release);
        }
    }

    /// A record that is not visible yet, and that was not placed here, creates and drops keyspaces: recovery has found it, or
    /// it was shipped. False if what it says of a keyspace does not parse.
    pub(crate) fn followed(&self, set: &WriteSet, lsn: Lsn) -> bool {
        for (name, row) in set.creations() {
            let (Ok(name), Some(row)) = (std::str::from_utf8(name), CatalogueRow::decode(row)) else {
                return false;
            };
            self.note_used(row.id);
            self.life(row, name, lsn).created.store(lsn.0, Ordering::Release);
        }
        let mut lives = self.lives.lock();
        for id in set.dropped() {
            if let Some(life) = lives.by_id.get(id) {
                life.dropped.store(lsn.0, Ordering::Release);
            } else {
                lives.dropped.insert(*id, lsn);
            }
        }
        true
    }

    /// That record was withdrawn. Under the sequencer's lock.
    pub(crate) fn withdrawn(&self, created: &[u32], dropped: &[u32]) {
        let lives = self.lives.lock();
        for life in created.iter().filter_map(|id| lives.by_id.get(id)) {
            life.created.store(Lsn::MAX.0, Ordering::Release);
        }
        for life in dropped.iter().filter_map(|id| lives.by_id.get(id)) {
            life.dropped.store(Lsn::MAX.0, Ordering::Release);
        }
    }
}

/// A name is 1 to 255 bytes.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let max = crate::key::NAME_BYTES_MAX;
    match name.len() {
        0 => Err(Error::BadInput("a keyspace needs a name".into())),
        len if len > max => Err(Error::TooLarge { what: "keyspace name", len: len as u64, max: max as u64 }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_snapshot_sees_a_keyspace_from_its_creation_to_its_drop() {
        let catalogue = Catalogue::new(1, 0);
        let life = catalogue.conceive("a", KeyspaceOptions::default()).unwrap();
        assert_eq!(life.id(), 1);
        assert!(!life.is_writable() && !life.is_at(Lsn(100)));
        catalogue.placed(&[1], &[], Lsn(10));
        assert!(life.is_writable() && !life.is_at(Lsn(10)) && life.is_at(Lsn(11)));
        catalogue.placed(&[], &[1], Lsn(20));
        assert!(!life.is_writable() && life.is_at(Lsn(20)) && !life.is_at(Lsn(21)));
        catalogue.withdrawn(&[], &[1]);
        assert!(life.is_writable() && life.is_at(Lsn(21)));
        catalogue.note_used(9);
        assert_eq!(catalogue.conceive("b", KeyspaceOptions::default()).unwrap().id(), 10);
        assert!(catalogue.found(CatalogueRow::new(4, KeyspaceOptions::default()), "old").is_at(Lsn(1)));
    }
}
