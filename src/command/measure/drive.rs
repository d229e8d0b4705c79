//! Threads that do one thing again and again for a while, and what is kept of it.
//!
//! Without a rate each thread begins the next operation when the last has ended (a closed loop); with one, at the
//! moments of its [`Schedule`], and each operation's time counts from then.

use super::latency::Latency;
use super::schedule::Schedule;
use super::series::Series;
use super::usage::{Switches, Usage};
use crate::command::{Failure, Outcome, Ui};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How often a thread that waits for its moment looks whether it is to stop.
const NAP: Duration = Duration::from_millis(50);

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) threads: u32,
    pub(crate) length: Duration,
    /// Operations a second, all threads together: an open loop.
    pub(crate) rate: Option<u64>,
}

/// What one operation was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) kind: Kind,
    pub(crate) rows: u64,
}

/// Operations of different kinds differ so much that one distribution of all says little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Scan,
    Write,
    Insert,
    Update,
    ReadModifyWrite,
}

impl Kind {
    /// In the order in which they are told.
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Read, Kind::Scan, Kind::Write, Kind::Insert, Kind::Update, Kind::ReadModifyWrite];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Scan => "scan",
            Kind::Write => "write",
            Kind::Insert => "insert",
            Kind::Update => "update",
            Kind::ReadModifyWrite => "read-modify-write",
        }
    }

    /// It ends with a commit.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Kind::Read | Kind::Scan)
    }
}

impl Done {
    /// One row was written.
    pub(crate) const WRITE: Done = Done { kind: Kind::Write, rows: 1 };
}

/// All operations of one kind.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) ops: u64,
    pub(crate) rows: u64,
    pub(crate) latency: Latency,
}

/// The operations of each kind; those that were not done take no memory.
#[derive(Debug, Default)]
pub(crate) struct Sides([Option<Box<Side>>; Kind::ALL.len()]);

impl Sides {
    fn at(&mut self, kind: Kind) -> Outcome<&mut Side> {
        let [read, scan, write, insert, update, modify] = &mut self.0;
        let side = match kind {
            Kind::Read => read,
            Kind::Scan => scan,
            Kind::Write => write,
            Kind::Insert => insert,
            Kind::Update => update,
            Kind::ReadModifyWrite => modify,
        };
        match side {
            Some(side) => Ok(side),
            none => Ok(none.insert(Box::new(Side { ops: 0, rows: 0, latency: Latency::new()? }))),
        }
    }

    /// Those that were done, in the order of [`Kind::ALL`].
    pub(crate) fn all(&self) -> impl Iterator<Item = (Kind, &Side)> {
        Kind::ALL.into_iter().zip(&self.0).filter_map(|(kind, side)| Some((kind, side.as_deref()?)))
    }

    fn merge(&mut self, other: &Sides) -> Outcome {
        for (kind, from) in other.all() {
            let side = self.at(kind)?;
            side.ops += from.ops;
            side.rows += from.rows;
            side.latency.merge(&from.latency)?;
        }
        Ok(())
    }
}

/// What all threads did together.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) elapsed: Duration,
    pub(crate) sides: Sides,
    pub(crate) series: Series,
    pub(crate) usage: Usage,
    /// Due in an open loop, and never begun: their waiting is in the distributions.
    pub(crate) unserved: u64,
}

impl Driven {
    pub(crate) fn ops(&self) -> u64 {
        self.sides.all().map(|(_, side)| side.ops).sum()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.sides.all().map(|(_, side)| side.rows).sum()
    }

    /// Rows that commits wrote.
    pub(crate) fn rows_written(&self) -> u64 {
        self.sides.all().filter(|(kind, _)| kind.writes()).map(|(_, side)| side.rows).sum()
    }

    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    pub(crate) fn per_op(&self, amount: f64) -> f64 {
        amount / self.ops().max(1) as f64
    }

    /// Of operations of all kinds together.
    pub(crate) fn latency(&self) -> Outcome<Latency> {
        let mut all = Latency::new()?;
        for (_, side) in self.sides.all() {
            all.merge(&side.latency)?;
        }
        Ok(all)
    }
}

