//! Whose log it is: the epochs that it was written in, and where each began. Pure: no I/O.
//!
//! ```text
//! epoch 0 ────────────┐            a primary
//!                     └── epoch 1 ──────┐      the replica that was promoted at that place
//!                     : epoch 0, on     └── epoch 2 ──►
//!                     : what the old primary wrote there is no part of the log
//! ```
//!
//! A log of epoch e is a prefix of another if the other's history has e, and the next epoch of that history begins at or
//! behind the log's end. So two histories say where two logs part, without looking at a byte of them.
//!
//! //= docs/format/wal.md#anchor
#![warn(clippy::indexing_slicing)]

use crate::Lsn;
use crate::bytes::{get_u32, get_u64, put};
use crate::error::{Error, Result};

/// Epochs that a history keeps: the newest ones.
pub const TURNS_MAX: usize = 64;

/// Bytes of a history: how many turns, nothing, and the turns.
pub(crate) const HISTORY_BYTES: usize = 8 + TURNS_MAX * TURN_BYTES;

const TURN_BYTES: usize = 16;

/// An epoch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turn {
    /// Its number: above those before.
    pub epoch: u64,
    /// Behind the last frame of the epoch before that counts: what stands there or behind it, and is not of this epoch or
    /// a later one, is no part of the log.
    pub start: Lsn,
}

/// The newest epochs of a log, oldest first. A store that was never promoted has none.
///
/// ```
/// use seawall_wal::{History, Lsn, Turn};
/// let mut history = History::default();
/// history.push(Turn { epoch: 1, start: Lsn(8192) })?;
/// // A log of epoch 0 that ends before is a prefix; one that went on is not.
/// let theirs = History::default();
/// assert_eq!(history.fork(&theirs, 0, Lsn(4096)), None);
/// assert_eq!(history.fork(&theirs, 0, Lsn(12288)), Some(Lsn(8192)));
/// # Ok::<(), seawall_wal::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct History {
    len: usize,
    turns: [Turn; TURNS_MAX],
}

impl Default for History {
    fn default() -> Self {
        History { len: 0, turns: [Turn::default(); TURNS_MAX] }
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.turns()).finish()
    }
}

impl History {
    /// A history of these turns, of which the newest are kept.
    ///
    /// # Errors
    /// [`Error::BadInput`] if epochs or places do not ascend.
    pub fn new(turns: &[Turn]) -> Result<History> {
        let mut history = History::default();
        for turn in turns {
            history.push(*turn)?;
        }
        Ok(history)
    }

    /// Its turns, oldest first.
    pub fn turns(&self) -> &[Turn] {
        self.turns.get(..self.len).unwrap_or_default()
    }

    /// The newest epoch; 0 if it has none.
    pub fn epoch(&self) -> u64 {
        self.turns().last().map_or(0, |turn| turn.epoch)
    }

    /// An epoch begins.
    ///
    /// # Errors
    /// [`Error::BadInput`] if it is not above the newest, or begins before it.
    pub fn push(&mut self, turn: Turn) -> Result<()> {
        let last = self.turns().last().copied().unwrap_or_default();
        if turn.epoch <= last.epoch || turn.start < last.start {
            return Err(Error::BadInput(format!(
                "epoch {} at {} does not come behind epoch {} at {}",
                turn.epoch, turn.start, last.epoch, last.start
            )));
        }
        if self.len == TURNS_MAX {
            self.turns.rotate_left(1);
            self.len -= 1;
        }
        if let Some(place) = self.turns.get_mut(self.len) {
            *place = turn;
            self.len += 1;
        }
        Ok(())
    }

    /// Where a log parts from the log with this history; none if it is a prefix of it. The other log has the history
    /// `other`, of which it is in `epoch` yet, and ends at `place`.
    pub fn fork(&self, other: &History, epoch: u64, place: Lsn) -> Option<Lsn> {
        let theirs = other.turns().iter().filter(|turn| turn.epoch <= epoch);
        let is_common = |turn: &&Turn| self.turns().contains(turn);
        // Histories are cut short at their beginning only, so what is behind the last common turn is all known.
        let common = theirs.clone().rev().find(is_common).map_or(0, |turn| turn.epoch);
        let ours = self.turns().iter().find(|turn| turn.epoch > common).map(|turn| turn.start);
        let parted = theirs.clone().find(|turn| turn.epoch > common).map(|turn| turn.start);
        match (ours, parted) {
            // An epoch that this log never was in.
            (ours, Some(parted)) => Some(ours.unwrap_or(parted).min(parted)),
            (Some(ours), None) => (place > ours).then_some(ours),
            (None, None) => None,
        }
    }

    /// The turns that a log has which ends at `place`, in `epoch`: a replica knows of epochs before it has anything of them.
    #[must_use]
    pub fn up_to(&self, epoch: u64, place: Lsn) -> History {
        let mut history = *self;
        history.len =
            self.turns().iter().take_while(|turn| turn.epoch <= epoch && turn.start <= place).count();
        history.turns.get_mut(history.len..).into_iter().flatten().for_each(|turn| *turn = Turn::default());
        history
    }

