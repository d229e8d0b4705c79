//! Which log is a continuation of which: the epochs that it was written in, and the place at which each begins. Pure.
//!
//! Each promotion begins an *epoch* with a higher number, at the *place* where the promoted log then ended (its fork).
//! Two logs of one store hold the same bytes up to the first turn that they do not share, or up to the end of the shorter
//! one; from there on, whatever one has is foreign to the other. PostgreSQL calls the same thing timelines; Raft keeps a
//! term with every entry, where this is a list of at most [`History::TURNS_MAX`] turns.
//!
//! ```text
//! epoch 1 ──────●────────────── a primary that died, with bytes that nobody had
//!               └─ epoch 2 ───────●───────
//!                                 └─ epoch 5 ────────►        history: (1, 0) (2, ●) (5, ●)
//! ```

use seawall_wal::Lsn;
use std::fmt;

/// An epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    /// Its number, above 0.
    pub epoch: u64,
    /// The place from which the log is of this epoch.
    pub start: Lsn,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tail {
    /// The epoch that its last bytes are of.
    pub epoch: u64,
    /// Where the next frame goes.
    pub place: Lsn,
    /// The end of the last whole record.
    pub whole_end: Lsn,
    /// The last frame's checksum; the segment header's where it has no frame.
    pub checksum: u32,
}

/// The epochs of a log, ascending by number and by start.
///
/// ```
/// use seawall_replication::timeline::{History, Tail, Relation, Turn};
/// use seawall_wal::Lsn;
/// let primary = History::new(vec![Turn { epoch: 1, start: Lsn(0) }, Turn { epoch: 2, start: Lsn(8192) }])?;
/// let old = History::new(vec![Turn { epoch: 1, start: Lsn(0) }])?;
/// let tail = |place| Tail { epoch: 1, place: Lsn(place), whole_end: Lsn(place), checksum: 7 };
/// assert_eq!(primary.relation(&old, tail(4096)), Relation::Prefix);
/// // It was the primary, and wrote what nobody else had.
/// assert_eq!(primary.relation(&old, tail(12288)), Relation::Forked { at: Lsn(8192) });
/// # Ok::<(), seawall_replication::timeline::NoHistory>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct History(Vec<Turn>);

/// Why turns are no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHistory {
    /// There must be one turn at least.
    Empty,
    /// More than [`History::TURNS_MAX`].
    TooMany,
    /// Epochs ascend, from 1, and no epoch begins before the one before it.
    Order,
}

impl fmt::Display for NoHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoHistory::Empty => "a history without an epoch",
            NoHistory::TooMany => "a history of more epochs than are kept",
            NoHistory::Order => "a history whose epochs do not ascend",
        })
    }
}

impl std::error::Error for NoHistory {}

/// What a log is to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// All that it has, the other may have: it can go on from its end.
    Prefix,
    /// What it has from here on, the other has not.
    Forked {
        /// The place up to which both hold the same.
        at: Lsn,
    },
    /// The histories share no epoch: how far the logs agree is not known any more.
    Unrelated,
}

impl History {
    /// Turns that are kept; the oldest go first.
    pub const TURNS_MAX: usize = 64;

    /// A history of these turns.
    ///
    /// # Errors
    /// If they are none.
    pub fn new(turns: Vec<Turn>) -> Result<History, NoHistory> {
        let Some(first) = turns.first() else { return Err(NoHistory::Empty) };
        if turns.len() > History::TURNS_MAX {
            return Err(NoHistory::TooMany);
        }
        let ascends = turns.is_sorted_by(|a, b| a.epoch < b.epoch && a.start <= b.start);
        if first.epoch == 0 || !ascends {
            return Err(NoHistory::Order);
        }
        Ok(History(turns))
    }

    /// Of a log that was never promoted.
    pub fn begin(epoch: u64, start: Lsn) -> History {
        History(vec![Turn { epoch: epoch.max(1), start }])
    }

