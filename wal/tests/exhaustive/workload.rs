//! Short histories of a log, of a few dozen calls to the disk each.

use crate::model::Model;
use seawall_wal::disk::sim::{CrashStyle, NameHabit};
use seawall_wal::mutation::Mutation;
use seawall_wal::{Durability, Error, SimDisk, SimRuntime, Wal, WalOptions};
use std::cell::Cell;
use std::sync::Arc;

pub(crate) const DIR: &str = "/store/log";
const SEGMENT_BYTES: u64 = 64 << 10;

/// One call, or an end and a beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Commit(usize, Durability),
    /// So many records in one call.
    Batch(usize),
    Sync,
    /// Allows the records before this one to be reclaimed.
    Truncate(usize),
    /// Drops the record at this place, and all behind it.
    Cut(usize),
    /// What the background threads do in idle moments.
    Idle,
    Reopen,
}

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Goes before, without a fault.
    pub(crate) before: &'static [Step],
    /// The power is cut in between, so that this much survives.
    pub(crate) cut: Option<CrashStyle>,
    pub(crate) steps: &'static [Step],
}

use Durability::{Memory, Synced, Written};
use Step::{Batch, Commit, Cut, Idle, Reopen, Sync, Truncate};

pub(crate) const WORKLOADS: [Workload; 11] = [
    Workload {
        name: "creation and three commits",
        before: &[],
        cut: None,
        steps: &[Commit(30, Synced), Commit(30, Written), Commit(30, Synced)],
    },
    Workload {
        name: "all levels, and a batch",
        before: &[Commit(10, Synced)],
        cut: None,
        steps: &[
            Commit(9000, Memory),
            Batch(3),
            Commit(100, Written),
            Commit(5000, Written),
            Sync,
            Commit(20, Memory),
        ],
    },
    Workload {
        name: "rotation",
        before: &[Commit(10, Synced)],
        cut: None,
        steps: &[
            Commit(40_000, Synced),
            Commit(40_000, Written),
            Idle,
            Commit(40_000, Synced),
            Commit(40_000, Memory),
            Commit(40_000, Synced),
        ],
    },
    Workload {
        name: "a record cut over frames",
        before: &[Commit(10, Synced)],
        cut: None,
        steps: &[Commit(150_000, Synced), Commit(70_000, Written), Commit(10, Synced)],
    },
    Workload {
        name: "reclaiming and recycling",
        before: &[
            Commit(40_000, Synced),
            Commit(40_000, Synced),
            Commit(40_000, Written),
            Commit(40_000, Synced),
        ],
        cut: None,
        steps: &[
            Truncate(3),
            Commit(40_000, Synced),
            Idle,
            Commit(40_000, Written),
            Truncate(4),
            Commit(40_000, Synced),
        ],
    },
    Workload {
        name: "behind a torn tail",
        before: &[Commit(10, Synced), Commit(9000, Written), Commit(9000, Written), Commit(9000, Memory)],
        cut: Some(CrashStyle::Random),
        steps: &[Commit(30, Synced), Reopen, Commit(30, Written), Commit(30, Synced)],
    },
    Workload {
        name: "closing and opening",
        before: &[Commit(10, Synced)],
        cut: None,
        steps: &[Commit(30, Written), Idle, Reopen, Reopen, Commit(30, Memory), Reopen],
    },
    Workload {
        name: "cutting, and going on",
        before: &[Commit(10, Synced), Commit(9000, Synced)],
        cut: None,
        steps: &[Commit(30, Synced), Commit(20, Written), Cut(2), Commit(30, Synced), Idle, Cut(1), Reopen],
    },
    Workload {
        name: "cutting through what was placed together",
        before: &[Commit(10, Synced), Batch(3), Sync],
        cut: None,
        steps: &[Cut(2), Batch(2), Idle, Cut(4), Cut(3), Reopen, Commit(30, Synced)],
    },
    Workload {
        name: "cutting in an older segment, and recycling",
        before: &[
            Commit(40_000, Synced),
            Commit(40_000, Synced),
            Commit(40_000, Synced),
            Commit(150_000, Synced),
        ],
        cut: None,
        steps: &[
            Cut(1),
            Commit(40_000, Synced),
            Idle,
            Commit(40_000, Written),
            Truncate(2),
            Commit(40_000, Synced),
        ],
    },
    Workload {
        name: "cutting everything",
        before: &[Commit(40_000, Synced), Commit(40_000, Synced), Commit(40_000, Synced), Truncate(1)],
        cut: None,
        steps: &[Cut(1), Idle, Commit(10, Synced), Reopen, Cut(1), Reopen],
    },
];

thread_local! {
    /// What the logs of this test do wrong on purpose.
    pub(crate) static MISTAKE: Cell<Option<Mutation>> = const { Cell::new(None) };
    /// Whether the client asks a log that has failed to go on; and how often one did.
    pub(crate) static RESUMES: Cell<bool> = const { Cell::new(false) };
    pub(crate) static RESUMED: Cell<u64> = const { Cell::new(0) };
}

