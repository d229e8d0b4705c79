//! The ranges that were cleared, by the position of the clear.
//!
//! For each keyspace a list of the clears in the order of their positions, and for each position the [`Cover`] of all up to it: which
//! clear, of those so far, is a key's newest. A cover shares what it can with the one before, so that one more clear
//! costs a few nodes, and a search costs two binary searches at any snapshot. Commits are applied beside each other:
//! a clear that comes after one of a later position has the few covers from there on made anew.

use crate::cover::{Cover, NODE_BYTES, Span};
use crate::sync::{AtomicU64, Ordering as Atomic, RwLock};
use seawall_wal::Lsn;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Removals {
    by_keyspace: RwLock<BTreeMap<u32, Timeline>>,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Timeline {
    removals: Vec<Removal>,
    covers: Vec<(u64, Cover)>,
}

#[derive(Debug)]
struct Removal {
    lsn: u64,
    span: Span,
    bytes: u64,
}

impl Removals {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Atomic::Relaxed)
    }

    /// A commit's clears, sorted by keyspace.
    pub(super) fn insert(&self, removed: &[(u32, Span)], lsn: u64) {
        let mut timelines = self.by_keyspace.write();
        for of_keyspace in removed.chunk_by(|a, b| a.0 == b.0) {
            let Some((keyspace, _)) = of_keyspace.first() else { continue };
            let timeline = timelines.entry(*keyspace).or_default();
            let at = timeline.removals.partition_point(|removal| removal.lsn <= lsn);
            // A path to each end, and the covers' share of the list.
            let nodes = 2 * (2 + u64::from((timeline.removals.len() + of_keyspace.len()).ilog2()));
            let new = of_keyspace.iter().map(|(_, span)| {
                let bytes = nodes * NODE_BYTES + span.byte_len() as u64 + size_of::<Removal>() as u64;
                Removal { lsn, span: span.clone(), bytes }
            });
            let bytes: u64 = new.clone().map(|removal| removal.bytes).sum();
            self.bytes.fetch_add(bytes, Atomic::Relaxed);
            timeline.removals.splice(at..at, new);
            timeline.make_covers(lsn);
        }
    }

    /// Takes a commit's clears out again.
    pub(super) fn remove(&self, lsn: u64) {
        let mut timelines = self.by_keyspace.write();
        for timeline in timelines.values_mut() {
            timeline.removals.retain(|removal| {
                let goes = removal.lsn == lsn;
                if goes {
                    self.bytes.fetch_sub(removal.bytes, Atomic::Relaxed);
                }
                !goes
            });
            timeline.make_covers(lsn);
        }
        timelines.retain(|_, timeline| !timeline.removals.is_empty());
    }

    /// What was cleared below `before`, each key marked with the position of the newest clear.
    pub(super) fn cover(&self, keyspace: u32, before: Lsn) -> Option<Cover> {
        let timelines = self.by_keyspace.read();
        let covers = &timelines.get(&keyspace)?.covers;
        let at = covers.partition_point(|(lsn, _)| *lsn < before.0).checked_sub(1)?;
        covers.get(at).map(|(_, cover)| cover.clone())
    }

    /// The position of the newest clear below `before` that clears the key.
    pub(super) fn newest(&self, keyspace: u32, key: &[u8], before: Lsn) -> Option<Lsn> {
        let timelines = self.by_keyspace.read();
        let covers = &timelines.get(&keyspace)?.covers;
        let at = covers.partition_point(|(lsn, _)| *lsn < before.0).checked_sub(1)?;
        covers.get(at).and_then(|(_, cover)| cover.mark(key)).map(Lsn)
    }

    /// Whether any key of the span was cleared at or after `since`: then so was it by the newest clear that it is in.
    pub(super) fn any_since(&self, keyspace: u32, span: &Span, since: Lsn) -> bool {
        let timelines = self.by_keyspace.read();
        let newest = timelines.get(&keyspace).and_then(|timeline| timeline.covers.last());
        newest.is_some_and(|(at, cover)| *at >= since.0 && cover.has_since(span, since.0))
    }

    pub(super) fn keyspaces(&self) -> Vec<u32> {
        self.by_keyspace.read().keys().copied().collect()
    }
}

impl Timeline {
    /// Those at and behind `lsn`, anew.
    fn make_covers(&mut self, lsn: u64) {
        self.covers.truncate(self.covers.partition_point(|(at, _)| *at < lsn));
        let mut cover = self.covers.last().map(|(_, cover)| cover.clone()).unwrap_or_default();
        let first = self.removals.partition_point(|removal| removal.lsn < lsn);
        for removal in self.removals.iter().skip(first) {
            cover = cover.laid(&removal.span, removal.lsn);
            match self.covers.last_mut() {
                Some((at, last)) if *at == removal.lsn => *last = cover.clone(),
                _ => self.covers.push((removal.lsn, cover.clone())),
            }
        }
    }
}
