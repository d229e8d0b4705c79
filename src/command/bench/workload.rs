//! What is done again and again: one closure for each thread, and what each of its calls is.

use super::report::Settings;
use super::ycsb::{self, Chooser, Inserted, Letter, scattered};
use crate::command::measure::drive::{Done, Kind};
use crate::command::measure::random::Random;
use crate::command::measure::units::{show_bytes, show_count};
use crate::command::{Failure, Outcome};
use clap::ValueEnum;
use seawall::{Db, Error, Keyspace, Readable, Scan, TxOptions, WriteBatch};

/// Keys are numbers of 16 digits, so their order is that of the numbers.
pub(super) const KEY_BYTES: usize = 16;
/// Each thread that fills in order has a range of numbers to itself.
const THREAD_RANGE: u64 = 1_000_000_000_000;
/// Random bytes that values are cut from, at a place that differs each time.
const POOL_BYTES: usize = 1 << 20;
/// Rows of one operation of `readseq`: small enough to be timed, large enough that the clock costs nothing.
const SEQUENCE_ROWS: usize = 1000;
/// Rows of one operation of `scan`.
const SCAN_ROWS: usize = 100;
/// Of so many operations of `mixed` one writes.
const MIXED_WRITES: u64 = 10;

/// What `--workload` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Each operation commits one new row, keys in ascending order
    Fillsync,
    /// Each operation commits --batch new rows, keys in ascending order
    Fillbatch,
    /// Each operation commits one row, its key one of --keys at random
    Fillrandom,
    /// Each operation reads one row, its key at random
    Readrandom,
    /// Each operation reads the next 1,000 rows in key order, from the first to the last and again
    Readseq,
    /// Each operation reads 100 rows in key order, from a key at random on
    Scan,
    /// Nine reads of a random key to each commit of one
    Mixed,
    /// YCSB A: half reads, half updates; some rows far more often than others, as in B, C, E and F
    YcsbA,
    /// YCSB B: 95 % reads, 5 % updates
    YcsbB,
    /// YCSB C: reads only
    YcsbC,
    /// YCSB D: 95 % reads of rows that are mostly the latest, 5 % inserts
    YcsbD,
    /// YCSB E: 95 % scans of 1 to 100 rows, 5 % inserts
    YcsbE,
    /// YCSB F: half reads, half transactions that read a row, change it and write it
    YcsbF,
}

/// The store that a workload begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stock {
    Empty,
    /// Keys are the numbers below --keys, loaded in their order.
    Ordered,
    /// Keys and order of YCSB.
    Scattered,
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Workload::Fillsync => "fillsync",
            Workload::Fillbatch => "fillbatch",
            Workload::Fillrandom => "fillrandom",
            Workload::Readrandom => "readrandom",
            Workload::Readseq => "readseq",
            Workload::Scan => "scan",
            Workload::Mixed => "mixed",
            Workload::YcsbA => "ycsb-a",
            Workload::YcsbB => "ycsb-b",
            Workload::YcsbC => "ycsb-c",
            Workload::YcsbD => "ycsb-d",
            Workload::YcsbE => "ycsb-e",
            Workload::YcsbF => "ycsb-f",
        }
    }

    pub(super) fn letter(self) -> Option<Letter> {
        match self {
            Workload::YcsbA => Some(Letter::A),
            Workload::YcsbB => Some(Letter::B),
            Workload::YcsbC => Some(Letter::C),
            Workload::YcsbD => Some(Letter::D),
            Workload::YcsbE => Some(Letter::E),
            Workload::YcsbF => Some(Letter::F),
            _ => None,
        }
    }

    pub(super) fn stock(self) -> Stock {
        match self {
            Workload::Fillsync | Workload::Fillbatch | Workload::Fillrandom => Stock::Empty,
            Workload::Readrandom | Workload::Readseq | Workload::Scan | Workload::Mixed => Stock::Ordered,
            _ => Stock::Scattered,
        }
    }

    /// It leaves the rows that it found, though maybe with other values: the next workload may have the same store.
    pub(super) fn keeps_rows(self) -> bool {
        self.stock() != Stock::Empty && !self.letter().is_some_and(Letter::inserts)
    }

    /// In words, for a report.
    pub(super) fn about(self, settings: &Settings) -> String {
        let value = show_bytes(settings.value_bytes);
        let keys = show_count(settings.keys as f64);
        match self {
            Workload::Fillsync => format!("one new row of {value} a commit, keys in ascending order"),
            Workload::Fillbatch => {
                format!("{} new rows of {value} a commit, keys in ascending order", settings.batch)
            }
            Workload::Fillrandom => format!("one row of {value} a commit, its key one of {keys} at random"),
            Workload::Readrandom => format!("one row of {value} at random out of {keys}"),
            Workload::Readseq => format!("the next {SEQUENCE_ROWS} rows of {keys} in key order"),
            Workload::Scan => format!("{SCAN_ROWS} rows in key order, from one of {keys} keys at random on"),
            Workload::Mixed => format!("{} random reads to each commit of a random row", MIXED_WRITES - 1),
            Workload::YcsbA => format!("half reads, half updates of {keys} rows of {value}, zipfian"),
            Workload::YcsbB => format!("95 % reads, 5 % updates of {keys} rows of {value}, zipfian"),
            Workload::YcsbC => format!("reads of {keys} rows of {value}, zipfian"),
            Workload::YcsbD => {
                format!(
                    "95 % reads, 5 % inserts; {keys} rows of {value} at first, mostly the latest are read"
                )
            }
            Workload::YcsbE => format!(
                "95 % scans of 1 to {} rows, 5 % inserts; {keys} rows of {value} at first, zipfian",
                ycsb::SCAN_ROWS_MAX
            ),
            Workload::YcsbF => {
                format!(
                    "half reads, half transactions that read and change one of {keys} rows of {value}, zipfian"
                )
            }
        }
    }
}

