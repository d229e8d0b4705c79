//! The log's end is cut off under torture.

use super::client::Client;
use super::follower::Follower;
use super::{SEGMENT_BYTES, Torture};
use seawall_wal::{Error, Lsn, Wal};

impl Torture {
    /// Cuts the log before one of its records, mostly a late one. Whatever fails on the way, it is whole afterwards, or
    /// ends there.
    pub(super) fn cut(
        &mut self,
        wal: &Wal,
        client: &mut Client,
        follower: &mut Option<Follower>,
    ) -> Result<(), String> {
        let Ok(reader) = wal.read(..) else { return Ok(()) };
        let mut begin = Vec::new();
        let records: Result<Vec<(Lsn, Lsn)>, Error> = reader
            .map(|found| {
                found.map(|record| {
                    if begin.is_empty() {
                        begin.push((record.lsn, record.payload.to_vec()));
                    }
                    (record.lsn, record.end)
                })
            })
            .collect();
        let Ok(records) = records else { return Ok(()) };
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len() as u64;
        let late = if self.rng.chance(3, 4) { count.min(6) } else { count };
        let index = (count - 1 - self.rng.below(late)) as usize;
        // The end of the one before is as good a place.
        let before = index.checked_sub(1).filter(|_| self.rng.chance(1, 2));
        let at = before.map_or(records[index].0, |before| records[before].1);
        let (dropped, is_within) = {
            let model = self.model();
            // The log may begin within a batch.
            let first = model.begins_at(wal.first_lsn(), &begin);
            let Some((key, known)) = model.records.range(first..).nth(index) else {
                return Err(format!("record {index} of the live log is none that was written"));
            };
            (*key, *key != known.head)
        };
        let is_older = records[index].0.0 / SEGMENT_BYTES < records[records.len() - 1].0.0 / SEGMENT_BYTES;
        let cut = wal.truncate_after(at);
        self.say(|| format!("cut at {at}, before record {index} of {count}: {cut:?}"));
        match &cut {
            Ok(()) => {
                self.model().cut(dropped);
                if let Some(follower) = follower {
                    follower.cut(dropped);
                }
                if wal.durable_lsn() > at {
                    return Err(format!("cut at {at}, durable is {}", wal.durable_lsn()));
                }
                self.report.hit("log: cut");
                self.report.add("log: cut through a batch", u64::from(is_within));
                self.report.add("log: cut in an older segment", u64::from(is_older));
            }
            Err(Error::NoSpace) => {}
            Err(_) => {
                *follower = None;
                self.report.add("log: power cut while cutting", u64::from(!self.disk.has_power()));
                // A log that goes on was not cut.
                if wal.barrier().is_err() {
                    self.model().may_end.get_or_insert(dropped);
                }
            }
        }
        client.note(&cut)
    }
}
