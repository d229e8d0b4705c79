//! The race: seawall beside the raw device and its peers, in one interleaved run.
//!
//! ```text
//! main        one command; the hidden `child` measures one (contender, workload, threads)
//! args        what to run
//! workload    the workloads: rows, levels of durability, thread counts
//! condition   what a contender has beside it · seen: what it counts itself
//! contenders  who runs what · contenders/<one file each>
//! rows        keys in random order, values that do not compress
//! drive       threads or tasks commit for a window of time, with busy threads beside them if asked
//! meter       CPU, context switches, device bytes and flushes of that window
//! histogram   latencies
//! child       one measurement, in a process and a directory of its own
//! cgroup      a limit for memory, the page cache included
//! reopen      fill, be killed, open again · cold: the files without the kernel's cache
//! shelf       a store of many rows, loaded once for all that is read and changed on it
//! parent      plans, interleaves, spawns, collects
//! summary     medians, honesty, best peer · targets: what is asked of seawall
//! table       the report for people · benchmarks: the same as docs/benchmarks.md
//! machine     where it ran
//! ```

mod args;
mod benchmarks;
mod cgroup;
mod child;
mod cold;
mod condition;
mod contenders;
mod drive;
mod histogram;
mod machine;
mod meter;
mod parent;
mod reopen;
mod rows;
mod seen;
mod shelf;
mod summary;
mod table;
mod targets;
mod workload;

use clap::Parser;
use std::process::ExitCode;

/// Whatever went wrong, told to people; nothing here decides by its kind.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let outcome = match &args.command {
        Some(args::Command::Child { job }) => child::run(job),
        None => parent::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("race: {error}");
            ExitCode::FAILURE
        }
    }
}
