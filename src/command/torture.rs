//! `seawall torture`: the grammar of the command.

use super::output::Format;
use super::ui::Unit;
use super::{Failure, Outcome, Ui};
use clap::{Args, ValueEnum};
use seawall::torture::{self, SeedTest};
use serde_json::json;
use std::ops::Range;

/// Runs the simulated crash tests: every choice from a seed.
///
/// The same seed gives the same run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall torture --layer log --seeds 0..10000\n  seawall torture --layer engine --seed 17\n  \
                        seawall torture --layer txn --seeds 0..10000\n  \
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
    /// Atomic commit across stores, with a network between them
    Txn,
    /// Log shipping: a primary, replicas, promotions, with a network between them
    Replication,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |part: &str| part.trim().parse::<u64>().map_err(|_| format!("`{part}` is no number"));
    let (start, end) = text.split_once("..").ok_or("seeds are written A..B")?;
    let range = number(start)?..number(end)?;
    if range.is_empty() { Err("A must be below B".to_owned()) } else { Ok(range) }
}

impl Layer {
    fn test(self) -> SeedTest {
        match self {
            Layer::Log => torture::log::run,
            Layer::Engine => torture::engine::run,
            Layer::Txn => torture::txn::run,
            Layer::Replication => torture::replication::run,
        }
    }

    fn mutations(self) -> Vec<&'static str> {
        match self {
            Layer::Log => torture::log::mutations(),
            Layer::Engine => torture::engine::mutations(),
            Layer::Txn => torture::txn::mutations(),
            Layer::Replication => torture::replication::mutations(),
        }
    }

    fn required(self) -> Vec<String> {
        match self {
            Layer::Log => torture::log::required(),
            Layer::Engine => torture::engine::required(),
            Layer::Txn => torture::txn::required(),
            Layer::Replication => torture::replication::required(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Layer::Log => "log",
            Layer::Engine => "engine",
            Layer::Txn => "txn",
            Layer::Replication => "replication",
        }
    }
}

/// From this many seeds on, every fault, recovery row and stage must have been met.
const SEEDS_FOR_COVERAGE: u64 = 3000;

pub(crate) fn run(ui: &Ui, args: TortureArgs) -> Outcome {
    if let Some(name) = &args.mutation
        && !args.layer.mutations().contains(&name.as_str())
    {
        let names = args.layer.mutations().join(", ");
        return Err(Failure::usage(format!("no mutation `{name}`; this layer has: {names}")));
    }
    // A simulated panic is a finding, reported with its seed; its backtrace on the terminal is not.
    std::panic::set_hook(Box::new(|_| {}));
    match args.seed {
        Some(seed) => one(ui, &args, seed),
        None => many(ui, &args),
    }
}

fn one(ui: &Ui, args: &TortureArgs, seed: u64) -> Outcome {
    torture::set_tracing(true);
    let report = torture::run_seed(args.layer.test(), seed, args.mutation.as_deref());
    match report {
        Ok(report) => {
            for line in &report.trace {
                ui.say(line);
            }
            let mut out = ui.out();
            out.object(&[
                ("layer", json!(args.layer.name())),
                ("seed", json!(seed)),
                ("trace_hash", json!(format!("{:016x}", report.trace_hash))),
                ("counts", json!(report.counts)),
            ])?;
            out.finish()
        }
        Err(what) => Err(Failure::error(format!("seed {seed} failed:\n{what}"))),
    }
}

fn many(ui: &Ui, args: &TortureArgs) -> Outcome {
    let start = std::time::Instant::now();
    let seeds = args.seeds.end - args.seeds.start;
    let bar = ui.progress(Some(seeds), Unit::Seeds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mutation = args.mutation.as_deref();
    let summary =
        torture::run(args.layer.test(), args.seeds.clone(), mutation, threads, mutation.is_some(), &|done| {
            bar.set_position(done);
        });
    bar.finish_and_clear();
    let unmet: Vec<String> = if mutation.is_none() && seeds >= SEEDS_FOR_COVERAGE {
        args.layer.required().into_iter().filter(|name| !summary.counts.contains_key(name)).collect()
    } else {
        Vec::new()
    };
    let mut out = ui.out();
    let mut cells = vec![
        ("layer", json!(args.layer.name())),
        ("seeds", json!(summary.seeds)),
        ("failed", json!(summary.failures.len())),
        ("seconds", json!(start.elapsed().as_secs_f64())),
        ("never_met", json!(unmet)),
    ];
    if ui.format != Format::Table {
        cells.push(("counts", json!(summary.counts)));
    }
    out.object(&cells)?;
    if ui.format == Format::Table {
        for (name, n) in &summary.counts {
            out.raw(format!("{n:>12}  {name}\n").as_bytes())?;
        }
    }
    out.finish()?;
    if let Some((seed, what)) = summary.failures.first() {
        let layer = args.layer.name();
        let with = mutation.map(|name| format!(" --mutation {name}")).unwrap_or_default();
        let replay = format!("replay it: seawall torture --layer {layer} --seed {seed}{with}");
        for (seed, what) in summary.failures.iter().skip(1) {
            ui.say(format!("seed {seed} failed too: {what}"));
        }
        return Err(Failure::error(format!("seed {seed}: {what}")).hint(replay));
    }
    if unmet.is_empty() { Ok(()) } else { Err(Failure::error(format!("never met: {}", unmet.join(", ")))) }
}
