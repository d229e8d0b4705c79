//! YCSB's core workloads: what share of operations is of which kind, and which rows they ask for.
//!
//! | | operations | rows |
//! |---|---|---|
//! | A | half reads, half updates | zipfian |
//! | B | 95 % reads, 5 % updates | zipfian |
//! | C | reads | zipfian |
//! | D | 95 % reads, 5 % inserts | the latest |
//! | E | 95 % scans of 1 to 100 rows, 5 % inserts | zipfian |
//! | F | half reads, half read-modify-writes | zipfian |
//!
//! A row has one value instead of YCSB's ten fields of 100 bytes, and an update writes all of it; a read-modify-write
//! is a transaction that changes a tenth of it. Rows are inserted in an order that is not that of their keys.

use super::workload::{KEY_BYTES, key};
use crate::command::measure::drive::Kind;
use crate::command::measure::random::Random;
use crate::command::measure::skew::{Latest, Scrambled};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The most rows that a scan of E reads.
pub(super) const SCAN_ROWS_MAX: u64 = 100;
/// Keys are below this.
const KEYS_MAX: u128 = 10_u128.pow(KEY_BYTES as u32);
/// The golden section of it, and no multiple of 2 or 5: times this, modulo that, each number is another one, far from
/// the one before.
const SCATTER: u128 = 6_180_339_887_498_949;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    A,
    B,
    C,
    D,
    E,
    F,
}

impl Letter {
    /// The kind that most operations are of, the other one, and how many of 100 the other one has.
    pub(super) fn mix(self) -> (Kind, Kind, u64) {
        match self {
            Letter::A => (Kind::Read, Kind::Update, 50),
            Letter::B => (Kind::Read, Kind::Update, 5),
            Letter::C => (Kind::Read, Kind::Read, 0),
            Letter::D => (Kind::Read, Kind::Insert, 5),
            Letter::E => (Kind::Scan, Kind::Insert, 5),
            Letter::F => (Kind::Read, Kind::ReadModifyWrite, 50),
        }
    }

    /// It leaves more rows than it found.
    pub(super) fn inserts(self) -> bool {
        self.mix().1 == Kind::Insert
    }
}

/// The key of the row that was inserted after `number` others.
pub(super) fn scattered(number: u64) -> [u8; KEY_BYTES] {
    key((u128::from(number) * SCATTER % KEYS_MAX) as u64)
}

/// Which rows there are, for all threads.
#[derive(Debug)]
pub(super) struct Inserted {
    next: AtomicU64,
    /// All rows before this one are there.
    limit: AtomicU64,
    /// Those beyond it that are.
    beyond: Mutex<BTreeSet<u64>>,
}

impl Inserted {
    pub(super) fn new(rows: u64) -> Inserted {
        Inserted { next: AtomicU64::new(rows), limit: AtomicU64::new(rows), beyond: Mutex::default() }
    }

    /// The number of a row to insert, nobody else's.
    pub(super) fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A row is there.
    pub(super) fn done(&self, number: u64) {
        let mut beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        beyond.insert(number);
        let mut limit = self.limit.load(Ordering::Relaxed);
        while beyond.remove(&limit) {
            limit += 1;
        }
        self.limit.store(limit, Ordering::Release);
    }

    pub(super) fn rows(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }
}

/// What one thread asks for.
#[derive(Debug)]
pub(super) struct Chooser {
    letter: Letter,
    /// Loaded, and there from the beginning.
    rows: u64,
    scrambled: Scrambled,
    latest: Latest,
}

impl Chooser {
    pub(super) fn new(letter: Letter, rows: u64) -> Chooser {
        Chooser { letter, rows, scrambled: Scrambled::new(), latest: Latest::new(rows) }
    }

    pub(super) fn kind(&self, random: &mut Random) -> Kind {
        let (most, other, of_100) = self.letter.mix();
        if random.below(100) < of_100 { other } else { most }
    }

    /// A row that is there.
    pub(super) fn row(&mut self, random: &mut Random, inserted: &Inserted) -> u64 {
        match self.letter {
            Letter::D => self.latest.draw(random, inserted.rows()),
            // Favourites stay the same while others are inserted.
            _ => self.scrambled.draw(random, self.rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_keys_differ_and_are_in_no_order() {
        let keys: Vec<[u8; KEY_BYTES]> = (0..100_000).map(scattered).collect();
        let unique: BTreeSet<&[u8; KEY_BYTES]> = keys.iter().collect();
        assert_eq!(unique.len(), keys.len());
        let ascending = keys.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((30_000..70_000).contains(&ascending), "{ascending}");
        assert_eq!(&scattered(1), b"6180339887498949");
    }

    #[test]
    fn shares_are_those_of_the_paper() {
        for (letter, kind, of_100) in [
            (Letter::A, Kind::Update, 50.0),
            (Letter::B, Kind::Update, 5.0),
            (Letter::C, Kind::Read, 100.0),
            (Letter::D, Kind::Insert, 5.0),
            (Letter::E, Kind::Scan, 95.0),
            (Letter::F, Kind::ReadModifyWrite, 50.0),
        ] {
            let (chooser, mut random) = (Chooser::new(letter, 10), Random::seeded(3));
            let drawn = (0..20_000).filter(|_| chooser.kind(&mut random) == kind).count();
            assert!((drawn as f64 / 200.0 - of_100).abs() < 1.5, "{letter:?}: {drawn}");
        }
    }

    #[test]
    fn a_row_counts_when_all_before_it_are_there() {
        let inserted = Inserted::new(10);
        let (first, second, third) = (inserted.take(), inserted.take(), inserted.take());
        assert_eq!((first, third), (10, 12));
        inserted.done(third);
        assert_eq!(inserted.rows(), 10);
        inserted.done(first);
        assert_eq!(inserted.rows(), 11);
        inserted.done(second);
        assert_eq!(inserted.rows(), 13);
        let (mut chooser, mut random) = (Chooser::new(Letter::D, 10), Random::seeded(1));
        let rows: BTreeSet<u64> = (0..1000).map(|_| chooser.row(&mut random, &inserted)).collect();
        assert_eq!((rows.first(), rows.last()), (Some(&0), Some(&12)));
    }
}