/// Lets as many threads as there are workers run. The first failure ends all of them; so does Ctrl-C, and the caller
/// then gets that failure.
pub(crate) fn drive<W>(ui: &Ui, load: &Load, make: impl Fn(u32) -> Outcome<W>) -> Outcome<Driven>
where
    W: FnMut() -> Outcome<Done> + Send,
{
    let workers = (0..load.threads).map(make).collect::<Outcome<Vec<W>>>()?;
    let stop = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed) || ui.is_interrupted();
    // Closed until all threads are there.
    let gate = RwLock::new(Instant::now());
    let before = Usage::now();
    let mut tallies = Vec::new();
    let outcome = std::thread::scope(|scope| {
        let mut closed = gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut running = Vec::new();
        let mut failure = None;
        for (thread, mut work) in (0u32..).zip(workers) {
            let (gate, stop, stopped) = (&gate, &stop, &stopped);
            let spawned = Builder::new().spawn_scoped(scope, move || {
                let start = *gate.read().unwrap_or_else(PoisonError::into_inner);
                let done = Tally::new(load, thread).run(start, load, stopped, &mut work);
                if done.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                done
            });
            match spawned {
                Ok(thread) => running.push(thread),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failure = Some(Failure::error(format!("starting thread {thread}: {error}")));
                    break;
                }
            }
        }
        *closed = Instant::now();
        drop(closed);
        for thread in running {
            match thread.join() {
                Ok(Ok(tally)) => tallies.push(tally),
                Ok(Err(failed)) => failure = failure.take().or(Some(failed)),
                Err(_) => failure = failure.take().or(Some(Failure::error("a thread panicked"))),
            }
        }
        failure.map_or(Ok(()), Err)
    });
    let after = Usage::now();
    ui.check_interrupt()?;
    outcome?;
    sum(load, tallies, |gone| after.since(before, gone))
}

fn sum(load: &Load, tallies: Vec<Tally>, usage: impl FnOnce(Option<Switches>) -> Usage) -> Outcome<Driven> {
    let mut driven = Driven {
        elapsed: load.length,
        sides: Sides::default(),
        series: Series::new(load.length),
        usage: Usage::default(),
        unserved: 0,
    };
    let mut gone = Some(Switches::default());
    for tally in tallies {
        driven.elapsed = driven.elapsed.max(tally.ended);
        driven.sides.merge(&tally.sides)?;
        driven.series.merge(&tally.series);
        driven.unserved += tally.unserved;
        gone = gone.zip(tally.switches).map(|(mut sum, switches)| {
            sum += switches;
            sum
        });
    }
    driven.usage = usage(gone);
    Ok(driven)
}

/// What one thread did.
#[derive(Debug)]
struct Tally {
    schedule: Option<Schedule>,
    begun: u64,
    ended: Duration,
    sides: Sides,
    series: Series,
    switches: Option<Switches>,
    unserved: u64,
}

impl Tally {
    fn new(load: &Load, thread: u32) -> Tally {
        Tally {
            schedule: load.rate.map(|rate| Schedule::new(rate, load.threads, thread)),
            begun: 0,
            ended: Duration::ZERO,
            sides: Sides::default(),
            series: Series::new(load.length),
            switches: None,
            unserved: 0,
        }
    }

    fn run(
        mut self,
        start: Instant,
        load: &Load,
        stopped: &impl Fn() -> bool,
        work: &mut impl FnMut() -> Outcome<Done>,
    ) -> Outcome<Tally> {
        if self.schedule.is_some() {
            wake_on_time();
        }
        let mut last = Kind::Write;
        while let Some(begun) = self.next_start(start, load.length, stopped) {
            self.begun += 1;
            let done = work()?;
            let ended = start.elapsed();
            let side = self.sides.at(done.kind)?;
            side.ops += 1;
            side.rows += done.rows;
            side.latency.record(ended.saturating_sub(begun));
            self.series.record(ended, 1);
            self.ended = ended;
            last = done.kind;
        }
        if let Some(schedule) = self.schedule.filter(|_| !stopped()) {
            self.unserved = schedule.due_before(load.length).saturating_sub(self.begun);
            for (waited, stands_for) in schedule.waits(self.begun, load.length) {
                self.sides.at(last)?.latency.record_n(waited, stands_for);
            }
        }
        self.switches = Switches::of_this_thread();
        Ok(self)
    }