/// The key of a row.
pub(super) fn key(mut number: u64) -> [u8; KEY_BYTES] {
    let mut key = [b'0'; KEY_BYTES];
    for digit in key.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    key
}

/// Values of one length; no two in a row are alike, and none can be compressed.
pub(super) struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    pub(super) fn new(bytes: u64) -> Values {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // The same ones each time, so that runs can be compared.
        Values { pool: Random::seeded(1).bytes(POOL_BYTES.saturating_add(bytes)), bytes }
    }

    pub(super) fn get(&self, number: u64) -> &[u8] {
        // An odd step meets every place before it comes back to one.
        let at = number.wrapping_mul(0x9e37_79b9) as usize % POOL_BYTES;
        self.pool.get(at..at + self.bytes).unwrap_or_default()
    }
}

/// What a thread works with.
pub(super) struct Worker<'a> {
    db: &'a Db,
    keyspace: &'a Keyspace,
    values: &'a Values,
    inserted: &'a Inserted,
    keys: u64,
    batch: u64,
    random: Random,
    /// The next number of a thread that fills in order.
    next: u64,
    scan: Option<Scan>,
    chooser: Option<Chooser>,
}

/// What all threads work with.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) db: &'a Db,
    pub(super) keyspace: &'a Keyspace,
    pub(super) values: &'a Values,
    pub(super) inserted: &'a Inserted,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        ground: Ground<'a>,
        workload: Workload,
        settings: &Settings,
        thread: u32,
    ) -> Worker<'a> {
        let Ground { db, keyspace, values, inserted } = ground;
        Worker {
            db,
            keyspace,
            values,
            inserted,
            keys: settings.keys,
            batch: settings.batch,
            random: Random::seeded(u64::from(thread) << 32),
            next: u64::from(thread) * THREAD_RANGE,
            scan: None,
            chooser: workload.letter().map(|letter| Chooser::new(letter, settings.keys)),
        }
    }

    /// One operation.
    pub(super) fn work(&mut self, workload: Workload) -> Outcome<Done> {
        match workload {
            Workload::Fillsync => {
                self.next += 1;
                self.put(self.next - 1)
            }
            Workload::Fillbatch => self.put_batch(),
            Workload::Fillrandom => {
                let number = self.random.below(self.keys);
                self.put(number)
            }
            Workload::Readrandom => self.get_any(),
            Workload::Readseq => self.next_rows(),
            Workload::Scan => self.some_rows(),
            Workload::Mixed if self.random.below(MIXED_WRITES) == 0 => {
                let number = self.random.below(self.keys);
                self.put(number)
            }
            Workload::Mixed => self.get_any(),
            _ => self.ycsb(),
        }
    }

    fn put(&mut self, number: u64) -> Outcome<Done> {
        let value = self.values.get(self.random.bits());
        self.keyspace.insert(key(number), value)?;
        Ok(Done::WRITE)
    }

    fn put_batch(&mut self) -> Outcome<Done> {
        let mut batch = WriteBatch::new();
        let first = self.next;
        self.next += self.batch;
        for number in first..self.next {
            batch.insert(self.keyspace, key(number), self.values.get(self.random.bits()));
        }
        self.db.write(batch)?;
        Ok(Done { kind: Kind::Write, rows: self.batch })
    }

    fn get_any(&mut self) -> Outcome<Done> {
        let number = self.random.below(self.keys);
        self.get(key(number))
    }

    fn get(&self, key: [u8; KEY_BYTES]) -> Outcome<Done> {
        match self.keyspace.get(key)? {
            Some(value) if value.len() == self.values.bytes => Ok(Done { kind: Kind::Read, rows: 1 }),
            Some(value) => Err(wrong(&key, &format!("has a value of {} bytes", value.len()))),
            None => Err(wrong(&key, "is not there")),
        }
    }

    fn ycsb(&mut self) -> Outcome<Done> {
        let chooser = self.chooser.as_mut().ok_or_else(|| Failure::error("nothing chooses the rows"))?;
        let kind = chooser.kind(&mut self.random);
        let rows = match kind {
            Kind::Insert => {
                let number = self.inserted.take();
                self.keyspace.insert(scattered(number), self.values.get(self.random.bits()))?;
                self.inserted.done(number);
                1
            }
            _ => {
                let row = scattered(chooser.row(&mut self.random, self.inserted));
                match kind {
                    Kind::Read => self.get(row)?.rows,
                    Kind::Scan => self.scan_from(row)?,
                    Kind::ReadModifyWrite => self.modify(row)?,
                    _ => {
                        self.keyspace.insert(row, self.values.get(self.random.bits()))?;
                        1
                    }
                }
            }
        };
        Ok(Done { kind, rows })
    }

    /// From a row that is there on.
    fn scan_from(&mut self, key: [u8; KEY_BYTES]) -> Outcome<u64> {
        let most = 1 + self.random.below(ycsb::SCAN_ROWS_MAX);
        let mut scan = self.keyspace.range(key..);
        match scan.next().transpose()? {
            Some((first, _)) if *first == key => {}
            _ => return Err(wrong(&key, "is not the first from itself on")),
        }
        Ok(1 + count(&mut scan, most as usize - 1)?)
    }

    /// One transaction, run again where another has changed the row in the meantime.
    fn modify(&mut self, key: [u8; KEY_BYTES]) -> Outcome<u64> {
        let (keyspace, fresh) = (self.keyspace, self.values.get(self.random.bits()));
        let part = fresh.get(..fresh.len().div_ceil(10)).unwrap_or_default();
        let options = TxOptions { retries_max: Some(u32::MAX), ..TxOptions::default() };
        self.db.transact_with(options, |tx| {
            let missing = || Error::BadInput(format!("row {} is not there", key.escape_ascii()));
            let mut value = tx.get(keyspace, key)?.ok_or_else(missing)?.to_vec();
            if let Some(start) = value.get_mut(..part.len()) {
                start.copy_from_slice(part);
            }
            tx.insert(keyspace, key, value)
        })?;
        Ok(1)
    }

    fn next_rows(&mut self) -> Outcome<Done> {
        let keyspace = self.keyspace;
        let scan = self.scan.get_or_insert_with(|| keyspace.range(..));
        let rows = count(scan, SEQUENCE_ROWS)?;
        if rows < SEQUENCE_ROWS as u64 {
            self.scan = None;
        }
        Ok(Done { kind: Kind::Read, rows })
    }

    fn some_rows(&mut self) -> Outcome<Done> {
        let from = self.random.below(self.keys);
        let rows = count(&mut self.keyspace.range(key(from)..), SCAN_ROWS)?;
        let expected = (self.keys - from).min(SCAN_ROWS as u64);
        if rows != expected {
            return Err(Failure::error(format!("from row {from} on there are {rows} rows, not {expected}")));
        }
        Ok(Done { kind: Kind::Read, rows })
    }
}

fn wrong(key: &[u8], what: &str) -> Failure {
    Failure::error(format!("row {} {what}", key.escape_ascii()))
}

fn count(scan: &mut Scan, most: usize) -> Outcome<u64> {
    let mut rows = 0;
    for row in scan.take(most) {
        row?;
        rows += 1;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_numbers() {
        assert_eq!(&key(1_234), b"0000000000001234");
        assert_eq!(&key(0), b"0000000000000000");
        let last = 1023 * THREAD_RANGE + THREAD_RANGE - 1;
        assert_eq!(key(last), last.to_string().into_bytes()[..]);
        let numbers = [0, 9, 10, 99, 100, THREAD_RANGE, last];
        assert!(numbers.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
    }

    #[test]
    fn values_have_their_length_and_differ() {
        for bytes in [0, 1, 100, 3 << 20] {
            let values = Values::new(bytes);
            for number in [0, 1, 7, u64::MAX] {
                assert_eq!(values.get(number).len() as u64, bytes);
            }
        }
        let values = Values::new(100);
        assert_ne!(values.get(1), values.get(2));
        assert_eq!(values.get(1), Values::new(100).get(1));
    }
}
