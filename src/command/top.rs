//! `seawall top`.
//!
//! What a store does is in its files: the log says what commits, the superblocks what was folded. So nothing is asked of the
//! process that has it open, and nothing is locked.

use super::log::directory;
use super::output::{Format, List, Style};
use super::{Failure, Outcome, Ui, store};
use clap::Args;
use seawall::wal::disk::{Disk, OsDisk};
use seawall::wal::{Error as LogError, Lsn, Next, WalReader, anchor, record::Kind};
use seawall_engine::tree::Superblock;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "serve")]
mod elsewhere;

/// How long to sleep before looking whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(100);

/// How many lines of a table stand under one heading.
const LINES_A_HEADING: u64 = 20;

/// What a store is doing: a line every second.
///
/// Works beside the process that has the store open, without a word with it, and changes nothing: commits are read from the
/// log, checkpoints from the data file. What is not durable yet does not show. Ends with Ctrl-C.
///
/// With --of it is asked of one that runs, as `seawall status --of` is: then a line for the node itself, and one for each of its
/// links to replicas, or to the primary.
#[derive(Debug, Args)]
#[command(
    after_help = "Columns: the process that has the store open; commits and bytes of them a second; the durable end of the \
                  log; bytes of it that recovery would read, and that are kept; checkpoints so far; bytes on disk and in \
                  use in the data file; rows at the last checkpoint.\n\nExamples:\n  seawall top db\n  seawall top db \
                  --interval 5s -n 12 -o jsonl\n  seawall top --of 127.0.0.1:7410 --plain-text"
)]
pub(crate) struct TopArgs {
    /// The store's directory
    #[cfg_attr(
        feature = "serve",
        arg(value_name = "DB", required_unless_present = "of", conflicts_with = "of")
    )]
    #[cfg_attr(not(feature = "serve"), arg(value_name = "DB", required = true))]
    db: Option<PathBuf>,
    /// Time between lines, as 500ms or 5s
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = interval)]
    interval: Duration,
    /// End after so many lines; with --of, after the lines of so many answers
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u64>,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    elsewhere: super::elsewhere::Elsewhere,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = super::measure::units::duration(text)?;
    if time < Duration::from_millis(10) {
        return Err("at least 10ms".to_owned());
    }
    Ok(time)
}

pub(crate) fn run(ui: &Ui, args: TopArgs) -> Outcome {
    #[cfg(feature = "serve")]
    if let Some(asked) = args.elsewhere.asked()? {
        ui.catch_interrupts()?;
        return elsewhere::run(ui, &asked, args.interval, args.lines.unwrap_or(u64::MAX));
    }
    let db = args.db.unwrap_or_default();
    store::require(&db)?;
    ui.catch_interrupts()?;
    let mut watch = Watch::begin(&db)?;
    let style = Style::Columns(&[8, 10, 12, 14, 14, 12, 11, 12, 12, 12]);
    let mut list = ui.out().list(style);
    for line in 0..args.lines.unwrap_or(u64::MAX) {
        if line > 0 && line % LINES_A_HEADING == 0 && ui.format == Format::Table {
            list = next_page(list, ui, style)?;
        }
        watch.count(args.interval, || ui.is_interrupted())?;
        if ui.is_interrupted() {
            break;
        }
        list.push(&watch.line()?)?;
        list.flush()?;
    }
    list.finish()?;
    ui.check_interrupt()
}

/// The heading again, for it has left the screen.
fn next_page(list: List, ui: &Ui, style: Style) -> Outcome<List> {
    list.finish()?;
    Ok(ui.out().list(style))
}

/// A store that is being looked at.
struct Watch {
    db: PathBuf,
    log: PathBuf,
    disk: Arc<OsDisk>,
    reader: WalReader,
    since: Instant,
    took: Duration,
    commits: u64,
    bytes: u64,
    /// Log that was reclaimed before it was read.
    missed: u64,
}

