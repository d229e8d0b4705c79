//! okaywal: a log alone.

use super::{Setup, Store, Writer, driven_by_threads, record};
use crate::Result;
use crate::rows::Row;
use okaywal::{Configuration, LogVoid, WriteAheadLog};

pub(super) const MODE: &str = "log only; an entry for each commit, a chunk for each row; segments of 64 MiB \
     preallocated, checkpointed (to nothing) at 48 MiB";

struct Okaywal(WriteAheadLog);

struct Committer<'a> {
    log: &'a WriteAheadLog,
    buf: Vec<u8>,
}

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let log = Configuration::default_for(setup.dir.join("okaywal"))
        .preallocate_bytes(64 << 20)
        .checkpoint_after_bytes(48 << 20)
        .open(LogVoid)?;
    Ok(Box::new(Okaywal(log)))
}

impl Store for Okaywal {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer { log: &self.0, buf: Vec::new() }))
    }

    driven_by_threads!();
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        let mut entry = self.log.begin_entry()?;
        for row in rows {
            record(row, &mut self.buf);
            entry.write_chunk(&self.buf)?;
        }
        entry.commit()?;
        Ok(())
    }
}
