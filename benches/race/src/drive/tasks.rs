//! Committers that are tasks of an asynchronous runtime.

use super::{Measured, Plan, Tally};
use crate::Result;
use crate::meter;
use crate::rows::{Row, Rows, Share};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// What a task commits to.
pub(crate) trait Committing: Send + Sync + 'static {
    fn commit<'a>(&'a self, rows: &'a [Row<'a>]) -> impl Future<Output = Result<()>> + Send + 'a;
}

/// Measures a window of [`Plan::tasks`] tasks.
pub(crate) fn tasks<C: Committing>(runtime: &Runtime, plan: &Plan, committing: &Arc<C>) -> Result<Measured> {
    let rows = Arc::new(Rows::new(plan.workload.value_bytes()));
    // The window's rows are others than the warm-up's: their numbers begin where no warm-up comes to.
    round(runtime, plan, committing, &rows, 1 << 40, plan.warm_up())?;
    meter::settle(&plan.dir)?;
    let meter = plan.meter()?;
    let (start, tallies) = round(runtime, plan, committing, &rows, 0, plan.window)?;
    let cost = meter.stop()?;
    Ok(plan.measured(start, &tallies, cost))
}

fn round<C: Committing>(
    runtime: &Runtime,
    plan: &Plan,
    committing: &Arc<C>,
    rows: &Arc<Rows>,
    first: usize,
    length: Duration,
) -> Result<(Instant, Vec<Tally>)> {
    let (tasks, rows_per_commit) = (plan.tasks(), plan.workload.rows_per_commit());
    let start = Instant::now();
    let committers: Vec<_> = (0..tasks)
        .map(|task| {
            let (committing, rows) = (committing.clone(), rows.clone());
            runtime.spawn(async move {
                let mut share = Share::new(&rows, first + task, tasks, rows_per_commit);
                let mut tally = Tally::new(start);
                while tally.end < start + length {
                    let before = Instant::now();
                    committing.commit(share.commit()).await?;
                    tally.count(before);
                }
                Ok::<_, crate::Error>(tally)
            })
        })
        .collect();
    let tallies = runtime.block_on(async {
        let mut tallies = Vec::new();
        for committer in committers {
            tallies.push(committer.await??);
        }
        Ok::<_, crate::Error>(tallies)
    })?;
    Ok((start, tallies))
}
