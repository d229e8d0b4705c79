//! seawall's log alone.

use super::{Setup, Store, Writer, record};
use crate::Result;
use crate::condition::{Condition, SMALL_SEGMENT_BYTES};
use crate::drive::{self, Measured, Plan};
use crate::rows::{Row, mix};
use crate::seen::Seen;
use crate::workload::Workload;
use seawall::Durability;
use seawall::wal::{Disk, Lsn, Wal};
use std::sync::Arc;

pub(super) const MODE: &str = "`Wal::commit`, `Wal::append_batch` and `sync` for batches, `Wal::commit_pipelined` for tickets; defaults; what is \
     older than 128 MiB is given back all the time (`truncate_before`), so that its files are used again, and the log \
     is filled once before the window";

/// What a tidied log keeps.
const KEPT_BYTES: u64 = 128 << 20;
/// Written before the window, so that what the window writes goes into files used before: a log's steady state.
const FILL_BYTES: usize = 384 << 20;

struct Log {
    wal: Wal,
}

struct Appender<'a> {
    wal: &'a Wal,
    buf: Vec<u8>,
}

pub(super) fn open(setup: &Setup<'_>, disk: Option<Arc<dyn Disk>>) -> Result<Box<dyn Store>> {
    let mut options = Wal::options();
    if setup.condition == Condition::SmallSegments {
        options = options.segment_bytes(SMALL_SEGMENT_BYTES);
    }
    if let Some(disk) = disk {
        options = options.disk(disk);
    }
    let log = Log { wal: options.open(setup.dir.join("log"))? };
    let record: Vec<u8> = (0..64u64 << 10).map(|i| mix(i) as u8).collect();
    for _ in 0..FILL_BYTES / record.len() {
        log.wal.commit_with(&record, Durability::Written)?;
        log.tidy()?;
    }
    log.wal.sync()?;
    Ok(Box::new(log))
}

impl Store for Log {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Appender { wal: &self.wal, buf: Vec::new() }))
    }

    fn tidy(&self) -> Result<()> {
        let keep_from = self.wal.durable_lsn().0.saturating_sub(KEPT_BYTES);
        if keep_from > self.wal.first_lsn().0 {
            self.wal.truncate_before(Lsn(keep_from))?;
        }
        Ok(())
    }

    fn seen(&self) -> Seen {
        Seen { rotations: Some(self.wal.stats().rotations), ..Seen::default() }
    }

    fn drive(&self, plan: &Plan) -> Result<Measured> {
        if matches!(plan.workload, Workload::TicketsLog128 | Workload::TicketsLog4k) {
            let mut buf = Vec::new();
            let issue = |rows: &[Row<'_>]| {
                record(&rows[0], &mut buf);
                Ok(self.wal.commit_pipelined(&buf)?)
            };
            return drive::tickets(self, plan, issue, |ticket| Ok(ticket.wait().map(drop)?));
        }
        drive::threads(self, plan)
    }
}

impl Writer for Appender<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        if let [row] = rows {
            record(row, &mut self.buf);
            self.wal.commit(&self.buf)?;
            return Ok(());
        }
        let records: Vec<Vec<u8>> = rows.iter().map(|row| [&row.key, row.value].concat()).collect();
        self.wal.append_batch(&records)?;
        self.wal.sync()?;
        Ok(())
    }
}
