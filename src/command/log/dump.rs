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
use std::ops::Bound;
use std::path::PathBuf;

/// Prints the operations in the log, oldest first.
///
/// One a line, those of one transaction under one LSN. A keyspace whose creation is no longer in the log is shown by its
/// number, as `#7`. `remove-range` shows the first key that is removed, and as its value the first one behind it that is
/// not; none, if all are. `add` shows the number that is added.
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
                key: Value::Null,
                value: self.bytes(Some(found.payload)),
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
            let line = self.operation(op);
            any |= self.line(found, &line, shown)?;
        }
        Ok(any)
    }

    fn operation(&self, op: Op<'_>) -> Line {
        let row = |op, keyspace, key, value| Line {
            op,
            keyspace: self.name(keyspace),
            key: self.bytes(Some(key)),
            value,
        };
        let whole = |op, keyspace: &str| Line {
            op,
            keyspace: keyspace.to_owned(),
            key: Value::Null,
            value: Value::Null,
        };
        match op {
            Op::Put { keyspace, key, value } => row("put", keyspace, key, self.bytes(Some(value))),
            Op::Remove { keyspace, key } => row("remove", keyspace, key, Value::Null),
            Op::Add { keyspace, key, delta } => row("add", keyspace, key, json!(delta)),
            Op::RemoveRange { keyspace, from, to } => {
                // Right behind a key comes the same with a zero byte.
                let behind = |key: &[u8]| [key, &[0]].concat();
                let first = match from {
                    Bound::Unbounded => Vec::new(),
                    Bound::Included(key) => key.to_vec(),
                    Bound::Excluded(key) => behind(key),
                };
                let end = match to {
                    Bound::Unbounded => None,
                    Bound::Included(key) => Some(behind(key)),
                    Bound::Excluded(key) => Some(key.to_vec()),
                };
                row("remove-range", keyspace, &first, self.bytes(end.as_deref()))
            }
            Op::CreateKeyspace { name, .. } => whole("create", name),
            Op::DropKeyspace { name, .. } => whole("drop", name),
            _ => whole("other", ""),
        }
    }

    fn bytes(&self, bytes: Option<&[u8]>) -> Value {
        bytes.map_or(Value::Null, |bytes| json!(self.ui.codec.encode(bytes)))
    }

    fn name(&self, keyspace: u32) -> String {
        self.names.get(&keyspace).cloned().unwrap_or_else(|| format!("#{keyspace}"))
    }

    fn line(&mut self, found: &RecordRef<'_>, line: &Line, shown: bool) -> Outcome<bool> {
        if !shown || self.only.as_ref().is_some_and(|only| *only != line.keyspace) {
            return Ok(false);
        }
        self.list.push(&[
            ("lsn", json!(found.lsn.0)),
            ("time", json!(utc(found.time_us))),
            ("op", json!(line.op)),
            ("keyspace", json!(line.keyspace)),
            ("key", line.key.clone()),
            ("value", line.value.clone()),
        ])?;
        Ok(true)
    }
}

struct Line {
    op: &'static str,
    keyspace: String,
    key: Value,
    value: Value,
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::RECORD => "record",
        Kind::TRANSACTION => "transaction",
        _ => "other",
    }
}
