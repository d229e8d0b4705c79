//! One measurement, in a process and a directory of its own.

use crate::condition::{BUSY_THREADS, Condition, Entrant};
use crate::contenders::Setup;
use crate::drive::{self, Measured, Plan};
use crate::workload::Workload;
use crate::{Result, cold, reopen};
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
        }
    }
}

pub(crate) fn run(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job).map_err(|error| format!("not a job: {error}"))?;
    // A race that is broken off leaves nobody behind who writes.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let measured = match job.phase {
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
