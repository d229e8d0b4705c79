//! What a fold does with runs: writes them, and brings what they have into their trees (R1–R4: see `run`).

use super::super::changes::{Change, Changes};
use super::super::filter::FilterKeys;
use super::super::merge::{Making, Old, merge};
use super::super::ptr::{BlockKind, Ptr};
use super::super::run::{Joined, Run, Taken, next_number};
use super::super::{Error, Result, TreeRoot};
use super::{Fold, Held};
use crate::cover::Span;
use crate::mutation::Mutation;
use crate::record::Compression;
use seawall_wal::Slice;
use std::sync::Arc;

impl Fold {
    /// Merges changes into the tree, with what runs have within a span: so much for each of these.
    pub(super) fn take_in<K: AsRef<[u8]>>(
        &mut self,
        keyspace: u32,
        compression: Compression,
        runs: (&[Arc<Run>], &Span),
        cleared: Vec<Span>,
        changes: impl Iterator<Item = Result<(K, Change)>>,
        on_row: &mut dyn FnMut(),
    ) -> Result<Vec<Held>> {
        let mut taken = Taken::default();
        let of = (keyspace, compression);
        let joined = Joined::new(&Arc::clone(&self.store), of, runs, cleared.clone(), changes, &mut taken)?;
        self.merge(keyspace, compression, cleared, joined.inspect(|_| on_row()))?;
        taken.hidden.iter().try_for_each(|value| self.kill_value(value))?;
        Ok(taken.held)
    }

    /// Takes what the runs of a keyspace have within a span into its tree, and out of them (R3, R4). Before
    /// [`spill`](Self::spill), which then clears nothing.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub(crate) fn roll(
        &mut self,
        keyspace: u32,
        compression: Compression,
        span: &Span,
        on_row: &mut dyn FnMut(),
    ) -> Result<()> {
        self.guarded(|fold| {
            let Some(runs) = fold.runs.get(&keyspace).cloned() else { return Ok(()) };
            let none = std::iter::empty::<Result<(Slice, Change)>>();
            let held = fold.take_in(keyspace, compression, (&runs, span), Vec::new(), none, on_row)?;
            if fold.store.errs_in_runs(Mutation::RollUncleared) {
                return Ok(());
            }
            let mut left = Vec::new();
            for (run, held) in runs.iter().zip(held) {
                let cleared = vec![span.clone()];
                let root = fold.without(keyspace, compression, run, (cleared, true))?;
                left.extend(root.map(|root| {
                    run.with(TreeRoot {
                        ptr: root.ptr,
                        rows: run.root.rows.saturating_sub(held.rows),
                        payload_bytes: run.root.payload_bytes.saturating_sub(held.payload_bytes),
                        extents: run.root.extents.saturating_sub(held.extents),
                        is_bound: run.root.is_bound,
                    })
                }));
            }
            fold.leave_runs(keyspace, left);
            Ok(())
        })
    }

    /// As [`apply_over`](Self::apply_over), but the changes become the keyspace's newest run, and its tree and other runs
    /// lose what is cleared alone.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub(crate) fn spill<K: AsRef<[u8]>>(
        &mut self,
        keyspace: u32,
        compression: Compression,
        cleared: Vec<Span>,
        changes: impl Iterator<Item = Result<(K, Change)>>,
    ) -> Result<()> {
        self.guarded(|fold| {
            fold.comes_to(keyspace)?;
            if !cleared.is_empty() && !fold.store.errs_in_runs(Mutation::SpillUncleared) {
                let none = || std::iter::empty::<Result<(K, Change)>>();
                fold.merge(keyspace, compression, cleared.clone(), none())?;
                fold.clear_runs(keyspace, compression, &cleared)?;
            }
            let mut changes = Changes::new(changes)?;
            let old = Old { tree: None, cleared: Vec::new(), keeps_values: false, compression };
            let (Some(root), keys) = merge(fold, keyspace, Making::Run, old, &mut changes)? else {
                return Ok(());
            };
            let filter = fold.write_filter(&keys)?;
            let runs = fold.runs.entry(keyspace).or_default();
            let number = next_number(runs)?;
            runs.insert(0, Run::new(number, root, filter));
            if fold.store.errs_in_runs(Mutation::SpillUnlisted) {
                runs.remove(0);
            }
            fold.changed.insert((keyspace, Some(number)));
            Ok(())
        })
    }

    /// Takes what is cleared out of all runs of a keyspace.
    fn clear_runs(&mut self, keyspace: u32, compression: Compression, cleared: &[Span]) -> Result<()> {
        let mut left = Vec::new();
        for run in self.runs.remove(&keyspace).unwrap_or_default() {
            let root = self.without(keyspace, compression, &run, (cleared.to_vec(), false))?;
            left.extend(root.map(|root| run.with(root)));
        }
        self.leave_runs(keyspace, left);
        Ok(())
    }

    /// A run without some spans, whose values in extents of their own go too or are kept; none if nothing is left.
    fn without(
        &mut self,
        keyspace: u32,
        compression: Compression,
        run: &Run,
        (cleared, keeps_values): (Vec<Span>, bool),
    ) -> Result<Option<TreeRoot>> {
        self.changed.insert((keyspace, Some(run.number)));
        let old = Old { tree: Some(run.root), cleared, keeps_values, compression };
        let mut none = Changes::new(std::iter::empty::<Result<(Slice, Change)>>())?;
        let (left, _) = merge(self, keyspace, Making::Run, old, &mut none)?;
        if left.is_none() {
            self.kill(run.filter_at());
        }
        Ok(left)
    }

    fn leave_runs(&mut self, keyspace: u32, runs: Vec<Arc<Run>>) {
        match runs.is_empty() {
            true => self.runs.remove(&keyspace),
            false => self.runs.insert(keyspace, runs),
        };
    }

    fn write_filter(&mut self, keys: &FilterKeys) -> Result<Ptr> {
        let bytes = keys.block_bytes();
        if u32::try_from(bytes).is_err() {
            let max = u64::from(u32::MAX);
            return Err(Error::TooLarge { what: "a run's filter", len: bytes as u64, max });
        }
        let written = self.writer.block(bytes, |_, out| keys.encode(out))?;
        self.blocks_written += 1;
        Ok(self.ptr_to(written, BlockKind::Filter))
    }

    pub(super) fn kill_run(&mut self, keyspace: u32, run: &Run, has_extents: bool) -> Result<()> {
        self.changed.insert((keyspace, Some(run.number)));
        self.kill(run.filter_at());
        self.kill_below(keyspace, &run.root.ptr, has_extents).map(drop)
    }
}
