//! Blocking committers, a thread each.

use super::{Measured, Plan, Tally, tidied};
use crate::Result;
use crate::contenders::Store;
use crate::meter;
use crate::rows::{Rows, Share};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::Instant;

/// Where the threads and the one that meters them meet.
struct Meeting {
    /// All have warmed up.
    warm: Barrier,
    /// The window begins.
    ready: Barrier,
    start: OnceLock<Instant>,
}

/// Measures a window of [`Plan::threads`] threads.
pub(crate) fn threads(store: &dyn Store, plan: &Plan) -> Result<Measured> {
    let rows = Rows::new(plan.workload.value_bytes());
    let meeting = Meeting {
        warm: Barrier::new(plan.threads + 1),
        ready: Barrier::new(plan.threads + 1),
        start: OnceLock::new(),
    };
    tidied(store, || {
        thread::scope(|scope| {
            let committers: Vec<_> = (0..plan.threads)
                .map(|thread| {
                    let share = Share::new(&rows, thread, plan.threads, plan.workload.rows_per_commit())
                        .of_rows_there(plan.rows_there);
                    let meeting = &meeting;
                    scope.spawn(move || committer(store, plan, thread, share, meeting))
                })
                .collect();
            meeting.warm.wait();
            // An error must not leave the committers waiting.
            let meter = meter::settle(&plan.dir).and_then(|()| plan.meter());
            let before = store.seen();
            let start = *meeting.start.get_or_init(Instant::now);
            meeting.ready.wait();
            let tallies: Vec<Result<Tally>> = committers
                .into_iter()
                .map(|committer| committer.join().map_err(|_| "a committer panicked")?)
                .collect();
            // What a window's commits have left with the kernel is a part of what they cost, where that is long enough
            // to be told from what was there before.
            let written = if plan.rows_there.is_some() { meter::settle(&plan.dir) } else { Ok(()) };
            let cost = written.and(meter).and_then(|meter| meter.stop());
            let seen = store.seen().since(before);
            let measured = plan.measured(start, &tallies.into_iter().collect::<Result<Vec<_>>>()?, cost?);
            Ok(Measured { seen, ..measured })
        })
    })
}

fn committer(
    store: &dyn Store,
    plan: &Plan,
    thread: usize,
    mut share: Share<'_>,
    meeting: &Meeting,
) -> Result<Tally> {
    let warmed = store.writer(thread).and_then(|mut writer| {
        let end = Instant::now() + plan.warm_up();
        while Instant::now() < end {
            writer.commit(share.commit())?;
        }
        Ok(writer)
    });
    meeting.warm.wait();
    meeting.ready.wait();
    let mut writer = warmed?;
    let start = meeting.start.get().copied().unwrap_or_else(Instant::now);
    let mut tally = Tally::new(start);
    while tally.end < start + plan.window {
        let before = Instant::now();
        writer.commit(share.commit())?;
        tally.count(before);
    }
    Ok(tally)
}
