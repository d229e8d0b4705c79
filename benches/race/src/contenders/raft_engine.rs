//! raft-engine: TiKV's log. Every committer appends to a region of its own, as TiKV does.

use super::{Setup, Store, Writer, driven_by_threads, record};
use crate::Result;
use crate::rows::Row;
use raft_engine::{Config, Engine, LogBatch, ReadableSize};

pub(super) const MODE: &str = "log only; `write(batch, sync)` with a key and value of each row as one record; log files \
     recycled and filled ahead (`prefill_for_recycle`), no compression";

struct RaftEngine(Engine);

struct Committer<'a> {
    engine: &'a Engine,
    region: u64,
    batch: LogBatch,
}

pub(super) fn open(setup: &Setup<'_>) -> Result<Box<dyn Store>> {
    let config = Config {
        dir: setup.dir.join("raft-engine").to_string_lossy().into_owned(),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize::mb(128),
        purge_threshold: ReadableSize::mb(512),
        enable_log_recycle: true,
        prefill_for_recycle: true,
        prefill_limit: Some(ReadableSize::mb(512)),
        ..Config::default()
    };
    Ok(Box::new(RaftEngine(Engine::open(config)?)))
}

impl Store for RaftEngine {
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(Committer { engine: &self.0, region: thread as u64 + 1, batch: LogBatch::default() }))
    }

    driven_by_threads!();
}

impl Writer for Committer<'_> {
    fn commit(&mut self, rows: &[Row<'_>]) -> Result<()> {
        for (slot, row) in rows.iter().enumerate() {
            // The same few names again and again: its index of names, which is no index of rows, stays small.
            let mut payload = Vec::new();
            record(row, &mut payload);
            self.batch.put(self.region, vec![slot as u8], payload)?;
        }
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }
}
