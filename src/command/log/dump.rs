//! `seawall log dump`.

use super::directory;
use crate::command::output::{List, Style};
use crate::command::time::utc;
use crate::command::{Failure, Outcome, Ui};
use clap::Args;
use seawall::wal::record::Kind;
use seawall::wal::{Lsn, RecordRef, WalReader};
use seawall_engine::record::{self, Op};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Prints the operations in the log, oldest first: one a line, those of one transaction under one LSN.
///
/// A keyspace whose creation is no longer in the log is shown by its number, as `#7`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  seawall log dump db -n 20\n  seawall log dump db -k users -o jsonl\n  \
                        seawall log dump db --start 67108864 --end 67200000")]
pub(super) struct DumpArgs {
    /// The store's directory, or that of a log used alone
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// Begin at this LSN
    #[arg(long, default_value_t = 0, value_name = "LSN")]
    start: u64,
    /// End before this LSN
    #[arg(long, value_name = "LSN")]
    end: Option<u64>,
    /// At most so many records
    #[arg(short = 'n', long, value_name = "N")]
    records: Option<u64>,
    /// Only operations on this keyspace: a name, or `#` and its number
    #[arg(short, long, value_name = "NAME")]
    keyspace: Option<String>,
}

pub(super) fn run(ui: &Ui, args: DumpArgs) -> Outcome {
    let log = directory(&args.db)?;
    // From the log's beginning: the names of keyspaces are in it.
    let mut reader = WalReader::open(&log, Lsn::ZERO)?;
    let list = ui.out().list(Style::Columns(&[12, 27, 7, 10]));
    let mut dump = Dump { ui, list, names: BTreeMap::new(), only: args.keyspace };
    let mut left = args.records.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(found) = reader.next_record()? else { break };
        if args.end.is_some_and(|end| found.lsn >= Lsn(end)) {
            break;
        }
        let shown = found.lsn >= Lsn(args.start);
        let matched = dump.record(&found, shown)?;
        left -= u64::from(matched);
    }
    dump.list.finish()
}

struct Dump<'a> {
    ui: &'a Ui,
    list: List,
    names: BTreeMap<u32, String>,
    only: Option<String>,
}

impl Dump<'_> {
    /// Prints a record's operations if `shown`. True if any was printed.
    fn record(&mut self, found: &RecordRef<'_>, shown: bool) -> Outcome<bool> {
        if found.kind != Kind::TRANSACTION {
            let other = Line {
                op: kind_name(found.kind),
                keyspace: String::new(),
                key: None,
                value: Some(found.payload),
            };
            return self.line(found, &other, shown);
        }
        let malformed = |why| {
            Failure::error(format!("LSN {}: {why}", found.lsn))
                .hint("`seawall log verify` checks all records")
        };
        let mut any = false;
        for op in record::decode(found.payload).map_err(malformed)? {
            if let Op::CreateKeyspace { keyspace, name, .. } = op {
                self.names.insert(keyspace, name.to_owned());
            }
            let line = match op {
                Op::Put { keyspace, key, value } => {
                    Line { op: "put", keyspace: self.name(keyspace), key: Some(key), value: Some(value) }
                }
                Op::Remove { keyspace, key } => {
                    Line { op: "remove", keyspace: self.name(keyspace), key: Some(key), value: None }
                }
                Op::CreateKeyspace { name, .. } => {
                    Line { op: "create", keyspace: name.to_owned(), key: None, value: None }
                }
                Op::DropKeyspace { name, .. } => {
                    Line { op: "drop", keyspace: name.to_owned(), key: None, value: None }
                }
                _ => Line { op: "other", keyspace: String::new(), key: None, value: None },
            };
            any |= self.line(found, &line, shown)?;
        }
        Ok(any)
    }

    fn name(&self, keyspace: u32) -> String {
        self.names.get(&keyspace).cloned().unwrap_or_else(|| format!("#{keyspace}"))
    }

    fn line(&mut self, found: &RecordRef<'_>, line: &Line<'_>, shown: bool) -> Outcome<bool> {
        if !shown || self.only.as_ref().is_some_and(|only| *only != line.keyspace) {
            return Ok(false);
        }
        let text =
            |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| json!(self.ui.codec.encode(bytes)));
        self.list.push(&[
            ("lsn", json!(found.lsn.0)),
            ("time", json!(utc(found.time_us))),
            ("op", json!(line.op)),
            ("keyspace", json!(line.keyspace)),
            ("key", text(line.key)),
            ("value", text(line.value)),
        ])?;
        Ok(true)
    }
}

struct Line<'a> {
    op: &'static str,
    keyspace: String,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::RECORD => "record",
        Kind::TRANSACTION => "transaction",
        _ => "other",
    }
}
