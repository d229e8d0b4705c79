//! Reading and checking everything.

use crate::Result;
use crate::db::Core;
use crate::record;
use crate::stats::{Progress, VerifyReport};
use seawall_wal::Kind;

impl Core {
    /// The tree as of now, block by block, then the streamed values beside it, and what recovery would replay of the log, record by record. What is damaged is reported, and only
    /// what keeps from reading on is an error.
    pub(crate) fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport> {
        let view = self.reads.view();
        let tree = self.store.verify(&view.root, &mut |done, total| progress(Progress { done, total }))?;
        let mut report = VerifyReport {
            blocks: tree.blocks,
            rows: tree.rows,
            runs: tree.runs,
            run_rows: tree.run_rows,
            leaf_bytes: tree.leaf_bytes,
            leaf_bytes_stored: tree.leaf_bytes_stored,
            leaves_compressed: tree.leaves_compressed,
            ..VerifyReport::default()
        };
        report.problems = tree.problems;
        if tree.problems_unlisted > 0 {
            report.problems.push(format!("and {} more problems in the data file", tree.problems_unlisted));
        }
        if let Some(warning) = self.store.superblock_warning() {
            report.notes.push(format!(
                "{warning}; a checkpoint was cut short there, or it is damaged: the next one writes over it"
            ));
        }
        // Streamed values that no tree has yet.
        for value in view.deltas().flat_map(|delta| delta.large()) {
            for piece in value.pieces() {
                if let Err(error) = self.store.read_verified(&piece) {
                    report.problems.push(format!("a value in the log: {error}"));
                }
            }
        }
        // What lies before the checkpoint is needed by nobody. No checkpoint now: it would move under the reader.
        let _alone = self.lock_out_checkpoints();
        let checkpoint = self.reads.deltas().folded;
        let replayed = self.log.replay(checkpoint, &mut |found| {
            report.log_records += 1;
            if found.kind == Kind::EPOCH {
                return Ok(());
            }
            if found.kind != Kind::TRANSACTION {
                report
                    .problems
                    .push(format!("log record at LSN {}: unknown kind {}", found.lsn, found.kind.0));
            } else if let Err(malformed) = record::decode(found.payload) {
                report.problems.push(format!("log record at LSN {}: {malformed}", found.lsn));
            }
            Ok(())
        });
        if let Err(error) = replayed {
            report.problems.push(format!("the log: {error}"));
        }
        Ok(report)
    }
}
