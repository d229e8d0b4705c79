//! How records of the log are printed, by `dump` and by `follow`.

use crate::command::output::{List, Style};
use crate::command::time::utc;
use crate::command::{Failure, Outcome, Ui};
use seawall::wal::Lsn;
use seawall::wal::record::Kind;
use seawall_engine::record::{self, Op};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A record of the log.
pub(super) struct Found<'a> {
    pub(super) lsn: Lsn,
    pub(super) kind: Kind,
    pub(super) time_us: u64,
    pub(super) payload: &'a [u8],
}

/// Prints the operations of records, one a line.
pub(super) struct Printer<'a> {
    ui: &'a Ui,
    list: List,
    /// Of the keyspaces that were created in what was read.
    names: BTreeMap<u32, String>,
    only: Option<String>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(ui: &'a Ui, only: Option<String>) -> Printer<'a> {
        let list = ui.out().list(Style::Columns(&[12, 27, 7, 10]));
        Printer { ui, list, names: BTreeMap::new(), only }
    }

    /// Hands what was printed to whoever reads it. Fails if nobody does any more.
    pub(super) fn flush(&mut self) -> Outcome {
        self.list.flush()
    }

    pub(super) fn finish(self) -> Outcome {
        self.list.finish()
    }

    /// Prints a record's operations if `shown`. True if any was printed.
    pub(super) fn record(&mut self, found: &Found<'_>, shown: bool) -> Outcome<bool> {
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

    fn line(&mut self, found: &Found<'_>, line: &Line<'_>, shown: bool) -> Outcome<bool> {
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