    pub(crate) fn encode(&self) -> [u8; HISTORY_BYTES] {
        let mut bytes = [0; HISTORY_BYTES];
        put(&mut bytes, 0, &(self.len as u32).to_le_bytes());
        for (index, turn) in self.turns().iter().enumerate() {
            put(&mut bytes, 8 + index * TURN_BYTES, &turn.epoch.to_le_bytes());
            put(&mut bytes, 16 + index * TURN_BYTES, &turn.start.0.to_le_bytes());
        }
        bytes
    }

    /// None for what no writer wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Option<History> {
        let bytes = bytes.get(..HISTORY_BYTES)?;
        let len = get_u32(bytes, 0) as usize;
        let mut history = History::default();
        if len > TURNS_MAX {
            return None;
        }
        for index in 0..len {
            let epoch = get_u64(bytes, 8 + index * TURN_BYTES);
            let start = Lsn(get_u64(bytes, 16 + index * TURN_BYTES));
            history.push(Turn { epoch, start }).ok()?;
        }
        Some(history)
    }
}

/// What a log knows of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The epoch that it is written in.
    pub epoch: u64,
    /// The highest epoch that it has promised: it follows no primary of a lower one, and is none.
    pub promised: u64,
    /// Where each epoch began.
    pub history: History,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The epoch of its newest segment.
    pub epoch: u64,
    /// Behind the last frame's padding: where the next piece stands. The start of a segment if that segment's header is
    /// due.
    pub place: Lsn,
    /// The end of the last whole record.
    pub whole_end: Lsn,
    /// The last frame's checksum; that of the segment's header if it has no frame; 0 in a log that holds nothing.
    pub checksum: u32,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn turn(epoch: u64, start: u64) -> Turn {
        Turn { epoch, start: Lsn(start) }
    }

    #[test]
    fn a_history_survives() {
        let history = History::new(&[turn(1, 10), turn(4, 10), turn(7, 90)]).unwrap();
        assert_eq!(History::decode(&history.encode()), Some(history));
        assert_eq!(History::decode(&History::default().encode()), Some(History::default()));
        let mut bytes = history.encode();
        put(&mut bytes, 0, &65_u32.to_le_bytes());
        assert_eq!(History::decode(&bytes), None);
        put(&mut bytes, 0, &4_u32.to_le_bytes());
        assert_eq!(History::decode(&bytes), None, "an epoch of zero behind others");
    }

    #[test]
    fn a_log_has_the_turns_that_it_came_to() {
        let history = History::new(&[turn(2, 100), turn(5, 200)]).unwrap();
        assert_eq!(history.up_to(5, Lsn(200)), history);
        assert_eq!(history.up_to(2, Lsn(300)), History::new(&[turn(2, 100)]).unwrap());
        assert_eq!(history.up_to(5, Lsn(99)), History::default());
    }

    #[test]
    fn the_oldest_turn_goes() {
        let mut history = History::default();
        for epoch in 1..=70 {
            history.push(turn(epoch, epoch)).unwrap();
        }
        assert_eq!((history.turns().len(), history.epoch()), (TURNS_MAX, 70));
        assert_eq!(history.turns().first(), Some(&turn(7, 7)));
        assert!(history.push(turn(70, 100)).is_err() && history.push(turn(71, 1)).is_err());
    }

    #[test]
    fn logs_part_where_the_next_epoch_began() {
        let history = History::new(&[turn(2, 100), turn(5, 200)]).unwrap();
        let fork = |turns: &[Turn], place| {
            let other = History::new(turns).unwrap();
            history.fork(&other, other.epoch(), Lsn(place)).map(|lsn| lsn.0)
        };
        assert_eq!(fork(&[], 100), None);
        assert_eq!(fork(&[], 101), Some(100));
        assert_eq!(fork(&[turn(2, 100)], 200), None);
        assert_eq!(fork(&[turn(2, 100)], 201), Some(200));
        assert_eq!(fork(&[turn(2, 100), turn(5, 200)], 999), None);
        // Epochs that were another's: where either left what both had.
        assert_eq!(fork(&[turn(1, 50)], 150), Some(50));
        assert_eq!(fork(&[turn(1, 120)], 150), Some(100));
        assert_eq!(fork(&[turn(2, 100), turn(3, 150)], 160), Some(150));
        assert_eq!(fork(&[turn(2, 100), turn(3, 250)], 260), Some(200));
        assert_eq!(fork(&[turn(2, 100), turn(5, 200), turn(6, 300)], 310), Some(300));
        // Promoted at once, to the same number, at another place.
        assert_eq!(fork(&[turn(2, 90)], 95), Some(90));
        // It knows of epochs that it has nothing of yet.
        let all = History::new(&[turn(2, 100), turn(5, 200)]).unwrap();
        assert_eq!(history.fork(&all, 0, Lsn(70)), None);
        assert_eq!(history.fork(&all, 0, Lsn(170)), Some(Lsn(100)));
    }
}