pub(crate) fn options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options()
        .segment_bytes(SEGMENT_BYTES)
        .disk(disk.clone())
        .runtime(SimRuntime::new(7))
        .background(false)
        .mutation(MISTAKE.get())
}

impl Workload {
    /// The disk and the client before the steps that may fail.
    pub(crate) fn prepare(&self, habit: NameHabit) -> Result<(Arc<SimDisk>, Model), String> {
        let disk = SimDisk::new(11);
        disk.set_name_habit(habit);
        let mut model = Model::default();
        if self.before.is_empty() {
            return Ok((disk, model));
        }
        play(&disk, self.before, &mut model)?;
        let Some(style) = self.cut else { return Ok((disk.kill(), model)) };
        disk.set_crash_style(Some(style));
        Ok((disk.crash(), model.cut()))
    }
}

/// Opens the log, compares it, and does the steps, refused or not; leaves it open, as a process does that is killed.
/// Errors are what a client may not meet.
pub(crate) fn play(disk: &Arc<SimDisk>, steps: &[Step], model: &mut Model) -> Result<(), String> {
    let mut wal = match open(disk, model)? {
        Some(wal) => wal,
        None => return Ok(()),
    };
    for step in steps {
        if let Reopen = step {
            if let Err(error) = noted(wal.close(), model)? {
                // Whether the end of a failed close was clean is not known; what is promised is.
                drop(error);
            } else {
                model.promised(Durability::Synced);
            }
            match open(disk, model)? {
                Some(again) => wal = again,
                None => return Ok(()),
            }
            continue;
        }
        take(&wal, *step, model)?;
    }
    // Ends as by a kill: nothing more may reach the disk.
    std::mem::forget(wal);
    Ok(())
}

/// Opens and compares. `None` if a fault was in the way.
fn open(disk: &Arc<SimDisk>, model: &mut Model) -> Result<Option<Wal>, String> {
    match noted(options(disk).open(DIR), model)? {
        Ok(wal) => match model.compare(&wal) {
            Ok(()) => Ok(Some(wal)),
            // The power may fail, or a read, while all is read.
            Err(what) if what.starts_with("reading") => Ok(None),
            Err(what) => Err(what),
        },
        Err(_) => Ok(None),
    }
}

fn take(wal: &Wal, step: Step, model: &mut Model) -> Result<(), String> {
    let outcome = match step {
        Step::Commit(bytes, durability) => {
            let payload = model.payload(bytes);
            let committed = wal.commit_with(&payload, durability);
            match &committed {
                Ok(lsn) => {
                    model.placed(*lsn, vec![payload]);
                    model.promised(durability);
                }
                Err(Error::CommitUnknown { lsn }) => model.placed(*lsn, vec![payload]),
                Err(_) => {}
            }
            committed.map(|_| ())
        }
        Step::Batch(records) => {
            let payloads: Vec<Vec<u8>> = (0..records).map(|_| model.payload(200)).collect();
            let placed = wal.append_batch(&payloads);
            if let Ok(lsn) = placed {
                model.placed(lsn, payloads);
            }
            placed.map(|_| ())
        }
        Step::Sync => wal.sync().map(|_| model.promised(Durability::Synced)),
        Step::Truncate(index) => match model.records.get(index) {
            Some(known) => {
                let lsn = known.lsn;
                model.reclaimed = model.reclaimed.max(index);
                wal.truncate_before(lsn).map(|_| ())
            }
            None => Ok(()),
        },
        Step::Cut(index) => match model.records.get(index) {
            Some(known) => {
                let cut = wal.truncate_after(known.lsn);
                // Without space nothing is begun.
                if !matches!(cut, Err(Error::NoSpace)) {
                    model.cut_after(index, cut.is_ok());
                }
                cut
            }
            None => Ok(()),
        },
        Step::Idle => wal.step().and_then(|_| wal.step()).map(|_| ()),
        Step::Reopen => Ok(()),
    };
    if noted(outcome, model)?.is_err() && RESUMES.get() {
        resume(wal, model)?;
    }
    Ok(())
}

/// Asks a log that may have failed to go on. If it does, all that had its place is on the device.
fn resume(wal: &Wal, model: &mut Model) -> Result<(), String> {
    let had_failed = matches!(wal.make_room(0), Err(Error::Poisoned(_)));
    if noted(wal.resume(), model)?.is_ok() && had_failed {
        model.promised(Durability::Synced);
        RESUMED.set(RESUMED.get() + 1);
    }
    Ok(())
}

/// Whether it went well, unless it failed in a way that nobody could take.
fn noted<T>(outcome: Result<T, Error>, model: &mut Model) -> Result<Result<T, Error>, String> {
    if let Err(error) = &outcome {
        model.refused(error)?;
    }
    Ok(outcome)
}
