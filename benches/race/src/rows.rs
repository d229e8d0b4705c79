//! Rows: 16-byte keys in random order that never repeat, and values that do not compress.

use crate::shelf;
use crate::workload::KEY_BYTES;

/// One row to put.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) key: [u8; KEY_BYTES],
    pub(crate) value: &'a [u8],
}

/// Random bytes that values are cut from.
const POOL_BYTES: usize = 8 << 20;

/// Row number `i` of every source is the same row, in every process.
pub(crate) struct Rows {
    pool: Vec<u8>,
    value_bytes: usize,
}

impl Rows {
    pub(crate) fn new(value_bytes: usize) -> Rows {
        let words = (POOL_BYTES + value_bytes).div_ceil(8) as u64;
        let pool = (0..words).flat_map(|i| mix(i ^ 0x5ea1_aa11).to_le_bytes()).collect();
        Rows { pool, value_bytes }
    }

    pub(crate) fn key(i: u64) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        // A bijection of i: no two rows share a key.
        key[..8].copy_from_slice(&mix(i).to_be_bytes());
        key[8..].copy_from_slice(&mix(!i).to_be_bytes());
        key
    }

    pub(crate) fn value(&self, i: u64) -> &[u8] {
        let start = (mix(i) % POOL_BYTES as u64) as usize;
        &self.pool[start..start + self.value_bytes]
    }

    pub(crate) fn row(&self, i: u64) -> Row<'_> {
        Row { key: Rows::key(i), value: self.value(i) }
    }
}

/// splitmix64's finaliser: a bijection of 64 bits.
pub(crate) fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The rows that one thread puts: every `threads`-th of all; or random ones of those that are there.
pub(crate) struct Share<'a> {
    rows: &'a Rows,
    rows_there: Option<u64>,
    thread: usize,
    next: u64,
    step: u64,
    rows_per_commit: usize,
    commit: Vec<Row<'a>>,
}

impl<'a> Share<'a> {
    pub(crate) fn new(rows: &'a Rows, thread: usize, threads: usize, rows_per_commit: usize) -> Share<'a> {
        let (next, step) = (thread as u64, threads as u64);
        Share { rows, rows_there: None, thread, next, step, rows_per_commit, commit: Vec::new() }
    }

    /// Changes random ones of so many rows, if that is some.
    pub(crate) fn of_rows_there(self, rows_there: Option<u64>) -> Share<'a> {
        Share { rows_there, ..self }
    }

    /// The rows of the next commit.
    pub(crate) fn commit(&mut self) -> &[Row<'a>] {
        self.commit.clear();
        for _ in 0..self.rows_per_commit {
            self.commit.push(match self.rows_there {
                Some(count) => shelf::update(self.rows, count, self.thread, self.next),
                None => self.rows.row(self.next),
            });
            self.next += self.step;
        }
        &self.commit
    }
}
