//! `seawall load`.
//!
//! Rows are committed in batches, each one transaction: after a failure, a kill or Ctrl-C there are the batches that
//! were acknowledged, perhaps the one under way, whole, and nothing of any other.

use super::compression::CompressionArg;
use super::escape::Codec;
use super::rows::{self, FileFormat, Next, Shape, Source};
use super::store::{self, Place};
use super::ui::Unit;
use super::{Failure, Outcome, Ui};
use clap::Args;
use indicatif::ProgressBar;
use seawall::{Db, Keyspace, WriteBatch};
use serde_json::json;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A batch is committed early once its keys and values have so many bytes: a transaction lives in memory.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// So many bad lines are named one by one before they are only counted.
const BAD_LINES_NAMED: u64 = 20;

/// Reads rows from a file (JSONL, CSV, TSV) into a keyspace.
///
/// They are read in batches; each batch is one transaction.
#[derive(Debug, Args)]
#[command(after_help = "\
What is read:
  JSONL     {\"key\": \"…\", \"value\": \"…\"} a line, both strings escaped as `dump` writes them; with --key-field
            that field is the key, and the value is --value-field or the whole line
  CSV, TSV  with a heading; the first column is the key (--key-column), the value is --value-column or the other
            columns as a JSON object. Columns `key,value` alone are taken for `dump`'s and read escaped (not with
            --raw)

A bad line ends the load with its number and exit code 1: nothing of its batch is left, earlier batches stay.
A later row with the same key replaces an earlier one.

Examples:
  seawall load db rows.jsonl
  seawall load db people.csv -k people --key-column id
  zcat events.jsonl.gz | seawall load db - -k events --format jsonl --key-field id --skip-bad")]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    place: Place,
    /// The file; `-` for standard input
    file: PathBuf,
    /// The file's format, if its name does not say it
    #[arg(short, long, value_enum)]
    format: Option<FileFormat>,
    #[command(flatten)]
    compression: CompressionArg,
    /// Rows in one transaction
    #[arg(long, default_value_t = 10_000, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: u64,
    /// Count bad lines and go on, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    /// JSONL: the field that is the key
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,
    /// JSONL: the field that is the value
    #[arg(long, value_name = "NAME")]
    value_field: Option<String>,
    /// CSV, TSV: the column that is the key
    #[arg(long, value_name = "NAME", conflicts_with_all = ["key_field", "value_field"])]
    key_column: Option<String>,
    /// CSV, TSV: the column that is the value
    #[arg(long, value_name = "NAME", conflicts_with_all = ["key_field", "value_field"])]
    value_column: Option<String>,
    /// Take keys and values as they stand: a backslash is a backslash
    #[arg(long, conflicts_with = "hex")]
    raw: bool,
}

pub(crate) fn run(ui: &Ui, args: LoadArgs) -> Outcome {
    store::require(&args.place.db)?;
    let (input, bytes) = open(&args.file)?;
    let shape = shape(ui, &args)?;
    let bar = ui.progress(bytes, Unit::Bytes);
    let mut source =
        rows::source(Box::new(BufReader::with_capacity(256 << 10, bar.wrap_read(input))), shape)?;
    ui.catch_interrupts()?;

    let db = store::open_to_write(ui, &args.place.db)?;
    let keyspace = args.compression.keyspace(&db, &args.place.keyspace)?;
    let mut load = Load::new(ui, db, keyspace, &args, bar);
    let outcome = load.all(&mut *source);
    load.bar.finish_and_clear();
    let committed = load.committed;
    if let Err(failure) = outcome {
        let kept = match committed {
            0 => "nothing was committed".to_owned(),
            rows => format!("the {rows} rows of earlier batches are committed, nothing after them"),
        };
        let failure = Failure { message: format!("{}; {kept}", failure.message), ..failure };
        // What the failure was matters more than how the closing went.
        let _ = load.db.close();
        return Err(failure);
    }
    load.finish()
}

