//! One thread that keeps many commits outstanding, and waits for each of them in the end.

use super::{Measured, Plan, Tally, tidied};
use crate::Result;
use crate::contenders::Store;
use crate::meter;
use crate::rows::{Row, Rows, Share};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One in so many latencies is taken: looking at the clock costs as much as a fast append.
const SAMPLED: u64 = 64;

/// Measures a window of one thread that gives rows to `issue`, and has at most
/// [`Workload::outstanding`](crate::workload::Workload::outstanding) tickets that it has not given to `wait`. The time
/// ends when the last one is durable.
pub(crate) fn tickets<T>(
    store: &dyn Store,
    plan: &Plan,
    mut issue: impl FnMut(&[Row<'_>]) -> Result<T>,
    mut wait: impl FnMut(T) -> Result<()>,
) -> Result<Measured> {
    let rows = Rows::new(plan.workload.value_bytes());
    let mut share = Share::new(&rows, 0, 1, plan.workload.rows_per_commit());
    let mut window = |length: Duration| -> Result<(Instant, Tally)> {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        let mut outstanding: VecDeque<(T, Instant)> = VecDeque::new();
        let mut now = start;
        for n in 0u64.. {
            if n % SAMPLED == 0 {
                now = Instant::now();
                if now >= start + length {
                    break;
                }
            }
            outstanding.push_back((issue(share.commit())?, now));
            if outstanding.len() >= plan.workload.outstanding()
                && let Some((ticket, before)) = outstanding.pop_front()
            {
                finish(&mut tally, before, wait(ticket))?;
            }
        }
        for (ticket, before) in outstanding {
            finish(&mut tally, before, wait(ticket))?;
        }
        tally.end = Instant::now();
        Ok((start, tally))
    };
    tidied(store, || {
        window(plan.warm_up())?;
        meter::settle(&plan.dir)?;
        let meter = plan.meter()?;
        let (start, tally) = window(plan.window)?;
        let cost = meter.stop()?;
        Ok(plan.measured(start, &[tally], cost))
    })
}

fn finish(tally: &mut Tally, before: Instant, outcome: Result<()>) -> Result<()> {
    outcome?;
    if tally.commits.is_multiple_of(SAMPLED) {
        tally.count(before);
    } else {
        tally.commits += 1;
    }
    Ok(())
}