impl Watch {
    fn begin(db: &Path) -> Outcome<Watch> {
        let log = directory(db)?;
        let reader = at_the_end(&log)?;
        Ok(Watch {
            db: db.to_owned(),
            log,
            disk: OsDisk::new(),
            reader,
            since: Instant::now(),
            took: Duration::ZERO,
            commits: 0,
            bytes: 0,
            missed: 0,
        })
    }

    /// Counts what becomes durable within a time.
    fn count(&mut self, interval: Duration, is_over: impl Fn() -> bool) -> Outcome {
        (self.commits, self.bytes, self.missed) = (0, 0, 0);
        loop {
            self.took = self.since.elapsed();
            if self.took >= interval || is_over() {
                break;
            }
            match self.reader.next_timeout((interval - self.took).min(LOOK)) {
                Ok(Next::Record(found)) => {
                    self.commits += u64::from(found.kind == Kind::TRANSACTION);
                    self.bytes += found.payload.len() as u64;
                }
                Ok(_) => {}
                // Too slow for this writer, or the log was cut: on from where its end is now.
                Err(LogError::Reclaimed { .. } | LogError::Truncated { .. }) => {
                    let lost = self.reader.limit();
                    self.reader = at_the_end(&self.log)?;
                    self.missed += self.reader.limit().0.saturating_sub(lost.0);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.since = Instant::now();
        Ok(())
    }

    fn line(&self) -> Outcome<[(&'static str, Value); 10]> {
        let data = self.db.join("data");
        let superblock = superblock(&data)?;
        let end = self.reader.limit();
        let seconds = self.took.as_secs_f64();
        let a_second = |count: u64| json!((count as f64 / seconds).round() as u64);
        // What was missed is counted among the bytes: with its framing.
        let bytes = self.bytes + self.missed;
        let checkpoint = superblock.as_ref().map(|found| found.checkpoint_lsn);
        let disk_bytes = self.disk.allocated_bytes(&data).ok();
        Ok([
            ("pid", json!(self.disk.lock_holder(&data))),
            ("commits_per_s", if self.missed > 0 { Value::Null } else { a_second(self.commits) }),
            ("bytes_per_s", a_second(bytes)),
            ("durable_lsn", json!(end.0)),
            ("log_to_replay", json!(checkpoint.map(|lsn| end.0.saturating_sub(lsn.0)))),
            ("log_bytes", json!(log_bytes(&self.log)?)),
            ("checkpoints", json!(superblock.as_ref().map(|found| found.generation))),
            ("disk_bytes", json!(disk_bytes)),
            ("live_bytes", json!(superblock.as_ref().map(|found| found.live_bytes))),
            ("rows", json!(superblock.as_ref().map(|found| found.rows))),
        ])
    }
}

/// A reader that stands where the log's durable end is.
fn at_the_end(log: &Path) -> Outcome<WalReader> {
    let end = WalReader::follow(log, Lsn::ZERO)?.limit();
    match WalReader::follow(log, end) {
        // Reclaimed between the two calls.
        Err(LogError::Reclaimed { first, .. }) => Ok(WalReader::follow(log, first)?),
        found => Ok(found?),
    }
}

/// The newer of the two superblocks. None while both of them are being written, or where this build cannot read them.
fn superblock(data: &Path) -> Outcome<Option<Superblock>> {
    let mut head = Vec::new();
    let read = std::fs::File::open(data).and_then(|file| file.take(8192).read_to_end(&mut head));
    read.map_err(|error| Failure::file("reading", data, &error))?;
    Ok(Superblock::newest(&head))
}

/// Bytes of the log's files. One may go while it is looked at.
fn log_bytes(log: &Path) -> Outcome<u64> {
    let entries = std::fs::read_dir(log).map_err(|error| Failure::file("reading", log, &error))?;
    let lengths = entries.flatten().filter(|entry| entry.file_name() != anchor::FILE_NAME);
    Ok(lengths.flat_map(|entry| entry.metadata()).map(|found| found.len()).sum())
}
