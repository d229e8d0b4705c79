//! What the tests of `bugs.rs` share: a log on a simulated disk, what was promised of it, and power cuts at every call.

use seawall_wal::anchor::{Anchor, Slot};
use seawall_wal::disk::SimDisk;
use seawall_wal::disk::sim::{CrashStyle, Fault, NameHabit};
use seawall_wal::mutation::Mutation;
use seawall_wal::segment::{self, Parsed};
use seawall_wal::{Durability, Error, Lsn, Outcome, Runtime, SimRuntime, Wal, WalOptions, WalReader, frame};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const DIR: &str = "/db/log";
pub const SEGMENT: u64 = 64 << 10;

pub type Result<T> = std::result::Result<T, Error>;

thread_local! {
    /// A deliberate mistake that logs of this thread make.
    static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Whether a test notices a deliberate mistake.
pub fn notices(test: fn(), mutation: Mutation) -> bool {
    MUTATION.set(Some(mutation));
    let outcome = std::panic::catch_unwind(test);
    MUTATION.set(None);
    outcome.is_err()
}

pub fn options(disk: &Arc<SimDisk>) -> WalOptions {
    let runtime = SimRuntime::new(disk.trace_hash());
    Wal::options()
        .segment_bytes(SEGMENT)
        .disk(disk.clone())
        .runtime(runtime)
        .background(false)
        .mutation(MUTATION.get())
}

pub fn open(disk: &Arc<SimDisk>) -> Result<Wal> {
    options(disk).open(DIR)
}

pub fn file(number: u64) -> String {
    format!("{DIR}/{number:016x}.log")
}

pub fn payloads(wal: &Wal) -> Vec<Vec<u8>> {
    wal.read(..).unwrap().map(|record| record.unwrap().payload.to_vec()).collect()
}

/// Bytes that name themselves, so that no two records are alike.
pub fn bytes(name: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![name as u8; len.max(8)];
    bytes[..8].copy_from_slice(&(name as u64).to_le_bytes());
    bytes
}

/// What a crash would leave if it kept nothing that it need not keep.
pub fn barely(disk: &Arc<SimDisk>) -> Arc<SimDisk> {
    disk.set_crash_style(Some(CrashStyle::KeepNone));
    let after = disk.crash_copy();
    disk.set_crash_style(None);
    after.set_crash_style(None);
    after
}

/// What was written and what was promised: units that stand or fall together, how many of them were acknowledged,
/// and how many may have been reclaimed.
#[derive(Default)]
pub struct Trace {
    pub units: Vec<Vec<Vec<u8>>>,
    pub acked: usize,
    pub reclaimed: usize,
}

impl Trace {
    pub fn next(&mut self, len: usize) -> Vec<u8> {
        let bytes = bytes(self.units.len(), len);
        self.units.push(vec![bytes.clone()]);
        bytes
    }

    pub fn commit(&mut self, wal: &Wal, len: usize) -> Result<()> {
        wal.commit(self.next(len))?;
        self.acked = self.units.len();
        Ok(())
    }

    pub fn write(&mut self, wal: &Wal, len: usize) -> Result<()> {
        wal.commit_with(self.next(len), Durability::Written).map(drop)
    }

    pub fn batch(&mut self, wal: &Wal, lens: &[usize]) -> Result<()> {
        let name = self.units.len() * 100;
        let records: Vec<Vec<u8>> = lens.iter().enumerate().map(|(i, len)| bytes(name + i, *len)).collect();
        self.units.push(records.clone());
        wal.append_batch(&records).map(drop)
    }

    pub fn sync(&mut self, wal: &Wal) -> Result<()> {
        wal.sync()?;
        self.acked = self.units.len();
        Ok(())
    }

    pub fn truncate(&mut self, wal: &Wal) -> Result<()> {
        self.sync(wal)?;
        self.reclaimed = self.units.len();
        wal.truncate_before(wal.durable_lsn()).map(drop)
    }

    /// The log holds the units from one that may be its first, to one that may be its last, and nothing of another.
    pub fn check(&self, found: &[Vec<u8>], what: &str) {
        let fits = (0..=self.reclaimed).any(|first| {
            (self.acked.max(first)..=self.units.len()).any(|end| self.units[first..end].concat() == found)
        });
        let units = found.iter().map(|bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap()));
        assert!(
            fits,
            "{what}: {:?} found, of {} written {} were acknowledged, {} reclaimed",
            units.collect::<Vec<_>>(),
            self.units.len(),
            self.acked,
            self.reclaimed
        );
    }
}

