//! A transaction's private writes: what it has cleared, and over that what its rows are.
//!
//! What a keyspace's entry says is what all operations so far come to: a clear takes the rows out that it covers, and
//! hides what lies below the transaction; a row written after that stands over it. So a commit's record has each
//! keyspace's clears first and its rows behind them, whatever the order of the calls was.

use crate::cover::{Cover, NODE_BYTES as COVER_NODE_BYTES, Span};
use crate::delta::{NODE_BYTES, Version};
use crate::read::scan::{OwnKey, OwnRows};
use crate::record::Builder;
use seawall_wal::Slice;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// All keyspaces' writes, and how to take back those since a savepoint.
#[derive(Default)]
pub(crate) struct OwnWrites {
    spaces: BTreeMap<u32, Space>,
    /// Memory that the writes take.
    bytes: usize,
    undo: Vec<Undo>,
    /// Memory that the undo list takes.
    undo_bytes: usize,
    /// From the first savepoint on.
    pub(crate) keeps_undo: bool,
}

#[derive(Default)]
struct Space {
    rows: Arc<OwnRows>,
    cleared: Cover,
}

/// The state before a write.
enum Undo {
    Row { keyspace: u32, key: Slice, before: Option<Version> },
    Cleared { keyspace: u32, before: Cover, bytes: usize },
}

impl Undo {
    /// Memory that it takes.
    fn bytes(&self) -> usize {
        match self {
            Undo::Row { key, before, .. } => {
                size_of::<Undo>() + key.len() + before.as_ref().map_or(0, Version::byte_len)
            }
            // What it shares with the cover now was counted with the clear.
            Undo::Cleared { .. } => size_of::<Undo>(),
        }
    }
}

/// What a transaction itself says of a row.
pub(crate) enum OwnRow {
    /// Nothing: its snapshot says.
    Unwritten,
    /// It has cleared a range with it.
    Cleared,
    Written(Version),
}

/// Memory that a row takes.
pub(crate) fn cost(key: &[u8], value_bytes: usize) -> usize {
    key.len() + value_bytes + NODE_BYTES as usize
}

/// Memory that a clear takes.
pub(crate) fn cost_of_clear(span: &Span) -> usize {
    span.byte_len() + 2 * COVER_NODE_BYTES as usize
}

impl OwnWrites {
    /// Memory that the writes take, and what they have replaced since the first savepoint.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.undo_bytes
    }

    fn keep(&mut self, undo: Undo) {
        self.undo_bytes += undo.bytes();
        self.undo.push(undo);
    }

    pub(crate) fn row(&self, keyspace: u32, key: &[u8]) -> OwnRow {
        let Some(space) = self.spaces.get(&keyspace) else { return OwnRow::Unwritten };
        match space.rows.get(key) {
            Some(version) => OwnRow::Written(version.clone()),
            None if space.cleared.mark(key).is_some() => OwnRow::Cleared,
            None => OwnRow::Unwritten,
        }
    }

    /// The rows and the clears of a keyspace as of now.
    pub(crate) fn of(&self, keyspace: u32) -> Option<(Arc<OwnRows>, Cover)> {
        self.spaces.get(&keyspace).map(|space| (Arc::clone(&space.rows), space.cleared.clone()))
    }

    /// The row is this from now on.
    pub(crate) fn set(&mut self, keyspace: u32, key: &[u8], version: Version) {
        let rows = Arc::make_mut(&mut self.spaces.entry(keyspace).or_default().rows);
        self.bytes += cost(key, version.byte_len());
        let before = match rows.get_mut(key) {
            Some(row) => {
                self.bytes -= cost(key, row.byte_len());
                Some(std::mem::replace(row, version))
            }
            None => rows.insert(OwnKey(Slice::from(key.to_vec())), version),
        };
        if self.keeps_undo {
            self.keep(Undo::Row { keyspace, key: Slice::from(key.to_vec()), before });
        }
    }

    /// Nothing is left of the span's rows, whoever wrote them.
    pub(crate) fn clear(&mut self, keyspace: u32, span: &Span) {
        let space = self.spaces.entry(keyspace).or_default();
        let to = span.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let bounds = (Bound::Included(&*span.from), to);
        let covered: Vec<OwnKey> = space.rows.range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
        if !covered.is_empty() {
            let rows = Arc::make_mut(&mut space.rows);
            for key in covered {
                let before = rows.remove(&key);
                self.bytes -= before.as_ref().map_or(0, |row| cost(&key.0, row.byte_len()));
                if self.keeps_undo {
                    let undo = Undo::Row { keyspace, key: key.0, before };
                    self.undo_bytes += undo.bytes();
                    self.undo.push(undo);
                }
            }
        }
        let cleared = space.cleared.laid(span, 1);
        let before = std::mem::replace(&mut space.cleared, cleared);
        let bytes = cost_of_clear(span);
        self.bytes += bytes;
        if self.keeps_undo {
            self.keep(Undo::Cleared { keyspace, before, bytes });
        }
    }

    /// What [`rollback_to`](Self::rollback_to) needs to come back here.
    pub(crate) fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Takes back all writes since the mark. The keys of the adds among them.
    pub(crate) fn rollback_to(&mut self, mark: usize) -> Vec<(u32, Slice)> {
        let mut added = Vec::new();
        for undo in self.undo.split_off(mark.min(self.undo.len())).into_iter().rev() {
            self.undo_bytes -= undo.bytes();
            match undo {
                Undo::Row { keyspace, key, before } => {
                    let rows = Arc::make_mut(&mut self.spaces.entry(keyspace).or_default().rows);
                    let size = |version: &Version| cost(&key, version.byte_len());
                    self.bytes += before.as_ref().map_or(0, size);
                    let now = match before {
                        Some(before) => rows.insert(OwnKey(key.clone()), before),
                        None => rows.remove(&*key),
                    };
                    self.bytes -= now.as_ref().map_or(0, size);
                    if matches!(now, Some(Version::Add(_))) {
                        added.push((keyspace, key));
                    }
                }
                Undo::Cleared { keyspace, before, bytes } => {
                    self.spaces.entry(keyspace).or_default().cleared = before;
                    self.bytes -= bytes;
                }
            }
        }
        added
    }

    /// Whether there is any.
    pub(crate) fn has_any(&self) -> bool {
        self.spaces.values().any(|space| !space.rows.is_empty() || !space.cleared.spans().is_empty())
    }

    /// Adds the writes to the wanted keyspaces to a record.
    pub(crate) fn encode(&self, builder: &mut Builder, is_wanted: impl Fn(u32) -> bool) {
        for (keyspace, space) in self.spaces.iter().filter(|(keyspace, _)| is_wanted(**keyspace)) {
            for span in space.cleared.spans() {
                builder.remove_range(*keyspace, span.bounds());
            }
            for (key, version) in &*space.rows {
                match version {
                    Version::Value(value) => builder.put(*keyspace, &key.0, value),
                    Version::Large(value) => {
                        builder.put_large(*keyspace, &key.0, value.encoded(), value.naming());
                    }
                    Version::Add(sum) => builder.add(*keyspace, &key.0, *sum),
                    Version::Removed | Version::Flawed => builder.remove(*keyspace, &key.0),
                }
            }
        }
    }
}
