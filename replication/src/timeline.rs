//! Which log is a continuation of which: the epochs that it was written in, and the place at which each begins. Pure.
//!
//! Each promotion begins an *epoch* with a higher number, at the *place* where the promoted log then ended (its fork).
//! Two logs of one store hold the same bytes up to the first turn that they do not share, or up to the end of the shorter
//! one; from there on, whatever one has is foreign to the other. PostgreSQL calls the same thing timelines; Raft keeps a
//! term with every entry, where this is a list of at most [`History::TURNS_MAX`] turns.
//!
//! ```text
//! epoch 0 ──────●────────────── a primary that died, with bytes that nobody had
//!               └─ epoch 2 ───────●───────
//!                                 └─ epoch 5 ────────►        history: (2, ●) (5, ●)
//! ```
//!
//! The log's own history, [`seawall_wal::History`], lies in its anchor; this one is what travels. Epoch 0, of a store that was
//! never promoted, is no turn: all logs of a store have it in common.

use seawall_wal::Lsn;
use std::fmt;

pub use seawall_wal::{Tail, Turn};

/// The epochs of a log, ascending by number and by start.
///
/// ```
/// use seawall_replication::timeline::{History, Tail, Relation, Turn};
/// use seawall_wal::Lsn;
/// let primary = History::new(vec![Turn { epoch: 2, start: Lsn(8192) }])?;
/// let old = History::default();
/// let tail = |place| Tail { epoch: 0, place: Lsn(place), whole_end: Lsn(place), checksum: 7 };
/// assert_eq!(primary.relation(&old, tail(4096)), Relation::Prefix);
/// // It was the primary, and wrote what nobody else had.
/// assert_eq!(primary.relation(&old, tail(12288)), Relation::Forked { at: Lsn(8192) });
/// # Ok::<(), seawall_replication::timeline::NoHistory>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct History(Vec<Turn>);

/// Why turns are no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHistory {
    /// More than [`History::TURNS_MAX`].
    TooMany,
    /// Epochs ascend, from 1, and no epoch begins before the one before it.
    Order,
}

impl fmt::Display for NoHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
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
        if turns.len() > History::TURNS_MAX {
            return Err(NoHistory::TooMany);
        }
        let ascends = turns.is_sorted_by(|a, b| a.epoch < b.epoch && a.start <= b.start);
        if turns.first().is_some_and(|first| first.epoch == 0) || !ascends {
            return Err(NoHistory::Order);
        }
        Ok(History(turns))
    }

    /// The turns, ascending.
    pub fn turns(&self) -> &[Turn] {
        &self.0
    }

    /// The epoch that the log is written in; 0 for one that was never promoted.
    pub fn epoch(&self) -> u64 {
        self.0.last().map_or(0, |turn| turn.epoch)
    }

    /// Where its last epoch begins.
    pub fn begins(&self) -> Lsn {
        self.0.last().map_or(Lsn::ZERO, |turn| turn.start)
    }

    /// The epoch of the byte behind this place; none if the turns that would say so are forgotten.
    pub fn epoch_at(&self, place: Lsn) -> Option<u64> {
        self.all().iter().rev().find(|turn| turn.start <= place).map(|turn| turn.epoch)
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
    #[must_use]
    pub fn known(&self, tail: Tail) -> History {
        let has = |turn: &&Turn| turn.epoch <= tail.epoch && turn.start <= tail.place;
        History(self.0.iter().filter(has).copied().collect())
    }

    /// What a log of history `other` that ends in `tail` is to a log of this history.
    pub fn relation(&self, other: &History, tail: Tail) -> Relation {
        let (ours, theirs) = (self.all(), other.known(tail).all());
        let Some((our_last, their_last)) = last_shared(&ours, &theirs) else { return Relation::Unrelated };
        // The epoch ends where the next one begins, on either side; on their side, at the latest with their log.
        let our_end = ours.get(our_last + 1).map_or(Lsn::MAX, |turn| turn.start);
        let their_end = theirs.get(their_last + 1).map_or(tail.place, |turn| turn.start);
        let at = our_end.min(their_end).min(tail.place);
        if at >= tail.place { Relation::Prefix } else { Relation::Forked { at } }
    }

    /// With epoch 0 in front, unless it may be that turns were forgotten.
    fn all(&self) -> Vec<Turn> {
        let first = (self.0.len() < History::TURNS_MAX).then_some(Turn { epoch: 0, start: Lsn::ZERO });
        first.into_iter().chain(self.0.iter().copied()).collect()
    }

    /// Of two histories of one log, known at different times, the later one.
    ///
    /// # Errors
    /// `Order` if neither continues the other.
    pub fn merge(&self, other: &History) -> Result<History, NoHistory> {
        let (short, long) = if self.epoch() <= other.epoch() { (self, other) } else { (other, self) };
        let (older, newer) = (short.all(), long.all());
        let Some((last, found)) = last_shared(&newer, &older) else { return Err(NoHistory::Order) };
        if found + 1 != older.len() {
            return Err(NoHistory::Order);
        }
        // What the longer one has forgotten of the past, as far as there is room.
        let turns = older.iter().chain(newer.iter().skip(last + 1)).filter(|turn| turn.epoch > 0);
        let turns: Vec<Turn> = turns.copied().collect();
        let kept = turns.len().saturating_sub(History::TURNS_MAX);
        History::new(turns.into_iter().skip(kept).collect())
    }
}

/// Where the latest turn that both have stands in each. Equal numbers with unequal starts are two promotions by mistake, and no
/// shared turn.
fn last_shared(ours: &[Turn], theirs: &[Turn]) -> Option<(usize, usize)> {
    let pair = |(at, turn): (usize, &Turn)| Some((at, theirs.iter().position(|found| found == turn)?));
    ours.iter().enumerate().rev().find_map(pair)
}

impl From<&seawall_wal::History> for History {
    fn from(history: &seawall_wal::History) -> History {
        History(history.turns().to_vec())
    }
}

impl From<&History> for seawall_wal::History {
    fn from(history: &History) -> seawall_wal::History {
        // What it refuses is no history here either.
        seawall_wal::History::new(&history.0).unwrap_or_default()
    }
}
