//! A log as a program would leave it, then damaged.

use super::opened::{AFTER, DIR, Shown, look, options, show};
use super::{Damaged, Files, Input, damage, seal};
use crate::disk::SimDisk;
use crate::durability::Durability;
use crate::log::{Outcome, Repair};
use crate::runtime::Rng;
use crate::{Error, Lsn, Wal};
use std::sync::Arc;

/// A valid log, and what is known of it.
struct Sample {
    files: Files,
    earlier: Files,
    /// Everything that was ever appended, in order.
    written: Vec<(Lsn, Vec<u8>)>,
    /// How many of those every reader must find, whatever single block is damaged: a later write vouches for them.
    sure: usize,
    /// How many were reclaimed.
    reclaimed: usize,
}

/// Builds a valid log from the first bytes, damages it as the rest says, with or without recomputing checksums, and
/// opens it in every [`Repair`] mode. What it then shows must be a run of what was written; after a single damage it
/// must also be all that a later write vouches for, unless the log is refused.
pub fn recovery_mutated(data: &[u8]) {
    let mut input = Input::new(data);
    let sample = match Sample::build(&mut input) {
        Ok(sample) => sample,
        Err(error) => panic!("an undamaged log: {error}"),
    };
    let is_direct = input.u8() & 1 == 0;
    let mut files = sample.files.clone();
    let done = damage(&mut files, &sample.earlier, &mut input);
    if done.forged {
        seal::log(&mut files);
    }
    for repair in [Repair::TornTail, Repair::Refuse, Repair::TruncateAtFirstError] {
        let shown = show(&files, repair, is_direct);
        let refusable = repair == Repair::Refuse || done.count > 0;
        assert!(shown.is_some() || refusable, "an undamaged log is refused");
        if let Some(shown) = shown.filter(|_| !done.forged) {
            sample.judge(&shown, done);
        }
    }
    if let Some(records) = look(&files).filter(|_| !done.forged) {
        sample.position(&records);
    }
}

impl Sample {
    fn build(input: &mut Input<'_>) -> Result<Sample, Error> {
        let shape = input.u8();
        let groups = 1 + input.below(16);
        let mut rng = Rng::new(u64::from(input.u16()));
        let disk = SimDisk::new(rng.next_u64());
        let wal = options(&disk).open(DIR)?;
        let mut sample = Sample {
            files: Files::default(),
            earlier: Files::default(),
            written: Vec::new(),
            sure: 0,
            reclaimed: 0,
        };
        let mut acknowledged = 0;
        for group in 0..groups {
            sample.append(&wal, &mut rng, shape)?;
            match rng.below(6) {
                0 => {}
                1 => wal
                    .commit_with("", Durability::Written)
                    .map(|lsn| sample.written.push((lsn, Vec::new())))?,
                choice => {
                    wal.sync()?;
                    // The frame that was just written carries what was durable before it.
                    sample.sure = acknowledged;
                    acknowledged = sample.written.len();
                    if choice == 2 {
                        // Segments ahead, then a seal, which carries the rest.
                        while wal.step()? {}
                        sample.sure = acknowledged;
                    }
                }
            }
            if group == groups / 2 {
                sample.earlier = Files::of(&disk);
                if shape & 1 == 1 {
                    let at = sample.written.get(sample.written.len() / 2).map_or(Lsn::ZERO, |(lsn, _)| *lsn);
                    wal.truncate_before(at.min(wal.durable_lsn()))?;
                }
            }
        }
        let first = wal.first_lsn();
        sample.reclaimed = sample.written.iter().take_while(|(lsn, _)| *lsn < first).count();
        let next: Arc<SimDisk> = match shape >> 1 & 3 {
            0 => disk.kill(),
            1 => disk.crash(),
            _ => {
                wal.close()?;
                sample.sure = sample.written.len();
                disk
            }
        };
        sample.files = Files::of(&next);
        Ok(sample)
    }

    fn append(&mut self, wal: &Wal, rng: &mut Rng, shape: u8) -> Result<(), Error> {
        let count = 1 + rng.below(3);
        let mut payloads = Vec::new();
        for _ in 0..count {
            let bytes = match rng.below(16) {
                0 if shape & 8 != 0 => 60_000 + rng.below(80_000),
                1..=3 => 3000 + rng.below(6000),
                _ => rng.below(300),
            };
            // Each different, so that order shows.
            let mut payload = vec![self.written.len() as u8; bytes as usize];
            for (byte, tag) in payload.iter_mut().zip((self.written.len() + payloads.len()).to_le_bytes()) {
                *byte = tag;
            }
            payloads.push(payload);
        }
        let small = payloads.iter().all(|payload| payload.len() < 10_000);
        if small && rng.chance(1, 3) {
            let mut lsn = wal.append_batch(&payloads)?;
            for payload in payloads {
                let bytes = crate::record::HEADER_BYTES + payload.len();
                self.written.push((lsn, payload));
                lsn = lsn.plus(bytes as u64);
            }
        } else {
            for payload in payloads {
                self.written.push((wal.append(&payload)?, payload));
            }
        }
        Ok(())
    }

    /// What is shown must be a run of what was written. Where the run begins.
    fn position(&self, shown: &[(Lsn, Vec<u8>)]) -> usize {
        let Some((first, _)) = shown.first() else { return self.written.len() };
        let start = self.written.iter().position(|(lsn, _)| lsn == first);
        let start = start.unwrap_or_else(|| panic!("a record at {first} that nobody wrote"));
        let run = self.written.get(start..start + shown.len());
        assert!(run == Some(shown), "records that nobody wrote, or in another order");
        start
    }

    fn judge(&self, shown: &Shown, done: Damaged) {
        let start = self.position(&shown.records);
        let end = if shown.records.is_empty() { self.reclaimed } else { start + shown.records.len() };
        assert!(shown.is_whole, "recovery let a frame pass that reading does not");
        assert!(
            shown.records.is_empty() || start <= self.reclaimed,
            "the log's beginning is missing: {start} > {}",
            self.reclaimed
        );
        if shown.outcome != Outcome::AcknowledgedLoss && (done.count == 0 || done.is_single()) {
            assert!(end >= self.sure.min(self.written.len()), "{end} of {} records", self.sure);
        }
        match &shown.again {
            Ok(again) => {
                let after = again.last().is_some_and(|(_, payload)| payload == AFTER);
                let before = again.len().saturating_sub(1);
                assert!(
                    after && again.get(..before) == Some(&shown.records[..]),
                    "another log the next time"
                );
            }
            Err(error) => assert!(done.files, "writing to a log that opened: {error}"),
        }
    }
}