    /// Waits for the moment of the next operation, and says from when on its time counts. None when it is over.
    fn next_start(&self, start: Instant, length: Duration, stopped: &impl Fn() -> bool) -> Option<Duration> {
        let due = self.schedule.map(|schedule| schedule.due(self.begun));
        loop {
            let now = start.elapsed();
            if now >= length || stopped() || due.is_some_and(|due| due >= length) {
                return None;
            }
            match due.map(|due| (due, due.saturating_sub(now))) {
                None => return Some(now),
                Some((due, Duration::ZERO)) => return Some(due),
                Some((_, early)) => std::thread::sleep(early.min(NAP)),
            }
        }
    }
}

/// Linux lets a sleep last 50 µs longer than asked, so that wake-ups can be gathered. In an open loop that would count
/// as the store's time.
fn wake_on_time() {
    #[cfg(target_os = "linux")]
    {
        // Without it the times are those 50 µs longer: nothing to fail for.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

    use super::*;
    use crate::command::ui::test_ui;
    use std::sync::atomic::AtomicU64;

    const READ: Done = Done { kind: Kind::Read, rows: 10 };

    #[test]
    fn every_operation_of_every_thread_is_counted_once() {
        let load = Load { threads: 3, length: Duration::from_millis(100), rate: None };
        let made = AtomicU64::new(0);
        let driven = drive(&test_ui(), &load, |thread| {
            let made = &made;
            Ok(move || {
                made.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
                Ok(if thread == 0 { READ } else { Done::WRITE })
            })
        });
        let driven = driven.unwrap();
        assert_eq!(driven.ops(), made.into_inner());
        assert!(driven.ops() > 0);
        let sides: Vec<(Kind, u64, u64)> =
            driven.sides.all().map(|(kind, side)| (kind, side.ops, side.rows)).collect();
        let [(Kind::Read, reads, read_rows), (Kind::Write, writes, written_rows)] = sides[..] else {
            panic!("{sides:?}");
        };
        assert_eq!((read_rows, written_rows), (reads * 10, writes));
        assert_eq!((driven.rows(), driven.rows_written()), (read_rows + written_rows, written_rows));
        assert!(driven.elapsed >= load.length && driven.latency().unwrap().quantiles().p50_us >= 990.0);
        let counted: u64 = driven.series.into_counts().iter().sum();
        // Those under way at the end are in no slot.
        assert!(counted <= reads + writes);
        assert_eq!(driven.unserved, 0);
    }

    #[test]
    fn an_open_loop_begins_no_more_than_was_due_and_counts_the_rest() {
        let load = Load { threads: 2, length: Duration::from_millis(100), rate: Some(400) };
        let quick = drive(&test_ui(), &load, |_| Ok(|| Ok(Done::WRITE))).unwrap();
        assert_eq!(quick.ops() + quick.unserved, 40);
        // Each thread is held up until all is over by its first operation: the others have waited meanwhile.
        let held = drive(&test_ui(), &load, |_| {
            Ok(|| {
                std::thread::sleep(Duration::from_millis(110));
                Ok(Done::WRITE)
            })
        });
        let held = held.unwrap();
        assert_eq!((held.ops(), held.unserved), (2, 38));
        // Due every 2.5 ms, so that half of all have waited for 50 ms or more.
        let found = held.latency().unwrap().quantiles();
        assert!(found.p50_us >= 45_000.0, "{found:?}");
    }

    #[test]
    fn the_first_failure_ends_all_threads() {
        let load = Load { threads: 4, length: Duration::from_secs(3600), rate: Some(1) };
        let failed = drive(&test_ui(), &load, |thread| {
            Ok(move || if thread == 0 { Err(Failure::error("no more")) } else { Ok(Done::WRITE) })
        });
        assert_eq!(failed.unwrap_err().message, "no more");
        let unmade =
            drive(&test_ui(), &load, |_| Err::<fn() -> Outcome<Done>, _>(Failure::error("cannot be made")));
        assert_eq!(unmade.unwrap_err().message, "cannot be made");
    }
}
