//! Somebody who follows the log under torture, in its process or by its files alone, and what may be shown to it.

use super::model::Model;
use seawall_wal::{Error, Lsn, Next, Record, Wal, WalOptions, WalReader};
use std::path::Path;
use std::time::Duration;

/// A follower of the log, and where it is.
#[derive(Debug)]
pub(super) struct Follower {
    reader: WalReader,
    is_elsewhere: bool,
    /// The model's key of the record that it was shown last, or before which it began.
    last: Option<Lsn>,
    from: Lsn,
    /// What it was shown was cut off: it must be told.
    is_behind_cut: bool,
}

/// What became of looking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// So many records were shown.
    Shown(u64),
    /// It was told that the log was cut before its place.
    ToldOfCut,
    /// What it wanted next was reclaimed.
    LeftBehind,
    /// A fault, or a log that has failed.
    Failed,
}

impl Follower {
    /// From the log's beginning. None where a fault is in the way, or where a cut that has failed, and that may have been
    /// made all the same, took that beginning.
    pub(super) fn begin(
        wal: &Wal,
        dir: &Path,
        elsewhere: Option<&WalOptions>,
        model: &Model,
    ) -> Result<Option<Follower>, String> {
        let from = wal.first_lsn();
        let reader = match elsewhere {
            Some(options) => WalReader::follow_with(dir, from, options),
            None => wal.follow(from),
        };
        match reader {
            Ok(reader) => {
                let is_elsewhere = elsewhere.is_some();
                Ok(Some(Follower { reader, is_elsewhere, last: None, from, is_behind_cut: false }))
            }
            Err(Error::Io { .. }) => Ok(None),
            Err(Error::Truncated { .. }) if model.may_end.is_some_and(|end| from > end) => Ok(None),
            Err(error) => Err(format!("following from {from}: {error}")),
        }
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// The log was cut before this record of the model.
    pub(super) fn cut(&mut self, dropped: Lsn) {
        self.is_behind_cut |= self.last.is_some_and(|last| last >= dropped);
    }

    /// Looks at a few records at most. Each must be the next one of the model, be durable, and survive from now on.
    pub(super) fn look(&mut self, wal: &Wal, model: &mut Model, most: u64) -> Result<Look, String> {
        for shown in 0..most {
            let next = self.reader.next_timeout(Duration::from_micros(50));
            match next {
                Ok(_) if self.is_behind_cut => return Err(format!("not told of a cut: {:?}", self.last)),
                Ok(Next::Record(record)) => self.shown(&record, wal, model)?,
                Ok(_) => return Ok(Look::Shown(shown)),
                Err(Error::Truncated { .. }) if self.is_behind_cut => return Ok(Look::ToldOfCut),
                Err(Error::Reclaimed { .. }) if model.truncated > self.last.unwrap_or(self.from) => {
                    return Ok(Look::LeftBehind);
                }
                Err(Error::Io { .. } | Error::Poisoned(_)) => return Ok(Look::Failed),
                Err(error) => return Err(format!("following behind {:?}: {error}", self.last)),
            }
        }
        Ok(Look::Shown(most))
    }

    fn shown(&mut self, record: &Record, wal: &Wal, model: &mut Model) -> Result<(), String> {
        // A header on the disk may prove what the writer, in the midst of a group, has told nobody yet: that it survives is
        // checked all the same.
        if record.end > wal.durable_lsn() && !self.is_elsewhere {
            let durable = wal.durable_lsn();
            return Err(format!(
                "a follower was shown {} to {}, durable is {durable}",
                record.lsn, record.end
            ));
        }
        let from = match self.last {
            Some(last) => last.plus(1),
            // A log that was cut begins anywhere, within a batch too.
            None => model.begins_at(self.from, &[(record.lsn, record.payload.to_vec())]),
        };
        let known = model.records.range(from..).next();
        let Some((key, known)) = known else {
            return Err(format!("a follower was shown {}, which nobody wrote", record.lsn));
        };
        if record.payload != known.payload || (*key == known.head && *key != record.lsn) {
            let (lsn, last, from) = (record.lsn, self.last, self.from);
            return Err(format!(
                "a follower from {from} was shown {lsn} behind {last:?} where {key} comes next"
            ));
        }
        let key = *key;
        self.last = Some(key);
        model.durable = model.durable.max(key.plus(1));
        model.written = model.written.max(key.plus(1));
        Ok(())
    }
}
