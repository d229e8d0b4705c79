//! What to run, from the command line.

use crate::contenders::Contender;
use crate::workload::Workload;
use clap::Parser;
use std::path::PathBuf;

/// seawall beside the raw device and its peers: every (contender, workload, threads) in a process and a directory of
/// its own, interleaved, medians of several repetitions. Progress on standard error, the table on standard output.
#[derive(Parser, Debug)]
#[command(name = "race", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Contenders to run, with commas between them; all unless given
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) only: Vec<Contender>,

    /// Workloads to run, with commas between them; all unless given
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) workloads: Vec<Workload>,

    /// Thread counts, instead of each workload's own; workloads of one thread are not changed
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Vec<u16>,

    /// Seconds that each child is measured for
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,

    /// Repetitions; medians are reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(crate) reps: u16,

    /// One repetition of one second, an eighth of the log to reopen, and a tenth of the rows: to see that all works, not for figures
    #[arg(long, conflicts_with_all = ["seconds", "reps", "log_bytes", "rows", "update_seconds"])]
    pub(crate) quick: bool,

    /// Bytes of rows in the log that `reopen` opens; `recovery` opens a quarter of it
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 36))]
    pub(crate) log_bytes: u64,

    /// Rows of 16 + 100 bytes in the stores that are read from and updated
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(10_000..=1_000_000_000))]
    pub(crate) rows: u64,

    /// Seconds of each window of durable updates, which is to hold several checkpoints
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    pub(crate) update_seconds: f64,

    /// A cgroup of memory made for the race (version 1 or 2), which each child whose memory is less than its rows is put
    /// into, limited to that memory and 64 MiB: instead of telling the kernel to forget their files again and again
    #[arg(long, value_name = "DIR")]
    pub(crate) cgroup: Option<PathBuf>,

    /// Where the stores are made; a disk, not memory. Default: beside this program's build output
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Write every measurement as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the report into a Markdown file, between its two marker comments; what is around them is kept
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,

    /// List contenders and workloads, and run nothing
    #[arg(long)]
    pub(crate) list: bool,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Measures one thing; started by the race itself.
    #[command(hide = true)]
    Child {
        /// A job, as JSON.
        job: String,
    },
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("it must be between 0.1 and 3600".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl Args {
    /// How long each child is measured for, in seconds.
    pub(crate) fn window_s(&self) -> f64 {
        if self.quick { 1.0 } else { self.seconds }
    }

    pub(crate) fn repetitions(&self) -> u16 {
        if self.quick { 1 } else { self.reps }
    }

    pub(crate) fn rows_there(&self) -> u64 {
        if self.quick { self.rows / 10 } else { self.rows }
    }

    pub(crate) fn update_s(&self) -> f64 {
        if self.quick { 3.0 } else { self.update_seconds }
    }

    /// Bytes of rows in the log of a store that is killed.
    pub(crate) fn log_bytes_of(&self, workload: Workload) -> u64 {
        let bytes = if self.quick { self.log_bytes / 8 } else { self.log_bytes };
        if workload == Workload::Recovery { bytes / 4 } else { bytes }
    }
}
