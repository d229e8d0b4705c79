//! Pieces in the order of the log, in whatever order they come. Pure.

use crate::invariants;
use crate::message::Piece;
use seawall_wal::Lsn;
use std::collections::BTreeMap;

/// What comes next, and what came before its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    next: Lsn,
    early: BTreeMap<Lsn, Piece>,
    early_bytes: u64,
    gap_since: Option<u64>,
    /// Where it stood when a heartbeat told of more.
    behind_at: Option<Lsn>,
}

impl Order {
    pub(super) fn new(next: Lsn) -> Order {
        Order { next, early: BTreeMap::new(), early_bytes: 0, gap_since: None, behind_at: None }
    }

    /// The place behind what was handed on.
    pub(super) fn next(&self) -> Lsn {
        self.next
    }

    /// Since when there are pieces and none of them is the next.
    pub(super) fn gap_since(&self) -> Option<u64> {
        self.gap_since
    }

    /// The pieces whose turn has come. One that was there already is nothing.
    pub(super) fn take(&mut self, now: u64, piece: Piece, room: u64) -> Result<Vec<Piece>, &'static str> {
        if piece.end() <= self.next {
            return Ok(Vec::new());
        }
        // A piece that follows another place than one that was handed on, and reaches beyond it, was cut otherwise.
        if piece.after < self.next {
            return Err("a piece that overlaps what is there");
        }
        if !self.early.contains_key(&piece.after) {
            self.early_bytes += u64::from(piece.length);
            if self.early_bytes > room {
                return Err("more than there is room for");
            }
            self.early.insert(piece.after, piece);
        }
        let mut ready = Vec::new();
        while let Some(piece) = self.early.remove(&self.next) {
            invariants::assert_next(self.next, &piece);
            self.early_bytes -= u64::from(piece.length);
            self.next = piece.end();
            ready.push(piece);
        }
        if self.early.is_empty() {
            self.gap_since = None;
        } else if !ready.is_empty() || self.gap_since.is_none() {
            self.gap_since = Some(now);
        }
        Ok(ready)
    }

    /// Whether pieces up to this place were sent, and nothing has come since that was first told.
    pub(super) fn misses(&mut self, sent: Lsn) -> bool {
        if sent <= self.next {
            self.behind_at = None;
            return false;
        }
        self.behind_at.replace(self.next) == Some(self.next)
    }
}
