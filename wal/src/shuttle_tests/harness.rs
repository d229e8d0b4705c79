//! A committer over a sink that remembers, and what must hold at every acknowledgement.

use crate::Lsn;
use crate::commit::explored::Misorder;
use crate::commit::{Batch, Committer, Placed, Sink, Written};
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::follow::Met;
use crate::record::Kind;
use crate::runtime::Runtime;
use crate::runtime::ShuttleRuntime;
use crate::segment::Geometry;
use crate::stats::Counters;
use shuttle::thread::JoinHandle;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub(super) const GEOMETRY: Geometry = Geometry { segment_bytes: 64 << 10 };

/// What [`FakeSink`] does with its n-th write, counted from 1; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    pub(super) fails_at: u32,
    pub(super) panics_at: u32,
    /// How often other threads may run while a write is on its way.
    pub(super) yields: u32,
}

/// Remembers how far it was written, and how far durably. Its own state is invisible to the scheduler.
#[derive(Debug)]
pub(super) struct FakeSink {
    plan: Plan,
    is_writing: AtomicBool,
    writes: AtomicU32,
    disk: Mutex<Marks>,
}

#[derive(Clone, Copy, Debug)]
struct Marks {
    written: Lsn,
    durable: Lsn,
    failed: bool,
}

impl FakeSink {
    fn disk(&self) -> MutexGuard<'_, Marks> {
        self.disk.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn writes(&self) -> u32 {
        self.writes.load(Ordering::Relaxed)
    }
}

impl Sink for FakeSink {
    fn write(&self, batches: &mut [Batch], durable: bool, claim: Lsn) -> Result<Written> {
        assert!(!self.is_writing.swap(true, Ordering::Relaxed), "two leaders write at a time");
        let n = 1 + self.writes.fetch_add(1, Ordering::Relaxed);
        let mut marks = *self.disk();
        assert!(!marks.failed, "W8: written to after a failure");
        assert!(claim <= marks.durable, "a frame claims {claim} to be durable, and {} is", marks.durable);
        assert!(durable || !batches.is_empty(), "asked to write nothing");
        for _ in 0..self.plan.yields {
            shuttle::thread::yield_now();
        }
        if n == self.plan.panics_at {
            self.is_writing.store(false, Ordering::Relaxed);
            self.disk().failed = true;
            // Without the hook, which would print a schedule.
            std::panic::resume_unwind(Box::new("the disk's driver panics"));
        }
        if n == self.plan.fails_at {
            self.disk().failed = true;
            self.is_writing.store(false, Ordering::Relaxed);
            return Err(Error::io("write", Path::new("/log"), None, std::io::ErrorKind::Other.into()));
        }
        for batch in batches {
            assert!(batch.base >= marks.written, "W5: {} is written behind {}", batch.base, marks.written);
            if !batch.flags.goes_on() && batch.flags != crate::frame::Flags::SEAL {
                marks.written = batch.end();
            }
        }
        if durable {
            marks.durable = marks.written;
        }
        *self.disk() = marks;
        for _ in 0..self.plan.yields {
            shuttle::thread::yield_now();
        }
        self.is_writing.store(false, Ordering::Relaxed);
        Ok(Written { end: marks.written, durable: marks.durable == marks.written })
    }
}

/// One committer, and all that was placed with it.
pub(super) struct Bench {
    pub(super) committer: Committer<FakeSink>,
    pub(super) runtime: Arc<ShuttleRuntime>,
    placed: Mutex<Vec<(Placed, Durability)>>,
}

impl Bench {
    pub(super) fn new(plan: Plan) -> Arc<Bench> {
        Bench::with(plan, None)
    }

    pub(super) fn with(plan: Plan, misorder: Option<Misorder>) -> Arc<Bench> {
        let base = GEOMETRY.first_frame(1);
        let sink = FakeSink {
            plan,
            is_writing: AtomicBool::new(false),
            writes: AtomicU32::new(0),
            disk: Mutex::new(Marks { written: base, durable: base, failed: false }),
        };
        let runtime = ShuttleRuntime::new();
        let counters = Arc::new(Counters::default());
        let as_seam: Arc<dyn Runtime> = runtime.clone();
        let mut committer = Committer::new(sink, GEOMETRY, &as_seam, &counters, base, base, 0).unwrap();
        committer.set_ready_end(GEOMETRY.start(1000));
        committer.explored.misorder = misorder;
        committer.followers.counts_first = misorder == Some(Misorder::CountFollowersFirst);
        let bench = Arc::new(Bench { committer, runtime, placed: Mutex::new(Vec::new()) });
        // Only now does the word stand where it stays.
        bench.runtime.never_time_out(bench.committer.progress_address());
        bench
    }