/// A disk after a crash holds what it must; it can be built upon; and what was dropped does not come back.
pub fn check_after(after: &Arc<SimDisk>, trace: &Trace, what: &str) {
    let wal = open(after).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = payloads(&wal);
    trace.check(&found, what);
    wal.commit(b"the next record").unwrap();
    let again = open(&barely(after)).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    let mut expected = found;
    expected.push(b"the next record".to_vec());
    assert_eq!(payloads(&again), expected, "{what}, again");
}

/// Cuts the power at the first, second, … call of some work, and looks at several states that each cut may leave.
/// Returns how many calls there were.
pub fn every_cut(habit: NameHabit, work: impl Fn(&Arc<SimDisk>, &mut Trace) -> Result<()>) -> u64 {
    for call in 1.. {
        let disk = SimDisk::new(call);
        disk.set_name_habit(habit);
        disk.fail(Fault::power_cut().at_call(call));
        let mut trace = Trace::default();
        let outcome = work(&disk, &mut trace);
        if disk.has_power() {
            outcome.unwrap();
            return call;
        }
        for draw in 0..4 {
            let after = disk.crash();
            check_after(&after, &trace, &format!("{habit:?}, power cut at call {call}, draw {draw}"));
        }
    }
    0
}

/// The same for both habits of file systems with names.
pub fn every_cut_of_both(work: impl Fn(&Arc<SimDisk>, &mut Trace) -> Result<()>) -> u64 {
    every_cut(NameHabit::Strict, &work).min(every_cut(NameHabit::Ext4, &work))
}

/// A disk whose log ends in a torn tail, and what it held.
pub fn torn(seed: u64) -> Option<(Arc<SimDisk>, Trace)> {
    let disk = SimDisk::new(seed);
    let wal = open(&disk).unwrap();
    let mut trace = Trace::default();
    trace.commit(&wal, 300).unwrap();
    trace.commit(&wal, 9000).unwrap();
    // Several frames, or one record that is cut over several, and over segments.
    let lens: &[usize] = if seed.is_multiple_of(2) { &[14_000, 14_000, 14_000] } else { &[14_000, 120_000] };
    for len in lens {
        trace.write(&wal, *len).unwrap();
    }
    let after = disk.crash();
    let torn = WalReader::open_with(DIR, Lsn::ZERO, &options(&after)).is_ok()
        && options(&after).read_only(true).open(DIR).unwrap().recovery().outcome
            == Outcome::UnacknowledgedLoss;
    torn.then_some((after, trace))
}

/// The highest durable LSN that anything on a disk claims.
pub fn claimed(disk: &SimDisk) -> Lsn {
    let Slot::Valid(anchor) = Anchor::choose(&disk.read_file(format!("{DIR}/anchor")).unwrap()) else {
        panic!("the anchor is whole")
    };
    let mut claimed = anchor.durable;
    for path in disk.paths().iter().filter(|path| path.ends_with(".log")) {
        let bytes = disk.read_file(path).unwrap();
        if let Parsed::Header(header, _) = segment::Header::parse(&bytes) {
            claimed = claimed.max(header.durable);
            let frames = bytes.chunks(4096).filter_map(|block| frame::Header::parse(block).ok());
            claimed = frames
                .filter(|frame| frame.salt == header.salt)
                .map(|frame| frame.durable)
                .fold(claimed, Lsn::max);
        }
    }
    claimed
}

/// Threads that commit, on a simulated disk that takes simulated time; a deadlock or a lost wake-up panics.
pub fn committers(
    disk: &Arc<SimDisk>,
    runtime: &Arc<SimRuntime>,
    wal: &Wal,
    threads: usize,
    each: usize,
) -> usize {
    let acked = Arc::new(AtomicUsize::new(0));
    let handles: Vec<_> = (0..threads)
        .map(|who| {
            let (wal, acked, disk) = (wal.clone(), acked.clone(), disk.clone());
            let body = move || {
                for n in 0..each {
                    match wal.commit(bytes(who * 1000 + n, 8 + n * 50)) {
                        Ok(_) => drop(acked.fetch_add(1, Ordering::SeqCst)),
                        Err(_) => return assert!(!disk.has_power()),
                    }
                }
            };
            runtime.spawn("committer", Box::new(body)).unwrap()
        })
        .collect();
    for handle in handles {
        assert!(!handle.join(), "a committer panicked");
    }
    acked.load(Ordering::SeqCst)
}

pub fn simulated(seed: u64, from: Option<&Arc<SimDisk>>) -> (Arc<SimDisk>, Arc<SimRuntime>) {
    let runtime = SimRuntime::new(seed);
    let disk = SimDisk::with_runtime(seed, runtime.clone());
    if let Some(from) = from {
        for path in from.paths() {
            disk.write_file(&path, &from.read_file(&path).unwrap()).unwrap();
        }
    }
    (disk, runtime)
}