    /// The turns, ascending.
    pub fn turns(&self) -> &[Turn] {
        &self.0
    }

    /// The epoch that the log is written in.
    pub fn epoch(&self) -> u64 {
        self.0.last().map_or(0, |turn| turn.epoch)
    }

    /// The epoch of the byte behind this place; none if it is before the oldest turn that is kept.
    pub fn epoch_at(&self, place: Lsn) -> Option<u64> {
        self.0.iter().rev().find(|turn| turn.start <= place).map(|turn| turn.epoch)
    }

    /// The history of a log that is promoted at its end. Of too many turns, the oldest is forgotten.
    ///
    /// # Errors
    /// `Order` if the epoch is not above all that there were, or begins before the last one.
    pub fn promoted(&self, epoch: u64, at: Lsn) -> Result<History, NoHistory> {
        let kept = (self.0.len() + 1).saturating_sub(History::TURNS_MAX);
        let mut turns: Vec<Turn> = self.0.iter().skip(kept).copied().collect();
        turns.push(Turn { epoch, start: at });
        History::new(turns)
    }

    /// What of it a log has that ends so: a replica knows the epochs to come before it has their bytes.
    pub fn known(&self, tail: Tail) -> History {
        let turns: Vec<Turn> = self
            .0
            .iter()
            .filter(|turn| turn.epoch <= tail.epoch && turn.start <= tail.place)
            .copied()
            .collect();
        match turns.is_empty() {
            true => History::begin(tail.epoch, Lsn::ZERO),
            false => History(turns),
        }
    }

    /// What a log of history `other` that ends in `tail` is to a log of this history.
    pub fn relation(&self, other: &History, tail: Tail) -> Relation {
        let theirs = other.known(tail);
        let Some(mut shared) = self.last_shared(&theirs) else { return Relation::Unrelated };
        // The epoch ends where the next one begins, on either side; on their side, at the latest with their log.
        shared.0 += 1;
        shared.1 += 1;
        let ours_end = self.0.get(shared.0).map_or(Lsn::MAX, |turn| turn.start);
        let theirs_end = theirs.0.get(shared.1).map_or(tail.place, |turn| turn.start);
        let at = ours_end.min(theirs_end).min(tail.place);
        if at >= tail.place { Relation::Prefix } else { Relation::Forked { at } }
    }

    /// Where the latest turn that both have stands in each. An epoch is begun once, by one node, so equal numbers with unequal
    /// starts are no shared turn, but for the oldest that is kept: its start may be where a log was cut, not where it began.
    fn last_shared(&self, other: &History) -> Option<(usize, usize)> {
        let pair = |(ours, turn): (usize, &Turn)| {
            let theirs = other.0.iter().position(|found| found.epoch == turn.epoch)?;
            let same = other.0.get(theirs).is_some_and(|found| found.start == turn.start);
            (same || ours == 0 || theirs == 0).then_some((ours, theirs))
        };
        self.0.iter().enumerate().rev().find_map(pair)
    }

    /// Of two histories of one log, known at different times, the later one.
    ///
    /// # Errors
    /// `Order` if neither continues the other.
    pub fn merge(&self, other: &History) -> Result<History, NoHistory> {
        let (short, long) = if self.epoch() <= other.epoch() { (self, other) } else { (other, self) };
        let Some((last, found)) = long.last_shared(short) else { return Err(NoHistory::Order) };
        if found + 1 != short.0.len() {
            return Err(NoHistory::Order);
        }
        // What the longer one has forgotten of the past, as far as there is room.
        let older = short.0.iter().take(found + 1);
        let newer = long.0.iter().skip(last + 1);
        let turns: Vec<Turn> = older.chain(newer).copied().collect();
        let kept = turns.len().saturating_sub(History::TURNS_MAX);
        History::new(turns.into_iter().skip(kept).collect())
    }
}
