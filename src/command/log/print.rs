//! How records of the log are printed, by `dump` and by `follow`.

use crate::command::output::{List, Style};
use crate::command::time::utc;
use crate::command::{Failure, Outcome, Ui};
use seawall::wal::Lsn;
use seawall::wal::record::Kind;
use seawall_engine::record::{self, Op};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Bound;

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
        let branch = |op, xid: &[u8]| Line { key: self.bytes(Some(xid)), ..whole(op, "") };
        match op {
            Op::Put { keyspace, key, value } => row("put", keyspace, key, self.bytes(Some(value))),
            Op::PutLarge { keyspace, key, len, pointers } => {
                row("put-large", keyspace, key, json!({ "bytes": len, "pieces": pointers.len() / 32 }))
            }
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
            Op::Prepare { xid, .. } => branch("prepare", xid),
            Op::Outcome { xid, is_heuristic: false, .. } => branch("outcome", xid),
            Op::Outcome { xid, .. } => branch("heuristic-outcome", xid),
            _ => whole("other", ""),
        }
    }

    fn bytes(&self, bytes: Option<&[u8]>) -> Value {
        bytes.map_or(Value::Null, |bytes| json!(self.ui.codec.encode(bytes)))
    }

    fn name(&self, keyspace: u32) -> String {
        self.names.get(&keyspace).cloned().unwrap_or_else(|| format!("#{keyspace}"))
    }

    fn line(&mut self, found: &Found<'_>, line: &Line, shown: bool) -> Outcome<bool> {
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
        Kind::EPOCH => "epoch",
        _ => "other",
    }
}
