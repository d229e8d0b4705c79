//! One measurement, in a process and a directory of its own.

use crate::condition::{BUSY_THREADS, Condition, Entrant};
use crate::contenders::{Contender, Setup};
use crate::drive::{self, Measured, Plan};
use crate::shelf::{self, Order};
use crate::workload::Workload;
use crate::{Result, cgroup, cold, reopen};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Begins the line of a child's standard output that holds its [`Measured`].
pub(crate) const RESULT: &str = "RESULT ";

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) entrant: Entrant,
    pub(crate) workload: Workload,
    pub(crate) threads: u16,
    pub(crate) window_s: f64,
    pub(crate) dir: PathBuf,
    pub(crate) phase: Phase,
    /// Bytes of rows for [`Phase::Fill`] and [`Phase::Reopen`].
    pub(crate) log_bytes: u64,
    /// For [`Phase::Shelf`] and [`Phase::ShelfOpen`].
    #[serde(default)]
    pub(crate) order: Option<Order>,
    /// Where its memory is limited, and to how many bytes.
    #[serde(default)]
    pub(crate) cgroup: Option<(PathBuf, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Drive a workload for a window of time.
    Measure,
    /// Fill a log, say so, and wait to be killed.
    Fill,
    /// Read the files of what was filled, to know how long that takes.
    Read,
    /// Open what was filled.
    Reopen,
    /// Load a store of many rows, and measure what is ordered on it.
    Shelf,
    /// Open it again.
    ShelfOpen,
}

impl Job {
    pub(crate) fn setup(&self) -> Setup<'_> {
        Setup {
            dir: &self.dir,
            level: self.workload.level(),
            workload: self.workload,
            condition: self.entrant.condition,
            threads: usize::from(self.threads),
            is_filling: self.phase == Phase::Fill,
            memory: None,
        }
    }
}

pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job).map_err(|error| format!("not a job: {error}"))?;
    // A race that is broken off leaves nobody behind who writes.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if let Some((dir, bytes)) = &job.cgroup {
        cgroup::enter(dir, *bytes)?;
    }
    let ordered = || job.order.as_ref().ok_or("nothing was ordered");
    let measured = match job.phase {
        Phase::Shelf => {
            let delivery = shelf::deliver(&job, ordered()?)?;
            println!("{RESULT}{}", serde_json::to_string(&delivery)?);
            std::process::exit(0);
        }
        Phase::ShelfOpen if job.entrant.contender == Contender::Device => {
            shelf::device_reads(&job, ordered()?)?
        }
        Phase::ShelfOpen => shelf::open_cold(&job, ordered()?)?,
        Phase::Measure => measure(&job)?,
        Phase::Fill => return reopen::fill(&job),
        Phase::Read => cold::read(&job)?,
        Phase::Reopen => reopen::reopen(&job)?,
    };
    println!("{RESULT}{}", serde_json::to_string(&measured)?);
    // The parent throws the directory away: nobody needs a store's orderly end, which may take longer than the window.
    std::process::exit(0);
}

fn measure(job: &Job) -> Result<Measured> {
    let store = job.entrant.contender.open(&job.setup())?;
    let mut plan = Plan {
        workload: job.workload,
        threads: usize::from(job.threads),
        window: Duration::from_secs_f64(job.window_s),
        dir: job.dir.clone(),
        burners: Vec::new(),
        rows_there: None,
    };
    let measured = if job.entrant.condition == Condition::Busy {
        drive::beside(BUSY_THREADS, |burners| {
            plan.burners = burners.to_vec();
            store.drive(&plan)
        })?
    } else {
        store.drive(&plan)?
    };
    // No drop: see `run`.
    std::mem::forget(store);
    Ok(measured)
}
