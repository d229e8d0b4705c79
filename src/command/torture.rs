//! `seawall torture`: the grammar of the command.

use super::{Failure, Outcome, Ui};
use clap::{Args, ValueEnum};
use std::ops::Range;

/// Runs the simulated crash tests. Every choice comes from a seed: the same seed gives the same run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall torture --layer log --seeds 0..10000\n  seawall torture --layer engine --seed 17\n  \
                        seawall torture --layer log --seeds 0..200 --mutation NAME   must fail"
)]
pub(crate) struct TortureArgs {
    /// The seeds A to B, B not included
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "0..1000")]
    pub(crate) seeds: Range<u64>,
    /// One seed; prints its trace
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// What is tested
    #[arg(long, value_enum, default_value = "log")]
    pub(crate) layer: Layer,
    /// Switches one durable step off; the run must then fail
    #[arg(long, value_name = "NAME")]
    pub(crate) mutation: Option<String>,
}

/// What `torture` can test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layer {
    /// The write-ahead log alone
    Log,
    /// The engine above it
    Engine,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |part: &str| part.trim().parse::<u64>().map_err(|_| format!("`{part}` is no number"));
    let (start, end) = text.split_once("..").ok_or("seeds are written A..B")?;
    let range = number(start)?..number(end)?;
    if range.is_empty() { Err("A must be below B".to_owned()) } else { Ok(range) }
}

pub(crate) fn run(_ui: &Ui, args: TortureArgs) -> Outcome {
    Err(Failure::error(format!("no torture of the {:?} layer in this build", args.layer)))
}