fn shape(ui: &Ui, args: &LoadArgs) -> Outcome<Shape> {
    let format = match args.format.or_else(|| FileFormat::of(&args.file)) {
        Some(format) => format,
        None if args.file == Path::new("-") => FileFormat::Jsonl,
        None => {
            let message = format!("what is the format of {}?", args.file.display());
            return Err(Failure::usage(message).hint("say --format jsonl, csv or tsv"));
        }
    };
    let (key, value, wrong) = match format {
        FileFormat::Jsonl => {
            (&args.key_field, &args.value_field, args.key_column.is_some() || args.value_column.is_some())
        }
        _ => (&args.key_column, &args.value_column, args.key_field.is_some() || args.value_field.is_some()),
    };
    if wrong {
        return Err(Failure::usage(
            "--key-field and --value-field are for JSONL, --key-column and --value-column for CSV and TSV",
        ));
    }
    let codec = if args.raw { Codec::Raw } else { ui.codec };
    Ok(Shape { format, key: key.clone(), value: value.clone(), codec })
}

fn open(file: &Path) -> Outcome<(Box<dyn std::io::Read>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let opened = File::open(file).map_err(|error| Failure::file("opening", file, &error))?;
    let found = opened.metadata().map_err(|error| Failure::file("looking at", file, &error))?;
    if found.is_dir() {
        return Err(Failure::usage(format!("{} is a directory; give a file", file.display())));
    }
    // A pipe's length is not known.
    Ok((Box::new(opened), found.is_file().then_some(found.len())))
}

struct Load<'a> {
    ui: &'a Ui,
    db: Db,
    keyspace: Keyspace,
    batch_rows: u64,
    skip_bad: bool,
    bar: ProgressBar,
    start: Instant,
    batch: WriteBatch,
    pending: u64,
    pending_bytes: usize,
    committed: u64,
    committed_bytes: u64,
    batches: u64,
    skipped: u64,
}

impl<'a> Load<'a> {
    fn new(ui: &'a Ui, db: Db, keyspace: Keyspace, args: &LoadArgs, bar: ProgressBar) -> Load<'a> {
        Load {
            ui,
            db,
            keyspace,
            batch_rows: args.batch,
            skip_bad: args.skip_bad,
            bar,
            start: Instant::now(),
            batch: WriteBatch::new(),
            pending: 0,
            pending_bytes: 0,
            committed: 0,
            committed_bytes: 0,
            batches: 0,
            skipped: 0,
        }
    }

    fn all(&mut self, source: &mut dyn Source) -> Outcome {
        loop {
            self.ui.check_interrupt()?;
            match source.next()? {
                Next::End => return self.commit(),
                Next::Row { key, value } => {
                    self.batch.insert(&self.keyspace, &key, &value);
                    self.pending += 1;
                    self.pending_bytes += key.len() + value.len();
                    if self.pending >= self.batch_rows || self.pending_bytes >= BATCH_BYTES_MAX {
                        self.commit()?;
                    }
                }
                Next::Bad { line, why } if self.skip_bad => {
                    self.skipped += 1;
                    if self.skipped <= BAD_LINES_NAMED {
                        self.bar.suspend(|| self.ui.say(format!("line {line} skipped: {why}")));
                    }
                }
                Next::Bad { line, why } => {
                    let hint = "--skip-bad counts bad lines instead of stopping";
                    return Err(Failure::error(format!("line {line}: {why}")).hint(hint));
                }
            }
        }
    }

    fn commit(&mut self) -> Outcome {
        if self.pending == 0 {
            return Ok(());
        }
        self.db.write(std::mem::take(&mut self.batch))?;
        self.committed += std::mem::take(&mut self.pending);
        self.committed_bytes += std::mem::take(&mut self.pending_bytes) as u64;
        self.batches += 1;
        self.bar.set_message(format!("{} rows, {:.0} rows/s", self.committed, self.rows_per_s()));
        Ok(())
    }

    fn rows_per_s(&self) -> f64 {
        self.committed as f64 / self.start.elapsed().as_secs_f64().max(1e-6)
    }

    fn finish(self) -> Outcome {
        let (seconds, rows_per_s) = (self.start.elapsed().as_secs_f64(), self.rows_per_s());
        self.db.close()?;
        let mut out = self.ui.out();
        out.object(&[
            ("rows", json!(self.committed)),
            ("batches", json!(self.batches)),
            ("skipped", json!(self.skipped)),
            ("bytes", json!(self.committed_bytes)),
            ("seconds", json!((seconds * 1e3).round() / 1e3)),
            ("rows_per_s", json!(rows_per_s.round())),
        ])?;
        out.finish()
    }
}
