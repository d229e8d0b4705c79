//! `seawall log stats`.

use super::directory;
use crate::command::output::{Format, Style};
use crate::command::{Failure, Outcome, Ui};
use clap::Args;
use seawall::wal::anchor::{self, Anchor, Slot};
use seawall::wal::segment::{self, Geometry, Header, Parsed};
use seawall::wal::{Lsn, WalReader};
use seawall::{Db, Error};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The state of every log file, and who holds the log back.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  seawall log stats db -o json")]
pub(super) struct StatsArgs {
    /// The store's directory, or that of a log used alone
    #[arg(value_name = "DB")]
    db: PathBuf,
}

pub(super) fn run(ui: &Ui, args: StatsArgs) -> Outcome {
    let log = directory(&args.db)?;
    let anchor = read_anchor(&log)?;
    let mut records = BTreeMap::<u64, (u64, u64)>::new();
    let geometry = Geometry { segment_bytes: anchor.segment_bytes.max(1) };
    let mut reader = WalReader::open(&log, Lsn::ZERO)?;
    let mut end = anchor.first;
    while let Some(found) = reader.next_record()? {
        let (count, bytes) = records.entry(geometry.number(found.lsn)).or_default();
        *count += 1;
        *bytes += found.payload.len() as u64;
        end = found.end;
    }
    let files = segments(&log, &records)?;
    let retained = retainers(&args.db)?;
    let summary = [
        ("log", json!(log.display().to_string())),
        ("segment_bytes", json!(anchor.segment_bytes)),
        ("first_lsn", json!(anchor.first.0)),
        ("end_lsn", json!(end.0)),
        ("epoch", json!(anchor.epoch)),
        ("closed_cleanly", json!(anchor.clean)),
        ("held_by", json!(retained)),
    ];
    let mut out = ui.out();
    if ui.format == Format::Table {
        out.object(&summary)?;
        out.raw(b"\n")?;
        let mut list = out.list(Style::Columns(&[20, 10, 12, 12, 9]));
        for file in &files {
            list.push(&file.cells())?;
        }
        return list.finish();
    }
    let mut object: serde_json::Map<String, Value> =
        summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let files = files
        .iter()
        .map(|file| file.cells().into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    object.insert("segments".to_owned(), Value::Array(files.map(Value::Object).collect()));
    out.value(&object)?;
    out.finish()
}

pub(in crate::command) fn read_anchor(log: &Path) -> Outcome<Anchor> {
    let path = log.join(anchor::FILE_NAME);
    let bytes = std::fs::read(&path).map_err(|error| Failure::file("reading", &path, &error))?;
    match Anchor::choose(&bytes) {
        Slot::Valid(anchor) => Ok(anchor),
        Slot::Newer(found) => {
            let supported = segment::FORMAT_VERSION..=segment::FORMAT_VERSION;
            Err(seawall::wal::Error::FormatVersion { found, supported }.into())
        }
        Slot::None => {
            let what = "neither of its two slots is whole".to_owned();
            Err(seawall::wal::Error::Corruption { file: path, offset: 0, lsn: None, what }.into())
        }
    }
}

struct LogFile {
    name: String,
    state: &'static str,
    first_lsn: Option<u64>,
    disk_bytes: u64,
    records: u64,
    payload_bytes: u64,
}

impl LogFile {
    fn cells(&self) -> [(&'static str, Value); 6] {
        [
            ("file", json!(self.name)),
            ("state", json!(self.state)),
            ("first_lsn", json!(self.first_lsn)),
            ("disk_bytes", json!(self.disk_bytes)),
            ("records", json!(self.records)),
            ("payload_bytes", json!(self.payload_bytes)),
        ]
    }
}

/// All files of the log but its anchor: segments in use, and those that wait for their turn.
fn segments(log: &Path, records: &BTreeMap<u64, (u64, u64)>) -> Outcome<Vec<LogFile>> {
    let failed = |error: std::io::Error| Failure::file("reading", log, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(log).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == anchor::FILE_NAME {
            continue;
        }
        let disk_bytes = entry.metadata().map_err(failed)?.len();
        let number = segment::number_of(&name);
        let header = read_header(&entry.path())?;
        let (state, first_lsn) = match (number, header) {
            (None, _) => ("spare", None),
            (Some(number), Parsed::Header(header, _)) if header.number == number => {
                ("in use", Some(Geometry { segment_bytes: header.segment_bytes }.start(number).0))
            }
            (Some(_), Parsed::Newer(_)) => ("newer", None),
            (Some(_), _) => ("not begun", None),
        };
        let (records, payload_bytes) =
            number.and_then(|number| records.get(&number)).copied().unwrap_or_default();
        files.push(LogFile { name, state, first_lsn, disk_bytes, records, payload_bytes });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn read_header(path: &Path) -> Outcome<Parsed> {
    let mut block = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut block));
    read.map_err(|error| Failure::file("reading", path, &error))?;
    Ok(Header::parse(&block))
}

/// Who keeps the log of the store, in words; empty while another process has it open, and for a log used alone.
fn retainers(dir: &Path) -> Outcome<Vec<String>> {
    if !dir.join("data").exists() {
        return Ok(Vec::new());
    }
    match Db::builder(dir).create(false).read_only(true).open() {
        Ok(db) => {
            let holders = db.stats().log_retained;
            Ok(holders.iter().map(|holder| format!("{} from LSN {}", holder.who, holder.lsn)).collect())
        }
        Err(Error::Locked { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