    /// A thread of the test.
    pub(super) fn spawn(self: &Arc<Self>, body: impl FnOnce(&Bench) + Send + 'static) -> JoinHandle<()> {
        let bench = self.clone();
        shuttle::thread::spawn(move || body(&bench))
    }

    pub(super) fn place(&self, bytes: usize, durability: Durability) -> Result<Placed> {
        let payload = vec![7; bytes];
        let placed = self.committer.place(Kind::RECORD, 0, &[&payload], durability)?;
        let placed = placed.expect("there is a file for it");
        self.all().push((placed, durability));
        Ok(placed)
    }

    /// Places a small record and waits for it.
    pub(super) fn commit(&self, durability: Durability) -> Result<Placed> {
        let placed = self.place(40, durability)?;
        self.wait(&placed, None).map(|_| placed)
    }

    /// A commit that must succeed.
    pub(super) fn commits(&self, durability: Durability) {
        self.commit(durability).unwrap();
    }

    /// A record that is placed and not waited for.
    pub(super) fn appends(&self, bytes: usize, durability: Durability) {
        self.place(bytes, durability).unwrap();
    }

    pub(super) fn wait(&self, placed: &Placed, timeout: Option<Duration>) -> Result<bool> {
        let reached = self.committer.wait(placed, timeout)?;
        if reached {
            self.check_acknowledged(placed.lsn);
        }
        Ok(reached)
    }

    /// W7: the record at `lsn`, and all before it, are where they asked to be.
    pub(super) fn check_acknowledged(&self, lsn: Lsn) {
        let disk = *self.committer.sink.disk();
        for (placed, durability) in self.all().iter().filter(|(placed, _)| placed.lsn <= lsn) {
            match durability {
                Durability::Synced => {
                    assert!(placed.end <= disk.durable, "W7: {placed:?} is not durable: {disk:?}")
                }
                Durability::Written => {
                    assert!(placed.end <= disk.written, "W7: {placed:?} is not written: {disk:?}")
                }
                Durability::Memory => {}
            }
        }
    }

    /// W6, and that no mark runs ahead of the disk.
    pub(super) fn watch_marks(&self, times: u32) {
        let mut last = (Lsn::ZERO, Lsn::ZERO, Lsn::ZERO);
        for _ in 0..times {
            // The lower first: the higher can only have grown since.
            let durable = self.committer.durable();
            let written = self.committer.written();
            let reserved = self.committer.reserved();
            let disk = *self.committer.sink.disk();
            assert!(durable <= written && written <= reserved, "W6: {durable} {written} {reserved}");
            assert!(durable <= disk.durable && written <= disk.written, "marks ahead of {disk:?}");
            assert!(last.0 <= durable && last.1 <= written && last.2 <= reserved, "W6: marks went back");
            last = (durable, written, reserved);
            shuttle::thread::yield_now();
        }
    }

    /// Follows from `known` on, until `until` is durable or the log has ended; returns how far it came.
    pub(super) fn follows(&self, mut known: Lsn, until: Lsn) -> Result<Lsn> {
        let stop = crate::sync::AtomicBool::new(false);
        let cuts = self.committer.cuts.count();
        while known < until {
            match self.committer.follow(known, cuts, &stop, None)? {
                Met::Durable(durable) => {
                    let disk = *self.committer.sink.disk();
                    assert!(durable > known && durable <= disk.durable, "W9: {durable} shown, {disk:?}");
                    known = durable;
                }
                Met::Closed => break,
                met => panic!("a follower met {met:?}"),
            }
        }
        Ok(known)
    }

    /// When all threads have ended.
    pub(super) fn finish(&self) {
        let idle = self.committer.explored.idle_leads.load(Ordering::Relaxed);
        assert_eq!(idle, 0, "a leader found nothing to write");
    }

    fn all(&self) -> MutexGuard<'_, Vec<(Placed, Durability)>> {
        self.placed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Waits for all threads; a panic of one is a panic of the test.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}
